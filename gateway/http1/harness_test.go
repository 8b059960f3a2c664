package http1

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/caller"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// script is a connection that the client sent octets on, in pieces of a size, and then closed its side of.
type script struct {
	net.Conn
	octets []byte
	piece  int
	sent   bytes.Buffer
	writes int
	closed bool
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.octets) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.piece)], s.octets)
	s.octets = s.octets[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error) {
	s.writes++
	return s.sent.Write(p)
}

func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) Close() error                     { s.closed = true; return nil }

// owner grants some terms.
type owner struct {
	terms caller.Terms
	mu    sync.Mutex
	last  bool
	reset int
	begun int
	open  int
}

func (o *owner) Terms() *caller.Terms { return &o.terms }

func (o *owner) Begin() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begun++
	o.open++
	return true
}

func (o *owner) Done() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open--
}

func (o *owner) Last() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

func (o *owner) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = true
}

func (o *owner) Reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reset++
}

func generous() *owner {
	return &owner{terms: caller.Terms{Listener: "web", MaxBody: 1 << 20, Limits: caller.Limits{
		Head: 8 << 10, Fields: 50, Header: 10 * time.Second, Body: 10 * time.Second, Idle: 30 * time.Second, Write: 10 * time.Second,
	}}}
}

// server answers with handler; refused, when it is not nil, is told of refusals.
func server(handler func(context.Context, *exchange.Exchange), refused func(string)) *Server {
	return NewServer(caller.Service{
		Log: slog.New(loud{slog.DiscardHandler}), Handler: handler, NewID: func() string { return "x" },
		Refused: func(_, reason string) {
			if refused != nil {
				refused(reason)
			}
		},
	})
}

// loud is a log that does not let a fault of the engine pass.
type loud struct{ slog.Handler }

func (loud) Enabled(context.Context, slog.Level) bool { return true }

func (loud) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "connection failed" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "panic" {
				panic(a.Value.String())
			}
			return true
		})
	}
	return nil
}

// run serves a whole script and returns what was sent.
func run(octets string, piece int, o *owner, handler func(context.Context, *exchange.Exchange)) string {
	s := &script{octets: []byte(octets), piece: piece}
	server(handler, nil).Conn(s, nil, &caller.Peer{Connection: o}).Serve(context.Background())
	return s.sent.String()
}

// pipe serves one end of a pipe with handler and returns the other end, and what is closed when serving is over.
func pipe(o *owner, handler func(context.Context, *exchange.Exchange)) (net.Conn, *Conn, chan struct{}) {
	client, inner := net.Pipe()
	c := server(handler, nil).Conn(inner, nil, &caller.Peer{Connection: o})
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Serve(context.Background())
	}()
	return client, c, done
}

// reply is a handler's whole reply with a text.
func reply(x *exchange.Exchange, status int, text string) {
	if x.Reply.Head(status, exchange.Header{{Name: "content-type", Value: "text/plain"}}, int64(len(text))) == nil {
		_, _ = x.Reply.Write([]byte(text))
		_ = x.Reply.End(nil)
	}
}

// echo replies with the body, or says whose fault it is that it can not.
func echo(_ context.Context, x *exchange.Exchange) {
	b, err := io.ReadAll(x.Request.Body)
	if err != nil {
		reply(x, 400, err.Error())
		return
	}
	reply(x, 200, x.Request.Path+" "+string(b))
}

// answer is one response read off what was sent.
type answer struct {
	status int
	body   string
	header http.Header
	close  bool
	whole  bool
}

// answers reads responses to GETs until the octets are over.
func answers(t testing.TB, sent string) (list []answer) {
	t.Helper()
	br := bufio.NewReader(strings.NewReader(sent))
	for {
		if _, err := br.Peek(1); err != nil {
			return list
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("what was sent is no HTTP: %v in %q", err, sent)
		}
		b, err := io.ReadAll(resp.Body)
		list = append(list, answer{resp.StatusCode, string(b), resp.Header, resp.Close, err == nil})
	}
}

// statuses is the codes of responses.
func statuses(t testing.TB, sent string) (list []int) {
	t.Helper()
	for _, a := range answers(t, sent) {
		list = append(list, a.status)
	}
	return list
}

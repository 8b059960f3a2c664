package listener

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/postern-gateway/postern/gateway/certificate"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// all is every protocol.
var all = []exchange.Protocol{exchange.HTTP1, exchange.HTTP2, exchange.HTTP3}

// rig is a Set with one listener and what it logged.
type rig struct {
	t    testing.TB
	set  *Set
	cfg  *config.Listener
	dir  string
	addr string
	log  *lockedBuffer
	seen observed
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type observed struct {
	open    atomic.Int64
	opened  atomic.Int64 // ever
	mu      sync.Mutex
	refused map[string]int
}

func (o *observed) Opened(string, exchange.Protocol) {
	o.open.Add(1)
	o.opened.Add(1)
}

func (o *observed) Closed(string, exchange.Protocol) { o.open.Add(-1) }
func (o *observed) Refused(_, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refused == nil {
		o.refused = make(map[string]int)
	}
	o.refused[reason]++
}

func (o *observed) count(reason string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.refused[reason]
}

// cleartext is a listener of HTTP/1.1 and 2 without TLS, with limits a test can meet.
func cleartext() *config.Listener {
	return &config.Listener{
		Name: "web", Address: "127.0.0.1:0", Protocols: []exchange.Protocol{exchange.HTTP1, exchange.HTTP2}, Drain: 5 * time.Second,
		Limits:   config.Limits{Header: 32 << 10, Headers: 100, Body: 10 << 20, Requests: 10000, Connections: 1000, Streams: 100, Control: 2000},
		Timeouts: config.ListenerTimeouts{Header: 10 * time.Second, Body: 10 * time.Second, Idle: 30 * time.Second, Write: 10 * time.Second},
		QUIC:     config.QUIC{Window: 1 << 20, ConnectionWindow: 4 << 20},
	}
}

// secure is a listener of all three protocols.
func secure() *config.Listener {
	l := cleartext()
	l.Protocols = all
	l.TLS = &config.TLS{SelfSigned: []string{"localhost", "127.0.0.1"}}
	return l
}

func start(t testing.TB, l *config.Listener, h Handler) *rig {
	t.Helper()
	r := &rig{t: t, cfg: l, dir: t.TempDir(), log: &lockedBuffer{}}
	var id atomic.Int64
	r.set = New(Config{
		Log:     slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Handler: h, NewID: func() string { return "x-" + strconv.FormatInt(id.Add(1), 10) }, Dir: r.dir, Observer: &r.seen,
	})
	if err := r.set.Apply(context.Background(), []*config.Listener{l}); err != nil {
		t.Fatal(err)
	}
	r.addr = r.set.Addresses()[l.Name].String()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_ = r.set.Shutdown(ctx)
		if n := r.seen.open.Load(); n != 0 {
			t.Errorf("%d connections are left after Shutdown", n)
		}
	})
	return r
}

// roots trusts the development CA.
func (r *rig) roots() *tls.Config {
	r.t.Helper()
	pem, err := os.ReadFile(certificate.DevelopmentCA(r.dir))
	if err != nil {
		r.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		r.t.Fatal("no CA")
	}
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

// client speaks one protocol for real.
func (r *rig) client(p exchange.Protocol) *http.Client {
	r.t.Helper()
	var tc *tls.Config
	if r.cfg.TLS != nil {
		tc = r.roots()
	}
	return r.clientWith(p, tc)
}

func (r *rig) clientWith(p exchange.Protocol, tc *tls.Config) *http.Client {
	if p == exchange.HTTP3 {
		t := &http3.Transport{TLSClientConfig: tc}
		r.t.Cleanup(func() { _ = t.Close() })
		return &http.Client{Transport: t}
	}
	protocols := new(http.Protocols)
	switch {
	case p == exchange.HTTP1:
		protocols.SetHTTP1(true)
	case tc != nil:
		protocols.SetHTTP2(true)
	default:
		protocols.SetUnencryptedHTTP2(true)
	}
	t := &http.Transport{TLSClientConfig: tc, Protocols: protocols, DisableCompression: true, ExpectContinueTimeout: 5 * time.Second}
	r.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}

func (r *rig) url(path string) string {
	if r.cfg.TLS != nil {
		return "https://" + r.addr + path
	}
	return "http://" + r.addr + path
}

// each runs f with a client of every protocol the listener speaks.
func (r *rig) each(t *testing.T, f func(t *testing.T, c *http.Client, p exchange.Protocol)) {
	for _, p := range r.cfg.Protocols {
		c := r.client(p)
		t.Run(p.String(), func(t *testing.T) { f(t, c, p) })
	}
}

// raw is a TCP connection to the listener that gives up after a while.
func (r *rig) raw() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// send writes octets on a new connection and returns everything that comes back until the listener closes.
func (r *rig) send(octets string) string {
	r.t.Helper()
	c := r.raw()
	_, _ = io.WriteString(c, octets)
	return r.rest(c)
}

func (r *rig) rest(c io.Reader) string {
	r.t.Helper()
	b, err := io.ReadAll(c)
	if err != nil && strings.Contains(err.Error(), "timeout") {
		r.t.Fatalf("connection stays open after %q", b)
	}
	return string(b)
}

// status is the code of the n-th response in octets; 0 when there is none.
func status(octets string, n int) int {
	br := bufio.NewReader(strings.NewReader(octets))
	for {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return 0
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if n--; n < 0 {
			return resp.StatusCode
		}
	}
}

// reply is a handler's whole reply with a text.
func reply(x *exchange.Exchange, status int, text string) {
	if x.Reply.Head(status, exchange.Header{{Name: "content-type", Value: "text/plain"}}, int64(len(text))) == nil {
		_, _ = x.Reply.Write([]byte(text))
		_ = x.Reply.End(nil)
	}
}

// describe is a handler that says what reached it, after reading the body.
func describe(_ context.Context, x *exchange.Exchange) {
	b, err := io.ReadAll(x.Request.Body)
	if err != nil {
		reply(x, 400, err.Error())
		return
	}
	var s strings.Builder
	r := &x.Request
	s.WriteString(r.Protocol.String() + " " + r.Method + " " + r.Scheme + " " + r.Authority + " " + r.Path + " ?" + r.Query + " " +
		strconv.FormatInt(r.Length, 10) + "\n")
	for _, f := range r.Header {
		s.WriteString(f.Name + ": " + f.Value + "\n")
	}
	s.WriteString("\n" + string(b))
	for _, f := range r.Body.Trailer() {
		s.WriteString("\n" + f.Name + ": " + f.Value)
	}
	reply(x, 200, s.String())
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return resp, text(t, resp)
}

func text(t testing.TB, resp *http.Response) string {
	t.Helper()
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

// rigConfig is a listener a table can name.
type rigConfig struct{ cfg *config.Listener }

func cleartextRig() *rigConfig { return &rigConfig{cleartext()} }
func secureRig() *rigConfig    { return &rigConfig{secure()} }

// tlsDial opens a TLS connection that agrees on protocol.
func (r *rig) tlsDial(protocol string) *tls.Conn {
	r.t.Helper()
	tc := r.roots()
	tc.NextProtos = []string{protocol}
	c, err := tls.Dial("tcp", r.addr, tc)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// echoUpgrade is a WebSocket server that sends back what it is sent.
func echoUpgrade(ctx context.Context, x *exchange.Exchange) {
	if x.Request.Upgrade == "" {
		if _, err := x.Reply.Upgrade(nil); !errors.Is(err, exchange.ErrNoUpgrade) {
			reply(x, 500, "upgraded what did not ask for it")
			return
		}
		reply(x, 200, "no")
		return
	}
	sum := sha1.Sum([]byte(x.Request.Header.Get("sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	rw, err := x.Reply.Upgrade(exchange.Header{{Name: "sec-websocket-accept", Value: base64.StdEncoding.EncodeToString(sum[:])}})
	if err != nil {
		return
	}
	for {
		h := make([]byte, 2)
		if _, err := io.ReadFull(rw, h); err != nil {
			return
		}
		n := uint64(h[1] & 0x7f)
		size := map[uint64]int{126: 2, 127: 8}[n]
		if size > 0 {
			ext := make([]byte, size)
			_, _ = io.ReadFull(rw, ext)
			n = 0
			for _, b := range ext {
				n = n<<8 | uint64(b)
			}
			h = append(h, ext...)
		}
		body := make([]byte, n+4)
		if _, err := io.ReadFull(rw, body); err != nil {
			return
		}
		for i := range body[4:] {
			body[4+i] ^= body[i%4]
		}
		h[1] &= 0x7f
		if _, err := rw.Write(append(h, body[4:]...)); err != nil || ctx.Err() != nil {
			return
		}
	}
}

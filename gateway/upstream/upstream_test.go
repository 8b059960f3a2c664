package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// settled fails the test when goroutines are left over after it.
func settled(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for range 200 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		b := make([]byte, 1<<20)
		t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), b[:runtime.Stack(b, true)])
	})
}

// open makes an upstream of endpoints and closes it with the test.
func open(t testing.TB, cfg config.Upstream, endpoints ...string) *Upstream {
	t.Helper()
	cfg.Name = "test"
	for _, e := range endpoints {
		u, err := url.Parse(e)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Endpoints = append(cfg.Endpoints, config.Endpoint{URL: u, Weight: 1})
	}
	u, err := New(&cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := u.Close(ctx); err != nil {
			t.Error(err)
		}
		if s := u.Status(); s[0].Connections != 0 {
			t.Errorf("%d connections after Close", s[0].Connections)
		}
	})
	return u
}

// raw listens and gives every connection to serve, with its number from 1.
func raw(t testing.TB, serve func(n int, c net.Conn, r *bufio.Reader)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); work.Wait() })
	work.Go(func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				serve(n, c, bufio.NewReader(c))
			})
		}
	})
	return "http://" + l.Addr().String()
}

// head reads a request's head and returns it.
func head(r *bufio.Reader) string {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return ""
		}
		b.WriteString(line)
		if line == "\r\n" {
			return b.String()
		}
	}
}

func get(path string) *Request { return &Request{Method: "GET", Path: path} }

// whole makes one attempt and reads all of it.
func whole(t testing.TB, u *Upstream, r *Request) (*Response, string, error) {
	t.Helper()
	resp, err := u.RoundTrip(context.Background(), r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

func kind(t testing.TB, err error, k Kind, s Sent) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want %s", err, k)
	}
	if e.Kind != k || e.Sent != s {
		t.Fatalf("%s, %s (%v); want %s, %s", e.Kind, e.Sent, e.Err, k, s)
	}
}

func TestRoundTrip(t *testing.T) {
	settled(t)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Add("Set-Cookie", "a=1")
		w.Header().Add("Set-Cookie", "b=2")
		w.Header().Set("X-Path", r.URL.EscapedPath()+"?"+r.URL.RawQuery)
		w.Header().Set("X-Agent", r.Header.Get("User-Agent")+r.Header.Get("Accept-Encoding"))
		w.Header().Set("X-Two", strings.Join(r.Header["X-Two"], "|"))
		w.Header().Set("X-Trailer", r.Trailer.Get("X-Sum"))
		w.Header().Set("Trailer", "X-End")
		fmt.Fprintf(w, "%s %s %s", r.Proto, r.Method, b)
		w.Header().Set("X-End", "done")
	})
	h2c := httptest.NewUnstartedServer(handler)
	h2c.Config.Protocols = new(http.Protocols)
	h2c.Config.Protocols.SetUnencryptedHTTP2(true)
	h2c.Start()
	defer h2c.Close()
	h1 := httptest.NewServer(handler)
	defer h1.Close()
	secure := httptest.NewUnstartedServer(handler)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	defer secure.Close()
	ca := caFile(t, secure)

	quicURL := serveQUIC(t, handler, secure.TLS)

	tests := []struct {
		name, protocol, url, proto string
	}{
		{"http1", "http1", h1.URL, "HTTP/1.1"},
		{"auto in cleartext", "auto", h1.URL, "HTTP/1.1"},
		{"http2 with prior knowledge", "http2", h2c.URL, "HTTP/2.0"},
		{"http1 over TLS", "http1", secure.URL, "HTTP/1.1"},
		{"http2 over TLS", "http2", secure.URL, "HTTP/2.0"},
		{"auto over TLS", "auto", secure.URL, "HTTP/2.0"},
		{"http3", "http3", quicURL, "HTTP/3.0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			u := open(t, config.Upstream{Protocol: test.protocol, TLS: config.UpstreamTLS{CA: ca}, Pool: config.UpstreamPool{Idle: 4}}, test.url+"/base/")
			for range 3 {
				r := &Request{
					Method: "POST", Path: "/a%2Fb/c%20d", Query: "q=%zz",
					Header: exchange.Header{{Name: "x-two", Value: "1"}, {Name: "trailer", Value: "x-sum"}, {Name: "x-two", Value: "2"}, {Name: "connection", Value: "x-two"}},
					Body:   &trailed{Reader: strings.NewReader("hello"), trailer: exchange.Header{{Name: "x-sum", Value: "42"}, {Name: "x-other", Value: "no"}}},
					Length: -1,
				}
				resp, body, err := whole(t, u, r)
				if err != nil {
					t.Fatal(err)
				}
				if body != test.proto+" POST hello" {
					t.Errorf("body %q", body)
				}
				h := resp.Header
				if got := h.Get("x-path"); got != "/base/a%2Fb/c%20d?q=%zz" {
					t.Errorf("path %q", got)
				}
				if h.Get("x-agent") != "" || h.Get("x-two") != "1|2" || h.Count("set-cookie") != 2 || h.Count("content-length") != 0 {
					t.Errorf("header %v", h)
				}
				if test.protocol != "http3" && h.Get("x-trailer") != "42" {
					t.Errorf("request trailer %q", h.Get("x-trailer"))
				}
				if got := resp.Body.Trailer().Get("x-end"); got != "done" {
					t.Errorf("trailer %q", got)
				}
			}
			if s := u.Status()[0]; s.Connections != 1 || s.Requests != 3 || s.InFlight != 0 || s.Idle != 1 {
				t.Errorf("status %+v", s)
			}
		})
	}
}

type trailed struct {
	io.Reader
	trailer exchange.Header
}

func (b *trailed) Close() error             { return nil }
func (b *trailed) Trailer() exchange.Header { return b.trailer }

// caFile writes a test server's certificate where an upstream can read it.
func caFile(t *testing.T, s *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func serveQUIC(t *testing.T, h http.Handler, c *tls.Config) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http3.Server{Handler: h, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: c.Certificates})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(conn) }()
	t.Cleanup(func() { _ = s.Close(); <-done; _ = conn.Close() })
	return "https://" + conn.LocalAddr().String()
}

// A server that closes a kept connection just as a request arrives has maybe seen it. The request is not sent again by
// anything below Again, whatever the method and whatever an Idempotency-Key invites to.
func TestNeverSentTwice(t *testing.T) {
	settled(t)
	for _, method := range []string{"GET", "POST", "PUT"} {
		t.Run(method, func(t *testing.T) {
			var seen atomic.Int32
			address := raw(t, func(_ int, c net.Conn, r *bufio.Reader) {
				if head(r) == "" {
					return
				}
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				for head(r) != "" {
					seen.Add(1)
					return // closes without an answer
				}
			})
			u := open(t, config.Upstream{Pool: config.UpstreamPool{Idle: 4}, Retry: config.Retry{On: []string{"connect"}, Budget: 1, Attempts: 5}}, address)
			if _, _, err := whole(t, u, get("/")); err != nil {
				t.Fatal(err)
			}
			r := &Request{Method: method, Path: "/", Header: exchange.Header{{Name: "idempotency-key", Value: "x"}}, Body: exchange.NewBytes(nil)}
			_, _, err := whole(t, u, r)
			kind(t, err, Reset, MaybeSent)
			if u.Again(context.Background(), r, nil, err) {
				t.Error("would be sent again although reset is not listed")
			}
			if n := seen.Load(); n != 1 {
				t.Errorf("%d requests arrived, want 1", n)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	settled(t)
	refused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = refused.Close()
	answer := func(s string) func(int, net.Conn, *bufio.Reader) {
		return func(_ int, c net.Conn, r *bufio.Reader) {
			head(r)
			fmt.Fprint(c, s)
		}
	}
	stall := func(s string) func(int, net.Conn, *bufio.Reader) {
		return func(_ int, c net.Conn, r *bufio.Reader) {
			head(r)
			fmt.Fprint(c, s)
			_, _ = r.ReadByte()
		}
	}
	tests := []struct {
		name  string
		serve func(int, net.Conn, *bufio.Reader)
		kind  Kind
		sent  Sent
	}{
		{"nothing there", nil, Connect, NotSent},
		{"closes without an answer", answer(""), Reset, MaybeSent},
		{"no HTTP", answer("hello\r\n\r\n"), Invalid, MaybeSent},
		{"two lengths", answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"), Invalid, MaybeSent},
		{"cut in the head", answer("HTTP/1.1 200 OK\r\nContent-"), Invalid, MaybeSent},
		{"cut in the body", answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"), Reset, Begun},
		{"cut in a chunk", answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), Reset, Begun},
		{"broken chunk", answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab"), Invalid, Begun},
		{"unasked upgrade", answer("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"), Invalid, Begun},
		{"no answer", stall(""), Timeout, MaybeSent},
		{"stalls in the body", stall("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"), Timeout, Begun},
		{"huge head", answer("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20)), Invalid, MaybeSent},
		{"interim without end", answer(strings.Repeat("HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", 1000)), Invalid, MaybeSent},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			address := "http://" + refused.Addr().String()
			if test.serve != nil {
				address = raw(t, test.serve)
			}
			u := open(t, config.Upstream{
				Timeouts: config.UpstreamTimeouts{FirstByte: 150 * time.Millisecond, Idle: 150 * time.Millisecond},
				Health:   config.Health{Failures: 1},
			}, address)
			r := get("/")
			r.Interim = func(int, exchange.Header) error { return nil }
			_, _, err := whole(t, u, r)
			kind(t, err, test.kind, test.sent)
			s := u.Status()[0]
			if s.Failed != 1 || s.Ejected.IsZero() || s.Reason == "" || u.Usable() {
				t.Errorf("the failure was not held against the endpoint: %+v", s)
			}
			if s.Connections != 0 || s.InFlight != 0 {
				t.Errorf("connection kept: %+v", s)
			}
		})
	}
}

// What can not be sent is nobody's fault but the caller's, and costs no connection's worth of octets.
func TestUnsendable(t *testing.T) {
	settled(t)
	address := raw(t, func(_ int, _ net.Conn, r *bufio.Reader) {
		if text := head(r); text != "" {
			t.Errorf("the upstream got %q", text)
		}
	})
	u := open(t, config.Upstream{Health: config.Health{Failures: 1}}, address)
	for _, field := range []exchange.Field{{Name: "x", Value: "a\r\nEvil: b"}, {Name: "x y", Value: "a"}, {Name: "x\n", Value: ""}} {
		r := get("/")
		r.Header = exchange.Header{field}
		_, _, err := whole(t, u, r)
		kind(t, err, Unsendable, NotSent)
	}
	if s := u.Status()[0]; s.Failed != 0 || !s.Usable {
		t.Errorf("held against the endpoint: %+v", s)
	}
}

// What a client does wrong, or that it goes, is not held against the endpoint.
func TestClientFaults(t *testing.T) {
	settled(t)
	for _, protocol := range []string{"http1", "http2"} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}))
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetHTTP1(true)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
		defer s.Close()
		t.Run(protocol, func(t *testing.T) {
			u := open(t, config.Upstream{Protocol: protocol, Health: config.Health{Failures: 1}, Pool: config.UpstreamPool{Idle: 1}}, s.URL)
			for _, want := range []error{exchange.ErrClientBody, exchange.ErrBodyTooLarge, exchange.ErrBodyTimeout, exchange.ErrClientGone} {
				body := &trailed{Reader: io.MultiReader(strings.NewReader("abc"), failing{want})}
				_, _, err := whole(t, u, &Request{Method: "POST", Path: "/", Body: body, Length: -1})
				if !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			}
			_, _, err := whole(t, u, &Request{Method: "POST", Path: "/", Body: &trailed{Reader: strings.NewReader("abc")}, Length: 5})
			if !errors.Is(err, exchange.ErrClientBody) {
				t.Errorf("short body: %v", err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(50*time.Millisecond, cancel)
			_, err = u.RoundTrip(ctx, get("/"))
			kind(t, err, Canceled, MaybeSent)
			if s := u.Status()[0]; s.Failed != 0 || s.Failures != 0 || !s.Usable || s.InFlight != 0 {
				t.Errorf("held against the endpoint: %+v", s)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// blocked is a body whose Read waits until it is closed.
type blocked struct {
	once   sync.Once
	closed chan struct{}
	first  io.Reader
	reads  atomic.Int32 // under way
}

func newBlocked(first string) *blocked {
	return &blocked{closed: make(chan struct{}), first: strings.NewReader(first)}
}

func (b *blocked) Read(p []byte) (int, error) {
	b.reads.Add(1)
	defer b.reads.Add(-1)
	if n, err := b.first.Read(p); n > 0 || err != io.EOF {
		return n, err
	}
	<-b.closed
	return 0, exchange.ErrClientGone
}
func (b *blocked) Close() error             { b.once.Do(func() { close(b.closed) }); return nil }
func (b *blocked) Trailer() exchange.Header { return nil }

// An upstream may answer before it has the body: the answer arrives, the upload ends, and nobody reads the body any more.
func TestEarlyAnswer(t *testing.T) {
	settled(t)
	refusing := raw(t, func(_ int, c net.Conn, r *bufio.Reader) {
		head(r)
		fmt.Fprint(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
	})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(413)
		_, _ = io.WriteString(w, "big")
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	for _, test := range []struct{ name, protocol, url string }{{"http1", "http1", refusing}, {"http2", "http2", s.URL}} {
		t.Run(test.name, func(t *testing.T) {
			u := open(t, config.Upstream{Protocol: test.protocol}, test.url)
			for range 20 {
				body := &trailed{Reader: io.LimitReader(zeros{}, 8<<20)}
				resp, text, err := whole(t, u, &Request{Method: "POST", Path: "/", Body: body, Length: 8 << 20})
				if err != nil {
					t.Fatal(err)
				}
				if resp.Status != 413 || text != "big" {
					t.Errorf("%d %q", resp.Status, text)
				}
			}
			body := newBlocked("abc")
			if _, text, err := whole(t, u, &Request{Method: "POST", Path: "/", Body: body, Length: -1}); err != nil || text != "big" {
				t.Errorf("%q, %v", text, err)
			}
			if body.reads.Load() != 0 {
				t.Error("the client's body is still read")
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

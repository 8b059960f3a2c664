package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/upstream"
)

// settled fails the test when goroutines are left over after it.
func settled(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for range 300 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		b := make([]byte, 1<<20)
		t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), b[:runtime.Stack(b, true)])
	})
}

// open makes an upstream that is closed with the test.
func open(t testing.TB, cfg config.Upstream, endpoints ...string) *upstream.Upstream {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "test"
	}
	if cfg.Pool.Idle == 0 {
		cfg.Pool.Idle = 16
	}
	for _, e := range endpoints {
		u, err := url.Parse(e)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Endpoints = append(cfg.Endpoints, config.Endpoint{URL: u, Weight: 1})
	}
	u, err := upstream.New(&cfg, upstream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := u.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return u
}

// raw listens and gives every connection to serve once a request's head was read.
func raw(t testing.TB, serve func(c net.Conn, r *bufio.Reader)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); work.Wait() })
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				r := bufio.NewReader(c)
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					if line == "\r\n" {
						break
					}
				}
				serve(c, r)
			})
		}
	})
	return "http://" + l.Addr().String()
}

// recorder is a client that writes down what it gets.
type recorder struct {
	mu      sync.Mutex
	status  int
	header  exchange.Header
	length  int64
	body    strings.Builder
	flushed []string // what the client had at each flush
	trailer exchange.Header
	interim []int
	ended   bool
	aborted bool
	fail    error         // of Write, once failAt octets were written
	failAt  int           //
	wrote   chan struct{} // receives after each flush when not nil
}

func (r *recorder) Interim(status int, h exchange.Header) error {
	r.interim = append(r.interim, status)
	return nil
}

func (r *recorder) Head(status int, h exchange.Header, length int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status != 0 {
		panic("two heads")
	}
	r.status, r.header, r.length = status, h, length
	return nil
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil && r.body.Len()+len(p) > r.failAt {
		return 0, r.fail
	}
	return r.body.Write(p)
}

func (r *recorder) Flush() error {
	r.mu.Lock()
	r.flushed = append(r.flushed, r.body.String())
	r.mu.Unlock()
	if r.wrote != nil {
		r.wrote <- struct{}{}
	}
	return nil
}

func (r *recorder) End(trailer exchange.Header) error { r.ended, r.trailer = true, trailer; return nil }
func (r *recorder) Upgrade(exchange.Header) (io.ReadWriteCloser, error) {
	return nil, exchange.ErrNoUpgrade
}
func (r *recorder) Abort() { r.aborted = true }

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.body.String()
}

// ask makes an exchange for a recorder.
func ask(method, path, body string, fields ...string) (*exchange.Exchange, *recorder) {
	rec := new(recorder)
	x := &exchange.Exchange{ID: "x-1", Reply: rec, Request: exchange.Request{
		Protocol: exchange.HTTP1, Method: method, Scheme: "https", Authority: "api.example.com", Path: path,
		Body: exchange.NewBytes([]byte(body)), Length: int64(len(body)),
		Remote: netip.MustParseAddrPort("192.0.2.7:4711"),
	}}
	for i := 0; i < len(fields); i += 2 {
		x.Request.Header.Add(fields[i], fields[i+1])
	}
	return x, rec
}

func problem(t testing.TB, err error, status int, code string) {
	t.Helper()
	var p *exchange.Problem
	if !errors.As(err, &p) {
		t.Fatalf("error %v, want problem %d %s", err, status, code)
	}
	if p.Status != status || p.Code != code {
		t.Fatalf("problem %d %s, want %d %s", p.Status, p.Code, status, code)
	}
	if strings.Contains(p.Title+p.Detail, "127.0.0.1") {
		t.Errorf("problem tells where the upstream is: %+v", p)
	}
}

func TestPlainHeaders(t *testing.T) {
	settled(t)
	var got http.Header
	var host string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, host = r.Header.Clone(), r.Host
		w.Header().Set("Alt-Svc", `h3=":443"`)
		w.Header().Set("Postern-Receipt", "forged")
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header().Set("X-Kept", "1")
		_, _ = io.WriteString(w, "hi")
	}))
	defer s.Close()
	u := open(t, config.Upstream{Headers: []config.UpstreamHeader{{Name: "X-Operator", Value: "set"}, {Name: "host", Value: "inner.example"}}}, s.URL)

	x, rec := ask("GET", "/a", "", "x-forwarded-for", "1.1.1.1", "x_forwarded_for", "1.1.1.1", "forwarded", "for=1.1.1.1", "x-real-ip", "1.1.1.1",
		"authorization", "Bearer mine", "x-api-key", "k", "cookie", "c=1", "x-operator", "client", "via", "1.0 front", "postern-account", "forged",
		"proxy-connection", "keep-alive", "x-own", "kept")
	x.Identity.Account = "acme"
	if err := New(Config{}).Forward(context.Background(), x, &Hop{Upstream: u}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "api.example.com", "Via": "1.0 front, 1.1 postern",
		"Forwarded": "for=192.0.2.7;host=api.example.com;proto=https", "X-Operator": "set", "X-Own": "kept", "Cookie": "c=1",
		"Authorization": "", "X-Api-Key": "", "X-Real-Ip": "", "Postern-Account": "", "User-Agent": "", "Accept-Encoding": "", "Proxy-Connection": "",
	} {
		if v := strings.Join(got[name], "|"); v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if _, ok := got["X_forwarded_for"]; ok || host != "inner.example" {
		t.Errorf("host %q, header %v", host, got)
	}
	h := rec.header
	if h.Get("alt-svc")+h.Get("postern-receipt")+h.Get("x-hop")+h.Get("connection") != "" || h.Get("x-kept") != "1" || h.Get("via") != "1.1 postern" {
		t.Errorf("response header %v", h)
	}
	if rec.text() != "hi" || rec.length != 2 || !rec.ended || x.Attempts != 1 || x.Upstream != "test" || x.Response.Sent != 2 {
		t.Errorf("%+v %+v", rec, x)
	}
	// Without an identity the credentials are the upstream's, and an IPv6 client is quoted.
	x, _ = ask("GET", "/a", "", "authorization", "Bearer mine")
	x.Request.Remote = netip.MustParseAddrPort("[2001:db8::1]:5")
	if err := New(Config{}).Forward(context.Background(), x, &Hop{Upstream: u}); err != nil {
		t.Fatal(err)
	}
	if got.Get("Authorization") != "Bearer mine" || got.Get("Forwarded") != `for="[2001:db8::1]";host=api.example.com;proto=https` {
		t.Errorf("header %v", got)
	}
}

func TestPlainProblems(t *testing.T) {
	settled(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	answer := func(s string) string {
		return raw(t, func(c net.Conn, _ *bufio.Reader) { fmt.Fprint(c, s) })
	}
	stall := raw(t, func(c net.Conn, r *bufio.Reader) { _, _ = r.ReadByte(); _, _ = io.Copy(io.Discard, r) })
	tests := []struct {
		name, url string
		status    int
		code      string
	}{
		{"refused", "http://" + closed.Addr().String(), 502, "upstream_unreachable"},
		{"reset", answer(""), 502, "upstream_reset"},
		{"no HTTP", answer("220 smtp\r\n"), 502, "upstream_invalid"},
		{"stalls", stall, 504, "upstream_timeout"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			u := open(t, config.Upstream{Timeouts: config.UpstreamTimeouts{FirstByte: 100 * time.Millisecond}, Retry: config.Retry{Attempts: 1}}, test.url)
			x, rec := ask("GET", "/", "")
			problem(t, New(Config{}).Forward(context.Background(), x, &Hop{Upstream: u}), test.status, test.code)
			if rec.status != 0 || rec.aborted || rec.ended {
				t.Errorf("the reply was touched: %+v", rec)
			}
		})
	}
	t.Run("exchange too long", func(t *testing.T) {
		u := open(t, config.Upstream{}, stall)
		x, _ := ask("GET", "/", "")
		problem(t, New(Config{}).Forward(context.Background(), x, &Hop{Upstream: u, Timeout: 80 * time.Millisecond}), 504, "upstream_timeout")
	})
	t.Run("cut in the body", func(t *testing.T) {
		u := open(t, config.Upstream{}, answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"))
		x, rec := ask("GET", "/", "")
		err := New(Config{}).Forward(context.Background(), x, &Hop{Upstream: u})
		if err == nil || errors.Is(err, exchange.ErrClientGone) || !rec.aborted || rec.ended {
			t.Errorf("%v %+v", err, rec)
		}
	})
	t.Run("client goes", func(t *testing.T) {
		seen := make(chan struct{})
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done(); close(seen) }))
		defer s.Close()
		u := open(t, config.Upstream{}, s.URL)
		x, rec := ask("GET", "/", "")
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(50*time.Millisecond, cancel)
		if err := New(Config{}).Forward(ctx, x, &Hop{Upstream: u}); !errors.Is(err, exchange.ErrClientGone) || !rec.aborted {
			t.Errorf("%v %+v", err, rec)
		}
		<-seen
	})
	for want, test := range map[error]struct {
		status int
		code   string
	}{
		exchange.ErrClientBody: {400, "invalid_body"}, exchange.ErrBodyTooLarge: {413, "body_too_large"}, exchange.ErrBodyTimeout: {408, "body_timeout"},
	} {
		t.Run(test.code, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
			defer s.Close()
			u := open(t, config.Upstream{Health: config.Health{Failures: 1}}, s.URL)
			x, _ := ask("POST", "/", "")
			x.Request.Body, x.Request.Length = &piped{Reader: io.MultiReader(strings.NewReader("abc"), failing{want})}, -1
			problem(t, New(Config{}).Forward(context.Background(), x, &Hop{Upstream: u}), test.status, test.code)
			if !u.Usable() {
				t.Error("held against the upstream")
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// piped is a body from any reader.
type piped struct {
	io.Reader
	trailer exchange.Header
}

func (p *piped) Close() error {
	if c, ok := p.Reader.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
func (p *piped) Trailer() exchange.Header { return p.trailer }

func TestRetries(t *testing.T) {
	settled(t)
	ok := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "ok %s", b)
	}))
	defer ok.Close()
	busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }))
	defer busy.Close()
	cut := raw(t, func(_ net.Conn, r *bufio.Reader) { _, _ = r.ReadByte() }) // a body nobody has read could be sent again
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	refused := "http://" + closed.Addr().String()
	tests := []struct {
		name, method, first string
		on                  []string
		budget              float64
		stream              bool
		attempts            int
		want                string // body or problem code
	}{
		{"refused GET", "GET", refused, []string{"connect"}, 1, false, 2, "ok b"},
		{"refused POST", "POST", refused, []string{"connect"}, 1, false, 2, "ok b"},
		{"refused POST with a stream nobody read", "POST", refused, []string{"connect"}, 1, true, 2, "ok b"},
		{"no budget", "GET", refused, []string{"connect"}, 0, false, 1, "upstream_unreachable"},
		{"not listed", "GET", refused, []string{"503"}, 1, false, 1, "upstream_unreachable"},
		{"reset PUT", "PUT", cut, []string{"reset"}, 1, false, 2, "ok b"},
		{"reset POST", "POST", cut, []string{"reset"}, 1, false, 1, "upstream_reset"},
		{"reset PUT with a stream", "PUT", cut, []string{"reset"}, 1, true, 1, "upstream_reset"},
		{"503 GET", "GET", busy.URL, []string{"503"}, 1, false, 2, "ok b"},
		{"503 GET by class", "GET", busy.URL, []string{"5xx"}, 1, false, 2, "ok b"},
		{"503 POST", "POST", busy.URL, []string{"503"}, 1, false, 1, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			u := open(t, config.Upstream{Retry: config.Retry{Attempts: 3, On: test.on, Budget: test.budget, Backoff: time.Millisecond}}, test.first, ok.URL)
			x, rec := ask(test.method, "/", "b")
			if test.stream {
				x.Request.Body, x.Request.Length = &piped{Reader: strings.NewReader("b")}, -1
			}
			err := New(Config{}).Forward(context.Background(), x, &Hop{Upstream: u})
			got := rec.text()
			var p *exchange.Problem
			if errors.As(err, &p) {
				got = p.Code
			}
			if got != test.want || x.Attempts != test.attempts {
				t.Errorf("%q after %d attempts, want %q after %d", got, x.Attempts, test.want, test.attempts)
			}
		})
	}
}

func TestBodiless(t *testing.T) {
	settled(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/head":
			w.Header().Set("Content-Length", "1234")
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.WriteHeader(304)
		case "/early":
			w.Header().Set("Link", "</a>")
			w.WriteHeader(103)
			_, _ = io.WriteString(w, "x")
		}
	}))
	defer s.Close()
	u := open(t, config.Upstream{}, s.URL)
	for _, test := range []struct {
		method, path string
		status       int
		length       int64
	}{{"HEAD", "/head", 200, 1234}, {"GET", "/204", 204, 0}, {"GET", "/304", 304, 0}, {"GET", "/empty", 200, 0}, {"GET", "/early", 200, 1}} {
		x, rec := ask(test.method, test.path, "")
		if err := New(Config{}).Forward(context.Background(), x, &Hop{Upstream: u}); err != nil {
			t.Fatal(err)
		}
		if rec.status != test.status || rec.length != test.length || !rec.ended || len(rec.flushed) != 0 {
			t.Errorf("%s: %+v", test.path, rec)
		}
		if test.path == "/early" && fmt.Sprint(rec.interim) != "[103]" {
			t.Errorf("interim %v", rec.interim)
		}
	}
	if s := u.Status()[0]; s.Connections != 1 {
		t.Errorf("%d connections for exchanges one after the other", s.Connections)
	}
}

// What has arrived from the upstream reaches the client without waiting for more.
func TestFlush(t *testing.T) {
	settled(t)
	step := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		for _, p := range []string{"one ", "two "} {
			<-step
			_, _ = io.WriteString(w, p)
			w.(http.Flusher).Flush()
		}
	}))
	defer s.Close()
	u := open(t, config.Upstream{}, s.URL)
	x, rec := ask("GET", "/", "")
	rec.wrote = make(chan struct{}, 8)
	done := make(chan error)
	go func() { done <- New(Config{}).Forward(context.Background(), x, &Hop{Upstream: u}) }()
	for range 2 {
		<-rec.wrote // the head, then "one "
		step <- struct{}{}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(rec.flushed, "|"); !strings.HasPrefix(got, "|one ") || rec.text() != "one two " || rec.length != -1 {
		t.Errorf("flushed %q of %q", got, rec.text())
	}
}

type upper struct{ events bool }

func (u upper) Events() bool { return u.events }
func (u upper) Filter(_ context.Context, dst, p []byte, end bool) ([]byte, error) {
	if u.events && len(p) > 0 && !strings.HasSuffix(string(p), "\n\n") {
		return nil, errors.New("not whole events")
	}
	dst = append(dst, strings.ToUpper(string(p))...)
	if end {
		dst = append(dst, "END"...)
	}
	return dst, nil
}

type stages struct {
	filter  Filter
	err     error
	account func(x *exchange.Exchange)
}

func (s *stages) Response(context.Context, *exchange.Exchange) (Filter, error) {
	return s.filter, s.err
}
func (s *stages) Account(_ context.Context, x *exchange.Exchange) {
	if s.account != nil {
		s.account(x)
	}
}

func TestStages(t *testing.T) {
	settled(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" {
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			for _, p := range []string{"data: a\n", "\nda", "ta: b\n\n"} {
				_, _ = io.WriteString(w, p)
				w.(http.Flusher).Flush()
			}
			return
		}
		_, _ = io.WriteString(w, "body")
	}))
	defer s.Close()
	u := open(t, config.Upstream{}, s.URL)
	for path, want := range map[string]string{"/": "BODYEND", "/events": "DATA: A\n\nDATA: B\n\nEND"} {
		x, rec := ask("GET", path, "")
		if err := New(Config{}).Forward(context.Background(), x, &Hop{Upstream: u, Stages: &stages{filter: upper{path == "/events"}}}); err != nil {
			t.Fatal(err)
		}
		if rec.text() != want || rec.length != -1 {
			t.Errorf("%q, length %d", rec.text(), rec.length)
		}
	}
	x, rec := ask("GET", "/", "")
	denied := &exchange.Problem{Status: 451, Code: "denied"}
	problem(t, New(Config{}).Forward(context.Background(), x, &Hop{Upstream: u, Stages: &stages{err: denied}}), 451, "denied")
	x, _ = ask("GET", "/", "")
	problem(t, New(Config{}).Forward(context.Background(), x, &Hop{Upstream: u, Stages: &stages{err: errors.New("secret")}}), 500, "internal_error")
	if rec.status != 0 {
		t.Error("reply touched")
	}
}

// front is the smallest listener: net/http in front of a Forwarder.
func front(t testing.TB, hop *Hop) *httptest.Server {
	f := New(Config{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		x := &exchange.Exchange{ID: "x", Request: exchange.Request{
			Protocol: exchange.Protocol(r.ProtoMajor), Method: r.Method, Scheme: "http", Authority: r.Host, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery,
			Body: &piped{Reader: r.Body}, Length: r.ContentLength, Upgrade: strings.ToLower(r.Header.Get("Upgrade")),
		}}
		for k, vs := range r.Header {
			for _, v := range vs {
				x.Request.Header.Add(strings.ToLower(k), v)
			}
		}
		x.Reply = &netReply{w: w}
		err := f.Forward(r.Context(), x, hop)
		var p *exchange.Problem
		if errors.As(err, &p) {
			http.Error(w, p.Code, p.Status)
		} else if err != nil && x.Response.Status != 101 {
			panic(http.ErrAbortHandler)
		}
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

type netReply struct{ w http.ResponseWriter }

func (n *netReply) fields(h exchange.Header) {
	for _, f := range h {
		n.w.Header().Add(f.Name, f.Value)
	}
}
func (n *netReply) Interim(status int, h exchange.Header) error {
	n.fields(h)
	n.w.WriteHeader(status)
	return nil
}
func (n *netReply) Head(status int, h exchange.Header, length int64) error {
	n.fields(h)
	if length >= 0 && status != 204 && status != 304 {
		n.w.Header().Set("Content-Length", fmt.Sprint(length))
	}
	n.w.WriteHeader(status)
	return nil
}
func (n *netReply) Write(p []byte) (int, error) { return n.w.Write(p) }
func (n *netReply) Flush() error                { return http.NewResponseController(n.w).Flush() }
func (n *netReply) End(trailer exchange.Header) error {
	for _, f := range trailer {
		n.w.Header().Add(http.TrailerPrefix+f.Name, f.Value)
	}
	return nil
}
func (n *netReply) Abort() {}
func (n *netReply) Upgrade(h exchange.Header) (io.ReadWriteCloser, error) {
	c, buffered, err := http.NewResponseController(n.w).Hijack()
	if err != nil {
		return nil, exchange.ErrNoUpgrade
	}
	fmt.Fprint(buffered, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
	for _, f := range h {
		fmt.Fprintf(buffered, "%s: %s\r\n", f.Name, f.Value)
	}
	fmt.Fprint(buffered, "\r\n")
	return &hijacked{Conn: c, r: buffered.Reader}, buffered.Flush()
}

type hijacked struct {
	net.Conn
	r io.Reader
}

func (h *hijacked) Read(p []byte) (int, error) { return h.r.Read(p) }

func TestWebSocket(t *testing.T) {
	settled(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, Subprotocols: []string{"echo"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			kind, p, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, p); err != nil {
				return
			}
		}
	}))
	defer s.Close()
	u := open(t, config.Upstream{Protocol: "auto", Timeouts: config.UpstreamTimeouts{Idle: 300 * time.Millisecond}}, s.URL)
	gate := front(t, &Hop{Upstream: u})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, gate.URL, &websocket.DialOptions{Subprotocols: []string{"echo"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	if c.Subprotocol() != "echo" {
		t.Errorf("subprotocol %q", c.Subprotocol())
	}
	big := strings.Repeat("x", 200_000)
	for _, m := range []string{"hello", big} {
		if err := c.Write(ctx, websocket.MessageText, []byte(m)); err != nil {
			t.Fatal(err)
		}
		if _, p, err := c.Read(ctx); err != nil || string(p) != m {
			t.Fatalf("%d octets, %v", len(p), err)
		}
	}
	// Nothing moves: the tunnel ends by itself, and its connection is not kept.
	if _, _, err := c.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("idle tunnel: %v", err)
	}
	for i := 0; u.Status()[0].Connections != 0; i++ {
		if i > 200 {
			t.Fatalf("%+v", u.Status()[0])
		}
		time.Sleep(10 * time.Millisecond)
	}
	// An upstream that speaks no HTTP/1.1 can not switch.
	h2 := open(t, config.Upstream{Protocol: "http2"}, s.URL)
	x, _ := ask("GET", "/", "")
	x.Request.Upgrade = "websocket"
	problem(t, New(Config{}).Forward(ctx, x, &Hop{Upstream: h2}), 501, "upgrade_not_possible")
}

// octets is a gRPC codec for messages that are octets.
type octets struct{}

func (octets) Name() string                  { return "octets" }
func (octets) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (octets) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}

func TestGRPC(t *testing.T) {
	settled(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodec(octets{}))
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Echo", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{
		{StreamName: "Echo", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			if err := s.SendHeader(metadata.Pairs("x-head", "early")); err != nil {
				return err
			}
			s.SetTrailer(metadata.Pairs("x-end", "late"))
			for {
				var m []byte
				if err := s.RecvMsg(&m); errors.Is(err, io.EOF) {
					return status.Error(codes.DataLoss, "over")
				} else if err != nil {
					return err
				}
				if err := s.SendMsg(&m); err != nil {
					return err
				}
			}
		}},
		{StreamName: "Refuse", ServerStreams: true, ClientStreams: true, Handler: func(any, grpc.ServerStream) error {
			return status.Error(codes.PermissionDenied, "no")
		}},
	}}, nil)
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	u := open(t, config.Upstream{Protocol: "http2"}, "http://"+l.Addr().String())
	gate := front(t, &Hop{Upstream: u})
	conn, err := grpc.NewClient(strings.TrimPrefix(gate.URL, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(octets{})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	s, err := conn.NewStream(ctx, desc, "/test.Echo/Echo")
	if err != nil {
		t.Fatal(err)
	}
	// The head comes before anything was sent, and each message before the next is.
	if h, err := s.Header(); err != nil || strings.Join(h["x-head"], "") != "early" {
		t.Fatalf("header %v, %v", h, err)
	}
	for i := range 20 {
		m := []byte(strings.Repeat("m", i*1000))
		if err := s.SendMsg(&m); err != nil {
			t.Fatal(err)
		}
		var got []byte
		if err := s.RecvMsg(&got); err != nil || len(got) != len(m) {
			t.Fatalf("message %d: %d octets, %v", i, len(got), err)
		}
	}
	_ = s.CloseSend()
	var m []byte
	if err := s.RecvMsg(&m); status.Code(err) != codes.DataLoss || strings.Join(s.Trailer()["x-end"], "") != "late" {
		t.Errorf("end %v, trailer %v", err, s.Trailer())
	}
	// An answer that is all trailers.
	s, err = conn.NewStream(ctx, desc, "/test.Echo/Refuse")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(&m); status.Code(err) != codes.PermissionDenied {
		t.Errorf("refused: %v", err)
	}
	// The client's cancellation reaches the server: its handler ends, and so does Stop.
	inner, stop := context.WithCancel(ctx)
	if s, err = conn.NewStream(inner, desc, "/test.Echo/Echo"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Header(); err != nil {
		t.Fatal(err)
	}
	stop()
	server.GracefulStop()
}

func BenchmarkPlain(b *testing.B) {
	payload := strings.Repeat("x", 1024)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, payload)
	}))
	defer s.Close()
	u := open(b, config.Upstream{}, s.URL)
	f := New(Config{})
	b.ReportAllocs()
	for b.Loop() {
		x, _ := ask("GET", "/", "", "accept", "*/*", "user-agent", "bench")
		if err := f.Forward(context.Background(), x, &Hop{Upstream: u}); err != nil {
			b.Fatal(err)
		}
	}
}

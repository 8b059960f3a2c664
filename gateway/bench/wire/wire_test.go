//go:build linux

package wire

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

func loop(t *testing.T) *Loop {
	t.Helper()
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// proxy is the standard library's proxy before an origin.
func proxy(t *testing.T, l *Loop) http.Handler {
	t.Helper()
	to, err := url.Parse("http://" + l.Origin())
	if err != nil {
		t.Fatal(err)
	}
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }, FlushInterval: -1}
}

// serve answers over a protocol and says where.
func serve(t *testing.T, p Protocol, h http.Handler) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	t.Cleanup(s.Close)
	switch p {
	case HTTP1:
		s.Start()
	case TLS:
		s.StartTLS()
	case HTTP2:
		s.EnableHTTP2 = true
		s.StartTLS()
	case HTTP3:
		s.StartTLS() // for its certificate
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http3.Server{Handler: h, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: s.TLS.Certificates})}
		done := make(chan struct{})
		go func() { defer close(done); _ = server.Serve(conn) }()
		t.Cleanup(func() { _ = server.Close(); _ = conn.Close(); <-done })
		return conn.LocalAddr().String()
	}
	return s.Listener.Addr().String()
}

// TestRun: every kind of load through a proxy is answered whole, and counted.
func TestRun(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		job  Job
	}{
		{"small", Job{Protocol: HTTP1, Path: Path1K, Length: 1 << 10, Conns: 4}},
		{"large", Job{Protocol: HTTP1, Path: Path64K, Length: 64 << 10, Conns: 4}},
		{"tls small", Job{Protocol: TLS, Path: Path1K, Length: 1 << 10, Conns: 2}},
		{"tls large", Job{Protocol: TLS, Path: Path64K, Length: 64 << 10, Conns: 2}},
		{"http2 small", Job{Protocol: HTTP2, Path: Path1K, Length: 1 << 10, Conns: 2, Streams: 4}},
		{"http2 large", Job{Protocol: HTTP2, Path: Path64K, Length: 64 << 10, Conns: 2, Streams: 4}},
		{"http3 small", Job{Protocol: HTTP3, Path: Path1K, Length: 1 << 10, Conns: 2, Streams: 2}},
		{"http3 large", Job{Protocol: HTTP3, Path: Path64K, Length: 64 << 10, Conns: 2, Streams: 2}},
		{"events", Job{Protocol: HTTP1, Path: PathEvents, Events: true, Length: -1, Conns: 4}},
		{"chat", Job{Protocol: HTTP1, Method: "POST", Path: "/v1" + PathChat, Body: []byte(`{"model":"small"}`), Length: -1, Marker: MarkChat, Conns: 4}},
	} {
		for _, rate := range []float64{0, 200} {
			t.Run(fmt.Sprintf("%s at %g", c.name, rate), func(t *testing.T) {
				t.Parallel()
				l, job, marks := loop(t), c.job, 0
				job.Address = serve(t, job.Protocol, proxy(t, l))
				job.Rate, job.Window, job.Mark = rate, 200*time.Millisecond, func() { marks++ }
				for range 2 { // and again: the first leaves nothing behind that disturbs the second
					r, err := l.Run(job)
					if err != nil {
						t.Fatal(err)
					}
					if r.Done == 0 || r.P50 <= 0 || r.P99 < r.P50 || r.Elapsed < job.Window {
						t.Errorf("%+v", r)
					}
				}
				if marks != 4 {
					t.Errorf("the windows' ends were marked %d times", marks)
				}
			})
		}
	}
}

// TestRunRefuses: what is not the whole and right reply is never counted.
func TestRunRefuses(t *testing.T) {
	t.Parallel()
	short := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "short") }
	for _, p := range []Protocol{HTTP1, TLS, HTTP2, HTTP3} {
		for _, c := range []struct {
			name, want string
			handler    http.HandlerFunc
		}{
			{"length", "5 octets instead of 1024", short},
			{"status", "503", func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = io.WriteString(w, strings.Repeat("x", 1<<10))
			}},
			{"abort", "", func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, strings.Repeat("x", 512))
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}},
			{"one in a hundred", "5 octets", func() http.HandlerFunc {
				var n atomic.Int64
				return func(w http.ResponseWriter, r *http.Request) {
					if n.Add(1)%100 == 0 {
						short(w, r)
						return
					}
					_, _ = io.WriteString(w, strings.Repeat("x", 1<<10))
				}
			}()},
		} {
			t.Run(string(p)+" "+c.name, func(t *testing.T) {
				t.Parallel()
				l := loop(t)
				job := Job{Protocol: p, Address: serve(t, p, c.handler), Path: "/", Length: 1 << 10, Conns: 2, Streams: 1, Window: 20 * time.Second}
				want := c.want
				if p == HTTP2 && c.name == "status" {
					want = "else than 200"
				}
				r, err := l.Run(job)
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%+v %v", r, err)
				}
			})
		}
	}
}

// TestReplies: framings of a reply that proxies use.
func TestReplies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, reply, want string }{
		{"chunked in pieces", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", ""},
		{"chunked with a trailer", "HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: chunked\r\n\r\n5;x=y\r\n", "size"},
		{"trailer", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\nx: y\r\n\r\n", ""},
		{"length", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde", ""},
		{"closing", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabcde", ""},
		{"no length", "HTTP/1.1 200 OK\r\n\r\nabcde", "without length"},
		{"more than asked", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcdeHTTP/1.1", "more than it was asked"},
		{"too short", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", "4 octets instead of 5"},
		{"another status", "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nabcde", "404"},
		{"no head", strings.Repeat("x", 80<<10), "without end"},
	} {
		for _, step := range []int{1, 7, 1 << 20} {
			t.Run(fmt.Sprintf("%s by %d", c.name, step), func(t *testing.T) {
				t.Parallel()
				if step == 1 && len(c.reply) > 1<<10 {
					t.Skip("too many pieces")
				}
				l := loop(t)
				r := &run{Job: Job{Protocol: HTTP1, Length: 5, Address: l.Origin()}, began: time.Now(), ending: true}
				l.run = r
				s, err := dial(l.Origin(), nil)
				if err != nil {
					t.Fatal(err)
				}
				client := newClient1(l, s, 0)
				if err := l.add(s.fd, client); err != nil {
					t.Fatal(err)
				}
				client.asked, r.outstanding = true, 1
				for p := []byte(c.reply); len(p) > 0 && err == nil; p = p[min(step, len(p)):] {
					err = client.consume(p[:min(step, len(p))])
				}
				switch {
				case c.want == "" && (err != nil || r.total != 1 || r.outstanding != 0):
					t.Errorf("%v, %d replies", err, r.total)
				case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
					t.Errorf("%v, want %q", err, c.want)
				}
			})
		}
	}
}

// TestReconnect: a proxy may close a connection between two requests.
func TestReconnect(t *testing.T) {
	t.Parallel()
	l := loop(t)
	once := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		_, _ = io.WriteString(w, "hello")
	}
	r, err := l.Run(Job{Protocol: HTTP1, Address: serve(t, HTTP1, http.HandlerFunc(once)), Path: "/", Length: 5, Conns: 2, Window: 100 * time.Millisecond})
	if err != nil || r.Done < 2 || r.Reconnects < r.Done {
		t.Errorf("%+v %v", r, err)
	}
}

// TestReconnectUntold: or without a word.
func TestReconnectUntold(t *testing.T) {
	t.Parallel()
	l := loop(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if _, err := conn.Read(make([]byte, 4<<10)); err == nil {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = listener.Close(); <-done })
	r, err := l.Run(Job{Protocol: HTTP1, Address: listener.Addr().String(), Path: "/", Length: 5, Conns: 1, Window: time.Second, Rate: 4})
	if err != nil || r.Done < 2 || r.Reconnects < r.Done-1 {
		t.Errorf("%+v %v", r, err)
	}
}

// TestRate: requests begin when they are due, and one that has to wait has waited since then.
func TestRate(t *testing.T) {
	t.Parallel()
	l := loop(t)
	slow := func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(20 * time.Millisecond) // is what is measured
		_, _ = io.WriteString(w, "hello")
	}
	// One connection can do 50 a second; of 200 a second most wait for most of the window.
	r, err := l.Run(Job{Protocol: HTTP1, Address: serve(t, HTTP1, http.HandlerFunc(slow)), Path: "/", Length: 5, Conns: 1, Window: 500 * time.Millisecond, Rate: 200})
	if err != nil || r.Done == 0 || r.Done > 26 || r.P99 < 100*time.Millisecond {
		t.Errorf("%+v %v", r, err)
	}
}

// TestRequestEnd: where requests end, as proxies send them.
func TestRequestEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		request string
		want    int // less than the whole: what is left over
		fails   bool
	}{
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, false},
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", 3, false},
		{"GET / HTTP/1.1\r\nHost: a\r\n", -1, false},
		{"POST / HTTP/1.1\r\ncontent-LENGTH:  3 \r\n\r\nabc", 0, false},
		{"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", -1, false},
		{"POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\nab", 0, true},
		{"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\nab", 0, true},
		{"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET", 3, false},
		{"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, false},
		{"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", -1, false},
		{strings.Repeat("x", 70<<10), 0, true},
	} {
		end, err := requestEnd([]byte(c.request))
		want := len(c.request) - c.want
		if c.want < 0 {
			want = -1
		}
		if (err != nil) != c.fails || err == nil && end != want {
			t.Errorf("%.60q: %d %v, want %d", c.request, end, err, want)
		}
	}
}

package pool

import (
	"bufio"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/http1/client"
)

func poolOf(t *testing.T, at, ca string) *Pool {
	t.Helper()
	files, err := ReadTLS(Files{CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	p := New(Config{URL: u, Connections: 4, Idle: 4, IdleTimeout: time.Minute, TLS: files})
	t.Cleanup(p.Kill)
	return p
}

// ask makes one request on a connection of the pool and gives the connection back.
func ask(t *testing.T, p *Pool, at string) (status int, body string) {
	t.Helper()
	l, err := p.Get(t.Context(), 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.Put(l) }()
	var resp client.Response
	r := &client.Request{Method: http.MethodGet, Path: "/", Host: strings.TrimPrefix(strings.TrimPrefix(at, "http://"), "https://")}
	for err = l.Do(t.Context(), r, &resp); err != nil; err = l.Do(t.Context(), r, &resp) {
		if e := (*client.Error)(nil); !errors.As(err, &e) || e.Reason != client.Stale {
			t.Fatal(err)
		}
		p.Put(l)
		if l, err = p.Get(t.Context(), 30*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Status, string(b)
}

// TestReuse: a connection on which nothing was left is used again, in cleartext and over TLS.
func TestReuse(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		var opened atomic.Int64
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") }))
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				opened.Add(1)
			}
		}
		ca := ""
		if secure {
			s.StartTLS()
			ca = filepath.Join(t.TempDir(), "ca.pem")
			if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			s.Start()
		}
		t.Cleanup(s.Close)
		p := poolOf(t, s.URL, ca)
		const calls = 200
		for range calls {
			if status, body := ask(t, p, s.URL); status != http.StatusOK || body != "fine" {
				t.Fatal(status, body)
			}
		}
		if n := opened.Load(); n != 1 {
			t.Errorf("TLS %v: %d connections for %d requests one after the other", secure, n, calls)
		}
	}
}

// TestSurplus: what an upstream sends behind its reply is never taken for the reply to the next request.
func TestSurplus(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for r := bufio.NewReader(c); ; {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					_, _ = io.WriteString(c, "HTTP/1.1 304 No\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
				}
			}()
		}
	}()
	at := "http://" + l.Addr().String()
	p := poolOf(t, at, "")
	for range 500 {
		if status, body := ask(t, p, at); status != http.StatusNotModified || body != "" {
			t.Fatalf("%d %q: what was left of one reply was taken for the next", status, body)
		}
	}
}

// TestReasons: what the errors of the transports mean. A server that goes away politely has not done what came after its
// GOAWAY.
func TestReasons(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]client.Reason{
		"http2: Transport received Server's graceful shutdown GOAWAY":   client.Refused,
		"http2: client conn not usable":                                 client.Refused,
		"connection reset by peer":                                      client.Broken,
		"malformed HTTP version":                                        client.Invalid,
		"net/http: server response headers exceeded 262144 octets":      client.Invalid,
		"http2: server sent GOAWAY and closed the connection; ErrCode=": client.Broken,
	} {
		if got := reason(errors.New(text)); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

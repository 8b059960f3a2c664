package fetch_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/fetch"
	"github.com/postern-gateway/postern/gateway/fetch/origin"
	"github.com/postern-gateway/postern/gateway/telemetry"
	"github.com/postern-gateway/postern/sdk/abi"
)

// value encodes a request: keys and members in turn, a string, an int, or a header as pairs.
func value(members ...any) []byte {
	b := abi.AppendObject(nil, len(members)/2)
	for i := 0; i < len(members); i += 2 {
		b = abi.AppendKey(b, members[i].(string))
		switch v := members[i+1].(type) {
		case string:
			b = abi.AppendString(b, v)
		case int:
			b = abi.AppendInt(b, int64(v))
		case time.Duration:
			b = abi.AppendInt(b, int64(v))
		case []string:
			b = abi.AppendObject(b, len(v)/2)
			for n := 0; n < len(v); n += 2 {
				b = abi.AppendString(abi.AppendKey(b, v[n]), v[n+1])
			}
		case nil:
			b = abi.AppendNull(b)
		case abi.Value:
			b = append(b, v.Raw()...)
		default:
			panic(v)
		}
	}
	return b
}

// origins makes a fetch block of URLs; one that begins with "private " is granted as such.
func origins(t testing.TB, urls ...string) (list []config.FetchOrigin) {
	t.Helper()
	for _, raw := range urls {
		raw, private := strings.CutPrefix(raw, "private ")
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		var o config.FetchOrigin
		at, err := origin.Of(u)
		if err != nil {
			t.Fatal(err)
		}
		o.Scheme, o.Host = at.Scheme, at.Host
		o.Private = private
		list = append(list, o)
	}
	return list
}

func fetcher(t testing.TB, c fetch.Config, f config.PluginFetch) *fetch.Fetcher {
	t.Helper()
	c.Plugin = &config.Plugin{Name: "p", Grants: []string{"fetch"}, Fetch: f}
	made, err := fetch.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := made.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return made
}

// answer is one answer as a plugin reads it.
type answer struct {
	status  int
	err     string
	cached  bool
	headers map[string]string
	body    string
}

func (a answer) String() string {
	body := a.body
	if len(body) > 40 {
		body = fmt.Sprintf("%s... (%d)", body[:40], len(body))
	}
	return fmt.Sprintf("%d %q cached=%v %q", a.status, a.err, a.cached, body)
}

// do makes the fetches a, b, c ... and returns their answers.
func do(t testing.TB, f *fetch.Fetcher, ctx context.Context, values ...[]byte) []answer {
	t.Helper()
	list, err := try(f, ctx, values...)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func try(f *fetch.Fetcher, ctx context.Context, values ...[]byte) ([]answer, error) {
	var calls []fetch.Call
	for i, v := range values {
		calls = append(calls, fetch.Call{Name: string(rune('a' + i)), Value: v})
	}
	answers, err := f.Do(ctx, calls)
	if err != nil {
		return nil, err
	}
	defer answers.Release()
	v, rest, ok := abi.ReadValue(answers.Value)
	if !ok || len(rest) > 0 || v.Len() != len(values) {
		return nil, fmt.Errorf("answers % x", answers.Value)
	}
	var list []answer
	for name, m := range v.Each {
		if want := string(rune('a' + len(list))); string(name) != want {
			return nil, fmt.Errorf("answer %q, want %q", name, want)
		}
		keys := ""
		for key := range m.Each {
			keys += string(key) + " "
		}
		if keys != "status error cached headers body " {
			return nil, fmt.Errorf("members %s", keys)
		}
		a := answer{status: int(m.Member("status").Int()), err: m.Member("error").Text(), cached: m.Member("cached").Bool(), body: m.Member("body").Text(), headers: map[string]string{}}
		for key, h := range m.Member("headers").Each {
			a.headers[string(key)] = h.Text()
		}
		list = append(list, a)
	}
	return list, nil
}

// server answers on loopback by f.
func server(t testing.TB, f http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s
}

func TestFetch(t *testing.T) {
	t.Parallel()
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Add("X-Two", "a")
		w.Header().Add("X-Two", "b")
		w.Header().Add("Set-Cookie", "a=1; Expires=Thu, 01 Jan 1970")
		w.Header().Add("Set-Cookie", "b=2")
		w.Header().Set("Connection", "x-hop")
		fmt.Fprintf(w, "%s %s host=%s ua=%s auth=%s length=%d encoding=%s cookie=%s body=%s", r.Method, r.RequestURI, r.Host, r.UserAgent(), r.Header.Get("Authorization"), r.ContentLength, r.Header.Get("Accept-Encoding"), r.Header.Get("Cookie"), body)
	})
	host := strings.TrimPrefix(s.URL, "http://")
	f := fetcher(t, fetch.Config{}, config.PluginFetch{Origins: origins(t, s.URL)})
	got := do(t, f, t.Context(),
		value("url", s.URL),
		value("url", s.URL+"/a%2fb/../c?x=%20y&z", "method", "POST", "headers", []string{"authorization", "secret", "user-agent", "mine"}, "body", "hello"),
		value("url", strings.ToUpper(s.URL[:7])+host+"/", "method", "POST", "path", nil, "timeout", nil),
		value("url", s.URL, "method", "HEAD"),
	)
	for i, want := range []string{
		"GET / host=" + host + " ua=postern auth= length=0 encoding= cookie= body=",
		"POST /a%2fb/../c?x=%20y&z host=" + host + " ua=mine auth=secret length=5 encoding= cookie= body=hello",
		"POST / host=" + host + " ua=postern auth= length=0 encoding= cookie= body=",
		"",
	} {
		if got[i].status != 200 || got[i].err != "" || got[i].cached || got[i].body != want {
			t.Errorf("%d: %v, want %q", i, got[i], want)
		}
	}
	h := got[0].headers
	if h["x-two"] != "a, b" || h["set-cookie"] != "a=1; Expires=Thu, 01 Jan 1970\nb=2" || h["connection"] != "" || h["date"] == "" {
		t.Errorf("headers %q", h)
	}
	// There is no jar: the next request brings no cookie.
	if again := do(t, f, t.Context(), value("url", s.URL)); !strings.Contains(again[0].body, "cookie= ") {
		t.Error(again)
	}
}

// What the guest may not ask for, and what is malformed, is an answer that says so, and nothing is sent.
func TestRefused(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	s := server(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
	other := server(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	f := fetcher(t, fetch.Config{}, config.PluginFetch{Origins: origins(t, s.URL)})
	long := strings.Repeat("x", 8<<10)
	many := []string{}
	for i := range 65 {
		many = append(many, fmt.Sprintf("x-%d", i), "v")
	}
	for _, c := range []struct {
		name  string
		value []byte
		want  string
	}{
		{"another port", value("url", other.URL), "denied"},
		{"another scheme", value("url", "https://127.0.0.1:"+port), "denied"},
		{"another name of it", value("url", "http://localhost:"+port), "denied"},
		{"metadata", value("url", "http://169.254.169.254/latest/meta-data/"), "denied"},
		{"an upstream that was not granted", value("upstream", "app"), "denied"},
		{"user", value("url", strings.Replace(s.URL, "//", "//user:secret@", 1)), "invalid"},
		{"user that looks like the host", value("url", "http://127.0.0.1:"+port+"@evil.example/"), "invalid"},
		{"backslash", value("url", s.URL+`\@evil.example/`), "invalid"},
		{"fragment", value("url", s.URL+"/#a"), "invalid"},
		{"empty fragment", value("url", s.URL+"/#"), "invalid"},
		{"a line feed", value("url", s.URL+"/a\r\nx-evil: 1"), "invalid"},
		{"a space", value("url", s.URL+"/?a b"), "invalid"},
		{"letters that are not ASCII in the query", value("url", s.URL+"/?ä"), "invalid"},
		{"relative", value("url", "/a"), "invalid"},
		{"ftp", value("url", "ftp://127.0.0.1"), "invalid"},
		{"file", value("url", "file:///etc/passwd"), "invalid"},
		{"empty", value("url", ""), "invalid"},
		{"long", value("url", s.URL+"/"+long), "invalid"},
		{"nowhere", value(), "invalid"},
		{"both", value("url", s.URL, "upstream", "app"), "invalid"},
		{"url and path", value("url", s.URL, "path", "/a"), "invalid"},
		{"unknown member", value("url", s.URL, "redirect", "follow"), "invalid"},
		{"url of a number", value("url", 1), "invalid"},
		{"method in lower case", value("url", s.URL, "method", "get"), "invalid"},
		{"no method", value("url", s.URL, "method", ""), "invalid"},
		{"method split", value("url", s.URL, "method", "GET / HTTP/1.1\r\n"), "invalid"},
		{"CONNECT", value("url", s.URL, "method", "CONNECT"), "invalid"},
		{"TRACE", value("url", s.URL, "method", "TRACE"), "invalid"},
		{"GET with a body", value("url", s.URL, "body", "x"), "invalid"},
		{"body of a number", value("url", s.URL, "method", "POST", "body", 1), "invalid"},
		{"headers of a string", value("url", s.URL, "headers", "x"), "invalid"},
		{"header of a number", value("url", s.URL, "headers", abi.Value{}, "x", 1), "invalid"},
		{"injection by value", value("url", s.URL, "headers", []string{"x-a", "b\r\nx-evil: 1"}), "invalid"},
		{"injection by name", value("url", s.URL, "headers", []string{"x-a: b\r\nx-evil", "1"}), "invalid"},
		{"header in upper case", value("url", s.URL, "headers", []string{"X-A", "b"}), "invalid"},
		{"header twice", value("url", s.URL, "headers", []string{"x-a", "b", "x-a", "c"}), "invalid"},
		{"space around", value("url", s.URL, "headers", []string{"x-a", " b"}), "invalid"},
		{"host", value("url", s.URL, "headers", []string{"host", "internal.example"}), "invalid"},
		{"content-length", value("url", s.URL, "method", "POST", "headers", []string{"content-length", "3"}), "invalid"},
		{"transfer-encoding", value("url", s.URL, "method", "POST", "headers", []string{"transfer-encoding", "chunked"}), "invalid"},
		{"connection", value("url", s.URL, "headers", []string{"connection", "close"}), "invalid"},
		{"upgrade", value("url", s.URL, "headers", []string{"upgrade", "websocket"}), "invalid"},
		{"expect", value("url", s.URL, "headers", []string{"expect", "100-continue"}), "invalid"},
		{"proxy-authorization", value("url", s.URL, "headers", []string{"proxy-authorization", "x"}), "invalid"},
		{"the gateway's own", value("url", s.URL, "headers", []string{"postern-exchange", "x"}), "invalid"},
		{"many fields", value("url", s.URL, "headers", many), "invalid"},
		{"a long field", value("url", s.URL, "headers", []string{"x-a", strings.Repeat("x", abi.MaxHeader+1)}), "invalid"},
		{"timeout below 0", value("url", s.URL, "timeout", -1), "invalid"},
		{"timeout in words", value("url", s.URL, "timeout", "1s"), "invalid"},
		{"cache below 0", value("url", s.URL, "cache", -1), "invalid"},
		{"cache for ever", value("url", s.URL, "cache", 25*time.Hour), "invalid"},
		{"max below 0", value("url", s.URL, "max", -1), "invalid"},
		{"max beyond", value("url", s.URL, "max", abi.MaxFetched+1), "invalid"},
		{"path without a slash", value("upstream", "app", "path", "a"), "invalid"},
		{"path of dots", value("upstream", "app", "path", "/../admin"), "invalid"},
		{"path with an encoded slash", value("upstream", "app", "path", "/..%2fadmin"), "invalid"},
		{"path split", value("upstream", "app", "path", "/a\r\nb"), "invalid"},
		{"query split", value("upstream", "app", "path", "/a?b\r\nc"), "invalid"},
		{"no value", nil, "invalid"},
		{"not an object", abi.AppendString(nil, s.URL), "invalid"},
	} {
		if got := do(t, f, t.Context(), c.value); got[0].err != c.want || got[0].status != 0 {
			t.Errorf("%s: %v, want %s", c.name, got[0], c.want)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	if got := do(t, f, t.Context(), value("url", s.URL)); got[0].status != 200 {
		t.Errorf("the one that is granted: %v", got[0])
	}
	// Without the grant nothing is, whatever the block says.
	bare, err := fetch.New(fetch.Config{Plugin: &config.Plugin{Name: "p", Fetch: config.PluginFetch{Origins: origins(t, s.URL)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close(context.Background())
	for _, f := range []*fetch.Fetcher{nil, bare} {
		if got := do(t, f, t.Context(), value("url", s.URL), value()); got[0].err != "denied" || got[1].err != "denied" {
			t.Error(got)
		}
	}
}

// A redirect is an answer: nobody follows it, least of all inwards.
func TestRedirect(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	inside := server(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, inside.URL+"/secret", http.StatusFound)
	})
	f := fetcher(t, fetch.Config{}, config.PluginFetch{Origins: origins(t, s.URL, inside.URL)})
	got := do(t, f, t.Context(), value("url", s.URL))[0]
	if got.status != 302 || got.headers["location"] != inside.URL+"/secret" || asked.Load() != 0 {
		t.Errorf("%v %q, and %d requests inside", got, got.headers, asked.Load())
	}
}

// The environment names a proxy; nobody asks it.
func TestNoProxy(t *testing.T) {
	var asked atomic.Int32
	proxy := server(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	f := fetcher(t, fetch.Config{Resolver: resolver(t, "192.0.2.1")}, config.PluginFetch{Origins: origins(t, "http://service.example"), Timeout: 500 * time.Millisecond})
	if got := do(t, f, t.Context(), value("url", "http://service.example"))[0]; got.err != "denied" || asked.Load() != 0 {
		t.Errorf("%v, and %d requests to the proxy", got, asked.Load())
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	s := server(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "inside") })
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
	for _, c := range []struct {
		origin, leads, want string // want: the error, or the body
	}{
		{"http://auth.example:" + port, "127.0.0.1", "denied"},
		{"private http://auth.example:" + port, "127.0.0.1", "inside"},
		{"http://auth.example:" + port, "10.0.0.1", "denied"},
		{"http://auth.example:" + port, "172.16.0.1", "denied"},
		{"http://auth.example:" + port, "192.168.1.1", "denied"},
		{"http://auth.example:" + port, "169.254.169.254", "denied"},
		{"private http://auth.example:" + port, "169.254.169.254", "denied"},
		{"http://auth.example:" + port, "100.64.0.1", "denied"},
		{"http://auth.example:" + port, "0.0.0.0", "denied"},
		{"private http://auth.example:" + port, "0.0.0.0", "denied"},
		{"http://auth.example:" + port, "::1", "denied"},
		{"http://auth.example:" + port, "::ffff:127.0.0.1", "denied"},
		{"http://auth.example:" + port, "64:ff9b::7f00:1", "denied"},
		{"http://auth.example:" + port, "fd00::1", "denied"},
		{"http://localhost:" + port, "127.0.0.1", "denied"},
		{"private http://localhost:" + port, "127.0.0.1", "inside"},
		{"http://127.0.0.1:" + port, "", "inside"},
		{"http://[::ffff:127.0.0.1]:" + port, "", "inside"},
	} {
		f := fetcher(t, fetch.Config{Resolver: resolver(t, c.leads)}, config.PluginFetch{Origins: origins(t, c.origin)})
		_, u, _ := strings.Cut(" "+strings.TrimPrefix(c.origin, "private "), " ")
		if got := do(t, f, t.Context(), value("url", u))[0]; got.err+got.body != c.want {
			t.Errorf("%s at %s: %v, want %s", c.origin, c.leads, got, c.want)
		}
	}
}

// A name whose address changes between two looks is judged by the one that is dialled.
func TestRebinding(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	s := server(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
	var looks atomic.Int32
	f := fetcher(t, fetch.Config{Resolver: resolverOf(t, func() string {
		if looks.Add(1)%2 == 1 {
			return "192.0.2.1"
		}
		return "127.0.0.1"
	})}, config.PluginFetch{Origins: origins(t, "http://auth.example:"+port), Timeout: 300 * time.Millisecond})
	for range 6 {
		if got := do(t, f, t.Context(), value("url", "http://auth.example:"+port))[0]; got.err != "denied" {
			t.Errorf("%v", got)
		}
	}
	if asked.Load() != 0 {
		t.Error("the address inside was reached")
	}
}

// A name that leads to several addresses is served by those that are allowed.
func TestSomeAddresses(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip("only one loopback address: ", err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	f := fetcher(t, fetch.Config{Resolver: resolver(t, "169.254.1.1 127.0.0.2")}, config.PluginFetch{Origins: origins(t, "private http://auth.example:"+port)})
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "second") }))
	}()
	if got := do(t, f, t.Context(), value("url", "http://auth.example:"+port))[0]; got.body != "second" {
		t.Errorf("%v", got)
	}
}

// raw is a server that writes what it wants.
func raw(t testing.TB, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				b := make([]byte, 4096)
				if _, err := c.Read(b); err == nil {
					f(c)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); work.Wait() })
	return "http://" + l.Addr().String()
}

// drip writes text again and again until it can not.
func drip(c net.Conn, text string, every time.Duration) {
	for {
		if _, err := io.WriteString(c, text); err != nil {
			return
		}
		time.Sleep(every)
	}
}

func TestBadAnswers(t *testing.T) {
	t.Parallel()
	ok := "HTTP/1.1 200 OK\r\n"
	for _, c := range []struct {
		name  string
		serve func(net.Conn)
		want  string
		max   int
	}{
		{"silence", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "timeout", 0},
		{"a head that never ends, slowly", func(c net.Conn) { io.WriteString(c, ok); drip(c, "x-a: b\r\n", 20*time.Millisecond) }, "timeout", 0},
		{"a body that never ends, slowly", func(c net.Conn) {
			io.WriteString(c, ok+"content-length: 1000\r\n\r\n")
			drip(c, "x", 20*time.Millisecond)
		}, "timeout", 0},
		{"a head that never ends", func(c net.Conn) { io.WriteString(c, ok); drip(c, "x-"+strings.Repeat("a", 1000)+": b\r\n", 0) }, "too_large", 0},
		{"a head too large", func(c net.Conn) {
			io.WriteString(c, ok+"content-length: 0\r\nx-a: "+strings.Repeat("a", 65<<10)+"\r\n\r\n")
		}, "too_large", 0},
		{"a body that never ends", func(c net.Conn) {
			io.WriteString(c, ok+"transfer-encoding: chunked\r\n\r\n")
			drip(c, "400\r\n"+strings.Repeat("x", 1024)+"\r\n", 0)
		}, "too_large", 0},
		{"a body until the end of the connection", func(c net.Conn) { io.WriteString(c, ok+"\r\n"); drip(c, strings.Repeat("x", 1024), 0) }, "too_large", 0},
		{"announced too large", func(c net.Conn) { io.WriteString(c, ok+"content-length: 99999999999\r\n\r\n") }, "too_large", 0},
		{"2^20+1 octets", func(c net.Conn) {
			io.WriteString(c, ok+"connection: close\r\n\r\n"+strings.Repeat("x", 1<<20+1))
		}, "too_large", 1 << 20},
		{"cut body", func(c net.Conn) { io.WriteString(c, ok+"content-length: 10\r\n\r\nhi") }, "unreachable", 0},
		{"cut head", func(c net.Conn) { io.WriteString(c, ok+"content-le") }, "unreachable", 0},
		{"no HTTP", func(c net.Conn) { io.WriteString(c, "SSH-2.0-OpenSSH\r\n\r\n") }, "unreachable", 0},
		{"two lengths", func(c net.Conn) { io.WriteString(c, ok+"content-length: 1\r\ncontent-length: 2\r\n\r\nab") }, "unreachable", 0},
		{"a switch of protocols", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")
		}, "unreachable", 0},
		{"status 999", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 999 X\r\ncontent-length: 0\r\n\r\n") }, "unreachable", 0},
		{"endless 1xx", func(c net.Conn) { drip(c, "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", 0) }, "unreachable too_large", 0},
		{"hang up", func(net.Conn) {}, "unreachable", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			at := raw(t, c.serve)
			f := fetcher(t, fetch.Config{}, config.PluginFetch{Origins: origins(t, at), Timeout: 400 * time.Millisecond})
			members := []any{"url", at}
			if c.max > 0 {
				members = append(members, "max", c.max)
			}
			if got := do(t, f, t.Context(), value(members...))[0]; got.status != 0 || !strings.Contains(c.want, got.err) || got.err == "" {
				t.Errorf("%v, want %s", got, c.want)
			}
		})
	}
}

func TestBodySizes(t *testing.T) {
	t.Parallel()
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		var n int
		fmt.Sscan(r.URL.Query().Get("n"), &n)
		if r.URL.Query().Has("chunked") {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
		}
		_, _ = w.Write(make([]byte, n))
	})
	f := fetcher(t, fetch.Config{}, config.PluginFetch{Origins: origins(t, s.URL)})
	for _, c := range []struct {
		n, max int // max -1: the default
		want   string
	}{
		{0, 0, ""}, {1, 0, "too_large"}, {64 << 10, -1, ""}, {64<<10 + 1, -1, "too_large"}, {1 << 20, 1 << 20, ""}, {1<<20 + 1, 1 << 20, "too_large"}, {10, 10, ""}, {11, 10, "too_large"},
	} {
		for _, way := range []string{"", "&chunked"} {
			members := []any{"url", fmt.Sprintf("%s/?n=%d%s", s.URL, c.n, way)}
			if c.max >= 0 {
				members = append(members, "max", c.max)
			}
			if got := do(t, f, t.Context(), value(members...))[0]; got.err != c.want || c.want == "" && len(got.body) != c.n {
				t.Errorf("%d of at most %d%s: %v", c.n, c.max, way, got)
			}
		}
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + l.Addr().String()
	l.Close()
	f := fetcher(t, fetch.Config{Resolver: resolver(t, "")}, config.PluginFetch{Origins: origins(t, closed, "http://nobody.example"), Timeout: time.Second})
	for _, u := range []string{closed, "http://nobody.example"} {
		if got := do(t, f, t.Context(), value("url", u))[0]; got.err != "unreachable" {
			t.Errorf("%s: %v", u, got)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	defer s.Close()
	old := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	old.Config.ErrorLog = s.Config.ErrorLog
	old.StartTLS()
	defer old.Close()
	weak := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "weak") }))
	weak.Config.ErrorLog = s.Config.ErrorLog
	weak.TLS = &tls.Config{MaxVersion: tls.VersionTLS11}
	weak.StartTLS()
	defer weak.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, url, ca, leads, want string
	}{
		{"HTTP/2", s.URL, ca, "", "HTTP/2.0"},
		{"HTTP/1.1", old.URL, ca, "", "HTTP/1.1"},
		{"not trusted", s.URL, "", "", "unreachable"},
		{"TLS 1.1", weak.URL, ca, "", "unreachable"},
		{"another name", "https://other.test:" + s.URL[strings.LastIndex(s.URL, ":")+1:], ca, "127.0.0.1", "unreachable"},
		{"its name", "https://example.com:" + s.URL[strings.LastIndex(s.URL, ":")+1:], ca, "127.0.0.1", "HTTP/2.0"},
		{"its name in capitals with a dot", "https://EXAMPLE.com.:" + s.URL[strings.LastIndex(s.URL, ":")+1:], ca, "127.0.0.1", "HTTP/2.0"},
	} {
		list := origins(t, "private "+c.url)
		list[0].CA = c.ca
		f := fetcher(t, fetch.Config{Resolver: resolver(t, c.leads)}, config.PluginFetch{Origins: list})
		if got := do(t, f, t.Context(), value("url", c.url))[0]; got.err+got.body != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
	if _, err := fetch.New(fetch.Config{Plugin: &config.Plugin{Fetch: config.PluginFetch{Origins: []config.FetchOrigin{{CA: ca + "x"}}}}}); err == nil {
		t.Error("roots that are not there")
	}
}

// Fetches of one result go side by side, and each has its own time.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	var together atomic.Int32
	all := make(chan struct{})
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/never" {
			<-r.Context().Done()
			return
		}
		if together.Add(1) == 3 {
			close(all)
		}
		<-all
		io.WriteString(w, r.URL.Path)
	})
	f := fetcher(t, fetch.Config{}, config.PluginFetch{Origins: origins(t, s.URL), Timeout: 10 * time.Second})
	got := do(t, f, t.Context(), value("url", s.URL+"/never", "timeout", 50*time.Millisecond), value("url", s.URL+"/1"), value("url", s.URL+"/2"), value("url", s.URL+"/3"))
	if got[0].err != "timeout" || got[1].body != "/1" || got[2].body != "/2" || got[3].body != "/3" {
		t.Error(got)
	}
	// The caller's deadline ends what is open, like a timeout.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got := do(t, f, ctx, value("url", s.URL+"/never"), value("url", s.URL+"/4")); got[0].err != "timeout" {
		t.Error(got)
	}
}

// When the exchange is over nobody waits, and what was asked for is given up at the other end too.
func TestGone(t *testing.T) {
	t.Parallel()
	came, gone := make(chan struct{}), make(chan struct{})
	s := server(t, func(_ http.ResponseWriter, r *http.Request) {
		close(came)
		<-r.Context().Done()
		close(gone)
	})
	f := fetcher(t, fetch.Config{}, config.PluginFetch{Origins: origins(t, s.URL), Timeout: 20 * time.Second})
	why := errors.New("the client has gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-came
		cancel(why)
	}()
	if got, err := try(f, ctx, value("url", s.URL)); !errors.Is(err, why) {
		t.Error(got, err)
	}
	<-gone
}

func TestBusy(t *testing.T) {
	t.Parallel()
	free := make(chan struct{})
	var now, most atomic.Int32
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-free
		now.Add(-1)
	})
	f := fetcher(t, fetch.Config{}, config.PluginFetch{Origins: origins(t, s.URL), Timeout: 20 * time.Second, Concurrent: 2})
	var work sync.WaitGroup
	results := make(chan answer, 100)
	for range 10 { // two under way, and eight wait
		work.Go(func() {
			got, err := try(f, t.Context(), value("url", s.URL))
			if err != nil {
				t.Error(err)
				return
			}
			results <- got[0]
		})
	}
	for f.Pending() < 10 {
		runtime.Gosched()
	}
	if got := do(t, f, t.Context(), value("url", s.URL))[0]; got.err != "busy" {
		t.Errorf("the eleventh: %v", got)
	}
	close(free)
	work.Wait()
	close(results)
	for got := range results {
		if got.status != 200 {
			t.Error(got)
		}
	}
	if most.Load() > 2 {
		t.Errorf("%d at once", most.Load())
	}
}

// One that waits for a place until its time is over was never sent, and says so.
func TestBusyInTheQueue(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	free := make(chan struct{})
	s := server(t, func(http.ResponseWriter, *http.Request) { asked.Add(1); <-free })
	f := fetcher(t, fetch.Config{}, config.PluginFetch{Origins: origins(t, s.URL), Timeout: 20 * time.Second, Concurrent: 1})
	var work sync.WaitGroup
	work.Go(func() { _, _ = try(f, t.Context(), value("url", s.URL)) })
	for asked.Load() == 0 {
		runtime.Gosched()
	}
	if got := do(t, f, t.Context(), value("url", s.URL, "timeout", 30*time.Millisecond))[0]; got.err != "busy" {
		t.Error(got)
	}
	close(free)
	work.Wait()
	if asked.Load() != 1 {
		t.Errorf("%d requests", asked.Load())
	}
}

// Answers that wait to be taken are bounded: beyond 64 MiB fetches are refused until some are released.
func TestHeld(t *testing.T) {
	t.Parallel()
	s := server(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) })
	f := fetcher(t, fetch.Config{}, config.PluginFetch{Origins: origins(t, s.URL), Timeout: 20 * time.Second, Cache: 2 << 20})
	for _, age := range []time.Duration{0, time.Hour} { // kept ones are copied for whoever gets them
		v := value("url", s.URL, "max", 1<<20, "cache", age)
		var held []*fetch.Answers
		busy := 0
		for range 70 {
			a, err := f.Do(t.Context(), []fetch.Call{{Name: "a", Value: v}})
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(a.Value, []byte("busy")) {
				busy++
			}
			held = append(held, a)
		}
		if busy < 6 || busy > 8 {
			t.Errorf("%d of 70 were refused, of which 64 fit", busy)
		}
		for _, a := range held {
			a.Release()
		}
		if got := do(t, f, t.Context(), v)[0]; got.status != 200 {
			t.Errorf("after all were released: %v", got)
		}
		if f.Held() != 0 {
			t.Errorf("%d octets are held for good", f.Held())
		}
	}
}

func TestCache(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		switch r.URL.Path {
		case "/500":
			w.WriteHeader(500)
		case "/404":
			w.WriteHeader(404)
		case "/large":
			_, _ = w.Write(make([]byte, 40<<10))
		}
		fmt.Fprint(w, n)
	})
	f := fetcher(t, fetch.Config{}, config.PluginFetch{Origins: origins(t, s.URL), Cache: 30 << 10})
	for _, c := range []struct {
		name string
		a, b []byte
		once bool
	}{
		{"the same", value("url", s.URL+"/1", "cache", time.Hour), value("url", s.URL+"/1", "cache", time.Hour), true},
		{"another timeout", value("url", s.URL+"/2", "cache", time.Hour), value("url", s.URL+"/2", "cache", time.Minute, "timeout", time.Second), true},
		{"fields in another order", value("url", s.URL+"/3", "cache", time.Hour, "headers", []string{"x-a", "1", "x-b", "2"}), value("headers", []string{"x-b", "2", "x-a", "1"}, "url", s.URL+"/3", "cache", time.Hour), true},
		{"the origin written otherwise", value("url", s.URL, "cache", time.Hour), value("url", "HTTP"+s.URL[4:]+"/", "cache", time.Hour), true},
		{"404", value("url", s.URL+"/404", "cache", time.Hour), value("url", s.URL+"/404", "cache", time.Hour), true},
		{"not asked for", value("url", s.URL+"/4"), value("url", s.URL+"/4"), false},
		{"not asked for again", value("url", s.URL+"/5", "cache", time.Hour), value("url", s.URL+"/5"), false},
		{"too old", value("url", s.URL+"/6", "cache", time.Hour), value("url", s.URL+"/6", "cache", 1), false},
		{"another field", value("url", s.URL+"/7", "cache", time.Hour, "headers", []string{"authorization", "a"}), value("url", s.URL+"/7", "cache", time.Hour, "headers", []string{"authorization", "b"}), false},
		{"a field cut otherwise", value("url", s.URL+"/8", "cache", time.Hour, "headers", []string{"x-a", "b"}), value("url", s.URL+"/8", "cache", time.Hour, "headers", []string{"x-ab", ""}), false},
		{"another body", value("url", s.URL+"/9", "cache", time.Hour, "method", "POST", "body", "a"), value("url", s.URL+"/9", "cache", time.Hour, "method", "POST", "body", "b"), false},
		{"another method", value("url", s.URL+"/10", "cache", time.Hour, "method", "POST"), value("url", s.URL+"/10", "cache", time.Hour), false},
		{"another query", value("url", s.URL+"/11?a", "cache", time.Hour), value("url", s.URL+"/11?b", "cache", time.Hour), false},
		{"another bound", value("url", s.URL+"/12", "cache", time.Hour), value("url", s.URL+"/12", "cache", time.Hour, "max", 100), false},
		{"500", value("url", s.URL+"/500", "cache", time.Hour), value("url", s.URL+"/500", "cache", time.Hour), false},
		{"larger than the cache", value("url", s.URL+"/large", "cache", time.Hour), value("url", s.URL+"/large", "cache", time.Hour), false},
	} {
		before := asked.Load()
		one, two := do(t, f, t.Context(), c.a)[0], do(t, f, t.Context(), c.b)[0]
		n := asked.Load() - before
		if one.cached || two.cached != c.once || (n == 1) != c.once || c.once && one.body != two.body || one.err+two.err != "" {
			t.Errorf("%s: %v, then %v, by %d requests", c.name, one, two, n)
		}
	}
	// What was used last is still there when the least used had to make room.
	for i := range 500 {
		do(t, f, t.Context(), value("url", fmt.Sprintf("%s/fill/%d", s.URL, i), "cache", time.Hour))
		if got := do(t, f, t.Context(), value("url", s.URL+"/1", "cache", time.Hour))[0]; !got.cached {
			t.Fatalf("lost after %d others", i)
		}
	}
	if got := do(t, f, t.Context(), value("url", s.URL+"/fill/0", "cache", time.Hour))[0]; got.cached {
		t.Error("500 answers fit into 30 KiB")
	}
	off := fetcher(t, fetch.Config{}, config.PluginFetch{Origins: origins(t, s.URL)})
	do(t, off, t.Context(), value("url", s.URL+"/1", "cache", time.Hour))
	if got := do(t, off, t.Context(), value("url", s.URL+"/1", "cache", time.Hour))[0]; got.cached {
		t.Error("a cache of no size has kept an answer")
	}
}

// Requests that are the same and go at the same time are one; whoever asked first and leaves does not take it from the others.
func TestSingleFlight(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	free := make(chan struct{})
	s := server(t, func(w http.ResponseWriter, _ *http.Request) {
		n := asked.Add(1)
		<-free
		fmt.Fprint(w, n)
	})
	f := fetcher(t, fetch.Config{}, config.PluginFetch{Origins: origins(t, s.URL), Timeout: 20 * time.Second, Concurrent: 1})
	same := value("url", s.URL, "cache", time.Nanosecond)
	leader, leave := context.WithCancel(t.Context())
	var first sync.WaitGroup
	first.Go(func() {
		if _, err := try(f, leader, same); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	for asked.Load() == 0 {
		runtime.Gosched()
	}
	var others sync.WaitGroup
	results := make(chan answer, 1000)
	for range 100 { // more than may wait: they take no place of their own
		others.Go(func() {
			got, err := try(f, t.Context(), same)
			if err != nil {
				t.Error(err)
				return
			}
			results <- got[0]
		})
	}
	for f.Waiting() < 101 {
		runtime.Gosched()
	}
	leave()
	first.Wait()
	close(free)
	others.Wait()
	close(results)
	for got := range results {
		if got.body != "1" || got.err != "" || !got.cached {
			t.Fatal(got)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("%d requests", asked.Load())
	}
}

// When everyone has left, the request is given up, and the next one who asks begins anew.
func TestEveryoneLeaves(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	gone := make(chan struct{})
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			<-r.Context().Done()
			close(gone)
			return
		}
		io.WriteString(w, "again")
	})
	f := fetcher(t, fetch.Config{}, config.PluginFetch{Origins: origins(t, s.URL), Timeout: 20 * time.Second, Cache: 1 << 20})
	if got := do(t, f, t.Context(), value("url", s.URL, "cache", time.Hour, "timeout", 50*time.Millisecond))[0]; got.err != "timeout" {
		t.Error(got)
	}
	<-gone
	if got := do(t, f, t.Context(), value("url", s.URL, "cache", time.Hour))[0]; got.body != "again" || got.cached {
		t.Error(got)
	}
}

// service is an upstream in its place.
type service func(ctx context.Context, r *fetch.Request) (*fetch.Response, error)

func (s service) Fetch(ctx context.Context, r *fetch.Request) (*fetch.Response, error) {
	return s(ctx, r)
}

func TestUpstream(t *testing.T) {
	t.Parallel()
	say := func(status int, text string) *fetch.Response {
		return &fetch.Response{Status: status, Header: exchange.Header{{Name: "x-b", Value: "1"}, {Name: "x-a", Value: "2"}, {Name: "connection", Value: "x"}}, Body: io.NopCloser(strings.NewReader(text)), Length: -1}
	}
	f := fetcher(t, fetch.Config{Upstreams: map[string]fetch.Upstream{
		"auth": &asService{func(_ context.Context, r *fetch.Request) (*fetch.Response, error) {
			return say(200, fmt.Sprintf("%s %s %s %s", r.Method, r.Path, r.Query, r.Body)), nil
		}},
		"busy": &asService{func(context.Context, *fetch.Request) (*fetch.Response, error) {
			return nil, fmt.Errorf("all: %w", fetch.ErrBusy)
		}},
		"down": &asService{func(context.Context, *fetch.Request) (*fetch.Response, error) { return nil, errors.New("down") }},
		"slow": &asService{func(ctx context.Context, _ *fetch.Request) (*fetch.Response, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}},
		"bad": &asService{func(context.Context, *fetch.Request) (*fetch.Response, error) { return say(777, ""), nil }},
	}}, config.PluginFetch{Timeout: 100 * time.Millisecond})
	got := do(t, f, t.Context(), value("upstream", "auth"), value("upstream", "auth", "path", "//a/./b%7e?x=%2f", "method", "PUT", "body", "hi"),
		value("upstream", "busy"), value("upstream", "down"), value("upstream", "slow"), value("upstream", "bad"), value("upstream", "none"))
	if got[0].body != "GET /  " || got[1].body != "PUT /a/b~ x=%2f hi" || got[2].err != "busy" || got[3].err != "unreachable" || got[4].err != "timeout" || got[5].err != "unreachable" || got[6].err != "denied" {
		t.Error(got)
	}
	if h := got[0].headers; h["x-a"] != "2" || h["x-b"] != "1" || len(h) != 2 {
		t.Errorf("headers %q", h)
	}
}

// asService is a service that can be compared.
type asService struct{ service }

func TestServes(t *testing.T) {
	t.Parallel()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	s := httptest.NewTLSServer(nil)
	s.Close()
	write := func(more string) {
		if err := os.WriteFile(ca, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), more...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	up := &asService{}
	plugin := func() *config.Plugin {
		return &config.Plugin{Name: "p", Grants: []string{"fetch"}, Fetch: config.PluginFetch{Origins: []config.FetchOrigin{{Scheme: "https", Host: "a:443", CA: ca}}, Timeout: time.Second, Concurrent: 3, Cache: 5}}
	}
	ups := map[string]fetch.Upstream{"u": up}
	f := fetcher(t, fetch.Config{Upstreams: ups}, plugin().Fetch)
	if !f.Serves(plugin(), map[string]fetch.Upstream{"u": up}) {
		t.Error("the same is not the same")
	}
	for name, change := range map[string]func(p *config.Plugin){
		"name":       func(p *config.Plugin) { p.Name = "q" },
		"grant":      func(p *config.Plugin) { p.Grants = nil },
		"origin":     func(p *config.Plugin) { p.Fetch.Origins[0].Host = "b:443" },
		"private":    func(p *config.Plugin) { p.Fetch.Origins[0].Private = true },
		"no origin":  func(p *config.Plugin) { p.Fetch.Origins = nil },
		"timeout":    func(p *config.Plugin) { p.Fetch.Timeout = time.Minute },
		"concurrent": func(p *config.Plugin) { p.Fetch.Concurrent = 4 },
		"cache":      func(p *config.Plugin) { p.Fetch.Cache = 0 },
	} {
		p := plugin()
		if change(p); f.Serves(p, ups) {
			t.Errorf("%s changed, and nothing noticed", name)
		}
	}
	if f.Serves(plugin(), map[string]fetch.Upstream{"u": &asService{}}) || f.Serves(plugin(), nil) {
		t.Error("the upstream changed, and nothing noticed")
	}
	write("\n")
	if f.Serves(plugin(), ups) {
		t.Error("the roots changed, and nothing noticed")
	}
}

// Close ends what is under way, and leaves nothing.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	came := make(chan struct{}, 10)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ok" {
			return
		}
		came <- struct{}{}
		<-r.Context().Done()
	}))
	f, err := fetch.New(fetch.Config{Plugin: &config.Plugin{Grants: []string{"fetch"}, Fetch: config.PluginFetch{Origins: origins(t, s.URL), Timeout: time.Minute, Concurrent: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	do(t, f, t.Context(), value("url", s.URL+"/ok"), value("url", s.URL+"/ok"))
	var work sync.WaitGroup
	for range 4 { // two under way, and two wait
		work.Go(func() {
			got, err := try(f, t.Context(), value("url", s.URL))
			if err != nil || got[0].err == "" {
				t.Error(got, err)
			}
		})
	}
	<-came
	<-came
	if err := f.Close(t.Context()); err != nil {
		t.Error(err)
	}
	work.Wait()
	if got := do(t, f, t.Context(), value("url", s.URL))[0]; got.err != "unreachable" {
		t.Errorf("after Close: %v", got)
	}
	s.Close()
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			b := make([]byte, 64<<10)
			t.Fatalf("%d goroutines, and %d before:\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
		}
	}
}

// What goes wrong is in metrics, and no secret is in the log.
func TestMetricsAndLog(t *testing.T) {
	t.Parallel()
	s := server(t, func(http.ResponseWriter, *http.Request) {})
	tel, err := telemetry.New(t.Context(), telemetry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	dead := raw(t, func(c net.Conn) { io.WriteString(c, "SSH-2.0\r\n") })
	f := fetcher(t, fetch.Config{Metrics: tel.Metrics.Fetches("p"), Log: logger}, config.PluginFetch{Origins: origins(t, s.URL, dead), Cache: 1 << 20})
	secret := []string{"authorization", "s3cret"}
	do(t, f, t.Context(),
		value("url", s.URL+"/s3cret", "headers", secret, "cache", time.Hour), value("url", dead+"/?key=s3cret", "headers", secret, "method", "POST", "body", "s3cret"),
		value("url", "http://other.example/s3cret", "headers", secret), value("url", s.URL, "headers", []string{"authorization", "s3cret\n"}), value("url", "http://s3cret%zz"))
	do(t, f, t.Context(), value("url", s.URL+"/s3cret", "headers", secret, "cache", time.Hour))
	if strings.Contains(log.String(), "s3cret") || !strings.Contains(log.String(), "unreachable") || !strings.Contains(log.String(), "other.example") {
		t.Errorf("the log says\n%s", log.String())
	}
	w := httptest.NewRecorder()
	tel.Metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`postern_plugin_fetches_total{outcome="2xx",plugin="p"} 1`, `postern_plugin_fetches_total{outcome="cached",plugin="p"} 1`,
		`postern_plugin_fetches_total{outcome="denied",plugin="p"} 1`, `postern_plugin_fetches_total{outcome="invalid",plugin="p"} 2`,
		`postern_plugin_fetches_total{outcome="unreachable",plugin="p"} 1`, `postern_plugin_fetch_duration_seconds_count{plugin="p"} 6`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// Everything at once: fetches, shared and not, of those that stay and those that leave, while it is closed.
func TestHammer(t *testing.T) {
	t.Parallel()
	s := server(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) })
	f, err := fetch.New(fetch.Config{Plugin: &config.Plugin{Grants: []string{"fetch"}, Fetch: config.PluginFetch{Origins: origins(t, s.URL), Concurrent: 8, Cache: 2 << 10}}})
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	for g := range 32 {
		work.Go(func() {
			for i := range 60 {
				path := fmt.Sprintf("/%d", (g+i)%20)
				ctx, cancel := context.WithCancel(t.Context())
				if i%7 == 0 {
					go cancel()
				}
				got, err := try(f, ctx, value("url", s.URL+path, "cache", time.Duration(i%2)*time.Hour), value("url", s.URL+path, "cache", time.Nanosecond))
				cancel()
				if err == nil {
					for _, a := range got {
						if a.body != path && a.err != "busy" && a.err != "unreachable" {
							t.Errorf("%s: %v", path, a)
						}
					}
				}
			}
		})
	}
	work.Wait()
	if f.Held() != 0 || f.Waiting() != 0 || f.Pending() != 0 {
		t.Errorf("%d octets, %d waiting, %d pending", f.Held(), f.Waiting(), f.Pending())
	}
	if err := f.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// FuzzRead: any octets are a request in order, or none; one in order leads nowhere but where its origin says.
func FuzzRead(f *testing.F) {
	f.Add(value("url", "http://a"))
	f.Add(value("url", "https://ä.example:1/b?c", "method", "POST", "headers", []string{"x-a", "b"}, "body", "c", "timeout", 1, "cache", 2, "max", 3))
	f.Add(value("upstream", "a", "path", "/b?c"))
	f.Add([]byte{6, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := fetch.Read(b)
		if err != nil {
			return
		}
		if r.URL == nil {
			if r.Path == "" || r.Path[0] != '/' || strings.ContainsAny(r.Path+r.Query, "\r\n #") || strings.Contains(r.Path, "/../") {
				t.Errorf("path %q, query %q", r.Path, r.Query)
			}
			return
		}
		u, err := url.Parse(r.URL.String())
		if err != nil {
			t.Fatal(err)
		}
		at, err := origin.Of(u)
		if err != nil || at.String() != r.Origin || r.URL.User != nil {
			t.Errorf("%s: %s %v, and compared as %s", r.URL, at, err, r.Origin)
		}
		for _, s := range []string{r.URL.RequestURI(), r.Method} {
			if strings.ContainsAny(s, "\r\n ") {
				t.Errorf("%q splits a request", s)
			}
		}
	})
}

func TestClasses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"8.8.8.8": "public", "1.1.1.1": "public", "2606:4700::1111": "public", "64:ff9b::808:808": "public", "2002:808:808::1": "public", "::8.8.8.8": "public",
		"127.0.0.1": "private", "127.255.255.255": "private", "10.1.2.3": "private", "172.31.0.1": "private", "192.168.0.1": "private", "100.127.0.1": "private",
		"198.18.0.1": "private", "::1": "private", "fd12::1": "private", "fc00::1": "private", "64:ff9b:1::1": "private", "::ffff:10.0.0.1": "private",
		"64:ff9b::a00:1": "private", "2002:a00:1::": "private", "::127.0.0.1": "private", "::ffff:0:127.0.0.1": "private",
		"169.254.0.1": "never", "fe80::1": "never", "64:ff9b::a9fe:a9fe": "never", "::ffff:169.254.169.254": "never", "224.0.0.1": "never", "ff02::1": "never",
		"0.0.0.0": "never", "::": "never", "0.1.2.3": "never", "255.255.255.255": "never", "240.0.0.1": "never", "192.0.2.1": "never", "192.0.0.1": "never",
		"203.0.113.9": "never", "2001:db8::1": "never", "2001::1": "never", "fec0::1": "never", "100::1": "never",
	} {
		if got := fetch.ClassOf(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
}

func BenchmarkFetch(b *testing.B) {
	s := server(b, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	f := fetcher(b, fetch.Config{}, config.PluginFetch{Origins: origins(b, s.URL), Cache: 1 << 20})
	for name, v := range map[string][]byte{"sent": value("url", s.URL), "cached": value("url", s.URL, "cache", time.Hour)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				a, err := f.Do(b.Context(), []fetch.Call{{Name: "a", Value: v}})
				if err != nil {
					b.Fatal(err)
				}
				a.Release()
			}
		})
	}
}

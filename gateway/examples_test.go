package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/postern-gateway/postern/examples/sandbox/sandbox"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

// example copies a scenario to a folder of its own, beside the plugins. replace are texts of its config.hcl and what stands
// in their place, such as the address of a server that the test plays.
func example(t *testing.T, name string, replace ...string) (dir string) {
	t.Helper()
	plugins(t)
	top, tree := root(t), t.TempDir()
	from := filepath.Join(top, "examples", name)
	dir = filepath.Join(tree, "examples", name)
	for _, sub := range []string{"policies", "data", "keys"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, pattern := range []string{"*.hcl", "policies/*.hcl"} {
		paths, err := filepath.Glob(filepath.Join(from, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text := string(b)
			for i := 0; i < len(replace) && filepath.Base(path) == "config.hcl"; i += 2 {
				if !strings.Contains(text, replace[i]) {
					t.Fatalf("%s has no %s", path, replace[i])
				}
				text = strings.ReplaceAll(text, replace[i], replace[i+1])
			}
			rel, _ := filepath.Rel(from, path)
			if err := os.WriteFile(filepath.Join(dir, rel), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	cache := plugintest.CacheDir()
	if err := os.MkdirAll(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{filepath.Join(tree, "plugins"): filepath.Join(top, "plugins"), filepath.Join(dir, "data", "cache"): cache} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// told runs a command of a scenario's README against the node, as a reader would.
func (n *node) told(t *testing.T, file, begins string, environment ...string) string {
	t.Helper()
	needs(t, "curl", "install curl")
	command := commandLines(blockWith(t, file, "sh", begins+" "))[0]
	_, port, _ := net.SplitHostPort(n.address)
	for _, shown := range []string{"127.0.0.1:8080", "localhost:8443"} {
		command = strings.ReplaceAll(command, shown, "127.0.0.1:"+port)
	}
	command = strings.ReplaceAll(command, "examples/"+filepath.Base(n.dir)+"/", "")
	code, out, errs := shell(t, n.dir, append(append(os.Environ(), "no_proxy=*", "NO_PROXY=*"), environment...), command)
	if code != 0 {
		t.Fatalf("%s\nexit code %d: %s%s", command, code, out, errs)
	}
	return out
}

// TestExampleReverseProxy: both servers are used in turn, and one that is ill is left alone until it is well.
func TestExampleReverseProxy(t *testing.T) {
	t.Parallel()
	var ill atomic.Bool
	server := func(name string, ill *atomic.Bool) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if ill.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			_, _ = io.WriteString(w, name)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	n := startIn(t, example(t, "reverse-proxy",
		"http://127.0.0.1:9001", server("one", &ill), "http://127.0.0.1:9002", server("two", new(atomic.Bool)), `"2s"`, `"100ms"`))
	const readme = "examples/reverse-proxy/README.md"
	if a, b := n.told(t, readme, "curl"), n.told(t, readme, "curl"); a+b != "onetwo" && a+b != "twoone" {
		t.Errorf("answered by %s, then by %s", a, b)
	}
	ill.Store(true)
	for range 4 { // checked or not: the client does not notice
		if got := n.told(t, readme, "curl"); got != "two" {
			t.Errorf("the ill one answered: %s", got)
		}
	}
	usable := func(want int) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			have := 0
			for _, e := range n.Upstreams()["app"] {
				if e.Healthy {
					have++
				}
			}
			if have == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d servers are healthy, want %d", have, want)
			}
		}
	}
	usable(1)
	ill.Store(false)
	usable(2)
	seen := map[string]bool{}
	for range 4 {
		seen[n.told(t, readme, "curl")] = true
	}
	if !seen["one"] {
		t.Error("the one that is well again is not used")
	}
}

// TestExampleRateLimit: the sixth login is refused with the time to wait; other requests are not.
func TestExampleRateLimit(t *testing.T) {
	t.Parallel()
	var logins atomic.Int64
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/login" {
			logins.Add(1)
		}
	}))
	t.Cleanup(app.Close)
	dir := example(t, "rate-limit", "http://127.0.0.1:9001", app.URL)
	n := startIn(t, dir)
	var got []string
	for range 6 {
		got = append(got, strings.TrimSpace(n.told(t, "examples/rate-limit/README.md", "curl")))
	}
	if strings.Join(got, " ") != "200 200 200 200 200 429" || logins.Load() != 5 {
		t.Errorf("%s, and %d reached the app", got, logins.Load())
	}
	resp, err := http.Post("http://"+n.address+"/login", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s, retry-after %q", resp.Status, resp.Header.Get("Retry-After"))
	}
	if resp, err = http.Get("http://" + n.address + "/"); err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("X-Ratelimit-Remaining-Requests") != "99" {
		t.Errorf("%s, %s are left", resp.Status, resp.Header.Get("X-Ratelimit-Remaining-Requests"))
	}
	n.stop()
	if code, out, errs := command(t, "", "test", dir); code != 0 || !strings.Contains(out, "1 passed, 0 failed") {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

// TestExampleRealtime: a WebSocket and gRPC streams run both ways through it.
func TestExampleRealtime(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, []byte("echo "+string(message))) != nil {
				return
			}
		}
	}))
	t.Cleanup(web.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rpc := echoService()
	go func() { _ = rpc.Serve(l) }() // ends with Stop
	t.Cleanup(rpc.Stop)
	n := startIn(t, example(t, "realtime", "http://127.0.0.1:9001", web.URL, "http://127.0.0.1:9002", "http://"+l.Addr().String()))

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "wss://"+n.address+"/socket", &websocket.DialOptions{HTTPClient: n.client(t, "http1")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseNow() }()
	for i := range 3 {
		if err := c.Write(ctx, websocket.MessageText, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || string(got) != fmt.Sprint("echo ", i) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	callGRPC(t, n)
}

// TestExampleMutualTLS: without a certificate nobody comes in; with one, its name decides.
func TestExampleMutualTLS(t *testing.T) {
	t.Parallel()
	needs(t, "openssl", "install openssl")
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Method) }))
	t.Cleanup(app.Close)
	dir := example(t, "mutual-tls", "http://127.0.0.1:9001", app.URL)
	const readme = "examples/mutual-tls/README.md"
	make := blockWith(t, readme, "sh", "openssl")
	environment := os.Environ()
	shellMust(t, dir, environment, make)
	reader := strings.ReplaceAll(make[strings.Index(make, "openssl req -newkey"):], "robot", "reader")
	shellMust(t, dir, environment, reader)
	n := startIn(t, dir)
	if got := n.told(t, readme, "curl"); got != "PUT" {
		t.Errorf("the robot is told %q", got)
	}
	client := func(name string) *http.Client {
		config := &tls.Config{RootCAs: n.roots}
		if name != "" {
			pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "keys", name+".pem"), filepath.Join(dir, "keys", name+".key"))
			if err != nil {
				t.Fatal(err)
			}
			config.Certificates = []tls.Certificate{pair}
		}
		tr := &http.Transport{TLSClientConfig: config}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr, Timeout: time.Minute}
	}
	for _, c := range []struct {
		name, method string
		status       int
	}{{"reader", "GET", 200}, {"reader", "DELETE", 403}, {"robot", "DELETE", 200}} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, n.url+"/thing", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client(c.name).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s of the %s: %s", c.method, c.name, resp.Status)
		}
	}
	if resp, err := client("").Get(n.url + "/thing"); err == nil {
		_ = resp.Body.Close()
		t.Errorf("without a certificate: %s", resp.Status)
	}
}

// TestExampleFallback: the second provider answers when the first does not, under its own key; only the answer is charged.
func TestExampleFallback(t *testing.T) {
	t.Parallel()
	first, second := sandbox.Handler(sandbox.Config{Key: "key-one"}), sandbox.Handler(sandbox.Config{Key: "key-two"})
	one, two := httptest.NewServer(first), httptest.NewServer(second)
	t.Cleanup(one.Close)
	t.Cleanup(two.Close)
	dir := example(t, "fallback", "http://127.0.0.1:9001", one.URL, "http://127.0.0.1:9002", two.URL)
	for name, key := range map[string]string{"first": "key-one\n", "second": "key-two\n"} {
		if err := os.WriteFile(filepath.Join(dir, "keys", name), []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := startIn(t, dir)
	account, key := n.customer(t, "5")
	ask := func() string {
		t.Helper()
		out := n.told(t, "examples/fallback/README.md", "curl", "KEY="+key)
		if !strings.Contains(out, " 200") || !strings.Contains(strings.ToLower(out), "\npostern-receipt:") || !strings.Contains(out, `"model":"small"`) || !strings.Contains(out, "You said: Hello!") {
			t.Fatal(out)
		}
		return out
	}
	ask()
	if a, b := first.Stats().Served, second.Stats().Served; a != 1 || b != 0 {
		t.Errorf("the first served %d, the second %d", a, b)
	}
	one.Close()
	ask()
	if a, b := first.Stats().Served, second.Stats().Served; a != 1 || b != 1 {
		t.Errorf("the first served %d, the second %d", a, b)
	}
	charges := 0
	for e, err := range n.Storage().Ledger.Entries(t.Context(), account, 0, 100) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind.String() == "charge" {
			charges++
		}
	}
	if charges != 2 {
		t.Errorf("%d charges for two answers", charges)
	}
	n.verify(t)
	if code, out, errs := command(t, "", "explain", "POST", "/v1/chat/completions", dir); code != 0 || !strings.Contains(out, "sandbox-mini at upstream second") || !strings.Contains(out, "0.60 per million") {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/postern-gateway/postern/sdk/plugintest"
)

// authorization is the scenario with a service that the test plays: service answers whoever asks it who calls.
func authorization(t *testing.T, service http.HandlerFunc, replace ...string) *node {
	t.Helper()
	asked := httptest.NewServer(service)
	t.Cleanup(asked.Close)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s%s", r.Header.Get("X-Account"), r.Header.Get("Authorization"))
	}))
	t.Cleanup(app.Close)
	dir := example(t, "authorization-service", append([]string{"http://127.0.0.1:9002", asked.URL, "http://127.0.0.1:9001", app.URL}, replace...)...)
	rewrite(t, filepath.Join(dir, "policies", "members.hcl"), func(s string) string {
		return strings.NewReplacer("http://127.0.0.1:9002", asked.URL, `"5s"`, `"1h"`).Replace(s) // kept for as long as a busy machine may need
	})
	from, to := filepath.Join(root(t), "examples", "authorization-service", "authz"), filepath.Join(dir, "authz")
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"plugin.hcl": filepath.Join(from, "plugin.hcl"), "authz.wasm": plugintest.Build(t, from)} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := startIn(t, dir)
	n.url = "http://" + n.address
	return n
}

// as asks the gateway with credentials, and returns the status and the body.
func (n *node) as(ctx context.Context, c *http.Client, credentials string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url+"/", nil)
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Authorization", credentials)
	resp, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// members is a service that knows whoever says "Bearer m-...".
func members(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case name == "broken":
		w.WriteHeader(http.StatusInternalServerError)
	case name == "redirected":
		http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
	case !ok || name == "" || name == "stranger":
		w.WriteHeader(http.StatusUnauthorized)
	default:
		w.Header().Set("X-Account", name)
	}
}

// fetching is how many fetches the authorization plugin's exchanges wait for.
func (n *node) fetching() int { return n.Plugins()[0].Fetching }

// TestExampleAuthorizationService: the service decides, once for each caller while its answer is kept and for all of them at a time, and
// when it can not be asked nobody is let in.
func TestExampleAuthorizationService(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	var held sync.Map // credentials to a channel that holds the answer back
	n := authorization(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if wait, ok := held.Load(r.Header.Get("Authorization")); ok {
			<-wait.(chan struct{})
		}
		members(w, r)
	}, `timeout = "1s"`, `timeout = "1m"`, "grants = [fetch]", "grants = [fetch]\n  limits {\n    queue = \"10s\"\n  }")
	const readme = "examples/authorization-service/README.md"
	for range 3 {
		if got := n.told(t, readme, "curl"); got != "hello good" {
			t.Errorf("told %q", got)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("the service was asked %d times about one caller", asked.Load())
	}
	c := n.client(t, "http1")
	for credentials, want := range map[string]string{
		"Bearer stranger": "401 unknown_credentials", "Bearer broken": "503 authorization_unavailable", "Bearer redirected": "503 authorization_unavailable", "": "401 missing_credentials",
	} {
		var status int
		var body string
		var err error
		if credentials == "" {
			resp, e := c.Get(n.url)
			if err = e; err == nil {
				b, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				status, body = resp.StatusCode, string(b)
			}
		} else {
			status, body, err = n.as(t.Context(), c, credentials)
		}
		code, word, _ := strings.Cut(want, " ")
		if err != nil || fmt.Sprint(status) != code || !strings.Contains(body, word) || strings.Contains(body, "hello") {
			t.Errorf("%s: %d %s %v, want %s", credentials, status, body, err, want)
		}
	}

	// Fifty at once with the same new credentials: one question. Whoever began and leaves does not take the answer from the others.
	free := make(chan struct{})
	held.Store("Bearer crowd", free)
	before := asked.Load()
	ctx, leave := context.WithCancel(t.Context())
	var first, others sync.WaitGroup
	first.Go(func() { _, _, _ = n.as(ctx, c, "Bearer crowd") })
	waitFor(t, "the first question", func() bool { return asked.Load() > before })
	const crowd = 50
	for range crowd {
		others.Go(func() {
			if status, body, err := n.as(t.Context(), c, "Bearer crowd"); status != 200 || body != "hello crowd" {
				t.Errorf("%d %s %v", status, body, err)
			}
		})
	}
	waitFor(t, "the others to join", func() bool { return n.fetching() == 1+crowd })
	leave()
	first.Wait()
	waitFor(t, "the first to leave", func() bool { return n.fetching() == crowd })
	close(free)
	others.Wait()
	if got := asked.Load() - before; got != 1 {
		t.Errorf("%d questions about fifty callers with the same credentials", got)
	}
	if got := n.fetching(); got != 0 {
		t.Errorf("%d still wait", got)
	}

	_, out, _ := command(t, "", "explain", "GET", "/", n.dir)
	if !strings.Contains(out, "may ask: http://127.0.0.1:") || !strings.Contains(out, "may use: fetch") {
		t.Errorf("explain does not say whom the plugin asks:\n%s", out)
	}
	w := httptest.NewRecorder()
	n.metrics.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{`postern_plugin_fetches_total{outcome="cached",plugin="authz"}`, `postern_plugin_fetches_total{outcome="5xx",plugin="authz"} 1`, `postern_plugin_fetches_total{outcome="3xx",plugin="authz"} 1`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// A thousand exchanges that wait for a slow service at the same time need two instances.
func TestThousandAwait(t *testing.T) {
	t.Parallel()
	const exchanges = 1000
	var waiting atomic.Int64
	all := make(chan struct{})
	n := authorization(t, func(w http.ResponseWriter, r *http.Request) {
		if waiting.Add(1) == exchanges {
			close(all)
		}
		select {
		case <-all:
		case <-r.Context().Done():
		}
		members(w, r)
	}, `timeout = "1s"`, `timeout = "1m"`+"\n    concurrent = 1000", "grants = [fetch]", "grants = [fetch]\n  limits {\n    instances = 2\n    queue     = \"10s\"\n  }")
	c := n.client(t, "http1")
	var work sync.WaitGroup
	var failed atomic.Int64
	for i := range exchanges {
		// They wait together, and need not have come in the same millisecond.
		waitFor(t, "those before", func() bool { return int64(i)-waiting.Load() < 100 || t.Failed() })
		work.Go(func() {
			who := fmt.Sprintf("m-%d", i)
			if status, body, err := n.as(t.Context(), c, "Bearer "+who); status != 200 || body != "hello "+who {
				if failed.Add(1) < 5 {
					t.Errorf("%s: %d %s %v", who, status, body, err)
				}
			}
		})
	}
	work.Wait()
	for _, p := range n.Plugins() {
		if p.Plugin == "authz" && p.Instances > 2 {
			t.Errorf("%d instances", p.Instances)
		}
	}
}

// TestReloadWhileAwaiting: a new configuration, with another pool of the plugin and another idea of whom it may ask, takes
// over while an exchange waits; the exchange ends as it began, and what served it is closed.
func TestReloadWhileAwaiting(t *testing.T) {
	t.Parallel()
	came, free, leaving := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var gone atomic.Bool
	n := authorization(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Authorization") {
		case "Bearer slow":
			close(came)
			<-free
		case "Bearer leaving":
			close(leaving)
			<-r.Context().Done()
			gone.Store(true)
		}
		members(w, r)
	}, `timeout = "1s"`, `timeout = "1m"`)
	c := n.client(t, "http1")
	var work sync.WaitGroup
	work.Go(func() {
		if status, body, err := n.as(t.Context(), c, "Bearer slow"); status != 200 || body != "hello slow" {
			t.Errorf("%d %s %v", status, body, err)
		}
	})
	<-came
	// Nothing may be asked any more, and the plugin is configured anew.
	file := filepath.Join(n.dir, "config.hcl")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	apply := func() {
		t.Helper()
		cfg, err := n.load()
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Apply(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	rewrite(t, filepath.Join(n.dir, "policies", "members.hcl"), func(s string) string { return strings.Replace(s, `"1h"`, `"2h"`, 1) })
	rewrite(t, file, func(s string) string {
		before, rest, _ := strings.Cut(s, "origins = [")
		_, after, _ := strings.Cut(rest, "]")
		return before + `origins = ["http://192.0.2.1"]` + after
	})
	apply()
	if status, body, err := n.as(t.Context(), c, "Bearer m-1"); status != 500 || err != nil || strings.Contains(body, "hello") {
		t.Errorf("by the new configuration: %d %s %v", status, body, err)
	}
	close(free)
	work.Wait()
	waitFor(t, "the old pool to close", func() bool { return n.instances() <= 2*runtime.GOMAXPROCS(0) && len(n.Plugins()) == 1 })

	// A client that goes while it waits takes its question along.
	rewrite(t, file, func(string) string { return string(text) })
	apply()
	ctx, leave := context.WithCancel(t.Context())
	work.Go(func() {
		if _, _, err := n.as(ctx, c, "Bearer leaving"); err == nil {
			t.Error("an answer to a client that left")
		}
	})
	<-leaving
	leave()
	work.Wait()
	waitFor(t, "the question to be given up", gone.Load)
}

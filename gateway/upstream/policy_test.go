package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
)

func points(weights ...int) (list []*endpoint) {
	for i, w := range weights {
		name := string(rune('a' + i))
		list = append(list, &endpoint{name: name, weight: w, hash: hash(name)})
	}
	return list
}

func TestBalancers(t *testing.T) {
	t.Parallel()
	run := func(name string, n int, key func(int) string, list []*endpoint) string {
		b := newBalancer(name)
		var s strings.Builder
		for i := range n {
			s.WriteString(b.pick(list, key(i)).name)
		}
		return s.String()
	}
	none := func(int) string { return "" }
	if got := run("round_robin", 7, none, points(1, 1, 1)); got != "abcabca" {
		t.Errorf("round_robin %s", got)
	}
	if got := run("weighted", 7, none, points(5, 1, 1)); got != "aabacaa" {
		t.Errorf("weighted %s", got)
	}
	if got := run("weighted", 6, none, points(2, 0, 1)); strings.Contains(got, "b") || strings.Count(got, "a") != 4 {
		t.Errorf("weighted with 0 %s", got)
	}
	if got := run("weighted", 100, none, points(0, 0)); !strings.Contains(got, "a") || !strings.Contains(got, "b") {
		t.Errorf("weighted with only 0 %s", got)
	}
	list := points(1, 1, 1)
	list[1].inFlight.Store(5)
	if got := run("least_request", 600, none, list); strings.Count(got, "b") != 0 {
		t.Error("least_request takes the busiest of two")
	}
	// Consistent hash: spread, stable, and only the keys of an endpoint that goes move.
	key := func(i int) string { return fmt.Sprint("tenant-", i) }
	three := points(1, 1, 1)
	all, fewer := run("consistent_hash", 3000, key, three), run("consistent_hash", 3000, key, three[:2])
	if all != run("consistent_hash", 3000, key, three) {
		t.Error("not stable")
	}
	for _, e := range three {
		if n := strings.Count(all, e.name); n < 800 || n > 1200 {
			t.Errorf("%s has %d of 3000 keys", e.name, n)
		}
	}
	for i := range all {
		if all[i] != 'c' && all[i] != fewer[i] {
			t.Fatalf("key %d moved from %c to %c", i, all[i], fewer[i])
		}
	}
}

func TestEjection(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	h := health{limits: config.Health{Failures: 3, Eject: time.Second}}
	ejected := func() bool { _, e := h.usable(now); return e }
	for i := range 3 {
		if ejected() {
			t.Fatalf("ejected after %d failures", i)
		}
		h.failed(now, "x")
	}
	if !ejected() {
		t.Fatal("not ejected after 3 failures")
	}
	// On trial after its time: each failure ejects for twice as long, to ten times the first.
	for _, want := range []time.Duration{2, 4, 8, 10, 10} {
		now = now.Add(time.Minute)
		if ejected() {
			t.Fatal("still ejected")
		}
		if got := h.failed(now, "x"); got != want*time.Second {
			t.Fatalf("ejected for %v, want %ds", got, want)
		}
	}
	now = now.Add(time.Minute)
	h.succeeded()
	h.failed(now, "x")
	if ejected() {
		t.Error("one failure after a success ejects")
	}
	off := health{}
	for range 100 {
		off.failed(now, "x")
	}
	if _, e := off.usable(now); e {
		t.Error("ejected although failures is 0")
	}
}

func TestActiveThresholds(t *testing.T) {
	t.Parallel()
	h := health{limits: config.Health{Healthy: 2, Unhealthy: 3}}
	bad := errors.New("bad")
	for i, step := range []struct {
		err error
		up  bool
	}{{bad, true}, {bad, true}, {nil, true}, {bad, true}, {bad, true}, {bad, false}, {nil, false}, {bad, false}, {nil, false}, {nil, true}} {
		h.checked(step.err)
		if up, _ := h.usable(time.Now()); up != step.up {
			t.Fatalf("step %d: up %v, want %v", i, up, step.up)
		}
	}
}

// With every endpoint ejected all are used; with every endpoint failing its check none is.
func TestChoose(t *testing.T) {
	t.Parallel()
	now := time.Now()
	u := &Upstream{endpoints: points(1, 1), balance: newBalancer("")}
	for _, e := range u.endpoints {
		e.health.until = now.Add(time.Hour)
	}
	if u.choose(&Request{}, now) == nil {
		t.Error("none used although all are only ejected")
	}
	if e := u.choose(&Request{tried: u.endpoints[:1]}, now); e != u.endpoints[1] {
		t.Error("went to the same endpoint again")
	}
	if e := u.choose(&Request{tried: u.endpoints}, now); e == nil {
		t.Error("none used although all were tried")
	}
	u.endpoints[0].health.down, u.endpoints[1].health.down = true, true
	if u.choose(&Request{}, now) != nil {
		t.Error("used one that fails its check")
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	now := time.Unix(5000, 0)
	b := budget{share: 0.2}
	for range 100 {
		b.request(now)
	}
	allowed := 0
	for range 100 {
		if b.retry(now.Add(3 * time.Second)) {
			allowed++
		}
	}
	if allowed != 20 {
		t.Errorf("%d retries for 100 requests, want 20", allowed)
	}
	// Ten seconds on all is forgotten but the floor.
	allowed = 0
	for range 100 {
		if b.retry(now.Add(30 * time.Second)) {
			allowed++
		}
	}
	if allowed != budgetFloor {
		t.Errorf("%d retries without requests, want %d", allowed, budgetFloor)
	}
	if none := (&budget{}); none.retry(now) {
		t.Error("a retry without a budget")
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, "-1": 0, "x": 0, "99999999999": 0, "Thu, 01 Jan 2026 00:00:05 GMT": 5 * time.Second, "Wed, 31 Dec 2025 00:00:05 GMT": 0,
	} {
		if got := RetryAfter(exchange.Header{{Name: "retry-after", Value: value}}, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
	for n, want := range []time.Duration{0, 10, 20, 40} {
		if got := backoff(10*time.Millisecond, max(n, 1)); n > 0 && (got < want*time.Millisecond/2 || got > want*time.Millisecond*3/2) {
			t.Errorf("attempt %d waits %v", n, got)
		}
	}
}

// The connections of an endpoint are bounded, waiting for one is bounded too, and a freed one goes to who waits.
func TestPoolBounds(t *testing.T) {
	settled(t)
	release := make(chan struct{})
	var most, now atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if r.URL.Path == "/wait" {
			<-release
		}
	}))
	defer s.Close()
	u := open(t, config.Upstream{Pool: config.UpstreamPool{Connections: 2, Idle: 2}, Timeouts: config.UpstreamTimeouts{Connect: 300 * time.Millisecond}}, s.URL)
	var work sync.WaitGroup
	for range 2 {
		work.Go(func() { _, _, _ = whole(t, u, get("/wait")) })
	}
	for u.Status()[0].InFlight != 2 || now.Load() != 2 {
		time.Sleep(time.Millisecond)
	}
	_, _, err := whole(t, u, get("/"))
	kind(t, err, Busy, NotSent)
	if s := u.Status()[0]; s.Failed != 0 || s.Connections != 2 {
		t.Errorf("%+v", s)
	}
	work.Go(func() {
		if _, _, err := whole(t, u, get("/")); err != nil {
			t.Errorf("a waiter did not get the freed connection: %v", err)
		}
	})
	time.AfterFunc(50*time.Millisecond, func() { close(release) })
	work.Wait()
	for range 8 {
		work.Go(func() {
			for range 25 {
				if _, _, err := whole(t, u, get("/")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	if most.Load() > 2 {
		t.Errorf("%d requests at once on 2 connections", most.Load())
	}
}

// One HTTP/2 connection carries many exchanges; only when its streams are used up is another opened.
func TestMultiplexing(t *testing.T) {
	settled(t)
	var conns atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 10}
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	u := open(t, config.Upstream{Protocol: "http2", Pool: config.UpstreamPool{Connections: 3}}, s.URL)
	var work sync.WaitGroup
	for g := range 40 {
		work.Go(func() {
			for i := range 10 {
				text := fmt.Sprint(g, i)
				_, got, err := whole(t, u, &Request{Method: "POST", Path: "/", Body: exchange.NewBytes([]byte(text)), Length: int64(len(text))})
				if err != nil || got != text {
					t.Errorf("%q %v", got, err)
				}
			}
		})
	}
	work.Wait()
	if n := conns.Load(); n > 3 {
		t.Errorf("%d connections, at most 3 allowed", n)
	}
}

func TestActiveHealth(t *testing.T) {
	settled(t)
	var ill atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" && ill.Load() {
			w.WriteHeader(500)
		}
	}))
	defer s.Close()
	u := open(t, config.Upstream{Health: config.Health{Path: "/healthz", Interval: 10 * time.Millisecond, Timeout: time.Second, Healthy: 1, Unhealthy: 1}}, s.URL)
	until := func(usable bool) {
		t.Helper()
		for i := 0; u.Usable() != usable; i++ {
			if i > 1000 {
				t.Fatalf("usable stays %v: %+v", !usable, u.Status())
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	until(true)
	ill.Store(true)
	until(false)
	_, _, err := whole(t, u, get("/"))
	kind(t, err, NoEndpoint, NotSent)
	if got := u.Status()[0].Reason; got != "status 500" {
		t.Errorf("reason %q", got)
	}
	ill.Store(false)
	until(true)
	if _, _, err := whole(t, u, get("/")); err != nil {
		t.Error(err)
	}
}

func TestClose(t *testing.T) {
	settled(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer s.Close()
	target, _ := url.Parse(s.URL)
	cfg := &config.Upstream{Name: "x", Endpoints: []config.Endpoint{{URL: target}}}
	u, err := New(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := u.RoundTrip(context.Background(), get("/"))
	if err != nil {
		t.Fatal(err)
	}
	same := *cfg
	if !u.Serves(&same) {
		t.Error("does not serve its own configuration")
	}
	for name, change := range map[string]func(*config.Upstream){
		"endpoint": func(c *config.Upstream) {
			c.Endpoints = []config.Endpoint{{URL: &url.URL{Scheme: "http", Host: "other"}}}
		},
		"timeout": func(c *config.Upstream) { c.Timeouts.Idle = time.Second },
		"header":  func(c *config.Upstream) { c.Headers = []config.UpstreamHeader{{Name: "a"}} },
		"retry":   func(c *config.Upstream) { c.Retry.On = []string{"502"} },
		"files":   func(c *config.Upstream) { c.TLS.CA = "/nonexistent" },
	} {
		other := *cfg
		if change(&other); u.Serves(&other) {
			t.Errorf("serves although the %s changed", name)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if err := u.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close with an exchange under way: %v", err)
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("a response that was broken off reads as whole")
	}
	_, err = u.RoundTrip(context.Background(), get("/"))
	kind(t, err, Closed, NotSent)
	if u.Serves(&same) {
		t.Error("a closed upstream serves")
	}
	if err := u.Close(context.Background()); err != nil {
		t.Errorf("second close: %v", err)
	}
	// What can not work is said by New.
	for _, bad := range []*config.Upstream{
		{Name: "none"},
		{Name: "ca", Endpoints: cfg.Endpoints, TLS: config.UpstreamTLS{CA: "/nonexistent"}},
		{Name: "h3", Endpoints: cfg.Endpoints, Protocol: "http3"},
	} {
		if _, err := New(bad, Options{}); err == nil || !strings.Contains(err.Error(), bad.Name) {
			t.Errorf("%s: %v", bad.Name, err)
		}
	}
}

// Connections that a server closed while they were idle are not used, whatever the method.
func TestStaleConnections(t *testing.T) {
	settled(t)
	closed := make(chan struct{}, 8)
	address := raw(t, func(_ int, c net.Conn, r *bufio.Reader) {
		head(r)
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_ = c.Close()
		closed <- struct{}{}
	})
	u := open(t, config.Upstream{Pool: config.UpstreamPool{Idle: 4}, Retry: config.Retry{Attempts: 3, On: []string{"connect"}, Budget: 1, Backoff: time.Millisecond}}, address)
	for range 20 {
		r := &Request{Method: "POST", Path: "/"}
		for {
			_, _, err := whole(t, u, r)
			if err == nil {
				break
			}
			var e *Error
			if !errors.As(err, &e) || (e.Sent == NotSent) != u.Again(context.Background(), r, nil, err) {
				t.Fatalf("%v", err)
			}
			if e.Sent != NotSent {
				break // it was written in the very moment: maybe sent, and not sent again
			}
		}
		<-closed
		time.Sleep(2 * time.Millisecond)
	}
}

// Package upstream sends requests to the addresses behind the gateway: its main type is Upstream. It picks an endpoint,
// keeps its connections, bounds every wait, notices which endpoints are ill, and says what may be tried again. It never
// sends a request twice by itself.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/overload"
	"github.com/postern-gateway/postern/gateway/pool"
)

// Options is what an Upstream needs besides its configuration.
type Options struct {
	Log *slog.Logger // nil: nothing is logged
	// Dial opens a TCP connection. Nil: the operating system's, with its resolver asked for every connection.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Overload bounds how many requests wait for the upstream's answer. It is the caller's, who may give it to several
	// upstreams that follow one another. Nil: there is no bound.
	Overload *overload.Limiter
}

// Upstream is the endpoints behind one name. It is safe for concurrent use, outlives reloads that do not change it (see
// Serves) and owns its connections and health checks until Close.
type Upstream struct {
	cfg       *config.Upstream
	log       *slog.Logger
	endpoints []*endpoint
	balance   balancer
	budget    budget
	limiter   *overload.Limiter
	files     string // digest of the TLS files

	watches sync.Pool // *watch
	stop    context.CancelFunc
	work    sync.WaitGroup // health checks and the sweeper
	kicked  chan struct{}

	mu     sync.Mutex
	calls  int           // exchanges under way
	idle   chan struct{} // closed when calls is 0 after Close began
	closed bool
}

// New reads the TLS files and starts the health checks; it connects to nothing that must answer. Values of cfg that are
// zero mean what config documents as their default.
func New(cfg *config.Upstream, o Options) (*Upstream, error) {
	c := withDefaults(cfg)
	if len(c.Endpoints) == 0 {
		return nil, fmt.Errorf("upstream %s has no endpoint", c.Name)
	}
	files, err := pool.ReadTLS(pool.Files(c.TLS))
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", c.Name, err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	u := &Upstream{
		cfg: c, log: o.Log, limiter: o.Overload, files: files.Digest, balance: newBalancer(c.Balance),
		budget: budget{share: c.Retry.Budget}, stop: stop, kicked: make(chan struct{}, 1), idle: make(chan struct{}),
	}
	for i := range c.Endpoints {
		e := &c.Endpoints[i]
		if c.Protocol == "http3" && e.URL.Scheme != "https" {
			stop()
			return nil, fmt.Errorf("upstream %s: http3 needs https, not %s", c.Name, e.URL)
		}
		u.endpoints = append(u.endpoints, &endpoint{
			name: e.URL.String(), base: strings.TrimSuffix(e.URL.EscapedPath(), "/"), host: hostOf(e.URL), weight: e.Weight, hash: hash(e.URL.String()),
			pool: pool.New(pool.Config{
				URL: e.URL, Protocol: c.Protocol, Connections: c.Pool.Connections, Idle: c.Pool.Idle, IdleTimeout: c.Pool.IdleTimeout,
				TLS: files, Dial: o.Dial, Kick: u.kick,
			}),
			health: health{limits: c.Health},
		})
	}
	u.watches.New = func() any { return new(watch) }
	u.work.Go(func() { u.sweep(ctx) })
	if c.Health.Path != "" {
		for _, e := range u.endpoints {
			u.work.Go(func() { u.watchHealth(ctx, e) })
		}
	}
	return u, nil
}

// withDefaults copies cfg and fills in what the loader would have. Numbers for which zero has a meaning of its own stay.
func withDefaults(cfg *config.Upstream) *config.Upstream {
	c := *cfg
	duration := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	number := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	duration(&c.Timeouts.Connect, 5*time.Second)
	duration(&c.Timeouts.FirstByte, 30*time.Second)
	duration(&c.Timeouts.Idle, time.Minute)
	number(&c.Retry.Attempts, 2)
	duration(&c.Retry.Backoff, 25*time.Millisecond)
	duration(&c.Health.Interval, 10*time.Second)
	duration(&c.Health.Timeout, 2*time.Second)
	number(&c.Health.Healthy, 2)
	number(&c.Health.Unhealthy, 3)
	duration(&c.Health.Eject, 10*time.Second)
	number(&c.Pool.Connections, 1024)
	duration(&c.Pool.IdleTimeout, 90*time.Second)
	return &c
}

// hostOf is an endpoint's Host field: without a zone, which means nothing elsewhere (RFC 6874 section 4), and in ASCII.
func hostOf(u *url.URL) string {
	host := u.Host
	if from := strings.IndexByte(host, '%'); from >= 0 {
		if to := strings.IndexByte(host, ']'); to > from {
			host = host[:from] + host[to:]
		}
	}
	if ascii, err := httpguts.PunycodeHostPort(host); err == nil {
		return ascii
	}
	return host
}

func (u *Upstream) kick() {
	select {
	case u.kicked <- struct{}{}:
	default:
	}
}

// sweep closes connections whose time is over and passes on that HTTP/2 streams became free.
func (u *Upstream) sweep(ctx context.Context) {
	tick := time.NewTicker(max(min(u.cfg.Pool.IdleTimeout/4, 15*time.Second), 50*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-u.kicked:
			for _, e := range u.endpoints {
				e.pool.Stir()
			}
		case now := <-tick.C:
			for _, e := range u.endpoints {
				e.pool.Sweep(now)
			}
		}
	}
}

// Name is the name in the configuration.
func (u *Upstream) Name() string { return u.cfg.Name }

// Config is what the upstream was made of, with defaults filled in. It does not change.
func (u *Upstream) Config() *config.Upstream { return u.cfg }

// Serves reports whether the upstream is what New would make of cfg, TLS files included: then a reload keeps it, with its
// connections and what it knows of its endpoints' health.
func (u *Upstream) Serves(cfg *config.Upstream) bool {
	a, b := u.cfg, withDefaults(cfg)
	source := func(c *config.Upstream) string {
		if c.HashOn == nil {
			return ""
		}
		return c.HashOn.Source()
	}
	same := a.Name == b.Name && a.Format == b.Format && a.Protocol == b.Protocol && a.Balance == b.Balance && source(a) == source(b) &&
		a.TLS == b.TLS && a.Timeouts == b.Timeouts && a.Health == b.Health && a.Pool == b.Pool &&
		a.Retry.Attempts == b.Retry.Attempts && a.Retry.Budget == b.Retry.Budget && a.Retry.Backoff == b.Retry.Backoff &&
		slices.Equal(a.Retry.On, b.Retry.On) && slices.Equal(a.Headers, b.Headers) && a.Provider.Equal(&b.Provider) &&
		slices.EqualFunc(a.Endpoints, b.Endpoints, func(x, y config.Endpoint) bool {
			return x.Weight == y.Weight && x.URL.String() == y.URL.String()
		})
	if !same || u.isClosed() {
		return false
	}
	files, err := pool.ReadTLS(pool.Files(b.TLS))
	return err == nil && files.Digest == u.files
}

// Key is what consistent_hash hashes for x; empty with the other balancers. An expression that fails gives the empty key.
func (u *Upstream) Key(x *exchange.Exchange) string {
	if u.cfg.HashOn == nil {
		return ""
	}
	key, err := u.cfg.HashOn.String(x)
	if err != nil {
		u.log.Debug("hash_on failed", "upstream", u.cfg.Name, "exchange", x.ID, "error", err)
		return ""
	}
	return key
}

// Usable reports whether an endpoint is neither ejected nor failing its health check.
func (u *Upstream) Usable() bool {
	now := time.Now()
	return slices.ContainsFunc(u.endpoints, func(e *endpoint) bool {
		up, ejected := e.health.usable(now)
		return up && !ejected
	})
}

// Reachable reports whether an endpoint passes its active checks, ejected or not: where nothing else is left, ejected ones
// are used all the same.
func (u *Upstream) Reachable() bool {
	now := time.Now()
	return slices.ContainsFunc(u.endpoints, func(e *endpoint) bool {
		up, _ := e.health.usable(now)
		return up
	})
}

// Status describes every endpoint, in the configuration's order.
func (u *Upstream) Status() []EndpointStatus {
	now := time.Now()
	list := make([]EndpointStatus, 0, len(u.endpoints))
	for _, e := range u.endpoints {
		s := EndpointStatus{
			URL: e.name, InFlight: int(e.inFlight.Load()), Requests: e.requests.Load(), Failed: e.failed.Load(),
		}
		e.health.describe(&s, now)
		s.Connections, s.Idle = e.pool.Count()
		list = append(list, s)
	}
	return list
}

func (u *Upstream) isClosed() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.closed
}

// begin counts an exchange in; end counts it out.
func (u *Upstream) begin() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false
	}
	u.calls++
	return true
}

func (u *Upstream) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.calls--
	if u.calls == 0 && u.closed {
		close(u.idle)
	}
}

// Close refuses new requests, stops the health checks, waits for what is under way until ctx ends, and then closes every
// connection. It returns ctx's error when exchanges had to be broken off. No goroutine is left.
func (u *Upstream) Close(ctx context.Context) error {
	u.mu.Lock()
	if !u.closed {
		u.closed = true
		if u.calls == 0 {
			close(u.idle)
		}
	}
	u.mu.Unlock()
	u.stop()
	u.work.Wait()
	for _, e := range u.endpoints {
		e.pool.Close()
	}
	var err error
	select {
	case <-u.idle:
	case <-ctx.Done():
		err = fmt.Errorf("close upstream %s: %w", u.cfg.Name, context.Cause(ctx))
	}
	for _, e := range u.endpoints {
		e.pool.Kill()
	}
	return err
}

// attempt is RoundTrip for a request that has its turn.
func (u *Upstream) attempt(ctx context.Context, r *Request) (*Response, error) {
	if !u.begin() {
		return nil, &Error{Upstream: u.cfg.Name, Kind: Closed, Err: errClosed}
	}
	now := time.Now()
	if r.attempts == 0 {
		u.budget.request(now)
	}
	r.attempts++
	e := u.choose(r, now)
	if e == nil {
		u.end()
		return nil, &Error{Upstream: u.cfg.Name, Kind: NoEndpoint, Err: errors.New("every endpoint fails its health check")}
	}
	if r.tried == nil {
		r.tried = r.first[:0]
	}
	r.tried = append(r.tried, e)
	e.requests.Add(1)
	e.inFlight.Add(1)
	a := &attempt{u: u, e: e, r: r}
	resp, err := a.do(ctx)
	if err != nil {
		return nil, err
	}
	return resp, nil
}

package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/fetch"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/policy"
	"github.com/postern-gateway/postern/gateway/provider"
	"github.com/postern-gateway/postern/gateway/route"
	"github.com/postern-gateway/postern/gateway/telemetry"
	"github.com/postern-gateway/postern/gateway/upstream"
)

// snapshot is what one configuration became. It does not change; it is closed when nothing uses it any more.
type snapshot struct {
	config    *config.Config
	loaded    time.Time
	tables    map[string]*route.Table[*served] // by listener
	unmatched *telemetry.Route
	upstreams map[string]*upstream.Upstream
	fetchers  map[string]*fetch.Fetcher // by plugin
	pools     []*plugin.Pool

	mu      sync.Mutex
	users   int  // exchanges under way, and one for being current
	retired bool // its successor serves
	idle    chan struct{}
}

// served is a route, built.
type served struct {
	*config.Route
	chain     *policy.Chain
	metrics   *telemetry.Route
	format    provider.Format // nil unless the route serves models
	operation provider.Operation
	limits    map[string]int64 // octets of request body, by listener
}

func (r *served) bodyLimit(listener string) int64 { return r.limits[listener] }

// build makes a snapshot beside the one that serves. Upstreams whose configuration did not change are carried over with
// their connections and what is known of their health; the plugin host shares pools by itself. On an error nothing is left.
func (s *Server) build(ctx context.Context, cfg *config.Config, old *snapshot) (made *snapshot, err error) {
	made = &snapshot{
		config: cfg, loaded: time.Now(), tables: map[string]*route.Table[*served]{}, unmatched: s.telemetry.Metrics.Route(""),
		upstreams: map[string]*upstream.Upstream{}, fetchers: map[string]*fetch.Fetcher{}, users: 1, idle: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, made.close(ctx, old))
			made = nil
		}
	}()
	for _, u := range cfg.Upstreams {
		if old != nil {
			if kept := old.upstreams[u.Name]; kept != nil && kept.Serves(u) {
				made.upstreams[u.Name] = kept
				continue
			}
		}
		up, err := upstream.New(u, upstream.Options{Log: s.telemetry.Log, Overload: s.limiter(u)})
		if err != nil {
			return made, err
		}
		made.upstreams[u.Name] = up
	}
	if err := s.fetchersOf(cfg, made, old); err != nil {
		return made, err
	}
	bind, err := s.load(ctx, cfg, made)
	if err != nil {
		return made, err
	}
	routes := map[*config.Route]*served{}
	for _, r := range cfg.Routes {
		sv := &served{
			Route:   r,
			chain:   policy.New(policy.Config{Route: r, Bind: bind, Fetcher: made.fetcher, Metrics: s.telemetry.Metrics, Log: s.telemetry.Log}),
			metrics: s.telemetry.Metrics.Route(r.Name),
			limits:  map[string]int64{},
		}
		if r.Console && s.config.Console == nil {
			return made, fmt.Errorf("%s: route %s leads to the console, and this program has none", r.Range, r.Name)
		}
		if len(r.Models) > 0 {
			if sv.format = s.format(r.Format); sv.format == nil {
				return made, fmt.Errorf("route %s: there is no provider format %q", r.Name, r.Format)
			}
			op, ok := sv.format.Operation(r.Pattern.Method(), r.Pattern.Path())
			if !ok || op.Name != r.Operation {
				return made, fmt.Errorf("route %s: format %s has no operation %s", r.Name, r.Format, r.Operation)
			}
			sv.operation = op
		}
		for _, l := range r.Listeners {
			sv.limits[l.Name] = l.Limits.Body
		}
		routes[r] = sv
	}
	for _, r := range cfg.Routes {
		for _, l := range r.Listeners {
			if made.tables[l.Name] != nil {
				continue
			}
			var entries []route.Entry[*served]
			for _, r := range cfg.RoutesOf(l.Name) {
				entries = append(entries, route.Entry[*served]{Pattern: r.Pattern, Value: routes[r]})
			}
			made.tables[l.Name] = route.NewTable(entries)
		}
	}
	return made, nil
}

// load makes the pools of every plugin that a route uses, and returns where a stage finds its own.
func (s *Server) load(ctx context.Context, cfg *config.Config, made *snapshot) (func(*config.Stage) (policy.Caller, int), error) {
	type place struct {
		pool   *plugin.Pool
		number int
	}
	stages := map[*config.Plugin][]*config.Stage{}
	places := map[*config.Stage]place{}
	for _, p := range cfg.Policies {
		for _, st := range p.Stages {
			if st.Plugin != nil {
				places[st] = place{number: len(stages[st.Plugin])}
				stages[st.Plugin] = append(stages[st.Plugin], st)
			}
		}
	}
	// Compiling is what takes long at a first start: the host does as many at once as there are processors.
	type loaded struct {
		plugin *config.Plugin
		pool   *plugin.Pool
		err    error
	}
	results := make(chan loaded)
	for p, list := range stages {
		go func() {
			pool, err := s.host.Load(ctx, p, list)
			results <- loaded{plugin: p, pool: pool, err: err}
		}()
	}
	var problems error
	for range stages {
		r := <-results
		if r.err != nil {
			problems = errors.Join(problems, r.err)
			continue
		}
		made.pools = append(made.pools, r.pool)
		for _, st := range stages[r.plugin] {
			places[st] = place{pool: r.pool, number: places[st].number}
		}
	}
	if problems != nil {
		return nil, problems
	}
	return func(st *config.Stage) (policy.Caller, int) {
		at := places[st]
		return at.pool, at.number
	}, nil
}

func (s *Server) format(name string) provider.Format {
	for _, f := range s.config.Formats {
		if f.Name() == name {
			return f
		}
	}
	return nil
}

// close gives back what a snapshot holds, except what other has too.
func (s *snapshot) close(ctx context.Context, other *snapshot) error {
	var problems error
	for name, f := range s.fetchers {
		if other == nil || other.fetchers[name] != f {
			problems = errors.Join(problems, f.Close(ctx))
		}
	}
	for name, u := range s.upstreams {
		if other != nil && other.upstreams[name] == u {
			continue
		}
		problems = errors.Join(problems, u.Close(ctx))
	}
	for _, p := range s.pools {
		problems = errors.Join(problems, p.Close(ctx))
	}
	return problems
}

// use takes part in a snapshot; false when it is on its way out.
func (s *snapshot) use() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retired {
		return false
	}
	s.users++
	return true
}

func (s *snapshot) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users == 0 {
		close(s.idle)
	}
}

// retire takes the snapshot out of service; idle is closed when its last exchange is over.
func (s *snapshot) retire() {
	s.mu.Lock()
	s.retired = true
	s.mu.Unlock()
	s.release()
}

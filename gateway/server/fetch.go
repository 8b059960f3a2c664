package server

import (
	"context"
	"errors"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/fetch"
	"github.com/postern-gateway/postern/gateway/policy"
	"github.com/postern-gateway/postern/gateway/proxy"
	"github.com/postern-gateway/postern/gateway/upstream"
)

// fetchersOf makes who makes the requests of each plugin with the grant. One whose configuration and upstreams did not change is
// carried over with its connections and the answers it keeps.
func (s *Server) fetchersOf(cfg *config.Config, made, old *snapshot) error {
	for _, p := range cfg.Plugins {
		if p.Fetch.Timeout == 0 { // no grant, so no block
			continue
		}
		upstreams := map[string]fetch.Upstream{}
		for _, u := range p.Fetch.Upstreams {
			upstreams[u.Name] = asked{made.upstreams[u.Name]}
		}
		if old != nil {
			if kept := old.fetchers[p.Name]; kept != nil && kept.Serves(p, upstreams) {
				made.fetchers[p.Name] = kept
				continue
			}
		}
		f, err := fetch.New(fetch.Config{Plugin: p, Upstreams: upstreams, Metrics: s.telemetry.Metrics.Fetches(p.Name), Log: s.telemetry.Log})
		if err != nil {
			return err
		}
		made.fetchers[p.Name] = f
	}
	return nil
}

// fetcher finds who makes a plugin's requests; nobody makes those of one that was not granted it.
func (s *snapshot) fetcher(p *config.Plugin) policy.Fetcher {
	if f := s.fetchers[p.Name]; f != nil {
		return f
	}
	return nil
}

// asked is an upstream as plugins ask it.
type asked struct{ *upstream.Upstream }

// Fetch makes a plugin's request with the fields the operator gives every request to the upstream, by its balancing and as
// often as its retry block says.
func (u asked) Fetch(ctx context.Context, r *fetch.Request) (*fetch.Response, error) {
	out := &upstream.Request{Method: r.Method, Path: r.Path, Query: r.Query, Header: r.Header.Clone(), Key: r.Path}
	if out.Header.Count("user-agent") == 0 {
		out.Header.Add("user-agent", "postern")
	}
	if len(r.Body) > 0 {
		out.Body, out.Length = exchange.NewBytes(r.Body), int64(len(r.Body))
	}
	proxy.Configured(out, u.Upstream)
	for {
		resp, err := u.RoundTrip(ctx, out)
		if u.Again(ctx, out, resp, err) {
			continue
		}
		var failed *upstream.Error
		switch {
		case errors.As(err, &failed) && failed.Kind == upstream.Busy:
			return nil, errors.Join(fetch.ErrBusy, err)
		case err != nil:
			return nil, err
		}
		return &fetch.Response{Status: resp.Status, Header: resp.Header, Body: resp.Body, Length: resp.Length}, nil
	}
}

package upstream

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http1/client"
	"github.com/postern-gateway/postern/gateway/pool"
)

// endpoint is one address of an upstream and what is known of its health.
type endpoint struct {
	name     string // the URL as text
	base     string // its path, escaped, without "/" at its end
	host     string // for the Host field
	weight   int
	hash     uint64
	pool     *pool.Pool
	inFlight atomic.Int64
	requests atomic.Uint64
	failed   atomic.Uint64

	health health
}

// health is what active and passive checks found. The active check is an order: an endpoint that fails it is not used. The
// passive one is a guess from what exchanges met: an ejected endpoint is left alone for a while, but used all the same when
// nothing else is left.
type health struct {
	limits config.Health

	mu     sync.Mutex
	down   bool      // by the active check
	streak int       // checks in a row that say the opposite of down
	fails  int       // failed exchanges in a row
	until  time.Time // ejected until then
	eject  time.Duration
	reason string
}

// usable reports whether the endpoint may be picked, and whether it is ejected.
func (h *health) usable(now time.Time) (up, ejected bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.down, now.Before(h.until)
}

// succeeded is called when an exchange ended well: it ends a row of failures and what they led to.
func (h *health) succeeded() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fails, h.eject, h.until = 0, 0, time.Time{}
}

// failed is called when an exchange failed by the endpoint's fault. It reports for how long the endpoint is now ejected,
// or 0. The row of failures is not forgotten when the time is over: the endpoint is then on trial, and the next failure
// ejects it for twice as long, to ten times the configured time.
func (h *health) failed(now time.Time, reason string) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reason = reason
	h.fails++
	if h.limits.Failures <= 0 || h.fails < h.limits.Failures || now.Before(h.until) {
		return 0
	}
	h.eject = min(max(2*h.eject, h.limits.Eject), 10*h.limits.Eject)
	h.until = now.Add(h.eject)
	return h.eject
}

// checked is called with the outcome of an active check and reports whether it changed the endpoint's state.
func (h *health) checked(err error) (changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.reason = err.Error()
	}
	if h.down == (err != nil) {
		h.streak = 0
		return false
	}
	h.streak++
	need := max(h.limits.Unhealthy, 1)
	if h.down {
		need = max(h.limits.Healthy, 1)
	}
	if h.streak < need {
		return false
	}
	h.down, h.streak = err != nil, 0
	if !h.down {
		h.fails, h.eject, h.until = 0, 0, time.Time{}
	}
	return true
}

func (h *health) describe(s *EndpointStatus, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Healthy = !h.down
	if now.Before(h.until) {
		s.Ejected = h.until
	}
	s.Usable = s.Healthy && s.Ejected.IsZero()
	s.Failures, s.Reason = h.fails, h.reason
}

// watchHealth checks the endpoint until ctx ends.
func (u *Upstream) watchHealth(ctx context.Context, e *endpoint) {
	tick := time.NewTicker(u.cfg.Health.Interval)
	defer tick.Stop()
	for {
		err := u.check(ctx, e)
		if ctx.Err() != nil {
			return
		}
		if e.health.checked(err) {
			if err != nil {
				u.log.Warn("endpoint fails its health check", "upstream", u.cfg.Name, "endpoint", e.name, "error", err)
			} else {
				u.log.Info("endpoint passes its health check again", "upstream", u.cfg.Name, "endpoint", e.name)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// check asks for the health path on a connection of its own, so that it also proves that connecting works. A status from
// 200 to 399 is healthy.
func (u *Upstream) check(ctx context.Context, e *endpoint) error {
	ctx, cancel := context.WithTimeout(ctx, u.cfg.Health.Timeout)
	defer cancel()
	l, err := e.pool.Dial(ctx)
	if err != nil {
		return err
	}
	defer l.Close() // it is thrown away
	defer context.AfterFunc(ctx, l.Abort)()
	target, err := url.Parse(u.cfg.Health.Path)
	if err != nil {
		return fmt.Errorf("health path: %w", err)
	}
	var resp client.Response
	err = l.Do(ctx, &client.Request{
		Method: "GET", Path: target.EscapedPath(), Query: target.RawQuery, Host: e.host,
		Header: exchange.Header{{Name: "user-agent", Value: "postern-health"}},
	}, &resp)
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // only the status counts
	_ = resp.Body.Close()
	if resp.Status < 200 || resp.Status > 399 {
		return fmt.Errorf("status %d", resp.Status)
	}
	return nil
}

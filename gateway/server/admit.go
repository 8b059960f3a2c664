package server

import (
	"context"
	"slices"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/overload"
	"github.com/postern-gateway/postern/gateway/proxy"
	"github.com/postern-gateway/postern/gateway/telemetry"
)

// admit lets the exchange in, or refuses it before anything was done for it: because the gateway has too much to do, or
// because nothing that its route leads to has room.
func (w *way) admit(ctx context.Context) *exchange.Problem {
	if reason := w.server.gate.Enter(ctx, &w.visit, w.x, w.route.Priority); reason != overload.Admitted {
		w.x.Refused = reason.String()
		return reason.Problem("overloaded", "Too much is asked of the gateway now.")
	}
	if r := w.route; r.Upstream != nil {
		if !w.snapshot.upstreams[r.Upstream.Name].Overload().Full(r.Priority) {
			return nil
		}
		return w.roomAt(func(yield func(string) bool) { yield(r.Upstream.Name) })
	}
	if r := w.route; r.operation.Billed {
		return w.roomAt(func(yield func(string) bool) {
			for _, m := range r.Models {
				for _, t := range m.Targets {
					if !yield(t.Upstream.Name) {
						return
					}
				}
			}
		})
	}
	return nil
}

// roomAt refuses the exchange when every one of the upstreams would.
func (w *way) roomAt(upstreams func(yield func(string) bool)) *exchange.Problem {
	for name := range upstreams {
		if !w.snapshot.upstreams[name].Overload().Full(w.route.Priority) {
			return nil
		}
	}
	for name := range upstreams {
		w.snapshot.upstreams[name].Overload().Refused(w.route.Priority, overload.Full)
	}
	w.x.Refused = "upstream"
	return proxy.Overloaded()
}

// targetsHaveRoom refuses a model call when none of its targets has room, before money is held for it.
func (w *way) targetsHaveRoom() *exchange.Problem {
	return w.roomAt(func(yield func(string) bool) {
		for i := range w.x.Call.Targets {
			if !yield(w.x.Call.Targets[i].Upstream) {
				return
			}
		}
	})
}

// limiter returns the limiter of an upstream. It outlives the upstream's configurations, so that what is under way is counted
// across a reload; its bounds are set when one is in force, see limit.
func (s *Server) limiter(u *config.Upstream) *overload.Limiter {
	s.limiting.Lock()
	defer s.limiting.Unlock()
	l := s.limiters[u.Name]
	if l == nil {
		l = overload.NewLimiter(u.Overload)
		s.limiters[u.Name] = l
	}
	return l
}

// limit puts the bounds of cfg in force, and forgets the limiters of upstreams that there are no more.
func (s *Server) limit(cfg *config.Config) {
	s.gate.Configure(cfg.Gateway.Overload)
	s.limiting.Lock()
	defer s.limiting.Unlock()
	for name, l := range s.limiters {
		i := slices.IndexFunc(cfg.Upstreams, func(u *config.Upstream) bool { return u.Name == name })
		if i < 0 {
			delete(s.limiters, name)
			continue
		}
		l.Configure(cfg.Upstreams[i].Overload)
	}
}

// Overload is what operators see of how much is under way and what was refused.
type Overload struct {
	Gateway   overload.GateStatus        `json:"gateway"`
	Upstreams map[string]overload.Status `json:"upstreams"`
}

// Overload tells how much is under way in the gateway and at each upstream.
func (s *Server) Overload() Overload {
	all := Overload{Gateway: s.gate.Status(), Upstreams: map[string]overload.Status{}}
	for name, u := range s.current.Load().upstreams {
		all.Upstreams[name] = u.Overload().Status()
	}
	return all
}

// overloadStates is the same for the metrics.
func (s *Server) overloadStates() (telemetry.GateState, []telemetry.LimiterState) {
	state := func(name string, s *overload.Status) telemetry.LimiterState {
		l := telemetry.LimiterState{Upstream: name, Limit: s.Limit, InFlight: s.InFlight, Queued: s.Queued}
		s.Counts.Each(func(p overload.Priority, r overload.Reason, n uint64) {
			l.Refused = append(l.Refused, telemetry.RefusedState{Priority: p.String(), Reason: r.String(), Count: n})
		})
		return l
	}
	all := s.Overload()
	list := []telemetry.LimiterState{state("", &all.Gateway.Status)}
	for name, u := range all.Upstreams {
		list = append(list, state(name, &u))
	}
	g := all.Gateway
	return telemetry.GateState{Delay: g.DelayTime.Seconds(), Memory: g.Memory, Limit: g.MemoryLimit, SlowSend: g.SlowSend, SlowRead: g.SlowRead}, list
}

// Package policy runs the stages of a route, phase by phase. Its main type is Chain; a Run is one exchange's way through
// it.
//
// A stage sees an event, and answers with operations that are applied only when it returned cleanly and every one of them
// is in order: a stage that fails has changed nothing, so what on_error says is exact.
package policy

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/fetch"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/telemetry"
	"github.com/postern-gateway/postern/sdk/abi"
)

// Caller runs one event in a plugin; a *plugin.Pool is one.
type Caller interface {
	Call(ctx context.Context, ev *plugin.Event, res *plugin.Result) error
}

// Config is what a Chain is built from.
type Config struct {
	Route   *config.Route
	Bind    func(*config.Stage) (caller Caller, number int) // the pool of a plugin stage, and the stage's number in it
	Fetcher func(*config.Plugin) Fetcher                    // who makes a plugin's fetches; nil, or where it gives nil, all are denied
	Metrics *telemetry.Metrics
	Log     *slog.Logger
}

// Chain is the stages of one route, in the order in which they run. It does not change and serves any number of
// exchanges at once.
type Chain struct {
	phases   [exchange.PhaseCount][]*stage
	memories int // how many carries an exchange has
	filters  bool
	log      *slog.Logger
}

type stage struct {
	*config.Stage
	name    string // "policy.tenant admit meter"
	caller  Caller
	fetcher Fetcher
	number  int
	memory  int // index of its carry: shared by the n-th uses of one plugin in one policy, across phases
	id      int // index of its "done" mark
	metrics *telemetry.Stage
}

// New builds the chain of a route.
func New(c Config) *Chain {
	chain := &Chain{log: c.Log}
	type use struct {
		policy, plugin string
		nth            int
	}
	memories := map[use]int{}
	id := 0
	order := c.Route.Chain()
	for phase, list := range order {
		uses := map[use]int{} // with nth 0: how often the plugin has been used in this phase
		for _, s := range list {
			st := &stage{Stage: s, name: s.String(), id: id}
			id++
			if s.Plugin != nil {
				st.caller, st.number = c.Bind(s)
				st.fetcher = (*fetch.Fetcher)(nil)
				if c.Fetcher != nil {
					if f := c.Fetcher(s.Plugin); f != nil {
						st.fetcher = f
					}
				}
				st.metrics = c.Metrics.Stage(s.Plugin.Name, s.Phase.String())
				u := use{policy: s.Policy, plugin: s.Plugin.Name}
				uses[u]++
				u.nth = uses[u]
				if _, ok := memories[u]; !ok {
					memories[u] = len(memories)
				}
				st.memory = memories[u]
				if phase == int(exchange.ResponsePhase) && s.Hook.Sees.Body.Mode != manifest.BodyNone {
					chain.filters = true
				}
			}
			chain.phases[phase] = append(chain.phases[phase], st)
		}
	}
	chain.memories = len(memories)
	return chain
}

// Filters reports whether the chain looks at response bodies, so that they must come uncompressed.
func (c *Chain) Filters() bool { return c.filters }

// Run is one exchange on its way through a chain.
type Run struct {
	chain    *Chain
	x        *exchange.Exchange
	limit    int64 // octets of request body that may be held
	carries  [][]byte
	done     []bool
	event    plugin.Event
	result   plugin.Result
	wait     deadline
	clock    time.Time // when the last stage ended, while the next one follows at once; else zero
	gone     bool      // the client has gone
	buffered []byte    // the request body, once a stage asked for all of it
	whole    bool      // buffered is in force

	// Uploads go on while the response passes, in a goroutine of their own: from forwarding on, stages run under mu.
	mu   sync.Mutex
	room *room // what results begin with; nil before the first
}

// room is memory for most results, in one piece.
type room struct {
	ops    [4]plugin.Op
	octets [256]byte
}

// Start begins an exchange's way. bodyLimit bounds the request body that stages may ask for as a whole.
func (c *Chain) Start(x *exchange.Exchange, bodyLimit int64) *Run {
	r := &Run{chain: c, x: x, limit: bodyLimit}
	if c.memories > 0 {
		r.carries = make([][]byte, c.memories)
	}
	return r
}

// Phase runs the stages of one phase before the response. A *exchange.Problem answers the client; nothing has been
// forwarded then.
func (r *Run) Phase(ctx context.Context, phase exchange.Phase) *exchange.Problem {
	r.clock = time.Time{}
	if phase == exchange.Authenticate {
		return r.authenticate(ctx)
	}
	for _, s := range r.chain.phases[phase] {
		if p := r.step(ctx, s, abi.EventRequest); p != nil {
			return r.answered(s, p)
		}
	}
	return nil
}

// authenticate tries the stages in turn until one knows the caller. Where none does, the first refusal is given: it
// stands for the way in the operator put first. A stage that is done has said that it is no way in at all, and an answer
// that is no refusal (to a preflight, which comes without credentials) is given at once.
func (r *Run) authenticate(ctx context.Context) *exchange.Problem {
	stages := r.chain.phases[exchange.Authenticate]
	var (
		answer *exchange.Problem
		by     *stage
		ran    bool
		ways   = len(stages)
	)
	for _, s := range stages {
		if r.x.Identity.Known() {
			return nil
		}
		skipped, p := r.run(ctx, s, abi.EventRequest)
		ran = ran || !skipped
		switch {
		case p != nil && p.Status < 400:
			return r.answered(s, p)
		case p != nil && answer == nil:
			answer, by = p, s
		case r.isDone(s):
			ways--
		}
	}
	switch {
	case r.x.Identity.Known() || ways == 0:
		return nil
	case answer != nil:
		return r.answered(by, answer)
	case !ran:
		return &exchange.Problem{Status: 401, Code: "unauthenticated", Title: "No way to authenticate applies to this request."}
	}
	return &exchange.Problem{Status: 401, Code: "unauthenticated", Title: "The caller is not known."}
}

func (r *Run) answered(s *stage, p *exchange.Problem) *exchange.Problem {
	r.x.Answered = s.name
	return p
}

// Account runs the account stages, every one whatever the others did. ctx must outlive the client.
func (r *Run) Account(ctx context.Context, gone bool) {
	r.gone = gone
	for _, s := range r.chain.phases[exchange.AccountPhase] {
		if _, p := r.run(ctx, s, abi.EventAccount); p != nil {
			r.chain.log.WarnContext(ctx, "account stage answered with a problem", "exchange", r.x.ID, "stage", s.name, "code", p.Code)
		}
	}
}

// Response runs the response stages on the head. The returned Filter is nil when no stage looks at the body.
func (r *Run) Response(ctx context.Context) (*Filter, *exchange.Problem) {
	for _, s := range r.chain.phases[exchange.ResponsePhase] {
		if p := r.step(ctx, s, abi.EventResponse); p != nil {
			return nil, r.answered(s, p)
		}
	}
	return r.filter(), nil
}

func (r *Run) step(ctx context.Context, s *stage, kind abi.Event) *exchange.Problem {
	_, p := r.run(ctx, s, kind)
	return p
}

// run gives one event to one stage: a require, or a plugin. skipped tells that its when did not hold.
func (r *Run) run(ctx context.Context, s *stage, kind abi.Event) (skipped bool, problem *exchange.Problem) {
	if kind != abi.EventRequest {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.clock = time.Time{}
	}
	if s.When != nil {
		holds, err := s.When.Bool(r.x)
		if err != nil {
			return false, r.failed(ctx, s, "expression", err)
		}
		if !holds {
			return true, nil
		}
	}
	if s.Require != nil {
		return false, r.require(ctx, s)
	}
	if r.done != nil && r.done[s.id] {
		return true, nil
	}
	wants := s.Hook.Sees.Body
	whole := kind == abi.EventRequest && wants.Mode == manifest.BodyBuffer
	if whole {
		// Reading it may run stages before this one, which see it pass: they use the event too.
		if p := r.wholeBody(ctx); p != nil {
			return false, p
		}
		r.clock = time.Time{}
	}
	ev := &r.event
	*ev = plugin.Event{Kind: kind, Stage: s.number, Exchange: r.x, Carry: r.carries[s.memory], Gone: r.gone}
	if whole {
		ev.HasBody, ev.End = true, true
		ev.Body = r.buffered
		if int64(len(ev.Body)) > wants.Max {
			ev.Body, ev.End, ev.Truncated = ev.Body[:wants.Max], false, true
		}
	}
	if p := r.call(ctx, s); p != nil {
		return false, p
	}
	out, p := r.apply(s, ev.Body)
	if p != nil {
		return false, p
	}
	switch {
	case out.changed:
		r.setBody(out.body)
	case kind == abi.EventRequest && (wants.Mode == manifest.BodyStream || wants.Mode == manifest.BodyEvents) && !r.isDone(s):
		r.wrapBody(ctx, s)
	}
	return false, nil
}

func (r *Run) isDone(s *stage) bool { return r.done != nil && r.done[s.id] }

func (r *Run) require(ctx context.Context, s *stage) *exchange.Problem {
	holds, err := s.Require.Condition.Bool(r.x)
	if err != nil {
		return r.failed(ctx, s, "expression", err)
	}
	if holds {
		return nil
	}
	return &exchange.Problem{Status: s.Require.Status, Code: s.Require.Name, Title: "The request does not meet the policy.", Detail: s.Require.Message}
}

// call hands r.event to the stage's plugin, and what it awaits then. The stage's wall time is for all of that together.
func (r *Run) call(ctx context.Context, s *stage) *exchange.Problem {
	start := r.clock // reading the clock costs as much as a small policy
	if start.IsZero() {
		start = time.Now()
	}
	until := start.Add(s.Timeout)
	err := r.hand(ctx, s, start, until)
	if err == nil && r.result.Action == abi.ActionAwait {
		err = r.await(ctx, s, until)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errGone):
		r.result.Reset()
		return gone()
	}
	kind := "error"
	var fault *plugin.Fault
	if errors.As(err, &fault) {
		kind = string(fault.Kind)
	}
	r.free()
	return r.failed(ctx, s, kind, err)
}

// free lets go of what a large result took: an exchange may last for hours.
func (r *Run) free() {
	if r.room == nil {
		r.room = new(room)
	}
	clear(r.room.ops[:]) // they point to it
	r.result.Use(r.room.ops[:0], r.room.octets[:0])
}

// hand gives r.event to the stage's plugin, once. until is a deadline that waiting host operations keep.
func (r *Run) hand(ctx context.Context, s *stage, start, until time.Time) error {
	r.free()
	r.wait, r.event.At = deadline{Context: ctx, at: until}, start
	err := s.caller.Call(&r.wait, &r.event, &r.result)
	r.clock = time.Now()
	s.metrics.Call(r.clock.Sub(start), r.result.Fuel)
	return err
}

// failed decides what a fault of a stage means for the exchange: on_error = allow passes it on as if the stage were not
// there, everything else denies. The caller learns nothing of the inside.
func (r *Run) failed(ctx context.Context, s *stage, kind string, err error) *exchange.Problem {
	if s.metrics != nil {
		s.metrics.Fault(kind)
	}
	r.chain.log.WarnContext(ctx, "stage failed", "exchange", r.x.ID, "stage", s.name, "kind", kind, "allowed", s.Allow, "error", err)
	if s.Allow {
		r.result.Reset()
		return nil
	}
	if kind == string(plugin.Busy) || kind == string(plugin.Timeout) {
		return &exchange.Problem{Status: 503, Code: "policy_busy", Title: "A policy could not be applied in time.", Retry: time.Second}
	}
	return &exchange.Problem{Status: 500, Code: "policy_failed", Title: "A policy could not be applied."}
}

// deadline is a context that ends when its parent does and tells an earlier deadline. What waits on it reads Deadline;
// a timer for every stage of every exchange would cost more than most stages.
type deadline struct {
	context.Context
	at time.Time
}

// Deadline returns the earlier of its own and the parent's deadline.
func (d *deadline) Deadline() (time.Time, bool) {
	if at, ok := d.Context.Deadline(); ok && at.Before(d.at) {
		return at, true
	}
	return d.at, true
}

// Package policy runs the stages of a route, phase by phase. Its main type is Chain; a Run is one exchange's way through
// it.
//
// A stage sees an event, and answers with operations that are applied only when it returned cleanly and every one of them
// is in order: a stage that fails has changed nothing, so what on_error says is exact.
package policy

import (
	"context"
	"errors"
	"hash/maphash"
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
	marks    int // how many "done" marks
	filters  bool
	seed     maphash.Seed // of exchange numbers
	log      *slog.Logger
	turns    sync.Pool // of *turn
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
	chain := &Chain{log: c.Log, seed: maphash.MakeSeed()}
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
	chain.memories, chain.marks = len(memories), id
	chain.turns.New = func() any {
		t := new(turn)
		t.ran = t.few[:0]
		t.result.Use(t.ops[:0], t.octets[:0])
		return t
	}
	return chain
}

// Filters reports whether the chain looks at response bodies, so that they must come uncompressed.
func (c *Chain) Filters() bool { return c.filters }

// Runs reports whether the chain has a stage at a phase.
func (c *Chain) Runs(phase exchange.Phase) bool { return len(c.phases[phase]) > 0 }

// Run is one exchange on its way through a chain.
type Run struct {
	chain    *Chain
	x        *exchange.Exchange
	limit    int64  // octets of request body that may be held
	number   uint64 // what plugins know the exchange by; 0: not made yet
	carries  [][]byte
	done     []bool
	gone     bool   // the client has gone
	buffered []byte // the request body, once a stage asked for all of it
	whole    bool   // buffered is in force

	// Uploads go on while the response passes, in a goroutine of their own: from forwarding on, stages run under mu.
	mu sync.Mutex
}

// turn is what a goroutine works with while it takes a Run through some stages. It is used again for other exchanges, so
// nothing may keep what is in it.
type turn struct {
	*Run
	event  plugin.Event
	result plugin.Result
	began  time.Time     // when the first of the stages that follow each other at once began; zero: the next is the first
	wall   int64         // began in nanoseconds since 1970
	spent  time.Duration // from began to when the clock was looked at last
	ran    []ran         // what has run since then
	few    [8]ran        // memory of ran
	ops    [4]plugin.Op
	octets [256]byte
}

// ran is an event that was handed to a stage, before it is known how long that took.
type ran struct {
	metrics *telemetry.Stage
	fuel    int64
}

// Start begins an exchange's way. bodyLimit bounds the request body that stages may ask for as a whole.
func (c *Chain) Start(x *exchange.Exchange, bodyLimit int64) *Run {
	return &Run{chain: c, x: x, limit: bodyLimit}
}

func (r *Run) turn() *turn {
	t := r.chain.turns.Get().(*turn)
	t.Run, t.began = r, time.Time{}
	if r.number == 0 {
		r.number = max(maphash.String(r.chain.seed, r.x.ID), 1)
	}
	return t
}

// over gives a turn back.
func (t *turn) over() {
	chain := t.chain
	t.look()
	t.Run, t.event = nil, plugin.Event{}
	t.result.Trim()
	chain.turns.Put(t)
}

// carry is what the stage's plugin carried last.
func (r *Run) carry(s *stage) []byte {
	if r.carries == nil {
		return nil
	}
	return r.carries[s.memory]
}

// Phase runs the stages of one phase before the response. A *exchange.Problem answers the client; nothing has been
// forwarded then.
func (r *Run) Phase(ctx context.Context, phase exchange.Phase) *exchange.Problem {
	if !r.chain.Runs(phase) {
		return nil
	}
	t := r.turn()
	defer t.over()
	if phase == exchange.Authenticate {
		return t.authenticate(ctx)
	}
	for _, s := range r.chain.phases[phase] {
		if _, p := t.step(ctx, s, abi.EventRequest); p != nil {
			return r.answered(s, p)
		}
	}
	return nil
}

// authenticate tries the stages in turn until one knows the caller. Where none does, the first refusal is given: it
// stands for the way in the operator put first. A stage that is done has said that it is no way in at all, and an answer
// that is no refusal (to a preflight, which comes without credentials) is given at once.
func (t *turn) authenticate(ctx context.Context) *exchange.Problem {
	stages := t.chain.phases[exchange.Authenticate]
	var (
		answer *exchange.Problem
		by     *stage
		ran    bool
		ways   = len(stages)
	)
	for _, s := range stages {
		if t.x.Identity.Known() {
			return nil
		}
		skipped, p := t.step(ctx, s, abi.EventRequest)
		ran = ran || !skipped
		switch {
		case p != nil && p.Status < 400:
			return t.answered(s, p)
		case p != nil && answer == nil:
			answer, by = p, s
		case t.isDone(s):
			ways--
		}
	}
	switch {
	case t.x.Identity.Known() || ways == 0:
		return nil
	case answer != nil:
		return t.answered(by, answer)
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
	t := r.turn()
	defer t.over()
	r.gone = gone
	for _, s := range r.chain.phases[exchange.AccountPhase] {
		if _, p := t.step(ctx, s, abi.EventAccount); p != nil {
			r.chain.log.WarnContext(ctx, "account stage answered with a problem", "exchange", r.x.ID, "stage", s.name, "code", p.Code)
		}
	}
}

// Response runs the response stages on the head. The returned Filter is nil when no stage looks at the body.
func (r *Run) Response(ctx context.Context) (*Filter, *exchange.Problem) {
	if !r.chain.Runs(exchange.ResponsePhase) {
		return nil, nil
	}
	t := r.turn()
	defer t.over()
	for _, s := range r.chain.phases[exchange.ResponsePhase] {
		if _, p := t.step(ctx, s, abi.EventResponse); p != nil {
			return nil, r.answered(s, p)
		}
	}
	return r.filter(), nil
}

// step gives one event to one stage: a require, or a plugin. skipped tells that its when did not hold.
func (t *turn) step(ctx context.Context, s *stage, kind abi.Event) (skipped bool, problem *exchange.Problem) {
	if kind != abi.EventRequest {
		t.pause()
		t.mu.Lock()
		defer t.mu.Unlock()
	}
	if s.When != nil {
		holds, err := s.When.Bool(t.x)
		if err != nil {
			return false, t.failed(ctx, s, "expression", err)
		}
		if !holds {
			return true, nil
		}
	}
	if s.Require != nil {
		return false, t.require(ctx, s)
	}
	if t.isDone(s) {
		return true, nil
	}
	wants := s.Hook.Sees.Body
	whole := kind == abi.EventRequest && wants.Mode == manifest.BodyBuffer
	if whole {
		// Reading it takes as long as the client does, and may run stages before this one, which see it pass.
		t.pause()
		if p := t.wholeBody(ctx); p != nil {
			return false, p
		}
	}
	ev := &t.event
	ev.Kind, ev.Stage, ev.Exchange, ev.Gone, ev.Awaited = kind, s.number, t.x, t.gone, 0
	ev.Carry, ev.Body, ev.HasBody, ev.End, ev.Stream, ev.Truncated = t.carry(s), nil, false, false, false, false
	if whole {
		ev.HasBody, ev.End = true, true
		ev.Body = t.buffered
		if int64(len(ev.Body)) > wants.Max {
			ev.Body, ev.End, ev.Truncated = ev.Body[:wants.Max], false, true
		}
	}
	if p := t.call(ctx, s); p != nil {
		return false, p
	}
	out, p := t.apply(s, ev.Body)
	if p != nil {
		return false, p
	}
	switch {
	case out.changed:
		t.setBody(out.body)
	case kind == abi.EventRequest && (wants.Mode == manifest.BodyStream || wants.Mode == manifest.BodyEvents) && !t.isDone(s):
		t.wrapBody(ctx, s)
	}
	return false, nil
}

func (r *Run) isDone(s *stage) bool { return r.done != nil && r.done[s.id] }

func (t *turn) require(ctx context.Context, s *stage) *exchange.Problem {
	holds, err := s.Require.Condition.Bool(t.x)
	if err != nil {
		return t.failed(ctx, s, "expression", err)
	}
	if holds {
		return nil
	}
	return &exchange.Problem{Status: s.Require.Status, Code: s.Require.Name, Title: "The request does not meet the policy.", Detail: s.Require.Message}
}

// call hands t.event to the stage's plugin, and what it awaits then. The stage's wall time is for all of that together.
func (t *turn) call(ctx context.Context, s *stage) *exchange.Problem {
	if t.began.IsZero() { // reading the clock costs as much as a small policy
		t.began, t.spent = time.Now(), 0
		t.wall = t.began.UnixNano()
	}
	all := t.spent + s.Timeout
	err := t.hand(ctx, s, all)
	if err == nil && t.result.Action == abi.ActionAwait {
		t.look()
		err = t.await(ctx, s, t.began.Add(all))
	}
	if err == nil {
		return nil
	}
	t.result.Reset()
	if errors.Is(err, errGone) {
		return gone()
	}
	kind := "error"
	var fault *plugin.Fault
	if errors.As(err, &fault) {
		kind = string(fault.Kind)
	}
	return t.failed(ctx, s, kind, err)
}

// hand gives t.event to the stage's plugin, once. within is how long after t.began the stage's time is over.
func (t *turn) hand(ctx context.Context, s *stage, within time.Duration) error {
	ev := &t.event
	ev.Now, ev.Began, ev.Within, ev.Number = t.wall+int64(t.spent), t.began, within, t.number
	err := s.caller.Call(ctx, ev, &t.result)
	t.ran = append(t.ran, ran{metrics: s.metrics, fuel: t.result.Fuel})
	if err != nil || !t.result.Brief() || len(t.ran) == len(t.few) {
		t.look()
	}
	return err
}

// look looks at the clock, and gives the time since the last look to the stages that have run: to each as much as it
// computed of that.
func (t *turn) look() {
	if len(t.ran) == 0 {
		return
	}
	before := t.spent
	t.spent = time.Since(t.began)
	took, fuel := t.spent-before, int64(0)
	for i := range t.ran {
		fuel += t.ran[i].fuel + 1
	}
	for i := range t.ran {
		r := &t.ran[i]
		share := time.Duration(float64(took) * float64(r.fuel+1) / float64(fuel))
		r.metrics.Call(share, r.fuel)
		r.metrics = nil
	}
	t.ran = t.ran[:0]
}

// pause lets time pass that is no stage's.
func (t *turn) pause() {
	t.look()
	t.began = time.Time{}
}

// failed decides what a fault of a stage means for the exchange: on_error = allow passes it on as if the stage were not
// there, everything else denies. The caller learns nothing of the inside.
func (r *Run) failed(ctx context.Context, s *stage, kind string, err error) *exchange.Problem {
	if s.metrics != nil {
		s.metrics.Fault(kind)
	}
	r.chain.log.WarnContext(ctx, "stage failed", "exchange", r.x.ID, "stage", s.name, "kind", kind, "allowed", s.Allow, "error", err)
	if s.Allow {
		return nil
	}
	if kind == string(plugin.Busy) || kind == string(plugin.Timeout) {
		return &exchange.Problem{Status: 503, Code: "policy_busy", Title: "A policy could not be applied in time.", Retry: time.Second}
	}
	return &exchange.Problem{Status: 500, Code: "policy_failed", Title: "A policy could not be applied."}
}

package plugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/deadline"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin/code"
	"github.com/postern-gateway/postern/sdk/abi"
)

const (
	// failures in a row after which a plugin rests, for restMin at first, twice as long each time, at most restMax.
	failures = 5
	restMin  = 100 * time.Millisecond
	restMax  = 10 * time.Second
	// queuePerInstance bounds how many events may wait.
	queuePerInstance = 256
	// maxDetail bounds a fault's text, which may hold a guest's whole stack.
	maxDetail = 2 << 10
	// briefFuel is what a brief event uses at most: some 10 microseconds' worth.
	briefFuel = 1 << 14
)

// Pool is a plugin as one configuration uses it: any number of events may be handed to it at once, and a bounded number of
// instances works on them. Pools of equal configurations share their instances.
type Pool struct {
	pool   *pool
	stages []*config.Stage
	closed atomic.Bool
}

// pool is what equal Pools share. Its instances are a stack, so that the warmest is used first and those beyond the load
// stay untouched.
type pool struct {
	host   *Host
	key    string
	refs   int // under Host.mu
	plugin *config.Plugin
	stages []*config.Stage
	code   *code.Code
	module Module
	front  ABI
	limits config.PluginLimits // none is zero

	mu      sync.Mutex
	calls   int64
	fuel    int64
	closed  bool
	free    []*instance
	total   int // instances that exist or are being made
	waiters []*waiter
	drained chan struct{} // closed when closed and total is 0
	memory  int64
	faults  map[Kind]int64

	inRow   int // faults in a row
	rest    time.Duration
	until   time.Time // rests until then
	probing bool      // one event tries whether the plugin works again
}

type instance struct {
	module  api.Module
	guest   Guest
	session *Session
	gauge   gauge
	ctx     guestContext
	memory  int64
	begun   int64 // its memory when it was configured
	ready   bool  // it was free when the event came
}

// waiter is an event waiting for an instance. It gets one, or nil with the right to make one.
type waiter struct {
	turn chan *instance
}

// newPool makes a pool with instances ready. The reference to c is the pool's, or given back with an error.
func (h *Host) newPool(ctx context.Context, key string, p *config.Plugin, stages []*config.Stage, c *code.Code) (*pool, error) {
	module, front, err := h.open(c, p, stages)
	if err != nil {
		c.Release()
		return nil, fmt.Errorf("plugin %s: %s: %w", p.Name, p.Path, err)
	}
	made := &pool{
		host: h, key: key, refs: 1, plugin: p, stages: stages, code: c, module: module, front: front,
		limits: p.Limits.Whole(), drained: make(chan struct{}), faults: map[Kind]int64{},
	}
	made.limits.Instances = p.Instances()
	// The first instance shows whether the module works at all. The others take the place of those that other pools of the
	// plugin have, so that the load they carry finds instances ready: what is swapped in is warm.
	for most := min(h.instances(p.Name), made.limits.Instances); made.total < max(most, 1); made.total++ {
		i, err := made.start(ctx)
		if err != nil {
			_ = made.close(ctx) // closes what was started; nothing is under way
			var f *Fault
			if errors.As(err, &f) { // it stands at no phase yet
				return nil, fmt.Errorf("plugin %s: %s: the first instance failed: %s: %s", p.Name, p.Path, f.Kind, f.Detail)
			}
			return nil, err
		}
		made.free = append(made.free, i)
		made.memory += i.memory
	}
	return made, nil
}

// instances is how many instances the largest pool of a plugin has: as many as its events have needed at once.
func (h *Host) instances(plugin string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	most := 0
	for _, p := range h.pools {
		if p.plugin.Name == plugin {
			p.mu.Lock()
			most = max(most, p.total)
			p.mu.Unlock()
		}
	}
	return most
}

// start makes an instance and configures every stage on it, with the fuel that is for all of that.
func (p *pool) start(ctx context.Context) (*instance, error) {
	s := NewSession(p.host, p.plugin)
	i := &instance{session: s, ctx: guestContext{session: s}}
	s.Begin(ctx, nil)
	defer s.End()
	i.ctx.Context = ctx
	s.budget = int64(p.limits.Start) // the guest's counter begins at 0: starting already visits the host
	// Starting runs code, which has to find the session.
	made := code.WithMemory(context.WithValue(context.Background(), sessionKey{}, s), p.limits.Memory, &s.grown)
	module, err := p.host.compiler.Runtime().InstantiateModule(made, p.code.Module, wazero.NewModuleConfig().
		WithName("").WithStartFunctions("_initialize").WithStdout(s).WithStderr(s).WithWalltime(func() (int64, int32) { t := s.now(); return t.Unix(), int32(t.Nanosecond()) }, 1).
		WithSysNanotime().WithRandSource(code.Charged(rand.Reader, s.charge)))
	if err == nil && module.IsClosed() { // it has exited without an error; its memory is gone, and nothing of it may run
		err = errors.New("the module exits while it starts")
	}
	if err != nil {
		return nil, p.fault(exchange.Authenticate, s, p.limits.Start, fmt.Errorf("start an instance: %w", err))
	}
	i.module = module
	if !p.host.config.Raw {
		if i.gauge, err = gaugeOf(module); err == nil {
			i.gauge.depth.Set(uint64(p.limits.Depth))
		}
	}
	if err == nil {
		i.guest, err = p.module.Guest(&i.ctx, module)
	}
	for n := 0; err == nil && n < len(p.stages); n++ {
		s.Begin(ctx, nil)
		if err = i.guest.Configure(&i.ctx, n); err != nil {
			err = p.refused(p.stages[n], s, err)
		}
	}
	if err != nil {
		_ = module.Close(context.Background()) // the first error is the one that matters
		var ours *ConfigError
		if errors.As(err, &ours) {
			return nil, err
		}
		return nil, p.fault(exchange.Authenticate, s, p.limits.Start, err)
	}
	i.memory = int64(module.Memory().Size())
	i.begun = i.memory
	return i, nil
}

// refused tells a plugin's own no apart from its failure; both name the stage.
func (p *pool) refused(stage *config.Stage, s *Session, err error) error {
	f := p.fault(stage.Phase, s, p.limits.Start, err)
	detail := f.Detail
	if f.Kind != Refused {
		detail = string(f.Kind) + ": " + detail
	}
	return &ConfigError{Plugin: p.plugin.Name, Range: stage.Range, Detail: detail}
}

// fault says in the gateway's words how a guest failed that had been given that much fuel.
func (p *pool) fault(phase exchange.Phase, s *Session, given time.Duration, err error) *Fault {
	f := new(Fault)
	if errors.As(err, &f) {
		f = &Fault{Kind: f.Kind, Detail: f.Detail, Err: f.Err}
	} else if f = stopped(err, &p.limits, given); f == nil {
		f = &Fault{Kind: Trap, Detail: trace(err), Err: err}
		switch {
		case errors.Is(err, errProtocol):
			f.Kind = Protocol
		case s.grown:
			f.Kind = Memory
			f.Detail = fmt.Sprintf("more than %d octets of memory: %s", p.limits.Memory, f.Detail)
		}
	}
	f.Plugin, f.Phase = p.plugin.Name, phase
	f.Detail = f.Detail[:min(len(f.Detail), maxDetail)]
	return f
}

// trace is an error of the engine's as operators read it: what happened, and through which frames, with lines of source
// where the module carries them.
func trace(err error) string { return strings.Replace(err.Error(), " (recovered by wazero)", "", 1) }

// Call hands an event to an instance and gives back what the plugin decided, checked whole. The error is a *Fault; then res
// says nothing but Fuel, and nothing of what the plugin wanted may be done. ctx bounds waiting: for an instance, and in host
// operations of the plugin; a guest that goes on beyond its end is stopped.
func (p *Pool) Call(ctx context.Context, ev *Event, res *Result) error {
	if ev.Stage < 0 || ev.Stage >= len(p.stages) {
		return &Fault{Plugin: p.pool.plugin.Name, Kind: Protocol, Detail: fmt.Sprintf("there is no stage %d", ev.Stage)}
	}
	ev.Arguments = p.stages[ev.Stage].Arguments
	return p.pool.call(ctx, ev, res)
}

func (p *pool) call(ctx context.Context, ev *Event, res *Result) error {
	phase := p.stages[ev.Stage].Phase
	res.Reset()
	i, err := p.take(ctx, ev, phase)
	if err != nil {
		return p.failing(err)
	}
	i.session.Begin(ctx, ev.Exchange)
	i.session.event, i.session.grown = ev, false
	i.ctx.Context = ctx
	given := p.limits.CPU + time.Duration((len(ev.Body)+1023)/1024)*p.limits.CPUPerKiB
	i.gauge.fill(i.session, given, p.limits.Depth)
	err = i.guest.Call(&i.ctx, ev, res)
	if err == nil {
		err = res.Check(ev, phase, p.plugin.Name)
	}
	used := i.gauge.used(i.session, given)
	ev.Exchange.Fuel += used
	i.session.End()
	i.ctx.Context = nil
	if err == nil && res.Action != abi.ActionError {
		res.Fuel, res.brief = used, i.ready && used < briefFuel && i.session.calls == 0
		p.give(i, used, true)
		return nil
	}
	if err == nil {
		// The plugin said itself that it failed: it is in order, and may go on.
		_, _, detail, _, _ := res.Respond()
		res.Reset()
		res.Fuel = used
		p.give(i, used, true)
		return p.failing(&Fault{Plugin: p.plugin.Name, Phase: phase, Kind: Refused, Detail: printable([]byte(detail))})
	}
	f := p.fault(phase, i.session, given, err)
	res.Reset()
	res.Fuel = used
	p.give(i, used, false)
	return p.failing(f)
}

// failing counts a fault, by its kind.
func (p *pool) failing(err error) error {
	f := new(Fault)
	if errors.As(err, &f) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.faults[f.Kind]++
	}
	return err
}

// take gets an instance: a free one, a new one, or the next one that is given back. An event that has awaited had its turn
// and holds what it holds anyway: however many of these there are, they may wait.
func (p *pool) take(ctx context.Context, ev *Event, phase exchange.Phase) (*instance, error) {
	p.mu.Lock()
	p.calls++
	if p.closed {
		p.mu.Unlock()
		return nil, &Fault{Plugin: p.plugin.Name, Phase: phase, Kind: Busy, Detail: ErrClosed.Error(), Err: ErrClosed}
	}
	if p.inRow >= failures {
		if p.probing || time.Now().Before(p.until) {
			n := p.inRow
			p.mu.Unlock()
			return nil, &Fault{Plugin: p.plugin.Name, Phase: phase, Kind: Broken, Detail: fmt.Sprintf("failed %d times in a row and rests", n)}
		}
		p.probing = true
	}
	if n := len(p.free); n > 0 {
		i := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		i.ready = true
		return i, nil
	}
	if p.total < p.limits.Instances {
		p.total++
		p.mu.Unlock()
		return p.make(ctx, phase)
	}
	if len(p.waiters) >= queuePerInstance*p.limits.Instances && ev.Awaited == 0 {
		p.probing = false
		p.mu.Unlock()
		return nil, &Fault{Plugin: p.plugin.Name, Phase: phase, Kind: Busy, Detail: "too many events wait for an instance"}
	}
	w := &waiter{turn: make(chan *instance, 1)}
	p.waiters = append(p.waiters, w)
	p.mu.Unlock()
	return p.wait(ctx, ev.Until(), phase, w)
}

func (p *pool) wait(ctx context.Context, until time.Time, phase exchange.Phase, w *waiter) (*instance, error) {
	f := &Fault{Plugin: p.plugin.Name, Phase: phase, Kind: Busy, Detail: "no instance became free in time"}
	longest := p.limits.Queue
	if at := deadline.Earlier(ctx, until); !at.IsZero() {
		if left := time.Until(at); left < longest {
			longest, f.Kind, f.Err = left, Timeout, context.DeadlineExceeded
		}
	}
	timer := time.NewTimer(longest)
	defer timer.Stop()
	select {
	case i := <-w.turn:
		return p.turn(ctx, phase, i)
	case <-timer.C:
	case <-ctx.Done():
		f.Kind, f.Detail, f.Err = Timeout, "waiting for an instance", ctx.Err()
	}
	p.mu.Lock()
	for n, other := range p.waiters {
		if other == w {
			p.waiters = append(p.waiters[:n], p.waiters[n+1:]...)
			p.probing = false
			p.mu.Unlock()
			return nil, f
		}
	}
	p.mu.Unlock()
	// It was just given a turn: using it is cheaper than handing it on.
	return p.turn(ctx, phase, <-w.turn)
}

func (p *pool) turn(ctx context.Context, phase exchange.Phase, i *instance) (*instance, error) {
	if i != nil {
		return i, nil
	}
	return p.make(ctx, phase)
}

// make starts an instance in a place that total counts already. It is not given up when ctx ends: it takes milliseconds,
// and the next event wants it.
func (p *pool) make(ctx context.Context, phase exchange.Phase) (*instance, error) {
	i, err := p.start(context.WithoutCancel(ctx))
	if err == nil {
		p.mu.Lock()
		p.memory += i.memory
		p.mu.Unlock()
		return i, nil
	}
	p.mu.Lock()
	p.total--
	p.failed()
	p.next()
	p.mu.Unlock()
	f := new(Fault)
	if !errors.As(err, &f) {
		f = &Fault{Kind: Trap, Detail: err.Error(), Err: err}
	}
	f.Plugin, f.Phase = p.plugin.Name, phase
	return nil, f
}

// give takes an instance back after an event. One that failed is closed whatever it failed at: what a trap leaves behind
// can not be known. So is one that has grown to near its limit, before it fails; a new one would be as large as it began.
func (p *pool) give(i *instance, used int64, sound bool) {
	size := int64(i.module.Memory().Size())
	keep := sound && size <= max(p.limits.Memory/4*3, i.begun)
	p.mu.Lock()
	p.fuel += used
	p.memory += size - i.memory
	i.memory, i.ready = size, false
	if sound {
		p.inRow, p.probing, p.rest = 0, false, 0
	} else {
		p.failed()
	}
	if keep && !p.closed {
		if len(p.waiters) > 0 {
			w := p.waiters[0]
			p.waiters = append(p.waiters[:0], p.waiters[1:]...)
			p.mu.Unlock()
			w.turn <- i
			return
		}
		p.free = append(p.free, i)
		p.mu.Unlock()
		return
	}
	p.memory -= size
	p.mu.Unlock()
	i.close()
	p.mu.Lock()
	p.total--
	p.next()
	p.mu.Unlock()
}

// failed counts a fault. Called under mu.
func (p *pool) failed() {
	p.inRow++
	p.probing = false
	if p.inRow < failures {
		return
	}
	p.rest = min(max(2*p.rest, restMin), restMax)
	p.until = time.Now().Add(p.rest)
	if p.inRow == failures {
		p.host.config.Log.Warn("plugin rests after failing in a row", "plugin", p.plugin.Name, "failures", p.inRow)
	}
}

// next passes on a place that became free: to whoever waits, or, when all are gone from a closed pool, to Close.
// Called under mu.
func (p *pool) next() {
	if len(p.waiters) > 0 && p.total < p.limits.Instances {
		w := p.waiters[0]
		p.waiters = append(p.waiters[:0], p.waiters[1:]...)
		p.total++
		w.turn <- nil
		return
	}
	p.finish()
}

// finish ends a closed pool when its last instance is gone. Called under mu.
func (p *pool) finish() {
	if !p.closed || p.total > 0 {
		return
	}
	select {
	case <-p.drained:
		return
	default:
	}
	close(p.drained)
	p.code.Release()
}

// close of an instance also drops its memory, which the engine would otherwise keep.
func (i *instance) close() { _ = i.module.Close(context.Background()) }

// Module names the plugin, and its module by its SHA-256.
func (p *Pool) Module() (plugin, digest string) { return p.pool.plugin.Name, p.pool.code.Digest }

// Close gives the pool back. When it was the last Pool of its kind, no event is taken any more, and Close waits until those
// under way are done or ctx ends; instances in use then close when they come back.
func (p *Pool) Close(ctx context.Context) error {
	if p.closed.Swap(true) {
		return nil
	}
	h := p.pool.host
	h.mu.Lock()
	p.pool.refs--
	last := p.pool.refs == 0
	if last && h.pools[p.pool.key] == p.pool {
		delete(h.pools, p.pool.key)
	}
	h.mu.Unlock()
	if !last {
		return nil
	}
	return p.pool.close(ctx)
}

func (p *pool) close(ctx context.Context) error {
	p.mu.Lock()
	free := p.free
	p.free = nil
	p.closed = true
	p.mu.Unlock()
	for _, i := range free {
		i.close()
	}
	p.mu.Lock()
	p.total -= len(free)
	for _, i := range free {
		p.memory -= i.memory
	}
	p.finish()
	p.mu.Unlock()
	select {
	case <-p.drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close plugin %s: events are still under way: %w", p.plugin.Name, ctx.Err())
	}
}

func (p *pool) status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := Status{
		Plugin: p.plugin.Name, Digest: p.code.Digest, ABI: p.front.Name(), Version: p.plugin.Manifest.Version, Stages: len(p.stages),
		Instances: p.total, Busy: p.total - len(p.free), Limit: p.limits.Instances, Waiting: len(p.waiters), Memory: p.memory,
		Compile: p.code.Took.Seconds(), Calls: p.calls, Fuel: p.fuel, Kinds: maps.Clone(p.faults), Broken: p.inRow >= failures,
	}
	for _, n := range p.faults {
		st.Faults += n
	}
	return st
}

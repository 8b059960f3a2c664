package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/plugin/admission"
)

// slice is how much fuel a guest gets at a time: about a millisecond's. When it has run out the guest comes by, and the
// garbage collector and the scheduler get in.
const slice = 1 << 20

// Why a guest was stopped. What says so is thrown through its frames.
var (
	errFuel    = errors.New("out of fuel")
	errDeep    = errors.New("call depth")
	errStopped = errors.New("the time for the event is over, or nobody waits for it any more")
)

// installMeter defines the host module that metering makes guests import. What bounds a guest is in the Session.
func installMeter(ctx context.Context, r wazero.Runtime) error {
	i64 := api.ValueTypeI64
	yield := func(ctx context.Context, _ api.Module, stack []uint64) {
		stack[0] = uint64(SessionOf(ctx).yield(int64(stack[0])))
	}
	_, err := r.NewHostModuleBuilder(admission.MeterModule).
		NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(yield), []api.ValueType{i64}, []api.ValueType{i64}).Export(admission.Yield).
		NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(context.Context, api.Module, []uint64) { panic(errDeep) }), nil, nil).Export(admission.Deep).
		Instantiate(ctx)
	return err
}

// yield hands out the next slice of the event's fuel. left is what the guest's counter says, a negative number. It does not
// return when the fuel is used up, when the exchange is over, or when the stage's time is.
func (s *Session) yield(left int64) int64 {
	s.settled = true // a guest that is stopped here has kept its count to itself
	if s.budget += left; s.budget < 0 {
		panic(errFuel)
	}
	if s.ctx.Err() != nil {
		panic(errStopped)
	}
	if at := s.ends(); !at.IsZero() && time.Now().After(at) {
		panic(errStopped)
	}
	next := min(slice, s.budget)
	s.budget -= next
	s.settled = false
	return next
}

// charge takes fuel for what the host does at length. A guest may owe a slice, which its next visit settles.
func (s *Session) charge(units int64) {
	if s.budget -= units; s.budget < -slice {
		panic(errFuel)
	}
}

// gauge is an instance's counters, looked up once: nil where the module is not metered.
type gauge struct {
	fuel, depth api.MutableGlobal
}

// gaugeOf finds the counters that metering put into a module.
func gaugeOf(m api.Module) (g gauge, err error) {
	fuel, ok1 := m.ExportedGlobal(admission.FuelGlobal).(api.MutableGlobal)
	depth, ok2 := m.ExportedGlobal(admission.DepthGlobal).(api.MutableGlobal)
	if !ok1 || !ok2 {
		return g, errors.New("the module is not metered")
	}
	return gauge{fuel: fuel, depth: depth}, nil
}

// fill gives an event its fuel: the first slice to the guest, the rest to the session.
func (g gauge) fill(s *Session, fuel time.Duration, depth int) {
	if g.fuel == nil {
		return
	}
	first := min(slice, int64(fuel))
	s.budget, s.settled = int64(fuel)-first, false
	g.fuel.Set(uint64(first))
	g.depth.Set(uint64(uint32(depth)))
}

// used is how much of the fuel it was given an event has used: at most all of it. A guest that traps within a loop may
// have used up to a slice more.
func (g gauge) used(s *Session, given time.Duration) int64 {
	switch {
	case g.fuel == nil:
		return 0
	case s.settled:
		return min(int64(given), int64(given)-s.budget)
	}
	return min(int64(given), int64(given)-s.budget-int64(g.fuel.Get()))
}

// stopped says how a guest broke its limits; nil when it did not.
func stopped(err error, l *config.PluginLimits, given time.Duration) *Fault {
	switch {
	case errors.Is(err, errFuel):
		return &Fault{Kind: Fuel, Detail: fmt.Sprintf("more CPU than %s: %s", given, trace(err)), Err: err}
	case errors.Is(err, errDeep):
		return &Fault{Kind: Trap, Detail: fmt.Sprintf("call depth: more than %d calls within each other: %s", l.Depth, trace(err)), Err: err}
	case errors.Is(err, errStopped):
		return &Fault{Kind: Timeout, Detail: trace(err), Err: errors.Join(err, context.DeadlineExceeded)}
	}
	return nil
}

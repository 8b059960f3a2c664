package abi1_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin"
	. "github.com/postern-gateway/postern/gateway/plugin/wasmtest"
	"github.com/postern-gateway/postern/sdk/abi"
)

// done is what a guest answers that has nothing to say.
var done = Answer(abi.ActionContinue, 0, 0)

// count is a loop that runs n times, at 7 to 12 units each.
func count(n int32) Code {
	return I32Const(n) + LocalSet(Int) +
		Loop(Void, LocalGet(Int)+I32Const(1)+I32Sub+LocalTee(Int)+BrIf(0))
}

// expect traps unless the i64 on the stack is n.
func expect(n int64) Code { return I64Const(n) + I64Ne + If(Void, Unreachable) }

// slow are accounts that answer when nobody waits any more.
type slow struct{}

func (slow) Key(ctx context.Context, _ []byte) (exchange.Identity, error) {
	<-ctx.Done()
	return exchange.Identity{}, ctx.Err()
}

// TestLimitsHold: each limit of a plugin's is met, and what goes beyond it is said.
func TestLimitsHold(t *testing.T) {
	t.Parallel()
	endless := Loop(Void, Br(0)) + Unreachable
	deeper := func(levels int32) *Module {
		m := Policy("")
		self := m.Next()
		m.Func("", Sig(I32), LocalGet(0)+If(Void, LocalGet(0)+I32Const(1)+I32Sub+Call(self)))
		m.Exported(abi.ExportOn).Code = I32Const(levels) + Call(self) + done
		return m
	}
	key := Ask(abi.CodeKey, Scratch, 4, Scratch, 64)
	for _, c := range []struct {
		name   string
		limits config.PluginLimits
		module *Module
		body   int
		fault  plugin.Kind
		says   string // in the fault, or where there is none in the log
	}{
		{"cpu", config.PluginLimits{CPU: 20 * time.Millisecond}, Policy(endless), 0, plugin.Fuel, "more CPU than 20ms"},
		{"cpu enough", config.PluginLimits{CPU: 20 * time.Millisecond}, Policy(count(1_000_000) + done), 0, "", ""},
		{"cpu too little", config.PluginLimits{CPU: 3 * time.Millisecond}, Policy(count(1_000_000) + done), 0, plugin.Fuel, "more CPU than 3ms"},
		{"cpu by length", config.PluginLimits{CPU: 3 * time.Millisecond, CPUPerKiB: time.Millisecond}, Policy(count(1_000_000) + done), 20<<10 - 5, "", ""},
		{"cpu by too little length", config.PluginLimits{CPU: 3 * time.Millisecond, CPUPerKiB: time.Millisecond}, Policy(count(1_000_000) + done), 100, plugin.Fuel, "more CPU than 4ms"},
		{"cpu of fills", config.PluginLimits{CPU: 20 * time.Millisecond}, Policy(Loop(Void, I32Const(0)+I32Const(0)+I32Const(60000)+MemoryFill+Br(0)) + Unreachable), 0, plugin.Fuel, "more CPU than 20ms"},
		{"cpu of imports", config.PluginLimits{CPU: 20 * time.Millisecond, Log: 100}, Policy(Loop(Void, I32Const(0)+I32Const(0)+I32Const(0)+Call(Log)+Br(0)) + Unreachable), 0, plugin.Fuel, "more CPU than 20ms"},
		{"depth", config.PluginLimits{Depth: 100}, deeper(200), 0, plugin.Trap, "more than 100 calls within each other"},
		{"depth enough", config.PluginLimits{Depth: 300}, deeper(200), 0, "", ""},
		{"depth by itself", config.PluginLimits{}, deeper(1 << 30), 0, plugin.Trap, "more than 4096 calls within each other"},
		{"memory", config.PluginLimits{Memory: 1 << 20}, Policy(Loop(Void, I32Const(1)+MemoryGrow+I32Const(-1)+I32Ne+BrIf(0)) + Unreachable), 0, plugin.Memory, "more than 1048576 octets of memory"},
		{"memory enough", config.PluginLimits{Memory: 8 << 20}, Policy(I32Const(20) + MemoryGrow + I32Const(-1) + I32Eq + If(Void, Unreachable) + done), 0, "", ""},
		{"operations", config.PluginLimits{Operations: 3}, Policy(Repeat(3, Ask(abi.CodeTime, 0, 0, Scratch, 8)+expect(8)) + Ask(abi.CodeTime, 0, 0, Scratch, 8) + expect(abi.ErrLimit) + done), 0, "", ""},
		{"wait", config.PluginLimits{Wait: 30 * time.Millisecond}, Policy(key + expect(abi.ErrUnavailable) + key + expect(abi.ErrUnavailable) + done), 0, "", "host operations waited too long"},
		{"log", config.PluginLimits{Log: 40}, Policy(Repeat(3, I32Const(1)+I32Const(0)+I32Const(30)+Call(Log)) + done), 0, "", "dropped_octets=60"},
		{"no log", config.PluginLimits{Log: 1}, Policy(I32Const(1) + I32Const(0) + I32Const(30) + Call(Log) + done), 0, "", "dropped_octets=30"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h, log := newHost(t, plugin.Services{Accounts: slow{}})
			p := newPlugin(write(t, c.module.Bytes()))
			p.Limits = c.limits
			pool := load(t, h, p, newStage(exchange.RequestPhase, ""))
			defer pool.Close(context.Background())
			for range 3 { // what one event used is not the next one's
				var res plugin.Result
				ev := event(0)
				ev.Body, ev.HasBody = make([]byte, c.body), true
				err := pool.Call(context.Background(), ev, &res)
				if kind := kindOf(t, err); kind != c.fault || err != nil && !strings.Contains(err.Error(), c.says) {
					t.Fatalf("%v, want a fault %q with %q", err, c.fault, c.says)
				}
				if c.fault == "" && !strings.Contains(log.String(), c.says) {
					t.Errorf("the log does not say %q:\n%s", c.says, log.String())
				}
				if res.Fuel != ev.Exchange.Fuel || c.fault == plugin.Fuel && res.Fuel < int64(c.limits.CPU) {
					t.Errorf("the result says %d units, the exchange %d", res.Fuel, ev.Exchange.Fuel)
				}
			}
			status := h.Status()[0]
			if want := map[bool]int64{true: 3}[c.fault != ""]; status.Faults != want || status.Kinds[c.fault] != want {
				t.Errorf("%+v", status)
			}
		})
	}
}

// TestFuelIsDeterministic: the same event uses the same fuel, twice as much work about twice as much.
func TestFuelIsDeterministic(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, plugin.Services{})
	used := map[int32]int64{}
	for _, n := range []int32{1000, 1000, 2000, 3_000_000} {
		pool := load(t, h, newPlugin(write(t, Policy(count(n)+done).Bytes())), newStage(exchange.RequestPhase, ""))
		for range 3 {
			ev, res := event(0), new(plugin.Result)
			ev.Exchange.Fuel = 7
			if err := pool.Call(context.Background(), ev, res); err != nil {
				t.Fatal(err)
			}
			if before, ok := used[n]; ok && before != res.Fuel || ev.Exchange.Fuel != res.Fuel+7 {
				t.Errorf("%d rounds used %d and then %d; the exchange has %d", n, before, res.Fuel, ev.Exchange.Fuel)
			}
			used[n] = res.Fuel
		}
		if got := h.Status()[0].Fuel; got != 3*used[n] {
			t.Errorf("the status says %d, not %d", got, 3*used[n])
		}
		if err := pool.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	for n, units := range used {
		if units < 3*int64(n) || units > 20*int64(n) {
			t.Errorf("%d rounds used %d units", n, units)
		}
	}
}

// TestStartIsBounded: what a module does when it starts and is configured has a bound of its own.
func TestStartIsBounded(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, plugin.Services{})
	starting := Policy(done)
	start := starting.Func("", Sig(), count(3_000_000), Locals{Count: 3, Type: I32})
	starting.Start = &start
	initializing := Policy(done)
	initializing.Func("_initialize", Sig(), count(3_000_000), Locals{Count: 3, Type: I32})
	configuring := Policy(done)
	configuring.Exported(abi.ExportConfigure).Code = count(3_000_000) + done
	configuring.Exported(abi.ExportConfigure).Locals = []Locals{{Count: 3, Type: I32}}
	for name, m := range map[string]*Module{"start": starting, "_initialize": initializing, "configure": configuring} {
		p := newPlugin(write(t, m.Bytes()))
		p.Limits.Start = 5 * time.Millisecond
		_, err := h.Load(context.Background(), p, []*config.Stage{newStage(exchange.RequestPhase, "")})
		if err == nil || !strings.Contains(err.Error(), "more CPU than 5ms") {
			t.Errorf("%s: %v", name, err)
		}
		p.Limits.Start = 500 * time.Millisecond
		pool := load(t, h, p, newStage(exchange.RequestPhase, ""))
		if err := pool.Call(context.Background(), event(0), new(plugin.Result)); err != nil {
			t.Errorf("%s: the first event: %v", name, err)
		}
		if err := pool.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if list := h.Status(); len(list) > 0 {
		t.Errorf("pools are left: %+v", list)
	}
}

// ending is a context that tells a deadline as the policy chain does: without a timer.
type ending struct {
	context.Context
	at time.Time
}

func (e ending) Deadline() (time.Time, bool) { return e.at, true }

// TestStageTimeStopsGuests: a guest that goes on when the stage's time is over, or when the client has gone, is stopped long
// before its fuel is used up.
func TestStageTimeStopsGuests(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, plugin.Services{})
	p := newPlugin(write(t, Policy(Loop(Void, Br(0))+Unreachable).Bytes()))
	p.Limits.CPU = time.Hour
	pool := load(t, h, p, newStage(exchange.RequestPhase, ""))
	defer pool.Close(context.Background())
	gone, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	for name, ctx := range map[string]context.Context{"deadline": ending{context.Background(), time.Now().Add(20 * time.Millisecond)}, "client": gone} {
		var res plugin.Result
		err := pool.Call(ctx, event(0), &res)
		if kindOf(t, err) != plugin.Timeout || !errors.Is(err, context.DeadlineExceeded) || res.Fuel >= int64(p.Limits.CPU)/10 {
			t.Errorf("%s: %v after %d units", name, err, res.Fuel)
		}
	}
}

// TestFaultsShowFrames: operators read through which functions a guest failed.
func TestFaultsShowFrames(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, plugin.Services{})
	m := Policy("")
	inner := m.Func("", Sig(), Unreachable)
	m.Functions[len(m.Functions)-1].Name = "divide_the_bill"
	m.Exported(abi.ExportOn).Code = Call(inner) + done
	pool := load(t, h, newPlugin(write(t, m.Bytes())), newStage(exchange.RequestPhase, ""))
	defer pool.Close(context.Background())
	err := pool.Call(context.Background(), event(0), new(plugin.Result))
	if kindOf(t, err) != plugin.Trap || !strings.Contains(err.Error(), "divide_the_bill") || strings.Contains(err.Error(), "wazero") {
		t.Errorf("%v", err)
	}
}

// TestWarm: a pool that takes another's place begins with as many instances as that one needed, within its own limit.
func TestWarm(t *testing.T) {
	t.Parallel()
	accounts := &gathering{all: make(chan struct{}), want: 3}
	h, _ := newHost(t, plugin.Services{Accounts: accounts})
	path := write(t, Policy(Ask(abi.CodeKey, Scratch, 4, Scratch, 64)+expect(abi.ErrNotFound)+done).Bytes())
	p := newPlugin(path)
	p.Limits.Instances = 5
	old := load(t, h, p, newStage(exchange.RequestPhase, ""))
	results := make(chan error, 3)
	for range 3 {
		go func() { results <- old.Call(context.Background(), event(0), new(plugin.Result)) }()
	}
	for range 3 {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, Policy(Nop+done).Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, most := range []int{5, 2} {
		q := *p
		q.Limits.Instances = most
		next := load(t, h, &q, newStage(exchange.RequestPhase, fmt.Sprint(i)))
		defer next.Close(context.Background())
		for _, s := range h.Status() {
			if _, digest := next.Module(); s.Digest == digest && s.Limit == most && (s.Instances != min(3, most) || s.Busy != 0) {
				t.Errorf("at most %d: %+v", most, s)
			}
		}
	}
	if err := old.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// gathering are accounts that answer when so many ask at once.
type gathering struct {
	all  chan struct{}
	want int
	lines
}

func (g *gathering) Key(context.Context, []byte) (exchange.Identity, error) {
	g.mu.Lock()
	if g.want--; g.want == 0 {
		close(g.all)
	}
	g.mu.Unlock()
	<-g.all
	return exchange.Identity{}, plugin.ErrNotFound
}

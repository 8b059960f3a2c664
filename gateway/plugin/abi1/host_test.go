package abi1_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/plugin/abi1"
	"github.com/postern-gateway/postern/sdk/abi"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

var guests = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "postern-guests")
	if err != nil {
		return "", err
	}
	for _, name := range []string{"hostile", "policy"} {
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-buildmode=c-shared", "-o", filepath.Join(dir, name+".wasm"), "./testdata/guests/"+name)
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return dir, errors.New(name + ": " + string(out))
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := guests(); dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

func guest(t testing.TB, name string) string {
	t.Helper()
	dir, err := guests()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name+".wasm")
}

func write(t testing.TB, wasm []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.wasm")
	if err := os.WriteFile(path, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newHost(t testing.TB, s plugin.Services) (*plugin.Host, *lines) {
	t.Helper()
	log := new(lines)
	h, err := plugin.NewHost(plugin.Config{Log: slog.New(slog.NewTextHandler(log, nil)), CacheDir: plugintest.CacheDir(), Child: plugintest.Compiler(t), ABIs: []plugin.ABI{abi1.New()}, Services: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return h, log
}

func newPlugin(path string) *config.Plugin {
	return &config.Plugin{
		Name: "p", Path: path, Manifest: &manifest.Manifest{ABI: 1, Version: "1.0.0"}, Grants: []string{"accounts", "state"},
		Limits: config.PluginLimits{Memory: 64 << 20, CPU: 2 * time.Second, Instances: 2, Queue: 5 * time.Second},
	}
}

func newStage(phase exchange.Phase, mode string) *config.Stage {
	return &config.Stage{
		Phase: phase, Policy: "test", Hook: &manifest.Hook{Phase: phase, Sees: manifest.Sees{Headers: []string{"authorization", "x-long", "host"}}},
		Timeout: time.Second, Config: cty.ObjectVal(map[string]cty.Value{"mode": cty.StringVal(mode)}),
		Range: hcl.Range{Filename: "policies/test.hcl", Start: hcl.Pos{Line: 7, Column: 3}},
	}
}

func load(t testing.TB, h *plugin.Host, p *config.Plugin, stages ...*config.Stage) *plugin.Pool {
	t.Helper()
	pool, err := h.Load(context.Background(), p, stages)
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

func request() *exchange.Exchange {
	return &exchange.Exchange{ID: "n-1-1", Request: exchange.Request{
		Method: "POST", Scheme: "https", Authority: "localhost", Path: "/v1/chat/completions",
		Header: exchange.Header{{Name: "accept", Value: "*/*"}, {Name: "authorization", Value: "Bearer abcdefghijklmnopqrstuvwxyz012345"}, {Name: "content-type", Value: "application/json"}},
	}}
}

func event(stage int) *plugin.Event {
	return &plugin.Event{Kind: abi.EventRequest, Stage: stage, Exchange: request()}
}

func kindOf(t *testing.T, err error) plugin.Kind {
	t.Helper()
	if err == nil {
		return ""
	}
	var f *plugin.Fault
	if !errors.As(err, &f) {
		t.Fatalf("%v is no *plugin.Fault", err)
	}
	if f.Plugin != "p" || f.Phase != exchange.RequestPhase || f.Detail == "" {
		t.Errorf("fault %+v does not say what failed", f)
	}
	return f.Kind
}

// What a module may do wrong while it runs: each is a fault of its kind, nothing of its result is given out, and the next
// event is served.
func TestHostileGuest(t *testing.T) {
	t.Parallel()
	h, log := newHost(t, plugin.Services{})
	for _, c := range []struct {
		mode  string
		fault plugin.Kind
		says  string
	}{
		{"ok", "", ""},
		{"panic", plugin.Trap, "unreachable"},
		{"exit", plugin.Trap, "exit_code(0)"},
		{"grow", plugin.Memory, "67108864"},
		{"recurse", plugin.Trap, "call depth"},
		{"address", plugin.Protocol, "outside the memory"},
		{"length", plugin.Protocol, ""},
		{"cut", plugin.Protocol, "are left"},
		{"rest", plugin.Protocol, "after the last operation"},
		{"many", plugin.Protocol, "4096"},
		{"action", plugin.Protocol, "no action 77"},
		{"await", plugin.Protocol, "await"},
		{"opcode", plugin.Protocol, "no operation 99"},
		{"zero", plugin.Protocol, "not zero"},
		{"again", plugin.Protocol, "does not ask for"},
		{"log", "", ""},
		{"stdout", "", ""},
		{"ops", "", ""},
		{"pointers", "", ""},
		{"files", "", ""},
		{"reenter", "", ""},
	} {
		t.Run(c.mode, func(t *testing.T) {
			t.Parallel()
			p := newPlugin(guest(t, "hostile"))
			pool := load(t, h, p, newStage(exchange.RequestPhase, c.mode), newStage(exchange.RequestPhase, "ok"))
			var res plugin.Result
			for range 2 {
				err := pool.Call(context.Background(), event(0), &res)
				if got := kindOf(t, err); got != c.fault || err != nil && !strings.Contains(err.Error(), c.says) {
					t.Fatalf("%v, want a fault %q with %q", err, c.fault, c.says)
				}
				if c.fault != "" && len(res.Ops) > 0 {
					t.Errorf("a failed event gave out %d operations", len(res.Ops))
				}
			}
			if c.mode == "ops" {
				if v := res.Ops[1].Value; v[0] != byte((5000-abi.MaxOps)&0xff) || v[1] != byte((5000-abi.MaxOps)>>8) {
					t.Errorf("refused % x of 5000 calls, want %d", v, 5000-abi.MaxOps)
				}
			}
			if err := pool.Call(context.Background(), event(1), &res); err != nil {
				t.Fatalf("the next event: %v", err)
			}
			if len(res.Ops) != 1 || string(res.Ops[0].Key) != "x-first" || string(res.Ops[0].Value) != "applied" {
				t.Errorf("the next event gave %+v", res.Ops)
			}
			if err := pool.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Cleanup(func() {
		if n := len(log.String()); n > 256<<10 {
			t.Errorf("the guests wrote %d octets of log", n)
		}
		if !strings.Contains(log.String(), "plugin logs too much") || !strings.Contains(log.String(), "as asked") {
			t.Error("the log says neither that lines were dropped nor why the guest panicked")
		}
	})
}

func TestConfigureRefuses(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, plugin.Services{})
	for mode, says := range map[string]string{
		"refuse": "no such colour", "refuse-panic": "trap", "refuse-action": "action 4", "refuse-silent": "no reason", "refuse-exit": "exit_code(0)",
	} {
		_, err := h.Load(context.Background(), newPlugin(guest(t, "hostile")), []*config.Stage{newStage(exchange.RequestPhase, "ok"), newStage(exchange.Admit, mode)})
		var refused *plugin.ConfigError
		if !errors.As(err, &refused) || refused.Range.Filename != "policies/test.hcl" || refused.Range.Start.Line != 7 || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want the stage's place and %q", mode, err, says)
		}
	}
	if s := h.Status(); len(s) != 0 {
		t.Errorf("refused pools are still there: %+v", s)
	}
}

// What is wrong with a module is said before it serves anything.
func TestModules(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, plugin.Services{})
	imported := whole()
	imported.imports = [][3]any{{"postern", "sql", nothing}}
	unknown := whole()
	unknown.imports = [][3]any{{"env", "abort", nothing}}
	for _, c := range []struct {
		name string
		wasm []byte
		says string
	}{
		{"whole", whole().bytes(), ""},
		{"no wasm", []byte("#!/bin/sh"), "not a WebAssembly module"},
		{"empty", nil, "not a WebAssembly module"},
		{"cut", whole().bytes()[:40], ""},
		{"too large", append(whole().bytes(), make([]byte, plugin.MaxModule)...), "larger than 8388608"},
		{"no abi", (&module{bodies: []body{{"run", nothing, nil}}}).bytes(), "no plugin ABI known here; there are: postern/1"},
		{"other version", whole().without("postern_abi_v1").with("postern_abi_v2", toI64, constant(0)).bytes(), "postern_abi_v2; this gateway speaks postern_abi_v1"},
		{"no on", whole().without("postern_on").bytes(), "does not export the function postern_on"},
		{"no configure", whole().without("postern_configure").bytes(), "does not export the function postern_configure"},
		{"signature", whole().with("postern_on", toI64, constant(0)).bytes(), "signature () -> i64; it must be (i32, i32) -> i64"},
		{"grow signature", whole().with("postern_grow", toI64, constant(0)).bytes(), "postern_grow has the signature"},
		{"no memory", func() []byte { m := whole(); m.noMem = true; return m.bytes() }(), "does not export its memory"},
		{"large memory", func() []byte { m := whole(); m.memory = append([]byte{0}, leb(2000)...); return m.bytes() }(), "limits.memory is 67108864"},
		{"unknown op", imported.bytes(), `the host's module "postern" has no function "sql"`},
		{"unknown import", unknown.bytes(), "env"},
		{"no buffer", whole().with("postern_abi_v1", toI64, constant(0)).bytes(), "no frame buffer"},
		{"buffer outside", whole().with("postern_abi_v1", toI64, constant(0x3ffff<<32|128<<10)).bytes(), "outside the memory"},
		{"small buffer", whole().with("postern_abi_v1", toI64, constant(64<<10<<32|1000)).bytes(), "65536 is the least"},
		{"traps at start", whole().with("_initialize", nothing, []byte{0x00}).bytes(), "unreachable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool, err := h.Load(context.Background(), newPlugin(write(t, c.wasm)), []*config.Stage{newStage(exchange.RequestPhase, "ok")})
			if c.name == "whole" {
				if err != nil {
					t.Fatal(err)
				}
				if err := pool.Close(context.Background()); err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "plugin p") {
				t.Fatalf("%v, want an error with %q", err, c.says)
			}
		})
	}
	p := newPlugin(write(t, whole().bytes()))
	p.SHA256 = strings.Repeat("0", 64)
	if _, err := h.Load(context.Background(), p, nil); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("another module than the configuration names: %v", err)
	}
	p = newPlugin(filepath.Join(t.TempDir(), "missing.wasm"))
	if _, err := h.Load(context.Background(), p, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	p = newPlugin(write(t, whole().bytes()))
	p.Manifest.ABI = 2
	if _, err := h.Load(context.Background(), p, nil); err == nil || !strings.Contains(err.Error(), "abi = 2") {
		t.Errorf("a manifest of another version: %v", err)
	}
}

// A frame that does not fit asks the guest for a larger buffer, once; a guest that can not grow is not given the event.
func TestLongBody(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, plugin.Services{})
	pool := load(t, h, newPlugin(guest(t, "policy")), newStage(exchange.RequestPhase, "echo"))
	defer pool.Close(context.Background())
	var res plugin.Result
	for _, size := range []int{0, 1, 65_000, 66_000, 1 << 20, 100, 4 << 20} {
		ev := event(0)
		ev.HasBody, ev.End, ev.Body = true, true, bytes.Repeat([]byte("b"), size)
		if err := pool.Call(context.Background(), ev, &res); err != nil {
			t.Fatal(size, err)
		}
		if want := "<" + string(ev.Body) + ">"; string(res.Ops[0].Value) != want {
			t.Fatalf("a body of %d octets came back with %d", size, len(res.Ops[0].Value))
		}
	}
	ev := event(0)
	ev.HasBody, ev.Body = true, make([]byte, 17<<20)
	if err := pool.Call(context.Background(), ev, &res); kindOf(t, err) != plugin.Memory {
		t.Errorf("17 MiB: %v", err)
	}

	small := load(t, h, newPlugin(write(t, whole().bytes())), newStage(exchange.RequestPhase, ""))
	defer small.Close(context.Background())
	ev.Body = make([]byte, 200<<10)
	if err := small.Call(context.Background(), ev, &res); kindOf(t, err) != plugin.Memory || !strings.Contains(err.Error(), "can not grow") {
		t.Errorf("a buffer that can not grow: %v", err)
	}
	for name, answer := range map[string]int64{"too small": 64<<10<<32 | 128<<10, "outside": 0x7fffffff<<32 | 1<<20} {
		liar := load(t, h, newPlugin(write(t, whole().with("postern_grow", i32ToI64, constant(answer)).bytes())), newStage(exchange.RequestPhase, ""))
		if err := liar.Call(context.Background(), ev, &res); kindOf(t, err) != plugin.Protocol {
			t.Errorf("a grown buffer that is %s: %v", name, err)
		}
		if err := liar.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func TestCarryAndHeaders(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, plugin.Services{})
	pool := load(t, h, newPlugin(guest(t, "policy")), newStage(exchange.RequestPhase, "echo"), newStage(exchange.RequestPhase, "fail"))
	defer pool.Close(context.Background())
	ev := event(0)
	ev.Carry = []byte("x")
	ev.Exchange.Request.Header.Add("authorization", "Basic b")
	ev.Exchange.Request.Header.Add("cookie", "secret=1")
	var res plugin.Result
	if err := pool.Call(context.Background(), ev, &res); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, op := range res.Ops {
		got = append(got, string(op.Key)+"="+string(op.Value))
	}
	if want := "=x+|x-seen=Bearer abcdefghijklmnopqrstuvwxyz012345|x-seen=Basic b"; strings.Join(got, "|") != want {
		t.Errorf("got %q", got)
	}
	err := pool.Call(context.Background(), event(1), &res)
	if kindOf(t, err) != plugin.Refused || !strings.Contains(err.Error(), "it can not") {
		t.Errorf("an error of the plugin's: %v", err)
	}
	if s := h.Status(); s[0].Instances != 1 {
		t.Errorf("a plugin that says it failed lost its instance: %+v", s)
	}
}

// accounts blocks look-ups until it is let go.
type accounts struct {
	entered chan struct{}
	leave   chan struct{}
	calls   atomic.Int64
}

func (a *accounts) Key(ctx context.Context, key []byte) (exchange.Identity, error) {
	a.calls.Add(1)
	if a.entered != nil {
		a.entered <- struct{}{}
		<-a.leave
	}
	return exchange.Identity{Account: "acct"}, nil
}

// keyEvent is an event of the stage that looks a key up.
func keyEvent() *plugin.Event { return event(0) }

func TestQueue(t *testing.T) {
	t.Parallel()
	a := &accounts{entered: make(chan struct{}), leave: make(chan struct{})}
	h, _ := newHost(t, plugin.Services{Accounts: a})
	p := newPlugin(guest(t, "policy"))
	p.Limits.Instances, p.Limits.Queue = 1, 50*time.Millisecond
	pool := load(t, h, p, newStage(exchange.Authenticate, "key"))
	done := make(chan error, 1)
	go func() { done <- pool.Call(context.Background(), keyEvent(), new(plugin.Result)) }()
	<-a.entered

	var f *plugin.Fault
	if err := pool.Call(context.Background(), keyEvent(), new(plugin.Result)); !errors.As(err, &f) || f.Kind != plugin.Busy {
		t.Errorf("no instance is free: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := pool.Call(ctx, keyEvent(), new(plugin.Result)); !errors.As(err, &f) || f.Kind != plugin.Timeout || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while it waits: %v", err)
	}
	ctx, cancel = context.WithDeadline(context.Background(), time.Now().Add(time.Millisecond))
	if err := pool.Call(ctx, keyEvent(), new(plugin.Result)); !errors.As(err, &f) || f.Kind != plugin.Timeout || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the deadline passes while it waits: %v", err)
	}
	cancel()
	if s := h.Status()[0]; s.Busy != 1 || s.Waiting != 0 || s.Instances != 1 {
		t.Errorf("status %+v", s)
	}

	// Close waits for the event, refuses new ones, and gives up when its context ends.
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := pool.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("closed under a running event: %v", err)
	}
	if err := pool.Call(context.Background(), keyEvent(), new(plugin.Result)); !errors.Is(err, plugin.ErrClosed) {
		t.Errorf("called after Close: %v", err)
	}
	a.leave <- struct{}{}
	if err := <-done; err != nil {
		t.Errorf("the event that was under way: %v", err)
	}
}

// After failing in a row a plugin rests, one event tries it again, and a success ends it.
func TestBreaker(t *testing.T) {
	t.Parallel()
	h, log := newHost(t, plugin.Services{})
	// A small module whose event traps as long as its frame has no body.
	trap := []byte{0x41, 0x80, 0x80, 0x04, 0x28, 2, 44} // i32.load of the body slot's offset entry
	trap = append(trap, 0x45, 0x04, 0x40, 0x00, 0x0b)   // i32.eqz if unreachable end
	trap = append(trap, constant(0)...)
	pool := load(t, h, newPlugin(write(t, whole().with("postern_on", i32i32I64, trap).bytes())), newStage(exchange.RequestPhase, ""))
	defer pool.Close(context.Background())
	var res plugin.Result
	good := event(0)
	good.HasBody, good.Body = true, []byte("x")
	for range 3 { // a success in between begins the count anew
		for range 4 {
			if k := kindOf(t, pool.Call(context.Background(), event(0), &res)); k != plugin.Trap {
				t.Fatalf("fault %q", k)
			}
		}
		if err := pool.Call(context.Background(), good, &res); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		kindOf(t, pool.Call(context.Background(), event(0), &res))
	}
	if k := kindOf(t, pool.Call(context.Background(), good, &res)); k != plugin.Broken {
		t.Fatalf("after five faults in a row: fault %q, want it to rest", k)
	}
	if !h.Status()[0].Broken || !strings.Contains(log.String(), "rests") {
		t.Error("nobody is told that the plugin rests")
	}
	for {
		err := pool.Call(context.Background(), good, &res)
		if err == nil {
			break
		}
		if k := kindOf(t, err); k != plugin.Broken {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	if h.Status()[0].Broken {
		t.Error("it still rests after a success")
	}
}

// A pool of the same module and configuration is carried over a reload; anything else makes another.
func TestReload(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, plugin.Services{})
	p := newPlugin(guest(t, "policy"))
	first := load(t, h, p, newStage(exchange.RequestPhase, "count"))
	var res plugin.Result
	count := func(pool *plugin.Pool) byte {
		t.Helper()
		if err := pool.Call(context.Background(), event(0), &res); err != nil {
			t.Fatal(err)
		}
		return res.Ops[0].Value[0]
	}
	count(first)
	second := load(t, h, p, newStage(exchange.RequestPhase, "count"))
	if s := h.Status(); len(s) != 1 || s[0].Instances != 1 {
		t.Errorf("the same configuration made another pool: %+v", s)
	}
	other := newPlugin(p.Path)
	other.Limits.Memory = 32 << 20
	third := load(t, h, other, newStage(exchange.RequestPhase, "count"))
	fourth := load(t, h, p, newStage(exchange.RequestPhase, "check"))
	if s := h.Status(); len(s) != 3 {
		t.Errorf("%d pools, want 3", len(s))
	}
	if err := first.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if count(second) != 2 || count(third) != 3 {
		t.Error("the plugin's state did not outlive the reload")
	}
	for _, pool := range []*plugin.Pool{first, second, third, fourth} {
		if err := pool.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if err := second.Call(context.Background(), event(0), &res); !errors.Is(err, plugin.ErrClosed) {
		t.Errorf("called after the last Close: %v", err)
	}
	if s := h.Status(); len(s) != 0 {
		t.Errorf("pools are left: %+v", s)
	}
	h.Forget("p")
	again := load(t, h, p, newStage(exchange.RequestPhase, "count"))
	defer again.Close(context.Background())
	if count(again) != 1 {
		t.Error("forgotten state is still there")
	}
}

func TestGrants(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, plugin.Services{Accounts: new(accounts)})
	p := newPlugin(guest(t, "policy"))
	p.Grants = nil
	pool := load(t, h, p, newStage(exchange.RequestPhase, "count"), newStage(exchange.RequestPhase, "key"))
	defer pool.Close(context.Background())
	for stage := range 2 {
		if err := pool.Call(context.Background(), event(stage), new(plugin.Result)); err == nil || !strings.Contains(err.Error(), "not granted") {
			t.Errorf("stage %d: %v", stage, err)
		}
	}
}

// An instance that has grown to near its limit is replaced before it fails.
func TestRecycle(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, plugin.Services{})
	pool := load(t, h, newPlugin(guest(t, "hostile")), newStage(exchange.RequestPhase, "big"))
	defer pool.Close(context.Background())
	before := h.Status()[0]
	for range 3 {
		if err := pool.Call(context.Background(), event(0), new(plugin.Result)); err != nil {
			t.Fatal(err)
		}
	}
	if s := h.Status()[0]; s.Instances != 0 || s.Memory != 0 || before.Memory == 0 || s.Faults != 0 {
		t.Errorf("before %+v, after %+v", before, s)
	}
}

// Many events, some of which fail, while pools are loaded and closed: every good event is served, and in the end nothing is left.
func TestHammer(t *testing.T) {
	h, _ := newHost(t, plugin.Services{Accounts: new(accounts)})
	before := runtime.NumGoroutine()
	p := newPlugin(guest(t, "policy"))
	p.Limits.Queue = time.Minute
	stages := []*config.Stage{newStage(exchange.RequestPhase, "check"), newStage(exchange.RequestPhase, "count"), newStage(exchange.RequestPhase, "fail"), newStage(exchange.RequestPhase, "echo")}
	bad := newPlugin(write(t, whole().with("postern_on", i32i32I64, []byte{0x00}).bytes()))
	var wg sync.WaitGroup
	var served atomic.Int64
	for worker := range 8 {
		wg.Go(func() {
			for round := range 6 {
				pool, err := h.Load(context.Background(), p, stages)
				if err != nil {
					t.Error(err)
					return
				}
				broken, err := h.Load(context.Background(), bad, stages[:1])
				if err != nil {
					t.Error(err)
					return
				}
				var res plugin.Result
				for n := range 30 {
					stage := (worker + round + n) % len(stages)
					err := pool.Call(context.Background(), event(stage), &res)
					if (err != nil) != (stage == 2) {
						t.Errorf("stage %d: %v", stage, err)
					}
					served.Add(1)
					if n%10 == 0 {
						if err := broken.Call(context.Background(), event(0), &res); err == nil {
							t.Error("a guest that traps served an event")
						}
					}
				}
				if err := errors.Join(pool.Close(context.Background()), broken.Close(context.Background())); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if served.Load() != 8*6*30 {
		t.Errorf("served %d", served.Load())
	}
	if s := h.Status(); len(s) != 0 {
		t.Errorf("pools are left: %+v", s)
	}
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

func BenchmarkPolicyCall(b *testing.B) {
	h, _ := newHost(b, plugin.Services{})
	pool := load(b, h, newPlugin(guest(b, "policy")), newStage(exchange.RequestPhase, "check"))
	ev, res := event(0), new(plugin.Result)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if err := pool.Call(ctx, ev, res); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPool is what the pool itself costs: a guest that does nothing.
func BenchmarkPool(b *testing.B) {
	h, _ := newHost(b, plugin.Services{})
	pool := load(b, h, newPlugin(write(b, whole().bytes())), newStage(exchange.RequestPhase, ""))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		ev, res := event(0), new(plugin.Result)
		for pb.Next() {
			if err := pool.Call(context.Background(), ev, res); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkFrameEncode(b *testing.B) {
	stage := newStage(exchange.RequestPhase, "check")
	stage.Hook.Sees.Attributes = []string{"identity.account", "identity.scopes", "model", "usage.max"}
	l, err := abi1.New().NewLayout(stage, 0)
	if err != nil {
		b.Fatal(err)
	}
	ev, buffer := event(0), make([]byte, 0, abi.MinFrame)
	ev.Exchange.Identity = exchange.Identity{Account: "acct_1", Scopes: []string{"chat:write"}}
	ev.Exchange.Call.Model = "small"
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.AppendFrame(buffer, ev, 1); err != nil {
			b.Fatal(err)
		}
	}
}

// Nothing on the host's side allocates in the steady state.
func TestAllocations(t *testing.T) {
	h, _ := newHost(t, plugin.Services{Accounts: new(accounts)})
	pool := load(t, h, newPlugin(guest(t, "policy")), newStage(exchange.Authenticate, "check"), newStage(exchange.Authenticate, "count"), newStage(exchange.Authenticate, "key"))
	defer pool.Close(context.Background())
	for stage, name := range []string{"check", "count", "key"} {
		ev, res := event(stage), new(plugin.Result)
		if n := testing.AllocsPerRun(1000, func() {
			if err := pool.Call(context.Background(), ev, res); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations a call", name, n)
		}
		if res.Brief() != (name == "check") {
			t.Errorf("%s: brief: %v, and what asks the host is not, whatever it computes", name, res.Brief())
		}
	}
}

// A guest that calls itself for ever is stopped long before it runs out of stack.
func TestEndlessRecursion(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, plugin.Services{})
	deeper := []byte{0x20, 0, 0x20, 1, 0x10, 2} // local.get 0, local.get 1, call postern_on
	pool := load(t, h, newPlugin(write(t, whole().with("postern_on", i32i32I64, deeper).bytes())), newStage(exchange.RequestPhase, ""))
	defer pool.Close(context.Background())
	err := pool.Call(context.Background(), event(0), new(plugin.Result))
	if kindOf(t, err) != plugin.Trap || !strings.Contains(err.Error(), "call depth: more than 4096") {
		t.Errorf("%v", err)
	}
}

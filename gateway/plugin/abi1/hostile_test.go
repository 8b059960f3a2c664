package abi1_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/plugin/abi1"
	. "github.com/postern-gateway/postern/gateway/plugin/wasmtest"
	"github.com/postern-gateway/postern/sdk/abi"
)

// policyWith is Policy with one more import, which body may call by the index it gets.
func policyWith(name string, s Signature, body func(m *Module, imported uint32)) *Module {
	m := &Module{Memories: []Limits{{Min: 4, Max: -1}}, Exports: []Export{{Name: abi.ExportMemory, Kind: MemoryKind}}}
	imported := m.Import("wasi_snapshot_preview1", name, s)
	m.Func(abi.ExportABI, Sig().To(I64), I64Const(Frame<<32|Capacity))
	m.Func(abi.ExportConfigure, Sig(I32).To(I64), done)
	m.Func(abi.ExportOn, Sig(I32, I32).To(I64), done, Locals{Count: 2, Type: I32}, Locals{Count: 2, Type: I64})
	body(m, imported)
	return m
}

// TestExitWhileStarting: a module that exits with 0 while it starts is taken for started by the engine, which has closed it
// and given its memory back. Nothing of it may run then.
func TestExitWhileStarting(t *testing.T) {
	t.Parallel()
	touch := I32Const(Scratch) + I64Const(1) + I64Store(0)
	for _, code := range []int32{0, 1} {
		for _, where := range []string{"_initialize", "start"} {
			m := policyWith("proc_exit", Sig(I32), func(m *Module, exit uint32) {
				f := m.Func("_initialize", Sig(), I32Const(code)+Call(exit))
				if where == "start" {
					m.Exported("_initialize").Export = "other"
					m.Start = &f
				}
				m.Exported(abi.ExportABI).Code = touch + m.Exported(abi.ExportABI).Code
			})
			h, _ := newHost(t, plugin.Services{})
			_, err := h.Load(context.Background(), newPlugin(write(t, m.Bytes())), []*config.Stage{newStage(exchange.RequestPhase, "")})
			if err == nil || !strings.Contains(err.Error(), "exit") {
				t.Errorf("%s(%d): %v", where, code, err)
			}
		}
	}
}

// TestPrintingIsCharged: what a guest prints costs it, also where nothing of it is logged.
func TestPrintingIsCharged(t *testing.T) {
	t.Parallel()
	const page = 64 << 10
	m := policyWith("fd_write", Sig(I32, I32, I32, I32).To(I32), func(m *Module, print uint32) {
		m.Memories = []Limits{{Min: 64, Max: 64}}
		m.Exported(abi.ExportOn).Code = I32Const(4*page) + I32Const('\n') + I32Const(60*page) + MemoryFill +
			I32Const(Scratch) + I32Const(4*page) + I32Store(0) + I32Const(Scratch) + I32Const(60*page) + I32Store(4) +
			Loop(Void, I32Const(1)+I32Const(Scratch)+I32Const(1)+I32Const(Scratch+16)+Call(print)+Drop+Br(0)) + Unreachable
	})
	h, _ := newHost(t, plugin.Services{})
	p := newPlugin(write(t, m.Bytes()))
	p.Limits.CPU = 20 * time.Millisecond
	pool := load(t, h, p, newStage(exchange.RequestPhase, ""))
	defer pool.Close(context.Background())
	err := pool.Call(context.Background(), event(0), new(plugin.Result))
	if kindOf(t, err) != plugin.Fuel {
		t.Error(err)
	}
}

// TestExchangesAreNotFilled: what events of a body bring stays bounded, however many there are.
func TestExchangesAreNotFilled(t *testing.T) {
	t.Parallel()
	x := request()
	event := &plugin.Event{Kind: abi.EventResponseBody, Exchange: x}
	set := func(from, to int) error {
		res := new(plugin.Result)
		var ops []byte
		for i := from; i < to; i++ {
			ops = append(ops, op(abi.OpAttribute, "self.a"+strconv.Itoa(i), str(strings.Repeat("x", 1000))...)...)
		}
		err := abi1.Decode(res, abi.ActionContinue, ops)
		if err == nil {
			err = res.Check(event, exchange.ResponsePhase, "p")
		}
		if err == nil {
			res.Apply(x, &x.Response.Header, nil)
		}
		return err
	}
	for range 3 { // the same ones again and again are as good as once
		if err := set(0, 64); err != nil {
			t.Fatal(err)
		}
	}
	if err := set(63, 65); err == nil || !strings.Contains(err.Error(), "p.a64 beside the 64") {
		t.Error(err)
	}
	if err := set(0, 1000); err == nil || !strings.Contains(err.Error(), "come to more than") && !strings.Contains(err.Error(), "beside the 64") {
		t.Error(err)
	}
	x.Attributes = nil
	if err := set(0, 4096); err == nil || !strings.Contains(err.Error(), "come to more than 4194304 octets") || len(x.Attributes) > 0 {
		t.Errorf("%v, and %d attributes", err, len(x.Attributes))
	}
}

// TestNoFiles: what WASI has of files costs the host nothing, however large the guest says that it is.
func TestNoFiles(t *testing.T) {
	t.Parallel()
	i32, i64 := I32, I64
	long := func(n int) Code { return I32Const(0) + I32Const(int32(n)) }
	for name, c := range map[string]struct {
		takes Signature
		call  Code
	}{
		"fd_renumber":         {Sig(i32, i32), I32Const(1) + I32Const(1<<27)},
		"path_unlink_file":    {Sig(i32, i32, i32), I32Const(3) + long(60<<20)},
		"path_open":           {Sig(i32, i32, i32, i32, i32, i64, i64, i32, i32), I32Const(3) + I32Const(0) + long(60<<20) + I32Const(0) + I64Const(0) + I64Const(0) + I32Const(0) + I32Const(0)},
		"path_symlink":        {Sig(i32, i32, i32, i32, i32), long(60<<20) + I32Const(3) + long(60<<20)},
		"path_filestat_get":   {Sig(i32, i32, i32, i32, i32), I32Const(3) + I32Const(0) + long(60<<20) + I32Const(0)},
		"path_rename":         {Sig(i32, i32, i32, i32, i32, i32), I32Const(3) + long(60<<20) + I32Const(3) + long(60<<20)},
		"fd_prestat_get":      {Sig(i32, i32), I32Const(3) + I32Const(0)},
		"fd_readdir":          {Sig(i32, i32, i32, i64, i32), I32Const(1) + long(60<<20) + I64Const(0) + I32Const(0)},
		"environ_sizes_get":   {Sig(i32, i32), I32Const(0) + I32Const(4)},
		"fd_prestat_dir_name": {Sig(i32, i32, i32), I32Const(3) + long(60<<20)},
	} {
		m := policyWith(name, c.takes.To(I32), func(m *Module, f uint32) {
			m.Memories = []Limits{{Min: 1000, Max: 1000}}
			refused := I32Eqz + If(Void, Unreachable)
			if name == "environ_sizes_get" {
				refused = If(Void, Unreachable)
			}
			again := I32Const(100_000) + LocalSet(Int) + Loop(Void, c.call+Call(f)+refused+LocalGet(Int)+I32Const(1)+I32Sub+LocalTee(Int)+BrIf(0))
			m.Exported(abi.ExportOn).Code = again + done
		})
		h, _ := newHost(t, plugin.Services{})
		pool := load(t, h, newPlugin(write(t, m.Bytes())), newStage(exchange.RequestPhase, ""))
		if err := pool.Call(context.Background(), event(0), new(plugin.Result)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := pool.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// TestTightMemoryIsKept: a plugin whose limit is little more than it begins with is not started anew for every event.
func TestTightMemoryIsKept(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, plugin.Services{})
	p := newPlugin(write(t, Policy(done).Bytes()))
	p.Limits.Memory = 4 * 64 << 10 // what it begins with
	pool := load(t, h, p, newStage(exchange.RequestPhase, ""))
	defer pool.Close(context.Background())
	for range 3 {
		if err := pool.Call(context.Background(), event(0), new(plugin.Result)); err != nil {
			t.Fatal(err)
		}
		if s := h.Status()[0]; s.Instances != 1 || s.Memory != p.Limits.Memory {
			t.Fatalf("%d instances with %d octets", s.Instances, s.Memory)
		}
	}
}

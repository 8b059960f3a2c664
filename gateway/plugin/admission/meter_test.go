package admission_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin/admission"
	w "github.com/postern-gateway/postern/gateway/plugin/wasmtest"
)

// counted is a loop that runs a local down from n, with code in it.
func counted(local uint32, n int32, code ...w.Code) w.Code {
	return w.I32Const(n) + w.LocalSet(local) + w.Loop(w.Void, w.Join(code...),
		w.LocalGet(local), w.I32Const(1), w.I32Sub, w.LocalTee(local), w.BrIf(0))
}

// TestFuelCounts holds what code costs to what it does, so that a unit keeps its meaning.
func TestFuelCounts(t *testing.T) {
	t.Parallel()
	local := w.Locals{Count: 2, Type: w.I32}
	bump := w.GlobalGet(0) + w.I32Const(1) + w.I32Add + w.GlobalSet(0)
	rare := w.LocalGet(0) + w.I32Const(1000) + w.I32GtS + w.If(w.Void, w.Repeat(100, bump)) // 4, and 400 in a branch
	cases := []struct {
		name   string
		module func(m *w.Module)
		want   int64
	}{
		{"a short function costs its caller", func(m *w.Module) { m.Func("run", w.Sig(), bump) }, 0},
		{"a long function", func(m *w.Module) { m.Func("run", w.Sig(), w.Repeat(25, bump)) }, 100},
		{"no-ops and blocks are free", func(m *w.Module) {
			m.Func("run", w.Sig(), w.Repeat(25, bump+w.Nop)+w.Block(w.Void, w.Block(w.Void)))
		}, 100},
		{"a loop", func(m *w.Module) { m.Func("run", w.Sig(), counted(0, 1000, bump), local) }, 2 + 1000*9},
		{"a loop in a loop", func(m *w.Module) {
			m.Func("run", w.Sig(), counted(0, 10, counted(1, 100, bump)), local)
		}, 2 + 10*(2+5+100*9)},
		{"a branch that is not taken", func(m *w.Module) { m.Func("run", w.Sig(), counted(0, 1000, rare), local) }, 2 + 1000*9},
		{"a branch that is", func(m *w.Module) { m.Func("run", w.Sig(), counted(0, 2000, rare), local) }, 2 + 2000*9 + 1000*400},
		{"calls of what is short", func(m *w.Module) {
			f := m.Func("", w.Sig(), bump)
			m.Func("run", w.Sig(), counted(0, 1000, w.Call(f)), local)
		}, 2 + 1000*(5+4+4)},
		{"calls of what is not", func(m *w.Module) {
			f := m.Func("", w.Sig(), w.Repeat(25, bump))
			m.Func("run", w.Sig(), counted(0, 1000, w.Call(f)), local)
		}, 2 + 1000*(5+4+100)},
		{"calls of the host", func(m *w.Module) {
			f := m.Import("host", "note", w.Sig())
			m.Func("run", w.Sig(), counted(0, 1000, w.Call(f)), local)
		}, 2 + 1000*(5+512)},
		{"filling memory", func(m *w.Module) {
			m.Memories = []w.Limits{{Min: 1, Max: 1}}
			m.Func("run", w.Sig(), w.I32Const(0)+w.I32Const(1)+w.I32Const(65536)+w.MemoryFill)
		}, 4 + 65536/2},
		{"growing memory", func(m *w.Module) {
			m.Memories = []w.Limits{{Min: 1, Max: 3}}
			m.Func("run", w.Sig(), w.I32Const(2)+w.MemoryGrow+w.Drop)
		}, 2 + 256 + 2*32768},
		{"growing memory too much", func(m *w.Module) {
			m.Memories = []w.Limits{{Min: 1, Max: 3}}
			m.Func("run", w.Sig(), w.I32Const(9)+w.MemoryGrow+w.Drop)
		}, 2 + 256},
		// Code that is reached through a table costs by what is reached, not by what the table offers.
		{"a table of branches", func(m *w.Module) {
			arms := w.LocalGet(0) + w.I32Const(7) + w.I32And + w.BrTable(0, 1, 2, 3)
			for range 4 {
				arms = w.Block(w.Void, arms) + w.Repeat(15, bump) + w.Br(0) // on to the next
			}
			m.Func("run", w.Sig(), counted(0, 1000, w.Block(w.Void, arms)), local)
		}, 2 + 1000*10 + 1750*61},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := new(w.Module)
			m.Globals = []w.Global{{Type: w.I32, Mutable: true, Init: w.I32Const(0)}}
			c.module(m)
			wasm := meter(t, m.Bytes(), admission.Limits{})
			for _, slice := range []int64{1, 1000, 1 << 30} {
				h := newHost(t, wazero.NewRuntimeConfig())
				h.slice = slice
				_, err := h.runtime.NewHostModuleBuilder("host").NewFunctionBuilder().WithFunc(func() {}).Export("note").Instantiate(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				guest := h.start(t, h.compile(t, wasm))
				budget := h.budget
				if _, err := guest.ExportedFunction("run").Call(context.Background()); err != nil {
					t.Fatal(err)
				}
				if got := h.used(guest, budget); got != c.want {
					t.Fatalf("in slices of %d it costs %d units, want %d", slice, got, c.want)
				}
			}
		})
	}
}

// TestRunawaysStop lets code run that never ends by itself, in all the ways there are.
func TestRunawaysStop(t *testing.T) {
	t.Parallel()
	type make = func(m *w.Module) w.Code
	cases := []struct {
		name string
		make make
		want error
	}{
		{"an empty loop", func(*w.Module) w.Code { return w.Loop(w.Void, w.Br(0)) }, errFuel},
		{"a loop by a table", func(*w.Module) w.Code { return w.Loop(w.Void, w.I32Const(0)+w.BrTable(0, 0)) }, errFuel},
		{"a loop with a condition", func(*w.Module) w.Code { return w.Loop(w.Void, w.I32Const(1)+w.BrIf(0)) }, errFuel},
		{"a loop with a parameter", func(m *w.Module) w.Code {
			return w.I32Const(1) + w.Loop(w.BlockType(m.Type(w.Sig(w.I32).To(w.I32))), w.Br(0)) + w.Drop
		}, errFuel},
		{"a loop with a result", func(*w.Module) w.Code { return w.Loop(w.Result(w.I32), w.Br(0)) + w.Drop }, errFuel},
		{"a loop in a loop", func(*w.Module) w.Code {
			return w.Loop(w.Void, w.Loop(w.Void, w.I32Const(0)+w.BrIf(0)), w.Br(0))
		}, errFuel},
		{"out of the inner loop", func(*w.Module) w.Code { return w.Loop(w.Void, w.Loop(w.Void, w.Br(1))) }, errFuel},
		{"loops that branch from many places", func(*w.Module) w.Code {
			return w.Loop(w.Void, w.Repeat(9, w.I32Const(0)+w.BrIf(0)), w.Br(0))
		}, errFuel},
		{"a loop that calls the host", func(m *w.Module) w.Code { return w.Loop(w.Void, w.Call(0), w.Br(0)) }, errFuel},
		{"a loop that calls what is short", func(m *w.Module) w.Code {
			return w.Loop(w.Void, w.Call(m.Func("", w.Sig(), w.Nop)), w.Br(0))
		}, errFuel},
		{"a loop through a table", func(m *w.Module) w.Code {
			m.Tables = []w.Table{{Type: w.FuncRef, Limits: w.Limits{Min: 1, Max: 1}}}
			m.Elements = []w.Element{{Offset: w.I32Const(0), Funcs: []uint32{m.Func("", w.Sig(), "")}}}
			return w.Loop(w.Void, w.I32Const(0), w.CallIndirect(m.Type(w.Sig()), 0), w.Br(0))
		}, errFuel},
		{"filling memory", func(*w.Module) w.Code {
			return w.Loop(w.Void, w.I32Const(0), w.I32Const(0), w.I32Const(65536), w.MemoryFill, w.Br(0))
		}, errFuel},
		{"growing memory", func(*w.Module) w.Code { return w.Loop(w.Void, w.I32Const(1), w.MemoryGrow, w.Drop, w.Br(0)) }, errFuel},
		{"growing a table", func(m *w.Module) w.Code {
			m.Tables = []w.Table{{Type: w.FuncRef, Limits: w.Limits{Min: 1, Max: -1}}}
			return w.Loop(w.Void, w.RefNull(w.FuncRef), w.I32Const(1), w.TableGrow(0), w.Drop, w.Br(0))
		}, errFuel},
		{"recursion without a loop", func(m *w.Module) w.Code { return w.Call(m.Next()) }, errDeep},
		{"two that call each other", func(m *w.Module) w.Code {
			n := m.Next()
			m.Func("", w.Sig(), w.Call(n+1))
			m.Func("", w.Sig(), w.Call(n))
			return w.Call(n)
		}, errDeep},
		// Each level calls twice: 4,096 levels are not deep, but never done.
		{"a tree of calls", func(m *w.Module) w.Code {
			m.Func("", w.Sig(), w.Nop+w.Repeat(20, w.I32Const(1)+w.Drop))
			for range 60 {
				n := m.Next() - 1
				m.Func("", w.Sig(), w.Call(n)+w.Call(n))
			}
			return w.Call(m.Next() - 1)
		}, errFuel},
		// The same, with all there is in blocks that only look like loops.
		{"a tree of calls in loops", func(m *w.Module) w.Code {
			m.Func("", w.Sig(), w.Loop(w.Void, w.Repeat(20, w.I32Const(1)+w.Drop)))
			for range 60 {
				n := m.Next() - 1
				m.Func("", w.Sig(), w.Loop(w.Void, w.Call(n), w.Call(n)))
			}
			return w.Loop(w.Void, w.Call(m.Next()-1))
		}, errFuel},
		{"recursion out of a return", func(m *w.Module) w.Code {
			return w.Block(w.Void, w.I32Const(0), w.BrIf(0), w.Call(m.Next()), w.Return)
		}, errDeep},
	}
	for _, c := range cases {
		for _, start := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, start %v", c.name, start), func(t *testing.T) {
				t.Parallel()
				ctx := context.Background()
				m := &w.Module{Memories: []w.Limits{{Min: 1, Max: 2}}}
				m.Import("host", "note", w.Sig())
				code := c.make(m)
				n := m.Func("run", w.Sig(), code)
				if start {
					m.Start = &n
				}
				wasm := meter(t, m.Bytes(), admission.Limits{})
				h := newHost(t, wazero.NewRuntimeConfig())
				h.budget, h.slice = 3<<20, 1<<20
				_, err := h.runtime.NewHostModuleBuilder("host").NewFunctionBuilder().WithFunc(func() {}).Export("note").Instantiate(ctx)
				if err != nil {
					t.Fatal(err)
				}
				guest, err := h.runtime.InstantiateModule(ctx, h.compile(t, wasm), wazero.NewModuleConfig())
				if err == nil {
					if start {
						t.Fatal("the start section ended")
					}
					_, err = guest.ExportedFunction("run").Call(ctx)
				}
				if !errors.Is(err, c.want) {
					t.Fatalf("ended with %v, want %v", err, c.want)
				}
			})
		}
	}
}

// TestMaximaAreLowered asks the engine how far a module can still grow.
func TestMaximaAreLowered(t *testing.T) {
	t.Parallel()
	grow := w.Sig(w.I32).To(w.I32)
	cases := []struct {
		name          string
		memory, table w.Limits
		pages, more   uint64 // by which memory and table can grow
	}{
		{"less than the limits", w.Limits{Min: 1, Max: 3}, w.Limits{Min: 1, Max: 5}, 2, 4},
		{"more than the limits", w.Limits{Min: 1, Max: 9}, w.Limits{Min: 1, Max: 1 << 20}, 3, 2999},
		{"none declared", w.Limits{Min: 2, Max: -1}, w.Limits{Min: 10, Max: -1}, 2, 1014},
		{"none declared of a large table", w.Limits{Min: 4, Max: -1}, w.Limits{Min: 2000, Max: -1}, 0, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := &w.Module{Memories: []w.Limits{c.memory}, Tables: []w.Table{{Type: w.FuncRef, Limits: c.table}}}
			m.Func("memory", grow, w.LocalGet(0)+w.MemoryGrow)
			m.Func("table", grow, w.RefNull(w.FuncRef)+w.LocalGet(0)+w.TableGrow(0))
			wasm := meter(t, m.Bytes(), admission.Limits{Memory: 4 << 16, Elements: 3000})
			h := newHost(t, wazero.NewRuntimeConfig())
			guest := h.start(t, h.compile(t, wasm))
			for name, most := range map[string]uint64{"memory": c.pages, "table": c.more} {
				call := func(by uint64) bool {
					r, err := guest.ExportedFunction(name).Call(context.Background(), by)
					if err != nil {
						t.Fatal(err)
					}
					return int32(r[0]) != -1
				}
				if call(most + 1) {
					t.Errorf("%s grew by %d, more than it may", name, most+1)
				}
				if !call(most) {
					t.Errorf("%s did not grow by %d, which it may", name, most)
				}
				if call(1) {
					t.Errorf("%s grew beyond its most", name)
				}
			}
		})
	}
}

// TestFunctionsKeepTheirNames looks at the names in an error: functions have other numbers when metered.
func TestFunctionsKeepTheirNames(t *testing.T) {
	t.Parallel()
	m := new(w.Module)
	m.Import("host", "note", w.Sig())
	inner := m.Func("", w.Sig(), w.Unreachable)
	m.Func("run", w.Sig(), w.Call(inner))
	m.Functions[0].Name, m.Functions[1].Name = "inside", "outside"
	h := newHost(t, wazero.NewRuntimeConfig())
	if _, err := h.runtime.NewHostModuleBuilder("host").NewFunctionBuilder().WithFunc(func() {}).Export("note").Instantiate(context.Background()); err != nil {
		t.Fatal(err)
	}
	guest := h.start(t, h.compile(t, meter(t, m.Bytes(), admission.Limits{})))
	_, err := guest.ExportedFunction("run").Call(context.Background())
	if err == nil || !strings.Contains(err.Error(), ".inside()") || !strings.Contains(err.Error(), ".outside()") {
		t.Fatalf("the error is %v", err)
	}
	// Names nobody can read are no names.
	for _, names := range []string{"\x01\x05\x01", "\x01\x04\x02\x01\x01a", "\x01\x04\x01\x09\x01a", "\x00\x02\x05a", "\x02\x00\x01\x01\x00"} {
		m := &w.Module{Customs: []w.Section{w.Custom("name", []byte(names))}}
		m.Func("run", w.Sig(), "")
		metered := meter(t, m.Bytes(), admission.Limits{})
		newHost(t, wazero.NewRuntimeConfig()).compile(t, metered)
		if _, err := admission.Read(metered, admission.Limits{}); err == nil {
			t.Fatal("a metered module was read again")
		}
	}
}

// TestWhatIsAddedCanNotBeNamed writes to the local and the globals that metering adds: they must not be there to be named.
func TestWhatIsAddedCanNotBeNamed(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]w.Code{
		"the fuel":     w.I64Const(1<<40) + w.GlobalSet(0),
		"a local":      w.Loop(w.Void, w.I64Const(1<<40)+w.LocalSet(0), w.Br(0)),
		"the yield":    w.I64Const(0) + w.Call(1) + w.Drop,
		"a type added": w.Block(w.BlockType(1)),
	} {
		if _, err := admission.Read(function(code), admission.Limits{}); err == nil {
			t.Errorf("%s can be named", name)
		}
	}
}

// TestGrowthIsBounded meters the module that grows most for its size.
func TestGrowthIsBounded(t *testing.T) {
	t.Parallel()
	m, err := admission.Read(function(w.Repeat(20_000, w.Loop(w.Void, w.Br(0)))), admission.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	const want = "module at octet 0: metered it has "
	if _, err = m.Meter(); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Fatalf("refused with %v, want %s...", err, want)
	}
}

// TestReadingIsCheap holds reading and metering to memory in proportion to the module.
func TestReadingIsCheap(t *testing.T) { // not parallel: it measures memory
	padding := w.Repeat(60_000, w.Nop)
	hostile := map[string][]byte{
		"blocks":    function(w.Repeat(4000, "\x02\x40") + w.Repeat(4000, w.End)),
		"ifs":       function(w.Repeat(20_000, w.I32Const(0)+w.If(w.Void, w.Nop))),
		"loops":     function(w.Repeat(10_000, w.Loop(w.Void, padding[:8]))),
		"a table":   function(w.Block(w.Void, w.I32Const(0)+w.BrTable(make([]uint32, 16000)...))),
		"sets":      function(w.Repeat(4000, "\x02\x40")+w.Repeat(20_000, w.I32Const(0)+w.LocalSet(0))+w.Repeat(4000, w.End), w.Locals{Count: 1, Type: w.I32}),
		"locals":    function(w.Repeat(30_000, w.LocalGet(4000)+w.Drop), w.Locals{Count: 4001, Type: w.I32}),
		"types":     section(1, string(w.U32(4096))+strings.Repeat("\x60\x00\x00", 4096)),
		"functions": manyFunctions(30_000),
		"truncated": append([]byte("\x00asm\x01\x00\x00\x00\x0a"), bytes.Repeat([]byte{0xff}, 1<<16)...),
		"names":     w.Encode(w.Custom("name", append([]byte("\x01\xff\xff\x03\xff\xff\x03"), make([]byte, 65533)...))),
		"line":      w.Encode(w.Section{ID: 10, Content: []byte{0}}, w.Custom(".debug_line", bytes.Repeat([]byte("\xff\xff\x00\x00\x05\x00\x04\x00"), 9000))),
	}
	for name, wasm := range hostile {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if m, err := admission.Read(wasm, admission.Limits{}); err == nil {
			_, _ = m.Meter()
		}
		runtime.ReadMemStats(&after)
		took := after.TotalAlloc - before.TotalAlloc
		if most := uint64(64*len(wasm) + 16<<20); took > most {
			t.Errorf("%s: %d octets of module took %d of memory", name, len(wasm), took)
		}
	}
}

func manyFunctions(n int) []byte {
	m := new(w.Module)
	m.Functions = make([]w.Function, n)
	m.Types = []w.Signature{w.Sig()}
	return m.Bytes()
}

// TestMeteringIsDeterministic meters twice.
func TestMeteringIsDeterministic(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		wasm := generate(seed).Bytes()
		if !bytes.Equal(meter(t, wasm, admission.Limits{}), meter(t, wasm, admission.Limits{})) {
			t.Fatalf("seed %d is metered in two ways", seed)
		}
	}
}

// FuzzRead reads hostile octets. What is accepted is metered, and what the engine accepts as it is it accepts metered.
func FuzzRead(f *testing.F) {
	for seed := range uint64(6) {
		f.Add(generate(seed).Bytes())
	}
	f.Add(function(w.Loop(w.Void, w.Br(0))))
	f.Add(function("\xfd\x0c0123456789abcdef" + w.Drop))
	f.Add(w.Encode(w.Custom("name", []byte("\x01\x04\x01\x00\x01a"))))
	f.Fuzz(func(t *testing.T, wasm []byte) {
		m, err := admission.Read(wasm, admission.Limits{Functions: 200, Body: 4096})
		if err != nil {
			var refusal *admission.Refusal
			if !errors.As(err, &refusal) || refusal.Reason == "" || refusal.Offset > len(wasm) {
				t.Fatalf("refused with %#v", err)
			}
			return
		}
		out, err := m.Meter()
		if err != nil || len(wasm) > 4096 {
			return
		}
		ctx := context.Background()
		r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(1024))
		defer func() { _ = r.Close(ctx) }()
		_, refused := r.CompileModule(ctx, out)
		if refused == nil {
			return
		}
		// The engine takes a count of names at its word, and all memory for them.
		if wasm, err = manifest.Replace(wasm, "name", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := r.CompileModule(ctx, wasm); err == nil {
			t.Fatalf("the engine accepts the module, and refuses it metered: %v", refused)
		}
	})
}

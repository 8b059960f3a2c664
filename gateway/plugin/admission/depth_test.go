package admission_test

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/postern-gateway/postern/gateway/plugin/admission"
	"github.com/postern-gateway/postern/gateway/plugin/wasmtest"
)

// shape is a module whose function "run" calls itself without end, with much on its stack.
type shape struct {
	name string
	make func() *wasmtest.Module
}

func shapes() []shape {
	void := wasmtest.Sig()
	recursion := func(s wasmtest.Signature, code func(self uint32) wasmtest.Code, locals ...wasmtest.Locals) func() *wasmtest.Module {
		return func() *wasmtest.Module {
			m := &wasmtest.Module{Memories: []wasmtest.Limits{{Min: 1, Max: 1}}}
			m.Func("run", s, code(m.Next()), locals...)
			return m
		}
	}
	values := func(n int, each func(i uint32) wasmtest.Code) wasmtest.Code {
		var code wasmtest.Code
		for i := range n {
			code += each(uint32(i))
		}
		return code
	}
	load := func(i uint32) wasmtest.Code { return wasmtest.I32Const(0) + wasmtest.I64Load(8*(i%8000)) }
	store := wasmtest.LocalSet
	many := func(n int, t wasmtest.Type) wasmtest.Signature {
		s := void
		for range n {
			s.Params = append(s.Params, t)
		}
		return s
	}
	return []shape{
		{"nothing", recursion(void, func(self uint32) wasmtest.Code { return wasmtest.Call(self) })},
		{"parameters", recursion(many(250, wasmtest.I64), func(self uint32) wasmtest.Code {
			return values(250, wasmtest.LocalGet) + wasmtest.Call(self) +
				values(250, func(i uint32) wasmtest.Code {
					return wasmtest.I32Const(0) + wasmtest.LocalGet(i) + wasmtest.I64Store(0)
				})
		})},
		{"vectors", recursion(many(120, wasmtest.V128), func(self uint32) wasmtest.Code {
			return values(120, wasmtest.LocalGet) + wasmtest.Call(self) +
				values(120, func(i uint32) wasmtest.Code {
					return wasmtest.I32Const(0) + wasmtest.LocalGet(i) + "\xfd\x0b\x04\x00" // v128.store
				})
		})},
		{"operands", recursion(void, func(self uint32) wasmtest.Code {
			return wasmtest.I32Const(0) + values(8000, load) + wasmtest.Call(self) +
				values(7999, func(uint32) wasmtest.Code { return wasmtest.I64Add }) + wasmtest.I64Store(0)
		})},
		{"locals", recursion(void, func(self uint32) wasmtest.Code {
			return values(4000, func(i uint32) wasmtest.Code { return load(i) + store(i) }) + wasmtest.Call(self) +
				wasmtest.I32Const(0) + values(4000, wasmtest.LocalGet) +
				values(3999, func(uint32) wasmtest.Code { return wasmtest.I64Add }) + wasmtest.I64Store(0)
		}, wasmtest.Locals{Count: 4000, Type: wasmtest.I64})},
		// One local, whose every value lives across a call of its own.
		{"versions", recursion(void, func(self uint32) wasmtest.Code {
			return values(2000, func(i uint32) wasmtest.Code {
				return load(i) + store(0) + wasmtest.Call(self) + wasmtest.LocalGet(0) + wasmtest.LocalGet(1) + wasmtest.I64Add + store(1)
			}) + wasmtest.I32Const(0) + wasmtest.LocalGet(1) + wasmtest.I64Store(0)
		}, wasmtest.Locals{Count: 2, Type: wasmtest.I64})},
		{"results", func() *wasmtest.Module {
			m := &wasmtest.Module{Memories: []wasmtest.Limits{{Min: 1, Max: 1}}}
			s := void
			for range 250 {
				s.Results = append(s.Results, wasmtest.I64)
			}
			m.Func("run", s, wasmtest.Call(0))
			return m
		}},
		// Locals that differ after every branch: each gets a place where the ways meet.
		{"joins", recursion(many(1, wasmtest.I32), func(self uint32) wasmtest.Code {
			return values(150, func(n uint32) wasmtest.Code {
				return wasmtest.LocalGet(0) + wasmtest.If(wasmtest.Void, values(40, func(i uint32) wasmtest.Code {
					return load(i+n) + store(1+i)
				})) + wasmtest.LocalGet(0) + wasmtest.Call(self)
			}) + wasmtest.I32Const(0) + values(40, func(i uint32) wasmtest.Code { return wasmtest.LocalGet(1 + i) }) +
				values(39, func(uint32) wasmtest.Code { return wasmtest.I64Add }) + wasmtest.I64Store(0)
		}, wasmtest.Locals{Count: 40, Type: wasmtest.I64})},
		{"nested joins", recursion(many(1, wasmtest.I32), func(self uint32) wasmtest.Code {
			code := values(40, func(i uint32) wasmtest.Code { return load(i) + store(1+i) })
			for range 300 {
				code = wasmtest.Block(wasmtest.Void, wasmtest.LocalGet(0), wasmtest.BrIf(0), code) + wasmtest.LocalGet(0) + wasmtest.Call(self)
			}
			return code + wasmtest.I32Const(0) + values(40, func(i uint32) wasmtest.Code { return wasmtest.LocalGet(1 + i) }) +
				values(39, func(uint32) wasmtest.Code { return wasmtest.I64Add }) + wasmtest.I64Store(0)
		}, wasmtest.Locals{Count: 40, Type: wasmtest.I64})},
		{"through a table", func() *wasmtest.Module {
			m := new(wasmtest.Module)
			m.Tables = []wasmtest.Table{{Type: wasmtest.FuncRef, Limits: wasmtest.Limits{Min: 1, Max: 1}}}
			m.Elements = []wasmtest.Element{{Offset: wasmtest.I32Const(0), Funcs: []uint32{0}}}
			m.Func("run", void, wasmtest.I32Const(0)+wasmtest.CallIndirect(0, 0))
			return m
		}},
	}
}

// TestDepthBoundsTheStack lets functions of all shapes call themselves without end: the counter has to stop them before the
// engine's stack has become large.
func TestDepthBoundsTheStack(t *testing.T) { // not parallel: it measures memory
	for _, s := range shapes() {
		t.Run(s.name, func(t *testing.T) {
			wasm := meter(t, s.make().Bytes(), admission.Limits{})
			h := newHost(t, wazero.NewRuntimeConfigCompiler())
			var before, deepest runtime.MemStats
			h.deep = func(m api.Module) {
				runtime.GC()
				runtime.ReadMemStats(&deepest)
			}
			m := h.start(t, h.compile(t, wasm))
			f := m.ExportedFunction("run")
			stack := make([]uint64, 300)
			runtime.GC()
			runtime.ReadMemStats(&before)
			err := f.CallWithStack(context.Background(), stack)
			if !errors.Is(err, errDeep) {
				t.Fatalf("ended with %v", err)
			}
			grown := int64(deepest.HeapAlloc) - int64(before.HeapAlloc)
			t.Logf("%d KiB of stack", grown>>10)
			// While it grew, there was the one before as well, of half the size: 24 MiB in all.
			if grown > 16<<20 {
				t.Fatalf("the stack has become %d KiB large", grown>>10)
			}
		})
	}
}

package admission_test

import (
	"context"
	"errors"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/postern-gateway/postern/gateway/plugin/admission"
)

var (
	errFuel = errors.New("out of fuel")
	errDeep = errors.New("too deep")
)

// host runs modules as a gateway does: the budget is its own, the module gets slices of it.
type host struct {
	runtime wazero.Runtime
	budget  int64 // what was not handed out yet
	slice   int64
	visits  int
	visit   func(api.Module) // called by yield
	deep    func(api.Module) // called when the depth is used up
}

func newHost(t testing.TB, config wazero.RuntimeConfig) *host {
	t.Helper()
	ctx := context.Background()
	h := &host{runtime: wazero.NewRuntimeWithConfig(ctx, config), budget: 1 << 40, slice: 1 << 20}
	t.Cleanup(func() { _ = h.runtime.Close(ctx) })
	meter := h.runtime.NewHostModuleBuilder(admission.MeterModule)
	meter.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, m api.Module, stack []uint64) {
		h.visits++
		if h.visit != nil {
			h.visit(m)
		}
		left := int64(stack[0])
		if left >= 0 {
			panic("a visit with fuel left")
		}
		stack[0] = uint64(h.hand(left))
	}), []api.ValueType{api.ValueTypeI64}, []api.ValueType{api.ValueTypeI64}).Export(admission.Yield)
	meter.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, m api.Module, _ []uint64) {
		if h.deep != nil {
			h.deep(m)
		}
		panic(errDeep)
	}), nil, nil).Export(admission.Deep)
	if _, err := meter.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, h.runtime); err != nil {
		t.Fatal(err)
	}
	return h
}

// hand gives out the next slice, less what is owed.
func (h *host) hand(left int64) int64 {
	for left < 0 {
		part := min(h.slice, h.budget)
		if part == 0 {
			panic(errFuel)
		}
		h.budget -= part
		left += part
	}
	return left
}

// compile compiles a module as it is.
func (h *host) compile(t testing.TB, wasm []byte) wazero.CompiledModule {
	t.Helper()
	code, err := h.runtime.CompileModule(context.Background(), wasm)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	return code
}

func (h *host) start(t testing.TB, code wazero.CompiledModule) api.Module {
	t.Helper()
	m, err := h.runtime.InstantiateModule(context.Background(), code, wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize"))
	if err != nil {
		t.Fatalf("instantiate: %v", err)
	}
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	return m
}

// used says how much fuel was used since the budget was as given.
func (h *host) used(m api.Module, budget int64) int64 {
	return budget - h.budget - int64(m.ExportedGlobal(admission.FuelGlobal).Get())
}

// meter reads and rewrites.
func meter(t testing.TB, wasm []byte, l admission.Limits) []byte {
	t.Helper()
	m, err := admission.Read(wasm, l)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	out, err := m.Meter()
	if err != nil {
		t.Fatalf("meter: %v", err)
	}
	return out
}

package admission_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/postern-gateway/postern/gateway/plugin/admission"
)

// outcome is all that can be seen of a run.
type outcome struct {
	result, trap string
	memory       string
	notes        string
}

// run instantiates a generated module and calls its function, and says what came of it and what fuel it took.
func run(t *testing.T, wasm []byte, slice int64) (o outcome, fuel int64) {
	t.Helper()
	ctx := context.Background()
	h := newHost(t, wazero.NewRuntimeConfigCompiler())
	h.slice = slice
	budget := h.budget
	var notes []uint32
	_, err := h.runtime.NewHostModuleBuilder("host").NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, _ api.Module, stack []uint64) {
			notes = append(notes, uint32(stack[0]))
			stack[0] = uint64(uint32(stack[0])*31 + 1)
		}), []api.ValueType{api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}).Export("note").Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	code, err := h.runtime.CompileModule(ctx, wasm)
	if err != nil {
		t.Fatalf("the engine refuses: %v", err)
	}
	m, err := h.runtime.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		o.trap = trap(err)
		return o, 0
	}
	for i := range 3 {
		results, err := m.ExportedFunction("run").Call(ctx, uint64(i))
		o.result += fmt.Sprint(results)
		o.trap += trap(err)
		if err != nil {
			break
		}
	}
	sum := fnv.New64a()
	content, _ := m.Memory().Read(0, m.Memory().Size())
	_, _ = sum.Write(content)
	o.memory = fmt.Sprint(len(content), sum.Sum64())
	o.notes = fmt.Sprint(notes)
	if g := m.ExportedGlobal(admission.FuelGlobal); g != nil {
		fuel = h.used(m, budget)
	}
	return o, fuel
}

// trap is the engine's name of a trap, without the stack.
func trap(err error) string {
	if err == nil {
		return ""
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	_, text, _ = strings.Cut(text, "wasm error: ") // functions have other numbers
	return text
}

// compare runs a module as it is and rewritten.
func compare(t *testing.T, wasm []byte) {
	t.Helper()
	metered := meter(t, wasm, admission.Limits{})
	want, _ := run(t, wasm, 1<<30)
	got, fuel := run(t, metered, 1<<30)
	if got != want {
		t.Fatalf("metered it does something else\n got: %+v\nwant: %+v", got, want)
	}
	got, stepped := run(t, metered, 50)
	if got != want {
		t.Fatalf("metered, with slices of 50 units, it does something else\n got: %+v\nwant: %+v", got, want)
	}
	if want.trap == "" && fuel != stepped {
		t.Fatalf("it takes %d units in one slice and %d in many", fuel, stepped)
	}
	if want.trap == "" && fuel < 0 {
		t.Fatalf("it takes %d units", fuel)
	}
}

func TestGeneratedModules(t *testing.T) {
	t.Parallel()
	trapped, ran := 0, 0
	for seed := range uint64(150) {
		wasm := generate(seed).Bytes()
		if o, _ := run(t, wasm, 1); o.trap == "" {
			ran++
		} else {
			trapped++
		}
		compare(t, wasm)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d ran, %d trapped", ran, trapped)
	if ran < 30 || trapped < 10 {
		t.Fatalf("the generator is broken: %d ran, %d trapped", ran, trapped)
	}
}

func FuzzMeter(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed << 8)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { compare(t, generate(seed).Bytes()) })
}

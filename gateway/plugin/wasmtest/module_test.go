package wasmtest_test

import (
	"context"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/postern-gateway/postern/gateway/plugin/wasmtest"
	"github.com/postern-gateway/postern/sdk/abi"
)

type hosted struct{ calls []string }

// instance runs a module, with the two host functions of the policy ABI beside it.
func instance(t *testing.T, m *wasmtest.Module) (api.Module, *hosted) {
	t.Helper()
	ctx := t.Context()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	h := new(hosted)
	_, err := r.NewHostModuleBuilder("postern").
		NewFunctionBuilder().WithFunc(func(_ context.Context, m api.Module, _, at, n uint32) {
		line, _ := m.Memory().Read(at, n)
		h.calls = append(h.calls, string(line))
	}).Export("log").
		NewFunctionBuilder().WithFunc(func(_ context.Context, code, _, _, _, _ uint32) uint64 {
		h.calls = append(h.calls, "op")
		return uint64(code) * 10
	}).Export("op").Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	made, err := r.Instantiate(ctx, m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return made, h
}

func call(t *testing.T, m api.Module, name string, args ...uint64) uint64 {
	t.Helper()
	out, err := m.ExportedFunction(name).Call(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 {
		return 0
	}
	return out[0]
}

// Every kind of section is written so that the engine reads from it what was meant.
func TestSections(t *testing.T) {
	t.Parallel()
	i32 := wasmtest.I32
	m := &wasmtest.Module{
		Tables:   []wasmtest.Table{{Type: wasmtest.FuncRef, Limits: wasmtest.Limits{Min: 16, Max: 32}}},
		Memories: []wasmtest.Limits{{Min: 1, Max: 2}}, DataCount: true,
		Exports: []wasmtest.Export{{Name: "memory", Kind: wasmtest.MemoryKind}},
		Customs: []wasmtest.Section{wasmtest.Custom("author", []byte("nobody"))},
	}
	g := m.Global(wasmtest.I64, wasmtest.I64Const(-5_000_000_000))
	one := m.Func("", wasmtest.Sig().To(i32), wasmtest.I32Const(1))
	two := m.Func("", wasmtest.Sig().To(i32), wasmtest.I32Const(2))
	m.Functions[one].Name, m.Functions[two].Name = "one", "two"
	ref := func(n ...uint32) (list []wasmtest.Code) {
		for _, f := range n {
			list = append(list, wasmtest.RefFunc(f))
		}
		return list
	}
	m.Elements = []wasmtest.Element{
		{Kind: 0, Offset: wasmtest.I32Const(0), Funcs: []uint32{one, two}},
		{Kind: 1, Funcs: []uint32{one}},
		{Kind: 2, Table: 0, Offset: wasmtest.I32Const(2), Funcs: []uint32{two}},
		{Kind: 3, Funcs: []uint32{two}},
		{Kind: 4, Offset: wasmtest.I32Const(3), Items: ref(one)},
		{Kind: 5, Type: wasmtest.FuncRef, Items: ref(two, one)},
		{Kind: 6, Table: 0, Type: wasmtest.FuncRef, Offset: wasmtest.I32Const(4), Items: append(ref(two), wasmtest.RefNull(wasmtest.FuncRef))},
		{Kind: 7, Type: wasmtest.FuncRef, Items: ref(one)},
	}
	m.Put(8, []byte("active"))
	m.Data = append(m.Data, wasmtest.Data{Passive: true, Content: []byte("passive")})
	start := m.Func("", wasmtest.Sig(), wasmtest.I32Const(40)+wasmtest.I32Const(0)+wasmtest.I32Const(7)+wasmtest.MemoryInit(1)+
		wasmtest.I32Const(8)+wasmtest.I32Const(0)+wasmtest.I32Const(2)+wasmtest.TableInit(5, 0))
	m.Start = &start
	m.Func("pick", wasmtest.Sig(i32).To(i32), wasmtest.LocalGet(0)+wasmtest.CallIndirect(m.Type(wasmtest.Sig().To(i32)), 0))
	m.Func("global", wasmtest.Sig().To(wasmtest.I64), wasmtest.GlobalGet(g))
	// sum adds the whole numbers below its argument.
	m.Func("sum", wasmtest.Sig(i32).To(i32), wasmtest.Block(wasmtest.Void, wasmtest.Loop(wasmtest.Void,
		wasmtest.LocalGet(0)+wasmtest.I32Eqz+wasmtest.BrIf(1),
		wasmtest.LocalGet(0)+wasmtest.I32Const(-1)+wasmtest.I32Add+wasmtest.LocalTee(0),
		wasmtest.LocalGet(1)+wasmtest.I32Add+wasmtest.LocalSet(1)+wasmtest.Br(0),
	))+wasmtest.LocalGet(1), wasmtest.Locals{Count: 1, Type: i32})
	m.Func("table", wasmtest.Sig(i32).To(i32), wasmtest.Block(wasmtest.Void, wasmtest.Block(wasmtest.Void,
		wasmtest.LocalGet(0)+wasmtest.BrTable(0, 1, 0))+wasmtest.I32Const(100)+wasmtest.Return)+wasmtest.I32Const(200))
	m.Func("choose", wasmtest.Sig(i32).To(i32), wasmtest.LocalGet(0)+wasmtest.If(wasmtest.Result(i32), wasmtest.I32Const(-64)+wasmtest.Else+wasmtest.I32Const(64)))
	m.Func("half", wasmtest.Sig().To(wasmtest.F64), wasmtest.F64Const(0.5))
	made, _ := instance(t, m)
	for i, want := range []uint64{1, 2, 2, 1, 2} {
		if got := call(t, made, "pick", uint64(i)); got != want {
			t.Errorf("entry %d of the table gives %d, want %d", i, got, want)
		}
	}
	if a, b := call(t, made, "pick", 8), call(t, made, "pick", 9); a != 2 || b != 1 {
		t.Errorf("what table.init put there gives %d, %d", a, b)
	}
	if got := int64(call(t, made, "global")); got != -5_000_000_000 {
		t.Errorf("global %d", got)
	}
	if got := call(t, made, "sum", 101); got != 5050 {
		t.Errorf("sum %d", got)
	}
	for arg, want := range []uint64{100, 200, 100, 100} {
		if got := call(t, made, "table", uint64(arg)); got != want {
			t.Errorf("table(%d) = %d, want %d", arg, got, want)
		}
	}
	if a, b := int32(call(t, made, "choose", 1)), int32(call(t, made, "choose", 0)); a != -64 || b != 64 {
		t.Errorf("choose %d, %d", a, b)
	}
	if got := api.DecodeF64(call(t, made, "half")); got != 0.5 {
		t.Errorf("half %v", got)
	}
	for at, want := range map[uint32]string{8: "active", 40: "passive"} {
		if got, _ := made.Memory().Read(at, uint32(len(want))); string(got) != want {
			t.Errorf("memory at %d: %q, want %q", at, got, want)
		}
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	m := wasmtest.Policy(
		wasmtest.I32Const(abi.LogInfo) + wasmtest.I32Const(wasmtest.Scratch) + wasmtest.I32Const(2) + wasmtest.Call(wasmtest.Log) +
			wasmtest.Ask(abi.CodeTime, 0, 0, wasmtest.Scratch, 8) + wasmtest.LocalSet(wasmtest.Long+1) +
			wasmtest.LocalGet(1) + wasmtest.LocalSet(wasmtest.Int+1) + wasmtest.Answer(abi.ActionDone, wasmtest.Scratch, 3))
	m.Put(wasmtest.Scratch, []byte("hi!"))
	made, h := instance(t, m)
	if got := call(t, made, abi.ExportABI); got != 0x00010000_00020000 {
		t.Errorf("the frame buffer is %#x", got)
	}
	if got := call(t, made, abi.ExportConfigure, 0); got != 0 {
		t.Errorf("configured with %#x", got)
	}
	if got := call(t, made, abi.ExportOn, 1, 0); got != abi.Result(abi.ActionDone, wasmtest.Scratch, 3) {
		t.Errorf("the result is %#x", got)
	}
	if !slices.Equal(h.calls, []string{"hi", "op"}) {
		t.Errorf("asked the host for %q", h.calls)
	}
	m.Exported(abi.ExportOn).Code = wasmtest.Unreachable
	if made, _ = instance(t, m); made == nil {
		t.Error("not changed")
	} else if _, err := made.ExportedFunction(abi.ExportOn).Call(t.Context(), 1, 0); err == nil {
		t.Error("the changed body does not trap")
	}
}

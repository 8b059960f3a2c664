package abi1_test

import (
	"context"
	"os"
	"testing"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/plugin/wasmtest"
	"github.com/postern-gateway/postern/sdk/abi"
)

// A module that was cut off, after whichever octet, is refused; so is a module without one of its sections.
func TestTruncatedModule(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, plugin.Services{})
	m := wasmtest.Policy(wasmtest.Answer(abi.ActionContinue, 0, 0))
	m.Put(wasmtest.Scratch, []byte("hello"))
	m.DataCount = true
	m.Tables = []wasmtest.Table{{Type: wasmtest.FuncRef, Limits: wasmtest.Limits{Min: 1, Max: 1}}}
	m.Elements = []wasmtest.Element{{Offset: wasmtest.I32Const(0), Funcs: []uint32{2}}}
	m.Global(wasmtest.I64, wasmtest.I64Const(1))
	whole := m.Bytes()
	path := write(t, whole)
	try := func(wasm []byte) error {
		if err := os.WriteFile(path, wasm, 0o600); err != nil {
			t.Fatal(err)
		}
		pool, err := h.Load(context.Background(), newPlugin(path), []*config.Stage{newStage(exchange.RequestPhase, "")})
		if err == nil {
			err = pool.Close(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			return nil
		}
		return err
	}
	if err := try(whole); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if try(whole[:n]) == nil {
			t.Errorf("the first %d of %d octets were taken for a module", n, len(whole))
		}
	}
	for i, s := range m.Sections() {
		list := m.Sections()
		if try(wasmtest.Encode(append(list[:i:i], list[i+1:]...)...)) == nil && s.ID != 4 && s.ID != 6 && s.ID != 9 && s.ID != 12 {
			t.Errorf("the module was taken without its section %d", s.ID)
		}
	}
}

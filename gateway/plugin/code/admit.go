package code

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/postern-gateway/postern/gateway/plugin/admission"
)

// maxMemory is what the memory of a module may be at most, in octets: the most that limits.memory can say. The plugin's own
// limit holds for each instance.
const maxMemory = 1 << 30

// MaxModule is the largest module taken, in octets.
const MaxModule = 8 << 20

// Read gets a module's octets, bounded, and its digest, which must be want where that is not empty.
func Read(path, want string) (wasm []byte, digest string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	var b bytes.Buffer
	if info, err := f.Stat(); err == nil {
		b.Grow(int(min(info.Size(), MaxModule)) + bytes.MinRead) // else it is made anew several times: every reload reads modules
	}
	if _, err = b.ReadFrom(io.LimitReader(f, MaxModule+1)); err != nil {
		return nil, "", fmt.Errorf("read %s: %w", path, err)
	}
	wasm = b.Bytes()
	if len(wasm) > MaxModule {
		return nil, "", fmt.Errorf("%s: the module is larger than %d octets", path, MaxModule)
	}
	digest = Digest(wasm)
	if want != "" && !strings.EqualFold(want, digest) {
		return nil, "", fmt.Errorf("%s has the digest %s, not %s", path, digest, want)
	}
	return wasm, digest, nil
}

// admit checks a module and meters it.
func (c *Compiler) admit(wasm []byte) (*admission.Module, []byte, error) {
	m, err := admission.Read(wasm, admission.Limits{Memory: maxMemory})
	if err != nil {
		return nil, nil, err
	}
	if err := m.Allow(append(definitions(c.runtime.Module(wasi_snapshot_preview1.ModuleName)), c.config.Imports...)); err != nil {
		return nil, nil, err
	}
	if c.config.Raw {
		return m, wasm, nil
	}
	metered, err := m.Meter()
	if err != nil {
		return nil, nil, err
	}
	return m, metered, nil
}

// WASI lists what ordinary toolchains import, which every module may.
func WASI(ctx context.Context) ([]admission.Import, error) {
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
		return nil, errors.Join(fmt.Errorf("list WASI: %w", err), r.Close(ctx))
	}
	list := definitions(r.Module(wasi_snapshot_preview1.ModuleName))
	return list, r.Close(ctx)
}

// definitions lists the functions of a host module.
func definitions(m api.Module) []admission.Import {
	var list []admission.Import
	for name, def := range m.ExportedFunctionDefinitions() {
		list = append(list, admission.Import{Module: m.Name(), Name: name, Kind: "function", Type: signature(def)})
	}
	return list
}

// signature writes a function's type as admission does: "(i32, i64) -> i32", "() -> ()".
func signature(def api.FunctionDefinition) string {
	words := func(types []api.ValueType) string {
		names := make([]string, len(types))
		for i, t := range types {
			names[i] = api.ValueTypeName(t)
		}
		return strings.Join(names, ", ")
	}
	results := words(def.ResultTypes())
	if len(def.ResultTypes()) != 1 {
		results = "(" + results + ")"
	}
	return "(" + words(def.ParamTypes()) + ") -> " + results
}

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/plugin/wasmtest"
	"github.com/postern-gateway/postern/sdk/abi"
)

// TestValidateModules: what can be told of a module without running it is told by validate, at the plugin's source.
func TestValidateModules(t *testing.T) {
	t.Parallel()
	whole := func(change func(m *wasmtest.Module)) []byte {
		m := wasmtest.Policy(wasmtest.Answer(abi.ActionContinue, 0, 0))
		change(m)
		return m.Bytes()
	}
	foreign := new(wasmtest.Module)
	foreign.Import("env", "abort", wasmtest.Sig())
	sql := new(wasmtest.Module)
	sql.Import(abi.ImportModule, "sql", wasmtest.Sig())
	wrong := new(wasmtest.Module)
	wrong.Import(abi.ImportModule, abi.ImportLog, wasmtest.Sig(wasmtest.I64))
	for name, c := range map[string]struct {
		wasm []byte
		says string // empty: it is valid
	}{
		"whole":            {whole(func(*wasmtest.Module) {}), ""},
		"cut":              {whole(func(*wasmtest.Module) {})[:150], "at octet"},
		"another host":     {foreign.Bytes(), `the host has no module "env"`},
		"another call":     {sql.Bytes(), `the host's module "postern" has no function "sql"`},
		"another type":     {wrong.Bytes(), "is wanted as (i64) -> (); the host has the function (i32, i32, i32) -> ()"},
		"no memory":        {whole(func(m *wasmtest.Module) { m.Exports = nil }), `does not export its memory as "memory"`},
		"no plugin":        {whole(func(m *wasmtest.Module) { m.Functions = m.Functions[:0] }), "speaks no plugin ABI known here; there are: postern/1"},
		"no on":            {whole(func(m *wasmtest.Module) { m.Exported(abi.ExportOn).Export = "" }), "does not export the function postern_on"},
		"another version":  {whole(func(m *wasmtest.Module) { m.Exported(abi.ExportABI).Export = "postern_abi_v7" }), "the module speaks postern_abi_v7; this gateway speaks postern_abi_v1"},
		"wrong signature":  {whole(func(m *wasmtest.Module) { m.Func(abi.ExportGrow, wasmtest.Sig(), "") }), "the export postern_grow has the signature () -> (); it must be (i32) -> i64"},
		"too much memory":  {whole(func(m *wasmtest.Module) { m.Memories[0].Min = 64 }), "memory"},
		"names of its own": {whole(func(m *wasmtest.Module) { m.Func("postern_meter_fuel", wasmtest.Sig(), "") }), "postern_meter_fuel"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for file, text := range map[string]string{
				"config.hcl":   "state \"memory\" {}\n\nplugin \"p\" {\n  source = \"p\"\n  limits {\n    memory = \"2MiB\"\n  }\n}\n",
				"p/p.wasm":     string(c.wasm),
				"p/plugin.hcl": "abi = 1\nversion = \"0.1.0\"\nsummary = \"It does nothing.\"\nhook \"request\" {}\n",
			} {
				path := filepath.Join(dir, filepath.FromSlash(file))
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			var out, told strings.Builder
			app := &App{Context: t.Context(), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &told, Environment: os.LookupEnv}
			code := app.Main([]string{"validate", dir})
			refused := strings.Contains(told.String(), "config.hcl:4:12: Refused module: p/p.wasm can not be run here: ")
			if refused != (c.says != "") || !strings.Contains(told.String(), c.says) || refused && code == 0 {
				t.Errorf("exit code %d, want a refusal with %q:\n%s%s", code, c.says, out.String(), told.String())
			}
		})
	}
}

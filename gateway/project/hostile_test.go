package project_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin/wasmtest"
	"github.com/postern-gateway/postern/gateway/project"
)

// TestInspectHidesNothing: the names in a module can not rewrite what inspect says of it.
func TestInspectHidesNothing(t *testing.T) {
	t.Parallel()
	m := module("Hi")
	m.Imports[0].Name = "gone\x1b[2J\x1b[1;1Hx.wasm\na gateway takes it: compiled and started"
	m.Func("run\n\nimports: 0\u202e", wasmtest.Sig(), "")
	m.Customs = append(m.Customs, wasmtest.Custom("a\x1b[8m\nb", nil))
	packed, err := manifest.Pack(m.Bytes(), []byte(greeting))
	if err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"bad.wasm": string(packed)})
	out, _, err := run(t, &project.Shell{}, "inspect", filepath.Join(dir, "bad.wasm"))
	if err == nil || strings.ContainsAny(out, "\x1b\u202e") || strings.Contains(out, "\na gateway takes it") || strings.Contains(out, "\nimports: 0") {
		t.Errorf("%v\n%q", err, out)
	}
	for _, line := range []string{"  function postern.gone?[2J?[1;1Hx.wasm?a gateway takes it: compiled and started ", "  function run??imports: 0? ", "  a?[8m?b "} {
		if !strings.Contains(out, "\n"+line) {
			t.Errorf("no line %q in\n%s", line, out)
		}
	}
}

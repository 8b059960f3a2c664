// Package zig_test tests the Zig SDK: postern.zig natively, the module that build makes, and what README.md says.
package zig_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/postern-gateway/postern/sdk/conformance"
)

// zig is the compiler: of the repository's tools, of PATH, or of the Python package.
func zig(t *testing.T) []string {
	t.Helper()
	if err := exec.CommandContext(t.Context(), "python3", "-c", "import ziglang").Run(); err == nil {
		return []string{"python3", "-m", "ziglang"}
	}
	return []string{conformance.Need(t, "zig", "pip install ziglang==0.17.1, or see ziglang.org/download")}
}

func run(t *testing.T, dir string, command ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = dir
	said, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 69 {
		conformance.Missing(t, strings.TrimSpace(string(said)))
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, said)
	}
	return string(said)
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The SDK's own tests.
func TestUnits(t *testing.T) {
	t.Parallel()
	said := run(t, ".", append(zig(t), "test", "--cache-dir", t.TempDir(), "postern_test.zig")...)
	if !regexp.MustCompile(`All [1-9][0-9]* tests passed`).MatchString(said) {
		t.Errorf("said %s", said)
	}
}

// The example exports what the ABI names and nothing else, and asks for no more memory than it uses.
func TestModule(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "greet.wasm")
	if said := run(t, ".", "./build", "example", out); said != "" {
		t.Errorf("building says %s", said)
	}
	r := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
	defer r.Close(t.Context())
	b := []byte(read(t, out))
	m, err := r.CompileModule(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	var exports []string
	for name := range m.ExportedFunctions() {
		exports = append(exports, name)
	}
	slices.Sort(exports)
	if want := []string{"postern_abi_v1", "postern_configure", "postern_grow", "postern_on"}; !slices.Equal(exports, want) {
		t.Errorf("exports %q, want %q", exports, want)
	}
	if memory := m.ExportedMemories()["memory"]; len(m.ExportedMemories()) != 1 || memory == nil || memory.Min() > 2 {
		t.Errorf("memories %v", m.ExportedMemories())
	}
	for _, f := range m.ImportedFunctions() {
		if module, name, _ := f.Import(); module != "postern" {
			t.Errorf("imports %s.%s", module, name)
		}
	}
	if len(b) > 128<<10 {
		t.Errorf("%d octets", len(b))
	}
}

// README.md shows the example as it is, and names the version that build names.
func TestReadme(t *testing.T) {
	t.Parallel()
	readme := read(t, "README.md")
	for language, file := range map[string]string{"zig": "example/policy.zig", "hcl": "example/plugin.hcl"} {
		if !strings.Contains(readme, "```"+language+"\n"+read(t, file)+"```") {
			t.Errorf("README.md does not show %s as it is", file)
		}
	}
	version := regexp.MustCompile(`ziglang==[0-9.]+`)
	if said, asked := version.FindString(readme), version.FindString(read(t, "build")); said != asked || said == "" {
		t.Errorf("README.md names %s, build names %s", said, asked)
	}
}

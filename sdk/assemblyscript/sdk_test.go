// Package assemblyscript_test holds the README of the AssemblyScript SDK to what it says, and its build to failing well. Its
// conformance is tested by sdk/conformance.
package assemblyscript_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/sdk/conformance"
)

// The policy in the README is the example, and the command in it is the one that build runs.
func TestReadme(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("example/assembly/index.ts")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), string(example)) {
		t.Error("README.md does not show example/assembly/index.ts as it is")
	}
	script, err := os.ReadFile("build")
	if err != nil {
		t.Fatal(err)
	}
	options := regexp.MustCompile(`assembly/index\.ts (-O.*) --use`)
	want := options.FindStringSubmatch(strings.NewReplacer("--noColors ", "", "\\\n\t", "").Replace(string(script)))
	got := options.FindStringSubmatch(string(readme))
	if want == nil || got == nil || want[1] != got[1] {
		t.Errorf("README.md shows %q, build runs %q", got, want)
	}
}

// The lock file names no registry, and pins the compiler that package.json does.
func TestLock(t *testing.T) {
	t.Parallel()
	lock, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(lock), `"resolved"`) {
		t.Error("package-lock.json names a registry")
	}
	manifest, err := os.ReadFile("package.json")
	if err != nil {
		t.Fatal(err)
	}
	pinned := regexp.MustCompile(`"assemblyscript": "(\d+\.\d+\.\d+)"`).FindStringSubmatch(string(manifest))
	if pinned == nil || !strings.Contains(string(lock), `"version": "`+pinned[1]+`"`) {
		t.Errorf("package.json pins %q, the lock file another version", pinned)
	}
}

// A folder without a plugin, or with one that is wrong, is an error, not a missing toolchain; the error is the compiler's own.
func TestBuildFails(t *testing.T) {
	t.Parallel()
	empty, wrong := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(wrong, "assembly"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(wrong, "assembly", "index.ts"), []byte("export function f(): i32 { return missing; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		text string
	}{
		{nil, "usage"},
		{[]string{empty}, "usage"},
		{[]string{empty, filepath.Join(empty, "out.wasm")}, "assembly/index.ts"},
		{[]string{wrong, filepath.Join(wrong, "out.wasm")}, "assembly/index.ts(1,35)"},
	} {
		cmd := exec.CommandContext(t.Context(), "./build", c.args...)
		said, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() == 69 {
			conformance.Missing(t, strings.TrimSpace(string(said)))
		}
		if err == nil || !strings.Contains(string(said), c.text) {
			t.Errorf("build %v: %v, %q", c.args, err, said)
		}
	}
}

// Package rust_test runs the Rust SDK's own tests and holds its README to what it says. Its conformance is tested by
// sdk/conformance.
package rust_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/sdk/conformance"
)

// The crate's tests, natively: with all of it, and without what needs an allocator.
func TestNative(t *testing.T) {
	t.Parallel()
	cargo := conformance.Need(t, "cargo", "it runs the Rust SDK's own tests; rustup.rs, or on Debian and Ubuntu, apt-get install rustc-web cargo-web")
	for _, args := range [][]string{{"test", "--quiet"}, {"check", "--quiet", "--no-default-features"}} {
		cmd := exec.CommandContext(t.Context(), cargo, append(args, "--offline", "--target-dir", filepath.Join("target", "native"))...)
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("cargo %s: %v\n%s", strings.Join(args, " "), err, said)
		}
	}
}

// The policy in the README is the example.
func TestReadme(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"example/src/lib.rs", "example/Cargo.toml"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(readme), string(b)) {
			t.Errorf("README.md does not show %s as it is", file)
		}
	}
}

// A folder without a plugin is an error, not a missing toolchain.
func TestBuildFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, args := range [][]string{{}, {dir}, {dir, filepath.Join(dir, "out.wasm")}} {
		cmd := exec.CommandContext(t.Context(), "./build", args...)
		said, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() == 69 {
			conformance.Missing(t, strings.TrimSpace(string(said)))
		}
		if err == nil || len(said) == 0 {
			t.Errorf("build %v: %v, %q", args, err, said)
		}
	}
}

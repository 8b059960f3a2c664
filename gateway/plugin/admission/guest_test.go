package admission_test

import (
	"os"
	"os/exec"
	"path/filepath"

	"testing"
)

// compileC compiles a file of testdata. Where there is no compiler the test is skipped, but not in CI.
func compileC(t testing.TB, file string, flags ...string) []byte {
	t.Helper()
	clang, err := exec.LookPath("clang-19")
	linker, err2 := exec.LookPath("wasm-ld-19")
	if err != nil || err2 != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("clang-19 and wasm-ld-19 are not installed: apt-get install clang-19 lld-19")
		}
		t.Skip("needs clang-19 and wasm-ld-19: apt-get install clang-19 lld-19")
	}
	out := filepath.Join(t.TempDir(), "guest.wasm")
	arguments := append([]string{
		"--target=wasm32-unknown-unknown", "-nostdlib", "-ffreestanding", "-Wl,--no-entry", "-Wl,-z,stack-size=16384",
		"-fuse-ld=" + linker, "-o", out,
	}, flags...)
	if text, err := exec.Command(clang, append(arguments, filepath.Join("testdata", file))...).CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v\n%s", file, err, text)
	}
	return read(t, out)
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

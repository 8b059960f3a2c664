package admission_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/postern-gateway/postern/gateway/plugin/admission"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

// compileC compiles a file of testdata. Where there is no compiler the test is skipped, but not in CI.
func compileC(t testing.TB, file string, flags ...string) []byte {
	t.Helper()
	clang, linker := installed("clang-19", "clang"), installed("wasm-ld-19", "wasm-ld")
	if clang == "" || linker == "" {
		const text = "clang and wasm-ld are not installed: apt-get install clang-19 lld-19, or clang lld"
		if os.Getenv("CI") == "true" {
			t.Fatal(text)
		}
		t.Skip(text)
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

// installed is the path of the first of these programs that there is.
func installed(names ...string) string {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// text is n octets of what a scan may see.
func text(n int) []byte {
	const some = "the quick brown Fox jumps 0123 over_the lazy dog, some k sk-1 0123456789012345 a@b.example needle in hay. "
	return bytes.Repeat([]byte(some), n/len(some)+1)[:n]
}

// scanner is a compiled scan.c with text in its buffer.
func scanner(t testing.TB, wasm []byte) (*host, api.Module) {
	h := newHost(t, wazero.NewRuntimeConfig())
	m := h.start(t, h.compile(t, wasm))
	at, err := m.ExportedFunction("buffer").Call(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if !m.Memory().Write(uint32(at[0]), text(65536)) {
		t.Fatal("the buffer is too small")
	}
	return h, m
}

var scans = [...]string{"count", "hash", "patterns", "search", "words", "dispatch", "small"}

// TestCComputesTheSame runs C guests of all sorts of optimization as they are and metered.
func TestCComputesTheSame(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{{"-O0"}, {"-Os"}, {"-O2"}, {"-O3", "-msimd128"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			t.Parallel()
			wasm := compileC(t, "scan.c", flags...)
			_, plain := scanner(t, wasm)
			h, metered := scanner(t, meter(t, wasm, admission.Limits{}))
			h.slice = 10_000
			for _, name := range scans {
				for _, n := range []uint64{0, 1, 17, 4096, 65536} {
					arguments := []uint64{n, 'e'}[:len(plain.ExportedFunction(name).Definition().ParamTypes())]
					want, err := plain.ExportedFunction(name).Call(context.Background(), arguments...)
					if err != nil {
						t.Fatal(err)
					}
					budget := h.budget + int64(metered.ExportedGlobal(admission.FuelGlobal).Get())
					got, err := metered.ExportedFunction(name).Call(context.Background(), arguments...)
					if err != nil || !slices.Equal(got, want) {
						t.Fatalf("%s(%d) = %v, %v, want %v", name, n, got, err, want)
					}
					if used := h.used(metered, budget); name != "small" && name != "search" && used < int64(n)/4 {
						t.Fatalf("%s(%d) takes %d units", name, n, used)
					}
				}
			}
		})
	}
}

// TestLines looks for the lines of the source in errors of metered guests. The second way an error can come about, on the
// way of a call, is seen by the second line.
func TestLines(t *testing.T) {
	t.Parallel()
	source := strings.Split(string(read(t, "testdata/lines.c")), "\n")
	line := func(mark string) string {
		i := slices.IndexFunc(source, func(s string) bool { return strings.Contains(s, mark) })
		if i < 0 {
			t.Fatalf("lines.c does not hold %q", mark)
		}
		return fmt.Sprintf("testdata/lines.c:%d:", i+1)
	}
	for _, flags := range [][]string{{"-O0", "-gdwarf-5"}, {"-O0", "-gdwarf-4"}, {"-O2", "-gdwarf-3"}, {"-O2", "-g"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			t.Parallel()
			wasm := meter(t, compileC(t, "lines.c", flags...), admission.Limits{})
			h := newHost(t, wazero.NewRuntimeConfig().WithDebugInfoEnabled(true))
			m := h.start(t, h.compile(t, wasm))
			for _, c := range []struct {
				function string
				argument uint64
				want     []string
			}{
				{"early", 0, []string{"integer divide by zero", line("divided by zero")}},
				{"late", 1 << 30, []string{"out of bounds memory access", line("out of bounds"), line("sum(table, n)")}},
			} {
				_, err := m.ExportedFunction(c.function).Call(context.Background(), c.argument)
				for _, want := range c.want {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("%s: the error does not hold %q:\n%v", c.function, want, err)
					}
				}
			}
		})
	}
}

// compiledBefore is what a host is made with that finds a module compiled already, where compiling it here would take long.
func compiledBefore(t *testing.T, wasm []byte) wazero.RuntimeConfig {
	t.Helper()
	config := wazero.NewRuntimeConfig()
	compiler := plugintest.Compiler(t)
	if len(compiler) == 0 {
		return config
	}
	dir := t.TempDir()
	cmd := exec.Command(compiler[0], append(compiler[1:], dir, "1073741824", "60")...)
	cmd.Stdin = bytes.NewReader(wasm)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile: %v\n%s", err, text)
	}
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cache.Close(context.Background()) })
	return config.WithCompilationCache(cache).WithDebugInfoEnabled(true).WithMemoryLimitPages(1 << 16)
}

// TestGoComputesTheSame builds a guest with the Go toolchain, whose modules are the largest and oddest there are: every
// function is a loop around a table of branches.
func TestGoComputesTheSame(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("compiles two megabytes of WebAssembly")
	}
	out := filepath.Join(t.TempDir(), "guest.wasm")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-buildmode=c-shared", "-o", out, "./testdata/guest")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	wasm := read(t, out)
	metered := meter(t, wasm, admission.Limits{})
	if len(metered) > len(wasm)*3/2 {
		t.Errorf("metering makes %d octets of %d", len(metered), len(wasm))
	}
	var results [2][]uint64
	for i, code := range [][]byte{wasm, metered} {
		h := newHost(t, compiledBefore(t, code))
		h.slice = 100_000
		m := h.start(t, h.compile(t, code))
		for n := range uint64(20) {
			got, err := m.ExportedFunction("work").Call(context.Background(), n*37)
			if err != nil {
				t.Fatal(err)
			}
			results[i] = append(results[i], got...)
		}
		_, err := m.ExportedFunction("fail").Call(context.Background(), 7)
		if err == nil {
			t.Fatal("a panic did not fail")
		}
		if i == 0 {
			continue
		}
		if left := int32(m.ExportedGlobal(admission.DepthGlobal).Get()); left < admission.DefaultDepth/2 {
			t.Errorf("%d frames are left of %d", left, admission.DefaultDepth)
		}
		// What never ends is stopped in Go as well.
		h.budget = 10 << 20
		if _, err = m.ExportedFunction("endless").Call(context.Background()); err == nil || !strings.Contains(err.Error(), errFuel.Error()) {
			t.Errorf("endless ended with %v", err)
		}
	}
	if !slices.Equal(results[0], results[1]) {
		t.Fatalf("metered it computes %v, want %v", results[1], results[0])
	}
}

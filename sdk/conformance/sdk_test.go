package conformance_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/plugin/wasmtest"
	"github.com/postern-gateway/postern/sdk"
	"github.com/postern-gateway/postern/sdk/abi"
	"github.com/postern-gateway/postern/sdk/conformance"
)

// There are five SDKs, and each one's example has the manifest that the suite knows.
func TestManifests(t *testing.T) {
	t.Parallel()
	var names []string
	for _, l := range conformance.Languages(t) {
		names = append(names, l.Name)
		want, err := os.ReadFile("example.hcl")
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("..", l.Name, "example", "plugin.hcl")
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not sdk/conformance/example.hcl (%v)", file, err)
		}
	}
	slices.Sort(names)
	if want := []string{"assemblyscript", "c", "go", "rust", "zig"}; !slices.Equal(names, want) {
		t.Errorf("the SDKs are %q, want %q", names, want)
	}
}

// The README of each SDK shows the example as it is built and tested.
func TestReadmes(t *testing.T) {
	t.Parallel()
	for _, l := range sdk.Languages() {
		readme, err := os.ReadFile(filepath.Join("..", l.Name, "README.md"))
		if err != nil {
			t.Error(err)
			continue
		}
		text, err := os.ReadFile(filepath.Join("..", l.Name, "example", l.Source))
		if err != nil {
			t.Error(err)
		} else if !bytes.Contains(readme, append([]byte("\n"), append(text, "```\n"...)...)) {
			t.Errorf("sdk/%s/README.md does not show example/%s", l.Name, l.Source)
		}
	}
}

// Every word that sdk/README.md says a language has is in its sources.
func TestWords(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(readme), "<!-- words -->")
	table, _, ok := strings.Cut(table, "<!-- /words -->")
	if !ok {
		t.Fatal("sdk/README.md has no table of words")
	}
	columns := []string{"go", "rust", "assemblyscript", "c", "zig"}
	sources := map[string]string{}
	for _, name := range columns {
		var all strings.Builder
		for _, pattern := range []string{"*.go", "*.h", "*.zig", "src/*.rs", "assembly/*.ts"} {
			files, err := filepath.Glob(filepath.Join("..", name, pattern))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				all.Write(text)
			}
		}
		sources[name] = all.String()
	}
	// Go's values are those of sdk/abi.
	values, err := os.ReadFile("../abi/value.go")
	if err != nil {
		t.Fatal(err)
	}
	sources["go"] += string(values)
	code, rows := regexp.MustCompile("`([A-Za-z_]+)!?`"), 0
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != len(columns)+1 {
			continue
		}
		rows++
		for i, name := range columns {
			for _, m := range code.FindAllStringSubmatch(cells[i+1], -1) {
				if !regexp.MustCompile(`\b` + m[1] + `\b`).MatchString(sources[name]) {
					t.Errorf("%s has no %s, which stands for %q", name, m[1], strings.TrimSpace(cells[0]))
				}
			}
		}
	}
	if rows < 25 {
		t.Errorf("the table has %d rows", rows)
	}
}

// A module that does nothing is found out by every part of the suite that it does not fulfil: the suite can fail.
func TestSuiteFails(t *testing.T) {
	t.Parallel()
	idle := filepath.Join(t.TempDir(), "idle.wasm")
	if err := os.WriteFile(idle, wasmtest.Policy(wasmtest.Answer(abi.ActionContinue, 0, 0)).Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestModule$", "-test.v", "-test.short")
	cmd.Env = append(os.Environ(), "POSTERN_CONFORMANCE="+idle, "POSTERN_EXAMPLE="+idle)
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("the suite passes a module that does nothing:\n%s", out)
	}
	for _, part := range []string{"events", "values", "results", "operations", "fetches", "faults", "configurations", "no_grants", "large", "example", "memory"} {
		if !bytes.Contains(out, []byte("--- FAIL: TestModule/"+part+" ")) {
			t.Errorf("part %s does not fail:\n%s", part, out)
		}
	}
}

// recorder is a test whose skip and failure are looked at.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Skip(args ...any)                  { r.skipped = args[0].(string); runtime.Goexit() }
func (r *recorder) Fatalf(format string, args ...any) { r.failed = format; runtime.Goexit() }

// A missing tool skips a test with a line that says how to get it, and fails it with CI=true.
func TestMissing(t *testing.T) {
	try := func(f func(*recorder)) *recorder {
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() { defer close(done); f(r) }()
		<-done
		return r
	}
	need := func(r *recorder) { conformance.Need(r, "no-such-tool", "apt-get install it") }
	t.Setenv("CI", "")
	if r := try(need); !strings.Contains(r.skipped, "no-such-tool") || !strings.Contains(r.skipped, "apt-get install it") || r.failed != "" {
		t.Errorf("skipped %q, failed %q", r.skipped, r.failed)
	}
	t.Setenv("CI", "true")
	if r := try(need); r.failed == "" || r.skipped != "" {
		t.Errorf("with CI=true: skipped %q, failed %q", r.skipped, r.failed)
	}
	if path := conformance.Need(t, "go", "it runs this test"); !filepath.IsAbs(path) {
		t.Errorf("go is at %q", path)
	}
}

// Without its tools a build script ends with the status that means so, and says how to get them, on one line.
func TestBuildWithoutTools(t *testing.T) {
	t.Parallel()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"assemblyscript", "c", "rust", "zig"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A copy of the script outside the repository, a PATH with nothing but what every system has, and a plugin without
			// sources: where tools are found at places of their own, as Debian's Rust is, that is what is said.
			dir := t.TempDir()
			text, err := os.ReadFile(filepath.Join("..", name, "build"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "build"), text, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, tool := range []string{"dirname", "basename", "cat", "sed", "head", "grep", "mktemp", "rm", "mv", "cp", "tr", "ls", "mkdir"} {
				if path, err := exec.LookPath(tool); err == nil {
					if err := os.Symlink(path, filepath.Join(dir, tool)); err != nil {
						t.Fatal(err)
					}
				}
			}
			cmd := exec.CommandContext(t.Context(), sh, filepath.Join(dir, "build"), t.TempDir(), filepath.Join(dir, "out.wasm"))
			cmd.Env = []string{"PATH=" + dir, "HOME=" + dir}
			out, err := cmd.CombinedOutput()
			_, elsewhere := os.Stat("/usr/bin/cargo")
			switch code := cmd.ProcessState.ExitCode(); {
			case name == "rust" && elsewhere == nil && bytes.Contains(out, []byte("Cargo.toml")):
			case code != 69:
				t.Errorf("status %d (%v), want 69:\n%s", code, err, out)
			case bytes.Count(out, []byte("\n")) != 1 || len(out) < 40:
				t.Errorf("not one line that says how to get the tools:\n%s", out)
			}
		})
	}
}

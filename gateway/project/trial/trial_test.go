package trial_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"golang.org/x/tools/txtar"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/plugin/abi1"
	"github.com/postern-gateway/postern/gateway/project/trial"
	"github.com/postern-gateway/postern/gateway/schema"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

var update = flag.Bool("update", false, "write what the golden files should be")

// guest is the conformance guest in Go, which does what a script says.
func guest(t testing.TB) *config.Plugin { return alone(t, "conformance", "plugin.hcl") }

// alone is a plugin with one of the manifests in sdk/conformance.
func alone(t testing.TB, name, file string) *config.Plugin {
	t.Helper()
	text, err := os.ReadFile("../../../sdk/conformance/" + file)
	if err != nil {
		t.Fatal(err)
	}
	m, diags := manifest.Parse(text, "plugin.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return config.Alone(name, "", m)
}

// module is guest, built, and a host for it.
func module(t *testing.T) (*config.Plugin, *trial.Host) {
	t.Helper()
	p := guest(t)
	p.Path = plugintest.Build(t, "../../../sdk/go/conformance")
	h, err := trial.NewHost(trial.Config{Plugin: p, ABIs: []plugin.ABI{abi1.New()}, CacheDir: plugintest.CacheDir(), Child: plugintest.Compiler(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return p, h
}

// TestPass: what the tests of testdata/guest say is so.
func TestPass(t *testing.T) {
	p, h := module(t)
	trials, _, sources, diags := trial.Load("testdata/guest", p)
	if diags.HasErrors() {
		t.Fatal(told(t, sources, diags))
	}
	if len(trials) < 15 {
		t.Fatalf("found %d tests", len(trials))
	}
	for _, one := range trials {
		t.Run(one.Name, func(t *testing.T) {
			wrong, err := h.Run(t.Context(), one, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range wrong {
				t.Errorf("%s: %s", w.At, w.Text)
			}
		})
	}
}

// TestFailures: every expectation that is not met is told with its place, what came and what was expected.
func TestFailures(t *testing.T) {
	p, h := module(t)
	archive, err := txtar.ParseFile("testdata/failures.txtar")
	if err != nil {
		t.Fatal(err)
	}
	dir, want := unpack(t, archive)
	trials, _, sources, diags := trial.Load(dir, p)
	if diags.HasErrors() {
		t.Fatal(told(t, sources, diags))
	}
	var got strings.Builder
	for _, one := range trials {
		wrong, err := h.Run(t.Context(), one, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(wrong) == 0 {
			t.Errorf("%s: passes", one.Name)
		}
		for _, w := range wrong {
			text, _, more := strings.Cut(w.Text, "\n\t")
			if more { // a trace, which names the machine's folders
				text += " ..."
			}
			if strings.HasPrefix(text, "the log:") {
				text = panicking.ReplaceAllString(text, "")
			}
			fmt.Fprintf(&got, "%s:%d: %s\n", w.At.Filename, w.At.Start.Line, text)
		}
	}
	golden(t, "testdata/failures.txtar", archive, want, got.String())
}

// TestMistakes: a wrong test file is refused with every mistake and its place, one golden file each.
func TestMistakes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/mistakes/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir, want := unpack(t, archive)
			trials, _, sources, diags := trial.Load(dir, guest(t))
			if (trials == nil) != diags.HasErrors() {
				t.Errorf("%d tests with %d diagnostics", len(trials), len(diags))
			}
			golden(t, file, archive, want, told(t, sources, diags))
		})
	}
}

// panicking is what Go writes below a panic's own line.
var panicking = regexp.MustCompile(`(?s)\n[^\n]*message="goroutine.*`)

// unpack writes an archive's files to a folder, but for the one that holds what is wanted.
func unpack(t *testing.T, archive *txtar.Archive) (dir, want string) {
	t.Helper()
	dir = t.TempDir()
	for _, f := range archive.Files {
		if f.Name == "want" {
			want = string(f.Data)
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, want
}

func golden(t *testing.T, file string, archive *txtar.Archive, want, got string) {
	t.Helper()
	if *update {
		var kept []txtar.File
		for _, f := range archive.Files {
			if f.Name != "want" {
				kept = append(kept, f)
			}
		}
		archive.Files = append(kept, txtar.File{Name: "want", Data: []byte(got)})
		if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func told(t *testing.T, sources schema.Sources, diags hcl.Diagnostics) string {
	t.Helper()
	var b strings.Builder
	if err := schema.WriteDiagnostics(&b, sources, diags, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// FuzzParse: no text makes the loader panic, and a test that is taken has something to send.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/guest/*.hcl", "testdata/mistakes/*.txtar"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
	p := alone(f, "greet", "example.hcl") // the guest's manifest is long, and would be read each time
	f.Fuzz(func(t *testing.T, text string) {
		findings := &schema.Findings{Sources: schema.Sources{"x_test.hcl": []byte(text)}, Used: map[string]bool{}}
		trials, _ := trial.Parse(findings, p)
		diags := findings.Tidy()
		if diags.HasErrors() {
			return
		}
		for _, one := range trials {
			if one.Refused == "" && one.Exchanges() == 0 {
				t.Errorf("test %q sends nothing", one.Name)
			}
		}
	})
}

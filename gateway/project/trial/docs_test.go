package trial_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/project/trial"
	"github.com/postern-gateway/postern/gateway/schema"
)

const reference = "../../../sdk/TESTS.md"

// TestReference: the tables of the reference are what the code does, and its example is in order for the SDKs' example.
func TestReference(t *testing.T) {
	old, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- begin tables -->\n", "<!-- end tables -->"
	before, rest, ok1 := strings.Cut(string(old), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("no marks for the tables")
	}
	tables := &schema.Block{Name: "*_test.hcl", Blocks: []schema.Block{*trial.Language().Find("test")}}
	text := before + begin + tables.Docs() + end + after
	if *update {
		if err := os.WriteFile(reference, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(string(old), text); diff != "" {
		t.Errorf("the reference is not current (go test ./gateway/project/trial -update writes it):\n%s", diff)
	}
	example := regexp.MustCompile("(?s)```hcl\n# greet_test.hcl\n(.*?)```").FindStringSubmatch(text)
	if example == nil {
		t.Fatal("no example")
	}
	src, err := os.ReadFile("../../../sdk/conformance/example.hcl")
	if err != nil {
		t.Fatal(err)
	}
	m, diags := manifest.Parse(src, "plugin.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "greet_test.hcl"), []byte(example[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	if trials, _, sources, diags := trial.Load(dir, config.Alone("greet", "", m)); len(trials) != 2 || len(diags) > 0 {
		t.Errorf("%d tests\n%s", len(trials), told(t, sources, diags))
	}
}

package plugintest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/manifest"
)

// Readme holds the README.md of the plugin in a folder to the plugin: it ends with the manifest's tables below
// "## Manifest", and shows testdata/policy.hcl in a block of its own, whose stages the manifest takes.
func Readme(t *testing.T, dir string) {
	t.Helper()
	read := func(name string) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	m, diags := manifest.Parse(read("plugin.hcl"), "plugin.hcl")
	if diags.HasErrors() {
		t.Fatalf("plugin.hcl: %s", text(diags))
	}
	readme, example := string(read("README.md")), read("testdata/policy.hcl")
	if _, tables, _ := strings.Cut(readme, "\n## Manifest\n\n"); tables != m.Docs() {
		t.Errorf("below \"## Manifest\" README.md should say:\n%s", m.Docs())
	}
	if !strings.Contains(readme, "```hcl\n"+string(example)+"```") {
		t.Error("README.md does not show testdata/policy.hcl")
	}
	file, diags := hclsyntax.ParseConfig(example, "testdata/policy.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(text(diags))
	}
	for _, policy := range file.Body.(*hclsyntax.Body).Blocks {
		for _, stage := range policy.Body.Blocks {
			phase, _ := exchange.ParsePhase(stage.Type)
			hook := m.Hook(phase)
			if hook == nil {
				t.Errorf("%s: the plugin has no hook for it", stage.Type)
				continue
			}
			config := &hclsyntax.Body{}
			for _, b := range stage.Body.Blocks {
				config = b.Body
			}
			if _, _, diags := m.Decode(hook, config, nil); diags.HasErrors() {
				t.Errorf("%s: %s", stage.Type, text(diags))
			}
		}
	}
}

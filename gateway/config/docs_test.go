package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/attribute"
	"github.com/postern-gateway/postern/gateway/expr"
	"github.com/postern-gateway/postern/gateway/schema"
)

const reference = "../../policies/README.md"

// TestReference: the tables of the language reference are what the code does.
func TestReference(t *testing.T) {
	old, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	text := string(old)
	for name, table := range map[string]string{
		"config.hcl":          schema.Main().Docs(),
		"policies/*.hcl":      schema.PolicyFile().Docs(),
		"policies/*_test.hcl": schema.TestFile().Docs(),
		"functions":           functionTable(),
		"attributes":          attributeTable(),
	} {
		begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->"
		before, rest, ok1 := strings.Cut(text, begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok1 || !ok2 {
			t.Fatalf("no marks for %s", name)
		}
		text = before + begin + table + end + after
	}
	if *update {
		if err := os.WriteFile(reference, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(old), text); diff != "" && !*update {
		t.Errorf("the reference is not current (go test ./gateway/config -update writes it):\n%s", diff)
	}
}

// TestReferenceExamples: the examples of the reference, put together, are one valid configuration.
func TestReferenceExamples(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	fence := regexp.MustCompile("(?s)```hcl\n(.*?)```")
	for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
		name := schema.MainFile
		if first, _, _ := strings.Cut(m[1], "\n"); strings.HasPrefix(first, "# ") {
			name = strings.TrimPrefix(first, "# ")
		}
		files[name] += m[1] + "\n"
	}
	if len(files) < 4 {
		t.Fatalf("found examples for %d files only", len(files))
	}
	dir := t.TempDir()
	for name, src := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(src), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	opt := options()
	if got := outcome(t, dir, opt); got != "ok\n" {
		t.Error(got)
	}
}

func functionTable() string {
	var out strings.Builder
	out.WriteString("\n| function | gives | |\n|---|---|---|\n")
	for _, f := range expr.FunctionList() {
		fmt.Fprintf(&out, "| `%s` | %s | %s |\n", f.Usage, kindOf(f.Result), f.Summary)
	}
	return out.String() + "\n"
}

func attributeTable() string {
	var out strings.Builder
	out.WriteString("\n| name | kind | from phase | |\n|---|---|---|---|\n")
	for _, a := range slices.Concat(attribute.All(), attribute.Groups()) {
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", a.Name, kindOf(a.Type), a.Since, strings.ReplaceAll(a.Summary, "|", "\\|"))
	}
	return out.String() + "\n"
}

func kindOf(t cty.Type) string {
	switch {
	case t == cty.String:
		return "text"
	case t == cty.DynamicPseudoType:
		return "any"
	case t.IsListType() || t.IsTupleType():
		return "list"
	case t.IsObjectType() || t.IsMapType():
		return "object"
	}
	return t.FriendlyName()
}

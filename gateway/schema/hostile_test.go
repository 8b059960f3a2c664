package schema_test

import (
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/schema"
)

// TestDiagnosticsOfStrangers: a plugin's manifest can neither write to the operator's terminal nor fill it.
func TestDiagnosticsOfStrangers(t *testing.T) {
	t.Parallel()
	show := func(src string, diags ...*hcl.Diagnostic) string {
		t.Helper()
		var b strings.Builder
		if err := schema.WriteDiagnostics(&b, schema.Sources{"plugin.hcl": []byte(src)}, diags, false); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	at := func(start, end int, detail string) *hcl.Diagnostic {
		return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Wrong", Detail: detail, Subject: &hcl.Range{
			Filename: "plugin.hcl", Start: hcl.Pos{Line: 1, Column: start + 1, Byte: start}, End: hcl.Pos{Line: 1, Column: end + 1, Byte: end},
		}}
	}
	got := show("a = \"\x1b[2J\u202eäx\"\t5", at(14, 15, "no\x1b]0;x\a \u2028"))
	if want := "plugin.hcl:1:15: Wrong: no?]0;x? ?\n    1 | a = \"?[2J?äx\"\t5\n      |            ^\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	long := strings.Repeat("ab cd ", 1<<16)
	var many []*hcl.Diagnostic
	for i := range 5000 {
		many = append(many, at(i*6, len(long), "x"))
	}
	got = show(long, many...)
	if len(got) > 1<<20 || !strings.Contains(got, "4900 more are not shown") {
		t.Errorf("%d octets", len(got))
	}
}

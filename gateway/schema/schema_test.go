package schema

import (
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// TestEverySchemaIsSound: defaults and bounds are read by the functions that read values, defaults lie within bounds, and
// everything is described.
func TestEverySchemaIsSound(t *testing.T) {
	t.Parallel()
	var walk func(b *Block, path string)
	walk = func(b *Block, path string) {
		path += "/" + b.Name
		if b.Summary == "" {
			t.Errorf("%s has no summary", path)
		}
		seen := map[string]bool{}
		s := Over(silent{t}, &hcl.BodyContent{}, b, hcl.Range{})
		for _, a := range b.Arguments {
			if seen[a.Name] || a.Summary == "" || !strings.HasSuffix(a.Summary, ".") {
				t.Errorf("%s %s stands twice, or has no sentence about it", path, a.Name)
			}
			seen[a.Name] = true
			if a.Required && a.Preset != "" {
				t.Errorf("%s %s is required and has a default", path, a.Name)
			}
			if (a.Kind == Word || a.Kind == Words) && a.Words == nil && a.Name != "format" && a.Name != "shares" {
				t.Errorf("%s %s has no words", path, a.Name)
			}
			switch a.Kind {
			case Span:
				check(t, path, &a, s.Span(a.Name).Nanoseconds() == 0)
			case Size:
				check(t, path, &a, s.Size(a.Name) == 0)
			case Count:
				check(t, path, &a, s.Count(a.Name) == 0)
			case Ratio:
				s.Ratio(a.Name)
			}
		}
		for i := range b.Blocks {
			walk(&b.Blocks[i], path)
		}
	}
	for _, file := range []*Block{Main(), PolicyFile(), TestFile()} {
		for i := range file.Blocks {
			walk(&file.Blocks[i], file.Name)
		}
	}
}

func check(t *testing.T, path string, a *Argument, zero bool) {
	t.Helper()
	if a.Kind == Span && a.Min == "" {
		t.Errorf("%s %s: a duration without a lower bound may be negative", path, a.Name)
	}
	if zero && a.Preset != "" && !a.Zero && a.Min != "0" {
		t.Errorf("%s %s: the default is 0, which is out of bounds", path, a.Name)
	}
}

// silent reads nothing and expects no complaint.
type silent struct{ t *testing.T }

func (s silent) Report(d *hcl.Diagnostic)                      { s.t.Error(d) }
func (s silent) Value(e hcl.Expression) (v cty.Value, ok bool) { return v, false }

func TestSnippet(t *testing.T) {
	t.Parallel()
	at := func(line, column, from, to int) *hcl.Range {
		return &hcl.Range{Filename: "a.hcl", Start: hcl.Pos{Line: line, Column: column, Byte: from}, End: hcl.Pos{Line: line, Column: column + to - from, Byte: to}}
	}
	for _, c := range []struct {
		name, source string
		at           *hcl.Range
		want         string
	}{
		{"tabs are kept", "\ta = 1\n", at(1, 2, 1, 2), "    1 | \ta = 1\n      | \t^\n"},
		{"carriage returns are not shown", "a = 1\r\nb = 2\r\n", at(2, 1, 7, 8), "    2 | b = 2\n      | ^\n"},
		{"a character is one column", "x = \"é\" y\n", at(1, 9, 9, 10), "    1 | x = \"é\" y\n      |         ^\n"},
		{"an empty range is one marker", "a\n", at(1, 2, 1, 1), "    1 | a\n      |  ^\n"},
		{"the end of the file", "a", at(1, 2, 1, 1), "    1 | a\n      |  ^\n"},
		{"a range over lines is marked on the first", "a = [\n1]\n", at(1, 5, 4, 8), "    1 | a = [\n      |     ^\n"},
		{"beyond the source", "a", at(9, 1, 100, 101), ""},
	} {
		var b strings.Builder
		d := hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "S", Detail: "D.", Subject: c.at}}
		if err := WriteDiagnostics(&b, Sources{"a.hcl": []byte(c.source)}, d, false); err != nil {
			t.Fatal(err)
		}
		_, got, _ := strings.Cut(b.String(), "\n")
		if got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestChoices(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		given string
		list  []string
		want  string
	}{
		{"opnai", []string{"anthropic", "openai"}, ` Did you mean "openai"?`},
		{"x", []string{"a", "b"}, " There are: a, b."},
		{"anything", nil, " There are none."},
		{"zzzzzzzz", strings.Fields(strings.Repeat("abc ", 25)), " There are: " + strings.Repeat("abc, ", 19) + "abc and 5 more."},
	} {
		if got := Choices(c.given, c.list); got != c.want {
			t.Errorf("%s: %q, want %q", c.given, got, c.want)
		}
	}
}

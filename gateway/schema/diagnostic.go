package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// WriteDiagnostics prints diagnostics for people, each with its place, the source line and a marker below what is
// meant, or as one JSON object for editors and CI:
//
//	{"valid": false, "errors": 1, "warnings": 0, "diagnostics": [{"severity": "error", "summary": "...", "detail": "...",
//	 "file": "config.hcl", "start": {"line": 1, "column": 1, "byte": 0}, "end": {...}}]}
func WriteDiagnostics(w io.Writer, sources Sources, diags hcl.Diagnostics, asJSON bool) error {
	if asJSON {
		return writeJSON(w, diags)
	}
	var b strings.Builder
	for _, d := range diags {
		kind := ""
		if d.Severity == hcl.DiagWarning {
			kind = "Warning: "
		}
		at := *d.Subject
		fmt.Fprintf(&b, "%s:%d:%d: %s%s: %s\n", at.Filename, at.Start.Line, at.Start.Column, kind, d.Summary, d.Detail)
		snippet(&b, sources[at.Filename], at)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// snippet writes the first line of a range and marks the range in it.
func snippet(b *strings.Builder, src []byte, at hcl.Range) {
	if src == nil || at.Start.Byte > len(src) {
		return
	}
	begin := bytes.LastIndexByte(src[:at.Start.Byte], '\n') + 1
	end := len(src)
	if i := bytes.IndexByte(src[at.Start.Byte:], '\n'); i >= 0 {
		end = at.Start.Byte + i
	}
	line := strings.TrimRight(strings.ToValidUTF8(string(src[begin:end]), "?"), "\r")
	fmt.Fprintf(b, "%5d | %s\n      | ", at.Start.Line, line)
	for _, r := range string(src[begin:at.Start.Byte]) {
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	n := len([]rune(string(src[at.Start.Byte:max(at.Start.Byte, min(end, at.End.Byte))])))
	b.WriteString(strings.Repeat("^", max(1, n)))
	b.WriteByte('\n')
}

func writeJSON(w io.Writer, diags hcl.Diagnostics) error {
	type position struct {
		Line   int `json:"line"`
		Column int `json:"column"`
		Byte   int `json:"byte"`
	}
	type diagnostic struct {
		Severity string   `json:"severity"`
		Summary  string   `json:"summary"`
		Detail   string   `json:"detail"`
		File     string   `json:"file"`
		Start    position `json:"start"`
		End      position `json:"end"`
	}
	out := struct {
		Valid       bool         `json:"valid"`
		Errors      int          `json:"errors"`
		Warnings    int          `json:"warnings"`
		Diagnostics []diagnostic `json:"diagnostics"`
	}{Valid: !diags.HasErrors(), Diagnostics: []diagnostic{}}
	for _, d := range diags {
		severity := "error"
		if d.Severity == hcl.DiagWarning {
			severity = "warning"
			out.Warnings++
		} else {
			out.Errors++
		}
		out.Diagnostics = append(out.Diagnostics, diagnostic{
			Severity: severity, Summary: d.Summary, Detail: d.Detail, File: d.Subject.Filename,
			Start: position(d.Subject.Start), End: position(d.Subject.End),
		})
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

const (
	maxShown  = 100 // diagnostics that people are shown
	maxAround = 200 // octets of a source line that are shown before, at and behind a place
)

// WriteDiagnostics prints diagnostics for people, each with its place, the source line and a marker below what is
// meant, or as one JSON object for editors and CI:
//
//	{"valid": false, "errors": 1, "warnings": 0, "diagnostics": [{"severity": "error", "summary": "...", "detail": "...",
//	 "file": "config.hcl", "start": {"line": 1, "column": 1, "byte": 0}, "end": {...}}]}
//
// Some of the text is a stranger's, who wrote a plugin's manifest: people are shown no control characters of it, at most
// maxShown diagnostics, and of a long line only what stands around the place.
func WriteDiagnostics(w io.Writer, sources Sources, diags hcl.Diagnostics, asJSON bool) error {
	if asJSON {
		return writeJSON(w, diags)
	}
	var b strings.Builder
	for i, d := range diags {
		if i == maxShown {
			fmt.Fprintf(&b, "%d more are not shown\n", len(diags)-i)
			break
		}
		kind := ""
		if d.Severity == hcl.DiagWarning {
			kind = "Warning: "
		}
		at := *d.Subject
		fmt.Fprintf(&b, "%s:%d:%d: %s%s: %s\n", Printable(at.Filename), at.Start.Line, at.Start.Column, kind, Printable(d.Summary), Printable(d.Detail))
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
	before, marked := src[begin:at.Start.Byte], src[at.Start.Byte:max(at.Start.Byte, min(end, at.End.Byte))]
	after := src[at.Start.Byte+len(marked) : max(end, at.Start.Byte+len(marked))]
	cut := func(part []byte, from, to int) string {
		return Printable(strings.TrimRight(strings.ToValidUTF8(string(part[from:to]), "?"), "\r"))
	}
	head := cut(before, max(0, len(before)-maxAround), len(before))
	meant := cut(marked, 0, min(len(marked), maxAround))
	tail := cut(after, 0, min(len(after), maxAround))
	if len(marked) > maxAround {
		tail = ""
	}
	fmt.Fprintf(b, "%5d | %s%s%s\n      | ", at.Start.Line, head, meant, tail)
	for _, r := range head {
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	b.WriteString(strings.Repeat("^", max(1, utf8.RuneCountInString(meant))))
	b.WriteByte('\n')
}

// Printable is a text with a question mark in the place of what would do something to a terminal, or is not shown by it: control
// characters but tab and line feed, and those that turn the direction of writing.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
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

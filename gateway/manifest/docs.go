package manifest

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// Docs describes the plugin in Markdown: its hooks and what each sees, its arguments, the grants it asks for. READMEs of
// plugins hold it word for word.
func (m *Manifest) Docs() string {
	var b strings.Builder
	b.WriteString("| phase | sees headers | sees attributes | sees body | needs |\n|---|---|---|---|---|\n")
	for _, h := range m.Hooks {
		var needs []string
		for _, n := range h.Needs {
			needs = append(needs, n.String())
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", h.Phase, words(h.Sees.Headers), words(h.Sees.Attributes), h.Sees.Body, words(needs))
	}
	for _, h := range m.Hooks {
		if h.Answers {
			fmt.Fprintf(&b, "\nAt %s it is shown the gateway's own answers as well.\n", h.Phase)
		}
	}
	var rows strings.Builder
	docMembers(&rows, "", "all", m.Arguments, m.Blocks)
	for _, h := range m.Hooks {
		docMembers(&rows, "", h.Phase.String(), h.Arguments, h.Blocks)
	}
	if rows.Len() > 0 {
		b.WriteString("\n| argument | phase | type | default | meaning |\n|---|---|---|---|---|\n" + rows.String())
	}
	if len(m.Grants) > 0 {
		b.WriteString("\n| grant | reason |\n|---|---|\n")
		for _, g := range m.Grants {
			reason := cell(g.Reason)
			if g.Optional {
				reason += " (optional)"
			}
			fmt.Fprintf(&b, "| %s | %s |\n", g.Capability, reason)
		}
	}
	return b.String()
}

func docMembers(b *strings.Builder, prefix, phase string, arguments []*Argument, blocks []*Block) {
	for _, a := range arguments {
		var notes []string
		if a.Summary != "" {
			notes = append(notes, cell(a.Summary))
		}
		if a.OneOf != nil {
			notes = append(notes, "One of "+words(a.OneOf)+".")
		}
		if a.Pattern != "" {
			notes = append(notes, "Matches `"+cell(a.Pattern)+"`.")
		}
		if a.PerRequest {
			notes = append(notes, "Evaluated for each request.")
		}
		if a.Sensitive {
			notes = append(notes, "Never printed.")
		}
		fmt.Fprintf(b, "| `%s%s` | %s | %s | %s | %s |\n", prefix, a.Name, phase, a.Type.Name, a.defaultText(), strings.Join(notes, " "))
	}
	for _, k := range blocks {
		kind := "block"
		for _, label := range k.Labels {
			kind += " " + strings.ToUpper(label)
		}
		if k.Repeat {
			kind += ", may repeat"
		}
		state := ""
		if k.Required {
			state = "required"
		}
		fmt.Fprintf(b, "| `%s%s` | %s | %s | %s | %s |\n", prefix, k.Name, phase, kind, state, cell(k.Summary))
		docMembers(b, prefix+k.Name+".", phase, k.Arguments, k.Blocks)
	}
}

// defaultText is what stands in for an argument that is not written, as an operator would write it.
func (a *Argument) defaultText() string {
	switch {
	case a.Required:
		return "required"
	case a.Default == cty.NilVal:
		return ""
	case a.Sensitive:
		return "(not shown)"
	}
	switch a.Type.Name {
	case "duration":
		n, _ := a.Default.AsBigFloat().Int64()
		return `"` + FormatDuration(n) + `"`
	case "bytes":
		n, _ := a.Default.AsBigFloat().Int64()
		return `"` + FormatBytes(n) + `"`
	}
	text, err := ctyjson.Marshal(a.Default, a.Type.Cty)
	if err != nil || !json.Valid(text) {
		return ""
	}
	return "`" + cell(string(text)) + "`"
}

// String is the body mode as written in a manifest.
func (b Body) String() string {
	switch b.Mode {
	case BodyBuffer:
		return fmt.Sprintf("buffer(%q)", FormatBytes(b.Max))
	case BodyStream:
		return "stream"
	case BodyEvents:
		return "events"
	}
	return "none"
}

func words(list []string) string {
	var quoted []string
	for _, w := range list {
		quoted = append(quoted, "`"+cell(w)+"`")
	}
	return strings.Join(quoted, ", ")
}

// cell makes text fit in one cell of a table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "\r", " ").Replace(text)
}

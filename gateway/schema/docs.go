package schema

import (
	"fmt"
	"strings"
)

// Docs documents every block below b in Markdown, each after the one it stands in: the tables of the language reference.
func (b *Block) Docs() string {
	var out strings.Builder
	var walk func(b *Block, path string, depth int)
	walk = func(b *Block, path string, depth int) {
		name := b.Name
		for _, l := range b.Labels {
			name += " " + strings.ToUpper(l)
		}
		if path != "" {
			name = path + " → " + name
		}
		fmt.Fprintf(&out, "\n%s `%s`\n\n%s %s\n", strings.Repeat("#", min(3+depth, 5)), name, b.Summary, often(b))
		if len(b.Arguments) > 0 {
			out.WriteString("\n| argument | kind | default | |\n|---|---|---|---|\n")
		}
		for _, a := range b.Arguments {
			preset := "–"
			if a.Required {
				preset = "required"
			} else if a.Preset != "" {
				preset = "`" + a.Preset + "`"
			}
			about := a.Summary
			if len(a.Words) > 0 {
				about += " One of `" + strings.Join(a.Words, "`, `") + "`."
				if a.Kind == Words {
					about = strings.Replace(about, "One of", "Any of", 1)
				}
			}
			if bounds := a.Bounds(); bounds != "" {
				about += " " + strings.ToUpper(bounds[:1]) + bounds[1:] + "."
			}
			if a.Secret {
				about += " May be secret."
			}
			fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", a.Name, a.Kind, preset, about)
		}
		for i := range b.Blocks {
			// The seven phases are alike; one stands for all.
			if n := &b.Blocks[i]; len(n.Labels) == 0 || n.Labels[0] != "plugin" || n.Name == "authenticate" {
				walk(n, name, depth+1)
			}
		}
	}
	for i := range b.Blocks {
		if b.Name != MainFile && b.Blocks[i].Name == "locals" {
			continue
		}
		walk(&b.Blocks[i], "", 0)
	}
	return strings.ReplaceAll(out.String()+"\n", "authenticate PLUGIN", "PHASE PLUGIN")
}

// often says how many of a block may stand in one place.
func often(b *Block) string {
	switch {
	case b.Required && b.Repeat:
		return "At least one."
	case b.Required:
		return "Exactly one."
	case b.Repeat:
		return "Any number."
	}
	return "At most one."
}

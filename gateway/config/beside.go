package config

import (
	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/notation"
	"github.com/postern-gateway/postern/gateway/schema"
	"github.com/postern-gateway/postern/gateway/variable"
)

// Alone is a plugin as its author runs it, without a configuration around it: granted all that it asks for, within the
// limits of an operator who writes none. path is its module's.
func Alone(name, path string, m *manifest.Manifest) *Plugin {
	f := &schema.Findings{}
	s := schema.Open(&variable.Names{Findings: f}, &hcl.Block{Body: hcl.EmptyBody()}, schema.Main().Find("plugin").Find("limits"))
	p := &Plugin{Name: name, Source: path, Path: path, Manifest: m, Limits: pluginLimits(s)}
	for _, g := range m.Grants {
		p.Grants = append(p.Grants, g.Capability)
	}
	return p
}

// Policies reads policy blocks that stand beside a plugin instead of in a configuration; their stages use that plugin
// alone. What is wrong with them goes to names.
func Policies(names *variable.Names, blocks hcl.Blocks, p *Plugin) *schema.Register[Policy] {
	l := &loader{Reader: &notation.Reader{Names: names}, config: &Config{}, policy: schema.PolicyFile(), policies: schema.Register[Policy]{Kind: "policy"}}
	named := &schema.Named[Plugin]{Name: p.Name, Value: p}
	l.plugins = schema.Register[Plugin]{Kind: "plugin", List: []*schema.Named[Plugin]{named}, ByName: map[string]*schema.Named[Plugin]{p.Name: named}}
	for _, b := range blocks {
		if b.Type == "policy" {
			schema.Declare(names.Findings, &l.policies, b)
		}
	}
	l.policyBlocks()
	return &l.policies
}

// Sees says what is wrong with what a manifest wants to see. name is the file's, and text what it was read from.
func Sees(m *manifest.Manifest, name string, text []byte) hcl.Diagnostics {
	f := &schema.Findings{Sources: schema.Sources{name: text}}
	(&loader{Reader: &notation.Reader{Names: &variable.Names{Findings: f}}}).sees(m, name)
	return f.Diags
}

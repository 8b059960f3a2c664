package config

import (
	"path/filepath"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/notation"
	"github.com/postern-gateway/postern/gateway/plugin/admission"
	"github.com/postern-gateway/postern/gateway/privacy"
	"github.com/postern-gateway/postern/gateway/provider"
	"github.com/postern-gateway/postern/gateway/schema"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/variable"
)

// Options is what a configuration depends on besides its files.
type Options struct {
	Variables   map[string]string                // values for variable blocks (-var name=value)
	Environment func(name string) (string, bool) // looks up POSTERN_VAR_name and secrets; nil: an empty environment
	Backends    []state.Backend                  // the state backends compiled in
	Formats     []provider.Format                // the provider formats compiled in
	Version     string                           // the program's version for gateway.requires; empty: not checked
	Secrets     bool                             // read secrets, as run does; otherwise they are values not known yet
	Elsewhere   bool                             // a secret that can not be read is not known, instead of an error: for commands beside a running gateway
	Admit       Admit                            // says whether a module can be run; nil: only its structure is checked
	Modules     bool                             // a plugin's .wasm must be there, as for run; otherwise its plugin.hcl is enough
}

// Admit says why a module of well-formed structure can not be run as a plugin with that manifest, or nil: an import that
// there is not, an export that is missing.
type Admit func(m *admission.Module, mf *manifest.Manifest) error

// Load reads dir/config.hcl and dir/policies/*.hcl. It is pure but for reading files and secrets, and it goes on
// after an error: the diagnostics are all there are, in order, each with a position in the sources. The Config is nil
// when one of them is an error.
func Load(dir string, opt Options) (*Config, schema.Sources, hcl.Diagnostics) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		abs = dir
	}
	f := &schema.Findings{Dir: abs, Sources: schema.Sources{}, Used: map[string]bool{}}
	f.Read()
	return load(f, opt)
}

// loader carries one Load from block to block.
type loader struct {
	*notation.Reader // evaluates, reads, and collects what is wrong
	opt              Options
	config           *Config
	facts            privacy.Facts // what was read so far makes the program do with personal data

	main, policy, test *schema.Block // what stands in the three kinds of file

	listeners schema.Register[Listener]
	plugins   schema.Register[Plugin]
	upstreams schema.Register[Upstream]
	models    schema.Register[Model]
	policies  schema.Register[Policy]
	routes    schema.Register[Route]
	tests     schema.Register[Test]
}

// load turns sources into a Config. The order is fixed: variables, locals, secrets, manifests, blocks, and with them
// references, which resolve whatever the order in the files.
func load(f *schema.Findings, opt Options) (*Config, schema.Sources, hcl.Diagnostics) {
	blocks := f.Parse()
	if _, ok := f.Sources[schema.MainFile]; !ok {
		return nil, f.Sources, f.Tidy()
	}
	l := &loader{
		Reader: &notation.Reader{Names: variable.Evaluate(f, blocks, variable.Outside{
			Values: opt.Variables, Environment: opt.Environment, Secrets: opt.Secrets, Elsewhere: opt.Elsewhere,
		})},
		opt: opt, config: &Config{Dir: f.Dir},
		main: schema.Main(), policy: schema.PolicyFile(), test: schema.TestFile(),
		listeners: schema.Register[Listener]{Kind: "listener"},
		plugins:   schema.Register[Plugin]{Kind: "plugin"},
		upstreams: schema.Register[Upstream]{Kind: "upstream"},
		models:    schema.Register[Model]{Kind: "model"},
		policies:  schema.Register[Policy]{Kind: "policy"},
		routes:    schema.Register[Route]{Kind: "route"},
		tests:     schema.Register[Test]{Kind: "test"},
	}
	for _, n := range l.Secrets() {
		l.config.Secrets = append(l.config.Secrets, &Secret{Name: n.Name, Source: *n.Value, Range: n.At})
	}
	l.declare(blocks)
	l.leaves(blocks)
	l.pluginBlocks()
	l.listenerBlocks()
	l.upstreamBlocks()
	l.modelBlocks()
	l.policyBlocks()
	l.routeBlocks()
	l.privacy()
	l.testBlocks()
	if !l.Diags.HasErrors() {
		l.unused() // after an error, what looks unused is often only misspelt
	}
	l.config.Digest = f.Digest()
	diags := f.Tidy()
	if diags.HasErrors() {
		return nil, f.Sources, diags
	}
	return l.config, f.Sources, diags
}

// declare registers every block that has a name, before any is read.
func (l *loader) declare(blocks hcl.Blocks) {
	for _, b := range blocks {
		switch b.Type {
		case "listener":
			schema.Declare(l.Findings, &l.listeners, b)
		case "plugin":
			schema.Declare(l.Findings, &l.plugins, b)
		case "upstream":
			schema.Declare(l.Findings, &l.upstreams, b)
		case "model":
			schema.Declare(l.Findings, &l.models, b)
		case "policy":
			schema.Declare(l.Findings, &l.policies, b)
		case "route":
			schema.Declare(l.Findings, &l.routes, b)
		case "test":
			schema.Declare(l.Findings, &l.tests, b)
		}
	}
	l.config.Listeners, l.config.Plugins, l.config.Upstreams = l.listeners.Values(), l.plugins.Values(), l.upstreams.Values()
	l.config.Models, l.config.Policies, l.config.Routes = l.models.Values(), l.policies.Values(), l.routes.Values()
	l.config.Tests = l.tests.Values()
}

// unused warns about what nothing refers to.
func (l *loader) unused() {
	l.Names.Unused()
	schema.Unused(l.Findings, &l.listeners, "listener")
	schema.Unused(l.Findings, &l.plugins, "plugin")
	schema.Unused(l.Findings, &l.upstreams, "upstream")
	schema.Unused(l.Findings, &l.models, "model")
	schema.Unused(l.Findings, &l.policies, "policy")
}

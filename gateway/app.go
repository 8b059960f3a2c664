package main

import (
	"context"
	"io"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/operator"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/plugin/admission"
	"github.com/postern-gateway/postern/gateway/project"
	"github.com/postern-gateway/postern/gateway/schema"
)

// App is what a subcommand may use of the world outside: its Run method gets nothing else.
type App struct {
	Context     context.Context // ends at the first interrupt
	Stdin       io.Reader
	Stdout      io.Writer
	Stderr      io.Writer
	Environment func(name string) (string, bool)
	Child       []string // the process that compiles plugins; empty: this one does
}

// operator is what the operators' commands may use of it.
func (a *App) operator() *operator.Shell {
	return &operator.Shell{Context: a.Context, Stdout: a.Stdout, Stderr: a.Stderr, Backends: backends(), Load: a.Load}
}

// errTold ends a command whose mistake has been told already.
var errTold = project.ErrTold

// Load loads the configuration in dir with what is compiled in. Diagnostics go to Stderr; errTold means that there were
// errors among them. Of o, what is compiled in and the environment are filled in here.
func (a *App) Load(dir string, o config.Options) (*config.Config, error) {
	cfg, sources, diags := a.read(dir, o)
	if len(diags) > 0 {
		if err := schema.WriteDiagnostics(a.Stderr, sources, diags, false); err != nil {
			return nil, err
		}
	}
	if diags.HasErrors() {
		return nil, errTold
	}
	return cfg, nil
}

// read is Load without telling.
func (a *App) read(dir string, o config.Options) (*config.Config, schema.Sources, hcl.Diagnostics) {
	imports, err := plugin.Imports(a.Context, abis())
	if err != nil {
		return nil, nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "The plugin engine does not start", Detail: err.Error(), Subject: &hcl.Range{Filename: dir}}}
	}
	if !o.Elsewhere { // the gateway that runs has admitted them
		o.Admit = func(m *admission.Module, mf *manifest.Manifest) error { return plugin.Admit(abis(), imports, m, mf) }
	}
	o.Environment, o.Backends, o.Formats, o.Version = a.Environment, backends(), formats(), version()
	return config.Load(dir, o)
}

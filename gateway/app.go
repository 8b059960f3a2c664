package main

import (
	"context"
	"errors"
	"io"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/schema"
)

// App is what a subcommand may use of the world outside: its Run method gets nothing else.
type App struct {
	Context     context.Context // ends at the first interrupt
	Stdin       io.Reader
	Stdout      io.Writer
	Stderr      io.Writer
	Environment func(name string) (string, bool)
}

// errTold ends a command whose mistake has been told already.
var errTold = errors.New("told")

// Load loads the configuration in dir with what is compiled in. Diagnostics go to Stderr; errTold means that there were
// errors among them. Of o only Variables, Secrets and Modules count.
func (a *App) Load(dir string, o config.Options) (*config.Config, error) {
	o.Environment, o.Backends, o.Formats, o.Version = a.Environment, backends(), formats(), version()
	cfg, sources, diags := config.Load(dir, o)
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

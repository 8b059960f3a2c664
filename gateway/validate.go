package main

import (
	"fmt"
	"strings"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/schema"
)

type validateCommand struct {
	Dir  string            `arg:"" optional:"" default:"." help:"Folder with config.hcl; by default the current one." type:"existingdir"`
	Var  map[string]string `help:"Value of a variable block; repeatable. Otherwise it is read from POSTERN_VAR_NAME." placeholder:"NAME=VALUE"`
	JSON bool              `name:"json" help:"Print one JSON object with every diagnostic, for editors and CI."`
}

// Run loads as run does, but reads no secrets and needs no built plugins, and says everything that is wrong.
func (c *validateCommand) Run(a *App) error {
	if !c.JSON {
		cfg, err := a.Load(c.Dir, config.Options{Variables: c.Var})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.Stdout, "ok: %s\n", inventory(cfg))
		return err
	}
	_, sources, diags := a.read(c.Dir, config.Options{Variables: c.Var})
	if err := schema.WriteDiagnostics(a.Stdout, sources, diags, true); err != nil {
		return err
	}
	if diags.HasErrors() {
		return errTold
	}
	return nil
}

// inventory counts what a configuration has.
func inventory(c *config.Config) string {
	var list []string
	add := func(n int, one, many string) {
		switch n {
		case 0:
		case 1:
			list = append(list, "1 "+one)
		default:
			list = append(list, fmt.Sprint(n, " ", many))
		}
	}
	add(len(c.Listeners), "listener", "listeners")
	add(len(c.Routes), "route", "routes")
	add(len(c.Policies), "policy", "policies")
	add(len(c.Plugins), "plugin", "plugins")
	add(len(c.Upstreams), "upstream", "upstreams")
	add(len(c.Models), "model", "models")
	add(len(c.Tests), "test", "tests")
	return strings.Join(list, ", ")
}

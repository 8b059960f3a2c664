package main

import (
	"io"
	"strings"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/explain"
)

type explainCommand struct {
	Method string            `arg:"" help:"Method of the request, such as POST."`
	URL    string            `arg:"" name:"url" help:"Its URL, or only a path."`
	Dir    string            `arg:"" optional:"" default:"." help:"Folder with config.hcl; by default the current one." type:"existingdir"`
	Header []string          `short:"H" sep:"none" help:"A header field of the request, for conditions." placeholder:"NAME: VALUE"`
	Var    map[string]string `help:"Value of a variable block; repeatable. Otherwise it is read from POSTERN_VAR_NAME." placeholder:"NAME=VALUE"`
}

// Run shows the way of one request: which route takes it and why, and what each stage sees and may do. Nothing is
// sent and no plugin runs.
func (c *explainCommand) Run(a *App) error {
	cfg, err := a.Load(c.Dir, config.Options{Variables: c.Var})
	if err != nil {
		return err
	}
	e := explain.Explainer{Config: cfg, Formats: formats()}
	text, err := e.Request(explain.Request{Method: c.Method, URL: c.URL, Header: c.Header})
	if err != nil {
		return err
	}
	_, err = io.WriteString(a.Stdout, text)
	return err
}

type planCommand struct {
	Dir     string            `arg:"" optional:"" default:"." help:"Folder with config.hcl; by default the current one." type:"existingdir"`
	Var     map[string]string `help:"Value of a variable block; repeatable. Otherwise it is read from POSTERN_VAR_NAME." placeholder:"NAME=VALUE"`
	Against string            `help:"Another folder: show only what differs from it." type:"existingdir" placeholder:"DIR"`
}

// Run shows what a run would open and do, without opening or doing anything. Secrets are named, never read.
func (c *planCommand) Run(a *App) error {
	cfg, err := a.Load(c.Dir, config.Options{Variables: c.Var})
	if err != nil {
		return err
	}
	lines := (&explain.Explainer{Config: cfg, Formats: formats()}).Plan()
	if c.Against != "" {
		other, err := a.Load(c.Against, config.Options{Variables: c.Var})
		if err != nil {
			return err
		}
		if lines = explain.Difference((&explain.Explainer{Config: other, Formats: formats()}).Plan(), lines); len(lines) == 0 {
			lines = []string{"No difference."}
		}
	}
	_, err = io.WriteString(a.Stdout, strings.Join(lines, "\n")+"\n")
	return err
}

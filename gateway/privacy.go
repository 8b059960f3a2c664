package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/operator"
	"github.com/postern-gateway/postern/gateway/privacy/field"
	"github.com/postern-gateway/postern/gateway/privacy/notice"
)

// privacyCommand is about the privacy policy that a configuration amounts to. Nothing is opened.
type privacyCommand struct {
	Report privacyReport `cmd:"" help:"Who sees what, for which purpose, on which basis and for how long, and each route's way of the data."`
	Page   privacyPage   `cmd:"" help:"Print the policy that people read."`
	Fields privacyFields `cmd:"" help:"List every personal field that the program knows, with its data class."`
}

type privacyReport struct {
	Dir  string            `arg:"" optional:"" default:"." help:"Folder with config.hcl; by default the current one." type:"existingdir"`
	Var  map[string]string `help:"Value of a variable block; repeatable. Otherwise it is read from POSTERN_VAR_NAME." placeholder:"NAME=VALUE"`
	JSON bool              `name:"json" help:"Print JSON."`
}

// Run prints the report.
func (c *privacyReport) Run(a *App) error {
	cfg, err := a.Load(c.Dir, config.Options{Variables: c.Var})
	if err != nil {
		return err
	}
	r := cfg.Privacy.Report()
	return operator.Print(a.Stdout, c.JSON, r, func(w *tabwriter.Writer) { _, _ = io.WriteString(w, r.Text()) })
}

type privacyPage struct {
	Dir  string            `arg:"" optional:"" default:"." help:"Folder with config.hcl; by default the current one." type:"existingdir"`
	Var  map[string]string `help:"Value of a variable block; repeatable. Otherwise it is read from POSTERN_VAR_NAME." placeholder:"NAME=VALUE"`
	Lang string            `enum:"en,zh" default:"en" help:"Language: en or zh."`
	HTML bool              `name:"html" help:"Print an HTML fragment instead of plain text."`
}

// Run prints the policy as it will be published.
func (c *privacyPage) Run(a *App) error {
	cfg, err := a.Load(c.Dir, config.Options{Variables: c.Var})
	if err != nil {
		return err
	}
	edition, err := notice.Make(cfg.Privacy)
	if err != nil {
		return err
	}
	page := edition.Page(c.Lang, notice.StandingOf([]*notice.Edition{edition}, edition.Version, time.Now()))
	out := page.Text
	if c.HTML {
		out = string(page.HTML)
	}
	_, err = io.WriteString(a.Stdout, out)
	return err
}

type privacyFields struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run lists the register.
func (c *privacyFields) Run(a *App) error {
	type row struct {
		Name  string     `json:"name"`
		Class string     `json:"class"`
		About field.Text `json:"about"`
	}
	var rows []row
	for _, f := range field.All() {
		rows = append(rows, row{f.Name, f.Class, f.About})
	}
	return operator.Print(a.Stdout, c.JSON, rows, func(w *tabwriter.Writer) {
		fmt.Fprintln(w, "FIELD\tCLASS\tWHAT IT IS")
		for _, r := range rows {
			fmt.Fprintf(w, "%s\t%s\t%s\n", r.Name, r.Class, r.About.En)
		}
	})
}

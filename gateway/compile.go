package main

import "github.com/postern-gateway/postern/gateway/plugin/code"

// compileCommand is what the gateway runs itself as, to compile a plugin's module in a process that it can bound and end.
type compileCommand struct {
	Arguments []string `arg:"" optional:"" help:"What the gateway says: a folder and bounds."`
}

// Run compiles the module on standard input.
func (c *compileCommand) Run(a *App) error {
	if code.Work(a.Context, c.Arguments, a.Stdin, a.Stdout) != 0 {
		return errTold
	}
	return nil
}

package main

import (
	"context"
	"io"
)

// App is what a subcommand may use of the world outside: its Run method gets nothing else.
type App struct {
	Context     context.Context // ends at the first interrupt
	Stdin       io.Reader
	Stdout      io.Writer
	Stderr      io.Writer
	Environment func(name string) (string, bool)
}

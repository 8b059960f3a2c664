// Command compile turns a plugin's module into machine code for tests: what a gateway runs itself for, as a program of its own.
// A test that was built with the race detector compiles several times slower than this does.
package main

import (
	"context"
	"os"

	"github.com/postern-gateway/postern/gateway/plugin/code"
)

func main() { os.Exit(code.Work(context.Background(), os.Args[1:], os.Stdin, os.Stdout)) }

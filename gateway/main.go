// Command postern is a lean edge gateway for APIs and AI models. Each subcommand is a file of its own here; builtin.go
// lists what is compiled in; DESIGN.md tells a request's life.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/postern-gateway/postern/gateway/operator"
	"github.com/postern-gateway/postern/gateway/plugin/code"
	"github.com/postern-gateway/postern/gateway/project"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/sdk"
)

// commands is the command line.
type commands struct {
	Run      runCommand       `cmd:"" help:"Serve what a folder's configuration says, until interrupted."`
	Reload   operator.Reload  `cmd:"" help:"Have the running gateway load its files again."`
	Validate validateCommand  `cmd:"" help:"Say everything that is wrong with a configuration."`
	Fmt      fmtCommand       `cmd:"" help:"Write configuration files in the canonical style."`
	Plan     planCommand      `cmd:"" help:"Show what a run would open and do."`
	Explain  explainCommand   `cmd:"" help:"Show a request's way: its route, its stages and what each sees."`
	Test     testCommand      `cmd:"" help:"Run the tests in policies/*_test.hcl."`
	Plugin   project.Commands `cmd:"" help:"Write plugins: make, build, test, measure and try one."`
	Account  operator.Account `cmd:"" help:"Accounts and their API keys."`
	Ledger   operator.Ledger  `cmd:"" help:"Credits, balances, entries, and their proof."`
	Usage    operator.Usage   `cmd:"" help:"What accounts called: sums, calls, and their proof."`
	Audit    operator.Audit   `cmd:"" help:"Who did what: the log of operators and people, and its proof."`
	Vault    operator.Vault   `cmd:"" help:"The keys of what is kept sealed."`
	Privacy  privacyCommand   `cmd:"" help:"What is done with personal data: the report and the published policy."`
	Version  versionCommand   `cmd:"" help:"Print the version."`
	Compile  compileCommand   `cmd:"" hidden:"" name:"compile-module" help:"What the gateway runs to compile a plugin."`
}

func main() {
	log.SetOutput(io.Discard) // libraries write here what peers sent them, and that may be anybody's data
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	app := &App{Context: ctx, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Environment: os.LookupEnv, Child: code.Self("compile-module")}
	code := app.Main(os.Args[1:])
	stop()
	os.Exit(code)
}

// exit is how the command line's parser ends a command early, for help.
type exit int

// Main runs one command and returns the process's exit code: 0, 1 when it failed, 2 when it was not understood.
func (a *App) Main(arguments []string) (code int) {
	defer func() {
		if r := recover(); r != nil {
			early, ok := r.(exit)
			if !ok {
				panic(r)
			}
			code = int(early)
		}
	}()
	if len(arguments) == 0 {
		a.Main([]string{"--help"})
		return 2
	}
	parser, err := kong.New(&commands{},
		kong.Name("postern"),
		kong.Description("A lean edge gateway for APIs and AI models. Its rules are config.hcl and policies/*.hcl of one folder; policies/README.md explains them. Exit codes: 0 done, 1 failed, 2 not understood."),
		kong.Writers(a.Stdout, a.Stderr),
		kong.Exit(func(code int) { panic(exit(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Bind(a, a.shell(), a.operator()),
		kong.Vars{"languages": strings.Join(sdk.Names(), ", ")},
	)
	if err != nil {
		return a.fail(err)
	}
	command, err := parser.Parse(doubleDashes(asked(arguments)))
	if err != nil {
		fmt.Fprintf(a.Stderr, "postern: %s\nTry: postern --help\n", err)
		return 2
	}
	return a.fail(command.Run())
}

// asked takes the other ways in which people ask for help and version.
func asked(arguments []string) []string {
	switch arguments[0] {
	case "help":
		return append(slices.Clone(arguments[1:]), "--help")
	case "-v", "-version", "--version":
		return []string{"version"}
	}
	return arguments
}

func (a *App) fail(err error) int {
	if err == nil {
		return 0
	}
	if !errors.Is(err, errTold) {
		fmt.Fprintf(a.Stderr, "postern: %s%s\n", err, advice(err))
	}
	return 1
}

// advice is what to do about an error whose own text says only what happened.
func advice(err error) string {
	switch {
	case errors.Is(err, state.ErrLocked):
		return ": if it is a running gateway, stop that first, or change what it does with postern reload"
	case errors.Is(err, state.ErrFull):
		return ": make room on the disk, or lower reserve in the state block"
	case errors.Is(err, syscall.EADDRINUSE):
		return ": stop what listens there, or choose another address"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return ": this machine has no such address; choose one it has, or none for all, as in \":8443\""
	case errors.Is(err, fs.ErrPermission):
		return ": the user who runs postern needs the right to do this"
	}
	return ""
}

// doubleDashes lets flags be written with one dash, as Go's and Terraform's commands have them.
func doubleDashes(arguments []string) []string {
	out := make([]string, 0, len(arguments))
	for i, a := range arguments {
		if a == "--" {
			return append(out, arguments[i:]...)
		}
		if len(a) > 2 && a[0] == '-' && a[1] != '-' && (a[1] < '0' || a[1] > '9') && a[1] != '.' {
			a = "-" + a
		}
		out = append(out, a)
	}
	return out
}

// version is the module's version where the binary was installed from one, else the development version.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && strings.HasPrefix(info.Main.Version, "v") && !strings.Contains(info.Main.Version, "+dirty") && !strings.HasPrefix(info.Main.Version, "v0.0.0-") {
		return strings.TrimPrefix(info.Main.Version, "v")
	}
	return "0.1.0"
}

type versionCommand struct{}

// Run prints the version.
func (*versionCommand) Run(a *App) error {
	_, err := io.WriteString(a.Stdout, "postern "+version()+"\n")
	return err
}

package project

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/sdk"
)

// buildTime bounds a compiler's run.
const buildTime = 10 * time.Minute

// missingTool is the status of an SDK's build script that finds no compiler; what it prints says how to get one.
const missingTool = 69

// ErrToolchain is wrapped by the error of a build for which no compiler is installed.
var ErrToolchain = errors.New("missing toolchain")

type buildCommand struct {
	Dir   string `arg:"" optional:"" default:"." type:"existingdir" help:"The plugin's folder; by default the current one."`
	Out   string `short:"o" placeholder:"FILE" help:"The module to write; by default NAME.wasm in the folder."`
	Debug bool   `help:"Keep names and line tables, so that a gateway's log shows where in the sources the plugin failed."`
}

// Run builds the module.
func (c *buildCommand) Run(s *Shell) error {
	p, err := s.Open(c.Dir)
	if err != nil {
		return err
	}
	out := c.Out
	if out == "" {
		out = p.Module()
	}
	wasm, err := s.build(p, c.Debug)
	if err != nil {
		return err
	}
	return s.deliver(p, wasm, out)
}

// deliver writes a module once it is known that a gateway takes it, and says so.
func (s *Shell) deliver(p *Project, wasm []byte, out string) error {
	// It is checked under the name it will have beside it, and gets that name when it is in order.
	trying := out + ".new"
	if err := writeFile(trying, wasm); err != nil {
		return err
	}
	if _, err := s.check(p.alone(trying), s.cache()); err != nil {
		return errors.Join(errors.New(strings.ReplaceAll(err.Error(), trying, out)), os.Remove(trying))
	}
	if err := os.Rename(trying, out); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.Stdout, "%s: %s, sha256 %x\n", relative(out), size(int64(len(wasm))), sha256.Sum256(wasm))
	return err
}

// build compiles the project and packs its manifest. Without debug what only helps to find mistakes is taken out.
func (s *Shell) build(p *Project, debug bool) ([]byte, error) {
	l, err := p.Language()
	if err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "postern-build-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(scratch) }() // what is left in the system's folder for such things does no harm
	out := filepath.Join(scratch, p.Name+".wasm")
	ctx, cancel := context.WithTimeout(s.Context, buildTime)
	defer cancel()
	cmd, err := compiler(ctx, p, l, scratch, out)
	if err != nil {
		return nil, err
	}
	cmd.Dir = p.Dir
	cmd.WaitDelay = 5 * time.Second
	if said, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("build %s: %w", p.Name, ctx.Err())
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == missingTool {
			return nil, fmt.Errorf("%w: %s", ErrToolchain, strings.TrimSpace(string(said)))
		}
		fmt.Fprintf(s.Stderr, "%s", said)
		return nil, fmt.Errorf("build %s: the compiler failed: %w", p.Name, err)
	}
	wasm, err := readFile(out, maxRead)
	if err != nil {
		return nil, fmt.Errorf("build %s: the compiler made no module: %w", p.Name, err)
	}
	if !debug {
		if wasm, err = manifest.Strip(wasm); err != nil {
			return nil, fmt.Errorf("build %s: %w", p.Name, err)
		}
	}
	return manifest.Pack(wasm, p.Manifest.Source)
}

// compiler is the command that compiles a project: Go's own, or the SDK's build script, the project's copy of it before the
// one that this program holds.
func compiler(ctx context.Context, p *Project, l sdk.Language, scratch, out string) (*exec.Cmd, error) {
	missing := func(tool string) error {
		return fmt.Errorf("%w: %s is not there, and plugins in %s need it: %s", ErrToolchain, tool, l.Title, l.Needs)
	}
	text := l.Script()
	if text == nil {
		if _, err := exec.LookPath("go"); err != nil {
			return nil, missing("go")
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildmode=c-shared", "-o", out, ".")
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
		return cmd, nil
	}
	if _, err := exec.LookPath("sh"); err != nil {
		return nil, missing("a POSIX shell")
	}
	script := filepath.Join(p.Dir, sdk.Folder, "build")
	if _, err := os.Stat(script); err != nil {
		script = filepath.Join(scratch, "build")
		if err := os.WriteFile(script, text, 0o600); err != nil {
			return nil, err
		}
	}
	return exec.CommandContext(ctx, "sh", script, p.Dir, out), nil
}

// size is a number of octets for people.
func size(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d octets", n)
	case n < 10<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// relative is a path as people see it from where they are.
func relative(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(here, path); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return path
}

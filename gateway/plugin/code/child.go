package code

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

const (
	// maxMetered bounds what the child reads: admission lets a module of 8 MiB grow, and refuses more than this.
	maxMetered = 64 << 20
	// maxSaid bounds what is kept of what a child says.
	maxSaid = 4 << 10
	// refused is the exit code of a child that says on standard output why the module can not be compiled. The Go runtime
	// ends a process by 2.
	refused = 1
)

// child compiles a module into a folder by another process, and waits for its end whatever becomes of it. The process
// gets nothing of this one's: no environment, no files but its three, a process group of its own, which is killed as a
// whole.
func (c *Compiler) child(ctx context.Context, dir string, wasm []byte) error {
	line := append(append([]string{}, c.config.Child...), dir, strconv.FormatInt(c.config.Memory, 10), strconv.Itoa(int(c.config.Time/time.Second)+1))
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	var said, failed bounded
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(wasm), &said, &failed
	cmd.Env = []string{"GOMAXPROCS=2", "GOTRACEBACK=none"}
	cmd.WaitDelay = time.Second
	apart(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the process that compiles plugins: %w", err)
	}
	behind(cmd.Process.Pid)
	err := cmd.Wait()
	var ended *exec.ExitError
	switch {
	case err == nil:
		return nil
	case c.ctx.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil:
		return fmt.Errorf("compiling takes longer than %s", c.config.Time)
	case errors.As(err, &ended) && ended.ExitCode() == refused:
		return errors.New(said.String())
	case strings.Contains(failed.String(), "out of memory"), strings.Contains(failed.String(), "cannot allocate memory"):
		return fmt.Errorf("compiling takes more than %d MiB of memory", c.config.Memory>>20)
	}
	return fmt.Errorf("the process that compiles plugins failed: %w: %s", err, strings.TrimSpace(failed.String()))
}

// bounded keeps the beginning of what is written to it.
type bounded struct{ kept bytes.Buffer }

// Write keeps what there is room for and never fails.
func (b *bounded) Write(p []byte) (int, error) {
	b.kept.Write(p[:min(len(p), maxSaid-b.kept.Len())])
	return len(p), nil
}

// String is what was kept.
func (b *bounded) String() string { return b.kept.String() }

// Work is what the process of Config.Child does. Its arguments are what a Compiler appends: a folder, the octets of memory
// and the seconds of CPU it may take. A module, metered already, comes by in. Its machine code is left in the folder; what
// is wrong with the module is said to out. It returns the process's exit code.
func Work(ctx context.Context, arguments []string, in io.Reader, out io.Writer) int {
	if err := work(ctx, arguments, in); err != nil {
		_, _ = io.WriteString(out, err.Error()) // the parent has gone, or learns it from the exit code
		return refused
	}
	return 0
}

func work(ctx context.Context, arguments []string, in io.Reader) error {
	if len(arguments) != 3 {
		return fmt.Errorf("%d arguments, not a folder, octets and seconds", len(arguments))
	}
	memory, err := strconv.ParseInt(arguments[1], 10, 64)
	if err != nil || memory <= 0 {
		return fmt.Errorf("memory %q is no number of octets", arguments[1])
	}
	seconds, err := strconv.ParseUint(arguments[2], 10, 32)
	if err != nil || seconds == 0 {
		return fmt.Errorf("time %q is no number of seconds", arguments[2])
	}
	if err := bound(memory, seconds); err != nil {
		return fmt.Errorf("bound the process: %w", err)
	}
	debug.SetMemoryLimit(memory / 4 * 3)
	wasm, err := io.ReadAll(io.LimitReader(in, maxMetered+1))
	switch {
	case err != nil:
		return fmt.Errorf("read the module: %w", err)
	case len(wasm) > maxMetered:
		return fmt.Errorf("the metered module is larger than %d octets", maxMetered)
	}
	return fill(ctx, arguments[0], wasm)
}

// Self is the command line that starts the running program anew with these arguments, for Config.Child. Where the system
// knows it, it is the very program that runs, also after its file was replaced by another version.
func Self(arguments ...string) []string {
	path, err := os.Executable()
	if _, missing := os.Stat(running); missing == nil {
		path, err = running, nil
	}
	if err != nil {
		return append([]string{os.Args[0]}, arguments...)
	}
	return append([]string{path}, arguments...)
}

//go:build linux

package peer

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a proxy that runs, with all its children.
type Process struct {
	Address string      // where it listens, host:port
	Path    string      // stands before the path of chat completions
	Header  [][2]string // what a client has to send with each request

	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
	err  error         // how, once done is closed
	tree []int
}

// Start prepares a peer for a site and starts it on a processor; -1 leaves it to the kernel.
func Start(ctx context.Context, p Peer, tool Tool, s Site, cpu int) (*Process, error) {
	s.Dir = filepath.Join(s.Dir, strings.ReplaceAll(p.Name, "+", "-"))
	if err := os.RemoveAll(s.Dir); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", p.Name, err)
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil { //nolint:gosec // nginx's worker is another user
		return nil, fmt.Errorf("prepare %s: %w", p.Name, err)
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	s.Address, s.tool = fmt.Sprintf("127.0.0.1:%d", port), tool.Path
	plan, err := p.prepare(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", p.Name, err)
	}
	if cpu >= 0 {
		plan.args = append([]string{"taskset", "-c", strconv.Itoa(cpu)}, plan.args...)
	}
	out, err := os.Create(filepath.Join(s.Dir, "log"))
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer out.Close()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), plan.args[0], plan.args[1:]...) //nolint:gosec // Stop ends it
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = s.Dir, out, out, append(os.Environ(), plan.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	run := &Process{Address: s.Address, Path: plan.path, Header: plan.header, cmd: cmd, log: out.Name(), done: make(chan struct{}), tree: []int{cmd.Process.Pid}}
	go func() {
		defer close(run.done)
		run.err = cmd.Wait()
	}()
	return run, nil
}

// Ended says how the process has ended, with the end of what it wrote; nil while it runs.
func (p *Process) Ended() error {
	select {
	case <-p.done:
		how := "without an error"
		if p.err != nil {
			how = p.err.Error()
		}
		return fmt.Errorf("it has ended while it was needed: %s\n%s", how, p.Log())
	default:
		return nil
	}
}

// Log is the end of what the process wrote.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// Stop ends the process and its children, first kindly.
func (p *Process) Stop() {
	group := -p.cmd.Process.Pid
	_ = syscall.Kill(group, syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
	}
	_ = syscall.Kill(group, syscall.SIGKILL) // as may its children
	<-p.done
}

// Look finds the process's children anew; Usage and Memory are of those last found.
func (p *Process) Look() error {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	parents := map[int]int{}
	for _, file := range stats {
		fields, pid, err := stat(file)
		if err != nil {
			continue // it ended meanwhile
		}
		if parents[pid], err = strconv.Atoi(fields[1]); err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
	}
	p.tree = []int{p.cmd.Process.Pid}
	for i := 0; i < len(p.tree); i++ {
		for pid, parent := range parents {
			if parent == p.tree[i] && !slices.Contains(p.tree, pid) {
				p.tree = append(p.tree, pid)
			}
		}
	}
	return nil
}

// Processes are the numbers of the processes last found, with commas between.
func (p *Process) Processes() string {
	var list []string
	for _, pid := range p.tree {
		list = append(list, strconv.Itoa(pid))
	}
	return strings.Join(list, ",")
}

// stat is what /proc says of a process, from its state on, which is field 3 in proc(5).
func stat(file string) (fields []string, pid int, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, 0, err
	}
	open, end := bytes.IndexByte(b, ' '), bytes.LastIndexByte(b, ')')
	if open < 0 || end < 0 {
		return nil, 0, fmt.Errorf("read %s: %.100q", file, b)
	}
	if pid, err = strconv.Atoi(string(b[:open])); err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", file, err)
	}
	if fields = strings.Fields(string(b[end+1:])); len(fields) < 20 {
		return nil, 0, fmt.Errorf("read %s: %.100q", file, b)
	}
	return fields, pid, nil
}

// tick is the unit of processor time in /proc, USER_HZ, which is 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// Usage is the processor time that the process and its children have used, the kernel's for them included.
func (p *Process) Usage() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range p.tree {
		fields, _, err := stat(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, fmt.Errorf("processor time of the proxy: %w", err)
		}
		for _, f := range fields[11:13] { // utime, stime
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("processor time of the proxy: %w", err)
			}
			sum += time.Duration(n) * tick
		}
	}
	return sum, nil
}

// Memory is the resident memory of the process and its children in octets; what they share counts once.
func (p *Process) Memory() (int64, error) {
	var sum int64
	for _, pid := range p.tree {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, fmt.Errorf("memory of the proxy: %w", err)
		}
		_, rest, ok := strings.Cut(string(b), "\nPss:")
		fields := strings.Fields(rest)
		if !ok || len(fields) == 0 {
			return 0, fmt.Errorf("memory of the proxy: %.200q", b)
		}
		n, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("memory of the proxy: %w", err)
		}
		sum += n << 10
	}
	return sum, nil
}

// Busy is the time that a processor has not been idle, for whomever; of all processors for -1.
func Busy(cpu int) (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("processor time: %w", err)
	}
	name := "cpu"
	if cpu >= 0 {
		name += strconv.Itoa(cpu)
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 9 || fields[0] != name {
			continue
		}
		var sum time.Duration
		for i, f := range fields[1:9] {
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("processor time: %w", err)
			}
			if i != 3 && i != 4 { // idle, iowait
				sum += time.Duration(n) * tick
			}
		}
		return sum, nil
	}
	return 0, fmt.Errorf("processor time: /proc/stat does not know %s", name)
}

package code

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// running is the program that runs, whatever became of its file.
const running = "/proc/self/exe"

// bound limits this process for the rest of its life: the memory it may write to, its CPU time, the files it writes, and
// no core dump. The CPU time also ends it when its parent is gone.
func bound(memory int64, seconds uint64) error {
	for _, l := range []struct {
		resource int
		most     uint64
	}{
		{syscall.RLIMIT_DATA, uint64(memory)}, {syscall.RLIMIT_CPU, seconds}, {syscall.RLIMIT_FSIZE, uint64(memory)}, {syscall.RLIMIT_CORE, 0},
	} {
		if err := syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: l.most, Max: l.most}); err != nil {
			return fmt.Errorf("setrlimit %d: %w", l.resource, err)
		}
	}
	return nil
}

// apart puts a process into a group of its own, which is killed as a whole.
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// behind lets a process stand back when requests want the processors. It is right after the start, before the process has
// threads, which take over what the first one has.
func behind(pid int) {
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, pid, 10) // a process that has ended already needs none
}

// private makes sure that a folder can be written by this user alone: what is in it is run.
func private(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others can write to it (mode %o), and what is in it is run: chmod 700 it", info.Mode().Perm())
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() && s.Uid != 0 {
		return errors.New("it belongs to another user, and what is in it is run")
	}
	return nil
}

// Package conformance runs suites that others wrote for servers and proxies through the gateway: a gateway conforms when
// nothing of what they measure can tell that it is there. `make test` runs a short form of each, `make conformance` the whole.
package conformance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// role is the environment variable by which the test binary is one of the programs of a suite instead.
const role = "POSTERN_CONFORMANCE_ROLE"

// gatewayBinary is the environment variable that tells such a program where the gateway is, and the tests, where it is not theirs to
// build.
const gatewayBinary = "POSTERN_CONFORMANCE_BINARY"

func TestMain(m *testing.M) {
	as, found := map[string]func(context.Context) error{
		"server": serverUnderTest,
		"client": clientUnderTest,
		"origin": eventOrigin,
	}[os.Getenv(role)]
	if !found {
		os.Exit(m.Run())
	}
	ctx, stop := contextOfSignals()
	err := as(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// whole says that the long forms are wanted.
func whole() bool { return os.Getenv("POSTERN_SOAK") != "" }

// tool is a program that .ci/tools installs. Without it the test is skipped, but never where changes are judged.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", "tools", name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		message := name + " is not installed; to get it: sh .ci/tools"
		if os.Getenv("CI") == "true" {
			t.Fatal(message)
		}
		t.Skip(message)
	}
	return path
}

var built = sync.OnceValues(func() (string, error) {
	if b := os.Getenv(gatewayBinary); b != "" {
		return b, nil
	}
	// The gateway's source is nothing that this package imports: looking at it makes go test notice when it has changed.
	if err := filepath.WalkDir("..", func(_ string, _ fs.DirEntry, err error) error { return err }); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "postern-conformance-")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", dir, "../../gateway").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return filepath.Join(dir, "gateway"), nil
})

// program builds the gateway and returns its path.
func program(t testing.TB) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// gateway is a running gateway, in a process of its own: what it needs can be measured, and suites that start programs can start it.
type gateway struct {
	addresses map[string]string // by the listeners' names
	process   *os.Process
	stop      func() error // ends it and says what was wrong with it; later calls say the same
}

// startGateway runs the gateway on one file of configuration, with others beside it.
func startGateway(program string, files map[string]string, log io.Writer) (*gateway, error) {
	dir, err := os.MkdirTemp("", "postern-conformance-")
	if err != nil {
		return nil, err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(program, "run", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	g := &gateway{process: cmd.Process, addresses: map[string]string{}}
	serving := make(chan string, 1)
	ended := make(chan error, 1)
	var last string
	go func() {
		lines := bufio.NewScanner(said)
		for lines.Scan() {
			last = lines.Text()
			if _, list, ok := strings.Cut(last, "msg=serving listeners="); ok {
				serving <- list
			}
			fmt.Fprintln(log, last)
		}
		ended <- cmd.Wait()
	}()
	g.stop = sync.OnceValue(func() error {
		defer os.RemoveAll(dir)
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case err := <-ended:
			return err
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			return errors.Join(errors.New("the gateway did not stop"), <-ended)
		}
	})
	select {
	case list := <-serving:
		for _, one := range regexp.MustCompile(`(\w+)=([0-9.:]+)`).FindAllStringSubmatch(list, -1) {
			g.addresses[one[1]] = one[2]
		}
		return g, nil
	case err := <-ended:
		ended <- err
		return nil, fmt.Errorf("the gateway did not start: %w: %s", err, last)
	case <-time.After(60 * time.Second):
		return nil, errors.Join(errors.New("the gateway did not start"), g.stop())
	}
}

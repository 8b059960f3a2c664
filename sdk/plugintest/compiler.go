package plugintest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"
)

// CacheDir is where modules compiled to machine code are kept between runs of tests, for all of them; empty: nowhere.
func CacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "postern", "plugintest")
}

// Compiler is the process that compiles modules in place of a test that was built with the race detector, which would take
// ten times as long: a Child for plugin.Config. It is empty where the test does it as quickly itself, or where the process
// can not be built, which the test's log then says.
func Compiler(t testing.TB) []string {
	t.Helper()
	if !raceDetector {
		return nil
	}
	program, err := compiler()
	if err != nil {
		t.Logf("modules are compiled slowly: %v", err)
		return nil
	}
	return []string{program}
}

// compiler builds the process, unless it is there and up to date.
var compiler = sync.OnceValues(func() (string, error) {
	dir := CacheDir()
	if dir == "" {
		return "", errors.New("there is no folder to build the process in")
	}
	dir = filepath.Join(filepath.Dir(dir), "compile")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make a folder for the process: %w", err)
	}
	// The engine looks only for what its own version made. It takes that from what a program says of its modules; tests say
	// nothing, unless they are a program's.
	const engine = "github.com/tetratelabs/wazero"
	version := "dev"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == engine {
				version = dep.Version
			}
		}
	}
	out := filepath.Join(dir, version)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := goCommand(ctx, "build", "-buildvcs=false", "-ldflags=-X="+engine+"/internal/version.version="+version, "-o", out, "github.com/postern-gateway/postern/sdk/plugintest/compile")
	cmd.Env = append(cmd.Env, "GOTMPDIR="+dir) // beside the file, so that it is replaced as a whole, whoever runs it meanwhile
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the process: %w\n%s", err, text)
	}
	return out, nil
})

// goCommand is a command of the ordinary toolchain, with nothing of the race detector.
func goCommand(ctx context.Context, arguments ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", arguments...) // go test puts its own first
	cmd.Env = append(os.Environ(), "GOFLAGS="+strings.ReplaceAll(os.Getenv("GOFLAGS"), "-race", ""))
	return cmd
}

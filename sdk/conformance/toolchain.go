package conformance

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/sdk"
)

// Language is one SDK of this repository.
type Language struct {
	Name   string // the folder below sdk: "go", "rust" ...
	folder string // absolute
	script bool   // it is built by the script build, and not by the go command
}

// missing is the status of an SDK's build script when a tool is not there; its message says how to get it.
const missing = 69

// Languages are the SDKs of this repository, in the order in which they are listed to people.
func Languages(t testing.TB) []Language {
	t.Helper()
	var list []Language
	for _, l := range sdk.Languages() {
		list = append(list, Language{Name: l.Name, folder: filepath.Join(repository(t), "sdk", l.Name), script: l.Script() != nil})
	}
	return list
}

// Need returns the path of a tool: of bin/tools in the repository, where .ci/tools puts what it installs, or of PATH. Where there
// is none the test is skipped with a line that says how to get it, and fails when CI=true.
func Need(t testing.TB, tool, how string) string {
	t.Helper()
	if path := filepath.Join(repository(t), "bin", "tools", tool); executable(path) {
		return path
	}
	path, err := exec.LookPath(tool)
	if err != nil {
		Missing(t, fmt.Sprintf("%s is not installed: %s", tool, how))
	}
	return path
}

// Missing skips a test for want of a toolchain, or fails it when CI=true: there, everything has to be tested. why is one line that
// says how to get it.
func Missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI=true, and %s", why)
	}
	t.Skip(why)
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// repository is the folder that holds go.mod.
func repository(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if filepath.Dir(dir) == dir {
			t.Fatal("no go.mod above the test's folder")
		}
		dir = filepath.Dir(dir)
	}
}

// Build makes a module from one of the language's own projects, "example" or "conformance", and returns its path. A module that was
// built before from the same sources is used again, except when CI=true.
func (l Language) Build(t testing.TB, project string) string {
	t.Helper()
	dir := filepath.Join(l.folder, project)
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the SDK has no %s: %v", project, err)
	}
	name := l.Name + "-" + project + "-" + l.digest(t, project) + ".wasm"
	kept := ""
	if cache, err := os.UserCacheDir(); err == nil && os.Getenv("CI") != "true" {
		kept = filepath.Join(cache, "postern", "conformance", name)
		if _, err := os.Stat(kept); err == nil {
			return kept
		}
	}
	out := filepath.Join(t.TempDir(), name)
	l.build(t, dir, out)
	if kept == "" {
		return out
	}
	// What another process builds meanwhile is the same; a file appears whole or not at all.
	if err := keep(out, kept); err != nil {
		t.Logf("not kept for the next run: %v", err)
		return out
	}
	return kept
}

func keep(file, as string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(as), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(as), "new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), as)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error is the one that matters
	}
	return err
}

func (l Language) build(t testing.TB, dir, out string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", filepath.Join(l.folder, "build"), dir, out)
	if !l.script {
		cmd = exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-buildmode=c-shared", "-o", out, ".") // go test puts its own first
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	}
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == missing:
		Missing(t, strings.TrimSpace(said.String()))
	case err != nil:
		t.Fatalf("build %s: %v\n%s", dir, err, said.String())
	}
}

// digest covers what a module is built from: the SDK's own files and the project's, without what tools leave behind. For Go the rest
// of the module does not matter: the SDK imports sdk/abi alone.
func (l Language) digest(t testing.TB, project string) string {
	t.Helper()
	roots := []string{l.folder}
	if !l.script {
		roots = append(roots, filepath.Join(l.folder, "..", "abi"))
	}
	hash := sha256.New()
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name := d.Name()
			if d.IsDir() {
				other := filepath.Dir(path) == l.folder && (name == "example" || name == "conformance") && name != project
				if other || slices.Contains([]string{"node_modules", "target", ".zig-cache", "zig-out", "build"}, name) {
					return filepath.SkipDir
				}
				return nil
			}
			if !d.Type().IsRegular() || filepath.Ext(name) == ".wasm" || strings.HasSuffix(name, "_test.go") || filepath.Ext(name) == ".md" {
				return nil
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			fmt.Fprintf(hash, "%s %d\n", rel, len(b))
			hash.Write(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return hex.EncodeToString(hash.Sum(nil)[:8])
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFmt(t *testing.T) {
	t.Parallel()
	const ugly, pretty = "\nroute \"a\" {\nmatch=\"/\"\n  timeout   = \"5s\"\n}\n\n", "route \"a\" {\n  match   = \"/\"\n  timeout = \"5s\"\n}\n"
	dir := folder(t, map[string]string{
		"config.hcl": pretty, "policies/a.hcl": ugly, "policies/broken.hcl": "policy {\n", "README.md": "match=1\n", ".hidden/x.hcl": ugly,
	})
	a, broken := filepath.Join(dir, "policies/a.hcl"), filepath.Join(dir, "policies/broken.hcl")
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}

	if code, out, _ := command(t, "", "fmt", "-check", a); code != 1 || out != a+"\n" || read(a) != ugly {
		t.Errorf("check: %d %q", code, out)
	}
	if code, out, _ := command(t, "", "fmt", "--no-write", a); code != 0 || out != pretty || read(a) != ugly {
		t.Errorf("no-write: %d %q", code, out)
	}
	// A broken file is told with its place and left alone, and the others are formatted all the same.
	if code, out, errs := command(t, "", "fmt", dir); code != 1 || out != a+"\n" || !strings.Contains(errs, "broken.hcl:1:") {
		t.Errorf("write: %d %q %q", code, out, errs)
	}
	if read(a) != pretty || read(broken) != "policy {\n" || read(filepath.Join(dir, ".hidden/x.hcl")) != ugly {
		t.Error("what was written is not what was asked for")
	}
	if info, err := os.Stat(a); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if code, out, _ := command(t, "", "fmt", "-check", a, filepath.Join(dir, "config.hcl")); code != 0 || out != "" {
		t.Errorf("formatted: %d %q", code, out)
	}
	if code, out, _ := command(t, ugly, "fmt", "-"); code != 0 || out != pretty {
		t.Errorf("standard input: %d %q", code, out)
	}
	if code, _, errs := command(t, "", "fmt", filepath.Join(dir, "README.md")); code != 1 || !strings.Contains(errs, "not a .hcl file") {
		t.Errorf("other file: %d %q", code, errs)
	}
	if code, _, _ := command(t, "", "fmt", filepath.Join(dir, "missing.hcl")); code != 1 {
		t.Errorf("missing file: %d", code)
	}
}

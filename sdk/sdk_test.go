package sdk_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/postern-gateway/postern/sdk"
)

// TestProjectHasTheWholeSDK: every file of an SDK and of its example is in a new project, so that nobody who adds one to the SDK
// can forget it.
func TestProjectHasTheWholeSDK(t *testing.T) {
	t.Parallel()
	for _, l := range sdk.Languages() {
		files, err := l.Project("thing")
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("git", "ls-files", "-z", "--", l.Name).Output() //nolint:gosec,noctx // a folder's name
		if err != nil {
			t.Skip("not a git checkout: the SDK's files can not be listed")
		}
		for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
			base := path.Base(name)
			rel := strings.TrimPrefix(name, l.Name+"/")
			to := path.Join(sdk.Folder, rel)
			if from, example := strings.CutPrefix(rel, "example/"); example {
				to = from
			}
			switch {
			case strings.HasPrefix(rel, "conformance/") || strings.Contains(rel, "testdata/") || strings.HasPrefix(rel, "tests/") || strings.Contains(base, "_test.") || base == "README.md" || base == ".gitignore" || base == "rustfmt.toml":
				continue
			case files[to] == nil:
				t.Errorf("a new project in %s has no %s, which is %s in the SDK", l.Title, to, name)
			}
		}
		for name, text := range files {
			if strings.Contains(string(text), "github.com/postern-gateway/postern") && filepath.Ext(name) == ".go" && strings.Contains(string(text), "import") {
				for line := range strings.Lines(string(text)) {
					if !strings.HasPrefix(strings.TrimSpace(line), "//") && strings.Contains(line, "github.com/postern-gateway") {
						t.Errorf("%s: %s imports from outside: %s", l.Title, name, line)
					}
				}
			}
		}
	}
}

// TestDetect: a project is told by its files, and so are the SDKs' own examples.
func TestDetect(t *testing.T) {
	t.Parallel()
	for _, l := range sdk.Languages() {
		if got, ok := sdk.Detect(os.DirFS(filepath.Join(l.Name, "example"))); !ok || got.Name != l.Name {
			t.Errorf("the example in %s is taken for %q", l.Title, got.Name)
		}
		files, err := l.Project("thing")
		if err != nil {
			t.Fatal(err)
		}
		project := fstest.MapFS{}
		for name, text := range files {
			project[name] = &fstest.MapFile{Data: text}
		}
		if got, _ := sdk.Detect(project); got.Name != l.Name {
			t.Errorf("a new project in %s is taken for %q", l.Title, got.Name)
		}
		if _, err := fs.Stat(project, l.Source); err != nil {
			t.Errorf("%s: there is no %s", l.Title, l.Source)
		}
		if (l.Script() == nil) != (l.Name == "go") {
			t.Errorf("%s: no build script, or one that is not used", l.Title)
		}
	}
	if l, ok := sdk.Detect(fstest.MapFS{"plugin.hcl": &fstest.MapFile{}}); ok {
		t.Errorf("a folder without sources is taken for %s", l.Title)
	}
}

// TestNames: what the language or its tools take for something else is refused as a name.
func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		language, name string
		takes          bool
	}{
		{"go", "plugin", false}, {"go", "net", false}, {"go", "nets", true}, {"rust", "plugin", true}, {"rust", "core", false}, {"rust", "fn", false}, {"c", "plugin", true},
	} {
		if l, _ := sdk.Find(c.language); l.Takes(c.name) != c.takes {
			t.Errorf("%s in %s: %t", c.name, c.language, !c.takes)
		}
	}
	if _, ok := sdk.Find("cobol"); ok || !slices.Equal(sdk.Names(), []string{"go", "rust", "assemblyscript", "c", "zig"}) {
		t.Errorf("there are %q", sdk.Names())
	}
}

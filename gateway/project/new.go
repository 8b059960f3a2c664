package project

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-gateway/postern/sdk"
)

//go:embed scaffold/policy.hcl.txt scaffold/test.hcl.txt scaffold/README.md.txt scaffold/gitignore.txt
var scaffold embed.FS

type newCommand struct {
	Name string `arg:"" help:"The plugin's name: a lower-case letter, then letters, digits, _ or -."`
	Lang string `required:"" placeholder:"LANGUAGE" help:"Language of the plugin: ${languages}."`
	Dir  string `help:"Folder to make; by default the name, here." placeholder:"DIR"`
}

// Run makes the folder. It changes nothing in a folder that holds anything.
func (c *newCommand) Run(s *Shell) error {
	l, ok := sdk.Find(c.Lang)
	if !ok {
		return fmt.Errorf("there is no language %q; there are: %s", c.Lang, strings.Join(sdk.Names(), ", "))
	}
	if c.Dir == "" {
		c.Dir = c.Name
	}
	switch {
	case !namePattern.MatchString(c.Name) || strings.HasSuffix(c.Name, "-"):
		return fmt.Errorf("%q can not be a plugin's name: that is a lower-case letter, then letters, digits, _ or -, at most 63", c.Name)
	case c.Name == "self" || c.Name == sdk.Folder || !l.Takes(c.Name):
		return fmt.Errorf("a plugin in %s can not be called %s, which means something else there; take another name", l.Title, c.Name)
	}
	files, err := l.Project(c.Name)
	if err != nil {
		return err
	}
	for to, from := range map[string]string{"policy.hcl": "policy.hcl", c.Name + "_test.hcl": "test.hcl", "README.md": "README.md", ".gitignore": "gitignore"} {
		text, err := fs.ReadFile(scaffold, "scaffold/"+from+".txt")
		if err != nil {
			return err
		}
		files[to] = []byte(strings.NewReplacer("{NAME}", c.Name, "{LANGUAGE}", l.Title, "{NEEDS}", l.Needs, "{SDK}", sdk.Folder, "{SOURCE}", l.Source).Replace(string(text)))
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty; nothing was changed", c.Dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, files[name], 0o644); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(s.Stdout, "%s is a plugin in %s that builds and passes its test. Next:\n\n  cd %s\n  postern plugin build\n  postern plugin test\n\nREADME.md tells the rest. Building needs %s\n", c.Dir, l.Title, c.Dir, l.Needs)
	return err
}

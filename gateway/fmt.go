package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/postern-gateway/postern/gateway/schema"
)

type fmtCommand struct {
	Path  []string `arg:"" optional:"" help:"Files, folders with all .hcl files below them, or - for standard input. The current folder by default."`
	Check bool     `help:"Change nothing; fail when a file is not in the canonical style."`
	Write bool     `default:"true" negatable:"" help:"Write files back (the default); otherwise print what they would be."`
}

// maxSource is the largest file that is formatted, in octets.
const maxSource = 8 << 20

// Run formats .hcl files in place and prints the names of those it changed. A file that can not be parsed is told and
// left as it is.
func (c *fmtCommand) Run(a *App) error {
	paths := c.Path
	if len(paths) == 0 {
		paths = []string{"."}
	}
	var files []string
	for _, path := range paths {
		if path == "-" {
			if err := c.standardInput(a); err != nil {
				return err
			}
			continue
		}
		found, err := hclFiles(path)
		if err != nil {
			return err
		}
		files = append(files, found...)
	}
	failed := false
	for _, name := range files {
		changed, err := c.file(a, name)
		switch {
		case errors.Is(err, errTold):
			failed = true
		case err != nil:
			return err
		case changed && c.Check:
			failed = true
		}
	}
	if failed {
		return errTold
	}
	return nil
}

func (c *fmtCommand) standardInput(a *App) error {
	src, err := io.ReadAll(io.LimitReader(a.Stdin, maxSource+1))
	if err != nil {
		return err
	}
	out, err := format(a, "standard input", src)
	if err != nil {
		return err
	}
	if c.Check {
		if !bytes.Equal(src, out) {
			return errTold
		}
		return nil
	}
	_, err = a.Stdout.Write(out)
	return err
}

// file formats one file and reports whether it was in another style.
func (c *fmtCommand) file(a *App, name string) (changed bool, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return false, err
	}
	if info.Size() > maxSource {
		return false, fmt.Errorf("format %s: larger than %d octets", name, maxSource)
	}
	src, err := os.ReadFile(name)
	if err != nil {
		return false, err
	}
	out, err := format(a, name, src)
	if err != nil {
		return false, err
	}
	if !c.Check && !c.Write {
		_, err := a.Stdout.Write(out)
		return false, err
	}
	if bytes.Equal(src, out) {
		return false, nil
	}
	if _, err := fmt.Fprintln(a.Stdout, name); err != nil || c.Check {
		return true, err
	}
	return true, replaceFile(name, out, info.Mode().Perm())
}

// format returns src in the canonical style. Broken text is told with its positions.
func format(a *App, name string, src []byte) ([]byte, error) {
	var diags hcl.Diagnostics
	if len(src) > maxSource {
		return nil, fmt.Errorf("format %s: larger than %d octets", name, maxSource)
	}
	found := schema.Findings{Sources: schema.Sources{name: src}}
	if found.Shallow(name) {
		_, diags = hclsyntax.ParseConfig(src, name, hcl.InitialPos)
		found.Add(diags)
	}
	if diags = found.Tidy(); diags.HasErrors() {
		if err := schema.WriteDiagnostics(a.Stderr, found.Sources, diags, false); err != nil {
			return nil, err
		}
		return nil, errTold
	}
	out := bytes.TrimLeft(hclwrite.Format(src), "\n")
	if out = bytes.TrimRight(out, "\n"); len(out) > 0 {
		out = append(out, '\n')
	}
	return out, nil
}

// replaceFile writes beside the file and renames, so that a full disk loses nothing.
func replaceFile(name string, data []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".postern-fmt-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // err says what went wrong
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.Rename(f.Name(), name)
}

// hclFiles are path itself, or the .hcl files below it. Hidden folders are left out.
func hclFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if filepath.Ext(path) != ".hcl" {
			return nil, fmt.Errorf("format %s: not a .hcl file", path)
		}
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != path && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules"):
			return filepath.SkipDir
		case d.Type().IsRegular() && filepath.Ext(name) == ".hcl":
			files = append(files, name)
		}
		return nil
	})
	return files, err
}

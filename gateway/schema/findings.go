package schema

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Bounds of what is read. They are far above any configuration written by people.
const (
	maxFile  = 8 << 20 // octets of one file
	maxFiles = 1000    // files in policies/
	maxDepth = 100     // brackets within brackets, or operators in one expression: HCL's parser recurses
)

// Sources is the text of every file read, by its name relative to the folder, with slashes.
type Sources map[string][]byte

// Findings are the files of one folder, and what was found wrong in them.
type Findings struct {
	Dir     string // absolute
	Sources Sources
	Used    map[string]bool // "kind.name" of everything something refers to
	Diags   hcl.Diagnostics
	Broken  bool // config.hcl could not be parsed whole, so that what is missing in it may be there
}

// Read reads config.hcl and policies/*.hcl.
func (f *Findings) Read() {
	f.readFile(MainFile)
	entries, err := os.ReadDir(filepath.Join(f.Dir, "policies"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.Errorf(StartOf(MainFile), "Unreadable folder", "The folder policies can not be read: %s.", Cause(err))
	}
	n := 0
	for _, e := range entries {
		if e.IsDir() || filepath.Ext(e.Name()) != ".hcl" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if n++; n > maxFiles {
			f.Errorf(StartOf(MainFile), "Too many files", "The folder policies holds more than %d files.", maxFiles)
			break
		}
		f.readFile("policies/" + e.Name())
	}
}

func (f *Findings) readFile(name string) {
	full := filepath.Join(f.Dir, filepath.FromSlash(name))
	info, err := os.Stat(full)
	switch {
	case name == MainFile && errors.Is(err, fs.ErrNotExist):
		f.Errorf(StartOf(name), "Missing file", "There is no %s in the folder. Name the folder that holds it.", MainFile)
		return
	case err == nil && info.Size() > maxFile:
		f.Errorf(StartOf(name), "File too large", "A file may hold at most %d octets.", maxFile)
		return
	case err == nil:
		f.Sources[name], err = os.ReadFile(full)
	}
	if err != nil {
		delete(f.Sources, name)
		f.Errorf(StartOf(name), "Unreadable file", "The file can not be read: %s.", Cause(err))
	}
}

// Parse takes all files apart into their top-level blocks: by file name, then in order.
func (f *Findings) Parse() hcl.Blocks {
	all := []*Block{Main(), PolicyFile(), TestFile()}
	var blocks hcl.Blocks
	for _, name := range slices.Sorted(maps.Keys(f.Sources)) {
		kind := all[1]
		if name == MainFile {
			kind = all[0]
		} else if strings.HasSuffix(name, "_test.hcl") {
			kind = all[2]
		}
		blocks = append(blocks, f.parse(name, kind, all)...)
	}
	return blocks
}

// parse takes one file apart into its top-level blocks, in order.
func (f *Findings) parse(name string, kind *Block, all []*Block) hcl.Blocks {
	if !f.Shallow(name) {
		f.Broken = f.Broken || name == MainFile
		return nil
	}
	file, diags := hclsyntax.ParseConfig(f.Sources[name], name, hcl.InitialPos)
	f.Add(diags)
	f.Broken = f.Broken || name == MainFile && diags.HasErrors()
	if file == nil || file.Body == nil {
		return nil
	}
	before := len(f.Diags)
	content := Content(f, file.Body, kind)
	for _, d := range f.Diags[before:] {
		if d.Summary == "Unsupported block type" {
			f.elsewhere(d, all)
		}
	}
	return content.Blocks
}

// elsewhere improves the message about a block that belongs in another kind of file.
func (f *Findings) elsewhere(d *hcl.Diagnostic, all []*Block) {
	kind := string(d.Subject.SliceBytes(f.Sources[d.Subject.Filename]))
	for _, file := range all {
		for i := range file.Blocks {
			if file.Blocks[i].Name == kind {
				d.Detail = fmt.Sprintf("Blocks of type %s stand in %s.", kind, file.Name)
				return
			}
		}
	}
	if kind == "fleet" {
		d.Detail = fmt.Sprintf("This version of Postern does not act on %s blocks, so it does not accept any. Remove it.", kind)
	}
}

// Shallow reports whether HCL's parser may read a source: nesting that would exhaust its stack is an error.
func (f *Findings) Shallow(name string) bool {
	tokens, _ := hclsyntax.LexConfig(f.Sources[name], name, hcl.InitialPos)
	depth, steps := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
			depth--
		case hclsyntax.TokenBang, hclsyntax.TokenMinus, hclsyntax.TokenQuestion:
			steps++
		case hclsyntax.TokenEqual, hclsyntax.TokenComma:
			steps = 0
		}
		if depth > maxDepth || steps > maxDepth {
			f.Errorf(t.Range, "Nested too deeply", "More than %d brackets or operators stand within each other here. Name parts of it in a locals block.", maxDepth)
			return false
		}
	}
	return true
}

// Digest identifies what was read: SHA-256 over names and contents of all files, in hexadecimal.
func (f *Findings) Digest() string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(f.Sources)) {
		fmt.Fprintf(h, "%d %s %d\n", len(name), name, len(f.Sources[name]))
		h.Write(f.Sources[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Errorf reports an error. The range is where it is to be corrected, the detail says how.
func (f *Findings) Errorf(at hcl.Range, summary, detail string, arguments ...any) {
	f.Report(newError(at, summary, detail, arguments...))
}

// Warnf reports what is legal and hardly meant.
func (f *Findings) Warnf(at hcl.Range, summary, detail string, arguments ...any) {
	d := newError(at, summary, detail, arguments...)
	d.Severity = hcl.DiagWarning
	f.Report(d)
}

// Report takes a diagnostic. What HCL keeps for its own printer goes: it can hold values, and values can be secret.
func (f *Findings) Report(d *hcl.Diagnostic) {
	d.Expression, d.EvalContext = nil, nil
	f.Diags = append(f.Diags, d)
}

// Add takes diagnostics of other packages.
func (f *Findings) Add(diags hcl.Diagnostics) {
	for _, d := range diags {
		f.Report(d)
	}
}

// StartOf is where things are reported that stand nowhere.
func StartOf(name string) hcl.Range {
	return hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}
}

// Cause is an error of the file system without the path, which the message shows already.
func Cause(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// Tidy sorts the diagnostics by file and position and drops repetitions. Every one then has a Subject.
func (f *Findings) Tidy() hcl.Diagnostics {
	for _, d := range f.Diags {
		if d.Subject == nil {
			at := StartOf(MainFile)
			if d.Context != nil {
				at = *d.Context
			}
			d.Subject = &at
		}
	}
	slices.SortStableFunc(f.Diags, func(a, b *hcl.Diagnostic) int {
		return cmp.Or(
			cmp.Compare(a.Subject.Filename, b.Subject.Filename),
			cmp.Compare(a.Subject.Start.Byte, b.Subject.Start.Byte),
			cmp.Compare(a.Severity, b.Severity),
			cmp.Compare(a.Summary, b.Summary),
			cmp.Compare(a.Detail, b.Detail))
	})
	return slices.CompactFunc(f.Diags, func(a, b *hcl.Diagnostic) bool {
		return *a.Subject == *b.Subject && a.Summary == b.Summary && a.Detail == b.Detail
	})
}

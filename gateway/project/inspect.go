package project

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin/admission"
	"github.com/postern-gateway/postern/gateway/schema"
)

type inspectCommand struct {
	Module string `arg:"" optional:"" default:"." type:"path" help:"A .wasm file, or a plugin's folder that holds one of its name; by default the current one."`
	JSON   bool   `name:"json" help:"Print one JSON object."`
}

// report is what inspect shows of a module.
type report struct {
	Module    string          `json:"module"`
	Size      int64           `json:"size"`
	SHA256    string          `json:"sha256"`
	Taken     bool            `json:"taken"`
	Refusal   string          `json:"refusal,omitempty"`
	Metered   int             `json:"metered,omitempty"` // octets of the module as it is run
	CompileMS float64         `json:"compile_ms,omitempty"`
	Manifest  *manifestReport `json:"manifest,omitempty"`
	Imports   []external      `json:"imports"`
	Exports   []external      `json:"exports"`
	Memory    memoryReport    `json:"memory"`
	Functions int             `json:"functions"`
	LineTable bool            `json:"line_table"`
	Sections  []section       `json:"sections"`
}

type manifestReport struct {
	Packed  bool          `json:"packed"` // in the module; else it stands beside it
	Version string        `json:"version"`
	ABI     int           `json:"abi"`
	Summary string        `json:"summary"`
	Grants  []grantReport `json:"grants"`
	Hooks   []hookReport  `json:"hooks"`
}

type grantReport struct {
	Capability string `json:"capability"`
	Reason     string `json:"reason"`
}

type hookReport struct {
	Phase      string           `json:"phase"`
	Headers    []string         `json:"headers"`
	Attributes []string         `json:"attributes"`
	Body       string           `json:"body"`
	Arguments  []argumentReport `json:"arguments"`
}

type argumentReport struct {
	Name       string `json:"name"`
	Type       string `json:"type"`
	Required   bool   `json:"required"`
	PerRequest bool   `json:"per_request"`
	Summary    string `json:"summary,omitempty"`
}

type external struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	Type string `json:"type"`
}

type memoryReport struct {
	Initial int64 `json:"initial"` // octets
	Maximum int64 `json:"maximum"` // octets, as the module declares it or as much as it gets here
}

type section struct {
	Name string `json:"name"`
	Size int    `json:"size"` // octets
}

// Run shows the module. A module that no gateway takes is shown as far as it can be read, and fails the command.
func (c *inspectCommand) Run(s *Shell) error {
	path := c.Module
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		abs, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		path = filepath.Join(path, nameOf(abs)+".wasm")
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is not there: build it first, with postern plugin build", path)
		}
	}
	wasm, err := readFile(path, maxRead)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(wasm)
	r := &report{Module: path, Size: int64(len(wasm)), SHA256: hex.EncodeToString(sum[:]), Imports: []external{}, Exports: []external{}, Sections: []section{}}
	m, packed, err := s.manifestOf(path, wasm)
	if errors.Is(err, ErrTold) {
		return err
	}
	if err == nil {
		r.Manifest = describe(m, packed)
	}
	r.judge(s, wasm, path, m, err)
	if c.JSON {
		err = writeJSON(s.Stdout, r)
	} else {
		err = r.write(s.Stdout)
	}
	if err == nil && !r.Taken {
		return ErrTold
	}
	return err
}

// manifestOf is the manifest that a gateway goes by: the module's own, or the one beside it.
func (s *Shell) manifestOf(path string, wasm []byte) (m *manifest.Manifest, packed bool, err error) {
	text, packed, err := manifest.Section(wasm)
	if err != nil {
		return nil, false, err
	}
	name := path + "/" + ManifestFile
	if !packed {
		name = filepath.Join(filepath.Dir(path), ManifestFile)
		if text, err = readFile(name, manifest.MaxSize); err != nil {
			return nil, false, fmt.Errorf("there is no manifest: none in the module, and %w", err)
		}
	}
	m, err = s.parse(text, name)
	return m, packed, err
}

// judge reads the module as admission does, and has the real host take it. err is what was wrong before.
func (r *report) judge(s *Shell, wasm []byte, path string, m *manifest.Manifest, err error) {
	module, bad := admission.Read(wasm, admission.Limits{})
	if bad != nil {
		r.Refusal = bad.Error()
		return
	}
	for _, i := range module.Imports() {
		r.Imports = append(r.Imports, external{Name: i.Module + "." + i.Name, Kind: i.Kind, Type: i.Type})
	}
	for _, e := range module.Exports() {
		r.Exports = append(r.Exports, external(e))
	}
	for _, e := range module.Sections() {
		r.Sections = append(r.Sections, section(e))
	}
	r.Memory.Initial, r.Memory.Maximum = module.Memory()
	r.Functions, r.LineTable = module.Functions(), module.HasDWARF()
	if err != nil {
		r.Refusal = err.Error()
		return
	}
	name := strings.TrimSuffix(filepath.Base(path), ".wasm")
	took, err := s.check(config.Alone(name, path, m), "")
	if err != nil {
		r.Refusal = err.Error()
		return
	}
	metered, err := module.Meter()
	if err != nil {
		r.Refusal = err.Error()
		return
	}
	r.Taken, r.Metered, r.CompileMS = true, len(metered), float64(took.Microseconds())/1000
}

func describe(m *manifest.Manifest, packed bool) *manifestReport {
	r := &manifestReport{Packed: packed, Version: m.Version, ABI: m.ABI, Summary: m.Summary, Grants: []grantReport{}}
	for _, g := range m.Grants {
		r.Grants = append(r.Grants, grantReport{g.Capability, g.Reason})
	}
	for _, h := range m.Hooks {
		hook := hookReport{Phase: h.Phase.String(), Headers: append([]string{}, h.Sees.Headers...), Attributes: append([]string{}, h.Sees.Attributes...), Body: h.Sees.Body.String(), Arguments: []argumentReport{}}
		for _, list := range [][]*manifest.Argument{m.Arguments, h.Arguments} {
			for _, a := range list {
				hook.Arguments = append(hook.Arguments, argumentReport{Name: a.Name, Type: a.Type.Name, Required: a.Required, PerRequest: a.PerRequest, Summary: a.Summary})
			}
		}
		r.Hooks = append(r.Hooks, hook)
	}
	return r
}

// oneLine is a name of the module's: it could end a line and begin one that looks like the report's.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "?") }

// write shows the report to people, without what a module's names would do to their terminals.
func (r *report) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, sha256 %s\n", r.Module, size(r.Size), r.SHA256)
	if r.Taken {
		fmt.Fprintf(&b, "a gateway takes it: compiled and started in %.1f ms, %s with metering\n", r.CompileMS, size(int64(r.Metered)))
	} else {
		fmt.Fprintf(&b, "NO GATEWAY TAKES IT: %s\n", r.Refusal)
	}
	if m := r.Manifest; m != nil {
		where := "packed into the module"
		if !m.Packed {
			where = "beside the module"
		}
		fmt.Fprintf(&b, "\nmanifest, %s: version %s, ABI %d\n  %s\n", where, m.Version, m.ABI, m.Summary)
		for _, g := range m.Grants {
			fmt.Fprintf(&b, "  asks for %s: it %s\n", g.Capability, g.Reason)
		}
		for _, h := range m.Hooks {
			fmt.Fprintf(&b, "  hook %s: sees headers %s; attributes %s; body %s\n", h.Phase, list(h.Headers), list(h.Attributes), h.Body)
			for _, a := range h.Arguments {
				what := a.Type
				if a.Required {
					what += ", required"
				}
				if a.PerRequest {
					what += ", for each request"
				}
				fmt.Fprintf(&b, "    %s (%s)", a.Name, what)
				if a.Summary != "" {
					b.WriteString(" " + a.Summary)
				}
				b.WriteString("\n")
			}
		}
	}
	if len(r.Sections) == 0 {
		_, err := io.WriteString(w, schema.Printable(b.String()))
		return err
	}
	fmt.Fprintf(&b, "\nmemory: %s to begin with", size(r.Memory.Initial))
	if r.Memory.Maximum > 0 {
		fmt.Fprintf(&b, ", at most %s", size(r.Memory.Maximum))
	}
	fmt.Fprintf(&b, "\nfunctions: %d\nline table: %s\n", r.Functions, map[bool]string{true: "yes", false: "no; build with --debug for one"}[r.LineTable])
	externals := func(what string, list []external) {
		fmt.Fprintf(&b, "\n%s: %d\n", what, len(list))
		for _, e := range list {
			fmt.Fprintf(&b, "  %s %s %s\n", e.Kind, oneLine(e.Name), e.Type)
		}
	}
	externals("imports", r.Imports)
	externals("exports", r.Exports)
	b.WriteString("\nsections\n")
	for _, s := range r.Sections {
		fmt.Fprintf(&b, "  %-20s %s\n", oneLine(s.Name), size(int64(s.Size)))
	}
	_, err := io.WriteString(w, schema.Printable(b.String()))
	return err
}

func list(names []string) string { return cmp.Or(strings.Join(names, ", "), "none") }

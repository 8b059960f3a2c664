// Package admission decides which WebAssembly modules may run here, and rewrites them so that they can be stopped. It is
// the first to see a plugin's bytes: nothing of them has been run, compiled or believed before.
//
// Its main type is Module: Read parses one and holds it to Limits, Allow holds its imports to a list, and Meter writes it
// anew with a fuel counter, a yield to the host and a call-depth counter in it.
//
// Read accepts what the core specification 2.0 has (with SIMD of 128 bits, references and bulk memory), which is what the
// engine compiles by default, and names the proposal when it refuses more. It checks structure, that every index names
// something and that blocks nest, but no types: the engine validates whatever Meter returns, whole. That is enough. Meter
// adds to a function by its structure alone, so a body with wrong types has the same checks in it and is then refused;
// and no index of the module can come to name what Meter adds, because it would have been out of range before.
//
// Reading and metering take time in proportion to the module, and allocate at most 64 times its size and 16 MiB in all; a
// metered module is at most 4 times as large as what was read and 64 KiB more. Package body says how functions are metered,
// package lines how line numbers stay right.
package admission

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin/body"
)

// What Meter adds to a module. Read refuses modules that have any of it already.
const (
	// MeterModule is the module the two functions are imported from.
	MeterModule = "postern_meter"
	// Yield is the import (i64 left) -> i64, called when the fuel is below zero. It gets what is left, a negative number,
	// and returns the next slice, less what is owed, or does not return.
	Yield = "yield"
	// Deep is the import () -> (), called when the depth is below zero. It does not return.
	Deep = "deep"
	// FuelGlobal is the exported mutable global (i64) of the fuel left in the slice. It begins at 0, so that the first
	// check, also one in the start section, visits the host.
	FuelGlobal = "postern_meter_fuel"
	// DepthGlobal is the exported mutable global (i32) of the frames that may still be entered. It begins at
	// DefaultDepth, which is what the start section has.
	DepthGlobal = "postern_meter_depth"
	// DefaultDepth is what the depth begins at.
	DefaultDepth = 4096
)

// Limits bound what a module may be. A zero is the default its field names.
type Limits struct {
	Module       int64 // octets of the whole module: 8 MiB
	Types        int   // function types: 4,096
	Imports      int   // 256
	Functions    int   // that the module defines: 32,768
	Body         int   // octets of one function, its locals included: 128 KiB
	Locals       int   // of one function, its parameters included: 4,096; all functions together may have 256 times as many
	Nesting      int   // blocks within blocks: 4,096
	Tables       int   // 8
	Elements     int   // entries of a table, to which a larger or missing maximum is lowered, and of all segments together: 65,536
	Globals      int   // 4,096
	Exports      int   // 1,024
	DataSegments int   // 65,536
	Memory       int64 // octets, to which a larger or missing maximum is lowered: 64 MiB
}

// withDefaults fills the zeros in.
func (l Limits) withDefaults() Limits {
	return Limits{
		Module:       cmp.Or(l.Module, 8<<20),
		Types:        cmp.Or(l.Types, 4096),
		Imports:      cmp.Or(l.Imports, 256),
		Functions:    cmp.Or(l.Functions, 32768),
		Body:         cmp.Or(l.Body, 128<<10),
		Locals:       cmp.Or(l.Locals, 4096),
		Nesting:      cmp.Or(l.Nesting, 4096),
		Tables:       cmp.Or(l.Tables, 8),
		Elements:     cmp.Or(l.Elements, 65536),
		Globals:      cmp.Or(l.Globals, 4096),
		Exports:      cmp.Or(l.Exports, 1024),
		DataSegments: cmp.Or(l.DataSegments, 65536),
		Memory:       cmp.Or(l.Memory, 64<<20),
	}
}

// Refusal says why a module may not run: the section it is about, "module" for the whole, the offset in octets from the
// module's beginning, and the reason.
type Refusal = body.Refusal

// Import is something a module wants from its host.
type Import struct {
	Module, Name string
	Kind         string // "function", "table", "memory" or "global"
	// Type is of a function "(i32, i32) -> i64", of a global "i32" or "mut i32", of a table its elements' type, of a memory
	// nothing.
	Type string
}

// Export is something a module gives its host.
type Export struct {
	Name string
	Kind string // as Import.Kind
	Type string // as Import.Type
}

// Section is one section of a module.
type Section struct {
	Name string // "type", "import", ...; of a custom one its own name
	Size int    // octets of its content, of a custom one without its name
}

// Imports lists what the module wants, in its order.
func (m *Module) Imports() []Import { return slices.Clone(m.imports) }

// Exports lists what the module gives, in its order.
func (m *Module) Exports() []Export { return slices.Clone(m.exports) }

// Custom is the content of the first custom section of that name, a part of what Read got.
func (m *Module) Custom(name string) ([]byte, bool) {
	for _, s := range m.sections {
		if s.id == 0 && s.name == name {
			return m.wasm[s.start:s.end], true
		}
	}
	return nil, false
}

// Sections lists the module's sections in its order.
func (m *Module) Sections() []Section {
	list := make([]Section, len(m.sections))
	for i, s := range m.sections {
		list[i] = Section{Name: s.name, Size: s.end - s.start}
	}
	return list
}

// Memory is how many octets of memory the module begins with, and the most it may have when metered; 0 without a memory.
func (m *Module) Memory() (initial, maximum int64) {
	if len(m.memories) == 0 {
		return 0, 0
	}
	return int64(m.memories[0].min) * page, int64(m.memories[0].max) * page
}

// Functions counts the functions the module defines.
func (m *Module) Functions() int { return len(m.bodies) }

// HasDWARF tells whether the module carries a line table, so that errors can name source lines.
func (m *Module) HasDWARF() bool {
	line, ok := m.Custom(".debug_line")
	return ok && len(line) > 0
}

// Allow refuses every import that list does not have with its kind and type. The error is a *Refusal.
func (m *Module) Allow(list []Import) error {
	for i, wanted := range m.imports {
		if slices.Contains(list, wanted) {
			continue
		}
		refusal := &Refusal{Section: "import", Offset: m.importAt[i]}
		var modules []string
		for _, known := range list {
			if known.Module == wanted.Module && known.Name == wanted.Name {
				refusal.Reason = fmt.Sprintf("%s %q of module %q is wanted as %s; the host has the %s %s",
					wanted.Kind, wanted.Name, wanted.Module, wanted.Type, known.Kind, known.Type)
				return refusal
			}
			if !slices.Contains(modules, known.Module) {
				modules = append(modules, known.Module)
			}
		}
		if slices.Contains(modules, wanted.Module) {
			refusal.Reason = fmt.Sprintf("the host's module %q has no %s %q", wanted.Module, wanted.Kind, wanted.Name)
		} else {
			slices.Sort(modules)
			refusal.Reason = fmt.Sprintf("the host has no module %q, of which %s %q is wanted; it has: %s",
				wanted.Module, wanted.Kind, wanted.Name, strings.Join(modules, ", "))
		}
		return refusal
	}
	return nil
}

// Pack returns a copy of the module with content in the custom section of that name, instead of any that is there. Only
// the headers of the sections are read. The sections whose content other sections depend on can not be packed.
func Pack(wasm []byte, section string, content []byte) ([]byte, error) {
	if section == "" || section == nameSection || strings.HasPrefix(section, ".debug_") {
		return nil, fmt.Errorf("a section %q can not be packed into a module", section)
	}
	return manifest.Replace(wasm, section, content)
}

// Package admission decides which WebAssembly modules may run here, and rewrites them so that they can be stopped. It is
// the first to see a plugin's bytes: nothing of them has been run, compiled or believed before.
//
// Its main type is Module: Read parses one and holds it to Limits, Allow holds its imports to a list, and Meter writes it
// anew with a fuel counter, a yield to the host and a call-depth counter in it.
package admission

import (
	"errors"
	"fmt"
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
	// DepthGlobal is the exported mutable global (i32) of the frames that may still be entered.
	DepthGlobal = "postern_meter_depth"
)

// Limits bound what a module may be. A zero is the default its field names.
type Limits struct {
	Module int64 // octets of the whole module: 8 MiB
}

// Refusal says why a module may not run.
type Refusal struct {
	Section string // the section it is about, "module" for the whole
	Offset  int    // in octets from the module's beginning
	Reason  string
}

// Error names section, offset and reason.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s at octet %d: %s", r.Section, r.Offset, r.Reason)
}

// Import is something a module wants from its host.
type Import struct {
	Module, Name string
	Kind         string // "function", "table", "memory" or "global"
	Type         string // of a function "(i32, i32) -> i64", of a global "mut i32", of a table or memory its limits
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
	Size int    // octets of its content
}

// Module is a module that Read accepted.
type Module struct {
	wasm []byte
}

// Read parses a module and holds it to l. The error is a *Refusal.
func Read(wasm []byte, l Limits) (*Module, error) {
	return nil, errors.ErrUnsupported
}

// Allow refuses every import that list does not have, name and type. The error is a *Refusal.
func (m *Module) Allow(list []Import) error { return errors.ErrUnsupported }

// Imports lists what the module wants, in its order.
func (m *Module) Imports() []Import { return nil }

// Exports lists what the module gives, in its order.
func (m *Module) Exports() []Export { return nil }

// Custom is the content of the first custom section of that name.
func (m *Module) Custom(name string) ([]byte, bool) { return nil, false }

// Sections lists the module's sections in its order.
func (m *Module) Sections() []Section { return nil }

// Memory is how many octets of memory the module begins with, and the most it may have, 0 for no memory.
func (m *Module) Memory() (initial, maximum int64) { return 0, 0 }

// Functions counts the functions the module defines.
func (m *Module) Functions() int { return 0 }

// HasDWARF tells whether the module carries a line table.
func (m *Module) HasDWARF() bool { return false }

// Meter returns the module rewritten. The error is a *Refusal.
func (m *Module) Meter() ([]byte, error) { return nil, errors.ErrUnsupported }

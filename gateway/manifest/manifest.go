// Package manifest is plugin.hcl: what a plugin hooks, needs to see, may touch and how it is configured.
// Its main type is Manifest.
package manifest

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Manifest is one plugin's declaration.
type Manifest struct {
	ABI       int
	Version   string
	Summary   string
	Arguments []*Argument // of every hook's config block
	Blocks    []*Block    // of every hook's config block
	Hooks     []*Hook     // at most one a phase
	Grants    []*Grant
	Source    []byte // the text it was read from
	Range     hcl.Range
}

// Hook is one phase the plugin takes part in.
type Hook struct {
	Phase     exchange.Phase
	Sees      Sees
	Needs     []exchange.Phase // phases the same policy chain must also use this plugin at
	Answers   bool             // at response: the heads of the gateway's own answers are shown as well
	Arguments []*Argument      // besides the manifest's own
	Blocks    []*Block
	Range     hcl.Range
}

// Sees is what the hook gets to see; nothing else reaches the plugin.
type Sees struct {
	Headers         []string    // lower case; "*" alone for all
	Attributes      []string    // names of the attribute catalogue (expr.Attributes); whoever knows it checks them
	AttributeRanges []hcl.Range // where each of Attributes stands
	Body            Body
}

// BodyMode says how a hook gets the body of its phase's message.
type BodyMode uint8

// The body modes.
const (
	BodyNone   BodyMode = iota
	BodyBuffer          // the whole body, at most Body.Max octets, in the phase's event
	BodyStream          // chunks as they come
	BodyEvents          // whole server-sent events; chunks where the body is no event stream
)

// Body is a hook's body mode: body = buffer("1MiB"), stream or events.
type Body struct {
	Mode BodyMode
	Max  int64 // with BodyBuffer: octets
}

// Argument is one argument of a config block.
type Argument struct {
	Name       string
	Type       Type
	Required   bool
	Default    cty.Value // cty.NilVal: none
	Sensitive  bool      // never printed
	PerRequest bool      // an expression evaluated for each request; in the order of declaration a slot of the frame
	Pattern    string    // RE2 that a string, or each of a list of them, must match as a whole; empty: any
	OneOf      []string  // what a string, or each of a list of them, may be; empty: anything
	Summary    string
	Range      hcl.Range
}

// Block is one nested block type of a config block.
type Block struct {
	Name      string
	Labels    []string // names of its labels
	Repeat    bool     // may stand more than once
	Required  bool
	Arguments []*Argument
	Blocks    []*Block
	Summary   string
	Range     hcl.Range
}

// Grant is a capability the plugin asks for.
type Grant struct {
	Capability string // accounts, ledger, state, cache or fetch
	Reason     string
	Optional   bool // the plugin is of use without it
	Range      hcl.Range
}

// Type is an argument's type: a cty type and, for the types HCL has no word for, how its text is read.
type Type struct {
	Name   string           // string number bool list(string) duration bytes money url cidr regex ...
	Cty    cty.Type         // what a decoded value has: duration and bytes are numbers (ns, octets), money a decimal string
	Elem   *Type            // of list and map
	Fields map[string]*Type // of object
}

// Hook returns the hook of phase, or nil.
func (m *Manifest) Hook(phase exchange.Phase) *Hook {
	for _, h := range m.Hooks {
		if h.Phase == phase {
			return h
		}
	}
	return nil
}

// PerRequest returns the per-request arguments of a hook in the order of their slots: the manifest's, then the hook's.
func (m *Manifest) PerRequest(h *Hook) []*Argument {
	var list []*Argument
	for _, from := range [][]*Argument{m.Arguments, h.Arguments} {
		for _, a := range from {
			if a.PerRequest {
				list = append(list, a)
			}
		}
	}
	return list
}

// Asks reports whether the manifest asks for capability.
func (m *Manifest) Asks(capability string) bool {
	for _, g := range m.Grants {
		if g.Capability == capability {
			return true
		}
	}
	return false
}

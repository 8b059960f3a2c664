// Package plugin runs WebAssembly policy plugins: its main type is Host, which loads modules into bounded Pools of
// instances. How a guest is spoken to is an ABI's business; front-ends live in folders below and are listed in
// gateway/builtin.go.
package plugin

import (
	"errors"
	"fmt"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/sdk/abi"
)

// Event is one thing that happened to an exchange, for one stage. What the plugin gets to see of Exchange is what its
// manifest's hook declares.
type Event struct {
	Kind      abi.Event
	Stage     int // index into the stages the Pool was loaded with
	Exchange  *exchange.Exchange
	HasBody   bool   // Body is given, even if empty
	Body      []byte // a buffered body, a chunk, or server-sent events; valid during the call
	End       bool   // Body is the end of the body
	Stream    bool   // the body is server-sent events
	Truncated bool   // the buffered body was longer than the hook's maximum
	Gone      bool   // the client has gone
	Carry     []byte // what the stage carried from its last event in this exchange
}

// Result is what a plugin decided. It may be used again; its slices are valid until then.
type Result struct {
	Action abi.Action
	Ops    []Op
	buffer []byte
}

// Op is one operation of a result. Key and Value were copied out of the guest.
type Op struct {
	Code  abi.Op
	Key   []byte
	Value []byte
}

// Kind says how a plugin failed.
type Kind string

// The kinds of fault.
const (
	Trap     Kind = "trap"     // the guest trapped or panicked
	Fuel     Kind = "fuel"     // it used more CPU than it may
	Memory   Kind = "memory"   // it asked for more memory than it may
	Protocol Kind = "protocol" // it broke the ABI
	Busy     Kind = "busy"     // no instance became free in time
	Timeout  Kind = "timeout"  // the stage's wall time was over
	Refused  Kind = "refused"  // it answered with ActionError
)

// Fault is a plugin's failure. Detail is for operators, never for callers.
type Fault struct {
	Plugin string
	Phase  exchange.Phase
	Kind   Kind
	Detail string
	Err    error // may be nil
}

// Error describes the fault for a log.
func (f *Fault) Error() string {
	return fmt.Sprintf("plugin %s at %s: %s: %s", f.Plugin, f.Phase, f.Kind, f.Detail)
}

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

// ErrClosed is returned by a Pool that has been closed.
var ErrClosed = errors.New("plugin pool is closed")

// Package plugin runs WebAssembly policy plugins: its main type is Host, which loads modules into bounded Pools of
// instances. How a guest is spoken to is an ABI's business; front-ends live in folders below and are listed in
// gateway/builtin.go.
package plugin

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/expr"
	"github.com/postern-gateway/postern/sdk/abi"
)

// Event is one thing that happened to an exchange, for one stage. What the plugin gets to see of Exchange is what its
// manifest's hook declares.
type Event struct {
	Kind      abi.Event
	Now       int64         // by the wall clock, in nanoseconds since 1970; 0, or in a Host with a clock of its own: what the Host's clock says
	Began     time.Time     // when Within began; zero: the stage's time is over when the context says so alone
	Within    time.Duration // the stage's time
	Number    uint64        // the exchange's, the same in all its events and in few others; 0: the ABI makes one
	Stage     int           // index into the stages the Pool was loaded with
	Exchange  *exchange.Exchange
	Arguments []*expr.Program // the stage's per-request arguments; Pool.Call fills it in
	HasBody   bool            // Body is given, even if empty
	Body      []byte          // a buffered body, a chunk, or server-sent events; valid during the call
	End       bool            // Body is the end of the body
	Stream    bool            // the body is server-sent events
	Truncated bool            // the buffered body was longer than the hook's maximum
	Gone      bool            // the client has gone
	Carry     []byte          // what the plugin carried from its last event of this exchange in the same policy
	Awaited   int             // how often the stage has awaited for this event; the last one's answers are Body when Kind is EventFetched
}

// Until is when the stage's time is over; zero: when the context says so alone.
func (e *Event) Until() time.Time {
	if e.Began.IsZero() {
		return time.Time{}
	}
	return e.Began.Add(e.Within)
}

// Result is what a plugin decided, checked against the rules of its phase (see check). It may be used again; its slices
// are valid until then. The zero value is ready.
type Result struct {
	Action abi.Action
	Ops    []Op
	Fuel   int64 // the CPU the event used, in units of about one instruction; a Pool sets it, also for a fault
	buffer []byte
	names  exchange.Names  // of header fields, which plugins use again and again
	texts  strings.Builder // values of header fields that were set
	brief  bool
}

// Reset empties the result and keeps its memory.
func (r *Result) Reset() {
	r.Action, r.Ops, r.Fuel, r.buffer, r.brief = abi.ActionContinue, r.Ops[:0], 0, r.buffer[:0], false
}

// Brief tells that the event took no time worth a look at the clock: an instance was free, and the guest computed for
// microseconds and asked nothing of the host.
func (r *Result) Brief() bool { return r.brief }

// Trim lets go of the memory of a large result: an exchange may last for hours, and the result with it.
func (r *Result) Trim() {
	if cap(r.Ops) > 16 || cap(r.buffer) > 4<<10 {
		r.Ops, r.buffer = nil, nil
	}
}

// Use gives an empty result memory to begin with, so that a small one takes none of its own.
func (r *Result) Use(ops []Op, octets []byte) { r.Ops, r.buffer = ops, octets }

// Copy keeps a copy of b in the result's own memory; an ABI's Guest copies what it reads out of a module that way.
func (r *Result) Copy(b []byte) []byte {
	start := len(r.buffer)
	r.buffer = append(r.buffer, b...)
	return r.buffer[start:len(r.buffer):len(r.buffer)]
}

// Respond returns the answer of a result whose action is ActionRespond: status and code are set then, and body only
// where the plugin gave one of its own instead of a problem document.
func (r *Result) Respond() (status int, code, detail, contentType string, body []byte) {
	for _, op := range r.Ops {
		switch op.Code {
		case abi.OpRespond:
			status, code, detail = int(op.Value[0])|int(op.Value[1])<<8, string(op.Key), string(op.Value[2:])
		case abi.OpRespondBody:
			contentType, body = string(op.Key), op.Value
		}
	}
	return status, code, detail, contentType, body
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
	Trap       Kind = "trap"       // the guest trapped or panicked
	Fuel       Kind = "fuel"       // it used more CPU than it may, says the metering that admission puts into a module
	Memory     Kind = "memory"     // it asked for more memory than it may
	Protocol   Kind = "protocol"   // it broke the ABI
	Busy       Kind = "busy"       // no instance became free in time
	Timeout    Kind = "timeout"    // the stage's wall time was over
	Refused    Kind = "refused"    // it answered with ActionError
	Expression Kind = "expression" // a per-request argument could not be evaluated; the plugin was not called
	Broken     Kind = "broken"     // it failed several times in a row and rests for a moment
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

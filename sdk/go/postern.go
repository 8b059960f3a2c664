// Package postern is how a Postern policy plugin is written in Go: its main type is Plugin. The same code is compiled by
// the ordinary toolchain for the gateway,
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o greet.wasm .
//
// and runs natively under go test (see sdk/plugintest). What a plugin sees and may do is declared in plugin.hcl; sdk/ABI.md
// is the normative text behind this package. A whole plugin:
//
//	package main
//
//	import postern "github.com/postern-gateway/postern/sdk/go"
//
//	type greet struct{ greetings []string }
//
//	var _ = postern.Register(&greet{})
//
//	func (g *greet) Configure(s *postern.Stage) error {
//		g.greetings = append(g.greetings, s.Config.Member("greeting").Text())
//		return nil
//	}
//
//	func (g *greet) On(e *postern.Event, r *postern.Result) error {
//		r.SetHeader("x-greeting", g.greetings[e.Stage])
//		return nil
//	}
//
//	func main() {}
//
// Nothing here allocates for each event unless it says so; what is handed out points into the frame and is valid until the
// method returns. Modules stay small without fmt, encoding/json, reflect and regexp.
package postern

import (
	"unsafe"

	"github.com/postern-gateway/postern/sdk/abi"
)

// Value is an encoded value read in place: a configuration, an attribute, an argument, an answer of the host.
type Value = abi.Value

// Plugin is a policy. The gateway makes several instances of a module, each with its own Plugin, and gives any of them any
// event: what must outlive an event travels as Result.Carry or in the host's state. Calls on one instance never overlap.
type Plugin interface {
	// Configure is called once for each stage the plugin is used at, with Stage.Number 0, 1, 2 ..., before any event.
	// An error refuses the configuration; its text is shown to the operator with the stage's place in the files.
	Configure(s *Stage) error
	// On is called for each event of a stage. An error is the plugin's failure: nothing of r is applied, its text is
	// logged, and the stage's on_error decides (deny, unless the operator wrote allow). A refusal meant for the caller
	// is Result.Respond, not an error.
	On(e *Event, r *Result) error
}

// Phase is a fixed point on a request's way.
type Phase uint8

// The phases, in order.
const (
	Authenticate Phase = iota // who calls
	Authorize                 // may this caller do this
	Admit                     // may it be done now
	Route                     // which upstream or model target
	Request                   // change what goes out
	Response                  // change what comes back
	Account                   // settle; always, also when the client has gone
)

// Stage is one use of the plugin in a policy.
type Stage struct {
	Number int   // counted from 0; the same as Event.Stage
	Phase  Phase // where it is used
	Config Value // an object: the config block's load-time arguments and blocks, defaults filled in
	Host   *Host // logs and random octets; state, accounts and ledger answer ErrUnavailable here
}

// Event is one thing that happened to an exchange.
type Event struct {
	Kind  abi.Event
	Phase Phase
	Stage int // Stage.Number of the stage it is for
	Host  *Host
	frame []byte
	flags uint8
	slots int
}

// Time is the wall clock when the event was made, in nanoseconds since 1970.
func (e *Event) Time() int64 { return int64(u64(e.frame[16:])) }

// Exchange is a number that is the same in all events of an exchange.
func (e *Event) Exchange() uint64 { return u64(e.frame[24:]) }

// End reports that Body is the end of the message's body.
func (e *Event) End() bool { return e.flags&abi.FlagEnd != 0 }

// Stream reports that the body is server-sent events; with body mode events, Body is whole events.
func (e *Event) Stream() bool { return e.flags&abi.FlagStream != 0 }

// Truncated reports that the body was longer than buffer(max) allows; Body is its beginning and can not be changed.
func (e *Event) Truncated() bool { return e.flags&abi.FlagTruncated != 0 }

// Gone reports that the client has gone.
func (e *Event) Gone() bool { return e.flags&abi.FlagGone != 0 }

// Carry is what this plugin carried from an earlier event of the exchange in the same policy, or nil.
func (e *Event) Carry() []byte {
	b, _ := e.fixed(abi.SlotCarry)
	return b
}

// Body is the body, chunk or server-sent events; ok is false when the event has none.
func (e *Event) Body() (body []byte, ok bool) { return e.fixed(abi.SlotBody) }

// Has reports whether a slot is there: a header that was not sent, or an attribute not yet known, is absent.
//
// Slots are numbered from 0 in the order plugin.hcl declares them for the event's hook: first sees.headers, then
// sees.attributes, then the per-request arguments of the manifest and of the hook.
func (e *Event) Has(slot int) bool {
	_, ok := e.slot(slot)
	return ok
}

// Header is the first value of the header in a slot; ok tells absent from empty.
func (e *Event) Header(slot int) (value []byte, ok bool) {
	// In a module a call costs as much as all of this: slot and next are written out.
	i := abi.SlotFirst + slot
	if slot < 0 || i >= e.slots {
		return nil, false
	}
	frame := e.frame
	entry := u64(frame[abi.FrameHeader+abi.SlotSize*i:])
	start, length := entry&0xffffffff, entry>>32
	if start == 0 || length < 4 || start+length > uint64(len(frame)) {
		return nil, false
	}
	n := uint64(u32(frame[start:]))
	if n > length-4 {
		return nil, false
	}
	start += 4
	return frame[start : start+n : start+n], true
}

// Headers yields every value of the header in a slot.
func (e *Event) Headers(slot int) func(yield func(value []byte) bool) {
	return func(yield func([]byte) bool) {
		run, _ := e.slot(slot)
		for {
			value, rest, ok := next(run)
			if !ok || !yield(value) {
				return
			}
			run = rest
		}
	}
}

// Fields yields name and value of every field, for a hook that sees headers = ["*"].
func (e *Event) Fields(slot int) func(yield func(name, value []byte) bool) {
	return func(yield func(name, value []byte) bool) {
		run, _ := e.slot(slot)
		for {
			name, rest, ok := next(run)
			if !ok {
				return
			}
			value, rest, ok := next(rest)
			if !ok || !yield(name, value) {
				return
			}
			run = rest
		}
	}
}

// Value is the attribute or argument in a slot; absent reads as null.
func (e *Event) Value(slot int) Value {
	raw, _ := e.slot(slot)
	v, _, _ := abi.ReadValue(raw)
	return v
}

func (e *Event) slot(i int) ([]byte, bool) {
	if i < 0 {
		return nil, false
	}
	return e.fixed(abi.SlotFirst + i)
}

func (e *Event) fixed(i int) ([]byte, bool) {
	if i >= e.slots {
		return nil, false
	}
	entry := e.frame[abi.FrameHeader+abi.SlotSize*i:]
	offset, length := uint64(u32(entry)), uint64(u32(entry[4:]))
	if offset == 0 || offset+length > uint64(len(e.frame)) {
		return nil, false
	}
	return e.frame[offset : offset+length : offset+length], true
}

// read takes apart a frame's header; ok is false when it is not whole.
func (e *Event) read(frame []byte) (ok bool) {
	if len(frame) < abi.FrameHeader || u32(frame) != uint32(len(frame)) {
		return false
	}
	slots := uint64(u32(frame[12:]))
	if abi.FrameHeader+abi.SlotSize*slots > uint64(len(frame)) {
		return false
	}
	e.frame, e.slots = frame, int(slots)
	e.Kind = abi.Event(uint32(frame[4]) | uint32(frame[5])<<8)
	e.Phase, e.flags = Phase(frame[6]), frame[7]
	e.Stage = int(u32(frame[8:]))
	return true
}

// next takes one length-prefixed string off a run.
func next(run []byte) (value, rest []byte, ok bool) {
	if len(run) < 4 {
		return nil, nil, false
	}
	n := uint64(u32(run))
	if uint64(len(run)-4) < n {
		return nil, nil, false
	}
	return run[4 : 4+n : 4+n], run[4+n:], true
}

// String is b as a string without a copy, valid as long as b is unchanged: until the method returns, for what an Event
// hands out.
func String(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func u32(b []byte) uint32 {
	_ = b[3]
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func u64(b []byte) uint64 {
	_ = b[7]
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
}

func appendU16(b []byte, v uint16) []byte { return append(b, byte(v), byte(v>>8)) }

func appendU32(b []byte, v uint32) []byte {
	return append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
}

func putU32(b []byte, v uint32) {
	_ = b[3]
	b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
}

func putU64(b []byte, v uint64) {
	_ = b[7]
	b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
	b[4], b[5], b[6], b[7] = byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56)
}

func appendU64(b []byte, v uint64) []byte { return appendU32(appendU32(b, uint32(v)), uint32(v>>32)) }

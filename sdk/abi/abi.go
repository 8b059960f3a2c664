// Package abi is the policy ABI, version 1: the names, codes and layouts that a plugin and its host share. sdk/ABI.md is the
// normative text; this package is the same in Go, imported by guests and by the host, and imports nothing of ours. Its
// main type is Value. Everything is little-endian; nothing in it allocates unless it says so.
package abi

// Version is the ABI's version, the manifest's abi argument.
const Version = 1

// Names of exports and imports.
const (
	ExportMemory    = "memory"
	ExportABI       = "postern_abi_v1"    // () -> i64: address<<32 | capacity of the frame buffer
	ExportConfigure = "postern_configure" // (len i32) -> i64 result
	ExportOn        = "postern_on"        // (event i32, len i32) -> i64 result
	ExportGrow      = "postern_grow"      // optional: (capacity i32) -> i64: address<<32 | capacity of a larger frame buffer
	ImportModule    = "postern"
	ImportLog       = "log"              // (level i32, ptr i32, len i32)
	ImportOp        = "op"               // (code i32, in i32, inlen i32, out i32, outcap i32) -> i64
	ManifestSection = "postern.manifest" // custom section that holds plugin.hcl
)

// MinFrame is the least capacity of a frame buffer, MaxFrame the most the host asks for.
const (
	MinFrame = 64 << 10
	MaxFrame = 16<<20 - 1
)

// Limits the host keeps; a result beyond them is a protocol fault, a call beyond them ErrInvalid or ErrLimit.
const (
	MaxResultOps = 4096      // operations of one result
	MaxHeader    = 16 << 10  // octets of one header value a plugin sets
	MaxCarry     = 64 << 10  // octets of OpCarry
	MaxDetail    = 1 << 10   // octets of OpRespond's text
	MaxName      = 128       // octets of an attribute's name; 64 of a code or a meter's name
	MaxAttribute = 16 << 10  // octets of one encoded attribute a plugin sets
	MaxOps       = 1024      // calls of op in one event
	MaxRandom    = 4 << 10   // octets of CodeRandom
	MaxKey       = 1 << 10   // octets of a state key
	MaxValue     = 64 << 10  // octets of a state value
	MaxAnswer    = 64 << 10  // octets of any answer of op
	MaxInput     = 192 << 10 // octets of op's input: CodeCAS with two values and a key
	MaxLine      = 1 << 10   // octets of a log line; longer ones are cut
	MaxLog       = 8 << 10   // octets logged in one event; the rest is dropped
	MaxFetches   = 8         // operations OpFetch of one result
	MaxAwaits    = 4         // results ActionAwait in a row for one event
	MaxFetch     = 1 << 20   // octets of the value of OpFetch
	MaxFetched   = 1 << 20   // octets of the body of a fetch's answer
)

// Outcomes of a fetch, its answer's member error; empty when an answer came, whatever its status.
const (
	FetchDenied      = "denied"      // the operator did not grant the origin, the upstream or the address
	FetchInvalid     = "invalid"     // the request is malformed or beyond a bound; nothing was sent
	FetchTimeout     = "timeout"     // the answer was not whole in time
	FetchUnreachable = "unreachable" // no connection, or one that broke, or no HTTP
	FetchTooLarge    = "too_large"   // the answer's head or body is larger than is taken
	FetchBusy        = "busy"        // too many fetches of the plugin are under way
)

// Event is what happened.
type Event uint32

// The events.
const (
	EventConfigure    Event = iota // a stage's configuration, in the body slot, as a Value
	EventRequest                   // a request reached the phase in the frame; all phases before response
	EventRequestBody               // a chunk of the request body (body modes stream and events)
	EventResponse                  // the upstream's head arrived (phase response)
	EventResponseBody              // a chunk or a server-sent event of the response body
	EventFetched                   // the fetches of ActionAwait are done; the body slot holds their answers, a Value
	EventAccount                   // the exchange is over (phase account)
	EventTick                      // reserved: the plugin's period has passed
	EventCount
)

// Action is what a plugin decided.
type Action uint8

// The actions.
const (
	ActionContinue Action = iota // go on, with the operations applied
	ActionRespond                // answer the client now, as OpRespond says; in authenticate: not this identity
	ActionAwait                  // come again with EventFetched when the fetches among the operations are done
	ActionNeedBody               // reserved: come again with the body in the body slot
	ActionDone                   // go on, and do not call this stage again for this exchange
	ActionError                  // the plugin failed; the operations may hold an OpRespond whose detail is logged
)

// Frame flags.
const (
	FlagEnd       = 1 << 0 // the body slot holds the end of the body
	FlagStream    = 1 << 1 // the body is server-sent events; the body slot holds whole events
	FlagTruncated = 1 << 2 // a buffered body was longer than the manifest allows; the body slot holds its beginning
	FlagGone      = 1 << 3 // the client has gone
)

// A frame is FrameHeader octets, then SlotSize octets a slot, then bytes.
//
//	 0 u32 length of the whole frame
//	 4 u16 event
//	 6 u8  phase
//	 7 u8  flags
//	 8 u32 stage: the number the stage was configured with
//	12 u32 number of slots
//	16 i64 wall clock, nanoseconds since 1970
//	24 u64 exchange number, the same in all events of an exchange
//	32 slots: u32 offset from the frame's start, u32 length. Offset 0: absent
const (
	FrameHeader = 32
	SlotSize    = 8
)

// The fixed slots. Then come, in the order the manifest's hook declares them: headers, attributes, per-request arguments.
const (
	SlotCarry = 0 // what the plugin carried from an earlier event of this exchange
	SlotBody  = 1
	SlotFirst = 2
)

// A header slot is a run: for each value of that name u32 length, bytes. The name "*" gives every field: name, value,
// name, value ... An attribute or argument slot is one Value.

// Op is an operation of a result.
type Op uint8

// A result is operations one after the other: u8 op, u8 zero, u16 key length, u32 value length, key, value.
const OpHeader = 8

// The operations. Headers are the request's before the response phase, then the response's; with ActionRespond they are the
// answer's.
const (
	OpHeaderSet    Op = iota + 1 // key name, value
	OpHeaderAdd                  // key name, value
	OpHeaderRemove               // key name
	OpAttribute                  // key name, a Value
	OpBodyReplace                // the body slot's bytes become the value
	OpBodySplice                 // u32 offset, u32 length of what to cut, then what to put there; offsets ascend
	OpBodyDrop                   // the body slot's bytes are dropped
	OpRespond                    // key code (a-z, 0-9, _), value u16 status, then text for the caller
	OpRespondBody                // key content type, value the whole body, instead of a problem document
	OpCarry                      // the value is given back in the stage's next event of this exchange
	OpFetch                      // key name, value: a request (a Value); with ActionAwait only
	OpMeter                      // key name, value i64 to add to the plugin's counter of that name
)

// Code is an operation a plugin asks of the host while it runs.
type Code uint32

// The codes of the host import op. Inputs and outputs are Values unless they say otherwise; what needs a grant says which.
const (
	CodeTime     Code = iota + 1 // out: i64 nanoseconds since 1970, raw
	CodeRandom                   // out: fills outcap octets
	CodeGet                      // state: in key bytes; out value bytes
	CodePut                      // state: in u64 ttl ns (0: none), u32 key length, key, value
	CodeCAS                      // state: in u64 ttl ns, u32 key length, u32 old length (NoValue: must be absent), key, old, new
	CodeDelete                   // state: in key bytes
	CodeCount                    // state: in i64 delta, u64 ttl ns (from the first), key; out: i64 new value, raw
	CodeKey                      // accounts: in the presented API key, bytes; out: object account, key, name, scopes
	CodeHold                     // ledger: in object account, model, max (units); out: object hold, amount
	CodeSettle                   // ledger: in object hold, usage (units), estimated, tags; out: object amount, balance
	CodeRelease                  // ledger: in the hold, bytes
	CodeCacheGet                 // cache: in key bytes; out value bytes
	CodeCachePut                 // cache: in u64 ttl ns, u32 key length, key, value
)

// NoValue is the old length of CodeCAS that asks for absence.
const NoValue = 0xffffffff

// Errors of op: a negative result. A result of at least 0 is the number of octets written to out.
const (
	ErrNotFound     = -1  // no such key, account or hold
	ErrConflict     = -2  // CodeCAS: the old value differs
	ErrDenied       = -3  // the operator did not grant what this needs
	ErrInvalid      = -4  // malformed input
	ErrTooSmall     = -5  // out is too small; nothing was done
	ErrUnavailable  = -6  // the host can not do it now
	ErrInsufficient = -7  // CodeHold: the balance does not cover it
	ErrExpired      = -8  // CodeKey: the key is revoked or expired
	ErrLimit        = -9  // too many operations in one event, or the plugin's state is full
	ErrUnknown      = -10 // no such code
)

// Log levels.
const (
	LogDebug = 0
	LogInfo  = 1
	LogWarn  = 2
	LogError = 3
)

// Result packs what postern_on and postern_configure return: action in the top octet, then 24 bits of length, then the
// 32-bit address of the operations.
func Result(action Action, address, length uint32) uint64 {
	return uint64(action)<<56 | uint64(length&0xffffff)<<32 | uint64(address)
}

// Unpack is the reverse of Result.
func Unpack(result uint64) (action Action, address, length uint32) {
	return Action(result >> 56), uint32(result), uint32(result>>32) & 0xffffff
}

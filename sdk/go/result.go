package postern

import (
	"slices"
	"time"

	"github.com/postern-gateway/postern/sdk/abi"
)

// Result is what the plugin decides. As it is given to Plugin.On it means: go on, change nothing. Operations take effect
// together, after On returned nil; the host refuses the whole result when one of them is not allowed (sdk/ABI.md says what
// is allowed where).
type Result struct {
	action abi.Action
	ops    []byte
}

func (r *Result) reset() { r.action, r.ops = abi.ActionContinue, r.ops[:0] }

// room writes an operation down to its key and returns where its value goes, length octets. What is there has to be written
// over.
func (r *Result) room(op abi.Op, key string, length int) []byte {
	if len(key) > 0xffff {
		key = key[:0xffff]
	}
	at, size := len(r.ops), abi.OpHeader+len(key)+length
	if cap(r.ops)-at < size {
		r.ops = slices.Grow(r.ops, size)
	}
	r.ops = r.ops[:at+size]
	b := r.ops[at:]
	putU64(b, uint64(op)|uint64(len(key))<<16|uint64(length)<<32)
	return b[abi.OpHeader+copy(b[abi.OpHeader:], key):]
}

// head writes an operation whose value, of length octets, is appended to r.ops.
func (r *Result) head(op abi.Op, key string, length int) {
	b := r.room(op, key, length)
	r.ops = r.ops[:len(r.ops)-len(b)]
}

func (r *Result) op(op abi.Op, key string, value string) { copy(r.room(op, key, len(value)), value) }

// text writes an operation whose value is in several parts.
func (r *Result) text(op abi.Op, key string, first string, more []string) {
	length := len(first)
	for _, part := range more {
		length += len(part)
	}
	to := r.room(op, key, length)
	to = to[copy(to, first):]
	for _, part := range more {
		to = to[copy(to, part):]
	}
}

// SetHeader sets a header field: the request's before the response phase, then the response's, and the answer's together
// with Respond. The name is lower case. A value in several parts is written one after the other, which takes no memory.
func (r *Result) SetHeader(name, value string, more ...string) {
	r.text(abi.OpHeaderSet, name, value, more)
}

// AddHeader adds a field and keeps those of the same name.
func (r *Result) AddHeader(name, value string, more ...string) {
	r.text(abi.OpHeaderAdd, name, value, more)
}

// RemoveHeader removes every field of that name.
func (r *Result) RemoveHeader(name string) { r.op(abi.OpHeaderRemove, name, "") }

// SetAttribute sets an attribute to a string: one of the host's where the phase allows it (identity.account, identity.key
// and identity.name in authenticate, hold in admit), or one of the plugin's own, written "self.name", which expressions
// read as attribute["<plugin>.name"].
func (r *Result) SetAttribute(name, value string) {
	r.head(abi.OpAttribute, name, 5+len(value))
	r.ops = abi.AppendString(r.ops, value)
}

// SetAttributeValue sets an attribute to a value that was read: identity.scopes from what Host.Key gave, for example.
func (r *Result) SetAttributeValue(name string, value Value) {
	raw := value.Raw()
	r.head(abi.OpAttribute, name, len(raw))
	r.ops = append(r.ops, raw...)
}

// SetAttributeInts sets an attribute to a list of whole numbers, as targets in the route phase: the order in which the
// targets are to be tried, as indexes.
func (r *Result) SetAttributeInts(name string, values ...int) {
	r.head(abi.OpAttribute, name, 5+9*len(values))
	r.ops = abi.AppendList(r.ops, len(values))
	for _, v := range values {
		r.ops = abi.AppendInt(r.ops, int64(v))
	}
}

// SetAttributeStrings sets an attribute to a list of strings, as identity.scopes in authenticate.
func (r *Result) SetAttributeStrings(name string, values ...string) {
	n := 5
	for _, v := range values {
		n += 5 + len(v)
	}
	r.head(abi.OpAttribute, name, n)
	r.ops = abi.AppendList(r.ops, len(values))
	for _, v := range values {
		r.ops = abi.AppendString(r.ops, v)
	}
}

// ReplaceBody puts body in the place of the octets Event.Body gave.
func (r *Result) ReplaceBody(body []byte) { r.op(abi.OpBodyReplace, "", String(body)) }

// Splice cuts octets out of what Event.Body gave and puts others there. Splices ascend and do not overlap.
func (r *Result) Splice(offset, cut int, put []byte) {
	r.head(abi.OpBodySplice, "", 8+len(put))
	r.ops = append(appendU32(appendU32(r.ops, uint32(offset)), uint32(cut)), put...)
}

// DropBody drops the octets Event.Body gave.
func (r *Result) DropBody() { r.op(abi.OpBodyDrop, "", "") }

// Respond answers the client with a problem document: a status from 400 to 599, a stable code (a-z, 0-9 and _, at most 64
// octets) and a text for the caller, which may be empty (at most 1 KiB). In authenticate it means: not this identity;
// other authenticate stages may still accept the caller. Followed by RespondBody the status may be 200 to 599.
func (r *Result) Respond(status int, code, detail string) {
	r.action = abi.ActionRespond
	r.head(abi.OpRespond, code, 2+len(detail))
	r.ops = append(appendU16(r.ops, uint16(status)), detail...)
}

// RespondBody gives the answer of Respond a body of its own instead of a problem document.
func (r *Result) RespondBody(contentType string, body []byte) {
	r.op(abi.OpRespondBody, contentType, String(body))
}

// Carry keeps octets (at most 64 KiB) for the next events of the exchange at any stage of this plugin in the same policy;
// they replace what was carried before.
func (r *Result) Carry(b []byte) { r.op(abi.OpCarry, "", String(b)) }

// Meter adds n, at least 0, to the plugin's counter of that name (a-z, 0-9 and _), which the gateway shows in its metrics.
func (r *Result) Meter(name string, n int64) {
	r.head(abi.OpMeter, name, 8)
	r.ops = appendU64(r.ops, uint64(n))
}

// Done asks for no more events at this stage in this exchange; the operations of this result apply.
func (r *Result) Done() { r.action = abi.ActionDone }

// Fetch is an HTTP request that a plugin asks the gateway to make, with the grant fetch.
type Fetch struct {
	URL      string        // absolute; its origin is one the operator granted. Or else:
	Upstream string        // an upstream's name, which the operator granted,
	Path     string        // with the path there, and the query
	Method   string        // default GET
	Headers  []Field       // names in lower case, each once
	Body     []byte        // none with GET and HEAD
	Timeout  time.Duration // default, and most: what the operator allows
	Cache    time.Duration // how old an answer may be that was given to the same request; 0: it is made anew
	Max      int           // octets of the answer's body, at most 1 MiB; default 64 KiB
}

// Field is a header field of a Fetch.
type Field struct{ Name, Value string }

// Fetch asks for a request, to be made when the result awaits; up to eight with different names (a-z, 0-9 and _, at most
// 64 octets), which are made at the same time. Their answers come with EventFetched, see Event.Answer. Besides fetches, a
// result that awaits may hold Carry and Meter only.
func (r *Result) Fetch(name string, q Fetch) {
	op := len(r.ops)
	r.head(abi.OpFetch, name, 0)
	value, members := len(r.ops), uint32(0)
	r.ops = abi.AppendObject(r.ops, 0)
	text := func(key, value string) {
		if value != "" {
			r.ops = abi.AppendString(abi.AppendKey(r.ops, key), value)
			members++
		}
	}
	number := func(key string, n int64) {
		if n != 0 {
			r.ops = abi.AppendInt(abi.AppendKey(r.ops, key), n)
			members++
		}
	}
	text("url", q.URL)
	text("upstream", q.Upstream)
	text("path", q.Path)
	text("method", q.Method)
	text("body", String(q.Body))
	number("timeout", int64(q.Timeout))
	number("cache", int64(q.Cache))
	number("max", int64(q.Max))
	if len(q.Headers) > 0 {
		r.ops = abi.AppendObject(abi.AppendKey(r.ops, "headers"), len(q.Headers))
		for _, f := range q.Headers {
			r.ops = abi.AppendString(abi.AppendKey(r.ops, f.Name), f.Value)
		}
		members++
	}
	// How long it became is known now.
	putU32(r.ops[op+4:], uint32(len(r.ops)-value))
	putU32(r.ops[value+1:], members)
}

// Await asks to be called again, with EventFetched, when every Fetch of this result is done. No instance is held until then:
// what the plugin has to remember goes into Carry.
func (r *Result) Await() { r.action = abi.ActionAwait }

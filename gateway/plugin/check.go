package plugin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/sdk/abi"
)

// errProtocol is what a guest did against the rules; its text is for operators.
var errProtocol = errors.New("the plugin broke the ABI")

// Broke returns an error that a Pool reports as a fault of kind Protocol.
func Broke(format string, a ...any) error {
	return fmt.Errorf("%w: %s", errProtocol, fmt.Sprintf(format, a...))
}

// own is the prefix a plugin writes for attributes of its own; it does not know what the operator called it.
const own = "self."

// Check finds what is wrong with a result: actions and operations that the event does not allow, and fields, codes and
// values that are not well formed. It rewrites the plugin's own attributes from "self.x" to "<plugin>.x". A Pool checks every
// result before it is given out, whichever ABI it came by.
func (r *Result) Check(ev *Event, phase exchange.Phase, plugin string) error {
	head := ev.Kind == abi.EventRequest || ev.Kind == abi.EventResponse || ev.Kind == abi.EventFetched && phase != exchange.AccountPhase
	switch r.Action {
	case abi.ActionContinue, abi.ActionDone, abi.ActionError:
	case abi.ActionRespond:
		if !head {
			return Broke("action respond is not possible at %s", eventName(ev.Kind))
		}
	case abi.ActionAwait:
		if !head && ev.Kind != abi.EventAccount && ev.Kind != abi.EventFetched {
			return Broke("action await is not possible at %s", eventName(ev.Kind))
		}
		if ev.Awaited >= abi.MaxAwaits {
			return Broke("more than %d awaits for one event", abi.MaxAwaits)
		}
	case abi.ActionNeedBody:
		return Broke("action %d is reserved", r.Action)
	default:
		return Broke("there is no action %d", r.Action)
	}
	if len(r.Ops) > abi.MaxResultOps {
		return Broke("%d operations in one result, at most %d", len(r.Ops), abi.MaxResultOps)
	}
	c := checker{event: ev, phase: phase, plugin: plugin, head: head, action: r.Action}
	for i := range r.Ops {
		if err := c.op(r, &r.Ops[i]); err != nil {
			return fmt.Errorf("operation %d: %w", i, err)
		}
	}
	switch {
	case r.Action == abi.ActionAwait && c.fetches == 0:
		return Broke("action await without a fetch")
	case r.Action == abi.ActionRespond && !c.responded:
		return Broke("action respond without an answer")
	case c.responded && !c.body && c.status < 400 && r.Action == abi.ActionRespond:
		return Broke("status %d needs a body of its own", c.status)
	}
	return nil
}

type checker struct {
	event     *Event
	phase     exchange.Phase
	plugin    string
	action    abi.Action
	head      bool // the head of a message can still be changed
	responded bool
	status    int
	body      bool // the answer has a body of its own
	carried   bool
	replaced  bool // the body was replaced or dropped
	cut       int  // where the last splice ended
	spliced   bool
	fetches   int
	set       int // octets of headers and attributes
}

// What a result may give an exchange to hold, whose body has any number of events: octets of headers and attributes, each
// counted with perSet more; and attributes of the plugin's own, at which it can bring no other ones.
const maxSet, perSet, maxOwn = 4 << 20, 4 << 10, 64

func (c *checker) op(r *Result, op *Op) error {
	if c.action == abi.ActionAwait && op.Code != abi.OpFetch && op.Code != abi.OpCarry && op.Code != abi.OpMeter {
		return Broke("operation code %d beside an await", op.Code)
	}
	if op.Code <= abi.OpAttribute {
		if c.set += len(op.Key) + len(op.Value) + perSet; c.set > maxSet {
			return Broke("headers and attributes that come to more than %d octets, each counted with %d more", maxSet, perSet)
		}
	}
	switch op.Code {
	case abi.OpHeaderSet, abi.OpHeaderAdd, abi.OpHeaderRemove:
		if !c.head {
			return Broke("headers can not be changed at %s", eventName(c.event.Kind))
		}
		return c.header(r, op)
	case abi.OpAttribute:
		return c.attribute(r, op)
	case abi.OpBodyReplace, abi.OpBodyDrop, abi.OpBodySplice:
		return c.change(op)
	case abi.OpRespond:
		if c.responded || c.action != abi.ActionRespond && c.action != abi.ActionError {
			return Broke("an answer that the action does not ask for")
		}
		if len(op.Value) < 2 {
			return Broke("an answer without a status")
		}
		c.responded, c.status = true, int(binary.LittleEndian.Uint16(op.Value))
		if c.action == abi.ActionError {
			return nil // its text is only logged, made printable
		}
		if c.status < 200 || c.status > 599 {
			return Broke("status %d is not between 200 and 599", c.status)
		}
		if !word(op.Key) {
			return Broke("code %q is not 1 to 64 of a-z, 0-9 and _", op.Key)
		}
		if text := op.Value[2:]; len(text) > abi.MaxDetail || !plain(text) {
			return Broke("an answer's text is longer than %d octets, or not plain UTF-8", abi.MaxDetail)
		}
	case abi.OpRespondBody:
		if c.body || c.action != abi.ActionRespond {
			return Broke("an answer's body that the action does not ask for")
		}
		c.body = true
		if len(op.Key) == 0 || len(op.Key) > 256 || !exchange.FieldValue(op.Key) {
			return Broke("content type %q is not a field value", op.Key)
		}
	case abi.OpCarry:
		if c.carried || len(op.Value) > abi.MaxCarry {
			return Broke("more than one carry, or one longer than %d octets", abi.MaxCarry)
		}
		c.carried = true
	case abi.OpMeter:
		if !word(op.Key) || len(op.Value) != 8 || int64(binary.LittleEndian.Uint64(op.Value)) < 0 {
			return Broke("meter %q is not a word with a number of at least 0", op.Key)
		}
	case abi.OpFetch:
		return c.fetch(r, op)
	default:
		return Broke("there is no operation %d", op.Code)
	}
	return nil
}

// fetch checks the shape of a request; what is in it is looked at by whoever makes it, and a mistake there is an answer.
func (c *checker) fetch(r *Result, op *Op) error {
	switch {
	case c.action != abi.ActionAwait:
		return Broke("a fetch that the action does not await")
	case c.fetches == abi.MaxFetches:
		return Broke("more than %d fetches in one result", abi.MaxFetches)
	case !word(op.Key):
		return Broke("fetch %q is not named by 1 to 64 of a-z, 0-9 and _", op.Key)
	case len(op.Value) > abi.MaxFetch:
		return Broke("fetch %s is longer than %d octets", op.Key, abi.MaxFetch)
	}
	for i := range r.Ops {
		before := &r.Ops[i]
		if before == op {
			break
		}
		if before.Code == abi.OpFetch && bytes.Equal(before.Key, op.Key) {
			return Broke("two fetches called %s", op.Key)
		}
	}
	if v, rest, ok := abi.ReadValue(op.Value); !ok || len(rest) > 0 || v.Kind() != abi.KindObject {
		return Broke("fetch %s is not one object", op.Key)
	}
	c.fetches++
	return nil
}

func (c *checker) header(r *Result, op *Op) error {
	if _, known := r.names.Known(op.Key); !known {
		if !exchange.FieldName(op.Key) {
			return Broke("header name %q is not a lower-case token", op.Key)
		}
		if exchange.Framing(op.Key) {
			return Broke("header %s is the gateway's own", op.Key)
		}
		r.names.Keep(op.Key)
	}
	if op.Code == abi.OpHeaderRemove {
		if len(op.Value) > 0 {
			return Broke("removing header %s with a value", op.Key)
		}
		return nil
	}
	if len(op.Value) > abi.MaxHeader || !exchange.FieldValue(op.Value) {
		return Broke("the value of header %s is longer than %d octets, or no field value", op.Key, abi.MaxHeader)
	}
	return nil
}

func (c *checker) change(op *Op) error {
	switch {
	case !c.event.HasBody:
		return Broke("a change of a body the event does not have")
	case c.event.Truncated:
		return Broke("a change of a body of which only the beginning was shown")
	case c.event.Kind == abi.EventAccount || c.event.Kind == abi.EventConfigure || c.event.Kind == abi.EventFetched:
		return Broke("bodies can not be changed at %s", eventName(c.event.Kind))
	case c.replaced || c.spliced && op.Code != abi.OpBodySplice:
		return Broke("more than one change of the same body")
	}
	if op.Code != abi.OpBodySplice {
		c.replaced = true
		if op.Code == abi.OpBodyDrop && len(op.Value) > 0 {
			return Broke("dropping the body with a value")
		}
		return nil
	}
	c.spliced = true
	if len(op.Value) < 8 {
		return Broke("a splice without offset and length")
	}
	at := uint64(binary.LittleEndian.Uint32(op.Value))
	end := at + uint64(binary.LittleEndian.Uint32(op.Value[4:]))
	if at < uint64(c.cut) || end > uint64(len(c.event.Body)) {
		return Broke("a splice of %d to %d, outside the body of %d octets or before the last splice's end at %d", at, end, len(c.event.Body), c.cut)
	}
	c.cut = int(end)
	return nil
}

// attribute checks that the phase lets a plugin set an attribute, and that its value has the right type.
func (c *checker) attribute(r *Result, op *Op) error {
	if c.event.Kind == abi.EventConfigure {
		return Broke("attributes can not be set at %s", eventName(c.event.Kind))
	}
	if len(op.Value) > abi.MaxAttribute {
		return Broke("attribute %q is longer than %d octets", op.Key, abi.MaxAttribute)
	}
	v, rest, ok := abi.ReadValue(op.Value)
	if !ok || len(rest) > 0 {
		return Broke("attribute %q is not one value", op.Key)
	}
	switch string(op.Key) {
	case "identity.account", "identity.key", "identity.name", "identity.scopes":
		fine, what := text(v) && (len(v.Bytes()) > 0 || string(op.Key) != "identity.account"), "a plain string"
		if string(op.Key) == "identity.scopes" {
			fine, what = v.Kind() == abi.KindList, "a list of plain strings"
			v.Each(func(_ []byte, m abi.Value) bool { fine = fine && text(m); return fine })
		}
		if c.phase != exchange.Authenticate {
			return Broke("attribute %s can be set in authenticate only", op.Key)
		} else if !fine {
			return Broke("attribute %s is not %s", op.Key, what)
		}
		return nil
	case "targets":
		return c.targets(v)
	}
	name := op.Key
	if len(name) > len(own) && string(name[:len(own)]) == own {
		name = name[len(own):]
		op.Key = r.rename(c.plugin, name)
	} else if p := len(c.plugin); len(name) > p+1 && string(name[:p]) == c.plugin && name[p] == '.' {
		name = name[p+1:]
	} else {
		return Broke("attribute %q is not the plugin's to set; its own begin with %q", op.Key, own)
	}
	if len(name) > abi.MaxName || !identifier(name) {
		return Broke("attribute %q is not named by a-z, 0-9, _ and .", op.Key)
	}
	if v.Kind() != abi.KindString || !utf8.Valid(v.Bytes()) {
		return Broke("attribute %s is not a string", op.Key)
	}
	if n, known := c.event.Exchange.Owned(c.plugin, op.Key); n >= maxOwn && !known {
		return Broke("attribute %s beside the %d that the plugin has set already", op.Key, n)
	}
	return nil
}

// targets is the order in which a model call's targets are tried, as indexes, each at most once.
func (c *checker) targets(v abi.Value) error {
	if c.phase != exchange.Route || c.event.Exchange == nil {
		return Broke("attribute targets can be set in route only")
	}
	n := len(c.event.Exchange.Call.Targets)
	if v.Kind() != abi.KindList || v.Len() == 0 || v.Len() > n {
		return Broke("attribute targets is not a list of 1 to %d indexes", n)
	}
	var seen [4]uint64 // a bit for each target; a model has at most 256
	for _, m := range v.Each {
		i := m.Int()
		if m.Kind() != abi.KindInt || i < 0 || i >= int64(n) || i >= 256 || seen[i/64]&(1<<(i%64)) != 0 {
			return Broke("attribute targets is not a list of different indexes below %d", n)
		}
		seen[i/64] |= 1 << (i % 64)
	}
	return nil
}

// rename writes "<plugin>.<name>" to the result's own memory.
func (r *Result) rename(plugin string, name []byte) []byte {
	start := len(r.buffer)
	r.buffer = append(append(append(r.buffer, plugin...), '.'), name...)
	return r.buffer[start:len(r.buffer):len(r.buffer)]
}

func eventName(k abi.Event) string {
	names := [abi.EventCount]string{"configure", "request", "request body", "response", "response body", "fetched", "account", "tick"}
	if k < abi.EventCount {
		return names[k]
	}
	return "an unknown event"
}

// word: 1 to 64 of a-z, 0-9 and _.
func word(b []byte) bool { return len(b) <= 64 && identifier(b) && bytes.IndexByte(b, '.') < 0 }

// identifier: a-z, 0-9, _ and a dot, at least one.
func identifier(b []byte) bool {
	for _, c := range b {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '.' {
			return false
		}
	}
	return len(b) > 0
}

// plain: UTF-8 without control characters.
func plain(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return utf8.Valid(b)
}

func text(v abi.Value) bool { return v.Kind() == abi.KindString && plain(v.Bytes()) }

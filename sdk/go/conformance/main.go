// Command conformance is the Go SDK's conformance guest: it does what a script says and tells what it saw. What it has to do
// is sdk/conformance/README.md.
package main

import (
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
)

func main() {}

var _ = postern.Register(&guest{})

const (
	slotDo  = 6
	maxKept = 1024
	maxSaw  = 16000
)

// guest is one instance.
type guest struct {
	kept  [16]string
	calls int
	event *postern.Event // nil while a stage is configured
	stage *postern.Stage
	host  *postern.Host
	r     *postern.Result
	saw   []byte
	rest  string // of the script, behind the command that runs
	ended bool
	spun  uint32
}

// Configure runs the configuration's script.
func (g *guest) Configure(s *postern.Stage) error {
	g.event, g.stage, g.host, g.r = nil, s, s.Host, nil
	if err := g.run(s.Config.Member("setup").Text()); err != nil {
		return err
	}
	g.kept[s.Number] = string(g.saw[:min(len(g.saw), maxKept)])
	return nil
}

// On runs the event's script.
func (g *guest) On(e *postern.Event, r *postern.Result) error {
	g.event, g.stage, g.host, g.r = e, nil, e.Host, r
	g.calls++
	var script string
	switch e.Kind {
	case abi.EventFetched:
		script = string(e.Carry())
	case abi.EventRequest, abi.EventRequestBody, abi.EventResponse, abi.EventResponseBody, abi.EventAccount:
		script = e.Value(slotDo).Text()
	default:
		return nil
	}
	err := g.run(script)
	if err == nil && !g.ended && len(g.saw) > 0 {
		r.SetAttribute("self.saw", string(g.saw))
	}
	return err
}

func (g *guest) run(script string) error {
	g.saw, g.ended, g.rest = g.saw[:0], false, script
	for g.rest != "" && !g.ended {
		var command string
		command, g.rest, _ = strings.Cut(g.rest, ";")
		g.rest = strings.TrimPrefix(g.rest, " ")
		if err := g.command(strings.Split(command, " ")); err != nil {
			return err
		}
		if len(g.saw) > maxSaw {
			return errors.New("saw too much")
		}
	}
	return nil
}

// fewest is how many words a command has at least, its name included.
var fewest = map[string]int{
	"event": 1, "time": 1, "exchange": 1, "calls": 1, "setup": 1, "see": 2, "has": 2, "header": 2, "headers": 2, "fields": 2, "value": 2,
	"member": 3, "at": 3, "encode": 2, "answer": 2, "set": 3, "add": 3, "remove": 2, "attribute": 3, "strings": 2, "ints": 2, "copy": 3,
	"replace": 2, "splice": 4, "drop": 1, "respond": 4, "content": 3, "carry": 2, "meter": 3, "done": 1, "fetch": 2, "await": 1, "error": 2,
	"trap": 2, "spin": 1, "repeat": 3, "log": 3, "now": 1, "random": 2, "get": 2, "put": 4, "cas": 5, "delete": 2, "count": 4, "key": 2,
	"hold": 4, "settle": 5, "release": 2, "cacheget": 2, "cacheput": 4, "op": 4,
}

func (g *guest) command(w []string) error {
	least, known := fewest[w[0]]
	if !known || len(w) < least {
		return errors.New("unknown command " + w[0])
	}
	switch w[0] {
	case "repeat":
		for range number(w[1]) {
			if err := g.command(w[2:]); err != nil {
				return err
			}
		}
		return nil
	case "error":
		return errors.New(string(g.text(w[1])))
	case "trap":
		panic(string(g.text(w[1])))
	case "spin":
		for {
			g.spun++
		}
	}
	if g.look(w) || g.decide(w) {
		return nil
	}
	g.ask(w)
	return nil
}

// text is a word of a script.
func (g *guest) text(word string) []byte {
	switch {
	case word == "$body":
		return g.slot("body")
	case word == "$carry":
		return g.slot("carry")
	case strings.HasPrefix(word, "@"):
		return []byte(strings.Repeat("a", int(number(word[1:]))))
	}
	b := make([]byte, 0, len(word))
	for i := 0; i < len(word); i++ {
		c := word[i]
		if c == '%' && i+2 < len(word) {
			n, _ := strconv.ParseUint(word[i+1:i+3], 16, 8)
			c = byte(n)
			i += 2
		}
		b = append(b, c)
	}
	return b
}

func (g *guest) string(word string) string { return string(g.text(word)) }

func number(word string) int64 {
	n, _ := strconv.ParseInt(word, 10, 64)
	return n
}

// slot is what is in the slot body or carry; nil when it is absent.
func (g *guest) slot(name string) []byte {
	switch {
	case g.event == nil:
		return nil
	case name == "carry":
		return g.event.Carry()
	}
	b, _ := g.event.Body()
	return b
}

// value is what is in a slot, as a value.
func (g *guest) value(slot string) postern.Value {
	if slot != "body" {
		return g.event.Value(int(number(slot)))
	}
	if g.event == nil {
		return g.stage.Config
	}
	v, _, _ := abi.ReadValue(g.slot(slot))
	return v
}

// look carries out the commands that append what is to be seen.
func (g *guest) look(w []string) bool {
	e := g.event
	switch w[0] {
	case "event":
		g.token("event")
		number, phase, kind := 0, postern.Phase(0), abi.EventConfigure
		if e == nil {
			number, phase = g.stage.Number, g.stage.Phase
		} else {
			number, phase, kind = e.Stage, e.Phase, e.Kind
		}
		g.int(int64(kind))
		g.put(",")
		g.int(int64(phase))
		g.put(",")
		g.int(int64(number))
		g.put(",")
		if e == nil {
			g.put("E")
			return true
		}
		for _, f := range []struct {
			set    bool
			letter string
		}{{e.End(), "E"}, {e.Stream(), "S"}, {e.Truncated(), "T"}, {e.Gone(), "G"}} {
			if f.set {
				g.put(f.letter)
			}
		}
	case "time":
		g.token("time")
		g.int(e.Time())
	case "exchange":
		g.token("exchange")
		g.saw = strconv.AppendUint(g.saw, e.Exchange(), 10)
	case "calls":
		g.token("calls")
		g.int(int64(g.calls))
	case "setup":
		g.token("setup")
		g.octets([]byte(g.kept[e.Stage]))
	case "see":
		g.token("see", w[1])
		g.optional(g.slot(w[1]))
	case "has":
		g.token("has", w[1])
		if w[1] == "body" || w[1] == "carry" {
			g.bool(g.slot(w[1]) != nil)
		} else {
			g.bool(e.Has(int(number(w[1]))))
		}
	case "header":
		g.token("header", w[1])
		if v, ok := e.Header(int(number(w[1]))); ok {
			g.octets(v)
		} else {
			g.put("-")
		}
	case "headers":
		g.token("headers", w[1])
		if !e.Has(int(number(w[1]))) {
			g.put("-")
			break
		}
		g.put("[")
		n := 0
		for v := range e.Headers(int(number(w[1]))) {
			n = g.comma(n)
			g.octets(v)
		}
		g.put("]")
	case "fields":
		g.token("fields", w[1])
		if !e.Has(int(number(w[1]))) {
			g.put("-")
			break
		}
		g.put("{")
		n := 0
		for name, v := range e.Fields(int(number(w[1]))) {
			n = g.comma(n)
			g.octets(name)
			g.put(":")
			g.octets(v)
		}
		g.put("}")
	case "value":
		g.token("value", w[1])
		g.tell(g.value(w[1]))
	case "member":
		g.token("member", w[1])
		g.tell(g.value(w[1]).Member(g.string(w[2])))
	case "at":
		g.token("at", w[1])
		g.tell(g.value(w[1]).At(int(number(w[2]))))
	case "encode":
		g.token("encode", w[1])
		g.saw = hex.AppendEncode(g.saw, encode(nil, g.value(w[1])))
	case "answer":
		g.token("answer", w[1])
		a, ok := e.Answer(w[1])
		if !ok {
			g.put("-")
			break
		}
		g.int(int64(a.Status))
		g.put(",")
		g.bool(a.Cached)
		g.put(",")
		g.octets([]byte(a.Error))
		g.put(",")
		g.octets(a.Body)
		if len(w) > 2 {
			g.put(",")
			v, ok := a.Header(w[2])
			if !ok {
				g.put("-")
				break
			}
			g.octets(v)
		}
	default:
		return false
	}
	return true
}

// decide carries out the commands that write the result.
func (g *guest) decide(w []string) bool {
	switch r := g.r; w[0] {
	case "set":
		r.SetHeader(g.string(w[1]), g.string(w[2]))
	case "add":
		r.AddHeader(g.string(w[1]), g.string(w[2]))
	case "remove":
		r.RemoveHeader(g.string(w[1]))
	case "attribute":
		r.SetAttribute(g.string(w[1]), g.string(w[2]))
	case "strings":
		var list []string
		for _, word := range w[2:] {
			list = append(list, g.string(word))
		}
		r.SetAttributeStrings(g.string(w[1]), list...)
	case "ints":
		var list []int
		for _, word := range w[2:] {
			list = append(list, int(number(word)))
		}
		r.SetAttributeInts(g.string(w[1]), list...)
	case "copy":
		r.SetAttributeValue(g.string(w[1]), g.value(w[2]))
	case "replace":
		r.ReplaceBody(g.text(w[1]))
	case "splice":
		r.Splice(int(number(w[1])), int(number(w[2])), g.text(w[3]))
	case "drop":
		r.DropBody()
	case "respond":
		r.Respond(int(number(w[1])), g.string(w[2]), g.string(w[3]))
	case "content":
		r.RespondBody(g.string(w[1]), g.text(w[2]))
	case "carry":
		r.Carry(g.text(w[1]))
	case "meter":
		r.Meter(g.string(w[1]), number(w[2]))
	case "done":
		r.Done()
	case "fetch":
		g.fetch(g.string(w[1]), w[2:])
	case "await":
		r.Carry([]byte(g.rest))
		r.Await()
		g.ended = true
	default:
		return false
	}
	return true
}

func (g *guest) fetch(name string, fields []string) {
	var q postern.Fetch
	for _, f := range fields {
		key, word, _ := strings.Cut(f, "=")
		switch key {
		case "url":
			q.URL = g.string(word)
		case "upstream":
			q.Upstream = g.string(word)
		case "path":
			q.Path = g.string(word)
		case "method":
			q.Method = g.string(word)
		case "body":
			q.Body = g.text(word)
		case "timeout":
			q.Timeout = time.Duration(number(word))
		case "cache":
			q.Cache = time.Duration(number(word))
		case "max":
			q.Max = int(number(word))
		default:
			q.Headers = append(q.Headers, postern.Field{Name: strings.TrimPrefix(key, "header:"), Value: g.string(word)})
		}
	}
	g.r.Fetch(name, q)
}

// ask carries out the commands that ask the host.
func (g *guest) ask(w []string) {
	h := g.host
	if w[0] == "log" {
		say := []func(string){h.Debug, h.Info, h.Warn, h.Error}
		say[number(w[1])](g.string(w[2]))
		return
	}
	g.token(w[0])
	switch w[0] {
	case "now":
		if n, err := h.Time(); g.went(err) {
			g.int(n)
		}
	case "random":
		b := make([]byte, number(w[1]))
		if err := h.Random(b); !g.went(err) {
			break
		}
		if len(b) <= 64 {
			g.saw = hex.AppendEncode(g.saw, b)
		} else {
			g.int(int64(len(b)))
		}
	case "get":
		if v, err := h.Get(g.text(w[1])); g.went(err) {
			g.octets(v)
		}
	case "put":
		g.ok(h.Put(g.text(w[1]), g.text(w[2]), time.Duration(number(w[3]))))
	case "cas":
		var old []byte
		if w[2] != "-" {
			old = g.text(w[2])
		}
		g.ok(h.CAS(g.text(w[1]), old, g.text(w[3]), time.Duration(number(w[4]))))
	case "delete":
		g.ok(h.Delete(g.text(w[1])))
	case "count":
		if n, err := h.Count(g.text(w[1]), number(w[2]), time.Duration(number(w[3]))); g.went(err) {
			g.int(n)
		}
	case "key":
		if id, err := h.Key(g.text(w[1])); g.went(err) {
			for _, b := range [][]byte{id.Account, id.Key, id.Name} {
				g.octets(b)
				g.put(",")
			}
			g.tell(id.Scopes)
		}
	case "hold":
		if hold, amount, err := h.Hold(g.text(w[1]), g.text(w[2]), g.value(w[3])); g.went(err) {
			g.octets(hold)
			g.put(",")
			g.octets(amount)
		}
	case "settle":
		var tags postern.Value
		if w[4] != "-" {
			tags = g.value(w[4])
		}
		if receipt, err := h.Settle(g.text(w[1]), g.value(w[2]), w[3] == "1", tags); g.went(err) {
			g.octets(receipt.Amount)
			g.put(",")
			g.octets(receipt.Balance)
		}
	case "release":
		g.ok(h.Release(g.text(w[1])))
	case "cacheget":
		if v, err := h.CacheGet(g.text(w[1])); g.went(err) {
			g.octets(v)
		}
	case "cacheput":
		g.ok(h.CachePut(g.text(w[1]), g.text(w[2]), time.Duration(number(w[3]))))
	case "op":
		g.int(h.Op(abi.Code(number(w[1])), g.text(w[3]), make([]byte, number(w[2]))))
	}
}

// went writes a failure, if there is one.
func (g *guest) went(err error) bool {
	var e postern.Error
	switch {
	case err == nil:
		return true
	case errors.As(err, &e):
		names := [...]string{"", "NOT_FOUND", "CONFLICT", "DENIED", "INVALID", "TOO_SMALL", "UNAVAILABLE", "INSUFFICIENT", "EXPIRED", "LIMIT", "UNKNOWN"}
		g.put(names[-e])
	default:
		g.put(err.Error())
	}
	return false
}

func (g *guest) ok(err error) {
	if g.went(err) {
		g.put("ok")
	}
}

// token begins a token.
func (g *guest) token(name string, slot ...string) {
	if len(g.saw) > 0 {
		g.put(" ")
	}
	g.put(name)
	for _, s := range slot {
		g.put("." + s)
	}
	g.put("=")
}

func (g *guest) put(s string)  { g.saw = append(g.saw, s...) }
func (g *guest) int(n int64)   { g.saw = strconv.AppendInt(g.saw, n, 10) }
func (g *guest) bool(set bool) { g.put(map[bool]string{false: "0", true: "1"}[set]) }

// comma puts a comma before every member but the first.
func (g *guest) comma(n int) int {
	if n > 0 {
		g.put(",")
	}
	return n + 1
}

func (g *guest) optional(b []byte) {
	if b == nil {
		g.put("-")
		return
	}
	g.octets(b)
}

func (g *guest) octets(b []byte) {
	const digits = "0123456789ABCDEF"
	if len(b) > 256 {
		sum := uint32(0x811c9dc5)
		for _, c := range b {
			sum = (sum ^ uint32(c)) * 0x01000193
		}
		g.put("#")
		g.int(int64(len(b)))
		g.put(":")
		g.hex(uint64(sum), 8)
		return
	}
	g.put(`"`)
	for _, c := range b {
		if c > 0x20 && c < 0x7f && c != '"' && c != '%' {
			g.saw = append(g.saw, c)
		} else {
			g.saw = append(g.saw, '%', digits[c>>4], digits[c&15])
		}
	}
	g.put(`"`)
}

func (g *guest) hex(n uint64, digits int) {
	s := strconv.FormatUint(n, 16)
	g.put(strings.Repeat("0", digits-len(s)) + s)
}

// tell writes a value.
func (g *guest) tell(v postern.Value) {
	switch v.Kind() {
	case abi.KindNull:
		g.put("null")
	case abi.KindBool:
		g.put(strconv.FormatBool(v.Bool()))
	case abi.KindInt:
		g.int(v.Int())
	case abi.KindFloat:
		g.put("f")
		g.hex(math.Float64bits(v.Float()), 16)
	case abi.KindString:
		g.octets(v.Bytes())
	case abi.KindList:
		g.put("[")
		n := 0
		for _, m := range v.Each {
			n = g.comma(n)
			g.tell(m)
		}
		g.put("]")
	case abi.KindObject:
		g.put("{")
		n := 0
		for key, m := range v.Each {
			n = g.comma(n)
			g.octets(key)
			g.put(":")
			g.tell(m)
		}
		g.put("}")
	}
}

// encode builds a value anew.
func encode(b []byte, v postern.Value) []byte {
	switch v.Kind() {
	case abi.KindBool:
		return abi.AppendBool(b, v.Bool())
	case abi.KindInt:
		return abi.AppendInt(b, v.Int())
	case abi.KindFloat:
		return abi.AppendFloat(b, v.Float())
	case abi.KindString:
		return abi.AppendString(b, v.Text())
	case abi.KindList:
		b = abi.AppendList(b, v.Len())
		for _, m := range v.Each {
			b = encode(b, m)
		}
		return b
	case abi.KindObject:
		b = abi.AppendObject(b, v.Len())
		for key, m := range v.Each {
			b = encode(abi.AppendKey(b, string(key)), m)
		}
		return b
	}
	return abi.AppendNull(b)
}

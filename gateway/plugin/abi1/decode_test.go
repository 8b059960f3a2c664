package abi1_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/plugin/abi1"
	"github.com/postern-gateway/postern/sdk/abi"
)

// op encodes one operation.
func op(code abi.Op, key string, value ...byte) []byte {
	b := []byte{byte(code), 0, byte(len(key)), byte(len(key) >> 8), byte(len(value)), byte(len(value) >> 8), byte(len(value) >> 16), 0}
	return append(append(b, key...), value...)
}

func str(s string) []byte { return abi.AppendString(nil, s) }

func ints(list ...int64) []byte {
	b := abi.AppendList(nil, len(list))
	for _, n := range list {
		b = abi.AppendInt(b, n)
	}
	return b
}

func answer(status int, text string) []byte {
	return append([]byte{byte(status), byte(status >> 8)}, text...)
}

// What each event and phase allows. says is empty where the result is in order.
func TestRules(t *testing.T) {
	t.Parallel()
	join := func(ops ...[]byte) []byte { return bytes.Join(ops, nil) }
	long := strings.Repeat("x", abi.MaxHeader+1)
	object := abi.AppendObject(nil, 0)
	fetches := func(n int) (ops []byte) {
		for i := range n {
			ops = append(ops, op(abi.OpFetch, string(rune('a'+i)), object...)...)
		}
		return ops
	}
	for _, c := range []struct {
		name   string
		phase  exchange.Phase
		kind   abi.Event
		action abi.Action
		body   string // "": none
		ops    []byte
		says   string

		awaited int
	}{
		{name: "nothing", kind: abi.EventRequest},
		{name: "done", kind: abi.EventResponseBody, phase: exchange.ResponsePhase, action: abi.ActionDone},
		{name: "need body", kind: abi.EventRequest, action: abi.ActionNeedBody, says: "reserved"},

		{name: "header", kind: abi.EventRequest, ops: op(abi.OpHeaderSet, "x-a", 'b')},
		{name: "response header", kind: abi.EventResponse, phase: exchange.ResponsePhase, ops: op(abi.OpHeaderAdd, "x-a", 'b', '\t', 0xe4)},
		{name: "empty header", kind: abi.EventRequest, ops: op(abi.OpHeaderSet, "x-a")},
		{name: "remove", kind: abi.EventRequest, ops: op(abi.OpHeaderRemove, "cookie")},
		{name: "remove with a value", kind: abi.EventRequest, ops: op(abi.OpHeaderRemove, "cookie", 'x'), says: "with a value"},
		{name: "upper case", kind: abi.EventRequest, ops: op(abi.OpHeaderSet, "X-A", 'b'), says: "lower-case token"},
		{name: "no name", kind: abi.EventRequest, ops: op(abi.OpHeaderSet, "", 'b'), says: "lower-case token"},
		{name: "colon", kind: abi.EventRequest, ops: op(abi.OpHeaderSet, "a:b", 'b'), says: "lower-case token"},
		{name: "pseudo field", kind: abi.EventRequest, ops: op(abi.OpHeaderSet, ":path", '/'), says: "lower-case token"},
		{name: "split", kind: abi.EventRequest, ops: op(abi.OpHeaderSet, "x-a", []byte("b\r\nx-c: d")...), says: "no field value"},
		{name: "nul", kind: abi.EventRequest, ops: op(abi.OpHeaderSet, "x-a", 0), says: "no field value"},
		{name: "space around", kind: abi.EventRequest, ops: op(abi.OpHeaderSet, "x-a", ' ', 'b'), says: "no field value"},
		{name: "long", kind: abi.EventRequest, ops: op(abi.OpHeaderSet, "x-a", []byte(long)...), says: "longer than"},
		{name: "framing", kind: abi.EventRequest, ops: op(abi.OpHeaderSet, "content-length", '0'), says: "gateway's own"},
		{name: "host", kind: abi.EventRequest, ops: op(abi.OpHeaderRemove, "host"), says: "gateway's own"},
		{name: "postern", kind: abi.EventResponse, phase: exchange.ResponsePhase, ops: op(abi.OpHeaderSet, "postern-receipt", 'x'), says: "gateway's own"},
		{name: "header after the head", kind: abi.EventResponseBody, phase: exchange.ResponsePhase, ops: op(abi.OpHeaderSet, "x-a", 'b'), says: "at response body"},
		{name: "header at account", kind: abi.EventAccount, phase: exchange.AccountPhase, ops: op(abi.OpHeaderSet, "x-a", 'b'), says: "at account"},

		{name: "answer", kind: abi.EventRequest, action: abi.ActionRespond, ops: op(abi.OpRespond, "no_way", answer(403, "Not that way.")...)},
		{name: "answer with headers", kind: abi.EventRequest, action: abi.ActionRespond, ops: join(op(abi.OpRespond, "x", answer(401, "")...), op(abi.OpHeaderSet, "www-authenticate", 'B'))},
		{name: "answer with a body", kind: abi.EventRequest, action: abi.ActionRespond, ops: join(op(abi.OpRespond, "cached", answer(200, "")...), op(abi.OpRespondBody, "text/plain", 'h', 'i'))},
		{name: "200 without a body", kind: abi.EventRequest, action: abi.ActionRespond, ops: op(abi.OpRespond, "x", answer(200, "")...), says: "body of its own"},
		{name: "respond without an answer", kind: abi.EventRequest, action: abi.ActionRespond, says: "without an answer"},
		{name: "answer without respond", kind: abi.EventRequest, ops: op(abi.OpRespond, "x", answer(403, "")...), says: "does not ask for"},
		{name: "two answers", kind: abi.EventRequest, action: abi.ActionRespond, ops: join(op(abi.OpRespond, "x", answer(403, "")...), op(abi.OpRespond, "x", answer(403, "")...)), says: "does not ask for"},
		{name: "body without an answer", kind: abi.EventRequest, ops: op(abi.OpRespondBody, "text/plain"), says: "does not ask for"},
		{name: "content type", kind: abi.EventRequest, action: abi.ActionRespond, ops: join(op(abi.OpRespond, "x", answer(200, "")...), op(abi.OpRespondBody, "a\r\nb")), says: "content type"},
		{name: "status 101", kind: abi.EventRequest, action: abi.ActionRespond, ops: op(abi.OpRespond, "x", answer(101, "")...), says: "between 200 and 599"},
		{name: "no status", kind: abi.EventRequest, action: abi.ActionRespond, ops: op(abi.OpRespond, "x", 1), says: "without a status"},
		{name: "code", kind: abi.EventRequest, action: abi.ActionRespond, ops: op(abi.OpRespond, "No Way", answer(403, "")...), says: "code"},
		{name: "control in the text", kind: abi.EventRequest, action: abi.ActionRespond, ops: op(abi.OpRespond, "x", answer(403, "a\nb")...), says: "plain UTF-8"},
		{name: "answer in mid body", kind: abi.EventResponseBody, phase: exchange.ResponsePhase, action: abi.ActionRespond, ops: op(abi.OpRespond, "x", answer(403, "")...), says: "not possible at response body"},
		{name: "answer at account", kind: abi.EventAccount, phase: exchange.AccountPhase, action: abi.ActionRespond, ops: op(abi.OpRespond, "x", answer(403, "")...), says: "not possible at account"},

		{name: "replace", kind: abi.EventRequest, body: "hello", ops: op(abi.OpBodyReplace, "", 'x')},
		{name: "drop", kind: abi.EventResponseBody, phase: exchange.ResponsePhase, body: "hello", ops: op(abi.OpBodyDrop, "")},
		{name: "splices", kind: abi.EventRequest, body: "hello", ops: join(op(abi.OpBodySplice, "", 0, 0, 0, 0, 2, 0, 0, 0, 'x'), op(abi.OpBodySplice, "", 2, 0, 0, 0, 3, 0, 0, 0))},
		{name: "splice outside", kind: abi.EventRequest, body: "hello", ops: op(abi.OpBodySplice, "", 4, 0, 0, 0, 2, 0, 0, 0), says: "outside the body"},
		{name: "splice overflow", kind: abi.EventRequest, body: "hello", ops: op(abi.OpBodySplice, "", 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0), says: "outside the body"},
		{name: "splices overlap", kind: abi.EventRequest, body: "hello", ops: join(op(abi.OpBodySplice, "", 0, 0, 0, 0, 3, 0, 0, 0), op(abi.OpBodySplice, "", 2, 0, 0, 0, 1, 0, 0, 0)), says: "before the last"},
		{name: "splice cut short", kind: abi.EventRequest, body: "hello", ops: op(abi.OpBodySplice, "", 1, 0), says: "without offset"},
		{name: "replace and splice", kind: abi.EventRequest, body: "hello", ops: join(op(abi.OpBodyReplace, "", 'x'), op(abi.OpBodySplice, "", 0, 0, 0, 0, 0, 0, 0, 0)), says: "more than one change"},
		{name: "replace without a body", kind: abi.EventRequest, ops: op(abi.OpBodyReplace, "", 'x'), says: "does not have"},

		{name: "identity", kind: abi.EventRequest, phase: exchange.Authenticate, ops: op(abi.OpAttribute, "identity.account", str("a")...)},
		{name: "scopes", kind: abi.EventRequest, phase: exchange.Authenticate, ops: op(abi.OpAttribute, "identity.scopes", append(abi.AppendList(nil, 1), str("chat")...)...)},
		{name: "identity too late", kind: abi.EventRequest, phase: exchange.Authorize, ops: op(abi.OpAttribute, "identity.account", str("a")...), says: "authenticate only"},
		{name: "no account", kind: abi.EventRequest, phase: exchange.Authenticate, ops: op(abi.OpAttribute, "identity.account", str("")...), says: "plain string"},
		{name: "scopes as a string", kind: abi.EventRequest, phase: exchange.Authenticate, ops: op(abi.OpAttribute, "identity.scopes", str("chat")...), says: "list of plain strings"},
		{name: "scopes of numbers", kind: abi.EventRequest, phase: exchange.Authenticate, ops: op(abi.OpAttribute, "identity.scopes", ints(1)...), says: "list of plain strings"},
		{name: "own", kind: abi.EventRequest, ops: op(abi.OpAttribute, "self.seen", str("yes")...)},
		{name: "own by name", kind: abi.EventRequest, ops: op(abi.OpAttribute, "p.seen", str("yes")...)},
		{name: "another plugin's", kind: abi.EventRequest, ops: op(abi.OpAttribute, "q.seen", str("yes")...), says: "not the plugin's to set"},
		{name: "the host's", kind: abi.EventRequest, ops: op(abi.OpAttribute, "model", str("yes")...), says: "not the plugin's to set"},
		{name: "own, no name", kind: abi.EventRequest, ops: op(abi.OpAttribute, "self.", str("yes")...), says: "not the plugin's"},
		{name: "own, odd name", kind: abi.EventRequest, ops: op(abi.OpAttribute, "self.a b", str("yes")...), says: "not named by"},
		{name: "own, a number", kind: abi.EventRequest, ops: op(abi.OpAttribute, "self.n", ints(1)...), says: "not a string"},
		{name: "no value", kind: abi.EventRequest, ops: op(abi.OpAttribute, "self.n", 4, 0xff), says: "not one value"},
		{name: "two values", kind: abi.EventRequest, ops: op(abi.OpAttribute, "self.n", append(str("a"), str("b")...)...), says: "not one value"},
		{name: "targets", kind: abi.EventRequest, phase: exchange.Route, ops: op(abi.OpAttribute, "targets", ints(1, 0)...)},
		{name: "some targets", kind: abi.EventRequest, phase: exchange.Route, ops: op(abi.OpAttribute, "targets", ints(1)...)},
		{name: "targets elsewhere", kind: abi.EventRequest, phase: exchange.Admit, ops: op(abi.OpAttribute, "targets", ints(1)...), says: "route only"},
		{name: "targets beyond", kind: abi.EventRequest, phase: exchange.Route, ops: op(abi.OpAttribute, "targets", ints(2)...), says: "different indexes"},
		{name: "targets twice", kind: abi.EventRequest, phase: exchange.Route, ops: op(abi.OpAttribute, "targets", ints(1, 1)...), says: "different indexes"},
		{name: "no targets", kind: abi.EventRequest, phase: exchange.Route, ops: op(abi.OpAttribute, "targets", ints()...), says: "list of 1 to 2"},

		{name: "carry", kind: abi.EventRequest, ops: op(abi.OpCarry, "", 1, 2)},
		{name: "two carries", kind: abi.EventRequest, ops: join(op(abi.OpCarry, ""), op(abi.OpCarry, "")), says: "more than one carry"},
		{name: "long carry", kind: abi.EventRequest, ops: op(abi.OpCarry, "", make([]byte, abi.MaxCarry+1)...), says: "longer than"},
		{name: "meter", kind: abi.EventAccount, phase: exchange.AccountPhase, ops: op(abi.OpMeter, "n", 1, 0, 0, 0, 0, 0, 0, 0)},
		{name: "meter below zero", kind: abi.EventRequest, ops: op(abi.OpMeter, "n", 1, 0, 0, 0, 0, 0, 0, 0x80), says: "at least 0"},
		{name: "short meter", kind: abi.EventRequest, ops: op(abi.OpMeter, "n", 1), says: "at least 0"},

		{name: "await", kind: abi.EventRequest, action: abi.ActionAwait, ops: op(abi.OpFetch, "n", object...)},
		{name: "await at authenticate", kind: abi.EventRequest, action: abi.ActionAwait, ops: op(abi.OpFetch, "n", object...)},
		{name: "await at response", kind: abi.EventResponse, phase: exchange.ResponsePhase, action: abi.ActionAwait, ops: op(abi.OpFetch, "n", object...)},
		{name: "await at account", kind: abi.EventAccount, phase: exchange.AccountPhase, action: abi.ActionAwait, ops: op(abi.OpFetch, "n", object...)},
		{name: "await again", kind: abi.EventFetched, action: abi.ActionAwait, body: "answers", awaited: 3, ops: op(abi.OpFetch, "n", object...)},
		{name: "await again at account", kind: abi.EventFetched, phase: exchange.AccountPhase, action: abi.ActionAwait, body: "answers", ops: op(abi.OpFetch, "n", object...)},
		{name: "await with what it may", kind: abi.EventRequest, action: abi.ActionAwait, ops: join(op(abi.OpMeter, "n", make([]byte, 8)...), op(abi.OpFetch, "a", object...), op(abi.OpCarry, "", 1), op(abi.OpFetch, "b", object...))},
		{name: "eight fetches", kind: abi.EventRequest, action: abi.ActionAwait, ops: fetches(8)},
		{name: "nine fetches", kind: abi.EventRequest, action: abi.ActionAwait, ops: fetches(9), says: "more than 8 fetches"},
		{name: "a fifth await", kind: abi.EventFetched, action: abi.ActionAwait, body: "answers", awaited: 4, ops: op(abi.OpFetch, "n", object...), says: "more than 4 awaits"},
		{name: "await in mid body", kind: abi.EventRequestBody, body: "hello", action: abi.ActionAwait, ops: op(abi.OpFetch, "n", object...), says: "not possible at request body"},
		{name: "await at response body", kind: abi.EventResponseBody, phase: exchange.ResponsePhase, body: "hello", action: abi.ActionAwait, ops: op(abi.OpFetch, "n", object...), says: "not possible at response body"},
		{name: "await without a fetch", kind: abi.EventRequest, action: abi.ActionAwait, ops: op(abi.OpCarry, "", 1), says: "without a fetch"},
		{name: "await with a header", kind: abi.EventRequest, action: abi.ActionAwait, ops: join(op(abi.OpFetch, "n", object...), op(abi.OpHeaderSet, "x-a", 'b')), says: "beside an await"},
		{name: "await with an attribute", kind: abi.EventRequest, action: abi.ActionAwait, ops: join(op(abi.OpAttribute, "self.a", str("b")...), op(abi.OpFetch, "n", object...)), says: "beside an await"},
		{name: "await with an answer", kind: abi.EventRequest, action: abi.ActionAwait, ops: join(op(abi.OpFetch, "n", object...), op(abi.OpRespond, "x", answer(403, "")...)), says: "beside an await"},
		{name: "await with a body", kind: abi.EventRequest, body: "hello", action: abi.ActionAwait, ops: join(op(abi.OpFetch, "n", object...), op(abi.OpBodyDrop, "")), says: "beside an await"},
		{name: "fetch and go on", kind: abi.EventRequest, ops: op(abi.OpFetch, "n", object...), says: "does not await"},
		{name: "fetch and fail", kind: abi.EventRequest, action: abi.ActionError, ops: op(abi.OpFetch, "n", object...), says: "does not await"},
		{name: "fetch without a name", kind: abi.EventRequest, action: abi.ActionAwait, ops: op(abi.OpFetch, "", object...), says: "not named by"},
		{name: "fetch with an odd name", kind: abi.EventRequest, action: abi.ActionAwait, ops: op(abi.OpFetch, "A b", object...), says: "not named by"},
		{name: "two fetches of a name", kind: abi.EventRequest, action: abi.ActionAwait, ops: join(op(abi.OpFetch, "n", object...), op(abi.OpFetch, "m", object...), op(abi.OpFetch, "n", object...)), says: "two fetches called n"},
		{name: "fetch of a string", kind: abi.EventRequest, action: abi.ActionAwait, ops: op(abi.OpFetch, "n", str("http://a")...), says: "not one object"},
		{name: "fetch of nothing", kind: abi.EventRequest, action: abi.ActionAwait, ops: op(abi.OpFetch, "n"), says: "not one object"},
		{name: "fetch of two objects", kind: abi.EventRequest, action: abi.ActionAwait, ops: op(abi.OpFetch, "n", append(object, object...)...), says: "not one object"},
		{name: "fetch too long", kind: abi.EventRequest, action: abi.ActionAwait, ops: op(abi.OpFetch, "n", append(abi.AppendKey(abi.AppendObject(nil, 1), "body"), str(strings.Repeat("x", abi.MaxFetch))...)...), says: "longer than 1048576"},
		{name: "header after an await", kind: abi.EventFetched, body: "answers", awaited: 1, ops: op(abi.OpHeaderSet, "x-a", 'b')},
		{name: "header after an await at response", kind: abi.EventFetched, phase: exchange.ResponsePhase, body: "answers", awaited: 1, ops: op(abi.OpHeaderSet, "x-a", 'b')},
		{name: "header after an await at account", kind: abi.EventFetched, phase: exchange.AccountPhase, body: "answers", awaited: 1, ops: op(abi.OpHeaderSet, "x-a", 'b'), says: "at fetched"},
		{name: "identity after an await", kind: abi.EventFetched, phase: exchange.Authenticate, body: "answers", awaited: 1, ops: op(abi.OpAttribute, "identity.account", str("a")...)},
		{name: "answer after an await", kind: abi.EventFetched, body: "answers", awaited: 1, action: abi.ActionRespond, ops: op(abi.OpRespond, "no", answer(403, "")...)},
		{name: "answer after an await at account", kind: abi.EventFetched, phase: exchange.AccountPhase, body: "answers", awaited: 1, action: abi.ActionRespond, ops: op(abi.OpRespond, "no", answer(403, "")...), says: "not possible at fetched"},
		{name: "done after an await", kind: abi.EventFetched, body: "answers", awaited: 1, action: abi.ActionDone},
		{name: "answers replaced", kind: abi.EventFetched, body: "answers", awaited: 1, ops: op(abi.OpBodyReplace, "", 'x'), says: "at fetched"},
		{name: "answers spliced", kind: abi.EventFetched, body: "answers", awaited: 1, ops: op(abi.OpBodySplice, "", make([]byte, 8)...), says: "at fetched"},

		{name: "a failure says why", kind: abi.EventRequest, action: abi.ActionError, ops: op(abi.OpRespond, "plugin_error", answer(0, "a\nb")...)},
		{name: "a failure says nothing", kind: abi.EventRequest, action: abi.ActionError},
	} {
		var res plugin.Result
		if err := abi1.Decode(&res, c.action, c.ops); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		x := request()
		x.Call.Targets = make([]exchange.Target, 2)
		phase := c.phase
		if phase == 0 && !strings.HasPrefix(c.name, "identity") && !strings.HasPrefix(c.name, "scopes") && c.name != "no account" && c.name != "await at authenticate" {
			phase = exchange.RequestPhase
		}
		ev := &plugin.Event{Kind: c.kind, Awaited: c.awaited, Exchange: x, HasBody: c.body != "", Body: []byte(c.body)}
		err := res.Check(ev, phase, "p")
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
		if strings.HasPrefix(c.name, "own") && err == nil && string(res.Ops[0].Key) != "p.seen" {
			t.Errorf("%s: the attribute is called %q", c.name, res.Ops[0].Key)
		}
		if c.body != "" && c.kind != abi.EventFetched {
			ev.Truncated = true
			if res.Check(ev, phase, "p") == nil {
				t.Errorf("%s: a body of which only the beginning was shown was changed", c.name)
			}
		}
	}
}

// Whatever octets a guest gives as operations, they are refused or in order, and what is in order points into the copy.
func FuzzResult(f *testing.F) {
	f.Add(uint8(0), uint8(1), uint8(4), op(abi.OpHeaderSet, "x-a", 'b'))
	f.Add(uint8(1), uint8(1), uint8(0), op(abi.OpRespond, "x", answer(401, "no")...))
	f.Add(uint8(0), uint8(1), uint8(3), op(abi.OpAttribute, "targets", ints(1, 0)...))
	f.Add(uint8(0), uint8(2), uint8(4), op(abi.OpBodySplice, "", 0, 0, 0, 0, 2, 0, 0, 0, 'x'))
	f.Add(uint8(5), uint8(0), uint8(4), op(abi.OpRespond, "x", 0, 0))
	f.Fuzz(func(t *testing.T, action, kind, phase uint8, ops []byte) {
		var res plugin.Result
		if err := abi1.Decode(&res, abi.Action(action), ops); err != nil {
			return
		}
		total := 0
		for _, op := range res.Ops {
			total += abi.OpHeader + len(op.Key) + len(op.Value)
		}
		if total != len(ops) {
			t.Fatalf("operations of %d octets out of %d", total, len(ops))
		}
		x := request()
		x.Call.Targets = make([]exchange.Target, 2)
		ev := &plugin.Event{Kind: abi.Event(kind), Exchange: x, HasBody: true, Body: []byte("hello")}
		if err := res.Check(ev, exchange.Phase(phase), "p"); err == nil {
			res.Respond()
		}
	})
}

// Whatever octets a guest gives to an operation, the host answers within bounds.
func FuzzOp(f *testing.F) {
	h, _ := newHost(f, plugin.Services{Accounts: new(accounts)})
	p := newPlugin("")
	p.Grants = []string{"accounts", "ledger", "state"}
	for code := range abi.CodeRelease + 2 {
		f.Add(uint32(code), bytes.Repeat([]byte{1, 0, 0, 0}, 8), uint16(64))
	}
	f.Fuzz(func(t *testing.T, code uint32, in []byte, room uint16) {
		s := plugin.NewSession(h, p)
		s.Begin(t.Context(), request())
		out := make([]byte, room)
		if n := abi1.Op(s, abi.Code(code), in, out); n > int64(room) || n < -10 {
			t.Fatalf("code %d answered %d for %d octets", code, n, room)
		}
		s.End()
	})
}

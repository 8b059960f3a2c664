package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	gatewayplugin "github.com/postern-gateway/postern/gateway/plugin"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

func header(fields ...string) exchange.Header {
	var h exchange.Header
	for i := 0; i < len(fields); i += 2 {
		h.Add(fields[i], fields[i+1])
	}
	return h
}

// ask is a request of an account's.
func ask(account string, fields ...string) *exchange.Exchange {
	return &exchange.Exchange{
		Identity: exchange.Identity{Account: account}, Request: exchange.Request{Method: "POST", Path: "/v1/chat", Header: header(fields...)},
		Call: exchange.Call{Model: "m"},
	}
}

const body = `{"model":"m","messages":[{"role":"user","content":"hi"}]}`

// miss is a request that is not found, and the reply it gets, in parts.
func miss(x *exchange.Exchange, body string, status int, fields exchange.Header, parts ...string) []plugintest.Event {
	events := []plugintest.Event{
		{Exchange: x, Body: []byte(body), End: true, Want: plugintest.Want{Unchanged: true, Attributes: map[string]string{"cache.status": "miss"}}},
		{Stage: 1, Before: func(x *exchange.Exchange) { x.Response = exchange.Response{Status: status, Header: fields} }, Want: plugintest.Want{Headers: header("x-cache", "miss")}},
	}
	for i, p := range parts {
		events = append(events, plugintest.Event{
			Stage: 1, Kind: 4, Body: []byte(p), End: i == len(parts)-1, Stream: fields.EventStream(), Want: plugintest.Want{Unchanged: true},
		})
	}
	return events
}

// hit is a request that is answered from the cache.
func hit(x *exchange.Exchange, body, age, contentType, reply string) plugintest.Event {
	return plugintest.Event{Exchange: x, Body: []byte(body), End: true, Want: plugintest.Want{
		Respond: 200, Code: "cached", Headers: header("x-cache", "hit", "age", age), Meters: map[string]int64{"hit": 1},
		Check: func(t *testing.T, o *plugintest.Outcome) {
			if o.Answer != nil && string(o.Answer.Body) != reply || o.Answer != nil && o.Answer.ContentType != contentType {
				t.Errorf("%s %q, want %s %q", o.Answer.ContentType, o.Answer.Body, contentType, reply)
			}
		},
	}}
}

func missed(x *exchange.Exchange, body string) plugintest.Event {
	return plugintest.Event{Exchange: x, Body: []byte(body), End: true, Want: plugintest.Want{Meters: map[string]int64{"miss": 1}}}
}

func join(lists ...[]plugintest.Event) (all []plugintest.Event) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

func after(d time.Duration, e plugintest.Event) plugintest.Event {
	e.After = d
	return e
}

func TestPlugin(t *testing.T) {
	stages := func(config string) []plugintest.Stage {
		return []plugintest.Stage{{Phase: exchange.RequestPhase, Config: config}, {Phase: exchange.ResponsePhase}}
	}
	plain := header("content-type", "application/json")
	events := header("content-type", "text/event-stream")
	const reply = `{"id":"1","choices":[]}`
	kept := miss(ask("a"), body, 200, plain, reply)
	list := func(e ...plugintest.Event) []plugintest.Event { return e }
	notKept := func(fields ...string) []plugintest.Event {
		return join(miss(ask("a"), body, 200, append(plain.Clone(), header(fields...)...)), list(missed(ask("a"), body)))
	}
	long := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	inParts := func(s string, n int) (parts []string) {
		for i := 0; i < len(s); i += n {
			parts = append(parts, s[i:min(len(s), i+n)])
		}
		return parts
	}
	const stream = "data: {\"a\":1}\n\ndata: [DONE]\n\n"
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }, Stages: stages("")}, []plugintest.Case{
		{Name: "a hit", Events: join(kept, list(after(7*time.Second, hit(ask("a"), body, "7", "application/json", reply))))},
		{Name: "another account's", Events: join(kept, list(missed(ask("b"), body), hit(ask("a"), body, "0", "application/json", reply)))},
		{Name: "each its own", Events: join(kept, miss(ask("b"), body, 200, plain, "b's"), list(hit(ask("a"), body, "0", "application/json", reply), hit(ask("b"), body, "0", "application/json", "b's")))},
		{Name: "white space does not count", Events: join(kept, list(hit(ask("a"), strings.ReplaceAll(strings.ReplaceAll(body, ":", " : "), ",", ",\n"), "0", "application/json", reply)))},
		{Name: "white space inside a text does", Events: join(kept, list(missed(ask("a"), strings.ReplaceAll(body, "hi", "h i"))))},
		{Name: "another body", Events: join(kept, list(missed(ask("a"), strings.ReplaceAll(body, "hi", "ho")), missed(ask("a"), "")))},
		{Name: "another address", Events: join(kept, list(missed(&exchange.Exchange{Identity: exchange.Identity{Account: "a"}, Call: exchange.Call{Model: "m"}, Request: exchange.Request{Method: "POST", Path: "/v1/chat", Query: "x"}}, body)))},
		{Name: "another model", Events: join(kept, list(missed(&exchange.Exchange{Identity: exchange.Identity{Account: "a"}, Call: exchange.Call{Model: "n"}, Request: exchange.Request{Method: "POST", Path: "/v1/chat"}}, body)))},
		{Name: "another form of reply", Events: join(kept, list(missed(ask("a", "accept", "text/event-stream"), body)))},
		{Name: "another form of reply, in a second field", Events: join(kept, list(missed(ask("a", "accept", "*/*", "accept", "text/event-stream"), body)))},
		{Name: "the same form in other words", Events: join(kept, list(hit(ask("a", "accept", "*/*"), body, "0", "application/json", reply)))},
		{Name: "key", Stages: stages(`key = request.headers["x-tenant"]`), Events: join(miss(ask("a", "x-tenant", "1"), body, 200, plain, reply),
			list(missed(ask("a", "x-tenant", "2"), body), hit(ask("a", "x-tenant", "1"), body, "0", "application/json", reply)))},
		{Name: "its time", Stages: stages(`ttl = "1m"`), Events: join(kept, list(after(59*time.Second, hit(ask("a"), body, "59", "application/json", reply)), after(2*time.Second, missed(ask("a"), body))))},
		{Name: "in parts", Events: join(miss(ask("a"), body, 200, plain, inParts(long[:200_000], 7_001)...), list(hit(ask("a"), body, "0", "application/json", long[:200_000])))},
		{Name: "in one part", Events: join(miss(ask("a"), body, 200, plain, long), list(hit(ask("a"), body, "0", "application/json", long)))},
		{Name: "octet by octet", Events: join(miss(ask("a"), body, 200, plain, inParts(long[:100], 1)...), list(hit(ask("a"), body, "0", "application/json", long[:100])))},
		{Name: "empty", Events: join(miss(ask("a"), body, 200, plain, ""), list(hit(ask("a"), body, "0", "application/json", "")))},
		{Name: "too large", Stages: stages(`max_size = "1KiB"`), Events: join(miss(ask("a"), body, 200, plain, long[:1025]), list(missed(ask("a"), body)))},
		{Name: "a stream", Events: join(miss(ask("a"), body, 200, events, inParts(stream, 5)...), list(hit(ask("a"), body, "0", "text/event-stream", stream)))},
		{Name: "a stream that was cut off", Events: join(miss(ask("a"), body, 200, events, "data: {\"a\":1}\n\n", ""), list(missed(ask("a"), body)))},
		{Name: "a reply that broke", Events: join(miss(ask("a"), body, 200, plain, "begun", "more")[:3], list(missed(ask("a"), body)))},
		{Name: "a refusal", Events: join(miss(ask("a"), body, 429, plain), list(missed(ask("a"), body)))},
		{Name: "no-store", Events: notKept("cache-control", "private, No-Store")},
		{Name: "no-store in a second field", Events: notKept("cache-control", "private", "cache-control", "no-store")},
		{Name: "a content type of 256 octets", Events: join(miss(ask("a"), body, 200, header("content-type", "text/"+long[:251])), list(missed(ask("a"), body)))},
		{Name: "a content type of 255 octets", Events: join(miss(ask("a"), body, 200, header("content-type", "text/"+long[:250]), reply), list(hit(ask("a"), body, "0", "text/"+long[:250], reply)))},
		{Name: "the client wants nothing kept, in a second field", Events: join(kept, list(plugintest.Event{Exchange: ask("a", "cache-control", "max-age=0", "cache-control", "no-store"), Body: []byte(body), End: true, Want: plugintest.Want{Meters: map[string]int64{"passed": 1}}}))},
		{Name: "a cookie", Events: notKept("set-cookie", "a=b")},
		{Name: "compressed", Events: notKept("content-encoding", "gzip")},
		{Name: "it varies", Events: notKept("vary", "origin, x-tenant")},
		{Name: "it varies by what the key has", Events: join(miss(ask("a"), body, 200, append(plain.Clone(), header("vary", "Origin, Accept-Encoding")...), reply), list(hit(ask("a"), body, "0", "application/json", reply)))},
		{Name: "the client wants it anew", Events: join(kept, miss(ask("a", "cache-control", "no-cache"), body, 200, plain, "new"), list(hit(ask("a"), body, "0", "application/json", "new")))},
		{Name: "the client wants nothing kept", Events: join(kept, list(plugintest.Event{Exchange: ask("a", "cache-control", "no-store"), Body: []byte(body), End: true, Want: plugintest.Want{Meters: map[string]int64{"passed": 1}}},
			plugintest.Event{Stage: 1, Want: plugintest.Want{Done: true, Without: []string{"x-cache"}}}))},
		{Name: "a part of it", Events: join(kept, list(plugintest.Event{Exchange: ask("a", "range", "bytes=0-1"), Body: []byte(body), End: true, Want: plugintest.Want{Meters: map[string]int64{"passed": 1}}}))},
		{Name: "a request too long to compare", Events: list(plugintest.Event{Exchange: ask("a"), Body: []byte(body), Truncated: true, Want: plugintest.Want{Meters: map[string]int64{"passed": 1}}})},
		{Name: "nobody", Events: list(plugintest.Event{Exchange: ask(""), Body: []byte(body), End: true, Want: plugintest.Want{Fault: gatewayplugin.Refused, Check: func(t *testing.T, o *plugintest.Outcome) {
			if !strings.Contains(o.Detail, "needs an authenticate stage") {
				t.Error(o.Detail)
			}
		}}})},
		{Name: "for ever", Stages: stages(`ttl = "1000d"`), Refused: "ttl: from 1s to 30 days"},
		{Name: "everything", Stages: stages(`max_size = "1GiB"`), Refused: "max_size: from 1B to 4MiB"},
	})
}

// What is carried comes back as it was, and no carry makes it fail.
func FuzzCarry(f *testing.F) {
	var k keeper
	k.begin(&[32]byte{1}, 3)
	k.begun, k.contentType, k.gathered = true, []byte("text/plain"), []byte("abc")
	f.Add(k.append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var k, again keeper
		if !k.read(b) {
			return
		}
		out := k.append(nil)
		if !again.read(out) || !bytes.Equal(again.append(nil), out) {
			t.Fatalf("%x reads differently", b)
		}
	})
}

package conformance

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/sdk/abi"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

// traffic is an exchange with a little of everything, as the response phase meets it.
func traffic() *exchange.Exchange {
	x := &exchange.Exchange{
		Request: exchange.Request{
			Method: "POST", Query: "q=1", Length: 42,
			Header: exchange.Header{{Name: "x-many", Value: "1"}, {Name: "accept", Value: "*/*"}, {Name: "x-many", Value: ""}, {Name: "x-many", Value: "a b"}},
		},
		Response: exchange.Response{Status: 207, Header: exchange.Header{{Name: "server", Value: "s%"}, {Name: "x-one", Value: "r"}, {Name: "x-empty", Value: ""}}},
		Identity: exchange.Identity{Account: "acme", Key: "k1", Scopes: []string{"read", "write all"}},
		Call: exchange.Call{Model: "fast", Stream: true, Targets: []exchange.Target{
			{Upstream: "near", Model: "n", Weight: 3, Healthy: true}, {Upstream: "far", Model: "f"},
		}},
	}
	x.Call.Max.Units[exchange.Input], x.Call.Max.Units[exchange.Output] = 7, 5
	x.Usage.Units[exchange.Input], x.Usage.Units[exchange.Output] = 7, 2
	x.Usage.Estimated = true
	return x
}

// upload is traffic before there is a response.
func upload() *exchange.Exchange {
	x := traffic()
	x.Response = exchange.Response{}
	return x
}

// events are the events and what their frames hold.
func events() []play {
	digits := func(pattern string) plugintest.Want {
		whole := regexp.MustCompile("^" + pattern + "$")
		return plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
			t.Helper()
			if saw, _ := o.Exchange.Attribute("conformance.saw"); !whole.MatchString(saw) {
				t.Errorf("told %s, want %s", saw, whole)
			}
		}}
	}
	var number string // of the exchange, as the first event tells it
	same := plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
		t.Helper()
		saw, _ := o.Exchange.Attribute("conformance.saw")
		if number == "" {
			number = saw
		}
		if saw != number {
			t.Errorf("one exchange has the numbers %s and %s", number, saw)
		}
	}}
	flags := func(end, stream, truncated, gone bool) func(*plugintest.Event) {
		return func(e *plugintest.Event) { e.End, e.Stream, e.Truncated, e.Gone = end, stream, truncated, gone }
	}
	const unheard = "attribute self.heard yes; log 3 heard; trap heard"
	silent := plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
		t.Helper()
		if o.Log != "" || o.Done || o.Answer != nil || o.Carry != nil {
			t.Errorf("an unknown event was answered with %+v", o)
		}
	}}
	return []play{
		{name: "every event", steps: []step{
			at(exchange.Authenticate, "event", "event=1,0,0,"),
			at(exchange.Authorize, "event", "event=1,1,1,"),
			at(exchange.Admit, "event", "event=1,2,2,"),
			at(exchange.Route, "event", "event=1,3,3,"),
			at(exchange.RequestPhase, "event", "event=1,4,4,"),
			at(exchange.RequestPhase, "event", "event=2,4,4,").kind(abi.EventRequestBody).body("x", false),
			at(exchange.Admit, "event", "event=2,2,2,E").kind(abi.EventRequestBody).body("", true),
			at(exchange.ResponsePhase, "event", "event=3,5,5,"),
			at(exchange.ResponsePhase, "event", "event=4,5,5,").kind(abi.EventResponseBody).body("x", false),
			at(exchange.ResponsePhase, "event", "event=4,5,5,ES").kind(abi.EventResponseBody).body("data: 1\n\n", true).with(flags(true, true, false, false)),
			at(exchange.AccountPhase, "event", "event=6,6,6,"),
			at(exchange.AccountPhase, "event", "event=6,6,6,G").with(flags(false, false, false, true)),
			asked("event", "event=1,4,4,T").body("x", false).with(flags(false, false, true, false)),
			asked("event", "event=1,4,4,ESTG").body("x", false).with(flags(true, true, true, true)),
		}},
		{name: "unknown events", steps: []step{
			asked(unheard, "").kind(abi.EventTick).want(silent),
			asked(unheard, "").kind(99).want(silent),
			asked(unheard, "").kind(65535).want(silent),
			asked("calls", "*").want(digits(`calls=[1-4]`)),
		}},
		{name: "no script", steps: []step{
			asked("", "").want(silent),
			at(exchange.ResponsePhase, "", "").want(silent),
			at(exchange.AccountPhase, "", "").want(silent),
		}},
		{name: "time and exchange", steps: []step{
			asked("time", "time=1767323045000000000"),
			asked("time", "time=1767323046500000000").with(func(e *plugintest.Event) { e.After = 1500 * time.Millisecond }),
			asked("exchange", "*").want(digits(`exchange=[0-9]{1,20}`)),
			asked("exchange", "*").want(same),
			at(exchange.AccountPhase, "exchange", "*").want(same),
		}},
		{name: "headers", base: plugintest.Case{Exchange: upload()}, steps: []step{
			asked("has 0; has 1; header 0; header 1; headers 0; headers 1; see body; see carry; has body; has carry",
				`has.0=0 has.1=1 header.0=- header.1="1" headers.0=- headers.1=["1","","a%20b"] see.body=- see.carry=- has.body=0 has.carry=0`),
			asked("has 0; header 0; headers 0", `has.0=1 header.0="" headers.0=[""]`).
				with(func(e *plugintest.Event) { e.Before = func(x *exchange.Exchange) { x.Request.Header.Set("x-one", "") } }),
			asked("header 0; fields 99; header 99; headers 99; has 99", `header.0="%C3%A4%22%25%7F" fields.99=- header.99=- headers.99=- has.99=0`).
				with(func(e *plugintest.Event) {
					e.Before = func(x *exchange.Exchange) { x.Request.Header.Set("x-one", "ä\"%\x7f") }
				}),
			at(exchange.Admit, "fields 0", `fields.0={"x-many":"1","accept":"*/*","x-many":"","x-many":"a%20b"}`).
				with(func(e *plugintest.Event) { e.Before = func(x *exchange.Exchange) { x.Request.Header.Del("x-one") } }),
			at(exchange.Admit, "has 0; fields 0", `has.0=0 fields.0=-`).with(func(e *plugintest.Event) { e.Exchange = new(exchange.Exchange) }),
		}},
		{name: "the response's headers", base: plugintest.Case{Exchange: traffic()}, steps: []step{
			at(exchange.ResponsePhase, "fields 0; value 5", `fields.0={"server":"s%25","x-one":"r","x-empty":""} value.5="r"`),
			at(exchange.AccountPhase, "fields 0", `fields.0={"server":"s%25","x-one":"r","x-empty":""}`),
		}},
		{name: "bodies", steps: []step{
			asked("see body; has body", `see.body="" has.body=1`).body("", true),
			asked("see body; has body", `see.body="a%00%0A%FF%20b" has.body=1`).body("a\x00\n\xff b", false),
			asked("see body", "see.body="+octets(strings.Repeat("b", 256))).body(strings.Repeat("b", 256), true),
			asked("see body", "see.body="+octets(strings.Repeat("b", 257))).body(strings.Repeat("b", 257), true),
			at(exchange.ResponsePhase, "see body", `see.body="data:%20{}%0A%0A"`).kind(abi.EventResponseBody).body("data: {}\n\n", false),
			at(exchange.ResponsePhase, "see body", `see.body=-`),
			at(exchange.AccountPhase, "see body", `see.body=-`),
		}},
		{name: "carry", steps: []step{
			asked("see carry; carry first%00", "see.carry=-"),
			asked("see carry", `see.carry="first%00"`),
			asked("see carry", `see.carry="first%00"`).kind(abi.EventRequestBody).body("x", false),
			at(exchange.ResponsePhase, "see carry; carry $carry", `see.carry="first%00"`),
			at(exchange.ResponsePhase, "see carry; carry @0", `see.carry="first%00"`).kind(abi.EventResponseBody).body("x", true),
			at(exchange.AccountPhase, "see carry; has carry; carry @65536", `see.carry="" has.carry=1`),
			at(exchange.AccountPhase, "see carry", "see.carry="+octets(strings.Repeat("a", 65536))),
			asked("see carry; has carry", `see.carry=- has.carry=0`).with(func(e *plugintest.Event) { e.Exchange = new(exchange.Exchange) }),
		}},
		{name: "long frames", steps: []step{
			asked("header 0", "header.0="+octets(strings.Repeat("h", 60_000))).with(func(e *plugintest.Event) {
				e.Before = func(x *exchange.Exchange) { x.Request.Header.Set("x-one", strings.Repeat("h", 60_000)) }
			}),
			asked("header 0", "header.0="+octets(strings.Repeat("h", 70_000))).with(func(e *plugintest.Event) {
				e.Before = func(x *exchange.Exchange) { x.Request.Header.Set("x-one", strings.Repeat("h", 70_000)) }
			}),
			asked("see body; header 0", `see.body=- header.0=-`).with(func(e *plugintest.Event) { e.Exchange = new(exchange.Exchange) }),
		}},
	}
}

// values are attributes and arguments of every kind.
func values() []play {
	deep := strings.Repeat("[", 32) + `"bottom"` + strings.Repeat("]", 32)
	object := `{ name = "n", on = true, shares = [1, 2.5], tags = { b = "2", a = "1" } }`
	usage := "[7,0,0,0,0,0,5,0,0,0,0,0,0]"
	used := "[7,0,0,0,0,0,2,0,0,0,0,0,0]"
	return []play{
		{name: "absent", steps: []step{
			asked("value 7; value 8; value 9; value 10; value 11; value 12; value 13; value 99; has 7; has 6",
				"value.7=null value.8=null value.9=null value.10=null value.11=null value.12=null value.13=null value.99=null has.7=0 has.6=1"),
			asked("encode 7; member 7 a; at 7 0; at 99 0", "encode.7=00 member.7=null at.7=null at.99=null"),
		}},
		{name: "empty", config: "text = \"\"\nlist = []\nmap = {}\nnumber = 0\nflag = false", steps: []step{
			asked("value 7; value 8; value 9; value 10; value 11; has 7; has 10", `value.7="" value.8=false value.9=0 value.10=[] value.11={} has.7=1 has.10=1`),
			asked("encode 7; encode 8; encode 9; encode 10; encode 11",
				"encode.7=0400000000 encode.8=0100 encode.9=020000000000000000 encode.10=0500000000 encode.11=0600000000"),
			asked("at 10 0; member 11 a", "at.10=null member.11=null"),
		}},
		{name: "present", config: "text = \"ä b\"\nflag = true\nnumber = -12\nlist = [\"x\", \"\", \"z\"]\nmap = { two = 2, half = 0.5 }\nobject = " + object, steps: []step{
			asked("value 7; value 8; value 9; value 10; value 11; value 12",
				`value.7="%C3%A4%20b" value.8=true value.9=-12 value.10=["x","","z"] value.11={"half":f3fe0000000000000,"two":2} `+
					`value.12={"name":"n","on":true,"shares":[1,f4004000000000000],"tags":{"a":"1","b":"2"}}`),
			asked("member 12 on; member 12 tags; member 12 name; member 12 nobody; member 11 two; member 10 x",
				`member.12=true member.12={"a":"1","b":"2"} member.12="n" member.12=null member.11=2 member.10=null`),
			asked("at 10 0; at 10 2; at 10 3; at 10 -1; at 12 0", `at.10="x" at.10="z" at.10=null at.10=null at.12=null`),
			asked("encode 7; encode 8; encode 9; encode 10", "encode.7=0404000000c3a42062 encode.8=0101 encode.9=02f4ffffffffffffff "+
				"encode.10=0503000000040100000078040000000004010000007a"),
			asked("encode 11", "encode.11=06020000000400000068616c6603000000000000e03f0300000074776f020200000000000000"),
			asked("encode 12", "encode.12=060400000004000000"+"6e616d65"+"04010000006e"+"02000000"+"6f6e"+"0101"+"06000000"+"736861726573"+
				"0502000000"+"020100000000000000"+"030000000000000440"+"04000000"+"74616773"+"0602000000"+"0100000061"+"040100000031"+"0100000062"+"040100000032"),
		}},
		{name: "largest", config: "number = 9223372036854775807", steps: []step{asked("value 9; encode 9", "value.9=9223372036854775807 encode.9=02ffffffffffffff7f")}},
		{name: "least", config: "number = -9223372036854775808", steps: []step{asked("value 9; encode 9", "value.9=-9223372036854775808 encode.9=020000000000000080")}},
		{name: "beyond", config: "number = 9223372036854775808", steps: []step{asked("value 9", "value.9=f43e0000000000000")}},
		{name: "a tenth", config: "number = 0.1", steps: []step{asked("value 9; encode 9", "value.9=f3fb999999999999a encode.9=039a9999999999b93f")}},
		{name: "deep", config: "deep = " + strings.Repeat("[", 32) + `"bottom"` + strings.Repeat("]", 32), steps: []step{
			asked("value 13; at 13 0", "value.13="+deep+" at.13="+deep[1:len(deep)-1]),
			asked("encode 13", "encode.13="+strings.Repeat("0501000000", 32)+"0406000000626f74746f6d"),
		}},
		{name: "long", config: `text = request.headers["x-long"]`, steps: []step{
			asked("value 7", "value.7="+octets(strings.Repeat("é", 100_000))).with(func(e *plugintest.Event) {
				e.Before = func(x *exchange.Exchange) { x.Request.Header.Set("x-long", strings.Repeat("é", 100_000)) }
			}),
			asked("value 7", `value.7=""`).with(func(e *plugintest.Event) { e.Exchange = new(exchange.Exchange) }),
		}},
		{name: "attributes", base: plugintest.Case{Exchange: traffic()}, steps: []step{
			at(exchange.Authenticate, "value 2; value 3; value 4; value 5", `value.2="POST" value.3=42 value.4="q=1" value.5=""`),
			at(exchange.Authorize, "value 2; value 3; value 4; at 4 1; value 5", `value.2="POST" value.3="acme" value.4=["read","write%20all"] at.4="write%20all" value.5=""`),
			at(exchange.Admit, "value 1; value 2; value 3; value 4; value 5", `value.1="POST" value.2="acme" value.3="fast" value.4=`+usage+` value.5=""`),
			at(exchange.Route, "value 3; value 4; value 5", `value.3=[{"healthy":true,"model":"n","upstream":"near","weight":3},`+
				`{"healthy":false,"model":"f","upstream":"far","weight":0}] value.4=true value.5="fast"`),
			asked("value 3; member 3 upstream; value 4", `value.3={"healthy":true,"model":"n","upstream":"near","weight":3} member.3="near" value.4=`+usage),
			at(exchange.ResponsePhase, "value 2; value 3; value 4; value 5", `value.2=207 value.3=`+used+` value.4=true value.5="r"`),
			at(exchange.AccountPhase, "value 2; value 3; value 4; value 5", `value.2=207 value.3=`+used+` value.4="" value.5=""`),
		}},
		{name: "bodies as values", steps: []step{
			asked("value body; at body 1", `value.body=[null,true] at.body=true`).body("\x05\x02\x00\x00\x00\x00\x01\x01", true),
			asked("value body", `value.body=null`).body("", true),
			asked("value body", `value.body=null`).body("\x07", true),
			asked("value body", `value.body=null`).body("\x04\xff\xff\xff\xffa", true),
			asked("value body", `value.body=null`).body("\x05\xff\xff\xff\xff", true),
			asked("value body", `value.body=null`).body("\x06\x01\x00\x00\x00\xff\xff\xff\xffk\x00", true),
			asked("value body", `value.body=null`).body("\x02\x01\x02\x03", true),
			asked("value body", `value.body=null`).body(strings.Repeat("\x05\x01\x00\x00\x00", 33)+"\x00", true),
			asked("value body", `value.body=null`).body(strings.Repeat("\x05\x01\x00\x00\x00", 5000), true),
			asked("value body; member body k", `value.body={"k":1,"k":2} member.body=1`).
				body("\x06\x02\x00\x00\x00\x01\x00\x00\x00k\x02\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00k\x02\x02\x00\x00\x00\x00\x00\x00\x00", true),
		}},
	}
}

// results are what a guest decides.
func results() []play {
	header := func(x *exchange.Exchange) *exchange.Exchange {
		x.Request.Header = exchange.Header{{Name: "x-a", Value: "1"}, {Name: "x-a", Value: "2"}, {Name: "x-b", Value: "3"}}
		x.Response.Header = exchange.Header{{Name: "server", Value: "s"}}
		return x
	}
	exactly := func(want string) plugintest.Want {
		return plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
			t.Helper()
			var got []string
			for _, f := range o.Exchange.Request.Header {
				got = append(got, f.Name+"="+f.Value)
			}
			if s := strings.Join(got, " "); s != want {
				t.Errorf("the request's fields are %s, want %s", s, want)
			}
		}}
	}
	text := "0123456789"
	carried := func(want string) plugintest.Want {
		return plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
			t.Helper()
			if string(o.Carry) != want {
				t.Errorf("carried %q, want %q", o.Carry, want)
			}
		}}
	}
	return []play{
		{name: "headers", base: plugintest.Case{Exchange: header(new(exchange.Exchange))}, steps: []step{
			asked("set x-a new", "").want(exactly("x-a=new x-b=3")),
			asked("add x-a more%20of%20it", "").want(exactly("x-a=new x-b=3 x-a=more of it")),
			asked("remove x-a; remove x-none", "").want(exactly("x-b=3")),
			asked("set x-b @0; set x-c %C3%A4", "").want(exactly("x-b= x-c=ä")),
			asked("set x-long @16384", "").want(plugintest.Want{Headers: exchange.Header{{Name: "x-long", Value: strings.Repeat("a", 16384)}}}),
			fails(plugin.Protocol, "set x-c lost; set x-long @16385", "x-long").want(exactly("x-b= x-c=ä x-long=" + strings.Repeat("a", 16384))),
			fails(plugin.Protocol, "set X-Upper 1", "X-Upper"),
			fails(plugin.Protocol, "set host evil", "gateway's own"),
			fails(plugin.Protocol, "set x-a a%0Ab", "field value"),
			asked("calls", "*"),
			at(exchange.ResponsePhase, "set x-new r; remove server", "").want(plugintest.Want{Headers: exchange.Header{{Name: "x-new", Value: "r"}}, Without: []string{"server"}}),
			{phase: exchange.AccountPhase, do: "set x-late 1", fault: plugin.Protocol, says: "account"},
		}},
		{name: "attributes", base: plugintest.Case{Exchange: upload()}, steps: []step{
			at(exchange.Authenticate, "attribute identity.account a1; attribute identity.key k%201; attribute identity.name n; strings identity.scopes x y%20z", "").
				want(plugintest.Want{Identity: &exchange.Identity{Account: "a1", Key: "k 1", Name: "n", Scopes: []string{"x", "y z"}}}),
			at(exchange.Authenticate, "strings identity.scopes", "").want(plugintest.Want{Identity: &exchange.Identity{Account: "a1", Key: "k 1", Name: "n"}}),
			at(exchange.Authenticate, "attribute identity.account a2; strings identity.scopes one", "").
				want(plugintest.Want{Identity: &exchange.Identity{Account: "a2", Key: "k 1", Name: "n", Scopes: []string{"one"}}}),
			at(exchange.Route, "ints targets 1 0", "").want(plugintest.Want{Targets: []string{"far", "near"}}),
			at(exchange.Route, "ints targets 1", "").want(plugintest.Want{Targets: []string{"near"}}),
			{phase: exchange.Route, do: "ints targets 7", fault: plugin.Protocol, says: "targets"},
			{phase: exchange.Route, do: "ints targets", fault: plugin.Protocol, says: "targets"},
			asked("attribute self.a.b %C3%A4; attribute conformance.c @0", "").
				want(plugintest.Want{Attributes: map[string]string{"conformance.a.b": "ä", "conformance.c": ""}}),
			asked("copy self.text 2", "").want(plugintest.Want{Attributes: map[string]string{"conformance.text": "POST"}}),
			asked("attribute self.long @16379", "").want(plugintest.Want{Attributes: map[string]string{"conformance.long": strings.Repeat("a", 16379)}}),
			fails(plugin.Protocol, "attribute self.long @16380", "long"),
			fails(plugin.Protocol, "attribute identity.account thief", "authenticate"),
			fails(plugin.Protocol, "attribute other.x 1", "not the plugin's"),
		}},
		{name: "attributes at every event", steps: []step{
			asked("attribute self.x 1", "").kind(abi.EventRequestBody).body("b", true).want(plugintest.Want{Attributes: map[string]string{"conformance.x": "1"}, Unchanged: true}),
			at(exchange.ResponsePhase, "attribute self.x 2", "").want(plugintest.Want{Attributes: map[string]string{"conformance.x": "2"}}),
			at(exchange.ResponsePhase, "attribute self.x 3", "").kind(abi.EventResponseBody).body("b", true).want(plugintest.Want{Attributes: map[string]string{"conformance.x": "3"}}),
			at(exchange.AccountPhase, "attribute self.x 4", "").want(plugintest.Want{Attributes: map[string]string{"conformance.x": "4"}}),
		}},
		{name: "bodies", steps: []step{
			asked("event", "*").body(text, true).want(plugintest.Want{Unchanged: true, Body: text}),
			asked("replace new%00", "").body(text, true).want(plugintest.Want{Body: "new\x00"}),
			asked("replace @0", "").body(text, true).want(plugintest.Want{Dropped: true}),
			asked("replace $body", "").body(text, true).want(plugintest.Want{Body: text}),
			asked("drop", "").body(text, true).want(plugintest.Want{Dropped: true}),
			asked("splice 0 1 A; splice 5 0 -; splice 9 1 @3", "").body(text, true).want(plugintest.Want{Body: "A1234-5678aaa"}),
			asked("splice 10 0 end", "").kind(abi.EventRequestBody).body(text, false).want(plugintest.Want{Body: text + "end"}),
			at(exchange.ResponsePhase, "splice 0 10 @0", "").kind(abi.EventResponseBody).body(text, false).want(plugintest.Want{Dropped: true}),
			at(exchange.ResponsePhase, "replace data:%20x%0A%0A", "").kind(abi.EventResponseBody).body(text, false).want(plugintest.Want{Body: "data: x\n\n"}),
			fails(plugin.Protocol, "splice 5 1 x; splice 4 1 x", "splice").body(text, true),
			fails(plugin.Protocol, "splice 10 1 x", "splice").body(text, true),
			fails(plugin.Protocol, "replace x; drop", "same body").body(text, true),
			fails(plugin.Protocol, "replace x", "does not have"),
			fails(plugin.Protocol, "replace x", "beginning").body(text, true).with(func(e *plugintest.Event) { e.Truncated = true }),
		}},
		{name: "answers", steps: []step{
			asked("respond 403 not_you Not%20you.; set www-authenticate Bearer", "").
				want(plugintest.Want{Respond: 403, Code: "not_you", Detail: "Not you.", Headers: exchange.Header{{Name: "www-authenticate", Value: "Bearer"}}}),
			asked("event; respond 400 no @0", "event=1,4,4,").want(plugintest.Want{Respond: 400, Code: "no"}),
			asked("respond 200 ok @0; content text/plain;charset hello", "*").want(plugintest.Want{Respond: 200, Code: "ok"}).fault200(),
			asked("respond 503 @64 @1024; content application/json {}", "").want(plugintest.Want{Respond: 503, Code: strings.Repeat("a", 64), Detail: strings.Repeat("a", 1024)}),
			asked("respond 200 ok @0; content text/plain%3Bcharset=utf-8 hello%0A", "").want(plugintest.Want{Respond: 200, Code: "ok", Check: func(t *testing.T, o *plugintest.Outcome) {
				t.Helper()
				if o.Answer.ContentType != "text/plain;charset=utf-8" || string(o.Answer.Body) != "hello\n" {
					t.Errorf("answered %q %q", o.Answer.ContentType, o.Answer.Body)
				}
			}}),
			at(exchange.Authenticate, "respond 401 no_key @0", "").want(plugintest.Want{Respond: 401, Code: "no_key"}),
			at(exchange.ResponsePhase, "respond 502 bad_upstream %C3%A4", "").want(plugintest.Want{Respond: 502, Code: "bad_upstream", Detail: "ä"}),
			fails(plugin.Protocol, "respond 200 ok @0", "body of its own"),
			fails(plugin.Protocol, "respond 600 x @0", "600"),
			fails(plugin.Protocol, "respond 400 @65 @0", "code"),
			fails(plugin.Protocol, "respond 400 no @1025", "1024"),
			{phase: exchange.AccountPhase, do: "respond 400 late @0", fault: plugin.Protocol, says: "account"},
		}},
		{name: "carry", steps: []step{
			asked("carry %00%01; meter n 1", "").want(carried("\x00\x01")),
			asked("meter n 1", "").want(plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
				t.Helper()
				if o.Carry != nil {
					t.Errorf("carried %q", o.Carry)
				}
			}}),
			fails(plugin.Protocol, "carry @65537", "carry"),
			fails(plugin.Protocol, "carry x; carry y", "carry"),
		}},
		{name: "meters and done", steps: []step{
			asked("meter a 1; meter b_2 9223372036854775807; meter a 2", "").want(plugintest.Want{Meters: map[string]int64{"a": 3, "b_2": 9223372036854775807}}),
			asked("meter zero 0; done", "").want(plugintest.Want{Meters: map[string]int64{"zero": 0}, Done: true}),
			at(exchange.AccountPhase, "meter a 1", "").want(plugintest.Want{Meters: map[string]int64{"a": 1}}),
			fails(plugin.Protocol, "meter a -1", "meter"),
			fails(plugin.Protocol, "meter Upper 1", "meter"),
		}},
		{name: "many operations", steps: []step{
			asked("repeat 4096 meter n 1", "").want(plugintest.Want{Meters: map[string]int64{"n": 4096}}),
			fails(plugin.Protocol, "repeat 4097 meter n 1", "4096"),
			asked("repeat 100 attribute self.long @16000", "").want(plugintest.Want{Attributes: map[string]string{"conformance.long": strings.Repeat("a", 16000)}}),
		}},
	}
}

// fault200 turns a step into one whose script is cut at a semicolon that was not escaped.
func (s step) fault200() step {
	s.fault, s.says, s.saw = plugin.Refused, "unknown command content", ""
	s.Want = plugintest.Want{}
	return s
}

// accounts are what the world knows.
func accounts() plugintest.Case {
	return plugintest.Case{
		Exchange: traffic(),
		Accounts: map[string]exchange.Identity{"secret": {Account: "acme", Key: "k1", Name: "a name", Scopes: []string{"x", "y"}}, "bare": {Account: "b"}},
		Balances: map[string]int64{"acme": 20},
	}
}

// operations are what a guest asks of its host.
func operations() []play {
	second := func(e *plugintest.Event) { e.After = time.Second }
	hex := func(pattern string) plugintest.Want {
		whole := regexp.MustCompile("^" + pattern + "$")
		return plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
			t.Helper()
			saw, _ := o.Exchange.Attribute("conformance.saw")
			if !whole.MatchString(saw) {
				t.Errorf("told %s, want %s", saw, whole)
			}
			if draws := strings.Fields(saw); len(draws) > 1 && draws[0] == draws[1] {
				t.Errorf("two draws of random octets are the same: %s", saw)
			}
		}}
	}
	logged := func(texts ...string) plugintest.Want {
		return plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
			t.Helper()
			for _, text := range texts {
				if !strings.Contains(o.Log, text) {
					t.Errorf("the log lacks %s:\n%s", text, o.Log)
				}
			}
		}}
	}
	a := func(n int) string { return strings.Repeat("a", n) }
	return []play{
		{name: "time and random", steps: []step{
			asked("now; time", "now=1767323045000000000 time=1767323045000000000"),
			asked("random 8; random 8", "*").want(hex("random=[0-9a-f]{16} random=[0-9a-f]{16}")),
			asked("random 64", "*").want(hex("random=[0-9a-f]{128}")),
			asked("random 0; random 4096; random 4097", "random= random=4096 random=INVALID"),
		}},
		{name: "state", steps: []step{
			asked("get k; put k v%00 0; get k; delete k; get k; delete k", `get=NOT_FOUND put=ok get="v%00" delete=ok get=NOT_FOUND delete=ok`),
			asked("put k @0 0; get k; put k w 0", `put=ok get="" put=ok`),
			at(exchange.AccountPhase, "get k", `get="w"`),
			asked("get k", `get="w"`).with(func(e *plugintest.Event) { e.Exchange = new(exchange.Exchange) }),
			asked("put t v 2000000000; get t", `put=ok get="v"`),
			asked("get t", `get="v"`).with(second),
			asked("get t", "get=NOT_FOUND").with(second),
			asked("cas c - first 0; cas c - second 0; cas c other second 0; cas c first second 0; get c", `cas=ok cas=CONFLICT cas=CONFLICT cas=ok get="second"`),
			asked("cas c second @0 0; cas c - x 0; cas c @0 y 0; get c; cas nothing old new 0", `cas=ok cas=CONFLICT cas=ok get="y" cas=CONFLICT`),
			asked("count n 5 0; count n -7 0; count n 0 0; count m 9223372036854775807 0", "count=5 count=-2 count=-2 count=9223372036854775807"),
			asked("count w 1 2000000000; count w 1 2000000000", "count=1 count=2"),
			asked("count w 1 2000000000", "count=3").with(second),
			asked("count w 1 2000000000", "count=1").with(second),
		}},
		{name: "bounds of the state", steps: []step{
			asked("put k @65536 0; get k", "put=ok get="+octets(a(65536))),
			asked("get k; put k @65537 0; get k", "get="+octets(a(65536))+" put=INVALID get="+octets(a(65536))),
			asked("cas k @65536 short 0; get k", `cas=ok get="short"`),
			asked("put @1024 v 0; get @1024; put @1025 v 0; get @1025; put @0 v 0", `put=ok get="v" put=INVALID get=INVALID put=INVALID`),
			asked("count k 1 0; delete @1025", "count=INVALID delete=INVALID"),
		}},
		{name: "raw operations", steps: []step{
			asked("op 1 8 @0; op 1 7 @0; op 2 16 @0; op 99 100 @0; op 0 100 @0", "op=8 op=-5 op=16 op=-10 op=-10"),
			asked("put k 0123456789 0; op 3 10 k; op 3 9 k; op 3 0 k; op 4 0 short", "put=ok op=10 op=-5 op=-5 op=-4"),
			asked("op 7 4 0123456789abcdefk; get 0123456789abcdefk", "op=-5 get=NOT_FOUND"),
		}},
		{name: "accounts", base: accounts(), steps: []step{
			at(exchange.Authenticate, "key secret", `key="acme","k1","a%20name",["x","y"]`),
			at(exchange.Authenticate, "key bare; key nobody; key expired; key unavailable; key @0", `key="b","","",[] key=NOT_FOUND key=EXPIRED key=UNAVAILABLE key=NOT_FOUND`),
		}},
		{name: "ledger", base: accounts(), config: `tags = { team = "a b" }`, steps: []step{
			at(exchange.Admit, "hold other fast 4; hold acme fast 1", "hold=INVALID hold=INVALID"),
			at(exchange.Admit, "hold acme fast 4", `hold="hold-1","12.00"`),
			at(exchange.Admit, "value 5; hold acme fast 4", `value.5="hold-1" hold=INSUFFICIENT`),
			at(exchange.AccountPhase, "settle hold-9 3 1 -; settle hold-1 3 1 14; settle hold-1 3 0 -", `settle=NOT_FOUND settle="9.00","11.00" settle=NOT_FOUND`).
				want(plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
					t.Helper()
					h := o.World.Holds()["hold-1"]
					if !h.Settled || h.Charged != 9 || h.Tags["team"] != "a b" || h.Model != "fast" || !h.Used.Estimated || h.Max.Units[exchange.Output] != 5 {
						t.Errorf("the hold is %+v", h)
					}
				}}),
			at(exchange.AccountPhase, "release hold-1", "release=NOT_FOUND"),
		}},
		{name: "releases", base: accounts(), steps: []step{
			at(exchange.Admit, "hold acme fast 4; release hold-1; release hold-1", `hold="hold-1","12.00" release=ok release=NOT_FOUND`).
				want(plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
					t.Helper()
					if n := o.World.Balance("acme"); n != 20 || !o.World.Holds()["hold-1"].Released {
						t.Errorf("the balance is %d", n)
					}
				}}),
			at(exchange.Admit, "release hold-2", "release=NOT_FOUND"),
		}},
		{name: "cache", base: accounts(), steps: []step{
			asked("cacheget k; cacheput k v%00 2000000000; cacheget k; cacheput k w 2000000000; cacheget k", `cacheget=NOT_FOUND cacheput=ok cacheget="v%00" cacheput=ok cacheget="w"`),
			asked("cacheget k", `cacheget="w"`).with(second),
			asked("cacheget k; cacheput k v 1000000000", "cacheget=NOT_FOUND cacheput=ok").with(second),
			asked("cacheget k", "cacheget=NOT_FOUND").with(func(e *plugintest.Event) {
				e.Exchange = &exchange.Exchange{Identity: exchange.Identity{Account: "other"}}
			}),
			asked("cacheget k; cacheput k v 1000000000", "cacheget=UNAVAILABLE cacheput=UNAVAILABLE").with(func(e *plugintest.Event) { e.Exchange = new(exchange.Exchange) }),
			asked("cacheget k; cacheput big @65536 1000000000; cacheget big", `cacheget="v" cacheput=ok cacheget=`+octets(a(65536))).with(func(e *plugintest.Event) { e.Exchange = traffic() }),
			asked("cacheput big @65537 1000000000; cacheput k v 0; cacheput @1025 v 1000000000", "cacheput=INVALID cacheput=INVALID cacheput=INVALID"),
		}},
		{name: "too many", steps: []step{
			asked("repeat 1022 random 1; put k v 0; get k; now; get k; put k w 0; count k 1 0; delete k", "*").want(plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
				t.Helper()
				saw, _ := o.Exchange.Attribute("conformance.saw")
				if want := ` put=ok get="v" now=LIMIT get=LIMIT put=LIMIT count=LIMIT delete=LIMIT`; strings.Count(saw, "random=") != 1022 || !strings.HasSuffix(saw, want) {
					t.Errorf("told %s, want it to end with %s", saw, want)
				}
			}}),
			asked("get k", `get="v"`),
		}},
		{name: "log", steps: []step{
			asked("log 0 quiet%20words; log 1 plain; log 2 careful; log 3 bad", "").want(logged(
				`level=DEBUG msg="plugin says" plugin=conformance message="quiet words"`, "level=INFO msg=\"plugin says\" plugin=conformance message=plain",
				"level=WARN msg=\"plugin says\" plugin=conformance message=careful", "level=ERROR msg=\"plugin says\" plugin=conformance message=bad", "exchange=test-1-1")),
			asked("log 1 @2000", "").want(plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
				t.Helper()
				if n := strings.Count(o.Log, "a"); !strings.Contains(o.Log, "="+a(1024)+" ") || n > 1100 {
					t.Errorf("a line was not cut at 1024 octets:\n%s", o.Log)
				}
			}}),
			asked("repeat 20 log 1 @1024", "").want(plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
				t.Helper()
				if n := strings.Count(o.Log, a(1024)); n != 8 || !strings.Contains(o.Log, "plugin logs too much") {
					t.Errorf("%d lines of 20 were logged", n)
				}
			}}),
			asked("log 1 again", "").want(logged("message=again")),
		}},
	}
}

// faults are a guest's failures, and what comes after them.
func faults() []play {
	heard := func(text string) plugintest.Want {
		return plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
			t.Helper()
			if !strings.Contains(o.Log, text) {
				t.Errorf("the log lacks %q:\n%s", text, o.Log)
			}
		}}
	}
	untouched := plugintest.Want{Without: []string{"x-lost"}}
	var plays []play
	for _, p := range []exchange.Phase{exchange.Authenticate, exchange.RequestPhase, exchange.ResponsePhase, exchange.AccountPhase} {
		plays = append(plays, play{name: "trap at " + p.String(), steps: []step{
			at(p, "calls", "calls=1"),
			step{phase: p, do: "attribute self.lost 1; trap the%20very%20end", fault: plugin.Trap}.want(heard("the very end")),
			at(p, "calls", "calls=1"),
			at(p, "calls", "calls=2"),
		}})
	}
	return append(plays, []play{
		{name: "error", steps: []step{
			asked("calls", "calls=1"),
			fails(plugin.Refused, "set x-lost 1; carry lost; meter lost 1; error no%20%C3%A4%20more; trap never", "no ä more").want(untouched),
			asked("calls; see carry", "calls=3 see.carry=-"), // the same instance goes on
			fails(plugin.Refused, "respond 400 no @0; error after", "after"),
			{phase: exchange.AccountPhase, do: "error late", fault: plugin.Refused, says: "late"},
			{phase: exchange.ResponsePhase, do: "error mid", fault: plugin.Refused, says: "mid", Event: plugintest.Event{Kind: abi.EventResponseBody, Body: []byte("x")}},
			fails(plugin.Refused, "error @0", ""),
			fails(plugin.Refused, "error @5000", strings.Repeat("a", 1000)),
			asked("calls", "*"),
		}},
		{name: "scripts", steps: []step{
			fails(plugin.Refused, "dance", "unknown command dance"),
			fails(plugin.Refused, "set x-lost 1; set x", "unknown command set").want(untouched),
			asked("event;event; event", "event=1,4,4, event=1,4,4, event=1,4,4,"),
			asked("attribute self.x %41%62%25%3B%20; attribute self.y %40x", "").want(plugintest.Want{Attributes: map[string]string{"conformance.x": "Ab%; ", "conformance.y": "@x"}}),
			asked("repeat 3 event; repeat 0 trap x; repeat 2 repeat 2 calls", "event=1,4,4, event=1,4,4, event=1,4,4, calls=5 calls=5 calls=5 calls=5"),
			fails(plugin.Refused, "repeat 4000 see body", "saw too much"),
		}},
		{name: "endless", steps: []step{
			asked("calls", "calls=1"),
			fails(plugin.Fuel, "set x-lost 1; spin", "").want(untouched),
			asked("calls", "calls=1"),
		}},
	}...)
}

// configurations are what CONFIGURE brings, and what a guest says to it.
func configurations() []play {
	stage := func(p exchange.Phase, setup string) plugintest.Stage {
		return plugintest.Stage{Phase: p, Config: fmt.Sprintf("do = attribute[%q]\nsetup = %q", script, setup)}
	}
	on := func(stage int, do, saw string) step {
		s := asked(do, saw)
		s.Stage = stage
		return s
	}
	kept := func(text string) string { return "setup=" + octets(text) }
	const full = `
ratio   = 2.5
size    = "1MiB"
wait    = "1m"
price   = "0.150"
origin  = "https://example.com/a"
network = "10.0.0.0/8"
pattern = "a+"
words   = ["x", "y z"]
rule "first" {
  most = 5
  when {
    hours = [1, 2]
  }
}
rule "second" {}
`
	members := func(list ...string) string {
		var b []string
		for _, m := range list {
			b = append(b, "member.body="+m)
		}
		return strings.Join(b, " ")
	}
	ask := func(names ...string) string { return "member body " + strings.Join(names, "; member body ") }
	return []play{
		{name: "stages", base: plugintest.Case{Stages: []plugintest.Stage{
			stage(exchange.RequestPhase, "event"), stage(exchange.RequestPhase, "event; now"), stage(exchange.ResponsePhase, "event"), stage(exchange.AccountPhase, ""),
		}}, steps: []step{
			{do: "setup", saw: kept("event=0,4,0,E")},
			on(1, "setup", kept("event=0,4,1,E now=1767323045000000000")),
			on(2, "setup", kept("event=0,5,2,E")).kind(abi.EventResponse),
			on(3, "setup; event", `setup="" event=6,6,3,`).kind(abi.EventAccount),
		}},
		{name: "defaults", base: plugintest.Case{Stages: []plugintest.Stage{stage(exchange.RequestPhase, "value body")}}, steps: []step{
			{do: "setup", saw: kept(`value.body={"network":null,"origin":null,"pattern":null,"price":null,"ratio":null,"rule":[],"setup":"value%20body","size":65536,"wait":1500000000,"words":null}`)},
		}},
		{name: "every type", config: full + fmt.Sprintf("setup = %q", ask("ratio", "size", "wait", "price", "origin", "network")), steps: []step{
			asked("setup", kept(members("f4004000000000000", "1048576", "60000000000", `"0.15"`, `"https://example.com/a"`, `"10.0.0.0/8"`))),
		}},
		{name: "blocks", config: full + fmt.Sprintf("setup = %q", ask("pattern", "words", "rule", "do", "nothing")), steps: []step{
			asked("setup", kept(members(`"a+"`, `["x","y%20z"]`, `[{"most":5,"name":"first","when":{"hours":[1,2]}},{"most":null,"name":"second","when":null}]`, "null", "null"))),
		}},
		{name: "kept", config: `setup = "repeat 200 member body nothing"`, steps: []step{
			asked("setup", kept(strings.TrimSpace(strings.Repeat("member.body=null ", 200))[:1024])),
		}},
		{name: "operations", config: `setup = "random 100; put k v 0; get k; key secret; hold acme fast body; settle hold-1 body 0 -; release hold-1; cacheget k; log 1 set%20up"`, steps: []step{
			asked("setup; get k", kept(`random=100 put=ok get="v" key=UNAVAILABLE hold=UNAVAILABLE settle=UNAVAILABLE release=UNAVAILABLE cacheget=UNAVAILABLE`)+` get="v"`),
		}},
		{name: "refused", config: `setup = "event; error no%20such%20colour"`, base: plugintest.Case{Refused: "no such colour"}},
		{name: "not understood", config: `setup = "paint"`, base: plugintest.Case{Refused: "unknown command paint"}},
		{name: "trap", config: `setup = "trap at%20once"`, base: plugintest.Case{Refused: "trap"}},
	}
}

// denied is what a guest meets that was granted nothing.
func denied() []play {
	return []play{{name: "operations", base: accounts(), steps: []step{
		asked("fetch a url=https://auth.example.com/; await; answer a", `answer.a=0,0,"denied",""`),
		asked("get k; put k v 0; cas k - v 0; delete k; count k 1 0", "get=DENIED put=DENIED cas=DENIED delete=DENIED count=DENIED"),
		at(exchange.Admit, "key secret; hold acme fast 4; settle hold-1 4 0 -; release hold-1; cacheget k; cacheput k v 1",
			"key=DENIED hold=DENIED settle=DENIED release=DENIED cacheget=DENIED cacheput=DENIED"),
		asked("now; random 100", "now=1767323045000000000 random=100"),
	}}}
}

// large are bodies near the most that a frame and a result can hold.
func large() []play {
	mib := strings.Repeat("0123456789abcdef", 1<<16)
	most := strings.Repeat(mib, 15)
	return []play{
		{name: "1 MiB", steps: []step{
			asked("see body; splice 1048576 0 !", "see.body="+octets(mib)).body(mib, true).want(plugintest.Want{Body: mib + "!"}),
			asked("replace $body", "").body(mib, true).want(plugintest.Want{Body: mib}),
			asked("calls; see body", `calls=3 see.body="small"`).body("small", true),
		}},
		{name: "15 MiB", steps: []step{
			asked("see body; splice 0 1 @3", "see.body="+octets(most)).body(most, true).want(plugintest.Want{Body: "aaa" + most[1:]}),
			asked("replace $body", "").body(most, true).want(plugintest.Want{Body: most}),
			asked("see body", `see.body="small"`).body("small", true),
		}},
		{name: "a result that is too long", steps: []step{
			fails(plugin.Refused, "set x-lost 1; splice 0 0 $body; splice 0 0 $body", "").body(most, true).want(plugintest.Want{Without: []string{"x-lost"}}),
			asked("calls", "calls=2"),
		}},
	}
}

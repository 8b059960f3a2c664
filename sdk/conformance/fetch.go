package conformance

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/sdk/abi"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

// fetches are awaited requests and their answers.
func fetches() []play {
	const get = "fetch a url=https://auth.example.com/check; await; "
	mib := strings.Repeat("0123456789abcdef", 1<<16)
	told := map[string]plugintest.Fetched{
		"a": {Status: 200, Header: exchange.Header{{Name: "content-type", Value: "text/plain"}, {Name: "x-empty", Value: ""}}, Body: []byte("ok\x00")},
		"b": {Status: 404, Cached: true},
		"c": {Error: abi.FetchDenied}, "d": {Error: abi.FetchTimeout}, "e": {Error: abi.FetchTooLarge}, "f": {Error: abi.FetchBusy},
		"big": {Status: 200, Body: []byte(mib)},
	}
	all := plugintest.Case{Exchange: upload(), Fetches: told}
	request := func(check func(t *testing.T, asked plugintest.Asked)) plugintest.Want {
		return plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
			t.Helper()
			if len(o.Fetches) != 1 || o.Fetches[0].Request == nil {
				t.Fatalf("the fetches are %v", o.Fetches)
			}
			check(t, o.Fetches[0])
		}}
	}
	return []play{
		{name: "one", base: all, steps: []step{
			asked(get+"event; answer a; see carry", `event=5,4,4, answer.a=200,0,"","ok%00" see.carry="event;%20answer%20a;%20see%20carry"`).
				want(plugintest.Want{Fetches: []string{"a GET https://auth.example.com/check"}}),
			asked(get+"set x-new 1; answer a content-type; answer a x-empty; answer a x-none; answer nobody", `answer.a=200,0,"","ok%00","text/plain" answer.a=200,0,"","ok%00","" answer.a=200,0,"","ok%00",- answer.nobody=-`).
				want(plugintest.Want{Headers: exchange.Header{{Name: "x-new", Value: "1"}}}),
			asked(get+"value body; member body a", `value.body={"a":{"status":200,"error":"","cached":false,"headers":{"content-type":"text/plain","x-empty":""},"body":"ok%00"}} `+
				`member.body={"status":200,"error":"","cached":false,"headers":{"content-type":"text/plain","x-empty":""},"body":"ok%00"}`),
			asked(get+"has 0; headers 1; value 2; value 4; value 6; time", `has.0=0 headers.1=["1","","a%20b"] value.2="POST" value.4=[7,0,0,0,0,0,5,0,0,0,0,0,0] `+
				`value.6=`+octets(get+"has 0; headers 1; value 2; value 4; value 6; time")+" time=1767323045000000000"),
			asked("answer a", "answer.a=-"), // not at another event
		}},
		{name: "several", base: all, steps: []step{
			asked("fetch f url=https://f.example/; fetch a url=https://a.example/; fetch b url=https://b.example/; fetch c url=https://c.example/; fetch d url=https://d.example/; "+
				"fetch e url=https://e.example/; fetch g_9 url=https://g.example/; fetch @64 url=nonsense; await; "+
				"answer a; answer b; answer c; answer d; answer e; answer f; answer g_9; answer "+strings.Repeat("a", 64),
				`answer.a=200,0,"","ok%00" answer.b=404,1,"","" answer.c=0,0,"denied","" answer.d=0,0,"timeout","" answer.e=0,0,"too_large","" `+
					`answer.f=0,0,"busy","" answer.g_9=0,0,"unreachable","" answer.`+strings.Repeat("a", 64)+`=0,0,"invalid",""`).
				want(plugintest.Want{Fetches: []string{"f", "a", "b", "c", "d", "e", "g_9", strings.Repeat("a", 64)}}),
		}},
		{name: "a whole request", base: all, steps: []step{
			asked("fetch a url=https://auth.example.com:8443/x?y=1 method=PUT header:x-one=1%202 header:accept=@3 body=%00%FF cache=5000000000 timeout=250000000 max=1000; await; answer a", `answer.a=200,0,"","ok%00"`).
				want(request(func(t *testing.T, asked plugintest.Asked) {
					r := asked.Request
					if asked.String() != "a PUT https://auth.example.com:8443/x?y=1" || r.Header.Get("x-one") != "1 2" || r.Header.Get("accept") != "aaa" || len(r.Header) != 2 ||
						string(r.Body) != "\x00\xff" || r.Cache != 5*time.Second || r.Timeout != 250*time.Millisecond || r.Max != 1000 {
						t.Errorf("asked for %s: %+v", asked.String(), r)
					}
				})),
			asked("fetch a upstream=auth path=/check?x=1 method=POST body=$body; await; answer a", `answer.a=200,0,"","ok%00"`).body("what came", true).
				want(request(func(t *testing.T, asked plugintest.Asked) {
					if r := asked.Request; asked.String() != "a POST auth /check?x=1" || string(r.Body) != "what came" || len(r.Header) != 0 || r.Cache != 0 || r.Timeout != 0 || r.Max != 64<<10 {
						t.Errorf("asked for %s: %+v", asked.String(), r)
					}
				})),
			asked("fetch a upstream=auth; await; answer a", `answer.a=200,0,"","ok%00"`).want(plugintest.Want{Fetches: []string{"a GET auth /"}}),
		}},
		{name: "invalid requests", base: all, steps: []step{
			asked("fetch a; fetch b url=ftp://x.example/; fetch c url=https://u:p@x.example/; fetch d url=https://x.example/ header:host=evil; "+
				"fetch e url=https://x.example/ max=2000000; fetch f url=https://x.example/ method=CONNECT; await; answer a; answer b; answer c; answer d; answer e; answer f",
				`answer.a=0,0,"invalid","" answer.b=0,0,"invalid","" answer.c=0,0,"invalid","" answer.d=0,0,"invalid","" answer.e=0,0,"invalid","" answer.f=0,0,"invalid",""`),
		}},
		{name: "a large answer", base: all, steps: []step{
			asked("fetch big url=https://x.example/ max=1048576; await; answer big", `answer.big=200,0,"",`+octets(mib)),
			asked("fetch big url=https://x.example/ max=1048575; await; answer big", `answer.big=0,0,"too_large",""`),
			asked("fetch big url=https://x.example/; await; answer big", `answer.big=0,0,"too_large",""`),
			asked("event", "event=1,4,4,"),
		}},
		{name: "again and again", base: all, steps: []step{
			asked(strings.Repeat(get, 4)+"event; answer a; calls", `event=5,4,4, answer.a=200,0,"","ok%00" calls=5`).want(plugintest.Want{Fetches: []string{"a", "a", "a", "a"}}),
			fails(plugin.Protocol, strings.Repeat(get, 5)+"event", "4"),
			asked("fetch a url=https://x.example/1; await; fetch b url=https://x.example/2; await; answer a; answer b", `answer.a=- answer.b=404,1,"",""`),
			asked("meter n 1; "+get+"meter n 2", "").want(plugintest.Want{Meters: map[string]int64{"n": 3}}),
		}},
		{name: "at every phase", base: all, steps: []step{
			at(exchange.Authenticate, get+"event; attribute identity.account a9; strings identity.scopes x", "event=5,0,0,").
				want(plugintest.Want{Identity: &exchange.Identity{Account: "a9", Key: "k1", Scopes: []string{"x"}}}),
			at(exchange.Authorize, get+"event; respond 403 not_you @0; set x-why asked", "event=5,1,1,").
				want(plugintest.Want{Respond: 403, Code: "not_you", Headers: exchange.Header{{Name: "x-why", Value: "asked"}}}),
			at(exchange.Admit, get+"event; done", "event=5,2,2,").want(plugintest.Want{Done: true}),
			at(exchange.Route, get+"event; ints targets 1", "event=5,3,3,").want(plugintest.Want{Targets: []string{"far"}}),
			at(exchange.ResponsePhase, get+"event; set x-r 1; carry kept", "event=5,5,5,").want(plugintest.Want{Headers: exchange.Header{{Name: "x-r", Value: "1"}}}),
			at(exchange.AccountPhase, "see carry; "+get+"event; attribute self.late 1", "event=5,6,6,").want(plugintest.Want{Attributes: map[string]string{"conformance.late": "1"}}),
		}},
		{name: "against the rules", base: all, steps: []step{
			fails(plugin.Protocol, "await", "without a fetch"),
			fails(plugin.Protocol, "fetch a url=https://x.example/", "await"),
			fails(plugin.Protocol, "set x-lost 1; "+get, "await"),
			fails(plugin.Protocol, "repeat 2 fetch a url=https://x.example/; await", ""),
			asked("event", "event=1,4,4,"), // five failures in a row would let the plugin rest
			fails(plugin.Protocol, "fetch Upper url=https://x.example/; await", "a-z"),
			fails(plugin.Protocol, get+"replace x", "bod").body("b", true),
			fails(plugin.Protocol, get, "await").kind(abi.EventRequestBody).body("b", true),
			{phase: exchange.AccountPhase, do: get + "respond 400 late @0", fault: plugin.Protocol, says: "respond"},
		}},
		{name: "failures after an answer", base: all, steps: []step{
			asked("calls", "calls=1"),
			fails(plugin.Refused, get+"set x-lost 1; error not%20good", "not good").want(plugintest.Want{Without: []string{"x-lost"}}),
			asked("calls", "calls=4"),
			fails(plugin.Trap, get+"trap there", ""),
			asked("calls", "calls=1"),
		}},
	}
}

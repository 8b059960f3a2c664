package main

import (
	"encoding/binary"
	"github.com/postern-gateway/postern/sdk/abi"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	gatewayplugin "github.com/postern-gateway/postern/gateway/plugin"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

func TestPlugin(t *testing.T) {
	alice := exchange.Identity{Account: "acct_a", Key: "key_1", Name: "laptop", Scopes: []string{"chat:write", "models"}}
	accounts := map[string]exchange.Identity{"pstn_good": alice, "pstn_plain": {Account: "acct_b", Key: "key_2"}}
	stage := func(config string) []plugintest.Stage {
		return []plugintest.Stage{{Phase: exchange.Authenticate, Config: config}}
	}
	request := func(fields ...string) *exchange.Exchange {
		x := new(exchange.Exchange)
		for i := 0; i < len(fields); i += 2 {
			x.Request.Header.Add(fields[i], fields[i+1])
		}
		return x
	}
	secret := func(t *testing.T, o *plugintest.Outcome) {
		for _, s := range []string{o.Log, o.Detail} {
			if strings.Contains(s, "pstn_") {
				t.Errorf("the key shows in %q", s)
			}
		}
		if o.Answer != nil && strings.Contains(o.Answer.Detail, "pstn_") {
			t.Errorf("the key shows in %q", o.Answer.Detail)
		}
	}
	field := func(name, value string) exchange.Header { return exchange.Header{{Name: name, Value: value}} }
	known := plugintest.Want{Identity: &alice, Without: []string{"authorization"}, Check: secret}
	missing := plugintest.Want{Respond: 401, Code: "missing_api_key", Headers: field("www-authenticate", `Bearer realm="postern"`), Check: secret}
	invalid := plugintest.Want{Respond: 401, Code: "invalid_api_key", Headers: field("www-authenticate", `Bearer realm="postern", error="invalid_token"`), Check: secret}
	one := func(name, config string, x *exchange.Exchange, want plugintest.Want) plugintest.Case {
		return plugintest.Case{Name: name, Stages: stage(config), Exchange: x, Accounts: accounts, Events: []plugintest.Event{{Want: want}}}
	}
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }}, []plugintest.Case{
		one("known", "", request("authorization", "Bearer pstn_good"), known),
		one("scheme in any case", "", request("authorization", "bEARER   pstn_good  "), known),
		one("no scopes", "", request("authorization", "Bearer pstn_plain"), plugintest.Want{Identity: &exchange.Identity{Account: "acct_b", Key: "key_2"}}),
		one("no key", "", request(), missing),
		one("empty", "", request("authorization", "Bearer "), missing),
		one("another scheme", "", request("authorization", "Basic pstn_good"), missing),
		one("the scheme's beginning", "", request("authorization", "Bearerpstn_good"), missing),
		one("another header", "", request("x-api-key", "pstn_good"), missing),
		one("unknown", "", request("authorization", "Bearer pstn_bad"), invalid),
		one("expired", "", request("authorization", "Bearer expired"), invalid),
		one("too long", "", request("authorization", "Bearer pstn_"+strings.Repeat("x", 600)), invalid),
		one("two", "", request("authorization", "Bearer pstn_good", "authorization", "Bearer pstn_plain"), invalid),
		one("host is down", "", request("authorization", "Bearer unavailable"), plugintest.Want{Fault: gatewayplugin.Refused}),
		one("header of its own", `header = "x-api-key"`, request("x-api-key", "pstn_good", "authorization", "Basic eDp5"), plugintest.Want{Identity: &alice, Without: []string{"x-api-key"}, Headers: field("authorization", "Basic eDp5")}),
		one("header of its own missing", `header = "x-goog-api-key"`, request(), plugintest.Want{Respond: 401, Code: "missing_api_key", Headers: field("www-authenticate", `ApiKey realm="postern", header="x-goog-api-key"`)}),
		one("no scheme", `scheme = ""`, request("authorization", "pstn_good"), known),
		one("own scheme", `scheme = "Key"`, request("authorization", "key pstn_good"), known),
		one("from elsewhere", `key = request.headers["x-token"]`, request("x-token", "pstn_good"), plugintest.Want{Identity: &alice}),
		one("elsewhere empty", `key = request.headers["x-token"]`, request("authorization", "Bearer pstn_good"), known),
	})
}

// frame writes an event with these slots, empty carry and body before them.
func frame(event abi.Event, phase postern.Phase, slots ...[]byte) []byte {
	b := make([]byte, abi.FrameHeader+abi.SlotSize*(abi.SlotFirst+len(slots)))
	b[4], b[6] = byte(event), byte(phase)
	binary.LittleEndian.PutUint32(b[12:], uint32(abi.SlotFirst+len(slots)))
	for i, s := range slots {
		if s == nil {
			continue
		}
		at := abi.FrameHeader + abi.SlotSize*(abi.SlotFirst+i)
		binary.LittleEndian.PutUint32(b[at:], uint32(len(b)))
		binary.LittleEndian.PutUint32(b[at+4:], uint32(len(s)))
		b = append(b, s...)
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

// host answers every operation with the same.
type host struct{ answer []byte }

func (host) Log(int, string)                      {}
func (h host) Op(_ abi.Code, _, out []byte) int64 { return int64(copy(out, h.answer)) }

func TestNoAllocations(t *testing.T) {
	answer := abi.AppendObject(nil, 2)
	answer = abi.AppendString(abi.AppendKey(answer, "account"), "acct_a")
	answer = abi.AppendList(abi.AppendKey(answer, "scopes"), 0)
	p := &plugin{stages: []stage{{header: "authorization", scheme: "Bearer"}}}
	i, b := postern.NewInstance(p, host{answer}), frame(abi.EventRequest, postern.Authenticate, append([]byte{11, 0, 0, 0}, "Bearer pstn"...), nil, nil, nil, abi.AppendString(nil, ""))
	run := func() {
		if action, ops := i.On(copy(i.Frame(), b)); action != abi.ActionContinue || len(ops) == 0 {
			t.Fatalf("action %d, %q", action, ops)
		}
	}
	run()
	if n := testing.AllocsPerRun(100, run); n > 0 {
		t.Errorf("%v allocations for one event", n)
	}
}

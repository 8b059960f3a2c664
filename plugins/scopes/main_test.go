package main

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	gatewayplugin "github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

func TestPlugin(t *testing.T) {
	one := func(name, config, method string, scopes []string, want plugintest.Want) plugintest.Case {
		return plugintest.Case{
			Name: name, Stages: []plugintest.Stage{{Phase: exchange.Authorize, Config: config}},
			Exchange: &exchange.Exchange{
				Request:  exchange.Request{Method: method, Header: exchange.Header{{Name: "x-scope", Value: "from:caller"}, {Name: "x-bad", Value: "a\"b"}}},
				Identity: exchange.Identity{Account: "acct_a", Scopes: scopes},
			},
			Events: []plugintest.Event{{Want: want}},
		}
	}
	has := func(scopes ...string) []string { return scopes }
	passes := plugintest.Want{Without: []string{"www-authenticate"}}
	lacks := func(detail, scope string) plugintest.Want {
		field := exchange.Field{Name: "www-authenticate", Value: `Bearer realm="postern", error="insufficient_scope"`}
		if scope != "" {
			field.Value += `, scope="` + scope + `"`
		}
		return plugintest.Want{Respond: 403, Code: "missing_scope", Headers: exchange.Header{field}, Check: func(t *testing.T, o *plugintest.Outcome) {
			if o.Answer.Detail != detail {
				t.Errorf("it says %q, want %q", o.Answer.Detail, detail)
			}
		}}
	}
	byMethod := `all = [request.method == "GET" ? "files:read" : "files:write"]`
	long := `all = ["` + strings.Repeat("a", 400) + `", "` + strings.Repeat("b", 400) + `", "` + strings.Repeat("c", 100) + `"]`
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }}, []plugintest.Case{
		one("has all", `all = ["a", "b"]`, "", has("b", "c", "a"), passes),
		one("lacks one", `all = ["a", "b"]`, "", has("b"), lacks("The caller lacks the scope a.", "a b")),
		one("lacks all", `all = ["a", "b"]`, "", has(), lacks("The caller lacks the scope a, b.", "a b")),
		one("has one of any", `any = ["a", "b"]`, "", has("b"), passes),
		one("has none of any", `any = ["a", "b"]`, "", has("c"), lacks("The caller lacks one of the scope a, b.", "a b")),
		one("all and any", `all = ["a"]
any = ["b", "c"]`, "", has("a", "c"), passes),
		one("all without any", `all = ["a"]
any = ["b", "c"]`, "", has("a"), lacks("The caller lacks one of the scope b, c.", "a b c")),
		one("any without all", `all = ["a"]
any = ["b", "c"]`, "", has("b"), lacks("The caller lacks the scope a.", "a")),
		one("nothing is needed", `all = []`, "", has(), passes),
		one("nothing is written", ``, "", has("a"), plugintest.Want{Fault: gatewayplugin.Refused}),
		one("by method: read", byMethod, "GET", has("files:read"), passes),
		one("by method: write", byMethod, "PUT", has("files:read"), lacks("The caller lacks the scope files:write.", "files:write")),
		one("no prefix is enough", `all = ["files:read"]`, "", has("files", "files:", "files:rea", "FILES:READ", "files:read "), lacks("The caller lacks the scope files:read.", "files:read")),
		one("wildcards are off", `all = ["files:read"]`, "", has("*", "files:*"), lacks("The caller lacks the scope files:read.", "files:read")),
		one("wildcard", `all = ["files:read"]
wildcards = true`, "", has("files:*"), passes),
		one("wildcard for all", `all = ["files:read"]
wildcards = true`, "", has("*"), passes),
		one("wildcard not at a colon", `all = ["files:read"]
wildcards = true`, "", has("file*", "files:r*", "f:*", "files:read:*", "files*"), lacks("The caller lacks the scope files:read.", "files:read")),
		one("wildcard is not nothing", `all = ["files:"]
wildcards = true`, "", has("files:*"), lacks("The caller lacks the scope files:.", "files:")),
		one("what is needed is no wildcard", `all = ["files:*"]
wildcards = true`, "", has("files:read"), lacks("The caller lacks the scope files:*.", "files:*")),
		one("a scope from the request", `all = [request.headers["x-scope"]]`, "", has("a"), lacks("The caller lacks the scope from:caller.", "from:caller")),
		one("a malformed scope is held by nobody", `all = [request.headers["x-bad"]]`, "", has(`a"b`), lacks("The caller lacks the scope (malformed).", "")),
		one("an empty scope is held by nobody", `any = [request.query]`, "", has("", "a"), lacks("The caller lacks one of the scope (malformed).", "")),
		one("no challenge", `all = ["a"]
challenge = ""`, "", has(), plugintest.Want{Respond: 403, Code: "missing_scope", Without: []string{"www-authenticate"}}),
		one("a challenge of its own", `all = ["a"]
challenge = "DPoP"`, "", has(), plugintest.Want{Respond: 403, Headers: exchange.Header{{Name: "www-authenticate", Value: `DPoP realm="postern", error="insufficient_scope", scope="a"`}}}),
		one("many long scopes", long, "", has(), plugintest.Want{Respond: 403, Detail: "..., " + strings.Repeat("c", 100) + "."}),
	})
}

// frame writes an event with these slots, empty carry and body before them.
func frame(slots ...[]byte) []byte {
	b := make([]byte, abi.FrameHeader+abi.SlotSize*(abi.SlotFirst+len(slots)))
	b[4], b[6] = byte(abi.EventRequest), byte(postern.Authorize)
	binary.LittleEndian.PutUint32(b[12:], uint32(abi.SlotFirst+len(slots)))
	for i, s := range slots {
		at := abi.FrameHeader + abi.SlotSize*(abi.SlotFirst+i)
		binary.LittleEndian.PutUint32(b[at:], uint32(len(b)))
		binary.LittleEndian.PutUint32(b[at+4:], uint32(len(s)))
		b = append(b, s...)
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

func TestNoAllocations(t *testing.T) {
	list := func(scopes ...string) []byte {
		b := abi.AppendList(nil, len(scopes))
		for _, s := range scopes {
			b = abi.AppendString(b, s)
		}
		return b
	}
	p := &plugin{stages: []stage{{challenge: "Bearer"}}}
	i := postern.NewInstance(p, nil)
	for want, held := range map[abi.Action][]byte{abi.ActionContinue: list("a", "b"), abi.ActionRespond: list("a")} {
		b := frame(held, list("a", "b"), list())
		run := func() {
			if action, _ := i.On(copy(i.Frame(), b)); action != want {
				t.Fatalf("action %d, want %d", action, want)
			}
		}
		run()
		if n := testing.AllocsPerRun(100, run); n > 0 {
			t.Errorf("%v allocations for one event with action %d", n, want)
		}
	}
}

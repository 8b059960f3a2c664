package main

import (
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	gatewayplugin "github.com/postern-gateway/postern/gateway/plugin"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

func TestPlugin(t *testing.T) {
	header := func(fields ...string) exchange.Header {
		var h exchange.Header
		for i := 0; i < len(fields); i += 2 {
			h.Add(fields[i], fields[i+1])
		}
		return h
	}
	one := func(name string, phase exchange.Phase, config string, h exchange.Header, want plugintest.Want) plugintest.Case {
		x := &exchange.Exchange{Identity: exchange.Identity{Account: "acct_a", Name: "laptop"}}
		if phase == exchange.RequestPhase {
			x.Request.Header = h
		} else {
			x.Response = exchange.Response{Status: 200, Header: h}
		}
		return plugintest.Case{Name: name, Stages: []plugintest.Stage{{Phase: phase, Config: config}}, Exchange: x, Events: []plugintest.Event{{Want: want}}}
	}
	at := exchange.RequestPhase
	exactly := func(want exchange.Header) func(*testing.T, *plugintest.Outcome) {
		return func(t *testing.T, o *plugintest.Outcome) {
			got := o.Exchange.Request.Header
			if o.Exchange.Response.Status != 0 {
				got = o.Exchange.Response.Header
			}
			if len(got) != len(want) {
				t.Errorf("fields %q, want %q", got, want)
			}
		}
	}
	fault := func(detail string) plugintest.Want {
		return plugintest.Want{Fault: gatewayplugin.Refused, Check: func(t *testing.T, o *plugintest.Outcome) {
			if !strings.Contains(o.Detail, detail) {
				t.Errorf("it fails with %q, want %q", o.Detail, detail)
			}
		}}
	}
	api := header("x-content-type-options", "nosniff", "x-frame-options", "DENY", "referrer-policy", "no-referrer",
		"content-security-policy", "default-src 'none'; frame-ancestors 'none'")
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }}, []plugintest.Case{
		one("nothing", at, "", header("x-a", "1"), plugintest.Want{Headers: header("x-a", "1"), Check: exactly(header("x-a", "1"))}),
		one("set", at, `set = { "X-Account" = identity.account, "x-a" = "2" }`, header("x-a", "1", "x-a", "1b"),
			plugintest.Want{Headers: header("x-account", "acct_a", "x-a", "2"), Check: exactly(header("x-account", "", "x-a", ""))}),
		one("set what was not sent", at, `set = { "x-a" = request.headers["x-none"] }`, header("x-a", "1"), plugintest.Want{Headers: header("x-a", "1"), Check: exactly(header("x-a", ""))}),
		one("set where missing", at, `set = { "x-a" = coalesce(request.headers["x-a"], "2"), "x-b" = coalesce(request.headers["x-b"], "3") }`, header("x-a", "1"),
			plugintest.Want{Headers: header("x-a", "1", "x-b", "3"), Check: exactly(header("x-a", "", "x-b", ""))}),
		one("add", at, `add = { "x-a" = "2" }`, header("x-a", "1"), plugintest.Want{Headers: header("x-a", "1", "x-a", "2"), Check: exactly(header("x-a", "", "x-a", ""))}),
		one("remove", at, `remove = ["X-A", "x-none"]`, header("x-a", "1", "x-a", "2", "x-b", "3"), plugintest.Want{Without: []string{"x-a"}, Headers: header("x-b", "3")}),
		one("rename", at, "set = { \"x-new\" = request.headers[\"x-old\"] }\nremove = [\"x-old\"]", header("x-old", "1"),
			plugintest.Want{Without: []string{"x-old"}, Headers: header("x-new", "1")}),
		one("remove and set", at, "set = { \"x-a\" = \"2\" }\nremove = [\"x-a\"]", header("x-a", "1"), plugintest.Want{Headers: header("x-a", "2"), Check: exactly(header("x-a", ""))}),
		one("white space", at, `set = { "x-a" = " a b\t" }`, nil, plugintest.Want{Headers: header("x-a", "a b")}),
		one("a caller's line break", at, `set = { "x-a" = request.headers["x-b"] }`, header("x-b", "1\r\nx-evil: 1"), fault("control characters")),
		one("no field name", at, `set = { "a: b" = "1" }`, nil, fault(`"a: b" is no field name`)),
		one("no name", at, `set = { "" = "1" }`, nil, fault(`"" is no field name`)),
		one("too long", at, `set = { "x-a" = request.headers["x-b"] }`, header("x-b", strings.Repeat("x", 16<<10+1)), fault("longer than 16 KiB")),
		one("the gateway's own", at, `add = { "Content-Length" = "1" }`, nil, fault("content-length is the gateway's own")),
		one("the gateway's own prefix", at, `set = { "postern-x" = "1" }`, nil, fault("postern-x is the gateway's own")),
		{Name: "removing the gateway's own", Stages: []plugintest.Stage{{Phase: at, Config: `remove = ["Host"]`}}, Refused: "host is the gateway's own"},
		one("response", exchange.ResponsePhase, "set = { \"x-id\" = request.id }\nremove = [\"server\"]", header("server", "x"),
			plugintest.Want{Without: []string{"server", "x-content-type-options"}, Headers: header("x-id", "test-1-1")}),
		one("an api's", exchange.ResponsePhase, `security = "api"`, header("x-frame-options", "SAMEORIGIN"),
			plugintest.Want{Headers: header("strict-transport-security", "max-age=63072000; includeSubDomains", "x-frame-options", "SAMEORIGIN", "x-content-type-options", "nosniff"), Check: exactly(append(api, api[0]))}),
		one("a page's", exchange.ResponsePhase, `security = "page"`, nil,
			plugintest.Want{Headers: header("permissions-policy", "camera=(), geolocation=(), microphone=()", "cross-origin-resource-policy", "same-origin"), Without: []string{"content-security-policy"}}),
		{Name: "in cleartext", Stages: []plugintest.Stage{{Phase: exchange.ResponsePhase, Config: `security = "api"`}},
			Exchange: &exchange.Exchange{Request: exchange.Request{Scheme: "http"}, Response: exchange.Response{Status: 200}},
			Events:   []plugintest.Event{{Want: plugintest.Want{Headers: api, Without: []string{"strict-transport-security"}}}}},
	})
}

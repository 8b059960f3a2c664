package main

import (
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
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

func request(method string, fields ...string) *exchange.Exchange {
	return &exchange.Exchange{Request: exchange.Request{Method: method, Header: header(fields...)}}
}

func stages(config string) []plugintest.Stage {
	return []plugintest.Stage{{Phase: exchange.Authenticate, Config: config}, {Phase: exchange.ResponsePhase}}
}

func TestPreflight(t *testing.T) {
	const app = `origins = ["https://app.example.com"]`
	refused := plugintest.Want{Respond: 403, Code: "cors_refused", Headers: header("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
		Without: []string{"access-control-allow-origin", "access-control-allow-methods"}}
	one := func(name, config string, x *exchange.Exchange, want plugintest.Want) plugintest.Case {
		return plugintest.Case{Name: name, Stages: stages(config), Exchange: x, Events: []plugintest.Event{{Want: want}}}
	}
	ask := func(origin, method string, more ...string) *exchange.Exchange {
		return request("OPTIONS", append([]string{"origin", origin, "access-control-request-method", method}, more...)...)
	}
	given := func(origin string, more ...string) plugintest.Want {
		return plugintest.Want{Respond: 204, Headers: header(append([]string{"access-control-allow-origin", origin}, more...)...)}
	}
	headers := func(names string) []string { return []string{"access-control-request-headers", names} }
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }}, []plugintest.Case{
		one("allowed", app, ask("https://app.example.com", "POST", headers("authorization,content-type")...), plugintest.Want{
			Respond: 204, Headers: header("access-control-allow-origin", "https://app.example.com", "access-control-allow-methods", "GET, HEAD, POST",
				"access-control-allow-headers", "authorization,content-type", "access-control-max-age", "600"),
			Without: []string{"access-control-allow-credentials", "access-control-allow-private-network"},
		}),
		one("credentials", app+"\ncredentials = true", ask("https://app.example.com", "GET"), given("https://app.example.com", "access-control-allow-credentials", "true")),
		one("every origin", `origins = ["*"]`, ask("https://evil.example", "GET"), given("*")),
		one("another origin", app, ask("https://evil.example", "GET"), refused),
		one("another scheme", app, ask("http://app.example.com", "GET"), refused),
		one("another port", app, ask("https://app.example.com:8443", "GET"), refused),
		one("the origin as a prefix", app, ask("https://app.example.com.evil.example", "GET"), refused),
		one("the origin as a suffix", app, ask("https://evilapp.example.com", "GET"), refused),
		one("null", app, ask("null", "GET"), refused),
		one("null where it is written", `origins = ["null"]`, ask("null", "GET"), given("null")),
		one("below a name", `origins = ["https://*.example.com"]`, ask("https://a.b.example.com", "GET"), given("https://a.b.example.com")),
		one("the name itself is not below it", `origins = ["https://*.example.com"]`, ask("https://example.com", "GET"), refused),
		one("no dot", `origins = ["https://*.example.com"]`, ask("https://evilexample.com", "GET"), refused),
		one("what is no name", `origins = ["https://*.example.com"]`, ask("https://evil.example/.example.com", "GET"), refused),
		one("a user", `origins = ["https://*.example.com"]`, ask("https://evil@a.example.com", "GET"), refused),
		one("every port", `origins = ["http://localhost:*"]`, ask("http://localhost:3000", "GET"), given("http://localhost:3000")),
		one("no port either", `origins = ["http://localhost:*"]`, ask("http://localhost", "GET"), given("http://localhost")),
		one("what is no port", `origins = ["http://localhost:*"]`, ask("http://localhost:evil.example", "GET"), refused),
		one("IPv6", `origins = ["http://[::1]:8080"]`, ask("http://[::1]:8080", "GET"), given("http://[::1]:8080")),
		one("method", app, ask("https://app.example.com", "DELETE"), refused),
		one("method in lower case", app, ask("https://app.example.com", "post"), refused),
		one("field", app, ask("https://app.example.com", "GET", headers("x-evil")...), refused),
		one("field in any case", app+"\nheaders = [\"X-Team\"]", ask("https://app.example.com", "GET", headers("x-team")...), given("https://app.example.com", "access-control-allow-headers", "x-team")),
		one("every field", app+"\nheaders = [\"*\"]", ask("https://app.example.com", "GET", headers("x-a, x-b")...), given("https://app.example.com", "access-control-allow-headers", "x-a, x-b")),
		one("every field, but fields", app+"\nheaders = [\"*\"]", ask("https://app.example.com", "GET", headers("x a")...), refused),
		one("private network", app+"\nprivate_network = true", ask("https://app.example.com", "GET", "access-control-request-private-network", "true"), given("https://app.example.com", "access-control-allow-private-network", "true")),
		one("no preflight: no method asked for", app, request("OPTIONS", "origin", "https://app.example.com"), plugintest.Want{Done: true}),
		one("no preflight: another method", app, request("POST", "origin", "https://evil.example", "access-control-request-method", "POST"), plugintest.Want{Done: true}),
		one("no origin", app, request("OPTIONS", "access-control-request-method", "POST"), plugintest.Want{Done: true}),
		{Name: "all with credentials", Stages: stages("origins = [\"*\"]\ncredentials = true"), Refused: "credentials: not with the origin"},
		{Name: "all and some", Stages: stages(`origins = ["*", "null"]`), Refused: "stands alone"},
		{Name: "none", Stages: stages(`origins = []`), Refused: "name at least one"},
		{Name: "a path", Stages: stages(`origins = ["https://a.example/"]`), Refused: "is more than an origin"},
		{Name: "no scheme", Stages: stages(`origins = ["a.example"]`), Refused: "has no scheme"},
		{Name: "upper case", Stages: stages(`origins = ["https://A.example"]`), Refused: "has upper-case letters"},
		{Name: "the scheme's port", Stages: stages(`origins = ["https://a.example:443"]`), Refused: "which browsers leave out"},
		{Name: "a star inside", Stages: stages(`origins = ["https://a*.example"]`), Refused: "has a *"},
		{Name: "a week", Stages: stages("origins = [\"null\"]\nmax_age = \"168h\""), Refused: "max_age: from 0s to 24h"},
	})
}

// What the page may read is decided when the request comes and said with the reply, whoever gives it.
func TestResponse(t *testing.T) {
	reply := func(fields ...string) func(*exchange.Exchange) {
		return func(x *exchange.Exchange) { x.Response = exchange.Response{Status: 200, Header: header(fields...)} }
	}
	one := func(name, config string, x *exchange.Exchange, before func(*exchange.Exchange), want plugintest.Want) plugintest.Case {
		return plugintest.Case{Name: name, Stages: stages(config), Exchange: x, Events: []plugintest.Event{
			{Want: plugintest.Want{Done: true}}, {Stage: 1, Before: before, Want: want},
		}}
	}
	const app = "origins = [\"https://app.example.com\"]\n"
	const origin = "https://app.example.com"
	allow := "access-control-allow-origin"
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }}, []plugintest.Case{
		one("allowed", app+`expose = ["x-request-id", "x-b"]`, request("GET", "origin", origin), reply(), plugintest.Want{
			Headers: header(allow, origin, "access-control-expose-headers", "x-request-id, x-b", "vary", "Origin"),
			Without: []string{"access-control-allow-credentials"},
		}),
		one("credentials", app+"credentials = true", request("GET", "origin", origin), reply(), plugintest.Want{Headers: header("access-control-allow-credentials", "true")}),
		one("another origin", app, request("GET", "origin", "https://evil.example"), reply(), plugintest.Want{Headers: header("vary", "Origin"), Without: []string{allow}}),
		one("no origin", app, request("GET"), reply(), plugintest.Want{Headers: header("vary", "Origin"), Without: []string{allow}}),
		one("every origin", `origins = ["*"]`, request("GET", "origin", origin), reply(), plugintest.Want{Headers: header(allow, "*"), Without: []string{"vary"}}),
		one("the upstream's word does not count", app, request("GET", "origin", "https://evil.example"),
			reply(allow, "*", "access-control-allow-credentials", "true", "access-control-expose-headers", "set-cookie"),
			plugintest.Want{Without: []string{allow, "access-control-allow-credentials", "access-control-expose-headers"}}),
		one("varies already", app, request("GET", "origin", origin), reply("vary", "accept, ORIGIN"), plugintest.Want{
			Headers: header("vary", "accept, ORIGIN", allow, origin),
			Check: func(t *testing.T, o *plugintest.Outcome) {
				if n := o.Exchange.Response.Header.Count("vary"); n != 1 {
					t.Errorf("%d fields vary", n)
				}
			},
		}),
	})
}

// FuzzOrigin: whatever a browser or an attacker sends, only what an origin stands for is allowed.
func FuzzOrigin(f *testing.F) {
	for _, s := range []string{"https://app.example.com", "https://a.example.com:1", "null", "https://x.evil.com/.example.com", "http://localhost:99"} {
		f.Add("https://*.example.com", s)
		f.Add("http://localhost:*", s)
	}
	f.Fuzz(func(t *testing.T, written, sent string) {
		o, err := parseOrigin(written)
		if err != nil || !o.is([]byte(sent)) {
			return
		}
		got, err := parseOrigin(sent)
		switch {
		case sent == written:
		case !o.below && !o.anyPort:
			t.Errorf("%q allows %q", written, sent)
		case err != nil && !o.anyPort && o.port == "":
			t.Errorf("%q allows %q, which is no origin: %v", written, sent, err)
		case err == nil && got.scheme != o.scheme:
			t.Errorf("%q allows %q, of another scheme", written, sent)
		}
	})
}

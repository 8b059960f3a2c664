package main

import (
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

func TestAuthz(t *testing.T) {
	const url = "https://auth.example.com/whoami"
	caller := &exchange.Exchange{Request: exchange.Request{Header: exchange.Header{{Name: "authorization", Value: "Bearer s3cret"}}}}
	asks := []string{"whoami GET " + url}
	says := func(status int, fields ...string) map[string]plugintest.Fetched {
		a := plugintest.Fetched{Status: status}
		for i := 0; i < len(fields); i += 2 {
			a.Header.Add(fields[i], fields[i+1])
		}
		return map[string]plugintest.Fetched{url: a}
	}
	unavailable := plugintest.Want{Fetches: asks, Respond: 503, Code: "authorization_unavailable", Headers: exchange.Header{{Name: "retry-after", Value: "1"}}}
	stages := []plugintest.Stage{{Phase: exchange.Authenticate, Config: `url = "` + url + `"`}, {Phase: exchange.RequestPhase}}
	one := func(name string, x *exchange.Exchange, fetches map[string]plugintest.Fetched, want plugintest.Want) plugintest.Case {
		return plugintest.Case{Name: name, Exchange: x, Fetches: fetches, Events: []plugintest.Event{{Want: want}}}
	}
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(authz) }, Stages: stages}, []plugintest.Case{
		one("known", caller, says(200, "x-account", "acme", "x-scopes", "read  write"), plugintest.Want{Fetches: asks, Identity: &exchange.Identity{Account: "acme", Scopes: []string{"read", "write"}}, Check: func(t *testing.T, o *plugintest.Outcome) {
			if got := o.Fetches[0].Request; got.Header.Get("authorization") != "Bearer s3cret" || got.Cache.String() != "5s" {
				t.Errorf("asked with %v, and the answer may be %s old", got.Header, got.Cache)
			}
			if strings.Contains(o.Log, "s3cret") {
				t.Errorf("the log holds the credentials: %s", o.Log)
			}
		}}),
		one("no scopes", caller, says(204, "x-account", "acme"), plugintest.Want{Fetches: asks, Identity: &exchange.Identity{Account: "acme"}}),
		one("unknown", caller, says(401), plugintest.Want{Fetches: asks, Respond: 401, Code: "unknown_credentials", Headers: exchange.Header{{Name: "www-authenticate", Value: `Bearer realm="postern"`}}}),
		one("forbidden", caller, says(403, "x-account", "acme"), plugintest.Want{Fetches: asks, Respond: 401, Code: "unknown_credentials"}),
		one("a redirect is no yes", caller, says(302, "x-account", "acme"), unavailable),
		one("broken", caller, says(500, "x-account", "acme"), unavailable),
		one("says yes, and to whom not", caller, says(200), unavailable),
		one("down", caller, nil, unavailable),
		one("too slow", caller, map[string]plugintest.Fetched{"whoami": {Error: "timeout"}}, unavailable),
		one("not granted", caller, map[string]plugintest.Fetched{"whoami": {Error: "denied"}}, plugintest.Want{Fetches: asks, Fault: plugin.Refused}),
		one("no credentials", nil, nil, plugintest.Want{Fetches: []string{}, Respond: 401, Code: "missing_credentials"}),
		{Name: "what goes on", Exchange: caller, Fetches: says(200, "x-account", "acme"), Events: []plugintest.Event{
			{Want: plugintest.Want{Identity: &exchange.Identity{Account: "acme"}}},
			{Stage: 1, Want: plugintest.Want{Without: []string{"authorization"}, Headers: exchange.Header{{Name: "x-account", Value: "acme"}}}},
		}},
		{Name: "it changes its mind", Exchange: caller, Fetches: says(200, "x-account", "acme"), Events: []plugintest.Event{
			{Want: plugintest.Want{Identity: &exchange.Identity{Account: "acme"}}},
			{Fetches: says(401), Want: plugintest.Want{Respond: 401}},
		}},
	})
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(authz) }, Stages: stages, Grants: []string{}}, []plugintest.Case{
		one("without the grant nothing is asked", caller, says(200, "x-account", "acme"), plugintest.Want{Fetches: []string{}, Fault: plugin.Refused}),
	})
}

package main

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	gatewayplugin "github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

const setURL = "https://login.example/keys"

// rsaJWK and ecJWK are the public keys of the tests as JSON Web Keys.
func rsaJWK(kid, more string) string {
	k := signers()["RSA"].Public().(*rsa.PublicKey)
	return `{"kty":"RSA","kid":"` + kid + `","n":"` + b64(k.N.Bytes()) + `","e":"` + b64(big.NewInt(int64(k.E)).Bytes()) + `"` + more + `}`
}

func ecJWK(t *testing.T, kid, more string) string {
	t.Helper()
	point, err := signers()["P-256"].Public().(*ecdsa.PublicKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return `{"kty":"EC","crv":"P-256","kid":"` + kid + `","x":"` + b64(point[1:33]) + `","y":"` + b64(point[33:]) + `"` + more + `}`
}

func keysText(keys ...string) plugintest.Fetched {
	return plugintest.Fetched{Status: 200, Body: []byte(`{"keys":[` + strings.Join(keys, ",") + `]}`)}
}

// The keys of an issuer come when they are needed, are looked after, and outlive the issuer's absence.
func TestKeySet(t *testing.T) {
	config := stages(issuer + "jwks {\n url = \"" + setURL + "\"\n algorithms = [\"RS256\", \"ES256\"]\n refresh = \"1h\"\n retry = \"10s\"\n stale = \"2h\"\n}\n")
	// Tokens that never expire: the clock goes on by hours here.
	payload := `{"iss":"me","sub":"acct_a","exp":99999999999}`
	rs := func(kid string) *exchange.Exchange {
		return bearer(sign(t, "RS256", `{"alg":"RS256","kid":"`+kid+`"}`, payload))
	}
	es := bearer(sign(t, "ES256", `{"alg":"ES256","kid":"e"}`, payload))
	asks, asksNot := []string{"jwks GET " + setURL}, []string{}
	known := func(kid string, fetches []string) plugintest.Want {
		w := who(kid, "acct_a", "")
		w.Fetches = fetches
		return w
	}
	unknown := func(fetches []string) plugintest.Want {
		w := refused("key that is known")
		w.Fetches = fetches
		return w
	}
	down := func(fetches []string) plugintest.Want {
		return plugintest.Want{Fault: gatewayplugin.Refused, Fetches: fetches}
	}
	told := func(a plugintest.Fetched) map[string]plugintest.Fetched {
		return map[string]plugintest.Fetched{setURL: a}
	}
	ev := func(after time.Duration, x *exchange.Exchange, want plugintest.Want) plugintest.Event {
		return plugintest.Event{After: after, Exchange: x, Want: want}
	}
	then := func(e plugintest.Event, a plugintest.Fetched) plugintest.Event {
		e.Fetches = told(a)
		return e
	}
	gone := plugintest.Fetched{Error: abi.FetchUnreachable}
	a, b := keysText(rsaJWK("a", "")), keysText(rsaJWK("b", ""))
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }, Stages: config, Limits: limits}, []plugintest.Case{
		{Name: "first use", Fetches: told(keysText(rsaJWK("a", `,"alg":"RS256"`), ecJWK(t, "e", `,"use":"sig"`))), Events: []plugintest.Event{
			ev(0, rs("a"), known("a", asks)),
			ev(0, rs("a"), known("a", asksNot)),
			ev(0, es, known("e", asksNot)),
			ev(0, bearer(sign(t, "RS256", `{"alg":"RS256"}`, payload)), known("a", asksNot)),
			ev(9*time.Second, rs("x"), unknown(asksNot)), // the keys are too young to be other ones by now
			ev(0, bearer(sign(t, "HS256", `{"alg":"HS256","kid":"a"}`, payload)), unknown(asksNot)),
			ev(time.Minute, bearer(sign(t, "HS256", `{"alg":"HS256","kid":"y"}`, payload)), unknown(asksNot)), // such keys the set can not have
		}},
		{Name: "rotation", Fetches: told(a), Events: []plugintest.Event{
			ev(0, rs("a"), known("a", asks)),
			then(ev(10*time.Second, rs("b"), known("b", asks)), b),
			ev(0, rs("a"), unknown(asksNot)), // withdrawn, and with it the proof that was remembered
		}},
		{Name: "refresh", Fetches: told(a), Events: []plugintest.Event{
			ev(0, rs("a"), known("a", asks)),
			ev(time.Hour-time.Second, rs("a"), known("a", asksNot)),
			then(ev(time.Second, rs("a"), unknown(asks)), b),
			ev(0, rs("b"), known("b", asksNot)),
		}},
		{Name: "the issuer is down later", Fetches: told(a), Events: []plugintest.Event{
			ev(0, rs("a"), known("a", asks)),
			then(ev(time.Hour, rs("a"), known("a", asks)), gone),
			ev(9*time.Second, rs("a"), known("a", asksNot)),
			ev(0, rs("b"), unknown(asksNot)),
			ev(time.Second, rs("a"), known("a", asks)),
			ev(2*time.Hour-11*time.Second, rs("a"), known("a", asks)),
			ev(time.Second, rs("a"), down(asksNot)), // too old now
			ev(9*time.Second, rs("a"), down(asks)),
			then(ev(10*time.Second, rs("a"), known("a", asks)), a),
		}},
		{Name: "the issuer is down at first", Fetches: told(gone), Events: []plugintest.Event{
			ev(0, rs("a"), plugintest.Want{Fault: gatewayplugin.Refused, Fetches: asks, Check: func(t *testing.T, o *plugintest.Outcome) {
				if !strings.Contains(o.Log, setURL) || !strings.Contains(o.Log, "unreachable") {
					t.Errorf("the log does not say why:\n%s", o.Log)
				}
			}}),
			ev(time.Second, rs("a"), down(asksNot)),
			then(ev(9*time.Second, rs("a"), known("a", asks)), a),
		}},
		{Name: "status", Fetches: told(plugintest.Fetched{Status: 503, Body: a.Body}), Events: []plugintest.Event{ev(0, rs("a"), down(asks))}},
		{Name: "no key set", Fetches: told(plugintest.Fetched{Status: 200, Body: []byte("<html>")}), Events: []plugintest.Event{ev(0, rs("a"), down(asks))}},
		{Name: "no key of use", Fetches: told(keysText(rsaJWK("a", `,"use":"enc"`), `{"kty":"oct","kid":"a","k":"AAAA"}`, `1`)), Events: []plugintest.Event{ev(0, rs("a"), down(asks))}},
		{Name: "keys of no use beside", Fetches: told(keysText(rsaJWK("a", `,"alg":"PS256"`), `{"kty":"XX"}`, `[]`, rsaJWK("a", ""))), Events: []plugintest.Event{ev(0, rs("a"), known("a", asks))}},
		{Name: "a secret in a set", Fetches: told(keysText(rsaJWK("a", ""), `{"kty":"oct","alg":"HS256","kid":"h","k":"`+b64([]byte(secret))+`"}`)), Events: []plugintest.Event{
			ev(0, bearer(sign(t, "HS256", `{"alg":"HS256","kid":"h"}`, payload)), unknown(asksNot)),
		}},
		{Name: "an algorithm the key does not say", Stages: stages(strings.Replace(config[0].Config, `"ES256"`, `"PS256"`, 1)), Fetches: told(a), Events: []plugintest.Event{ev(0, rs("a"), down(asks))}},
		{Name: "beside a key of the configuration", Stages: stages(config[0].Config + block(t, "EdDSA")), Fetches: told(a), Events: []plugintest.Event{
			ev(0, bearer(sign(t, "EdDSA", `{"alg":"EdDSA","kid":"k"}`, payload)), known("k", asksNot)),
			ev(0, rs("a"), known("a", asks)),
		}},
	})
}

// Without the grants a key set is not to be had, and that is no caller's fault.
func TestNotGranted(t *testing.T) {
	config := stages(issuer + "jwks {\n url = \"" + setURL + "\"\n algorithms = [\"RS256\"]\n}\n")
	x := bearer(sign(t, "RS256", `{"alg":"RS256"}`, claimsText("")))
	for name, grants := range map[string][]string{"neither": {}, "no fetch": {"state"}, "no state": {"fetch"}} {
		t.Run(name, func(t *testing.T) {
			plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }, Stages: config, Grants: grants}, []plugintest.Case{
				{Name: "key set", Exchange: x, Fetches: map[string]plugintest.Fetched{setURL: keysText(rsaJWK("a", ""))}, Events: []plugintest.Event{{Want: plugintest.Want{Fault: gatewayplugin.Refused}}}},
				{Name: "key", Stages: stages(issuer + block(t, "RS256")), Exchange: x, Events: []plugintest.Event{{Want: who("k", "acct_a", "")}}},
			})
		})
	}
}

// Whatever an issuer publishes, reading it ends, and gives keys for what was asked only.
func FuzzKeySet(f *testing.F) {
	f.Add([]byte(`{"keys":[` + rsaJWK("a", `,"alg":"RS256"`) + `]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"OKP","crv":"Ed25519","x":"","key_ops":["verify"]}]}`))
	f.Add([]byte(`{"keys":{}}`))
	s := &keySet{algorithms: []*algorithm{algorithmOf("RS256"), algorithmOf("ES256"), algorithmOf("EdDSA")}}
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, _ := s.read(text)
		if len(keys) > maxKeys {
			t.Fatalf("%d keys", len(keys))
		}
		for _, k := range keys {
			if !s.allows(k.alg) || k.verify(text, text) {
				t.Fatalf("%s", k.alg.name)
			}
		}
	})
}

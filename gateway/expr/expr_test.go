package expr

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/netip"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/secret"
	"github.com/postern-gateway/postern/sdk/abi"
)

// sample is an exchange with something in every place.
func sample() *exchange.Exchange {
	x := &exchange.Exchange{
		ID: "edge-1-7", Listener: "public", Route: "chat", Hold: "hold_9", Upstream: "openai",
		Request: exchange.Request{
			Protocol: exchange.HTTP2, Method: "POST", Scheme: "https", Authority: "api.example.com:8443", Path: "/v1/chat/completions",
			Query: "a=1&b=2", Header: exchange.Header{{Name: "x-tenant", Value: "acme"}, {Name: "user-agent", Value: "curl/8"}, {Name: "content-length", Value: "120"}, {Name: "x-empty"}},
			Length: 120, Remote: netip.MustParseAddrPort("[::ffff:10.1.2.3]:5555"), Upgrade: "",
			TLS: &exchange.TLS{Version: tls.VersionTLS13, Peer: &x509.Certificate{Subject: pkix.Name{CommonName: "robot"}}},
		},
		Identity: exchange.Identity{Account: "acct_1", Key: "key_2", Name: "laptop", Scopes: []string{"chat:write", "models:read"}},
		Call: exchange.Call{Format: "openai", Operation: "chat", Model: "small", Stream: true, Target: 1, Targets: []exchange.Target{
			{Upstream: "openai", Model: "gpt-4o-mini", Weight: 3, Healthy: true}, {Upstream: "backup", Model: "gpt-x", Weight: 1},
		}},
		Response: exchange.Response{Status: 200, Length: -1, Header: exchange.Header{{Name: "content-type", Value: "text/event-stream"}}},
	}
	x.Call.Max.Units[exchange.Input], x.Call.Max.Units[exchange.Output] = 1000, 16384
	x.Usage.Units[exchange.Input], x.Usage.Units[exchange.CachedInput], x.Usage.Units[exchange.Output] = 90, 10, 55
	x.Usage.Estimated = true
	x.SetAttribute("jwt.sub", "alice")
	return x
}

var loadTime = map[string]cty.Value{
	"var": cty.ObjectVal(map[string]cty.Value{
		"tenant": cty.StringVal("acme"), "limit": cty.NumberIntVal(100), "debug": cty.True, "header": cty.StringVal("X-Tenant"),
		"range":  cty.StringVal("10.0.0.0/8"),
		"limits": cty.MapVal(map[string]cty.Value{"POST": cty.NumberIntVal(5), "GET": cty.NumberIntVal(50)}),
		"hosts":  cty.ListVal([]cty.Value{cty.StringVal("api.example.com"), cty.StringVal("b.example.com")}),
		"mixed":  cty.TupleVal([]cty.Value{cty.StringVal("a"), cty.NumberIntVal(1)}),
		"name":   cty.ObjectVal(map[string]cty.Value{"first": cty.StringVal("Ada"), "age": cty.NumberIntVal(36)}),
		"null":   cty.NullVal(cty.String), "two": cty.StringVal("2"), "yes": cty.StringVal("true"),
	}),
	"local":  cty.ObjectVal(map[string]cty.Value{"broken": cty.DynamicVal}),
	"secret": cty.ObjectVal(map[string]cty.Value{"token": secret.Value("hunter2-hunter2"), "later": secret.Unknown(), "n": secret.Value("7")}),
}

func parse(t testing.TB, text string) hcl.Expression {
	t.Helper()
	e, diags := hclsyntax.ParseExpression([]byte(text), "test.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatalf("%s: %s", text, diags)
	}
	return e
}

func scope(text string, phase exchange.Phase) Scope {
	return Scope{Phase: phase, Values: loadTime, Sources: map[string][]byte{"test.hcl": []byte(text)}}
}

func compile(t testing.TB, text string, want cty.Type) *Program {
	t.Helper()
	p, diags := Compile(parse(t, text), scope(text, exchange.AccountPhase), want)
	if diags.HasErrors() {
		t.Fatalf("%s: %s", text, diags)
	}
	return p
}

// decoded is an encoded value as Go values.
func decoded(v abi.Value) any {
	switch v.Kind() {
	case abi.KindBool:
		return v.Bool()
	case abi.KindInt:
		return v.Int()
	case abi.KindFloat:
		return v.Float()
	case abi.KindString:
		return v.Text()
	case abi.KindList:
		list := []any{}
		for _, m := range v.Each {
			list = append(list, decoded(m))
		}
		return list
	case abi.KindObject:
		object := map[string]any{}
		for k, m := range v.Each {
			object[string(k)] = decoded(m)
		}
		return object
	}
	return nil
}

func value(t testing.TB, encoded []byte) any {
	t.Helper()
	v, rest, ok := abi.ReadValue(encoded)
	if !ok || len(rest) > 0 {
		t.Fatalf("not one value: %x", encoded)
	}
	return decoded(v)
}

func TestBool(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`request.method == "POST"`:                                        true,
		`request.method != "POST"`:                                        false,
		`"POST" == request.method && request.scheme == "https"`:           true,
		`request.host == "api.example.com"`:                               true,
		`request.host == "${"api"}.example.com"`:                          true,
		`request.headers["X-Tenant"] == var.tenant`:                       true,
		`request.headers[var.header] == "acme"`:                           true,
		`request.headers.x-tenant == "acme"`:                              true,
		`request.headers["x-absent"] == ""`:                               true,
		`has(request.headers, "X-Empty")`:                                 true,
		`has(request.headers, "x-absent")`:                                false,
		`has(response.headers, "content-type")`:                           true,
		`has(attribute, "jwt.sub") && !has(attribute, "jwt.x")`:           true,
		`attribute["jwt.sub"] == "alice"`:                                 true,
		`attribute["jwt.none"] == ""`:                                     true,
		`contains(identity.scopes, "chat:write")`:                         true,
		`contains(identity.scopes, "admin")`:                              false,
		`contains(["GET", "POST"], request.method)`:                       true,
		`contains(["GET", request.method], "POST")`:                       true,
		`contains(var.hosts, request.host)`:                               true,
		`contains(request.path, "chat")`:                                  true,
		`contains(usage.max, 16384)`:                                      true,
		`startswith(request.path, "/v1/")`:                                true,
		`endswith(request.path, "/v1/")`:                                  false,
		`matches(request.path, "^/v[0-9]+/")`:                             true,
		`cidr_contains(var.range, request.remote)`:                        true,
		`cidr_contains("192.0.2.0/24", request.remote)`:                   false,
		`cidr_contains(["192.0.2.0/24", "10.1.2.3"], request.remote)`:     true,
		`request.remote == "10.1.2.3"`:                                    true,
		`request.remote == "10.1.2.03"`:                                   false,
		`"10.1.2.3" != request.remote`:                                    false,
		`identity.scopes[0] == "chat:write"`:                              true,
		`identity.scopes[request.length - 119] == "models:read"`:          true,
		`targets[0].healthy && !targets[1].healthy`:                       true,
		`target.upstream == "backup"`:                                     true,
		`targets[target.weight].model == "gpt-x"`:                         true,
		`usage.max.output == 16384 && usage.max[6] == 16384`:              true,
		`response.usage.prompt == 100 && response.usage.completion == 55`: true,
		`response.usage.estimated`:                                        true,
		`request.length > 100 && request.length <= 120`:                   true,
		`request.headers["content-length"] >= 120`:                        true,
		`request.tls.version == "1.3" && request.tls.peer == "robot"`:     true,
		`request.protocol == "http2"`:                                     true,
		`var.debug ? request.length > 1 : false`:                          true,
		`var.limits[request.method] == 5`:                                 true,
		`var.limits["GET"] == 50`:                                         true,
		`var.hosts[request.length - 120] == request.host`:                 true,
		`var.limit < request.length`:                                      true,
		`call.stream`:                                                     true,
		`call.stream == true`:                                             true,
		`var.yes && call.stream`:                                          true,
		`length(request.path) == 20 && length(identity.scopes) == 2`:      true,
		`length(usage.max) == 13 && length(var.name) == 2`:                true,
		`lower(request.method) == "post" && upper("a") == "A"`:            true,
		`trim(" ${request.method} ") == "POST"`:                           true,
		`coalesce(request.headers["x-absent"], model) == "small"`:         true,
		`min(request.length, 7, 9) == 7 && max(request.length, 7) == 120`: true,
		`(request.length + 2) * 3 / 2 - 1 == 182`:                         true,
		`-request.length == -120 && request.length % 7 == 1`:              true,
		`request.length / 7 > 17.14 && request.length / 7 < 17.15`:        true,
		`secret.token == request.query`:                                   false,
		`request.length == 1 || secret.n < request.length`:                true,
		`false && request.headers["x-tenant"] > 1`:                        false,
		`request.headers["x-tenant"] > 1 || true`:                         true,
		`1 + 1 == 2`: true,
		`model == "small" && call.format == "openai"`:                 true,
		`hold == "hold_9" && upstream == "openai"`:                    true,
		`9007199254740993 + request.length - 120 == 9007199254740993`: true,
		`9223372036854775807 + request.length > 9223372036854775807`:  true,
	} {
		if got, err := compile(t, text, cty.Bool).Bool(sample()); got != want || err != nil {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want cty.Type
		out  string
	}{
		{`identity.account`, cty.String, `acct_1`},
		{`"${identity.account}/${request.length}/${call.stream}"`, cty.String, `acct_1/120/true`},
		{`request.remote`, cty.String, `10.1.2.3`},
		{`"<%{ if call.stream }s%{ else }w%{ endif }>"`, cty.String, `<s>`},
		{`request.length / 8`, cty.String, `15`},
		{`request.length / 16`, cty.String, `7.5`},
		{`call.stream ? 1 : "no"`, cty.String, `1`},
		{`coalesce(request.upgrade, request.query)`, cty.String, `a=1&b=2`},
		{`var.limit`, cty.String, `100`},
	} {
		p := compile(t, c.text, c.want)
		if got, err := p.String(sample()); got != c.out || err != nil {
			t.Errorf("%s: String is %q, %v", c.text, got, err)
		}
		got, err := p.Append(nil, sample())
		if err != nil || value(t, got) != any(c.out) {
			t.Errorf("%s: Append is %q, %v", c.text, got, err)
		}
	}
}

package expr

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/attribute"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/secret"
)

// TestLoadErrors holds every message to its words and place.
func TestLoadErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text  string
		phase exchange.Phase
		want  cty.Type
		out   string
	}{
		{`identity.account == "x"`, exchange.Authenticate, cty.Bool, "1-17 Used too early: identity.account is known from phase authorize on; this is evaluated at authenticate."},
		{`model`, exchange.Authorize, cty.String, "1-6 Used too early: model is known from phase admit on; this is evaluated at authorize."},
		{`targets[0].model`, exchange.Admit, cty.String, "1-17 Used too early: targets is known from phase route on; this is evaluated at admit."},
		{`target.model`, exchange.Route, cty.String, "1-13 Used too early: target is known from phase request on; this is evaluated at route."},
		{`has(response.headers, "x")`, exchange.RequestPhase, cty.Bool, `5-21 Used too early: response.headers["x"] is known from phase response on; this is evaluated at request.`},
		{`reqest.path`, exchange.Admit, cty.String, `1-7 Unknown name: There is no "reqest" here. Did you mean "request"?`},
		{`upstreams`, exchange.Admit, cty.String, `1-10 Unknown name: There is no "upstreams" here. Did you mean "upstream"?`},
		{`request.pth`, exchange.Admit, cty.String, `1-12 Unknown name: There is no "request.pth". Did you mean "request.path"?`},
		{`identity.nonesuch_at_all`, exchange.Admit, cty.String, `1-25 Unknown name: There is no "identity.nonesuch_at_all". There are: identity.account, identity.key, identity.name, identity.scopes.`},
		{`identity`, exchange.Admit, cty.String, `1-9 Incomplete name: identity is not a value itself. There are: identity.account, identity.key, identity.name, identity.scopes.`},
		{`request.tls == "x"`, exchange.Admit, cty.Bool, "1-12 Incomplete name: request.tls is not a value itself."},
		{`request.headers`, exchange.Admit, cty.DynamicPseudoType, `1-16 Incomplete name: request.headers is not a value itself: write request.headers["name"].`},
		{`request.headers[request.path]`, exchange.Admit, cty.String, "17-29 Name not constant: The name in request.headers[...] is text that is known when the configuration loads."},
		{`request.path.foo`, exchange.Admit, cty.String, "13-17 Unknown name: text has no members."},
		{`target.modell`, exchange.AccountPhase, cty.String, `7-14 Unknown name: There is no member "modell". Did you mean "model"?`},
		{`request.path[0]`, exchange.Admit, cty.String, "1-16 Not a list: text has no elements."},
		{`[request.path][1]`, exchange.Admit, cty.String, "15-18 Invalid index: The list has 1 elements, counted from 0."},
		{`request.path`, exchange.Admit, cty.Bool, "1-13 Wrong type: Here true or false is needed; this is text. Compare it with something."},
		{`request.path && true`, exchange.Admit, cty.Bool, "1-13 Wrong type: Here true or false is needed; this is text. Compare it with something."},
		{`identity.scopes`, exchange.Admit, cty.String, "1-16 Wrong type: Here text is needed; this is a list."},
		{`"a" + request.length`, exchange.Admit, cty.Number, "1-4 Wrong type: Here a number is needed; this is text."},
		{`request.length == "1"`, exchange.Admit, cty.Bool, "1-22 Wrong type: == and != compare text with text, numbers with numbers and bools with bools; here are a number and text."},
		{`identity.scopes == ["a"]`, exchange.Admit, cty.Bool, "1-25 Wrong type: == and != compare text with text, numbers with numbers and bools with bools; here are a list and a list."},
		{`request.path == null`, exchange.Admit, cty.Bool, "17-21 No value: null is no value here: text is needed."},
		{`request.length / 0`, exchange.Admit, cty.Number, "18-19 Division by zero: This is always zero."},
		{`1 / 0`, exchange.Admit, cty.Number, "1-6 Division by zero: This is no number."},
		{`call.stream ? identity.scopes : ["a"]`, exchange.Admit, cty.DynamicPseudoType, "15-30 Wrong type: Only text, numbers and bools can be chosen for each request; this is a list."},
		{`lowr(request.path)`, exchange.Admit, cty.String, `1-5 Unknown function: There is no function "lowr". Did you mean "lower"?`},
		{`env("HOME")`, exchange.Admit, cty.String, `1-4 Unknown function: There is no function "env". There are: contains, startswith, endswith, lower, upper, trim, length, has, matches, cidr_contains, coalesce, min, max.`},
		{`lower(request.path, "a")`, exchange.Admit, cty.String, "1-25 Wrong number of arguments: It is lower(text)."},
		{`contains(targets, "a")`, exchange.Route, cty.Bool, "10-17 Wrong type: contains can not look in a list of objects."},
		{`contains(target, "a")`, exchange.AccountPhase, cty.Bool, "10-16 Wrong type: contains looks in a list or a text; this is an object."},
		{`contains(identity.scopes, 5)`, exchange.Admit, cty.Bool, "27-28 Wrong type: The list holds text; this is a number."},
		{`length(request.length)`, exchange.Admit, cty.Number, "8-22 Wrong type: length is of a text, a list or an object; this is a number."},
		{`has(request.path, "a")`, exchange.Admit, cty.Bool, "5-17 Wrong type: has looks in request.headers, response.headers or attribute."},
		{`has(request.headers, request.path)`, exchange.Admit, cty.Bool, "22-34 Not constant: The name is known when the configuration loads: it can not come from the request."},
		{`matches(request.path, "(")`, exchange.Admit, cty.Bool, "23-26 Invalid pattern: It is no RE2 pattern: missing closing )."},
		{`matches(request.path, request.query)`, exchange.Admit, cty.Bool, "23-36 Not constant: The pattern is known when the configuration loads: it can not come from the request."},
		{`cidr_contains("10.0.0.1/8", request.remote)`, exchange.Admit, cty.Bool, "15-27 Invalid address range: An address range must not have bits beyond its length."},
		{`cidr_contains(request.query, request.remote)`, exchange.Admit, cty.Bool, "15-28 Not constant: An address range is known when the configuration loads: it can not come from the request."},
		{`cidr_contains(identity.scopes, request.remote)`, exchange.Admit, cty.Bool, "15-30 Not constant: An address range is known when the configuration loads."},
		{`[for s in identity.scopes : s]`, exchange.Admit, cty.DynamicPseudoType, "1-31 Not in the language: There is no for and no [*] in expressions: they take the same short time for every request."},
		{`targets[*].model`, exchange.Route, cty.DynamicPseudoType, "1-17 Not in the language: There is no for and no [*] in expressions: they take the same short time for every request."},
		{`"%{ for s in identity.scopes }${s}%{ endfor }"`, exchange.Admit, cty.String, "2-46 Not in the language: There is no for and no [*] in expressions: they take the same short time for every request."},
		{`min(usage.max...)`, exchange.Admit, cty.Number, "1-18 Not in the language: Arguments can not be expanded with an ellipsis."},
		{`{ a = request.path, a = 1 }`, exchange.Admit, cty.DynamicPseudoType, "21-22 Duplicate name: The object has this name already."},
		{`{ (request.path) = 1 }`, exchange.Admit, cty.DynamicPseudoType, "4-16 Not constant: The name of a member is known when the configuration loads: it can not come from the request."},
		{`{ a = targets }`, exchange.Route, cty.Map(cty.String), "7-14 Wrong type: Here text is needed; this is a list."},
		{`{ a = model }`, exchange.Route, cty.Object(map[string]cty.Type{"a": cty.String, "b": cty.String}), `1-14 Missing name: The object must have a "b".`},
		{`{ a = model, c = model }`, exchange.Route, cty.Object(map[string]cty.Type{"a": cty.String}), `18-23 Unknown name: There is no member "c". There are: a.`},
		{`var.nonesuch == request.path`, exchange.Admit, cty.Bool, `4-13 Unsupported attribute: This object does not have an attribute named "nonesuch".`},
		{`secret.token + 1 > request.length`, exchange.Admit, cty.Bool, "1-13 Invalid operand: Unsuitable value for left operand: a number is required."},
		{`has(request.headers, "x") ? lower(1, 2) : "a"`, exchange.Admit, cty.String, "29-35 Error in function call: Call to function \"lower\" failed: it is lower(text)."},
	} {
		e := parse(t, c.text)
		p, diags := Compile(e, scope(c.text, c.phase), c.want)
		if p != nil || len(diags) == 0 {
			t.Errorf("%s: no error", c.text)
			continue
		}
		d := diags[0]
		if got := fmt.Sprintf("%d-%d %s: %s", d.Subject.Start.Column, d.Subject.End.Column, d.Summary, d.Detail); !strings.HasPrefix(got, c.out) {
			t.Errorf("%s\n got %s\nwant %s", c.text, got, c.out)
		}
	}
}

func TestAllErrorsAtOnce(t *testing.T) {
	t.Parallel()
	text := `request.pth == "a" && identity.acount == "b" && matches(model, "(") && request.headers["x"] == 1`
	_, diags := Compile(parse(t, text), scope(text, exchange.Admit), cty.Bool)
	if len(diags) != 4 {
		t.Errorf("got %d: %s", len(diags), diags)
	}
}

func TestRuntimeErrors(t *testing.T) {
	t.Parallel()
	x := sample()
	for text, reason := range map[string]string{
		`request.length / (request.length - 120) > 1`:         "division by zero",
		`request.length % (request.length - 120) == 1`:        "division by zero",
		`identity.scopes[request.length] == ""`:               "there is no element with this index",
		`identity.scopes[-1 + request.length * 0] == ""`:      "there is no element with this index",
		`targets[request.length / 7].healthy`:                 "there is no element with this index",
		`var.limits[request.path] == 1`:                       "there is no member with this name",
		`request.headers["x-tenant"] > 1`:                     "the text is not a number",
		`cidr_contains("::/0", request.headers["x-tenant"])`:  "the text is not an address",
		`request.query == secret.later`:                       ErrUnknown.Error(),
		`matches(request.path, secret.later)`:                 ErrUnknown.Error(),
		`local.broken == request.path`:                        ErrUnknown.Error(),
		`request.length * 1e300 * 1e300 > 1`:                  "the number is too large",
		`!(request.headers["x-tenant"] > 1)`:                  "the text is not a number",
		`request.headers["x-tenant"] > 1 && call.stream`:      "the text is not a number",
		`(request.headers["x-tenant"] > 1 ? true : false)`:    "the text is not a number",
		`contains([targets[9].model, "a"], request.path)`:     "there is no element with this index",
		`"${targets[request.length].model}x" == request.path`: "there is no element with this index",
	} {
		ok, err := compile(t, text, cty.Bool).Bool(x)
		var e *Error
		if ok || !errors.As(err, &e) || e.Reason != reason || e.Range.Filename != "test.hcl" {
			t.Errorf("%s: got %v, %v", text, ok, err)
		}
		p := compile(t, text, cty.Bool)
		if b, err := p.Append([]byte("keep"), x); err == nil || string(b) != "keep" {
			t.Errorf("%s: Append left %q, %v", text, b, err)
		}
	}
}

func TestProgram(t *testing.T) {
	t.Parallel()
	text := `contains(identity.scopes, secret.token) && request.headers["X-A"] == "" && response.usage.input > 0`
	p := compile(t, text, cty.Bool)
	if want := []string{"identity.scopes", `request.headers["x-a"]`, "response.usage.input"}; !slices.Equal(p.Uses(), want) {
		t.Errorf("uses %q", p.Uses())
	}
	if p.Since() != exchange.ResponsePhase || p.Source() != text || p.Range().Start.Line != 1 {
		t.Errorf("since %v, source %q, range %v", p.Since(), p.Source(), p.Range())
	}
	if _, ok := p.Constant(); ok {
		t.Error("is no constant")
	}
	if v, ok := compile(t, `"a${secret.token}"`, cty.String).Constant(); !ok || !secret.Marked(v) {
		t.Errorf("a secret lost its mark: %#v", v)
	}
	if v, ok := compile(t, `lower("A") == "a" ? max(1, 2) : 0`, cty.Number).Constant(); !ok || !v.RawEquals(cty.NumberIntVal(2)) {
		t.Errorf("got %#v", v)
	}
	if v, ok := compile(t, `upper(secret.later)`, cty.String).Constant(); !ok || v.IsKnown() {
		t.Errorf("got %#v", v)
	}
	static, diags := Compile(hcl.StaticExpr(cty.MapValEmpty(cty.String), hcl.Range{Filename: "plugin.hcl"}), Scope{}, cty.Map(cty.String))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if b, err := static.Append(nil, nil); err != nil || fmt.Sprint(value(t, b)) != "map[]" {
		t.Errorf("got %v, %v", b, err)
	}
}

func TestAppendComposite(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want cty.Type
		out  string
	}{
		{`{ model = model, "n" = request.length, (var.tenant) = call.stream }`, cty.Map(cty.String), "map[acme:true model:small n:120]"},
		{`{ model = model, n = request.length }`, cty.Object(map[string]cty.Type{"model": cty.String, "n": cty.Number}), "map[model:small n:120]"},
		{`[request.method, 1, "x"]`, cty.List(cty.String), "[POST 1 x]"},
		{`[request.method, 1.5, { a = [call.stream] }]`, cty.DynamicPseudoType, "[POST 1.5 map[a:[true]]]"},
		{`identity.scopes`, cty.List(cty.String), "[chat:write models:read]"},
		{`target`, cty.DynamicPseudoType, "map[healthy:false model:gpt-x upstream:backup weight:1]"},
		{`targets[0]`, cty.DynamicPseudoType, "map[healthy:true model:gpt-4o-mini upstream:openai weight:3]"},
		{`usage.max`, cty.List(cty.Number), "[1000 0 0 0 0 0 16384 0 0 0 0 0 0]"},
		{`var.name`, cty.DynamicPseudoType, "map[age:36 first:Ada]"},
		{`var.mixed`, cty.List(cty.String), "[a 1]"},
		{`{}`, cty.Map(cty.String), "map[]"},
	} {
		b, err := compile(t, c.text, c.want).Append(nil, sample())
		if err != nil || fmt.Sprint(value(t, b)) != c.out {
			t.Errorf("%s: %v, %v", c.text, value(t, b), err)
		}
	}
}

// TestAttributes reads the whole catalogue, by name and through expressions, also from an empty exchange.
func TestAttributes(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, a := range attribute.All() {
		if seen[a.Name] || a.Summary == "" || !strings.HasSuffix(a.Summary, ".") {
			t.Errorf("%s: twice, or without summary", a.Name)
		}
		seen[a.Name] = true
		found, ok := attribute.Lookup(a.Name)
		if !ok || found.Name != a.Name || found.Since != a.Since {
			t.Errorf("%s is not found", a.Name)
		}
		p := compile(t, a.Name, cty.DynamicPseudoType)
		if p.Since() != a.Since || !slices.Equal(p.Uses(), []string{a.Name}) {
			t.Errorf("%s: since %v, uses %v", a.Name, p.Since(), p.Uses())
		}
		for _, x := range []*exchange.Exchange{sample(), new(exchange.Exchange)} {
			viaProgram, err := p.Append(nil, x)
			if direct := a.Append(nil, x); err != nil || string(direct) != string(viaProgram) {
				t.Errorf("%s: %q and %q, %v", a.Name, direct, viaProgram, err)
			} else {
				value(t, direct)
			}
		}
		if a.Since > 0 {
			if _, diags := Compile(parse(t, a.Name), Scope{Phase: a.Since - 1}, cty.DynamicPseudoType); !diags.HasErrors() {
				t.Errorf("%s can be used at %s", a.Name, a.Since-1)
			}
		}
	}
	for name, want := range map[string]string{
		`attribute["jwt.sub"]`: "alice", `request.headers["X-Tenant"]`: "acme", `request.headers.x-tenant`: "acme", `response.headers["content-type"]`: "text/event-stream",
		"request.remote": "10.1.2.3", "target": "map[healthy:false model:gpt-x upstream:backup weight:1]", "request.host": "api.example.com", "response.usage.cached": "10",
	} {
		a, ok := attribute.Lookup(name)
		if !ok {
			t.Errorf("%s is not found", name)
			continue
		}
		if got := fmt.Sprint(value(t, a.Append(nil, sample()))); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	for _, name := range []string{"", "nope", "identity", "request.headers", "attribute", "request.path.x", "targets[0]", "request.headers[0]", "a b", "${x}"} {
		if a, ok := attribute.Lookup(name); ok {
			t.Errorf("%q is found: %s", name, a.Name)
		}
	}
}

func TestAppendValue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v   cty.Value
		out string
	}{
		{cty.NullVal(cty.String), "<nil>"}, {cty.True, "true"}, {cty.NumberFloatVal(1.5), "1.5"}, {cty.NumberIntVal(-7), "-7"}, {secret.Value("x"), "x"},
		{cty.MustParseNumberVal("9223372036854775807"), "9223372036854775807"}, {cty.MustParseNumberVal("9223372036854775808"), "9.223372036854776e+18"},
		{cty.SetVal([]cty.Value{cty.StringVal("a")}), "[a]"}, {cty.ListValEmpty(cty.String), "[]"},
		{cty.ObjectVal(map[string]cty.Value{"a": cty.TupleVal([]cty.Value{cty.Zero, secret.Value("s")}), "b": cty.NullVal(cty.Bool)}), "map[a:[0 s] b:<nil>]"},
	} {
		b, err := AppendValue(nil, c.v)
		if err != nil || fmt.Sprint(value(t, b)) != c.out {
			t.Errorf("%#v: %x, %v", c.v, b, err)
		}
	}
	deep := cty.StringVal("x")
	for range 40 {
		deep = cty.TupleVal([]cty.Value{deep})
	}
	for _, v := range []cty.Value{secret.Unknown(), cty.TupleVal([]cty.Value{cty.DynamicVal}), deep} {
		if b, err := AppendValue([]byte("keep"), v); err == nil || string(b) != "keep" {
			t.Errorf("%#v: %q, %v", v, b, err)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	if raced {
		t.Skip("the race detector makes pools allocate") // that of the regular expressions
	}
	x := sample()
	for _, text := range []string{
		`request.headers["x-tenant"] == var.tenant`, `contains(identity.scopes, "chat:write")`, `request.remote == "10.1.2.3"`, `cidr_contains("10.0.0.0/8", request.remote)`,
		`request.length > 100 && response.usage.output * 2 >= 110`, `contains(["GET", "POST"], request.method)`, `startswith(request.path, "/v1/")`, `matches(request.path, "^/v[0-9]+/")`,
		`targets[1].model == "gpt-x"`, `coalesce(request.headers["x-absent"], model) == "small"`, `var.limits[request.method] == 5`,
	} {
		p := compile(t, text, cty.Bool)
		if n := testing.AllocsPerRun(100, func() { _, _ = p.Bool(x) }); n != 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
	buffer := make([]byte, 0, 1024)
	for _, text := range []string{`"${identity.account}/${request.length}/${request.remote}"`, `{ model = model, tags = [request.remote, "${model}x"] }`, `targets`} {
		p := compile(t, text, cty.DynamicPseudoType)
		if n := testing.AllocsPerRun(100, func() { _, _ = p.Append(buffer[:0], x) }); n != 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}

func BenchmarkEvaluate(b *testing.B) {
	x := sample()
	for name, text := range map[string]string{
		"equal": `request.headers["x-tenant"] == "acme"`, "scopes": `contains(identity.scopes, "models:read") && request.method == "POST"`, "number": `request.length + 1 > 100`,
	} {
		e, p := parse(b, text), compile(b, text, cty.Bool)
		b.Run(name+"/compiled", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := p.Bool(x); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
		b.Run(name+"/cty", func(b *testing.B) {
			ctx := reference(x) // not counted: only the evaluation is
			b.ReportAllocs()
			for b.Loop() {
				if v, diags := e.Value(ctx); diags.HasErrors() || !v.True() {
					b.Fatal(v, diags)
				}
			}
		})
	}
	p, buffer := compile(b, `"${identity.account}/${model}/${request.length}"`, cty.String), make([]byte, 0, 256)
	b.Run("template/compiled", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = p.Append(buffer[:0], x)
		}
	})
}

package expr

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// reference evaluates as HCL does: names as cty values, functions from cty's library or written here anew.
func reference(x *exchange.Exchange) *hcl.EvalContext {
	texts := func(list []string) cty.Value {
		if len(list) == 0 {
			return cty.ListValEmpty(cty.String)
		}
		var values []cty.Value
		for _, s := range list {
			values = append(values, cty.StringVal(s))
		}
		return cty.ListVal(values)
	}
	headers := func(h exchange.Header) cty.Value {
		object := map[string]cty.Value{}
		for _, name := range headerNames {
			object[name] = cty.StringVal(h.Get(strings.ToLower(name)))
		}
		return cty.ObjectVal(object)
	}
	usage := func(u *exchange.Usage) cty.Value {
		object := map[string]cty.Value{"prompt": cty.NumberIntVal(u.Prompt()), "completion": cty.NumberIntVal(u.Completion()), "estimated": cty.BoolVal(u.Estimated)}
		for i, n := range u.Units {
			object[exchange.Unit(i).String()] = cty.NumberIntVal(n)
		}
		return cty.ObjectVal(object)
	}
	var targets []cty.Value
	for _, t := range x.Call.Targets {
		targets = append(targets, cty.ObjectVal(map[string]cty.Value{
			"upstream": cty.StringVal(t.Upstream), "model": cty.StringVal(t.Model), "weight": cty.NumberIntVal(int64(t.Weight)), "healthy": cty.BoolVal(t.Healthy)}))
	}
	names := map[string]cty.Value{
		"request": cty.ObjectVal(map[string]cty.Value{
			"method": cty.StringVal(x.Request.Method), "path": cty.StringVal(x.Request.Path), "query": cty.StringVal(x.Request.Query),
			"length": cty.NumberIntVal(x.Request.Length), "remote": cty.StringVal(x.Request.Remote.Addr().Unmap().String()), "headers": headers(x.Request.Header),
		}),
		"identity": cty.ObjectVal(map[string]cty.Value{"account": cty.StringVal(x.Identity.Account), "scopes": texts(x.Identity.Scopes)}),
		"model":    cty.StringVal(x.Call.Model),
		"call":     cty.ObjectVal(map[string]cty.Value{"stream": cty.BoolVal(x.Call.Stream)}),
		"usage":    cty.ObjectVal(map[string]cty.Value{"max": usage(&x.Call.Max)}),
		"targets":  cty.TupleVal(targets),
		"response": cty.ObjectVal(map[string]cty.Value{"status": cty.NumberIntVal(int64(x.Response.Status)), "headers": headers(x.Response.Header), "usage": usage(&x.Usage)}),
	}
	for name, v := range loadTime {
		names[name] = v
	}
	two := func(f func(a, b string) bool) function.Function {
		return function.New(&function.Spec{
			Params: []function.Parameter{{Type: cty.String}, {Type: cty.String}}, Type: function.StaticReturnType(cty.Bool),
			Impl: func(v []cty.Value, _ cty.Type) (cty.Value, error) {
				return cty.BoolVal(f(v[0].AsString(), v[1].AsString())), nil
			},
		})
	}
	return &hcl.EvalContext{Variables: names, Functions: map[string]function.Function{
		"contains": function.New(&function.Spec{
			Params: []function.Parameter{{Type: cty.DynamicPseudoType}, {Type: cty.DynamicPseudoType}}, Type: function.StaticReturnType(cty.Bool),
			Impl: func(v []cty.Value, _ cty.Type) (cty.Value, error) {
				if v[0].Type() == cty.String {
					return cty.BoolVal(strings.Contains(v[0].AsString(), v[1].AsString())), nil
				}
				return stdlib.Contains(v[0], v[1])
			},
		}),
		"startswith": two(strings.HasPrefix), "endswith": two(strings.HasSuffix),
		"matches": two(func(text, pattern string) bool { return regexp.MustCompile(pattern).MatchString(text) }),
		"cidr_contains": two(func(prefix, address string) bool {
			return netip.MustParsePrefix(prefix).Contains(netip.MustParseAddr(address))
		}),
		"lower": stdlib.LowerFunc, "upper": stdlib.UpperFunc, "trim": stdlib.TrimSpaceFunc, "min": stdlib.MinFunc, "max": stdlib.MaxFunc,
		"length": function.New(&function.Spec{
			Params: []function.Parameter{{Type: cty.DynamicPseudoType}}, Type: function.StaticReturnType(cty.Number),
			Impl: func(v []cty.Value, _ cty.Type) (cty.Value, error) {
				if v[0].Type() == cty.String {
					return stdlib.Strlen(v[0])
				}
				return stdlib.Length(v[0])
			},
		}),
		"coalesce": function.New(&function.Spec{
			VarParam: &function.Parameter{Type: cty.String}, Type: function.StaticReturnType(cty.String),
			Impl: func(v []cty.Value, _ cty.Type) (cty.Value, error) {
				for _, s := range v {
					if s.AsString() != "" {
						return s, nil
					}
				}
				return cty.StringVal(""), nil
			},
		}),
	}}
}

var headerNames = []string{"x-tenant", "X-Number", "x-absent", "content-type"}

// maker writes random expressions of a type.
type maker struct{ *rand.Rand }

func (m maker) one(list ...string) string { return list[m.IntN(len(list))] }

func (m maker) truth(depth int) string {
	if depth == 0 {
		return m.one("true", "false", "call.stream", "var.debug", "response.usage.estimated", "targets[0].healthy")
	}
	d := depth - 1
	switch m.IntN(13) {
	case 0, 1:
		return fmt.Sprintf("(%s %s %s)", m.text(d), m.one("==", "!="), m.text(d))
	case 2, 3:
		return fmt.Sprintf("(%s + 0 %s 0 + %s)", m.number(d), m.one("==", "!=", "<", "<=", ">", ">="), m.number(d))
	case 4, 5:
		return fmt.Sprintf("(%s %s %s)", m.truth(d), m.one("&&", "||"), m.truth(d))
	case 6:
		return "!" + m.truth(d)
	case 7:
		return fmt.Sprintf("contains(%s, %s)", m.one("identity.scopes", "var.hosts", fmt.Sprintf("[%s, %s]", m.text(d), m.text(d))), m.text(d))
	case 8:
		return fmt.Sprintf("%s(%s, %s)", m.one("contains", "startswith", "endswith"), m.text(d), m.text(d))
	case 9:
		return fmt.Sprintf("matches(%s, %s)", m.text(d), m.one(`"^/v[0-9]"`, `"a.*e$"`, `"[A-Z]{4}"`))
	case 10:
		return fmt.Sprintf("cidr_contains(%s, %s)", m.one(`"10.0.0.0/8"`, `"10.9.0.0/16"`, "var.range"), m.one("request.remote", `"10.9.1.1"`))
	case 11:
		return fmt.Sprintf("(%s ? %s : %s)", m.truth(d), m.truth(d), m.truth(d))
	}
	return fmt.Sprintf("(%s == %s)", m.truth(d), m.truth(d))
}

func (m maker) number(depth int) string {
	if depth == 0 {
		return m.one("0", "1", "2", "0.5", "120", "7.25", "request.length", "response.status", "usage.max.output", "response.usage.prompt", "var.limit",
			"var.two", `request.headers["X-Number"]`, "targets[1].weight", "65537", `var.limits[request.method]`)
	}
	d := depth - 1
	switch m.IntN(9) {
	case 0, 1, 2:
		return fmt.Sprintf("(%s %s %s)", m.number(d), m.one("+", "-", "*"), m.number(d))
	case 3:
		return fmt.Sprintf("(%s / %s)", m.number(d), m.one("2", "4", "-8", "0.5"))
	case 4:
		return fmt.Sprintf("(%s %% %s)", m.number(d), m.one("2", "7", "-3", "request.length"))
	case 5:
		return "-" + m.number(0)
	case 6:
		return fmt.Sprintf("%s(%s, %s)", m.one("min", "max"), m.number(d), m.number(d))
	case 7:
		return fmt.Sprintf("length(%s)", m.one(m.text(d), "identity.scopes", "var.hosts", "var.limits"))
	}
	return fmt.Sprintf("(%s ? %s : %s)", m.truth(d), m.number(d), m.number(d))
}

func (m maker) text(depth int) string {
	if depth == 0 {
		return m.one(`""`, `"a"`, `"POST"`, `"acme"`, "request.method", "request.path", "request.remote", `request.headers["x-tenant"]`, "request.headers.x-absent",
			`response.headers["content-type"]`, "identity.account", "model", "var.tenant", "identity.scopes[0]", "targets[1].upstream", "var.hosts[1]", `var.name.first`)
	}
	d := depth - 1
	switch m.IntN(7) {
	case 0:
		return fmt.Sprintf(`"%s${%s}-${%s}"`, m.one("", "x", "$y"), m.text(d), m.text(d))
	case 1:
		return fmt.Sprintf(`"${%s}/${%s}"`, m.number(d), m.truth(d))
	case 2:
		return fmt.Sprintf("%s(%s)", m.one("lower", "upper", "trim"), m.text(d))
	case 3:
		return fmt.Sprintf("coalesce(%s, %s)", m.text(d), m.text(d))
	case 4:
		return fmt.Sprintf("(%s ? %s : %s)", m.truth(d), m.text(d), m.text(d))
	case 5:
		return fmt.Sprintf(`" %%{ if %s } %s %%{ else }b%%{ endif }"`, m.truth(d), m.one("x", "${request.path}"))
	}
	return fmt.Sprintf("identity.scopes[%s]", m.one("0", "1", "request.length - 120", "5"))
}

// world is a random exchange.
func (m maker) world() *exchange.Exchange {
	x := sample()
	x.Request.Method = m.one("GET", "POST", "DELETE")
	x.Request.Length = int64(m.IntN(130)) - 1
	x.Request.Header.Set("x-number", m.one("3", "-2.5", "1e3", "many", ""))
	x.Request.Header.Set("x-tenant", m.one("acme", "ACME ", "x/y"))
	x.Call.Stream = m.IntN(2) == 0
	x.Identity.Scopes = x.Identity.Scopes[:m.IntN(3)]
	x.Response.Status = 100 + m.IntN(500)
	return x
}

// sameAsHCL holds one random expression to what HCL makes of it.
func sameAsHCL(t *testing.T, seed uint64) {
	m := maker{rand.New(rand.NewPCG(seed, 11))}
	depth := 1 + m.IntN(3)
	text, want := m.truth(depth), cty.Bool
	switch m.IntN(3) {
	case 0:
		text, want = m.text(depth), cty.String
	case 1:
		text, want = m.number(depth), cty.Number
	}
	e, diags := hclsyntax.ParseExpression([]byte(text), "test.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatalf("%s: %s", text, diags)
	}
	p, diags := Compile(e, scope(text, exchange.AccountPhase), want)
	for range 4 {
		x := m.world()
		v, hclDiags := e.Value(reference(x))
		if !hclDiags.HasErrors() {
			var err error
			if v, err = convert.Convert(v, want); err != nil {
				hclDiags = hclDiags.Append(&hcl.Diagnostic{Severity: hcl.DiagError, Summary: err.Error()})
			}
		}
		if diags.HasErrors() {
			// What HCL sees only when it gets there is seen at load: all that may happen here.
			if !strings.Contains(diags.Error(), "is needed") && !strings.Contains(diags.Error(), "== and != compare") && !strings.Contains(diags.Error(), "zero") {
				t.Fatalf("%s: %s", text, diags)
			}
			return
		}
		got, err := p.Append(nil, x)
		if hclDiags.HasErrors() || v.IsNull() {
			if err == nil && !strings.Contains(text, "coalesce(") {
				t.Fatalf("%s is %v; HCL says %s", text, value(t, got), hclDiags)
			}
			continue
		}
		if err != nil {
			if strings.Contains(err.Error(), "division by zero") {
				continue // HCL gives infinity, or for a remainder the dividend
			}
			t.Fatalf("%s: %v; HCL says %#v", text, err, v)
		}
		var agrees bool
		switch got := value(t, got).(type) {
		case bool:
			agrees = want == cty.Bool && got == v.True()
		case string:
			agrees = want == cty.String && got == v.AsString()
		case int64:
			agrees = want == cty.Number && cty.NumberIntVal(got).Equals(v).True()
		case float64:
			f, _ := v.AsBigFloat().Float64()
			agrees = want == cty.Number && got == f
		}
		if !agrees {
			t.Fatalf("seed %d: %s is %v; HCL says %#v (length %d, number %q)", seed, text, value(t, got), v, x.Request.Length, x.Request.Header.Get("x-number"))
		}
	}
}

func TestEqualsHCL(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2000) {
		sameAsHCL(t, seed)
	}
}

func FuzzEqualsHCL(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(sameAsHCL)
}

// FuzzCompile feeds any text: nothing panics, every diagnostic has a place, no secret is shown.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{`request.path == "x"`, `targets[request.length].model`, `{a = request.path, (var.tenant) = [1, "b"]}`, `"${secret.token}"`,
		`contains(usage.max, 1) ? var.limits[model] : -1`, `attribute["a.b"]`, `has(request.headers, "x")`, `secret.n + secret.later`, `local.broken == request.path`,
		`matches(model, secret.token)`, `[for x in y: x]`, `a.*.b`, `request`, `target.weight % 0`, `cidr_contains(secret.token, request.remote)`, `min(1/0)`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, diags := hclsyntax.ParseExpression([]byte(text), "test.hcl", hcl.InitialPos)
		if diags.HasErrors() {
			return
		}
		for _, want := range []cty.Type{cty.Bool, cty.String, cty.Number, cty.Map(cty.String), cty.List(cty.String), cty.DynamicPseudoType} {
			p, diags := Compile(e, scope(text, exchange.AccountPhase), want)
			if (p == nil) != diags.HasErrors() {
				t.Fatalf("%s: program %v, %s", text, p, diags)
			}
			for _, d := range diags {
				if d.Subject == nil || d.EvalContext != nil || strings.Contains(d.Detail, "hunter2-hunter2") && !strings.Contains(text, "hunter2") {
					t.Fatalf("%s: %+v", text, d)
				}
			}
			if p == nil {
				continue
			}
			for _, x := range []*exchange.Exchange{sample(), new(exchange.Exchange)} {
				b, err := p.Append(nil, x)
				if err == nil {
					value(t, b)
				} else if strings.Contains(err.Error(), "hunter2-hunter2") {
					t.Fatal(err)
				}
				switch want {
				case cty.Bool:
					_, _ = p.Bool(x)
				case cty.String:
					s, err := p.String(x)
					b, err2 := p.Append(nil, x)
					if (err == nil) != (err2 == nil) || err == nil && s != value(t, b) {
						t.Fatalf("%s: String %q, %v; Append %q, %v", text, s, err, b, err2)
					}
				}
			}
		}
	})
}

// Package variable evaluates what stands for values when a configuration loads: variables, locals and secrets.
// Its main type is Names.
package variable

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/postern-gateway/postern/gateway/expr"
	"github.com/postern-gateway/postern/gateway/schema"
	"github.com/postern-gateway/postern/gateway/secret"
)

// Outside is what values depend on besides the files.
type Outside struct {
	Values      map[string]string                // -var name=value
	Environment func(name string) (string, bool) // nil: an empty environment
	Secrets     bool                             // read secrets; otherwise they are not known yet
	Elsewhere   bool                             // a secret that can not be read is not known, instead of an error
}

// Names are the evaluated variables, locals and secrets. They evaluate every other expression at load too, and are the
// Reader of schema.Section.
type Names struct {
	*schema.Findings
	Context *hcl.EvalContext // var, local and secret, as far as they are evaluated

	outside   Outside
	variables schema.Register[struct{}]
	locals    schema.Register[local]
	secrets   schema.Register[secret.Source]
}

type local struct {
	attribute *hcl.Attribute
	state     int // 0 not evaluated, 1 under way, 2 done
	value     cty.Value
}

// Evaluate evaluates variables, locals and secrets, in this order, and reports to f.
func Evaluate(f *schema.Findings, blocks hcl.Blocks, outside Outside) *Names {
	if outside.Environment == nil {
		outside.Environment = func(string) (string, bool) { return "", false }
	}
	l := &Names{
		Findings: f, outside: outside,
		Context: &hcl.EvalContext{Functions: expr.Functions(), Variables: map[string]cty.Value{
			"var": cty.EmptyObjectVal, "local": cty.EmptyObjectVal, "secret": cty.EmptyObjectVal,
		}},
		variables: schema.Register[struct{}]{Kind: "variable"},
		locals:    schema.Register[local]{Kind: "local"},
		secrets:   schema.Register[secret.Source]{Kind: "secret"},
	}
	for _, b := range blocks {
		switch b.Type {
		case "variable":
			schema.Declare(f, &l.variables, b)
		case "secret":
			schema.Declare(f, &l.secrets, b)
		case "locals":
			attributes, diags := b.Body.JustAttributes()
			f.Add(diags)
			for _, a := range inOrder(attributes) {
				schema.DeclareAs(f, &l.locals, a.Name, a.NameRange, b)
				if n := l.locals.ByName[a.Name]; n != nil && n.Value.attribute == nil {
					n.Value.attribute = a
				}
			}
		}
	}
	l.variableBlocks()
	for _, n := range l.locals.List {
		l.local(n, nil)
	}
	l.secretBlocks()
	return l
}

// Secrets are the secret blocks: names, places and where each is read from.
func (l *Names) Secrets() []*schema.Named[secret.Source] { return l.secrets.List }

// Unused warns about variables, locals and secrets that nothing refers to.
func (l *Names) Unused() {
	schema.Unused(l.Findings, &l.variables, "var")
	schema.Unused(l.Findings, &l.locals, "local")
	schema.Unused(l.Findings, &l.secrets, "secret")
}

func inOrder(attributes hcl.Attributes) []*hcl.Attribute {
	var list []*hcl.Attribute
	for _, a := range attributes {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b *hcl.Attribute) int { return a.Range.Start.Byte - b.Range.Start.Byte })
	return list
}

func (l *Names) variableBlocks() {
	kind := schema.Main().Find("variable")
	values := map[string]cty.Value{}
	for _, n := range l.variables.List {
		s := schema.Open(l, n.Block, kind)
		s.Text("summary")
		values[n.Name] = l.variable(n.Name, n.At, s)
	}
	l.Context.Variables["var"] = cty.ObjectVal(values)
	for name := range l.outside.Values {
		if l.variables.ByName[name] == nil {
			l.Errorf(schema.StartOf(schema.MainFile), "Unknown variable", "-var gives a value to %q, for which there is no variable block.%s", name, schema.Choices(name, l.variables.Names()))
		}
	}
}

func (l *Names) variable(name string, at hcl.Range, s *schema.Section) cty.Value {
	want := cty.String
	if e := s.Expr("type"); e != nil {
		t, diags := typeexpr.TypeConstraint(e)
		l.Add(diags)
		if diags.HasErrors() {
			return cty.DynamicVal
		}
		want = t
	}
	v, haveDefault := cty.NilVal, false
	if e := s.Expr("default"); e != nil {
		haveDefault = true
		var diags hcl.Diagnostics
		if v, diags = e.Value(nil); diags.HasErrors() {
			l.Errorf(e.Range(), "Invalid default", "The default of a variable is a constant: it can not use other names or functions.")
			v = cty.DynamicVal
		} else if conv, err := convert.Convert(v, want); err != nil || v.IsNull() {
			l.Errorf(e.Range(), "Invalid default", "The default must be a value of the variable's type, %s.", typeexpr.TypeString(want))
			v = cty.DynamicVal
		} else {
			v = conv
		}
	}
	given, from, ok := "", "-var", false
	if given, ok = l.outside.Values[name]; !ok {
		from = "POSTERN_VAR_" + name
		given, ok = l.outside.Environment(from)
	}
	if !ok {
		if !haveDefault {
			l.Errorf(at, "Missing variable", "The variable %q has no default and was given no value. Give one with -var %s=value or the environment variable POSTERN_VAR_%s.", name, name, name)
			return cty.DynamicVal
		}
		return v
	}
	out := cty.StringVal(given)
	if want != cty.String {
		e, diags := hclsyntax.ParseExpression([]byte(given), from, hcl.InitialPos)
		if !diags.HasErrors() {
			out, diags = e.Value(nil)
		}
		if diags.HasErrors() {
			out = cty.NullVal(want)
		}
	}
	out, err := convert.Convert(out, want)
	if err != nil || out.IsNull() {
		l.Errorf(at, "Invalid variable", "The value that %s gives to %q is no %s.", from, name, typeexpr.TypeString(want))
		return cty.DynamicVal
	}
	return out
}

// local evaluates one local after those it uses. path are the locals under way.
func (l *Names) local(n *schema.Named[local], path []string) {
	v := n.Value
	if v.state == 2 {
		return
	}
	if v.state == 1 {
		cycle := path[slices.Index(path, n.Name):]
		l.Errorf(v.attribute.NameRange, "Cycle of locals", "Each of these is defined by the next: %s. Give one of them a value of its own.", "local."+strings.Join(append(cycle, n.Name), ", local."))
		return
	}
	v.state, v.value = 1, cty.DynamicVal
	for _, t := range v.attribute.Expr.Variables() {
		if t.RootName() == "local" && len(t) > 1 {
			if next := l.locals.ByName[schema.Step(t[1])]; next != nil {
				l.local(next, append(path, n.Name))
			}
		}
		if t.RootName() == "secret" {
			l.Errorf(t.SourceRange(), "Secret not allowed", "Locals are evaluated before secrets are read. Write the secret where it is needed.")
			v.state = 2
			return
		}
	}
	known := map[string]cty.Value{}
	for _, other := range l.locals.List {
		if other.Value.state == 2 {
			known[other.Name] = other.Value.value
		} else {
			known[other.Name] = cty.DynamicVal
		}
	}
	l.Context.Variables["local"] = cty.ObjectVal(known)
	if value, ok := l.Value(v.attribute.Expr); ok {
		v.value = value
	}
	v.state = 2
	known[n.Name] = v.value
	l.Context.Variables["local"] = cty.ObjectVal(known)
}

func (l *Names) secretBlocks() {
	kind := schema.Main().Find("secret")
	values := map[string]cty.Value{}
	for _, n := range l.secrets.List {
		s := schema.Open(l, n.Block, kind)
		values[n.Name] = secret.Unknown()
		if s.Set("env") == s.Set("file") {
			l.Errorf(n.Block.DefRange, "Ambiguous secret", "A secret is read from one place: give exactly one of env and file.")
			continue
		}
		source := n.Value
		*source = secret.Source{Env: s.Text("env"), File: s.Text("file")}
		if !l.outside.Secrets || *source == (secret.Source{}) {
			continue
		}
		v, warning, err := source.Read(l.Dir, l.outside.Environment)
		if err != nil && l.outside.Elsewhere {
			continue
		}
		if err != nil {
			l.Errorf(n.At, "Unreadable secret", "The secret %q can not be read: %s.", n.Name, err)
			continue
		}
		if warning != "" {
			l.Warnf(n.At, "Exposed secret", "The secret %q is less well kept than it should be: %s.", n.Name, warning)
		}
		values[n.Name] = secret.Value(v)
	}
	l.Context.Variables["secret"] = cty.ObjectVal(values)
}

// Value evaluates a load-time expression; ok is false when it reported an error.
func (l *Names) Value(e hcl.Expression) (v cty.Value, ok bool) {
	ok = true
	for _, t := range e.Variables() {
		ok = l.Known(t) && ok
	}
	if !ok {
		return cty.DynamicVal, false
	}
	v, diags := e.Value(l.Context)
	l.Add(diags)
	return v, !diags.HasErrors()
}

// Known checks that a name used at load is known, and notes that it is used.
func (l *Names) Known(t hcl.Traversal) bool {
	var kind string
	var names []string
	switch root := t.RootName(); root {
	case "var":
		kind, names = "variable", l.variables.Names()
	case "local":
		kind, names = "local", l.locals.Names()
	case "secret":
		kind, names = "secret", l.secrets.Names()
	case "listener", "plugin", "upstream", "model", "policy", "route":
		l.Errorf(t.SourceRange(), "Invalid value", "A value is expected here, and %s names a block.", root)
		return false
	case "request", "response", "identity", "call", "usage", "target", "targets", "hold", "attribute":
		l.Errorf(t.SourceRange(), "Not known at load", "%s is known only when a request is served, and this is evaluated before that. There are: var, local, secret.", root)
		return false
	default:
		l.Errorf(t.SourceRange(), "Unknown name", "There is nothing called %q. A text is written in quotes; the names are var, local and secret.", root)
		return false
	}
	if len(t) < 2 || schema.Step(t[1]) == "" {
		l.Errorf(t.SourceRange(), "Incomplete name", "Name one %s: %s.name.", kind, t.RootName())
		return false
	}
	name := schema.Step(t[1])
	if !slices.Contains(names, name) {
		l.Errorf(t[:2].SourceRange(), "Unknown name", "There is no %s named %q.%s", kind, name, schema.Choices(name, names))
		return false
	}
	l.Used[t.RootName()+"."+name] = true
	return true
}

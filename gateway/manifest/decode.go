package manifest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// Spec is the schema of the load-time arguments and blocks of a hook's config block. What it decodes is an object with all
// of them: null where nothing was written and there is no default; a block is an object, one that repeats a tuple of
// objects, and labels are members like arguments.
func (m *Manifest) Spec(hook *Hook) hcldec.Spec {
	return spec(slices.Concat(m.Arguments, hook.Arguments), slices.Concat(m.Blocks, hook.Blocks))
}

func spec(arguments []*Argument, blocks []*Block) hcldec.ObjectSpec {
	object := make(hcldec.ObjectSpec)
	for _, a := range arguments {
		if !a.PerRequest {
			object[a.Name] = a.spec()
		}
	}
	for _, b := range blocks {
		nested := spec(b.Arguments, b.Blocks)
		for i, label := range b.Labels {
			nested[label] = &hcldec.BlockLabelSpec{Index: i, Name: label}
		}
		if !b.Repeat {
			object[b.Name] = &hcldec.BlockSpec{TypeName: b.Name, Nested: nested, Required: b.Required}
			continue
		}
		least := 0
		if b.Required {
			least = 1
		}
		object[b.Name] = &hcldec.BlockTupleSpec{TypeName: b.Name, Nested: nested, MinItems: least}
	}
	return object
}

// spec checks what was written and only then reads it, so that a message points at the expression.
func (a *Argument) spec() hcldec.Spec {
	unset := cty.NullVal(a.Type.Cty)
	if a.Default != cty.NilVal {
		unset = a.Default
	}
	read := function.New(&function.Spec{
		Params: []function.Parameter{{
			Name: a.Name, Type: cty.DynamicPseudoType, AllowNull: true, AllowUnknown: true, AllowMarked: true, AllowDynamicType: true,
		}},
		Type: function.StaticReturnType(a.Type.Cty),
		Impl: func(values []cty.Value, _ cty.Type) (cty.Value, error) {
			if values[0].IsNull() {
				return unset, nil
			}
			return a.Type.read(values[0])
		},
	})
	check := func(v cty.Value) hcl.Diagnostics {
		if v.IsNull() {
			if !a.Required {
				return nil
			}
			return hcl.Diagnostics{missing(a)}
		}
		if err := a.check(v); err != nil {
			return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Invalid value", Detail: a.Name + " " + sentence(err)}}
		}
		return nil
	}
	return &hcldec.TransformFuncSpec{
		Wrapped: &hcldec.ValidateSpec{
			Wrapped: &hcldec.AttrSpec{Name: a.Name, Type: cty.DynamicPseudoType, Required: a.Required},
			Func:    check,
		},
		Func: read,
	}
}

// missing says in the words of the HCL library that a is not there, so that the two count as one.
func missing(a *Argument) *hcl.Diagnostic {
	return &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: "Missing required argument",
		Detail: fmt.Sprintf("The argument %q is required, but no definition was found.", a.Name),
	}
}

// check says what is wrong with a value as written, in words that follow the argument's name. The value of a sensitive
// argument, and a marked one, is never among them.
func (a *Argument) check(v cty.Value) error {
	read, err := a.Type.read(v)
	hidden := a.Sensitive || v.ContainsMarked()
	switch {
	case err != nil && hidden && v.Type().IsPrimitiveType():
		return fmt.Errorf("must be %s; its value is not shown", a.Type.noun())
	case err != nil && hidden:
		return fmt.Errorf("must be %s; its value is not shown", a.Type.Name)
	case err != nil:
		return phrase(err)
	}
	if a.Pattern == "" && a.OneOf == nil {
		return nil
	}
	bare, _ := read.UnmarkDeep()
	if !bare.IsKnown() {
		return nil
	}
	var texts []string
	if bare.Type() == cty.String {
		texts = append(texts, bare.AsString())
	} else {
		for _, member := range bare.Elements() {
			if member.IsKnown() {
				texts = append(texts, member.AsString())
			}
		}
	}
	for _, text := range texts {
		if err := a.constrain(text, hidden); err != nil {
			return err
		}
	}
	return nil
}

// sentence ends an error with a full stop, if it does not end a sentence already.
func sentence(err error) string {
	text := err.Error()
	if strings.HasSuffix(text, ".") || strings.HasSuffix(text, "?") {
		return text
	}
	return text + "."
}

// phrase makes an error that begins with its subject, as those of the readers do, follow an argument's name.
func phrase(err error) error {
	if strings.HasPrefix(err.Error(), "must ") {
		return err
	}
	return fmt.Errorf("does not fit: %w", err)
}

// constrain holds one text to pattern and one_of.
func (a *Argument) constrain(text string, hidden bool) error {
	shown := quote(text)
	if hidden {
		shown = "a value that is not shown"
	}
	if a.OneOf != nil && !slices.Contains(a.OneOf, text) {
		hint := Suggest(text, a.OneOf)
		if hidden {
			hint = Suggest("", a.OneOf)
		}
		return fmt.Errorf("can not be %s.%s", shown, hint)
	}
	if a.Pattern != "" {
		// The pattern compiled when the manifest was parsed; \A and \z make it match the whole text whatever its flags.
		if whole, err := regexp.Compile(`\A(?:` + a.Pattern + `)\z`); err != nil || !whole.MatchString(text) {
			return fmt.Errorf("must match the pattern %s, which %s does not", a.Pattern, shown)
		}
	}
	return nil
}

// Decode reads a stage's config block with the load-time names in ctx. config is what Spec decodes, with the types'
// texts read (see Type.Cty). perRequest holds the per-request arguments that are written or have a default, by name, as
// expressions to compile to Argument.Type.Cty. body is nil when the stage has no config block: diagnostics about what is
// then missing have no Subject, and the caller points at the stage. Secrets may be unknown values; they pass.
func (m *Manifest) Decode(hook *Hook, body hcl.Body, ctx *hcl.EvalContext) (config cty.Value, perRequest map[string]hcl.Expression, diags hcl.Diagnostics) {
	none := body == nil
	if none {
		body = new(hclsyntax.Body)
	}
	spec := m.Spec(hook)
	schema := hcldec.ImpliedSchema(spec)
	requested := m.PerRequest(hook)
	for _, a := range requested {
		schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: a.Name, Required: a.Required})
	}
	// In the order of declaration, for messages: a Spec is a map and has none.
	slices.SortFunc(schema.Attributes, func(a, b hcl.AttributeSchema) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(schema.Blocks, func(a, b hcl.BlockHeaderSchema) int { return strings.Compare(a.Type, b.Type) })
	content, nameDiags := body.Content(schema)
	config, _, valueDiags := hcldec.PartialDecode(body, spec, ctx)
	perRequest = make(map[string]hcl.Expression)
	for _, a := range requested {
		if set := content.Attributes[a.Name]; set != nil {
			perRequest[a.Name] = set.Expr
		} else if a.Default != cty.NilVal {
			perRequest[a.Name] = hcl.StaticExpr(a.Default, a.Range)
		}
	}
	seen := make(map[string]bool)
	for _, d := range append(explain(nameDiags, schema), valueDiags...) {
		if none {
			d.Subject, d.Context = nil, nil
		}
		// An evaluation context in a diagnostic would let a printer show secrets.
		d.EvalContext, d.Expression = nil, nil
		if id := fmt.Sprint(d.Summary, d.Detail, d.Subject); !seen[id] {
			seen[id] = true
			diags = append(diags, d)
		}
	}
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int {
		if a.Subject == nil || b.Subject == nil {
			return strings.Compare(a.Detail, b.Detail)
		}
		return a.Subject.Start.Byte - b.Subject.Start.Byte
	})
	return config, perRequest, diags
}

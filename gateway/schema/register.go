package schema

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Register holds the blocks of one kind by name. Blocks are registered before any is read, so that references resolve
// in any order and a faulty block is not unknown as well.
type Register[T any] struct {
	Kind   string // the word references begin with
	List   []*Named[T]
	ByName map[string]*Named[T]
}

// Named is one declared block.
type Named[T any] struct {
	Name  string
	At    hcl.Range // of the name
	Block *hcl.Block
	Value *T
}

// Names are the names in order.
func (r *Register[T]) Names() []string {
	list := make([]string, len(r.List))
	for i, n := range r.List {
		list[i] = n.Name
	}
	return list
}

// Values are the values in order.
func (r *Register[T]) Values() []*T {
	list := make([]*T, len(r.List))
	for i, n := range r.List {
		list[i] = n.Value
	}
	return list
}

// NamePattern is what names of most blocks look like, so that references to them need no quotes.
var (
	NamePattern  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,62}$`)
	modelPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$`)
)

// Declare registers a block by its first label.
func Declare[T any](f *Findings, r *Register[T], b *hcl.Block) {
	if len(b.Labels) > 0 {
		DeclareAs(f, r, b.Labels[0], b.LabelRanges[0], b)
	}
}

// DeclareAs registers a name, once.
func DeclareAs[T any](f *Findings, r *Register[T], name string, at hcl.Range, b *hcl.Block) {
	pattern, must := NamePattern, "a letter, then letters, digits, _ or -, at most 63"
	switch r.Kind {
	case "model":
		pattern, must = modelPattern, "a letter or digit, then letters, digits or . _ : / @ -, at most 128"
	case "test":
		pattern, must = regexp.MustCompile(`^.{1,200}$`), "1 to 200 characters"
	}
	if !pattern.MatchString(name) {
		f.Errorf(at, "Invalid name", "The name of a %s must be %s.", r.Kind, must)
		return
	}
	if first := r.ByName[name]; first != nil {
		f.Errorf(at, "Duplicate name", "There is a %s named %q already, at %s. Choose another name.", r.Kind, name, first.At)
		return
	}
	if r.ByName == nil {
		r.ByName = map[string]*Named[T]{}
	}
	n := &Named[T]{Name: name, At: at, Block: b, Value: new(T)}
	r.ByName[name] = n
	r.List = append(r.List, n)
}

// Refer resolves a reference such as upstream.openai or model["gpt-4.1"].
func Refer[T any](f *Findings, r *Register[T], e hcl.Expression) (*Named[T], bool) {
	if l, ok := e.(*hclsyntax.LiteralValueExpr); ok && !l.Val.IsKnown() {
		return nil, false // a syntax error, reported by the parser
	}
	t, diags := hcl.AbsTraversalForExpr(e)
	var name string
	if !diags.HasErrors() && len(t) == 2 && t.RootName() == r.Kind {
		name = Step(t[1])
	}
	if name == "" {
		hint := "name"
		if len(r.List) > 0 {
			hint = r.List[0].Name
		}
		if given, ok := Literal(e); ok && r.ByName[given] != nil {
			hint = given
		}
		f.Errorf(e.Range(), "Invalid reference", "Refer to one %s, without quotes: %s.", r.Kind, written(r.Kind, hint))
		return nil, false
	}
	n := r.ByName[name]
	if n == nil {
		f.Errorf(e.Range(), "Unknown reference", "There is no %s named %q.%s", r.Kind, name, Choices(name, r.Names()))
		return nil, false
	}
	f.Used[r.Kind+"."+name] = true
	return n, true
}

// ReferAll resolves one reference or a list of them, each at most once.
func ReferAll[T any](f *Findings, r *Register[T], e hcl.Expression) []*T {
	parts, diags := hcl.ExprList(e)
	if diags.HasErrors() {
		parts = []hcl.Expression{e}
	}
	var list []*T
	for _, p := range parts {
		n, ok := Refer(f, r, p)
		if !ok {
			continue
		}
		if slices.Contains(list, n.Value) {
			f.Errorf(p.Range(), "Duplicate reference", "%s is in the list already; remove one of them.", written(r.Kind, n.Name))
			continue
		}
		list = append(list, n.Value)
	}
	return list
}

// written is a reference as one writes it.
func written(kind, name string) string {
	if hclsyntax.ValidIdentifier(name) {
		return kind + "." + name
	}
	return fmt.Sprintf("%s[%q]", kind, name)
}

// Step is the name in .name or ["name"], or "".
func Step(t hcl.Traverser) string {
	switch t := t.(type) {
	case hcl.TraverseAttr:
		return t.Name
	case hcl.TraverseIndex:
		if t.Key.Type() == cty.String && t.Key.IsKnown() && !t.Key.IsNull() {
			return t.Key.AsString()
		}
	}
	return ""
}

// Unused warns about what nothing refers to: it is dead text, or a reference has been forgotten.
func Unused[T any](f *Findings, r *Register[T], prefix string) {
	for _, n := range r.List {
		if !f.Used[prefix+"."+n.Name] {
			f.Warnf(n.At, "Unused "+r.Kind, "Nothing refers to the %s %q. Use it or remove it.", r.Kind, n.Name)
		}
	}
}

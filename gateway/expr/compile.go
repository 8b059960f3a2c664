package expr

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/postern-gateway/postern/gateway/attribute"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/manifest"
)

// compiler turns one expression into nodes. A node of nil stands for a part with an error that was reported.
type compiler struct {
	scope Scope
	uses  map[string]exchange.Phase
	diags hcl.Diagnostics
}

func (c *compiler) failf(at hcl.Range, summary, format string, arguments ...any) *node {
	c.diags = append(c.diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, arguments...), Subject: &at})
	return nil
}

// checkLanguage reports what of HCL the language leaves out, wherever it stands.
func (c *compiler) checkLanguage(e hcl.Expression) {
	syntax, ok := e.(hclsyntax.Node)
	if !ok {
		return
	}
	const summary = "Not in the language"
	_ = hclsyntax.VisitAll(syntax, func(n hclsyntax.Node) hcl.Diagnostics {
		switch n := n.(type) {
		case *hclsyntax.ForExpr, *hclsyntax.TemplateJoinExpr, *hclsyntax.SplatExpr:
			c.failf(n.Range(), summary, "There is no for and no [*] in expressions: they take the same short time for every request.")
		case *hclsyntax.FunctionCallExpr:
			if n.ExpandFinal {
				c.failf(n.Range(), summary, "Arguments can not be expanded with an ellipsis.")
			}
			if _, ok := builtin(n.Name); !ok {
				c.failf(n.NameRange, "Unknown function", "There is no function %q.%s", n.Name, manifest.Suggest(n.Name, functionNames()))
			}
		}
		return nil
	})
}

// isConstant reports whether an expression uses only names that are known at load.
func (c *compiler) isConstant(e hcl.Expression) bool {
	for _, t := range e.Variables() {
		if _, ok := c.scope.Values[t.RootName()]; !ok {
			return false
		}
	}
	return true
}

// fold evaluates an expression that is constant.
func (c *compiler) fold(e hcl.Expression) *node {
	v, diags := e.Value(&hcl.EvalContext{Variables: c.scope.Values, Functions: Functions()})
	for _, d := range diags {
		d.EvalContext, d.Expression = nil, nil // a printer of diagnostics would show values, secrets among them
		if d.Subject == nil {
			d.Subject = e.Range().Ptr()
		}
	}
	c.diags = append(c.diags, diags...)
	if diags.HasErrors() {
		return nil
	}
	if bare, _ := v.Unmark(); bare.Type() == cty.Number && bare.IsKnown() && !bare.IsNull() && bare.AsBigFloat().IsInf() {
		return c.failf(e.Range(), "Division by zero", "This is no number.")
	}
	return constantNode(e.Range(), v)
}

// node compiles an expression.
func (c *compiler) node(e hcl.Expression) *node {
	if c.isConstant(e) {
		return c.fold(e)
	}
	switch e := e.(type) {
	case *hclsyntax.ParenthesesExpr:
		return c.node(e.Expression)
	case *hclsyntax.ObjectConsKeyExpr:
		return c.node(e.Wrapped)
	case *hclsyntax.TemplateWrapExpr:
		return c.node(e.Wrapped)
	case *hclsyntax.TemplateExpr:
		return c.template(e)
	case *hclsyntax.ScopeTraversalExpr:
		return c.traversal(e)
	case *hclsyntax.RelativeTraversalExpr:
		return c.steps(c.node(e.Source), e.Traversal)
	case *hclsyntax.IndexExpr:
		return c.indexed(e)
	case *hclsyntax.FunctionCallExpr:
		return c.call(e)
	case *hclsyntax.ConditionalExpr:
		return c.conditional(e)
	case *hclsyntax.BinaryOpExpr:
		return c.binary(e)
	case *hclsyntax.UnaryOpExpr:
		return c.unary(e)
	case *hclsyntax.TupleConsExpr:
		return c.tuple(e)
	case *hclsyntax.ObjectConsExpr:
		return c.object(e)
	}
	return c.failf(e.Range(), "Not in the language", "This kind of expression can not be evaluated for a request.")
}

// traversal compiles a name and what is picked of it.
func (c *compiler) traversal(e *hclsyntax.ScopeTraversalExpr) *node {
	r := attribute.Resolve(e.Traversal)
	if r.Group != nil {
		return c.failf(e.Range(), "Incomplete name", `%s is not a value itself: write %s["name"].`, r.Group.Name, r.Group.Name)
	}
	if r.Attribute == nil {
		return c.unknownName(e.Traversal)
	}
	return c.steps(c.attribute(e.Range(), r.Attribute), r.Rest)
}

// attribute makes a node for an attribute, if the phase knows it.
func (c *compiler) attribute(at hcl.Range, a *attribute.Attribute) *node {
	if a.Since > c.scope.Phase {
		return c.failf(at, "Used too early", "%s is known from phase %s on; this is evaluated at %s.", a.Name, a.Since, c.scope.Phase)
	}
	c.uses[a.Name] = a.Since
	return attributeNode(at, a)
}

// unknownName says what there is instead of a name that does not exist.
func (c *compiler) unknownName(t hcl.Traversal) *node {
	roots := slices.Sorted(maps.Keys(c.scope.Values))
	var names []string
	name, at := t.RootName(), t[0].SourceRange()
	for _, a := range slices.Concat(attribute.All(), attribute.Groups()) {
		root, _, _ := strings.Cut(a.Name, ".")
		roots = append(roots, root)
		if root == t.RootName() {
			names = append(names, a.Name)
		}
	}
	if names == nil {
		slices.Sort(roots)
		return c.failf(at, "Unknown name", "There is no %q here.%s", name, manifest.Suggest(name, slices.Compact(roots)))
	}
	for _, step := range t[1:] {
		attr, ok := step.(hcl.TraverseAttr)
		if !ok {
			break
		}
		name, at = name+"."+attr.Name, hcl.RangeBetween(at, attr.SrcRange)
	}
	if slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, name+".") }) {
		return c.failf(at, "Incomplete name", "%s is not a value itself.%s", name, manifest.Suggest("", names))
	}
	return c.failf(at, "Unknown name", "There is no %q.%s", name, manifest.Suggest(name, names))
}

// steps applies .name and [constant] to a node.
func (c *compiler) steps(n *node, t hcl.Traversal) *node {
	for _, step := range t {
		if n == nil {
			return nil
		}
		switch step := step.(type) {
		case hcl.TraverseAttr:
			n = c.member(n, step.Name, step.SrcRange)
		case hcl.TraverseIndex:
			n = c.index(n, constantNode(step.SrcRange, step.Key))
		}
	}
	return n
}

// member picks a member of an object by its name.
func (c *compiler) member(n *node, name string, at hcl.Range) *node {
	if n.members == nil {
		return c.failf(at, "Unknown name", "%s has no members.", noun(n.typ))
	}
	if m := n.members[name]; m != nil {
		return m
	}
	return c.failf(at, "Unknown name", "There is no member %q.%s", name, manifest.Suggest(name, slices.Sorted(maps.Keys(n.members))))
}

// indexed compiles collection[key]. The collection may be a group of names; the key is then constant.
func (c *compiler) indexed(e *hclsyntax.IndexExpr) *node {
	if t, ok := e.Collection.(*hclsyntax.ScopeTraversalExpr); ok {
		if r := attribute.Resolve(t.Traversal); r.Group != nil {
			key := c.convert(c.node(e.Key), cty.String)
			switch {
			case key == nil:
				return nil
			case !key.isConstant():
				return c.failf(e.Key.Range(), "Name not constant", "The name in %s[...] is text that is known when the configuration loads.", r.Group.Name)
			}
			name, err := key.text(nil)
			if err != nil {
				name = "?" // not known while validating
			}
			return c.attribute(e.Range(), r.Group.Member(name))
		}
	}
	collection, key := c.node(e.Collection), c.node(e.Key)
	if collection == nil || key == nil {
		return nil
	}
	return c.index(collection, key)
}

// index picks an element of a list, or a member of a map or object.
func (c *compiler) index(n, key *node) *node {
	switch {
	case n.members != nil:
		return c.lookup(n, c.convert(key, cty.String))
	case n.list == nil:
		return c.failf(n.at, "Not a list", "%s has no elements.", noun(n.typ))
	}
	if key = c.convert(key, cty.Number); key == nil {
		return nil
	}
	position := func(x *exchange.Exchange) (int, error) {
		v, err := key.number(x)
		if err == nil && (v.float || v.i < 0 || v.i >= int64(n.list.length(x))) {
			err = &Error{Range: key.at, Reason: "there is no element with this index"}
		}
		return int(v.i), err
	}
	switch l := n.list; {
	case l.texts != nil:
		return textNode(n.at, func(x *exchange.Exchange) (text string, err error) {
			i, err := position(x)
			if err == nil {
				text = l.texts(x)[i]
			}
			return text, err
		})
	case l.units != nil:
		return numberNode(n.at, func(x *exchange.Exchange) (v number, err error) {
			i, err := position(x)
			if err == nil {
				v.i = l.units(x).Units[i]
			}
			return v, err
		})
	case l.targets != nil:
		return targetNode(n.at, func(x *exchange.Exchange) (t *exchange.Target, err error) {
			i, err := position(x)
			if err == nil {
				t = &l.targets(x)[i]
			}
			return t, err
		})
	}
	if key.isConstant() {
		i, err := position(nil)
		if err != nil {
			return c.failf(key.at, "Invalid index", "The list has %d elements, counted from 0.", len(n.list.items))
		}
		return n.list.items[i]
	}
	items := c.unify(n.at, n.list.items)
	if items == nil {
		return nil
	}
	return choice(n.at, items, position)
}

// lookup picks a member by a key that may depend on the exchange.
func (c *compiler) lookup(n, key *node) *node {
	if key == nil {
		return nil
	}
	if key.isConstant() {
		name, err := key.text(nil)
		if err != nil {
			return c.failf(key.at, "Name not known", "The name of a member must be known when the configuration loads.")
		}
		return c.member(n, name, key.at)
	}
	names := slices.Sorted(maps.Keys(n.members))
	members := make([]*node, len(names))
	for i, name := range names {
		members[i] = n.members[name]
	}
	if members = c.unify(n.at, members); members == nil {
		return nil
	}
	return choice(n.at, members, func(x *exchange.Exchange) (int, error) {
		name, err := key.text(x)
		i, ok := slices.BinarySearch(names, name)
		if err == nil && !ok {
			err = &Error{Range: key.at, Reason: "there is no member with this name"}
		}
		return i, err
	})
}

// unify converts bools, numbers and texts to the one type they have in common.
func (c *compiler) unify(at hcl.Range, nodes []*node) []*node {
	var types []cty.Type
	for _, n := range nodes {
		if !n.typ.IsPrimitiveType() {
			c.failf(n.at, "Wrong type", "Only text, numbers and bools can be chosen for each request; this is %s.", noun(n.typ))
			return nil
		}
		types = append(types, n.typ)
	}
	typ, _ := convert.Unify(types)
	if typ == cty.NilType || !typ.IsPrimitiveType() {
		c.failf(at, "Wrong type", "What is chosen from must be all text, all numbers or all bools.")
		return nil
	}
	same := make([]*node, len(nodes))
	for i, n := range nodes {
		if same[i] = c.convert(n, typ); same[i] == nil {
			return nil
		}
	}
	return same
}

// choice makes the node of nodes, which have one type, that pick says.
func choice(at hcl.Range, nodes []*node, pick func(x *exchange.Exchange) (int, error)) *node {
	var n *node
	switch nodes[0].typ {
	case cty.Bool:
		n = boolNode(at, chosenOf(nodes, pick, func(n *node, x *exchange.Exchange) (bool, error) { return n.truth(x) }))
	case cty.Number:
		n = numberNode(at, chosenOf(nodes, pick, func(n *node, x *exchange.Exchange) (number, error) { return n.number(x) }))
	default:
		n = textNode(at, chosenOf(nodes, pick, func(n *node, x *exchange.Exchange) (string, error) { return n.text(x) }))
		n.appendText = func(dst []byte, x *exchange.Exchange) ([]byte, error) {
			i, err := pick(x)
			if err != nil {
				return dst, err
			}
			return nodes[i].appendText(dst, x)
		}
	}
	return n
}

// chosenOf evaluates the node that pick says.
func chosenOf[T any](nodes []*node, pick func(x *exchange.Exchange) (int, error), get func(*node, *exchange.Exchange) (T, error)) func(*exchange.Exchange) (T, error) {
	return func(x *exchange.Exchange) (T, error) {
		i, err := pick(x)
		if err != nil {
			var none T
			return none, err
		}
		return get(nodes[i], x)
	}
}

// conditional compiles condition ? yes : no.
func (c *compiler) conditional(e *hclsyntax.ConditionalExpr) *node {
	condition := c.convert(c.node(e.Condition), cty.Bool)
	yes, no := c.node(e.TrueResult), c.node(e.FalseResult)
	if condition == nil || yes == nil || no == nil {
		return nil
	}
	nodes := c.unify(e.Range(), []*node{yes, no})
	if nodes == nil {
		return nil
	}
	return choice(e.Range(), nodes, then(condition.truth, func(truth bool) int {
		if truth {
			return 0
		}
		return 1
	}))
}

// template compiles "text ${expression}".
func (c *compiler) template(e *hclsyntax.TemplateExpr) *node {
	parts := make([]*node, 0, len(e.Parts))
	for _, part := range e.Parts {
		if n := c.convert(c.node(part), cty.String); n != nil {
			parts = append(parts, n)
		}
	}
	if len(parts) < len(e.Parts) {
		return nil
	}
	return builtNode(e.Range(), func(dst []byte, x *exchange.Exchange) ([]byte, error) {
		for _, part := range parts {
			var err error
			if dst, err = part.appendText(dst, x); err != nil {
				return dst, err
			}
		}
		return dst, nil
	})
}

// tuple compiles [a, b].
func (c *compiler) tuple(e *hclsyntax.TupleConsExpr) *node {
	var items []*node
	var types []cty.Type
	for _, sub := range e.Exprs {
		if n := c.node(sub); n != nil {
			items, types = append(items, n), append(types, n.typ)
		}
	}
	if len(items) < len(e.Exprs) {
		return nil
	}
	return listNode(e.Range(), cty.Tuple(types), items)
}

// object compiles { name = value }.
func (c *compiler) object(e *hclsyntax.ObjectConsExpr) *node {
	members, types := make(map[string]*node), make(map[string]cty.Type)
	before := len(c.diags)
	for _, item := range e.Items {
		// A bare word is a key and no name; in parentheses it is a name.
		name, known := c.constantText(c.node(item.KeyExpr), "The name of a member")
		value := c.node(item.ValueExpr)
		if value == nil || !known {
			if len(c.diags) == before {
				c.failf(item.KeyExpr.Range(), "Name not known", "The name of a member is known also while validating.")
			}
			continue
		}
		if members[name] != nil {
			c.failf(item.KeyExpr.Range(), "Duplicate name", "The object has this name already.")
		}
		members[name], types[name] = value, value.typ
	}
	if len(c.diags) > before {
		return nil
	}
	return objectNode(e.Range(), cty.Object(types), slices.Sorted(maps.Keys(members)), members)
}

// convert makes a node of the type want from n, as HCL converts values, or reports that it is of another type.
func (c *compiler) convert(n *node, want cty.Type) *node {
	if n == nil || want == cty.DynamicPseudoType {
		return n
	}
	if n.isConstant() {
		return c.convertConstant(n, want)
	}
	switch {
	case n.typ.Equals(want):
		return n
	case want == cty.String && n.typ == cty.Number:
		return builtNode(n.at, func(dst []byte, x *exchange.Exchange) ([]byte, error) {
			v, err := n.number(x)
			return v.append(dst), err
		})
	case want == cty.String && n.typ == cty.Bool:
		return textNode(n.at, then(n.truth, strconv.FormatBool))
	case want == cty.Number && n.typ == cty.String:
		bad := &Error{Range: n.at, Reason: "the text is not a number"}
		return numberNode(n.at, func(x *exchange.Exchange) (number, error) {
			text, err := n.text(x)
			if err != nil {
				return number{}, err
			}
			v, ok := parseNumber(text)
			if !ok {
				return v, bad
			}
			return v, nil
		})
	case want.IsListType() && n.list != nil && n.list.items != nil:
		return c.convertItems(n, want)
	case (want.IsMapType() || want.IsObjectType()) && n.members != nil:
		return c.convertMembers(n, want)
	}
	hint := ""
	if want == cty.Bool {
		hint = " Compare it with something."
	}
	return c.failf(n.at, "Wrong type", "Here %s is needed; this is %s.%s", noun(want), noun(n.typ), hint)
}

func (c *compiler) convertConstant(n *node, want cty.Type) *node {
	bare, marks := n.constant.UnmarkDeep()
	if bare.IsNull() {
		return c.failf(n.at, "No value", "null is no value here: %s is needed.", noun(want))
	}
	v, err := convert.Convert(bare, want)
	if err != nil {
		return c.failf(n.at, "Wrong type", "Here %s is needed; this is %s.", noun(want), noun(n.typ))
	}
	return constantNode(n.at, v.WithMarks(marks))
}

func (c *compiler) convertItems(n *node, want cty.Type) *node {
	items := make([]*node, len(n.list.items))
	for i, item := range n.list.items {
		if items[i] = c.convert(item, want.ElementType()); items[i] == nil {
			return nil
		}
	}
	return listNode(n.at, want, items)
}

func (c *compiler) convertMembers(n *node, want cty.Type) *node {
	members := make(map[string]*node)
	names := slices.Sorted(maps.Keys(n.members))
	for _, name := range names {
		var elem cty.Type
		switch {
		case want.IsMapType():
			elem = want.ElementType()
		case want.HasAttribute(name):
			elem = want.AttributeType(name)
		default:
			return c.failf(n.members[name].at, "Unknown name", "There is no member %q.%s", name, manifest.Suggest(name, slices.Sorted(maps.Keys(want.AttributeTypes()))))
		}
		if members[name] = c.convert(n.members[name], elem); members[name] == nil {
			return nil
		}
	}
	if want.IsObjectType() {
		for _, name := range slices.Sorted(maps.Keys(want.AttributeTypes())) {
			if members[name] == nil {
				return c.failf(n.at, "Missing name", "The object must have a %q.", name)
			}
		}
	}
	return objectNode(n.at, want, names, members)
}

// noun describes a type for a message.
func noun(t cty.Type) string {
	switch {
	case t == cty.String:
		return "text"
	case t == cty.Number:
		return "a number"
	case t == cty.Bool:
		return "true or false"
	case t == cty.DynamicPseudoType:
		return "null"
	case t.IsListType(), t.IsTupleType(), t.IsSetType():
		return "a list"
	case t.IsMapType(), t.IsObjectType():
		return "an object"
	}
	return "a " + t.FriendlyName()
}

// unary compiles !a and -a.
func (c *compiler) unary(e *hclsyntax.UnaryOpExpr) *node {
	n := c.convert(c.node(e.Val), e.Op.Type)
	switch {
	case n == nil:
		return nil
	case e.Op == hclsyntax.OpLogicalNot:
		return boolNode(e.Range(), then(n.truth, not))
	}
	return numberNode(e.Range(), then(n.number, func(v number) number {
		v, _ = arithmetic('-', number{}, v) // never too large
		return v
	}))
}

func not(v bool) bool { return !v }

// binary compiles a operator b.
func (c *compiler) binary(e *hclsyntax.BinaryOpExpr) *node {
	a, b := c.node(e.LHS), c.node(e.RHS)
	if a == nil || b == nil {
		return nil
	}
	switch e.Op {
	case hclsyntax.OpEqual:
		return c.equal(e.Range(), a, b)
	case hclsyntax.OpNotEqual:
		n := c.equal(e.Range(), a, b)
		if n == nil {
			return nil
		}
		return boolNode(e.Range(), then(n.truth, not))
	case hclsyntax.OpLogicalAnd, hclsyntax.OpLogicalOr:
		return c.logical(e.Range(), a, b, e.Op == hclsyntax.OpLogicalOr)
	}
	if a, b = c.convert(a, cty.Number), c.convert(b, cty.Number); a == nil || b == nil {
		return nil
	}
	for op, holds := range map[*hclsyntax.Operation]func(order int) bool{
		hclsyntax.OpLessThan:           func(order int) bool { return order < 0 },
		hclsyntax.OpLessThanOrEqual:    func(order int) bool { return order <= 0 },
		hclsyntax.OpGreaterThan:        func(order int) bool { return order > 0 },
		hclsyntax.OpGreaterThanOrEqual: func(order int) bool { return order >= 0 },
	} {
		if e.Op == op {
			return boolNode(e.Range(), pair(a.number, b.number, func(v, w number) bool { return holds(v.compare(w)) }))
		}
	}
	ops := map[*hclsyntax.Operation]byte{
		hclsyntax.OpAdd: '+', hclsyntax.OpSubtract: '-', hclsyntax.OpMultiply: '*', hclsyntax.OpDivide: '/', hclsyntax.OpModulo: '%',
	}
	op, at := ops[e.Op], e.Range()
	if (op == '/' || op == '%') && b.isConstant() {
		if v, err := b.number(nil); err == nil && !v.float && v.i == 0 {
			return c.failf(b.at, "Division by zero", "This is always zero.")
		}
	}
	return numberNode(at, func(x *exchange.Exchange) (number, error) {
		v, err := a.number(x)
		if err != nil {
			return v, err
		}
		w, err := b.number(x)
		if err != nil {
			return w, err
		}
		r, reason := arithmetic(op, v, w)
		if reason != "" {
			err = &Error{Range: at, Reason: reason}
		}
		return r, err
	})
}

// logical compiles && and ||. Where one side decides, an error of the other does not count, as in HCL: so the order in
// which they are written makes no difference to the result.
func (c *compiler) logical(at hcl.Range, a, b *node, deciding bool) *node {
	if a, b = c.convert(a, cty.Bool), c.convert(b, cty.Bool); a == nil || b == nil {
		return nil
	}
	return boolNode(at, func(x *exchange.Exchange) (bool, error) {
		v, err := a.truth(x)
		if err == nil && v == deciding {
			return deciding, nil
		}
		w, err2 := b.truth(x)
		switch {
		case err2 == nil && w == deciding:
			return deciding, nil
		case err != nil:
			return false, err
		}
		return w, err2
	})
}

// equal compiles a == b for bools, numbers and texts of one type.
func (c *compiler) equal(at hcl.Range, a, b *node) *node {
	// What is not even known in type, as a secret while validating, takes the type of the other side.
	if a.typ == cty.DynamicPseudoType {
		a = c.convert(a, b.typ)
	} else if b.typ == cty.DynamicPseudoType {
		b = c.convert(b, a.typ)
	}
	if a == nil || b == nil {
		return nil
	}
	if a.typ != b.typ || !a.typ.IsPrimitiveType() {
		return c.failf(at, "Wrong type", "== and != compare text with text, numbers with numbers and bools with bools; here are %s and %s.", noun(a.typ), noun(b.typ))
	}
	switch a.typ {
	case cty.Bool:
		return boolNode(at, pair(a.truth, b.truth, func(v, w bool) bool { return v == w }))
	case cty.Number:
		return boolNode(at, pair(a.number, b.number, func(v, w number) bool { return v.compare(w) == 0 }))
	}
	if n := equalAddress(at, a, b); n != nil {
		return n
	}
	if n := equalAddress(at, b, a); n != nil {
		return n
	}
	return boolNode(at, pair(a.text, b.text, func(v, w string) bool { return v == w }))
}

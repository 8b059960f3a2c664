package expr

import (
	"errors"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/postern-gateway/postern/gateway/attribute"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/manifest"
)

// Function is one function of the language.
type Function struct {
	Name    string
	Usage   string // how it is called, such as startswith(text, prefix)
	Result  cty.Type
	Summary string

	least, most int // arguments; most 0: any number
	compile     compileCall
}

// compileCall makes the node of a call at a place with compiled arguments.
type compileCall func(c *compiler, at hcl.Range, args []*node) *node

// FunctionList lists the functions of the language in the order of the documentation.
func FunctionList() []*Function {
	return []*Function{
		{"contains", "contains(list, value) or contains(text, part)", cty.Bool, "Whether a list has the value, or a text the part.", 2, 2, (*compiler).contains},
		{"startswith", "startswith(text, prefix)", cty.Bool, "Whether text begins with prefix.", 2, 2, compare(strings.HasPrefix)},
		{"endswith", "endswith(text, suffix)", cty.Bool, "Whether text ends with suffix.", 2, 2, compare(strings.HasSuffix)},
		{"lower", "lower(text)", cty.String, "The text in lower case.", 1, 1, change(strings.ToLower)},
		{"upper", "upper(text)", cty.String, "The text in upper case.", 1, 1, change(strings.ToUpper)},
		{"trim", "trim(text)", cty.String, "The text without white space at its ends.", 1, 1, change(strings.TrimSpace)},
		{"length", "length(value)", cty.Number, "How many characters a text, elements a list or members an object has.", 1, 1, (*compiler).length},
		{"has", `has(request.headers, "name")`, cty.Bool, "Whether there is such a header, or attribute, be it empty.", 2, 2, nil},
		{"matches", "matches(text, pattern)", cty.Bool, "Whether the RE2 pattern matches somewhere in text; ^ and $ tie it to the ends. The pattern is constant.", 2, 2, (*compiler).matches},
		{"cidr_contains", "cidr_contains(range, address)", cty.Bool, "Whether the address is in the range, or in one of a list of them. Ranges are constant; text that is no address is an error.", 2, 2, (*compiler).cidrContains},
		{"coalesce", "coalesce(text, ...)", cty.String, "The first text that is not empty; empty when all are.", 1, 0, (*compiler).coalesce},
		{"min", "min(number, ...)", cty.Number, "The least number.", 1, 0, extreme(-1)},
		{"max", "max(number, ...)", cty.Number, "The greatest number.", 1, 0, extreme(1)},
	}
}

func builtin(name string) (*Function, bool) {
	for _, f := range FunctionList() {
		if f.Name == name {
			return f, true
		}
	}
	return nil, false
}

func functionNames() []string {
	var names []string
	for _, f := range FunctionList() {
		names = append(names, f.Name)
	}
	return names
}

// Functions are the functions of the language for expressions that are evaluated at load, as locals are: what is compiled
// for requests, run once.
func Functions() map[string]function.Function {
	table := make(map[string]function.Function)
	for _, f := range FunctionList() {
		if f.compile != nil { // has: without a request there is nothing to have
			table[f.Name] = f.load()
		}
	}
	return table
}

func (f *Function) load() function.Function {
	return function.New(&function.Spec{
		VarParam: &function.Parameter{Name: "value", Type: cty.DynamicPseudoType},
		Type:     function.StaticReturnType(f.Result),
		Impl: func(values []cty.Value, _ cty.Type) (cty.Value, error) {
			if !f.takes(len(values)) {
				return cty.NilVal, errors.New("it is " + f.Usage)
			}
			args := make([]*node, len(values))
			for i, v := range values {
				if !v.IsWhollyKnown() {
					return cty.UnknownVal(f.Result), nil
				}
				args[i] = constantNode(hcl.Range{}, v)
			}
			c := new(compiler)
			n := f.compile(c, hcl.Range{}, args)
			if n == nil {
				return cty.NilVal, errors.New(strings.TrimRight(c.diags[0].Detail, "."))
			}
			v, err := n.value()
			var reason *Error
			if errors.As(err, &reason) {
				return cty.NilVal, errors.New(reason.Reason)
			}
			return v, err
		},
	})
}

func (f *Function) takes(arguments int) bool {
	return arguments >= f.least && (f.most == 0 || arguments <= f.most)
}

// call compiles a function call.
func (c *compiler) call(e *hclsyntax.FunctionCallExpr) *node {
	f, _ := builtin(e.Name) // checkLanguage knows it exists
	if !f.takes(len(e.Args)) {
		return c.failf(e.Range(), "Wrong number of arguments", "It is %s.", f.Usage)
	}
	if f.compile == nil {
		return c.has(e)
	}
	args := make([]*node, len(e.Args))
	broken := false
	for i, arg := range e.Args {
		args[i] = c.node(arg)
		broken = broken || args[i] == nil
	}
	if broken {
		return nil
	}
	return f.compile(c, e.Range(), args)
}

// compare makes a function that tells something about two texts.
func compare(test func(a, b string) bool) compileCall {
	return func(c *compiler, at hcl.Range, args []*node) *node {
		a, b := c.convert(args[0], cty.String), c.convert(args[1], cty.String)
		if a == nil || b == nil {
			return nil
		}
		return boolNode(at, pair(a.text, b.text, test))
	}
}

// change makes a function from text to text.
func change(f func(string) string) compileCall {
	return func(c *compiler, at hcl.Range, args []*node) *node {
		a := c.convert(args[0], cty.String)
		if a == nil {
			return nil
		}
		return textNode(at, then(a.text, f))
	}
}

func (c *compiler) contains(at hcl.Range, args []*node) *node {
	in, what := args[0], args[1]
	switch {
	case in.list == nil && in.typ.IsPrimitiveType():
		return compare(strings.Contains)(c, at, args)
	case in.list == nil:
		return c.failf(in.at, "Wrong type", "contains looks in a list or a text; this is %s.", noun(in.typ))
	case in.list.targets != nil:
		return c.failf(in.at, "Wrong type", "contains can not look in a list of objects.")
	case in.list.texts != nil:
		if what = c.sameType(what, cty.String); what == nil {
			return nil
		}
		return boolNode(at, func(x *exchange.Exchange) (bool, error) {
			v, err := what.text(x)
			return err == nil && slices.Contains(in.list.texts(x), v), err
		})
	case in.list.units != nil:
		if what = c.sameType(what, cty.Number); what == nil {
			return nil
		}
		return boolNode(at, func(x *exchange.Exchange) (bool, error) {
			v, err := what.number(x)
			return err == nil && !v.float && slices.Contains(in.list.units(x).Units[:], v.i), err
		})
	}
	// A list written out is a row of comparisons. None is left out, so that an error in any counts.
	var equals []*node
	for _, item := range in.list.items {
		n := c.equal(item.at, item, what)
		if n == nil {
			return nil
		}
		equals = append(equals, n)
	}
	return boolNode(at, func(x *exchange.Exchange) (bool, error) {
		found := false
		for _, n := range equals {
			v, err := n.truth(x)
			if err != nil {
				return false, err
			}
			found = found || v
		}
		return found, nil
	})
}

// sameType is convert without conversion between text and numbers, which would hide a mistake.
func (c *compiler) sameType(n *node, want cty.Type) *node {
	if n.typ != want && n.typ != cty.DynamicPseudoType {
		return c.failf(n.at, "Wrong type", "The list holds %s; this is %s.", noun(want), noun(n.typ))
	}
	return c.convert(n, want)
}

func (c *compiler) length(at hcl.Range, args []*node) *node {
	n := args[0]
	switch {
	case n.list != nil:
		return numberNode(at, func(x *exchange.Exchange) (number, error) { return whole64(int64(n.list.length(x))), nil })
	case n.members != nil:
		return constantNode(at, cty.NumberIntVal(int64(len(n.members))))
	case n.typ != cty.String:
		return c.failf(n.at, "Wrong type", "length is of a text, a list or an object; this is %s.", noun(n.typ))
	}
	return numberNode(at, then(n.text, func(v string) number { return whole64(int64(utf8.RuneCountInString(v))) }))
}

// has compiles has(group, "name"). The group is not a value, so it is looked at as it is written.
func (c *compiler) has(e *hclsyntax.FunctionCallExpr) *node {
	t, ok := e.Args[0].(*hclsyntax.ScopeTraversalExpr)
	var g *attribute.Attribute
	if ok {
		g = attribute.Resolve(t.Traversal).Group
	}
	if g == nil {
		return c.failf(e.Args[0].Range(), "Wrong type", "has looks in request.headers, response.headers or attribute.")
	}
	before := len(c.diags)
	name, ok := c.constantText(c.node(e.Args[1]), "The name")
	if !ok && len(c.diags) == before {
		return later(e.Range())
	}
	if c.attribute(e.Args[0].Range(), g.Member(name)) == nil || !ok {
		return nil
	}
	find := g.Find(name)
	return boolNode(e.Range(), func(x *exchange.Exchange) (bool, error) { _, ok := find(x); return ok, nil })
}

// constantText is the text of an argument that must be constant. ok is false when it is not, which is reported, and also
// when it is not known yet, which is not.
func (c *compiler) constantText(n *node, what string) (text string, ok bool) {
	n = c.convert(n, cty.String)
	switch {
	case n == nil:
		return "", false
	case !n.isConstant():
		c.failf(n.at, "Not constant", "%s is known when the configuration loads: it can not come from the request.", what)
		return "", false
	}
	text, err := n.text(nil)
	return text, err == nil
}

// later is a bool that has no value because something constant in it is not known while validating.
func later(at hcl.Range) *node {
	return constantNode(at, cty.UnknownVal(cty.Bool))
}

func (c *compiler) matches(at hcl.Range, args []*node) *node {
	before := len(c.diags)
	in := c.convert(args[0], cty.String)
	pattern, ok := c.constantText(args[1], "The pattern")
	switch {
	case in == nil || len(c.diags) > before:
		return nil
	case !ok:
		return later(at)
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return c.failf(args[1].at, "Invalid pattern", "It is no RE2 pattern%s.", patternReason(err))
	}
	return boolNode(at, then(in.text, re.MatchString))
}

// patternReason says what is wrong with a pattern without quoting it.
func patternReason(err error) string {
	var reason *syntax.Error
	if errors.As(err, &reason) {
		return ": " + reason.Code.String()
	}
	return ""
}

func (c *compiler) cidrContains(at hcl.Range, args []*node) *node {
	in, before := []*node{args[0]}, len(c.diags)
	if args[0].list != nil {
		in = args[0].list.items
		if args[0].list.items == nil {
			return c.failf(args[0].at, "Not constant", "An address range is known when the configuration loads.")
		}
	}
	var prefixes []netip.Prefix
	unknown := false
	for _, n := range in {
		text, ok := c.constantText(n, "An address range")
		if !ok {
			unknown = true
			continue
		}
		prefix, err := manifest.ParseCIDR(text)
		if err != nil {
			c.failf(n.at, "Invalid address range", "An address range %s.", err)
			continue
		}
		prefixes = append(prefixes, prefix)
	}
	what := c.convert(args[1], cty.String)
	switch {
	case what == nil || len(c.diags) > before:
		return nil
	case unknown:
		return later(at)
	}
	bad := &Error{Range: what.at, Reason: "the text is not an address"}
	address := func(x *exchange.Exchange) (netip.Addr, error) {
		text, err := what.text(x)
		if err != nil {
			return netip.Addr{}, err
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return a, bad
		}
		return a, nil
	}
	if what.address != nil {
		address = func(x *exchange.Exchange) (netip.Addr, error) {
			a := what.address(x)
			if !a.IsValid() {
				return a, bad
			}
			return a, nil
		}
	}
	return boolNode(at, then(address, func(a netip.Addr) bool { return within(prefixes, a) }))
}

func within(prefixes []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// equalAddress compares an address with a constant text without making text of the address; nil when it can not.
func equalAddress(at hcl.Range, a, constant *node) *node {
	if a.address == nil || !constant.isConstant() {
		return nil
	}
	text, err := constant.text(nil)
	if err != nil {
		return nil
	}
	want, err := netip.ParseAddr(text)
	if err != nil || want.String() != text {
		return nil
	}
	return boolNode(at, func(x *exchange.Exchange) (bool, error) { return a.address(x) == want, nil })
}

func (c *compiler) coalesce(at hcl.Range, args []*node) *node {
	var nodes []*node
	for _, arg := range args {
		n := c.convert(arg, cty.String)
		if n == nil {
			return nil
		}
		nodes = append(nodes, n)
	}
	return textNode(at, func(x *exchange.Exchange) (string, error) {
		for _, n := range nodes {
			if v, err := n.text(x); err != nil || v != "" {
				return v, err
			}
		}
		return "", nil
	})
}

// extreme makes min (sign -1) and max (sign 1).
func extreme(sign int) compileCall {
	return func(c *compiler, at hcl.Range, args []*node) *node {
		var nodes []*node
		for _, arg := range args {
			n := c.convert(arg, cty.Number)
			if n == nil {
				return nil
			}
			nodes = append(nodes, n)
		}
		return numberNode(at, func(x *exchange.Exchange) (number, error) {
			best, err := nodes[0].number(x)
			for _, n := range nodes[1:] {
				v, more := n.number(x)
				if err == nil {
					err = more
				}
				if v.compare(best) == sign {
					best = v
				}
			}
			return best, err
		})
	}
}

package expr

import (
	"net/netip"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/attribute"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/sdk/abi"
)

type (
	truther  func(x *exchange.Exchange) (bool, error)
	numberer func(x *exchange.Exchange) (number, error)
	texter   func(x *exchange.Exchange) (string, error)
	appender func(dst []byte, x *exchange.Exchange) ([]byte, error)
)

// node is a compiled part of an expression. What is set of it depends on its type.
type node struct {
	typ      cty.Type
	at       hcl.Range
	constant cty.Value // with its marks; cty.NilVal for what depends on the exchange

	truth      truther  // of a bool
	number     numberer // of a number
	text       texter   // of text; what is put together is also allocated
	appendText appender // of text: its octets

	address func(x *exchange.Exchange) netip.Addr // of text that is the text of an address

	list    *list            // of a list
	members map[string]*node // of an object or map

	append appender // the value in the encoding of sdk/abi
}

// list is how the elements of a list are reached: exactly one is set.
type list struct {
	items   []*node
	texts   func(x *exchange.Exchange) []string
	units   func(x *exchange.Exchange) *exchange.Usage
	targets func(x *exchange.Exchange) []exchange.Target
}

func (l *list) length(x *exchange.Exchange) int {
	switch {
	case l.texts != nil:
		return len(l.texts(x))
	case l.units != nil:
		return int(exchange.UnitCount)
	case l.targets != nil:
		return len(l.targets(x))
	}
	return len(l.items)
}

func (n *node) isConstant() bool { return n.constant != cty.NilVal }

// value is what the node has without an exchange, which it must not depend on.
func (n *node) value() (cty.Value, error) {
	switch n.typ {
	case cty.Bool:
		v, err := n.truth(nil)
		return cty.BoolVal(v), err
	case cty.String:
		v, err := n.text(nil)
		return cty.StringVal(v), err
	}
	v, err := n.number(nil)
	if v.float {
		return cty.NumberFloatVal(v.f), err
	}
	return cty.NumberIntVal(v.i), err
}

// boolNode, numberNode and textNode make nodes of what is computed.
func boolNode(at hcl.Range, f truther) *node {
	return &node{typ: cty.Bool, at: at, truth: f, append: func(dst []byte, x *exchange.Exchange) ([]byte, error) {
		v, err := f(x)
		return abi.AppendBool(dst, v), err
	}}
}

func numberNode(at hcl.Range, f numberer) *node {
	return &node{typ: cty.Number, at: at, number: f, append: func(dst []byte, x *exchange.Exchange) ([]byte, error) {
		v, err := f(x)
		return appendNumber(dst, v), err
	}}
}

func textNode(at hcl.Range, f texter) *node {
	return &node{
		typ: cty.String, at: at, text: f,
		appendText: func(dst []byte, x *exchange.Exchange) ([]byte, error) {
			v, err := f(x)
			return append(dst, v...), err
		},
		append: func(dst []byte, x *exchange.Exchange) ([]byte, error) {
			v, err := f(x)
			return abi.AppendString(dst, v), err
		},
	}
}

// builtNode makes a node of text that is put together, from what appends it.
func builtNode(at hcl.Range, f appender) *node {
	return &node{
		typ: cty.String, at: at, appendText: f,
		text: func(x *exchange.Exchange) (string, error) {
			b, err := f(make([]byte, 0, 64), x)
			return string(b), err
		},
		append: func(dst []byte, x *exchange.Exchange) ([]byte, error) {
			at := len(dst)
			dst, err := f(abi.AppendString(dst, ""), x)
			if err != nil {
				return dst, err
			}
			return sized(dst, at), nil
		},
	}
}

// then applies f to what get gives.
func then[T, R any](get func(*exchange.Exchange) (T, error), f func(T) R) func(*exchange.Exchange) (R, error) {
	return func(x *exchange.Exchange) (r R, err error) {
		v, err := get(x)
		if err == nil {
			r = f(v)
		}
		return r, err
	}
}

// pair applies f to what a and b give.
func pair[T, R any](a, b func(*exchange.Exchange) (T, error), f func(v, w T) R) func(*exchange.Exchange) (R, error) {
	return func(x *exchange.Exchange) (r R, err error) {
		v, err := a(x)
		if err != nil {
			return r, err
		}
		w, err := b(x)
		if err == nil {
			r = f(v, w)
		}
		return r, err
	}
}

// listNode makes a list of nodes.
func listNode(at hcl.Range, typ cty.Type, items []*node) *node {
	return &node{typ: typ, at: at, list: &list{items: items}, append: func(dst []byte, x *exchange.Exchange) ([]byte, error) {
		dst = abi.AppendList(dst, len(items))
		for _, item := range items {
			var err error
			if dst, err = item.append(dst, x); err != nil {
				return dst, err
			}
		}
		return dst, nil
	}}
}

// objectNode makes an object or map of nodes; names are its keys in order.
func objectNode(at hcl.Range, typ cty.Type, names []string, members map[string]*node) *node {
	values := make([]*node, len(names))
	for i, name := range names {
		values[i] = members[name]
	}
	return &node{typ: typ, at: at, members: members, append: func(dst []byte, x *exchange.Exchange) ([]byte, error) {
		dst = abi.AppendObject(dst, len(names))
		for i, name := range names {
			var err error
			if dst, err = values[i].append(abi.AppendKey(dst, name), x); err != nil {
				return dst, err
			}
		}
		return dst, nil
	}}
}

// attributeNode reads an attribute.
func attributeNode(at hcl.Range, a *attribute.Attribute) *node {
	n := &node{}
	switch r := &a.Read; {
	case r.Text != nil:
		n = textNode(at, func(x *exchange.Exchange) (string, error) { return r.Text(x), nil })
	case r.Number != nil:
		n = numberNode(at, func(x *exchange.Exchange) (number, error) { return whole64(r.Number(x)), nil })
	case r.Truth != nil:
		n = boolNode(at, func(x *exchange.Exchange) (bool, error) { return r.Truth(x), nil })
	case r.Address != nil:
		n = builtNode(at, func(dst []byte, x *exchange.Exchange) ([]byte, error) {
			if v := r.Address(x); v.IsValid() {
				dst = v.AppendTo(dst)
			}
			return dst, nil
		})
		n.address = r.Address
	case r.Target != nil:
		n = targetNode(at, func(x *exchange.Exchange) (*exchange.Target, error) { return r.Target(x), nil })
	default:
		n.list = &list{texts: r.Texts, units: r.Usage, targets: r.Targets}
	}
	n.typ, n.at = a.Type, at
	n.append = func(dst []byte, x *exchange.Exchange) ([]byte, error) { return a.Append(dst, x), nil }
	return n
}

// The members of a target are empty when get gives none, and the whole is null.
func targetNode(at hcl.Range, get func(x *exchange.Exchange) (*exchange.Target, error)) *node {
	none := new(exchange.Target)
	read := func(x *exchange.Exchange) (*exchange.Target, error) {
		t, err := get(x)
		if t == nil {
			t = none
		}
		return t, err
	}
	return &node{
		typ: attribute.TargetType(), at: at,
		members: map[string]*node{
			"healthy":  boolNode(at, func(x *exchange.Exchange) (bool, error) { t, err := read(x); return t.Healthy, err }),
			"model":    textNode(at, func(x *exchange.Exchange) (string, error) { t, err := read(x); return t.Model, err }),
			"upstream": textNode(at, func(x *exchange.Exchange) (string, error) { t, err := read(x); return t.Upstream, err }),
			"weight":   numberNode(at, func(x *exchange.Exchange) (number, error) { t, err := read(x); return whole64(int64(t.Weight)), err }),
		},
		append: func(dst []byte, x *exchange.Exchange) ([]byte, error) {
			t, err := get(x)
			if t == nil {
				return abi.AppendNull(dst), err
			}
			return attribute.AppendTarget(dst, t), err
		},
	}
}

// constantNode makes a node of a value that was known at load, or will be when the configuration is loaded to run.
func constantNode(at hcl.Range, v cty.Value) *node {
	bare, marks := v.UnmarkDeep()
	n := &node{typ: bare.Type(), at: at, constant: v}
	encoded, err := AppendValue(nil, bare)
	if err != nil {
		err = &Error{Range: at, Reason: err.Error()}
	}
	n.append = func(dst []byte, _ *exchange.Exchange) ([]byte, error) { return append(dst, encoded...), err }
	known := bare.IsKnown() && !bare.IsNull()
	var text string
	switch {
	case n.typ == cty.Bool:
		truth := known && bare.True()
		n.truth = func(*exchange.Exchange) (bool, error) { return truth, err }
	case n.typ == cty.Number:
		var value number
		if known {
			value = fromBig(bare.AsBigFloat())
		}
		n.number = func(*exchange.Exchange) (number, error) { return value, err }
	case n.typ == cty.String:
		if known {
			text = bare.AsString()
		}
		n.text = func(*exchange.Exchange) (string, error) { return text, err }
		n.appendText = func(dst []byte, _ *exchange.Exchange) ([]byte, error) { return append(dst, text...), err }
	case known && (n.typ.IsListType() || n.typ.IsTupleType() || n.typ.IsSetType()):
		n.list = &list{items: []*node{}}
		for _, item := range bare.Elements() {
			n.list.items = append(n.list.items, constantNode(at, item.WithMarks(marks)))
		}
	case known && (n.typ.IsMapType() || n.typ.IsObjectType()):
		n.members = make(map[string]*node)
		for key, member := range bare.Elements() {
			n.members[key.AsString()] = constantNode(at, member.WithMarks(marks))
		}
	}
	return n
}

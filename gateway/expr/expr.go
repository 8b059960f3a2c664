// Package expr is request-time expressions: type-checked when the configuration loads, compiled to closures that neither
// allocate nor know HCL. Its main type is Program.
//
// What a Program computes equals what HCL would, with these differences, all of them on purpose:
//
//   - Numbers are int64 where they are whole and fit, else float64; HCL computes with 512 bits. Division by zero is an
//     error.
//   - Text is compared octet by octet; HCL normalises text first, which the upstream would not.
//   - Types are known when the configuration loads: comparing text with a number is an error there, not false.
//   - Nothing is null: what a request does not have is "". coalesce evaluates no further than it needs.
package expr

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Scope is what an expression may use.
type Scope struct {
	Phase   exchange.Phase       // when it is evaluated: names that are known only later are errors
	Values  map[string]cty.Value // load-time names: var, local, secret
	Sources map[string][]byte    // the files' texts by name, for Program.Source; may be nil
}

// Program is one compiled expression. It does not change and is safe for concurrent use.
type Program struct {
	root   *node
	value  []byte // of a constant, in the encoding of sdk/abi
	source string
	at     hcl.Range
	since  exchange.Phase
	uses   []string
}

// Error is why an expression has no value for an exchange. It never holds the values it was about.
type Error struct {
	Range  hcl.Range // the part of the expression
	Reason string
}

// Error returns place and reason.
func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Range, e.Reason) }

// Compile checks e and compiles it to a program whose value has the type want (cty.DynamicPseudoType: its own type).
// It reports all errors, each where it is; the program is nil when there is one.
func Compile(e hcl.Expression, scope Scope, want cty.Type) (*Program, hcl.Diagnostics) {
	c := &compiler{scope: scope, uses: make(map[string]exchange.Phase)}
	c.checkLanguage(e)
	if c.diags.HasErrors() {
		return nil, c.diags
	}
	root := c.convert(c.node(e), want)
	if root == nil || c.diags.HasErrors() {
		return nil, c.diags
	}
	p := &Program{root: root, at: e.Range()}
	if text := scope.Sources[p.at.Filename]; p.at.CanSliceBytes(text) {
		p.source = string(p.at.SliceBytes(text))
	}
	for name, since := range c.uses {
		p.uses = append(p.uses, name)
		p.since = max(p.since, since)
	}
	slices.Sort(p.uses)
	if root.isConstant() {
		if value, err := root.append(nil, nil); err == nil {
			p.value = value
		}
	}
	return p, c.diags
}

// Bool evaluates a program compiled with cty.Bool. Its errors, like those of all evaluations, are *Error, and
// panic is what a program of another type gives: a programming error.
func (p *Program) Bool(x *exchange.Exchange) (bool, error) { return p.root.truth(x) }

// String evaluates a program compiled with cty.String. It allocates only for a text that is put together.
func (p *Program) String(x *exchange.Exchange) (string, error) { return p.root.text(x) }

// Append appends the value as a Value of sdk/abi. dst is returned as it was with an error.
func (p *Program) Append(dst []byte, x *exchange.Exchange) ([]byte, error) {
	if p.value != nil {
		return append(dst, p.value...), nil
	}
	out, err := p.root.append(dst, x)
	if err != nil {
		return dst, err
	}
	return out, nil
}

// Constant returns the value of an expression that depends on no exchange; ok is false for others. A secret in it is
// marked; what was not known at load is unknown.
func (p *Program) Constant() (v cty.Value, ok bool) {
	return p.root.constant, p.root.constant != cty.NilVal
}

// Since is the earliest phase at which everything the expression uses is known.
func (p *Program) Since() exchange.Phase { return p.since }

// Source is the expression's text as written; "" when Scope.Sources did not hold it. Values are not in it, so neither are
// secrets.
func (p *Program) Source() string { return p.source }

// Range is where it stands.
func (p *Program) Range() hcl.Range { return p.at }

// Uses are the names of the attribute catalogue that it reads, sorted.
func (p *Program) Uses() []string { return p.uses }

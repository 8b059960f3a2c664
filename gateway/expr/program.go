package expr

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Scope is what an expression may use.
type Scope struct {
	Phase   exchange.Phase       // evaluated at that phase: names known later are errors
	Values  map[string]cty.Value // load-time names: var, local, secret
	Sources map[string][]byte    // texts of the files by name, for Program.Source; may be nil
}

// Program is one compiled expression.
type Program struct{}

// Compile checks and compiles e, whose value is converted to want (cty.DynamicPseudoType: any).
func Compile(e hcl.Expression, scope Scope, want cty.Type) (*Program, hcl.Diagnostics) {
	return nil, nil
}

// Bool evaluates a program compiled with cty.Bool.
func (p *Program) Bool(x *exchange.Exchange) (bool, error) { return false, nil }

// String evaluates a program compiled with cty.String.
func (p *Program) String(x *exchange.Exchange) (string, error) { return "", nil }

// AppendString appends what String returns.
func (p *Program) AppendString(dst []byte, x *exchange.Exchange) ([]byte, error) { return dst, nil }

// Append appends the value as a Value of sdk/abi.
func (p *Program) Append(dst []byte, x *exchange.Exchange) ([]byte, error) { return dst, nil }

// Constant returns the value of an expression that depends on no exchange.
func (p *Program) Constant() (cty.Value, bool) { return cty.NilVal, false }

// Since is the earliest phase at which everything the expression uses is known.
func (p *Program) Since() exchange.Phase { return 0 }

// Source is the expression's text.
func (p *Program) Source() string { return "" }

// Range is where it stands.
func (p *Program) Range() hcl.Range { return hcl.Range{} }

// Uses are the names of the attribute catalogue that it reads, sorted.
func (p *Program) Uses() []string { return nil }

// Functions are the functions of the language, for expressions evaluated at load.
func Functions() map[string]function.Function { return nil }

// Attribute is one name of the attribute catalogue.
type Attribute struct {
	Name    string         // as written in expressions and in a manifest's sees.attributes
	Type    cty.Type       // what expressions see
	Since   exchange.Phase // the earliest phase at which it is known
	Summary string
}

// Append appends the attribute of x as a Value of sdk/abi.
func (a *Attribute) Append(dst []byte, x *exchange.Exchange) []byte { return dst }

// Attributes lists the catalogue.
func Attributes() []*Attribute { return nil }

// Lookup finds an attribute by name, also attribute["plugin.name"] and request.headers["name"].
func Lookup(name string) (*Attribute, bool) { return nil, false }

// AppendValue appends v as a Value of sdk/abi.
func AppendValue(dst []byte, v cty.Value) ([]byte, error) { return dst, nil }

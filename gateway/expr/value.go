package expr

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/sdk/abi"
)

// ErrUnknown is what AppendValue gives for a value that was not known when the configuration was loaded.
var ErrUnknown = errors.New("value is not known")

// maxDepth bounds nesting as the readers of sdk/abi do.
const maxDepth = 32

// AppendValue appends v as a Value of sdk/abi; marks do not count. Lists, sets and tuples become lists, maps and objects
// become objects with their keys in order. dst is returned as it was with an error.
func AppendValue(dst []byte, v cty.Value) ([]byte, error) {
	v, _ = v.UnmarkDeep()
	out, err := appendValue(dst, v, 0)
	if err != nil {
		return dst, err
	}
	return out, nil
}

func appendValue(dst []byte, v cty.Value, depth int) ([]byte, error) {
	if depth > maxDepth {
		return dst, fmt.Errorf("value is nested more than %d deep", maxDepth)
	}
	if !v.IsKnown() {
		return dst, ErrUnknown
	}
	if v.IsNull() {
		return abi.AppendNull(dst), nil
	}
	switch t := v.Type(); {
	case t == cty.Bool:
		return abi.AppendBool(dst, v.True()), nil
	case t == cty.String:
		return abi.AppendString(dst, v.AsString()), nil
	case t == cty.Number:
		return appendNumber(dst, fromBig(v.AsBigFloat())), nil
	case t.IsListType(), t.IsTupleType(), t.IsSetType():
		dst = abi.AppendList(dst, v.LengthInt())
		for _, member := range v.Elements() {
			var err error
			if dst, err = appendValue(dst, member, depth+1); err != nil {
				return dst, err
			}
		}
		return dst, nil
	case t.IsMapType(), t.IsObjectType():
		dst = abi.AppendObject(dst, v.LengthInt())
		for key, member := range v.Elements() {
			var err error
			if dst, err = appendValue(abi.AppendKey(dst, key.AsString()), member, depth+1); err != nil {
				return dst, err
			}
		}
		return dst, nil
	}
	return dst, fmt.Errorf("a value of type %s can not be given to a plugin", v.Type().FriendlyName())
}

func appendNumber(dst []byte, n number) []byte {
	if n.float {
		return abi.AppendFloat(dst, n.f)
	}
	return abi.AppendInt(dst, n.i)
}

// sized writes the length of a string whose head, made with no text, is at octet at of b, and whose text is the rest of b.
func sized(b []byte, at int) []byte {
	head := at + 5 // kind and length
	binary.LittleEndian.PutUint32(b[head-4:], uint32(len(b)-head))
	return b
}

// number is a whole number where it fits in 64 bits, else a float.
type number struct {
	i     int64
	f     float64
	float bool
}

func whole64(i int64) number { return number{i: i} }

// fraction makes a number of f, which is whole when f is.
func fraction(f float64) number {
	if f == math.Trunc(f) && f >= math.MinInt64 && f < -math.MinInt64 {
		return number{i: int64(f)}
	}
	return number{f: f, float: true}
}

func fromBig(b *big.Float) number {
	if b.IsInt() {
		if i, accuracy := b.Int64(); accuracy == big.Exact {
			return whole64(i)
		}
	}
	f, _ := b.Float64()
	return number{f: f, float: true}
}

// parseNumber reads what HCL takes for a number, infinity excepted.
func parseNumber(s string) (number, bool) {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return whole64(i), true
	}
	if strings.Trim(s, "0123456789+-.eE") != "" { // no words, no hexadecimal
		return number{}, false
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return number{}, false
	}
	return fraction(f), true
}

func (n number) value() float64 {
	if n.float {
		return n.f
	}
	return float64(n.i)
}

func (n number) append(dst []byte) []byte {
	if n.float {
		return strconv.AppendFloat(dst, n.f, 'f', -1, 64)
	}
	return strconv.AppendInt(dst, n.i, 10)
}

// compare returns -1, 0 or 1, exactly.
func (n number) compare(m number) int {
	switch {
	case !n.float && !m.float:
		return cmp.Compare(n.i, m.i)
	case n.float && m.float:
		return cmp.Compare(n.f, m.f)
	case n.float:
		return -m.compare(n)
	}
	// Only floats beyond 64 bits, or between whole numbers, are floats.
	switch {
	case m.f >= -math.MinInt64:
		return -1
	case m.f < math.MinInt64:
		return 1
	}
	floor := math.Floor(m.f)
	if n.i <= int64(floor) {
		return -1
	}
	return 1
}

// arithmetic returns n op m; reason says why there is no result.
func arithmetic(op byte, n, m number) (result number, reason string) {
	if (op == '/' || op == '%') && !m.float && m.i == 0 {
		return number{}, "division by zero"
	}
	if !n.float && !m.float {
		if r, ok := wholeArithmetic(op, n.i, m.i); ok {
			return whole64(r), ""
		}
	}
	a, b := n.value(), m.value()
	var f float64
	switch op {
	case '+':
		f = a + b
	case '-':
		f = a - b
	case '*':
		f = a * b
	case '/':
		f = a / b
	case '%':
		f = math.Mod(a, b)
	}
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return number{}, "the number is too large"
	}
	return fraction(f), ""
}

// wholeArithmetic computes with whole numbers; ok is false when the result is not whole or does not fit.
func wholeArithmetic(op byte, a, b int64) (r int64, ok bool) {
	switch op {
	case '+':
		r = a + b
		return r, (r > a) == (b > 0)
	case '-':
		r = a - b
		return r, (r < a) == (b > 0)
	case '*':
		if a == 0 || b == 0 {
			return 0, true
		}
		r = a * b
		return r, r/b == a && !(a == -1 && b == math.MinInt64) && !(b == -1 && a == math.MinInt64)
	case '/':
		if b == -1 {
			return -a, a != math.MinInt64
		}
		return a / b, a%b == 0
	}
	if b == -1 {
		return 0, true
	}
	return a % b, true
}

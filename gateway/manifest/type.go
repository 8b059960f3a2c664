package manifest

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// scalars are the types without parameters. Those that are written as text and mean more than text have a reader.
var scalars = []struct {
	name string
	cty  cty.Type
	read func(text string) (cty.Value, error)
}{
	{"string", cty.String, nil},
	{"number", cty.Number, nil},
	{"bool", cty.Bool, nil},
	{"duration", cty.Number, readDuration},
	{"bytes", cty.Number, readBytes},
	{"money", cty.String, readMoney},
	{"url", cty.String, readURL},
	{"cidr", cty.String, readCIDR},
	{"regex", cty.String, readRegex},
}

const typeHint = "There are: string, number, bool, duration, bytes, money, url, cidr, regex, list(type), map(type), object({name = type})."

// parseType reads a type expression.
func parseType(e hcl.Expression) (*Type, hcl.Diagnostics) {
	bad := func(at hcl.Range, format string, arguments ...any) (*Type, hcl.Diagnostics) {
		return nil, hcl.Diagnostics{fault(at, "Invalid type", format, arguments...)}
	}
	if word := hcl.ExprAsKeyword(e); word != "" {
		var names []string
		for _, s := range scalars {
			if s.name == word {
				return &Type{Name: s.name, Cty: s.cty}, nil
			}
			names = append(names, s.name)
		}
		return bad(e.Range(), "There is no type %q.%s", word, Suggest(word, append(names, "list(type)", "map(type)", "object({...})")))
	}
	call, diags := hcl.ExprCall(e)
	if diags.HasErrors() {
		return bad(e.Range(), "A type is written without quotes. %s", typeHint)
	}
	if !slices.Contains([]string{"list", "map", "object"}, call.Name) {
		return bad(call.NameRange, "There is no type %q.%s", call.Name+"(...)", Suggest(call.Name, []string{"list", "map", "object"}))
	}
	if len(call.Arguments) != 1 {
		return bad(e.Range(), "%s takes exactly one type, as in list(string), map(number) or object({ name = string }).", call.Name)
	}
	if call.Name == "object" {
		return parseObject(e.Range(), call.Arguments[0])
	}
	elem, diags := parseType(call.Arguments[0])
	if diags.HasErrors() {
		return nil, diags
	}
	t := &Type{Name: call.Name + "(" + elem.Name + ")", Elem: elem, Cty: cty.List(elem.Cty)}
	if call.Name == "map" {
		t.Cty = cty.Map(elem.Cty)
	}
	return t, nil
}

func parseObject(at hcl.Range, e hcl.Expression) (*Type, hcl.Diagnostics) {
	pairs, diags := hcl.ExprMap(e)
	if diags.HasErrors() {
		return nil, hcl.Diagnostics{fault(e.Range(), "Invalid type", "object takes names and types in braces, as in object({ name = string }).")}
	}
	t := &Type{Fields: make(map[string]*Type, len(pairs))}
	attributes := make(map[string]cty.Type, len(pairs))
	var list []string
	for _, pair := range pairs {
		name := hcl.ExprAsKeyword(pair.Key)
		if name == "" {
			diags = append(diags, fault(pair.Key.Range(), "Invalid type", "A name in object(...) is written without quotes."))
			continue
		}
		if t.Fields[name] != nil {
			diags = append(diags, fault(pair.Key.Range(), "Duplicate name", "The object has a %q already.", name))
			continue
		}
		field, more := parseType(pair.Value)
		if diags = append(diags, more...); more.HasErrors() {
			continue
		}
		t.Fields[name], attributes[name] = field, field.Cty
		list = append(list, name+" = "+field.Name)
	}
	if diags.HasErrors() {
		return nil, diags
	}
	if len(list) == 0 {
		return nil, hcl.Diagnostics{fault(at, "Invalid type", "An object has at least one name.")}
	}
	t.Name, t.Cty = "object({ "+strings.Join(list, ", ")+" })", cty.Object(attributes)
	return t, nil
}

// written is the cty type of the value as an operator writes it, before read.
func (t *Type) written() cty.Type {
	switch {
	case t.Fields != nil:
		attributes := make(map[string]cty.Type, len(t.Fields))
		for name, field := range t.Fields {
			attributes[name] = field.written()
		}
		return cty.Object(attributes)
	case t.Elem != nil && t.Cty.IsListType():
		return cty.List(t.Elem.written())
	case t.Elem != nil:
		return cty.Map(t.Elem.written())
	case t.reader() != nil:
		return cty.String
	}
	return t.Cty
}

func (t *Type) reader() func(string) (cty.Value, error) {
	for _, s := range scalars {
		if s.name == t.Name {
			return s.read
		}
	}
	return nil
}

// read turns what was written into a value of t.Cty. Unknown values pass as unknown, marks stay.
func (t *Type) read(v cty.Value) (cty.Value, error) {
	v, err := convert.Convert(v, t.written())
	if err != nil {
		return cty.NilVal, fmt.Errorf("must be %s: %w", t.noun(), err)
	}
	return t.readWritten(v)
}

// noun describes the type for a message.
func (t *Type) noun() string {
	switch t.Name {
	case "bytes":
		return `a size such as "10MiB"`
	case "duration":
		return `a duration such as "250ms"`
	case "money":
		return `an amount of money such as "0.15"`
	case "url", "cidr", "regex":
		return "text, a " + t.Name
	case "object":
		return "an object"
	}
	return "of type " + t.Name
}

func (t *Type) readWritten(v cty.Value) (cty.Value, error) {
	v, marks := v.Unmark()
	switch {
	case v.IsNull():
		return cty.NilVal, fmt.Errorf("must not be null")
	case !v.IsKnown():
		return cty.UnknownVal(t.Cty).WithMarks(marks), nil
	}
	out := v
	switch {
	case t.Fields != nil:
		attributes := make(map[string]cty.Value, len(t.Fields))
		for _, name := range slices.Sorted(maps.Keys(t.Fields)) {
			member, err := t.Fields[name].readWritten(v.GetAttr(name))
			if err != nil {
				return cty.NilVal, fmt.Errorf("%s: %w", name, err)
			}
			attributes[name] = member
		}
		out = cty.ObjectVal(attributes)
	case t.Elem != nil:
		var list []cty.Value
		members := make(map[string]cty.Value)
		for key, member := range v.Elements() {
			member, err := t.Elem.readWritten(member)
			if err != nil {
				return cty.NilVal, fmt.Errorf("%s: %w", keyText(key), err)
			}
			list = append(list, member)
			if key.Type() == cty.String {
				members[key.AsString()] = member
			}
		}
		switch {
		case t.Cty.IsListType() && len(list) == 0:
			out = cty.ListValEmpty(t.Elem.Cty)
		case t.Cty.IsListType():
			out = cty.ListVal(list)
		case len(members) == 0:
			out = cty.MapValEmpty(t.Elem.Cty)
		default:
			out = cty.MapVal(members)
		}
	case t.reader() != nil:
		var err error
		if out, err = t.reader()(v.AsString()); err != nil {
			return cty.NilVal, err
		}
	}
	return out.WithMarks(marks), nil
}

func keyText(key cty.Value) string {
	if key.Type() == cty.String {
		return strconv.Quote(key.AsString())
	}
	i, _ := key.AsBigFloat().Int64()
	return fmt.Sprintf("element %d", i)
}

func readDuration(text string) (cty.Value, error) {
	d, err := ParseDuration(text)
	return cty.NumberIntVal(int64(d)), err
}

func readBytes(text string) (cty.Value, error) {
	n, err := ParseBytes(text)
	return cty.NumberIntVal(n), err
}

func readMoney(text string) (cty.Value, error) {
	a, err := exchange.ParseAmount(text)
	if err != nil {
		return cty.NilVal, fmt.Errorf(`%s is no amount of money: write a decimal such as "0.15", with at most 12 digits after the point`, quote(text))
	}
	return cty.StringVal(a.String()), nil
}

func readURL(text string) (cty.Value, error) {
	u, err := url.Parse(text)
	if err != nil || !u.IsAbs() || u.Host == "" || u.User != nil {
		return cty.NilVal, fmt.Errorf(`%s is no absolute URL without user: write one such as "https://example.com/path"`, quote(text))
	}
	return cty.StringVal(text), nil
}

func readCIDR(text string) (cty.Value, error) {
	prefix, err := ParseCIDR(text)
	if err != nil {
		return cty.NilVal, err
	}
	return cty.StringVal(prefix.String()), nil
}

// ParseCIDR reads a range of addresses (RFC 4632, RFC 4291 section 2.3), or one address as a range of one. Its errors
// follow a subject, and do not quote text.
func ParseCIDR(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil, prefix.Addr().Is4In6():
		return prefix, errors.New(`must be written like "10.0.0.0/8" or "2001:db8::/32"`)
	case prefix != prefix.Masked():
		return prefix, errors.New("must not have bits beyond its length")
	}
	return prefix, nil
}

func readRegex(text string) (cty.Value, error) {
	if _, err := regexp.Compile(text); err != nil {
		return cty.NilVal, fmt.Errorf("%s is no RE2 pattern: %w", quote(text), err)
	}
	return cty.StringVal(text), nil
}

// quote shows a value in a message, shortened.
func quote(text string) string {
	const most = 64
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return strconv.Quote(text)
}

// ParseDuration reads a duration of at least 0: what time.ParseDuration reads, and before it whole days of 24 hours:
// "5ms", "1h30m", "400d", "1d12h". The zero is "0s" or "0".
func ParseDuration(s string) (time.Duration, error) {
	const day = 24 * time.Hour
	bad := fmt.Errorf(`%s is no duration: write a number with ns, us, ms, s, m, h or d, such as "250ms" or "1h30m"`, quote(s))
	before, rest, hasDays := strings.Cut(s, "d")
	if !hasDays {
		before, rest = "", s
	}
	var total time.Duration
	if hasDays {
		days, err := strconv.ParseUint(before, 10, 32)
		if err != nil || days > uint64(math.MaxInt64/day) {
			return 0, bad
		}
		if total = time.Duration(days) * day; rest == "" {
			return total, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || strings.ContainsAny(rest, "+-") || total+d < total {
		return 0, bad
	}
	return total + d, nil
}

// ParseBytes reads a size in octets: a whole number, alone or with B, KB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB
// (powers of 1024) right behind it.
func ParseBytes(s string) (int64, error) {
	bad := fmt.Errorf(`%s is no size: write a whole number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB, such as "64KiB"`, quote(s))
	end := 0
	for end < len(s) && '0' <= s[end] && s[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(s[:end], 10, 64)
	if err != nil {
		return 0, bad
	}
	factor := int64(1)
	switch s[end:] {
	case "", "B":
	case "KB":
		factor = 1e3
	case "MB":
		factor = 1e6
	case "GB":
		factor = 1e9
	case "TB":
		factor = 1e12
	case "KiB":
		factor = 1 << 10
	case "MiB":
		factor = 1 << 20
	case "GiB":
		factor = 1 << 30
	case "TiB":
		factor = 1 << 40
	default:
		return 0, bad
	}
	if n > math.MaxInt64/factor {
		return 0, bad
	}
	return n * factor, nil
}

// FormatDuration is the shortest text that ParseDuration reads as that many nanoseconds.
func FormatDuration(ns int64) string {
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}, {"us", time.Microsecond}} {
		if ns != 0 && ns%int64(unit.size) == 0 {
			return strconv.FormatInt(ns/int64(unit.size), 10) + unit.name
		}
	}
	if ns == 0 {
		return "0s"
	}
	return strconv.FormatInt(ns, 10) + "ns"
}

// FormatBytes is a short text that ParseBytes reads as n.
func FormatBytes(n int64) string {
	for _, unit := range []struct {
		name string
		size int64
	}{{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"KB", 1e3}} {
		if n != 0 && n%unit.size == 0 {
			return strconv.FormatInt(n/unit.size, 10) + unit.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// Package schema reads HCL blocks by schemas that are data: kinds, defaults, bounds and summaries of arguments stand in a
// table, and reading, messages and documentation all come from it. Its main type is Block.
package schema

import (
	"cmp"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/secret"
)

// Block is the schema of one block type, as data: what is read, what messages suggest and the tables of
// policies/README.md all come from it, so that they can not drift apart.
type Block struct {
	Name      string
	Labels    []string
	Summary   string
	Repeat    bool // may stand more than once
	Required  bool // must stand at least once
	Arguments []Argument
	Blocks    []Block
}

// Argument is the schema of one argument.
type Argument struct {
	Name     string
	Kind     Kind
	Required bool
	Preset   string   // the default, as one would write it; empty: none
	Min, Max string   // bounds, as one would write them; empty: none
	Zero     bool     // 0 is allowed below Min; Summary says what it means
	Words    []string // with Word and Words: what there is
	Secret   bool     // may hold a secret
	Summary  string
}

// Kind is how an argument is written and read.
type Kind string

// The kinds. Money, references and expressions are read by whoever knows what they refer to.
const (
	Text       Kind = "text"
	Span       Kind = "duration"
	Size       Kind = "size"
	Count      Kind = "whole number"
	Ratio      Kind = "number"
	Money      Kind = "money"
	Flag       Kind = "true or false"
	Texts      Kind = "list of texts"
	Table      Kind = "map of texts"
	Word       Kind = "word"
	Words      Kind = "list of words"
	Path       Kind = "file"
	Reference  Kind = "reference"
	References Kind = "list of references"
	Condition  Kind = "condition"
	Expression Kind = "expression"
	Type       Kind = "type"
	Constant   Kind = "any value"
	Endpoints  Kind = "list of endpoints"
	Origins    Kind = "list of origins"
)

// schema is what HCL needs to know to take a body apart.
func (b *Block) schema() *hcl.BodySchema {
	s := &hcl.BodySchema{}
	for _, a := range b.Arguments {
		s.Attributes = append(s.Attributes, hcl.AttributeSchema{Name: a.Name, Required: a.Required})
	}
	for _, n := range b.Blocks {
		s.Blocks = append(s.Blocks, hcl.BlockHeaderSchema{Type: n.Name, LabelNames: n.Labels})
	}
	return s
}

// Find is the schema of a nested block; that there is one is a matter of the code alone.
func (b *Block) Find(name string) *Block {
	return find(b.Blocks, func(n *Block) bool { return n.Name == name })
}

// Section is a block being read by its schema. An absent optional block is a section too, of defaults only.
type Section struct {
	Labels []string
	At     hcl.Range // the block's header
	Given  bool      // the block stands in the file

	reader Reader
	schema *Block
	body   *hcl.BodyContent
}

// Reader evaluates expressions for a Section and takes its diagnostics.
type Reader interface {
	Reporter
	// Value evaluates an expression at load. ok is false when it has reported an error.
	Value(e hcl.Expression) (v cty.Value, ok bool)
}

// Reporter takes diagnostics, which have a Subject.
type Reporter interface {
	Report(d *hcl.Diagnostic)
}

// newError makes an error: at is where it is to be corrected, detail says how.
func newError(at hcl.Range, summary, detail string, arguments ...any) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(detail, arguments...), Subject: &at}
}

func (s *Section) errorf(at hcl.Range, summary, detail string, arguments ...any) {
	s.reader.Report(newError(at, summary, detail, arguments...))
}

// Open takes a block apart and reports what does not belong in it.
func Open(r Reader, b *hcl.Block, schema *Block) *Section {
	s := &Section{Labels: b.Labels, At: b.DefRange, Given: true, reader: r, schema: schema}
	s.body = Content(r, b.Body, schema)
	for _, n := range schema.Blocks {
		found := s.body.Blocks.OfType(n.Name)
		if len(found) > 1 && !n.Repeat {
			s.errorf(found[1].DefRange, "Duplicate block", "Only one %s block may stand here; the first is at %s.", n.Name, found[0].DefRange)
		}
		if len(found) == 0 && n.Required {
			s.errorf(b.DefRange, "Missing block", "This %s has no %s block and needs one.", schema.Name, n.Name)
		}
	}
	return s
}

// Over is a section over content that was taken apart already, such as a file's.
func Over(r Reader, content *hcl.BodyContent, schema *Block, at hcl.Range) *Section {
	return &Section{At: at, Given: true, reader: r, schema: schema, body: content}
}

// Content is hcl.Body.Content with messages that always say what there is.
func Content(r Reporter, body hcl.Body, schema *Block) *hcl.BodyContent {
	content, diags := body.Content(schema.schema())
	for _, d := range diags {
		var names []string
		switch d.Summary {
		case "Unsupported argument":
			for _, a := range schema.Arguments {
				names = append(names, a.Name)
			}
		case "Unsupported block type":
			for _, b := range schema.Blocks {
				names = append(names, b.Name)
			}
		}
		if names != nil && !strings.Contains(d.Detail, "Did you mean") {
			d.Detail += ThereAre(names)
		}
		r.Report(d)
	}
	return content
}

// All opens every nested block called name, in order.
func (s *Section) All(name string) []*Section {
	schema := s.schema.Find(name)
	var list []*Section
	for _, b := range s.body.Blocks.OfType(name) {
		list = append(list, Open(s.reader, b, schema))
	}
	return list
}

// One opens the first nested block called name, or stands in for it.
func (s *Section) One(name string) *Section {
	if list := s.All(name); len(list) > 0 {
		return list[0]
	}
	schema := s.schema.Find(name)
	return &Section{reader: s.reader, schema: schema, body: &hcl.BodyContent{}, At: s.At}
}

// find returns the entry of a schema that code names; that it is there is a matter of the code alone.
func find[T any](list []T, is func(*T) bool) *T {
	for i := range list {
		if is(&list[i]) {
			return &list[i]
		}
	}
	panic("schema: code reads what its schema does not have")
}

func (s *Section) spec(name string, kinds ...Kind) *Argument {
	return find(s.schema.Arguments, func(a *Argument) bool {
		return a.Name == name && (len(kinds) == 0 || slices.Contains(kinds, a.Kind))
	})
}

// Set reports whether the argument name is written.
func (s *Section) Set(name string) bool {
	s.spec(name)
	return s.body.Attributes[name] != nil
}

// Block is the first nested block called name as HCL has it, for bodies that are decoded elsewhere; nil without one.
func (s *Section) Block(name string) *hcl.Block {
	for _, b := range s.body.Blocks.OfType(name) {
		return b
	}
	return nil
}

// Any is the value of an argument, whatever it is; ok is false when there is none, or none yet.
func (s *Section) Any(name string) (v cty.Value, ok bool) { return s.value(s.spec(name)) }

// Expr is the expression of an argument, or nil where it is not written.
func (s *Section) Expr(name string) hcl.Expression {
	s.spec(name)
	if a := s.body.Attributes[name]; a != nil {
		return a.Expr
	}
	return nil
}

// Where is the range of the value of an argument, or the block's header where it is not written.
func (s *Section) Where(name string) hcl.Range {
	if a := s.body.Attributes[name]; a != nil {
		return a.Expr.Range()
	}
	return s.At
}

// value evaluates an argument. ok is false when it is absent, null, not known yet (a secret during validate) or
// wrong; then the default stands.
func (s *Section) value(spec *Argument) (v cty.Value, ok bool) {
	a := s.body.Attributes[spec.Name]
	if a == nil {
		return cty.NilVal, false
	}
	v, ok = s.reader.Value(a.Expr)
	if !ok {
		return cty.NilVal, false
	}
	if v.ContainsMarked() && !spec.Secret {
		s.errorf(a.Expr.Range(), "Secret not allowed", "%s can be printed, so it must not hold a secret.", spec.Name)
		return cty.NilVal, false
	}
	bare, _ := v.UnmarkDeep()
	if bare.IsNull() {
		if spec.Required {
			s.errorf(a.Expr.Range(), "Missing value", "%s is required and must not be null.", spec.Name)
		}
		return cty.NilVal, false
	}
	return v, bare.IsWhollyKnown()
}

// wrong reports a value of another kind than the argument's.
func (s *Section) wrong(at hcl.Range, spec *Argument, must string) {
	s.errorf(at, "Invalid value", "%s must be %s.", spec.Name, must)
}

// Text reads a text.
func (s *Section) Text(name string) string {
	t, _ := s.SecretText(name)
	return t
}

// SecretText is text that may hold a secret, and whether it does.
func (s *Section) SecretText(name string) (t string, isSecret bool) {
	spec := s.spec(name, Text, Path)
	v, ok := s.value(spec)
	if !ok {
		return spec.Preset, false
	}
	t, isSecret = secret.Reveal(v)
	if !Textual(v) {
		s.wrong(s.Where(name), spec, "a text in quotes")
		return spec.Preset, false
	}
	if t == "" && spec.Required {
		s.errorf(s.Where(name), "Missing value", "%s is required and must not be empty.", name)
	}
	return t, isSecret
}

// Textual reports whether v is a text, marked or not.
func Textual(v cty.Value) bool {
	v, _ = v.Unmark()
	return v.Type() == cty.String && v.IsKnown() && !v.IsNull()
}

// Flag reads true or false.
func (s *Section) Flag(name string) bool {
	spec := s.spec(name, Flag)
	v, ok := s.value(spec)
	if !ok {
		return spec.Preset == "true"
	}
	if v.Type() != cty.Bool {
		s.wrong(s.Where(name), spec, "true or false")
		return spec.Preset == "true"
	}
	return v.True()
}

// Span reads a duration.
func (s *Section) Span(name string) time.Duration {
	return measure(s, name, Span, `a duration in quotes, such as "250ms", "10s" or "400d"`, manifest.ParseDuration)
}

// Size reads a number of octets.
func (s *Section) Size(name string) int64 {
	return measure(s, name, Size, `a size in octets, such as "64KiB" or "10MB"`, manifest.ParseBytes)
}

// Count reads a whole number.
func (s *Section) Count(name string) int64 {
	return measure(s, name, Count, "a whole number", func(t string) (int64, error) { return strconv.ParseInt(t, 10, 64) })
}

// Ratio reads a number.
func (s *Section) Ratio(name string) float64 {
	return measure(s, name, Ratio, "a number", func(t string) (float64, error) { return strconv.ParseFloat(t, 64) })
}

// measure reads what has bounds. Default and bounds are written like the value and read by the same function.
func measure[T cmp.Ordered](s *Section, name string, k Kind, must string, parse func(string) (T, error)) T {
	spec := s.spec(name, k)
	constant := func(t string) T {
		var n T
		if t != "" {
			var err error
			if n, err = parse(t); err != nil {
				panic(fmt.Sprintf("schema: %s: %v", name, err))
			}
		}
		return n
	}
	preset := constant(spec.Preset)
	v, ok := s.value(spec)
	if !ok {
		return preset
	}
	at := s.Where(name)
	var written string
	switch {
	case v.Type() == cty.Number && k != Span:
		written = decimal(v.AsBigFloat())
	case v.Type() == cty.String && (k == Span || k == Size):
		written = v.AsString()
	default:
		s.wrong(at, spec, must)
		return preset
	}
	n, err := parse(written)
	if err != nil {
		s.wrong(at, spec, must)
		return preset
	}
	var zero T
	if n == zero && spec.Zero {
		return n
	}
	if spec.Min != "" && n < constant(spec.Min) || spec.Max != "" && n > constant(spec.Max) {
		s.errorf(at, "Value out of range", "%s must be %s; it is %s.", name, spec.Bounds(), written)
		return preset
	}
	return n
}

// Bounds says in words what an argument may be.
func (a *Argument) Bounds() string {
	var t string
	switch {
	case a.Min != "" && a.Max != "":
		t = "from " + a.Min + " to " + a.Max
	case a.Min != "":
		t = "at least " + a.Min
	case a.Max != "":
		t = "at most " + a.Max
	}
	if a.Zero {
		t = "0 or " + t
	}
	return t
}

// Entry is one element of a list or map, with the place it was written at where that can be told.
type Entry struct {
	Key   string // of a map
	Value cty.Value
	At    hcl.Range
}

// Entries reads a list of anything. Of a list written out, elements are read one by one, so that a wrong one is
// pointed at.
func (s *Section) Entries(name, must string) []Entry {
	spec := s.spec(name)
	a := s.body.Attributes[spec.Name]
	if a == nil {
		return nil
	}
	var list []Entry
	if parts, diags := hcl.ExprList(a.Expr); !diags.HasErrors() {
		one := &Argument{Name: "an element of " + spec.Name, Required: true, Secret: spec.Secret}
		for _, e := range parts {
			part := &Section{reader: s.reader, schema: s.schema, body: &hcl.BodyContent{Attributes: hcl.Attributes{one.Name: {Expr: e}}}}
			if v, ok := part.value(one); ok {
				list = append(list, Entry{Value: v, At: e.Range()})
			}
		}
		return list
	}
	v, ok := s.value(spec)
	if !ok {
		return nil
	}
	if t := v.Type(); !t.IsListType() && !t.IsTupleType() && !t.IsSetType() {
		s.wrong(a.Expr.Range(), spec, must)
		return nil
	}
	for _, e := range v.AsValueSlice() {
		list = append(list, Entry{Value: e, At: a.Expr.Range()})
	}
	return list
}

// Texts reads a list of texts.
func (s *Section) Texts(name string) []string {
	spec := s.spec(name, Texts)
	var list []string
	for _, e := range s.Entries(name, "a list of texts in quotes") {
		if !Textual(e.Value) {
			s.wrong(e.At, spec, "a list of texts in quotes")
			continue
		}
		list = append(list, e.Value.AsString())
	}
	return list
}

// Table reads a map of texts in the order of writing; values may be secret where the schema says so, and are unknown
// during validate.
func (s *Section) Table(name string) []Entry {
	const must = `a map of texts, such as { name = "value" }`
	spec := s.spec(name, Table)
	a := s.body.Attributes[name]
	if a == nil {
		return nil
	}
	var list []Entry
	pairs, diags := hcl.ExprMap(a.Expr)
	if diags.HasErrors() {
		v, ok := s.value(spec)
		if !ok {
			return nil
		}
		bare, _ := v.Unmark()
		if t := bare.Type(); !t.IsMapType() && !t.IsObjectType() {
			s.wrong(a.Expr.Range(), spec, must)
			return nil
		}
		for key, e := range bare.AsValueMap() {
			list = append(list, Entry{Key: key, Value: e, At: a.Expr.Range()})
		}
		slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
	}
	for _, p := range pairs {
		key, ok := s.reader.Value(p.Key)
		if !ok || !Textual(key) || key.IsMarked() {
			continue
		}
		if v, ok := s.reader.Value(p.Value); ok {
			list = append(list, Entry{Key: key.AsString(), Value: v, At: hcl.RangeBetween(p.Key.Range(), p.Value.Range())})
		}
	}
	return slices.DeleteFunc(list, func(e Entry) bool {
		bare, _ := e.Value.UnmarkDeep()
		switch {
		case e.Value.ContainsMarked() && !spec.Secret:
			s.errorf(e.At, "Secret not allowed", "%s can be printed, so it must not hold a secret.", name)
			return true
		case bare.IsKnown() && !Textual(bare):
			s.wrong(e.At, spec, must)
			return true
		}
		return false
	})
}

// Word reads one of the argument's words, or of list where the words are not fixed.
func (s *Section) Word(name string, list ...string) string {
	spec := s.spec(name, Word)
	if list == nil {
		list = spec.Words
	}
	if a := s.body.Attributes[name]; a != nil {
		if w, ok := s.keyword(spec, a.Expr, list); ok {
			return w
		}
	}
	return spec.Preset
}

// Words reads a list of words without repetition.
func (s *Section) Words(name string, list ...string) []string {
	spec := s.spec(name, Words)
	if list == nil {
		list = spec.Words
	}
	a := s.body.Attributes[name]
	if a == nil {
		return strings.Fields(strings.Trim(strings.ReplaceAll(spec.Preset, ",", " "), "[]"))
	}
	parts, diags := hcl.ExprList(a.Expr)
	if diags.HasErrors() {
		s.wrong(a.Expr.Range(), spec, "a list of words in brackets, without quotes, such as ["+strings.Join(list, ", ")+"]")
		return nil
	}
	var found []string
	for _, e := range parts {
		w, ok := s.keyword(spec, e, list)
		if ok && slices.Contains(found, w) {
			s.errorf(e.Range(), "Duplicate word", "%s is in the list already; remove one of them.", w)
			continue
		}
		if ok {
			found = append(found, w)
		}
	}
	return found
}

// keyword reads a word. Words that are no identifiers (502, "5xx") are written as numbers or in quotes.
func (s *Section) keyword(spec *Argument, e hcl.Expression, list []string) (string, bool) {
	w := hcl.ExprAsKeyword(e)
	if w == "" {
		v, ok := Literal(e)
		if !ok {
			s.wrong(e.Range(), spec, "one of these words, without quotes: "+strings.Join(list, ", "))
			return "", false
		}
		if w = v; hclsyntax.ValidIdentifier(w) && slices.Contains(list, w) {
			s.errorf(e.Range(), "Word in quotes", "This is a word of the language: write %s without quotes.", w)
			return "", false
		}
	}
	if !slices.Contains(list, w) {
		s.errorf(e.Range(), "Unknown word", "%s can not be %s.%s", spec.Name, w, Choices(w, list))
		return "", false
	}
	return w, true
}

// Literal is the text of a constant text or number.
func Literal(e hcl.Expression) (string, bool) {
	v, diags := e.Value(nil)
	switch {
	case diags.HasErrors() || v.IsNull() || !v.IsKnown():
		return "", false
	case v.Type() == cty.String:
		return v.AsString(), true
	case v.Type() == cty.Number:
		return decimal(v.AsBigFloat()), true
	}
	return "", false
}

// decimal writes a number as a person would.
func decimal(f *big.Float) string {
	if !plain(f) {
		return f.Text('g', 6)
	}
	return f.Text('f', -1)
}

// plain reports whether f can be written out: 1e999999999 is a number to HCL, and a gigabyte of digits.
func plain(f *big.Float) bool {
	e := f.MantExp(nil)
	return !f.IsInf() && -512 < e && e < 512
}

// Exact is a number or a decimal text as a fraction; HCL keeps 512 bits of a number, far more than are kept here.
func Exact(v cty.Value) (*big.Rat, bool) {
	var t string
	switch {
	case v.Type() == cty.Number && plain(v.AsBigFloat()):
		t = v.AsBigFloat().Text('f', 60)
	case v.Type() == cty.String && strings.Trim(v.AsString(), "-.0123456789") == "" && len(v.AsString()) < 80:
		t = v.AsString()
	default:
		return nil, false
	}
	r, ok := new(big.Rat).SetString(t)
	if ok && r.Sign() == 0 && v.Type() == cty.Number {
		r, _ = v.AsBigFloat().Rat(nil) // closer to nothing than what was written out
	}
	return r, ok
}

// IsEmpty reports whether an expression is [].
func IsEmpty(e hcl.Expression) bool {
	if e == nil {
		return false
	}
	list, diags := hcl.ExprList(e)
	return !diags.HasErrors() && len(list) == 0
}

// ThereAre lists what may be written.
func ThereAre(list []string) string {
	if len(list) == 0 {
		return " There are none."
	}
	const most = 20
	if len(list) > most {
		return fmt.Sprintf(" There are: %s and %d more.", strings.Join(list[:most], ", "), len(list)-most)
	}
	return " There are: " + strings.Join(list, ", ") + "."
}

// Choices says what was probably meant, or else what there is.
func Choices(given string, list []string) string {
	best, least := "", max(2, len(given)/4)+1
	for _, w := range list {
		if d := levenshtein.Distance(strings.ToLower(given), strings.ToLower(w), nil); d < least && d < len(given) {
			best, least = w, d
		}
	}
	if best != "" {
		return fmt.Sprintf(" Did you mean %q?", best)
	}
	return ThereAre(list)
}

package manifest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/gocty"

	"github.com/postern-gateway/postern/gateway/exchange"
)

const (
	// ABI is the version of the policy ABI that manifests may declare.
	ABI = 1
	// MaxSize is the most octets a manifest may have. It also bounds how deep foreign text can make the parser recurse.
	MaxSize = 64 << 10
	// MaxBuffer is the most octets of a body that body = buffer("...") may ask for: with headers and attributes it must
	// fit in one frame.
	MaxBuffer = 15 << 20
)

// capabilities are what a plugin may ask an operator for.
var capabilities = []string{"accounts", "ledger", "state", "cache", "fetch"}

var (
	versionPattern = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)
	headerPattern  = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
)

var rootSchema = &hcl.BodySchema{
	Attributes: []hcl.AttributeSchema{{Name: "abi", Required: true}, {Name: "version", Required: true}, {Name: "summary", Required: true}},
	Blocks: []hcl.BlockHeaderSchema{
		{Type: "argument", LabelNames: []string{"name"}}, {Type: "block", LabelNames: []string{"name"}},
		{Type: "grant", LabelNames: []string{"capability"}}, {Type: "hook", LabelNames: []string{"phase"}},
	},
}

var hookSchema = &hcl.BodySchema{
	Attributes: []hcl.AttributeSchema{{Name: "needs"}, {Name: "answers"}},
	Blocks: []hcl.BlockHeaderSchema{
		{Type: "sees"}, {Type: "argument", LabelNames: []string{"name"}}, {Type: "block", LabelNames: []string{"name"}},
	},
}

var seesSchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "headers"}, {Name: "attributes"}, {Name: "body"}}}

var argumentSchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{
	{Name: "type", Required: true}, {Name: "required"}, {Name: "default"}, {Name: "sensitive"}, {Name: "per_request"},
	{Name: "pattern"}, {Name: "one_of"}, {Name: "summary"},
}}

var blockSchema = &hcl.BodySchema{
	Attributes: []hcl.AttributeSchema{{Name: "labels"}, {Name: "repeat"}, {Name: "required"}, {Name: "summary"}},
	Blocks: []hcl.BlockHeaderSchema{
		{Type: "argument", LabelNames: []string{"name"}}, {Type: "block", LabelNames: []string{"name"}},
	},
}

var grantSchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "reason", Required: true}, {Name: "optional"}}}

// parser collects what is wrong, so that one run tells everything.
type parser struct{ diags hcl.Diagnostics }

// Parse reads plugin.hcl. filename is for the ranges of diagnostics. When there are errors the manifest holds what could
// be read, and is nil when that is nothing.
func Parse(src []byte, filename string) (*Manifest, hcl.Diagnostics) {
	if len(src) > MaxSize {
		return nil, hcl.Diagnostics{fault(hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos},
			"Manifest too large", "A manifest has at most %d octets, this one %d.", MaxSize, len(src))}
	}
	if d := tooDeep(src, filename); d != nil {
		return nil, hcl.Diagnostics{d}
	}
	file, diags := hclsyntax.ParseConfig(src, filename, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, diags
	}
	p := &parser{diags: diags}
	content := p.content(file.Body, rootSchema)
	m := &Manifest{Source: src, Range: file.Body.MissingItemRange()}
	if a := content.Attributes["abi"]; a != nil {
		m.ABI = p.abi(a)
	}
	if a := content.Attributes["version"]; a != nil {
		if m.Version = p.text(a); m.Version != "" && !versionPattern.MatchString(m.Version) {
			p.failf(a.Expr.Range(), "Invalid version", `%s is no semantic version: write one such as "1.2.3".`, quote(m.Version))
		}
	}
	if a := content.Attributes["summary"]; a != nil {
		m.Summary = p.text(a)
	}
	m.Arguments, m.Blocks = p.members(content.Blocks, false)
	for _, b := range content.Blocks.OfType("grant") {
		if g := p.grant(b); g != nil && p.isNew(b, m.Asks(g.Capability)) {
			m.Grants = append(m.Grants, g)
		}
	}
	for _, b := range content.Blocks.OfType("hook") {
		if h := p.hook(b, m); h != nil && p.isNew(b, m.Hook(h.Phase) != nil) {
			m.Hooks = append(m.Hooks, h)
		}
	}
	if len(content.Blocks.OfType("hook")) == 0 {
		p.failf(m.Range, "Missing hook block", "A plugin hooks at least one phase. There are: %s.", strings.Join(phases(), ", "))
	}
	p.needs(content.Blocks, m)
	for _, d := range p.diags {
		d.EvalContext, d.Expression = nil, nil
	}
	return m, p.diags
}

// tooDeep refuses text that would make the parser, which recurses, use up the stack of the process: a manifest is as
// foreign as the module it comes in.
func tooDeep(src []byte, filename string) *hcl.Diagnostic {
	const most = 64
	tokens, _ := hclsyntax.LexConfig(src, filename, hcl.InitialPos) // what is wrong besides, the parser tells
	depth, operators := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOParen, hclsyntax.TokenOBrack, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc,
			hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCParen, hclsyntax.TokenCBrack, hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc,
			hclsyntax.TokenTemplateSeqEnd:
			depth--
		case hclsyntax.TokenBang, hclsyntax.TokenMinus, hclsyntax.TokenQuestion:
			operators++
		}
		if depth > most || operators > 4*most {
			return fault(t.Range, "Manifest too complex", "A manifest nests at most %d deep and has at most %d of the operators -, ! and ?.", most, 4*most)
		}
	}
	return nil
}

// content reads a body by schema, and adds what there is to messages about names that no other resembles.
func (p *parser) content(body hcl.Body, schema *hcl.BodySchema) *hcl.BodyContent {
	content, diags := body.Content(schema)
	p.diags = append(p.diags, explain(diags, schema)...)
	return content
}

func (p *parser) abi(a *hcl.Attribute) int {
	v, diags := a.Expr.Value(nil)
	p.diags = append(p.diags, diags...)
	var n int
	if err := gocty.FromCtyValue(v, &n); diags.HasErrors() || err == nil && n == ABI {
		return n
	}
	p.failf(a.Expr.Range(), "Unknown ABI", "This version of the gateway knows ABI %d: write abi = %d.", ABI, ABI)
	return 0
}

func (p *parser) grant(b *hcl.Block) *Grant {
	content := p.content(b.Body, grantSchema)
	g := &Grant{Capability: b.Labels[0], Range: b.DefRange}
	if a := content.Attributes["reason"]; a != nil {
		g.Reason = p.text(a)
	}
	g.Optional = p.flag(content.Attributes["optional"])
	if !slices.Contains(capabilities, g.Capability) {
		p.failf(b.LabelRanges[0], "Unknown capability", "There is no capability %q.%s", g.Capability, Suggest(g.Capability, capabilities))
		return nil
	}
	return g
}

// hook reads one hook; the arguments of m itself are known by then.
func (p *parser) hook(b *hcl.Block, m *Manifest) *Hook {
	content := p.content(b.Body, hookSchema)
	phase, ok := exchange.ParsePhase(b.Labels[0])
	if !ok {
		p.failf(b.LabelRanges[0], "Unknown phase", "There is no phase %q.%s", b.Labels[0], Suggest(b.Labels[0], phases()))
	}
	h := &Hook{Phase: phase, Range: b.DefRange}
	h.Arguments, h.Blocks = p.members(content.Blocks, false)
	for _, a := range h.Arguments {
		if named(m.Arguments, m.Blocks, a.Name) {
			p.failf(a.Range, "Duplicate name", "%q is declared for all hooks already.", a.Name)
		}
	}
	for _, nested := range h.Blocks {
		if named(m.Arguments, m.Blocks, nested.Name) {
			p.failf(nested.Range, "Duplicate name", "%q is declared for all hooks already.", nested.Name)
		}
	}
	for i, sees := range content.Blocks.OfType("sees") {
		if i > 0 {
			p.failf(sees.DefRange, "Duplicate sees block", "A hook has one sees block.")
			continue
		}
		h.Sees = p.sees(sees, phase)
	}
	if a := content.Attributes["answers"]; a != nil {
		h.Answers = p.flag(a)
		if ok && phase != exchange.ResponsePhase {
			p.failf(a.Range, "Invalid answers", "Only a hook at response can be shown the gateway's own answers.")
		}
	}
	if !ok {
		return nil
	}
	return h
}

func (p *parser) sees(b *hcl.Block, phase exchange.Phase) Sees {
	content := p.content(b.Body, seesSchema)
	var s Sees
	if a := content.Attributes["headers"]; a != nil {
		words, ranges := p.words(a)
		for i, name := range words {
			name = strings.ToLower(name)
			switch {
			case name == "*" && len(words) > 1:
				p.failf(ranges[i], "Invalid headers", `"*" is every header and stands alone.`)
			case !headerPattern.MatchString(name):
				p.failf(ranges[i], "Invalid headers", "%s is no header name.", quote(name))
			case slices.Contains(s.Headers, name):
				p.failf(ranges[i], "Duplicate name", "%q is listed already.", name)
			default:
				s.Headers = append(s.Headers, name)
			}
		}
	}
	if a := content.Attributes["attributes"]; a != nil {
		words, ranges := p.words(a)
		for i, name := range words {
			if slices.Contains(s.Attributes, name) {
				p.failf(ranges[i], "Duplicate name", "%q is listed already.", name)
				continue
			}
			s.Attributes, s.AttributeRanges = append(s.Attributes, name), append(s.AttributeRanges, ranges[i])
		}
	}
	if a := content.Attributes["body"]; a != nil {
		s.Body = p.body(a)
		if s.Body.Mode != BodyNone && phase == exchange.AccountPhase {
			p.failf(a.Expr.Range(), "Invalid body", "At account the bodies are gone: only body = none is possible.")
		}
	}
	return s
}

func (p *parser) body(a *hcl.Attribute) Body {
	words := map[string]BodyMode{"none": BodyNone, "stream": BodyStream, "events": BodyEvents}
	if mode, ok := words[hcl.ExprAsKeyword(a.Expr)]; ok {
		return Body{Mode: mode}
	}
	call, diags := hcl.ExprCall(a.Expr)
	if diags.HasErrors() || call.Name != "buffer" || len(call.Arguments) != 1 {
		p.failf(a.Expr.Range(), "Invalid body", `There are: buffer("1MiB"), stream, events, none.`)
		return Body{}
	}
	size := p.value(call.Arguments[0])
	if size == cty.NilVal {
		return Body{}
	}
	v, err := (&Type{Name: "bytes", Cty: cty.Number}).read(size)
	if err != nil {
		p.failf(call.Arguments[0].Range(), "Invalid body", "The size of buffer: %s.", err)
		return Body{}
	}
	n, _ := v.AsBigFloat().Int64()
	if n < 1 || n > MaxBuffer {
		p.failf(call.Arguments[0].Range(), "Invalid body", "A buffer is 1B to %dMiB.", MaxBuffer>>20)
		return Body{}
	}
	return Body{Mode: BodyBuffer, Max: n}
}

// needs reads every hook's needs, once all hooks are known.
func (p *parser) needs(blocks hcl.Blocks, m *Manifest) {
	for _, b := range blocks.OfType("hook") {
		content, _, _ := b.Body.PartialContent(hookSchema)
		a := content.Attributes["needs"]
		if a == nil {
			continue
		}
		list, diags := hcl.ExprList(a.Expr)
		if diags.HasErrors() {
			p.failf(a.Expr.Range(), "Invalid needs", "needs is a list of phases, such as [admit].")
			continue
		}
		own, _ := exchange.ParsePhase(b.Labels[0])
		h := m.Hook(own)
		for _, e := range list {
			word := hcl.ExprAsKeyword(e)
			phase, ok := exchange.ParsePhase(word)
			switch {
			case !ok:
				p.failf(e.Range(), "Invalid needs", "needs lists phases without quotes.%s", Suggest(word, phases()))
			case word == b.Labels[0]:
				p.failf(e.Range(), "Invalid needs", "A hook does not need its own phase.")
			case m.Hook(phase) == nil:
				p.failf(e.Range(), "Invalid needs", "The manifest has no hook %q that could be needed.", word)
			case h != nil && slices.Contains(h.Needs, phase):
				p.failf(e.Range(), "Duplicate name", "%q is listed already.", word)
			case h != nil:
				h.Needs = append(h.Needs, phase)
			}
		}
	}
}

// members reads the argument and block blocks of a manifest, a hook or a block.
func (p *parser) members(blocks hcl.Blocks, nested bool) (arguments []*Argument, kinds []*Block) {
	for _, b := range blocks {
		switch b.Type {
		case "argument":
			if a := p.argument(b, nested); p.isNew(b, named(arguments, kinds, a.Name)) {
				arguments = append(arguments, a)
			}
		case "block":
			if k := p.block(b); p.isNew(b, named(arguments, kinds, k.Name)) {
				kinds = append(kinds, k)
			}
		}
	}
	return arguments, kinds
}

func named(arguments []*Argument, blocks []*Block, name string) bool {
	return slices.ContainsFunc(arguments, func(a *Argument) bool { return a.Name == name }) ||
		slices.ContainsFunc(blocks, func(b *Block) bool { return b.Name == name })
}

func (p *parser) block(b *hcl.Block) *Block {
	content := p.content(b.Body, blockSchema)
	k := &Block{Name: p.name(b), Range: b.DefRange}
	k.Arguments, k.Blocks = p.members(content.Blocks, true)
	if a := content.Attributes["labels"]; a != nil {
		words, ranges := p.words(a)
		for i, w := range words {
			switch {
			case !hclsyntax.ValidIdentifier(w):
				p.failf(ranges[i], "Invalid name", "%s is no name: letters, digits, _ and -, not beginning with a digit.", quote(w))
			case slices.Contains(k.Labels, w) || named(k.Arguments, k.Blocks, w):
				p.failf(ranges[i], "Duplicate name", "%q is declared already.", w)
			default:
				k.Labels = append(k.Labels, w)
			}
		}
	}
	k.Repeat, k.Required = p.flag(content.Attributes["repeat"]), p.flag(content.Attributes["required"])
	if a := content.Attributes["summary"]; a != nil {
		k.Summary = p.text(a)
	}
	return k
}

func (p *parser) argument(b *hcl.Block, nested bool) *Argument {
	content := p.content(b.Body, argumentSchema)
	set := content.Attributes
	a := &Argument{Name: p.name(b), Range: b.DefRange, Type: Type{Name: "string", Cty: cty.String}}
	typed := false
	if t := set["type"]; t != nil {
		parsed, diags := parseType(t.Expr)
		p.diags = append(p.diags, diags...)
		if typed = parsed != nil; typed {
			a.Type = *parsed
		}
	}
	a.Required, a.Sensitive, a.PerRequest = p.flag(set["required"]), p.flag(set["sensitive"]), p.flag(set["per_request"])
	if s := set["summary"]; s != nil {
		a.Summary = p.text(s)
	}
	p.constraints(a, set, typed)
	if a.PerRequest && nested {
		p.failf(set["per_request"].Range, "Invalid argument", "An argument of a nested block can not be per_request: only those of the config block have a place in the frame.")
	}
	if a.PerRequest && typed && a.Type.special() {
		p.failf(set["type"].Expr.Range(), "Invalid argument", "A per_request argument is made of string, number, bool, list, map and object: %s is read when the configuration loads.", a.Type.Name)
	}
	if d := set["default"]; d != nil {
		if a.Required {
			p.failf(d.Range, "Invalid argument", "A required argument has no use for a default: remove one of the two.")
		}
		if v := p.value(d.Expr); v != cty.NilVal && typed && !v.IsNull() {
			if err := a.check(v); err != nil {
				p.failf(d.Expr.Range(), "Invalid default", "The default of %s %s", a.Name, sentence(err))
			} else {
				a.Default, _ = a.Type.read(v)
			}
		}
	}
	return a
}

// constraints reads pattern and one_of.
func (p *parser) constraints(a *Argument, set hcl.Attributes, typed bool) {
	textual := !typed || a.Type.Name == "string" || a.Type.Elem != nil && a.Type.Elem.Name == "string"
	for _, name := range []string{"pattern", "one_of"} {
		c := set[name]
		switch {
		case c == nil:
			continue
		case !textual:
			p.failf(c.Range, "Invalid argument", "%s is for string, list(string) and map(string): %s is %s.", name, a.Name, a.Type.Name)
		case a.PerRequest:
			p.failf(c.Range, "Invalid argument", "%s can not be checked for a per_request argument: the plugin must.", name)
		}
		if name == "pattern" {
			a.Pattern = p.text(c)
			if _, err := regexp.Compile(a.Pattern); err != nil {
				p.failf(c.Expr.Range(), "Invalid pattern", "%s is no RE2 pattern: %s.", quote(a.Pattern), err)
				a.Pattern = ""
			}
			continue
		}
		words, ranges := p.words(c)
		for i, w := range words {
			if slices.Contains(a.OneOf, w) {
				p.failf(ranges[i], "Duplicate name", "%q is listed already.", w)
				continue
			}
			a.OneOf = append(a.OneOf, w)
		}
	}
}

// special reports whether text of the type, or of a part of it, is read when the configuration loads.
func (t *Type) special() bool {
	if t.reader() != nil || t.Elem != nil && t.Elem.special() {
		return true
	}
	for _, f := range t.Fields {
		if f.special() {
			return true
		}
	}
	return false
}

// name checks a block's first label.
func (p *parser) name(b *hcl.Block) string {
	if !hclsyntax.ValidIdentifier(b.Labels[0]) {
		p.failf(b.LabelRanges[0], "Invalid name", "%s is no name: letters, digits, _ and -, not beginning with a digit.", quote(b.Labels[0]))
	}
	return b.Labels[0]
}

func (p *parser) isNew(b *hcl.Block, exists bool) bool {
	if exists {
		p.failf(b.LabelRanges[0], "Duplicate name", "%q is declared already.", b.Labels[0])
	}
	return !exists
}

// value evaluates an expression that may use no names; cty.NilVal when it can not.
func (p *parser) value(e hcl.Expression) cty.Value {
	v, diags := e.Value(nil)
	p.diags = append(p.diags, diags...)
	if diags.HasErrors() || !v.IsWhollyKnown() {
		return cty.NilVal
	}
	return v
}

func (p *parser) text(a *hcl.Attribute) string {
	v := p.value(a.Expr)
	if v == cty.NilVal {
		return ""
	}
	if v.Type() != cty.String || v.IsNull() || strings.TrimSpace(v.AsString()) == "" {
		p.failf(a.Expr.Range(), "Invalid value", "%s is text in quotes, and not empty.", a.Name)
		return ""
	}
	return v.AsString()
}

// flag reads a bool; an argument that is not there is false.
func (p *parser) flag(a *hcl.Attribute) bool {
	if a == nil {
		return false
	}
	v := p.value(a.Expr)
	if v == cty.NilVal {
		return false
	}
	if v.Type() != cty.Bool || v.IsNull() {
		p.failf(a.Expr.Range(), "Invalid value", "%s is true or false.", a.Name)
		return false
	}
	return v.True()
}

// words reads a list of texts.
func (p *parser) words(a *hcl.Attribute) (words []string, ranges []hcl.Range) {
	list, diags := hcl.ExprList(a.Expr)
	if diags.HasErrors() {
		p.failf(a.Expr.Range(), "Invalid value", `%s is a list of texts, such as ["a", "b"].`, a.Name)
		return nil, nil
	}
	for _, e := range list {
		v := p.value(e)
		if v == cty.NilVal {
			continue
		}
		if v.Type() != cty.String || v.IsNull() || v.AsString() == "" {
			p.failf(e.Range(), "Invalid value", `%s is a list of texts, such as ["a", "b"].`, a.Name)
			continue
		}
		words, ranges = append(words, v.AsString()), append(ranges, e.Range())
	}
	return words, ranges
}

func (p *parser) failf(at hcl.Range, summary, format string, arguments ...any) {
	p.diags = append(p.diags, fault(at, summary, format, arguments...))
}

func fault(at hcl.Range, summary, format string, arguments ...any) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, arguments...), Subject: at.Ptr()}
}

func phases() []string {
	var names []string
	for phase := range exchange.PhaseCount {
		names = append(names, phase.String())
	}
	return names
}

// explain completes the messages about unknown names in a body that schema describes.
func explain(diags hcl.Diagnostics, schema *hcl.BodySchema) hcl.Diagnostics {
	var arguments, blocks []string
	for _, a := range schema.Attributes {
		arguments = append(arguments, a.Name)
	}
	for _, b := range schema.Blocks {
		blocks = append(blocks, b.Type)
	}
	for _, d := range diags {
		names := arguments
		switch d.Summary {
		case "Unsupported argument":
		case "Unsupported block type":
			names = blocks
		default:
			continue
		}
		if !strings.Contains(d.Detail, "Did you mean") {
			d.Detail += Suggest("", names)
		}
	}
	return diags
}

// Suggest ends a message about a name that is not known: with the known one that it resembles, else with all there are.
// It begins with a space, unless nothing is known.
func Suggest(name string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if d := levenshtein.Distance(strings.ToLower(name), strings.ToLower(k), nil); d < least && d*2 <= max(len(name), len(k)) {
			best, least = k, d
		}
	}
	switch {
	case best != "" && name != "":
		return fmt.Sprintf(" Did you mean %q?", best)
	case len(known) == 0:
		return ""
	}
	return " There are: " + strings.Join(known, ", ") + "."
}

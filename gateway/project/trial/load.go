package trial

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/fetch"
	"github.com/postern-gateway/postern/gateway/project/world"
	"github.com/postern-gateway/postern/gateway/route"
	"github.com/postern-gateway/postern/gateway/schema"
	"github.com/postern-gateway/postern/gateway/variable"
)

const (
	// PolicyFile is the file beside plugin.hcl that shows the plugin's use.
	PolicyFile = "policy.hcl"
	maxFile    = 1 << 20 // octets of one file
	maxFiles   = 100
)

// Load reads policy.hcl and *_test.hcl in a folder: the tests of a plugin. It goes on after a mistake; the diagnostics are
// all there are. The policies are those of policy.hcl, or made up where there is none.
func Load(dir string, p *config.Plugin) (trials []*Trial, policies []*config.Policy, sources schema.Sources, diags hcl.Diagnostics) {
	texts, err := read(dir)
	f := &schema.Findings{Dir: dir, Sources: texts, Used: map[string]bool{}}
	if err != nil {
		f.Errorf(schema.StartOf(PolicyFile), "Unreadable folder", "%s.", schema.Cause(err))
		return nil, nil, f.Sources, f.Tidy()
	}
	trials, policies = Parse(f, p)
	diags = f.Tidy()
	if diags.HasErrors() {
		return nil, nil, f.Sources, diags
	}
	return trials, policies, f.Sources, diags
}

// read returns the files by name.
func read(dir string) (schema.Sources, error) {
	names, err := filepath.Glob(filepath.Join(globless(dir), "*_test.hcl"))
	if err != nil {
		return nil, err
	}
	if len(names) > maxFiles {
		return nil, fmt.Errorf("there are more than %d files of tests", maxFiles)
	}
	texts := schema.Sources{}
	for _, name := range append(names, filepath.Join(dir, PolicyFile)) {
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if info.Size() > maxFile || !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is no file, or has more than %d octets", name, maxFile)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		texts[filepath.Base(name)] = text
	}
	return texts, nil
}

// globless keeps a folder's name from being taken for a pattern.
func globless(dir string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir)
}

// loader carries one Load along.
type loader struct {
	*variable.Names
	plugin   *config.Plugin
	policies *schema.Register[config.Policy]
	usual    []*config.Policy // for tests that name none
}

// Parse reads the sources of f, which are policy.hcl and test files by name. What is wrong goes to f.
func Parse(f *schema.Findings, p *config.Plugin) (trials []*Trial, usual []*config.Policy) {
	var blocks hcl.Blocks
	for _, name := range slices.Sorted(maps.Keys(f.Sources)) {
		kind := Language()
		if name == PolicyFile {
			kind = schema.PolicyFile()
		}
		if !f.Shallow(name) {
			continue
		}
		file, diags := hclsyntax.ParseConfig(f.Sources[name], name, hcl.InitialPos)
		f.Add(diags)
		if file != nil && file.Body != nil {
			blocks = append(blocks, schema.Content(f, file.Body, kind).Blocks...)
		}
	}
	l := &loader{Names: variable.Evaluate(f, blocks, variable.Outside{}), plugin: p}
	l.policies = config.Policies(l.Names, blocks, p)
	for _, n := range l.policies.List {
		if n.At.Filename == PolicyFile {
			l.usual = append(l.usual, n.Value)
			f.Used["policy."+n.Name] = true
		}
	}
	if l.usual == nil {
		l.usual = l.whole(blocks)
	}
	tests := schema.Register[Trial]{Kind: "test"}
	for _, b := range blocks {
		if b.Type == "test" {
			schema.Declare(f, &tests, b)
		}
	}
	for _, n := range tests.List {
		l.test(n)
	}
	if !f.Diags.HasErrors() {
		l.Unused()
		schema.Unused(f, l.policies, "policy")
	}
	return tests.Values(), l.usual
}

// whole makes a policy of every hook of the plugin, without arguments. Where the plugin needs some, tests have to name
// a policy that has them.
func (l *loader) whole(blocks hcl.Blocks) []*config.Policy {
	const name = "every hook"
	f := &schema.Findings{Sources: schema.Sources{name: Whole(l.plugin)}, Used: map[string]bool{}}
	file, diags := hclsyntax.ParseConfig(f.Sources[name], name, hcl.InitialPos)
	if diags.HasErrors() {
		return nil // the plugin's name is no name: reported where it was read
	}
	made := config.Policies(variable.Evaluate(f, nil, variable.Outside{}), schema.Content(f, file.Body, schema.PolicyFile()).Blocks, l.plugin)
	if !f.Diags.HasErrors() {
		return made.Values()
	}
	for _, b := range blocks {
		if b.Type != "test" {
			continue
		}
		if attributes, _ := b.Body.JustAttributes(); attributes["policies"] == nil {
			l.Errorf(b.DefRange, "Missing policy", "The plugin can not be used without arguments: %s Write a policy here or in %s, and name it: policies = [policy.name].", f.Diags[0].Detail, PolicyFile)
		}
	}
	return nil
}

// Whole is the text of a policy of every hook of a plugin, without arguments.
func Whole(p *config.Plugin) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "policy %q {\n", p.Name)
	for phase := range exchange.PhaseCount {
		if p.Manifest.Hook(phase) != nil {
			fmt.Fprintf(&b, "  %s %q {\n  }\n", phase, p.Name)
		}
	}
	b.WriteString("}\n")
	return []byte(b.String())
}

func (l *loader) test(n *schema.Named[Trial]) {
	language := Language()
	s := schema.Open(l, n.Block, language.Find("test"))
	t := n.Value
	*t = Trial{Name: n.Name, Range: s.At, Policies: l.usual, Grants: l.plugin.Grants, Refused: s.Text("refused")}
	if e := s.Expr("policies"); e != nil {
		t.Policies = schema.ReferAll(l.Findings, l.policies, e)
	}
	if s.Set("grants") {
		t.Grants = s.Words("grants")
		for _, g := range t.Grants {
			if !l.plugin.Manifest.Asks(g) {
				l.Errorf(s.Where("grants"), "Useless grant", "The plugin does not ask for %s.", g)
			}
		}
	}
	l.world(t, s)
	l.answers(t, s)
	several := s.All("exchange")
	for _, e := range several {
		t.exchanges = append(t.exchanges, l.exchange(e, e.Span("after")))
	}
	single := s.Block("request") != nil || s.Block("expect") != nil
	switch {
	case single && len(several) > 0:
		l.Errorf(s.At, "Two ways", "A test has either request and expect, or exchange blocks that hold them.")
	case t.Refused != "" && (single || len(several) > 0):
		l.Errorf(s.Where("refused"), "Useless exchange", "Nothing is sent to a plugin that refuses its configuration: remove request, expect and exchange, or refused.")
	case t.Refused == "" && len(several) == 0:
		t.exchanges = []*step{l.exchange(s, 0)}
	}
}

func (l *loader) world(t *Trial, s *schema.Section) {
	t.World = world.Config{Accounts: map[string]exchange.Identity{}, Balances: map[string]int64{}}
	for _, a := range s.All("account") {
		name, key := a.Labels[0], a.Text("key")
		if _, ok := t.World.Balances[name]; ok {
			l.Errorf(a.At, "Duplicate name", "There is an account %q in this test already.", name)
		}
		t.World.Balances[name] = a.Count("balance")
		scopes := a.Texts("scopes")
		if key == "" {
			continue
		}
		if _, ok := t.World.Accounts[key]; ok {
			l.Errorf(a.Where("key"), "Duplicate key", "Another account of this test has the same key.")
		}
		t.World.Accounts[key] = exchange.Identity{Account: name, Key: "key-" + name, Name: name, Scopes: scopes}
	}
}

// answers reads what fetches are answered with.
func (l *loader) answers(t *Trial, s *schema.Section) {
	t.World.Fetches = map[string]fetch.Answer{}
	for _, f := range s.All("fetch") {
		name := f.Labels[0]
		if _, ok := t.World.Fetches[name]; ok {
			l.Errorf(f.At, "Duplicate name", "This test answers the fetch %q already.", name)
		}
		a := fetch.Answer{Status: int(f.Count("status")), Header: l.header(f, "headers"), Body: []byte(f.Text("body")), Error: f.Word("error"), Cached: f.Flag("cached")}
		for _, other := range []string{"status", "headers", "body", "cached"} {
			if a.Error != "" && f.Set(other) {
				l.Errorf(f.Where(other), "No answer", "A fetch that fails has no %s: remove it, or error.", other)
			}
		}
		t.World.Fetches[name] = a
	}
}

func (l *loader) exchange(s *schema.Section, after time.Duration) *step {
	q := s.One("request")
	st := &step{at: s.At, after: after, body: q.Text("body"), gone: q.Flag("gone")}
	st.request.Request = l.request(q)
	if account := q.Text("account"); account != "" {
		st.request.Identity = exchange.Identity{Account: account, Key: "key-" + account, Name: account, Scopes: q.Texts("scopes")}
	} else if q.Set("scopes") {
		l.Errorf(q.Where("scopes"), "Missing account", "scopes are those of an account: add account.")
	}
	if c := q.One("call"); c.Given {
		st.request.Call = l.call(c)
	}
	r := q.One("reply")
	st.reply = reply{status: int(r.Count("status")), header: l.header(r, "headers"), parts: r.Texts("parts"), usage: l.usage(r, "usage")}
	if body := r.Text("body"); r.Set("body") && r.Set("parts") {
		l.Errorf(r.Where("parts"), "Two bodies", "A reply has either body or parts.")
	} else if body != "" {
		st.reply.parts = []string{body}
	}
	e := s.One("expect")
	if !e.Given {
		l.Errorf(s.At, "Missing block", "Nothing is expected here: add an expect block.")
	}
	l.expect(st, e)
	return st
}

func (l *loader) request(q *schema.Section) exchange.Request {
	r := exchange.Request{
		Protocol: exchange.HTTP1, Method: q.Text("method"), Scheme: "https", Authority: strings.ToLower(q.Text("host")),
		Path: "/", Header: l.header(q, "headers"),
	}
	target, err := url.ParseRequestURI(q.Text("path"))
	if err == nil {
		r.Path, err = route.Canonical(target.EscapedPath())
		r.Query = target.RawQuery
	}
	if err != nil || target.IsAbs() {
		l.Errorf(q.Where("path"), "Invalid path", "The path of a request begins with a slash and is written as in a request.")
	}
	remote, err := netip.ParseAddr(q.Text("remote"))
	if err != nil {
		l.Errorf(q.Where("remote"), "Invalid address", "remote must be an IP address, such as \"192.0.2.1\".")
	}
	r.Remote = netip.AddrPortFrom(remote, 1)
	return r
}

func (l *loader) call(c *schema.Section) exchange.Call {
	call := exchange.Call{Format: c.Text("format"), Operation: c.Text("operation"), Model: c.Text("model"), Stream: c.Flag("stream"), Max: l.usage(c, "max")}
	for _, t := range c.All("target") {
		target := exchange.Target{Upstream: t.Labels[0], Model: t.Text("model"), Weight: int(t.Count("weight")), Healthy: t.Flag("healthy")}
		if target.Model == "" {
			target.Model = call.Model
		}
		call.Targets = append(call.Targets, target)
	}
	return call
}

// header reads a table of fields; names are made lower case.
func (l *loader) header(s *schema.Section, name string) exchange.Header {
	var h exchange.Header
	for _, e := range s.Table(name) {
		if key := strings.ToLower(e.Key); key == "" || strings.Trim(key, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") != "" {
			l.Errorf(e.At, "Invalid header", "%q is no header name: letters, digits and - make one.", e.Key)
		} else if schema.Textual(e.Value) {
			h.Add(key, e.Value.AsString())
		}
	}
	return h
}

// numbers reads an object of whole numbers.
func (l *loader) numbers(s *schema.Section, name string) map[string]int64 {
	v, ok := s.Any(name)
	if !ok {
		return nil
	}
	if t := v.Type(); !t.IsObjectType() && !t.IsMapType() {
		l.Errorf(s.Where(name), "Invalid value", "%s must be a map of whole numbers, such as { name = 1 }.", name)
		return nil
	}
	list := map[string]int64{}
	for key, e := range v.AsValueMap() {
		n, exact := int64(0), false
		if e.Type() == cty.Number && e.IsKnown() && !e.IsNull() {
			f := e.AsBigFloat()
			if i, accuracy := f.Int64(); accuracy == 0 {
				n, exact = i, true
			}
		}
		if !exact || n < 0 || n == math.MaxInt64 {
			l.Errorf(s.Where(name), "Invalid value", "%s must be a map of whole numbers of at least 0; %s is none.", name, key)
			continue
		}
		list[key] = n
	}
	return list
}

func (l *loader) usage(s *schema.Section, name string) (u exchange.Usage) {
	for _, key := range slices.Sorted(maps.Keys(l.numbers(s, name))) {
		unit, ok := exchange.ParseUnit(key)
		if !ok {
			var units []string
			for i := range exchange.UnitCount {
				units = append(units, i.String())
			}
			l.Errorf(s.Where(name), "Unknown unit", "There is no unit %q.%s", key, schema.Choices(key, units))
			continue
		}
		u.Units[unit] = l.numbers(s, name)[key]
	}
	return u
}

package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/expr"
	"github.com/postern-gateway/postern/gateway/overload"
	"github.com/postern-gateway/postern/gateway/privacy"
	"github.com/postern-gateway/postern/gateway/privacy/field"
	"github.com/postern-gateway/postern/gateway/schema"
)

func (l *loader) respond(s *schema.Section) *Respond {
	return &Respond{Status: int(s.Count("status")), Headers: l.Header(s, "headers"), Body: s.Text("body")}
}

func (l *loader) routeBlocks() {
	kind := l.main.Find("route")
	for _, n := range l.routes.List {
		s := schema.Open(l, n.Block, kind)
		r := n.Value
		*r = Route{Name: n.Name, Summary: s.Text("summary"), Console: s.Flag("console"), Priority: overload.ParsePriority(s.Word("priority")), Timeout: s.Span("timeout"), Durability: s.Word("durability"), OnDisconnect: s.Word("on_disconnect"), Replay: s.Span("replay"), Range: s.At}
		if e := s.Expr("listener"); e != nil {
			if r.Listeners = schema.ReferAll(l.Findings, &l.listeners, e); len(r.Listeners) == 0 && schema.IsEmpty(e) {
				l.Errorf(e.Range(), "No listener", "A route is reached through at least one listener.")
			}
		}
		if e := s.Expr("policies"); e != nil {
			r.Policies = schema.ReferAll(l.Findings, &l.policies, e)
		}
		if e := s.Expr("when"); e != nil {
			r.When = l.Compile(e, exchange.Authenticate, cty.Bool)
			if r.When != nil && slices.ContainsFunc(r.When.Uses(), func(name string) bool { return strings.HasPrefix(name, "attribute") }) {
				l.Errorf(e.Range(), "Not known yet", "No stage has run when a route is chosen, so there are no attributes. Use request, listener and route.")
			}
		}
		r.Pattern = l.Pattern(s)
		l.destination(n, s)
		l.chain(r)
		if b := s.One("creations"); b.Given {
			l.creations(r, b)
		}
		l.facts.Ways = append(l.facts.Ways, privacy.Way{Route: r.Name, At: r.Range, ReplayAt: s.Where("replay")})
	}
	l.ambiguous()
}

// destination reads where a route leads to.
func (l *loader) destination(n *schema.Named[Route], s *schema.Section) {
	r := n.Value
	ways := 0
	if e := s.Expr("upstream"); e != nil {
		ways++
		if u, ok := schema.Refer(l.Findings, &l.upstreams, e); ok {
			r.Upstream = u.Value
		}
	}
	if e := s.Expr("models"); e != nil {
		ways++
		if r.Models = schema.ReferAll(l.Findings, &l.models, e); len(r.Models) == 0 && schema.IsEmpty(e) {
			l.Errorf(e.Range(), "No model", "A route with models names at least one.")
		}
		if r.Pattern != nil && len(r.Models) > 0 {
			l.operation(r, s)
		}
	}
	if b := s.One("respond"); b.Given {
		ways++
		r.Respond = l.respond(b)
	}
	if r.Console {
		ways++
		if p := r.Pattern; p != nil && (p.Method() != "" || p.Path() != "/") {
			l.Errorf(s.Where("match"), "Not the console's place", "The console's pages are below /: write match = \"/\", or a host and a slash, such as \"console.example.com/\".")
		}
	}
	switch {
	case ways == 0:
		l.Errorf(n.At, "Missing destination", "The route leads nowhere: give upstream, models, console or a respond block.")
	case ways > 1:
		l.Errorf(n.At, "Two destinations", "A route leads to one place: give exactly one of upstream, models, console and respond.")
	}
}

// creations reads how replies are kept for their callers.
func (l *loader) creations(r *Route, s *schema.Section) {
	r.Creations = &Creations{Keep: s.Span("keep"), Item: s.Size("item"), Account: s.Size("account")}
	l.facts.Stores = append(l.facts.Stores, privacy.Storing{Feature: field.Creations, Keep: r.Creations.Keep, At: s.Where("keep")})
	made := r.Respond == nil
	for _, f := range l.opt.Formats {
		if r.Pattern != nil && f.Name() == r.Format {
			op, _ := f.Operation(r.Pattern.Method(), r.Pattern.Path())
			made = made && op.Billed
		}
	}
	switch {
	case !made:
		l.Errorf(s.At, "Nothing to keep", "Route %q is answered from the configuration, which is nobody's creation.", r.Name)
	case len(r.Chain()[exchange.Authenticate]) == 0:
		l.Errorf(s.At, "Nobody to keep it for", "Route %q has no authenticate stage, so nobody is known whose creation a reply could be.", r.Name)
	}
}

// operation finds which call of which provider format a route with models takes.
func (l *loader) operation(r *Route, s *schema.Section) {
	for _, f := range l.opt.Formats {
		if op, ok := f.Operation(r.Pattern.Method(), r.Pattern.Path()); ok {
			r.Format, r.Operation = f.Name(), op.Name
			break
		}
	}
	if r.Format == "" {
		l.Errorf(s.Where("match"), "Unknown operation", "No provider format has a call with this method and path (formats: %s). Write both as the format has them, such as \"POST /v1/chat/completions\".", strings.Join(l.formats(), ", "))
		return
	}
	for _, m := range r.Models {
		for _, t := range m.Targets {
			if t.Upstream != nil && t.Upstream.Format != "" && t.Upstream.Format != r.Format {
				l.Errorf(s.Where("models"), "Different formats", "Callers of this route speak %s, and model %q leads to upstream %q, which speaks %s.", r.Format, m.Name, t.Upstream.Name, t.Upstream.Format)
			}
		}
	}
}

// Chain returns the stages that run for the route, phase by phase: in each, by the order of the route's policies, then
// by that of the file.
func (r *Route) Chain() [exchange.PhaseCount][]*Stage {
	var chain [exchange.PhaseCount][]*Stage
	for _, p := range r.Policies {
		for _, s := range p.Stages {
			chain[s.Phase] = append(chain[s.Phase], s)
		}
	}
	return chain
}

// chain checks what only the whole of a route's policies shows.
func (l *loader) chain(r *Route) {
	chain := r.Chain()
	for _, stages := range chain {
		for _, s := range stages {
			if len(chain[exchange.Authenticate]) == 0 && s.identity() {
				l.Warnf(s.Range, "No identity", "This uses identity, but route.%s has no authenticate stage, so nobody is ever known there.", r.Name)
			}
			if s.Hook == nil {
				continue
			}
			for _, need := range s.Hook.Needs {
				if !slices.ContainsFunc(chain[need], func(o *Stage) bool { return o.Plugin == s.Plugin }) {
					l.Errorf(s.Range, "Missing stage", "At %s the plugin %q needs a stage at %s before it, and route.%s has none. Add: %s %q {}.", s.Phase, s.Plugin.Name, need, r.Name, need, s.Plugin.Name)
				}
			}
		}
	}
}

// identity reports whether a stage's expressions ask who calls.
func (s *Stage) identity() bool {
	programs := append([]*expr.Program{s.When}, s.Arguments...)
	if s.Require != nil {
		programs = append(programs, s.Require.Condition)
	}
	return slices.ContainsFunc(programs, func(p *expr.Program) bool {
		return p != nil && slices.ContainsFunc(p.Uses(), func(name string) bool { return strings.HasPrefix(name, "identity.") })
	})
}

// ambiguous finds pairs of routes neither of which is preferred. Routes that share no listener never meet, and those
// with different conditions are tried in turn.
func (l *loader) ambiguous() {
	// Only patterns with the same first segment, or with a wildcard there, can meet: ten thousand routes are not
	// compared pair by pair.
	groups := map[string][]*schema.Named[Route]{}
	for _, n := range l.routes.List {
		if n.Value.Pattern == nil {
			continue
		}
		first, _, _ := strings.Cut(n.Value.Pattern.Path()[1:], "/")
		if strings.HasPrefix(first, "{") || first == "" {
			first = ""
		}
		rivals := groups[first]
		if first != "" {
			rivals = slices.Concat(rivals, groups[""])
		} else {
			rivals = nil
			for _, g := range groups {
				rivals = append(rivals, g...)
			}
		}
		for _, other := range rivals {
			l.compare(other, n)
		}
		groups[first] = append(groups[first], n)
	}
}

func (l *loader) compare(a, b *schema.Named[Route]) {
	meet := slices.ContainsFunc(a.Value.Listeners, func(li *Listener) bool { return slices.Contains(b.Value.Listeners, li) })
	if !meet || condition(a.Value) != condition(b.Value) {
		return
	}
	if why, conflict := a.Value.Pattern.Conflicts(b.Value.Pattern); conflict {
		l.Errorf(b.Value.Range, "Ambiguous route", "route.%s (%s) and route.%s at %s (%s) can match the same request, and neither is more specific: %s.",
			b.Name, b.Value.Pattern, a.Name, a.Value.Range, a.Value.Pattern, strings.TrimSuffix(why, "."))
	}
}

func condition(r *Route) string {
	if r.When == nil {
		return ""
	}
	return fmt.Sprint("when ", r.When.Source())
}

// writes reports whether a block holds an argument, right or wrong.
func writes(b *hcl.Block, name string) bool {
	content, _, _ := b.Body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: name}}})
	return content.Attributes[name] != nil
}

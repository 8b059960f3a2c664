package config

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/expr"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/schema"
)

func (l *loader) policyBlocks() {
	kind := l.policy.Find("policy")
	for _, n := range l.policies.List {
		content := schema.Content(l, n.Block.Body, kind)
		s := schema.Over(l, content, kind, n.Block.DefRange)
		*n.Value = Policy{Name: n.Name, Summary: s.Text("summary"), Range: s.At}
		requires := map[string]bool{}
		for _, b := range content.Blocks {
			var stage *Stage
			if b.Type == "require" {
				if requires[b.Labels[0]] {
					l.Errorf(b.LabelRanges[0], "Duplicate name", "There is a require named %q in this policy already. Choose another name.", b.Labels[0])
				}
				requires[b.Labels[0]] = true
				stage = l.require(b)
			} else {
				stage = l.stage(b)
			}
			stage.Policy = n.Name
			n.Value.Stages = append(n.Value.Stages, stage)
		}
		if len(content.Blocks) == 0 {
			l.Warnf(n.At, "Empty policy", "The policy %q has no stage, so it does nothing.", n.Name)
		}
	}
}

func (l *loader) require(b *hcl.Block) *Stage {
	kind := l.policy.Find("policy").Find("require")
	s := schema.Open(l, b, kind)
	r := &Require{Name: b.Labels[0], Status: int(s.Count("status")), Message: s.Text("message")}
	stage := &Stage{Phase: exchange.Authorize, Require: r, Config: cty.EmptyObjectVal, Range: b.DefRange}
	if !schema.NamePattern.MatchString(r.Name) {
		l.Errorf(b.LabelRanges[0], "Invalid name", "The name of a require must be a letter, then letters, digits, _ or -, at most 63.")
	}
	if e := s.Expr("condition"); e != nil {
		// Compiled for the last phase before the upstream is called: later a refusal would come too late.
		if r.Condition = l.Compile(e, exchange.RequestPhase, cty.Bool); r.Condition != nil {
			stage.Phase = max(exchange.Authorize, r.Condition.Since())
			if v, ok := r.Condition.Constant(); ok && v.IsKnown() && v.True() {
				l.Warnf(e.Range(), "Useless require", "The condition always holds, so nothing is required.")
			}
		}
	}
	return stage
}

func (l *loader) stage(b *hcl.Block) *Stage {
	phase, _ := exchange.ParsePhase(b.Type)
	kind := l.policy.Find("policy").Find(b.Type)
	s := schema.Open(l, b, kind)
	stage := &Stage{Phase: phase, Timeout: s.Span("timeout"), Allow: s.Word("on_error") == "allow", Config: cty.EmptyObjectVal, Range: b.DefRange}
	if e := s.Expr("when"); e != nil {
		stage.When = l.Compile(e, phase, cty.Bool)
	}
	name := b.Labels[0]
	p := l.plugins.ByName[name]
	if p == nil {
		l.Errorf(b.LabelRanges[0], "Unknown reference", "There is no plugin named %q.%s", name, schema.Choices(name, l.plugins.Names()))
		return stage
	}
	l.Used["plugin."+name] = true
	stage.Plugin = p.Value
	if !s.Set("timeout") {
		stage.Timeout += p.Value.Fetch.Timeout // what it awaits is part of its time
	}
	m := p.Value.Manifest
	if m == nil {
		return stage
	}
	if stage.Hook = m.Hook(phase); stage.Hook == nil {
		var hooks []string
		for _, h := range m.Hooks {
			hooks = append(hooks, h.Phase.String())
		}
		l.Errorf(b.TypeRange, "Unsupported phase", "The plugin %q does nothing at phase %s.%s", name, phase, schema.ThereAre(hooks))
		return stage
	}
	l.configure(stage, s.Block("config"))
	return stage
}

// configure reads a stage's config block by the plugin's manifest.
func (l *loader) configure(stage *Stage, b *hcl.Block) {
	m := stage.Plugin.Manifest
	slots := m.PerRequest(stage.Hook)
	var body hcl.Body
	named := true
	if b != nil {
		body = b.Body
		named = l.names(body, slots)
	}
	value, perRequest, diags := m.Decode(stage.Hook, body, l.Context)
	missing := map[string]bool{}
	for _, d := range diags {
		if d.Subject == nil {
			at := stage.Range
			d.Subject = &at
		}
		// That an argument is missing is said by HCL, by the manifest, or by both.
		if about, _, _ := strings.Cut(d.Detail, ", but"); strings.HasPrefix(d.Summary, "Missing") {
			if missing[about] {
				continue
			}
			missing[about] = true
		}
		// A name that is not known was reported with what there is; what follows from it says nothing new.
		if named || strings.HasPrefix(d.Summary, "Unsupported") && d.Summary != "Unsupported attribute" || strings.HasPrefix(d.Summary, "Missing") {
			l.Report(d)
		}
	}
	if !diags.HasErrors() {
		stage.Config = value
	}
	for _, a := range slots {
		var p *expr.Program
		if e := perRequest[a.Name]; e != nil {
			p = l.Compile(e, stage.Phase, a.Type.Cty)
		}
		stage.Arguments = append(stage.Arguments, p)
	}
}

// names checks the names that a config block's load-time arguments use. Those evaluated for each request are checked
// as they are compiled.
func (l *loader) names(body hcl.Body, perRequest []*manifest.Argument) bool {
	b, ok := body.(*hclsyntax.Body)
	if !ok {
		return true
	}
	known := true
	for _, a := range b.Attributes {
		if !slices.ContainsFunc(perRequest, func(r *manifest.Argument) bool { return r.Name == a.Name }) {
			for _, t := range a.Expr.Variables() {
				known = l.Known(t) && known
			}
		}
	}
	for _, nested := range b.Blocks {
		known = l.names(nested.Body, nil) && known
	}
	return known
}

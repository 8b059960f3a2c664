package privacy

import (
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/schema"
)

func TestSpan(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration][2]string{
		WithAccount: {"for as long as the account exists", "账户存续期间"}, Forever: {"without end", "长期保存"},
		day: {"for 1 day", "1 天"}, 400 * day: {"for 400 days", "400 天"}, 36 * time.Hour: {"for 36 hours", "36 小时"}, time.Minute: {"for 1 minute", "1 分钟"}, 1500 * time.Millisecond: {"for 1.5s", "1.5s"},
	} {
		if got := Span(d); got.En != want[0] || got.Zh != want[1] {
			t.Errorf("%s: %v", d, got)
		}
	}
}

func TestLonger(t *testing.T) {
	t.Parallel()
	ascending := []time.Duration{time.Minute, day, 400 * day, WithAccount, Forever}
	for i, a := range ascending {
		for j, b := range ascending {
			if longer(a, b) != (i > j) {
				t.Errorf("longer(%s, %s) is %v", a, b, longer(a, b))
			}
		}
	}
}

// TestBuiltIn: the classes that are built in hold every field of the register once, have all they need, and take the
// longest time that something is kept.
func TestBuiltIn(t *testing.T) {
	t.Parallel()
	p := &Policy{Classes: builtin()}
	for _, name := range fieldNames() {
		if n := len(slices.DeleteFunc(slices.Clone(p.Classes), func(c *Class) bool { return !slices.Contains(c.Fields, name) })); n != 1 {
			t.Errorf("%s is in %d classes", name, n)
		}
	}
	for _, c := range p.Classes {
		if c.Summary.En == "" || c.Summary.Zh == "" || len(c.Purposes) == 0 || c.Basis == "" || len(c.Fields) == 0 {
			t.Errorf("%+v lacks something", c)
		}
	}
	for name, class := range map[string]string{"header.x-team": "device", "attribute.jwt.team": "account", "prompt": "content"} {
		if c := p.ClassOf(name); c == nil || c.Name != class {
			t.Errorf("%s is in %v", name, c)
		}
	}
	if p.ClassOf("nothing") != nil {
		t.Error("what there is not belongs to a class")
	}
	if p.Written = true; p.ClassOf("header.x-team") != nil || p.ClassOf("header.other") == nil {
		t.Error("with a privacy block, a header has to be named")
	}
	p.Written = false
	f := &schema.Findings{}
	p.Check(f, Facts{Stores: []Storing{{Feature: "replays", Keep: 90 * day}, {Feature: "replays", Keep: day}, {Feature: "ledger", Keep: Forever}, {Feature: "cache", Memory: true}}})
	if len(f.Diags) > 0 || p.Class("content").Retention != 90*day || p.Class("billing").Retention != Forever {
		t.Error(f.Diags, p.Class("content").Retention, p.Class("billing").Retention)
	}
}

// TestConsents: what an upstream may have only with consent.
func TestConsents(t *testing.T) {
	t.Parallel()
	p := &Policy{Classes: builtin()}
	p.Class("content").Basis = Consent
	f := &schema.Findings{}
	yes := true
	p.Check(f, Facts{
		Ways: []Way{{Route: "chat", Model: true, Upstreams: []string{"a"}}, {Route: "rest", Upstreams: []string{"b"}},
			{Route: "asks", Steps: []Step{{Plugin: "jwt", Attributes: []string{"request.path"}, Asks: []string{"upstream.c", "https://x.example"}}}}},
		Receivers: []Receiver{{Name: "a", Provider: Provider{Training: &yes}}, {Name: "b"}, {Name: "c"}, {Name: "d", Provider: Provider{Training: &yes}}},
	})
	if len(f.Diags) > 0 {
		t.Error(f.Diags)
	}
	for name, want := range map[string]int{"a": 1, "b": 1, "c": 1, "d": 0} {
		if got := p.Consents(name); len(got) != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	p = &Policy{Classes: builtin()}
	p.Check(f, Facts{Ways: []Way{{Route: "chat", Model: true, Upstreams: []string{"a"}}}, Receivers: []Receiver{{Name: "a", Provider: Provider{Training: &yes}}}})
	if len(f.Diags) != 1 || f.Diags[0].Summary != "Training without consent" {
		t.Error(f.Diags)
	}
}

// TestEqual: where something is written makes no difference, what is written does.
func TestEqual(t *testing.T) {
	t.Parallel()
	yes, no, too := true, false, true
	base := Provider{Recipient: "A", Shares: []string{"content"}, Limited: true, Known: true, Retention: day, Training: &yes}
	same := base
	same.Training, same.sharesAt = &too, hcl.Range{Filename: "x"}
	if !base.Equal(&same) {
		t.Error("the same is not equal")
	}
	for what, change := range map[string]func(*Provider){
		"recipient": func(p *Provider) { p.Recipient = "B" }, "shares": func(p *Provider) { p.Shares = nil }, "limited": func(p *Provider) { p.Limited = false },
		"known": func(p *Provider) { p.Known = false }, "retention": func(p *Provider) { p.Retention = 0 },
		"training": func(p *Provider) { p.Training = &no }, "training unknown": func(p *Provider) { p.Training = nil },
	} {
		other := base
		change(&other)
		if base.Equal(&other) {
			t.Errorf("%s makes no difference", what)
		}
	}
}

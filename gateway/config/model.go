package config

import (
	"cmp"
	"slices"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/schema"
)

func (l *loader) modelBlocks() {
	kind := l.main.Find("model")
	for _, n := range l.models.List {
		s := schema.Open(l, n.Block, kind)
		*n.Value = Model{Name: n.Name, Summary: s.Text("summary"), MaxOutput: s.Count("max_output"), Range: s.At}
		for _, t := range s.All("target") {
			l.target(n.Value, t)
		}
		for _, p := range s.All("price") {
			l.price(n.Value, p)
		}
		slices.SortStableFunc(n.Value.Prices, func(a, b *exchange.Price) int { return a.Effective.Compare(b.Effective) })
		if len(n.Value.Targets) > 0 && !slices.ContainsFunc(n.Value.Targets, func(t *Target) bool { return t.Weight > 0 }) {
			l.Errorf(n.Value.Targets[0].Range, "No target", "All targets of the model have weight 0, so none would be tried first.")
		}
	}
}

func (l *loader) target(m *Model, s *schema.Section) {
	t := &Target{Model: s.Text("model"), Weight: int(s.Count("weight")), Range: s.At}
	m.Targets = append(m.Targets, t)
	if e := s.Expr("when"); e != nil {
		t.When = l.Compile(e, exchange.Route, cty.Bool)
	}
	if e := s.Expr("upstream"); e != nil {
		if u, ok := schema.Refer(l.Findings, &l.upstreams, e); ok {
			t.Upstream = u.Value
			if f := u.Value.Format; f == "" && !writes(u.Block, "format") {
				l.Errorf(e.Range(), "Missing format", "A model needs an upstream that speaks a provider's format: add format to upstream %q.%s", u.Name, schema.ThereAre(l.formats()))
			}
		}
	}
}

// price reads one price row.
func (l *loader) price(m *Model, s *schema.Section) {
	p := &exchange.Price{Name: m.Name}
	per := s.Count("per")
	p.Per, p.Set = l.prices(s, per)
	if text := s.Text("effective"); text != "" {
		when, err := time.Parse(time.DateOnly, text)
		if err != nil {
			when, err = time.Parse(time.RFC3339, text)
		}
		if err != nil {
			l.Errorf(s.Where("effective"), "Invalid time", "effective is a day such as \"2026-01-31\" or a time such as \"2026-01-31T12:00:00Z\".")
		}
		p.Effective, p.Name = when.UTC(), m.Name+"@"+text
	}
	for _, other := range m.Prices {
		if other.Effective.Equal(p.Effective) {
			l.Errorf(s.At, "Duplicate price", "Another price of this model applies from the same time. Give each row an effective time of its own.")
			return
		}
	}
	for _, t := range s.All("tier") {
		tier := exchange.Tier{Above: t.Count("above")}
		tier.Per, tier.Set = l.prices(t, per)
		if slices.ContainsFunc(p.Tiers, func(o exchange.Tier) bool { return o.Above == tier.Above }) {
			l.Errorf(t.Where("above"), "Duplicate tier", "Another tier of this price begins above %d. Give each a bound of its own.", tier.Above)
			continue
		}
		p.Tiers = append(p.Tiers, tier)
	}
	slices.SortFunc(p.Tiers, func(a, b exchange.Tier) int { return cmp.Compare(a.Above, b.Above) })
	m.Prices = append(m.Prices, p)
}

// prices reads the prices of a row or a tier as what one unit costs, exactly.
func (l *loader) prices(s *schema.Section, per int64) (one [exchange.UnitCount]exchange.Amount, set [exchange.UnitCount]bool) {
	some := false
	for u := range exchange.UnitCount {
		if !s.Set(u.String()) {
			continue
		}
		some = true
		if a, ok := l.Amount(s, u.String(), per); ok {
			one[u], set[u] = a, true
		}
	}
	if !some {
		l.Errorf(s.At, "Missing price", "A row prices at least one unit, such as input. Remove the block if the model is free.")
	}
	return one, set
}

// PriceAt is the row of the model's price list in force at a moment; nil when the model is free then.
func (m *Model) PriceAt(at time.Time) *exchange.Price {
	var row *exchange.Price
	for _, p := range m.Prices {
		if !p.Effective.After(at) {
			row = p
		}
	}
	return row
}

package exchange

import "time"

// Price is one row of a model's price list: what each unit costs, exactly.
type Price struct {
	Name      string            // names the row on receipts, such as "small@2026-01-01"
	Per       [UnitCount]Amount // price of ONE unit; zero is free
	Set       [UnitCount]bool   // whether the row gives the unit a price of its own
	Effective time.Time         // the row applies to calls from then on; zero: always
	Tiers     []Tier            // ascending by Above; the last whose Above is below the prompt's tokens applies
}

// Tier replaces prices when a prompt is longer than Above tokens.
type Tier struct {
	Above int64
	Per   [UnitCount]Amount
	Set   [UnitCount]bool
}

// fallback says which unit's price applies to a unit that has none of its own: a cached, image or audio input token is
// an input token, a reasoning, image or audio output token an output token. Units without a fallback are then free.
func fallback(u Unit) (Unit, bool) {
	switch u {
	case CachedInput, CacheWrite, CacheWriteLong, ImageInput, AudioInput:
		return Input, true
	case Reasoning, ImageOutput, AudioOutput:
		return Output, true
	}
	return 0, false
}

// Of returns what one unit costs in a call whose prompt has that many tokens.
func (p *Price) Of(u Unit, prompt int64) Amount {
	per, set := &p.Per, &p.Set
	for i := range p.Tiers {
		if prompt > p.Tiers[i].Above {
			per, set = &p.Tiers[i].Per, &p.Tiers[i].Set
		}
	}
	if set[u] {
		return per[u]
	}
	if per != &p.Per && p.Set[u] {
		return p.Per[u]
	}
	if f, ok := fallback(u); ok {
		return p.Of(f, prompt)
	}
	return Amount{}
}

// Cost returns what usage costs. ok is false when the sum does not fit in an Amount.
func (p *Price) Cost(usage *Usage) (total Amount, ok bool) {
	prompt := usage.Prompt()
	for u, n := range usage.Units {
		if n <= 0 {
			continue
		}
		part, fits := p.Of(Unit(u), prompt).Times(n)
		if !fits {
			return Amount{}, false
		}
		total = total.Add(part)
		if total.Sign() < 0 {
			return Amount{}, false
		}
	}
	return total, true
}

// Most returns the highest price any reading of usage can cost: a cached or a long prompt may be dearer than a plain one,
// and a hold must cover whatever the provider reports. Input and Output of max stand for all their kinds.
func (p *Price) Most(max *Usage) (total Amount, ok bool) {
	dearest := func(prompt int64, units ...Unit) Amount {
		var a Amount
		for _, u := range units {
			if c := p.Of(u, prompt); c.Cmp(a) > 0 {
				a = c
			}
		}
		return a
	}
	prompts := []int64{max.Prompt(), 0}
	for i := range p.Tiers {
		if p.Tiers[i].Above < max.Prompt() {
			prompts = append(prompts, p.Tiers[i].Above, p.Tiers[i].Above+1)
		}
	}
	for _, prompt := range prompts {
		in, ok1 := dearest(prompt, Input, CachedInput, CacheWrite, CacheWriteLong, ImageInput, AudioInput).Times(max.Prompt())
		out, ok2 := dearest(prompt, Output, Reasoning, ImageOutput, AudioOutput).Times(max.Completion())
		sum := in.Add(out)
		good := ok1 && ok2 && sum.Sign() >= 0
		for _, u := range []Unit{Requests, Seconds, Searches} {
			part, fits := p.Of(u, prompt).Times(max.Units[u])
			sum = sum.Add(part)
			good = good && fits && sum.Sign() >= 0
		}
		if !good {
			return Amount{}, false
		}
		if sum.Cmp(total) > 0 {
			total = sum
		}
	}
	return total, true
}

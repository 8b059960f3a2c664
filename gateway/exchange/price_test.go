package exchange

import (
	"math"
	"math/rand/v2"
	"testing"
)

// row makes a price row of unit-price pairs.
func row(pairs map[Unit]int64, tiers ...Tier) *Price {
	p := &Price{Tiers: tiers}
	for u, n := range pairs {
		p.Per[u], p.Set[u] = Pico(n), true
	}
	return p
}

func tier(above int64, pairs map[Unit]int64) Tier {
	p := row(pairs)
	return Tier{Above: above, Per: p.Per, Set: p.Set}
}

func TestPriceOf(t *testing.T) {
	t.Parallel()
	p := row(map[Unit]int64{Input: 10, CachedInput: 1, Output: 30, Requests: 7},
		tier(100, map[Unit]int64{Input: 20}), tier(1000, map[Unit]int64{Output: 90, CachedInput: 0}))
	tests := []struct {
		unit   Unit
		prompt int64
		want   int64
	}{
		{Input, 0, 10}, {Input, 100, 10}, {Input, 101, 20},
		{Input, 1001, 10},   // the last tier that applies stands alone before the row itself
		{CachedInput, 0, 1}, // its own
		{CachedInput, 101, 1}, {CachedInput, 1001, 0},
		{CacheWrite, 0, 10}, {CacheWrite, 101, 20}, {AudioInput, 101, 20}, {ImageInput, 0, 10}, // as input
		{Output, 101, 30}, {Output, 1001, 90}, {Reasoning, 0, 30}, {Reasoning, 1001, 90}, {AudioOutput, 5, 30}, // as output
		{Requests, 0, 7}, {Requests, 5000, 7}, {Seconds, 0, 0}, {Searches, 0, 0}, // free
	}
	for _, test := range tests {
		if got := p.Of(test.unit, test.prompt); got != Pico(test.want) {
			t.Errorf("%s with %d prompt tokens: %s, want %d pico", test.unit, test.prompt, got, test.want)
		}
	}
}

func TestCost(t *testing.T) {
	t.Parallel()
	p := row(map[Unit]int64{Input: 10, CachedInput: 1, Output: 30, Requests: 7}, tier(100, map[Unit]int64{Input: 20}))
	usage := func(pairs map[Unit]int64) (u Usage) {
		for unit, n := range pairs {
			u.Units[unit] = n
		}
		return u
	}
	tests := []struct {
		name  string
		usage Usage
		want  int64 // -1: does not fit
	}{
		{"nothing", Usage{}, 0},
		{"plain", usage(map[Unit]int64{Input: 3, Output: 2, Requests: 1}), 97},
		{"cached tokens count for the tier", usage(map[Unit]int64{Input: 1, CachedInput: 100}), 120},
		{"less than nothing is nothing", usage(map[Unit]int64{Input: -5, Output: 1}), 30},
		{"free units", usage(map[Unit]int64{Searches: 1000}), 0},
	}
	for _, test := range tests {
		got, ok := p.Cost(&test.usage)
		if !ok || got != Pico(test.want) {
			t.Errorf("%s: %s, %v, want %d pico", test.name, got, ok, test.want)
		}
	}
	dear := row(map[Unit]int64{Input: math.MaxInt64, Output: math.MaxInt64})
	dear.Per[Input] = Amount{hi: 1 << 40}
	huge := usage(map[Unit]int64{Input: math.MaxInt64, Output: math.MaxInt64})
	if got, ok := dear.Cost(&huge); ok {
		t.Errorf("more than there is: %s", got)
	}
	if got, ok := dear.Most(&huge); ok {
		t.Errorf("at most more than there is: %s", got)
	}
	// Counts whose sum is beyond 64 bits are many tokens, not few, and nothing panics.
	many := usage(map[Unit]int64{Input: math.MaxInt64, CachedInput: math.MaxInt64, Output: math.MaxInt64, Reasoning: 9})
	if many.Prompt() != math.MaxInt64 || many.Completion() != math.MaxInt64 {
		t.Errorf("prompt %d, completion %d", many.Prompt(), many.Completion())
	}
	cost, ok := p.Cost(&many)
	most, ok2 := p.Most(&many)
	if !ok || !ok2 || cost.Sign() <= 0 || most.Sign() <= 0 {
		t.Errorf("cost %s, %v; at most %s, %v", cost, ok, most, ok2)
	}
}

// Whatever a provider reports within the most that was asked for, the hold covers it.
func TestMostCoversCost(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	random := func(above int64) Tier {
		t := Tier{Above: above}
		for u := range t.Per {
			if rng.IntN(2) == 0 {
				t.Per[u], t.Set[u] = Pico(rng.Int64N(1000)), true
			}
		}
		return t
	}
	for range 20_000 {
		base := random(0)
		p := &Price{Per: base.Per, Set: base.Set}
		above := int64(0)
		for range rng.IntN(4) {
			above += rng.Int64N(50)
			p.Tiers = append(p.Tiers, random(above))
		}
		var most, used Usage
		most.Units[Input], most.Units[Output] = rng.Int64N(150), rng.Int64N(150)
		in, out := most.Units[Input], most.Units[Output]
		for _, u := range []Unit{CachedInput, CacheWrite, CacheWriteLong, ImageInput, AudioInput, Input} {
			used.Units[u] = rng.Int64N(in + 1)
			in -= used.Units[u]
		}
		for _, u := range []Unit{Reasoning, ImageOutput, AudioOutput, Output} {
			used.Units[u] = rng.Int64N(out + 1)
			out -= used.Units[u]
		}
		for _, u := range []Unit{Requests, Seconds, Searches} {
			most.Units[u] = rng.Int64N(5)
			used.Units[u] = rng.Int64N(most.Units[u] + 1)
		}
		cost, ok := p.Cost(&used)
		held, ok2 := p.Most(&most)
		if !ok || !ok2 || cost.Cmp(held) > 0 {
			t.Fatalf("%s held for %v, %v costs %s: %+v", held, most.Units, used.Units, cost, p)
		}
	}
}

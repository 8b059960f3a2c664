// Command models is a Postern plugin that chooses the order in which a model's targets are tried: its main type is plugin.
package main

import (
	"errors"
	"math"

	postern "github.com/postern-gateway/postern/sdk/go"
)

var _ = postern.Register(new(plugin))

func main() {}

// plugin is one instance.
type plugin struct {
	written []bool // by stage: order = "written"
	list    []target
	order   []int
	random  [8]byte
}

// target is one target with its place in the order: lower tiers first, then higher scores.
type target struct {
	tier  uint8
	score float64
}

// The tiers.
const (
	healthy   uint8 = iota
	reserve         // healthy, but of weight 0: only when nothing else is left
	unhealthy       // it may have recovered when its turn comes
)

// Slots, in the order of plugin.hcl.
const (
	slotTargets = iota
	slotSticky
)

// maxTargets bounds the targets of one model.
const maxTargets = 256

// Configure reads a stage's configuration.
func (p *plugin) Configure(s *postern.Stage) error {
	for len(p.written) <= s.Number {
		p.written = append(p.written, false)
	}
	p.written[s.Number] = string(s.Config.Member("order").Bytes()) == "written"
	return nil
}

// On orders the targets.
func (p *plugin) On(e *postern.Event, r *postern.Result) error {
	targets := e.Value(slotTargets)
	if targets.Len() > maxTargets {
		return errors.New("more targets than can be ordered")
	}
	written, sticky := p.written[e.Stage], e.Value(slotSticky).Bytes()
	var seed uint64
	switch {
	case written || targets.Len() < 2: // nothing to draw
	case len(sticky) > 0:
		seed = hash(14695981039346656037, sticky)
	default:
		if err := e.Host.Random(p.random[:]); err != nil {
			return err
		}
		for i, b := range p.random {
			seed |= uint64(b) << (8 * i)
		}
	}
	p.list = p.list[:0]
	usable := false
	for _, t := range targets.Each {
		var one target
		weight := t.Member("weight").Int()
		switch {
		case !t.Member("healthy").Bool():
			one.tier = unhealthy
		case weight <= 0 && !written:
			one.tier = reserve
		}
		usable = usable || one.tier != unhealthy
		if !written {
			one.score = score(seed, t, weight)
		}
		p.list = append(p.list, one)
	}
	if !usable {
		r.SetHeader("retry-after", "1")
		r.Respond(503, "no_target", "No upstream that serves this model can be used now.")
		return nil
	}
	r.SetAttributeInts("targets", p.sorted()...)
	return nil
}

// score is a target's place in the draw: with u between 0 and 1 from the seed and the target's name, -weight/ln(u). The
// greatest wins, which gives every target the share of its weight (weighted rendezvous hashing): the same seed draws
// the same target, and a target that goes or comes moves only the requests that are its own.
func score(seed uint64, t postern.Value, weight int64) float64 {
	h := hash(hash(seed, t.Member("upstream").Bytes())*1099511628211, t.Member("model").Bytes())
	// The finaliser of MurmurHash3: FNV's high bits depend too little on the last octets.
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	u := (float64(h>>11) + 0.5) / (1 << 53)
	return -float64(max(weight, 1)) / math.Log(u)
}

// hash is FNV-1a over 64 bits, begun with seed.
func hash(seed uint64, b []byte) uint64 {
	for _, c := range b {
		seed = (seed ^ uint64(c)) * 1099511628211
	}
	return seed
}

// sorted returns the targets' indexes in order. Equals stay as written. There are few: insertion sort.
func (p *plugin) sorted() []int {
	p.order = p.order[:0]
	for i := range p.list {
		k := len(p.order)
		p.order = append(p.order, i)
		for k > 0 && p.list[i].before(p.list[p.order[k-1]]) {
			p.order[k] = p.order[k-1]
			k--
		}
		p.order[k] = i
	}
	return p.order
}

func (t target) before(o target) bool {
	if t.tier != o.tier {
		return t.tier < o.tier
	}
	return t.score > o.score
}

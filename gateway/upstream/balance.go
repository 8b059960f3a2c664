package upstream

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// balancer picks one of the endpoints that may be used. There is at least one in list.
type balancer interface {
	pick(list []*endpoint, key string) *endpoint
}

func newBalancer(name string) balancer {
	switch name {
	case "least_request":
		return leastRequest{}
	case "weighted":
		return &weighted{current: map[*endpoint]int{}}
	case "consistent_hash":
		return consistentHash{}
	}
	return new(roundRobin)
}

// roundRobin takes the endpoints in turn.
type roundRobin struct {
	mu   sync.Mutex
	next uint
}

func (b *roundRobin) pick(list []*endpoint, _ string) *endpoint {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := list[b.next%uint(len(list))]
	b.next++
	return e
}

// leastRequest takes two at random and of them the one with fewer exchanges in flight: nearly as good as the least loaded
// of all, and it does not send every new request to the one that has just come back.
type leastRequest struct{}

func (leastRequest) pick(list []*endpoint, _ string) *endpoint {
	i := rand.IntN(len(list))
	a := list[i]
	if len(list) == 1 {
		return a
	}
	b := list[(i+1+rand.IntN(len(list)-1))%len(list)]
	if b.inFlight.Load() < a.inFlight.Load() {
		return b
	}
	return a
}

// weighted spreads by weight and smoothly: 5,1,1 gives a a b a c a a, not a a a a a b c. Weight 0 gets nothing unless
// every weight is 0.
type weighted struct {
	mu      sync.Mutex
	current map[*endpoint]int
}

func (b *weighted) pick(list []*endpoint, _ string) *endpoint {
	b.mu.Lock()
	defer b.mu.Unlock()
	var best *endpoint
	total := 0
	for _, e := range list {
		if e.weight == 0 {
			continue
		}
		total += e.weight
		b.current[e] += e.weight
		if best == nil || b.current[e] > b.current[best] {
			best = e
		}
	}
	if best == nil {
		return list[rand.IntN(len(list))]
	}
	b.current[best] -= total
	return best
}

// consistentHash gives a key always the same endpoint, by rendezvous: the endpoint whose hash together with the key's is
// highest. When one goes only its keys move, and every node of a fleet agrees without a table.
type consistentHash struct{}

func (consistentHash) pick(list []*endpoint, key string) *endpoint {
	k := hash(key)
	var best *endpoint
	var top uint64
	for _, e := range list {
		if s := mix(k ^ e.hash); best == nil || s > top {
			best, top = e, s
		}
	}
	return best
}

// hash is FNV-1a, 64 bits: the same on every node and in every version.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// mix spreads a change of any bit over all of them.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// choose picks an endpoint for a request: of those whose health check does not fail, the ones that are not ejected, or all
// of them if every one is; and of those the ones the request has not been to, or all of them if it has been to every one.
// It returns nil when every endpoint fails its health check.
func (u *Upstream) choose(r *Request, now time.Time) *endpoint {
	if len(u.endpoints) == 1 {
		if up, _ := u.endpoints[0].health.usable(now); !up {
			return nil
		}
		return u.endpoints[0]
	}
	list := make([]*endpoint, 0, len(u.endpoints))
	for _, desperate := range [...]bool{false, true} {
		for _, e := range u.endpoints {
			if up, ejected := e.health.usable(now); up && (desperate || !ejected) {
				list = append(list, e)
			}
		}
		if len(list) > 0 {
			break
		}
	}
	if len(list) == 0 {
		return nil
	}
	tried := func(e *endpoint) bool { return slices.Contains(r.tried, e) }
	if len(r.tried) > 0 && slices.ContainsFunc(list, func(e *endpoint) bool { return !tried(e) }) {
		list = slices.DeleteFunc(list, tried)
	}
	return u.balance.pick(list, r.Key)
}

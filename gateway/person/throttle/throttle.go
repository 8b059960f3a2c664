// Package throttle slows guessing down: every try that fails makes the next one wait longer. Its main type is Throttle.
//
// It counts in three ways at once, so that nobody is locked out by what a stranger does:
//
//   - a name and a network together: the few tries that a person who mistypes needs, then exponentially slower;
//   - a network over all names: who tries many names from one place is slowed down whatever the names are;
//   - a name over all networks: guesses from many places are slowed down too, but never for longer than Config.Name.Most, and
//     not at all for a device that this person signed in with before, which is counted by itself.
//
// A try is counted before its outcome is known, so that a thousand at once are a thousand tries.
package throttle

import (
	"net/netip"
	"sync"
	"time"
)

// Rule is how many tries are free and how the wait grows after them: Base, then twice as long each time, to Most.
type Rule struct {
	Free int
	Base time.Duration
	Most time.Duration
}

// Config configures a Throttle. The zero value is usable.
type Config struct {
	Pair    Rule             // a name from one network, and a known device; default 5 free, 1s to 15m
	Network Rule             // one network, all names; default 30 free, 1s to 1h
	Name    Rule             // one name, all networks; default 50 free, 1s to 1m
	Forget  time.Duration    // after so long without a try a count begins anew; default 1h, or the longest Most if that is more
	Entries int              // counts kept in each of two generations, default 50,000; about 100 octets each
	Now     func() time.Time // default time.Now
}

// Throttle counts tries in memory. It is safe for concurrent use.
type Throttle struct {
	pair, network, name Rule
	forget              time.Duration
	entries             int
	now                 func() time.Time

	mu    sync.Mutex
	fresh map[string]*count
	stale map[string]*count // the generation before; what is used again moves to fresh
}

// count is the tries of one key.
type count struct {
	tries int
	last  time.Time
	until time.Time // no try before
}

// Try is who tries what.
type Try struct {
	What   string       // the kind of try, so that kinds do not count for each other: "password", "code"
	Name   string       // whose secret is guessed; an HMAC of the address, or an id
	From   netip.Prefix // Network of the client's address
	Device string       // an id of a device known to be this person's; "" when it is not known
}

// New returns a Throttle.
func New(c Config) *Throttle {
	whole := func(r, preset Rule) Rule {
		if r == (Rule{}) {
			return preset
		}
		return r
	}
	t := &Throttle{
		pair:    whole(c.Pair, Rule{Free: 5, Base: time.Second, Most: 15 * time.Minute}),
		network: whole(c.Network, Rule{Free: 30, Base: time.Second, Most: time.Hour}),
		name:    whole(c.Name, Rule{Free: 50, Base: time.Second, Most: time.Minute}),
		forget:  c.Forget, entries: c.Entries, now: c.Now, fresh: map[string]*count{}, stale: map[string]*count{},
	}
	if t.forget <= 0 {
		t.forget = max(time.Hour, t.pair.Most, t.network.Most, t.name.Most)
	}
	if t.entries <= 0 {
		t.entries = 50_000
	}
	if t.now == nil {
		t.now = time.Now
	}
	return t
}

// Network is what counts as one network: /24 of IPv4, /56 of IPv6, which is what one customer is given. An address that
// is none gives the zero prefix.
func Network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 56
	if a.Is4() {
		bits = 24
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// keys are what a try is counted under, and by which rule.
func (t *Throttle) keys(try Try) ([3]string, [3]Rule, int) {
	if try.Device != "" {
		return [3]string{"d\x00" + try.What + "\x00" + try.Name + "\x00" + try.Device}, [3]Rule{t.pair}, 1
	}
	from := try.From.String()
	return [3]string{
		"p\x00" + try.What + "\x00" + try.Name + "\x00" + from,
		"n\x00" + try.What + "\x00" + from,
		"a\x00" + try.What + "\x00" + try.Name,
	}, [3]Rule{t.pair, t.network, t.name}, 3
}

// Begin counts a try. When it comes too early it is not one, and wait says how long it has to wait; 0 lets it go on.
func (t *Throttle) Begin(try Try) (wait time.Duration) {
	keys, rules, n := t.keys(try)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for i := range n {
		if c := t.fresh[keys[i]]; c != nil {
			wait = max(wait, c.until.Sub(now))
		} else if c := t.stale[keys[i]]; c != nil {
			wait = max(wait, c.until.Sub(now))
		}
	}
	if wait > 0 {
		return wait // and nothing is kept of it: who is told to wait can not push out what others are counted by
	}
	for i := range n {
		c := t.at(keys[i], now)
		c.tries, c.last = c.tries+1, now
		if over := c.tries - rules[i].Free; over >= 0 {
			c.until = now.Add(rules[i].after(over))
		}
	}
	return 0
}

// Succeeded takes a try back that did not guess. The network's other tries go on counting: who owns one name could
// otherwise clear the way for guessing others.
func (t *Throttle) Succeeded(try Try) {
	keys, rules, n := t.keys(try)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.drop(keys[0])
	for i := 1; i < n; i++ {
		c := t.at(keys[i], now)
		c.tries = max(0, c.tries-1)
		if c.tries < rules[i].Free {
			c.until = time.Time{}
		}
	}
}

// Failures is how many tries of this name from this network or device count now, for signals of abuse.
func (t *Throttle) Failures(try Try) int {
	keys, _, _ := t.keys(try)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.at(keys[0], t.now()).tries
}

// after is the wait after a number of tries beyond the free ones.
func (r Rule) after(over int) time.Duration {
	d := r.Base
	for range over {
		if d *= 2; d >= r.Most {
			return r.Most
		}
	}
	return min(d, r.Most)
}

// at finds or makes a count. When a generation is full, the one before is forgotten: a flood of keys pushes out those
// that were not used lately.
func (t *Throttle) at(key string, now time.Time) *count {
	c := t.fresh[key]
	if c == nil {
		if c = t.stale[key]; c == nil {
			c = &count{last: now}
		}
		delete(t.stale, key)
		if len(t.fresh) >= t.entries {
			t.fresh, t.stale = make(map[string]*count, len(t.fresh)/4), t.fresh
		}
		t.fresh[key] = c
	}
	if now.Sub(c.last) >= t.forget {
		*c = count{last: now}
	}
	return c
}

func (t *Throttle) drop(key string) {
	delete(t.fresh, key)
	delete(t.stale, key)
}

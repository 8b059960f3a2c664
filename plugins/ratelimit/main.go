// Command ratelimit is a Postern plugin that limits requests and model tokens over time: its main type is plugin. What each
// key has used is kept in the gateway's state and changed by compare-and-swap, so that all instances count together.
package main

import (
	"errors"
	"time"

	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
)

var _ = postern.Register(new(plugin))

func main() {}

// plugin is one instance.
type plugin struct {
	stages  []stage
	key     []byte
	value   []byte
	carry   []byte
	text    []byte
	account ticket
}

// stage is one use of the plugin in the admit phase.
type stage struct {
	requests, tokens limit
	share            uint64 // tells limits apart that are not to be counted together
}

// ticket is what an admitted request was charged, and how the limits stood then. It travels as the carry.
type ticket struct {
	requests, tokens             limit
	requestsArrival, tokensAtEnd int64 // theoretical arrival times behind the request
	now                          int64
	charged                      int64 // tokens
	key                          []byte
}

// Slots, in the order of plugin.hcl.
const (
	slotMax = iota // of the admit hook
	slotKey
)

const slotUsage = 0 // of the account hook

const (
	attempts = 64  // at changing a key's state before the request is denied
	maxKey   = 256 // octets of the key argument that are kept as they are
	maxBurst = 1_000_000_000
	leeway   = int64(time.Second) // how much longer than needed a key's state is kept
	units    = 10                 // the first of the units are tokens: sdk/ABI.md, usage
)

// Configure reads a stage's configuration.
func (p *plugin) Configure(s *postern.Stage) error {
	for len(p.stages) <= s.Number {
		p.stages = append(p.stages, stage{})
	}
	if s.Phase != postern.Admit {
		return nil
	}
	var st stage
	var err error
	if st.requests, err = configured(s.Config, "rate", "burst"); err != nil {
		return err
	}
	if st.tokens, err = configured(s.Config, "tokens", "token_burst"); err != nil {
		return err
	}
	if st.requests.count == 0 && st.tokens.count == 0 {
		return errors.New("rate or tokens: at least one of them is needed")
	}
	st.share = 14695981039346656037
	for _, l := range [...]limit{st.requests, st.tokens} {
		for _, n := range [...]int64{l.count, l.period, l.burst} {
			for i := range 8 {
				st.share = (st.share ^ uint64(byte(n>>(8*i)))) * 1099511628211
			}
		}
	}
	st.share = hash(st.share, s.Config.Member("share").Bytes())
	p.stages[s.Number] = st
	return nil
}

func configured(config postern.Value, rate, burst string) (l limit, err error) {
	var ok bool
	if l.count, l.period, ok = parseRate(config.Member(rate).Bytes()); !ok {
		return l, errors.New(rate + `: write a number and a period, such as "100/s"; there are: s, m, h, d`)
	}
	n := config.Member(burst)
	l.burst = n.Int()
	switch {
	case l.burst < 0 || l.burst > maxBurst || n.Kind() == abi.KindFloat:
		return l, errors.New(burst + ": write a whole number from 0 to 1000000000")
	case l.burst > 0 && l.count == 0:
		return l, errors.New(burst + " says nothing without " + rate)
	case l.burst == 0:
		l.burst = l.count
	}
	return l, nil
}

// hash is FNV-1a over 64 bits, begun with seed.
func hash(seed uint64, b []byte) uint64 {
	for _, c := range b {
		seed = (seed ^ uint64(c)) * 1099511628211
	}
	return seed
}

// On handles one event.
func (p *plugin) On(e *postern.Event, r *postern.Result) error {
	switch e.Kind {
	case abi.EventRequest:
		return p.admit(e, r)
	case abi.EventResponse:
		if p.account.load(e.Carry()) {
			p.fields(r, &p.account)
		}
		r.Done()
	case abi.EventAccount:
		return p.correct(e, r)
	}
	return nil
}

// kept is the state of a key; nil without any.
func kept(h *postern.Host, key []byte) ([]byte, error) {
	old, err := h.Get(key)
	if errors.Is(err, postern.ErrNotFound) {
		return nil, nil
	}
	return old, err
}

// stateKey is where a key's state is. A very long one is cut, and its hash tells it apart.
func (p *plugin) stateKey(st *stage, key []byte) []byte {
	p.key = appendU64(p.key[:0], st.share)
	if len(key) > maxKey {
		p.key = appendU64(p.key, hash(14695981039346656037, key))
		key = key[:maxKey]
	}
	p.key = append(p.key, key...)
	return p.key
}

func (p *plugin) admit(e *postern.Event, r *postern.Result) error {
	st := &p.stages[e.Stage]
	t := &p.account
	*t = ticket{requests: st.requests, tokens: st.tokens, now: e.Time(), key: p.stateKey(st, e.Value(slotKey).Bytes())}
	if t.tokens.count > 0 {
		t.charged = min(sum(e.Value(slotMax)), t.tokens.burst)
	}
	for range attempts {
		old, err := kept(e.Host, t.key)
		if err != nil {
			return err
		}
		requests, tokens := arrivals(old)
		wait, which := int64(0), ""
		t.requestsArrival, t.tokensAtEnd = requests, tokens
		if t.requests.count > 0 {
			if t.requestsArrival, wait = t.requests.use(requests, t.now, 1); wait > 0 {
				which = "requests"
			}
		}
		if t.tokens.count > 0 {
			next, more := t.tokens.use(tokens, t.now, t.charged)
			if t.tokensAtEnd = next; more > wait {
				wait, which = more, "tokens"
			}
		}
		if wait > 0 {
			t.requestsArrival, t.tokensAtEnd = requests, tokens
			p.deny(r, t, which, wait)
			return nil
		}
		err = p.store(e.Host, t, old)
		if errors.Is(err, postern.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		p.carry = t.append(p.carry[:0])
		r.Carry(p.carry)
		return nil
	}
	// So many others changed this key's state in between that it is over any limit worth the name.
	r.Meter("contended", 1)
	p.deny(r, t, "requests", leeway)
	return nil
}

// store writes the ticket's arrival times where old is.
func (p *plugin) store(h *postern.Host, t *ticket, old []byte) error {
	p.value = appendU64(appendU64(p.value[:0], uint64(t.requestsArrival)), uint64(t.tokensAtEnd))
	ttl := max(t.requestsArrival, t.tokensAtEnd) - t.now + leeway
	return h.CAS(t.key, old, p.value, time.Duration(max(ttl, leeway)))
}

func arrivals(state []byte) (requests, tokens int64) {
	if len(state) != 16 {
		return 0, 0
	}
	return int64(readU64(state)), int64(readU64(state[8:]))
}

// sum is the number of tokens in a usage: the units before the calls.
func sum(usage postern.Value) (n int64) {
	i := 0
	for _, v := range usage.Each {
		if i++; i > units {
			break
		}
		n += min(max(v.Int(), 0), 1<<50)
	}
	return n
}

func (p *plugin) deny(r *postern.Result, t *ticket, which string, wait int64) {
	p.fields(r, t)
	p.text = appendInt(p.text[:0], seconds(wait))
	r.SetHeader("retry-after", postern.String(p.text))
	if which == "tokens" {
		r.Meter("denied_tokens", 1)
		r.Respond(429, "rate_limited", "Too many tokens. Try again later, or ask for fewer.")
		return
	}
	r.Meter("denied_requests", 1)
	r.Respond(429, "rate_limited", "Too many requests. Try again later.")
}

// correct replaces the tokens a call was charged by those it used.
func (p *plugin) correct(e *postern.Event, r *postern.Result) error {
	t := &p.account
	if !t.load(e.Carry()) || t.tokens.count == 0 {
		return nil
	}
	r.Carry(nil) // once
	used := sum(e.Value(slotUsage))
	if used == t.charged {
		return nil
	}
	t.now = e.Time()
	for range attempts {
		old, err := kept(e.Host, t.key)
		if err != nil {
			return err
		}
		t.requestsArrival, t.tokensAtEnd = arrivals(old)
		switch {
		case used > t.charged:
			t.tokensAtEnd = max(t.tokensAtEnd, t.now) + t.tokens.cost(min(used-t.charged, maxBurst))
		case t.tokensAtEnd <= t.now:
			return nil // everything is given back already, by time
		default:
			t.tokensAtEnd -= t.tokens.cost(t.charged - used)
		}
		err = p.store(e.Host, t, old)
		if !errors.Is(err, postern.ErrConflict) {
			return err
		}
	}
	r.Meter("contended", 1)
	return nil
}

// fields tells the caller how the limits stand: RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers), and
// the fields OpenAI's clients know.
func (p *plugin) fields(r *postern.Result, t *ticket) {
	policy, state := p.value[:0], p.text[:0]
	for i, l := range [...]limit{t.requests, t.tokens} {
		if l.count == 0 {
			continue
		}
		name, arrival := "requests", t.requestsArrival
		if i == 1 {
			name, arrival = "tokens", t.tokensAtEnd
		}
		if len(policy) > 0 {
			policy, state = append(policy, ", "...), append(state, ", "...)
		}
		policy = append(append(append(policy, '"'), name...), `";q=`...)
		policy = append(appendInt(policy, l.burst), ";w="...)
		policy = appendInt(policy, seconds(l.cost(l.burst)))
		state = append(append(append(state, '"'), name...), `";r=`...)
		state = append(appendInt(state, l.left(arrival, t.now)), ";t="...)
		state = appendInt(state, seconds(arrival-t.now))
	}
	p.value, p.text = policy, state
	r.SetHeader("ratelimit-policy", postern.String(policy))
	r.SetHeader("ratelimit", postern.String(state))
	if t.requests.count > 0 {
		r.SetHeader("x-ratelimit-limit-requests", p.number(t.requests.burst))
		r.SetHeader("x-ratelimit-remaining-requests", p.number(t.requests.left(t.requestsArrival, t.now)))
		r.SetHeader("x-ratelimit-reset-requests", p.duration(t.requestsArrival-t.now))
	}
	if t.tokens.count > 0 {
		r.SetHeader("x-ratelimit-limit-tokens", p.number(t.tokens.burst))
		r.SetHeader("x-ratelimit-remaining-tokens", p.number(t.tokens.left(t.tokensAtEnd, t.now)))
		r.SetHeader("x-ratelimit-reset-tokens", p.duration(t.tokensAtEnd-t.now))
	}
}

func (p *plugin) number(n int64) string {
	p.text = appendInt(p.text[:0], n)
	return postern.String(p.text)
}

// duration writes a time as OpenAI does: 120ms, 1.5s, 6m0s.
func (p *plugin) duration(ns int64) string {
	p.text = appendDuration(p.text[:0], ns)
	return postern.String(p.text)
}

func appendDuration(b []byte, ns int64) []byte {
	ms := (max(ns, 0) + 999_999) / 1_000_000
	if ms < 1000 {
		return append(appendInt(b, ms), "ms"...)
	}
	if h := ms / 3_600_000; h > 0 {
		b = append(appendInt(b, h), 'h')
	}
	if ms >= 60_000 {
		b = append(appendInt(b, ms/60_000%60), 'm')
	}
	b = appendInt(b, ms/1000%60)
	if rest := ms % 1000; rest > 0 {
		b = append(b, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
		for b[len(b)-1] == '0' {
			b = b[:len(b)-1]
		}
	}
	return append(b, 's')
}

// seconds is ns in whole seconds, rounded up.
func seconds(ns int64) int64 { return (max(ns, 0) + 999_999_999) / 1_000_000_000 }

func appendInt(b []byte, n int64) []byte {
	var digits [20]byte
	i := len(digits)
	for {
		i--
		digits[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return append(b, digits[i:]...)
		}
	}
}

// append and load are the ticket's carried form: version, ten numbers, the key.
func (t *ticket) append(b []byte) []byte {
	b = append(b, 1)
	for _, n := range [...]int64{
		t.requests.count, t.requests.period, t.requests.burst, t.tokens.count, t.tokens.period, t.tokens.burst,
		t.requestsArrival, t.tokensAtEnd, t.now, t.charged,
	} {
		b = appendU64(b, uint64(n))
	}
	return append(b, t.key...)
}

func (t *ticket) load(b []byte) bool {
	if len(b) < 81 || b[0] != 1 {
		return false
	}
	for i, n := range [...]*int64{
		&t.requests.count, &t.requests.period, &t.requests.burst, &t.tokens.count, &t.tokens.period, &t.tokens.burst,
		&t.requestsArrival, &t.tokensAtEnd, &t.now, &t.charged,
	} {
		*n = int64(readU64(b[1+8*i:]))
	}
	t.key = b[81:]
	return true
}

func appendU64(b []byte, n uint64) []byte {
	for i := range 8 {
		b = append(b, byte(n>>(8*i)))
	}
	return b
}

func readU64(b []byte) (n uint64) {
	for i := range 8 {
		n |= uint64(b[i]) << (8 * i)
	}
	return n
}

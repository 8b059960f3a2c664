package main

import (
	"encoding/binary"
	"math/big"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	postern "github.com/postern-gateway/postern/sdk/go"

	"github.com/postern-gateway/postern/sdk/abi"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

func TestPlugin(t *testing.T) {
	call := func(who string, most int64) *exchange.Exchange {
		x := &exchange.Exchange{Identity: exchange.Identity{Account: who}}
		x.Call.Max.Units[exchange.Input], x.Call.Max.Units[exchange.Requests] = most, 1
		return x
	}
	stages := func(config string) []plugintest.Stage {
		return []plugintest.Stage{
			{Phase: exchange.Admit, Config: "key = identity.account\n" + config},
			{Phase: exchange.ResponsePhase}, {Phase: exchange.AccountPhase},
		}
	}
	fields := func(pairs ...string) (h exchange.Header) {
		for i := 0; i < len(pairs); i += 2 {
			h.Add(pairs[i], pairs[i+1])
		}
		return h
	}
	ok := func(who string, most int64, after time.Duration) plugintest.Event {
		return plugintest.Event{Exchange: call(who, most), After: after}
	}
	denied := func(who string, most int64, after time.Duration, pairs ...string) plugintest.Event {
		return plugintest.Event{Exchange: call(who, most), After: after, Want: plugintest.Want{Respond: 429, Code: "rate_limited", Headers: fields(pairs...)}}
	}
	used := func(tokens int64) plugintest.Event {
		return plugintest.Event{Stage: 2, Before: func(x *exchange.Exchange) { x.Usage.Units[exchange.Output] = tokens }}
	}
	head := func(pairs ...string) plugintest.Event {
		return plugintest.Event{Stage: 1, Before: func(x *exchange.Exchange) { x.Response.Status = 200 }, Want: plugintest.Want{Headers: fields(pairs...), Done: true}}
	}
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }}, []plugintest.Case{
		{Name: "burst, then the rate", Stages: stages("rate = \"2/s\"\nburst = 3"), Events: []plugintest.Event{
			ok("a", 0, 0), ok("a", 0, 0), ok("a", 0, 0),
			denied("a", 0, 0, "retry-after", "1", "ratelimit", `"requests";r=0;t=2`, "ratelimit-policy", `"requests";q=3;w=2`,
				"x-ratelimit-limit-requests", "3", "x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "1.5s"),
			ok("b", 0, 0),
			ok("a", 0, 500*time.Millisecond), denied("a", 0, 0), denied("a", 0, 499*time.Millisecond), ok("a", 0, time.Millisecond),
		}},
		{Name: "told in the reply", Stages: stages(`rate = "60/m"`), Events: []plugintest.Event{
			ok("a", 0, 0), head("x-ratelimit-limit-requests", "60", "x-ratelimit-remaining-requests", "59", "x-ratelimit-reset-requests", "1s", "ratelimit", `"requests";r=59;t=1`, "ratelimit-policy", `"requests";q=60;w=60`),
		}},
		{Name: "tokens", Stages: stages("rate = \"100/s\"\ntokens = \"1000/m\""), Events: []plugintest.Event{
			ok("a", 900, 0), head("x-ratelimit-remaining-tokens", "100", "x-ratelimit-limit-tokens", "1000", "x-ratelimit-reset-tokens", "54s"),
			denied("a", 101, 0, "retry-after", "1", "x-ratelimit-remaining-tokens", "100", "x-ratelimit-remaining-requests", "99"),
			ok("a", 100, 0), denied("a", 1, 0),
		}},
		{Name: "tokens given back", Stages: stages(`tokens = "1000/m"`), Events: []plugintest.Event{
			ok("a", 1000, 0), used(10), ok("a", 990, 0), denied("a", 1, 0),
		}},
		{Name: "given back once", Stages: stages(`tokens = "1000/m"`), Events: []plugintest.Event{
			ok("a", 1000, 0), used(500), used(0), ok("a", 500, 0), denied("a", 1, 0),
		}},
		{Name: "nothing used", Stages: stages(`tokens = "1000/m"`), Events: []plugintest.Event{
			ok("a", 1000, 0), used(0), ok("a", 1000, 0), denied("a", 1, 0),
		}},
		{Name: "more used than thought", Stages: stages(`tokens = "1000/m"`), Events: []plugintest.Event{
			ok("a", 5000, 0), used(2000), denied("a", 1, time.Minute, "retry-after", "1"), ok("a", 1, time.Second),
		}},
		{Name: "shared", Stages: append(stages(`rate = "1/h"`), plugintest.Stage{Phase: exchange.Admit, Config: "key = identity.account\nrate = \"1/h\""},
			plugintest.Stage{Phase: exchange.Admit, Config: "key = identity.account\nrate = \"1/h\"\nshare = \"other\""}), Events: []plugintest.Event{
			ok("a", 0, 0), {Stage: 3, Want: plugintest.Want{Respond: 429, Headers: fields("retry-after", "3600", "x-ratelimit-reset-requests", "1h0m0s")}}, {Stage: 4},
		}},
		{Name: "long keys", Stages: stages(`rate = "1/d"`), Events: []plugintest.Event{
			ok(strings.Repeat("x", 5000)+"a", 0, 0), ok(strings.Repeat("x", 5000)+"b", 0, 0), denied(strings.Repeat("x", 5000)+"a", 0, 0),
		}},
		{Name: "no limit", Stages: stages(""), Refused: "rate or tokens"},
		{Name: "burst alone", Stages: stages("tokens = \"5/s\"\nburst = 3"), Refused: "burst says nothing without rate"},
		{Name: "burst in parts", Stages: stages("rate = \"5/s\"\nburst = 1.5"), Refused: "whole number"},
		{Name: "burst too large", Stages: stages("rate = \"5/s\"\nburst = 1000000001"), Refused: "whole number"},
	})
}

func TestParseRate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]int64{
		"100/s": {100, 1e9}, "5000/m": {5000, 60e9}, "10/h": {10, 3600e9}, "1/d": {1, 86400e9}, "999999999/s": {999999999, 1e9},
		"": {}, "0/s": {-1}, "1": {-1}, "1/": {-1}, "1/w": {-1}, "1/ss": {-1}, "/s": {-1}, "1000000000/s": {-1}, "-1/s": {-1}, "1.5/s": {-1}, " 1/s": {-1},
	} {
		count, period, ok := parseRate([]byte(text))
		if ok != (want[0] >= 0) || ok && (count != want[0] || period != want[1]) {
			t.Errorf("%q: %d %d %t", text, count, period, ok)
		}
	}
}

// bucket is the reference: a token bucket in exact arithmetic, which the algorithm must agree with.
type bucket struct {
	tokens *big.Rat
	last   int64
}

func (b *bucket) use(l limit, now, n int64) bool {
	b.tokens.Add(b.tokens, new(big.Rat).SetFrac(new(big.Int).Mul(big.NewInt(now-b.last), big.NewInt(l.count)), big.NewInt(l.period)))
	if full := new(big.Rat).SetInt64(l.burst); b.tokens.Cmp(full) > 0 {
		b.tokens = full
	}
	b.last = now
	if b.tokens.Cmp(new(big.Rat).SetInt64(n)) < 0 {
		return false
	}
	b.tokens.Sub(b.tokens, new(big.Rat).SetInt64(n))
	return true
}

// TestReference compares with the reference where the period divides, so that nothing is rounded.
func TestReference(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		l := limit{count: []int64{1, 2, 5, 10, 100, 1000}[r.IntN(6)], period: []int64{1e9, 60e9, 3600e9}[r.IntN(3)], burst: 1 + r.Int64N(50)}
		ref := bucket{tokens: new(big.Rat).SetInt64(l.burst), last: 1e18}
		now, arrival := int64(1e18), int64(0)
		for range 500 {
			now += r.Int64N(3 * l.period / l.count)
			n := 1 + r.Int64N(l.burst)
			next, wait := l.use(arrival, now, n)
			if got, want := wait == 0, ref.use(l, now, n); got != want {
				t.Fatalf("seed %d: %+v: %d at %d: %t, want %t", seed, l, n, now, got, want)
			}
			if wait == 0 {
				arrival = next
			} else if _, again := l.use(arrival, now+wait, n); again != 0 {
				t.Fatalf("seed %d: after the wait of %d it is still denied", seed, wait)
			}
			if left, _ := new(big.Int).DivMod(ref.tokens.Num(), ref.tokens.Denom(), new(big.Int)); left.Int64() != l.left(arrival, now) {
				t.Fatalf("seed %d: %d left, want %s", seed, l.left(arrival, now), left)
			}
		}
	}
}

// shared is the gateway's state for many instances.
type shared struct {
	mu sync.Mutex
	m  map[string]string
}

func (*shared) Log(int, string) {}

func (s *shared) Op(code abi.Code, in, out []byte) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch code {
	case abi.CodeGet:
		v, ok := s.m[string(in)]
		if !ok {
			return abi.ErrNotFound
		}
		return int64(copy(out, v))
	case abi.CodeCAS:
		k, o := binary.LittleEndian.Uint32(in[8:]), binary.LittleEndian.Uint32(in[12:])
		key, rest := string(in[16:16+k]), in[16+k:]
		old, ok := s.m[key]
		if o == abi.NoValue {
			if ok {
				return abi.ErrConflict
			}
			o = 0
		} else if !ok || old != string(rest[:o]) {
			return abi.ErrConflict
		}
		s.m[key] = string(rest[o:])
		return 0
	}
	return abi.ErrUnknown
}

// frame writes an admit event for one key.
func frame(b []byte, now int64) []byte {
	b = append(b[:0], make([]byte, abi.FrameHeader+abi.SlotSize*4)...)
	binary.LittleEndian.PutUint16(b[4:], uint16(abi.EventRequest))
	b[6] = byte(postern.Admit)
	binary.LittleEndian.PutUint32(b[12:], 4)
	binary.LittleEndian.PutUint64(b[16:], uint64(now))
	at := len(b)
	b = abi.AppendString(b, "a")
	binary.LittleEndian.PutUint32(b[abi.FrameHeader+abi.SlotSize*3:], uint32(at))
	binary.LittleEndian.PutUint32(b[abi.FrameHeader+abi.SlotSize*3+4:], uint32(len(b)-at))
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

// admitter is an instance with one stage.
func admitter(s *shared, l limit) *postern.Instance {
	return postern.NewInstance(&plugin{stages: []stage{{requests: l, share: 1}}}, s)
}

func admit(i *postern.Instance, b []byte) bool {
	action, ops := i.On(copy(i.Frame(), b))
	return action == abi.ActionContinue && len(ops) > 0
}

// TestHammer: many instances at once never admit more than the burst and what the time gives.
func TestHammer(t *testing.T) {
	t.Parallel()
	const start, steps = int64(1e18), 20
	l := limit{count: 100, period: 1e9, burst: 50}
	s := &shared{m: map[string]string{}}
	var admitted int64
	for step := range int64(steps) {
		now := start + step*100e6 // ten more each
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				i, n := admitter(s, l), int64(0)
				b := frame(nil, now)
				for range 40 {
					if admit(i, b) {
						n++
					}
				}
				mu.Lock()
				admitted += n
				mu.Unlock()
			})
		}
		wg.Wait()
		if most := l.burst + step*10; admitted != most {
			t.Fatalf("after %d ms %d were admitted, want %d", step*100, admitted, most)
		}
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for ns, want := range map[int64]string{
		-5: "0ms", 0: "0ms", 1: "1ms", 120e6: "120ms", 1e9: "1s", 1500e6: "1.5s", 59_999e6: "59.999s", 360e9: "6m0s", 3600e9: "1h0m0s", 3661_010e6: "1h1m1.01s",
	} {
		if got := string(appendDuration(nil, ns)); got != want {
			t.Errorf("%d: %s, want %s", ns, got, want)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	s := &shared{m: map[string]string{}}
	i, b := admitter(s, limit{count: 1, period: 86400e9, burst: 1}), frame(nil, 1e18)
	admit(i, b)
	if n := testing.AllocsPerRun(100, func() { admit(i, b) }); n > 0 { // denied: headers and all
		t.Errorf("%v allocations for one event", n)
	}
}

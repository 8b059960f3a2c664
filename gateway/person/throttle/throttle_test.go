package throttle

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// clock moves when it is told to.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func from(address string) netip.Prefix { return Network(netip.MustParseAddr(address)) }

func TestNetworks(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.77":             "192.0.2.0/24",
		"::ffff:192.0.2.77":      "192.0.2.0/24", // the same client over a socket for both families
		"2001:db8:1:2ff:1::9":    "2001:db8:1:200::/56",
		"fe80::1%eth0":           "fe80::/56",
		"2001:db8:1:2ab:ffff::1": "2001:db8:1:200::/56",
	} {
		if got := from(address).String(); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	if got := Network(netip.Addr{}); got.IsValid() {
		t.Errorf("no address: %s", got)
	}
}

// TestWaitsGrow: the free tries, then twice as long each time up to the most, and a try that comes too early counts for
// nothing.
func TestWaitsGrow(t *testing.T) {
	t.Parallel()
	c := &clock{time.Unix(1e9, 0)}
	th := New(Config{Pair: Rule{Free: 3, Base: time.Second, Most: 8 * time.Second}, Now: c.now})
	try := Try{What: "password", Name: "ann", From: from("192.0.2.1")}
	for i, want := range []time.Duration{0, 0, 1, 2, 4, 8, 8, 8} {
		if w := th.Begin(try); w != 0 {
			t.Fatalf("try %d has to wait %v", i, w)
		}
		if want == 0 {
			continue
		}
		for range 3 { // impatience changes nothing
			if w := th.Begin(try); w != want*time.Second {
				t.Fatalf("after try %d: wait %v, want %ds", i, w, want)
			}
		}
		c.Time = c.Add(want*time.Second - 1)
		if th.Begin(try) == 0 {
			t.Fatalf("after try %d: the wait ends early", i)
		}
		c.Time = c.Add(1)
	}
	c.Time = c.Add(time.Hour)
	if n := th.Failures(try); n != 0 {
		t.Errorf("after an hour %d tries still count", n)
	}
}

// TestStrangersDoNotLockOut: whatever strangers guess, the person waits a minute at most on a new device, and not at all
// on a known one.
func TestStrangersDoNotLockOut(t *testing.T) {
	t.Parallel()
	c := &clock{time.Unix(1e9, 0)}
	th := New(Config{Now: c.now})
	for i := range 20_000 {
		th.Begin(Try{What: "password", Name: "ann", From: from(fmt.Sprintf("10.%d.%d.1", i/200, i%200))})
		c.Time = c.Add(time.Second)
	}
	if w := th.Begin(Try{What: "password", Name: "ann", From: from("192.0.2.1"), Device: "laptop"}); w != 0 {
		t.Errorf("the known device has to wait %v", w)
	}
	if w := th.Begin(Try{What: "password", Name: "ann", From: from("192.0.2.1")}); w > time.Minute {
		t.Errorf("a new device has to wait %v", w)
	}
	if w := th.Begin(Try{What: "password", Name: "bob", From: from("192.0.2.1")}); w != 0 {
		t.Errorf("another person has to wait %v", w)
	}
}

// TestOwnNameClearsNothing: signing in to one's own name does not give back tries against others.
func TestOwnNameClearsNothing(t *testing.T) {
	t.Parallel()
	c := &clock{time.Unix(1e9, 0)}
	th := New(Config{Network: Rule{Free: 10, Base: time.Minute, Most: time.Hour}, Now: c.now})
	guesses := 0
	for i := range 100 {
		if th.Begin(Try{What: "password", Name: fmt.Sprint("victim", i), From: from("192.0.2.1")}) == 0 {
			guesses++
		}
		own := Try{What: "password", Name: "own", From: from("192.0.2.9")}
		if th.Begin(own) == 0 {
			th.Succeeded(own)
		}
	}
	if guesses > 11 {
		t.Errorf("%d guesses from one network at one moment", guesses)
	}
}

// TestBounded: a flood of names takes no more room than two generations.
func TestBounded(t *testing.T) {
	t.Parallel()
	th := New(Config{Entries: 100})
	for i := range 10_000 {
		th.Begin(Try{What: "password", Name: fmt.Sprint(i), From: from("192.0.2.1")})
		th.Begin(Try{What: "password", Name: fmt.Sprint(i), From: from(fmt.Sprintf("10.0.%d.1", i%250))})
	}
	if n := len(th.fresh) + len(th.stale); n > 200 {
		t.Errorf("%d counts kept", n)
	}
}

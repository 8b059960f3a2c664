package ledger

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/ledger/record"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/memory"
)

// clock is a clock that is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(text string) {
	at, err := time.Parse(time.DateTime, text)
	if err != nil {
		panic(err)
	}
	c.mu.Lock()
	c.now = at
	c.mu.Unlock()
}

// capOf reads a cap.
func capOf(text string) exchange.Cap {
	c, err := exchange.ParseCap(text)
	if err != nil {
		panic(err)
	}
	return c
}

// try holds input units of money for a call with a key.
func try(t testing.TB, l *Ledger, key, cap string, input int64) (Hold, error) {
	t.Helper()
	r := HoldRequest{Account: "acct_a", Model: "small", Price: price(), Max: usage(input, 0), Key: key}
	if cap != "" {
		r.Cap = capOf(cap)
	}
	return l.Hold(t.Context(), r)
}

// pay makes a call with a key that costs input units of money.
func pay(t testing.TB, l *Ledger, key, cap string, input int64) {
	t.Helper()
	h, err := try(t, l, key, cap, input)
	if err != nil {
		t.Fatalf("hold: %v", err)
	}
	begin(t, l, h.ID)
	if _, err := l.Settle(t.Context(), h.ID, Settlement{Usage: usage(input, 0)}); err != nil {
		t.Fatalf("settle: %v", err)
	}
}

// overCap checks that a call is refused for the key's cap.
func overCap(t testing.TB, l *Ledger, key, cap string, input int64) *CapError {
	t.Helper()
	h, err := try(t, l, key, cap, input)
	var capped *CapError
	if !errors.As(err, &capped) || !errors.Is(err, ErrCap) || errors.Is(err, ErrInsufficient) {
		t.Fatalf("a call for %d with %s: %+v, %v", input, cap, h, err)
	}
	return capped
}

// spent checks what a key spent in the period that is now.
func spent(t testing.TB, l *Ledger, key string, per exchange.Period, want, held string) {
	t.Helper()
	s, err := l.Spending(t.Context(), key, per)
	if err != nil || s.Spent != money(want) || s.Held != money(held) {
		t.Errorf("%s in a %s: %s spent, %s held, %v; want %s and %s", key, per, s.Spent, s.Held, err, want, held)
	}
}

func TestCap(t *testing.T) {
	t.Parallel()
	now := &clock{}
	now.set("2026-11-24 12:00:00")
	l := open(t, Config{Now: now.Now})
	fund(t, l, "acct_a", "1000")

	pay(t, l, "key_a", "10/day", 4)
	h, err := try(t, l, "key_a", "10/day", 5)
	if err != nil {
		t.Fatal(err)
	}
	spent(t, l, "key_a", exchange.Day, "4", "5")
	capped := overCap(t, l, "key_a", "10/day", 2) // what is held counts
	if p := capped.Problem("USD", now.Now()); p.Status != 402 || p.Code != "key_cap_reached" || p.Retry != 12*time.Hour ||
		p.Detail != "This API key may spend 10.00 USD in a day: 4.00 are spent, 5.00 are held for calls under way, and this call may cost up to 2.00. The next day begins at 2026-11-25T00:00:00Z." {
		t.Errorf("%+v", p)
	}
	expect(t, l, "acct_a", "991", "5") // and a refusal holds nothing
	pay(t, l, "key_b", "10/day", 10)   // another key's cap is its own
	pay(t, l, "", "", 10)              // and who has none has none
	if err := l.Release(t.Context(), h.ID); err != nil {
		t.Fatal(err)
	}
	pay(t, l, "key_a", "10/day", 6) // what is released comes back, and the cap is reached to the last unit
	overCap(t, l, "key_a", "10/day", 1)
	if h, err := l.Hold(t.Context(), HoldRequest{Account: "acct_a", Key: "key_a", Cap: capOf("10/day")}); err != nil || h.Amount.Sign() != 0 {
		t.Errorf("a free call: %v", err)
	}
	overCap(t, l, "key_a", "9/day", 1) // a cap that was lowered below what is spent
	pay(t, l, "key_a", "11/day", 1)    // and one that was raised
	overCap(t, l, "key_a", "11/total", 1)
	if p := overCap(t, l, "key_a", "11/total", 1).Problem("USD", now.Now()); p.Retry != 0 || strings.Contains(p.Detail, "next") {
		t.Errorf("%+v", p)
	}
	// A call that is settled for less than was held gives the rest back.
	h, err = try(t, l, "key_c", "10/day", 10)
	if err != nil {
		t.Fatal(err)
	}
	begin(t, l, h.ID)
	if _, err := l.Settle(t.Context(), h.ID, Settlement{Usage: usage(3, 0)}); err != nil {
		t.Fatal(err)
	}
	pay(t, l, "key_c", "10/day", 7)
	// A refund gives money back, and no room under the cap.
	if _, err := l.Refund(t.Context(), h.ID, money("3"), "r", ""); err != nil {
		t.Fatal(err)
	}
	overCap(t, l, "key_c", "10/day", 1)
	// A cap of nobody, and names that can not be keys.
	for _, r := range []HoldRequest{{Account: "acct_a", Cap: capOf("1")}, {Account: "acct_a", Key: "a b"}, {Account: "acct_a", Key: strings.Repeat("k", MaxName+1)}} {
		if _, err := l.Hold(t.Context(), r); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if _, err := l.Spending(t.Context(), "key_a", exchange.Periods); !errors.Is(err, ErrInvalid) {
		t.Errorf("a period that is none: %v", err)
	}
	spent(t, l, "key_none", exchange.Month, "0", "0")
	verify(t, l)
}

// Each period begins anew when it should, and what was held before it counts in it.
func TestCapPeriods(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		per          string
		spend, still string // the cap is reached at both
		next         string
		begins       string
	}{
		{"day", "2026-11-24 00:00:00", "2026-11-24 23:59:59", "2026-11-25 00:00:00", "2026-11-25T00:00:00Z"},
		{"week", "2026-11-23 00:00:00", "2026-11-29 23:59:59", "2026-11-30 00:00:00", "2026-11-30T00:00:00Z"}, // Monday to Sunday
		{"week", "2026-12-28 08:00:00", "2027-01-03 23:59:59", "2027-01-04 00:00:00", "2027-01-04T00:00:00Z"},
		{"month", "2026-11-01 00:00:00", "2026-11-30 23:59:59", "2026-12-01 00:00:00", "2026-12-01T00:00:00Z"},
		{"month", "2026-12-31 10:00:00", "2026-12-31 23:59:59", "2027-01-01 00:00:00", "2027-01-01T00:00:00Z"},
		{"month", "2028-02-01 10:00:00", "2028-02-29 23:59:59", "2028-03-01 00:00:00", "2028-03-01T00:00:00Z"},
		{"month", "2026-01-31 10:00:00", "2026-01-31 10:00:01", "2026-02-01 00:00:00", "2026-02-01T00:00:00Z"},
	} {
		now := &clock{}
		now.set(test.spend)
		store := memory.Open(memory.Config{})
		l := open(t, Config{Store: store, Now: now.Now, HoldTTL: 1000 * time.Hour})
		fund(t, l, "acct_a", "1000")
		limit := "10/" + test.per
		pay(t, l, "k", limit, 9)
		now.set(test.still)
		pay(t, l, "k", limit, 1)
		if at := overCap(t, l, "k", limit, 1).Ends.Format(time.RFC3339); at != test.begins {
			t.Errorf("%+v: the next period begins at %s", test, at)
		}
		if err := l.Close(); err != nil { // a restart knows it all
			t.Fatal(err)
		}
		l = open(t, Config{Store: store, Now: now.Now, HoldTTL: 1000 * time.Hour})
		overCap(t, l, "k", limit, 1)
		h, err := try(t, l, "k", "1000/total", 8) // under way while the period ends
		if err != nil {
			t.Fatal(err)
		}
		begin(t, l, h.ID)
		now.set(test.next)
		overCap(t, l, "k", limit, 3)
		if _, err := l.Settle(t.Context(), h.ID, Settlement{Usage: usage(8, 0)}); err != nil {
			t.Fatal(err)
		}
		overCap(t, l, "k", limit, 3) // settled in the new period, it counts there
		pay(t, l, "k", limit, 2)
		overCap(t, l, "k", limit, 1)
		now.set(test.still) // a clock that goes back opens nothing
		overCap(t, l, "k", limit, 1)
		verify(t, l)
		l.Close()
	}
}

// TestCapUnderLoad: of 64 callers at once on what a key may spend, not a unit more is held or charged, whatever becomes of
// the calls, and after restarts neither.
func TestCapUnderLoad(t *testing.T) {
	t.Parallel()
	store := memory.Open(memory.Config{})
	var charged atomic.Int64
	for run := range 3 {
		l := open(t, Config{Store: store})
		if run == 0 {
			fund(t, l, "acct_a", "100000")
		}
		limit := 100 * int64(run+1)
		var callers sync.WaitGroup
		for i := range 64 {
			callers.Go(func() {
				for n := range 20 {
					cost := int64(i+n)%5 + 1
					h, err := try(t, l, "k", fmt.Sprint(limit, "/total"), cost)
					if errors.Is(err, ErrCap) {
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					if n%4 == 0 {
						if err := l.Release(t.Context(), h.ID); err != nil {
							t.Error(err)
						}
						continue
					}
					if err := l.Begin(t.Context(), h.ID, Attempt{Upstream: "u", Number: 1}); err != nil {
						t.Error(err)
					}
					if _, err := l.Settle(t.Context(), h.ID, Settlement{Usage: usage(cost+int64(n%2), 0)}); err != nil { // at times more than was held
						t.Error(err)
					}
					charged.Add(cost)
					if s, err := l.Spending(t.Context(), "k", exchange.Total); err != nil || s.Spent.Add(s.Held).Cmp(exchange.Pico(limit*1e12)) > 0 {
						t.Errorf("%s spent and %s held of %d, %v", s.Spent, s.Held, limit, err)
					}
				}
			})
		}
		callers.Wait()
		// One at a time, what is left is used up to the last unit.
		for {
			h, err := try(t, l, "k", fmt.Sprint(limit, "/total"), 1)
			if errors.Is(err, ErrCap) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			begin(t, l, h.ID)
			if _, err := l.Settle(t.Context(), h.ID, Settlement{Usage: usage(1, 0)}); err != nil {
				t.Fatal(err)
			}
			charged.Add(1)
		}
		if charged.Load() != limit {
			t.Errorf("run %d: %d charged of %d", run, charged.Load(), limit)
		}
		spent(t, l, "k", exchange.Total, fmt.Sprint(limit), "0")
		verify(t, l)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A call that was under way when a run ended counts for its key as what it is settled for, and one that expires too.
func TestCapOfCallsLeftOpen(t *testing.T) {
	t.Parallel()
	store := memory.Open(memory.Config{})
	l := open(t, Config{Store: store})
	fund(t, l, "acct_a", "100")
	h, err := try(t, l, "k", "10/total", 8)
	if err != nil {
		t.Fatal(err)
	}
	begin(t, l, h.ID)
	l.Checkpoint(h.ID, usage(6, 0))
	if _, err := try(t, l, "k", "10/total", 2); err != nil { // forgotten: nothing was called under it
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, Config{Store: store})
	spent(t, l, "k", exchange.Total, "6", "0")
	overCap(t, l, "k", "10/total", 5)
	pay(t, l, "k", "10/total", 4)
	verify(t, l)
}

// Where the store fails, nothing is counted that was not recorded, and room is not given away meanwhile.
func TestCapWhileTheStoreFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		store := &flaky{Store: memory.Open(memory.Config{}), plan: func(int) fault {
			if broken.Load() {
				return refused
			}
			return works
		}}
		l := open(t, Config{Store: store})
		defer l.Close()
		fund(t, l, "acct_a", "100")
		h, err := try(t, l, "k", "10/total", 8)
		if err != nil {
			t.Fatal(err)
		}
		begin(t, l, h.ID)
		broken.Store(true)
		if _, err := l.Settle(t.Context(), h.ID, Settlement{Usage: usage(5, 0)}); !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		spent(t, l, "k", exchange.Total, "0", "8")
		broken.Store(false)
		time.Sleep(2 * lastRetry)
		synctest.Wait()
		spent(t, l, "k", exchange.Total, "5", "0")
		overCap(t, l, "k", "10/total", 6)
		pay(t, l, "k", "10/total", 5)
		verify(t, l)
	})
}

// Verify finds a count that is not what the entries say; folding does not disturb it.
func TestCapVerified(t *testing.T) {
	t.Parallel()
	now := &clock{}
	now.set("2026-11-24 12:00:00")
	store := memory.Open(memory.Config{})
	l := open(t, Config{Store: store, Now: now.Now})
	fund(t, l, "acct_a", "100")
	pay(t, l, "k", "", 7)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var wrong record.Spend
	wrong.Add(money("6"), now.Now())
	for _, put := range [][]byte{wrong.Encode(), nil} {
		copied := memory.Open(memory.Config{})
		for e, err := range store.Scan(t.Context(), []byte(record.AllPrefix), nil) {
			if err != nil {
				t.Fatal(err)
			}
			var b state.Batch
			if string(e.Key) != record.SpendPrefix+"k" {
				b.Put(e.Key, e.Value)
			} else if put != nil {
				b.Put(e.Key, put)
			}
			if len(b.Writes) > 0 {
				if err := copied.Commit(t.Context(), &b); err != nil {
					t.Fatal(err)
				}
			}
		}
		l := open(t, Config{Store: copied, Now: now.Now})
		r, err := l.Verify(t.Context())
		if err != nil || len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "key k spent") {
			t.Errorf("%+v, %v", r.Problems, err)
		}
	}
}

// What was folded away still counts.
func TestCapOfFoldedCharges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, Config{Retain: 24 * time.Hour})
		defer l.Close()
		fund(t, l, "acct_a", "100")
		pay(t, l, "k", "", 7)
		time.Sleep(26 * time.Hour)
		synctest.Wait()
		pay(t, l, "k", "8/total", 1)
		overCap(t, l, "k", "8/total", 1)
		if r := verify(t, l); r.Folded == 0 {
			t.Error("nothing was folded")
		}
		spent(t, l, "k", exchange.Total, "8", "0")
		spent(t, l, "k", exchange.Day, "1", "0")
	})
}

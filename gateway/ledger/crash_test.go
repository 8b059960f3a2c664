package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/memory"
)

var errUnplugged = errors.New("disk unplugged")

// fault is what happens to a commit.
type fault int

const (
	works   fault = iota
	refused       // an error, and nothing was written
	unsure        // an error, and it was written all the same
	dead          // the process ends before the commit: nothing works any more
	late          // the process ends after it
	blind         // written, and afterwards the store can not be read for a while
)

// flaky is a store that fails when told to.
type flaky struct {
	state.Store
	mu      sync.Mutex
	commits int
	plan    func(commit int) fault
	gone    bool
	blinded int // reads that will still fail
}

func (f *flaky) Commit(ctx context.Context, b *state.Batch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return errUnplugged
	}
	f.commits++
	what := works
	if f.plan != nil {
		what = f.plan(f.commits)
	}
	switch what {
	case refused:
		return errUnplugged
	case dead:
		f.gone = true
		return errUnplugged
	}
	err := f.Store.Commit(ctx, b)
	switch what {
	case unsure:
		return errUnplugged
	case blind:
		f.blinded = 2
		return errUnplugged
	case late:
		f.gone = true
		return errUnplugged
	}
	return err
}

func (f *flaky) Get(ctx context.Context, key []byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.blinded > 0 {
		f.blinded--
		return nil, errUnplugged
	}
	if f.gone {
		return nil, errUnplugged
	}
	return f.Store.Get(ctx, key)
}

// script does one of everything and returns what was acknowledged: how much was credited, and what each hold was
// charged. It goes on after failures, as the gateway would.
func script(l *Ledger) (credited exchange.Amount, charged map[string]exchange.Amount, begun map[string]bool) {
	ctx := context.Background()
	charged, begun = map[string]exchange.Amount{}, map[string]bool{}
	if l.OpenAccount(ctx, "a") != nil {
		return
	}
	if _, err := l.Credit(ctx, "a", money("1000"), "evt_1", ""); err == nil {
		credited = money("1000")
	}
	call := func(steps string) {
		h, err := l.Hold(ctx, HoldRequest{Account: "a", Model: "m", Price: price(), Max: usage(10, 10)})
		if err != nil {
			return
		}
		for _, step := range steps {
			switch step {
			case 'b', 'B':
				durability := "sync"
				if step == 'B' {
					durability = "batch"
				}
				if l.Begin(ctx, h.ID, Attempt{Upstream: "u", Number: 1, Durability: durability}) != nil {
					_ = l.Release(ctx, h.ID)
					delete(begun, h.ID) // by an earlier attempt: it is released, perhaps later
					return
				}
				if step == 'b' {
					begun[h.ID] = true
				}
			case 'c':
				l.Checkpoint(h.ID, usage(10, 1))
			case 's':
				if r, err := l.Settle(ctx, h.ID, Settlement{Usage: usage(10, 5)}); err == nil {
					charged[h.ID] = r.Amount
				}
			case 'r':
				if !errors.Is(l.Release(ctx, h.ID), ErrSettled) {
					delete(begun, h.ID) // released, or perhaps released: either way nothing is owed
				}
			}
		}
	}
	for _, steps := range []string{"bs", "bcs", "bbss", "b", "bc", "br", "s", "", "r", "Bs", "Bc", "bcs", "bsr"} {
		call(steps)
	}
	if _, err := l.Adjust(ctx, "a", money("-1"), "adj_1", ""); err == nil {
		credited = credited.Sub(money("1"))
	}
	return credited, charged, begun
}

// check compares a ledger with what was acknowledged before it was opened again. Nothing acknowledged is lost, nothing
// is charged twice, and what is charged besides is estimated and at most what had been held.
func check(t *testing.T, l *Ledger, credited exchange.Amount, charged map[string]exchange.Amount, begun map[string]bool) {
	t.Helper()
	ctx := context.Background()
	r := verify(t, l)
	for id, amount := range charged {
		got, err := l.Receipt(ctx, id)
		if err != nil || got.Amount != amount {
			t.Errorf("hold %s was charged %s, now %+v, %v", id, amount, got, err)
		}
	}
	for id := range begun {
		if _, err := l.Receipt(ctx, id); err != nil {
			t.Errorf("hold %s was begun and left no trace: %v", id, err)
		}
	}
	if r.Intents != 0 || r.Held.Sign() != 0 {
		t.Errorf("%d intents are open", r.Intents)
	}
	if sum := r.Credited.Add(r.Adjusted); credited.Sign() > 0 && sum != credited && sum != money("999") && sum != money("1000") {
		t.Errorf("%s credited, %s are there", credited, sum)
	}
	if r.Balance != r.Credited.Add(r.Adjusted).Sub(r.Charged) {
		t.Errorf("balance %s of %+v", r.Balance, r.Totals)
	}
}

// The process ends, or the disk fails, at every commit in turn: before it, after it, or with nobody knowing.
func TestEveryStep(t *testing.T) {
	t.Parallel()
	for _, what := range []fault{refused, unsure, blind, dead, late} {
		t.Run(fmt.Sprint(what), func(t *testing.T) {
			t.Parallel()
			for step := 2; ; step++ { // the first commit is that of Open
				over := false
				synctest.Test(t, func(t *testing.T) {
					disk := memory.Open(memory.Config{})
					store := &flaky{Store: disk, plan: func(n int) fault {
						if n == step {
							return what
						}
						return works
					}}
					l := open(t, Config{Store: store})
					credited, charged, begun := script(l)
					time.Sleep(20 * time.Minute) // what is open expires, faults are overcome
					synctest.Wait()
					over = store.commits < step
					if what != dead && what != late {
						check(t, l, credited, charged, begun)
					}
					_ = l.Close()
					l = open(t, Config{Store: disk})
					check(t, l, credited, charged, begun)
					l.Close()
				})
				if over || t.Failed() {
					t.Logf("%d commits", step-1)
					return
				}
			}
		})
	}
}

// After a failure billable calls are refused, until a commit succeeds.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		var broken atomic.Bool
		store := &flaky{Store: memory.Open(memory.Config{}), plan: func(int) fault {
			if broken.Load() {
				return refused
			}
			return works
		}}
		l := open(t, Config{Store: store})
		defer l.Close()
		fund(t, l, "a", "1000")
		h := hold(t, l, "a", 10, 10)
		begin(t, l, h.ID)
		second := hold(t, l, "a", 10, 10)
		broken.Store(true)
		if _, err := l.Settle(ctx, h.ID, Settlement{Usage: usage(10, 0)}); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errUnplugged) {
			t.Errorf("Settle: %v", err)
		}
		expect(t, l, "a", "940", "60") // nothing half done
		for name, err := range map[string]error{
			"Begin":          l.Begin(ctx, second.ID, Attempt{Number: 1}),
			"Begin in batch": l.Begin(ctx, second.ID, Attempt{Number: 1, Durability: "batch"}),
			"Hold":           func() error { _, err := l.Hold(ctx, HoldRequest{Account: "a"}); return err }(),
			"Credit":         func() error { _, err := l.Credit(ctx, "a", money("1"), "k", ""); return err }(),
		} {
			if !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
		}
		verify(t, l) // can be read all the same
		broken.Store(false)
		time.Sleep(2 * lastRetry)
		synctest.Wait()
		if r, err := l.Settle(ctx, h.ID, Settlement{Usage: usage(10, 0)}); err != nil || r.Amount != money("10") {
			t.Errorf("Settle afterwards: %+v, %v", r, err)
		}
		begin(t, l, second.ID)
		hold(t, l, "a", 1, 1)
		verify(t, l)
	})
}

// Random operations by many at once over a store that fails at random, opened again and again: the ledger agrees with
// the sum of what was acknowledged.
func TestRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) { random(t, seed) })
	}
}

func random(t *testing.T, seed uint64) {
	disk := memory.Open(memory.Config{})
	rng := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex
	pick := func(n int) int { mu.Lock(); defer mu.Unlock(); return rng.IntN(n) }
	charged := map[string]exchange.Amount{}
	credits := map[string]bool{} // by key: whether it was acknowledged
	accounts := []string{"a", "b", "c"}
	for run := range 6 {
		store := &flaky{Store: disk}
		l := open(t, Config{Store: store, HoldTTL: time.Minute, Retain: 3 * time.Hour})
		for _, a := range accounts {
			if err := l.OpenAccount(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
		end := 20 + pick(200)
		store.mu.Lock()
		store.plan = func(n int) fault {
			switch {
			case n >= end:
				return []fault{dead, late}[pick(2)]
			case pick(20) == 0:
				return []fault{refused, unsure, blind}[pick(3)]
			}
			return works
		}
		store.mu.Unlock()
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := range 40 {
					ctx := t.Context()
					a := accounts[pick(len(accounts))]
					if pick(4) == 0 {
						key := fmt.Sprintf("evt_%d_%d", run, pick(30))
						_, err := l.Credit(ctx, a, money("50"), key, "")
						if errors.Is(err, ErrKey) {
							continue // another account had it
						}
						mu.Lock()
						credits[key] = credits[key] || err == nil
						mu.Unlock()
						continue
					}
					h, err := l.Hold(ctx, HoldRequest{Account: a, Price: price(), Max: usage(5, 5)})
					if err != nil {
						time.Sleep(time.Duration(pick(2000)) * time.Millisecond)
						continue
					}
					for n := range pick(3) {
						if l.Begin(ctx, h.ID, Attempt{Number: n + 1, Durability: []string{"sync", "batch"}[pick(2)]}) != nil {
							break
						}
						l.Checkpoint(h.ID, usage(int64(pick(6)), int64(pick(6))))
						time.Sleep(time.Duration(pick(100)) * time.Millisecond)
					}
					switch pick(6) {
					case 0: // forgotten
					case 1:
						_ = l.Release(ctx, h.ID)
					default:
						for range 1 + pick(2) { // now and then twice
							r, err := l.Settle(ctx, h.ID, Settlement{Usage: usage(int64(pick(8)), int64(pick(8)))})
							if err != nil {
								continue
							}
							mu.Lock()
							if was, there := charged[h.ID]; there && was != r.Amount {
								t.Errorf("hold %s charged %s and %s", h.ID, was, r.Amount)
							}
							charged[h.ID] = r.Amount
							mu.Unlock()
						}
					}
					if i == 20 && w == 0 {
						time.Sleep(2 * time.Minute)
					}
				}
			})
		}
		wg.Wait()
		_ = l.Close()
		l = open(t, Config{Store: disk})
		r := verify(t, l)
		for id, amount := range charged {
			got, err := l.Receipt(t.Context(), id)
			if err != nil || got.Amount != amount {
				t.Errorf("seed %d: hold %s was charged %s, now %+v, %v", seed, id, amount, got, err)
			}
		}
		least, most := exchange.Amount{}, exchange.Amount{}
		for _, acknowledged := range credits {
			if acknowledged {
				least = least.Add(money("50"))
			}
			most = most.Add(money("50"))
		}
		if r.Credited.Cmp(least) < 0 || r.Credited.Cmp(most) > 0 {
			t.Errorf("seed %d: %s credited, between %s and %s were asked for", seed, r.Credited, least, most)
		}
		if r.Balance != r.Credited.Sub(r.Charged) || r.Intents != 0 || r.Charges < uint64(len(charged)) {
			t.Errorf("seed %d: %+v", seed, r)
		}
		l.Close()
		if t.Failed() {
			return
		}
	}
}

// Folding is interrupted at every commit in turn: what was folded and what was not still add up.
func TestFoldInterrupted(t *testing.T) {
	t.Parallel()
	for _, what := range []fault{refused, unsure, blind, dead, late} {
		for step := 2; step < 6; step++ {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				disk := memory.Open(memory.Config{})
				l := open(t, Config{Store: disk})
				fund(t, l, "a", "10000")
				for range 2*foldStep + 100 {
					if _, err := l.Settle(ctx, hold(t, l, "a", 1, 1).ID, Settlement{Usage: usage(1, 1)}); err != nil {
						t.Fatal(err)
					}
				}
				l.Close()
				time.Sleep(48 * time.Hour)
				store := &flaky{Store: disk, plan: func(n int) fault {
					if n == step {
						return what
					}
					return works
				}}
				l = open(t, Config{Store: store, Retain: 24 * time.Hour})
				time.Sleep(3 * time.Hour)
				_ = l.Close()
				l = open(t, Config{Store: disk, Retain: 24 * time.Hour})
				time.Sleep(3 * time.Hour)
				r := verify(t, l)
				if r.Folded != r.Last || r.Charged != money("3300") || r.Entries != 2*foldStep+101 {
					t.Errorf("fault %d at commit %d: folded %d of %d, %+v", what, step, r.Folded, r.Last, r.Totals)
				}
				l.Close()
			})
		}
	}
}

package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// quiet is a log for tests that do not look at it.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// money reads an amount.
func money(s string) exchange.Amount {
	a, err := exchange.ParseAmount(s)
	if err != nil {
		panic(err)
	}
	return a
}

// price returns a row of one unit of money for each input token and two for each output token.
func price() *exchange.Price {
	p := &exchange.Price{Name: "plain@1"}
	p.Per[exchange.Input], p.Set[exchange.Input] = money("1"), true
	p.Per[exchange.Output], p.Set[exchange.Output] = money("2"), true
	return p
}

func usage(input, output int64) (u exchange.Usage) {
	u.Units[exchange.Input], u.Units[exchange.Output] = input, output
	return u
}

// open opens a ledger over store; it is closed when the test ends.
func open(t testing.TB, c Config) *Ledger {
	t.Helper()
	if c.Store == nil {
		c.Store = memory.Open(memory.Config{})
	}
	if c.Log == nil {
		c.Log = quiet()
	}
	l, err := Open(context.Background(), c)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// fund opens an account and puts something in it.
func fund(t testing.TB, l *Ledger, id, amount string) {
	t.Helper()
	if err := l.OpenAccount(context.Background(), id); err != nil {
		t.Fatalf("OpenAccount: %v", err)
	}
	if a := money(amount); a.Sign() > 0 {
		if _, err := l.Credit(context.Background(), id, a, "fund-"+id, ""); err != nil {
			t.Fatalf("Credit: %v", err)
		}
	}
}

// expect checks an account's balance.
func expect(t testing.TB, l *Ledger, id, available, held string) {
	t.Helper()
	b, err := l.Balance(context.Background(), id)
	if err != nil || b.Available != money(available) || b.Held != money(held) || b.Total != b.Available.Add(b.Held) {
		t.Errorf("balance of %s: %s available, %s held, %s in all, %v; want %s and %s",
			id, b.Available, b.Held, b.Total, err, available, held)
	}
}

// verify checks that the ledger is right, and returns the report.
func verify(t testing.TB, l *Ledger) *Report {
	t.Helper()
	r, err := l.Verify(context.Background())
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	for _, p := range r.Problems {
		t.Errorf("verify: %s", p)
	}
	return r
}

func hold(t testing.TB, l *Ledger, id string, input, output int64) Hold {
	t.Helper()
	h, err := l.Hold(context.Background(), HoldRequest{Account: id, Model: "small", Price: price(), Max: usage(input, output)})
	if err != nil {
		t.Fatalf("Hold: %v", err)
	}
	return h
}

func begin(t testing.TB, l *Ledger, id string) {
	t.Helper()
	if err := l.Begin(context.Background(), id, Attempt{Upstream: "up", Model: "m", Number: 1}); err != nil {
		t.Fatalf("Begin: %v", err)
	}
}

func TestCall(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l := open(t, Config{Node: "edge-1"})
	fund(t, l, "acct_a", "100")
	h, err := l.Hold(ctx, HoldRequest{
		Account: "acct_a", Exchange: "x-1", Model: "small", Price: price(), Max: usage(10, 20), Tags: map[string]string{"team": "blue"},
	})
	if err != nil || h.ID != "edge-1-1-1" || h.Amount != money("50") {
		t.Fatalf("Hold: %+v, %v", h, err)
	}
	expect(t, l, "acct_a", "50", "50")
	for n := 1; n <= 2; n++ {
		if err := l.Begin(ctx, h.ID, Attempt{Upstream: fmt.Sprint("up", n), Model: "m", Number: n}); err != nil {
			t.Fatal(err)
		}
	}
	l.Checkpoint(h.ID, usage(10, 1))
	r, err := l.Settle(ctx, h.ID, Settlement{Usage: usage(10, 5), Tags: map[string]string{"run": "7"}})
	want := exchange.Receipt{
		Entry: 2, ID: h.ID, Account: "acct_a", Model: "small", Usage: usage(10, 5), Price: "plain@1", Amount: money("20"), Balance: money("80"),
	}
	if err != nil || *r != want {
		t.Fatalf("Settle: %+v, %v", r, err)
	}
	expect(t, l, "acct_a", "80", "0")
	expect(t, l, Revenue, "20", "0")
	expect(t, l, Payments, "-100", "0")

	again, err := l.Settle(ctx, h.ID, Settlement{Usage: usage(1, 1)})
	if err != nil || *again != want {
		t.Errorf("Settle again: %+v, %v", again, err)
	}
	if err := l.Release(ctx, h.ID); !errors.Is(err, ErrSettled) {
		t.Errorf("Release afterwards: %v", err)
	}
	if err := l.Begin(ctx, h.ID, Attempt{}); !errors.Is(err, ErrHold) {
		t.Errorf("Begin afterwards: %v", err)
	}
	l.Checkpoint(h.ID, usage(9, 9))

	var entries []Entry
	for e, err := range l.Entries(ctx, "acct_a", 0, 0) {
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	if len(entries) != 2 || entries[0].Kind != Credit || entries[1].Kind != Charge {
		t.Fatalf("entries: %+v", entries)
	}
	e := entries[1]
	if e.Attempts != 2 || e.Upstream != "up2" || e.Exchange != "x-1" || e.Tags["team"] != "blue" || e.Tags["run"] != "7" ||
		e.Held != money("50") || e.Flags != 0 || e.From != "acct_a" || e.To != Revenue {
		t.Errorf("the charge: %+v", e)
	}
	rep := verify(t, l)
	if rep.Charged != money("20") || rep.Served != money("20") || rep.Credited != money("100") || rep.Estimates != 0 ||
		rep.Intents != 0 || rep.Balance != money("80") || rep.Entries != 2 || rep.Accounts != 1 {
		t.Errorf("report: %+v", rep)
	}
	for range l.Entries(ctx, "acct_a", 2, 1) {
		entries = entries[1:]
	}
	if len(entries) != 1 {
		t.Errorf("from 2, at most 1: %d left", len(entries))
	}
}

// Two hundred at once on a balance that pays for ten: exactly ten succeed, whatever else goes on.
func TestTenOfTwoHundred(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"hold", "settle", "release"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			l := open(t, Config{})
			fund(t, l, "a", "300")
			var got atomic.Int64
			var wg sync.WaitGroup
			start := make(chan struct{})
			for i := range 200 {
				wg.Go(func() {
					<-start
					h, err := l.Hold(t.Context(), HoldRequest{Account: "a", Price: price(), Max: usage(10, 10)})
					if err != nil {
						if !errors.Is(err, ErrInsufficient) {
							t.Errorf("Hold: %v", err)
						}
						return
					}
					switch end {
					case "hold": // kept: ten, and no more
						got.Add(1)
					case "settle": // all of it is used: ten, and no more
						got.Add(1)
						if err := l.Begin(t.Context(), h.ID, Attempt{Number: 1, Durability: []string{"sync", "batch"}[i%2]}); err != nil {
							t.Errorf("Begin: %v", err)
						}
						if _, err := l.Settle(t.Context(), h.ID, Settlement{Usage: usage(10, 10)}); err != nil {
							t.Errorf("Settle: %v", err)
						}
					case "release": // every second gives it back, once begun and once not
						if i%2 == 0 {
							got.Add(1)
							return
						}
						if i%4 == 1 {
							if err := l.Begin(t.Context(), h.ID, Attempt{Number: 1}); err != nil {
								t.Errorf("Begin: %v", err)
							}
						}
						if err := l.Release(t.Context(), h.ID); err != nil {
							t.Errorf("Release: %v", err)
						}
					}
				})
			}
			close(start)
			wg.Wait()
			if end == "release" {
				// What was given back can be had again, and nothing more than that.
				for got.Load() < 10 {
					hold(t, l, "a", 10, 10)
					got.Add(1)
				}
			}
			if got.Load() != 10 {
				t.Errorf("%d calls were paid for, the balance is worth 10", got.Load())
			}
			if _, err := l.Hold(t.Context(), HoldRequest{Account: "a", Price: price(), Max: usage(10, 10)}); !errors.Is(err, ErrInsufficient) {
				t.Errorf("one more: %v", err)
			}
			verify(t, l)
		})
	}
}

func TestCapped(t *testing.T) {
	t.Parallel()
	l := open(t, Config{})
	fund(t, l, "a", "100")
	h := hold(t, l, "a", 10, 10)
	begin(t, l, h.ID)
	r, err := l.Settle(t.Context(), h.ID, Settlement{Usage: usage(100, 100)})
	if err != nil || r.Amount != money("30") {
		t.Fatalf("%+v, %v", r, err)
	}
	expect(t, l, "a", "70", "0")
	if rep := verify(t, l); rep.Served != money("300") || rep.Excess != money("270") || rep.Charged != money("30") {
		t.Errorf("report: %+v", rep.Totals)
	}
	huge := usage(1<<62, 1<<62)
	h = hold(t, l, "a", 1, 1)
	if r, err := l.Settle(t.Context(), h.ID, Settlement{Usage: huge}); err != nil || r.Amount != money("3") {
		t.Errorf("%+v, %v", r, err)
	}
	verify(t, l)
}

// The price of a call is the one of its hold, whatever becomes of the row.
func TestPriceIsSnapshotted(t *testing.T) {
	t.Parallel()
	l := open(t, Config{})
	fund(t, l, "a", "100")
	p := price()
	p.Tiers = []exchange.Tier{{Above: 1000}}
	h, err := l.Hold(t.Context(), HoldRequest{Account: "a", Price: p, Max: usage(10, 10)})
	if err != nil {
		t.Fatal(err)
	}
	p.Per[exchange.Input] = money("5")
	p.Tiers[0].Above = 0
	begin(t, l, h.ID)
	if r, err := l.Settle(t.Context(), h.ID, Settlement{Usage: usage(10, 0)}); err != nil || r.Amount != money("10") {
		t.Errorf("%+v, %v", r, err)
	}
	verify(t, l)
}

func TestFreeCall(t *testing.T) {
	t.Parallel()
	l := open(t, Config{})
	fund(t, l, "a", "0")
	h, err := l.Hold(t.Context(), HoldRequest{Account: "a", Max: usage(10, 10)})
	if err != nil || h.Amount.Sign() != 0 {
		t.Fatalf("%+v, %v", h, err)
	}
	begin(t, l, h.ID)
	r, err := l.Settle(t.Context(), h.ID, Settlement{Usage: usage(3, 4)})
	if err != nil || r.Amount.Sign() != 0 || r.Usage != usage(3, 4) {
		t.Errorf("%+v, %v", r, err)
	}
	if rep := verify(t, l); rep.Charges != 1 {
		t.Errorf("a free call is not recorded: %+v", rep)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l := open(t, Config{Holds: 2})
	fund(t, l, "a", "100")
	fund(t, l, "shut", "100")
	if err := l.CloseAccount(ctx, "shut"); err != nil {
		t.Fatal(err)
	}
	long := string(make([]byte, 4096))
	negative := usage(-1, 0)
	bad := price()
	bad.Per[exchange.Input] = money("-1")
	tests := []struct {
		name string
		do   func() error
		want error
	}{
		{"hold of nobody", func() error { _, err := l.Hold(ctx, HoldRequest{Account: "b"}); return err }, ErrAccount},
		{"hold of no name", func() error { _, err := l.Hold(ctx, HoldRequest{}); return err }, ErrAccount},
		{"hold of the system", func() error { _, err := l.Hold(ctx, HoldRequest{Account: Revenue}); return err }, ErrAccount},
		{"hold on a closed account", func() error { _, err := l.Hold(ctx, HoldRequest{Account: "shut"}); return err }, ErrAccount},
		{"hold of too much", func() error {
			_, err := l.Hold(ctx, HoldRequest{Account: "a", Price: price(), Max: usage(101, 0)})
			return err
		}, ErrInsufficient},
		{"hold beyond counting", func() error {
			p := price()
			p.Per[exchange.Input] = money("999999999999999")
			_, err := l.Hold(ctx, HoldRequest{Account: "a", Price: p, Max: usage(1<<62, 0)})
			return err
		}, ErrInsufficient},
		{"hold of less than nothing", func() error {
			_, err := l.Hold(ctx, HoldRequest{Account: "a", Max: negative})
			return err
		}, ErrInvalid},
		{"hold at a negative price", func() error {
			_, err := l.Hold(ctx, HoldRequest{Account: "a", Price: bad, Max: usage(1, 1)})
			return err
		}, ErrInvalid},
		{"hold with a long tag", func() error {
			_, err := l.Hold(ctx, HoldRequest{Account: "a", Tags: map[string]string{"x": long}})
			return err
		}, ErrInvalid},
		{"hold of a long model", func() error { _, err := l.Hold(ctx, HoldRequest{Account: "a", Model: long}); return err }, ErrInvalid},
		{"begin without a hold", func() error { return l.Begin(ctx, "x-1-1", Attempt{}) }, ErrHold},
		{"begin in another way", func() error { return l.Begin(ctx, "x-1-1", Attempt{Durability: "perhaps"}) }, ErrInvalid},
		{"begin in batch without a hold", func() error { return l.Begin(ctx, "x", Attempt{Durability: "batch"}) }, ErrHold},
		{"settle without a hold", func() error { _, err := l.Settle(ctx, "x-1-1", Settlement{}); return err }, ErrHold},
		{"settle nothing", func() error { _, err := l.Settle(ctx, "", Settlement{}); return err }, ErrHold},
		{"settle less than nothing", func() error { _, err := l.Settle(ctx, "x", Settlement{Usage: negative}); return err }, ErrInvalid},
		{"release without a hold", func() error { return l.Release(ctx, "x-1-1") }, ErrHold},
		{"credit to nobody", func() error { _, err := l.Credit(ctx, "b", money("1"), "k", ""); return err }, ErrAccount},
		{"credit to the system", func() error { _, err := l.Credit(ctx, Revenue, money("1"), "k", ""); return err }, ErrAccount},
		{"credit to a closed account", func() error { _, err := l.Credit(ctx, "shut", money("1"), "k", ""); return err }, ErrAccount},
		{"credit of nothing", func() error { _, err := l.Credit(ctx, "a", money("0"), "k", ""); return err }, ErrInvalid},
		{"credit of less", func() error { _, err := l.Credit(ctx, "a", money("-1"), "k", ""); return err }, ErrInvalid},
		{"credit without a key", func() error { _, err := l.Credit(ctx, "a", money("1"), "", ""); return err }, ErrInvalid},
		{"credit with a long note", func() error { _, err := l.Credit(ctx, "a", money("1"), "k", long); return err }, ErrInvalid},
		{"adjust by nothing", func() error { _, err := l.Adjust(ctx, "a", money("0"), "k", ""); return err }, ErrInvalid},
		{"adjust below nothing", func() error { _, err := l.Adjust(ctx, "a", money("-100.01"), "k", ""); return err }, ErrInsufficient},
		{"refund of no charge", func() error { _, err := l.Refund(ctx, "x-1-1", money("1"), "k", ""); return err }, ErrHold},
		{"open the system's", func() error { return l.OpenAccount(ctx, "system:mine") }, ErrInvalid},
		{"open no name", func() error { return l.OpenAccount(ctx, "") }, ErrInvalid},
		{"open with a space", func() error { return l.OpenAccount(ctx, "a b") }, ErrInvalid},
		{"close nobody's", func() error { return l.CloseAccount(ctx, "b") }, ErrAccount},
		{"balance of nobody", func() error { _, err := l.Balance(ctx, "b"); return err }, ErrAccount},
	}
	for _, test := range tests {
		if err := test.do(); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	hold(t, l, "a", 1, 1)
	hold(t, l, "a", 1, 1)
	if _, err := l.Hold(ctx, HoldRequest{Account: "a"}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("more holds than may be open: %v", err)
	}
	expect(t, l, "a", "94", "6")
	expect(t, l, "shut", "100", "0")
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := l.Hold(over, HoldRequest{Account: "a"}); !errors.Is(err, context.Canceled) {
		t.Errorf("hold with a context that is over: %v", err)
	}
	if _, err := l.Adjust(ctx, "shut", money("-100"), "payout", ""); err != nil {
		t.Errorf("what is left on a closed account can not be paid out: %v", err)
	}
	if err := l.OpenAccount(ctx, "shut"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Credit(ctx, "shut", money("1"), "again", ""); err != nil {
		t.Errorf("opened again: %v", err)
	}
	verify(t, l)
}

// A key does its work once, however often and however many at once it is given.
func TestKeys(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l := open(t, Config{})
	fund(t, l, "a", "0")
	fund(t, l, "b", "0")
	var wg sync.WaitGroup
	var seqs sync.Map
	for i := range 50 {
		wg.Go(func() {
			e, err := l.Credit(ctx, "a", money("10"), fmt.Sprint("evt_", i%5), "")
			if err != nil || e.Amount != money("10") || e.To != "a" {
				t.Errorf("Credit: %+v, %v", e, err)
			}
			if was, there := seqs.LoadOrStore(i%5, e.Seq); there && was != e.Seq {
				t.Errorf("one key, two entries: %v and %d", was, e.Seq)
			}
		})
	}
	wg.Wait()
	expect(t, l, "a", "50", "0")
	for name, do := range map[string]func() error{
		"another amount":  func() error { _, err := l.Credit(ctx, "a", money("11"), "evt_0", ""); return err },
		"another account": func() error { _, err := l.Credit(ctx, "b", money("10"), "evt_0", ""); return err },
		"another kind":    func() error { _, err := l.Adjust(ctx, "a", money("10"), "evt_0", ""); return err },
	} {
		if err := do(); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v, want ErrKey", name, err)
		}
	}
	verify(t, l)
}

func TestRefund(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l := open(t, Config{})
	fund(t, l, "a", "100")
	h := hold(t, l, "a", 10, 10)
	begin(t, l, h.ID)
	if _, err := l.Settle(ctx, h.ID, Settlement{Usage: usage(10, 10)}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var done atomic.Int64
	for i := range 10 { // 30 were charged: three of ten can be given back
		wg.Go(func() {
			_, err := l.Refund(ctx, h.ID, money("10"), fmt.Sprint("r", i), "sorry")
			if err == nil {
				done.Add(1)
			} else if !errors.Is(err, ErrInsufficient) {
				t.Errorf("Refund: %v", err)
			}
		})
	}
	wg.Wait()
	if done.Load() != 3 {
		t.Errorf("%d refunds", done.Load())
	}
	expect(t, l, "a", "100", "0")
	expect(t, l, Revenue, "0", "0")
	if r := verify(t, l); r.Refunded != money("30") {
		t.Errorf("report: %+v", r.Totals)
	}
}

// Debits by operators and holds never have the same money.
func TestAdjustAgainstHolds(t *testing.T) {
	t.Parallel()
	l := open(t, Config{})
	fund(t, l, "a", "300")
	var got atomic.Int64
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			var err error
			if i%2 == 0 {
				_, err = l.Hold(t.Context(), HoldRequest{Account: "a", Price: price(), Max: usage(10, 10)})
			} else {
				_, err = l.Adjust(t.Context(), "a", money("-30"), fmt.Sprint("d", i), "")
			}
			if err == nil {
				got.Add(1)
			} else if !errors.Is(err, ErrInsufficient) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	b, _ := l.Balance(t.Context(), "a")
	if got.Load() != 10 || b.Available.Sign() != 0 {
		t.Errorf("%d took 30 each of 300, %s is left", got.Load(), b.Available)
	}
	verify(t, l)
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, Config{HoldTTL: time.Minute})
		defer l.Close()
		fund(t, l, "a", "100")
		unused := hold(t, l, "a", 10, 10)
		time.Sleep(30 * time.Second)
		begun := hold(t, l, "a", 10, 10)
		begin(t, l, begun.ID)
		l.Checkpoint(begun.ID, usage(10, 1))
		l.Checkpoint(begun.ID, usage(10, 2))
		silent := hold(t, l, "a", 10, 0)
		begin(t, l, silent.ID)
		expect(t, l, "a", "30", "70")
		time.Sleep(30 * time.Second)
		synctest.Wait()
		expect(t, l, "a", "60", "40") // the first was released
		if _, err := l.Settle(t.Context(), unused.ID, Settlement{}); !errors.Is(err, ErrHold) {
			t.Errorf("settling what was released: %v", err)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		expect(t, l, "a", "86", "0") // 14 delivered by the second, nothing known of the third
		r, err := l.Settle(t.Context(), begun.ID, Settlement{Usage: usage(10, 10)})
		if err != nil || r.Amount != money("14") || !r.Usage.Estimated {
			t.Errorf("settling what expired: %+v, %v", r, err)
		}
		if rep := verify(t, l); rep.Estimates != 2 || rep.EstimatedAmount != money("14") || rep.Intents != 0 {
			t.Errorf("report: %+v", rep)
		}
	})
}

// An intent of durability batch, and a checkpoint, are stored within 50 ms; Begin does not wait for it.
func TestBatchIsStoredSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.Open(memory.Config{})
		l := open(t, Config{Store: store})
		defer l.Close()
		fund(t, l, "a", "100")
		h := hold(t, l, "a", 10, 10)
		start := time.Now()
		if err := l.Begin(t.Context(), h.ID, Attempt{Number: 1, Durability: "batch"}); err != nil || time.Since(start) != 0 {
			t.Errorf("Begin: %v after %v", err, time.Since(start))
		}
		time.Sleep(50 * time.Millisecond)
		if _, err := store.Get(t.Context(), record.IntentKey(h.ID)); err != nil {
			t.Errorf("after 50 ms the intent is not stored: %v", err)
		}
		for n := range int64(100) {
			l.Checkpoint(h.ID, usage(1, n))
		}
		time.Sleep(50 * time.Millisecond)
		b, _ := store.Get(t.Context(), record.IntentKey(h.ID))
		if i, ok := record.DecodeIntent(b); !ok || i.Checkpoint.Units[exchange.Output] != 99 {
			t.Errorf("after 50 ms the checkpoint is %+v", i.Checkpoint)
		}
		verify(t, l)
	})
}

func TestReopen(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store := memory.Open(memory.Config{})
	l := open(t, Config{Store: store})
	fund(t, l, "a", "100")
	settled := hold(t, l, "a", 10, 10)
	begin(t, l, settled.ID)
	first, err := l.Settle(ctx, settled.ID, Settlement{Usage: usage(1, 1)})
	if err != nil {
		t.Fatal(err)
	}
	under := hold(t, l, "a", 10, 10)
	begin(t, l, under.ID)
	l.Checkpoint(under.ID, usage(10, 0))
	idle := hold(t, l, "a", 10, 10)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"Close": l.Close(), "Release": l.Release(ctx, idle.ID), "Begin": l.Begin(ctx, idle.ID, Attempt{}),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	l = open(t, Config{Store: store})
	if r := l.Recovered(); r.Intents != 1 || r.Amount != money("10") {
		t.Errorf("recovered: %+v", r)
	}
	expect(t, l, "a", "87", "0")
	if r, err := l.Settle(ctx, settled.ID, Settlement{Usage: usage(9, 9)}); err != nil || *r != *first {
		t.Errorf("settled before: %+v, %v", r, err)
	}
	if r, err := l.Settle(ctx, under.ID, Settlement{Usage: usage(9, 9)}); err != nil || r.Amount != money("10") || !r.Usage.Estimated {
		t.Errorf("under way before: %+v, %v", r, err)
	}
	if h := hold(t, l, "a", 1, 1); h.ID == settled.ID || h.ID == under.ID {
		t.Errorf("an id twice: %s", h.ID)
	}
	verify(t, l)
	l.Close()
	if _, err := Open(ctx, Config{Store: store, Currency: "EUR", Log: quiet()}); !errors.Is(err, ErrCurrency) {
		t.Errorf("another currency: %v", err)
	}
}

func TestFold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		store := memory.Open(memory.Config{})
		l := open(t, Config{Store: store, Retain: 24 * time.Hour})
		fund(t, l, "a", "10000")
		charge := func(n int) (last string) {
			for range n {
				h := hold(t, l, "a", 1, 1)
				begin(t, l, h.ID)
				if _, err := l.Settle(ctx, h.ID, Settlement{Usage: usage(1, 1)}); err != nil {
					t.Fatal(err)
				}
				last = h.ID
			}
			return last
		}
		old := charge(foldStep + 200)
		before := verify(t, l)
		time.Sleep(12 * time.Hour)
		young := charge(50)
		time.Sleep(14 * time.Hour)
		synctest.Wait()
		after := verify(t, l)
		if after.Folded != before.Last || after.Charges != before.Charges+50 || after.Charged != money("2250") {
			t.Errorf("folded %d of %d: %+v", after.Folded, before.Last, after.Totals)
		}
		expect(t, l, "a", "7750", "0")
		if _, err := l.Receipt(ctx, old); !errors.Is(err, ErrHold) {
			t.Errorf("the receipt of a folded charge: %v", err)
		}
		if _, err := l.Receipt(ctx, young); err != nil {
			t.Errorf("the receipt of a young one: %v", err)
		}
		n := 0
		for _, err := range l.Entries(ctx, "a", 0, 0) {
			if err != nil {
				t.Error(err)
			}
			n++
		}
		if n != 50 {
			t.Errorf("%d entries are left", n)
		}
		// The key of a folded credit still works once.
		if e, err := l.Credit(ctx, "a", money("10000"), "fund-a", ""); err != nil || e.Seq != 1 {
			t.Errorf("a folded credit again: %+v, %v", e, err)
		}
		l.Close()
		l = open(t, Config{Store: store})
		expect(t, l, "a", "7750", "0")
		verify(t, l)
		l.Close()
	})
}

// Callers that stop waiting leave a ledger that is right.
func TestImpatience(t *testing.T) {
	t.Parallel()
	l := open(t, Config{})
	fund(t, l, "a", "100000")
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			h, err := l.Hold(t.Context(), HoldRequest{Account: "a", Price: price(), Max: usage(1, 1)})
			if err != nil {
				t.Error(err)
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Microsecond)
			defer cancel()
			_ = l.Begin(ctx, h.ID, Attempt{Number: 1})
			if _, err := l.Settle(ctx, h.ID, Settlement{Usage: usage(1, 1)}); err != nil {
				if _, err := l.Settle(t.Context(), h.ID, Settlement{Usage: usage(1, 1)}); err != nil {
					t.Errorf("Settle with patience: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if r := verify(t, l); r.Charges != 200 || r.Charged != money("600") {
		t.Errorf("%d charges of %s", r.Charges, r.Charged)
	}
	expect(t, l, "a", "99400", "0")
}

// Close beside callers: each is served or told, and what was acknowledged is there.
func TestCloseUnderLoad(t *testing.T) {
	t.Parallel()
	store := memory.Open(memory.Config{})
	l := open(t, Config{Store: store})
	fund(t, l, "a", "1000000")
	var settled atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				h, err := l.Hold(t.Context(), HoldRequest{Account: "a", Price: price(), Max: usage(1, 1)})
				if err == nil {
					err = l.Begin(t.Context(), h.ID, Attempt{Number: 1, Durability: "batch"})
				}
				if err == nil {
					_, err = l.Settle(t.Context(), h.ID, Settlement{Usage: usage(1, 0)})
				}
				if err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
				if settled.Add(1) == 500 {
					go l.Close()
				}
			}
		})
	}
	wg.Wait()
	<-l.done
	l = open(t, Config{Store: store})
	if r := verify(t, l); r.Charges-r.Estimates != uint64(settled.Load()) {
		t.Errorf("%d acknowledged, %d charged, %d of them estimated", settled.Load(), r.Charges, r.Estimates)
	}
}

// What somebody did to the records behind the ledger's back shows.
func TestTampering(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	alter := func(key []byte, f func([]byte) []byte) func(*testing.T, state.Store) {
		return func(t *testing.T, s state.Store) {
			v, err := s.Get(ctx, key)
			if err != nil {
				t.Fatal(err)
			}
			var b state.Batch
			b.Put(key, f(v))
			if err := s.Commit(ctx, &b); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(keys ...[]byte) func(*testing.T, state.Store) {
		return func(t *testing.T, s state.Store) {
			var b state.Batch
			for _, key := range keys {
				b.Delete(key)
			}
			if err := s.Commit(ctx, &b); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(at int) func([]byte) []byte { return func(v []byte) []byte { v[at] ^= 1; return v } }
	copied := func(from, to []byte) func(*testing.T, state.Store) {
		return func(t *testing.T, s state.Store) {
			v, err := s.Get(ctx, from)
			if err != nil {
				t.Fatal(err)
			}
			var b state.Batch
			b.Put(to, v)
			if err := s.Commit(ctx, &b); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := map[string]func(*testing.T, state.Store){
		"an entry altered":        alter(record.EntryKey(2), flip(40)),
		"an entry missing":        remove(record.EntryKey(2), record.IndexKey("a", 2), record.SettledKey("postern-1-1")),
		"the last entry missing":  remove(record.EntryKey(4), record.IndexKey("a", 4), record.SettledKey("postern-1-3")),
		"an entry twice":          copied(record.EntryKey(4), record.EntryKey(5)),
		"a marker missing":        remove(record.SettledKey("postern-1-1")),
		"a marker too many":       copied(record.SettledKey("postern-1-1"), record.SettledKey("postern-9-9")),
		"a marker of another":     copied(record.SettledKey("postern-1-1"), record.SettledKey("postern-1-2")),
		"an index missing":        remove(record.IndexKey("a", 3)),
		"an index too many":       copied(record.IndexKey("a", 3), record.IndexKey("b", 3)),
		"a balance altered":       alter(record.AccountKey("a"), func(v []byte) []byte { v[len(v)-1]++; return v }),
		"a balance missing":       remove(record.AccountKey("a")),
		"an opening balance made": copied(record.AccountKey("a"), record.OpeningKey("c")),
		"an intent come back": func(t *testing.T, s state.Store) {
			i := record.Intent{Account: "a"}
			var b state.Batch
			b.Put(record.IntentKey("postern-1-1"), i.Encode())
			s.Commit(ctx, &b)
		},
		"the head altered": alter([]byte(record.HeadKey), flip(20)),
		"a stranger":       copied([]byte(record.HeadKey), []byte("ledger/z")),
	}
	for name, tamper := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := memory.Open(memory.Config{})
			l := open(t, Config{Store: store})
			fund(t, l, "a", "100")
			for range 3 {
				h := hold(t, l, "a", 1, 1)
				begin(t, l, h.ID)
				if _, err := l.Settle(ctx, h.ID, Settlement{Usage: usage(1, 1)}); err != nil {
					t.Fatal(err)
				}
			}
			verify(t, l)
			tamper(t, store)
			r, err := l.Verify(ctx)
			if err != nil || r.OK() {
				t.Errorf("not noticed: %v", err)
			}
		})
	}
}

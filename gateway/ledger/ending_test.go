package ledger

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-gateway/postern/gateway/state/memory"
)

// What was to be settled or released while the store took nothing is done as decided when it takes something again, long
// before the hold expires, or when the ledger is closed.
func TestEndedWhileUnavailable(t *testing.T) {
	t.Parallel()
	for _, closing := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var broken atomic.Bool
			store := &flaky{Store: memory.Open(memory.Config{}), plan: func(int) fault {
				if broken.Load() {
					return refused
				}
				return works
			}}
			l := open(t, Config{Store: store})
			defer func() { _ = l.Close() }()
			fund(t, l, "a", "1000")
			settled, released, unbegun := hold(t, l, "a", 100, 100), hold(t, l, "a", 100, 100), hold(t, l, "a", 100, 100)
			begin(t, l, settled.ID)
			begin(t, l, released.ID)
			broken.Store(true)
			ctx := t.Context()
			if err := l.Begin(ctx, unbegun.ID, Attempt{Upstream: "u"}); !errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
			if _, err := l.Settle(ctx, settled.ID, Settlement{Usage: usage(10, 5)}); !errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
			for _, id := range []string{released.ID, unbegun.ID, settled.ID} { // the last is settled, whatever is said later
				if err := l.Release(ctx, id); !errors.Is(err, ErrUnavailable) {
					t.Fatal(err)
				}
			}
			broken.Store(false)
			if closing {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l = open(t, Config{Store: store})
				if r := l.Recovered(); r.Intents != 0 {
					t.Errorf("left for recovery: %+v", r)
				}
			}
			time.Sleep(lastRetry + time.Second)
			synctest.Wait()
			want := usage(10, 5)
			amount, _ := price().Cost(&want)
			expect(t, l, "a", money("1000").Sub(amount).String(), "0")
			if r, err := l.Receipt(ctx, settled.ID); err != nil || r.Amount != amount || r.Usage.Estimated {
				t.Errorf("%+v, %v", r, err)
			}
			if r := verify(t, l); r.Charges != 1 || r.Estimates != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

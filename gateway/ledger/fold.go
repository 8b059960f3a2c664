package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/state"
)

// foldStep is how many entries are folded by one commit, and foldEvery how often old ones are looked for.
const (
	foldStep  = 500
	foldEvery = time.Hour
)

// fold removes the oldest entries that are older than what is retained. What they moved is added to their accounts'
// opening balances in the same commit, so that the ledger adds up before and after every step. It runs in the writer.
func (l *Ledger) fold(now time.Time) {
	l.sweep = now.Add(foldEvery)
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	g, n, err := l.foldGroup(ctx, now.Add(-l.retain))
	if err != nil {
		l.log.Error("ledger: old entries can not be folded", "error", err)
		return
	}
	if n == 0 {
		return
	}
	g.commit()
	if n == foldStep {
		l.sweep = now // there may be more; others get their turn between
	}
}

// foldGroup makes the group that folds the next entries from before cutoff, and returns how many those are.
func (l *Ledger) foldGroup(ctx context.Context, cutoff time.Time) (*group, int, error) {
	g := l.newGroup()
	f := l.floor
	openings := map[string]exchange.Amount{}
	move := func(id string, amount exchange.Amount) error {
		was, there := openings[id]
		if !there {
			var err error
			if was, err = l.opening(ctx, id); err != nil {
				return err
			}
		}
		openings[id] = was.Add(amount)
		return nil
	}
	n := 0
	for record, err := range l.store.Scan(ctx, []byte(entryPrefix), entryKey(f.seq+1)) {
		if err != nil {
			return nil, 0, err
		}
		seq, _ := sequenceOf(record.Key[len(entryPrefix):])
		e, chain, ok := decodeEntry(seq, record.Value)
		if !ok || seq != f.seq+1 {
			return nil, 0, fmt.Errorf("%w: entry %d", ErrCorrupt, seq)
		}
		if n == foldStep || !e.Time.Before(cutoff) {
			break
		}
		if err := errors.Join(move(e.From, e.Amount.Neg()), move(e.To, e.Amount)); err != nil {
			return nil, 0, err
		}
		f.seq, f.chain = seq, chain
		if err := f.totals.add(&e, l.price); err != nil {
			return nil, 0, err
		}
		customer := e.From
		if isSystem(customer) {
			customer = e.To
		}
		g.delete(entryKey(seq))
		g.delete(indexKey(customer, seq))
		if e.Kind == Charge {
			g.delete(settledKey(e.Ref))
		}
		n++
	}
	for id, amount := range openings {
		g.put(openingKey(id), amount.Append([]byte{version}))
	}
	g.put([]byte(floorKey), f.encode())
	g.apply(func() { l.floor = f })
	return g, n, nil
}

// opening reads the opening balance of an account.
func (l *Ledger) opening(ctx context.Context, id string) (exchange.Amount, error) {
	b, err := l.store.Get(ctx, openingKey(id))
	if errors.Is(err, state.ErrNotFound) {
		return exchange.Amount{}, nil
	}
	if err != nil {
		return exchange.Amount{}, err
	}
	a, ok := decodeOpening(b)
	if !ok {
		return exchange.Amount{}, fmt.Errorf("%w: opening balance of %s", ErrCorrupt, id)
	}
	return a, nil
}

func decodeOpening(record []byte) (exchange.Amount, bool) {
	d := readRecord(record)
	a := d.amount()
	return a, d.whole()
}

// price returns a stored price row, or nil.
func (l *Ledger) price(key digest) *exchange.Price {
	l.mu.Lock()
	defer l.mu.Unlock()
	if row := l.prices[key]; row != nil {
		return &row.row // never changed
	}
	return nil
}

// add counts one entry. It works out again what a charge costs and fails when that is not what was charged.
func (t *Totals) add(e *Entry, price func(digest) *exchange.Price) error {
	t.Entries++
	switch e.Kind {
	case Credit:
		t.Credited = t.Credited.Add(e.Amount)
	case Refund:
		t.Refunded = t.Refunded.Add(e.Amount)
	case Adjustment:
		amount := e.Amount
		if e.To == Adjustments {
			amount = amount.Neg()
		}
		t.Adjusted = t.Adjusted.Add(amount)
	case Charge:
		var cost exchange.Amount
		if e.price != (digest{}) {
			row := price(e.price)
			if row == nil {
				return fmt.Errorf("entry %d has an unknown price", e.Seq)
			}
			var ok bool
			if cost, ok = row.Cost(&e.Usage); !ok {
				cost = e.Held // beyond what can be counted; it was charged what was held
			}
		}
		due := cost
		if cost.Cmp(e.Held) > 0 {
			due = e.Held
		}
		if due != e.Amount {
			return fmt.Errorf("entry %d charges %s for usage that costs %s with %s held", e.Seq, e.Amount, cost, e.Held)
		}
		t.Charges++
		t.Charged = t.Charged.Add(e.Amount)
		t.Served = t.Served.Add(cost)
		t.Excess = t.Excess.Add(cost.Sub(due))
		if e.Flags&Estimated != 0 {
			t.Estimates++
			t.EstimatedAmount = t.EstimatedAmount.Add(e.Amount)
		}
	}
	return nil
}

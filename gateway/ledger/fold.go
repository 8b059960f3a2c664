package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/ledger/record"
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
	for stored, err := range l.store.Scan(ctx, []byte(record.EntryPrefix), record.EntryKey(f.Seq+1)) {
		if err != nil {
			return nil, 0, err
		}
		seq, _ := record.SequenceOf(stored.Key[len(record.EntryPrefix):])
		e, chain, ok := record.DecodeEntry(seq, stored.Value)
		if !ok || seq != f.Seq+1 {
			return nil, 0, fmt.Errorf("%w: entry %d", ErrCorrupt, seq)
		}
		if n == foldStep || !e.Time.Before(cutoff) {
			break
		}
		if err := errors.Join(move(e.From, e.Amount.Neg()), move(e.To, e.Amount)); err != nil {
			return nil, 0, err
		}
		f.Seq, f.Chain = seq, chain
		if err := f.Totals.Add(&e, l.price); err != nil {
			return nil, 0, err
		}
		customer := e.From
		if record.IsSystem(customer) {
			customer = e.To
		}
		g.delete(record.EntryKey(seq))
		g.delete(record.IndexKey(customer, seq))
		if e.Kind == Charge {
			g.delete(record.SettledKey(e.Ref))
		}
		n++
	}
	for id, amount := range openings {
		g.put(record.OpeningKey(id), record.EncodeOpening(amount))
	}
	g.put([]byte(record.FloorKey), f.Encode())
	g.apply(func() { l.floor = f })
	return g, n, nil
}

// opening reads the opening balance of an account.
func (l *Ledger) opening(ctx context.Context, id string) (exchange.Amount, error) {
	b, err := l.store.Get(ctx, record.OpeningKey(id))
	if errors.Is(err, state.ErrNotFound) {
		return exchange.Amount{}, nil
	}
	if err != nil {
		return exchange.Amount{}, err
	}
	a, ok := record.DecodeOpening(b)
	if !ok {
		return exchange.Amount{}, fmt.Errorf("%w: opening balance of %s", ErrCorrupt, id)
	}
	return a, nil
}

// price returns a stored price row, or nil.
func (l *Ledger) price(key record.Digest) *exchange.Price {
	l.mu.Lock()
	defer l.mu.Unlock()
	if row := l.prices[key]; row != nil {
		return &row.row // never changed
	}
	return nil
}

// priceRow is a price row that holds refer to.
type priceRow struct {
	row    exchange.Price
	stored bool
}

// intern returns the ledger's own copy of a row, so that a hold's price can not change.
func (l *Ledger) intern(key record.Digest, p *exchange.Price) *priceRow {
	if row := l.prices[key]; row != nil {
		return row
	}
	row := &priceRow{row: *p}
	row.row.Tiers = slices.Clone(p.Tiers)
	l.prices[key] = row
	return row
}

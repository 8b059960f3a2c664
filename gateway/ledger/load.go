package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/ledger/record"
	"github.com/postern-gateway/postern/gateway/state"
)

// recoverStep is how many open intents are settled in one commit.
const recoverStep = 500

// load reads what is stored, settles what a crashed run left open, and stores that this run has begun.
func (l *Ledger) load(ctx context.Context) error {
	var err error
	l.head, err = l.readHead(ctx)
	if errors.Is(err, state.ErrNotFound) {
		for _, err := range l.store.Scan(ctx, []byte(record.AllPrefix), nil) {
			if err != nil {
				return err
			}
			return fmt.Errorf("%w: there are records but no head", ErrCorrupt)
		}
		l.head = record.Head{Currency: l.currency}
	} else if err != nil {
		return err
	}
	if l.head.Currency != l.currency {
		return fmt.Errorf("its money is %s and the configuration's currency is %s: %w; give another one a store of its own", l.head.Currency, l.currency, ErrCurrency)
	}
	l.head.Boot++
	if err := l.loadFloor(ctx); err != nil {
		return err
	}
	for e, err := range l.store.Scan(ctx, []byte(record.AccountPrefix), nil) {
		if err != nil {
			return err
		}
		id := string(e.Key[len(record.AccountPrefix):])
		r, ok := record.DecodeAccount(e.Value)
		if !ok {
			return fmt.Errorf("%w: account %s", ErrCorrupt, id)
		}
		l.accounts[id] = &account{id: id, closed: r.Closed, opened: r.Opened, total: r.Total}
	}
	for e, err := range l.store.Scan(ctx, []byte(record.PricePrefix), nil) {
		if err != nil {
			return err
		}
		var key record.Digest
		row, ok := record.DecodePrice(e.Value)
		if !ok || copy(key[:], e.Key[len(record.PricePrefix):]) != len(key) {
			return fmt.Errorf("%w: a price row", ErrCorrupt)
		}
		l.prices[key] = &priceRow{row: row, stored: true}
	}
	for e, err := range l.store.Scan(ctx, []byte(record.SpendPrefix), nil) {
		if err != nil {
			return err
		}
		key := string(e.Key[len(record.SpendPrefix):])
		s, ok := record.DecodeSpend(e.Value)
		if !ok {
			return fmt.Errorf("%w: what API key %s spent", ErrCorrupt, key)
		}
		l.spending[key] = &spending{key: key, spent: s}
	}
	var open []*holding
	for e, err := range l.store.Scan(ctx, []byte(record.IntentPrefix), nil) {
		if err != nil {
			return err
		}
		h, err := l.reopen(string(e.Key[len(record.IntentPrefix):]), e.Value)
		if err != nil {
			return err
		}
		open = append(open, h)
	}
	return l.settleAll(open)
}

func (l *Ledger) loadFloor(ctx context.Context) error {
	b, err := l.store.Get(ctx, []byte(record.FloorKey))
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	f, ok := record.DecodeFloor(b)
	if !ok {
		return fmt.Errorf("%w: floor", ErrCorrupt)
	}
	l.floor = f
	return nil
}

// reopen makes the hold of a stored intent known again.
func (l *Ledger) reopen(id string, octets []byte) (*holding, error) {
	i, ok := record.DecodeIntent(octets)
	if !ok {
		return nil, fmt.Errorf("%w: intent of hold %s", ErrCorrupt, id)
	}
	h := &holding{Intent: i, id: id, account: l.accounts[i.Account], version: 1, stored: 1, deadline: time.Time{}}
	if h.account == nil {
		return nil, fmt.Errorf("%w: hold %s is of an unknown account", ErrCorrupt, id)
	}
	if i.Price != (record.Digest{}) {
		if h.price = l.prices[i.Price]; h.price == nil {
			return nil, fmt.Errorf("%w: hold %s has an unknown price", ErrCorrupt, id)
		}
	}
	l.reserve(h)
	l.keep(h)
	return h, nil
}

// settleAll settles holds by their checkpoints. Even without any it commits once, so that no id is minted twice.
func (l *Ledger) settleAll(open []*holding) error {
	for first := true; first || len(open) > 0; first = false {
		g := l.newGroup()
		g.force = true
		n := min(len(open), recoverStep)
		var amount exchange.Amount
		l.mu.Lock()
		for _, h := range open[:n] {
			g.settle(h, Settlement{Usage: h.Checkpoint}, Recovered|Estimated)
			amount = amount.Add(h.outcome.receipt.Amount)
			l.log.Warn("ledger: a call was under way when the last run ended; settled by its last checkpoint",
				"hold", h.id, "amount", h.outcome.receipt.Amount, "held", h.Held)
		}
		l.mu.Unlock()
		g.commit()
		if l.fault != nil {
			return l.fault
		}
		open = open[n:]
		l.recovered.Intents += n
		l.recovered.Amount = l.recovered.Amount.Add(amount)
	}
	return nil
}

package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/ledger/record"
	"github.com/postern-gateway/postern/gateway/state"
)

// Credit adds what was paid in. key makes it happen once: the payment provider's id of the event. Given again with the
// same account and amount it changes nothing and returns the first entry; with others it gives ErrKey.
func (l *Ledger) Credit(ctx context.Context, account string, amount exchange.Amount, key, note string) (Entry, error) {
	if amount.Sign() <= 0 {
		return Entry{}, fmt.Errorf("%w: a credit of %s", ErrInvalid, amount)
	}
	return l.move(ctx, account, amount, key, note, Credit, "")
}

// Adjust corrects a balance by an operator's decision, up or down; down to nothing at most (ErrInsufficient). key works
// as in Credit. A closed account can be adjusted.
func (l *Ledger) Adjust(ctx context.Context, account string, amount exchange.Amount, key, note string) (Entry, error) {
	if amount.Sign() == 0 {
		return Entry{}, fmt.Errorf("%w: an adjustment of nothing", ErrInvalid)
	}
	return l.move(ctx, account, amount, key, note, Adjustment, "")
}

// Refund gives back what a settled hold charged, or a part of it; all refunds of one charge together can not be more
// than it (ErrInsufficient). key works as in Credit.
func (l *Ledger) Refund(ctx context.Context, hold string, amount exchange.Amount, key, note string) (Entry, error) {
	if amount.Sign() <= 0 {
		return Entry{}, fmt.Errorf("%w: a refund of %s", ErrInvalid, amount)
	}
	r, err := l.Receipt(ctx, hold)
	if err != nil {
		return Entry{}, err
	}
	return l.move(ctx, r.Account, amount, key, note, Refund, hold)
}

// move posts one entry between a customer's account and the system's account that its kind belongs to.
func (l *Ledger) move(ctx context.Context, id string, amount exchange.Amount, key, note string, kind Kind, of string) (Entry, error) {
	switch limit := exchange.Pico(1 << 62); {
	case !validName(key):
		return Entry{}, fmt.Errorf("%w: the key has to be 1 to %d visible octets", ErrInvalid, MaxName)
	case len(note) > MaxNote:
		return Entry{}, fmt.Errorf("%w: a note of %d octets, the most is %d", ErrInvalid, len(note), MaxNote)
	case tooLarge(amount, limit):
		return Entry{}, fmt.Errorf("%w: the amount %s is too large", ErrInvalid, amount)
	}
	var entry Entry
	err := l.call(ctx, &job{stage: func(g *group) error {
		if g.keys[key] {
			return errAgain
		}
		done, err := l.keyed(key)
		if err == nil {
			if done.Account != id || done.Amount != amount || done.Kind != kind || done.Hold != of {
				return fmt.Errorf("%w: %s of %s to %s", ErrKey, done.Kind, done.Amount, done.Account)
			}
			entry = done.Entry()
			if whole, err := l.entry(context.Background(), entry.Seq); err == nil { // unless it was folded
				entry = whole
			}
			return nil
		}
		if !errors.Is(err, state.ErrNotFound) {
			return err
		}
		a := l.accounts[id]
		if a == nil || record.IsSystem(id) || (kind == Credit && g.isClosed(a)) {
			return fmt.Errorf("%w: %s", ErrAccount, clip(id, MaxName))
		}
		if amount.Sign() < 0 {
			// What the group takes from the account besides was reserved, so only the new debit is compared.
			if a.available().Add(amount).Sign() < 0 {
				return fmt.Errorf("%w: %s is available", ErrInsufficient, a.available())
			}
		}
		e := Entry{Kind: kind, Amount: amount, Ref: key, Note: note, Of: of}
		if kind == Refund {
			if err := g.refund(of, amount); err != nil {
				return err
			}
		}
		other := g.system(map[Kind]string{Credit: Payments, Adjustment: Adjustments, Refund: Revenue}[kind])
		if amount.Sign() < 0 {
			e.Amount = amount.Neg()
			g.post(a, other, &e)
			// Reserved until it is stored: a hold placed meanwhile must not count on it.
			c, debit := g.change(a), e.Amount
			a.held, c.freed = a.held.Add(debit), c.freed.Add(debit)
			back := func() { a.held = a.held.Sub(debit) }
			g.apply(back)
			g.undo(back)
		} else {
			g.post(other, a, &e)
		}
		if g.keys == nil {
			g.keys = map[string]bool{}
		}
		g.keys[key] = true
		g.put(record.OnceKey(key), record.Keyed{Kind: kind, Account: id, Amount: amount, Hold: of, Seq: e.Seq, Time: e.Time}.Encode())
		entry = e
		return nil
	}})
	if errors.Is(err, errAgain) { // the same key twice in one group: ask again when the first is stored
		return l.move(ctx, id, amount, key, note, kind, of)
	}
	if err != nil {
		return Entry{}, err
	}
	return entry, nil
}

// errAgain asks the caller to come back with the next group.
var errAgain = errors.New("the same is under way")

func tooLarge(a, limit exchange.Amount) bool {
	limit, _ = limit.Times(1 << 32)
	return a.Cmp(limit) > 0 || a.Neg().Cmp(limit) > 0
}

// refund counts a refund of a charge, if the charge covers it.
func (g *group) refund(hold string, amount exchange.Amount) error {
	m, there := g.refunded[hold]
	if !there {
		var err error
		if m, err = g.l.marker(context.Background(), hold); err != nil {
			return err
		}
	}
	m.Refunded = m.Refunded.Add(amount)
	if m.Refunded.Cmp(m.Amount) > 0 {
		return fmt.Errorf("%w: the charge was %s, refunds would be %s", ErrInsufficient, m.Amount, m.Refunded)
	}
	if g.refunded == nil {
		g.refunded = map[string]record.Marker{}
	}
	g.refunded[hold] = m
	g.put(record.SettledKey(hold), m.Encode())
	return nil
}

// keyed reads what was done under a key.
func (l *Ledger) keyed(key string) (record.Keyed, error) {
	b, err := l.store.Get(context.Background(), record.OnceKey(key))
	if err != nil {
		return record.Keyed{}, fmt.Errorf("read key: %w", err)
	}
	k, ok := record.DecodeKeyed(b)
	if !ok {
		return record.Keyed{}, fmt.Errorf("%w: key %s", ErrCorrupt, key)
	}
	k.Key = key
	return k, nil
}

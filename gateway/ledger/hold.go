package ledger

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/ledger/record"
)

// batchDelay is how long an intent of durability "batch", or a checkpoint, waits for company. With the commit after it
// that stays within the 50 ms a route may lose.
const batchDelay = 25 * time.Millisecond

// HoldRequest asks for money to be reserved for one call.
type HoldRequest struct {
	Account  string
	Exchange string            // the exchange's id, for the record; may be empty
	Model    string            // the public model; may be empty
	Price    *exchange.Price   // the row that applies; it is copied. nil: the call is free and recorded all the same
	Max      exchange.Usage    // the most the call can consume
	Tags     map[string]string // written on the entry
	Key      string            // the id of the API key it is called with, written on the entry; may be empty
	Cap      exchange.Cap      // what the calls of Key may cost together; needs a Key
}

// Hold is money reserved for one call.
type Hold struct {
	ID      string // node-boot-sequence
	Amount  exchange.Amount
	Expires time.Time
}

// Settlement is how a call ended.
type Settlement struct {
	Usage    exchange.Usage    // what it consumed; its Estimated flag is kept
	Tags     map[string]string // added to those of the hold; what goes beyond MaxTags and MaxTag is left out
	Exchange string            // the exchange's id, if the hold did not know it
}

// holding is an open hold. The ledger's lock guards it.
type holding struct {
	record.Intent // what the store knows once an attempt was begun

	id       string
	account  *account
	spending *spending // of the API key; nil without one
	price    *priceRow
	deadline time.Time
	place    *list.Element // in Ledger.deadlines

	version uint64    // counts changes of the intent
	stored  uint64    // the version in the store, as far as known; 0: no intent is there
	queued  bool      // in Ledger.dirty
	due     time.Time // when a dirty intent is written
	outcome *outcome  // set while a group that ends the hold is on its way to the store
	ending  *ending   // set when it was to end and could not be recorded
	gone    bool      // ended
}

// ending is how a hold was to end while nothing could be recorded.
type ending struct {
	settlement *Settlement // nil: released
}

// outcome is how a hold ends in a group under way.
type outcome struct {
	receipt *exchange.Receipt // nil: released
}

// Hold reserves the most that a call can cost. It gives ErrInsufficient when the available balance does not cover it,
// a *CapError when the cap of its API key does not, ErrAccount for an account that is unknown or closed, ErrUnavailable while the ledger could not record the call.
func (l *Ledger) Hold(ctx context.Context, r HoldRequest) (Hold, error) {
	amount, err := r.amount()
	if err != nil {
		return Hold{}, err
	}
	var key record.Digest
	if r.Price != nil {
		key = record.DigestOf(r.Price)
	}
	if err := l.enter(ctx); err != nil {
		return Hold{}, err
	}
	defer l.mu.Unlock()
	a := l.accounts[r.Account]
	switch {
	case l.fault != nil:
		return Hold{}, fmt.Errorf("%w: %w", ErrUnavailable, l.fault)
	case a == nil || a.closed || record.IsSystem(a.id):
		return Hold{}, fmt.Errorf("%w: %s", ErrAccount, r.Account)
	case len(l.holds) >= l.most:
		return Hold{}, fmt.Errorf("%w: %d holds are open", ErrUnavailable, len(l.holds))
	case amount.Sign() > 0 && a.available().Cmp(amount) < 0:
		return Hold{}, fmt.Errorf("%w: the call may cost %s, %s is available", ErrInsufficient, amount, a.available())
	}
	now := l.now()
	if err := l.capped(&r, amount, now); err != nil {
		return Hold{}, err
	}
	l.sequence++
	h := &holding{
		id: l.mint(l.sequence), account: a, deadline: now.Add(l.holdTTL),
		Intent: record.Intent{
			Account: a.id, Exchange: r.Exchange, Model: r.Model, Held: amount, Placed: now,
			Tags: maps.Clone(r.Tags), Key: r.Key, Checkpoint: exchange.Usage{Estimated: true},
		},
	}
	if r.Price != nil {
		h.price = l.intern(key, r.Price)
		h.Price = key
	}
	l.reserve(h)
	l.keep(h)
	return Hold{ID: h.id, Amount: amount, Expires: h.deadline}, nil
}

// amount checks a request and returns what has to be reserved for it.
func (r *HoldRequest) amount() (exchange.Amount, error) {
	switch {
	case !validName(r.Account):
		return exchange.Amount{}, fmt.Errorf("%w: account %q", ErrAccount, clip(r.Account, MaxName))
	case r.Key != "" && !validName(r.Key), r.Key == "" && !r.Cap.IsZero():
		return exchange.Amount{}, fmt.Errorf("%w: API key %q", ErrInvalid, clip(r.Key, MaxName))
	case len(r.Model) > MaxName || len(r.Exchange) > MaxName:
		return exchange.Amount{}, fmt.Errorf("%w: a name longer than %d octets", ErrInvalid, MaxName)
	case len(r.Tags) > MaxTags:
		return exchange.Amount{}, fmt.Errorf("%w: %d tags, the most is %d", ErrInvalid, len(r.Tags), MaxTags)
	}
	for name, value := range r.Tags {
		if name == "" || len(name) > MaxTag || len(value) > MaxTag {
			return exchange.Amount{}, fmt.Errorf("%w: tag %q", ErrInvalid, clip(name, MaxTag))
		}
	}
	for u, n := range r.Max.Units {
		if n < 0 {
			return exchange.Amount{}, fmt.Errorf("%w: %d of unit %s", ErrInvalid, n, exchange.Unit(u))
		}
	}
	if r.Price == nil {
		return exchange.Amount{}, nil
	}
	if err := record.CheckPrice(r.Price); err != nil {
		return exchange.Amount{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	amount, ok := r.Price.Most(&r.Max)
	if !ok {
		return exchange.Amount{}, fmt.Errorf("%w: the call may cost more than can be counted", ErrInsufficient)
	}
	return amount, nil
}

// mint returns the id of the n-th hold of this run.
func (l *Ledger) mint(n uint64) string {
	b := make([]byte, 0, len(l.node)+24)
	b = append(append(b, l.node...), '-')
	b = append(strconv.AppendUint(b, l.head.Boot, 10), '-')
	return string(strconv.AppendUint(b, n, 10))
}

// keep makes a hold known, last in the order of expiry.
func (l *Ledger) keep(h *holding) {
	l.holds[h.id] = h
	h.place = l.deadlines.PushBack(h)
	if l.deadlines.Len() == 1 {
		l.nudge() // the writer may be asleep without a date
	}
}

// forget ends a hold and gives back what it reserved.
func (l *Ledger) forget(h *holding) {
	if h.gone {
		return
	}
	h.gone = true
	h.account.held = h.account.held.Sub(h.Held)
	if h.spending != nil {
		h.spending.held = h.spending.held.Sub(h.Held)
	}
	delete(l.holds, h.id)
	l.deadlines.Remove(h.place)
}

// nudge makes the writer look at its dates again.
func (l *Ledger) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Begin records that an upstream is about to be called under a hold: the intent, from which the call can be settled if
// this process ends. An error means that the upstream must not be called.
func (l *Ledger) Begin(ctx context.Context, id string, at Attempt) error {
	if len(at.Upstream) > MaxName || len(at.Model) > MaxName || len(at.Exchange) > MaxName {
		return fmt.Errorf("%w: an attempt with names longer than %d octets", ErrInvalid, MaxName)
	}
	if at.Number < 0 || at.Number > 1<<20 {
		return fmt.Errorf("%w: attempt %d", ErrInvalid, at.Number)
	}
	switch at.Durability {
	case "", "sync":
		return l.call(ctx, &job{stage: func(g *group) error {
			h, err := l.open(id)
			if err != nil {
				return err
			}
			before := h.begin(at)
			version := h.version
			g.undo(func() {
				if h.version == version {
					h.Attempts = before
				}
			})
			g.intent(h)
			return nil
		}})
	case "batch":
		if err := l.enter(ctx); err != nil {
			return err
		}
		defer l.mu.Unlock()
		if l.fault != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, l.fault)
		}
		h, err := l.open(id)
		if err != nil {
			return err
		}
		h.begin(at)
		l.soon(h)
		return nil
	}
	return fmt.Errorf("%w: durability %q is neither \"sync\" nor \"batch\"", ErrInvalid, at.Durability)
}

// open returns a hold that has not ended and is not about to.
func (l *Ledger) open(id string) (*holding, error) {
	h := l.holds[id]
	if h == nil {
		return nil, fmt.Errorf("%w: %s", ErrHold, clip(id, MaxName))
	}
	if h.outcome != nil {
		return nil, fmt.Errorf("%w: %s", ErrSettled, id)
	}
	return h, nil
}

// begin adds an attempt to the intent and returns the attempts before.
func (h *holding) begin(at Attempt) []Attempt {
	before := h.Attempts
	kept := before[:min(len(before), record.MaxAttempts-1)]
	h.Attempts = append(make([]Attempt, 0, len(kept)+1), kept...)
	h.Attempts = append(h.Attempts, at)
	if h.Exchange == "" {
		h.Exchange = at.Exchange
	}
	h.version++
	return before
}

// soon has the writer store the intent of h with what else comes in the next moments.
func (l *Ledger) soon(h *holding) {
	if h.queued {
		return
	}
	h.queued = true
	h.due = l.now().Add(batchDelay)
	l.dirty = append(l.dirty, h)
	if len(l.dirty) == 1 {
		l.nudge()
	}
}

// Checkpoint notes what a call has consumed so far, all in all, for the case that it is never settled. It never waits;
// of several in a row the last is stored, soon. A hold that is not open is ignored: the call was settled meanwhile.
func (l *Ledger) Checkpoint(id string, usage exchange.Usage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.holds[id]
	if h == nil || h.outcome != nil || l.closed {
		return
	}
	for _, n := range usage.Units {
		if n < 0 {
			return
		}
	}
	usage.Estimated = true
	h.Checkpoint = usage
	h.version++
	if len(h.Attempts) > 0 {
		l.soon(h)
	}
}

// Settle ends a hold: it charges what the usage costs at the price snapshotted by the hold, at most what was held, and
// gives the rest back. It charges once: given again, or when the hold had expired and was settled by its checkpoint,
// it returns the receipt of the first time. ErrHold means that there is no such hold. With ErrUnavailable the usage is
// kept, and charged as soon as something can be recorded again; only if this process ends before, the checkpoint counts.
func (l *Ledger) Settle(ctx context.Context, id string, s Settlement) (*exchange.Receipt, error) {
	for u, n := range s.Usage.Units {
		if n < 0 {
			return nil, fmt.Errorf("%w: %d of unit %s", ErrInvalid, n, exchange.Unit(u))
		}
	}
	var receipt *exchange.Receipt
	err := l.call(ctx, &job{stage: func(g *group) error {
		h := l.holds[id]
		if h == nil {
			return ErrHold
		}
		if h.outcome == nil {
			g.settle(h, s, 0)
		} else if h.outcome.receipt == nil {
			return ErrHold // its release is in the same group
		}
		receipt = h.outcome.receipt
		return nil
	}})
	if errors.Is(err, ErrHold) {
		return l.Receipt(ctx, id)
	}
	if err != nil {
		l.later(id, &ending{settlement: &s}, err)
		return nil, err
	}
	copied := *receipt
	return &copied, nil
}

// Release ends a hold without a charge: nothing was served under it. ErrSettled means that it was charged already. With
// ErrUnavailable it is released as soon as something can be recorded again.
func (l *Ledger) Release(ctx context.Context, id string) error {
	if err := l.enter(ctx); err != nil {
		return err
	}
	if h := l.holds[id]; h != nil && h.outcome == nil && len(h.Attempts) == 0 && h.stored == 0 && h.version == 0 {
		l.forget(h) // nothing of it was ever on its way to the store
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	err := l.call(ctx, &job{stage: func(g *group) error {
		h, err := l.open(id)
		if err != nil {
			return err
		}
		g.release(h)
		return nil
	}})
	if errors.Is(err, ErrHold) {
		if _, found := l.Receipt(ctx, id); found == nil {
			return fmt.Errorf("%w: %s", ErrSettled, id)
		}
	}
	l.later(id, &ending{}, err)
	return err
}

// later has a hold end as it was to when err says that nothing can be recorded: it is due from now on. What was decided
// first stays.
func (l *Ledger) later(id string, e *ending, err error) {
	if !errors.Is(err, ErrUnavailable) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.holds[id]
	if h == nil || h.ending != nil {
		return
	}
	h.ending, h.deadline = e, l.now()
	l.deadlines.MoveToFront(h.place)
	l.nudge()
}

// clip shortens what a caller gave for an error message.
func clip(s string, most int) string {
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

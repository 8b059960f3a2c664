package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/ledger/record"
)

// spending is what the calls of one API key cost. It is kept for every key that a hold named, with a cap or without one,
// so that a cap holds from the moment at which it is set. The ledger's lock guards it.
type spending struct {
	key   string
	spent record.Spend    // what is stored
	held  exchange.Amount // reserved by open holds
}

// Spending is what the calls of an API key cost in a period. A charge counts in the period in which it was settled, and
// what is held in the one that is now. Refunds give money back to the account, and no room under a cap.
type Spending struct {
	Spent exchange.Amount
	Held  exchange.Amount // reserved for calls under way
	Ends  time.Time       // when the next period begins; zero: never
}

// CapError says that a call was refused because it could take its API key beyond its cap. It is ErrCap.
type CapError struct {
	Cap    exchange.Cap
	Amount exchange.Amount // the most the call can cost
	Spending
}

// Error says it for the log.
func (e *CapError) Error() string {
	return fmt.Sprintf("%s: %s, %s spent and %s held, the call may cost %s", ErrCap, e.Cap, e.Spent, e.Held, e.Amount)
}

// Is reports whether target is ErrCap.
func (e *CapError) Is(target error) bool { return target == ErrCap }

// Problem is what the caller is told. Its amounts are of the currency of the ledger.
func (e *CapError) Problem(currency string, now time.Time) *exchange.Problem {
	p := &exchange.Problem{Status: 402, Code: "key_cap_reached", Title: "The API key's spending cap is reached."}
	period := ""
	if e.Cap.Per != exchange.Total {
		period = " in a " + e.Cap.Per.String()
	}
	p.Detail = fmt.Sprintf("This API key may spend %s %s%s: %s are spent, %s are held for calls under way, and this call may cost up to %s.",
		e.Cap.Amount, currency, period, e.Spent, e.Held, e.Amount)
	if !e.Ends.IsZero() {
		p.Detail += fmt.Sprintf(" The next %s begins at %s.", e.Cap.Per, e.Ends.Format(time.RFC3339))
		p.Retry = max(e.Ends.Sub(now), time.Second)
	}
	return p
}

// Spending returns what the calls of an API key cost in the period of a kind that is now; nothing for a key that was not
// called with yet.
func (l *Ledger) Spending(ctx context.Context, key string, per exchange.Period) (Spending, error) {
	if per >= exchange.Periods {
		return Spending{}, fmt.Errorf("%w: period %d", ErrInvalid, per)
	}
	if err := l.enter(ctx); err != nil {
		return Spending{}, err
	}
	defer l.mu.Unlock()
	return l.spending[key].in(per, l.now()), nil
}

// in tells of the period of a kind that holds now.
func (s *spending) in(per exchange.Period, now time.Time) Spending {
	v := Spending{Ends: per.End(now)}
	if s != nil {
		v.Spent, v.Held = s.spent.In(per, now), s.held
	}
	return v
}

// capped refuses a hold that could take its API key beyond its cap: what was charged in the period, what is held, and the
// hold together are at most the cap. A charge is never more than its hold, so no charge takes the key beyond it.
func (l *Ledger) capped(r *HoldRequest, amount exchange.Amount, now time.Time) error {
	if r.Cap.IsZero() || amount.Sign() == 0 {
		return nil
	}
	v := l.spending[r.Key].in(r.Cap.Per, now)
	if v.Spent.Add(v.Held).Add(amount).Cmp(r.Cap.Amount) > 0 {
		return &CapError{Cap: r.Cap, Amount: amount, Spending: v}
	}
	return nil
}

// reserve takes what a new hold reserves from its account, and from under the cap of its key.
func (l *Ledger) reserve(h *holding) {
	h.account.held = h.account.held.Add(h.Held)
	if h.Key == "" {
		return
	}
	s := l.spending[h.Key]
	if s == nil {
		s = &spending{key: h.Key}
		l.spending[h.Key] = s
	}
	s.held = s.held.Add(h.Held)
	h.spending = s
}

// spend counts a charge for its API key.
func (g *group) spend(s *spending, e *Entry) {
	if s == nil {
		return
	}
	spent := g.spends[s]
	if spent == nil {
		spent = new(record.Spend)
		*spent = s.spent
		if g.spends == nil {
			g.spends = map[*spending]*record.Spend{}
		}
		g.spends[s] = spent
	}
	spent.Add(e.Amount, e.Time)
}

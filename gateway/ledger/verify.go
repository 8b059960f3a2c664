package ledger

import (
	"context"
	"fmt"
	"iter"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/ledger/record"
	"github.com/postern-gateway/postern/gateway/state"
)

// Verify reads everything that is stored, as of one moment, and proves that
//
//   - entries are numbered without a gap and chained by their hashes up to the head: none is missing, altered or added;
//   - every entry moves one amount from one account to another, and all balances together are zero;
//   - each account's balance, stored and in memory, is its opening balance and the sum of its entries;
//   - every charge is what its usage costs at the price of its hold, at most what was held, and belongs to exactly one
//     settled hold; a hold with an open intent has not been settled; refunds do not exceed their charge;
//   - what was charged and what could not be is together what was served.
//
// An error means that the proof could not be made; what is wrong with the money is in the report.
func (l *Ledger) Verify(ctx context.Context) (*Report, error) {
	memory := map[string]exchange.Amount{}
	var last record.Head
	var next func() (state.Entry, error, bool)
	stop := func() {}
	var first state.Entry
	var more bool
	err := l.call(ctx, &job{reads: func() (err error) {
		// Between two commits: from here on both memory and the scan are of the same moment.
		next, stop = iter.Pull2(l.store.Scan(ctx, []byte(record.AllPrefix), nil))
		first, err, more = next()
		for id, a := range l.accounts {
			memory[id] = a.total
		}
		last = l.head
		return err
	}})
	defer func() { stop() }()
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	v := record.NewVerifier(l.currency, l.price, last, memory)
	for one := first; more; one, err, more = next() {
		if err != nil {
			return nil, fmt.Errorf("verify: %w", err)
		}
		v.Record(one)
	}
	return v.Finish(), nil
}

package ledger

import (
	"context"
	"fmt"
	"hash/maphash"
	"iter"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/state"
)

// maxProblems is how many problems a report names; the rest is counted.
const maxProblems = 100

// Report is what Verify found. The ledger is right when Problems is empty.
type Report struct {
	Totals   // since the ledger began, folded entries included
	Currency string
	Accounts int             // customers' accounts
	Folded   uint64          // entries that are only known as opening balances
	Last     uint64          // the last entry's number
	Chain    [chainSize]byte // the last entry's hash: whoever keeps it can tell later that nothing before it changed
	Intents  int             // calls under way
	Held     exchange.Amount // what those have reserved
	Balance  exchange.Amount // the sum of the customers' balances
	Problems []string
	Omitted  int // problems beyond the first hundred
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

func (r *Report) problem(format string, args ...any) {
	if len(r.Problems) == maxProblems {
		r.Omitted++
		return
	}
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

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
	v := &verifier{
		l: l, report: &Report{Currency: l.currency}, seed: maphash.MakeSeed(), memory: map[string]exchange.Amount{},
		sums: map[string]exchange.Amount{}, intents: map[string]bool{}, refunds: map[string]exchange.Amount{},
	}
	var next func() (state.Entry, error, bool)
	stop := func() {}
	var first state.Entry
	var more bool
	err := l.call(ctx, &job{reads: func() (err error) {
		// Between two commits: from here on both memory and the scan are of the same moment.
		next, stop = iter.Pull2(l.store.Scan(ctx, []byte(allPrefix), nil))
		first, err, more = next()
		for id, a := range l.accounts {
			v.memory[id] = a.total
		}
		v.last = l.head
		return err
	}})
	defer func() { stop() }()
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	for record := first; more; record, err, more = next() {
		if err != nil {
			return nil, fmt.Errorf("verify: %w", err)
		}
		v.record(record)
	}
	v.finish()
	return v.report, nil
}

// verifier takes the records in the order of their keys.
type verifier struct {
	l      *Ledger
	report *Report
	seed   maphash.Seed

	last    head                       // in memory
	memory  map[string]exchange.Amount // balances in memory
	stored  map[string]exchange.Amount // balances in the account records
	head    head
	floor   floor
	sums    map[string]exchange.Amount // opening balances and entries
	intents map[string]bool
	refunds map[string]exchange.Amount // of charges that were not folded
	seq     uint64
	chain   [chainSize]byte

	// For every entry after the floor: a print of what its marker and its index record must say, zero when it has been
	// met or when there is none. Sixteen octets an entry is what the proof costs in memory.
	charges []uint64
	indexes []uint64
}

// print is a short name of parts, never zero.
func (v *verifier) print(parts ...string) uint64 {
	return maphash.String(v.seed, strings.Join(parts, "\x00")) | 1
}

func (v *verifier) record(r state.Entry) {
	key := string(r.Key)
	after := func(prefix string) (string, bool) { return strings.CutPrefix(key, prefix) }
	ok := true
	if id, is := after(accountPrefix); is {
		var a accountRecord
		if a, ok = decodeAccount(r.Value); ok {
			if v.stored == nil {
				v.stored = map[string]exchange.Amount{}
			}
			v.stored[id] = a.total
		}
	} else if id, is := after(openingPrefix); is {
		v.sums[id], ok = decodeOpening(r.Value)
	} else if key == floorKey {
		v.floor, ok = decodeFloor(r.Value)
		v.seq, v.chain = v.floor.seq, v.floor.chain
		v.report.Folded, v.report.Totals = v.floor.seq, v.floor.totals
	} else if key == headKey {
		v.head, ok = decodeHead(r.Value)
	} else if id, is := after(intentPrefix); is {
		var i intent
		if i, ok = decodeIntent(r.Value); ok {
			v.intents[id] = true
			v.report.Intents++
			v.report.Held = v.report.Held.Add(i.Held)
		}
	} else if _, is := after(oncePrefix); is {
		_, ok = decodeKeyed(r.Value)
	} else if name, is := after(pricePrefix); is {
		var row exchange.Price
		if row, ok = decodePrice(r.Value); ok {
			d := digestOf(&row)
			ok = name == string(d[:])
		}
	} else if number, is := after(entryPrefix); is {
		v.entry(number, r.Value)
	} else if id, is := after(settledPrefix); is {
		v.settled(id, r.Value)
	} else if rest, is := after(indexPrefix); is {
		v.index(rest)
	} else {
		v.report.problem("record %q is none of the ledger's", key)
	}
	if !ok {
		v.report.problem("record %q can not be read", key)
	}
}

func (v *verifier) entry(number string, record []byte) {
	seq, ok := sequenceOf([]byte(number))
	if !ok {
		v.report.problem("record of an entry without a number")
		return
	}
	if seq <= v.floor.seq {
		v.report.problem("entry %d was folded and is still there", seq)
		return
	}
	for ; v.seq+1 < seq && len(v.report.Problems) < maxProblems; v.seq++ {
		v.report.problem("entry %d is missing", v.seq+1)
	}
	v.seq = seq
	for uint64(len(v.charges)) < seq-v.floor.seq && len(v.report.Problems) < maxProblems {
		v.charges, v.indexes = append(v.charges, 0), append(v.indexes, 0)
	}
	if uint64(len(v.charges)) != seq-v.floor.seq {
		return // too many are missing to say more
	}
	e, chain, ok := decodeEntry(seq, record)
	if !ok {
		v.report.problem("entry %d can not be read", seq)
		return
	}
	if link(v.chain, seq, record[:len(record)-chainSize]) != chain {
		v.report.problem("entry %d is not what was recorded, or the one before it", seq)
	}
	v.chain = chain
	customer := e.From
	if isSystem(e.From) {
		customer = e.To
	}
	if e.From == e.To || isSystem(e.From) == isSystem(e.To) {
		v.report.problem("entry %d moves money from %s to %s", seq, e.From, e.To)
	}
	v.sums[e.From] = v.sums[e.From].Sub(e.Amount)
	v.sums[e.To] = v.sums[e.To].Add(e.Amount)
	if err := v.report.Totals.add(&e, v.l.price); err != nil {
		v.report.problem("%v", err)
	}
	v.indexes[len(v.indexes)-1] = v.print(customer)
	switch e.Kind {
	case Charge:
		v.charges[len(v.charges)-1] = v.print(e.Ref, e.Amount.String())
		if v.intents[e.Ref] {
			v.report.problem("hold %s is settled by entry %d and still has an intent", e.Ref, seq)
		}
	case Refund:
		v.refunds[e.Of] = v.refunds[e.Of].Add(e.Amount)
	}
}

func (v *verifier) settled(id string, record []byte) {
	m, ok := decodeMarker(record)
	if !ok {
		v.report.problem("record of settled hold %s can not be read", id)
		return
	}
	i := m.seq - v.floor.seq - 1
	if m.seq <= v.floor.seq || i >= uint64(len(v.charges)) || v.charges[i] != v.print(id, m.amount.String()) {
		v.report.problem("hold %s is said to be settled by entry %d, which does not say so", id, m.seq)
		return
	}
	v.charges[i] = 0
	if m.refunded != v.refunds[id] || m.refunded.Cmp(m.amount) > 0 {
		v.report.problem("hold %s was charged %s and refunded %s, by its entries %s", id, m.amount, m.refunded, v.refunds[id])
	}
}

func (v *verifier) index(rest string) {
	id, number, ok := strings.Cut(rest, "\x00")
	seq, whole := sequenceOf([]byte(number))
	i := seq - v.floor.seq - 1
	if !ok || !whole || seq <= v.floor.seq || i >= uint64(len(v.indexes)) || v.indexes[i] != v.print(id) {
		v.report.problem("the index of %s names an entry %d that is not there", id, seq)
		return
	}
	v.indexes[i] = 0
}

// finish compares what was added up.
func (v *verifier) finish() {
	r := v.report
	for i := range v.charges {
		if v.charges[i] != 0 {
			r.problem("entry %d is a charge for which no hold was settled, or the same one twice", v.floor.seq+uint64(i)+1)
		}
		if v.indexes[i] != 0 {
			r.problem("entry %d is not in its account's index", v.floor.seq+uint64(i)+1)
		}
	}
	if v.head.seq != v.seq || v.head.chain != v.chain {
		r.problem("entries end with %d, the head says %d", v.seq, v.head.seq)
	}
	if v.head.seq != v.last.seq || v.head.chain != v.last.chain {
		r.problem("the head says %d entries, memory %d", v.head.seq, v.last.seq)
	}
	r.Last, r.Chain = v.seq, v.chain
	var sum exchange.Amount
	for id, total := range v.memory {
		if v.stored[id] != total || v.sums[id] != total {
			r.problem("balance of %s: %s in memory, %s stored, %s by its entries", id, total, v.stored[id], v.sums[id])
		}
		sum = sum.Add(total)
		if !isSystem(id) {
			r.Accounts++
			r.Balance = r.Balance.Add(total)
			if total.Sign() < 0 {
				r.problem("balance of %s is %s", id, total)
			}
		}
	}
	for id := range v.sums {
		if _, known := v.memory[id]; !known {
			r.problem("there are entries of %s, which is no account", id)
		}
	}
	for id := range v.stored {
		if _, known := v.memory[id]; !known {
			r.problem("account %s is stored and not in memory", id)
		}
	}
	if sum.Sign() != 0 {
		r.problem("all balances together are %s instead of nothing", sum)
	}
	if r.Charged.Add(r.Excess) != r.Served {
		r.problem("%s charged and %s beyond what was held, %s served", r.Charged, r.Excess, r.Served)
	}
	if uint64(len(v.charges)) != r.Entries-v.floor.totals.Entries {
		r.problem("%d entries after the floor, %d read", len(v.charges), r.Entries-v.floor.totals.Entries)
	}
}

package record

import (
	"fmt"
	"hash/maphash"
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
	Chain    [ChainSize]byte // the last entry's hash: whoever keeps it can tell later that nothing before it changed
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

// Verifier proves that records add up. It takes them in the order of their keys.
type Verifier struct {
	report *Report
	seed   maphash.Seed
	price  func(Digest) *exchange.Price

	last    Head                       // in memory
	memory  map[string]exchange.Amount // balances in memory
	stored  map[string]exchange.Amount // balances in the account records
	head    Head
	floor   Floor
	sums    map[string]exchange.Amount // opening balances and entries
	intents map[string]bool
	refunds map[string]exchange.Amount // of charges that were not folded
	spends  map[string]exchange.Amount // what API keys spent, by their records, less what entries say
	seq     uint64
	chain   [ChainSize]byte

	// For every entry after the floor: a print of what its marker and its index record must say, zero when it has been
	// met or when there is none. Sixteen octets an entry is what the proof costs in memory.
	charges []uint64
	indexes []uint64
}

// NewVerifier makes a Verifier of what a ledger in that currency stores. price finds price rows; last and memory are the
// head and the balances that the ledger has in memory at the moment at which the records are read.
func NewVerifier(currency string, price func(Digest) *exchange.Price, last Head, memory map[string]exchange.Amount) *Verifier {
	return &Verifier{
		report: &Report{Currency: currency}, seed: maphash.MakeSeed(), price: price, last: last, memory: memory,
		stored: map[string]exchange.Amount{}, sums: map[string]exchange.Amount{}, intents: map[string]bool{},
		refunds: map[string]exchange.Amount{}, spends: map[string]exchange.Amount{},
	}
}

// print is a short name of parts, never zero.
func (v *Verifier) print(parts ...string) uint64 {
	return maphash.String(v.seed, strings.Join(parts, "\x00")) | 1
}

// Record takes the next record.
func (v *Verifier) Record(r state.Entry) {
	key := string(r.Key)
	after := func(prefix string) (string, bool) { return strings.CutPrefix(key, prefix) }
	ok := true
	if id, is := after(AccountPrefix); is {
		var a Account
		if a, ok = DecodeAccount(r.Value); ok {
			v.stored[id] = a.Total
		}
	} else if id, is := after(OpeningPrefix); is {
		v.sums[id], ok = DecodeOpening(r.Value)
	} else if key == FloorKey {
		v.floor, ok = DecodeFloor(r.Value)
		v.seq, v.chain = v.floor.Seq, v.floor.Chain
		v.report.Folded, v.report.Totals = v.floor.Seq, v.floor.Totals
	} else if key == HeadKey {
		v.head, ok = DecodeHead(r.Value)
	} else if id, is := after(IntentPrefix); is {
		var i Intent
		if i, ok = DecodeIntent(r.Value); ok {
			v.intents[id] = true
			v.report.Intents++
			v.report.Held = v.report.Held.Add(i.Held)
		}
	} else if _, is := after(oncePrefix); is {
		_, ok = DecodeKeyed(r.Value)
	} else if name, is := after(PricePrefix); is {
		var row exchange.Price
		if row, ok = DecodePrice(r.Value); ok {
			d := DigestOf(&row)
			ok = name == string(d[:])
		}
	} else if id, is := after(SpendPrefix); is {
		var s Spend
		if s, ok = DecodeSpend(r.Value); ok {
			v.spends[id] = s.Sums[exchange.Total]
		}
	} else if number, is := after(EntryPrefix); is {
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

func (v *Verifier) entry(number string, record []byte) {
	seq, ok := SequenceOf([]byte(number))
	if !ok {
		v.report.problem("record of an entry without a number")
		return
	}
	if seq <= v.floor.Seq {
		v.report.problem("entry %d was folded and is still there", seq)
		return
	}
	for ; v.seq+1 < seq && len(v.report.Problems) < maxProblems; v.seq++ {
		v.report.problem("entry %d is missing", v.seq+1)
	}
	v.seq = seq
	for uint64(len(v.charges)) < seq-v.floor.Seq && len(v.report.Problems) < maxProblems {
		v.charges, v.indexes = append(v.charges, 0), append(v.indexes, 0)
	}
	if uint64(len(v.charges)) != seq-v.floor.Seq {
		return // too many are missing to say more
	}
	e, chain, ok := DecodeEntry(seq, record)
	if !ok {
		v.report.problem("entry %d can not be read", seq)
		return
	}
	if Link(v.chain, seq, record[:len(record)-ChainSize]) != chain {
		v.report.problem("entry %d is not what was recorded, or the one before it", seq)
	}
	v.chain = chain
	customer := e.From
	if IsSystem(e.From) {
		customer = e.To
	}
	if e.From == e.To || IsSystem(e.From) == IsSystem(e.To) {
		v.report.problem("entry %d moves money from %s to %s", seq, e.From, e.To)
	}
	v.sums[e.From] = v.sums[e.From].Sub(e.Amount)
	v.sums[e.To] = v.sums[e.To].Add(e.Amount)
	if err := v.report.Totals.Add(&e, v.price); err != nil {
		v.report.problem("%v", err)
	}
	v.indexes[len(v.indexes)-1] = v.print(customer)
	switch e.Kind {
	case Charge:
		v.charges[len(v.charges)-1] = v.print(e.Ref, e.Amount.String())
		if e.Key != "" {
			v.spends[e.Key] = v.spends[e.Key].Sub(e.Amount)
		}
		if v.intents[e.Ref] {
			v.report.problem("hold %s is settled by entry %d and still has an intent", e.Ref, seq)
		}
	case Refund:
		v.refunds[e.Of] = v.refunds[e.Of].Add(e.Amount)
	}
}

func (v *Verifier) settled(id string, record []byte) {
	m, ok := DecodeMarker(record)
	if !ok {
		v.report.problem("record of settled hold %s can not be read", id)
		return
	}
	i := m.Seq - v.floor.Seq - 1
	if m.Seq <= v.floor.Seq || i >= uint64(len(v.charges)) || v.charges[i] != v.print(id, m.Amount.String()) {
		v.report.problem("hold %s is said to be settled by entry %d, which does not say so", id, m.Seq)
		return
	}
	v.charges[i] = 0
	if m.Refunded != v.refunds[id] || m.Refunded.Cmp(m.Amount) > 0 {
		v.report.problem("hold %s was charged %s and refunded %s, by its entries %s", id, m.Amount, m.Refunded, v.refunds[id])
	}
}

func (v *Verifier) index(rest string) {
	id, number, ok := strings.Cut(rest, "\x00")
	seq, whole := SequenceOf([]byte(number))
	i := seq - v.floor.Seq - 1
	if !ok || !whole || seq <= v.floor.Seq || i >= uint64(len(v.indexes)) || v.indexes[i] != v.print(id) {
		v.report.problem("the index of %s names an entry %d that is not there", id, seq)
		return
	}
	v.indexes[i] = 0
}

// Finish compares what was added up and returns what was found.
func (v *Verifier) Finish() *Report {
	r := v.report
	for i := range v.charges {
		if v.charges[i] != 0 {
			r.problem("entry %d is a charge for which no hold was settled, or the same one twice", v.floor.Seq+uint64(i)+1)
		}
		if v.indexes[i] != 0 {
			r.problem("entry %d is not in its account's index", v.floor.Seq+uint64(i)+1)
		}
	}
	if v.head.Seq != v.seq || v.head.Chain != v.chain {
		r.problem("entries end with %d, the head says %d", v.seq, v.head.Seq)
	}
	if v.head.Seq != v.last.Seq || v.head.Chain != v.last.Chain {
		r.problem("the head says %d entries, memory %d", v.head.Seq, v.last.Seq)
	}
	r.Last, r.Chain = v.seq, v.chain
	var sum exchange.Amount
	for id, total := range v.memory {
		if v.stored[id] != total || v.sums[id] != total {
			r.problem("balance of %s: %s in memory, %s stored, %s by its entries", id, total, v.stored[id], v.sums[id])
		}
		sum = sum.Add(total)
		if !IsSystem(id) {
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
	for key, left := range v.spends {
		if left.Sign() < 0 || left.Sign() > 0 && v.floor.Seq == 0 { // charges that were folded are counted in the record alone
			r.problem("what the API key %s spent is %s off by its entries", key, left)
		}
	}
	if sum.Sign() != 0 {
		r.problem("all balances together are %s instead of nothing", sum)
	}
	if r.Charged.Add(r.Excess) != r.Served {
		r.problem("%s charged and %s beyond what was held, %s served", r.Charged, r.Excess, r.Served)
	}
	if uint64(len(v.charges)) != r.Entries-v.floor.Totals.Entries {
		r.problem("%d entries after the floor, %d read", len(v.charges), r.Entries-v.floor.Totals.Entries)
	}
	return r
}

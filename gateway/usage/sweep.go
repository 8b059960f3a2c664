package usage

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/ledger/record"
	"github.com/postern-gateway/postern/gateway/state"
)

// Removed tells what went, by class.
type Removed struct {
	Records int `json:"records"`
	Hours   int `json:"hours"` // rows of the sums of hours, one for each model and key
	Days    int `json:"days"`
}

// Sweep removes what is older than it may be kept, as the book does by itself every hour, and tells what went.
func (b *Book) Sweep(ctx context.Context) (Removed, error) {
	var gone Removed
	err := b.ask(ctx, func() (err error) {
		gone, err = b.removeOld(ctx)
		return err
	})
	if err != nil {
		return Removed{}, fmt.Errorf("sweep usage: %w", err) // gone may still be written
	}
	return gone, nil
}

// sweep is Sweep for the owner.
func (b *Book) sweep() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*commitTime)
	defer cancel()
	gone, err := b.removeOld(ctx)
	switch {
	case err != nil:
		b.log.Error("usage: what is too old can not be removed now", "error", err)
	case gone != Removed{}:
		b.log.Info("usage: removed what was kept for its time", "records", gone.Records, "hours", gone.Hours, "days", gone.Days)
	}
}

func (b *Book) removeOld(ctx context.Context) (gone Removed, err error) {
	o, now := &b.owner, b.now()
	cutoff, sums := now.Add(-b.keep), now.Add(-b.sums)
	var all []digest
	for e, err := range b.store.Scan(ctx, []byte(accountPrefix), nil) {
		if err != nil {
			return gone, err
		}
		if len(e.Key) == len(accountPrefix)+len(digest{}) {
			all = append(all, digest(e.Key[len(accountPrefix):]))
		}
	}
	clear(o.rows) // none of them may bring back what goes
	entry := o.floor.entry
	// The floor is stored before anything goes: a proof must not look for what a sweep that broke off removed.
	if cutoff.After(o.floor.cutoff) {
		o.floor.cutoff = cutoff
	}
	if err := b.putFloor(ctx); err != nil {
		return gone, err
	}
	for _, of := range all {
		var n int
		if n, err = b.removeFrom(ctx, of.key(recordPrefix), before(cutoff), func(value []byte) {
			if r, ok := decodeRecord(make([]byte, 8), value); ok {
				entry = max(entry, r.Entry)
			}
		}); err != nil {
			return gone, err
		}
		gone.Records += n
		for step, limit := range map[Step]time.Time{Hour: cutoff, Day: sums} {
			from := binary.BigEndian.AppendUint32(nil, ^step.number(limit)+1)
			if n, err = b.removeFrom(ctx, of.key(step.prefix()), from, nil); err != nil {
				return gone, err
			}
			if step == Hour {
				gone.Hours += n
			} else {
				gone.Days += n
			}
		}
		if err := b.forget(ctx, of); err != nil {
			return gone, err
		}
	}
	o.floor.entry = entry
	if err := b.putFloor(ctx); err != nil {
		return gone, err
	}
	for of, at := range o.gone {
		if at.Before(cutoff) {
			var batch state.Batch
			batch.Delete(of.key(gonePrefix))
			if err := b.store.Commit(ctx, &batch); err != nil {
				return gone, err
			}
			delete(o.gone, of)
		}
	}
	for seq, r := range o.late {
		if now.Sub(r.Time) > 24*time.Hour {
			delete(o.late, seq)
		}
	}
	for id, r := range o.waiting {
		if now.Sub(r.Time) > 48*time.Hour {
			delete(o.waiting, id)
		}
	}
	return gone, nil
}

func (b *Book) putFloor(ctx context.Context) error {
	f := b.owner.floor
	var batch state.Batch
	batch.Put([]byte(floorKey), binary.AppendUvarint(binary.AppendUvarint([]byte{version}, micros(f.cutoff)), f.entry))
	return b.store.Commit(ctx, &batch)
}

// removeFrom removes what is below a prefix, from a place on, a thousand a commit. look is shown what goes.
func (b *Book) removeFrom(ctx context.Context, prefix, from []byte, look func(value []byte)) (n int, err error) {
	const most = 1000
	start := append(bytes.Clone(prefix), from...)
	for {
		var batch state.Batch
		for e, err := range b.store.Scan(ctx, prefix, start) {
			if err != nil {
				return n, err
			}
			if look != nil {
				look(e.Value)
			}
			if batch.Delete(bytes.Clone(e.Key)); len(batch.Writes) == most {
				break
			}
		}
		if len(batch.Writes) == 0 {
			return n, nil
		}
		if err := b.store.Commit(ctx, &batch); err != nil {
			return n, err
		}
		n += len(batch.Writes)
	}
}

// forget removes an account's name when there is nothing of it any more.
func (b *Book) forget(ctx context.Context, of digest) error {
	for _, prefix := range [...]string{recordPrefix, hourPrefix, dayPrefix} {
		for _, err := range b.store.Scan(ctx, of.key(prefix), nil) {
			return err // nil: there is something
		}
	}
	var batch state.Batch
	batch.Delete(of.key(accountPrefix))
	delete(b.owner.known, of)
	return b.store.Commit(ctx, &batch)
}

// Remove removes everything of an account: records, sums, its name. Charges made before are not recorded again from the
// ledger, whose business they stay. What is added afterwards is kept as ever.
func (b *Book) Remove(ctx context.Context, account string) (Removed, error) {
	var gone Removed
	of := digestOf(account)
	err := b.ask(ctx, func() error {
		o, now := &b.owner, b.now()
		var batch state.Batch
		batch.Put(of.key(gonePrefix), binary.AppendUvarint([]byte{version}, micros(now)))
		if err := b.store.Commit(ctx, &batch); err != nil {
			return err
		}
		o.gone[of] = now
		clear(o.rows)
		for id, r := range o.waiting {
			if r.Account == account {
				delete(o.waiting, id)
			}
		}
		for seq, r := range o.late {
			if r.Account == account {
				delete(o.late, seq)
			}
		}
		for prefix, n := range map[string]*int{recordPrefix: &gone.Records, hourPrefix: &gone.Hours, dayPrefix: &gone.Days} {
			var err error
			if *n, err = b.removeFrom(ctx, of.key(prefix), nil, nil); err != nil {
				return err
			}
		}
		return b.forget(ctx, of)
	})
	if err != nil {
		return Removed{}, fmt.Errorf("remove usage: %w", err) // gone may still be written
	}
	return gone, nil
}

// Report is what Verify found. The book is right when Problems is empty.
type Report struct {
	Accounts int      `json:"accounts"`
	Records  int      `json:"records"`
	Hours    int      `json:"hours"`
	Days     int      `json:"days"`
	Charges  int      `json:"charges"` // entries of the ledger that were compared
	Waiting  int      `json:"waiting"` // charges whose record is still to come
	Problems []string `json:"problems"`
	Omitted  int      `json:"omitted,omitempty"` // problems beyond the first hundred
}

func (r *Report) problem(format string, args ...any) {
	if len(r.Problems) == 100 {
		r.Omitted++
		return
	}
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// account is what Verify knows of one: prints of what must be the same. A print is linear: the print of a sum is the sum
// of the prints, so that millions of records and their sums are compared in a few words, and differ unnoticed once in 2^64.
type account struct {
	name                       string
	hours, days                uint64 // of rows
	recordedHours, recordedDay uint64 // of records
	charges, recorded          uint64 // of the ledger's entries, and of the records that name them
}

// Verify reads everything that is stored, as of one moment, and proves that the sums of each hour and day are what its
// records come to, and that the charges in the ledger are those that the records name, each once and at its amount. What
// was swept, on either side, is left out. Calls wait to be recorded while it looks at the ledger's part.
func (b *Book) Verify(ctx context.Context) (*Report, error) {
	report := &Report{Problems: []string{}}
	if err := b.ask(ctx, func() error { return b.verify(ctx, report) }); err != nil {
		return nil, fmt.Errorf("verify usage: %w", err) // report may still be written
	}
	return report, nil
}

func (b *Book) verify(ctx context.Context, report *Report) error {
	o := &b.owner
	seed := maphash.MakeSeed()
	cutoff := b.now().Add(-b.keep)
	if o.floor.cutoff.After(cutoff) {
		cutoff = o.floor.cutoff
	}
	all := map[digest]*account{}
	of := func(d digest) *account {
		a := all[d]
		if a == nil {
			a = &account{name: fmt.Sprintf("(unnamed) %x", d[:4])}
			all[d] = a
		}
		return a
	}
	whole := func(step Step, t time.Time) bool { return step.number(t) > step.number(cutoff) }
	first, last := o.floor.entry+1, o.next // of the entries compared
	if b.ledger != nil {
		for e, err := range b.ledger.Since(ctx, first) {
			if err != nil {
				return err
			}
			// Those before were folded, or are older than records are kept.
			if first = e.Seq; !e.Time.Before(cutoff) {
				break
			}
			first++
		}
	}
	for e, err := range b.store.Scan(ctx, []byte(allPrefix), nil) {
		if err != nil {
			return err
		}
		const head = len(recordPrefix)
		if len(e.Key) < head+len(digest{}) {
			continue
		}
		d, rest := digest(e.Key[head:]), e.Key[head+len(digest{}):]
		switch string(e.Key[:head]) {
		case accountPrefix:
			of(d).name = string(e.Value)
			report.Accounts++
		case dayPrefix, hourPrefix:
			step := Hour
			if string(e.Key[:head]) == dayPrefix {
				step = Day
				report.Days++
			} else {
				report.Hours++
			}
			row, ok := step.rowAt(rest)
			if !ok || !row.decode(e.Value) {
				report.problem("account %s: a row of sums is damaged", of(d).name)
				continue
			}
			if whole(step, row.Time) {
				if print := row.print(seed, rest); step == Day {
					of(d).days += print
				} else {
					of(d).hours += print
				}
			}
		case recordPrefix:
			report.Records++
			r, ok := decodeRecord(rest, e.Value)
			if !ok || len(r.Account) < maxText && digestOf(r.Account) != d {
				report.problem("account %s: a record is damaged", of(d).name)
				continue
			}
			for _, step := range [...]Step{Hour, Day} {
				if !whole(step, r.Time) {
					continue
				}
				var one Sum
				one.add(&r, 1)
				if print := one.print(seed, step.rowKey(d, r.Time, r.Model, r.Key)[head+len(digest{}):]); step == Day {
					of(d).recordedDay += print
				} else {
					of(d).recordedHours += print
				}
			}
			if r.Entry >= first && r.Entry < last {
				of(d).recorded += charge(seed, r.Entry, r.Amount)
			}
		}
	}
	if b.ledger != nil {
		for e, err := range b.ledger.Since(ctx, first) {
			if err != nil {
				return err
			}
			if e.Seq >= last {
				break
			}
			if _, open := o.open[e.Seq]; open && e.Kind == record.Charge {
				report.Waiting++
			} else if e.Kind == record.Charge && !b.removed(&e) {
				report.Charges++
				of(digestOf(e.From)).charges += charge(seed, e.Seq, e.Amount)
			}
		}
	}
	for _, a := range all {
		if a.hours != a.recordedHours {
			report.problem("account %s: the sums of hours are not what its records come to", a.name)
		}
		if a.days != a.recordedDay {
			report.problem("account %s: the sums of days are not what its records come to", a.name)
		}
		if b.ledger != nil && a.charges != a.recorded {
			report.problem("account %s: its records are not of the charges that the ledger has", a.name)
		}
	}
	slices.Sort(report.Problems)
	return nil
}

// print is a linear print of a row at a place.
func (s *Sum) print(seed maphash.Seed, place []byte) (sum uint64) {
	term := func(what uint32, n uint64) {
		if n != 0 {
			var h maphash.Hash
			h.SetSeed(seed)
			_, _ = h.Write(place)
			_, _ = h.Write(binary.BigEndian.AppendUint32(nil, what)) // neither fails
			sum += n * h.Sum64()
		}
	}
	for i, n := range [...]int64{s.Calls, s.Errors, s.Prompt, s.Completion} {
		term(uint32(i), uint64(n))
	}
	amount := s.Amount.Append(nil)
	term(8, binary.BigEndian.Uint64(amount[8:]))
	for _, k := range s.Durations.buckets {
		term(1<<16|uint32(k.number), uint64(k.count))
	}
	return sum
}

// charge is a print of one entry and its amount.
func charge(seed maphash.Seed, seq uint64, amount exchange.Amount) uint64 {
	return maphash.Bytes(seed, amount.Append(binary.BigEndian.AppendUint64(nil, seq)))
}

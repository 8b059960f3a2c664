package usage

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/postern-gateway/postern/gateway/ledger/record"
	"github.com/postern-gateway/postern/gateway/state"
)

// Bounds of the owner's work.
const (
	batchRecords = 500     // records of one commit: with their sums at their largest below what a commit takes
	scanEntries  = 10_000  // entries of the ledger read at once while there are more
	maxRowsKept  = 20_000  // rows of sums in memory
	maxOpen      = 65_536  // charges that wait for their record
	maxLate      = 65_536  // records that may be replaced when the call's own comes, or its charge
	maxAccounts  = 200_000 // accounts known to have their name stored
	maxSpare     = 4096    // records of room that are kept when they are written
)

// owner is what the owner alone uses.
type owner struct {
	work  []Record             // taken over and not in a commit yet
	spare []Record             // empty, to be added to next
	next  uint64               // the first entry of the ledger that was not read
	open  map[uint64]time.Time // charges without a record, by entry
	gone  map[digest]time.Time // accounts whose usage was removed
	floor floor

	rows    map[string]*Sum     // as stored, by key
	known   map[digest]struct{} // accounts whose name is stored
	late    map[uint64]Record   // records made of entries: the call's own may still come
	waiting map[string]Record   // records whose charge is to come, by exchange

	doubt *batch    // a commit that failed: it is tried again before anything else
	fault error     // why the last commit failed; nil: it did not
	told  uint64    // of the dropped records
	tell  time.Time // when dropped records may be told of again
}

// floor says what was swept.
type floor struct {
	cutoff time.Time // records that began before are gone
	entry  uint64    // the highest entry that any of them was of
}

// batch is one commit and what it makes of the owner's memory.
type batch struct {
	state.Batch
	rows  map[string]*Sum
	known []digest
}

// load reads what is stored.
func (o *owner) load(ctx context.Context, store state.Store) error {
	*o = owner{
		next: 1, open: map[uint64]time.Time{}, gone: map[digest]time.Time{}, rows: map[string]*Sum{}, known: map[digest]struct{}{},
		late: map[uint64]Record{}, waiting: map[string]Record{},
	}
	b, err := store.Get(ctx, []byte(markKey))
	if err == nil {
		d := decoder{rest: b}
		if d.octet() != version {
			return ErrCorrupt
		}
		o.next = d.number()
		for seq := uint64(0); len(d.rest) > 0; {
			seq += d.number()
			o.open[seq] = time.Time{}
		}
		if d.bad {
			return ErrCorrupt
		}
	} else if !errors.Is(err, state.ErrNotFound) {
		return err
	}
	if b, err = store.Get(ctx, []byte(floorKey)); err == nil {
		d := decoder{rest: b}
		if d.octet() != version {
			return ErrCorrupt
		}
		o.floor = floor{cutoff: time.UnixMicro(d.count()), entry: d.number()}
	} else if !errors.Is(err, state.ErrNotFound) {
		return err
	}
	for e, err := range store.Scan(ctx, []byte(gonePrefix), nil) {
		if err != nil {
			return err
		}
		d := decoder{rest: e.Value}
		if len(e.Key) == len(gonePrefix)+len(digest{}) && d.octet() == version {
			o.gone[digest(e.Key[len(gonePrefix):])] = time.UnixMicro(d.count())
		}
	}
	return nil
}

// mark says what of the ledger was read and which charges have no record.
func (o *owner) mark() []byte {
	b := binary.AppendUvarint([]byte{version}, o.next)
	last := uint64(0)
	for _, seq := range slices.Sorted(maps.Keys(o.open)) {
		b = binary.AppendUvarint(b, seq-last)
		last = seq
	}
	return b
}

// flush writes everything that waits.
func (b *Book) flush() error {
	o := &b.owner
	ctx := context.Background() // each commit has its own bound
	var err error
	if o.doubt != nil {
		err = b.commit(ctx, o.doubt)
	}
	// What the ledger has first, as far as there is much of it: only then is every charge of the records that are taken
	// afterwards either read or near.
	for more := true; more && err == nil; {
		if more, err = b.read(ctx, scanEntries); err == nil && more {
			err = b.complete(ctx)
		}
	}
	for range 2 { // what was left when a commit failed, and what was added since
		for more := true; more && err == nil; {
			more, err = b.write(ctx)
		}
	}
	if err == nil {
		err = b.complete(ctx)
	}
	switch {
	case err != nil && o.fault == nil:
		b.log.Error("usage: records can not be written now; they wait", "error", err)
	case err == nil && o.fault != nil:
		b.log.Info("usage: records are written again", "after", o.fault)
	}
	o.fault = err
	b.tellDropped()
	return err
}

// tellDropped logs that records were dropped, once a minute.
func (b *Book) tellDropped() {
	o, n := &b.owner, b.Dropped()
	if now := b.now(); n > o.told && !now.Before(o.tell) {
		b.log.Warn("usage: the queue was full and records were dropped; those of charges are made of the ledger's entries", "records", n-o.told)
		o.told, o.tell = n, now.Add(time.Minute)
	}
}

// read takes in entries of the ledger, at most most of them (0: all), and reports whether there are more.
func (b *Book) read(ctx context.Context, most int) (more bool, err error) {
	if b.ledger == nil {
		return false, nil
	}
	n := 0
	for e, err := range b.ledger.Since(ctx, b.owner.next) {
		if err != nil {
			return false, err
		}
		if n == most && most > 0 {
			return true, nil
		}
		n++
		b.owner.next = e.Seq + 1
		if e.Kind == record.Charge && !b.past(&e) {
			b.owner.open[e.Seq] = e.Time
		}
	}
	return false, nil
}

// past reports whether a charge needs no record: it is older than records are kept, or its account's usage was removed.
func (b *Book) past(e *record.Entry) bool {
	return e.Time.Before(b.now().Add(-b.keep)) || b.removed(e)
}

// removed reports whether the usage of a charge's account was removed after it.
func (b *Book) removed(e *record.Entry) bool {
	if len(b.owner.gone) == 0 {
		return false
	}
	gone, is := b.owner.gone[digestOf(e.From)]
	return is && !e.Time.After(gone)
}

// write commits the next records that were taken over, or takes over what was added, and reports whether there are more.
func (b *Book) write(ctx context.Context) (more bool, err error) {
	o := &b.owner
	if len(o.work) == 0 {
		b.mu.Lock()
		o.work, b.added = b.added, o.spare
		b.mu.Unlock()
		if o.spare = nil; cap(o.work) <= maxSpare {
			o.spare = o.work[:0]
		}
	}
	n := min(len(o.work), batchRecords)
	if n == 0 {
		return false, nil
	}
	if _, err := b.read(ctx, 0); err != nil {
		return false, err
	}
	g := b.newBatch()
	taken := slices.Clone(o.work[:n])
	taken = slices.DeleteFunc(taken, func(r Record) bool {
		// A call that was under way when its account's usage was removed, and charged before that or not at all.
		if len(o.gone) == 0 {
			return false
		}
		gone, is := o.gone[digestOf(r.Account)]
		return is && !r.Time.After(gone) && !o.open[r.Entry].After(gone)
	})
	for i := range taken {
		r := &taken[i]
		r.Time = r.Time.UTC().Truncate(time.Microsecond)
		if made, late := o.late[r.Entry]; late && r.Entry > 0 {
			if err := g.take(ctx, b, &made); err != nil { // of the entry, since the call's own was not there in time
				return false, err
			}
		}
		if err := g.put(ctx, b, r); err != nil {
			return false, err
		}
	}
	for i := range taken {
		switch r := &taken[i]; {
		case r.Entry > 0:
			delete(o.open, r.Entry)
			delete(o.late, r.Entry)
		case r.Unsettled && len(o.waiting) < maxLate:
			o.waiting[clip(r.ID)] = *r
		}
	}
	err = b.commit(ctx, g)
	// Committed or to be tried again as it is, they are no longer waiting.
	clear(o.work[:n])
	o.work = o.work[n:]
	b.mu.Lock()
	b.waiting -= n
	b.mu.Unlock()
	return len(o.work) > 0, err
}

// complete makes the records of charges that no call's record came for.
func (b *Book) complete(ctx context.Context) error {
	o := &b.owner
	due := make([]uint64, 0, 16)
	for seq, at := range o.open {
		// What was charged before this run has nobody left to record it.
		if at.Before(b.opened) || b.now().Sub(at) >= b.grace || len(o.open) > maxOpen {
			due = append(due, seq)
		}
	}
	slices.Sort(due)
	for part := range slices.Chunk(due, batchRecords) {
		g := b.newBatch()
		var made []Record
		entries, err := b.entries(ctx, part)
		if err != nil {
			return err
		}
		for _, seq := range part {
			e := entries[seq]
			if e == nil || b.past(e) {
				continue
			}
			r := Record{
				ID: e.Exchange, Time: e.Time.UTC().Truncate(time.Microsecond), Account: e.From, Model: e.Model, Usage: e.Usage, Amount: e.Amount,
				Receipt: e.Ref, Entry: seq, Completed: true,
			}
			if r.ID == "" {
				r.ID = e.Ref
			}
			if w, is := o.waiting[clip(r.ID)]; is && w.Account == r.Account {
				if err := g.take(ctx, b, &w); err != nil {
					return err
				}
				w.Usage, w.Amount, w.Receipt, w.Entry, w.Unsettled = r.Usage, r.Amount, r.Receipt, r.Entry, false
				r = w
			}
			if err := g.put(ctx, b, &r); err != nil {
				return err
			}
			made = append(made, r)
		}
		for _, seq := range part {
			delete(o.open, seq)
		}
		for _, r := range made {
			delete(o.waiting, clip(r.ID))
			if r.Completed && len(o.late) < maxLate {
				o.late[r.Entry] = r
			}
		}
		if err := b.commit(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

// entries reads entries of the ledger by their numbers, which ascend; those that were folded are not among them.
func (b *Book) entries(ctx context.Context, numbers []uint64) (map[uint64]*record.Entry, error) {
	const near = 100 // entries that are read over rather than to begin anew
	found := make(map[uint64]*record.Entry, len(numbers))
	for len(numbers) > 0 {
		begun := len(numbers)
		for e, err := range b.ledger.Since(ctx, numbers[0]) {
			if err != nil {
				return nil, err
			}
			for len(numbers) > 0 && numbers[0] < e.Seq {
				numbers = numbers[1:]
			}
			if len(numbers) > 0 && numbers[0] == e.Seq {
				found[e.Seq] = &e
				numbers = numbers[1:]
			}
			if len(numbers) == 0 || numbers[0] > e.Seq+near {
				break
			}
		}
		if len(numbers) == begun { // there is nothing from there on
			break
		}
	}
	return found, nil
}

func (b *Book) newBatch() *batch { return &batch{rows: map[string]*Sum{}} }

// put adds a record to a batch, and to its sums.
func (g *batch) put(ctx context.Context, b *Book, r *Record) error {
	of := digestOf(r.Account)
	if _, is := b.owner.known[of]; !is {
		g.Put(of.key(accountPrefix), []byte(clip(r.Account)))
		g.known = append(g.known, of)
	}
	g.Put(r.key(), r.encode())
	return g.count(ctx, b, of, r, 1)
}

// take takes a record out again, in the same commit in which another takes its place.
func (g *batch) take(ctx context.Context, b *Book, r *Record) error {
	g.Delete(r.key())
	return g.count(ctx, b, digestOf(r.Account), r, -1)
}

// count adds a record to the sums of its hour and its day, times 1 or -1.
func (g *batch) count(ctx context.Context, b *Book, of digest, r *Record, times int64) error {
	for _, step := range [...]Step{Hour, Day} {
		key := step.rowKey(of, r.Time, r.Model, r.Key)
		row := g.rows[string(key)]
		if row == nil {
			row = new(Sum)
			if kept := b.owner.rows[string(key)]; kept != nil {
				*row = *kept
				row.Durations.buckets = slices.Clone(kept.Durations.buckets)
			} else if value, err := b.store.Get(ctx, key); err == nil {
				if !row.decode(value) {
					return ErrCorrupt
				}
			} else if !errors.Is(err, state.ErrNotFound) {
				return err
			}
			g.rows[string(key)] = row
		}
		row.add(r, times)
	}
	return nil
}

// commit stores a batch with its sums and the mark. What fails is kept as it is and tried again before anything else: it
// may be in the store already, and then it changes nothing.
func (b *Book) commit(ctx context.Context, g *batch) error {
	o := &b.owner
	if o.doubt != g {
		for key, row := range g.rows {
			if row.Calls > 0 {
				g.Put([]byte(key), row.encode())
			} else {
				g.Delete([]byte(key))
			}
		}
		if b.ledger != nil {
			g.Put([]byte(markKey), o.mark())
		}
	}
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	if err := b.store.Commit(ctx, &g.Batch); err != nil {
		o.doubt = g
		return err
	}
	o.doubt = nil
	if len(o.rows)+len(g.rows) > maxRowsKept {
		clear(o.rows)
	}
	for key, row := range g.rows {
		if row.Calls > 0 {
			o.rows[key] = row
		} else {
			delete(o.rows, key)
		}
	}
	if len(o.known) > maxAccounts {
		clear(o.known)
	}
	for _, of := range g.known {
		o.known[of] = struct{}{}
	}
	return nil
}

package audit

import (
	"bytes"
	"context"
	"fmt"

	"github.com/postern-gateway/postern/gateway/state"
)

// maxProblems bounds the problems that a Report names.
const maxProblems = 100

// Problem is something that is wrong with the log.
type Problem struct {
	Entry uint64 // the number of the first entry that it is about; 0: the log as a whole
	Kind  string // changed, moved, missing, inserted, unchained, time, head, tail, broken or mark
	Text  string
}

// Report is what Verify found.
type Report struct {
	Entries  uint64    // that are there
	First    uint64    // the number of the first of them; 0: there are none
	Retired  uint64    // the number of the last that is not kept any more
	Head     Mark      // of the last entry
	Begun    int       // actions under way
	Problems []Problem // the first ones, in the order of the entries
	Omitted  int       // problems beyond them
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

func (r *Report) problem(entry uint64, kind, format string, args ...any) {
	if len(r.Problems) == maxProblems {
		r.Omitted++
		return
	}
	r.Problems = append(r.Problems, Problem{Entry: entry, Kind: kind, Text: fmt.Sprintf(format, args...)})
}

// walker goes from entry to entry and finds what does not follow.
type walker struct {
	at     Mark // the entry before
	blind  bool // that one could not be read, so nobody knows its hash
	time   int64
	faults int
	tell   func(entry uint64, kind, format string, args ...any) // nil: it is only counted
}

func (w *walker) fault(entry uint64, kind, format string, args ...any) {
	w.faults++
	if w.tell != nil {
		w.tell(entry, kind, format, args...)
	}
}

// step looks at the next record.
func (w *walker) step(key, value []byte) (e Entry, ok bool) {
	seq, ok := numberOf(key)
	if !ok {
		w.fault(w.at.Seq+1, "inserted", "behind entry %d stands a record where none belongs", w.at.Seq)
		return e, false
	}
	e, whole, ok := parse(value)
	follows := seq == w.at.Seq+1
	switch {
	case seq <= w.at.Seq:
		w.fault(seq, "inserted", "entry %d stands where nothing is kept any more", seq)
		return e, false
	case !follows && seq == w.at.Seq+2:
		w.fault(w.at.Seq+1, "missing", "entry %d is missing", w.at.Seq+1)
	case !follows:
		w.fault(w.at.Seq+1, "missing", "entries %d to %d are missing", w.at.Seq+1, seq-1)
	}
	switch {
	case !ok:
		w.fault(seq, "changed", "entry %d was changed: it can not be read", seq)
	case !whole:
		w.fault(seq, "changed", "entry %d was changed: its hash is not that of what it says", seq)
	case e.Seq != seq:
		w.fault(seq, "moved", "in the place of entry %d stands entry %d", seq, e.Seq)
	case follows && !w.blind && e.prev != w.at.Sum:
		w.fault(seq, "unchained", "entry %d does not follow from entry %d: one of them was changed or replaced", seq, w.at.Seq)
	case e.Time.UnixMilli() < w.time:
		w.fault(seq, "time", "entry %d is older than the one before it", seq)
	}
	w.at, w.blind = Mark{Seq: seq, Sum: e.Sum}, !ok
	if ok {
		w.time = max(w.time, e.Time.UnixMilli())
	}
	return e, ok
}

// Verify reads everything that is stored, in one moment of the store, and says what is wrong with it, the first entry
// first. noted, if it is not zero, is a mark from an earlier day: the log must still hold that entry.
func (l *Log) Verify(ctx context.Context, noted Mark) (*Report, error) {
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	defer l.leave()
	l.mu.Lock()
	known := l.head
	l.mu.Unlock()
	r := &Report{}
	w := &walker{tell: r.problem}
	var h head
	var there, sealed, met bool
	begin := func() {
		switch {
		case !there && known.last.Seq > 0:
			r.problem(0, "head", "the head is missing")
		case there && !sealed:
			r.problem(0, "head", "the head is not sealed with this gateway's key: it was replaced, or store and vault are not of one gateway")
		case sealed && h.last.Seq < known.last.Seq:
			r.problem(h.last.Seq+1, "head", "the head was put back: it counts %d entries, and this process wrote %d", h.last.Seq, known.last.Seq)
		}
		r.Retired, r.Head = h.floor.Seq, h.last
		w.at = h.floor
		met = true
	}
	for rec, err := range l.store.Scan(ctx, []byte(everyone), nil) {
		if err != nil {
			return nil, fmt.Errorf("verify audit log: %w", err)
		}
		switch {
		case bytes.HasPrefix(rec.Key, []byte(begunAt)):
			r.Begun++
			continue
		case string(rec.Key) == headAt:
			there = true
			h, sealed = l.decode(rec.Value)
			continue
		case !bytes.HasPrefix(rec.Key, []byte(entryAt)):
			r.problem(0, "inserted", "a record stands where none belongs")
			continue
		}
		if !met {
			begin()
			if !sealed { // what is there is all that can be known
				w.at = l.before(rec)
			}
		}
		r.Entries++
		r.entry(w, h, sealed, noted, rec)
	}
	if !met {
		begin()
	}
	r.ending(w, h, sealed, noted)
	return r, nil
}

// before is the mark that the first entry says is before it.
func (l *Log) before(rec state.Entry) Mark {
	e, _, ok := parse(rec.Value)
	if seq, numbered := numberOf(rec.Key); ok && numbered && seq > 0 {
		return Mark{Seq: seq - 1, Sum: e.prev}
	}
	return Mark{}
}

// entry looks at one entry.
func (r *Report) entry(w *walker, h head, sealed bool, noted Mark, rec state.Entry) {
	e, ok := w.step(rec.Key, rec.Value)
	if r.First == 0 {
		r.First = w.at.Seq
	}
	if !sealed {
		r.Head = w.at
	}
	if ok && e.Action == "audit.broken" {
		r.problem(e.Seq, "broken", "entry %d says that the chain was found broken before it (%s): entries may be lost there", e.Seq, e.Reason)
	}
	seq, _ := numberOf(rec.Key)
	switch {
	case sealed && seq == h.last.Seq && w.at != h.last:
		r.problem(seq, "tail", "entry %d is not the one that the head was sealed with", seq)
	case sealed && seq > h.last.Seq:
		r.problem(seq, "tail", "entry %d stands behind the last that the head counts, which is %d", seq, h.last.Seq)
	}
	if noted.Seq != 0 && seq == noted.Seq && w.at.Sum != noted.Sum {
		r.problem(seq, "mark", "entry %d is not the one that was noted", seq)
	}
}

// ending compares the end with the head, and with what was noted.
func (r *Report) ending(w *walker, h head, sealed bool, noted Mark) {
	if sealed && w.at.Seq < h.last.Seq {
		r.problem(w.at.Seq+1, "tail", "the end was cut off: entries %d to %d are missing", w.at.Seq+1, h.last.Seq)
	}
	switch {
	case noted.Seq == 0:
	case noted.Seq > max(w.at.Seq, r.Head.Seq):
		r.problem(noted.Seq, "mark", "entry %d was noted, and the log ends with entry %d: it was put back or emptied", noted.Seq, max(w.at.Seq, r.Head.Seq))
	case noted.Seq == h.floor.Seq && noted != h.floor:
		r.problem(noted.Seq, "mark", "entry %d is not the one that was noted", noted.Seq)
	case noted.Seq < h.floor.Seq:
		r.problem(noted.Seq, "mark", "entry %d was noted and is not kept any more: note a later one", noted.Seq)
	}
}

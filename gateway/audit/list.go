package audit

import (
	"context"
	"fmt"
	"time"
)

// MaxList is the most entries of one page.
const MaxList = 1000

// Entries are read from the newest on, first as many as a page has, then twice as many and so on up to span; most bounds
// how many are read for one page.
const (
	span = 4096
	most = 50_000
)

// Filter says which entries to list. What is zero does not restrict.
type Filter struct {
	Actor   string
	Action  string
	Subject string
	From    time.Time // the first moment
	To      time.Time // the moment after the last
	Before  uint64    // the number that all are below: the last page's Next
	Limit   int       // default and bound: MaxList
}

func (f *Filter) matches(e *Entry) bool {
	return (f.Actor == "" || f.Actor == e.Actor) && (f.Action == "" || f.Action == e.Action) && (f.Subject == "" || f.Subject == e.Subject) &&
		(f.From.IsZero() || !e.Time.Before(f.From)) && (f.To.IsZero() || e.Time.Before(f.To))
}

// Page is a part of a list.
type Page struct {
	Entries []Entry // the newest first
	Next    uint64  // where the next page begins, as Filter.Before; 0: there is none. A page that is not full, or empty, may have one
}

// List returns entries, the newest first. What can not be read is left out: Verify tells of it.
func (l *Log) List(ctx context.Context, f Filter) (Page, error) {
	if err := l.enter(ctx); err != nil {
		return Page{}, err
	}
	defer l.leave()
	if f.Limit <= 0 || f.Limit > MaxList {
		f.Limit = MaxList
	}
	l.mu.Lock()
	h := l.head
	l.mu.Unlock()
	end := h.last.Seq + 1
	if f.Before != 0 {
		end = min(end, f.Before)
	}
	var p Page
	size := uint64(f.Limit + 1)
	for read := uint64(0); end > h.floor.Seq+1 && read < most; {
		begin := h.floor.Seq + 1
		if end-begin > size {
			begin = end - size
		}
		var part []Entry
		for rec, err := range l.store.Scan(ctx, []byte(entryAt), keyOf(begin)) {
			if err != nil {
				return Page{}, fmt.Errorf("list audit log: %w", err)
			}
			seq, ok := numberOf(rec.Key)
			if !ok {
				continue
			}
			if seq >= end {
				break
			}
			if e, _, ok := parse(rec.Value); ok && e.Seq == seq {
				part = append(part, e)
			}
		}
		for i := len(part) - 1; i >= 0; i-- {
			e := &part[i]
			if !f.From.IsZero() && e.Time.Before(f.From) {
				return p, nil // all before it are older
			}
			if !f.matches(e) {
				continue
			}
			if len(p.Entries) == f.Limit {
				p.Next = p.Entries[f.Limit-1].Seq
				return p, nil
			}
			p.Entries = append(p.Entries, *e)
		}
		read, end = read+size, begin
		size = min(2*size, span)
	}
	if end > h.floor.Seq+1 {
		p.Next = end
	}
	return p, nil
}

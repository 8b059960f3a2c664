package audit

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/postern-gateway/postern/gateway/state"
)

// request is something for the writer to write.
type request struct {
	entry *Entry     // to be appended; nil: none. The writer gives it its number, time and sums
	key   []byte     // of what was begun; nil: none
	note  []byte     // to be put there; nil: what is there is over
	done  chan error // nil: nobody waits
}

// group is how many requests are written together at most.
const group = 256

// commitTime bounds one write to the store.
const commitTime = 30 * time.Second

// sweepEvery is how often it is looked for entries that need not be kept any more.
const sweepEvery = 24 * time.Hour

// submit has the writer write r and waits until it is durable. When ctx ends first, it may be written or not.
func (l *Log) submit(ctx context.Context, r *request) error {
	if err := l.enter(ctx); err != nil {
		return err
	}
	defer l.leave()
	r.done = make(chan error, 1)
	// The writer has an entry of its own: the caller may be gone when it gets there.
	mine := r.entry
	if mine != nil {
		theirs := *mine
		theirs.Detail = maps.Clone(mine.Detail)
		r.entry = &theirs
	}
	select {
	case l.queue <- r:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.done:
		if err == nil && mine != nil {
			*mine = *r.entry
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// writing writes requests, those that wait together, and what was tallied, and sweeps once a day.
func (l *Log) writing() {
	defer close(l.done)
	l.tend()
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	tallies := time.NewTicker(seldomEvery)
	defer tallies.Stop()
	for {
		select {
		case r, ok := <-l.queue:
			if !ok {
				l.settle()
				return
			}
			together := []*request{r}
			for len(together) < group && r != nil {
				select {
				case r = <-l.queue: // nil when it was closed
					if r != nil {
						together = append(together, r)
					}
				default:
					r = nil
				}
			}
			err := l.commit(together)
			var tallied []*request
			for _, r := range together {
				if r.done != nil {
					r.done <- err
				} else {
					tallied = append(tallied, r)
				}
			}
			if err != nil && len(tallied) > 0 {
				l.untold(tallied, err)
			}
		case <-tallies.C:
			l.settle()
		case <-ticker.C:
			l.tend()
		}
	}
}

// commit writes requests, all or none.
func (l *Log) commit(requests []*request) error {
	ctx, cancel := context.WithTimeout(context.Background(), commitTime)
	defer cancel()
	if l.unsure {
		if err := l.load(ctx); err != nil {
			return fmt.Errorf("write audit log: %w", err)
		}
	}
	h := l.head // only this goroutine changes it
	var b state.Batch
	if l.breach != "" {
		l.chain(&b, &h, &Entry{Actor: "gateway", Action: "audit.broken", Subject: "audit", Outcome: Failed, Reason: l.breach})
	}
	for _, r := range requests {
		if r.entry != nil {
			l.chain(&b, &h, r.entry)
		}
		switch {
		case r.key != nil && r.note != nil:
			b.Put(r.key, r.note)
		case r.key != nil:
			b.Delete(r.key)
		}
	}
	return l.write(ctx, &b, h)
}

// write commits a batch that makes the head h.
func (l *Log) write(ctx context.Context, b *state.Batch, h head) error {
	if h.last.Seq > 0 {
		b.Put([]byte(headAt), l.encode(h))
	}
	if err := l.store.Commit(ctx, b); err != nil {
		l.unsure = true
		return fmt.Errorf("write audit log: %w", err)
	}
	l.mu.Lock()
	l.head = h
	l.mu.Unlock()
	l.breach = ""
	return nil
}

// chain puts an entry at the end.
func (l *Log) chain(b *state.Batch, h *head, e *Entry) {
	e.Seq, e.prev = h.last.Seq+1, h.last.Sum
	e.Time = time.Now().UTC().Truncate(time.Millisecond)
	if e.Time.Before(h.time) { // the clock was put back
		e.Time = h.time
	}
	b.Put(keyOf(e.Seq), e.seal())
	h.last, h.time = Mark{Seq: e.Seq, Sum: e.Sum}, e.Time
}

// tend sweeps and logs when it fails: it is tried again.
func (l *Log) tend() {
	if err := l.sweep(); err != nil {
		l.log.Error("audit log: what need not be kept can not be removed", "error", err)
	}
}

// sweep removes the entries that are older than they are kept. The sealed head says up to where, so that the rest
// stays verifiable, and an entry says how many they were and whether anything was wrong with them: what was wrong is not
// swept under. The last entry always stays.
func (l *Log) sweep() error {
	if l.retain == 0 || l.unsure || l.breach != "" {
		return nil // the next entry sees to it
	}
	before := time.Now().Add(-l.retain)
	first, removed, faults := l.head.floor.Seq+1, 0, 0
	for more := true; more; {
		h := l.head
		var b state.Batch
		more = false
		w := walker{at: h.floor}
		sure, upto := 0, w // what is known to be older: something unreadable is if what follows it is
		ctx, cancel := context.WithTimeout(context.Background(), commitTime)
		for rec, err := range l.store.Scan(ctx, []byte(entryAt), nil) {
			if err != nil {
				cancel()
				return err
			}
			seq, ok := numberOf(rec.Key)
			e, _, readable := parse(rec.Value)
			if ok && seq >= h.last.Seq || readable && !e.Time.Before(before) {
				break
			}
			if len(b.Writes) == state.MaxBatch/10 {
				more = true
				break
			}
			w.step(rec.Key, rec.Value)
			b.Delete(append([]byte(nil), rec.Key...))
			if readable {
				sure, upto = len(b.Writes), w
			}
		}
		if sure == 0 {
			cancel()
			break
		}
		b.Writes = b.Writes[:sure]
		removed, faults = removed+sure, faults+upto.faults
		h.floor = upto.at
		if !more {
			detail := map[string]string{"first": strconv.FormatUint(first, 10), "last": strconv.FormatUint(h.floor.Seq, 10), "removed": strconv.Itoa(removed), "faults": strconv.Itoa(faults)}
			l.chain(&b, &h, &Entry{Actor: "gateway", Action: "audit.retire", Subject: "audit", Outcome: Done, Detail: detail})
		}
		err := l.write(ctx, &b, h)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

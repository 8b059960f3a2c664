package rights

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/postern-gateway/postern/gateway/state"
)

// Bounds of the work.
const (
	lookEvery  = time.Minute
	workTime   = time.Hour // for one request, or one sweep
	closeBatch = 1000      // deletions of one commit
)

// run carries out what is due, and sweeps, until Close.
func (r *Register) run() {
	look, sweep := time.NewTicker(lookEvery), time.NewTicker(r.c.Sweep)
	defer look.Stop()
	defer sweep.Stop()
	for {
		if err := r.Work(r.ctx); err != nil && r.ctx.Err() == nil {
			r.c.Log.Error("requests about personal data wait: they are tried again", "error", err)
		}
		select {
		case <-r.ctx.Done():
			return
		case <-r.wake:
		case <-look.C:
		case <-sweep.C:
			if _, err := r.Sweep(r.ctx); err != nil && r.ctx.Err() == nil {
				r.c.Log.Error("what is too old can not be removed now", "error", err)
			}
		}
	}
}

// Work carries out what is due now, as the register does by itself. One request that fails does not keep the others.
func (r *Register) Work(ctx context.Context) (failed error) {
	r.working.Lock()
	defer r.working.Unlock()
	for after := ""; ; {
		ids, err := r.ids(ctx, openPrefix, after, MaxList)
		if err != nil || len(ids) == 0 {
			return errors.Join(failed, err)
		}
		for _, id := range ids {
			if err := r.carryOut(ctx, id); err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s: %w", id, err))
			}
			after = id
		}
	}
}

// carryOut does what is due of one request.
func (r *Register) carryOut(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, workTime)
	defer cancel()
	q, err := r.begin(ctx, id)
	if err != nil || q.State != InProgress {
		return err
	}
	switch q.Kind {
	case Export:
		return r.export(ctx, q)
	case Deletion:
		return r.remove(ctx, q)
	}
	return nil
}

// begin marks a request that is due as in progress: from then on it can not be cancelled. One that was begun and whose work
// was broken off is begun again.
func (r *Register) begin(ctx context.Context, id string) (Request, error) {
	r.change.Lock()
	defer r.change.Unlock()
	q, err := r.Find(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return Request{}, nil
	}
	if err != nil || q.State != Pending || q.Kind == Correction || q.Kind == Deletion && r.c.Now().Before(q.Due) {
		return q, err
	}
	if q.Kind == Restriction {
		owned, err := r.c.People.Owned(ctx, q.Person)
		if err != nil {
			return q, err
		}
		for _, a := range owned {
			changed, err := r.c.People.Disable(ctx, a)
			if err != nil {
				return q, err
			}
			if changed {
				q.Accounts = append(q.Accounts, a)
				if err := r.put(ctx, q); err != nil { // at once: only what this disabled is enabled again
					return q, err
				}
			}
		}
	}
	q.State, q.Changed = InProgress, r.now()
	return q, r.put(ctx, q)
}

// remove deletes everything about a person. Of their requests only this one stays, and it does not say whose it was.
func (r *Register) remove(ctx context.Context, q Request) error {
	person := q.Person
	to, err := r.c.People.Contact(ctx, person)
	known := err == nil
	if known || errors.Is(err, ErrNobody) { // who may have been removed half-way
		err = r.c.People.Remove(ctx, person)
	}
	r.change.Lock()
	defer r.change.Unlock()
	switch {
	case errors.Is(err, ErrBlocked):
		q.State, q.Reason = Refused, "last_owner"
		r.tell(ctx, person, "rights.delete", q.ID, err)
		return r.close(ctx, &q, r.letter("request", person, to, r.now()))
	case err != nil && !errors.Is(err, ErrNobody): // that they are gone is what was asked for
		return err
	}
	ids, err := r.ids(ctx, personPrefix+person+"/", "", MaxRequests+1)
	if err != nil {
		return err
	}
	b := new(state.Batch)
	for _, id := range ids {
		b.Delete([]byte(personPrefix + person + "/" + id))
		if id != q.ID {
			b.Delete([]byte(requestPrefix + id))
			b.Delete([]byte(openPrefix + id))
			if err := r.discard(ctx, id); err != nil {
				return err
			}
		}
	}
	if err := r.c.Store.Commit(ctx, b); err != nil {
		return fmt.Errorf("remove requests: %w", err)
	}
	q.State, q.Person = Completed, ""
	if known { // under a key of the message's own: the person's is destroyed
		err = r.close(ctx, &q, r.letter("deleted", "", to, r.now()))
	} else {
		err = r.close(ctx, &q)
	}
	if err == nil {
		r.tell(ctx, "gateway", "rights.delete", q.ID, nil)
	}
	return err
}

// Swept is what a sweep removed.
type Swept struct {
	Time    time.Time      `json:"time"`
	Removed map[string]int `json:"removed,omitempty"` // by what it was
}

// Sweep removes, from every holder, what is older than it may be kept, and reports what went. A holder that fails does not
// keep the others.
func (r *Register) Sweep(ctx context.Context) (Swept, error) {
	ctx, cancel := context.WithTimeout(ctx, workTime)
	defer cancel()
	s := Swept{Time: r.now(), Removed: map[string]int{}}
	var failed error
	for _, h := range r.c.Holders {
		gone, err := h.Sweep(ctx)
		failed = errors.Join(failed, err)
		for what, n := range gone {
			if n > 0 {
				s.Removed[what] += n
			}
		}
	}
	text, err := json.Marshal(s)
	if err != nil {
		return s, errors.Join(failed, err)
	}
	b := new(state.Batch)
	b.Put([]byte(sweptKey), text)
	total := 0
	for _, n := range s.Removed {
		total += n
	}
	if total > 0 {
		r.c.Log.Info("removed what was kept for its time", "records", total)
	}
	return s, errors.Join(failed, r.c.Store.Commit(ctx, b))
}

// Swept returns what the last sweep removed; the zero Swept before the first.
func (r *Register) Swept(ctx context.Context) (s Swept, err error) {
	value, err := r.c.Store.Get(ctx, []byte(sweptKey))
	if errors.Is(err, state.ErrNotFound) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(value, &s)
	}
	return s, err
}

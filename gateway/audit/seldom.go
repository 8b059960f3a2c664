package audit

import (
	"context"
	"maps"
	"strconv"
	"time"
)

// seldomEvery is how often the same refusal is recorded at most.
const seldomEvery = 10 * time.Second

// maxTallies bounds the refusals that are told apart; beyond it they are told apart by their action alone.
const maxTallies = 4096

// tally is a refusal that was recorded lately, and how often it came about since.
type tally struct {
	entry Entry
	count int
}

// Seldom records what anybody can bring about as often as they like, such as a wrong password: the first time at once, then
// every ten seconds how often it came about since, as the detail count. So nobody fills the disk by it. It does not wait
// for the store: how long it takes tells nobody whether there is such a person. What can not be written is counted with what
// comes after it.
func (l *Log) Seldom(ctx context.Context, e Entry) error {
	e.Detail = maps.Clone(e.Detail)
	if e.Detail == nil {
		e.Detail = map[string]string{}
	}
	e.Detail["count"] = "1"
	if err := e.check(); err != nil {
		return err
	}
	if err := l.enter(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	defer l.leave()
	l.tallying.Lock()
	defer l.tallying.Unlock()
	t, fresh := l.tallyOf(e)
	if !fresh {
		t.count++
		return nil
	}
	select {
	case l.queue <- &request{entry: t.counted(1)}:
	default: // there is much to write: it waits with what comes after it
		t.count++
	}
	return nil
}

// tallyOf is the tally of a refusal, which is made if there is none; l.tallying is held.
func (l *Log) tallyOf(e Entry) (t *tally, fresh bool) {
	key := e.Action + " " + e.Subject
	if l.tallies[key] == nil && len(l.tallies) >= maxTallies {
		e.Subject, key = "unknown", e.Action
	}
	if t = l.tallies[key]; t == nil {
		t, fresh = &tally{entry: e}, true
		l.tallies[key] = t
	}
	return t, fresh
}

// counted is the entry that says that it came about n times.
func (t *tally) counted(n int) *Entry {
	e := t.entry
	e.Detail = maps.Clone(e.Detail)
	e.Detail["count"] = strconv.Itoa(n)
	return &e
}

// untold takes back what was tallied and could not be written: it is told with what comes after it.
func (l *Log) untold(requests []*request, err error) {
	l.log.Error("not in the audit log, and so told later", "error", err)
	l.tallying.Lock()
	defer l.tallying.Unlock()
	for _, r := range requests {
		n, err := strconv.Atoi(r.entry.Detail["count"])
		if err == nil {
			t, _ := l.tallyOf(*r.entry)
			t.count += n
		}
	}
}

// settle records what was tallied, and forgets what did not come about again.
func (l *Log) settle() {
	var together []*request
	l.tallying.Lock()
	for key, t := range l.tallies {
		if t.count == 0 {
			delete(l.tallies, key)
			continue
		}
		together = append(together, &request{entry: t.counted(t.count)})
		t.count = 0
	}
	l.tallying.Unlock()
	for len(together) > 0 {
		n := min(len(together), group)
		if err := l.commit(together[:n]); err != nil {
			l.untold(together, err)
			return
		}
		together = together[n:]
	}
}

package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/ledger/record"
	"github.com/postern-gateway/postern/gateway/state"
)

// Bounds of one group, well below the store's.
const (
	groupWrites = 4000
	groupSize   = 1 << 20 // octets
	groupJobs   = 1000
)

// commitTimeout bounds one commit, for stores that can wait.
const commitTimeout = 30 * time.Second

// A ledger at fault tries again after the first of these, doubled each time up to the second.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// job is something the writer is asked to do. stage runs under the ledger's lock: it either refuses with an error and
// has changed nothing, or has put its writes and its changes into the group.
type job struct {
	stage func(*group) error
	reads func() error // instead of stage: looks at what is stored, between commits
	done  chan error
}

// group is what is committed as one batch.
type group struct {
	l        *Ledger
	batch    state.Batch
	size     int
	head     record.Head
	changes  map[*account]*change
	keys     map[string]bool             // idempotency keys written by the group
	spends   map[*spending]*record.Spend // what the group makes of what API keys spent
	refunded map[string]record.Marker
	jobs     []*job
	applies  []func() // run when the group is stored
	undos    []func() // run, last first, when it is not
	force    bool     // commit even if there is nothing but the head
}

// change is what a group makes of an account.
type change struct {
	total  exchange.Amount
	freed  exchange.Amount // of what the account has held: what the group ends
	closed bool
	fresh  bool // the account was made by the group
}

func (l *Ledger) newGroup() *group {
	g := &group{l: l, head: l.head, changes: map[*account]*change{}}
	g.head.Group++
	return g
}

// full reports whether another job could take the group beyond a bound.
func (g *group) full() bool {
	return len(g.batch.Writes) >= groupWrites || g.size >= groupSize || len(g.jobs) >= groupJobs
}

func (g *group) put(key, value []byte) {
	g.batch.Put(key, value)
	g.size += len(key) + len(value)
}

func (g *group) delete(key []byte) {
	g.batch.Delete(key)
	g.size += len(key)
}

func (g *group) apply(f func()) { g.applies = append(g.applies, f) }
func (g *group) undo(f func())  { g.undos = append(g.undos, f) }

// change returns what the group makes of an account, to be altered.
func (g *group) change(a *account) *change {
	c := g.changes[a]
	if c == nil {
		c = &change{total: a.total, closed: a.closed}
		g.changes[a] = c
	}
	return c
}

// isClosed reports whether an account is closed, or will be with the group.
func (g *group) isClosed(a *account) bool {
	if c := g.changes[a]; c != nil {
		return c.closed
	}
	return a.closed
}

// creates makes an account known while its group is under way: two callers may ask for the same one. It takes no
// holds until it is stored.
func (g *group) creates(a *account) {
	a.closed = true
	g.l.accounts[a.id] = a
	g.change(a).fresh = true
	g.undo(func() { delete(g.l.accounts, a.id) })
}

// system returns one of the system's accounts.
func (g *group) system(id string) *account {
	a := g.l.accounts[id]
	if a == nil {
		a = &account{id: id, opened: g.l.now()}
		g.l.accounts[id] = a // an account of nothing; it is stored with its first movement
	}
	return a
}

// post appends an entry that moves money between two accounts. It sets what the group knows: number, time, balance.
func (g *group) post(from, to *account, e *Entry) {
	g.head.Seq++
	e.Seq, e.From, e.To = g.head.Seq, from.id, to.id
	e.Time = g.l.now()
	f, t := g.change(from), g.change(to)
	f.total = f.total.Sub(e.Amount)
	t.total = t.total.Add(e.Amount)
	customer := from
	if record.IsSystem(from.id) {
		customer = to
	}
	c := g.change(customer)
	e.Balance = c.total.Sub(customer.held).Add(c.freed)
	value := record.EncodeEntry(e)
	g.head.Chain = record.Link(g.head.Chain, e.Seq, value)
	g.put(record.EntryKey(e.Seq), append(value, g.head.Chain[:]...))
	g.put(record.IndexKey(customer.id, e.Seq), []byte{})
}

// settle ends a hold with a charge.
func (g *group) settle(h *holding, s Settlement, flags Flags) {
	amount, capped := h.cost(&s.Usage)
	if capped {
		flags |= Capped
	}
	if s.Usage.Estimated {
		flags |= Estimated
	}
	if h.Exchange == "" && len(s.Exchange) <= MaxName {
		h.Exchange = s.Exchange
	}
	e := &Entry{
		Kind: Charge, Flags: flags, Amount: amount, Ref: h.id, Model: h.Model, Exchange: h.Exchange,
		Attempts: len(h.Attempts), Usage: s.Usage, Held: h.Held, Tags: mergeTags(h.Tags, s.Tags), Key: h.Key, Row: h.Price,
	}
	if n := len(h.Attempts); n > 0 {
		last := h.Attempts[n-1]
		e.Upstream, e.UpstreamModel = last.Upstream, last.Model
		e.Attempts = max(n, last.Number)
	}
	if h.price != nil {
		e.Price = h.price.row.Name
		g.price(h)
	}
	c := g.change(h.account)
	c.freed = c.freed.Add(h.Held)
	g.post(h.account, g.system(Revenue), e)
	g.spend(h.spending, e)
	g.put(record.SettledKey(h.id), record.Marker{Seq: e.Seq, Amount: e.Amount}.Encode())
	g.end(h, &outcome{receipt: e.Receipt()})
}

// release ends a hold without one.
func (g *group) release(h *holding) { g.end(h, &outcome{}) }

func (g *group) end(h *holding, o *outcome) {
	h.outcome = o
	if h.version > 0 || h.stored > 0 {
		g.delete(record.IntentKey(h.id)) // whether or not it is there: a commit that failed may have put it there
	}
	g.apply(func() { g.l.forget(h) })
	g.undo(func() { h.outcome = nil })
}

// intent stores what is known of an open hold.
func (g *group) intent(h *holding) {
	if h.price != nil {
		g.price(h)
	}
	version := h.version
	g.put(record.IntentKey(h.id), h.Intent.Encode())
	g.apply(func() { h.stored = max(h.stored, version) })
}

// price stores the price row of a hold unless it is.
func (g *group) price(h *holding) {
	row := h.price
	if row.stored {
		return
	}
	row.stored = true // for the rest of the group
	g.put(record.PriceKey(h.Price), record.EncodePrice(&row.row))
	g.undo(func() { row.stored = false })
}

// cost returns what usage costs under a hold, and whether that had to be lowered to what was held.
func (h *holding) cost(u *exchange.Usage) (amount exchange.Amount, capped bool) {
	if h.price == nil {
		return exchange.Amount{}, false
	}
	amount, ok := h.price.row.Cost(u)
	if !ok || amount.Cmp(h.Held) > 0 {
		return h.Held, true
	}
	return amount, false
}

// mergeTags joins the tags of a hold with those of its settlement, which win. What goes beyond a bound is left out: a
// charge is not refused for what is written on it.
func mergeTags(held, settled map[string]string) map[string]string {
	if len(settled) == 0 {
		return held
	}
	all := maps.Clone(held)
	if all == nil {
		all = make(map[string]string, len(settled))
	}
	for _, name := range slices.Sorted(maps.Keys(settled)) {
		value := settled[name]
		if _, there := all[name]; (there || len(all) < MaxTags) && name != "" && len(name) <= MaxTag && len(value) <= MaxTag {
			all[name] = value
		}
	}
	return all
}

// write is the writer: the only goroutine that commits.
func (l *Ledger) write() {
	defer close(l.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case j := <-l.queue:
			l.round(j, false)
		case <-l.wake:
			l.round(nil, false)
		case <-timer.C:
			l.round(nil, false)
		case <-l.stop:
			for len(l.queue) > 0 { // of callers that stopped waiting
				l.round(<-l.queue, false)
			}
			l.round(nil, true)
			return
		}
		timer.Reset(l.pause())
	}
}

// pause returns how long the writer may sleep if nobody calls.
func (l *Ledger) pause() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if l.fault != nil {
		return max(l.retry.Sub(now), time.Millisecond)
	}
	next := now.Add(time.Hour)
	if front := l.deadlines.Front(); front != nil {
		next = earlier(next, front.Value.(*holding).deadline)
	}
	if len(l.dirty) > 0 {
		next = earlier(next, l.dirty[0].due)
	}
	if l.retain > 0 {
		next = earlier(next, l.sweep)
	}
	return max(next.Sub(now), 0)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// round commits one group: first, whatever else waits, and what has come due. last stores every checkpoint, due or not.
func (l *Ledger) round(first *job, last bool) {
	now := l.now()
	l.mu.Lock()
	fault := l.fault
	l.mu.Unlock()
	if fault != nil && ((now.Before(l.retry) && !last) || !l.resolve()) {
		l.refuse(first, fault)
		return
	}
	g := l.newGroup()
	g.force = fault != nil // proves that the store works again
	l.mu.Lock()
	g.take(first)
	for more := true; more && !g.full(); {
		select {
		case j := <-l.queue:
			g.take(j)
		default:
			more = false
		}
	}
	g.due(now, last)
	l.mu.Unlock()
	if g.commit() && l.retain > 0 && !now.Before(l.sweep) && !last {
		l.fold(now)
	}
}

// take stages one job, or answers it at once.
func (g *group) take(j *job) {
	switch {
	case j == nil:
	case j.reads != nil:
		j.done <- j.reads()
	default:
		if err := j.stage(g); err != nil {
			j.done <- err
			return
		}
		g.jobs = append(g.jobs, j)
	}
}

// refuse answers a job, and all that wait, while nothing can be recorded.
func (l *Ledger) refuse(j *job, fault error) {
	for {
		if j != nil {
			if j.reads != nil && l.doubt == nil {
				l.mu.Lock()
				err := j.reads()
				l.mu.Unlock()
				j.done <- err
			} else {
				j.done <- fmt.Errorf("%w: %w", ErrUnavailable, fault)
			}
		}
		select {
		case j = <-l.queue:
		default:
			return
		}
	}
}

// due stages what nobody waits for: holds whose time is over and intents that changed.
func (g *group) due(now time.Time, last bool) {
	l := g.l
	for e := l.deadlines.Front(); e != nil && !g.full(); e = e.Next() {
		h := e.Value.(*holding)
		if h.deadline.After(now) || (last && h.ending == nil) {
			break
		}
		switch {
		case h.outcome != nil: // ends in this group anyway
		case h.ending != nil && h.ending.settlement != nil:
			g.settle(h, *h.ending.settlement, 0)
		case h.ending != nil:
			g.release(h)
		case len(h.Attempts) == 0:
			g.release(h)
			l.log.Info("ledger: a hold expired and was released", "hold", h.id, "amount", h.Held)
		default:
			g.settle(h, Settlement{Usage: h.Checkpoint}, Expired)
			l.log.Warn("ledger: a hold expired and was settled by its last checkpoint", "hold", h.id,
				"amount", h.outcome.receipt.Amount)
		}
	}
	n := 0
	for _, h := range l.dirty {
		if (h.due.After(now) && !last) || g.full() {
			break
		}
		n++
		h.queued = false
		if h.gone || h.outcome != nil || h.stored >= h.version {
			continue
		}
		g.intent(h)
		g.undo(func() { l.soon(h) })
	}
	l.dirty = slices.Delete(l.dirty, 0, n)
}

// commit stores the group, makes its changes in memory, and answers its jobs. When the store fails, it is asked whether
// the group is there all the same: memory follows the store, and the callers are told of the failure either way.
// It returns whether all went well.
func (g *group) commit() bool {
	l := g.l
	var err error
	if len(g.batch.Writes) > 0 || len(g.changes) > 0 || g.force {
		for a, c := range g.changes {
			g.put(record.AccountKey(a.id), record.Account{Closed: c.closed, Opened: a.opened, Total: c.total}.Encode())
		}
		for s, spent := range g.spends {
			g.put(record.SpendKey(s.key), spent.Encode())
		}
		g.put([]byte(record.HeadKey), g.head.Encode())
		ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
		err = l.store.Commit(ctx, &g.batch)
		cancel()
		if err != nil {
			l.doubt = g
			l.fail(err)
			l.resolve()
		} else {
			l.keepGroup(g)
			l.recover()
		}
	} else {
		l.mu.Lock()
		for _, f := range g.applies {
			f()
		}
		l.mu.Unlock()
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for _, j := range g.jobs {
		j.done <- err
	}
	return err == nil
}

// keepGroup makes the changes of a stored group in memory.
func (l *Ledger) keepGroup(g *group) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for a, c := range g.changes {
		a.total, a.closed = c.total, c.closed
	}
	for s, spent := range g.spends {
		s.spent = *spent
	}
	for _, f := range g.applies {
		f()
	}
	l.head = g.head
}

// dropGroup forgets a group that was not stored. Its number is not used again, so that it can be told from the next.
func (l *Ledger) dropGroup(g *group) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range slices.Backward(g.undos) {
		f()
	}
	l.head.Group = g.head.Group
}

// resolve finds out whether the group in doubt was stored. It returns false while the store does not say.
func (l *Ledger) resolve() bool {
	g := l.doubt
	if g == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	stored, err := l.readHead(ctx)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		l.fail(err)
		return false
	}
	l.doubt = nil
	if err == nil && stored.Group == g.head.Group && stored.Boot == g.head.Boot {
		l.keepGroup(g)
	} else {
		l.dropGroup(g)
	}
	return true
}

// fail notes that nothing can be recorded, and when to try again.
func (l *Ledger) fail(err error) {
	l.mu.Lock()
	first := l.fault == nil
	l.fault = err
	l.mu.Unlock()
	l.backoff = min(max(2*l.backoff, firstRetry), lastRetry)
	l.retry = l.now().Add(l.backoff)
	if first {
		l.log.Error("ledger: can not record, billable calls are refused", "error", err)
	}
}

// recover notes that the store works.
func (l *Ledger) recover() {
	l.mu.Lock()
	fault := l.fault
	l.fault = nil
	l.mu.Unlock()
	if l.backoff = 0; fault != nil {
		l.log.Info("ledger: records again", "after", fault)
	}
}

// readHead reads the head that is stored.
func (l *Ledger) readHead(ctx context.Context) (record.Head, error) {
	b, err := l.store.Get(ctx, []byte(record.HeadKey))
	if err != nil {
		return record.Head{}, fmt.Errorf("read head: %w", err)
	}
	h, ok := record.DecodeHead(b)
	if !ok {
		return record.Head{}, fmt.Errorf("%w: head", ErrCorrupt)
	}
	return h, nil
}

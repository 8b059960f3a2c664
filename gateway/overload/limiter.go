package overload

import (
	"context"
	"sync"
	"time"
)

// lateShare is the share of Bounds.Wait after which who came first is likely to wait in vain. From then on who came last is served
// first: they may still be waiting for the answer, while the oldest are about to give up anyway.
const lateShare = 0.5

// Limiter gives out turns, so many at once as its limit. A turn lasts until the first octet of the answer: a stream may go on
// for minutes and a client may read slowly without taking part in it. The limit follows the time that answers take, see
// trend. A Limiter is safe for concurrent use; nil is one without a limit.
type Limiter struct {
	epoch time.Time

	mu       sync.Mutex
	bounds   Bounds
	limit    int // 0: none
	inFlight int
	trend    trend
	queue    [priorities]waiters
	queued   int
	counts   Counts
}

// NewLimiter makes a Limiter.
func NewLimiter(b Bounds) *Limiter {
	l := &Limiter{epoch: time.Now()}
	l.Configure(b)
	return l
}

// Configure gives the limiter other bounds. What is under way counts on, and the limit stays as it is where it may.
func (l *Limiter) Configure(b Bounds) {
	b = b.whole()
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.bounds
	l.bounds = b
	switch {
	case b.Max == 0:
		l.limit = 0
	case l.limit == 0 || !b.Adaptive && was != b:
		l.limit = b.Initial
	default:
		l.limit = min(max(l.limit, b.Min), b.Max)
	}
	if was != b {
		l.trend = trend{eager: true}
	}
	l.grant()
}

func (l *Limiter) now() time.Duration { return time.Since(l.epoch) }

// Turn is one's part in a Limiter. The zero value has none. It must not be copied while it is held; its methods may be called
// from several goroutines, and do nothing when it is not held.
type Turn struct {
	limiter *Limiter      // nil: never held; written by Enter alone, so that others may read it without the lock
	state   turnState     // guarded by limiter.mu
	begun   time.Duration // since when the answer is waited for, or untimed
}

// untimed is when a turn began whose time is not taken.
const untimed time.Duration = -1

type turnState uint8

const (
	left turnState = iota
	held
	paused
)

// Enter takes a turn, if need be after waiting in the queue for at most Bounds.Wait, or says why there is none. t must not be
// held. Without a queue to wait in, or with wait false, it returns at once.
func (l *Limiter) Enter(ctx context.Context, t *Turn, p Priority, wait bool) Reason {
	if l == nil {
		return Admitted
	}
	t.limiter = l
	l.mu.Lock()
	if l.free(p) {
		l.take(t)
		l.mu.Unlock()
		return Admitted
	}
	l.trend.pressed = true
	if !wait || !l.place(p) {
		l.counts[p.class()][Full]++
		l.mu.Unlock()
		return Full
	}
	w := &waiter{ready: make(chan Reason, 1), turn: t, since: l.now()}
	l.queued++
	l.queue[p.class()].push(w)
	most := l.bounds.Wait
	l.mu.Unlock()

	timer := time.NewTimer(most)
	defer timer.Stop()
	for {
		reason := Late
		select {
		case r := <-w.ready:
			return r
		case <-timer.C:
		case <-ctx.Done():
			reason = Gone
		}
		l.mu.Lock()
		select {
		case r := <-w.ready: // granted or evicted while we gave up
			l.mu.Unlock()
			return r
		default:
		}
		if reason == Late && l.trend.trying() && l.now()-w.since < 2*l.trend.answer {
			l.mu.Unlock()
			timer.Reset(most)
			continue
		}
		l.queue[p.class()].remove(w)
		l.queued--
		l.counts[p.class()][reason]++
		l.mu.Unlock()
		return reason
	}
}

// free reports whether somebody of priority p gets a turn now: there is room, and nobody as important waits. l.mu is held.
func (l *Limiter) free(p Priority) bool {
	if l.limit == 0 {
		return true
	}
	if l.inFlight >= room(p, l.limit) {
		return false
	}
	if l.queued > 0 {
		for c := p.class(); c < priorities; c++ {
			if l.queue[c].n > 0 {
				return false
			}
		}
	}
	return true
}

// room is how many of limit may have a turn for one of priority p to get another.
func room(p Priority, limit int) int {
	switch p {
	case Critical:
		return limit + (limit+7)/8
	case Bulk:
		return (limit*3 + 3) / 4
	}
	return limit
}

// seats is how many may wait for one of priority p to join them. During a trial that is as many more as it takes turns away: it may
// delay, but nobody is refused for its sake.
// l.mu is held.
func (l *Limiter) seats(p Priority) int {
	n := l.bounds.Queue
	if p == Bulk {
		n = (n + 1) / 2
	}
	if l.trend.trying() {
		n += max(room(p, l.trend.from)-room(p, l.limit), 0)
	}
	return n
}

// place finds one of priority p a place in the queue, if need be that of somebody less important who came last. l.mu is held.
func (l *Limiter) place(p Priority) bool {
	if l.queued < l.seats(p) {
		return true
	}
	for c := range p.class() {
		if w := l.queue[c].last; w != nil {
			l.queue[c].remove(w)
			l.queued--
			l.counts[c][Full]++
			w.ready <- Full
			return true
		}
	}
	return false
}

// Full reports whether one of priority p who came now would be refused at once. It does not count as a refusal.
func (l *Limiter) Full(p Priority) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free(p) || l.queued < l.seats(p) {
		return false
	}
	for c := range p.class() {
		if l.queue[c].n > 0 {
			return false
		}
	}
	return true
}

// Refused counts a refusal that others decided on.
func (l *Limiter) Refused(p Priority, r Reason) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[p.class()][r]++
	l.trend.pressed = l.trend.pressed || r == Full
}

// take gives t a turn. l.mu is held.
func (l *Limiter) take(t *Turn) {
	l.inFlight++
	t.state, t.begun = held, untimed
	if l.bounds.Adaptive && l.trend.turn(l.inFlight) && l.bounds.Tolerance > 0 {
		t.begun = l.now()
	}
}

// grant gives out the turns that are free to those who wait. l.mu is held.
func (l *Limiter) grant() {
	if l.queued == 0 {
		return
	}
	now := l.now()
	for p := Critical; p >= Bulk && l.queued > 0; {
		q := &l.queue[p.class()]
		if q.n == 0 || l.limit > 0 && l.inFlight >= room(p, l.limit) {
			p--
			continue
		}
		w := q.first
		if !l.trend.trying() && now-w.since > time.Duration(lateShare*float64(l.bounds.Wait)) {
			w = q.last
		}
		q.remove(w)
		l.queued--
		l.take(w.turn)
		w.ready <- Admitted
	}
}

// release takes one out of flight. l.mu is held.
func (l *Limiter) release() {
	l.inFlight--
	l.grant()
}

// Held reports whether the turn is held, paused or not.
func (t *Turn) Held() bool {
	if t.limiter == nil {
		return false
	}
	t.limiter.mu.Lock()
	defer t.limiter.mu.Unlock()
	return t.state != left
}

// Pause lends the turn out while the caller waits for somebody else, such as a client that sends its body: who is slow does
// not take up the room of those who are not.
func (t *Turn) Pause() {
	l := t.limiter
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.state == held {
		t.state = paused
		l.release()
	}
}

// Resume takes the turn back, over the limit if need be. From now on the answer is waited for.
func (t *Turn) Resume() {
	l := t.limiter
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.state == paused {
		l.take(t)
	}
}

// Answer is what an answer says of how its sender stands.
type Answer uint8

// The answers.
const (
	NoAnswer   Answer = iota // there was none, for whatever reason: it says nothing
	Served                   // the request was served: its latency counts
	Overloaded               // the sender says that it is overloaded, or did not answer in time
)

// Leave ends the turn: the first octet of the answer is there, or there will be none.
func (t *Turn) Leave(a Answer) {
	l := t.limiter
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.state == left {
		return
	}
	was := t.state
	t.state = left
	if was != held {
		return
	}
	l.inFlight--
	if l.limit > 0 && l.bounds.Adaptive {
		l.answered(t, a)
	}
	l.grant()
}

// answered moves the limit with an answer. l.mu is held.
func (l *Limiter) answered(t *Turn, a Answer) {
	switch a {
	case NoAnswer:
		return
	case Served:
		l.trend.n++
	case Overloaded:
		l.trend.failed++
	}
	switch {
	case l.bounds.Tolerance == 0 && !l.trend.quiet():
		l.limit = l.trend.heed(l.limit, l.now())
	case l.bounds.Tolerance > 0 && a == Served && t.begun != untimed:
		now := l.now()
		l.limit = l.trend.sample(&l.bounds, l.limit, now, now-t.begun)
	}
	l.limit = min(max(l.limit, l.bounds.Min), l.bounds.Max)
}

// Shift moves the limit to share of what it is, or of what is in flight when that is less, within the bounds; a share above
// 1 raises it by at least 1.
func (l *Limiter) Shift(share float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limit == 0 {
		return
	}
	limit := l.limit
	if share < 1 {
		limit = min(limit, l.inFlight)
	}
	next := int(float64(limit) * share)
	if share > 1 {
		next = max(next, l.limit+1)
	}
	l.limit = min(max(next, l.bounds.Min), l.bounds.Max)
	l.grant()
}

// Status describes the limiter; nil has the zero one.
func (l *Limiter) Status() Status {
	if l == nil {
		return Status{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{Limit: l.limit, InFlight: l.inFlight, Queued: l.queued, Counts: l.counts}
	if l.trend.least > 0 {
		s.Latency = l.trend.least.Round(time.Microsecond).String()
	}
	s.Counts.Each(func(_ Priority, _ Reason, n uint64) { s.Refused += n })
	return s
}

// waiter is one who waits for a turn.
type waiter struct {
	ready      chan Reason // gets one reason, unless the waiter gives up before
	turn       *Turn
	since      time.Duration
	prev, next *waiter
}

// waiters are those of one priority, in the order in which they came.
type waiters struct {
	first, last *waiter
	n           int
}

func (q *waiters) push(w *waiter) {
	if w.prev = q.last; w.prev != nil {
		w.prev.next = w
	} else {
		q.first = w
	}
	q.last = w
	q.n++
}

func (q *waiters) remove(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		q.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		q.last = w.prev
	}
	w.prev, w.next = nil, nil
	q.n--
}

package upstream

import (
	"context"
	"sync"
	"time"
)

// patience is how long an exchange runs before anybody looks whether its context has ended. Most are over by then, and have
// spared what it costs to ask a context to call back.
const patience = 50 * time.Millisecond

// aborter is what a watch ends. It is called with the watch locked, and so must not wait.
type aborter interface{ abort(cause error) }

// watch ends an attempt when the upstream keeps it waiting, when its time is over, or when its context ends. Before the
// response's head the clock runs while the upstream does not take the body (idle) or, when it has it all, does not answer
// (first byte); while the client's body is waited for it stands still. After the head it runs while a read waits, and
// anything that moves in either direction starts it again.
//
// A watch serves one attempt after the other. Its timer is set when it has to ring earlier than it would, and is else left to
// ring for nothing: at a thousand exchanges a second it is set twenty times a second, not three thousand times.
type watch struct {
	mu    sync.Mutex
	timer *time.Timer
	rings time.Time // when the timer will ring; zero: it will not

	// Of the attempt, set by start.
	serial      uint64
	first, idle time.Duration // 0: no limit
	ctx         context.Context
	attempt     aborter
	look        time.Time // when to begin to look at ctx; zero: no more
	stopLook    func() bool
	limit       time.Time // total's; zero: none
	deadline    time.Time // zero: the clock stands still
	due         error     // why the deadline ends the attempt
	cause       error     // why the attempt was ended; nil: it was not
	head        bool      // the response's head is there
	reading     bool      // a read of the response waits
	over        bool
}

// start begins to watch an attempt. patient says that nobody else looks at ctx.
func (w *watch) start(ctx context.Context, first, idle, total time.Duration, patient bool, attempt aborter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serial++
	w.first, w.idle, w.ctx, w.attempt = first, idle, ctx, attempt
	w.look, w.limit, w.deadline, w.due, w.cause = time.Time{}, time.Time{}, time.Time{}, nil, nil
	w.head, w.reading, w.over = false, false, false
	now := time.Now()
	if total > 0 {
		w.limit = now.Add(total)
	}
	if patient {
		w.look = now.Add(patience)
	}
	w.set(now)
}

// set makes the timer ring in time for what comes next. w.mu is held.
func (w *watch) set(now time.Time) {
	var next time.Time
	for _, t := range [...]time.Time{w.look, w.limit, w.deadline} {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if next.IsZero() || !w.rings.IsZero() && !w.rings.After(next) {
		return
	}
	w.rings = next
	if w.timer == nil {
		w.timer = time.AfterFunc(next.Sub(now), w.ring)
		return
	}
	w.timer.Reset(next.Sub(now))
}

// run starts the clock. w.mu is held.
func (w *watch) run(d time.Duration, due error) {
	if w.over || d <= 0 {
		w.halt()
		return
	}
	now := time.Now()
	w.deadline, w.due = now.Add(d), due
	w.set(now)
}

// halt stops the clock; the timer may ring for nothing. w.mu is held.
func (w *watch) halt() { w.deadline = time.Time{} }

// ring is called by the timer.
func (w *watch) ring() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if !w.rings.IsZero() && now.Before(w.rings) {
		return // it was set anew as it rang
	}
	w.rings = time.Time{}
	if w.over {
		return
	}
	past := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	switch {
	case past(w.limit):
		w.end(errTotal)
		return
	case past(w.deadline):
		w.end(w.due)
		return
	case past(w.look):
		w.look = time.Time{}
		serial := w.serial
		w.stopLook = context.AfterFunc(w.ctx, func() { w.ended(serial) })
	}
	w.set(now)
}

// ended is called when the context of an attempt has ended.
func (w *watch) ended(serial uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over && w.serial == serial {
		w.end(context.Cause(w.ctx))
	}
}

// end ends the attempt for a cause, the first time. w.mu is held.
func (w *watch) end(cause error) {
	w.deadline, w.limit, w.look = time.Time{}, time.Time{}, time.Time{}
	if w.cause == nil {
		w.cause = cause
		w.attempt.abort(cause)
	}
}

// why is why the attempt was ended, or is to end; nil when it is neither.
func (w *watch) why() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause == nil && w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	return w.cause
}

// uploading is called around reads of the request's body: waiting says that the client is waited for, done that the
// whole body was given to the upstream.
func (w *watch) uploading(waiting, done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.head && w.reading && !waiting:
		w.run(w.idle, errIdle)
	case w.head:
	case waiting:
		w.halt()
	case done:
		w.run(w.first, errFirstByte)
	default:
		w.run(w.idle, errIdle)
	}
}

// begun is called when the response's head is there.
func (w *watch) begun() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.head = true
	w.halt()
}

// Waiting is called around reads of the response's body.
func (w *watch) Waiting(waiting bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reading = waiting
	if waiting {
		w.run(w.idle, errIdle)
	} else {
		w.halt()
	}
}

// discard stops a watch that is not used again.
func (w *watch) discard() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
}

// stop ends the watch over an attempt: it is not aborted any more.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.deadline, w.limit, w.look = time.Time{}, time.Time{}, time.Time{}
	if w.stopLook != nil {
		w.stopLook()
		w.stopLook = nil
	}
	w.ctx, w.attempt = context.Background(), nil
}

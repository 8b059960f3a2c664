package upstream

import (
	"context"
	"sync"
	"time"
)

// watch ends an attempt when the upstream keeps it waiting. Before the response's head the clock runs while the
// upstream does not take the body (idle) or, when it has it all, does not answer (first byte); while the client's body
// is waited for it stands still. After the head it runs while a read waits, and anything that moves in either
// direction starts it again.
type watch struct {
	first, idle time.Duration // 0: no limit
	cancel      context.CancelCauseFunc

	mu       sync.Mutex
	timer    *time.Timer
	deadline time.Time // zero: the clock stands still
	cause    error
	head     bool // the response's head is there
	reading  bool // a read of the response waits
	over     bool
}

// run starts the clock. w.mu is held.
func (w *watch) run(d time.Duration, cause error) {
	if w.over || d <= 0 {
		w.halt()
		return
	}
	w.deadline, w.cause = time.Now().Add(d), cause
	if w.timer == nil {
		w.timer = time.AfterFunc(d, w.ring)
		return
	}
	w.timer.Reset(d)
}

// halt stops the clock. w.mu is held.
func (w *watch) halt() {
	w.deadline = time.Time{}
	if w.timer != nil {
		w.timer.Stop()
	}
}

// ring is called by the timer. It may have been stopped or set anew meanwhile; the deadline tells.
func (w *watch) ring() {
	w.mu.Lock()
	due := !w.deadline.IsZero() && !time.Now().Before(w.deadline)
	cause := w.cause
	w.mu.Unlock()
	if due {
		w.cancel(cause)
	}
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

// downloading is called around reads of the response's body.
func (w *watch) downloading(waiting bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reading = waiting
	if waiting {
		w.run(w.idle, errIdle)
	} else {
		w.halt()
	}
}

// stop ends the watch for good.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.halt()
}

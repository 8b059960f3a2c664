// Package deadline ends what is done for an exchange when its time is over, and costs hardly anything where that never happens:
// its main type is Context.
package deadline

import (
	"context"
	"sync"
	"time"
)

// Context is its parent with a deadline, as context.WithDeadline makes one. The timer and the channel, which cost more than all
// else that most exchanges do with a context, are made when somebody asks for the channel first: who waits, that is. The zero
// value is to be given to Begin, and must not be copied then. It is safe for concurrent use.
type Context struct {
	parent context.Context
	at     time.Time

	mu     sync.Mutex
	inner  context.Context // nil: nobody has waited yet
	cancel context.CancelFunc
	ended  bool
}

// Begin makes c end after limit, or with its parent, and returns it. End must be called when what it was for is over.
func (c *Context) Begin(parent context.Context, limit time.Duration) context.Context {
	return c.BeginUntil(parent, time.Now().Add(limit))
}

// BeginUntil is Begin with the time at which c ends.
func (c *Context) BeginUntil(parent context.Context, at time.Time) context.Context {
	c.parent, c.at, c.ended = parent, Earlier(parent, at), false
	return c
}

// Earlier is the earlier of at, where that is not zero, and ctx's deadline; zero without either.
func Earlier(ctx context.Context, at time.Time) time.Time {
	if by, ok := ctx.Deadline(); ok && (at.IsZero() || by.Before(at)) {
		return by
	}
	return at
}

// End ends c with context.Canceled, unless it has ended already, and frees what it holds. It may be called more than once.
// fresh says that nobody has asked for the channel, and so nobody has kept c: it may begin again.
func (c *Context) End() (fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.cancel != nil {
		c.cancel()
	}
	return c.inner == nil
}

// made is c as context made it. mu is held.
func (c *Context) made() context.Context {
	switch {
	case c.inner != nil:
	case c.ended: // before its time, whatever time it is now
		c.inner, c.cancel = context.WithCancel(c.parent)
		c.cancel()
	default:
		c.inner, c.cancel = context.WithDeadline(c.parent, c.at)
	}
	return c.inner
}

// Deadline implements context.Context.
func (c *Context) Deadline() (at time.Time, ok bool) { return c.at, true }

// Done implements context.Context.
func (c *Context) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.made().Done()
}

// Err implements context.Context.
func (c *Context) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil && !c.ended && time.Now().Before(c.at) {
		return c.parent.Err()
	}
	return c.made().Err()
}

// Value implements context.Context. Who asks for the channel first is so told by it what belongs to the channel, and need not
// start a goroutine that waits for it.
func (c *Context) Value(key any) any {
	c.mu.Lock()
	inner := c.inner
	c.mu.Unlock()
	if inner == nil {
		inner = c.parent
	}
	return inner.Value(key)
}

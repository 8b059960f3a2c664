package plugin

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// patience is the context of one host operation that may wait: it ends with the event's, with the stage's time, and with
// what is left of limits.wait. Its timer is made when somebody really waits, which most operations never do.
type patience struct {
	context.Context
	start, at time.Time

	mu     sync.Mutex
	timed  context.Context // nil until somebody waits
	cancel context.CancelFunc
}

// ends is the earlier of until, where that is not zero, and ctx's deadline; zero without either.
func ends(ctx context.Context, until time.Time) time.Time {
	if at, ok := ctx.Deadline(); ok && (until.IsZero() || at.Before(until)) {
		return at
	}
	return until
}

// patience begins an operation that may wait. ErrUnavailable when the event's operations have waited long enough.
func (s *Session) patience() (*patience, error) {
	left := s.limits.Wait - s.waited
	if left <= 0 {
		return nil, fmt.Errorf("%w: the event's operations have waited %s already", ErrUnavailable, s.waited)
	}
	p := s.spare
	if p == nil {
		p = new(patience)
	}
	p.Context, p.start = s.ctx, time.Now()
	p.at = p.start.Add(left)
	if at := ends(s.ctx, s.until); !at.IsZero() && at.Before(p.at) {
		p.at = at
	}
	return p, nil
}

// served ends an operation that patience began. Where nobody waited, nobody has kept the context, and the next operation
// uses it again.
func (s *Session) served(p *patience) {
	s.waited += time.Since(p.start)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancel != nil {
		p.cancel()
		p = nil
	}
	s.spare = p
}

// Deadline is when the operation's time is over.
func (p *patience) Deadline() (time.Time, bool) { return p.at, true }

// Done is closed then, or when the event's own context ends.
func (p *patience) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timed == nil {
		p.timed, p.cancel = context.WithDeadline(p.Context, p.at)
	}
	return p.timed.Done()
}

// Err says why the operation must end, or nil.
func (p *patience) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timed != nil {
		return p.timed.Err()
	}
	if err := p.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(p.at) {
		return context.DeadlineExceeded
	}
	return nil
}

package carrier

import (
	"sync"
	"time"
)

// stall notices that one read or one write has waited too long. Its timer runs only when there was something to wait
// for, and is not touched by every read or write.
type stall struct {
	mu    sync.Mutex
	limit time.Duration
	fire  func()
	since time.Time // zero: nothing waits
	timer *time.Timer
	done  bool
	fired bool
}

func (s *stall) set(limit time.Duration, fire func()) { s.limit, s.fire = limit, fire }

// begin says that a wait begins.
func (s *stall) begin() {
	if s.fire == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Now()
	if s.timer == nil && !s.done {
		s.timer = time.AfterFunc(s.limit, s.check)
	}
}

// end says that the wait is over, and whether it took too long.
func (s *stall) end() (tooLong bool) {
	if s.fire == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Time{}
	return s.fired
}

func (s *stall) check() {
	s.mu.Lock()
	if s.done {
		s.mu.Unlock()
		return
	}
	wait := s.limit
	if !s.since.IsZero() {
		wait -= time.Since(s.since)
	}
	if wait > 0 {
		s.timer.Reset(wait)
		s.mu.Unlock()
		return
	}
	s.fired = true
	s.mu.Unlock()
	s.fire()
}

func (s *stall) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

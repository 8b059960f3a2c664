package replay

import (
	"context"
	"time"

	"github.com/postern-gateway/postern/gateway/state"
)

// write is one change of the store; without a value it removes the key.
type write struct {
	key, value []byte
	ttl        time.Duration
	done       chan error
}

// write has the writer make a change and waits until it is durable. When ctx ends first, it may be made or not; changes
// are made in the order in which they were given.
func (s *Store) write(ctx context.Context, w *write) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.submit(ctx, w)
}

// submit is write for callers who have entered.
func (s *Store) submit(ctx context.Context, w *write) error {
	w.done = make(chan error, 1)
	select {
	case s.queue <- w:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// writing commits what waits, together: a commit costs a sync of the disk, however much is in it.
func (s *Store) writing() {
	defer close(s.done)
	var batch state.Batch
	var group []*write
	next, more := <-s.queue
	for more {
		batch.Reset()
		clear(group)
		group = group[:0]
		for size := 0; ; {
			batch.Writes = append(batch.Writes, state.Write{Key: next.key, Value: next.value, TTL: next.ttl, Delete: next.value == nil})
			group = append(group, next)
			size += len(next.key) + len(next.value)
			if next = nil; len(group) < state.MaxBatch {
				select {
				case next = <-s.queue:
				default:
				}
			}
			if next == nil || size+len(next.key)+len(next.value) > state.MaxBatchSize {
				break
			}
		}
		err := s.state.Commit(context.Background(), &batch)
		for _, w := range group {
			w.done <- err
		}
		if next == nil {
			next, more = <-s.queue
		}
	}
}

// take takes memory for a reply under way, or gives it back where n is negative. False means that there is none.
func (s *Store) take(account string, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > 0 && (s.held+n > s.memory || s.shares[account]+n > s.memory/4) {
		return false
	}
	s.held += n
	if s.shares[account] += n; s.shares[account] == 0 {
		delete(s.shares, account)
	}
	return true
}

// level is how much is kept for an account, as far as this process knows: what is added drains away over the time for
// which replies are kept, so that no more than twice the account's room is in the store at any time. A new process begins at nothing.
type level struct {
	octets int64
	at     time.Time
	keep   time.Duration
}

// now returns what is left of the level.
func (l *level) now(room int64, at time.Time) int64 {
	drained := float64(room) * float64(at.Sub(l.at)) / float64(l.keep)
	if drained >= float64(l.octets) {
		return 0
	}
	return l.octets - int64(drained)
}

// fits takes room for a reply that is to be kept, and reports whether there was any.
func (s *Store) fits(account string, n int64, keep time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := time.Now()
	if at.Sub(s.pruned) > time.Minute {
		s.pruned = at
		for name, l := range s.kept {
			if l.now(s.account, at) == 0 {
				delete(s.kept, name)
			}
		}
	}
	l := s.kept[account]
	if l == nil {
		l = &level{at: at, keep: keep}
		s.kept[account] = l
	}
	left := l.now(s.account, at)
	if left+n > s.account {
		return false
	}
	l.octets, l.at, l.keep = left+n, at, max(l.keep, keep)
	return true
}

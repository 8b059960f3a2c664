// Package memory keeps state in memory only: its main type is Store. It is for tests, for trying things out, and for
// nodes that own nothing worth keeping; what it holds ends with the process.
package memory

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/state"
)

// DefaultLimit is how many octets of keys and values a store holds unless told otherwise.
const DefaultLimit = 1 << 30

// sweepEvery is how often entries whose time is over are removed. They are not found before that either.
const sweepEvery = time.Minute

// Config configures a Store. The zero value is usable.
type Config struct {
	Limit int64 // octets of keys and values it may hold, default DefaultLimit; beyond it Commit gives state.ErrFull
}

// Store is a state.Store in memory. Readers never wait: a commit makes a new tree that shares what did not change with
// the old one, and a scan goes on over the tree it began with.
type Store struct {
	limit int64

	mu     sync.Mutex // guards what follows; held only for moments
	root   *node
	size   int64     // octets of keys and values in the tree
	swept  time.Time // when entries whose time is over were last removed
	ttls   bool      // whether any entry had a time since then
	closed bool
	users  sync.WaitGroup // operations under way
}

// Open returns an empty store.
func Open(c Config) *Store {
	if c.Limit <= 0 {
		c.Limit = DefaultLimit
	}
	return &Store{limit: c.Limit, swept: time.Now()}
}

// Backend is the backend "memory" of the state block; it takes no arguments.
func Backend() state.Backend {
	return state.Backend{
		Name: "memory",
		Spec: hcldec.ObjectSpec{},
		Open: func(context.Context, string, cty.Value, *slog.Logger) (state.Store, error) {
			return Open(Config{}), nil
		},
	}
}

// enter begins an operation and returns the tree of this moment; leave ends it.
func (s *Store) enter(ctx context.Context) (*node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, state.ErrClosed
	}
	s.users.Add(1)
	return s.root, nil
}

func (s *Store) leave() { s.users.Done() }

// Get implements state.Store.
func (s *Store) Get(ctx context.Context, key []byte) ([]byte, error) {
	root, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer s.leave()
	n := root.find(key)
	if n == nil || n.over(time.Now()) {
		return nil, state.ErrNotFound
	}
	return append(make([]byte, 0, len(n.value)), n.value...), nil
}

// Scan implements state.Store.
func (s *Store) Scan(ctx context.Context, prefix, from []byte) iter.Seq2[state.Entry, error] {
	return func(yield func(state.Entry, error) bool) {
		root, err := s.enter(ctx)
		if err != nil {
			yield(state.Entry{}, err)
			return
		}
		defer s.leave()
		start := prefix
		if bytes.Compare(from, prefix) > 0 {
			start = from
		}
		now := time.Now()
		root.ascend(start, func(n *node) bool {
			if !bytes.HasPrefix(n.key, prefix) {
				return false
			}
			if err := ctx.Err(); err != nil {
				yield(state.Entry{}, err)
				return false
			}
			if n.over(now) {
				return true
			}
			// Copies: the tree is shared with every other reader.
			return yield(state.Entry{Key: bytes.Clone(n.key), Value: bytes.Clone(n.value), Expires: n.expires}, nil)
		})
	}
}

// Commit implements state.Store.
func (s *Store) Commit(ctx context.Context, batch *state.Batch) error {
	if err := batch.Check(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return state.ErrClosed
	}
	now := time.Now()
	s.sweep(now)
	root, size, ttls := s.root, s.size, s.ttls
	for i := range batch.Writes {
		root, size = apply(root, size, &batch.Writes[i], now)
		ttls = ttls || batch.Writes[i].TTL > 0
	}
	if size > s.limit && size > s.size {
		return fmt.Errorf("%w: it may hold %d octets", state.ErrFull, s.limit)
	}
	s.root, s.size, s.ttls = root, size, ttls
	return nil
}

// apply returns the tree with one write done, and its size.
func apply(root *node, size int64, w *state.Write, now time.Time) (*node, int64) {
	if old := root.find(w.Key); old != nil {
		size -= int64(len(old.key) + len(old.value))
	}
	if w.Deletes() {
		return root.remove(w.Key), size
	}
	entry := &node{
		key: bytes.Clone(w.Key), value: append([]byte{}, w.Value...), expires: w.Expires(now), priority: rand.Uint64(),
	}
	return root.put(entry), size + int64(len(w.Key)+len(w.Value))
}

// sweep removes entries whose time is over, now and then.
func (s *Store) sweep(now time.Time) {
	if !s.ttls || now.Sub(s.swept) < sweepEvery {
		return
	}
	s.swept, s.ttls = now, false
	root := s.root
	root.ascend(nil, func(n *node) bool {
		if n.over(now) {
			s.root, s.size = s.root.remove(n.key), s.size-int64(len(n.key)+len(n.value))
		} else if !n.expires.IsZero() {
			s.ttls = true
		}
		return true
	})
}

// Backup implements state.Store.
func (s *Store) Backup(ctx context.Context, w state.Writer) error {
	return state.WriteBackup(ctx, w, s.Scan(ctx, nil, nil))
}

// Restore implements state.Store.
func (s *Store) Restore(ctx context.Context, r state.Reader) error {
	root, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer s.leave()
	if root != nil {
		return state.ErrNotEmpty
	}
	// Everything is read beside the store, so a backup that is not whole changes nothing.
	fresh := Open(Config{Limit: s.limit})
	err = state.ReadBackup(ctx, r, func(b *state.Batch) error { return fresh.Commit(ctx, b) })
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root != nil {
		return state.ErrNotEmpty
	}
	s.root, s.size, s.ttls = fresh.root, fresh.size, fresh.ttls
	return nil
}

// Close implements state.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return state.ErrClosed
	}
	s.closed = true
	s.mu.Unlock()
	s.users.Wait()
	s.mu.Lock()
	s.root, s.size = nil, 0
	s.mu.Unlock()
	return nil
}

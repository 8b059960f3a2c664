// Package state is durable key/value storage: its main type is Store. Backends live in folders below and pass
// statetest.Run.
package state

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"
)

// Errors a store gives.
var (
	ErrNotFound = errors.New("key not found")
	ErrClosed   = errors.New("store is closed")
	ErrLocked   = errors.New("store is in use by another process")
	ErrFull     = errors.New("no room left in the store") // the disk is at low water: nothing was written
	ErrTooLarge = errors.New("key, value or batch too large")
	ErrNotEmpty = errors.New("store is not empty") // what Restore says rather than mix two stores
	ErrBackup   = errors.New("not a whole backup") // cut short, altered, or another file altogether
)

// Limits every backend keeps.
const (
	MaxKey   = 1 << 10 // octets
	MaxValue = 1 << 20 // octets
	MaxBatch = 10_000  // operations of one Commit

	MaxBatchSize = 2 << 20 // octets of the keys and values of one Commit
)

// Store is ordered, durable and safe for concurrent use. Keys are compared as octets.
type Store interface {
	// Get returns a copy of the value, or ErrNotFound. An entry whose time is over is not found.
	Get(ctx context.Context, key []byte) ([]byte, error)
	// Scan yields entries whose key begins with prefix, from the first that is not below from (nil: the first),
	// ascending. The slices are valid until the next step. It sees one moment of the store. A fault ends it with a
	// non-nil error as the last element.
	Scan(ctx context.Context, prefix, from []byte) iter.Seq2[Entry, error]
	// Commit applies the batch whole or not at all. When it returns nil and the backend is durable, the batch
	// survives a power cut. The batch may be used again.
	Commit(ctx context.Context, batch *Batch) error
	// Backup writes one moment of the store to w in the form of WriteBackup, which every backend reads. Restore reads
	// it into an empty store (else ErrNotEmpty); when it fails (ErrBackup), the store is empty again.
	Backup(ctx context.Context, w Writer) error
	Restore(ctx context.Context, r Reader) error
	// Close waits for what is under way. Later calls give ErrClosed.
	Close() error
}

// Writer and Reader are io.Writer and io.Reader, named so that the interface reads on its own.
type (
	Writer interface{ Write([]byte) (int, error) }
	Reader interface{ Read([]byte) (int, error) }
)

// Entry is one key and its value.
type Entry struct {
	Key     []byte
	Value   []byte
	Expires time.Time // zero: never
}

// Deletes reports whether the write removes its key.
func (w *Write) Deletes() bool { return w.Delete || w.Value == nil }

// Expires returns when the write's entry ends if it is committed now: a whole second, and never sooner than its TTL.
// It is the zero time for an entry that stays.
func (w *Write) Expires(now time.Time) time.Time {
	if w.TTL <= 0 {
		return time.Time{}
	}
	end := now.Add(w.TTL)
	if whole := end.Truncate(time.Second); !whole.Equal(end) {
		return whole.Add(time.Second)
	}
	return end.Truncate(time.Second)
}

// Check returns ErrTooLarge, saying what is, when the batch goes beyond a limit.
func (b *Batch) Check() error {
	if len(b.Writes) > MaxBatch {
		return fmt.Errorf("%w: %d operations, the most is %d", ErrTooLarge, len(b.Writes), MaxBatch)
	}
	size := 0
	for i := range b.Writes {
		w := &b.Writes[i]
		if len(w.Key) > MaxKey {
			return fmt.Errorf("%w: a key of %d octets, the most is %d", ErrTooLarge, len(w.Key), MaxKey)
		}
		if len(w.Value) > MaxValue {
			return fmt.Errorf("%w: a value of %d octets, the most is %d", ErrTooLarge, len(w.Value), MaxValue)
		}
		size += len(w.Key) + len(w.Value)
	}
	if size > MaxBatchSize {
		return fmt.Errorf("%w: a batch of %d octets, the most is %d", ErrTooLarge, size, MaxBatchSize)
	}
	return nil
}

// Batch collects writes. The zero value is empty and ready. It keeps the slices it is given until Reset.
type Batch struct {
	Writes []Write
}

// Write is one operation of a batch.
type Write struct {
	Key    []byte
	Value  []byte        // nil deletes
	TTL    time.Duration // 0: for ever; rounded up to a second
	Delete bool
}

// Put sets key for ever.
func (b *Batch) Put(key, value []byte) { b.Writes = append(b.Writes, Write{Key: key, Value: value}) }

// PutTTL sets key for a time.
func (b *Batch) PutTTL(key, value []byte, ttl time.Duration) {
	b.Writes = append(b.Writes, Write{Key: key, Value: value, TTL: ttl})
}

// Delete removes key; removing what is not there is no error.
func (b *Batch) Delete(key []byte) { b.Writes = append(b.Writes, Write{Key: key, Delete: true}) }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	clear(b.Writes) // lets go of the slices
	b.Writes = b.Writes[:0]
}

// Backend is a kind of store. gateway/builtin.go lists those compiled in.
type Backend struct {
	Name string      // the label of the state block
	Spec hcldec.Spec // the block's arguments; one called "dir" is the data directory
	Open func(ctx context.Context, dir string, arguments cty.Value, log *slog.Logger) (Store, error)
}

// Package badger keeps state on disk in Badger, an embedded log-structured store: its main type is Store. A commit is on
// the disk when it returns, a full disk refuses commits before Badger meets it (Badger writes through memory maps, and
// a full disk there is a SIGBUS that ends the process), and one process at a time has the folder.
//
// Below the data folder: lock (held while open), ballast (room kept for the day the disk is full), restoring (only while
// a restore is under way) and store/ with Badger's own files.
package badger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/postern-gateway/postern/gateway/state"
)

// The defaults of Config.
const (
	DefaultReserve = 64 << 20
	DefaultBallast = 16 << 20
)

// collectEvery is how often the value log is collected and the ballast looked after.
const collectEvery = 5 * time.Minute

// own is put before every key: Badger keeps "!badger!" for itself and refuses empty keys.
const own = 'k'

// Config configures a Store.
type Config struct {
	Dir string // the data folder, made with mode 0700 if it is not there
	// NoSync lets a commit return before it is on disk: faster, and a power cut loses what was acknowledged. For
	// caches, never for money.
	NoSync bool
	// EncryptionKey encrypts the files with AES in counter mode: 16, 24 or 32 octets; empty: no encryption. It hides
	// what is in them and does not show whether somebody changed them.
	EncryptionKey []byte
	Reserve       int64        // octets of free disk below which commits give state.ErrFull, default DefaultReserve; at least 32 MiB
	Ballast       int64        // octets of the ballast file, default DefaultBallast; negative: none
	Log           *slog.Logger // default: slog.Default

	free func(dir string) (uint64, bool) // stands in for the disk in tests
}

// Store is a state.Store over Badger.
type Store struct {
	db      *badger.DB
	dir     string
	log     *slog.Logger
	lock    *os.File
	reserve uint64
	ballast int64
	free    func(dir string) (uint64, bool)

	fault atomic.Pointer[error] // the first fault after which nothing may be acknowledged any more
	gate  sync.RWMutex          // a restore has the store to itself; commits share it

	mu     sync.Mutex
	closed bool
	users  sync.WaitGroup // operations under way

	stop context.CancelFunc
	done chan struct{} // closed when the caretaker has ended
}

// Open opens the store below c.Dir and makes it if it is not there. It gives state.ErrLocked when it is open already.
func Open(ctx context.Context, c Config) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Reserve == 0 {
		c.Reserve = DefaultReserve
	}
	if c.Ballast == 0 {
		c.Ballast = DefaultBallast
	}
	if c.free == nil {
		c.free = freeSpace
	}
	const least = 32 << 20
	switch n := len(c.EncryptionKey); {
	case c.Dir == "":
		return nil, errors.New("open state: no folder given")
	case c.Reserve < least:
		return nil, fmt.Errorf("open state %s: a reserve of %d octets is below the %d that Badger may still need", c.Dir, c.Reserve, least)
	case n != 0 && n != 16 && n != 24 && n != 32:
		return nil, fmt.Errorf("open state %s: the encryption key has %d octets, not 16, 24 or 32", c.Dir, n)
	}
	s := &Store{
		dir: c.Dir, log: c.Log, reserve: uint64(c.Reserve), ballast: c.Ballast, free: c.free, done: make(chan struct{}),
	}
	if err := s.open(c); err != nil {
		if s.lock != nil {
			s.lock.Close()
		}
		return nil, fmt.Errorf("open state %s: %w", c.Dir, err)
	}
	care, stop := context.WithCancel(context.Background())
	s.stop = stop
	go s.caretake(care)
	return s, nil
}

// open does what Open does after checking.
func (s *Store) open(c Config) error {
	files := filepath.Join(s.dir, "store")
	if err := os.MkdirAll(files, 0o700); err != nil {
		return err
	}
	// The lock comes first: everything after it may touch what belongs to a running process.
	lock, err := state.LockFile(filepath.Join(s.dir, "lock"))
	if err != nil {
		return err
	}
	s.lock = lock
	if _, err := os.Stat(s.restoring()); err == nil {
		return fmt.Errorf("a restore was interrupted and left a part of the backup: remove %s and restore again", s.dir)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Opening writes: without room it would end in a SIGBUS, again at every start. The ballast is for this moment.
	if err := s.room(); err != nil {
		s.log.Warn("state: the disk is full, giving up the ballast to open", "dir", s.dir, "error", err)
		if err := s.dropBallast(); err != nil {
			return err
		}
	} else if err := s.keepBallast(); err != nil {
		return err
	}
	s.db, err = badger.Open(edge(files, c).WithLogger(&logger{log: c.Log, fail: s.fail}))
	switch {
	case errors.Is(err, badger.ErrEncryptionKeyMismatch):
		return errors.New("the encryption key is not the one the store was written with")
	case errors.Is(err, badger.ErrInvalidEncryptionKey):
		return errors.New("the encryption key has a length that can not be used")
	}
	return err
}

// edge returns Badger's options for a small machine. Values stay in the tree: the threshold is the highest there is, so
// the value log, whose sync errors Badger only logs, holds nothing but values of MaxValue itself.
func edge(dir string, c Config) badger.Options {
	o := badger.DefaultOptions(dir).
		WithSyncWrites(!c.NoSync).
		WithDetectConflicts(false). // nothing here reads before it writes in one transaction
		WithMetricsEnabled(false).
		WithMemTableSize(16 << 20).WithNumMemtables(3).
		WithValueLogFileSize(64 << 20).
		WithValueThreshold(1 << 20).
		WithBlockCacheSize(32 << 20).WithIndexCacheSize(16 << 20).
		WithNumCompactors(2).
		WithVerifyValueChecksum(true).
		WithChecksumVerificationMode(options.OnBlockRead)
	if len(c.EncryptionKey) > 0 {
		o = o.WithEncryptionKey(bytes.Clone(c.EncryptionKey))
	}
	return o
}

// enter begins an operation; leave ends it.
func (s *Store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return state.ErrClosed
	}
	s.users.Add(1)
	return nil
}

func (s *Store) leave() { s.users.Done() }

// fail remembers the first fault after which a commit that seems to succeed may not be on the disk.
func (s *Store) fail(err error) { s.fault.CompareAndSwap(nil, &err) }

// inner returns the key as Badger has it.
func inner(key []byte) []byte {
	return append(append(make([]byte, 0, len(key)+1), own), key...)
}

// Get implements state.Store.
func (s *Store) Get(ctx context.Context, key []byte) ([]byte, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	if len(key) > state.MaxKey {
		return nil, state.ErrNotFound
	}
	var value []byte
	err := s.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(inner(key))
		if err != nil {
			return err
		}
		value, err = item.ValueCopy([]byte{})
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, state.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	return value, nil
}

// Scan implements state.Store.
func (s *Store) Scan(ctx context.Context, prefix, from []byte) iter.Seq2[state.Entry, error] {
	return func(yield func(state.Entry, error) bool) {
		if err := s.enter(ctx); err != nil {
			yield(state.Entry{}, err)
			return
		}
		defer s.leave()
		txn := s.db.NewTransaction(false)
		defer txn.Discard()
		o := badger.DefaultIteratorOptions
		o.Prefix = inner(prefix)
		o.PrefetchSize = 32
		it := txn.NewIterator(o)
		defer it.Close()
		start := o.Prefix
		if bytes.Compare(from, prefix) > 0 {
			start = inner(from)
		}
		for it.Seek(start); it.Valid(); it.Next() {
			if err := ctx.Err(); err != nil {
				yield(state.Entry{}, err)
				return
			}
			item := it.Item()
			value, err := item.ValueCopy([]byte{})
			if err != nil {
				yield(state.Entry{}, fmt.Errorf("read state: %w", err))
				return
			}
			entry := state.Entry{Key: item.KeyCopy(nil)[1:], Value: value}
			if end := item.ExpiresAt(); end != 0 {
				entry.Expires = time.Unix(int64(end), 0)
			}
			if !yield(entry, nil) {
				return
			}
		}
	}
}

// Commit implements state.Store. It is safe from many goroutines; each call costs one sync of the disk, so whoever has
// many small commits gathers them first.
func (s *Store) Commit(ctx context.Context, batch *state.Batch) error {
	if err := batch.Check(); err != nil {
		return err
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	if len(batch.Writes) == 0 {
		return nil
	}
	if fault := s.fault.Load(); fault != nil {
		return fmt.Errorf("commit: the store failed earlier: %w", *fault)
	}
	s.gate.RLock()
	defer s.gate.RUnlock()
	if err := s.room(); err != nil {
		return err
	}
	return s.write(batch)
}

// write commits a checked batch.
func (s *Store) write(batch *state.Batch) error {
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	now := time.Now()
	for i := range batch.Writes {
		w := &batch.Writes[i]
		var err error
		if w.Deletes() {
			err = txn.Delete(inner(w.Key))
		} else {
			e := badger.NewEntry(inner(w.Key), w.Value)
			if end := w.Expires(now); !end.IsZero() {
				e.ExpiresAt = uint64(end.Unix())
			}
			err = txn.SetEntry(e)
		}
		if errors.Is(err, badger.ErrTxnTooBig) {
			return fmt.Errorf("%w: a batch of %d operations", state.ErrTooLarge, len(batch.Writes))
		}
		if err != nil {
			return fmt.Errorf("commit: %w", err)
		}
	}
	if err := txn.Commit(); err != nil {
		// The kernel may have dropped the pages it could not write, so a later sync that succeeds proves nothing about
		// them: from here on nothing is acknowledged until the store was opened again.
		err = fmt.Errorf("commit: %w", err)
		s.fail(err)
		return err
	}
	if fault := s.fault.Load(); fault != nil {
		return fmt.Errorf("commit: %w", *fault)
	}
	return nil
}

// Backup implements state.Store.
func (s *Store) Backup(ctx context.Context, w state.Writer) error {
	return state.WriteBackup(ctx, w, s.Scan(ctx, nil, nil))
}

// Restore implements state.Store. A process that dies in it leaves a file behind that makes Open refuse the folder.
func (s *Store) Restore(ctx context.Context, r state.Reader) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	s.gate.Lock()
	defer s.gate.Unlock()
	for _, err := range s.Scan(ctx, nil, nil) {
		if err != nil {
			return err
		}
		return state.ErrNotEmpty
	}
	if err := state.WriteFile(s.restoring(), nil); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	err := state.ReadBackup(ctx, r, func(b *state.Batch) error {
		if err := s.room(); err != nil {
			return err
		}
		return s.write(b)
	})
	if err != nil {
		if dropped := s.db.DropAll(); dropped != nil {
			return errors.Join(err, fmt.Errorf("remove the part that was restored: %w", dropped))
		}
	}
	return errors.Join(err, state.RemoveFile(s.restoring()))
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
	s.stop()
	<-s.done
	s.users.Wait()
	err := s.db.Close()
	return errors.Join(err, s.lock.Close())
}

// restoring is the file that is there while a restore is under way.
func (s *Store) restoring() string { return filepath.Join(s.dir, "restoring") }

// caretake collects the value log and looks after the ballast until ctx ends.
func (s *Store) caretake(ctx context.Context) {
	defer close(s.done)
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// Collecting writes what is still needed anew, so it waits for room like everybody else.
		for ctx.Err() == nil && s.room() == nil {
			if s.db.RunValueLogGC(0.5) != nil { // badger.ErrNoRewrite: nothing more to gain
				break
			}
		}
		if err := s.tendBallast(); err != nil {
			s.log.Warn("state: the ballast could not be kept", "dir", s.dir, "error", err)
		}
	}
}

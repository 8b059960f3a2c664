// Package usage is what the accounts called: a record of every call, sums of them for charts, and their end.
// Its main type is Book.
//
// A record says who called what, what it used and cost, and how it ended. It never holds content, an address or a header
// field. The server hands records over and goes on; one goroutine, the owner, writes them in batches, with the sums they
// change in the same commit, so that the sums are at every moment what the records come to.
//
// The ledger is the truth about money. The book reads its entries in their order and knows which charges it has no record
// of: those whose record did not come within Config.Grace, was lost in a crash or dropped because the queue was full. It
// makes their records of the entries, which know neither route, key, status nor times.
package usage

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/ledger/record"
	"github.com/postern-gateway/postern/gateway/state"
)

// Errors of a book. What else it returns comes from the store, the ledger or the context.
var (
	ErrCursor  = errors.New("not a cursor of this account")
	ErrTooMany = errors.New("more sums than are given at once")
	ErrCorrupt = errors.New("usage record is damaged")
	ErrClosed  = errors.New("book of usage is closed")
)

// Ledger is what the book asks of the ledger.
type Ledger interface {
	// Since yields the entries from a sequence number on, in their order; those that were folded are left out.
	Since(ctx context.Context, seq uint64) iter.Seq2[record.Entry, error]
}

// Config configures a Book. Only Store is required.
type Config struct {
	Store  state.Store
	Ledger Ledger           // nil: no record is made of an entry
	Log    *slog.Logger     // default: slog.Default
	Keep   time.Duration    // how long records and the sums of hours are kept, default 90 days
	Sums   time.Duration    // how long the sums of days are kept, default 400 days; at least Keep
	Queue  int              // records that may wait to be written, default 32768; what comes beyond is dropped
	Every  time.Duration    // how long they wait at most, default 1s
	Grace  time.Duration    // how long after a charge its record may come, default 15m
	Now    func() time.Time // default time.Now
}

// Book is the usage of all accounts. It is safe for concurrent use, and the only one that uses the keys it uses.
type Book struct {
	store  state.Store
	ledger Ledger
	log    *slog.Logger
	keep   time.Duration
	sums   time.Duration
	queue  int
	every  time.Duration
	grace  time.Duration
	now    func() time.Time
	opened time.Time
	secret []byte // of cursors

	jobs chan *job
	wake chan struct{} // the queue is half full
	stop chan struct{} // closed when no caller is left
	done chan struct{} // closed when the owner has ended

	owner owner

	mu      sync.Mutex // guards what follows; held for moments
	closed  bool
	users   sync.WaitGroup // callers inside
	added   []Record
	waiting int // records that were added and are in no commit yet: those in added and in owner.work
	dropped uint64
}

// job is something the owner is asked to do between two commits.
type job struct {
	do   func() error
	done chan error
}

// sweepEvery is how often what is too old is looked for.
const sweepEvery = time.Hour

// commitTime bounds one commit.
const commitTime = 30 * time.Second

// Open opens the book in c.Store, which must stay open until Close returned, as must the ledger.
func Open(ctx context.Context, c Config) (*Book, error) {
	const day = 24 * time.Hour
	b := &Book{
		store: c.Store, ledger: c.Ledger, log: c.Log, keep: cmp.Or(c.Keep, 90*day), sums: cmp.Or(c.Sums, 400*day),
		queue: cmp.Or(c.Queue, 32768), every: cmp.Or(c.Every, time.Second), grace: cmp.Or(c.Grace, 15*time.Minute), now: c.Now,
		jobs: make(chan *job), wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	if b.log == nil {
		b.log = slog.Default()
	}
	if b.now == nil {
		b.now = time.Now
	}
	switch {
	case c.Store == nil:
		return nil, errors.New("open usage: no store given")
	case b.keep < 0 || b.sums < 0 || b.queue < 0 || b.every < 0 || b.grace < 0:
		return nil, errors.New("open usage: a negative limit")
	}
	b.sums = max(b.sums, b.keep)
	b.opened = b.now()
	if err := b.load(ctx); err != nil {
		return nil, fmt.Errorf("open usage: %w", err)
	}
	go b.run()
	return b, nil
}

// load reads what the owner has to know, and makes the secret the first time.
func (b *Book) load(ctx context.Context) error {
	secret, err := b.store.Get(ctx, []byte(secretKey))
	if errors.Is(err, state.ErrNotFound) {
		secret = make([]byte, sha256.Size)
		rand.Read(secret) // never fails
		var batch state.Batch
		batch.Put([]byte(secretKey), secret)
		err = b.store.Commit(ctx, &batch)
	}
	if err != nil {
		return err
	}
	b.secret = secret
	return b.owner.load(ctx, b.store)
}

// Note hands over the record of an exchange that has ended, however it did, if it is known who called. See Add.
func (b *Book) Note(x *exchange.Exchange, took time.Duration) {
	if !x.Identity.Known() {
		return
	}
	r := Record{
		ID: x.ID, Time: x.Start, Account: x.Identity.Account, Key: x.Identity.Key, Route: x.Route, Model: x.Call.Model, Usage: x.Usage, Status: x.Response.Status,
		Took: took, First: x.Response.First, Cut: x.Problem != nil && x.Response.Status < 400, Unsettled: x.Hold != "",
	}
	if p := x.Receipt; p != nil {
		r.Usage, r.Amount, r.Receipt, r.Entry = p.Usage, p.Amount, p.ID, p.Entry
	}
	b.Add(&r)
}

// Add hands over the record of a call that has ended. It never waits: when the queue is full, because the store does not
// take anything or not quickly enough, the record is dropped and counted. A call that was charged for is then recorded
// from the ledger after Config.Grace. The record is copied.
func (b *Book) Add(r *Record) {
	b.mu.Lock()
	n := b.waiting
	if n >= b.queue || b.closed {
		b.dropped++
		b.mu.Unlock()
		return
	}
	b.added = append(b.added, *r)
	b.waiting++
	b.mu.Unlock()
	if n == b.queue/2 {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
}

// Dropped is how many records were dropped since Open.
func (b *Book) Dropped() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}

// Flush writes what was added before. It returns the store's error when it can not be written now; it is tried again.
func (b *Book) Flush(ctx context.Context) error {
	return b.ask(ctx, func() error { return nil })
}

// fresh has what was added written before something is read.
func (b *Book) fresh(ctx context.Context) error {
	b.mu.Lock()
	none := b.waiting == 0
	closed := b.closed
	b.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case none:
		return nil
	}
	return b.Flush(ctx)
}

// ask has the owner write what was added and then do something. When ctx ends first, it may be done or not.
func (b *Book) ask(ctx context.Context, do func() error) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return ErrClosed
	}
	b.users.Add(1)
	b.mu.Unlock()
	defer b.users.Done()
	j := &job{do: do, done: make(chan error, 1)}
	select {
	case b.jobs <- j:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close refuses new calls, waits for those under way and writes what was added. Its error says that it could not.
func (b *Book) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return ErrClosed
	}
	b.closed = true
	b.mu.Unlock()
	b.users.Wait()
	close(b.stop)
	<-b.done
	if err := b.owner.fault; err != nil {
		return fmt.Errorf("close usage: records could not be written: %w", err)
	}
	return nil
}

// run is the owner: the only goroutine that writes.
func (b *Book) run() {
	defer close(b.done)
	flush, sweep := time.NewTicker(b.every), time.NewTicker(sweepEvery)
	defer flush.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-flush.C:
			_ = b.flush() // which tells, and tries again
		case <-b.wake:
			_ = b.flush()
		case j := <-b.jobs:
			err := b.flush()
			if err == nil {
				err = j.do()
			}
			j.done <- err
		case <-sweep.C:
			if b.flush() == nil {
				b.sweep()
			}
		case <-b.stop:
			_ = b.flush() // Close tells
			return
		}
	}
}

// mac authenticates what is given to callers and comes back.
func (b *Book) mac(parts ...[]byte) []byte {
	h := hmac.New(sha256.New, b.secret)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

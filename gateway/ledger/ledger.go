// Package ledger is the accounts' money: holds, charges, credits, and the proof that they add up. Its main type is Ledger.
//
// Balances live in memory under one lock, and one goroutine, the writer, is the only one that changes what is stored: it
// gathers whatever waits, commits it as one batch, and only then changes the balances. A hold touches memory alone. See
// DESIGN.md for the records and for what a crash at any moment leaves behind.
package ledger

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/ledger/record"
	"github.com/postern-gateway/postern/gateway/state"
)

// Errors of a ledger. All others are wrapped around one of these or around the store's.
var (
	ErrAccount      = errors.New("no such account, or it is closed")
	ErrInsufficient = errors.New("insufficient balance")
	ErrCap          = errors.New("cap of an API key is reached")
	ErrHold         = errors.New("no such hold") // never placed, released, or forgotten with its entry
	ErrSettled      = errors.New("hold is settled already")
	ErrKey          = errors.New("key was used for something else")
	ErrCurrency     = errors.New("a ledger keeps its currency")
	ErrInvalid      = errors.New("not a valid request to the ledger")
	ErrUnavailable  = errors.New("ledger can not record anything now") // the disk is full or failed; nothing was done that is not recorded
	ErrClosed       = errors.New("ledger is closed")
	ErrCorrupt      = errors.New("ledger's records are damaged")
)

// Config configures a Ledger. Only Store is required.
type Config struct {
	Store    state.Store
	Log      *slog.Logger     // default: slog.Default
	Currency string           // three letters of ISO 4217, default "USD"; the same for the life of the store
	HoldTTL  time.Duration    // how long a hold may stay open, default 10m
	Retain   time.Duration    // how long entries are kept one by one, default 0: for ever; older ones are folded into opening balances
	Node     string           // first part of the ids it mints, default "postern"; at most 64 visible octets
	Holds    int              // open holds at once, default 100000
	Now      func() time.Time // default time.Now; holds expire by its monotonic part
}

// Ledger is the accounts' money. It is safe for concurrent use.
type Ledger struct {
	store    state.Store
	log      *slog.Logger
	currency string
	holdTTL  time.Duration
	retain   time.Duration
	node     string
	most     int
	now      func() time.Time

	queue chan *job     // to the writer; full means its callers wait
	wake  chan struct{} // tells the writer that its next date may have come forward
	stop  chan struct{} // closed when no caller is left
	done  chan struct{} // closed when the writer has ended

	// The writer's own.
	head    record.Head // the last head that is known to be stored
	doubt   *group      // a group of which it is not known whether it was stored
	retry   time.Time   // when a ledger at fault tries again
	backoff time.Duration
	sweep   time.Time    // when entries are next looked through for old ones
	floor   record.Floor // what was folded so far

	mu        sync.Mutex // guards what follows; never held during input or output, but for reading one record
	closed    bool
	users     sync.WaitGroup // callers inside
	fault     error          // why nothing can be recorded; nil: it can
	accounts  map[string]*account
	holds     map[string]*holding
	deadlines list.List // of *holding: all live equally long, so they expire in the order in which they were placed
	dirty     []*holding
	sequence  uint64
	prices    map[record.Digest]*priceRow
	spending  map[string]*spending // by API key
	recovered Recovery
}

// account is one account's money. total changes only when a group was stored.
type account struct {
	id     string
	closed bool
	opened time.Time
	total  exchange.Amount // what is stored
	held   exchange.Amount // reserved by open holds and by debits on their way to the store
}

// available is what a new hold may take.
func (a *account) available() exchange.Amount { return a.total.Sub(a.held) }

// Recovery tells what Open found of a run that did not end well.
type Recovery struct {
	Intents int             // calls that were under way
	Amount  exchange.Amount // what they were charged, by their last checkpoint
}

// Open loads the ledger from the store and starts its writer. Calls that were under way when the process before this one
// ended are settled by their last checkpoint, flagged estimated, for at most what was held; Recovered tells about them.
// The store must stay open until Close returned.
func Open(ctx context.Context, c Config) (*Ledger, error) {
	l := &Ledger{
		store: c.Store, log: c.Log, currency: cmp.Or(c.Currency, "USD"), holdTTL: cmp.Or(c.HoldTTL, 10*time.Minute),
		retain: c.Retain, node: cmp.Or(c.Node, "postern"), most: cmp.Or(c.Holds, 100_000), now: c.Now,
		queue: make(chan *job, 4096), wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		accounts: map[string]*account{}, holds: map[string]*holding{}, prices: map[record.Digest]*priceRow{},
		spending: map[string]*spending{},
	}
	if l.log == nil {
		l.log = slog.Default()
	}
	if l.now == nil {
		l.now = time.Now
	}
	switch {
	case c.Store == nil:
		return nil, fmt.Errorf("open ledger: %w: no store given", ErrInvalid)
	case len(l.currency) != 3:
		return nil, fmt.Errorf("open ledger: %w: currency %q is not three letters", ErrInvalid, l.currency)
	case l.holdTTL < 0 || l.retain < 0 || l.most < 0:
		return nil, fmt.Errorf("open ledger: %w: a negative limit", ErrInvalid)
	case !validName(l.node) || len(l.node) > MaxName/2: // ids have to be names too
		return nil, fmt.Errorf("open ledger: %w: node name %q", ErrInvalid, l.node)
	}
	if err := l.load(ctx); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l.sweep = l.now()
	go l.write()
	return l, nil
}

// Recovered tells what Open had to settle.
func (l *Ledger) Recovered() Recovery { return l.recovered }

// Currency is the currency of every amount, as ISO 4217 has it.
func (l *Ledger) Currency() string { return l.currency }

// Close refuses new calls, waits for those under way, and writes the last checkpoints. Holds that are still open are
// settled by the next Open if their intent was recorded, and are forgotten otherwise.
func (l *Ledger) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.closed = true
	l.mu.Unlock()
	l.users.Wait()
	close(l.stop)
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fault != nil {
		return fmt.Errorf("close ledger: %w", l.fault)
	}
	return nil
}

// enter begins a call and takes the lock.
func (l *Ledger) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	return nil
}

// call has the writer do j and waits for the outcome. When ctx ends first, it is not known whether j was done; every
// such job may be given again.
func (l *Ledger) call(ctx context.Context, j *job) error {
	if err := l.enter(ctx); err != nil {
		return err
	}
	l.users.Add(1)
	l.mu.Unlock()
	defer l.users.Done()
	j.done = make(chan error, 1)
	select {
	case l.queue <- j:
	case <-ctx.Done():
		return ctx.Err()
	}
	if j.reads != nil {
		return <-j.done // it hands something over that somebody must take
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// OpenAccount makes an account with nothing in it. Opening one that is open changes nothing; one that was closed is
// open again.
func (l *Ledger) OpenAccount(ctx context.Context, id string) error {
	return l.setAccount(ctx, id, false)
}

// CloseAccount refuses new holds and credits on an account. What is held can still be settled, and what is left can be
// adjusted away.
func (l *Ledger) CloseAccount(ctx context.Context, id string) error {
	return l.setAccount(ctx, id, true)
}

func (l *Ledger) setAccount(ctx context.Context, id string, closed bool) error {
	if !validName(id) || record.IsSystem(id) {
		return fmt.Errorf("%w: account %q", ErrInvalid, id)
	}
	if err := l.enter(ctx); err != nil {
		return err
	}
	a := l.accounts[id]
	l.mu.Unlock()
	if a == nil && closed {
		return fmt.Errorf("%w: %s", ErrAccount, id)
	}
	return l.call(ctx, &job{stage: func(g *group) error {
		a := l.accounts[id]
		if a == nil {
			a = &account{id: id, opened: l.now()}
			g.creates(a)
		}
		if c := g.changes[a]; c != nil || a.closed != closed {
			g.change(a).closed = closed
		}
		return nil
	}})
}

// Balance is an account's money at one moment. Total is Available and Held.
type Balance struct {
	Account   string
	Available exchange.Amount // what can be spent
	Held      exchange.Amount // reserved for calls under way
	Total     exchange.Amount
	Closed    bool
}

// Balance returns an account's balance, or ErrAccount.
func (l *Ledger) Balance(ctx context.Context, id string) (Balance, error) {
	if err := l.enter(ctx); err != nil {
		return Balance{}, err
	}
	defer l.mu.Unlock()
	a := l.accounts[id]
	if a == nil {
		return Balance{}, fmt.Errorf("%w: %s", ErrAccount, id)
	}
	return a.balance(), nil
}

func (a *account) balance() Balance {
	return Balance{Account: a.id, Available: a.available(), Held: a.held, Total: a.total, Closed: a.closed}
}

// Balances returns every account's balance by id, the system's accounts included; together they are zero.
func (l *Ledger) Balances(ctx context.Context) ([]Balance, error) {
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	defer l.mu.Unlock()
	list := make([]Balance, 0, len(l.accounts))
	for _, a := range l.accounts {
		list = append(list, a.balance())
	}
	slices.SortFunc(list, func(a, b Balance) int { return cmp.Compare(a.Account, b.Account) })
	return list, nil
}

// Entries yields an account's entries, oldest first, from the sequence number from on, at most limit of them (0: all).
// An account without entries yields none. A fault ends it with a non-nil error as the last element.
func (l *Ledger) Entries(ctx context.Context, id string, from uint64, limit int) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := l.enter(ctx); err != nil {
			yield(Entry{}, err)
			return
		}
		known := l.accounts[id] != nil
		l.users.Add(1)
		l.mu.Unlock()
		defer l.users.Done()
		if !known {
			yield(Entry{}, fmt.Errorf("%w: %s", ErrAccount, id))
			return
		}
		prefix := record.IndexKey(id, 0)
		prefix = prefix[:len(prefix)-8]
		n := 0
		for e, err := range l.store.Scan(ctx, prefix, record.IndexKey(id, from)) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			seq, ok := record.SequenceOf(e.Key[len(prefix):])
			if !ok {
				yield(Entry{}, fmt.Errorf("%w: index of %s", ErrCorrupt, id))
				return
			}
			entry, err := l.entry(ctx, seq)
			if errors.Is(err, state.ErrNotFound) {
				continue // folded since the scan began
			}
			if !yield(entry, err) || err != nil {
				return
			}
			if n++; n == limit {
				return
			}
		}
	}
}

// Receipt returns the receipt of a settled hold, or ErrHold.
func (l *Ledger) Receipt(ctx context.Context, id string) (*exchange.Receipt, error) {
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	l.users.Add(1)
	l.mu.Unlock()
	defer l.users.Done()
	return l.receipt(ctx, id)
}

func (l *Ledger) receipt(ctx context.Context, id string) (*exchange.Receipt, error) {
	if !validName(id) {
		return nil, fmt.Errorf("%w: %q", ErrHold, id)
	}
	m, err := l.marker(ctx, id)
	if err != nil {
		return nil, err
	}
	e, err := l.entry(ctx, m.Seq)
	if err != nil {
		return nil, fmt.Errorf("read entry %d of hold %s: %w", m.Seq, id, err)
	}
	return e.Receipt(), nil
}

// marker reads the record that says a hold was settled.
func (l *Ledger) marker(ctx context.Context, id string) (record.Marker, error) {
	b, err := l.store.Get(ctx, record.SettledKey(id))
	if errors.Is(err, state.ErrNotFound) {
		return record.Marker{}, fmt.Errorf("%w: %s", ErrHold, id)
	}
	if err != nil {
		return record.Marker{}, fmt.Errorf("read hold %s: %w", id, err)
	}
	m, ok := record.DecodeMarker(b)
	if !ok {
		return record.Marker{}, fmt.Errorf("%w: hold %s", ErrCorrupt, id)
	}
	return m, nil
}

// entry reads one entry.
func (l *Ledger) entry(ctx context.Context, seq uint64) (Entry, error) {
	b, err := l.store.Get(ctx, record.EntryKey(seq))
	if err != nil {
		return Entry{}, err
	}
	e, _, ok := record.DecodeEntry(seq, b)
	if !ok {
		return Entry{}, fmt.Errorf("%w: entry %d", ErrCorrupt, seq)
	}
	return e, nil
}

// validName reports whether s can be part of a record's key and of a log line.
func validName(s string) bool {
	if s == "" || len(s) > MaxName {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// Ready reports why money can not be moved now: ErrUnavailable while the store takes nothing, ErrClosed. Nil when it can.
func (l *Ledger) Ready(ctx context.Context) error {
	if err := l.enter(ctx); err != nil {
		return err
	}
	defer l.mu.Unlock()
	if l.fault != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, l.fault)
	}
	return nil
}

// Package account is who may call and is charged: accounts and their API keys. Its main type is Directory.
//
// Keys are random, shown once, and kept only as an HMAC-SHA256 under a secret of the store, so neither a copy of the
// index nor a list of guesses helps without it. Everything is in memory; the store is read once and written on change.
package account

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/state"
)

// Errors of a directory. All others are wrapped around one of these or around the store's.
var (
	ErrUnknown  = errors.New("unknown API key") // or not one at all
	ErrRevoked  = errors.New("API key was revoked")
	ErrExpired  = errors.New("API key has expired")
	ErrDisabled = errors.New("account is disabled or closed")
	ErrNotFound = errors.New("no such account or key")
	ErrInvalid  = errors.New("not valid for an account")
	ErrTooMany  = errors.New("too many secrets of the key are taken still")
	ErrClosed   = errors.New("directory of accounts is closed")
)

// Bounds of what an account may have.
const (
	MaxName   = 100  // characters of a name
	MaxScopes = 32   // scopes of a key
	MaxScope  = 64   // octets of a scope
	MaxKeys   = 1000 // keys of an account, revoked ones included
)

// Status is whether an account may be used.
type Status string

// The states of an account.
const (
	Active   Status = "active"
	Disabled Status = "disabled" // its keys are refused until it is enabled again
	Closed   Status = "closed"   // for good
)

// Account is who is charged.
type Account struct {
	ID      string    `json:"id"` // "acct_" and 16 letters and digits, random
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Status  Status    `json:"status"`
}

// KeyRequest is what can be chosen of a key.
type KeyRequest struct {
	Name    string    // for people; default "key"
	Scopes  []string  // what it may do: lower-case words of letters, digits and ._:*-
	Expires time.Time // zero: never
	exchange.Allowance
}

// Key is what is known of an API key. The key itself is not.
type Key struct {
	ID      string    `json:"id"` // "key_" and 16 letters and digits, random
	Account string    `json:"account"`
	Name    string    `json:"name"`
	Scopes  []string  `json:"scopes,omitempty"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`
	Revoked time.Time `json:"revoked,omitzero"`
	Rotated time.Time `json:"rotated,omitzero"` // when its secret was replaced last; zero: never
	Used    time.Time `json:"-"`                // last used, to the minute; zero: never
	Overlap time.Time `json:"-"`                // until when a secret of before the last rotation is taken; zero: none is
	exchange.Allowance
}

// Config configures a Directory. Only Store is required.
type Config struct {
	Store state.Store
	Vault Vault            // seals names and what keys may do; nil: they are stored in the clear
	Log   *slog.Logger     // default: slog.Default
	Now   func() time.Time // default time.Now
}

// Directory is the accounts and keys of a store. It is safe for concurrent use.
type Directory struct {
	store state.Store
	vault Vault // may be nil
	log   *slog.Logger
	now   func() time.Time
	macs  sync.Pool // of *mac

	change sync.Mutex // held by whoever writes, from the check to the store

	mu       sync.RWMutex // guards what follows; held only for moments
	closed   bool
	accounts map[string]*entry
	keys     map[string]*keyEntry // by id
	index    map[[sha256.Size]byte]*secret

	stop chan struct{}
	done chan struct{}
}

// entry is an account and its keys.
type entry struct {
	Account
	keys []*keyEntry // in the order in which they were made
}

// keyEntry is a key. What the slices in it hold does not change: another takes their place.
type keyEntry struct {
	Key
	secrets  []*secret // the one in force, and those of before rotations that are taken still
	account  *entry
	identity exchange.Identity   // what Lookup returns
	allows   *exchange.Allowance // what Admit gives the identity
	tokens   atomic.Int64        // when all calls that the rate lets through at once are there again, Unix nanoseconds
	used     atomic.Int64        // Unix seconds
	written  int64               // what the store has; the keeper's own
}

// secret is what a key's holder presents, in the index. It does not change.
type secret struct {
	sum   [sha256.Size]byte
	until time.Time // of before a rotation: from when it is refused; zero: it is in force
	key   *keyEntry
}

// The records. Values are JSON: there are few, and people may want to read them.
const (
	secretKey     = "account/secret"
	accountPrefix = "account/a/" // + account id
	keyPrefix     = "account/k/" // + key id
	usedPrefix    = "account/u/" // + key id; Unix seconds, 8 octets
)

// keyRecord is a key as it is stored.
type keyRecord struct {
	Key
	Sum    []byte         `json:"sum"`
	Former []formerRecord `json:"former,omitempty"`
	Sealed []byte         `json:"sealed,omitempty"` // what people chose of it; absent in records of before it was sealed
}

// formerRecord is a secret of before a rotation.
type formerRecord struct {
	Sum   []byte    `json:"sum"`
	Until time.Time `json:"until"`
}

// usedEvery is how old the last use of a key that is stored may be.
const usedEvery = time.Minute

// Open reads the directory. The store must stay open until Close returned.
func Open(ctx context.Context, c Config) (*Directory, error) {
	d := &Directory{
		store: c.Store, vault: c.Vault, log: c.Log, now: c.Now, accounts: map[string]*entry{}, keys: map[string]*keyEntry{},
		index: map[[sha256.Size]byte]*secret{}, stop: make(chan struct{}), done: make(chan struct{}),
	}
	if d.store == nil {
		return nil, fmt.Errorf("open accounts: %w: no store given", ErrInvalid)
	}
	if d.log == nil {
		d.log = slog.Default()
	}
	if d.now == nil {
		d.now = time.Now
	}
	if err := d.load(ctx); err != nil {
		return nil, fmt.Errorf("open accounts: %w", err)
	}
	go d.keep()
	return d, nil
}

// load reads what is stored, and makes the secret the first time.
func (d *Directory) load(ctx context.Context) error {
	secret, err := d.store.Get(ctx, []byte(secretKey))
	if errors.Is(err, state.ErrNotFound) {
		for _, err := range d.store.Scan(ctx, []byte(keyPrefix), nil) {
			if err != nil {
				return err
			}
			return errors.New("there are keys but the secret they were kept under is gone")
		}
		secret = make([]byte, sha256.Size)
		rand.Read(secret) // never fails
		var b state.Batch
		b.Put([]byte(secretKey), secret)
		err = d.store.Commit(ctx, &b)
	}
	if err != nil {
		return err
	}
	if len(secret) != sha256.Size {
		return errors.New("the secret is damaged")
	}
	d.macs.New = func() any { return &mac{hash: hmac.New(sha256.New, secret)} }

	for e, err := range d.store.Scan(ctx, []byte(accountPrefix), nil) {
		if err != nil {
			return err
		}
		a := new(entry)
		if a.Account, err = d.readAccount(ctx, e.Value); err != nil {
			return fmt.Errorf("read record %s: %w", e.Key, err)
		}
		if a.ID != string(e.Key[len(accountPrefix):]) {
			return fmt.Errorf("record %s is damaged", e.Key)
		}
		d.accounts[a.ID] = a
	}
	for e, err := range d.store.Scan(ctx, []byte(keyPrefix), nil) {
		if err != nil {
			return err
		}
		var r keyRecord
		if err := json.Unmarshal(e.Value, &r); err != nil || r.ID != string(e.Key[len(keyPrefix):]) || d.accounts[r.Account] == nil {
			return fmt.Errorf("record %s is damaged", e.Key)
		}
		switch ok, err := d.openKey(ctx, &r); {
		case err != nil:
			return fmt.Errorf("read record %s: %w", e.Key, err)
		case ok && !d.restore(&r):
			return fmt.Errorf("record %s is damaged", e.Key)
		}
	}
	for e, err := range d.store.Scan(ctx, []byte(usedPrefix), nil) {
		if err != nil {
			return err
		}
		if k := d.keys[string(e.Key[len(usedPrefix):])]; k != nil && len(e.Value) == 8 {
			k.written = int64(binary.BigEndian.Uint64(e.Value))
			k.used.Store(k.written)
		}
	}
	for _, a := range d.accounts {
		slices.SortFunc(a.keys, func(a, b *keyEntry) int {
			return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
		})
	}
	return nil
}

// Close writes when keys were last used. Later calls give ErrClosed.
func (d *Directory) Close() error {
	d.change.Lock() // waits for a change under way
	defer d.change.Unlock()
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return ErrClosed
	}
	d.closed = true
	d.mu.Unlock()
	close(d.stop)
	<-d.done
	return nil
}

// keep stores when keys were last used, once a minute and at the end.
func (d *Directory) keep() {
	defer close(d.done)
	tick := time.NewTicker(usedEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.writeUsed()
		case <-d.stop:
			d.writeUsed()
			return
		}
	}
}

// writeUsed stores the last uses that changed.
func (d *Directory) writeUsed() {
	const most = 1000 // of one commit
	var changed []*keyEntry
	d.mu.RLock()
	for _, k := range d.keys { // those of accounts that were erased are not among them
		if k.used.Load() != k.written {
			changed = append(changed, k)
		}
	}
	d.mu.RUnlock()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for part := range slices.Chunk(changed, most) {
		var b state.Batch
		used := make([]int64, len(part))
		for i, k := range part {
			used[i] = k.used.Load()
			b.Put([]byte(usedPrefix+k.ID), binary.BigEndian.AppendUint64(nil, uint64(used[i])))
		}
		if err := d.store.Commit(ctx, &b); err != nil {
			d.log.Warn("accounts: the last use of keys is not stored", "keys", len(changed), "error", err)
			return
		}
		for i, k := range part {
			k.written = used[i]
		}
	}
}

// Create makes an account.
func (d *Directory) Create(ctx context.Context, name string) (Account, error) {
	if err := checkName(name); err != nil {
		return Account{}, err
	}
	a := &entry{Account: Account{ID: newID("acct_"), Name: name, Created: d.now().UTC().Truncate(time.Second), Status: Active}}
	return a.Account, d.write(ctx, func() (*state.Batch, func(), error) {
		b, err := d.accountBatch(ctx, a.Account)
		return b, func() { d.accounts[a.ID] = a }, err
	})
}

// Get returns an account, or ErrNotFound.
func (d *Directory) Get(_ context.Context, id string) (Account, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return Account{}, ErrClosed
	}
	a := d.accounts[id]
	if a == nil {
		return Account{}, fmt.Errorf("%w: %s", ErrNotFound, clip(id))
	}
	return a.Account, nil
}

// List returns all accounts, the oldest first.
func (d *Directory) List(context.Context) ([]Account, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return nil, ErrClosed
	}
	list := make([]Account, 0, len(d.accounts))
	for _, a := range d.accounts {
		list = append(list, a.Account)
	}
	slices.SortFunc(list, func(a, b Account) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// Disable refuses the account's keys from now on, until Enable.
func (d *Directory) Disable(ctx context.Context, id string) error {
	return d.setStatus(ctx, id, Disabled)
}

// Enable ends Disable. A closed account stays closed (ErrDisabled).
func (d *Directory) Enable(ctx context.Context, id string) error { return d.setStatus(ctx, id, Active) }

// CloseAccount refuses the account's keys for good.
func (d *Directory) CloseAccount(ctx context.Context, id string) error {
	return d.setStatus(ctx, id, Closed)
}

// setStatus changes an account's status. What takes rights away holds at once, even when the store then fails: the error
// says that it will not hold after a restart.
func (d *Directory) setStatus(ctx context.Context, id string, to Status) error {
	return d.write(ctx, func() (*state.Batch, func(), error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		a := d.accounts[id]
		if a == nil {
			return nil, nil, fmt.Errorf("%w: %s", ErrNotFound, clip(id))
		}
		if a.Status == Closed && to != Closed {
			return nil, nil, fmt.Errorf("%w: %s is closed", ErrDisabled, id)
		}
		changed := a.Account
		changed.Status = to
		if to != Active {
			a.Status = to
		}
		b, err := d.accountBatch(ctx, changed)
		return b, func() { a.Status = to }, err
	})
}

// Lookup returns who presented a key. It allocates nothing. The identity's scopes must not be changed.
func (d *Directory) Lookup(ctx context.Context, presented []byte) (exchange.Identity, error) {
	if err := ctx.Err(); err != nil {
		return exchange.Identity{}, err
	}
	if !wellFormed(presented) { // most of what is not a key ends here, without a hash
		return exchange.Identity{}, ErrUnknown
	}
	m := d.macs.Get().(*mac)
	sum := m.of(presented)
	d.macs.Put(m)
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return exchange.Identity{}, ErrClosed
	}
	s := d.index[sum]
	// The map compares an HMAC that nobody can choose without the secret; comparing again in constant time costs nothing.
	if s == nil || !hmac.Equal(s.sum[:], sum[:]) {
		return exchange.Identity{}, ErrUnknown
	}
	k, now := s.key, d.now()
	switch {
	case !s.until.IsZero() && !now.Before(s.until):
		return exchange.Identity{}, ErrExpired
	case !k.Revoked.IsZero():
		return exchange.Identity{}, ErrRevoked
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return exchange.Identity{}, ErrExpired
	case k.account.Status != Active:
		return exchange.Identity{}, ErrDisabled
	}
	if unix := now.Unix(); unix-k.used.Load() >= int64(usedEvery/time.Second) {
		k.used.Store(unix)
	}
	return k.identity, nil
}

// write makes one change: prepare checks it and says what to store and what to do in memory once it is stored.
func (d *Directory) write(ctx context.Context, prepare func() (*state.Batch, func(), error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.change.Lock()
	defer d.change.Unlock()
	d.mu.RLock()
	closed := d.closed
	d.mu.RUnlock()
	if closed {
		return ErrClosed
	}
	b, apply, err := prepare()
	if err != nil {
		return err
	}
	if err := d.store.Commit(ctx, b); err != nil {
		return fmt.Errorf("store account: %w", err)
	}
	d.mu.Lock()
	apply()
	d.mu.Unlock()
	return nil
}

// record returns a batch that stores value as JSON.
func record(key string, value any) (*state.Batch, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	b := new(state.Batch)
	b.Put([]byte(key), text)
	return b, nil
}

// mac computes HMACs without allocating.
type mac struct {
	hash hash.Hash
	sum  [sha256.Size]byte
}

func (m *mac) of(b []byte) [sha256.Size]byte {
	m.hash.Reset()
	m.hash.Write(b)
	m.hash.Sum(m.sum[:0])
	return m.sum
}

// newID returns prefix and 80 random bits.
func newID(prefix string) string {
	var b [10]byte
	rand.Read(b[:]) // never fails
	return prefix + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

func checkName(name string) error {
	n := utf8.RuneCountInString(name)
	if n == 0 || n > MaxName || !utf8.ValidString(name) || strings.TrimSpace(name) != name || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("%w: a name has 1 to %d characters, no control characters and no space at its ends", ErrInvalid, MaxName)
	}
	return nil
}

// checkScopes returns the scopes in order, each once.
func checkScopes(scopes []string) ([]string, error) {
	if len(scopes) > MaxScopes {
		return nil, fmt.Errorf("%w: a key has at most %d scopes", ErrInvalid, MaxScopes)
	}
	for _, s := range scopes {
		bad := func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("._:*-", r)
		}
		if s == "" || len(s) > MaxScope || strings.ContainsFunc(s, bad) {
			return nil, fmt.Errorf("%w: scope %q is not 1 to %d lower-case letters, digits and ._:*-", ErrInvalid, clip(s), MaxScope)
		}
	}
	sorted := slices.Compact(slices.Sorted(slices.Values(scopes)))
	return slices.Clip(sorted), nil
}

// clip shortens what a caller gave for an error message. A key that was given in the place of an id is not repeated.
func clip(s string) string {
	if wellFormed([]byte(s)) {
		return "(an API key)"
	}
	if len(s) > MaxName {
		return s[:MaxName] + "..."
	}
	return s
}

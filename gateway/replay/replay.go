// Package replay keeps the replies to requests that came with an idempotency key, so that the same request sent again
// gets the same reply and is charged once. Its main type is Store.
//
// A Claim is one request's exclusive use of its key. Before an upstream is called, Begun puts a record on disk that says
// so; Keep replaces it by the reply, Free removes it where nothing was charged, and where neither came about the record
// stays: what became of the call is then not known here, and the key is never taken for a new one.
//
// Replies are content. They are sealed under their account's key in the vault: when that is shredded, what is left of them
// in old files and backups can not be read any more. Remove takes them out of the store, too.
package replay

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/vault"
)

// Errors of Begin. What else it returns is a *LostError, or an error of the store.
var (
	ErrKey        = errors.New("not an idempotency key") // see ValidKey
	ErrReused     = errors.New("idempotency key was used for another request")
	ErrInProgress = errors.New("the first request with this idempotency key is under way")
	ErrBusy       = errors.New("too many requests with idempotency keys are under way")
	ErrClosed     = errors.New("store of replies is closed")
)

// LostError says that the request was made before and that its reply is not here: it must not be made again under this
// key.
type LostError struct {
	Exchange string // the id of the first request
	Large    bool   // it was answered, by more than is kept; otherwise it is not known how it ended
}

// Error makes a LostError an error.
func (e *LostError) Error() string {
	if e.Large {
		return "the reply to exchange " + e.Exchange + " was not kept"
	}
	return "it is not known how exchange " + e.Exchange + " ended"
}

// MaxReply is the most octets of a body that are kept. With status and fields it fits in a value of the store.
const MaxReply = state.MaxValue - 16<<10

// maxHeader bounds the fields kept with a reply.
const maxHeader = 8 << 10

// overhead is what a record counts beside its body.
const overhead = 1 << 10

// Config configures a Store. Store, Vault and Prefix are required.
type Config struct {
	Store   state.Store
	Vault   *vault.Vault // seals the replies, each under its account's key
	Prefix  string       // begins every key in the store, at most 64 octets
	Log     *slog.Logger // default: slog.Default. No key and no content is ever logged
	Claims  int          // requests under way at once, default 16384
	Memory  int64        // octets of replies under way held in memory, default 256 MiB; one account gets a quarter. A reply that finds no room is not kept
	Account int64        // octets of replies kept for one account as they are stored, give or take as much again, default 1 GiB. Beyond it replies are not kept
}

// Store is the replies kept. It is safe for concurrent use, and the only one that uses its prefix of the state store.
type Store struct {
	state   state.Store
	prefix  string
	log     *slog.Logger
	most    int
	memory  int64
	account int64
	vault   vault.Drawer

	queue chan *write
	done  chan struct{} // closed when the writer has ended

	packer packer

	mu     sync.Mutex // guards what follows
	closed bool
	users  sync.WaitGroup // calls under way
	claims map[string]*Claim
	held   int64            // octets of replies under way
	shares map[string]int64 // the same, by account
	kept   map[string]*level
	pruned time.Time // when kept was last looked through
}

// Open opens the replies in c.Store, which must stay open until Close returned, as must c.Vault.
func Open(ctx context.Context, c Config) (*Store, error) {
	s := &Store{
		state: c.Store, prefix: c.Prefix, log: c.Log, most: cmp.Or(c.Claims, 16384), memory: cmp.Or(c.Memory, 256<<20),
		account: cmp.Or(c.Account, 1<<30), queue: make(chan *write, 1024), done: make(chan struct{}),
		claims: map[string]*Claim{}, shares: map[string]int64{}, kept: map[string]*level{}, pruned: time.Now(),
	}
	switch {
	case c.Store == nil || c.Vault == nil:
		return nil, errors.New("open replies: no store or no vault given")
	case c.Prefix == "" || len(c.Prefix) > 64:
		return nil, fmt.Errorf("open replies: %q is no prefix", c.Prefix)
	case s.most < 0 || s.memory < 0 || s.account < 0:
		return nil, errors.New("open replies: a negative limit")
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open replies: %w", err)
	}
	s.vault = c.Vault.Drawer("replay")
	go s.writing()
	return s, nil
}

// Close refuses new calls and waits for those under way. A claim that is still open is found by the next Open as a call
// of which it is not known how it ended.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.closed = true
	s.mu.Unlock()
	s.users.Wait()
	close(s.queue)
	<-s.done
	return nil
}

// enter begins a call; leave ends it.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.users.Add(1)
	return nil
}

func (s *Store) leave() { s.users.Done() }

// Request is a request with an idempotency key.
type Request struct {
	Account  string // whose key it is: accounts do not see each other's
	Key      string
	Method   string
	Path     string // with the query
	Body     []byte
	Exchange string        // its id, for who is told of it later; at most 256 octets
	Keep     time.Duration // how long its reply is kept, greater than 0
}

// ValidKey reports whether key can be an idempotency key: 1 to 255 visible octets of ASCII.
func ValidKey(key string) bool {
	if key == "" || len(key) > 255 {
		return false
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] >= 0x7f {
			return false
		}
	}
	return true
}

// digest tells requests apart: SHA-256 over method, path and body, each after its length.
func (r *Request) digest() (d [sha256.Size]byte) {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(r.Method), []byte(r.Path), r.Body} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	h.Sum(d[:0])
	return d
}

// Reply is a reply that was kept.
type Reply struct {
	Exchange string // the id of the first request
	Status   int
	Header   exchange.Header
	Body     []byte
}

// Begin looks a request up. A claim means that it came the first time: it is to be made, and the claim to be ended. A
// reply means that it was made before. ErrReused, ErrInProgress and a *LostError say that it must not be made; after any
// other error nothing is known, and it must not be made either. It never waits for another request.
func (s *Store) Begin(ctx context.Context, r Request) (*Claim, *Reply, error) {
	if !ValidKey(r.Key) || r.Keep <= 0 || len(r.Exchange) > 256 {
		return nil, nil, ErrKey
	}
	if err := s.enter(); err != nil {
		return nil, nil, err
	}
	defer s.leave()
	key, err := s.name(ctx, r.Account, r.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("look up an idempotency key: %w", err)
	}
	c := &Claim{store: s, key: key, account: r.Account, digest: r.digest(), exchange: r.Exchange, keep: r.Keep}
	// What is kept is looked at first, so that requests that come again at once do not stand in each other's way.
	rec, err := c.look(ctx)
	if err != nil {
		return nil, nil, err
	}
	if rec == nil || rec.kind == kindBegun {
		if err := s.claim(c); err != nil {
			return nil, nil, err
		}
		// From here on nobody else changes the record: only now does it say what became of an earlier request.
		if rec, err = c.look(ctx); err == nil && rec == nil {
			return c, nil, nil
		}
		c.end()
		if err != nil {
			return nil, nil, err
		}
	}
	switch {
	case rec.digest != c.digest:
		return nil, nil, ErrReused
	case rec.kind == kindDone:
		if rec.packed {
			if rec.body, err = unpack(rec.body); err != nil {
				return nil, nil, fmt.Errorf("read a kept reply: %w", err)
			}
		}
		return nil, &Reply{Exchange: rec.exchange, Status: rec.status, Header: rec.header, Body: rec.body}, nil
	}
	return nil, nil, &LostError{Exchange: rec.exchange, Large: rec.kind == kindLarge}
}

// look reads the record of the claim's key; nil: there is none.
func (c *Claim) look(ctx context.Context) (*record, error) {
	sealed, err := c.store.state.Get(ctx, c.key)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up an idempotency key: %w", err)
	}
	rec, err := c.store.open(ctx, c.account, c.key, sealed)
	if err != nil && !errors.Is(err, vault.ErrDamaged) {
		return nil, fmt.Errorf("read what is kept for an idempotency key: %w", err)
	}
	if err != nil {
		// A request was made under this key, whatever else is lost.
		c.store.log.ErrorContext(ctx, "a kept reply is damaged", "error", err)
		return nil, &LostError{Exchange: "unknown"}
	}
	return &rec, nil
}

// claim takes the key, unless somebody has it.
func (s *Store) claim(c *Claim) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch other := s.claims[string(c.key)]; {
	case other != nil && other.digest != c.digest:
		return ErrReused
	case other != nil:
		return ErrInProgress
	case len(s.claims) >= s.most:
		return ErrBusy
	}
	s.claims[string(c.key)] = c
	return nil
}

// Claim is a request's exclusive use of its key until Keep, Free or Lose, one of which must be called. It belongs to one
// goroutine at a time.
type Claim struct {
	store    *Store
	key      []byte // in the state store
	account  string
	digest   [sha256.Size]byte
	exchange string
	keep     time.Duration

	begun bool // a record of Begun may be stored
	known bool // it is
	over  bool
	large bool // the reply is not kept
	reply record
	room  int64 // octets of memory taken for the reply
}

// Over reports whether the claim has ended.
func (c *Claim) Over() bool { return c.over }

// Begun records durably that the request is about to have effects. After an error it must not have any. Once it
// is recorded, further calls do nothing.
func (c *Claim) Begun(ctx context.Context) error {
	if c.known || c.over {
		return nil
	}
	c.begun = true // even after an error: it may be on its way
	if err := c.put(ctx, kindBegun); err != nil {
		return fmt.Errorf("record a request with an idempotency key: %w", err)
	}
	c.known = true
	return nil
}

// Head takes the reply's head. Fields about the connection and the moment are left out.
func (c *Claim) Head(status int, h exchange.Header) {
	size := 0
	c.reply.status = status
	for _, f := range h {
		if !momentary(f.Name) {
			c.reply.header = append(c.reply.header, f)
			size += len(f.Name) + len(f.Value) + 8
		}
	}
	c.large = c.large || size > maxHeader
}

// Write takes a part of the reply's body. It copies p. When there is no room, the reply is not kept.
func (c *Claim) Write(p []byte) {
	if c.large || c.over {
		return
	}
	need := int64(len(c.reply.body) + len(p))
	if need > MaxReply {
		c.giveUp()
		return
	}
	if need > c.room {
		room := min(max(need, 2*c.room, 16<<10), MaxReply)
		if !c.store.take(c.account, room-c.room) {
			c.giveUp()
			return
		}
		c.room = room
		c.reply.body = append(make([]byte, 0, room), c.reply.body...)
	}
	c.reply.body = append(c.reply.body, p...)
}

// giveUp goes on without keeping the reply.
func (c *Claim) giveUp() {
	c.large, c.reply.body = true, nil
	c.store.take(c.account, -c.room)
	c.room = 0
}

// Keep stores the reply that Head and Write took, durably, and ends the claim. After an error the key is as after Lose.
func (c *Claim) Keep(ctx context.Context) error {
	if c.over {
		return nil
	}
	defer c.end()
	kind := byte(kindDone)
	if small, ok := c.store.packer.pack(c.reply.body); ok {
		c.reply.packed, c.reply.body = true, small
	}
	if !c.large && !c.store.fits(c.account, int64(len(c.reply.body))+overhead, c.keep) {
		c.store.log.WarnContext(ctx, "reply not kept for its idempotency key: its account has no more room", "exchange", c.exchange)
		c.large = true
	}
	if c.large {
		kind, c.reply = kindLarge, record{}
	}
	if err := c.put(ctx, kind); err != nil {
		return fmt.Errorf("keep a reply: %w", err)
	}
	return nil
}

// Free ends the claim of a request that had no effect: the key is as if it had never come.
func (c *Claim) Free(ctx context.Context) error {
	if c.over {
		return nil
	}
	defer c.end()
	if !c.begun {
		return nil
	}
	if err := c.store.write(ctx, &write{key: c.key}); err != nil {
		return fmt.Errorf("free an idempotency key: %w", err)
	}
	return nil
}

// Lose ends the claim of a request that had an effect and whose reply is not whole: who sends it again gets a
// *LostError.
func (c *Claim) Lose(ctx context.Context) error {
	if c.over {
		return nil
	}
	defer c.end()
	if c.known {
		return nil
	}
	c.reply = record{}
	if err := c.put(ctx, kindBegun); err != nil {
		return fmt.Errorf("record a request with an idempotency key: %w", err)
	}
	return nil
}

// put stores the claim's record.
func (c *Claim) put(ctx context.Context, kind byte) error {
	rec := c.reply
	rec.kind, rec.digest, rec.exchange = kind, c.digest, c.exchange
	sealed, err := c.store.seal(ctx, c.account, c.key, &rec)
	if err != nil {
		return err
	}
	return c.store.write(ctx, &write{key: c.key, value: sealed, ttl: c.keep})
}

// end gives the key and the memory back.
func (c *Claim) end() {
	c.over = true
	c.reply = record{}
	c.store.take(c.account, -c.room)
	c.room = 0
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if c.store.claims[string(c.key)] == c {
		delete(c.store.claims, string(c.key))
	}
}

// momentary says which fields of a reply are not part of it when it is given again.
func momentary(name string) bool {
	return slices.Contains([]string{
		"age", "alt-svc", "connection", "content-length", "date", "keep-alive", "postern-exchange", "ratelimit", "ratelimit-policy",
		"retry-after", "set-cookie", "trailer", "transfer-encoding", "upgrade", "via",
	}, name) || strings.HasPrefix(name, "x-ratelimit-")
}

// Remove removes everything kept for an account. Its keys are free again; nobody finds what a claim that is still open
// keeps. What old files and backups have of it is destroyed by shredding the account's key in the vault.
func (s *Store) Remove(ctx context.Context, account string) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	batch := new(state.Batch)
	commit := func() error {
		if len(batch.Writes) == 0 {
			return nil
		}
		if err := s.state.Commit(ctx, batch); err != nil {
			return fmt.Errorf("remove replies: %w", err)
		}
		batch.Reset()
		return nil
	}
	for e, err := range s.state.Scan(ctx, s.replyPrefix(account), nil) {
		if err != nil {
			return fmt.Errorf("remove replies: %w", err)
		}
		batch.Delete(slices.Clone(e.Key))
		if len(batch.Writes) == 1000 {
			if err := commit(); err != nil {
				return err
			}
		}
	}
	return commit()
}

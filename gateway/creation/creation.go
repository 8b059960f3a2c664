// Package creation keeps what was made for an account, a model's text or an image, for as long as the route says that
// made it. Its main type is Shelf.
//
// A creation is its owner's alone: it is found only under the account that it was made for, whatever id is asked for, and
// it is sealed under that account's key, so that nothing of it can be read once the key is shredded, wherever copies
// linger. It is taken down as it passes to the client, in chunks that are sealed and stored while more comes; the client
// never waits for that. What is longer than the route allows, or comes while there is no memory or no room, is not kept.
//
// One goroutine, the owner, writes. It adds up what each account has, in the same commit as what it adds up.
package creation

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/state"
)

// Errors of a shelf. What else it returns comes from the store, the vault or the context.
var (
	ErrNone    = errors.New("the account has no such creation")
	ErrDamaged = errors.New("a creation is damaged")
	ErrClosed  = errors.New("shelf of creations is closed")
)

// Sealer seals octets for their owner. What was sealed for one owner and name is opened for no other.
type Sealer interface {
	Seal(ctx context.Context, owner, name string, plain []byte) ([]byte, error)
	Open(ctx context.Context, owner, name string, sealed []byte) ([]byte, error)
}

// Config configures a Shelf. Store and Sealer are required.
type Config struct {
	Store  state.Store
	Sealer Sealer           // a vault's drawer
	Log    *slog.Logger     // default: slog.Default. No content and no id of a creation is ever logged
	Memory int64            // octets that wait to be stored, default 256 MiB; one account gets a quarter. What finds no room is not kept
	Now    func() time.Time // default time.Now
}

// Terms are what a route says about creations.
type Terms struct {
	Keep    time.Duration // how long one is kept, greater than 0
	Item    int64         // octets of one at most
	Account int64         // octets of all of an account, beyond which no more are kept
}

// Info says what a creation is.
type Info struct {
	ID       string    `json:"id"`
	Time     time.Time `json:"time"`
	Expires  time.Time `json:"expires"`
	Route    string    `json:"route"`
	Model    string    `json:"model,omitempty"`
	Exchange string    `json:"exchange"`
	Type     string    `json:"type"`               // its content type
	Encoding string    `json:"encoding,omitempty"` // its content encoding
	Parts    []int64   `json:"parts"`              // octets of each: a reply with several choices has as many
}

// Size is how many octets it has.
func (i *Info) Size() (n int64) {
	for _, p := range i.Parts {
		n += p
	}
	return n
}

// Shelf is the creations of all accounts. It is safe for concurrent use, and the only one that uses the keys it uses.
type Shelf struct {
	store  state.Store
	seal   Sealer
	log    *slog.Logger
	memory int64
	now    func() time.Time

	wake chan struct{} // something was handed over
	stop chan struct{} // closed when no caller is left
	done chan struct{} // closed when the owner has ended

	used map[digest]int64 // octets of accounts; the owner's alone

	mu     sync.Mutex // guards what follows; held for moments
	closed bool
	users  sync.WaitGroup // callers who wait for the owner
	queue  []op
	held   int64            // octets that wait
	shares map[string]int64 // the same, by account
}

// Open opens the shelf in c.Store, which must stay open until Close returned, as must what c.Sealer is of. Creations that
// were under way when a process ended are removed.
func Open(ctx context.Context, c Config) (*Shelf, error) {
	s := &Shelf{
		store: c.Store, seal: c.Sealer, log: c.Log, memory: cmp.Or(c.Memory, 256<<20), now: c.Now,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}), used: map[digest]int64{}, shares: map[string]int64{},
	}
	switch {
	case c.Store == nil || c.Sealer == nil:
		return nil, errors.New("open creations: no store or no sealer given")
	case s.memory < 0:
		return nil, errors.New("open creations: a negative limit")
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.now == nil {
		s.now = time.Now
	}
	if err := s.clean(ctx); err != nil {
		return nil, fmt.Errorf("open creations: %w", err)
	}
	go s.run()
	return s, nil
}

// Close refuses new calls, waits for those under way and stores what was handed over.
func (s *Shelf) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.closed = true
	s.mu.Unlock()
	s.users.Wait()
	close(s.stop)
	<-s.done
	return nil
}

// The records.
const (
	chunkPrefix = "creation/c/" // + account, place, part, number: octets, sealed
	draftPrefix = "creation/d/" // + account, place: chunks are stored, and what they are of is still to come
	dueKey      = "creation/e/" // + when it ends, account, place
	infoPrefix  = "creation/i/" // + account, place: what it is
	usedPrefix  = "creation/q/" // + account: octets of all
)

// digest names an account in keys: they have one length, and whatever an account is called, it can not reach into
// another's.
type digest [sha256.Size]byte

func digestOf(account string) digest { return sha256.Sum256([]byte(account)) }

// place is where in its account a creation is: when it began, inverted, so that what is newest comes first, and what
// nobody can guess.
type place [20]byte

// timeSize is how many octets of a place are its time, in milliseconds.
const timeSize = 6

func newPlace(t time.Time) (p place) {
	binary.BigEndian.PutUint64(p[:], ^uint64(max(t.UnixMilli(), 0))<<16)
	rand.Read(p[timeSize:]) // never fails
	return p
}

var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// idPrefix begins every id.
const idPrefix = "crea_"

func (p place) id() string { return idPrefix + encoding.EncodeToString(p[:]) }

func placeOf(id string) (p place, ok bool) {
	text, is := strings.CutPrefix(id, idPrefix)
	if !is || len(text) != encoding.EncodedLen(len(p)) {
		return p, false
	}
	n, err := encoding.Decode(p[:], []byte(text))
	return p, err == nil && n == len(p)
}

// key is where something of an account is.
func (d digest) key(prefix string, rest ...byte) []byte {
	b := make([]byte, 0, len(prefix)+len(d)+len(rest)+8)
	return append(append(append(b, prefix...), d[:]...), rest...)
}

// chunkKey is where a chunk is, and chunkName what it is sealed as.
func (d digest) chunkKey(p place, part int, number uint32) []byte {
	return binary.BigEndian.AppendUint32(append(d.key(chunkPrefix, p[:]...), byte(part)), number)
}

func chunkName(p place, part int, number uint32) string {
	return fmt.Sprintf("%s/%d/%d", p.id(), part, number)
}

// dueAt is the key under which a creation is found when its time is over.
func dueAt(end time.Time, d digest, p place) []byte {
	b := binary.BigEndian.AppendUint64([]byte(dueKey), uint64(max(end.Unix(), 0)))
	return append(append(b, d[:]...), p[:]...)
}

// version is the first octet of every value that is not sealed as a whole.
const version = 1

// row is the value below infoPrefix: when it ends and how much it takes, and behind that, sealed, the Info.
type row struct {
	expires time.Time // whole seconds
	size    int64     // octets that it counts in its account
	sealed  []byte
}

func (r *row) encode() []byte {
	b := make([]byte, 0, 17+len(r.sealed))
	b = binary.BigEndian.AppendUint64(append(b, version), uint64(r.expires.Unix()))
	b = binary.BigEndian.AppendUint64(b, uint64(r.size))
	return append(b, r.sealed...)
}

func decodeRow(b []byte) (r row, ok bool) {
	if len(b) < 17 || b[0] != version {
		return row{}, false
	}
	r = row{expires: time.Unix(int64(binary.BigEndian.Uint64(b[1:])), 0).UTC(), size: int64(binary.BigEndian.Uint64(b[9:])), sealed: b[17:]}
	return r, r.size >= 0
}

// Package session keeps who is signed in: its main type is Book. A session is found by the HMAC of its token, ends when it
// idles or at its absolute time, and says where it came from only to its own person: that is sealed.
//
// A library such as scs keeps a bag of values for each visitor, under the token itself, and finds sessions by nothing else.
// Here a session is a person's, listed and ended as such, in one commit with what ends it.
package session

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/postern-gateway/postern/gateway/mail"
	"github.com/postern-gateway/postern/gateway/person/throttle"
	"github.com/postern-gateway/postern/gateway/person/token"
	"github.com/postern-gateway/postern/gateway/state"
)

// Errors of a Book, besides the store's and the vault's.
var (
	ErrOver   = errors.New("not signed in")
	ErrClosed = errors.New("sessions are closed")
)

// The records.
const (
	sessionPrefix = "person/s/"  // + HMAC of a session's token
	signedPrefix  = "person/sp/" // + person + / + session id; the HMAC
	maxAgent      = 200          // octets of a browser's name that are looked at
)

// Config configures a Book. All of it but Log is required.
type Config struct {
	Mint     *token.Mint // with the store
	Vault    mail.Vault
	Change   sync.Locker   // held by whoever commits a batch that Enter, End, EndAll or Rotate wrote to, from before the call
	Idle     time.Duration // without a request
	Absolute time.Duration // in all
	Most     int           // of one person
	Log      *slog.Logger  // default: slog.Default
}

// Book is the sessions of a store. It is safe for concurrent use.
type Book struct {
	c     Config
	store state.Store
	now   func() time.Time
	log   *slog.Logger

	mu     sync.Mutex // guards what follows; held only for moments
	seen   map[string]time.Time
	closed bool

	stop chan struct{}
	done chan struct{}
}

// Open begins to note when sessions are used.
func Open(c Config) *Book {
	k := &Book{c: c, store: c.Mint.Store, now: c.Mint.Now, log: c.Log, seen: map[string]time.Time{}, stop: make(chan struct{}), done: make(chan struct{})}
	if k.log == nil {
		k.log = slog.Default()
	}
	go k.keep()
	return k
}

// Close writes when sessions were last used. Later calls give ErrClosed.
func (k *Book) Close() error {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return ErrClosed
	}
	k.closed = true
	k.mu.Unlock()
	close(k.stop)
	<-k.done
	return nil
}

// Session is somebody signed in on some device.
type Session struct {
	ID      string    `json:"id"` // "sess_" and 16 letters and digits, random; not what signs in
	Person  string    `json:"person"`
	Created time.Time `json:"created"`
	Proved  time.Time `json:"proved"` // the last time it was proven who this is
	Seen    time.Time `json:"seen"`   // to the minute
	Ends    time.Time `json:"ends"`   // unless it idles before
	Factors []string  `json:"factors"`
	Network string    `json:"network,omitempty"` // /24 or /56; in lists only
	Agent   string    `json:"agent,omitempty"`   // what the browser called itself; in lists only

	key string // in the store
}

// sessionRecord is a session as it is stored. Where it came from is sealed.
type sessionRecord struct {
	Session
	Sealed []byte `json:"sealed"`
}

// origin is where a session came from.
type origin struct {
	Network string `json:"network"`
	Agent   string `json:"agent"`
}

// Lookup returns the session of a token and notes its use, or ErrOver. It is a read of the store.
func (k *Book) Lookup(ctx context.Context, text string) (Session, error) {
	r, err := k.session(ctx, text)
	if err != nil {
		return Session{}, err
	}
	now := k.now().UTC()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return Session{}, ErrClosed
	}
	if last := k.seen[r.key]; last.After(r.Seen) {
		r.Seen = last
	}
	if !now.Before(r.Seen.Add(k.c.Idle)) {
		return Session{}, ErrOver
	}
	if now.Sub(r.Seen) >= seenEvery {
		r.Seen = now
		k.seen[r.key] = now
	}
	return r.Session, nil
}

// session reads a session that is not over by its absolute time.
func (k *Book) session(ctx context.Context, text string) (*sessionRecord, error) {
	if !token.WellFormed(text) {
		return nil, ErrOver
	}
	return k.sessionAt(ctx, sessionPrefix+k.c.Mint.Digest("session", text))
}

// sessionAt is the session under a key.
func (k *Book) sessionAt(ctx context.Context, key string) (*sessionRecord, error) {
	value, err := k.store.Get(ctx, []byte(key))
	if errors.Is(err, state.ErrNotFound) {
		return nil, ErrOver
	}
	if err != nil {
		return nil, fmt.Errorf("read session: %w", err)
	}
	r := new(sessionRecord)
	if err := json.Unmarshal(value, r); err != nil {
		return nil, fmt.Errorf("record %s is damaged", key)
	}
	r.key = key
	if !k.now().Before(r.Ends) {
		return nil, ErrOver
	}
	return r, nil
}

// Enter makes a session for a person and puts it into a batch. A session that was there before is not touched: a token that
// somebody brought along never becomes a session.
func (k *Book) Enter(ctx context.Context, b *state.Batch, person string, address netip.Addr, agent string, factors ...string) (text string, s Session, err error) {
	list, err := k.List(ctx, person)
	if err != nil {
		return "", Session{}, err
	}
	for len(list) >= k.c.Most { // the one that was used longest ago goes
		k.End(b, list[len(list)-1])
		list = list[:len(list)-1]
	}
	now := k.now().UTC()
	if len(agent) > maxAgent {
		agent = strings.ToValidUTF8(agent[:maxAgent], "")
	}
	from := origin{Agent: strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, agent)}
	if n := throttle.Network(address); n.IsValid() {
		from.Network = n.String()
	}
	text = token.Random()
	s = Session{ID: token.ID("sess_"), Person: person, Created: now, Proved: now, Seen: now, Ends: now.Add(k.c.Absolute), Factors: factors,
		key: sessionPrefix + k.c.Mint.Digest("session", text)}
	plain, err := json.Marshal(from)
	if err != nil {
		return "", Session{}, err
	}
	r := sessionRecord{Session: s}
	if r.Sealed, err = k.c.Vault.Seal(ctx, person, "session:"+s.ID, plain); err != nil {
		return "", Session{}, fmt.Errorf("seal session: %w", err)
	}
	if err := k.write(b, &r); err != nil {
		return "", Session{}, err
	}
	return text, s, nil
}

// write puts a session into a batch, for as long as it can last unused.
func (k *Book) write(b *state.Batch, r *sessionRecord) error {
	now := k.now()
	ttl := min(r.Ends.Sub(now), r.Seen.Add(k.c.Idle).Sub(now))
	if ttl <= 0 {
		k.End(b, r.Session)
		return nil
	}
	b.PutTTL([]byte(signedPrefix+r.Person+"/"+r.ID), []byte(strings.TrimPrefix(r.key, sessionPrefix)), ttl)
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	b.PutTTL([]byte(r.key), text, ttl)
	return nil
}

// End takes a session out of the store with a batch.
func (k *Book) End(b *state.Batch, s Session) {
	b.Delete([]byte(s.key))
	b.Delete([]byte(signedPrefix + s.Person + "/" + s.ID))
}

// List returns a person's sessions, the one used last first.
func (k *Book) List(ctx context.Context, person string) ([]Session, error) {
	var list []Session
	for e, err := range k.store.Scan(ctx, []byte(signedPrefix+person+"/"), nil) {
		if err != nil {
			return nil, fmt.Errorf("read sessions: %w", err)
		}
		r, err := k.sessionAt(ctx, sessionPrefix+string(e.Value))
		if errors.Is(err, ErrOver) {
			continue
		}
		if err != nil {
			return nil, err
		}
		k.mu.Lock()
		if last := k.seen[r.key]; last.After(r.Seen) {
			r.Seen = last
		}
		k.mu.Unlock()
		if !k.now().Before(r.Seen.Add(k.c.Idle)) {
			continue
		}
		var from origin
		plain, err := k.c.Vault.Open(ctx, person, "session:"+r.ID, r.Sealed)
		if err != nil {
			return nil, fmt.Errorf("open session: %w", err)
		}
		if err := json.Unmarshal(plain, &from); err != nil {
			return nil, fmt.Errorf("record %s is damaged", r.key)
		}
		r.Network, r.Agent = from.Network, from.Agent
		list = append(list, r.Session)
	}
	slices.SortFunc(list, func(a, b Session) int {
		return cmp.Or(b.Seen.Compare(a.Seen), b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// EndAll ends a person's sessions but one, and the sign-ins that wait for a second factor.
func (k *Book) EndAll(ctx context.Context, b *state.Batch, person, except string) error {
	for e, err := range k.store.Scan(ctx, []byte(signedPrefix+person+"/"), nil) {
		if err != nil {
			return fmt.Errorf("read sessions: %w", err)
		}
		if string(e.Key) == signedPrefix+person+"/"+except {
			continue
		}
		b.Delete([]byte(string(e.Key)))
		b.Delete([]byte(sessionPrefix + string(e.Value)))
	}
	return k.c.Mint.SpendAll(ctx, b, person, token.Factor)
}

// Rotate gives a session that proved itself again another token; the old one ends with it.
func (k *Book) Rotate(ctx context.Context, b *state.Batch, text string, factors ...string) (string, Session, error) {
	r, err := k.session(ctx, text)
	if err != nil {
		return "", Session{}, err
	}
	k.End(b, r.Session)
	fresh := token.Random()
	r.key = sessionPrefix + k.c.Mint.Digest("session", fresh)
	now := k.now().UTC()
	r.Proved, r.Seen = now, now
	for _, f := range factors {
		if !slices.Contains(r.Factors, f) {
			r.Factors = append(r.Factors, f)
		}
	}
	return fresh, r.Session, k.write(b, r)
}

// seenEvery is how old the last use of a session that is stored may be.
const seenEvery = time.Minute

// keep stores when sessions were last used, once a minute and at the end.
func (k *Book) keep() {
	defer close(k.done)
	tick := time.NewTicker(seenEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			k.writeSeen()
		case <-k.stop:
			k.writeSeen()
			return
		}
	}
}

// writeSeen stores the last uses that changed.
func (k *Book) writeSeen() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	k.c.Change.Lock()
	defer k.c.Change.Unlock() // a session that ends meanwhile must not come back
	k.mu.Lock()
	seen := k.seen
	k.seen = map[string]time.Time{}
	k.mu.Unlock()
	var b state.Batch
	flush := func() {
		if err := k.store.Commit(ctx, &b); err != nil {
			k.log.Warn("sessions: the last use of sessions is not stored", "error", err)
		}
		b.Reset()
	}
	for key, last := range seen {
		r, err := k.sessionAt(ctx, key)
		if err != nil {
			continue // it is over
		}
		if last.After(r.Seen) {
			r.Seen = last
			if err := k.write(&b, r); err != nil {
				continue
			}
		}
		if len(b.Writes) >= 1000 {
			flush()
		}
	}
	if len(b.Writes) > 0 {
		flush()
	}
}

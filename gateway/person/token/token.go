// Package token makes what works once: links in mails, and steps that wait for an answer. Its main type is Mint.
//
// A token is 256 random bits. The store has it as an HMAC, and what it knows, such as an address, encrypted under the token
// itself, which the store does not have: a copy of the store tells neither.
package token

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/state"
)

// ErrOver is that a token does not hold: it is over, was used, is of another kind, or never was.
var ErrOver = errors.New("the link or step is over, was used, or never was")

// Kind is what a token is for. One of a kind is nothing to a flow of another.
type Kind string

// The kinds.
const (
	Confirm    Kind = "confirm"    // an address at sign-up
	Reset      Kind = "reset"      // another password
	Address    Kind = "address"    // a change of address
	Undo       Kind = "undo"       // the undoing of one
	Invitation Kind = "invitation" // to take part in an account
	Factor     Kind = "factor"     // a right password that waits for its second factor
)

// Letter is what a token knows.
type Letter struct {
	Address    string `json:"address,omitempty"`
	Account    string `json:"account,omitempty"`
	Invitation string `json:"invitation,omitempty"`
}

// Token is one that holds.
type Token struct {
	Kind    Kind      `json:"kind"`
	Person  string    `json:"person,omitempty"` // whose it is; empty: nobody's yet
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires"`
	Tries   int       `json:"tries,omitempty"` // that failed, see Failed
	Box     []byte    `json:"box"`             // a Letter, encrypted under the token itself

	Key string `json:"-"` // in the store
}

const (
	prefix      = "person/t/"  // + HMAC of a token
	holdsPrefix = "person/tp/" // + person + / + HMAC of a token of theirs; its kind
)

// Mint makes tokens and reads them. It is safe for concurrent use; who spends one holds a lock from Read to the commit.
type Mint struct {
	Store  state.Store
	Secret []byte // 256 random bits, kept as long as the tokens
	Now    func() time.Time
}

// Hash is an HMAC-SHA256 of texts under the secret, for one use.
func (m *Mint) Hash(use string, parts ...string) [sha256.Size]byte {
	mac := hmac.New(sha256.New, m.Secret)
	text, _ := json.Marshal(append([]string{use}, parts...)) // texts always can be written
	mac.Write(text)
	return [sha256.Size]byte(mac.Sum(nil))
}

// Digest is Hash in hexadecimal, for keys of the store.
func (m *Mint) Digest(use string, parts ...string) string {
	sum := m.Hash(use, parts...)
	return hex.EncodeToString(sum[:])
}

// Random returns 256 random bits as text.
func Random() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// WellFormed reports whether a text can be one that Random made.
func WellFormed(text string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return err == nil && len(b) == 32
}

// box is the cipher under a token's own key. The key seals once, so its nonce can be zero.
func box(text string) (cipher.AEAD, []byte) {
	key := sha256.Sum256([]byte("postern person token\x00" + text))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // a key of 32 octets is one
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has blocks of 16 octets
	}
	return aead, make([]byte, aead.NonceSize())
}

// Make makes a token and puts it into a batch.
func (m *Mint) Make(b *state.Batch, kind Kind, person string, ttl time.Duration, l Letter) (text string, err error) {
	plain, err := json.Marshal(l)
	if err != nil {
		return "", err
	}
	text = Random()
	aead, nonce := box(text)
	sum := m.Digest("token", text)
	now := m.Now().UTC()
	t := Token{Kind: kind, Person: person, Made: now, Expires: now.Add(ttl), Box: aead.Seal(nil, nonce, plain, []byte(kind)), Key: prefix + sum}
	if person != "" {
		b.PutTTL([]byte(holdsPrefix+person+"/"+sum), []byte(kind), ttl)
	}
	return text, m.put(b, &t)
}

// put writes a token into a batch.
func (m *Mint) put(b *state.Batch, t *Token) error {
	return Record(b, t.Key, t, max(time.Second, t.Expires.Sub(m.Now())))
}

// Record writes a value into a batch as JSON; ttl 0: for ever.
func Record(b *state.Batch, key string, value any, ttl time.Duration) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	b.PutTTL([]byte(key), text, ttl)
	return nil
}

// Read returns a token of a kind that holds, and what it knows, or ErrOver.
func (m *Mint) Read(ctx context.Context, kind Kind, text string) (*Token, Letter, error) {
	var l Letter
	if !WellFormed(text) {
		return nil, l, ErrOver
	}
	key := m.Key(text)
	value, err := m.Store.Get(ctx, []byte(key))
	if errors.Is(err, state.ErrNotFound) {
		return nil, l, ErrOver
	}
	if err != nil {
		return nil, l, fmt.Errorf("read token: %w", err)
	}
	t := &Token{Key: key}
	if err := json.Unmarshal(value, t); err != nil || t.Kind != kind || !m.Now().Before(t.Expires) {
		return nil, l, ErrOver
	}
	aead, nonce := box(text)
	plain, err := aead.Open(nil, nonce, t.Box, []byte(kind))
	if err != nil || json.Unmarshal(plain, &l) != nil {
		return nil, l, ErrOver
	}
	return t, l, nil
}

// Key is where the store has a token.
func (m *Mint) Key(text string) string { return prefix + m.Digest("token", text) }

// Failed counts a wrong answer to a token, with a batch.
func (m *Mint) Failed(b *state.Batch, t *Token) error {
	t.Tries++
	return m.put(b, t)
}

// Spend takes a token out of the store with a batch: it works once.
func (t *Token) Spend(b *state.Batch) {
	b.Delete([]byte(t.Key))
	if t.Person != "" {
		b.Delete([]byte(holdsPrefix + t.Person + "/" + t.Key[len(prefix):]))
	}
}

// SpendAll takes a person's tokens of some kinds out of the store with a batch; no kinds: all.
func (m *Mint) SpendAll(ctx context.Context, b *state.Batch, person string, kinds ...Kind) error {
	from := holdsPrefix + person + "/"
	for e, err := range m.Store.Scan(ctx, []byte(from), nil) {
		if err != nil {
			return fmt.Errorf("read tokens: %w", err)
		}
		if len(kinds) == 0 || slices.Contains(kinds, Kind(e.Value)) {
			b.Delete([]byte(prefix + string(e.Key[len(from):])))
			b.Delete([]byte(string(e.Key)))
		}
	}
	return nil
}

// SpendLater takes a token out of the store with a batch, and those of the same kind and person that were made after it.
func (m *Mint) SpendLater(ctx context.Context, b *state.Batch, t *Token) error {
	t.Spend(b)
	from := holdsPrefix + t.Person + "/"
	for e, err := range m.Store.Scan(ctx, []byte(from), nil) {
		if err != nil {
			return fmt.Errorf("read tokens: %w", err)
		}
		if Kind(e.Value) != t.Kind {
			continue
		}
		other := Token{Key: prefix + string(e.Key[len(from):])}
		value, err := m.Store.Get(ctx, []byte(other.Key))
		if errors.Is(err, state.ErrNotFound) {
			continue // over a moment ago
		}
		if err == nil {
			err = json.Unmarshal(value, &other)
		}
		if err != nil {
			return fmt.Errorf("read token: %w", err)
		}
		if other.Made.After(t.Made) {
			other.Spend(b)
		}
	}
	return nil
}

// Ceremonies are steps under way that need an answer within minutes: challenges of passkeys, authenticator apps that are
// not confirmed. They live in memory, because strangers begin them: a flood of them costs no disk, and pushes out the
// oldest. A restart ends them, and whoever was at it begins again. Now must be set.
type Ceremonies struct {
	Now func() time.Time

	mu    sync.Mutex
	list  map[string]ceremony
	order []string // the oldest first; those taken are among them
}

// ceremony is one of them.
type ceremony struct {
	kind, person string
	expires      time.Time
	data         any
}

const (
	maxCeremonies = 10_000
	ceremonyTime  = 10 * time.Minute
)

// Start keeps a ceremony and returns the token that ends it.
func (c *Ceremonies) Start(kind, person string, data any) string {
	text := Random()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.list == nil {
		c.list = map[string]ceremony{}
	}
	for len(c.order) > 0 && (len(c.order) >= maxCeremonies || !c.Now().Before(c.list[c.order[0]].expires)) {
		delete(c.list, c.order[0])
		c.order = c.order[1:]
	}
	c.list[text] = ceremony{kind: kind, person: person, expires: c.Now().Add(ceremonyTime), data: data}
	c.order = append(c.order, text)
	return text
}

// Take ends a ceremony, or gives ErrOver: each has one answer, right or wrong.
func (c *Ceremonies) Take(kind, person, text string) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.list[text]
	delete(c.list, text)
	if !ok || e.kind != kind || e.person != person || !c.Now().Before(e.expires) {
		return nil, ErrOver
	}
	return e.data, nil
}

// ID returns prefix and 80 random bits as 16 lower-case letters and digits.
func ID(prefix string) string {
	var b [10]byte
	rand.Read(b[:]) // never fails
	return prefix + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

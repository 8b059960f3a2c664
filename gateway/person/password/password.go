// Package password keeps people's passwords: it refuses weak ones, and hashes with argon2id (RFC 9106).
// Its main type is Hasher, which bounds how many are hashed at once, because each takes memory that strangers can ask for.
package password

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// Errors of a Hasher.
var (
	ErrBusy    = errors.New("too many passwords are being hashed") // try again in a moment
	ErrDamaged = errors.New("not a password hash")
)

// Cost is what one hash takes.
type Cost struct {
	Memory uint32 // KiB, 8192 to 1048576
	Passes uint32 // 1 to 16
}

// Bounds of a hash that is read: what is beyond them was not made here, and could be made to exhaust memory.
const (
	minMemory = 8
	maxMemory = 1 << 20
	maxPasses = 16
	saltSize  = 16
	sumSize   = 32
)

// Config configures a Hasher. The zero value is usable.
type Config struct {
	Cost       Cost          // of new hashes; default 19456 KiB and 2 passes
	Concurrent int           // hashes at once, default one for each processor
	Waiting    int           // callers that wait for their turn at most, default 64; ErrBusy for others
	Wait       time.Duration // how long they wait at most, default 5s; then ErrBusy
}

// Hasher hashes passwords and verifies them. It is safe for concurrent use.
type Hasher struct {
	cost    Cost
	turns   chan struct{}
	most    int64
	wait    time.Duration
	waiting atomic.Int64
	hashed  atomic.Int64
	decoy   string // a hash of nothing that anybody knows
}

// New returns a Hasher.
func New(c Config) *Hasher {
	h := &Hasher{cost: c.Cost, most: int64(c.Waiting), wait: c.Wait}
	if h.cost.Memory == 0 {
		h.cost.Memory = 19456
	}
	if h.cost.Passes == 0 {
		h.cost.Passes = 2
	}
	if c.Concurrent <= 0 {
		c.Concurrent = runtime.GOMAXPROCS(0)
	}
	if h.most <= 0 {
		h.most = 64
	}
	if h.wait <= 0 {
		h.wait = 5 * time.Second
	}
	h.turns = make(chan struct{}, c.Concurrent)
	var octets [saltSize + sumSize]byte
	rand.Read(octets[:]) // never fails
	h.decoy = encode(h.cost, octets[:saltSize], octets[saltSize:])
	return h
}

// Hash returns the hash of a password as text that says how it was made.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails
	sum, err := h.sum(ctx, password, salt, h.cost)
	if err != nil {
		return "", err
	}
	return encode(h.cost, salt, sum), nil
}

// Verify reports whether hash is of that password, and whether it should be made anew because the cost has changed.
// Without a hash ("") it does the same work and says no, so that nobody can tell by the time that there is none.
func (h *Hasher) Verify(ctx context.Context, hash, password string) (ok, stale bool, err error) {
	none := hash == ""
	if none {
		hash = h.decoy
	}
	cost, salt, want, err := decode(hash)
	if err != nil {
		return false, false, err
	}
	sum, err := h.sum(ctx, password, salt, cost)
	if err != nil {
		return false, false, err
	}
	ok = subtle.ConstantTimeCompare(sum, want) == 1 && !none
	return ok, ok && cost != h.cost, nil
}

// Hashed is how many hashes were computed.
func (h *Hasher) Hashed() int64 { return h.hashed.Load() }

// sum computes one hash when it is its turn.
func (h *Hasher) sum(ctx context.Context, password string, salt []byte, cost Cost) ([]byte, error) {
	if h.waiting.Add(1) > h.most+int64(cap(h.turns)) {
		h.waiting.Add(-1)
		return nil, ErrBusy
	}
	defer h.waiting.Add(-1)
	ctx, cancel := context.WithTimeoutCause(ctx, h.wait, ErrBusy)
	defer cancel()
	select {
	case h.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-h.turns }()
	h.hashed.Add(1)
	return argon2.IDKey([]byte(normal(password)), salt, cost.Passes, cost.Memory, 1, sumSize), nil
}

// normal is the one form of a password: the same letters come in several from different keyboards (RFC 8265 section 4.2).
func normal(password string) string { return norm.NFKC.String(password) }

// encode writes a hash in the usual text form: $argon2id$v=19$m=19456,t=2,p=1$salt$sum.
func encode(c Cost, salt, sum []byte) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s", argon2.Version, c.Memory, c.Passes,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(sum))
}

// decode reads what encode wrote.
func decode(hash string) (c Cost, salt, sum []byte, err error) {
	part := strings.Split(hash, "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" || part[2] != "v="+strconv.Itoa(argon2.Version) {
		return c, nil, nil, ErrDamaged
	}
	number := func(text, name string, most uint32) uint32 {
		digits, ok := strings.CutPrefix(text, name)
		n, e := strconv.ParseUint(digits, 10, 32)
		if !ok || e != nil || n == 0 || uint32(n) > most || digits[0] == '0' {
			err = ErrDamaged
		}
		return uint32(n)
	}
	costs := strings.Split(part[3], ",")
	if len(costs) != 3 || costs[2] != "p=1" {
		return c, nil, nil, ErrDamaged
	}
	c.Memory, c.Passes = number(costs[0], "m=", maxMemory), number(costs[1], "t=", maxPasses)
	strict := base64.RawStdEncoding.Strict()
	salt, err1 := strict.DecodeString(part[4])
	sum, err2 := strict.DecodeString(part[5])
	if err != nil || err1 != nil || err2 != nil || c.Memory < minMemory || len(salt) != saltSize || len(sum) != sumSize {
		return Cost{}, nil, nil, ErrDamaged
	}
	return c, salt, sum, nil
}

// Package vault keeps a data key for every owner, a person or an account, and seals what is theirs under it, so that
// destroying one key makes all of it unreadable wherever copies linger. Its main type is Vault.
//
// Data keys are 32 random octets each, made at an owner's first use and kept wrapped under a master key. They are not in the
// state store: a log-structured store keeps old rows in old files and backups for as long as it likes. They have a file of
// their own, of slots that are overwritten in place and synced, and Shred returns when the slot is. What that can not
// reach is below the file: a copying file system, a snapshot or a worn flash cell may keep the old octets, and whoever has
// those and the master key too has the key. A master key from a secret elsewhere keeps the two apart.
//
// Sealed with XChaCha20-Poly1305, whose random nonces have room for any number of records. Bound to each sealed value are
// its owner, its purpose and its record's name: moved to another record or person it can not be opened.
package vault

import (
	"cmp"
	"context"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// Errors of a vault. All others are wrapped around one of these or around the file system's.
var (
	ErrShredded = errors.New("the owner's key is gone: what was sealed under it can not be read any more")
	ErrDamaged  = errors.New("what was sealed is damaged, or was sealed for another record")
	ErrMaster   = errors.New("the master key is not the one the data keys are kept under")
	ErrOwner    = fmt.Errorf("an owner and a purpose have 1 to %d octets", MaxName)
	ErrNotEmpty = errors.New("the vault holds another vault's keys")
	ErrBackup   = errors.New("not a whole backup of data keys")
	ErrFull     = fmt.Errorf("the vault has %d keys, and that is all it can have", maxSlots)
	ErrClosed   = errors.New("vault is closed")
	ErrGiven    = errors.New("the master key is the configuration's: give the new one as key and this one as previous, and start again")
)

const (
	// KeySize is the size of a master key, in octets.
	KeySize = chacha20poly1305.KeySize
	// Overhead is how many octets longer a sealed value is than what it holds.
	Overhead = 1 + chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead
	// MaxName is the longest an owner or a purpose may be, in octets.
	MaxName = 64
	// DefaultRemember is how long a vault refuses to make a new key for an owner whose key was shredded.
	DefaultRemember = 90 * 24 * time.Hour
	// DefaultCache is how many owners' keys are kept unwrapped.
	DefaultCache = 4096
)

// Config configures a Vault. The zero value is one that lives in memory.
type Config struct {
	Dir      string        // the folder of its files, made with mode 0700 if it is not there; empty: memory only
	Master   []byte        // the master key, KeySize octets; nil: one is made and kept in Dir, readable by its own user alone
	Previous []byte        // the master key before this one: keys still under it are wrapped anew when the vault is opened
	Withheld bool          // Master or Previous is a secret that could not be read here: Open refuses
	Remember time.Duration // see DefaultRemember; owners' ids should never be used again anyway
	Cache    int           // see DefaultCache; each takes about 300 octets
	Log      *slog.Logger  // default: slog.Default. Neither owners nor keys are ever logged

	files folder // stands in for Dir in tests
}

// Vault is the data keys of one folder. It is safe for concurrent use, and one process at a time has it.
type Vault struct {
	log      *slog.Logger
	remember time.Duration
	most     int // keys cached
	lock     *os.File
	files    folder
	given    []byte // the configuration's master key; nil: kept is true
	previous []byte
	kept     bool // the master key is in a file of the vault's own

	queue chan *change
	done  chan struct{} // closed when the writer has ended

	// What the writer alone uses.
	free  []uint32 // slots without content
	slots uint32   // that the file has
	swept time.Time
	fault error // after which nothing is written any more

	mu     sync.RWMutex // guards what follows; changed by the writer alone, but for cache
	file   file
	id     [idSize]byte
	master cipher.AEAD
	epoch  int // counts files: it changes when all keys are written anew
	index  map[tag]entry
	cache  map[tag]*dataKey

	closing sync.Mutex
	closed  bool
	users   sync.WaitGroup // calls under way
}

// tag stands for an owner in the file: a hash, so that all slots are of one size. Owners' ids are random, and nobody who has
// the file can find one by guessing.
type tag [16]byte

// nowhere is the place of an owner's who was shredded and has no slot yet.
const nowhere = ^uint32(0)

// entry is where an owner's key is, or was.
type entry struct {
	slot  uint32
	since uint32 // made or shredded, in Unix hours
	state byte   // live, shredding or shredded
}

// dataKey is an owner's key, unwrapped.
type dataKey struct {
	aead cipher.AEAD
	mac  [sha256.Size]byte
}

// Open opens the vault in c.Dir and makes it the first time. It gives state.ErrLocked when another process has it, and
// ErrMaster when its keys are under another master key: nothing is changed then.
func Open(ctx context.Context, c Config) (*Vault, error) {
	v := &Vault{
		log: c.Log, remember: cmp.Or(c.Remember, DefaultRemember), most: cmp.Or(c.Cache, DefaultCache), files: c.files,
		queue: make(chan *change, 64), done: make(chan struct{}), index: map[tag]entry{}, cache: map[tag]*dataKey{},
	}
	if v.log == nil {
		v.log = slog.Default()
	}
	err := ctx.Err()
	switch {
	case err != nil:
	case c.Withheld:
		err = errors.New("the master key is a secret that can not be read here")
	case c.Master != nil && len(c.Master) != KeySize || c.Previous != nil && len(c.Previous) != KeySize:
		err = fmt.Errorf("a master key has %d octets", KeySize)
	case v.files == nil && c.Dir != "":
		v.files, v.lock, err = openFolder(c.Dir)
	case v.files == nil:
		v.files = &memory{}
	}
	if err == nil {
		err = v.open(ctx, c)
	}
	if err != nil {
		if v.lock != nil {
			v.lock.Close()
		}
		return nil, fmt.Errorf("open vault %s: %w", c.Dir, err)
	}
	go v.writing()
	return v, nil
}

// Close waits for calls under way. Later calls give ErrClosed.
func (v *Vault) Close() error {
	v.closing.Lock()
	if v.closed {
		v.closing.Unlock()
		return ErrClosed
	}
	v.closed = true
	v.closing.Unlock()
	v.users.Wait()
	close(v.queue)
	<-v.done
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.cache)
	err := v.file.Close()
	if v.lock != nil {
		err = errors.Join(err, v.lock.Close())
	}
	return err
}

// enter begins a call; leave ends it.
func (v *Vault) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v.closing.Lock()
	defer v.closing.Unlock()
	if v.closed {
		return ErrClosed
	}
	v.users.Add(1)
	return nil
}

func (v *Vault) leave() { v.users.Done() }

// Drawer is a vault's part for one purpose. What is sealed in one can not be opened in another.
type Drawer struct {
	vault   *Vault
	purpose string
}

// Drawer returns the part for a purpose: a word of the program's own, 1 to MaxName octets.
func (v *Vault) Drawer(purpose string) Drawer { return Drawer{vault: v, purpose: purpose} }

// Vault is the vault that the drawer is part of.
func (d Drawer) Vault() *Vault { return d.vault }

// version begins every sealed value.
const version = 1

// Seal encrypts plain for the record name of an owner, whose key it makes at the first use, durably. It gives ErrShredded
// for an owner whose key was shredded. It makes one allocation when the key is in the cache: the sealed value.
func (d Drawer) Seal(ctx context.Context, owner, name string, plain []byte) ([]byte, error) {
	key, err := d.key(ctx, owner, true)
	if err != nil {
		return nil, err
	}
	n := Overhead + len(plain)
	b := make([]byte, n+d.boundSize(owner, name))
	bound := d.bind(b[n:n], owner, name)
	b[0] = version
	nonce := b[1 : 1+chacha20poly1305.NonceSizeX]
	rand.Read(nonce) // never fails
	sealed := key.aead.Seal(b[:1+chacha20poly1305.NonceSizeX], nonce, plain, bound)
	return sealed[:n:n], nil
}

// Open decrypts what Seal made for the same owner and name. It gives ErrShredded when the key is not there any more and
// ErrDamaged for whatever is not whole, or belongs elsewhere.
func (d Drawer) Open(ctx context.Context, owner, name string, sealed []byte) ([]byte, error) {
	key, err := d.key(ctx, owner, false)
	if err != nil {
		return nil, err
	}
	if len(sealed) < Overhead || sealed[0] != version {
		return nil, ErrDamaged
	}
	n := len(sealed) - Overhead
	b := make([]byte, n+d.boundSize(owner, name))
	bound := d.bind(b[n:n], owner, name)
	nonce, body := sealed[1:1+chacha20poly1305.NonceSizeX], sealed[1+chacha20poly1305.NonceSizeX:]
	plain, err := key.aead.Open(b[:0:n], nonce, body, bound)
	if err != nil {
		return nil, ErrDamaged
	}
	return plain, nil
}

// MAC returns an HMAC-SHA256 of text under the owner's key: a name for it that nobody can compute, nor compare with a
// guess, once the key is shredded. It makes the key at the first use, as Seal does.
func (d Drawer) MAC(ctx context.Context, owner, text string) (sum [sha256.Size]byte, err error) {
	key, err := d.key(ctx, owner, true)
	if err != nil {
		return sum, err
	}
	h := hmac.New(sha256.New, key.mac[:])
	h.Write(d.bind(make([]byte, 0, d.boundSize(owner, text)), owner, text))
	h.Sum(sum[:0])
	return sum, nil
}

// Shred is Vault.Shred: it destroys the owner's key for all purposes.
func (d Drawer) Shred(ctx context.Context, owner string) error { return d.vault.Shred(ctx, owner) }

// Shredded is Vault.Shredded.
func (d Drawer) Shredded(ctx context.Context, owner string) (bool, error) {
	return d.vault.Shredded(ctx, owner)
}

// bind writes what a sealed value is bound to: purpose, owner and name, the first two behind their lengths.
func (d Drawer) bind(b []byte, owner, name string) []byte {
	b = append(b, byte(len(d.purpose)), byte(len(owner)))
	return append(append(append(b, d.purpose...), owner...), name...)
}

func (d Drawer) boundSize(owner, name string) int { return 2 + len(d.purpose) + len(owner) + len(name) }

// key returns an owner's key, and makes it where first says so.
func (d Drawer) key(ctx context.Context, owner string, first bool) (*dataKey, error) {
	if d.purpose == "" || len(d.purpose) > MaxName || owner == "" || len(owner) > MaxName {
		return nil, ErrOwner
	}
	v := d.vault
	if err := v.enter(ctx); err != nil {
		return nil, err
	}
	defer v.leave()
	for {
		v.mu.RLock()
		t := v.tagOf(owner)
		key, e := v.cache[t], v.index[t]
		v.mu.RUnlock()
		switch {
		case key != nil:
			return key, nil
		case e.state == live:
			key, again, err := v.load(t, e)
			if again {
				continue
			}
			return key, err
		case e.state != 0 || !first:
			return nil, ErrShredded
		}
		if err := v.submit(ctx, &change{kind: making, owner: owner}); err != nil {
			return nil, err
		}
	}
}

// tagOf is an owner's tag; v.mu is held.
func (v *Vault) tagOf(owner string) tag {
	var b [idSize + MaxName]byte
	sum := sha256.Sum256(b[:copy(b[:], v.id[:])+copy(b[idSize:], owner)])
	return tag(sum[:len(tag{})])
}

// load unwraps a key and puts it into the cache. again says that the entry has changed meanwhile.
func (v *Vault) load(t tag, e entry) (key *dataKey, again bool, err error) {
	v.mu.RLock()
	var s slot
	if v.index[t] != e {
		v.mu.RUnlock()
		return nil, true, nil
	}
	epoch := v.epoch
	_, err = v.file.ReadAt(s[:], place(e.slot))
	raw := s.unwrap(v.id, v.master, t)
	v.mu.RUnlock()
	if err != nil {
		return nil, false, fmt.Errorf("read a data key: %w", err)
	}
	defer clear(raw)
	if raw != nil {
		if key, err = unfold(raw); err != nil {
			return nil, false, err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.index[t] != e || v.epoch != epoch { // it may be on its way out
		return nil, true, nil
	}
	if raw == nil {
		return nil, false, fmt.Errorf("%w: the owner's key itself", ErrDamaged)
	}
	v.remembered(t, key)
	return key, false, nil
}

// remembered puts a key into the cache, in the place of another when it is full; v.mu is held.
func (v *Vault) remembered(t tag, key *dataKey) {
	if len(v.cache) >= v.most {
		for other := range v.cache {
			delete(v.cache, other)
			break
		}
	}
	v.cache[t] = key
}

// unfold makes the keys that are used of the one that is kept.
func unfold(raw []byte) (*dataKey, error) {
	seal, err := hkdf.Key(sha256.New, raw, nil, "postern vault seal 1", KeySize)
	if err != nil {
		return nil, err
	}
	defer clear(seal)
	mac, err := hkdf.Key(sha256.New, raw, nil, "postern vault mac 1", sha256.Size)
	if err != nil {
		return nil, err
	}
	defer clear(mac)
	key := &dataKey{mac: [sha256.Size]byte(mac)}
	key.aead, err = chacha20poly1305.NewX(seal)
	return key, err
}

// Shred destroys an owner's key: when it returns nil, the key is nowhere in the vault's files, and nothing that was sealed
// under it can be opened. From its beginning on the owner is refused. An owner who never had a key is refused from then on,
// too. Shredding again changes nothing. After an error the owner is refused all the same, and Shred is to be called
// again; a vault that is opened after a crash goes on with what it finds begun.
func (v *Vault) Shred(ctx context.Context, owner string) error {
	if owner == "" || len(owner) > MaxName {
		return ErrOwner
	}
	if err := v.enter(ctx); err != nil {
		return err
	}
	defer v.leave()
	return v.submit(ctx, &change{kind: shredding, owner: owner})
}

// Shredded reports whether an owner's key was shredded, for as long as the vault remembers.
func (v *Vault) Shredded(ctx context.Context, owner string) (bool, error) {
	if owner == "" || len(owner) > MaxName {
		return false, ErrOwner
	}
	if err := v.enter(ctx); err != nil {
		return false, err
	}
	defer v.leave()
	v.mu.RLock()
	defer v.mu.RUnlock()
	e := v.index[v.tagOf(owner)]
	return e.state == shredding || e.state == shredded, nil
}

// Owners is how many owners have a key.
func (v *Vault) Owners() (n int) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, e := range v.index {
		if e.state == live {
			n++
		}
	}
	return n
}

// hours is a time as an entry has it.
func hours(t time.Time) uint32 { return uint32(t.Unix() / 3600) }

// seconds is a time as a slot has it.
func seconds(b []byte) time.Time { return time.Unix(int64(binary.BigEndian.Uint64(b)), 0) }

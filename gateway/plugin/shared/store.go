// Package shared keeps what the instances of a plugin share on one node, in memory and bounded: the plugin's own state, and
// answers it caches for the account that calls. Its main type is Store.
package shared

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/postern-gateway/postern/sdk/abi"
)

// Errors of both kinds of store.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("the stored value differs")
	ErrInvalid  = errors.New("malformed or too large")
	ErrLimit    = errors.New("too many calls, or no room left")
)

const (
	shards = 16
	// entryCost is what an entry is charged besides its key and value: map slot, slice and struct.
	entryCost = 128
)

// Store is the state of one plugin on this node: bounded, in memory, gone when the process ends. It outlives reloads and
// is shared by all instances. An entry whose time is over is not there. When it is full, writes of new octets give
// ErrLimit: nothing is pushed out, because what would be lost is somebody's rate limit.
type Store struct {
	seed  maphash.Seed
	clock func() time.Time
	start time.Time
	shard [shards]shard
}

type shard struct {
	mu      sync.Mutex
	entries map[string]*entry
	size    int64
	limit   int64
	swept   int64 // when the whole shard was last looked through
}

type entry struct {
	value   []byte
	expires int64 // nanoseconds since Store.start; 0: never
}

// New returns an empty store for limit octets, keys, values and what an entry costs besides counted. clock is the wall
// clock, time.Now but in tests.
func New(limit int64, clock func() time.Time) *Store {
	s := &Store{seed: maphash.MakeSeed(), clock: clock, start: clock()}
	for i := range s.shard {
		s.shard[i] = shard{entries: make(map[string]*entry), limit: limit / shards}
	}
	return s
}

// now is monotonic as time.Now is, so that a clock set back prolongs nothing.
func (s *Store) now() int64 { return int64(s.clock().Sub(s.start)) + 1 }

func (s *Store) of(key []byte) *shard { return &s.shard[maphash.Bytes(s.seed, key)%shards] }

// live returns the entry of key, or nil; one whose time is over is removed.
func (d *shard) live(key []byte, now int64) *entry {
	e := d.entries[string(key)]
	if e != nil && e.expires != 0 && e.expires <= now {
		d.remove(string(key), e)
		return nil
	}
	return e
}

func (d *shard) remove(key string, e *entry) {
	d.size -= int64(len(key)+cap(e.value)) + entryCost
	delete(d.entries, key)
}

// put writes value, making room by dropping what has expired.
func (d *shard) put(key, value []byte, ttl time.Duration, now int64, e *entry) error {
	expires := int64(0)
	if ttl > 0 {
		expires = now + int64(ttl)
		if expires < 0 {
			expires = 0 // further away than the clock reaches
		}
	}
	if e != nil && len(value) <= cap(e.value) && cap(e.value) <= 2*len(value)+64 {
		e.value, e.expires = append(e.value[:0], value...), expires
		return nil
	}
	more := int64(len(value))
	if e != nil {
		more -= int64(cap(e.value))
	} else {
		more += int64(len(key)) + entryCost
	}
	d.sweep(now, 4)
	if d.size+more > d.limit && now-d.swept > int64(time.Second) {
		d.swept = now
		d.sweep(now, len(d.entries))
	}
	if d.size+more > d.limit {
		return ErrLimit
	}
	kept := make([]byte, len(value))
	copy(kept, value)
	d.size += more
	if e != nil {
		e.value, e.expires = kept, expires
		return nil
	}
	d.entries[string(key)] = &entry{value: kept, expires: expires}
	return nil
}

// sweep looks at n entries in the map's random order and drops those whose time is over. A few at each write keep a shard
// of short-lived entries near its live size without a goroutine.
func (d *shard) sweep(now int64, n int) {
	for k, e := range d.entries {
		if n--; n < 0 {
			return
		}
		if e.expires != 0 && e.expires <= now {
			d.remove(k, e)
		}
	}
}

func checkKey(key []byte, ttl time.Duration) error {
	if len(key) == 0 || len(key) > abi.MaxKey || ttl < 0 {
		return ErrInvalid
	}
	return nil
}

// Get appends the value of key to dst, or gives ErrNotFound.
func (s *Store) Get(dst, key []byte) ([]byte, error) {
	if err := checkKey(key, 0); err != nil {
		return dst, err
	}
	d := s.of(key)
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.live(key, s.now())
	if e == nil {
		return dst, ErrNotFound
	}
	return append(dst, e.value...), nil
}

// Put sets key for ttl; 0 is for ever.
func (s *Store) Put(key, value []byte, ttl time.Duration) error {
	if err := checkKey(key, ttl); err != nil || len(value) > abi.MaxValue {
		return ErrInvalid
	}
	d := s.of(key)
	d.mu.Lock()
	defer d.mu.Unlock()
	now := s.now()
	return d.put(key, value, ttl, now, d.live(key, now))
}

// CAS sets key only when its value is old, absent meaning that there must be none; else ErrConflict.
func (s *Store) CAS(key, old, value []byte, absent bool, ttl time.Duration) error {
	if err := checkKey(key, ttl); err != nil || len(value) > abi.MaxValue {
		return ErrInvalid
	}
	d := s.of(key)
	d.mu.Lock()
	defer d.mu.Unlock()
	now := s.now()
	e := d.live(key, now)
	if absent != (e == nil) || e != nil && !bytes.Equal(e.value, old) {
		return ErrConflict
	}
	return d.put(key, value, ttl, now, e)
}

// Delete removes key; removing what is not there is no error.
func (s *Store) Delete(key []byte) error {
	if err := checkKey(key, 0); err != nil {
		return err
	}
	d := s.of(key)
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.entries[string(key)]; e != nil {
		d.remove(string(key), e)
	}
	return nil
}

// Count adds delta to a counter (an entry of 8 octets, little-endian) and returns its new value. ttl counts from the first
// use; 0 is for ever. ErrInvalid when the entry is no counter or would overflow.
func (s *Store) Count(key []byte, delta int64, ttl time.Duration) (int64, error) {
	if err := checkKey(key, ttl); err != nil {
		return 0, err
	}
	d := s.of(key)
	d.mu.Lock()
	defer d.mu.Unlock()
	now := s.now()
	e := d.live(key, now)
	if e == nil {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], uint64(delta))
		return delta, d.put(key, b[:], ttl, now, nil)
	}
	if len(e.value) != 8 {
		return 0, ErrInvalid
	}
	old := int64(binary.LittleEndian.Uint64(e.value))
	sum := old + delta
	if (sum > old) != (delta > 0) && delta != 0 {
		return 0, ErrInvalid
	}
	binary.LittleEndian.PutUint64(e.value, uint64(sum))
	return sum, nil
}

// Size is how many octets the state holds, as it is counted against its limit, and how many entries.
func (s *Store) Size() (octets int64, entries int) {
	for i := range s.shard {
		d := &s.shard[i]
		d.mu.Lock()
		octets += d.size
		entries += len(d.entries)
		d.mu.Unlock()
	}
	return octets, entries
}

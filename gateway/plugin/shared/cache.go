package shared

import (
	"container/list"
	"sync"
	"time"

	"github.com/postern-gateway/postern/sdk/abi"
)

// Cache keeps answers a plugin worked out for an account, each account's in a namespace of its own that the host chooses,
// so that no plugin can read one account's for another. Nothing in it is needed: when it is full, the entry that was used
// longest ago goes, of the account that holds the most, so that one account can not push out what others have.
type Cache struct {
	limit int64
	clock func() time.Time
	start time.Time

	mu       sync.Mutex
	size     int64
	accounts map[string]*namespace
	largest  ranking
}

// namespace is one account's entries.
type namespace struct {
	account string
	entries map[string]*list.Element // of *cached
	used    *list.List               // the one used last in front
	size    int64
	rank    int // its place in Cache.largest
}

type cached struct {
	key     string
	value   []byte
	expires int64 // nanoseconds since Cache.start
}

func (e *cached) cost() int64 { return int64(len(e.key)+cap(e.value)) + entryCost }

// NewCache returns an empty cache for limit octets, keys, values and what an entry costs besides counted.
func NewCache(limit int64, clock func() time.Time) *Cache {
	return &Cache{limit: limit, clock: clock, start: clock(), accounts: map[string]*namespace{}}
}

func (c *Cache) now() int64 { return int64(c.clock().Sub(c.start)) + 1 }

// Get appends the value of an account's key to dst, or gives ErrNotFound.
func (c *Cache) Get(dst []byte, account string, key []byte) ([]byte, error) {
	if err := checkKey(key, 0); err != nil || account == "" {
		return dst, ErrInvalid
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.accounts[account]
	if n == nil {
		return dst, ErrNotFound
	}
	at := n.entries[string(key)]
	if at == nil {
		return dst, ErrNotFound
	}
	e := at.Value.(*cached)
	if e.expires <= c.now() {
		c.remove(n, at)
		return dst, ErrNotFound
	}
	n.used.MoveToFront(at)
	return append(dst, e.value...), nil
}

// Put keeps an account's value for ttl, which must be more than 0. ErrLimit when it is larger than the whole cache.
func (c *Cache) Put(account string, key, value []byte, ttl time.Duration) error {
	if err := checkKey(key, ttl); err != nil || account == "" || ttl == 0 || len(value) > abi.MaxValue {
		return ErrInvalid
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := &cached{key: string(key), value: append(make([]byte, 0, len(value)), value...)}
	if e.expires = c.now() + int64(ttl); e.expires < 0 {
		return ErrInvalid
	}
	if e.cost() > c.limit {
		return ErrLimit
	}
	if n := c.accounts[account]; n != nil {
		if old := n.entries[e.key]; old != nil {
			c.remove(n, old)
		}
	}
	for c.size+e.cost() > c.limit {
		full := c.largest[0]
		c.remove(full, full.used.Back())
	}
	n := c.accounts[account] // looked up again: making room may have emptied it
	if n == nil {
		n = &namespace{account: account, entries: map[string]*list.Element{}, used: list.New()}
		c.accounts[account] = n
		c.largest.add(n)
	}
	n.entries[e.key] = n.used.PushFront(e)
	n.size += e.cost()
	c.size += e.cost()
	c.largest.fix(n)
	return nil
}

func (c *Cache) remove(n *namespace, at *list.Element) {
	e := n.used.Remove(at).(*cached)
	delete(n.entries, e.key)
	n.size -= e.cost()
	c.size -= e.cost()
	if len(n.entries) == 0 {
		c.largest.drop(n)
		delete(c.accounts, n.account)
		return
	}
	c.largest.fix(n)
}

// Forget drops all that is kept for an account.
func (c *Cache) Forget(account string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.accounts[account]
	if n == nil {
		return
	}
	c.size -= n.size
	c.largest.drop(n)
	delete(c.accounts, account)
}

// Size is how many octets the cache holds, as they are counted against its limit.
func (c *Cache) Size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size
}

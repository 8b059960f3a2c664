package fetch

import (
	"container/list"
	"time"
)

// entryCost is what an entry takes besides its answer, in octets: key, map and list.
const entryCost = 256

// cache keeps answers by request; the least used makes room. The zero value with a limit is ready. Not safe for concurrent use.
type cache struct {
	limit   int64 // octets; 0 keeps nothing
	size    int64
	entries map[key]*list.Element // of *entry
	used    list.List             // the one used last in front
}

type entry struct {
	key    key
	answer Answer
	born   time.Time
	ends   time.Time // nobody has asked for it to be kept longer
}

func (e *entry) cost() int64 { return e.answer.size() + entryCost }

// get returns the answer to a request when it is not older than age.
func (c *cache) get(k key, age time.Duration, now time.Time) (Answer, bool) {
	at := c.entries[k]
	if at == nil {
		return Answer{}, false
	}
	e := at.Value.(*entry)
	if !now.Before(e.ends) {
		c.remove(at)
		return Answer{}, false
	}
	if now.Sub(e.born) >= age {
		return Answer{}, false
	}
	c.used.MoveToFront(at)
	return e.answer, true
}

// put keeps an answer that came at born for age.
func (c *cache) put(k key, a Answer, age time.Duration, born time.Time) {
	if at := c.entries[k]; at != nil {
		c.remove(at)
	}
	e := &entry{key: k, answer: a, born: born, ends: born.Add(age)}
	if e.cost() > c.limit {
		return
	}
	for c.size+e.cost() > c.limit {
		c.remove(c.used.Back())
	}
	if c.entries == nil {
		c.entries = map[key]*list.Element{}
	}
	c.entries[k] = c.used.PushFront(e)
	c.size += e.cost()
}

func (c *cache) remove(at *list.Element) {
	e := at.Value.(*entry)
	c.used.Remove(at)
	delete(c.entries, e.key)
	c.size -= e.cost()
}

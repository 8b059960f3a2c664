package vault

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"
)

// change is something to be done to the file: a key to be made or shredded, or all of it to be written anew.
type change struct {
	kind    byte // making, shredding, or rewriting
	owner   string
	rewrite func() error
	done    chan error

	// What the writer notes.
	tag   tag
	slot  uint32
	key   *dataKey // that was made
	old   bool     // a live slot is shredded
	since uint32
}

// rewriting is the kind of a change of the whole file.
const rewriting = 1

// group is how many changes are written together at most: two syncs of the disk are their cost, however many they are.
const group = 256

// submit has the writer make a change and waits until it is durable. When ctx ends first, it may be made or not.
func (v *Vault) submit(ctx context.Context, c *change) error {
	c.done = make(chan error, 1)
	select {
	case v.queue <- c:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// writing makes changes, those that wait together.
func (v *Vault) writing() {
	defer close(v.done)
	next, more := <-v.queue
	for more {
		if next.kind == rewriting {
			err := v.fault
			if err == nil {
				err = next.rewrite()
			}
			next.done <- err
			next, more = <-v.queue
			continue
		}
		var together []*change
		tags := map[tag]bool{}
		for next != nil {
			if next.kind == rewriting {
				break
			}
			next.tag = v.tagOf(next.owner) // only this goroutine changes the id
			if tags[next.tag] || len(together) == group {
				break
			}
			tags[next.tag] = true
			together = append(together, next)
			next = nil
			select {
			case next = <-v.queue: // nil when it was closed
			default:
			}
		}
		v.commit(together)
		if next == nil {
			next, more = <-v.queue
		}
	}
}

// commit makes changes of different owners; slot.go says in which order.
func (v *Vault) commit(changes []*change) {
	now := time.Now()
	var under []*change
	for _, c := range changes {
		if on, err := v.begin(c, now); on {
			under = append(under, c)
		} else {
			c.done <- err
		}
	}
	if len(under) == 0 {
		return
	}
	var err error
	if v.fault == nil {
		v.fault = v.write(under, now)
	}
	if v.fault != nil {
		v.log.Error("vault: writing failed, and nothing more is written until it is opened again", "error", v.fault)
		err = fmt.Errorf("write data keys: %w", v.fault)
	}
	v.mu.Lock()
	for _, c := range under {
		switch {
		case err != nil:
		case c.kind == making:
			v.index[c.tag] = entry{slot: c.slot, since: c.since, state: live}
			v.remembered(c.tag, c.key)
		default:
			v.index[c.tag] = entry{slot: c.slot, since: c.since, state: shredded}
		}
	}
	v.mu.Unlock()
	for _, c := range under {
		c.done <- err
	}
}

// begin looks what there is to do for a change, writes the first of it, and notes a fault if that fails. on is false when
// there is nothing left to do.
func (v *Vault) begin(c *change, now time.Time) (on bool, err error) {
	e := v.index[c.tag]
	c.since = hours(now)
	switch {
	case c.kind == making && e.state == live, c.kind == shredding && e.state == shredded:
		return false, nil
	case c.kind == making && e.state != 0:
		return false, ErrShredded
	case c.kind == making && v.fault != nil:
		return false, fmt.Errorf("make a data key: writing failed earlier: %w", v.fault)
	}
	if c.kind == shredding {
		// From here on nobody gets the key, whatever becomes of the file.
		c.slot, c.old = e.slot, e.state != 0 && e.slot != nowhere
		if !c.old {
			c.slot = nowhere
		}
		v.mu.Lock()
		v.index[c.tag] = entry{slot: c.slot, since: c.since, state: shredding}
		delete(v.cache, c.tag)
		v.mu.Unlock()
		if v.fault != nil {
			return false, fmt.Errorf("shred a data key: writing failed earlier: %w", v.fault)
		}
		if c.old {
			v.put([]byte{shredding}, place(c.slot))
			return true, nil
		}
	}
	if c.slot, err = v.slot(now); err != nil {
		return false, err
	}
	image := tombstone(v.id, making, c.tag, now)
	if c.kind == making {
		raw := make([]byte, KeySize)
		defer clear(raw)
		rand.Read(raw) // never fails
		if c.key, err = unfold(raw); err != nil {
			return false, err
		}
		image = wrap(v.id, v.master, c.tag, raw, now)
	}
	v.put(image[:], place(c.slot))
	return true, nil
}

// put writes and notes a fault.
func (v *Vault) put(b []byte, at int64) {
	if _, err := v.file.WriteAt(b, at); err != nil && v.fault == nil {
		v.fault = err
	}
}

// write does what is left after begin.
func (v *Vault) write(under []*change, now time.Time) error {
	if err := v.file.Sync(); err != nil {
		return err
	}
	for _, c := range under {
		switch {
		case c.kind == making:
			v.put([]byte{live}, place(c.slot))
		case c.old:
			v.put(tombstone(v.id, shredding, c.tag, now)[1:], place(c.slot)+1)
		default:
			v.put([]byte{shredded}, place(c.slot))
		}
	}
	if v.fault != nil {
		return v.fault
	}
	if err := v.file.Sync(); err != nil {
		return err
	}
	// The key is gone. That the slot says so can wait for the next sync: what is shredding is finished by whoever opens it.
	for _, c := range under {
		if c.old {
			v.put([]byte{shredded}, place(c.slot))
		}
	}
	return v.fault
}

// slot returns a slot without content, and makes the file longer when there is none.
func (v *Vault) slot(now time.Time) (uint32, error) {
	if len(v.free) == 0 && now.Sub(v.swept) > time.Hour {
		if err := v.forget(now); err != nil {
			return 0, err
		}
	}
	if len(v.free) == 0 {
		if v.slots+growth > maxSlots {
			return 0, ErrFull
		}
		// What a full disk refuses leaves the file as it was, or longer by zeros.
		if _, err := v.file.WriteAt(make([]byte, growth*slotSize), place(v.slots)); err != nil {
			return 0, fmt.Errorf("make room for a data key: %w", err)
		}
		for i := range uint32(growth) {
			v.free = append(v.free, v.slots+growth-1-i)
		}
		v.slots += growth
	}
	last := len(v.free) - 1
	n := v.free[last]
	v.free = v.free[:last]
	return n, nil
}

// forget empties the slots of those who were shredded long ago.
func (v *Vault) forget(now time.Time) error {
	v.swept = now
	before := hours(now.Add(-v.remember))
	var over []tag
	var freed []uint32
	for t, e := range v.index {
		if e.state == shredded && e.since < before {
			if _, err := v.file.WriteAt(make([]byte, slotSize), place(e.slot)); err != nil {
				return fmt.Errorf("empty a slot: %w", err)
			}
			over = append(over, t)
			freed = append(freed, e.slot)
		}
	}
	if len(over) == 0 {
		return nil
	}
	if err := v.file.Sync(); err != nil {
		v.fault = err
		return err
	}
	v.mu.Lock()
	for _, t := range over {
		delete(v.index, t)
	}
	v.mu.Unlock()
	v.free = append(v.free, freed...)
	return nil
}

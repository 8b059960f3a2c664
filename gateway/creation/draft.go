package creation

import "time"

const (
	// chunkSize is how many octets of a creation wait before some are sealed and stored.
	chunkSize = 256 << 10
	// maxParts bounds the parts of one creation.
	maxParts = 128
	// roomStep is how memory is taken, in octets, so that not every few octets are counted by themselves.
	roomStep = 16 << 10
	// overhead is what a creation counts beside its octets.
	overhead = 1 << 10
)

// Draft is a creation that is being made. It belongs to one goroutine, which ends it by Keep or Drop.
type Draft struct {
	shelf   *Shelf
	account string
	of      digest
	at      place
	terms   Terms
	info    Info
	buffers [][]byte // of parts, what was not handed over
	numbers []uint32 // of their next chunks
	waiting int64    // octets in buffers
	room    int64    // memory taken for them
	begun   bool     // chunks were handed over
	over    bool

	lost bool // a chunk could not be stored; the owner's alone
}

// Begin begins a creation of an account. Of info its Route, Model, Exchange, Type and Encoding are taken.
func (s *Shelf) Begin(account string, terms Terms, info Info) *Draft {
	now := s.now().UTC().Truncate(time.Millisecond)
	d := &Draft{shelf: s, account: account, of: digestOf(account), at: newPlace(now), terms: terms, info: info}
	d.info.ID, d.info.Time, d.info.Parts = d.at.id(), now, nil
	d.info.Expires = now.Add(terms.Keep).Truncate(time.Second)
	return d
}

// ID is what the creation is called, if it comes to be kept.
func (d *Draft) ID() string { return d.info.ID }

// Write adds octets to a part, 0 to 127. It copies p and never waits. What can not be kept is dropped as a whole.
func (d *Draft) Write(part int, p []byte) {
	if d.over || len(p) == 0 {
		return
	}
	if part < 0 || part >= maxParts {
		d.giveUp("it has too many parts")
		return
	}
	if d.info.Size()+int64(len(p)) > d.terms.Item {
		d.giveUp("it is longer than its route keeps")
		return
	}
	for len(d.buffers) <= part {
		d.buffers, d.numbers, d.info.Parts = append(d.buffers, nil), append(d.numbers, 0), append(d.info.Parts, 0)
	}
	d.info.Parts[part] += int64(len(p))
	for len(p) > 0 && !d.over {
		n := min(len(p), int(chunkSize-d.waiting))
		if need := d.waiting + int64(n) - d.room; need > 0 {
			need = max(need, roomStep)
			if !d.shelf.take(d.account, need) {
				d.giveUp("there is no memory left for it")
				return
			}
			d.room += need
		}
		d.buffers[part] = append(d.buffers[part], p[:n]...)
		p = p[n:]
		if d.waiting += int64(n); d.waiting == chunkSize {
			d.spill()
		}
	}
}

// spill hands over the longest of the parts.
func (d *Draft) spill() {
	longest := 0
	for i, b := range d.buffers {
		if len(b) > len(d.buffers[longest]) {
			longest = i
		}
	}
	c := d.chunk(longest)
	n := int64(len(c.plain))
	d.waiting -= n
	d.room -= n
	d.begun = true
	if !d.shelf.hand(op{kind: storing, draft: d, chunks: []chunk{c}, room: n}) {
		d.Drop()
	}
}

func (d *Draft) chunk(part int) chunk {
	c := chunk{part: part, number: d.numbers[part], plain: d.buffers[part]}
	d.buffers[part] = nil
	d.numbers[part]++
	return c
}

// Keep hands over what is left. A creation without octets is none.
func (d *Draft) Keep() {
	if d.over {
		return
	}
	if d.info.Size() == 0 {
		d.Drop()
		return
	}
	d.over = true
	var rest []chunk
	for part := range d.buffers {
		if len(d.buffers[part]) > 0 {
			rest = append(rest, d.chunk(part))
		}
	}
	d.shelf.hand(op{kind: keeping, draft: d, chunks: rest, room: d.room})
}

// Drop ends a creation that is not to be kept. After Keep it does nothing; nor does it on a nil Draft.
func (d *Draft) Drop() {
	if d == nil || d.over {
		return
	}
	d.over = true
	d.buffers = nil
	if d.begun {
		d.shelf.hand(op{kind: dropping, draft: d, room: d.room})
	} else {
		d.shelf.take(d.account, -d.room)
	}
}

func (d *Draft) giveUp(why string) {
	d.shelf.log.Warn("a creation is not kept", "exchange", d.info.Exchange, "route", d.info.Route, "reason", why)
	d.Drop()
}

// take takes memory, or gives it back where n is negative. False means that there is none.
func (s *Shelf) take(account string, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > 0 && (s.held+n > s.memory || s.shares[account]+n > s.memory/4) {
		return false
	}
	s.held += n
	if s.shares[account] += n; s.shares[account] == 0 {
		delete(s.shares, account)
	}
	return true
}

// hand hands something to the owner. Of a shelf that is closed it gives the memory back and returns false.
func (s *Shelf) hand(o op) bool {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.take(o.draft.account, -o.room)
		return false
	}
	s.queue = append(s.queue, o)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return true
}

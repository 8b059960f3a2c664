package creation

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/postern-gateway/postern/gateway/state"
)

const (
	// sweepEvery is how often what is too old is looked for.
	sweepEvery = 10 * time.Minute
	// commitTime bounds one commit, with what is sealed for it.
	commitTime = 30 * time.Second
	// batchSize is from how many octets on a batch is committed: what one op more puts into it still fits.
	batchSize = 1 << 20
	// maxRemoved is how many chunks are removed in one commit.
	maxRemoved = 1000
	// maxUsed is of how many accounts it is kept in memory how much they have.
	maxUsed = 100_000
)

// What the owner is asked to do.
const (
	storing  = iota // chunks of a draft
	keeping         // the last ones, and it is a creation
	dropping        // what was stored of a draft is removed
	asking          // do
)

// op is something that the owner is asked to do. What was asked before is done before.
type op struct {
	kind   int
	draft  *Draft
	chunks []chunk
	room   int64 // memory that is given back afterwards
	do     func(context.Context) error
	done   chan error
}

// chunk is a stretch of a part.
type chunk struct {
	part   int
	number uint32
	plain  []byte
}

// group is one commit, and whose it is.
type group struct {
	state.Batch
	size   int
	drafts []*Draft
	used   map[digest]int64 // what accounts have when it is committed
}

func (g *group) put(key, value []byte) {
	g.Put(key, value)
	g.size += len(key) + len(value)
}

// run is the owner: the only goroutine that writes.
func (s *Shelf) run() {
	defer close(s.done)
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-s.wake:
			s.work()
		case <-sweep.C:
			s.work()
			ctx, cancel := context.WithTimeout(context.Background(), 10*commitTime)
			switch n, err := s.removeDue(ctx); {
			case err != nil:
				s.log.Error("creations whose time is over can not be removed now", "error", err)
			case n > 0:
				s.log.Info("removed creations whose time was over", "records", n)
			}
			cancel()
		case <-s.stop:
			s.work()
			return
		}
	}
}

// work does what was handed over, many in one commit.
func (s *Shelf) work() {
	s.mu.Lock()
	ops := s.queue
	s.queue = nil
	s.mu.Unlock()
	ctx := context.Background() // each commit has its own bound
	var g *group
	for i := range ops {
		o := &ops[i]
		if o.kind == asking {
			s.commit(ctx, g)
			g = nil
			bounded, cancel := context.WithTimeout(ctx, 10*commitTime)
			o.done <- o.do(bounded)
			cancel()
			continue
		}
		if g == nil {
			g = &group{used: map[digest]int64{}}
		}
		if err := s.add(ctx, g, o); err != nil {
			o.draft.lost = true
			s.log.Error("a creation is not kept", "exchange", o.draft.info.Exchange, "error", err)
		}
		if o.kind != storing && o.draft.lost && o.draft.begun {
			s.commit(ctx, g)
			g = nil
			s.discard(ctx, o.draft)
		}
		s.take(o.draft.account, -o.room)
		if g != nil && (g.size >= batchSize || len(g.Writes) >= maxRemoved) {
			s.commit(ctx, g)
			g = nil
		}
	}
	s.commit(ctx, g)
}

// add puts an op into a commit. An error means that its draft is lost, and nothing of the op is in the commit.
func (s *Shelf) add(ctx context.Context, g *group, o *op) error {
	d := o.draft
	if o.kind == dropping {
		d.lost = true
	}
	if d.lost {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	var size, used int64
	if o.kind == keeping {
		var err error
		size = d.info.Size() + overhead
		if used, err = s.usedBy(ctx, g, d.of); err != nil {
			return err
		}
		if used+size > d.terms.Account {
			return fmt.Errorf("its account has %d octets of creations and may have %d", used, d.terms.Account)
		}
	}
	sealed := make([][]byte, len(o.chunks))
	for i, c := range o.chunks {
		var err error
		if sealed[i], err = s.seal.Seal(ctx, d.account, chunkName(d.at, c.part, c.number), c.plain); err != nil {
			return err
		}
	}
	r := row{expires: d.info.Expires, size: size}
	if o.kind == keeping {
		text, err := json.Marshal(d.info)
		if err == nil {
			r.sealed, err = s.seal.Seal(ctx, d.account, d.info.ID, text)
		}
		if err != nil {
			return err
		}
	}
	for i, c := range o.chunks {
		g.put(d.of.chunkKey(d.at, c.part, c.number), sealed[i])
	}
	g.drafts = append(g.drafts, d)
	if o.kind == storing {
		g.put(d.of.key(draftPrefix, d.at[:]...), []byte{version})
		return nil
	}
	g.put(d.of.key(infoPrefix, d.at[:]...), r.encode())
	g.put(dueAt(r.expires, d.of, d.at), []byte{version})
	g.use(d.of, used+size)
	if d.begun {
		g.Delete(d.of.key(draftPrefix, d.at[:]...))
	}
	return nil
}

// use has it stored what an account has.
func (g *group) use(of digest, octets int64) {
	g.used[of] = octets
	if octets > 0 {
		g.put(of.key(usedPrefix), binary.BigEndian.AppendUint64([]byte{version}, uint64(octets)))
	} else {
		g.Delete(of.key(usedPrefix))
	}
}

// usedBy is how many octets an account has when a commit is done.
func (s *Shelf) usedBy(ctx context.Context, g *group, of digest) (int64, error) {
	if n, is := g.used[of]; is {
		return n, nil
	}
	if n, is := s.used[of]; is {
		return n, nil
	}
	b, err := s.store.Get(ctx, of.key(usedPrefix))
	switch {
	case errors.Is(err, state.ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case len(b) != 9 || b[0] != version:
		return 0, ErrDamaged
	}
	return int64(binary.BigEndian.Uint64(b[1:])), nil
}

// commit stores a group. When that fails, its drafts are lost: what may be there of them all the same is removed when the
// shelf is opened again, or ends in its time.
func (s *Shelf) commit(ctx context.Context, g *group) {
	if g == nil || len(g.Writes) == 0 {
		return
	}
	if err := s.write(ctx, g); err != nil {
		for _, d := range g.drafts {
			d.lost = true
		}
		s.log.Error("creations can not be stored", "records", len(g.drafts), "error", err)
	}
}

func (s *Shelf) write(ctx context.Context, g *group) error {
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	err := s.store.Commit(ctx, &g.Batch)
	if len(s.used)+len(g.used) > maxUsed {
		clear(s.used)
	}
	for of, n := range g.used {
		if s.used[of] = n; err != nil {
			delete(s.used, of) // the store knows
		}
	}
	return err
}

// discard removes the chunks of a draft that is lost. What can not be removed now is when the shelf is opened again.
func (s *Shelf) discard(ctx context.Context, d *Draft) {
	if err := s.removeChunks(ctx, d.of, d.at, nil); err != nil {
		s.log.Error("what was stored of a creation that is not kept can not be removed now", "exchange", d.info.Exchange, "error", err)
	}
}

// removeChunks removes all chunks of a place, in one commit with what is in g, or several.
func (s *Shelf) removeChunks(ctx context.Context, of digest, p place, g *group) error {
	if g == nil {
		g = &group{}
	}
	prefix, draft := of.key(chunkPrefix, p[:]...), of.key(draftPrefix, p[:]...)
	for {
		n := 0
		for e, err := range s.store.Scan(ctx, prefix, nil) {
			if err != nil {
				return err
			}
			g.Delete(bytes.Clone(e.Key))
			if n++; n == maxRemoved {
				break
			}
		}
		if n < maxRemoved {
			g.Delete(draft)
			return s.write(ctx, g)
		}
		g.Put(draft, []byte{version}) // so that the rest is found after a crash
		if err := s.write(ctx, g); err != nil {
			return err
		}
		g = &group{}
	}
}

// remove removes a creation. One that is not there is ErrNone.
func (s *Shelf) remove(ctx context.Context, of digest, p place) error {
	key := of.key(infoPrefix, p[:]...)
	b, err := s.store.Get(ctx, key)
	if errors.Is(err, state.ErrNotFound) {
		return ErrNone
	}
	if err != nil {
		return err
	}
	r, _ := decodeRow(b) // where it is damaged, what leads there is removed when it is due
	g := &group{used: map[digest]int64{}}
	used, err := s.usedBy(ctx, g, of)
	if err != nil {
		return err
	}
	g.Delete(key)
	g.Delete(dueAt(r.expires, of, p))
	g.use(of, max(used-r.size, 0))
	return s.removeChunks(ctx, of, p, g)
}

// removeDue removes the creations whose time is over.
func (s *Shelf) removeDue(ctx context.Context) (n int, err error) {
	now := uint64(max(s.now().Unix(), 0))
	for {
		var due [][]byte
		for e, err := range s.store.Scan(ctx, []byte(dueKey), nil) {
			if err != nil {
				return n, err
			}
			if len(e.Key) != len(dueAt(time.Time{}, digest{}, place{})) || binary.BigEndian.Uint64(e.Key[len(dueKey):]) > now {
				break
			}
			if due = append(due, bytes.Clone(e.Key)); len(due) == maxRemoved {
				break
			}
		}
		if len(due) == 0 {
			return n, nil
		}
		for _, key := range due {
			rest := key[len(dueKey)+8:]
			err := s.remove(ctx, digest(rest[:len(digest{})]), place(rest[len(digest{}):]))
			if errors.Is(err, ErrNone) {
				var b state.Batch
				b.Delete(key)
				err = s.store.Commit(ctx, &b)
			} else if err == nil {
				n++
			}
			if err != nil {
				return n, err
			}
		}
	}
}

// clean removes what drafts of an earlier process left.
func (s *Shelf) clean(ctx context.Context) error {
	var left [][]byte
	for e, err := range s.store.Scan(ctx, []byte(draftPrefix), nil) {
		if err != nil {
			return err
		}
		if len(e.Key) == len(draftPrefix)+len(digest{})+len(place{}) {
			left = append(left, bytes.Clone(e.Key[len(draftPrefix):]))
		}
	}
	for _, rest := range left {
		if err := s.removeChunks(ctx, digest(rest[:len(digest{})]), place(rest[len(digest{}):]), nil); err != nil {
			return err
		}
	}
	return nil
}

// ask has the owner do something after what was handed over before. When ctx ends first, it may be done or not.
func (s *Shelf) ask(ctx context.Context, do func(context.Context) error) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.users.Add(1)
	done := make(chan error, 1)
	s.queue = append(s.queue, op{kind: asking, do: do, done: done})
	s.mu.Unlock()
	defer s.users.Done()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

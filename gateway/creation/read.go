package creation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/vault"
)

// MaxList is the most creations of one List.
const MaxList = 1000

// List returns an account's creations, the newest first, at most limit of them (1 to MaxList): those after the one with
// the id after, which may be gone, or from the first on where it is empty. An id that can be none is ErrNone. Of an
// account whose key was shredded there are none.
func (s *Shelf) List(ctx context.Context, account, after string, limit int) ([]Info, error) {
	if err := s.fresh(ctx); err != nil {
		return nil, err
	}
	of := digestOf(account)
	var from []byte
	if after != "" {
		p, ok := placeOf(after)
		if !ok {
			return nil, ErrNone
		}
		from = append(of.key(infoPrefix, p[:]...), 0)
	}
	limit = min(max(limit, 1), MaxList)
	list := []Info{}
	for info, err := range s.infos(ctx, account, from) {
		if err != nil {
			return nil, err
		}
		if list = append(list, info); len(list) == limit {
			break
		}
	}
	return list, nil
}

// Export yields all creations of an account, the newest first, for its owner; Read gives what is in them. A fault ends it
// with a non-nil error as the last element.
func (s *Shelf) Export(ctx context.Context, account string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		after := "" // page by page: whoever takes them may be slow
		for {
			list, err := s.List(ctx, account, after, MaxList)
			if err != nil {
				yield(Info{}, err)
				return
			}
			for _, info := range list {
				if !yield(info, nil) {
					return
				}
				after = info.ID
			}
			if len(list) < MaxList {
				return
			}
		}
	}
}

// infos yields an account's creations from a key on. What is too old is left out, swept or not.
func (s *Shelf) infos(ctx context.Context, account string, from []byte) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		prefix := digestOf(account).key(infoPrefix)
		for e, err := range s.store.Scan(ctx, prefix, from) {
			if err != nil {
				yield(Info{}, fmt.Errorf("list creations: %w", err))
				return
			}
			var p place
			if len(e.Key) != len(prefix)+len(p) {
				yield(Info{}, ErrDamaged)
				return
			}
			copy(p[:], e.Key[len(prefix):])
			info, err := s.open(ctx, account, p, e.Value)
			switch {
			case errors.Is(err, ErrNone):
				continue
			case errors.Is(err, vault.ErrShredded):
				return
			}
			if !yield(info, err) || err != nil {
				return
			}
		}
	}
}

// open reads a row. One whose time is over is ErrNone.
func (s *Shelf) open(ctx context.Context, account string, p place, value []byte) (Info, error) {
	r, ok := decodeRow(value)
	if !ok {
		return Info{}, ErrDamaged
	}
	if !s.now().Before(r.expires) {
		return Info{}, ErrNone
	}
	text, err := s.seal.Open(ctx, account, p.id(), r.sealed)
	if err != nil {
		return Info{}, fmt.Errorf("open a creation: %w", err)
	}
	var info Info
	if json.Unmarshal(text, &info) != nil || info.ID != p.id() {
		return Info{}, ErrDamaged
	}
	return info, nil
}

// Find returns one creation of an account. ErrNone says that the account has none with this id, whoever else may.
func (s *Shelf) Find(ctx context.Context, account, id string) (Info, error) {
	p, ok := placeOf(id)
	if !ok {
		return Info{}, ErrNone
	}
	if err := s.fresh(ctx); err != nil {
		return Info{}, err
	}
	b, err := s.store.Get(ctx, digestOf(account).key(infoPrefix, p[:]...))
	if errors.Is(err, state.ErrNotFound) {
		return Info{}, ErrNone
	}
	if err != nil {
		return Info{}, fmt.Errorf("find a creation: %w", err)
	}
	info, err := s.open(ctx, account, p, b)
	if errors.Is(err, vault.ErrShredded) {
		return Info{}, ErrNone
	}
	return info, err
}

// Read yields the octets of one part of a creation, in pieces that are valid for good. A fault, such as that it is deleted
// meanwhile, ends it with a non-nil error as the last element.
func (s *Shelf) Read(ctx context.Context, account, id string, part int) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		info, err := s.Find(ctx, account, id)
		if err == nil && (part < 0 || part >= len(info.Parts)) {
			err = ErrNone
		}
		if err != nil {
			yield(nil, err)
			return
		}
		p, _ := placeOf(id)
		of, left := digestOf(account), info.Parts[part]
		for number := uint32(0); left > 0; number++ {
			b, err := s.store.Get(ctx, of.chunkKey(p, part, number))
			if errors.Is(err, state.ErrNotFound) {
				err = ErrNone // it was there a moment ago
			}
			if err == nil {
				b, err = s.seal.Open(ctx, account, chunkName(p, part, number), b)
			}
			if err == nil && (len(b) == 0 || int64(len(b)) > left) {
				err = ErrDamaged
			}
			if err != nil {
				yield(nil, fmt.Errorf("read a creation: %w", err))
				return
			}
			if left -= int64(len(b)); !yield(b, nil) {
				return
			}
		}
	}
}

// Used returns how many octets an account's creations count.
func (s *Shelf) Used(ctx context.Context, account string) (int64, error) {
	var n int64
	err := s.ask(ctx, func(ctx context.Context) (err error) {
		n, err = s.usedBy(ctx, &group{}, digestOf(account))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("sum up creations: %w", err) // n may still be written
	}
	return n, nil
}

// Delete removes one creation of an account. ErrNone says that the account has none with this id.
func (s *Shelf) Delete(ctx context.Context, account, id string) error {
	p, ok := placeOf(id)
	if !ok {
		return ErrNone
	}
	return s.ask(ctx, func(ctx context.Context) error { return s.remove(ctx, digestOf(account), p) })
}

// Remove removes all creations of an account, whether or not its key is still there, and tells how many there were. After
// an error some may be gone; it is to be called again.
func (s *Shelf) Remove(ctx context.Context, account string) (int, error) {
	of := digestOf(account)
	for all := 0; ; {
		n := 0
		err := s.ask(ctx, func(ctx context.Context) error {
			prefix := of.key(infoPrefix)
			var places []place
			for e, err := range s.store.Scan(ctx, prefix, nil) {
				if err != nil {
					return err
				}
				if len(e.Key) == len(prefix)+len(place{}) {
					places = append(places, place(e.Key[len(prefix):]))
				}
				if len(places) == maxRemoved {
					break
				}
			}
			for _, p := range places {
				if err := s.remove(ctx, of, p); err != nil {
					return err
				}
				n++
			}
			if len(places) == maxRemoved {
				return nil
			}
			g := &group{used: map[digest]int64{}}
			g.use(of, 0) // whatever of it was damaged
			return s.write(ctx, g)
		})
		if err != nil {
			return all, fmt.Errorf("remove creations: %w", err) // n may still be written
		}
		if all += n; n < maxRemoved {
			return all, nil
		}
	}
}

// Sweep removes what is older than it may be kept, as the shelf does by itself, and tells how many creations went.
func (s *Shelf) Sweep(ctx context.Context) (int, error) {
	n := 0
	err := s.ask(ctx, func(ctx context.Context) (err error) {
		n, err = s.removeDue(ctx)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("sweep creations: %w", err) // n may still be written
	}
	return n, nil
}

// fresh has stored what was handed over before.
func (s *Shelf) fresh(ctx context.Context) error {
	return s.ask(ctx, func(context.Context) error { return nil })
}

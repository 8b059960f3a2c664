package vault

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"
)

// A backup is a header, as a file of keys has it, then for every key a 1 and the slot, then a 0, their number in 8 octets, and
// the SHA-256 of all before. The keys in it are wrapped; the master key is not in it.

// Export writes the keys there are. What was shredded before it began is not in it. It holds nobody up: a key that is made
// or shredded meanwhile may be in it or not. When all keys are written anew meanwhile, it fails.
func (v *Vault) Export(ctx context.Context, w io.Writer) error {
	if err := v.enter(ctx); err != nil {
		return err
	}
	defer v.leave()
	v.mu.RLock()
	epoch, id := v.epoch, v.id
	h := newHeader(id, v.master)
	tags := make([]tag, 0, len(v.index))
	for t, e := range v.index {
		if e.state == live {
			tags = append(tags, t)
		}
	}
	v.mu.RUnlock()
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(sum, w), 64<<10)
	h[16] = 1
	_, err := out.Write(h[:])
	count := uint64(0)
	for _, t := range tags {
		if err != nil {
			break
		}
		if err = ctx.Err(); err != nil {
			break
		}
		v.mu.RLock()
		e, same := v.index[t], v.epoch == epoch
		var s slot
		if same && e.state == live {
			_, err = v.file.ReadAt(s[:], place(e.slot))
		}
		v.mu.RUnlock()
		switch {
		case !same:
			return errors.New("export data keys: they were wrapped anew meanwhile; export again")
		case err == nil && s[0] == live && !s.whole(id):
			v.log.WarnContext(ctx, "vault: a damaged data key is not in the backup")
			continue
		case err == nil && s[0] != live:
			continue // shredded meanwhile
		case err != nil:
			continue // the loop ends by it
		}
		count++
		if err = out.WriteByte(1); err == nil {
			_, err = out.Write(s[:])
		}
	}
	if err == nil {
		_, err = out.Write(binary.BigEndian.AppendUint64([]byte{0}, count))
	}
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		_, err = w.Write(sum.Sum(nil))
	}
	if err != nil {
		return fmt.Errorf("export data keys: %w", err)
	}
	return nil
}

// Import adds the keys of an export that are not there, unless they were shredded here: an old backup brings nobody back
// whom this vault remembers. It takes another vault's only into one that has none (else ErrNotEmpty), and needs the
// master key they are under, which may be the previous one. A master key that the vault keeps is made anew with it. After an
// error (ErrBackup, ErrMaster) nothing has changed.
func (v *Vault) Import(ctx context.Context, r io.Reader) error {
	if err := v.enter(ctx); err != nil {
		return err
	}
	defer v.leave()
	return v.submit(ctx, &change{kind: rewriting, rewrite: func() error {
		if err := v.merge(ctx, r); err != nil {
			return fmt.Errorf("import data keys: %w", err)
		}
		return nil
	}})
}

// merge is Import within the writer.
func (v *Vault) merge(ctx context.Context, r io.Reader) error {
	sum := sha256.New()
	in := bufio.NewReaderSize(r, 64<<10)
	full := func(b []byte) error {
		if _, err := io.ReadFull(in, b); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: it ends too soon", ErrBackup)
		} else if err != nil {
			return err
		}
		sum.Write(b)
		return nil
	}
	h := new(header)
	if err := full(h[:]); err != nil {
		return err
	}
	if ok, complete := h.whole(); !ok || !complete {
		return fmt.Errorf("%w: it does not begin as one", ErrBackup)
	}
	if h.id() != v.id && len(v.index) > 0 {
		return ErrNotEmpty
	}
	under := v.master
	if !h.fits(under) && v.previous != nil {
		var err error
		if under, err = chacha20poly1305.NewX(v.previous); err != nil {
			return err
		}
	}
	if !h.fits(under) {
		return ErrMaster
	}
	return v.rewrite(ctx, v.given, h.id(), func(c *copying) error {
		count := uint64(0)
		for {
			if err := ctx.Err(); err != nil {
				return err
			}
			mark := make([]byte, 1)
			if err := full(mark); err != nil {
				return err
			}
			if mark[0] == 0 {
				break
			}
			s := new(slot)
			if err := full(s[:]); err != nil {
				return err
			}
			t := s.tag()
			raw := s.unwrap(h.id(), under, t)
			if mark[0] != 1 || raw == nil {
				return fmt.Errorf("%w: key %d is damaged", ErrBackup, count)
			}
			count++
			if _, there := c.index[t]; there {
				clear(raw)
				continue
			}
			at := seconds(s[8:])
			s = wrap(c.id, c.master, t, raw, at)
			s[0] = live
			clear(raw)
			if err := c.add(t, s, entry{since: hours(at), state: live}); err != nil {
				return err
			}
		}
		var told [8]byte
		if err := full(told[:]); err != nil {
			return err
		}
		want := sum.Sum(nil)
		got := make([]byte, sha256.Size)
		if err := full(got); err != nil {
			return err
		}
		if binary.BigEndian.Uint64(told[:]) != count || string(got) != string(want) {
			return fmt.Errorf("%w: its digest does not match", ErrBackup)
		}
		return nil
	})
}

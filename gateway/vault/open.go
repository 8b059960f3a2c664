package vault

import (
	"bufio"
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// The files. A file of keys is written beside the old one and is the true one as soon as it is complete; then the old one is
// overwritten and removed. Its master key, where the vault keeps that, goes the same way, one step behind.
const (
	keysFile   = "keys"
	masterFile = "master"
	beside     = ".new"
)

// open reads the files, or makes them, and finishes what a crash left.
func (v *Vault) open(ctx context.Context, c Config) error {
	if err := v.adopt(); err != nil {
		return err
	}
	kept, there, err := v.readMaster(masterFile)
	if err != nil {
		return err
	}
	next, _, err := v.readMaster(masterFile + beside)
	if err != nil {
		return err
	}
	v.kept, v.given, v.previous = c.Master == nil, c.Master, c.Previous
	f, err := v.files.Open(keysFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && there:
		return fmt.Errorf("%w: the file %s is there and the file %s is not: restore it, or remove the folder to begin with no keys", ErrMaster, masterFile, keysFile)
	case errors.Is(err, fs.ErrNotExist):
		var id [idSize]byte
		rand.Read(id[:]) // never fails
		return v.rewrite(ctx, v.given, id, nil)
	case err != nil:
		return err
	}
	v.file = f
	h := new(header)
	if _, err := f.ReadAt(h[:], 0); err != nil {
		return errors.Join(fmt.Errorf("read %s: %w", keysFile, err), f.Close())
	}
	if ok, _ := h.whole(); !ok {
		return errors.Join(fmt.Errorf("%s: %w: it does not begin as one", keysFile, ErrDamaged), f.Close())
	}
	v.id = h.id()
	fits := func(key []byte) bool {
		if key == nil || v.master != nil {
			return false
		}
		aead, err := chacha20poly1305.NewX(key)
		if err != nil || !h.fits(aead) {
			return false
		}
		v.master = aead
		return true
	}
	isKept, isNext := fits(kept), fits(next)
	isGiven := fits(c.Master)
	fits(c.Previous)
	if v.master == nil {
		return errors.Join(ErrMaster, f.Close())
	}
	if err := v.finish(isNext); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := v.read(); err != nil {
		return errors.Join(err, f.Close())
	}
	if now := isGiven || v.kept && (isKept || isNext); !now {
		v.log.InfoContext(ctx, "vault: the master key has changed, all data keys are wrapped anew", "keys", len(v.index))
		if err := v.rewrite(ctx, v.given, v.id, nil); err != nil {
			return errors.Join(err, v.file.Close())
		}
	}
	if v.kept {
		return nil
	}
	return v.wipe(masterFile) // the key is in the configuration
}

// adopt puts a new file of keys that is complete in the place of the old one, and removes one that is not.
func (v *Vault) adopt() error {
	f, err := v.files.Open(keysFile + beside)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	h := new(header)
	_, err = f.ReadAt(h[:], 0)
	ok, complete := h.whole()
	if err := f.Close(); err != nil {
		return err
	}
	if err != nil || !ok || !complete {
		return v.wipe(keysFile + beside)
	}
	if err := v.wipe(keysFile); err != nil {
		return err
	}
	return v.files.Rename(keysFile+beside, keysFile)
}

// finish puts the new master key in the place of the old one if the keys are under it, and removes it otherwise.
func (v *Vault) finish(isNext bool) error {
	if !isNext {
		return v.wipe(masterFile + beside)
	}
	if err := v.wipe(masterFile); err != nil {
		return err
	}
	return v.files.Rename(masterFile+beside, masterFile)
}

// wipe overwrites a file and removes it, if it is there.
func (v *Vault) wipe(name string) error {
	f, err := v.files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	size, err := f.Size()
	zeros := make([]byte, 64<<10)
	for at := int64(0); err == nil && at < size; at += int64(len(zeros)) {
		_, err = f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("overwrite %s: %w", name, err)
	}
	return v.files.Remove(name)
}

// readMaster reads a master key that the vault keeps. It is nil when there is none, or a torn one: only the beginning of a new
// one was written, or an old one was being overwritten.
func (v *Vault) readMaster(name string) (key []byte, there bool, err error) {
	f, err := v.files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	text := make([]byte, 2*KeySize+2)
	n, err := f.ReadAt(text, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, true, err
	}
	if key, err = hex.DecodeString(strings.TrimSpace(string(text[:n]))); err != nil || len(key) != KeySize {
		return nil, true, nil
	}
	return key, true, nil
}

// writeMaster makes a new master key and keeps it beside the old one.
func (v *Vault) writeMaster() ([]byte, error) {
	key := make([]byte, KeySize)
	rand.Read(key) // never fails
	f, err := v.files.Create(masterFile + beside)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteAt([]byte(hex.EncodeToString(key)+"\n"), 0)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("keep a master key: %w", err)
	}
	return key, nil
}

// read reads all slots, and finishes what a crash left of some.
func (v *Vault) read() error {
	size, err := v.file.Size()
	if err != nil {
		return err
	}
	now := time.Now()
	damaged, mended := 0, 0
	in := bufio.NewReaderSize(io.NewSectionReader(v.file, headerSize, max(size-headerSize, 0)), 64<<10)
	for n := uint32(0); ; n++ {
		var s slot
		if _, err := io.ReadFull(in, s[:]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			v.slots = n // a last one that is not whole was never used
			break
		} else if err != nil {
			return err
		}
		t, whole := s.tag(), s.whole(v.id)
		e := entry{slot: n, since: hours(now), state: s[0]}
		if whole {
			e.since = hours(seconds(s[8:]))
		}
		var mend *slot
		before, twice := v.index[t]
		switch {
		case s == slot{}:
			v.free = append(v.free, n)
			continue
		case s[0] == empty || s[0] == making: // torn, and never used
			mend = new(slot)
		case s[0] == shredding || s[0] == shredded && !whole: // torn, and to be finished
			mend = tombstone(v.id, shredded, t, now)
			e.state = shredded
		case s[0] == shredded && e.since < hours(now.Add(-v.remember)):
			mend = new(slot)
		case s[0] != shredded && s[0] != live || !whole:
			// Not torn: somebody else wrote here. It is left as it is, and its owner gets ErrDamaged.
			damaged++
			e.state = live
		}
		if twice && e.state == shredded && before.state == live {
			// The vault never writes this. That the key was shredded is what holds.
			damaged++
			if _, err := v.file.WriteAt(make([]byte, slotSize), place(before.slot)); err != nil {
				return err
			}
			mended++
			twice = false
		} else if twice && e.state == live {
			damaged++
			mend = new(slot)
		}
		if mend != nil {
			mended++
			if _, err := v.file.WriteAt(mend[:], place(n)); err != nil {
				return err
			}
			if mend[0] == empty {
				v.free = append(v.free, n)
				continue
			}
		}
		if !twice {
			v.index[t] = e
		}
	}
	if damaged > 0 {
		v.log.Error("vault: somebody else wrote into the file of keys; what was sealed under the keys in these places can not be read", "keys", damaged)
	}
	if mended == 0 {
		return nil
	}
	return v.file.Sync()
}

// rewrite writes all keys anew, under another master key, and puts the new file in the place of the old one. master is nil
// for one that the vault makes and keeps. more, if given, adds slots.
func (v *Vault) rewrite(ctx context.Context, master []byte, id [idSize]byte, more func(*copying) error) (err error) {
	if master == nil {
		if master, err = v.writeMaster(); err != nil {
			return err
		}
		defer clear(master)
	}
	c := &copying{id: id, index: map[tag]entry{}}
	if c.master, err = chacha20poly1305.NewX(master); err != nil {
		return err
	}
	if err = v.copy(ctx, c, more); err != nil {
		if c.file != nil {
			err = errors.Join(err, c.file.Close())
		}
		return errors.Join(err, v.wipe(keysFile+beside), v.wipe(masterFile+beside))
	}
	// The new file is the true one now, whatever comes.
	v.mu.Lock()
	old := v.file
	v.file, v.master, v.id, v.index, v.epoch = c.file, c.master, c.id, c.index, v.epoch+1
	v.slots, v.free = c.next, nil
	v.mu.Unlock()
	if old != nil {
		err = old.Close()
	}
	err = errors.Join(err, v.wipe(keysFile))
	if err == nil {
		err = v.files.Rename(keysFile+beside, keysFile)
	}
	if err == nil {
		err = v.finish(v.kept)
	}
	if err != nil {
		v.fault = fmt.Errorf("the vault's files must be opened again: %w", err)
	}
	return err
}

// copying is a file of keys being written.
type copying struct {
	file   file
	id     [idSize]byte
	master cipher.AEAD
	index  map[tag]entry
	next   uint32
	buffer []byte
}

// copy writes the new file.
func (v *Vault) copy(ctx context.Context, c *copying, more func(*copying) error) (err error) {
	if c.file, err = v.files.Create(keysFile + beside); err != nil {
		return err
	}
	c.buffer = append(make([]byte, 0, 64<<10), newHeader(c.id, c.master)[:]...)
	for t, e := range v.index {
		if err := ctx.Err(); err != nil {
			return err
		}
		s := tombstone(c.id, shredded, t, time.Unix(int64(e.since)*3600, 0))
		if e.state == live {
			if _, err := v.file.ReadAt(s[:], place(e.slot)); err != nil {
				return fmt.Errorf("read a data key: %w", err)
			}
			// What is damaged stays so: it is no less to be told of under another master key.
			if raw := s.unwrap(v.id, v.master, t); raw != nil {
				s = wrap(c.id, c.master, t, raw, seconds(s[8:]))
				s[0] = live
				clear(raw)
			}
		} else {
			e.state = shredded
		}
		if err := c.add(t, s, e); err != nil {
			return err
		}
	}
	if more != nil {
		if err := more(c); err != nil {
			return err
		}
	}
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.file.Sync(); err != nil {
		return err
	}
	if _, err := c.file.WriteAt([]byte{1}, 16); err != nil {
		return err
	}
	return c.file.Sync()
}

// add writes a slot at the end.
func (c *copying) add(t tag, s *slot, e entry) error {
	if c.next >= maxSlots {
		return ErrFull
	}
	e.slot = c.next
	c.index[t] = e
	c.next++
	if c.buffer = append(c.buffer, s[:]...); len(c.buffer) >= 60<<10 {
		return c.flush()
	}
	return nil
}

func (c *copying) flush() error {
	size, err := c.file.Size()
	if err == nil {
		_, err = c.file.WriteAt(c.buffer, size)
	}
	clear(c.buffer)
	c.buffer = c.buffer[:0]
	return err
}

// Rotate makes a new master key, wraps all data keys under it, and overwrites the old one and what was under it. It is for
// a master key that the vault keeps; one that is given (ErrGiven) changes with the configuration.
func (v *Vault) Rotate(ctx context.Context) error {
	if err := v.enter(ctx); err != nil {
		return err
	}
	defer v.leave()
	if !v.kept {
		return ErrGiven
	}
	return v.submit(ctx, &change{kind: rewriting, rewrite: func() error { return v.rewrite(ctx, nil, v.id, nil) }})
}

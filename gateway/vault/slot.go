package vault

import (
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// The file of keys is a header of headerSize octets and then slots:
//
//	header  magic[16] complete[1] 0[7] id[16] check[56] 0[..] sum[16]
//	slot    state[1] version[1] 0[6] time[8] tag[16] nonce[24] wrapped key[48] 0[8] sum[16]
//
// The header is written once. complete becomes 1 when all of the file is written; a file without it is no file yet. check is
// an empty text sealed under the master key, to tell a wrong one before anything is touched. sum is the beginning of
// SHA-256 over the file's id and all the rest but complete and state.
//
// The state is written by itself: one octet is there or not, whatever happens to the disk meanwhile. A key is made by
// writing the slot as making, a sync, and then its state as live; it is used when that is synced too. It is shredded by
// writing the state shredding, a sync, the rest of the slot anew without the key, a sync, and the state shredded.
// So a crash leaves nothing that can be mistaken: what is making was never used, what is shredding is to be finished, and a
// live slot that does not add up is damage that somebody else did.
const (
	headerSize = 512
	slotSize   = 128
	idSize     = 16
	sumSize    = 16
	growth     = 256     // slots that a file grows by
	maxSlots   = 1 << 24 // 2 GiB
)

// The states of a slot. Each is four bits at least from every other.
const (
	empty     = 0x00
	making    = 0x3c
	live      = 0xa5
	shredding = 0x5a
	shredded  = 0xc3
)

const magic = "postern-vault 1\n"

// place is where a slot is in the file.
func place(slot uint32) int64 { return headerSize + int64(slot)*slotSize }

// header is the beginning of a file of keys.
type header [headerSize]byte

// newHeader makes a header that is not complete.
func newHeader(id [idSize]byte, master cipher.AEAD) *header {
	h := new(header)
	copy(h[:], magic)
	copy(h[24:], id[:])
	nonce := h[40:64]
	rand.Read(nonce) // never fails
	master.Seal(h[64:64], nonce, make([]byte, 16), append([]byte(magic), id[:]...))
	copy(h[headerSize-sumSize:], h.sum())
	return h
}

func (h *header) sum() []byte {
	b := append([]byte(nil), h[:headerSize-sumSize]...)
	b[16] = 0 // complete
	sum := sha256.Sum256(b)
	return sum[:sumSize]
}

// whole reports whether the header is one, and complete.
func (h *header) whole() (ok, complete bool) {
	return string(h[:len(magic)]) == magic && string(h.sum()) == string(h[headerSize-sumSize:]), h[16] == 1
}

func (h *header) id() [idSize]byte { return [idSize]byte(h[24:]) }

// fits reports whether the file's keys are under that master key.
func (h *header) fits(master cipher.AEAD) bool {
	id := h.id()
	_, err := master.Open(nil, h[40:64], h[64:96], append([]byte(magic), id[:]...))
	return err == nil
}

// slot is one owner's place in the file.
type slot [slotSize]byte

// wrap makes a slot, in the state making, for a key.
func wrap(id [idSize]byte, master cipher.AEAD, t tag, raw []byte, at time.Time) *slot {
	s := new(slot)
	s[0], s[1] = making, 1
	binary.BigEndian.PutUint64(s[8:], uint64(at.Unix()))
	copy(s[16:], t[:])
	rand.Read(s[32:56]) // never fails
	master.Seal(s[56:56], s[32:56], raw, s.bound(id))
	s.finish(id)
	return s
}

// tombstone makes a slot, in a state to be given, that says when an owner's key was shredded.
func tombstone(id [idSize]byte, state byte, t tag, at time.Time) *slot {
	s := new(slot)
	s[0], s[1] = state, 1
	binary.BigEndian.PutUint64(s[8:], uint64(at.Unix()))
	copy(s[16:], t[:])
	s.finish(id)
	return s
}

// bound is what a wrapped key is bound to.
func (s *slot) bound(id [idSize]byte) []byte {
	return append(append([]byte("postern vault key 1"), id[:]...), s[8:32]...)
}

func (s *slot) finish(id [idSize]byte) { copy(s[slotSize-sumSize:], s.sum(id)) }

func (s *slot) sum(id [idSize]byte) []byte {
	var b [idSize + slotSize]byte
	n := copy(b[:], id[:])
	n += copy(b[n:], s[1:slotSize-sumSize])
	sum := sha256.Sum256(b[:n])
	return sum[:sumSize]
}

// whole reports whether the slot is as it was written, whatever its state.
func (s *slot) whole(id [idSize]byte) bool {
	return s[1] == 1 && string(s.sum(id)) == string(s[slotSize-sumSize:])
}

func (s *slot) tag() tag { return tag(s[16:]) }

// unwrap returns the key of a live slot of t, or nil.
func (s *slot) unwrap(id [idSize]byte, master cipher.AEAD, t tag) []byte {
	if s[0] != live || s.tag() != t || !s.whole(id) {
		return nil
	}
	raw, err := master.Open(nil, s[32:56], s[56:56+KeySize+chacha20poly1305.Overhead], s.bound(id))
	if err != nil {
		return nil
	}
	return raw
}

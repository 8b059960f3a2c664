package replay

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// keySize is the size of every key here, in octets.
const keySize = 32

// The records, after the prefix:
//
//	s                         the store's random part of the keys
//	k SHA-256(account)        the account's random part
//	r SHA-256(account) HMAC   a reply; the HMAC is of the idempotency key, which may say more than it should
func (s *Store) accountKey(of [sha256.Size]byte) []byte {
	return append([]byte(s.prefix+"k"), of[:]...)
}

func (s *Store) replyPrefix(of [sha256.Size]byte) []byte {
	return append([]byte(s.prefix+"r"), of[:]...)
}

// vault names and seals one account's records.
type vault struct {
	prefix []byte
	names  []byte // key of the HMAC
	aead   cipher.AEAD
}

// vault returns an account's vault.
func (s *Store) vault(ctx context.Context, account string) (*vault, error) {
	of := sha256.Sum256([]byte(account))
	own, err := s.state.Get(ctx, s.accountKey(of))
	if err != nil || len(own) != keySize {
		s.making.Lock()
		own, err = s.random(ctx, s.accountKey(of))
		s.making.Unlock()
	}
	if err != nil {
		return nil, err
	}
	keys, err := hkdf.Key(sha256.New, s.secret, own, "postern replay 1", 2*keySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(keys[:keySize])
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &vault{prefix: s.replyPrefix(of), names: keys[keySize:], aead: aead}, nil
}

// name is where the record of an idempotency key is.
func (v *vault) name(key string) []byte {
	mac := hmac.New(sha256.New, v.names)
	mac.Write([]byte(key))
	return mac.Sum(append(make([]byte, 0, len(v.prefix)+sha256.Size), v.prefix...))
}

// seal encrypts a record, for one place in the store.
func (v *vault) seal(at []byte, r *record) []byte {
	plain := r.encode()
	return v.aead.Seal(make([]byte, 0, len(plain)+v.aead.Overhead()), nil, plain, at)
}

// errDamaged says that a record is not one of ours, or not of this place.
var errDamaged = errors.New("record can not be read")

func (v *vault) open(at, sealed []byte) (record, error) {
	plain, err := v.aead.Open(nil, nil, sealed, at)
	if err != nil {
		return record{}, errDamaged
	}
	r, ok := decode(plain)
	if !ok {
		return record{}, errDamaged
	}
	return r, nil
}

// The kinds of record.
const (
	kindBegun = iota + 1 // the upstream may have been called
	kindDone             // with the reply
	kindLarge            // answered, and the reply not kept
)

// record is what is known of one idempotency key.
type record struct {
	kind     byte
	digest   [sha256.Size]byte
	exchange string
	status   int
	header   exchange.Header
	packed   bool // the body is deflated
	body     []byte
}

// version is the first octet of every record.
const version = 1

// encode writes a record: version, kind, digest, whether the body is packed, the exchange and the status, the fields, and
// the body, which takes the rest. Texts have their length before them.
func (r *record) encode() []byte {
	size := 64 + len(r.exchange) + len(r.body)
	for _, f := range r.header {
		size += len(f.Name) + len(f.Value) + 8
	}
	b := make([]byte, 0, size)
	b = append(b, version, r.kind)
	b = append(b, r.digest[:]...)
	if r.packed {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = appendText(b, r.exchange)
	b = binary.AppendUvarint(b, uint64(r.status))
	b = binary.AppendUvarint(b, uint64(len(r.header)))
	for _, f := range r.header {
		b = appendText(appendText(b, f.Name), f.Value)
	}
	return append(b, r.body...)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decode reads what encode wrote. The body shares b's memory.
func decode(b []byte) (r record, ok bool) {
	if len(b) < 2+sha256.Size || b[0] != version || b[1] < kindBegun || b[1] > kindLarge {
		return record{}, false
	}
	r.kind = b[1]
	b = b[2+copy(r.digest[:], b[2:]):]
	in := reader{rest: b}
	r.packed = in.number(1) == 1
	r.exchange = in.text()
	r.status = int(in.number(999))
	// A field is two octets at least: more can not be announced than there are.
	for range in.number(uint64(len(in.rest) / 2)) {
		name := in.text()
		r.header = append(r.header, exchange.Field{Name: name, Value: in.text()})
	}
	if in.bad {
		return record{}, false
	}
	r.body = in.rest
	return r, true
}

// reader takes a record apart.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) number(most uint64) uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 || n > most {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) text() string {
	n := r.number(uint64(len(r.rest)))
	if n > uint64(len(r.rest)) { // its own length is not part of it
		r.bad, r.rest = true, nil
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

package replay

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/vault"
)

// A reply is in the store under the prefix, "r", SHA-256(account), and the vault's HMAC of the idempotency key, which may say
// more than it should.
func (s *Store) replyPrefix(account string) []byte {
	of := sha256.Sum256([]byte(account))
	return append([]byte(s.prefix+"r"), of[:]...)
}

// name is where the record of an account's idempotency key is.
func (s *Store) name(ctx context.Context, account, key string) ([]byte, error) {
	sum, err := s.vault.MAC(ctx, account, key)
	return append(s.replyPrefix(account), sum[:]...), err
}

// seal encrypts a record, for one place in the store.
func (s *Store) seal(ctx context.Context, account string, at []byte, r *record) ([]byte, error) {
	return s.vault.Seal(ctx, account, string(at), r.encode())
}

// open decrypts one. It gives vault.ErrDamaged for what is not a record of ours, or not of this place.
func (s *Store) open(ctx context.Context, account string, at, sealed []byte) (record, error) {
	plain, err := s.vault.Open(ctx, account, string(at), sealed)
	if err != nil {
		return record{}, err
	}
	r, ok := decode(plain)
	if !ok {
		return record{}, fmt.Errorf("%w: it is no reply", vault.ErrDamaged)
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

package main

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/go/json"
)

// A reply is kept in pieces, because one value of the cache has at most 64 KiB, and because it is written as it passes. The
// pieces are found under a random number of the reply's own; last of all the entry under the request's key is written,
// which names them. So what is found is complete, whoever writes at the same time.
const (
	pieceSize = 16 << 10 // what is gathered in the carry before it is written
	maxType   = 255      // its length travels in an octet
	tailSize  = 32       // octets of the last piece that ended looks at
)

// keeper is one reply on its way into the cache, as it travels in the carry: 32 octets key, u16 stage, u64 number, u32
// pieces, u32 length, u8 with a head, u8 and content type, u8 and tail, the octets gathered.
type keeper struct {
	key         [sha256.Size]byte
	stage       int
	number      uint64
	pieces      int
	length      int
	begun       bool
	contentType []byte
	tail        []byte
	gathered    []byte
	buffer      []byte
	tailBuffer  [tailSize]byte
}

func (k *keeper) begin(key *[sha256.Size]byte, stage int) {
	k.key, k.stage, k.number, k.pieces, k.length, k.begun = *key, stage, 0, 0, 0, false
	k.contentType, k.tail, k.gathered = k.contentType[:0], nil, k.gathered[:0]
}

// head notes what the reply's head says, and gives the reply its number.
func (k *keeper) head(h *postern.Host, contentType []byte) error {
	var random [8]byte
	if err := h.Random(random[:]); err != nil {
		return err
	}
	k.number, k.begun = binary.LittleEndian.Uint64(random[:]), true
	k.contentType = append(k.contentType[:0], contentType...)
	return nil
}

func (k *keeper) append(b []byte) []byte {
	b = append(b, k.key[:]...)
	b = binary.LittleEndian.AppendUint16(b, uint16(k.stage))
	b = binary.LittleEndian.AppendUint64(b, k.number)
	b = binary.LittleEndian.AppendUint32(b, uint32(k.pieces))
	b = binary.LittleEndian.AppendUint32(b, uint32(k.length))
	begun := byte(0)
	if k.begun {
		begun = 1
	}
	b = append(append(b, begun, byte(len(k.contentType))), k.contentType...)
	b = append(append(b, byte(len(k.tail))), k.tail...)
	return append(b, k.gathered...)
}

// read is the reverse of append.
func (k *keeper) read(b []byte) bool {
	const fixed = sha256.Size + 2 + 8 + 4 + 4 + 2
	if len(b) < fixed {
		return false
	}
	copy(k.key[:], b)
	b = b[sha256.Size:]
	k.stage = int(binary.LittleEndian.Uint16(b))
	k.number = binary.LittleEndian.Uint64(b[2:])
	k.pieces = int(binary.LittleEndian.Uint32(b[10:]))
	k.length = int(binary.LittleEndian.Uint32(b[14:]))
	k.begun = b[18] == 1
	n := int(b[19])
	if b = b[20:]; len(b) < n+1 {
		return false
	}
	k.contentType = append(k.contentType[:0], b[:n]...)
	n, b = int(b[n]), b[n+1:]
	if len(b) < n || n > tailSize {
		return false
	}
	k.tail = append(k.tailBuffer[:0], b[:n]...)
	k.gathered = append(k.gathered[:0], b[n:]...)
	return true
}

// name of a piece.
func (k *keeper) piece(n int) []byte {
	k.buffer = append(k.buffer[:0], 'p')
	k.buffer = binary.LittleEndian.AppendUint64(k.buffer, k.number)
	k.buffer = binary.LittleEndian.AppendUint32(k.buffer, uint32(n))
	return k.buffer
}

func (k *keeper) entry() []byte {
	k.buffer = append(append(k.buffer[:0], 'e'), k.key[:]...)
	return k.buffer
}

// add gathers a part of the reply and writes what has become a piece. Pieces live a little longer than the entry that
// names them.
func (k *keeper) add(h *postern.Host, part []byte, ttl time.Duration) error {
	k.length += len(part)
	k.follow(part)
	k.gathered = append(k.gathered, part...)
	written := 0
	for len(k.gathered)-written >= pieceSize {
		end := min(len(k.gathered), written+2*pieceSize)
		if err := h.CachePut(k.piece(k.pieces), k.gathered[written:end], ttl+time.Minute); err != nil {
			return err
		}
		k.pieces++
		written = end
	}
	k.gathered = append(k.gathered[:0], k.gathered[written:]...)
	return nil
}

// follow keeps the last octets that have passed.
func (k *keeper) follow(part []byte) {
	last := part[max(0, len(part)-tailSize):]
	keep := min(len(k.tail), tailSize-len(last))
	n := copy(k.tailBuffer[:], k.tail[len(k.tail)-keep:])
	n += copy(k.tailBuffer[n:], last)
	k.tail = k.tailBuffer[:n]
}

// end writes the rest and then the entry: u64 when it was stored, u64 number, u32 pieces, u32 length, content type.
func (k *keeper) end(h *postern.Host, now int64, ttl time.Duration) error {
	if len(k.gathered) > 0 {
		if err := h.CachePut(k.piece(k.pieces), k.gathered, ttl+time.Minute); err != nil {
			return err
		}
		k.pieces++
	}
	value := binary.LittleEndian.AppendUint64(k.gathered[:0], uint64(now))
	value = binary.LittleEndian.AppendUint64(value, k.number)
	value = binary.LittleEndian.AppendUint32(value, uint32(k.pieces))
	value = binary.LittleEndian.AppendUint32(value, uint32(k.length))
	value = append(value, k.contentType...)
	k.gathered = value[:0]
	return h.CachePut(k.entry(), value, ttl)
}

// reply is one found in the cache.
type reply struct {
	stored      int64
	contentType string
	body        []byte
}

// load puts a reply together, or gives ErrNotFound: also where a piece has been pushed out meanwhile.
func (k *keeper) load(h *postern.Host, key *[sha256.Size]byte, body []byte) (reply, error) {
	k.key = *key
	value, err := h.CacheGet(k.entry())
	if err != nil {
		return reply{}, err
	}
	if len(value) < 24 {
		return reply{}, postern.ErrNotFound
	}
	r := reply{stored: int64(binary.LittleEndian.Uint64(value)), contentType: string(value[24:])}
	k.number = binary.LittleEndian.Uint64(value[8:])
	pieces, length := int(binary.LittleEndian.Uint32(value[16:])), int(binary.LittleEndian.Uint32(value[20:]))
	for n := range pieces {
		value, err := h.CacheGet(k.piece(n))
		if err != nil {
			return reply{}, err
		}
		body = append(body, value...)
	}
	if len(body) != length {
		return reply{}, postern.ErrNotFound
	}
	r.body = body
	return r, nil
}

// key is what two requests have in common that get the same reply. White space between the tokens of a JSON body does not
// count; the order of its members does, because a hash of what the client sent can not be wrong about what it meant.
func (p *plugin) key(e *postern.Event, body []byte) [sha256.Size]byte {
	b := p.buffer[:0]
	for _, slot := range [...]int{slotRoute, slotMethod, slotHost, slotPath, slotQuery, slotModel, slotKey} {
		text := e.Value(slot).Bytes()
		b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
		b = append(b, text...)
	}
	fields := 0
	for accept := range e.Headers(slotAccept) {
		if fields++; fields == 1 && string(accept) == "*/*" { // what is meant without the field, too: RFC 9110 section 12.5.1
			accept = nil
		} else if fields > 1 { // one list in several fields
			b = append(b, ',')
		}
		b = append(b, accept...)
	}
	b = append(b, 0)
	start := len(b)
	b = append(b, 'j')
	var s json.Scanner
	s.Reset(body)
	for {
		t := s.Next()
		if t.Kind == json.End {
			break
		}
		if t.Kind == json.Bad { // no JSON: the octets as they are
			b = append(append(b[:start], 'o'), body...)
			break
		}
		b = append(append(b, body[t.Start:t.End]...), byte(t.Kind))
	}
	p.buffer = b
	key := sha256.Sum256(b)
	if cap(p.buffer) > 1<<20 {
		p.buffer = nil
	}
	return key
}

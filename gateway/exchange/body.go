package exchange

import (
	"bytes"
	"io"
)

// Body is a message body, read once and in order. Read follows io.Reader and may block. Close may be called at any
// time and from another goroutine; it makes a blocked Read return. Trailer is the trailer section (RFC 9110 section
// 6.5), complete after Read returned io.EOF and nil before.
type Body interface {
	io.ReadCloser
	Trailer() Header
}

// NoBody is a body of no octets.
var NoBody Body = empty{}

type empty struct{}

func (empty) Read([]byte) (int, error) { return 0, io.EOF }
func (empty) Close() error             { return nil }
func (empty) Trailer() Header          { return nil }

// Bytes is a body whose octets are all there.
type Bytes struct{ bytes.Reader }

// NewBytes returns a body that reads b, which must not change while it is read.
func NewBytes(b []byte) *Bytes {
	body := new(Bytes)
	body.Reset(b)
	return body
}

// Close does nothing.
func (*Bytes) Close() error { return nil }

// Trailer is nil.
func (*Bytes) Trailer() Header { return nil }

// AtEnd reports whether err says that a read came to the end of a body or a connection. As with io.Reader, only io.EOF
// itself does: an error that wraps it, such as ErrClientGone with its cause, tells of octets that never came.
func AtEnd(err error) bool { return err == io.EOF } //nolint:errorlint // a wrapped io.EOF is not the end, see above

// firstRead is the most that is set aside for octets that were only announced.
const firstRead = 1 << 20

// ReadBody reads body to its end. It returns ErrBodyTooLarge when there are more than limit octets. length is the
// announced length, or -1; it only sizes the buffer, up to 1 MiB.
func ReadBody(body Body, length, limit int64) ([]byte, error) {
	if length > limit {
		return nil, ErrBodyTooLarge
	}
	b, _, err := ReadUpTo(body, length, limit)
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, ErrBodyTooLarge
	}
	return b, nil
}

// ReadUpTo reads body to its end, or until there are more than limit octets: then more says that further ones may
// follow. length is the announced length, or -1; it only sizes the buffer, up to 1 MiB.
func ReadUpTo(body Body, length, limit int64) (b []byte, more bool, err error) {
	if length < 0 {
		length = 4095
	}
	b = make([]byte, 0, min(length, limit, firstRead)+1) // one more, so that the read that meets the end needs no growth
	idle := 0
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case AtEnd(err):
			return b, false, nil
		case err != nil:
			return nil, false, err
		case int64(len(b)) > limit:
			return b, true, nil
		}
		if idle++; n > 0 {
			idle = 0
		} else if idle == 100 {
			return nil, false, io.ErrNoProgress
		}
	}
}

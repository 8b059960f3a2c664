package http1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// body is a request's body as exchange.Body. One goroutine reads it; any may close it. It is not reused, because that
// goroutine may outlive the handler.
type body struct {
	call    *call
	length  int64 // announced; -1: chunked
	limit   int64
	state   framing
	left    int64 // octets left of the body or the chunk
	extra   int   // octets of chunk extensions and trailer so far
	read    int64
	err     error // sticky, io.EOF included
	trailer exchange.Header
	by      time.Time   // when what nobody wants must have come; zero: as long as octets come in time
	over    atomic.Bool // everything the client had to send is there; the reading side is not needed any more

	mu      sync.Mutex
	reading bool
	begun   bool // read at least once
	closed  bool
	failed  bool          // ended by anything but its end
	idle    chan struct{} // closed when reading ends; nil: nobody waits for that
}

// framing is what the next octets of a body are.
type framing uint8

const (
	inLength    framing = iota // left octets of a body with a length
	inChunkSize                // a chunk-size line
	inChunk                    // left octets of a chunk
	afterChunk                 // the line end after a chunk
	inTrailer                  // a line of the trailer section
)

// Why a body can not be read on.
var (
	errFraming = errors.New("broken framing")
	errCutOff  = errors.New("connection ended within a message")
	errClosed  = errors.New("body: read after it was closed")
)

// Read reads on. Errors say whose fault it was: ErrBodyTooLarge, ErrBodyTimeout, ErrClientBody or ErrClientGone, wrapped.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	if b.closed || b.err != nil {
		defer b.mu.Unlock()
		if b.err != nil {
			return 0, b.err
		}
		return 0, errClosed
	}
	b.reading, b.begun = true, true
	b.mu.Unlock()

	n, err := b.readOn(p)

	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = false
	if b.idle != nil {
		close(b.idle)
		b.idle = nil
	}
	if err == nil {
		return n, nil
	}
	if b.closed && errors.Is(err, os.ErrDeadlineExceeded) {
		return n, errClosed
	}
	if !exchange.AtEnd(err) {
		b.failed = true
		if !errors.Is(err, exchange.ErrBodyTooLarge) {
			err = blame(err)
		}
	}
	b.err = err
	return n, err
}

// blame says whose fault an error of reading is.
func blame(err error) error {
	cause := exchange.ErrClientGone
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		cause = exchange.ErrBodyTimeout
	case errors.Is(err, errFraming):
		cause = exchange.ErrClientBody
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// readOn keeps the limit. One octet more than allowed shows that there is more than allowed.
func (b *body) readOn(p []byte) (int, error) {
	if b.length > b.limit {
		return 0, exchange.ErrBodyTooLarge
	}
	if p = p[:min(int64(len(p)), b.limit-b.read+1)]; len(p) == 0 {
		return 0, nil
	}
	n, err := b.next(p)
	if b.read += int64(n); b.read > b.limit {
		return n - 1, exchange.ErrBodyTooLarge
	}
	return n, err
}

// next reads content into p, with io.EOF at its end. It belongs to the reader, and when that is gone to the call.
func (b *body) next(p []byte) (n int, err error) {
	for n == 0 && err == nil {
		switch b.state {
		case inLength, inChunk:
			n, err = b.content(p)
		default:
			err = b.line()
		}
	}
	return n, err
}

// content reads octets of a body or a chunk straight into p.
func (b *body) content(p []byte) (n int, err error) {
	c := b.call.conn
	p = p[:min(int64(len(p)), b.left)]
	if c.from < c.to {
		n = copy(p, c.in[c.from:c.to])
		c.from += n
	} else if err = b.await(); err == nil {
		n, err = c.rw.Read(p)
	}
	switch b.left -= int64(n); {
	case b.left > 0 && exchange.AtEnd(err):
		return n, errCutOff
	case b.left > 0:
		return n, err
	case b.state == inChunk:
		b.state = afterChunk
		return n, nil // an error comes again
	}
	b.over.Store(true)
	return n, io.EOF
}

// line reads one line of what a chunked body is wrapped in (RFC 9112 section 7.1). Extensions are ignored.
func (b *body) line() error {
	c := b.call.conn
	i := bytes.IndexByte(c.in[c.from:c.to], '\n')
	if i < 0 && c.to-c.from <= maxChunkLine {
		if err := b.await(); err != nil {
			return err
		}
		if err := c.fill(); exchange.AtEnd(err) {
			return errCutOff
		} else if err != nil {
			return err
		}
		return nil
	}
	if i < 1 || i > maxChunkLine || c.in[c.from+i-1] != '\r' {
		return errFraming
	}
	line := c.in[c.from : c.from+i-1]
	c.from += i + 1
	switch b.state {
	case afterChunk:
		if len(line) > 0 {
			return errFraming
		}
		b.state = inChunkSize
	case inChunkSize:
		size, extension, ok := parseChunkSize(line)
		if b.extra += extension; !ok || b.extra > maxExtra {
			return errFraming
		}
		if b.left, b.state = size, inChunk; size == 0 {
			b.state = inTrailer
		}
	case inTrailer:
		if len(line) == 0 {
			b.over.Store(true)
			return io.EOF
		}
		name, value, ok := parseField(line)
		b.extra += len(line)
		if !ok || b.extra > maxExtra || len(b.trailer) >= b.call.terms.Fields {
			return errFraming
		}
		if TrailerAllowed(name) {
			b.trailer.Add(name, value)
		}
	}
	return nil
}

// await comes before a read that may block: the client gets its 100 and has the body timeout from now.
func (b *body) await() error {
	if b.call.head.Expect {
		if err := b.call.proceed(); err != nil {
			return err
		}
	}
	c := b.call.conn
	if !b.by.IsZero() {
		return c.awaitUntil(b.by)
	}
	return c.await(c.peer.Connection.Terms().Body, false)
}

// Buffered is how many octets of a body with a length can be read without waiting. It is for the reader. A small body that
// came with its head so leaves for the upstream in one write with it.
func (b *body) Buffered() int {
	if b.state != inLength || b.length > b.limit {
		return 0
	}
	c := b.call.conn
	return int(min(int64(c.to-c.from), b.left))
}

// Close ends reading; a read that is blocked returns. What the client still sends is thrown away, up to a bound, or its
// connection ends after the reply.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.reading {
		b.call.conn.cutReads()
	}
	return nil
}

// shut is Close at the end of the exchange. When it returns nobody reads any more.
func (b *body) shut() {
	b.mu.Lock()
	b.closed = true
	var idle chan struct{}
	if b.reading {
		idle = make(chan struct{})
		b.idle = idle
		b.call.conn.cutReads()
	}
	b.mu.Unlock()
	if idle != nil {
		<-idle
	}
}

// progress says whether anybody has read, and whether it ended badly.
func (b *body) progress() (begun, failed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.begun, b.failed
}

// drain reads what is left of a body that nobody wanted, once its reply is on the way; false when the connection can not be
// used again.
func (b *body) drain() bool {
	if b.over.Load() {
		return true
	}
	b.by = time.Now().Add(b.call.terms.Body)
	var waste [4 << 10]byte
	for total := 0; !b.over.Load(); {
		n, err := b.next(waste[:])
		if total += n; err != nil && !exchange.AtEnd(err) || total > drainOctets {
			return false
		}
	}
	return true
}

// Trailer is what followed the body, nil before its end.
func (b *body) Trailer() exchange.Header {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !exchange.AtEnd(b.err) {
		return nil
	}
	return b.trailer
}

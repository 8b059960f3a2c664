package carrier

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/quic-go/quic-go"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http1"
)

// body is a request's body as exchange.Body. One goroutine reads it; any may close it.
type body struct {
	call   *call
	req    *http.Request // what is read
	length int64         // announced; -1: unknown
	limit  int64

	// The reader's own.
	probe  []byte // read ahead of the handler
	read   int64
	err    error // sticky, io.EOF included
	fields exchange.Header

	mu      sync.Mutex
	reading bool
	begun   bool // read at least once
	closed  bool
	failed  bool // ended by anything but its end
	whole   bool // read to its end
}

// Read reads on. Errors say whose fault it was: ErrBodyTooLarge, ErrBodyTimeout, ErrClientBody or ErrClientGone, wrapped.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.length > b.limit {
		return 0, b.end(exchange.ErrBodyTooLarge)
	}
	// One octet more than allowed shows that there is more than allowed.
	p = p[:min(int64(len(p)), b.limit-b.read+1)]
	if len(p) == 0 {
		return 0, nil
	}
	if !b.enter() {
		return 0, b.end(http.ErrBodyReadAfterClose)
	}
	var n int
	var err error
	if len(b.probe) > 0 {
		n = copy(p, b.probe)
		b.probe = b.probe[n:]
	} else {
		b.call.readStall.begin()
		n, err = b.req.Body.Read(p)
		late := b.call.readStall.end()
		if err != nil && !exchange.AtEnd(err) {
			err = b.blame(err, late)
		}
	}
	b.leave()
	if exchange.AtEnd(err) && b.call.head == nil {
		b.fields = trailerOf(b.req.Trailer)
	}
	if b.read += int64(n); b.read > b.limit {
		return n - 1, b.end(exchange.ErrBodyTooLarge)
	}
	if err != nil {
		return n, b.end(err)
	}
	return n, nil
}

func (b *body) end(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
	b.whole = exchange.AtEnd(err)
	b.failed = !b.whole
	return err
}

func (b *body) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = !b.closed
	b.begun = b.begun || b.reading
	return b.reading
}

func (b *body) leave() {
	b.mu.Lock()
	b.reading = false
	b.mu.Unlock()
}

// blame says whose fault an error of a read was.
func (b *body) blame(err error, late bool) error {
	b.mu.Lock()
	closed := b.closed
	b.mu.Unlock()
	cause := exchange.ErrClientBody
	var stream resetStream
	var quicStream *quic.StreamError
	var quicApplication *quic.ApplicationError
	var quicIdle *quic.IdleTimeoutError
	switch {
	case closed:
		return http.ErrBodyReadAfterClose
	case late, errors.Is(err, os.ErrDeadlineExceeded):
		cause = exchange.ErrBodyTimeout
	case http1.Broken(err):
	case b.call.guard != nil, // whatever else ends an HTTP/1.1 body is the connection's end
		errors.As(err, &stream), err.Error() == "client disconnected", // HTTP/2
		errors.As(err, &quicStream), errors.As(err, &quicApplication), errors.As(err, &quicIdle), // HTTP/3
		b.req.Context().Err() != nil:
		cause = exchange.ErrClientGone
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// resetStream is what the standard server's own type for a reset stream converts to in errors.As.
type resetStream struct {
	StreamID uint32
	Code     resetCode
	Cause    error
}

type resetCode uint32

func (resetStream) Error() string { return "stream reset" }

// Close ends reading; a read that is blocked returns. What the client still sends is thrown away, up to a bound, or its
// connection ends after the reply.
func (b *body) Close() error {
	b.mu.Lock()
	was, blocked := b.closed || b.whole, b.reading
	b.closed = true
	b.mu.Unlock()
	if !was && blocked {
		b.call.unblock(b.call.rc.SetReadDeadline)
	}
	return nil
}

// abandon is Close by the listener when the handler has returned.
func (b *body) abandon() {
	if b.call != nil {
		_ = b.Close()
	}
}

// incomplete reports whether the client's connection can not be used after this body.
func (b *body) incomplete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// left reports whether something may be left of the body that nobody is reading.
func (b *body) left() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.call != nil && !b.whole && !b.failed && !b.reading
}

// wanted reports whether anybody has read.
func (b *body) wanted() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.begun
}

// Trailer is what followed the body, nil before its end.
func (b *body) Trailer() exchange.Header {
	b.mu.Lock()
	whole := b.whole
	b.mu.Unlock()
	switch {
	case !whole:
		return nil
	case b.call.head != nil:
		return b.call.head.Trailer
	}
	return b.fields
}

// trailerOf converts the trailer section of HTTP/2 and 3, which has lost its order on the way.
func trailerOf(t http.Header) exchange.Header {
	var h exchange.Header
	for name, values := range t {
		if name = strings.ToLower(name); http1.TrailerAllowed(name) {
			for _, v := range values {
				h.Add(name, strings.Trim(v, " \t"))
			}
		}
	}
	slices.SortStableFunc(h, func(a, b exchange.Field) int { return strings.Compare(a.Name, b.Name) })
	return h
}

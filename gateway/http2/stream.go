package http2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Misuse of a stream.
var (
	errClosed = errors.New("http2: read after close")
	errEnded  = errors.New("http2: used after the end")
)

// Whose fault it is that a stream can not be used any more.
var (
	errGone    = fmt.Errorf("%w: stream reset or connection closed", exchange.ErrClientGone)
	errFault   = fmt.Errorf("%w: against the rules of a stream", exchange.ErrClientBody)
	errUnread  = fmt.Errorf("%w: nothing is taken", exchange.ErrClientGone)
	errStalled = fmt.Errorf("%w: stream stalled", exchange.ErrBodyTimeout)
)

// Stream is one request and its reply. Errors are those of package exchange. Read, and everything that writes, may go on at the same time; neither may be
// called by two goroutines at once.
type Stream struct {
	Method, Scheme, Authority, Path string
	Protocol                        string          // of an extended CONNECT (RFC 8441), such as "websocket"; else empty
	Header                          exchange.Header // in order, without pseudo fields; cookies are joined
	Length                          int64           // of the body: 0 when there is none, -1 when it is not known
	Large                           bool            // the head is over the limits: Header is not whole

	ReadTimeout, WriteTimeout time.Duration // of one wait for the client; 0: none. To be set by the handler, at first

	c      *Conn
	id     uint32
	ctx    context.Context
	cancel context.CancelFunc
	wake   sync.Cond // anything below has changed

	// Guarded by the connection's mu.
	err         error // sticky
	buffer      bytes.Buffer
	unread      int // octets in buffer
	owed        int // octets that were read, and that the client has not been told of
	received    int64
	trailer     exchange.Header
	remoteEnded bool
	deaf        bool      // nobody reads
	readBy      time.Time // zero: not bounded

	window     int64 // octets of the body that the client takes
	blocked    bool  // waits for a window
	localEnded bool
	lastFlags  int    // where the flags of the last frame are in the connection's out
	lastSent   uint64 // and that it still is there
	code       Code   // to reset with
}

func newStream(c *Conn, id uint32, h *head) *Stream {
	s := &Stream{
		Method: h.method, Scheme: h.scheme, Authority: h.authority, Path: h.path, Protocol: h.protocol,
		Header: h.fields, Length: h.length, Large: h.large,
		c: c, id: id, window: c.initial, code: InternalError,
	}
	s.wake.L = &c.mu
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	return s
}

// run has the handler answer.
func (s *Stream) run() {
	s.c.cfg.Handler(s.ctx, s)
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s.err != nil:
	case !s.localEnded:
		c.out = appendReset(c.buffer(), s.id, s.code)
		c.remove(s, true)
	case !s.remoteEnded: // the rest of the body is not wanted (RFC 9113 section 8.1)
		c.out = appendReset(c.buffer(), s.id, NoError)
		c.remove(s, true)
	}
	s.drop()
	s.abort(errEnded) // ends the context as well
	c.finished()
	c.flush()
}

// abort makes everything that is called from now on, or waits, return err.
func (s *Stream) abort(err error) {
	if s.err == nil {
		s.err = err
	}
	s.cancel()
	s.wake.Broadcast()
}

// drop lets go of what was received and not read.
func (s *Stream) drop() {
	s.deaf = true
	n := s.unread
	s.unread = 0
	s.buffer = bytes.Buffer{}
	s.c.giveBack(n)
}

// endRemote notes that the client has said everything.
func (s *Stream) endRemote() {
	s.remoteEnded = true
	if s.localEnded {
		s.c.remove(s, false)
	}
}

// endLocal notes that the reply is over.
func (s *Stream) endLocal() {
	s.localEnded = true
	if s.remoteEnded {
		s.c.remove(s, false)
	}
}

// giveBack lets the client send n octets more of the body. It says so when there is enough to say.
func (s *Stream) giveBack(n int) {
	s.unread -= n
	if s.owed += n; s.owed >= streamWindow/4 && !s.remoteEnded && s.err == nil {
		s.c.out = appendWindow(s.c.buffer(), s.id, s.owed)
		s.owed = 0
		s.c.flushSoon()
	}
}

// wait waits for a change, or until by; false: until then.
func (s *Stream) wait(by time.Time) bool {
	if by.IsZero() {
		s.wake.Wait()
		return true
	}
	left := time.Until(by)
	if left <= 0 {
		return false
	}
	timer := time.AfterFunc(left, func() {
		s.c.mu.Lock()
		s.wake.Broadcast()
		s.c.mu.Unlock()
	})
	s.wake.Wait()
	timer.Stop()
	return true
}

// in is the moment d from now, or none.
func in(d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return time.Now().Add(d)
}

// readable is how much of what was received may be read. The last octet of a body of known length waits for the end of the
// stream: until then, more may come, and an upstream that had the whole length would take the request for a right one.
func (s *Stream) readable() int {
	if s.Length > 0 && s.received >= s.Length && !s.remoteEnded {
		return s.buffer.Len() - 1
	}
	return s.buffer.Len()
}

// Read reads the body. Of one with a known length, the last octet comes when the client has ended the stream.
func (s *Stream) Read(p []byte) (int, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	var by time.Time
	for first := true; ; first = false {
		switch {
		case s.deaf:
			return 0, errClosed
		case s.readable() > 0 && len(p) > 0:
			n, _ := s.buffer.Read(p[:min(len(p), s.readable())])
			s.giveBack(n)
			c.giveBack(n)
			return n, nil
		case s.err != nil:
			return 0, s.err
		case s.remoteEnded:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		if first {
			by = in(s.ReadTimeout)
		}
		until := by
		if !s.readBy.IsZero() && (by.IsZero() || s.readBy.Before(by)) {
			until = s.readBy
		}
		if !s.wait(until) {
			return 0, errStalled
		}
	}
}

// SetReadDeadline bounds every read, besides ReadTimeout; also one that waits.
func (s *Stream) SetReadDeadline(at time.Time) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.readBy = at
	s.wake.Broadcast()
	return nil
}

// CloseRead ends reading; a read that waits returns. What the client still sends is thrown away, up to a window.
func (s *Stream) CloseRead() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.drop()
	s.wake.Broadcast()
}

// Trailer is what followed the body; nil before its end.
func (s *Stream) Trailer() exchange.Header {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.trailer
}

// Interim sends a 1xx response.
func (s *Stream) Interim(status int, h exchange.Header) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.writable(); err != nil {
		return err
	}
	s.head(status, h)
	s.c.flush()
	return s.err
}

// Head begins the final response. It leaves with what follows. Without a date, it is given one.
func (s *Stream) Head(status int, h exchange.Header) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.writable(); err != nil {
		return err
	}
	s.head(status, h)
	return nil
}

// Accept answers an extended CONNECT with 200: Read and Write are the tunnel's from now on.
func (s *Stream) Accept(h exchange.Header) error {
	if err := s.Head(http.StatusOK, h); err != nil {
		return err
	}
	return s.Flush()
}

// Write sends octets of the body. They may stay here until Flush, CloseWrite, or until there are more.
func (s *Stream) Write(p []byte) (int, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	var by, grown time.Time // until when a window is waited for, and until when a small one may grow
	for n := 0; ; {
		if err := s.writable(); err != nil {
			return n, err
		}
		if n == len(p) {
			return n, nil
		}
		if len(c.out) >= outSize && !c.flushing {
			c.flush()
			continue
		}
		patient := grown.IsZero() || time.Now().Before(grown)
		if k := s.room(len(p)-n, patient); k > 0 {
			s.data(p[n:n+k], k == len(p)-n || k >= 8)
			n += k
			by, grown = time.Time{}, time.Time{}
			if len(c.out) >= flushSize {
				c.flush()
			}
			continue
		}
		c.flush() // who waits for a window must have said everything
		if s.err != nil || s.room(len(p)-n, patient) > 0 {
			continue
		}
		if by.IsZero() {
			by = in(s.WriteTimeout)
		}
		until := by
		if s.room(len(p)-n, false) > 0 {
			if grown.IsZero() {
				grown = time.Now().Add(growTime)
			}
			until = grown
		}
		s.blocked = true
		c.blocked++
		ok := s.wait(until)
		c.blocked--
		s.blocked = false
		if !ok && until == by {
			s.abort(errUnread)
			s.reset(Cancel)
			return n, s.err
		}
	}
}

// room is how much of n octets may be sent now. Who is patient does not send a small part of them.
func (s *Stream) room(n int, patient bool) int {
	c := s.c
	k := max(0, min(n, int(min(s.window, c.window, int64(c.frame)))))
	if len(c.out) >= outSize || patient && k < min(n, 1<<10) {
		return 0
	}
	return k
}

// Flush sends what is here.
func (s *Stream) Flush() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.writable(); err != nil {
		return err
	}
	s.c.flush()
	return s.err
}

// CloseWrite ends the reply, with a trailer section if there are fields for one, and sends what is here.
func (s *Stream) CloseWrite(trailer exchange.Header) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.localEnded {
		return nil
	}
	if err := s.writable(); err != nil {
		return err
	}
	s.finish(trailer)
	s.c.flush()
	return s.err
}

// Reset breaks the stream off when its handler returns, with code.
func (s *Stream) Reset(code Code) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.code = code
}

func (s *Stream) writable() error {
	switch {
	case s.err != nil:
		return s.err
	case s.localEnded:
		return errEnded
	}
	return nil
}

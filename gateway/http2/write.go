package http2

import (
	"net/http"
	"strconv"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/postern-gateway/postern/gateway/exchange"
)

const (
	flushSize = 16 << 10 // that much is sent without being asked to
	outSize   = 64 << 10 // that much waits at most, besides what is being sent
	writeSize = 16 << 10 // of one write, which has the time that a write may take

	// growTime is how long a window that has room for little may take to have room for more. A client that opens its
	// windows by what it was sent, frame by frame, would else get frames that become ever smaller: each cut that a
	// window makes comes back with the next one (the silly window syndrome, RFC 1122 section 4.2.3.4).
	growTime = 10 * time.Millisecond
)

// buffer is what frames are appended to.
func (c *Conn) buffer() []byte {
	if c.out == nil {
		c.out = (*c.pools.out.Get().(*[]byte))[:0]
	}
	return c.out
}

// flush sends what is in out, unless somebody is about it: who does goes on until there is nothing. It lets go of mu
// while it writes.
func (c *Conn) flush() {
	if c.flushing {
		return
	}
	c.flushing = true
	for turn := 0; len(c.out) > 0 && c.err == nil; turn++ {
		if turn == 4 {
			// What others say is not for this goroutine alone to carry.
			c.work.Go(func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.flushing = false
				c.flush()
			})
			return
		}
		b, limit := c.out, c.writeTime
		c.out = nil
		c.sent++
		c.mu.Unlock()
		err := c.send(b, limit)
		c.mu.Lock()
		if cap(b) <= 2*outSize {
			c.pools.out.Put(&b)
		}
		if err != nil {
			c.fail(err)
		}
		c.made()
	}
	c.flushing = false
	c.room.Broadcast()
}

// made tells streams that wait that there is room again.
func (c *Conn) made() {
	if c.blocked == 0 {
		return
	}
	for _, s := range c.streams {
		if s.blocked {
			s.wake.Broadcast()
		}
	}
}

// flushSoon is flush for the reader, which must not wait for a client that waits for it.
func (c *Conn) flushSoon() {
	if c.flushing || c.soon {
		return
	}
	c.soon = true
	c.work.Go(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.soon = false
		c.flush()
	})
}

// send writes b. Each part has its time.
func (c *Conn) send(b []byte, limit time.Duration) error {
	for len(b) > 0 {
		_ = c.rw.SetWriteDeadline(time.Now().Add(limit))
		n, err := c.rw.Write(b[:min(len(b), writeSize)])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// fail notes that nothing can be sent any more, and has the reader end.
func (c *Conn) fail(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.out = nil
	for _, s := range c.streams {
		s.abort(errGone)
	}
	c.room.Broadcast()
	_ = c.rw.SetReadDeadline(time.Unix(1, 0))
}

// head appends a response's head.
func (s *Stream) head(status int, h exchange.Header) {
	c := s.c
	c.encoded.b = c.encoded.b[:0]
	c.encode(":status", statusText(status))
	date := status < 200
	for i := range h {
		c.encode(h[i].Name, h[i].Value)
		date = date || h[i].Name == "date"
	}
	if !date {
		c.encode("date", c.now())
	}
	s.block(false)
}

// now is the date field of this second.
func (c *Conn) now() string {
	if t := time.Now(); t.Unix() != c.dated {
		c.dated, c.date = t.Unix(), t.UTC().Format(http.TimeFormat)
	}
	return c.date
}

func statusText(status int) string {
	if status == http.StatusOK {
		return "200"
	}
	return strconv.Itoa(status)
}

func (c *Conn) encode(name, value string) {
	_ = c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // never fails: it is memory
}

// block appends what was encoded as HEADERS, and CONTINUATION where it is long.
func (s *Stream) block(end bool) {
	c := s.c
	b := c.buffer()
	kind, flags := byte(frameHeaders), byte(0)
	if end {
		flags = flagEndStream
	}
	s.lastFlags, s.lastSent = len(b)+4, c.sent
	for rest := c.encoded.b; ; {
		k := min(len(rest), c.frame)
		if k == len(rest) {
			flags |= flagEndHeaders
		}
		b = append(appendFrame(b, k, kind, flags, s.id), rest[:k]...)
		if rest = rest[k:]; len(rest) == 0 {
			break
		}
		kind, flags = frameContinuation, 0
	}
	c.out = b
	if end {
		s.endLocal()
	}
}

// data appends one DATA frame. fair: it is not the client's doing that it is small.
func (s *Stream) data(p []byte, fair bool) {
	c := s.c
	b := c.buffer()
	s.lastFlags, s.lastSent = len(b)+4, c.sent
	c.out = append(appendFrame(b, len(p), frameData, 0, s.id), p...)
	s.window -= int64(len(p))
	c.window -= int64(len(p))
	if fair {
		c.calm.sent()
	}
}

// finish appends the end of the reply.
func (s *Stream) finish(trailer exchange.Header) {
	c := s.c
	switch {
	case len(trailer) > 0:
		c.encoded.b = c.encoded.b[:0]
		for i := range trailer {
			c.encode(trailer[i].Name, trailer[i].Value)
		}
		s.block(true)
		return
	case s.lastFlags > 0 && s.lastSent == c.sent && len(c.out) > 0:
		c.out[s.lastFlags] |= flagEndStream
	default:
		c.out = appendFrame(c.buffer(), 0, frameData, flagEndStream, s.id)
	}
	s.endLocal()
}

// reset appends RST_STREAM and closes the stream.
func (s *Stream) reset(code Code) {
	c := s.c
	c.out = appendReset(c.buffer(), s.id, code)
	c.remove(s, true)
	c.flush()
}

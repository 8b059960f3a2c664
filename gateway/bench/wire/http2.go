//go:build linux

package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The parts of HTTP/2 that a client needs who only GETs (RFC 9113).
const (
	frameHead = 9

	frameData     = 0x0
	frameHeaders  = 0x1
	frameReset    = 0x3
	frameSettings = 0x4
	framePing     = 0x6
	frameGoAway   = 0x7
	frameWindow   = 0x8

	flagEnd        = 0x1 // of a stream; of settings and pings: acknowledged
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20

	window    = 1<<31 - 1 // the largest there is
	windowTop = 1 << 30   // what may be used of it before more is given
)

// client2 is a client's end of an HTTP/2 connection.
type client2 struct {
	l     *Loop
	s     *socket
	block []byte // the request's fields, the same each time and kept in no table
	in    []byte // a frame that is not whole yet
	plain []byte
	out   []byte
	next  uint32
	slots []*slot
	used  int // octets of bodies since the connection's window was last opened
}

// slot is one stream at a time.
type slot struct {
	c   *client2
	id  uint32 // 0: none is open
	due int64
	ok  bool // its status was 200
	got int
}

func newClient2(l *Loop, s *socket) (*client2, []starter, error) {
	job := l.run.Job
	if job.Method != "GET" || job.Events {
		return nil, nil, errors.New("over HTTP/2 only plain GETs can be sent")
	}
	c := &client2{l: l, s: s, next: 1, plain: make([]byte, 16<<10), block: []byte{0x82, 0x87}} // :method GET, :scheme https
	for _, f := range append([][2]string{{":path", job.Path}, {":authority", "localhost"}, {"user-agent", "Mozilla/5.0 (X11; Linux x86_64)"}, {"accept", "*/*"}, {"accept-language", "en"}}, job.Header...) {
		if len(f[0]) > 126 || len(f[1]) > 126 {
			return nil, nil, fmt.Errorf("the field %q is too long", f[0])
		}
		// RFC 7541, 6.2.2: literal, not indexed, not Huffman coded.
		c.block = append(append(c.block, 0, byte(len(f[0]))), f[0]...)
		c.block = append(append(c.block, byte(len(f[1]))), f[1]...)
	}
	var idle []starter
	for range max(job.Streams, 1) {
		sl := &slot{c: c}
		c.slots, idle = append(c.slots, sl), append(idle, sl)
	}
	hello := []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	settings := []byte{0, 2, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff} // no push; the streams' windows
	hello = appendFrame(hello, frameSettings, 0, 0, settings)
	hello = appendFrame(hello, frameWindow, 0, 0, binary.BigEndian.AppendUint32(nil, window-65535))
	return c, idle, s.send(hello)
}

func appendFrame(b []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	b = append(b, byte(n>>16), byte(n>>8), byte(n), kind, flags)
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

func (c *client2) close() { c.l.drop(c.s.fd) }

func (s *slot) start(due int64) error {
	c := s.c
	s.id, s.due, s.ok, s.got = c.next, due, false, 0
	c.next += 2
	c.out = appendFrame(c.out[:0], frameHeaders, flagEnd|flagEndHeaders, s.id, c.block)
	return c.s.send(c.out)
}

func (c *client2) ready(uint32) error {
	if c.l.run == nil {
		return nil
	}
	if err := c.s.each(c.consume, c.plain); err != nil {
		return fmt.Errorf("the proxy closed an HTTP/2 connection: %w", err)
	}
	return nil
}

func (c *client2) consume(p []byte) error {
	if len(c.in) > 0 {
		c.in = append(c.in, p...)
		p = c.in
	}
	for len(p) >= frameHead {
		n := int(p[0])<<16 | int(p[1])<<8 | int(p[2])
		if n > 1<<14 {
			return fmt.Errorf("the proxy sends a frame of %d octets", n)
		}
		if len(p) < frameHead+n {
			break
		}
		if err := c.frame(p[3], p[4], binary.BigEndian.Uint32(p[5:])&window, p[frameHead:frameHead+n]); err != nil {
			return err
		}
		p = p[frameHead+n:]
	}
	c.in = append(c.in[:0], p...)
	return nil
}

func (c *client2) frame(kind, flags byte, id uint32, payload []byte) error {
	switch kind {
	case frameSettings:
		if flags&flagEnd != 0 {
			return nil
		}
		return c.s.send(appendFrame(nil, frameSettings, flagEnd, 0, nil))
	case framePing:
		if flags&flagEnd != 0 {
			return nil
		}
		return c.s.send(appendFrame(nil, framePing, flagEnd, 0, payload))
	case frameGoAway:
		return fmt.Errorf("the proxy ends a connection: %x", payload)
	case frameReset:
		return fmt.Errorf("the proxy ends a stream: %x", payload)
	case frameHeaders, frameData:
	default: // windows: nothing is sent that they bound; continuations: what matters comes first
		return nil
	}
	var s *slot
	for _, one := range c.slots {
		if one.id == id {
			s = one
		}
	}
	if s == nil || id == 0 {
		return fmt.Errorf("the proxy answers on stream %d, which is not open", id)
	}
	flow := len(payload)
	payload, err := unpad(kind, flags, payload)
	if err != nil {
		return err
	}
	if kind == frameHeaders {
		if err := s.fields(payload); err != nil {
			return err
		}
	} else {
		s.got += len(payload)
		if c.used += flow; c.used > windowTop {
			more := binary.BigEndian.AppendUint32(nil, uint32(c.used)) //nolint:gosec // at most 2^30 and a frame
			if err := c.s.send(appendFrame(nil, frameWindow, 0, 0, more)); err != nil {
				return err
			}
			c.used = 0
		}
	}
	if flags&flagEnd == 0 {
		return nil
	}
	if want := c.l.run.Length; !s.ok || want >= 0 && s.got != want {
		return fmt.Errorf("the proxy sends %d octets instead of %d, status 200: %v", s.got, want, s.ok)
	}
	s.id = 0
	return c.l.run.finished(s, s.due)
}

func unpad(kind, flags byte, payload []byte) ([]byte, error) {
	pad := 0
	if flags&flagPadded != 0 && len(payload) > 0 {
		pad, payload = int(payload[0]), payload[1:]
	}
	if kind == frameHeaders && flags&flagPriority != 0 && len(payload) >= 5 {
		payload = payload[5:]
	}
	if pad > len(payload) {
		return nil, errors.New("the proxy pads a frame beyond its length")
	}
	return payload[:len(payload)-pad], nil
}

// fields looks at the beginning of a header block: the status comes first, and 200 is entry 8 of the static table (RFC 7541,
// Appendix A), behind changes of the table's size. Trailers come after it.
func (s *slot) fields(block []byte) error {
	for len(block) > 0 && block[0]&0xe0 == 0x20 { // a new size: a prefix of five bits, then seven an octet
		more := block[0]&0x1f == 0x1f
		for block = block[1:]; more && len(block) > 0; block = block[1:] {
			more = block[0]&0x80 != 0
		}
	}
	if !s.ok && (len(block) == 0 || block[0] != 0x88) {
		return fmt.Errorf("the proxy answers with something else than 200: %x", block[:min(len(block), 16)])
	}
	s.ok = true
	return nil
}

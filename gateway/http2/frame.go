package http2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Kinds of frames (RFC 9113 section 6).
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameReset        = 0x3
	frameSettings     = 0x4
	framePush         = 0x5
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindow       = 0x8
	frameContinuation = 0x9
)

// Flags of frames.
const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings (RFC 9113 section 6.5.2, RFC 8441 section 3, RFC 9218 section 2.1).
const (
	settingTable        = 0x1
	settingPush         = 0x2
	settingStreams      = 0x3
	settingWindow       = 0x4
	settingFrame        = 0x5
	settingHeaderList   = 0x6
	settingConnect      = 0x8
	settingNoPriorities = 0x9
)

// Code is an error code of HTTP/2 (RFC 9113 section 7).
type Code uint32

// The codes that are sent.
const (
	NoError          Code = 0x0
	ProtocolError    Code = 0x1
	InternalError    Code = 0x2
	FlowControlError Code = 0x3
	StreamClosed     Code = 0x5
	FrameSizeError   Code = 0x6
	RefusedStream    Code = 0x7
	Cancel           Code = 0x8
	CompressionError Code = 0x9
	EnhanceYourCalm  Code = 0xb
)

// connError ends the connection; it is also what reading reports when the connection is over.
type connError struct {
	code Code
	why  string
}

func (e *connError) Error() string { return fmt.Sprintf("http2: %s (code %d)", e.why, e.code) }

func broken(why string) error { return &connError{ProtocolError, why} }

const (
	headerSize = 9     // octets of a frame's header (RFC 9113 section 4.1)
	maxFrame   = 16384 // octets of a payload, the least an endpoint has to accept and all we do
	maxID      = 1<<31 - 1
	maxWindow  = 1<<31 - 1
)

// frame is one frame in the input. Its payload is valid until the next one is read.
type frame struct {
	kind, flags byte
	id          uint32
	payload     []byte
}

func (f *frame) has(flag byte) bool { return f.flags&flag != 0 }

// unpad removes padding (RFC 9113 section 6.1).
func (f *frame) unpad() error {
	if !f.has(flagPadded) {
		return nil
	}
	if len(f.payload) == 0 {
		return &connError{FrameSizeError, "a padded frame without the length of its padding"}
	}
	pad := int(f.payload[0])
	if pad >= len(f.payload) {
		return broken("padding is as long as its frame")
	}
	f.payload = f.payload[1 : len(f.payload)-pad]
	return nil
}

// small is the input of a connection that says little. Larger frames are read into one of the pooled buffers.
const (
	small = 1 << 10
	large = headerSize + maxFrame + 15<<10
)

// read returns the next frame. While nothing of it has come, it looks after the connection: see quiet.
func (c *Conn) read() (frame, error) {
	if c.got == c.taken {
		c.shrink()
	}
	var by time.Time // when all of the frame has to be here
	var slow bool    // it is DATA, which may be as slow as a body may
	need := headerSize
	for {
		for c.got-c.taken < need {
			c.makeRoom(need)
			head := c.block.open || !c.settled // in the midst of what has a deadline as a whole
			waits := c.got == c.taken && !head
			switch {
			case slow:
				by = time.Now().Add(c.cfg.Body)
			case head:
				by = c.block.by
			case by.IsZero():
				by = time.Now().Add(c.cfg.Header)
			}
			if waits {
				c.quiet()
				by = time.Time{}
			} else {
				_ = c.rw.SetReadDeadline(by)
			}
			n, err := c.rw.Read(c.in[c.got:])
			c.got += n
			c.heard = c.heard || n > 0
			if err != nil && n == 0 && !(waits && errors.Is(err, os.ErrDeadlineExceeded) && c.alive()) {
				return frame{}, err
			}
		}
		h := c.in[c.taken:]
		length := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
		if length > maxFrame {
			return frame{}, &connError{FrameSizeError, "a frame is too large"}
		}
		if c.got-c.taken >= headerSize+length {
			f := frame{kind: h[3], flags: h[4], id: binary.BigEndian.Uint32(h[5:]) & maxID, payload: h[headerSize : headerSize+length]}
			c.taken += headerSize + length
			return f, nil
		}
		need, slow = headerSize+length, h[3] == frameData
	}
}

// makeRoom makes place for n octets from taken on.
func (c *Conn) makeRoom(n int) {
	if c.taken+n <= len(c.in) && c.got < len(c.in) {
		return
	}
	to := c.in
	if n > len(c.in) {
		to = *c.pools.in.Get().(*[]byte)
	}
	c.got = copy(to, c.in[c.taken:c.got])
	c.taken = 0
	c.in = to
}

// shrink lets go of a large buffer of input that nothing is left of.
func (c *Conn) shrink() {
	last := c.got
	c.got, c.taken = 0, 0
	if len(c.in) > small && last <= small {
		buffer := c.in
		c.in = make([]byte, small)
		c.pools.in.Put(&buffer)
	}
}

// appendFrame appends a frame's header.
func appendFrame(b []byte, length int, kind, flags byte, id uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func appendReset(b []byte, id uint32, code Code) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, frameReset, 0, id), uint32(code))
}

func appendGoAway(b []byte, last uint32, code Code) []byte {
	b = binary.BigEndian.AppendUint32(appendFrame(b, 8, frameGoAway, 0, 0), last)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

func appendWindow(b []byte, id uint32, n int) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, frameWindow, 0, id), uint32(n))
}

func appendSetting(b []byte, id uint16, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), value)
}

// closeWriter is a connection whose sending side can be ended alone.
type closeWriter interface {
	net.Conn
	CloseWrite() error
}

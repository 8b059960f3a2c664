package listener

import (
	"errors"
	"net"
	"time"
)

// frames stands between a connection and the standard HTTP/2 server and counts frames that cost the server more than the
// client: resets, pings, settings, priorities and empty frames (CVE-2019-9511 to 9518, CVE-2023-44487). A client that
// sends more than any honest one is cut off.
type frames struct {
	net.Conn
	c      *conn
	early  []byte // read ahead, before anything else
	header [9]byte
	have   int // octets of header read
	left   int // octets of the preface or of a payload to skip
	budget float64
	filled time.Time
}

// A connection may send frameBurst such frames at once and frameRate a second in the long run. A proxy that serves many
// users over one connection stays far below it, also when every one of them leaves.
const (
	frameBurst = 2000
	frameRate  = 200
)

var errFlood = errors.New("too many control frames")

func newFrames(c *conn, rw net.Conn, early []byte) *frames {
	return &frames{Conn: rw, c: c, early: early, left: len(preface), budget: frameBurst, filled: time.Now()}
}

func (f *frames) Read(p []byte) (n int, err error) {
	if len(f.early) > 0 {
		n = copy(p, f.early)
		f.early = f.early[n:]
	} else {
		n, err = f.Conn.Read(p)
	}
	if !f.follow(p[:n]) {
		live := f.c.live()
		f.c.sock.door.set.cfg.Observer.Refused(live.cfg.Name, "flood")
		f.c.sock.door.set.log.Warn("http2 flood", "listener", live.cfg.Name)
		return 0, errFlood
	}
	return n, err
}

// follow reads frame headers as they pass; false when the budget is used up.
func (f *frames) follow(b []byte) bool {
	for len(b) > 0 {
		if f.left > 0 {
			n := min(f.left, len(b))
			f.left -= n
			b = b[n:]
			continue
		}
		n := copy(f.header[f.have:], b)
		f.have += n
		b = b[n:]
		if f.have < len(f.header) {
			return true
		}
		f.have = 0
		f.left = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
		if costly(f.header[3], f.header[4], f.left) && !f.spend() {
			return false
		}
	}
	return true
}

// costly reports whether a frame (RFC 9113 section 6) is of a kind that is counted.
func costly(kind, flags byte, length int) bool {
	const endStream = 0x1
	switch kind {
	case 0x0: // DATA
		return length == 0 && flags&endStream == 0
	case 0x1, 0x9: // HEADERS, CONTINUATION
		return length == 0
	case 0x2, 0x3, 0x4, 0x6, 0x10: // PRIORITY, RST_STREAM, SETTINGS, PING, PRIORITY_UPDATE
		return true
	}
	return false
}

func (f *frames) spend() bool {
	if f.budget < 1 {
		now := time.Now()
		f.budget = min(frameBurst, f.budget+frameRate*now.Sub(f.filled).Seconds())
		f.filled = now
	}
	f.budget--
	return f.budget >= 0
}

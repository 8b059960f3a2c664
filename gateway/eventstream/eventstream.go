// Package eventstream cuts streams of server-sent events (WHATWG HTML standard, section 9.2.6) into events. Its
// main type is Splitter.
package eventstream

import (
	"bytes"
	"slices"
)

// MaxEvent is the longest event that is taken from an upstream, in octets.
const MaxEvent = 1 << 20

// Splitter cuts an event stream into events without reading what they say. An event ends with its blank line; lines end with
// LF, CRLF or CR. Where the stream is cut into reads makes no difference to the events.
type Splitter struct {
	buf     []byte
	start   int // of the event under way
	scanned int // octets looked at
	end     int // of what was read
	max     int

	empty bool // the line under way has no octet yet
	cr    bool // the last octet was a CR that ended a line
	blank bool // that line was empty: the event ends after the LF that may follow
	lone  bool // the line before ended with CR alone, so no LF is waited for
	skip  bool // swallow an LF: its CR has ended the event before
}

// New makes a Splitter of events of at most limit octets: see Full.
func New(limit int) *Splitter {
	return &Splitter{max: limit, empty: true, buf: make([]byte, 8<<10)}
}

// Room is where the next octets are to be read to.
func (e *Splitter) Room() []byte {
	if e.start > 0 {
		n := copy(e.buf, e.buf[e.start:e.end])
		e.scanned -= e.start
		e.start, e.end = 0, n
	}
	if len(e.buf)-e.end < 2<<10 {
		e.buf = slices.Grow(e.buf, max(len(e.buf), 2<<10))
		e.buf = e.buf[:cap(e.buf)]
	}
	return e.buf[e.end:]
}

// Advance says that n octets were read into Room's.
func (e *Splitter) Advance(n int) { e.end += n }

// Full reports that the event under way is longer than any may be.
func (e *Splitter) Full() bool { return e.end-e.start > e.max }

// Next returns the next whole event with its blank line. It is valid until Room is called.
func (e *Splitter) Next() (event []byte, ok bool) {
	for e.scanned < e.end {
		c := e.buf[e.scanned]
		if e.skip {
			e.skip = false
			if c == '\n' {
				e.scanned++
				e.start = e.scanned
				continue
			}
		}
		if e.cr {
			e.cr = false
			if c == '\n' {
				e.scanned++
				e.lone = false
				if e.blank {
					return e.cut(), true
				}
				continue
			}
			e.lone = true
			if e.blank {
				return e.cut(), true
			}
		}
		if c != '\n' && c != '\r' {
			e.scanned += lineEnd(e.buf[e.scanned:e.end])
			e.empty = false
			continue
		}
		e.scanned++
		switch c {
		case '\n':
			e.lone = false
			if e.empty {
				return e.cut(), true
			}
			e.empty = true
		case '\r':
			if e.empty && e.lone {
				e.skip = true
				return e.cut(), true
			}
			e.cr, e.blank, e.empty = true, e.empty, true
		}
	}
	return nil, false
}

// lineEnd is where in b the first LF or CR stands, or b's length.
func lineEnd(b []byte) int {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[:i]
	}
	if i := bytes.IndexByte(b, '\r'); i >= 0 {
		return i
	}
	return len(b)
}

// cut ends the event at what was scanned.
func (e *Splitter) cut() []byte {
	event := e.buf[e.start:e.scanned]
	e.start = e.scanned
	e.empty, e.blank, e.cr, e.lone = true, false, false, false
	return event
}

// Rest is what is left at the end of the stream, made a whole event where the sender forgot its blank line. It is empty
// when nothing is left.
func (e *Splitter) Rest() []byte {
	event := e.buf[e.start:e.end]
	e.start, e.scanned = e.end, e.end
	if len(event) == 0 || e.skip && len(event) == 1 && event[0] == '\n' || e.cr && e.blank {
		return event
	}
	if !e.empty {
		event = append(slices.Clip(event), '\n')
	}
	return append(slices.Clip(event), '\n')
}

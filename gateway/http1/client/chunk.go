package client

import (
	"bytes"
	"math"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// chunks takes the chunked coding (RFC 9112 section 7.1) off a body, octet by octet as they come. Extensions are passed over.
type chunks struct {
	state  chunkState
	digits int
	size   int64 // of the chunk, or what is left of it
	line   int   // octets of the extension so far
	slack  int   // octets of framing beyond what the data that came with them excuses

	raw    []byte // the trailer section so far, with its line ends
	at     int    // where the last line of it begins
	fields exchange.Header
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExtension
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer
	chunkDone
)

// maxExtension is how long the extension of one chunk may be, and maxSlack how many octets of framing a body may consist of
// beyond twice its data: tiny chunks with long extensions make work that nobody sees in a body's length.
const (
	maxExtension = 4 << 10
	maxSlack     = 16 << 10
)

func (d *chunks) done() bool { return d.state == chunkDone }

// decode moves what is data in src to dst, which must not be shorter than a chunk's data in src is wanted and may begin at the
// same place as src. n octets were moved, taken ones of src used up.
func (d *chunks) decode(dst, src []byte) (n, taken int, err error) {
	i := 0
	for i < len(src) && d.state != chunkDone {
		if d.state == chunkData {
			k := copy(dst[n:], src[i:i+int(min(d.size, int64(len(src)-i)))])
			if k == 0 {
				break // dst is full
			}
			n, i = n+k, i+k
			if d.size -= int64(k); d.size == 0 {
				d.state = chunkDataCR
			}
			continue
		}
		if d.state == chunkTrailer {
			k, err := d.trailer(src[i:])
			if i += k; err != nil {
				return n, i, err
			}
			continue
		}
		if !d.frame(src[i]) {
			return n, i, invalid("a chunk is malformed")
		}
		i++
	}
	return n, i, nil
}

// frame takes one octet that is not data.
func (d *chunks) frame(c byte) bool {
	switch d.state {
	case chunkSize:
		v := hex(c)
		switch {
		case v < 16:
			if d.digits++; d.digits > 16 || d.size > math.MaxInt64>>4 {
				return false
			}
			d.size = d.size<<4 | int64(v)
			return true
		case d.digits == 0:
			return false
		}
		switch c {
		case ';':
			d.state = chunkExtension
		case '\r':
			d.state = chunkSizeLF
		default: // white space too, which would be bad if it were taken (RFC 9112 section 7.1.1)
			return false
		}
	case chunkExtension:
		if c == '\r' {
			d.state = chunkSizeLF
			return true
		}
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
		d.line++
	case chunkSizeLF:
		if c != '\n' {
			return false
		}
		return d.sized()
	case chunkDataCR:
		d.state = chunkDataLF
		return c == '\r'
	case chunkDataLF:
		d.state = chunkSize
		return c == '\n'
	}
	return d.line <= maxExtension
}

// sized is called at the end of a chunk's size.
func (d *chunks) sized() bool {
	d.slack += d.digits + d.line + 4
	if d.size > int64(d.slack) {
		d.slack = 0
	} else {
		d.slack = max(d.slack-2*int(d.size)-8, 0)
	}
	d.digits, d.line = 0, 0
	d.state = chunkData
	if d.size == 0 {
		d.state = chunkTrailer
	}
	return d.slack <= maxSlack
}

// trailer takes octets of the trailer section, to the end of a line at most.
func (d *chunks) trailer(src []byte) (taken int, err error) {
	taken = len(src)
	i := bytes.IndexByte(src, '\n')
	if i >= 0 {
		taken = i + 1
	}
	if len(d.raw)+taken > maxTrailer {
		return 0, invalid("the trailer section is too long")
	}
	d.raw = append(d.raw, src[:taken]...)
	if i < 0 {
		return taken, nil
	}
	line := d.raw[d.at:]
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return taken, invalid("a line of the trailer section ends without CR")
	}
	d.at = len(d.raw)
	if line = line[:len(line)-2]; len(line) == 0 {
		d.state = chunkDone
		return taken, d.read()
	}
	if !lowerField(line) || bytes.IndexByte(line, ':') != len(name(line)) {
		return taken, invalid("a trailer field is malformed")
	}
	return taken, nil
}

// read makes fields of the trailer section, without those that say how a message is framed or belong to a hop.
func (d *chunks) read() error {
	text := string(d.raw)
	d.raw, d.at = nil, 0
	for line := range strings.SplitSeq(text, "\r\n") {
		name, value, ok := strings.Cut(line, ":")
		if !ok || HopByHop(name) {
			continue
		}
		if len(d.fields) == maxFields {
			return invalid("the trailer section has too many fields")
		}
		d.fields.Add(name, strings.Trim(value, " \t"))
	}
	return nil
}

// hex is the value of a digit, and 255 of what is none.
func hex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 255
}

package client

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// receive reads interim responses and then the head of the final one, and finds out how its body ends.
func (c *Conn) receive(r *Request, resp *Response) error {
	for interim := 0; ; interim++ {
		if interim > maxInterim {
			return invalid("too many interim responses")
		}
		h, err := c.readHead()
		if err != nil {
			return err
		}
		switch {
		case h.status == 101:
			return c.switched(r, resp, h)
		case h.status >= 200:
			return c.begin(r, resp, h)
		case h.length >= 0 || h.chunked:
			return invalid("an interim response has no body") // RFC 9112 section 6.1
		case h.status == 100:
			c.up.proceed()
		case r.Interim != nil:
			if err := r.Interim(h.status, h.fields); err != nil {
				return &Error{Reason: Given, Err: err}
			}
		}
	}
}

// readHead reads one head and takes it from the buffer.
func (c *Conn) readHead() (*head, error) {
	var s scan
	for {
		if c.buf != nil && c.r < c.w {
			switch done, err := s.lines((*c.buf)[c.r:c.w]); {
			case err != nil:
				return nil, err
			case done:
				h := &c.head
				*h = head{length: -1, fields: make(exchange.Header, 0, s.count+2)} // the gateway adds some
				text := string((*c.buf)[c.r : c.r+s.at])
				if c.r += s.at; c.r == c.w {
					c.release()
				}
				return h, h.read(text)
			}
			if err := c.room(); err != nil {
				return nil, err
			}
		}
		err := c.fill()
		switch {
		case err == nil:
		case exchange.AtEnd(err) && c.r < c.w:
			return nil, invalid("the connection ended within a response's head")
		default:
			return nil, &Error{Err: ended(err)}
		}
	}
}

// room makes room behind a head that is not all there.
func (c *Conn) room() error {
	have := c.w - c.r
	switch {
	case have >= maxHead:
		return invalid("the response's head is too long")
	case c.w < len(*c.buf):
		return nil
	}
	b := *c.buf
	if c.r == 0 {
		b = make([]byte, min(4*len(b), maxHead))
	}
	copy(b, (*c.buf)[c.r:c.w])
	if c.r == 0 {
		c.release()
		c.buf = &b
	}
	c.r, c.w = 0, have
	return nil
}

// ended is err, with the end of the connection as what it is in the middle of a response.
func ended(err error) error {
	if exchange.AtEnd(err) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// scan goes through a head line by line as its octets come, checks each, and brings names into lower case.
type scan struct {
	at    int // where the first line begins that is not complete
	seen  int // octets that hold no line's end before it
	line  int // where the last field's line began
	count int // lines so far: the status line and the fields
}

// lines takes the complete lines of b, which grows from call to call. done says that the empty line was among them: at is
// then behind it.
func (s *scan) lines(b []byte) (done bool, err error) {
	for {
		i := bytes.IndexByte(b[s.seen:], '\n')
		if i < 0 {
			s.seen = len(b)
			return false, nil
		}
		end := s.seen + i + 1
		line := b[s.at:end]
		if len(line) < 2 || line[len(line)-2] != '\r' {
			return false, invalid("a line of the response ends without CR") // RFC 9112 section 2.2
		}
		line = line[:len(line)-2]
		switch {
		case s.count == 0:
			if !clean(line) {
				return false, invalid("the status line is malformed")
			}
		case len(line) == 0:
			s.at = end
			return true, nil
		case line[0] == ' ' || line[0] == '\t':
			// A folded line: a gateway makes it one with the line before (RFC 9112 section 5.2), unless how the message is
			// framed would depend on who reads it.
			if s.count == 1 || framing(name(b[s.line:s.at])) || !clean(line) {
				return false, invalid("a field is folded")
			}
			b[s.at-2], b[s.at-1] = ' ', ' '
			s.at, s.seen = end, end
			continue
		case !lowerField(line):
			return false, invalid("a field is malformed")
		}
		if s.count++; s.count > maxFields+1 {
			return false, invalid("the response has too many fields")
		}
		s.line, s.at, s.seen = s.at, end, end
	}
}

// name is the name of a field's line that lowerField took.
func name(line []byte) string {
	return string(bytes.TrimRight(line[:max(bytes.IndexByte(line, ':'), 0)], " \t"))
}

// framing says which fields frame a message or say how the connection goes on. No liberty is taken with them.
func framing(name string) bool {
	switch name {
	case "content-length", "transfer-encoding", "connection", "upgrade", "trailer":
		return true
	}
	return false
}

// lowerField checks "name: value" and brings the name into lower case. White space between the name and the colon is what a
// gateway removes from responses (RFC 9112 section 5.1), but not from the fields that frame them.
func lowerField(line []byte) bool {
	i := 0
	for ; i < len(line); i++ {
		c := lowered[line[i]]
		if c == 0 {
			break
		}
		line[i] = c
	}
	end := i
	for i < len(line) && (line[i] == ' ' || line[i] == '\t') {
		i++
	}
	if end == 0 || i == len(line) || line[i] != ':' || i > end && framing(string(line[:end])) {
		return false
	}
	return clean(line[i+1:])
}

// clean reports whether b holds no control character but tabs (RFC 9110 section 5.5).
func clean(b []byte) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for ; len(b) >= 8; b = b[8:] {
		x := binary.LittleEndian.Uint64(b)
		d := x ^ 0x7f*ones
		// An octet below 0x20, or one that is 0x7f; both tests may also find another above a find, so it is looked at again.
		if ((x-0x20*ones)&^x|(d-ones)&^d)&tops != 0 && !cleanOctets(b[:8]) {
			return false
		}
	}
	return cleanOctets(b)
}

func cleanOctets(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// head is the head of a response.
type head struct {
	status  int
	minor   byte // of the version
	fields  exchange.Header
	length  int64 // -1: there is no Content-Length
	chunked bool
	close   bool // options of Connection
	keep    bool
	upgrade string
}

// read reads a head that scan went through.
func (h *head) read(text string) error {
	line, rest, _ := strings.Cut(text, "\r\n")
	if !h.statusLine(line) {
		return invalid("the status line is malformed")
	}
	named := false // Connection names fields
	for {
		line, rest, _ = strings.Cut(rest, "\r\n")
		if line == "" {
			break
		}
		colon := strings.IndexByte(line, ':')
		name, value := strings.TrimRight(line[:colon], " \t"), strings.Trim(line[colon+1:], " \t")
		if !HopByHop(name) {
			h.fields = append(h.fields, exchange.Field{Name: name, Value: value})
			continue
		}
		switch name {
		case "content-length":
			n, ok := parseLength(value)
			if !ok || h.length >= 0 {
				return invalid("content-length is malformed or there is more than one") // RFC 9112 section 6.3, 5
			}
			h.length = n
		case "transfer-encoding":
			if h.chunked || !exchange.EqualFold(value, "chunked") {
				return invalid("the only transfer-encoding is chunked, once") // RFC 9112 section 6.1
			}
			h.chunked = true
		case "connection":
			named = h.connection(value) || named
		case "upgrade":
			h.upgrade = value
		case "trailer":
			// To announce these is to try how somebody reads the message (RFC 9110 section 6.5.1).
			t := exchange.Header{{Name: name, Value: value}}
			if t.Has(name, "content-length") || t.Has(name, "transfer-encoding") || t.Has(name, "trailer") {
				return invalid("a trailer field that frames the message is announced")
			}
		}
	}
	switch {
	case h.chunked && h.length >= 0:
		return invalid("content-length and transfer-encoding do not go together") // RFC 9112 section 6.3, 3
	case h.chunked && h.minor == 0:
		return invalid("HTTP/1.0 has no transfer-encoding") // RFC 9112 section 6.1
	}
	if named {
		h.dropNamed(text)
	}
	return nil
}

// statusLine reads VERSION SP STATUS [SP REASON]. The second space, which the grammar wants even without a reason, is left
// away by many.
func (h *head) statusLine(line string) bool {
	const version = "HTTP/1."
	if len(line) < 12 || line[:7] != version || line[7] != '0' && line[7] != '1' || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return false
	}
	h.minor = line[7] - '0'
	for _, c := range []byte(line[9:12]) {
		if c < '0' || c > '9' {
			return false
		}
		h.status = h.status*10 + int(c-'0')
	}
	return h.status >= 100
}

// connection reads the options of a Connection field. It reports whether one is the name of a field that ends here.
func (h *head) connection(value string) (named bool) {
	for option := range strings.SplitSeq(value, ",") {
		switch option = strings.Trim(option, " \t"); {
		case exchange.EqualFold(option, "close"):
			h.close = true
		case exchange.EqualFold(option, "keep-alive"):
			h.keep = true
		case option != "" && !exchange.EqualFold(option, "upgrade"):
			named = true
		}
	}
	return named
}

// dropNamed removes the fields that a Connection field names (RFC 9110 section 7.6.1).
func (h *head) dropNamed(text string) {
	var options exchange.Header
	for line := range strings.SplitSeq(text, "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && name == "connection" {
			options.Add(name, value)
		}
	}
	kept := h.fields[:0]
	for _, f := range h.fields {
		if !options.Has("connection", f.Name) {
			kept = append(kept, f)
		}
	}
	h.fields = kept
}

// parseLength reads 1*DIGIT.
func parseLength(s string) (int64, bool) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// switched hands the raw stream over. Where nothing was asked for, resp has no stream.
func (c *Conn) switched(r *Request, resp *Response, h *head) error {
	c.dead.Store(true)
	*resp = Response{Status: h.status, Header: h.fields, Body: exchange.NoBody}
	if r.Upgrade == "" {
		return nil
	}
	if !exchange.EqualFold(h.upgrade, r.Upgrade) {
		return invalid("the connection was switched to what was not asked for") // RFC 9110 section 7.8
	}
	resp.Upgrade = &tunnel{c}
	return nil
}

// begin finds out how the body of a final response ends (RFC 9112 section 6.3).
func (c *Conn) begin(r *Request, resp *Response, h *head) error {
	c.up.answered()
	c.chunks = chunks{}
	*resp = Response{Status: h.status, Header: h.fields, Length: h.length, Body: (*body)(c)}
	if h.close || h.minor == 0 && !h.keep {
		c.dead.Store(true)
	}
	switch {
	case r.Method == "HEAD" || h.status == 304:
	case h.status == 204:
		if h.chunked || h.length > 0 {
			c.dead.Store(true) // it may send a body all the same
		}
	case h.chunked:
		c.mode = byChunks
	case h.length < 0:
		c.mode = byClose
		c.dead.Store(true)
	case h.length > 0:
		c.mode, c.left = byLength, h.length
	}
	if c.mode == noBody {
		c.complete()
	}
	return nil
}

// complete notes that the response was read to its end.
func (c *Conn) complete() {
	c.failure = io.EOF
	c.whole.Store(true)
}

// body is a Conn as the body of its response.
type body Conn

// Read reads on. The last octets come together with io.EOF where it is known that they are the last.
func (b *body) Read(p []byte) (int, error) {
	c := (*Conn)(b)
	c.ending.Lock()
	defer c.ending.Unlock()
	if c.failure != nil || len(p) == 0 {
		return 0, c.failure
	}
	n, err := c.read(p)
	if err != nil && !exchange.AtEnd(err) {
		var e *Error
		if !errors.As(err, &e) {
			err = &Error{Err: err}
		}
		c.failure = err
		c.dead.Store(true)
	}
	return n, err
}

// read serves from what is buffered, and else reads into p itself: a chunked body is decoded where it lies, so that an open
// stream holds no buffer.
func (c *Conn) read(p []byte) (int, error) {
	for {
		if c.r < c.w {
			n, taken, err := c.take(p, (*c.buf)[c.r:c.w])
			if c.r += taken; c.r == c.w {
				c.release()
			}
			if n > 0 || err != nil {
				return n, err
			}
			continue
		}
		want := p
		if c.mode == byLength {
			want = p[:min(int64(len(p)), c.left)]
		} else if len(p) < directRead {
			want = nil
		}
		got, err := c.await(want)
		if err != nil {
			return c.cut(err)
		}
		if want == nil {
			continue
		}
		n, taken, err := c.take(want, want[:got])
		if taken < got {
			c.dead.Store(true) // there is more than the answer
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// await reads octets of the connection into p, or into the buffer when p is nil.
func (c *Conn) await(p []byte) (n int, err error) {
	if c.clock != nil {
		c.clock.Waiting(true)
		defer c.clock.Waiting(false)
	}
	if p == nil {
		return 0, c.fill()
	}
	n, err = c.stream.Read(p)
	if n > 0 {
		return n, nil // an error comes again
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return 0, err
}

// take moves octets of the body from src to dst, which may begin at the same place. taken is how many octets of src that
// used up; io.EOF says that the body has ended.
func (c *Conn) take(dst, src []byte) (n, taken int, err error) {
	switch c.mode {
	case byChunks:
		n, taken, err = c.chunks.decode(dst, src)
		if err == nil && c.chunks.done() {
			c.complete()
			err = io.EOF
		}
	case byLength:
		n = copy(dst, src[:min(int64(len(src)), c.left)])
		taken = n
		if c.left -= int64(n); c.left == 0 {
			c.complete()
			err = io.EOF
		}
	default:
		n = copy(dst, src)
		taken = n
	}
	return n, taken, err
}

// cut is what the end of a connection means for a body.
func (c *Conn) cut(err error) (int, error) {
	if exchange.AtEnd(err) && c.mode == byClose {
		c.complete()
		return 0, io.EOF
	}
	return 0, &Error{Err: ended(err)}
}

// Close gives up what was not read.
func (b *body) Close() error {
	(*Conn)(b).End()
	return nil
}

// Trailer is the trailer section without the fields of a hop and those that frame a message, once all was read.
func (b *body) Trailer() exchange.Header { return b.chunks.fields }

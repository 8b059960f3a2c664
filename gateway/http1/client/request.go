package client

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// send writes the request's head, with the body where it is short and there. A longer body is then on its way.
func (c *Conn) send(r *Request) *Error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	b, streams, err := compose((*buf)[:0], r)
	if err != nil {
		return err
	}
	return c.write(r, b, 0, streams)
}

// compose makes what is sent of r at once of b. streams says that a body follows.
func compose(b []byte, r *Request) (_ []byte, streams bool, _ *Error) {
	streams = r.Body != nil && r.Length != 0
	b, ok := appendHead(b, r, streams)
	if !ok {
		return nil, false, &Error{Reason: Given, Unsent: true, Err: errors.New("the request has a field or a target that can not be sent")}
	}
	if streams && r.Length > 0 && r.Length <= int64(bufferSize-len(b)) && r.Body.Buffered() >= int(r.Length) && !expects(r) {
		n := len(b)
		b = b[:n+int(r.Length)]
		if _, err := io.ReadFull(r.Body, b[n:]); err != nil {
			return nil, false, &Error{Reason: Given, Unsent: true, Err: err}
		}
		streams = false
	}
	return b, streams, nil
}

// write writes b, which follows n octets of the request that were sent.
func (c *Conn) write(r *Request, b []byte, n int, streams bool) *Error {
	before := int64(0)
	if c.gate != nil {
		before = c.gate.wrote.Load()
	}
	further, err := c.stream.Write(b)
	if err != nil {
		if c.gate != nil {
			further = int(c.gate.wrote.Load() - before)
		}
		if n+further == 0 {
			return &Error{Unsent: true, Err: err}
		}
		// An upstream that refuses early answers and closes: the answer is to be read although it took not all.
		c.grace()
		return nil
	}
	if streams {
		c.up = newUpload(c, r)
	}
	return nil
}

// expects reports whether the body is to wait for the upstream's word (RFC 9110 section 10.1.1).
func expects(r *Request) bool { return r.Header.Has("expect", "100-continue") }

// appendHead writes a request's head (RFC 9112 sections 3 and 5). It is false when a part of it would end its line. Names
// are sent in the case that most programs write them in, although it means nothing (RFC 9110 section 5.1): upstreams
// that compare them as they are have always got them so, and the pass over each name also checks it.
func appendHead(b []byte, r *Request, body bool) (_ []byte, ok bool) {
	for i := range len(r.Method) {
		if lowered[r.Method[i]] == 0 {
			return b, false
		}
	}
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = appendEscaped(b, r.Base, '?')
	b = appendEscaped(b, r.Path, '?')
	if r.Query != "" {
		b = append(b, '?')
		b = appendEscaped(b, r.Query, '#')
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, r.Host...)
	b = append(b, '\r', '\n')
	lines := 2
	for i := range r.Header {
		f := &r.Header[i]
		if f.Name == "host" || HopByHop(f.Name) {
			continue
		}
		if b, ok = appendName(b, f.Name); !ok {
			return b, false
		}
		b = append(b, f.Value...)
		b = append(b, '\r', '\n')
		lines++
	}
	switch {
	case body && r.Length < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		lines++
		if len(r.Trailers) > 0 {
			b = append(b, "Trailer: "...)
			for i, name := range r.Trailers {
				if i > 0 {
					b = append(b, ", "...)
				}
				b = append(b, name...)
			}
			b = append(b, '\r', '\n')
			lines++
		}
	case body || r.Method == "POST" || r.Method == "PUT" || r.Method == "PATCH":
		n := int64(0)
		if body {
			n = r.Length
		}
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, n, 10)
		b = append(b, '\r', '\n')
		lines++
	}
	if r.Upgrade != "" {
		b = append(b, "Connection: Upgrade\r\nUpgrade: "...)
		b = append(b, r.Upgrade...)
		b = append(b, '\r', '\n')
		lines += 2
	}
	b = append(b, '\r', '\n')
	lines++
	// One look at the whole finds any value that would begin a line of its own.
	return b, r.Method != "" && bytes.Count(b, []byte("\n")) == lines && bytes.Count(b, []byte("\r")) == lines && bytes.IndexByte(b, 0) < 0
}

// appendEscaped writes a part of a target, with what can not stand in one escaped: white space, controls, octets beyond
// ASCII, "#", and further.
func appendEscaped(b []byte, s string, further byte) []byte {
	const digits = "0123456789ABCDEF"
	from := 0
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '#' || c == further {
			b = append(b, s[from:i]...)
			b = append(b, '%', digits[c>>4], digits[c&15])
			from = i + 1
		}
	}
	return append(b, s[from:]...)
}

// appendName writes a field's name and the colon, each part of the name with a capital.
func appendName(b []byte, name string) (_ []byte, ok bool) {
	capital := true
	for i := range len(name) {
		c := lowered[name[i]]
		if c == 0 {
			return b, false
		}
		if capital && c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		capital = c == '-'
		b = append(b, c)
	}
	return append(b, ':', ' '), name != ""
}

// appendTrailer writes a trailer section and its end (RFC 9112 section 7.1.2): those fields of h that were announced, and
// that can be sent.
func appendTrailer(b []byte, h exchange.Header, names []string) []byte {
	for i := range h {
		f := &h[i]
		announced := false
		for _, n := range names {
			announced = announced || n == f.Name
		}
		if !announced || strings.ContainsAny(f.Value, "\r\n\x00") {
			continue
		}
		if out, ok := appendName(b, f.Name); ok {
			b = out
			b = append(b, f.Value...)
			b = append(b, '\r', '\n')
		}
	}
	return append(b, '\r', '\n')
}

// HopByHop says which fields end at this hop (RFC 9110 section 7.6.1), and those that frame a message.
func HopByHop(name string) bool {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
		"transfer-encoding", "upgrade", "content-length", "http2-settings":
		return true
	}
	return false
}

// lowered is a token's octet (RFC 9110 section 5.6.2) in lower case, and 0 for others.
var lowered = func() (t [256]byte) {
	for c := byte('0'); c <= 'z'; c++ {
		switch {
		case c <= '9', c >= 'a':
			t[c] = c
		case c >= 'A' && c <= 'Z':
			t[c] = c | 0x20
		}
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		t[c] = c
	}
	return t
}()

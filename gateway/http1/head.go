package http1

import (
	"bytes"
	"math"
	"net/netip"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/route"
)

var (
	crlf    = []byte("\r\n")
	newline = crlf[1:]
)

// Head is the head of a request as it was read (RFC 9112 section 3 and RFC 9110 section 5). Its strings share one piece
// of memory.
type Head struct {
	Method    string
	Minor     int    // of the version: 0 or 1
	Authority string // host[:port], lower case; empty only in HTTP/1.0
	Target    string // origin-form: begins with "/", has no fragment and no octet that must be encoded
	Header    exchange.Header
	Length    int64  // of the body; -1: chunked
	Upgrade   string // "websocket" or empty
	Expect    bool   // the client waits for 100 before it sends the body

	close, keepAlive bool
}

// Malformed is the refusal of what does not follow the protocol.
func Malformed(detail string) *exchange.Problem {
	return &exchange.Problem{Status: 400, Code: "bad_request", Title: "Bad request", Detail: detail}
}

// TooLarge is the refusal of a head beyond the limits.
func TooLarge() *exchange.Problem {
	return &exchange.Problem{Status: 431, Code: "header_too_large", Title: "Request header fields too large"}
}

// NotImplemented is the refusal of what is well-formed and not served.
func NotImplemented(detail string) *exchange.Problem {
	return &exchange.Problem{Status: 501, Code: "not_implemented", Title: "Not implemented", Detail: detail}
}

// parse reads a complete head, from the request line to the empty line, whose lines all end with CR LF. It changes b. What it
// does not understand it refuses: two readings of one message are how requests are smuggled. Fields go to where h.Header
// has room already.
func (h *Head) parse(b []byte, maxFields int) *exchange.Problem {
	first := bytes.IndexByte(b, '\n') + 1
	method, target, problem := h.requestLine(b[:first-2])
	if problem != nil {
		return problem
	}
	count := bytes.Count(b[first:], newline) - 1
	if count > maxFields {
		return TooLarge()
	}
	for rest := b[first:]; len(rest) > 2; {
		end := bytes.IndexByte(rest, '\n')
		if !lowerField(rest[:end-1]) {
			return Malformed("a header field is malformed")
		}
		rest = rest[end+1:]
	}
	text := string(b) // the one allocation of all strings of the head
	h.Method = text[:method]
	if problem := CheckMethod(h.Method); problem != nil {
		return problem
	}
	if count > cap(h.Header) {
		h.Header = make(exchange.Header, 0, count)
	}
	f := Fields{Length: -1}
	for rest := text[first:]; len(rest) > 2; {
		end := strings.IndexByte(rest, '\n')
		colon := strings.IndexByte(rest, ':')
		if problem := f.Add(&h.Header, rest[:colon], trim(rest[colon+1:end-1])); problem != nil {
			return problem
		}
		rest = rest[end+1:]
	}
	return h.finish(&f, text[method+1:method+1+target])
}

// findEnd returns the length of the head that b begins with, or 0 when it is not complete, having looked at searched octets
// before. Every line must end with CR LF.
func findEnd(b []byte, searched int, limit int64) (end, looked int, problem *exchange.Problem) {
	if len(b) > 0 && !isToken(b[0]) {
		return 0, 0, Malformed("the request line does not begin with a method")
	}
	for searched < len(b) {
		i := bytes.IndexByte(b[searched:], '\n')
		if i < 0 {
			searched = len(b)
			break
		}
		i += searched
		if i == 0 || b[i-1] != '\r' {
			return 0, 0, Malformed("a line does not end with CR LF")
		}
		searched = i + 1
		if i >= 3 && b[i-2] == '\n' {
			if int64(searched) > limit {
				return 0, 0, TooLarge()
			}
			return searched, searched, nil
		}
	}
	if int64(len(b)) > limit {
		return 0, 0, TooLarge()
	}
	return 0, searched, nil
}

// maxMethod bounds the name of a method, in octets.
const maxMethod = 64

// requestLine reads METHOD SP TARGET SP VERSION with exactly one space between them, and returns the lengths of the first
// two.
func (h *Head) requestLine(line []byte) (method, target int, problem *exchange.Problem) {
	method = bytes.IndexByte(line, ' ')
	if method <= 0 {
		return 0, 0, Malformed("the request line is malformed")
	}
	target = bytes.IndexByte(line[method+1:], ' ')
	if target <= 0 {
		return 0, 0, Malformed("the request line is malformed")
	}
	if method > maxMethod {
		return 0, 0, NotImplemented("no method has such a long name")
	}
	switch version := line[method+target+2:]; {
	case string(version) == "HTTP/1.1":
		h.Minor = 1
	case string(version) == "HTTP/1.0":
	case len(version) == len("HTTP/1.1") && string(version[:5]) == "HTTP/":
		return 0, 0, &exchange.Problem{Status: 505, Code: "version_not_supported", Title: "HTTP version not supported"}
	default:
		return 0, 0, Malformed("the request line is malformed")
	}
	return method, target, nil
}

// CheckMethod refuses what is no method, which in HTTP/2 and 3 can hold any octets, and methods that are no requests for a
// resource: a gateway is no tunnel, and PRI begins HTTP/2.
func CheckMethod(method string) *exchange.Problem {
	for i := range len(method) {
		if !isToken(method[i]) {
			return Malformed("the method is malformed")
		}
	}
	switch method {
	case "":
		return Malformed("the method is malformed")
	case "CONNECT":
		return NotImplemented("CONNECT is not served here")
	case "PRI":
		return Malformed("HTTP/2 is not spoken on this connection")
	}
	return nil
}

// finish checks the fields together.
func (h *Head) finish(f *Fields, target string) *exchange.Problem {
	if f.Hosts == 0 && h.Minor == 1 {
		return Malformed("the host field is missing")
	}
	var problem *exchange.Problem
	if f.Hosts > 0 {
		if h.Authority, problem = CanonicalHost(f.Host); problem != nil {
			return problem
		}
	}
	if problem = h.setTarget(target); problem != nil {
		return problem
	}
	h.Length = max(f.Length, 0)
	if f.Encoding != "" {
		switch {
		case f.Length >= 0:
			return Malformed("content-length and transfer-encoding do not go together")
		case h.Minor == 0:
			return Malformed("HTTP/1.0 has no transfer-encoding")
		case !exchange.EqualFold(f.Encoding, "chunked"):
			return NotImplemented("the only transfer-encoding is chunked")
		}
		h.Length = -1
	}
	if f.Expect != "" && h.Minor == 1 {
		if !exchange.EqualFold(f.Expect, "100-continue") {
			return &exchange.Problem{Status: 417, Code: "expectation_failed", Title: "Expectation failed"}
		}
		h.Expect = h.Length != 0
	}
	h.close, h.keepAlive = f.close, f.keepAlive
	// Only a WebSocket can be switched to; other protocols, h2c among them, are ignored as RFC 9110 section 7.8 allows.
	if h.Minor == 1 && f.upgrade && h.Method == "GET" && h.Length == 0 && exchange.EqualFold(f.Upgrade, "websocket") {
		h.Upgrade = "websocket"
	}
	return nil
}

// setTarget reads the request target: origin-form, or absolute-form that agrees with the host field.
func (h *Head) setTarget(target string) *exchange.Problem {
	if target[0] != '/' {
		scheme, rest, ok := strings.Cut(target, "://")
		if !ok || !exchange.EqualFold(scheme, "http") && !exchange.EqualFold(scheme, "https") {
			return Malformed("the request target is malformed")
		}
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		authority, problem := CanonicalHost(rest[:end])
		if problem != nil {
			return problem
		}
		if h.Authority != "" && h.Authority != authority {
			return Malformed("the request target and the host field disagree")
		}
		h.Authority = authority
		if target = rest[end:]; !strings.HasPrefix(target, "/") {
			target = "/" + target
		}
	}
	h.Target = target
	return CheckTarget(target)
}

// SplitTarget divides an origin-form target into its one canonical path, which is matched, authorised and forwarded, and its
// raw query.
func SplitTarget(target string) (path, query string, problem *exchange.Problem) {
	path, query, _ = strings.Cut(target, "?")
	path, err := route.Canonical(path)
	if err != nil {
		return "", "", Malformed("the path is malformed: " + err.Error())
	}
	return path, query, nil
}

// CheckTarget refuses a target with an octet that must be encoded. A fragment is never sent (RFC 9112 section 3.2.1).
func CheckTarget(target string) *exchange.Problem {
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return Malformed("the request target has a character that must be encoded")
		}
	}
	return nil
}

// lowerField reports whether line is "name: value", and lower-cases the name in its place. Neither white space before the
// colon nor a folded line is a field (RFC 9112 section 5).
func lowerField(line []byte) bool {
	i := 0
	for ; i < len(line); i++ {
		c := line[i]
		if !isToken(c) {
			break
		}
		if c >= 'A' && c <= 'Z' {
			line[i] = c | 0x20
		}
	}
	return i > 0 && i < len(line) && line[i] == ':' && !hasControl(line[i+1:])
}

// parseField reads a line that lowerField knows.
func parseField(line []byte) (name, value string, ok bool) {
	if !lowerField(line) {
		return "", "", false
	}
	name, value, _ = strings.Cut(string(line), ":")
	return name, trim(value), true
}

// trim takes optional white space off both ends (RFC 9110 section 5.6.3).
func trim(s string) string {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for len(s) > 0 && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// hasControl reports whether b has an octet that may not stand in a field's value (RFC 9110 section 5.5): a control
// character other than a tab. It looks at eight octets at a time.
func hasControl[T string | []byte](b T) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(b); i += 8 {
		w := uint64(b[i]) | uint64(b[i+1])<<8 | uint64(b[i+2])<<16 | uint64(b[i+3])<<24 |
			uint64(b[i+4])<<32 | uint64(b[i+5])<<40 | uint64(b[i+6])<<48 | uint64(b[i+7])<<56
		del := w ^ 0x7f*ones
		if ((w-' '*ones)&^w|(del-ones)&^del)&highs != 0 { // one is below a space, or one is DEL
			break
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

// parseChunkSize reads a chunk-size line without its end. extension is how many octets of it are no size.
func parseChunkSize(line []byte) (size int64, extension int, ok bool) {
	i := 0
	for ; i < len(line); i++ {
		var d byte
		switch c := line[i]; {
		case c >= '0' && c <= '9':
			d = c - '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			d = c | 0x20 - 'a' + 10
		default:
			d = 0xff
		}
		if d == 0xff {
			break
		}
		if size > math.MaxInt64>>4 {
			return 0, 0, false
		}
		size = size<<4 | int64(d)
	}
	if i == 0 || i > 16 {
		return 0, 0, false
	}
	// White space before an extension is grammatical and "bad"; not every recipient takes it for nothing.
	if rest := line[i:]; len(rest) > 0 && rest[0] != ';' || hasControl(rest) {
		return 0, 0, false
	}
	return size, len(line) - i, true
}

// isToken reports whether c may be in a token (RFC 9110 section 5.6.2).
func isToken(c byte) bool {
	if c >= 0x80 {
		return false
	}
	const low = 1<<'!' | 1<<'#' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'*' | 1<<'+' | 1<<'-' | 1<<'.' | 0x3ff<<'0'
	const high = 1<<('^'-64) | 1<<('_'-64) | 1<<('`'-64) | 1<<('|'-64) | 1<<('~'-64) | (1<<26-1)<<1 | (1<<26-1)<<33
	if c < 64 {
		return uint64(low)>>c&1 != 0
	}
	return uint64(high)>>(c-64)&1 != 0
}

func badHost() *exchange.Problem { return Malformed("the host is malformed") }

// CanonicalHost checks host[:port] (RFC 3986 section 3.2) and lower-cases it. It must not be empty.
func CanonicalHost(s string) (string, *exchange.Problem) {
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
		n := 0
		for _, c := range []byte(port) {
			if c < '0' || c > '9' || n > 65535 {
				return "", badHost()
			}
			n = n*10 + int(c-'0')
		}
		if n > 65535 {
			return "", badHost()
		}
		if port == "" {
			s = host // "host:" is host
		}
	}
	if host == "" || len(host) > 255 {
		return "", badHost()
	}
	if host[0] == '[' {
		if a, err := netip.ParseAddr(strings.TrimSuffix(host[1:], "]")); err != nil || !a.Is6() || a.Zone() != "" || host[len(host)-1] != ']' {
			return "", badHost()
		}
		return strings.ToLower(s), nil
	}
	upper := false
	for _, c := range []byte(host) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~':
		case c >= 'A' && c <= 'Z':
			upper = true
		default:
			// Percent-encoding and sub-delimiters are grammatical and in no name that resolves.
			return "", badHost()
		}
	}
	if upper {
		s = strings.ToLower(s)
	}
	return s, nil
}

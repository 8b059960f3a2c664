package http1

import (
	"bytes"
	"math"
	"net/netip"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Head is the head of a request as a Guard read it (RFC 9112 section 3 and RFC 9110 section 5).
type Head struct {
	Method    string
	Minor     int    // of the version: 0 or 1
	Authority string // host[:port], lower case; empty only in HTTP/1.0
	Target    string // origin-form: begins with "/", has no fragment and no octet that must be encoded
	Header    exchange.Header
	Trailer   exchange.Header   // complete when the body has been read to its end
	Length    int64             // of the body; -1: chunked
	Upgrade   string            // "websocket" or empty
	Expect    bool              // the client waits for 100 before it sends the body
	Problem   *exchange.Problem // set: the request is refused with it, and nothing else is set

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

// parseHead reads a complete head, from the request line to the empty line. It changes b. What it does not understand
// it refuses: two readings of one message are how requests are smuggled.
func parseHead(b []byte, maxFields int) (*Head, *exchange.Problem) {
	line, rest, _ := bytes.Cut(b, crlf)
	h := &Head{}
	target, problem := h.requestLine(line)
	if problem != nil {
		return nil, problem
	}
	count := bytes.Count(rest, crlf) - 1
	if count > maxFields {
		return nil, TooLarge()
	}
	h.Header = make(exchange.Header, 0, count)
	f := Fields{Length: -1}
	for {
		line, rest, _ = bytes.Cut(rest, crlf)
		if len(line) == 0 {
			break
		}
		name, value, ok := parseField(line)
		if !ok {
			return nil, Malformed("a header field is malformed")
		}
		if problem := f.Add(&h.Header, name, value); problem != nil {
			return nil, problem
		}
	}
	return h, h.finish(&f, target)
}

// maxMethod bounds the name of a method, in octets.
const maxMethod = 64

// requestLine reads METHOD SP TARGET SP VERSION with exactly one space between them.
func (h *Head) requestLine(line []byte) (target string, problem *exchange.Problem) {
	method, rest, ok := bytes.Cut(line, []byte(" "))
	uri, version, ok2 := bytes.Cut(rest, []byte(" "))
	if !ok || !ok2 || len(method) == 0 || len(uri) == 0 {
		return "", Malformed("the request line is malformed")
	}
	if len(method) > maxMethod {
		return "", NotImplemented("no method has such a long name")
	}
	for _, c := range method {
		if !isToken(c) {
			return "", Malformed("the method is malformed")
		}
	}
	switch string(version) {
	case "HTTP/1.1":
		h.Minor = 1
	case "HTTP/1.0":
	default:
		if len(version) == 8 && bytes.HasPrefix(version, []byte("HTTP/")) {
			return "", &exchange.Problem{Status: 505, Code: "version_not_supported", Title: "HTTP version not supported"}
		}
		return "", Malformed("the request line is malformed")
	}
	h.Method = internMethod(method)
	return string(uri), CheckMethod(h.Method)
}

// internMethod avoids an allocation for the usual methods.
func internMethod(b []byte) string {
	switch string(b) {
	case "GET":
		return "GET"
	case "POST":
		return "POST"
	case "PUT":
		return "PUT"
	case "HEAD":
		return "HEAD"
	case "DELETE":
		return "DELETE"
	case "PATCH":
		return "PATCH"
	case "OPTIONS":
		return "OPTIONS"
	}
	return string(b)
}

// CheckMethod refuses methods that are no requests for a resource: a gateway is no tunnel, and PRI begins HTTP/2.
func CheckMethod(method string) *exchange.Problem {
	switch method {
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
		case !strings.EqualFold(f.Encoding, "chunked"):
			return NotImplemented("the only transfer-encoding is chunked")
		}
		h.Length = -1
	}
	if f.Expect != "" && h.Minor == 1 {
		if !strings.EqualFold(f.Expect, "100-continue") {
			return &exchange.Problem{Status: 417, Code: "expectation_failed", Title: "Expectation failed"}
		}
		h.Expect = h.Length != 0
	}
	h.close, h.keepAlive = f.close, f.keepAlive
	// Only a WebSocket can be switched to; other protocols, h2c among them, are ignored as RFC 9110 section 7.8 allows.
	if h.Minor == 1 && f.upgrade && h.Method == "GET" && h.Length == 0 && strings.EqualFold(f.Upgrade, "websocket") {
		h.Upgrade = "websocket"
	}
	return nil
}

// setTarget reads the request target: origin-form, or absolute-form that agrees with the host field.
func (h *Head) setTarget(target string) *exchange.Problem {
	if target[0] != '/' {
		scheme, rest, ok := strings.Cut(target, "://")
		if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
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

// CheckTarget refuses a target with an octet that must be encoded. A fragment is never sent (RFC 9112 section 3.2.1).
func CheckTarget(target string) *exchange.Problem {
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return Malformed("the request target has a character that must be encoded")
		}
	}
	return nil
}

// parseField reads "name: value" and lower-cases the name. It changes line. Neither white space before the colon nor a
// folded line is a field (RFC 9112 section 5).
func parseField(line []byte) (name, value string, ok bool) {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return "", "", false
	}
	for i, c := range line[:colon] {
		if !isToken(c) {
			return "", "", false
		}
		if c >= 'A' && c <= 'Z' {
			line[i] = c | 0x20
		}
	}
	v := bytes.Trim(line[colon+1:], " \t")
	for _, c := range v {
		if c < ' ' && c != '\t' || c == 0x7f {
			return "", "", false
		}
	}
	// One string for both; most names then need no allocation of their own.
	both := string(line[:colon]) + string(v)
	return both[:colon], both[colon:], true
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
	rest := bytes.TrimLeft(line[i:], " \t")
	if len(line[i:]) > 0 && (len(rest) == 0 || rest[0] != ';') {
		return 0, 0, false
	}
	for _, c := range rest {
		if c < ' ' && c != '\t' || c == 0x7f {
			return 0, 0, false
		}
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

// CanonicalHost checks host[:port] (RFC 3986 section 3.2) and lower-cases it. It must not be empty.
func CanonicalHost(s string) (string, *exchange.Problem) {
	bad := Malformed("the host is malformed")
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
		n := 0
		for _, c := range []byte(port) {
			if c < '0' || c > '9' || n > 65535 {
				return "", bad
			}
			n = n*10 + int(c-'0')
		}
		if n > 65535 {
			return "", bad
		}
		if port == "" {
			s = host // "host:" is host
		}
	}
	if host == "" || len(host) > 255 {
		return "", bad
	}
	if host[0] == '[' {
		if a, err := netip.ParseAddr(strings.TrimSuffix(host[1:], "]")); err != nil || !a.Is6() || a.Zone() != "" || host[len(host)-1] != ']' {
			return "", bad
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
			return "", bad
		}
	}
	if upper {
		s = strings.ToLower(s)
	}
	return s, nil
}

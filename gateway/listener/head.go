package listener

import (
	"bytes"
	"math"
	"net/netip"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/route"
)

// head is the head of an HTTP/1.1 request as the guard read it (RFC 9112 section 3 and RFC 9110 section 5).
type head struct {
	method    string
	minor     int // of the version: 0 or 1
	authority string
	path      string // canonical
	query     string
	header    exchange.Header
	trailer   exchange.Header // complete when the body has been read to its end
	length    int64           // of the body; -1: chunked
	upgrade   string
	expect    bool // 100-continue
	close     bool
	keepAlive bool
	problem   *exchange.Problem // set: the request is refused, and nothing else is
}

// malformed is the refusal of what does not follow the protocol.
func malformed(detail string) *exchange.Problem {
	return &exchange.Problem{Status: 400, Code: "bad_request", Title: "Bad request", Detail: detail}
}

func headTooLarge() *exchange.Problem {
	return &exchange.Problem{Status: 431, Code: "header_too_large", Title: "Request header fields too large"}
}

func notImplemented(detail string) *exchange.Problem {
	return &exchange.Problem{Status: 501, Code: "not_implemented", Title: "Not implemented", Detail: detail}
}

// parseHead reads a complete head, from the request line to the empty line. It changes b. What it does not understand
// it refuses: two readings of one message are how requests are smuggled.
func parseHead(b []byte, maxFields int) (*head, *exchange.Problem) {
	line, rest, _ := bytes.Cut(b, crlf)
	h := &head{}
	target, problem := h.requestLine(line)
	if problem != nil {
		return nil, problem
	}
	count := bytes.Count(rest, crlf) - 1
	if count > maxFields {
		return nil, headTooLarge()
	}
	h.header = make(exchange.Header, 0, count)
	f := fields{length: -1}
	for {
		line, rest, _ = bytes.Cut(rest, crlf)
		if len(line) == 0 {
			break
		}
		name, value, ok := parseField(line)
		if !ok {
			return nil, malformed("a header field is malformed")
		}
		if problem := f.add(&h.header, name, value); problem != nil {
			return nil, problem
		}
	}
	return h, h.finish(&f, target)
}

// requestLine reads METHOD SP TARGET SP VERSION with exactly one space between them.
func (h *head) requestLine(line []byte) (target string, problem *exchange.Problem) {
	method, rest, ok := bytes.Cut(line, []byte(" "))
	uri, version, ok2 := bytes.Cut(rest, []byte(" "))
	if !ok || !ok2 || len(method) == 0 || len(uri) == 0 {
		return "", malformed("the request line is malformed")
	}
	for _, c := range method {
		if !isToken(c) {
			return "", malformed("the method is malformed")
		}
	}
	switch string(version) {
	case "HTTP/1.1":
		h.minor = 1
	case "HTTP/1.0":
	default:
		if len(version) == 8 && bytes.HasPrefix(version, []byte("HTTP/")) {
			return "", &exchange.Problem{Status: 505, Code: "version_not_supported", Title: "HTTP version not supported"}
		}
		return "", malformed("the request line is malformed")
	}
	h.method = internMethod(method)
	return string(uri), checkMethod(h.method)
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

// checkMethod refuses methods that are no requests for a resource: a gateway is no tunnel, and PRI begins HTTP/2.
func checkMethod(method string) *exchange.Problem {
	switch method {
	case "CONNECT":
		return notImplemented("CONNECT is not served here")
	case "PRI":
		return malformed("HTTP/2 is not spoken on this connection")
	}
	return nil
}

// finish checks the fields together.
func (h *head) finish(f *fields, target string) *exchange.Problem {
	if f.hosts == 0 && h.minor == 1 {
		return malformed("the host field is missing")
	}
	var problem *exchange.Problem
	if f.hosts > 0 {
		if h.authority, problem = canonicalHost(f.host); problem != nil {
			return problem
		}
	}
	if h.path, h.query, problem = h.splitTarget(target); problem != nil {
		return problem
	}
	h.length = max(f.length, 0)
	if f.encoding != "" {
		switch {
		case f.length >= 0:
			return malformed("content-length and transfer-encoding do not go together")
		case h.minor == 0:
			return malformed("HTTP/1.0 has no transfer-encoding")
		case !strings.EqualFold(f.encoding, "chunked"):
			return notImplemented("the only transfer-encoding is chunked")
		}
		h.length = -1
	}
	if f.expect != "" && h.minor == 1 {
		if !strings.EqualFold(f.expect, "100-continue") {
			return &exchange.Problem{Status: 417, Code: "expectation_failed", Title: "Expectation failed"}
		}
		h.expect = h.length != 0
	}
	h.close, h.keepAlive = f.close, f.keepAlive
	// Only a WebSocket can be switched to; other protocols, h2c among them, are ignored as RFC 9110 section 7.8 allows.
	if h.minor == 1 && f.connectionUpgrade && h.method == "GET" && h.length == 0 && strings.EqualFold(f.upgrade, "websocket") {
		h.upgrade = "websocket"
	}
	return nil
}

// splitTarget reads the request target: origin-form, or absolute-form that agrees with the host field.
func (h *head) splitTarget(target string) (path, query string, problem *exchange.Problem) {
	if target[0] != '/' {
		scheme, rest, ok := strings.Cut(target, "://")
		if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
			return "", "", malformed("the request target is malformed")
		}
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		authority, problem := canonicalHost(rest[:end])
		if problem != nil {
			return "", "", problem
		}
		if h.authority != "" && h.authority != authority {
			return "", "", malformed("the request target and the host field disagree")
		}
		h.authority = authority
		if target = rest[end:]; !strings.HasPrefix(target, "/") {
			target = "/" + target
		}
	}
	return splitPath(target)
}

// splitPath divides a target into its canonical path and its raw query.
func splitPath(target string) (path, query string, problem *exchange.Problem) {
	for i := range len(target) {
		// A fragment is never sent (RFC 9112 section 3.2.1), and controls, spaces and octets above ASCII must be encoded.
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return "", "", malformed("the request target has a character that must be encoded")
		}
	}
	path, query, _ = strings.Cut(target, "?")
	path, err := route.Canonical(path)
	if err != nil {
		return "", "", malformed("the path is malformed: " + err.Error())
	}
	return path, query, nil
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

// canonicalHost checks host[:port] (RFC 3986 section 3.2) and lower-cases it. It must not be empty.
func canonicalHost(s string) (string, *exchange.Problem) {
	bad := malformed("the host is malformed")
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

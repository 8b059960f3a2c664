package carrier

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http1"
	"github.com/postern-gateway/postern/gateway/route"
)

// splitTarget divides an origin-form target into its one canonical path, which is matched, authorised and forwarded, and
// its raw query.
func splitTarget(target string) (path, query string, problem *exchange.Problem) {
	path, query, _ = strings.Cut(target, "?")
	path, err := route.Canonical(path)
	if err != nil {
		return "", "", http1.Malformed("the path is malformed: " + err.Error())
	}
	return path, query, nil
}

func (c *call) convert(r *http.Request) *exchange.Problem {
	x := &c.x.Request
	var f http1.Fields
	if p := c.convertHeader(r, &f); p != nil {
		return p
	}
	authority, p := http1.CanonicalHost(r.Host)
	if p != nil {
		return p
	}
	if f.Hosts > 0 && !strings.EqualFold(f.Host, r.Host) {
		return http1.Malformed(":authority and the host field disagree")
	}
	x.Authority = authority
	target := r.RequestURI
	if r.Method == http.MethodConnect {
		if r.ProtoMajor != 3 || r.Proto != "websocket" {
			return http1.NotImplemented("CONNECT is served for WebSockets over HTTP/3 only")
		}
		c.extendedConnect()
	} else if p := http1.CheckMethod(r.Method); p != nil {
		return p
	}
	if !strings.HasPrefix(target, "/") {
		return http1.Malformed("the path is malformed")
	}
	if int64(len(target)+len(r.Host)) > c.terms.Head {
		return http1.TooLarge()
	}
	if p = http1.CheckTarget(target); p != nil {
		return p
	}
	if x.Path, x.Query, p = splitTarget(target); p != nil {
		return p
	}
	length := r.ContentLength
	if f.Lengths > 0 && length != f.Length {
		return http1.Malformed("content-length and the body disagree") // END_STREAM came with the head
	}
	if x.Upgrade != "" {
		length = 0 // what follows is the tunnel's
	}
	c.withBody(r, length)
	if length < 0 && r.ProtoMajor == 3 {
		c.probe(r)
	}
	return nil
}

// convertHeader reads the fields in the order of their names: the servers keep no other.
func (c *call) convertHeader(r *http.Request, f *http1.Fields) *exchange.Problem {
	count := 0
	size := len(r.Method) + len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		count += len(values)
		for _, v := range values {
			size += len(name) + len(v) + len(": \r\n")
		}
	}
	if count > c.terms.Fields || int64(size) > c.terms.Head {
		return http1.TooLarge()
	}
	h := make(exchange.Header, 0, count)
	f.Length = -1
	for name, values := range r.Header {
		name = lower(name)
		for _, v := range values {
			if name == "cookie" && len(values) > 1 {
				v = strings.Join(values, "; ") // RFC 9113 section 8.2.3
			}
			if p := f.Add(&h, name, strings.Trim(v, " \t")); p != nil {
				return p
			}
			if name == "cookie" {
				break
			}
		}
	}
	// The servers take what a trailer field announces for themselves; whoever forwards has to announce it again.
	for name := range r.Trailer {
		h.Add("trailer", lower(name))
	}
	// RFC 9113 section 8.2.2 and RFC 9114 section 4.2.
	if f.Hop || f.Encodings > 0 || f.Upgrade != "" {
		return http1.Malformed("a field is about a connection, which this protocol does not have")
	}
	if f.TE != "" && !strings.EqualFold(f.TE, "trailers") {
		return http1.Malformed("te may only be trailers")
	}
	if f.Expect != "" && !strings.EqualFold(f.Expect, "100-continue") {
		return &exchange.Problem{Status: 417, Code: "expectation_failed", Title: "Expectation failed"}
	}
	slices.SortStableFunc(h, func(a, b exchange.Field) int { return strings.Compare(a.Name, b.Name) })
	c.x.Request.Header = h
	return nil
}

// extendedConnect makes a WebSocket over HTTP/3 (RFC 9220) look like one over HTTP/1.1, so that routes, policies and
// upstreams know one kind: GET with a key.
func (c *call) extendedConnect() {
	x := &c.x.Request
	x.Method, x.Upgrade = http.MethodGet, "websocket"
	var key [16]byte
	_, _ = rand.Read(key[:]) // never fails
	x.Header.Set("sec-websocket-key", base64.StdEncoding.EncodeToString(key[:]))
}

// endWait is how long a request of HTTP/3 that needs no body may take to say that it has none.
const endWait = 50 * time.Millisecond

// probe finds out whether a request of HTTP/3 without content-length has a body: its head does not say, and an upstream
// of HTTP/1.1 must be told before it can be asked. Methods that usually have a body are not held up.
func (c *call) probe(r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions, http.MethodTrace:
	default:
		return
	}
	_ = c.rc.SetReadDeadline(time.Now().Add(endWait))
	one := make([]byte, 1)
	n, err := r.Body.Read(one)
	_ = c.rc.SetReadDeadline(time.Time{})
	switch {
	case n > 0:
		c.body.probe = one
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
	default: // its end, or a fault that a handler without interest in a body need not hear of
		c.x.Request.Body, c.x.Request.Length = exchange.NoBody, 0
	}
}

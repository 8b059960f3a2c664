package listener

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
)

// serveHTTP1 answers a request the guard has released. Of what the standard server knows of it only the body is used.
func (s *Set) serveHTTP1(w http.ResponseWriter, r *http.Request) {
	g, ok := r.Context().Value(guardKey{}).(*guard)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	h := g.take()
	if h == nil {
		panic(http.ErrAbortHandler)
	}
	g.c.requests.Add(1)
	c := newCall(&g.c.peer, w, exchange.HTTP1, g.c.last)
	c.guard, c.head = g, h
	if h.problem != nil {
		c.refuse(h.problem)
		return
	}
	_ = c.rc.EnableFullDuplex()
	x := &c.x.Request
	x.Method, x.Authority, x.Path, x.Query = h.method, h.authority, h.path, h.query
	x.Header, x.Upgrade = h.header, h.upgrade
	c.withBody(r, h.length)
	c.run(r.Context())
}

// serveStream answers a request of HTTP/2.
func (c *conn) serveStream(w http.ResponseWriter, r *http.Request) {
	c.requests.Add(1)
	newCall(&c.peer, w, exchange.HTTP2, c.last).serveStream(r)
}

// serveStream answers a request of HTTP/2 or 3, after the checks that the servers leave out.
func (c *call) serveStream(r *http.Request) {
	c.x.Request.Method = r.Method
	if p := c.convert(r); p != nil {
		c.refuse(p)
		return
	}
	c.run(r.Context())
}

func (c *call) convert(r *http.Request) *exchange.Problem {
	x, limits := &c.x.Request, &c.live.cfg.Limits
	var f fields
	if p := c.convertHeader(r, &f); p != nil {
		return p
	}
	authority, p := canonicalHost(r.Host)
	if p != nil {
		return p
	}
	if f.hosts > 0 && !strings.EqualFold(f.host, r.Host) {
		return malformed(":authority and the host field disagree")
	}
	x.Authority = authority
	target := r.RequestURI
	if r.Method == http.MethodConnect {
		if r.ProtoMajor != 3 || r.Proto != "websocket" {
			return notImplemented("CONNECT is served for WebSockets over HTTP/3 only")
		}
		c.extendedConnect()
	} else if p := checkMethod(r.Method); p != nil {
		return p
	}
	if !strings.HasPrefix(target, "/") {
		return malformed("the path is malformed")
	}
	if int64(len(target)+len(r.Host)) > limits.Header {
		return headTooLarge()
	}
	if x.Path, x.Query, p = splitPath(target); p != nil {
		return p
	}
	length := r.ContentLength
	if f.lengths > 0 && length != f.length {
		return malformed("content-length and the body disagree") // END_STREAM came with the head
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
func (c *call) convertHeader(r *http.Request, f *fields) *exchange.Problem {
	limits := &c.live.cfg.Limits
	count := 0
	size := len(r.Method) + len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		count += len(values)
		for _, v := range values {
			size += len(name) + len(v) + len(": \r\n")
		}
	}
	if count > limits.Headers || int64(size) > limits.Header {
		return headTooLarge()
	}
	h := make(exchange.Header, 0, count)
	f.length = -1
	for name, values := range r.Header {
		name = lower(name)
		for _, v := range values {
			if name == "cookie" && len(values) > 1 {
				v = strings.Join(values, "; ") // RFC 9113 section 8.2.3
			}
			if p := f.add(&h, name, strings.Trim(v, " \t")); p != nil {
				return p
			}
			if name == "cookie" {
				break
			}
		}
	}
	// RFC 9113 section 8.2.2 and RFC 9114 section 4.2.
	if f.connection || f.encodings > 0 || f.upgrade != "" || r.Header["Keep-Alive"] != nil || r.Header["Proxy-Connection"] != nil {
		return malformed("a field is about a connection, which this protocol does not have")
	}
	if f.te != "" && !strings.EqualFold(f.te, "trailers") {
		return malformed("te may only be trailers")
	}
	if f.expect != "" && !strings.EqualFold(f.expect, "100-continue") {
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

package carrier

import (
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http1"
)

// streamHead is what the head of a request of HTTP/2 or 3 says.
type streamHead struct {
	method, authority, target string
	protocol                  string // of an extended CONNECT; else empty
	header                    exchange.Header
	length                    int64 // -1: not known
	large                     bool  // over the limits: header is not whole
}

// accept makes r the exchange's request, after the checks that are the same for both protocols.
func (c *streamCall) accept(r *streamHead) *exchange.Problem {
	x := &c.x.Request
	x.Method = r.method
	if r.large || int64(len(r.target)+len(r.authority)) > c.terms.Head {
		return http1.TooLarge()
	}
	f := http1.Fields{Length: -1}
	header := r.header[:0]
	for _, field := range r.header {
		if p := f.Add(&header, field.Name, field.Value); p != nil {
			return p
		}
	}
	x.Header = header
	// RFC 9113 section 8.2.2 and RFC 9114 section 4.2.
	if f.Hop || f.Encodings > 0 || f.Upgrade != "" {
		return http1.Malformed("a field is about a connection, which this protocol does not have")
	}
	if f.TE != "" && !exchange.EqualFold(f.TE, "trailers") {
		return http1.Malformed("te may only be trailers")
	}
	if f.Expect != "" && !exchange.EqualFold(f.Expect, "100-continue") {
		return &exchange.Problem{Status: 417, Code: "expectation_failed", Title: "Expectation failed"}
	}
	if r.authority == "" {
		r.authority = f.Host // RFC 9113 section 8.3.1
	}
	var p *exchange.Problem
	if x.Authority, p = http1.CanonicalHost(r.authority); p != nil {
		return p
	}
	if f.Hosts > 0 && !strings.EqualFold(f.Host, r.authority) {
		return http1.Malformed(":authority and the host field disagree")
	}
	if r.method == http.MethodConnect {
		if r.protocol != "websocket" {
			return http1.NotImplemented("CONNECT is served for WebSockets only")
		}
		c.extendedConnect()
	} else if p := http1.CheckMethod(r.method); p != nil {
		return p
	}
	if !strings.HasPrefix(r.target, "/") {
		return http1.Malformed("the path is malformed")
	}
	if p = http1.CheckTarget(r.target); p != nil {
		return p
	}
	if x.Path, x.Query, p = http1.SplitTarget(r.target); p != nil {
		return p
	}
	if f.Lengths > 0 && r.length != f.Length {
		return http1.Malformed("content-length and the body disagree") // END_STREAM came with the head
	}
	x.Length = r.length
	switch {
	case x.Upgrade != "":
		x.Length = 0 // what follows is the tunnel's
	case r.length != 0:
		c.body.up, c.body.length, c.body.limit = c.up, r.length, c.terms.MaxBody
		x.Body = &c.body
		if f.Expect != "" {
			c.body.invite = c.proceed
		}
	}
	return nil
}

// extendedConnect makes a WebSocket over HTTP/2 (RFC 8441) or 3 (RFC 9220) look like one over HTTP/1.1, so that routes,
// policies and upstreams know one kind: GET with a key.
func (c *streamCall) extendedConnect() {
	x := &c.x.Request
	x.Method, x.Upgrade = http.MethodGet, "websocket"
	var key [16]byte
	_, _ = rand.Read(key[:]) // never fails
	x.Header.Set("sec-websocket-key", base64.StdEncoding.EncodeToString(key[:]))
}

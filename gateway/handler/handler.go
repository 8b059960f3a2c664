// Package handler answers exchanges by an http.Handler: what is written for net/http is served through the gateway's own
// listeners, with their protocols and limits. Its main type is Hop.
package handler

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Filter takes a response body part by part: it appends to dst what becomes of part; end tells that nothing follows. An
// error means that the reply has to be broken off.
type Filter func(ctx context.Context, dst, part []byte, end bool) ([]byte, error)

// Hop takes exchanges to a handler and back.
type Hop struct {
	Handler http.Handler
	Body    []byte // the whole request body; it is not changed

	// Head is shown the response's head, which stands in the exchange, before it leaves, and may change it. It returns the
	// filter of the body, which may be nil, or a problem to answer with instead. Nil: nobody looks.
	Head func(ctx context.Context) (Filter, *exchange.Problem)
}

// Serve has the handler answer x. The handler writes as it likes: nothing is held back but what a filter holds, and its
// Flush is the client's. A problem is for the caller to answer; then nothing has been sent. A panic of the handler's
// passes through.
func (h *Hop) Serve(ctx context.Context, x *exchange.Exchange) *exchange.Problem {
	r, problem := h.request(ctx, x)
	if problem != nil {
		return problem
	}
	w := &writer{ctx: ctx, hop: h, x: x, header: http.Header{}}
	h.Handler.ServeHTTP(w, r)
	return w.finish()
}

// request is x's request as net/http has it. The path is the canonical one.
func (h *Hop) request(ctx context.Context, x *exchange.Exchange) (*http.Request, *exchange.Problem) {
	q := &x.Request
	target := q.Path
	if q.Query != "" {
		target += "?" + q.Query
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, &exchange.Problem{Status: http.StatusBadRequest, Code: "bad_request", Title: "The request's address can not be read."}
	}
	r := (&http.Request{
		Method: q.Method, URL: u, RequestURI: target, Host: q.Authority, RemoteAddr: q.Remote.String(),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, len(q.Header)), ContentLength: int64(len(h.Body)), Body: http.NoBody,
	}).WithContext(ctx)
	switch q.Protocol {
	case exchange.HTTP2:
		r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
	case exchange.HTTP3:
		r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/3.0", 3, 0
	}
	for _, f := range q.Header {
		r.Header.Add(f.Name, f.Value)
	}
	if len(h.Body) > 0 {
		r.Body = body{bytes.NewReader(h.Body)}
	}
	if t := q.TLS; t != nil {
		r.TLS = &tls.ConnectionState{Version: t.Version, ServerName: t.ServerName, DidResume: t.Resumed, HandshakeComplete: true}
		if t.Peer != nil {
			r.TLS.PeerCertificates = []*x509.Certificate{t.Peer}
		}
	}
	return r, nil
}

// body is a request body that is all there.
type body struct{ *bytes.Reader }

func (body) Close() error { return nil }

// errAnswered is what a handler's writes give once another answer than its own is going out.
var errAnswered = errors.New("the reply was replaced")

// writer is the http.ResponseWriter of one exchange.
type writer struct {
	ctx     context.Context
	hop     *Hop
	x       *exchange.Exchange
	header  http.Header
	began   bool
	filter  Filter
	problem *exchange.Problem // to be answered instead
	err     error             // the client is gone, or a filter failed
}

// Header implements http.ResponseWriter.
func (w *writer) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(status int) {
	switch {
	case w.began:
		return
	case status >= 100 && status < 200:
		if status != http.StatusSwitchingProtocols {
			_ = w.x.Reply.Interim(status, fields(w.header)) // a client that is gone is noticed by what follows
		}
		return
	}
	w.began = true
	length := int64(-1)
	if text := w.header.Get("Content-Length"); text != "" {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
			length = n
		}
	}
	if !hasBody(w.x.Request.Method, status) && status != http.StatusOK {
		length = max(length, 0)
	}
	x := w.x
	x.Response = exchange.Response{Status: status, Header: fields(w.header), Length: length}
	if w.hop.Head != nil {
		if w.filter, w.problem = w.hop.Head(w.ctx); w.problem != nil {
			w.err = errAnswered
			return
		}
	}
	if w.filter != nil {
		x.Response.Length = -1
	}
	x.Response.Started = true
	w.err = x.Reply.Head(x.Response.Status, x.Response.Header, x.Response.Length)
}

// Write implements http.ResponseWriter.
func (w *writer) Write(p []byte) (int, error) {
	if !w.began {
		w.WriteHeader(http.StatusOK)
	}
	if w.err != nil {
		return 0, w.err
	}
	if !hasBody(w.x.Request.Method, w.x.Response.Status) {
		return len(p), nil
	}
	return len(p), w.send(p, false)
}

// send gives part of the body to the client, by the filter.
func (w *writer) send(p []byte, end bool) error {
	if w.filter != nil {
		if p, w.err = w.filter(w.ctx, nil, p, end); w.err != nil {
			return w.err
		}
	}
	if len(p) > 0 {
		var n int
		n, w.err = w.x.Reply.Write(p)
		w.x.Response.Sent += int64(n)
	}
	return w.err
}

// Flush implements http.Flusher.
func (w *writer) Flush() { _ = w.FlushError() }

// FlushError is for http.ResponseController.
func (w *writer) FlushError() error {
	if !w.began {
		w.WriteHeader(http.StatusOK)
	}
	if w.err == nil {
		w.err = w.x.Reply.Flush()
	}
	return w.err
}

// finish completes the reply.
func (w *writer) finish() *exchange.Problem {
	if !w.began {
		w.header.Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
	}
	if w.problem != nil {
		return w.problem
	}
	if w.err == nil && w.filter != nil && hasBody(w.x.Request.Method, w.x.Response.Status) {
		_ = w.send(nil, true) // kept in err
	}
	if w.err == nil {
		w.err = w.x.Reply.End(nil)
	}
	if w.err != nil {
		w.x.Problem = &exchange.Problem{Status: w.x.Response.Status, Code: "reply_cut", Title: "The reply was broken off."}
		if errors.Is(w.err, exchange.ErrClientGone) {
			w.x.Problem.Code = "client_gone"
		}
		w.x.Reply.Abort()
	}
	return nil
}

// hasBody reports whether a response may have a body (RFC 9110 section 6.4.1).
func hasBody(method string, status int) bool {
	return method != http.MethodHead && status != http.StatusNoContent && status != http.StatusNotModified && status >= 200
}

// fields are the header fields of a response, in the order of their names. What says how the message is framed is the
// listener's to write, and what is no field is left out.
func fields(from http.Header) exchange.Header {
	h := make(exchange.Header, 0, len(from)+1)
	for name, values := range from {
		name = strings.ToLower(name)
		if exchange.Framing(name) || !exchange.FieldName(name) {
			continue
		}
		for _, v := range values {
			if v = strings.Trim(v, " \t"); exchange.FieldValue(v) {
				h.Add(name, v)
			}
		}
	}
	slices.SortStableFunc(h, func(a, b exchange.Field) int { return strings.Compare(a.Name, b.Name) })
	return h
}

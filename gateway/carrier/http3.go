package carrier

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/postern-gateway/postern/gateway/caller"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// HTTP3 answers a request of HTTP/3. It panics with http.ErrAbortHandler to have the stream reset.
func (e *Carrier) HTTP3(w http.ResponseWriter, r *http.Request, p *caller.Peer) {
	c := new(streamCall)
	s := &quicStream{w: w, rc: http.NewResponseController(w), r: r}
	c.begin(e, p, exchange.HTTP3, s, s)
	s.reading.set(c.terms.Body, func() { s.late(s.rc.SetReadDeadline) })
	s.writing.set(c.terms.Write, func() { s.late(s.rc.SetWriteDeadline) })
	defer s.end()
	h := streamHead{method: r.Method, authority: r.Host, target: r.RequestURI, length: r.ContentLength}
	if r.Method == http.MethodConnect && r.Proto != "HTTP/3.0" {
		h.protocol = r.Proto
	}
	h.header, h.large = ordered(r, c.terms)
	problem := c.accept(&h)
	if problem == nil && c.x.Request.Length < 0 && c.x.Request.Upgrade == "" {
		s.probe(c)
	}
	ctx := r.Context()
	if c.x.Request.Upgrade != "" {
		var stop context.CancelFunc
		ctx, stop = s.lasting(ctx)
		defer stop()
	}
	if !c.run(ctx, p, problem) {
		panic(http.ErrAbortHandler)
	}
}

// lasting is ctx for a tunnel, which goes on until both its sides have ended: quic-go ends a stream's context with its sending
// side.
func (s *quicStream) lasting(ctx context.Context) (context.Context, context.CancelFunc) {
	outer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if !s.half.Load() {
			cancel(context.Cause(ctx))
		}
	})
	return outer, func() {
		stop()
		cancel(nil)
	}
}

// ordered returns the fields in the order of their names: quic-go keeps no other. large says that there are too many.
func ordered(r *http.Request, t *caller.Terms) (h exchange.Header, large bool) {
	count := 0
	size := len(r.Method) + len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		count += len(values)
		for _, v := range values {
			size += len(name) + len(v) + len(": \r\n")
		}
	}
	if count > t.Fields || int64(size) > t.Head {
		return nil, true
	}
	h = make(exchange.Header, 0, count+1)
	for name, values := range r.Header {
		name = lower(name)
		if name == "cookie" && len(values) > 1 {
			values = []string{strings.Join(values, "; ")} // RFC 9114 section 4.2.1
		}
		for _, v := range values {
			h.Add(name, strings.Trim(v, " \t"))
		}
	}
	// quic-go takes what a trailer field announces for itself; whoever forwards has to announce it again.
	for name := range r.Trailer {
		h.Add("trailer", lower(name))
	}
	slices.SortStableFunc(h, func(a, b exchange.Field) int { return strings.Compare(a.Name, b.Name) })
	return h, false
}

// quicStream is both halves of a stream of HTTP/3, as the handler of quic-go's server has them.
type quicStream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
	r  *http.Request

	reading, writing stall
	half             atomic.Bool // the sending side of a tunnel has ended

	mu     sync.Mutex // guards over, and with it every use of w and rc from another goroutine than the handler's
	over   bool       // the handler has returned: w is not ours any more
	closed bool       // nobody reads
	raw    *http3.Stream
}

// end takes w away from whoever still holds the exchange.
func (s *quicStream) end() {
	s.reading.stop()
	s.writing.stop()
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
}

// late makes a read or a write that waits for the client return, by a deadline in the past.
func (s *quicStream) late(setDeadline func(time.Time) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		_ = setDeadline(time.Unix(1, 0))
	}
}

// Read implements upload.
func (s *quicStream) Read(p []byte) (int, error) {
	if s.raw != nil {
		n, err := s.raw.Read(p)
		return n, s.blame(err, false)
	}
	s.reading.begin()
	n, err := s.r.Body.Read(p)
	late := s.reading.end()
	return n, s.blame(err, late)
}

// blame says whose fault an error of a read was.
func (s *quicStream) blame(err error, late bool) error {
	if err == nil || exchange.AtEnd(err) {
		return err
	}
	cause := exchange.ErrClientBody
	var stream *quic.StreamError
	var application *quic.ApplicationError
	var silence *quic.IdleTimeoutError
	switch {
	case late, errors.Is(err, os.ErrDeadlineExceeded):
		cause = exchange.ErrBodyTimeout
	case errors.As(err, &stream), errors.As(err, &application), errors.As(err, &silence), s.r.Context().Err() != nil:
		cause = exchange.ErrClientGone
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// SetReadDeadline implements upload.
func (s *quicStream) SetReadDeadline(at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
		return nil
	case s.raw != nil:
		return s.raw.SetReadDeadline(at)
	}
	return s.rc.SetReadDeadline(at)
}

// CloseRead implements upload.
func (s *quicStream) CloseRead() {
	s.mu.Lock()
	raw, was := s.raw, s.closed
	s.closed = true
	s.mu.Unlock()
	switch {
	case was:
	case raw != nil:
		raw.CancelRead(quic.StreamErrorCode(http3.ErrCodeNoError))
	default:
		s.late(s.rc.SetReadDeadline)
	}
}

// Trailer implements upload. The order has been lost on the way.
func (s *quicStream) Trailer() exchange.Header {
	var h exchange.Header
	for name, values := range s.r.Trailer {
		for _, v := range values {
			h.Add(lower(name), strings.Trim(v, " \t"))
		}
	}
	slices.SortStableFunc(h, func(a, b exchange.Field) int { return strings.Compare(a.Name, b.Name) })
	return h
}

// put gives the server the fields of a response.
func (s *quicStream) put(h exchange.Header) {
	to := s.w.Header()
	values := make([]string, len(h)) // one allocation for all the lists of one
	for i, f := range h {
		name := http.CanonicalHeaderKey(f.Name)
		if old, ok := to[name]; ok {
			to[name] = append(old, f.Value)
			continue
		}
		values[i] = f.Value
		to[name] = values[i : i+1 : i+1]
	}
}

// Interim implements download.
func (s *quicStream) Interim(status int, h exchange.Header) error {
	s.put(h)
	s.writing.begin()
	s.w.WriteHeader(status)
	clear(s.w.Header())
	if s.writing.end() {
		return exchange.ErrClientGone
	}
	return nil
}

// Head implements download.
func (s *quicStream) Head(status int, h exchange.Header) error {
	s.put(h)
	if to := s.w.Header(); to["Content-Type"] == nil {
		to["Content-Type"] = nil // the server would guess one
	}
	s.w.WriteHeader(status)
	return nil
}

// Write implements download.
func (s *quicStream) Write(p []byte) (n int, err error) {
	s.writing.begin()
	if s.raw != nil {
		n, err = s.raw.Write(p)
	} else {
		n, err = s.w.Write(p)
	}
	s.writing.end()
	return n, caller.Gone(err)
}

// Flush implements download.
func (s *quicStream) Flush() error {
	if s.raw != nil {
		return nil
	}
	s.writing.begin()
	err := s.rc.Flush()
	s.writing.end()
	return caller.Gone(err)
}

// Accept implements download.
func (s *quicStream) Accept(h exchange.Header) error {
	streamer, ok := s.w.(http3.HTTPStreamer)
	if !ok {
		return exchange.ErrNoUpgrade
	}
	if err := s.Head(http.StatusOK, h); err != nil {
		return err
	}
	raw, err := streamer.HTTPStream()
	if err != nil {
		return caller.Gone(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw = raw
	return nil
}

// CloseWrite implements download. Without a tunnel, the last octets leave when the handler returns.
func (s *quicStream) CloseWrite(trailer exchange.Header) error {
	if s.raw != nil {
		s.half.Store(true)
		return s.raw.Close()
	}
	if len(trailer) == 0 {
		return nil
	}
	// The head must have left, or the server would choose a framing without trailer.
	if err := s.Flush(); err != nil {
		return err
	}
	to := s.w.Header()
	for _, f := range trailer {
		name := http.TrailerPrefix + http.CanonicalHeaderKey(f.Name)
		to[name] = append(to[name], f.Value)
	}
	return nil
}

// endWait is how long a request of HTTP/3 that needs no body may take to say that it has none.
const endWait = 50 * time.Millisecond

// probe finds out whether a request of HTTP/3 without content-length has a body: its head does not say, and an upstream
// of HTTP/1.1 must be told before it can be asked. Methods that usually have a body are not held up.
func (s *quicStream) probe(c *streamCall) {
	switch s.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions, http.MethodTrace:
	default:
		return
	}
	_ = s.rc.SetReadDeadline(time.Now().Add(endWait))
	one := make([]byte, 1)
	n, err := s.r.Body.Read(one)
	_ = s.rc.SetReadDeadline(time.Time{})
	switch {
	case n > 0:
		c.body.probe = one
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
	default: // its end, or a fault that a handler without interest in a body need not hear of
		c.x.Request.Body, c.x.Request.Length = exchange.NoBody, 0
	}
}

// lower returns the lower-case form of a canonical name, without an allocation for the usual ones.
func lower(name string) string {
	switch name {
	case "Accept":
		return "accept"
	case "Accept-Encoding":
		return "accept-encoding"
	case "Accept-Language":
		return "accept-language"
	case "Authorization":
		return "authorization"
	case "Content-Type":
		return "content-type"
	case "Cookie":
		return "cookie"
	case "User-Agent":
		return "user-agent"
	case "Content-Length":
		return "content-length"
	case "Origin":
		return "origin"
	case "Referer":
		return "referer"
	}
	return strings.ToLower(name)
}

package pool

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http1/client"
)

// shared is a connection of HTTP/2 or 3. It sends exactly what it is given, once: nothing below it repeats a request on
// another connection, which is why http.Transport's own pool is not used.
type shared interface {
	RoundTrip(*http.Request) (*http.Response, error)
	Reserve() error // takes the right to one RoundTrip
	Err() error     // not nil: the connection is of no use any more
	Close() error
}

// roundTrip carries an exchange over a shared connection, between the gateway's words and the transport's.
func (l *Link) roundTrip(ctx context.Context, r *client.Request, resp *client.Response) error {
	var wroteHead atomic.Bool
	interim := interimGuard{pass: r.Interim}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaders:   func() { wroteHead.Store(true) },
		Got1xxResponse: interim.got,
	})
	got, err := l.many.RoundTrip(outgoing(ctx, l.scheme, r)) //nolint:bodyclose // received is its body
	interim.close()
	if err != nil {
		if interim.failed != nil {
			return &client.Error{Reason: client.Given, Err: interim.failed}
		}
		// HTTP/3's transport does not say when it has written the head, so a request of its counts as sent.
		return &client.Error{Reason: reason(err), Unsent: l.Protocol == exchange.HTTP2 && !wroteHead.Load(), Err: unquoted(err)}
	}
	*resp = client.Response{
		Status: got.StatusCode, Length: got.ContentLength, Body: &received{resp: got, clock: r.Clock},
	}
	if got.StatusCode >= 200 && !sound(got.Header) {
		_ = got.Body.Close() // it is given up
		return &client.Error{Reason: client.Invalid, Err: errors.New("answered with a field that can not be passed on")}
	}
	resp.Header = incoming(got.Header)
	if got.Body == http.NoBody {
		resp.Body = exchange.NoBody
	}
	return nil
}

// outgoing makes the transport's request.
func outgoing(ctx context.Context, scheme string, r *client.Request) *http.Request {
	path := r.Base + r.Path
	target := &url.URL{Scheme: scheme, Host: r.Host, Path: path, RawQuery: r.Query}
	if strings.Contains(path, "%") {
		if plain, err := url.PathUnescape(path); err == nil {
			target.Path, target.RawPath = plain, path
		}
	}
	out := &http.Request{
		Method: r.Method, URL: target, Host: r.Host, Header: fieldsOf(r.Header), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if r.Body != nil && r.Length != 0 {
		sent := &sending{Body: r.Body}
		out.Body, out.ContentLength = sent, r.Length
		if len(r.Trailers) > 0 && r.Length < 0 {
			sent.trailer = make(http.Header, len(r.Trailers))
			for _, name := range r.Trailers {
				sent.trailer[http.CanonicalHeaderKey(name)] = nil
			}
			out.Trailer = sent.trailer
		}
	}
	return out.WithContext(ctx)
}

// sending is a request's body as the transport reads it. Its trailer fields are announced by their keys, and filled in at
// its end.
type sending struct {
	client.Body
	trailer http.Header
}

func (s *sending) Read(p []byte) (int, error) {
	n, err := s.Body.Read(p)
	if exchange.AtEnd(err) && s.trailer != nil {
		for _, f := range s.Body.Trailer() {
			key := http.CanonicalHeaderKey(f.Name)
			if have, ok := s.trailer[key]; ok {
				s.trailer[key] = append(have, f.Value)
			}
		}
		s.trailer = nil // not again
	}
	return n, err
}

// received is the body of a transport's response.
type received struct {
	resp  *http.Response
	clock client.Clock
	ended atomic.Bool
}

// Read reads on. Errors are *client.Error.
func (b *received) Read(p []byte) (int, error) {
	if b.clock != nil {
		b.clock.Waiting(true)
		defer b.clock.Waiting(false)
	}
	n, err := b.resp.Body.Read(p)
	if exchange.AtEnd(err) {
		b.ended.Store(true)
	} else if err != nil {
		err = &client.Error{Reason: reason(err), Err: unquoted(err)}
	}
	return n, err
}

// Close gives up what was not read.
func (b *received) Close() error { return b.resp.Body.Close() }

// Trailer is the trailer section, once all was read.
func (b *received) Trailer() exchange.Header {
	if !b.ended.Load() {
		return nil
	}
	return incoming(b.resp.Trailer)
}

// lowerNames spares most responses the making of lower-case names. It is never written to.
var lowerNames = func() map[string]string {
	m := map[string]string{}
	for _, n := range []string{
		"accept-ranges", "access-control-allow-origin", "age", "allow", "alt-svc", "cache-control", "connection", "content-disposition",
		"content-encoding", "content-language", "content-length", "content-security-policy", "content-type", "date", "etag", "expires",
		"grpc-encoding", "grpc-message", "grpc-status", "keep-alive", "last-modified", "link", "location", "referrer-policy", "retry-after",
		"server", "set-cookie", "strict-transport-security", "traceparent", "transfer-encoding", "upgrade", "vary", "via", "www-authenticate",
		"x-content-type-options", "x-frame-options", "x-powered-by", "x-request-id", "sec-websocket-accept", "sec-websocket-protocol",
	} {
		m[http.CanonicalHeaderKey(n)] = n
	}
	return m
}()

// sound reports whether every field can be passed on: the transport takes names of nearly any octets. White space between
// a name and its colon is not part of the name and is removed (RFC 9112 section 5.1).
func sound(h http.Header) bool {
	for name, values := range h {
		if trimmed := strings.TrimRight(name, " \t"); trimmed != name {
			delete(h, name)
			name = textproto.CanonicalMIMEHeaderKey(trimmed)
			if name == "Content-Length" || name == "Transfer-Encoding" {
				return false // the transport did not see it, and framed the message by something else
			}
			h[name] = append(h[name], values...)
		}
		if !httpguts.ValidHeaderFieldName(name) {
			return false
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return false
			}
		}
	}
	return true
}

// unquoted is a transport's error without what it quotes of the answer: errors are logged, and that can be anybody's data.
func unquoted(err error) error {
	text, _, quotes := strings.Cut(err.Error(), `"`)
	if !quotes {
		return err
	}
	return errors.New(strings.TrimRight(text, " :"))
}

// incoming makes the gateway's header of a transport's: without what ends at this hop, ordered by name because the
// transport does not tell the order.
func incoming(h http.Header) exchange.Header {
	if len(h) == 0 {
		return nil
	}
	var named []string // by Connection
	for _, v := range h["Connection"] {
		for token := range strings.SplitSeq(v, ",") {
			named = append(named, strings.ToLower(strings.TrimSpace(token)))
		}
	}
	list := make(exchange.Header, 0, len(h)+2)
	for key, values := range h {
		name, ok := lowerNames[key]
		if !ok {
			name = strings.ToLower(key)
		}
		if client.HopByHop(name) || slices.Contains(named, name) {
			continue
		}
		for _, v := range values {
			list = append(list, exchange.Field{Name: name, Value: v})
		}
	}
	slices.SortStableFunc(list, func(a, b exchange.Field) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// fieldsOf makes a transport's header of the gateway's. TE may say "trailers" over HTTP/2 and 3 (RFC 9113 section 8.2.2),
// which gRPC servers insist on.
func fieldsOf(h exchange.Header) http.Header {
	out := make(http.Header, len(h)+3)
	values := make([]string, 0, len(h)) // one allocation for all of them
	for _, f := range h {
		if f.Name == "host" || client.HopByHop(f.Name) && (f.Name != "te" || !h.Has("te", "trailers")) {
			continue
		}
		value := f.Value
		if f.Name == "te" {
			value = "trailers"
		}
		key := textproto.CanonicalMIMEHeaderKey(f.Name)
		if have, ok := out[key]; ok {
			out[key] = append(slices.Clip(have), value)
			continue
		}
		values = append(values, value)
		out[key] = values[len(values)-1 : len(values) : len(values)]
	}
	if _, ok := out["User-Agent"]; !ok {
		out["User-Agent"] = []string{""} // else the transport names itself
	}
	return out
}

// reason says what a transport's error means. The transports have no types for it.
func reason(err error) client.Reason {
	var protocol textproto.ProtocolError
	switch {
	case errors.Is(err, errInterim):
		return client.Invalid
	case unprocessed(err):
		return client.Refused
	case errors.As(err, &protocol):
		return client.Invalid
	}
	text := err.Error()
	for _, word := range []string{"malformed", "invalid", "exceeded", "multiple Content-Length", "unsupported transfer encoding", "bad Content-Length", "bad trailer key"} {
		if strings.Contains(text, word) {
			return client.Invalid
		}
	}
	return client.Broken
}

// unprocessed reports whether an HTTP/2 server said that it did nothing with a request: the stream was refused, or came
// after the last one its GOAWAY names (RFC 9113 section 8.7). The transport has no type for the second; if its wording
// changes the request counts as maybe sent, which is the safe side.
func unprocessed(err error) bool {
	var stream http2.StreamError
	if errors.As(err, &stream) && stream.Code == http2.ErrCodeRefusedStream {
		return true
	}
	return strings.Contains(err.Error(), "graceful shutdown GOAWAY") || strings.Contains(err.Error(), "client conn not usable")
}

// interimGuard passes on interim responses only while RoundTrip waits: the transport reports them from a goroutine of its
// own.
type interimGuard struct {
	pass func(status int, h exchange.Header) error

	mu     sync.Mutex
	n      int
	over   bool
	failed error // pass's; to be read after close
}

// maxInterim is how many interim responses one request may get.
const maxInterim = 32

var errInterim = errors.New("too many interim responses")

func (g *interimGuard) got(status int, h textproto.MIMEHeader) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n++; g.n > maxInterim {
		return errInterim
	}
	if g.over || g.pass == nil || status == 100 || status == 101 {
		return nil
	}
	g.failed = g.pass(status, incoming(http.Header(h)))
	return g.failed
}

func (g *interimGuard) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
}

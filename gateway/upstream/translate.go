package upstream

import (
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"

	"github.com/postern-gateway/postern/gateway/exchange"
)

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

// hopByHop says which fields end at this hop (RFC 9110 section 7.6.1), and those that frame a message.
func hopByHop(name string) bool {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
		"transfer-encoding", "upgrade", "content-length", "http2-settings":
		return true
	}
	return false
}

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
		if hopByHop(name) || slices.Contains(named, name) {
			continue
		}
		for _, v := range values {
			list = append(list, exchange.Field{Name: name, Value: v})
		}
	}
	slices.SortStableFunc(list, func(a, b exchange.Field) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// outgoing makes a transport's header of the gateway's. TE may say "trailers" over HTTP/2 and 3 (RFC 9113 section 8.2.2),
// which gRPC servers insist on.
func outgoing(h exchange.Header, shared bool) http.Header {
	out := make(http.Header, len(h)+3)
	values := make([]string, 0, len(h)) // one allocation for all of them
	for _, f := range h {
		if f.Name == "host" || hopByHop(f.Name) && (f.Name != "te" || !shared || !h.Has("te", "trailers")) {
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

// isInvalid reports whether a transport's error says that the answer is not HTTP. The transports have no types for it.
func isInvalid(err error) bool {
	var protocol textproto.ProtocolError
	if errors.As(err, &protocol) {
		return true
	}
	text := err.Error()
	for _, word := range []string{"malformed", "invalid", "exceeded", "multiple Content-Length", "unsupported transfer encoding", "bad Content-Length", "bad trailer key"} {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
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
	mu   sync.Mutex
	n    int
	over bool
}

// maxInterim is how many interim responses one request may get.
const maxInterim = 32

func (g *interimGuard) wrap(f func(int, exchange.Header) error) func(int, textproto.MIMEHeader) error {
	return func(status int, h textproto.MIMEHeader) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.n++; g.n > maxInterim {
			return errors.New("too many interim responses: invalid")
		}
		if g.over || f == nil || status == 100 || status == 101 {
			return nil
		}
		return f(status, incoming(http.Header(h)))
	}
}

func (g *interimGuard) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
}

// tunnel is the stream after an upgrade. Its Close ends the attempt.
type tunnel struct {
	io.ReadWriteCloser
	a *attempt
}

// Close closes the connection.
func (t *tunnel) Close() error {
	err := t.ReadWriteCloser.Close()
	t.a.finish(nil, false)
	return err
}

// ill reports whether a status speaks of the endpoint's health rather than of the request.
func ill(status int) bool { return status == 502 || status == 503 || status == 504 }

package carrier

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http/httpguts"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http1"
)

// Misuse of a reply, and of one that is over.
var (
	errOrder  = errors.New("reply: called out of order")
	errLength = errors.New("reply: body does not have the announced length")
	errOver   = errors.New("reply: broken off or over")
)

// usable reports why the reply can not go on; nil when it can.
func (c *call) usable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.aborted || c.ended || c.tunnel != nil {
		return errOver
	}
	return nil
}

// Interim implements exchange.Reply. HTTP/1.0 knows no interim responses: there it does nothing.
func (c *call) Interim(status int, h exchange.Header) error {
	c.replying.Lock()
	defer c.replying.Unlock()
	if err := c.usable(); err != nil {
		return err
	}
	if c.started || status < 100 || status > 199 || status == http.StatusSwitchingProtocols {
		return errOrder
	}
	if c.head != nil && c.head.Minor == 0 {
		return nil
	}
	to := c.w.Header()
	if err := setHeader(to, h); err != nil {
		clear(to)
		return err
	}
	c.writeStall.begin()
	c.w.WriteHeader(status)
	clear(to)
	if c.writeStall.end() {
		return exchange.ErrClientGone
	}
	return nil
}

// Head implements exchange.Reply.
func (c *call) Head(status int, h exchange.Header, length int64) error {
	c.replying.Lock()
	defer c.replying.Unlock()
	if err := c.usable(); err != nil {
		return err
	}
	if c.started || status < 200 || status > 999 {
		return errOrder
	}
	to := c.w.Header()
	if err := setHeader(to, h); err != nil {
		clear(to)
		return err
	}
	c.started, c.length = true, length
	head := c.x.Request.Method == http.MethodHead || (c.head != nil && c.head.Method == http.MethodHead)
	c.noBody = head || status == http.StatusNoContent || status == http.StatusNotModified
	if length >= 0 && (!c.noBody || head && status != http.StatusNoContent && status != http.StatusNotModified) {
		to["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	}
	if length >= 0 {
		delete(to, "Trailer") // announced and could not follow
	}
	if _, ok := to["Content-Type"]; !ok {
		to["Content-Type"] = nil // the servers would guess one
	}
	if c.x.Request.Protocol != exchange.HTTP3 {
		if c.terms.AltSvc != "" {
			to["Alt-Svc"] = []string{c.terms.AltSvc}
		}
		// HTTP/2 turns this into GOAWAY. A body that broke off leaves an HTTP/1.1 connection without a next request, as
		// does an upgrade that is not taken: the guard has already let go of framing.
		if c.peer.Connection.Last() || c.guard != nil && (c.body.incomplete() || c.head.Upgrade != "") {
			to["Connection"] = []string{"close"}
			if c.guard != nil && c.body.incomplete() {
				c.guard.Linger()
			}
		}
	}
	c.w.WriteHeader(status)
	return nil
}

// setHeader puts fields into the servers' form. Fields of the connection are the adapter's to write. A name or value
// that could not go on the wire is an error and nothing is sent: it could otherwise begin a message of its own.
func setHeader(to http.Header, h exchange.Header) error {
	values := make([]string, len(h)) // one allocation for all the lists of one
	for i, f := range h {
		switch f.Name {
		case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te", "content-length":
			continue
		}
		if !httpguts.ValidHeaderFieldName(f.Name) || !httpguts.ValidHeaderFieldValue(f.Value) {
			return fmt.Errorf("reply: header field %q can not be sent", f.Name)
		}
		name := http.CanonicalHeaderKey(f.Name)
		if old, ok := to[name]; ok {
			to[name] = append(old, f.Value)
			continue
		}
		values[i] = f.Value
		to[name] = values[i : i+1 : i+1]
	}
	return nil
}

// Write implements exchange.Reply. What is written to a reply without body, such as one to HEAD, is counted and dropped.
func (c *call) Write(p []byte) (int, error) {
	c.replying.Lock()
	defer c.replying.Unlock()
	if err := c.usable(); err != nil {
		return 0, err
	}
	if !c.started {
		return 0, errOrder
	}
	if c.noBody || len(p) == 0 {
		return len(p), nil
	}
	if c.length >= 0 && c.written+int64(len(p)) > c.length {
		return 0, errLength
	}
	c.writeStall.begin()
	n, err := c.w.Write(p)
	c.writeStall.end()
	c.written += int64(n)
	return n, gone(err)
}

// gone makes what went wrong with a write the client's doing: there is nobody else at the other end.
func gone(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", exchange.ErrClientGone, err)
}

// Flush implements exchange.Reply.
func (c *call) Flush() error {
	c.replying.Lock()
	defer c.replying.Unlock()
	if err := c.usable(); err != nil {
		return err
	}
	return c.flush()
}

func (c *call) flush() error {
	if !c.started {
		return errOrder
	}
	c.writeStall.begin()
	err := c.rc.Flush()
	c.writeStall.end()
	return gone(err)
}

// End implements exchange.Reply. A trailer is not sent where there is no place for one: HTTP/1.0, HTTP/1.1 with a length.
// The last octets of a reply without a known length leave when the handler returns.
func (c *call) End(trailer exchange.Header) error {
	c.replying.Lock()
	defer c.replying.Unlock()
	if err := c.usable(); err != nil {
		return err
	}
	if !c.started {
		return errOrder
	}
	if !c.noBody && c.length >= 0 && c.written != c.length {
		c.aborted = true
		return errLength
	}
	chunked := c.guard != nil && c.length < 0 && !c.noBody && c.head.Minor == 1
	if len(trailer) > 0 && (c.guard == nil || chunked) {
		// The head must have left, or the servers would choose a framing without trailer.
		if err := c.flush(); err != nil {
			c.aborted = true
			return err
		}
		to := c.w.Header()
		for _, f := range trailer {
			if !http1.TrailerAllowed(f.Name) || !httpguts.ValidHeaderFieldName(f.Name) || !httpguts.ValidHeaderFieldValue(f.Value) {
				continue
			}
			name := http.TrailerPrefix + http.CanonicalHeaderKey(f.Name)
			to[name] = append(to[name], f.Value)
		}
	} else if c.guard != nil && !chunked || c.noBody {
		// The client has all of it now and need not wait for what the handler does afterwards.
		if err := c.flush(); err != nil {
			c.aborted = true
			return err
		}
	}
	c.ended = true
	return nil
}

// Abort implements exchange.Reply. The connection is cut or the stream reset when the handler returns.
func (c *call) Abort() {
	c.replying.Lock()
	defer c.replying.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over && c.tunnel == nil {
		c.aborted = true
	}
}

// Upgrade implements exchange.Reply: 101 on HTTP/1.1, 200 to an extended CONNECT on HTTP/3 (RFC 9220).
func (c *call) Upgrade(h exchange.Header) (io.ReadWriteCloser, error) {
	c.replying.Lock()
	defer c.replying.Unlock()
	if err := c.usable(); err != nil {
		return nil, err
	}
	streamer, extended := c.w.(http3.HTTPStreamer)
	if c.started || c.x.Request.Upgrade == "" || (c.guard == nil && !extended) {
		return nil, exchange.ErrNoUpgrade
	}
	if c.guard != nil {
		return c.switchProtocols(h)
	}
	h = h.Clone()
	h.Del("sec-websocket-accept") // answers a key that HTTP/3 does not have
	if err := setHeader(c.w.Header(), h); err != nil {
		return nil, err
	}
	c.started = true
	c.w.WriteHeader(http.StatusOK)
	s, err := streamer.HTTPStream()
	if err != nil {
		c.aborted = true
		return nil, gone(err)
	}
	c.tunnel = &tunnel{stream: s, closed: func() error {
		s.CancelRead(quic.StreamErrorCode(http3.ErrCodeNoError))
		return s.Close()
	}, closeWrite: s.Close}
	return c.tunnel, nil
}

func (c *call) switchProtocols(h exchange.Header) (io.ReadWriteCloser, error) {
	b := append(make([]byte, 0, 512), "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "...)
	b = append(append(b, c.x.Request.Upgrade...), "\r\n"...)
	for _, f := range h {
		switch f.Name {
		case "connection", "upgrade", "keep-alive", "content-length", "transfer-encoding", "te", "trailer":
			continue
		}
		if !httpguts.ValidHeaderFieldName(f.Name) || !httpguts.ValidHeaderFieldValue(f.Value) {
			return nil, fmt.Errorf("reply: header field %q can not be sent", f.Name)
		}
		b = append(append(append(append(b, http.CanonicalHeaderKey(f.Name)...), ": "...), f.Value...), "\r\n"...)
	}
	_, buffered, err := c.rc.Hijack()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", exchange.ErrNoUpgrade, err)
	}
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	g := c.guard
	g.Tunnel()
	c.started = true
	c.tunnel = &tunnel{stream: g, early: append([]byte(nil), early...), closed: g.Close, closeWrite: g.CloseWrite}
	if _, err := g.Write(append(b, "\r\n"...)); err != nil {
		return nil, gone(err)
	}
	return c.tunnel, nil
}

// tunnel is a connection or stream after an upgrade. It closes at the latest when the handler returns.
type tunnel struct {
	stream interface {
		io.ReadWriter
		SetReadDeadline(time.Time) error
	}
	early      []byte // read ahead with the request
	closed     func() error
	closeWrite func() error
	once       sync.Once
}

func (t *tunnel) Read(p []byte) (int, error) {
	if len(t.early) > 0 {
		n := copy(p, t.early)
		t.early = t.early[n:]
		return n, nil
	}
	return t.stream.Read(p)
}

func (t *tunnel) Write(p []byte) (int, error) { return t.stream.Write(p) }

// SetReadDeadline bounds waiting for the client, which nothing else does.
func (t *tunnel) SetReadDeadline(at time.Time) error { return t.stream.SetReadDeadline(at) }

// CloseWrite ends the sending side alone.
func (t *tunnel) CloseWrite() error { return t.closeWrite() }

// Close ends both sides; a blocked read returns.
func (t *tunnel) Close() (err error) {
	t.once.Do(func() { err = t.closed() })
	return err
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

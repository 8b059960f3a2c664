package carrier

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/postern-gateway/postern/gateway/caller"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http1"
)

// upload is the half of a stream that comes from the client. Its errors are io.EOF and those of package exchange.
type upload interface {
	io.Reader
	SetReadDeadline(at time.Time) error
	CloseRead()               // a read that waits returns; what the client still sends is thrown away
	Trailer() exchange.Header // when the body has ended
}

// download is the half of a stream that goes to the client. Errors wrap exchange.ErrClientGone.
type download interface {
	Interim(status int, h exchange.Header) error
	Head(status int, h exchange.Header) error
	Write(p []byte) (int, error)
	Flush() error
	CloseWrite(trailer exchange.Header) error // ends the reply
	Accept(h exchange.Header) error           // 200 to an extended CONNECT: what follows is the tunnel's
}

// streamCall is one exchange on a stream of HTTP/2 or 3: it carries the exchange, its body and its reply in one piece. It is
// not reused, because a body may be read by a goroutine that outlives the handler.
type streamCall struct {
	x       exchange.Exchange
	carrier *Carrier
	terms   *caller.Terms // as they were when the exchange began
	up      upload
	down    download
	body    streamBody
	slots   [16]exchange.Field // of the reply's header
	fields  exchange.Header

	mu      sync.Mutex // serialises the reply
	over    bool       // the handler has returned
	started bool       // the final head was given
	ended   bool
	aborted bool
	noBody  bool // the reply has no body, whatever is written
	length  int64
	written int64
	tunnel  *streamTunnel
}

// begin makes c an exchange of p's.
func (c *streamCall) begin(e *Carrier, p *caller.Peer, protocol exchange.Protocol, up upload, down download) {
	c.carrier, c.terms, c.up, c.down = e, p.Connection.Terms(), up, down
	e.Begin(&c.x, p, c.terms, protocol, c)
}

// run has the handler answer; false when the reply is not whole, which the client must be able to tell.
func (c *streamCall) run(ctx context.Context, p *caller.Peer, problem *exchange.Problem) (whole bool) {
	if problem != nil {
		c.carrier.Refuse(&c.x, problem)
	} else {
		if !p.Connection.Begin() {
			return false
		}
		defer p.Connection.Done()
		if c.carrier.Invoke(ctx, &c.x) {
			c.Abort()
		}
		if c.open() && ctx.Err() == nil { // otherwise nobody waits for an answer
			caller.Answer(&c.x, caller.Failed())
		}
	}
	if c.tunnel != nil {
		_ = c.tunnel.Close()
	}
	_ = c.body.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	return c.ended && !c.aborted || c.tunnel != nil
}

// open reports whether the reply has not begun.
func (c *streamCall) open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.started && !c.aborted
}

// usable reports why the reply can not go on; nil when it can. mu is held.
func (c *streamCall) usable() error {
	if c.over || c.aborted || c.ended || c.tunnel != nil {
		return caller.ErrOver
	}
	return nil
}

// Interim implements exchange.Reply.
func (c *streamCall) Interim(status int, h exchange.Header) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(); err != nil {
		return err
	}
	if c.started || status < 100 || status > 199 || status == http.StatusSwitchingProtocols {
		return caller.ErrOrder
	}
	if err := c.send(h); err != nil {
		return err
	}
	return c.down.Interim(status, c.fields)
}

// proceed sends 100 (RFC 9110 section 10.1.1), unless the reply has begun.
func (c *streamCall) proceed() {
	_ = c.Interim(http.StatusContinue, nil)
}

// Head implements exchange.Reply.
func (c *streamCall) Head(status int, h exchange.Header, length int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(); err != nil {
		return err
	}
	if c.started || status < 200 || status > 999 {
		return caller.ErrOrder
	}
	if err := c.send(h); err != nil {
		return err
	}
	bare := status == http.StatusNoContent || status == http.StatusNotModified
	c.noBody = bare || c.x.Request.Method == http.MethodHead
	if length >= 0 {
		c.fields.Del("trailer") // announced and could not follow
		if !bare {
			c.fields.Add("content-length", strconv.FormatInt(length, 10))
		}
	}
	if c.terms.AltSvc != "" && c.x.Request.Protocol != exchange.HTTP3 {
		c.fields.Set("alt-svc", c.terms.AltSvc)
	}
	if err := c.down.Head(status, c.fields); err != nil {
		c.aborted = true
		return err
	}
	c.started, c.length = true, length
	return nil
}

// send makes fields what may be sent of h. Fields of the connection are not the handler's to write. A name or value that
// can not go on the wire is an error and nothing is sent: it could begin a message of its own further on.
func (c *streamCall) send(h exchange.Header) error {
	c.fields = c.slots[:0]
	for _, f := range h {
		switch f.Name {
		case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te", "content-length":
			continue
		}
		if !httpguts.ValidHeaderFieldName(f.Name) || !httpguts.ValidHeaderFieldValue(f.Value) {
			return errors.New("reply: header field " + strconv.Quote(f.Name) + " can not be sent")
		}
		c.fields = append(c.fields, f)
	}
	return nil
}

// Write implements exchange.Reply. What is written to a reply without body, such as one to HEAD, is counted and dropped.
func (c *streamCall) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(); err != nil {
		return 0, err
	}
	if !c.started {
		return 0, caller.ErrOrder
	}
	if c.noBody || len(p) == 0 {
		return len(p), nil
	}
	if c.length >= 0 && c.written+int64(len(p)) > c.length {
		return 0, caller.ErrLength
	}
	n, err := c.down.Write(p)
	c.written += int64(n)
	return n, err
}

// Flush implements exchange.Reply.
func (c *streamCall) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(); err != nil {
		return err
	}
	if !c.started {
		return caller.ErrOrder
	}
	return c.down.Flush()
}

// End implements exchange.Reply.
func (c *streamCall) End(trailer exchange.Header) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(); err != nil {
		return err
	}
	if !c.started {
		return caller.ErrOrder
	}
	if !c.noBody && c.length >= 0 && c.written != c.length {
		c.aborted = true
		return caller.ErrLength
	}
	allowed := c.slots[:0]
	for _, f := range trailer {
		if http1.TrailerAllowed(f.Name) && httpguts.ValidHeaderFieldName(f.Name) && httpguts.ValidHeaderFieldValue(f.Value) {
			allowed = append(allowed, f)
		}
	}
	if err := c.down.CloseWrite(allowed); err != nil {
		c.aborted = true
		return err
	}
	c.ended = true
	return nil
}

// Abort implements exchange.Reply. The stream is reset when the handler returns.
func (c *streamCall) Abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over && c.tunnel == nil {
		c.aborted = true
	}
}

// Upgrade implements exchange.Reply: 200 to an extended CONNECT (RFC 8441 section 5, RFC 9220 section 3).
func (c *streamCall) Upgrade(h exchange.Header) (io.ReadWriteCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(); err != nil {
		return nil, err
	}
	if c.started || c.x.Request.Upgrade == "" {
		return nil, exchange.ErrNoUpgrade
	}
	if err := c.send(h); err != nil {
		return nil, err
	}
	c.fields.Del("sec-websocket-accept") // answers a key that these protocols do not have
	if err := c.down.Accept(c.fields); err != nil {
		c.aborted = true
		return nil, err
	}
	c.started = true
	c.tunnel = &streamTunnel{c: c}
	return c.tunnel, nil
}

// streamTunnel is a stream after an upgrade. It closes at the latest when the handler returns.
type streamTunnel struct {
	c     *streamCall
	write sync.Mutex // serialises Write and what ends it
	once  sync.Once
}

func (t *streamTunnel) Read(p []byte) (int, error) { return t.c.up.Read(p) }

// Write sends p at once.
func (t *streamTunnel) Write(p []byte) (int, error) {
	t.write.Lock()
	defer t.write.Unlock()
	n, err := t.c.down.Write(p)
	if err == nil {
		err = t.c.down.Flush()
	}
	return n, err
}

// SetReadDeadline bounds waiting for the client, which nothing else does.
func (t *streamTunnel) SetReadDeadline(at time.Time) error { return t.c.up.SetReadDeadline(at) }

// CloseWrite ends the sending side alone.
func (t *streamTunnel) CloseWrite() error {
	t.write.Lock()
	defer t.write.Unlock()
	return t.c.down.CloseWrite(nil)
}

// Close ends both sides; a blocked read returns.
func (t *streamTunnel) Close() (err error) {
	t.once.Do(func() {
		t.c.up.CloseRead()
		err = t.CloseWrite()
	})
	return err
}

// streamBody is a request's body. One goroutine reads it; any may close it.
type streamBody struct {
	up     upload // nil: there is none
	length int64  // announced; -1: unknown
	limit  int64
	invite func() // asks for the body that the client keeps back until then; nil once it has

	probe []byte // read ahead of the handler
	read  int64
	err   error // sticky, io.EOF included

	mu      sync.Mutex
	trailer exchange.Header
	closed  bool
}

// Read reads on. Errors say whose fault it was: ErrBodyTooLarge, ErrBodyTimeout, ErrClientBody or ErrClientGone, wrapped.
func (b *streamBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.length > b.limit {
		b.err = exchange.ErrBodyTooLarge
		return 0, b.err
	}
	// One octet more than allowed shows that there is more than allowed.
	p = p[:min(int64(len(p)), b.limit-b.read+1)]
	if len(p) == 0 {
		return 0, nil
	}
	if b.isClosed() {
		b.err = http.ErrBodyReadAfterClose
		return 0, b.err
	}
	if b.invite != nil {
		b.invite()
		b.invite = nil
	}
	var n int
	var err error
	if len(b.probe) > 0 {
		n = copy(p, b.probe)
		b.probe = b.probe[n:]
	} else {
		n, err = b.up.Read(p)
	}
	if b.read += int64(n); b.read > b.limit {
		b.err = exchange.ErrBodyTooLarge
		return n - 1, b.err
	}
	switch {
	case err == nil:
		return n, nil
	case exchange.AtEnd(err):
		b.keep(b.up.Trailer())
	case b.isClosed():
		err = http.ErrBodyReadAfterClose
	}
	b.err = err
	return n, err
}

func (b *streamBody) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// keep keeps what is allowed of the trailer section.
func (b *streamBody) keep(trailer exchange.Header) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range trailer {
		if http1.TrailerAllowed(f.Name) {
			b.trailer = append(b.trailer, f)
		}
	}
}

// Close ends reading; a read that is blocked returns.
func (b *streamBody) Close() error {
	b.mu.Lock()
	was := b.closed
	b.closed = true
	b.mu.Unlock()
	if !was && b.up != nil {
		b.up.CloseRead()
	}
	return nil
}

// Trailer is what followed the body, nil before its end.
func (b *streamBody) Trailer() exchange.Header {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.trailer
}

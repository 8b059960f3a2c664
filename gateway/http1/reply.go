package http1

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/caller"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// call is one exchange on its connection: it carries the exchange, its body and its reply in one piece, which is one
// allocation. It is not reused, because a body or a reply may be held by what outlives the handler.
type call struct {
	x     exchange.Exchange
	conn  *Conn
	terms *caller.Terms // as they were when the exchange began
	head  Head
	body  body

	replying sync.Mutex // serialises what touches the writing side
	started  bool       // the final head was given
	ended    bool
	aborted  bool
	over     bool // the handler has returned: the connection is not the call's any more
	last     bool // no request follows
	noBody   bool // the reply has no body, whatever is written
	chunked  bool
	asked    bool // 100 was sent
	length   int64
	written  int64
	tunnel   *tunnel

	slots [16]exchange.Field // of the request's header
}

// run has the handler answer and sees to it that the reply is whole or recognisably not; true when the connection can take
// another request.
func (k *call) run() bool {
	c := k.conn
	q := &k.x.Request
	q.Method, q.Authority, q.Header, q.Upgrade, q.Length = k.head.Method, k.head.Authority, k.head.Header, k.head.Upgrade, k.head.Length
	k.body.call, k.body.length, k.body.limit = k, q.Length, k.terms.MaxBody
	switch {
	case q.Length == 0:
		k.body.over.Store(true)
	case q.Length > 0:
		k.body.left, q.Body = q.Length, &k.body
	default:
		k.body.state, q.Body = inChunkSize, &k.body
	}
	if !c.peer.Connection.Begin() {
		return false
	}
	defer c.peer.Connection.Done()
	var problem *exchange.Problem
	if q.Path, q.Query, problem = SplitTarget(k.head.Target); problem != nil {
		c.server.Refuse(&k.x, problem)
	} else {
		c.enter(k)
		if c.server.Invoke(c.ctx, &k.x) {
			k.Abort()
		}
		if k.open() && c.ctx.Err() == nil { // otherwise nobody waits for an answer
			caller.Answer(&k.x, caller.Failed())
		}
	}
	return k.finish()
}

// open reports whether the reply has not begun.
func (k *call) open() bool {
	k.replying.Lock()
	defer k.replying.Unlock()
	return !k.started && !k.aborted && k.tunnel == nil
}

// finish takes the connection away from whoever still holds the exchange.
func (k *call) finish() bool {
	c := k.conn
	if k.tunnel != nil {
		_ = k.tunnel.Close()
	}
	k.replying.Lock()
	k.over = true
	k.replying.Unlock()
	k.body.shut()
	c.leave()
	switch {
	case k.tunnel != nil:
		return false
	case !k.ended:
		k.breakOff()
		return false
	case c.stuck.Load():
		return false
	case k.last, k.head.Expect && !k.asked && !k.body.over.Load(): // of a body that was not asked for it is not known whether it comes
		c.linger = !k.head.close || !k.body.over.Load() // unless the client has said that nothing follows
		return false
	case !k.body.drain():
		c.linger = true
		return false
	}
	return true
}

// breakOff leaves the client what there is of a reply that was not ended, and never one that looks whole.
func (k *call) breakOff() {
	c := k.conn
	switch {
	case !k.started || k.noBody:
	case k.chunked, k.length > k.written:
		_ = c.flush()
	default:
		c.peer.Connection.Reset() // nothing else tells the client that it is not whole
	}
}

// usable reports why the reply can not go on; nil when it can. replying is held.
func (k *call) usable() error {
	if k.over || k.aborted || k.ended || k.tunnel != nil {
		return caller.ErrOver
	}
	return nil
}

// proceed asks for the body that the client keeps back until then (RFC 9110 section 10.1.1).
func (k *call) proceed() error {
	k.replying.Lock()
	defer k.replying.Unlock()
	if k.asked || k.started || k.usable() != nil {
		return nil
	}
	k.asked = true
	return k.conn.write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
}

// Interim implements exchange.Reply. HTTP/1.0 knows no interim responses: there it does nothing.
func (k *call) Interim(status int, h exchange.Header) error {
	k.replying.Lock()
	defer k.replying.Unlock()
	if err := k.usable(); err != nil {
		return err
	}
	if k.started || status < 100 || status > 199 || status == http.StatusSwitchingProtocols {
		return caller.ErrOrder
	}
	if k.head.Minor == 0 {
		return nil
	}
	out, err := appendFields(appendStatus(k.conn.room(), 1, status), h, 0)
	if err != nil {
		return err
	}
	k.asked = k.asked || status == http.StatusContinue
	out = append(out, crlf...)
	k.conn.out = out
	return k.conn.flush()
}

// Head implements exchange.Reply.
func (k *call) Head(status int, h exchange.Header, length int64) error {
	k.replying.Lock()
	defer k.replying.Unlock()
	if err := k.usable(); err != nil {
		return err
	}
	if k.started || status < 200 || status > 999 {
		return caller.ErrOrder
	}
	bare := status == http.StatusNoContent || status == http.StatusNotModified
	head := k.head.Method == http.MethodHead
	k.length, k.noBody = length, head || bare
	k.chunked = length < 0 && !k.noBody && k.head.Minor == 1
	k.last = k.last || k.ends()

	drop := 0
	if !k.chunked {
		drop |= dropTrailer // announced and could not follow
	}
	if k.terms.AltSvc != "" {
		drop |= dropAltSvc
	}
	b, err := appendFields(appendStatus(k.conn.room(), k.head.Minor, status), h, drop)
	if err != nil {
		return err
	}
	switch {
	case k.chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case length >= 0 && !bare:
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), length, 10), "\r\n"...)
	}
	if _, ok := h.Lookup("date"); !ok {
		b = append(append(append(b, "Date: "...), k.conn.server.now()...), "\r\n"...)
	}
	if k.terms.AltSvc != "" {
		b = append(append(append(b, "Alt-Svc: "...), k.terms.AltSvc...), "\r\n"...)
	}
	if k.last {
		b = append(b, "Connection: close\r\n"...)
	} else if k.head.Minor == 0 {
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	b = append(b, crlf...)
	k.conn.out = b
	k.started = true
	return nil
}

// ends reports whether the connection ends with this reply (RFC 9112 section 9.3): the client says so or can not read another,
// the listener says so, or it will not be known where the next request begins.
func (k *call) ends() bool {
	begun, failed := k.body.progress()
	switch {
	case k.head.close, k.head.Minor == 0 && (!k.head.keepAlive || k.length < 0 && !k.noBody), k.conn.peer.Connection.Last():
		return true
	case k.head.Upgrade != "": // not taken: the client may have sent octets of the other protocol already
		return true
	case k.body.over.Load():
		return false
	}
	return failed || k.head.Expect && !k.asked || !begun && k.head.Length > drainOctets
}

// Fields of a reply that are not always the handler's to write.
const (
	dropTrailer = 1 << iota
	dropAltSvc
)

// appendStatus appends a status line.
func appendStatus(b []byte, minor, status int) []byte {
	b = append(append(b, "HTTP/1."...), '0'+byte(minor), ' ')
	b = append(strconv.AppendInt(b, int64(status), 10), ' ')
	return append(append(b, http.StatusText(status)...), "\r\n"...)
}

// appendFields appends what may be sent of h: not what frames the message or is the connection's, nor what drop says. A name or value that can not go on the wire is an error: it could otherwise
// begin a message of its own.
func appendFields(b []byte, h exchange.Header, drop int) ([]byte, error) {
	for i := range h {
		f := &h[i]
		switch f.Name {
		case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te", "content-length":
			continue
		case "trailer":
			if drop&dropTrailer != 0 {
				continue
			}
		case "alt-svc":
			if drop&dropAltSvc != 0 {
				continue
			}
		}
		var ok bool
		if b, ok = appendField(b, f.Name, f.Value); !ok {
			return b, fmt.Errorf("reply: header field %q can not be sent", f.Name)
		}
	}
	return b, nil
}

// appendField appends a field with its name as people write it; false when it is none.
func appendField(b []byte, name, value string) ([]byte, bool) {
	first := true
	for i := range len(name) {
		c := name[i]
		if !isToken(c) {
			return b, false
		}
		if first && c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		first = c == '-'
		b = append(b, c)
	}
	if len(name) == 0 || hasControl(value) {
		return b, false
	}
	return append(append(append(b, ": "...), value...), "\r\n"...), true
}

// Write implements exchange.Reply. What is written to a reply without body, such as one to HEAD, is counted and dropped.
func (k *call) Write(p []byte) (int, error) {
	k.replying.Lock()
	defer k.replying.Unlock()
	if err := k.usable(); err != nil {
		return 0, err
	}
	if !k.started {
		return 0, caller.ErrOrder
	}
	if k.noBody || len(p) == 0 {
		return len(p), nil
	}
	if k.length >= 0 && k.written+int64(len(p)) > k.length {
		return 0, caller.ErrLength
	}
	c := k.conn
	var tail []byte
	if k.chunked {
		if err := c.ensure(maxSizeLine); err != nil {
			return 0, err
		}
		c.out = append(strconv.AppendInt(c.room(), int64(len(p)), 16), crlf...)
		tail = crlf
	}
	if err := c.put(p, tail); err != nil {
		return 0, err
	}
	k.written += int64(len(p))
	return len(p), nil
}

// Flush implements exchange.Reply.
func (k *call) Flush() error {
	k.replying.Lock()
	defer k.replying.Unlock()
	if err := k.usable(); err != nil {
		return err
	}
	if !k.started {
		return caller.ErrOrder
	}
	return k.conn.flush()
}

// End implements exchange.Reply. A trailer is not sent where there is no place for one: HTTP/1.0, a reply with a length.
func (k *call) End(trailer exchange.Header) error {
	k.replying.Lock()
	defer k.replying.Unlock()
	if err := k.usable(); err != nil {
		return err
	}
	if !k.started {
		return caller.ErrOrder
	}
	if !k.noBody && k.length >= 0 && k.written != k.length {
		k.aborted = true
		return caller.ErrLength
	}
	if k.chunked {
		b := append(k.conn.room(), "0\r\n"...)
		for _, f := range trailer {
			if !TrailerAllowed(f.Name) {
				continue
			}
			if longer, ok := appendField(b, f.Name, f.Value); ok {
				b = longer
			}
		}
		b = append(b, crlf...)
		k.conn.out = b
	}
	if err := k.conn.flush(); err != nil {
		k.aborted = true
		return err
	}
	k.ended = true
	return nil
}

// Abort implements exchange.Reply. The connection is cut when the handler returns.
func (k *call) Abort() {
	k.replying.Lock()
	defer k.replying.Unlock()
	if !k.over && k.tunnel == nil && !k.aborted {
		k.aborted, k.ended = true, false
	}
}

// Upgrade implements exchange.Reply.
func (k *call) Upgrade(h exchange.Header) (io.ReadWriteCloser, error) {
	k.replying.Lock()
	defer k.replying.Unlock()
	if err := k.usable(); err != nil {
		return nil, err
	}
	if k.started || k.head.Upgrade == "" {
		return nil, exchange.ErrNoUpgrade
	}
	c := k.conn
	b := append(appendStatus(c.room(), 1, http.StatusSwitchingProtocols), "Connection: Upgrade\r\nUpgrade: "...)
	b, err := appendFields(append(append(b, k.head.Upgrade...), crlf...), h, dropTrailer)
	if err != nil {
		return nil, err
	}
	b = append(b, crlf...)
	c.out = b
	c.leave() // whoever has the tunnel reads from now on, and keeps the deadlines
	if err := c.awaitUntil(time.Time{}); err != nil {
		return nil, caller.Gone(err)
	}
	k.started = true
	k.tunnel = &tunnel{call: k, early: append([]byte(nil), c.in[c.from:c.to]...)}
	c.letIn()
	if err := c.flush(); err != nil {
		return nil, err
	}
	return k.tunnel, nil
}

// tunnel is the connection after an upgrade. It closes at the latest when the handler returns.
type tunnel struct {
	call  *call
	early []byte // read ahead with the request
}

// Read reads what came early, and then on.
func (t *tunnel) Read(p []byte) (int, error) {
	if len(t.early) > 0 {
		n := copy(p, t.early)
		t.early = t.early[n:]
		return n, nil
	}
	return t.call.conn.rw.Read(p)
}

// Write writes under the listener's write timeout.
func (t *tunnel) Write(p []byte) (int, error) {
	t.call.replying.Lock()
	defer t.call.replying.Unlock()
	if t.call.over {
		return 0, caller.ErrOver
	}
	if err := t.call.conn.write(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetReadDeadline bounds waiting for the client, which nothing else does.
func (t *tunnel) SetReadDeadline(at time.Time) error { return t.call.conn.rw.SetReadDeadline(at) }

// CloseWrite ends the sending side alone.
func (t *tunnel) CloseWrite() error { return t.call.conn.closeWrite() }

// Close ends both sides; a blocked read returns.
func (t *tunnel) Close() error { return t.call.conn.rw.Close() }

// Package client is the upstream side of HTTP/1.1 (RFC 9112): its main type is Conn, one connection that sends what it is
// given once and reads the answer in the goroutine that asked.
//
// An exchange costs one write for its head and a small body, and the reads of its answer: no goroutine waits on a
// connection, none hands octets to another, and no header becomes a map. Only a body that is still coming is sent by a
// goroutine of its own, which End waits for, so that the answer is read meanwhile.
//
// What an answer must be to be taken for one stands in response.go and chunk.go; whatever else comes is refused, and the
// connection closed: two readings of one answer are how somebody gets another's. README.md lists the decisions.
package client

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Bounds of what one connection may make the gateway hold or do.
const (
	maxHead     = 256 << 10 // octets of a response's head
	maxFields   = 1000      // fields in it
	maxInterim  = 32        // interim responses to one request
	maxTrailer  = 64 << 10  // octets of a response's trailer section
	bufferSize  = 16 << 10  // octets read or written at once; a TLS record is no longer
	directRead  = 512       // a reader with less room than this is served from a buffer
	continueFor = time.Second
	lastWrite   = 100 * time.Millisecond // how long an answer that is whole waits for the end of its request's body
	brokenGrace = 2 * time.Second        // how long an answer may take after the connection took no more of the request
)

// Request is one request, whatever protocol carries it.
type Request struct {
	Method string
	// Base and Path, one behind the other, are the path, escaped; Base has no "/" at its end, Path begins with one. Octets
	// that can not stand in a target are escaped.
	Base, Path string
	Query      string          // raw, without "?"
	Host       string          // the Host field or :authority
	Header     exchange.Header // fields of a hop and those that frame a message are left out
	Body       Body            // nil: none. It is read by one goroutine at a time, and not after End
	Length     int64           // octets in Body, or -1
	Trailers   []string        // names of the fields of Body's trailer section that are sent
	Upgrade    string          // the protocol to switch to; empty: none
	// Interim is called for every 1xx response except 100 and 101, by the goroutine that waits for the answer. An error
	// ends the exchange. Nil ignores them.
	Interim func(status int, h exchange.Header) error
	Clock   Clock // nil: nobody keeps time
}

// Body is a request's body.
type Body interface {
	exchange.Body
	// Buffered is how many octets can be read without waiting. A short body that is there is sent with the head.
	Buffered() int
}

// Clock is told when the body of a response keeps its reader waiting.
type Clock interface {
	// Waiting is called with true before a read of the connection and with false after it.
	Waiting(bool)
}

// Response is the answer to a Request.
type Response struct {
	Status int             // 100 to 999; 101 only with Upgrade, other interim ones never
	Header exchange.Header // lower-case names, in order; without the fields of a hop and those that frame the message
	Length int64           // octets in Body, announced with HEAD and 304, or -1
	Body   exchange.Body   // never nil. Errors are *Error
	// Upgrade is the raw stream after a 101; nil otherwise. Its Close closes the connection.
	Upgrade io.ReadWriteCloser
}

// Reason says why an exchange failed.
type Reason uint8

// The reasons.
const (
	Broken  Reason = iota // the connection or stream ended too early
	Invalid               // what came is no HTTP
	Refused               // the peer said that it did nothing with the request (HTTP/2 and 3)
	Stale                 // nothing was sent: the connection had ended, or something had come over it that nobody asked for
	Given                 // Interim's error, or the request can not be sent at all: not the peer's fault
)

// Error is why an exchange failed.
type Error struct {
	Reason Reason
	Unsent bool // not one octet of the request left the gateway
	Err    error
}

// Error describes the failure. It quotes nothing of the answer, which can be anybody's data.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func stale() *Error { return &Error{Reason: Stale, Unsent: true, Err: errStale} }

func invalid(text string) *Error { return &Error{Reason: Invalid, Err: errors.New(text)} }

// Errors of a Conn that can not be used.
var (
	errStale   = errors.New("connection ended, or said something unasked, after its last exchange")
	errDead    = errors.New("connection is of no use any more")
	errAborted = errors.New("exchange was given up")
)

// Conn is one connection. It carries one exchange at a time: Do, then reads of the response's body, then End, in one
// goroutine; Abort, Close and the body's Close may come from any, at any time. Err and Fresh are for whoever holds it
// between exchanges.
type Conn struct {
	stream net.Conn // what is read and written: the connection, or TLS over it
	under  net.Conn // the connection itself
	gate   *gate    // under TLS; nil in cleartext
	peeker

	ending   sync.Mutex // held while a read of the body or End is under way
	deadline sync.Mutex // guards aborted and what is done to the connection for it
	aborted  bool
	dead     atomic.Bool // no further exchange
	whole    atomic.Bool // the response was read to its end
	busy     atomic.Bool // between Do and End
	used     bool        // an exchange has begun on it

	buf  *[]byte // unread octets; nil when there are none
	r, w int

	clock   Clock
	head    head
	mode    mode
	left    int64 // of a body with a length
	chunks  chunks
	up      *upload
	failure error // of the body; not nil after its end
}

// mode is how a response's body ends (RFC 9112 section 6.3).
type mode uint8

const (
	noBody mode = iota
	byLength
	byChunks
	byClose
)

// New makes a Conn of an open connection on which nothing was said yet. A *tls.Conn must be one that Secure made.
func New(c net.Conn) *Conn {
	k := &Conn{stream: c, under: c}
	if t, ok := c.(*tls.Conn); ok {
		if k.gate, ok = t.NetConn().(*gate); ok {
			k.under = k.gate.Conn
		}
	}
	if s, ok := k.under.(syscall.Conn); ok {
		k.open(s)
	}
	return k
}

// Secure makes a TLS client on c. The handshake is the caller's to make.
func Secure(c net.Conn, config *tls.Config) *tls.Conn { return tls.Client(&gate{Conn: c}, config) }

// gate stands between TLS and its connection. It counts what is written, and when shut gives TLS nothing to read: what TLS
// can then still give was sent behind the answer.
type gate struct {
	net.Conn
	wrote atomic.Int64
	shut  atomic.Bool
}

func (g *gate) Read(p []byte) (int, error) {
	if g.shut.Load() {
		return 0, errShut
	}
	return g.Conn.Read(p)
}

func (g *gate) Write(p []byte) (int, error) {
	n, err := g.Conn.Write(p)
	g.wrote.Add(int64(n))
	return n, err
}

// shutError is temporary, which is what leaves TLS usable.
type shutError struct{}

var errShut net.Error = shutError{}

func (shutError) Error() string   { return "nothing is to be read now" }
func (shutError) Timeout() bool   { return true }
func (shutError) Temporary() bool { return true }

// Do sends r and reads the head of its response into resp, which is then valid until End. Every Do is followed by an End,
// also when it fails. Errors are *Error; one that is Stale is to be followed by another try, on another connection.
func (c *Conn) Do(r *Request, resp *Response) error {
	if c.dead.Load() || !c.busy.CompareAndSwap(false, true) {
		return &Error{Unsent: true, Err: errDead}
	}
	c.whole.Store(false)
	c.failure, c.clock, c.mode, c.left = nil, r.Clock, noBody, 0
	err := c.ask(r)
	c.used = true
	if err != nil {
		c.dead.Store(true)
		return err
	}
	if err := c.receive(r, resp); err != nil {
		c.dead.Store(true)
		return err
	}
	return nil
}

// End ends the exchange: whatever is left of it is given up, and its goroutine waited for. It reports whether the
// connection can be used for another.
func (c *Conn) End() bool {
	if !c.whole.Load() {
		c.dead.Store(true)
		c.Abort() // a read under way returns
	}
	c.ending.Lock()
	defer c.ending.Unlock()
	if !c.busy.Load() {
		return !c.dead.Load()
	}
	if c.up != nil {
		if !c.up.join(c) {
			c.dead.Store(true)
		}
		c.up = nil
	}
	if c.r < c.w || c.surplus() {
		c.dead.Store(true)
	}
	c.release()
	c.clock, c.head.fields = nil, nil
	if c.failure == nil {
		c.failure = &Error{Err: errAborted} // whoever reads on must not take what there was for the whole
	}
	c.busy.Store(false)
	return !c.dead.Load()
}

// surplus reports whether TLS holds octets that came behind the answer. What the kernel holds is seen by Fresh.
func (c *Conn) surplus() bool {
	if c.gate == nil || c.dead.Load() {
		return false
	}
	c.gate.shut.Store(true)
	defer c.gate.shut.Store(false)
	var one [1]byte
	n, err := c.stream.Read(one[:])
	var e net.Error
	return n > 0 || !errors.As(err, &e) || !e.Timeout()
}

// Abort makes whatever is under way on the connection fail. It is of no use afterwards but must still be closed.
func (c *Conn) Abort() {
	c.deadline.Lock()
	defer c.deadline.Unlock()
	if !c.aborted {
		c.aborted = true
		c.dead.Store(true)
		_ = c.under.SetDeadline(time.Unix(1, 0)) // it fails only on a closed connection
	}
}

// grace bounds the wait for an answer after the connection took no more of the request: the peer may be gone without a
// word, and then no read would ever fail.
func (c *Conn) grace() {
	c.dead.Store(true)
	c.deadline.Lock()
	defer c.deadline.Unlock()
	if !c.aborted {
		_ = c.under.SetReadDeadline(time.Now().Add(brokenGrace)) // as above
	}
}

// Err is not nil when the connection can carry no further exchange.
func (c *Conn) Err() error {
	if c.dead.Load() {
		return errDead
	}
	return nil
}

// Close closes the connection. It does not wait for a peer that takes nothing, and not for the exchange under way.
func (c *Conn) Close() error {
	if c.dead.Swap(true) || c.busy.Load() {
		return c.under.Close()
	}
	return c.stream.Close() // says goodbye over TLS
}

// buffers are of bufferSize.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, bufferSize)
	return &b
}}

// release gives the read buffer back.
func (c *Conn) release() {
	if c.buf == nil {
		return
	}
	if len(*c.buf) == bufferSize {
		buffers.Put(c.buf)
	}
	c.buf, c.r, c.w = nil, 0, 0
}

// fill reads more octets behind those that are buffered.
func (c *Conn) fill() error {
	if c.buf == nil {
		c.buf = buffers.Get().(*[]byte)
	}
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	n, err := c.stream.Read((*c.buf)[c.w:])
	c.w += n
	if n > 0 {
		return nil // an error comes again
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// Tunnel is the raw stream after an upgrade.
type tunnel struct{ c *Conn }

// Read reads what the peer sends, beginning with what came behind its answer.
func (t *tunnel) Read(p []byte) (int, error) {
	c := t.c
	c.ending.Lock()
	if c.r < c.w {
		defer c.ending.Unlock()
		n := copy(p, (*c.buf)[c.r:c.w])
		if c.r += n; c.r == c.w {
			c.release()
		}
		return n, nil
	}
	c.ending.Unlock()
	return c.stream.Read(p)
}

// Write sends octets.
func (t *tunnel) Write(p []byte) (int, error) { return t.c.stream.Write(p) }

// CloseWrite ends the sending side alone.
func (t *tunnel) CloseWrite() error {
	if half, ok := t.c.stream.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close closes the connection.
func (t *tunnel) Close() error {
	t.c.Abort()
	return t.c.under.Close()
}

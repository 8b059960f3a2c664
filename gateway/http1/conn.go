package http1

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-gateway/postern/gateway/caller"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// Conn is one connection of a client. Its goroutine reads a head, runs the handler, and reads the next.
//
// The reading side belongs to one at a time: to the connection's goroutine between exchanges, to whoever reads the
// request's body during one, and to the watch when the body is over and the handler takes long. The writing side belongs to
// the call.
type Conn struct {
	server *Server
	rw     net.Conn     // TCP, or TLS on it
	tcp    *net.TCPConn // rw, when it is TCP: several pieces leave in one system call
	peer   *caller.Peer
	ctx    context.Context // ends when the client has gone; one for all exchanges, as none outlives the connection
	gone   context.CancelFunc

	// The reading side. in[from:to] was read and is not yet consumed.
	store    *readBuffer // what in is, unless in has grown
	in       []byte      // nil: let go of
	from, to int
	searched int // how much of an unfinished head has been looked at

	// The writing side.
	space      *writeBuffer // what out began as
	out        []byte       // to be written
	pieces     [3][]byte
	vector     net.Buffers // of pieces
	writeUntil time.Time
	stuck      atomic.Bool // a write failed: no farewell would get through either

	linger bool // the client may still be sending: closing waits a little, or it would not see the answer

	mu        sync.Mutex
	readUntil time.Time // the deadline of reading, as it is set
	waiting   bool      // for the next request, of which nothing has come
	cut       bool      // someone wants reads to return
	current   *call     // nil between exchanges
	turn      uint64    // exchanges begun
	seen      uint64    // turn when the watch last looked
	timer     *time.Timer
	ticking   bool          // the watch looks again when timer fires
	watched   chan struct{} // closed when the watch's read is over; nil: there is none
	closed    bool
	rested    bool     // the connection waits for its next request without a buffer
	small     [64]byte // what is read to without one
}

const (
	minRead      = 1 << 10  // least room for a read
	writeSlice   = 64 << 10 // written under one deadline
	copyLimit    = 4 << 10  // larger pieces are not copied on their way to a TCP connection
	maxSizeLine  = 18       // a chunk-size line that is sent
	maxChunkLine = 4 << 10  // one chunk-size line with its extensions
	maxExtra     = 16 << 10 // extensions and trailer of one body
	drainOctets  = 256 << 10
	lingerTime   = 500 * time.Millisecond
	lingerOctets = 256 << 10
	watchAfter   = 250 * time.Millisecond
)

// Conn returns a connection to be served on rw, of which early has been read already.
func (s *Server) Conn(rw net.Conn, early []byte, p *caller.Peer) *Conn {
	c := &Conn{server: s, rw: rw, peer: p}
	c.tcp, _ = rw.(*net.TCPConn)
	if len(early) > 0 {
		c.makeRoom(len(early))
		c.to = copy(c.in, early)
	}
	return c
}

// Serve answers what comes in until the connection ends, and closes it. ctx is the parent of every exchange's.
func (c *Conn) Serve(ctx context.Context) {
	c.ctx, c.gone = context.WithCancel(ctx)
	defer c.close()
	defer c.recovered()
	first := true
	for c.serveOne(first) {
		first = false
	}
}

// recovered keeps a fault of this package to the connection it happened on.
func (c *Conn) recovered() {
	if v := recover(); v != nil {
		c.stuck.Store(true)
		c.server.Log.Error("connection failed", "listener", c.peer.Connection.Terms().Listener, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	}
}

// Drain ends the connection as soon as no request is open: now, or with the next reply. The owner must report Last before.
func (c *Conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting {
		c.interrupt()
	}
}

// close says farewell: a connection closed with unread octets is reset, and the client would lose the answer.
func (c *Conn) close() {
	c.mu.Lock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	c.gone()
	switch {
	case c.stuck.Load():
		c.peer.Connection.Reset() // TLS would try to say farewell for seconds
	case c.linger || c.from < c.to:
		_ = c.closeWrite()
		_ = c.rw.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, c.rw, lingerOctets)
	}
	_ = c.rw.Close()
	c.letIn()
	c.letOut()
}

func (c *Conn) closeWrite() error {
	if w, ok := c.rw.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// serveOne answers one request; false when it was the last.
func (c *Conn) serveOne(first bool) bool {
	end, problem, err := c.awaitHead(first)
	if err != nil {
		return false
	}
	terms := c.peer.Connection.Terms()
	k := &call{conn: c, terms: terms}
	c.server.Begin(&k.x, c.peer, terms, exchange.HTTP1, k)
	if problem == nil {
		k.head.Header = k.slots[:0]
		problem = k.head.parse(c.in[c.from:c.from+end], terms.Fields)
		c.from += end
		c.searched = 0
	}
	if problem != nil {
		// Where the request ends is not known, so nothing behind it is ever taken for another one.
		k.last, c.linger = true, true
		c.server.Refuse(&k.x, problem)
		return false
	}
	return k.run()
}

// awaitHead reads until in begins with a whole head, and returns its length. An error is the connection's end, a problem
// what the client is to be told before it.
func (c *Conn) awaitHead(first bool) (end int, problem *exchange.Problem, err error) {
	if c.in != nil && c.store == nil && c.from == c.to {
		c.letIn() // it has grown for something large
	}
	blank := false        // the empty line that may precede a request line is over
	var limited time.Time // when the head that has begun must be complete
	for {
		terms := c.peer.Connection.Terms()
		if unread := c.in[c.from:c.to]; !blank && bytes.HasPrefix(unread, crlf) {
			c.from, blank = c.from+2, true // RFC 9112 section 2.2
		}
		unread := c.in[c.from:c.to]
		if blank || string(unread) != "\r" {
			end, c.searched, problem = findEnd(unread, c.searched, terms.Head)
			if problem != nil || end > 0 {
				return end, problem, nil
			}
		}
		if len(unread) == 0 && !blank {
			limit := terms.Idle
			if first {
				limit = terms.Header
			}
			err = c.await(limit, true)
			if err == nil && c.peer.Connection.Last() { // after await: from then on Drain interrupts
				err = io.EOF
			}
		} else if limited.IsZero() {
			limited = time.Now().Add(terms.Header)
			err = c.awaitUntil(limited)
		}
		if err == nil {
			err = c.fill()
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && c.from == c.to && c.in != nil && c.rest():
			c.letIn()
		case errors.Is(err, os.ErrDeadlineExceeded) && c.from < c.to:
			return 0, &exchange.Problem{Status: 408, Code: "request_timeout", Title: "Request timeout",
				Detail: "the head of the request did not arrive in time"}, nil
		default:
			return 0, nil, err
		}
	}
}

// rest reports whether the wait for the next request was only interrupted to let go of the buffer.
func (c *Conn) rest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rested
}

// await gives the next read limit, and up to an eighth more: so the deadline, which costs more than a small read does when
// it is set, can mostly stay.
func (c *Conn) await(limit time.Duration, idle bool) error {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return os.ErrDeadlineExceeded
	}
	c.waiting = idle
	if fits(c.readUntil.Sub(now), limit) {
		return nil
	}
	c.readUntil = now.Add(limit + limit/8)
	return c.rw.SetReadDeadline(c.readUntil)
}

// fits reports whether a deadline that is left away will do for limit.
func fits(left, limit time.Duration) bool { return left >= limit && left <= limit+limit/8 }

// awaitUntil gives the next reads until at; zero: for ever.
func (c *Conn) awaitUntil(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return os.ErrDeadlineExceeded
	}
	c.waiting = false
	c.readUntil = at
	return c.rw.SetReadDeadline(at)
}

// interrupt makes a blocked read return. mu is held.
func (c *Conn) interrupt() {
	c.readUntil = time.Unix(1, 0)
	_ = c.rw.SetReadDeadline(c.readUntil)
}

// cutReads makes reads return until the exchange is left.
func (c *Conn) cutReads() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	c.interrupt()
}

// fill reads more into in. Where there is none, it takes one when something comes.
func (c *Conn) fill() error {
	if c.in == nil {
		n, err := c.rw.Read(c.small[:])
		if n == 0 {
			return err
		}
		c.makeRoom(n)
		c.to = copy(c.in, c.small[:n])
		return nil
	}
	if c.from == c.to {
		c.from, c.to = 0, 0
	}
	if len(c.in)-c.to < minRead {
		c.makeRoom(minRead)
	}
	n, err := c.rw.Read(c.in[c.to:])
	if c.to += n; n > 0 {
		return nil // an error comes again
	}
	return err
}

// makeRoom makes in hold n octets more than it does.
func (c *Conn) makeRoom(n int) {
	unread := c.in[c.from:c.to]
	switch {
	case c.in == nil && n <= readSize:
		c.store = c.server.reading.Get().(*readBuffer)
		c.in = c.store[:]
	case len(unread)+n <= len(c.in):
		copy(c.in, unread)
	default:
		larger := make([]byte, max(2*len(c.in), len(unread)+n))
		copy(larger, unread)
		c.letIn()
		c.in = larger
	}
	c.from, c.to = 0, len(unread)
}

// letIn lets go of in.
func (c *Conn) letIn() {
	if c.store != nil {
		c.server.reading.Put(c.store)
	}
	c.store, c.in, c.from, c.to = nil, nil, 0, 0
}

// enter begins an exchange, and sees to it that the watch looks after it in a while.
func (c *Conn) enter(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = k
	c.turn++
	c.rested = false
	if c.ticking {
		return
	}
	c.ticking = true
	if c.timer == nil {
		c.timer = time.AfterFunc(watchAfter, c.tick)
	} else {
		c.timer.Reset(watchAfter)
	}
}

// tick looks whether nothing has been asked for long: then the buffer is let go of. And whether a handler has been running for long. Then someone has to listen for the client's leaving; a read for
// every request, as most are answered at once, would cost more than the rest of this package.
func (c *Conn) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.seen == c.turn && c.current == nil {
		c.ticking = false
		if c.waiting && !c.closed {
			c.rested = true
			c.interrupt()
		}
		return
	}
	if c.seen == c.turn && c.current.body.over.Load() {
		c.ticking = false
		c.watched = make(chan struct{})
		go c.watch(c.watched)
		return
	}
	c.seen = c.turn
	c.timer.Reset(watchAfter)
}

// watch reads on while a handler runs that the client has said everything to. It ends the exchange when the client ends its
// side, also when that was all it closed: nobody can tell that from its leaving, and what is being made may be dear.
func (c *Conn) watch(done chan<- struct{}) {
	defer close(done)
	if c.from == c.to {
		c.letIn() // an open stream that waits holds no buffer
	}
	for c.in == nil || len(c.in)-c.to >= minRead { // further requests wait where they are
		err := c.awaitUntil(time.Time{})
		if err == nil {
			err = c.fill()
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			c.gone()
			return
		}
	}
}

// leave ends an exchange's claim on the reading side; its body must be shut. Called twice it does nothing.
func (c *Conn) leave() {
	c.mu.Lock()
	c.current = nil
	watched := c.watched
	c.watched = nil
	c.cut = watched != nil
	if c.cut {
		c.interrupt()
	}
	c.mu.Unlock()
	if watched != nil {
		<-watched
		c.mu.Lock()
		c.cut = false
		c.mu.Unlock()
	}
}

// room is out with space in it.
func (c *Conn) room() []byte {
	if c.space == nil {
		c.space = c.server.writing.Get().(*writeBuffer)
		c.out = c.space[:0]
	}
	return c.out
}

// letOut lets go of out.
func (c *Conn) letOut() {
	if c.space != nil {
		c.server.writing.Put(c.space)
	}
	c.space, c.out = nil, nil
}

// put adds p and tail to what goes out; what has no room is written.
func (c *Conn) put(p []byte, tail []byte) error {
	if c.tcp != nil && len(p) > copyLimit {
		return c.send(p, tail)
	}
	for b := c.room(); ; b = c.room() {
		n := copy(b[len(b):cap(b)], p)
		c.out, p = b[:len(b)+n], p[n:]
		if len(p) == 0 {
			break
		}
		if err := c.flush(); err != nil {
			return err
		}
	}
	if err := c.ensure(len(tail)); err != nil {
		return err
	}
	c.out = append(c.room(), tail...)
	return nil
}

// ensure makes room for n octets in out, which is more than that large.
func (c *Conn) ensure(n int) error {
	if b := c.room(); cap(b)-len(b) >= n {
		return nil
	}
	return c.flush()
}

// send writes what is to go out, and p and tail behind it, without copying p.
func (c *Conn) send(p []byte, tail []byte) error {
	for {
		n := min(len(p), writeSlice)
		c.vector = append(c.pieces[:0], c.out, p[:n])
		if p = p[n:]; len(p) == 0 {
			c.vector = append(c.vector, tail)
		}
		if err := c.beforeWrite(); err != nil {
			return err
		}
		_, err := c.vector.WriteTo(c.tcp)
		clear(c.pieces[:])
		c.letOut()
		if err != nil {
			return c.failed(err)
		}
		if len(p) == 0 {
			return nil
		}
	}
}

// flush writes what is to go out.
func (c *Conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	err := c.write(c.out)
	c.letOut()
	return err
}

// write writes p. It fails when the client takes nothing for the write timeout.
func (c *Conn) write(p []byte) error {
	for len(p) > 0 {
		if err := c.beforeWrite(); err != nil {
			return err
		}
		n := min(len(p), writeSlice)
		if _, err := c.rw.Write(p[:n]); err != nil {
			return c.failed(err)
		}
		p = p[n:]
	}
	return nil
}

// beforeWrite gives the next write its time.
func (c *Conn) beforeWrite() error {
	limit, now := c.peer.Connection.Terms().Write, time.Now()
	if fits(c.writeUntil.Sub(now), limit) {
		return nil
	}
	c.writeUntil = now.Add(limit + limit/8)
	if err := c.rw.SetWriteDeadline(c.writeUntil); err != nil {
		return c.failed(err)
	}
	return nil
}

// failed ends the exchange: a client that can not be written to has gone.
func (c *Conn) failed(err error) error {
	c.stuck.Store(true)
	c.gone()
	return caller.Gone(err)
}

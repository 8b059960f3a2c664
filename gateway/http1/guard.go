// Package http1 is the grammar of HTTP/1.1 read strictly: its main type is Guard, a connection that lets only well-formed
// requests through to a server.
package http1

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Guard stands between a connection and the standard HTTP/1.1 server and follows the framing of RFC 9112 octet by
// octet. The server never sees what the client sent as a head: the guard reads the head, keeps it for the handler and
// releases a minimal one with the method and the framing in their place. So there is one reading of every message, a
// strict one, and what is refused becomes an ordinary request whose answer is a problem, in order with pipelining.
//
// It also keeps every deadline of the connection, by the limits and timeouts of the moment.
type Guard struct {
	net.Conn // the TCP connection, or TLS on it
	owner    Owner

	// Used by whoever reads; the server never has two reads at a time.
	store     []byte // what buf is a part of
	buf       []byte // read from the connection and not yet consumed
	searched  int    // how much of an unfinished head in buf has been looked at
	out       []byte // released, to be read before anything else
	size      [20]byte
	state     framing
	left      int64     // octets left of the body or the chunk
	extra     int       // octets of chunk extensions and trailer of this body so far
	body      *Head     // whose body is being read
	blank     bool      // the empty line before a request line has been skipped
	first     bool      // no request has been released yet
	headLimit time.Time // when the head that has begun must be complete
	err       error     // what every further read gives

	released atomic.Int64 // heads released
	finished atomic.Int64 // heads whose handler has returned
	partial  atomic.Bool  // a head has begun
	linger   atomic.Bool  // the client may still be sending: closing waits a little, or it would not see the answer
	tunnel   atomic.Bool  // handed over after an upgrade: the new owner keeps the deadlines of reading

	stuck atomic.Bool // a write failed

	mu    sync.Mutex
	heads []*Head // released and not yet taken
	cut   bool    // someone wants a blocked read to return
}

// framing is what the next octets from the client are.
type framing uint8

const (
	inHead      framing = iota // a request's head, or nothing yet
	inBody                     // left octets of a body with a length
	inChunkSize                // a chunk-size line
	inChunk                    // left octets of a chunk
	afterChunk                 // the line end after a chunk
	inTrailer                  // a line of the trailer section
	inTunnel                   // the head asked for an upgrade: no more requests on this connection
)

// Why a body can not be read on.
var (
	errFraming = errors.New("broken framing")
	errCutOff  = errors.New("connection ended within a message")
)

const (
	readBuffer   = 4 << 10  // read from a connection at once
	writeSlice   = 64 << 10 // written under one deadline
	maxChunkLine = 4 << 10  // one chunk-size line with its extensions
	maxExtra     = 16 << 10 // extensions and trailer of one body
	lingerTime   = 500 * time.Millisecond
	lingerOctets = 256 << 10
)

// Owner is what a Guard must know of the connection below. Calls come from several goroutines.
type Owner interface {
	// Limits are those of the moment.
	Limits() *Limits
	// Last reports that no further request may begin.
	Last() bool
	// Close closes the connection below at once, without any farewell.
	Close() error
}

// Limits bound what a client can make a Guard hold and how long it can make it wait.
type Limits struct {
	Head   int64         // octets of a head, from the request line to the empty line
	Fields int           // fields in a head, and in a trailer section
	Header time.Duration // from the first octet of a head to its end
	Body   time.Duration // for one read of a body
	Idle   time.Duration // between requests
	Write  time.Duration // for one write of at most 64 KiB
}

// New returns a Guard on rw, of which early has been read already.
func New(owner Owner, rw net.Conn, early []byte) *Guard {
	return &Guard{Conn: rw, owner: owner, buf: early, first: true}
}

// Read gives the server what it may see.
func (g *Guard) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if len(g.out) > 0 {
			n := copy(p, g.out)
			g.out = g.out[n:]
			return n, nil
		}
		if g.err != nil {
			return 0, g.err
		}
		var n int
		var err error
		switch g.state {
		case inHead:
			err = g.readHead()
		case inBody, inChunk:
			n, err = g.readBody(p)
		case inChunkSize, afterChunk, inTrailer:
			err = g.readChunking()
		case inTunnel:
			n, err = g.readTunnel(p)
		}
		if err != nil {
			return n, g.fail(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, nil
}

// fail keeps err for every later read, so that nothing behind a fault is ever taken for a request. Only a wait between
// requests that was cut short from outside can be taken up again.
func (g *Guard) fail(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && g.isCut() && (g.state == inHead || g.state == inTunnel) {
		return err
	}
	if op := (*net.OpError)(nil); !exchange.AtEnd(err) && !errors.As(err, &op) {
		// The standard server answers 400 to an error it does not know, and stays silent after this one.
		err = &net.OpError{Op: "read", Net: "tcp", Err: err}
	}
	g.err = err
	return err
}

// idle reports whether no request is being answered or waits for it.
func (g *Guard) idle() bool { return g.released.Load() == g.finished.Load() }

// readHead reads until a head is complete, and releases it or the request to refuse it.
func (g *Guard) readHead() error {
	for {
		limits := g.owner.Limits()
		if !g.blank && bytes.HasPrefix(g.buf, crlf) {
			g.buf, g.blank = g.buf[2:], true // RFC 9112 section 2.2: one empty line may precede a request line
		}
		end, problem := g.findHead(limits.Head)
		if problem != nil {
			g.refuse(problem)
			return nil
		}
		if end > 0 {
			h, problem := parseHead(g.buf[:end], limits.Fields)
			if problem != nil {
				g.refuse(problem)
				return nil
			}
			g.buf = g.buf[end:]
			g.release(h)
			return nil
		}
		if g.idle() && len(g.buf) == 0 && g.owner.Last() {
			return io.EOF
		}
		err := g.fill(g.headDeadline())
		g.partial.Store(len(g.buf) > 0)
		switch {
		case err == nil:
		case g.isCut():
			return err
		case errors.Is(err, os.ErrDeadlineExceeded) && len(g.buf) > 0:
			g.refuse(&exchange.Problem{Status: 408, Code: "request_timeout", Title: "Request timeout",
				Detail: "the head of the request did not arrive in time"})
			return nil
		default:
			return io.EOF // gone, or idle for too long
		}
	}
}

// headDeadline is until when the next octets of a head must come; zero while a request is being answered.
func (g *Guard) headDeadline() time.Time {
	timeouts := g.owner.Limits()
	switch {
	case !g.idle():
		return time.Time{}
	case len(g.buf) > 0 && g.headLimit.IsZero():
		g.headLimit = time.Now().Add(timeouts.Header)
		return g.headLimit
	case len(g.buf) > 0:
		return g.headLimit
	case g.first:
		return time.Now().Add(timeouts.Header)
	}
	return time.Now().Add(timeouts.Idle)
}

// findHead returns the length of the head that buf begins with, or 0 when it is not complete.
func (g *Guard) findHead(limit int64) (int, *exchange.Problem) {
	if !g.blank && string(g.buf) == "\r" {
		return 0, nil // half of an empty line
	}
	if len(g.buf) > 0 && !isToken(g.buf[0]) {
		return 0, Malformed("the request line does not begin with a method")
	}
	for g.searched < len(g.buf) {
		i := bytes.IndexByte(g.buf[g.searched:], '\n')
		if i < 0 {
			g.searched = len(g.buf)
			break
		}
		i += g.searched
		if i == 0 || g.buf[i-1] != '\r' {
			return 0, Malformed("a line does not end with CR LF")
		}
		g.searched = i + 1
		if i >= 3 && g.buf[i-2] == '\n' {
			if int64(g.searched) > limit {
				return 0, TooLarge()
			}
			return g.searched, nil
		}
	}
	if int64(len(g.buf)) > limit {
		return 0, TooLarge()
	}
	return 0, nil
}

// release hands h to the handler and a minimal head to the server.
func (g *Guard) release(h *Head) {
	b := append(make([]byte, 0, 160), h.Method...)
	if h.Minor == 0 {
		b = append(b, " / HTTP/1.0\r\nHost: x\r\n"...)
	} else {
		b = append(b, " / HTTP/1.1\r\nHost: x\r\n"...)
	}
	switch {
	case h.Upgrade != "":
		g.state = inTunnel
	case h.Length > 0:
		b = strconv.AppendInt(append(b, "Content-Length: "...), h.Length, 10)
		b = append(b, "\r\n"...)
		g.state, g.left, g.body = inBody, h.Length, h
	case h.Length < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		g.state, g.body = inChunkSize, h
	}
	if h.Expect {
		b = append(b, "Expect: 100-continue\r\n"...)
	}
	if h.close {
		b = append(b, "Connection: close\r\n"...)
	} else if h.Minor == 0 && h.keepAlive {
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	g.push(h, append(b, "\r\n"...))
}

// refuse releases a request that the handler answers with a problem, and ends the connection after it.
func (g *Guard) refuse(p *exchange.Problem) {
	g.linger.Store(true)
	g.buf, g.err = nil, io.EOF
	g.push(&Head{Problem: p, Minor: 1}, []byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

func (g *Guard) push(h *Head, out []byte) {
	g.searched, g.blank, g.first, g.headLimit = 0, false, false, time.Time{}
	g.partial.Store(false)
	g.mu.Lock()
	g.heads = append(g.heads, h)
	g.mu.Unlock()
	g.released.Add(1)
	g.out = out
}

// Take returns the head of the request that the server has just read; nil can not happen, and is refused if it does.
func (g *Guard) Take() *Head {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.heads) == 0 {
		return nil
	}
	h := g.heads[0]
	g.heads[0] = nil
	g.heads = g.heads[1:]
	return h
}

// readBody reads octets of a body or a chunk straight into p.
func (g *Guard) readBody(p []byte) (n int, err error) {
	p = p[:min(int64(len(p)), g.left)]
	if len(g.buf) > 0 {
		n = copy(p, g.buf)
		g.buf = g.buf[n:]
	} else if err = g.arm(time.Now().Add(g.owner.Limits().Body)); err == nil {
		n, err = g.Conn.Read(p)
	}
	g.left -= int64(n)
	if g.left == 0 && g.state == inChunk {
		g.state = afterChunk
	} else if g.left == 0 {
		g.endBody()
	}
	if n > 0 {
		return n, nil
	}
	return 0, endOf(err)
}

// endOf says what the end of the connection means within a message.
func endOf(err error) error {
	if exchange.AtEnd(err) {
		return errCutOff
	}
	return err
}

func (g *Guard) endBody() { g.state, g.body, g.extra = inHead, nil, 0 }

// readChunking reads one line of chunked framing (RFC 9112 section 7.1) and releases it in its plainest form.
func (g *Guard) readChunking() error {
	i := bytes.IndexByte(g.buf, '\n')
	if i < 0 {
		if len(g.buf) > maxChunkLine {
			return errFraming
		}
		return endOf(g.fill(time.Now().Add(g.owner.Limits().Body)))
	}
	if i == 0 || g.buf[i-1] != '\r' {
		return errFraming
	}
	line := g.buf[:i-1]
	g.buf = g.buf[i+1:]
	switch g.state {
	case afterChunk:
		if len(line) > 0 {
			return errFraming
		}
		g.out, g.state = crlf, inChunkSize
	case inChunkSize:
		size, extension, ok := parseChunkSize(line)
		if g.extra += extension; !ok || g.extra > maxExtra {
			return errFraming
		}
		if size == 0 {
			g.state = inTrailer // released with the trailer's end
			return nil
		}
		g.left, g.state = size, inChunk
		g.out = append(strconv.AppendInt(g.size[:0], size, 16), '\r', '\n')
	case inTrailer:
		if len(line) == 0 {
			g.out = lastChunk
			g.endBody()
			return nil
		}
		name, value, ok := parseField(line)
		g.extra += len(line)
		if !ok || g.extra > maxExtra || len(g.body.Trailer) >= g.owner.Limits().Fields {
			return errFraming
		}
		if TrailerAllowed(name) {
			g.body.Trailer.Add(name, value)
		}
	}
	return nil
}

var (
	crlf      = []byte("\r\n")
	lastChunk = []byte("0\r\n\r\n")
)

// readTunnel reads what follows a head that asked for an upgrade.
func (g *Guard) readTunnel(p []byte) (n int, err error) {
	if len(g.buf) > 0 {
		n = copy(p, g.buf)
		g.buf = g.buf[n:]
		return n, nil
	}
	if !g.tunnel.Load() {
		err = g.arm(time.Time{})
	}
	if err == nil {
		n, err = g.Conn.Read(p)
	}
	return n, err
}

// fill reads more into buf.
func (g *Guard) fill(deadline time.Time) error {
	if err := g.arm(deadline); err != nil {
		return err
	}
	if cap(g.buf)-len(g.buf) < readBuffer/4 {
		if len(g.buf)+readBuffer/4 > cap(g.store) || (len(g.buf) == 0 && cap(g.store) > 4*readBuffer) {
			g.store = make([]byte, max(readBuffer, 2*len(g.buf)))
		}
		g.buf = g.store[:copy(g.store[:cap(g.store)], g.buf)]
	}
	n, err := g.Conn.Read(g.buf[len(g.buf):cap(g.buf)])
	g.buf = g.buf[:len(g.buf)+n]
	if n > 0 {
		return nil
	}
	return err
}

// arm sets the deadline of the next read, unless someone wants reads to return.
func (g *Guard) arm(deadline time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cut {
		return os.ErrDeadlineExceeded
	}
	return g.Conn.SetReadDeadline(deadline)
}

func (g *Guard) isCut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cut
}

// Finish says that the handler of one request has returned.
func (g *Guard) Finish() { g.finished.Add(1) }

// Linger makes Close read on a little, because a connection closed with unread octets is reset and the client would lose
// the answer.
func (g *Guard) Linger() { g.linger.Store(true) }

// Tunnel hands the connection over after an upgrade: from now on the caller keeps the deadlines of reading.
func (g *Guard) Tunnel() {
	g.tunnel.Store(true)
	_ = g.Conn.SetReadDeadline(time.Time{})
}

// Broken reports whether err, of reading a body, is about its framing and not about the connection.
func Broken(err error) bool { return errors.Is(err, errFraming) }

// SetReadDeadline makes a blocked read return when t is past, and until it is called again. Other deadlines are the
// guard's to set.
func (g *Guard) SetReadDeadline(t time.Time) error {
	if g.tunnel.Load() {
		return g.Conn.SetReadDeadline(t)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut = !t.IsZero() && !t.After(time.Now())
	if !g.cut {
		return nil
	}
	return g.Conn.SetReadDeadline(t)
}

// SetWriteDeadline does nothing unless t is past: every write has a deadline.
func (g *Guard) SetWriteDeadline(t time.Time) error {
	if t.IsZero() || t.After(time.Now()) {
		return nil
	}
	return g.Conn.SetWriteDeadline(t)
}

// SetDeadline sets both.
func (g *Guard) SetDeadline(t time.Time) error {
	return errors.Join(g.SetReadDeadline(t), g.SetWriteDeadline(t))
}

// Write fails when the client takes nothing for the write timeout.
func (g *Guard) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		if err = g.Conn.SetWriteDeadline(time.Now().Add(g.owner.Limits().Write)); err != nil {
			break
		}
		var m int
		m, err = g.Conn.Write(p[n:min(len(p), n+writeSlice)])
		n += m
	}
	if err != nil {
		g.stuck.Store(true)
	}
	return n, err
}

// CloseWrite tells the client that nothing more will come.
func (g *Guard) CloseWrite() error {
	if w, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// Close closes the connection, after Linger with a little patience.
func (g *Guard) Close() error {
	if g.stuck.Load() {
		return g.owner.Close() // a farewell would not get through either
	}
	if g.linger.Swap(false) {
		_ = g.CloseWrite()
		_ = g.Conn.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, g.Conn, lingerOctets)
	}
	return g.Conn.Close()
}

// Drain ends the connection as soon as no request is open: now, or after the next reply.
func (g *Guard) Drain() {
	if g.idle() && !g.partial.Load() {
		_ = g.owner.Close()
	}
}

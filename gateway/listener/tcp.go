package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-gateway/postern/gateway/caller"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http2"
)

// listenTCP binds address for HTTP/1.1 and 2.
func listenTCP(ctx context.Context, d *door, address string) (*socket, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s := newSocket(d, addrPort(ln.Addr()))
	s.stop = sync.OnceFunc(func() { _ = ln.Close() })
	s.accept = func() { s.acceptTCP(ln) }
	return s, nil
}

// addrPort turns what net says into a value, with IPv4 addresses as such.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// acceptTCP runs until the listener is closed. It never waits for a connection it accepted.
func (s *socket) acceptTCP(ln net.Listener) {
	for failures := 0; ; {
		raw, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Mostly out of file descriptors: it passes when connections close.
			s.door.set.log.Warn("accept failed", "address", s.addr.String(), "error", err)
			time.Sleep(pause(failures))
			failures++
			continue
		}
		failures = 0
		if !s.door.admit() {
			_ = raw.Close()
			continue
		}
		c := &conn{Conn: raw, peer: peer{sock: s}}
		c.Peer = caller.Peer{Remote: addrPort(raw.RemoteAddr()), Local: addrPort(raw.LocalAddr()), Connection: c}
		if !s.join(c) {
			s.door.open.Add(-1)
			_ = raw.Close()
			continue
		}
		go c.serve()
	}
}

// conn is an accepted TCP connection. Closing it takes it out of its socket.
type conn struct {
	net.Conn
	peer
	requests atomic.Int64 // exchanges started

	mu       sync.Mutex
	protocol exchange.Protocol // 0 until it is known
	onDrain  func()            // how to end kindly; nil while shaking hands
	draining bool
	closed   bool
}

// peer is what conn and quicConn have in common.
type peer struct {
	caller.Peer
	sock *socket
}

func (p *peer) live() *live          { return p.sock.door.live.Load() }
func (p *peer) Terms() *caller.Terms { return &p.live().terms }
func (p *peer) Begin() bool          { return p.sock.begin() }
func (p *peer) Done()                { p.sock.busy.Done() }

// Close closes the connection, once.
func (c *conn) Close() error {
	c.mu.Lock()
	was, protocol := c.closed, c.protocol
	c.closed = true
	c.mu.Unlock()
	if was {
		return nil
	}
	err := c.Conn.Close()
	if protocol != 0 {
		c.sock.door.set.cfg.Observer.Closed(c.live().cfg.Name, protocol)
	}
	c.sock.leave(c)
	return err
}

// CloseWrite ends the sending side.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// Reset closes the connection so that it is an error for the client: a reply that only the end of the connection delimits
// must not look whole.
func (c *conn) Reset() {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

func (c *conn) kill() { _ = c.Close() }

func (c *conn) drain() {
	c.mu.Lock()
	c.draining = true
	end := c.onDrain
	c.mu.Unlock()
	if end == nil {
		_ = c.Close() // no request has begun
		return
	}
	end()
}

// speak says which protocol it turned out to be and how it ends kindly; false when it is to end already.
func (c *conn) speak(p exchange.Protocol, onDrain func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining || c.closed {
		return false
	}
	c.protocol, c.onDrain = p, onDrain
	c.sock.door.set.cfg.Observer.Opened(c.live().cfg.Name, p)
	return true
}

// Last reports whether no further exchange may begin on the connection.
func (c *conn) Last() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining || c.requests.Load() >= int64(c.live().cfg.Limits.Requests)
}

// serve shakes hands, finds out the protocol and hands the connection to its server, whose goroutines end when the
// connection is closed.
func (c *conn) serve() {
	lv := c.live()
	_ = c.SetDeadline(time.Now().Add(lv.cfg.Timeouts.Header))
	var rw net.Conn = c
	p := exchange.HTTP1
	var early []byte
	if lv.tls != nil {
		t := tls.Server(c, lv.tls.TCP())
		if err := t.HandshakeContext(c.sock.ctx); err != nil {
			c.refuseHandshake(lv.cfg, err)
			return
		}
		state := t.ConnectionState()
		c.TLS = exchange.NewTLS(&state)
		rw = t
		if state.NegotiatedProtocol == "h2" {
			p = exchange.HTTP2
		}
	}
	if p == exchange.HTTP2 || (lv.tls == nil && lv.cfg.Speaks(exchange.HTTP2)) {
		var err error
		var preface bool
		early, preface, err = readPreface(rw)
		if err != nil && len(early) == 0 {
			_ = rw.Close()
			return
		}
		switch {
		case preface:
			p = exchange.HTTP2
		case p == exchange.HTTP2:
			http2.Refuse(rw) // agreed on HTTP/2 and does not speak it
			return
		case !lv.cfg.Speaks(exchange.HTTP1):
			http2.Refuse(rw)
			return
		}
	}
	_ = c.SetDeadline(time.Time{})
	if !lv.cfg.Speaks(p) {
		_ = rw.Close()
		return
	}
	if p == exchange.HTTP2 {
		c.serveHTTP2(rw, lv.cfg)
		return
	}
	c.serveHTTP1(rw, early)
}

// serveHTTP1 returns when the connection is closed.
func (c *conn) serveHTTP1(rw net.Conn, early []byte) {
	defer func() { _ = c.Close() }()
	if !c.sock.begin() {
		return
	}
	defer c.sock.busy.Done()
	if rw == c {
		rw = c.Conn // without us in between, several pieces can leave in one write
	}
	c.Connection = alone{c}
	h := c.sock.door.set.http1.Conn(rw, early, &c.peer.Peer)
	if c.speak(exchange.HTTP1, h.Drain) {
		h.Serve(c.sock.ctx)
	}
}

// alone is a connection whose exchanges run in its own goroutine: they are counted, and waited for with it.
type alone struct{ *conn }

func (a alone) Begin() bool {
	a.requests.Add(1)
	return true
}

func (alone) Done() {}

func (c *conn) refuseHandshake(l *config.Listener, err error) {
	set := c.sock.door.set
	set.log.Debug("handshake failed", "listener", l.Name, "error", err)
	set.cfg.Observer.Refused(l.Name, "handshake")
	var record tls.RecordHeaderError
	if errors.As(err, &record) && record.Conn != nil && looksLikeHTTP(record.RecordHeader[:]) {
		const text = "This port speaks TLS: use an https:// URL.\n"
		_, _ = io.WriteString(record.Conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"+
			"Content-Length: "+strconv.Itoa(len(text))+"\r\n\r\n"+text)
	}
	_ = c.Close()
}

// looksLikeHTTP reports whether what came instead of a TLS record is the beginning of a request.
func looksLikeHTTP(b []byte) bool {
	for _, method := range []string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PATCH", "DELET", "PRI *"} {
		if string(b) == method {
			return true
		}
	}
	return false
}

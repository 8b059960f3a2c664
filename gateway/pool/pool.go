// Package pool keeps the connections to one address: its main type is Pool. It lends single client connections that send
// what they are given once. What is above it decides whether anything is sent again.
package pool

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Errors a Pool gives besides those of dialling.
var (
	ErrConnect = errors.New("no connection within connect")
	ErrBusy    = errors.New("no connection became free")
	ErrClosed  = errors.New("pool is closed")
)

// maxAge is how long a connection is used for new requests. A name that points elsewhere is so noticed in time even by
// connections that never fall idle.
const maxAge = 5 * time.Minute

// maxWaiters is how many exchanges may wait for a connection.
const maxWaiters = 1024

// firstStreams is how many requests are sent on an HTTP/2 or 3 connection before its first answer: until then the peer's
// limit on streams may not be known, and what goes beyond it is refused.
const firstStreams = 10

// Link is a connection in a pool.
type Link struct {
	Conn     Conn
	Protocol exchange.Protocol

	meter    *meter
	hook     func(func(*http.ClientConn)) // HTTP/2: calls back when streams become free
	born     time.Time
	used     time.Time // when it last became idle
	streams  int       // exchanges on it
	answered bool      // the peer's settings are known
	retired  bool      // no new requests; closed when streams is 0
	once     bool      // never kept: an upgrade's
	tunnel   io.Closer // the raw connection after an upgrade; conn has let go of it
}

// Shared reports whether several exchanges can be on the connection at once.
func (l *Link) Shared() bool { return l.Protocol != exchange.HTTP1 }

// Wrote is how many octets were written to an HTTP/1.1 connection, or were about to be.
func (l *Link) Wrote() int64 { return l.meter.wrote.Load() }

// Pool is the connections to one endpoint: HTTP/1.1 ones lent to one exchange at a time, the most recently used first,
// and HTTP/2 and 3 ones lent to several.
type Pool struct {
	limits Config
	dialer *dialer

	mu       sync.Mutex
	lent     map[*Link]struct{} // HTTP/1.1, in use
	idle     []*Link            // HTTP/1.1, most recently used last
	multi    []*Link            // HTTP/2 and 3
	open     int                // all of them, and those being opened
	dialling int
	single   bool         // the endpoint turned out to speak HTTP/1.1: connections are opened side by side
	waiters  []chan error // first come first served; nil: look again
	closed   bool
}

// Config is what a Pool needs.
type Config struct {
	URL         *url.URL                                                             // scheme http or https, and host; the rest is not looked at
	Protocol    string                                                               // http1 (default), http2, http3, or auto: by ALPN, and http1 in cleartext
	Connections int                                                                  // open at once, at least 1
	Idle        int                                                                  // kept idle over HTTP/1.1
	IdleTimeout time.Duration                                                        // how long
	TLS         *TLS                                                                 // from ReadTLS
	Dial        func(ctx context.Context, network, address string) (net.Conn, error) // nil: the operating system's
	// Kick is called when streams of an HTTP/2 connection became free and asks for a call of Stir from a goroutine that
	// holds no lock. It must not block.
	Kick func()
}

// New makes a pool without connections.
func New(c Config) *Pool {
	d := newDialer(c)
	protocol := c.Protocol
	single := protocol != "http2" && protocol != "http3" && (protocol != "auto" || d.scheme == "http")
	return &Pool{limits: c, dialer: d, lent: map[*Link]struct{}{}, single: single}
}

// Upgrades reports whether GetUpgrade can be used.
func (p *Pool) Upgrades() bool { return p.dialer.upgrade != nil }

// Dial opens a connection outside the pool, for a health check. The caller closes it.
func (p *Pool) Dial(ctx context.Context) (*Link, error) { return p.dialer.dial(ctx, false) }

// Get lends a connection on which one RoundTrip is reserved. It waits and dials for at most timeout.
func (p *Pool) Get(ctx context.Context, timeout time.Duration) (l *Link, err error) {
	p.mu.Lock()
	if l := p.take(time.Now()); l != nil || p.closed {
		p.mu.Unlock()
		if l == nil {
			return nil, ErrClosed
		}
		return l, nil
	}
	p.mu.Unlock()

	ctx, cancel := context.WithTimeoutCause(ctx, timeout, ErrConnect)
	defer cancel()
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, ErrClosed
		}
		if l := p.take(time.Now()); l != nil {
			p.mu.Unlock()
			return l, nil
		}
		if p.open < p.limits.Connections && (p.single || p.dialling == 0) {
			p.open++
			p.dialling++
			p.mu.Unlock()
			return p.dial(ctx)
		}
		if len(p.waiters) >= maxWaiters {
			p.mu.Unlock()
			return nil, ErrBusy
		}
		turn := make(chan error, 1)
		p.waiters = append(p.waiters, turn)
		dialling := p.dialling > 0 && !p.single
		p.mu.Unlock()
		select {
		case err := <-turn:
			if err != nil {
				return nil, err
			}
		case <-ctx.Done():
			p.mu.Lock()
			if i := slices.Index(p.waiters, turn); i >= 0 {
				p.waiters = slices.Delete(p.waiters, i, i+1)
			} else if err := <-turn; err == nil {
				p.wake() // the turn that came too late is the next one's
			}
			p.mu.Unlock()
			if cause := context.Cause(ctx); !errors.Is(cause, ErrConnect) || dialling {
				return nil, cause
			}
			return nil, ErrBusy
		}
	}
}

// take finds an open connection and reserves a RoundTrip on it. p.mu is held.
func (p *Pool) take(now time.Time) *Link {
	if p.closed {
		return nil
	}
	for len(p.idle) > 0 {
		l := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if now.Sub(l.used) < p.limits.IdleTimeout && now.Sub(l.born) < maxAge && l.meter.reads.Load() && l.Conn.Err() == nil && l.Conn.Reserve() == nil {
			p.lent[l] = struct{}{}
			return l
		}
		p.drop(l)
	}
	for i := 0; i < len(p.multi); i++ {
		l := p.multi[i]
		switch {
		case l.Conn.Err() != nil:
			l.retired = true
		case now.Sub(l.born) >= maxAge && p.open < p.limits.Connections:
			l.retired = true
		case !l.retired && (l.answered || l.streams < firstStreams) && l.Conn.Reserve() == nil:
			l.streams++
			return l
		}
		if l.retired && l.streams == 0 {
			p.multi = slices.Delete(p.multi, i, i+1)
			p.drop(l)
			i--
		}
	}
	return nil
}

// drop closes a connection that is in no list any more. p.mu is held.
func (p *Pool) drop(l *Link) {
	_ = l.Conn.Close() // what it was used for has its own error
	if l.tunnel != nil {
		_ = l.tunnel.Close()
	}
	p.open--
}

// Adopt notes that an upgrade took over the raw connection, for Kill.
func (p *Pool) Adopt(l *Link, raw io.Closer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.tunnel = raw
}

// dial opens a connection; p.open and p.dialling were counted up for it.
func (p *Pool) dial(ctx context.Context) (*Link, error) {
	l, err := p.dialer.dial(ctx, false)
	if err == nil {
		if err = l.Conn.Reserve(); err != nil {
			_ = l.Conn.Close()
		}
	}
	if err == nil && l.hook != nil {
		// It may be called below Reserve, with p.mu held.
		l.hook(func(*http.ClientConn) { p.limits.Kick() })
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialling--
	if err == nil && p.closed {
		_ = l.Conn.Close()
		err = ErrClosed
	}
	if err != nil {
		p.open--
		cause := context.Cause(ctx)
		if cause != nil && errors.Is(err, ctx.Err()) {
			err = cause
		}
		if !p.single && cause == nil {
			p.wakeAll(err) // all waited for this one connection
		} else {
			p.wake()
		}
		return nil, err
	}
	if !l.Shared() {
		p.lent[l] = struct{}{}
		if !p.single {
			p.single = true
			p.wakeAll(nil)
		}
		return l, nil
	}
	l.streams = 1
	p.multi = append(p.multi, l)
	p.wakeAll(nil)
	return l, nil
}

// GetUpgrade opens a connection that is used for one upgrade.
func (p *Pool) GetUpgrade(ctx context.Context, timeout time.Duration) (*Link, error) {
	p.mu.Lock()
	if p.closed || p.open >= p.limits.Connections {
		defer p.mu.Unlock()
		if p.closed {
			return nil, ErrClosed
		}
		return nil, ErrBusy
	}
	p.open++
	p.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, ErrConnect)
	defer cancel()
	l, err := p.dialer.dial(ctx, true)
	if err == nil {
		l.once = true
		if err = l.Conn.Reserve(); err != nil {
			_ = l.Conn.Close()
		}
	} else if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && p.closed {
		_ = l.Conn.Close()
		err = ErrClosed
	}
	if err != nil {
		p.open--
		p.wake()
		return nil, err
	}
	p.lent[l] = struct{}{}
	return l, nil
}

// Put takes a connection back. What is not fit for another exchange is closed.
func (p *Pool) Put(l *Link) {
	clean := l.Shared() || l.drained()
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.wake()
	l.used = time.Now()
	if l.Shared() {
		if q, ok := l.Conn.(*quicConn); ok {
			q.release()
		}
		l.streams--
		if l.streams == 0 && (l.retired || l.Conn.Err() != nil || p.closed) {
			if i := slices.Index(p.multi, l); i >= 0 {
				p.multi = slices.Delete(p.multi, i, i+1)
				p.drop(l)
			}
		}
		return
	}
	if _, ok := p.lent[l]; !ok {
		return // closed by force
	}
	delete(p.lent, l)
	if p.closed || l.once || !clean || l.Conn.Err() != nil || l.Conn.Available() == 0 || p.limits.Idle == 0 {
		p.drop(l)
		return
	}
	if len(p.idle) >= p.limits.Idle {
		p.drop(p.idle[0])
		p.idle = slices.Delete(p.idle, 0, 1)
	}
	p.idle = append(p.idle, l)
}

// wake lets the first waiter look again. p.mu is held.
func (p *Pool) wake() {
	if len(p.waiters) > 0 {
		p.waiters[0] <- nil
		p.waiters = slices.Delete(p.waiters, 0, 1)
	}
}

// wakeAll lets every waiter look again, or gives up for all of them. p.mu is held.
func (p *Pool) wakeAll(err error) {
	for _, w := range p.waiters {
		w <- err
	}
	p.waiters = nil
}

// Answered notes that a response came over l.
func (p *Pool) Answered(l *Link) {
	if !l.Shared() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !l.answered {
		l.answered = true
		p.wakeAll(nil)
	}
}

// Stir lets every waiter look again.
func (p *Pool) Stir() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wakeAll(nil)
}

// Sweep closes what has been idle or in use for too long, or is dead.
func (p *Pool) Sweep(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = slices.DeleteFunc(p.idle, func(l *Link) bool {
		if now.Sub(l.used) < p.limits.IdleTimeout && now.Sub(l.born) < maxAge && l.Conn.Err() == nil {
			return false
		}
		p.drop(l)
		return true
	})
	p.multi = slices.DeleteFunc(p.multi, func(l *Link) bool {
		if l.streams > 0 || (!l.retired && l.Conn.Err() == nil && now.Sub(l.used) < p.limits.IdleTimeout && now.Sub(l.born) < maxAge) {
			return false
		}
		p.drop(l)
		return true
	})
	p.wake()
}

// Close closes what is idle, and lets what is in use close when it is put back.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.wakeAll(ErrClosed)
	p.mu.Unlock()
	p.Sweep(time.Now().Add(2 * maxAge))
}

// Kill closes every connection, in use or not.
func (p *Pool) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.lent {
		delete(p.lent, l)
		p.drop(l)
	}
	for _, l := range p.multi {
		p.drop(l)
	}
	p.multi = nil
}

// Count returns how many connections are open, and how many of them idle.
func (p *Pool) Count() (open, idle int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	idle = len(p.idle)
	for _, l := range p.multi {
		if l.streams == 0 {
			idle++
		}
	}
	return p.open - p.dialling, idle
}

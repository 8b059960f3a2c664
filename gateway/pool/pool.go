// Package pool keeps the connections to one address: its main type is Pool. It lends single client connections that send
// what they are given once. What is above it decides whether anything is sent again.
package pool

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http1/client"
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
	Protocol exchange.Protocol

	one      *client.Conn                 // HTTP/1.1
	many     shared                       // HTTP/2 and 3; one of the two is not nil
	scheme   string                       // for many
	hook     func(func(*http.ClientConn)) // HTTP/2: calls back when streams become free
	born     time.Time
	used     time.Time // when it last became idle
	streams  int       // exchanges on it
	answered bool      // the peer's settings are known
	retired  bool      // no new requests; closed when streams is 0
	once     bool      // never kept: an upgrade's
	lent     bool      // HTTP/1.1: in use
}

// Shared reports whether several exchanges can be on the connection at once.
func (l *Link) Shared() bool { return l.one == nil }

// Do sends r once and reads the head of its response into resp; the exchange lasts until the link is put back. Nothing below
// it repeats a request on another connection. Over HTTP/2 and 3 the exchange ends with ctx. Over HTTP/1.1 nobody looks
// at ctx, because that would cost many exchanges more than it is worth: Abort ends it. Errors are *client.Error.
func (l *Link) Do(ctx context.Context, r *client.Request, resp *client.Response) error {
	if l.one != nil {
		return l.one.Do(r, resp)
	}
	return l.roundTrip(ctx, r, resp)
}

// Abort makes the exchange on an HTTP/1.1 connection fail. It may be called from any goroutine until the link is put back.
func (l *Link) Abort() {
	if l.one != nil {
		l.one.Abort()
	}
}

// Close ends the exchange and closes a link of Dial's.
func (l *Link) Close() {
	if l.one != nil {
		l.one.End()
	}
	l.close()
}

func (l *Link) close() {
	if l.one != nil {
		_ = l.one.Close() // what it was used for has its own error
		return
	}
	_ = l.many.Close() // as above
}

func (l *Link) err() error {
	if l.one != nil {
		return l.one.Err()
	}
	return l.many.Err()
}

// Pool is the connections to one endpoint: HTTP/1.1 ones lent to one exchange at a time, the most recently used first,
// and HTTP/2 and 3 ones lent to several.
type Pool struct {
	limits Config
	dialer *dialer

	mu       sync.Mutex
	single   map[*Link]struct{} // HTTP/1.1, idle or not
	idle     []*Link            // of these, most recently used last
	multi    []*Link            // HTTP/2 and 3
	open     int                // all of them, and those being opened
	dialling int
	apart    bool         // the endpoint turned out to speak HTTP/1.1: connections are opened side by side
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
	apart := protocol != "http2" && protocol != "http3" && (protocol != "auto" || d.scheme == "http")
	return &Pool{limits: c, dialer: d, single: map[*Link]struct{}{}, apart: apart}
}

// Upgrades reports whether GetUpgrade can be used.
func (p *Pool) Upgrades() bool { return p.dialer.upgrade != nil }

// Dial opens a connection outside the pool, for a health check. The caller closes it.
func (p *Pool) Dial(ctx context.Context) (*Link, error) { return p.dialer.dial(ctx, false) }

// Get lends a connection on which one exchange is reserved. It waits and dials for at most timeout. Whether an HTTP/1.1 connection
// can still be used shows only when it is: an error of Do's that is Stale means that it is to be put back, and another got.
func (p *Pool) Get(ctx context.Context, timeout time.Duration) (*Link, error) {
	p.mu.Lock()
	l := p.take(time.Now())
	p.mu.Unlock()
	if l != nil {
		return l, nil
	}
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
		if p.open < p.limits.Connections && (p.apart || p.dialling == 0) {
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
		dialling := p.dialling > 0 && !p.apart
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

// take finds a connection, of HTTP/1.1 one that may be open, and reserves an exchange on it. p.mu is held.
func (p *Pool) take(now time.Time) *Link {
	if p.closed {
		return nil
	}
	for len(p.idle) > 0 {
		l := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if now.Sub(l.used) < p.limits.IdleTimeout && now.Sub(l.born) < maxAge {
			l.lent = true
			return l
		}
		p.drop(l)
	}
	for i := 0; i < len(p.multi); i++ {
		l := p.multi[i]
		switch {
		case l.err() != nil:
			l.retired = true
		case now.Sub(l.born) >= maxAge && p.open < p.limits.Connections:
			l.retired = true
		case !l.retired && (l.answered || l.streams < firstStreams) && l.many.Reserve() == nil:
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
	if l.one != nil {
		if _, ok := p.single[l]; !ok {
			return // it was closed by force
		}
		delete(p.single, l)
	}
	l.close()
	p.open--
}

// dial opens a connection; p.open and p.dialling were counted up for it.
func (p *Pool) dial(ctx context.Context) (*Link, error) {
	l, err := p.dialer.dial(ctx, false)
	if err == nil && l.many != nil {
		if err = l.many.Reserve(); err != nil {
			l.close()
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
		l.close()
		err = ErrClosed
	}
	if err != nil {
		p.open--
		cause := context.Cause(ctx)
		if cause != nil && errors.Is(err, ctx.Err()) {
			err = cause
		}
		if !p.apart && cause == nil {
			p.wakeAll(err) // all waited for this one connection
		} else {
			p.wake()
		}
		return nil, err
	}
	if !l.Shared() {
		p.single[l], l.lent = struct{}{}, true
		if !p.apart {
			p.apart = true
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
	} else if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && p.closed {
		l.close()
		err = ErrClosed
	}
	if err != nil {
		p.open--
		p.wake()
		return nil, err
	}
	p.single[l], l.lent = struct{}{}, true
	return l, nil
}

// Put ends the exchange and takes its connection back. What is not fit for another exchange is closed.
func (p *Pool) Put(l *Link) {
	clean := l.one != nil && l.one.End()
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.wake()
	l.used = time.Now()
	if l.Shared() {
		if q, ok := l.many.(*quicConn); ok {
			q.release()
		}
		l.streams--
		if l.streams == 0 && (l.retired || l.err() != nil || p.closed) {
			if i := slices.Index(p.multi, l); i >= 0 {
				p.multi = slices.Delete(p.multi, i, i+1)
				p.drop(l)
			}
		}
		return
	}
	l.lent = false
	if p.closed || l.once || !clean || p.limits.Idle == 0 {
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
		if now.Sub(l.used) < p.limits.IdleTimeout && now.Sub(l.born) < maxAge && l.one.Fresh() {
			return false
		}
		p.drop(l)
		return true
	})
	p.multi = slices.DeleteFunc(p.multi, func(l *Link) bool {
		if l.streams > 0 || (!l.retired && l.err() == nil && now.Sub(l.used) < p.limits.IdleTimeout && now.Sub(l.born) < maxAge) {
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
	for l := range p.single {
		if l.lent {
			p.drop(l)
		}
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

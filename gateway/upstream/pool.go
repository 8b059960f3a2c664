package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// maxAge is how long a connection is used for new requests. A name that points elsewhere is so noticed in time even by
// connections that never fall idle.
const maxAge = 5 * time.Minute

// link is a connection in a pool.
type link struct {
	conn    conn
	meter   *meter
	proto   exchange.Protocol
	hook    func(func(*http.ClientConn)) // HTTP/2: calls back when streams become free
	born    time.Time
	used    time.Time // when it last became idle
	streams int       // exchanges on it
	retired bool      // no new requests; closed when streams is 0
	once    bool      // never kept: an upgrade's
	tunnel  io.Closer // the raw connection after an upgrade; conn has let go of it
}

// shared reports whether several exchanges can be on the connection at once.
func (l *link) shared() bool { return l.proto != exchange.HTTP1 }

// pool is the connections to one endpoint: HTTP/1.1 ones lent to one exchange at a time, the most recently used first,
// and HTTP/2 and 3 ones lent to several.
type pool struct {
	limits config.UpstreamPool
	dialer *dialer
	kick   func() // asks for wakeAll(nil) from another goroutine; never blocks

	mu       sync.Mutex
	lent     map[*link]struct{} // HTTP/1.1, in use
	idle     []*link            // HTTP/1.1, most recently used last
	multi    []*link            // HTTP/2 and 3
	open     int                // all of them, and those being opened
	dialling int
	single   bool         // the endpoint turned out to speak HTTP/1.1: connections are opened side by side
	waiters  []chan error // first come first served; nil: look again
	closed   bool
}

func newPool(limits config.UpstreamPool, d *dialer, protocol string, kick func()) *pool {
	single := protocol != "http2" && protocol != "http3" && (protocol != "auto" || d.scheme == "http")
	return &pool{limits: limits, dialer: d, kick: kick, lent: map[*link]struct{}{}, single: single}
}

// get lends a connection on which one RoundTrip is reserved. It waits and dials for at most timeout.
func (p *pool) get(ctx context.Context, timeout time.Duration) (l *link, err error) {
	p.mu.Lock()
	if l := p.take(time.Now()); l != nil || p.closed {
		p.mu.Unlock()
		if l == nil {
			return nil, errClosed
		}
		return l, nil
	}
	p.mu.Unlock()

	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errConnect)
	defer cancel()
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, errClosed
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
		if len(p.waiters) >= p.limits.Connections {
			p.mu.Unlock()
			return nil, errBusy
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
			if cause := context.Cause(ctx); !errors.Is(cause, errConnect) || dialling {
				return nil, cause
			}
			return nil, errBusy
		}
	}
}

// take finds an open connection and reserves a RoundTrip on it. p.mu is held.
func (p *pool) take(now time.Time) *link {
	if p.closed {
		return nil
	}
	for len(p.idle) > 0 {
		l := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if now.Sub(l.used) < p.limits.IdleTimeout && now.Sub(l.born) < maxAge && l.conn.Err() == nil && l.conn.Reserve() == nil {
			p.lent[l] = struct{}{}
			return l
		}
		p.drop(l)
	}
	for i := 0; i < len(p.multi); i++ {
		l := p.multi[i]
		switch {
		case l.conn.Err() != nil:
			l.retired = true
		case now.Sub(l.born) >= maxAge && p.open < p.limits.Connections:
			l.retired = true
		case !l.retired && l.conn.Reserve() == nil:
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
func (p *pool) drop(l *link) {
	_ = l.conn.Close() // what it was used for has its own error
	if l.tunnel != nil {
		_ = l.tunnel.Close()
	}
	p.open--
}

// adopt notes that an upgrade took over the raw connection, for kill.
func (p *pool) adopt(l *link, raw io.Closer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.tunnel = raw
}

// dial opens a connection; p.open and p.dialling were counted up for it.
func (p *pool) dial(ctx context.Context) (*link, error) {
	l, err := p.dialer.dial(ctx, false)
	if err == nil {
		if err = l.conn.Reserve(); err != nil {
			_ = l.conn.Close()
		}
	}
	if err == nil && l.hook != nil {
		// It may be called below Reserve, with p.mu held.
		l.hook(func(*http.ClientConn) { p.kick() })
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialling--
	if err == nil && p.closed {
		_ = l.conn.Close()
		err = errClosed
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
	if !l.shared() {
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

// getUpgrade opens a connection that is used for one upgrade.
func (p *pool) getUpgrade(ctx context.Context, timeout time.Duration) (*link, error) {
	p.mu.Lock()
	if p.closed || p.open >= p.limits.Connections {
		defer p.mu.Unlock()
		if p.closed {
			return nil, errClosed
		}
		return nil, errBusy
	}
	p.open++
	p.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errConnect)
	defer cancel()
	l, err := p.dialer.dial(ctx, true)
	if err == nil {
		l.once = true
		if err = l.conn.Reserve(); err != nil {
			_ = l.conn.Close()
		}
	} else if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && p.closed {
		_ = l.conn.Close()
		err = errClosed
	}
	if err != nil {
		p.open--
		p.wake()
		return nil, err
	}
	p.lent[l] = struct{}{}
	return l, nil
}

// put takes a connection back. What is not fit for another exchange is closed.
func (p *pool) put(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.wake()
	l.used = time.Now()
	if l.shared() {
		if q, ok := l.conn.(*quicConn); ok {
			q.release()
		}
		l.streams--
		if l.streams == 0 && (l.retired || l.conn.Err() != nil || p.closed) {
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
	if p.closed || l.once || l.conn.Err() != nil || l.conn.Available() == 0 || p.limits.Idle == 0 {
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
func (p *pool) wake() {
	if len(p.waiters) > 0 {
		p.waiters[0] <- nil
		p.waiters = slices.Delete(p.waiters, 0, 1)
	}
}

// wakeAll lets every waiter look again, or gives up for all of them. p.mu is held.
func (p *pool) wakeAll(err error) {
	for _, w := range p.waiters {
		w <- err
	}
	p.waiters = nil
}

// stir lets every waiter look again.
func (p *pool) stir() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wakeAll(nil)
}

// sweep closes what has been idle or in use for too long, or is dead.
func (p *pool) sweep(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = slices.DeleteFunc(p.idle, func(l *link) bool {
		if now.Sub(l.used) < p.limits.IdleTimeout && now.Sub(l.born) < maxAge && l.conn.Err() == nil {
			return false
		}
		p.drop(l)
		return true
	})
	p.multi = slices.DeleteFunc(p.multi, func(l *link) bool {
		if l.streams > 0 || (!l.retired && l.conn.Err() == nil && now.Sub(l.used) < p.limits.IdleTimeout && now.Sub(l.born) < maxAge) {
			return false
		}
		p.drop(l)
		return true
	})
	p.wake()
}

// close closes what is idle, and lets what is in use close when it is put back.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.wakeAll(errClosed)
	p.mu.Unlock()
	p.sweep(time.Now().Add(2 * maxAge))
}

// kill closes every connection, in use or not.
func (p *pool) kill() {
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

// count returns how many connections are open, and how many of them idle.
func (p *pool) count() (open, idle int) {
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

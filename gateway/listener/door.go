package listener

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-gateway/postern/gateway/caller"
	"github.com/postern-gateway/postern/gateway/certificate"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// door is one configured listener: at most one TCP and one UDP socket on the same port.
type door struct {
	set  *Set
	live atomic.Pointer[live]
	open atomic.Int64 // connections through both sockets
	tcp  *socket      // nil when neither http1 nor http2 is spoken; changed under Set.mu only
	udp  *socket      // nil when http3 is not spoken
}

// live is what a reload replaces while connections go on. It does not change itself.
type live struct {
	cfg   *config.Listener
	tls   *certificate.Store // nil: cleartext
	terms caller.Terms
}

func newDoor(s *Set) *door { return &door{set: s} }

// address returns where the door is bound.
func (d *door) address() netip.AddrPort {
	if d.tcp != nil {
		return d.tcp.addr
	}
	return d.udp.addr
}

// plan is a change of a door that has been prepared and can not fail any more.
type plan struct {
	door     *door
	live     *live
	tcp, udp *socket // as they will be; nil: none
}

// prepare reads certificates and opens the sockets that are missing, without accepting anything yet.
func (d *door) prepare(ctx context.Context, l *config.Listener) (p *plan, err error) {
	p = &plan{door: d, live: &live{cfg: l, terms: caller.Terms{
		Listener: l.Name, MaxBody: l.Limits.Body,
		Limits: caller.Limits{
			Head: l.Limits.Header, Fields: l.Limits.Headers,
			Header: l.Timeouts.Header, Body: l.Timeouts.Body, Idle: l.Timeouts.Idle, Write: l.Timeouts.Write,
		},
	}}}
	defer func() {
		if err != nil {
			p.undo()
		}
	}()
	if l.TLS != nil {
		if err := d.prepareTLS(p.live); err != nil {
			return p, err
		}
	}
	stream := l.Speaks(exchange.HTTP1) || l.Speaks(exchange.HTTP2)
	if stream {
		p.tcp = d.tcp
	}
	if l.Speaks(exchange.HTTP3) {
		if l.TLS == nil {
			return p, errors.New("http3 needs tls")
		}
		p.udp = d.udp
	} else if !stream {
		return p, errors.New("no protocol")
	}
	if err := d.bind(ctx, p, stream); err != nil {
		return p, err
	}
	if p.udp != nil {
		p.live.terms.AltSvc = `h3=":` + strconv.Itoa(int(p.udp.addr.Port())) + `"; ma=86400`
	}
	return p, nil
}

// prepareTLS reads certificates, or keeps those in use when nothing about them has changed.
func (d *door) prepareTLS(lv *live) (err error) {
	l := lv.cfg
	cfg := certificate.Config{
		Listener: l.Name, Protocols: l.Protocols, Cert: l.TLS.Cert, Key: l.TLS.Key, SelfSigned: l.TLS.SelfSigned,
		ClientCA: l.TLS.ClientCA, MinVersion: l.TLS.MinVersion, Authority: d.set.ca, Log: d.set.log,
	}
	if old := d.live.Load(); old != nil && old.tls.Serves(cfg) {
		lv.tls = old.tls
		return nil
	}
	lv.tls, err = certificate.Load(cfg)
	return err
}

// bind opens what p lacks. With port 0 the system picks a TCP port that may be taken for UDP: then another is tried.
func (d *door) bind(ctx context.Context, p *plan, stream bool) error {
	address := p.live.cfg.Address
	if d.live.Load() != nil {
		address = d.address().String() // a socket that is added shares the port of the one that is there
		if host, port, err := net.SplitHostPort(p.live.cfg.Address); err == nil && port != "0" {
			address = net.JoinHostPort(host, port)
		}
	}
	for try := 0; ; try++ {
		var err error
		opened := stream && p.tcp == nil
		if opened {
			if p.tcp, err = listenTCP(ctx, d, address); err != nil {
				return err
			}
		}
		if p.udp != nil || !p.live.cfg.Speaks(exchange.HTTP3) {
			return nil
		}
		shared := address
		if p.tcp != nil {
			host, _, _ := net.SplitHostPort(address)
			shared = net.JoinHostPort(host, strconv.Itoa(int(p.tcp.addr.Port())))
		}
		if p.udp, err = listenUDP(ctx, d, shared); err == nil {
			return nil
		}
		if !opened || shared == address || try == 9 {
			return err
		}
		p.tcp.discard()
		p.tcp = nil
	}
}

// undo closes what prepare opened.
func (p *plan) undo() {
	if p.tcp != nil && p.tcp != p.door.tcp {
		p.tcp.discard()
	}
	if p.udp != nil && p.udp != p.door.udp {
		p.udp.discard()
	}
}

// commit makes the plan the door's state: from now on it accepts.
func (p *plan) commit() {
	d := p.door
	d.live.Store(p.live)
	oldTCP, oldUDP := d.tcp, d.udp
	d.tcp, d.udp = p.tcp, p.udp
	if d.tcp != nil && d.tcp != oldTCP {
		d.tcp.start()
	}
	if d.udp != nil && d.udp != oldUDP {
		d.udp.start()
	}
	if oldTCP != d.tcp {
		d.retire(oldTCP)
	}
	if oldUDP != d.udp {
		d.retire(oldUDP)
	}
}

// retire drains a socket that is not wanted any more, in the background. Before retire returns it has stopped accepting,
// so that its address can be used again, and every connection knows that what is under way is its last.
func (d *door) retire(s *socket) {
	if s == nil {
		return
	}
	s.quiesce()
	d.set.draining.Go(func() { _ = d.end(d.set.hard, s) }) // nobody is left to be told but the log
}

// end drains a socket for as long as the listener's Drain says, and at most until ctx ends, which alone is an error.
func (d *door) end(ctx context.Context, s *socket) error {
	cfg := d.live.Load().cfg
	limited, cancel := context.WithTimeout(ctx, cfg.Drain)
	defer cancel()
	err := s.shutdown(limited)
	if err != nil {
		d.set.log.Warn("connections cut", "listener", cfg.Name, "address", s.addr.String(), "error", err)
	}
	if ctx.Err() == nil {
		return nil
	}
	return err
}

// admit counts a connection in, or says that there are too many.
func (d *door) admit() bool {
	lv := d.live.Load()
	if d.open.Add(1) <= int64(lv.cfg.Limits.Connections) {
		return true
	}
	d.open.Add(-1)
	d.set.cfg.Observer.Refused(lv.cfg.Name, "connections")
	return false
}

// member is one open connection.
type member interface {
	drain() // end kindly, as soon as no exchange is open
	kill()  // end now
}

// socket is a bound socket and the connections that came in through it.
type socket struct {
	door    *door
	addr    netip.AddrPort
	ctx     context.Context // of every exchange; ends when the socket stops hard
	cancel  context.CancelFunc
	accept  func() // the accept loop; returns after stop
	stop    func() // stops accepting; may be called again
	release func() // lets go of everything once no connection is left

	mu      sync.Mutex
	members map[member]struct{}
	closing bool
	loop    sync.WaitGroup // the accept loop
	busy    sync.WaitGroup // connections and exchanges
}

func newSocket(d *door, addr netip.AddrPort) *socket {
	s := &socket{door: d, addr: addr, members: make(map[member]struct{}), release: func() {}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

func (s *socket) start() { s.loop.Go(s.accept) }

// discard closes a socket that never accepted.
func (s *socket) discard() {
	s.cancel()
	s.stop()
	s.release()
}

// join adds a connection; false when the socket is closing.
func (s *socket) join(m member) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.members[m] = struct{}{}
	s.busy.Add(1)
	return true
}

// leave removes a connection that joined, once.
func (s *socket) leave(m member) {
	s.mu.Lock()
	_, ok := s.members[m]
	delete(s.members, m)
	s.mu.Unlock()
	if ok {
		s.door.open.Add(-1)
		s.busy.Done()
	}
}

// begin counts an exchange in, which done ends; false when its connection is gone already.
func (s *socket) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing && len(s.members) == 0 {
		return false
	}
	s.busy.Add(1)
	return true
}

// each calls f for every connection that is open now.
func (s *socket) each(f func(member)) {
	s.mu.Lock()
	members := make([]member, 0, len(s.members))
	for m := range s.members {
		members = append(members, m)
	}
	s.mu.Unlock()
	for _, m := range members {
		f(m)
	}
}

// quiesce stops accepting and has every connection end kindly, without waiting for any. It may be called again.
func (s *socket) quiesce() {
	s.stop()
	s.loop.Wait()
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.each(member.drain)
}

// afterKill is how long handlers may take to notice that their context ended.
const afterKill = 5 * time.Second

// shutdown ends everything: kindly until ctx ends, hard then, which is an error.
func (s *socket) shutdown(ctx context.Context) error {
	defer s.release()
	defer s.cancel()
	s.quiesce()
	done := make(chan struct{})
	go func() {
		s.busy.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	open := len(s.members)
	s.mu.Unlock()
	s.cancel()
	s.each(member.kill)
	last := time.NewTimer(afterKill)
	defer last.Stop()
	select {
	case <-done:
	case <-last.C:
		return fmt.Errorf("handlers still run %v after their connections were closed: %w", afterKill, ctx.Err())
	}
	if open == 0 {
		return nil
	}
	return fmt.Errorf("%d connections closed before they were done: %w", open, ctx.Err())
}

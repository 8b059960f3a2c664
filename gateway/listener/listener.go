// Package listener opens the sockets of a configuration and speaks HTTP/1.1, 2 and 3 on them in front of one handler.
// Its main type is Set: Apply reconciles it with a new configuration without dropping a connection.
//
// HTTP/1.1 is spoken by package http1; HTTP/2 by package http2 and HTTP/3 by quic-go, whose streams package carrier makes
// exchanges of. Nothing above this package knows which it was.
package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/caller"
	"github.com/postern-gateway/postern/gateway/carrier"
	"github.com/postern-gateway/postern/gateway/certificate"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http1"
	"github.com/postern-gateway/postern/gateway/http2"
)

// Handler answers one exchange. ctx ends when the client goes or the listener stops hard. When it returns, the reply is
// either ended or is broken off: a reply that was not ended never looks whole to the client.
type Handler func(ctx context.Context, x *exchange.Exchange)

// Observer is told what happens below the handler, for metrics. Calls come from many goroutines and must not block.
type Observer interface {
	// Opened says that a connection was accepted and its protocol is known.
	Opened(listener string, p exchange.Protocol)
	// Closed follows every Opened.
	Closed(listener string, p exchange.Protocol)
	// Refused says that a request or connection was refused before the handler saw it. reason is one of a few words:
	// a problem's code, "connections", "handshake" or "flood".
	Refused(listener, reason string)
}

// Config is what a Set needs.
type Config struct {
	Log      *slog.Logger  // nil: nothing is logged
	Handler  Handler       // required
	NewID    func() string // mints Exchange.ID; required
	Dir      string        // data directory: development certificates are kept below Dir/tls; empty: in memory
	Observer Observer      // nil: nobody is told
}

// Set is the open listeners. Its methods may be called from several goroutines; Apply and Shutdown wait for each other.
type Set struct {
	cfg     Config
	log     *slog.Logger
	carrier *carrier.Carrier
	pools   *http2.Pools
	http1   *http1.Server
	ca      *certificate.Authority

	mu     sync.Mutex // serialises Apply and Shutdown
	doors  map[string]*door
	closed bool

	draining sync.WaitGroup  // doors and sockets on their way out
	hard     context.Context // ends when those must be gone
	cut      context.CancelFunc
}

// ErrClosed is returned by Apply after Shutdown.
var ErrClosed = errors.New("listeners are shut down")

// New returns a Set without any listener.
func New(cfg Config) *Set {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Observer == nil {
		cfg.Observer = nobody{}
	}
	s := &Set{cfg: cfg, log: cfg.Log, doors: make(map[string]*door), pools: http2.NewPools(), ca: certificate.NewAuthority(cfg.Dir)}
	service := caller.Service{Log: s.log, Handler: cfg.Handler, NewID: cfg.NewID, Refused: cfg.Observer.Refused}
	s.http1, s.carrier = http1.NewServer(service), &carrier.Carrier{Service: service}
	s.hard, s.cut = context.WithCancel(context.Background())
	return s
}

// nobody is the Observer of a Set that has none.
type nobody struct{}

func (nobody) Opened(string, exchange.Protocol) {}
func (nobody) Closed(string, exchange.Protocol) {}
func (nobody) Refused(string, string)           {}

// Apply makes the open listeners those of a new configuration. Sockets whose address stays are kept and use the new
// TLS files, limits and timeouts from the next handshake, request or read on; new ones are opened before any old one is
// closed. It is all or nothing: on an error nothing has changed. Removed listeners drain in the background, for as long
// as their Drain says. ctx bounds the opening.
func (s *Set) Apply(ctx context.Context, listeners []*config.Listener) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	next := make(map[string]*door, len(listeners))
	plans := make([]*plan, 0, len(listeners))
	defer func() {
		if err != nil {
			for _, p := range plans {
				p.undo()
			}
		}
	}()
	for _, l := range listeners {
		key := doorKey(l)
		if next[key] != nil {
			return fmt.Errorf("listener %q: address %s is used twice", l.Name, l.Address)
		}
		d := s.doors[key]
		if d == nil {
			d = newDoor(s)
		}
		next[key] = d
		p, err := d.prepare(ctx, l)
		if err != nil {
			return fmt.Errorf("listener %q: %w", l.Name, err)
		}
		plans = append(plans, p)
	}
	// Nothing can fail from here on.
	for _, p := range plans {
		p.commit()
	}
	for key, d := range s.doors {
		if next[key] == nil {
			d.retire(d.tcp)
			d.retire(d.udp)
		}
	}
	s.doors = next
	return nil
}

// doorKey says which listeners of two configurations are the same. A port of 0 asks for any port, so there the name
// tells them apart.
func doorKey(l *config.Listener) string {
	if _, port, err := net.SplitHostPort(l.Address); err == nil && port == "0" {
		return l.Name + "@" + l.Address
	}
	return l.Address
}

// Addresses returns the bound address of every listener by name. TCP and UDP of one listener share it.
func (s *Set) Addresses() map[string]netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := make(map[string]netip.AddrPort, len(s.doors))
	for _, d := range s.doors {
		m[d.live.Load().cfg.Name] = d.address()
	}
	return m
}

// Shutdown stops accepting, lets open exchanges end (GOAWAY on HTTP/2 and 3, "connection: close" on HTTP/1.1) for as long as each
// listener's Drain says, and closes what is still open then. When ctx ends before, everything is closed and its error returned.
// Listeners that an earlier Apply removed end at the latest with it.
func (s *Set) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	doors := s.doors
	s.doors = nil
	s.mu.Unlock()
	defer context.AfterFunc(ctx, s.cut)()
	errs := make(chan error, 2*len(doors))
	var wg sync.WaitGroup
	for _, d := range doors {
		for _, sock := range []*socket{d.tcp, d.udp} {
			if sock != nil {
				wg.Go(func() { errs <- d.end(ctx, sock) })
			}
		}
	}
	wg.Wait()
	s.draining.Wait()
	close(errs)
	var err error
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}

// pause is how long to wait after the n-th failure in a row of an accept.
func pause(n int) time.Duration { return min(5*time.Millisecond<<min(n, 8), time.Second) }

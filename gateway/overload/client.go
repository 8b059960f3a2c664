package overload

import (
	"fmt"
	"io"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// The directions in which a client can be slow.
const (
	sending = iota
	reading
	directions
)

// pace measures how fast a client is while it is waited for. It is used by one goroutine at a time. The clock it reads moves
// with the gate's ticks: over the seconds of a grace that is exact enough, and costs nothing where nobody waits.
type pace struct {
	octets int64
	waited int64 // nanoseconds
}

// add notes n octets and what was waited for them, and reports whether the client is slower than rate, in octets a second,
// over at least grace nanoseconds of waiting.
func (p *pace) add(n, waited, rate, grace int64) (tooSlow bool) {
	p.octets += n
	p.waited += waited
	if p.waited < grace || waited == 0 {
		return false
	}
	tooSlow = float64(p.octets)*1e9 < float64(rate)*float64(p.waited)
	p.octets, p.waited = 0, 0
	return tooSlow
}

// sent is a request's body as it is sent by a client, which may not be too slow about it.
type sent struct {
	exchange.Body
	visit *Visit
	pace  pace
	cut   bool
}

// Read lends the exchange's turn out while the client is waited for. The error of one that is too slow is
// exchange.ErrBodyTimeout.
func (s *sent) Read(p []byte) (int, error) {
	g := s.visit.gate
	if s.cut {
		return 0, fmt.Errorf("%w: it sends too slowly", exchange.ErrBodyTimeout)
	}
	s.visit.turn.Pause()
	begun := g.clock.Load()
	n, err := s.Body.Read(p)
	waited := g.clock.Load() - begun
	s.visit.turn.Resume()
	c := &g.config.Load().Client
	if err == nil && c.Send > 0 && s.pace.add(int64(n), waited, c.Send, int64(c.Grace)) {
		s.cut = true
		g.slow[sending].Add(1)
		_ = s.Close() // what else it sends is nobody's
		return n, fmt.Errorf("%w: it sends too slowly", exchange.ErrBodyTimeout)
	}
	return n, err
}

// read is a reply as it is read by a client, which may not be too slow about it.
type read struct {
	exchange.Reply
	visit *Visit
	pace  pace
	cut   bool
}

// done notes what a client took, and what was waited for it.
func (r *read) done(n int, begun int64, err error) error {
	g := r.visit.gate
	c := &g.config.Load().Client
	if err == nil && c.Read > 0 && r.pace.add(int64(n), g.clock.Load()-begun, c.Read, int64(c.Grace)) {
		r.cut = true
		g.slow[reading].Add(1)
		err = ErrSlowReader
	}
	return err
}

// Head ends the exchange's turn: how long its answer goes on is its own matter.
func (r *read) Head(status int, h exchange.Header, length int64) error {
	r.visit.turn.Leave(NoAnswer)
	begun := r.visit.gate.clock.Load()
	return r.done(0, begun, r.Reply.Head(status, h, length))
}

func (r *read) Write(p []byte) (int, error) {
	if r.cut {
		return 0, ErrSlowReader
	}
	begun := r.visit.gate.clock.Load()
	n, err := r.Reply.Write(p)
	return n, r.done(n, begun, err)
}

func (r *read) Flush() error {
	if r.cut {
		return ErrSlowReader
	}
	begun := r.visit.gate.clock.Load()
	return r.done(0, begun, r.Reply.Flush())
}

// Upgrade ends the exchange's turn as Head does.
func (r *read) Upgrade(h exchange.Header) (io.ReadWriteCloser, error) {
	r.visit.turn.Leave(NoAnswer)
	return r.Reply.Upgrade(h)
}

// End completes the reply. One that was cut off is never completed.
func (r *read) End(trailer exchange.Header) error {
	if r.cut {
		return ErrSlowReader
	}
	return r.Reply.End(trailer)
}

package proxy

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/postern-gateway/postern/gateway/eventstream"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// stream is a model's event stream on its way to the customer.
type stream struct {
	*call
	filter Filter
	events *eventstream.Splitter

	in, out []byte
	noted   time.Time // of the last checkpoint
	since   int       // events since then
	absent  bool      // the client has gone and the stream is drained
}

// run passes the stream on, event by event, and settles it before its end mark.
func (s *stream) run(ctx context.Context) error {
	x := s.x
	x.Begin()
	s.noted = time.Now()
	err := x.Reply.Head(x.Response.Status, x.Response.Header, -1)
	if err == nil {
		err = x.Reply.Flush()
	}
	if err != nil {
		if err := s.clientLeft(ctx, err); err != nil {
			return err
		}
	}
	for {
		n, rerr := x.Response.Body.Read(s.events.Room())
		s.events.Advance(n)
		if rerr != nil && !exchange.AtEnd(rerr) {
			return s.broken(ctx, rerr)
		}
		s.in = s.in[:0]
		var mark []byte // the event that ends the stream
		last := false
		for !last {
			event, ok := s.events.Next()
			if !ok {
				break
			}
			mark, last = s.decode(event)
		}
		if s.events.Full() {
			return s.broken(ctx, errEventTooLarge)
		}
		if !last && rerr != nil {
			if event := s.events.Rest(); len(event) > 0 {
				mark, last = s.decode(event)
			}
		}
		if last || rerr != nil {
			if rerr == nil {
				defer s.readOut()
			}
			return s.end(ctx, mark)
		}
		if err := s.pass(ctx); err != nil {
			if err := s.clientLeft(ctx, err); err != nil {
				return err
			}
		}
		s.checkpoint()
	}
}

// decode appends to s.in what the customer gets of one event. When it is the last it returns its own octets.
func (s *stream) decode(event []byte) (mark []byte, last bool) {
	before := len(s.in)
	s.in, last = s.dec.Event(s.in, event)
	s.since++
	if last {
		mark = slices.Clone(s.in[before:])
	}
	return mark, last
}

// pass gives the customer what was decoded. A fault of the filter is returned as it is.
func (s *stream) pass(ctx context.Context) error {
	if s.absent || len(s.in) == 0 {
		return nil
	}
	p := s.in
	if s.filter != nil {
		var err error
		if s.out, err = s.filter.Filter(ctx, s.out[:0], s.in, false); err != nil {
			return &filterError{err}
		}
		p = s.out
	}
	if len(p) == 0 {
		return nil
	}
	if err := send(s.x, p); err != nil {
		return err
	}
	if err := s.x.Reply.Flush(); err != nil {
		return gone(err)
	}
	return nil
}

// filterError keeps a filter's fault apart from a client that went.
type filterError struct{ err error }

func (e *filterError) Error() string { return "filter the response: " + e.err.Error() }
func (e *filterError) Unwrap() error { return e.err }

// checkpoint notes what was delivered, now and then.
func (s *stream) checkpoint() {
	if s.hop.Journal == nil || s.since == 0 {
		return
	}
	if s.since < checkpointEvents && time.Since(s.noted) < checkpointTime {
		return
	}
	s.x.Usage = s.dec.Usage()
	s.hop.Journal.Checkpoint(s.x)
	s.noted, s.since = time.Now(), 0
}

// end settles the call and completes the reply: what is decoded, the receipt, the end mark.
func (s *stream) end(ctx context.Context, mark []byte) error {
	x := s.x
	x.Usage = s.dec.Usage()
	if s.absent {
		s.account(ctx)
		return exchange.ErrClientGone
	}
	p := s.in
	if s.filter != nil {
		var err error
		if s.out, err = s.filter.Filter(ctx, s.out[:0], s.in, true); err != nil {
			s.account(ctx)
			return &filterError{err}
		}
		p = s.out
	}
	s.account(ctx)
	rest, found := p, false
	if len(mark) > 0 {
		rest, found = bytes.CutSuffix(p, mark)
	}
	out := slices.Clone(rest)
	if x.Receipt != nil {
		out = receiptComment(out, x.Receipt)
	}
	if found {
		out = append(out, mark...)
	}
	if err := send(x, out); err != nil {
		return err
	}
	return finish(x, nil)
}

// clientLeft decides what happens when the reply can not be written: nil goes on without the client.
func (s *stream) clientLeft(ctx context.Context, err error) error {
	if fault := (*filterError)(nil); errors.As(err, &fault) {
		s.x.Usage = s.dec.Usage()
		s.account(ctx)
		return fault
	}
	if s.hop.Model.OnDisconnect == "drain" {
		s.absent = true
		return nil
	}
	s.settleLeft(ctx)
	return err
}

// broken settles a stream that did not come to its end: what was delivered is counted, whoever cut it; only a client that
// leaves a route with void pays nothing.
func (s *stream) broken(ctx context.Context, err error) error {
	if left(ctx) {
		s.settleLeft(ctx)
		return gone(err)
	}
	s.x.Usage = s.dec.Usage()
	s.account(ctx)
	if s.absent {
		return gone(err)
	}
	return s.f.cut(ctx, s.x, err)
}

// readOut reads what follows the end mark, normally nothing, for a moment: a connection is kept only when its response was
// read to the end.
func (s *stream) readOut() {
	timer := time.AfterFunc(afterLast, func() { _ = s.x.Response.Body.Close() })
	defer timer.Stop()
	for read := 0; read < eventstream.MaxEvent; {
		n, err := s.x.Response.Body.Read(s.events.Room())
		read += n
		if err != nil {
			return
		}
	}
}

// Package proxy takes one exchange to an upstream and back: its main type is Forwarder. Bodies pass as they come, both
// ways at once; a model call is also encoded for its provider, counted, and settled before its reply ends.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/eventstream"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/overload"
	"github.com/postern-gateway/postern/gateway/provider"
	"github.com/postern-gateway/postern/gateway/upstream"
)

// Stages is the part of an exchange's policy chain that runs while its response passes.
type Stages interface {
	// Response runs the response stages on x.Response's head, which they may change. An *exchange.Problem as error
	// replaces the response. A nil Filter lets the body pass untouched.
	Response(ctx context.Context, x *exchange.Exchange) (Filter, error)
	// Account settles what x.Usage says was used and sets x.Receipt. A second call does nothing.
	Account(ctx context.Context, x *exchange.Exchange)
}

// Filter changes a response body as it passes.
type Filter interface {
	// Filter appends to dst what takes the place of p. end says that p, which may then be empty, is the last. An error
	// breaks the reply off.
	Filter(ctx context.Context, dst, p []byte, end bool) ([]byte, error)
	// Events says that p is to be whole server-sent events where the body is an event stream.
	Events() bool
}

// Journal keeps the durable record of calls made under a hold.
type Journal interface {
	// Begin is called before every attempt and returns when it is on record. An error, best an *exchange.Problem, means
	// that there is no call.
	Begin(ctx context.Context, x *exchange.Exchange) error
	// Checkpoint notes x.Usage as delivered so far. It must not block.
	Checkpoint(x *exchange.Exchange)
}

// Config is what a Forwarder needs. The zero value is usable.
type Config struct {
	Log  *slog.Logger // nil: nothing is logged
	Name string       // the gateway's name in Via fields (RFC 9110 section 7.6.3), default "postern"
	// Whole is how many octets of a model's whole reply are kept to read its usage, default 64 MiB. Longer ones pass
	// through and are counted by their size.
	Whole int64
}

// Hop says where one exchange goes. Exactly one of Upstream and Model is set.
type Hop struct {
	Upstream *upstream.Upstream
	Model    *Model
	Stages   Stages        // nil: none
	Journal  Journal       // nil: none
	Timeout  time.Duration // for the whole exchange; 0: none
	Priority overload.Priority
}

// Model is how a model call is made. The targets are x.Call's, tried in their order.
type Model struct {
	Format    provider.Format
	Operation provider.Operation
	Body      []byte // the customer's request body
	// Resolve finds the upstream a target names.
	Resolve func(name string) (*upstream.Upstream, bool)
	// OnDisconnect says what is settled when the client leaves: bill_delivered (default) stops the upstream and counts
	// what was delivered, drain reads the upstream to its end, void counts nothing.
	OnDisconnect string
	// Headers are names of further request fields the provider gets. Without it only a few that concern the call do: what
	// else a client sends is between it and the gateway.
	Headers []string
}

// Forwarder forwards exchanges. It is safe for concurrent use.
type Forwarder struct {
	log   *slog.Logger
	name  string
	whole int64
	small sync.Pool // *[]byte of smallBuffer
	large sync.Pool // *[]byte of largeBuffer
}

// New makes a Forwarder.
func New(c Config) *Forwarder {
	f := &Forwarder{log: c.Log, name: c.Name, whole: c.Whole}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if f.name == "" {
		f.name = "postern"
	}
	if f.whole <= 0 {
		f.whole = 64 << 20
	}
	f.small.New = func() any { return new(make([]byte, smallBuffer)) }
	f.large.New = func() any { return new(make([]byte, largeBuffer)) }
	return f
}

// Forward takes x to its upstream and gives the response to x.Reply. It returns nil when the reply is complete.
//
// An *exchange.Problem as error means that the client has got nothing yet and is to get the problem. After any other
// error the reply is broken off, so that the client can tell that it is not whole; exchange.ErrClientGone says that
// nobody is there to tell. When it returns, nothing reads the request's body or writes the reply any more.
func (f *Forwarder) Forward(ctx context.Context, x *exchange.Exchange, hop *Hop) error {
	inner, cancel := ctx, context.CancelFunc(func() {})
	if hop.Timeout > 0 {
		inner, cancel = context.WithTimeout(ctx, hop.Timeout)
	}
	defer cancel()
	var err error
	if hop.Model != nil {
		c := &call{f: f, x: x, hop: hop, client: ctx}
		err = c.forward(inner)
	} else {
		err = f.plain(inner, x, hop)
	}
	return f.outcome(x, err)
}

// outcome makes of an error what Forward promises, and breaks a reply off that can not be completed.
func (f *Forwarder) outcome(x *exchange.Exchange, err error) error {
	if err == nil {
		return nil
	}
	var problem *exchange.Problem
	switch {
	case errors.Is(err, exchange.ErrClientGone):
		x.Reply.Abort()
		return err
	case x.Response.Started:
		x.Reply.Abort()
		if errors.As(err, &problem) {
			err = fmt.Errorf("reply broken off: %s", problem.Code) // too late to be shown
		}
		return err
	case errors.As(err, &problem):
		return problem
	}
	f.log.Error("exchange failed", "exchange", x.ID, "route", x.Route, "error", err)
	return &exchange.Problem{Status: 500, Code: "internal_error", Title: "The gateway failed"}
}

// plain forwards an exchange that is no model call.
func (f *Forwarder) plain(ctx context.Context, x *exchange.Exchange, hop *Hop) error {
	u := hop.Upstream
	r := f.request(x, u)
	r.Priority = hop.Priority
	x.Upstream = u.Name()
	var resp *upstream.Response
	var err error
	for {
		x.Attempts++
		resp, err = u.RoundTrip(ctx, r)
		if !u.Again(ctx, r, resp, err) {
			break
		}
	}
	if err != nil {
		if expired(x, err) {
			return tooLate(x)
		}
		return f.failure(ctx, x, err)
	}
	if resp.Upgrade != nil {
		return f.tunnel(ctx, x, u, resp)
	}
	defer func() { _ = resp.Body.Close() }() // after its end this does nothing
	x.Response = exchange.Response{Status: resp.Status, Header: f.response(resp), Body: resp.Body, Length: resp.Length}
	var filter Filter
	if hop.Stages != nil {
		if filter, err = hop.Stages.Response(ctx, x); err != nil {
			return err
		}
	}
	return f.deliver(ctx, x, filter)
}

// deliver gives x.Response to the client.
func (f *Forwarder) deliver(ctx context.Context, x *exchange.Exchange, filter Filter) error {
	body, length := x.Response.Body, x.Response.Length
	none := body == nil || body == exchange.NoBody || x.Request.Method == "HEAD" || x.Response.Status == 204 || x.Response.Status == 304
	if none {
		filter = nil
	}
	if filter != nil {
		length = -1
	}
	x.Begin()
	if err := x.Reply.Head(x.Response.Status, x.Response.Header, length); err != nil {
		return gone(err)
	}
	if none {
		if err := x.Reply.End(nil); err != nil {
			return gone(err)
		}
		return nil
	}
	if x.Response.Length < 0 {
		// Nobody knows when the body begins: the head must not wait for it, as a client may wait for the head.
		if err := x.Reply.Flush(); err != nil {
			return gone(err)
		}
	}
	if filter != nil && filter.Events() && x.Response.Header.EventStream() {
		return f.filterEvents(ctx, x, filter)
	}
	w := f.window(length)
	defer w.close()
	var out []byte
	received := int64(0)
	for {
		buffer := w.room()
		n, err := body.Read(buffer)
		w.took(n)
		received += int64(n)
		if err != nil && !exchange.AtEnd(err) {
			if expired(x, err) {
				return finish(x, grpcStatus())
			}
			return f.cut(ctx, x, err)
		}
		p, end := buffer[:n], err != nil
		if filter != nil {
			var ferr error
			if out, ferr = filter.Filter(ctx, out[:0], p, end); ferr != nil {
				return ferr
			}
			p = out
		}
		if err := send(x, p); err != nil {
			return err
		}
		if end {
			return finish(x, body.Trailer())
		}
		// Nobody knows when more of a stream comes. Of a body with a length there is more behind a read that fills the buffer.
		if len(p) > 0 && (x.Response.Length < 0 || n < len(buffer) && received < x.Response.Length) {
			if err := x.Reply.Flush(); err != nil {
				return gone(err)
			}
		}
	}
}

// filterEvents delivers an event stream to the client through a filter that wants whole events.
func (f *Forwarder) filterEvents(ctx context.Context, x *exchange.Exchange, filter Filter) error {
	events := eventstream.New(eventstream.MaxEvent)
	var in, out []byte
	for {
		n, err := x.Response.Body.Read(events.Room())
		events.Advance(n)
		if err != nil && !exchange.AtEnd(err) {
			return f.cut(ctx, x, err)
		}
		in = in[:0]
		for event, ok := events.Next(); ok; event, ok = events.Next() {
			in = append(in, event...)
		}
		if events.Full() {
			return f.cut(ctx, x, errEventTooLarge)
		}
		if err != nil {
			in = append(in, events.Rest()...)
		}
		if len(in) == 0 && err == nil {
			continue
		}
		var ferr error
		if out, ferr = filter.Filter(ctx, out[:0], in, err != nil); ferr != nil {
			return ferr
		}
		if err := send(x, out); err != nil {
			return err
		}
		if err != nil {
			return finish(x, x.Response.Body.Trailer())
		}
		if err := x.Reply.Flush(); err != nil {
			return gone(err)
		}
	}
}

// send writes body octets.
func send(x *exchange.Exchange, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	n, err := x.Reply.Write(p)
	x.Response.Sent += int64(n)
	if err != nil {
		return gone(err)
	}
	return nil
}

// finish completes the reply.
func finish(x *exchange.Exchange, trailer exchange.Header) error {
	if err := x.Reply.End(trailer); err != nil {
		return gone(err)
	}
	return nil
}

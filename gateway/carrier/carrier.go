// Package carrier carries exchanges over the servers of HTTP/1.1, 2 and 3: it turns what they hand out into
// exchange.Exchange, Body and Reply. Its main type is Carrier.
package carrier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http1"
)

// Carrier makes exchanges of requests and has Handler answer them. It does not change once it is in use.
type Carrier struct {
	Log     *slog.Logger
	Handler func(ctx context.Context, x *exchange.Exchange)
	NewID   func() string                 // mints Exchange.ID
	Refused func(listener, reason string) // is told of requests that Handler is not shown
}

// Peer is the connection an exchange hangs on, as far as exchanges know it.
type Peer struct {
	Remote, Local netip.AddrPort
	TLS           *exchange.TLS // nil in cleartext
	Connection    Connection
}

// Connection is asked while an exchange is open. Calls come from several goroutines.
type Connection interface {
	Terms() *Terms // of the moment
	Begin() bool   // counts an exchange in, which Done ends; false when the connection is gone already
	Done()
	Last() bool // no further exchange may begin: HTTP/1.1 and 2 say so with the next reply
	Reset()     // makes closing the connection an error for the client
}

// Terms are what a listener grants its clients.
type Terms struct {
	Listener string
	AltSvc   string // advertised on HTTP/1.1 and 2; empty: nothing
	MaxBody  int64  // octets of a request's body
	http1.Limits
}

// HTTP1 answers a request that g has released. Of what the standard server knows of it only the body is used.
func (e *Carrier) HTTP1(w http.ResponseWriter, r *http.Request, p *Peer, g *http1.Guard) {
	h := g.Take()
	if h == nil {
		panic(http.ErrAbortHandler)
	}
	c := e.newCall(p, w, exchange.HTTP1)
	c.guard, c.head = g, h
	if h.Problem != nil {
		c.refuse(h.Problem)
		return
	}
	_ = c.rc.EnableFullDuplex()
	x := &c.x.Request
	x.Method, x.Authority, x.Header, x.Upgrade = h.Method, h.Authority, h.Header, h.Upgrade
	var problem *exchange.Problem
	if x.Path, x.Query, problem = splitTarget(h.Target); problem != nil {
		c.refuse(problem)
		return
	}
	c.withBody(r, h.Length)
	c.run(r.Context())
}

// invoke calls the handler. A panic costs its own exchange and nothing else. aborted says that the handler asked for the
// reply to be broken off by the panic that net/http has for it.
func (e *Carrier) invoke(ctx context.Context, x *exchange.Exchange) (aborted bool) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if err, _ := v.(error); errors.Is(err, http.ErrAbortHandler) {
			aborted = true
			return
		}
		e.Log.Error("handler panicked", "exchange", x.ID, "listener", x.Listener,
			"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	}()
	e.Handler(ctx, x)
	return false
}

// newCall begins an exchange.
func (e *Carrier) newCall(p *Peer, w http.ResponseWriter, protocol exchange.Protocol) *call {
	c := &call{carrier: e, peer: p, terms: p.Connection.Terms(), w: w, rc: http.NewResponseController(w)}
	c.x = exchange.Exchange{ID: e.NewID(), Start: time.Now(), Listener: c.terms.Listener, Reply: c}
	c.x.Request = exchange.Request{
		Protocol: protocol, Scheme: "http", Body: exchange.NoBody, Remote: p.Remote, Local: p.Local, TLS: p.TLS,
	}
	if p.TLS != nil {
		c.x.Request.Scheme = "https"
	}
	return c
}

package carrier

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http1"
)

// call is one exchange and how it hangs on its connection: it carries the exchange, its body and its reply in one
// piece. It is not reused, because a body may be read by a goroutine that outlives the handler.
type call struct {
	x       exchange.Exchange
	carrier *Carrier
	peer    *Peer
	terms   *Terms // as they were when the exchange began
	w       http.ResponseWriter
	rc      *http.ResponseController
	body    body

	guard *http1.Guard // HTTP/1.1
	head  *http1.Head  // HTTP/1.1

	mu   sync.Mutex // guards over, and with it every use of rc from another goroutine than the handler's
	over bool       // the handler has returned: w is not ours any more

	// The reply. replying serialises what touches w.
	replying   sync.Mutex
	started    bool // the final head was given
	ended      bool
	aborted    bool
	noBody     bool // the reply has no body, whatever is written
	length     int64
	written    int64
	tunnel     *tunnel
	readStall  stall
	writeStall stall
}

// withBody gives the exchange a body of length octets, or -1, read from r.
func (c *call) withBody(r *http.Request, length int64) {
	c.x.Request.Length = length
	if length == 0 {
		return
	}
	c.body = body{call: c, req: r, length: length, limit: c.terms.MaxBody}
	c.x.Request.Body = &c.body
}

// run has the handler answer and sees to it that the reply is whole or recognisably not.
func (c *call) run(ctx context.Context) {
	if !c.peer.Connection.Begin() {
		panic(http.ErrAbortHandler)
	}
	defer c.peer.Connection.Done()
	if c.guard == nil {
		// HTTP/1.1 has the guard for this. A flow-controlled stream can stall while its connection is well.
		c.readStall.set(c.terms.Body, func() { c.unblock(c.rc.SetReadDeadline) })
		c.writeStall.set(c.terms.Write, func() { c.unblock(c.rc.SetWriteDeadline) })
		defer c.readStall.stop()
		defer c.writeStall.stop()
	}
	if c.carrier.invoke(ctx, &c.x) {
		c.aborted = true
	}
	if c.guard != nil && c.head.Expect && !c.body.wanted() {
		// The client waits for 100 that will not come: the server must not wait for the body in turn.
		c.guard.Linger()
		c.unblock(c.rc.SetReadDeadline)
	}
	if c.tunnel != nil {
		_ = c.tunnel.Close()
		c.end()
		return
	}
	if !c.started && !c.aborted && ctx.Err() == nil { // otherwise nobody waits for an answer
		c.problem(&exchange.Problem{Status: 500, Code: "internal_error", Title: "Internal error"})
	}
	if c.guard != nil && c.ended && (!c.head.Expect || c.body.wanted()) {
		c.drain()
	}
	c.end()
	if c.aborted || !c.ended {
		if c.guard != nil && c.head.Minor == 0 && c.length < 0 {
			c.peer.Connection.Reset()
		}
		panic(http.ErrAbortHandler) // the servers cut the connection or reset the stream
	}
}

// end takes w away from whoever still holds the exchange, and makes a read that is still blocked return.
func (c *call) end() {
	c.body.abandon()
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	if c.guard == nil {
		return
	}
	c.guard.Finish()
}

// drainOctets is how much of a body that nobody wanted is read so that its connection can be used again.
const drainOctets = 256 << 10

// drain reads what is left of an HTTP/1.1 request's body, once its reply is on the way. The standard server would do so
// itself after the handler, but in full duplex that starts its watch for a vanished client behind its own back, and the
// next request on the connection is lost.
func (c *call) drain() {
	if !c.body.left() {
		return
	}
	_ = c.rc.Flush() // errors come up again when the connection is read
	_, _ = io.CopyN(io.Discard, c.body.req.Body, drainOctets)
}

// unblock makes a read or a write that waits for the client return, by a deadline in the past.
func (c *call) unblock(setDeadline func(time.Time) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		_ = setDeadline(time.Unix(1, 0))
	}
}

// refuse answers what the handler is not shown.
func (c *call) refuse(p *exchange.Problem) {
	c.carrier.Refused(c.x.Listener, p.Code)
	c.problem(p)
	c.end()
}

// problem replies with p as problem details. Errors are the client's loss.
func (c *call) problem(p *exchange.Problem) {
	doc := p.JSON(c.x.ID)
	h := append(exchange.Header{
		{Name: "content-type", Value: exchange.ProblemType},
		{Name: "cache-control", Value: "no-store"},
		{Name: "postern-exchange", Value: c.x.ID},
	}, p.Header...)
	if c.Head(p.Status, h, int64(len(doc))) == nil {
		_, _ = c.Write(doc)
		_ = c.End(nil)
	}
}

package proxy

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-gateway/postern/gateway/eventstream"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/picture"
	"github.com/postern-gateway/postern/gateway/provider"
	"github.com/postern-gateway/postern/gateway/upstream"
)

const (
	// maxCalls bounds the attempts of one exchange over all its targets.
	maxCalls = 10
	// maxRefusal is how much of a provider's error is read.
	maxRefusal = 1 << 20
	// checkpointEvents and checkpointTime are how much may have been delivered since the last checkpoint.
	checkpointEvents = 64
	checkpointTime   = time.Second
	// afterLast is how long the end of a stream is waited for after its last event, so that its connection can be kept.
	afterLast = 100 * time.Millisecond
)

// call is one model call on its way.
type call struct {
	f      *Forwarder
	x      *exchange.Exchange
	hop    *Hop
	client context.Context // ends when the client goes
	dec    provider.Decoder
}

// forward calls the targets in turn until one serves.
func (c *call) forward(ctx context.Context) error {
	x, m := c.x, c.hop.Model
	if m.OnDisconnect == "drain" {
		// The upstream is read to its end whether or not the client waits for it; only time ends that.
		detached, cancel := context.WithoutCancel(ctx), context.CancelFunc(func() {})
		if deadline, ok := ctx.Deadline(); ok {
			detached, cancel = context.WithDeadline(detached, deadline)
		}
		defer cancel()
		ctx = detached
	}
	var last error = &exchange.Problem{Status: 503, Code: "no_target", Title: "No upstream serves this model now", Retry: 5 * time.Second}
	for i := range x.Call.Targets {
		x.Call.Target, x.Refused = i, ""
		u, ok := m.Resolve(x.Call.Targets[i].Upstream)
		if !ok {
			c.f.log.Error("target names no upstream", "exchange", x.ID, "upstream", x.Call.Targets[i].Upstream)
			continue
		}
		more := i+1 < len(x.Call.Targets) && x.Attempts < maxCalls
		resp, err := c.attempt(ctx, u, more)
		var e *upstream.Error
		switch {
		case errors.As(err, &e) && e.Sent == upstream.NotSent && e.Kind != upstream.Canceled:
			last = c.f.failure(ctx, x, err)
			if more && ctx.Err() == nil {
				continue
			}
			return last
		case e != nil:
			if e.Sent != upstream.NotSent && (left(c.client) || left(ctx)) {
				c.settleLeft(ctx)
			}
			return c.f.failure(ctx, x, err)
		case err != nil:
			return err
		}
		if more && (upstream.Refusal(resp.Status) || deniesGateway(resp.Status)) {
			c.f.log.Warn("target refused, next one", "exchange", x.ID, "upstream", x.Upstream, "status", resp.Status)
			_ = resp.Body.Close()
			continue
		}
		defer func() { _ = resp.Body.Close() }() // after its end this does nothing
		return c.answer(ctx, resp)
	}
	return last
}

// deniesGateway reports whether a provider does not accept the gateway itself: its key, its payment, its address.
func deniesGateway(status int) bool {
	return status == 401 || status == 402 || status == 403 || status == 407 || status >= 300 && status < 400
}

// attempt calls the target x.Call chose, again where the upstream's retry rules say so. Every attempt is on record first.
// elsewhere says that there is another target, so that a turn at this one is not waited for.
func (c *call) attempt(ctx context.Context, u *upstream.Upstream, elsewhere bool) (*upstream.Response, error) {
	x, m := c.x, c.hop.Model
	path, body, err := m.Format.Encode(m.Operation, &x.Call, m.Body)
	if err != nil {
		return nil, fmt.Errorf("encode for upstream %s: %w", u.Name(), err)
	}
	if !u.Config().Provider.Metadata {
		if body, err = picture.Clean(body); err != nil {
			return nil, &exchange.Problem{Status: 400, Code: "image_metadata", Title: "An image can not be sent on, because its metadata can not be taken out", Detail: err.Error()}
		}
	}
	c.dec = m.Format.Decode(m.Operation, &x.Call, m.Body)
	h := make(exchange.Header, 0, 8)
	for _, field := range x.Request.Header {
		if modelRequest(field.Name, m.Headers) && !credential(field.Name) {
			h = append(h, field)
		}
	}
	h.Set("user-agent", c.f.name)
	h.Set("accept-encoding", "identity") // what is compressed can not be counted as it passes
	r := &upstream.Request{
		Method: x.Request.Method, Path: path, Header: h, Body: exchange.NewBytes(body), Length: int64(len(body)), Key: u.Key(x), Refusals: true,
		Priority: c.hop.Priority, Elsewhere: elsewhere,
	}
	if len(body) == 0 {
		r.Body = nil
	}
	Configured(r, u)
	x.Upstream = u.Name()
	for {
		// A call that is refused for overload leaves no record behind.
		if err := u.Admit(ctx, r); err != nil {
			return nil, err
		}
		x.Attempts++
		if c.hop.Journal != nil {
			if err := c.hop.Journal.Begin(ctx, x); err != nil {
				x.Attempts--
				r.Forgo()
				return nil, c.unrecorded(err)
			}
		}
		resp, err := u.RoundTrip(ctx, r)
		if x.Attempts >= maxCalls || !u.Again(ctx, r, resp, err) {
			return resp, err
		}
	}
}

// unrecorded is the error for a call that could not be put on record, and so is not made.
func (c *call) unrecorded(err error) error {
	var problem *exchange.Problem
	if errors.As(err, &problem) {
		return problem
	}
	if left(c.client) {
		return gone(err)
	}
	c.f.log.Error("call can not be recorded", "exchange", c.x.ID, "error", err)
	return &exchange.Problem{Status: 503, Code: "ledger_unavailable", Title: "The call can not be recorded now", Retry: time.Second}
}

// settleLeft settles a call whose client went before it got anything. The upstream has read the prompt all the same.
func (c *call) settleLeft(ctx context.Context) {
	c.x.Usage = exchange.Usage{}
	if c.hop.Model.OnDisconnect != "void" {
		c.x.Usage = c.dec.Usage()
	}
	c.account(ctx)
}

// account settles x.Usage. That the client has gone does not keep it from being settled.
func (c *call) account(ctx context.Context) {
	if c.hop.Stages != nil {
		c.hop.Stages.Account(context.WithoutCancel(ctx), c.x)
	}
}

// answer turns a provider's response into the customer's.
func (c *call) answer(ctx context.Context, resp *upstream.Response) error {
	x := c.x
	if deniesGateway(resp.Status) {
		c.f.log.Error("upstream refused the gateway", "exchange", x.ID, "upstream", x.Upstream, "status", resp.Status)
		return refused()
	}
	served := resp.Status >= 200 && resp.Status < 300
	body := resp.Body
	switch strings.ToLower(resp.Header.Get("content-encoding")) {
	case "", "identity":
	case "gzip":
		body = &unzipped{Body: body}
		resp.Length = -1
	default:
		c.f.log.Error("upstream compressed unasked", "exchange", x.ID, "upstream", x.Upstream)
		return problemOf(&upstream.Error{Kind: upstream.Invalid})
	}
	h := slices.DeleteFunc(resp.Header, func(field exchange.Field) bool { return !modelResponse(field.Name) })
	x.Response = exchange.Response{Status: resp.Status, Header: h, Body: body, Length: resp.Length}
	var filter Filter
	if c.hop.Stages != nil {
		var err error
		if filter, err = c.hop.Stages.Response(ctx, x); err != nil {
			if served {
				x.Usage = c.dec.Usage()
			}
			return err
		}
	}
	if served && h.EventStream() {
		s := &stream{call: c, filter: filter, events: eventstream.New(eventstream.MaxEvent)}
		return s.run(ctx)
	}
	return c.wholeReply(ctx, filter, served)
}

// wholeReply reads a reply to its end, counts and settles it, and then gives it to the customer.
func (c *call) wholeReply(ctx context.Context, filter Filter, served bool) error {
	x := c.x
	limit := c.f.whole
	if !served {
		limit = maxRefusal
	}
	body, more, err := exchange.ReadUpTo(x.Response.Body, x.Response.Length, limit)
	if err != nil {
		if left(c.client) || left(ctx) {
			c.settleLeft(ctx)
			return gone(err)
		}
		return c.f.failure(ctx, x, err)
	}
	if more && served {
		return c.tooLong(ctx, filter, body)
	}
	out := c.dec.Whole(x.Response.Status, body)
	x.Usage = exchange.Usage{}
	if served {
		x.Usage = c.dec.Usage()
	}
	if left(c.client) && c.hop.Model.OnDisconnect == "void" {
		// It pays nothing and so gets nothing: who only closed its own side would still read the answer.
		c.settleLeft(ctx)
		return gone(context.Cause(c.client))
	}
	if filter != nil {
		if out, err = filter.Filter(ctx, nil, out, true); err != nil {
			return err
		}
	}
	c.account(ctx)
	if x.Receipt != nil {
		if served {
			out = c.hop.Model.Format.Receipt(out, x.Receipt)
		}
		x.Response.Header.Set("postern-receipt", receiptField(x.Receipt))
	}
	x.Begin()
	if err := x.Reply.Head(x.Response.Status, x.Response.Header, int64(len(out))); err != nil {
		return gone(err)
	}
	if x.Request.Method != "HEAD" {
		if err := send(x, out); err != nil {
			return err
		}
	}
	return finish(x, nil)
}

// tooLong passes on a reply that is too long to be kept. What it used is estimated from its size, at four octets a token
// and at most what the call may use.
func (c *call) tooLong(ctx context.Context, filter Filter, begun []byte) error {
	x := c.x
	x.Response.Body = &joined{Body: x.Response.Body, first: begun}
	err := c.f.deliver(ctx, x, filter)
	x.Usage = c.dec.Usage()
	x.Usage.Units[exchange.Output] = max(x.Usage.Units[exchange.Output], min(x.Response.Sent/4, x.Call.Max.Units[exchange.Output]))
	x.Usage.Estimated = true
	c.account(ctx)
	return err
}

// joined is a body whose beginning was read before.
type joined struct {
	exchange.Body
	first []byte
}

func (j *joined) Read(p []byte) (int, error) {
	if len(j.first) > 0 {
		n := copy(p, j.first)
		j.first = j.first[n:]
		return n, nil
	}
	return j.Body.Read(p)
}

// unzipped is a body without its gzip coding.
type unzipped struct {
	exchange.Body
	reader *gzip.Reader
}

func (z *unzipped) Read(p []byte) (int, error) {
	if z.reader == nil {
		r, err := gzip.NewReader(z.Body)
		if err != nil {
			return 0, z.broken(err)
		}
		z.reader = r
	}
	n, err := z.reader.Read(p)
	if err != nil && !exchange.AtEnd(err) {
		err = z.broken(err)
	}
	return n, err
}

// broken gives the upstream's own error where there is one, and else says that its coding is broken.
func (z *unzipped) broken(err error) error {
	var e *upstream.Error
	if errors.As(err, &e) {
		return err
	}
	return &upstream.Error{Kind: upstream.Invalid, Sent: upstream.Begun, Err: err}
}

// receiptField is the receipt as a response field.
func receiptField(r *exchange.Receipt) string {
	return "id=" + r.ID + "; amount=" + r.Amount.String() + "; balance=" + r.Balance.String()
}

// receiptComment is the receipt as a comment of an event stream, which clients pass over.
func receiptComment(dst []byte, r *exchange.Receipt) []byte {
	dst = append(dst, ": postern-receipt "...)
	dst = append(dst, r.JSON()...)
	return append(dst, "\n\n"...)
}

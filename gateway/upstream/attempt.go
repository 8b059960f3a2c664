package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http1/client"
	"github.com/postern-gateway/postern/gateway/pool"
)

// attempt is one request on its way to one endpoint. It is also the response's body: the attempt ends with it.
type attempt struct {
	u      *Upstream
	e      *endpoint
	r      *Request
	l      *pool.Link
	watch  *watch                  // nil before there is a connection
	cancel context.CancelCauseFunc // HTTP/2 and 3
	upload *upload                 // nil without a body

	out     client.Request
	in      client.Response
	result  Response
	body    upload // what upload points to
	trailer exchange.Header
	once    sync.Once
	eof     atomic.Bool
}

// do sends the request and waits for the response's head.
func (a *attempt) do(ctx context.Context) (*Response, error) {
	if a.r.Upgrade != "" && !a.e.pool.Upgrades() {
		return nil, a.fail(Upgrading, NotSent, exchange.ErrNoUpgrade)
	}
	for {
		if err := a.connect(ctx); err != nil {
			return nil, err
		}
		err := a.ask(ctx)
		if err == nil {
			break
		}
		var e *client.Error
		sent := MaybeSent
		if errors.As(err, &e) {
			if e.Reason == client.Stale && a.watch.why() == nil {
				a.watch.stop()
				a.e.pool.Put(a.l) // which closes it
				a.l = nil
				continue
			}
			if e.Reason == client.Refused && a.watch.why() == nil && a.upload.failed() == nil {
				return nil, a.fail(Busy, NotSent, err)
			}
			if e.Reason == client.Refused || e.Unsent {
				sent = NotSent
			}
		}
		return nil, a.broken(err, sent)
	}
	a.watch.begun()
	a.e.pool.Answered(a.l)
	switch status := a.in.Status; {
	case status == http.StatusSwitchingProtocols:
		return a.upgraded()
	case status < 200 || status > 999:
		return nil, a.fail(Invalid, Begun, fmt.Errorf("answered with the status %d", status))
	case status > 599: // not valid; to be taken as if it were of the class 5xx (RFC 9110 section 15)
		a.in.Status = http.StatusInternalServerError
	}
	return a.response(), nil
}

// connect gets a connection.
func (a *attempt) connect(ctx context.Context) (err error) {
	if a.r.Upgrade != "" {
		a.l, err = a.e.pool.GetUpgrade(ctx, a.u.cfg.Timeouts.Connect)
	} else {
		a.l, err = a.e.pool.Get(ctx, a.u.cfg.Timeouts.Connect)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pool.ErrClosed):
		return a.fail(Closed, NotSent, err)
	case errors.Is(err, pool.ErrBusy):
		return a.fail(Busy, NotSent, err)
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return a.fail(Canceled, NotSent, context.Cause(ctx))
	}
	return a.fail(Connect, NotSent, err)
}

// ask sends the request over the connection and waits for the answer's head.
func (a *attempt) ask(ctx context.Context) error {
	if a.l.Shared() {
		ctx, a.cancel = context.WithCancelCause(ctx)
	}
	if a.watch == nil {
		a.watch = a.u.watches.Get().(*watch)
	}
	timeouts := &a.u.cfg.Timeouts
	a.watch.start(ctx, timeouts.FirstByte, timeouts.Idle, timeouts.Total, !a.l.Shared(), a)
	a.request()
	a.watch.uploading(a.upload != nil, a.upload == nil)
	return a.l.Do(ctx, &a.out, &a.in)
}

// abort is called by the watch.
func (a *attempt) abort(cause error) {
	if a.cancel != nil {
		a.cancel(cause)
	}
	a.l.Abort()
}

// request makes the request as it goes out.
func (a *attempt) request() {
	r := a.r
	a.out = client.Request{
		Method: r.Method, Base: a.e.base, Path: r.Path, Query: r.Query, Host: r.Host, Header: r.Header, Upgrade: r.Upgrade,
		Interim: r.Interim, Clock: a.watch,
	}
	if r.Host == "" {
		a.out.Host = a.e.host
	}
	if r.Body != nil && r.Body != exchange.NoBody && r.Length != 0 {
		a.upload = &a.body
		a.upload.open(r.Body, r.Length, a.watch)
		a.out.Body, a.out.Length = a.upload, r.Length
		if r.Length < 0 {
			a.out.Trailers = announced(r.Header)
			a.upload.further = len(a.out.Trailers) > 0
		}
	}
}

// response makes the gateway's response.
func (a *attempt) response() *Response {
	resp := &a.result
	*resp = Response{
		Status: a.in.Status, Protocol: a.l.Protocol, Header: a.in.Header, Body: a, Length: a.in.Length, Endpoint: a.e.name,
	}
	switch {
	case a.r.Method == http.MethodHead:
		a.finish(nil, true)
		resp.Body = exchange.NoBody
	case a.in.Status == 204, a.in.Status == 304, a.in.Length == 0 && (!a.l.Shared() || a.in.Body == exchange.NoBody):
		// The exchange is over, although the trailers of an answer that is all trailers stand among its headers. Over HTTP/2 and
		// 3 a trailer section may still follow a response without content.
		a.finish(nil, true)
		resp.Body, resp.Length = exchange.NoBody, 0
	}
	return resp
}

// upgraded takes the raw stream over.
func (a *attempt) upgraded() (*Response, error) {
	if a.in.Upgrade == nil {
		return nil, a.fail(Invalid, Begun, errors.New("answered 101 to a request that asked for no upgrade"))
	}
	a.e.health.succeeded()
	a.watch.stop() // a tunnel lasts as long as who has it likes
	return &Response{
		Status: a.in.Status, Protocol: a.l.Protocol, Header: a.in.Header, Body: exchange.NoBody,
		Endpoint: a.e.name, Upgrade: &tunnel{ReadWriteCloser: a.in.Upgrade, a: a},
	}, nil
}

// Read reads the response's body. Errors other than io.EOF are *Error.
func (a *attempt) Read(p []byte) (int, error) {
	if a.eof.Load() {
		return 0, io.EOF
	}
	n, err := a.in.Body.Read(p)
	if err == nil {
		return n, nil
	}
	if exchange.AtEnd(err) {
		a.eof.Store(true)
		a.trailer = a.in.Body.Trailer()
		a.finish(nil, true)
		return n, io.EOF
	}
	return n, a.broken(err, Begun)
}

// Close ends the attempt; before the body's end that breaks it off, which is nobody's fault.
func (a *attempt) Close() error {
	a.finish(nil, false)
	return nil
}

// Trailer is the response's trailer section.
func (a *attempt) Trailer() exchange.Header {
	if !a.eof.Load() {
		return nil
	}
	return a.trailer
}

// fail ends an attempt that has no connection.
func (a *attempt) fail(k Kind, s Sent, err error) *Error {
	e := &Error{Upstream: a.u.cfg.Name, Endpoint: a.e.name, Kind: k, Sent: s, Err: err}
	a.finish(e, false)
	return e
}

// broken ends an attempt for an error of its connection, and says whose fault it was.
func (a *attempt) broken(err error, sent Sent) *Error {
	waiting := a.upload.waiting()
	cause := a.watch.why()
	failed := a.upload.failed()
	var e *client.Error
	switch {
	case failed != nil:
		return a.fail(Client, sent, failed)
	case cause != nil && isTimeout(cause):
		e := &Error{Upstream: a.u.cfg.Name, Endpoint: a.e.name, Kind: Timeout, Sent: sent, Err: cause}
		if errors.Is(cause, context.DeadlineExceeded) && (waiting || sent == Begun) {
			a.finish(nil, false) // the exchange took too long, which the client may have caused: not held against anyone
		} else {
			a.finish(e, false)
		}
		return e
	case cause != nil:
		return a.fail(Canceled, sent, cause)
	case errors.As(err, &e) && e.Reason == client.Given && e.Unsent:
		return a.fail(Unsendable, sent, err)
	case e != nil && e.Reason == client.Given:
		return a.fail(Canceled, sent, err)
	case !a.r.Deadline.IsZero() && time.Now().After(a.r.Deadline):
		return a.fail(Expired, sent, err)
	case e != nil && e.Reason == client.Invalid:
		return a.fail(Invalid, sent, err)
	}
	return a.fail(Reset, sent, err)
}

// finish ends the attempt: nothing of it runs afterwards. whole says that the response was read to its end.
func (a *attempt) finish(e *Error, whole bool) {
	a.once.Do(func() {
		if a.watch != nil {
			a.watch.stop()
		}
		if a.cancel != nil && !whole {
			a.cancel(errDetached)
		}
		if a.in.Body != nil && !whole {
			_ = a.in.Body.Close() // it was given up
		}
		a.upload.detach()
		a.r.lost = a.r.lost || a.upload.lost()
		if a.cancel != nil {
			a.cancel(errDetached)
		}
		a.e.inFlight.Add(-1)
		if a.l != nil {
			shared := a.l.Shared()
			a.e.pool.Put(a.l)
			if shared {
				a.watch.discard() // a read that was given up may still tell it
			} else {
				a.u.watches.Put(a.watch)
			}
		}
		switch {
		case e != nil && e.Kind.fault():
			a.e.failed.Add(1)
			a.ejected(a.e.health.failed(time.Now(), string(e.Kind)+": "+e.Err.Error()))
		case e == nil && whole && ill(a.in.Status):
			a.e.failed.Add(1)
			a.ejected(a.e.health.failed(time.Now(), "status "+strconv.Itoa(a.in.Status)))
		case e == nil && whole:
			a.e.health.succeeded()
		}
		a.u.end()
	})
}

// ejected logs that the endpoint is left alone for d, if it is.
func (a *attempt) ejected(d time.Duration) {
	if d > 0 {
		a.u.log.Warn("endpoint ejected after failed exchanges", "upstream", a.u.cfg.Name, "endpoint", a.e.name, "for", d)
	}
}

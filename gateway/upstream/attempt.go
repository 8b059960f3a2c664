package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/pool"
)

// attempt is one request on its way to one endpoint. It is also the response's body: the attempt ends with it.
type attempt struct {
	u      *Upstream
	e      *endpoint
	r      *Request
	l      *pool.Link
	ctx    context.Context
	cancel context.CancelCauseFunc
	total  context.CancelFunc // nil without a total timeout
	watch  watch
	upload *upload // nil without a body

	resp    *http.Response
	trailer exchange.Header
	once    sync.Once
	eof     atomic.Bool
}

// do sends the request and waits for the response's head.
func (a *attempt) do(parent context.Context) (*Response, error) {
	if a.r.Upgrade != "" && !a.e.pool.Upgrades() {
		return nil, a.fail(Upgrading, NotSent, exchange.ErrNoUpgrade)
	}
	var err error
	if a.r.Upgrade != "" {
		a.l, err = a.e.pool.GetUpgrade(parent, a.u.cfg.Timeouts.Connect)
	} else {
		a.l, err = a.e.pool.Get(parent, a.u.cfg.Timeouts.Connect)
	}
	if err != nil {
		switch {
		case errors.Is(err, pool.ErrClosed):
			return nil, a.fail(Closed, NotSent, err)
		case errors.Is(err, pool.ErrBusy):
			return nil, a.fail(Busy, NotSent, err)
		case parent.Err() != nil && !errors.Is(context.Cause(parent), context.DeadlineExceeded):
			return nil, a.fail(Canceled, NotSent, context.Cause(parent))
		}
		return nil, a.fail(Connect, NotSent, err)
	}

	a.ctx = parent
	if total := a.u.cfg.Timeouts.Total; total > 0 {
		a.ctx, a.total = context.WithTimeoutCause(a.ctx, total, errTotal)
	}
	a.ctx, a.cancel = context.WithCancelCause(a.ctx)
	a.watch.cancel = a.cancel
	a.watch.first, a.watch.idle = a.u.cfg.Timeouts.FirstByte, a.u.cfg.Timeouts.Idle

	var wroteHead atomic.Bool
	var interim interimGuard
	ctx := a.ctx
	if a.l.Shared() || a.r.Interim != nil {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			WroteHeaders:   func() { wroteHead.Store(true) },
			Got1xxResponse: interim.wrap(a.r.Interim),
		})
	}
	r := a.request(ctx)
	before := a.l.Wrote()
	a.watch.uploading(a.upload != nil, a.upload == nil)
	a.resp, err = a.l.Conn.RoundTrip(r) //nolint:bodyclose // finish does, when the body ends or is given up
	interim.close()
	if err != nil {
		sent := MaybeSent
		if a.l.Shared() {
			refused := a.l.Protocol == exchange.HTTP2 && unprocessed(err)
			if refused && a.ctx.Err() == nil && a.upload.failed() == nil {
				return nil, a.fail(Busy, NotSent, err)
			}
			if refused || a.l.Protocol == exchange.HTTP2 && !wroteHead.Load() {
				sent = NotSent
			}
		} else if a.l.Wrote() == before {
			sent = NotSent
		}
		return nil, a.broken(err, sent)
	}
	a.watch.begun()
	a.e.pool.Answered(a.l)
	switch status := a.resp.StatusCode; {
	case status == http.StatusSwitchingProtocols:
		return a.upgraded()
	case status < 200 || status > 599: // RFC 9110 section 15: not valid
		return nil, a.fail(Invalid, Begun, fmt.Errorf("answered with the status %d", status))
	}
	if !sound(a.resp.Header) {
		return nil, a.fail(Invalid, Begun, errors.New("answered with a field that can not be passed on"))
	}
	return a.response(), nil
}

// request makes the transport's request.
func (a *attempt) request(ctx context.Context) *http.Request {
	r := a.r
	path := strings.TrimSuffix(a.e.url.EscapedPath(), "/") + r.Path
	target := &url.URL{Scheme: a.e.url.Scheme, Host: a.e.url.Host, Path: path, RawQuery: r.Query}
	if strings.Contains(path, "%") {
		if plain, err := url.PathUnescape(path); err == nil {
			target.Path, target.RawPath = plain, path
		}
	}
	out := &http.Request{
		Method: r.Method, URL: target, Host: r.Host, Header: outgoing(r.Header, a.l.Shared()),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if r.Upgrade != "" {
		out.Header["Connection"] = []string{"Upgrade"}
		out.Header["Upgrade"] = []string{r.Upgrade}
	}
	if r.Body != nil && r.Body != exchange.NoBody && r.Length != 0 {
		a.upload = newUpload(r.Body, r.Length, &a.watch)
		out.Body, out.ContentLength = a.upload, r.Length
		if r.Length < 0 && !a.l.Shared() {
			out.TransferEncoding = []string{"chunked"}
		}
		if names := announced(r.Header); len(names) > 0 && r.Length < 0 {
			out.Trailer = make(http.Header, len(names))
			for _, n := range names {
				out.Trailer[http.CanonicalHeaderKey(n)] = nil
			}
			a.upload.trailer, a.upload.announce = out.Trailer, names
		}
	}
	return out.WithContext(ctx)
}

// response makes the gateway's response.
func (a *attempt) response() *Response {
	resp := &Response{
		Status: a.resp.StatusCode, Protocol: a.l.Protocol, Header: incoming(a.resp.Header), Body: a, Length: a.resp.ContentLength, Endpoint: a.e.name,
	}
	switch {
	case a.r.Method == http.MethodHead:
		a.finish(nil, true)
		resp.Body = exchange.NoBody
	case a.resp.StatusCode == 204, a.resp.StatusCode == 304, a.resp.ContentLength == 0:
		// The exchange is over, although the trailers of an answer that is all trailers stand among its headers.
		a.finish(nil, true)
		resp.Body, resp.Length = exchange.NoBody, 0
	}
	return resp
}

// upgraded takes the raw stream over.
func (a *attempt) upgraded() (*Response, error) {
	raw, ok := a.resp.Body.(io.ReadWriteCloser)
	if !ok || a.r.Upgrade == "" {
		return nil, a.fail(Invalid, Begun, errors.New("answered 101 to a request that asked for no upgrade"))
	}
	a.e.pool.Adopt(a.l, raw)
	a.e.health.succeeded()
	return &Response{
		Status: a.resp.StatusCode, Protocol: a.l.Protocol, Header: incoming(a.resp.Header), Body: exchange.NoBody,
		Endpoint: a.e.name, Upgrade: &tunnel{ReadWriteCloser: raw, a: a},
	}, nil
}

// Read reads the response's body. Errors other than io.EOF are *Error.
func (a *attempt) Read(p []byte) (int, error) {
	if a.eof.Load() {
		return 0, io.EOF
	}
	a.watch.downloading(true)
	n, err := a.resp.Body.Read(p)
	a.watch.downloading(false)
	if err == nil {
		return n, nil
	}
	if exchange.AtEnd(err) {
		a.eof.Store(true)
		a.trailer = incoming(a.resp.Trailer)
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

// broken ends an attempt for a transport's error, and says whose fault it was.
func (a *attempt) broken(err error, sent Sent) *Error {
	waiting := a.upload.waiting()
	cause := context.Cause(a.ctx)
	client := a.upload.failed()
	switch {
	case client != nil:
		return a.fail(Client, sent, client)
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
	case isInvalid(err):
		return a.fail(Invalid, sent, unquoted(err))
	}
	return a.fail(Reset, sent, unquoted(err))
}

// finish ends the attempt: nothing of it runs afterwards. whole says that the response was read to its end.
func (a *attempt) finish(e *Error, whole bool) {
	a.once.Do(func() {
		a.watch.stop()
		if a.cancel != nil && !whole {
			a.cancel(errDetached)
		}
		if a.resp != nil && a.resp.Body != nil && !whole {
			_ = a.resp.Body.Close() // it was given up
		}
		a.upload.detach()
		a.r.lost = a.r.lost || a.upload.lost()
		if a.cancel != nil {
			a.cancel(errDetached)
		}
		if a.total != nil {
			a.total()
		}
		a.e.inFlight.Add(-1)
		if a.l != nil {
			a.e.pool.Put(a.l)
		}
		switch {
		case e != nil && e.Kind.fault():
			a.e.failed.Add(1)
			a.ejected(a.e.health.failed(time.Now(), string(e.Kind)+": "+e.Err.Error()))
		case e == nil && whole && ill(a.resp.StatusCode):
			a.e.failed.Add(1)
			a.ejected(a.e.health.failed(time.Now(), a.resp.Status))
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

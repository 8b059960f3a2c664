package fetch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/sdk/abi"
)

// flight is one request under way. Whoever waits for it may leave; when nobody is left, it is given up.
type flight struct {
	key     key
	shared  bool          // it stands in Fetcher.flights
	age     time.Duration // how long its answer is wanted; the longest of those that joined. Under Fetcher.mu
	waiters int           // under Fetcher.mu
	cancel  context.CancelFunc
	begun   atomic.Bool // it has a place
	done    chan struct{}
	answer  Answer // once done is closed
}

// join finds the answer to a request, or the flight that will bring it, which may be another's. The caller leaves the flight
// when it has waited.
func (f *Fetcher) join(r *Request, now time.Time) (fl *flight, others bool, a Answer) {
	var k key
	if r.Cache > 0 {
		k = r.key()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Cache > 0 {
		if a, ok := f.cache.get(k, r.Cache, now); ok {
			a.Cached = true
			return nil, false, a
		}
		if fl := f.flights[k]; fl != nil {
			fl.waiters++
			f.waiting++
			fl.age = max(fl.age, r.Cache)
			return fl, true, Answer{}
		}
	}
	switch {
	case f.closed:
		return nil, false, Answer{Error: abi.FetchUnreachable}
	case f.pending >= f.config.Concurrent*(1+queuePerPlace):
		return nil, false, Answer{Error: abi.FetchBusy}
	}
	limit := r.Timeout
	if r.Cache > 0 {
		limit = f.config.Timeout // others may join that have more time
	}
	ctx, cancel := context.WithTimeout(f.ctx, limit)
	fl = &flight{key: k, shared: r.Cache > 0, age: r.Cache, waiters: 1, cancel: cancel, done: make(chan struct{})}
	if fl.shared {
		f.flights[k] = fl
	}
	f.pending++
	f.waiting++
	// The request points into memory of the exchange that asked, which may be gone before a flight that others joined.
	own := *r
	own.Body = bytes.Clone(r.Body)
	f.work.Go(func() { f.fly(ctx, fl, &own) })
	return fl, false, Answer{}
}

// fly makes the request when there is a place for it.
func (f *Fetcher) fly(ctx context.Context, fl *flight, r *Request) {
	answer := Answer{Error: abi.FetchBusy}
	select {
	case f.slots <- struct{}{}:
		fl.begun.Store(true)
		answer = f.send(ctx, r)
		<-f.slots
	case <-ctx.Done():
	}
	fl.cancel()
	f.mu.Lock()
	f.pending--
	if fl.shared && f.flights[fl.key] == fl {
		delete(f.flights, fl.key)
		if answer.Error == "" && answer.Status < 500 {
			f.cache.put(fl.key, answer, fl.age, time.Now())
		}
	}
	f.mu.Unlock()
	fl.answer = answer
	close(fl.done)
}

// leave is called once for each that joined.
func (f *Fetcher) leave(fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting--
	if fl.waiters--; fl.waiters > 0 {
		return
	}
	fl.cancel()
	if fl.shared && f.flights[fl.key] == fl {
		delete(f.flights, fl.key) // nobody is to join what was given up
	}
}

// wait waits for a flight until limit, or ctx's deadline, which is no different. When ctx ends in another way, err says so.
func (fl *flight) wait(ctx context.Context, limit time.Time) (a Answer, err error) {
	if at, ok := ctx.Deadline(); ok && at.Before(limit) {
		limit = at
	}
	timer := time.NewTimer(time.Until(limit))
	defer timer.Stop()
	select {
	case <-fl.done:
		return fl.answer, nil
	case <-timer.C:
	case <-ctx.Done():
		if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) {
			return Answer{}, cause
		}
	}
	select {
	case <-fl.done: // it came at the last moment
		return fl.answer, nil
	default:
	}
	if !fl.begun.Load() {
		return Answer{Error: abi.FetchBusy}, nil
	}
	return Answer{Error: abi.FetchTimeout}, nil
}

// send makes a request and reads its answer to the end.
func (f *Fetcher) send(ctx context.Context, r *Request) Answer {
	resp, err := f.roundTrip(ctx, r)
	if err == nil {
		defer resp.Body.Close()
		var a Answer
		if a, err = read(r, resp); err == nil {
			return a
		}
	}
	word := abi.FetchUnreachable
	switch {
	case errors.Is(err, errAddress):
		word = abi.FetchDenied
	case errors.Is(err, errLarge), errors.Is(err, errHead), headTooLarge(err):
		word = abi.FetchTooLarge
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		word = abi.FetchTimeout
	case errors.Is(err, ErrBusy):
		word = abi.FetchBusy
	}
	level := slog.LevelDebug // plugins are told, and metrics count
	if word == abi.FetchDenied {
		level = slog.LevelWarn
	}
	f.log.Log(ctx, level, "a plugin's fetch failed", "plugin", f.plugin, "to", r.where(), "outcome", word, "error", plain(err))
	return Answer{Error: word}
}

// errLarge is an answer's body that is larger than the plugin takes.
var errLarge = errors.New("the answer's body is too large")

// read makes an answer of a response.
func read(r *Request, resp *Response) (Answer, error) {
	if resp.Status < 200 || resp.Status > 599 { // RFC 9110 section 15: not valid, or a switch nobody asked for
		return Answer{}, errors.New("the answer's status is not between 200 and 599")
	}
	header, err := tidy(resp.Header)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Status: resp.Status, Header: header}
	if r.Method == http.MethodHead {
		return a, nil
	}
	if resp.Length > r.Max {
		return Answer{}, errLarge
	}
	var body bytes.Buffer
	if resp.Length > 0 {
		body.Grow(int(resp.Length) + bytes.MinRead)
	}
	n, err := body.ReadFrom(io.LimitReader(resp.Body, r.Max+1))
	if err == nil && n > r.Max {
		err = errLarge
	}
	if err != nil {
		return Answer{}, err
	}
	a.Body = bytes.Clone(body.Bytes()) // as large as it is: it may be kept
	return a, nil
}

// roundTrip sends a request where it goes and returns the answer's head. Redirects are answers like any other.
func (f *Fetcher) roundTrip(ctx context.Context, r *Request) (*Response, error) {
	if r.URL == nil {
		return f.ups[r.Upstream].Fetch(ctx, r)
	}
	out := &http.Request{
		Method: r.Method, URL: r.URL, Header: make(http.Header, len(r.Header)+1), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	out.Header["User-Agent"] = []string{"postern"}
	for _, field := range r.Header {
		out.Header[http.CanonicalHeaderKey(field.Name)] = []string{field.Value}
	}
	switch {
	case len(r.Body) > 0:
		// The transport sends it again only when nothing of it was written, or when a field idempotency-key allows it.
		body := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.Body)), nil }
		out.Body, _ = body()
		out.GetBody, out.ContentLength = body, int64(len(r.Body))
	case r.Method == http.MethodPost, r.Method == http.MethodPut, r.Method == http.MethodPatch:
		out.Body = http.NoBody // the transport then says that its length is 0
	}
	resp, err := f.origins[r.Origin].transport.RoundTrip(out.WithContext(ctx)) //nolint:bodyclose // send does
	if err != nil {
		return nil, err
	}
	h := make(exchange.Header, 0, len(resp.Header))
	for name, values := range resp.Header {
		for _, v := range values {
			h.Add(strings.ToLower(name), v)
		}
	}
	return &Response{Status: resp.StatusCode, Header: h, Body: resp.Body, Length: resp.ContentLength}, nil
}

// headTooLarge reports that the transport gave up on the answer's head; it has no error of its own for that.
func headTooLarge(err error) bool {
	text := err.Error()
	return strings.Contains(text, "response headers exceeded") || strings.Contains(text, "header list larger")
}

// plain is an error's text, cut: a peer may have written it.
func plain(err error) string {
	text := err.Error()
	return strings.ToValidUTF8(text[:min(len(text), 200)], "?")
}

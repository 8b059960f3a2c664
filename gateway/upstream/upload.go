package upstream

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// upload hands a request's body to a transport, which reads it in a goroutine of its own. It keeps three things apart
// that the transport mixes up: that the client's body broke, that the upstream does not take it, and that the attempt is
// over. After detach nobody reads the client's body any more.
type upload struct {
	body    exchange.Body
	length  int64
	watch   *watch
	further bool // there is something to read behind length octets: trailers

	mu      sync.Mutex
	idle    sync.Cond // signalled when reading ends
	reading bool
	closed  bool
	touched bool // something was read, or lost
	done    bool // it was read to its end
	n       int64
	err     error // what is wrong with the client's body
}

func (u *upload) open(body exchange.Body, length int64, w *watch) {
	u.body, u.length, u.watch = body, length, w
	u.idle.L = &u.mu
}

// buffered is a body that knows how much of it can be read without waiting for the client.
type buffered interface{ Buffered() int }

// Buffered is how much of the body can be read without waiting for the client.
func (u *upload) Buffered() int {
	switch b := u.body.(type) {
	case *exchange.Bytes:
		return b.Len()
	case buffered:
		return b.Buffered()
	}
	return 0
}

// Trailer is the client's.
func (u *upload) Trailer() exchange.Header { return u.body.Trailer() }

// Read is called by the transport.
func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	if u.closed || u.done {
		defer u.mu.Unlock()
		if u.done {
			return 0, io.EOF
		}
		return 0, errDetached
	}
	u.reading = true
	u.mu.Unlock()

	u.watch.uploading(true, false)
	n, err := u.body.Read(p)

	u.mu.Lock()
	defer u.mu.Unlock()
	u.reading = false
	u.idle.Broadcast()
	u.n += int64(n)
	u.touched = u.touched || n > 0 || err != nil
	switch {
	case exchange.AtEnd(err) && u.length >= 0 && u.n < u.length:
		err = fmt.Errorf("%w: %d octets instead of %d", exchange.ErrClientBody, u.n, u.length)
		fallthrough
	case err != nil && !exchange.AtEnd(err):
		if u.closed {
			err = errDetached // detach closed the body; that is nobody's fault
		} else {
			u.err = err
		}
		return n, err
	case exchange.AtEnd(err):
		u.done = true
	}
	// A transport that knows the length does not read on to the end.
	sent := u.done || (u.length >= 0 && u.n >= u.length && !u.further)
	u.watch.uploading(false, sent)
	return n, err
}

// Close is called by the transport when it wants no more. A read under way ends by closing the client's body; a body
// nobody reads stays as it is, so that an attempt that sent nothing can be followed by another.
func (u *upload) Close() error {
	u.mu.Lock()
	interrupt := u.reading && !u.closed
	u.closed = true
	if interrupt {
		u.touched = true
	}
	u.mu.Unlock()
	if interrupt {
		return u.body.Close()
	}
	return nil
}

// detach ends the upload and waits until nobody reads the client's body.
func (u *upload) detach() {
	if u == nil {
		return
	}
	_ = u.Close() // the body's own error was or will be seen by who reads it
	u.mu.Lock()
	defer u.mu.Unlock()
	for u.reading {
		u.idle.Wait()
	}
}

// failed is what is wrong with the client's body, or nil.
func (u *upload) failed() error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// waiting reports whether the client, not the upstream, is waited for.
func (u *upload) waiting() bool {
	if u == nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.reading
}

// lost reports whether the body can not be sent from its beginning any more.
func (u *upload) lost() bool {
	if u == nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.touched
}

// announced returns the trailer fields a request announces, without those that may not stand in a trailer section
// (RFC 9110 section 6.5.1).
func announced(h exchange.Header) []string {
	var names []string
	for v := range h.Values("trailer") {
		for name := range strings.SplitSeq(v, ",") {
			name = strings.ToLower(strings.TrimSpace(name))
			switch name {
			case "", "transfer-encoding", "content-length", "host", "trailer", "content-encoding", "content-type", "content-range",
				"authorization", "proxy-authorization", "set-cookie", "cookie", "te", "connection", "cache-control", "expect", "range":
				continue
			}
			if len(names) < maxTrailers {
				names = append(names, name)
			}
		}
	}
	return names
}

// maxTrailers is how many trailer fields a request can announce.
const maxTrailers = 32

//go:build unix

package client

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// peeker looks at an idle connection without waiting and without taking anything from it, and asks over it in as few system calls
// as that takes.
type peeker struct {
	raw   syscall.RawConn // nil: there is none
	look  func(fd uintptr) bool
	quiet bool // what look saw
	speak func(fd uintptr) bool
	turn  turn
}

// turn is what speak does.
type turn struct {
	r       *Request
	said    bool    // all of the request, or its head, was sent
	buf     *[]byte // what rest is in; nil: there is none
	rest    []byte  // what the connection did not take at once, of n octets and these
	n       int
	streams bool // the body is still to be sent
	err     *Error
}

func (c *Conn) open(s syscall.Conn) {
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	c.raw = raw
	c.look = func(fd uintptr) bool {
		c.quiet = quiet(fd)
		return true // in any case: there is no waiting
	}
	c.speak = c.converse
}

// quiet reports whether nothing came over a connection, its end included.
func quiet(fd uintptr) bool {
	var one [1]byte
	_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return errors.Is(err, syscall.EAGAIN)
}

// Fresh reports whether an idle connection is open and nothing came over it since its last exchange: neither its end nor
// octets that would be taken for the next answer. A connection that can not be looked at is not.
func (c *Conn) Fresh() bool {
	c.quiet = false
	return c.raw != nil && !c.dead.Load() && c.raw.Read(c.look) == nil && c.quiet
}

// ask sends r on a connection on which nothing came since its last exchange. In cleartext it also waits for the answer and reads
// its beginning.
func (c *Conn) ask(r *Request) *Error {
	if c.raw == nil || c.stream != c.under {
		if c.used && !c.Fresh() {
			return stale()
		}
		return c.send(r)
	}
	c.turn = turn{r: r}
	err := c.raw.Read(c.speak)
	t := c.turn
	c.turn = turn{}
	if t.buf != nil {
		defer buffers.Put(t.buf)
	}
	switch {
	case t.err != nil:
		return t.err
	case t.rest != nil:
		return c.write(r, t.rest, t.n, t.streams)
	case err != nil:
		return &Error{Unsent: !t.said, Err: err}
	case t.streams:
		c.up = newUpload(c, r)
	}
	return nil
}

// converse says what there is to be said and then listens; the poller calls it again whenever something came since it called
// first. A read before that would only find that nothing is there yet: upstreams take their time. As the poller was asked to
// notice before the connection was looked at, nothing that comes is missed, be it the connection's end.
func (c *Conn) converse(fd uintptr) (done bool) {
	t := &c.turn
	if t.said {
		return c.listen(fd)
	}
	if c.used && !quiet(fd) {
		t.err = stale()
		return true
	}
	buf := buffers.Get().(*[]byte)
	b, streams, problem := compose((*buf)[:0], t.r)
	if problem != nil {
		buffers.Put(buf)
		t.err = problem
		return true
	}
	n, err := retried(syscall.Write, fd, b)
	if n < len(b) && (err == nil || errors.Is(err, syscall.EAGAIN)) {
		t.buf, t.n, t.rest, t.streams = buf, n, b[n:], streams
		return true
	}
	buffers.Put(buf)
	if err != nil {
		t.err = &Error{Unsent: true, Err: os.NewSyscallError("write", err)}
		return true
	}
	t.said, t.streams = true, streams
	return streams
}

// listen reads the beginning of an answer, if it is there. While it is waited for no buffer is held.
func (c *Conn) listen(fd uintptr) (done bool) {
	buf := buffers.Get().(*[]byte)
	n, err := retried(syscall.Read, fd, *buf)
	if n > 0 {
		c.buf, c.r, c.w = buf, 0, n
		return true
	}
	buffers.Put(buf)
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return false
	case err == nil:
		c.turn.err = &Error{Err: io.ErrUnexpectedEOF}
	default:
		c.turn.err = &Error{Err: os.NewSyscallError("read", err)}
	}
	return true
}

// retried makes a system call, and again when a signal came in between. n is not negative.
func retried(call func(fd int, p []byte) (int, error), fd uintptr, p []byte) (n int, err error) {
	for {
		n, err = call(int(fd), p)
		if !errors.Is(err, syscall.EINTR) {
			return max(n, 0), err
		}
	}
}

package client

import (
	"errors"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// upload is a body on its way, by a goroutine of its own while the answer is read. It ends before End returns.
type upload struct {
	c    *Conn
	r    *Request
	over chan struct{} // closed when the goroutine has ended
	may  chan struct{} // nil: the body need not wait; receives when it may be sent, or is not to be

	mu     sync.Mutex
	state  uploadState
	moved  chan struct{} // receives when state has changed
	unsent bool          // the final response is there before the body was asked for
}

type uploadState uint8

const (
	reading uploadState = iota // the body is waited for
	writing                    // the upstream is
	sent                       // the upstream has got all of it
	stopped
)

func newUpload(c *Conn, r *Request) *upload {
	u := &upload{c: c, r: r, over: make(chan struct{}), moved: make(chan struct{}, 1)}
	if expects(r) {
		u.may = make(chan struct{}, 1)
	}
	go u.run()
	return u
}

// proceed says that the upstream asks for the body. It can be called on nil.
func (u *upload) proceed() {
	if u != nil && u.may != nil {
		select {
		case u.may <- struct{}{}:
		default:
		}
	}
}

// answered says that the final response is there: a body that was not asked for is not sent any more.
func (u *upload) answered() {
	if u == nil || u.may == nil {
		return
	}
	u.mu.Lock()
	u.unsent = true
	u.mu.Unlock()
	u.proceed()
}

func (u *upload) run() {
	defer close(u.over)
	if u.may != nil && !u.wait() {
		u.set(stopped)
		return
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	var err error
	if u.r.Length < 0 {
		err = u.sendChunks(*buf)
	} else {
		err = u.sendLength(*buf)
	}
	if err == nil {
		u.set(sent)
		return
	}
	u.set(stopped)
	var broken *writeError
	if errors.As(err, &broken) {
		u.c.grace() // the answer may be there all the same
		return
	}
	u.c.Abort() // the body broke: what the upstream got is not the request
}

// wait waits for the upstream's word, and after a while does without.
func (u *upload) wait() bool {
	timer := time.NewTimer(continueFor)
	defer timer.Stop()
	select {
	case <-u.may:
	case <-timer.C:
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.unsent && u.state == reading
}

// writeError keeps a connection that takes no more apart from a body that broke.
type writeError struct{ error }

func (u *upload) write(b []byte) error {
	if _, err := u.c.stream.Write(b); err != nil {
		return &writeError{err}
	}
	return nil
}

// next reads a part of the body. end says that there is no more.
func (u *upload) next(p []byte) (n int, end bool, err error) {
	if !u.set(reading) {
		return 0, false, errAborted
	}
	n, err = u.r.Body.Read(p)
	if !u.set(writing) {
		return 0, false, errAborted
	}
	if exchange.AtEnd(err) {
		return n, true, nil
	}
	return n, false, err
}

// sendLength sends a body whose length is known. It does not read on when that is reached.
func (u *upload) sendLength(buf []byte) error {
	for left := u.r.Length; left > 0; {
		n, end, err := u.next(buf[:min(int64(len(buf)), left)])
		if n > 0 {
			if err := u.write(buf[:n]); err != nil {
				return err
			}
		}
		left -= int64(n)
		switch {
		case err != nil:
			return err
		case end && left > 0:
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}

// sizeRoom is room for a chunk's size and its line end, lineEnd for that of its data.
const (
	sizeRoom = 6
	lineEnd  = 2
)

// sendChunks sends a body as it comes, a chunk for each part, and one write for each chunk.
func (u *upload) sendChunks(buf []byte) error {
	last := make([]byte, 0, 32)
	for {
		n, end, err := u.next(buf[sizeRoom : len(buf)-lineEnd-64])
		if err != nil {
			return err
		}
		from, to := sizeRoom, sizeRoom
		if n > 0 {
			size := append(strconv.AppendInt(last[:0], int64(n), 16), '\r', '\n')
			from -= len(size)
			copy(buf[from:], size)
			to += n + copy(buf[sizeRoom+n:], "\r\n")
		}
		out := buf[from:to]
		if end {
			out = append(out, '0', '\r', '\n')
			if len(u.r.Trailers) == 0 {
				out = append(out, '\r', '\n')
			} else {
				out = appendTrailer(out, u.r.Body.Trailer(), u.r.Trailers)
			}
		}
		if len(out) > 0 {
			if err := u.write(out); err != nil {
				return err
			}
		}
		if end {
			return nil
		}
	}
}

// set changes the state, which does not change any more once it is stopped.
func (u *upload) set(s uploadState) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.state == stopped {
		return false
	}
	if u.state != s {
		u.state = s
		select {
		case u.moved <- struct{}{}:
		default:
		}
	}
	return true
}

func (u *upload) now() uploadState {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state
}

// join waits for the goroutine. It reports whether the upstream has got the whole body: an answer that is whole may be
// here before the last write has returned.
func (u *upload) join(c *Conn) bool {
	if c.whole.Load() && u.now() == writing {
		timer := time.NewTimer(lastWrite)
		defer timer.Stop()
		for waiting := true; waiting && u.now() == writing; {
			select {
			case <-u.moved:
			case <-u.over:
				waiting = false
			case <-timer.C:
				waiting = false
			}
		}
	}
	if u.now() == sent {
		<-u.over
		return true
	}
	u.set(stopped)
	u.proceed()
	c.Abort()
	_ = u.r.Body.Close() // a read of it under way returns; its error was or will be seen by who reads it
	<-u.over
	return false
}

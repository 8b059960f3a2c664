//go:build linux

// Package wire plays both ends of a proxy in one thread: the clients that send requests to it and the origin that answers
// them. Whoever measures a proxy on one core has one core left for both, and with the standard library's servers and clients
// that core would be busy before the proxy is. So there is one epoll loop, fixed octets, and as little reading as it takes
// to be sure that every reply is whole. Its main type is Loop.
package wire

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// Protocol is what a job's clients speak with the proxy. The proxy speaks HTTP/1.1 in clear with the origin, always.
type Protocol string

// The protocols.
const (
	HTTP1 Protocol = "http1" // HTTP/1.1 in clear
	TLS   Protocol = "tls"   // HTTP/1.1 over TLS
	HTTP2 Protocol = "http2" // HTTP/2 over TLS
	HTTP3 Protocol = "http3"
)

// Job is one load.
type Job struct {
	Protocol Protocol
	Address  string // host:port of the proxy, an IPv4 address
	Method   string // GET where empty
	Path     string
	Header   [][2]string // more fields, names in lower case
	Body     []byte      // not over HTTP/2 and 3

	Length int    // what each reply's body must measure in octets; -1: any
	Marker string // what each reply's body must contain within its first 64 KiB; empty: anything
	Events bool   // Path is a stream of events; each event counts, and the next one begins when it has arrived

	Conns   int // connections
	Streams int // requests at once on each; only HTTP/2 and 3 have more than one

	Warm   time.Duration // before anything counts
	Window time.Duration // what counts
	Least  int           // replies that the window waits for, for ten times its length
	Rate   float64       // requests a second, begun on time whether or not the last are answered; 0: each as soon as it can be
	Limit  int           // ends after so many replies, whatever the time; 0: no limit

	Mark func() // called at the window's begin and end; may be nil
}

// Result is what a window saw.
type Result struct {
	Done    int           // replies, or events
	Elapsed time.Duration // the window's true length
	// Of a reply since its request was sent, or with Rate since it was due. Zero where nothing was done.
	P50, P99   time.Duration
	Reconnects int // connections that the proxy closed between two requests
}

// Loop is the loop with its origin. It is used by one goroutine at a time.
type Loop struct {
	poll     int
	listener int
	port     int
	handlers []handler // by file descriptor
	events   []syscall.EpollEvent
	streams  []*served // event streams, by the number in their path
	replies  replies
	run      *run // the job under way
	closed   []int
}

// handler is one end of a connection.
type handler interface {
	ready(events uint32) error
	close()
}

// starter begins one request; due is when it should have been, in the clock of the run.
type starter interface{ start(due int64) error }

// run is a job under way.
type run struct {
	Job
	began       time.Time
	idle        []starter
	outstanding int
	taken       []int64 // latencies in the window
	counting    bool
	ending      bool
	total       int
	reconnects  int
}

func (r *run) now() int64 { return int64(time.Since(r.began)) }

// stop is how long what is under way at a window's end may take to end.
const stop = 20 * time.Second

// New opens the origin on a port of the loopback interface.
func New() (*Loop, error) {
	poll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open epoll: %w", err)
	}
	l := &Loop{poll: poll, listener: -1, events: make([]syscall.EpollEvent, 256), replies: newReplies()}
	if err := l.listen(); err != nil {
		l.Close()
		return nil, fmt.Errorf("open the origin: %w", err)
	}
	return l, nil
}

func (l *Loop) listen() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	l.listener = fd
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := syscall.Listen(fd, 4096); err != nil {
		return err
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return err
	}
	in4, ok := name.(*syscall.SockaddrInet4)
	if !ok {
		return fmt.Errorf("the origin's address is %T", name)
	}
	l.port = in4.Port
	return l.add(fd, acceptor{l})
}

// Origin is the origin's address, host:port.
func (l *Loop) Origin() string { return fmt.Sprintf("127.0.0.1:%d", l.port) }

// Close closes every connection and the origin.
func (l *Loop) Close() {
	for _, h := range l.handlers {
		if h != nil {
			h.close()
		}
	}
	if l.listener >= 0 {
		_ = syscall.Close(l.listener) // there is nothing to lose
	}
	_ = syscall.Close(l.poll)
}

func (l *Loop) add(fd int, h handler) error {
	for fd >= len(l.handlers) {
		l.handlers = append(l.handlers, nil)
	}
	l.handlers[fd] = h
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: int32(fd)}
	if err := syscall.EpollCtl(l.poll, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("watch a connection: %w", err)
	}
	return nil
}

// writable says whether to wait for room to write besides.
func (l *Loop) writable(fd int, on bool) error {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: int32(fd)}
	if on {
		event.Events |= syscall.EPOLLOUT
	}
	if err := syscall.EpollCtl(l.poll, syscall.EPOLL_CTL_MOD, fd, &event); err != nil {
		return fmt.Errorf("watch a connection for room: %w", err)
	}
	return nil
}

// drop forgets a connection. Its number is given back only after the round of events, which may still name it.
func (l *Loop) drop(fd int) {
	if l.handlers[fd] == nil {
		return
	}
	l.handlers[fd] = nil
	l.closed = append(l.closed, fd)
	_ = syscall.EpollCtl(l.poll, syscall.EPOLL_CTL_DEL, fd, nil) // closing does it too
	_ = syscall.Shutdown(fd, syscall.SHUT_RDWR)                  // the other end may have gone
}

// pump waits for events for at most so many milliseconds and handles them.
func (l *Loop) pump(wait int) error {
	n, err := syscall.EpollWait(l.poll, l.events, wait)
	if err != nil {
		if errors.Is(err, syscall.EINTR) {
			return nil
		}
		return fmt.Errorf("wait for connections: %w", err)
	}
	for _, e := range l.events[:n] {
		if h := l.handlers[e.Fd]; h != nil {
			if err := h.ready(e.Events); err != nil {
				return err
			}
		}
	}
	for _, fd := range l.closed {
		_ = syscall.Close(fd) // there is nothing to lose
	}
	l.closed = l.closed[:0]
	return nil
}

// Run plays a job. A reply that is not what the job says, a connection that breaks, or requests that are not answered soon
// after the window are an error, and then there is no result.
func (l *Loop) Run(job Job) (Result, error) {
	if job.Method == "" {
		job.Method = "GET"
	}
	r := &run{Job: job, began: time.Now(), taken: make([]int64, 0, 1<<16)}
	l.run = r
	defer func() { l.run = nil }()
	var clients []handler
	defer func() {
		for _, c := range clients {
			c.close()
		}
		_ = l.pump(0) // gives their numbers back; the next job begins with what it reports
	}()
	if job.Protocol == HTTP3 {
		return l.runHTTP3(r)
	}
	for n := range job.Conns {
		c, idle, err := l.client(n)
		if err != nil {
			return Result{}, err
		}
		clients = append(clients, c)
		r.idle = append(r.idle, idle...)
	}
	return l.play(r)
}

// play sends and reads until the job is over.
func (l *Loop) play(r *run) (Result, error) {
	r.began = time.Now()
	var began, ended int64
	interval, due := int64(0), int64(0)
	if r.Rate > 0 {
		interval = int64(float64(time.Second) / r.Rate)
	}
	warm := int64(r.Warm)
	for {
		now := r.now()
		switch {
		case !r.counting && !r.ending && now >= warm:
			l.mark()
			r.counting, began = true, r.now()
		case r.counting && !r.ending && r.over(now-began, len(r.taken)):
			ended = r.now()
			l.mark()
			r.counting, r.ending = false, true
		case r.ending && r.outstanding == 0:
			return r.result(time.Duration(ended - began)), nil
		case r.ending && now > ended+int64(stop):
			return Result{}, fmt.Errorf("%d requests were not answered within %s of the window's end", r.outstanding, stop)
		}
		wait := 5
		if !r.ending {
			var err error
			if wait, due, err = r.begin(now, due, interval); err != nil {
				return Result{}, err
			}
		}
		if err := l.pump(wait); err != nil {
			return Result{}, err
		}
	}
}

// over reports whether a window has been long enough, with so many replies in it.
func (r *run) over(length int64, replies int) bool {
	enough := replies >= r.Least || length >= 10*int64(r.Window)
	return length >= int64(r.Window) && enough || r.Limit > 0 && replies >= r.Limit
}

// begin starts what is due and says how many milliseconds there are to wait, and when the next is due.
func (r *run) begin(now, due, interval int64) (wait int, next int64, err error) {
	for len(r.idle) > 0 {
		at := now
		if interval > 0 {
			if due > now {
				// The clock of epoll is too coarse for rates of thousands: the last millisecond is spent looking.
				return int(min((due-now)/int64(time.Millisecond), 5)), due, nil
			}
			at = due
			due += interval
		}
		s := r.idle[len(r.idle)-1]
		r.idle = r.idle[:len(r.idle)-1]
		r.outstanding++
		if err := s.start(at); err != nil {
			return 0, 0, err
		}
	}
	return 5, due, nil
}

// finished counts a reply that has arrived whole, and lets its slot be used again.
func (r *run) finished(s starter, due int64) error {
	now := r.now()
	r.outstanding--
	r.total++
	if r.counting {
		r.taken = append(r.taken, now-due)
	}
	if r.Rate == 0 && !r.ending && (r.Limit == 0 || r.total+r.outstanding < r.Limit) {
		r.outstanding++
		return s.start(now)
	}
	r.idle = append(r.idle, s)
	return nil
}

func (r *run) result(elapsed time.Duration) Result {
	slices.Sort(r.taken)
	at := func(share float64) time.Duration {
		if len(r.taken) == 0 {
			return 0
		}
		return time.Duration(r.taken[min(int(share*float64(len(r.taken))), len(r.taken)-1)])
	}
	return Result{Done: len(r.taken), Elapsed: elapsed, P50: at(0.50), P99: at(0.99), Reconnects: r.reconnects}
}

func (l *Loop) mark() {
	if l.run.Mark != nil {
		l.run.Mark()
	}
}

// client opens one connection to the proxy: one slot over HTTP/1.1, Streams of them over HTTP/2.
func (l *Loop) client(n int) (handler, []starter, error) {
	job := l.run.Job
	var config *tls.Config
	if job.Protocol != HTTP1 {
		config = &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12} //nolint:gosec // its own certificate
		if job.Protocol == HTTP2 {
			config.NextProtos = []string{"h2"}
		}
	}
	s, err := dial(job.Address, config)
	if err != nil {
		return nil, nil, err
	}
	if job.Protocol == HTTP2 {
		c, slots, err := newClient2(l, s)
		if err != nil {
			s.shut()
			return nil, nil, err
		}
		return c, slots, l.add(s.fd, c)
	}
	c := newClient1(l, s, n)
	return c, []starter{c}, l.add(s.fd, c)
}

// Package http1 speaks HTTP/1.1 with clients, strictly by RFC 9110 and RFC 9112: its main type is Server. README.md says
// what it refuses and why.
//
// A connection is served by one goroutine, which is also the handler's. A head is read in place, in one buffer, and becomes
// one string that all fields are parts of; a reply's head leaves with as much of the body as is there, in one write.
package http1

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-gateway/postern/gateway/caller"
)

// Server has a Service answer what comes in over connections. Its methods may be called from several goroutines.
type Server struct {
	caller.Service
	reading sync.Pool // *readBuffer
	writing sync.Pool // *writeBuffer
	date    atomic.Pointer[date]
}

const (
	readSize  = 4 << 10  // read from a connection at once
	writeSize = 16 << 10 // gathered before it is written: one TLS record
)

type (
	readBuffer  [readSize]byte
	writeBuffer [writeSize]byte
)

// NewServer returns a Server for s.
func NewServer(s caller.Service) *Server {
	return &Server{
		Service: s,
		reading: sync.Pool{New: func() any { return new(readBuffer) }},
		writing: sync.Pool{New: func() any { return new(writeBuffer) }},
	}
}

// date is a second and how a date field says it.
type date struct {
	second int64
	text   string
}

// now is the value of a date field (RFC 9110 section 6.6.1). It is put into words once a second.
func (s *Server) now() string {
	t := time.Now()
	d := s.date.Load()
	if d == nil || d.second != t.Unix() {
		d = &date{t.Unix(), t.UTC().Format(http.TimeFormat)}
		s.date.Store(d)
	}
	return d.text
}

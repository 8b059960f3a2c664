//go:build unix

package client

import (
	"errors"
	"syscall"
)

// peeker looks at an idle connection without waiting and without taking anything from it.
type peeker struct {
	raw   syscall.RawConn
	look  func(fd uintptr) bool
	quiet bool // what look saw
}

func (p *peeker) open(s syscall.Conn) {
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	p.raw = raw
	p.look = func(fd uintptr) bool {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		p.quiet = errors.Is(err, syscall.EAGAIN)
		return true // in any case: there is no waiting
	}
}

// Fresh reports whether an idle connection is open and nothing came over it since its last exchange: neither its end nor
// octets that would be taken for the next answer. A connection that can not be looked at is not.
func (c *Conn) Fresh() bool {
	c.quiet = false
	return c.raw != nil && !c.dead.Load() && c.raw.Read(c.look) == nil && c.quiet
}

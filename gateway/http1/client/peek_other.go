//go:build !unix

package client

import "syscall"

// peeker can not look at connections here.
type peeker struct{}

func (*peeker) open(syscall.Conn) {}

// Fresh reports false: without a look at it a connection carries one exchange only.
func (c *Conn) Fresh() bool { return false }

// ask sends r, on a connection that carried nothing before.
func (c *Conn) ask(r *Request) *Error {
	if c.used {
		return stale()
	}
	return c.send(r)
}

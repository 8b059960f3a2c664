//go:build !unix

package listener

import (
	"errors"
	"net"
)

// socketBuffers does not know.
func socketBuffers(*net.UDPConn) (read, write int, err error) { return 0, 0, errors.ErrUnsupported }

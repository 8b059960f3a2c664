//go:build unix

package listener

import (
	"net"
	"syscall"
)

// socketBuffers returns how large the system made the buffers. Linux reports twice what it grants.
func socketBuffers(udp *net.UDPConn) (read, write int, err error) {
	raw, err := udp.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var err1, err2 error
	err = raw.Control(func(fd uintptr) {
		read, err1 = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF)
		write, err2 = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
	})
	for _, e := range []error{err1, err2} {
		if err == nil {
			err = e
		}
	}
	return read, write, err
}

//go:build linux

package wire

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// errAgain says that a socket has nothing more for now. TLS takes it for what it is, temporary, and goes on later.
type errAgain struct{}

func (errAgain) Error() string   { return "nothing to read" }
func (errAgain) Timeout() bool   { return true }
func (errAgain) Temporary() bool { return true }

// socket is a client's end of a connection. Each event of the loop is one read into its buffer, which TLS then reads from. It
// blocks until it is handed to the loop.
type socket struct {
	fd       int
	in       []byte
	r, w     int
	blocking bool
	tls      *tls.Conn // nil in clear
}

// patience bounds what a blocking socket waits for.
const patience = 10 * time.Second

// dial opens a connection, with TLS where there is a configuration, and leaves it non-blocking.
func dial(address string, config *tls.Config) (*socket, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial the proxy: %w", err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("dial the proxy: %w", err)
	}
	s := &socket{fd: fd, in: make([]byte, 64<<10), blocking: true}
	limit := syscall.NsecToTimeval(int64(patience))
	for _, set := range []func() error{
		func() error {
			return syscall.Connect(fd, &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
		},
		func() error { return syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1) },
		func() error { return syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit) },
		func() error { return syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit) },
		func() error { return s.handshake(config) },
		func() error { return syscall.SetNonblock(fd, true) },
	} {
		if err := set(); err != nil {
			s.shut()
			return nil, fmt.Errorf("dial the proxy: %w", err)
		}
	}
	s.blocking = false
	return s, nil
}

func (s *socket) handshake(config *tls.Config) error {
	if config == nil {
		return nil
	}
	s.tls = tls.Client(s, config)
	if err := s.tls.Handshake(); err != nil { //nolint:noctx // the socket has its own deadline
		return err
	}
	if got := s.tls.ConnectionState().NegotiatedProtocol; got != config.NextProtos[0] && config.NextProtos[0] == "h2" {
		return fmt.Errorf("the proxy speaks %q instead of h2", got)
	}
	return nil
}

func (s *socket) shut() { _ = syscall.Close(s.fd) } // there is nothing to lose

// fill reads once. It returns io.EOF where the other end has closed.
func (s *socket) fill() error {
	if s.r < s.w {
		return nil
	}
	for {
		n, err := syscall.Read(s.fd, s.in)
		switch {
		case err == syscall.EINTR: //nolint:errorlint // a number
			continue
		case err == syscall.EAGAIN && !s.blocking: //nolint:errorlint // a number
			return errAgain{}
		case err != nil:
			return fmt.Errorf("read from the proxy: %w", err)
		case n == 0:
			return io.EOF
		}
		s.r, s.w = 0, n
		return nil
	}
}

// each hands on what has arrived, one read of the kernel's.
func (s *socket) each(consume func([]byte) error, plain []byte) error {
	if err := s.fill(); err != nil {
		if _, again := err.(errAgain); again { //nolint:errorlint // made here
			return nil
		}
		return err
	}
	if s.tls == nil {
		p := s.in[s.r:s.w]
		s.r = s.w
		return consume(p)
	}
	for {
		n, err := s.tls.Read(plain)
		if n > 0 {
			if err := consume(plain[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			if again, ok := err.(net.Error); ok && again.Timeout() { //nolint:errorlint // TLS returns it as it is
				return nil
			}
			return err
		}
	}
}

// send writes all of p, over TLS where there is any.
func (s *socket) send(p []byte) error {
	var err error
	if s.tls != nil {
		_, err = s.tls.Write(p)
	} else {
		_, err = s.Write(p)
	}
	if err != nil {
		return fmt.Errorf("write to the proxy: %w", err)
	}
	return nil
}

// Read is TLS's way to what fill has read.
func (s *socket) Read(p []byte) (int, error) {
	if s.r == s.w {
		if !s.blocking {
			return 0, errAgain{}
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.in[s.r:s.w])
	s.r += n
	return n, nil
}

// Write writes all of p. Requests are small: a proxy that does not take one keeps the loop waiting.
func (s *socket) Write(p []byte) (int, error) {
	done := 0
	for late := time.Now().Add(patience); done < len(p); {
		n, err := syscall.Write(s.fd, p[done:])
		switch {
		case err == syscall.EINTR, err == syscall.EAGAIN: //nolint:errorlint // a number
			if time.Now().After(late) {
				return done, err
			}
		case err != nil:
			return done, err
		default:
			done += n
		}
	}
	return done, nil
}

// The rest of a net.Conn is not used: the socket has its own bounds.

// Close does nothing; whoever dialled closes.
func (*socket) Close() error { return nil }

// LocalAddr is not known.
func (*socket) LocalAddr() net.Addr { return &net.TCPAddr{} }

// RemoteAddr is not known.
func (*socket) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// SetDeadline does nothing.
func (*socket) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (*socket) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (*socket) SetWriteDeadline(time.Time) error { return nil }

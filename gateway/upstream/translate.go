package upstream

import (
	"errors"
	"io"
)

// tunnel is the stream after an upgrade. Its Close ends the attempt.
type tunnel struct {
	io.ReadWriteCloser
	a *attempt
}

// CloseWrite ends the sending side alone.
func (t *tunnel) CloseWrite() error {
	if half, ok := t.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close closes the connection.
func (t *tunnel) Close() error {
	err := t.ReadWriteCloser.Close()
	t.a.finish(nil, false)
	return err
}

// ill reports whether a status speaks of the endpoint's health rather than of the request.
func ill(status int) bool { return status == 502 || status == 503 || status == 504 }

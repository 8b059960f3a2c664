package exchange

import (
	"errors"
	"io"
)

// Errors a body or a reply gives. They say whose fault it was, so that a client's broken body never counts against
// an upstream.
var (
	ErrBodyTooLarge = errors.New("body larger than the limit")
	ErrClientBody   = errors.New("client sent a broken body") // a 400 when nothing was replied yet
	ErrClientGone   = errors.New("client has gone")
	ErrBodyTimeout  = errors.New("client sent no body in time") // a 408
	ErrNoUpgrade    = errors.New("protocol upgrade not possible here")
)

// Reply is the way back to the client. A listener's adapter implements it for its protocol. Calls come from one
// goroutine at a time, in the order Interim*, Head, Write/Flush*, End; or Interim*, Upgrade. Every call may block on
// a slow client for as long as the listener's write timeout.
type Reply interface {
	// Interim sends a 1xx response (RFC 9110 section 15.2), 101 excepted.
	Interim(status int, h Header) error
	// Head sets status and headers. They leave at the first Flush, or with the body when it ends. length is the
	// body's, or -1 when it is not known. Hop-by-hop fields are the adapter's to write.
	Head(status int, h Header, length int64) error
	// Write sends body octets; they may be buffered until Flush or End.
	Write(p []byte) (int, error)
	// Flush sends what is buffered.
	Flush() error
	// End completes the reply, with a trailer section if the protocol and the client take one.
	End(trailer Header) error
	// Upgrade answers 101 (HTTP/1.1) or 200 (extended CONNECT, RFC 8441) and hands over the raw stream; the caller
	// closes it. ErrNoUpgrade when the protocol can not.
	Upgrade(h Header) (io.ReadWriteCloser, error)
	// Abort breaks the reply off so that the client can tell it is not whole: the connection is closed (HTTP/1.1) or
	// the stream reset.
	Abort()
}

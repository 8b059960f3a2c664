// Package caller is the client at the other end of a connection, and what the servers of all protocols do alike for it: they
// begin exchanges, have them answered and refuse what they can not take. Its main type is Peer.
package caller

import (
	"net/netip"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Peer is the connection an exchange hangs on, as far as exchanges know it.
type Peer struct {
	Remote, Local netip.AddrPort
	TLS           *exchange.TLS // nil in cleartext
	Connection    Connection
}

// Connection is asked while an exchange is open. Calls come from several goroutines.
type Connection interface {
	Terms() *Terms // of the moment
	Begin() bool   // counts an exchange in, which Done ends; false when the connection is gone already
	Done()
	Last() bool // no further exchange may begin: HTTP/1.1 and 2 say so with the next reply
	Reset()     // closes the connection at once, which is an error for the client
}

// Terms are what a listener grants its clients.
type Terms struct {
	Listener string
	AltSvc   string // advertised on HTTP/1.1 and 2; empty: nothing
	MaxBody  int64  // octets of a request's body
	Limits
}

// Limits bound what a client can make a server hold and how long it can make it wait. All of them are above zero.
type Limits struct {
	Head   int64         // octets of a head, from the request line to the empty line
	Fields int           // fields in a head, and in a trailer section
	Header time.Duration // from the first octet of a head to its end
	Body   time.Duration // for one read of a body
	Idle   time.Duration // between requests
	Write  time.Duration // for one write of at most 64 KiB
}

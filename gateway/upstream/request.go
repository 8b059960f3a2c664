package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/overload"
)

// Request is one request to an upstream. It may be sent several times, one attempt after the other, but never by the
// upstream itself: RoundTrip is one attempt, and Again says whether and when another may be made.
type Request struct {
	Method  string
	Path    string // escaped, begins with "/"; goes below the endpoint's base path
	Query   string // raw, without "?"
	Host    string // Host or :authority; empty: the endpoint's
	Header  exchange.Header
	Body    exchange.Body // nil: none
	Length  int64         // octets in Body, or -1
	Upgrade string        // protocol to switch to, over HTTP/1.1 on a connection of its own; empty: none
	Key     string        // what consistent_hash hashes, see Upstream.Key

	// Deadline is when whoever asked gives up, as far as that is known; zero: it is not. What breaks afterwards is nobody's
	// fault: servers of gRPC reset a stream whose time is over.
	Deadline time.Time
	// Interim is called for every 1xx response except 100 and 101, during RoundTrip and never after it. An error ends
	// the attempt. Nil ignores them.
	Interim func(status int, h exchange.Header) error
	// Refusals says that an answer of 429, 502, 503, 504 or 529 means that nothing was done, so that the request may
	// be made again whatever its method: model providers do not serve what they refuse.
	Refusals bool
	// Priority says whether others go first when the upstream has no room.
	Priority overload.Priority
	// Elsewhere says that the request can go to another upstream: it is refused at once where it would have to wait.
	Elsewhere bool

	turn     overload.Turn
	arriving arriving
	attempts int
	tried    []*endpoint
	first    [2]*endpoint // spares tried an allocation
	lost     bool         // a part of Body was read by an attempt
}

// Response is an upstream's answer.
type Response struct {
	Status   int
	Protocol exchange.Protocol
	Header   exchange.Header // without hop-by-hop fields
	Body     exchange.Body   // never nil; must be closed
	Length   int64           // octets in Body (with HEAD: announced), or -1
	Endpoint string          // the endpoint's URL
	// Upgrade is the raw stream after a 101, closed by the caller instead of Body; nil otherwise.
	Upgrade io.ReadWriteCloser
}

// Sent says how far an attempt that failed got.
type Sent uint8

// How far an attempt got.
const (
	NotSent   Sent = iota // the upstream has seen nothing of the request, or said that it did nothing with it
	MaybeSent             // it may have seen all of it
	Begun                 // its response had begun
)

// String returns the word used in logs.
func (s Sent) String() string {
	switch s {
	case NotSent:
		return "not sent"
	case MaybeSent:
		return "maybe sent"
	}
	return "response begun"
}

// Kind says why an attempt failed.
type Kind string

// The kinds of failure. Connect, Reset, Timeout and Invalid are the endpoint's fault and count against it.
const (
	Connect    Kind = "connect"     // no connection: refused, unreachable, unknown host, handshake failed, too slow
	Reset      Kind = "reset"       // the connection or stream broke
	Timeout    Kind = "timeout"     // first_byte, idle or total was over, or the exchange's deadline
	Invalid    Kind = "invalid"     // the answer is no HTTP
	Busy       Kind = "busy"        // the endpoint's connections are all in use, or it refused the stream
	NoEndpoint Kind = "no_endpoint" // every endpoint's health check fails
	Upgrading  Kind = "upgrade"     // the upstream's protocol has no upgrade
	Client     Kind = "client"      // the client's body broke: Err says how
	Expired    Kind = "expired"     // the caller's deadline was over when it broke
	Canceled   Kind = "canceled"    // the caller's context ended
	Closed     Kind = "closed"      // the upstream was closed
	Unsendable Kind = "unsendable"  // a field or the target of the request can not be sent
	Overloaded Kind = "overloaded"  // too many requests wait for its answer: this one was not tried
)

// Error is why an attempt failed. It is for logs; nothing of it is for callers of the gateway except by Kind.
type Error struct {
	Upstream string
	Endpoint string // empty when none was chosen
	Kind     Kind
	Sent     Sent
	Err      error
}

// Error describes the failure.
func (e *Error) Error() string {
	return fmt.Sprintf("upstream %s %s: %s, %s: %v", e.Upstream, e.Endpoint, e.Kind, e.Sent, e.Err)
}

// Unwrap returns the cause; for the kind Client that is one of exchange's errors.
func (e *Error) Unwrap() error { return e.Err }

// fault reports whether the failure counts against the endpoint.
func (k Kind) fault() bool {
	switch k {
	case Connect, Reset, Timeout, Invalid:
		return true
	}
	return false
}

// Causes with which a watch ends an attempt.
var (
	errFirstByte = errors.New("no response within first_byte")
	errIdle      = errors.New("nothing moved within idle")
	errTotal     = errors.New("attempt not over within total")
	errClosed    = errors.New("upstream is closed")
	errDetached  = errors.New("attempt is over")
)

// isTimeout reports whether cause is one of the timeouts above or a deadline.
func isTimeout(cause error) bool {
	return errors.Is(cause, errFirstByte) || errors.Is(cause, errIdle) || errors.Is(cause, errTotal) || errors.Is(cause, context.DeadlineExceeded)
}

// idempotent says which methods may be repeated when it is not known whether the first was carried out (RFC 9110
// section 9.2.2).
func idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// replayable reports whether the body can be sent (again) from its beginning.
func (r *Request) replayable() bool {
	switch r.Body.(type) {
	case nil, *exchange.Bytes:
		return true
	}
	return r.Body == exchange.NoBody || !r.lost
}

// rewind makes a replayable body begin again.
func rewind(b exchange.Body) {
	if b, ok := b.(*exchange.Bytes); ok {
		_, _ = b.Seek(0, io.SeekStart) // to an offset within its range it can not fail
	}
}

// EndpointStatus is one endpoint as operators see it.
type EndpointStatus struct {
	URL         string    `json:"url"`
	Usable      bool      `json:"usable"`           // may be picked
	Healthy     bool      `json:"healthy"`          // by active checks; true without them
	Ejected     time.Time `json:"ejected,omitzero"` // until when it is ejected for failed exchanges; zero when it is not
	Failures    int       `json:"failures"`         // failed exchanges in a row
	Reason      string    `json:"reason,omitempty"` // of the last failure; empty when there was none
	InFlight    int       `json:"in_flight"`        // exchanges
	Connections int       `json:"connections"`      // open
	Idle        int       `json:"idle"`             // of those, unused
	Requests    uint64    `json:"requests"`         // attempts made
	Failed      uint64    `json:"failed"`           // attempts that failed
}

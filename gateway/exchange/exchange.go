// Package exchange is the vocabulary of one request on its way through the gateway: its main type is Exchange.
//
// It knows no protocol and no library: listeners translate what came in into an Exchange, upstreams translate it
// into what goes out, and everything between them speaks only the words defined here.
package exchange

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"time"
)

// Exchange is one request and its response on their way through the gateway. It belongs to one goroutine at a time.
type Exchange struct {
	ID       string    // minted by the gateway (node-boot-sequence), never taken from a client
	Start    time.Time // when the request's head was complete
	Listener string    // the listener's name
	Route    string    // the route's name; empty until one matched

	Request  Request
	Response Response
	Reply    Reply // the way back to the client; set by the listener, never nil

	Identity Identity // zero until an authenticate stage accepted the caller
	Call     Call     // the model call; zero on routes without models
	Usage    Usage    // what the upstream says the call consumed, or an estimate; grows while a stream runs
	Hold     string   // the ledger's hold that pays for this call; empty without one
	Receipt  *Receipt // set when the hold was settled
	Upstream string   // the upstream the last attempt went to
	Attempts int      // how many times an upstream was called
	Fuel     int64    // the CPU plugins have used for it so far, in units of about one instruction
	Problem  *Problem // why the gateway answered instead of an upstream
	Denied   *Problem // why the call may not be made, whatever its stages make of that; nil: it may
	Refused  string   // why it was refused although nothing was wrong with it: too much was asked of the gateway or an upstream; empty if it was not
	Answered string   // the stage that answered ("policy.tenant require chat_scope"); empty if none did

	// The id of the API key that a stage last looked up for it. What that key does not allow is refused also where the stage
	// does not name it in the identity.
	Presented string

	// Set by stages with the attribute operation under their own name ("<plugin>.<name>"), readable by later stages.
	Attributes []Field
}

// Attribute returns the last attribute that a stage set under name; ok tells absent from empty.
func (x *Exchange) Attribute(name string) (value string, ok bool) {
	for i := len(x.Attributes) - 1; i >= 0; i-- {
		if x.Attributes[i].Name == name {
			return x.Attributes[i].Value, true
		}
	}
	return "", false
}

// Owned counts the attributes that stages of a plugin set, and tells whether name is one of them. A nil Exchange has none.
func (x *Exchange) Owned(plugin string, name []byte) (n int, known bool) {
	if x == nil {
		return 0, false
	}
	for i := range x.Attributes {
		have := x.Attributes[i].Name
		if len(have) > len(plugin) && have[:len(plugin)] == plugin && have[len(plugin)] == '.' {
			n++
			known = known || have == string(name)
		}
	}
	return n, known
}

// SetAttribute replaces the attribute name, or adds it.
func (x *Exchange) SetAttribute(name, value string) {
	for i := range x.Attributes {
		if x.Attributes[i].Name == name {
			x.Attributes[i].Value = value
			return
		}
	}
	x.Attributes = append(x.Attributes, Field{Name: name, Value: value})
}

// Begin notes that the head of the reply is given to the client now.
func (x *Exchange) Begin() {
	x.Response.Started = true
	if x.Identity.Known() {
		x.Response.First = time.Since(x.Start)
	}
}

// Protocol is the HTTP version a message was carried by.
type Protocol uint8

// The protocols a listener can speak.
const (
	HTTP1 Protocol = iota + 1 // RFC 9112
	HTTP2                     // RFC 9113
	HTTP3                     // RFC 9114
)

// String returns the word used in HCL, logs and metrics.
func (p Protocol) String() string {
	switch p {
	case HTTP1:
		return "http1"
	case HTTP2:
		return "http2"
	case HTTP3:
		return "http3"
	}
	return "unknown"
}

// Request is what the client asked.
type Request struct {
	Protocol  Protocol
	Method    string // a token (RFC 9110 section 9.1), as sent
	Scheme    string // "http" or "https", by the listener, not by what the client claims
	Authority string // host[:port], lower case (Host or :authority)
	Path      string // the one canonical path: matched, authorised and forwarded; begins with "/"
	Query     string // raw, without "?"
	Header    Header // lower-case names, in order; no hop-by-hop fields, no pseudo fields, no host
	Body      Body   // never nil; reading may block
	Length    int64  // octets in Body, or -1 when it is not known beforehand
	Remote    netip.AddrPort
	Local     netip.AddrPort
	TLS       *TLS   // nil on a cleartext listener
	Upgrade   string // lower-case protocol the client wants to switch to ("websocket"), or empty
}

// TLS says how the client's connection is protected.
type TLS struct {
	Version    uint16 // tls.VersionTLS12 or later
	ServerName string
	Peer       *x509.Certificate // the verified client certificate; nil without mutual TLS
	Resumed    bool
}

// NewTLS keeps of a connection's state what policies may see. Peer is set only when the chain was verified.
func NewTLS(s *tls.ConnectionState) *TLS {
	if s == nil {
		return nil
	}
	t := &TLS{Version: s.Version, ServerName: s.ServerName, Resumed: s.DidResume}
	if len(s.VerifiedChains) > 0 && len(s.VerifiedChains[0]) > 0 {
		t.Peer = s.VerifiedChains[0][0]
	}
	return t
}

// Response is what goes back: the upstream's answer, as far as stages have changed it.
type Response struct {
	Status  int           // 0 until an upstream answered
	Header  Header        // without hop-by-hop fields
	Body    Body          // nil until an upstream answered
	Length  int64         // octets in Body, or -1 when it is not known beforehand
	Sent    int64         // body octets handed to the client so far
	Started bool          // the head has been given to Reply: the status can not change any more
	First   time.Duration // from Exchange.Start until then, for callers who are known
}

// Identity is who calls, as an authenticate stage established it.
type Identity struct {
	Account string     // who is charged
	Key     string     // the API key's id, never the key
	Name    string     // the key's name, for people
	Scopes  []string   // what the key may do
	Allows  *Allowance // what the key may be used for, set when the authenticate stages are over; nil: it is none of the gateway's own
}

// Known reports whether an authenticate stage accepted the caller.
func (i *Identity) Known() bool { return i.Account != "" }

// Call is a request to a model, as far as routing and billing need it. The provider format reads it from the body.
type Call struct {
	Format    string // the wire format the client speaks, such as "openai"
	Operation string // the format's word for what is asked, such as "chat"
	Model     string // the public model name the client sent
	Stream    bool   // the client asked for server-sent events
	Private   bool   // the client asked, in the format's own words, that the reply is not kept
	Max       Usage  // the most this call can consume
	Price     *Price // the row in force when the call was read; nil: the call is free
	Targets   []Target
	Target    int // index into Targets of the one used or about to be used
}

// Target is one upstream model that can serve a public model, in the order in which they are to be tried.
type Target struct {
	Upstream string
	Model    string // the upstream's name for the model
	Weight   int    // share of calls among equals; at least 0
	Healthy  bool   // the upstream has an endpoint that may be used
}

// Chosen returns the target in use, and false when none has been chosen.
func (c *Call) Chosen() (Target, bool) {
	if c.Target < 0 || c.Target >= len(c.Targets) {
		return Target{}, false
	}
	return c.Targets[c.Target], true
}

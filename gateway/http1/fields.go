package http1

import (
	"strconv"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Fields collects what the listener itself needs of a request's header fields, whatever the protocol, and passes on the
// rest.
type Fields struct {
	Host      string
	Hosts     int   // how many host fields there are
	Length    int64 // content-length; to be set to -1 before the first Add
	Lengths   int   // how many content-length fields there are
	Encoding  string
	Encodings int
	Expect    string
	Upgrade   string
	TE        string
	Hop       bool // there is a connection, keep-alive or proxy-connection field

	upgrade, close, keepAlive bool // options of the connection field
}

// Add takes one field. Fields that are about this connection stay here (RFC 9110 section 7.6.1); names that another
// program could take for a name of ours are dropped.
func (f *Fields) Add(h *exchange.Header, name, value string) *exchange.Problem {
	switch name {
	case "host":
		if f.Hosts++; f.Hosts > 1 {
			return Malformed("there is more than one host field")
		}
		f.Host = value
	case "content-length":
		n, ok := parseLength(value)
		if f.Lengths++; !ok || f.Lengths > 1 {
			return Malformed("content-length is malformed")
		}
		f.Length = n
	case "transfer-encoding":
		if f.Encodings++; f.Encodings > 1 || value == "" {
			return Malformed("transfer-encoding is malformed")
		}
		f.Encoding = value
	case "connection":
		return f.addConnection(value)
	case "expect":
		f.Expect = value
	case "upgrade":
		f.Upgrade = value
	case "te":
		f.TE = value
	case "keep-alive", "proxy-connection":
		f.Hop = true
	case "proxy-authorization", "http2-settings":
	default:
		if passes(name) {
			h.Add(name, value)
		}
	}
	return nil
}

// addConnection reads a connection field. It may only name fields that are removed anyway: by naming another, a client
// could take away what an earlier hop has set.
func (f *Fields) addConnection(value string) *exchange.Problem {
	f.Hop = true
	for option := range strings.SplitSeq(value, ",") {
		option = strings.Trim(option, " \t")
		is := func(name string) bool { return exchange.EqualFold(option, name) }
		switch {
		case is("close"):
			f.close = true
		case is("keep-alive"):
			f.keepAlive = true
		case is("upgrade"):
			f.upgrade = true
		case is(""), is("te"), is("trailer"), is("trailers"), is("transfer-encoding"), is("proxy-connection"), is("proxy-authorization"), is("http2-settings"):
		default:
			return Malformed("the connection field names a field that is not the connection's")
		}
	}
	return nil
}

// passes reports whether a field from outside reaches the handler. Many programs take "_" for "-", so a name with it
// could pass for another; postern- is for what the gateway itself says, but for the one
// field by which a client tells it something.
func passes(name string) bool {
	return !strings.Contains(name, "_") && (!strings.HasPrefix(name, "postern-") || name == "postern-keep")
}

// TrailerAllowed reports whether a field may be in a trailer section (RFC 9110 section 6.5.1): nothing that frames,
// routes or authenticates a message comes after it.
func TrailerAllowed(name string) bool {
	switch name {
	case "host", "content-length", "transfer-encoding", "content-encoding", "content-type", "content-range", "connection",
		"keep-alive", "proxy-connection", "upgrade", "te", "trailer", "expect", "authorization", "proxy-authorization",
		"cookie", "set-cookie", "range", "max-forwards", "cache-control":
		return false
	}
	return passes(name)
}

// parseLength reads 1*DIGIT.
func parseLength(s string) (int64, bool) {
	if len(s) == 0 || len(s) > 18 {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

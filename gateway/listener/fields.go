package listener

import (
	"strconv"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// fields collects what the listener itself needs of a request's header fields, whatever the protocol, and passes on the
// rest.
type fields struct {
	host              string
	hosts             int
	length            int64 // -1: no content-length
	lengths           int
	encoding          string
	encodings         int
	expect            string
	upgrade           string
	te                string
	connection        bool // there is a connection field
	connectionUpgrade bool
	close, keepAlive  bool
}

// add takes one field. Fields that are about this connection stay here (RFC 9110 section 7.6.1); names that another
// program could take for a name of ours are dropped.
func (f *fields) add(h *exchange.Header, name, value string) *exchange.Problem {
	switch name {
	case "host":
		if f.hosts++; f.hosts > 1 {
			return malformed("there is more than one host field")
		}
		f.host = value
	case "content-length":
		n, ok := parseLength(value)
		if f.lengths++; !ok || f.lengths > 1 {
			return malformed("content-length is malformed")
		}
		f.length = n
	case "transfer-encoding":
		if f.encodings++; f.encodings > 1 || value == "" {
			return malformed("transfer-encoding is malformed")
		}
		f.encoding = value
	case "connection":
		return f.addConnection(value)
	case "expect":
		f.expect = value
	case "upgrade":
		f.upgrade = value
	case "te":
		f.te = value
	case "keep-alive", "proxy-connection", "proxy-authorization", "http2-settings", "trailer":
	default:
		if passes(name) {
			h.Add(name, value)
		}
	}
	return nil
}

// addConnection reads a connection field. It may only name fields that are removed anyway: by naming another, a client
// could take away what an earlier hop has set.
func (f *fields) addConnection(value string) *exchange.Problem {
	f.connection = true
	for option := range strings.SplitSeq(value, ",") {
		switch option = strings.Trim(option, " \t"); strings.ToLower(option) {
		case "close":
			f.close = true
		case "keep-alive":
			f.keepAlive = true
		case "upgrade":
			f.connectionUpgrade = true
		case "", "te", "trailer", "trailers", "transfer-encoding", "proxy-connection", "proxy-authorization", "http2-settings":
		default:
			return malformed("the connection field names a field that is not the connection's")
		}
	}
	return nil
}

// passes reports whether a field from outside reaches the handler. Many programs take "_" for "-", so a name with it
// could pass for another; postern- is for what the gateway itself says.
func passes(name string) bool {
	return !strings.Contains(name, "_") && !strings.HasPrefix(name, "postern-")
}

// trailerAllowed reports whether a field may be in a trailer section (RFC 9110 section 6.5.1): nothing that frames,
// routes or authenticates a message comes after it.
func trailerAllowed(name string) bool {
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

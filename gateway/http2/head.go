package http2

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// block is the header block that is being read (RFC 9113 section 4.3).
type block struct {
	open   bool // more is to come in CONTINUATION frames
	by     time.Time
	stream uint32
	flags  byte
	selfie bool // the priority in it makes the stream depend on itself
	pieces int
	size   int // octets of it, compressed
	head   head
}

// maxPieces is how many CONTINUATION frames a block may have. With frames of 16 KiB, more is no honest client's.
const maxPieces = 64

// head is what a header block says.
type head struct {
	method, scheme, authority, path, protocol string

	fields  exchange.Header
	size    int64  // octets of the fields and pseudo fields, as they would be in HTTP/1.1
	length  int64  // content-length; -1: none
	fault   string // why it is malformed (RFC 9113 section 8.1.1)
	large   bool   // over the limits: fields is not complete
	pseudo  int    // how many pseudo fields there are
	regular bool   // a field that is none has been seen

	maxSize   int64
	maxFields int
}

// begin starts a header block.
func (b *block) begin(f *frame, selfie bool, by time.Time, octets int64, fields int) {
	*b = block{open: true, by: by, stream: f.id, flags: f.flags, selfie: selfie}
	b.head.length, b.head.maxSize, b.head.maxFields = -1, octets, fields
}

// add takes one field as it is decompressed.
func (h *head) add(name, value string) {
	h.size += int64(len(name) + len(value) + len(": \r\n"))
	switch {
	case h.size > h.maxSize, len(h.fields) == h.maxFields && !strings.HasPrefix(name, ":"):
		h.large = true
	case h.fault != "":
	case strings.HasPrefix(name, ":"):
		h.addPseudo(name, value)
	default:
		h.regular = true
		h.addField(name, value)
	}
}

func (h *head) addPseudo(name, value string) {
	var to *string
	switch name {
	case ":method":
		to = &h.method
	case ":scheme":
		to = &h.scheme
	case ":authority":
		to = &h.authority
	case ":path":
		to = &h.path
	case ":protocol":
		to = &h.protocol
	}
	switch {
	case to == nil:
		h.fault = "a pseudo field is unknown"
	case h.regular:
		h.fault = "a pseudo field comes after a field"
	case *to != "":
		h.fault = "a pseudo field comes twice"
	case value == "" || !httpguts.ValidHeaderFieldValue(value):
		h.fault = "a pseudo field is malformed"
	default:
		*to = value
		h.pseudo++
	}
}

func (h *head) addField(name, value string) {
	if !validName(name) || !validValue(value) {
		h.fault = "a field is malformed"
		return
	}
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade": // RFC 9113 section 8.2.2
		h.fault = "a field is about a connection"
		return
	case "te":
		if !exchange.EqualFold(value, "trailers") {
			h.fault = "te may only be trailers"
			return
		}
	case "content-length":
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || h.length >= 0 {
			h.fault = "content-length is malformed"
			return
		}
		h.length = int64(n)
	case "cookie": // RFC 9113 section 8.2.3
		for i := range h.fields {
			if h.fields[i].Name == name {
				h.fields[i].Value += "; " + value
				return
			}
		}
	}
	if h.fields == nil {
		h.fields = make(exchange.Header, 0, 16)
	}
	h.fields.Add(name, value)
}

// validName reports whether name is a field name in lower case (RFC 9113 section 8.2.1).
func validName(name string) bool {
	for _, c := range []byte(name) {
		if c >= 0x80 || 'A' <= c && c <= 'Z' || !httpguts.IsTokenRune(rune(c)) {
			return false
		}
	}
	return name != ""
}

// validValue reports whether value may be a field's: no controls, no white space around it (RFC 9113 section 8.2.1).
func validValue(value string) bool {
	if value == "" {
		return true
	}
	blank := func(c byte) bool { return c == ' ' || c == '\t' }
	return !blank(value[0]) && !blank(value[len(value)-1]) && httpguts.ValidHeaderFieldValue(value)
}

// check says what a request lacks or has too much of (RFC 9113 section 8.3.1, RFC 8441 section 4); empty: nothing.
func (h *head) check() string {
	connect := h.method == "CONNECT"
	switch {
	case h.fault != "":
		return h.fault
	case h.method == "":
		return "there is no :method"
	case connect && h.protocol == "":
		if h.scheme != "" || h.path != "" || h.authority == "" {
			return "CONNECT has :authority and neither :scheme nor :path"
		}
	case h.protocol != "" && !connect:
		return ":protocol is CONNECT's"
	case h.scheme == "" || h.path == "":
		return ":scheme or :path is missing"
	case h.scheme != "http" && h.scheme != "https": // which of them it was is not the client's to say
		return ":scheme is neither http nor https"
	}
	return ""
}

// checkTrailer says what is wrong with a trailer section (RFC 9113 section 8.1).
func (h *head) checkTrailer() string {
	switch {
	case h.large:
		return "the trailer section is too large"
	case h.fault == "" && h.pseudo > 0:
		return "a trailer section has pseudo fields"
	}
	return h.fault
}

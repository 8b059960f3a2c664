package exchange

import (
	"iter"
	"strings"
)

// Field is one header field. Name is lower case; Value has no leading or trailing white space.
type Field struct {
	Name  string
	Value string
}

// Header is an ordered list of fields. Names are lower case throughout the gateway, so comparing them is comparing
// bytes; a repeated field keeps its place and order (RFC 9110 section 5.3).
type Header []Field

// Get returns the first value of name, or "".
func (h Header) Get(name string) string {
	v, _ := h.Lookup(name)
	return v
}

// Lookup returns the first value of name; ok tells absent from empty.
func (h Header) Lookup(name string) (value string, ok bool) {
	for i := range h {
		if h[i].Name == name {
			return h[i].Value, true
		}
	}
	return "", false
}

// Values yields every value of name in order.
func (h Header) Values(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range h {
			if h[i].Name == name && !yield(h[i].Value) {
				return
			}
		}
	}
}

// Count returns how many fields are called name.
func (h Header) Count(name string) int {
	n := 0
	for i := range h {
		if h[i].Name == name {
			n++
		}
	}
	return n
}

// Has reports whether a comma-separated list field holds token, compared without case (RFC 9110 section 5.6.1). Only
// ASCII letters have case and only space and tab are white space here: what another recipient would not take for the
// token must not be taken for it.
func (h Header) Has(name, token string) bool {
	for v := range h.Values(name) {
		for part := range strings.SplitSeq(v, ",") {
			if EqualFold(strings.Trim(part, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// EventStream reports whether the fields say that the body is server-sent events.
func (h Header) EventStream() bool {
	media, _, _ := strings.Cut(h.Get("content-type"), ";")
	return EqualFold(strings.Trim(media, " \t"), "text/event-stream")
}

// EqualFold compares without the case of ASCII letters, as every comparison of protocol words must be: strings.EqualFold
// also knows a Kelvin sign that equals k, and a long s that equals s.
func EqualFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// Add appends a field.
func (h *Header) Add(name, value string) { *h = append(*h, Field{Name: name, Value: value}) }

// Set replaces the first field called name in its place and removes the others, or appends one.
func (h *Header) Set(name, value string) {
	for i := range *h {
		if (*h)[i].Name == name {
			(*h)[i].Value = value
			if rest := (*h)[i+1:]; rest.Count(name) > 0 {
				rest.Del(name)
				*h = (*h)[:i+1+len(rest)]
			}
			return
		}
	}
	h.Add(name, value)
}

// Del removes every field called name.
func (h *Header) Del(name string) {
	kept := (*h)[:0]
	for _, f := range *h {
		if f.Name != name {
			kept = append(kept, f)
		}
	}
	*h = kept
}

// Clone returns a copy that shares nothing that can change.
func (h Header) Clone() Header { return append(Header(nil), h...) }

// Framing reports whether a field, by its name in lower case, says how a message is framed and routed, or is one of the
// gateway's own: plugins neither set nor remove it.
func Framing[T string | []byte](name T) bool {
	switch string(name) {
	case "connection", "content-length", "host", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer",
		"transfer-encoding", "upgrade":
		return true
	}
	const own = "postern-"
	return len(name) >= len(own) && string(name[:len(own)]) == own
}

// FieldName reports whether b can be the name of a field of ours: a token (RFC 9110 section 5.6.2) without upper-case
// letters, of at most 256 octets.
func FieldName[T string | []byte](b T) bool {
	// The octets of a token below 64 and from 64 on, a bit for each.
	const low, high uint64 = 0x03ff6cfa00000000, 0x57ffffffc0000000
	for i := range len(b) {
		c := b[i]
		switch {
		case c < 64 && low>>c&1 == 1, c >= 64 && c < 128 && high>>(c-64)&1 == 1:
		default:
			return false
		}
	}
	return len(b) > 0 && len(b) <= 256
}

// FieldValue reports whether b can be the value of a field (RFC 9110 section 5.5): no control characters but a tab, and no
// white space around it.
func FieldValue[T string | []byte](b T) bool {
	n := len(b)
	if n == 0 {
		return true
	}
	if blank(b[0]) || blank(b[n-1]) {
		return false
	}
	if n < 8 {
		return plain(b)
	}
	// Eight at a time, the last ones again where they are not a multiple. What may be wrong is looked at closely.
	for i := 0; i < n; i += 8 {
		at := min(i, n-8)
		w := uint64(b[at]) | uint64(b[at+1])<<8 | uint64(b[at+2])<<16 | uint64(b[at+3])<<24 |
			uint64(b[at+4])<<32 | uint64(b[at+5])<<40 | uint64(b[at+6])<<48 | uint64(b[at+7])<<56
		const ones, tops = 0x0101010101010101, 0x8080808080808080
		del := w ^ 0x7f*ones
		if ((w-' '*ones)&^w|(del-ones)&^del)&tops != 0 {
			return plain(b)
		}
	}
	return true
}

// plain: no control characters but a tab.
func plain[T string | []byte](b T) bool {
	for i := range len(b) {
		if c := b[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

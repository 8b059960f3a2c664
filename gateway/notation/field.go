package notation

import (
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/schema"
	"github.com/postern-gateway/postern/gateway/secret"
)

// Header reads a map of header fields.
func (r *Reader) Header(s *schema.Section, name string) exchange.Header {
	var h exchange.Header
	for _, e := range s.Table(name) {
		key := strings.ToLower(e.Key)
		if !r.FieldName(e, key) {
			continue
		}
		if value, _ := secret.Reveal(e.Value); FieldValue(value) {
			h.Add(key, value)
		} else {
			r.Errorf(e.At, "Invalid header", "The value of %s holds a control character or white space at an end.", key)
		}
	}
	return h
}

// FieldName checks a field name by RFC 9110 section 5.1; fields that belong to a connection or to framing are the
// gateway's to write.
func (r *Reader) FieldName(e schema.Entry, name string) bool {
	if name == "" || strings.Trim(name, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") != "" {
		r.Errorf(e.At, "Invalid header", "%q is no header name: letters, digits and - make one.", e.Key)
		return false
	}
	switch name {
	case "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
		"transfer-encoding", "upgrade", "host", "content-length":
		r.Errorf(e.At, "Invalid header", "%s belongs to one connection; the gateway writes it itself. Remove it.", name)
		return false
	}
	return true
}

// FieldValue reports whether a text can stand as the value of a field (RFC 9110 section 5.5).
func FieldValue(v string) bool {
	return strings.TrimSpace(v) == v && !strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 127 })
}

package proxy

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/upstream"
)

// endsHere says which request fields are not passed on: those of this hop (RFC 9110 section 7.6.1), those that say where
// a request came from, which only the gateway knows, and the gateway's own. An underscore counts as a hyphen, because
// servers that turn fields into variables do not tell them apart.
func endsHere(name string) bool {
	if strings.Contains(name, "_") {
		name = strings.ReplaceAll(name, "_", "-")
	}
	switch name {
	case "host", "connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "transfer-encoding",
		"upgrade", "http2-settings", "content-length", "forwarded", "x-real-ip", "via":
		return true
	}
	return strings.HasPrefix(name, "x-forwarded-") || strings.HasPrefix(name, "postern-")
}

// credential says which fields carry what the gateway itself authenticates callers by. Where it did, they are not the
// upstream's to know. Cookies are not among them: they belong to the upstream's own sessions.
func credential(name string) bool {
	switch name {
	case "authorization", "x-api-key", "api-key", "x-goog-api-key":
		return true
	}
	return false
}

// request makes the upstream's request of a plain exchange.
func (f *Forwarder) request(x *exchange.Exchange, u *upstream.Upstream) *upstream.Request {
	in := &x.Request
	h := make(exchange.Header, 0, len(in.Header)+8)
	via := ""
	known := x.Identity.Known()
	_, buffered := in.Body.(*exchange.Bytes)
	for _, field := range in.Header {
		switch {
		case field.Name == "via":
			via += field.Value + ", "
		case endsHere(field.Name), known && credential(field.Name), buffered && field.Name == "expect":
		default:
			h = append(h, field)
		}
	}
	var deadline time.Time
	if isGRPC(in.Header) {
		h.Set("te", "trailers") // the listener took it off as a field of its hop
		deadline = grpcDeadline(x)
	}
	from := ""
	if in.Remote.IsValid() {
		from = in.Remote.Addr().Unmap().WithZone("").String()
	}
	h.Add("via", via+version(in.Protocol)+" "+f.name)
	h.Add("forwarded", forwarded(in))
	if from != "" {
		h.Add("x-forwarded-for", from)
	}
	h.Add("x-forwarded-proto", in.Scheme)
	h.Add("x-forwarded-host", in.Authority)

	r := &upstream.Request{
		Method: in.Method, Path: in.Path, Query: in.Query, Header: h, Body: in.Body, Length: in.Length, Key: u.Key(x), Deadline: deadline,
		Interim: func(status int, h exchange.Header) error { return x.Reply.Interim(status, h) },
	}
	if in.Length == 0 {
		r.Body = nil
	}
	if in.Upgrade != "" && in.Upgrade != "h2c" {
		r.Upgrade, r.Body, r.Length = in.Upgrade, nil, 0
		if in.Method == "CONNECT" {
			r.Method = "GET" // RFC 8441: extended CONNECT is what GET with Upgrade is in HTTP/1.1
		}
		if in.Upgrade == "websocket" && r.Header.Get("sec-websocket-key") == "" {
			r.Header.Set("sec-websocket-key", websocketKey())
		}
	}
	Configured(r, u)
	return r
}

// Configured sets the fields the operator gives every request to an upstream, over whatever is there.
func Configured(r *upstream.Request, u *upstream.Upstream) {
	for _, field := range u.Config().Headers {
		name := strings.ToLower(field.Name)
		if name == "host" {
			r.Host = field.Value
			continue
		}
		r.Header.Set(name, field.Value)
	}
}

// version is the protocol version of a Via field.
func version(p exchange.Protocol) string {
	switch p {
	case exchange.HTTP2:
		return "2"
	case exchange.HTTP3:
		return "3"
	}
	return "1.1"
}

// forwarded writes a Forwarded field (RFC 7239). What a client sent under this name is not part of it: there is nobody in
// front of the gateway that it could trust.
func forwarded(r *exchange.Request) string {
	b := make([]byte, 0, 96)
	b = append(b, "for="...)
	if r.Remote.IsValid() {
		b = appendNode(b, r.Remote.Addr().Unmap())
	} else {
		b = append(b, "unknown"...)
	}
	b = append(b, ";host="...)
	b = appendQuoted(b, r.Authority)
	b = append(b, ";proto="...)
	return string(append(b, r.Scheme...))
}

// appendNode writes an address; one of IPv6 in brackets and quotes (RFC 7239 section 6).
func appendNode(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		return a.AppendTo(b)
	}
	b = append(b, `"[`...)
	b = a.WithZone("").AppendTo(b)
	return append(b, `]"`...)
}

// appendQuoted writes a token as it is and anything else as a quoted string.
func appendQuoted(b []byte, s string) []byte {
	token := s != ""
	for i := range len(s) {
		c := s[i]
		token = token && (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '.' || c == '-' || c == '_')
	}
	if token {
		return append(b, s...)
	}
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

// response makes the response's header of a plain exchange: without what ends here, the gateway's own fields, and where
// else the upstream says it can be reached, which is not for the gateway's clients.
func (f *Forwarder) response(resp *upstream.Response) exchange.Header {
	h := slices.DeleteFunc(resp.Header, func(field exchange.Field) bool {
		return field.Name == "alt-svc" || strings.HasPrefix(field.Name, "postern-")
	})
	return append(h, exchange.Field{Name: "via", Value: version(resp.Protocol) + " " + f.name})
}

// modelRequest says which of a customer's fields a model provider gets. What else is sent is about the customer, not the
// call: the gateway shares the minimum.
func modelRequest(name string, further []string) bool {
	switch name {
	case "accept", "content-type", "openai-beta", "anthropic-version", "anthropic-beta":
		return true
	}
	return slices.Contains(further, name)
}

// modelResponse says which of a provider's fields a customer gets. Others speak of the gateway's account with the provider
// (its limits, its organisation, its cookies).
func modelResponse(name string) bool {
	switch name {
	case "content-type", "content-language", "cache-control", "retry-after", "retry-after-ms", "x-should-retry":
		return true
	}
	return false
}

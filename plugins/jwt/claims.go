package main

import (
	"math"
	"strconv"
	"strings"

	postern "github.com/postern-gateway/postern/sdk/go"
)

// Bounds of what a token may make of its bearer.
const (
	maxIdentity = 256      // octets of an account or a name
	maxScopes   = 12 << 10 // octets of all scopes together
)

// claims are what a token says of its bearer, read as a stage asks for. They keep their memory.
type claims struct {
	set, inner object
	account    []byte
	name       []byte
	words      []byte
	scopes     []string
	values     [][]byte // of stage.attributes
}

// claim finds a claim by its name, or by a JSON pointer (RFC 6901) through objects.
func (c *claims) claim(path string) value {
	if !strings.HasPrefix(path, "/") {
		return c.set.get(path)
	}
	o := &c.set
	for {
		path = path[1:]
		name, _, more := strings.Cut(path, "/")
		v := o.get(unpoint(name))
		if !more {
			return v
		}
		if path = path[len(name):]; !v.isObject() || !c.inner.read(v) {
			return nil
		}
		o = &c.inner
	}
}

func unpoint(s string) string {
	if strings.IndexByte(s, '~') < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "~1", "/"), "~0", "~")
}

// check reads a token's claims and compares them with what a stage asks for; why is empty when all is well. now is in
// nanoseconds since 1970.
func (c *claims) check(st *stage, payload []byte, now int64) (why string) {
	if !c.set.read(payload) {
		return "The token's claims are malformed."
	}
	for _, name := range st.required {
		if c.claim(name) == nil {
			return "The token lacks a claim that is required."
		}
	}
	if iss := c.set.get("iss"); st.issuer != "" && !iss.is(st.issuer) {
		return "The token is of another issuer."
	}
	if why = c.audience(st); why != "" {
		return why
	}
	if why = c.times(st, float64(now)/1e9); why != "" {
		return why
	}
	return c.identity(st)
}

// audience reports whether the token is meant for this gateway (RFC 7519 section 4.1.3): one that names its audience is for
// nobody else.
func (c *claims) audience(st *stage) (why string) {
	aud := c.set.get("aud")
	if aud == nil && len(st.audience) == 0 {
		return ""
	}
	for _, want := range st.audience {
		if aud.is(want) {
			return ""
		}
		for v := range aud.each {
			if v.is(want) {
				return ""
			}
		}
	}
	return "The token is for another audience."
}

// times compares the token's times with the clock, in seconds since 1970.
func (c *claims) times(st *stage, now float64) (why string) {
	exp, hasExp, ok1 := number(c.set.get("exp"))
	nbf, hasNbf, ok2 := number(c.set.get("nbf"))
	iat, hasIat, ok3 := number(c.set.get("iat"))
	switch {
	case !ok1 || !ok2 || !ok3:
		return "The token's claims are malformed: a time is no number."
	case hasExp && now >= exp+st.leeway:
		return "The token has expired."
	case hasNbf && now+st.leeway < nbf:
		return "The token is not valid yet."
	case hasIat && now+st.leeway < iat:
		return "The token is from the future: the clocks differ."
	case st.maxAge > 0 && !hasIat:
		return "The token does not say when it was issued."
	case st.maxAge > 0 && now-iat > st.maxAge+st.leeway:
		return "The token is too old."
	}
	return ""
}

// number reads a NumericDate; ok is false when there is something else.
func number(v value) (n float64, there, ok bool) {
	if v == nil {
		return 0, false, true
	}
	if !v.isNumber() {
		return 0, true, false
	}
	n, err := strconv.ParseFloat(postern.String(v), 64)
	return n, true, err == nil && math.Abs(n) < 1e12
}

// identity reads who the token makes of its bearer.
func (c *claims) identity(st *stage) (why string) {
	var ok bool
	c.account, ok = identifier(append(c.account[:0], st.prefix...), c.claim(st.account))
	if !ok || len(c.account) == len(st.prefix) {
		return "The token does not say which account it is for."
	}
	c.name = c.name[:0]
	if v := c.claim(st.name); st.name != "" && v != nil {
		if c.name, ok = identifier(c.name, v); !ok {
			return "The token's claims are malformed: a name is no text."
		}
	}
	c.words, c.scopes = c.words[:0], c.scopes[:0]
	if v := c.claim(st.scopes); st.scopes != "" && v != nil {
		if !c.readScopes(v) {
			return "The token's claims are malformed: its scopes are neither a text nor a list of texts, or too many."
		}
	}
	for len(c.values) < len(st.attributes) {
		c.values = append(c.values, nil)
	}
	for i, a := range st.attributes {
		c.values[i] = c.values[i][:0]
		if v := c.claim(a.claim); v != nil {
			if c.values[i], ok = identifier(c.values[i], v); !ok {
				return "The token's claims are malformed: what an attribute is to be made of is no text."
			}
		}
	}
	return ""
}

func (c *claims) readScopes(v value) bool {
	if len(v) > maxScopes {
		return false
	}
	if !v.isList() {
		if !v.isText() {
			return false
		}
		c.words = v.text(c.words)
		for word := range strings.SplitSeq(postern.String(c.words), " ") {
			if word != "" {
				c.scopes = append(c.scopes, word)
			}
		}
		return len(c.scopes) <= maxScopes/8
	}
	for e := range v.each {
		if !e.isText() {
			return false
		}
		start := len(c.words)
		c.words = e.text(c.words)
		c.scopes = append(c.scopes, postern.String(c.words[start:]))
	}
	return len(c.scopes) <= maxScopes/8
}

// identifier appends a string, a whole number or a bool as text that is fit to name somebody.
func identifier(dst []byte, v value) (out []byte, ok bool) {
	start := len(dst)
	switch {
	case v.isText():
		dst = v.text(dst)
	case v == nil || v.isList() || v.isObject() || string(v) == "null":
		return dst, false
	default:
		for _, c := range v {
			if c == '.' || v.isNumber() && (c == 'e' || c == 'E') {
				return dst, false
			}
		}
		dst = append(dst, v...)
	}
	if len(dst)-start > maxIdentity {
		return dst, false
	}
	for _, c := range dst[start:] {
		if c < ' ' || c == 0x7f {
			return dst, false
		}
	}
	return dst, true
}

package main

import (
	"bytes"
	"encoding/base64"
)

// maxToken is the most octets of a token.
const maxToken = 16 << 10

// token is a JWS in compact serialization (RFC 7515 section 7.1), taken apart. It keeps its memory.
type token struct {
	signed    []byte // what the signature is over; in place
	header    []byte
	payload   []byte
	signature []byte

	head      object
	algorithm []byte
	kid       []byte
	hasKid    bool
	typ       value
}

// read takes a token apart; why is empty when it is one.
func (t *token) read(b []byte) (why string) {
	if len(b) > maxToken {
		return "The token is too long."
	}
	first, last := bytes.IndexByte(b, '.'), bytes.LastIndexByte(b, '.')
	if first < 0 || first == last || bytes.IndexByte(b[first+1:last], '.') >= 0 {
		return "The token is no JWT: it has not three parts."
	}
	t.signed = b[:last]
	var ok [3]bool
	t.header, ok[0] = decode(t.header[:0], b[:first])
	t.payload, ok[1] = decode(t.payload[:0], b[first+1:last])
	t.signature, ok[2] = decode(t.signature[:0], b[last+1:])
	if ok != [3]bool{true, true, true} {
		return "The token is malformed: a part is not base64url."
	}
	if !t.head.read(t.header) {
		return "The token's header is malformed."
	}
	// An extension that has to be understood (RFC 7515 section 4.1.11) is understood here in no case.
	if t.head.get("crit") != nil {
		return "The token's header has critical extensions."
	}
	alg, kid := t.head.get("alg"), t.head.get("kid")
	t.typ = t.head.get("typ")
	if !alg.isText() || kid != nil && !kid.isText() || t.typ != nil && !t.typ.isText() {
		return "The token's header is malformed."
	}
	t.algorithm, t.kid, t.hasKid = alg.text(t.algorithm[:0]), kid.text(t.kid[:0]), kid != nil
	return ""
}

// strict is base64url without padding, whose last octet has no stray bits.
var strict = base64.RawURLEncoding.Strict()

// decode appends what base64url stands for. What another text stands for as well is malformed: no padding, no line feeds.
func decode(dst, src []byte) (out []byte, ok bool) {
	for _, c := range src {
		if c == '\r' || c == '\n' { // which encoding/base64 passes over
			return dst, false
		}
	}
	out, err := strict.AppendDecode(dst, src)
	return out, err == nil
}

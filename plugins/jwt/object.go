package main

import (
	"unicode/utf8"

	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/go/json"
)

// maxMembers is the most members of a JSON object that is read here.
const maxMembers = 256

// object is a JSON object taken apart, in place. A name that is there twice makes it unreadable (RFC 7515 section 4).
type object struct {
	members []member
	names   []byte // those that had escapes, decoded
	scanner json.Scanner
}

// member is a name and its value.
type member struct {
	name  []byte
	value value
}

// value is the text of one valid JSON value, without white space around it. The zero value is that of a member that is not
// there.
type value []byte

// read takes a whole text apart; false: it is no object that is fit to be read.
func (o *object) read(text []byte) bool {
	o.members, o.names = o.members[:0], o.names[:0]
	if !utf8.Valid(text) {
		return false
	}
	o.scanner.Reset(text)
	if t := o.scanner.Next(); t.Kind != json.Open || o.scanner.InArray() {
		return false
	}
	for {
		t := o.scanner.Next()
		if t.Kind == json.Close {
			return o.scanner.Next().Kind == json.End
		}
		if t.Kind != json.Key || len(o.members) == maxMembers {
			return false
		}
		name := text[t.Start+1 : t.End-1]
		start := len(o.names)
		if decoded, ok := json.Unescape(o.names, name); ok {
			o.names = decoded
			name = decoded[start:len(decoded):len(decoded)]
		}
		v, ok := next(&o.scanner, text, o.scanner.Next())
		if !ok || o.get(postern.String(name)) != nil {
			return false
		}
		o.members = append(o.members, member{name, v})
	}
}

// next returns the value that begins with a token.
func next(s *json.Scanner, text []byte, t json.Token) (v value, ok bool) {
	start := t.Start
	switch t.Kind {
	case json.String, json.Literal:
		return text[start:t.End], true
	case json.Open:
		for depth := s.Depth(); s.Depth() >= depth; {
			if t = s.Next(); t.Kind == json.Bad || t.Kind == json.End {
				return nil, false
			}
		}
		return text[start:t.End], true
	}
	return nil, false
}

// get returns a member's value, nil when there is none.
func (o *object) get(name string) value {
	for i := range o.members {
		if string(o.members[i].name) == name {
			return o.members[i].value
		}
	}
	return nil
}

func (v value) isText() bool   { return len(v) > 0 && v[0] == '"' }
func (v value) isList() bool   { return len(v) > 0 && v[0] == '[' }
func (v value) isObject() bool { return len(v) > 0 && v[0] == '{' }
func (v value) isNumber() bool { return len(v) > 0 && (v[0] == '-' || v[0] >= '0' && v[0] <= '9') }

// is reports whether v is a string, and that one.
func (v value) is(s string) bool {
	if !v.isText() {
		return false
	}
	inside := v[1 : len(v)-1]
	for _, c := range inside {
		if c == '\\' {
			decoded, _ := json.Unescape(nil, inside)
			return string(decoded) == s
		}
	}
	return string(inside) == s
}

// text appends what a string says to dst.
func (v value) text(dst []byte) []byte {
	if !v.isText() {
		return dst
	}
	inside := v[1 : len(v)-1]
	if decoded, ok := json.Unescape(dst, inside); ok {
		return decoded
	}
	return append(dst, inside...)
}

// each yields the elements of an array.
func (v value) each(yield func(value) bool) {
	if !v.isList() {
		return
	}
	var s json.Scanner
	s.Reset(v)
	s.Next()
	for {
		t := s.Next()
		if t.Kind == json.Close || t.Kind == json.Bad {
			return
		}
		e, ok := next(&s, v, t)
		if !ok || !yield(e) {
			return
		}
	}
}

package main

import (
	"errors"
	"unicode/utf8"

	"github.com/postern-gateway/postern/sdk/go/json"
)

// text is one text of a request: what a string value says.
type text struct {
	start, end int // inside the quotes
	role       int8
}

// Roles known by number, so that a text's role takes no memory of its own. What they are called is the model APIs' affair.
const (
	noRole    int8 = -1
	otherRole int8 = 127
)

// maxTexts bounds what a body can make the plugin remember.
const maxTexts = 100_000

var (
	errInvalid = errors.New("the body is no JSON text")
	errTooMany = errors.New("the body has too many texts")
)

// request is the texts of a body by role. Everything that is a string value is a text, wherever it stands: what a model
// API makes of it is not guarded by knowing all of its fields, but by reading all of them. Left out are media in base64
// (data, b64_json and data: URLs) and words of the protocol (the values of model, type and role).
type request struct {
	scanner  json.Scanner
	texts    []text
	messages int
	stranger bool // a role that is not among the roles, or a second one of a message
	name     []byte
	open     [json.MaxDepth + 1]container
}

// container is an open object or array.
type container struct {
	first int  // index of its first text
	role  int8 // of an object; noRole before it is known
}

// read collects the texts of a JSON body.
func (q *request) read(body []byte, roles []string) error {
	q.texts, q.messages, q.stranger = q.texts[:0], 0, false
	s := &q.scanner
	s.Reset(body)
	if !utf8.Valid(body) {
		return errInvalid
	}
	var key []byte
	q.open[0] = container{role: noRole}
	for {
		t := s.Next()
		switch t.Kind {
		case json.Bad:
			return errInvalid
		case json.End:
			return nil
		case json.Key:
			key = body[t.Start+1 : t.End-1]
			if decoded, escaped := json.Unescape(q.name[:0], key); escaped { // "r\u006fle" is a role to whoever reads it next
				q.name, key = decoded, decoded
			}
		case json.Open:
			q.open[s.Depth()] = container{first: len(q.texts), role: noRole}
			if !s.InArray() {
				key = nil
			}
		case json.Close:
			// A role is said anywhere in its object, so it is given to the object's texts at the end, and to those within that
			// have none of their own.
			closed := &q.open[s.Depth()+1]
			if closed.role != noRole {
				for i := closed.first; i < len(q.texts); i++ {
					if q.texts[i].role == noRole {
						q.texts[i].role = closed.role
					}
				}
			}
			key = nil
		case json.String:
			inside := body[t.Start+1 : t.End-1]
			if !s.InArray() && string(key) == "role" {
				q.messages++
				in := &q.open[s.Depth()]
				q.stranger = q.stranger || in.role != noRole // two roles: which one counts is anybody's guess
				in.role = q.role(inside, roles)
				continue
			}
			if protocol(key, inside) {
				continue
			}
			if len(q.texts) == maxTexts {
				return errTooMany
			}
			q.texts = append(q.texts, text{t.Start + 1, t.End - 1, noRole})
		case json.Literal:
			if !s.InArray() {
				key = nil
			}
		}
	}
}

func (q *request) role(inside []byte, roles []string) int8 {
	for i, r := range roles {
		if r == string(inside) {
			return int8(i)
		}
	}
	q.stranger = true
	return otherRole
}

// protocol reports whether a value is a word of the model APIs, or media, and no text.
func protocol(key, inside []byte) bool {
	switch string(key) {
	case "model", "type":
		return len(inside) <= 128
	case "data", "b64_json", "file_data":
		return media(inside)
	case "url", "image_url":
		const prefix = "data:"
		return len(inside) > len(prefix) && string(inside[:len(prefix)]) == prefix && media(behind(inside, ','))
	}
	return false
}

func behind(b []byte, c byte) []byte {
	for i := range b {
		if b[i] == c {
			return b[i+1:]
		}
	}
	return nil
}

// media reports whether a string is long and of base64's letters alone, as media are.
func media(b []byte) bool {
	for _, c := range b {
		if c|0x20-'a' >= 26 && c-'0' >= 10 && c != '+' && c != '/' && c != '=' && c != '-' && c != '_' && c != '\\' {
			return false
		}
	}
	return len(b) >= 64
}

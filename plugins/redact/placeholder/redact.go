package placeholder

import (
	"bytes"
	"errors"
	"unicode/utf8"

	"github.com/postern-gateway/postern/plugins/redact/detect"
	"github.com/postern-gateway/postern/sdk/go/json"
)

// Why a text can not be redacted.
var (
	ErrInvalid = errors.New("the text is not what it says it is")
	ErrTooMuch = errors.New("the text holds too much personal data")
)

// maxEdits bounds how many placeholders are put into one text.
const maxEdits = 50_000

// maxNest bounds JSON texts inside strings of JSON texts: tool arguments that hold a document are two.
const maxNest = 4

// Redactor replaces personal data by placeholders. It belongs to one goroutine and is used again and again: what it
// gives out is valid until the next call.
type Redactor struct {
	Detector *detect.Detector
	Vault    *Vault
	Found    [detect.KindCount]int // how many finds of each kind the last call made
	JSONMode bool                  // the last call's request asked for a reply that is a JSON text
	edits    []edit
	finds    []detect.Find
	levels   [maxNest]level
	buffer   []byte
}

// edit puts a placeholder in the place of the octets [start, end). Where quoted is not 0 it gets quotes, which are escaped
// for all but the first of so many levels of strings.
type edit struct{ start, end, value, quoted int }

type level struct {
	scanner json.Scanner
	context [json.MaxDepth + 1]context // of each open container; the one for depth 0 is that of the text itself
	decoded []byte
}

// context tells what a container is, because some strings of a request are the protocol's and not the caller's.
type context uint8

const (
	free       context = iota // anything: every string is the caller's
	top                       // the request itself
	structural                // messages, their content, tool calls: role, type and ids are the protocol's
	function                  // a function's declaration or choice: so is its name
)

// under returns the context of the container that is key's value.
func (c context) under(key []byte) context {
	switch c {
	case top:
		switch string(key) {
		case "tools", "tool_choice", "functions", "function_call":
			return function
		case "messages", "input", "response_format", "text", "system":
			return structural
		}
	case structural, function:
		switch string(key) {
		case "content", "tool_calls", "custom", "image_url", "input_audio", "file", "source", "json_schema", "format":
			return structural
		case "function", "function_call":
			return function
		}
	}
	return free
}

// protocols reports whether the string under key is the protocol's.
func (c context) protocols(key []byte) bool {
	switch c {
	case top:
		return string(key) == "model"
	case function:
		if string(key) == "name" {
			return true
		}
		fallthrough
	case structural:
		switch string(key) {
		case "role", "type", "id", "call_id", "tool_call_id", "tool_use_id":
			return true
		}
	}
	return false
}

// JSON finds personal data in a JSON text: in its strings, members' names included, in the numbers of what is the caller's
// alone, and in JSON texts inside strings.
// Edits gives what to change.
func (r *Redactor) JSON(text []byte) error {
	r.begin()
	if !utf8.Valid(text) {
		return ErrInvalid
	}
	if err := r.walk(text, 0); err != nil {
		return err
	}
	return r.number()
}

// Text finds personal data in plain text.
func (r *Redactor) Text(text []byte) error {
	r.begin()
	if !utf8.Valid(text) {
		return ErrInvalid
	}
	if err := r.plain(text); err != nil {
		return err
	}
	return r.number()
}

func (r *Redactor) begin() {
	r.edits, r.Found, r.JSONMode = r.edits[:0], [detect.KindCount]int{}, false
}

func (r *Redactor) number() error {
	if !r.Vault.number() {
		return ErrTooMuch
	}
	return nil
}

// plain looks through one text. The edits have offsets in it.
func (r *Redactor) plain(text []byte) error {
	r.Vault.avoid(text)
	r.finds = r.Detector.Scan(r.finds[:0], text, 0)
	if len(r.edits)+len(r.finds) > maxEdits {
		return ErrTooMuch
	}
	for _, f := range r.finds {
		value, ok := r.Vault.add(f.Kind, text[f.Start:f.End])
		if !ok {
			return ErrTooMuch
		}
		r.Found[f.Kind]++
		r.edits = append(r.edits, edit{f.Start, f.End, value, 0})
	}
	return nil
}

// walk looks through a JSON text that is nest strings deep. The edits have offsets in it.
func (r *Redactor) walk(text []byte, nest int) error {
	l := &r.levels[nest]
	s := &l.scanner
	s.Reset(text)
	l.context[0] = free
	if nest == 0 {
		l.context[0] = top
	}
	var key []byte
	for {
		t := s.Next()
		at := l.context[s.Depth()]
		switch t.Kind {
		case json.Bad:
			return ErrInvalid
		case json.End:
			return nil
		case json.Open:
			// An array is what its name says; so are the objects in it. The text's own object is the context 0.
			outer := l.context[s.Depth()-1]
			if s.Depth() > 1 && key != nil {
				outer = outer.under(key)
			}
			l.context[s.Depth()] = outer
			key = nil
		case json.Close:
			key = nil
		case json.Key:
			key = text[t.Start+1 : t.End-1]
			if err := r.value(l, key, t.Start+1, nest); err != nil {
				return err
			}
		case json.String:
			inside := text[t.Start+1 : t.End-1]
			if at.protocols(key) && !s.InArray() && (at == top || isWord(inside)) {
				r.Vault.avoid(inside)
				if at == structural && s.Depth() <= 3 && string(key) == "type" && (string(inside) == "json_object" || string(inside) == "json_schema") {
					r.JSONMode = true
				}
			} else if err := r.value(l, inside, t.Start+1, nest); err != nil {
				return err
			}
			if !s.InArray() {
				key = nil
			}
		case json.Literal:
			if at == free && isDigit(text[t.End-1]) {
				if err := r.literal(text, t, nest); err != nil {
					return err
				}
			}
			if !s.InArray() {
				key = nil
			}
		}
	}
}

// isWord reports whether a string is what a protocol's words and identifiers are made of. Anything else under their names
// is looked through: nothing keeps a caller from writing an address where a role belongs.
func isWord(inside []byte) bool {
	for _, c := range inside {
		if !isAlnum(c) && c != '_' && c != '-' && c != '.' && c != ':' && c != '/' {
			return false
		}
	}
	return len(inside) <= 256
}

// literal looks at a number: a card or a telephone number is one whether or not it stands in quotes. Only a whole number
// can be a find, and its placeholder is put in quotes, so that the text stays JSON.
func (r *Redactor) literal(text []byte, t json.Token, nest int) error {
	r.finds = r.Detector.Scan(r.finds[:0], text[t.Start:t.End], 0)
	if len(r.finds) != 1 || r.finds[0].Start != 0 || r.finds[0].End != t.End-t.Start {
		return nil
	}
	f := r.finds[0]
	value, ok := r.Vault.add(f.Kind, text[t.Start:t.End])
	if !ok {
		return ErrTooMuch
	}
	r.Found[f.Kind]++
	r.edits = append(r.edits, edit{t.Start, t.End, value, nest + 1})
	return nil
}

// value looks through a string's inside, which begins at offset of its text.
func (r *Redactor) value(l *level, inside []byte, offset, nest int) error {
	if encoded(inside) {
		return nil
	}
	text, escaped := l.unescape(inside)
	first := len(r.edits)
	done := false
	if nest+1 < maxNest && looksNested(text) {
		found := r.Found
		switch err := r.walk(text, nest+1); {
		case err == nil:
			done = true
		case errors.Is(err, ErrInvalid): // a text that only begins like JSON
			r.edits, r.Found = r.edits[:first], found
		default:
			return err
		}
	}
	if !done {
		if err := r.plain(text); err != nil {
			return err
		}
	}
	c := cursor{inside: inside}
	for i := first; i < len(r.edits); i++ {
		e := &r.edits[i]
		if escaped {
			e.start, e.end = c.offset(e.start), c.offset(e.end)
		}
		e.start, e.end = e.start+offset, e.end+offset
	}
	return nil
}

// encoded reports whether inside is binary data written as base64: a data URL, or a long run of its alphabet. What looks
// like personal data there is chance.
func encoded(inside []byte) bool {
	if len(inside) < 64 {
		return false
	}
	body, least := inside, 256
	if string(inside[:5]) == "data:" {
		at := bytes.Index(inside[:min(len(inside), 160)], []byte(";base64,"))
		if at < 0 {
			return false
		}
		body, least = inside[at+len(";base64,"):], 0
		for _, c := range inside[5:at] { // a media type and its parameters, no text
			if c <= ' ' || c == '@' || c >= 0x7f {
				return false
			}
		}
	}
	for i := 0; i < len(body); i++ {
		c := body[i]
		if !isAlnum(c) && c != '+' && c != '/' && c != '=' && c != '-' && c != '_' && (c != '\\' || i+1 == len(body) || body[i+1] != '/') {
			return false
		}
	}
	return len(body) >= least
}

// Len is how many placeholders the last text needs.
func (r *Redactor) Len() int { return len(r.edits) }

// Edits calls put for every octet range of the last text and what takes its place, in order.
func (r *Redactor) Edits(put func(start, end int, placeholder []byte)) {
	for _, e := range r.edits {
		r.buffer = r.put(r.buffer[:0], e)
		put(e.start, e.end, r.buffer)
	}
}

// put appends what an edit puts in.
func (r *Redactor) put(dst []byte, e edit) []byte {
	if e.quoted == 0 {
		return r.Vault.appendPlaceholder(dst, e.value)
	}
	dst = appendEscaped(dst, []byte(`"`), e.quoted-1)
	dst = r.Vault.appendPlaceholder(dst, e.value)
	return appendEscaped(dst, []byte(`"`), e.quoted-1)
}

// Append appends the redacted form of text, the last one looked at.
func (r *Redactor) Append(dst, text []byte) []byte {
	at := 0
	for _, e := range r.edits {
		dst = append(dst, text[at:e.start]...)
		dst = r.put(dst, e)
		at = e.end
	}
	return append(dst, text[at:]...)
}

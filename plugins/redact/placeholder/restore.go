package placeholder

import (
	"unicode/utf8"

	"github.com/postern-gateway/postern/sdk/go/json"
)

// Restorer puts the values back in the place of their placeholders in a reply. Like a Redactor it is used again and
// again by one goroutine.
type Restorer struct {
	Vault  *Vault
	edits  []restoration
	levels [maxNest]level
	work   []byte
	out    []byte
	nodes  []node    // of the event at hand
	data   []byte    // of the event at hand
	sent   []pending // what is held back
	queue  []pending // what the event at hand holds back
	blob   []byte    // what sent and queue point into
}

// restoration puts a value, escaped for so many levels of strings, in the place of the octets [start, end).
type restoration struct{ start, end, value, levels int }

// Whole restores a complete body and reports whether anything changed. Without a change the result is text itself. What
// is not JSON is restored as plain text.
func (r *Restorer) Whole(text []byte) (restored []byte, changed bool) {
	r.edits = r.edits[:0]
	if !utf8.Valid(text) || r.walk(text, 0) != nil {
		r.edits = r.edits[:0]
		r.plain(text, 0)
	}
	if len(r.edits) == 0 {
		return text, false
	}
	r.out = r.apply(r.out[:0], text, 0, len(text))
	return r.out, true
}

// apply appends text[from:to] with the edits done, whose offsets are in text.
func (r *Restorer) apply(dst, text []byte, from, to int) []byte {
	for _, e := range r.edits {
		dst = append(dst, text[from:e.start]...)
		dst = appendEscaped(dst, r.Vault.value(e.value), e.levels)
		from = e.end
	}
	return append(dst, text[from:to]...)
}

// plain notes the placeholders in one text that is so many strings deep.
func (r *Restorer) plain(text []byte, levels int) {
	for i := 0; i < len(text); i++ {
		if text[i] != '[' {
			continue
		}
		kind, number, n := readPlaceholder(text[i:])
		if n == 0 {
			continue
		}
		if value := r.Vault.find(kind, number); value >= 0 {
			r.edits = append(r.edits, restoration{i, i + n, value, levels})
		}
		i += n - 1
	}
}

// walk notes the placeholders in every string of a JSON text that is nest strings deep, names included.
func (r *Restorer) walk(text []byte, nest int) error {
	s := &r.levels[nest].scanner
	s.Reset(text)
	var key []byte
	for {
		switch t := s.Next(); t.Kind {
		case json.Bad:
			return ErrInvalid
		case json.End:
			return nil
		case json.Key:
			key = text[t.Start+1 : t.End-1]
			r.value(key, t.Start+1, nest, false)
		case json.String:
			r.value(text[t.Start+1:t.End-1], t.Start+1, nest, holdsJSON(key))
		case json.Open:
			key = nil
		}
	}
}

// holdsJSON reports whether the string under key holds JSON even when it can not be parsed: tool arguments, perhaps cut off.
func holdsJSON(key []byte) bool { return string(key) == "arguments" || string(key) == "partial_json" }

// value notes the placeholders in a string's inside, which begins at offset of its text.
func (r *Restorer) value(inside []byte, offset, nest int, holdsJSON bool) {
	if !Suspicious(inside) {
		return
	}
	l := &r.levels[nest]
	text, escaped := l.unescape(inside)
	first := len(r.edits)
	if nest+1 == maxNest || !looksNested(text) || r.walk(text, nest+1) != nil {
		r.edits = r.edits[:first]
		levels := nest + 1
		if holdsJSON {
			levels++
		}
		r.plain(text, levels)
	}
	c := cursor{inside: inside}
	for i := first; i < len(r.edits); i++ {
		e := &r.edits[i]
		if escaped {
			e.start, e.end = c.offset(e.start), c.offset(e.end)
		}
		e.start, e.end = e.start+offset, e.end+offset
	}
}

// Suspicious reports whether raw may hold a placeholder or end in the beginning of one. Most events of a stream do not:
// what follows their brackets is no label.
func Suspicious(raw []byte) bool {
	for i, c := range raw {
		switch c {
		case '[':
			if i+1 == len(raw) {
				return true
			}
			switch raw[i+1] {
			case 'E', 'P', 'C', 'I', 'R', 'S', '\\', '"', '\n', '\r':
				return true
			}
		case '\\':
			if i+1 == len(raw) || raw[i+1] == 'u' && (len(raw)-i < 6 || json.Hex4(raw[i+2:]) == '[') {
				return true
			}
		}
	}
	return false
}

// Chunk is how far a body that comes in arbitrary pieces has been restored. The zero Chunk is a body's beginning.
type Chunk struct {
	mode   byte // what the body is: 0 not known yet
	string bool // within a string
	value  bool // behind a colon
	nested bool // the string, or the one behind this colon, holds JSON
	key    [16]byte
	length byte // of key: the string being read, or read last; more than len(key): longer
	held   [8 * maxLabel]byte
	holds  byte // octets in held
}

const (
	modeJSON = 1
	modeText = 2
)

// Next restores the next piece of a body: what may be the beginning of a placeholder is held back until the next one.
// The result is valid until the next call; changed is false when it is part itself.
func (c *Chunk) Next(r *Restorer, part []byte, end bool) (restored []byte, changed bool) {
	text := part
	if c.holds > 0 {
		r.work = append(append(r.work[:0], c.held[:c.holds]...), part...)
		text, changed = r.work, true
		c.holds = 0
	}
	r.edits = r.edits[:0]
	stop := len(text)
scan:
	for i := 0; i < len(text); {
		b := text[i]
		switch {
		case c.mode == 0:
			switch b {
			case ' ', '\t', '\r', '\n':
			case '{', '[', '"':
				c.mode = modeJSON
				continue
			default:
				c.mode = modeText
				continue
			}
		case c.mode == modeJSON && !c.string:
			c.outside(b)
		case c.mode == modeJSON && b == '"':
			c.string = false
		case b == '[' || c.mode == modeJSON && b == '\\':
			used, value, wait := c.candidate(r.Vault, text[i:], end)
			if wait {
				stop = i
				break scan
			}
			if value >= 0 {
				r.edits = append(r.edits, restoration{i, i + used, value, c.levels()})
			}
			c.note(b)
			i += used
			continue
		default:
			c.note(b)
		}
		i++
	}
	c.holds = byte(copy(c.held[:], text[stop:]))
	if len(r.edits) == 0 && stop == len(text) {
		return text, changed
	}
	r.out = r.apply(r.out[:0], text, 0, stop)
	return r.out, true
}

// outside follows what stands between strings.
func (c *Chunk) outside(b byte) {
	switch b {
	case '"':
		c.string = true
		if !c.value {
			c.nested = false
		}
		c.length = 0
	case ':':
		c.value = true
		c.nested = c.length <= byte(len(c.key)) && holdsJSON(c.key[:c.length])
	case ',', '{', '}', '[', ']':
		c.value, c.nested = false, false
	}
}

// note remembers the beginning of the string being read: it may be a name.
func (c *Chunk) note(b byte) {
	if c.length < byte(len(c.key)) {
		c.key[c.length] = b
	}
	c.length = min(c.length+1, byte(len(c.key))+1)
}

func (c *Chunk) levels() int {
	switch {
	case c.mode == modeText:
		return 0
	case c.nested:
		return 2
	}
	return 1
}

// candidate looks at a [ or an escape sequence at the beginning of b: a placeholder gives its value, anything else is
// used up as it is. wait asks for more of the body.
func (c *Chunk) candidate(v *Vault, b []byte, end bool) (used, value int, wait bool) {
	var text [maxLabel]byte
	n, at := 0, 0
	for n < len(text) && at < len(b) && b[at] != '"' {
		size := 1
		text[n] = b[at]
		if b[at] == '\\' && c.mode == modeJSON {
			size = escapeLength(b[at:])
			if len(b)-at < size {
				if n == 0 || v.partial(text[:n]) {
					return 1, -1, !end
				}
				break
			}
			text[n] = 0
			if size == 6 {
				if r := json.Hex4(b[at+2:]); r > 0 && r < utf8.RuneSelf {
					text[n] = byte(r)
				}
			}
		}
		if n == 0 {
			used = size
			if text[0] != '[' {
				return used, -1, false
			}
		}
		n++
		at += size
		if text[n-1] == ']' {
			if kind, number, _ := readPlaceholder(text[:n]); kind != 0 {
				if i := v.find(kind, number); i >= 0 {
					return at, i, false
				}
			}
			return used, -1, false
		}
	}
	if at == len(b) && !end && v.partial(text[:n]) {
		return 0, -1, true
	}
	return used, -1, false
}

// escapeLength is the length of the escape sequence at the beginning of b, as far as b tells.
func escapeLength(b []byte) int {
	if len(b) > 1 && b[1] == 'u' {
		return 6
	}
	return 2
}

// Append appends the carried form of c.
func (c *Chunk) Append(dst []byte) []byte {
	bits := byte(0)
	for i, set := range [...]bool{c.string, c.value, c.nested} {
		if set {
			bits |= 1 << i
		}
	}
	dst = append(dst, c.mode, bits, c.length)
	dst = append(dst, c.key[:]...)
	return append(append(dst, c.holds), c.held[:c.holds]...)
}

// Load reads what Append wrote.
func (c *Chunk) Load(b []byte) {
	const head = 3 + len(c.key) + 1
	*c = Chunk{}
	if len(b) < head || int(b[head-1]) > len(c.held) || len(b) < head+int(b[head-1]) {
		return
	}
	c.mode, c.length = b[0], b[2]
	c.string, c.value, c.nested = b[1]&1 != 0, b[1]&2 != 0, b[1]&4 != 0
	copy(c.key[:], b[3:])
	c.holds = b[head-1]
	copy(c.held[:], b[head:head+int(c.holds)])
}

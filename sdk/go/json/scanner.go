// Package json reads JSON texts in place, strictly and without allocating: what a policy needs to look into a body without
// taking it apart. Its main type is Scanner.
package json

import "unicode/utf8"

// MaxDepth bounds the nesting of a JSON text. Deeper ones count as invalid.
const MaxDepth = 128

// Kind says what a Token is.
type Kind uint8

// The kinds of token.
const (
	Bad     Kind = iota // not JSON
	End                 // the text is complete
	Open                // { or [
	Close               // } or ]
	Key                 // a member's name, with its quotes
	String              // a string value, with its quotes
	Literal             // a number, true, false or null
)

// Token is one piece of a JSON text: the octets [Start, End).
type Token struct {
	Kind       Kind
	Start, End int
}

// Scanner takes a JSON text (RFC 8259) apart in place, strictly: what it accepts, every parser accepts. That names of an
// object do not repeat, and that strings are UTF-8, is not checked. Call Reset first.
type Scanner struct {
	text  []byte
	pos   int
	depth int
	after bool // a value is complete here: only a comma, a closing bracket or the end may follow
	first bool // just behind an opening bracket
	array [MaxDepth]bool
}

// Reset begins with a text, which must not change while it is read.
func (s *Scanner) Reset(text []byte) {
	s.text, s.pos, s.depth, s.after, s.first = text, 0, 0, false, false
}

// Depth is how many containers are open.
func (s *Scanner) Depth() int { return s.depth }

// InArray reports whether the innermost open container is an array.
func (s *Scanner) InArray() bool { return s.depth > 0 && s.array[s.depth-1] }

func (s *Scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// Next returns the next token. After Bad and End there is none.
func (s *Scanner) Next() Token {
	s.space()
	if s.pos == len(s.text) {
		if s.depth == 0 && s.after {
			return Token{End, s.pos, s.pos}
		}
		return Token{}
	}
	if s.after && s.depth == 0 {
		return Token{}
	}
	c := s.text[s.pos]
	if c == '}' || c == ']' {
		if s.depth == 0 || (c == ']') != s.InArray() || !s.after && !s.first {
			return Token{}
		}
		s.depth--
		s.pos++
		s.after, s.first = true, false
		return Token{Close, s.pos - 1, s.pos}
	}
	if s.after {
		if c != ',' {
			return Token{}
		}
		s.pos++
		s.space()
		s.after = false
		if s.pos == len(s.text) {
			return Token{}
		}
		c = s.text[s.pos]
	}
	if s.depth > 0 && !s.InArray() && !s.keyed() {
		return s.key(c)
	}
	s.first = false
	start := s.pos
	switch {
	case c == '"':
		if !s.string() {
			return Token{}
		}
		s.after = true
		return Token{String, start, s.pos}
	case c == '{', c == '[':
		if s.depth == MaxDepth {
			return Token{}
		}
		s.array[s.depth] = c == '['
		s.depth++
		s.pos++
		s.first = true
		return Token{Open, start, s.pos}
	case !s.literal():
		return Token{}
	}
	s.after = true
	return Token{Literal, start, s.pos}
}

// keyed reports whether a member's name and colon have just been read, which is told by the colon before.
func (s *Scanner) keyed() bool {
	for i := s.pos - 1; i >= 0; i-- {
		switch s.text[i] {
		case ' ', '\t', '\n', '\r':
		default:
			return s.text[i] == ':'
		}
	}
	return false
}

func (s *Scanner) key(c byte) Token {
	start := s.pos
	if c != '"' || !s.string() {
		return Token{}
	}
	end := s.pos
	s.space()
	if s.pos == len(s.text) || s.text[s.pos] != ':' {
		return Token{}
	}
	s.pos++
	s.first = false
	s.space()
	if s.pos == len(s.text) || s.text[s.pos] == '}' || s.text[s.pos] == ']' || s.text[s.pos] == ',' {
		return Token{}
	}
	return Token{Key, start, end}
}

// string reads a string that begins at pos.
func (s *Scanner) string() bool {
	for i := s.pos + 1; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '"':
			s.pos = i + 1
			return true
		case c < ' ':
			return false
		case c == '\\':
			if i++; i == len(s.text) {
				return false
			}
			switch s.text[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if len(s.text)-i < 5 || Hex4(s.text[i+1:]) < 0 {
					return false
				}
				i += 4
			default:
				return false
			}
		}
	}
	return false
}

// literal reads a number, true, false or null that begins at pos.
func (s *Scanner) literal() bool {
	t := s.text[s.pos:]
	for _, word := range [...]string{"true", "false", "null"} {
		if len(t) >= len(word) && string(t[:len(word)]) == word {
			s.pos += len(word)
			return true
		}
	}
	i := 0
	digits := func() bool {
		from := i
		for i < len(t) && t[i]-'0' < 10 {
			i++
		}
		return i > from
	}
	if i < len(t) && t[i] == '-' {
		i++
	}
	if i < len(t) && t[i] == '0' {
		i++
	} else if !digits() {
		return false
	}
	if i < len(t) && t[i] == '.' {
		i++
		if !digits() {
			return false
		}
	}
	if i < len(t) && (t[i] == 'e' || t[i] == 'E') {
		i++
		if i < len(t) && (t[i] == '+' || t[i] == '-') {
			i++
		}
		if !digits() {
			return false
		}
	}
	s.pos += i
	return true
}

// Hex4 reads the four digits of a \u escape at the beginning of b; below 0 when they are none.
func Hex4(b []byte) rune {
	var r rune
	for _, c := range b[:4] {
		switch {
		case c-'0' < 10:
			r = r<<4 | rune(c-'0')
		case c|0x20-'a' < 6:
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return -1
		}
	}
	return r
}

// Unescape appends to dst the text of a string's inside, which is what stands between the quotes of a valid string. ok is false when there is nothing to decode: then the inside
// is the text.
func Unescape(dst, inside []byte) (text []byte, ok bool) {
	plain := 0
	for plain < len(inside) && inside[plain] != '\\' {
		plain++
	}
	if plain == len(inside) {
		return dst, false
	}
	dst = append(dst, inside[:plain]...)
	for i := plain; i < len(inside); {
		if inside[i] != '\\' {
			dst = append(dst, inside[i])
			i++
			continue
		}
		var char [utf8.UTFMax]byte
		n, used := DecodeEscape(&char, inside[i:])
		dst = append(dst, char[:n]...)
		i += used
	}
	return dst, true
}

// DecodeEscape decodes the escape sequence at the beginning of b, which is valid: n octets of text for used octets of b.
func DecodeEscape(char *[utf8.UTFMax]byte, b []byte) (n, used int) {
	switch c := b[1]; c {
	case 'b':
		char[0] = '\b'
	case 'f':
		char[0] = '\f'
	case 'n':
		char[0] = '\n'
	case 'r':
		char[0] = '\r'
	case 't':
		char[0] = '\t'
	case 'u':
		r := Hex4(b[2:])
		used = 6
		if r >= 0xd800 && r < 0xe000 { // half of a pair, or alone and then no character
			if r < 0xdc00 && len(b) >= 12 && b[6] == '\\' && b[7] == 'u' {
				if low := Hex4(b[8:]); low >= 0xdc00 && low < 0xe000 {
					return utf8.EncodeRune(char[:], 0x10000+(r-0xd800)<<10+(low-0xdc00)), 12
				}
			}
			r = utf8.RuneError
		}
		return utf8.EncodeRune(char[:], r), used
	default: // " \ /
		char[0] = c
	}
	return 1, 2
}

package placeholder

import "unicode/utf8"

// maxDepth bounds the nesting of a JSON text. Deeper ones count as invalid.
const maxDepth = 128

type tokenKind uint8

const (
	tokenBad     tokenKind = iota // not JSON
	tokenEnd                      // the text is complete
	tokenOpen                     // { or [
	tokenClose                    // } or ]
	tokenKey                      // a member's name, with its quotes
	tokenString                   // a string value, with its quotes
	tokenLiteral                  // a number, true, false or null
)

// token is one piece of a JSON text: the octets [start, end).
type token struct {
	kind       tokenKind
	start, end int
}

// scanner takes a JSON text (RFC 8259) apart in place, strictly: what it accepts, every parser accepts.
type scanner struct {
	text  []byte
	pos   int
	depth int
	after bool // a value is complete here: only a comma, a closing bracket or the end may follow
	first bool // just behind an opening bracket
	array [maxDepth]bool
}

func (s *scanner) reset(text []byte) {
	s.text, s.pos, s.depth, s.after, s.first = text, 0, 0, false, false
}

// inArray reports whether the innermost open container is an array.
func (s *scanner) inArray() bool { return s.depth > 0 && s.array[s.depth-1] }

func (s *scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// next returns the next token. After tokenBad and tokenEnd there is none.
func (s *scanner) next() token {
	s.space()
	if s.pos == len(s.text) {
		if s.depth == 0 && s.after {
			return token{tokenEnd, s.pos, s.pos}
		}
		return token{}
	}
	if s.after && s.depth == 0 {
		return token{}
	}
	c := s.text[s.pos]
	if c == '}' || c == ']' {
		if s.depth == 0 || (c == ']') != s.inArray() || !s.after && !s.first {
			return token{}
		}
		s.depth--
		s.pos++
		s.after, s.first = true, false
		return token{tokenClose, s.pos - 1, s.pos}
	}
	if s.after {
		if c != ',' {
			return token{}
		}
		s.pos++
		s.space()
		s.after = false
		if s.pos == len(s.text) {
			return token{}
		}
		c = s.text[s.pos]
	}
	if s.depth > 0 && !s.inArray() && !s.keyed() {
		return s.key(c)
	}
	s.first = false
	start := s.pos
	switch {
	case c == '"':
		if !s.string() {
			return token{}
		}
		s.after = true
		return token{tokenString, start, s.pos}
	case c == '{', c == '[':
		if s.depth == maxDepth {
			return token{}
		}
		s.array[s.depth] = c == '['
		s.depth++
		s.pos++
		s.first = true
		return token{tokenOpen, start, s.pos}
	case !s.literal():
		return token{}
	}
	s.after = true
	return token{tokenLiteral, start, s.pos}
}

// keyed reports whether a member's name and colon have just been read, which is told by the colon before.
func (s *scanner) keyed() bool {
	for i := s.pos - 1; i >= 0; i-- {
		switch s.text[i] {
		case ' ', '\t', '\n', '\r':
		default:
			return s.text[i] == ':'
		}
	}
	return false
}

func (s *scanner) key(c byte) token {
	start := s.pos
	if c != '"' || !s.string() {
		return token{}
	}
	end := s.pos
	s.space()
	if s.pos == len(s.text) || s.text[s.pos] != ':' {
		return token{}
	}
	s.pos++
	s.first = false
	s.space()
	if s.pos == len(s.text) || s.text[s.pos] == '}' || s.text[s.pos] == ']' || s.text[s.pos] == ',' {
		return token{}
	}
	return token{tokenKey, start, end}
}

// string reads a string that begins at pos.
func (s *scanner) string() bool {
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
				if len(s.text)-i < 5 || hex4(s.text[i+1:]) < 0 {
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
func (s *scanner) literal() bool {
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
		for i < len(t) && isDigit(t[i]) {
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

func hex4(b []byte) rune {
	var r rune
	for _, c := range b[:4] {
		switch {
		case isDigit(c):
			r = r<<4 | rune(c-'0')
		case lower(c)-'a' < 6:
			r = r<<4 | rune(lower(c)-'a'+10)
		default:
			return -1
		}
	}
	return r
}

// unescape returns the text of a string's inside, good until the next call, and whether the two differ.
func (l *level) unescape(inside []byte) (text []byte, escaped bool) {
	if text, escaped = unescape(l.decoded[:0], inside); !escaped {
		return inside, false
	}
	l.decoded = text
	return text, true
}

// unescape appends to dst the text of a string's inside. ok is false when there is nothing to decode: then the inside
// is the text.
func unescape(dst, inside []byte) (text []byte, ok bool) {
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
		n, used := decodeEscape(&char, inside[i:])
		dst = append(dst, char[:n]...)
		i += used
	}
	return dst, true
}

// decodeEscape decodes the escape sequence at the beginning of b, which is valid: n octets of text for used octets of b.
func decodeEscape(char *[utf8.UTFMax]byte, b []byte) (n, used int) {
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
		r := hex4(b[2:])
		used = 6
		if r >= 0xd800 && r < 0xe000 { // half of a pair, or alone and then no character
			if r < 0xdc00 && len(b) >= 12 && b[6] == '\\' && b[7] == 'u' {
				if low := hex4(b[8:]); low >= 0xdc00 && low < 0xe000 {
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

// cursor maps offsets in a string's text to offsets in its inside. Offsets are asked for in ascending order.
type cursor struct {
	inside   []byte
	at, text int
}

// offset returns where the octet of the text at target begins in the inside.
func (c *cursor) offset(target int) int {
	for c.text < target && c.at < len(c.inside) {
		if c.inside[c.at] != '\\' {
			c.at++
			c.text++
			continue
		}
		var char [utf8.UTFMax]byte
		n, used := decodeEscape(&char, c.inside[c.at:])
		if c.text+n > target { // inside a character: its beginning
			break
		}
		c.text += n
		c.at += used
	}
	return c.at
}

// appendEscaped appends text as the inside of a string, written so levels strings deep. Level 0 is no string.
func appendEscaped(dst, text []byte, levels int) []byte {
	for _, c := range text {
		dst = appendEscapedByte(dst, c, levels)
	}
	return dst
}

func appendEscapedByte(dst []byte, c byte, levels int) []byte {
	if levels == 0 {
		return append(dst, c)
	}
	var seq [6]byte
	n := 0
	switch {
	case c == '"', c == '\\':
		seq[0], seq[1], n = '\\', c, 2
	case c == '\n':
		seq[0], seq[1], n = '\\', 'n', 2
	case c == '\r':
		seq[0], seq[1], n = '\\', 'r', 2
	case c == '\t':
		seq[0], seq[1], n = '\\', 't', 2
	case c < ' ':
		const digits = "0123456789abcdef"
		seq = [6]byte{'\\', 'u', '0', '0', digits[c>>4], digits[c&15]}
		n = 6
	default:
		return append(dst, c)
	}
	for _, b := range seq[:n] {
		dst = appendEscapedByte(dst, b, levels-1)
	}
	return dst
}

// looksNested reports whether a string's text may be a JSON text of its own: an object or an array.
func looksNested(text []byte) bool {
	for i, c := range text {
		switch c {
		case ' ', '\t', '\n', '\r':
			continue
		case '{', '[':
			for k := len(text) - 1; k > i; k-- {
				switch text[k] {
				case ' ', '\t', '\n', '\r':
					continue
				case '}', ']':
					return text[k] == c+2 // '{'+2 is '}', '['+2 is ']'
				}
				return false
			}
		}
		return false
	}
	return false
}

func isDigit(b byte) bool { return b-'0' < 10 }
func isAlnum(b byte) bool { return isDigit(b) || lower(b)-'a' < 26 }
func lower(b byte) byte {
	if b-'A' < 26 {
		return b + 32
	}
	return b
}

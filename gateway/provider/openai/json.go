package openai

import (
	"bytes"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep arrays and objects may nest. Tool schemas nest about ten deep.
const maxDepth = 200

// scanner walks JSON (RFC 8259) in place: it checks the whole grammar, decodes nothing it is not asked for and allocates
// nothing. The first error sticks: every later call does nothing, and loops over members and elements end.
type scanner struct {
	b     []byte
	i     int
	depth int
	err   error
}

// span is a part of the scanned text.
type span struct{ from, to int }

func (s span) of(b []byte) []byte { return b[s.from:s.to] }
func (s span) found() bool        { return s.to > s.from }

// fail records an error at the present position.
func (s *scanner) fail(what string) {
	if s.err == nil {
		s.err = fmt.Errorf("%s at %s", what, position(s.b, s.i))
	}
	s.i = len(s.b)
}

// position tells people where offset i of b is.
func position(b []byte, i int) string {
	i = min(i, len(b))
	line := 1 + bytes.Count(b[:i], []byte("\n"))
	column := i - bytes.LastIndexByte(b[:i], '\n')
	return fmt.Sprintf("line %d, column %d", line, column)
}

// peek skips white space and returns the next octet, or 0 at the end.
func (s *scanner) peek() byte {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return c
		}
	}
	return 0
}

// end checks that nothing but white space follows.
func (s *scanner) end() {
	if s.err == nil && (s.peek() != 0 || s.i < len(s.b)) {
		s.fail("unexpected text after the JSON value")
	}
}

// open enters an array or object: c is '[' or '{'.
func (s *scanner) open(c byte) bool {
	if s.err != nil {
		return false
	}
	if s.peek() != c {
		s.fail(fmt.Sprintf("expected %q", string(c)))
		return false
	}
	if s.depth++; s.depth > maxDepth {
		s.fail(fmt.Sprintf("nested more than %d deep", maxDepth))
		return false
	}
	s.i++
	return true
}

// next stands before a member or element, or leaves the array or object and returns false. first is true right after
// open; closing is '}' or ']'. The caller consumes the value before it calls next again.
func (s *scanner) next(first bool, closing byte) bool {
	if s.err != nil {
		return false
	}
	c := s.peek()
	if c == closing {
		s.i++
		s.depth--
		return false
	}
	if first {
		return true
	}
	if c != ',' {
		if s.i >= len(s.b) {
			s.fail("unexpected end of the JSON")
			return false
		}
		s.fail(fmt.Sprintf("expected \",\" or %q", string(closing)))
		return false
	}
	s.i++
	if s.peek() == closing {
		s.fail(fmt.Sprintf("unexpected %q after a comma", string(closing)))
		return false
	}
	return true
}

// key reads a member's name and the colon after it, and returns the name with its quotes.
func (s *scanner) key() span {
	if s.peek() != '"' {
		s.fail("expected a name in double quotes")
		return span{}
	}
	k := s.str()
	if s.err == nil && s.peek() != ':' {
		s.fail("expected \":\"")
	}
	if s.err != nil {
		return span{}
	}
	s.i++
	return k
}

// skip consumes any value and returns where it was.
func (s *scanner) skip() span {
	c := s.peek()
	from := s.i
	switch {
	case s.err != nil:
		return span{}
	case c == '"':
		return s.str()
	case c == '{':
		s.open('{')
		for first := true; s.next(first, '}'); first = false {
			s.key()
			s.skip()
		}
	case c == '[':
		s.open('[')
		for first := true; s.next(first, ']'); first = false {
			s.skip()
		}
	case c == '-' || c >= '0' && c <= '9':
		s.number()
	case c == 't':
		s.word("true")
	case c == 'f':
		s.word("false")
	case c == 'n':
		s.word("null")
	case s.i >= len(s.b):
		s.fail("unexpected end of the JSON")
	default:
		s.fail("expected a JSON value")
	}
	if s.err != nil {
		return span{}
	}
	return span{from, s.i}
}

// str consumes a string at the present position and returns it with its quotes.
func (s *scanner) str() span {
	from := s.i
	for i := s.i + 1; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			s.i = i + 1
			return span{from, s.i}
		case c < 0x20:
			s.i = i
			s.fail("control character in a string")
			return span{}
		case c == '\\':
			i++
			if i >= len(s.b) {
				break
			}
			switch s.b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if _, ok := hex4(s.b, i+1); !ok {
					s.i = i
					s.fail("bad \\u escape")
					return span{}
				}
				i += 4
			default:
				s.i = i
				s.fail("bad escape in a string")
				return span{}
			}
		}
	}
	s.i = len(s.b)
	s.fail("unexpected end of a string")
	return span{}
}

// hex4 reads the four hexadecimal digits at b[i:].
func hex4(b []byte, i int) (r rune, ok bool) {
	if i+4 > len(b) {
		return 0, false
	}
	for _, c := range b[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

func (s *scanner) word(w string) {
	if !bytes.HasPrefix(s.b[s.i:], []byte(w)) {
		s.fail("expected a JSON value")
		return
	}
	s.i += len(w)
}

// number consumes a number by the grammar of RFC 8259 section 6.
func (s *scanner) number() {
	digits := func() int {
		from := s.i
		for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
			s.i++
		}
		return s.i - from
	}
	at := func(c byte) bool {
		if s.i < len(s.b) && s.b[s.i] == c {
			s.i++
			return true
		}
		return false
	}
	at('-')
	good := true
	if !at('0') {
		good = digits() > 0
	}
	if good && at('.') {
		good = digits() > 0
	}
	if good && (at('e') || at('E')) {
		if !at('+') {
			at('-')
		}
		good = digits() > 0
	}
	if !good {
		s.fail("bad number")
	}
}

// integer reads text as a whole number from 0 to 2^53, the range in which all JSON readers agree.
func integer(text []byte) (n int64, ok bool) {
	if len(text) == 0 || len(text) > 16 {
		return 0, false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, n <= 1<<53
}

// unquote appends what a JSON string means, given with its quotes. An escaped surrogate without its other half becomes
// U+FFFD.
func unquote(dst, quoted []byte) []byte {
	s := quoted[1 : len(quoted)-1]
	for len(s) > 0 {
		plain := bytes.IndexByte(s, '\\')
		if plain < 0 {
			return append(dst, s...)
		}
		dst = append(dst, s[:plain]...)
		c := s[plain+1]
		s = s[plain+2:]
		switch c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, _ := hex4(s, 0)
			s = s[4:]
			if utf16.IsSurrogate(r) {
				low := rune(0)
				if len(s) >= 6 && s[0] == '\\' && s[1] == 'u' {
					low, _ = hex4(s, 2)
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					s = s[6:]
				}
			}
			dst = utf8.AppendRune(dst, r)
		default: // '"', '\\' and '/' stand for themselves
			dst = append(dst, c)
		}
	}
	return dst
}

// means reports whether the JSON string at k, with its quotes, is word.
func means(b []byte, k span, word string) bool {
	if !k.found() {
		return false
	}
	text := b[k.from+1 : k.to-1]
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text) == word
	}
	var room [64]byte
	return string(unquote(room[:0], k.of(b))) == word
}

// reads is means without case, as readers that ignore case compare names.
func reads(b []byte, k span, word string) bool {
	if !k.found() {
		return false
	}
	text := b[k.from+1 : k.to-1]
	if bytes.IndexByte(text, '\\') < 0 {
		return bytes.EqualFold(text, []byte(word))
	}
	var room [64]byte
	return bytes.EqualFold(unquote(room[:0], k.of(b)), []byte(word))
}

// null reports whether the value at v is null.
func null(b []byte, v span) bool { return v.found() && b[v.from] == 'n' }

// isString reports whether the value at v is a string.
func isString(b []byte, v span) bool { return v.found() && b[v.from] == '"' }

// edit replaces a span of a text by other text.
type edit struct {
	span
	text []byte
}

// splice appends b to dst with edits made, which are in order and do not overlap.
func splice(dst, b []byte, edits []edit) []byte {
	done := 0
	for _, e := range edits {
		dst = append(dst, b[done:e.from]...)
		dst = append(dst, e.text...)
		done = e.to
	}
	return append(dst, b[done:]...)
}

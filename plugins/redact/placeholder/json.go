package placeholder

import (
	"unicode/utf8"

	"github.com/postern-gateway/postern/sdk/go/json"
)

// unescape returns the text of a string's inside, good until the next call, and whether the two differ.
func (l *level) unescape(inside []byte) (text []byte, escaped bool) {
	if text, escaped = json.Unescape(l.decoded[:0], inside); !escaped {
		return inside, false
	}
	l.decoded = text
	return text, true
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
		n, used := json.DecodeEscape(&char, c.inside[c.at:])
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

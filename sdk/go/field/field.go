// Package field reads header fields as RFC 9110 writes them, in place and without allocating. Its main type is List.
package field

// List is a field's value that is a list of members with commas between (RFC 9110 section 5.6.1).
type List []byte

// Each gives the members one after the other, without the white space around them; empty ones are left out.
func (l List) Each(yield func(member []byte) bool) {
	for len(l) > 0 {
		end := 0
		for end < len(l) && l[end] != ',' {
			end++
		}
		member := Trim(l[:end])
		if len(member) > 0 && !yield(member) {
			return
		}
		if end == len(l) {
			return
		}
		l = l[end+1:]
	}
}

// Trim takes blanks and tabs off both ends.
func Trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// Is compares b with a word in lower case, without regard to the case of b's ASCII letters.
func Is(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if c-'A' < 26 {
			c += 32
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// Lower writes ASCII letters in lower case, in b itself, and returns it.
func Lower(b []byte) []byte {
	for i, c := range b {
		if c-'A' < 26 {
			b[i] = c + 32
		}
	}
	return b
}

// Token reports whether b is a token (RFC 9110 section 5.6.2), as names of fields and methods are.
func Token(b []byte) bool {
	for _, c := range b {
		switch {
		case c|0x20-'a' < 26, c-'0' < 10:
		case c == '!', c == '#', c == '$', c == '%', c == '&', c == '\'', c == '*', c == '+', c == '-', c == '.', c == '^', c == '_', c == '`', c == '|', c == '~':
		default:
			return false
		}
	}
	return len(b) > 0
}

// Value reports whether b can stand in a field (RFC 9110 section 5.5): no control characters but a tab.
func Value(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

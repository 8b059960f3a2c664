package route

import (
	"errors"
	"fmt"
	"strings"
)

// ErrPath is wrapped by every error of Canonical.
var ErrPath = errors.New("path refused")

// Canonical returns the one form of a request's path (without query) that is matched, authorised and forwarded, so that no
// two readers can disagree about what it names. raw begins with "/".
//
//   - Percent-encodings of unreserved characters are decoded, others written in upper case (RFC 3986 section 6.2.2);
//     octets that may not stand in a path as they are (spaces, quotes, anything outside ASCII) are encoded.
//   - Slashes in a row become one, as nearly every server reads them, and then dot segments are removed (section 5.2.4).
//   - Refused, because servers disagree: an encoded slash, a backslash in any form, control characters in any form, a
//     broken percent-encoding, "#" and "?", dot segments above the root, dot segments with parameters ("..;x"), and a
//     character in more octets than UTF-8 gives it, which some take for a dot or a slash (RFC 3629 section 3).
//
// Canonical is idempotent. It allocates only for a path that holds a percent-encoding, a segment that is empty or begins
// with a dot, or what is refused or encoded.
func Canonical(raw string) (string, error) {
	if raw == "" || raw[0] != '/' {
		return "", fmt.Errorf("%w: it does not begin with a slash", ErrPath)
	}
	if isCanonical(raw) {
		return raw, nil
	}
	path, err := normalise(make([]byte, 0, len(raw)+32), raw)
	if err != nil {
		return "", err
	}
	if overlong(path) {
		return "", fmt.Errorf("%w: a character in too many octets", ErrPath)
	}
	return removeDots(path)
}

// isCanonical reports that nothing in path needs a look: plain characters, no empty segment, none that begins with a dot.
func isCanonical(path string) bool {
	for i := range len(path) {
		c := path[i]
		if i > 0 && path[i-1] == '/' && (c == '/' || c == '.') || !plain(c) {
			return false
		}
	}
	return true
}

// plain reports whether c may stand in a path as it is: pchar of RFC 3986 section 3.3, and the slash.
func plain(c byte) bool {
	return unreserved(c) || strings.IndexByte("/:@!$&'()*+,;=", c) >= 0
}

// unreserved is RFC 3986 section 2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// normalise appends path with every octet in its one spelling.
func normalise(dst []byte, path string) ([]byte, error) {
	for i := 0; i < len(path); i++ {
		c, encoded := path[i], false
		if c == '%' {
			decoded, ok := hexOctet(path[i+1:])
			if !ok {
				return nil, fmt.Errorf("%w: broken percent-encoding at octet %d", ErrPath, i)
			}
			c, encoded = decoded, true
			i += 2
		}
		switch {
		case c == '/' && encoded:
			return nil, fmt.Errorf("%w: encoded slash", ErrPath)
		case c == '\\':
			return nil, fmt.Errorf("%w: backslash", ErrPath)
		case c < ' ' || c == 0x7f:
			return nil, fmt.Errorf("%w: control character", ErrPath)
		case (c == '?' || c == '#') && !encoded:
			return nil, fmt.Errorf("%w: it holds %q", ErrPath, c)
		case unreserved(c) || !encoded && plain(c):
			dst = append(dst, c)
		default:
			const digits = "0123456789ABCDEF"
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		}
	}
	return dst, nil
}

// overlong reports whether a normalised path holds a character of ASCII in two octets, or one in three or four octets that
// needs fewer.
func overlong(path []byte) bool {
	octet := func(i int) byte {
		if i+2 < len(path) && path[i] == '%' {
			c, _ := hexOctet(string(path[i+1 : i+3]))
			return c
		}
		return 0
	}
	for i := range path {
		next := octet(i + 3)
		switch octet(i) {
		case 0xc0, 0xc1:
			if next&0xc0 == 0x80 {
				return true
			}
		case 0xe0:
			if next&0xe0 == 0x80 {
				return true
			}
		case 0xf0:
			if next&0xf0 == 0x80 {
				return true
			}
		}
	}
	return false
}

// hexOctet reads two hexadecimal digits.
func hexOctet(s string) (c byte, ok bool) {
	if len(s) < 2 {
		return 0, false
	}
	for i := range 2 {
		d := s[i]
		switch {
		case '0' <= d && d <= '9':
			d -= '0'
		case 'a' <= d && d <= 'f':
			d -= 'a' - 10
		case 'A' <= d && d <= 'F':
			d -= 'A' - 10
		default:
			return 0, false
		}
		c = c<<4 | d
	}
	return c, true
}

// removeDots takes empty and dot segments out of a normalised path. It works in place: it never writes beyond where it
// reads.
func removeDots(path []byte) (string, error) {
	out := path[:0]
	for at := 0; at < len(path); {
		begin := at + 1 // path[at] is a slash
		end := begin
		for end < len(path) && path[end] != '/' {
			end++
		}
		segment, last := path[begin:end], end == len(path)
		at = end
		dots := segment
		for i, c := range segment {
			if c == ';' || c == '%' && string(segment[i:min(i+3, len(segment))]) == "%3B" {
				dots = segment[:i]
				break
			}
		}
		up := string(dots) == ".."
		switch {
		case (up || string(dots) == ".") && len(dots) < len(segment):
			return "", fmt.Errorf("%w: dot segment with parameters", ErrPath)
		case up:
			if len(out) == 0 {
				return "", fmt.Errorf("%w: it climbs above the root", ErrPath)
			}
			for out[len(out)-1] != '/' {
				out = out[:len(out)-1]
			}
			out = out[:len(out)-1]
			fallthrough
		case len(segment) == 0, string(segment) == ".":
			if last {
				out = append(out, '/')
			}
		default:
			out = append(append(out, '/'), segment...)
		}
	}
	return string(out), nil
}

// decode returns a canonical segment with its percent-encodings decoded, which allocates only when it has some. What is
// no percent-encoding stays.
func decode(segment string) string {
	if strings.IndexByte(segment, '%') < 0 {
		return segment
	}
	return string(appendDecoded(nil, segment))
}

func appendDecoded(dst []byte, segment string) []byte {
	for i := 0; i < len(segment); i++ {
		if segment[i] == '%' {
			if c, ok := hexOctet(segment[i+1:]); ok {
				dst = append(dst, c)
				i += 2
				continue
			}
		}
		dst = append(dst, segment[i])
	}
	return dst
}

package picture

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// Clean returns a JSON text with the metadata taken out of every image in it: images as model APIs carry them, in strings
// that are data URLs (RFC 2397) or nothing but base64. body is not changed, and is returned as it is when nothing
// was taken out. An error says that something is an image, or claims to be one, and can not be cleaned: it wraps ErrUnknown or
// ErrBroken. What is behind a link is not looked at: the gateway never sees it.
func Clean(body []byte) ([]byte, error) {
	var out []byte
	done := 0 // body[:done] is in out
	for i := 0; ; {
		at := bytes.IndexByte(body[i:], '"')
		if at < 0 {
			break
		}
		begin := i + at
		end := endOf(body, begin)
		if end < 0 {
			break // no JSON: whoever reads it will say so
		}
		i = end
		cleaned, err := cleanString(body[begin:end])
		if err != nil {
			return nil, err
		}
		if cleaned == nil {
			continue
		}
		if out == nil {
			out = make([]byte, 0, len(body))
		}
		out = append(append(out, body[done:begin]...), cleaned...)
		done = end
	}
	if done == 0 {
		return body, nil
	}
	return append(out, body[done:]...), nil
}

// endOf is where the string ends that begins at body[begin], behind its quote; -1: nowhere.
func endOf(body []byte, begin int) int {
	for i := begin + 1; ; {
		at := bytes.IndexByte(body[i:], '"')
		if at < 0 {
			return -1
		}
		i += at
		escapes := 0
		for body[i-1-escapes] == '\\' {
			escapes++
		}
		i++
		if escapes%2 == 0 {
			return i
		}
	}
}

// shortest is the length of a string in which an image may be: the smallest there are have some 30 octets.
const shortest = 32

// heads are how images begin in base64.
var heads = [...]string{"/9j/", "iVBORw0KGg", "R0lGOD", "UklGR"}

// cleanString returns a string of JSON, with its quotes, with the image in it cleaned; nil: it stays as it is.
func cleanString(quoted []byte) ([]byte, error) {
	if len(quoted) < shortest {
		return nil, nil
	}
	// Where an escape stands among the first octets, what they say shows only behind it.
	if head := quoted[1:min(len(quoted), 16)]; bytes.IndexByte(head, '\\') < 0 && !mayBegin(head) {
		return nil, nil
	}
	text := string(quoted[1 : len(quoted)-1])
	if strings.IndexByte(text, '\\') >= 0 {
		if json.Unmarshal(quoted, &text) != nil {
			return nil, nil //nolint:nilerr // no JSON: whoever reads it will say so
		}
	}
	if !mayBegin([]byte(text[:min(len(text), 16)])) {
		return nil, nil
	}
	head, payload, claims := "", text, false
	if url := strings.HasPrefix(strings.ToLower(text[:min(len(text), 5)]), "data:"); url {
		comma := strings.IndexByte(text, ',')
		if comma < 0 {
			return nil, nil
		}
		head, payload = text[:comma+1], text[comma+1:]
		parameters := strings.ToLower(head)
		claims = strings.HasPrefix(strings.TrimLeft(parameters[len("data:"):], " "), "image/")
		if !strings.HasSuffix(parameters, ";base64,") {
			if claims {
				return nil, fmt.Errorf("%w: it is not in base64", ErrUnknown)
			}
			return nil, nil
		}
	}
	raw, ok := decode(payload)
	kind := Sniff(raw)
	switch {
	case !ok && (claims || kind != None && head != ""):
		return nil, broken("it is not base64")
	case !ok, kind == None && !claims:
		return nil, nil
	}
	cleaned, err := Strip(raw)
	if err != nil {
		return nil, err
	}
	if len(cleaned) == len(raw) && &cleaned[0] == &raw[0] {
		return nil, nil
	}
	return json.Marshal(head + base64.StdEncoding.EncodeToString(cleaned))
}

// mayBegin reports whether a string with this beginning may be an image.
func mayBegin(head []byte) bool {
	if len(head) >= 5 && bytes.EqualFold(head[:5], []byte("data:")) {
		return true
	}
	for _, h := range heads {
		if bytes.HasPrefix(head, []byte(h)) {
			return true
		}
	}
	return false
}

// decode reads base64 as generously as any reader does: of both alphabets, with or without padding and line breaks. What can be read
// of a text that is not base64 is returned, too.
func decode(text string) (b []byte, ok bool) {
	text = strings.Map(func(r rune) rune {
		switch r {
		case '-':
			return '+'
		case '_':
			return '/'
		case '\r', '\n', ' ', '\t', '=':
			return -1
		}
		return r
	}, text)
	b = make([]byte, base64.RawStdEncoding.DecodedLen(len(text)))
	n, err := base64.RawStdEncoding.Decode(b, []byte(text))
	return b[:n], err == nil
}

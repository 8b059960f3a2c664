package detect

import "bytes"

// form is the form of secrets that a service hands out: a prefix, then so many octets of an alphabet.
type form struct {
	prefix   string
	min, max int // octets after the prefix
	alphabet alphabet
	mixed    bool // a digit and a letter must be among them, so that hyphenated words are none
}

type alphabet uint8

const (
	upper  alphabet = iota // A-Z 0-9
	hex                    // 0-9 a-f
	alnum                  // A-Z a-z 0-9
	words                  // A-Z a-z 0-9 _ -
	dotted                 // A-Z a-z 0-9 _ - .
)

// The forms, by the prefixes their services document.
//
//nolint:gochecknoglobals // a constant in all but syntax
var forms = [...]form{
	{"AKIA", 16, 16, upper, false}, {"ASIA", 16, 16, upper, false}, {"ABIA", 16, 16, upper, false}, {"ACCA", 16, 16, upper, false},
	{"AIza", 35, 35, words, false}, {"GOCSPX-", 28, 28, words, false}, {"SG.", 60, 80, dotted, true},
	{"dop_v1_", 64, 64, hex, false}, {"doo_v1_", 64, 64, hex, false},
	{"ghp_", 36, 255, alnum, false}, {"gho_", 36, 255, alnum, false}, {"ghu_", 36, 255, alnum, false}, {"ghs_", 36, 255, alnum, false},
	{"ghr_", 36, 255, alnum, false}, {"github_pat_", 22, 255, words, true}, {"glpat-", 20, 255, words, false}, {"glsa_", 32, 255, words, true},
	{"gsk_", 40, 128, alnum, true}, {"hf_", 30, 128, alnum, true}, {"npm_", 36, 36, alnum, false}, {"pstn_", 20, 128, words, true},
	{"pypi-AgE", 50, 1024, words, true}, {"r8_", 37, 40, alnum, true}, {"rk_live_", 16, 255, alnum, false}, {"rk_test_", 16, 255, alnum, false},
	{"shpat_", 32, 32, hex, false}, {"shpss_", 32, 32, hex, false},
	{"sk-", 20, 255, words, true}, {"sk_live_", 16, 255, alnum, false}, {"sk_test_", 16, 255, alnum, false},
	{"whsec_", 24, 255, alnum, true}, {"xai-", 40, 128, alnum, true},
	{"xapp-", 16, 255, words, true}, {"xoxa-", 10, 255, words, true}, {"xoxb-", 10, 255, words, true}, {"xoxe-", 10, 255, words, true},
	{"xoxp-", 10, 255, words, true}, {"xoxr-", 10, 255, words, true}, {"xoxs-", 10, 255, words, true},
	{"ya29.", 20, 1024, words, true},
}

// secretAt returns the end of the secret that begins at i, or 0.
func secretAt(text []byte, i int) int {
	switch text[i] { // most words end here
	case 'A', 'G', 'S', 'd', 'e', 'g', 'h', 'n', 'p', 'r', 's', 'w', 'x', 'y':
	default:
		return 0
	}
	if i > 0 && (text[i-1] == '_' || text[i-1] == '-') {
		return 0
	}
	if text[i] == 'e' {
		return jwtAt(text, i)
	}
	for f := range forms {
		form := &forms[f]
		if form.prefix[0] != text[i] || len(text)-i < len(form.prefix)+form.min || string(text[i:i+len(form.prefix)]) != form.prefix {
			continue
		}
		start := i + len(form.prefix)
		end, digit, letter := start, false, false
		for end < len(text) && form.alphabet.has(text[end]) && end-start <= form.max {
			digit = digit || isDigit(text[end])
			letter = letter || classes[text[end]]&classLetter != 0
			end++
		}
		for end > start && !isAlnum(text[end-1]) { // the full stop or dash that ends the sentence
			end--
		}
		if n := end - start; n < form.min || n > form.max || form.mixed && !(digit && letter) {
			continue
		}
		if end < len(text) && isAlnum(text[end]) {
			continue
		}
		return end
	}
	return 0
}

func (a alphabet) has(b byte) bool {
	switch a {
	case upper:
		return isDigit(b) || b-'A' < 26
	case hex:
		return isDigit(b) || b-'a' < 6
	case alnum:
		return isAlnum(b)
	case words:
		return isAlnum(b) || b == '_' || b == '-'
	case dotted:
		return isAlnum(b) || b == '_' || b == '-' || b == '.'
	}
	return false
}

// jwtAt returns the end of a JSON Web Token (RFC 7519, compact form) that begins at i, or 0: three or five parts of
// base64url, the first of which is an object.
func jwtAt(text []byte, i int) int {
	if len(text)-i < 32 || string(text[i:i+3]) != "eyJ" {
		return 0
	}
	parts, part, end := 1, i, i
	for ; end < len(text); end++ {
		if words.has(text[end]) {
			continue
		}
		if text[end] != '.' || parts == 5 {
			break
		}
		if parts == 1 && end-part < 10 {
			return 0
		}
		parts, part = parts+1, end+1
	}
	if end == part && end > i { // a full stop
		parts, end = parts-1, end-1
	}
	if parts < 3 {
		return 0
	}
	return end
}

// maxPEM bounds a private key: an RSA key of 16,384 bits has 12.8 KB.
const maxPEM = 16 << 10

// pem returns the end of the private key that begins at i (RFC 7468, and OpenPGP's armour), or 0. Line ends may be
// real, or the two characters \n, as in environment files. A key that is cut off ends with its last line.
func (d *Detector) pem(text []byte, i int) int {
	const begin, private = "-----BEGIN ", "PRIVATE KEY"
	if len(text)-i < 32 || string(text[i:i+len(begin)]) != begin {
		return 0
	}
	head := text[i:min(len(text), i+80)]
	at := bytes.Index(head, []byte(private))
	if at < 0 {
		return 0
	}
	for _, c := range head[len(begin):at] {
		if c != ' ' && c-'A' >= 26 && !isDigit(c) {
			return 0
		}
	}
	body := text[i : i+min(len(text)-i, maxPEM)]
	const marker = "-----END "
	// Where no marker was found before none is looked for again, so that many beginnings cost no more than one.
	from := min(max(at, d.unended-i-len(marker)), len(body))
	end := bytes.Index(body[from:], []byte(marker))
	if end < 0 {
		d.unended = i + len(body)
	} else {
		rest := body[from+end+len(marker):]
		if tail := bytes.Index(rest[:min(len(rest), 64)], []byte("-----")); tail >= 0 {
			return i + len(body) - len(rest) + tail + len("-----")
		}
	}
	end = at + len(private)
	for end < len(body) && (isAlnum(body[end]) || isPEM(body[end])) {
		end++
	}
	for end > at+len(private) && body[end-1] <= ' ' {
		end--
	}
	return i + end
}

func isPEM(b byte) bool {
	switch b {
	case '+', '/', '=', '-', '\n', '\r', '\\', ':', ',':
		return true
	}
	return false
}

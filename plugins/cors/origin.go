package main

import "errors"

// origin is one that may call: scheme, host and port as a browser writes them (RFC 6454 section 6.2).
type origin struct {
	scheme   string // with "://"
	host     string // after the "*", when below is set
	port     string // with ":"; empty: the scheme's own
	below    bool   // every name below host, which begins with "."
	anyPort  bool
	hostPort string // host and port together
}

// parseOrigin reads an origin of the configuration. Browsers write origins in lower case, without a default port and
// without a path; so it has to be here, or it would never match.
func parseOrigin(text string) (origin, error) {
	var o origin
	at := -1
	for i := 0; i+3 <= len(text); i++ {
		if text[i:i+3] == "://" {
			at = i + 3
			break
		}
	}
	if at < 0 {
		return o, errors.New("has no scheme: write https://, or what the page's address begins with")
	}
	o.scheme = text[:at]
	rest := text[at:]
	for i := range len(text) {
		switch c := text[i]; {
		case c-'A' < 26:
			return o, errors.New("has upper-case letters; browsers write origins in lower case")
		case c <= ' ' || c >= 0x7f:
			return o, errors.New("has characters that no origin has; names are written as in DNS (xn--)")
		}
	}
	for i := range len(rest) {
		if c := rest[i]; c == '/' || c == '?' || c == '#' || c == '@' {
			return o, errors.New("is more than an origin: scheme, host and port")
		}
	}
	colon := -1
	for i := range len(rest) {
		if rest[i] == ':' {
			colon = i
		}
		if rest[i] == ']' {
			colon = -1
		}
	}
	o.host = rest
	if colon >= 0 {
		o.host, o.port = rest[:colon], rest[colon:]
	}
	switch {
	case o.port == ":*":
		o.port, o.anyPort = "", true
	case o.port == ":", o.port != "" && !digits(o.port[1:]):
		return o, errors.New("has no port number behind the colon")
	case o.scheme == "https://" && o.port == ":443", o.scheme == "http://" && o.port == ":80":
		return o, errors.New("names the scheme's own port, which browsers leave out")
	}
	if len(o.host) > 2 && o.host[:2] == "*." {
		o.below, o.host = true, o.host[1:]
	}
	if o.host == "" || o.host == "." {
		return o, errors.New("has no host")
	}
	for i := range len(o.host) {
		if o.host[i] == '*' {
			return o, errors.New(`has a * that does not stand for all names below one ("https://*.example.com") or for every port`)
		}
	}
	o.hostPort = o.host + o.port
	return o, nil
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i]-'0' > 9 {
			return false
		}
	}
	return len(s) <= 5
}

// allows reports whether pages of an origin may call.
func (st *stage) allows(value []byte) bool {
	if len(value) == 0 || len(value) > maxOrigin {
		return false
	}
	if st.any {
		return true
	}
	if string(value) == "null" {
		return st.null
	}
	for i := range st.origins {
		if st.origins[i].is(value) {
			return true
		}
	}
	return false
}

func (o *origin) is(value []byte) bool {
	if len(value) <= len(o.scheme) || string(value[:len(o.scheme)]) != o.scheme {
		return false
	}
	rest := value[len(o.scheme):]
	if o.anyPort {
		for i := len(rest) - 1; i > 0; i-- {
			if rest[i] == ':' && i+1 < len(rest) {
				rest = rest[:i]
				break
			}
			if rest[i]-'0' > 9 {
				break
			}
		}
	}
	if !o.below {
		return string(rest) == o.hostPort
	}
	n := len(rest) - len(o.hostPort)
	if n <= 0 || string(rest[n:]) != o.hostPort {
		return false
	}
	// Only what a name is made of may stand before it: not "evil.example/.example.com".
	for _, c := range rest[:n] {
		if c-'a' >= 26 && c-'0' >= 10 && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return rest[0] != '.'
}

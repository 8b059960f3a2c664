package main

// reader takes apart structured fields (RFC 8941), as much of them as Signature-Input, Signature and Content-Digest need. What
// is not exactly what the RFC allows is malformed; so are a few forms that no signer writes: an escape in a string, a number
// with needless zeros, "=?1".
type reader struct {
	b []byte
	i int
}

// next reports whether another member of the dictionary follows; ok is false when something else does. first is true before
// the first one.
func (r *reader) next(first bool) (more, ok bool) {
	if first {
		r.skip(' ')
		return r.i < len(r.b), true
	}
	r.white()
	if r.i == len(r.b) {
		return false, true
	}
	if !r.take(',') {
		return false, false
	}
	r.white()
	return r.i < len(r.b), r.i < len(r.b) // no comma at the end
}

func (r *reader) white() {
	for r.i < len(r.b) && (r.b[r.i] == ' ' || r.b[r.i] == '\t') {
		r.i++
	}
}

func (r *reader) skip(c byte) {
	for r.i < len(r.b) && r.b[r.i] == c {
		r.i++
	}
}

func (r *reader) take(c byte) bool {
	if r.i < len(r.b) && r.b[r.i] == c {
		r.i++
		return true
	}
	return false
}

// key reads a dictionary's or a parameter's key; nil: there is none.
func (r *reader) key() []byte {
	start := r.i
	for r.i < len(r.b) {
		c := r.b[r.i]
		lower := c >= 'a' && c <= 'z' || c == '*'
		if !lower && (r.i == start || (c < '0' || c > '9') && c != '_' && c != '-' && c != '.') {
			break
		}
		r.i++
	}
	return r.b[start:r.i]
}

// text reads a string and returns what is between the quotes.
func (r *reader) text() (s []byte, ok bool) {
	if !r.take('"') {
		return nil, false
	}
	start := r.i
	for r.i < len(r.b) {
		switch c := r.b[r.i]; {
		case c == '"':
			r.i++
			return r.b[start : r.i-1], true
		case c < ' ' || c > '~' || c == '\\':
			return nil, false
		}
		r.i++
	}
	return nil, false
}

// octets reads a byte sequence and returns its base64.
func (r *reader) octets() (s []byte, ok bool) {
	if !r.take(':') {
		return nil, false
	}
	start := r.i
	for r.i < len(r.b) {
		if r.b[r.i] == ':' {
			r.i++
			return r.b[start : r.i-1], true
		}
		r.i++
	}
	return nil, false
}

// integer reads a whole number, at most 15 digits.
func (r *reader) integer() (n int64, ok bool) {
	start := r.i
	for r.i < len(r.b) && r.b[r.i] >= '0' && r.b[r.i] <= '9' {
		n = n*10 + int64(r.b[r.i]-'0')
		if r.i++; r.i-start > 15 {
			return 0, false
		}
	}
	if r.i == start || r.i-start > 1 && r.b[start] == '0' || r.i < len(r.b) && r.b[r.i] == '.' {
		return 0, false
	}
	return n, true
}

// maxComponents is the most message components that one signature may cover.
const maxComponents = 32

// signature is a member of the dictionary Signature-Input.
type signature struct {
	label            []byte
	components       [maxComponents][]byte
	count            int
	params           []byte // the value of @signature-params: as it was sent, without needless spaces
	created, expires int64  // seconds since 1970; -1: not there
	nonce            []byte
	key, alg, tag    []byte
}

// member reads one member of Signature-Input: a label, an inner list of component names, parameters. s keeps its memory.
func (r *reader) member(s *signature) bool {
	*s = signature{params: s.params[:0], created: -1, expires: -1}
	if s.label = r.key(); len(s.label) == 0 || !r.take('=') || !r.take('(') {
		return false
	}
	s.params = append(s.params, '(')
	for {
		spaced := r.i
		r.skip(' ')
		if r.take(')') {
			break
		}
		if s.count > 0 && r.i == spaced || s.count == maxComponents {
			return false
		}
		start := r.i
		name, ok := r.text()
		// Of the components' parameters none is known here; leaving one out would check something else than was signed.
		if !ok || len(name) == 0 || s.covers(name) || r.i < len(r.b) && r.b[r.i] != ' ' && r.b[r.i] != ')' {
			return false
		}
		if s.count > 0 {
			s.params = append(s.params, ' ')
		}
		s.params = append(s.params, r.b[start:r.i]...)
		s.components[s.count] = name
		s.count++
	}
	s.params = append(s.params, ')')
	for r.take(';') {
		r.skip(' ')
		start := r.i
		if !r.parameter(s) {
			return false
		}
		s.params = append(append(s.params, ';'), r.b[start:r.i]...)
	}
	return true
}

// parameter reads one parameter of a signature.
func (r *reader) parameter(s *signature) (ok bool) {
	key := r.key()
	if len(key) == 0 || !r.take('=') {
		return false
	}
	number, text := (*int64)(nil), (*[]byte)(nil)
	switch string(key) {
	case "created":
		number = &s.created
	case "expires":
		number = &s.expires
	case "nonce":
		text = &s.nonce
	case "keyid":
		text = &s.key
	case "alg":
		text = &s.alg
	case "tag":
		text = &s.tag
	default:
		return false // what it means for the signature is not known
	}
	if number != nil {
		if *number >= 0 {
			return false // twice
		}
		*number, ok = r.integer()
		return ok
	}
	if *text != nil {
		return false
	}
	*text, ok = r.text()
	return ok
}

func (s *signature) covers(name []byte) bool {
	for _, c := range s.components[:s.count] {
		if string(c) == string(name) {
			return true
		}
	}
	return false
}

// member returns the byte sequence of a key in the dictionaries of all fields of a name, as base64. ok is false when one is
// malformed, or when the key is there twice.
func member(each func(func(name, value []byte) bool), field, key string) (found []byte, ok bool) {
	ok = true
	for name, line := range each {
		if string(name) != field {
			continue
		}
		r := reader{b: line}
		for first := true; ; first = false {
			more, fine := r.next(first)
			if !fine {
				return nil, false
			}
			if !more {
				break
			}
			k := r.key()
			if len(k) == 0 || !r.take('=') {
				return nil, false
			}
			value, fine := r.octets()
			if !fine || string(k) == key && found != nil {
				return nil, false
			}
			if string(k) == key {
				found = value[:len(value):len(value)]
			}
		}
	}
	return found, ok
}

package route

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Pattern is one parsed pattern, "[METHOD ][HOST]/[PATH]" in the language of net/http's ServeMux:
//
//   - A method matches itself; GET matches HEAD too; none matches every method.
//   - A host matches itself, without port and in lower case; none matches every host.
//   - A path segment {name} matches one segment that is not empty; {name...} at the end matches all that is left, also
//     nothing; a slash at the end is {...} without a name; {$} at the end matches only the slash before it.
//   - Anything else matches itself, compared without percent-encoding.
//
// A Pattern does not change.
type Pattern struct {
	text     string
	method   string
	host     string
	path     string
	segments []segment
	names    []string
}

type kind uint8

const (
	literal kind = iota // one segment, as text says
	end                 // {$}: the empty segment after the last slash
	single              // {name}
	multi               // {name...}, or the slash at the end
)

type segment struct {
	kind kind
	text string // of a literal, decoded; the name of a wildcard, which may be empty with multi
}

// ParseError says what is wrong with a pattern, and where.
type ParseError struct {
	Offset int // octets from the pattern's start
	Reason string
}

// Error returns the reason.
func (e *ParseError) Error() string { return e.Reason }

// ParsePattern reads a pattern. Its errors are *ParseError. What can never match a canonical path is an error.
func ParsePattern(s string) (*Pattern, error) {
	p := &Pattern{text: s}
	rest, at := s, 0
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		p.method = s[:i]
		if err := checkMethod(p.method); err != nil {
			return nil, err
		}
		rest = strings.TrimLeft(s[i:], " \t")
		at = len(s) - len(rest)
	}
	slash := strings.IndexByte(rest, '/')
	if slash < 0 {
		return nil, &ParseError{at, `there is no path: it begins with "/"`}
	}
	p.host, p.path = strings.ToLower(rest[:slash]), rest[slash:]
	if err := checkHost(p.host, at); err != nil {
		return nil, err
	}
	if err := p.parsePath(at + slash); err != nil {
		return nil, err
	}
	return p, nil
}

func checkMethod(method string) error {
	if method == "" {
		return &ParseError{0, "it begins with white space"}
	}
	for i := range len(method) {
		c := method[i]
		switch {
		case 'a' <= c && c <= 'z':
			return &ParseError{i, fmt.Sprintf("methods are in upper case: %s", strings.ToUpper(method))}
		case !unreserved(c) && strings.IndexByte("!#$%&'*+^`|", c) < 0:
			return &ParseError{i, fmt.Sprintf("%q can not stand in a method", c)}
		}
	}
	return nil
}

func checkHost(host string, at int) error {
	inner := host
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		inner = strings.ReplaceAll(host[1:len(host)-1], ":", "")
	}
	for i := range len(inner) {
		switch c := inner[i]; {
		case c == ':':
			return &ParseError{at + i, "a host has no port: which port is the listener's business"}
		case c == '{', c == '}', c == '*':
			return &ParseError{at + i, "a host has no wildcard"}
		case !unreserved(c):
			return &ParseError{at + i, fmt.Sprintf("%q can not stand in a host", c)}
		}
	}
	if strings.HasSuffix(host, ".") {
		return &ParseError{at + len(host) - 1, "a host is written without a dot at its end"}
	}
	return nil
}

// parsePath reads p.path, which begins at octet at of the pattern.
func (p *Pattern) parsePath(at int) error {
	for rest := p.path; rest != ""; {
		if len(p.segments) > 0 {
			if last := p.segments[len(p.segments)-1].kind; last == multi || last == end {
				return &ParseError{at, "{name...} and {$} stand only at the end"}
			}
		}
		rest, at = rest[1:], at+1 // its slash
		text := rest
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			text = rest[:i]
		}
		s, err := p.parseSegment(text, at, len(text) == len(rest))
		if err != nil {
			return err
		}
		p.segments = append(p.segments, s)
		rest, at = rest[len(text):], at+len(text)
	}
	return nil
}

func (p *Pattern) parseSegment(text string, at int, last bool) (segment, error) {
	if text == "" {
		if !last {
			return segment{}, &ParseError{at, "an empty segment never matches: slashes in a row count as one"}
		}
		return segment{kind: multi}, nil
	}
	if !strings.ContainsAny(text, "{}") {
		return parseLiteral(text, at)
	}
	if text[0] != '{' || strings.IndexByte(text, '}') != len(text)-1 || strings.Count(text, "{") != 1 {
		return segment{}, &ParseError{at, "a wildcard in braces is a whole segment"}
	}
	name := text[1 : len(text)-1]
	if name == "$" {
		return segment{kind: end}, nil
	}
	s := segment{kind: single}
	if short, ok := strings.CutSuffix(name, "..."); ok {
		s.kind, name = multi, short
	}
	s.text = name
	if name == "" {
		return segment{}, &ParseError{at, "a wildcard has a name"}
	}
	for i, c := range name {
		if c != '_' && !unicode.IsLetter(c) && (i == 0 || !unicode.IsDigit(c)) {
			return segment{}, &ParseError{at + 1 + i, fmt.Sprintf("%q is no name for a wildcard: letters, digits and _, not beginning with a digit", name)}
		}
	}
	if slices.Contains(p.names, name) {
		return segment{}, &ParseError{at, fmt.Sprintf("there are two wildcards called %q", name)}
	}
	p.names = append(p.names, name)
	return s, nil
}

// parseLiteral holds a literal to what a canonical path can have.
func parseLiteral(text string, at int) (segment, error) {
	path, err := Canonical("/" + text)
	if err != nil {
		return segment{}, &ParseError{at, "it never matches: " + strings.TrimPrefix(err.Error(), ErrPath.Error()+": ")}
	}
	if path == "/" {
		return segment{}, &ParseError{at, "a dot segment never matches: it is removed from requests"}
	}
	return segment{kind: literal, text: decode(path[1:])}, nil
}

// String returns the pattern as written.
func (p *Pattern) String() string { return p.text }

// Method is the pattern's method, or "" for any.
func (p *Pattern) Method() string { return p.method }

// Host is the pattern's host in lower case, or "" for any.
func (p *Pattern) Host() string { return p.host }

// Path is the pattern's path as written, from its first slash.
func (p *Pattern) Path() string { return p.path }

// Names are the names of the pattern's wildcards in order.
func (p *Pattern) Names() []string { return slices.Clone(p.names) }

// Relation says how the requests that two patterns match relate.
type Relation uint8

// The relations.
const (
	Disjoint     Relation = iota // no request matches both
	Equivalent                   // the same requests match both
	MoreSpecific                 // the first matches a part of what the second does, or is preferred for having a host
	MoreGeneral                  // the reverse
	Overlaps                     // some requests match both, each matches some that the other does not
)

// and joins the relations of two parts of patterns into that of the whole.
func (r Relation) and(s Relation) Relation {
	switch {
	case r == Disjoint || s == Disjoint:
		return Disjoint
	case r == Equivalent || r == s:
		return s
	case s == Equivalent:
		return r
	}
	return Overlaps
}

// Compare relates p to q.
func (p *Pattern) Compare(q *Pattern) Relation {
	if p.host != q.host && p.host != "" && q.host != "" {
		return Disjoint
	}
	r := comparePaths(p.segments, q.segments)
	if r == Disjoint {
		return Disjoint
	}
	r = r.and(compareMethods(p.method, q.method))
	switch {
	case r == Disjoint || p.host == q.host:
		return r
	case p.host != "":
		return MoreSpecific
	}
	return MoreGeneral
}

func compareMethods(a, b string) Relation {
	switch {
	case a == b:
		return Equivalent
	case a == "", a == "GET" && b == "HEAD":
		return MoreGeneral
	case b == "", b == "GET" && a == "HEAD":
		return MoreSpecific
	}
	return Disjoint
}

func comparePaths(a, b []segment) Relation {
	r := Equivalent
	for i := range min(len(a), len(b)) {
		s, final := compareSegments(a[i], b[i])
		r = r.and(s)
		if r == Disjoint || final {
			return r
		}
	}
	if len(a) != len(b) {
		return Disjoint // one has a slash more
	}
	return r
}

// compareSegments relates segments in the same place; final says that what follows them does not count.
func compareSegments(a, b segment) (r Relation, final bool) {
	switch {
	case a.kind == multi && b.kind == multi:
		return Equivalent, true
	case a.kind == multi:
		return MoreGeneral, true
	case b.kind == multi:
		return MoreSpecific, true
	case a.kind == end || b.kind == end:
		if a.kind == b.kind {
			return Equivalent, true
		}
		return Disjoint, true
	case a.kind == single && b.kind == single:
		return Equivalent, false
	case a.kind == single:
		return MoreGeneral, false
	case b.kind == single:
		return MoreSpecific, false
	case a.text == b.text:
		return Equivalent, false
	}
	return Disjoint, true
}

// Conflicts reports whether there are requests for which neither of the two patterns is preferred, and explains it with
// one.
func (p *Pattern) Conflicts(q *Pattern) (explanation string, conflict bool) {
	if p.host != q.host {
		return "", false // the one with a host wins
	}
	switch p.Compare(q) {
	case Equivalent:
		return fmt.Sprintf("%q and %q match the same requests, such as %q", p, q, p.example(q)), true
	case Overlaps:
		return fmt.Sprintf("%q and %q both match %q, and neither is more specific: the first is so in its %s, the second in its %s",
			p, q, p.example(q), p.narrower(q), q.narrower(p)), true
	}
	return "", false
}

// example is a request that both patterns match.
func (p *Pattern) example(q *Pattern) string {
	method := p.method
	if compareMethods(p.method, q.method) == MoreGeneral {
		method = q.method
	}
	if method == "" {
		method = "GET"
	}
	var path strings.Builder
	a, b := p.segments, q.segments
	for i := range max(len(a), len(b)) {
		var s segment
		switch {
		case i >= len(a):
			s = b[i]
		case i >= len(b), a[i].kind < b[i].kind:
			s = a[i]
		default:
			s = b[i]
		}
		path.WriteByte('/')
		switch {
		case s.kind == literal:
			path.WriteString(s.text)
		case s.kind == single:
			path.WriteString("x")
		}
	}
	return method + " " + p.host + path.String()
}

// narrower names the first part of p that matches less than the same part of q.
func (p *Pattern) narrower(q *Pattern) string {
	if compareMethods(p.method, q.method) == MoreSpecific {
		return "method"
	}
	for i := range min(len(p.segments), len(q.segments)) {
		if r, _ := compareSegments(p.segments[i], q.segments[i]); r == MoreSpecific {
			return fmt.Sprintf("segment %d", i+1)
		}
	}
	return "path"
}

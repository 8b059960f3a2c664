package route

import (
	"slices"
	"strings"
)

// Entry is a pattern and what it leads to.
type Entry[T any] struct {
	Pattern *Pattern
	Value   T
}

// Table finds the entries for a request. It is built once and does not change, so it may be read concurrently. Its cost
// grows with the segments of the request's path, not with the number of entries.
type Table[T any] struct {
	hosts map[string]*node[T]
	any   *node[T] // patterns without host
}

// node is a point in the tree of path segments. The order in which its parts are visited is the order of preference.
type node[T any] struct {
	here     []Entry[T] // patterns that end here
	literals map[string]*node[T]
	end      []Entry[T]
	single   *node[T]
	multi    []Entry[T]
}

// NewTable builds a table. Entries whose patterns conflict are allowed, since a caller may have other reasons to choose
// between them: those with the same segments are offered in the order given; of others, the one first that has the
// literal where, from the left, they first differ.
func NewTable[T any](entries []Entry[T]) *Table[T] {
	t := &Table[T]{hosts: make(map[string]*node[T]), any: new(node[T])}
	for _, e := range entries {
		n := t.any
		if host := e.Pattern.host; host != "" {
			if n = t.hosts[host]; n == nil {
				n = new(node[T])
				t.hosts[host] = n
			}
		}
		n.add(e)
	}
	return t
}

func (n *node[T]) add(e Entry[T]) {
	for _, s := range e.Pattern.segments {
		switch s.kind {
		case literal:
			next := n.literals[s.text]
			if next == nil {
				if n.literals == nil {
					n.literals = make(map[string]*node[T])
				}
				next = new(node[T])
				n.literals[s.text] = next
			}
			n = next
		case single:
			if n.single == nil {
				n.single = new(node[T])
			}
			n = n.single
		case end:
			n.end = insert(n.end, e)
			return
		case multi:
			n.multi = insert(n.multi, e)
			return
		}
	}
	n.here = insert(n.here, e)
}

// insert keeps a list ordered by how specific the methods are, and otherwise as given.
func insert[T any](list []Entry[T], e Entry[T]) []Entry[T] {
	i := len(list)
	for i > 0 && breadth(list[i-1].Pattern.method) > breadth(e.Pattern.method) {
		i--
	}
	return slices.Insert(list, i, e)
}

func breadth(method string) int {
	switch method {
	case "":
		return 2
	case "GET":
		return 1
	}
	return 0
}

// Params are the values of the wildcards of the pattern that matched, decoded. The zero value is ready for use, and can be
// used again.
type Params struct {
	names  []string
	values []string
}

// Get returns the value of the wildcard called name, or "".
func (p *Params) Get(name string) string {
	if i := slices.Index(p.names, name); i >= 0 {
		return p.values[i]
	}
	return ""
}

// Match offers accept the entries that match, the most specific first, and returns the first that it takes. path is
// canonical; host is in lower case, and may have a port, which does not count. A nil accept takes any entry, a nil params
// wants no values.
func (t *Table[T]) Match(method, host, path string, params *Params, accept func(T) bool) (value T, ok bool) {
	if params != nil {
		params.names, params.values = nil, params.values[:0]
	}
	t.visit(host, path, params, func(e *Entry[T]) bool {
		if m := e.Pattern.method; m != "" && m != method && (m != "GET" || method != "HEAD") {
			return false
		}
		if params != nil {
			params.names = e.Pattern.names
		}
		if accept != nil && !accept(e.Value) {
			return false
		}
		value, ok = e.Value, true
		return true
	})
	if !ok && params != nil {
		params.names = nil
	}
	return value, ok
}

// Allowed lists, sorted, the methods with which a request for host and path would match an entry that accept takes (a nil
// accept takes any): what the Allow field of a 405 says. It is empty when no method would do.
func (t *Table[T]) Allowed(host, path string, accept func(T) bool) []string {
	var methods []string
	t.visit(host, path, nil, func(e *Entry[T]) bool {
		m := e.Pattern.method
		if m != "" && (accept == nil || accept(e.Value)) {
			methods = append(methods, m)
			if m == "GET" {
				methods = append(methods, "HEAD")
			}
		}
		return false
	})
	slices.Sort(methods)
	return slices.Compact(methods)
}

// visit offers take every entry whose host and path match, in the order of preference, until it takes one.
func (t *Table[T]) visit(host, path string, params *Params, take func(*Entry[T]) bool) {
	if len(t.hosts) > 0 {
		if n := t.hosts[bareHost(host)]; n != nil && n.visit(path, params, take) {
			return
		}
	}
	t.any.visit(path, params, take)
}

// visit walks the tree for what is left of the path, "" or from a slash on. A wildcard's value is in params while what
// lies behind it is tried.
func (n *node[T]) visit(rest string, params *Params, take func(*Entry[T]) bool) bool {
	if rest == "" {
		return offer(n.here, take)
	}
	if rest[0] != '/' {
		return false // not canonical: no pattern has it
	}
	text, after := rest[1:], ""
	if i := strings.IndexByte(text, '/'); i >= 0 {
		text, after = text[:i], text[i:]
	}
	if text == "" && after == "" {
		if offer(n.end, take) {
			return true
		}
	}
	if text != "" {
		if next := n.literal(text); next != nil && next.visit(after, params, take) {
			return true
		}
		if n.single != nil {
			params.push(text)
			if n.single.visit(after, params, take) {
				return true
			}
			params.pop()
		}
	}
	if len(n.multi) == 0 {
		return false
	}
	params.push(rest[1:])
	if offer(n.multi, take) {
		return true
	}
	params.pop()
	return false
}

// literal finds the child for a segment of the path, which is compared decoded.
func (n *node[T]) literal(text string) *node[T] {
	if n.literals == nil {
		return nil
	}
	if strings.IndexByte(text, '%') < 0 {
		return n.literals[text]
	}
	var buffer [128]byte // on the stack; longer segments allocate
	return n.literals[string(appendDecoded(buffer[:0], text))]
}

func offer[T any](list []Entry[T], take func(*Entry[T]) bool) bool {
	for i := range list {
		if take(&list[i]) {
			return true
		}
	}
	return false
}

func (p *Params) push(value string) {
	if p != nil {
		p.values = append(p.values, decode(value))
	}
}

func (p *Params) pop() {
	if p != nil {
		p.values = p.values[:len(p.values)-1]
	}
}

// bareHost takes the port and the dot of a fully qualified name off a host (RFC 3986 section 3.2.2).
func bareHost(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") && strings.LastIndexByte(host, ']') < i {
		host = host[:i]
	}
	return strings.TrimSuffix(host, ".")
}

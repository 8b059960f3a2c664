package route

// Pattern is one parsed pattern.
type Pattern struct{}

// ParseError says what is wrong with a pattern, and where.
type ParseError struct {
	Offset int // octets from the pattern's start
	Reason string
}

// Error returns the reason.
func (e *ParseError) Error() string { return e.Reason }

// ParsePattern reads a pattern; its errors are *ParseError.
func ParsePattern(s string) (*Pattern, error) { return nil, nil }

// String returns the pattern as written.
func (p *Pattern) String() string { return "" }

// Method is the pattern's method, or "" for any.
func (p *Pattern) Method() string { return "" }

// Host is the pattern's host, or "" for any.
func (p *Pattern) Host() string { return "" }

// Path is the pattern's path as written, from its first slash.
func (p *Pattern) Path() string { return "" }

// Names are the names of the pattern's wildcards in order.
func (p *Pattern) Names() []string { return nil }

// Relation says how the requests that two patterns match relate.
type Relation uint8

// The relations.
const (
	Disjoint     Relation = iota // no request matches both
	Equivalent                   // the same requests match both
	MoreSpecific                 // the first matches a part of what the second does, or is preferred for its host
	MoreGeneral                  // the reverse
	Overlaps                     // some requests match both, some only one: neither is preferred
)

// Compare relates two patterns.
func (p *Pattern) Compare(q *Pattern) Relation { return Disjoint }

// Conflicts reports whether neither of two patterns is preferred for a request that both match, and explains it with such a
// request.
func (p *Pattern) Conflicts(q *Pattern) (explanation string, conflict bool) { return "", false }

// Entry is a pattern and what it leads to.
type Entry[T any] struct {
	Pattern *Pattern
	Value   T
}

// Table finds the entry for a request.
type Table[T any] struct{}

// Params are the values of the wildcards of the pattern that matched.
type Params struct{}

// Get returns the value of the wildcard called name, or "".
func (p *Params) Get(name string) string { return "" }

// NewTable builds a table.
func NewTable[T any](entries []Entry[T]) *Table[T] { return nil }

// Match offers accept the entries that match, the most specific first, and returns the first it takes. A nil accept takes
// any; a nil params wants no values.
func (t *Table[T]) Match(method, host, path string, params *Params, accept func(T) bool) (value T, ok bool) {
	return value, false
}

// Allowed lists the methods with which a request for host and path would match an entry that accept takes.
func (t *Table[T]) Allowed(host, path string, accept func(T) bool) []string { return nil }

// Canonical returns the one canonical form of a request's path.
func Canonical(raw string) (string, error) { return raw, nil }

package exchange

import "time"

// Problem is why the gateway itself answers: what RFC 9457 calls problem details. Everything in it may be read by
// the caller, so nothing internal is put here.
type Problem struct {
	Status int           // HTTP status, 400 to 599
	Code   string        // stable machine-readable word, such as "insufficient_balance"; the last part of the type URI
	Title  string        // short and the same for every occurrence of Code
	Detail string        // about this occurrence; may be empty
	Param  string        // the request field at fault, if it is one; may be empty
	Retry  time.Duration // Retry-After; 0 for none
	Header Header        // further fields for the response, such as www-authenticate

	// A stage may answer with a body of its own instead of problem details; then Status may be any final status.
	ContentType string
	Body        []byte
}

// Error makes a Problem usable as an error.
func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Code + ": " + p.Detail
	}
	return p.Code + ": " + p.Title
}

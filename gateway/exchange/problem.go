package exchange

import (
	"encoding/json"
	"time"
)

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

// ProblemType is the media type of what Problem.JSON writes (RFC 9457 section 6.1).
const ProblemType = "application/problem+json"

// JSON writes the problem as problem details (RFC 9457 section 3) of the exchange with that ID; an empty ID names none.
// What is not UTF-8 in its texts is replaced. A body of its own is not looked at.
func (p *Problem) JSON(id string) []byte {
	if id != "" {
		id = "urn:postern:exchange:" + id
	}
	doc, err := json.Marshal(struct {
		Type     string `json:"type"` // where the problem is explained
		Title    string `json:"title"`
		Status   int    `json:"status"`
		Detail   string `json:"detail,omitempty"`
		Code     string `json:"code"`
		Param    string `json:"param,omitempty"`
		Instance string `json:"instance,omitempty"`
	}{"https://postern.example/problems/" + p.Code, p.Title, p.Status, p.Detail, p.Code, p.Param, id})
	if err != nil {
		panic(err) // strings and a number can always be written
	}
	return doc
}

// Error makes a Problem usable as an error.
func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Code + ": " + p.Detail
	}
	return p.Code + ": " + p.Title
}

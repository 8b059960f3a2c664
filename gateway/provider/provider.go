// Package provider is what the gateway knows of model APIs: its main type is Format. Each wire format lives in a folder
// below and passes providertest.Run.
package provider

import (
	"errors"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Errors a Format gives.
var (
	ErrOperation = errors.New("operation not known to the format")
)

// Operation is one call a format knows.
type Operation struct {
	Name    string // "chat", "embeddings", "models"
	Billed  bool   // consumes units; the others answer from the configuration
	Streams bool   // may answer with server-sent events
	Model   string // the model the path names ("GET /v1/models/small"); empty where the path names none
}

// Format is the wire format of a model API: how to read what a customer asks, how to ask an upstream, and how to read
// what it used. A Format has no state and is safe for concurrent use.
type Format interface {
	// Name is the word used in HCL: format = openai.
	Name() string
	// Operation finds what a request is by method and path; the path may have any prefix before the format's own. An
	// empty method stands for any. It is also given route patterns, to tell what a route serves.
	Operation(method, path string) (op Operation, ok bool)
	// Read takes from a request body what routing and billing need: model, stream, the most it can use. maxOutput is
	// the model's limit, for requests that name none. It is called before a model is known with maxOutput 0, and again
	// after. A body it can not read gives a Problem with status 400.
	Read(op Operation, header exchange.Header, body []byte, maxOutput int64) (exchange.Call, *exchange.Problem)
	// Encode makes the upstream's request from the customer's: its path below the endpoint's base, its body. The body
	// given is not changed. What it adds (a usage request the customer did not make) Decode takes out again.
	Encode(op Operation, call *exchange.Call, body []byte) (path string, encoded []byte, err error)
	// Decode reads one response. call.Model, the name the customer used, replaces the upstream's; request is the body that
	// was given to Encode, which tells what the customer asked for. It is kept until the decoder is dropped.
	Decode(op Operation, call *exchange.Call, request []byte) Decoder
	// Problem renders the gateway's own answer in the format's shape.
	Problem(p *exchange.Problem) (contentType string, body []byte)
	// Models renders the list of models (Operation "models"); name selects one, empty lists all.
	Models(models []ModelInfo, name string) (contentType string, body []byte, found bool)
	// Text tells what one server-sent event of a reply, as the customer gets it, adds to the text of each of the reply's
	// choices, which are numbered from 0. text is valid until add returns.
	Text(event []byte, add func(choice int, text []byte))
	// Receipt adds the receipt to a whole (not streamed) response body where the format has a place for it, or
	// returns body as it is.
	Receipt(body []byte, r *exchange.Receipt) []byte
}

// ModelInfo is one public model, for lists.
type ModelInfo struct {
	Name    string
	Summary string
	Created int64 // seconds since 1970 of the price row in force, or 0
}

// Decoder reads one upstream response as it arrives and turns it into what the customer gets. It belongs to one
// goroutine and keeps a bounded amount of the response.
type Decoder interface {
	// Whole is given a complete response body that is not a stream and returns what the customer gets.
	Whole(status int, body []byte) []byte
	// Event is given one server-sent event with its end (a blank line) and appends to dst what the customer gets,
	// which may be nothing. last reports the format's end mark ("data: [DONE]"), which is returned like any event.
	Event(dst, event []byte) (out []byte, last bool)
	// Usage is what the response said so far that it used. Where nothing was said it is counted from what was
	// delivered and flagged Estimated, at most call.Max. Counting costs some microseconds for each kilobyte that came
	// since the last call: call it at checkpoints and at the end rather than after every event. Before anything came it is
	// an estimate of the prompt: whether an upstream that said nothing yet is to be paid, the caller knows. It is zero for a
	// refusal, which is a status outside 2xx or an error in place of a reply.
	Usage() exchange.Usage
	// Failed reports that the response ended with the provider's own error inside a stream.
	Failed() bool
}

// Package openai speaks OpenAI's wire format: chat completions, embeddings and the list of models.
// Its main type is Format, a provider.Format.
//
// Bodies are scanned and spliced in place, never decoded and written anew, so that what the gateway does not need to
// touch stays as it is to the octet: member order, number spelling, fields that came after this code.
package openai

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/provider"
)

// The operations.
const (
	chat       = "chat"
	embeddings = "embeddings"
	models     = "models"
)

// Format is OpenAI's wire format. Use New; one value serves every request. It holds nothing but the vocabularies for
// counting tokens, loaded when first needed.
type Format struct {
	vocabularies *vocabularies
}

var _ provider.Format = (*Format)(nil)

// New returns the format.
func New() *Format { return &Format{vocabularies: new(vocabularies)} }

// Name is "openai".
func (f *Format) Name() string { return "openai" }

// Operation knows POST .../chat/completions, POST .../embeddings, GET .../models and GET .../models/NAME, where NAME may
// have slashes when the path says /v1/models/ before it. An empty method stands for any.
func (f *Format) Operation(method, path string) (provider.Operation, bool) {
	is := func(m string) bool { return method == m || method == "" }
	switch {
	case strings.HasSuffix(path, "/chat/completions"):
		return provider.Operation{Name: chat, Billed: true, Streams: true}, is("POST")
	case strings.HasSuffix(path, "/embeddings"):
		return provider.Operation{Name: embeddings, Billed: true}, is("POST")
	case strings.HasSuffix(path, "/models"):
		return provider.Operation{Name: models}, is("GET")
	}
	if _, name, ok := strings.Cut(path, "/v1/models/"); ok && name != "" {
		return provider.Operation{Name: models, Model: name}, is("GET")
	}
	if before, name, ok := cutLast(path, "/"); ok && name != "" && strings.HasSuffix(before, "/models") {
		return provider.Operation{Name: models, Model: name}, is("GET")
	}
	return provider.Operation{}, false
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Read scans the body once. It refuses with status 400 what upstream and gateway could understand differently: invalid
// JSON or UTF-8, a top-level name given twice, a name that differs from one it bills by only in upper and lower case.
//
// call.Max is the most the call can use. A token is at least one octet, so the octets of the body bound the prompt;
// images, audio and files are bounded by the constants in request.go instead of by their octets. The output is what the
// request allows, or else maxOutput, times the number of choices; Read refuses to ask for more than maxOutput when that
// is not 0.
func (f *Format) Read(op provider.Operation, header exchange.Header, body []byte, maxOutput int64) (exchange.Call, *exchange.Problem) {
	call := exchange.Call{Format: f.Name(), Operation: op.Name, Target: -1}
	if op.Name != chat && op.Name != embeddings {
		return call, nil // nothing is read from the body, and nothing is billed
	}
	if e := header.Get("content-encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return call, &exchange.Problem{
			Status: 415, Code: "unsupported_content_encoding", Title: "Content encoding not supported",
			Detail: "The body must be sent as plain JSON, without a content-encoding.",
		}
	}
	r, problem := readRequest(op.Name, body)
	if problem == nil {
		problem = r.limits(maxOutput)
	}
	if problem != nil {
		return call, problem
	}
	call.Model = r.name
	call.Stream = r.stream
	call.Private = r.private
	call.Max = r.most(maxOutput)
	return call, nil
}

// Encode replaces the model's name by the target's, asks for usage in a stream where the customer did not, and names the
// output limit where the customer named none, so that the call can not cost more than what was held for it. The path
// always begins with /v1; the endpoint's own base path goes before it, so an endpoint is written without /v1.
func (f *Format) Encode(op provider.Operation, call *exchange.Call, body []byte) (path string, encoded []byte, err error) {
	switch op.Name {
	case chat:
		path = "/v1/chat/completions"
	case embeddings:
		path = "/v1/embeddings"
	default:
		return "", nil, fmt.Errorf("encode %s: %w", op.Name, provider.ErrOperation)
	}
	target, ok := call.Chosen()
	if !ok {
		return "", nil, fmt.Errorf("encode %s: no target was chosen", op.Name)
	}
	r, problem := readRequest(op.Name, body)
	if problem != nil {
		return "", nil, fmt.Errorf("encode %s: %w", op.Name, problem)
	}
	encoded, err = r.encode(target.Model, call.Max.Units[exchange.Output])
	if err != nil {
		return "", nil, fmt.Errorf("encode %s: %w", op.Name, err)
	}
	return path, encoded, nil
}

// Problem renders OpenAI's error object. The clients choose their error class by the status: 401 AuthenticationError,
// 404 NotFoundError, 429 RateLimitError. 402 is a plain APIError, which they do not retry, with OpenAI's own word
// insufficient_quota: OpenAI itself answers 429 there, and its clients then repeat a call that can not succeed.
func (f *Format) Problem(p *exchange.Problem) (contentType string, body []byte) {
	kind, code := "invalid_request_error", p.Code
	switch {
	case p.Status == 401:
		code = "invalid_api_key"
	case p.Status == 402:
		kind, code = "insufficient_quota", "insufficient_quota"
	case p.Status == 403:
		kind = "permission_error"
	case p.Status == 429:
		kind, code = "requests", "rate_limit_exceeded"
		if strings.Contains(p.Code, "token") {
			kind = "tokens"
		}
	case p.Status >= 500:
		kind = "server_error"
	}
	message := p.Detail
	if message == "" {
		message = p.Title
	}
	type object struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}
	e := object{Message: message, Type: kind}
	if p.Param != "" {
		e.Param = &p.Param
	}
	if code != "" {
		e.Code = &code
	}
	return "application/json", mustJSON(map[string]object{"error": e})
}

// Models renders the list of models, or one.
func (f *Format) Models(list []provider.ModelInfo, name string) (contentType string, body []byte, found bool) {
	type object struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Created int64  `json:"created"`
		OwnedBy string `json:"owned_by"`
		Summary string `json:"summary,omitempty"` // not OpenAI's; clients keep fields they do not know
	}
	data := []object{}
	for _, m := range list {
		o := object{ID: m.Name, Object: "model", Created: m.Created, OwnedBy: "postern", Summary: m.Summary}
		if m.Name == name {
			return "application/json", mustJSON(o), true
		}
		data = append(data, o)
	}
	if name != "" {
		return "", nil, false
	}
	return "application/json", mustJSON(struct {
		Object string   `json:"object"`
		Data   []object `json:"data"`
	}{"list", data}), true
}

// Receipt adds the member postern_receipt to the usage object of a whole response. A body without a usage object has no
// place for it and stays as it is.
func (f *Format) Receipt(body []byte, r *exchange.Receipt) []byte {
	usage := span{}
	s := scanner{b: body}
	if s.peek() != '{' {
		return body
	}
	s.open('{')
	for first := true; s.next(first, '}'); first = false {
		k := s.key()
		v := s.skip()
		if means(body, k, "usage") {
			usage = v // the last one is what clients see
		}
	}
	s.end()
	if s.err != nil || !usage.found() || body[usage.from] != '{' {
		return body
	}
	member := append([]byte(`"postern_receipt":`), r.JSON()...)
	inside := scanner{b: body, i: usage.from + 1}
	if inside.peek() != '}' {
		member = append([]byte(","), member...)
	}
	// Before the closing brace: the members OpenAI documents stay first.
	at := span{usage.to - 1, usage.to - 1}
	return splice(make([]byte, 0, len(body)+len(member)), body, []edit{{at, member}})
}

// mustJSON encodes a value of which every part can be encoded.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("openai: " + err.Error()) // a programming error: the types above have no cycles, channels or functions
	}
	return b
}

// Package sandbox is an OpenAI-compatible model API that needs no model: its main type is Sandbox, an http.Handler. What it
// answers and how many tokens that is follows from the request alone, so that a demonstration costs nothing and a test
// can say beforehand what a call must cost.
//
// # Replies
//
// A chat is answered "You said: " and the last user message. With tools, a user message that names one of them (or
// tool_choice that asks for one) is answered by a call of it, with arguments made from its schema; the tool's result is
// answered "The tool said: " and the result. An embedding is a unit vector made from a hash of the input. Every model
// name is accepted; the list of models is Config.Models.
//
// # Tokens
//
// A text is one token for each four octets begun (Tokens). A chat's prompt is, for each message, three tokens and those
// of its text, 85 for each image and those of the tool calls' names and arguments; and the tokens of the JSON text of
// tools. Its completion is, for each choice, the tokens of the reply's text, or of the name and the arguments of the
// call. max_tokens and max_completion_tokens cut the text. An embedding's prompt is the tokens of its inputs.
//
// # Faults
//
// The header sandbox-fault, or else the model's name after "sandbox-", asks for one or more faults, joined by "+":
//
//	400 ... 599     that status with OpenAI's error object; 429 and 503 with retry-after: 1
//	cut-N           the connection breaks after N events of a stream, or in the middle of a whole reply
//	stall-N         after N events nothing more comes, for Config.Stall or until the client leaves
//	hang            nothing comes at all, for the same time
//	malformed-N     event N+1, or the whole reply, is no JSON
//	error-N         after N events an error object ends the stream
//	nousage         usage is never said
//	slow            ten times the pace, and ten times the pace before the first octet
//	cached          half of the prompt comes from a cache
//	reasoning       eight more tokens are written as reasoning
//	whole           a stream is asked for and a whole reply comes
//
// N is 2 where it is left out.
package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxBody is the most octets of a request body that are read.
const maxBody = 64 << 20

// Config makes a Sandbox. The zero value is of use.
type Config struct {
	// Key is what callers must send as "authorization: Bearer KEY"; empty: anything goes.
	Key string
	// Pace is the time between two events of a stream; 0: none.
	Pace time.Duration
	// Stall is how long stalls last when the client does not leave, default 1 minute.
	Stall time.Duration
	// Models are the names listed, default sandbox, sandbox-large and sandbox-embedding.
	Models []string
}

// Stats counts what a Sandbox did. It is what GET /sandbox/stats shows.
type Stats struct {
	Requests   int64          `json:"requests"`    // that came in, /sandbox/ aside
	Served     int64          `json:"served"`      // model calls that were answered to the end
	Broken     int64          `json:"broken"`      // model calls that began well and did not end
	Refused    int64          `json:"refused"`     // answered with a status of 400 or more
	Prompt     int64          `json:"prompt"`      // tokens of the calls served
	Completion int64          `json:"completion"`  // the same
	Cached     int64          `json:"cached"`      // of the prompt tokens
	Reasoning  int64          `json:"reasoning"`   // of the completion tokens
	Open       int64          `json:"open"`        // requests being answered
	Models     map[string]int `json:"models"`      // calls served, by model
	LastKey    string         `json:"last_key"`    // the bearer token of the last request
	LastBody   string         `json:"last_body"`   // the body of the last request, at most 64 KiB of it
	LastHeader http.Header    `json:"last_header"` // of the last request
}

// Sandbox is the handler. It is safe for concurrent use.
type Sandbox struct {
	cfg Config

	mu    sync.Mutex
	stats Stats
	ids   int64
}

// Handler makes a Sandbox.
func Handler(cfg Config) *Sandbox {
	if cfg.Stall <= 0 {
		cfg.Stall = time.Minute
	}
	if len(cfg.Models) == 0 {
		cfg.Models = []string{"sandbox", "sandbox-large", "sandbox-embedding"}
	}
	return &Sandbox{cfg: cfg, stats: Stats{Models: map[string]int{}}}
}

// Stats returns what was done so far.
func (s *Sandbox) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Models = make(map[string]int, len(s.stats.Models))
	for name, n := range s.stats.Models {
		stats.Models[name] = n
	}
	return stats
}

// Reset sets all counts to 0. Requests being answered stay counted as open.
func (s *Sandbox) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats = Stats{Models: map[string]int{}, Open: s.stats.Open}
}

// ServeHTTP answers POST /v1/chat/completions, POST /v1/embeddings, GET /v1/models, GET /v1/models/NAME, and for people
// and tests GET /sandbox/stats, POST /sandbox/reset and GET /health.
func (s *Sandbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET /sandbox/stats":
		writeJSON(w, http.StatusOK, s.Stats())
		return
	case "POST /sandbox/reset":
		s.Reset()
		w.WriteHeader(http.StatusNoContent)
		return
	case "GET /health":
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	key, _ := strings.CutPrefix(r.Header.Get("authorization"), "Bearer ")
	s.mu.Lock()
	s.stats.Requests++
	s.stats.Open++
	s.stats.LastKey = key
	s.stats.LastBody = string(body[:min(len(body), 64<<10)])
	s.stats.LastHeader = r.Header.Clone()
	s.ids++
	id := s.ids
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.stats.Open--
		s.mu.Unlock()
	}()

	a := &answer{sandbox: s, w: w, r: r, id: id}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		a.refuse(http.StatusRequestEntityTooLarge, "invalid_request_error", "request_too_large", "The body is too large.")
		return
	case err != nil:
		a.refuse(http.StatusBadRequest, "invalid_request_error", "", "The body can not be read.")
		return
	case s.cfg.Key != "" && key != s.cfg.Key:
		a.refuse(http.StatusUnauthorized, "invalid_request_error", "invalid_api_key", "Incorrect API key provided.")
		return
	}
	name, isModel := strings.CutPrefix(r.URL.Path, "/v1/models/")
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/v1/chat/completions":
		a.chat(body)
	case r.Method == http.MethodPost && r.URL.Path == "/v1/embeddings":
		a.embeddings(body)
	case r.Method == http.MethodGet && r.URL.Path == "/v1/models":
		list := []model{}
		for _, m := range s.cfg.Models {
			list = append(list, newModel(m))
		}
		writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": list})
	case r.Method == http.MethodGet && isModel:
		for _, m := range s.cfg.Models {
			if m == name {
				writeJSON(w, http.StatusOK, newModel(m))
				return
			}
		}
		a.refuse(http.StatusNotFound, "invalid_request_error", "model_not_found", fmt.Sprintf("The model %q does not exist.", name))
	default:
		a.refuse(http.StatusNotFound, "invalid_request_error", "", fmt.Sprintf("Unknown request URL: %s %s.", r.Method, r.URL.Path))
	}
}

// created is the time every reply bears, 2025-01-01: replies are deterministic.
const created = 1_735_689_600

type model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

func newModel(name string) model { return model{name, "model", created, "sandbox"} }

// Tokens is how many tokens a text is: one for each four octets begun.
func Tokens(text string) int64 { return int64(len(text)+3) / 4 }

// usage is OpenAI's usage object.
type usage struct {
	Prompt     int64              `json:"prompt_tokens"`
	Completion int64              `json:"completion_tokens"`
	Total      int64              `json:"total_tokens"`
	In         *promptDetails     `json:"prompt_tokens_details,omitempty"`
	Out        *completionDetails `json:"completion_tokens_details,omitempty"`
}

type promptDetails struct {
	Cached int64 `json:"cached_tokens"`
	Audio  int64 `json:"audio_tokens"`
}

type completionDetails struct {
	Reasoning int64 `json:"reasoning_tokens"`
	Audio     int64 `json:"audio_tokens"`
	Accepted  int64 `json:"accepted_prediction_tokens"`
	Rejected  int64 `json:"rejected_prediction_tokens"`
}

// answer is one request on its way to being answered.
type answer struct {
	sandbox *Sandbox
	w       http.ResponseWriter
	r       *http.Request
	id      int64
	faults  faults
}

// refuse answers with OpenAI's error object.
func (a *answer) refuse(status int, kind, code, message string) {
	a.sandbox.mu.Lock()
	a.sandbox.stats.Refused++
	a.sandbox.mu.Unlock()
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		a.w.Header().Set("retry-after", "1")
	}
	writeJSON(a.w, status, map[string]any{"error": errorObject(kind, code, message)})
}

func errorObject(kind, code, message string) map[string]any {
	e := map[string]any{"message": message, "type": kind, "param": nil, "code": nil}
	if code != "" {
		e["code"] = code
	}
	return e
}

// fault reads what faults a request asks for and carries out those that come before any reply. It returns false when the
// request has been answered.
func (a *answer) fault(model string) bool {
	a.faults = readFaults(a.r.Header.Get("sandbox-fault"), model)
	if a.faults.has("hang") {
		a.stall()
		a.broken()
		panic(http.ErrAbortHandler)
	}
	if status := a.faults.status; status != 0 {
		kind, code := "invalid_request_error", ""
		switch {
		case status == http.StatusTooManyRequests:
			kind, code = "requests", "rate_limit_exceeded"
		case status == http.StatusUnauthorized:
			code = "invalid_api_key"
		case status == http.StatusNotFound:
			code = "model_not_found"
		case status >= 500:
			kind = "server_error"
		}
		a.refuse(status, kind, code, fmt.Sprintf("The sandbox was asked to answer %d.", status))
		return false
	}
	if a.faults.has("slow") {
		return a.wait(10 * a.sandbox.cfg.Pace)
	}
	return true
}

// wait waits for d, and returns false when the client left first.
func (a *answer) wait(d time.Duration) bool {
	if d <= 0 {
		return a.r.Context().Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-a.r.Context().Done():
		return false
	}
}

// stall sends nothing for a while.
func (a *answer) stall() { a.wait(a.sandbox.cfg.Stall) }

// broken counts a call that did not end.
func (a *answer) broken() {
	a.sandbox.mu.Lock()
	a.sandbox.stats.Broken++
	a.sandbox.mu.Unlock()
}

// served counts a call that ended well.
func (a *answer) served(model string, u usage) {
	a.sandbox.mu.Lock()
	defer a.sandbox.mu.Unlock()
	st := &a.sandbox.stats
	st.Served++
	st.Prompt += u.Prompt
	st.Completion += u.Completion
	if u.In != nil {
		st.Cached += u.In.Cached
	}
	if u.Out != nil {
		st.Reasoning += u.Out.Reasoning
	}
	if len(st.Models) < 1000 { // names come from clients
		st.Models[model]++
	}
}

// whole sends a reply that is no stream.
func (a *answer) whole(model string, u usage, reply any) {
	body, err := json.Marshal(reply)
	if err != nil {
		panic(err) // a programming error: the replies are built here
	}
	h := a.w.Header()
	h.Set("content-type", "application/json")
	switch {
	case a.faults.has("malformed"):
		body = body[:len(body)/2]
	case a.faults.has("cut"), a.faults.has("stall"):
		h.Set("content-length", strconv.Itoa(len(body)))
		_, _ = a.w.Write(body[:len(body)/2])
		_ = http.NewResponseController(a.w).Flush()
		if a.faults.has("stall") {
			a.stall()
		}
		a.broken()
		panic(http.ErrAbortHandler) // how a handler breaks the connection off
	}
	h.Set("content-length", strconv.Itoa(len(body)))
	if _, err := a.w.Write(body); err != nil {
		a.broken()
		return
	}
	a.served(model, u)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // a programming error: what is written is built here
	}
	w.Header().Set("content-type", "application/json")
	w.Header().Set("content-length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that left needs no answer
}

// faults is what can go wrong with one answer.
type faults struct {
	status int
	after  map[string]int // by name; the number of events before it
}

func (f *faults) has(name string) bool { _, ok := f.after[name]; return ok }

// at reports whether fault name happens after n events.
func (f *faults) at(name string, n int) bool {
	after, ok := f.after[name]
	return ok && after == n
}

// readFaults reads the faults that header, or else model, asks for. What names no fault is none.
func readFaults(header, model string) faults {
	f := faults{after: map[string]int{}}
	list := header
	if list == "" {
		_, list, _ = strings.Cut(model, "sandbox-")
	}
	for name := range strings.SplitSeq(list, "+") {
		name = strings.TrimSpace(name)
		if status, err := strconv.Atoi(name); err == nil && status >= 400 && status <= 599 {
			f.status = status
			continue
		}
		name, number, given := strings.Cut(name, "-")
		n := 2
		if given {
			var err error
			if n, err = strconv.Atoi(number); err != nil || n < 0 {
				continue
			}
		}
		switch name {
		case "cut", "stall", "hang", "malformed", "error", "nousage", "slow", "cached", "reasoning", "whole":
			f.after[name] = n
		}
	}
	return f
}

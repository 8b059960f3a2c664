package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"unicode/utf8"
)

// reasoningTokens is what the fault "reasoning" adds to a completion.
const reasoningTokens = 8

// chatRequest is what the sandbox reads of a chat.
type chatRequest struct {
	Model         string    `json:"model"`
	Messages      []message `json:"messages"`
	Stream        bool      `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	MaxTokens           int64           `json:"max_tokens"`
	MaxCompletionTokens int64           `json:"max_completion_tokens"`
	N                   *int            `json:"n"`
	Tools               json.RawMessage `json:"tools"`
	ToolChoice          json.RawMessage `json:"tool_choice"`
}

type message struct {
	Role      string          `json:"role"`
	Content   json.RawMessage `json:"content"`
	ToolCalls []struct {
		Function struct {
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
}

type tool struct {
	Type     string `json:"type"`
	Function struct {
		Name       string `json:"name"`
		Parameters schema `json:"parameters"`
	} `json:"function"`
}

// schema is the part of JSON Schema that arguments are made from.
type schema struct {
	Type       string            `json:"type"`
	Properties map[string]schema `json:"properties"`
	Required   []string          `json:"required"`
	Items      *schema           `json:"items"`
	Enum       []any             `json:"enum"`
}

// text is a message's text and how many images it has. Content is a string or an array of parts.
func (m *message) text() (text string, images int64) {
	if json.Unmarshal(m.Content, &text) == nil {
		return text, 0
	}
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if json.Unmarshal(m.Content, &parts) != nil {
		return "", 0
	}
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.Text)
		if p.Type == "image_url" {
			images++
		}
	}
	return b.String(), images
}

// said is what the sandbox answers: a text, or a call of a tool.
type said struct {
	text      string
	tool      string
	arguments string
	finish    string // stop, length or tool_calls
}

func (s *said) tokens() int64 {
	if s.tool != "" {
		return Tokens(s.tool) + Tokens(s.arguments)
	}
	return Tokens(s.text)
}

// chat answers POST /v1/chat/completions.
func (a *answer) chat(body []byte) {
	var q chatRequest
	if err := json.Unmarshal(body, &q); err != nil {
		a.refuse(http.StatusBadRequest, "invalid_request_error", "", "The body is not valid: "+err.Error()+".")
		return
	}
	choices := 1
	if q.N != nil {
		choices = *q.N
	}
	switch {
	case q.Model == "":
		a.refuse(http.StatusBadRequest, "invalid_request_error", "", "You must provide a model parameter.")
		return
	case len(q.Messages) == 0:
		a.refuse(http.StatusBadRequest, "invalid_request_error", "", "You must provide messages.")
		return
	case choices < 1 || choices > 128:
		a.refuse(http.StatusBadRequest, "invalid_request_error", "", "n must be from 1 to 128.")
		return
	case q.MaxTokens < 0 || q.MaxCompletionTokens < 0:
		a.refuse(http.StatusBadRequest, "invalid_request_error", "", "The limit of tokens must be at least 1.")
		return
	}
	if !a.fault(q.Model) {
		return
	}
	reply := q.reply()
	limit := max(q.MaxTokens, q.MaxCompletionTokens)
	hidden := int64(0)
	if a.faults.has("reasoning") {
		hidden = reasoningTokens
		if limit > 0 {
			hidden = min(hidden, limit)
		}
	}
	if limit > 0 && reply.tokens() > limit-hidden {
		reply.cut(limit - hidden)
	}
	u := usage{
		Prompt:     q.prompt(),
		Completion: int64(choices) * (reply.tokens() + hidden),
		In:         &promptDetails{},
		Out:        &completionDetails{Reasoning: int64(choices) * hidden},
	}
	if a.faults.has("cached") {
		u.In.Cached = u.Prompt / 2
	}
	u.Total = u.Prompt + u.Completion
	if q.Stream && !a.faults.has("whole") {
		a.stream(&q, reply, choices, u)
		return
	}
	list := []any{}
	for i := range choices {
		m := map[string]any{"role": "assistant", "content": reply.text, "refusal": nil, "annotations": []any{}}
		if reply.tool != "" {
			m["content"] = nil
			m["tool_calls"] = []any{a.call(&reply, i, -1, reply.arguments)}
		}
		list = append(list, map[string]any{"index": i, "message": m, "logprobs": nil, "finish_reason": reply.finish})
	}
	whole := map[string]any{
		"id": a.name(), "object": "chat.completion", "created": int64(created), "model": q.Model, "choices": list,
		"usage": u, "service_tier": "default", "system_fingerprint": "fp_sandbox",
	}
	if a.faults.has("nousage") {
		delete(whole, "usage")
	}
	a.whole(q.Model, u, whole)
}

func (a *answer) name() string { return fmt.Sprintf("chatcmpl-sandbox-%d", a.id) }

// call is a tool_calls entry; index is left out when negative.
func (a *answer) call(s *said, choice, index int, arguments string) map[string]any {
	c := map[string]any{
		"id": fmt.Sprintf("call_sandbox_%d_%d", a.id, choice), "type": "function",
		"function": map[string]any{"name": s.tool, "arguments": arguments},
	}
	if index >= 0 {
		c["index"] = index
	}
	return c
}

// prompt counts the prompt's tokens, by the rule in the package's comment.
func (q *chatRequest) prompt() int64 {
	n := int64(0)
	for i := range q.Messages {
		text, images := q.Messages[i].text()
		n += 3 + Tokens(text) + 85*images
		for _, c := range q.Messages[i].ToolCalls {
			n += Tokens(c.Function.Name) + Tokens(c.Function.Arguments)
		}
	}
	if len(q.Tools) > 0 && !bytes.Equal(q.Tools, []byte("null")) {
		n += Tokens(string(q.Tools))
	}
	return n
}

// reply decides what to answer.
func (q *chatRequest) reply() said {
	last := q.Messages[len(q.Messages)-1]
	if last.Role == "tool" || last.Role == "function" {
		text, _ := last.text()
		return said{text: "The tool said: " + text, finish: "stop"}
	}
	text := ""
	for i := range q.Messages {
		if q.Messages[i].Role == "user" {
			text, _ = q.Messages[i].text()
		}
	}
	var tools []tool
	if json.Unmarshal(q.Tools, &tools) == nil {
		var word string
		var choice tool
		_ = json.Unmarshal(q.ToolChoice, &word)   // "auto", "none" or "required"; else an object
		_ = json.Unmarshal(q.ToolChoice, &choice) // the zero value where it is no object
		for _, t := range tools {
			name := t.Function.Name
			if name != "" && word != "none" && (word == "required" || choice.Function.Name == name || strings.Contains(text, name)) {
				arguments, err := json.Marshal(t.Function.Parameters.example(0))
				if err != nil {
					arguments = []byte("{}")
				}
				return said{tool: name, arguments: string(arguments), finish: "tool_calls"}
			}
		}
	}
	return said{text: "You said: " + text, finish: "stop"}
}

// example makes a value that fits the schema: required members only, the first of an enumeration, "sandbox", 1, true.
func (s *schema) example(depth int) any {
	if len(s.Enum) > 0 {
		return s.Enum[0]
	}
	switch s.Type {
	case "string":
		return "sandbox"
	case "number", "integer":
		return 1
	case "boolean":
		return true
	case "null":
		return nil
	case "array":
		if s.Items == nil || depth > 8 {
			return []any{}
		}
		return []any{s.Items.example(depth + 1)}
	}
	object := map[string]any{}
	sort.Strings(s.Required)
	for _, name := range s.Required {
		if p, ok := s.Properties[name]; ok && depth <= 8 {
			object[name] = p.example(depth + 1)
		}
	}
	return object
}

// cut shortens an answer to at most limit tokens.
func (s *said) cut(limit int64) {
	s.finish = "length"
	if s.tool != "" {
		s.text, s.tool, s.arguments = "", "", "" // half a call is none
		return
	}
	n := min(int(limit)*4, len(s.text))
	for n > 0 && n < len(s.text) && !utf8.RuneStart(s.text[n]) {
		n--
	}
	s.text = s.text[:n]
}

// pieces splits a text as a model would write it: about four octets each, never within a character.
func pieces(text string) []string {
	var list []string
	for len(text) > 0 {
		n := min(4, len(text))
		for n < len(text) && !utf8.RuneStart(text[n]) {
			n++
		}
		list = append(list, text[:n])
		text = text[n:]
	}
	return list
}

// stream answers with server-sent events.
func (a *answer) stream(q *chatRequest, reply said, choices int, u usage) {
	asked := q.StreamOptions.IncludeUsage && !a.faults.has("nousage")
	h := a.w.Header()
	h.Set("content-type", "text/event-stream; charset=utf-8")
	h.Set("cache-control", "no-cache")
	e := &events{answer: a, model: q.Model, asked: asked}
	first := map[string]any{"role": "assistant", "content": "", "refusal": nil}
	parts := pieces(reply.text)
	if reply.tool != "" {
		parts = pieces(reply.arguments)
	}
	for i := range choices {
		if reply.tool != "" {
			first = map[string]any{"role": "assistant", "content": nil, "tool_calls": []any{a.call(&reply, i, 0, "")}, "refusal": nil}
		}
		e.choice(i, first, nil)
	}
	for _, part := range parts {
		for i := range choices {
			delta := map[string]any{"content": part}
			if reply.tool != "" {
				delta = map[string]any{"tool_calls": []any{map[string]any{"index": 0, "function": map[string]any{"arguments": part}}}}
			}
			e.choice(i, delta, nil)
		}
	}
	for i := range choices {
		e.choice(i, map[string]any{}, reply.finish)
	}
	if asked {
		e.send(e.chunk([]any{}, u))
	}
	e.raw("[DONE]")
	if e.gone {
		a.broken()
		return
	}
	a.served(q.Model, u)
}

// events writes a stream's events, with its faults.
type events struct {
	answer *answer
	model  string
	asked  bool // usage: null is in every chunk, as OpenAI does when usage was asked for
	sent   int
	gone   bool
}

func (e *events) chunk(choices []any, u any) map[string]any {
	c := map[string]any{
		"id": e.answer.name(), "object": "chat.completion.chunk", "created": int64(created), "model": e.model,
		"choices": choices, "service_tier": "default", "system_fingerprint": "fp_sandbox",
	}
	if e.asked {
		c["usage"] = u
	}
	return c
}

func (e *events) choice(index int, delta map[string]any, finish any) {
	e.send(e.chunk([]any{map[string]any{"index": index, "delta": delta, "logprobs": nil, "finish_reason": finish}}, nil))
}

func (e *events) send(chunk map[string]any) {
	body, err := json.Marshal(chunk)
	if err != nil {
		panic(err) // a programming error: chunks are built here
	}
	e.raw(string(body))
}

// raw writes one event, unless a fault comes first. A fault that ends the stream panics with http.ErrAbortHandler, by
// which net/http breaks the connection off.
func (e *events) raw(data string) {
	a := e.answer
	switch {
	case e.gone:
		return
	case a.faults.at("cut", e.sent):
		a.broken()
		panic(http.ErrAbortHandler)
	case a.faults.at("stall", e.sent):
		a.stall()
		a.broken()
		panic(http.ErrAbortHandler)
	case a.faults.at("error", e.sent):
		body, err := json.Marshal(map[string]any{"error": errorObject("server_error", "", "The sandbox was asked to fail.")})
		if err != nil {
			panic(err) // a programming error, as above
		}
		e.write(string(body))
		e.gone = true
		return
	case a.faults.at("malformed", e.sent):
		data = data[:len(data)/2]
	}
	pace := a.sandbox.cfg.Pace
	if a.faults.has("slow") {
		pace *= 10
	}
	if e.sent > 0 && !a.wait(pace) {
		e.gone = true
		return
	}
	e.write(data)
}

func (e *events) write(data string) {
	_, err := fmt.Fprintf(e.answer.w, "data: %s\n\n", data)
	if err == nil {
		err = http.NewResponseController(e.answer.w).Flush()
	}
	e.gone = e.gone || err != nil
	e.sent++
}

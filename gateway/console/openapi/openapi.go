// Package openapi says what a configuration offers to callers: the list of its public calls, calls to copy, and an OpenAPI 3.1
// document. Its main type is Endpoint. All of it is made of routes and models, so that it is true as soon as a configuration
// is in force.
package openapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/provider"
)

// Endpoint is one public call.
type Endpoint struct {
	Route     string
	Method    string // empty: any
	Host      string // empty: any
	Path      string // as patterns have it
	Summary   string // the operator's; may be empty
	Format    string // of a model API; else empty
	Operation string // with Format
	Billed    bool   // it costs what its model costs
	Streams   bool   // it may answer with server-sent events
	Key       bool   // it needs a key or a token: a stage finds out who calls
	Models    []*config.Model
}

// Endpoints are the public calls of c, in the order of the files: routes with models, and of the others those with a summary.
func Endpoints(c *config.Config, formats []provider.Format) []*Endpoint {
	var list []*Endpoint
	for _, r := range c.Routes {
		if r.Console || len(r.Models) == 0 && r.Summary == "" {
			continue
		}
		e := &Endpoint{
			Route: r.Name, Method: r.Pattern.Method(), Host: r.Pattern.Host(), Path: r.Pattern.Path(), Summary: r.Summary,
			Format: r.Format, Operation: r.Operation, Key: len(r.Chain()[exchange.Authenticate]) > 0, Models: r.Models,
		}
		for _, f := range formats {
			if op, ok := f.Operation(e.Method, e.Path); ok && f.Name() == e.Format {
				e.Billed, e.Streams = op.Billed, op.Streams
			}
		}
		list = append(list, e)
	}
	return list
}

// Callable are the models that some endpoint serves for money or for nothing, each once, with the endpoints that do.
func Callable(list []*Endpoint) (models []*config.Model, by map[string][]*Endpoint) {
	by = map[string][]*Endpoint{}
	for _, e := range list {
		if !e.Billed {
			continue
		}
		for _, m := range e.Models {
			if by[m.Name] == nil {
				models = append(models, m)
			}
			by[m.Name] = append(by[m.Name], e)
		}
	}
	return models, by
}

// Call is a call to copy.
type Call struct {
	Name     string // curl, Python, JavaScript
	Language string // of the text: sh, python, js
	Text     string
}

// example is the body of a call to a model, but for the model's name.
func example(operation string) (member string, value any) {
	switch operation {
	case "chat":
		return "messages", []map[string]string{{"role": "user", "content": "Hello!"}}
	case "embeddings":
		return "input", "Hello!"
	}
	return "", nil
}

// Calls are calls of a model by e, to copy. base is scheme://host[:port]; the key is read from POSTERN_KEY.
func (e *Endpoint) Calls(base, model string) []Call {
	url := e.URL(base)
	member, value := example(e.Operation)
	body := `{"model":` + quote(model)
	if member != "" {
		body += `,"` + member + `":` + quote(value)
	}
	body += "}"
	curl := fmt.Sprintf("curl %s \\\n", shell(url))
	if e.Key {
		curl += "  -H \"Authorization: Bearer $POSTERN_KEY\" \\\n"
	}
	curl += "  -H 'Content-Type: application/json' \\\n  -d " + shell(body)
	calls := []Call{{Name: "curl", Language: "sh", Text: curl}}
	prefix, known := strings.CutSuffix(url, map[string]string{"chat": "/chat/completions", "embeddings": "/embeddings"}[e.Operation])
	if e.Format != "openai" || !known || prefix == url {
		return calls
	}
	pm, jm := quote(model), quote(model)
	switch e.Operation {
	case "chat":
		return append(calls,
			Call{Name: "Python", Language: "python", Text: fmt.Sprintf(`import os
from openai import OpenAI

client = OpenAI(base_url=%s, api_key=os.environ["POSTERN_KEY"])
reply = client.chat.completions.create(
    model=%s,
    messages=[{"role": "user", "content": "Hello!"}],
)
print(reply.choices[0].message.content)`, quote(prefix), pm)},
			Call{Name: "JavaScript", Language: "js", Text: fmt.Sprintf(`import OpenAI from "openai";

const client = new OpenAI({ baseURL: %s, apiKey: process.env.POSTERN_KEY });
const reply = await client.chat.completions.create({
  model: %s,
  messages: [{ role: "user", content: "Hello!" }],
});
console.log(reply.choices[0].message.content);`, quote(prefix), jm)})
	case "embeddings":
		return append(calls,
			Call{Name: "Python", Language: "python", Text: fmt.Sprintf(`import os
from openai import OpenAI

client = OpenAI(base_url=%s, api_key=os.environ["POSTERN_KEY"])
reply = client.embeddings.create(model=%s, input="Hello!")
print(len(reply.data[0].embedding))`, quote(prefix), pm)},
			Call{Name: "JavaScript", Language: "js", Text: fmt.Sprintf(`import OpenAI from "openai";

const client = new OpenAI({ baseURL: %s, apiKey: process.env.POSTERN_KEY });
const reply = await client.embeddings.create({ model: %s, input: "Hello!" });
console.log(reply.data[0].embedding.length);`, quote(prefix), jm)})
	}
	return calls
}

// Plain is a call of an endpoint without a model.
func (e *Endpoint) Plain(base string) Call {
	text := "curl " + shell(e.URL(base))
	if e.Method != "" && e.Method != "GET" {
		text = "curl -X " + e.Method + " " + shell(e.URL(base))
	}
	if e.Key {
		text += " \\\n  -H \"Authorization: Bearer $POSTERN_KEY\""
	}
	return Call{Name: "curl", Language: "sh", Text: text}
}

// URL is where the endpoint is called.
func (e *Endpoint) URL(base string) string {
	if e.Host != "" {
		scheme, _, _ := strings.Cut(base, "://")
		base = scheme + "://" + e.Host
	}
	return base + strings.TrimSuffix(e.Path, "{$}")
}

// quote writes v as JSON, which is a text of Python and JavaScript too.
func quote(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "null" // texts and lists of texts can always be written
	}
	return string(b)
}

// shell writes a word so that a shell reads it as it is.
func shell(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

type object = map[string]any

// Document is an OpenAPI 3.1 document of the endpoints. version is the configuration's digest.
func Document(title, version, base string, list []*Endpoint) ([]byte, error) {
	paths := map[string]object{}
	for _, e := range list {
		path, parameters := template(e.Path)
		if paths[path] == nil {
			paths[path] = object{}
		}
		method := strings.ToLower(e.Method)
		if method == "" {
			method = "get"
		}
		if !slices.Contains([]string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}, method) {
			continue // OpenAPI 3.1 knows no others
		}
		op := object{"operationId": e.Route, "responses": responses(e)}
		if e.Summary != "" {
			op["summary"] = e.Summary
		}
		if len(parameters) > 0 {
			op["parameters"] = parameters
		}
		if e.Key {
			op["security"] = []object{{"key": []string{}}}
		}
		if e.Host != "" {
			scheme, _, _ := strings.Cut(base, "://")
			op["servers"] = []object{{"url": scheme + "://" + e.Host}}
		}
		if e.Billed {
			op["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": request(e)}}}
		}
		paths[path][method] = op
	}
	return json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info":    object{"title": title, "version": version},
		"servers": []object{{"url": base}},
		"paths":   paths,
		"components": object{
			"securitySchemes": object{"key": object{"type": "http", "scheme": "bearer"}},
			"schemas": object{"Problem": object{
				"type": "object", "description": "RFC 9457 problem details",
				"properties": object{
					"type": object{"type": "string", "format": "uri"}, "title": object{"type": "string"}, "status": object{"type": "integer"},
					"detail": object{"type": "string"}, "code": object{"type": "string"}, "param": object{"type": "string"}, "instance": object{"type": "string"},
				},
			}},
		},
	}, "", "  ")
}

// template is a pattern's path as OpenAPI has it, with its parameters.
func template(path string) (string, []object) {
	var parameters []object
	path = strings.TrimSuffix(path, "{$}")
	segments := strings.Split(path, "/")
	for i, s := range segments {
		name, ok := strings.CutPrefix(s, "{")
		if !ok {
			continue
		}
		name = strings.TrimSuffix(strings.TrimSuffix(name, "}"), "...")
		segments[i] = "{" + name + "}"
		parameters = append(parameters, object{"name": name, "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	return strings.Join(segments, "/"), parameters
}

// request is the schema of a model call's body: what the gateway itself reads; the provider's own documents say the rest.
func request(e *Endpoint) object {
	var names []string
	for _, m := range e.Models {
		names = append(names, m.Name)
	}
	properties, required := object{"model": object{"type": "string", "enum": names}}, []string{"model"}
	switch e.Operation {
	case "chat":
		properties["messages"] = object{"type": "array", "minItems": 1, "items": object{
			"type": "object", "required": []string{"role"},
			"properties": object{"role": object{"type": "string"}, "content": object{}},
		}}
		properties["stream"] = object{"type": "boolean", "default": false}
		properties["max_tokens"] = object{"type": "integer", "minimum": 1}
		required = append(required, "messages")
	case "embeddings":
		properties["input"] = object{"anyOf": []object{{"type": "string"}, {"type": "array"}}}
		required = append(required, "input")
	}
	example, value := example(e.Operation)
	schema := object{"type": "object", "required": required, "properties": properties, "additionalProperties": true}
	if example != "" && len(names) > 0 {
		schema["examples"] = []object{{"model": names[0], example: value}}
	}
	return schema
}

// responses are what a call may be answered with.
func responses(e *Endpoint) object {
	ok := object{"description": "The answer."}
	if e.Format != "" {
		content := object{"application/json": object{"schema": object{"type": "object"}}}
		if e.Streams {
			content["text/event-stream"] = object{"schema": object{"type": "string"}}
		}
		ok["content"] = content
	}
	problem := object{"description": "Why there is no answer.", "content": object{"application/problem+json": object{"schema": object{"$ref": "#/components/schemas/Problem"}}}}
	if e.Format != "" { // in the format's own shape
		problem = object{"description": "Why there is no answer.", "content": object{"application/json": object{"schema": object{"type": "object"}}}}
	}
	all := object{"default": problem}
	if e.Format != "" {
		all["200"] = ok
	} else {
		all["2XX"] = ok
	}
	return all
}

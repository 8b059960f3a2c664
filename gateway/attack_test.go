package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/server"
	"github.com/postern-gateway/postern/gateway/telemetry"
)

// villain plays a model provider that a test writes the answers of, and keeps what it was asked.
type villain struct {
	mu     sync.Mutex
	answer http.HandlerFunc
	asks   []ask
}

// play sets how it answers from now on.
func (p *villain) play(answer http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

// ask is one request as the provider got it.
type ask struct {
	header http.Header
	target string
	body   string
}

func (p *villain) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	p.mu.Lock()
	p.asks = append(p.asks, ask{header: r.Header.Clone(), target: r.RequestURI, body: string(b)})
	answer := p.answer
	p.mu.Unlock()
	if answer == nil {
		complete(w, "fine", `{"prompt_tokens":5,"completion_tokens":1}`)
		return
	}
	answer(w, r)
}

// last is the last request, and how many there were.
func (p *villain) last() (ask, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.asks) == 0 {
		return ask{}, 0
	}
	return p.asks[len(p.asks)-1], len(p.asks)
}

// complete answers a chat. usage is put in as it is; empty leaves it out.
func complete(w http.ResponseWriter, content, usage string) {
	w.Header().Set("content-type", "application/json")
	if usage != "" {
		usage = `,"usage":` + usage
	}
	text, _ := json.Marshal(content)
	fmt.Fprintf(w, `{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":%s},"finish_reason":"stop"}]%s}`, text, usage)
}

// attacked runs a gateway in front of p. It must be called before anything is asked.
func attacked(t *testing.T, files map[string]string, p *villain) *node {
	t.Helper()
	n := start(t, files)
	n.gate.next = p
	return n
}

// meant is every string that a JSON text holds, nested texts included, for those who read what a provider would.
func meant(b []byte) string {
	var v any
	if json.Unmarshal(b, &v) != nil {
		return string(b)
	}
	var all strings.Builder
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			all.WriteString(v + "\n")
			if strings.HasPrefix(strings.TrimSpace(v), "{") && v != "" {
				all.WriteString(meant([]byte(v)))
			}
		case []any:
			for _, m := range v {
				walk(m)
			}
		case map[string]any:
			for name, m := range v {
				all.WriteString(name + "\n")
				walk(m)
			}
		case float64:
			fmt.Fprintf(&all, "%.0f\n", v)
		}
	}
	walk(v)
	return all.String()
}

// TestRedactionHolds: a request that a policy with redact lets through does not carry the data in any writing that its
// reader would take for it.
func TestRedactionHolds(t *testing.T) {
	t.Parallel()
	p := new(villain)
	n := attacked(t, nil, p)
	_, key := n.customer(t, "100")
	c := n.client(t, "http1")
	user := func(content string) string {
		return `{"model":"small","messages":[{"role":"user","content":` + content + `}]}`
	}
	for _, tt := range []struct {
		name, contentType, body string
		secret                  string // what must not arrive; default jane@example.com
	}{
		{name: "plain", body: user(`"I am jane@example.com"`)},
		{name: "escaped", body: user(`"I am jane\u0040example\u002ecom"`)},
		{name: "escaped, said to be text", contentType: "text/plain", body: user(`"I am jane\u0040example.com"`)},
		{name: "escaped, said to be text in JSON", contentType: "text/json", body: user(`"I am jane\u0040example.com"`)},
		{name: "escaped, said to be a form", contentType: "application/x-www-form-urlencoded", body: user(`"I am jane\u0040example.com"`)},
		{name: "escaped, without a type", contentType: "-", body: user(`"I am jane\u0040example.com"`)},
		{name: "said to be UTF-16", contentType: "application/json; charset=utf-16", body: user(`"I am jane\u0040example.com"`)},
		{name: "parts", body: user(`[{"type":"text","text":"I am jane@example.com"},{"type":"text","text":"and jane@example.com"}]`)},
		{name: "name of the speaker", body: `{"model":"small","messages":[{"role":"user","name":"jane@example.com","content":"hi"}]}`},
		{name: "user", body: `{"model":"small","user":"jane@example.com","messages":[{"role":"user","content":"hi"}]}`},
		{name: "metadata", body: `{"model":"small","metadata":{"who":"jane@example.com"},"messages":[{"role":"user","content":"hi"}]}`},
		{name: "a name in metadata", body: `{"model":"small","metadata":{"jane@example.com":"1"},"messages":[{"role":"user","content":"hi"}]}`},
		{name: "an escaped name", body: `{"model":"small","metadata":{"jane\u0040example.com":"1"},"messages":[{"role":"user","content":"hi"}]}`},
		{name: "prediction", body: `{"model":"small","prediction":{"type":"content","content":"jane@example.com"},"messages":[{"role":"user","content":"hi"}]}`},
		{name: "stop", body: `{"model":"small","stop":["jane@example.com"],"messages":[{"role":"user","content":"hi"}]}`},
		{name: "role", body: `{"model":"small","messages":[{"role":"jane@example.com","content":"hi"}]}`},
		{name: "tool description", body: `{"model":"small","tools":[{"type":"function","function":{"name":"f","description":"for jane@example.com","parameters":{"type":"object","properties":{"jane@example.com":{"type":"string"}}}}}],"messages":[{"role":"user","content":"hi"}]}`},
		{name: "tool name", body: `{"model":"small","tools":[{"type":"function","function":{"name":"jane@example.com"}}],"messages":[{"role":"user","content":"hi"}]}`},
		{name: "function", body: `{"model":"small","functions":[{"name":"f","description":"for jane@example.com"}],"messages":[{"role":"user","content":"hi"}]}`},
		{name: "schema", body: `{"model":"small","response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"description":"of jane@example.com"}}},"messages":[{"role":"user","content":"hi"}]}`},
		{name: "tool arguments", body: `{"model":"small","messages":[{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"to\":\"jane\\u0040example.com\"}"}}]},{"role":"tool","tool_call_id":"a","content":"ok"}]}`},
		{name: "a name in tool arguments", body: `{"model":"small","messages":[{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"jane@example.com\":1}"}}]},{"role":"tool","tool_call_id":"a","content":"ok"}]}`},
		{name: "a card as a number in a tool's result", secret: "4111111111111111", body: `{"model":"small","messages":[{"role":"tool","tool_call_id":"a","content":"{\"card\":4111111111111111}"}]}`},
		{name: "a card as a number in arguments", secret: "4111111111111111", body: `{"model":"small","messages":[{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"card\": [4111111111111111]}"}}]},{"role":"tool","tool_call_id":"a","content":"ok"}]}`},
		{name: "full width", secret: "jane＠example.com", body: user(`"I am jane＠example.com"`)},
		{name: "full width digits", secret: "１３８１２３４５６７８", body: user(`"我的手机是１３８１２３４５６７８。"`)},
		{name: "zero width", secret: "jane@\u200bexample.com", body: user("\"I am jane@\u200bexample.com\"")},
		{name: "soft hyphen", secret: "exam\u00adple", body: user("\"I am jane@exam\u00adple.com\"")},
		{name: "no-break space", secret: "1111\u00a01111", body: user("\"card 4111\u00a01111\u00a01111\u00a01111\"")},
		{name: "no-break hyphen", secret: "1111\u20111111", body: user("\"card 4111\u20111111\u20111111\u20111111\"")},
		{name: "duplicate fields in a message", body: `{"model":"small","messages":[{"role":"user","content":"jane@example.com","content":"hi jane@example.com"}]}`},
		{name: "twice the messages", body: `{"model":"small","messages":[{"role":"user","content":"hi"}],"messages":[{"role":"user","content":"jane@example.com"}]}`},
		{name: "behind the end", body: user(`"hi"`) + `{"x":"jane@example.com"}`},
		{name: "surrogates apart", body: user(`"\ud83d jane@example.com \ude00"`)},
		{name: "deep", body: user(strings.Repeat("[", 150) + `"jane@example.com"` + strings.Repeat("]", 150))},
	} {
		r, _ := http.NewRequestWithContext(t.Context(), "POST", n.url+"/v1/chat/completions", strings.NewReader(tt.body))
		r.Header.Set("Authorization", "Bearer "+key)
		r.Header.Set("Content-Type", "application/json")
		switch tt.contentType {
		case "":
		case "-":
			r.Header.Del("Content-Type")
		default:
			r.Header.Set("Content-Type", tt.contentType)
		}
		_, before := p.last()
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(tt.name, err)
		}
		reply, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		got, after := p.last()
		if resp.StatusCode != 200 && (resp.StatusCode < 400 || resp.StatusCode > 499) {
			t.Errorf("%s: %d %s", tt.name, resp.StatusCode, reply)
		}
		if after == before {
			if resp.StatusCode == 200 {
				t.Errorf("%s: answered without the provider", tt.name)
			}
			continue
		}
		secret := tt.secret
		if secret == "" {
			secret = "jane@example.com"
		}
		if !utf8.ValidString(got.body) || !json.Valid([]byte(got.body)) {
			t.Errorf("%s: no JSON reached the provider: %s", tt.name, got.body)
		}
		if strings.Contains(meant([]byte(got.body)), secret) || strings.Contains(got.body, secret) {
			t.Errorf("%s: the provider got %s", tt.name, got.body)
		}
		if ct := got.header.Values("Content-Type"); len(ct) != 1 || ct[0] != "application/json" {
			t.Errorf("%s: the provider got the content types %q", tt.name, ct)
		}
	}
}

// brokenReply is a reply whose transport fails as no transport should.
type brokenReply struct{ exchange.Reply }

func (brokenReply) Head(int, exchange.Header, int64) error { panic("the transport is broken") }

// TestPanicLeavesNoHold: a fault in the gateway itself, after the provider has answered, costs its exchange; the call is
// settled all the same.
func TestPanicLeavesNoHold(t *testing.T) {
	t.Parallel()
	n := attacked(t, nil, new(villain))
	account, key := n.customer(t, "10")
	body := []byte(`{"model":"small","messages":[{"role":"user","content":"hi"}]}`)
	x := &exchange.Exchange{ID: "x", Listener: "public", Reply: brokenReply{}}
	x.Request = exchange.Request{
		Protocol: exchange.HTTP1, Method: "POST", Scheme: "https", Authority: "gateway.test", Path: "/v1/chat/completions",
		Header: exchange.Header{{Name: "authorization", Value: "Bearer " + key}, {Name: "content-type", Value: "application/json"}},
		Body:   exchange.NewBytes(body), Length: int64(len(body)),
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the listener is not told")
			}
		}()
		n.Serve(t.Context(), x)
	}()
	if list := n.settled(t, account); len(list) != 1 || list[0].usage.Prompt() != 5 {
		t.Errorf("charged %+v", list)
	}
	n.verify(t)
}

// plain is a configuration that passes /plain/ on to an upstream at address.
func plain(address string) map[string]string {
	return map[string]string{"config.hcl": `
variable "listen" {
  default = "127.0.0.1:8443"
}

state "memory" {}

listener "public" {
  address   = var.listen
  protocols = [http1, http2]
}

upstream "app" {
  endpoints = [` + strconv.Quote(address) + `]
}

route "plain" {
  listener = listener.public
  match    = "/plain/"
  upstream = upstream.app
}
`}
}

// TestReportedUsage: whatever a provider says was used, a call costs from nothing to what was held, once, and nothing
// stays held.
func TestReportedUsage(t *testing.T) {
	t.Parallel()
	p := new(villain)
	n := attacked(t, spendConfig(), p)
	c := n.client(t, "http1")
	// Of the model plain: 200 tokens at 0.02 (reasoning is the dearest), and the request's octets at 0.001.
	most := money(t, "4.2")
	for _, usage := range []string{
		"", `null`, `[]`, `7`, `"x"`, `{}`, `{"prompt_tokens":0,"completion_tokens":0}`,
		`{"prompt_tokens":-5,"completion_tokens":-1}`,
		`{"prompt_tokens":-5,"completion_tokens":3}`,
		`{"prompt_tokens":9223372036854775807,"completion_tokens":9223372036854775807}`,
		`{"prompt_tokens":1e308,"completion_tokens":1e400}`,
		`{"prompt_tokens":9007199254740992,"completion_tokens":9007199254740992}`,
		`{"prompt_tokens":"12","completion_tokens":"3"}`,
		`{"prompt_tokens":12.7,"completion_tokens":3.0}`,
		`{"prompt_tokens":{"a":1},"completion_tokens":[2]}`,
		`{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":50}}`,
		`{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":-50,"audio_tokens":9e99}}`,
		`{"prompt_tokens":5,"completion_tokens":1,"completion_tokens_details":{"reasoning_tokens":9007199254740992}}`,
		`{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":7,"completion_tokens_details":"x"}`,
		`{"prompt_tokens":5,"completion_tokens":1},"usage":{"prompt_tokens":0,"completion_tokens":0}`,
		`{"total_tokens":99}`,
	} {
		for _, stream := range []bool{false, true} {
			account, key := n.customer(t, "10")
			p.play(func(w http.ResponseWriter, _ *http.Request) {
				if !stream {
					complete(w, "fine", usage)
					return
				}
				w.Header().Set("content-type", "text/event-stream")
				fmt.Fprint(w, "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"fine\"}}]}\n\n")
				if usage != "" {
					fmt.Fprintf(w, "data: {\"model\":\"m\",\"choices\":[],\"usage\":%s}\n\n", usage)
				}
				fmt.Fprint(w, "data: [DONE]\n\n")
			})
			a := n.ask(t, c, key, question("plain", stream))
			if a.status != 200 || !strings.Contains(a.body, "fine") {
				t.Errorf("usage %s: %d %s", usage, a.status, a.body)
			}
			list := n.settled(t, account)
			if len(list) != 1 || list[0].amount.Sign() <= 0 || list[0].amount.Cmp(most) > 0 {
				t.Errorf("usage %s, stream %t: charged %+v", usage, stream, list)
			}
		}
	}
	n.verify(t)
}

// TestFailuresHoldNothing: however a call ends, nothing stays held, and who got nothing pays nothing.
func TestFailuresHoldNothing(t *testing.T) {
	t.Parallel()
	p := new(villain)
	n := attacked(t, spendConfig(), p)
	c := n.client(t, "http1")
	event := "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word\"}}]}\n\n"
	head := func(w http.ResponseWriter, kind string) { w.Header().Set("content-type", kind) }
	bomb := func(megabytes int) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		zeros := make([]byte, 1<<20)
		for range megabytes {
			_, _ = z.Write(zeros)
		}
		_ = z.Close()
		return b.Bytes()
	}
	large, small := bomb(66), bomb(4)
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		free   bool
	}{
		"an error with 200": {func(w http.ResponseWriter, _ *http.Request) {
			head(w, "application/json")
			fmt.Fprint(w, `{"error":{"message":"no"}}`)
		}, true},
		"an error as the stream": {func(w http.ResponseWriter, _ *http.Request) {
			head(w, "text/event-stream")
			fmt.Fprint(w, "data: {\"error\":{\"message\":\"no\"}}\n\n")
		}, true},
		"nothing": {func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, true},
		"401":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, true},
		"a redirect": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("location", "http://127.0.0.1:1/")
			w.WriteHeader(302)
		}, true},
		"404": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, true},
		"500 of 4 MB": {func(w http.ResponseWriter, _ *http.Request) {
			head(w, "application/json")
			w.WriteHeader(500)
			junk(w, 4)
		}, true},
		"a coding not asked for": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("content-encoding", "br")
			fmt.Fprint(w, "xx")
		}, true},
		"a broken coding": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("content-encoding", "gzip")
			fmt.Fprint(w, "xx")
		}, true},
		"a bomb": {func(w http.ResponseWriter, _ *http.Request) {
			head(w, "application/json")
			w.Header().Set("content-encoding", "gzip")
			_, _ = w.Write(large)
		}, false},
		"a bomb as an event": {func(w http.ResponseWriter, _ *http.Request) {
			head(w, "text/event-stream")
			w.Header().Set("content-encoding", "gzip")
			_, _ = w.Write(small)
		}, false},
		"an event of 4 MB": {func(w http.ResponseWriter, _ *http.Request) {
			head(w, "text/event-stream")
			fmt.Fprint(w, event, "data: ")
			junk(w, 4)
		}, false},
		"events of nothing": {func(w http.ResponseWriter, _ *http.Request) {
			head(w, "text/event-stream")
			fmt.Fprint(w, strings.Repeat("\n", 1<<16))
		}, false},
		"10,000 comments": {func(w http.ResponseWriter, _ *http.Request) {
			head(w, "text/event-stream")
			fmt.Fprint(w, strings.Repeat(": x\n\n", 10_000))
		}, false},
		"a stream without an end": {func(w http.ResponseWriter, _ *http.Request) { head(w, "text/event-stream"); fmt.Fprint(w, event) }, false},
		"a stream that breaks": {func(w http.ResponseWriter, _ *http.Request) {
			head(w, "text/event-stream")
			fmt.Fprint(w, event)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, false},
		"an early end mark": {func(w http.ResponseWriter, _ *http.Request) {
			head(w, "text/event-stream")
			fmt.Fprint(w, event, "data: [DONE]\n\n", strings.Repeat(event, 1000))
		}, false},
		"many end marks": {func(w http.ResponseWriter, _ *http.Request) {
			head(w, "text/event-stream")
			fmt.Fprint(w, event, strings.Repeat("data: [DONE]\n\n", 1000))
		}, false},
		"JSON too deep": {func(w http.ResponseWriter, _ *http.Request) {
			head(w, "application/json")
			fmt.Fprint(w, strings.Repeat(`{"choices":[`, 200_000))
		}, false},
		"an event too deep": {func(w http.ResponseWriter, _ *http.Request) {
			head(w, "text/event-stream")
			fmt.Fprint(w, "data: "+strings.Repeat(`{"choices":[`, 50_000)+"\n\ndata: [DONE]\n\n")
		}, false},
		"an event stream in letters": {func(w http.ResponseWriter, _ *http.Request) {
			head(w, "Text/Event-Stream ; charset=utf-8")
			fmt.Fprint(w, event, "data: [DONE]\n\n")
		}, false},
	} {
		p.play(tt.answer)
		for _, stream := range []bool{false, true} {
			account, key := n.customer(t, "10")
			_ = n.ask(t, c, key, question("plain", stream))
			list := n.settled(t, account)
			if tt.free && len(list) != 0 || len(list) > 1 {
				t.Errorf("%s: charged %+v", name, list)
			}
			if !tt.free && (len(list) != 1 || !list[0].usage.Estimated) {
				t.Errorf("%s: charged %+v, not by an estimate", name, list)
			}
		}
	}
	n.verify(t)
}

// junk writes megabytes that say nothing, as long as they are taken.
func junk(w io.Writer, megabytes int) {
	part := bytes.Repeat([]byte("x"), 1<<20)
	for range megabytes {
		if _, err := w.Write(part); err != nil {
			return
		}
	}
}

// TestHalfClosed: who closes its side of the connection and goes on reading has not got away with anything: what it gets
// it pays for, whatever the route says of clients that leave.
func TestHalfClosed(t *testing.T) {
	t.Parallel()
	p := new(villain)
	n := attacked(t, spendConfig(), p)
	for _, rule := range []string{"bill_delivered", "drain", "void"} {
		for i := range 12 {
			account, key := n.customer(t, "10")
			body := question("plain", false)
			conn, err := tls.Dial("tcp", n.address, &tls.Config{RootCAs: n.roots, ServerName: "localhost", NextProtos: []string{"http/1.1"}})
			if err != nil {
				t.Fatal(err)
			}
			p.play(func(w http.ResponseWriter, _ *http.Request) {
				if i%3 == 0 {
					_ = conn.CloseWrite()
				}
				complete(w, "fine", `{"prompt_tokens":5,"completion_tokens":1}`)
				if i%3 == 1 {
					_ = conn.CloseWrite()
				}
			})
			fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Leave: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", rule, key, len(body), body)
			if i%3 == 2 {
				_ = conn.CloseWrite()
			}
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			got, _ := io.ReadAll(io.LimitReader(conn, 1<<20))
			_ = conn.Close()
			if list := n.settled(t, account); strings.Contains(string(got), "fine") && len(list) == 0 {
				t.Errorf("%s: an answer for nothing", rule)
			}
		}
	}
	n.verify(t)
}

// scripted is an upstream that answers each connection with octets of the test's choice, and keeps what it was sent.
func scripted(t *testing.T, answer func(head string) string) (address string, heads func() []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all []string
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				r := bufio.NewReader(conn)
				for {
					var head strings.Builder
					for {
						line, err := r.ReadString('\n')
						if err != nil {
							return
						}
						head.WriteString(line)
						if line == "\r\n" {
							break
						}
					}
					mu.Lock()
					all = append(all, head.String())
					mu.Unlock()
					if _, err := io.WriteString(conn, answer(head.String())); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); open.Wait() })
	return "http://" + l.Addr().String(), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// raw sends octets in cleartext and returns all that comes back until the gateway closes.
func (n *node) raw(t *testing.T, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Log(err) // it may be refused before its end
	}
	b, _ := io.ReadAll(io.LimitReader(conn, 4<<20))
	return string(b)
}

// TestHostileUpstream: whatever an upstream answers, the client gets one well-formed answer to each request, without
// fields of the upstream's hop, and nothing of one answer is taken for the next.
func TestHostileUpstream(t *testing.T) {
	t.Parallel()
	const fine = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
	for name, tt := range map[string]struct {
		answer string
		status int // 0: any
	}{
		"status 099":           {"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", 502},
		"status 0":             {"HTTP/1.1 000 None\r\nContent-Length: 0\r\n\r\n", 502},
		"status 600":           {"HTTP/1.1 600 High\r\nContent-Length: 4\r\n\r\nfine", 500},
		"status 999":           {"HTTP/1.1 999 High\r\nContent-Length: 4\r\n\r\nfine", 500},
		"status 1000":          {"HTTP/1.1 1000 High\r\nContent-Length: 4\r\n\r\nevil", 502},
		"status -1":            {"HTTP/1.1 -01 Low\r\nContent-Length: 0\r\n\r\n", 502},
		"101 unasked":          {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + fine, 502},
		"many interim":         {strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 10_000) + fine, 502},
		"two lengths":          {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nfine!", 502},
		"negative length":      {"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nfine", 502},
		"length and chunks":    {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n", 0},
		"broken chunks":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nfine\r\n0\r\n\r\n", 0},
		"CR in a field":        {"HTTP/1.1 200 OK\r\nX-A: a\rX-Evil: b\r\nContent-Length: 4\r\n\r\nfine", 0},
		"NUL in a field":       {"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 4\r\n\r\nfine", 0},
		"a blank in a name":    {"HTTP/1.1 200 OK\r\nX-A : a\r\nContent-Length: 4\r\n\r\nfine", 200},
		"a blank in framing":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nContent-Length: 4\r\n\r\nevil", 502},
		"a name of no token":   {"HTTP/1.1 200 OK\r\nX(A): evil\r\nContent-Length: 4\r\n\r\nfine", 502},
		"a forbidden trailer":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n4\r\nevil\r\n0\r\n\r\n", 502},
		"folded":               {"HTTP/1.1 200 OK\r\nX-A: a\r\n Content-Length: 99\r\nContent-Length: 4\r\n\r\nfine", 200},
		"fields of its hop":    {"HTTP/1.1 200 OK\r\nConnection: X-Evil, keep-alive\r\nX-Evil: 1\r\nKeep-Alive: 1\r\nProxy-Authenticate: x\r\nTE: x\r\nContent-Length: 4\r\n\r\nfine", 200},
		"the gateway's fields": {"HTTP/1.1 200 OK\r\nPostern-Receipt: evil\r\nPostern-Exchange: evil\r\nAlt-Svc: h3=\":1\"\r\nContent-Length: 4\r\n\r\nfine", 200},
		"forbidden trailers":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n4\r\nfine\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: evil\r\nSet-Cookie: evil=1\r\nAuthorization: evil\r\nPostern-Receipt: evil\r\nX-T: 1\r\n\r\n", 200},
		"an answer too many":   {fine + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 200},
		"a head of 4 MB":       {"HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 4<<20) + "\r\nContent-Length: 4\r\n\r\nfine", 502},
		"100,000 fields":       {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: a\r\n", 100_000) + "Content-Length: 4\r\n\r\nfine", 502},
		"no HTTP":              {"evil\r\n\r\n", 502},
		"HTTP/3.0":             {"HTTP/3.0 200 OK\r\nContent-Length: 4\r\n\r\nfine", 0},
		"204 with a body":      {"HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nevil", 204},
		"304 with a body":      {"HTTP/1.1 304 No\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 304},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, _ := scripted(t, func(head string) string {
				if strings.HasPrefix(head, "GET /plain/attack") {
					return tt.answer
				}
				return fine
			})
			n := start(t, plain(address))
			got := n.raw(t, "GET /plain/attack HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\n\r\nGET /plain/after HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			if strings.Contains(strings.ToLower(got), "evil") {
				t.Errorf("the client got %q", clipped(got))
			}
			r := bufio.NewReader(strings.NewReader(got))
			resp, err := http.ReadResponse(r, nil)
			for err == nil && resp.StatusCode < 200 {
				resp, err = http.ReadResponse(r, nil)
			}
			if err != nil {
				t.Fatalf("%v: %q", err, clipped(got))
			}
			_, cut := io.ReadAll(resp.Body)
			if tt.status != 0 && resp.StatusCode != tt.status {
				t.Errorf("status %d, want %d: %q", resp.StatusCode, tt.status, clipped(got))
			}
			for _, name := range []string{"Content-Length", "Transfer-Encoding", "Set-Cookie", "Authorization", "Postern-Receipt"} {
				if resp.Trailer.Get(name) != "" {
					t.Errorf("trailer %s: %s", name, resp.Trailer.Get(name))
				}
			}
			if cut != nil || resp.Close {
				return // the reply was broken off, and nothing can follow
			}
			resp, err = http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("after it: %v: %q", err, clipped(got))
			}
			if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "fine" {
				t.Errorf("after it: %d %q %v", resp.StatusCode, b, err)
			}
		})
	}
}

func clipped(s string) string {
	if len(s) > 600 {
		return s[:300] + " ... " + s[len(s)-300:]
	}
	return s
}

// TestRequestsReachTheUpstreamWhole: what is sent to confuse two readers of one connection is refused, or reaches the
// upstream as exactly one request, by the one canonical path that policies saw.
func TestRequestsReachTheUpstreamWhole(t *testing.T) {
	t.Parallel()
	address, heads := scripted(t, func(string) string { return "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine" })
	n := start(t, plain(address))
	for name, text := range map[string]string{
		"length and chunks":   "POST /plain/ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /plain/evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"chunks in disguise":  "POST /plain/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\nGET /plain/evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"two lengths":         "POST /plain/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\nGET /plain/evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"a blank in a name":   "POST /plain/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /plain/evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"a lone LF":           "GET /plain/ HTTP/1.1\nHost: a\nX: b\n\nGET /plain/evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"a CR in a field":     "GET /plain/ HTTP/1.1\r\nHost: a\r\nX-A: a\rGET /plain/evil HTTP/1.1\r\n\r\n",
		"two hosts":           "GET /plain/evil HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"no host":             "GET /plain/evil HTTP/1.1\r\n\r\n",
		"a host with a path":  "GET /plain/evil HTTP/1.1\r\nHost: a/b\r\n\r\n",
		"dots":                "GET /plain/../evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"escaped dots":        "GET /plain/%2e%2e/evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"escaped slash":       "GET /plain/..%2fevil HTTP/1.1\r\nHost: a\r\n\r\n",
		"backslash":           "GET /plain/..\\evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"parameters":          "GET /plain/..;/../evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"escaped line end":    "GET /plain/%0d%0aevil HTTP/1.1\r\nHost: a\r\n\r\n",
		"escaped NUL":         "GET /plain/%00evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"overlong dot":        "GET /plain/%c0%ae%c0%ae/evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"absolute elsewhere":  "GET http://evil/plain/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"absolute ftp":        "GET ftp://a/plain/evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"CONNECT":             "CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n",
		"asterisk":            "OPTIONS * HTTP/1.1\r\nHost: a\r\nX-A: evil\r\n\r\n",
		"h2c":                 "GET /plain/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: evil\r\n\r\n",
		"a field by name":     "GET /plain/ HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For, close\r\nX_Forwarded_For: evil\r\nForwarded: for=evil\r\nX-Forwarded-For: evil\r\nX-Real-IP: evil\r\nPostern-Account: evil\r\nPostern_Account: evil\r\n\r\n",
		"version":             "GET /plain/evil HTTP/1.2\r\nHost: a\r\n\r\n",
		"a body for GET":      "GET /plain/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /plain/evil HTTP/1.1\r\nHost: a\r\n\r\n",
		"a chunk's extension": "POST /plain/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a=\nGET /plain/evil HTTP/1.1\r\n\r\n",
		"a chunk's size":      "POST /plain/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nGET /plain/evil HTTP/1.1\r\n\r\n",
	} {
		_ = n.rawHalf(t, text) // it waits for nothing that does not come
		for _, head := range heads() {
			if strings.Contains(head, "evil") {
				t.Errorf("%s: the upstream got %q", name, head)
			}
		}
		if t.Failed() {
			return
		}
	}
	if got := n.raw(t, "GET /plain/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasSuffix(got, "fine") {
		t.Errorf("an ordinary request: %q", clipped(got))
	}
}

// rawHalf is raw for a client that says it sends no more.
func (n *node) rawHalf(t *testing.T, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, text)
	_ = conn.(*net.TCPConn).CloseWrite()
	b, _ := io.ReadAll(io.LimitReader(conn, 4<<20))
	return string(b)
}

// TestNothingPersonalIsWritten: with the log at its most talkative, neither it nor the metrics hold anything of what
// people send: keys, prompts, answers, addresses, names of models that they made up.
func TestNothingPersonalIsWritten(t *testing.T) {
	t.Parallel()
	const canary = "canary4711"
	p := &villain{}
	origin := httptest.NewServer(p)
	t.Cleanup(origin.Close)
	n := &node{dir: workdir(t, nil), vars: map[string]string{"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "sandbox": origin.URL}}
	cfg, err := n.load()
	if err != nil {
		t.Fatal(err)
	}
	var log syncBuffer
	tel, err := telemetry.New(t.Context(), telemetry.Config{Output: &log, LogLevel: "debug", LogFormat: "text"})
	if err != nil {
		t.Fatal(err)
	}
	ops := new(operations)
	if n.Server, err = server.New(t.Context(), server.Config{Backends: backends(), Formats: formats(), ABIs: abis(), Telemetry: tel, Console: ops.open(cfg, tel, nil, nil)}, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ops.close()
		_ = n.Shutdown(context.Background())
	})
	n.url = "https://" + n.Addresses()["public"].String()
	n.roots = x509.NewCertPool()
	pem, err := os.ReadFile(filepath.Join(n.dir, "data", "tls", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	n.roots.AppendCertsFromPEM(pem)
	account, key := n.customer(t, "100")
	user := func(content string) string {
		return `{"model":"small","messages":[{"role":"user","content":"` + content + `"}]}`
	}
	words := []string{canary, key, "jane@example.com", account}
	for name, answer := range map[string]http.HandlerFunc{
		"echo": func(w http.ResponseWriter, _ *http.Request) {
			complete(w, canary, `{"prompt_tokens":5,"completion_tokens":1}`)
		},
		"refuses": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			fmt.Fprintf(w, `{"error":{"message":"%s"}}`, canary)
		},
		"denies": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("x-request-id", canary)
			w.WriteHeader(401)
			fmt.Fprint(w, canary)
		},
		"codes": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("content-encoding", canary)
			fmt.Fprint(w, canary)
		},
		"breaks": func(w http.ResponseWriter, _ *http.Request) {
			c, b, _ := http.NewResponseController(w).Hijack()
			fmt.Fprintf(b, "HTTP/1.1 2%s OK\r\n%s\r\n\r\n", canary, canary)
			_ = b.Flush()
			_ = c.Close()
		},
		"odd field": func(w http.ResponseWriter, _ *http.Request) {
			c, b, _ := http.NewResponseController(w).Hijack()
			fmt.Fprintf(b, "HTTP/1.1 200 OK\r\nX(%s): 1\r\nContent-Length: %s\r\n\r\n", canary, canary)
			_ = b.Flush()
			_ = c.Close()
		},
	} {
		p.play(answer)
		for _, body := range []string{
			user(canary + " jane@example.com"), user(canary) + "}", `{"` + canary + `":` + canary, `{"model":"` + canary + `","messages":[]}`,
			`{"model":"small","` + canary + `":1,"` + canary + `":2,"messages":[]}`, `{"model":"small","stream":"` + canary + `","messages":[]}`, canary,
		} {
			for _, k := range []string{key, "pstn_" + canary, ""} {
				r, _ := http.NewRequestWithContext(t.Context(), "POST", n.url+"/v1/chat/completions?key="+canary, strings.NewReader(body))
				r.Header.Set("Authorization", "Bearer "+k)
				r.Header.Set("X-Api-Key", canary)
				r.Header.Set("Cookie", canary)
				r.Header.Set("User-Agent", canary)
				r.Header.Set("X-Forwarded-For", canary)
				r.Header.Set("Forwarded", "for="+canary)
				r.Header.Set("Traceparent", canary)
				r.Header.Set("Idempotency-Key", canary)
				resp, err := n.client(t, "http1").Do(r)
				if err != nil {
					t.Fatal(name, err)
				}
				b, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if strings.Contains(string(b), key) || strings.Contains(string(b), account) {
					t.Errorf("%s: the answer tells %s", name, b)
				}
			}
		}
		for _, path := range []string{"/" + canary, "/v1/models/" + canary, "/v1/chat/completions/" + canary, "/%00" + canary} {
			r, _ := http.NewRequestWithContext(t.Context(), canary, n.url+path, http.NoBody)
			if resp, err := n.client(t, "http1").Do(r); err == nil {
				_ = resp.Body.Close()
			}
		}
	}
	for _, a := range p.asks {
		for name, values := range a.header {
			if strings.Contains(strings.Join(values, " "), canary) || strings.Contains(strings.Join(values, " "), key) {
				t.Errorf("the provider got %s: %s", name, values)
			}
		}
		if strings.Contains(a.target, canary) || strings.Contains(a.body, key) || strings.Contains(a.body, account) {
			t.Errorf("the provider got %s %s", a.target, a.body)
		}
	}
	scrape := httptest.NewRecorder()
	tel.Metrics.Handler().ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", http.NoBody))
	for _, word := range words {
		if i := strings.Index(log.String(), word); i >= 0 {
			t.Errorf("the log holds %s: %s", word, clipped(log.String()[max(0, i-300):min(len(log.String()), i+100)]))
		}
		if strings.Contains(scrape.Body.String(), word) {
			t.Errorf("the metrics hold %s", word)
		}
	}
	if log.String() == "" || scrape.Body.Len() == 0 {
		t.Error("nothing was written at all")
	}
}

// syncBuffer is a buffer that several goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestWhoCalls: a call without exactly one key in force, in the one place for it, does not reach the provider; and the key
// never does.
func TestWhoCalls(t *testing.T) {
	t.Parallel()
	p := new(villain)
	n := attacked(t, nil, p)
	account, key := n.customer(t, "10")
	_, poor := n.customer(t, "0")
	_, scopeless := n.customer(t, "10", "models:list")
	disabled, disabledKey := n.customer(t, "10")
	if err := n.Storage().Accounts.Disable(t.Context(), disabled); err != nil {
		t.Fatal(err)
	}
	revoked, revokedKey := n.customer(t, "10")
	keys, err := n.Storage().Accounts.ListKeys(t.Context(), revoked)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Storage().Accounts.RevokeKey(t.Context(), keys[0].ID); err != nil {
		t.Fatal(err)
	}
	const body = `{"model":"small","messages":[{"role":"user","content":"hi"}]}`
	for _, protocol := range []string{"http1", "http2", "http3"} {
		c := n.client(t, protocol)
		for name, tt := range map[string]struct {
			header []string // names and values
			query  string
			status int // 0: 400 or 401
		}{
			"a key":             {[]string{"Authorization", "Bearer " + key}, "", 200},
			"in lower case":     {[]string{"Authorization", "bearer " + key}, "", 200},
			"with blanks":       {[]string{"Authorization", "Bearer   " + key}, "", 200},
			"nothing":           {nil, "", 401},
			"twice":             {[]string{"Authorization", "Bearer " + key, "Authorization", "Bearer " + key}, "", 0},
			"right and wrong":   {[]string{"Authorization", "Bearer " + key, "Authorization", "Bearer x"}, "", 0},
			"wrong and right":   {[]string{"Authorization", "Bearer x", "Authorization", "Bearer " + key}, "", 0},
			"two in one":        {[]string{"Authorization", "Bearer " + key + ", Bearer " + key}, "", 401},
			"without a scheme":  {[]string{"Authorization", key}, "", 401},
			"basic":             {[]string{"Authorization", "Basic " + key}, "", 401},
			"another field":     {[]string{"X-Api-Key", key}, "", 401},
			"an alias":          {[]string{"Authorization_", "Bearer " + key}, "", 401},
			"in the query":      {nil, "?key=" + key + "&api_key=" + key + "&access_token=" + key, 401},
			"a cookie":          {[]string{"Cookie", "authorization=Bearer " + key}, "", 401},
			"cut":               {[]string{"Authorization", "Bearer " + key[:len(key)-1]}, "", 401},
			"longer":            {[]string{"Authorization", "Bearer " + key + "0"}, "", 401},
			"in upper case":     {[]string{"Authorization", "Bearer " + strings.ToUpper(key)}, "", 401},
			"its account":       {[]string{"Authorization", "Bearer " + account, "Postern-Account", account, "X-Account", account}, "", 401},
			"very long":         {[]string{"Authorization", "Bearer " + strings.Repeat("a", 20_000)}, "", 401},
			"poor":              {[]string{"Authorization", "Bearer " + poor}, "", 402},
			"without the scope": {[]string{"Authorization", "Bearer " + scopeless}, "", 403},
			"disabled":          {[]string{"Authorization", "Bearer " + disabledKey}, "", 401},
			"revoked":           {[]string{"Authorization", "Bearer " + revokedKey}, "", 401},
		} {
			_, before := p.last()
			r, _ := http.NewRequestWithContext(t.Context(), "POST", n.url+"/v1/chat/completions"+tt.query, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			for i := 0; i+1 < len(tt.header); i += 2 {
				r.Header.Add(tt.header[i], tt.header[i+1])
			}
			resp, err := c.Do(r)
			if err != nil {
				t.Fatal(protocol, name, err)
			}
			b, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != tt.status && (tt.status != 0 || resp.StatusCode != 400 && resp.StatusCode != 401) {
				t.Errorf("%s, %s: %d %s", protocol, name, resp.StatusCode, b)
			}
			got, after := p.last()
			if (after > before) != (tt.status == 200) {
				t.Errorf("%s, %s: the provider was asked %d times", protocol, name, after-before)
			}
			for field, values := range got.header {
				if strings.Contains(strings.Join(values, " "), key) {
					t.Errorf("%s, %s: the provider got the key in %s", protocol, name, field)
				}
			}
		}
	}
	for _, id := range []string{disabled, revoked} {
		if list := n.settled(t, id); len(list) != 0 {
			t.Errorf("charged %+v", list)
		}
	}
	n.verify(t)
}

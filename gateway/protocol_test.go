package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// TestFirstCall makes the README's first call over every protocol, whole and streamed, and finds it in the ledger.
func TestFirstCall(t *testing.T) {
	t.Parallel()
	n := start(t, nil)
	for i, protocol := range []string{"http1", "http2", "http3"} {
		t.Run(protocol, func(t *testing.T) {
			c := n.client(t, protocol)
			id, key := n.customer(t, "10")
			resp, body := n.post(t, c, "/v1/chat/completions", key, hello)
			if resp.StatusCode != 200 || resp.ProtoMajor != i+1 {
				t.Fatalf("%s %s: %s", resp.Status, resp.Proto, body)
			}
			if resp.Header.Get("Postern-Receipt") == "" || resp.Header.Get("Postern-Exchange") == "" {
				t.Errorf("no receipt or exchange in %v", resp.Header)
			}
			if alt := resp.Header.Get("Alt-Svc"); protocol != "http3" && !strings.Contains(alt, "h3=") {
				t.Errorf("HTTP/3 is not advertised: %q", alt)
			}
			var answer struct {
				Model   string
				Choices []struct{ Message struct{ Content string } }
				Usage   struct {
					Prompt     int64 `json:"prompt_tokens"`
					Completion int64 `json:"completion_tokens"`
				}
			}
			if err := json.Unmarshal([]byte(body), &answer); err != nil || len(answer.Choices) != 1 {
				t.Fatal(err, body)
			}
			if got := answer.Choices[0].Message.Content; got != "You said: Hello from jane@example.com" || answer.Model != "small" {
				t.Errorf("%s said %q", answer.Model, got)
			}
			if sent := n.sandbox.Stats().LastBody; strings.Contains(sent, "jane") || !strings.Contains(sent, "sandbox-small") {
				t.Errorf("the provider got %s", sent)
			}
			text, done := stream(t, n, c, key, strings.Replace(hello, `{`, `{"stream":true,`, 1))
			if !done || text != "You said: Hello from jane@example.com" {
				t.Errorf("streamed %q, done %v", text, done)
			}
			charges := 0
			for e, err := range n.Storage().Ledger.Entries(t.Context(), id, 0, 0) {
				if err != nil {
					t.Fatal(err)
				}
				if e.Model != "small" {
					continue
				}
				charges++
				if e.Usage.Prompt() != answer.Usage.Prompt || e.Usage.Completion() != answer.Usage.Completion || e.Usage.Estimated {
					t.Errorf("charged for %d+%d tokens, told %d+%d", e.Usage.Prompt(), e.Usage.Completion(), answer.Usage.Prompt, answer.Usage.Completion)
				}
				if want := exchange.Pico(150_000*answer.Usage.Prompt + 600_000*answer.Usage.Completion); e.Amount != want {
					t.Errorf("charged %s, want %s", e.Amount, want)
				}
			}
			if charges != 2 {
				t.Errorf("%d charges for two calls", charges)
			}
		})
	}
	n.verify(t)
}

// stream makes a streamed call and returns the text and whether its end mark came.
func stream(t *testing.T, n *node, c *http.Client, key, body string) (text string, done bool) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	receipt := false
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		line := lines.Text()
		receipt = receipt || strings.HasPrefix(line, ": postern-receipt {")
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		if data == "[DONE]" {
			done = true
			if !receipt {
				t.Error("no receipt before the end mark")
			}
			continue
		}
		var chunk struct {
			Choices []struct{ Delta struct{ Content string } }
			Usage   *struct{}
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		if chunk.Usage != nil {
			t.Error("usage that was not asked for")
		}
		for _, choice := range chunk.Choices {
			text += choice.Delta.Content
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return text, done
}

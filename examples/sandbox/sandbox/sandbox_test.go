package sandbox_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/examples/sandbox/sandbox"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/provider/openai"
	"github.com/postern-gateway/postern/gateway/provider/providertest"
)

func start(t *testing.T, cfg sandbox.Config) (url string, box *sandbox.Sandbox) {
	t.Helper()
	box = sandbox.Handler(cfg)
	server := httptest.NewUnstartedServer(box)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.URL, box
}

func post(t *testing.T, url, path, body string, header ...string) (status int, h http.Header, text string, err error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, "", err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(b), err
}

type reply struct {
	ID      string
	Model   string
	Choices []struct {
		Message struct {
			Content   *string
			ToolCalls []struct {
				ID       string
				Function struct{ Name, Arguments string }
			} `json:"tool_calls"`
		}
		FinishReason string `json:"finish_reason"`
	}
	Usage *struct {
		Prompt     int64 `json:"prompt_tokens"`
		Completion int64 `json:"completion_tokens"`
		Total      int64 `json:"total_tokens"`
		In         struct {
			Cached int64 `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
		Out struct {
			Reasoning int64 `json:"reasoning_tokens"`
		} `json:"completion_tokens_details"`
	}
}

func chat(t *testing.T, url, body string, header ...string) reply {
	t.Helper()
	status, _, text, err := post(t, url, "/v1/chat/completions", body, header...)
	var r reply
	if err != nil || status != 200 || json.Unmarshal([]byte(text), &r) != nil {
		t.Fatalf("%d %s %v", status, text, err)
	}
	return r
}

const weather = `[{"type":"function","function":{"name":"get_weather","parameters":{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"},"unit":{"type":"string","enum":["C","F"]},"note":{"type":"string"}},"required":["unit","city","days"]}}}]`

func TestChat(t *testing.T) {
	t.Parallel()
	url, _ := start(t, sandbox.Config{})
	for _, c := range []struct {
		name, body, content, tool, arguments, finish string
		prompt, completion                           int64
	}{
		{"echo", `{"model":"m","messages":[{"role":"user","content":"Hello!"}]}`, "You said: Hello!", "", "", "stop", 3 + 2, 4},
		{"last user message", `{"model":"m","messages":[{"role":"system","content":"abcd"},{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]}`, "You said: c", "", "", "stop", 3 + 1 + 3*(3+1), 3},
		{"parts", `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"Hi "},{"type":"image_url","image_url":{"url":"data:x"}},{"type":"text","text":"you"}]}]}`, "You said: Hi you", "", "", "stop", 3 + 2 + 85, 4},
		{"limit", `{"model":"m","max_tokens":3,"messages":[{"role":"user","content":"Hello!"}]}`, "You said: He", "", "", "length", 5, 3},
		{"limit in a character", `{"model":"m","max_completion_tokens":3,"messages":[{"role":"user","content":"你好"}]}`, "You said: ", "", "", "length", 5, 3},
		{"tool named", `{"model":"m","tools":` + weather + `,"messages":[{"role":"user","content":"Please get_weather now"}]}`, "", "get_weather", `{"city":"sandbox","days":1,"unit":"C"}`, "tool_calls", 3 + 6 + int64(len(weather)+3)/4, 3 + 10},
		{"tool required", `{"model":"m","tools":` + weather + `,"tool_choice":"required","messages":[{"role":"user","content":"x"}]}`, "", "get_weather", `{"city":"sandbox","days":1,"unit":"C"}`, "tool_calls", 3 + 1 + int64(len(weather)+3)/4, 13},
		{"tool chosen", `{"model":"m","tools":` + weather + `,"tool_choice":{"type":"function","function":{"name":"get_weather"}},"messages":[{"role":"user","content":"x"}]}`, "", "get_weather", `{"city":"sandbox","days":1,"unit":"C"}`, "tool_calls", 3 + 1 + int64(len(weather)+3)/4, 13},
		{"tool forbidden", `{"model":"m","tools":` + weather + `,"tool_choice":"none","messages":[{"role":"user","content":"get_weather"}]}`, "You said: get_weather", "", "", "stop", 3 + 3 + int64(len(weather)+3)/4, 6},
		{"tool result", `{"model":"m","messages":[{"role":"user","content":"w"},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"get_weather","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"sunny"}]}`, "The tool said: sunny", "", "", "stop", 4 + (3 + 3 + 1) + 5, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := chat(t, url, c.body)
			m := r.Choices[0].Message
			content, tool, arguments := "", "", ""
			if m.Content != nil {
				content = *m.Content
			}
			if len(m.ToolCalls) > 0 {
				tool, arguments = m.ToolCalls[0].Function.Name, m.ToolCalls[0].Function.Arguments
			}
			if content != c.content || tool != c.tool || arguments != c.arguments || r.Choices[0].FinishReason != c.finish {
				t.Errorf("%q %q %q %q", content, tool, arguments, r.Choices[0].FinishReason)
			}
			if r.Usage.Prompt != c.prompt || r.Usage.Completion != c.completion || r.Usage.Total != c.prompt+c.completion {
				t.Errorf("usage %+v, want %d and %d", *r.Usage, c.prompt, c.completion)
			}
		})
	}
}

func TestChoices(t *testing.T) {
	t.Parallel()
	url, _ := start(t, sandbox.Config{})
	r := chat(t, url, `{"model":"m","n":3,"messages":[{"role":"user","content":"Hello!"}]}`)
	if len(r.Choices) != 3 || r.Usage.Completion != 12 {
		t.Errorf("%+v", r)
	}
}

// Whole and streamed, the gateway's decoder finds the usage that the sandbox counted, and the customer the same text.
func TestUsageThroughTheGatewaysDecoder(t *testing.T) {
	t.Parallel()
	f := openai.New()
	op, _ := f.Operation("POST", "/v1/chat/completions")
	for _, c := range []struct {
		fault, more string
		estimated   bool
	}{
		{"", "", false},
		{"", `,"n":2`, false},
		{"", `,"stream_options":{"include_usage":true}`, false},
		{"", `,"tool_choice":"required","tools":` + weather, false},
		{"cached+reasoning", "", false},
		{"nousage", "", true},
		{"malformed", "", false},
	} {
		for _, stream := range []bool{false, true} {
			url, box := start(t, sandbox.Config{})
			body := []byte(fmt.Sprintf(`{"model":"small","stream":%v,"messages":[{"role":"user","content":"Hello to everyone here"}]%s}`, stream, c.more))
			if !stream && c.fault == "malformed" {
				continue // half a whole reply has no usage
			}
			call, problem := f.Read(op, nil, body, 1000)
			if problem != nil {
				t.Fatal(problem)
			}
			call.Targets, call.Target = []exchange.Target{{Model: "upstream"}}, 0
			path, sent, err := f.Encode(op, &call, body)
			if err != nil {
				t.Fatal(err)
			}
			status, h, text, err := post(t, url, path, string(sent), "sandbox-fault", c.fault)
			if err != nil || status != 200 || strings.HasPrefix(h.Get("content-type"), "text/event-stream") != stream {
				t.Fatalf("%d %v %s %v", status, h, text, err)
			}
			var got string
			d := f.Decode(op, &call, body)
			if stream {
				var out []byte
				out, d = providertest.Stream(f, op, &call, body, [][]byte{[]byte(text)})
				got = string(out)
				if has := strings.Contains(got, `"usage"`); has != (c.more == `,"stream_options":{"include_usage":true}`) {
					t.Errorf("%+v: usage reaches the customer: %v", c, has)
				}
			} else {
				got = string(d.Whole(status, []byte(text)))
			}
			if strings.Contains(got, "upstream") || !strings.Contains(got, `"model":"small"`) {
				t.Errorf("%+v: %s", c, got)
			}
			u, stats := d.Usage(), box.Stats()
			if u.Estimated != c.estimated {
				t.Errorf("%+v: %+v", c, u)
			}
			if !c.estimated && (u.Prompt() != stats.Prompt || u.Completion() != stats.Completion ||
				u.Units[exchange.CachedInput] != stats.Cached || u.Units[exchange.Reasoning] != stats.Reasoning) {
				t.Errorf("%+v: decoded %+v, served %+v", c, u, stats)
			}
			if stats.Served != 1 || stats.Models["upstream"] != 1 || stats.LastBody != string(sent) {
				t.Errorf("%+v: %+v", c, stats)
			}
		}
	}
}

func TestStreamSaysUsageOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	url, _ := start(t, sandbox.Config{})
	_, _, plain, _ := post(t, url, "/v1/chat/completions", `{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}`)
	_, _, asked, _ := post(t, url, "/v1/chat/completions", `{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"Hi"}]}`)
	if strings.Contains(plain, `"usage"`) || strings.Count(asked, `"usage":null`) != 5 || strings.Count(asked, `"choices":[]`) != 1 {
		t.Errorf("plain %s\nasked %s", plain, asked)
	}
	if !strings.HasSuffix(plain, "data: [DONE]\n\n") || !strings.HasSuffix(asked, "data: [DONE]\n\n") {
		t.Error("a stream does not end with its mark")
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		model, header string
		stream        bool
		status        int
		events        int // -1: not looked at
		broken        bool
		holds         string
	}{
		{"sandbox-429", "", false, 429, -1, false, "rate_limit_exceeded"},
		{"sandbox-500", "", true, 500, -1, false, "server_error"},
		{"m", "503", false, 503, -1, false, "server_error"},
		{"sandbox-500", "429", false, 429, -1, false, "rate_limit_exceeded"},
		{"sandbox-cut-3", "", true, 200, 3, true, ""},
		{"sandbox-cut", "", true, 200, 2, true, ""},
		{"m", "cut-0", true, 0, 0, true, ""},
		{"sandbox-cut", "", false, 200, -1, true, ""},
		{"sandbox-stall-1", "", true, 200, 1, true, ""},
		{"sandbox-hang", "", true, 0, -1, true, ""},
		{"sandbox-malformed-1", "", true, 200, 6, false, `data: {"choices":[{"delta":{"content":"You "},"finish_reason":null,`},
		{"sandbox-error-1", "", true, 200, 2, false, `data: {"error":`},
		{"sandbox-nousage", "", false, 200, -1, false, `"choices"`},
		{"sandbox-whole", "", true, 200, 0, false, `"object":"chat.completion"`},
		{"sandbox-cut-x", "", true, 200, 6, false, "[DONE]"},
		{"sandbox-large", "", true, 200, 6, false, "[DONE]"},
	} {
		t.Run(c.model+c.header, func(t *testing.T) {
			t.Parallel()
			url, _ := start(t, sandbox.Config{Stall: 10 * time.Millisecond})
			status, h, text, err := post(t, url, "/v1/chat/completions",
				fmt.Sprintf(`{"model":%q,"stream":%v,"messages":[{"role":"user","content":"Hi"}]}`, c.model, c.stream), "sandbox-fault", c.header)
			if (err != nil) != c.broken || status != c.status && !c.broken || !strings.Contains(text, c.holds) {
				t.Errorf("%d %q %v", status, text, err)
			}
			if n := strings.Count(text, "data: "); c.events >= 0 && n != c.events {
				t.Errorf("%d events: %q", n, text)
			}
			if c.status == 429 && h.Get("retry-after") != "1" {
				t.Errorf("retry-after %q", h.Get("retry-after"))
			}
			if strings.Contains(c.model, "nousage") && strings.Contains(text, `"usage"`) {
				t.Errorf("usage is said: %s", text)
			}
		})
	}
}

func TestClientThatLeavesEndsTheAnswer(t *testing.T) {
	t.Parallel()
	url, box := start(t, sandbox.Config{Stall: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions",
		strings.NewReader(`{"model":"sandbox-stall","stream":true,"messages":[{"role":"user","content":"Hi"}]}`))
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := bufio.NewReader(response.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	cancel()
	for box.Stats().Open > 0 { // the test's own deadline bounds this
		time.Sleep(time.Millisecond)
	}
	if s := box.Stats(); s.Broken != 1 || s.Served != 0 {
		t.Errorf("%+v", s)
	}
}

func TestKey(t *testing.T) {
	t.Parallel()
	url, box := start(t, sandbox.Config{Key: "secret"})
	body := `{"model":"m","messages":[{"role":"user","content":"Hi"}]}`
	for key, want := range map[string]int{"": 401, "Bearer wrong": 401, "Bearer secret": 200} {
		if status, _, text, _ := post(t, url, "/v1/chat/completions", body, "authorization", key); status != want {
			t.Errorf("%q: %d %s", key, status, text)
		}
	}
	if s := box.Stats(); s.Requests != 3 || s.Refused != 2 || s.Served != 1 {
		t.Errorf("%+v", s)
	}
	box.Reset()
	if s := box.Stats(); s.Requests != 0 || s.LastKey != "" {
		t.Errorf("after a reset: %+v", s)
	}
}

func TestEmbeddings(t *testing.T) {
	t.Parallel()
	url, _ := start(t, sandbox.Config{})
	type result struct {
		Data []struct {
			Index     int
			Embedding json.RawMessage
		}
		Usage struct {
			Prompt int64 `json:"prompt_tokens"`
			Total  int64 `json:"total_tokens"`
		}
	}
	get := func(body string) result {
		status, _, text, err := post(t, url, "/v1/embeddings", body)
		var r result
		if err != nil || status != 200 || json.Unmarshal([]byte(text), &r) != nil {
			t.Fatalf("%s: %d %s %v", body, status, text, err)
		}
		return r
	}
	plain := get(`{"model":"m","input":["Hello","there!","Hello"]}`)
	var vectors [3][]float32
	for i, d := range plain.Data {
		if err := json.Unmarshal(d.Embedding, &vectors[i]); err != nil || d.Index != i || len(vectors[i]) != 64 {
			t.Fatalf("%+v %v", d, err)
		}
		sum := 0.0
		for _, f := range vectors[i] {
			sum += float64(f) * float64(f)
		}
		if math.Abs(sum-1) > 1e-5 {
			t.Errorf("length %v", sum)
		}
	}
	if !reflect.DeepEqual(vectors[0], vectors[2]) || reflect.DeepEqual(vectors[0], vectors[1]) {
		t.Error("equal inputs must give equal vectors, others others")
	}
	if plain.Usage.Prompt != 6 || plain.Usage.Total != 6 {
		t.Errorf("%+v", plain.Usage)
	}
	var packed string
	if err := json.Unmarshal(get(`{"model":"m","input":"Hello","encoding_format":"base64"}`).Data[0].Embedding, &packed); err != nil {
		t.Fatal(err)
	}
	b, err := base64.StdEncoding.DecodeString(packed)
	if err != nil || len(b) != 256 || math.Float32frombits(binary.LittleEndian.Uint32(b)) != vectors[0][0] {
		t.Errorf("%d octets, %v", len(b), err)
	}
	if u := get(`{"model":"m","input":[1,2,3]}`).Usage.Prompt; u != 3 {
		t.Errorf("three tokens count as %d", u)
	}
	if r := get(`{"model":"m","input":[[1,2],[3]],"dimensions":5}`); r.Usage.Prompt != 3 || len(r.Data) != 2 {
		t.Errorf("%+v", r)
	}
	for _, body := range []string{`{"model":"m"}`, `{"input":"x"}`, `{"model":"m","input":{}}`, `{"model":"m","input":"x","dimensions":0}`, `{"model":"m","input":"x","encoding_format":"hex"}`, `x`} {
		if status, _, text, _ := post(t, url, "/v1/embeddings", body); status != 400 {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	url, _ := start(t, sandbox.Config{})
	for _, body := range []string{`{"model":"m","messages":[]}`, `{"messages":[{"role":"user","content":"x"}]}`, `{"model":"m","n":0,"messages":[{"role":"user","content":"x"}]}`, `[`, ``} {
		if status, _, text, _ := post(t, url, "/v1/chat/completions", body); status != 400 || !strings.Contains(text, `"error":{`) {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
	if status, _, text, _ := post(t, url, "/v1/unknown", ""); status != 404 {
		t.Errorf("%d %s", status, text)
	}
}

func TestModelsOverHTTP2(t *testing.T) {
	t.Parallel()
	url, _ := start(t, sandbox.Config{})
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	for path, want := range map[string]string{
		"/v1/models":         `{"data":[{"id":"sandbox","object":"model","created":1735689600,"owned_by":"sandbox"},`,
		"/v1/models/sandbox": `{"id":"sandbox","object":"model","created":1735689600,"owned_by":"sandbox"}`,
		"/v1/models/nothing": `{"error":{"code":"model_not_found"`,
		"/sandbox/stats":     `{"requests":`,
		"/health":            `{"status":"ok"}`,
	} {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, nil)
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.ProtoMajor != 2 || !strings.HasPrefix(string(b), want) {
			t.Errorf("%s: %s %s", path, response.Proto, b)
		}
	}
}

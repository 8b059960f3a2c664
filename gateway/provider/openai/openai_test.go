package openai_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/provider"
	"github.com/postern-gateway/postern/gateway/provider/openai"
	"github.com/postern-gateway/postern/gateway/provider/providertest"
)

func TestFormat(t *testing.T) {
	t.Parallel()
	providertest.Run(t, openai.New(), "testdata")
}

func FuzzChat(f *testing.F) {
	providertest.Fuzz(f, openai.New(), "testdata", "/v1/chat/completions")
}

func FuzzEmbeddings(f *testing.F) {
	providertest.Fuzz(f, openai.New(), "testdata", "/v1/embeddings")
}

func TestOperation(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method, path, name, model string
		ok                        bool
	}{
		{"POST", "/v1/chat/completions", "chat", "", true},
		{"POST", "/team/a/v1/chat/completions", "chat", "", true},
		{"", "/v1/chat/completions", "chat", "", true},
		{"GET", "/v1/chat/completions", "", "", false},
		{"POST", "/v1/chat/completions/", "", "", false},
		{"POST", "/v1/chat/completions/abc", "", "", false},
		{"POST", "/v1/mychat/completionsx", "", "", false},
		{"POST", "/v1/embeddings", "embeddings", "", true},
		{"GET", "/v1/models", "models", "", true},
		{"GET", "/models", "models", "", true},
		{"GET", "/v1/models/small", "models", "small", true},
		{"GET", "/v1/models/org/small", "models", "org/small", true},
		{"GET", "/openai/models/small", "models", "small", true},
		{"GET", "/v1/models/{name...}", "models", "{name...}", true},
		{"GET", "/v1/models/", "", "", false},
		{"DELETE", "/v1/models/small", "", "", false},
		{"POST", "/v1/completions", "", "", false},
		{"GET", "/", "", "", false},
		{"GET", "", "", "", false},
	} {
		op, ok := openai.New().Operation(c.method, c.path)
		if ok != c.ok || ok && (op.Name != c.name || op.Model != c.model) {
			t.Errorf("%s %s: %+v, %v", c.method, c.path, op, ok)
		}
		if ok && op.Billed != (c.name != "models") || op.Streams != (op.Name == "chat" && op.Name != "") {
			t.Errorf("%s %s: %+v", c.method, c.path, op)
		}
	}
}

func TestProblem(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		problem exchange.Problem
		want    string
	}{
		{exchange.Problem{Status: 401, Code: "unauthenticated", Title: "No valid key"}, `{"error":{"message":"No valid key","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`},
		{exchange.Problem{Status: 402, Code: "insufficient_balance", Title: "t", Detail: "Top up."}, `{"error":{"message":"Top up.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`},
		{exchange.Problem{Status: 403, Code: "forbidden", Title: "t"}, `{"error":{"message":"t","type":"permission_error","param":null,"code":"forbidden"}}`},
		{exchange.Problem{Status: 404, Code: "model_not_found", Title: "t", Param: "model"}, `{"error":{"message":"t","type":"invalid_request_error","param":"model","code":"model_not_found"}}`},
		{exchange.Problem{Status: 429, Code: "rate_limited", Title: "t"}, `{"error":{"message":"t","type":"requests","param":null,"code":"rate_limit_exceeded"}}`},
		{exchange.Problem{Status: 429, Code: "tokens_limited", Title: "t"}, `{"error":{"message":"t","type":"tokens","param":null,"code":"rate_limit_exceeded"}}`},
		{exchange.Problem{Status: 400, Code: "invalid_request", Title: "t", Param: "n"}, `{"error":{"message":"t","type":"invalid_request_error","param":"n","code":"invalid_request"}}`},
		{exchange.Problem{Status: 503, Code: "overloaded", Title: "t"}, `{"error":{"message":"t","type":"server_error","param":null,"code":"overloaded"}}`},
		{exchange.Problem{Status: 500, Title: "t"}, `{"error":{"message":"t","type":"server_error","param":null,"code":null}}`},
	} {
		contentType, body := openai.New().Problem(&c.problem)
		if contentType != "application/json" || string(body) != c.want {
			t.Errorf("%s %s\nwant %s", contentType, body, c.want)
		}
	}
}

func TestReadRefusesEncodedBodies(t *testing.T) {
	t.Parallel()
	f := openai.New()
	op, _ := f.Operation("POST", "/v1/chat/completions")
	body := []byte(`{"model":"small","messages":[]}`)
	for encoding, ok := range map[string]bool{"gzip": false, "br": false, "identity": true, "": true} {
		_, problem := f.Read(op, exchange.Header{{Name: "content-encoding", Value: encoding}}, body, 0)
		if (problem == nil) != ok || problem != nil && problem.Status != 415 {
			t.Errorf("content-encoding %q: %v", encoding, problem)
		}
	}
}

func TestReadModelsNeedsNoBody(t *testing.T) {
	t.Parallel()
	f := openai.New()
	op, _ := f.Operation("GET", "/v1/models")
	call, problem := f.Read(op, nil, nil, 0)
	if problem != nil || call.Operation != "models" || call.Max != (exchange.Usage{}) {
		t.Errorf("%+v, %v", call, problem)
	}
	if _, _, err := f.Encode(op, &call, nil); !errors.Is(err, provider.ErrOperation) {
		t.Errorf("Encode gives %v", err)
	}
}

func TestReadBoundsFields(t *testing.T) {
	t.Parallel()
	f := openai.New()
	op, _ := f.Operation("POST", "/v1/chat/completions")
	for _, c := range []struct {
		what, body string
	}{
		{"many fields", `{"model":"small","messages":[]` + strings.Repeat(`,"x":1`, 1) + manyFields(200) + `}`},
		{"deep nesting", `{"model":"small","messages":` + strings.Repeat("[", 100_000)},
		{"long model", `{"model":"` + strings.Repeat("m", 1000) + `","messages":[]}`},
		{"byte order mark", "\ufeff" + `{"model":"small","messages":[]}`},
		{"empty", ""},
	} {
		if _, problem := f.Read(op, nil, []byte(c.body), 0); problem == nil || problem.Status != 400 {
			t.Errorf("%s: %v", c.what, problem)
		}
	}
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"f%d":%d`, i, i)
	}
	return b.String()
}

// A hold must cover text however it is smuggled into a media part.
func TestMaxCountsTextWhereverItStands(t *testing.T) {
	t.Parallel()
	f := openai.New()
	op, _ := f.Operation("POST", "/v1/chat/completions")
	long := strings.Repeat("data:image/png;base64,text ", 1000)
	for what, message := range map[string]string{
		"content":          `{"role":"user","content":"` + long + `"}`,
		"text part":        `{"role":"user","content":[{"type":"text","text":"` + long + `"}]}`,
		"text beside url":  `{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"},"text":"` + long + `"}]}`,
		"image_url string": `{"role":"user","content":[{"type":"image_url","image_url":"` + long + `"}]}`,
		"url in text part": `{"role":"user","url":"` + long + `"}`,
		"tool arguments":   `{"role":"assistant","tool_calls":[{"image_url":{"url":"` + long + `"}}]}`,
	} {
		call, problem := f.Read(op, nil, []byte(`{"model":"small","messages":[`+message+`]}`), 10)
		if problem != nil || call.Max.Units[exchange.Input] < int64(len(long)) {
			t.Errorf("%s: %v, %v", what, call.Max, problem)
		}
	}
}

func TestReceipt(t *testing.T) {
	t.Parallel()
	amount, _ := exchange.ParseAmount("0.000015")
	balance, _ := exchange.ParseAmount("9.5")
	r := &exchange.Receipt{ID: "edge-1-3-42", Account: "a-secret", Model: "small", Price: "small@2026", Amount: amount, Balance: balance}
	r.Usage.Units[exchange.Input] = 5
	r.Usage.Units[exchange.Requests] = 1
	const member = `"postern_receipt":{"id":"edge-1-3-42","model":"small","units":{"input":5,"request":1},"estimated":false,"price":"small@2026","amount":"0.000015","balance":"9.50"}`
	for body, want := range map[string]string{
		`{"usage":{"prompt_tokens":5},"id":"x"}`: `{"usage":{"prompt_tokens":5,` + member + `},"id":"x"}`,
		`{"usage":{ }}`:                          `{"usage":{ ` + member + `}}`,
		`{"usage":{"a":1 }}`:                     `{"usage":{"a":1 ,` + member + `}}`,
		`{"a":{"usage":{}}}`:                     `{"a":{"usage":{}}}`,
		`{"usage":[]}`:                           `{"usage":[]}`,
		`{"usage":{}} x`:                         `{"usage":{}} x`,
	} {
		if got := openai.New().Receipt([]byte(body), r); string(got) != want {
			t.Errorf("%s: %s\nwant %s", body, got, want)
		}
	}
}

func TestModels(t *testing.T) {
	t.Parallel()
	f := openai.New()
	_, body, _ := f.Models([]provider.ModelInfo{{Name: "small", Created: 7}, {Name: "o/l", Summary: "Large."}}, "")
	const want = `{"object":"list","data":[{"id":"small","object":"model","created":7,"owned_by":"postern"},{"id":"o/l","object":"model","created":0,"owned_by":"postern","summary":"Large."}]}`
	if string(body) != want {
		t.Errorf("%s\nwant %s", body, want)
	}
	if _, body, _ := f.Models(nil, ""); string(body) != `{"object":"list","data":[]}` {
		t.Errorf("no models: %s", body)
	}
}

// stream makes a call that streams, and its decoder.
func stream(t testing.TB, body string, most int64) provider.Decoder {
	t.Helper()
	f := openai.New()
	op, _ := f.Operation("POST", "/v1/chat/completions")
	call, problem := f.Read(op, nil, []byte(body), most)
	if problem != nil {
		t.Fatal(problem)
	}
	call.Targets, call.Target = []exchange.Target{{Model: "gpt-4o-mini"}}, 0
	return f.Decode(op, &call, []byte(body))
}

const asksStream = `{"model":"small","stream":true,"messages":[{"role":"user","content":"hi"}]}`

func delta(text string) []byte {
	quoted, _ := json.Marshal(text)
	return fmt.Appendf(nil, "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":%s}}]}\n\n", quoted)
}

// An estimate is the same however often it was asked for on the way.
func TestEstimateGrowsWithTheStream(t *testing.T) {
	t.Parallel()
	texts := map[string]string{
		"prose":   strings.Repeat("The quick brown fox jumps over the lazy dog, and 1234567 more. ", 25),
		"lines":   strings.Repeat("one\n\n  two\tthree   four\u00a0five\r\n", 40),
		"chinese": strings.Repeat("今天天气很好，我们去公园散步吧。", 40),
	}
	for name, text := range texts {
		seldom, often := stream(t, asksStream, 1e6), stream(t, asksStream, 1e6)
		last := int64(0)
		runes := []rune(text)
		for len(runes) > 0 {
			n := min(3, len(runes))
			event := delta(string(runes[:n]))
			runes = runes[n:]
			seldom.Event(nil, event)
			often.Event(nil, event)
			u := often.Usage()
			if !u.Estimated || u.Completion()+2 < last { // a longer word may be one token where its start was two
				t.Fatalf("%s: %v after %d tokens", name, u, last)
			}
			last = u.Completion()
		}
		if a, b := seldom.Usage(), often.Usage(); a != b || a.Completion() < 100 {
			t.Errorf("%s: asked at the end %v, asked all the time %v", name, a, b)
		}
	}
}

// A stream of any length is counted in bounded memory; what is not kept is taken to be like the rest.
func TestEstimateOfLongStream(t *testing.T) {
	t.Parallel()
	d := stream(t, asksStream, 1e6)
	event := delta(" alpha beta gamma delta")
	for range 10_000 {
		d.Event(nil, event)
	}
	if u := d.Usage(); u.Completion() < 39_000 || u.Completion() > 41_000 {
		t.Errorf("40,000 tokens are estimated as %v", u)
	}
}

func TestEstimateOfLongPrompt(t *testing.T) {
	t.Parallel()
	d := stream(t, `{"model":"small","stream":true,"messages":[{"role":"user","content":"`+strings.Repeat(" alpha", 200_000)+`"}]}`, 10)
	d.Event(nil, delta("x"))
	if u := d.Usage(); u.Prompt() < 199_000 || u.Prompt() > 201_000 {
		t.Errorf("200,000 tokens are estimated as %v", u)
	}
}

// Who leaves before the first event has had the prompt read all the same.
func TestUsageBeforeAnythingCame(t *testing.T) {
	t.Parallel()
	d := stream(t, asksStream, 10)
	for _, event := range []string{"", ": keep-alive\n\n"} {
		d.Event(nil, []byte(event))
		if u := d.Usage(); !u.Estimated || u.Prompt() != 8 || u.Completion() != 0 || u.Units[exchange.Requests] != 1 {
			t.Errorf("after %q: %+v", event, u)
		}
	}
}

func TestRefusalsCostNothing(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 400, 429, 500} {
		d := stream(t, asksStream, 10)
		d.Whole(status, []byte(`{"usage":{"prompt_tokens":5}}`))
		if u := d.Usage(); u != (exchange.Usage{}) {
			t.Errorf("status %d: %+v", status, u)
		}
	}
}

// The name put into a provider's error never breaks the JSON, however the target is called.
func TestErrorsStayValid(t *testing.T) {
	t.Parallel()
	f := openai.New()
	op, _ := f.Operation("POST", "/v1/chat/completions")
	body := []byte(`{"error":{"message":"line\nn u0041 \u0041 \\ \"n\" b. n"}}`)
	for _, target := range []string{"n", "u0041", "\\", "\"", "b", "", "line\\nn"} {
		call := exchange.Call{Model: "a \"quoted\" name", Targets: []exchange.Target{{Model: target}}}
		if got := f.Decode(op, &call, []byte(asksStream)).Whole(400, body); !json.Valid(got) {
			t.Errorf("%q: %s", target, got)
		}
	}
}

func TestEndMark(t *testing.T) {
	t.Parallel()
	for event, want := range map[string]bool{
		"data: [DONE]\n\n": true, "data:[DONE]\r\n\r\n": true, "data: [DONE] \n\n": true, ": x\ndata: [DONE]\n\n": true,
		"data: \"[DONE]\"\n\n": false, "event: [DONE]\n\n": false, "data: [DONE\ndata: ]\n\n": false,
	} {
		out, last := stream(t, asksStream, 10).Event(nil, []byte(event))
		if last != want || string(out) != event {
			t.Errorf("%q: %q, %v", event, out, last)
		}
	}
}

// What Encode asks for on the gateway's behalf leaves no trace: an upstream that says usage and one that was never asked
// look the same to the customer, wherever in the chunk the upstream puts the member.
func TestUnaskedUsageLeavesNoTrace(t *testing.T) {
	t.Parallel()
	members := []string{`"id":"a"`, `"model":"m"`, `"choices":[{"delta":{"content":"{\"usage\":null}"}}]`}
	for _, usage := range []string{`null`, `{"prompt_tokens":1,"completion_tokens":2}`, `{}`} {
		for at := range len(members) + 1 {
			with := append(append(append([]string{}, members[:at]...), `"usage":`+usage), members[at:]...)
			d := stream(t, asksStream, 10)
			got, _ := d.Event(nil, []byte("data: {"+strings.Join(with, ",")+"}\n\n"))
			want, _ := d.Event(nil, []byte("data: {"+strings.Join(members, ",")+"}\n\n"))
			if !bytes.Equal(got, want) {
				t.Errorf("at %d: %q, want %q", at, got, want)
			}
		}
	}
}

func TestEventAppends(t *testing.T) {
	t.Parallel()
	d := stream(t, asksStream, 10)
	out, _ := d.Event([]byte("before"), delta("x"))
	if !bytes.HasPrefix(out, []byte("beforedata: ")) {
		t.Errorf("%q", out)
	}
}

func TestFormatIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	f := openai.New()
	op, _ := f.Operation("POST", "/v1/chat/completions")
	results := make(chan exchange.Usage, 16)
	for i := range 16 {
		go func() {
			body := []byte(asksStream)
			call, _ := f.Read(op, nil, body, 100)
			call.Targets, call.Target = []exchange.Target{{Model: []string{"gpt-4o", "gpt-4"}[i%2]}}, 0
			d := f.Decode(op, &call, body)
			d.Event(nil, delta("hello there"))
			results <- d.Usage()
		}()
	}
	for range 16 {
		if u := <-results; u.Completion() != 2 {
			t.Errorf("%v", u)
		}
	}
}

func BenchmarkReadEncode(b *testing.B) {
	f := openai.New()
	op, _ := f.Operation("POST", "/v1/chat/completions")
	body := []byte(`{"model":"small","stream":true,"temperature":0.7,"top_p":0.9,"user":"u-1","messages":[{"role":"system","content":"` +
		strings.Repeat("You are terse. ", 20) + `"},{"role":"user","content":"` + strings.Repeat("Say hello to Ada.\\n", 30) + `"}]}`)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		call, problem := f.Read(op, nil, body, 1000)
		if problem != nil {
			b.Fatal(problem)
		}
		call.Targets, call.Target = []exchange.Target{{Model: "gpt-4o-mini"}}, 0
		if _, _, err := f.Encode(op, &call, body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEvent(b *testing.B) {
	event := []byte(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1741569952,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}],"usage":null}` + "\n\n")
	d := stream(b, asksStream, 10)
	var out []byte
	b.ReportAllocs()
	b.SetBytes(int64(len(event)))
	for b.Loop() {
		out, _ = d.Event(out[:0], event)
	}
}

func BenchmarkUsageMissing(b *testing.B) {
	d := stream(b, asksStream, 10)
	d.Event(nil, delta("warm up"))
	d.Usage()
	event := delta(" hello there")
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out, _ = d.Event(out[:0], event)
		d.Usage()
	}
}

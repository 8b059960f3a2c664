package openai

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/provider"
)

var chatOperation = provider.Operation{Name: chat, Billed: true, Streams: true}

// TestHoldCoversEveryReading: whatever of two readings an upstream has of a message, the hold covers the dearer one.
func TestHoldCoversEveryReading(t *testing.T) {
	t.Parallel()
	parts := func(part string) string {
		return `{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[` + part + `]}]}`
	}
	for name, tt := range map[string]struct {
		body string
		unit exchange.Unit
		most int64
	}{
		"an image":                    {parts(`{"type":"image_url","image_url":{"url":"https://a/b"}}`), exchange.ImageInput, imageTokens},
		"a small image":               {parts(`{"type":"image_url","image_url":{"url":"https://a/b","detail":"low"}}`), exchange.ImageInput, lowImageTokens},
		"the last detail is dear":     {parts(`{"type":"image_url","image_url":{"url":"https://a/b","detail":"low","detail":"high"}}`), exchange.ImageInput, imageTokens},
		"the first detail is dear":    {parts(`{"type":"image_url","image_url":{"url":"https://a/b","detail":"high","detail":"low"}}`), exchange.ImageInput, imageTokens},
		"another detail without case": {parts(`{"type":"image_url","image_url":{"url":"https://a/b","detail":"low","DETAIL":"high"}}`), exchange.ImageInput, imageTokens},
		"an image without case":       {parts(`{"type":"image_url","Image_URL":{"Url":"https://a/b"}}`), exchange.ImageInput, imageTokens},
		"content without case":        {`{"model":"m","messages":[{"role":"user","CONTENT":[{"type":"image_url","image_url":{"url":"https://a/b"}}]}]}`, exchange.ImageInput, imageTokens},
		"two contents":                {`{"model":"m","messages":[{"role":"user","content":"x","content":[{"type":"image_url","image_url":"https://a/b"}],"content":"y"}]}`, exchange.ImageInput, imageTokens},
		"a file without case":         {parts(`{"type":"file","FILE":{"file_id":"f"}}`), exchange.Input, fileTokens},
		"a video":                     {parts(`{"type":"video_url","video_url":{"url":"https://a/b"}}`), exchange.Input, fileTokens},
		"a video by its address":      {parts(`{"type":"video_url","video_url":"https://a/b"}`), exchange.Input, fileTokens},
		"sound elsewhere":             {parts(`{"type":"audio_url","audio_url":{"url":"https://a/b"}}`), exchange.Input, fileTokens},
		"an earlier reply in audio":   {`{"model":"m","messages":[{"role":"assistant","Audio":{"id":"a"}}]}`, exchange.AudioInput, audioReplyTokens},
	} {
		call, p := New().Read(chatOperation, nil, []byte(tt.body), 100)
		if p != nil {
			t.Errorf("%s: %v", name, p)
			continue
		}
		if got := call.Max.Units[tt.unit]; got < tt.most || tt.most == lowImageTokens && got >= imageTokens {
			t.Errorf("%s: holds for %d of %s, it may be %d", name, got, tt.unit, tt.most)
		}
	}
}

// TestLimitIsAlwaysNamed: no call goes out that could write more than what is held for.
func TestLimitIsAlwaysNamed(t *testing.T) {
	t.Parallel()
	f := New()
	for body, limit := range map[string]string{
		`{"model":"m","messages":[]}`:                                                    `"max_completion_tokens":100`,
		`{"model":"m","n":4,"messages":[]}`:                                              `"max_completion_tokens":100`,
		`{"model":"m","max_tokens":null,"messages":[]}`:                                  `"max_completion_tokens":100`,
		`{"model":"m","prediction":{"type":"content","content":"x"},"messages":[]}`:      `"max_completion_tokens":100`,
		`{"model":"m","n":3,"prediction":{"type":"content","content":""},"messages":[]}`: `"max_completion_tokens":100`,
		`{"model":"m","prediction":null,"messages":[]}`:                                  `"max_completion_tokens":100`,
		`{"model":"m","max_tokens":7,"messages":[]}`:                                     `"max_tokens":7`,
	} {
		call, p := f.Read(chatOperation, nil, []byte(body), 100)
		if p != nil {
			t.Fatal(body, p)
		}
		call.Targets, call.Target = []exchange.Target{{Model: "u"}}, 0
		_, sent, err := f.Encode(chatOperation, &call, []byte(body))
		if err != nil || !strings.Contains(string(sent), limit) {
			t.Errorf("%s goes out as %s, %v", body, sent, err)
		}
	}

	// A stage that changes the body can not make the call dearer than it was held for.
	call, _ := f.Read(chatOperation, nil, []byte(`{"model":"m","max_tokens":7,"messages":[]}`), 100)
	call.Targets, call.Target = []exchange.Target{{Model: "u"}}, 0
	for _, body := range []string{`{"model":"m","max_tokens":8,"messages":[]}`, `{"model":"m","max_tokens":7,"n":2,"messages":[]}`} {
		if _, sent, err := f.Encode(chatOperation, &call, []byte(body)); err == nil {
			t.Errorf("%s goes out under a hold for 7 tokens: %s", body, sent)
		}
	}
}

// TestRefusedForms: what some upstreams read as more than is held for is refused.
func TestRefusedForms(t *testing.T) {
	t.Parallel()
	for _, member := range []string{
		`"n":0`, `"n":-1`, `"n":129`, `"n":1.0`, `"n":1e2`, `"n":"2"`, `"n":[2]`, `"N":2`, `"\u006e":2,"n":3`,
		`"max_tokens":0`, `"max_tokens":-1`, `"max_tokens":101`, `"max_tokens":1.5`, `"max_tokens":1e1`, `"max_tokens":99999999999999999999`,
		`"max_tokens":5,"max_tokens":6`, `"max_tokens":5,"max_completion_tokens":6`, `"Max_Tokens":5`, `"max_to\u006bens":101`, `"max_toKens":101`,
		`"models":["m","x"]`, `"best_of":5`, `"Best_Of":5`, `"service_tier":"priority"`, `"service_tier":"\u0070riority"`, `"stream":1`,
		`"stream_options":{"include_usage":true,"include_usage":false}`, `"stream_options":{"Include_Usage":false}`, `"model":"x"`, `"Model":"x"`,
		`"` + strings.Repeat("a", 300) + `":1`,
	} {
		body := `{"model":"m","messages":[],` + member + `}`
		if call, p := New().Read(chatOperation, nil, []byte(body), 100); p == nil || p.Status != 400 {
			t.Errorf("%s is taken: %+v, %v", member, call.Max, p)
		}
	}
}

// TestLongNames: names are compared with one another, so a body of long ones must not be taken.
func TestLongNames(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(`{"model":"m","messages":[]`)
	for i := range 120 {
		fmt.Fprintf(&b, `,"%s%03d":1`, strings.Repeat(`\u0061`, 80_000/6), i)
	}
	b.WriteString("}")
	if _, p := New().Read(chatOperation, nil, []byte(b.String()), 0); p == nil || len(p.Detail) > 1000 {
		t.Errorf("%v", p)
	}
}

// TestLeftEarly: what a customer is charged who leaves before usage was reported follows from what was asked.
func TestLeftEarly(t *testing.T) {
	t.Parallel()
	image := `{"type":"image_url","image_url":{"url":"https://a/b"}}`
	for name, tt := range map[string]struct {
		model, part string
		least       int64
	}{
		"an image":         {"gpt-4o", image, typicalImageTokens},
		"a dear image":     {"gpt-4o-mini-2024-07-18", image, dearImageTokens},
		"a file":           {"gpt-4o", `{"type":"file","file":{"file_id":"f"}}`, typicalFileTokens},
		"a file's content": {"gpt-4o", `{"type":"file","file":{"file_data":"` + strings.Repeat("A", 80_000) + `"}}`, 10_000},
	} {
		body := []byte(`{"model":"m","messages":[{"role":"user","content":[` + tt.part + `]}]}`)
		f := New()
		call, p := f.Read(chatOperation, nil, body, 100)
		if p != nil {
			t.Fatal(p)
		}
		call.Targets, call.Target = []exchange.Target{{Model: tt.model}}, 0
		u := f.Decode(chatOperation, &call, body).Usage()
		if u.Prompt() < tt.least || !u.Estimated || u.Prompt() > call.Max.Prompt() {
			t.Errorf("%s: %d tokens, at least %d and at most %d", name, u.Prompt(), tt.least, call.Max.Prompt())
		}
	}
}

package placeholder

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/postern-gateway/postern/plugins/redact/detect"
	scan "github.com/postern-gateway/postern/sdk/go/json"
)

func everything() *detect.Detector {
	d := new(detect.Detector)
	for k := detect.Email; k < detect.KindCount; k++ {
		d.Kinds[k] = true
	}
	return d
}

func newRedactor() *Redactor { return &Redactor{Detector: everything(), Vault: new(Vault)} }

// redacted is the redacted form of a JSON text.
func redacted(t testing.TB, r *Redactor, text string) string {
	t.Helper()
	r.Vault.Reset()
	if err := r.JSON([]byte(text)); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	out := string(r.Append(nil, []byte(text)))
	if !json.Valid([]byte(out)) {
		t.Fatalf("not JSON any more: %s", out)
	}
	return out
}

func TestRedactJSON(t *testing.T) {
	t.Parallel()
	pem := `-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\n-----END PRIVATE KEY-----`
	for name, c := range map[string]struct{ in, out string }{
		"content":         {`{"messages":[{"role":"user","content":"I am alice@example.com"}]}`, `{"messages":[{"role":"user","content":"I am [EMAIL_1]"}]}`},
		"same value":      {`{"input":["a@example.com","b@example.com","a@example.com"]}`, `{"input":["[EMAIL_1]","[EMAIL_2]","[EMAIL_1]"]}`},
		"kinds":           {`{"a":"a@example.com +14155552671 4532015112830366"}`, `{"a":"[EMAIL_1] [PHONE_1] [CARD_1]"}`},
		"parts":           {`{"messages":[{"content":[{"type":"text","text":"a@example.com"},{"type":"image_url","image_url":{"url":"https://x.example/a@example.com"}}]}]}`, `{"messages":[{"content":[{"type":"text","text":"[EMAIL_1]"},{"type":"image_url","image_url":{"url":"https://x.example/[EMAIL_1]"}}]}]}`},
		"model":           {`{"model":"a@example.com","x":{"model":"a@example.com"}}`, `{"model":"a@example.com","x":{"model":"[EMAIL_1]"}}`},
		"ids":             {`{"messages":[{"role":"a@example.com","tool_call_id":"a@example.com","tool_calls":[{"id":"a@example.com","type":"a@example.com","function":{"name":"a@example.com"}}],"name":"a@example.com"}]}`, `{"messages":[{"role":"[EMAIL_1]","tool_call_id":"[EMAIL_1]","tool_calls":[{"id":"[EMAIL_1]","type":"[EMAIL_1]","function":{"name":"[EMAIL_1]"}}],"name":"[EMAIL_1]"}]}`},
		"words":           {`{"messages":[{"role":"user","tool_call_id":"call_13812345678","tool_calls":[{"id":"13812345678","type":"function","function":{"name":"f_13812345678"}}]}]}`, ""},
		"caller's ids":    {`{"metadata":{"id":"a@example.com","role":"b@example.com"}}`, `{"metadata":{"id":"[EMAIL_1]","role":"[EMAIL_2]"}}`},
		"tool schema":     {`{"tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"type":{"type":"a@example.com"}}}}}]}`, `{"tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"type":{"type":"[EMAIL_1]"}}}}}]}`},
		"member names":    {`{"a@example.com":"a@example.com","metadata":{"b\u0040example.com":1}}`, `{"[EMAIL_1]":"[EMAIL_1]","metadata":{"[EMAIL_2]":1}}`},
		"nested names":    {`{"arguments":"{\"a@example.com\":{\"\\u0062@example.com\":2}}"}`, `{"arguments":"{\"[EMAIL_1]\":{\"[EMAIL_2]\":2}}"}`},
		"nested numbers":  {`{"arguments":"{\"card\":4532015112830366,\"n\":[1,13812345678, -13812345678, 13812345678.5]}"}`, `{"arguments":"{\"card\":\"[CARD_1]\",\"n\":[1,\"[PHONE_1]\", -13812345678, 13812345678.5]}"}`},
		"numbers twice":   {`{"a":"{\"b\":\"{\\\"c\\\":4532015112830366}\"}"}`, `{"a":"{\"b\":\"{\\\"c\\\":\\\"[CARD_1]\\\"}\"}"}`},
		"caller's number": {`{"metadata":{"card":4532015112830366},"seed":13812345678}`, `{"metadata":{"card":"[CARD_1]"},"seed":13812345678}`},
		"escapes":         {`{"x":"\u0061lice\u0040example.com\n\"b@example.com\"\t\ud83d\ude00c@example.com"}`, `{"x":"[EMAIL_1]\n\"[EMAIL_2]\"\t\ud83d\ude00[EMAIL_3]"}`},
		"nested":          {`{"arguments":"{\"id\":\"a@example.com\",\"n\":[1,\"\\u0062@example.com\\nc@example.com\"]}"}`, `{"arguments":"{\"id\":\"[EMAIL_1]\",\"n\":[1,\"[EMAIL_2]\\n[EMAIL_3]\"]}"}`},
		"nested twice":    {`{"a":"{\"b\":\"{\\\"c\\\":\\\"\\\\na@example.com\\\"}\"}"}`, `{"a":"{\"b\":\"{\\\"c\\\":\\\"\\\\n[EMAIL_1]\\\"}\"}"}`},
		"nearly nested":   {`{"a":"{a@example.com}"}`, `{"a":"{[EMAIL_1]}"}`},
		"key":             {`{"a":"my key ` + pem + ` ok"}`, `{"a":"my key [SECRET_1] ok"}`},
		"key in JSON":     {`{"a":"{\"k\":\"` + strings.ReplaceAll(pem, `\`, `\\`) + `\"}"}`, `{"a":"{\"k\":\"[SECRET_1]\"}"}`},
		"taken":           {`{"a":"[EMAIL_1] and [EMAIL_3] mean a@example.com b@example.com"}`, `{"a":"[EMAIL_1] and [EMAIL_3] mean [EMAIL_2] [EMAIL_4]"}`},
		"taken later":     {`{"a":"a@example.com","b":{"[EMAIL_1]":"\u005bEMAIL_2]"}}`, `{"a":"[EMAIL_3]","b":{"[EMAIL_1]":"\u005bEMAIL_2]"}}`},
		"data URL":        {`{"url":"data:image/png;base64,` + strings.Repeat("AKIAABCDEFGHIJKLMNOP+14155552671/", 10) + `"}`, ""},
		"short data URL":  {`{"url":"data:text/plain,a@example.com"}`, `{"url":"data:text/plain,[EMAIL_1]"}`},
		"fake data URL":   {`{"url":"data:a@example.com;base64,` + strings.Repeat("A", 64) + `"}`, `{"url":"data:[EMAIL_1];base64,` + strings.Repeat("A", 64) + `"}`},
		"base64":          {`{"data":"` + strings.Repeat("iVBOR4532015112830366/", 20) + `"}`, ""},
		"numbers":         {`{"a":4532015112830366,"b":13812345678}`, ""},
		"nothing":         {`{"messages":[{"role":"user","content":"Hello, world. 2 + 2 = 4"}],"stream":true,"n":1.5e3}`, ""},
		"no object":       {` "a@example.com" `, ` "[EMAIL_1]" `},
		"white space":     {"{\r\n\t\"a\" : [ \"a@example.com\" , null ] }\n", "{\r\n\t\"a\" : [ \"[EMAIL_1]\" , null ] }\n"},
		"protocol's type": {`{"response_format":{"type":"json_object"},"messages":[]}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.out == "" {
				c.out = c.in
			}
			r := newRedactor()
			if got := redacted(t, r, c.in); got != c.out {
				t.Errorf("\n got %s\nwant %s", got, c.out)
			}
			if want := name == "protocol's type"; r.JSONMode != want {
				t.Errorf("JSONMode is %t", r.JSONMode)
			}
		})
	}
}

func TestInvalid(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", scan.MaxDepth+1) + strings.Repeat("]", scan.MaxDepth+1)
	for _, text := range []string{
		"", " ", "{", "}", "[", "{]", `{"a"}`, `{"a":}`, `{"a":1,}`, `[1,]`, `[,1]`, `{"a" "b"}`, `{a:1}`, `{"a":1}{}`, `"a`, "\"a\nb\"", `"\x"`, `"\u12g4"`, `"\`,
		"\"\xff\"", "01", "1.", "-", "+1", "1e", "nul", "truefalse", "// x\n{}", deep, `{"a":1 "b":2}`, "\ufeff{}", "[1 2]", "{\"a\":\"a@example.com\"", `["a":1]`, `{"a",1}`, `{"a":,}`, `{:1}`,
	} {
		if err := newRedactor().JSON([]byte(text)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
		if json.Valid([]byte(text)) && text != deep && utf8.ValidString(text) {
			t.Errorf("%q is valid", text)
		}
	}
	if err := newRedactor().Text([]byte("a\xff")); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

func TestTooMuch(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(`["`)
	for i := range maxValues {
		fmt.Fprintf(&b, "user%d@example.com ", i)
	}
	r := newRedactor()
	if err := r.JSON([]byte(b.String() + `"]`)); err != nil {
		t.Errorf("%d values: %v", maxValues, err)
	}
	if carry := r.Vault.Append(nil, 0); len(carry)+maxPending > 64<<10 {
		t.Errorf("a carry of %d octets", len(carry))
	}
	r.Vault.Reset()
	if err := r.JSON([]byte(b.String() + `one.more@example.com"]`)); !errors.Is(err, ErrTooMuch) {
		t.Error(err)
	}
	r.Vault.Reset()
	if err := r.JSON([]byte(`["` + strings.Repeat("a@example.com ", maxEdits+1) + `"]`)); !errors.Is(err, ErrTooMuch) {
		t.Error(err)
	}
}

// planted are values for generated texts.
var planted = []string{
	"alice@example.com", "bob.b+x@mail.example.org", "+14155552671", "13812345678", "4532015112830366", "4532 0151 1283 0366", "DE89370400440532013000",
	"ghp_16C7e42F292c6912E7710c838347Ae178B4a", "-----BEGIN PRIVATE KEY-----\nMIIEvQ\"\\IBADA\n-----END PRIVATE KEY-----", "11010519491231002X",
}

var fillers = []string{
	" ", "\n", " hello ", " [EMAIL_1] ", " [PHONE_2] ", "[", " [EM", "EMAIL_1]", " \\ ", ` "quoted" `, " 日本語 ", " 😀 ", " [CARD_", " ]", " {\"a\":1} ", "\t", " [SECRET_1", " [[", " 42 ", " / ",
}

func randomText(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(8) {
		b.WriteString(fillers[r.IntN(len(fillers))])
		if r.IntN(2) == 0 {
			b.WriteString(" " + planted[r.IntN(len(planted))] + " ")
		}
	}
	return b.String()
}

// quote writes text as a JSON string, with more escapes than are needed.
func quote(r *rand.Rand, text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			b.WriteString("\\" + string(c))
		case c == '\n':
			b.WriteString(`\n`)
		case c < ' ' || r.IntN(12) == 0 && c < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String() + `"`
}

// TestRoundTrip plants values in random texts, takes them out, and puts them back: whole, in pieces of every kind, nested.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		text := randomText(rnd)
		arguments := `{"to":` + quote(rnd, text) + `}`
		request := `{"a":` + quote(rnd, text) + `,"arguments":` + quote(rnd, arguments) + `,"messages":[{"content":` + quote(rnd, text) + `}]}`
		r := newRedactor()
		sent := redacted(t, r, request)
		var up struct {
			A, Arguments string
			Messages     []struct{ Content string }
		}
		if err := json.Unmarshal([]byte(sent), &up); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for _, v := range planted {
			if strings.Contains(up.A, v) || strings.Contains(up.Arguments, v) || strings.Contains(up.Messages[0].Content, v) {
				t.Fatalf("seed %d: %q goes upstream in %s", seed, v, sent)
			}
		}
		restorer := &Restorer{Vault: r.Vault}
		// Whole: the upstream gives back what it got, in its own escapes.
		reply := `{"choices":[{"message":{"content":` + quote(rnd, up.A) + `,"tool_calls":[{"function":{"arguments":` + quote(rnd, up.Arguments) + `}}]}}]}`
		type whole struct {
			Choices []struct {
				Message struct {
					Content string
					Calls   []struct{ Function struct{ Arguments string } } `json:"tool_calls"`
				}
			}
		}
		check := func(how string, got []byte) {
			t.Helper()
			var down whole
			var args struct{ To string }
			if err := json.Unmarshal(got, &down); err != nil {
				t.Fatalf("seed %d %s: %v in %s", seed, how, err, got)
			}
			if err := json.Unmarshal([]byte(down.Choices[0].Message.Calls[0].Function.Arguments), &args); err != nil {
				t.Fatalf("seed %d %s: %v in arguments of %s", seed, how, err, got)
			}
			if down.Choices[0].Message.Content != text || args.To != text {
				t.Fatalf("seed %d %s:\n got %q\n and %q\nwant %q", seed, how, down.Choices[0].Message.Content, args.To, text)
			}
		}
		got, _ := restorer.Whole([]byte(reply))
		check("whole", got)
		var c Chunk
		var all []byte
		for rest := []byte(reply); ; {
			n := min(len(rest), rnd.IntN(9))
			var loaded Chunk
			loaded.Load(c.Append(nil))
			c = loaded
			part, _ := c.Next(restorer, rest[:n], n == len(rest))
			all = append(all, part...)
			if rest = rest[n:]; len(rest) == 0 && n > 0 {
				part, _ = c.Next(restorer, nil, true)
				all = append(all, part...)
				break
			}
		}
		// In pieces, placeholders inside nested escapes stay: what an upstream writes plainly is restored.
		if !strings.Contains(reply, `\u00`) {
			check("chunks", all)
		} else if !json.Valid(all) {
			t.Fatalf("seed %d chunks: %s", seed, all)
		}
		if content, args := stream(t, rnd, restorer, up.A, up.Arguments); content != text {
			t.Fatalf("seed %d stream: got %q want %q", seed, content, text)
		} else if !strings.Contains(up.Arguments, `\u00`) {
			var into struct{ To string }
			if err := json.Unmarshal([]byte(args), &into); err != nil || into.To != text {
				t.Fatalf("seed %d stream: arguments %s: %v\n got %q\nwant %q", seed, args, err, into.To, text)
			}
		}
	}
}

// stream sends two texts in events, cut anywhere, through the restorer and returns what a client puts together.
func stream(t testing.TB, rnd *rand.Rand, r *Restorer, content, arguments string) (gotContent, gotArguments string) {
	t.Helper()
	end := []string{"\n", "\r\n", "\r"}[rnd.IntN(3)]
	var out []byte
	feed := func(event string, last bool) {
		before := len(r.sent)
		state := r.Append(nil)
		r.Load(state)
		if len(r.sent) != before {
			t.Fatal("the carry lost what was held back")
		}
		part, _ := r.Events([]byte(event), last, false)
		out = append(out, part...)
	}
	r.Load(nil)
	cut := func(s *string) string {
		runes := []rune(*s)
		n := min(len(runes), 1+rnd.IntN(4))
		*s = string(runes[n:])
		return string(runes[:n])
	}
	feed(`data: {"id":"x","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`+end+end, false)
	for content != "" || arguments != "" {
		switch {
		case content != "" && (arguments == "" || rnd.IntN(2) == 0):
			feed(`data: {"id":"x","choices":[{"index":0,"delta":{"content":`+quote(rnd, cut(&content))+`},"logprobs":null,"finish_reason":null}]}`+end+end, false)
		default:
			feed(`data: {"id":"x","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":`+quote(rnd, cut(&arguments))+`}}]},"finish_reason":null}]}`+end+end, false)
		}
		if rnd.IntN(4) == 0 {
			feed(": ping"+end+end, false)
		}
	}
	if rnd.IntN(2) == 0 {
		feed(`data: {"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+end+end, false)
		if len(r.sent) > 0 {
			t.Fatal("something is held back behind the end of the choice")
		}
	}
	if rnd.IntN(2) == 0 {
		feed("data: [DONE]"+end+end, false)
	}
	feed("", true)
	finished := false
	for at := 0; at < len(out); {
		n := eventLength(out[at:])
		event := out[at : at+n]
		at += n
		data, ok := bytes.CutPrefix(bytes.TrimSpace(event), []byte("data: "))
		if !ok || string(data) == "[DONE]" {
			finished = finished || ok
			continue
		}
		var chunk struct {
			Choices []struct {
				Delta struct {
					Content string
					Calls   []struct{ Function struct{ Arguments string } } `json:"tool_calls"`
				}
				Finish *string `json:"finish_reason"`
			}
		}
		if err := json.Unmarshal(data, &chunk); err != nil {
			t.Fatalf("event %q: %v", event, err)
		}
		if finished {
			t.Fatalf("event %q behind the end", event)
		}
		gotContent += chunk.Choices[0].Delta.Content
		for _, call := range chunk.Choices[0].Delta.Calls {
			gotArguments += call.Function.Arguments
		}
		finished = chunk.Choices[0].Finish != nil
	}
	return gotContent, gotArguments
}

// vaultOf has one value for each kind given.
func vaultOf(values ...string) *Vault {
	v := new(Vault)
	v.Reset()
	for _, s := range values {
		v.add(detect.Email, []byte(s))
	}
	v.number()
	return v
}

// TestEverySplit cuts one text at every pair of places.
func TestEverySplit(t *testing.T) {
	t.Parallel()
	const text, want = "x [EMAIL_1][EMAIL_12] [EMAIL_2]y[", "x a@example.com[EMAIL_12] b@example.comy["
	r := &Restorer{Vault: vaultOf("a@example.com", "b@example.com")}
	for i := range len(text) {
		for k := i; k <= len(text); k++ {
			var got string
			for n, part := range []string{text[:i], text[i:k], text[k:]} {
				event := `data: {"choices":[{"index":0,"delta":{"content":"` + part + `"}}]}` + "\n\n"
				out, _ := r.Events([]byte(event), n == 2, false)
				for _, piece := range strings.Split(string(out), `"content":"`)[1:] {
					got += piece[:strings.IndexByte(piece, '"')]
				}
			}
			if got != want {
				t.Fatalf("cut at %d and %d: %q", i, k, got)
			}
			for _, mode := range []string{`"`, ``} {
				var c Chunk
				got = ""
				for n, part := range []string{mode + text[:i], text[i:k], text[k:] + mode} {
					out, _ := c.Next(r, []byte(part), n == 2)
					got += string(out)
				}
				if got != mode+want+mode {
					t.Fatalf("chunks cut at %d and %d: %q", i, k, got)
				}
			}
		}
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	chunk := func(i int, s string) string {
		return fmt.Sprintf(`data: {"choices":[{"index":%d,"delta":{"content":"%s"}}]}`+"\n\n", i, s)
	}
	for name, c := range map[string]struct {
		in   []string // an event each
		out  string
		json bool
	}{
		"untouched":         {[]string{chunk(0, "hi"), "data: [DONE]\n\n"}, chunk(0, "hi") + "data: [DONE]\n\n", false},
		"in one":            {[]string{chunk(0, "to [EMAIL_1].")}, chunk(0, "to a@example.com."), false},
		"two choices":       {[]string{chunk(0, "[EMA"), chunk(1, "[EMAIL"), chunk(0, "IL_1]"), chunk(1, "_2]")}, chunk(0, "") + chunk(1, "") + chunk(0, "a@example.com") + chunk(1, "b@example.com"), false},
		"one choice ends":   {[]string{chunk(0, "["), chunk(1, "[EM"), `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n", chunk(1, "AIL_1]")}, chunk(0, "") + chunk(1, "") + chunk(0, "[") + `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n" + chunk(1, "a@example.com"), false},
		"ends with text":    {[]string{`data: {"choices":[{"delta":{"content":"x["},"finish_reason":"length"}]}` + "\n\n"}, `data: {"choices":[{"delta":{"content":"x["},"finish_reason":"length"}]}` + "\n\n", false},
		"said once":         {[]string{`data: {"choices":[{"delta":{"role":"assistant","content":"["},"logprobs":{"content":[{"token":"["}]}}]}` + "\n\n", "data: [DONE]\n\n"}, `data: {"choices":[{"delta":{"role":"assistant","content":""},"logprobs":{"content":[{"token":"["}]}}]}` + "\n\n" + `data: {"choices":[{"delta":{"role":"","content":"["},"logprobs":null}]}` + "\n\ndata: [DONE]\n\n", false},
		"error":             {[]string{chunk(0, "["), `data: {"error":{"message":"x"}}` + "\n\n"}, chunk(0, "") + chunk(0, "[") + `data: {"error":{"message":"x"}}` + "\n\n", false},
		"comment between":   {[]string{chunk(0, "[EMAIL_"), ": ping\n\n", chunk(0, "1]")}, chunk(0, "") + ": ping\n\n" + chunk(0, "a@example.com"), false},
		"completions":       {[]string{`data: {"choices":[{"index":0,"text":"[EMAIL"}]}` + "\n\n", `data: {"choices":[{"index":0,"text":"_1]"}]}` + "\n\n"}, `data: {"choices":[{"index":0,"text":""}]}` + "\n\n" + `data: {"choices":[{"index":0,"text":"a@example.com"}]}` + "\n\n", false},
		"named events":      {[]string{"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"[EM\"}}\n\n", "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"}, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"[EM\"}}\n\nevent: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n", false},
		"responses":         {[]string{"data: {\"type\":\"response.output_text.delta\",\"output_index\":0,\"delta\":\"[EMAIL_\"}\n\n", "data: {\"type\":\"response.output_text.delta\",\"output_index\":0,\"delta\":\"2]\"}\n\n", "data: {\"type\":\"response.output_text.done\",\"output_index\":0,\"text\":\"[EMAIL_2]\"}\n\n"}, "data: {\"type\":\"response.output_text.delta\",\"output_index\":0,\"delta\":\"\"}\n\ndata: {\"type\":\"response.output_text.delta\",\"output_index\":0,\"delta\":\"b@example.com\"}\n\ndata: {\"type\":\"response.output_text.done\",\"output_index\":0,\"text\":\"b@example.com\"}\n\n", false},
		"several lines":     {[]string{"data: {\"a\":\ndata: \"[EMAIL_1]\"}\n\n"}, "data: {\"a\":\ndata: \"a@example.com\"}\n\n", false},
		"several at once":   {[]string{chunk(0, "[EMAIL_1") + chunk(0, "]") + "data: [DONE]\n\n"}, chunk(0, "") + chunk(0, "a@example.com") + "data: [DONE]\n\n", false},
		"plain text":        {[]string{"data: hello [EMAIL_1]\n\n"}, "data: hello a@example.com\n\n", false},
		"lines of a value":  {[]string{"data: hello [EMAIL_3]\n\n"}, "data: hello k\"\\\ndata: e\n\n", false},
		"escaped":           {[]string{chunk(0, "[EMAIL_3]")}, chunk(0, `k\"\\\ne`), false},
		"JSON mode":         {[]string{chunk(0, `{\"k\":\"[EMAIL_3]`)}, chunk(0, `{\"k\":\"k\\\"\\\\\\ne`), true},
		"unknown":           {[]string{chunk(0, "[EMAIL_9] [PHONE_1]")}, chunk(0, "[EMAIL_9] [PHONE_1]"), false},
		"cut off":           {[]string{"data: {\"a\":\"[EMAIL_1]\"}"}, "data: {\"a\":\"a@example.com\"}\n", false},
		"carriage returns":  {[]string{"event: x\r\ndata:{\"a\":\"[EMAIL_1]\"}\r\n\r\n"}, "event: x\r\ndata:{\"a\":\"a@example.com\"}\r\n\r\n", false},
		"large":             {[]string{"data: {\"a\":[" + strings.Repeat("1,", maxNodes) + "\"[EMAIL_3]\"]}\n\n"}, "data: {\"a\":[" + strings.Repeat("1,", maxNodes) + "\"k\\\"\\\\\\ne\"]}\n\n", false},
		"broken JSON":       {[]string{chunk(0, "["), "data: {\"a\":\"[EMAIL_1]\n\n"}, chunk(0, "") + chunk(0, "[") + "data: {\"a\":\"a@example.com\n\n", false},
		"done text in JSON": {[]string{"data: {\"type\":\"response.function_call_arguments.done\",\"arguments\":\"{\\\"k\\\":\\\"[EMAIL_3]\\\"}\"}\n\n"}, "data: {\"type\":\"response.function_call_arguments.done\",\"arguments\":\"{\\\"k\\\":\\\"k\\\\\\\"\\\\\\\\\\\\ne\\\"}\"}\n\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &Restorer{Vault: vaultOf("a@example.com", "b@example.com", "k\"\\\ne")}
			var got strings.Builder
			for i, e := range c.in {
				out, changed := r.Events([]byte(e), i == len(c.in)-1, c.json)
				if !changed && string(out) != e {
					t.Errorf("%q came back as %q, not called a change", e, out)
				}
				got.Write(out)
			}
			if got.String() != c.out {
				t.Errorf("\n got %q\nwant %q", got.String(), c.out)
			}
		})
	}
}

func FuzzScanner(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e-3,"x\u00e9",null,true,{}],"b":""}`, `[[[]]]`, `"\ud800"`, `{"a":"{\"b\":\"\\u0061@example.com\"}"}`, "1", ` [ 1 , 2 ] `, `{"a":{"b":[{"c":1}]}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := newRedactor()
		r.Vault.Reset()
		err := r.JSON(text)
		if valid := json.Valid(text) && utf8.Valid(text); (err == nil) != valid && (!errors.Is(err, ErrInvalid) || !deeper(text)) && !errors.Is(err, ErrTooMuch) {
			t.Fatalf("%q: %v, encoding/json says %t", text, err, valid)
		}
		if err != nil {
			return
		}
		out := r.Append(nil, text)
		var before, after any
		if decode(text, &before) != nil || decode(out, &after) != nil {
			t.Fatalf("%q became %q", text, out)
		}
		if len(r.edits) == 0 && !bytes.Equal(out, text) {
			t.Fatalf("%q changed without a find", text)
		}
		back, _ := (&Restorer{Vault: r.Vault}).Whole(out)
		var restored any
		if err := decode(back, &restored); err != nil || !reflect.DeepEqual(plain(restored), plain(before)) {
			t.Fatalf("%q became %q and came back as %q (%v)", text, out, back, err)
		}
	})
}

// decode keeps numbers as they are written: some do not fit any type.
func decode(text []byte, into *any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d.Decode(into)
}

// plain is v with JSON texts in strings taken apart, whose escapes may come back differently.
func plain(v any) any {
	switch v := v.(type) {
	case string:
		var in any
		if looksNested([]byte(v)) && json.Valid([]byte(v)) && decode([]byte(v), &in) == nil {
			return plain(in)
		}
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = plain(v[k])
		}
	}
	return v
}

func deeper(text []byte) bool {
	depth, most := 0, 0
	for _, c := range text {
		switch c {
		case '[', '{':
			depth++
			most = max(most, depth)
		case ']', '}':
			depth--
		}
	}
	return most > scan.MaxDepth
}

func FuzzRestore(f *testing.F) {
	f.Add([]byte("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"[EMA\"}}]}\n\n"), []byte("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"IL_1]\"}}]}\r\n\r\n"), true)
	f.Add([]byte("data: [EMAIL_1]\n\n: x\n\n"), []byte("data: [DONE]\n\n"), false)
	f.Add([]byte(`{"arguments":"[EM`), []byte(`AIL_\u0031]"}`), true)
	f.Add([]byte("event: x\rdata: {\"delta\":\"[\"}\r\r"), []byte("data: {\"delta\"\ndata: :1}\n\n"), true)
	f.Fuzz(func(t *testing.T, a, b []byte, jsonMode bool) {
		r := &Restorer{Vault: vaultOf("a@example.com", "x\"y\n")}
		for _, part := range [][]byte{a, b} {
			state := r.Append(nil)
			r.Load(state)
			out, changed := r.Events(part, false, jsonMode)
			if !changed && !bytes.Equal(out, part) {
				t.Fatalf("%q changed to %q in silence", part, out)
			}
		}
		r.Events(nil, true, jsonMode)
		if len(r.sent) > 0 {
			t.Fatal("something is held back at the end")
		}
		// A body in two pieces is the body, with what its placeholders stand for.
		var c Chunk
		one, _ := c.Next(r, a, false)
		got := string(one)
		two, _ := c.Next(r, b, true)
		got += string(two)
		var whole Chunk
		want, _ := whole.Next(r, append(bytes.Clone(a), b...), true)
		if got != string(want) {
			t.Fatalf("%q and %q: %q, in one %q", a, b, got, want)
		}
		var v Vault
		if _, rest, ok := v.Load(a); ok {
			r.Load(rest)
			c.Load(rest)
		}
	})
}

func benchmarkText(pii bool) []byte {
	var b strings.Builder
	b.WriteString(`{"model":"small","messages":[{"role":"user","content":"`)
	for i := 0; b.Len() < 64<<10; i++ {
		b.WriteString("The quick brown fox jumps over the lazy dog, in 2024 and again at 10:30; it costs $12.50 [1].\\n")
		if pii && i%50 == 0 {
			b.WriteString("Write to alice@example.com or call +14155552671. ")
		}
	}
	b.WriteString(`"}]}`)
	return []byte(b.String())
}

func BenchmarkRedact64KiB(b *testing.B) {
	for name, pii := range map[string]bool{"clean": false, "found": true} {
		b.Run(name, func(b *testing.B) {
			text := benchmarkText(pii)
			r := newRedactor()
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				r.Vault.Reset()
				if err := r.JSON(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRestoreEvent(b *testing.B) {
	r := &Restorer{Vault: vaultOf("a@example.com")}
	for name, content := range map[string]string{"plain": "hello", "placeholder": "to [EMAIL_1]."} {
		b.Run(name, func(b *testing.B) {
			event := []byte(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"` + content + `"},"logprobs":null,"finish_reason":null}]}` + "\n\n")
			b.ReportAllocs()
			for b.Loop() {
				r.Events(event, false, false)
			}
		})
	}
}

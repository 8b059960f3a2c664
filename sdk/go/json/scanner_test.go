package json_test

import (
	stdjson "encoding/json"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/sdk/go/json"
)

// kinds reads a text and names its tokens, one letter each; ok is false when it is not JSON.
func kinds(text string) (letters string, ok bool) {
	var s json.Scanner
	s.Reset([]byte(text))
	for range len(text) + 2 {
		switch t := s.Next(); t.Kind {
		case json.Bad:
			return letters, false
		case json.End:
			return letters, true
		default:
			letters += string(" EOCKSL"[t.Kind])
		}
	}
	panic("the scanner does not come to an end")
}

func TestScanner(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{}`: "OC", ` [ ] `: "OC", `"a"`: "S", `-1.5e+3`: "L", `{"a":[1,"b",null,{}],"c":true}`: "OKOLSLOCCKLC", `"\ud83d\ude00\/"`: "S",
	} {
		if got, ok := kinds(text); !ok || got != want {
			t.Errorf("%s: %s, %v; want %s", text, got, ok, want)
		}
	}
	for _, text := range []string{
		``, ` `, `{`, `]`, `[1`, `[1,]`, `[,1]`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`, `[1 2]`, `1 2`, `"a`, `"\x"`, `"\u12"`, "\"\n\"", `01`, `1.`, `.5`, `+1`, `1e`, `tru`, `nul`, `[}`, `{]`,
		`{"a":1 "b":2}`, `{1:2}`, "\xef\xbb\xbf{}", strings.Repeat("[", json.MaxDepth+1) + strings.Repeat("]", json.MaxDepth+1),
	} {
		if got, ok := kinds(text); ok {
			t.Errorf("%s is taken: %s", text, got)
		}
	}
	if _, ok := kinds(strings.Repeat("[", json.MaxDepth) + strings.Repeat("]", json.MaxDepth)); !ok {
		t.Error("the greatest depth is refused")
	}
}

// FuzzScanner: it takes what the standard library takes, and reads strings as that does.
func FuzzScanner(f *testing.F) {
	for _, s := range []string{`{"a":[1,"b\n",null,{"c":"\ud83d\ude00"}]}`, `"\ud800x"`, `[[[]]]`, `-0.0e-1`, `{"a":{"b":{}}}`, "\"\x7f\"", `{"":""}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		_, ok := kinds(string(text))
		valid := stdjson.Valid(text)
		if ok != valid && !deep(text) {
			t.Fatalf("taken %v, valid %v: %q", ok, valid, text)
		}
		var want string
		if ok && stdjson.Unmarshal(text, &want) == nil && text[0] == '"' {
			inside := []byte(strings.TrimSpace(string(text)))
			inside = inside[1 : len(inside)-1]
			got, escaped := json.Unescape(nil, inside)
			if !escaped {
				got = inside
			}
			if strings.ToValidUTF8(string(got), "\ufffd") != strings.ToValidUTF8(want, "\ufffd") && strings.ToValidUTF8(string(inside), "") == string(inside) {
				t.Fatalf("%q reads %q, want %q", text, got, want)
			}
		}
	})
}

func deep(text []byte) bool {
	depth := 0
	for _, c := range text {
		if c == '[' || c == '{' {
			depth++
		}
	}
	return depth > json.MaxDepth
}

func TestAllocations(t *testing.T) {
	text := []byte(`{"messages":[{"role":"user","content":"hello \"you\""}],"n":1.5e3}`)
	var s json.Scanner
	buffer := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() {
		s.Reset(text)
		for t := s.Next(); t.Kind != json.End; t = s.Next() {
			if t.Kind == json.String {
				buffer, _ = json.Unescape(buffer[:0], text[t.Start+1:t.End-1])
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

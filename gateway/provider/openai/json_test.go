package openai

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"
)

// FuzzScanner holds the scanner against encoding/json: the same texts are valid, the same strings mean the same.
func FuzzScanner(f *testing.F) {
	for _, s := range []string{
		`{}`, `[]`, `{"a":[1,-2.5e+3,true,false,null,"x\u00e9\n\ud83d\ude00"]}`, ` [ 1 , 2 ] `, `[1,]`, `{"a":1,}`, `01`, `1.`, `-`, `.5`, `1e`,
		`"\x"`, `"\ud800"`, `"\ud800\u0041"`, `"\udc00\ud800"`, `tru`, `nulll`, `{"a" 1}`, `{1:2}`, `[`, `"`, ``, "\x00", "1\x00", `{"":{"":[[]]}}`, "\"\t\"", `+1`, `[1 2]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if !utf8.Valid(b) || bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) > maxDepth {
			return
		}
		s := &scanner{b: b}
		v := s.skip()
		s.end()
		if got, want := s.err == nil, json.Valid(b); got != want {
			t.Fatalf("%q: %v, but encoding/json says %v", b, s.err, want)
		}
		if s.err == nil && b[v.from] == '"' {
			var want string
			if err := json.Unmarshal(b, &want); err != nil {
				t.Fatal(err)
			}
			if got := text(b, v); got != want {
				t.Fatalf("%q means %q, want %q", b, got, want)
			}
		}
	})
}

func TestInteger(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"0": 0, "1": 1, "9007199254740992": 1 << 53,
		"9007199254740993": -1, "99999999999999999999": -1, "-1": -1, "1.0": -1, "1e2": -1, "": -1, "true": -1, `"1"`: -1,
	} {
		n, ok := integer([]byte(in))
		if !ok {
			n = -1
		}
		if n != want {
			t.Errorf("%s: %d, want %d", in, n, want)
		}
	}
}

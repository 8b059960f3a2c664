package eventstream

import (
	"slices"
	"strings"
	"testing"
)

func frame(chunks ...[]byte) (list []string) {
	e := New(MaxEvent)
	for _, c := range chunks {
		for len(c) > 0 {
			n := copy(e.Room(), c)
			c = c[n:]
			e.Advance(n)
			for ev, ok := e.Next(); ok; ev, ok = e.Next() {
				list = append(list, string(ev))
			}
		}
	}
	if rest := e.Rest(); len(rest) > 0 {
		list = append(list, string(rest))
	}
	return list
}

func TestEvents(t *testing.T) {
	for in, want := range map[string]string{
		"data: a\n\ndata: b\n\n":         "data: a\n\n|data: b\n\n",
		"data: a\r\n\r\ndata: b\r\n\r\n": "data: a\r\n\r\n|data: b\r\n\r\n",
		"data: a\r\rdata: b\r\r":         "data: a\r\r|data: b\r\r",
		"data: a\n\r\ndata: b\r\n\n":     "data: a\n\r\n|data: b\r\n\n",
		"data: a\ndata: b\n\n":           "data: a\ndata: b\n\n",
		"data: a":                        "data: a\n\n",
		"data: a\n":                      "data: a\n\n",
		"":                               "",
	} {
		if got := strings.Join(frame([]byte(in)), "|"); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzEvents(f *testing.F) {
	for _, s := range []string{"data: a\n\ndata: b\n\n", "a\r\n\r\nb\r\r\n\n\r", "\r\n\r\n", "a\r\r\nb\n\r\r\n", ":\n\n\n\n", "data: [DONE]"} {
		f.Add([]byte(s), uint8(1))
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		whole := frame(b)
		split := frame(slices.Collect(slices.Chunk(b, max(int(step), 1)))...)
		if !slices.Equal(whole, split) {
			t.Fatalf("whole %q, split %q", whole, split)
		}
		// Nothing but line ends is lost or added.
		lines := strings.NewReplacer("\r", "", "\n", "")
		if got, want := lines.Replace(strings.Join(whole, "")), lines.Replace(string(b)); got != want {
			t.Fatalf("%q became %q", want, got)
		}
	})
}

func BenchmarkEvent(b *testing.B) {
	event := []byte(`data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}` + "\n\n")
	e := New(MaxEvent)
	b.ReportAllocs()
	b.SetBytes(int64(len(event)))
	for b.Loop() {
		e.Advance(copy(e.Room(), event))
		if _, ok := e.Next(); !ok {
			b.Fatal("no event")
		}
	}
}

package exchange

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func fields(h Header) string {
	var words []string
	for _, f := range h {
		words = append(words, f.Name+"="+f.Value)
	}
	return strings.Join(words, " ")
}

func TestHeader(t *testing.T) {
	t.Parallel()
	build := func() Header { return Header{{"a", "1"}, {"b", "2"}, {"a", "3"}, {"c", ""}, {"a", "4"}} }
	tests := []struct {
		name string
		do   func(*Header)
		want string
	}{
		{"add", func(h *Header) { h.Add("a", "5") }, "a=1 b=2 a=3 c= a=4 a=5"},
		{"set keeps the first place", func(h *Header) { h.Set("a", "9") }, "a=9 b=2 c="},
		{"set the only one", func(h *Header) { h.Set("b", "9") }, "a=1 b=9 a=3 c= a=4"},
		{"set the last", func(h *Header) { h.Del("a"); h.Set("c", "9") }, "b=2 c=9"},
		{"set a new one", func(h *Header) { h.Set("d", "9") }, "a=1 b=2 a=3 c= a=4 d=9"},
		{"delete", func(h *Header) { h.Del("a") }, "b=2 c="},
		{"delete what is not there", func(h *Header) { h.Del("x") }, "a=1 b=2 a=3 c= a=4"},
		{"delete all", func(h *Header) { h.Del("a"); h.Del("b"); h.Del("c") }, ""},
	}
	for _, test := range tests {
		h := build()
		copied := h.Clone()
		test.do(&h)
		if fields(h) != test.want {
			t.Errorf("%s: %s, want %s", test.name, fields(h), test.want)
		}
		if fields(copied) != fields(build()) {
			t.Errorf("%s: it changed the clone to %s", test.name, fields(copied))
		}
	}
	h := build()
	if h.Get("a") != "1" || h.Get("x") != "" || h.Count("a") != 3 || h.Count("x") != 0 {
		t.Errorf("Get %q %q, Count %d %d", h.Get("a"), h.Get("x"), h.Count("a"), h.Count("x"))
	}
	if v, ok := h.Lookup("c"); v != "" || !ok {
		t.Errorf("an empty field: %q, %v", v, ok)
	}
	if _, ok := h.Lookup("x"); ok {
		t.Error("an absent field is there")
	}
	if got := slices.Collect(h.Values("a")); !slices.Equal(got, []string{"1", "3", "4"}) {
		t.Errorf("Values: %q", got)
	}
	for range h.Values("a") {
		break
	}
	var empty Header
	empty.Set("a", "1")
	if fields(empty) != "a=1" || Header(nil).Clone() != nil {
		t.Errorf("from nothing: %s", fields(empty))
	}
}

func TestHas(t *testing.T) {
	t.Parallel()
	tests := []struct {
		values []string
		token  string
		want   bool
	}{
		{[]string{"close"}, "close", true},
		{[]string{"Keep-Alive,\tClose "}, "close", true},
		{[]string{"a", "b, upgrade"}, "upgrade", true},
		{[]string{",, ,close,"}, "close", true},
		{[]string{"closed"}, "close", false},
		{[]string{"not close"}, "close", false},
		{[]string{""}, "close", false},
		{nil, "close", false},
		{[]string{"chun\u212aed"}, "chunked", false}, // a Kelvin sign is no k
		{[]string{"cho\u017fe"}, "chose", false},     // nor a long s an s
		{[]string{"close\u00a0"}, "close", false},    // nor a no-break space white space
		{[]string{"\x0bclose"}, "close", false},
		{[]string{"[lose"}, "{lose", false}, // letters alone have case
	}
	for _, test := range tests {
		var h Header
		for _, v := range test.values {
			h.Add("connection", v)
		}
		if got := h.Has("connection", test.token); got != test.want {
			t.Errorf("%q has %q: %v", test.values, test.token, got)
		}
	}
}

func BenchmarkHeaderGet(b *testing.B) {
	var h Header
	for i := range 20 {
		h.Add(fmt.Sprint("x-field-", i), "value")
	}
	b.ReportAllocs()
	for b.Loop() {
		if h.Get("x-field-19") == "" {
			b.Fatal("it is not there")
		}
	}
}

func TestEventStream(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{
		"text/event-stream": true, "text/event-stream; charset=utf-8": true, "Text/Event-Stream ;charset=utf-8": true,
		"text/event-stream\t;a=b": true, "": false, "text/event-streams": false, "text/event": false,
		"application/json; a=text/event-stream": false, "text/plain, text/event-stream": false,
	} {
		if got := (Header{{"content-type", value}}).EventStream(); got != want {
			t.Errorf("%q: %t", value, got)
		}
	}
	if (Header{}).EventStream() {
		t.Error("no content type is an event stream")
	}
}

// TestFieldValueEverywhere: what no value holds is found wherever it stands, and beside whatever.
func TestFieldValueEverywhere(t *testing.T) {
	t.Parallel()
	for length := 1; length <= 40; length++ {
		for at := range length {
			for c := range 256 {
				for _, fill := range []byte{'!', 0x80, 0xff} {
					b := bytes.Repeat([]byte{fill}, length)
					b[at] = byte(c)
					inside := at > 0 && at < length-1
					want := c > ' ' && c != 0x7f || (c == ' ' || c == '\t') && inside
					if got := FieldValue(b); got != want {
						t.Fatalf("octet %#x at %d of %d, among %#x: %v", c, at, length, fill, got)
					}
					if got := FieldValue(string(b)); got != want {
						t.Fatalf("as text, octet %#x at %d of %d, among %#x: %v", c, at, length, fill, got)
					}
				}
			}
		}
	}
	if tabs := "a\tb\tc\td\te\tf"; !FieldValue(tabs) || FieldValue(tabs+"\x00g") {
		t.Error("tabs hide what stands behind them, or are taken for it")
	}
}

package field_test

import (
	"slices"
	"testing"

	"github.com/postern-gateway/postern/sdk/go/field"
)

func TestList(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"": nil, " , ,": nil, "a": {"a"}, "a,b": {"a", "b"}, " a b ,\tc , ": {"a b", "c"}, ",a,,b": {"a", "b"},
	} {
		var got []string
		for member := range field.List(text).Each {
			got = append(got, string(member))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q has %q, want %q", text, got, want)
		}
	}
	for member := range field.List("a,b").Each {
		if string(member) != "a" {
			t.Errorf("goes on with %q", member)
		}
		break
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	if !field.Is([]byte("No-Store"), "no-store") || field.Is([]byte("no-store "), "no-store") || field.Is([]byte("no\x0dstore"), "no-store") || field.Is([]byte("@"), "`") {
		t.Error("comparing without case")
	}
	if got := field.Lower([]byte("X-[Ab]@Z")); string(got) != "x-[ab]@z" {
		t.Errorf("in lower case %q", got)
	}
	if got := field.Trim([]byte(" \ta b\t ")); string(got) != "a b" {
		t.Errorf("trimmed %q", got)
	}
	const tokens = "!#$%&'*+-.^_`|~"
	for c := range 256 {
		b := []byte{byte(c)}
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if want := letter || slices.Contains([]byte(tokens), byte(c)); field.Token(b) != want {
			t.Errorf("%q is a token: %v", b, !want)
		}
		if want := c >= ' ' && c != 0x7f || c == '\t'; field.Value(b) != want {
			t.Errorf("%q can stand in a field: %v", b, !want)
		}
	}
	if field.Token(nil) || !field.Value(nil) {
		t.Error("nothing is a value and no token")
	}
}

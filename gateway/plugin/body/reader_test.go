package body_test

import (
	"math"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/plugin/body"
)

// TestNumbers reads numbers at and beyond the bounds of their types, in all forms the specification has.
func TestNumbers(t *testing.T) {
	t.Parallel()
	unsigned := func(r *body.Reader) int64 { return int64(r.U32()) }
	signed := func(bits int) func(r *body.Reader) int64 {
		return func(r *body.Reader) int64 { return r.Signed(bits) }
	}
	const tooLong = "number is longer than "
	cases := []struct {
		name, octets string
		read         func(r *body.Reader) int64
		want         int64
		refused      string
	}{
		{"0", "\x00", unsigned, 0, ""},
		{"127", "\x7f", unsigned, 127, ""},
		{"128", "\x80\x01", unsigned, 128, ""},
		{"0 with room", "\x80\x80\x80\x80\x00", unsigned, 0, ""},
		{"the largest of 32 bits", "\xff\xff\xff\xff\x0f", unsigned, math.MaxUint32, ""},
		{"33 bits", "\xff\xff\xff\xff\x1f", unsigned, 0, tooLong},
		{"6 octets", "\x80\x80\x80\x80\x80\x00", unsigned, 0, tooLong},
		{"cut off", "\x80", unsigned, 0, "ends in the middle"},
		{"-1", "\x7f", signed(32), -1, ""},
		{"63", "\x3f", signed(32), 63, ""},
		{"64", "\xc0\x00", signed(32), 64, ""},
		{"-1 with room", "\xff\xff\xff\xff\x7f", signed(32), -1, ""},
		{"the least of 32 bits", "\x80\x80\x80\x80\x78", signed(32), math.MinInt32, ""},
		{"the most of 32 bits", "\xff\xff\xff\xff\x07", signed(32), math.MaxInt32, ""},
		{"less", "\x80\x80\x80\x80\x70", signed(32), 0, tooLong},
		{"more", "\xff\xff\xff\xff\x0f", signed(32), 0, tooLong},
		{"a type of 33 bits", "\xff\xff\xff\xff\x0f", signed(33), math.MaxUint32, ""},
		{"more than 33 bits", "\xff\xff\xff\xff\x1f", signed(33), 0, tooLong},
		{"the least of 64 bits", "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x7f", signed(64), math.MinInt64, ""},
		{"the most of 64 bits", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00", signed(64), math.MaxInt64, ""},
		{"65 bits", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", signed(64), 0, tooLong},
		{"cut off with a sign", "\xff\xff", signed(64), 0, "ends in the middle"},
	}
	for _, c := range cases {
		r := &body.Reader{Wasm: []byte(c.octets + "\x55"), End: len(c.octets), Section: "code"}
		got := c.read(r)
		switch {
		case c.refused == "" && (r.Err != nil || got != c.want || r.More()):
			t.Errorf("%s: read %d, %v, and %d octets are left; want %d", c.name, got, r.Err, r.End-r.At, c.want)
		case c.refused != "" && (r.Err == nil || !strings.Contains(r.Err.Error(), c.refused)):
			t.Errorf("%s: read %d, %v; want %q", c.name, got, r.Err, c.refused)
		}
	}
}

// FuzzNumbers writes numbers and reads them again.
func FuzzNumbers(f *testing.F) {
	f.Add(int64(0), uint32(0))
	f.Add(int64(math.MinInt64), uint32(math.MaxUint32))
	f.Add(int64(-65), uint32(128))
	f.Fuzz(func(t *testing.T, signed int64, unsigned uint32) {
		var w body.Writer
		w.Signed(signed)
		w.U32(unsigned)
		w.Name("name")
		r := &body.Reader{Wasm: w.B, End: len(w.B)}
		if s, u, n := r.Signed(64), r.U32(), r.Name(4); s != signed || u != unsigned || n != "name" || r.Err != nil || r.More() {
			t.Fatalf("%d and %d were read as %d, %d and %q: %v", signed, unsigned, s, u, n, r.Err)
		}
	})
}

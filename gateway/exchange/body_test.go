package exchange

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"
)

// stream makes a body of a reader.
type stream struct{ io.Reader }

func (stream) Close() error    { return nil }
func (stream) Trailer() Header { return nil }

// stuck never reads anything and never ends.
type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

func TestReadBody(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("0123456789", 1000)
	broken := errors.New("line cut")
	tests := []struct {
		name          string
		body          io.Reader
		length, limit int64
		err           error
	}{
		{"known length", strings.NewReader(text), 10_000, 10_000, nil},
		{"unknown length", strings.NewReader(text), -1, 10_000, nil},
		{"an octet at a time", iotest.OneByteReader(strings.NewReader(text)), -1, 20_000, nil},
		{"data with the end", iotest.DataErrReader(strings.NewReader(text)), 10_000, 10_000, nil},
		{"longer than announced", strings.NewReader(text), 10, 10_000, nil},
		{"shorter than announced", strings.NewReader(text), 1 << 40, 1 << 41, nil}, // and no terabyte is set aside
		{"no limit", strings.NewReader(text), -1, math.MaxInt64, nil},
		{"no limit and a wild length", strings.NewReader(text), math.MaxInt64, math.MaxInt64, nil},
		{"one octet too many", strings.NewReader(text), -1, 9_999, ErrBodyTooLarge},
		{"announced too long", strings.NewReader(text), 10_000, 9_999, ErrBodyTooLarge},
		{"nothing allowed", strings.NewReader("x"), -1, 0, ErrBodyTooLarge},
		{"a broken line", io.MultiReader(strings.NewReader("01"), iotest.ErrReader(broken)), -1, 10, broken},
		{"a reader that is stuck", stuck{}, -1, 10, io.ErrNoProgress},
	}
	for _, test := range tests {
		got, err := ReadBody(stream{test.body}, test.length, test.limit)
		if !errors.Is(err, test.err) {
			t.Errorf("%s: %v, want %v", test.name, err, test.err)
		}
		if test.err == nil && string(got) != text {
			t.Errorf("%s: %d octets", test.name, len(got))
		}
		if test.err != nil && got != nil {
			t.Errorf("%s: an error and %d octets", test.name, len(got))
		}
	}
	if got, err := ReadBody(NoBody, 0, 0); err != nil || len(got) != 0 {
		t.Errorf("no body: %q, %v", got, err)
	}
}

func TestReadUpTo(t *testing.T) {
	t.Parallel()
	for limit, more := range map[int64]bool{9: true, 10: false, 11: false} {
		body := stream{iotest.HalfReader(strings.NewReader("0123456789"))}
		b, got, err := ReadUpTo(body, -1, limit)
		if err != nil || got != more || !more && string(b) != "0123456789" || !strings.HasPrefix("0123456789", string(b)) {
			t.Errorf("limit %d: %q, more %t, %v", limit, b, got, err)
		}
		rest, err := io.ReadAll(body)
		if err != nil || string(b)+string(rest) != "0123456789" {
			t.Errorf("limit %d: then came %q, %v", limit, rest, err)
		}
	}
}

func TestBytes(t *testing.T) {
	t.Parallel()
	b := NewBytes([]byte("text"))
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, []byte("text")) || b.Trailer() != nil || b.Close() != nil {
		t.Errorf("%q, %v", got, err)
	}
	if n, err := NoBody.Read(make([]byte, 1)); n != 0 || !AtEnd(err) || NoBody.Close() != nil || NoBody.Trailer() != nil {
		t.Errorf("no body: %d, %v", n, err)
	}
}

func BenchmarkReadBody(b *testing.B) {
	octets := make([]byte, 4<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadBody(NewBytes(octets), int64(len(octets)), 1<<20); err != nil {
			b.Fatal(err)
		}
	}
}

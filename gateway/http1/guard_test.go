package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// script is a connection that the client sent octets on, in pieces of a size, and then closed.
type script struct {
	net.Conn
	octets []byte
	piece  int
	closed bool
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.octets) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.piece)], s.octets)
	s.octets = s.octets[n:]
	return n, nil
}

func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) Close() error                     { s.closed = true; return nil }

// owner grants some limits.
type owner struct {
	limits Limits
	last   bool
	closed int
}

func (o *owner) Limits() *Limits { return &o.limits }
func (o *owner) Last() bool      { return o.last }
func (o *owner) Close() error    { o.closed++; return nil }

func generous() *owner {
	return &owner{limits: Limits{Head: 8 << 10, Fields: 50, Header: time.Minute, Body: time.Minute, Idle: time.Minute, Write: time.Minute}}
}

// seen is what a server behind a guard makes of a connection.
type seen struct {
	released string
	heads    []*Head
	err      error // how reading ended
}

func watch(octets string, piece int) seen {
	g := New(generous(), &script{octets: []byte(octets), piece: piece}, nil)
	b, err := io.ReadAll(g)
	s := seen{released: string(b), err: err}
	for h := g.Take(); h != nil; h = g.Take() {
		s.heads = append(s.heads, h)
	}
	return s
}

// FuzzGuard checks for any octets: pieces do not matter; what is released is what the standard server understands, one
// request for each head with the same framing; and a refusal is the last.
func FuzzGuard(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"\r\nGET http://a/b?c HTTP/1.1\r\nHost: A\r\nConnection: close\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81\x00",
		"GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na",
	} {
		f.Add(s, 1)
		f.Add(s, 4096)
	}
	f.Fuzz(func(t *testing.T, octets string, piece int) {
		if piece < 1 || piece > 1<<16 {
			piece = 7
		}
		got, whole := watch(octets, piece), watch(octets, 1<<16)
		if got.released != whole.released || len(got.heads) != len(whole.heads) {
			t.Fatalf("pieces of %d: %q, at once: %q", piece, got.released, whole.released)
		}
		for i := range got.heads {
			if (got.heads[i].Problem == nil) != (whole.heads[i].Problem == nil) {
				t.Fatalf("pieces of %d: %v, at once: %v", piece, got.heads[i].Problem, whole.heads[i].Problem)
			}
		}
		br := bufio.NewReader(strings.NewReader(got.released))
		for i, h := range got.heads {
			req, err := http.ReadRequest(br)
			if err != nil {
				t.Fatalf("head %d of %q: %v", i, got.released, err)
			}
			if h.Problem != nil {
				if i != len(got.heads)-1 || br.Buffered() > 0 {
					t.Fatalf("something follows a refusal: %q", got.released)
				}
				return
			}
			if h.Upgrade != "" {
				return // what follows is no HTTP
			}
			if req.Method != h.Method || req.ContentLength != h.Length {
				t.Fatalf("head %d: %s %d, released %s %d", i, h.Method, h.Length, req.Method, req.ContentLength)
			}
			if h.Target[0] != '/' || (h.Minor == 1 && h.Authority == "") {
				t.Fatalf("head %d: %+v", i, h)
			}
			for _, field := range h.Header {
				if strings.ToLower(field.Name) != field.Name || strings.ContainsAny(field.Name+field.Value, "\r\n\x00") || strings.Contains(field.Name, "_") {
					t.Fatalf("field %q", field)
				}
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				if i != len(got.heads)-1 {
					t.Fatalf("a request follows a broken body: %q", got.released)
				}
				return
			}
			if len(req.Trailer) > 0 {
				t.Fatalf("a trailer reached the server: %q", got.released)
			}
		}
		if br.Buffered() > 0 {
			t.Fatalf("more was released than heads: %q", got.released)
		}
	})
}

// TestBodies is how bodies end.
func TestBodies(t *testing.T) {
	t.Parallel()
	const head = "POST / HTTP/1.1\r\nHost: a\r\n"
	for name, c := range map[string]struct {
		octets string
		broken bool // framing, not the connection
		whole  bool
	}{
		"length":             {head + "Content-Length: 2\r\n\r\nhi", false, true},
		"length, cut":        {head + "Content-Length: 3\r\n\r\nhi", false, false},
		"chunked":            {head + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", false, true},
		"chunked, cut":       {head + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", false, false},
		"chunked, broken":    {head + "Transfer-Encoding: chunked\r\n\r\nz\r\n", true, false},
		"many extensions":    {head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;"+strings.Repeat("a", 2000)+"\r\nx\r\n", 20), true, false},
		"framing in trailer": {head + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := watch(c.octets, 3)
			if whole := s.err == nil; whole != c.whole || Broken(s.err) != c.broken {
				t.Errorf("ended with %v", s.err)
			}
			if len(s.heads) != 1 || s.heads[0].Trailer.Count("content-length") != 0 {
				t.Errorf("heads: %+v", s.heads)
			}
		})
	}
}

// TestDeadlines checks that a read can be cut short from outside and taken up again, and that Drain spares what is open.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	o := generous()
	g := New(o, server, nil)
	for range 3 {
		read := make(chan error, 1)
		go func() {
			_, err := g.Read(make([]byte, 1))
			read <- err
		}()
		time.Sleep(time.Millisecond)
		_ = g.SetReadDeadline(time.Unix(1, 0))
		if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		_ = g.SetReadDeadline(time.Time{})
	}
	go func() { _, _ = io.WriteString(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n") }()
	buf := make([]byte, 1000)
	if n, err := g.Read(buf); err != nil || !bytes.HasPrefix(buf[:n], []byte("GET / HTTP/1.1\r\n")) {
		t.Fatalf("%q %v", buf[:n], err)
	}
	o.last = true
	g.Drain()
	if o.closed != 0 {
		t.Error("closed under an open request")
	}
	g.Finish()
	if _, err := g.Read(buf); !exchange.AtEnd(err) {
		t.Errorf("after the last request: %v", err)
	}
	g.Drain()
	if o.closed != 1 {
		t.Error("not closed when idle")
	}
	_ = client.Close()
}

// TestCanonicalHost is the table of hosts.
func TestCanonicalHost(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a": "a", "A.Example": "a.example", "a:80": "a:80", "a:": "a", "1.2.3.4": "1.2.3.4", "[::1]": "[::1]", "[::AB]:80": "[::ab]:80", "my_host": "my_host",
		"": "", ":80": "", "a:b": "", "a:-1": "", "a:65536": "", "a:999999999999999999999": "", "a b": "", "a/b": "", "u@a": "", "a,b": "", "[::1": "", "::1": "",
		"[1.2.3.4]": "", "[fe80::1%25eth0]": "", "a\x00": "", "é": "", "%61": "", "a?b": "", "a#b": "", "[]": "", "[": "", "a:80:90": "",
	} {
		if got, p := CanonicalHost(in); got != want || (p == nil) != (want != "") {
			t.Errorf("%q: %q %v", in, got, p)
		}
	}
}

// FuzzChunkSize compares with the standard library's hexadecimal.
func FuzzChunkSize(f *testing.F) {
	for _, s := range []string{"0", "5;a=b", "ffffffffffffffff", "7fffffffffffffff", "5 ", "5 ;a", "", "g", "00000000000000005"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		size, extension, ok := parseChunkSize([]byte(s))
		if ok && (size < 0 || extension < 0 || extension >= len(s) || strings.ContainsAny(s, "\r\n\x00")) {
			t.Errorf("%q: %d %d", s, size, extension)
		}
	})
}

// TestTokens compares the table of token characters with RFC 9110 section 5.6.2.
func TestTokens(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		want := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c < 128 && slices.Contains([]byte("!#$%&'*+-.^_`|~"), byte(c))
		if isToken(byte(c)) != want {
			t.Errorf("%q", rune(c))
		}
	}
}

// BenchmarkHead reads a usual head and releases what the server needs of it.
func BenchmarkHead(b *testing.B) {
	const octets = "POST /v1/chat/completions HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: openai-node/4.0\r\nAccept: application/json\r\n" +
		"Content-Type: application/json\r\nAuthorization: Bearer sk-0123456789abcdef\r\nAccept-Encoding: gzip\r\nContent-Length: 0\r\n\r\n"
	g := New(generous(), &script{octets: bytes.Repeat([]byte(octets), b.N), piece: 1 << 20}, nil)
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if n, err := g.Read(buf); n == 0 {
			if g = New(generous(), &script{octets: []byte(strings.Repeat(octets, 1000)), piece: 1 << 20}, nil); !exchange.AtEnd(err) {
				b.Fatal(err)
			}
			continue
		}
		if h := g.Take(); h == nil || len(h.Header) != 5 {
			b.Fatal("no head")
		}
		g.Finish()
	}
}

var _ net.Conn = (*Guard)(nil)

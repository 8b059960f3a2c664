package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// peer is the other end of a Conn: what serve does with it.
func peer(t testing.TB, serve func(c net.Conn, r *bufio.Reader)) *Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		serve(c, bufio.NewReader(c))
	})
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	k := New(c)
	t.Cleanup(func() {
		k.End()
		_ = k.Close()
		_ = l.Close()
		work.Wait()
	})
	return k
}

// head reads a request's head.
func readHead(r *bufio.Reader) string {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return ""
		}
		if b.WriteString(line); line == "\r\n" {
			return b.String()
		}
	}
}

// says is a peer that answers every request with the next of answers, and then closes.
func says(t testing.TB, answers ...string) *Conn {
	return peer(t, func(c net.Conn, r *bufio.Reader) {
		for _, a := range answers {
			if readHead(r) == "" {
				return
			}
			if _, err := io.WriteString(c, a); err != nil {
				return
			}
		}
	})
}

// bytewise is a connection that gives its octets one at a time.
type bytewise struct{ net.Conn }

func (c bytewise) Read(p []byte) (int, error) { return c.Conn.Read(p[:min(1, len(p))]) }

// text is a request's body out of a reader.
type text struct {
	io.Reader
	there   int
	trailer exchange.Header
	closed  func()
}

func (b *text) Buffered() int            { return b.there }
func (b *text) Trailer() exchange.Header { return b.trailer }
func (b *text) Close() error {
	if b.closed != nil {
		b.closed()
	}
	return nil
}

func get() *Request { return &Request{Method: "GET", Path: "/", Host: "upstream"} }

// ask makes one exchange and describes the answer.
func ask(c *Conn, r *Request) (resp *Response, body string, err error) {
	resp = new(Response)
	if err := c.Do(r, resp); err != nil {
		return resp, "", err
	}
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

func line(h exchange.Header) string {
	var words []string
	for _, f := range h {
		words = append(words, f.Name+"="+f.Value)
	}
	return strings.Join(words, " ")
}

// TestResponses has an entry for every rule of what is taken for a response, and what is refused.
func TestResponses(t *testing.T) {
	t.Parallel()
	const none = ""
	for _, tt := range []struct {
		rule, answer string
		refused      string // part of the error; empty: it is taken
		status       int
		header, body string
		length       int64
		kept         bool // the connection is used again
	}{
		// RFC 9112 section 4: status line.
		{"a response", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok", none, 200, "x-a=b", "ok", 2, true},
		{"no reason, with its space", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", none, 200, "", "", 0, true},
		{"no reason and no space", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", none, 200, "", "", 0, true},
		{"a status nobody knows", "HTTP/1.1 599 \xc3\xa4\r\nContent-Length: 0\r\n\r\n", none, 599, "", "", 0, true},
		{"two digits", "HTTP/1.1 20 OK\r\n\r\n", "status line", 0, "", "", 0, false},
		{"four digits", "HTTP/1.1 2000 OK\r\n\r\n", "status line", 0, "", "", 0, false},
		{"a letter", "HTTP/1.1 2o0 OK\r\n\r\n", "status line", 0, "", "", 0, false},
		{"a sign", "HTTP/1.1 +20 OK\r\n\r\n", "status line", 0, "", "", 0, false},
		{"below 100", "HTTP/1.1 099 OK\r\n\r\n", "status line", 0, "", "", 0, false},
		{"two spaces", "HTTP/1.1  200 OK\r\n\r\n", "status line", 0, "", "", 0, false},
		{"a tab", "HTTP/1.1\t200 OK\r\n\r\n", "status line", 0, "", "", 0, false},
		{"a space before it", " HTTP/1.1 200 OK\r\n\r\n", "status line", 0, "", "", 0, false},
		{"an empty line before it", "\r\nHTTP/1.1 200 OK\r\n\r\n", "malformed", 0, "", "", 0, false},
		{"lower case", "http/1.1 200 OK\r\n\r\n", "status line", 0, "", "", 0, false},
		{"HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n", "status line", 0, "", "", 0, false},
		{"HTTP/2.0", "HTTP/2.0 200 OK\r\n\r\n", "status line", 0, "", "", 0, false},
		{"HTTP/0.9", "hello", "ended within", 0, "", "", 0, false},
		{"a control character", "HTTP/1.1 200 O\x01K\r\n\r\n", "status line", 0, "", "", 0, false},
		// RFC 9112 section 2.2: lines end with CR LF, and there is no other CR.
		{"a lone LF after the status line", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", "without CR", 0, "", "", 0, false},
		{"a lone LF after a field", "HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n", "without CR", 0, "", "", 0, false},
		{"a lone LF at the end", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n", "without CR", 0, "", "", 0, false},
		{"a CR in a value", "HTTP/1.1 200 OK\r\nX-A: a\rX-B: b\r\n\r\n", "malformed", 0, "", "", 0, false},
		{"a CR in the status line", "HTTP/1.1 200 OK\rX-B: b\r\n\r\n", "malformed", 0, "", "", 0, false},
		{"two CR", "HTTP/1.1 200 OK\r\r\n\r\n", "malformed", 0, "", "", 0, false},
		// RFC 9110 section 5.5 and RFC 9112 section 5: fields.
		{"names are lower case, order is kept", "HTTP/1.1 200 OK\r\nX-B: 1\r\nx-a: 2\r\nX-b: 3\r\nContent-Length: 0\r\n\r\n", none, 200, "x-b=1 x-a=2 x-b=3", "", 0, true},
		{"white space around a value", "HTTP/1.1 200 OK\r\nX-A: \t a b \t\r\nX-C:\r\nContent-Length: 0\r\n\r\n", none, 200, "x-a=a b x-c=", "", 0, true},
		{"every character of a token", "HTTP/1.1 200 OK\r\nA!#$%&'*+-.^_`|~9z: 1\r\nContent-Length: 0\r\n\r\n", none, 200, "a!#$%&'*+-.^_`|~9z=1", "", 0, true},
		{"octets beyond ASCII in a value", "HTTP/1.1 200 OK\r\nX-A: \x80\xff caf\xe9 \xc3\xa9\r\nContent-Length: 0\r\n\r\n", none, 200, "x-a=\x80\xff caf\xe9 \xc3\xa9", "", 0, true},
		{"a tab in a value", "HTTP/1.1 200 OK\r\nX-A: a\tb\r\nContent-Length: 0\r\n\r\n", none, 200, "x-a=a\tb", "", 0, true},
		{"no name", "HTTP/1.1 200 OK\r\n: a\r\n\r\n", "malformed", 0, "", "", 0, false},
		{"no colon", "HTTP/1.1 200 OK\r\nX-A\r\n\r\n", "malformed", 0, "", "", 0, false},
		{"a name of no token", "HTTP/1.1 200 OK\r\nX(A): a\r\n\r\n", "malformed", 0, "", "", 0, false},
		{"a name beyond ASCII", "HTTP/1.1 200 OK\r\nX-\xc3\xa4: a\r\n\r\n", "malformed", 0, "", "", 0, false},
		{"NUL in a value", "HTTP/1.1 200 OK\r\nX-A: aaaaaaaaaaa\x00a\r\n\r\n", "malformed", 0, "", "", 0, false},
		{"DEL in a value", "HTTP/1.1 200 OK\r\nX-A: a\x7f\r\n\r\n", "malformed", 0, "", "", 0, false},
		{"a bell in a value", "HTTP/1.1 200 OK\r\nX-A: a\x07\r\n\r\n", "malformed", 0, "", "", 0, false},
		{"NUL in a name", "HTTP/1.1 200 OK\r\nX\x00A: a\r\n\r\n", "malformed", 0, "", "", 0, false},
		{"white space before the colon is removed", "HTTP/1.1 200 OK\r\nX-A \t: a\r\nContent-Length: 0\r\n\r\n", none, 200, "x-a=a", "", 0, true},
		{"but not in content-length", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", "malformed", 0, "", "", 0, false},
		{"nor in transfer-encoding", "HTTP/1.1 200 OK\r\nTransfer-Encoding\t: chunked\r\n\r\n", "malformed", 0, "", "", 0, false},
		{"nor in connection", "HTTP/1.1 200 OK\r\nConnection : close\r\n\r\n", "malformed", 0, "", "", 0, false},
		{"a folded line becomes one", "HTTP/1.1 200 OK\r\nX-A: a\r\n\tb\r\n c\r\nContent-Length: 0\r\n\r\n", none, 200, "x-a=a  \tb   c", "", 0, true},
		{"a folded first line", "HTTP/1.1 200 OK\r\n X-A: a\r\n\r\n", "folded", 0, "", "", 0, false},
		{"a folded length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n 0\r\n\r\n", "folded", 0, "", "", 0, false},
		{"a folded length, continued", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n \r\n 0\r\n\r\n", "folded", 0, "", "", 0, false},
		{"a folded transfer-encoding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked,\r\n chunked\r\n\r\n", "folded", 0, "", "", 0, false},
		// RFC 9110 section 7.6.1: what ends at this hop.
		{"fields of its hop", "HTTP/1.1 200 OK\r\nConnection: X-Evil, keep-alive\r\nX-Evil: 1\r\nx-evil: 2\r\nKeep-Alive: 1\r\nProxy-Authenticate: x\r\nTE: x\r\nUpgrade: h2c\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n", none, 200, "x-a=1", "", 0, true},
		{"close", "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n", none, 200, "", "", 0, false},
		// RFC 9112 section 6.3: how the body ends.
		{"a length", "HTTP/1.1 200 OK\r\nContent-Length: 0004\r\n\r\nfine", none, 200, "", "fine", 4, true},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfi\r\n2\r\nne\r\n0\r\n\r\n", none, 200, "", "fine", -1, true},
		{"Chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", none, 200, "", "", -1, true},
		{"the end of the connection", "HTTP/1.1 200 OK\r\n\r\nfine", none, 200, "", "fine", -1, false},
		{"two lengths that agree", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nfine", "content-length", 0, "", "", 0, false},
		{"two lengths that do not", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nfine!", "content-length", 0, "", "", 0, false},
		{"a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\n\r\nfine", "content-length", 0, "", "", 0, false},
		{"no length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nfine", "content-length", 0, "", "", 0, false},
		{"less than nothing", "HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nfine", "content-length", 0, "", "", 0, false},
		{"more than nothing", "HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nfine", "content-length", 0, "", "", 0, false},
		{"a hexadecimal length", "HTTP/1.1 200 OK\r\nContent-Length: 0x4\r\n\r\nfine", "content-length", 0, "", "", 0, false},
		{"a length with a point", "HTTP/1.1 200 OK\r\nContent-Length: 4.0\r\n\r\nfine", "content-length", 0, "", "", 0, false},
		{"a length beyond numbers", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551620\r\n\r\nfine", "content-length", 0, "", "", 0, false},
		{"length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "do not go together", 0, "", "", 0, false},
		{"chunks and length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", "do not go together", 0, "", "", 0, false},
		{"gzip, chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "transfer-encoding", 0, "", "", 0, false},
		{"identity", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nfine", "transfer-encoding", 0, "", "", 0, false},
		{"chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "transfer-encoding", 0, "", "", 0, false},
		{"chunked in disguise", "HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "malformed", 0, "", "", 0, false},
		{"no transfer-encoding", "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\nfine", "transfer-encoding", 0, "", "", 0, false},
		{"204 has none", "HTTP/1.1 204 No\r\n\r\n", none, 204, "", "", -1, true},
		{"204 with a length", "HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nevil", none, 204, "", "", 4, false},
		{"204 with chunks", "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", none, 204, "", "", -1, false},
		{"304 announces a length", "HTTP/1.1 304 No\r\nContent-Length: 4\r\n\r\n", none, 304, "", "", 4, true},
		{"304 with a body", "HTTP/1.1 304 No\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", none, 304, "", "", -1, false},
		{"more than its length", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfineevil", none, 200, "", "fine", 4, false},
		{"more than its chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nevil", none, 200, "", "", -1, false},
		{"one CR too many", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine\r\n", none, 200, "", "fine", 4, false},
		{"HTTP/1.0 ends with the connection", "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfine", none, 200, "", "fine", 4, false},
		{"HTTP/1.0 that is to be kept", "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 4\r\n\r\nfine", none, 200, "", "fine", 4, true},
		{"HTTP/1.0 with chunks", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.0", 0, "", "", 0, false},
		// RFC 9110 section 15.2: interim responses.
		{"interim ones are passed over", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", none, 200, "", "ok", 2, true},
		{"an interim one with a length", "HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", "interim", 0, "", "", 0, false},
		{"an interim one with chunks", "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "interim", 0, "", "", 0, false},
		{"interim ones without end", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 1000), "too many interim", 0, "", "", 0, false},
		// RFC 9110 section 6.5.1: trailers that frame are not announced.
		{"a trailer that frames", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X, Content-Length\r\n\r\n0\r\n\r\n", "trailer", 0, "", "", 0, false},
		// Bounds.
		{"as many fields as may be", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A:\r\n", maxFields-1) + "Content-Length: 0\r\n\r\n", none, 200, strings.TrimSpace(strings.Repeat("a= ", maxFields-1)), "", 0, true},
		{"one more", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A:\r\n", maxFields) + "Content-Length: 0\r\n\r\n", "too many fields", 0, "", "", 0, false},
		{"a long field", "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 200_000) + "\r\nContent-Length: 2\r\n\r\nok", none, 200, "x-a=" + strings.Repeat("a", 200_000), "ok", 2, true},
		{"too long a head", "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 300_000) + "\r\nContent-Length: 2\r\n\r\nok", "too long", 0, "", "", 0, false},
		{"a head without an end", "HTTP/1.1 200 OK\r\nX-A: a\r\n", "ended within", 0, "", "", 0, false},
	} {
		for _, slowly := range []bool{false, true} {
			if slowly && len(tt.answer) > 5000 {
				continue
			}
			answers := []string{tt.answer}
			if tt.kept {
				answers = append(answers, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
			}
			c := says(t, answers...)
			if slowly {
				c.stream = bytewise{c.stream}
			}
			resp, body, err := ask(c, get())
			var e *Error
			if tt.refused != "" {
				if !errors.As(err, &e) || e.Reason != Invalid || !strings.Contains(e.Error(), tt.refused) {
					t.Errorf("%s: %v, want it refused: %s", tt.rule, err, tt.refused)
				}
			} else if err != nil || resp.Status != tt.status || line(resp.Header) != tt.header || body != tt.body || resp.Length != tt.length {
				t.Errorf("%s: %d %q, length %d, %q, %v", tt.rule, resp.Status, line(resp.Header), resp.Length, body, err)
			}
			// What came behind the answer is in the buffer, or it is still to be seen.
			kept := c.End()
			usable := kept
			if kept && !tt.kept && slowly {
				for range 1000 {
					if kept = c.Fresh(); !kept {
						break
					}
					time.Sleep(time.Millisecond)
				}
			}
			if kept != tt.kept {
				t.Errorf("%s: kept %v, want %v", tt.rule, kept, tt.kept)
			}
			if !kept {
				if usable {
					continue
				}
				if err := c.Do(get(), new(Response)); !errors.As(err, &e) || !e.Unsent {
					t.Errorf("%s: a connection of no use was used: %v", tt.rule, err)
				}
				continue
			}
			if _, body, err := ask(c, get()); err != nil || body != "next" {
				t.Errorf("%s: after it: %q, %v", tt.rule, body, err)
			}
		}
	}
}

// TestHead: the answer to HEAD has no body, whatever it announces.
func TestHead(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]int64{
		"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n":             1234,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n":       -1,
		"HTTP/1.1 200 OK\r\n\r\n":                                     -1,
		"HTTP/1.1 404 No\r\nContent-Length: 0\r\nETag: \"a\"\r\n\r\n": 0,
	} {
		c := says(t, answer, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
		resp, body, err := ask(c, &Request{Method: "HEAD", Path: "/", Host: "a"})
		if err != nil || resp.Length != want || body != "" || !c.End() {
			t.Errorf("%q: length %d, %q, %v", answer, resp.Length, body, err)
		}
		if _, body, err = ask(c, get()); err != nil || body != "next" {
			t.Errorf("after it: %q, %v", body, err)
		}
	}
}

// TestRequests: what is written, and what can not be.
func TestRequests(t *testing.T) {
	t.Parallel()
	fields := func(pairs ...string) (h exchange.Header) {
		for i := 0; i < len(pairs); i += 2 {
			h.Add(pairs[i], pairs[i+1])
		}
		return h
	}
	body := func() Body { return &text{Reader: strings.NewReader("hello"), there: 5} }
	stream := func() Body {
		return &text{Reader: strings.NewReader("hello"), trailer: fields("x-sum", "42", "x-other", "no", "x-sum", "43")}
	}
	for _, tt := range []struct {
		name string
		r    Request
		want string // empty: it can not be sent
	}{
		{"plain", Request{Method: "GET", Path: "/a", Query: "b=c?d", Host: "h:1"}, "GET /a?b=c?d HTTP/1.1\r\nHost: h:1\r\n\r\n"},
		{"below a base", Request{Method: "GET", Base: "/base", Path: "/a%2fb/", Host: "h"}, "GET /base/a%2fb/ HTTP/1.1\r\nHost: h\r\n\r\n"},
		{"what a target can not hold", Request{Method: "GET", Path: "/a b?c#\r\n\xc3", Query: "d e#\n?", Host: "h"}, "GET /a%20b%3Fc%23%0D%0A%C3?d%20e%23%0A? HTTP/1.1\r\nHost: h\r\n\r\n"},
		{"fields", Request{Method: "GET", Path: "/", Host: "h", Header: fields("x-a-b", "1", "host", "evil", "x-a-b", "2", "te", "trailers", "connection", "x-a-b", "transfer-encoding", "chunked", "content-length", "9", "upgrade", "h2c", "keep-alive", "1", "etag", "")},
			"GET / HTTP/1.1\r\nHost: h\r\nX-A-B: 1\r\nX-A-B: 2\r\nEtag: \r\n\r\n"},
		{"a method that takes a body", Request{Method: "POST", Path: "/", Host: "h"}, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"},
		{"a body that is there", Request{Method: "POST", Path: "/", Host: "h", Body: body(), Length: 5}, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"},
		{"a body that comes", Request{Method: "GET", Path: "/", Host: "h", Body: stream(), Length: 5}, "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"},
		{"a body without a length", Request{Method: "PUT", Path: "/", Host: "h", Body: stream(), Length: -1}, "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		{"a body without an octet", Request{Method: "PUT", Path: "/", Host: "h", Body: &text{Reader: strings.NewReader("")}, Length: -1}, "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"trailers", Request{Method: "PUT", Path: "/", Host: "h", Body: stream(), Length: -1, Trailers: []string{"x-sum", "x-none"}}, "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum, x-none\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\nX-Sum: 43\r\n\r\n"},
		{"upgrade", Request{Method: "GET", Path: "/", Host: "h", Upgrade: "websocket"}, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		{"a long head", Request{Method: "GET", Path: "/", Host: "h", Header: fields("x", strings.Repeat("y", 50_000))}, "GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("y", 50_000) + "\r\n\r\n"},
		{"a field that splits", Request{Method: "GET", Path: "/", Host: "h", Header: fields("x", "a\r\nEvil: b")}, ""},
		{"a field with LF", Request{Method: "GET", Path: "/", Host: "h", Header: fields("x", "a\nEvil: b")}, ""},
		{"a field with CR", Request{Method: "GET", Path: "/", Host: "h", Header: fields("x", "a\rEvil: b")}, ""},
		{"a field with NUL", Request{Method: "GET", Path: "/", Host: "h", Header: fields("x", "a\x00")}, ""},
		{"a name that splits", Request{Method: "GET", Path: "/", Host: "h", Header: fields("x: a\r\nevil", "b")}, ""},
		{"a name with a space", Request{Method: "GET", Path: "/", Host: "h", Header: fields("transfer-encoding ", "b")}, ""},
		{"no name", Request{Method: "GET", Path: "/", Host: "h", Header: fields("", "b")}, ""},
		{"a host that splits", Request{Method: "GET", Path: "/", Host: "h\r\nEvil: b"}, ""},
		{"a method that splits", Request{Method: "GET / HTTP/1.1\r\n", Path: "/", Host: "h"}, ""},
		{"no method", Request{Path: "/", Host: "h"}, ""},
		{"an upgrade that splits", Request{Method: "GET", Path: "/", Host: "h", Upgrade: "a\r\nEvil: b"}, ""},
	} {
		got := make(chan string, 1)
		c := peer(t, func(c net.Conn, r *bufio.Reader) {
			b := make([]byte, len(tt.want))
			n, _ := io.ReadFull(r, b)
			got <- string(b[:n])
			_, _ = io.WriteString(c, "HTTP/1.1 204 No\r\n\r\n")
			_, _ = r.ReadByte()
		})
		err := c.Do(&tt.r, new(Response))
		var e *Error
		if tt.want == "" {
			if !errors.As(err, &e) || e.Reason != Given || !e.Unsent {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if err != nil || !c.End() {
			t.Errorf("%s: %v, kept %v", tt.name, err, c.Err())
		}
		if g := <-got; g != tt.want {
			t.Errorf("%s: sent %q", tt.name, g)
		}
	}
}

// TestInterim: interim responses reach who asked, one after the other, and an error of his ends the exchange.
func TestInterim(t *testing.T) {
	t.Parallel()
	const answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\nConnection: b\r\nB: c\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	var got []string
	r := get()
	r.Interim = func(status int, h exchange.Header) error {
		got = append(got, fmt.Sprint(status, " ", line(h)))
		return nil
	}
	if _, _, err := ask(says(t, answer), r); err != nil || strings.Join(got, "|") != "103 link=a|102 " {
		t.Errorf("%q, %v", got, err)
	}
	gone := errors.New("gone")
	r.Interim = func(int, exchange.Header) error { return gone }
	_, _, err := ask(says(t, answer), r)
	var e *Error
	if !errors.As(err, &e) || e.Reason != Given || !errors.Is(err, gone) {
		t.Error(err)
	}
}

// TestUpgrade: after a 101 that was asked for the raw stream is the caller's, with what came early.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	ask := func(answer, upgrade string) (*Conn, *Response, error) {
		c := peer(t, func(c net.Conn, r *bufio.Reader) {
			readHead(r)
			_, _ = io.WriteString(c, answer)
			_, _ = io.Copy(c, r)
		})
		resp := new(Response)
		return c, resp, c.Do(&Request{Method: "GET", Path: "/", Host: "h", Upgrade: upgrade}, resp)
	}
	const head = "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: x\r\n\r\n"
	c, resp, err := ask(head+"early", "websocket")
	if err != nil || resp.Upgrade == nil || line(resp.Header) != "sec-websocket-accept=x" {
		t.Fatalf("%+v, %v", resp, err)
	}
	if _, err := io.WriteString(resp.Upgrade, " late"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if _, err := io.ReadFull(resp.Upgrade, b); err != nil || string(b) != "early late" {
		t.Errorf("%q, %v", b, err)
	}
	reads := make(chan error, 1)
	go func() { _, err := resp.Upgrade.Read(b); reads <- err }()
	_ = resp.Upgrade.Close()
	if err := <-reads; err == nil {
		t.Error("a closed stream can be read")
	}
	if c.End() {
		t.Error("the connection is used again")
	}
	if _, resp, err = ask(head, ""); err != nil || resp.Status != 101 || resp.Upgrade != nil {
		t.Errorf("unasked: %+v, %v", resp, err)
	}
	var e *Error
	if _, _, err = ask(head, "other"); !errors.As(err, &e) || e.Reason != Invalid {
		t.Errorf("something else: %v", err)
	}
	if _, resp, err = ask("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "websocket"); err != nil || resp.Status != 403 || resp.Upgrade != nil {
		t.Errorf("refused: %+v, %v", resp, err)
	}
}

// TestContinue: a body that waits for the upstream's word is sent when it comes, and not at all when the answer comes first.
func TestContinue(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, word, answer string
		sent, kept         bool
	}{
		{"asked for", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true, true},
		{"refused", "", "HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n", false, false},
		{"no word", "", "", true, true},
	} {
		got := make(chan string, 1)
		c := peer(t, func(c net.Conn, r *bufio.Reader) {
			readHead(r)
			_, _ = io.WriteString(c, tt.word)
			if !tt.sent {
				_, _ = io.WriteString(c, tt.answer)
			}
			b := make([]byte, 5)
			n, _ := io.ReadFull(r, b)
			got <- string(b[:n])
			if tt.sent {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				_, _ = r.ReadByte()
			}
		})
		var read atomic.Bool
		r := &Request{Method: "POST", Path: "/", Host: "h", Length: 5, Header: exchange.Header{{Name: "expect", Value: "100-continue"}}}
		r.Body = &text{Reader: readerFunc(func(p []byte) (int, error) { read.Store(true); return copy(p, "hello"), nil }), there: 5}
		_, _, err := ask(c, r)
		kept := c.End()
		if !kept {
			_ = c.Close()
		}
		if g := <-got; err != nil || kept != tt.kept || read.Load() != tt.sent || (g == "hello") != tt.sent {
			t.Errorf("%s: sent %q, kept %v, %v", tt.name, g, kept, err)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestBothWays: every part of the answer depends on a part of the body that is sent after it.
func TestBothWays(t *testing.T) {
	t.Parallel()
	c := peer(t, func(c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
		b := make([]byte, 100)
		total := 0
		for {
			n, err := req.Body.Read(b)
			if n > 0 {
				total += n
				fmt.Fprintf(c, "%x;ext=\"\xe4\"\r\n%s\r\n", n, bytes.ToUpper(b[:n]))
			}
			if err != nil {
				break
			}
		}
		fmt.Fprintf(c, "0\r\nX-Sum: %d\r\nContent-Length: 9\r\n\r\n", total)
		_, _ = r.ReadByte()
	})
	pr, pw := io.Pipe()
	resp := new(Response)
	if err := c.Do(&Request{Method: "POST", Path: "/", Host: "h", Body: &text{Reader: pr}, Length: -1}, resp); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 32<<10)
	for i := range 20 {
		word := fmt.Sprintf("part %d", i)
		if _, err := io.WriteString(pw, word); err != nil {
			t.Fatal(err)
		}
		if n, err := io.ReadFull(resp.Body, b[:len(word)]); err != nil || string(b[:n]) != strings.ToUpper(word) {
			t.Fatalf("%q, %v", b[:n], err)
		}
		if resp.Body.Trailer() != nil {
			t.Error("a trailer before the end")
		}
	}
	_ = pw.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 || line(resp.Body.Trailer()) != "x-sum=130" {
		t.Errorf("%q, %v, trailer %s", rest, err, line(resp.Body.Trailer()))
	}
	if !c.End() {
		t.Error("the connection is not used again")
	}
}

// TestEarlyAnswer: an answer that comes before the body is whole is read to its end; the body is then let go of, and the
// connection with it.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	const answer = "HTTP/1.1 413 No\r\nContent-Length: 3\r\n\r\nbig"
	for _, closes := range []bool{false, true} {
		for _, length := range []int64{-1, 64 << 20} {
			c := peer(t, func(c net.Conn, r *bufio.Reader) {
				readHead(r)
				_, _ = io.WriteString(c, answer)
				if !closes {
					_, _ = io.Copy(io.Discard, r)
				}
			})
			endless := &text{Reader: readerFunc(func(p []byte) (int, error) { clear(p); return len(p), nil })}
			_, body, err := ask(c, &Request{Method: "POST", Path: "/", Host: "h", Body: endless, Length: length})
			if closes && err != nil { // a reset can take the answer with it
				continue
			}
			if err != nil || body != "big" || c.End() {
				t.Errorf("%q, %v", body, err)
			}
		}
	}
	// A body that nobody sends is not waited for.
	closed := make(chan struct{})
	c := says(t, answer)
	blocked := &text{Reader: readerFunc(func([]byte) (int, error) { <-closed; return 0, errors.New("closed") }), closed: func() { close(closed) }}
	if _, body, err := ask(c, &Request{Method: "POST", Path: "/", Host: "h", Body: blocked, Length: 5}); err != nil || body != "big" || c.End() {
		t.Errorf("%q, %v", body, err)
	}
}

// TestBrokenBody: what is wrong with a body ends the exchange; the upstream never takes a part for the whole.
func TestBrokenBody(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, length := range []int64{-1, 10} {
		for _, fails := range []error{broken, io.EOF} {
			if length < 0 && errors.Is(fails, io.EOF) {
				continue
			}
			whole := make(chan error, 1)
			c := peer(t, func(_ net.Conn, r *bufio.Reader) {
				req, err := http.ReadRequest(r)
				if err == nil {
					_, err = io.Copy(io.Discard, req.Body)
				}
				whole <- err
			})
			body := &text{Reader: io.MultiReader(strings.NewReader("half"), readerFunc(func([]byte) (int, error) { return 0, fails }))}
			_, _, err := ask(c, &Request{Method: "POST", Path: "/", Host: "h", Body: body, Length: length})
			if err == nil || c.End() {
				t.Errorf("length %d, %v: an answer out of nothing", length, fails)
			}
			_ = c.Close()
			if <-whole == nil {
				t.Errorf("length %d, %v: the upstream took half a body for the whole", length, fails)
			}
		}
	}
}

// TestUnsent: an error says exactly whether anything of the request left.
func TestUnsent(t *testing.T) {
	t.Parallel()
	c := peer(t, func(net.Conn, *bufio.Reader) {})
	for range 5000 {
		if !c.Fresh() {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if c.Fresh() {
		t.Fatal("a connection that its peer closed is fresh")
	}
	c.Abort()
	err := c.Do(get(), new(Response))
	var e *Error
	if !errors.As(err, &e) || !e.Unsent {
		t.Error(err)
	}
	c = peer(t, func(_ net.Conn, r *bufio.Reader) { readHead(r) })
	if err = c.Do(get(), new(Response)); !errors.As(err, &e) || e.Unsent || e.Reason != Broken {
		t.Error(err)
	}
	c = peer(t, func(_ net.Conn, r *bufio.Reader) { _, _ = r.ReadByte() })
	_ = c.under.(*net.TCPConn).CloseWrite()
	if err = c.Do(get(), new(Response)); !errors.As(err, &e) || !e.Unsent {
		t.Error(err)
	}
}

// TestAbort: whatever is under way returns, from wherever it is given up.
func TestAbort(t *testing.T) {
	t.Parallel()
	stall := func(answer string) *Conn {
		return peer(t, func(c net.Conn, r *bufio.Reader) {
			readHead(r)
			_, _ = io.WriteString(c, answer)
			_, _ = io.Copy(io.Discard, r)
		})
	}
	for name, give := range map[string]func(*Conn){"abort": (*Conn).Abort, "close": func(c *Conn) { _ = c.Close() }} {
		c := stall("HTTP/1.1 200 ")
		go give(c)
		if err := c.Do(get(), new(Response)); err == nil || c.End() {
			t.Errorf("%s: %v", name, err)
		}
		c = stall("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
		resp := new(Response)
		if err := c.Do(get(), resp); err != nil {
			t.Fatal(err)
		}
		go give(c)
		if b, err := io.ReadAll(resp.Body); err == nil || c.End() {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	// Who reads on does not take the part he got for the whole.
	for _, give := range []func(*Conn, *Response){func(c *Conn, _ *Response) { c.End() }, func(_ *Conn, r *Response) { _ = r.Body.Close() }} {
		c, resp := stall("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"), new(Response)
		if err := c.Do(get(), resp); err != nil {
			t.Fatal(err)
		}
		give(c, resp)
		var e *Error
		if b, err := io.ReadAll(resp.Body); !errors.As(err, &e) {
			t.Errorf("%q, %v", b, err)
		}
	}
	// The body's Close is a third way.
	c := stall("HTTP/1.1 200 OK\r\n\r\nab")
	resp := new(Response)
	if err := c.Do(get(), resp); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(10*time.Millisecond, func() { _ = resp.Body.Close() })
	if b, err := io.ReadAll(resp.Body); err == nil || c.End() {
		t.Errorf("%q, %v", b, err)
	}
}

// secured is a TLS connection to serve.
func secured(t *testing.T, serve func(c *tls.Conn, r *bufio.Reader)) *Conn {
	t.Helper()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.StartTLS()
	t.Cleanup(s.Close)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: s.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		serve(c.(*tls.Conn), bufio.NewReader(c))
	})
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := Secure(raw, &tls.Config{RootCAs: roots, ServerName: "example.com"})
	if err := c.HandshakeContext(context.Background()); err != nil {
		t.Fatal(err)
	}
	k := New(c)
	t.Cleanup(func() { k.End(); _ = k.Close(); _ = l.Close(); work.Wait() })
	return k
}

// TestSecure: over TLS a connection is used again, what comes behind an answer is found within the same record and in the next,
// and a goodbye in time.
func TestSecure(t *testing.T) {
	t.Parallel()
	const fine = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
	long := "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100_000)
	for name, tt := range map[string]struct {
		records []string
		kept    bool
	}{
		"an answer":               {[]string{fine}, true},
		"in many records":         {strings.Split(fine, ""), true},
		"long":                    {[]string{long}, true},
		"more in the same record": {[]string{fine + "evil"}, false},
		"more in the next":        {[]string{fine, fine}, false},
		"more behind a long one":  {[]string{long + "evil"}, false},
		"no body but one comes":   {[]string{"HTTP/1.1 304 No\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"}, false},
		"chunks and more":         {[]string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\nevil"}, false},
	} {
		turn := make(chan struct{})
		c := secured(t, func(c *tls.Conn, r *bufio.Reader) {
			for readHead(r) != "" {
				for _, record := range tt.records {
					_, _ = io.WriteString(c, record)
				}
				turn <- struct{}{}
			}
		})
		for range 3 {
			_, body, err := ask(c, get())
			if err != nil || strings.Contains(body, "evil") {
				t.Fatalf("%s: %q, %v", name, body, err)
			}
			<-turn // all was sent, and has arrived: it is one host
			if kept := c.End() && c.Fresh(); kept != tt.kept {
				t.Fatalf("%s: kept %v", name, kept)
			} else if !kept {
				break
			}
		}
	}
	closed := make(chan struct{})
	c := secured(t, func(c *tls.Conn, r *bufio.Reader) {
		readHead(r)
		_, _ = io.WriteString(c, fine)
		_ = c.Close()
		close(closed)
	})
	if _, _, err := ask(c, get()); err != nil {
		t.Fatal(err)
	}
	kept := c.End()
	<-closed
	if kept && c.Fresh() {
		t.Error("a connection that its peer closed is fresh")
	}
}

// TestHoldsNoBuffer: a connection that waits, idle or within a stream, holds no buffer.
func TestHoldsNoBuffer(t *testing.T) {
	t.Parallel()
	for _, head := range []string{"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "Content-Length: 100\r\n\r\nhello", "\r\nhello"} {
		c := says(t, "HTTP/1.1 200 OK\r\n"+head)
		resp := new(Response)
		if err := c.Do(get(), resp); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		if n, err := io.ReadAtLeast(resp.Body, b, 5); err != nil || string(b[:n]) != "hello" {
			t.Fatalf("%q, %v", b[:n], err)
		}
		if c.buf != nil {
			t.Errorf("%q: it holds a buffer", head)
		}
	}
}

// TestClockStops: whoever keeps time is told of every wait for the body, and of no other.
func TestClockStops(t *testing.T) {
	t.Parallel()
	go1 := make(chan struct{})
	c := peer(t, func(c net.Conn, r *bufio.Reader) {
		readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
		<-go1
		_, _ = io.WriteString(c, "world")
	})
	clock := new(counter)
	r, resp := get(), new(Response)
	r.Clock = clock
	if err := c.Do(r, resp); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(resp.Body, b); err != nil || clock.on+clock.off > 2 {
		t.Errorf("%v, %+v", err, clock)
	}
	close(go1)
	if _, err := io.ReadAll(resp.Body); err != nil || clock.on == 0 || clock.on != clock.off {
		t.Errorf("%v, %+v", err, clock)
	}
}

type counter struct{ on, off int }

func (c *counter) Waiting(w bool) {
	if w {
		c.on++
	} else {
		c.off++
	}
}

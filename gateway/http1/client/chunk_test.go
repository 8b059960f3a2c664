package client

import (
	"errors"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// TestChunks has an entry for every rule of the chunked coding (RFC 9112 section 7.1).
func TestChunks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ rule, body, want, trailer, refused string }{
		{"one chunk", "5\r\nhello\r\n0\r\n\r\n", "hello", "", ""},
		{"many", "1\r\na\r\n2\r\nbc\r\n0A\r\n0123456789\r\n0\r\n\r\n", "abc0123456789", "", ""},
		{"none", "0\r\n\r\n", "", "", ""},
		{"digits of both cases", "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", "", ""},
		{"leading zeros", "0000000000000005\r\nhello\r\n000\r\n\r\n", "hello", "", ""},
		{"more digits than a size has", "00000000000000005\r\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"a size beyond numbers", "8000000000000000\r\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"an extension", "5;a=b\r\nhello\r\n0;c=\"d;e\"\r\n\r\n", "hello", "", ""},
		{"white space before one", "5 \t;a\r\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"white space before nothing", "5 \r\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"white space before the size", " 5\r\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"LF in an extension", "5;a\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"a control character in one", "5;a\x01\r\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"an extension of 4 KiB", "5;" + strings.Repeat("a", 4096) + "\r\nhello\r\n0\r\n\r\n", "hello", "", ""},
		{"a longer one", "5;" + strings.Repeat("a", 4097) + "\r\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"a chunk of much framing", strings.Repeat("1;aaaaaaaaaaaa\r\nx\r\n", 1500) + "0\r\n\r\n", strings.Repeat("x", 1500), "", ""},
		{"too much of it", strings.Repeat("1;aaaaaaaaaaaa\r\nx\r\n", 9000) + "0\r\n\r\n", "", "", "chunk"},
		{"tiny chunks", strings.Repeat("1\r\nx\r\n", 50_000) + "0\r\n\r\n", strings.Repeat("x", 50_000), "", ""},
		{"no size", "\r\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"no digit", "g\r\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"0x", "0x5\r\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"a sign", "+5\r\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"less than nothing", "-5\r\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"LF behind a size", "5\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"LF behind data", "5\r\nhello\n0\r\n\r\n", "", "", "chunk"},
		{"CR behind data", "5\r\nhello\r0\r\n\r\n", "", "", "chunk"},
		{"data longer than its size", "4\r\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"data shorter than its size", "6\r\nhello\r\n0\r\n\r\n", "", "", "chunk"},
		{"the end within a size", "5", "", "", "EOF"},
		{"the end within data", "5\r\nhel", "", "", "EOF"},
		{"the end before the last chunk", "5\r\nhello\r\n", "", "", "EOF"},
		{"the end before the last line", "0\r\n", "", "", "EOF"},
		{"LF as the last line", "0\r\n\n", "", "", "trailer"},
		// RFC 9112 section 7.1.2: the trailer section.
		{"trailers", "0\r\nX-A: 1 \r\nx-a:2\r\nX-B:\r\n\r\n", "", "x-a=1 x-a=2 x-b=", ""},
		{"trailers that frame", "0\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nConnection: x\r\nTrailer: x\r\nX-A: 1\r\n\r\n", "", "x-a=1", ""},
		{"a trailer without a colon", "0\r\nX-A\r\n\r\n", "", "", "trailer"},
		{"a trailer with white space before its colon", "0\r\nX-A : 1\r\n\r\n", "", "", "trailer"},
		{"a folded trailer", "0\r\nX-A: 1\r\n 2\r\n\r\n", "", "", "trailer"},
		{"a trailer of no token", "0\r\nX(A): 1\r\n\r\n", "", "", "trailer"},
		{"a control character in a trailer", "0\r\nX-A: \x00\r\n\r\n", "", "", "trailer"},
		{"LF behind a trailer", "0\r\nX-A: 1\n\r\n", "", "", "trailer"},
		{"a long trailer", "0\r\nX-A: " + strings.Repeat("a", 60_000) + "\r\n\r\n", "", "x-a=" + strings.Repeat("a", 60_000), ""},
		{"too long a trailer", "0\r\nX-A: " + strings.Repeat("a", 70_000) + "\r\n\r\n", "", "", "trailer"},
		{"too many trailers", "0\r\n" + strings.Repeat("A:\r\n", 1001) + "\r\n", "", "", "trailer"},
	} {
		for _, step := range []int{1, 7, 1 << 20} {
			body, trailer, err := exchanged("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+tt.body, step)
			var e *Error
			switch {
			case tt.refused != "":
				if !errors.As(err, &e) || !strings.Contains(err.Error(), tt.refused) || (e.Reason == Invalid) != (tt.refused != "EOF") {
					t.Errorf("%s, in steps of %d: %q, %v", tt.rule, step, clip(body), err)
				}
			case err != nil || body != tt.want || line(trailer) != tt.trailer:
				t.Errorf("%s, in steps of %d: %q, trailer %q, %v", tt.rule, step, clip(body), clip(line(trailer)), err)
			}
		}
	}
}

// exchanged reads the body of an answer that comes in steps of so many octets.
func exchanged(answer string, step int) (body string, trailer exchange.Header, err error) {
	c := New(&replay{answer: answer, step: step})
	resp, body, err := ask(c, get())
	if err == nil {
		trailer = resp.Body.Trailer()
	}
	c.End()
	return body, trailer, err
}

func clip(s string) string {
	if len(s) > 100 {
		return s[:50] + "..." + s[len(s)-50:]
	}
	return s
}

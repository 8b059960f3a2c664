package http1

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// rule is one of the grammar's: what keeps it and what breaks it.
type rule struct {
	name    string
	pattern string   // of the request, with %s for the part in question
	good    []string // served
	bad     []string // refused with status, and nothing behind it is looked at
	status  int
}

const (
	line   = "%s\r\nHost: a\r\n\r\n"
	field  = "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n"
	host   = "GET / HTTP/1.1\r\nHost: %s\r\n\r\n"
	length = "POST / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\nhello"
	coding = "POST / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n0\r\n\r\n"
	chunks = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%s"
)

// rules are all of them. README.md lists them with the sections they come from.
var rules = []rule{
	{"line end", "%s", []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
	}, []string{
		"GET / HTTP/1.1\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\n", "GET / HTTP/1.1\nHost: a\n\n", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\rHost: a\r\r\r\n\r\n", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
	}, 400},
	{"request line", line, []string{"GET / HTTP/1.1"}, []string{
		"GET /", "GET  / HTTP/1.1", "GET /  HTTP/1.1", "GET / HTTP/1.1 ", " GET / HTTP/1.1", "GET\t/ HTTP/1.1", "GET /\tHTTP/1.1", "GET / a HTTP/1.1", "GET", "GET HTTP/1.1", "GET /\x00 HTTP/1.1", "GET\v/ HTTP/1.1",
	}, 400},
	{"method", line, []string{"get / HTTP/1.1", "M-SEARCH / HTTP/1.1", "!#$%&'*+-.^_`|~9 / HTTP/1.1", strings.Repeat("A", 64) + " / HTTP/1.1"}, []string{
		"G(T / HTTP/1.1", "G\x00T / HTTP/1.1", "G\xe9T / HTTP/1.1", "@ / HTTP/1.1", "GET: / HTTP/1.1", "PRI / HTTP/1.1",
	}, 400},
	{"method not served", line, nil, []string{"CONNECT a:443 HTTP/1.1", "CONNECT / HTTP/1.1", strings.Repeat("A", 65) + " / HTTP/1.1"}, 501},
	{"version", line, []string{"GET / HTTP/1.1", "GET / HTTP/1.0"}, []string{"GET / http/1.1", "GET / HTTP/11.1", "GET / HTTP/1.", "GET / HTTP1.1", "GET / HTTPS/1.1", "GET / XTTP/1.1"}, 400},
	{"version not served", line, nil, []string{"GET / HTTP/1.2", "GET / HTTP/2.0", "GET / HTTP/0.9", "GET / HTTP/x.1"}, 505},
	{"target", line, []string{"GET /a?b=c/d?e HTTP/1.1", "GET http://a/b HTTP/1.1", "GET HTTPS://A/b HTTP/1.1", "GET http://a HTTP/1.1", "GET http://a?b HTTP/1.1", "GET http://a: HTTP/1.1"}, []string{
		"GET a HTTP/1.1", "GET * HTTP/1.1", "OPTIONS * HTTP/1.1", "GET ?a HTTP/1.1", "GET /a#b HTTP/1.1", "GET /?a#b HTTP/1.1", "GET /\xe9 HTTP/1.1", "GET /\x7f HTTP/1.1", "GET /?\x01 HTTP/1.1",
		"GET ftp://a/ HTTP/1.1", "GET http:/a HTTP/1.1", "GET http:///a HTTP/1.1", "GET http://u@a/ HTTP/1.1", "GET http://b/ HTTP/1.1", "GET http://a:80/ HTTP/1.1", "GET //a/ HTTP/1.1\x00",
	}, 400},
	{"field name", field, []string{"X: 1", "x-y: 1", "!#$%&'*+-.^`|~9: 1"}, []string{
		"X : 1", "X\t: 1", " X: 1", "\tX: 1", ": 1", "X", "X Y: 1", "X\x00: 1", "X\xe9: 1", "X(: 1", "\"X\": 1", "X\r: 1", "X;Y: 1", "\xef\xbb\xbfX: 1",
	}, 400},
	{"field value", field, []string{"X:", "X: ", "X:1", "X: \t1 2\t ", "X: \xe9\xff", "X: a:b", "X: \"a\""}, []string{
		"X: \x00", "X: a\x00b", "X: \x01", "X: \x1f", "X: \x7f", "X: a\rb", "X: a\r", "X: 12345678\x0b", "X: 1234567\x00", "X: a\bb",
	}, 400},
	{"folded line", field, nil, []string{"X: 1\r\n 2", "X: 1\r\n\t2", "X: 1\r\n \r\nY: 2", "X: 1\r\n  Content-Length: 5"}, 400},
	{"host", host, []string{"a", "A.example", "a:80", "a:", "1.2.3.4:80", "[::1]", "[::AB]:80", "my_host", "a."}, []string{
		"", " ", ":80", "a b", "a,b", "a/b", "a?b", "a#b", "u@a", "a:b", "a:-1", "a:65536", "a:80:90", "::1", "[::1", "[a]", "[1.2.3.4]", "[fe80::1%25eth0]", "[]", "\xe9", "%61", "a\\b", "a\r\nHost: a", "a\r\nHost: b",
	}, 400},
	{"host field", "GET / HTTP/1.%s\r\n\r\n", []string{"0", "1\r\nhOsT: a"}, []string{"1", "1\r\nX: 1"}, 400},
	{"content-length", length, []string{"Content-Length: 5", "content-length:\t5\t", "Content-Length: 0000005"}, []string{
		"Content-Length: +5", "Content-Length: -5", "Content-Length: 0x5", "Content-Length: 5.0", "Content-Length: 5 5", "Content-Length: 5,5", "Content-Length: 5, 5", "Content-Length:", "Content-Length: a", "Content-Length: \"5\"",
		"Content-Length: 9999999999999999999", "Content-Length: 18446744073709551621", "Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5\r\ncontent-length: 6", "Content-Length: \xef\xbc\x95", "Content-Length: 5\v",
	}, 400},
	{"transfer-encoding", coding, []string{"Transfer-Encoding: chunked", "transfer-encoding:CHUNKED", "Transfer-Encoding: \tchunked "}, []string{
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "Transfer-Encoding:", "Transfer-Encoding: \vchunked", "Transfer-Encoding: chunked\x00",
		"Transfer-Encoding: chunked\r\nContent-Length: 5", "Content-Length: 0\r\nTransfer-Encoding: chunked", "Content-Length: 5\r\nTransfer-Encoding: identity", "Transfer-Encoding : chunked", "Transfer-Encoding\r\n : chunked",
	}, 400},
	{"other codings", coding, nil, []string{
		"Transfer-Encoding: gzip", "Transfer-Encoding: identity", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: chunked, identity", "Transfer-Encoding: chunked;q=1", "Transfer-Encoding: ,chunked",
		"Transfer-Encoding: chunked,", "Transfer-Encoding: xchunked", "Transfer-Encoding: \"chunked\"", "Transfer-Encoding: chun\xc5\xbfked",
	}, 501},
	{"transfer-encoding in HTTP/1.0", "POST / HTTP/1.0\r\n%s\r\n\r\n0\r\n\r\n", nil, []string{"Transfer-Encoding: chunked"}, 400},
	{"connection", field, []string{"Connection: keep-alive", "Connection: Keep-Alive, TE", "Connection: ,", "Connection: upgrade, http2-settings"}, []string{
		"Connection: x-api-key", "Connection: keep-alive, authorization", "Connection: content-length", "Connection: host", "Connection: cookie\r\nCookie: a=b", "Connection: close, x-forwarded-for", "Connection: \"te\"",
	}, 400},
	{"expect", length, []string{"Expect: 100-continue\r\nContent-Length: 5", "Expect: 100-Continue\r\nContent-Length: 5"}, []string{"Expect: 100\r\nContent-Length: 5", "Expect: 200-ok\r\nContent-Length: 5", "Expect: 100-continue, x\r\nContent-Length: 5"}, 417},
	{"chunk size", chunks, []string{"5\r\nhello\r\n0\r\n\r\n", "05\r\nhello\r\n00\r\n\r\n", "A\r\n0123456789\r\n0\r\n\r\n", "a\r\n0123456789\r\n0\r\n\r\n", "0000000000000005\r\nhello\r\n0\r\n\r\n"}, []string{
		"+5\r\nhello\r\n0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", " 5\r\nhello\r\n0\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n", "\r\n5\r\nhello\r\n0\r\n\r\n", "g\r\nhello\r\n0\r\n\r\n", "5h\r\nhello\r\n0\r\n\r\n",
		"00000000000000005\r\nhello\r\n0\r\n\r\n", "10000000000000005\r\nhello\r\n0\r\n\r\n", "8000000000000005\r\nhello\r\n0\r\n\r\n", "5\nhello\r\n0\r\n\r\n", "5\rhello\r\n0\r\n\r\n", "5\r\rhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\n\r\n", "_5\r\nhello\r\n0\r\n\r\n",
	}, 400},
	{"chunk extension", chunks, []string{"5;a\r\nhello\r\n0;b=c\r\n\r\n", "5; a = \"b c\"\r\nhello\r\n0\r\n\r\n", "5;" + strings.Repeat("a", 4000) + "\r\nhello\r\n0\r\n\r\n"}, []string{
		"5;a\rb\r\nhello\r\n0\r\n\r\n", "5;a\nhello\r\n0\r\n\r\n", "5;\x00\r\nhello\r\n0\r\n\r\n", "5 a\r\nhello\r\n0\r\n\r\n", "5 ;a\r\nhello\r\n0\r\n\r\n", "5\t;a\r\nhello\r\n0\r\n\r\n", "5;" + strings.Repeat("a", 5000) + "\r\nhello\r\n0\r\n\r\n",
		strings.Repeat("1;"+strings.Repeat("a", 2000)+"\r\nx\r\n", 20) + "0\r\n\r\n",
	}, 400},
	{"chunk data", chunks, []string{"2\r\n\r\n\r\n0\r\n\r\n"}, []string{"3\r\nhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello\r0\r\n\r\n", "5\r\nhello0\r\n\r\n", "5\r\nhello\r\n\r\n0\r\n\r\n", "5\r\nhello \r\n0\r\n\r\n"}, 400},
	{"trailer", chunks, []string{"0\r\nX-A: 1\r\nx-b:2\r\n\r\n", "0\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\nHost: b\r\n\r\n"}, []string{
		"0\r\nX : 1\r\n\r\n", "0\r\nX\r\n\r\n", "0\r\n X: 1\r\n\r\n", "0\r\nX: 1\r\n 2\r\n\r\n", "0\r\nX: 1\n\r\n", "0\r\nX: \x00\r\n\r\n", "0\r\nX: 1\r\r\n\r\n", "0\r\n: 1\r\n\r\n", "0\r\n" + strings.Repeat("X: 1\r\n", 51) + "\r\n",
		"0\r\nX: " + strings.Repeat("a", 5000) + "\r\n\r\n", "0\r\n" + strings.Repeat("X: "+strings.Repeat("a", 1000)+"\r\n", 20) + "\r\n",
	}, 400},
	{"size of a head", field, []string{"X: " + strings.Repeat("a", 8000), strings.Repeat("X: 1\r\n", 48) + "X: 1"}, []string{"X: " + strings.Repeat("a", 8<<10), strings.Repeat("X: 1\r\n", 49) + "X: 1", "X: " + strings.Repeat("a", 1<<20)}, 431},
	{"size of a request line", line, nil, []string{"GET /" + strings.Repeat("a", 9000) + " HTTP/1.1", "GET /?" + strings.Repeat("a", 1<<20) + " HTTP/1.1"}, 431},
}

// TestRules serves what keeps each rule, together with a request behind it, and refuses what breaks it, with nothing behind
// it; whole and octet by octet.
func TestRules(t *testing.T) {
	t.Parallel()
	const next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			check := func(part string, want []int, paths int) {
				t.Helper()
				octets := fmt.Sprintf(r.pattern, part) + next
				if strings.Contains(r.pattern, "HTTP/1.0") || strings.Contains(part, "HTTP/1.0") || r.name == "host field" && part == "0" {
					octets = strings.TrimSuffix(octets, next)
					want = want[:1]
				}
				for _, piece := range []int{1 << 20, 1} {
					served := 0
					sent := run(octets, piece, generous(), func(ctx context.Context, x *exchange.Exchange) {
						if x.Request.Path == "/next" {
							served++
						}
						echo(ctx, x)
					})
					if got := slices.DeleteFunc(statuses(t, sent), func(s int) bool { return s == 100 }); !slices.Equal(got, want) || served > paths {
						t.Errorf("%.300q in pieces of %d: %v, want %v", octets, piece, got, want)
					}
				}
			}
			for _, part := range r.good {
				check(part, []int{200, 200}, 1)
			}
			for _, part := range r.bad {
				check(part, []int{r.status}, 0)
			}
		})
	}
}

// TestWhatIsHandedOn is what the handler sees of a request.
func TestWhatIsHandedOn(t *testing.T) {
	t.Parallel()
	for octets, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: A.Example:80\r\nX-One:  1 \t\r\nx-two:\r\nX-ONE: 3\r\n\r\n": "GET a.example:80 / ? 0 [x-one=1 x-two= x-one=3] []",
		"GET http://A/b?c=%20&d=?/ HTTP/1.1\r\nHost: a\r\n\r\n":                              "GET a /b ?c=%20&d=?/ 0 [] []",
		"GET http://b HTTP/1.0\r\n\r\n":                                                      "GET b / ? 0 [] []",
		"GET /a/./b/../%63 HTTP/1.0\r\n\r\n":                                                 "GET  /a/c ? 0 [] []",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Authorization: x\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nY: 1\r\n\r\n": "GET a / ? 0 [y=1] []",
		"GET / HTTP/1.1\r\nHost: a\r\nX_Y: 1\r\nPostern-Account: root\r\nZ: \xe9\r\n\r\n":                                                                             "GET a / ? 0 [z=\xe9] []",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-b\r\n\r\n2;x\r\nhe\r\n3\r\nllo\r\n0\r\nX-B: 1\r\nX_C: 2\r\nAuthorization: 3\r\n\r\n":  "POST a / ? -1hello [trailer=x-b] [x-b=1]",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n":                                                                              "GET a / ? 0 [] []websocket",
		"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n":                                                                             "POST a / ? 0 [] []",
		"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n":                                                                                                     "GET a / ? 0 [] []",
		"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("A: 1\r\n", 40) + "\r\n":                                                                                     "GET a / ? 0 [" + strings.TrimSpace(strings.Repeat("a=1 ", 40)) + "] []",
	} {
		var got string
		run(octets, 3, generous(), func(_ context.Context, x *exchange.Exchange) {
			q := &x.Request
			b, err := io.ReadAll(q.Body)
			if err != nil {
				t.Error(err)
			}
			pairs := func(h exchange.Header) string {
				var list []string
				for _, f := range h {
					list = append(list, f.Name+"="+f.Value)
				}
				return "[" + strings.Join(list, " ") + "]"
			}
			got = fmt.Sprintf("%s %s %s ?%s %d%s %s %s%s", q.Method, q.Authority, q.Path, q.Query, q.Length, b, pairs(q.Header), pairs(q.Body.Trailer()), q.Upgrade)
			reply(x, 200, "")
		})
		if got != want {
			t.Errorf("%q:\n got %q\nwant %q", octets, got, want)
		}
	}
}

// TestPathRefused answers 400 to a path without one reading, and goes on: where its request ends is clear.
func TestPathRefused(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/%2f", "/a%5cb", "/%00", "/..", "/%2e%2e/a", "/%zz", "/a\\b", "/..;x/"} {
		sent := run("POST "+path+" HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nHost: a\r\n\r\n", 7, generous(), echo)
		if got := answers(t, sent); len(got) != 2 || got[0].status != 400 || got[0].close || got[1].status != 200 || got[1].body != "/b " {
			t.Errorf("%s: %+v", path, got)
		}
	}
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

// TestControls finds every control character at every place of a word, and nothing else.
func TestControls(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		want := c < ' ' && c != '\t' || c == 0x7f
		for _, filler := range []byte{' ', '~', 0x80, 0xff, '\t'} {
			for at := range 20 {
				b := []byte(strings.Repeat(string([]byte{filler}), 20))
				b[at] = byte(c)
				if hasControl(b) != want || hasControl(string(b)) != want {
					t.Fatalf("%q", b)
				}
			}
		}
	}
}

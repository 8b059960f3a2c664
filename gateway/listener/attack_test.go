package listener

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// TestHTTP1Attacks sends octets that two programs could read differently, or that no honest client sends. Each is
// answered and the connection is closed; no request that hides behind it is ever served.
func TestHTTP1Attacks(t *testing.T) {
	t.Parallel()
	var smuggled atomic.Int64
	r := start(t, cleartext(), func(_ context.Context, x *exchange.Exchange) {
		if x.Request.Path == "/smuggled" {
			smuggled.Add(1)
		}
		if _, err := io.Copy(io.Discard, x.Request.Body); errors.Is(err, exchange.ErrClientBody) {
			reply(x, 400, "broken body")
			return
		}
		reply(x, 200, "fine")
	})
	const next = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, c := range map[string]struct {
		octets string
		want   int
	}{
		"content-length and transfer-encoding": {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + next, 400},
		"transfer-encoding and content-length": {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + next, 400},
		"two content-lengths":                  {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n" + next, 400},
		"equal content-lengths":                {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello" + next, 400},
		"list of content-lengths":              {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello" + next, 400},
		"signed content-length":                {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello" + next, 400},
		"negative content-length":              {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n" + next, 400},
		"hexadecimal content-length":           {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello" + next, 400},
		"huge content-length":                  {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n" + next, 400},
		"empty content-length":                 {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n" + next, 400},
		"gzip, chunked":                        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + next, 501},
		"chunked, identity":                    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + next, 501},
		"xchunked":                             {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + next, 501},
		"two transfer-encodings":               {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + next, 400},
		"empty transfer-encoding":              {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n" + next, 400},
		"vertical tab in transfer-encoding":    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n" + next, 400},
		"HTTP/1.0 with transfer-encoding":      {"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + next, 400},
		"space before colon":                   {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n" + next, 400},
		"tab before colon":                     {"GET / HTTP/1.1\r\nHost: a\r\nX\t: 5\r\n\r\n" + next, 400},
		"folded line":                          {"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n" + next, 400},
		"folded first line":                    {"GET / HTTP/1.1\r\n Host: a\r\n\r\n" + next, 400},
		"empty name":                           {"GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n" + next, 400},
		"no colon":                             {"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n" + next, 400},
		"NUL in value":                         {"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n" + next, 400},
		"NUL in name":                          {"GET / HTTP/1.1\r\nHost: a\r\nX\x00: 1\r\n\r\n" + next, 400},
		"DEL in value":                         {"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n" + next, 400},
		"bare CR in value":                     {"GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n" + next, 400},
		"bare CR as line end":                  {"GET / HTTP/1.1\rHost: a\r\r" + strings.Repeat(" ", 10) + "\r\n\r\n", 400},
		"bare LF as line end":                  {"GET / HTTP/1.1\nHost: a\n\n" + next, 400},
		"bare LF between fields":               {"GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n" + next, 400},
		"bare LF at the end":                   {"GET / HTTP/1.1\r\nHost: a\r\n\n" + next, 400},
		"non-ASCII name":                       {"GET / HTTP/1.1\r\nHost: a\r\nX\xe9: 1\r\n\r\n" + next, 400},
		"no host":                              {"GET / HTTP/1.1\r\n\r\n" + next, 400},
		"two hosts":                            {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + next, 400},
		"equal hosts":                          {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n" + next, 400},
		"empty host":                           {"GET / HTTP/1.1\r\nHost:\r\n\r\n" + next, 400},
		"host with path":                       {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n" + next, 400},
		"host with user":                       {"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n" + next, 400},
		"host with bad port":                   {"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n" + next, 400},
		"host with large port":                 {"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n" + next, 400},
		"host with space":                      {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n" + next, 400},
		"host with comma":                      {"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n" + next, 400},
		"host with broken brackets":            {"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n" + next, 400},
		"host with a name in brackets":         {"GET / HTTP/1.1\r\nHost: [a]\r\n\r\n" + next, 400},
		"absolute form of another host":        {"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n" + next, 400},
		"absolute form of another scheme":      {"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n" + next, 400},
		"absolute form with user":              {"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n" + next, 400},
		"absolute form without host field":     {"GET http://a/ HTTP/1.1\r\n\r\n" + next, 400},
		"asterisk":                             {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" + next, 400},
		"CONNECT":                              {"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n" + next, 501},
		"HTTP/2 preface without HTTP/2":        {"PRI * HTTP/1.1\r\nHost: a\r\n\r\n" + next, 400},
		"two spaces in the request line":       {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n" + next, 400},
		"tab in the request line":              {"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n" + next, 400},
		"trailing space in the request line":   {"GET / HTTP/1.1 \r\nHost: a\r\n\r\n" + next, 400},
		"space in the target":                  {"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n" + next, 400},
		"fragment":                             {"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n" + next, 400},
		"control in the query":                 {"GET /?a\x01 HTTP/1.1\r\nHost: a\r\n\r\n" + next, 400},
		"non-ASCII in the path":                {"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n" + next, 400},
		"no version":                           {"GET /\r\nHost: a\r\n\r\n" + next, 400},
		"lower-case version":                   {"GET / http/1.1\r\nHost: a\r\n\r\n" + next, 400},
		"HTTP/2.0":                             {"GET / HTTP/2.0\r\nHost: a\r\n\r\n" + next, 505},
		"HTTP/1.2":                             {"GET / HTTP/1.2\r\nHost: a\r\n\r\n" + next, 505},
		"HTTP/11.1":                            {"GET / HTTP/11.1\r\nHost: a\r\n\r\n" + next, 400},
		"malformed method":                     {"G(T / HTTP/1.1\r\nHost: a\r\n\r\n" + next, 400},
		"endless method":                       {strings.Repeat("A", 20000) + " / HTTP/1.1\r\nHost: a\r\n\r\n" + next, 501},
		"two empty lines first":                {"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n" + next, 400},
		"space first":                          {" GET / HTTP/1.1\r\nHost: a\r\n\r\n" + next, 400},
		"TLS":                                  {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400},
		"connection names a header":            {"GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: k\r\nConnection: X-Api-Key\r\n\r\n" + next, 400},
		"connection hides among others":        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, authorization\r\n\r\n" + next, 400},
		"unknown expectation":                  {"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\na" + next, 417},
		"chunk size with sign":                 {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n" + next, 400},
		"chunk size with 0x":                   {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n" + next, 400},
		"chunk size with space":                {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n" + next, 400},
		"chunk size that overflows":            {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n" + next, 400},
		"chunk size is empty":                  {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n" + next, 400},
		"chunk size ends with LF":              {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n" + next, 400},
		"chunk longer than its size":           {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n" + next, 400},
		"chunk ends with LF":                   {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n" + next, 400},
		"chunk extension with CR":              {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n" + next, 400},
		"chunk extension without end":          {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("a", 9000), 400},
		"last chunk with LF":                   {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\n\n" + next, 400},
		"malformed trailer":                    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX : 1\r\n\r\n" + next, 400},
		"endless trailer":                      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X: 1\r\n", 9000), 400},
		"head without end":                     {"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 40<<10), 431},
		"too large a head":                     {"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 33<<10) + "\r\n\r\n" + next, 431},
		"too many fields":                      {"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: 1\r\n", 101) + "\r\n" + next, 431},
		"endless request line":                 {"GET /" + strings.Repeat("a", 40<<10), 431},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &rig{t: t, addr: r.addr}
			got := r.send(c.octets)
			if status(got, 0) != c.want || strings.Contains(got, "fine") {
				t.Errorf("want %d and nothing else, got %q", c.want, got)
			}
		})
	}
	t.Cleanup(func() {
		if n := smuggled.Load(); n != 0 {
			t.Errorf("%d smuggled requests were served", n)
		}
	})
}

// TestHTTP1AttackInPieces sends every attack octet by octet: what is refused does not depend on packets.
func TestHTTP1Pieces(t *testing.T) {
	t.Parallel()
	r := start(t, cleartext(), describe)
	for name, c := range map[string]struct {
		octets string
		want   []int
	}{
		"two requests":      {"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", []int{200, 200}},
		"chunked":           {"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n00\r\nX-Sum: 1\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", []int{200, 200}},
		"refused at last":   {"GET /a HTTP/1.1\r\nHost: a\r\n\r\nPOST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi" + "GET /c HTTP/1.1\r\nHost : a\r\n\r\n", []int{200, 200, 400}},
		"empty line before": {"\r\nGET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", []int{200}},
		"HTTP/1.0":          {"GET /a HTTP/1.0\r\n\r\n", []int{200}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &rig{t: t, addr: r.addr}
			conn := r.raw()
			for i := range len(c.octets) {
				if _, err := io.WriteString(conn, c.octets[i:i+1]); err != nil {
					break
				}
			}
			got := r.rest(conn)
			for i, want := range c.want {
				if status(got, i) != want {
					t.Errorf("response %d: want %d in %q", i, want, got)
				}
			}
			if s := status(got, len(c.want)); s != 0 {
				t.Errorf("one response more: %d", s)
			}
			// The exchanges' ids, and with them the answers' lengths, differ.
			if whole := r.send(c.octets); status(whole, len(c.want)-1) != status(got, len(c.want)-1) || status(whole, len(c.want)) != 0 {
				t.Errorf("octet by octet %q, at once %q", got, whole)
			}
		})
	}
}

// TestPipeline checks that a refusal comes after the answers before it, and that its problem is one.
func TestPipeline(t *testing.T) {
	t.Parallel()
	r := start(t, cleartext(), describe)
	got := r.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n")
	br := bufio.NewReader(strings.NewReader(got))
	for i, want := range []int{200, 200, 400} {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("response %d: %v in %q", i, err, got)
		}
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != want {
			t.Errorf("response %d: %d", i, resp.StatusCode)
		}
		if want == 400 && (resp.Header.Get("Content-Type") != "application/problem+json" || !resp.Close || !bytes.Contains(body, []byte(`"status":400`))) {
			t.Errorf("problem: %v %s", resp.Header, body)
		}
	}
	if br.Buffered() > 0 {
		t.Error("something follows the refusal")
	}
	if r.seen.count("bad_request") != 1 {
		t.Error("the refusal was not observed")
	}
}

// TestWhatReachesTheHandler is the table of what a request becomes.
func TestWhatReachesTheHandler(t *testing.T) {
	t.Parallel()
	r := start(t, cleartext(), describe)
	for name, c := range map[string]struct{ octets, want string }{
		"names and values":   {"GET / HTTP/1.1\r\nHost: A.Example:80\r\nX-One:  1 \t\r\nx-two:\r\nX-ONE: 3\r\n", "http1 GET http a.example:80 / ? 0\nx-one: 1\nx-two: \nx-one: 3\n"},
		"query is raw":       {"GET /a?b=%20&c=?/ HTTP/1.1\r\nHost: a\r\n", "http1 GET http a /a ?b=%20&c=?/ 0\n"},
		"hop-by-hop":         {"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, TE\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\nTrailer: x\r\n", "http1 GET http a / ? 0\ntrailer: x\n\n"},
		"underscores":        {"GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1\r\nX-Ok: 1\r\n", "http1 GET http a / ? 0\nx-ok: 1\n"},
		"reserved":           {"GET / HTTP/1.1\r\nHost: a\r\nPostern-Account: root\r\n", "http1 GET http a / ? 0\n"},
		"h2c is ignored":     {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", "http1 GET http a / ? 0\n"},
		"absolute form":      {"GET http://A/b?c HTTP/1.1\r\nHost: a\r\n", "http1 GET http a /b ?c 0\n"},
		"absolute, no path":  {"GET http://a?c HTTP/1.1\r\nHost: a\r\n", "http1 GET http a / ?c 0\n"},
		"IPv6":               {"GET / HTTP/1.1\r\nHost: [::1]:80\r\n", "http1 GET http [::1]:80 / ? 0\n"},
		"obs-text in values": {"GET / HTTP/1.1\r\nHost: a\r\nX: \xe9\r\n", "http1 GET http a / ? 0\nx: \xe9\n"},
		"content":            {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "http1 POST http a / ? 5\n\nhello"},
		"chunks":             {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nhe\r\n3;a=\"b\"\r\nllo\r\n0\r\nX-B: 1\r\nX-A: 2\r\nAuthorization: no\r\nX_C: no\r\n\r\n", "http1 POST http a / ? -1\n\nhello\nx-b: 1\nx-a: 2"},
		"unknown method":     {"BREW /pot HTTP/1.1\r\nHost: a\r\n", "http1 BREW http a /pot ? 0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &rig{t: t, addr: r.addr}
			conn := r.raw()
			octets := c.octets
			if !strings.Contains(octets, "\r\n\r\n") {
				octets += "\r\n"
			}
			_, _ = io.WriteString(conn, octets)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			if got := string(body); strings.TrimRight(got, "\n") != strings.TrimRight(c.want, "\n") {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// TestPaths refuses on every protocol what has no one canonical path, and shows the handler the canonical one.
func TestPaths(t *testing.T) {
	t.Parallel()
	r := start(t, secure(), describe)
	r.each(t, func(t *testing.T, c *http.Client, _ exchange.Protocol) {
		for target, want := range map[string]string{
			"/a/./b/../c": " /a/c ", "/%61": " /a ", "/a%2fb": "", "/a%5cb": "", "/a%00": "", "/%2e%2e/a": "", "/a?b=%2f": " /a ?b=%2f",
		} {
			req, _ := http.NewRequest("GET", r.url("/"), nil)
			path, query, _ := strings.Cut(target, "?")
			req.URL.Opaque, req.URL.RawQuery = path, query
			resp, err := c.Do(req)
			if err != nil {
				t.Errorf("%s: %v", target, err)
				continue
			}
			got := text(t, resp)
			if want == "" && resp.StatusCode != 400 && !strings.Contains(got, " /a ") || want != "" && !strings.Contains(got, want) {
				t.Errorf("%s: %d %.80q", target, resp.StatusCode, got)
			}
		}
	})
}

// TestSlow closes clients that hold a connection without using it.
func TestSlow(t *testing.T) {
	t.Parallel()
	l := cleartext()
	l.Timeouts.Header, l.Timeouts.Body, l.Timeouts.Idle = 150*time.Millisecond, 150*time.Millisecond, 200*time.Millisecond
	errs := make(chan error, 10)
	r := start(t, l, func(_ context.Context, x *exchange.Exchange) {
		_, err := io.ReadAll(x.Request.Body)
		if err != nil {
			errs <- err
			reply(x, 408, "")
			return
		}
		reply(x, 200, "fine")
	})
	t.Run("nothing sent", func(t *testing.T) {
		if got := r.send(""); got != "" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("slow head", func(t *testing.T) {
		c := r.raw()
		go func() {
			for _, err := io.WriteString(c, "GET / HTTP/1.1\r\n"); err == nil; _, err = io.WriteString(c, "X: 1\r\n") {
				time.Sleep(20 * time.Millisecond)
			}
		}()
		if got := r.rest(c); status(got, 0) != 408 && got != "" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("slow body", func(t *testing.T) {
		for _, octets := range []string{
			"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe",
			"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
			"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5",
		} {
			if got := r.send(octets); status(got, 0) != 408 {
				t.Errorf("got %q", got)
			}
			if err := <-errs; !errors.Is(err, exchange.ErrBodyTimeout) {
				t.Errorf("body: %v", err)
			}
		}
	})
	t.Run("idle", func(t *testing.T) {
		if got := r.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"); status(got, 0) != 200 || status(got, 1) != 0 {
			t.Errorf("got %q", got)
		}
	})
	t.Run("gone", func(t *testing.T) {
		c := r.raw()
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
		_ = c.Close()
		if err := <-errs; !errors.Is(err, exchange.ErrClientGone) {
			t.Errorf("body: %v", err)
		}
	})
}

// TestLongAnswer checks that idle and header timeouts do not count while a handler works, pipelining included.
func TestLongAnswer(t *testing.T) {
	t.Parallel()
	l := cleartext()
	l.Timeouts.Header, l.Timeouts.Idle, l.Timeouts.Body = 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	r := start(t, l, func(ctx context.Context, x *exchange.Exchange) {
		select {
		case <-ctx.Done():
			reply(x, 500, "cut")
		case <-time.After(400 * time.Millisecond):
			reply(x, 200, "fine")
		}
	})
	c := r.raw()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHo")
	time.Sleep(300 * time.Millisecond)
	_, _ = io.WriteString(c, "st: a\r\nConnection: close\r\n\r\n")
	if got := r.rest(c); status(got, 0) != 200 || status(got, 1) != 200 {
		t.Errorf("got %q", got)
	}
}

// TestClientGone ends the handler's context.
func TestClientGone(t *testing.T) {
	t.Parallel()
	done := make(chan struct{}, 1)
	began := make(chan struct{}, 1)
	r := start(t, secure(), func(ctx context.Context, _ *exchange.Exchange) {
		began <- struct{}{}
		<-ctx.Done()
		done <- struct{}{}
	})
	r.each(t, func(t *testing.T, c *http.Client, _ exchange.Protocol) {
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "GET", r.url("/"), nil)
		go func() {
			if resp, err := c.Do(req); err == nil {
				_ = resp.Body.Close()
			}
		}()
		<-began
		cancel()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("the handler was not told")
		}
	})
}

package listener

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// TestProtocols has real clients of all three protocols ask for the same and checks that the handler sees the same.
func TestProtocols(t *testing.T) {
	t.Parallel()
	r := start(t, secure(), describe)
	r.each(t, func(t *testing.T, c *http.Client, p exchange.Protocol) {
		req, _ := http.NewRequest("POST", r.url("/a/b?c=d%20e"), strings.NewReader("hello"))
		req.Header = http.Header{"User-Agent": {"test"}, "X-Key": {"k"}, "X_Key": {"no"}, "Postern-Account": {"no"}, "Accept-Encoding": {"identity"}, "Cookie": {"a=1", "b=2"}}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got := text(t, resp)
		want := p.String() + " POST https " + r.addr + " /a/b ?c=d%20e 5\n"
		if !strings.HasPrefix(got, want) || !strings.Contains(got, "x-key: k\n") || !strings.HasSuffix(got, "\nhello") || strings.Contains(got, "no") {
			t.Errorf("got %q, want %q...", got, want)
		}
		wantAlt := fmt.Sprintf(`h3=":%d"; ma=86400`, r.set.Addresses()["web"].Port())
		if alt := resp.Header.Get("Alt-Svc"); p != exchange.HTTP3 && alt != wantAlt || p == exchange.HTTP3 && alt != "" {
			t.Errorf("alt-svc: %q", alt)
		}
		resp, got = get(t, c, r.url("/x"))
		if !strings.HasPrefix(got, p.String()+" GET https "+r.addr+" /x ? 0\n") {
			t.Errorf("without body: %q", got)
		}
		if resp.ContentLength != int64(len(got)) {
			t.Errorf("length: %d", resp.ContentLength)
		}
	})
}

// TestCleartextHTTP2 speaks HTTP/2 with prior knowledge on the port that also speaks HTTP/1.1.
func TestCleartextHTTP2(t *testing.T) {
	t.Parallel()
	r := start(t, cleartext(), describe)
	r.each(t, func(t *testing.T, c *http.Client, p exchange.Protocol) {
		if _, got := get(t, c, r.url("/x")); !strings.HasPrefix(got, p.String()+" GET http ") {
			t.Errorf("got %q", got)
		}
	})
}

// TestReplies is what becomes of replies of every kind.
func TestReplies(t *testing.T) {
	t.Parallel()
	handlers := map[string]Handler{
		"/length": func(_ context.Context, x *exchange.Exchange) { reply(x, 201, "hello") },
		"/stream": func(_ context.Context, x *exchange.Exchange) {
			_ = x.Reply.Head(200, exchange.Header{{Name: "x-a", Value: "1"}, {Name: "x-a", Value: "2"}}, -1)
			for range 3 {
				_, _ = x.Reply.Write([]byte("part "))
				_ = x.Reply.Flush()
			}
			_ = x.Reply.End(exchange.Header{{Name: "x-sum", Value: "3"}, {Name: "content-length", Value: "7"}})
		},
		"/trailer-only": func(_ context.Context, x *exchange.Exchange) {
			_ = x.Reply.Head(200, nil, -1)
			_ = x.Reply.End(exchange.Header{{Name: "grpc-status", Value: "5"}})
		},
		"/none": func(_ context.Context, x *exchange.Exchange) { _ = x.Reply.Head(204, nil, -1); _ = x.Reply.End(nil) },
		"/modified": func(_ context.Context, x *exchange.Exchange) {
			_ = x.Reply.Head(304, exchange.Header{{Name: "etag", Value: `"a"`}}, -1)
			_ = x.Reply.End(nil)
		},
		"/hop": func(_ context.Context, x *exchange.Exchange) {
			_ = x.Reply.Head(200, exchange.Header{{Name: "connection", Value: "x-a"}, {Name: "keep-alive", Value: "1"}, {Name: "transfer-encoding", Value: "gzip"}, {Name: "content-length", Value: "99"}}, 2)
			_, _ = x.Reply.Write([]byte("ok"))
			_ = x.Reply.End(nil)
		},
		"/split": func(_ context.Context, x *exchange.Exchange) {
			if x.Reply.Head(200, exchange.Header{{Name: "x", Value: "a\r\nSet-Cookie: b"}}, 0) == nil {
				_ = x.Reply.End(nil)
				return
			}
			reply(x, 200, "refused")
		},
		"/interim": func(_ context.Context, x *exchange.Exchange) {
			_ = x.Reply.Interim(103, exchange.Header{{Name: "link", Value: "</a>"}})
			reply(x, 200, "final")
		},
		"/nothing": func(context.Context, *exchange.Exchange) {},
		"/panic":   func(context.Context, *exchange.Exchange) { panic("boom") },
		"/abort": func(_ context.Context, x *exchange.Exchange) {
			_ = x.Reply.Head(200, nil, -1)
			_, _ = x.Reply.Write([]byte("half"))
			_ = x.Reply.Flush()
			x.Reply.Abort()
		},
		"/abort-length": func(_ context.Context, x *exchange.Exchange) {
			_ = x.Reply.Head(200, nil, 5)
			_, _ = x.Reply.Write([]byte("hello"))
			x.Reply.Abort()
		},
		"/short": func(_ context.Context, x *exchange.Exchange) {
			_ = x.Reply.Head(200, nil, 10)
			_, _ = x.Reply.Write([]byte("hello"))
			_ = x.Reply.End(nil)
		},
		"/unended": func(_ context.Context, x *exchange.Exchange) {
			_ = x.Reply.Head(200, nil, -1)
			_, _ = x.Reply.Write([]byte("hello"))
		},
		"/panic-late": func(_ context.Context, x *exchange.Exchange) {
			_ = x.Reply.Head(200, nil, -1)
			_, _ = x.Reply.Write([]byte("hello"))
			_ = x.Reply.Flush()
			panic("late")
		},
		"/big": func(_ context.Context, x *exchange.Exchange) {
			_ = x.Reply.Head(200, nil, -1)
			_, _ = x.Reply.Write(bytes.Repeat([]byte("0123456789abcdef"), 64<<10))
			_ = x.Reply.End(nil)
		},
	}
	r := start(t, secure(), func(ctx context.Context, x *exchange.Exchange) { handlers[x.Request.Path](ctx, x) })
	r.each(t, func(t *testing.T, c *http.Client, p exchange.Protocol) {
		for path, want := range map[string]struct {
			status int
			body   string
			length int64
		}{
			"/length": {201, "hello", 5}, "/stream": {200, "part part part ", -1}, "/none": {204, "", 0}, "/modified": {304, "", 0},
			"/hop": {200, "ok", 2}, "/split": {200, "refused", 7}, "/interim": {200, "final", 5}, "/trailer-only": {200, "", -1},
			"/big": {200, strings.Repeat("0123456789abcdef", 64<<10), -1},
		} {
			resp, body := get(t, c, r.url(path))
			if resp.StatusCode != want.status || body != want.body {
				t.Errorf("%s: %d %.50q", path, resp.StatusCode, body)
			}
			if want.length != -1 && resp.ContentLength > 0 && resp.ContentLength != want.length {
				t.Errorf("%s: length %d", path, resp.ContentLength)
			}
			if ct := resp.Header["Content-Type"]; len(ct) > 0 && ct[0] != "text/plain" {
				t.Errorf("%s: guessed content type %q", path, ct)
			}
			switch path {
			case "/stream":
				if resp.Trailer.Get("X-Sum") != "3" || resp.Trailer.Get("Content-Length") != "" || len(resp.Header["X-A"]) != 2 {
					t.Errorf("%s: trailer %v, header %v", path, resp.Trailer, resp.Header)
				}
			case "/trailer-only":
				if resp.Trailer.Get("Grpc-Status") != "5" {
					t.Errorf("%s: trailer %v", path, resp.Trailer)
				}
			case "/hop":
				if resp.Header.Get("Keep-Alive") != "" || resp.Header.Get("X") != "" {
					t.Errorf("%s: header %v", path, resp.Header)
				}
			case "/split":
				if resp.Header.Get("Set-Cookie") != "" {
					t.Errorf("%s: header %v", path, resp.Header)
				}
			}
		}
		for _, path := range []string{"/nothing", "/panic"} {
			if resp, body := get(t, c, r.url(path)); resp.StatusCode != 500 || !strings.Contains(body, "internal_error") || strings.Contains(body, "boom") {
				t.Errorf("%s: %d %q", path, resp.StatusCode, body)
			}
		}
		for _, path := range []string{"/abort", "/abort-length", "/short", "/unended", "/panic-late"} {
			if resp, err := c.Get(r.url(path)); err == nil {
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err == nil {
					t.Errorf("%s: %q looks whole", path, body)
				}
			}
		}
		for _, path := range []string{"/length", "/stream", "/none"} {
			resp, err := c.Head(r.url(path))
			if err != nil {
				t.Errorf("HEAD %s: %v", path, err)
				continue
			}
			if body := text(t, resp); body != "" || path == "/length" && resp.ContentLength != 5 {
				t.Errorf("HEAD %s: length %d, %q", path, resp.ContentLength, body)
			}
		}
		var early []string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			early = append(early, fmt.Sprint(code, h.Get("Link")))
			return nil
		}}
		req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", r.url("/interim"), nil)
		if resp, err := c.Do(req); err != nil || text(t, resp) != "final" || resp.Header.Get("Link") != "" || len(early) != 1 || early[0] != "103</a>" {
			t.Errorf("interim: %v %q", err, early)
		}
		if _, body := get(t, c, r.url("/length")); body != "hello" {
			t.Errorf("afterwards: %q", body)
		}
		_ = p
	})
	if log := r.log.String(); strings.Count(log, "handler panicked") != 6 || !strings.Contains(log, "boom") || !strings.Contains(log, "protocol_test.go") {
		t.Errorf("panics are not logged with their stack: %.500s", log)
	}
}

// TestHTTP10 checks replies to a client of HTTP/1.0.
func TestHTTP10(t *testing.T) {
	t.Parallel()
	r := start(t, cleartext(), func(_ context.Context, x *exchange.Exchange) {
		_ = x.Reply.Interim(103, nil)
		length := int64(-1)
		if x.Request.Path == "/length" {
			length = 4
		}
		_ = x.Reply.Head(200, nil, length)
		_, _ = x.Reply.Write([]byte("half"))
		_ = x.Reply.Flush()
		if x.Request.Path == "/abort" {
			x.Reply.Abort()
			return
		}
		_ = x.Reply.End(exchange.Header{{Name: "x", Value: "1"}})
	})
	if got := r.send("GET /stream HTTP/1.0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.0 200") || !strings.HasSuffix(got, "\r\n\r\nhalf") {
		t.Errorf("got %q", got)
	}
	if got := r.send("GET /length HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /length HTTP/1.0\r\n\r\n"); strings.Count(got, "half") != 2 || !strings.Contains(got, "keep-alive") {
		t.Errorf("got %q", got)
	}
	c := r.raw()
	_, _ = io.WriteString(c, "GET /abort HTTP/1.0\r\n\r\n")
	if b, err := io.ReadAll(c); err == nil {
		t.Errorf("a cut reply that the end of the connection delimits looks whole: %q", b)
	}
}

// TestStreamingBothWays has client and handler answer each other line by line in one exchange, and trailers go both
// ways.
func TestStreamingBothWays(t *testing.T) {
	t.Parallel()
	r := start(t, secure(), func(_ context.Context, x *exchange.Exchange) {
		_ = x.Reply.Head(200, nil, -1)
		_ = x.Reply.Flush()
		if x.Request.Body.Trailer() != nil {
			t.Error("trailer before the end")
		}
		buf := make([]byte, 100)
		for {
			n, err := x.Request.Body.Read(buf)
			if n > 0 {
				_, _ = x.Reply.Write(bytes.ToUpper(buf[:n]))
				_ = x.Reply.Flush()
			}
			if exchange.AtEnd(err) {
				break
			}
			if err != nil {
				t.Errorf("body: %v", err)
				x.Reply.Abort()
				return
			}
		}
		_ = x.Reply.End(exchange.Header{{Name: "x-echo", Value: x.Request.Body.Trailer().Get("x-check")}})
	})
	r.each(t, func(t *testing.T, c *http.Client, _ exchange.Protocol) {
		pr, pw := io.Pipe()
		req, _ := http.NewRequest("POST", r.url("/"), pr)
		req.Trailer = http.Header{"X-Check": nil}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		br := bufio.NewReader(resp.Body)
		for i := range 5 {
			line := "line " + strconv.Itoa(i) + "\n"
			_, _ = io.WriteString(pw, line)
			if got, err := br.ReadString('\n'); err != nil || got != strings.ToUpper(line) {
				t.Fatalf("got %q, %v", got, err)
			}
		}
		req.Trailer.Set("X-Check", "42")
		_ = pw.Close()
		if rest, err := io.ReadAll(br); err != nil || len(rest) > 0 || resp.Trailer.Get("X-Echo") != "42" {
			t.Errorf("end: %q %v, trailer %v", rest, err, resp.Trailer)
		}
	})
}

// TestExpectContinue sends the body only when it is asked for.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	r := start(t, cleartext(), func(_ context.Context, x *exchange.Exchange) {
		if x.Request.Path == "/no" {
			reply(x, 403, "no")
			return
		}
		b, _ := io.ReadAll(x.Request.Body)
		reply(x, 200, string(b))
	})
	c := r.raw()
	_, _ = io.WriteString(c, "POST /yes HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	br := bufio.NewReader(c)
	if line, err := br.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("got %q %v", line, err)
	}
	_, _ = br.ReadString('\n')
	_, _ = io.WriteString(c, "hello")
	if resp, err := http.ReadResponse(br, nil); err != nil || text(t, resp) != "hello" {
		t.Errorf("got %v", err)
	}
	if got := r.send("POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"); status(got, 0) != 403 {
		t.Errorf("got %q", got)
	}
}

// TestLimits meets every limit on every protocol.
func TestLimits(t *testing.T) {
	t.Parallel()
	l := secure()
	l.Limits.Header, l.Limits.Headers, l.Limits.Body = 2000, 20, 100
	l.Timeouts.Body = 150 * time.Millisecond
	errs := make(chan error, 20)
	r := start(t, l, func(_ context.Context, x *exchange.Exchange) {
		_, err := io.ReadAll(x.Request.Body)
		if err != nil {
			errs <- err
			reply(x, 413, "")
			return
		}
		reply(x, 200, "fine")
	})
	r.each(t, func(t *testing.T, c *http.Client, p exchange.Protocol) {
		req, _ := http.NewRequest("GET", r.url("/"), nil)
		req.Header.Set("X", strings.Repeat("a", 2000))
		if resp, err := c.Do(req); err != nil {
			t.Errorf("large header: %v", err)
		} else if text(t, resp); resp.StatusCode != 431 {
			t.Errorf("large header: %d", resp.StatusCode)
		}
		req, _ = http.NewRequest("GET", r.url("/"), nil)
		for i := range 21 {
			req.Header.Set("X-"+strconv.Itoa(i), "a")
		}
		if resp, err := c.Do(req); err != nil {
			t.Errorf("many headers: %v", err)
		} else if text(t, resp); resp.StatusCode != 431 {
			t.Errorf("many headers: %d", resp.StatusCode)
		}
		for name, body := range map[string]io.Reader{"known": strings.NewReader(strings.Repeat("a", 101)), "unknown": io.MultiReader(strings.NewReader(strings.Repeat("a", 101)))} {
			resp, err := c.Post(r.url("/"), "text/plain", body)
			if err != nil {
				t.Errorf("body of %s length: %v", name, err)
				continue
			}
			text(t, resp)
			if err := <-errs; resp.StatusCode != 413 || !errors.Is(err, exchange.ErrBodyTooLarge) {
				t.Errorf("body of %s length: %d, %v", name, resp.StatusCode, err)
			}
		}
		if resp, err := c.Post(r.url("/"), "text/plain", strings.NewReader(strings.Repeat("a", 100))); err != nil || text(t, resp) != "fine" {
			t.Errorf("body as large as allowed: %v", err)
		}
		pr, pw := io.Pipe()
		go func() { _, _ = io.WriteString(pw, "slow") }()
		if resp, err := c.Post(r.url("/"), "text/plain", pr); err == nil {
			_ = resp.Body.Close()
		}
		_ = pw.Close()
		if err := <-errs; !errors.Is(err, exchange.ErrBodyTimeout) {
			t.Errorf("slow body: %v", err)
		}
	})
}

// TestBodyClose makes a blocked read return.
func TestBodyClose(t *testing.T) {
	t.Parallel()
	r := start(t, secure(), func(_ context.Context, x *exchange.Exchange) {
		read := make(chan error, 1)
		go func() {
			_, err := io.ReadAll(x.Request.Body)
			read <- err
		}()
		time.Sleep(20 * time.Millisecond)
		_ = x.Request.Body.Close()
		select {
		case err := <-read:
			if err == nil {
				t.Error("a closed body looks whole")
			}
		case <-time.After(5 * time.Second):
			t.Error("the read stays blocked")
		}
		reply(x, 200, "fine")
	})
	r.each(t, func(t *testing.T, c *http.Client, _ exchange.Protocol) {
		pr, pw := io.Pipe()
		defer func() { _ = pw.Close() }()
		resp, err := c.Post(r.url("/"), "text/plain", pr)
		if err != nil {
			t.Fatal(err)
		}
		if got := text(t, resp); got != "fine" {
			t.Errorf("got %q", got)
		}
	})
}

// TestSlowReader cuts a client that takes nothing of the reply, on every protocol.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	l := secure()
	l.Timeouts.Write = 200 * time.Millisecond
	errs := make(chan error, 1)
	r := start(t, l, func(_ context.Context, x *exchange.Exchange) {
		_ = x.Reply.Head(200, nil, -1)
		block := make([]byte, 256<<10)
		for range 4000 {
			if _, err := x.Reply.Write(block); err != nil {
				errs <- err
				return
			}
		}
		errs <- nil
	})
	r.each(t, func(t *testing.T, c *http.Client, _ exchange.Protocol) {
		resp, err := c.Get(r.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		select {
		case err := <-errs:
			if !errors.Is(err, exchange.ErrClientGone) {
				t.Errorf("write: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the handler is stuck")
		}
	})
}

// TestBrokenBodies tells a client that sends nonsense from one that is gone, on HTTP/2 and 3.
func TestBrokenBodies(t *testing.T) {
	t.Parallel()
	errs := make(chan error, 1)
	r := start(t, secure(), func(_ context.Context, x *exchange.Exchange) {
		_, err := io.ReadAll(x.Request.Body)
		errs <- err
		reply(x, 400, "")
	})
	for _, p := range []exchange.Protocol{exchange.HTTP2, exchange.HTTP3} {
		c := r.client(p)
		ctx, cancel := context.WithCancel(t.Context())
		pr, pw := io.Pipe()
		req, _ := http.NewRequestWithContext(ctx, "POST", r.url("/"), pr)
		go func() {
			_, _ = io.WriteString(pw, "half")
			time.Sleep(50 * time.Millisecond)
			cancel()
		}()
		if resp, err := c.Do(req); err == nil {
			_ = resp.Body.Close()
		}
		if err := <-errs; !errors.Is(err, exchange.ErrClientGone) {
			t.Errorf("%v, cancelled: %v", p, err)
		}
	}
	h := newRawHTTP2(t, r)
	h.request(1, false, ":method", "POST", ":scheme", "https", ":path", "/", ":authority", "a", "content-length", "10")
	_ = h.framer.WriteData(1, true, []byte("short"))
	if err := <-errs; !errors.Is(err, exchange.ErrClientBody) {
		t.Errorf("content-length: %v", err)
	}
}

// rawHTTP2 writes what no client library would.
type rawHTTP2 struct {
	t      *testing.T
	framer *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
	dec    *hpack.Decoder
}

func newRawHTTP2(t *testing.T, r *rig) *rawHTTP2 {
	t.Helper()
	c := r.tlsDial("h2")
	h := &rawHTTP2{t: t, framer: http2.NewFramer(c, c), dec: hpack.NewDecoder(4096, nil)}
	h.enc = hpack.NewEncoder(&h.block)
	_, _ = io.WriteString(c, http2.ClientPreface)
	_ = h.framer.WriteSettings()
	return h
}

func (h *rawHTTP2) request(id uint32, end bool, fields ...string) {
	h.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = h.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.block.Bytes(), EndHeaders: true, EndStream: end})
}

// answer returns the status of a stream, or "reset", or "gone".
func (h *rawHTTP2) answer(id uint32) string {
	for {
		f, err := h.framer.ReadFrame()
		if err != nil {
			return "gone"
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			fields, _ := h.dec.DecodeFull(f.HeaderBlockFragment())
			if f.StreamID == id && len(fields) > 0 {
				return fields[0].Value
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				return "reset"
			}
		case *http2.GoAwayFrame:
			return "goaway"
		}
	}
}

// TestHTTP2Attacks refuses what the standard server lets through.
func TestHTTP2Attacks(t *testing.T) {
	t.Parallel()
	r := start(t, secure(), describe)
	ok := []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a"}
	for name, c := range map[string]struct {
		fields []string
		want   string
	}{
		"fine":                        {ok, "200"},
		"te: trailers":                {append(ok[:8:8], "te", "trailers"), "200"},
		"te: gzip":                    {append(ok[:8:8], "te", "gzip"), "400"},
		"connection":                  {append(ok[:8:8], "connection", "close"), "400"},
		"keep-alive":                  {append(ok[:8:8], "keep-alive", "1"), "400"},
		"proxy-connection":            {append(ok[:8:8], "proxy-connection", "close"), "400"},
		"transfer-encoding":           {append(ok[:8:8], "transfer-encoding", "chunked"), "400"},
		"upgrade":                     {append(ok[:8:8], "upgrade", "websocket"), "400"},
		"host agrees":                 {append(ok[:8:8], "host", "A"), "200"},
		"host disagrees":              {append(ok[:8:8], "host", "b"), "400"},
		"two hosts":                   {append(ok[:8:8], "host", "a", "host", "a"), "400"},
		"no authority":                {[]string{":method", "GET", ":scheme", "https", ":path", "/", "host", "a"}, "200"},
		"no host at all":              {ok[:6], "400"},
		"authority with user":         {[]string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "u@a"}, "400"},
		"two content-lengths":         {append(ok[:8:8], "content-length", "0", "content-length", "0"), "400"},
		"content-length without body": {append(ok[:8:8], "content-length", "5"), "400"},
		"signed content-length":       {append(ok[:8:8], "content-length", "+0"), "400"},
		"CONNECT":                     {[]string{":method", "CONNECT", ":authority", "a:443"}, "501"},
		"asterisk":                    {[]string{":method", "OPTIONS", ":scheme", "https", ":path", "*", ":authority", "a"}, "400"},
		"fragment":                    {[]string{":method", "GET", ":scheme", "https", ":path", "/a#b", ":authority", "a"}, "400"},
		"unknown expectation":         {append(ok[:8:8], "expect", "x"), "417"},
		"absolute path":               {[]string{":method", "GET", ":scheme", "https", ":path", "http://b/", ":authority", "a"}, "400"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newRawHTTP2(t, &rig{t: t, addr: r.addr, dir: r.dir})
			h.request(1, true, c.fields...)
			if got := h.answer(1); got != c.want && !(c.want == "400" && got == "reset") {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestRequestsPerConnection ends a connection kindly after its share.
func TestRequestsPerConnection(t *testing.T) {
	t.Parallel()
	l := secure()
	l.Limits.Requests = 3
	r := start(t, l, func(_ context.Context, x *exchange.Exchange) { reply(x, 200, x.Request.Remote.String()) })
	for _, p := range []exchange.Protocol{exchange.HTTP1, exchange.HTTP2} {
		c := r.client(p)
		connections := map[string]int{}
		for range 10 {
			_, body := get(t, c, r.url("/"))
			connections[body]++
		}
		if len(connections) < 4 {
			t.Errorf("%v: %v", p, connections)
		}
		for _, n := range connections {
			if n > 3 {
				t.Errorf("%v: %v", p, connections)
			}
		}
	}
}

// TestConnections closes connections above the limit at once and takes new ones when there is room again.
func TestConnections(t *testing.T) {
	t.Parallel()
	l := cleartext()
	l.Limits.Connections = 2
	r := start(t, l, describe)
	a, b := r.raw(), r.raw()
	eventually(t, "two connections", func() bool { return r.set.doors[doorKey(l)].open.Load() == 2 })
	if got := r.send(""); got != "" {
		t.Errorf("got %q", got)
	}
	if r.seen.count("connections") != 1 {
		t.Error("not observed")
	}
	_ = a.Close()
	eventually(t, "room", func() bool { return r.set.doors[doorKey(l)].open.Load() == 1 })
	if got := r.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); status(got, 0) != 200 {
		t.Errorf("got %q", got)
	}
	_ = b.Close()
}

// TestWebSocket upgrades a real client, and does not lose what it sent early.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]func() *rigConfig{"cleartext": cleartextRig, "tls": secureRig} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, l().cfg, echoUpgrade)
			scheme, hc := "ws://", r.client(exchange.HTTP1)
			if r.cfg.TLS != nil {
				scheme = "wss://"
			}
			ws, _, err := websocket.Dial(t.Context(), scheme+r.addr+"/ws", &websocket.DialOptions{HTTPClient: hc})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = ws.CloseNow() }()
			for _, m := range []string{"hello", strings.Repeat("x", 20000)} {
				if err := ws.Write(t.Context(), websocket.MessageText, []byte(m)); err != nil {
					t.Fatal(err)
				}
				if _, got, err := ws.Read(t.Context()); err != nil || string(got) != m {
					t.Fatalf("got %.20q, %v", got, err)
				}
			}
			if _, got := get(t, hc, r.url("/plain")); got != "no" {
				t.Errorf("without upgrade: %q", got)
			}
		})
	}
	t.Run("early octets", func(t *testing.T) {
		t.Parallel()
		r := start(t, cleartext(), func(_ context.Context, x *exchange.Exchange) {
			rw, err := x.Reply.Upgrade(nil)
			if err != nil {
				t.Error(err)
				return
			}
			buf := make([]byte, 5)
			_, _ = io.ReadFull(rw, buf)
			_, _ = rw.Write(bytes.ToUpper(buf))
		})
		got := r.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\nhello")
		if want := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nHELLO"; got != want {
			t.Errorf("got %q", got)
		}
	})
	t.Run("not taken", func(t *testing.T) {
		t.Parallel()
		r := start(t, cleartext(), describe)
		got := r.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
		if status(got, 0) != 200 || status(got, 1) != 0 {
			t.Errorf("got %q", got)
		}
	})
	t.Run("http3", func(t *testing.T) {
		t.Parallel()
		r := start(t, secure(), echoUpgradeRaw)
		tr := &http3.Transport{TLSClientConfig: r.roots()}
		defer func() { _ = tr.Close() }()
		pr, pw := io.Pipe()
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodConnect, r.url("/ws"), pr)
		req.Proto = "websocket"
		go func() { _, _ = io.WriteString(pw, "hello") }()
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 5)
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != "HELLO" || resp.StatusCode != 200 {
			t.Errorf("%d %q %v", resp.StatusCode, buf, err)
		}
		_ = pw.Close()
	})
}

func echoUpgradeRaw(_ context.Context, x *exchange.Exchange) {
	if x.Request.Method != "GET" || x.Request.Upgrade != "websocket" || x.Request.Header.Get("sec-websocket-key") == "" {
		reply(x, 400, "not as it should be")
		return
	}
	rw, err := x.Reply.Upgrade(nil)
	if err != nil {
		return
	}
	buf := make([]byte, 5)
	_, _ = io.ReadFull(rw, buf)
	_, _ = rw.Write(bytes.ToUpper(buf))
}

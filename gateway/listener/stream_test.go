package listener

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/http2"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// TestExtendedConnect carries a WebSocket over HTTP/2 (RFC 8441), with a client library.
func TestExtendedConnect(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]*rigConfig{"cleartext": cleartextRig(), "tls": secureRig()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, cfg.cfg, func(ctx context.Context, x *exchange.Exchange) {
				if x.Request.Path == "/refused" {
					reply(x, 403, "no")
					return
				}
				echoUpgradeRaw(ctx, x)
			})
			tr := &http2.Transport{AllowHTTP: true} //nolint:staticcheck // the standard library's takes no extended CONNECT
			if cfg.cfg.TLS != nil {
				tr.TLSClientConfig = r.roots() //nolint:staticcheck // the same
			} else {
				tr.DialTLSContext = func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) { //nolint:staticcheck // the same
					return new(net.Dialer).DialContext(ctx, network, addr)
				}
			}
			t.Cleanup(tr.CloseIdleConnections) //nolint:staticcheck // the same
			connect := func(path string, body io.Reader) *http.Response {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, r.url(path), body)
				if err != nil {
					t.Fatal(err)
				}
				req.Header[":protocol"] = []string{"websocket"}
				resp, err := tr.RoundTrip(req) //nolint:staticcheck // the same
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = resp.Body.Close() })
				return resp
			}
			for range 3 { // on the same connection
				pr, pw := io.Pipe()
				go func() { _, _ = io.WriteString(pw, "hello") }()
				resp := connect("/ws?a=b", pr)
				if b, err := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(b) != "HELLO" || err != nil {
					t.Errorf("%d %q %v", resp.StatusCode, b, err)
				}
				if resp.ContentLength > 0 || resp.Header.Get("Sec-Websocket-Accept") != "" {
					t.Errorf("head: %v", resp.Header)
				}
				_ = pw.Close()
			}
			if resp := connect("/refused", strings.NewReader("")); resp.StatusCode != 403 || text(t, resp) != "no" {
				t.Errorf("refused: %d", resp.StatusCode)
			}
		})
	}
	t.Run("settings", func(t *testing.T) {
		t.Parallel()
		h := newRawHTTP2(t, start(t, secure(), describe))
		f, err := h.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		s, ok := f.(*http2.SettingsFrame)
		if !ok {
			t.Fatalf("first came %v", f)
		}
		if v, _ := s.Value(http2.SettingEnableConnectProtocol); v != 1 {
			t.Error("the server does not say that it takes extended CONNECT")
		}
	})
}

// TestConnectRules refuses what is half an extended CONNECT.
func TestConnectRules(t *testing.T) {
	t.Parallel()
	var reached atomic.Int64
	r := start(t, secure(), func(_ context.Context, x *exchange.Exchange) {
		reached.Add(1)
		reply(x, 200, "")
	})
	for name, c := range map[string]struct {
		fields []string
		want   string
	}{
		"another protocol":   {[]string{":method", "CONNECT", ":scheme", "https", ":path", "/", ":authority", "a", ":protocol", "connect-udp"}, "501"},
		"not CONNECT":        {[]string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a", ":protocol", "websocket"}, "reset"},
		"without path":       {[]string{":method", "CONNECT", ":scheme", "https", ":authority", "a", ":protocol", "websocket"}, "reset"},
		"without scheme":     {[]string{":method", "CONNECT", ":path", "/", ":authority", "a", ":protocol", "websocket"}, "reset"},
		"plain with path":    {[]string{":method", "CONNECT", ":scheme", "https", ":path", "/", ":authority", "a"}, "reset"},
		"empty protocol":     {[]string{":method", "CONNECT", ":scheme", "https", ":path", "/", ":authority", "a", ":protocol", ""}, "reset"},
		"unknown scheme":     {[]string{":method", "GET", ":scheme", "ftp", ":path", "/", ":authority", "a"}, "reset"},
		"space before value": {[]string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a", "x", " a"}, "reset"},
		"tab after value":    {[]string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a", "x", "a\t"}, "reset"},
		"line in value":      {[]string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a", "x", "a\r\nb: c"}, "reset"},
		"line in path":       {[]string{":method", "GET", ":scheme", "https", ":path", "/ HTTP/1.1\r\nHost: b", ":authority", "a"}, "reset"},
		"space in name":      {[]string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a", "x y", "a"}, "reset"},
		"colon in name":      {[]string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a", "x:", "a"}, "reset"},
		"empty name":         {[]string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a", "", "a"}, "reset"},
		"space in path":      {[]string{":method", "GET", ":scheme", "https", ":path", "/a b", ":authority", "a"}, "400"},
		"two authorities":    {[]string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a", ":authority", "a"}, "reset"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newRawHTTP2(t, &rig{t: t, addr: r.addr, dir: r.dir})
			h.request(1, true, c.fields...)
			if got := h.answer(1); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			_ = h.get(3)
			if got := h.answer(3); got != "200" {
				t.Errorf("the next stream: %s", got)
			}
		})
	}
	t.Cleanup(func() {
		if n := reached.Load(); n != 16 {
			t.Errorf("%d requests were served, want 16", n)
		}
	})
}

// TestTrailers passes trailer sections that nothing announced, in order, and none that could mislead.
func TestTrailers(t *testing.T) {
	t.Parallel()
	r := start(t, secure(), describe)
	h := newRawHTTP2(t, r)
	_ = h.open(1)
	_ = h.framer.WriteData(1, false, []byte("hello"))
	h.request(1, true, "x-b", "1", "x-a", "2", "x-b", "3", "authorization", "evil", "content-length", "7")
	if got := h.body(1); !strings.HasSuffix(got, "\nhello\nx-b: 1\nx-a: 2\nx-b: 3") {
		t.Errorf("got %q", got)
	}
	for name, fields := range map[string][]string{
		"pseudo field": {":path", "/b"}, "connection": {"connection", "x"}, "upper case": {"X-A", "1"},
		"too large": slices.Repeat([]string{"x", strings.Repeat("a", 3000)}, 12),
	} {
		h := newRawHTTP2(t, r)
		_ = h.open(1)
		h.request(1, true, fields...)
		if got := h.answer(1); got != "reset" && got != "400" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// body returns the octets of a stream's reply.
func (h *rawHTTP2) body(id uint32) string {
	var b bytes.Buffer
	for {
		f, err := h.framer.ReadFrame()
		if err != nil {
			return b.String() + " and then " + err.Error()
		}
		if d, ok := f.(*http2.DataFrame); ok && d.StreamID == id {
			b.Write(d.Data())
			if d.StreamEnded() {
				return b.String()
			}
		}
	}
}

// TestContinueOnStreams asks for a body that the client keeps back, when somebody wants it.
func TestContinueOnStreams(t *testing.T) {
	t.Parallel()
	r := start(t, secure(), func(_ context.Context, x *exchange.Exchange) {
		b, _ := io.ReadAll(x.Request.Body)
		reply(x, 200, string(b))
	})
	h := newRawHTTP2(t, r)
	h.request(1, false, ":method", "POST", ":scheme", "https", ":path", "/", ":authority", "a", "expect", "100-continue")
	if got := h.answer(1); got != "100" {
		t.Errorf("got %s", got)
	}
	_ = h.framer.WriteData(1, true, []byte("hello"))
	if got := h.answer(1); got != "200" {
		t.Errorf("got %s", got)
	}
}

// rawHTTP3 sends one request of HTTP/3, octet by octet, and returns the status of the answer or "reset".
func rawHTTP3(t *testing.T, c *quic.Conn, fields ...string) string {
	t.Helper()
	s, err := c.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = s.SetDeadline(time.Now().Add(20 * time.Second))
	// RFC 9204 section 4.5: nothing of a dynamic table, and literal names only.
	block := []byte{0, 0}
	number := func(first byte, bits int, n int) {
		limit := 1<<bits - 1
		if n < limit {
			block = append(block, first|byte(n))
			return
		}
		block = append(block, first|byte(limit))
		for n -= limit; n >= 128; n >>= 7 {
			block = append(block, byte(n)|128)
		}
		block = append(block, byte(n))
	}
	for i := 0; i < len(fields); i += 2 {
		number(0x20, 3, len(fields[i]))
		block = append(block, fields[i]...)
		number(0, 7, len(fields[i+1]))
		block = append(block, fields[i+1]...)
	}
	frame := binary.BigEndian.AppendUint16([]byte{1}, uint16(0x4000|len(block)))
	if _, err := s.Write(append(frame, block...)); err != nil {
		return "reset"
	}
	_ = s.Close()
	got, err := io.ReadAll(s)
	if err != nil || len(got) < 6 {
		return "reset"
	}
	at := 2 // the frame's length has one octet or more
	if got[1]>>6 == 1 {
		at++
	}
	switch field := got[at+2:]; {
	case field[0] == 0xd9:
		return "200"
	case field[0] == 0xff && field[1] == 4:
		return "400"
	case field[0] == 0xff && field[1] == 7:
		return "425"
	default:
		return "another status"
	}
}

// dialQUIC opens a connection that agrees on HTTP/3.
func (r *rig) dialQUIC() *quic.Conn {
	r.t.Helper()
	tc := r.roots()
	tc.NextProtos = []string{"h3"}
	c, err := quic.DialAddr(r.t.Context(), r.addr, tc, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.CloseWithError(0, "") })
	return c
}

// TestHTTP3Attacks is TestHTTP2Attacks for HTTP/3 (RFC 9114 sections 4.1.2, 4.2 and 4.3).
func TestHTTP3Attacks(t *testing.T) {
	t.Parallel()
	r := start(t, secure(), describe)
	ok := []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a"}
	for name, c := range map[string]struct {
		fields []string
		want   string
	}{
		"fine":                {ok, "200"},
		"te: trailers":        {append(ok[:8:8], "te", "trailers"), "200"},
		"te: gzip":            {append(ok[:8:8], "te", "gzip"), "400"},
		"connection":          {append(ok[:8:8], "connection", "close"), "400"},
		"keep-alive":          {append(ok[:8:8], "keep-alive", "1"), "400"},
		"proxy-connection":    {append(ok[:8:8], "proxy-connection", "close"), "400"},
		"transfer-encoding":   {append(ok[:8:8], "transfer-encoding", "chunked"), "400"},
		"upgrade":             {append(ok[:8:8], "upgrade", "websocket"), "400"},
		"host disagrees":      {append(ok[:8:8], "host", "b"), "400"},
		"no host at all":      {ok[:6], "400"},
		"upper case":          {append(ok[:8:8], "X-A", "a"), "400"},
		"line in value":       {append(ok[:8:8], "x", "a\r\nb: c"), "400"},
		"pseudo field later":  {append([]string{"x", "y"}, ok...), "400"},
		"pseudo field twice":  {append(ok[:8:8], ":path", "/b"), "400"},
		"unknown pseudo":      {append(ok[:8:8], ":x", "y"), "400"},
		"two content-lengths": {append(ok[:8:8], "content-length", "0", "content-length", "1"), "400"},
		"absolute path":       {[]string{":method", "GET", ":scheme", "https", ":path", "http://b/", ":authority", "a"}, "400"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := rawHTTP3(t, (&rig{t: t, addr: r.addr, dir: r.dir}).dialQUIC(), c.fields...)
			if got != c.want && !(c.want == "400" && got == "reset") {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

package listener

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// BenchmarkHTTP1 is a small POST and a reply of 1 KiB over an open connection, by a client that costs next to nothing. cpu-ns/op
// is the process's, system calls included.
func BenchmarkHTTP1(b *testing.B) {
	for name, l := range map[string]*config.Listener{"cleartext": cleartext(), "tls": secure()} {
		b.Run(name, func(b *testing.B) {
			l.Limits.Requests = 1 << 30
			text := []byte(strings.Repeat("a", 1<<10))
			header := exchange.Header{{Name: "content-type", Value: "application/json"}}
			r := start(b, l, func(_ context.Context, x *exchange.Exchange) {
				_, _ = io.Copy(io.Discard, x.Request.Body)
				_ = x.Reply.Head(200, header, int64(len(text)))
				_, _ = x.Reply.Write(text)
				_ = x.Reply.End(nil)
			})
			var c net.Conn = r.raw()
			if l.TLS != nil {
				c = r.tlsDial("http/1.1")
			}
			_ = c.SetDeadline(time.Time{})
			request := []byte("POST /v1/chat/completions HTTP/1.1\r\nHost: a.example\r\nUser-Agent: bench\r\nAccept: application/json\r\nContent-Type: application/json\r\n" +
				"Authorization: Bearer sk-0123456789abcdef\r\nContent-Length: 17\r\n\r\n{\"hello\":\"world\"}")
			buf := make([]byte, 8<<10)
			b.ReportAllocs()
			before := processCPU(b)
			for b.Loop() {
				if _, err := c.Write(request); err != nil {
					b.Fatal(err)
				}
				for have, want := 0, -1; have != want; {
					n, err := c.Read(buf[have:])
					if err != nil {
						b.Fatal(err)
					}
					have += n
					if i := bytes.Index(buf[:have], []byte("\r\n\r\n")); want < 0 && i >= 0 {
						want = i + 4 + len(text)
					}
				}
			}
			b.ReportMetric(float64(processCPU(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// processCPU is how long the process has computed so far.
func processCPU(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRequest is one small POST and its reply on an open connection, client included.
func BenchmarkRequest(b *testing.B) {
	for _, p := range all {
		b.Run(p.String(), func(b *testing.B) {
			r := start(b, secure(), func(_ context.Context, x *exchange.Exchange) {
				_, _ = io.Copy(io.Discard, x.Request.Body)
				reply(x, 200, "fine")
			})
			c := r.client(p)
			b.ReportAllocs()
			for b.Loop() {
				resp, err := c.Post(r.url("/"), "application/json", strings.NewReader(`{"hello":"world"}`))
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					b.Fatal(resp.Status)
				}
			}
		})
	}
}

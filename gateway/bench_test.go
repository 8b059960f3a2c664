package main

import (
	"context"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// noReply takes a reply and keeps nothing but its status.
type noReply struct{ status int }

func (*noReply) Interim(int, exchange.Header) error { return nil }
func (r *noReply) Head(status int, _ exchange.Header, _ int64) error {
	r.status = status
	return nil
}
func (*noReply) Write(p []byte) (int, error) { return len(p), nil }
func (*noReply) Flush() error                { return nil }
func (*noReply) End(exchange.Header) error   { return nil }
func (*noReply) Upgrade(exchange.Header) (io.ReadWriteCloser, error) {
	return nil, exchange.ErrNoUpgrade
}
func (*noReply) Abort() {}

// BenchmarkRequest takes requests the whole way behind the listener: no plugin and one on a route with a fixed answer, so
// that the chain is what is measured; and a billed model call through five plugins and six stages to the sandbox provider
// and back, durable intent and settlement included.
func BenchmarkRequest(b *testing.B) {
	files := map[string]string{"policies/bench.hcl": `policy "one" {
  authenticate "apikey" {}
}
`}
	dir := workdir(b, files)
	appendTo(b, dir+"/config.hcl", `
route "bench_none" {
  listener = listener.public
  match    = "GET /bench/none"
  respond {
    status = 200
    body   = "ok"
  }
}
route "bench_one" {
  listener = listener.public
  match    = "GET /bench/one"
  policies = [policy.one]
  respond {
    status = 200
    body   = "ok"
  }
}
`)
	replaceIn(b, dir+"/policies/tenant.hcl", `rate  = "100/s"`, `rate  = "1000000/s"`, "burst = 200", "burst = 1000000")
	n := startIn(b, dir)
	_, key := n.customer(b, "1000000")
	for _, c := range []struct{ name, method, path, body string }{
		{"plugins=0", "GET", "/bench/none", ""},
		{"plugins=1", "GET", "/bench/one", ""},
		{"plugins=5/model", "POST", "/v1/chat/completions", hello},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					reply := &noReply{}
					x := &exchange.Exchange{ID: "bench", Start: time.Now(), Listener: "public", Reply: reply}
					x.Request = exchange.Request{
						Protocol: exchange.HTTP1, Method: c.method, Scheme: "https", Authority: "localhost", Path: c.path,
						Header: exchange.Header{{Name: "authorization", Value: "Bearer " + key}, {Name: "content-type", Value: "application/json"}, {Name: "user-agent", Value: "bench"}},
						Body:   exchange.NewBytes([]byte(c.body)), Length: int64(len(c.body)), Remote: netip.AddrPortFrom(netip.IPv4Unspecified(), 1),
					}
					n.Serve(context.Background(), x)
					if reply.status != 200 {
						b.Errorf("status %d: %+v", reply.status, x.Problem)
						return
					}
				}
			})
		})
	}
}

func appendTo(t testing.TB, path, text string) {
	t.Helper()
	rewrite(t, path, func(old string) string { return old + text })
}

// replaceIn replaces texts of a file; every one must be there.
func replaceIn(t testing.TB, path string, oldnew ...string) {
	t.Helper()
	rewrite(t, path, func(text string) string {
		for i := 0; i < len(oldnew); i += 2 {
			if !strings.Contains(text, oldnew[i]) {
				t.Fatalf("%s does not hold %q", path, oldnew[i])
			}
			text = strings.ReplaceAll(text, oldnew[i], oldnew[i+1])
		}
		return text
	})
}

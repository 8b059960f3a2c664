package listener

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
)

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

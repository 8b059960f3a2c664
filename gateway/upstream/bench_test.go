package upstream

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// brief answers every request at once with 1 KiB.
func brief(t testing.TB) string {
	answer := []byte(fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Mon, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: %d\r\nVary: accept-encoding\r\nX-Request-Id: 0123456789abcdef\r\n\r\n%s", 1024, strings.Repeat("x", 1024)))
	return raw(t, func(_ int, c net.Conn, r *bufio.Reader) {
		_ = c.SetDeadline(time.Time{})
		for {
			for {
				line, err := r.ReadSlice('\n')
				if err != nil {
					return
				}
				if len(line) == 2 {
					break
				}
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	})
}

// exchanger makes exchanges, one after the other, as the proxy does.
func exchanger(t testing.TB, u *Upstream) func() error {
	buf := make([]byte, 32<<10)
	fields := exchange.Header{
		{Name: "accept", Value: "application/json"}, {Name: "user-agent", Value: "bench"}, {Name: "accept-encoding", Value: "gzip"},
		{Name: "via", Value: "1.1 postern"}, {Name: "forwarded", Value: "for=192.0.2.1;host=example.com;proto=http"},
		{Name: "x-forwarded-for", Value: "192.0.2.1"}, {Name: "x-forwarded-proto", Value: "http"}, {Name: "x-forwarded-host", Value: "example.com"},
	}
	interim := func(int, exchange.Header) error { return nil }
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return func() error {
		resp, err := u.RoundTrip(ctx, &Request{Method: "GET", Path: "/v1/items", Query: "page=2", Header: fields, Interim: interim})
		if err != nil {
			return err
		}
		for err == nil {
			_, err = resp.Body.Read(buf)
		}
		if !exchange.AtEnd(err) {
			return err
		}
		return resp.Body.Close()
	}
}

// BenchmarkRoundTrip is one exchange over HTTP/1.1 with a peer that costs next to nothing; cpu-ns is the whole process's.
func BenchmarkRoundTrip(b *testing.B) {
	call := exchanger(b, open(b, config.Upstream{Pool: config.UpstreamPool{Idle: 4}}, brief(b)))
	b.ReportAllocs()
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	for b.Loop() {
		if err := call(); err != nil {
			b.Fatal(err)
		}
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	b.ReportMetric(float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano())/float64(b.N), "cpu-ns/op")
}

// TestAllocations: the request, the attempt, the text of the response's head and the list of its fields.
func TestAllocations(t *testing.T) {
	call := exchanger(t, open(t, config.Upstream{Pool: config.UpstreamPool{Idle: 4}}, brief(t)))
	var failed error
	got := testing.AllocsPerRun(500, func() {
		if err := call(); err != nil {
			failed = err
		}
	})
	if failed != nil {
		t.Fatal(failed)
	}
	if got > 4 && !raceEnabled {
		t.Errorf("%v allocations an exchange, at most 4", got)
	}
}

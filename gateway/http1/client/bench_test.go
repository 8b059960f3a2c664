package client

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// answers listens, and answers whatever has an empty line at its end with the same octets.
func answers(t testing.TB, answer []byte) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); work.Wait() })
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				b := make([]byte, 4096)
				for n := 0; ; {
					m, err := c.Read(b[n:])
					if err != nil {
						return
					}
					if n += m; bytes.HasSuffix(b[:n], []byte("\r\n\r\n")) {
						if _, err := c.Write(answer); err != nil {
							return
						}
						n = 0
					}
				}
			})
		}
	})
	return l.Addr().String()
}

// usual is what an upstream answers, with a body of size octets.
func usual(size int) []byte {
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Mon, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: keep-alive\r\nVary: accept-encoding\r\nCache-Control: no-store\r\nX-Request-Id: 0123456789abcdef\r\n\r\n", size)
	return append([]byte(head), bytes.Repeat([]byte("x"), size)...)
}

var usualFields = exchange.Header{
	{Name: "accept", Value: "application/json"}, {Name: "user-agent", Value: "bench"}, {Name: "accept-encoding", Value: "gzip"},
	{Name: "via", Value: "1.1 postern"}, {Name: "forwarded", Value: "for=192.0.2.1;host=example.com;proto=http"},
	{Name: "x-forwarded-for", Value: "192.0.2.1"}, {Name: "x-forwarded-proto", Value: "http"}, {Name: "x-forwarded-host", Value: "example.com"},
}

// caller makes one exchange and reads all of it into a buffer.
type caller func(buf []byte) error

func withConn(t testing.TB, address string) caller {
	t.Helper()
	raw, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := New(raw)
	t.Cleanup(func() { _ = c.Close() })
	r, resp := &Request{Method: "GET", Path: "/v1/items", Query: "page=2", Host: address, Header: usualFields}, new(Response)
	return func(buf []byte) error {
		if err := c.Do(r, resp); err != nil {
			return err
		}
		for {
			if _, err := resp.Body.Read(buf); exchange.AtEnd(err) {
				break
			} else if err != nil {
				return err
			}
		}
		if !c.End() {
			return errDead
		}
		return nil
	}
}

func withTransport(t testing.TB, address string) caller {
	t.Helper()
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return func(buf []byte) error {
		h := make(http.Header, len(usualFields))
		for _, f := range usualFields {
			h[http.CanonicalHeaderKey(f.Name)] = []string{f.Value}
		}
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+address+"/v1/items?page=2", http.NoBody)
		if err != nil {
			return err
		}
		r.Header = h
		resp, err := transport.RoundTrip(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		for {
			if _, err := resp.Body.Read(buf); exchange.AtEnd(err) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
}

// floor is what the kernel and the scheduler take: one write, and reads until all is there.
func floor(t testing.TB, address string, size int) caller {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	request := []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	return func(buf []byte) error {
		if _, err := c.Write(request); err != nil {
			return err
		}
		for n := 0; n < size; {
			m, err := c.Read(buf)
			if err != nil {
				return err
			}
			n += m
		}
		return nil
	}
}

// BenchmarkExchange compares, in interleaved rounds, the CPU time of the process for an exchange with a peer that costs next
// to nothing: by a Conn, by the standard transport, and by the bare sockets. It reports medians.
func BenchmarkExchange(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			answer := usual(size)
			address := answers(b, answer)
			callers := []struct {
				name string
				call caller
			}{{"conn", withConn(b, address)}, {"transport", withTransport(b, address)}, {"floor", floor(b, address, len(answer))}}
			buf := make([]byte, 32<<10)
			rounds := make([][]float64, len(callers))
			const each = 200
			for range max(b.N/each, 3) {
				for i, c := range callers {
					before := cpu()
					for range each {
						if err := c.call(buf); err != nil {
							b.Fatal(c.name, err)
						}
					}
					rounds[i] = append(rounds[i], float64(cpu()-before)/each)
				}
			}
			for i, c := range callers {
				slices.Sort(rounds[i])
				b.ReportMetric(rounds[i][len(rounds[i])/2], c.name+"-cpu-ns")
				b.ReportMetric(testing.AllocsPerRun(200, func() { _ = c.call(buf) }), c.name+"-allocs")
			}
		})
	}
}

// cpu is the CPU time of the process so far.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestAllocations: an exchange costs the text of the response's head and the list of its fields.
func TestAllocations(t *testing.T) {
	call := withConn(t, answers(t, usual(1<<10)))
	buf := make([]byte, 32<<10)
	var failed error
	got := testing.AllocsPerRun(500, func() {
		if err := call(buf); err != nil {
			failed = err
		}
	})
	if failed != nil {
		t.Fatal(failed)
	}
	if got > 2 && !raceEnabled {
		t.Errorf("%v allocations an exchange, at most 2", got)
	}
}

package http1

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unsafe"

	"github.com/postern-gateway/postern/gateway/caller"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// usual is a head as clients send it.
const usual = "POST /v1/chat/completions HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: openai-node/4.0\r\nAccept: application/json\r\n" +
	"Content-Type: application/json\r\nAuthorization: Bearer sk-0123456789abcdef\r\nAccept-Encoding: gzip\r\nContent-Length: 17\r\n\r\n" + `{"hello":"world"}`

// repeated is a connection on which a client asks the same over and over, until it has asked often enough.
type repeated struct {
	script
	request string
	left    int
	rest    string // of a request that is read in parts
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.rest == "" {
		if r.left--; r.left < 0 {
			return 0, io.EOF
		}
		r.rest = r.request
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *repeated) Write(p []byte) (int, error) { return len(p), nil }

// frugal is a handler that costs nothing: what is left is the engine.
func frugal() func(context.Context, *exchange.Exchange) {
	header := exchange.Header{{Name: "content-type", Value: "application/json"}, {Name: "cache-control", Value: "no-store"}}
	text := []byte(strings.Repeat("a", 1<<10))
	buf := make([]byte, 1<<10)
	return func(_ context.Context, x *exchange.Exchange) {
		for {
			if _, err := x.Request.Body.Read(buf); err != nil {
				break
			}
		}
		_ = x.Reply.Head(200, header, int64(len(text)))
		_, _ = x.Reply.Write(text)
		_ = x.Reply.End(nil)
	}
}

// TestAllocations: a request costs two allocations, whatever it is: its exchange, with body, reply and room for sixteen fields,
// and the text of its head. Neither is reused, as parts of both are kept by others.
func TestAllocations(t *testing.T) {
	for name, request := range map[string]string{
		"usual":    usual,
		"bare":     "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"absolute": "GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
		"chunked":  "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"HEAD":     "HEAD / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
	} {
		const n = 1000
		s := server(frugal(), nil)
		p := &caller.Peer{Connection: generous()}
		perConnection := testing.AllocsPerRun(5, func() {
			s.Conn(&repeated{request: request, left: n}, nil, p).Serve(context.Background())
		})
		if got := perConnection / n; got >= 3 { // a pool that forgets now and then is no third one
			t.Errorf("%s: %.2f allocations a request", name, got)
		}
	}
	if size := unsafe.Sizeof(call{}); size > 2304 {
		t.Errorf("an exchange takes %d octets", size)
	}
}

// BenchmarkEngine is the engine's share of a request: no system calls, no client.
func BenchmarkEngine(b *testing.B) {
	s := server(frugal(), nil)
	b.ReportAllocs()
	s.Conn(&repeated{request: usual, left: b.N}, nil, &caller.Peer{Connection: generous()}).Serve(context.Background())
}

// BenchmarkServers compares with the standard server: the same requests by the same bare client over loopback.
func BenchmarkServers(b *testing.B) {
	b.Run("postern", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = ln.Close() }()
		s := server(frugal(), nil)
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				go s.Conn(conn, nil, &caller.Peer{Connection: generous()}).Serve(context.Background())
			}
		}()
		ask(b, ln.Addr().String())
	})
	b.Run("standard", func(b *testing.B) {
		text := []byte(strings.Repeat("a", 1<<10))
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header()["Content-Type"] = []string{"application/json"}
			w.Header()["Cache-Control"] = []string{"no-store"}
			_, _ = w.Write(text)
		}))
		defer s.Close()
		ask(b, s.Listener.Addr().String())
	})
}

// ask sends b.N requests, one after the other.
func ask(b *testing.B, address string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	br := bufio.NewReader(conn)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.WriteString(conn, usual); err != nil {
			b.Fatal(err)
		}
		length := 0
		for {
			line, err := br.ReadSlice('\n')
			if err != nil {
				b.Fatal(err)
			}
			if len(line) == 2 {
				break
			}
			if n := "Content-Length: 1024"; strings.HasPrefix(string(line), n) {
				length = 1024
			}
		}
		if _, err := br.Discard(length); err != nil || length == 0 {
			b.Fatal(err)
		}
	}
}

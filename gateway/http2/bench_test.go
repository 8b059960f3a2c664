package http2

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// BenchmarkRequest is a GET and a reply of 1 KiB over an open connection, served by this package and by the standard
// library, to a client that costs next to nothing.
func BenchmarkRequest(b *testing.B) {
	text := make([]byte, 1<<10)
	for name, serve := range map[string]func(rw net.Conn){
		"ours": func(rw net.Conn) {
			_, _ = io.ReadFull(rw, make([]byte, len(Preface)))
			header := exchange.Header{{Name: "content-type", Value: "application/json"}, {Name: "content-length", Value: "1024"}}
			cfg := usual(func(_ context.Context, s *Stream) {
				_ = s.Head(200, header)
				_, _ = s.Write(text)
				_ = s.CloseWrite(nil)
			})
			New(context.Background(), rw, NewPools(), cfg).Serve()
		},
		"net-http": func(rw net.Conn) {
			protocols := new(http.Protocols)
			protocols.SetUnencryptedHTTP2(true)
			ln := &one{c: make(chan net.Conn, 1), addr: rw.LocalAddr()}
			ln.c <- rw
			server := &http.Server{Protocols: protocols, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Content-Length", "1024")
				_, _ = w.Write(text)
			})}
			_ = server.Serve(ln)
		},
	} {
		b.Run(name, func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = ln.Close() }()
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			rw, err := ln.Accept()
			if err != nil {
				b.Fatal(err)
			}
			go serve(rw)
			out := appendFrame([]byte(Preface), 6, frameSettings, 0, 0)
			out = appendSetting(out, settingWindow, maxWindow)
			out = appendWindow(out, 0, maxWindow-defaultSize)
			var block bytes.Buffer
			enc := hpack.NewEncoder(&block)
			in := make([]byte, 64<<10)
			have := 0
			b.ReportAllocs()
			for id := uint32(1); b.Loop(); id += 2 {
				block.Reset()
				for _, f := range []hpack.HeaderField{
					{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/v1/models"}, {Name: ":authority", Value: "a.example"},
					{Name: "user-agent", Value: "bench"}, {Name: "accept", Value: "application/json"}, {Name: "authorization", Value: "Bearer sk-0123456789abcdef"},
				} {
					_ = enc.WriteField(f)
				}
				out = append(appendFrame(out, block.Len(), frameHeaders, flagEndHeaders|flagEndStream, id), block.Bytes()...)
				if _, err := c.Write(out); err != nil {
					b.Fatal(err)
				}
				out = out[:0]
				for ended := false; !ended; {
					n, err := c.Read(in[have:])
					if err != nil {
						b.Fatal(err)
					}
					have += n
					at := 0
					for have-at >= headerSize {
						h := in[at:]
						length := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
						if have-at < headerSize+length {
							break
						}
						at += headerSize + length
						ended = ended || h[3] == frameData && h[4]&flagEndStream != 0 && binary.BigEndian.Uint32(h[5:]) == id
					}
					have = copy(in, in[at:have])
				}
			}
		})
	}
}

// one is a net.Listener of one connection.
type one struct {
	c    chan net.Conn
	addr net.Addr
}

func (o *one) Accept() (net.Conn, error) {
	c, ok := <-o.c
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (o *one) Close() error   { return nil }
func (o *one) Addr() net.Addr { return o.addr }

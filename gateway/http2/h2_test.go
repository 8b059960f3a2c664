package http2

import (
	"context"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

func TestManual(t *testing.T) {
	if os.Getenv("MANUAL") == "" {
		t.Skip()
	}
	ln, _ := net.Listen("tcp", "127.0.0.1:18080")
	pools := NewPools()
	for {
		rw, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.ReadFull(rw, make([]byte, len(Preface)))
			c := New(context.Background(), rw, pools, Config{Handler: func(ctx context.Context, s *Stream) {
				b, err := io.ReadAll(s)
				if err != nil {
					return
				}
				_ = s.Head(200, exchange.Header{{Name: "content-type", Value: "text/plain"}})
				_, _ = s.Write([]byte("hello\n"))
				_, _ = s.Write(b)
				_ = s.CloseWrite(nil)
			}, Limits: func() (int64, int) { return 32 << 10, 100 }, Streams: 100, Control: 2000, Header: 10 * time.Second, Body: 10 * time.Second, Idle: 30 * time.Second, Write: 10 * time.Second})
			c.Serve()
		}()
	}
}

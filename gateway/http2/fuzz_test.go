package http2

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	wire "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// FuzzConn sends any octets: the connection ends when the client does, every handler is over, and what came back are
// frames. A request that a handler sees is one that may be.
func FuzzConn(f *testing.F) {
	seed := func(write func(fr *wire.Framer, head func(fields ...string) []byte)) {
		var b bytes.Buffer
		fr := wire.NewFramer(&b, nil)
		fr.AllowIllegalWrites = true
		_ = fr.WriteSettings()
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		write(fr, func(fields ...string) []byte {
			block.Reset()
			for i := 0; i < len(fields); i += 2 {
				_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
			}
			return bytes.Clone(block.Bytes())
		})
		f.Add(b.Bytes())
	}
	get := []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a"}
	seed(func(fr *wire.Framer, head func(...string) []byte) {
		_ = fr.WriteHeaders(wire.HeadersFrameParam{StreamID: 1, BlockFragment: head(get...), EndHeaders: true, EndStream: true})
		_ = fr.WriteHeaders(wire.HeadersFrameParam{StreamID: 3, BlockFragment: head(append(get, "cookie", "a", "cookie", "b")...), EndStream: true})
		_ = fr.WriteContinuation(3, true, nil)
		_ = fr.WritePing(false, [8]byte{})
	})
	seed(func(fr *wire.Framer, head func(...string) []byte) {
		_ = fr.WriteHeaders(wire.HeadersFrameParam{StreamID: 1, BlockFragment: head(append(get, "content-length", "5")...), EndHeaders: true, PadLength: 3, Priority: wire.PriorityParam{StreamDep: 3}})
		_ = fr.WriteDataPadded(1, false, []byte("hel"), []byte{0, 0})
		_ = fr.WriteData(1, false, []byte("lo"))
		_ = fr.WriteHeaders(wire.HeadersFrameParam{StreamID: 1, BlockFragment: head("x", "y"), EndHeaders: true, EndStream: true})
	})
	seed(func(fr *wire.Framer, head func(...string) []byte) {
		_ = fr.WriteSettings(wire.Setting{ID: wire.SettingInitialWindowSize, Val: 1}, wire.Setting{ID: wire.SettingHeaderTableSize, Val: 0})
		_ = fr.WriteHeaders(wire.HeadersFrameParam{StreamID: 1, BlockFragment: head(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":path", "/", ":authority", "a"), EndHeaders: true})
		_ = fr.WriteWindowUpdate(1, 10)
		_ = fr.WriteWindowUpdate(0, 10)
		_ = fr.WritePriority(1, wire.PriorityParam{})
		_ = fr.WriteRSTStream(1, wire.ErrCodeCancel)
		_ = fr.WriteGoAway(0, wire.ErrCodeNo, []byte("bye"))
	})
	pools := NewPools()
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		conn := New(t.Context(), ours, pools, usual(func(_ context.Context, s *Stream) {
			if s.Method == "" || s.Method != "CONNECT" && (s.Path == "" || s.Scheme == "") {
				t.Errorf("a handler sees %+v", s)
			}
			for _, h := range s.Header {
				if !validName(h.Name) || !validValue(h.Value) || h.Name[0] == ':' {
					t.Errorf("a handler sees the field %q: %q", h.Name, h.Value)
				}
			}
			s.ReadTimeout, s.WriteTimeout = time.Second, 10*time.Millisecond
			body, err := io.ReadAll(s)
			if err == nil && s.Length >= 0 && int64(len(body)) != s.Length {
				t.Errorf("announced %d octets, read %d", s.Length, len(body))
			}
			_ = s.Head(200, s.Trailer())
			_, _ = s.Write(body)
			_ = s.CloseWrite(nil)
		}))
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn.Serve()
		}()
		read := make(chan error, 1)
		go func() {
			fr := wire.NewFramer(nil, theirs)
			fr.SetMaxReadFrameSize(maxFrame)
			for {
				if _, err := fr.ReadFrame(); err != nil {
					read <- err
					return
				}
			}
		}()
		_, _ = theirs.Write(data)
		_ = theirs.Close()
		<-done
		if err := <-read; err != io.EOF && err != io.ErrClosedPipe && err != io.ErrUnexpectedEOF { //nolint:errorlint // as they are
			t.Errorf("what came back: %v", err)
		}
	})
}

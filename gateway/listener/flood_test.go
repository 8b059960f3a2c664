package listener

import (
	"bytes"
	"context"
	"io"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// flooder is a client that sends what no honest one does, and listens.
type flooder struct {
	*rawHTTP2
	ended chan string // how the connection ended, once: the code of GOAWAY, or "cut"
}

func newFlooder(t *testing.T, r *rig) *flooder {
	f := &flooder{newRawHTTP2(t, r), make(chan string, 1)}
	go func() {
		for {
			frame, err := f.framer.ReadFrame()
			if err != nil {
				f.ended <- "cut"
				return
			}
			if g, ok := frame.(*http2.GoAwayFrame); ok {
				f.ended <- g.ErrCode.String()
				return
			}
		}
	}()
	f.framer.AllowIllegalWrites = true
	return f
}

// ping sends a ping whose answer it does not await.
func (h *rawHTTP2) ping() error { return h.framer.WritePing(false, [8]byte{}) }

// open begins a request that has a body to come.
func (h *rawHTTP2) open(id uint32) error {
	h.request(id, false, ":method", "POST", ":scheme", "https", ":path", "/", ":authority", "a")
	return nil
}

func (h *rawHTTP2) get(id uint32) error {
	h.request(id, true, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a")
	return nil
}

func odd(i int) uint32 { return uint32(2*i + 1) }

// floods are the i-th frames of each.
var floods = map[string]func(h *rawHTTP2, i int) error{
	"rapid reset": func(h *rawHTTP2, i int) error { // CVE-2023-44487
		_ = h.get(odd(i))
		return h.framer.WriteRSTStream(odd(i), http2.ErrCodeCancel)
	},
	// CVE-2025-8671: it is the server that resets.
	"made you reset by a window update of 0": func(h *rawHTTP2, i int) error {
		_ = h.open(odd(i))
		return h.framer.WriteRawFrame(http2.FrameWindowUpdate, 0, odd(i), make([]byte, 4))
	},
	"made you reset by a window that overflows": func(h *rawHTTP2, i int) error {
		_ = h.open(odd(i))
		return h.framer.WriteWindowUpdate(odd(i), 1<<31-1)
	},
	"made you reset by a short priority": func(h *rawHTTP2, i int) error {
		_ = h.open(odd(i))
		return h.framer.WriteRawFrame(http2.FramePriority, 0, odd(i), make([]byte, 4))
	},
	"made you reset by a stream that depends on itself": func(h *rawHTTP2, i int) error {
		_ = h.open(odd(i))
		return h.framer.WritePriority(odd(i), http2.PriorityParam{StreamDep: odd(i)})
	},
	"made you reset by DATA after the end": func(h *rawHTTP2, i int) error {
		_ = h.get(odd(i))
		return h.framer.WriteData(odd(i), true, []byte("x"))
	},
	"made you reset by a wrong length": func(h *rawHTTP2, i int) error {
		h.request(odd(i), false, ":method", "POST", ":scheme", "https", ":path", "/", ":authority", "a", "content-length", "1")
		return h.framer.WriteData(odd(i), true, []byte("xx"))
	},
	"made you reset by a malformed head": func(h *rawHTTP2, i int) error {
		h.request(odd(i), true, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a", "Upper", "case")
		return h.ping()
	},
	"too many streams": func(h *rawHTTP2, i int) error {
		h.request(odd(i), false, ":method", "POST", ":scheme", "https", ":path", "/hang", ":authority", "a")
		if i < 50 {
			return nil
		}
		return h.framer.WriteData(odd(i), false, []byte("x"))
	},
	"pings":    func(h *rawHTTP2, _ int) error { return h.ping() },
	"settings": func(h *rawHTTP2, _ int) error { return h.framer.WriteSettings() },
	"long settings": func(h *rawHTTP2, i int) error {
		list := make([]http2.Setting, 2000)
		for j := range list {
			list[j] = http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i + j)}
		}
		return h.framer.WriteSettings(list...)
	},
	"acknowledgements": func(h *rawHTTP2, _ int) error { return h.framer.WriteSettingsAck() },
	"window updates":   func(h *rawHTTP2, _ int) error { return h.framer.WriteWindowUpdate(0, 1) },
	"priorities":       func(h *rawHTTP2, _ int) error { return h.framer.WritePriority(1, http2.PriorityParam{}) },
	"unknown frames":   func(h *rawHTTP2, _ int) error { return h.framer.WriteRawFrame(0xbe, 0, 0, nil) },
	"priority updates": func(h *rawHTTP2, _ int) error {
		return h.framer.WriteRawFrame(0x10, 0, 0, []byte("\x00\x00\x00\x01u=1"))
	},
	"empty DATA": func(h *rawHTTP2, i int) error {
		if i == 0 {
			return h.open(1)
		}
		return h.framer.WriteData(1, false, nil)
	},
	"nothing but padding": func(h *rawHTTP2, i int) error {
		if i == 0 {
			return h.open(1)
		}
		return h.framer.WriteDataPadded(1, false, []byte("x"), make([]byte, 255))
	},
	"empty HEADERS": func(h *rawHTTP2, i int) error {
		return h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: odd(i), EndHeaders: true, EndStream: true})
	},
	"empty CONTINUATION": func(h *rawHTTP2, i int) error {
		if i == 0 {
			return h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1})
		}
		return h.framer.WriteContinuation(1, false, nil)
	},
	"large CONTINUATION": func(h *rawHTTP2, i int) error { // CVE-2024-27316 and its kin
		if i == 0 {
			return h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1})
		}
		h.block.Reset()
		_ = h.enc.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("~", 16000), Sensitive: true})
		return h.framer.WriteContinuation(1, false, h.block.Bytes()[:min(h.block.Len(), 16384)])
	},
	"decompression": func(h *rawHTTP2, i int) error { // one octet stands for 4,000
		if i == 0 {
			h.request(1, true, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a", "x", strings.Repeat("~", 3900))
			return nil
		}
		_ = h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: odd(i), BlockFragment: bytes.Repeat([]byte{0x80 | 62}, 16384)})
		for range 5 {
			_ = h.framer.WriteContinuation(odd(i), false, bytes.Repeat([]byte{0x80 | 62}, 16384))
		}
		return h.framer.WriteContinuation(odd(i), true, nil)
	},
	"a window an octet at a time": func(h *rawHTTP2, i int) error { // CVE-2019-9511
		if i == 0 {
			_ = h.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			return h.get(1)
		}
		return h.framer.WriteWindowUpdate(1, 1)
	},
}

// TestFloods has one connection send each flood while another is used: the first is told to calm down and closed, the other
// does not notice, and little memory is taken.
func TestFloods(t *testing.T) { //nolint:paralleltest // it measures memory
	answer := strings.Repeat("a", 100<<10)
	r := start(t, secure(), func(ctx context.Context, x *exchange.Exchange) {
		if x.Request.Path == "/hang" {
			<-ctx.Done()
			return
		}
		_, _ = io.Copy(io.Discard, x.Request.Body)
		reply(x, 200, answer)
	})
	healthy := r.client(exchange.HTTP2)
	get(t, healthy, r.url("/"))
	before := heap()
	var highest atomic.Uint64
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			f := newFlooder(t, &rig{t: t, addr: r.addr, dir: r.dir})
			var wg sync.WaitGroup
			wg.Go(func() {
				for i := range 1000000 {
					if flood(f.rawHTTP2, i) != nil {
						return
					}
				}
				t.Error("a million frames did not end the connection")
			})
			for range 5 {
				if resp, body := get(t, healthy, r.url("/")); resp.StatusCode != 200 || body != answer {
					t.Errorf("the other connection: %d, %d octets", resp.StatusCode, len(body))
				}
				highest.Store(max(highest.Load(), heap()))
			}
			wg.Wait()
			select {
			case how := <-f.ended:
				if how != "ENHANCE_YOUR_CALM" && how != "cut" { // where it still sends, it may not hear why
					t.Errorf("ended by %s", how)
				}
			case <-time.After(20 * time.Second):
				t.Error("the connection is open")
			}
		})
	}
	if n := r.seen.count("flood"); n != len(floods) {
		t.Errorf("%d of %d floods were observed", n, len(floods))
	}
	if grown := int64(highest.Load()) - int64(before); grown > 64<<20 {
		t.Errorf("the floods took %d MiB", grown>>20)
	}
	eventually(t, "their connections are gone", func() bool { return r.seen.open.Load() == 1 })
}

// heap is how many octets are in use, those of garbage included.
func heap() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// TestCalm says why to a client that stops and listens.
func TestCalm(t *testing.T) {
	t.Parallel()
	l := secure()
	l.Limits.Control = 100
	r := start(t, l, describe)
	f := newFlooder(t, r)
	for range 101 {
		_ = f.ping()
	}
	if how := <-f.ended; how != "ENHANCE_YOUR_CALM" {
		t.Errorf("ended by %s", how)
	}
}

// TestBusyClients are not taken for a flood, however much they acknowledge: what they take, they pay with.
func TestBusyClients(t *testing.T) {
	t.Parallel()
	l := secure()
	l.Limits.Control = 100
	event := bytes.Repeat([]byte("x"), 100)
	const events = 5000
	r := start(t, l, func(_ context.Context, x *exchange.Exchange) {
		_ = x.Reply.Head(200, nil, -1)
		for range events {
			_, _ = x.Reply.Write(event)
			_ = x.Reply.Flush()
		}
		_ = x.Reply.End(nil)
	})
	h := newRawHTTP2(t, r)
	_ = h.get(1)
	got := 0
	for {
		frame, err := h.framer.ReadFrame()
		if err != nil {
			t.Fatalf("after %d octets: %v", got, err)
		}
		if d, ok := frame.(*http2.DataFrame); ok {
			got += len(d.Data())
			if d.StreamEnded() {
				break
			}
			_ = h.framer.WriteWindowUpdate(0, uint32(len(d.Data())))
			_ = h.framer.WriteWindowUpdate(1, uint32(len(d.Data())))
		}
	}
	if got != events*len(event) {
		t.Errorf("got %d octets", got)
	}
}

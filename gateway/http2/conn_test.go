package http2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	wire "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// client is the other end of a connection, frame by frame.
type client struct {
	t      *testing.T
	rw     net.Conn
	framer *wire.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
	served chan struct{} // closed when Serve has returned
	conn   *Conn
	beside sync.WaitGroup // what the client does at the same time
}

// usual is a configuration with limits a test can meet.
func usual(h func(ctx context.Context, s *Stream)) Config {
	return Config{
		Handler: h, Limits: func() (int64, int) { return 8 << 10, 20 }, Streams: 4, Control: 100,
		Header: 5 * time.Second, Body: 10 * time.Second, Idle: time.Minute, Write: 20 * time.Second,
	}
}

// begin serves a connection. The client has not said anything.
func begin(t *testing.T, cfg Config) *client {
	t.Helper()
	ours, theirs := net.Pipe()
	c := &client{t: t, rw: theirs, framer: wire.NewFramer(theirs, theirs), served: make(chan struct{})}
	c.enc = hpack.NewEncoder(&c.block)
	c.conn = New(t.Context(), ours, NewPools(), cfg)
	go func() {
		defer close(c.served)
		c.conn.Serve()
	}()
	t.Cleanup(func() {
		_ = theirs.Close()
		<-c.served
		c.beside.Wait()
	})
	return c
}

func (c *client) settle() {
	c.t.Helper()
	written := make(chan struct{})
	go func() {
		defer close(written)
		_ = c.framer.WriteSettings()
	}()
	defer func() { <-written }()
	for acknowledged := false; !acknowledged; {
		if s, ok := c.next().(*wire.SettingsFrame); ok {
			acknowledged = s.IsAck()
		}
	}
}

// next reads a frame; nil at the end.
func (c *client) next() wire.Frame {
	f, err := c.framer.ReadFrame()
	if err != nil {
		return nil
	}
	return f
}

// until reads on until a frame of the kind comes; nil at the end.
func (c *client) until(kind wire.FrameType) wire.Frame {
	for {
		f := c.next()
		if f == nil || f.Header().Type == kind {
			return f
		}
	}
}

func (c *client) head(id uint32, end bool, fields ...string) {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = c.framer.WriteHeaders(wire.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: end})
}

func (c *client) get(id uint32) {
	c.head(id, true, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a")
}

func (c *client) post(id uint32) {
	c.head(id, false, ":method", "POST", ":scheme", "https", ":path", "/", ":authority", "a")
}

func fine(_ context.Context, s *Stream) {
	_ = s.Head(204, nil)
	_ = s.CloseWrite(nil)
}

// TestPatience ends connections that keep the server waiting, each after its time and no sooner.
func TestPatience(t *testing.T) {
	t.Parallel()
	hang := func(ctx context.Context, _ *Stream) { <-ctx.Done() }
	for name, c := range map[string]struct {
		handler func(context.Context, *Stream)
		do      func(c *client)
		after   time.Duration
	}{
		"no settings":      {fine, func(*client) {}, 5 * time.Second},
		"half of settings": {fine, func(c *client) { _, _ = c.rw.Write([]byte{0, 0, 0, 4, 0}) }, 5 * time.Second},
		"idle": {fine, func(c *client) {
			c.settle()
			c.get(1)
			c.until(wire.FrameHeaders)
		}, time.Minute + lingerTime},
		"half of a frame": {fine, func(c *client) {
			c.settle()
			_, _ = c.rw.Write([]byte{0, 0, 8, 6, 0, 0})
		}, 5 * time.Second},
		"half of a head": {fine, func(c *client) {
			c.settle()
			_ = c.framer.WriteHeaders(wire.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
		}, 5 * time.Second},
		"a head that trickles": {fine, func(c *client) {
			c.settle()
			_ = c.framer.WriteHeaders(wire.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			c.beside.Go(func() {
				for c.framer.WriteContinuation(1, false, []byte{0x82}) == nil {
					time.Sleep(time.Second)
				}
			})
		}, 5 * time.Second},
		"half of DATA": {hang, func(c *client) {
			c.settle()
			c.post(1)
			_, _ = c.rw.Write([]byte{0, 0, 8, 0, 0, 0, 0, 0, 1, 'x'})
		}, 10 * time.Second},
		"vanished": {hang, func(c *client) {
			c.settle()
			c.get(1)
		}, time.Minute + pingWait},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cl := begin(t, usual(c.handler))
				// The silence of a client that writes nothing back begins when it reads its last.
				c.do(cl)
				start := time.Now()
				go func() { _, _ = io.Copy(io.Discard, cl.rw) }()
				<-cl.served
				if took := time.Since(start); took != c.after {
					t.Errorf("ended after %v, want %v", took, c.after)
				}
			})
		})
	}
}

// TestAlive keeps a connection whose client answers pings.
func TestAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c := begin(t, usual(func(ctx context.Context, s *Stream) {
			<-release
			fine(ctx, s)
		}))
		c.settle()
		c.get(1)
		for range 100 {
			p, ok := c.until(wire.FramePing).(*wire.PingFrame)
			if !ok {
				t.Fatal("the connection was closed")
			}
			_ = c.framer.WritePing(true, p.Data)
		}
		close(release)
		if c.until(wire.FrameHeaders) == nil {
			t.Error("no reply")
		}
	})
}

// TestStalls gives up on a stream, and on no other, whose body or window does not come.
func TestStalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error, 10)
		c := begin(t, usual(func(_ context.Context, s *Stream) {
			s.ReadTimeout, s.WriteTimeout = 7*time.Second, 9*time.Second
			start := time.Now()
			if s.Method == "POST" {
				_, err := io.ReadAll(s)
				if time.Since(start) != 7*time.Second {
					err = errors.New("gave up at another time")
				}
				errs <- err
				return
			}
			_ = s.Head(200, nil)
			n, err := s.Write(make([]byte, 100000))
			if n != defaultSize || time.Since(start) != 9*time.Second {
				err = errors.New("gave up at another time")
			}
			errs <- err
		}))
		c.settle()
		c.post(1)
		go func() { _, _ = io.Copy(io.Discard, c.rw) }()
		if err := <-errs; !errors.Is(err, exchange.ErrBodyTimeout) {
			t.Errorf("body: %v", err)
		}
		c.get(3)
		if err := <-errs; !errors.Is(err, exchange.ErrClientGone) {
			t.Errorf("window: %v", err)
		}
	})
}

// TestDrain answers what is open and what the client began before it could know, and nothing after.
func TestDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var served atomic.Int64
		c := begin(t, usual(func(ctx context.Context, s *Stream) {
			served.Add(1)
			<-release
			fine(ctx, s)
		}))
		c.settle()
		c.get(1)
		c.conn.Drain()
		g, ok := c.until(wire.FrameGoAway).(*wire.GoAwayFrame)
		if !ok || g.LastStreamID != maxID || g.ErrCode != wire.ErrCodeNo {
			t.Fatalf("got %v", g)
		}
		p, ok := c.until(wire.FramePing).(*wire.PingFrame)
		if !ok {
			t.Fatal("no ping")
		}
		c.get(3) // before it has heard
		_ = c.framer.WritePing(true, p.Data)
		g, ok = c.until(wire.FrameGoAway).(*wire.GoAwayFrame)
		if !ok || g.LastStreamID != 3 {
			t.Fatalf("got %v", g)
		}
		c.post(5) // too late
		_ = c.framer.WriteData(5, true, []byte("x"))
		close(release)
		answered := map[uint32]bool{}
		for f := c.next(); f != nil; f = c.next() {
			if h, ok := f.(*wire.HeadersFrame); ok {
				answered[h.StreamID] = h.StreamEnded()
			}
		}
		if len(answered) != 2 || !answered[1] || !answered[3] || served.Load() != 2 {
			t.Errorf("answered %v, served %d", answered, served.Load())
		}
		_ = c.rw.Close()
		<-c.served
	})
}

// TestResetHandlers bounds handlers, also of streams that were reset and whose handlers take their time.
func TestResetHandlers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		c := begin(t, usual(func(_ context.Context, _ *Stream) {
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
		}))
		c.settle()
		go func() { _, _ = io.Copy(io.Discard, c.rw) }()
		for i := range 40 {
			id := uint32(2*i + 1)
			c.get(id)
			if i%2 == 0 {
				_ = c.framer.WriteRSTStream(id, wire.ErrCodeCancel)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := most.Load(); n != 4 {
			t.Errorf("%d handlers at once, want 4", n)
		}
	})
}

// TestReplies checks the frames of a reply: few, whole, and in one write where there is little.
func TestReplies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handler func(s *Stream)
		want    string
	}{
		"small":        {func(s *Stream) { _ = s.Head(200, nil); _, _ = s.Write([]byte("hi")); _ = s.CloseWrite(nil) }, "HEADERS DATA(2)+end"},
		"without body": {func(s *Stream) { _ = s.Head(204, nil); _ = s.CloseWrite(nil) }, "HEADERS+end"},
		"flushed":      {func(s *Stream) { _ = s.Head(200, nil); _ = s.Flush(); _ = s.CloseWrite(nil) }, "HEADERS DATA(0)+end or HEADERS+end"},
		"trailer":      {func(s *Stream) { _ = s.Head(200, nil); _ = s.CloseWrite(exchange.Header{{Name: "a", Value: "b"}}) }, "HEADERS HEADERS+end"},
		"broken off":   {func(s *Stream) { _ = s.Head(200, nil); s.Reset(Cancel) }, "HEADERS RST_STREAM(CANCEL)"},
		"nothing":      {func(*Stream) {}, "RST_STREAM(INTERNAL_ERROR)"},
		"early hints":  {func(s *Stream) { _ = s.Interim(103, nil); _ = s.Head(204, nil); _ = s.CloseWrite(nil) }, "HEADERS HEADERS+end"},
		"after the end": {func(s *Stream) {
			_ = s.Head(204, nil)
			_ = s.CloseWrite(nil)
			_, _ = s.Write([]byte("x"))
			_ = s.Flush()
		}, "HEADERS+end"},
		"long head":       {func(s *Stream) { _ = s.Head(200, long()); _ = s.CloseWrite(nil) }, "HEADERS+end CONTINUATION"},
		"more than frame": {func(s *Stream) { _ = s.Head(200, nil); _, _ = s.Write(make([]byte, 20000)); _ = s.CloseWrite(nil) }, "HEADERS DATA(16384) DATA(3616)+end"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := begin(t, usual(func(_ context.Context, s *Stream) { c.handler(s) }))
			cl.settle()
			cl.get(1)
			var got []string
			for over, whole := false, true; !over || !whole; {
				switch f := cl.next().(type) {
				case *wire.HeadersFrame:
					over, whole = over || f.StreamEnded(), f.HeadersEnded()
					got = append(got, "HEADERS"+end(f.StreamEnded()))
				case *wire.ContinuationFrame:
					whole = f.HeadersEnded()
					got = append(got, "CONTINUATION")
				case *wire.DataFrame:
					over = f.StreamEnded()
					got = append(got, "DATA("+strconv.Itoa(len(f.Data()))+")"+end(f.StreamEnded()))
				case *wire.RSTStreamFrame:
					over = true
					got = append(got, "RST_STREAM("+f.ErrCode.String()+")")
				case nil:
					t.Fatal("the connection ended")
				}
			}
			if s := strings.Join(got, " "); !slices.Contains(strings.Split(c.want, " or "), s) {
				t.Errorf("got %s, want %s", s, c.want)
			}
		})
	}
}

func end(yes bool) string {
	if yes {
		return "+end"
	}
	return ""
}

func long() (h exchange.Header) {
	for i := range 10 {
		h.Add("x", strings.Repeat("~", 3000+i)) // no shorter when it is compressed
	}
	return h
}

// TestHeads is the table of what a request's head becomes. FuzzConn begins from it.
func TestHeads(t *testing.T) {
	t.Parallel()
	ok := []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a"}
	for name, c := range map[string]struct {
		fields []string
		want   string
	}{
		"order":          {append(ok[:8:8], "b", "1", "a", "2", "b", "3"), "b=1 a=2 b=3"},
		"cookies":        {append(ok[:8:8], "cookie", "a=1", "x", "y", "cookie", "b=2"), "cookie=a=1; b=2 x=y"},
		"empty value":    {append(ok[:8:8], "a", ""), "a="},
		"obs-text":       {append(ok[:8:8], "a", "\xff"), "a=\xff"},
		"many fields":    {append(ok[:8:8], bytesOf(20, "a", "1")...), strings.TrimSpace(strings.Repeat("a=1 ", 20))},
		"too many":       {append(ok[:8:8], bytesOf(21, "a", "1")...), "large"},
		"too large":      {append(ok[:8:8], "a", strings.Repeat("x", 9000)), "large"},
		"large and more": {append(ok[:8:8], "a", strings.Repeat("x", 9000), "b", "1"), "large"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := make(chan string, 1)
			cl := begin(t, usual(func(ctx context.Context, s *Stream) {
				var list []string
				for _, f := range s.Header {
					list = append(list, f.Name+"="+f.Value)
				}
				if s.Large {
					list = []string{"large"}
				}
				got <- strings.Join(list, " ")
				fine(ctx, s)
			}))
			cl.settle()
			go cl.head(1, true, c.fields...)
			if s := <-got; s != c.want {
				t.Errorf("got %q, want %q", s, c.want)
			}
		})
	}
}

func bytesOf(n int, pair ...string) (list []string) {
	for range n {
		list = append(list, pair...)
	}
	return list
}

// TestWindows carries bodies both ways that are many times larger than any window, on several streams at once.
func TestWindows(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	cfg := usual(func(_ context.Context, s *Stream) {
		_ = s.Head(200, nil)
		buf := make([]byte, 7000)
		for {
			n, err := s.Read(buf)
			if _, werr := s.Write(buf[:n]); werr != nil {
				return
			}
			if err != nil {
				break
			}
		}
		_ = s.CloseWrite(nil)
	})
	conn := New(t.Context(), ours, NewPools(), cfg)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.ReadFull(ours, make([]byte, len(Preface)))
		conn.Serve()
	}()
	tr := &http.Transport{
		Protocols:   new(http.Protocols),
		DialContext: func(context.Context, string, string) (net.Conn, error) { return theirs, nil },
	}
	tr.Protocols.SetUnencryptedHTTP2(true)
	echo := func(i, size int) {
		body := bytes.Repeat([]byte{byte('a' + i)}, size)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://a/", bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Error(err)
			return
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("stream %d: %d octets, %v", i, len(got), err)
		}
	}
	echo(0, 1) // the connection is there
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { echo(i, 3<<20) })
	}
	wg.Wait()
	conn.mu.Lock()
	if conn.unread != 0 || len(conn.streams) != 0 {
		t.Errorf("left: %d octets unread, %d streams", conn.unread, len(conn.streams))
	}
	conn.mu.Unlock()
	_ = theirs.Close()
	<-done
}

// TestLength does not hand out the last octet of a body of known length before the client has ended it: no upstream takes a
// request for whole whose client still may break the rules.
func TestLength(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		more   string // after "hello", and the end
		length string
		want   string
	}{
		"right":       {"", "5", "hello"},
		"too much":    {"GET /evil HTTP/1.1\r\n\r\n", "5", "hell: " + errFault.Error()},
		"too little":  {"", "6", "hello: " + errFault.Error()},
		"not known":   {" world", "", "hello world"},
		"right later": {" world", "11", "hello world"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := make(chan string, 1)
				cl := begin(t, usual(func(ctx context.Context, s *Stream) {
					body, err := io.ReadAll(s)
					if err != nil {
						body = append(body, ": "+err.Error()...)
					}
					got <- string(body)
					fine(ctx, s)
				}))
				cl.settle()
				cl.beside.Go(func() {
					for cl.next() != nil {
					}
				})
				head := []string{":method", "POST", ":scheme", "https", ":path", "/", ":authority", "a"}
				if c.length != "" {
					head = append(head, "content-length", c.length)
				}
				cl.head(1, false, head...)
				_ = cl.framer.WriteData(1, false, []byte("hello"))
				synctest.Wait() // the handler has read what it may
				_ = cl.framer.WriteData(1, true, []byte(c.more))
				if s := <-got; s != c.want {
					t.Errorf("got %q, want %q", s, c.want)
				}
			})
		})
	}
}

// TestSillyWindow sends many small pieces to a client that opens its window by each frame it got, a round trip later. Were
// a window's remainder used to the last octet, each window would cut the frames once more.
func TestSillyWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const pieces, size, window = 5000, 100, 1035
		cl := begin(t, usual(func(_ context.Context, s *Stream) {
			_ = s.Head(200, nil)
			for range pieces {
				_, _ = s.Write(make([]byte, size))
				_ = s.Flush()
			}
			_ = s.CloseWrite(nil)
		}))
		cl.settle()
		_ = cl.framer.WriteSettings(wire.Setting{ID: wire.SettingInitialWindowSize, Val: window})
		_ = cl.framer.WriteWindowUpdate(0, 1<<30)
		cl.get(1)
		type taken struct {
			octets int
			at     time.Time
		}
		behind := make(chan taken, window)
		defer close(behind)
		cl.beside.Go(func() {
			for f := range behind {
				time.Sleep(time.Until(f.at.Add(50 * time.Millisecond)))
				_ = cl.framer.WriteWindowUpdate(1, uint32(f.octets))
			}
		})
		got, frames := 0, 0
		for over := false; !over; frames++ {
			f, ok := cl.until(wire.FrameData).(*wire.DataFrame)
			if !ok {
				t.Fatalf("the connection ended after %d octets in %d frames", got, frames)
			}
			over = f.StreamEnded()
			got += len(f.Data())
			behind <- taken{len(f.Data()), time.Now()}
		}
		if got != pieces*size || frames > 2*pieces {
			t.Errorf("got %d octets in %d frames", got, frames)
		}
	})
}

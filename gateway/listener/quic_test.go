package listener

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// relay carries datagrams between a client and the listener, and holds those of the listener back while it is told to: so
// a handshake does not end before the test wants it to.
type relay struct {
	front *net.UDPConn // the client's side
	back  *net.UDPConn // the listener's

	mu     sync.Mutex
	client net.Addr
	hold   bool
	held   [][]byte
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	addr, err := net.ResolveUDPAddr("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	back, err := net.DialUDP("udp", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{front: front, back: back}
	var loops sync.WaitGroup
	loops.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := front.ReadFrom(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.client = from
			r.mu.Unlock()
			_, _ = back.Write(buf[:n])
		}
	})
	loops.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, err := back.Read(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			if r.hold {
				r.held = append(r.held, append([]byte(nil), buf[:n]...))
			} else {
				_, _ = front.WriteTo(buf[:n], r.client)
			}
			r.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_, _ = front.Close(), back.Close()
		loops.Wait()
	})
	return r
}

func (r *relay) setHold(hold bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold = hold
	for _, b := range r.held {
		_, _ = r.front.WriteTo(b, r.client)
	}
	r.held = nil
}

// seen is a request that a handler of TestEarlyData got.
type seen struct{ method, early string }

// TestEarlyData answers safe methods that come before the handshake is over, and has others wait for its end. What the
// listener sends is held back until the request was seen, or could have been.
func TestEarlyData(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		on     bool
		method string
		early  bool // served before the handshake is over
	}{
		"GET": {true, http3.MethodGet0RTT, true}, "HEAD": {true, http3.MethodHead0RTT, true},
		"POST": {true, http.MethodPost, false}, "switched off": {false, http3.MethodGet0RTT, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := secure()
			l.QUIC.EarlyData = c.on
			got := make(chan seen, 10)
			r := start(t, l, func(_ context.Context, x *exchange.Exchange) {
				got <- seen{x.Request.Method, x.Request.Header.Get("early-data")}
				reply(x, 200, "fine")
			})
			relay := newRelay(t, r.addr)
			tc := r.roots()
			tc.ClientSessionCache = tls.NewLRUClientSessionCache(10)
			begin := func() (*quic.Conn, *http3.ClientConn) {
				tc := tc.Clone()
				tc.NextProtos = []string{"h3"}
				qc, err := quic.DialAddrEarly(t.Context(), relay.front.LocalAddr().String(), tc, nil)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = qc.CloseWithError(0, "") })
				return qc, new(http3.Transport).NewClientConn(qc)
			}
			first, cc := begin()
			if resp, err := cc.RoundTrip(request(t, http.MethodGet, r.url("/"), nil)); err != nil || text(t, resp) != "fine" {
				t.Fatal(err)
			}
			if s := <-got; s.early != "" {
				t.Errorf("a request of a whole handshake was marked: %v", s)
			}
			_ = first.CloseWithError(0, "")

			relay.setHold(c.on) // without early data, there is nothing to be done before the handshake is over
			qc, cc := begin()
			done := make(chan error, 1)
			go func() {
				if c.method == http.MethodPost {
					done <- rawPost(qc)
					return
				}
				resp, err := cc.RoundTrip(request(t, c.method, r.url("/"), nil))
				if err == nil {
					_ = resp.Body.Close()
				}
				done <- err
			}()
			method := strings.TrimSuffix(c.method, "_0RTT")
			switch {
			case !c.on:
			case c.early:
				if s := <-got; s != (seen{method, "1"}) {
					t.Errorf("got %v", s)
				}
			default:
				select {
				case s := <-got:
					t.Errorf("%v was served before the handshake was over", s)
				case <-time.After(100 * time.Millisecond): // it has been there for long
				}
			}
			relay.setHold(false)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if !c.early {
				if s := <-got; s != (seen{method, ""}) {
					t.Errorf("after the handshake: %v", s)
				}
			}
			if used := qc.ConnectionState().Used0RTT; used != c.on {
				t.Errorf("early data was used: %v", used)
			}
		})
	}
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// rawPost sends a POST without waiting for the handshake, which no library does, and waits for its answer.
func rawPost(c *quic.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	// By RFC 9204's static table: :method POST, :scheme https, :path /, :authority a.
	_, _ = s.Write([]byte{1, 8, 0, 0, 0xc0 | 20, 0xc0 | 23, 0xc0 | 1, 0x50, 1, 'a'})
	_ = s.Close()
	_, err = io.ReadAll(s)
	return err
}

// TestEarlyDataAfterLess has a client wait that was granted more when it got its ticket than it is now.
func TestEarlyDataAfterLess(t *testing.T) {
	t.Parallel()
	l := secure()
	l.QUIC.EarlyData = true
	r := start(t, l, func(_ context.Context, x *exchange.Exchange) { reply(x, 200, x.Request.Header.Get("early-data")) })
	tc := r.roots()
	tc.ClientSessionCache = tls.NewLRUClientSessionCache(10)
	for i, c := range []struct {
		header int64
		used   bool
	}{{32 << 10, false}, {32 << 10, true}, {64 << 10, true}, {16 << 10, false}, {16 << 10, true}} {
		l := secure()
		l.QUIC.EarlyData, l.Limits.Header = true, c.header
		if err := r.set.Apply(t.Context(), []*config.Listener{l}); err != nil {
			t.Fatal(err)
		}
		tc := tc.Clone()
		tc.NextProtos = []string{"h3"}
		qc, err := quic.DialAddrEarly(t.Context(), r.addr, tc, nil)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-qc.HandshakeComplete():
		case <-qc.Context().Done():
			t.Fatal(qc.Context().Err())
		}
		used := qc.ConnectionState().Used0RTT
		if i > 0 && !used {
			if qc, err = qc.NextConnection(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		resp, err := new(http3.Transport).NewClientConn(qc).RoundTrip(request(t, http.MethodGet, r.url("/"), nil))
		if err != nil {
			t.Fatal(err)
		}
		text(t, resp)
		if used != c.used {
			t.Errorf("connection %d: early data was used: %v", i, used)
		}
		_ = qc.CloseWithError(0, "")
	}
}

// TestMigration has a client move to another socket in the midst of a reply: nothing of it is lost, and what follows is
// known to come from the new address.
func TestMigration(t *testing.T) {
	t.Parallel()
	half := make(chan struct{})
	big := strings.Repeat("x", 300<<10)
	r := start(t, secure(), func(_ context.Context, x *exchange.Exchange) {
		if x.Request.Path == "/long" {
			_ = x.Reply.Head(200, nil, -1)
			_, _ = x.Reply.Write([]byte(big))
			_ = x.Reply.Flush()
			<-half
			_, _ = x.Reply.Write([]byte(big))
			_ = x.Reply.End(nil)
			return
		}
		reply(x, 200, x.Request.Remote.String())
	})
	socket := func() (*quic.Transport, string) {
		udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		tr := &quic.Transport{Conn: udp}
		t.Cleanup(func() { _, _ = tr.Close(), udp.Close() })
		return tr, udp.LocalAddr().String()
	}
	one, before := socket()
	tc := r.roots()
	tc.NextProtos = []string{"h3"}
	addr, err := net.ResolveUDPAddr("udp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	qc, err := one.Dial(t.Context(), addr, tc, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = qc.CloseWithError(0, "") })
	cc := new(http3.Transport).NewClientConn(qc)
	ask := func(path string) *http.Response {
		resp, err := cc.RoundTrip(request(t, http.MethodGet, r.url(path), nil))
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if got := text(t, ask("/")); got != before {
		t.Errorf("comes from %s, seen from %s", before, got)
	}
	long := ask("/long")
	two, after := socket()
	path, err := qc.AddPath(two)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := path.Switch(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new address is known", func() bool { return text(t, ask("/")) == after })
	close(half)
	if got := text(t, long); got != big+big {
		t.Errorf("%d octets of %d came", len(got), 2*len(big))
	}
}

// TestHTTP3Limits ends a connection kindly after its share of requests, and grants what the configuration says.
func TestHTTP3Limits(t *testing.T) {
	t.Parallel()
	l := secure()
	l.Limits.Requests, l.Limits.Streams = 3, 2
	l.QUIC.Window, l.QUIC.ConnectionWindow = 64<<10, 64<<10
	release := make(chan struct{})
	r := start(t, l, func(_ context.Context, x *exchange.Exchange) {
		if x.Request.Path == "/hold" {
			<-release
		}
		reply(x, 200, x.Request.Remote.String())
	})
	c := r.client(exchange.HTTP3)
	for range 10 {
		resp, err := c.Get(r.url("/"))
		if err != nil {
			// This client closes a connection when GOAWAY comes, also under a request that it has just begun there.
			resp, err = c.Get(r.url("/"))
		}
		if err != nil {
			t.Fatal(err)
		}
		text(t, resp)
	}
	if n := r.seen.opened.Load(); n < 3 || n > 5 { // one request more may be on its way when GOAWAY comes
		t.Errorf("10 requests took %d connections", n)
	}
	qc := r.dialQUIC()
	for range 2 {
		if _, err := qc.OpenStream(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := qc.OpenStream(); err == nil {
		t.Error("a third stream was granted")
	}
	s := r.dialQUIC()
	stream, err := s.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	// :method POST, :scheme https, :path /hold, :authority a; then DATA of a MiB.
	_, _ = stream.Write(append([]byte{1, 14, 0, 0, 0xc0 | 20, 0xc0 | 23, 0x51, 5, '/', 'h', 'o', 'l', 'd', 0x50, 1, 'a'}, 0, 0x80, 0x10, 0, 0))
	_ = stream.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	if n, _ := stream.Write(make([]byte, 1<<20)); n < 32<<10 || n > 128<<10 {
		t.Errorf("%d octets of a body that nobody reads were taken", n)
	}
	close(release)
}

package pool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http1/client"
)

// unruly is an upstream that answers every request with its path, in all kinds of ways that end a connection or should.
func unruly(t *testing.T) (address string) {
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
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				for in := bufio.NewReader(c); ; {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					if !misbehave(c, r) {
						return
					}
				}
			})
		}
	})
	return "http://" + l.Addr().String()
}

// misbehave answers one request. False when the connection is over.
func misbehave(c net.Conn, r *http.Request) bool {
	path := r.URL.Path
	fine := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(path), path)
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	say := func(s string) bool { _, err := io.WriteString(c, s); return err == nil }
	read := func() bool { _, err := io.Copy(io.Discard, r.Body); return err == nil }
	switch rand.IntN(14) {
	case 0:
		return read() && say(fine+evil)
	case 1:
		return read() && say("HTTP/1.1 304 No\r\n\r\n"+evil)
	case 2:
		_ = read() && say(fine)
		return false
	case 3:
		return say(fine) && read() // before the body was read
	case 4:
		_ = say(fine)
		return false // without the body
	case 5:
		_ = read() && say(fine[:rand.IntN(len(fine))])
		return false
	case 6:
		return read() && say("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n") && say(fine)
	case 7:
		time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond) // some callers do not wait
		return read() && say(fine)
	case 8:
		return read() && say(fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n%s\r\n%x;a\r\n%s\r\n0\r\nX-T: 1\r\n\r\n", path[:1], len(path)-1, path[1:]))
	case 9:
		return read() && say(fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n%s", len(path), path, evil))
	default:
		return read() && say(fine)
	}
}

// sent is a request's body that comes in parts.
type sent struct {
	io.Reader
	there int
}

func (b *sent) Buffered() int          { return b.there }
func (*sent) Trailer() exchange.Header { return nil }
func (*sent) Close() error             { return nil }

// TestHammer: whatever an upstream and callers that change their minds do on a few connections, nobody gets an answer that is
// not his, nothing is left over, and the endpoint stays usable.
func TestHammer(t *testing.T) {
	t.Parallel()
	at := unruly(t)
	p := poolOf(t, at, "")
	host := strings.TrimPrefix(at, "http://")
	var good, bad atomic.Int64
	var work sync.WaitGroup
	for g := range 8 {
		work.Go(func() {
			for i := range 400 {
				path := fmt.Sprintf("/%d/%d/%s", g, i, strings.Repeat("x", rand.IntN(100)))
				l, err := p.Get(t.Context(), 30*time.Second)
				if err != nil {
					t.Error(err)
					return
				}
				ctx, cancel := context.WithCancel(t.Context())
				stop := context.AfterFunc(ctx, l.Abort)
				r := &client.Request{Method: "POST", Path: path, Host: host, Interim: func(int, exchange.Header) error { return nil }}
				switch rand.IntN(4) {
				case 0:
					r.Body, r.Length = &sent{Reader: strings.NewReader("hello"), there: 5}, 5
				case 1:
					r.Body, r.Length = &sent{Reader: io.LimitReader(zeros{}, 100_000)}, 100_000
				case 2:
					r.Body, r.Length = &sent{Reader: io.LimitReader(zeros{}, 50_000)}, -1
				}
				hurried := rand.IntN(8) == 0
				if hurried {
					time.AfterFunc(time.Duration(rand.IntN(2000))*time.Microsecond, cancel)
				}
				var resp client.Response
				err = l.Do(ctx, r, &resp)
				if err == nil {
					body := ""
					if rand.IntN(16) > 0 { // else nobody wants to know
						var b []byte
						b, err = io.ReadAll(resp.Body)
						body = string(b)
						if err == nil && body != path && resp.Status != http.StatusNotModified {
							t.Errorf("%s got %q", path, body)
						}
					}
				}
				var e *client.Error
				switch {
				case err == nil:
					good.Add(1)
				case !errors.As(err, &e):
					t.Errorf("%v is no client.Error", err)
				default:
					bad.Add(1)
				}
				stop()
				p.Put(l)
				cancel()
			}
		})
	}
	work.Wait()
	if good.Load() < 1000 || bad.Load() == 0 {
		t.Errorf("%d exchanges went well, %d did not", good.Load(), bad.Load())
	}
	p.Close()
	if open, _ := p.Count(); open != 0 {
		t.Errorf("%d connections are left over", open)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

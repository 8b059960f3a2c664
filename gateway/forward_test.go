package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// plainConfig forwards everything to two upstreams: /h2/ and gRPC over HTTP/2, the rest over HTTP/1.1.
func plainConfig(h1, h2 string) string {
	return fmt.Sprintf(`
state "badger" {
  dir = "data"
}

listener "public" {
  address   = "127.0.0.1:0"
  protocols = [http1, http2, http3]
  tls {
    self_signed = ["127.0.0.1"]
  }
}

upstream "one" {
  endpoints = [%q]
  retry {
    attempts = 1
  }
}

upstream "two" {
  endpoints = [%q]
  protocol  = http2
}

route "all" {
  listener = listener.public
  match    = "/"
  upstream = upstream.one
}

route "h2" {
  listener = listener.public
  match    = "/h2/"
  upstream = upstream.two
}

route "grpc" {
  listener = listener.public
  match    = "POST /echo.Echo/"
  upstream = upstream.two
}
`, h1, h2)
}

// TestForward takes everything a plain reverse proxy has to carry through the whole gateway, over every protocol.
func TestForward(t *testing.T) {
	t.Parallel()
	var canceled atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex() // HTTP/2 has it anyway
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Seen", strings.Join([]string{r.Host, r.Header.Get("Forwarded"), r.Header.Get("X-Forwarded-For")}, "|"))
		w.WriteHeader(http.StatusOK)
		_ = rc.Flush()
		n, buf := 0, make([]byte, 32<<10)
		for {
			m, err := r.Body.Read(buf)
			n += m
			_, _ = w.Write(buf[:m])
			_ = rc.Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("X-Sum", fmt.Sprint(n, " ", r.Trailer.Get("X-Check")))
	})
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		canceled.Add(1)
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			if i == 0 {
				select { // the next one only when the first has arrived
				case <-r.Context().Done():
					return
				case <-ended(r):
				}
			}
		}
	})
	mux.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}})
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if c.Write(r.Context(), kind, bytes.ToUpper(b)) != nil {
				return
			}
		}
	})
	h1 := httptest.NewServer(mux)
	t.Cleanup(h1.Close)
	g := echoService()
	h2 := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			g.ServeHTTP(w, r)
			return
		}
		http.StripPrefix("/h2", mux).ServeHTTP(w, r)
	}))
	h2.Config.Protocols = new(http.Protocols)
	h2.Config.Protocols.SetUnencryptedHTTP2(true)
	h2.Start()
	t.Cleanup(h2.Close)
	n := start(t, map[string]string{"config.hcl": plainConfig(h1.URL, h2.URL)})

	for _, protocol := range []string{"http1", "http2", "http3"} {
		for _, prefix := range []string{"", "/h2"} {
			t.Run(protocol+prefix, func(t *testing.T) {
				t.Parallel()
				c := n.client(t, protocol)
				bothWays(t, c, n.url+prefix+"/echo")
				noAnswer(t, c, n.url+prefix+"/hang", &canceled)
				cut(t, c, n.url+prefix+"/cut")
				events(t, c, n.url+prefix+"/events")
				resp, err := c.Get(n.url + prefix + "/hints")
				if err != nil || resp.StatusCode != http.StatusNoContent {
					t.Errorf("%v %v", resp, err)
				}
				if err == nil {
					_ = resp.Body.Close()
				}
			})
		}
	}
	t.Run("websocket", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ws, resp, err := websocket.Dial(ctx, strings.Replace(n.url, "https", "wss", 1)+"/ws", &websocket.DialOptions{HTTPClient: n.client(t, "http1"), Subprotocols: []string{"chat"}})
		if err != nil {
			t.Fatal(err, resp)
		}
		defer func() { _ = ws.CloseNow() }()
		if ws.Subprotocol() != "chat" {
			t.Errorf("subprotocol %q", ws.Subprotocol())
		}
		for _, text := range []string{"hello", strings.Repeat("long ", 5000)} {
			if err := ws.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
				t.Fatal(err)
			}
			if _, b, err := ws.Read(ctx); err != nil || string(b) != strings.ToUpper(text) {
				t.Fatalf("%v, %d octets", err, len(b))
			}
		}
		if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
	})
	t.Run("grpc", func(t *testing.T) {
		t.Parallel()
		callGRPC(t, n)
	})
}

// bothWays sends a body of which every part is answered before the next is sent, with trailers both ways.
func bothWays(t *testing.T, c *http.Client, url string) {
	t.Helper()
	pr, pw := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, pr)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Forwarded-For", "203.0.113.9")
	r.Header.Set("Forwarded", "for=203.0.113.9")
	r.Trailer = http.Header{"X-Check": nil}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if seen := resp.Header.Get("X-Seen"); strings.Contains(seen, "203.0.113.9") || !strings.Contains(seen, "127.0.0.1") {
		t.Errorf("the upstream was told %q", seen)
	}
	part := strings.Repeat("x", 1000)
	buf := make([]byte, len(part))
	for i := range 5 {
		if _, err := io.WriteString(pw, part); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, buf); err != nil {
			t.Fatalf("part %d: %v", i, err)
		}
	}
	r.Trailer.Set("X-Check", "42")
	_ = pw.Close()
	rest, err := io.ReadAll(resp.Body)
	if err != nil || len(rest) > 0 || resp.Trailer.Get("X-Sum") != "5000 42" {
		t.Errorf("%q left, %v, trailer %v", rest, err, resp.Trailer)
	}
}

// noAnswer leaves a request unanswered: the upstream must learn that the client has gone.
func noAnswer(t *testing.T, c *http.Client, url string, canceled *atomic.Int64) {
	t.Helper()
	before := canceled.Load()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := c.Do(r); err == nil {
		_ = resp.Body.Close()
		t.Fatal("an answer out of nothing: " + resp.Status)
	}
	waitFor(t, "the upstream to learn that the client has gone", func() bool { return canceled.Load() > before })
}

// cut gets half a reply, and must be able to tell.
func cut(t *testing.T, c *http.Client, url string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		return // the whole reply was refused: told as well
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil && resp.StatusCode == http.StatusOK {
		t.Errorf("half a reply looks whole: %q", b)
	}
}

// ended is closed when the request body has ended: the client ends it when it has seen the first event.
func ended(r *http.Request) <-chan struct{} {
	ch := make(chan struct{})
	go func() {
		defer close(ch)
		_, _ = io.Copy(io.Discard, r.Body)
	}()
	return ch
}

func events(t *testing.T, c *http.Client, url string) {
	t.Helper()
	pr, pw := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, pr)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	if first, err := lines.ReadString('\n'); err != nil || first != "data: 0\n" {
		t.Fatalf("%q, %v", first, err)
	}
	_ = pw.Close()
	rest, err := io.ReadAll(lines)
	if err != nil || !strings.HasSuffix(string(rest), "data: 2\n\n") {
		t.Errorf("%q, %v", rest, err)
	}
}

// rawCodec passes messages as they are, so that no generated code is needed.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (rawCodec) Name() string                       { return "raw" }

var _ encoding.Codec = rawCodec{}

func echoService() *grpc.Server {
	g := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}))
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "echo.Echo", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			{StreamName: "Chat", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
				for {
					var m []byte
					if err := s.RecvMsg(&m); errors.Is(err, io.EOF) {
						s.SetTrailer(metadata.Pairs("x-end", "yes"))
						return nil
					} else if err != nil {
						return err
					}
					m = bytes.ToUpper(m)
					if err := s.SendMsg(&m); err != nil {
						return err
					}
				}
			}},
			{StreamName: "Fail", ServerStreams: true, ClientStreams: true, Handler: func(any, grpc.ServerStream) error {
				return status.Error(codes.ResourceExhausted, "no more")
			}},
		},
	}, struct{}{})
	return g
}

// callGRPC has a conversation message by message, then fails: status and trailers must come through.
func callGRPC(t *testing.T, n *node) {
	t.Helper()
	conn, err := grpc.NewClient(n.address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: n.roots})), grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	s, err := conn.NewStream(ctx, desc, "/echo.Echo/Chat")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		m := []byte(fmt.Sprintf("message %d", i))
		if err := s.SendMsg(&m); err != nil {
			t.Fatal(err)
		}
		var got []byte
		if err := s.RecvMsg(&got); err != nil || string(got) != strings.ToUpper(string(m)) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var got []byte
	if err := s.RecvMsg(&got); !errors.Is(err, io.EOF) {
		t.Fatalf("%q, %v", got, err)
	}
	if v := s.Trailer().Get("x-end"); len(v) != 1 || v[0] != "yes" {
		t.Errorf("trailer %v", s.Trailer())
	}
	s, err = conn.NewStream(ctx, desc, "/echo.Echo/Fail")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(&got); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("status %v", err)
	}
}

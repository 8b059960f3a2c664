package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
)

// The Autobahn suite plays a client or a server of WebSockets against one under test, which echoes. A gateway passes octets on, so
// that every case has to end as it does without it.

// brieflyWebSocket are the cases of the short form: every group, without those that are long because of how much they send.
var brieflyWebSocket = []string{
	"1.*", "2.*", "3.*", "4.*", "5.*", "6.1.*", "6.2.*", "6.3.*", "7.*", "9.1.3", "9.2.3", "9.3.4", "9.4.4", "9.5.3", "9.6.3", "9.7.1", "10.*", "12.1.1", "13.1.1",
}

// verdict is how a case ended, and how its connection closed.
type verdict struct {
	Behavior string `json:"behavior"`
	Close    string `json:"behaviorClose"`
}

// TestWebSocketServer runs the suite's client against an echoing server, with and without the gateway between them.
func TestWebSocketServer(t *testing.T) {
	t.Parallel()
	suite := tool(t, "kosoku")
	echo := httptest.NewServer(http.HandlerFunc(echo))
	t.Cleanup(echo.Close)
	g := webSocketGateway(t, echo.URL)
	fuzz := func(t *testing.T, address string) map[string]verdict {
		return autobahn(t, exec.CommandContext(t.Context(), suite, "-p", "8", address), nil)
	}
	direct := fuzz(t, echo.Listener.Addr().String())
	for _, test := range []struct{ name, address string }{
		{"http1", g.addresses["plain"]},
		{"http1-tls", bridge(t, func(ctx context.Context) (io.ReadWriteCloser, error) { return overTLS(ctx, g.addresses["secure"]) })},
		{"http2", bridge(t, webSocketsOverHTTP2(t, g.addresses["secure"]))},
		{"http3", bridge(t, webSocketsOverHTTP3(t, g.addresses["secure"]))},
	} {
		t.Run(test.name, func(t *testing.T) { compare(t, direct, fuzz(t, test.address)) })
	}
}

// TestWebSocketClient runs the suite's server against an echoing client, with and without the gateway between them.
func TestWebSocketClient(t *testing.T) {
	t.Parallel()
	suite := tool(t, "kosoku")
	fuzz := func(t *testing.T, through bool) map[string]verdict {
		address := freeAddress(t)
		target := address
		if through {
			target = webSocketGateway(t, "http://"+address).addresses["plain"]
		}
		return autobahn(t, exec.CommandContext(t.Context(), suite, "-m", "fuzzingserver", address), func() error { return echoCases(t.Context(), address, target) })
	}
	compare(t, fuzz(t, false), fuzz(t, true))
}

// compare reports the cases that end otherwise through the gateway.
func compare(t *testing.T, direct, through map[string]verdict) {
	t.Helper()
	least := 110
	if whole() {
		least = 500
	}
	good := 0
	for name, want := range direct {
		got, found := through[name]
		switch {
		case !found:
			t.Errorf("%s was not run through the gateway", name)
		case got != want && !better(got, want):
			t.Errorf("%s: %v through the gateway, %v without", name, got, want)
		}
		if got.Behavior == "OK" && got.Close == "OK" {
			good++
		}
	}
	if len(direct) < least || len(through) != len(direct) {
		t.Errorf("%d cases directly and %d through the gateway; want %d at least", len(direct), len(through), least)
	}
	if good < len(direct)*8/10 {
		t.Errorf("only %d of %d cases are OK: the echo is broken", good, len(direct))
	}
	t.Logf("%d cases end as without the gateway, %d of them OK", len(through), good)
}

// better says that a case that depends on when what arrives went well by chance the second time.
func better(got, want verdict) bool {
	rank := []string{"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "UNCLEAN", "WRONG CODE", "FAILED BY CLIENT", "FAILED", "ERROR"}
	return slices.Index(rank, got.Behavior) <= slices.Index(rank, want.Behavior) && slices.Index(rank, got.Close) <= slices.Index(rank, want.Close)
}

// autobahn runs the suite, and beside it what it needs, and reads its report.
func autobahn(t *testing.T, suite *exec.Cmd, beside func() error) map[string]verdict {
	t.Helper()
	dir := t.TempDir()
	suite.Args = append(suite.Args, "-o", dir)
	if !whole() {
		for _, name := range brieflyWebSocket {
			suite.Args = append(suite.Args, "-i", name)
		}
	}
	var said bytes.Buffer
	suite.Stdout, suite.Stderr = &said, &said
	if err := suite.Start(); err != nil {
		t.Fatal(err)
	}
	if beside != nil {
		if err := beside(); err != nil {
			_ = suite.Process.Kill()
			_ = suite.Wait()
			t.Fatalf("%v\n%s", err, said.String())
		}
	}
	err := suite.Wait() // it fails when a case does: the report says which
	report, missing := os.ReadFile(filepath.Join(dir, "index.json"))
	if missing != nil {
		t.Fatalf("no report: %v, %v\n%s", err, missing, said.String())
	}
	var agents map[string]map[string]verdict
	if err := json.Unmarshal(report, &agents); err != nil {
		t.Fatal(err)
	}
	all := map[string]verdict{}
	for _, cases := range agents {
		for name, v := range cases {
			all[name] = v
		}
	}
	return all
}

const maxEcho = 64 << 20 // octets of a message

// echo is the server under test.
func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionContextTakeover, CompressionThreshold: 1})
	if err == nil {
		sendBack(r.Context(), c)
	}
}

// sendBack echoes messages until the connection ends.
func sendBack(ctx context.Context, c *websocket.Conn) {
	defer c.CloseNow()
	c.SetReadLimit(maxEcho)
	for {
		kind, b, err := c.Read(ctx)
		if err != nil {
			return
		}
		if kind == websocket.MessageText && !utf8.Valid(b) {
			_ = c.Close(websocket.StatusInvalidFramePayloadData, "") // the library does not look
			return
		}
		if err := c.Write(ctx, kind, b); err != nil {
			return
		}
	}
}

// echoCases asks the suite's server for its cases, one after the other, through target.
func echoCases(ctx context.Context, address, target string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	dial := func(host, path string) (*websocket.Conn, error) {
		c, resp, err := websocket.Dial(ctx, "ws://"+host+path, &websocket.DialOptions{CompressionMode: websocket.CompressionContextTakeover, CompressionThreshold: 1})
		if resp != nil && resp.Body != nil {
			resp.Body.Close()
		}
		return c, err
	}
	var count int
	for {
		c, err := dial(address, "/getCaseCount")
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			continue // it is about to listen
		}
		_, b, err := c.Read(ctx)
		_ = c.CloseNow()
		if err != nil {
			return fmt.Errorf("ask for the number of cases: %w", err)
		}
		if _, err := fmt.Sscan(string(b), &count); err != nil {
			return err
		}
		break
	}
	for i := range count {
		c, err := dial(target, fmt.Sprintf("/runCase?case=%d&agent=echo", i+1))
		if err != nil {
			return fmt.Errorf("case %d: %w", i+1, err)
		}
		sendBack(ctx, c)
	}
	c, err := dial(address, "/updateReports?agent=echo")
	if err == nil {
		_, _, _ = c.Read(ctx) // until it is closed
		_ = c.CloseNow()
	}
	return err
}

// webSocketGateway is a gateway before a server, in cleartext and with TLS.
func webSocketGateway(t testing.TB, url string) *gateway {
	t.Helper()
	cert, key, err := certificate()
	if err != nil {
		t.Fatal(err)
	}
	return started(t, map[string]string{"cert.pem": string(cert), "key.pem": string(key), "config.hcl": `
state "memory" {
}

telemetry {
  log {
    format = text
    access = false
  }
}

listener "plain" {
  address   = "127.0.0.1:0"
  protocols = [http1, http2]
  drain     = "0s"
}

listener "secure" {
  address   = "127.0.0.1:0"
  protocols = [http1, http2, http3]
  drain     = "0s"

  tls {
    cert = "cert.pem"
    key  = "key.pem"
  }
}

upstream "echo" {
  endpoints = ["` + url + `"]
}

route "all" {
  listener = [listener.plain, listener.secure]
  match    = "/"
  upstream = upstream.echo
  timeout  = "0s"
}
`})
}

// started runs a gateway until the test ends.
func started(t testing.TB, files map[string]string) *gateway {
	t.Helper()
	g, err := startGateway(program(t), files, logOf(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.stop(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// freeAddress is an address on loopback that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// bridge takes WebSockets of HTTP/1.1, the only ones the suite speaks, and carries them over connections that open makes: streams that
// have been opened as WebSockets, or raw connections, for which the handshake passes as it is.
func bridge(t *testing.T, open func(context.Context) (io.ReadWriteCloser, error)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		l.Close()
		cancel()
		all.Wait()
	})
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				if err := carry(ctx, c.(*net.TCPConn), open); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			})
		}
	})
	return l.Addr().String()
}

// extended is a stream that an extended CONNECT opened.
type extended interface {
	io.ReadWriteCloser
	extensions() string // that the server took
}

func carry(ctx context.Context, c *net.TCPConn, open func(context.Context) (io.ReadWriteCloser, error)) error {
	head := make([]byte, 0, 4096)
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) && len(head) < cap(head) {
		n, err := c.Read(head[len(head) : len(head)+1])
		if err != nil {
			return nil //nolint:nilerr // it has changed its mind
		}
		head = head[:len(head)+n]
	}
	fields := map[string]string{}
	for line := range strings.SplitSeq(string(head), "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		fields[strings.ToLower(name)] = strings.TrimSpace(value)
	}
	s, err := open(context.WithValue(ctx, offered{}, fields["sec-websocket-extensions"]))
	if err != nil {
		return fmt.Errorf("open a WebSocket: %w", err)
	}
	if x, ok := s.(extended); ok {
		sum := sha1.Sum([]byte(fields["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n"
		if x.extensions() != "" {
			answer += "Sec-WebSocket-Extensions: " + x.extensions() + "\r\n"
		}
		if _, err := io.WriteString(c, answer+"\r\n"); err != nil {
			return nil //nolint:nilerr // the suite has gone
		}
	} else if _, err := s.Write(head); err != nil {
		return err
	}
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(s, c)
		if w, ok := s.(interface{ CloseWrite() error }); ok {
			_ = w.CloseWrite()
			return
		}
		_ = s.Close()
	})
	_, _ = io.Copy(c, s)
	_ = c.CloseWrite()
	up.Wait()
	return s.Close()
}

// offered finds in a context which extensions the suite offers.
type offered struct{}

func overTLS(ctx context.Context, address string) (io.ReadWriteCloser, error) {
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}}
	return d.DialContext(ctx, "tcp", address)
}

// webSocketsOverHTTP3 opens WebSockets on one HTTP/3 connection (RFC 9220).
func webSocketsOverHTTP3(t *testing.T, address string) func(context.Context) (io.ReadWriteCloser, error) {
	c, err := quic.DialAddr(t.Context(), address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}}, &quic.Config{KeepAlivePeriod: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseWithError(0, "") })
	h := new(http3.Transport).NewClientConn(c)
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		s, err := h.OpenRequestStream(ctx)
		if err != nil {
			return nil, err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodConnect, "https://"+address+"/", nil)
		if err != nil {
			return nil, err
		}
		r.Proto = "websocket"
		r.Header.Set("Sec-Websocket-Version", "13")
		if list, _ := ctx.Value(offered{}).(string); list != "" {
			r.Header.Set("Sec-Websocket-Extensions", list)
		}
		if err := s.SendRequestHeader(r); err != nil {
			return nil, err
		}
		resp, err := s.ReadResponse()
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("extended CONNECT: %s", resp.Status)
		}
		return &quicStream{s, resp.Header.Get("Sec-Websocket-Extensions")}, nil
	}
}

// webSocketsOverHTTP2 opens WebSockets on HTTP/2 connections (RFC 8441).
func webSocketsOverHTTP2(t *testing.T, address string) func(context.Context) (io.ReadWriteCloser, error) {
	// The standard library's own refuses the pseudo-field :protocol.
	transport := &http2.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:staticcheck // see above
	t.Cleanup(transport.CloseIdleConnections)                                             //nolint:staticcheck // see above
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		ctx, cancel := context.WithCancel(ctx)
		out, in := io.Pipe()
		r, err := http.NewRequestWithContext(ctx, http.MethodConnect, "https://"+address+"/", out)
		if err != nil {
			cancel()
			return nil, err
		}
		r.Header[":protocol"] = []string{"websocket"}
		r.Header.Set("Sec-Websocket-Version", "13")
		if list, _ := ctx.Value(offered{}).(string); list != "" {
			r.Header.Set("Sec-Websocket-Extensions", list)
		}
		resp, err := transport.RoundTrip(r) //nolint:staticcheck // see above
		if err != nil {
			cancel()
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			cancel()
			return nil, fmt.Errorf("extended CONNECT: %s", resp.Status)
		}
		return &pipeStream{ReadCloser: resp.Body, in: in, cancel: cancel, taken: resp.Header.Get("Sec-Websocket-Extensions")}, nil
	}
}

// pipeStream is a WebSocket over HTTP/2.
type pipeStream struct {
	io.ReadCloser
	in     *io.PipeWriter
	cancel context.CancelFunc
	taken  string
}

func (s *pipeStream) extensions() string          { return s.taken }
func (s *pipeStream) Write(p []byte) (int, error) { return s.in.Write(p) }
func (s *pipeStream) CloseWrite() error           { return s.in.Close() }

// SetDeadline bounds the stream's life.
func (s *pipeStream) SetDeadline(at time.Time) error {
	time.AfterFunc(time.Until(at), s.cancel)
	return nil
}

// Close ends both sides.
func (s *pipeStream) Close() error {
	s.in.Close()
	err := s.ReadCloser.Close()
	s.cancel()
	return err
}

// quicStream is a WebSocket over HTTP/3.
type quicStream struct {
	*http3.RequestStream
	taken string
}

func (s *quicStream) extensions() string { return s.taken }
func (s *quicStream) CloseWrite() error  { return s.RequestStream.Close() }

// Close ends both sides.
func (s *quicStream) Close() error {
	s.CancelRead(quic.StreamErrorCode(http3.ErrCodeNoError))
	return s.RequestStream.Close()
}

// TestTunnel: what is sent through an upgraded connection arrives as it is and at once, in either direction, and the end of one
// direction is not the end of the other.
func TestTunnel(t *testing.T) {
	t.Parallel()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	accepted := make(chan *net.TCPConn, 16)
	go func() {
		for {
			c, err := raw.Accept()
			if err != nil {
				return
			}
			head := make([]byte, 0, 64<<10)
			for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
				n, err := c.Read(head[len(head) : len(head)+1])
				if err != nil {
					break
				}
				head = head[:len(head)+n]
			}
			key := ""
			for line := range strings.SplitSeq(string(head), "\r\n") {
				if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "sec-websocket-key") {
					key = strings.TrimSpace(value)
				}
			}
			sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			// The first octets of the tunnel come with the answer.
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\nhello")
			accepted <- c.(*net.TCPConn)
		}
	}()
	g := webSocketGateway(t, "http://"+raw.Addr().String())
	for name, open := range map[string]func(context.Context) (io.ReadWriteCloser, error){
		"http1": func(ctx context.Context) (io.ReadWriteCloser, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", g.addresses["plain"])
			if err != nil {
				return nil, err
			}
			return c.(*net.TCPConn), handshake(c)
		},
		"http1-tls": func(ctx context.Context) (io.ReadWriteCloser, error) {
			c, err := overTLS(ctx, g.addresses["secure"])
			if err != nil {
				return nil, err
			}
			return c, handshake(c)
		},
		"http2": webSocketsOverHTTP2(t, g.addresses["secure"]),
		"http3": webSocketsOverHTTP3(t, g.addresses["secure"]),
	} {
		t.Run(name, func(t *testing.T) {
			pair := func(t *testing.T) (client io.ReadWriteCloser, server *net.TCPConn) {
				t.Helper()
				client, err := open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				server = <-accepted
				t.Cleanup(func() {
					client.Close()
					server.Close()
				})
				at := time.Now().Add(30 * time.Second)
				_ = server.SetDeadline(at)
				_ = client.(interface{ SetDeadline(time.Time) error }).SetDeadline(at)
				expect(t, client, []byte("hello"))
				return client, server
			}
			finish := func(t *testing.T, c io.Writer) {
				t.Helper()
				if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			t.Run("at once", func(t *testing.T) {
				client, server := pair(t)
				for size := range 200 {
					b := make([]byte, 1+size*size)
					_, _ = rand.Read(b)
					send(t, client, b)
					expect(t, server, b)
					send(t, server, b)
					expect(t, client, b)
				}
			})
			t.Run("both ways at once", func(t *testing.T) {
				client, server := pair(t)
				b := make([]byte, 16<<20)
				_, _ = rand.Read(b)
				var both sync.WaitGroup
				both.Go(func() { _, _ = client.Write(b) })
				both.Go(func() { _, _ = server.Write(b) })
				both.Go(func() { expect(t, client, b) })
				expect(t, server, b)
				both.Wait()
			})
			t.Run("client ends first", func(t *testing.T) {
				client, server := pair(t)
				send(t, client, []byte("farewell"))
				finish(t, client)
				expect(t, server, []byte("farewell"))
				ended(t, server)
				b := make([]byte, 1<<20)
				_, _ = rand.Read(b)
				go func() {
					_, _ = server.Write(b)
					_ = server.CloseWrite()
				}()
				expect(t, client, b)
				ended(t, client)
			})
			t.Run("server ends first", func(t *testing.T) {
				client, server := pair(t)
				send(t, server, []byte("farewell"))
				finish(t, server)
				expect(t, client, []byte("farewell"))
				ended(t, client)
				send(t, client, []byte("you too"))
				finish(t, client)
				expect(t, server, []byte("you too"))
				ended(t, server)
			})
			t.Run("server closes while the client sends", func(t *testing.T) {
				client, server := pair(t)
				farewell := make([]byte, 64<<10)
				_, _ = rand.Read(farewell)
				go func() {
					for {
						if _, err := client.Write(farewell); err != nil {
							return
						}
					}
				}()
				expect(t, server, farewell)
				send(t, server, farewell)
				finish(t, server)
				expect(t, client, farewell)
				ended(t, client)
			})
		})
	}
}

// handshake opens a WebSocket of HTTP/1.1.
func handshake(c io.ReadWriter) error {
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"); err != nil {
		return err
	}
	var head []byte
	one := make([]byte, 1)
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		if _, err := io.ReadFull(c, one); err != nil {
			return fmt.Errorf("after %q: %w", head, err)
		}
		head = append(head, one...)
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
		return fmt.Errorf("answered %q", head)
	}
	if !bytes.Contains(bytes.ToLower(head), []byte("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n")) {
		return errors.New("the answer is not to the client's key")
	}
	return nil
}

func send(t *testing.T, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
}

// expect reads exactly b.
func expect(t *testing.T, r io.Reader, b []byte) {
	t.Helper()
	got := make([]byte, len(b))
	if n, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, b) {
		t.Errorf("%d octets came of %d, the same: %t: %v", n, len(b), bytes.Equal(got, b), err)
	}
}

// ended expects that nothing more comes, and that this is no fault.
func ended(t *testing.T, r io.Reader) {
	t.Helper()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // a wrapped io.EOF is not the end
		t.Errorf("%d octets and %v instead of the end", n, err)
	}
}

// logOf is a test's log.
func logOf(t testing.TB) io.Writer {
	if testing.Verbose() {
		return os.Stderr
	}
	return io.Discard
}

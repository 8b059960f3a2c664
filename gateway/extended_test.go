package main

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
)

// extended makes extended CONNECT (RFC 8441, RFC 9220) of a WebSocket library's handshake, and of its answer one that the
// library knows.
type extended struct {
	base  http.RoundTripper
	http3 bool
}

// socket is what both directions of a stream are together.
type socket struct {
	io.ReadCloser
	io.WriteCloser
}

func (s socket) Close() error {
	_ = s.WriteCloser.Close()
	return s.ReadCloser.Close()
}

func (e extended) RoundTrip(r *http.Request) (*http.Response, error) {
	pr, pw := io.Pipe()
	out := r.Clone(r.Context())
	out.Method, out.Body, out.ContentLength = http.MethodConnect, pr, -1
	for _, name := range []string{"Connection", "Upgrade", "Sec-Websocket-Key"} {
		out.Header.Del(name)
	}
	if e.http3 {
		out.Proto = "websocket"
	} else {
		out.Header[":protocol"] = []string{"websocket"}
	}
	resp, err := e.base.RoundTrip(out)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	resp.StatusCode = http.StatusSwitchingProtocols
	resp.Header.Set("Connection", "Upgrade")
	resp.Header.Set("Upgrade", "websocket")
	resp.Header.Set("Sec-Websocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
	resp.Body = socket{resp.Body, pw}
	return resp, nil
}

// TestExtendedConnect carries WebSockets of HTTP/2 and 3 to an upstream of HTTP/1.1: handshake, messages of every size, pings,
// the closing handshake, and a refusal.
func TestExtendedConnect(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}})
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		c.SetReadLimit(1 << 20)
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	})
	mux.HandleFunc("/no", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not here", http.StatusForbidden) })
	upstream := httptest.NewServer(mux)
	t.Cleanup(upstream.Close)
	n := start(t, map[string]string{"config.hcl": plainConfig(upstream.URL, upstream.URL)})
	tlsConfig := &tls.Config{RootCAs: n.roots}
	h3 := &http3.Transport{TLSClientConfig: tlsConfig}
	t.Cleanup(func() { _ = h3.Close() })
	h2 := &http2.Transport{TLSClientConfig: tlsConfig} //nolint:staticcheck // the standard library's takes no extended CONNECT
	t.Cleanup(h2.CloseIdleConnections)                 //nolint:staticcheck // the same
	for name, transport := range map[string]http.RoundTripper{"http2": extended{h2, false}, "http3": extended{h3, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			options := &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{"chat"}}
			ws, resp, err := websocket.Dial(ctx, n.url+"/ws", options)
			if err != nil {
				t.Fatal(err, resp)
			}
			defer func() { _ = ws.CloseNow() }()
			ws.SetReadLimit(1 << 20)
			if ws.Subprotocol() != "chat" {
				t.Errorf("subprotocol %q", ws.Subprotocol())
			}
			for _, size := range []int{0, 5, 126, 70000, 600000} {
				text := strings.Repeat("x", size)
				sent := make(chan error, 1)
				go func() { sent <- ws.Write(ctx, websocket.MessageText, []byte(text)) }()
				if _, b, err := ws.Read(ctx); err != nil || string(b) != text {
					t.Fatalf("%d octets: %v, %d came", size, err, len(b))
				}
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
			}
			if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
				t.Error(err)
			}
			_, resp, err = websocket.Dial(ctx, n.url+"/no", options)
			if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
				t.Errorf("refused: %v %v", resp, err)
			}
		})
	}
}

package proxy

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// http2Server is an upstream of HTTP/2 in cleartext.
func http2Server(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// A server of gRPC that breaks a call off because its time is over is not at fault, and the caller hears that its time is over.
func TestGRPCDeadline(t *testing.T) {
	for _, test := range []struct {
		name, path, timeout, kind string
		status                    int    // of the problem; 0: none
		told                      string // the status of gRPC
		failed                    uint64
	}{
		{name: "over", path: "/none", timeout: "999m", told: "4"},
		{name: "over for gRPC-Web", path: "/none", timeout: "1S", kind: "application/grpc-web+proto", told: "4"},
		{name: "not over", path: "/none", timeout: "1H", status: 502, failed: 1},
		{name: "not said", path: "/none", timeout: "", status: 502, failed: 1},
		{name: "nonsense", path: "/none", timeout: "-5S", status: 502, failed: 1},
		{name: "too long a number", path: "/none", timeout: "000000001S", status: 502, failed: 1},
		{name: "no unit", path: "/none", timeout: "1", status: 502, failed: 1},
		{name: "no call of gRPC", path: "/none", timeout: "1S", kind: "application/json", status: 502, failed: 1},
		{name: "over with a part said", path: "/part", timeout: "1S", told: "4"},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := open(t, config.Upstream{Protocol: "http2"}, http2Server(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/part" {
					_, _ = io.WriteString(w, "part")
					_ = http.NewResponseController(w).Flush()
				}
				panic(http.ErrAbortHandler) // resets the stream
			}))
			kind := test.kind
			if kind == "" {
				kind = "application/grpc"
			}
			x, rec := ask("POST", test.path, "hello", "content-type", kind, "grpc-timeout", test.timeout)
			x.Start = time.Now().Add(-2 * time.Second)
			err := New(Config{}).Forward(context.Background(), x, &Hop{Upstream: u})
			if failed := u.Status()[0].Failed; failed != test.failed {
				t.Errorf("%d failures were held against the upstream, want %d", failed, test.failed)
			}
			if test.status != 0 {
				problem(t, err, test.status, "upstream_reset")
				return
			}
			if err != nil || rec.status != 200 || !rec.ended || rec.aborted {
				t.Fatalf("%v: %+v", err, rec)
			}
			said := rec.header.Get("grpc-status") + rec.trailer.Get("grpc-status")
			if said != test.told {
				t.Errorf("the caller got the status %q, want %q", said, test.told)
			}
		})
	}
}

// Over HTTP/2 a trailer section can follow a response without content: gRPC puts the status of a call there.
func TestTrailersAlone(t *testing.T) {
	u := open(t, config.Upstream{Protocol: "http2"}, http2Server(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(200)
		w.Header().Set("Grpc-Status", "9")
	}))
	x, rec := ask("POST", "/", "hello", "content-type", "application/grpc")
	x.Request.Protocol = exchange.HTTP2
	if err := New(Config{}).Forward(context.Background(), x, &Hop{Upstream: u}); err != nil {
		t.Fatal(err)
	}
	if rec.trailer.Get("grpc-status") != "9" || !rec.ended || rec.length != 0 {
		t.Errorf("the trailer is lost: %+v", rec)
	}
}

// TestWindow: whatever comes at once, a window is as large as it needs.
func TestWindow(t *testing.T) {
	f := New(Config{})
	w := f.window(-1)
	for i, step := range []struct{ room, took int }{
		{smallBuffer, 10}, {smallBuffer, smallBuffer}, {largeBuffer, largeBuffer}, {largeBuffer, smallBuffer}, {largeBuffer, smallBuffer - 1}, {smallBuffer, 0},
	} {
		if n := len(w.room()); n != step.room {
			t.Errorf("step %d: room for %d, want %d", i, n, step.room)
		}
		w.took(step.took)
	}
	w.close()
	w = f.window(smallBuffer + 1)
	if n := len(w.room()); n != largeBuffer {
		t.Errorf("room for %d of a body known to be longer than a small buffer", n)
	}
	w.close()
	w.close() // nothing is given back twice
}

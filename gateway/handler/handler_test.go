package handler

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// reply keeps what it is sent.
type reply struct {
	status  int
	header  exchange.Header
	length  int64
	body    bytes.Buffer
	interim []int
	flushes int
	ended   bool
	aborted bool
	gone    bool // the client is
}

func (r *reply) Interim(status int, _ exchange.Header) error {
	r.interim = append(r.interim, status)
	return nil
}

func (r *reply) Head(status int, h exchange.Header, length int64) error {
	r.status, r.header, r.length = status, slices.Clone(h), length
	return nil
}

func (r *reply) Write(p []byte) (int, error) {
	if r.gone {
		return 0, exchange.ErrClientGone
	}
	return r.body.Write(p)
}

func (r *reply) Flush() error              { r.flushes++; return nil }
func (r *reply) End(exchange.Header) error { r.ended = true; return nil }
func (r *reply) Abort()                    { r.aborted = true }
func (r *reply) Upgrade(exchange.Header) (io.ReadWriteCloser, error) {
	return nil, exchange.ErrNoUpgrade
}

func serve(t *testing.T, method string, h http.HandlerFunc, head func(context.Context) (Filter, *exchange.Problem), to *reply) (*exchange.Exchange, *exchange.Problem) {
	t.Helper()
	x := &exchange.Exchange{Reply: to}
	x.Request.Method, x.Request.Path, x.Request.Query, x.Request.Authority = method, "/a b", "q=1", "example.com:8443"
	x.Request.Remote = netip.MustParseAddrPort("192.0.2.1:99")
	x.Request.Header.Add("x-one", "1")
	x.Request.Path = "/a%20b"
	hop := &Hop{Handler: h, Body: []byte("asked"), Head: head}
	return x, hop.Serve(t.Context(), x)
}

func TestServe(t *testing.T) {
	t.Parallel()
	to := &reply{}
	x, problem := serve(t, "POST", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || string(b) != "asked" || r.URL.Path != "/a b" || r.FormValue("q") != "1" || r.Host != "example.com:8443" || r.RemoteAddr != "192.0.2.1:99" || r.Header.Get("X-One") != "1" || r.ContentLength != 5 {
			t.Errorf("%v %q %+v", err, b, r)
		}
		w.Header().Set("X-Answer", " yes ")
		w.Header().Set("X-Split", "a\r\nset-cookie: b=c")
		w.Header().Set("Connection", "close")
		w.Header().Set("Transfer-Encoding", "chunked")
		w.Header()["Bad Name"] = []string{"x"}
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusTeapot)
		w.WriteHeader(http.StatusOK)
		_, _ = io.WriteString(w, "first ")
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, "second")
	}, nil, to)
	if problem != nil || to.status != http.StatusTeapot || to.length != -1 || to.body.String() != "first second" || !to.ended || to.aborted || to.flushes != 1 || !slices.Equal(to.interim, []int{103}) {
		t.Errorf("%+v %v", to, problem)
	}
	if len(to.header) != 1 || to.header[0] != (exchange.Field{Name: "x-answer", Value: "yes"}) {
		t.Errorf("%v", to.header)
	}
	if x.Response.Sent != 12 || !x.Response.Started {
		t.Errorf("%+v", x.Response)
	}
}

// TestLengths: what a response says of its length is true for each method and status.
func TestLengths(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method string
		status int
		said   string
		want   int64
		body   string
	}{
		{"GET", 200, "2", 2, "ab"}, {"GET", 200, "", -1, "ab"}, {"HEAD", 200, "2", 2, ""}, {"HEAD", 200, "", -1, ""}, {"GET", 204, "", 0, ""}, {"GET", 304, "", 0, ""}, {"GET", 200, "two", -1, "ab"},
	} {
		to := &reply{}
		_, problem := serve(t, c.method, func(w http.ResponseWriter, _ *http.Request) {
			if c.said != "" {
				w.Header().Set("Content-Length", c.said)
			}
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, "ab")
		}, nil, to)
		if problem != nil || to.length != c.want || to.body.String() != c.body || !to.ended {
			t.Errorf("%+v: %+v %v", c, to, problem)
		}
	}
	to := &reply{}
	if _, problem := serve(t, "GET", func(http.ResponseWriter, *http.Request) {}, nil, to); problem != nil || to.status != 200 || to.length != 0 || !to.ended {
		t.Errorf("a handler that says nothing: %+v", to)
	}
}

// TestHead: who looks at the head may filter the body, or have another answer go out, of which the handler sees nothing.
func TestHead(t *testing.T) {
	t.Parallel()
	hello := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5")
		_, _ = io.WriteString(w, "hello")
	}
	to := &reply{}
	if _, problem := serve(t, "GET", hello, func(context.Context) (Filter, *exchange.Problem) {
		return func(_ context.Context, dst, part []byte, end bool) ([]byte, error) {
			dst = append(dst, strings.ToUpper(string(part))...)
			if end {
				dst = append(dst, '!')
			}
			return dst, nil
		}, nil
	}, to); problem != nil || to.body.String() != "HELLO!" || to.length != -1 {
		t.Errorf("%+v %v", to, problem)
	}
	to = &reply{}
	want := &exchange.Problem{Status: 502}
	if _, problem := serve(t, "GET", hello, func(context.Context) (Filter, *exchange.Problem) { return nil, want }, to); problem != want || to.status != 0 || to.body.Len() != 0 || to.ended {
		t.Errorf("%+v %v", to, problem)
	}
	to = &reply{}
	x, problem := serve(t, "GET", hello, func(context.Context) (Filter, *exchange.Problem) {
		return func(context.Context, []byte, []byte, bool) ([]byte, error) { return nil, errors.New("no") }, nil
	}, to)
	if problem != nil || !to.aborted || to.ended || x.Problem == nil || x.Problem.Code != "reply_cut" {
		t.Errorf("%+v %v %v", to, problem, x.Problem)
	}
	to = &reply{gone: true}
	if x, _ := serve(t, "GET", hello, nil, to); !to.aborted || x.Problem == nil || x.Problem.Code != "client_gone" {
		t.Errorf("%+v %v", to, x.Problem)
	}
}

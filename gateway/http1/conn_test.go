package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-gateway/postern/gateway/caller"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// TestReplies is what a reply of each kind is on the wire, apart from its date.
func TestReplies(t *testing.T) {
	t.Parallel()
	whole := func(status int, h exchange.Header, length int64, body string, trailer exchange.Header) func(context.Context, *exchange.Exchange) {
		return func(_ context.Context, x *exchange.Exchange) {
			_ = x.Reply.Head(status, append(exchange.Header{{Name: "date", Value: "D"}}, h...), length)
			_, _ = x.Reply.Write([]byte(body))
			_ = x.Reply.End(trailer)
		}
	}
	fields := exchange.Header{{Name: "x-one", Value: "1"}, {Name: "x-one", Value: "2"}, {Name: "etag", Value: `"a"`}}
	framing := exchange.Header{{Name: "connection", Value: "x"}, {Name: "keep-alive", Value: "1"}, {Name: "proxy-connection", Value: "x"}, {Name: "transfer-encoding", Value: "gzip"},
		{Name: "upgrade", Value: "x"}, {Name: "te", Value: "x"}, {Name: "content-length", Value: "99"}, {Name: "trailer", Value: "x-t"}}
	trailer := exchange.Header{{Name: "x-t", Value: "1"}, {Name: "content-length", Value: "5"}, {Name: "bad name", Value: "1"}, {Name: "x-bad", Value: "\r\n"}, {Name: "x-u", Value: ""}}
	for name, c := range map[string]struct {
		request string
		handler func(context.Context, *exchange.Exchange)
		want    string
	}{
		"length":          {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", whole(200, fields, 2, "hi", nil), "HTTP/1.1 200 OK\r\nDate: D\r\nX-One: 1\r\nX-One: 2\r\nEtag: \"a\"\r\nContent-Length: 2\r\n\r\nhi"},
		"chunked":         {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", whole(200, nil, -1, "hello world, again", trailer), "HTTP/1.1 200 OK\r\nDate: D\r\nTransfer-Encoding: chunked\r\n\r\n12\r\nhello world, again\r\n0\r\nX-T: 1\r\nX-U: \r\n\r\n"},
		"chunked, empty":  {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", whole(200, nil, -1, "", nil), "HTTP/1.1 200 OK\r\nDate: D\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		"empty":           {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", whole(404, nil, 0, "", nil), "HTTP/1.1 404 Not Found\r\nDate: D\r\nContent-Length: 0\r\n\r\n"},
		"framing":         {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", whole(200, framing, 2, "hi", trailer), "HTTP/1.1 200 OK\r\nDate: D\r\nContent-Length: 2\r\n\r\nhi"},
		"announced":       {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", whole(200, framing, -1, "", nil), "HTTP/1.1 200 OK\r\nDate: D\r\nTrailer: x-t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		"HEAD":            {"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", whole(200, nil, 9, "123456789", nil), "HTTP/1.1 200 OK\r\nDate: D\r\nContent-Length: 9\r\n\r\n"},
		"HEAD, unknown":   {"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", whole(200, nil, -1, "1", trailer), "HTTP/1.1 200 OK\r\nDate: D\r\n\r\n"},
		"204":             {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", whole(204, nil, 0, "", nil), "HTTP/1.1 204 No Content\r\nDate: D\r\n\r\n"},
		"304":             {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", whole(304, nil, 9, "", nil), "HTTP/1.1 304 Not Modified\r\nDate: D\r\n\r\n"},
		"unknown status":  {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", whole(599, nil, 0, "", nil), "HTTP/1.1 599 \r\nDate: D\r\nContent-Length: 0\r\n\r\n"},
		"asked to close":  {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", whole(200, nil, 0, "", nil), "HTTP/1.1 200 OK\r\nDate: D\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		"1.0":             {"GET / HTTP/1.0\r\n\r\n", whole(200, nil, 2, "hi", trailer), "HTTP/1.0 200 OK\r\nDate: D\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"},
		"1.0, unknown":    {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", whole(200, nil, -1, "hi", trailer), "HTTP/1.0 200 OK\r\nDate: D\r\nConnection: close\r\n\r\nhi"},
		"1.0, keep-alive": {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", whole(200, nil, 2, "hi", nil), "HTTP/1.0 200 OK\r\nDate: D\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi"},
		"1.0, 204":        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", whole(204, nil, -1, "", nil), "HTTP/1.0 204 No Content\r\nDate: D\r\nConnection: keep-alive\r\n\r\n"},
		"body not read": {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n", whole(403, nil, 0, "", nil),
			"HTTP/1.1 403 Forbidden\r\nDate: D\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		"interim": {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", func(ctx context.Context, x *exchange.Exchange) {
			_ = x.Reply.Interim(103, exchange.Header{{Name: "link", Value: "</a>"}, {Name: "content-length", Value: "3"}})
			whole(200, nil, 0, "", nil)(ctx, x)
		}, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nDate: D\r\nContent-Length: 0\r\n\r\n"},
		"interim to 1.0": {"GET / HTTP/1.0\r\n\r\n", func(ctx context.Context, x *exchange.Exchange) {
			_ = x.Reply.Interim(103, nil)
			whole(200, nil, 0, "", nil)(ctx, x)
		}, "HTTP/1.0 200 OK\r\nDate: D\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		"split head": {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", func(ctx context.Context, x *exchange.Exchange) {
			for _, f := range []exchange.Field{{Name: "x", Value: "a\r\nb: c"}, {Name: "x\r\ny", Value: "1"}, {Name: "", Value: "1"}, {Name: "x", Value: "\x00"}, {Name: "a b", Value: "1"}} {
				if x.Reply.Head(200, exchange.Header{f}, 0) == nil || x.Reply.Interim(103, exchange.Header{f}) == nil {
					panic(f)
				}
			}
			whole(200, nil, 0, "", nil)(ctx, x)
		}, "HTTP/1.1 200 OK\r\nDate: D\r\nContent-Length: 0\r\n\r\n"},
	} {
		if got := run(c.request, 1<<20, generous(), c.handler); got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", name, got, c.want)
		}
	}
	advertised := generous()
	advertised.terms.AltSvc = `h3=":1"`
	got := run("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1<<20, advertised, whole(200, exchange.Header{{Name: "alt-svc", Value: "upstream's"}}, 0, "", nil))
	if want := "HTTP/1.1 200 OK\r\nDate: D\r\nContent-Length: 0\r\nAlt-Svc: h3=\":1\"\r\n\r\n"; got != want {
		t.Errorf("alt-svc: %q", got)
	}
	got = run("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1<<20, generous(), echo)
	if list := answers(t, got); len(list) != 1 || list[0].header.Get("Date") == "" {
		t.Errorf("date: %q", got)
	} else if at, err := http.ParseTime(list[0].header.Get("Date")); err != nil || time.Since(at) > time.Minute || time.Since(at) < -time.Minute {
		t.Errorf("date: %v %v", at, err)
	}
}

// TestWrites counts system calls: head and body of a small reply leave together, and so does a chunk with what is around it.
func TestWrites(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handler func(x *exchange.Exchange)
		want    int
	}{
		"small": {func(x *exchange.Exchange) { reply(x, 200, strings.Repeat("a", 10<<10)) }, 1},
		"chunked": {func(x *exchange.Exchange) {
			_ = x.Reply.Head(200, nil, -1)
			for range 10 {
				_, _ = x.Reply.Write([]byte("a"))
			}
			_ = x.Reply.End(nil)
		}, 1},
		"events": {func(x *exchange.Exchange) {
			_ = x.Reply.Head(200, nil, -1)
			for range 10 {
				_, _ = x.Reply.Write([]byte("a"))
				_ = x.Reply.Flush()
				_ = x.Reply.Flush()
			}
			_ = x.Reply.End(nil)
		}, 11},
	} {
		s := &script{octets: []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), piece: 1000}
		server(func(_ context.Context, x *exchange.Exchange) { c.handler(x) }, nil).Conn(s, nil, &caller.Peer{Connection: generous()}).Serve(t.Context())
		if s.writes != c.want || len(answers(t, s.sent.String())) != 1 {
			t.Errorf("%s: %d writes of %d octets", name, s.writes, s.sent.Len())
		}
	}
}

// TestSizes sends bodies of every size around the buffers' over TCP and through memory, in one piece and in several, with a
// length and chunked.
func TestSizes(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	body := make([]byte, 200<<10)
	for i := range body {
		body[i] = byte(rand.IntN(256))
	}
	handler := func(_ context.Context, x *exchange.Exchange) {
		var size, piece int
		_, _ = fmt.Sscanf(x.Request.Query, "%d,%d", &size, &piece)
		length := int64(-1)
		if x.Request.Path == "/length" {
			length = int64(size)
		}
		_ = x.Reply.Head(200, nil, length)
		for rest := body[:size]; len(rest) > 0; {
			n := min(piece, len(rest))
			if _, err := x.Reply.Write(rest[:n]); err != nil {
				t.Error(err)
			}
			rest = rest[n:]
		}
		_ = x.Reply.End(nil)
	}
	s := server(handler, nil)
	var serving sync.WaitGroup
	serving.Go(func() {
		if conn, err := ln.Accept(); err == nil {
			s.Conn(conn, nil, &caller.Peer{Connection: generous()}).Serve(context.Background())
		}
	})
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(client)
	for _, size := range []int{0, 1, 15, 4095, 4096, 4097, 16100, 16384, 16385, 32 << 10, 65535, 65536, 65537, 200 << 10} {
		for _, piece := range []int{1000, 4096, 5000, 16383, 16384, 40000, 200 << 10} {
			for _, path := range []string{"/length", "/chunked"} {
				request := fmt.Sprintf("GET %s?%d,%d HTTP/1.1\r\nHost: a\r\n\r\n", path, size, piece)
				_, _ = io.WriteString(client, request)
				resp, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, body[:size]) {
					t.Fatalf("%s: %d octets, %v", request, len(got), err)
				}
				if got := answers(t, run(request, 1000, generous(), handler)); len(got) != 1 || got[0].body != string(body[:size]) {
					t.Fatalf("%s in memory: %d answers", request, len(got))
				}
			}
		}
	}
	_ = client.Close()
	serving.Wait()
}

// TestNeverWhole has handlers that do not end their reply in every way there is: the client can always tell.
func TestNeverWhole(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]func(x *exchange.Exchange){
		"abort":     func(x *exchange.Exchange) { x.Reply.Abort() },
		"head only": func(x *exchange.Exchange) { _ = x.Reply.Head(200, nil, 2) },
		"abort after length": func(x *exchange.Exchange) {
			_ = x.Reply.Head(200, nil, 2)
			_, _ = x.Reply.Write([]byte("hi"))
			x.Reply.Abort()
		},
		"forgets end":         func(x *exchange.Exchange) { _ = x.Reply.Head(200, nil, 2); _, _ = x.Reply.Write([]byte("hi")) },
		"forgets end chunked": func(x *exchange.Exchange) { _ = x.Reply.Head(200, nil, -1); _, _ = x.Reply.Write([]byte("hi")) },
		"too short": func(x *exchange.Exchange) {
			_ = x.Reply.Head(200, nil, 3)
			_, _ = x.Reply.Write([]byte("hi"))
			_ = x.Reply.End(nil)
		},
		"too short, none":  func(x *exchange.Exchange) { _ = x.Reply.Head(200, nil, 3); _ = x.Reply.End(nil) },
		"panics late":      func(x *exchange.Exchange) { _ = x.Reply.Head(200, nil, -1); _ = x.Reply.Flush(); panic("late") },
		"aborting panic":   func(x *exchange.Exchange) { _ = x.Reply.Head(200, nil, 0); panic(http.ErrAbortHandler) },
		"abort no content": func(x *exchange.Exchange) { _ = x.Reply.Head(204, nil, 0); x.Reply.Abort() },
	} {
		const next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
		o := generous()
		served := 0
		sent := run("GET / HTTP/1.1\r\nHost: a\r\n\r\n"+next, 1<<20, o, func(_ context.Context, x *exchange.Exchange) { served++; handler(x) })
		for _, a := range answers(t, sent) {
			if a.whole {
				t.Errorf("%s: looks whole: %q", name, sent)
			}
		}
		if served != 1 || o.open != 0 {
			t.Errorf("%s: %d requests were served, %d are open", name, served, o.open)
		}
		o = generous()
		if sent := run("GET / HTTP/1.0\r\n\r\n", 1<<20, o, func(_ context.Context, x *exchange.Exchange) { handler(x) }); sent != "" && o.reset == 0 {
			for _, a := range answers(t, sent) {
				if a.whole {
					t.Errorf("%s to 1.0: looks whole: %q", name, sent)
				}
			}
		}
	}
	if got := statuses(t, run("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 1<<20, generous(), func(context.Context, *exchange.Exchange) { panic("early") })); !slices.Equal(got, []int{500, 500}) {
		t.Errorf("panic: %v", got)
	}
}

// TestOrder refuses calls out of order without harm, and whatever is called when the exchange is over: the next one's reply is
// not touched.
func TestOrder(t *testing.T) {
	t.Parallel()
	var kept *exchange.Exchange
	sent := run("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nagain", 1<<20, generous(), func(ctx context.Context, x *exchange.Exchange) {
		if x.Request.Path == "/2" {
			old := kept.Reply
			_, err := old.Write([]byte("stray"))
			_, upgrade := old.Upgrade(nil)
			_, read := kept.Request.Body.Read(make([]byte, 5))
			for name, err := range map[string]error{"write": err, "upgrade": upgrade, "read": read, "head": old.Head(500, nil, 0), "flush": old.Flush(), "end": old.End(nil), "interim": old.Interim(103, nil)} {
				if err == nil || exchange.AtEnd(err) {
					t.Errorf("%s works after the exchange", name)
				}
			}
			old.Abort()
			_ = kept.Request.Body.Close()
			if kept.Request.Path != "/1" || kept.Request.Body.Trailer() != nil {
				t.Error("a kept exchange has changed")
			}
			echo(ctx, x)
			return
		}
		kept = x
		r := x.Reply
		_, writeErr := r.Write([]byte("x"))
		for name, err := range map[string]error{
			"flush": r.Flush(), "end": r.End(nil), "write": writeErr, "head 100": r.Head(100, nil, 0), "head 1000": r.Head(1000, nil, 0), "interim 101": r.Interim(101, nil), "interim 200": r.Interim(200, nil),
		} {
			if err == nil {
				t.Errorf("%s before the head", name)
			}
		}
		if err := r.Head(200, nil, 2); err != nil {
			t.Error(err)
		}
		if r.Head(200, nil, 2) == nil || r.Interim(103, nil) == nil {
			t.Error("a second head")
		}
		if _, err := r.Write([]byte("abc")); err == nil {
			t.Error("more than the length")
		}
		_, _ = r.Write([]byte("ab"))
		if err := r.End(nil); err != nil {
			t.Error(err)
		}
		if _, err := r.Write([]byte("x")); err == nil || r.End(nil) == nil || r.Flush() == nil {
			t.Error("after the end")
		}
	})
	if got := answers(t, sent); len(got) != 2 || got[0].body != "ab" || got[1].body != "/2 again" {
		t.Errorf("got %q", sent)
	}
}

// TestBodies says whose fault it was that a body did not come whole.
func TestBodies(t *testing.T) {
	t.Parallel()
	const head = "POST / HTTP/1.1\r\nHost: a\r\n"
	for name, c := range map[string]struct {
		octets string
		want   error
	}{
		"length":            {head + "Content-Length: 2\r\n\r\nhi", nil},
		"length, cut":       {head + "Content-Length: 3\r\n\r\nhi", exchange.ErrClientGone},
		"chunked":           {head + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", nil},
		"cut in a chunk":    {head + "Transfer-Encoding: chunked\r\n\r\n3\r\nhi", exchange.ErrClientGone},
		"cut in a size":     {head + "Transfer-Encoding: chunked\r\n\r\n3", exchange.ErrClientGone},
		"cut before the 0":  {head + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", exchange.ErrClientGone},
		"cut in trailer":    {head + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", exchange.ErrClientGone},
		"broken":            {head + "Transfer-Encoding: chunked\r\n\r\nz\r\n", exchange.ErrClientBody},
		"at the limit":      {head + "Content-Length: 100\r\n\r\n" + strings.Repeat("a", 100), nil},
		"announced too big": {head + "Content-Length: 101\r\n\r\n" + strings.Repeat("a", 101), exchange.ErrBodyTooLarge},
		"chunks too big":    {head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\na\r\n", 101) + "0\r\n\r\n", exchange.ErrBodyTooLarge},
		"chunks at limit":   {head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\na\r\n", 100) + "0\r\n\r\n", nil},
	} {
		for _, piece := range []int{1, 3, 1 << 20} {
			o := generous()
			o.terms.MaxBody = 100
			var err, again error
			octets := c.octets
			if !errors.Is(c.want, exchange.ErrClientGone) {
				octets += "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
			}
			sent := run(octets, piece, o, func(_ context.Context, x *exchange.Exchange) {
				if x.Request.Path == "/next" {
					reply(x, 200, "")
					return
				}
				_, err = io.ReadAll(x.Request.Body)
				_, again = x.Request.Body.Read(make([]byte, 1))
				if err != nil && x.Request.Body.Trailer() != nil {
					t.Errorf("%s: a trailer of what never ended", name)
				}
				reply(x, 200, "")
			})
			if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) || err != nil && !errors.Is(again, c.want) {
				t.Errorf("%s in pieces of %d: %v, then %v", name, piece, err, again)
			}
			got := answers(t, sent)
			if c.want != nil && (len(got) != 1 || !got[0].close) {
				t.Errorf("%s: %q", name, sent)
			}
			if c.want == nil && len(got) != 2 {
				t.Errorf("%s: %q", name, sent)
			}
		}
	}
}

// TestLeftBodies goes on after a body that nobody wanted, when it is not too long.
func TestLeftBodies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		octets string
		want   int
	}{
		"length":       {"Content-Length: 100000\r\n\r\n" + strings.Repeat("a", 100000), 2},
		"chunked":      {"Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\na\r\n", 1000) + "0\r\nA: b\r\n\r\n", 2},
		"long":         {"Content-Length: 300000\r\n\r\n" + strings.Repeat("a", 300000), 1},
		"long chunked": {"Transfer-Encoding: chunked\r\n\r\n493e0\r\n" + strings.Repeat("a", 300000) + "\r\n0\r\n\r\n", 1},
		"broken":       {"Transfer-Encoding: chunked\r\n\r\nz\r\n", 1},
		"expected":     {"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello", 1},
	} {
		sent := run("POST / HTTP/1.1\r\nHost: a\r\n"+c.octets+"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1000, generous(), func(_ context.Context, x *exchange.Exchange) { reply(x, 200, "") })
		if got := statuses(t, sent); len(got) != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestDeadlines is the time a client has for everything.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		send  func(c net.Conn)
		least time.Duration // the connection is not over before
		most  time.Duration // and is after
		want  []int
	}{
		"nothing":   {func(net.Conn) {}, 10 * time.Second, 12 * time.Second, nil},
		"half head": {func(c net.Conn) { _, _ = io.WriteString(c, "GET / HT") }, 10 * time.Second, 11 * time.Second, []int{408}},
		"dripping head": {func(c net.Conn) {
			for _, err := io.WriteString(c, "GET / HTTP/1.1\r\nX: "); err == nil; _, err = io.WriteString(c, "a") {
				time.Sleep(3 * time.Second)
			}
		}, 10 * time.Second, 11 * time.Second, []int{408}},
		"idle": {func(c net.Conn) { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n") }, 30 * time.Second, 35 * time.Second, []int{200}},
		"half body": {func(c net.Conn) {
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
		}, 10 * time.Second, 13 * time.Second, []int{400}},
		"dripping body": {func(c net.Conn) {
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
			for range 5 {
				time.Sleep(9 * time.Second)
				_, _ = io.WriteString(c, "a")
			}
		}, 75 * time.Second, 79 * time.Second, []int{200}},
		"second half head": {func(c net.Conn) {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			time.Sleep(25 * time.Second)
			_, _ = io.WriteString(c, "GET")
		}, 35 * time.Second, 36 * time.Second, []int{200, 408}},
		"body nobody wants": {func(c net.Conn) {
			_, _ = io.WriteString(c, "POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n")
			for _, err := io.WriteString(c, "a"); err == nil; _, err = io.WriteString(c, "a") {
				time.Sleep(3 * time.Second)
			}
		}, 10 * time.Second, 14 * time.Second, []int{200}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				client, _, done := pipe(generous(), func(ctx context.Context, x *exchange.Exchange) {
					if x.Request.Path == "/unread" {
						reply(x, 200, "")
						return
					}
					echo(ctx, x)
				})
				var sending sync.WaitGroup
				sending.Go(func() { c.send(client) })
				got, _ := io.ReadAll(client)
				<-done
				if took := time.Since(began); took < c.least || took > c.most || !slices.Equal(statuses(t, string(got)), c.want) {
					t.Errorf("%v after %v", statuses(t, string(got)), took)
				}
				_ = client.Close()
				sending.Wait()
			})
		})
	}
	t.Run("write", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			var ended error
			client, _, done := pipe(generous(), func(ctx context.Context, x *exchange.Exchange) {
				_ = x.Reply.Head(200, nil, -1)
				_, ended = x.Reply.Write(make([]byte, 1<<20))
				if ctx.Err() == nil {
					t.Error("the exchange goes on")
				}
			})
			_, _ = io.WriteString(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			<-done
			if took := time.Since(began); !errors.Is(ended, exchange.ErrClientGone) || took < 10*time.Second || took > 13*time.Second {
				t.Errorf("%v after %v", ended, took)
			}
			_ = client.Close()
		})
	})
}

// TestGone ends the context of a handler that takes long when the client goes, and only then.
func TestGone(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]string{
		"no body":   "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"body":      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
		"pipelined": "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		for _, wait := range []time.Duration{0, 100 * time.Millisecond, time.Second, time.Hour} {
			synctest.Test(t, func(t *testing.T) {
				var took time.Duration
				var began time.Time
				client, _, done := pipe(generous(), func(ctx context.Context, x *exchange.Exchange) {
					_, _ = io.Copy(io.Discard, x.Request.Body)
					began = time.Now()
					<-ctx.Done()
					took = time.Since(began)
				})
				_, _ = io.WriteString(client, request)
				time.Sleep(wait)
				_ = client.Close()
				<-done
				if took < wait || took > wait+2*watchAfter {
					t.Errorf("%s: went after %v, was noticed after %v", name, wait, took)
				}
			})
		}
	}
}

// TestWatchLosesNothing sends the next requests at all moments of a slow answer: none is lost, none is answered twice.
func TestWatchLosesNothing(t *testing.T) {
	t.Parallel()
	for _, late := range []time.Duration{0, watchAfter / 2, 2*watchAfter - 1, 2 * watchAfter, 2*watchAfter + 1, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			client, _, done := pipe(generous(), func(ctx context.Context, x *exchange.Exchange) {
				time.Sleep(800 * time.Millisecond)
				if ctx.Err() != nil {
					t.Error("cut")
				}
				echo(ctx, x)
			})
			var sending sync.WaitGroup
			sending.Go(func() {
				for i := range 5 {
					body := strings.Repeat("x", i*700)
					_, _ = fmt.Fprintf(client, "POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", i, len(body), body)
					time.Sleep(late)
				}
			})
			br := bufio.NewReader(client)
			for i := range 5 {
				resp, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatal(err)
				}
				if b, _ := io.ReadAll(resp.Body); string(b) != fmt.Sprintf("/%d %s", i, strings.Repeat("x", i*700)) {
					t.Errorf("answer %d: %.20q", i, b)
				}
			}
			sending.Wait()
			_ = client.Close()
			<-done
		})
	}
}

// TestDrain ends an idle connection at once, and a busy one with its reply.
func TestDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, before := range []string{"", "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"} {
			o := generous()
			client, c, done := pipe(o, echo)
			if before != "" {
				_, _ = io.WriteString(client, before)
				if _, err := http.ReadResponse(bufio.NewReader(client), nil); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			o.end()
			c.Drain()
			<-done
			_ = client.Close()
		}
		o := generous()
		client, c, done := pipe(o, func(ctx context.Context, x *exchange.Exchange) {
			time.Sleep(time.Second)
			echo(ctx, x)
		})
		_, _ = io.WriteString(client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
		synctest.Wait()
		o.end()
		c.Drain()
		time.Sleep(2 * time.Second)
		_, _ = io.WriteString(client, "llo")
		got, _ := io.ReadAll(client)
		if list := answers(t, string(got)); len(list) != 1 || list[0].body != "/ hello" || !list[0].close {
			t.Errorf("got %q", got)
		}
		<-done
		_ = client.Close()
	})
}

// TestWaitingIsCheap: a connection that waits, for its next request or for a slow answer, holds no buffer; and it goes on.
func TestWaitingIsCheap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		client, c, done := pipe(generous(), func(_ context.Context, x *exchange.Exchange) {
			_, _ = io.Copy(io.Discard, x.Request.Body)
			_ = x.Reply.Head(200, nil, -1)
			_, _ = x.Reply.Write([]byte("begun"))
			_ = x.Reply.Flush()
			<-goOn
			_ = x.Reply.End(nil)
		})
		br := bufio.NewReader(client)
		held := func() bool {
			synctest.Wait()
			return c.in != nil || c.store != nil || c.out != nil || c.space != nil
		}
		for i := range 3 {
			if held() {
				t.Errorf("before request %d a buffer is held", i)
			}
			go func() {
				_, _ = io.WriteString(client, "POST / HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("a", 6000*i)+"\r\nContent-Length: 5\r\n\r\nhello")
			}()
			resp, err := http.ReadResponse(br, nil)
			if err != nil || resp.StatusCode != 200 && i < 2 {
				t.Fatal(resp, err)
			}
			if i == 2 {
				break // too large a head
			}
			_, _ = io.ReadFull(resp.Body, make([]byte, 5))
			time.Sleep(time.Second)
			if held() {
				t.Errorf("during request %d a buffer is held", i)
			}
			goOn <- struct{}{}
			_, _ = io.ReadAll(resp.Body)
			time.Sleep(time.Second)
		}
		_ = client.Close()
		<-done
	})
}

// TestFullDuplex answers while the request still comes, line by line, and with an interim reply between.
func TestFullDuplex(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, _, done := pipe(generous(), func(_ context.Context, x *exchange.Exchange) {
			_ = x.Reply.Interim(103, nil)
			_ = x.Reply.Head(200, nil, -1)
			_ = x.Reply.Flush()
			buf := make([]byte, 100)
			for {
				n, err := x.Request.Body.Read(buf)
				if n > 0 {
					_, _ = x.Reply.Write(bytes.ToUpper(buf[:n]))
					_ = x.Reply.Flush()
				}
				if err != nil {
					break
				}
			}
			_ = x.Reply.End(x.Request.Body.Trailer())
		})
		go func() {
			_, _ = io.WriteString(client, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
		}()
		br := bufio.NewReader(client)
		if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 103 {
			t.Fatal(resp, err)
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(resp.Body)
		for i := range 5 {
			line := fmt.Sprintf("line %d\n", i)
			_, _ = fmt.Fprintf(client, "%x\r\n%s\r\n", len(line), line)
			if got, err := lines.ReadString('\n'); err != nil || got != strings.ToUpper(line) {
				t.Fatalf("got %q %v", got, err)
			}
			time.Sleep(9 * time.Second)
		}
		_, _ = io.WriteString(client, "0\r\nX-Sum: 5\r\n\r\n")
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 || resp.Trailer.Get("X-Sum") != "5" {
			t.Errorf("end: %q %v %v", rest, err, resp.Trailer)
		}
		_ = client.Close()
		<-done
	})
}

// TestExpect sends 100 when the body is wanted, once, and not when it is there or will not be read.
func TestExpect(t *testing.T) {
	t.Parallel()
	const head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
	synctest.Test(t, func(t *testing.T) {
		client, _, done := pipe(generous(), echo)
		br := bufio.NewReader(client)
		for range 2 {
			_, _ = io.WriteString(client, head)
			if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 100 {
				t.Fatal(resp, err)
			}
			_, _ = io.WriteString(client, "hello")
			if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 200 || resp.Close {
				t.Fatal(resp, err)
			} else if b, _ := io.ReadAll(resp.Body); string(b) != "/ hello" {
				t.Fatalf("%q", b)
			}
		}
		_ = client.Close()
		<-done
	})
	if got := statuses(t, run(head+"hello", 1<<20, generous(), echo)); !slices.Equal(got, []int{200}) {
		t.Errorf("the body was there: %v", got)
	}
	early := func(_ context.Context, x *exchange.Exchange) {
		_ = x.Reply.Head(403, nil, 0)
		_ = x.Reply.Flush()
		_, _ = io.Copy(io.Discard, x.Request.Body)
		_ = x.Reply.End(nil)
	}
	if got := answers(t, run(head, 1<<20, generous(), early)); len(got) != 1 || got[0].status != 403 || !got[0].close {
		t.Errorf("after the reply: %v", got)
	}
	if got := statuses(t, run(strings.Replace(strings.Replace(head, "1.1", "1.0", 1), "100-c", "x", 1)+"hello", 1, generous(), echo)); !slices.Equal(got, []int{200}) {
		t.Errorf("HTTP/1.0 knows no expectations: %v", got)
	}
}

// TestUpgrade hands over the stream with what came early, also after the watch has begun, and keeps write deadlines.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	const head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	for _, late := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			client, _, done := pipe(generous(), func(_ context.Context, x *exchange.Exchange) {
				time.Sleep(late)
				rw, err := x.Reply.Upgrade(exchange.Header{{Name: "sec-websocket-accept", Value: "k"}, {Name: "content-length", Value: "5"}})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := x.Reply.Upgrade(nil); err == nil || x.Reply.Head(200, nil, 0) == nil {
					t.Error("two replies")
				}
				buf := make([]byte, 10)
				if _, err := io.ReadFull(rw, buf); err != nil {
					t.Error(err)
				}
				_, _ = rw.Write(bytes.ToUpper(buf))
			})
			go func() {
				_, _ = io.WriteString(client, head+"hello")
				time.Sleep(time.Hour) // no deadline of ours bounds waiting
				_, _ = io.WriteString(client, "world")
			}()
			got, _ := io.ReadAll(client)
			if want := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-Websocket-Accept: k\r\n\r\nHELLOWORLD"; string(got) != want {
				t.Errorf("got %q", got)
			}
			<-done
			_ = client.Close()
		})
	}
	sent := run(head+"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", 1<<20, generous(), echo)
	if got := answers(t, sent); len(got) != 1 || !got[0].close || got[0].body != "/ " {
		t.Errorf("not taken: %q", sent)
	}
	run("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1<<20, generous(), func(_ context.Context, x *exchange.Exchange) {
		if _, err := x.Reply.Upgrade(nil); !errors.Is(err, exchange.ErrNoUpgrade) {
			t.Errorf("not asked for: %v", err)
		}
		reply(x, 200, "")
	})
}

// TestLast announces the end with the reply and takes no request behind it.
func TestLast(t *testing.T) {
	t.Parallel()
	o := generous()
	sent := run(strings.Repeat("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 5), 1<<20, o, func(ctx context.Context, x *exchange.Exchange) {
		if o.begun == 3 {
			o.end()
		}
		echo(ctx, x)
	})
	if got := answers(t, sent); len(got) != 3 || got[1].close || !got[2].close {
		t.Errorf("got %+v", got)
	}
}

// TestHammer has many clients that send, stall, stop and leave in all ways, and handlers that close, abandon and abort in all
// ways from several goroutines. What is asserted is that every reply that looks whole is the right one, and that all ends.
func TestHammer(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := generous()
	var strays sync.WaitGroup
	s := server(func(ctx context.Context, x *exchange.Exchange) {
		switch rand.IntN(8) {
		case 0:
			strays.Go(func() { _, _ = io.Copy(io.Discard, x.Request.Body) })
		case 1:
			strays.Go(func() { _ = x.Request.Body.Close() })
			_, _ = io.Copy(io.Discard, x.Request.Body)
		case 2:
			strays.Go(func() { _, _ = x.Reply.Write([]byte("stray")); x.Reply.Abort() })
		case 3:
			x.Reply.Abort()
			return
		case 4:
			time.Sleep(time.Duration(rand.IntN(3)) * watchAfter)
			_, _ = io.Copy(io.Discard, x.Request.Body)
		default:
			_, _ = io.Copy(io.Discard, x.Request.Body)
		}
		length := int64(-1)
		text := strings.Repeat(x.Request.Query, 100)
		if rand.IntN(2) == 0 {
			length = int64(len(text))
		}
		_ = x.Reply.Head(200, nil, length)
		if rand.IntN(4) == 0 {
			_ = x.Reply.Flush()
		}
		_, _ = x.Reply.Write([]byte(text))
		_ = x.Reply.End(nil)
		_ = ctx
	}, nil)
	var serving, clients sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.Conn(conn, nil, &caller.Peer{Connection: o}).Serve(context.Background()) })
		}
	})
	var whole atomic.Int64
	for range 16 {
		clients.Go(func() {
			for i := 0; i < 40; {
				conn, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				br := bufio.NewReader(conn)
				for ; i < 40; i++ {
					mark := fmt.Sprintf("m%d", rand.Uint32())
					body := strings.Repeat("b", rand.IntN(5000))
					request := fmt.Sprintf("POST /?%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", mark, len(body), body)
					if rand.IntN(2) == 0 {
						request = fmt.Sprintf("POST /?%s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\nb%s\r\n0\r\n\r\n", mark, len(body)+1, body)
					}
					if rand.IntN(10) == 0 {
						request = request[:rand.IntN(len(request))]
						_, _ = io.WriteString(conn, request)
						i++
						break
					}
					_, _ = io.WriteString(conn, request)
					resp, err := http.ReadResponse(br, nil)
					if err != nil {
						i++
						break
					}
					got, err := io.ReadAll(resp.Body)
					if err != nil {
						i++
						break
					}
					whole.Add(1)
					if text := string(got); text != strings.Repeat(mark, 100) && !strings.HasPrefix(text, "stray") && !strings.HasSuffix(text, "stray") {
						t.Errorf("another's reply: %.50q instead of %q", got, mark)
					}
					if resp.Close {
						i++
						break
					}
				}
				_ = conn.Close()
			}
		})
	}
	clients.Wait()
	_ = ln.Close()
	serving.Wait()
	strays.Wait()
	if o.open != 0 || whole.Load() == 0 {
		t.Errorf("%d exchanges are open, %d replies were whole", o.open, whole.Load())
	}
}

// TestBuffered: what has come of a body with its head is known, and not what is to come or the next request.
func TestBuffered(t *testing.T) {
	t.Parallel()
	const next = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	for sent, want := range map[string]int{
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + next:                            5,
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhello":                                   5,
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n":                                        0,
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + next: 0,
	} {
		var got []int
		run(sent, 1<<20, generous(), func(_ context.Context, x *exchange.Exchange) {
			if b, ok := x.Request.Body.(interface{ Buffered() int }); ok && x.Request.Method == "POST" {
				got = append(got, b.Buffered())
				_, _ = io.ReadAll(x.Request.Body)
				got = append(got, b.Buffered())
			}
			reply(x, 200, "ok")
		})
		if !slices.Equal(got, []int{want, 0}) {
			t.Errorf("%q: %d, want %d and nothing left", sent, got, want)
		}
	}
}

package client

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// replay is a connection that takes whatever it is given and answers with answer, at most step octets a read.
type replay struct {
	net.Conn
	answer string
	step   int
}

func (r *replay) Read(p []byte) (int, error) {
	if r.answer == "" {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), max(r.step, 1))], r.answer)
	r.answer = r.answer[n:]
	return n, nil
}

func (r *replay) Write(p []byte) (int, error)     { return len(p), nil }
func (r *replay) Close() error                    { return nil }
func (r *replay) SetDeadline(time.Time) error     { return nil }
func (r *replay) SetReadDeadline(time.Time) error { return nil }

// outcome is what came of an answer.
type outcome struct {
	status        int
	header        []string
	body          string
	trailer       []string
	refused, fine bool
}

// ours reads an answer with a Conn.
func ours(t *testing.T, answer string, step int) outcome {
	c := New(&replay{answer: answer, step: step})
	resp := new(Response)
	o := outcome{}
	if err := c.Do(get(), resp); err != nil {
		o.refused = true
		c.End()
		return o
	}
	o.status = resp.Status
	for _, f := range resp.Header {
		if f.Name == "" || strings.ContainsAny(f.Name, " :\r\n\t") || strings.ToLower(f.Name) != f.Name || HopByHop(f.Name) || strings.ContainsAny(f.Value, "\r\n\x00") || strings.Trim(f.Value, " \t") != f.Value {
			t.Fatalf("a field %q: %q", f.Name, f.Value)
		}
		o.header = append(o.header, f.Name+"="+strings.Join(strings.Fields(f.Value), " "))
	}
	b, err := io.ReadAll(resp.Body)
	o.body, o.fine = string(b), err == nil
	if err == nil {
		for _, f := range resp.Body.Trailer() {
			o.trailer = append(o.trailer, f.Name+"="+f.Value)
		}
	}
	if resp.Length >= 0 && o.fine && resp.Status != 204 && resp.Status != 304 && int64(len(b)) != resp.Length {
		t.Fatalf("%d octets instead of %d", len(b), resp.Length)
	}
	c.End()
	slices.Sort(o.header)
	return o
}

// theirs reads it with the standard library, which is more lenient.
func theirs(answer string) outcome {
	r := bufio.NewReaderSize(strings.NewReader(answer), 1<<20)
	resp, err := http.ReadResponse(r, nil)
	for n := 0; err == nil && resp.StatusCode < 200 && resp.StatusCode != 101 && n < maxInterim; n++ {
		resp, err = http.ReadResponse(r, nil)
	}
	if err != nil {
		return outcome{refused: true}
	}
	o := outcome{status: resp.StatusCode}
	b, err := io.ReadAll(resp.Body)
	o.body, o.fine = string(b), err == nil
	for key, values := range resp.Header {
		name := strings.ToLower(strings.TrimRight(key, " \t"))
		if HopByHop(name) {
			continue
		}
		for _, v := range values {
			o.header = append(o.header, name+"="+strings.Join(strings.Fields(v), " "))
		}
	}
	slices.Sort(o.header)
	return o
}

// within reports whether the fields of a are b's; some of b's may be missing where Connection can have named them.
func within(a, b []string, some bool) bool {
	if !some {
		return slices.Equal(a, b)
	}
	for _, f := range a {
		if !slices.Contains(b, f) {
			return false
		}
	}
	return true
}

// seeds are answers of every kind.
var seeds = []string{
	"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-A: b\r\n\r\nfine",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n4;a=b\r\nfine\r\n0\r\nX-T: 1\r\n\r\n",
	"HTTP/1.1 200 OK\r\n\r\nto the end",
	"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
	"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
	"HTTP/1.1 200 OK\r\nX-A : a\r\nX-B: b\r\n\tc\r\nConnection: x-b, close\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nfine",
	"HTTP/1.1 200 OK\nContent-Length: 4\n\nfine",
	"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
	"HTTP/1.1 200 \x80\r\nX: \x7f\r\nY:\x00\r\n\r\n",
}

// FuzzResponse: an answer is read the same however its octets come; what is taken the standard library takes as well, and
// reads the same out of it.
func FuzzResponse(f *testing.F) {
	for _, s := range seeds {
		f.Add(s, 3)
	}
	f.Fuzz(func(t *testing.T, answer string, step int) {
		one := ours(t, answer, 1<<20)
		if other := ours(t, answer, step&63); other.refused != one.refused || !one.refused && (other.fine != one.fine || other.status != one.status || other.fine && other.body != one.body || !slices.Equal(other.header, one.header) || !slices.Equal(other.trailer, one.trailer)) {
			t.Fatalf("%q\nat once %+v\nin steps %+v", answer, one, other)
		}
		if one.refused || !one.fine || one.status == 101 {
			return
		}
		if them := theirs(answer); them.refused || !them.fine || them.status != one.status || them.body != one.body || !within(one.header, them.header, strings.Contains(strings.ToLower(answer), "connection")) {
			t.Fatalf("%q\nours %+v\ntheirs %+v", answer, one, them)
		}
	})
}

// FuzzChunks: a chunked body is read the same where it lies and elsewhere, at once and in steps; what is taken the standard
// library takes as well, and reads the same out of it.
func FuzzChunks(f *testing.F) {
	for _, s := range []string{"5\r\nhello\r\n0\r\n\r\n", "5;a=\"b\"\r\nhello\r\n0\r\nX: y\r\n\r\nmore", "000a \t;\r\n0123456789\r\n1\r\n\n\r\n0\r\n\r\n", "ffffffffffffffff\r\n", "0\r\nX: " + strings.Repeat("y", 100) + "\r\n\r\n"} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, body []byte, step int) {
		whole := make([]byte, len(body))
		var d chunks
		n, taken, err := d.decode(whole, body)
		whole = whole[:n]
		var stepped []byte
		var e chunks
		var serr error
		at := 0
		for size := step&31 + 1; at < len(body) && !e.done() && serr == nil; {
			part := bytes.Clone(body[at:min(at+size, len(body))])
			k, used, err := e.decode(part, part) // where it lies
			stepped, serr = append(stepped, part[:k]...), err
			if at += used; err == nil && used < len(part) && !e.done() {
				t.Fatalf("%q: %d of %d taken", part, used, len(part))
			}
		}
		if (err == nil) != (serr == nil) || err == nil && (d.done() != e.done() || taken != at || !bytes.Equal(whole, stepped) || line(d.fields) != line(e.fields)) {
			t.Fatalf("at once %q %d %v, in steps %q %d %v", whole, taken, err, stepped, at, serr)
		}
		if err != nil || !d.done() {
			return
		}
		theirs, terr := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(body)))
		if terr != nil || !bytes.Equal(theirs, whole) {
			t.Fatalf("%q: ours %q, theirs %q, %v", body, whole, theirs, terr)
		}
	})
}

// FuzzTrailer: of a trailer section only fields that can be passed on come out.
func FuzzTrailer(f *testing.F) {
	for _, s := range []string{"X-A: 1\r\n\r\n", "\r\n", "Content-Length: 1\r\nX: \ty \r\n\r\n", "X-A : 1\r\n\r\n", "X: 1\r\n 2\r\n\r\n", "a\n\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, section string) {
		_, trailer, err := exchanged("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"+section, 1<<20)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%q: %v is no Error", section, err)
			}
			return
		}
		if end := strings.Index("\r\n"+section, "\r\n\r\n"); end < 0 || strings.Count(section[:end], "\r\n") > maxFields {
			t.Fatalf("%q is no trailer section", section)
		}
		for _, x := range trailer {
			if HopByHop(x.Name) || x.Name == "" || strings.ToLower(x.Name) != x.Name || strings.ContainsAny(x.Name, " :\t\r\n") || strings.ContainsAny(x.Value, "\r\n\x00") {
				t.Fatalf("%q gives %q: %q", section, x.Name, x.Value)
			}
		}
	})
}

// FuzzRequest: whatever is in a request, another program reads one request out of what is sent, with the same method, target
// and field; or nothing is sent.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/a b", "c=d#e", "x-a", "value", "h")
	f.Add("POST", "/%2f?", "\r\n", "content-length", "5\r\nEvil: x", "h\r\nX: y")
	f.Add("G T", "/", "", "transfer-encoding", "chunked", "")
	f.Fuzz(func(t *testing.T, method, path, query, name, value, host string) {
		r := &Request{Method: method, Path: "/" + path, Query: query, Host: host, Header: exchange.Header{{Name: name, Value: value}}}
		b, ok := appendHead(nil, r, false)
		if !ok {
			return
		}
		in := bufio.NewReader(bytes.NewReader(b))
		got, err := http.ReadRequest(in)
		if err != nil {
			return // the library is stricter with hosts and methods; nothing was split
		}
		if got.Method != method || len(got.Header) > 2 || got.ContentLength > 0 || got.TransferEncoding != nil {
			t.Fatalf("%q read as %+v", b, got)
		}
		if got.Header.Get("Content-Length") != "" && got.ContentLength != 0 {
			t.Fatalf("%q", b)
		}
		if in.Buffered() != 0 {
			t.Fatalf("%q is more than one request", b)
		}
		if target, _, _ := strings.Cut(got.RequestURI, "?"); strings.ContainsAny(target, " #\r\n") {
			t.Fatalf("target %q", target)
		}
	})
}

package http1

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httputil"
	"reflect"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/caller"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/route"
)

// seen is one request as the engine understood it.
type seen struct {
	Method, Authority, Path, Query, Upgrade string
	Header, Trailer                         exchange.Header
	Length                                  int64
	Body                                    string
	Whole                                   bool
	Refused                                 bool // never reached the handler
}

// watch serves octets that come in pieces, and returns what was understood of them and what was answered.
func watch(octets string, piece int) (list []seen, sent string) {
	s := &script{octets: []byte(octets), piece: piece}
	server(func(_ context.Context, x *exchange.Exchange) {
		q := &x.Request
		b, err := io.ReadAll(q.Body)
		list = append(list, seen{Method: q.Method, Authority: q.Authority, Path: q.Path, Query: q.Query, Upgrade: q.Upgrade, Header: q.Header.Clone(), Trailer: q.Body.Trailer(),
			Length: q.Length, Body: string(b), Whole: err == nil})
		reply(x, 200, "")
	}, func(string) { list = append(list, seen{Refused: true}) }).Conn(s, nil, &caller.Peer{Connection: generous()}).Serve(context.Background())
	return list, s.sent.String()
}

func seeds(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"\r\nGET http://a/b?c HTTP/1.1\r\nHost: A\r\nConnection: close\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81\x00",
		"GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na",
		"GET /%2f HTTP/1.1\r\nHost: a\r\n\r\nGET /%41 HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		f.Add(s, 1)
		f.Add(s, 4096)
	}
	for _, r := range rules {
		for _, part := range append(r.good[:len(r.good):len(r.good)], r.bad...) {
			if len(part) < 200 {
				f.Add(strings.Replace(r.pattern, "%s", part, 1), 5)
			}
		}
	}
}

// FuzzServer checks for any octets: it does not matter in which pieces they come; what is understood is fit to be passed on;
// nothing is understood behind a request that was refused for its framing.
func FuzzServer(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, octets string, piece int) {
		if piece < 1 || piece > 1<<16 {
			piece = 7
		}
		got, sent := watch(octets, piece)
		whole, sentWhole := watch(octets, 1<<20)
		if !reflect.DeepEqual(got, whole) {
			t.Fatalf("pieces of %d: %+v, at once: %+v", piece, got, whole)
		}
		replies := 0
		for _, a := range answers(t, sent) {
			if a.status != 100 {
				replies++
			}
		}
		if replies != len(got) || len(got) != len(statuses(t, strings.ReplaceAll(sentWhole, "HTTP/1.1 100 Continue\r\n\r\n", ""))) {
			t.Fatalf("%d replies to %d requests: %q, at once %q", replies, len(got), sent, sentWhole)
		}
		for _, s := range got {
			if s.Refused {
				continue
			}
			if again, err := route.Canonical(s.Path); err != nil || again != s.Path {
				t.Fatalf("path %q", s.Path)
			}
			for _, field := range append(s.Header, s.Trailer...) {
				if strings.ToLower(field.Name) != field.Name || field.Name == "" || strings.ContainsAny(field.Name+field.Value, "\r\n\x00") || strings.ContainsAny(field.Name, "_: ") ||
					field.Value != strings.Trim(field.Value, " \t") {
					t.Fatalf("field %q", field)
				}
			}
			if s.Whole && s.Length >= 0 && s.Length != int64(len(s.Body)) {
				t.Fatalf("%d octets of %d", len(s.Body), s.Length)
			}
		}
	})
}

// FuzzStricter reads the same octets with net/http: whatever the engine takes, net/http takes too and understands alike. So
// there is no message that only we take for one.
func FuzzStricter(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, octets string, _ int) {
		got, _ := watch(octets, 1<<20)
		br := bufio.NewReaderSize(strings.NewReader(octets), 1<<16)
		for i, s := range got {
			if b, _ := br.Peek(2); bytes.Equal(b, crlf) {
				_, _ = br.Discard(2) // the server of net/http skips it, ReadRequest does not
			}
			req, err := http.ReadRequest(br)
			if s.Refused {
				if err != nil {
					return // refused by both
				}
				if _, err := io.Copy(io.Discard, req.Body); err != nil {
					return
				}
				continue
			}
			if err != nil {
				t.Fatalf("request %d of %q: net/http says %v, we took %+v", i, octets, err, s)
			}
			if req.Method != s.Method || req.ContentLength != s.Length || !strings.EqualFold(strings.TrimSuffix(req.Host, ":"), s.Authority) || req.URL.RawQuery != s.Query {
				t.Fatalf("request %d of %q: net/http has %s %q %q %d, we %+v", i, octets, req.Method, req.Host, req.URL.RawQuery, req.ContentLength, s)
			}
			path := req.URL.EscapedPath()
			if path == "" {
				path = "/"
			}
			if path, err := route.Canonical(path); err != nil || path != s.Path {
				t.Fatalf("request %d of %q: net/http has the path %q, we %q", i, octets, path, s.Path)
			}
			body, err := io.ReadAll(req.Body)
			if s.Whole && (err != nil || string(body) != s.Body) {
				t.Fatalf("request %d of %q: net/http has the body %q %v, we %q", i, octets, body, err, s.Body)
			}
			if !s.Whole || s.Upgrade != "" {
				if i != len(got)-1 {
					t.Fatalf("request %d of %q: something follows", i, octets)
				}
				return
			}
			for _, field := range s.Trailer {
				if _, ok := req.Trailer[http.CanonicalHeaderKey(field.Name)]; !ok {
					t.Fatalf("request %d of %q: net/http has no trailer %q", i, octets, field.Name)
				}
			}
		}
	})
}

// FuzzChunks compares what a chunked body is with the standard library's reading: we take no body that it does not, and the
// same octets of it.
func FuzzChunks(f *testing.F) {
	for _, r := range rules {
		if r.pattern != chunks {
			continue
		}
		for _, part := range append(r.good[:len(r.good):len(r.good)], r.bad...) {
			f.Add(part, 3)
		}
	}
	f.Fuzz(func(t *testing.T, octets string, piece int) {
		if piece < 1 || piece > 1<<16 {
			piece = 7
		}
		got, _ := watch("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+octets, piece)
		if len(got) == 0 || !got[0].Whole {
			return
		}
		want, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(octets)))
		if err != nil || string(want) != got[0].Body {
			t.Fatalf("the standard library reads %q %v, we %q", want, err, got[0].Body)
		}
	})
}

// FuzzChunkSize reads any line.
func FuzzChunkSize(f *testing.F) {
	for _, s := range []string{"0", "5;a=b", "ffffffffffffffff", "7fffffffffffffff", "5 ", "5 ;a", "", "g", "00000000000000005"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		size, extension, ok := parseChunkSize([]byte(s))
		if ok && (size < 0 || extension < 0 || extension >= len(s) || strings.ContainsAny(s, "\r\n\x00")) {
			t.Errorf("%q: %d %d", s, size, extension)
		}
	})
}

// FuzzTrailer reads any trailer section: what it keeps is fit to be passed on, and neither frames nor authenticates.
func FuzzTrailer(f *testing.F) {
	for _, s := range []string{"", "A: b\r\n", "A: b\r\nC:d\r\n", "Content-Length: 5\r\n", "A : b\r\n", "A: \x00\r\n", " A: b\r\n", "A_B: c\r\n", "A: b\n"} {
		f.Add(s, 2)
	}
	f.Fuzz(func(t *testing.T, section string, piece int) {
		if piece < 1 || piece > 1<<16 {
			piece = 7
		}
		got, _ := watch("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"+section+"\r\n", piece)
		if len(got) == 0 {
			t.Fatal("the head was not understood")
		}
		for _, field := range got[0].Trailer {
			if !TrailerAllowed(field.Name) || strings.ContainsAny(field.Name+field.Value, "\r\n\x00") || strings.ToLower(field.Name) != field.Name {
				t.Errorf("trailer %q", field)
			}
		}
	})
}

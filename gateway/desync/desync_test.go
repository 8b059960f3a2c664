package desync

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/postern-gateway/postern/gateway/desync/origin"
)

// TestCorpus: the corpus can be read, and has all that it is said to have.
func TestCorpus(t *testing.T) {
	t.Parallel()
	cases, err := Read(os.DirFS("testdata"))
	if err != nil {
		t.Fatal(err)
	}
	over := map[string]int{}
	hostile := 0
	for _, c := range cases {
		for _, o := range c.Over {
			over[o]++
		}
		if c.Hostile() {
			hostile++
		}
	}
	t.Logf("%d cases, %d of them about answers; by protocol %v", len(cases), hostile, over)
	if len(cases) < 300 || hostile < 100 || over["http1"] < 300 || over["http2"] < 100 || over["http3"] < 100 {
		t.Error("the corpus has lost cases")
	}
}

func TestReadFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"no note", "> GET / HTTP/1.1\n= 400 close\n", "why it is there"},
		{"nothing expected", "# x\n> GET / HTTP/1.1\n", "nothing is expected"},
		{"nothing sent", "# x\n= 400\n", "the client sends nothing"},
		{"no such line", "# x\n> a\nfoo bar\n= 400\n", "no such line"},
		{"no expectation", "# x\n> a\n= 200 POST\n", "no expectation"},
		{"no status", "# x\n> a\n= cut\n", "no expectation"},
		{"escape", "# x\n> \\q\n= 400\n", "octets"},
		{"then", "# x\n> a\nthen sleep\n= 400\n", "then"},
		{"upstream", "# x\n< a\nupstream sleep\n= 502\n", "upstream"},
		{"exception", "# x\n> a\n= 400\n~ nginx 405\n", "no exception"},
		{"variation", "# x\n> a\n* b\n= 400\n", "no variation"},
		{"two of a name", "# x\n> {*}\n* a = b\n* a = c\n= 400\n", "two cases called"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Read(fstest.MapFS{"f.txtar": {Data: []byte("-- c --\n" + tt.text)}})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestReadCase(t *testing.T) {
	t.Parallel()
	list, err := Read(fstest.MapFS{"f.txtar": {Data: []byte("-- c --\n# why\n> GET {*} HTTP/1.1\n> M: {1}\n>\n> a\\x00\\\n= 200 GET {*} 0 close | 400\n* one = /a\n* two = /{b*3}\n")}})
	if err != nil || len(list) != 2 {
		t.Fatal(err, len(list))
	}
	c := list[1]
	if c.Name != "f/c/two" || c.Note != "why" || len(c.Want) != 1 || len(c.Want[0]) != 2 {
		t.Errorf("%+v", c)
	}
	if got := expand(string(c.Octets), "host", "m"); got != "GET /bbb HTTP/1.1\r\nM: m.1\r\n\r\na\x00" {
		t.Errorf("%q", got)
	}
	if w := list[0].Want[0][0]; w != (Want{Status: 200, Method: "GET", Target: "/a", Length: 0, Close: true}) {
		t.Errorf("%+v", w)
	}
}

// TestTapNotices: an origin that reads a message otherwise than it was written is found out.
func TestTapNotices(t *testing.T) {
	t.Parallel()
	good := func(target string, body string) string {
		return "HTTP/1.1 200 OK\r\nEcho: " + origin.Account("x.1", "POST", len(body), origin.Digest([]byte(body)), target) + "\r\nContent-Length: 0\r\n\r\n"
	}
	const asked = "POST /a HTTP/1.1\r\nHost: h\r\nM: x.1\r\nContent-Length: 5\r\n\r\nhello"
	for _, tt := range []struct {
		name, up, down string
		cut            bool   // Postern's side ends behind up
		want           string // empty: nothing is wrong
	}{
		{name: "all well", up: asked, down: good("/a", "hello")},
		{name: "another length", up: asked, down: good("/a", "hell"), want: "the origin got"},
		{name: "another body", up: asked, down: good("/a", "hellO"), want: "the origin got"},
		{name: "another target", up: asked, down: good("/b", "hello"), want: "the origin got"},
		{name: "another marker", up: asked, down: strings.Replace(good("/a", "hello"), origin.Account("x.1", "", 0, "", "")[:6], "6161"+"2e", 1), want: "the origin got"},
		{name: "another path", up: asked, down: strings.Replace(good("/a", "hello"), "Content", "Origin-Path: 2f62\r\nContent", 1), want: "meant the path"},
		{name: "one more", up: asked, down: good("/a", "hello") + good("/evil", ""), want: "did not ask"},
		{name: "one more, refused", up: asked, down: good("/a", "hello") + "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", want: "did not ask"},
		{name: "half of one more", up: asked, down: good("/a", "hello") + "HTTP/1.1 4", want: "unfinished"},
		{name: "whole before it was", up: asked[:len(asked)-1], down: good("/a", "hello"), want: "did not complete"},
		{name: "whole when it was not", up: asked[:len(asked)-1], cut: true, down: good("/a", "hello"), want: "did not complete"},
		{name: "left unfinished", up: asked[:len(asked)-1], want: "left a request unfinished"},
		{name: "broken off", up: asked[:len(asked)-1], cut: true},
		{name: "two framings", up: strings.Replace(asked, "M:", "Transfer-Encoding: chunked\r\nM:", 1), want: "strict reader refuses"},
		{name: "two hosts", up: strings.Replace(asked, "M:", "Host: h\r\nM:", 1), want: "strict reader refuses"},
		{name: "bare LF", up: strings.Replace(asked, "h\r\n", "h\n", 1), want: "strict reader refuses"},
		{name: "space before a colon", up: strings.Replace(asked, "M:", "M :", 1), want: "strict reader refuses"},
		{name: "space in a target", up: strings.Replace(asked, "/a", "/a b", 1), want: "strict reader refuses"},
		{name: "absolute target", up: strings.Replace(asked, "/a", "http://h/a", 1), want: "strict reader refuses"},
		{name: "list of lengths", up: strings.Replace(asked, ": 5", ": 5, 5", 1), want: "strict reader refuses"},
		{name: "long length", up: strings.Replace(asked, ": 5", ": 05", 1), want: "strict reader refuses"},
		{name: "an evil request", up: strings.ReplaceAll(asked, "/a", "/evil"), down: good("/evil", "hello"), want: "no request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := &line{up: []byte(tt.up), down: []byte(tt.down), upEnd: tt.cut, downEnd: tt.cut}
			tap := &Tap{lines: []*line{l}, seen: map[string]*message{}}
			faults := strings.Join(append(tap.Check(false), tap.Check(true)...), "; ")
			if tt.want == "" && faults != "" || !strings.Contains(faults, tt.want) {
				t.Errorf("got %q, want %q", faults, tt.want)
			}
		})
	}
}

// TestNothingInBetween plays the corpus with nothing in Postern's place: most of what is refused must be found to have got
// through, or the corpus and its judge prove nothing.
func TestNothingInBetween(t *testing.T) {
	t.Parallel()
	cases, err := Read(os.DirFS("testdata"))
	if err != nil {
		t.Fatal(err)
	}
	origins, err := origin.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = origins.Stop() })
	played, found := 0, 0
	for _, c := range cases {
		if c.Over[0] != "http1" || c.Hostile() || c.Want[0][0].Status != 400 || c.Then != "" {
			continue
		}
		if strings.HasPrefix(c.Name, "chunk/size/") {
			continue // some of these Go waits for
		}
		tap, err := Listen(t.Context(), origins.List[0].Dial, false)
		if err != nil {
			t.Fatal(err)
		}
		l := &Lane{Name: "go", Plain: tap.Address(), Tap: tap, Record: &Record{}}
		played++
		if len(l.Run(t.Context(), c, "http1")) > 0 {
			found++
		} else {
			t.Log("not found: ", c.Name)
		}
		l.Close()
		_ = tap.Close()
	}
	if played < 150 || found < played*9/10 {
		t.Errorf("of %d cases %d were found to go wrong", played, found)
	}
}

// TestWrongAnswers: clients that get another's answer, or one in pieces, notice it.
func TestWrongAnswers(t *testing.T) {
	t.Parallel()
	ask := func(marker string) []byte { return raw(ordinary("GET", "h", marker)) }
	if m, _, err := parseRequest(ask("x")); err != nil || m.header.Get("m") != "x" {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, octets, method string
		eof                  bool
		want                 error  // errPartial, or nil
		refused              bool   // another error
		body                 string // otherwise
	}{
		{name: "length", octets: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", body: "ok"},
		{name: "chunks", octets: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", body: "ok"},
		{name: "head", method: "HEAD", octets: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"},
		{name: "204", octets: "HTTP/1.1 204 No Content\r\n\r\n"},
		{name: "until the end", octets: "HTTP/1.1 200 OK\r\n\r\nok", eof: true, body: "ok"},
		{name: "until the end, before it", octets: "HTTP/1.1 200 OK\r\n\r\nok", want: errPartial},
		{name: "short", octets: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", eof: true, want: errPartial},
		{name: "chunk cut", octets: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\no", eof: true, want: errPartial},
		{name: "two framings", octets: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n", refused: true},
		{name: "two lengths", octets: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", refused: true},
		{name: "bare CR", octets: "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", refused: true},
		{name: "status", octets: "HTTP/1.1 2000 OK\r\n\r\n", refused: true},
		{name: "status line", octets: "ok\r\n\r\n", refused: true},
		{name: "chunk size", octets: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\nok\r\n0\r\n\r\n", refused: true},
		{name: "chunk end", octets: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokxx0\r\n\r\n", refused: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, n, err := parseResponse([]byte(tt.octets), tt.method, tt.eof)
			switch {
			case tt.refused:
				if err == nil || errors.Is(err, errPartial) {
					t.Errorf("taken: %v", err)
				}
			case !errors.Is(err, tt.want):
				t.Errorf("got %v, want %v", err, tt.want)
			case err == nil && (string(m.body) != tt.body || n != len(tt.octets)):
				t.Errorf("%d octets, body %q", n, m.body)
			}
		})
	}
}

// FuzzRequest: what the tap takes for one request, Go's reader takes for the same.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET",
		"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\nGET",
		"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n05\r\nhello\r\n000\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, octets []byte) {
		m, n, err := parseRequest(octets)
		if err != nil {
			return
		}
		br := bufio.NewReader(bytes.NewReader(octets))
		r, err := http.ReadRequest(br)
		if err != nil {
			t.Skip("Go is stricter still: " + err.Error())
		}
		body, err := io.ReadAll(r.Body)
		rest, _ := io.ReadAll(br)
		if err != nil || r.Method != m.method || r.RequestURI != m.target || !bytes.Equal(body, m.body) || len(rest) != len(octets)-n {
			t.Fatalf("%q: Go took %s %q with %q and left %d, the tap %s %q with %q and left %d (%v)",
				octets, r.Method, r.RequestURI, body, len(rest), m.method, m.target, m.body, len(octets)-n, err)
		}
	})
}

// FuzzCase: whatever a file says, reading it ends with cases or an error.
func FuzzCase(f *testing.F) {
	f.Add("# x\n> GET {*} HTTP/1.1\n* a = b\n= 200 GET /a 0 | 400 close\n~ nginx: 405\n? a: b\n?- c\n")
	f.Add("over http2\n# x\n> :method: GET\n>\n> data\n+ a: b\nthen reset\n= reset\n")
	f.Add("# x\nask HEAD\n< HTTP/1.1 200 OK\n<< x\nupstream close\nonce\n= 200 cut\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseCase("f/c", text)
		if err == nil && len(list) == 0 {
			t.Fatalf("nothing came of %q", text)
		}
	})
}

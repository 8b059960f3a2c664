package route

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func must(t testing.TB, s string) *Pattern {
	t.Helper()
	p, err := ParsePattern(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return p
}

func TestParsePattern(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, method, host, path, names string }{
		{"/", "", "", "/", ""},
		{"POST /v1/chat/completions", "POST", "", "/v1/chat/completions", ""},
		{"Api.Example.com/x/{id}", "", "api.example.com", "/x/{id}", "id"},
		{"GET  example.com/files/{dir}/{path...}", "GET", "example.com", "/files/{dir}/{path...}", "dir path"},
		{"/{$}", "", "", "/{$}", ""},
		{"[::1]/a/", "", "[::1]", "/a/", ""},
		{"/caf\u00e9/%7Bx%7D", "", "", "/caf\u00e9/%7Bx%7D", ""},
	} {
		p := must(t, c.text)
		if p.String() != c.text || p.Method() != c.method || p.Host() != c.host || p.Path() != c.path || strings.Join(p.Names(), " ") != c.names {
			t.Errorf("%q: %q %q %q %q", c.text, p.Method(), p.Host(), p.Path(), p.Names())
		}
	}
	for _, c := range []struct {
		text   string
		offset int
		reason string
	}{
		{"", 0, `there is no path: it begins with "/"`},
		{"GET", 0, `there is no path: it begins with "/"`},
		{"GET ", 4, `there is no path: it begins with "/"`},
		{" /x", 0, "it begins with white space"},
		{"get /x", 0, "methods are in upper case: GET"},
		{"G,T /x", 1, `',' can not stand in a method`},
		{"GET a.b:80/x", 7, "a host has no port: which port is the listener's business"},
		{"*.example.com/", 0, "a host has no wildcard"},
		{"{host}/", 0, "a host has no wildcard"},
		{"a.b./", 3, "a host is written without a dot at its end"},
		{"a@b/", 1, `'@' can not stand in a host`},
		{"/a//b", 3, "an empty segment never matches: slashes in a row count as one"},
		{"/a/../b", 3, "it never matches: it climbs above the root"},
		{"/a/./b", 3, "a dot segment never matches: it is removed from requests"},
		{"/a%2fb", 1, "it never matches: encoded slash"},
		{"/a%zz", 1, "it never matches: broken percent-encoding at octet 2"},
		{"/a?b", 1, "it never matches: it holds '?'"},
		{"/a{x}", 1, "a wildcard in braces is a whole segment"},
		{"/{x}b", 1, "a wildcard in braces is a whole segment"},
		{"/{x", 1, "a wildcard in braces is a whole segment"},
		{"/{}", 1, "a wildcard has a name"},
		{"/{...}", 1, "a wildcard has a name"},
		{"/{a-b}", 3, `"a-b" is no name for a wildcard: letters, digits and _, not beginning with a digit`},
		{"/{1a}", 2, `"1a" is no name for a wildcard: letters, digits and _, not beginning with a digit`},
		{"GET /{a}/{a}", 9, `there are two wildcards called "a"`},
		{"/{a...}/b", 7, "{name...} and {$} stand only at the end"},
		{"/{$}/", 4, "{name...} and {$} stand only at the end"},
	} {
		p, err := ParsePattern(c.text)
		var bad *ParseError
		if !errors.As(err, &bad) || bad.Offset != c.offset || bad.Reason != c.reason || p != nil {
			t.Errorf("%q: got %+v, %v", c.text, err, p)
		}
	}
}

func TestConflicts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want Relation
		text string
	}{
		{"/a", "/a", Equivalent, `"/a" and "/a" match the same requests, such as "GET /a"`},
		{"/{x}", "/{y}", Equivalent, `"/{x}" and "/{y}" match the same requests, such as "GET /x"`},
		{"GET /a", "/{y}", MoreSpecific, ""},
		{"GET /{x}", "/a", Overlaps, `"GET /{x}" and "/a" both match "GET /a", and neither is more specific: the first is so in its method, the second in its segment 1`},
		{"/a/{x}", "/{y}/b", Overlaps, `"/a/{x}" and "/{y}/b" both match "GET /a/b", and neither is more specific: the first is so in its segment 1, the second in its segment 2`},
		{"POST /a/{x...}", "POST /{y}/b", Overlaps, `"POST /a/{x...}" and "POST /{y}/b" both match "POST /a/b", and neither is more specific: the first is so in its segment 1, the second in its segment 2`},
		{"GET /a", "HEAD /a", MoreGeneral, ""},
		{"GET /a", "POST /a", Disjoint, ""},
		{"/a", "/a/", Disjoint, ""},
		{"/a/", "/a/{$}", MoreGeneral, ""},
		{"/a/{$}", "/a/{x}", Disjoint, ""},
		{"/a/", "/a/{x...}", Equivalent, `"/a/" and "/a/{x...}" match the same requests, such as "GET /a/"`},
		{"h/{x}", "/a", MoreSpecific, ""},
		{"h/a", "i/a", Disjoint, ""},
		{"h/a", "/b", Disjoint, ""},
		{"/%61", "/a", Equivalent, `"/%61" and "/a" match the same requests, such as "GET /a"`},
		{"/b/{x}/c", "/{y}/d/c", Overlaps, `"/b/{x}/c" and "/{y}/d/c" both match "GET /b/d/c", and neither is more specific: the first is so in its segment 1, the second in its segment 2`},
		{"/b/{x}/c", "/{y}/d/e", Disjoint, ""},
	} {
		a, b := must(t, c.a), must(t, c.b)
		if got := a.Compare(b); got != c.want {
			t.Errorf("%q and %q: %v", c.a, c.b, got)
		}
		text, conflict := a.Conflicts(b)
		if text != c.text || conflict != (c.text != "") {
			t.Errorf("%q and %q: %s", c.a, c.b, text)
		}
		if _, back := b.Conflicts(a); back != conflict {
			t.Errorf("%q and %q: conflict depends on the order", c.a, c.b)
		}
	}
}

func table(t testing.TB, patterns ...string) *Table[string] {
	t.Helper()
	var entries []Entry[string]
	for _, p := range patterns {
		entries = append(entries, Entry[string]{must(t, p), p})
	}
	return NewTable(entries)
}

func TestMatch(t *testing.T) {
	t.Parallel()
	tab := table(t, "/", "/a/{x}", "GET /a/b", "/a/{rest...}", "/a/{$}", "POST /v1/models/gemini:generate", "api.test/", "/d/{x}/{y}/", "/caf\u00e9/{n}")
	for _, c := range []struct{ method, host, path, want, params string }{
		{"GET", "", "/a/b", "GET /a/b", ""},
		{"HEAD", "", "/a/b", "GET /a/b", ""},
		{"PUT", "", "/a/b", "/a/{x}", "x=b"},
		{"GET", "", "/a/b/c", "/a/{rest...}", "rest=b/c"},
		{"GET", "", "/a/", "/a/{$}", ""},
		{"GET", "", "/a", "/", ""},
		{"GET", "api.test:8443", "/a/b", "api.test/", ""},
		{"GET", "api.test.", "/a/b", "api.test/", ""},
		{"GET", "[::1]:80", "/a/b", "GET /a/b", ""},
		{"POST", "", "/v1/models/gemini%3Agenerate", "POST /v1/models/gemini:generate", ""},
		{"GET", "", "/d/1%20x/2/3/4", "/d/{x}/{y}/", "x=1 x y=2"},
		{"GET", "", "/caf%C3%A9/%C3%BC", "/caf\u00e9/{n}", "n=\u00fc"},
		{"GET", "", "/" + strings.Repeat("%20", 300), "/", ""},
	} {
		var params Params
		got, ok := tab.Match(c.method, c.host, c.path, &params, nil)
		var list []string
		for _, name := range params.names {
			list = append(list, name+"="+params.Get(name))
		}
		if got != c.want || !ok || strings.Join(list, " ") != c.params {
			t.Errorf("%s %s%s: %q, %v, %q", c.method, c.host, c.path, got, ok, list)
		}
	}
}

// TestFallThrough has routes refuse, so that the next less specific one is asked.
func TestFallThrough(t *testing.T) {
	t.Parallel()
	tab := table(t, "/", "/{x}/{y...}", "/{x}/b", "/a/{y}", "GET /a/b", "/a/b", "HEAD /a/b", "api.test/{z...}")
	var asked []string
	var params Params
	_, ok := tab.Match("HEAD", "api.test", "/a/b", &params, func(p string) bool { asked = append(asked, p); return false })
	want := []string{"api.test/{z...}", "HEAD /a/b", "GET /a/b", "/a/b", "/a/{y}", "/{x}/b", "/{x}/{y...}", "/"}
	if ok || !slices.Equal(asked, want) {
		t.Errorf("asked %q", asked)
	}
	if got, ok := tab.Match("PUT", "", "/a/b", &params, func(p string) bool { return p == "/{x}/{y...}" }); !ok || got != "/{x}/{y...}" || params.Get("x") != "a" || params.Get("y") != "b" {
		t.Errorf("got %q, %v, %q", got, ok, params)
	}
	if tab.Match("PUT", "", "/a/b", &params, func(string) bool { return false }); params.Get("x") != "" {
		t.Error("there are values although nothing matched")
	}
}

func TestAllowed(t *testing.T) {
	t.Parallel()
	tab := table(t, "GET /a", "POST /a", "DELETE h/a", "PUT /{x}", "PATCH /b")
	for _, c := range []struct {
		host, path, want string
	}{{"", "/a", "[GET HEAD POST PUT]"}, {"h:1", "/a", "[DELETE GET HEAD POST PUT]"}, {"", "/b", "[PATCH PUT]"}, {"", "/a/b", "[]"}} {
		if got := fmt.Sprint(tab.Allowed(c.host, c.path, nil)); got != c.want {
			t.Errorf("%s%s: %s", c.host, c.path, got)
		}
	}
	if got := tab.Allowed("", "/a", func(p string) bool { return p != "POST /a" }); slices.Contains(got, "POST") {
		t.Errorf("got %v", got)
	}
}

// TestLikeServeMux compares conflicts and winners with net/http's on random patterns and requests.
func TestLikeServeMux(t *testing.T) {
	t.Parallel()
	words := []string{"a", "b", "{x}", "{y}", "%61"}
	ends := []string{"", "/", "/{$}", "/{z...}"}
	for seed := range uint64(600) {
		r := rand.New(rand.NewPCG(seed, 7))
		pick := func(list ...string) string { return list[r.IntN(len(list))] }
		mux := http.NewServeMux()
		var patterns []*Pattern
		for range 2 + r.IntN(12) {
			path := ""
			used := ""
			for range r.IntN(3) {
				w := pick(words...)
				if w[0] == '{' && strings.Contains(used, w) {
					w = "a"
				}
				used += w
				path += "/" + w
			}
			path += pick(ends...)
			if path == "" {
				path = "/"
			}
			text := pick("", "GET ", "POST ", "HEAD ") + pick("", "", "h.test", "i.test") + path
			p := must(t, text)
			conflict := ""
			for _, q := range patterns {
				if s, bad := p.Conflicts(q); bad {
					conflict = s
				}
			}
			refused := func() (refused any) {
				defer func() { refused = recover() }()
				mux.Handle(text, http.NotFoundHandler())
				return nil
			}()
			if (refused != nil) != (conflict != "") {
				t.Fatalf("seed %d, %q after %v: %q, ServeMux says %v", seed, text, patterns, conflict, refused)
			}
			if conflict == "" {
				patterns = append(patterns, p)
			}
		}
		var entries []Entry[*Pattern]
		for _, p := range patterns {
			entries = append(entries, Entry[*Pattern]{p, p})
		}
		tab := NewTable(entries)
		for range 60 {
			path := ""
			for range r.IntN(4) {
				path += "/" + pick("a", "b", "c", "%20")
			}
			path += pick("", "/")
			if path == "" {
				path = "/"
			}
			method, host := pick("GET", "HEAD", "POST", "PUT"), pick("", "h.test", "i.test:80")
			u, err := url.Parse(path)
			if err != nil {
				t.Fatal(err)
			}
			request := &http.Request{Method: method, Host: host, URL: u}
			h, want := mux.Handler(request)
			if fmt.Sprintf("%T", h) == "*http.redirectHandler" {
				continue // ServeMux prefers a redirect to the path with a slash to a less specific match: ours does not redirect
			}
			got, ok := tab.Match(method, host, path, nil, nil)
			switch {
			case !ok && want != "", ok && got.String() != want:
				t.Fatalf("seed %d, %v, %s %s%s: %v, ServeMux says %q", seed, patterns, method, host, path, got, want)
			}
		}
	}
}

func TestCanonical(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"/": "/", "/a/b": "/a/b", "/a/": "/a/", "//a///b//": "/a/b/", "/a/./b/.": "/a/b/", "/a/../b": "/b", "/a/b/..": "/a/", "/a//../b": "/b",
		"/%61%2D%7e": "/a-~", "/%2e%2E/x"[:1] + "a/%2e%2e/x": "/x", "/%e4%bd": "/%E4%BD", "/a b": "/a%20b", "/\u00e9": "/%C3%A9", "/%3a:": "/%3A:",
		"/.well-known/x": "/.well-known/x", "/..a/...": "/..a/...", "/%252e": "/%252e", "/a;b=c": "/a;b=c", "/%3F%23": "/%3F%23", "/<>\"{}|^`": "/%3C%3E%22%7B%7D%7C%5E%60", "/./": "/", "/.": "/",
		"/v1/models/g:generate@1": "/v1/models/g:generate@1",
	} {
		if got, err := Canonical(raw); got != want || err != nil {
			t.Errorf("%q: %q, %v", raw, got, err)
		}
	}
	for _, raw := range []string{"", "*", "a", "http://h/", "/..", "/../a", "/a/../../b", "/%2e%2e", "/a%2fb", "/a%2Fb", `/a\b`, "/a%5cb", "/%00", "/\x00", "/a\n", "/%0d%0a", "/%7f", "/\x7f", "/%", "/%a", "/%zz", "/a?b", "/a#b", "/a/..;x/b", "/a/.;/b", "/a/..%3bx", "/%2e%2e;/", "/%c0%ae%c0%ae/a", "/a%C1%9cb", "/%e0%80%ae", "/%E0%80%AF/", "/%f0%80%80%ae", "/\xc0\xae"} {
		if got, err := Canonical(raw); !errors.Is(err, ErrPath) {
			t.Errorf("%q: %q, %v", raw, got, err)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/%2e./%41", "//..;", "/%3b", "/.%2e/", "/a%", "/\xff", "/a/.;/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		path, err := Canonical(raw)
		if err != nil {
			return
		}
		if again, err := Canonical(path); again != path || err != nil {
			t.Fatalf("%q gives %q, which gives %q, %v", raw, path, again, err)
		}
		decoded, err := url.PathUnescape(path)
		if err != nil || path[0] != '/' || strings.Contains(path, "//") || strings.ContainsAny(path, "\\?# \x00\x7f") || strings.ContainsAny(decoded, "\\\x00\r\n") {
			t.Fatalf("%q gives %q", raw, path)
		}
		for segment := range strings.SplitSeq(decoded, "/") {
			if segment == "." || segment == ".." {
				t.Fatalf("%q gives %q", raw, path)
			}
		}
		u, err := url.Parse("http://h" + path)
		if err != nil || u.EscapedPath() != path {
			t.Fatalf("%q gives %q, which net/url reads as %v, %v", raw, path, u, err)
		}
	})
}

func FuzzParsePattern(f *testing.F) {
	for _, s := range []string{"/", "GET /a/{x}", "h/{y...}", "/{$}", "POST /%41/", "GET\t/x", "/{a"} {
		f.Add(s, "/a/b")
	}
	f.Fuzz(func(t *testing.T, text, path string) {
		p, err := ParsePattern(text)
		if err != nil {
			var bad *ParseError
			if !errors.As(err, &bad) || bad.Offset < 0 || bad.Offset > len(text) {
				t.Fatalf("%q: %#v", text, err)
			}
			return
		}
		if p.Compare(p) != Equivalent {
			t.Fatalf("%q is not like itself", text)
		}
		path, err = Canonical(path)
		if err != nil {
			return
		}
		var params Params
		tab := NewTable([]Entry[int]{{p, 1}})
		tab.Match("GET", "h", path, &params, nil)
		tab.Allowed("h", path, nil)
	})
}

func TestNoAllocations(t *testing.T) {
	tab := table(t, "/v1/{x}/{y}", "POST /v1/chat/completions", "h.test/{z...}")
	params := Params{values: make([]string, 0, 8)}
	accept := func(s string) bool { return s != "" }
	for what, f := range map[string]func(){
		"literal":   func() { tab.Match("POST", "api:8443", "/v1/chat/completions", &params, accept) },
		"wildcards": func() { tab.Match("GET", "api:8443", "/v1/chat/completions", &params, accept) },
		"encoded":   func() { tab.Match("POST", "", "/v1/chat%2Dx/completions", nil, accept) },
		"host":      func() { tab.Match("POST", "h.test:1", "/a/b/c", &params, accept) },
		"canonical": func() { Canonical("/v1/chat/completions") },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}

func benchmarkMatch(b *testing.B, n int) {
	var entries []Entry[int]
	for i := range n {
		text := fmt.Sprintf("POST /v1/service%d/{id}/items/{item}", i)
		if i%3 == 0 {
			text = fmt.Sprintf("GET /v1/service%d/things", i)
		}
		entries = append(entries, Entry[int]{must(b, text), i})
	}
	tab := NewTable(entries)
	path := fmt.Sprintf("/v1/service%d/123/items/456", n/2/3*3+1)
	var params Params
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := tab.Match("POST", "api.example.com:8443", path, &params, nil); !ok {
			b.Fatal("no match")
		}
	}
}

func BenchmarkMatch10(b *testing.B)    { benchmarkMatch(b, 10) }
func BenchmarkMatch10000(b *testing.B) { benchmarkMatch(b, 10000) }

func BenchmarkServeMux10000(b *testing.B) {
	mux := http.NewServeMux()
	for i := range 10000 {
		mux.HandleFunc(fmt.Sprintf("POST /v1/service%d/{id}/items/{item}", i), func(http.ResponseWriter, *http.Request) {})
	}
	u, _ := url.Parse("/v1/service5001/123/items/456")
	r := &http.Request{Method: "POST", Host: "api.example.com", URL: u}
	b.ReportAllocs()
	for b.Loop() {
		mux.Handler(r)
	}
}

func BenchmarkCanonical(b *testing.B) {
	for name, path := range map[string]string{"plain": "/v1/chat/completions", "encoded": "/v1/%63hat/../x%20y"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Canonical(path)
			}
		})
	}
}

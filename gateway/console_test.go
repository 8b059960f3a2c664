package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/admin"
)

// publicPages are what everyone may read.
func publicPages() []string {
	return []string{"/", "/models", "/models/small", "/apis", "/status", "/privacy", "/privacy?version=1", "/operator/sign-in"}
}

// TestConsole: the pages are served over every protocol, with what protects them, and what is private is nobody's.
func TestConsole(t *testing.T) {
	t.Parallel()
	n := start(t, nil)
	for _, protocol := range []string{"http1", "http2", "http3"} {
		c := n.client(t, protocol)
		c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		for _, path := range append(publicPages(), "/openapi.json", "/robots.txt") {
			resp, body := n.page(t, c, "GET", path, nil)
			if resp.StatusCode != http.StatusOK || body == "" {
				t.Errorf("%s %s: %d %s", protocol, path, resp.StatusCode, body)
			}
			for name, want := range map[string]string{
				"Content-Security-Policy": "frame-ancestors 'none'", "X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin",
				"Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-cache",
			} {
				if got := resp.Header.Get(name); !strings.Contains(got, want) && (path != "/robots.txt" && path != "/operator/sign-in" || name != "Cache-Control") {
					t.Errorf("%s %s: %s: %q, want %q", protocol, path, name, got, want)
				}
			}
			head, none := n.page(t, c, "HEAD", path, nil)
			if head.StatusCode != http.StatusOK || none != "" || !slices.Contains([]string{"", strconv.Itoa(len(body))}, head.Header.Get("Content-Length")) {
				t.Errorf("%s HEAD %s: %d, %s octets announced of %d, %q", protocol, path, head.StatusCode, head.Header.Get("Content-Length"), len(body), none)
			}
		}
		for _, path := range []string{"/operator", "/operator/accounts", "/operator/files"} {
			if resp, _ := n.page(t, c, "GET", path, nil); resp.StatusCode != http.StatusSeeOther || !strings.HasPrefix(resp.Header.Get("Location"), "/operator/sign-in?to=%2Foperator") || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s %s: %d %v", protocol, path, resp.StatusCode, resp.Header)
			}
		}
		for path, status := range map[string]int{"/nothing": 404, "/models/none": 404, "/privacy?version=none": 404, "/terms": 404, "/assets/none.css": 404, "/assets/..%2fwords%2fen.json": 400} {
			if resp, body := n.page(t, c, "GET", path, nil); resp.StatusCode != status {
				t.Errorf("%s %s: %d %s", protocol, path, resp.StatusCode, body)
			}
		}
		if resp, body := n.page(t, c, "GET", "/nothing", nil); resp.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(body, "not_found") {
			t.Errorf("%s: a program is answered %v %s", protocol, resp.Header, body)
		}
	}
}

// TestConsoleLanguages: every text is there in each language, and the address, the cookie and the browser's wish choose, in this order.
func TestConsoleLanguages(t *testing.T) {
	t.Parallel()
	n := start(t, nil)
	edit(t, n.dir+"/config.hcl", `title = "Postern"`, `title = "Postern"`+"\n"+`  terms = { en = "# Use\n\nBe kind & <b>fair</b>.", zh = "# 使用\n\n请友善。" }`)
	cfg, err := n.load()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Apply(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	c := n.client(t, "http2")
	missing := regexp.MustCompile(`>(home|nav|model|models|apis|status|legal|privacy|terms|signin|price|unit|live|theme|state)\.[a-z.]+<|%!|="[a-z]+\.(title|none|question|text)"`)
	for _, path := range append(publicPages(), "/terms") {
		join := "?"
		if strings.Contains(path, "?") {
			join = "&"
		}
		for lang, tag := range map[string]string{"en": `<html lang="en"`, "zh": `<html lang="zh-Hans"`} {
			resp, body := n.page(t, c, "GET", path+join+"lang="+lang, nil)
			if resp.StatusCode != 200 || !strings.Contains(body, tag) || resp.Header.Get("Content-Language") == "" {
				t.Errorf("%s in %s: %d", path, lang, resp.StatusCode)
			}
			if lost := missing.FindAllString(body, -1); lost != nil {
				t.Errorf("%s in %s: %q", path, lang, lost)
			}
		}
	}
	if _, body := n.page(t, c, "GET", "/terms", nil); !strings.Contains(body, "<h2>Use</h2>") || !strings.Contains(body, "Be kind &amp; &lt;b&gt;fair&lt;/b&gt;.") {
		t.Error(body)
	}
	for _, w := range []struct{ path, cookie, accept, want string }{
		{"/", "", "zh-CN,en;q=0.5", "zh-Hans"}, {"/", "en", "zh", "en"}, {"/?lang=zh", "en", "en", "zh-Hans"}, {"/?lang=%3Cx%3E", "../..", "fr", "en"},
	} {
		resp, _ := n.page(t, c, "GET", w.path, nil, "Accept-Language", w.accept, "Cookie", "lang="+w.cookie)
		if got := resp.Header.Get("Content-Language"); got != w.want {
			t.Errorf("%+v: %s", w, got)
		}
	}
}

// page asks for a page, or sends a form.
func (n *node) page(t testing.TB, c *http.Client, method, path string, form url.Values, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, n.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, string(b)
}

// operator is a client that is signed in, and its session's token for forms.
func (n *node) operator(t testing.TB) (c *http.Client, csrf string) {
	t.Helper()
	c = n.client(t, "http2")
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Jar = jar
	token, err := admin.Token(n.Server.Config())
	if err != nil {
		t.Fatal(err)
	}
	resp, body := n.page(t, c, "POST", "/operator/sign-in", url.Values{"token": {token}})
	m := regexp.MustCompile(`name="csrf" value="([^"]+)"`).FindStringSubmatch(body)
	if resp.StatusCode != 200 || m == nil {
		t.Fatalf("sign in: %d %s", resp.StatusCode, body)
	}
	return c, m[1]
}

// TestConsoleOperates: what an operator does on the pages is done, once, and what can hardly be undone is asked first.
func TestConsoleOperates(t *testing.T) {
	t.Parallel()
	n := start(t, nil)
	c, csrf := n.operator(t)
	post := func(path string, fields ...string) (*http.Response, string) {
		t.Helper()
		form := url.Values{"csrf": {csrf}}
		for i := 0; i < len(fields); i += 2 {
			form.Set(fields[i], fields[i+1])
		}
		return n.page(t, c, "POST", path, form)
	}
	resp, body := post("/operator/accounts", "name", hostile)
	account := resp.Request.URL.Path
	if resp.StatusCode != 200 || !strings.HasPrefix(account, "/operator/accounts/acct_") || strings.Contains(body, "<script>document") || !strings.Contains(body, "&lt;script&gt;document") {
		t.Fatalf("%d %s: %s", resp.StatusCode, account, body)
	}
	if _, body = post(account+"/credit", "amount", "12.5", "note", hostile, "once", "x1"); !strings.Contains(body, "Add to this balance?") || strings.Contains(body, "<img src=x") {
		t.Errorf("no question: %s", body)
	}
	for range 2 {
		if resp, body = post(account+"/credit", "amount", "12.5", "note", hostile, "once", "x1", "sure", "1"); resp.StatusCode != 200 || !strings.Contains(body, "USD 12.5") || strings.Contains(body, "<img src=x") {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
	if _, body = post(account+"/credit", "amount", "12.5", "once", "x1", "sure", "1"); strings.Contains(body, "USD 25") {
		t.Error("the same form credited twice")
	}
	for _, amount := range []string{"", "-1", "0", "1e9", "NaN", "1.0000000000000000001", "<b>"} {
		if resp, _ = post(account+"/credit", "amount", amount, "once", "x2", "sure", "1"); resp.StatusCode != 400 {
			t.Errorf("a credit of %q: %d", amount, resp.StatusCode)
		}
	}
	resp, body = post(account+"/keys", "name", "laptop", "scopes", "models:call, other:scope", "expires", "2099-01-31")
	secret := regexp.MustCompile(`pk_[A-Za-z0-9_]{20,}|[a-z]+_[A-Za-z0-9]{30,}`).FindString(regexp.MustCompile(`(?s)class="secret".*?</pre>`).FindString(body))
	if secret == "" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("no key: %s", body)
	}
	if _, again := n.page(t, c, "GET", resp.Request.URL.RequestURI(), nil); strings.Contains(again, secret) {
		t.Error("the key is shown twice")
	}
	if resp, reply := n.post(t, n.client(t, "http2"), "/v1/chat/completions", secret, hello); resp.StatusCode != 200 {
		t.Errorf("the new key: %d %s", resp.StatusCode, reply)
	}
	_, body = n.page(t, c, "GET", account, nil)
	revoke := regexp.MustCompile(`href="(/operator/accounts/[^"]+/revoke)"`).FindStringSubmatch(body)
	if _, body = n.page(t, c, "GET", revoke[1], nil); !strings.Contains(body, "laptop") {
		t.Error(body)
	}
	if resp, _ := n.post(t, n.client(t, "http2"), "/v1/chat/completions", secret, hello); resp.StatusCode != 200 {
		t.Errorf("to ask did it already: %d", resp.StatusCode)
	}
	post(revoke[1])
	if resp, _ := n.post(t, n.client(t, "http2"), "/v1/chat/completions", secret, hello); resp.StatusCode != 401 {
		t.Errorf("the revoked key: %d", resp.StatusCode)
	}
	if _, body = post(account + "/disable"); !strings.Contains(body, "Disabled") {
		t.Error(body)
	}
	if _, body = n.page(t, c, "GET", "/operator/audit", nil); !strings.Contains(body, "console.signin") || !strings.Contains(body, "<td>token:") || strings.Contains(body, "laptop") {
		t.Errorf("not in the audit log: %s", body)
	}
	post("/operator/ledger")
	waitFor(t, "the proof", func() bool {
		_, body := n.page(t, c, "GET", "/operator/ledger", nil)
		return strings.Contains(body, "The ledger adds up.")
	})
	edit(t, n.dir+"/config.hcl", `title = "Postern"`, `title = "Another name"`)
	if _, body = n.page(t, c, "GET", "/operator/files", nil); !strings.Contains(body, "Another name") || strings.Contains(body, "Another name</title>") {
		t.Errorf("no difference: %s", body)
	}
	if _, body = post("/operator/files"); !strings.Contains(body, "Another name</title>") {
		t.Errorf("not in force: %s", body)
	}
	edit(t, n.dir+"/config.hcl", `title = "Another name"`, `title = ""`)
	if resp, body = post("/operator/files"); resp.StatusCode/100 != 4 {
		t.Errorf("broken files: %d %s", resp.StatusCode, body)
	}
	n.verify(t)
}

// TestConsoleHoles: known classes of holes, one after the other.
func TestConsoleHoles(t *testing.T) {
	t.Parallel()
	n := start(t, nil)
	token, err := admin.Token(n.Server.Config())
	if err != nil {
		t.Fatal(err)
	}
	in, csrf := n.operator(t)
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	in.CheckRedirect = stay
	out := n.client(t, "http2")
	out.CheckRedirect = stay
	accounts := func() int {
		list, err := n.Storage().Accounts.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := accounts()

	// Forged requests: without the session's token, with another's, from another site's page, with a form that is a URL.
	name := url.Values{"name": {"forged"}}
	with := func(token string) url.Values { return url.Values{"name": {"forged"}, "csrf": {token}} }
	for what, r := range map[string]struct {
		form   url.Values
		path   string
		header []string
	}{
		"no token":      {name, "/operator/accounts", nil},
		"wrong token":   {with(csrf + "x"), "/operator/accounts", nil},
		"in the URL":    {name, "/operator/accounts?csrf=" + csrf, nil},
		"another site":  {with(csrf), "/operator/accounts", []string{"Sec-Fetch-Site", "cross-site"}},
		"a sister site": {with(csrf), "/operator/accounts", []string{"Sec-Fetch-Site", "same-site"}},
		"another's":     {with(csrf), "/operator/accounts", []string{"Origin", "https://evil.example"}},
		"null origin":   {with(csrf), "/operator/accounts", []string{"Origin", "null"}},
	} {
		if resp, body := n.page(t, in, "POST", r.path, r.form, r.header...); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d %s", what, resp.StatusCode, body)
		}
	}
	if resp, _ := n.page(t, out, "POST", "/operator/sign-in", url.Values{"token": {token}}, "Origin", "https://evil.example"); resp.StatusCode != 403 || resp.Header.Get("Set-Cookie") != "" {
		t.Errorf("signed in by another site: %d", resp.StatusCode)
	}
	if now := accounts(); now != before {
		t.Errorf("%d accounts were made", now-before)
	}

	// Names that somebody else may have pointed here, and what a request calls itself.
	for _, host := range []string{"evil.example", "evil.example:443", "127.0.0.1.evil.example", "localhost.evil.example"} {
		resp, body := n.page(t, n.client(t, "http1"), "GET", "/", nil, "Host", host)
		if resp.StatusCode != http.StatusMisdirectedRequest || strings.Contains(body, "evil.example") {
			t.Errorf("Host %s: %d %s", host, resp.StatusCode, body)
		}
	}
	for _, path := range []string{"/", "/models/small", "/openapi.json", "/apis"} {
		if _, body := n.page(t, n.client(t, "http1"), "GET", path, nil, "Host", "localhost:6666", "X-Forwarded-Host", "evil.example", "Forwarded", "host=evil.example"); strings.Contains(body, "6666") || strings.Contains(body, "evil.example") {
			t.Errorf("%s is made of what the request says: %s", path, body)
		}
	}

	// Redirects that lead elsewhere.
	for _, to := range []string{"//evil.example", "https://evil.example", `/\evil.example`, `\\evil.example`, "javascript:alert(1)", "/\t/evil.example", "///evil.example", "evil.example", "/%0d%0aSet-Cookie: a=b", "http:evil.example"} {
		for _, r := range []struct {
			path string
			form url.Values
		}{
			{"/preferences", url.Values{"lang": {"zh"}, "to": {to}}},
			{"/operator/sign-in", url.Values{"token": {token}, "to": {to}}},
		} {
			resp, _ := n.page(t, in, "POST", r.path, r.form)
			at, err := resp.Location()
			if err != nil || at.Scheme+"://"+at.Host != n.url || strings.ContainsAny(resp.Header.Get("Location"), "\\\r\n\t") || strings.Contains(resp.Header.Get("Set-Cookie"), "a=b") {
				t.Errorf("%s to %q: %v %v", r.path, to, at, err)
			}
		}
		if _, body := n.page(t, out, "GET", "/operator/sign-in?to="+url.QueryEscape(to), nil); !strings.Contains(body, `name="to" value="/`) || strings.Contains(body, `name="to" value="//`) {
			t.Errorf("the form keeps %q", to)
		}
	}

	// A session that an attacker chose is not the one that is signed in, and the cookie is the browser's alone.
	resp, _ := n.page(t, out, "POST", "/operator/sign-in", url.Values{"token": {token}}, "Cookie", "__Host-postern-operator=chosen")
	cookies := resp.Cookies()
	i := slices.IndexFunc(cookies, func(c *http.Cookie) bool { return c.Name == "__Host-postern-operator" })
	if i < 0 || cookies[i].Value == "chosen" || !cookies[i].HttpOnly || !cookies[i].Secure || cookies[i].SameSite != http.SameSiteStrictMode || cookies[i].Path != "/" || cookies[i].Domain != "" || strings.Contains(cookies[i].Value, token) {
		t.Fatalf("%v", cookies)
	}
	own := "__Host-postern-operator=" + cookies[i].Value
	_, body := n.page(t, out, "GET", "/operator", nil, "Cookie", own)
	other := regexp.MustCompile(`name="csrf" value="([^"]+)"`).FindStringSubmatch(body)
	if other == nil || other[1] == csrf {
		t.Fatalf("two sessions share %v", other)
	}
	if resp, _ := n.page(t, in, "POST", "/operator/accounts", with(other[1])); resp.StatusCode != 403 {
		t.Errorf("another session's token: %d", resp.StatusCode)
	}
	n.page(t, out, "POST", "/operator/sign-out", url.Values{"csrf": {other[1]}}, "Cookie", own)
	if resp, _ := n.page(t, out, "GET", "/operator", nil, "Cookie", own); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("the session goes on after signing out: %d", resp.StatusCode)
	}

	// Paths below an account lead to nothing else of the admin API.
	for _, id := range []string{"..", "..%2f..%2fconfig", "x%2fkeys", "%2e%2e%2fledger", "acct_none"} {
		if resp, body := n.page(t, in, "GET", "/operator/accounts/"+id, nil); resp.StatusCode == 200 && !strings.Contains(body, "<h1>Accounts</h1>") && !strings.Contains(body, "<h1>Traffic</h1>") {
			t.Errorf("%s: %d %s", id, resp.StatusCode, body)
		}
	}

	// What is too large is no form.
	if resp, _ := n.page(t, in, "POST", "/operator/accounts", url.Values{"name": {strings.Repeat("x", 100<<10)}, "csrf": {csrf}}); resp.StatusCode/100 != 4 {
		t.Errorf("a form of 100 KiB: %d", resp.StatusCode)
	}

	// Guesses slow down, the right token does not help against it, and who is in stays in.
	refused := 0
	for range 12 {
		resp, _ := n.page(t, out, "POST", "/operator/sign-in", url.Values{"token": {"wrong"}})
		if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "" {
			refused++
		}
	}
	if resp, _ := n.page(t, out, "POST", "/operator/sign-in", url.Values{"token": {token}}); refused < 5 || resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("%d of 12 guesses had to wait, and the right token got %d", refused, resp.StatusCode)
	}
	if resp, _ := n.page(t, in, "GET", "/operator", nil); resp.StatusCode != 200 {
		t.Errorf("the operator: %d", resp.StatusCode)
	}
}

// TestConsoleOpenAPI: the document says what the configuration offers, and each of its references leads somewhere.
func TestConsoleOpenAPI(t *testing.T) {
	t.Parallel()
	n := start(t, nil)
	_, body := n.page(t, n.client(t, "http1"), "GET", "/openapi.json", nil)
	var doc struct {
		OpenAPI string
		Servers []struct{ URL string }
		Paths   map[string]map[string]struct {
			OperationID string
			Security    []map[string][]string
			RequestBody struct {
				Content map[string]struct {
					Schema struct {
						Properties struct{ Model struct{ Enum []string } }
					}
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	chat := doc.Paths["/v1/chat/completions"]["post"]
	if doc.OpenAPI != "3.1.0" || doc.Servers[0].URL != n.url && !strings.HasPrefix(doc.Servers[0].URL, "https://localhost:") || chat.OperationID != "chat" || len(chat.Security) == 0 || !slices.Contains(chat.RequestBody.Content["application/json"].Schema.Properties.Model.Enum, "small") {
		t.Errorf("%s", body)
	}
	if doc.Paths["/"] != nil {
		t.Error("the console is no API")
	}
	for _, m := range regexp.MustCompile(`"\$ref": "#/([^"]+)"`).FindAllStringSubmatch(body, -1) {
		var at any
		_ = json.Unmarshal([]byte(body), &at)
		for part := range strings.SplitSeq(m[1], "/") {
			at = at.(map[string]any)[part]
			if at == nil {
				t.Fatalf("%s leads nowhere", m[1])
			}
		}
	}
}

// TestConsoleAlone: without TLS and without an address that says so nobody can sign in; without an admin block, or from
// where operators are not, there is not even a door.
func TestConsoleAlone(t *testing.T) {
	t.Parallel()
	n := start(t, nil)
	edit(t, n.dir+"/config.hcl", `title = "Postern"`, `title = "Postern"`+"\n"+`  operators = ["192.0.2.0/24"]`)
	cfg, err := n.load()
	if err != nil {
		t.Fatal(err)
	}
	in, _ := n.operator(t)
	if err := n.Apply(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	in.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, path := range []string{"/operator", "/operator/sign-in", "/operator/accounts"} {
		if resp, _ := n.page(t, in, "GET", path, nil); resp.StatusCode != 404 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	if _, body := n.page(t, in, "GET", "/", nil); strings.Contains(body, "/operator") {
		t.Error("the page shows a door")
	}
}

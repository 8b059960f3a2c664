package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/postern-gateway/postern/examples/sandbox/sandbox"
	"github.com/postern-gateway/postern/gateway/server"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

// freeAddress finds an address on loopback that nothing listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// edit changes a file of a configuration; what it replaces must be there.
func edit(t testing.TB, path, before, after string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), before) {
		t.Fatalf("%s does not hold %q", path, before)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(b), before, after)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// commandFolder is the running example in a folder of its own, with addresses of its own and a sandbox provider.
func commandFolder(t testing.TB) (dir, admin string) {
	t.Helper()
	dir, admin = workdir(t, nil), freeAddress(t)
	origin := httptest.NewServer(sandbox.Handler(sandbox.Config{}))
	t.Cleanup(origin.Close)
	path := filepath.Join(dir, "config.hcl")
	edit(t, path, "127.0.0.1:8443", "127.0.0.1:0")
	edit(t, path, "127.0.0.1:9901", admin)
	edit(t, path, "http://127.0.0.1:9902", origin.URL)
	return dir, admin
}

// running is `postern run` in this process.
type running struct {
	log   *transcript
	admin string
	token string
	stop  func() (code int)
}

// runGateway runs `postern run` until stop is called or the test ends, and returns when it is ready.
func runGateway(t *testing.T, dir, admin string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{log: &transcript{}, admin: admin}
	a := &App{
		Context: ctx, Stdin: strings.NewReader(""), Stdout: r.log, Stderr: r.log,
		Environment: func(string) (string, bool) { return "", false }, Child: plugintest.Compiler(t),
	}
	code := make(chan int, 1)
	go func() { code <- a.Main([]string{"run", dir}) }()
	r.stop = sync.OnceValue(func() int {
		cancel()
		return <-code
	})
	t.Cleanup(func() { r.stop() })
	waitFor(t, "the gateway to be ready", func() bool {
		select {
		case c := <-code:
			code <- c
			t.Fatalf("run ended with %d:\n%s", c, r.log)
		default:
		}
		status, _ := get(t, http.DefaultClient, "http://"+admin+"/ready", "")
		return status == 200
	})
	b, err := os.ReadFile(filepath.Join(dir, "data", "admin.token"))
	if err == nil {
		r.token = string(b)
	}
	return r
}

// get fetches a URL; status 0: nobody answered.
func get(t testing.TB, c *http.Client, url, token string) (status int, body string) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		q.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(q)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(b)
}

// status asks the running gateway for its status.
func (r *running) status(t testing.TB) (s server.Status) {
	t.Helper()
	code, body := get(t, http.DefaultClient, "http://"+r.admin+"/v1/status", r.token)
	if err := json.Unmarshal([]byte(body), &s); err != nil || code != 200 {
		t.Fatalf("status: %d %v %s", code, err, body)
	}
	return s
}

// client makes a node by which the running gateway can be called as others are.
func (r *running) node(t testing.TB, dir string) *node {
	t.Helper()
	n := &node{dir: dir, address: r.status(t).Listeners["public"], ca: filepath.Join(dir, "data", "tls", "ca.pem")}
	n.url = "https://" + n.address
	n.trust(t)
	return n
}

// ok runs a command that must succeed, and returns its output without the line's end.
func ok(t *testing.T, arguments ...string) string {
	t.Helper()
	code, out, errs := command(t, "", arguments...)
	if code != 0 {
		t.Fatalf("postern %s: %d\n%s%s", strings.Join(arguments, " "), code, out, errs)
	}
	return strings.TrimSuffix(out, "\n")
}

// fails runs a command that must not succeed, and returns what it says.
func fails(t *testing.T, want int, arguments ...string) string {
	t.Helper()
	code, out, errs := command(t, "", arguments...)
	if code != want || errs == "" {
		t.Errorf("postern %s: %d, expected %d\n%s%s", strings.Join(arguments, " "), code, want, out, errs)
	}
	return errs
}

// TestAccountsAndLedger uses every command about accounts and money, first with nothing running, then beside a gateway that
// has the store open: they say the same.
func TestAccountsAndLedger(t *testing.T) {
	t.Parallel()
	dir, adminAddress := commandFolder(t)
	in := "-dir=" + dir
	acme := ok(t, "account", "create", "Acme Ltd", in)
	if !regexp.MustCompile(`^[a-z0-9_]{8,}$`).MatchString(acme) {
		t.Fatalf("account create printed %q", acme)
	}
	if out := ok(t, "ledger", "credit", acme, "12.50", "-key", "payment-1", "-note", "first", "-dir", dir); out != "credited 12.50, balance 12.50" {
		t.Errorf("credit: %q", out)
	}
	if out := ok(t, "ledger", "credit", acme, "12.50", "--key=payment-1", in); out != "credited 12.50, balance 12.50" {
		t.Errorf("the same credit again: %q", out)
	}
	if errs := fails(t, 1, "ledger", "credit", acme, "13", "-key", "payment-1", in); !strings.Contains(errs, "key") {
		t.Errorf("another credit by the same key: %s", errs)
	}
	key := ok(t, "account", "key", "create", acme, "-name", "laptop", in)
	other := ok(t, "account", "key", "create", acme, "-name", "short", "-scope", "models:call", "-scope", "models:list", "-expires", "24h", in)
	if key == other || len(key) < 32 || strings.ContainsAny(key, " \n") {
		t.Errorf("keys %q and %q", key, other)
	}
	empty := ok(t, "account", "create", "Nobody", in)
	var limited struct{ ID, Secret, Cap, Rate string }
	if err := json.Unmarshal([]byte(ok(t, "account", "key", "create", acme, "-name", "limited", "-model", "large", "-model", "small", "-route", "chat", "-network", "10.0.0.0/8",
		"-network", "192.0.2.7", "-cap", "5/day", "-rate", "60/minute", "-json", in)), &limited); err != nil || limited.Secret == "" || limited.Cap != "5.00/day" || limited.Rate != "60/minute" {
		t.Fatalf("%+v, %v", limited, err)
	}

	reports := [][]string{
		{"account", "list"},
		{"account", "list", "-json"},
		{"account", "key", "list", acme, "-json"},
		{"account", "key", "list", acme},
		{"ledger", "balance"},
		{"ledger", "balance", acme, "-json"},
		{"ledger", "entries", acme},
		{"ledger", "entries", acme, "-limit", "1", "-json"},
		{"ledger", "entries", empty},
		{"ledger", "verify"},
		{"ledger", "verify", "-json"},
	}
	mistakes := []struct {
		code      int
		says      string
		arguments []string
	}{
		{1, "no such account", []string{"ledger", "balance", "acc_none"}},
		{1, "no such account", []string{"ledger", "credit", "acc_none", "1", "-key", "k"}},
		{1, "no such account", []string{"account", "key", "create", "acc_none"}},
		{1, "no such account or key", []string{"account", "key", "revoke", acme, "key_none"}},
		{1, "", []string{"account", "create", ""}},
		{1, "", []string{"account", "key", "create", acme, "-scope", "bad scope"}},
		{1, "the cap", []string{"account", "key", "create", acme, "-cap", "5/year"}},
		{1, "the rate", []string{"account", "key", "create", acme, "-rate", "60"}},
		{1, "10.0.0.0/8", []string{"account", "key", "create", acme, "-network", "10.0.0.1/8"}},
		{1, "model", []string{"account", "key", "create", acme, "-model", "a\tb"}},
		{1, "nothing is to be changed", []string{"account", "key", "change", acme, limited.ID}},
		{1, "not both", []string{"account", "key", "change", acme, limited.ID, "-cap", "1/day", "-clear", "cap"}},
		{2, "clear", []string{"account", "key", "change", acme, limited.ID, "-clear", "name"}},
		{1, "no such account or key", []string{"account", "key", "change", empty, limited.ID, "-name", "mine"}},
		{1, "no such account or key", []string{"account", "key", "rotate", empty, limited.ID}},
		{1, "longer", []string{"account", "key", "rotate", acme, limited.ID, "-overlap", "1000h"}},
		{1, "no such account", []string{"account", "enable", "acc_none"}},
		{1, "no such charge", []string{"account", "refund", acme, "payment-1", "-key", "t"}},
		{1, "", []string{"account", "refund", acme, "payment-1", "-key", "t", "-amount", "much"}},
		{2, "key", []string{"account", "refund", acme, "payment-1"}},
		{2, "-5", []string{"ledger", "credit", acme, "-5", "-key", "k"}},
		{1, "credit", []string{"ledger", "credit", "-key", "k", "--", acme, "-5"}},
		{1, "credit", []string{"ledger", "credit", acme, "0", "-key", "k"}},
		{1, "", []string{"ledger", "credit", acme, "1.0000000000001", "-key", "k"}},
		{1, "", []string{"ledger", "credit", acme, "1e3", "-key", "k"}},
		{1, "", []string{"ledger", "credit", acme, "five", "-key", "k"}},
		{1, "limit", []string{"ledger", "entries", acme, "-limit", "100000"}},
		{2, "key", []string{"ledger", "credit", acme, "1"}},
	}
	report := func() (list []string) {
		for _, r := range reports {
			list = append(list, ok(t, append(r, in)...))
		}
		return list
	}
	refusals := func() (list []string) {
		for _, m := range mistakes {
			end := len(m.arguments)
			if i := slices.Index(m.arguments, "--"); i >= 0 {
				end = i
			}
			errs := fails(t, m.code, slices.Insert(slices.Clone(m.arguments), end, in)...)
			if !strings.Contains(strings.ToLower(errs), m.says) || strings.Count(strings.TrimSpace(errs), "\n") > 1 {
				t.Errorf("postern %s says %q", strings.Join(m.arguments, " "), errs)
			}
			list = append(list, errs)
		}
		return list
	}
	offline, refused := report(), refusals()
	for i, want := range [][]string{
		{"ID ", "NAME", "AVAILABLE", acme, "Acme Ltd", "active", "12.50 USD", empty, "Nobody", "0.00 USD"},
		{`"available": "12.50"`},
		{`"name": "laptop"`, `"short"`, `"models:list"`},
		{"MODELS", "NETWORKS", "CAP", "laptop", "large,small", "chat", "10.0.0.0/8,192.0.2.7", "5.00/day", "60/minute", "all"},
		{acme, "12.5", "payments", "-12.5"},
		{`"total": "12.50"`},
		{"credit", "12.5", "payment-1", "first"},
		{`"kind": "credit"`, `"from": "`},
		{"NO "},
		{"entries ", "credited", "12.50 USD", "it adds up"},
		{`"ok": true`},
	} {
		for _, w := range want {
			if !strings.Contains(offline[i], w) {
				t.Errorf("postern %s does not say %q:\n%s", strings.Join(reports[i], " "), w, offline[i])
			}
		}
		for _, secret := range []string{key, other, limited.Secret} {
			if strings.Contains(offline[i], secret) {
				t.Errorf("postern %s shows a key", strings.Join(reports[i], " "))
			}
		}
	}

	g := runGateway(t, dir, adminAddress)
	for i, online := range append(report(), refusals()...) {
		if was := append(offline, refused...)[i]; online != was {
			t.Errorf("with nothing running:\n%s\nbeside a running gateway:\n%s", was, online)
		}
	}
	n := g.node(t, dir)
	c := n.client(t, "http1")
	if resp, body := n.post(t, c, "/v1/chat/completions", key, hello); resp.StatusCode != 200 {
		t.Fatalf("call with the key: %d %s", resp.StatusCode, body)
	}
	if out := ok(t, "ledger", "entries", acme, in); !strings.Contains(out, "charge") || !strings.Contains(out, "small") {
		t.Errorf("entries after a call:\n%s", out)
	}
	if resp, body := n.post(t, c, "/v1/chat/completions", limited.Secret, hello); resp.StatusCode != 403 {
		t.Errorf("call from elsewhere: %d %s", resp.StatusCode, body)
	}
	if out := ok(t, "account", "key", "change", acme, limited.ID, "-clear", "networks,rate", "-model", "small", "-cap", "1/total", "-name", "less", in); out != "changed "+limited.ID {
		t.Errorf("change: %q", out)
	}
	if resp, body := n.post(t, c, "/v1/chat/completions", limited.Secret, hello); resp.StatusCode != 200 {
		t.Errorf("call after the change: %d %s", resp.StatusCode, body)
	}
	next := ok(t, "account", "key", "rotate", acme, limited.ID, "-overlap", "1h", in)
	for _, secret := range []string{limited.Secret, next} {
		if resp, body := n.post(t, c, "/v1/chat/completions", secret, hello); resp.StatusCode != 200 {
			t.Errorf("call after the rotation: %d %s", resp.StatusCode, body)
		}
	}
	ok(t, "account", "key", "revoke", acme, limited.ID, "-json", in)
	var charges []struct{ Ref, Kind, Amount, Key string }
	if err := json.Unmarshal([]byte(ok(t, "ledger", "entries", acme, "-json", in)), &charges); err != nil || charges[2].Kind != "charge" || charges[2].Key != limited.ID {
		t.Fatalf("%+v, %v", charges, err)
	}
	if out := ok(t, "account", "refund", acme, charges[2].Ref, "-key", "ticket-1", "-note", "cut off", in); !strings.HasPrefix(out, "refunded "+charges[2].Amount+", balance ") {
		t.Errorf("refund: %q", out)
	}
	if errs := fails(t, 1, "account", "refund", acme, charges[2].Ref, "-key", "ticket-2", in); !strings.Contains(errs, "more than the charge") {
		t.Errorf("a second refund: %q", errs)
	}
	if out := ok(t, "account", "disable", acme, in); out != acme+" is disabled" {
		t.Errorf("disable: %q", out)
	}
	if resp, _ := n.post(t, c, "/v1/chat/completions", key, hello); resp.StatusCode != 401 {
		t.Errorf("call for a disabled account: %d", resp.StatusCode)
	}
	if out := ok(t, "account", "enable", acme, in); out != acme+" is active" {
		t.Errorf("enable: %q", out)
	}
	late := ok(t, "account", "key", "create", empty, in)
	if resp, _ := n.post(t, c, "/v1/chat/completions", late, hello); resp.StatusCode != 402 {
		t.Errorf("call without money: %d", resp.StatusCode)
	}
	ok(t, "ledger", "credit", empty, "1", "-key", "payment-2", in)
	if resp, body := n.post(t, c, "/v1/chat/completions", late, hello); resp.StatusCode != 200 {
		t.Errorf("call after a credit: %d %s", resp.StatusCode, body)
	}
	var keys []struct{ ID, Name, Revoked string }
	if err := json.Unmarshal([]byte(ok(t, "account", "key", "list", acme, "-json", in)), &keys); err != nil || len(keys) != 3 {
		t.Fatal(err, keys)
	}
	for _, k := range keys {
		if k.Name == "laptop" {
			fails(t, 1, "account", "key", "revoke", empty, k.ID, in) // not that account's
			if out := ok(t, "account", "key", "revoke", acme, k.ID, in); out != "revoked "+k.ID {
				t.Errorf("revoke: %q", out)
			}
		}
	}
	if resp, body := n.post(t, c, "/v1/chat/completions", key, hello); resp.StatusCode != 401 {
		t.Errorf("call with a revoked key: %d %s", resp.StatusCode, body)
	}
	if resp, body := n.post(t, c, "/v1/chat/completions", other, hello); resp.StatusCode != 200 {
		t.Errorf("call with the other key: %d %s", resp.StatusCode, body)
	}
	ok(t, "ledger", "verify", in)
	online := report()
	if code := g.stop(); code != 0 {
		t.Errorf("run ended with %d:\n%s", code, g.log)
	}
	for i, r := range reports {
		if r[0] == "ledger" && r[1] == "verify" {
			if after := ok(t, append(r, in)...); after != online[i] {
				t.Errorf("beside a running gateway:\n%s\nafter it stopped:\n%s", online[i], after)
			}
		}
	}
	for _, secret := range []string{key, other, late, limited.Secret, next, "jane@example.com", "Acme"} {
		if strings.Contains(g.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// TestReloadCommand: files in order are taken over, files with mistakes are told and change nothing, and SIGHUP does the
// same without a word.
func TestReloadCommand(t *testing.T) {
	t.Parallel()
	dir, adminAddress := commandFolder(t)
	path := filepath.Join(dir, "config.hcl")
	if errs := fails(t, 1, "reload", "-dir", dir); !strings.Contains(errs, adminAddress) {
		t.Errorf("reload with nothing running: %s", errs)
	}
	g := runGateway(t, dir, adminAddress)
	n := g.node(t, dir)
	c := n.client(t, "http1")
	says := func(want string) bool {
		_, body := get(t, c, n.url+"/", "")
		return strings.Contains(body, "· "+want+"</title>")
	}
	if !says("Postern") {
		t.Fatal("the example does not answer as it should")
	}
	edit(t, path, `title = "Postern"`, `title = "Postern is there"`)
	if out := ok(t, "reload", "-dir", dir); !strings.HasPrefix(out, "applied ") || !says("Postern is there") {
		t.Errorf("reload: %q", out)
	}
	applied := g.status(t).Config

	edit(t, path, `title = "Postern is there"`, `title = "Postern is gone"`)
	edit(t, path, "upstream = upstream.sandbox", "upstream = upstream.sandbux")
	if errs := fails(t, 1, "reload", "-dir", dir); !strings.Contains(errs, "config.hcl:") || !strings.Contains(errs, `"sandbux"`) {
		t.Errorf("reload of a broken file: %s", errs)
	}
	hangup := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	hangup()
	waitFor(t, "the refusal", func() bool { return g.status(t).Refused != nil })
	if s := g.status(t); s.Config != applied || !says("Postern is there") {
		t.Errorf("after broken files: %+v", s)
	}
	edit(t, path, "upstream = upstream.sandbux", "upstream = upstream.sandbox")
	hangup()
	waitFor(t, "the files to be taken over", func() bool { return says("Postern is gone") })
	waitFor(t, "the status", func() bool { return g.status(t).Refused == nil })

	edit(t, path, `hold_ttl = "10m"`, `hold_ttl = "11m"`)
	if errs := fails(t, 1, "reload", "-dir", dir); !strings.Contains(errs, "restart") {
		t.Errorf("reload of what can not change: %s", errs)
	}
	if !says("Postern is gone") {
		t.Error("the gateway does not serve any more")
	}
	if code := g.stop(); code != 0 {
		t.Errorf("run ended with %d:\n%s", code, g.log)
	}
}

// TestUnreachableGateway: without an admin block the commands can not reach a running gateway, and say so instead of
// working on a store of their own.
func TestUnreachableGateway(t *testing.T) {
	t.Parallel()
	dir, _ := commandFolder(t)
	edit(t, filepath.Join(dir, "config.hcl"), "admin {\n  address = var.admin\n}\n", "")
	n := startIn(t, dir)
	for _, arguments := range [][]string{{"account", "list"}, {"ledger", "verify"}, {"reload"}} {
		if errs := fails(t, 1, append(arguments, "-dir", dir)...); !strings.Contains(errs, "admin block") {
			t.Errorf("postern %s: %s", arguments, errs)
		}
	}
	n.stop()
	ok(t, "ledger", "verify", "-dir", dir)

	// What a gateway keeps in memory is not to be found in another process's memory.
	dir, admin := commandFolder(t)
	edit(t, filepath.Join(dir, "config.hcl"), "state \"badger\" {\n  dir = \"data\"\n}\n", "state \"memory\" {}\n")
	edit(t, filepath.Join(dir, "config.hcl"), "address = var.admin", "address = var.admin\n  token   = \"0123456789abcdef\"")
	if errs := fails(t, 1, "account", "create", "lost", "-dir", dir); !strings.Contains(errs, admin) {
		t.Errorf("account create: %s", errs)
	}
}

// TestCommandLine: what the parser takes and refuses.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		arguments []string
		code      int
		out, errs string
	}{
		{[]string{"version"}, 0, "postern ", ""},
		{[]string{"-help"}, 0, "Usage: postern", ""},
		{[]string{"--help"}, 0, "ledger", ""},
		{[]string{"ledger", "credit", "-h"}, 0, "same key never credits twice", ""},
		{[]string{"serve"}, 2, "", "serve"},
		{nil, 2, "Usage: postern", ""},
		{[]string{"ledger"}, 2, "", "expected one of"},
		{[]string{"account", "create"}, 2, "", "<name>"},
		{[]string{"account", "create", "a", "b"}, 2, "", "b"},
		{[]string{"ledger", "verify", "-what"}, 2, "", "--what"},
		{[]string{"validate", "no-such-folder"}, 2, "", "no-such-folder"},
		{[]string{"account", "key", "create", "a", "-expires", "soon"}, 2, "", "expires"},
	} {
		code, out, errs := command(t, "", c.arguments...)
		if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, c.errs) || (c.errs == "") != (errs == "") {
			t.Errorf("postern %q: %d\n%s\n%s", c.arguments, code, out, errs)
		}
	}
}

// TestPolicyTests: the tests in policies/ pass, one that does not hold is told with what came instead, and nothing of them
// is left behind.
func TestPolicyTests(t *testing.T) {
	t.Parallel()
	dir := workdir(t, nil)
	out := ok(t, "test", dir)
	if strings.Contains(out, "FAIL") || !strings.HasSuffix(out, " passed, 0 failed") || strings.Count(out, "ok    ") < 9 {
		t.Errorf("%s", out)
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "store")); err == nil {
		t.Error("the tests made a store")
	}
	if out := ok(t, "test", dir, "-fuel", "-run", "^embeddings"); !regexp.MustCompile(`^ok    embeddings.*  \(fuel [1-9]\d{4,}\)\n`).MatchString(out) {
		t.Errorf("fuel:\n%s", out)
	}
	if out := ok(t, "test", dir, "-run", "^embeddings"); !strings.HasSuffix(out, "\n1 passed, 0 failed") {
		t.Errorf("-run: %s", out)
	}
	wrong := `test "everything is wrong" {
  route = route.chat

  request {
    account = "acme"
    scopes  = ["models:call"]
    body    = "{\"model\": \"small\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}"

    reply {
      status = 418
    }
  }

  expect {
    status  = 200
    stage   = "policy.tenant admit meter"
    body    = "Good day"
    headers = { x-absent = "1" }

    upstream {
      body  = "sandbox-large"
      lacks = "Hello"
      name  = "sandbox"
    }
  }
}

test "not called" {
  route = route.chat

  expect {
    upstream {
      called = true
    }
  }
}
`
	if err := os.WriteFile(filepath.Join(dir, "policies", "wrong_test.hcl"), []byte(wrong), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := command(t, "", "test", dir, "-run", "wrong|not called")
	if code != 1 || errs != "" || !strings.HasSuffix(out, "0 passed, 2 failed\n") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	for _, want := range []string{
		"FAIL  everything is wrong  (policies/wrong_test.hcl:1", "status is 418, expected 200",
		`answered by "", expected "policy.tenant admit meter"`, "the reply has no header x-absent", `does not hold "Good day"`,
		`does not hold "sandbox-large"`, `"Hello" reached the upstream`, "FAIL  not called", "no upstream was called", "the gateway answered ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("does not say %q:\n%s", want, out)
		}
	}
	if code, _, errs := command(t, "", "test", dir, "-run", "("); code == 0 || !strings.Contains(errs, "-run") {
		t.Errorf("a broken pattern: %d %s", code, errs)
	}
	if err := os.WriteFile(filepath.Join(dir, "policies", "wrong_test.hcl"), []byte(strings.Replace(wrong, "route.chat", "route.chad", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := command(t, "", "test", dir); code != 1 || !strings.Contains(errs, "policies/wrong_test.hcl:2") {
		t.Errorf("a broken test: %d %s", code, errs)
	}
}

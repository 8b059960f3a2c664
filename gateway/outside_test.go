package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// echo is a server that says which request headers named x- it got.
func echo(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		for _, name := range []string{"X-Greeting", "X-Times"} {
			fmt.Fprintf(w, "%s: %s\n", strings.ToLower(name), strings.Join(r.Header.Values(name), " | "))
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// firstLine is the comment at a block's start that says which file it is.
var firstLine = regexp.MustCompile(`^# ([a-z/]+\.hcl)\n`)

// TestOutside follows the README's "Write a plugin of your own" in a folder outside the repository: its files, its commands,
// its gateway.
func TestOutside(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	programs(t, t.TempDir()) // built; the README's path leads to the repository's own
	if err := os.Symlink(root(t), filepath.Join(parent, "postern")); err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(root(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := strings.Cut(string(readme), "\n## Write a plugin of your own\n")
	if !ok {
		t.Fatal("the README does not say how to write a plugin")
	}
	start := strings.Count(before, "\n")
	origin, listen := echo(t), freePort(t)
	dir := filepath.Join(parent, "greet")
	environment := append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	made, validated, served := false, false, false
	for _, b := range blocksOf(t, "README.md") {
		if b.line <= start {
			continue
		}
		switch {
		case b.kind == "go":
			writeFile(t, filepath.Join(dir, "main.go"), b.text)
		case b.kind == "hcl":
			m := firstLine.FindStringSubmatch(b.text)
			if m == nil {
				t.Fatalf("%s does not say which file it is", b)
			}
			text := strings.NewReplacer("127.0.0.1:8080", listen, "http://127.0.0.1:9000", origin.URL).Replace(b.text)
			if m[1] == "config.hcl" && (!strings.Contains(text, listen) || !strings.Contains(text, origin.URL)) {
				t.Fatalf("%s: the addresses have changed", b)
			}
			writeFile(t, filepath.Join(dir, filepath.FromSlash(m[1])), text)
		case b.kind == "sh":
			for _, line := range commandLines(b.text) {
				switch {
				case strings.HasPrefix(line, "mkdir "):
					shellMust(t, parent, environment, line)
					made = true
				case strings.HasSuffix(line, " run"):
					served = true
					launch(t, dir, environment, filepath.Join(dir, filepath.FromSlash(strings.TrimSuffix(line, " run"))), "run")
				default:
					out := shellMust(t, dir, environment, line)
					validated = validated || strings.HasSuffix(line, " validate") && strings.HasPrefix(out, "ok: ")
				}
			}
		}
	}
	if !made || !validated || !served {
		t.Fatalf("made a folder %v, validated %v, served %v", made, validated, served)
	}
	if got := eventually(t, "http://"+listen+"/"); got != "x-greeting: good day\nx-times: \n" {
		t.Errorf("the upstream got %q", got)
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func shellMust(t *testing.T, dir string, environment []string, script string) (stdout string) {
	t.Helper()
	code, out, errs := shell(t, dir, environment, script)
	if code != 0 {
		t.Fatalf("%s\nexit code %d\n%s%s", script, code, out, errs)
	}
	return out
}

// eventually asks until someone answers.
func eventually(t *testing.T, url string) string {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		resp, err := http.Get(url) //nolint:gosec,noctx // loopback
		if err == nil {
			b, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestOutsideABI builds a plugin that was written from sdk/ABI.md alone, without the SDK, and meets it at work: headers,
// configuration, per-request arguments, carry, state, bodies, refusals, counters.
func TestOutsideABI(t *testing.T) {
	t.Parallel()
	origin := echo(t)
	dir := folder(t, map[string]string{
		"config.hcl": `state "memory" {}

listener "public" {
  address   = "127.0.0.1:0"
  protocols = [http1, http2]
}

plugin "greeter" {
  source = "greeter"
  grants = [state]
}

upstream "app" {
  endpoints = ["` + origin.URL + `"]
}

route "all" {
  listener = listener.public
  match    = "/"
  policies = [policy.greeting]
  upstream = upstream.app
}

route "loud" {
  listener = listener.public
  match    = "/twice"
  policies = [policy.greeting, policy.again]
  upstream = upstream.app
}
`,
		"policies/greeting.hcl": `policy "greeting" {
  request "greeter" {
    config {
      greeting = "Welcome"
      to       = request.headers["x-to"]
    }
  }

  response "greeter" {}
}

policy "again" {
  request "greeter" {
    when = attribute["greeter.name"] == "Ada"

    config {
      greeting = "Again"
    }
  }
}
`,
	})
	for _, name := range []string{"main.go", "plugin.hcl"} {
		b, err := os.ReadFile(filepath.Join("testdata", "greeter", name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), module) {
			t.Errorf("%s uses the SDK", name)
		}
		writeFile(t, filepath.Join(dir, "greeter", name), string(b))
	}
	environment := append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	shellMust(t, filepath.Join(dir, "greeter"), environment, "go mod init greeter && GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o greeter.wasm .")
	if code, out, errs := command(t, "", "validate", dir); code != 0 {
		t.Fatalf("%s%s", out, errs)
	}
	n := startIn(t, dir)
	ask := func(method, path string, header ...string) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+n.address+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Add(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(b)
	}
	for _, c := range []struct {
		name, method, path string
		header             []string
		status             int
		body, greeted      string
	}{
		{"header", "GET", "/", []string{"x-name", "Ada"}, 200, "X-GREETING: WELCOME, ADA\nX-TIMES: 1 GET\n!", "Ada"},
		{"another stage", "POST", "/twice", []string{"x-name", "Ada"}, 200, "X-GREETING: AGAIN, ADA\nX-TIMES: 3 POST\n!", "Ada"},
		{"the first of two", "GET", "/", []string{"x-name", "Bob", "x-name", "Eve"}, 200, "X-GREETING: WELCOME, BOB\nX-TIMES: 1 GET\n!", "Bob"},
		{"a stage passed over", "GET", "/twice", []string{"x-name", "Bob"}, 200, "X-GREETING: WELCOME, BOB\nX-TIMES: 2 GET\n!", "Bob"},
		{"argument", "GET", "/", []string{"x-to", "Zoë"}, 200, "X-GREETING: WELCOME, ZOë\nX-TIMES: 1 GET\n!", "Zoë"},
		{"nobody", "GET", "/", nil, 400, "", ""},
	} {
		resp, body := ask(c.method, c.path, c.header...)
		if resp.StatusCode != c.status || resp.Header.Get("X-Greeted") != c.greeted {
			t.Errorf("%s: %s, greeted %q: %s", c.name, resp.Status, resp.Header.Get("X-Greeted"), body)
		}
		if c.status == 200 && (body != c.body || resp.Header.Get("X-Status") != "200") {
			t.Errorf("%s: %q, status %q", c.name, body, resp.Header.Get("X-Status"))
		}
		if c.status == 400 && (!strings.Contains(body, "no_name") || !strings.Contains(body, "Say who you are in the header x-name.")) {
			t.Errorf("%s: %s", c.name, body)
		}
	}
}

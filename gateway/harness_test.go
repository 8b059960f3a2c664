package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/postern-gateway/postern/examples/sandbox/sandbox"
	"github.com/postern-gateway/postern/gateway/account"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/schema"
	"github.com/postern-gateway/postern/gateway/server"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/telemetry"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

// root is the repository's folder.
func root(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var built = sync.OnceValue(func() error {
	cmd := exec.Command("make", "-s", "-C", "..", "plugins")
	cmd.Env = append(os.Environ(), "MAKEFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.New(string(out))
	}
	return nil
})

// plugins builds the first-party plugins that are not up to date.
func plugins(t testing.TB) {
	t.Helper()
	if err := built(); err != nil {
		t.Fatal(err)
	}
}

// workdir makes a configuration folder: the running example's files, with some replaced, and its plugins. Code compiled
// once is kept for all tests.
func workdir(t testing.TB, files map[string]string) string {
	t.Helper()
	plugins(t)
	top := root(t)
	dir := t.TempDir()
	place := func(name, text string) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := files["config.hcl"]; !ok {
		for _, pattern := range []string{"config.hcl", "policies/*.hcl"} {
			paths, err := filepath.Glob(filepath.Join(top, pattern))
			if err != nil || len(paths) == 0 {
				t.Fatal(pattern, err)
			}
			for _, path := range paths {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				rel, _ := filepath.Rel(top, path)
				place(filepath.ToSlash(rel), string(b))
			}
		}
	}
	for name, text := range files {
		place(name, text)
	}
	cache := plugintest.CacheDir()
	for _, path := range []string{cache, filepath.Join(dir, "data")} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"plugins": filepath.Join(top, "plugins"), "data/cache": cache} {
		if err := os.Symlink(target, filepath.Join(dir, filepath.FromSlash(link))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// node is a gateway under test, in this process, with a sandbox provider behind it.
type node struct {
	*server.Server
	dir     string
	vars    map[string]string
	sandbox *sandbox.Sandbox
	gate    *gate // before the sandbox; open unless a test shuts it
	metrics *telemetry.Metrics
	origin  *httptest.Server // the sandbox's
	address string           // of the listener called public
	url     string           // https://address
	ca      string           // path of the development CA
	roots   *x509.CertPool
	stop    func() // shuts the gateway down; later calls do nothing
}

// start runs a gateway on the running example, with files replaced.
func start(t testing.TB, files map[string]string) *node {
	t.Helper()
	return startIn(t, workdir(t, files))
}

// startIn runs a gateway on the configuration in dir.
func startIn(t testing.TB, dir string) *node {
	t.Helper()
	return startOn(t, dir, backends())
}

// startOn runs a gateway on the configuration in dir, with other state backends than those compiled in.
func startOn(t testing.TB, dir string, stores []state.Backend) *node {
	t.Helper()
	return startWith(t, dir, server.Config{Backends: stores})
}

// startWith runs a gateway on the configuration in dir, with what c says and otherwise with what is compiled in.
func startWith(t testing.TB, dir string, c server.Config) *node {
	t.Helper()
	box := sandbox.Handler(sandbox.Config{})
	door := &gate{next: box}
	origin := httptest.NewUnstartedServer(door)
	origin.Config.Protocols = new(http.Protocols)
	origin.Config.Protocols.SetHTTP1(true)
	origin.Config.Protocols.SetUnencryptedHTTP2(true)
	origin.Start()
	t.Cleanup(origin.Close)
	n := &node{
		dir: dir, sandbox: box, gate: door, origin: origin, ca: filepath.Join(dir, "data", "tls", "ca.pem"),
		vars: map[string]string{"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "sandbox": origin.URL},
	}
	cfg, err := n.load()
	if err != nil {
		t.Fatal(err)
	}
	if c.Telemetry == nil {
		if c.Telemetry, err = telemetry.New(t.Context(), telemetry.Config{Output: logOutput(t), LogLevel: "warn", LogFormat: "text"}); err != nil {
			t.Fatal(err)
		}
	}
	n.metrics = c.Telemetry.Metrics
	if c.Child == nil {
		c.Child = plugintest.Compiler(t)
	}
	c.Formats, c.ABIs = formats(), abis()
	ops := new(operations)
	c.Console = ops.open(cfg, c.Telemetry, func(ctx context.Context, s *server.Server) error {
		next, err := n.load()
		if err != nil {
			return err
		}
		return s.Apply(ctx, next)
	}, func(context.Context) (*config.Config, error) { return n.load() })
	t.Cleanup(ops.close)
	if n.Server, err = server.New(t.Context(), c, cfg); err != nil {
		t.Fatal(err)
	}
	n.stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		ops.close()
		if err := n.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
	})
	t.Cleanup(n.stop)
	if public, ok := n.Addresses()["public"]; ok {
		n.address = public.String()
		n.url = "https://" + n.address
	}
	n.trust(t)
	return n
}

// trust has the node's clients believe in its development CA, where it has one.
func (n *node) trust(t testing.TB) {
	t.Helper()
	n.roots = x509.NewCertPool()
	if pem, err := os.ReadFile(n.ca); err == nil {
		n.roots.AppendCertsFromPEM(pem)
	}
}

// load loads the node's files as run does.
func (n *node) load() (*config.Config, error) {
	cfg, sources, diags := config.Load(n.dir, config.Options{Variables: n.known(), Backends: backends(), Formats: formats(), Version: version(), Secrets: true, Modules: true})
	if diags.HasErrors() {
		var b strings.Builder
		if err := schema.WriteDiagnostics(&b, sources, diags, false); err != nil {
			return nil, err
		}
		return nil, errors.New(b.String())
	}
	return cfg, nil
}

// known are the variables that config.hcl declares: the tests' own configurations need not have them all.
func (n *node) known() map[string]string {
	b, _ := os.ReadFile(filepath.Join(n.dir, "config.hcl"))
	out := map[string]string{}
	for name, value := range n.vars {
		if strings.Contains(string(b), `variable "`+name+`"`) {
			out[name] = value
		}
	}
	return out
}

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// logOutput shows the gateway's log with the test's, where asked for.
func logOutput(t testing.TB) io.Writer {
	if testing.Verbose() {
		return testLog{t}
	}
	return io.Discard
}

// customer makes an account with a balance and a key.
func (n *node) customer(t testing.TB, balance string, scopes ...string) (id, key string) {
	t.Helper()
	ctx := t.Context()
	acc, err := n.Storage().Accounts.Create(ctx, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Storage().Ledger.OpenAccount(ctx, acc.ID); err != nil {
		t.Fatal(err)
	}
	amount, err := exchange.ParseAmount(balance)
	if err != nil {
		t.Fatal(err)
	}
	if amount.Sign() > 0 {
		if _, err := n.Storage().Ledger.Credit(ctx, acc.ID, amount, "test-"+acc.ID, ""); err != nil {
			t.Fatal(err)
		}
	}
	if scopes == nil {
		scopes = []string{"models:call"}
	}
	_, key, err = n.Storage().Accounts.CreateKey(ctx, acc.ID, account.KeyRequest{Name: "test", Scopes: scopes})
	if err != nil {
		t.Fatal(err)
	}
	return acc.ID, key
}

// client returns a client that speaks one protocol: http1, http2 or http3.
func (n *node) client(t testing.TB, protocol string) *http.Client {
	t.Helper()
	tlsConfig := &tls.Config{RootCAs: n.roots}
	if protocol == "http3" {
		tr := &http3.Transport{TLSClientConfig: tlsConfig}
		t.Cleanup(func() { _ = tr.Close() })
		return &http.Client{Transport: tr, Timeout: time.Minute}
	}
	tr := &http.Transport{TLSClientConfig: tlsConfig, Protocols: new(http.Protocols), DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext}
	if protocol == "http2" {
		tr.Protocols.SetHTTP2(true)
	} else {
		tr.Protocols.SetHTTP1(true)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// post sends JSON with a key and returns the whole answer.
func (n *node) post(t testing.TB, c *http.Client, path, key, body string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read the answer: %v (got %q)", err, b)
	}
	return resp, string(b)
}

// verify proves the ledger.
func (n *node) verify(t testing.TB) {
	t.Helper()
	rep, err := n.Storage().Ledger.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !rep.OK() {
		t.Errorf("the ledger does not add up: %v", rep.Problems)
	}
}

const hello = `{"model":"small","messages":[{"role":"user","content":"Hello from jane@example.com"}]}`

// rewrite changes a file's text.
func rewrite(t testing.TB, path string, change func(string) string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(change(string(b))), 0o600); err != nil {
		t.Fatal(err)
	}
}

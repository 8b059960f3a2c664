package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/admin"
	"github.com/postern-gateway/postern/gateway/exchange"
)

var builtAll = sync.OnceValue(func() error {
	cmd := exec.Command("make", "-s", "-C", "..", "all")
	cmd.Env = append(os.Environ(), "MAKEFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.New(string(out))
	}
	return nil
})

// programs builds what `make run` builds and puts the programs into dir/bin.
func programs(t testing.TB, dir string) {
	t.Helper()
	plugins(t)
	if err := builtAll(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"postern", "demo"} {
		from, to := filepath.Join(root(t), "bin", name), filepath.Join(dir, "bin", name)
		if os.Link(from, to) == nil {
			continue
		}
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
}

// needs skips the test where a program is not installed, and fails it where everything has to be.
func needs(t testing.TB, program, hint string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed: %s", program, hint)
	}
	t.Skipf("%s is not installed: %s", program, hint)
}

// freePort finds a port that is free for TCP and UDP, below those that the system gives to outgoing connections.
func freePort(t testing.TB) string {
	t.Helper()
	for range 1000 {
		address := "127.0.0.1:" + strconv.Itoa(10_000+rand.IntN(20_000))
		if portFree(address) == nil {
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

func portFree(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	u, err := net.ListenPacket("udp", address)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	return errors.Join(u.Close(), l.Close())
}

// transcript keeps what a program writes, for reading while it runs.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// process is a program under test.
type process struct {
	cmd  *exec.Cmd
	out  transcript
	done chan struct{} // closed when it has ended
	err  error         // how, once done is closed
}

// launch starts a program. It is killed when the test ends and it still runs.
func launch(t testing.TB, dir string, environment []string, name string, arguments ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, arguments...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = dir, environment, &p.out, &p.out
	p.cmd.WaitDelay = 10 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		select {
		case <-p.done:
		default:
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
			if p.wait() != nil {
				_ = p.cmd.Process.Kill()
				<-p.done
			}
		}
		if t.Failed() && p.out.String() != "" {
			t.Logf("%s wrote:\n%s", name, p.out.String())
		}
	})
	return p
}

// wait waits for the end; an error means that it did not come.
func (p *process) wait() error {
	select {
	case <-p.done:
		return nil
	case <-time.After(time.Minute):
		return errors.New("still runs after a minute")
	}
}

// stop sends a signal and expects an orderly end.
func (p *process) stop(t testing.TB, signal os.Signal) {
	t.Helper()
	began := time.Now()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(); err != nil {
		t.Fatalf("after %s: %v", signal, err)
	}
	if p.err != nil {
		t.Errorf("after %s: %v\n%s", signal, p.err, p.out.String())
	}
	t.Logf("ended %s after %s", time.Since(began).Round(time.Millisecond), signal)
}

// demonstration is what `make run` runs, in a folder of its own and on free ports.
type demonstration struct {
	dir                    string
	listen, admin, sandbox string
	environment            []string // what a shell in another terminal has
}

// demonstrate prepares one. Nothing runs yet.
func demonstrate(t testing.TB) *demonstration {
	t.Helper()
	// A folder may have any name.
	dir := filepath.Join(t.TempDir(), "Ada's gateway")
	if err := os.Rename(workdir(t, nil), dir); err != nil {
		t.Fatal(err)
	}
	programs(t, dir)
	d := &demonstration{dir: dir, listen: freePort(t), admin: freePort(t), sandbox: freePort(t)}
	d.environment = append(os.Environ(), "POSTERN_VAR_listen="+d.listen, "POSTERN_VAR_admin="+d.admin, "POSTERN_VAR_sandbox=http://"+d.sandbox,
		"no_proxy=*", "NO_PROXY=*")
	return d
}

// run starts it as make does, from the folder itself.
func (d *demonstration) run(t testing.TB) *process {
	t.Helper()
	return launch(t, d.dir, os.Environ(), filepath.Join(d.dir, "bin", "demo"), "-postern", "bin/postern", "-listen", d.listen, "-admin", d.admin, "-sandbox", d.sandbox)
}

// serve starts it and waits until it answers. The node has what clients need and no server: that is another process.
func (d *demonstration) serve(t testing.TB) (*process, *node) {
	t.Helper()
	p := d.run(t)
	n := &node{dir: d.dir, address: d.listen, url: "https://" + d.listen, ca: filepath.Join(d.dir, "data", "tls", "ca.pem"), roots: x509.NewCertPool()}
	deadline := time.Now().Add(2 * time.Minute)
	for {
		select {
		case <-p.done:
			t.Fatalf("ended: %v\n%s", p.err, p.out.String())
		case <-time.After(20 * time.Millisecond):
		}
		if pem, err := os.ReadFile(n.ca); err == nil && n.roots.AppendCertsFromPEM(pem) && d.greets(n.roots) {
			return p, n
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready after two minutes:\n%s", p.out.String())
		}
	}
}

// greets reports whether the gateway answers.
func (d *demonstration) greets(roots *x509.CertPool) bool {
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	resp, err := c.Get("https://" + d.listen + "/")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return err == nil && resp.StatusCode == 200 && strings.Contains(string(b), "Postern</title>")
}

// shell runs a script as a reader of the README would, in the folder.
func (d *demonstration) shell(t testing.TB, script string) (code int, stdout, stderr string) {
	t.Helper()
	return shell(t, d.dir, d.environment, script)
}

func shell(t testing.TB, dir string, environment []string, script string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "sh", "-eu", "-c", script)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = dir, environment, &out, &errs, 10*time.Second
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// must runs a script that has to succeed.
func (d *demonstration) must(t testing.TB, script string) (stdout string) {
	t.Helper()
	code, out, errs := d.shell(t, script)
	if code != 0 {
		t.Fatalf("%s\nexit code %d\n%s%s", script, code, out, errs)
	}
	return out
}

// key is the demo's key, as a shell reads it.
func (d *demonstration) key(t testing.TB) string {
	t.Helper()
	return d.must(t, `. data/demo.env && printf %s "$POSTERN_KEY"`)
}

// balance is the demo account's, from the running gateway or the store.
func (d *demonstration) balance(t testing.TB) exchange.Amount {
	t.Helper()
	var list []admin.Balance
	if err := json.Unmarshal([]byte(d.must(t, "bin/postern ledger balance -json")), &list); err != nil {
		t.Fatal(err)
	}
	list = slices.DeleteFunc(list, func(b admin.Balance) bool { return strings.HasPrefix(b.Account, "system:") })
	if len(list) != 1 {
		t.Fatalf("accounts: %v", list)
	}
	if list[0].Held.Sign() != 0 {
		t.Errorf("%s is still held", list[0].Held)
	}
	return list[0].Available
}

// running lists the processes of its programs by name, where the system has a /proc.
func (d *demonstration) running(t testing.TB) map[string]int {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, link := range links {
		if program, err := os.Readlink(link); err == nil && strings.HasPrefix(program, d.dir+string(filepath.Separator)) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
			if err != nil {
				t.Fatal(err)
			}
			out[filepath.Base(program)] = pid
		}
	}
	return out
}

// left checks that nothing of it runs any more.
func (d *demonstration) left(t testing.TB) {
	t.Helper()
	if running := d.running(t); len(running) > 0 {
		t.Errorf("still run: %v", running)
	}
	for _, address := range []string{d.listen, d.admin, d.sandbox} {
		if err := portFree(address); err != nil {
			t.Error(err)
		}
	}
}

// TestDemo: what `make run` runs serves over every protocol, ends in order at every signal that ends programs, and goes on
// where it left off: the same key, the same balance.
func TestDemo(t *testing.T) {
	t.Parallel()
	d := demonstrate(t)
	p, n := d.serve(t)
	if code, out, errs := d.shell(t, `. data/demo.env && printf '%s\n' "$POSTERN_URL" "$POSTERN_CA" "$POSTERN_ADMIN"`); code != 0 || out != n.url+"\n"+n.ca+"\nhttp://"+d.admin+"\n" {
		t.Errorf("demo.env, read by a shell: %d %s%s", code, out, errs)
	}
	if info, err := os.Stat(filepath.Join(d.dir, "data", "demo.env")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a file with a key in it: %v %v", info.Mode(), err)
	}
	key, before := d.key(t), d.balance(t)
	if want := exchange.Pico(10_000_000_000_000); before != want {
		t.Errorf("the demo account begins with %s", before)
	}
	for i, protocol := range []string{"http1", "http2", "http3"} {
		resp, body := n.post(t, n.client(t, protocol), "/v1/chat/completions", key, hello)
		if resp.StatusCode != 200 || resp.ProtoMajor != i+1 || !strings.Contains(body, "You said: Hello from jane@example.com") {
			t.Errorf("%s: %s %s %s", protocol, resp.Proto, resp.Status, body)
		}
		after := d.balance(t)
		if after.Cmp(before) >= 0 {
			t.Errorf("%s: the call was free: %s before, %s after", protocol, before, after)
		}
		before = after
	}
	t.Run("curl", func(t *testing.T) { demoCurl(t, d) })
	t.Run("gtlsclient", func(t *testing.T) { demoHTTP3(t, d) })
	before = d.balance(t)
	_, log, _ := strings.Cut(p.out.String(), "Ctrl-C ends it.")
	if !strings.Contains(log, "protocol=http3") || strings.Contains(log, "jane") || strings.Contains(log, key) {
		t.Errorf("the log lacks calls, or has personal data or keys:\n%s", log)
	}
	p.stop(t, os.Interrupt)
	d.left(t)

	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		began := time.Now()
		p, n = d.serve(t)
		t.Logf("started again on the same data in %s", time.Since(began).Round(time.Millisecond))
		if again := d.key(t); again != key {
			t.Error("another key")
		}
		if now := d.balance(t); now != before {
			t.Errorf("the balance was %s and is %s", before, now)
		}
		resp, body := n.post(t, n.client(t, "http2"), "/v1/chat/completions", key, hello)
		if resp.StatusCode != 200 {
			t.Errorf("%s %s", resp.Status, body)
		}
		before = d.balance(t)
		p.stop(t, signal)
		d.left(t)
	}
	if now := d.balance(t); now != before {
		t.Errorf("the balance was %s and is %s in the store", before, now)
	}

	// Killed, it loses nothing that was charged, and the demo says so.
	p, n = d.serve(t)
	if pid := d.running(t)["postern"]; pid != 0 {
		resp, body := n.post(t, n.client(t, "http1"), "/v1/chat/completions", key, hello)
		if resp.StatusCode != 200 {
			t.Errorf("%s %s", resp.Status, body)
		}
		before = d.balance(t)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := p.wait(); err != nil {
			t.Fatal(err)
		}
		if p.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(p.out.String(), "demo: the gateway ended: signal: killed") {
			t.Errorf("exit code %d\n%s", p.cmd.ProcessState.ExitCode(), p.out.String())
		}
		d.left(t)
		p, _ = d.serve(t)
		if now := d.balance(t); now != before {
			t.Errorf("the balance was %s and is %s after a kill", before, now)
		}
	}
	p.stop(t, os.Interrupt)
	if out := d.must(t, "bin/postern ledger verify"); !strings.Contains(out, "it adds up") {
		t.Error(out)
	}
}

// demoCurl makes the README's first call with curl, over both protocols that it speaks.
func demoCurl(t *testing.T, d *demonstration) {
	needs(t, "curl", "install curl")
	call := blockWith(t, "README.md", "sh", "$POSTERN_URL/v1/chat/completions")
	for _, c := range []struct{ flag, status string }{{"--http1.1", "HTTP/1.1 200 OK\r\n"}, {"--http2", "HTTP/2 200 \r\n"}} {
		out := d.must(t, strings.Replace(call, "curl ", "curl -sS -i "+c.flag+" ", 1))
		head, body, _ := strings.Cut(out, "\r\n\r\n")
		if !strings.HasPrefix(head+"\r\n", c.status) || !strings.Contains(strings.ToLower(head), "\r\npostern-receipt: ") || !strings.Contains(body, "You said: Hello, I am jane@example.com") {
			t.Errorf("%s: %s", c.flag, out)
		}
	}
}

// demoHTTP3 asks with a client of another make over HTTP/3.
func demoHTTP3(t *testing.T, d *demonstration) {
	needs(t, "gtlsclient", "install the package ngtcp2-client")
	_, port, _ := net.SplitHostPort(d.listen)
	ask := strings.Replace(blockWith(t, "README.md", "sh", "gtlsclient"), " 8443 ", " "+port+" ", 1)
	if out := d.must(t, ". data/demo.env\n"+ask); !strings.Contains(out, "[:status: 200]") || !strings.Contains(out, "[content-type: text/html; charset=utf-8]") {
		t.Error(out)
	}
	// A request with a body: without a key it is refused, and the refusal arrives whole.
	script := `. data/demo.env
printf %s '{"model":"small","messages":[{"role":"user","content":"Hello"}]}' > body.json
gtlsclient -q --exit-on-all-streams-close -m POST -d body.json --download . 127.0.0.1 ` + port + ` "$POSTERN_URL/v1/chat/completions"
cat completions`
	if out := d.must(t, script); !json.Valid([]byte(out)) || !strings.Contains(out, `"invalid_api_key"`) {
		t.Error(out)
	}
}

// TestDemoPortTaken: whichever port is taken, the message names it, and nothing goes on running.
func TestDemoPortTaken(t *testing.T) {
	t.Parallel()
	d := demonstrate(t)
	for _, c := range []struct{ name, network, address string }{
		{"customers", "tcp", d.listen}, {"customers over HTTP/3", "udp", d.listen}, {"operators", "tcp", d.admin}, {"sandbox", "tcp", d.sandbox},
	} {
		var holder io.Closer
		var err error
		if c.network == "udp" {
			holder, err = net.ListenPacket("udp", c.address)
		} else {
			holder, err = net.Listen("tcp", c.address)
		}
		if err != nil {
			t.Fatal(err)
		}
		p := d.run(t)
		if err := p.wait(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if out := p.out.String(); p.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out, c.address) || !strings.Contains(out, "address already in use") {
			t.Errorf("%s: exit code %d\n%s", c.name, p.cmd.ProcessState.ExitCode(), out)
		}
		if err := holder.Close(); err != nil {
			t.Fatal(err)
		}
		d.left(t)
	}
}

// TestDemoTwice: a second gateway on the same data is refused and does the first no harm.
func TestDemoTwice(t *testing.T) {
	t.Parallel()
	d := demonstrate(t)
	p, n := d.serve(t)
	second := *d
	second.listen, second.admin, second.sandbox = freePort(t), freePort(t), freePort(t)
	q := second.run(t)
	if err := q.wait(); err != nil {
		t.Fatal(err)
	}
	if out := q.out.String(); q.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out, "another process") {
		t.Errorf("exit code %d\n%s", q.cmd.ProcessState.ExitCode(), out)
	}
	if url := d.must(t, `. data/demo.env && printf %s "$POSTERN_URL"`); url != n.url {
		t.Errorf("demo.env leads to %s, and %s serves", url, n.url)
	}
	if resp, body := n.post(t, n.client(t, "http2"), "/v1/chat/completions", d.key(t), hello); resp.StatusCode != 200 {
		t.Errorf("%s %s", resp.Status, body)
	}
	p.stop(t, os.Interrupt)
	d.left(t)
}

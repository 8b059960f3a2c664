// Command demo is what `make run` runs: it starts the sandbox provider, makes a demo account with a balance and a key
// on the first run, says how to use them, and serves with the gateway until it is interrupted.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/postern-gateway/postern/examples/sandbox/sandbox"
	"github.com/postern-gateway/postern/gateway/certificate"
)

// demo is one run.
type demo struct {
	postern string // the gateway's binary
	dir     string // the configuration's folder
	listen  string
	admin   string
	sandbox string
	balance string
	env     string // the file with keys and addresses
}

func main() {
	d := demo{}
	flag.StringVar(&d.postern, "postern", "bin/postern", "the gateway's `binary`")
	flag.StringVar(&d.dir, "dir", ".", "the `folder` with config.hcl")
	flag.StringVar(&d.listen, "listen", "127.0.0.1:8443", "the `address` customers use")
	flag.StringVar(&d.admin, "admin", "127.0.0.1:9901", "the `address` operators use")
	flag.StringVar(&d.sandbox, "sandbox", "127.0.0.1:9902", "the `address` of the sandbox provider")
	flag.StringVar(&d.balance, "balance", "10", "what the demo account starts with")
	flag.Parse()
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // a closed terminal ends it too, but not one left behind with nohup
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	err := d.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func (d *demo) run(ctx context.Context) error {
	provider, err := d.startSandbox(ctx)
	if err != nil {
		return err
	}
	defer provider()
	d.env = filepath.Join(d.dir, "data", "demo.env")
	key, err := d.prepare(ctx)
	if err != nil {
		return err
	}
	return d.serve(ctx, key)
}

// greet says where everything is.
func (d *demo) greet() {
	fmt.Printf(`
Postern serves on https://%[1]s, operators' API on http://%[2]s, the sandbox provider on http://%[3]s.
The console is at https://%[1]s/; operators sign in at https://%[1]s/operator with the token in %[5]s.
Keys and addresses are in %[4]s. In another terminal:

  . %[4]s
  curl --cacert "$POSTERN_CA" "$POSTERN_URL/v1/chat/completions" \
    -H "Authorization: Bearer $POSTERN_KEY" -H 'Content-Type: application/json' \
    -d '{"model":"small","messages":[{"role":"user","content":"Hello from jane@example.com"}]}'

Ctrl-C ends it.

`, d.listen, d.admin, d.sandbox, quote(d.env), quote(filepath.Join(d.dir, "data", "admin.token")))
}

func (d *demo) startSandbox(ctx context.Context) (stop func(), err error) {
	var l net.ListenConfig
	listener, err := l.Listen(ctx, "tcp", d.sandbox)
	if err != nil {
		return nil, fmt.Errorf("start the sandbox provider: %w", err)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: sandbox.Handler(sandbox.Config{}), ReadHeaderTimeout: 10 * time.Second, Protocols: protocols}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "demo: sandbox provider:", err)
		}
	}()
	return func() {
		_ = server.Close() // what still runs has no one to answer to
		<-done
	}, nil
}

// prepare finds the key that the last run left, or makes an account and a key and keeps it.
func (d *demo) prepare(ctx context.Context) (key string, err error) {
	old, err := os.ReadFile(d.env)
	switch {
	case err == nil:
		if m := regexp.MustCompile(`(?m)^POSTERN_KEY=(\S+)$`).FindSubmatch(old); m != nil {
			return string(m[1]), nil
		}
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("read what the last run left: %w", err)
	}
	account, err := d.command(ctx, "account", "create", "demo")
	if err != nil {
		return "", err
	}
	if _, err := d.command(ctx, "ledger", "credit", account, d.balance, "-key", "demo-"+account); err != nil {
		return "", err
	}
	if key, err = d.command(ctx, "account", "key", "create", account, "-name", "demo", "-scope", "models:call"); err != nil {
		return "", err
	}
	return key, d.write(key)
}

// write writes demo.env, at once: who reads it meanwhile finds the old one.
func (d *demo) write(key string) error {
	ca, err := filepath.Abs(d.ca())
	if err != nil {
		return err
	}
	text := fmt.Sprintf("POSTERN_URL=https://%s\nPOSTERN_KEY=%s\nPOSTERN_CA=%s\nPOSTERN_ADMIN=http://%s\n", d.listen, key, quote(ca), d.admin)
	next := d.env + ".new"
	err = os.WriteFile(next, []byte(text), 0o600)
	if err == nil {
		err = os.Rename(next, d.env)
	}
	if err != nil {
		return fmt.Errorf("write the demo's addresses: %w", err)
	}
	return nil
}

func (d *demo) ca() string { return certificate.DevelopmentCA(filepath.Join(d.dir, "data")) }

// quote writes a word so that a shell reads it as it is.
func quote(word string) string {
	if regexp.MustCompile(`^[A-Za-z0-9%+,./:=@_-]+$`).MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// command runs postern with arguments and returns the one word it prints.
func (d *demo) command(ctx context.Context, arguments ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.postern, append(arguments, "-dir", d.dir)...)
	cmd.Env = d.environment()
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("postern %s: %w\n%s", strings.Join(arguments, " "), err, problems.String())
	}
	return strings.TrimSpace(out.String()), nil
}

func (d *demo) environment() []string {
	return append(os.Environ(), "POSTERN_VAR_listen="+d.listen, "POSTERN_VAR_admin="+d.admin, "POSTERN_VAR_sandbox=http://"+d.sandbox)
}

// serve runs the gateway until ctx ends, then asks it to stop and waits. It has a process group of its own, so that
// Ctrl-C in a terminal reaches it once, through here.
func (d *demo) serve(ctx context.Context, key string) error {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), d.postern, "run", d.dir) // it is asked to stop, not killed
	cmd.Env = d.environment()
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the gateway: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	// Only now that it serves are the addresses in demo.env these: a demo that runs already keeps its own.
	if over, err := d.ready(ctx, done); over {
		return ended(err)
	}
	var problem error
	if ctx.Err() == nil {
		if problem = d.write(key); problem == nil {
			d.greet()
			select {
			case err := <-done:
				return ended(err)
			case <-ctx.Done():
			}
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return errors.Join(problem, fmt.Errorf("stop the gateway: %w", err))
	}
	select {
	case err := <-done:
		return errors.Join(problem, ended(err))
	case <-time.After(60 * time.Second):
		_ = cmd.Process.Kill() // it had its time
		return errors.Join(problem, ended(<-done))
	}
}

// ready waits until the gateway serves, ctx ends, or the gateway has ended: then over is true and err says how. A gateway
// that does not show a certificate of the development CA is taken to serve after a while.
func (d *demo) ready(ctx context.Context, done <-chan error) (over bool, err error) {
	late := time.After(30 * time.Second)
	for !d.answers(ctx) {
		select {
		case err := <-done:
			return true, err
		case <-ctx.Done():
			return false, nil
		case <-late:
			return false, nil
		case <-time.After(20 * time.Millisecond):
		}
	}
	return false, nil
}

// answers reports whether the one who listens has a certificate of this folder's development CA.
func (d *demo) answers(ctx context.Context) bool {
	pem, err := os.ReadFile(d.ca())
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		return false
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Second}, Config: &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}}
	conn, err := dialer.DialContext(ctx, "tcp", d.listen)
	if err != nil {
		return false
	}
	_ = conn.Close() // it has served its purpose
	return true
}

func ended(err error) error {
	if err != nil {
		return fmt.Errorf("the gateway ended: %w", err)
	}
	return nil
}

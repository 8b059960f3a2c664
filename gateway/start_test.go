package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/postern-gateway/postern/sdk/plugintest"
)

// watched keeps what a run writes, and ends it once it serves.
type watched struct {
	mu   sync.Mutex
	text bytes.Buffer
	stop func()
}

func (c *watched) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if bytes.Contains(p, []byte("msg=serving")) {
		c.stop()
	}
	return c.text.Write(p)
}

// try runs the gateway on a folder until it serves or gives up.
func try(t *testing.T, dir string, listen, admin string) (code int, out string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &watched{stop: cancel}
	a := &App{
		Context: ctx, Stdin: strings.NewReader(""), Stdout: c, Stderr: c,
		Environment: func(string) (string, bool) { return "", false }, Child: plugintest.Compiler(t),
	}
	code = a.Main([]string{"run", dir, "-var", "listen=" + listen, "-var", "admin=" + admin})
	return code, c.text.String()
}

// TestStartRefused: what stops a start is told in one line that says where and what to do, nothing has served by then, and
// once it is mended the next start works.
func TestStartRefused(t *testing.T) {
	t.Parallel()
	change := func(from, to string) func(t *testing.T, dir string) func() {
		return func(t *testing.T, dir string) func() {
			path := filepath.Join(dir, "config.hcl")
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(before), from) {
				t.Fatalf("no %s", from)
			}
			rewrite(t, path, func(s string) string { return strings.Replace(s, from, to, 1) })
			return func() { rewrite(t, path, func(string) string { return string(before) }) }
		}
	}
	// spoil puts content in the place of a plugin's module, in a folder of its own; nil takes the module away.
	spoil := func(content []byte) func(t *testing.T, dir string) func() {
		return func(t *testing.T, dir string) func() {
			from, to := filepath.Join(dir, "plugins", "apikey"), filepath.Join(dir, "mine", "apikey")
			manifest, err := os.ReadFile(filepath.Join(from, "plugin.hcl"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(to, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(to, "plugin.hcl"), manifest, 0o600); err != nil {
				t.Fatal(err)
			}
			if content != nil {
				if err := os.WriteFile(filepath.Join(to, "apikey.wasm"), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			return change(`"plugins/apikey"`, `"mine/apikey"`)(t, dir)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	apart := "127.0.0.1:0"
	if runtime.GOOS == "linux" {
		apart = "127.0.0.77:0" // nobody takes the TCP port of the same number here
	}
	packets, err := net.ListenPacket("udp", apart)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = packets.Close() })
	used, usedUDP := taken.Addr().String(), packets.LocalAddr().String()
	const free = "127.0.0.1:0"
	for _, c := range []struct {
		name          string
		listen, admin string
		harm          func(t *testing.T, dir string) (mend func())
		want          string // an expression for the line that says it
	}{
		{"port taken", used, free, nil, `^postern: listener "public": .*` + used + `.*address already in use: stop what listens there, or choose another address$`},
		{"UDP port taken", usedUDP, free, nil, `^postern: listener "public": listen udp ` + usedUDP + `.*: stop what listens there`},
		{"admin port taken", free, used, nil, `^postern: admin listener: .*` + used + `.*: stop what listens there`},
		{"somebody else's address", "192.0.2.1:8443", free, nil, `^postern: listener "public": .*: this machine has no such address`},
		{"another currency", free, free, change(`"USD"`, `"EUR"`), `^postern: open ledger: its money is USD and the configuration's currency is EUR: .*a store of its own$`},
		{"full disk", free, free, change(`dir = "data"`, "dir = \"data\"\n  reserve = \"4000TiB\""), `^postern: open .*MiB are to stay free: make room on the disk, or lower reserve`},
		{"data is no folder", free, free, change(`dir = "data"`, `dir = "config.hcl"`), `^postern: open state .*config.hcl: .*not a directory`},
		{"broken module", free, free, spoil([]byte("not a module")), `^config.hcl:\d+:\d+: Refused module: mine/apikey/apikey.wasm .*not a WebAssembly module`},
		{"missing module", free, free, spoil(nil), `^config.hcl:\d+:\d+: Unreadable module: .*Build it first\.`},
		{"wrong hash", free, free, change(`source = "plugins/apikey"`, `source = "plugins/apikey"`+"\n  sha256 = \""+strings.Repeat("0", 64)+"\""), `^config.hcl:\d+:\d+: Wrong hash: .*its SHA-256 is [0-9a-f]{64}`},
		{"missing secret", free, free, change(`listener "public"`, "secret \"openai\" {\n  env = \"NOPE\"\n}\n\nlistener \"public\""), `^config.hcl:\d+:\d+: Unreadable secret: .*environment variable NOPE is not set`},
		{"broken certificate", free, free, change(`self_signed = ["localhost", "127.0.0.1", "::1"]`, "cert = \"config.hcl\"\n    key = \"config.hcl\""), `^postern: listener "public": certificate .*config.hcl: `},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := workdir(t, nil)
			if strings.Contains(c.want, "ledger") { // which has to be there first
				if code, out := try(t, dir, free, free); code != 0 || !strings.Contains(out, "msg=stopped") {
					t.Fatalf("before: exit code %d\n%s", code, out)
				}
			}
			mend := func() {}
			if c.harm != nil {
				mend = c.harm(t, dir)
			}
			code, out := try(t, dir, c.listen, c.admin)
			if code != 1 || !regexp.MustCompile("(?m)"+c.want).MatchString(out) {
				t.Errorf("exit code %d, want a line like %s in\n%s", code, c.want, out)
			}
			if strings.Contains(out, "msg=serving") || strings.Count(out, "\npostern: ") > 1 {
				t.Errorf("it served, or said it twice:\n%s", out)
			}
			mend()
			if code, out := try(t, dir, free, free); code != 0 || !strings.Contains(out, "msg=stopped") {
				t.Errorf("mended: exit code %d\n%s", code, out)
			}
		})
	}
}

// TestStartLocked: a second gateway on the same folder says what to do, and the first serves on.
func TestStartLocked(t *testing.T) {
	t.Parallel()
	n := start(t, nil)
	code, out := try(t, n.dir, "127.0.0.1:0", "127.0.0.1:0")
	if code != 1 || !strings.Contains(out, "in use by another process: if it is a running gateway, stop that first") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if code, out, errs := command(t, "", "account", "list", "-dir", n.dir, "-var", "admin=127.0.0.1:1"); code != 1 || !strings.Contains(errs, "no gateway answers at the admin address 127.0.0.1:1") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	if resp, err := n.client(t, "http2").Get(n.url + "/"); err != nil {
		t.Error(err)
	} else {
		_ = resp.Body.Close()
	}
}

// TestAskedForHelp: the ways in which people ask lead somewhere.
func TestAskedForHelp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		arguments []string
		code      int
		want      string
	}{
		{nil, 2, "Commands:"}, {[]string{"help"}, 0, "Commands:"}, {[]string{"help", "run"}, 0, "Usage: postern run"}, {[]string{"run", "-h"}, 0, "Usage: postern run"},
		{[]string{"-v"}, 0, "postern " + version()}, {[]string{"--version"}, 0, "postern " + version()},
		{[]string{"rum"}, 2, `did you mean "run"`},
	} {
		if code, out, errs := command(t, "", c.arguments...); code != c.code || !strings.Contains(out+errs, c.want) {
			t.Errorf("%s: %d %s%s", fmt.Sprint(c.arguments), code, out, errs)
		}
	}
}

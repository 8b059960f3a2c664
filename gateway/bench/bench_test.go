//go:build linux

package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/bench/peer"
	"github.com/postern-gateway/postern/gateway/bench/record"
)

// TestTargetsAreMeasured: every target's proxies are in its cell, and every cell's proxies are known.
func TestTargetsAreMeasured(t *testing.T) {
	t.Parallel()
	in := map[string]string{}
	for _, c := range cells() {
		in[c.Name] = " " + strings.Join(c.Peers, " ") + " "
		for _, name := range c.Peers {
			if _, ok := peer.ByName(name); !ok && name != direct {
				t.Errorf("%s: nobody knows %s", c.Name, name)
			}
		}
	}
	for _, target := range targets() {
		if !strings.Contains(in[target.Cell], " "+target.Peer+" ") || !strings.Contains(in[target.Cell], " "+target.Against+" ") {
			t.Errorf("%s: the cell has%s", target, in[target.Cell])
		}
	}
	var told bytes.Buffer
	if err := run(t.Context(), options{list: true}, &told); err != nil || !strings.Contains(told.String(), "h1-1k") || !strings.Contains(told.String(), "at most 1.1 of nginx's") {
		t.Errorf("%v\n%s", err, told.String())
	}
}

// TestReadme: the README shows the results that are kept, and no others.
func TestReadme(t *testing.T) {
	t.Parallel()
	report, err := record.Open("results")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := report.Summary(order(), columns(), targets()); !strings.Contains(string(text), want) {
		t.Errorf("README.md lacks what results.json says; make bench writes both:\n%s", want)
	}
}

// TestShort measures a cell of each kind for a moment, with the proxies that start at once and are there, in a process of its own because it
// ties itself to a processor.
func TestShort(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	wants := map[string]bool{"postern": true}
	for _, name := range []string{"postern", "nginx", "haproxy"} {
		p, _ := peer.ByName(name)
		if _, err := p.Find(ctx, peer.Tools{Root: root}); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Logf("without %v", err)
			wants[name] = false
		} else {
			wants[name] = true
		}
	}
	if !wants["postern"] {
		t.Skip("bin/postern is not built: make")
	}
	const only = "h1-64k|tls-1k|h2-1k|h3-1k|sse|model"
	dir := t.TempDir()
	harness := filepath.Join(dir, "harness")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", harness, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // nginx's worker is another user
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, harness, "-root", root, "-out", filepath.Join(dir, "out"), "-work", filepath.Join(dir, "work"),
		"-only", "^("+only+")$", "-rounds", "1", "-warm", "10ms", "-window", "50ms", "-paced", "50ms", "-settle", "0s", "-peers", `none|nginx|haproxy|postern(\+4)?`)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	report, err := record.Open(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	kind := regexp.MustCompile("^(" + only + ")$")
	for _, c := range cells() {
		if !kind.MatchString(c.Name) {
			continue
		}
		got := report.Cells[c.Name]
		for _, name := range c.Peers {
			if name != "postern+4" && !wants[name] {
				continue
			}
			if r := got.Rounds[name]; len(r) != 1 || r[0].PerSecond <= 0 || r[0].P50 <= 0 || r[0].Rest < 1<<20 || r[0].Loaded < 1<<20 {
				t.Errorf("%s: %s has no figures: %+v %s\n%s", c.Name, name, r, got.LeftOut[name], out)
			}
		}
	}
	if !strings.Contains(string(out), "tls-1k: CPU of postern at most 1.1 of nginx's") {
		t.Errorf("the targets are not told:\n%s", out)
	}
}

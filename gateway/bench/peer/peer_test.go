//go:build linux

package peer

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// busy is a peer that uses its processor, with a child that does so too.
func busy(script string) Peer {
	return Peer{Name: "busy", prepare: func(context.Context, Site) (plan, error) {
		return plan{args: []string{"sh", "-c", script}, env: []string{"WORD=here"}}, nil
	}}
}

// TestProcess: the time and the memory of a process and of its children are counted, and all of them are ended.
func TestProcess(t *testing.T) {
	t.Parallel()
	p, err := Start(t.Context(), busy("while :; do :; done & while :; do :; done"), Tool{}, Site{Dir: t.TempDir()}, -1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	for late := time.Now().Add(30 * time.Second); len(p.tree) < 2; {
		if err := p.Look(); err != nil || time.Now().After(late) {
			t.Fatalf("the child is not found: %v %v", p.tree, err)
		}
	}
	for _, pid := range p.tree {
		alone := &Process{tree: []int{pid}}
		for late := time.Now().Add(30 * time.Second); ; {
			used, err := alone.Usage()
			if err == nil && used > 0 {
				break
			}
			if err != nil || time.Now().After(late) {
				t.Fatalf("process %d used %s: %v", pid, used, err)
			}
		}
	}
	first, err := (&Process{tree: p.tree[:1]}).Memory()
	both, problem := p.Memory()
	if err != nil || problem != nil || first <= 0 || both <= first {
		t.Errorf("memory %d, of both %d: %v %v", first, both, err, problem)
	}
	if err := p.Ended(); err != nil {
		t.Error(err)
	}
	tree := p.tree
	p.Stop()
	for _, pid := range tree {
		for late := time.Now().Add(30 * time.Second); ; {
			state, _, err := stat("/proc/" + strconv.Itoa(pid) + "/stat")
			if err != nil || state[0] == "Z" {
				break // it has gone, or nobody has asked after it yet
			}
			if time.Now().After(late) {
				t.Fatalf("process %d goes on", pid)
			}
		}
	}
}

// TestProcessEnds: a proxy that ends by itself is told of with its last words.
func TestProcessEnds(t *testing.T) {
	t.Parallel()
	p, err := Start(t.Context(), busy("echo $WORD and gone; exit 3"), Tool{}, Site{Dir: t.TempDir()}, -1)
	if err != nil {
		t.Fatal(err)
	}
	<-p.done
	if err := p.Ended(); err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "here and gone") {
		t.Error(err)
	}
	p.Stop()
}

// TestPrepare: each peer's files name the address, the origin and the certificate, and nothing is started for it.
func TestPrepare(t *testing.T) {
	t.Parallel()
	for _, p := range All() {
		if strings.HasPrefix(p.Name, "postern+") {
			continue // asks postern for an account; TestShort of the harness does
		}
		dir := t.TempDir()
		s := Site{Dir: dir, Root: "/repository", Origin: "127.0.0.1:1111", TLS: true, HTTP3: true, Events: true, Cert: "/c.pem", Key: "/k.pem", Address: "127.0.0.1:2222", tool: "/tool"}
		made, err := p.prepare(t.Context(), s)
		if err != nil {
			t.Errorf("%s: %v", p.Name, err)
			continue
		}
		text := strings.Join(made.args, " ")
		for _, f := range made.header {
			text += "\n" + f[0] + ": " + f[1]
		}
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(dir + "/" + f.Name())
			if err != nil {
				t.Fatal(err)
			}
			text += string(b)
		}
		wants := []string{"2222", "1111", "/c.pem"}
		if strings.Contains("fasthttp litellm portkey", p.Name) {
			wants = wants[:2] // are spoken to in clear
		}
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %s stands nowhere:\n%s", p.Name, want, text)
			}
		}
	}
}

// TestBusy: the processors' accounts can be read, of one and of all.
func TestBusy(t *testing.T) {
	t.Parallel()
	all, err := Busy(-1)
	one, problem := Busy(0)
	if err != nil || problem != nil || one <= 0 || all < one {
		t.Errorf("%s %s %v %v", one, all, err, problem)
	}
	if _, err := Busy(1 << 20); err == nil {
		t.Error("a processor that there is not was busy")
	}
}

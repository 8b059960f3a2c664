package ledger

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/state/badger"
)

// The child of TestKill is this test binary again, with these in its environment.
const (
	killDir  = "POSTERN_TEST_KILL_DIR"
	killStep = "POSTERN_TEST_KILL_STEP"
)

// A process that is killed at every step between hold and settle, opened again on the same files each time: everything
// it said it had done is there, nothing is there twice, and the ledger adds up.
func TestKill(t *testing.T) {
	if dir := os.Getenv(killDir); dir != "" {
		child(dir, os.Getenv(killStep))
		return
	}
	t.Parallel()
	dir := t.TempDir()
	charged := map[string]string{}
	begun := map[string]bool{}
	credits := map[string]bool{}
	// The moments of a call at which the child kills itself; at "any" its parent does.
	steps := []string{
		"hold", "begin", "begun", "checkpoint", "settle", "settling", "settled", "credit", "release", "any", "settling", "any",
	}
	for round, step := range steps {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$", "-test.count=1")
		cmd.Env = append(os.Environ(), killDir+"="+dir, killStep+"="+step)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var complaints strings.Builder
		cmd.Stderr = &complaints
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			words := strings.Fields(lines.Text())
			switch {
			case len(words) == 3 && words[0] == "charged":
				if was, there := charged[words[1]]; there && was != words[2] {
					t.Errorf("hold %s twice", words[1])
				}
				charged[words[1]] = words[2]
			case len(words) == 2 && words[0] == "begun":
				begun[words[1]] = true
			case len(words) == 2 && words[0] == "releasing":
				delete(begun, words[1])
			case len(words) == 2 && words[0] == "credited":
				credits[words[1]] = true
			}
			if said++; step == "any" && said == 150+37*round {
				cmd.Process.Kill()
			}
		}
		err = cmd.Wait()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("step %s: the child ended otherwise: %v\n%s", step, err, complaints.String())
		}
		reopened(t, dir, step, charged, begun, credits)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d charges, %d begun, %d credits acknowledged", len(charged), len(begun), len(credits))
}

// reopened opens what a killed child left and compares it with what the children said.
func reopened(t *testing.T, dir, step string, charged map[string]string, begun, credits map[string]bool) {
	t.Helper()
	store, err := badger.Open(t.Context(), badger.Config{Dir: dir, Ballast: -1, Log: quiet()})
	if err != nil {
		t.Fatalf("step %s: %v", step, err)
	}
	defer store.Close()
	l := open(t, Config{Store: store})
	defer l.Close()
	r := verify(t, l)
	for id, amount := range charged {
		if got, err := l.Receipt(t.Context(), id); err != nil || got.Amount.String() != amount {
			t.Errorf("step %s: hold %s was charged %s, now %+v, %v", step, id, amount, got, err)
		}
	}
	for id := range begun {
		if _, err := l.Receipt(t.Context(), id); err != nil {
			t.Errorf("step %s: hold %s was begun and left no trace: %v", step, id, err)
		}
	}
	least, _ := money("1000").Times(int64(len(credits)))
	if r.Credited.Cmp(least) < 0 || r.Balance != r.Credited.Sub(r.Charged) || r.Intents != 0 {
		t.Errorf("step %s: %d credits acknowledged, %+v", step, len(credits), r)
	}
}

// child makes calls until it dies, and says on its standard output what was acknowledged. A line is one write, so it is
// whole or not there.
func child(dir, step string) {
	ctx := context.Background()
	store, err := badger.Open(ctx, badger.Config{Dir: dir, Ballast: -1, Log: quiet()})
	if err != nil {
		panic(err)
	}
	l, err := Open(ctx, Config{Store: store, Log: quiet()})
	if err != nil {
		panic(err)
	}
	if err := l.OpenAccount(ctx, "a"); err != nil {
		panic(err)
	}
	say := func(format string, args ...any) { fmt.Fprintf(os.Stdout, format+"\n", args...) }
	die := func() {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				at := func(name string) {
					if step == name && w == 3 && n == 10 {
						die()
					}
				}
				if n%10 == 0 {
					key := fmt.Sprintf("evt_%d_%d_%d", os.Getpid(), w, n)
					at("credit")
					if _, err := l.Credit(ctx, "a", money("1000"), key, ""); err != nil {
						panic(err)
					}
					say("credited %s", key)
				}
				h, err := l.Hold(ctx, HoldRequest{Account: "a", Model: "m", Price: price(), Max: usage(10, 10)})
				if err != nil {
					panic(err)
				}
				at("hold")
				durability := "sync"
				if w%4 == 1 {
					durability = "batch"
				}
				if step == "begin" && w == 3 && n == 10 {
					go die()
				}
				if err := l.Begin(ctx, h.ID, Attempt{Upstream: "u", Model: "m", Number: 1, Durability: durability}); err != nil {
					panic(err)
				}
				if durability == "sync" {
					say("begun %s", h.ID)
				}
				at("begun")
				l.Checkpoint(h.ID, usage(10, int64(n%10)))
				at("checkpoint")
				if n%7 == 6 {
					say("releasing %s", h.ID)
					if step == "release" && w == 3 && n >= 10 {
						go die()
					}
					if err := l.Release(ctx, h.ID); err != nil {
						panic(err)
					}
					continue
				}
				at("settle")
				if step == "settling" && w == 3 && n == 10 {
					go die()
				}
				r, err := l.Settle(ctx, h.ID, Settlement{Usage: usage(10, 5)})
				if err != nil {
					panic(err)
				}
				say("charged %s %s", h.ID, r.Amount)
				at("settled")
			}
		})
	}
	wg.Wait()
}

// benchmarkCalls runs whole calls from many callers at once.
func benchmarkCalls(b *testing.B, durability string) {
	store, err := badger.Open(b.Context(), badger.Config{Dir: b.TempDir(), Ballast: -1, Log: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	l := open(b, Config{Store: store})
	defer l.Close()
	fund(b, l, "a", "1000000000")
	ctx := context.Background()
	var max exchange.Usage = usage(10, 10)
	p := price()
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			h, err := l.Hold(ctx, HoldRequest{Account: "a", Price: p, Max: max})
			if err == nil {
				err = l.Begin(ctx, h.ID, Attempt{Upstream: "u", Number: 1, Durability: durability})
			}
			if err == nil {
				_, err = l.Settle(ctx, h.ID, Settlement{Usage: max})
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	b.ReportMetric(float64(l.head.Group)/b.Elapsed().Seconds(), "groups/s")
}

func BenchmarkCallSync(b *testing.B)  { benchmarkCalls(b, "sync") }
func BenchmarkCallBatch(b *testing.B) { benchmarkCalls(b, "batch") }

func BenchmarkHoldRelease(b *testing.B) {
	l := open(b, Config{})
	fund(b, l, "a", "1000000000")
	ctx, p := context.Background(), price()
	b.ReportAllocs()
	for b.Loop() {
		h, err := l.Hold(ctx, HoldRequest{Account: "a", Price: p, Max: usage(10, 10)})
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Release(ctx, h.ID); err != nil {
			b.Fatal(err)
		}
	}
}

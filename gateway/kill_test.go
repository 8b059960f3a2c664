package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postern-gateway/postern/examples/sandbox/sandbox"
	"github.com/postern-gateway/postern/gateway/admin"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// killed is a gateway in a process of its own that is killed again and again, its provider, and the customers who call it.
type killed struct {
	t       *testing.T
	binary  string
	dir     string
	admin   string
	gate    *gate
	node    *node
	process *exec.Cmd
	log     *transcript
	workers []*worker
	busy    atomic.Int64 // requests the provider is answering
}

// worker is a customer who makes one call after the other. Its calls differ in length, by which they are found again.
type worker struct {
	number  int
	account string
	key     string

	mu       sync.Mutex
	next     int
	credited exchange.Amount
	calls    map[int]*killedCall
}

// killedCall is what is known of a call from outside the gateway.
type killedCall struct {
	prompt, completion int64
	arrived            bool   // the provider got it
	served             bool   // the provider answered it to the end
	receipt            string // what the client was told it cost: its answer is whole
}

// call makes the n-th call's body. Its answer has more than 80 events.
func (w *worker) call(stream bool) (n int, body string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	n = w.next
	text := fmt.Sprintf("w%d n%d ", w.number, n)
	text += strings.Repeat("x", 320+4*n-len(text))
	// max_output of the model cuts what is too long
	w.calls[n] = &killedCall{prompt: 3 + sandbox.Tokens(text), completion: min(200, sandbox.Tokens("You said: "+text))}
	return n, fmt.Sprintf(`{"model":"plain","stream":%t,"messages":[{"role":"user","content":%q}]}`, stream, text)
}

// note changes what is known of a call.
func (w *worker) note(n int, f func(*killedCall)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w.calls[n])
}

var marker = regexp.MustCompile(`w(\d+) n(\d+) `)

// provider is the provider: it notes what comes and goes.
func (k *killed) provider(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.busy.Add(1)
		defer k.busy.Add(-1)
		body, err := io.ReadAll(r.Body)
		m := marker.FindSubmatch(body)
		if err != nil || m == nil {
			panic(http.ErrAbortHandler) // killed while it sent
		}
		number, _ := strconv.Atoi(string(m[1]))
		n, _ := strconv.Atoi(string(m[2]))
		worker := k.workers[number]
		worker.note(n, func(c *killedCall) { c.arrived = true })
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		next.ServeHTTP(w, r)
		worker.note(n, func(c *killedCall) { c.served = true })
	})
}

// start runs the gateway and waits until it is ready.
func (k *killed) start() {
	k.t.Helper()
	k.log = &transcript{}
	k.process = exec.Command(k.binary, "run", k.dir)
	k.process.Stdout, k.process.Stderr = k.log, k.log
	if err := k.process.Start(); err != nil {
		k.t.Fatal(err)
	}
	ended := make(chan error, 1)
	process := k.process
	go func() { ended <- process.Wait() }()
	k.t.Cleanup(func() {
		_ = process.Process.Kill()
		<-ended
		ended <- nil
	})
	waitFor(k.t, "the gateway to be ready", func() bool {
		select {
		case err := <-ended:
			ended <- err
			k.t.Fatalf("the gateway ended: %v\n%s", err, k.log)
		default:
		}
		status, _ := get(k.t, http.DefaultClient, "http://"+k.admin+"/ready", "")
		return status == 200
	})
	k.node.trust(k.t)
}

// kill ends the gateway without a chance to do anything.
func (k *killed) kill() {
	if err := k.process.Process.Signal(syscall.SIGKILL); err != nil {
		k.t.Error(err)
	}
}

// work makes calls until the gateway is gone, or ctx ends.
func (k *killed) work(ctx context.Context, w *worker) {
	c := k.node.client(k.t, []string{"http1", "http2"}[w.number%2])
	for i := 0; ctx.Err() == nil; i++ {
		stream := (i+w.number)%2 == 0
		n, body := w.call(stream)
		resp, err := k.node.begin(k.t, context.WithoutCancel(ctx), c, w.key, body)
		if err != nil {
			return
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		switch {
		case resp.StatusCode == 402:
			time.Sleep(10 * time.Millisecond) // it is refused quickly, and the others want to be served
		case resp.StatusCode != 200:
			k.t.Errorf("call %d of %d: %d %s", n, w.number, resp.StatusCode, b)
			return
		case err != nil:
			return
		default:
			receipt := resp.Header.Get("Postern-Receipt")
			if stream {
				_, receipt, _ = strings.Cut(string(b), `"amount":"`)
				receipt = "amount=" + strings.Replace(receipt, `"`, ";", 1)
			}
			_, receipt, _ = strings.Cut(receipt, "amount=")
			receipt, _, _ = strings.Cut(receipt, ";")
			w.note(n, func(c *killedCall) { c.receipt = receipt })
		}
	}
}

// check opens what the killed gateway left, by the command line, and compares it with what provider and clients saw.
func (k *killed) check(round int) (exact, estimated, recovered int) {
	t := k.t
	t.Helper()
	var v admin.Verification
	if err := json.Unmarshal([]byte(ok(t, "ledger", "verify", "-json", "-dir", k.dir)), &v); err != nil {
		t.Fatal(err)
	}
	if !v.OK || v.Intents != 0 || v.Held.Sign() != 0 || v.Excess.Sign() != 0 {
		t.Errorf("verify: %+v", v)
	}
	for _, w := range k.workers {
		var entries []admin.Entry
		for from := uint64(0); ; {
			var page []admin.Entry
			if err := json.Unmarshal([]byte(ok(t, "ledger", "entries", w.account, "-limit", "1000", "-json", "-from", fmt.Sprint(from), "-dir", k.dir)), &page); err != nil {
				t.Fatal(err)
			}
			entries = append(entries, page...)
			if len(page) < 1000 {
				break
			}
			from = page[len(page)-1].Seq + 1
		}
		left := w.credited
		w.mu.Lock()
		calls := map[int]killedCall{}
		for n, c := range w.calls {
			calls[n] = *c
		}
		w.mu.Unlock()
		byPrompt := map[int64]int{}
		unresolved := 0 // calls that reached the provider and have no exact charge
		for n, c := range calls {
			byPrompt[c.prompt] = n
			if c.arrived {
				unresolved++
			}
		}
		charged := map[int]exchange.Amount{}
		guesses := 0
		for _, e := range entries {
			if e.Kind != "charge" {
				continue
			}
			left = left.Sub(e.Amount)
			if e.Estimated {
				guesses++
				if e.Usage["output"] > 200 {
					t.Errorf("estimated %v", e.Usage)
				}
				if e.Usage["output"] > 0 {
					recovered++
				}
				continue
			}
			n, known := byPrompt[e.Usage["input"]]
			if !known {
				t.Errorf("charged for a call nobody made: %+v", e)
				continue
			}
			if _, twice := charged[n]; twice {
				t.Errorf("call %d of %d was charged twice", n, w.number)
			}
			charged[n] = e.Amount
			unresolved--
			c := calls[n]
			u := exchange.Usage{}
			u.Units[exchange.Input], u.Units[exchange.Output] = c.prompt, c.completion
			if e.Usage["output"] != c.completion || e.Amount != cost(t, &u) || !c.arrived {
				t.Errorf("call %d of %d, %+v, was charged %+v", n, w.number, c, e)
			}
		}
		for n, c := range calls {
			if amount, there := charged[n]; c.receipt != "" && (!there || amount.String() != c.receipt) {
				t.Errorf("call %d of %d had a receipt of %s and was charged %s", n, w.number, c.receipt, amount)
			}
		}
		// Each call that reached the provider was charged exactly or is an estimate. A call that was on record and was
		// killed before it reached the provider is one too: at most one a customer and round.
		if extra := guesses - unresolved; extra < 0 || extra > round+1 {
			t.Errorf("customer %d: %d estimated charges for %d calls without an exact one", w.number, guesses, unresolved)
		}
		var b []admin.Balance
		if err := json.Unmarshal([]byte(ok(t, "ledger", "balance", w.account, "-json", "-dir", k.dir)), &b); err != nil || len(b) != 1 {
			t.Fatal(err)
		}
		if b[0].Total != left || b[0].Available != left || left.Sign() < 0 {
			t.Errorf("customer %d has %+v, by its entries %s", w.number, b[0], left)
		}
		exact += len(charged)
		estimated += guesses
	}
	return exact, estimated, recovered
}

// credit pays into a worker's account.
func (k *killed) credit(w *worker, amount, key string) {
	k.t.Helper()
	ok(k.t, "ledger", "credit", w.account, amount, "-key", key, "-dir", k.dir)
	w.credited = w.credited.Add(money(k.t, amount))
}

// seen reads a stream until it has seen so many events.
func seen(lines *bufio.Scanner, n int) bool {
	for n > 0 && lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: {") {
			n--
		}
	}
	return n == 0
}

// TestKill kills the gateway's process with SIGKILL under load, at named moments between hold and settle and at any: on
// what it leaves the ledger verifies, every call the provider served is charged once, exactly or as an estimate that is
// flagged, what clients were told stands, and nobody has spent more than he had. POSTERN_SOAK=1 goes on for longer.
func TestKill(t *testing.T) {
	t.Parallel()
	k := &killed{t: t, binary: filepath.Join(t.TempDir(), "postern"), admin: freeAddress(t)}
	if out, err := exec.Command("go", "build", "-o", k.binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	k.gate = &gate{next: k.provider(sandbox.Handler(sandbox.Config{}))}
	origin := httptest.NewServer(k.gate)
	t.Cleanup(origin.Close)
	files := spendConfig()
	address := freeAddress(t)
	files["config.hcl"] = strings.NewReplacer("127.0.0.1:8443", address, "http://127.0.0.1:9902", origin.URL).Replace(files["config.hcl"]) +
		"\nadmin {\n  address = \"" + k.admin + "\"\n}\n"
	k.dir = workdir(t, files)
	k.node = &node{dir: k.dir, url: "https://" + address, ca: filepath.Join(k.dir, "data", "tls", "ca.pem")}
	for i := range 6 {
		w := &worker{number: i, calls: map[int]*killedCall{}}
		w.account = ok(t, "account", "create", "worker", "-dir", k.dir)
		w.key = ok(t, "account", "key", "create", w.account, "-dir", k.dir)
		k.workers = append(k.workers, w)
	}
	steps := []string{"before the reply", "any", "in a stream", "settled", "any"}
	if os.Getenv("POSTERN_SOAK") != "" {
		for range 60 {
			steps = append(steps, "before the reply", "any", "in a stream", "any", "settled", "any")
		}
	}
	prove := func() {} // what the round before left
	for round, step := range steps {
		k.start()
		prove()
		for i, w := range k.workers {
			amount := "1000"
			if i == 0 {
				amount = "10" // it will soon have too little
			}
			k.credit(w, amount, fmt.Sprintf("round-%d-%d", round, i))
		}
		open, reached := func() {}, (<-chan struct{})(nil)
		switch step {
		case "before the reply":
			reached, open = k.gate.stop(0)
		case "in a stream":
			reached, open = k.gate.stop(70)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var load sync.WaitGroup
		for _, w := range k.workers[:5] {
			load.Go(func() { k.work(ctx, w) })
		}
		// The last customer is where its step wants it.
		var resp *http.Response
		w := k.workers[5]
		before, _, _ := w.estimates(k)
		switch step {
		case "before the reply":
			for range 5 {
				select {
				case <-reached:
				case <-time.After(time.Minute):
					t.Fatalf("calls do not reach the provider:\n%s", k.log)
				}
			}
		case "in a stream":
			_, body := w.call(true)
			var err error
			if resp, err = k.node.begin(t, t.Context(), k.node.client(t, "http1"), w.key, body); err != nil {
				t.Fatal(err)
			}
			// A checkpoint is noted after 64 events at the latest, by when an event that was read after them comes out. It
			// waits 25 ms for company, and goes with the next commit then.
			lines := bufio.NewScanner(resp.Body)
			here := seen(lines, 70)
			first := open
			_, open = k.gate.stop(80)
			first()
			if !here || !seen(lines, 5) {
				t.Error("the stream ended early")
			}
			time.Sleep(30 * time.Millisecond)
			k.credit(w, "1", fmt.Sprintf("checkpoint-%d", round))
		case "settled":
			_, body := w.call(true)
			var err error
			if resp, err = k.node.begin(t, t.Context(), k.node.client(t, "http2"), w.key, body); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the charge", func() bool {
				_, _, exactly := w.estimates(k)
				return exactly
			})
		default:
			time.Sleep(time.Duration(rand.IntN(600)) * time.Millisecond)
		}
		k.kill()
		load.Wait()
		cancel()
		open()
		if resp != nil {
			resp.Body.Close()
		}
		waitFor(t, "the process to be gone", func() bool {
			status, _ := get(t, http.DefaultClient, "http://"+k.admin+"/health", "")
			return status == 0 && k.busy.Load() == 0
		})
		log := k.log
		if round%2 == 0 {
			ok(t, "ledger", "verify", "-dir", k.dir) // the command settles what is open; otherwise the next start does
		}
		prove = func() {
			t.Helper()
			exact, estimated, recovered := k.check(round)
			after, output, exactly := w.estimates(k)
			switch step {
			case "in a stream":
				if after != before+1 || output < 16 {
					t.Errorf("the call whose checkpoint was stored left %d estimates, %d tokens", after-before, output)
				}
			case "settled":
				if after != before || !exactly {
					t.Error("a call that was settled is not charged exactly")
				}
			}
			t.Logf("killed %s: %d calls charged exactly, %d estimated, %d of them by a checkpoint", step, exact, estimated, recovered)
			if t.Failed() {
				t.Fatalf("round %d, %s; the gateway said:\n%s", round, step, log)
			}
		}
	}
	k.start()
	prove()
}

// estimates counts a customer's estimated charges, and tells the last one's output and whether the last call was charged
// exactly.
func (w *worker) estimates(k *killed) (n int, output int64, exactly bool) {
	k.t.Helper()
	var entries []admin.Entry
	if err := json.Unmarshal([]byte(ok(k.t, "ledger", "entries", w.account, "-limit", "1000", "-json", "-dir", k.dir)), &entries); err != nil {
		k.t.Fatal(err)
	}
	w.mu.Lock()
	last := w.calls[w.next]
	w.mu.Unlock()
	for _, e := range entries {
		if e.Kind == "charge" && e.Estimated {
			n++
			output = e.Usage["output"]
		}
		if c := last; c != nil && e.Kind == "charge" && !e.Estimated && e.Usage["input"] == c.prompt {
			exactly = true
		}
	}
	return n, output, exactly
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/memory"
)

// keyed is what a test compares of an answer under an idempotency key.
func keyed(a answer) string {
	return fmt.Sprint(a.status, a.header.Get("Content-Type"), a.header.Get("Postern-Receipt"), a.body)
}

// refusal is the code of a problem in OpenAI's shape.
func refusal(t testing.TB, a answer) string {
	t.Helper()
	_, code, _ := apiError(t, a.body)
	return fmt.Sprint(a.status, " ", code)
}

// TestIdempotencyKey: over every protocol, whole and streamed, the same request under the same key gets the same octets
// and is charged once; another request, another account and another key are told apart.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	n := start(t, nil)
	for _, protocol := range []string{"http1", "http2", "http3"} {
		for _, streamed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s_%t", protocol, streamed), func(t *testing.T) {
				c := n.client(t, protocol)
				account, key := n.customer(t, "10")
				before := n.sandbox.Stats().Requests
				first := n.ask(t, c, key, question("small", streamed), "Idempotency-Key", "k-1")
				if first.status != 200 || first.broken || first.header.Get("Idempotency-Replayed") != "" {
					t.Fatalf("%d %v: %s", first.status, first.header, first.body)
				}
				exchangeID := first.header.Get("Postern-Exchange")
				for range 3 {
					again := n.ask(t, c, key, question("small", streamed), "Idempotency-Key", "k-1")
					if keyed(again) != keyed(first) {
						t.Errorf("first %s\nthen %s", keyed(first), keyed(again))
					}
					h := again.header
					if h.Get("Idempotency-Replayed") != "true" || h.Get("Postern-Original-Exchange") != exchangeID || h.Get("Postern-Exchange") == exchangeID || h.Get("Postern-Exchange") == "" {
						t.Errorf("header %v, the first exchange was %s", h, exchangeID)
					}
					if again.header.Get("Ratelimit") != "" || again.header.Get("X-Ratelimit-Limit-Requests") != "" {
						t.Errorf("limits of the first call are told again: %v", h)
					}
				}
				if streamed && (!strings.Contains(first.body, "data: [DONE]") || !strings.Contains(first.body, ": postern-receipt {")) {
					t.Errorf("no receipt or no end mark: %s", first.body)
				}
				other := n.ask(t, c, key, question("small", !streamed), "Idempotency-Key", "k-1")
				if got := refusal(t, other); got != "422 idempotency_key_reused" {
					t.Error(got)
				}
				if list := n.settled(t, account); len(list) != 1 || list[0].amount.Sign() <= 0 {
					t.Errorf("charges %+v", list)
				}
				if calls := n.sandbox.Stats().Requests - before; calls != 1 {
					t.Errorf("the provider was called %d times", calls)
				}
				// The same key of somebody else, and another key, are other calls.
				neighbour, theirs := n.customer(t, "10")
				if a := n.ask(t, c, theirs, question("small", streamed), "Idempotency-Key", "k-1"); a.status != 200 || a.header.Get("Idempotency-Replayed") != "" {
					t.Errorf("another account: %d %v", a.status, a.header)
				}
				if a := n.ask(t, c, key, question("small", streamed), "Idempotency-Key", "k-2"); a.status != 200 || a.header.Get("Idempotency-Replayed") != "" {
					t.Errorf("another key: %d %v", a.status, a.header)
				}
				if mine, others := n.settled(t, account), n.settled(t, neighbour); len(mine) != 2 || len(others) != 1 {
					t.Errorf("%d and %d charges", len(mine), len(others))
				}
			})
		}
	}
	n.verify(t)
}

// TestIdempotencyKeyForms: what can be a key, and where none is looked for.
func TestIdempotencyKeyForms(t *testing.T) {
	t.Parallel()
	files := spendConfig()
	files["config.hcl"] = strings.Replace(files["config.hcl"], `route "chat" {`, "route \"off\" {\n  listener = listener.public\n  match    = \"POST /v1/chat/completions\"\n"+
		"  when     = request.headers[\"x-off\"] == \"1\"\n  policies = [policy.paid]\n  models   = [model.plain]\n  replay   = \"0s\"\n}\n\nroute \"chat\" {", 1)
	n := start(t, files)
	_, key := n.customer(t, "10")
	c := n.client(t, "http1")
	tests := []struct {
		name, key string
		want      string
	}{
		{"one octet", "x", "200"},
		{"a UUID in quotes", `"8e03978e-40d5-43dd-bc93-6894a57f9324"`, "200"},
		{"the longest", strings.Repeat("k", 255), "200"},
		{"one too many", strings.Repeat("k", 256), "400 invalid_idempotency_key"},
		{"nothing", "", "400 invalid_idempotency_key"},
		{"a space", "a b", "400 invalid_idempotency_key"},
		{"not ASCII", "schlüssel", "400 invalid_idempotency_key"},
	}
	for _, test := range tests {
		a := n.ask(t, c, key, question("plain", false), "Idempotency-Key", test.key)
		got := strconv.Itoa(a.status)
		if a.status != 200 {
			got = refusal(t, a)
		}
		if got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.url+"/v1/chat/completions", strings.NewReader(question("plain", false)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Authorization": {"Bearer " + key}, "Idempotency-Key": {"a", "a"}}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != 400 {
		t.Errorf("two keys: %d", resp.StatusCode)
	}
	// Where replays are off the field means nothing, whatever is in it.
	for range 2 {
		if a := n.ask(t, c, key, question("plain", false), "Idempotency-Key", "a b", "X-Off", "1"); a.status != 200 || a.header.Get("Idempotency-Replayed") != "" {
			t.Errorf("off: %d %v", a.status, a.header)
		}
	}
	// Who is not known is told so, and learns nothing of keys.
	if a := n.ask(t, c, "pk_no", question("plain", false), "Idempotency-Key", "x"); a.status != 401 {
		t.Errorf("unknown caller: %d", a.status)
	}
	if sent := n.sandbox.Stats().LastHeader; sent.Get("Idempotency-Key") != "" {
		t.Errorf("the provider got the key: %v", sent)
	}
}

// TestIdempotencyKeyParallel: of 50 calls under one key at once one is made; the others are told to come again, or get its
// reply.
func TestIdempotencyKeyParallel(t *testing.T) {
	t.Parallel()
	n := start(t, spendConfig())
	account, key := n.customer(t, "10")
	clients := []*http.Client{n.client(t, "http1"), n.client(t, "http2")}
	for round := range 3 {
		before := n.sandbox.Stats().Requests
		name := fmt.Sprint("round-", round)
		reached, open := n.gate.stop(0)
		var made, replayed, waiting atomic.Int64
		var bodies sync.Map
		var calls sync.WaitGroup
		call := func(i int) {
			a := n.ask(t, clients[i%2], key, question("plain", round == 1), "Idempotency-Key", name)
			switch {
			case a.status == 200:
				bodies.Store(a.body, true)
				if a.header.Get("Idempotency-Replayed") == "true" {
					replayed.Add(1)
				} else {
					made.Add(1)
				}
			case a.status == 409 && a.header.Get("Retry-After") == "1":
				waiting.Add(1)
				if got := refusal(t, a); got != "409 idempotency_in_progress" {
					t.Error(got)
				}
			default:
				t.Errorf("%d %s", a.status, a.body)
			}
		}
		for i := range 50 {
			calls.Go(func() { call(i) })
		}
		<-reached // one has come to the provider
		if a := n.ask(t, clients[0], key, question("exact", false), "Idempotency-Key", name); refusal(t, a) != "422 idempotency_key_reused" {
			t.Errorf("another request meanwhile: %s", a.body)
		}
		open()
		calls.Wait()
		for i := range 10 {
			calls.Go(func() { call(i) })
		}
		calls.Wait()
		different := 0
		bodies.Range(func(any, any) bool { different++; return true })
		if made.Load() != 1 || made.Load()+replayed.Load()+waiting.Load() != 60 || replayed.Load() < 10 || different != 1 {
			t.Errorf("%d made, %d replayed, %d told to wait, %d different replies", made.Load(), replayed.Load(), waiting.Load(), different)
		}
		if got := n.sandbox.Stats().Requests - before; got != 1 {
			t.Errorf("the provider was called %d times", got)
		}
	}
	if list := n.settled(t, account); len(list) != 3 {
		t.Errorf("%d charges for three keys", len(list))
	}
	n.verify(t)
}

// TestIdempotencyKeyAfterFailure: a call that failed and cost nothing can be made again under its key; one that was
// charged for a part can not, and is never charged again.
func TestIdempotencyKeyAfterFailure(t *testing.T) {
	t.Parallel()
	n := start(t, spendConfig("400", "500", "429", "cut-0", "cut-3", "error-3"))
	c := n.client(t, "http2")
	for _, test := range []struct {
		model  string
		stream bool
		first  int
		then   string // the same request again; empty: as the first time
		calls  int64
		charge int
	}{
		{"400", false, 400, "", 2, 0},
		{"500", false, 500, "", 2, 0},
		{"429", true, 429, "", 2, 0},
		{"cut-0", true, 502, "", 2, 0},
		{"nowhere", false, 404, "", 0, 0},
		{"cut-3", true, 200, "409 idempotency_unknown", 1, 1},
		{"error-3", true, 200, "replay", 1, 1}, // it is what the provider said, to the end
	} {
		account, key := n.customer(t, "10")
		before := n.sandbox.Stats().Requests
		first := n.ask(t, c, key, question(test.model, test.stream), "Idempotency-Key", "k")
		n.settled(t, account)
		var again answer
		waitFor(t, "the first call to be over", func() bool {
			again = n.ask(t, c, key, question(test.model, test.stream), "Idempotency-Key", "k")
			return again.status != 409 || refusal(t, again) != "409 idempotency_in_progress"
		})
		got := ""
		switch {
		case again.header.Get("Idempotency-Replayed") == "true":
			got = "replay"
		case again.status != first.status:
			got = refusal(t, again)
			if strings.Contains(got, "unknown") && !strings.Contains(again.body, first.header.Get("Postern-Exchange")) {
				t.Errorf("%s: the first exchange is not named: %s", test.model, again.body)
			}
		}
		calls, charges := n.sandbox.Stats().Requests-before, len(n.settled(t, account))
		if first.status != test.first || got != test.then || calls != test.calls || charges != test.charge {
			t.Errorf("%s: %d, then %q, %d calls, %d charges; want %d, %q, %d, %d", test.model, first.status, got, calls, charges, test.first, test.then, test.calls, test.charge)
		}
	}
	// A balance that did not suffice does not spend the key.
	account, key := n.customer(t, "0.5")
	if a := n.ask(t, c, key, question("exact", false), "Idempotency-Key", "k"); a.status != 402 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if _, err := n.Storage().Ledger.Credit(t.Context(), account, money(t, "1"), "more", ""); err != nil {
		t.Fatal(err)
	}
	if a := n.ask(t, c, key, question("exact", false), "Idempotency-Key", "k"); a.status != 200 {
		t.Errorf("after a credit: %d %s", a.status, a.body)
	}
	n.verify(t)
}

// TestIdempotencyKeyClientLeaves: a client that leaves in the middle of its reply and comes back is never charged twice.
// What it gets then is the route's on_disconnect: nothing but the truth, the whole reply, or a call made anew.
func TestIdempotencyKeyClientLeaves(t *testing.T) {
	t.Parallel()
	n := start(t, spendConfig())
	for _, test := range []struct {
		rule    string
		stream  bool
		then    string
		calls   int64
		charges int
	}{
		{"bill_delivered", true, "409 idempotency_unknown", 1, 1},
		{"bill_delivered", false, "409 idempotency_unknown", 1, 1},
		{"drain", true, "replay", 1, 1},
		{"drain", false, "replay", 1, 1},
		{"void", true, "made", 2, 1},
	} {
		for _, protocol := range []string{"http1", "http2"} {
			name := fmt.Sprintf("%s_%t_%s", test.rule, test.stream, protocol)
			c := n.client(t, protocol)
			account, key := n.customer(t, "10")
			before := n.sandbox.Stats().Requests
			events := 0
			if test.stream {
				events = 3
			}
			reached, open := n.gate.stop(events)
			ctx, leave := context.WithCancel(t.Context())
			var left sync.WaitGroup
			left.Go(func() {
				resp, err := n.begin(t, ctx, c, key, question("plain", test.stream), "X-Leave", test.rule, "Idempotency-Key", "k")
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			})
			<-reached
			leave()
			left.Wait()
			if test.rule != "drain" {
				n.settled(t, account) // the gateway has seen that it went
			}
			open()
			var again answer
			waitFor(t, "the first call to be over", func() bool {
				again = n.ask(t, c, key, question("plain", test.stream), "X-Leave", test.rule, "Idempotency-Key", "k")
				return again.status != 409 || refusal(t, again) != "409 idempotency_in_progress"
			})
			got := "made"
			if again.status != 200 {
				got = refusal(t, again)
			} else if again.header.Get("Idempotency-Replayed") == "true" {
				got = "replay"
			}
			if again.status == 200 && (again.broken || !strings.Contains(strings.ReplaceAll(again.body, `"content":"`, ""), "You ")) {
				t.Errorf("%s: not the whole reply: %s", name, again.body)
			}
			if test.stream && again.status == 200 && !strings.Contains(again.body, "data: [DONE]") {
				t.Errorf("%s: no end mark: %s", name, again.body)
			}
			calls, charges := n.sandbox.Stats().Requests-before, n.settled(t, account)
			if got != test.then || calls != test.calls || len(charges) != test.charges {
				t.Errorf("%s: %q, %d calls, %d charges; want %q, %d, %d", name, got, calls, len(charges), test.then, test.calls, test.charges)
			}
			if test.rule == "drain" && len(charges) == 1 && charges[0].usage.Completion() != answerTokens {
				t.Errorf("%s: charged %+v", name, charges[0].usage)
			}
		}
	}
	n.verify(t)
}

// TestIdempotencyKeyOutlivesTheProcess: a kept reply is given by the next process, a call that was cut off by the end of
// the first is not made again, and neither replies nor keys can be read in the store's files.
func TestIdempotencyKeyOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	files := spendConfig()
	dir := workdir(t, files)
	n := startIn(t, dir)
	account, key := n.customer(t, "10")
	c := n.client(t, "http1")
	const canary = "heron-4711-canary"
	secret := fmt.Sprintf(`{"model":"plain","messages":[{"role":"user","content":%q}]}`, canary)
	first := n.ask(t, c, key, secret, "Idempotency-Key", "canary-key-0815")
	if first.status != 200 || !strings.Contains(first.body, canary) {
		t.Fatalf("%d %s", first.status, first.body)
	}
	// A store as it would be found after a crash in the middle of a call: copied while the call is under way.
	reached, open := n.gate.stop(3)
	defer open()
	var calls sync.WaitGroup
	ctx, leave := context.WithCancel(t.Context())
	calls.Go(func() {
		resp, err := n.begin(t, ctx, c, key, question("plain", true), "Idempotency-Key", "cut")
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
	<-reached
	crashed := workdir(t, files)
	for _, part := range []string{"store", "vault"} {
		if err := os.MkdirAll(filepath.Join(crashed, "data", part), 0o700); err != nil {
			t.Fatal(err)
		}
		copyFiles(t, filepath.Join(dir, "data", part), filepath.Join(crashed, "data", part))
	}
	leave()
	calls.Wait()
	n.settled(t, account) // the gateway has seen that the client went
	open()
	n.stop()

	for name, where := range map[string]string{"stopped": dir, "crashed": crashed} {
		after := startIn(t, where)
		c := after.client(t, "http1")
		again := after.ask(t, c, key, secret, "Idempotency-Key", "canary-key-0815")
		if keyed(again) != keyed(first) || again.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s: %s\nat first %s", name, keyed(again), keyed(first))
		}
		for range 2 {
			cut := after.ask(t, c, key, question("plain", true), "Idempotency-Key", "cut")
			if got := refusal(t, cut); got != "409 idempotency_unknown" {
				t.Errorf("%s: the call that was cut off: %s", name, got)
			}
		}
		if calls := after.sandbox.Stats().Requests; calls != 0 {
			t.Errorf("%s: the provider was called %d times", name, calls)
		}
		if list := after.settled(t, account); len(list) != 2 {
			t.Errorf("%s: charged %d times", name, len(list))
		}
		after.verify(t)
		after.stop()
		noneHolds(t, filepath.Join(where, "data", "store"), canary, "canary-key-0815")
	}
}

// copyFiles copies a folder's files as they are at this moment.
func copyFiles(t *testing.T, from, to string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// noneHolds looks for texts in every file below dir.
func noneHolds(t *testing.T, dir string, texts ...string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for _, text := range texts {
			if bytes.Contains(b, []byte(text)) {
				t.Errorf("%s holds %q", path, text)
			}
		}
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%d files in %s: %v", files, dir, err)
	}
}

// TestIdempotencyKeyTooLarge: a reply that is too large to be kept reaches its client whole, and is not given again, nor
// made again.
func TestIdempotencyKeyTooLarge(t *testing.T) {
	t.Parallel()
	files := spendConfig()
	files["config.hcl"] = strings.ReplaceAll(files["config.hcl"], "max_output = 200", "max_output = 2000000")
	n := start(t, files)
	id, key := n.customer(t, "1000000")
	c := n.client(t, "http2")
	body := fmt.Sprintf(`{"model":"plain","messages":[{"role":"user","content":%q}]}`, strings.Repeat("long ", 230_000))
	first := n.ask(t, c, key, body, "Idempotency-Key", "k")
	if first.status != 200 || len(first.body) < 1<<20 {
		t.Fatalf("%d, %d octets", first.status, len(first.body))
	}
	if got := refusal(t, n.ask(t, c, key, body, "Idempotency-Key", "k")); got != "409 idempotency_not_replayable" {
		t.Error(got)
	}
	if list := n.charges(t, id); len(list) != 1 || n.sandbox.Stats().Requests != 1 {
		t.Errorf("%d charges, %d calls", len(list), n.sandbox.Stats().Requests)
	}
	n.verify(t)
}

// refusingStore refuses commits to the part of the store that keeps replies, once it is told to.
type refusingStore struct {
	state.Store
	broken atomic.Bool
	passed atomic.Int64 // commits to let through first
}

func (s *refusingStore) Commit(ctx context.Context, b *state.Batch) error {
	for i := range b.Writes {
		if bytes.HasPrefix(b.Writes[i].Key, []byte("replay/")) && s.broken.Load() && s.passed.Add(-1) < 0 {
			return state.ErrFull
		}
	}
	return s.Store.Commit(ctx, b)
}

// TestIdempotencyKeyStoreRefuses: what can not be recorded is not called; what can not be kept is answered all the same,
// charged once, and not made again.
func TestIdempotencyKeyStoreRefuses(t *testing.T) {
	t.Parallel()
	store := &refusingStore{}
	backend := backends()[0]
	backend.Open = func(context.Context, string, cty.Value, *slog.Logger) (state.Store, error) {
		store.Store = memory.Open(memory.Config{})
		return store, nil
	}
	n := startOn(t, workdir(t, spendConfig()), []state.Backend{backend})
	account, key := n.customer(t, "10")
	c := n.client(t, "http2")
	if a := n.ask(t, c, key, question("plain", false), "Idempotency-Key", "before"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	store.broken.Store(true)
	for range 2 {
		a := n.ask(t, c, key, question("plain", true), "Idempotency-Key", "unrecorded")
		if got := refusal(t, a); got != "503 idempotency_unavailable" || a.header.Get("Retry-After") == "" {
			t.Errorf("%s %v", got, a.header)
		}
	}
	if a := n.ask(t, c, key, question("plain", false)); a.status != 200 {
		t.Errorf("without a key: %d %s", a.status, a.body)
	}
	if a := n.ask(t, c, key, question("plain", false), "Idempotency-Key", "before"); a.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("a reply kept before: %d %s", a.status, a.body)
	}
	for _, streamed := range []bool{false, true} {
		name := fmt.Sprint("unkept-", streamed)
		store.passed.Store(1) // that the call begins
		if a := n.ask(t, c, key, question("plain", streamed), "Idempotency-Key", name); a.status != 200 || a.broken || !strings.Contains(a.body, "receipt") {
			t.Errorf("%d, broken %t: %s", a.status, a.broken, a.body)
		}
		if got := refusal(t, n.ask(t, c, key, question("plain", streamed), "Idempotency-Key", name)); got != "409 idempotency_unknown" {
			t.Error(got)
		}
	}
	store.broken.Store(false)
	if a := n.ask(t, c, key, question("plain", true), "Idempotency-Key", "unrecorded"); a.status != 200 || a.broken || a.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("when it can be recorded again: %d %s", a.status, a.body)
	}
	if list, calls := n.settled(t, account), n.sandbox.Stats().Requests; len(list) != 5 || calls != 5 {
		t.Errorf("%d charges, %d calls", len(list), calls)
	}
	n.verify(t)
}

// TestIdempotencyKeyHTTP3ClientLeaves: a stream that is reset is as good as a connection that is cut.
func TestIdempotencyKeyHTTP3ClientLeaves(t *testing.T) {
	t.Parallel()
	n := start(t, nil)
	account, key := n.customer(t, "10")
	c := n.client(t, "http3")
	reached, open := n.gate.stop(3)
	defer open()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	resp, err := n.begin(t, ctx, c, key, question("small", true), "Idempotency-Key", "k")
	if err != nil {
		t.Fatal(err)
	}
	<-reached
	leave()
	resp.Body.Close()
	if list := n.settled(t, account); len(list) != 1 || !list[0].usage.Estimated {
		t.Errorf("charges %+v", list)
	}
	open()
	var got string
	waitFor(t, "the first call to be over", func() bool {
		got = refusal(t, n.ask(t, c, key, question("small", true), "Idempotency-Key", "k"))
		return got != "409 idempotency_in_progress"
	})
	if calls := n.sandbox.Stats().Requests; got != "409 idempotency_unknown" || calls != 1 || len(n.charges(t, account)) != 1 {
		t.Errorf("%s, %d calls, %d charges", got, calls, len(n.charges(t, account)))
	}
	n.verify(t)
}

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/memory"
)

// spendConfig sells models of the sandbox, faults included: each public model asks for the fault it is called after.
func spendConfig(faults ...string) map[string]string {
	var b strings.Builder
	b.WriteString(`
gateway {
  name = "edge-1"
}

variable "listen" {
  default = "127.0.0.1:8443"
}

variable "sandbox" {
  default = "http://127.0.0.1:9902"
}

state "badger" {
  dir = "data"
}

listener "public" {
  address   = var.listen
  protocols = [http1, http2]

  tls {
    self_signed = ["localhost", "127.0.0.1"]
  }
}

plugin "apikey" {
  source = "plugins/apikey"
  grants = [accounts]

  limits {
    queue = "10s" # all calls come at once, and a busy machine serves them late
    wait  = "30s"
  }
}

plugin "models" {
  source = "plugins/models"

  limits {
    queue = "10s" # all calls come at once, and a busy machine serves them late
    wait  = "30s"
  }
}

plugin "meter" {
  source = "plugins/meter"
  grants = [ledger]

  limits {
    queue = "10s" # all calls come at once, and a busy machine serves them late
    wait  = "30s"
  }
}

upstream "sandbox" {
  format    = openai
  endpoints = [var.sandbox]
}

# A call holds 1.00 and, when its answer is cut at max_output, costs 1.00.
model "exact" {
  max_output = 4

  target {
    upstream = upstream.sandbox
    model    = "sandbox-exact"
  }

  price {
    output = 0.25
  }
}

model "fallback" {
  max_output = 40

  target {
    upstream = upstream.sandbox
    model    = "sandbox-503"
  }

  target {
    upstream = upstream.sandbox
    model    = "sandbox-spare"
    weight   = 0
  }

  price {
    input  = 0.001
    output = 0.01
  }
}
`)
	var names []string
	for _, fault := range append([]string{"plain"}, faults...) {
		name := strings.ReplaceAll(fault, "+", "_")
		names = append(names, "model["+strconv.Quote(name)+"]")
		fmt.Fprintf(&b, `
model %q {
  max_output = 200

  target {
    upstream = upstream.sandbox
    model    = %q
  }

  price {
    input     = 0.001
    cached    = 0.0005
    output    = 0.01
    reasoning = 0.02
  }
}
`, name, "sandbox-"+fault)
	}
	for _, rule := range []string{"bill_delivered", "drain", "void"} {
		fmt.Fprintf(&b, `
route %q {
  listener      = listener.public
  match         = "POST /v1/chat/completions"
  when          = request.headers["x-leave"] == %q
  policies      = [policy.paid]
  models        = [model.exact, model.fallback, %s]
  on_disconnect = %s
}
`, rule, rule, strings.Join(names, ", "), rule)
	}
	fmt.Fprintf(&b, `
route "chat" {
  listener = listener.public
  match    = "POST /v1/chat/completions"
  policies = [policy.paid]
  models   = [model.exact, model.fallback, %s]
}
`, strings.Join(names, ", "))
	return map[string]string{"config.hcl": b.String(), "policies/paid.hcl": `
policy "paid" {
  authenticate "apikey" {
    timeout = "30s"
  }

  admit "meter" {
    timeout = "30s"
  }

  route "models" {
    timeout = "30s"
  }

  account "meter" {
    when    = request.headers["x-forget"] != "1"
    timeout = "30s"
  }
}
`}
}

// question asks a model something that the sandbox answers in more than four tokens.
func question(model string, stream bool) string {
	return fmt.Sprintf(`{"model":%q,"stream":%t,"messages":[{"role":"user","content":"What does the lock keeper do at night?"}]}`, model, stream)
}

// What the sandbox counts for a question and its answer.
const (
	questionTokens = 3 + 10
	answerTokens   = 12
)

// charge is a charge on an account, as the ledger has it.
type charge struct {
	amount   exchange.Amount
	usage    exchange.Usage
	model    string
	attempts int
	ref      string
}

// charges lists what an account was charged for.
func (n *node) charges(t testing.TB, account string) (list []charge) {
	t.Helper()
	for e, err := range n.Storage().Ledger.Entries(t.Context(), account, 0, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind.String() == "charge" {
			list = append(list, charge{amount: e.Amount, usage: e.Usage, model: e.Model, attempts: e.Attempts, ref: e.Ref})
		}
	}
	return list
}

// settled waits until nothing is held of an account and returns what it was charged for.
func (n *node) settled(t *testing.T, account string) []charge {
	t.Helper()
	waitFor(t, "the hold to end", func() bool {
		b, err := n.Storage().Ledger.Balance(t.Context(), account)
		return err == nil && b.Held.Sign() == 0
	})
	list := n.charges(t, account)
	b, err := n.Storage().Ledger.Balance(t.Context(), account)
	if err != nil {
		t.Fatal(err)
	}
	left := money(t, "10")
	for _, c := range list {
		left = left.Sub(c.amount)
	}
	if b.Total != left || b.Available != left {
		t.Errorf("balance %+v, by the entries it is %s", b, left)
	}
	return list
}

func money(t testing.TB, text string) exchange.Amount {
	t.Helper()
	a, err := exchange.ParseAmount(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// answer is what a client sees of a call.
type answer struct {
	status int
	header http.Header
	body   string
	broken bool // it ended before its end
}

// ask makes one call. Errors before the head are the test's end.
func (n *node) ask(t testing.TB, c *http.Client, key, body string, header ...string) answer {
	t.Helper()
	resp, err := n.begin(t, t.Context(), c, key, body, header...)
	if err != nil {
		t.Error(err)
		return answer{}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, body: string(b), broken: err != nil}
}

// begin sends a call and returns when its head has come.
func (n *node) begin(t testing.TB, ctx context.Context, c *http.Client, key, body string, header ...string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, n.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return c.Do(r)
}

// apiError is OpenAI's error object.
func apiError(t testing.TB, body string) (kind, code, message string) {
	t.Helper()
	var e struct {
		Error *struct{ Type, Code, Message string }
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error == nil || e.Error.Message == "" {
		t.Errorf("no OpenAI error (%v): %s", err, body)
		return "", "", ""
	}
	return e.Error.Type, e.Error.Code, e.Error.Message
}

// TestParallelCallsOnABalanceForTen: of 200 calls at once on a balance that pays for ten, exactly ten are served.
func TestParallelCallsOnABalanceForTen(t *testing.T) {
	t.Parallel()
	n := start(t, spendConfig())
	account, key := n.customer(t, "10")
	_, other := n.customer(t, "1")
	clients := []*http.Client{n.client(t, "http1"), n.client(t, "http2")}
	var served, refused atomic.Int64
	var calls sync.WaitGroup
	for i := range 200 {
		calls.Go(func() {
			a := n.ask(t, clients[i%2], key, question("exact", i%4 < 2))
			switch a.status {
			case 200:
				served.Add(1)
				if a.broken {
					t.Error("an answer that was paid for is broken off")
				}
			case 402:
				refused.Add(1)
				if kind, code, _ := apiError(t, a.body); kind != "insufficient_quota" || code != "insufficient_quota" {
					t.Errorf("refused as %s %s", kind, code)
				}
			default:
				t.Errorf("%d: %s", a.status, a.body)
			}
		})
	}
	calls.Wait()
	if served.Load() != 10 || refused.Load() != 190 {
		t.Errorf("%d served, %d refused", served.Load(), refused.Load())
	}
	list := n.settled(t, account)
	for _, c := range list {
		if c.amount != money(t, "1") || c.usage.Completion() != 4 || c.usage.Estimated {
			t.Errorf("charged %s for %+v", c.amount, c.usage)
		}
	}
	if b, _ := n.Storage().Ledger.Balance(t.Context(), account); len(list) != 10 || b.Total.Sign() != 0 {
		t.Errorf("%d charges, %s left", len(list), b.Total)
	}
	if s := n.sandbox.Stats(); s.Requests != 10 || s.Served != 10 || s.Completion != 40 {
		t.Errorf("the provider served %d of %d calls, %d tokens", s.Served, s.Requests, s.Completion)
	}
	if a := n.ask(t, clients[0], other, question("exact", false)); a.status != 200 {
		t.Errorf("another account's call: %d %s", a.status, a.body)
	}
	n.verify(t)
}

// TestHoldsCount: what calls under way may cost is not there for others, and what they did not use comes back.
func TestHoldsCount(t *testing.T) {
	t.Parallel()
	n := start(t, spendConfig())
	account, key := n.customer(t, "10")
	c := n.client(t, "http2")
	reached, open := n.gate.stop(0)
	defer open()
	// A short question is answered in three tokens: 0.75 of the 1.00 that is held.
	const short = `{"model":"exact","messages":[{"role":"user","content":"ah"}]}`
	var calls sync.WaitGroup
	defer calls.Wait()
	for range 10 {
		calls.Go(func() {
			if a := n.ask(t, c, key, short); a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	for range 10 {
		<-reached
	}
	if b, _ := n.Storage().Ledger.Balance(t.Context(), account); b.Available.Sign() != 0 || b.Held != money(t, "10") {
		t.Errorf("while ten calls are under way: %+v", b)
	}
	if a := n.ask(t, c, key, short); a.status != 402 {
		t.Errorf("an eleventh call: %d %s", a.status, a.body)
	}
	open()
	calls.Wait()
	n.settled(t, account)
	if b, _ := n.Storage().Ledger.Balance(t.Context(), account); b.Total != money(t, "2.5") {
		t.Errorf("%s left of 10 after ten calls for 0.75", b.Total)
	}
	for i, want := range []int{200, 200, 200, 402} { // 2.5, 1.75, 1, and 0.25 does not cover a hold
		if a := n.ask(t, c, key, short); a.status != want {
			t.Errorf("call %d: %d %s", i, a.status, a.body)
		}
	}
	n.verify(t)
}

// TestFaultsAreCharged: for each way in which a provider can fail, what the client sees and what it pays.
func TestFaultsAreCharged(t *testing.T) {
	t.Parallel()
	type want struct {
		status int
		code   string // of the error object; empty: no error
		broken bool   // the answer ends early
		text   string // the body holds it
		charge string // exact: the provider's usage; estimated: counted by the gateway; none
		at     int64  // tokens out at most, where estimated
	}
	cases := []struct {
		fault  string
		stream bool
		want   want
	}{
		{"plain", false, want{status: 200, charge: "exact"}},
		{"plain", true, want{status: 200, text: "[DONE]", charge: "exact"}},
		{"cached+reasoning", false, want{status: 200, charge: "exact"}},
		{"cached+reasoning", true, want{status: 200, text: "[DONE]", charge: "exact"}},
		{"whole", true, want{status: 200, text: `"chat.completion"`, charge: "exact"}},
		{"429", false, want{status: 429, code: "rate_limit_exceeded", charge: "none"}},
		{"429", true, want{status: 429, code: "rate_limit_exceeded", charge: "none"}},
		{"400", false, want{status: 400, code: "any", charge: "none"}},
		{"500", false, want{status: 500, code: "any", charge: "none"}},
		{"500", true, want{status: 500, code: "any", charge: "none"}},
		{"401", false, want{status: 502, code: "upstream_refused", charge: "none"}},
		{"cut-3", false, want{status: 502, code: "upstream_reset", charge: "none"}},
		{"cut-3", true, want{status: 200, broken: true, text: "You ", charge: "estimated", at: 8}},
		{"cut-0", true, want{status: 502, code: "any", charge: "none"}},
		{"error-3", true, want{status: 200, text: `"error"`, charge: "estimated", at: 8}},
		{"malformed-3", true, want{status: 200, text: "[DONE]", charge: "exact"}},
		{"malformed-3", false, want{status: 200, charge: "estimated", at: 200}}, // what can not be read is counted as text,
		{"nousage", false, want{status: 200, text: "You said", charge: "estimated", at: answerTokens}},
		{"nousage", true, want{status: 200, text: "[DONE]", charge: "estimated", at: answerTokens}},
	}
	var faults []string
	for _, c := range cases {
		if c.fault != "plain" && !strings.Contains(strings.Join(faults, " ")+" ", c.fault+" ") {
			faults = append(faults, c.fault)
		}
	}
	n := start(t, spendConfig(faults...))
	var sum exchange.Usage // charged as the provider says
	var served [4]int64    // by the provider, for the same calls: prompt, completion, cached, reasoning
	for i, c := range cases {
		t.Run(fmt.Sprintf("%s_%t", c.fault, c.stream), func(t *testing.T) {
			client := n.client(t, []string{"http1", "http2"}[i%2])
			account, key := n.customer(t, "10")
			before := n.sandbox.Stats()
			a := n.ask(t, client, key, question(strings.ReplaceAll(c.fault, "+", "_"), c.stream))
			if a.status != c.want.status || a.broken != c.want.broken || !strings.Contains(a.body, c.want.text) {
				t.Errorf("the client saw %d, broken %t: %s", a.status, a.broken, a.body)
			}
			if c.want.code != "" {
				if _, code, _ := apiError(t, a.body); code != c.want.code && c.want.code != "any" {
					t.Errorf("code %q: %s", code, a.body)
				}
			}
			if c.fault != "malformed-3" && strings.Contains(a.body, `"model":"sandbox-`) {
				t.Errorf("the provider's name of the model is shown: %s", a.body)
			}
			list := n.settled(t, account)
			if c.want.charge == "none" {
				if len(list) != 0 {
					t.Errorf("charged %+v", list)
				}
				return
			}
			if len(list) != 1 {
				t.Fatalf("%d charges", len(list))
			}
			got := list[0]
			u := got.usage
			if got.attempts != 1 {
				t.Errorf("%d attempts", got.attempts)
			}
			if want := cost(t, &u); got.amount != want {
				t.Errorf("charged %s for %+v, which costs %s", got.amount, u, want)
			}
			after := n.sandbox.Stats()
			if c.want.charge == "estimated" {
				if !u.Estimated || u.Prompt() <= 0 || u.Prompt() > 2*questionTokens || u.Completion() > c.want.at {
					t.Errorf("estimated %+v", u)
				}
				if strings.Contains(a.body, "You said") && u.Completion() == 0 {
					t.Error("what was delivered is free")
				}
				return
			}
			if u.Estimated {
				t.Errorf("exact usage is flagged estimated: %+v", u)
			}
			for unit := range u.Units {
				sum.Units[unit] += u.Units[unit]
			}
			served[0] += after.Prompt - before.Prompt
			served[1] += after.Completion - before.Completion
			served[2] += after.Cached - before.Cached
			served[3] += after.Reasoning - before.Reasoning
			if !c.want.broken && a.header.Get("Postern-Receipt") == "" && !strings.Contains(a.body, ": postern-receipt {") {
				t.Error("no receipt")
			}
		})
	}
	if got := [4]int64{sum.Prompt(), sum.Completion(), sum.Units[exchange.CachedInput], sum.Units[exchange.Reasoning]}; got != served || got[0] == 0 {
		t.Errorf("charged %v, the provider served %v", got, served)
	}
	n.verify(t)
}

// cost is what usage costs at the price of the faulty models.
func cost(t testing.TB, u *exchange.Usage) (sum exchange.Amount) {
	t.Helper()
	for unit, price := range map[exchange.Unit]string{
		exchange.Input: "0.001", exchange.CachedInput: "0.0005", exchange.Output: "0.01", exchange.Reasoning: "0.02",
	} {
		part, ok := money(t, price).Times(u.Units[unit])
		if !ok {
			t.Fatal("too large")
		}
		sum = sum.Add(part)
	}
	return sum
}

// TestClientLeaves: a client that goes in the middle of a stream, or before its answer, pays by the route's rule.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	n := start(t, spendConfig())
	for i, c := range []struct {
		rule   string
		charge string
	}{
		{"bill_delivered", "estimated"},
		{"drain", "exact"},
		{"void", "none"},
	} {
		for _, events := range []int{5, 0} {
			t.Run(fmt.Sprint(c.rule, "_after_", events), func(t *testing.T) {
				client := n.client(t, []string{"http1", "http2"}[(i+events)%2])
				account, key := n.customer(t, "10")
				before := n.sandbox.Stats()
				reached, open := n.gate.stop(events)
				defer open()
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				ended, got := make(chan error, 1), make(chan struct{})
				go func() {
					resp, err := n.begin(t, ctx, client, key, question("plain", true), "x-leave", c.rule)
					if err == nil {
						lines := bufio.NewScanner(resp.Body)
						for seen := false; lines.Scan(); {
							if !seen && strings.Contains(lines.Text(), `"content":"You `) {
								seen = true
								close(got)
							}
						}
						err = lines.Err()
						resp.Body.Close()
					}
					ended <- err
				}()
				<-reached
				if events > 0 {
					<-got // it leaves with a part of the answer in hand
				}
				leave()
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Fatalf("the client ended with %v", err)
				}
				if c.rule == "drain" {
					open()
				}
				// Without drain the gateway leaves the provider as its client left it, which ends the wait at the gate.
				waitFor(t, "the provider to be left", func() bool { return n.sandbox.Stats().Open == 0 })
				list := n.settled(t, account)
				after := n.sandbox.Stats()
				if drained := after.Served > before.Served; drained != (c.rule == "drain") {
					t.Errorf("the provider's answer was read to its end: %t", drained)
				}
				switch {
				case c.charge == "none":
					if len(list) != 0 {
						t.Errorf("charged %+v", list)
					}
				case len(list) != 1:
					t.Errorf("%d charges", len(list))
				case c.charge == "exact":
					if u := list[0].usage; u.Estimated || u.Prompt() != questionTokens || u.Completion() != answerTokens {
						t.Errorf("charged for %+v", u)
					}
				default:
					// Five events are a role and four pieces of four octets.
					u := list[0].usage
					if !u.Estimated || u.Prompt() == 0 || (events == 0) != (u.Completion() == 0) || u.Completion() > 8 {
						t.Errorf("charged for %+v", u)
					}
				}
			})
		}
	}
	n.verify(t)
}

// TestStalledProvider: a client that leaves a provider that has stopped pays for what it got, and its hold ends with it.
func TestStalledProvider(t *testing.T) {
	t.Parallel()
	n := start(t, spendConfig("stall-3", "hang"))
	for _, c := range []struct {
		fault  string
		stream bool
	}{{"stall-3", true}, {"stall-3", false}, {"hang", true}, {"hang", false}} {
		t.Run(fmt.Sprint(c.fault, "_", c.stream), func(t *testing.T) {
			account, key := n.customer(t, "10")
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			ended := make(chan string, 1)
			go func() {
				var got strings.Builder
				resp, err := n.begin(t, ctx, n.client(t, "http1"), key, question(c.fault, c.stream))
				if err == nil {
					for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
						got.WriteString(lines.Text())
						if strings.Count(got.String(), "data: ") == 3 {
							leave()
						}
					}
					resp.Body.Close()
				}
				ended <- got.String()
			}()
			if c.fault == "hang" || !c.stream {
				waitFor(t, "the call to reach the provider", func() bool { return n.sandbox.Stats().Open == 1 })
				leave()
			}
			if got := <-ended; c.stream && c.fault != "hang" && !strings.Contains(got, `"You `) {
				t.Errorf("the client got %q", got)
			}
			waitFor(t, "the provider to be left", func() bool { return n.sandbox.Stats().Open == 0 })
			list := n.settled(t, account)
			if len(list) != 1 || !list[0].usage.Estimated || list[0].usage.Prompt() == 0 {
				t.Errorf("charged %+v", list)
			}
		})
	}
	n.verify(t)
}

// TestFallbackIsChargedOnce: where the first target refuses and the second serves, one attempt is paid for.
func TestFallbackIsChargedOnce(t *testing.T) {
	t.Parallel()
	n := start(t, spendConfig())
	account, key := n.customer(t, "10")
	for _, stream := range []bool{false, true} {
		if a := n.ask(t, n.client(t, "http1"), key, question("fallback", stream)); a.status != 200 || a.broken {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	list := n.settled(t, account)
	if len(list) != 2 {
		t.Fatalf("%d charges for two calls", len(list))
	}
	for _, c := range list {
		if c.model != "fallback" || c.attempts != 2 || c.usage.Estimated || c.usage.Prompt() != questionTokens || c.usage.Completion() != answerTokens || c.amount != cost(t, &c.usage) {
			t.Errorf("charged %+v", c)
		}
	}
	if s := n.sandbox.Stats(); s.Requests != 4 || s.Refused != 2 || s.Models["sandbox-spare"] != 2 {
		t.Errorf("the provider saw %+v", s)
	}
	n.verify(t)
}

// TestForgottenHold: a hold that the policy leaves open is settled by the gateway, and counted.
func TestForgottenHold(t *testing.T) {
	t.Parallel()
	n := start(t, spendConfig("500"))
	account, key := n.customer(t, "10")
	c := n.client(t, "http1")
	if a := n.ask(t, c, key, question("plain", false), "x-forget", "1"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := n.ask(t, c, key, question("plain", true), "x-forget", "1"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := n.ask(t, c, key, question("500", false), "x-forget", "1"); a.status != 500 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	list := n.settled(t, account)
	// What failed is recorded as a charge of nothing: only a policy that was asked may release a call that was made.
	if len(list) != 3 || list[2].amount.Sign() != 0 {
		t.Fatalf("charged %+v", list)
	}
	for _, c := range list[:2] {
		if c.usage.Estimated || c.usage.Prompt() != questionTokens || c.usage.Completion() != answerTokens {
			t.Errorf("charged for %+v", c.usage)
		}
	}
	if got := n.scrape(t)["postern_holds_settled_by_host_total"]; got != 3 {
		t.Errorf("%v holds were settled by the host", got)
	}
	n.verify(t)
}

// failingStore is a store in memory that can be made to refuse every write.
type failingStore struct {
	state.Store
	broken atomic.Bool
}

var errBroken = errors.New("the disk does not answer")

func (s *failingStore) Commit(ctx context.Context, b *state.Batch) error {
	if s.broken.Load() {
		return errBroken
	}
	return s.Store.Commit(ctx, b)
}

// TestLedgerUnavailable: while nothing can be recorded, paid calls are refused with 503, no provider is called, and when it
// works again they are served again.
func TestLedgerUnavailable(t *testing.T) {
	t.Parallel()
	store := &failingStore{}
	backend := backends()[0]
	backend.Open = func(ctx context.Context, dir string, _ cty.Value, log *slog.Logger) (_ state.Store, err error) {
		store.Store, err = memory.Backend().Open(ctx, dir, cty.EmptyObjectVal, log)
		return store, err
	}
	n := startOn(t, workdir(t, spendConfig()), []state.Backend{backend})
	account, key := n.customer(t, "10")
	c := n.client(t, "http2")
	if a := n.ask(t, c, key, question("plain", false)); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	store.broken.Store(true)
	// The first finds out at the intent, the next at the hold.
	for i := range 4 {
		a := n.ask(t, c, key, question("plain", i%2 == 1))
		if kind, code, _ := apiError(t, a.body); a.status != 503 || kind != "server_error" || code != "ledger_unavailable" || a.header.Get("Retry-After") == "" {
			t.Errorf("call %d: %d %v %s", i, a.status, a.header, a.body)
		}
	}
	if err := n.Ready(t.Context()); err == nil {
		t.Error("the gateway says it is ready")
	}
	if s := n.sandbox.Stats(); s.Requests != 1 {
		t.Errorf("the provider was called %d times", s.Requests)
	}
	store.broken.Store(false)
	waitFor(t, "the ledger to recover", func() bool { return n.Ready(t.Context()) == nil })
	if a := n.ask(t, c, key, question("plain", true)); a.status != 200 || a.broken {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
	if list := n.settled(t, account); len(list) != 2 {
		t.Errorf("%d charges for two calls", len(list))
	}
	n.verify(t)
}

// scrape reads the metrics, as their lines have them: name and labels.
func (n *node) scrape(t testing.TB) map[string]float64 {
	t.Helper()
	w := httptest.NewRecorder()
	n.metrics.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	list := map[string]float64{}
	for line := range strings.Lines(w.Body.String()) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil && name != "#" {
			list[name] = v
		}
	}
	return list
}

// TestRefusalKeepsTheConnection: a call that is refused before its body was read costs its client nothing but the answer:
// the next one goes by the same connection.
func TestRefusalKeepsTheConnection(t *testing.T) {
	t.Parallel()
	n := start(t, spendConfig())
	_, key := n.customer(t, "10000")
	c := n.client(t, "http1")
	connections := 0
	c.Transport.(*http.Transport).TLSClientConfig.VerifyConnection = func(tls.ConnectionState) error { connections++; return nil }
	padding := strings.Repeat(" ", 100<<10) // more than is read at once
	for i := range 60 {
		body := question("plain", false)
		if i%4 > 1 {
			body += padding
		}
		who, want := key, 200
		if i%2 == 0 {
			who, want = "nobody", 401
		}
		if a := n.ask(t, c, who, body); a.status != want {
			t.Fatalf("call %d: %d %s", i, a.status, a.body)
		}
	}
	if connections != 1 {
		t.Errorf("%d connections for calls one after the other", connections)
	}
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/postern-gateway/postern/gateway/account"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// keyFor makes another key for an account.
func (n *node) keyFor(t testing.TB, id string, allow exchange.Allowance) (key account.Key, secret string) {
	t.Helper()
	key, secret, err := n.Storage().Accounts.CreateKey(t.Context(), id, account.KeyRequest{Scopes: []string{"models:call"}, Allowance: allow})
	if err != nil {
		t.Fatal(err)
	}
	return key, secret
}

// change changes what a key is allowed.
func (n *node) change(t testing.TB, k account.Key, edit func(*account.KeyRequest)) {
	t.Helper()
	if _, err := n.Storage().Accounts.ChangeKey(t.Context(), k.Account, k.ID, edit); err != nil {
		t.Fatal(err)
	}
}

// models lists what a key is told that there is.
func (n *node) models(t testing.TB, c *http.Client, key string) (names []string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.url+"/v1/models", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct{ Data []struct{ ID string } }
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp.StatusCode, err)
	}
	for _, m := range list.Data {
		names = append(names, m.ID)
	}
	return names
}

func capped(t testing.TB, text string) exchange.Cap {
	t.Helper()
	c, err := exchange.ParseCap(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestKeyRestrictions: what a key is restricted in holds for real calls, over every protocol, and narrowing it holds for
// the next one.
func TestKeyRestrictions(t *testing.T) {
	t.Parallel()
	n := start(t, nil)
	acct, free := n.customer(t, "10")
	loopback, err := exchange.ParseNetwork("::ffff:127.0.0.0/104")
	if err != nil {
		t.Fatal(err)
	}
	k, key := n.keyFor(t, acct, exchange.Allowance{Models: []string{"small"}})
	chat := func(model string) string {
		return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Hello"}]}`, model)
	}
	expect := func(c *http.Client, key, body string, status int, code, says string) string {
		t.Helper()
		a := n.ask(t, c, key, body)
		if a.status != status {
			t.Errorf("%d, expected %d: %s", a.status, status, a.body)
			return ""
		}
		if status == 200 {
			return ""
		}
		_, got, message := apiError(t, a.body)
		if got != code || !strings.Contains(message, says) {
			t.Errorf("%s %q, expected %s ... %q", got, message, code, says)
		}
		return message
	}
	for _, protocol := range []string{"http1", "http2", "http3"} {
		c := n.client(t, protocol)
		expect(c, key, chat("small"), 200, "", "")
		expect(c, free, chat("large"), 200, "", "")
		// A model that is not allowed is as one that there is not, word for word.
		closed := expect(c, key, chat("large"), 404, "model_not_found", "none of those that this API key may be used for")
		absent := expect(c, key, chat("lurge"), 404, "model_not_found", "none of those that this API key may be used for")
		if strings.ReplaceAll(closed, "large", "lurge") != absent {
			t.Errorf("%q and %q tell them apart", closed, absent)
		}
		if strings.Contains(closed, "small") {
			t.Errorf("%q tells what else there is", closed)
		}
		expect(c, free, chat("lurge"), 404, "model_not_found", "not served here")
	}
	c := n.client(t, "http2")
	if got, all := n.models(t, c, key), n.models(t, c, free); !slices.Equal(got, []string{"small"}) || len(all) < 3 {
		t.Errorf("the key is shown %v, of %v", got, all)
	}
	for model, want := range map[string]int{"small": 200, "large": 404, "lurge": 404} {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, n.url+"/v1/models/"+model, http.NoBody)
		r.Header.Set("Authorization", "Bearer "+key)
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET /v1/models/%s: %d %s", model, resp.StatusCode, body)
		}
	}
	// A reply that another key of the account was given is for those alone who may make the call.
	once := []string{"Idempotency-Key", "order-17"}
	if a := n.ask(t, c, free, chat("large"), once...); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := n.ask(t, c, free, chat("large"), once...); a.status != 200 || a.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%d %v", a.status, a.header)
	}
	if a := n.ask(t, c, key, chat("large"), once...); a.status != 404 {
		t.Errorf("%d %s", a.status, a.body)
	}

	n.change(t, k, func(r *account.KeyRequest) { r.Models, r.Routes = nil, []string{"models"} })
	expect(c, key, chat("small"), 403, "key_not_allowed", "restricted to others")
	if got := n.models(t, c, key); len(got) < 3 {
		t.Errorf("the key is shown %v", got)
	}
	n.change(t, k, func(r *account.KeyRequest) { r.Routes, r.Networks = nil, append(r.Networks, loopback) })
	expect(c, key, chat("small"), 200, "", "")
	elsewhere, err := exchange.ParseNetwork("127.0.0.2")
	if err != nil {
		t.Fatal(err)
	}
	n.change(t, k, func(r *account.KeyRequest) { r.Networks = append(r.Networks[:0], elsewhere) })
	expect(c, key, chat("small"), 403, "key_not_allowed", "came from 127.0.0.1")
	for _, header := range []string{"X-Forwarded-For", "Forwarded", "X-Real-Ip", "True-Client-Ip"} { // nobody is where he says
		value := "127.0.0.2"
		if header == "Forwarded" {
			value = "for=127.0.0.2"
		}
		if a := n.ask(t, c, key, chat("small"), header, value); a.status != 403 {
			t.Errorf("%s: %d", header, a.status)
		}
	}
	other := n.client(t, "http1")
	other.Transport.(*http.Transport).DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext
	expect(other, key, chat("small"), 200, "", "")
	expect(other, free, chat("small"), 200, "", "")

	n.change(t, k, func(r *account.KeyRequest) { r.Networks, r.Rate = nil, exchange.Rate{Calls: 2, Per: 3600e9} })
	expect(c, key, chat("small"), 200, "", "")
	expect(c, key, chat("small"), 200, "", "")
	if a := n.ask(t, c, key, chat("small")); a.status != 429 || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	expect(c, free, chat("small"), 200, "", "")

	n.change(t, k, func(r *account.KeyRequest) { r.Rate, r.Cap = exchange.Rate{}, capped(t, "0.000001/month") })
	expect(c, key, chat("small"), 402, "insufficient_quota", "The next month begins at ")
	if a := n.ask(t, c, key, chat("small")); a.header.Get("Retry-After") == "" {
		t.Errorf("%v", a.header)
	}
	expect(c, free, chat("small"), 200, "", "")

	n.change(t, k, func(r *account.KeyRequest) { r.Cap = exchange.Cap{} })
	_, second, err := n.Storage().Accounts.RotateKey(t.Context(), acct, k.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	expect(c, key, chat("small"), 401, "invalid_api_key", "")
	expect(c, second, chat("small"), 200, "", "")
	if err := n.Storage().Accounts.Disable(t.Context(), acct); err != nil {
		t.Fatal(err)
	}
	expect(c, second, chat("small"), 401, "invalid_api_key", "")
	if err := n.Storage().Accounts.Enable(t.Context(), acct); err != nil {
		t.Fatal(err)
	}
	expect(c, second, chat("small"), 200, "", "")
	n.verify(t)
}

// TestCapUnderParallelCalls: of 64 callers at once with one key, exactly those are served that its cap pays for, and after
// a restart none but those that a higher cap does.
func TestCapUnderParallelCalls(t *testing.T) {
	t.Parallel()
	n := start(t, spendConfig())
	acct, free := n.customer(t, "100")
	k, key := n.keyFor(t, acct, exchange.Allowance{Cap: capped(t, "7/total")})
	rush := func(n *node, want int64) {
		t.Helper()
		clients := []*http.Client{n.client(t, "http1"), n.client(t, "http2")}
		var served atomic.Int64
		var calls sync.WaitGroup
		for i := range 64 {
			calls.Go(func() {
				a := n.ask(t, clients[i%2], key, question("exact", i%4 < 2)) // each holds and costs 1.00
				switch a.status {
				case 200:
					served.Add(1)
				case 402:
					if _, _, message := apiError(t, a.body); !strings.Contains(message, "This API key may spend") || a.header.Get("Retry-After") != "" {
						t.Errorf("%s %v", message, a.header)
					}
				default:
					t.Errorf("%d: %s", a.status, a.body)
				}
			})
		}
		calls.Wait()
		waitFor(t, "the holds to end", func() bool {
			s, err := n.Storage().Ledger.Spending(t.Context(), k.ID, exchange.Total)
			return err == nil && s.Held.Sign() == 0
		})
		if served.Load() != want {
			t.Errorf("%d served, expected %d", served.Load(), want)
		}
		n.verify(t)
	}
	rush(n, 7)
	if a := n.ask(t, n.client(t, "http2"), free, question("exact", false)); a.status != 200 {
		t.Errorf("another key of the account: %d %s", a.status, a.body)
	}
	n.stop()
	n = startIn(t, n.dir)
	rush(n, 0)
	n.change(t, k, func(r *account.KeyRequest) { r.Cap = capped(t, "10/total") })
	rush(n, 3)
	s, err := n.Storage().Ledger.Spending(t.Context(), k.ID, exchange.Total)
	if err != nil || s.Spent != money(t, "10") {
		t.Errorf("%+v, %v", s, err)
	}
	named := 0
	for e, err := range n.Storage().Ledger.Entries(t.Context(), acct, 0, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Key == k.ID {
			named++
		}
	}
	if named != 10 {
		t.Errorf("%d entries name the key", named)
	}
}

package main

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/examples/sandbox/sandbox"
	"github.com/postern-gateway/postern/gateway/usage"
)

// creations are what is kept for an account, each as "TYPE PART|PART".
func (n *node) creations(t *testing.T, account string) (list []string) {
	t.Helper()
	shelf := n.Storage().Creations
	for info, err := range shelf.Export(t.Context(), account) {
		if err != nil {
			t.Fatal(err)
		}
		var parts []string
		for i := range info.Parts {
			var b strings.Builder
			for p, err := range shelf.Read(t.Context(), account, info.ID, i) {
				if err != nil {
					t.Fatal(err)
				}
				b.Write(p)
			}
			parts = append(parts, b.String())
		}
		list = append(list, info.Type+" "+strings.Join(parts, "|"))
	}
	return list
}

// TestExampleCreations: what a customer was answered is kept for it alone, and both calls are in the usage records.
func TestExampleCreations(t *testing.T) {
	t.Parallel()
	provider := httptest.NewServer(sandbox.Handler(sandbox.Config{}))
	t.Cleanup(provider.Close)
	const file = "examples/creations/README.md"
	n := startIn(t, example(t, "creations", "http://127.0.0.1:9001", provider.URL))
	account, key := n.customer(t, "5")
	other, _ := n.customer(t, "5")
	kept := strings.ToLower(n.told(t, file, `"stream":true,`, "KEY="+key))
	_, rest, told := strings.Cut(kept, "\npostern-creation: ")
	id, _, _ := strings.Cut(rest, "\r\n")
	if !strings.Contains(kept, " 200") || !told {
		t.Fatal(kept)
	}
	if out := n.told(t, file, "-H 'Postern-Keep: none'", "KEY="+key); !strings.Contains(out, "Goodbye!") || strings.Contains(strings.ToLower(out), "postern-creation") {
		t.Error(out)
	}
	info, err := n.Storage().Creations.Find(t.Context(), account, id)
	if err != nil || info.Model != "small" || info.Route != "chat" {
		t.Errorf("%+v, %v", info, err)
	}
	if got := n.creations(t, account); len(got) != 1 || !strings.HasPrefix(got[0], "text/plain; charset=utf-8 ") || !strings.Contains(got[0], "You said: Hello!") || strings.Contains(got[0], "data:") {
		t.Errorf("%q", got)
	}
	if got := n.creations(t, other); len(got) != 0 {
		t.Errorf("another account has %q", got)
	}
	calls := n.calls(t, account, 2)
	if i := slices.IndexFunc(calls, func(r usage.Record) bool { return r.ID == info.Exchange }); i < 0 || calls[i].Amount.Sign() <= 0 {
		t.Errorf("%+v", calls)
	}
	n.stop()
	if code, out, errs := command(t, "", "usage", "sums", "--dir", n.dir, "--by", "model", "--csv"); code != 0 || !strings.Contains(out, account+",") || !strings.Contains(out, ",small,") {
		t.Errorf("%d %s%s", code, out, errs)
	}
	if code, out, errs := command(t, "", "usage", "verify", "--dir", n.dir); code != 0 || !strings.Contains(out, "it adds up") {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

// What is a creation and what is not, and what a shredded key leaves of them.
func TestCreations(t *testing.T) {
	t.Parallel()
	provider := httptest.NewServer(sandbox.Handler(sandbox.Config{}))
	t.Cleanup(provider.Close)
	n := startIn(t, example(t, "creations", "http://127.0.0.1:9001", provider.URL, "  models   = [model.small]\n", "  models   = [model.small]\n  on_disconnect = drain\n"))
	account, key := n.customer(t, "5")
	poor, poorKey := n.customer(t, "0")
	c := n.client(t, "http1")
	path := "/v1/chat/completions"
	ask := func(key, members string) int {
		t.Helper()
		resp, _ := n.post(t, c, path, key, fmt.Sprintf(`{"model":"small",%s"messages":[{"role":"user","content":"canary"}]}`, members))
		return resp.StatusCode
	}
	for members, status := range map[string]int{`"store":true,`: 200, `"store":false,`: 200, `"stream":true,"store":false,`: 200, `"n":200,`: 400} {
		if got := ask(key, members); got != status {
			t.Errorf("%s: %d", members, got)
		}
	}
	if got := ask(poorKey, ""); got != 402 {
		t.Errorf("without money: %d", got)
	}
	if got := n.creations(t, account); len(got) != 1 || !strings.HasPrefix(got[0], `application/json {`) || !strings.Contains(got[0], "You said: canary") {
		t.Errorf("%q", got)
	}
	if got := n.creations(t, poor); len(got) != 0 {
		t.Errorf("%q", got)
	}
	if got := ask(key, `"n":2,"stream":true,`); got != 200 {
		t.Fatal(got)
	}
	if got := n.creations(t, account); len(got) != 2 || strings.Count(got[0], "You said: canary") != 2 || strings.Count(got[0], "|") != 1 {
		t.Errorf("%q", got)
	}
	for e, err := range n.Storage().Store.Scan(t.Context(), []byte("creation/"), nil) {
		if err != nil || strings.Contains(string(e.Value), "canary") {
			t.Errorf("content lies open in the store: %q, %v", e.Key, err)
		}
	}
	if err := n.Storage().Vault.Shred(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	if got := n.creations(t, account); len(got) != 0 {
		t.Errorf("after the key was shredded: %q", got)
	}
	if got := ask(key, ""); got != 200 { // the account's own business; nothing is kept any more
		t.Errorf("%d", got)
	}
	if got := n.creations(t, account); len(got) != 0 {
		t.Errorf("%q", got)
	}
	if removed, err := n.Storage().Creations.Remove(t.Context(), account); removed != 2 || err != nil {
		t.Error(removed, err)
	}
}

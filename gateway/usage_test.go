package main

import (
	"encoding/csv"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/usage"
)

// calls waits until an account has that many records: one is written when the client has its reply already.
func (n *node) calls(t *testing.T, account string, want int) []usage.Record {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		p, err := n.Storage().Usage.Page(t.Context(), account, usage.Filter{}, 1000, "")
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Records) == want {
			return p.Records
		}
		if len(p.Records) > want || time.Now().After(deadline) {
			t.Fatalf("%d records, want %d: %+v", len(p.Records), want, p.Records)
		}
	}
}

// Every call of an account leaves a record, also one that was refused or failed; one of nobody leaves none.
func TestUsage(t *testing.T) {
	t.Parallel()
	n := start(t, nil)
	id, key := n.customer(t, "5")
	poor, poorKey := n.customer(t, "0")
	none, noneKey := n.customer(t, "5", "other:scope")
	c := n.client(t, "http2")
	path := "/v1/chat/completions"
	n.post(t, c, path, key, hello)
	n.post(t, c, path, key, strings.Replace(hello, "{", `{"stream":true,`, 1))
	n.post(t, c, path, key, `{"model":"secret-canary-model","messages":[]}`)
	if resp, _ := n.post(t, c, path, poorKey, hello); resp.StatusCode != 402 {
		t.Errorf("without money: %s", resp.Status)
	}
	if resp, _ := n.post(t, c, path, noneKey, hello); resp.StatusCode != 403 {
		t.Errorf("without the scope: %s", resp.Status)
	}
	if resp, _ := n.post(t, c, path, "", hello); resp.StatusCode != 401 {
		t.Errorf("without a key: %s", resp.Status)
	}
	got := n.calls(t, id, 3)
	keys, err := n.Storage().Accounts.ListKeys(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var spent exchange.Amount
	for i, r := range got {
		want := 200
		if i == 0 {
			want = 404
		}
		if r.Status != want || r.Key != keys[0].ID || r.Route == "" || r.Took <= 0 || r.First <= 0 || r.First > r.Took || r.Cut || time.Since(r.Time) > time.Hour {
			t.Errorf("%+v", r)
		}
		if charged := r.Receipt != ""; charged != (want == 200) || charged != (r.Model == "small") || charged != (r.Usage.Completion() > 0) {
			t.Errorf("%+v", r)
		}
		spent = spent.Add(r.Amount)
	}
	b, err := n.Storage().Ledger.Balance(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if five, _ := exchange.ParseAmount("5"); b.Total.Add(spent) != five || spent.Sign() <= 0 {
		t.Errorf("%s was spent and %s is left", spent, b.Total)
	}
	if r := n.calls(t, poor, 1)[0]; r.Status != 402 || r.Amount.Sign() != 0 || r.Receipt != "" {
		t.Errorf("%+v", r)
	}
	if r := n.calls(t, none, 1)[0]; r.Status != 403 {
		t.Errorf("%+v", r)
	}
	rep, err := n.Storage().Usage.Verify(t.Context())
	if err != nil || len(rep.Problems) > 0 || rep.Records != 5 || rep.Charges != 2 {
		t.Errorf("%+v, %v", rep, err)
	}
	for e, err := range n.Storage().Store.Scan(t.Context(), []byte("usage/"), nil) {
		for _, canary := range []string{"canary", "jane", "127.0.0.1", "application/json"} {
			if err != nil || strings.Contains(string(e.Value)+string(e.Key), canary) {
				t.Errorf("%q is in usage: %v", canary, err)
			}
		}
	}
	n.stop()

	// The command line, without a running gateway.
	told := func(want int, arguments ...string) string {
		t.Helper()
		code, out, errs := command(t, "", append(arguments, "--dir", n.dir)...)
		if code != want {
			t.Fatalf("%v: %d %s%s", arguments, code, out, errs)
		}
		return out + errs
	}
	var sums []usage.SumView
	if err := json.Unmarshal([]byte(told(0, "usage", "sums", "-json", "-by", "model,key")), &sums); err != nil || len(sums) != 4 {
		t.Errorf("%+v, %v", sums, err)
	}
	rows, err := csv.NewReader(strings.NewReader(told(0, "usage", "calls", id, "-csv"))).ReadAll()
	if err != nil || len(rows) != 4 || rows[1][6] != "404" {
		t.Errorf("%q, %v", rows, err)
	}
	if out := told(0, "usage", "calls", id, "-json", "-status", "2xx", "-limit", "1"); strings.Count(out, "\n") != 1 || !strings.Contains(out, `"status":200`) {
		t.Error(out)
	}
	if out := told(0, "usage", "calls", id, "-from", "2999-01-01"); strings.Count(out, "\n") != 1 {
		t.Error(out)
	}
	if out := told(0, "usage", "sums", id, "-step", "hour", "-by", "time"); !strings.Contains(out, id) {
		t.Error(out)
	}
	if out := told(0, "usage", "verify"); !strings.Contains(out, "it adds up") {
		t.Error(out)
	}
	for _, wrong := range [][]string{{"usage", "calls", id, "-status", "9xx"}, {"usage", "sums", "-from", "yesterday"}} {
		if out := told(1, wrong...); !strings.Contains(out, "such as") {
			t.Error(out)
		}
	}
}

// A route on which nobody is known leaves no record.
func TestUsageOfNobody(t *testing.T) {
	t.Parallel()
	n := startIn(t, folder(t, map[string]string{"config.hcl": `
state "memory" {}
listener "public" {
  address   = "127.0.0.1:0"
  protocols = [http1]
}
route "all" {
  listener = listener.public
  match    = "/"
  respond {}
}
`}))
	resp, err := http.Get("http://" + n.address + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if rep, err := n.Storage().Usage.Verify(t.Context()); err != nil || rep.Records != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

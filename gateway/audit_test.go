package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/admin"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/badger"
)

// TestAuditCommand: what the command line does is in the audit log, with and without a running gateway, and what somebody does
// to the store behind the log's back is found.
func TestAuditCommand(t *testing.T) {
	t.Parallel()
	dir, address := commandFolder(t)
	me := "uid:" + strconv.Itoa(os.Getuid())
	listed := func(arguments ...string) (list []admin.Action) {
		t.Helper()
		if err := json.Unmarshal([]byte(ok(t, append([]string{"audit", "list", "-dir", dir, "-json"}, arguments...)...)), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	verify := func() (p admin.AuditProof) {
		t.Helper()
		if err := json.Unmarshal([]byte(ok(t, "audit", "verify", "-dir", dir, "-json")), &p); err != nil || !p.OK {
			t.Fatalf("%v %+v", err, p)
		}
		return p
	}
	if list := listed(); len(list) != 0 {
		t.Errorf("%+v", list)
	}
	id := strings.TrimSpace(ok(t, "account", "create", "-dir", dir, "Canary Ltd"))
	fails(t, 1, "account", "disable", "-dir", dir, "canary")
	list := listed()
	if len(list) != 2 || list[0].Action != "account.disable" || list[0].Outcome != "refused" || list[0].Subject != "unknown" || list[1].Actor != me || list[1].Subject != id {
		t.Fatalf("%+v", list)
	}
	offline := verify()

	r := runGateway(t, dir, address)
	ok(t, "ledger", "credit", "-dir", dir, id, "5", "-key", "canary-payment", "-note", "canary note")
	ok(t, "reload", "-dir", dir)
	if list = listed("-subject", id, "-action", "ledger.credit"); len(list) != 1 || !strings.HasPrefix(list[0].Actor, "token:") || list[0].Detail["uid"] != strconv.Itoa(os.Getuid()) || list[0].Detail["amount"] != "5.00" {
		t.Errorf("%+v", list)
	}
	if list = listed("-action", "config.apply"); len(list) != 1 || list[0].Actor != "gateway" || !strings.HasPrefix(r.status(t).Config, list[0].Detail["config"]) {
		t.Errorf("%+v", list)
	}
	// A configuration that was refused is there, by who asked for it and by the gateway.
	edit(t, filepath.Join(dir, "config.hcl"), "route \"chat\"", "rout \"chat\"")
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/v1/reload", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+r.token)
	resp, err := http.DefaultClient.Do(q)
	if err != nil || resp.StatusCode != http.StatusUnprocessableEntity {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	edit(t, filepath.Join(dir, "config.hcl"), "rout \"chat\"", "route \"chat\"")
	if list = listed("-actor", "gateway", "-limit", "1"); len(list) != 1 || list[0].Action != "config.apply" || list[0].Outcome != "refused" || list[0].Reason != "files" {
		t.Errorf("%+v", list)
	}
	if list = listed("-action", "gateway.reload", "-limit", "1"); len(list) != 1 || list[0].Outcome != "refused" || !strings.HasPrefix(list[0].Actor, "token:") || list[0].Detail["uid"] != "" {
		t.Errorf("%+v", list)
	}
	ok(t, "vault", "rotate", "-dir", dir)
	verify()
	if code := r.stop(); code != 0 {
		t.Fatal(code, r.log)
	}
	table := ok(t, "audit", "list", "-dir", dir)
	for _, want := range []string{"gateway.start", "gateway.stop", "gateway.reload", "vault.rotate", "ledger.credit", me} {
		if !strings.Contains(table, want) {
			t.Errorf("no %s in:\n%s", want, table)
		}
	}
	if strings.Contains(strings.ToLower(table), "canary") {
		t.Errorf("content in:\n%s", table)
	}
	last := verify()
	if out := ok(t, "audit", "verify", "-dir", dir, "-mark", offline.Mark); !strings.Contains(out, "the chain holds") || !strings.Contains(out, last.Mark) {
		t.Error(out)
	}
	fails(t, 1, "audit", "verify", "-dir", dir, "-mark", "5")

	// Somebody removes what shows the refused attempt.
	s, err := badger.Open(t.Context(), badger.Config{Dir: filepath.Join(dir, "data")})
	if err != nil {
		t.Fatal(err)
	}
	var b state.Batch
	b.Delete(append([]byte("audit/entry/"), 0, 0, 0, 0, 0, 0, 0, 2))
	if err := s.Commit(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if out := fails(t, 1, "audit", "verify", "-dir", dir); !strings.Contains(out, "entry 2 is missing") {
		t.Error(out)
	}
}

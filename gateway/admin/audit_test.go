package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/audit"
)

// actions lists the whole audit log, the oldest first, without what the gateway did itself.
func (o *operated) actions(t *testing.T) (list []Action) {
	t.Helper()
	var page Actions
	o.expect(t, 200, "GET", "/v1/audit?limit=1000", "", &page)
	if page.Next != 0 {
		t.Fatal("there is more")
	}
	slices.Reverse(page.Entries)
	return slices.DeleteFunc(page.Entries, func(a Action) bool { return a.Actor == "gateway" })
}

// Every call that changes something is in the log with who, what, and how it ended; nobody's words are.
func TestAudit(t *testing.T) {
	t.Parallel()
	o := operate(t)
	var a Account
	o.expect(t, 200, "POST", "/v1/accounts", `{"name":"Canary Ltd"}`, &a)
	base := "/v1/accounts/" + a.ID
	var k Key
	o.expect(t, 200, "POST", base+"/keys", `{"name":"canary key","models":["canary-model"],"networks":["192.0.2.1"]}`, &k)
	one := base + "/keys/" + k.ID
	o.expect(t, 200, "PATCH", one, `{"name":"canary two","cap":"5/day"}`, nil)
	o.expect(t, 200, "PATCH", one, `{}`, nil)
	o.expect(t, 200, "POST", one+"/rotate", `{}`, nil)
	o.expect(t, 200, "DELETE", one, ``, nil)
	o.expect(t, 200, "POST", base+"/credits", `{"amount":"12.50","key":"canary@example.test","note":"canary said"}`, nil)
	problemIn(t, o.do(t, "POST", base+"/credits", `{"amount":"13","key":"canary@example.test"}`), 409, "key_used")
	problemIn(t, o.do(t, "POST", base+"/refunds", `{"charge":"canary","key":"k"}`), 404, "not_found")
	o.expect(t, 200, "POST", base+"/disable", ``, nil)
	o.expect(t, 200, "POST", base+"/enable", ``, nil)
	problemIn(t, o.do(t, "POST", "/v1/accounts/canary@example.test/disable", ""), 404, "not_found")
	problemIn(t, o.do(t, "DELETE", base+"/keys/canary%20key", ""), 404, "not_found")
	problemIn(t, o.do(t, "POST", "/v1/accounts", `{"name":""}`), 400, "invalid")
	o.expect(t, 200, "POST", "/v1/reload", "", nil)
	o.expect(t, 200, "POST", "/v1/vault/rotate", "", nil)
	o.do(t, "POST", "/v1/accounts", `{"name":"x"}`, "Authorization", "Bearer canary")
	o.do(t, "GET", "/v1/accounts", ``, "Origin", "https://canary.example")
	o.expect(t, 200, "POST", base+"/disable", ``, nil) // what came before it is written when this is

	actor := "token:" + o.config.Storage.Audit.Fingerprint(token)
	type brief struct{ action, subject, outcome, reason, detail string }
	key := "account=" + a.ID
	want := []brief{
		{"account.create", a.ID, "done", "", ""},
		{"key.create", k.ID, "done", "", key},
		{"key.change", k.ID, "done", "", key + " changed=cap.name"},
		{"key.change", k.ID, "done", "", key + " changed=nothing"},
		{"key.rotate", k.ID, "done", "", key},
		{"key.revoke", k.ID, "done", "", key},
		{"ledger.credit", a.ID, "done", "", "amount=12.50 entry=1"},
		{"ledger.credit", a.ID, "refused", "key_used", ""},
		{"ledger.refund", a.ID, "refused", "not_found", ""},
		{"account.disable", a.ID, "done", "", ""},
		{"account.enable", a.ID, "done", "", ""},
		{"account.disable", "unknown", "refused", "not_found", ""},
		{"key.revoke", "unknown", "refused", "not_found", key},
		{"account.create", "gateway", "refused", "invalid", ""},
		{"gateway.reload", "gateway", "done", "", "config=" + o.server.Status().Config[:12]},
		{"vault.rotate", "gateway", "done", "", ""},
		{"admin.deny", "gateway", "refused", "unauthorized", "count=1"},
		{"account.disable", a.ID, "done", "", ""},
	}
	got := o.actions(t)
	for i, e := range got {
		var detail []string
		for _, name := range []string{"account", "amount", "changed", "config", "count", "entry", "uid"} {
			if v, ok := e.Detail[name]; ok {
				detail = append(detail, name+"="+v)
			}
		}
		is := brief{e.Action, e.Subject, string(e.Outcome), e.Reason, strings.Join(detail, " ")}
		if i >= len(want) || is != want[i] {
			t.Errorf("%d: %+v, want %+v", i, is, want[min(i, len(want)-1)])
		}
		if by := actor; e.Actor != by && !(e.Action == "admin.deny" && e.Actor == "unknown") {
			t.Errorf("%d: by %s, want %s", i, e.Actor, by)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
	body := o.do(t, "GET", "/v1/audit?limit=1000", "").Body.String()
	for _, word := range []string{"canary", "Canary", "192.0.2.1", token, k.Secret} {
		if strings.Contains(body, word) {
			t.Errorf("the audit log holds %q", word)
		}
	}
	var proof AuditProof
	if o.expect(t, 200, "GET", "/v1/audit/verify", "", &proof); !proof.OK || proof.Begun != 0 || proof.Mark == "" {
		t.Errorf("%+v", proof)
	}
	o.expect(t, 200, "GET", "/v1/audit/verify?mark="+proof.Mark, "", &proof)
	if other := "9999" + proof.Mark[strings.Index(proof.Mark, ":"):]; true {
		if o.expect(t, 200, "GET", "/v1/audit/verify?mark="+other, "", &proof); proof.OK || len(proof.Problems) != 1 || proof.Problems[0].Kind != "mark" {
			t.Errorf("%+v", proof)
		}
	}
}

// Pages and filters of the list.
func TestAuditList(t *testing.T) {
	t.Parallel()
	o := operate(t)
	for i := range 25 {
		o.expect(t, 200, "POST", "/v1/accounts", `{"name":"a`+strconv.Itoa(i)+`"}`, nil)
	}
	var list []Action
	path := "/v1/audit?action=account.create&limit=10"
	for next := path; next != ""; {
		var page Actions
		o.expect(t, 200, "GET", next, "", &page)
		list = append(list, page.Entries...)
		if next = ""; page.Next != 0 {
			next = path + "&before=" + strconv.FormatUint(page.Next, 10)
		}
	}
	if len(list) != 25 {
		t.Errorf("%d entries", len(list))
	}
	var page Actions
	if o.expect(t, 200, "GET", "/v1/audit?subject="+list[3].Subject, "", &page); len(page.Entries) != 1 || page.Entries[0].Seq != list[3].Seq || len(page.Entries[0].Hash) != 64 {
		t.Errorf("%+v", page)
	}
	if o.expect(t, 200, "GET", "/v1/audit?actor=uid:7", "", &page); page.Entries == nil || len(page.Entries) != 0 {
		t.Errorf("%+v", page)
	}
	for _, q := range []string{"limit=0", "limit=1001", "limit=x", "before=-1", "from=yesterday", "to=x"} {
		problemIn(t, o.do(t, "GET", "/v1/audit?"+q, ""), 400, "invalid")
	}
	problemIn(t, o.do(t, "GET", "/v1/audit/verify?mark=7", ""), 400, "invalid")
}

// What can not be recorded is not done.
func TestAuditFailsClosed(t *testing.T) {
	t.Parallel()
	o := operate(t)
	var a Account
	o.expect(t, 200, "POST", "/v1/accounts", `{"name":"Acme"}`, &a)
	before := len(o.actions(t))
	o.reload = http.ErrAbortHandler // would be told if it were called
	o.store.broken.Store(true)
	for _, call := range []string{"POST /v1/reload", "POST /v1/accounts/" + a.ID + "/disable", "POST /v1/vault/rotate"} {
		method, path, _ := strings.Cut(call, " ")
		w := o.do(t, method, path, "")
		problemIn(t, w, 503, "unavailable")
		if w.Header().Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	o.store.broken.Store(false)
	if acc, err := o.server.Storage().Accounts.Get(t.Context(), a.ID); err != nil || acc.Status != "active" {
		t.Errorf("%+v, %v", acc, err)
	}
	if after := o.actions(t); len(after) != before {
		t.Errorf("%+v", after[before:])
	}
}

// An action that the gateway fails at is told as such, and one whose outcome can not be recorded is told after the next start.
func TestAuditOfFaults(t *testing.T) {
	t.Parallel()
	o := operate(t)
	call := o.recorded("account.create", func(r *http.Request) (any, error) { return nil, http.ErrBodyNotAllowed })
	if _, err := call(httptest.NewRequest("POST", "/v1/accounts", nil)); err == nil {
		t.Error("no error")
	}
	list := o.actions(t)
	if e := list[len(list)-1]; e.Outcome != audit.Failed || e.Reason != "internal" {
		t.Errorf("%+v", e)
	}
	call = o.recorded("account.create", func(r *http.Request) (any, error) {
		o.store.broken.Store(true)
		return nil, nil
	})
	if _, err := call(httptest.NewRequest("POST", "/v1/accounts", nil)); err != nil {
		t.Error(err)
	}
	o.store.broken.Store(false)
	var proof AuditProof
	if o.expect(t, 200, "GET", "/v1/audit/verify", "", &proof); !proof.OK || proof.Begun != 1 {
		t.Errorf("%+v", proof)
	}
}

// Callers who are not let in are told of, and can not fill the disk.
func TestAuditOfDenials(t *testing.T) {
	t.Parallel()
	o := operate(t)
	before := o.config.Storage.Audit.Head().Seq
	for range 500 {
		o.do(t, "GET", "/v1/accounts", "", "Authorization", "Bearer guess")
	}
	o.expect(t, 200, "POST", "/v1/accounts", `{"name":"Acme"}`, nil)      // what came before it is written when this is
	if n := o.config.Storage.Audit.Head().Seq - before; n < 2 || n > 20 { // one in ten seconds
		t.Errorf("%d entries", n)
	}
}

// Who called: a client certificate by its fingerprint, a token by its own, the command line by the system's user; what a caller
// says of itself is a detail.
func TestActor(t *testing.T) {
	t.Parallel()
	o := operate(t)
	r := httptest.NewRequest("POST", "/", nil)
	if by := o.actor(r); !strings.HasPrefix(by, "token:") || strings.Contains(by, token) {
		t.Error(by)
	}
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte("one")}}}
	if by := o.actor(r); !strings.HasPrefix(by, "certificate:") || len(by) != len("certificate:")+16 {
		t.Error(by)
	}
	local, err := New(Config{Token: "local", Actor: "uid:1000", Storage: o.server.Storage(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	client := local.Local()
	var a Account
	if err := client.Call(context.Background(), "POST", "/v1/accounts", map[string]string{"name": "Acme"}, &a); err != nil {
		t.Fatal(err)
	}
	o.do(t, "POST", "/v1/accounts/"+a.ID+"/disable", "", userHeader, "1001")
	o.do(t, "POST", "/v1/accounts/"+a.ID+"/enable", "", userHeader, "ann canary")
	list := o.actions(t)
	if len(list) != 3 || list[0].Actor != "uid:1000" || list[0].Detail["uid"] != "" || list[1].Detail["uid"] != "1001" || list[2].Detail["uid"] != "" {
		t.Errorf("%+v", list)
	}
}

// Whatever changes something is recorded: there is no other way to register a call than in one of the two lists.
func TestChanges(t *testing.T) {
	t.Parallel()
	o := operate(t)
	for pattern, c := range o.changes() {
		if strings.HasPrefix(pattern, "GET ") || c.action == "" {
			t.Errorf("%s: %s", pattern, c.action)
		}
		if _, err := o.config.Storage.Audit.Append(t.Context(), audit.Entry{Actor: "gateway", Action: c.action, Subject: "gateway", Outcome: audit.Done}); err != nil {
			t.Errorf("%s: %v", pattern, err)
		}
	}
	for _, call := range calls {
		method, path, _ := strings.Cut(call, " ")
		if method == http.MethodGet {
			continue
		}
		_, pattern := o.mux.Handler(httptest.NewRequest(method, path, nil))
		if _, ok := o.changes()[pattern]; !ok {
			t.Errorf("%s changes something and is not recorded", call)
		}
	}
}

package admin

import (
	"bytes"
	"encoding/base64"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/opendsr"
	"github.com/postern-gateway/postern/gateway/person"
	"github.com/postern-gateway/postern/gateway/rights"
)

// TestRights: an operator asks for somebody who wrote by another way, sees and answers requests, and gets receipts that the
// published key verifies; sweeps are reported.
func TestRights(t *testing.T) {
	t.Parallel()
	ctx, dir := t.Context(), t.TempDir()
	o := operateOn(t, dir, files+`
accounts {
  public = "http://localhost:8080/console"
  signup = open

  mail {
    from   = "Edge <no-reply@example.com>"
    outbox = "outbox"
  }

  passwords {
    memory = "8MiB"
    passes = 1
  }
}
`)
	people := o.server.Storage().People.People
	client := person.Client{Address: netip.MustParseAddr("192.0.2.1"), Agent: "test"}
	if err := people.SignUp(ctx, client, "ann@example.org", "en"); err != nil {
		t.Fatal(err)
	}
	var link [][]byte
	for until := time.Now().Add(30 * time.Second); link == nil && time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		list, err := filepath.Glob(filepath.Join(dir, "outbox", "*.eml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			letter, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			link = regexp.MustCompile(`token=3D([A-Za-z0-9_-]+)`).FindSubmatch(bytes.ReplaceAll(letter, []byte("=\r\n"), nil))
		}
	}
	if link == nil {
		t.Fatal("no mail")
	}
	in, err := people.Confirm(ctx, client, string(link[1]), person.Registration{Password: "correct horse battery"})
	if err != nil {
		t.Fatal(err)
	}
	for body, code := range map[string]string{
		`{}`: "invalid", `{"person":"p","email":"e@example.org","kind":"export"}`: "invalid", `{"person":"` + in.Session.Person + `","kind":"else"}`: "invalid",
		`{"person":"` + in.Session.Person + `","kind":"correction"}`: "invalid",
	} {
		problemIn(t, o.do(t, "POST", "/v1/rights", body), 400, code)
	}
	problemIn(t, o.do(t, "POST", "/v1/rights", `{"email":"nobody@example.org","kind":"export"}`), 404, "not_found")
	problemIn(t, o.do(t, "POST", "/v1/rights", `{"person":"pers_nobody","kind":"export"}`), 404, "not_found")
	problemIn(t, o.do(t, "GET", "/v1/rights/req_nothing", ""), 404, "not_found")
	problemIn(t, o.do(t, "POST", "/v1/rights/req_nothing/cancel", ""), 404, "not_found")
	problemIn(t, o.do(t, "POST", "/v1/rights/req_nothing/decide", `{"state":"refused","reason":"why"}`), 404, "not_found")
	problemIn(t, o.do(t, "GET", "/v1/rights?state=some", ""), 400, "invalid")

	var fix, drop Right
	o.expect(t, 200, "POST", "/v1/rights", `{"email":"Ann@example.org","kind":"correction","text":"the name"}`, &fix)
	o.expect(t, 200, "POST", "/v1/rights", `{"person":"`+in.Session.Person+`","kind":"deletion","outside":"letter-7"}`, &drop)
	problemIn(t, o.do(t, "POST", "/v1/rights", `{"email":"ann@example.org","kind":"deletion"}`), 409, "open")
	if fix.Text != "the name" || fix.State != rights.Pending || drop.Outside != "letter-7" || drop.Due.Sub(drop.Made) != 14*24*time.Hour {
		t.Errorf("%+v, %+v", fix, drop)
	}
	var page Rights
	if o.expect(t, 200, "GET", "/v1/rights", "", &page); len(page.Requests) != 2 {
		t.Errorf("%+v", page)
	}
	problemIn(t, o.do(t, "POST", "/v1/rights/"+fix.ID+"/decide", `{"state":"refused"}`), 400, "invalid")
	o.expect(t, 200, "POST", "/v1/rights/"+fix.ID+"/decide", `{"state":"completed"}`, &fix)
	o.expect(t, 200, "POST", "/v1/rights/"+drop.ID+"/cancel", "", &drop)
	problemIn(t, o.do(t, "POST", "/v1/rights/"+drop.ID+"/cancel", ""), 409, "over")
	var key rights.Key
	o.expect(t, 200, "GET", "/v1/rights/key", "", &key)
	for _, q := range []Right{fix, drop} {
		if c, err := rights.Verify(key, q.Receipt); err != nil || c.Request != q.ID || c.State != q.State {
			t.Errorf("%+v, %v", c, err)
		}
	}
	page = Rights{}
	if o.expect(t, 200, "GET", "/v1/rights", "", &page); len(page.Requests) != 0 {
		t.Errorf("still open: %+v", page)
	}
	if o.expect(t, 200, "GET", "/v1/rights?state=all", "", &page); len(page.Requests) != 2 {
		t.Errorf("%+v", page)
	}
	const id = "a7551968-d5d6-44b2-9831-815ac9017798"
	dsr := func(edit ...string) string {
		return strings.NewReplacer(edit...).Replace(`{"regulation":"gdpr","subject_request_id":"` + id + `","subject_request_type":"erasure","submitted_time":"2026-11-24T15:00:00Z",
			"subject_identities":[{"identity_type":"email","identity_value":"ann@example.org","identity_format":"raw"}],"api_version":"2.0"}`)
	}
	for name, body := range map[string]string{
		"regulation": dsr("gdpr", "lgpd"), "id": dsr(id, "7"), "id in capitals": dsr(id, strings.ToUpper(id)), "kind": dsr("erasure", "else"), "time": dsr("2026-11-24T", "yesterday"),
		"format": dsr("raw", "sha256"), "identity": dsr(`"email"`, `"ios_vendor_id"`), "nobody named": dsr(`{"identity_type":"email","identity_value":"ann@example.org","identity_format":"raw"}`, ""),
		"callback":   dsr(`"api_version":"2.0"`, `"status_callback_urls":["https://elsewhere.example"]`),
		"two people": dsr(`[{`, `[{"identity_type":"controller_customer_id","identity_value":"pers_other","identity_format":"raw"},{`),
	} {
		if w := o.do(t, "POST", "/v1/opendsr/requests", body); w.Code != 400 {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	for _, address := range []string{"nobody@example.org", "no address", "@", strings.Repeat("x", 1000) + "@example.org"} {
		problemIn(t, o.do(t, "POST", "/v1/opendsr/requests", dsr("ann@example.org", address)), 404, "not_found")
		problemIn(t, o.do(t, "POST", "/v1/rights", `{"kind":"export","email":"`+address+`"}`), 404, "not_found")
	}
	var known opendsr.Discovery
	if o.expect(t, 200, "GET", "/v1/opendsr/discovery", "", &known); known.Version != "2.0" || len(known.Types) != 3 {
		t.Errorf("%+v", known)
	}
	problemIn(t, o.do(t, "GET", "/v1/opendsr/requests/"+id, ""), 404, "not_found")
	var received opendsr.Received
	o.expect(t, 201, "POST", "/v1/opendsr/requests", dsr(), &received)
	if sent, err := base64.StdEncoding.DecodeString(received.EncodedRequest); err != nil || string(sent) != dsr() || received.ID != id || received.Expected.Sub(received.Received) != 14*24*time.Hour {
		t.Errorf("%+v, %v", received, err)
	}
	problemIn(t, o.do(t, "POST", "/v1/opendsr/requests", dsr()), 409, "open")
	var status opendsr.Status
	if o.expect(t, 200, "GET", "/v1/opendsr/requests/"+id, "", &status); status.Status != "pending" || status.ID != id {
		t.Errorf("%+v", status)
	}
	if c, err := rights.Verify(key, status.Receipt); err != nil || c.Kind != rights.Deletion {
		t.Errorf("%+v, %v", c, err)
	}
	if o.expect(t, 200, "DELETE", "/v1/opendsr/requests/"+id, "", &status); status.Status != "cancelled" {
		t.Errorf("%+v", status)
	}
	problemIn(t, o.do(t, "DELETE", "/v1/opendsr/requests/"+id, ""), 409, "over")
	var swept, last rights.Swept
	o.expect(t, 200, "POST", "/v1/retention/sweep", "", &swept)
	if o.expect(t, 200, "GET", "/v1/retention", "", &last); last.Time.IsZero() || last.Time.Before(swept.Time) {
		t.Errorf("%+v after %+v", last, swept)
	}
}

// Without people there are no requests.
func TestRightsWithoutPeople(t *testing.T) {
	t.Parallel()
	o := operate(t)
	for _, call := range []string{"/v1/rights", "/v1/rights/key", "/v1/rights/req_x", "/v1/retention"} {
		problemIn(t, o.do(t, "GET", call, ""), 409, "no_accounts")
	}
}

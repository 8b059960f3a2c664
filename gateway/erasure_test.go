package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/examples/sandbox/sandbox"
	"github.com/postern-gateway/postern/gateway/account"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/person"
	"github.com/postern-gateway/postern/gateway/person/team"
	"github.com/postern-gateway/postern/gateway/rights"
)

const withPeople = `
accounts {
  public   = "http://localhost:8080/console"
  signup   = open
  deletion = "0s"

  mail {
    from   = "Edge <no-reply@example.com>"
    outbox = "outbox"
  }

  passwords {
    memory = "8MiB"
    passes = 1
  }
}
`

// mailed waits for a message with a link to a page, and returns the link's token.
func mailed(t *testing.T, dir, page string) string {
	t.Helper()
	link := regexp.MustCompile(regexp.QuoteMeta(page) + `\?token=3D([A-Za-z0-9_-]+)`)
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		files, err := filepath.Glob(filepath.Join(dir, "outbox", "*.eml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if found := link.FindSubmatch(bytes.ReplaceAll(text, []byte("=\r\n"), nil)); found != nil { // quoted-printable
				return string(found[1])
			}
		}
	}
	t.Fatalf("no mail leads to %s", page)
	return ""
}

// TestErasure plants strings in everything that a person can fill in, say to a model, or be answered, deletes the person, and
// looks for them in every file of the gateway, in a backup made afterwards and in what its commands print. The mail that was
// sent is elsewhere by then, so the outbox is left out.
func TestErasure(t *testing.T) {
	t.Parallel()
	provider := httptest.NewServer(sandbox.Handler(sandbox.Config{}))
	t.Cleanup(provider.Close)
	dir := example(t, "creations", "http://127.0.0.1:9001", provider.URL)
	config, err := os.ReadFile(filepath.Join(dir, "config.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.hcl"), append(config, withPeople...), 0o600); err != nil {
		t.Fatal(err)
	}
	n := startIn(t, dir)
	ctx, st := t.Context(), n.Storage()
	people := st.People.People
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	client := person.Client{Address: netip.MustParseAddr("203.0.113.77"), Agent: "canary-agent"}
	must(people.SignUp(ctx, client, "canary-address@example.org", "en"))
	in, err := people.Confirm(ctx, client, mailed(t, dir, person.ConfirmPath), person.Registration{Name: "canary-person", Password: "canary-password horse", Policy: "2026-1"})
	must(err)
	who := in.Session.Person
	parts, err := people.Teams().Memberships(ctx, who)
	if err != nil || len(parts) != 1 {
		t.Fatalf("%+v, %v", parts, err)
	}
	of := parts[0].Account
	must(people.SetProfile(ctx, in.Session, "canary-renamed", "zh"))
	_, err = people.Teams().Invite(ctx, who, of, "canary-guest@example.org", team.Member)
	must(err)
	amount, err := exchange.ParseAmount("5")
	must(err)
	_, err = st.Ledger.Credit(ctx, of, amount, "first", "")
	must(err)
	key, secret, err := st.Accounts.CreateKey(ctx, of, account.KeyRequest{Name: "canary-key", Scopes: []string{"models:call", "canary-scope"}, Allowance: exchange.Allowance{Routes: []string{"chat", "canary-route"}}})
	must(err)
	_, err = st.Accounts.ChangeKey(ctx, of, key.ID, func(r *account.KeyRequest) { r.Name = "canary-key-renamed" })
	must(err)
	c := n.client(t, "http1")
	ask := func() int {
		t.Helper()
		resp, _ := n.post(t, c, "/v1/chat/completions", secret, `{"model":"small","user":"canary-user","messages":[{"role":"system","content":"canary-system"},{"role":"user","content":"canary-prompt"}]}`)
		return resp.StatusCode
	}
	if got := ask(); got != 200 {
		t.Fatal(got)
	}
	if got := n.creations(t, of); len(got) != 1 || !strings.Contains(got[0], "canary-prompt") {
		t.Fatalf("%q", got)
	}
	n.calls(t, of, 1)
	_, err = st.Rights.Ask(ctx, who, rights.Correction, "canary-correction", "canary-outside")
	must(err)
	copied, err := st.Rights.Ask(ctx, who, rights.Export, "", "")
	must(err)
	must(st.Rights.Work(ctx))
	if q, err := st.Rights.Get(ctx, who, copied.ID); err != nil || q.State != rights.Completed {
		t.Fatalf("%+v, %v", q, err)
	}

	done, err := st.Rights.Ask(ctx, who, rights.Deletion, "", "")
	must(err)
	must(st.Rights.Work(ctx))
	if q, err := st.Rights.Find(ctx, done.ID); err != nil || q.State != rights.Completed {
		t.Fatalf("%+v, %v", q, err)
	}
	if got := ask(); got != 401 {
		t.Errorf("the key still calls: %d", got)
	}
	if got := n.creations(t, of); len(got) != 0 {
		t.Errorf("creations: %q", got)
	}
	n.calls(t, of, 0)
	var backup bytes.Buffer
	must(st.Store.Backup(ctx, &backup))
	must(st.Vault.Export(ctx, &backup))
	n.stop()

	places := map[string][]byte{"a backup": backup.Bytes()}
	for _, args := range [][]string{{"ledger", "verify"}, {"audit", "verify"}, {"usage", "verify"}, {"audit", "list"}, {"account", "list"}} {
		code, out, errs := command(t, "", append(args, "--dir", dir)...)
		if code != 0 {
			t.Errorf("%v: %d %s%s", args, code, out, errs)
		}
		places[fmt.Sprint(args)] = []byte(out + errs)
	}
	must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || slices.Contains(strings.Split(path, string(filepath.Separator)), "outbox") {
			return err
		}
		places[path], err = os.ReadFile(path)
		return err
	}))
	if len(places) < 10 {
		t.Errorf("only %d places were looked at", len(places))
	}
	for place, octets := range places {
		for _, canary := range []string{"canary", "203.0.113", secret} {
			if i := bytes.Index(octets, []byte(canary)); i >= 0 {
				t.Errorf("%s: %q", place, octets[max(0, i-20):min(len(octets), i+60)])
			}
		}
	}
}

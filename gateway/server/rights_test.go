package server

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/account"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/person"
	"github.com/postern-gateway/postern/gateway/rights"
)

// TestRights: a person who signed up gets a copy of everything, asks for deletion, and is then nowhere: not in the store, not
// in its files, not in a backup. Their key is dead, and the ledger and the audit log still add up.
func TestRights(t *testing.T) {
	t.Parallel()
	ctx, dir := t.Context(), t.TempDir()
	text := plain + strings.Replace(withPeople, "signup = open", "signup = open\n  deletion = \"0s\"", 1)
	s := serve(t, load(t, dir, text), io.Discard)
	st := s.Storage()
	people := st.People.People
	client := person.Client{Address: netip.MustParseAddr("192.0.2.77"), Agent: "canary-agent"}
	if err := people.SignUp(ctx, client, "canary-address@example.org", "en"); err != nil {
		t.Fatal(err)
	}
	in, err := people.Confirm(ctx, client, links(t, dir, 1)[0], person.Registration{Name: "canary-name", Password: "correct horse battery", Policy: "2026-12"})
	if err != nil {
		t.Fatal(err)
	}
	who := in.Session.Person
	parts, err := people.Teams().Memberships(ctx, who)
	if err != nil || len(parts) != 1 {
		t.Fatalf("%+v, %v", parts, err)
	}
	of := parts[0].Account
	key, secret, err := st.Accounts.CreateKey(ctx, of, account.KeyRequest{Name: "canary-key", Scopes: []string{"canary-scope"}, Allowance: exchange.Allowance{Models: []string{"canary-model"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Ledger.Credit(ctx, of, exchange.Pico(5e12), "first", ""); err != nil {
		t.Fatal(err)
	}

	export, err := st.Rights.Ask(ctx, who, rights.Export, "", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Rights.Work(ctx); err != nil {
		t.Fatal(err)
	}
	a, err := st.Rights.Archive(ctx, who, export.ID)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(a)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(&all, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"canary-address@example.org", "canary-name", "canary-key", "canary-scope", "canary-model", "canary-agent", "192.0.2", key.ID, `"kind":"entry"`, "2026-12"} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("the copy lacks %s", want)
		}
	}
	if strings.Contains(all.String(), secret) || strings.Contains(all.String(), "argon2id$") {
		t.Error("the copy has secrets")
	}

	if _, err := st.Rights.Ask(ctx, who, rights.Deletion, "", ""); err != nil {
		t.Fatal(err)
	}
	if err := st.Rights.Work(ctx); err != nil {
		t.Fatal(err)
	}
	list, err := st.Rights.All(ctx, false, "", 10)
	if err != nil || len(list) != 1 || list[0].State != rights.Completed || list[0].Person != "" {
		t.Fatalf("%+v, %v", list, err)
	}
	if _, err := people.Session(ctx, in.Token); err == nil {
		t.Error("the session is still there")
	}
	if _, err := people.SignIn(ctx, client, "canary-address@example.org", "correct horse battery"); !errors.Is(err, person.ErrCredentials) {
		t.Errorf("signing in: %v", err)
	}
	if _, err := st.Accounts.Lookup(ctx, []byte(secret)); !errors.Is(err, account.ErrUnknown) {
		t.Errorf("the key: %v", err)
	}
	if v, err := st.Ledger.Verify(ctx); err != nil || !v.OK() {
		t.Errorf("the ledger: %+v, %v", v, err)
	}
	if v, err := st.Audit.Verify(ctx, st.Audit.Head()); err != nil || !v.OK() {
		t.Errorf("the audit log: %+v, %v", v, err)
	}
	links(t, dir, 3) // the mail about the copy, and the last one, which leaves the queue then
	var backup bytes.Buffer
	if err := st.Store.Backup(ctx, &backup); err != nil {
		t.Fatal(err)
	}
	canaries := []string{"canary", "192.0.2."}
	for _, c := range canaries {
		if strings.Contains(backup.String(), c) {
			t.Errorf("%s is in a backup", c)
		}
	}
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || slices.Contains(strings.Split(path, string(filepath.Separator)), "outbox") { // which stands for the mail server
			return err
		}
		octets, err := os.ReadFile(path)
		for _, c := range canaries {
			if bytes.Contains(octets, []byte(c)) {
				t.Errorf("%s is in %s", c, path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

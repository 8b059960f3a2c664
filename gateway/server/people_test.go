package server

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/account"
	"github.com/postern-gateway/postern/gateway/audit"
	"github.com/postern-gateway/postern/gateway/ledger"
	"github.com/postern-gateway/postern/gateway/person"
)

const withPeople = `
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

privacy {
  version   = "2026-12"
  effective = "2026-01-01"
  contact   = "privacy@example.com"
}
`

// links are the tokens of the links that were mailed, the oldest first, when there are so many.
func links(t *testing.T, dir string, n int) []string {
	t.Helper()
	token := regexp.MustCompile(`token=3D([A-Za-z0-9_-]+)`)
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		files, err := filepath.Glob(filepath.Join(dir, "outbox", "*.eml"))
		if err != nil {
			t.Fatal(err)
		}
		if len(files) < n {
			if time.Now().After(until) {
				t.Fatalf("%d messages", len(files))
			}
			continue
		}
		var list []string
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if found := token.FindSubmatch(bytes.ReplaceAll(text, []byte("=\r\n"), nil)); found != nil { // quoted-printable
				list = append(list, string(found[1]))
			}
		}
		return list
	}
}

// TestPeople: with an accounts block somebody signs up by mail, has an account in the ledger, is there after a restart, and
// leaves nothing when they are removed.
func TestPeople(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := plain + withPeople
	s := serve(t, load(t, dir, text), io.Discard)
	ctx := t.Context()
	people := s.Storage().People.People
	client := person.Client{Address: netip.MustParseAddr("192.0.2.1"), Agent: "test"}
	if err := people.SignUp(ctx, client, "canary@example.org", "en"); err != nil {
		t.Fatal(err)
	}
	reg := person.Registration{Password: "correct horse battery", Policy: "2026-11"}
	link := links(t, dir, 1)[0]
	if _, err := people.Confirm(ctx, client, link, reg); !errors.Is(err, person.ErrPolicy) {
		t.Fatalf("a version that is not in force: %v", err)
	}
	reg.Policy = "2026-12"
	in, err := people.Confirm(ctx, client, link, reg)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := people.Teams().Memberships(ctx, in.Session.Person)
	if err != nil || len(parts) != 1 {
		t.Fatalf("%+v, %v", parts, err)
	}
	if b, err := s.Storage().Ledger.Balance(ctx, parts[0].Account); err != nil {
		t.Errorf("%+v, %v", b, err)
	}
	if a, err := s.Storage().Accounts.Get(ctx, parts[0].Account); err != nil || a.Name != person.OwnAccount {
		t.Errorf("%+v, %v", a, err)
	}

	err = s.Apply(ctx, load(t, dir, strings.Replace(text, "signup = open", "signup = closed", 1)))
	if err == nil || !strings.Contains(err.Error(), "accounts block") || !strings.Contains(err.Error(), "restart") {
		t.Errorf("another accounts block: %v", err)
	}
	if err := s.Apply(ctx, load(t, dir, strings.NewReplacer(`"2026-12"`, `"2026-13"`, `"2026-01-01"`, `"2026-02-01"`).Replace(text))); err != nil {
		t.Fatal(err)
	}
	if p, err := people.Get(ctx, in.Session.Person); err != nil || !people.MustAccept(p) {
		t.Errorf("another policy is not asked for: %+v, %v", p.Accepted, err)
	}
	for _, address := range []string{"canary@example.org", "nobody@example.org", "canary@example.org"} {
		if _, err := people.SignIn(ctx, client, address, "not this one"); !errors.Is(err, person.ErrCredentials) {
			t.Error(err)
		}
	}
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}

	s = serve(t, load(t, dir, strings.Replace(text, "signup = open", "signup = closed", 1)), io.Discard)
	people = s.Storage().People.People
	if _, err := people.Session(ctx, in.Token); err != nil {
		t.Errorf("the session after a restart: %v", err)
	}
	if err := people.SignUp(ctx, client, "bob@example.org", "en"); !errors.Is(err, person.ErrSignup) {
		t.Errorf("signing up where that is closed: %v", err)
	}
	orphans, err := people.Remove(ctx, in.Session.Person)
	if err != nil || len(orphans) != 1 {
		t.Fatalf("%v, %v", orphans, err)
	}
	if a, err := s.Storage().Accounts.Get(ctx, parts[0].Account); err != nil || a.Status != account.Closed {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := s.Storage().Ledger.Balance(ctx, parts[0].Account); errors.Is(err, ledger.ErrAccount) {
		t.Error("the account's books are gone")
	}
	// All of it is in the audit log, under ids that stay when the person goes.
	log := s.Storage().Audit
	for action, want := range map[string]string{"person.signup": "done 2 true", "person.signin": "refused 3 false", "person.remove": "done 1 false"} {
		p, err := log.List(ctx, audit.Filter{Action: action})
		if err != nil || len(p.Entries) == 0 {
			t.Fatal(action, err)
		}
		total, known := 0, false
		for _, e := range p.Entries {
			n, err := strconv.Atoi(cmp.Or(e.Detail["count"], "1"))
			if err != nil {
				t.Error(err)
			}
			total, known = total+n, known || e.Actor == in.Session.Person
		}
		if got := fmt.Sprint(p.Entries[0].Outcome, " ", total, " ", known); got != want {
			t.Errorf("%s: %s, want %s", action, got, want)
		}
	}
	if r, err := log.Verify(ctx, audit.Mark{}); err != nil || !r.OK() {
		t.Errorf("%+v, %v", r, err)
	}
	if gone, err := s.Storage().Vault.Shredded(ctx, in.Session.Person); err != nil || !gone {
		t.Errorf("the key is there: %v", err)
	}
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	// Nor does any file of the store, which never had the address in the clear.
	err = filepath.WalkDir(filepath.Join(dir, "data"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		all, err := os.ReadFile(path)
		if bytes.Contains(all, []byte("canary")) {
			t.Errorf("%s names the address", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

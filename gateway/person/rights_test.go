package person

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/person/team"
)

// TestExport: everything of a person, and no secret.
func TestExport(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		ann := w.join("ann@example.org")
		w.must(w.SetConsent(ctx, ann.Session, Training, true))
		secret, _ := w.addTOTP(ann.Session)
		w.addPasskey(ann.Session, newKey(t))
		w.invite(ann.Session, w.account(ann.Session.Person), "bob@example.org", team.Member)
		var kinds []string
		var all bytes.Buffer
		for item, err := range w.Export(ctx, ann.Session.Person) {
			w.must(err)
			kinds = append(kinds, item.Class+" "+item.Kind)
			w.must(json.NewEncoder(&all).Encode(item))
		}
		if want := []string{"account person", "account membership", "account invitation", "security session", "device device", "security passkey", "security authenticator"}; !slices.Equal(kinds, want) {
			t.Errorf("%q", kinds)
		}
		for _, want := range []string{"ann@example.org", "2026-11", "training", "192.0.2.0/24", "Browser/1.0", "laptop", "owner"} {
			if !strings.Contains(all.String(), want) {
				t.Errorf("%s is missing in %s", want, all.String())
			}
		}
		p, err := w.get(ctx, ann.Session.Person)
		w.must(err)
		for _, bad := range []string{p.Hash, secret, ann.Token, "argon2id", "bob@example.org"} {
			if strings.Contains(all.String(), bad) {
				t.Errorf("%s is in it", bad)
			}
		}
		for item, err := range w.Export(ctx, "pers_nobody") {
			w.is(err, ErrNotFound, "nobody")
			if item != (Item{}) {
				t.Errorf("%+v", item)
			}
		}
	})
}

// TestRemove: nothing of a removed person is left in the store but what is sealed under a key that is gone; of others,
// everything is.
func TestRemove(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		ann, bob := w.join("canary1@example.org"), w.join("bob@example.org")
		id := ann.Session.Person
		mine, theirs := w.account(id), w.account(bob.Session.Person)
		w.must(w.SetProfile(ctx, ann.Session, "canary2", "en"))
		in, err := w.SignIn(ctx, Client{Address: home.Address, Agent: "canary3"}, "canary1@example.org", good)
		w.must(err)
		w.addTOTP(ann.Session)
		pending, err := w.SignIn(ctx, home, "canary1@example.org", good)
		w.must(err)
		_, err = w.Accept(ctx, ann.Session, w.invite(bob.Session, theirs, "canary1@example.org", team.Member).token)
		w.must(err)
		asked := w.invite(bob.Session, theirs, "canary1@example.org", team.Admin) // one that is open
		sent := w.invite(ann.Session, mine, "canary4@example.org", team.Member)
		w.must(w.RequestReset(ctx, home, "canary1@example.org", "en"))
		reset := w.one("canary1@example.org", ResetPath)
		_, err = w.Accept(ctx, bob.Session, w.invite(ann.Session, mine, "bob@example.org", team.Admin).token)
		w.must(err)
		_, err = w.Remove(ctx, id)
		w.is(err, ErrLastOwner, "with a member who would be left")
		if _, err := w.Session(ctx, in.Token); err != nil {
			t.Errorf("refused, and half done: %v", err)
		}
		w.must(w.Teams().RemoveMember(ctx, id, mine, bob.Session.Person))
		w.stuck.Store(true) // what is asked for now stays in the queue
		w.must(w.RequestReset(ctx, from(1), "canary1@example.org", "en"))
		w.must(w.SignOutEverywhere(ctx, in.Session, true))
		w.must(w.SetStatus(ctx, id, Active))
		if len(w.c.Mail.List()) == 0 {
			t.Fatal("nothing waits")
		}

		orphans, err := w.Remove(ctx, id)
		if err != nil || !slices.Equal(orphans, []string{mine}) || !slices.Equal(w.books.closed, []string{mine}) {
			t.Errorf("left %v, closed %v, %v", orphans, w.books.closed, err)
		}
		for what, err := range map[string]error{
			"a session": second(w.Session(ctx, in.Token)), "a sign-in": second(w.SignIn(ctx, home, "canary1@example.org", good)),
			"one that waits": second(w.Prove(ctx, home, pending.Pending, Proof{Code: "000000"})), "a link": w.Reset(ctx, reset.token, better),
			"an invitation of theirs": second(w.Teams().Invited(ctx, sent.token)), "one to them": second(w.Teams().Invited(ctx, asked.token)),
			"the person": second(w.Get(ctx, id)), "a removal": second(w.Remove(ctx, id)),
		} {
			if err == nil {
				t.Errorf("%s holds", what)
			}
		}
		if list := w.c.Mail.List(); len(list) != 0 {
			t.Errorf("letters wait: %+v", list)
		}
		for e, err := range w.store.Scan(ctx, nil, nil) {
			w.must(err)
			if all := string(e.Key) + string(e.Value); strings.Contains(all, "canary") || strings.Contains(all, id) {
				t.Errorf("left: %s %s", e.Key, e.Value)
			}
		}
		if !w.keys.gone[id] || w.keys.live[id] != nil {
			t.Error("the key is there")
		}
		if _, err := w.SignIn(ctx, home, "bob@example.org", good); err != nil {
			t.Errorf("somebody else: %v", err)
		}
	})
}

// second is the error of a call that gives something else besides.
func second[T any](_ T, err error) error { return err }

// TestRemoveAfterACrash: a removal that was cut short is completed at the next start.
func TestRemoveAfterACrash(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		ann := w.join("ann@example.org")
		mine := w.account(ann.Session.Person)
		w.keys.stuck = true
		if _, err := w.Remove(ctx, ann.Session.Person); err == nil {
			t.Fatal("removed, and the key is there")
		}
		_, err := w.Session(ctx, ann.Token)
		w.is(err, ErrSession, "a session of who is half removed")
		w.must(w.Directory.Close())
		w.keys.stuck = false
		w.books.closed = nil
		w.open(nil)
		if !w.keys.gone[ann.Session.Person] || !slices.Equal(w.books.closed, []string{mine}) {
			t.Errorf("the key is there, or its account is open: %v", w.books.closed)
		}
		for e, err := range w.store.Scan(ctx, []byte("person/x/"), nil) {
			w.must(err)
			t.Errorf("left: %s", e.Key)
		}
		w.join("ann@example.org") // the address is free
	})
}

// TestRemoveAgain: a removal that failed half-way is completed by the next call, and only then is there nobody.
func TestRemoveAgain(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		ann := w.join("ann@example.org")
		id := ann.Session.Person
		mine := w.account(id)
		w.keys.stuck = true
		for range 2 {
			if _, err := w.Remove(ctx, id); err == nil || errors.Is(err, ErrNotFound) {
				t.Fatalf("removed, and the key is there: %v", err)
			}
		}
		w.keys.stuck = false
		if orphans, err := w.Remove(ctx, id); err != nil || !slices.Equal(orphans, []string{mine}) || !w.keys.gone[id] {
			t.Errorf("left %v, %v", orphans, err)
		}
		_, err := w.Remove(ctx, id)
		w.is(err, ErrNotFound, "once more")
	})
}

package person

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/person/settings"
	"github.com/postern-gateway/postern/gateway/person/team"
)

// invite sends an invitation and returns what was mailed.
func (w *world) invite(by Session, account, email string, role team.Role) letter {
	w.t.Helper()
	w.letters()
	time.Sleep(time.Second) // members are in the order in which they came, to the second
	_, err := w.Teams().Invite(w.t.Context(), by.Person, account, email, role)
	w.must(err)
	return w.one(email, team.InvitationPath+"?token=")
}

// member makes somebody new who takes part in an account.
func (w *world) member(by Session, account, email string, role team.Role) SignedIn {
	w.t.Helper()
	in, err := w.Join(w.t.Context(), home, w.invite(by, account, email, role).token, Registration{Name: "M", Password: good, Policy: w.policy})
	w.must(err)
	return in
}

// TestRoles: every role may do what the table says, and the table says what people expect.
func TestRoles(t *testing.T) {
	t.Parallel()
	all := []team.Action{team.SeeUsage, team.SeeBilling, team.SeeMembers, team.SeeAudit, team.ManageKeys, team.ManageContent, team.Pay, team.ManageMembers, team.ManageOwners, team.EndAccount}
	for role, want := range map[team.Role]string{
		team.Owner: "++++++++++", team.Admin: "++++++++--", team.Member: "+-+-++----", team.Auditor: "++++------", "": "----------", "root": "----------",
	} {
		got := ""
		for _, a := range all {
			if role.Allows(a) {
				got += "+"
			} else {
				got += "-"
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", role, got, want)
		}
		if role.Allows("anything") {
			t.Errorf("%s may do anything", role)
		}
	}
}

func TestInvitations(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		ann, bob := w.join("ann@example.org"), w.join("bob@example.org")
		account := w.account(ann.Session.Person)
		w.books.names[account] = "Lab\r\nBcc: x@example.com"
		l := w.invite(ann.Session, account, "carl@example.org", team.Member)
		if l.subject != "You are invited to Lab Bcc: x@example. com at Edge" {
			t.Errorf("subject %q", l.subject)
		}
		inv, err := w.Teams().Invited(ctx, l.token)
		if err != nil || inv.Role != team.Member || inv.Email != "carl@example.org" || inv.Known {
			t.Errorf("%+v, %v", inv, err)
		}
		_, err = w.Accept(ctx, bob.Session, l.token)
		w.is(err, ErrForbidden, "somebody whom it was not sent to")
		carl, err := w.Join(ctx, home, l.token, Registration{Name: "Carl", Password: good, Policy: w.policy})
		w.must(err)
		if m, err := w.Teams().Part(ctx, account, carl.Session.Person); err != nil || m.Role != team.Member {
			t.Errorf("%+v, %v", m, err)
		}
		_, err = w.Join(ctx, home, l.token, Registration{Name: "Carl", Password: good, Policy: w.policy})
		w.is(err, ErrToken, "twice")

		l = w.invite(ann.Session, account, "bob@example.org", team.Auditor)
		if inv, err = w.Teams().Invited(ctx, l.token); err != nil || !inv.Known {
			t.Errorf("%+v, %v", inv, err)
		}
		_, err = w.Join(ctx, home, l.token, Registration{Password: good, Policy: w.policy})
		w.is(err, ErrTaken, "by who is a person already")
		m, err := w.Accept(ctx, bob.Session, l.token)
		if err != nil || m.Role != team.Auditor {
			t.Errorf("%+v, %v", m, err)
		}
		list, err := w.Teams().Members(ctx, bob.Session.Person, account)
		if err != nil || len(list) != 3 || list[0].Email != "ann@example.org" || list[2].Role != team.Auditor {
			t.Errorf("%+v, %v", list, err)
		}
		// Who is a member stays what they are: an invitation takes nothing away.
		l = w.invite(ann.Session, account, "ann@example.org", team.Auditor)
		if m, err = w.Accept(ctx, ann.Session, l.token); err != nil || m.Role != team.Owner {
			t.Errorf("%+v, %v", m, err)
		}

		// Rights of who invites, at the time and later.
		admin := w.member(ann.Session, account, "admin@example.org", team.Admin)
		for who, s := range map[string]Session{"a member": carl.Session, "an auditor": bob.Session} {
			_, err = w.Teams().Invite(ctx, s.Person, account, "x@example.org", team.Member)
			w.is(err, ErrForbidden, who)
		}
		_, err = w.Teams().Invite(ctx, admin.Session.Person, account, "x@example.org", team.Owner)
		w.is(err, ErrForbidden, "an admin who makes an owner")
		_, err = w.Teams().Invite(ctx, ann.Session.Person, account, "x@example.org", "root")
		w.is(err, ErrInvalid, "a role that there is not")
		_, err = w.Teams().Invite(ctx, ann.Session.Person, w.account(w.join("eve@example.org").Session.Person), "x@example.org", team.Member)
		w.is(err, ErrNotFound, "to somebody else's account")
		l = w.invite(admin.Session, account, "dan@example.org", team.Admin)
		w.must(w.Teams().SetRole(ctx, ann.Session.Person, account, admin.Session.Person, team.Member))
		_, err = w.Teams().Invited(ctx, l.token)
		w.is(err, ErrToken, "from who is no admin any more")

		// Taken back, and taken over by another.
		first := w.invite(ann.Session, account, "fay@example.org", team.Member)
		second := w.invite(ann.Session, account, "fay@example.org", team.Admin)
		_, err = w.Teams().Invited(ctx, first.token)
		w.is(err, ErrToken, "one that another took the place of")
		open, err := w.Teams().Invitations(ctx, ann.Session.Person, account)
		w.must(err)
		if len(open) != 2 || open[1].Email != "fay@example.org" || open[1].Role != team.Admin {
			t.Errorf("open: %+v", open)
		}
		w.is(w.Teams().Withdraw(ctx, carl.Session.Person, account, open[1].ID), ErrForbidden, "by a member")
		w.must(w.Teams().Withdraw(ctx, ann.Session.Person, account, open[1].ID))
		_, err = w.Teams().Invited(ctx, second.token)
		w.is(err, ErrToken, "one that was taken back")
		l = w.invite(ann.Session, account, "gil@example.org", team.Member)
		time.Sleep(7 * 24 * time.Hour)
		_, err = w.Teams().Invited(ctx, l.token)
		w.is(err, ErrToken, "one that is a week old")
	})
}

// TestInvitedSignUp: with sign-up by invitation alone, or closed.
func TestInvitedSignUp(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		ann := w.join("ann@example.org")
		account := w.account(ann.Session.Person)
		w.must(w.Directory.Close())
		w.open(func(s *settings.Settings) { s.Signup = settings.Invited })
		bob := w.member(ann.Session, account, "bob@example.org", team.Member)
		_, err := w.Teams().CreateAccount(ctx, bob.Session.Person, "Mine")
		w.is(err, ErrSignup, "another account")
		l := w.invite(ann.Session, account, "carl@example.org", team.Member)
		w.must(w.Directory.Close())
		w.open(func(s *settings.Settings) { s.Signup = settings.Closed })
		_, err = w.Join(ctx, home, l.token, Registration{Password: good, Policy: w.policy})
		w.is(err, ErrSignup, "closed")
	})
}

// TestMembers: who may change and remove whom, and that an owner is left.
func TestMembers(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		ann := w.join("ann@example.org").Session
		account := w.account(ann.Person)
		admin := w.member(ann, account, "admin@example.org", team.Admin).Session
		bob := w.member(ann, account, "bob@example.org", team.Member).Session
		eve := w.join("eve@example.org").Session
		tm := w.Teams()
		w.is(tm.SetRole(ctx, bob.Person, account, bob.Person, team.Owner), ErrForbidden, "a member who makes themselves an owner")
		w.is(tm.SetRole(ctx, admin.Person, account, admin.Person, team.Owner), ErrForbidden, "an admin who does")
		w.is(tm.SetRole(ctx, admin.Person, account, ann.Person, team.Member), ErrForbidden, "an admin who unmakes an owner")
		w.is(tm.RemoveMember(ctx, admin.Person, account, ann.Person), ErrForbidden, "an admin who removes an owner")
		w.is(tm.SetRole(ctx, ann.Person, account, bob.Person, ""), ErrInvalid, "no role")
		w.is(tm.SetRole(ctx, bob.Person, account, bob.Person, ""), ErrInvalid, "no role, by oneself")
		w.is(tm.SetRole(ctx, ann.Person, account, bob.Person, "root"), ErrInvalid, "a role that there is not")
		w.is(tm.SetRole(ctx, eve.Person, account, bob.Person, team.Admin), ErrNotFound, "a stranger")
		w.is(tm.SetRole(ctx, ann.Person, account, eve.Person, team.Admin), ErrNotFound, "of a stranger")
		_, err := tm.Members(ctx, eve.Person, account)
		w.is(err, ErrNotFound, "a stranger who looks")
		_, err = tm.May(ctx, eve.Person, account+"/"+ann.Person, team.SeeUsage)
		w.is(err, ErrNotFound, "an account that is a path")

		w.is(tm.Leave(ctx, ann.Person, account), ErrLastOwner, "the last owner leaves")
		w.is(tm.SetRole(ctx, ann.Person, account, ann.Person, team.Admin), ErrLastOwner, "the last owner steps down")
		w.is(tm.RemoveMember(ctx, ann.Person, account, ann.Person), ErrLastOwner, "the last owner removes themselves")
		w.must(tm.SetRole(ctx, admin.Person, account, bob.Person, team.Auditor))
		w.must(tm.Leave(ctx, bob.Person, account)) // anybody may
		_, err = tm.Part(ctx, account, bob.Person)
		w.is(err, ErrNotFound, "who left")
		w.must(tm.SetRole(ctx, ann.Person, account, admin.Person, team.Owner))

		// Two owners leave at once: one of them stays.
		var wg sync.WaitGroup
		errs := make([]error, 2)
		for i, p := range []string{ann.Person, admin.Person} {
			wg.Go(func() { errs[i] = tm.Leave(context.WithoutCancel(ctx), p, account) })
		}
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs...), ErrLastOwner) {
			t.Errorf("both leave: %v", errs)
		}

		second, err := tm.CreateAccount(ctx, eve.Person, "Second")
		w.must(err)
		if m, err := tm.Part(ctx, second, eve.Person); err != nil || m.Role != team.Owner {
			t.Errorf("%+v, %v", m, err)
		}
		made, err := w.books.Create(ctx, "of the command line")
		w.must(err)
		w.must(tm.Adopt(ctx, made, eve.Person))
		w.is(tm.Adopt(ctx, made, bob.Person), ErrInvalid, "an account with members")
		w.is(tm.Adopt(ctx, "acct_none", bob.Person), ErrNotFound, "no account")
	})
}

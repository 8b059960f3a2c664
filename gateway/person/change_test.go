package person

import (
	"strings"
	"testing"
	"time"
)

// TestReset ends everything that the old password could have led to, and asks for the second factor as ever.
func TestReset(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		in := w.join("ann@example.org")
		w.must(w.RequestEmail(ctx, home, in.Session, "evil@example.net"))
		change := w.one("evil@example.net", AddressPath)
		w.must(w.RequestReset(ctx, home, "ANN@example.org", "en"))
		l := w.one("ann@example.org", ResetPath+"?token=")
		if err := w.Reset(ctx, l.token, "ann@example.org"); reason(err) != "weak" {
			t.Errorf("one's own address: %v", err)
		}
		w.must(w.Reset(ctx, l.token, better))
		if told := w.one("ann@example.org", ForgotPath); !strings.Contains(told.subject, "password") {
			t.Errorf("told %+v", told)
		}
		_, err := w.Session(ctx, in.Token)
		w.is(err, ErrSession, "the session of before")
		w.is(w.ConfirmEmail(ctx, in.Session, change.token), ErrToken, "a change of address of before")
		_, err = w.SignIn(ctx, home, "ann@example.org", good)
		w.is(err, ErrCredentials, "the old password")
		_, err = w.SignIn(ctx, home, "ann@example.org", better)
		w.must(err)
		// To nobody: a message that says so, without a link.
		w.must(w.RequestReset(ctx, home, "nobody@example.org", "zh"))
		if list := w.letters(); len(list) != 1 || list[0].to != "nobody@example.org" || list[0].token != "" {
			t.Errorf("told %+v", list)
		}
		w.is(w.RequestReset(ctx, home, "ann@example.org\r\nBcc: x@example.com", "en"), ErrInvalid, "an address with a line break")
	})
}

func TestChangeOfAddress(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		ann, bob := w.join("ann@example.org"), w.join("bob@example.org")
		w.must(w.RequestEmail(ctx, home, ann.Session, "Bob@example.org"))
		if list := w.letters(); len(list) != 1 || list[0].to != "bob@example.org" || list[0].token != "" {
			t.Errorf("an address that is taken: %+v", list)
		}
		w.must(w.RequestEmail(ctx, home, ann.Session, "new@example.org"))
		l := w.one("new@example.org", AddressPath+"?token=")
		w.is(w.ConfirmEmail(ctx, bob.Session, l.token), ErrToken, "by somebody else")
		w.must(w.RequestReset(ctx, home, "ann@example.org", "en"))
		reset := w.one("ann@example.org", ResetPath)
		w.must(w.ConfirmEmail(ctx, ann.Session, l.token))
		w.is(w.ConfirmEmail(ctx, ann.Session, l.token), ErrToken, "twice")
		w.is(w.Reset(ctx, reset.token, better), ErrToken, "a link that the old address was sent before")
		undo := w.one("ann@example.org", UndoPath+"?token=")
		_, err := w.SignIn(ctx, home, "ann@example.org", good)
		w.is(err, ErrCredentials, "by the old address")
		in, err := w.SignIn(ctx, home, "new@example.org", good)
		w.must(err)

		text, err := w.UndoEmail(ctx, undo.token)
		w.must(err)
		_, err = w.UndoEmail(ctx, undo.token)
		w.is(err, ErrToken, "undone twice")
		_, err = w.Session(ctx, in.Token)
		w.is(err, ErrSession, "the session of whoever changed it")
		_, err = w.SignIn(ctx, home, "ann@example.org", good)
		w.is(err, ErrCredentials, "the password that whoever changed it knows")
		w.must(w.Reset(ctx, text, better))
		if in, err = w.SignIn(ctx, home, "ann@example.org", better); err != nil || in.Session.Person != ann.Session.Person {
			t.Errorf("%+v, %v", in, err)
		}
	})
}

// TestThief: whoever knows a password moves the account twice and adds factors. The first address still gets it back, for
// good: no factor, link or session of the thief's leads in.
func TestThief(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		ann := w.join("ann@example.org")
		time.Sleep(48 * time.Hour)
		thief, err := w.SignIn(ctx, from(1), "ann@example.org", good)
		w.must(err)
		key := newKey(t)
		w.addPasskey(thief.Session, key)
		secret, _ := w.addTOTP(thief.Session)
		w.letters()
		w.must(w.RequestEmail(ctx, from(1), thief.Session, "one@example.net"))
		w.must(w.ConfirmEmail(ctx, thief.Session, w.one("one@example.net", AddressPath).token))
		mine := w.one("ann@example.org", UndoPath)
		time.Sleep(time.Hour)
		_, s, err := w.Reauthenticate(ctx, from(1), thief.Token, Proof{Password: good})
		w.must(err)
		w.must(w.RequestEmail(ctx, from(1), s, "two@example.net"))
		w.must(w.ConfirmEmail(ctx, s, w.one("two@example.net", AddressPath).token))
		theirs := w.one("one@example.net", UndoPath)

		text, err := w.UndoEmail(ctx, mine.token)
		w.must(err)
		_, err = w.UndoEmail(ctx, theirs.token)
		w.is(err, ErrToken, "the thief's link to undo")
		_, err = w.PasskeySignIn(ctx, from(1), w.assertion(key, "", ""))
		w.is(err, ErrCode, "the thief's passkey")
		w.must(w.Reset(ctx, text, better))
		in, err := w.SignIn(ctx, home, "ann@example.org", better)
		if err != nil || in.Factors != nil || in.Session.Person != ann.Session.Person {
			t.Errorf("with the thief's factors %v, %v (%s)", in.Factors, err, secret)
		}
	})
}

// TestThiefUndoesFirst: the thief's own link to undo does not take the first one away.
func TestThiefUndoesFirst(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		ann := w.join("ann@example.org")
		move := func(s Session, to, old string) letter {
			w.must(w.RequestEmail(ctx, home, s, to))
			w.must(w.ConfirmEmail(ctx, s, w.one(to, AddressPath).token))
			return w.one(old, UndoPath)
		}
		mine := move(ann.Session, "one@example.net", "ann@example.org")
		theirs := move(ann.Session, "two@example.net", "one@example.net")
		_, err := w.UndoEmail(ctx, theirs.token)
		w.must(err)
		_, err = w.UndoEmail(ctx, mine.token)
		w.must(err)
		if p, err := w.Find(ctx, "ann@example.org"); err != nil || p.ID != ann.Session.Person || p.Password {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

package person

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/person/password"
	"github.com/postern-gateway/postern/gateway/person/settings"
	"github.com/postern-gateway/postern/gateway/person/team"
)

func TestFromSignUpToSignOut(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.must(w.SignUp(ctx, home, "  Ann@Example.ORG ", "zh"))
		l := w.one("ann@example.org", ConfirmPath+"?token=")
		if !strings.Contains(l.body, "确认") {
			t.Errorf("the message is not in Chinese: %s", l.body)
		}
		r := Registration{Name: "Ann", Password: good, Language: "zh", Policy: "2025-01"}
		_, err := w.Confirm(ctx, home, l.token, r)
		w.is(err, ErrPolicy, "an older policy")
		r.Policy = w.policy
		for text, want := range map[string]password.Weakness{"short": password.TooShort, "password123": password.TooCommon, "ann@example.org": password.Personal, strings.Repeat("é", 129): password.TooLong} {
			r.Password = text
			if _, err := w.Confirm(ctx, home, l.token, r); password.WeaknessOf(err) != want {
				t.Errorf("%q: %v", text, err)
			}
		}
		r.Password = good
		in, err := w.Confirm(ctx, home, l.token, r)
		w.must(err)
		p, err := w.Get(ctx, in.Session.Person)
		w.must(err)
		if p.Email != "ann@example.org" || p.Name != "Ann" || p.Language != "zh" || !p.Password || p.TOTP || p.Status != Active ||
			len(p.Accepted) != 1 || p.Accepted[0].Version != w.policy || p.Accepted[0].Time.IsZero() || w.MustAccept(p) {
			t.Errorf("%+v", p)
		}
		m, err := w.Teams().May(ctx, p.ID, w.account(p.ID), team.EndAccount)
		if err != nil || m.Role != team.Owner {
			t.Errorf("own account: %+v, %v", m, err)
		}
		w.must(w.SignOut(ctx, in.Token))
		_, err = w.Session(ctx, in.Token)
		w.is(err, ErrSession, "after signing out")
		w.must(w.SignOut(ctx, in.Token)) // again is no error
		_, err = w.SignIn(ctx, home, "ann@example.org", better)
		w.is(err, ErrCredentials, "a wrong password")
		in, err = w.SignIn(ctx, home, "ANN@example.org", good)
		w.must(err)
		s, err := w.Session(ctx, in.Token)
		if err != nil || s.Person != p.ID || in.Factors != nil {
			t.Errorf("%+v, %v", in, err)
		}
		if found, err := w.Find(ctx, "Ann@example.org"); err != nil || found.ID != p.ID {
			t.Errorf("found %+v, %v", found, err)
		}
		if list, err := w.List(ctx, "", 10); err != nil || len(list) != 1 || list[0].ID != p.ID {
			t.Errorf("listed %+v, %v", list, err)
		}
		if list, err := w.List(ctx, p.ID, 10); err != nil || len(list) != 0 {
			t.Errorf("listed after it %+v, %v", list, err)
		}
		w.policy = "2027-01"
		if !w.MustAccept(p) {
			t.Error("a new policy is not to be accepted")
		}
		w.is(w.AcceptPolicy(ctx, s, "2026-11"), ErrPolicy, "the policy before")
		w.must(w.AcceptPolicy(ctx, s, "2027-01"))
		if p, err = w.Get(ctx, p.ID); err != nil || w.MustAccept(p) || len(p.Accepted) != 2 {
			t.Errorf("accepted %+v, %v", p.Accepted, err)
		}
	})
}

// TestEventsHoldIDsAlone: what the audit log is told names nobody.
func TestEventsHoldIDsAlone(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		in := w.join("ann@example.org")
		_, err := w.SignIn(t.Context(), home, "ann@example.org", better)
		w.is(err, ErrCredentials, "a wrong password")
		_, err = w.SignIn(t.Context(), home, "nobody@example.org", better)
		w.is(err, ErrCredentials, "nobody")
		want := []Event{
			{Actor: in.Session.Person, Action: "person.signup", Subject: in.Session.Person, Outcome: "done"},
			{Action: "person.signin", Subject: in.Session.Person, Outcome: "refused", Reason: "credentials"},
			{Action: "person.signin", Outcome: "refused", Reason: "credentials"},
		}
		if !slices.Equal(w.events, want) {
			t.Errorf("told %+v", w.events)
		}
	})
}

func TestWhoMaySignUp(t *testing.T) {
	for _, c := range []struct {
		how  settings.Signup
		want error
	}{{settings.Open, nil}, {settings.Invited, ErrSignup}, {settings.Closed, ErrSignup}} {
		t.Run(string(c.how), func(t *testing.T) {
			bubble(t, func(s *settings.Settings) { s.Signup = c.how }, func(t *testing.T, w *world) {
				w.is(w.SignUp(t.Context(), home, "ann@example.org", "en"), c.want, "sign-up")
			})
		})
	}
}

// TestNobodyCanTell: whether an address is registered shows neither in an answer nor in the work that is done for it: hashes,
// seals, commits and writes are counted.
func TestNobodyCanTell(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.join("known@example.org")
		type cost struct {
			err                    string
			hashes                 int64
			seals, commits, writes int
			letters                int
		}
		n := 0
		measure := func(f func(c Client) error) cost {
			w.letters()
			h, s, c, wr := w.hasher.Hashed(), w.keys.seals, w.store.commits, w.store.write
			n++
			err := f(from(n))
			list := w.letters() // all that was caused is over then
			got := cost{fmt.Sprint(err), w.hasher.Hashed() - h, w.keys.seals - s, w.store.commits - c, w.store.write - wr, len(list)}
			if len(list) > 0 && !strings.HasSuffix(list[0].to, "@example.org") {
				t.Errorf("sent to %s", list[0].to)
			}
			return got
		}
		for name, f := range map[string]func(c Client, email string) error{
			"sign-up": func(c Client, email string) error { return w.SignUp(ctx, c, email, "en") },
			"sign-in": func(c Client, email string) error { _, err := w.SignIn(ctx, c, email, better); return err },
			"sign-in with a huge password": func(c Client, email string) error {
				_, err := w.SignIn(ctx, c, email, strings.Repeat("x", 5000))
				return err
			},
			"throttled": func(c Client, email string) (err error) {
				for range 8 {
					_, err = w.SignIn(ctx, c, email, better)
				}
				return err
			},
		} {
			known := measure(func(c Client) error { return f(c, "known@example.org") })
			unknown := measure(func(c Client) error { return f(c, "unknown@example.org") })
			if known != unknown {
				t.Errorf("%s: known %+v, unknown %+v", name, known, unknown)
			}
			if strings.HasPrefix(name, "sign-in") && known.hashes != 1 {
				t.Errorf("%s: %d hashes", name, known.hashes)
			}
		}
		// A reset's token is its person's: one small index entry more, in the same commit.
		known := measure(func(c Client) error { return w.RequestReset(ctx, c, "known@example.org", "en") })
		unknown := measure(func(c Client) error { return w.RequestReset(ctx, c, "unknown@example.org", "en") })
		known.writes--
		if known != unknown || known.commits != 3 {
			t.Errorf("reset: known %+v, unknown %+v", known, unknown)
		}
		if invalid := measure(func(c Client) error { _, err := w.SignIn(ctx, c, "no address", better); return err }); invalid.hashes != 1 || invalid.err != ErrCredentials.Error() {
			t.Errorf("what is no address: %+v", invalid)
		}
	})
}

// TestTokensWorkOnce: of many who follow a link at once one gets in, and nobody later; nor is it good for anything else.
func TestTokensWorkOnce(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.must(w.SignUp(ctx, home, "ann@example.org", "en"))
		l := w.one("ann@example.org", ConfirmPath)
		reg := Registration{Password: good, Policy: w.policy}
		w.is(w.Reset(ctx, l.token, better), ErrToken, "a sign-up's link to reset")
		_, err := w.UndoEmail(ctx, l.token)
		w.is(err, ErrToken, "a sign-up's link to undo")
		_, err = w.Join(ctx, home, l.token, reg)
		w.is(err, ErrToken, "a sign-up's link as an invitation")
		for _, bad := range []string{"", "x", l.token + "A", strings.ToUpper(l.token), strings.Repeat("A", 43)} {
			_, err = w.Confirm(ctx, home, bad, reg)
			w.is(err, ErrToken, "token "+bad)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		done := map[string]int{}
		for range 8 {
			wg.Go(func() {
				_, err := w.Confirm(ctx, home, l.token, reg)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					done["in"]++
				case errors.Is(err, ErrToken):
					done["over"]++
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if done["in"] != 1 || done["over"] != 7 {
			t.Errorf("%v", done)
		}
		if list, err := w.List(ctx, "", 10); err != nil || len(list) != 1 {
			t.Errorf("%d people, %v", len(list), err)
		}

		w.must(w.RequestReset(ctx, home, "ann@example.org", "en"))
		l = w.one("ann@example.org", ResetPath)
		w.must(w.Reset(ctx, l.token, better))
		w.is(w.Reset(ctx, l.token, good), ErrToken, "a link to reset, again")
		w.letters()
		w.must(w.RequestReset(ctx, home, "ann@example.org", "en"))
		first := w.one("ann@example.org", ResetPath)
		w.must(w.RequestReset(ctx, home, "ann@example.org", "en"))
		second := w.one("ann@example.org", ResetPath)
		w.must(w.Reset(ctx, second.token, good))
		w.is(w.Reset(ctx, first.token, better), ErrToken, "an earlier link, after a reset")
		w.letters()
		w.must(w.RequestReset(ctx, home, "ann@example.org", "en"))
		l = w.one("ann@example.org", ResetPath)
		time.Sleep(time.Hour)
		w.is(w.Reset(ctx, l.token, better), ErrToken, "a link that is an hour old")
	})
}

// TestTwoSignUpsForOneAddress: one person comes of it, whoever confirms first.
func TestTwoSignUpsForOneAddress(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		var tokens []string
		for i := range 6 {
			w.must(w.SignUp(ctx, from(i), "ann@example.org", "en"))
			tokens = append(tokens, w.one("ann@example.org", ConfirmPath).token)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		var in []string
		for _, token := range tokens {
			wg.Go(func() {
				s, err := w.Confirm(ctx, home, token, Registration{Password: good, Policy: w.policy})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					in = append(in, s.Session.Person)
				} else if !errors.Is(err, ErrTaken) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		list, err := w.List(ctx, "", 10)
		if err != nil || len(in) != 1 || len(list) != 1 || list[0].ID != in[0] {
			t.Fatalf("%v got in, people %+v, %v", in, list, err)
		}
		if p, err := w.Find(ctx, "ann@example.org"); err != nil || p.ID != in[0] {
			t.Errorf("the address leads to %s, %v", p.ID, err)
		}
	})
}

// TestNothingToAssign: what a form can fill in holds no right, no state and no other's id.
func TestNothingToAssign(t *testing.T) {
	t.Parallel()
	var names []string
	for f := range reflect.TypeFor[Registration]().Fields() {
		names = append(names, f.Name)
	}
	if !slices.Equal(names, []string{"Name", "Password", "Language", "Policy"}) {
		t.Errorf("a registration has %v: is one of them a right?", names)
	}
}

// TestStrangersGuessInVain: many networks that guess at one person slow each other down, and neither the person's own device
// nor, for long, anybody who knows the password.
func TestStrangersGuessInVain(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		in := w.join("ann@example.org")
		before := w.hasher.Hashed()
		refused := 0
		for i := range 2000 {
			_, err := w.SignIn(ctx, from(i), "ann@example.org", better)
			if _, ok := errors.AsType[Throttled](err); ok {
				refused++
			} else {
				w.is(err, ErrCredentials, "a guess")
			}
		}
		if n := w.hasher.Hashed() - before; n > 60 || refused != 2000-int(n) {
			t.Errorf("%d guesses were looked at, %d refused", n, refused)
		}
		mine := from(5000)
		mine.Device = in.Device
		if _, err := w.SignIn(ctx, mine, "ann@example.org", good); err != nil {
			t.Errorf("with a device of theirs: %v", err)
		}
		mine.Device = in.Device[:len(in.Device)-2] + "AA"
		_, err := w.SignIn(ctx, mine, "ann@example.org", good)
		wait, ok := errors.AsType[Throttled](err)
		if !ok || wait.After > time.Minute {
			t.Errorf("without: %v", err)
		}
		time.Sleep(time.Minute)
		if _, err := w.SignIn(ctx, from(5001), "ann@example.org", good); err != nil {
			t.Errorf("a minute later, without a device: %v", err)
		}
		// One network that tries many names.
		before = w.hasher.Hashed()
		for i := range 500 {
			_, _ = w.SignIn(ctx, from(7000), fmt.Sprintf("a%d@example.org", i), better)
		}
		if n := w.hasher.Hashed() - before; n > 31 {
			t.Errorf("%d guesses of one network were looked at", n)
		}
	})
}

// TestDearerHashes: a hash that cost less than is asked for now is made anew at sign-in.
func TestDearerHashes(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		in := w.join("ann@example.org")
		w.must(w.Directory.Close())
		w.open(func(s *settings.Settings) { s.Passwords.Passes = 2 })
		for i, want := range []int64{2, 1} {
			before := w.hasher.Hashed()
			_, err := w.SignIn(ctx, home, "ann@example.org", good)
			w.must(err)
			if n := w.hasher.Hashed() - before; n != want {
				t.Errorf("sign-in %d: %d hashes", i, n)
			}
		}
		p, err := w.get(ctx, in.Session.Person)
		if err != nil || !strings.Contains(p.Hash, "t=2") {
			t.Errorf("%v, %v", p.Hash, err)
		}
	})
}

// TestPreferences: consents are kept with the time they were given and withdrawn.
func TestPreferences(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		s := w.join("ann@example.org").Session
		w.must(w.SetConsent(ctx, s, Communicate, true))
		time.Sleep(time.Hour)
		w.must(w.SetConsent(ctx, s, Communicate, true)) // nothing new
		w.must(w.SetConsent(ctx, s, Communicate, false))
		w.must(w.SetConsent(ctx, s, Training, true))
		w.is(w.SetConsent(ctx, s, "bill", true), ErrInvalid, "a purpose that needs none")
		w.must(w.SetProfile(ctx, s, "Anne", "zh"))
		w.is(w.SetProfile(ctx, s, "A\r\nBcc: x@example.com", "zh"), ErrInvalid, "a name of two lines")
		p, err := w.Get(ctx, s.Person)
		w.must(err)
		if p.Consented(Communicate) || !p.Consented(Training) || len(p.Consents) != 3 || p.Consents[1].Time.Sub(p.Consents[0].Time) != time.Hour || p.Name != "Anne" || p.Language != "zh" {
			t.Errorf("%+v", p)
		}
		for range maxDecisions/2 + 1 {
			w.must(w.SetConsent(ctx, s, Communicate, true))
			w.must(w.SetConsent(ctx, s, Communicate, false))
		}
		if p, err = w.Get(ctx, s.Person); err != nil || len(p.Consents) != maxDecisions {
			t.Errorf("%d decisions, %v", len(p.Consents), err)
		}
	})
}

// TestLocked: who is locked is out at once, and a right password says no more than that.
func TestLocked(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		in := w.join("ann@example.org")
		w.must(w.SetStatus(ctx, in.Session.Person, Locked))
		_, err := w.Session(ctx, in.Token)
		w.is(err, ErrSession, "the session")
		_, err = w.SignIn(ctx, home, "ann@example.org", better)
		w.is(err, ErrCredentials, "a wrong password")
		_, err = w.SignIn(ctx, home, "ann@example.org", good)
		w.is(err, ErrLocked, "the right one")
		w.must(w.SetStatus(ctx, in.Session.Person, Active))
		_, err = w.SignIn(ctx, home, "ann@example.org", good)
		w.must(err)
		w.is(w.SetStatus(ctx, in.Session.Person, "owner"), ErrInvalid, "a state that there is not")
		w.is(w.SetStatus(ctx, "pers_nobody", Locked), ErrNotFound, "nobody")
	})
}

// TestReopened: people and sessions outlive a run; a store whose secret is gone is not taken for a new one.
func TestReopened(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		in := w.join("ann@example.org")
		time.Sleep(2 * time.Hour)
		_, err := w.Session(ctx, in.Token)
		w.must(err)
		w.must(w.Directory.Close())
		_, err = w.Session(ctx, in.Token)
		if err == nil {
			t.Error("a session of a directory that is closed")
		}
		w.is(w.SignUp(ctx, home, "bob@example.org", "en"), ErrClosed, "after Close")
		w.open(nil)
		s, err := w.Session(ctx, in.Token)
		if err != nil || s.Seen.Sub(s.Created) < 2*time.Hour {
			t.Errorf("%+v, %v", s, err)
		}
		if _, err := w.SignIn(ctx, home, "ann@example.org", good); err != nil {
			t.Error(err)
		}
	})
}

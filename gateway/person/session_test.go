package person

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/person/settings"
	"github.com/postern-gateway/postern/gateway/person/token"
)

// TestSessionFixation: a token that somebody brings along never becomes a session, and every sign-in and proof has another.
func TestSessionFixation(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		planted := token.Random()
		in := w.join("ann@example.org")
		_, err := w.Session(ctx, planted)
		w.is(err, ErrSession, "a token that was planted")
		again, err := w.SignIn(ctx, home, "ann@example.org", good)
		w.must(err)
		if again.Token == in.Token || again.Session.ID == in.Session.ID {
			t.Error("two sign-ins share a session")
		}
		fresh, s, err := w.Reauthenticate(ctx, home, again.Token, Proof{Password: good})
		w.must(err)
		if fresh == again.Token || s.ID != again.Session.ID {
			t.Errorf("a proof goes on as %+v", s)
		}
		_, err = w.Session(ctx, again.Token)
		w.is(err, ErrSession, "the token before the proof")
		_, err = w.Session(ctx, fresh)
		w.must(err)
		_, _, err = w.Reauthenticate(ctx, home, again.Token, Proof{Password: good})
		w.is(err, ErrSession, "a proof for a session that is over")
		_, _, err = w.Reauthenticate(ctx, home, fresh, Proof{Password: better})
		w.is(err, ErrCredentials, "a proof by a wrong password")
		_, _, err = w.Reauthenticate(ctx, home, fresh, Proof{})
		w.is(err, ErrCredentials, "a proof by nothing")

		other, _, err := w.SetPassword(ctx, s, fresh, better)
		w.must(err)
		_, err = w.Session(ctx, fresh)
		w.is(err, ErrSession, "the token before another password")
		_, err = w.Session(ctx, in.Token)
		w.is(err, ErrSession, "another session, after another password")
		if _, err = w.Session(ctx, other); err != nil {
			t.Errorf("the session that changed it: %v", err)
		}
		// The store has neither tokens nor what they could be made from.
		for e, err := range w.store.Scan(ctx, nil, nil) {
			w.must(err)
			for _, text := range []string{other, fresh, in.Token} {
				if strings.Contains(string(e.Key)+string(e.Value), text) {
					t.Errorf("%s has a token", e.Key)
				}
			}
		}
	})
}

// TestSessionsEnd: by idling, in any case at their end, one by one, and all.
func TestSessionsEnd(t *testing.T) {
	bubble(t, func(s *settings.Settings) {
		s.Sessions.Idle, s.Sessions.Absolute, s.Sessions.Most = time.Hour, 24*time.Hour, 3
	}, func(t *testing.T, w *world) {
		ctx := t.Context()
		in := w.join("ann@example.org")
		enter := func() SignedIn {
			time.Sleep(2 * time.Minute)
			in, err := w.SignIn(ctx, home, "ann@example.org", good)
			w.must(err)
			return in
		}
		for range 47 { // used twice an hour, till its end
			if _, err := w.Session(ctx, in.Token); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Minute)
		}
		time.Sleep(30 * time.Minute)
		_, err := w.Session(ctx, in.Token)
		w.is(err, ErrSession, "after a day")
		in = enter()
		time.Sleep(time.Hour)
		_, err = w.Session(ctx, in.Token)
		w.is(err, ErrSession, "after an hour without use")

		one, two, three := enter(), enter(), enter()
		_, err = w.Session(ctx, one.Token)
		w.must(err)
		four := enter() // one too many: the second was used longest ago
		for i, c := range []struct {
			in   SignedIn
			want error
		}{{one, nil}, {two, ErrSession}, {three, nil}, {four, nil}} {
			_, err := w.Session(ctx, c.in.Token)
			w.is(err, c.want, "session "+string(rune('1'+i)))
		}
		list, err := w.Sessions(ctx, four.Session)
		if err != nil || len(list) != 3 || list[0].Network != "192.0.2.0/24" || list[0].Agent != "Browser/1.0" {
			t.Errorf("%+v, %v", list, err)
		}
		bob := w.join("bob@example.org")
		w.is(w.EndSession(ctx, bob.Session, four.Session.ID), ErrNotFound, "somebody else's session")
		w.must(w.EndSession(ctx, one.Session, four.Session.ID))
		_, err = w.Session(ctx, four.Token)
		w.is(err, ErrSession, "ended from another")
		w.must(w.SignOutEverywhere(ctx, one.Session, true))
		_, err = w.Session(ctx, three.Token)
		w.is(err, ErrSession, "ended with all others")
		_, err = w.Session(ctx, one.Token)
		w.must(err)
		p, err := w.get(ctx, one.Session.Person)
		w.must(err)
		if w.known(p, one.Device) != "" || w.known(p, w.device(p)) == "" {
			t.Error("known devices are not forgotten")
		}
		w.must(w.SignOutEverywhere(ctx, one.Session, false))
		if list, err := w.Sessions(ctx, one.Session); err != nil || len(list) != 0 {
			t.Errorf("left: %+v, %v", list, err)
		}
		if _, err := w.Session(ctx, bob.Token); err != nil {
			t.Errorf("somebody else's: %v", err)
		}
	})
}

// TestFreshSignIn: what is dangerous needs a proof within the last quarter of an hour.
func TestFreshSignIn(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		in := w.join("ann@example.org")
		w.must(w.Fresh(in.Session))
		w.is(w.Fresh(Session{}), ErrSession, "nobody")
		time.Sleep(15 * time.Minute)
		s, err := w.Session(ctx, in.Token)
		w.must(err)
		_, _, err = w.SetPassword(ctx, s, in.Token, better)
		w.is(err, ErrStale, "another password")
		w.is(w.RequestEmail(ctx, home, s, "new@example.org"), ErrStale, "another address")
		_, err = w.BeginTOTP(ctx, s)
		w.is(err, ErrStale, "an authenticator app")
		w.is(w.RemoveTOTP(ctx, s), ErrStale, "no authenticator app")
		_, err = w.NewRecoveryCodes(ctx, s)
		w.is(err, ErrStale, "recovery codes")
		_, _, err = w.BeginPasskey(ctx, s)
		w.is(err, ErrStale, "a passkey")
		w.is(w.RemovePasskey(ctx, s, "pass_x"), ErrStale, "no passkey")
		_, s, err = w.Reauthenticate(ctx, home, in.Token, Proof{Password: good})
		w.must(err)
		w.must(w.Fresh(s))
	})
}

// TestSignedInAndOutAtOnce: whatever happens at the same time, a session that was ended does not come back.
func TestSignedInAndOutAtOnce(t *testing.T) {
	bubble(t, func(s *settings.Settings) {
		s.Throttle = settings.Throttle{Person: 1000, Network: 10000, Wait: time.Second}
	}, func(t *testing.T, w *world) {
		ctx := t.Context()
		in := w.join("ann@example.org")
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				for range 8 {
					s, err := w.SignIn(ctx, home, "ann@example.org", good)
					if err != nil {
						t.Error(err)
						return
					}
					time.Sleep(61 * time.Second) // its use is to be noted just now
					if _, err := w.Session(ctx, s.Token); err != nil {
						t.Error(err)
					}
					if err := w.SignOut(ctx, s.Token); err != nil {
						t.Error(err)
					}
					if _, err := w.Session(ctx, s.Token); err == nil {
						t.Error("it is not over")
					}
				}
			})
		}
		wg.Wait()
		time.Sleep(2 * time.Minute)
		list, err := w.Sessions(ctx, in.Session)
		if err != nil || len(list) != 1 || list[0].ID != in.Session.ID {
			t.Errorf("left: %+v, %v", list, err)
		}
		var kinds []string
		for e, err := range w.store.Scan(ctx, []byte("person/s"), nil) {
			w.must(err)
			kinds = append(kinds, strings.Join(strings.Split(string(e.Key), "/")[:2], "/"))
		}
		if want := []string{"person/s", "person/secret", "person/sp"}; !slices.Equal(kinds, want) {
			t.Errorf("the store has %v", kinds)
		}
	})
}

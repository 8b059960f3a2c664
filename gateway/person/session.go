package person

import (
	"context"
	"crypto/hmac"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-gateway/postern/gateway/person/token"
	"github.com/postern-gateway/postern/gateway/state"
)

// SignedIn is the outcome of a sign-in: a session, or the second factors that are wanted first.
type SignedIn struct {
	Token   string   // what the cookie of the session holds: 256 random bits; "" while a factor is wanted
	Session Session  // without Token the zero value
	Device  string   // for a long-lived cookie: lets its bearer sign in while strangers guess at this person
	Pending string   // what Prove needs beside a factor
	Factors []string // of "totp", "passkey", "recovery": what would do; nil: nothing is wanted
}

// Session returns the session of a token and notes its use, or ErrSession. It is a read of the store.
func (d *Directory) Session(ctx context.Context, text string) (Session, error) {
	return d.sessions.Lookup(ctx, text)
}

// enter makes a session for a person and puts it into a batch.
func (d *Directory) enter(ctx context.Context, b *state.Batch, p *individual, c Client, factors ...string) (SignedIn, error) {
	text, s, err := d.sessions.Enter(ctx, b, p.ID, c.Address, c.Agent, factors...)
	if err != nil {
		return SignedIn{}, err
	}
	return SignedIn{Token: text, Session: s, Device: d.device(p)}, nil
}

// Sessions returns the sessions of whose s is, the one used last first.
func (d *Directory) Sessions(ctx context.Context, s Session) ([]Session, error) {
	return d.sessions.List(ctx, s.Person)
}

// SignOut ends the session of a token. One that is over already is no error.
func (d *Directory) SignOut(ctx context.Context, text string) error {
	end, err := d.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	r, err := d.sessions.Lookup(ctx, text)
	if errors.Is(err, ErrSession) {
		return nil
	}
	if err != nil {
		return err
	}
	var b state.Batch
	d.sessions.End(&b, r)
	err = d.commit(ctx, &b)
	d.tell(ctx, r.Person, "person.signout", r.Person, err)
	return err
}

// EndSession ends another session of whose s is, by its id; ErrNotFound where it is none of theirs.
func (d *Directory) EndSession(ctx context.Context, s Session, id string) error {
	end, err := d.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	list, err := d.sessions.List(ctx, s.Person)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(o Session) bool { return o.ID == id })
	if i < 0 {
		return ErrNotFound
	}
	var b state.Batch
	d.sessions.End(&b, list[i])
	err = d.commit(ctx, &b)
	d.tell(ctx, s.Person, "person.session_end", s.Person, err)
	return err
}

// SignOutEverywhere ends all sessions of whose s is, this one too unless keep, and forgets known devices.
func (d *Directory) SignOutEverywhere(ctx context.Context, s Session, keep bool) error {
	except := ""
	if keep {
		except = s.ID
	}
	_, err := d.edit(ctx, s.Person, func(p *individual, b *state.Batch) error {
		p.Epoch++
		return d.sessions.EndAll(ctx, b, p.ID, except)
	})
	d.tell(ctx, s.Person, "person.signout_everywhere", s.Person, err)
	return err
}

// Fresh refuses what is dangerous to a session whose person proved themselves too long ago: ErrStale, and Reauthenticate
// comes first.
func (d *Directory) Fresh(s Session) error {
	if s.Person == "" {
		return ErrSession
	}
	if d.now().Sub(s.Proved) >= d.settings.Sessions.Recent {
		return ErrStale
	}
	return nil
}

// device is a statement that its bearer has signed in as a person: a random id and an HMAC of it, the person and the
// epoch.
func (d *Directory) device(p *individual) string {
	id := token.ID("")
	sum := d.mint.Hash("device", p.ID, fmt.Sprint(p.Epoch), id)
	return id + "." + base64.RawURLEncoding.EncodeToString(sum[:])
}

// known is the id of a device that was given to a person, or "".
func (d *Directory) known(p *individual, text string) string {
	id, given, ok := strings.Cut(text, ".")
	sum, err := base64.RawURLEncoding.DecodeString(given)
	if !ok || err != nil || p == nil {
		return ""
	}
	want := d.mint.Hash("device", p.ID, fmt.Sprint(p.Epoch), id)
	if !hmac.Equal(sum, want[:]) {
		return ""
	}
	return id
}

// nameOf is what tries at an address are counted under.
func (d *Directory) nameOf(address string) string { return d.mint.Digest("throttle", address) }

package person

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/postern-gateway/postern/gateway/mail"
	"github.com/postern-gateway/postern/gateway/person/factor"
	"github.com/postern-gateway/postern/gateway/person/team"
	"github.com/postern-gateway/postern/gateway/person/throttle"
	"github.com/postern-gateway/postern/gateway/person/token"
	"github.com/postern-gateway/postern/gateway/state"
)

// recovery is what is kept of a person's recovery codes.
func (d *Directory) recovery(p *individual) factor.Digest {
	return func(code string) []byte {
		sum := d.mint.Hash("recovery", p.ID, code)
		return sum[:]
	}
}

// Passkey is what is known of a passkey.
type Passkey = factor.Public

// BeginTOTP makes a secret for an authenticator app, which counts once ConfirmTOTP was given a code of it. It needs a fresh
// sign-in.
func (d *Directory) BeginTOTP(ctx context.Context, s Session) (factor.Enrolment, error) {
	if err := d.Fresh(s); err != nil {
		return factor.Enrolment{}, err
	}
	p, err := d.get(ctx, s.Person)
	if err != nil {
		return factor.Enrolment{}, err
	}
	e, err := factor.Enrol(mail.Harmless(d.settings.Service), p.Email)
	if err != nil {
		return factor.Enrolment{}, err
	}
	e.Ceremony = d.ceremonies.Start("totp", p.ID, e.Secret)
	return e, nil
}

// ConfirmTOTP makes an authenticator app a second factor, by a code of it, and returns the recovery codes where there were
// none: they are shown once. A wrong code ends the enrolment, and another begins with BeginTOTP.
func (d *Directory) ConfirmTOTP(ctx context.Context, s Session, ceremony, code string) (recovery []string, err error) {
	defer func() { d.tell(ctx, s.Person, "person.totp_add", s.Person, err) }()
	if err := d.Fresh(s); err != nil {
		return nil, err
	}
	data, err := d.ceremonies.Take("totp", s.Person, ceremony)
	if err != nil {
		return nil, err
	}
	_, err = d.amend(ctx, s.Person, func(p *individual, _ *state.Batch) ([]mail.Message, error) {
		p.TOTP = &factor.TOTP{Secret: data.(string), Created: d.now().UTC().Truncate(time.Second)}
		if err := p.SpendCode(code, d.now()); err != nil {
			return nil, err
		}
		recovery = p.Supply(d.recovery(p))
		return []mail.Message{d.notice("factors", p)}, nil
	})
	if err != nil {
		return nil, err
	}
	return recovery, nil
}

// RemoveTOTP takes the authenticator app away, which needs a fresh sign-in.
func (d *Directory) RemoveTOTP(ctx context.Context, s Session) (err error) {
	defer func() { d.tell(ctx, s.Person, "person.totp_remove", s.Person, err) }()
	if err := d.Fresh(s); err != nil {
		return err
	}
	_, err = d.amend(ctx, s.Person, func(p *individual, _ *state.Batch) ([]mail.Message, error) {
		if p.TOTP == nil {
			return nil, ErrNotFound
		}
		p.TOTP = nil
		p.Tidy()
		return []mail.Message{d.notice("factors", p)}, nil
	})
	return err
}

// NewRecoveryCodes replaces the recovery codes, which needs a fresh sign-in and a second factor to recover.
func (d *Directory) NewRecoveryCodes(ctx context.Context, s Session) (codes []string, err error) {
	defer func() { d.tell(ctx, s.Person, "person.recovery_codes", s.Person, err) }()
	if err := d.Fresh(s); err != nil {
		return nil, err
	}
	_, err = d.amend(ctx, s.Person, func(p *individual, _ *state.Batch) ([]mail.Message, error) {
		if p.Kinds() == nil {
			return nil, ErrNotFound
		}
		p.Recovery = nil
		codes = p.Supply(d.recovery(p))
		return []mail.Message{d.notice("factors", p)}, nil
	})
	if err != nil {
		return nil, err
	}
	return codes, nil
}

// HasPasskeys reports whether there can be passkeys here: they need a public URL with a name.
func (d *Directory) HasPasskeys() bool { return d.passkeys != nil }

// BeginPasskey returns what a page gives to navigator.credentials.create, as JSON, and the token that ends the ceremony. It
// needs a fresh sign-in.
func (d *Directory) BeginPasskey(ctx context.Context, s Session) (options []byte, ceremony string, err error) {
	if err := d.Fresh(s); err != nil {
		return nil, "", err
	}
	if d.passkeys == nil {
		return nil, "", ErrNotFound
	}
	p, err := d.get(ctx, s.Person)
	if err != nil {
		return nil, "", err
	}
	if len(p.Passkeys) >= MaxPasskeys {
		return nil, "", fmt.Errorf("%w: a person has at most %d passkeys", ErrTooMany, MaxPasskeys)
	}
	options, challenge, err := d.passkeys.BeginCreate(p.user())
	if err != nil {
		return nil, "", err
	}
	return options, d.ceremonies.Start("create", p.ID, challenge), nil
}

// AddPasskey takes what the browser answered, as JSON, and returns the recovery codes where there were none: they are shown
// once.
func (d *Directory) AddPasskey(ctx context.Context, s Session, ceremony, name string, response []byte) (key Passkey, recovery []string, err error) {
	defer func() { d.tell(ctx, s.Person, "person.passkey_add", s.Person, err) }()
	if err := d.Fresh(s); err != nil {
		return Passkey{}, nil, err
	}
	if err := team.CheckName(name); err != nil {
		return Passkey{}, nil, err
	}
	if d.passkeys == nil {
		return Passkey{}, nil, ErrNotFound
	}
	data, err := d.ceremonies.Take("create", s.Person, ceremony)
	if err != nil {
		return Passkey{}, nil, err
	}
	_, err = d.amend(ctx, s.Person, func(p *individual, _ *state.Batch) ([]mail.Message, error) {
		if len(p.Passkeys) >= MaxPasskeys {
			return nil, fmt.Errorf("%w: a person has at most %d passkeys", ErrTooMany, MaxPasskeys)
		}
		k, err := d.passkeys.Create(p.user(), data.(factor.Challenge), token.ID("pass_"), name, d.now().UTC().Truncate(time.Second), response)
		if err != nil {
			return nil, err
		}
		key, recovery = k.Public(), p.Supply(d.recovery(p))
		return []mail.Message{d.notice("factors", p)}, nil
	})
	if err != nil {
		return Passkey{}, nil, err
	}
	return key, recovery, nil
}

// RemovePasskey takes a passkey away, which needs a fresh sign-in. The last way to sign in stays: a person without a
// password keeps a passkey (ErrInvalid).
func (d *Directory) RemovePasskey(ctx context.Context, s Session, id string) (err error) {
	defer func() { d.tell(ctx, s.Person, "person.passkey_remove", s.Person, err) }()
	if err := d.Fresh(s); err != nil {
		return err
	}
	_, err = d.amend(ctx, s.Person, func(p *individual, _ *state.Batch) ([]mail.Message, error) {
		i := slices.IndexFunc(p.Passkeys, func(k factor.Passkey) bool { return k.ID == id })
		if i < 0 {
			return nil, ErrNotFound
		}
		if p.Hash == "" && len(p.Passkeys) == 1 {
			return nil, fmt.Errorf("%w: it is the only way to sign in", ErrInvalid)
		}
		p.Passkeys = slices.Delete(p.Passkeys, i, i+1)
		p.Tidy()
		return []mail.Message{d.notice("factors", p)}, nil
	})
	return err
}

// PasskeyOptions returns what a page gives to navigator.credentials.get, as JSON, and the token that ends the ceremony. With
// pending it is a second factor of that sign-in; with text, a session's token, it is for Reauthenticate; with neither it is
// for PasskeySignIn, and says nothing of anybody.
func (d *Directory) PasskeyOptions(ctx context.Context, pending, text string) (options []byte, ceremony string, err error) {
	if d.passkeys == nil {
		return nil, "", ErrNotFound
	}
	who, alone := "", true
	switch {
	case pending != "":
		t, _, err := d.mint.Read(ctx, token.Factor, pending)
		if err != nil {
			return nil, "", err
		}
		who, alone = t.Person, false
	case text != "":
		s, err := d.sessions.Lookup(ctx, text)
		if err != nil {
			return nil, "", err
		}
		who = s.Person
	}
	var user *factor.User
	if who != "" {
		p, err := d.get(ctx, who)
		if err != nil {
			return nil, "", err
		}
		if len(p.Passkeys) == 0 {
			return nil, "", ErrNotFound
		}
		u := p.user()
		user = &u
	}
	options, challenge, err := d.passkeys.BeginGet(user, alone)
	if err != nil {
		return nil, "", err
	}
	return options, d.of(who).Start("get", who, challenge), nil
}

// of is where the ceremonies of a person are, or of nobody yet: those that strangers begin push out each other alone.
func (d *Directory) of(person string) *token.Ceremonies {
	if person == "" {
		return &d.strangers
	}
	return &d.ceremonies
}

// user is a person as passkeys know one.
func (p *individual) user() factor.User {
	return factor.User{ID: p.ID, Email: p.Email, Name: p.Name, Set: &p.Set}
}

// assert checks what a passkey signed in a ceremony begun for whose; p has to be stored then.
func (d *Directory) assert(p *individual, proof Proof, whose string, alone bool) error {
	if d.passkeys == nil {
		return ErrCode
	}
	data, err := d.of(whose).Take("get", whose, proof.Ceremony)
	if err != nil {
		return err
	}
	return d.passkeys.Check(p.user(), data.(factor.Challenge), alone, d.now().UTC().Truncate(time.Second), proof.Assertion)
}

// PasskeySignIn signs in by a passkey alone, whose device asked who holds it: that is two factors in one.
func (d *Directory) PasskeySignIn(ctx context.Context, c Client, proof Proof) (in SignedIn, err error) {
	subject := ""
	defer func() { d.tell(ctx, in.Session.Person, "person.signin_passkey", subject, err) }()
	if d.passkeys == nil {
		return SignedIn{}, ErrNotFound
	}
	try := throttle.Try{What: "passkey", From: throttle.Network(c.Address), Name: c.Address.String()}
	if wait := d.throttle.Begin(try); wait > 0 {
		return SignedIn{}, Throttled{After: wait}
	}
	handle, err := factor.Handle(proof.Assertion)
	if err != nil {
		return SignedIn{}, err
	}
	end, err := d.begin(ctx)
	if err != nil {
		return SignedIn{}, err
	}
	defer end()
	p, err := d.get(ctx, handle)
	if err != nil {
		return SignedIn{}, ErrCode // nobody's, or removed
	}
	subject = p.ID
	if err := d.assert(p, proof, "", true); err != nil {
		return SignedIn{}, err
	}
	d.throttle.Succeeded(try)
	if p.Status != Active {
		return SignedIn{}, ErrLocked
	}
	b := new(state.Batch)
	if err := d.put(ctx, b, p); err != nil {
		return SignedIn{}, err
	}
	if in, err = d.enter(ctx, b, p, c, "passkey"); err != nil {
		return SignedIn{}, err
	}
	if err := d.commit(ctx, b); err != nil {
		return SignedIn{}, err
	}
	return in, nil
}

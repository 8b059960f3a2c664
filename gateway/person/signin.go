package person

import (
	"context"
	"errors"

	"github.com/postern-gateway/postern/gateway/mail"
	"github.com/postern-gateway/postern/gateway/person/password"
	"github.com/postern-gateway/postern/gateway/person/throttle"
	"github.com/postern-gateway/postern/gateway/person/token"
	"github.com/postern-gateway/postern/gateway/state"
)

// SignIn takes an address and a password. Whoever is asked for, and whether there is such a person or not, it computes one
// hash, or none where it is throttled (Throttled); and says ErrCredentials. Where the person has second factors, Prove
// comes next.
func (d *Directory) SignIn(ctx context.Context, c Client, email, given string) (in SignedIn, err error) {
	var p *individual
	defer func() {
		subject := ""
		if p != nil {
			subject = p.ID
		}
		d.tell(ctx, in.Session.Person, "person.signin", subject, err)
	}()
	address, err := mail.Address(email)
	if err != nil {
		address = "" // nobody's: the same work is done
	}
	p, err = d.find(ctx, address)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return SignedIn{}, err
	}
	if address == "" {
		address = mail.Harmless(email)
	}
	stale, err := d.guess(ctx, c, p, d.nameOf(address), given)
	if err != nil {
		return SignedIn{}, err
	}
	rehash := ""
	if stale { // the cost was raised since
		if rehash, err = d.hasher.Hash(ctx, given); err != nil {
			return SignedIn{}, err
		}
	}
	old := p.Hash
	end, err := d.begin(ctx)
	if err != nil {
		return SignedIn{}, err
	}
	defer end()
	if p, err = d.get(ctx, p.ID); err != nil {
		return SignedIn{}, err
	}
	if p.Hash != old {
		return SignedIn{}, ErrCredentials // changed in this very moment
	}
	b := new(state.Batch)
	if rehash != "" {
		p.Hash = rehash
		if err := d.put(ctx, b, p); err != nil {
			return SignedIn{}, err
		}
	}
	return d.admit(ctx, b, p, c, "password")
}

// guess compares a password with a person's (nil: nobody's), and counts the try.
func (d *Directory) guess(ctx context.Context, c Client, p *individual, name, given string) (stale bool, err error) {
	try := throttle.Try{What: "password", Name: name, From: throttle.Network(c.Address), Device: d.known(p, c.Device)}
	if wait := d.throttle.Begin(try); wait > 0 {
		return false, Throttled{After: wait}
	}
	hash := ""
	if p != nil {
		hash = p.Hash
	}
	if len(given) > 8*password.MaxLength {
		given, hash = "", "" // longer than any; the work is the same
	}
	ok, stale, err := d.hasher.Verify(ctx, hash, given)
	if err != nil {
		return false, err
	}
	if !ok {
		return false, ErrCredentials
	}
	d.throttle.Succeeded(try)
	return stale, nil
}

// admit lets in a person who gave a right password: to a session, or to the question for a second factor.
func (d *Directory) admit(ctx context.Context, b *state.Batch, p *individual, c Client, factors ...string) (SignedIn, error) {
	if p.Status != Active {
		return SignedIn{}, ErrLocked
	}
	var in SignedIn
	var err error
	if wanted := p.Kinds(); wanted != nil {
		in.Factors = wanted
		in.Pending, err = d.mint.Make(b, token.Factor, p.ID, factorTime, token.Letter{})
	} else {
		in, err = d.enter(ctx, b, p, c, factors...)
	}
	if err != nil {
		return SignedIn{}, err
	}
	if err := d.commit(ctx, b); err != nil {
		return SignedIn{}, err
	}
	return in, nil
}

// Proof is one proof of who somebody is; exactly one is given.
type Proof struct {
	Password string // for Reauthenticate only
	Code     string // of an authenticator app, six figures
	Recovery string // one of the recovery codes
	// Ceremony and Assertion are the token that PasskeyOptions gave and what the browser answered, as JSON.
	Ceremony  string
	Assertion []byte
}

// How many wrong factors one right password may be followed by, and a password in all before a right one.
const (
	maxFactorTries = 5
	maxMisses      = 50
)

// Prove ends a sign-in with a second factor. After five wrong ones the password has to be given again, and the person is
// told that somebody knows it. After fifty without a right one the password is gone: a six-figure code must not be guessed
// over weeks, and who can do this much is known to have the password.
func (d *Directory) Prove(ctx context.Context, c Client, pending string, proof Proof) (in SignedIn, err error) {
	subject := ""
	defer func() { d.tell(ctx, in.Session.Person, "person.signin_factor", subject, err) }()
	t, _, err := d.mint.Read(ctx, token.Factor, pending)
	if err != nil {
		return SignedIn{}, err
	}
	subject = t.Person
	end, err := d.begin(ctx)
	if err != nil {
		return SignedIn{}, err
	}
	defer end()
	if t, _, err = d.mint.Read(ctx, token.Factor, pending); err != nil {
		return SignedIn{}, err
	}
	p, err := d.get(ctx, t.Person)
	if err != nil {
		return SignedIn{}, err
	}
	if p.Status != Active {
		return SignedIn{}, ErrLocked
	}
	try := throttle.Try{What: "factor", Name: p.ID, From: throttle.Network(c.Address), Device: d.known(p, c.Device)}
	if wait := d.throttle.Begin(try); wait > 0 {
		return SignedIn{}, Throttled{After: wait}
	}
	b := new(state.Batch)
	factor, err := d.prove(p, proof, t.Person, false)
	if errors.Is(err, ErrCode) || errors.Is(err, ErrToken) {
		return SignedIn{}, errors.Join(err, d.missed(ctx, b, p, t))
	}
	if err != nil {
		return SignedIn{}, err
	}
	d.throttle.Succeeded(try)
	p.Misses = 0
	t.Spend(b)
	if err := d.put(ctx, b, p); err != nil {
		return SignedIn{}, err
	}
	if in, err = d.enter(ctx, b, p, c, "password", factor); err != nil {
		return SignedIn{}, err
	}
	if err := d.commit(ctx, b); err != nil {
		return SignedIn{}, err
	}
	return in, nil
}

// missed counts a wrong second factor after a right password.
func (d *Directory) missed(ctx context.Context, b *state.Batch, p *individual, t *token.Token) error {
	if p.Misses++; p.Misses >= maxMisses {
		p.Hash, p.Misses = "", 0
	}
	if err := d.put(ctx, b, p); err != nil {
		return err
	}
	if t.Tries+1 >= maxFactorTries || p.Hash == "" {
		t.Spend(b)
		if p.Hash == "" {
			if err := d.mint.SpendAll(ctx, b, p.ID, token.Factor); err != nil {
				return err
			}
		}
		return d.post(ctx, b, d.notice("guesses", p))
	}
	if err := d.mint.Failed(b, t); err != nil {
		return err
	}
	return d.commit(ctx, b)
}

// prove checks a proof other than a password, and uses it up: what it changes in p has to be stored. verified demands that
// a passkey's device asked who holds it.
func (d *Directory) prove(p *individual, proof Proof, ceremony string, verified bool) (factor string, err error) {
	switch {
	case proof.Assertion != nil:
		return "passkey", d.assert(p, proof, ceremony, verified)
	case proof.Recovery != "":
		return "recovery", p.SpendRecovery(proof.Recovery, d.recovery(p))
	}
	return "totp", p.SpendCode(proof.Code, d.now())
}

// Reauthenticate proves again who is signed in, by the password or a passkey, before something dangerous. The session goes
// on under the token that it returns.
func (d *Directory) Reauthenticate(ctx context.Context, c Client, text string, proof Proof) (token string, s Session, err error) {
	r, err := d.sessions.Lookup(ctx, text)
	if err != nil {
		return "", Session{}, err
	}
	defer func() { d.tell(ctx, r.Person, "person.reauthenticate", r.Person, err) }()
	p, err := d.get(ctx, r.Person)
	if err != nil {
		return "", Session{}, err
	}
	factor := "password"
	if proof.Assertion == nil {
		if _, err := d.guess(ctx, c, p, d.nameOf(p.Email), proof.Password); err != nil {
			return "", Session{}, err
		}
	}
	end, err := d.begin(ctx)
	if err != nil {
		return "", Session{}, err
	}
	defer end()
	b := new(state.Batch)
	if proof.Assertion != nil {
		if p, err = d.get(ctx, r.Person); err != nil {
			return "", Session{}, err
		}
		if factor, err = d.prove(p, proof, p.ID, true); err != nil {
			return "", Session{}, err
		}
		if err := d.put(ctx, b, p); err != nil {
			return "", Session{}, err
		}
	}
	if token, s, err = d.sessions.Rotate(ctx, b, text, factor); err != nil {
		return "", Session{}, err
	}
	if err := d.commit(ctx, b); err != nil {
		return "", Session{}, err
	}
	return token, s, nil
}

// notice is a message about a change, with a link to choose another password.
func (d *Directory) notice(kind string, p *individual) mail.Message {
	return mail.Message{Kind: kind, To: p.Email, Owner: p.ID, Language: p.Language, Path: ForgotPath}
}

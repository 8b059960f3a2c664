package person

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-gateway/postern/gateway/mail"
	"github.com/postern-gateway/postern/gateway/person/password"
	"github.com/postern-gateway/postern/gateway/person/settings"
	"github.com/postern-gateway/postern/gateway/person/team"
	"github.com/postern-gateway/postern/gateway/person/throttle"
	"github.com/postern-gateway/postern/gateway/person/token"
	"github.com/postern-gateway/postern/gateway/state"
)

// The pages that links in mails lead to, below the public URL, with the parameter "token". A page must not act on GET:
// programs that look at mail for dangers open its links.
const (
	ConfirmPath = "/confirm"      // Confirm
	SignInPath  = "/signin"       // SignIn
	ResetPath   = "/reset"        // Reset
	ForgotPath  = "/forgot"       // RequestReset
	AddressPath = "/address"      // ConfirmEmail
	UndoPath    = "/address/undo" // UndoEmail
	// Invitations lead to team.InvitationPath: Teams().Invited, then Accept or Join.
	factorTime = 10 * time.Minute // a right password waits for its second factor so long
)

// Registration is what somebody says who becomes a person. There is nothing in it that could be a right.
type Registration struct {
	Name     string // what others of an account see; may be empty
	Password string
	Language string // "en" or "zh"; others get the settings'
	Policy   string // the version of the policy that was accepted
}

// asked counts somebody who asks for a mail: each network gets some, whatever the addresses are.
func (d *Directory) asked(c Client, name string) error {
	if wait := d.throttle.Begin(throttle.Try{What: "mail", Name: name, From: throttle.Network(c.Address)}); wait > 0 {
		return Throttled{After: wait}
	}
	return nil
}

// post sends messages, with a batch. That an address was sent enough is no error: who asks must not learn it.
func (d *Directory) post(ctx context.Context, b *state.Batch, list ...mail.Message) error {
	err := d.c.Mail.Post(ctx, b, list...)
	if errors.Is(err, mail.ErrThrottled) {
		return nil
	}
	return err
}

// SignUp sends a link to confirm an address, or, where the address is registered, a message that says so; the answer is the
// same. A password is chosen at the link, by who can read the address's mail: chosen now, it could be a stranger's.
func (d *Directory) SignUp(ctx context.Context, c Client, email, language string) error {
	if d.settings.Signup != settings.Open {
		return ErrSignup
	}
	address, err := mail.Address(email)
	if err != nil {
		return errors.Join(ErrInvalid, err)
	}
	if err := d.asked(c, d.nameOf(address)); err != nil {
		return err
	}
	end, err := d.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	p, err := d.find(ctx, address)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	// Both ways make a token, seal and store one message, and commit once; the token of the second is sent to nobody.
	ttl := d.settings.Tokens.Confirm
	b := new(state.Batch)
	text, err := d.mint.Make(b, token.Confirm, "", ttl, token.Letter{Address: address})
	if err != nil {
		return err
	}
	m := mail.Message{Kind: "confirm", To: address, Language: d.language(language), Path: ConfirmPath, Token: text, Values: map[string]string{"Hours": mail.Hours(ttl)}, Expires: d.now().Add(ttl), Asked: true}
	if p != nil {
		m.Kind, m.Path, m.Token, m.Language = "registered", SignInPath, "", p.Language
	}
	return d.post(ctx, b, m)
}

// Confirm makes the person whose link was opened, with an account of their own, and signs them in. ErrTaken means that the
// address was registered since.
func (d *Directory) Confirm(ctx context.Context, c Client, text string, r Registration) (in SignedIn, err error) {
	defer func() { d.tell(ctx, in.Session.Person, "person.signup", in.Session.Person, err) }()
	if d.settings.Signup != settings.Open {
		return SignedIn{}, ErrSignup
	}
	_, l, err := d.mint.Read(ctx, token.Confirm, text)
	if err != nil {
		return SignedIn{}, err
	}
	p, err := d.register(ctx, l.Address, r)
	if err != nil {
		return SignedIn{}, err
	}
	end, err := d.begin(ctx)
	if err != nil {
		return SignedIn{}, err
	}
	defer end()
	t, _, err := d.mint.Read(ctx, token.Confirm, text) // once more: two who hold the link may have come this far
	if err != nil {
		return SignedIn{}, err
	}
	if err := d.free(ctx, l.Address); err != nil {
		return SignedIn{}, err
	}
	account, err := d.c.Accounts.Create(ctx, OwnAccount)
	if err != nil {
		return SignedIn{}, fmt.Errorf("make an account: %w", err)
	}
	b := new(state.Batch)
	t.Spend(b)
	if _, err := d.teams.Join(b, p.ID, account, team.Owner); err != nil {
		return SignedIn{}, err
	}
	return d.settle(ctx, b, p, c)
}

// OwnAccount is the name of the account that a person gets at sign-up. It says nothing of the person: accounts' names are
// not sealed.
const OwnAccount = "Personal"

// register checks what somebody says, hashes the password, and returns the person they will be.
func (d *Directory) register(ctx context.Context, address string, r Registration) (*individual, error) {
	if err := team.CheckName(r.Name); err != nil {
		return nil, err
	}
	now := d.now().UTC().Truncate(time.Second)
	p := &individual{entry: entry{ID: token.ID("pers_"), Created: now, Status: Active}}
	p.Email, p.Name, p.Language = address, r.Name, d.language(r.Language)
	if version := d.policy(); version != "" {
		if r.Policy != version {
			return nil, ErrPolicy
		}
		p.Accepted = []Acceptance{{Version: version, Time: now}}
	}
	var err error
	if p.Hash, err = d.newHash(ctx, r.Password, p); err != nil {
		return nil, err
	}
	return p, nil
}

// newHash hashes a password that a person chose, unless it is weak.
func (d *Directory) newHash(ctx context.Context, chosen string, p *individual) (string, error) {
	if err := password.Check(chosen, d.settings.Passwords.Least, p.Email, p.Name, d.settings.Service); err != nil {
		return "", err
	}
	return d.hasher.Hash(ctx, chosen)
}

// free refuses an address that is somebody's.
func (d *Directory) free(ctx context.Context, address string) error {
	_, err := d.c.Store.Get(ctx, []byte(d.index(address)))
	switch {
	case err == nil:
		return ErrTaken
	case errors.Is(err, state.ErrNotFound):
		return nil
	}
	return fmt.Errorf("read person: %w", err)
}

// settle stores a new person with what else is in the batch, and signs them in.
func (d *Directory) settle(ctx context.Context, b *state.Batch, p *individual, c Client) (SignedIn, error) {
	b.Put([]byte(d.index(p.Email)), []byte(p.ID))
	if err := d.put(ctx, b, p); err != nil {
		return SignedIn{}, err
	}
	in, err := d.enter(ctx, b, p, c, "mail", "password")
	if err != nil {
		return SignedIn{}, err
	}
	if err := d.commit(ctx, b); err != nil {
		return SignedIn{}, err
	}
	return in, nil
}

// policy is the version in effect, or "".
func (d *Directory) policy() string {
	if d.c.Policy == nil {
		return ""
	}
	return d.c.Policy()
}

// AcceptPolicy records that a person accepted the version in effect; ErrPolicy for any other.
func (d *Directory) AcceptPolicy(ctx context.Context, s Session, version string) error {
	if version == "" || version != d.policy() {
		return ErrPolicy
	}
	_, err := d.edit(ctx, s.Person, func(p *individual, _ *state.Batch) error {
		if n := len(p.Accepted); n > 0 && p.Accepted[n-1].Version == version {
			return nil
		}
		p.Accepted = last(append(p.Accepted, Acceptance{Version: version, Time: d.now().UTC().Truncate(time.Second)}))
		return nil
	})
	d.tell(ctx, s.Person, "person.policy_accept", s.Person, err)
	return err
}

// MustAccept reports whether a person has not accepted the version in effect yet.
func (d *Directory) MustAccept(p Person) bool {
	version := d.policy()
	return version != "" && (len(p.Accepted) == 0 || p.Accepted[len(p.Accepted)-1].Version != version)
}

// SetConsent records a decision about a purpose that needs consent.
func (d *Directory) SetConsent(ctx context.Context, s Session, purpose string, given bool) error {
	if purpose != Communicate && purpose != Training {
		return fmt.Errorf("%w: no purpose that asks for consent", ErrInvalid)
	}
	_, err := d.edit(ctx, s.Person, func(p *individual, _ *state.Batch) error {
		if q := p.public(); q.Consented(purpose) == given {
			return nil
		}
		p.Consents = last(append(p.Consents, Consent{Purpose: purpose, Given: given, Time: d.now().UTC().Truncate(time.Second)}))
		return nil
	})
	d.tell(ctx, s.Person, "person.consent", s.Person, err)
	return err
}

// last keeps the newest decisions.
func last[T any](list []T) []T { return list[max(0, len(list)-maxDecisions):] }

// SetProfile changes a person's name and language.
func (d *Directory) SetProfile(ctx context.Context, s Session, name, language string) error {
	if err := team.CheckName(name); err != nil {
		return err
	}
	_, err := d.edit(ctx, s.Person, func(p *individual, _ *state.Batch) error {
		p.Name, p.Language = name, d.language(language)
		return nil
	})
	d.tell(ctx, s.Person, "person.profile", s.Person, err)
	return err
}

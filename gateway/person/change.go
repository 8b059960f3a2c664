package person

import (
	"context"
	"errors"
	"time"

	"github.com/postern-gateway/postern/gateway/mail"
	"github.com/postern-gateway/postern/gateway/person/token"
	"github.com/postern-gateway/postern/gateway/state"
)

// RequestReset sends a link to choose another password, or, where nobody has the address, a message that says so; the
// answer is the same.
func (d *Directory) RequestReset(ctx context.Context, c Client, email, language string) error {
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
	// As at SignUp both ways do the same; the token of the second is nobody's, and sent to nobody.
	whose, ttl := "", d.settings.Tokens.Reset
	if p != nil {
		whose = p.ID
	}
	b := new(state.Batch)
	text, err := d.mint.Make(b, token.Reset, whose, ttl, token.Letter{})
	if err != nil {
		return err
	}
	m := mail.Message{Kind: "unregistered", To: address, Language: d.language(language), Expires: d.now().Add(ttl), Asked: true}
	if p != nil {
		m.Kind, m.Language, m.Path, m.Token, m.Values = "reset", p.Language, ResetPath, text, map[string]string{"Hours": mail.Hours(ttl)}
	}
	return d.post(ctx, b, m)
}

// Reset sets the password by a link. It ends all sessions and forgets known devices, and does not sign in: second factors
// are asked for as ever.
func (d *Directory) Reset(ctx context.Context, text, chosen string) (err error) {
	subject := ""
	defer func() { d.tell(ctx, subject, "person.password_reset", subject, err) }()
	t, _, err := d.mint.Read(ctx, token.Reset, text)
	if err != nil {
		return err
	}
	if t.Person == "" {
		return ErrToken
	}
	subject = t.Person
	p, err := d.get(ctx, t.Person)
	if err != nil {
		return err
	}
	hash, err := d.newHash(ctx, chosen, p)
	if err != nil {
		return err
	}
	_, err = d.amend(ctx, t.Person, func(p *individual, b *state.Batch) ([]mail.Message, error) {
		if _, _, err := d.mint.Read(ctx, token.Reset, text); err != nil {
			return nil, err
		}
		p.Hash = hash
		return []mail.Message{d.notice("password", p)}, d.expel(ctx, b, p, "")
	})
	return err
}

// expel ends what somebody who knows the old password could have: sessions but one, known devices, links to another
// password.
func (d *Directory) expel(ctx context.Context, b *state.Batch, p *individual, except string) error {
	p.Epoch++
	if err := d.mint.SpendAll(ctx, b, p.ID, token.Reset, token.Address); err != nil {
		return err
	}
	return d.sessions.EndAll(ctx, b, p.ID, except)
}

// SetPassword changes the password of whose s is, which needs a fresh sign-in. All other sessions are over; this one goes on
// under the token that it returns.
func (d *Directory) SetPassword(ctx context.Context, s Session, text, chosen string) (fresh string, device string, err error) {
	defer func() { d.tell(ctx, s.Person, "person.password", s.Person, err) }()
	if err := d.Fresh(s); err != nil {
		return "", "", err
	}
	p, err := d.get(ctx, s.Person)
	if err != nil {
		return "", "", err
	}
	hash, err := d.newHash(ctx, chosen, p)
	if err != nil {
		return "", "", err
	}
	p, err = d.amend(ctx, s.Person, func(p *individual, b *state.Batch) ([]mail.Message, error) {
		if err := d.expel(ctx, b, p, s.ID); err != nil {
			return nil, err
		}
		p.Hash = hash
		fresh, _, err = d.sessions.Rotate(ctx, b, text)
		return []mail.Message{d.notice("password", p)}, err
	})
	if err != nil {
		return "", "", err
	}
	return fresh, d.device(p), nil
}

// RequestEmail begins a change of address, which needs a fresh sign-in: a link goes to the new one. Where that is
// registered, a message says so to whoever reads it; the answer is the same.
func (d *Directory) RequestEmail(ctx context.Context, c Client, s Session, email string) (err error) {
	defer func() { d.tell(ctx, s.Person, "person.email_request", s.Person, err) }()
	if err := d.Fresh(s); err != nil {
		return err
	}
	address, err := mail.Address(email)
	if err != nil {
		return errors.Join(ErrInvalid, err)
	}
	if err := d.asked(c, s.Person); err != nil {
		return err
	}
	end, err := d.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	p, err := d.get(ctx, s.Person)
	if err != nil {
		return err
	}
	taken := d.free(ctx, address)
	if taken != nil && !errors.Is(taken, ErrTaken) {
		return taken
	}
	ttl := d.settings.Tokens.Confirm
	b := new(state.Batch)
	text, err := d.mint.Make(b, token.Address, p.ID, ttl, token.Letter{Address: address})
	if err != nil {
		return err
	}
	m := mail.Message{Kind: "address_taken", To: address, Language: p.Language, Expires: d.now().Add(ttl), Asked: true}
	if taken == nil {
		m.Kind, m.Path, m.Token, m.Values = "address", AddressPath, text, map[string]string{"Hours": mail.Hours(ttl)}
	}
	return d.post(ctx, b, m)
}

// ConfirmEmail makes the address whose link was opened that of whose s is, who must have asked for it. The old one is told,
// with a link that undoes it.
func (d *Directory) ConfirmEmail(ctx context.Context, s Session, text string) (err error) {
	defer func() { d.tell(ctx, s.Person, "person.email", s.Person, err) }()
	_, err = d.amend(ctx, s.Person, func(p *individual, b *state.Batch) ([]mail.Message, error) {
		t, l, err := d.mint.Read(ctx, token.Address, text)
		if err != nil {
			return nil, err
		}
		if t.Person != s.Person {
			return nil, ErrToken
		}
		if err := d.free(ctx, l.Address); err != nil {
			return nil, err
		}
		if err := d.mint.SpendAll(ctx, b, p.ID, token.Address, token.Reset); err != nil { // links that the old address was sent, too
			return nil, err
		}
		ttl := d.settings.Tokens.Undo
		undo, err := d.mint.Make(b, token.Undo, p.ID, ttl, token.Letter{Address: p.Email})
		if err != nil {
			return nil, err
		}
		told := mail.Message{Kind: "address_changed", To: p.Email, Owner: p.ID, Language: p.Language, Path: UndoPath, Token: undo, Values: map[string]string{"Hours": mail.Hours(ttl)}}
		d.move(b, p, l.Address)
		return []mail.Message{told}, nil
	})
	return err
}

// move gives a person another address, which is free.
func (d *Directory) move(b *state.Batch, p *individual, address string) {
	b.Delete([]byte(d.index(p.Email)))
	b.Put([]byte(d.index(address)), []byte(p.ID))
	p.Email = address
}

// suspect is how long before a change of address that is undone its maker may have been there.
const suspect = 24 * time.Hour

// UndoEmail gives a person the address back that the link was sent to. Whoever changed it may know the password and may
// have added factors of their own: the password is gone, like all sessions, recovery codes, factors added since or within a
// day before, and the links that undo later changes. reset is the token of a link (ResetPath) to choose another password.
func (d *Directory) UndoEmail(ctx context.Context, text string) (reset string, err error) {
	subject := ""
	defer func() { d.tell(ctx, subject, "person.email_undo", subject, err) }()
	t, _, err := d.mint.Read(ctx, token.Undo, text)
	if err != nil {
		return "", err
	}
	subject = t.Person
	_, err = d.amend(ctx, t.Person, func(p *individual, b *state.Batch) ([]mail.Message, error) {
		t, l, err := d.mint.Read(ctx, token.Undo, text)
		if err != nil {
			return nil, err
		}
		if err := d.mint.SpendLater(ctx, b, t); err != nil {
			return nil, err
		}
		if p.Email != l.Address {
			if err := d.free(ctx, l.Address); err != nil {
				return nil, err
			}
			d.move(b, p, l.Address)
		}
		p.Hash = ""
		p.DropSince(t.Made.Add(-suspect))
		if err := d.expel(ctx, b, p, ""); err != nil {
			return nil, err
		}
		reset, err = d.mint.Make(b, token.Reset, p.ID, d.settings.Tokens.Reset, token.Letter{})
		return []mail.Message{d.notice("password", p)}, err
	})
	if err != nil {
		return "", err
	}
	return reset, nil
}

package person

import (
	"context"
	"errors"
	"fmt"

	"github.com/postern-gateway/postern/gateway/person/settings"
	"github.com/postern-gateway/postern/gateway/person/team"
	"github.com/postern-gateway/postern/gateway/state"
)

// Teams is who takes part in which account.
func (d *Directory) Teams() *team.Teams { return d.teams }

// roster is the directory as teams know it.
type roster struct{ d *Directory }

// Contact implements team.People.
func (r roster) Contact(ctx context.Context, id string) (team.Contact, error) {
	p, err := r.d.get(ctx, id)
	if err != nil {
		return team.Contact{}, err
	}
	return team.Contact{Name: p.Name, Email: p.Email, Language: p.Language}, nil
}

// Registered implements team.People.
func (r roster) Registered(ctx context.Context, address string) (bool, error) {
	err := r.d.free(ctx, address)
	if errors.Is(err, ErrTaken) {
		return true, nil
	}
	return false, err
}

// Accept takes part in the account that whose s is was invited to. The invitation must have gone to their own address: a
// link that was passed on is ErrForbidden. Who is a member already stays what they are.
func (d *Directory) Accept(ctx context.Context, s Session, text string) (m team.Membership, err error) {
	defer func() { d.tell(ctx, s.Person, "account.join", m.Account, err) }()
	end, err := d.begin(ctx)
	if err != nil {
		return m, err
	}
	defer end()
	p, err := d.get(ctx, s.Person)
	if err != nil {
		return m, err
	}
	b := new(state.Batch)
	inv, err := d.teams.Take(ctx, b, text)
	if err != nil {
		return m, err
	}
	if inv.Email != p.Email {
		return m, ErrForbidden
	}
	parts, err := d.teams.Memberships(ctx, p.ID)
	if err != nil {
		return m, err
	}
	if len(parts) >= team.MaxMemberships {
		return m, fmt.Errorf("%w: a person takes part in at most %d accounts", ErrTooMany, team.MaxMemberships)
	}
	if m, err = d.teams.Part(ctx, inv.Account, p.ID); errors.Is(err, ErrNotFound) {
		m, err = d.teams.Join(b, p.ID, inv.Account, inv.Role)
	}
	if err != nil {
		return team.Membership{}, err
	}
	return m, d.commit(ctx, b)
}

// Join makes a person of who was invited and is none yet, with the part they were invited to, and signs them in.
func (d *Directory) Join(ctx context.Context, c Client, text string, reg Registration) (in SignedIn, err error) {
	defer func() { d.tell(ctx, in.Session.Person, "person.join", in.Session.Person, err) }()
	if d.settings.Signup == settings.Closed {
		return SignedIn{}, ErrSignup
	}
	inv, err := d.teams.Invited(ctx, text)
	if err != nil {
		return SignedIn{}, err
	}
	p, err := d.register(ctx, inv.Email, reg)
	if err != nil {
		return SignedIn{}, err
	}
	end, err := d.begin(ctx)
	if err != nil {
		return SignedIn{}, err
	}
	defer end()
	b := new(state.Batch)
	if inv, err = d.teams.Take(ctx, b, text); err != nil { // it may have been used or withdrawn meanwhile
		return SignedIn{}, err
	}
	if err := d.free(ctx, inv.Email); err != nil {
		return SignedIn{}, err
	}
	if _, err := d.teams.Join(b, p.ID, inv.Account, inv.Role); err != nil {
		return SignedIn{}, err
	}
	return d.settle(ctx, b, p, c)
}

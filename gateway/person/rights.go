package person

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/postern-gateway/postern/gateway/person/token"
	"github.com/postern-gateway/postern/gateway/state"
)

// Item is one piece of what is kept about a person.
type Item struct {
	Class string // data class: "account", "security" or "device"
	Kind  string // "person", "membership", "invitation" (sent), "session", "device", "passkey", "authenticator"
	ID    string // of the piece; the person's where it has none
	Data  any    // to be written as JSON
}

// Export walks everything that is kept about a person, one piece at a time; an error ends it. Of secrets (the password's
// hash, the authenticator's and the recovery codes') it says that they are there.
func (d *Directory) Export(ctx context.Context, id string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		list, err := d.items(ctx, id)
		for _, it := range list {
			if !yield(it, nil) {
				return
			}
		}
		if err != nil {
			yield(Item{}, err)
		}
	}
}

func (d *Directory) items(ctx context.Context, id string) (list []Item, err error) {
	p, err := d.get(ctx, id)
	if err != nil {
		return nil, err
	}
	q := p.public()
	add := func(class, kind, id string, data any) {
		list = append(list, Item{Class: class, Kind: kind, ID: id, Data: data})
	}
	add("account", "person", id, q)
	parts, err := d.teams.Memberships(ctx, id)
	for _, m := range parts {
		add("account", "membership", m.Account, m)
		sent, err := d.teams.Sent(ctx, m.Account, id)
		if err != nil {
			return list, err
		}
		for _, inv := range sent {
			add("account", "invitation", inv.ID, inv)
		}
	}
	if err != nil {
		return list, err
	}
	sessions, err := d.sessions.List(ctx, id)
	for _, s := range sessions {
		from := map[string]any{"network": s.Network, "agent": s.Agent}
		s.Network, s.Agent = "", ""
		add("security", "session", s.ID, s)
		add("device", "device", s.ID, from)
	}
	for _, k := range q.Passkeys {
		add("security", "passkey", k.ID, k)
	}
	if p.TOTP != nil {
		add("security", "authenticator", id, map[string]any{"created": p.TOTP.Created})
	}
	return list, err
}

// Remove destroys everything about a person: sessions, links, memberships, messages that wait, invitations from and to them,
// the record, and the key that all of it is sealed under, so that nothing that lingers on disk or in older backups can be
// read. It closes and returns the accounts that nobody takes part in any more. ErrLastOwner says that an account with other
// members would be without an owner: another has to become one first.
//
// A crash or an error in it leaves a note, and the next Open or Remove completes it. Removing who is not there is ErrNotFound.
func (d *Directory) Remove(ctx context.Context, id string) (orphans []string, err error) {
	defer func() { d.tell(ctx, "", "person.remove", id, err) }()
	end, err := d.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	p, err := d.get(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return d.resume(ctx, id, err)
	}
	if err != nil {
		return nil, err
	}
	parts, orphans, blocked, err := d.teams.Sole(ctx, id)
	if err != nil {
		return nil, err
	}
	if len(blocked) > 0 {
		return nil, fmt.Errorf("%w: %v", ErrLastOwner, blocked)
	}
	b := new(state.Batch)
	if err := token.Record(b, removedPrefix+id, removal{Close: orphans}, 0); err != nil {
		return nil, err
	}
	b.Delete([]byte(d.index(p.Email)))
	b.Delete([]byte(personPrefix + id))
	if err := d.sessions.EndAll(ctx, b, id, ""); err != nil {
		return nil, err
	}
	if err := d.mint.SpendAll(ctx, b, id); err != nil {
		return nil, err
	}
	if err := d.teams.Uninvite(ctx, b, p.Email); err != nil {
		return nil, err
	}
	for _, m := range parts {
		d.teams.Quit(b, m)
		by := id
		if slices.Contains(orphans, m.Account) {
			by = "" // nobody is left who could welcome anybody
		}
		if err := d.teams.Forget(ctx, b, m.Account, by); err != nil {
			return nil, err
		}
	}
	if err := d.c.Mail.Remove(ctx, id, p.Email); err != nil { // before the address is forgotten
		return nil, err
	}
	if err := d.commit(ctx, b); err != nil {
		return nil, err
	}
	return orphans, d.shred(ctx, id, orphans)
}

// removal is a note of a removal that is not complete.
type removal struct {
	Close []string `json:"close,omitempty"` // accounts
}

// resume ends a removal that was broken off; without one the error is missing.
func (d *Directory) resume(ctx context.Context, id string, missing error) ([]string, error) {
	value, err := d.c.Store.Get(ctx, []byte(removedPrefix+id))
	if errors.Is(err, state.ErrNotFound) {
		return nil, missing
	}
	var r removal
	if err := errors.Join(err, json.Unmarshal(value, &r)); err != nil {
		return nil, fmt.Errorf("read record %s: %w", removedPrefix+id, err)
	}
	return r.Close, d.shred(ctx, id, r.Close)
}

// shred ends a removal: the accounts that nobody is left in, and the key.
func (d *Directory) shred(ctx context.Context, id string, orphans []string) error {
	for _, account := range orphans {
		if err := d.c.Accounts.Close(ctx, account); err != nil {
			return fmt.Errorf("close account %s: %w", account, err)
		}
	}
	if err := d.c.Vault.Shred(ctx, id); err != nil {
		return fmt.Errorf("destroy the key of %s: %w", id, err)
	}
	b := new(state.Batch)
	b.Delete([]byte(removedPrefix + id))
	return d.commit(ctx, b)
}

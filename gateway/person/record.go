package person

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/postern-gateway/postern/gateway/mail"
	"github.com/postern-gateway/postern/gateway/person/factor"
	"github.com/postern-gateway/postern/gateway/person/token"
	"github.com/postern-gateway/postern/gateway/state"
)

// entry is a person as the store has it.
type entry struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Status  Status    `json:"status"`
	Epoch   int       `json:"epoch"` // of known devices: a new one forgets them all
	Sealed  []byte    `json:"sealed"`
}

// private is what is sealed under the person's key.
type private struct {
	Email    string `json:"email"`
	Name     string `json:"name,omitempty"`
	Language string `json:"language"`
	Hash     string `json:"hash,omitempty"`   // of the password; empty: only passkeys
	Misses   int    `json:"misses,omitempty"` // second factors that were wrong since one was right
	factor.Set
	Accepted []Acceptance `json:"accepted,omitempty"`
	Consents []Consent    `json:"consents,omitempty"`
}

// individual is a person with everything.
type individual struct {
	entry
	private
}

// get reads a person.
func (d *Directory) get(ctx context.Context, id string) (*individual, error) {
	text, err := d.c.Store.Get(ctx, []byte(personPrefix+id))
	if errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrTooLarge) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read person: %w", err)
	}
	p := new(individual)
	if err := json.Unmarshal(text, &p.entry); err != nil || p.ID != id {
		return nil, fmt.Errorf("record of %s is damaged", id)
	}
	plain, err := d.c.Vault.Open(ctx, id, "person:"+id, p.Sealed)
	if err != nil {
		return nil, fmt.Errorf("open the record of %s: %w", id, err)
	}
	if err := json.Unmarshal(plain, &p.private); err != nil {
		return nil, fmt.Errorf("record of %s is damaged", id)
	}
	return p, nil
}

// put writes a person into a batch.
func (d *Directory) put(ctx context.Context, b *state.Batch, p *individual) error {
	plain, err := json.Marshal(p.private)
	if err != nil {
		return err
	}
	if p.Sealed, err = d.c.Vault.Seal(ctx, p.ID, "person:"+p.ID, plain); err != nil {
		return fmt.Errorf("seal the record of %s: %w", p.ID, err)
	}
	return token.Record(b, personPrefix+p.ID, p.entry, 0)
}

// commit writes a batch.
func (d *Directory) commit(ctx context.Context, b *state.Batch) error {
	if err := d.c.Store.Commit(ctx, b); err != nil {
		return fmt.Errorf("store people: %w", err)
	}
	return nil
}

// edit changes one person and stores what change did to it, and to the batch, in one commit.
func (d *Directory) edit(ctx context.Context, id string, change func(p *individual, b *state.Batch) error) (*individual, error) {
	return d.amend(ctx, id, func(p *individual, b *state.Batch) ([]mail.Message, error) { return nil, change(p, b) })
}

// amend is edit with messages about the change, which go with it or not at all.
func (d *Directory) amend(ctx context.Context, id string, change func(p *individual, b *state.Batch) ([]mail.Message, error)) (*individual, error) {
	end, err := d.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	p, err := d.get(ctx, id)
	if err != nil {
		return nil, err
	}
	b := new(state.Batch)
	messages, err := change(p, b)
	if err != nil {
		return nil, err
	}
	if err := d.put(ctx, b, p); err != nil {
		return nil, err
	}
	if len(messages) == 0 {
		return p, d.commit(ctx, b)
	}
	return p, d.post(ctx, b, messages...)
}

// index is the key under which an address leads to its person.
func (d *Directory) index(address string) string {
	return emailPrefix + d.mint.Digest("address", address)
}

// find returns the person with an address, or ErrNotFound.
func (d *Directory) find(ctx context.Context, address string) (*individual, error) {
	id, err := d.c.Store.Get(ctx, []byte(d.index(address)))
	if errors.Is(err, state.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read person: %w", err)
	}
	return d.get(ctx, string(id))
}

// Get returns a person, or ErrNotFound.
func (d *Directory) Get(ctx context.Context, id string) (Person, error) {
	p, err := d.get(ctx, id)
	if err != nil {
		return Person{}, err
	}
	return p.public(), nil
}

// Find returns the person with an e-mail address, for operators; ErrNotFound where there is none.
func (d *Directory) Find(ctx context.Context, email string) (Person, error) {
	address, err := mail.Address(email)
	if err != nil {
		return Person{}, errors.Join(ErrInvalid, err)
	}
	p, err := d.find(ctx, address)
	if err != nil {
		return Person{}, err
	}
	return p.public(), nil
}

// List returns at most limit people with ids above after, by id, for operators.
func (d *Directory) List(ctx context.Context, after string, limit int) ([]Person, error) {
	var ids []string
	for e, err := range d.c.Store.Scan(ctx, []byte(personPrefix), []byte(personPrefix+after+"\x00")) {
		if err != nil {
			return nil, fmt.Errorf("list people: %w", err)
		}
		if len(ids) >= limit {
			break
		}
		ids = append(ids, string(e.Key[len(personPrefix):]))
	}
	var list []Person
	for _, id := range ids {
		p, err := d.Get(ctx, id)
		if errors.Is(err, ErrNotFound) {
			continue // removed a moment ago
		}
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// SetStatus locks a person, which ends all sessions, or lets one in again.
func (d *Directory) SetStatus(ctx context.Context, id string, status Status) error {
	if status != Active && status != Locked {
		return fmt.Errorf("%w: status %q", ErrInvalid, status)
	}
	_, err := d.edit(ctx, id, func(p *individual, b *state.Batch) error {
		p.Status = status
		if status != Active {
			p.Epoch++
			return d.sessions.EndAll(ctx, b, id, "")
		}
		return nil
	})
	d.tell(ctx, "", "person.status", id, err)
	return err
}

// public is a person without secrets.
func (p *individual) public() Person {
	q := Person{
		ID: p.ID, Email: p.Email, Name: p.Name, Language: p.Language, Created: p.Created, Status: p.Status,
		Password: p.Hash != "", TOTP: p.TOTP != nil, Recovery: len(p.Recovery), Accepted: p.Accepted, Consents: p.Consents,
	}
	for _, k := range p.Passkeys {
		q.Passkeys = append(q.Passkeys, k.Public())
	}
	return q
}

// language is one that there are texts in.
func (d *Directory) language(wanted string) string {
	if wanted == "en" || wanted == "zh" {
		return wanted
	}
	return d.settings.Language
}

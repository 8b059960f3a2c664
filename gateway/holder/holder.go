// Package holder says where what people may ask about is kept: its main type is Config, from which Open makes the register
// of their requests, over everything that keeps something about them.
package holder

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"

	"github.com/postern-gateway/postern/gateway/account"
	"github.com/postern-gateway/postern/gateway/audit"
	"github.com/postern-gateway/postern/gateway/creation"
	"github.com/postern-gateway/postern/gateway/ledger"
	"github.com/postern-gateway/postern/gateway/person"
	"github.com/postern-gateway/postern/gateway/person/settings"
	"github.com/postern-gateway/postern/gateway/person/team"
	"github.com/postern-gateway/postern/gateway/reception"
	"github.com/postern-gateway/postern/gateway/rights"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/usage"
	"github.com/postern-gateway/postern/gateway/vault"
)

// Config configures Open. All of it is required but Audit.
type Config struct {
	Store     state.Store
	Vault     vault.Drawer
	Desk      *reception.Desk
	Accounts  *account.Directory
	Ledger    *ledger.Ledger
	Usage     *usage.Book
	Creations *creation.Shelf
	Policy    func() any // see rights.Config
	Audit     *audit.Log // nil: nobody is told
	Settings  *settings.Settings
	Log       *slog.Logger
}

// Open opens the register of requests. Nothing is carried out before its Start.
func Open(ctx context.Context, c Config) (*rights.Register, error) {
	p := people{c.Desk.People, c.Accounts}
	return rights.New(ctx, rights.Config{
		Store: c.Store, Vault: c.Vault, People: p, Mail: c.Desk.Mail, Policy: c.Policy, Audit: c.Audit, Service: c.Settings.Service, Wait: c.Settings.Deletion, Log: c.Log,
		Holders: []rights.Holder{p, keys{c.Accounts}, entries{c.Ledger}, calls{c.Usage}, works{c.Creations}},
	})
}

// people are who signs in.
type people struct {
	people   *person.Directory
	accounts *account.Directory
}

// known has an error say that somebody is not there as rights does.
func known(err error) error {
	switch {
	case errors.Is(err, person.ErrNotFound):
		return rights.ErrNobody
	case errors.Is(err, person.ErrLastOwner):
		return rights.ErrBlocked
	}
	return err
}

func (p people) Contact(ctx context.Context, id string) (rights.Contact, error) {
	who, err := p.people.Get(ctx, id)
	return rights.Contact{Email: who.Email, Language: who.Language}, known(err)
}

func (p people) Owned(ctx context.Context, id string) (list []string, err error) {
	for it, err := range p.people.Export(ctx, id) {
		if err != nil {
			return nil, known(err)
		}
		if m, ok := it.Data.(team.Membership); ok && m.Role == team.Owner {
			list = append(list, m.Account)
		}
	}
	return list, nil
}

func (p people) Remove(ctx context.Context, id string) error {
	_, err := p.people.Remove(ctx, id)
	return known(err)
}

func (p people) Disable(ctx context.Context, id string) (bool, error) {
	a, err := p.accounts.Get(ctx, id)
	if err != nil || a.Status != account.Active {
		return false, err
	}
	return true, p.accounts.Disable(ctx, id)
}

// Enable leaves an account that was closed meanwhile as it is.
func (p people) Enable(ctx context.Context, id string) error {
	if err := p.accounts.Enable(ctx, id); !errors.Is(err, account.ErrDisabled) {
		return err
	}
	return nil
}

func (p people) Classes() []string { return []string{"account", "device", "security"} }

func (p people) Pieces(ctx context.Context, s rights.Subject, class string) iter.Seq2[rights.Piece, error] {
	return func(yield func(rights.Piece, error) bool) {
		for it, err := range p.people.Export(ctx, s.Person) {
			if err == nil && it.Class != class {
				continue
			}
			if !yield(rights.Piece{Kind: it.Kind, ID: it.ID, Data: it.Data}, err) {
				return
			}
		}
	}
}

// Sweep has nothing to do: sessions, links and devices end by themselves in the store.
func (p people) Sweep(context.Context) (map[string]int, error) { return nil, nil }

// keys are accounts and their API keys.
type keys struct{ accounts *account.Directory }

func (k keys) Classes() []string { return []string{"account"} }

func (k keys) Pieces(ctx context.Context, s rights.Subject, _ string) iter.Seq2[rights.Piece, error] {
	return func(yield func(rights.Piece, error) bool) {
		for _, id := range s.Accounts {
			a, err := k.accounts.Get(ctx, id)
			if !yield(rights.Piece{Kind: "account", ID: id, Data: a}, err) || err != nil {
				return
			}
			list, err := k.accounts.ListKeys(ctx, id)
			if err != nil {
				yield(rights.Piece{}, err)
				return
			}
			for _, key := range list {
				if !yield(rights.Piece{Kind: "key", ID: key.ID, Data: key}, nil) {
					return
				}
			}
		}
	}
}

// Sweep has nothing to do: accounts and keys stay until they are removed.
func (k keys) Sweep(context.Context) (map[string]int, error) { return nil, nil }

// entries are the ledger's.
type entries struct{ ledger *ledger.Ledger }

func (e entries) Classes() []string { return []string{"billing"} }

func (e entries) Pieces(ctx context.Context, s rights.Subject, _ string) iter.Seq2[rights.Piece, error] {
	return func(yield func(rights.Piece, error) bool) {
		for _, id := range s.Accounts {
			for entry, err := range e.ledger.Entries(ctx, id, 0, 0) {
				if !yield(rights.Piece{Kind: "entry", ID: fmt.Sprint(entry.Seq), Data: entry}, err) || err != nil {
					return
				}
			}
		}
	}
}

// Sweep has nothing to do: the ledger folds what is old by itself.
func (e entries) Sweep(context.Context) (map[string]int, error) { return nil, nil }

// calls are the records of usage.
type calls struct{ usage *usage.Book }

func (c calls) Classes() []string { return []string{"usage"} }

func (c calls) Pieces(ctx context.Context, s rights.Subject, _ string) iter.Seq2[rights.Piece, error] {
	return func(yield func(rights.Piece, error) bool) {
		for _, id := range s.Accounts {
			for r, err := range c.usage.Export(ctx, id, usage.Filter{}) {
				if !yield(rights.Piece{Kind: "call", ID: r.ID, Data: r}, err) || err != nil {
					return
				}
			}
		}
	}
}

func (c calls) Sweep(ctx context.Context) (map[string]int, error) {
	gone, err := c.usage.Sweep(ctx)
	return map[string]int{"usage.records": gone.Records, "usage.hours": gone.Hours, "usage.days": gone.Days}, err
}

// works are creations, each part of one as a file of its own.
type works struct{ creations *creation.Shelf }

func (w works) Classes() []string { return []string{"creation"} }

func (w works) Pieces(ctx context.Context, s rights.Subject, _ string) iter.Seq2[rights.Piece, error] {
	return func(yield func(rights.Piece, error) bool) {
		for _, id := range s.Accounts {
			for info, err := range w.creations.Export(ctx, id) {
				p := rights.Piece{Kind: "creation", ID: info.ID, Data: info}
				for n := range info.Parts {
					p.Files = append(p.Files, rights.File{Name: fmt.Sprintf("creations/%s-%d", info.ID, n), Open: func(ctx context.Context) iter.Seq2[[]byte, error] {
						return w.creations.Read(ctx, id, info.ID, n)
					}})
				}
				if !yield(p, err) || err != nil {
					return
				}
			}
		}
	}
}

func (w works) Sweep(ctx context.Context) (map[string]int, error) {
	n, err := w.creations.Sweep(ctx)
	return map[string]int{"creations": n}, err
}

package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/vault"
)

// Vault seals what people chose, such as names, under a key of the account's own. Once that is destroyed, both give
// vault.ErrShredded.
type Vault interface {
	Seal(ctx context.Context, owner, name string, plain []byte) ([]byte, error)
	Open(ctx context.Context, owner, name string, sealed []byte) ([]byte, error)
}

// accountRecord is an account as it is stored: its name is sealed. Records of before names were sealed hold it in the clear,
// until the account is written again.
type accountRecord struct {
	Account
	Sealed []byte `json:"sealed,omitempty"` // the name
}

// chosen is what people chose of a key, and what is stored sealed.
type chosen struct {
	Name   string   `json:"name"`
	Scopes []string `json:"scopes,omitempty"`
	exchange.Allowance
}

// accountBatch stores an account. One whose key was destroyed has no name any more.
func (d *Directory) accountBatch(ctx context.Context, a Account) (*state.Batch, error) {
	r := accountRecord{Account: a}
	if d.vault != nil && a.Name != "" {
		r.Name = ""
		sealed, err := d.vault.Seal(ctx, a.ID, accountPrefix+a.ID, []byte(a.Name))
		if err != nil && !errors.Is(err, vault.ErrShredded) {
			return nil, fmt.Errorf("seal the name of %s: %w", a.ID, err)
		}
		r.Sealed = sealed
	}
	return record(accountPrefix+a.ID, r)
}

// readAccount is the reverse of accountBatch.
func (d *Directory) readAccount(ctx context.Context, value []byte) (Account, error) {
	var r accountRecord
	if err := json.Unmarshal(value, &r); err != nil || r.Sealed == nil {
		return r.Account, err
	}
	if d.vault == nil {
		return r.Account, errSealed
	}
	plain, err := d.vault.Open(ctx, r.ID, accountPrefix+r.ID, r.Sealed)
	if errors.Is(err, vault.ErrShredded) {
		err = nil
	}
	r.Name = string(plain)
	return r.Account, err
}

// errSealed is the error of records that were sealed, read without a vault.
var errSealed = errors.New("it is sealed, and there is no vault")

// sealKey moves what people chose of a key into its sealed part.
func (d *Directory) sealKey(ctx context.Context, r *keyRecord) error {
	if d.vault == nil {
		return nil
	}
	plain, err := json.Marshal(chosen{Name: r.Name, Scopes: r.Scopes, Allowance: r.Allowance})
	if err != nil {
		return err
	}
	r.Name, r.Scopes, r.Allowance = "", nil, exchange.Allowance{}
	if r.Sealed, err = d.vault.Seal(ctx, r.Account, keyPrefix+r.ID, plain); err != nil {
		return fmt.Errorf("seal %s: %w", r.ID, err)
	}
	return nil
}

// openKey is the reverse of sealKey. false: the account's key was destroyed, and with it what the key was allowed, so that
// it must not be taken any more.
func (d *Directory) openKey(ctx context.Context, r *keyRecord) (bool, error) {
	if r.Sealed == nil {
		return true, nil
	}
	if d.vault == nil {
		return false, errSealed
	}
	plain, err := d.vault.Open(ctx, r.Account, keyPrefix+r.ID, r.Sealed)
	if errors.Is(err, vault.ErrShredded) {
		return false, nil
	}
	var c chosen
	if err == nil {
		err = json.Unmarshal(plain, &c)
	}
	r.Name, r.Scopes, r.Allowance, r.Sealed = c.Name, c.Scopes, c.Allowance, nil
	return true, err
}

// Erase closes an account for good and forgets what people chose of it: its name, and its keys whole. Its id, its times and
// its status stay, for the ledger's sake. Erasing again, or what is not there, changes nothing. What old files have of it
// is destroyed by shredding the account's key in the vault.
func (d *Directory) Erase(ctx context.Context, id string) error {
	if err := d.CloseAccount(ctx, id); err != nil {
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	}
	return d.write(ctx, func() (*state.Batch, func(), error) {
		d.mu.RLock()
		defer d.mu.RUnlock()
		a := d.accounts[id]
		bare := a.Account
		bare.Name = ""
		b, err := d.accountBatch(ctx, bare)
		if err != nil {
			return nil, nil, err
		}
		for _, k := range a.keys { // at most MaxKeys, so that one batch has room
			b.Delete([]byte(keyPrefix + k.ID))
			b.Delete([]byte(usedPrefix + k.ID))
		}
		return b, func() {
			for _, k := range a.keys {
				for _, s := range k.secrets {
					delete(d.index, s.sum)
				}
				delete(d.keys, k.ID)
			}
			a.Account, a.keys = bare, nil
		}, nil
	})
}

package account

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/state"
)

// Bounds of a rotation.
const (
	MaxOverlap = 30 * 24 * time.Hour // how long the secret before can be taken
	maxFormer  = 4                   // secrets of before that are taken at once
)

// restore puts a stored key into the index. It returns false when the record is damaged.
func (d *Directory) restore(r *keyRecord) bool {
	now := d.now()
	secrets := []*secret{}
	for i, f := range append([]formerRecord{{Sum: r.Sum}}, r.Former...) {
		if len(f.Sum) != sha256.Size || f.Until.IsZero() != (i == 0) {
			return false
		}
		if i == 0 || now.Before(f.Until) {
			secrets = append(secrets, &secret{sum: [sha256.Size]byte(f.Sum), until: f.Until})
		}
	}
	e := &keyEntry{account: d.accounts[r.Account]}
	e.account.keys = append(e.account.keys, e)
	d.keys[r.ID] = e
	d.put(e, r.Key, secrets)
	return true
}

// put makes a key what k and secrets say.
func (d *Directory) put(e *keyEntry, k Key, secrets []*secret) {
	for _, s := range e.secrets {
		delete(d.index, s.sum)
	}
	for _, s := range secrets {
		s.key = e
		d.index[s.sum] = s
	}
	allows := k.Allowance
	k.Used, k.Overlap = time.Time{}, time.Time{} // of views alone
	e.Key, e.secrets, e.allows = k, secrets, &allows
	e.identity = exchange.Identity{Account: k.Account, Key: k.ID, Name: k.Name, Scopes: slices.Clip(k.Scopes)}
}

// keyBatch stores a key.
func (d *Directory) keyBatch(ctx context.Context, k Key, secrets []*secret) (*state.Batch, error) {
	r := keyRecord{Key: k, Sum: secrets[0].sum[:]}
	for _, s := range secrets[1:] {
		r.Former = append(r.Former, formerRecord{Sum: s.sum[:], Until: s.until})
	}
	if err := d.sealKey(ctx, &r); err != nil {
		return nil, err
	}
	return record(keyPrefix+k.ID, r)
}

// secretOf makes a new secret, and its text for who will hold it.
func (d *Directory) secretOf() (s *secret, text string) {
	text = newSecret()
	m := d.macs.Get().(*mac)
	s = &secret{sum: m.of([]byte(text))}
	d.macs.Put(m)
	return s, text
}

// view is what others see of a key; its slices are theirs.
func (e *keyEntry) view() Key {
	k := e.Key
	k.Scopes, k.Models, k.Routes, k.Networks = slices.Clone(k.Scopes), slices.Clone(k.Models), slices.Clone(k.Routes), slices.Clone(k.Networks)
	if used := e.used.Load(); used != 0 {
		k.Used = time.Unix(used, 0).UTC()
	}
	for _, s := range e.secrets {
		if s.until.After(k.Overlap) {
			k.Overlap = s.until
		}
	}
	return k
}

// check puts what is asked for a key into order, or refuses it.
func (r *KeyRequest) check() (err error) {
	if err := checkName(r.Name); err != nil {
		return err
	}
	if r.Scopes, err = checkScopes(r.Scopes); err != nil {
		return err
	}
	if r.Allowance, err = r.Normal(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	r.Expires = r.Expires.UTC()
	return nil
}

// notOver refuses a time of expiry that is over.
func notOver(expires, now time.Time) error {
	if !expires.IsZero() && !expires.After(now) {
		return fmt.Errorf("%w: it would expire at %s, which is over", ErrInvalid, expires.Format(time.RFC3339))
	}
	return nil
}

// CreateKey makes a key for an account and returns it with the secret, which can not be had again.
func (d *Directory) CreateKey(ctx context.Context, account string, r KeyRequest) (Key, string, error) {
	now := d.now().UTC().Truncate(time.Second)
	r.Name = cmp.Or(r.Name, "key")
	if err := r.check(); err != nil {
		return Key{}, "", err
	}
	if err := notOver(r.Expires, now); err != nil {
		return Key{}, "", err
	}
	s, text := d.secretOf()
	secrets, e := []*secret{s}, &keyEntry{}
	k := Key{ID: newID("key_"), Account: account, Name: r.Name, Scopes: r.Scopes, Created: now, Expires: r.Expires, Allowance: r.Allowance}
	err := d.write(ctx, func() (*state.Batch, func(), error) {
		d.mu.RLock()
		e.account = d.accounts[account]
		d.mu.RUnlock()
		switch {
		case e.account == nil:
			return nil, nil, fmt.Errorf("%w: %s", ErrNotFound, clip(account))
		case e.account.Status == Closed:
			return nil, nil, fmt.Errorf("%w: %s", ErrDisabled, account)
		case len(e.account.keys) >= MaxKeys:
			return nil, nil, fmt.Errorf("%w: an account has at most %d keys", ErrInvalid, MaxKeys)
		}
		b, err := d.keyBatch(ctx, k, secrets)
		return b, func() {
			e.account.keys = append(e.account.keys, e)
			d.keys[k.ID] = e
			d.put(e, k, secrets)
			k = e.view()
		}, err
	})
	if err != nil {
		return Key{}, "", err
	}
	return k, text, nil
}

// Key returns a key of an account, or ErrNotFound.
func (d *Directory) Key(_ context.Context, account, id string) (Key, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return Key{}, ErrClosed
	}
	e, err := d.keyOf(account, id)
	if err != nil {
		return Key{}, err
	}
	return e.view(), nil
}

// keyOf finds a key by its id, which must be the account's.
func (d *Directory) keyOf(account, id string) (*keyEntry, error) {
	e := d.keys[id]
	if e == nil || e.Account != account {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, clip(id))
	}
	return e, nil
}

// alter changes a key of an account that is not revoked. change gets its own copy of both and returns what becomes of them.
func (d *Directory) alter(ctx context.Context, account, id string, change func(k *Key, secrets []*secret) ([]*secret, error)) (Key, error) {
	var k Key
	err := d.write(ctx, func() (*state.Batch, func(), error) {
		d.mu.RLock()
		defer d.mu.RUnlock()
		e, err := d.keyOf(account, id)
		if err != nil {
			return nil, nil, err
		}
		if !e.Revoked.IsZero() {
			return nil, nil, fmt.Errorf("%w: %s", ErrRevoked, id)
		}
		k = e.view()
		secrets, err := change(&k, slices.Clone(e.secrets))
		if err != nil {
			return nil, nil, err
		}
		b, err := d.keyBatch(ctx, k, secrets)
		return b, func() {
			d.put(e, k, secrets)
			k = e.view()
		}, err
	})
	if err != nil {
		return Key{}, err
	}
	return k, nil
}

// ChangeKey changes what was chosen of an account's key: edit gets what holds now. What is taken away is refused from the
// next call on; calls under way go on. On an error nothing has changed. A key that was revoked stays as it is (ErrRevoked).
func (d *Directory) ChangeKey(ctx context.Context, account, id string, edit func(*KeyRequest)) (Key, error) {
	return d.alter(ctx, account, id, func(k *Key, secrets []*secret) ([]*secret, error) {
		r := KeyRequest{Name: k.Name, Scopes: k.Scopes, Expires: k.Expires, Allowance: k.Allowance}
		edit(&r)
		if err := r.check(); err != nil {
			return nil, err
		}
		if !r.Expires.Equal(k.Expires) {
			if err := notOver(r.Expires, d.now()); err != nil {
				return nil, err
			}
		}
		k.Name, k.Scopes, k.Expires, k.Allowance = r.Name, r.Scopes, r.Expires, r.Allowance
		return secrets, nil
	})
}

// RotateKey gives an account's key a new secret, which can not be had again. The one before is taken for overlap longer, at
// most MaxOverlap; with 0 it is refused at once. All else of the key stays: its id, what it may do and what it spent.
// ErrTooMany when four secrets of before are taken still.
func (d *Directory) RotateKey(ctx context.Context, account, id string, overlap time.Duration) (Key, string, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return Key{}, "", fmt.Errorf("%w: the secret before can be taken for 0 to %s longer", ErrInvalid, MaxOverlap)
	}
	s, text := d.secretOf()
	k, err := d.alter(ctx, account, id, func(k *Key, secrets []*secret) ([]*secret, error) {
		now := d.now().UTC()
		if !k.Expires.IsZero() && !now.Before(k.Expires) {
			return nil, fmt.Errorf("%w: %s", ErrExpired, id)
		}
		former := []*secret{}
		if overlap > 0 {
			former = append(former, &secret{sum: secrets[0].sum, until: now.Add(overlap)})
		}
		for _, f := range secrets[1:] {
			if now.Before(f.until) {
				former = append(former, f)
			}
		}
		if len(former) > maxFormer {
			return nil, fmt.Errorf("%w: %d of before, until %s at the longest", ErrTooMany, len(former)-1, k.Overlap.Format(time.RFC3339))
		}
		k.Rotated = now.Truncate(time.Second)
		return append([]*secret{s}, former...), nil
	})
	if err != nil {
		return Key{}, "", err
	}
	return k, text, nil
}

// RevokeKey refuses a key from now on, for good. Revoking it again changes nothing. Like setStatus it holds at once.
func (d *Directory) RevokeKey(ctx context.Context, id string) error {
	return d.write(ctx, func() (*state.Batch, func(), error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		k := d.keys[id]
		if k == nil {
			return nil, nil, fmt.Errorf("%w: %s", ErrNotFound, clip(id))
		}
		if k.Revoked.IsZero() {
			k.Revoked = d.now().UTC().Truncate(time.Second)
		}
		b, err := d.keyBatch(ctx, k.Key, k.secrets)
		return b, func() {}, err
	})
}

// ListKeys returns an account's keys, the oldest first, revoked ones included.
func (d *Directory) ListKeys(_ context.Context, account string) ([]Key, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return nil, ErrClosed
	}
	a := d.accounts[account]
	if a == nil {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, clip(account))
	}
	list := make([]Key, len(a.keys))
	for i, k := range a.keys {
		list[i] = k.view()
	}
	return list, nil
}

package account

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/state/memory"
	"github.com/postern-gateway/postern/gateway/vault"
)

// TestSealed: what people chose lies sealed in the store, is there after a restart, and goes with Erase, while the account's
// record stays. What was stored before in the clear is still read.
func TestSealed(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store := memory.Open(memory.Config{})
	v, err := vault.Open(ctx, vault.Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	open := func(sealer Vault) *Directory {
		t.Helper()
		d, err := Open(ctx, Config{Store: store, Vault: sealer})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	lying := func(canary string) (found []string) {
		t.Helper()
		for e, err := range store.Scan(ctx, nil, nil) {
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(e.Key)+string(e.Value), canary) {
				found = append(found, string(e.Key))
			}
		}
		return found
	}
	plain := open(nil)
	before, err := plain.Create(ctx, "before")
	if err != nil {
		t.Fatal(err)
	}
	if err := plain.Close(); err != nil {
		t.Fatal(err)
	}

	d := open(v.Drawer("account"))
	if a, err := d.Get(ctx, before.ID); err != nil || a.Name != "before" {
		t.Errorf("an account of before: %+v, %v", a, err)
	}
	a, err := d.Create(ctx, "canary one")
	if err != nil {
		t.Fatal(err)
	}
	r := KeyRequest{Name: "canary two", Scopes: []string{"canary-three"}, Allowance: exchange.Allowance{
		Models: []string{"canary-four"}, Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}}
	k, secret, err := d.CreateKey(ctx, a.ID, r)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Disable(ctx, a.ID); err != nil {
		t.Fatal(err)
	}
	if err := d.Enable(ctx, a.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ChangeKey(ctx, a.ID, k.ID, func(r *KeyRequest) { r.Name = "canary five" }); err != nil {
		t.Fatal(err)
	}
	for _, canary := range []string{"canary", "192.0.2"} {
		if found := lying(canary); found != nil {
			t.Errorf("%s lies open in %q", canary, found)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	d = open(v.Drawer("account"))
	if got, err := d.Get(ctx, a.ID); err != nil || got.Name != "canary one" {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
	got, err := d.Key(ctx, a.ID, k.ID)
	if err != nil || got.Name != "canary five" || len(got.Scopes) != 1 || got.Scopes[0] != "canary-three" || len(got.Models) != 1 || len(got.Networks) != 1 {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
	if _, err := d.Lookup(ctx, []byte(secret)); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if _, err := Open(ctx, Config{Store: store}); !errors.Is(err, errSealed) {
		t.Errorf("without the vault: %v", err)
	}

	for range 2 {
		if err := d.Erase(ctx, a.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Erase(ctx, "acct_nobody"); err != nil {
		t.Error(err)
	}
	if got, err := d.Get(ctx, a.ID); err != nil || got.Name != "" || got.Status != Closed || !got.Created.Equal(a.Created) {
		t.Errorf("erased: %+v, %v", got, err)
	}
	if _, err := d.Lookup(ctx, []byte(secret)); !errors.Is(err, ErrUnknown) {
		t.Errorf("the key of an erased account: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if found := lying(k.ID); found != nil {
		t.Errorf("the key is still in %q", found)
	}
}

// TestShreddedAccount: a key whose limits can not be read any more is not taken, and the directory opens all the same.
func TestShreddedAccount(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	store := memory.Open(memory.Config{})
	v, err := vault.Open(ctx, vault.Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(ctx, Config{Store: store, Vault: v.Drawer("account")})
	if err != nil {
		t.Fatal(err)
	}
	a, err := d.Create(ctx, "one")
	if err != nil {
		t.Fatal(err)
	}
	_, secret, err := d.CreateKey(ctx, a.ID, KeyRequest{Allowance: exchange.Allowance{Models: []string{"small"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Shred(ctx, a.ID); err != nil {
		t.Fatal(err)
	}
	if err := d.Disable(ctx, a.ID); err != nil {
		t.Errorf("disable: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(ctx, Config{Store: store, Vault: v.Drawer("account")}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if _, err := d.Lookup(ctx, []byte(secret)); !errors.Is(err, ErrUnknown) {
		t.Errorf("a key without its limits: %v", err)
	}
	if got, err := d.Get(ctx, a.ID); err != nil || got.Name != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

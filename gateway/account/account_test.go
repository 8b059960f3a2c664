package account

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/badger"
	"github.com/postern-gateway/postern/gateway/state/memory"
)

func open(t testing.TB, store state.Store) *Directory {
	t.Helper()
	d, err := Open(context.Background(), Config{Store: store, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func create(t testing.TB, d *Directory, name string) Account {
	t.Helper()
	a, err := d.Create(context.Background(), name)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	return a
}

func createKey(t testing.TB, d *Directory, account string, r KeyRequest) (Key, string) {
	t.Helper()
	k, secret, err := d.CreateKey(context.Background(), account, r)
	if err != nil {
		t.Fatalf("CreateKey: %v", err)
	}
	return k, secret
}

func TestKeys(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store := memory.Open(memory.Config{})
	d := open(t, store)
	a := create(t, d, "Ada's shop")
	if !strings.HasPrefix(a.ID, "acct_") || len(a.ID) != 21 || a.Status != Active {
		t.Errorf("account %+v", a)
	}
	k, secret := createKey(t, d, a.ID, KeyRequest{Name: "laptop", Scopes: []string{"models:read", "chat", "chat"}})
	if !strings.HasPrefix(secret, Prefix) || len(secret) != 54 || !slices.Equal(k.Scopes, []string{"chat", "models:read"}) {
		t.Errorf("key %+v, a secret of %d octets", k, len(secret))
	}
	for range 2 { // before and after opening again
		id, err := d.Lookup(ctx, []byte(secret))
		if err != nil || id.Account != a.ID || id.Key != k.ID || id.Name != "laptop" || !slices.Equal(id.Scopes, k.Scopes) {
			t.Errorf("Lookup: %+v, %v", id, err)
		}
		keys, err := d.ListKeys(ctx, a.ID)
		if err != nil || len(keys) != 1 || keys[0].ID != k.ID || keys[0].Used.IsZero() {
			t.Errorf("ListKeys: %+v, %v", keys, err)
		}
		got, err := d.Get(ctx, a.ID)
		if err != nil || got != a {
			t.Errorf("Get: %+v, %v", got, err)
		}
		d.Close()
		d = open(t, store)
	}

	_, other := createKey(t, d, a.ID, KeyRequest{})
	if err := d.RevokeKey(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	if err := d.RevokeKey(ctx, k.ID); err != nil {
		t.Errorf("revoking again: %v", err)
	}
	want := func(secret string, want error) {
		t.Helper()
		if id, err := d.Lookup(ctx, []byte(secret)); !errors.Is(err, want) || (err != nil && id.Known()) {
			t.Errorf("Lookup: %+v, %v, want %v", id, err, want)
		}
	}
	want(secret, ErrRevoked)
	want(other, nil)
	if err := d.Disable(ctx, a.ID); err != nil {
		t.Fatal(err)
	}
	want(other, ErrDisabled)
	if err := d.Enable(ctx, a.ID); err != nil {
		t.Fatal(err)
	}
	want(other, nil)
	if err := d.CloseAccount(ctx, a.ID); err != nil {
		t.Fatal(err)
	}
	want(other, ErrDisabled)
	if err := d.Enable(ctx, a.ID); !errors.Is(err, ErrDisabled) {
		t.Errorf("enabling a closed account: %v", err)
	}
	if _, _, err := d.CreateKey(ctx, a.ID, KeyRequest{}); !errors.Is(err, ErrDisabled) {
		t.Errorf("a key for a closed account: %v", err)
	}
	d.Close()
	d = open(t, store)
	want(secret, ErrRevoked)
	want(other, ErrDisabled)
	d.Close()
	want(other, ErrClosed)
	if _, err := d.Create(ctx, "x"); !errors.Is(err, ErrClosed) {
		t.Errorf("Create after Close: %v", err)
	}
	if err := d.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("Close again: %v", err)
	}
}

// Nothing that is not exactly a key is taken for one.
func TestUnknown(t *testing.T) {
	t.Parallel()
	d := open(t, memory.Open(memory.Config{}))
	a := create(t, d, "a")
	_, secret := createKey(t, d, a.ID, KeyRequest{})
	for _, text := range []string{
		"", "pstn_", secret[:len(secret)-1], secret + "0", " " + secret, secret + "\n", strings.ToUpper(secret), newSecret(),
		"sk-" + secret[3:], secret[5:], strings.Repeat("x", 1<<16), a.ID,
	} {
		if id, err := d.Lookup(t.Context(), []byte(text)); !errors.Is(err, ErrUnknown) || id.Known() {
			t.Errorf("%.60q: %+v, %v", text, id, err)
		}
	}
	for i := range secret {
		b := []byte(secret)
		b[i] ^= 1
		if _, err := d.Lookup(t.Context(), b); !errors.Is(err, ErrUnknown) {
			t.Errorf("octet %d altered: %v", i, err)
		}
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := open(t, memory.Open(memory.Config{}))
		defer d.Close()
		a := create(t, d, "a")
		_, secret := createKey(t, d, a.ID, KeyRequest{Expires: time.Now().Add(time.Hour)})
		time.Sleep(time.Hour - time.Second)
		if _, err := d.Lookup(t.Context(), []byte(secret)); err != nil {
			t.Errorf("before: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := d.Lookup(t.Context(), []byte(secret)); !errors.Is(err, ErrExpired) {
			t.Errorf("at its time: %v", err)
		}
	})
}

// counting counts commits.
type counting struct {
	state.Store
	commits int
	fail    error
}

func (c *counting) Commit(ctx context.Context, b *state.Batch) error {
	c.commits++
	if c.fail != nil {
		return c.fail
	}
	return c.Store.Commit(ctx, b)
}

// The last use is stored, at most once a minute however often a key is used.
func TestLastUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &counting{Store: memory.Open(memory.Config{})}
		d := open(t, store)
		a := create(t, d, "a")
		_, secret := createKey(t, d, a.ID, KeyRequest{})
		before := store.commits
		for range 600 {
			time.Sleep(time.Second)
			if _, err := d.Lookup(t.Context(), []byte(secret)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := store.commits - before; n < 9 || n > 10 {
			t.Errorf("%d commits in ten minutes", n)
		}
		last := time.Now()
		d.Close()
		d = open(t, store)
		defer d.Close()
		keys, _ := d.ListKeys(t.Context(), a.ID)
		if used := keys[0].Used; last.Sub(used) > usedEvery || used.After(last) {
			t.Errorf("used %v before the last use", last.Sub(used))
		}
	})
}

// What takes rights away holds at once, even if it can not be stored; what gives rights does not.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store := &counting{Store: memory.Open(memory.Config{})}
	d := open(t, store)
	a := create(t, d, "a")
	k, secret := createKey(t, d, a.ID, KeyRequest{})
	broken := errors.New("disk unplugged")
	store.fail = broken
	if _, err := d.Create(ctx, "b"); !errors.Is(err, broken) {
		t.Errorf("Create: %v", err)
	}
	if list, _ := d.List(ctx); len(list) != 1 {
		t.Errorf("an account that is not stored is listed: %v", list)
	}
	if _, secret, err := d.CreateKey(ctx, a.ID, KeyRequest{}); !errors.Is(err, broken) || secret != "" {
		t.Errorf("CreateKey: %v", err)
	}
	if err := d.RevokeKey(ctx, k.ID); !errors.Is(err, broken) {
		t.Errorf("RevokeKey: %v", err)
	}
	if _, err := d.Lookup(ctx, []byte(secret)); !errors.Is(err, ErrRevoked) {
		t.Errorf("Lookup: %v", err)
	}
	store.fail = nil
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := open(t, memory.Open(memory.Config{}))
	a := create(t, d, "a")
	_, secret := createKey(t, d, a.ID, KeyRequest{})
	key := func(r KeyRequest) func() error {
		return func() error { _, _, err := d.CreateKey(ctx, a.ID, r); return err }
	}
	tests := []struct {
		name string
		do   func() error
		want error
	}{
		{"no name", func() error { _, err := d.Create(ctx, ""); return err }, ErrInvalid},
		{"a long name", func() error { _, err := d.Create(ctx, strings.Repeat("x", 101)); return err }, ErrInvalid},
		{"a name of two lines", func() error { _, err := d.Create(ctx, "a\nb"); return err }, ErrInvalid},
		{"a name that is not UTF-8", func() error { _, err := d.Create(ctx, "\xff"); return err }, ErrInvalid},
		{"a scope in capitals", key(KeyRequest{Scopes: []string{"Chat"}}), ErrInvalid},
		{"a scope of nothing", key(KeyRequest{Scopes: []string{""}}), ErrInvalid},
		{"a scope with a comma", key(KeyRequest{Scopes: []string{"a,b"}}), ErrInvalid},
		{"too many scopes", key(KeyRequest{Scopes: make([]string, 33)}), ErrInvalid},
		{"expired before it is made", key(KeyRequest{Expires: time.Now().Add(-time.Hour)}), ErrInvalid},
		{"a key for nobody", func() error { _, _, err := d.CreateKey(ctx, "acct_x", KeyRequest{}); return err }, ErrNotFound},
		{"revoking none", func() error { return d.RevokeKey(ctx, "key_x") }, ErrNotFound},
		{"revoking by the key itself", func() error { return d.RevokeKey(ctx, secret) }, ErrNotFound},
		{"disabling none", func() error { return d.Disable(ctx, "acct_x") }, ErrNotFound},
		{"getting none", func() error { _, err := d.Get(ctx, "acct_x"); return err }, ErrNotFound},
		{"keys of none", func() error { _, err := d.ListKeys(ctx, "acct_x"); return err }, ErrNotFound},
	}
	for _, test := range tests {
		err := test.do()
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error repeats the key", test.name)
		}
	}
}

// A key is found nowhere: not in the store's files, its backups or the log.
func TestSecretIsNowhere(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dir := t.TempDir()
	var log bytes.Buffer
	store, err := badger.Open(ctx, badger.Config{Dir: dir, Ballast: -1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(ctx, Config{Store: store, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	a := create(t, d, "a")
	var secrets []string
	for range 5 {
		k, secret := createKey(t, d, a.ID, KeyRequest{})
		if _, err := d.Lookup(ctx, []byte(secret)); err != nil {
			t.Error(err)
		}
		if err := d.RevokeKey(ctx, k.ID); err != nil {
			t.Error(err)
		}
		_, _ = d.Lookup(ctx, []byte(secret))
		secrets = append(secrets, secret)
	}
	var backup bytes.Buffer
	if err := store.Backup(ctx, &backup); err != nil {
		t.Fatal(err)
	}
	d.Close()
	store.Close()
	look := func(where string, octets []byte) {
		for _, secret := range secrets {
			if bytes.Contains(octets, []byte(secret[len(Prefix):len(Prefix)+20])) {
				t.Errorf("%s holds a key", where)
			}
		}
	}
	look("the log", log.Bytes())
	look("a backup", backup.Bytes())
	files := 0
	filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			octets, _ := os.ReadFile(path)
			look(path, octets)
			files++
		}
		return err
	})
	if files < 3 {
		t.Errorf("only %d files were looked through", files)
	}
}

func TestParallel(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := open(t, memory.Open(memory.Config{}))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			a := create(t, d, fmt.Sprint("account ", i))
			for range 20 {
				k, secret := createKey(t, d, a.ID, KeyRequest{})
				if id, err := d.Lookup(ctx, []byte(secret)); err != nil || id.Key != k.ID {
					t.Errorf("own key: %+v, %v", id, err)
				}
				if err := d.RevokeKey(ctx, k.ID); err != nil {
					t.Error(err)
				}
				if _, err := d.Lookup(ctx, []byte(secret)); !errors.Is(err, ErrRevoked) {
					t.Errorf("own key, revoked: %v", err)
				}
				if _, err := d.ListKeys(ctx, a.ID); err != nil {
					t.Error(err)
				}
				_, _ = d.List(ctx)
			}
		})
	}
	wg.Wait()
}

func TestLookupAllocates(t *testing.T) {
	if raced {
		t.Skip("the race detector makes pools allocate")
	}
	d := open(t, memory.Open(memory.Config{}))
	_, secret := createKey(t, d, create(t, d, "a").ID, KeyRequest{Scopes: []string{"chat"}})
	presented := []byte(secret)
	ctx := context.Background()
	if n := testing.AllocsPerRun(1000, func() { _, _ = d.Lookup(ctx, presented) }); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}

// No text that is not a key passes for one, and nothing panics.
func FuzzWellFormed(f *testing.F) {
	f.Add([]byte(newSecret()))
	f.Add([]byte("pstn_"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if wellFormed(b) && (len(b) != keyLength || !bytes.HasPrefix(b, []byte(Prefix))) {
			t.Errorf("%q", b)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	d := open(b, memory.Open(memory.Config{}))
	a := create(b, d, "a")
	_, secret := createKey(b, d, a.ID, KeyRequest{})
	presented := []byte(secret)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Lookup(b.Context(), presented); err != nil {
			b.Fatal(err)
		}
	}
}

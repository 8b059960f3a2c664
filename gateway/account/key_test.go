package account

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/memory"
)

// allow reads an allowance of networks, with a cap and a rate.
func allow(t testing.TB, cap, rate string, networks ...string) (a exchange.Allowance) {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if cap != "" {
		a.Cap, err = exchange.ParseCap(cap)
		must(err)
	}
	if rate != "" {
		a.Rate, err = exchange.ParseRate(rate)
		must(err)
	}
	for _, text := range networks {
		n, err := exchange.ParseNetwork(text)
		must(err)
		a.Networks = append(a.Networks, n)
	}
	return a
}

// call is an exchange of who presented a key, from an address, on a route, after authenticate.
func call(t testing.TB, d *Directory, secret, from, route string) *exchange.Exchange {
	t.Helper()
	id, err := d.Lookup(t.Context(), []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange.Exchange{Identity: id, Presented: id.Key, Route: route}
	x.Request.Remote = netip.AddrPortFrom(netip.MustParseAddr(from), 4711)
	return x
}

// admits checks what becomes of a call; code is empty when it is to pass.
func admits(t testing.TB, d *Directory, x *exchange.Exchange, status int, code, says string) {
	t.Helper()
	p := d.Admit(x)
	switch {
	case code == "" && p != nil:
		t.Errorf("refused: %v", p)
	case code == "":
	case p == nil:
		t.Errorf("not refused, expected %s", code)
	case p.Status != status || p.Code != code || !strings.Contains(p.Detail, says):
		t.Errorf("%d %v, expected %d %s: ... %s", p.Status, p, status, code, says)
	}
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	d := open(t, memory.Open(memory.Config{}))
	a := create(t, d, "a")
	r := KeyRequest{Allowance: allow(t, "", "", "203.0.113.0/24", "2001:db8::/32")}
	r.Routes, r.Models = []string{"chat", "models"}, []string{"small"}
	k, secret := createKey(t, d, a.ID, r)
	x := call(t, d, secret, "203.0.113.7", "chat")
	admits(t, d, x, 0, "", "")
	if x.Identity.Allows == nil || !x.Identity.Allows.Model("small") || x.Identity.Allows.Model("large") {
		t.Errorf("the identity has %+v", x.Identity.Allows)
	}
	admits(t, d, call(t, d, secret, "::ffff:203.0.113.7", "chat"), 0, "", "")
	admits(t, d, call(t, d, secret, "2001:db8::1", "models"), 0, "", "")
	admits(t, d, call(t, d, secret, "198.51.100.1", "chat"), 403, "key_not_allowed", "from 198.51.100.1")
	admits(t, d, call(t, d, secret, "::ffff:198.51.100.1", "chat"), 403, "key_not_allowed", "from 198.51.100.1.")
	admits(t, d, call(t, d, secret, "203.0.113.7", "tools"), 403, "key_not_allowed", "restricted to others")
	if p := d.Admit(call(t, d, secret, "203.0.113.7", "tools")); strings.Contains(p.Error(), "chat") {
		t.Errorf("%v tells what else there is", p)
	}

	// A stage that does not say which key it was, and one that calls it something else, change nothing.
	for _, name := range []string{"", "mine", "key_none"} {
		x := call(t, d, secret, "198.51.100.1", "chat")
		x.Identity.Key = name
		admits(t, d, x, 403, "key_not_allowed", "networks")
		x = call(t, d, secret, "203.0.113.7", "chat")
		x.Identity.Key = name
		if admits(t, d, x, 0, "", ""); x.Identity.Key != k.ID {
			t.Errorf("the key is called %q", x.Identity.Key)
		}
	}
	// A token that names another account's key is not held to it, and does not spend for it.
	b := create(t, d, "b")
	x = &exchange.Exchange{Identity: exchange.Identity{Account: b.ID, Key: k.ID}}
	if admits(t, d, x, 0, "", ""); x.Identity.Allows != nil {
		t.Error("a key of another account")
	}
	// One that names its own account's is.
	x = &exchange.Exchange{Identity: exchange.Identity{Account: a.ID, Key: k.ID}, Route: "chat"}
	admits(t, d, x, 403, "key_not_allowed", "networks")
	admits(t, d, &exchange.Exchange{Presented: k.ID}, 0, "", "") // nobody was identified
	admits(t, d, &exchange.Exchange{Identity: exchange.Identity{Account: "from a token"}}, 0, "", "")

	// Narrowing holds from the next call on, also for who was looked up before; an account that is disabled is refused
	// however its caller was identified.
	x = call(t, d, secret, "203.0.113.7", "chat")
	if _, err := d.ChangeKey(t.Context(), a.ID, k.ID, func(r *KeyRequest) { r.Routes = []string{"models"} }); err != nil {
		t.Fatal(err)
	}
	admits(t, d, x, 403, "key_not_allowed", "restricted")
	x = call(t, d, secret, "203.0.113.7", "models")
	if err := d.RevokeKey(t.Context(), k.ID); err != nil {
		t.Fatal(err)
	}
	admits(t, d, x, 401, "invalid_api_key", "revoked")
	if err := d.Disable(t.Context(), b.ID); err != nil {
		t.Fatal(err)
	}
	admits(t, d, &exchange.Exchange{Identity: exchange.Identity{Account: b.ID}}, 403, "account_disabled", "")
}

func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := open(t, memory.Open(memory.Config{}))
		defer d.Close()
		a := create(t, d, "a")
		k, secret := createKey(t, d, a.ID, KeyRequest{Allowance: allow(t, "", "60/minute")})
		x := call(t, d, secret, "192.0.2.1", "chat")
		passed := func(n int) (passed int) {
			for range n {
				if p := d.Admit(x); p == nil {
					passed++
				} else if p.Status != 429 || p.Code != "key_rate_limited" || p.Retry <= 0 || p.Retry > time.Second {
					t.Errorf("%+v", p)
				}
			}
			return passed
		}
		if n := passed(100); n != 60 {
			t.Errorf("%d at once", n)
		}
		time.Sleep(10 * time.Second)
		if n := passed(100); n != 10 {
			t.Errorf("%d after ten seconds", n)
		}
		total := 0
		for range 600 { // a minute of trying ten times a second
			total += passed(1)
			time.Sleep(100 * time.Millisecond)
		}
		if total < 59 || total > 60 {
			t.Errorf("%d in a minute", total)
		}
		time.Sleep(time.Hour)
		if n := passed(100); n != 60 {
			t.Errorf("%d after an hour", n)
		}
		if _, err := d.ChangeKey(t.Context(), a.ID, k.ID, func(r *KeyRequest) { r.Rate = exchange.Rate{} }); err != nil {
			t.Fatal(err)
		}
		if n := passed(100); n != 100 {
			t.Errorf("%d without a rate", n)
		}
	})
}

func TestChangeKey(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store := &counting{Store: memory.Open(memory.Config{})}
	d := open(t, store)
	a, b := create(t, d, "a"), create(t, d, "b")
	k, secret := createKey(t, d, a.ID, KeyRequest{Name: "laptop", Scopes: []string{"chat"}, Allowance: allow(t, "5/day", "60/minute", "10.0.0.0/8")})
	changed, err := d.ChangeKey(ctx, a.ID, k.ID, func(r *KeyRequest) {
		r.Name, r.Models, r.Expires = "ci", []string{"small", "large"}, time.Now().Add(time.Hour)
	})
	if err != nil || changed.Name != "ci" || changed.ID != k.ID || !slices.Equal(changed.Scopes, []string{"chat"}) || changed.Cap != k.Cap || changed.Rate != k.Rate ||
		len(changed.Networks) != 1 || !slices.Equal(changed.Models, []string{"large", "small"}) || changed.Expires.IsZero() {
		t.Fatalf("%+v, %v", changed, err)
	}
	changed.Models[0] = "mine" // what is given out is the caller's
	for range 2 {
		list, err := d.ListKeys(ctx, a.ID)
		if err != nil || len(list) != 1 || list[0].Name != "ci" || !slices.Equal(list[0].Models, []string{"large", "small"}) || list[0].Cap.String() != "5.00/day" {
			t.Errorf("%+v, %v", list, err)
		}
		if id, err := d.Lookup(ctx, []byte(secret)); err != nil || id.Name != "ci" {
			t.Errorf("%+v, %v", id, err)
		}
		d.Close()
		d = open(t, store)
	}
	for name, test := range map[string]struct {
		account, key string
		edit         func(*KeyRequest)
		want         error
	}{
		"another account's": {b.ID, k.ID, func(r *KeyRequest) { r.Name = "x" }, ErrNotFound},
		"none":              {a.ID, "key_x", func(r *KeyRequest) { r.Name = "x" }, ErrNotFound},
		"the secret":        {a.ID, secret, func(r *KeyRequest) { r.Name = "x" }, ErrNotFound},
		"no name":           {a.ID, k.ID, func(r *KeyRequest) { r.Name = "" }, ErrInvalid},
		"a bad scope":       {a.ID, k.ID, func(r *KeyRequest) { r.Scopes = []string{"A"} }, ErrInvalid},
		"a bad model":       {a.ID, k.ID, func(r *KeyRequest) { r.Models = []string{"\n"} }, ErrInvalid},
		"a bad network":     {a.ID, k.ID, func(r *KeyRequest) { r.Networks = make([]netip.Prefix, 1) }, ErrInvalid},
		"expired already":   {a.ID, k.ID, func(r *KeyRequest) { r.Expires = time.Now().Add(-time.Hour) }, ErrInvalid},
	} {
		if _, err := d.ChangeKey(ctx, test.account, test.key, test.edit); !errors.Is(err, test.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
	store.fail = errors.New("disk unplugged")
	if _, err := d.ChangeKey(ctx, a.ID, k.ID, func(r *KeyRequest) { r.Name = "lost" }); !errors.Is(err, store.fail) {
		t.Error(err)
	}
	if _, _, err := d.RotateKey(ctx, a.ID, k.ID, 0); !errors.Is(err, store.fail) {
		t.Error(err)
	}
	store.fail = nil
	if got, err := d.Key(ctx, a.ID, k.ID); err != nil || got.Name != "ci" || !got.Rotated.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := d.Lookup(ctx, []byte(secret)); err != nil {
		t.Error(err)
	}
	if err := d.RevokeKey(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ChangeKey(ctx, a.ID, k.ID, func(*KeyRequest) {}); !errors.Is(err, ErrRevoked) {
		t.Error(err)
	}
	if _, _, err := d.RotateKey(ctx, a.ID, k.ID, 0); !errors.Is(err, ErrRevoked) {
		t.Error(err)
	}
}

func TestRotateKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		store := memory.Open(memory.Config{})
		d := open(t, store)
		a := create(t, d, "a")
		k, first := createKey(t, d, a.ID, KeyRequest{Name: "ci"})
		check := func(text string, want error) {
			t.Helper()
			id, err := d.Lookup(ctx, []byte(text))
			if !errors.Is(err, want) || err == nil && id.Key != k.ID {
				t.Errorf("%+v, %v, expected %v", id, err, want)
			}
		}
		rotated, second, err := d.RotateKey(ctx, a.ID, k.ID, time.Hour)
		if err != nil || second == first || rotated.ID != k.ID || rotated.Rotated.IsZero() || !rotated.Overlap.Equal(time.Now().Add(time.Hour)) {
			t.Fatalf("%+v, %v", rotated, err)
		}
		for range 2 { // before and after opening again
			check(first, nil)
			check(second, nil)
			d.Close()
			d = open(t, store)
		}
		time.Sleep(time.Hour - time.Second)
		check(first, nil)
		time.Sleep(time.Second)
		check(first, ErrExpired)
		check(second, nil)
		d.Close()
		d = open(t, store)
		check(second, nil)
		if _, err := d.Lookup(ctx, []byte(first)); err == nil {
			t.Error("taken again after opening")
		}
		_, third, err := d.RotateKey(ctx, a.ID, k.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		check(second, ErrUnknown)
		check(third, nil)
		last := third
		for range maxFormer {
			if _, last, err = d.RotateKey(ctx, a.ID, k.ID, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := d.RotateKey(ctx, a.ID, k.ID, time.Hour); !errors.Is(err, ErrTooMany) {
			t.Errorf("a sixth secret: %v", err)
		}
		check(third, nil)
		check(last, nil)
		for _, overlap := range []time.Duration{-1, MaxOverlap + 1} {
			if _, _, err := d.RotateKey(ctx, a.ID, k.ID, overlap); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v", overlap, err)
			}
		}
		if _, _, err := d.RotateKey(ctx, create(t, d, "b").ID, k.ID, 0); !errors.Is(err, ErrNotFound) {
			t.Errorf("another account's: %v", err)
		}
		if err := d.RevokeKey(ctx, k.ID); err != nil {
			t.Fatal(err)
		}
		check(third, ErrRevoked) // all its secrets
		check(last, ErrRevoked)
		d.Close()
		d = open(t, store)
		defer d.Close()
		check(last, ErrRevoked)
		short, text := createKey(t, d, a.ID, KeyRequest{Expires: time.Now().Add(time.Minute)})
		time.Sleep(time.Minute)
		if _, err := d.Lookup(ctx, []byte(text)); !errors.Is(err, ErrExpired) {
			t.Error(err)
		}
		if _, _, err := d.RotateKey(ctx, a.ID, short.ID, 0); !errors.Is(err, ErrExpired) {
			t.Error(err)
		}
		if _, err := d.ChangeKey(ctx, a.ID, short.ID, func(r *KeyRequest) { r.Expires = time.Time{} }); err != nil {
			t.Error(err)
		}
		if _, err := d.Lookup(ctx, []byte(text)); err != nil {
			t.Errorf("an expiry that was lifted: %v", err)
		}
	})
}

// A key as it was stored before keys could be restricted is read, and means what it did.
func TestOldRecords(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store := memory.Open(memory.Config{})
	d := open(t, store)
	a := create(t, d, "a")
	k, secret := createKey(t, d, a.ID, KeyRequest{Scopes: []string{"chat"}})
	d.Close()
	now, err := store.Get(ctx, []byte(keyPrefix+k.ID))
	if err != nil {
		t.Fatal(err)
	}
	_, sum, _ := strings.Cut(string(now), `"sum":`)
	old := fmt.Sprintf(`{"id":%q,"account":%q,"name":"key","scopes":["chat"],"created":%q,"sum":%s`, k.ID, a.ID, k.Created.Format(time.RFC3339), sum)
	if string(now) != old {
		t.Errorf("a key without restrictions is stored as\n%s\nand was as\n%s", now, old)
	}
	var b state.Batch
	b.Put([]byte(keyPrefix+k.ID), []byte(old))
	if err := store.Commit(ctx, &b); err != nil {
		t.Fatal(err)
	}
	d = open(t, store)
	admits(t, d, call(t, d, secret, "198.51.100.1", "anything"), 0, "", "")
	for _, damaged := range []string{
		strings.Replace(old, `"sum"`, `"former":[{"sum":"AA==","until":"2100-01-01T00:00:00Z"}],"sum"`, 1),
		strings.Replace(old, `"sum"`, `"cap":"5/year","sum"`, 1), strings.Replace(old, `"sum"`, `"networks":["x"],"sum"`, 1),
		strings.Replace(old, `"sum":`, `"former":[{"sum":`+strings.TrimSuffix(sum, "}")+`,"until":"0001-01-01T00:00:00Z"}],"sum":`, 1),
	} {
		b = state.Batch{}
		b.Put([]byte(keyPrefix+k.ID), []byte(damaged))
		if err := store.Commit(ctx, &b); err != nil {
			t.Fatal(err)
		}
		if d, err := Open(ctx, Config{Store: store}); err == nil {
			d.Close()
			t.Errorf("%s was read", damaged)
		}
	}
}

// Calls, changes, rotations and listings at once.
func TestKeysParallel(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := open(t, memory.Open(memory.Config{}))
	a := create(t, d, "a")
	k, secret := createKey(t, d, a.ID, KeyRequest{Allowance: allow(t, "", "1000000/second")})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 50 {
				if _, err := d.ChangeKey(ctx, a.ID, k.ID, func(r *KeyRequest) { r.Models = []string{fmt.Sprint("m", i, n), "small"} }); err != nil {
					t.Error(err)
				}
				if _, _, err := d.RotateKey(ctx, a.ID, k.ID, MaxOverlap); err != nil && !errors.Is(err, ErrTooMany) {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 200 {
				id, err := d.Lookup(ctx, []byte(secret))
				if err != nil {
					t.Error(err)
					return
				}
				x := &exchange.Exchange{Identity: id, Presented: id.Key}
				if p := d.Admit(x); p != nil || !x.Identity.Allows.Model("small") && len(x.Identity.Allows.Models) > 0 {
					t.Errorf("%v, %+v", p, x.Identity.Allows)
				}
				if _, err := d.ListKeys(ctx, a.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestAdmitAllocates(t *testing.T) {
	if raced {
		t.Skip("the race detector makes pools allocate")
	}
	d := open(t, memory.Open(memory.Config{}))
	r := KeyRequest{Allowance: allow(t, "5/day", "1000000/second", "10.0.0.0/8", "192.0.2.0/24")}
	r.Models, r.Routes = []string{"small"}, []string{"chat"}
	_, secret := createKey(t, d, create(t, d, "a").ID, r)
	x := call(t, d, secret, "192.0.2.1", "chat")
	if n := testing.AllocsPerRun(1000, func() {
		if p := d.Admit(x); p != nil {
			t.Fatal(p)
		}
	}); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}

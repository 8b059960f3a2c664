package password

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// cheap is what tests hash with.
func cheap() *Hasher { return New(Config{Cost: Cost{Memory: 8, Passes: 1}}) }

func TestHashes(t *testing.T) {
	t.Parallel()
	h := cheap()
	a, err := h.Hash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	b, err := h.Hash(t.Context(), "correct horse")
	if err != nil || a == b {
		t.Fatalf("two hashes of a password are alike: %v", err)
	}
	if !strings.HasPrefix(a, "$argon2id$v=19$m=8,t=1,p=1$") {
		t.Errorf("hash %q does not say how it was made", a)
	}
	for password, want := range map[string]bool{
		"correct horse": true, "correct horse ": false, "": false, "Correct horse": false,
		"ｃorrect horse": true, // full-width, as an input method may leave it: the same letters
	} {
		if ok, stale, err := h.Verify(t.Context(), a, password); ok != want || stale || err != nil {
			t.Errorf("%q: %v, stale %v, %v", password, ok, stale, err)
		}
	}
	dearer := New(Config{Cost: Cost{Memory: 16, Passes: 1}})
	if ok, stale, err := dearer.Verify(t.Context(), a, "correct horse"); !ok || !stale || err != nil {
		t.Errorf("after the cost changed: %v, stale %v, %v", ok, stale, err)
	}
	if ok, stale, _ := dearer.Verify(t.Context(), a, "wrong horse"); ok || stale {
		t.Error("a wrong password asks for a new hash")
	}
}

// TestNobodyCostsTheSame: without a hash the same is computed, and nothing is right.
func TestNobodyCostsTheSame(t *testing.T) {
	t.Parallel()
	h := cheap()
	for range 3 {
		if ok, _, err := h.Verify(t.Context(), "", ""); ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	if h.Hashed() != 3 {
		t.Errorf("%d hashes for 3 questions", h.Hashed())
	}
}

// TestBoundedMemory: no more hash at once than may, no more wait than may, and nobody waits for ever.
func TestBoundedMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{Cost: Cost{Memory: 8, Passes: 1}, Concurrent: 1, Waiting: 2, Wait: time.Minute})
		h.turns <- struct{}{} // somebody is at it
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 3 { // the turn's worth and the two that may wait
			wg.Go(func() {
				if _, err := h.Hash(ctx, "x"); !errors.Is(err, context.Canceled) {
					t.Errorf("waiting ended with %v", err)
				}
			})
		}
		synctest.Wait()
		if _, err := h.Hash(ctx, "x"); !errors.Is(err, ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
		cancel()
		wg.Wait()
		if _, err := h.Hash(t.Context(), "x"); !errors.Is(err, ErrBusy) {
			t.Errorf("waited for a minute: %v", err)
		}
		<-h.turns
		if _, err := h.Hash(t.Context(), "x"); err != nil || h.waiting.Load() != 0 {
			t.Errorf("afterwards: %v, %d waiting", err, h.waiting.Load())
		}
	})
}

func TestWeakOnes(t *testing.T) {
	t.Parallel()
	known := []string{"ann.miller@example.com", "Ann Miller", "Edge"}
	for password, want := range map[string]Weakness{
		"":                                 TooShort,
		"Ab1$xyz9q":                        TooShort, // nine
		"Ab1$xyz9qw":                       "",
		"字字密码难猜的很长":                        TooShort,
		"我家的猫不吃鱼只吃豆腐":                      "",
		strings.Repeat("x1", 65):           TooLong,
		strings.Repeat("long but ok ", 10): "",
		"line\nbreak in it":                Unusable,
		"broken \xff\xfe text":             Unusable,
		"password123":                      TooCommon,
		"P@ssw0rd2024!":                    TooCommon,
		"Passw0rd!!":                       TooCommon,
		"1234567890":                       TooCommon,
		"0987654321":                       TooCommon,
		"19870412195":                      TooCommon,
		"qwertyuiop":                       TooCommon,
		"1q2w3e4r5t":                       TooCommon,
		"1qaz2wsx3edc":                     TooCommon,
		"qwerty123456":                     TooCommon,
		"aaaaaaaaaaaa":                     TooCommon,
		"abcabcabcabc":                     TooCommon,
		"iloveyou2024":                     TooCommon,
		"ILoveYou!!!!":                     TooCommon,
		"adminadmin1":                      TooCommon,
		"welcome-to-1":                     "",
		"letmein12345":                     TooCommon,
		"changeme123!":                     TooCommon,
		"summer2026!!":                     TooCommon,
		"passwordpassword":                 TooCommon,
		"trustno1trustno1":                 TooCommon,
		"woaini1314520":                    TooCommon,
		"ann.miller@example.com":           Personal,
		"Ann.Miller1":                      Personal,
		"annmiller1":                       "",
		"example.com!":                     Personal,
		"Ann Miller!!":                     Personal,
		"correct horse battery staple":     "",
		"tr0mbone-kettle-91":               "",
		"Zq7#mPw2vX":                       "",
		"8461029375610284756":              "",
	} {
		if got := WeaknessOf(Check(password, 0, known...)); got != want {
			t.Errorf("%q: %q, want %q", password, got, want)
		}
	}
	if WeaknessOf(Check("Ab1$xyz9qw", 12)) != TooShort {
		t.Error("a longer minimum is not kept")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=4294967295,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA")
	f.Add("$argon2i$v=19$m=08,t=,p=1$$")
	f.Fuzz(func(t *testing.T, hash string) {
		c, salt, sum, err := decode(hash)
		if err != nil {
			return
		}
		if c.Memory > maxMemory || c.Passes > maxPasses {
			t.Fatalf("%q would cost %+v", hash, c)
		}
		if encode(c, salt, sum) != hash {
			t.Fatalf("%q has two forms", hash)
		}
	})
}

func FuzzCheck(f *testing.F) {
	f.Add("password1234", "ann@example.com")
	f.Add("\xff@@@@", "")
	f.Fuzz(func(t *testing.T, password, known string) {
		err := Check(password, 0, known)
		if err != nil && WeaknessOf(err) == "" {
			t.Fatalf("%q: %v is no weakness", password, err)
		}
	})
}

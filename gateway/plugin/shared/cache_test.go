package shared

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := NewCache(1<<20, time.Now)
		key := []byte("k")
		want := func(account, value string, err error) {
			t.Helper()
			got, e := c.Get(nil, account, key)
			if string(got) != value || !errors.Is(e, err) {
				t.Errorf("%s got %q, %v; want %q, %v", account, got, e, value, err)
			}
		}
		want("a", "", ErrNotFound)
		for _, v := range []string{"first", "second, which is longer"} {
			if err := c.Put("a", key, []byte(v), time.Minute); err != nil {
				t.Fatal(err)
			}
			want("a", v, nil)
			want("b", "", ErrNotFound) // nobody else's
		}
		time.Sleep(time.Minute)
		want("a", "", ErrNotFound)
		if c.Size() != 0 || len(c.accounts) != 0 || len(c.largest) != 0 {
			t.Errorf("%d octets are left", c.Size())
		}
		if err := c.Put("a", key, []byte("v"), 1<<63-1); !errors.Is(err, ErrInvalid) {
			t.Errorf("a time that the clock does not reach: %v", err)
		}
		for name, err := range map[string]error{
			"no account": c.Put("", key, nil, 1), "no key": c.Put("a", nil, nil, 1), "no time": c.Put("a", key, nil, 0),
			"too large": c.Put("a", key, make([]byte, 1<<16+1), 1), "a negative time": c.Put("a", key, nil, -1),
		} {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := NewCache(100, time.Now).Put("a", key, make([]byte, 101), 1); !errors.Is(err, ErrLimit) {
			t.Errorf("larger than all of it: %v", err)
		}
	})
}

// A full cache drops what was used longest ago, of whoever has most: a newcomer's few entries stay.
func TestCacheFull(t *testing.T) {
	t.Parallel()
	c := NewCache(64<<10, time.Now)
	value := bytes.Repeat([]byte("v"), 1000)
	put := func(account string, n int) {
		t.Helper()
		if err := c.Put(account, []byte(fmt.Sprint(n)), value, time.Hour); err != nil {
			t.Fatal(err)
		}
		if c.Size() > 64<<10 {
			t.Fatalf("%d octets", c.Size())
		}
	}
	has := func(account string, n int) bool {
		_, err := c.Get(nil, account, []byte(fmt.Sprint(n)))
		return err == nil
	}
	put("small", 1)
	put("small", 2)
	for n := range 1000 {
		put("greedy", n)
		has("greedy", 0) // always in use
	}
	if !has("small", 1) || !has("small", 2) {
		t.Error("one account pushed out another's entries")
	}
	if !has("greedy", 0) || !has("greedy", 999) || has("greedy", 1) {
		t.Error("not the entry used longest ago went")
	}
	c.Forget("greedy")
	c.Forget("nobody")
	if has("greedy", 0) || !has("small", 1) {
		t.Error("forgetting one account took the wrong entries")
	}
	c.Forget("small")
	if c.Size() != 0 {
		t.Errorf("%d octets are left", c.Size())
	}
}

func TestCacheHammer(t *testing.T) {
	t.Parallel()
	c := NewCache(32<<10, time.Now)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			account := fmt.Sprint(g % 3)
			for n := range 2000 {
				key := []byte(fmt.Sprint(n % 50))
				switch n % 7 {
				case 0:
					c.Forget(account)
				case 1, 2, 3:
					if err := c.Put(account, key, append([]byte(account), make([]byte, n%500)...), time.Duration(1+n%3)*time.Microsecond*1000); err != nil {
						t.Error(err)
					}
				default:
					if v, err := c.Get(nil, account, key); err == nil && string(v[:1]) != account {
						t.Errorf("account %s read %q", account, v[:1])
					}
				}
			}
		})
	}
	wg.Wait()
	var sum int64
	for _, n := range c.accounts {
		sum += n.size
	}
	if sum != c.Size() || len(c.largest) != len(c.accounts) {
		t.Errorf("%d octets are counted, %d held", c.Size(), sum)
	}
}

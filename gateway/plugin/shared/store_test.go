package shared

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-gateway/postern/sdk/abi"
)

func TestStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(1<<20, time.Now)
		key := []byte("k")
		want := func(value string, err error) {
			t.Helper()
			got, e := s.Get(nil, key)
			if string(got) != value || !errors.Is(e, err) {
				t.Errorf("got %q, %v; want %q, %v", got, e, value, err)
			}
		}
		check := func(got, err error) {
			t.Helper()
			if !errors.Is(got, err) {
				t.Errorf("%v, want %v", got, err)
			}
		}
		want("", ErrNotFound)
		check(s.Put(key, []byte("a"), time.Second), nil)
		want("a", nil)
		time.Sleep(time.Second - 1)
		want("a", nil)
		time.Sleep(time.Nanosecond)
		want("", ErrNotFound)

		check(s.CAS(key, nil, []byte("b"), true, 0), nil)
		check(s.CAS(key, nil, []byte("c"), true, 0), ErrConflict)
		check(s.CAS(key, []byte("x"), []byte("c"), false, 0), ErrConflict)
		check(s.CAS(key, []byte("b"), []byte("c"), false, time.Minute), nil)
		want("c", nil)
		time.Sleep(time.Minute)
		check(s.CAS(key, []byte("c"), []byte("d"), false, 0), ErrConflict)
		check(s.Put(key, nil, 0), nil)
		check(s.CAS(key, nil, []byte("e"), true, 0), ErrConflict) // empty is not absent
		check(s.Delete(key), nil)
		check(s.Delete(key), nil)
		want("", ErrNotFound)

		for n := range int64(3) {
			if got, err := s.Count(key, 2, time.Second); got != 2*n+2 || err != nil {
				t.Errorf("counted %d, %v", got, err)
			}
			time.Sleep(300 * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond) // the time counts from the first use
		if got, err := s.Count(key, -1, 0); got != -1 || err != nil {
			t.Errorf("counted %d, %v", got, err)
		}
		check(s.Put(key, []byte("text"), 0), nil)
		_, err := s.Count(key, 1, 0)
		check(err, ErrInvalid)
		check(s.Delete(key), nil)
		_, err = s.Count(key, 1<<62, 0)
		check(err, nil)
		_, err = s.Count(key, 1<<62, 0)
		check(err, ErrInvalid) // overflow

		check(s.Put(nil, nil, 0), ErrInvalid)
		check(s.Put(make([]byte, abi.MaxKey+1), nil, 0), ErrInvalid)
		check(s.Put(key, make([]byte, abi.MaxValue+1), 0), ErrInvalid)
		check(s.Put(key, nil, -1), ErrInvalid)
		check(s.Put(key, []byte("x"), 1<<63-1), nil) // further away than the clock reaches
		want("x", nil)
	})
}

// A full state refuses what is new, keeps what is there, and has room again when entries expire.
func TestStoreFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(64<<10, time.Now)
		full := 0
		for i := range 2000 {
			if err := s.Put(fmt.Appendf(nil, "key-%d", i), make([]byte, 100), time.Minute); err != nil {
				if !errors.Is(err, ErrLimit) {
					t.Fatal(err)
				}
				full++
			}
		}
		octets, entries := s.Size()
		if octets > 64<<10 || entries < 150 || full != 2000-entries {
			t.Errorf("%d octets in %d entries, %d refused", octets, entries, full)
		}
		if _, err := s.Get(nil, []byte("key-0")); err != nil {
			t.Errorf("the first entry was pushed out: %v", err)
		}
		if err := s.Put([]byte("key-0"), []byte("short"), time.Minute); err != nil {
			t.Errorf("an entry that is there can not be changed: %v", err)
		}
		time.Sleep(2 * time.Minute)
		for i := range 100 {
			if err := s.Put(fmt.Appendf(nil, "new-%d", i), make([]byte, 100), time.Minute); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Counting, and compare-and-set, from many goroutines loses nothing.
func TestStoreHammer(t *testing.T) {
	t.Parallel()
	s := New(1<<20, time.Now)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				if _, err := s.Count([]byte("n"), 1, 0); err != nil {
					t.Error(err)
				}
				for {
					old, err := s.Get(nil, []byte("list"))
					if err = s.CAS([]byte("list"), old, append(old, '+'), err != nil, 0); err == nil {
						break
					}
				}
			}
		})
	}
	wg.Wait()
	if n, _ := s.Count([]byte("n"), 0, 0); n != 4000 {
		t.Errorf("counted %d", n)
	}
	if list, _ := s.Get(nil, []byte("list")); len(list) != 4000 {
		t.Errorf("appended %d", len(list))
	}
}

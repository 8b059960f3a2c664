package memory_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/memory"
	"github.com/postern-gateway/postern/gateway/state/statetest"
)

func TestStore(t *testing.T) {
	t.Parallel()
	statetest.Run(t, statetest.Config{Open: func(*testing.T, string) state.Store { return memory.Open(memory.Config{}) }})
}

func TestLimit(t *testing.T) {
	t.Parallel()
	s := memory.Open(memory.Config{Limit: 10})
	defer s.Close()
	put := func(key, value string) error {
		var b state.Batch
		b.Put([]byte(key), []byte(value))
		return s.Commit(t.Context(), &b)
	}
	if err := put("abc", "defghij"); err != nil {
		t.Fatalf("ten octets: %v", err)
	}
	if err := put("k", ""); !errors.Is(err, state.ErrFull) {
		t.Fatalf("eleven octets: %v", err)
	}
	if err := put("abc", ""); err != nil {
		t.Fatalf("smaller: %v", err)
	}
	if err := put("k", "123456"); err != nil {
		t.Fatalf("what fits now: %v", err)
	}
}

// Entries whose time is over give their room back, and only they.
func TestSweep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := memory.Open(memory.Config{Limit: 100})
		defer s.Close()
		var b state.Batch
		b.PutTTL([]byte("a"), make([]byte, 90), time.Second)
		if err := s.Commit(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context(), []byte("a")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, err := s.Get(t.Context(), []byte("a")); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("after its time: %v", err)
		}
		time.Sleep(2 * time.Minute)
		b.Reset()
		b.Put([]byte("b"), make([]byte, 90))
		if err := s.Commit(t.Context(), &b); err != nil {
			t.Errorf("its room was not given back: %v", err)
		}
	})
}

// The tree agrees with a map, whatever is done to it.
func TestAgainstMap(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	s := memory.Open(memory.Config{})
	defer s.Close()
	model := map[string]string{}
	for range 20_000 {
		key := fmt.Sprint(rng.IntN(500))
		var b state.Batch
		if rng.IntN(3) == 0 {
			b.Delete([]byte(key))
			delete(model, key)
		} else {
			model[key] = fmt.Sprint(rng.Uint32())
			b.Put([]byte(key), []byte(model[key]))
		}
		if err := s.Commit(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
	}
	n, last := 0, ""
	for e, err := range s.Scan(t.Context(), nil, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if model[string(e.Key)] != string(e.Value) || string(e.Key) <= last {
			t.Errorf("%q = %q after %q", e.Key, e.Value, last)
		}
		last = string(e.Key)
		n++
	}
	if n != len(model) {
		t.Errorf("%d entries, want %d", n, len(model))
	}
}

func BenchmarkCommit(b *testing.B) {
	s := memory.Open(memory.Config{})
	defer s.Close()
	b.ReportAllocs()
	var batch state.Batch
	for i := range b.N {
		batch.Reset()
		batch.Put(fmt.Appendf(nil, "%08d", i%100_000), []byte("value"))
		if err := s.Commit(b.Context(), &batch); err != nil {
			b.Fatal(err)
		}
	}
}

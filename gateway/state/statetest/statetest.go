// Package statetest proves that a backend keeps what state.Store promises: its main type is Config, its one function
// Run. Every backend's tests call it.
package statetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/state"
)

// Config says how to open the backend under test.
type Config struct {
	// Open opens the store below dir, a folder of the test's own. It calls t.Fatal when it can not.
	Open func(t *testing.T, dir string) state.Store
	// Durable says that a store opened again with the same dir holds what was committed.
	Durable bool
}

// Run runs the suite.
func Run(t *testing.T, c Config) {
	tests := []struct {
		name string
		run  func(t *testing.T, c Config)
	}{
		{"get", testGet},
		{"values are the caller's own", testOwnership},
		{"batch", testBatch},
		{"limits", testLimits},
		{"scan", testScan},
		{"scan sees one moment", testMoment},
		{"write while scanning", testWriteInScan},
		{"time to live", testTTL},
		{"context", testContext},
		{"backup", testBackup},
		{"backup that is not whole", testBadBackup},
		{"many at once", testParallel},
		{"closed", testClosed},
		{"opened again", testReopen},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, c)
		})
	}
}

// fresh opens an empty store that is closed when the test ends.
func (c Config) fresh(t *testing.T) state.Store {
	t.Helper()
	s := c.Open(t, t.TempDir())
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, state.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// commit commits pairs of key and value.
func commit(t *testing.T, s state.Store, pairs ...string) {
	t.Helper()
	var b state.Batch
	for i := 0; i < len(pairs); i += 2 {
		b.Put([]byte(pairs[i]), []byte(pairs[i+1]))
	}
	if err := s.Commit(t.Context(), &b); err != nil {
		t.Fatalf("Commit(%q): %v", pairs, err)
	}
}

// scan returns what Scan yields as "key=value" words.
func scan(t *testing.T, s state.Store, prefix, from []byte) string {
	t.Helper()
	var words []string
	for e, err := range s.Scan(t.Context(), prefix, from) {
		if err != nil {
			t.Fatalf("Scan(%q, %q): %v", prefix, from, err)
		}
		words = append(words, string(e.Key)+"="+string(e.Value))
	}
	return strings.Join(words, " ")
}

func expect(t *testing.T, s state.Store, key, want string) {
	t.Helper()
	got, err := s.Get(t.Context(), []byte(key))
	if err != nil || string(got) != want {
		t.Errorf("Get(%q) = %q, %v; want %q", key, got, err, want)
	}
}

func expectNone(t *testing.T, s state.Store, key string) {
	t.Helper()
	if got, err := s.Get(t.Context(), []byte(key)); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("Get(%q) = %q, %v; want ErrNotFound", key, got, err)
	}
}

func testGet(t *testing.T, c Config) {
	s := c.fresh(t)
	expectNone(t, s, "a")
	commit(t, s, "a", "1", "", "empty key", "b", "", "!badger!x", "odd", "\x00\xff", "octets")
	expect(t, s, "a", "1")
	expect(t, s, "", "empty key")
	expect(t, s, "b", "")
	expect(t, s, "!badger!x", "odd")
	expect(t, s, "\x00\xff", "octets")
	commit(t, s, "a", "2")
	expect(t, s, "a", "2")
	expectNone(t, s, strings.Repeat("k", state.MaxKey+1))
}

func testOwnership(t *testing.T, c Config) {
	s := c.fresh(t)
	key, value := []byte("key"), []byte("value")
	var b state.Batch
	b.Put(key, value)
	if err := s.Commit(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	key[0], value[0] = 'X', 'X'
	expect(t, s, "key", "value")
	got, _ := s.Get(t.Context(), []byte("key"))
	got[0] = 'Y'
	expect(t, s, "key", "value")
	for e, err := range s.Scan(t.Context(), nil, nil) {
		if err != nil {
			t.Fatal(err)
		}
		e.Key[0], e.Value[0] = 'Z', 'Z'
	}
	expect(t, s, "key", "value")
}

func testBatch(t *testing.T, c Config) {
	s := c.fresh(t)
	commit(t, s)
	commit(t, s, "gone", "1", "gone too", "1", "stays", "1")
	var b state.Batch
	b.Put([]byte("twice"), []byte("first"))
	b.Put([]byte("twice"), []byte("second"))
	b.Put([]byte("put and deleted"), []byte("1"))
	b.Delete([]byte("put and deleted"))
	b.Delete([]byte("deleted and put"))
	b.Put([]byte("deleted and put"), []byte("1"))
	b.Delete([]byte("never there"))
	b.Delete([]byte("gone"))
	b.Put([]byte("gone too"), nil)
	if err := s.Commit(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	want := "deleted and put=1 stays=1 twice=second"
	if got := scan(t, s, nil, nil); got != want {
		t.Errorf("after the batch: %q, want %q", got, want)
	}
	// The same batch again changes nothing, and after Reset it is empty.
	if err := s.Commit(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	b.Reset()
	if err := s.Commit(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if got := scan(t, s, nil, nil); got != want {
		t.Errorf("after the batch again: %q, want %q", got, want)
	}
}

func testLimits(t *testing.T, c Config) {
	s := c.fresh(t)
	big := func(n int) []byte { return bytes.Repeat([]byte{'x'}, n) }
	many := func(n, size int) (b state.Batch) {
		value := big(size)
		for i := range n {
			b.Put(binary.BigEndian.AppendUint32(nil, uint32(i)), value)
		}
		return b
	}
	put := func(key, value []byte) (b state.Batch) { b.Put(key, value); return b }
	tests := []struct {
		name  string
		batch state.Batch
		want  error
	}{
		{"longest key", put(big(state.MaxKey), big(1)), nil},
		{"key too long", put(big(state.MaxKey+1), big(1)), state.ErrTooLarge},
		{"longest value", put([]byte("v"), big(state.MaxValue)), nil},
		{"value too long", put([]byte("v"), big(state.MaxValue+1)), state.ErrTooLarge},
		{"most operations", many(state.MaxBatch, 1), nil},
		{"most operations and octets", many(state.MaxBatch, state.MaxBatchSize/state.MaxBatch-4), nil},
		{"too many operations", many(state.MaxBatch+1, 1), state.ErrTooLarge},
		{"most octets", many(2, state.MaxBatchSize/2-4), nil},
		{"too many octets", many(2, state.MaxBatchSize/2-3), state.ErrTooLarge},
	}
	for _, test := range tests {
		if err := s.Commit(t.Context(), &test.batch); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	// One bad operation, and nothing of the batch is done.
	b := put([]byte("good"), big(1))
	b.Put([]byte("bad"), big(state.MaxValue+1))
	if err := s.Commit(t.Context(), &b); !errors.Is(err, state.ErrTooLarge) {
		t.Errorf("half a batch: %v", err)
	}
	expectNone(t, s, "good")
	if got, err := s.Get(t.Context(), []byte("v")); err != nil || len(got) != state.MaxValue {
		t.Errorf("longest value: %d octets, %v", len(got), err)
	}
}

func testScan(t *testing.T, c Config) {
	s := c.fresh(t)
	commit(t, s, "b/2", "2", "a", "0", "b/1", "1", "b/3", "3", "b", "x", "c", "4", "b0", "5", "\xff", "6", "\xff\xff", "7")
	tests := []struct{ prefix, from, want string }{
		{"", "", "a=0 b=x b/1=1 b/2=2 b/3=3 b0=5 c=4 \xff=6 \xff\xff=7"},
		{"b/", "", "b/1=1 b/2=2 b/3=3"},
		{"b/", "b/2", "b/2=2 b/3=3"},
		{"b/", "b/11", "b/2=2 b/3=3"},
		{"b/", "a", "b/1=1 b/2=2 b/3=3"},
		{"b/", "c", ""},
		{"", "b0", "b0=5 c=4 \xff=6 \xff\xff=7"},
		{"d", "", ""},
		{"\xff", "", "\xff=6 \xff\xff=7"},
		{"\xff\xff", "", "\xff\xff=7"},
	}
	for _, test := range tests {
		var from []byte
		if test.from != "" {
			from = []byte(test.from)
		}
		if got := scan(t, s, []byte(test.prefix), from); got != test.want {
			t.Errorf("Scan(%q, %q) = %q, want %q", test.prefix, test.from, got, test.want)
		}
	}
	for _, err := range s.Scan(t.Context(), nil, nil) {
		if err != nil {
			t.Fatal(err)
		}
		break // and nothing is left open: Close does not hang
	}
}

func testMoment(t *testing.T, c Config) {
	s := c.fresh(t)
	commit(t, s, "a", "1", "b", "1", "c", "1")
	var seen []string
	for e, err := range s.Scan(t.Context(), nil, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if len(seen) == 0 {
			var b state.Batch
			b.Put([]byte("b"), []byte("2"))
			b.Put([]byte("bb"), []byte("2"))
			b.Delete([]byte("c"))
			if err := s.Commit(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
		}
		seen = append(seen, string(e.Key)+"="+string(e.Value))
	}
	if got := strings.Join(seen, " "); got != "a=1 b=1 c=1" {
		t.Errorf("the scan saw %q", got)
	}
	if got := scan(t, s, nil, nil); got != "a=1 b=2 bb=2" {
		t.Errorf("the next scan saw %q", got)
	}
}

func testWriteInScan(t *testing.T, c Config) {
	s := c.fresh(t)
	for i := range 100 {
		commit(t, s, fmt.Sprintf("k%02d", i), "x")
	}
	n := 0
	for e, err := range s.Scan(t.Context(), nil, nil) {
		if err != nil {
			t.Fatal(err)
		}
		var b state.Batch
		b.Delete(bytes.Clone(e.Key))
		if err := s.Commit(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if left := scan(t, s, nil, nil); n != 100 || left != "" {
		t.Errorf("deleted %d, left %q", n, left)
	}
}

func testTTL(t *testing.T, c Config) {
	s := c.fresh(t)
	var b state.Batch
	b.PutTTL([]byte("short"), []byte("1"), 900*time.Millisecond)
	b.PutTTL([]byte("long"), []byte("1"), time.Hour)
	b.Put([]byte("ever"), []byte("1"))
	before := time.Now()
	if err := s.Commit(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	for e, err := range s.Scan(t.Context(), nil, nil) {
		if err != nil {
			t.Fatal(err)
		}
		switch string(e.Key) {
		case "ever":
			if !e.Expires.IsZero() {
				t.Errorf("what stays expires at %v", e.Expires)
			}
		case "long":
			if e.Expires.Before(before.Add(time.Hour)) || e.Expires.After(time.Now().Add(time.Hour+time.Second)) {
				t.Errorf("an hour ends at %v, begun at %v", e.Expires, before)
			}
		}
	}
	for {
		at := time.Now()
		_, err := s.Get(t.Context(), []byte("short"))
		if errors.Is(err, state.ErrNotFound) {
			if time.Since(before) < 900*time.Millisecond {
				t.Errorf("gone after %v, before its time", time.Since(before))
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if at.Sub(before) > 10*time.Second {
			t.Fatal("not gone after ten times its time")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if got := scan(t, s, nil, nil); got != "ever=1 long=1" {
		t.Errorf("afterwards: %q", got)
	}
	commit(t, s, "long", "2") // putting without a time ends the time
	for e, err := range s.Scan(t.Context(), []byte("long"), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if !e.Expires.IsZero() {
			t.Errorf("put again it still expires at %v", e.Expires)
		}
	}
}

func testContext(t *testing.T, c Config) {
	s := c.fresh(t)
	commit(t, s, "a", "1", "b", "1")
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(over, []byte("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("Get: %v", err)
	}
	var b state.Batch
	b.Put([]byte("c"), []byte("1"))
	if err := s.Commit(over, &b); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit: %v", err)
	}
	expectNone(t, s, "c")
	ctx, cancel := context.WithCancel(t.Context())
	var last error
	steps := 0
	for _, err := range s.Scan(ctx, nil, nil) {
		steps++
		last = err
		cancel()
	}
	cancel()
	if steps != 2 || !errors.Is(last, context.Canceled) {
		t.Errorf("Scan: %d steps, the last %v", steps, last)
	}
	if err := s.Backup(over, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("Backup: %v", err)
	}
	if err := c.fresh(t).Restore(over, strings.NewReader("")); !errors.Is(err, context.Canceled) {
		t.Errorf("Restore: %v", err)
	}
}

// filled returns a store with all sorts of entries, and its backup.
func filled(t *testing.T, c Config) (state.Store, []byte) {
	t.Helper()
	s := c.fresh(t)
	var b state.Batch
	for i := range 3000 {
		b.Put(fmt.Appendf(nil, "k%05d", i), bytes.Repeat([]byte{byte(i)}, i%700))
	}
	b.PutTTL([]byte("timed"), []byte("1"), time.Hour)
	b.Put(nil, []byte("empty key"))
	if err := s.Commit(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.Backup(t.Context(), &out); err != nil {
		t.Fatalf("Backup: %v", err)
	}
	return s, out.Bytes()
}

func testBackup(t *testing.T, c Config) {
	s, backup := filled(t, c)
	r := c.fresh(t)
	if err := r.Restore(t.Context(), bytes.NewReader(backup)); err != nil {
		t.Fatalf("Restore: %v", err)
	}
	if scan(t, r, nil, nil) != scan(t, s, nil, nil) {
		t.Error("the restored store differs")
	}
	for e, err := range r.Scan(t.Context(), []byte("timed"), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Until(e.Expires); d < 59*time.Minute || d > time.Hour+time.Minute { // reading takes time, which a backup does not count
			t.Errorf("restored, it expires in %v", d)
		}
	}
	if err := r.Restore(t.Context(), bytes.NewReader(backup)); !errors.Is(err, state.ErrNotEmpty) {
		t.Errorf("Restore into a full store: %v", err)
	}
	commit(t, r, "after", "1")
	expect(t, r, "after", "1")

	broken := errors.New("disk unplugged")
	if err := s.Backup(t.Context(), failing{broken}); !errors.Is(err, broken) {
		t.Errorf("Backup to a broken writer: %v", err)
	}
	if err := c.fresh(t).Restore(t.Context(), failing{broken}); !errors.Is(err, broken) {
		t.Errorf("Restore from a broken reader: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
func (f failing) Read([]byte) (int, error)  { return 0, f.err }

func testBadBackup(t *testing.T, c Config) {
	_, backup := filled(t, c)
	s := c.fresh(t)
	flipped := bytes.Clone(backup)
	flipped[len(flipped)/2] ^= 1
	half := bytes.Clone(backup[:len(backup)/2])
	for name, bad := range map[string][]byte{
		"empty": nil, "another file": []byte("PK\x03\x04 something else entirely, and long enough"), "half": half,
		"one octet short": backup[:len(backup)-1], "no digest": backup[:len(backup)-32], "one bit": flipped,
	} {
		if err := s.Restore(t.Context(), bytes.NewReader(bad)); !errors.Is(err, state.ErrBackup) {
			t.Errorf("%s: %v, want ErrBackup", name, err)
		}
		if got := scan(t, s, nil, nil); got != "" {
			t.Fatalf("%s: something was restored", name)
		}
	}
	if err := s.Restore(t.Context(), bytes.NewReader(backup)); err != nil {
		t.Errorf("a good backup after bad ones: %v", err)
	}
}

func testParallel(t *testing.T, c Config) {
	s := c.fresh(t)
	const writers, rounds = 8, 40
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for r := range rounds {
				// Both halves of a pair are written together, so whoever reads sees them equal.
				var b state.Batch
				value := fmt.Appendf(nil, "%d-%d", w, r)
				b.Put([]byte("left"), value)
				b.Put([]byte("right"), value)
				b.Put(fmt.Appendf(nil, "own/%d/%d", w, r), value)
				if err := s.Commit(t.Context(), &b); err != nil {
					t.Errorf("Commit: %v", err)
					return
				}
				got, err := s.Get(t.Context(), fmt.Appendf(nil, "own/%d/%d", w, r))
				if err != nil || !bytes.Equal(got, value) {
					t.Errorf("own write: %q, %v", got, err)
				}
			}
		})
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				seen := map[string]string{}
				for e, err := range s.Scan(t.Context(), nil, nil) {
					if err != nil {
						t.Errorf("Scan: %v", err)
						return
					}
					seen[string(e.Key)] = string(e.Value)
				}
				if seen["left"] != seen["right"] {
					t.Errorf("a scan saw half a batch: %q and %q", seen["left"], seen["right"])
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	readers.Wait()
	n := 0
	for _, err := range s.Scan(t.Context(), []byte("own/"), nil) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != writers*rounds {
		t.Errorf("%d entries, want %d", n, writers*rounds)
	}
}

func testClosed(t *testing.T, c Config) {
	s := c.Open(t, t.TempDir())
	commit(t, s, "a", "1")
	var wg sync.WaitGroup
	for range 4 { // close while others are at work: they finish or are told
		wg.Go(func() {
			for {
				var b state.Batch
				b.Put([]byte("x"), []byte("y"))
				if err := s.Commit(context.WithoutCancel(t.Context()), &b); err != nil {
					if !errors.Is(err, state.ErrClosed) {
						t.Errorf("Commit beside Close: %v", err)
					}
					return
				}
			}
		})
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	wg.Wait()
	if err := s.Close(); !errors.Is(err, state.ErrClosed) {
		t.Errorf("Close again: %v", err)
	}
	if _, err := s.Get(t.Context(), []byte("a")); !errors.Is(err, state.ErrClosed) {
		t.Errorf("Get: %v", err)
	}
	if err := s.Commit(t.Context(), &state.Batch{}); !errors.Is(err, state.ErrClosed) {
		t.Errorf("Commit: %v", err)
	}
	for _, err := range s.Scan(t.Context(), nil, nil) {
		if !errors.Is(err, state.ErrClosed) {
			t.Errorf("Scan: %v", err)
		}
	}
	if err := s.Backup(t.Context(), io.Discard); !errors.Is(err, state.ErrClosed) {
		t.Errorf("Backup: %v", err)
	}
	if err := s.Restore(t.Context(), strings.NewReader("")); !errors.Is(err, state.ErrClosed) {
		t.Errorf("Restore: %v", err)
	}
}

func testReopen(t *testing.T, c Config) {
	if !c.Durable {
		t.Skip("the backend keeps nothing")
	}
	dir := t.TempDir()
	want := ""
	for round := range 4 {
		s := c.Open(t, dir)
		if got := scan(t, s, nil, nil); got != want {
			t.Errorf("round %d: %q, want %q", round, got, want)
		}
		var b state.Batch
		b.Put(fmt.Appendf(nil, "round%d", round), []byte("1"))
		b.Delete(fmt.Appendf(nil, "round%d", round-1))
		if err := s.Commit(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		want = fmt.Sprintf("round%d=1", round)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

package replay

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/memory"
	"github.com/postern-gateway/postern/gateway/vault"
)

// open opens replies over a store, with limits.
func open(t testing.TB, store state.Store, change func(*Config)) *Store {
	t.Helper()
	v, err := vault.Open(t.Context(), vault.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Store: store, Vault: v, Prefix: "replay/", Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c)
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = s.Close(), v.Close() })
	return s
}

// nameOf is where the record of a key of account "a" is.
func nameOf(t testing.TB, s *Store, key string) []byte {
	t.Helper()
	name, err := s.name(t.Context(), "a", key)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// request is a request of the account "a" under a key.
func request(key string) Request {
	return Request{Account: "a", Key: key, Method: "POST", Path: "/v1/chat", Body: []byte("hello"), Exchange: "edge-1-1", Keep: time.Hour}
}

// begun makes a claim and records it.
func begun(t testing.TB, s *Store, r Request) *Claim {
	t.Helper()
	c, reply, err := s.Begin(t.Context(), r)
	if c == nil || reply != nil || err != nil {
		t.Fatalf("begin: %v, %v, %v", c, reply, err)
	}
	if err := c.Begun(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// finish keeps a reply.
func finish(t testing.TB, c *Claim, body string) {
	t.Helper()
	c.Head(200, exchange.Header{{Name: "content-type", Value: "text/plain"}})
	for part := range strings.SplitSeq(body, " ") {
		c.Write([]byte(part))
	}
	if err := c.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// outcome says in a word what Begin makes of a request, and frees what it claims.
func outcome(t testing.TB, s *Store, r Request) string {
	t.Helper()
	c, reply, err := s.Begin(t.Context(), r)
	var lost *LostError
	switch {
	case c != nil && reply == nil && err == nil:
		if err := c.Free(t.Context()); err != nil {
			t.Error(err)
		}
		return "new"
	case c == nil && reply != nil && err == nil:
		return "reply " + string(reply.Body)
	case c != nil || reply != nil:
		t.Errorf("more than one of %v, %v, %v", c, reply, err)
	case errors.As(err, &lost) && lost.Large:
		return "large"
	case errors.As(err, &lost):
		return "lost"
	}
	return err.Error()
}

func TestClaim(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	tests := []struct {
		name string
		do   func(t *testing.T, c *Claim)
		want string
	}{
		{"open", func(*testing.T, *Claim) {}, ErrInProgress.Error()},
		{"begun", func(t *testing.T, c *Claim) { _ = c.Begun(ctx) }, ErrInProgress.Error()},
		{"kept", func(t *testing.T, c *Claim) { finish(t, c, "one two three") }, "reply onetwothree"},
		{"kept empty", func(t *testing.T, c *Claim) { c.Head(204, nil); _ = c.Keep(ctx) }, "reply "},
		{"kept after begun", func(t *testing.T, c *Claim) { _ = c.Begun(ctx); _ = c.Begun(ctx); finish(t, c, "x") }, "reply x"},
		{"kept once", func(t *testing.T, c *Claim) { finish(t, c, "x"); c.Write([]byte("y")); _, _ = c.Keep(ctx), c.Free(ctx) }, "reply x"},
		{"freed", func(t *testing.T, c *Claim) { _ = c.Free(ctx) }, "new"},
		{"freed after begun", func(t *testing.T, c *Claim) { _ = c.Begun(ctx); _ = c.Free(ctx) }, "new"},
		{"freed in the middle of a reply", func(t *testing.T, c *Claim) {
			_ = c.Begun(ctx)
			c.Head(200, nil)
			c.Write([]byte("x"))
			_ = c.Free(ctx)
		}, "new"},
		{"lost", func(t *testing.T, c *Claim) { _ = c.Lose(ctx) }, "lost"},
		{"lost after begun", func(t *testing.T, c *Claim) { _ = c.Begun(ctx); c.Write([]byte("x")); _ = c.Lose(ctx) }, "lost"},
		{"the largest", func(t *testing.T, c *Claim) { finish(t, c, strings.Repeat("x", MaxReply)) }, "reply " + strings.Repeat("x", MaxReply)},
		{"too large", func(t *testing.T, c *Claim) { finish(t, c, strings.Repeat("x", MaxReply+1)) }, "large"},
		{"too large in parts", func(t *testing.T, c *Claim) { finish(t, c, strings.Repeat(strings.Repeat("x", 9999)+" ", 105)) }, "large"},
		{"too many fields", func(t *testing.T, c *Claim) {
			c.Head(200, exchange.Header{{Name: "x", Value: strings.Repeat("y", maxHeader)}})
			_ = c.Keep(ctx)
		}, "large"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			store := memory.Open(memory.Config{})
			s := open(t, store, nil)
			c, _, err := s.Begin(ctx, request("k"))
			if err != nil || c.Over() {
				t.Fatal(err)
			}
			test.do(t, c)
			for range 2 {
				if got := outcome(t, s, request("k")); got != test.want {
					t.Errorf("%.40s, want %.40s", got, test.want)
				}
			}
			if inProgress := test.want == ErrInProgress.Error(); c.Over() == inProgress {
				t.Errorf("over: %t", c.Over())
			} else if !inProgress && (s.held != 0 || len(s.shares) != 0 || len(s.claims) != 0) {
				t.Errorf("left behind: %d octets, %v, %d claims", s.held, s.shares, len(s.claims))
			}
			// The next process finds what this one left; a call that was under way is lost.
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			want := test.want
			switch test.name {
			case "open":
				want = "new"
			case "begun":
				want = "lost"
			}
			if got := outcome(t, open(t, store, func(c *Config) { c.Vault = s.vault.Vault() }), request("k")); got != want {
				t.Errorf("next process: %.40s, want %.40s", got, want)
			}
		})
	}
}

// What makes a request the same.
func TestSame(t *testing.T) {
	t.Parallel()
	s := open(t, memory.Open(memory.Config{}), nil)
	finish(t, begun(t, s, request("k")), "x")
	waiting := begun(t, s, request("open"))
	tests := []struct {
		name   string
		change func(*Request)
		want   string
	}{
		{"all", func(*Request) {}, "reply x"},
		{"another exchange", func(r *Request) { r.Exchange = "edge-1-2" }, "reply x"},
		{"kept for longer", func(r *Request) { r.Keep = 2 * time.Hour }, "reply x"},
		{"another body", func(r *Request) { r.Body = []byte("hallo") }, ErrReused.Error()},
		{"no body", func(r *Request) { r.Body = nil }, ErrReused.Error()},
		{"another path", func(r *Request) { r.Path = "/v1/chat?x" }, ErrReused.Error()},
		{"another method", func(r *Request) { r.Method = "PUT" }, ErrReused.Error()},
		{"the same octets otherwise cut", func(r *Request) { r.Path, r.Body = "/v1/chath", []byte("ello") }, ErrReused.Error()},
		{"another key", func(r *Request) { r.Key = "K" }, "new"},
		{"another account", func(r *Request) { r.Account = "b" }, "new"},
		{"another body while the first is under way", func(r *Request) { r.Key, r.Body = "open", nil }, ErrReused.Error()},
		{"no key", func(r *Request) { r.Key = "" }, ErrKey.Error()},
		{"a bad key", func(r *Request) { r.Key = "a\x7f" }, ErrKey.Error()},
		{"no time", func(r *Request) { r.Keep = 0 }, ErrKey.Error()},
	}
	for _, test := range tests {
		r := request("k")
		test.change(&r)
		if got := outcome(t, s, r); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
	if err := waiting.Lose(t.Context()); err != nil {
		t.Error(err)
	}
}

// What of the first reply is in the second.
func TestReply(t *testing.T) {
	t.Parallel()
	s := open(t, memory.Open(memory.Config{}), nil)
	c := begun(t, s, request("k"))
	c.Head(201, exchange.Header{
		{Name: "content-type", Value: "text/event-stream"}, {Name: "date", Value: "today"}, {Name: "postern-receipt", Value: "id=1"}, {Name: "set-cookie", Value: "a"},
		{Name: "postern-exchange", Value: "e"}, {Name: "ratelimit", Value: "r"}, {Name: "x-ratelimit-limit-requests", Value: "1"}, {Name: "x", Value: ""}, {Name: "x", Value: "ü"},
		{Name: "retry-after", Value: "1"},
	})
	part := []byte("data: 1\n\n")
	c.Write(part)
	copy(part, "XXXXXXXXXXX") // what was given may be used again
	c.Write([]byte("data: 2\n\n"))
	if err := c.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, reply, err := s.Begin(t.Context(), request("k"))
	if err != nil {
		t.Fatal(err)
	}
	want := exchange.Header{{Name: "content-type", Value: "text/event-stream"}, {Name: "postern-receipt", Value: "id=1"}, {Name: "x", Value: ""}, {Name: "x", Value: "ü"}}
	if reply.Status != 201 || fmt.Sprint(reply.Header) != fmt.Sprint(want) || string(reply.Body) != "data: 1\n\ndata: 2\n\n" || reply.Exchange != "edge-1-1" {
		t.Errorf("%+v", reply)
	}
}

// A reply is there for its time, and the key is new after it; a call under way keeps its key for however long.
func TestTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, memory.Open(memory.Config{}), nil)
		defer s.Close()
		finish(t, begun(t, s, request("k")), "x")
		long := begun(t, s, request("long"))
		lost := begun(t, s, request("lost"))
		if err := lost.Lose(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Second)
		for key, want := range map[string]string{"k": "reply x", "lost": "lost"} {
			if got := outcome(t, s, request(key)); got != want {
				t.Errorf("%s within its time: %s", key, got)
			}
		}
		time.Sleep(3 * time.Second)
		for _, key := range []string{"k", "lost"} {
			if got := outcome(t, s, request(key)); got != "new" {
				t.Errorf("%s after its time: %s", key, got)
			}
		}
		time.Sleep(5 * time.Hour)
		if got := outcome(t, s, request("long")); got != ErrInProgress.Error() {
			t.Errorf("under way for long: %s", got)
		}
		finish(t, long, "at last")
		time.Sleep(time.Hour - time.Second)
		if got := outcome(t, s, request("long")); got != "reply atlast" {
			t.Errorf("kept from its end on: %s", got)
		}
	})
}

func TestBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, memory.Open(memory.Config{}), func(c *Config) { c.Claims, c.Memory, c.Account = 3, 1<<20, 100<<10 })
		defer s.Close()
		of := func(account, key string) Request {
			r := request(key)
			r.Account = account
			return r
		}
		var claims []*Claim
		for i := range 3 {
			claims = append(claims, begun(t, s, of("a", fmt.Sprint(i))))
		}
		if got := outcome(t, s, of("b", "k")); got != ErrBusy.Error() {
			t.Errorf("a fourth request: %s", got)
		}
		// An account has a quarter of the memory for replies under way.
		claims[0].Write(make([]byte, 200<<10))
		claims[1].Write(make([]byte, 100<<10))
		if claims[0].large || !claims[1].large || s.held > 256<<10 {
			t.Errorf("%t, %t, %d octets are held", claims[0].large, claims[1].large, s.held)
		}
		for _, c := range claims {
			if err := c.Free(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if s.held != 0 {
			t.Errorf("%d octets are held by nobody", s.held)
		}
		// What is kept for an account is bounded, for each account by itself, and time makes room.
		random := make([]byte, 40<<10)
		rand.Read(random) // which can not be packed
		noise := strings.ReplaceAll(string(random), " ", "x")
		room := func(account, key string) string {
			finish(t, begun(t, s, of(account, key)), noise)
			return outcome(t, s, of(account, key))[:5]
		}
		if got := []string{room("a", "k1"), room("a", "k2"), room("a", "k3"), room("b", "k1")}; fmt.Sprint(got) != "[reply reply large reply]" {
			t.Error(got)
		}
		time.Sleep(time.Hour)
		if got := room("a", "k4"); got != "reply" {
			t.Error(got)
		}
		time.Sleep(2 * time.Hour)
		_ = room("c", "k1")
		if len(s.kept) != 1 {
			t.Errorf("levels of %d accounts are remembered", len(s.kept))
		}
	})
}

// faulty fails where it is told to.
type faulty struct {
	state.Store
	commit, get atomic.Bool
}

var errDisk = errors.New("disk is gone")

func (f *faulty) Commit(ctx context.Context, b *state.Batch) error {
	if f.commit.Load() {
		return errDisk
	}
	return f.Store.Commit(ctx, b)
}

func (f *faulty) Get(ctx context.Context, key []byte) ([]byte, error) {
	if f.get.Load() {
		return nil, errDisk
	}
	return f.Store.Get(ctx, key)
}

// A store that fails never makes a key look free that is not.
func TestFaults(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	f := &faulty{Store: memory.Open(memory.Config{})}
	s := open(t, f, nil)
	finish(t, begun(t, s, request("known")), "x") // and the account's key is made
	f.get.Store(true)
	if _, _, err := s.Begin(ctx, request("k")); !errors.Is(err, errDisk) {
		t.Errorf("nothing can be read: %v", err)
	}
	f.get.Store(false)
	c, _, err := s.Begin(ctx, request("k"))
	if err != nil {
		t.Fatal(err)
	}
	f.commit.Store(true)
	if err := c.Begun(ctx); !errors.Is(err, errDisk) {
		t.Errorf("recorded on a disk that is gone: %v", err)
	}
	if err := c.Begun(ctx); !errors.Is(err, errDisk) {
		t.Errorf("recorded the second time: %v", err)
	}
	f.commit.Store(false)
	if err := c.Free(ctx); err != nil {
		t.Error(err)
	}
	c = begun(t, s, request("k"))
	c.Head(200, nil)
	f.commit.Store(true)
	if err := c.Keep(ctx); !errors.Is(err, errDisk) {
		t.Errorf("kept on a disk that is gone: %v", err)
	}
	if got := outcome(t, s, request("k")); got != "lost" {
		t.Errorf("a reply that could not be kept: %s", got)
	}
	f.commit.Store(false)
	if len(s.claims) != 0 {
		t.Errorf("%d claims are left", len(s.claims))
	}
	// Whoever does not wait for the store leaves its writes to it.
	c = begun(t, s, request("left"))
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if err := c.Keep(canceled); err == nil {
		t.Log("it was quicker")
	}
	if got := outcome(t, s, request("left")); got != "lost" && got != "reply " {
		t.Errorf("left alone: %s", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := s.Begin(ctx, request("k")); !errors.Is(err, ErrClosed) || !errors.Is(s.Close(), ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A record that somebody changed, or moved to another key, is not believed, and its key is not free either.
func TestDamage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store := memory.Open(memory.Config{})
	s := open(t, store, nil)
	finish(t, begun(t, s, request("one")), "secret-of-one")
	finish(t, begun(t, s, request("two")), "two")
	one, err := store.Get(ctx, nameOf(t, s, "one"))
	if err != nil {
		t.Fatal(err)
	}
	put := func(value []byte) {
		b := new(state.Batch)
		b.Put(nameOf(t, s, "two"), value)
		if err := store.Commit(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	put(one)
	if got := outcome(t, s, request("two")); got != "lost" {
		t.Errorf("another key's reply: %s", got)
	}
	one[len(one)/2]++
	put(one)
	if got := outcome(t, s, request("two")); got != "lost" {
		t.Errorf("a changed reply: %s", got)
	}
	put([]byte{})
	if got := outcome(t, s, request("two")); got != "lost" {
		t.Errorf("an empty record: %s", got)
	}
	for e, err := range store.Scan(ctx, nil, nil) {
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"secret", "one", "text/plain", "edge-1"} {
			if bytes.Contains(e.Value, []byte(text)) || bytes.Contains(e.Key, []byte(text)) {
				t.Errorf("%q can be read", text)
			}
		}
		if !strings.HasPrefix(string(e.Key), "replay/") {
			t.Errorf("%q is outside the prefix", e.Key)
		}
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store := memory.Open(memory.Config{})
	s := open(t, store, nil)
	for i := range 1500 {
		r := request(fmt.Sprint("k", i))
		c, _, err := s.Begin(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		finish(t, c, "x")
	}
	other := request("k1")
	other.Account = "b"
	finish(t, begun(t, s, other), "theirs")
	at := nameOf(t, s, "k1")
	before, err := store.Get(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	left := 0
	for _, err := range store.Scan(ctx, []byte("replay/"), nil) {
		if left++; err != nil {
			t.Fatal(err)
		}
	}
	if left != 1 { // b's reply
		t.Errorf("%d records are left", left)
	}
	if got := outcome(t, s, request("k1")); got != "new" {
		t.Errorf("after removing: %s", got)
	}
	if got := outcome(t, s, other); got != "reply theirs" {
		t.Errorf("another account's: %s", got)
	}
	// What an old file still holds can not be opened once the account's key is gone, a call that is under way then is not
	// kept, and no new one is made.
	if _, err := s.open(ctx, "a", at, before); err != nil {
		t.Fatal("this test looks for the wrong thing", err)
	}
	under := begun(t, s, request("under-way"))
	under.Head(200, nil)
	if err := s.vault.Shred(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.open(ctx, "a", at, before); !errors.Is(err, vault.ErrShredded) {
		t.Errorf("an old record: %v", err)
	}
	if err := under.Keep(ctx); !errors.Is(err, vault.ErrShredded) {
		t.Errorf("kept for an account that was shredded: %v", err)
	}
	if _, _, err := s.Begin(ctx, request("k2")); !errors.Is(err, vault.ErrShredded) {
		t.Errorf("begun for an account that was shredded: %v", err)
	}
}

// Many requests under few keys, at once: each key has one claim at a time, and all replies of a key are the same.
func TestHammer(t *testing.T) {
	t.Parallel()
	s := open(t, memory.Open(memory.Config{}), nil)
	var made [8]atomic.Int64
	var under [8]atomic.Int64
	var callers sync.WaitGroup
	for i := range 32 {
		callers.Go(func() {
			for round := range 100 {
				k := (i + round) % len(made)
				c, reply, err := s.Begin(t.Context(), request(fmt.Sprint(k)))
				switch {
				case c != nil:
					if under[k].Add(1) != 1 {
						t.Error("two claims of one key")
					}
					if err := c.Begun(t.Context()); err != nil {
						t.Error(err)
					}
					under[k].Add(-1)
					if (i+round)%3 > 0 {
						if err := c.Free(t.Context()); err != nil {
							t.Error(err)
						}
						continue
					}
					made[k].Add(1)
					finish(t, c, fmt.Sprint("made ", k))
				case reply != nil:
					if string(reply.Body) != fmt.Sprint("made", k) || made[k].Load() != 1 {
						t.Errorf("key %d, made %d times: %s", k, made[k].Load(), reply.Body)
					}
				case !errors.Is(err, ErrInProgress):
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	for k := range made {
		if n := made[k].Load(); n != 1 {
			t.Errorf("key %d was made %d times", k, n)
		}
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	store := memory.Open(memory.Config{})
	v, err := vault.Open(t.Context(), vault.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Config{
		"no store":         {Vault: v, Prefix: "p"},
		"no vault":         {Store: store, Prefix: "p"},
		"no prefix":        {Store: store, Vault: v},
		"a long prefix":    {Store: store, Vault: v, Prefix: strings.Repeat("p", 65)},
		"a negative limit": {Store: store, Vault: v, Prefix: "p", Memory: -1},
	} {
		if s, err := Open(t.Context(), c); err == nil {
			t.Errorf("%s: opened", name)
			_ = s.Close()
		}
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

// TestPack: what is packed comes back, and a small record can not become a large reply.
func TestPack(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store := memory.Open(memory.Config{})
	s := open(t, store, nil)
	event := `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"small","choices":[{"index":0,"delta":{"content":"%d"}}]}` + "\n\n"
	var b strings.Builder
	for i := range 500 {
		fmt.Fprintf(&b, event, i)
	}
	finish(t, begun(t, s, request("k")), strings.ReplaceAll(b.String(), " ", "_"))
	if got := outcome(t, s, request("k")); got != "reply "+strings.ReplaceAll(b.String(), " ", "_") {
		t.Errorf("%.80s", got)
	}
	if sealed, err := store.Get(ctx, nameOf(t, s, "k")); err != nil || len(sealed) > b.Len()/5 {
		t.Errorf("%d octets are stored of %d: %v", len(sealed), b.Len(), err)
	}
	bomb, _ := s.packer.pack(make([]byte, 64<<20))
	r := request("bomb")
	rec := record{kind: kindDone, digest: r.digest(), status: 200, packed: true, body: bomb}
	batch := new(state.Batch)
	sealed, err := s.seal(ctx, "a", nameOf(t, s, "bomb"), &rec)
	if err != nil {
		t.Fatal(err)
	}
	batch.Put(nameOf(t, s, "bomb"), sealed)
	if err := store.Commit(ctx, batch); err != nil {
		t.Fatal(err)
	}
	if c, reply, err := s.Begin(ctx, r); c != nil || reply != nil || err == nil {
		t.Errorf("%v, %v, %v", c, reply, err)
	}
}

// What is decoded is encoded the same way, and nothing makes decode fail otherwise than by saying so.
func FuzzDecode(f *testing.F) {
	for _, r := range []record{
		{kind: kindBegun, exchange: "edge-1-1"},
		{kind: kindLarge},
		{kind: kindDone, exchange: "e", status: 200, header: exchange.Header{{Name: "content-type", Value: "text/plain"}, {Name: "x"}}, packed: true, body: []byte("body")},
	} {
		f.Add(r.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := decode(b)
		if !ok {
			return
		}
		again, ok := decode(r.encode())
		if !ok || fmt.Sprint(again) != fmt.Sprint(r) {
			t.Errorf("%+v became %+v", r, again)
		}
	})
}

func BenchmarkReplay(b *testing.B) {
	s := open(b, memory.Open(memory.Config{}), nil)
	c := begun(b, s, request("k"))
	finish(b, c, strings.Repeat("x", 2000))
	r := request("k")
	b.ReportAllocs()
	for b.Loop() {
		if _, reply, err := s.Begin(b.Context(), r); err != nil || len(reply.Body) != 2000 {
			b.Fatal(err)
		}
	}
}

func BenchmarkKeep(b *testing.B) {
	s := open(b, memory.Open(memory.Config{}), func(c *Config) { c.Account = 1 << 40 })
	body := make([]byte, 2000)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		c := begun(b, s, request(fmt.Sprint(i)))
		c.Head(200, nil)
		c.Write(body)
		if err := c.Keep(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

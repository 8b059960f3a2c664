package creation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/memory"
	"github.com/postern-gateway/postern/gateway/vault"
)

// world is a shelf with what it needs, and a clock that is moved by hand.
type world struct {
	*Shelf
	store state.Store
	vault *vault.Vault
	clock atomic.Int64
}

var terms = Terms{Keep: 24 * time.Hour, Item: 8 << 20, Account: 64 << 20}

func open(t testing.TB, w *world, memoryLimit int64) *world {
	t.Helper()
	if w == nil {
		w = &world{store: memory.Open(memory.Config{})}
		var err error
		if w.vault, err = vault.Open(t.Context(), vault.Config{Log: slog.New(slog.DiscardHandler)}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = w.vault.Close() })
		w.clock.Store(time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC).UnixMilli())
	}
	var err error
	w.Shelf, err = Open(t.Context(), Config{
		Store: w.store, Sealer: w.vault.Drawer("creation"), Log: slog.New(slog.DiscardHandler), Memory: memoryLimit,
		Now: func() time.Time { return time.UnixMilli(w.clock.Load()) },
	})
	if err != nil {
		t.Fatal(err)
	}
	shelf := w.Shelf
	t.Cleanup(func() { _ = shelf.Close() })
	return w
}

func (w *world) advance(by time.Duration) { w.clock.Add(by.Milliseconds()) }

// keep keeps parts as one creation.
func (w *world) keep(account string, parts ...string) string {
	d := w.Begin(account, terms, Info{Route: "chat", Model: "small", Exchange: "x1", Type: "text/plain"})
	for i, p := range parts {
		d.Write(i, []byte(p))
	}
	d.Keep()
	w.advance(time.Millisecond)
	return d.ID()
}

func (w *world) read(t testing.TB, account, id string, part int) (string, error) {
	t.Helper()
	var b strings.Builder
	for p, err := range w.Read(t.Context(), account, id, part) {
		if err != nil {
			return b.String(), err
		}
		b.Write(p)
	}
	return b.String(), nil
}

func (w *world) ids(t testing.TB, account string) (list []string) {
	t.Helper()
	for info, err := range w.Export(t.Context(), account) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, info.ID)
	}
	return list
}

// left is how many records there are.
func (w *world) left(t testing.TB) (n int) {
	t.Helper()
	for e, err := range w.store.Scan(t.Context(), []byte("creation/"), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; bytes.Contains(e.Value, []byte("canary")) || bytes.Contains(e.Key, []byte("canary")) {
			t.Errorf("the store holds content: %q", e.Key)
		}
	}
	return n
}

func TestKept(t *testing.T) {
	t.Parallel()
	w := open(t, nil, 0)
	one := w.keep("a", "canary one")
	two := w.keep("a", "canary two", "", "third choice")
	w.keep("a")     // nothing is no creation
	w.keep("a", "") // nor is this
	if got := w.ids(t, "a"); !slices.Equal(got, []string{two, one}) {
		t.Fatalf("%v, want %v", got, []string{two, one})
	}
	info, err := w.Find(t.Context(), "a", two)
	if err != nil || info.Size() != 22 || len(info.Parts) != 3 || info.Route != "chat" || info.Model != "small" || info.Exchange != "x1" || info.Type != "text/plain" {
		t.Errorf("%+v, %v", info, err)
	}
	if d := info.Expires.Sub(info.Time); d > terms.Keep || d < terms.Keep-time.Second {
		t.Errorf("kept for %s", d)
	}
	for part, want := range []string{"canary two", "", "third choice"} {
		if got, err := w.read(t, "a", two, part); err != nil || got != want {
			t.Errorf("part %d: %q, %v", part, got, err)
		}
	}
	if _, err := w.read(t, "a", two, 3); !errors.Is(err, ErrNone) {
		t.Errorf("a part that is not there: %v", err)
	}
	if n := w.left(t); n == 0 {
		t.Error("nothing is stored")
	}
	// A new process has them, and pages go through them.
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = open(t, w, 0)
	page, err := w.List(t.Context(), "a", "", 1)
	if err != nil || len(page) != 1 || page[0].ID != two {
		t.Fatal(page, err)
	}
	if err := w.Delete(t.Context(), "a", two); err != nil { // the page after one that is gone
		t.Fatal(err)
	}
	if page, err = w.List(t.Context(), "a", two, 10); err != nil || len(page) != 1 || page[0].ID != one {
		t.Error(page, err)
	}
	if err := w.Delete(t.Context(), "a", two); !errors.Is(err, ErrNone) {
		t.Errorf("deleted twice: %v", err)
	}
	if used, err := w.Used(t.Context(), "a"); err != nil || used != 10+overhead {
		t.Errorf("%d octets are used: %v", used, err)
	}
	if err := w.Delete(t.Context(), "a", one); err != nil {
		t.Error(err)
	}
	if n := w.left(t); n != 0 {
		t.Errorf("%d records are left", n)
	}
}

// No id leads into another account.
func TestApart(t *testing.T) {
	t.Parallel()
	w := open(t, nil, 0)
	mine, theirs := w.keep("a", "mine"), w.keep("b", "theirs")
	for _, account := range []string{"a", "c", "", "b/", "b\x00"} {
		if _, err := w.Find(t.Context(), account, theirs); !errors.Is(err, ErrNone) {
			t.Errorf("%q found it: %v", account, err)
		}
		if got, err := w.read(t, account, theirs, 0); !errors.Is(err, ErrNone) || got != "" {
			t.Errorf("%q read %q: %v", account, got, err)
		}
		if err := w.Delete(t.Context(), account, theirs); !errors.Is(err, ErrNone) {
			t.Errorf("%q deleted it: %v", account, err)
		}
		list, err := w.List(t.Context(), account, theirs, 10)
		if err != nil || slices.ContainsFunc(list, func(i Info) bool { return i.ID == theirs }) {
			t.Errorf("%q lists %v: %v", account, list, err)
		}
	}
	if n, err := w.Remove(t.Context(), "a"); n != 1 || err != nil {
		t.Error(n, err)
	}
	if got, err := w.read(t, "b", theirs, 0); got != "theirs" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, wrong := range []string{"", mine + "a", mine[:len(mine)-1], strings.ToUpper(mine), idPrefix, "crea_../../../../../../../../../../../", mine[:len(mine)-1] + "\n", "crea_" + strings.Repeat("0", 32)} {
		if _, err := w.Find(t.Context(), "a", wrong); !errors.Is(err, ErrNone) {
			t.Errorf("%q: %v", wrong, err)
		}
		if _, err := w.List(t.Context(), "a", wrong, 1); wrong != "" && !errors.Is(err, ErrNone) {
			t.Errorf("after %q: %v", wrong, err)
		}
	}
	seen := map[string]bool{}
	for range 1000 { // at one moment
		id := w.Begin("a", terms, Info{}).ID()
		if seen[id] {
			t.Fatal("an id came twice")
		}
		seen[id] = true
	}
}

// Creations of many chunks, with their parts between one another, come out as they went in, and leave nothing when they
// do not come to their end.
func TestLarge(t *testing.T) {
	t.Parallel()
	w := open(t, nil, 0)
	random := rand.New(rand.NewPCG(1, 2))
	make := func() (*Draft, []bytes.Buffer) {
		d := w.Begin("a", terms, Info{Exchange: "x"})
		parts := make([]bytes.Buffer, 3)
		for d.info.Size() < 3<<20 {
			p := make([]byte, 1+random.IntN(200_000))
			for i := range p {
				p[i] = byte(random.Uint32())
			}
			part := random.IntN(3)
			parts[part].Write(p)
			d.Write(part, p)
			if d.waiting > chunkSize || d.room > 2*chunkSize {
				t.Fatalf("%d octets wait, in %d of memory", d.waiting, d.room)
			}
		}
		return d, parts
	}
	d, parts := make()
	d.Keep()
	for i := range parts {
		if got, err := w.read(t, "a", d.ID(), i); err != nil || got != parts[i].String() {
			t.Errorf("part %d: %d octets instead of %d, %v", i, len(got), parts[i].Len(), err)
		}
	}
	kept := w.left(t)
	if kept < 12 {
		t.Errorf("%d records", kept)
	}
	d, _ = make()
	d.Drop()
	d.Drop()
	d.Keep()
	d.Write(0, []byte("more"))
	if got := w.ids(t, "a"); len(got) != 1 || w.left(t) != kept {
		t.Errorf("%v, %d records instead of %d", got, w.left(t), kept)
	}
	// The process ends without a word.
	_, _ = make()
	if err := w.fresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.left(t) <= kept {
		t.Error("nothing was stored as it came")
	}
	old := w.Shelf
	w = open(t, w, 0)
	if w.left(t) != kept {
		t.Errorf("%d records instead of %d", w.left(t), kept)
	}
	_ = old.Close()
	if n, err := w.Remove(t.Context(), "a"); n != 1 || err != nil || w.left(t) != 0 {
		t.Errorf("%d removed, %d records left, %v", n, w.left(t), err)
	}
}

// One with more chunks than one commit removes goes whole.
func TestManyChunks(t *testing.T) {
	t.Parallel()
	w := open(t, nil, 0)
	d := w.Begin("a", Terms{Keep: time.Hour, Item: 1 << 30, Account: 1 << 40}, Info{})
	p := make([]byte, chunkSize/maxParts+1)
	for i := range maxRemoved * maxParts * 2 {
		d.Write(i%maxParts, p)
		if d.numbers[0] > maxRemoved/maxParts+2 {
			break
		}
	}
	d.Keep()
	if err := w.fresh(t.Context()); err != nil || w.left(t) <= maxRemoved {
		t.Fatalf("%d records: %v", w.left(t), err)
	}
	if err := w.Delete(t.Context(), "a", d.ID()); err != nil || w.left(t) != 0 {
		t.Errorf("%d records left: %v", w.left(t), err)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	w := open(t, nil, 0)
	for name, test := range map[string]struct {
		terms Terms
		part  int
		size  int
		want  bool
	}{
		"fits":          {Terms{time.Hour, 100, 1 << 20}, 0, 100, true},
		"too long":      {Terms{time.Hour, 100, 1 << 20}, 0, 101, false},
		"no room":       {Terms{time.Hour, 1000, 1000}, 0, 100, false},
		"last part":     {Terms{time.Hour, 100, 1 << 20}, maxParts - 1, 10, true},
		"too many":      {Terms{time.Hour, 100, 1 << 20}, maxParts, 10, false},
		"negative part": {Terms{time.Hour, 100, 1 << 20}, -1, 10, false},
	} {
		d := w.Begin(name, test.terms, Info{})
		for range test.size {
			d.Write(test.part, []byte("x"))
		}
		d.Keep()
		if _, err := w.Find(t.Context(), name, d.ID()); (err == nil) != test.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An account that is full has room again when something is deleted.
	full := Terms{time.Hour, 4000, 10_000}
	var ids []string
	for range 5 {
		d := w.Begin("full", full, Info{})
		d.Write(0, make([]byte, 4000-overhead))
		d.Keep()
		ids = append(ids, d.ID())
		w.advance(time.Millisecond)
	}
	if got := w.ids(t, "full"); !slices.Equal(got, []string{ids[1], ids[0]}) {
		t.Errorf("%v of %v", got, ids)
	}
	if err := w.Delete(t.Context(), "full", ids[0]); err != nil {
		t.Fatal(err)
	}
	d := w.Begin("full", full, Info{})
	d.Write(0, make([]byte, 4000-overhead))
	d.Keep()
	if _, err := w.Find(t.Context(), "full", d.ID()); err != nil {
		t.Error(err)
	}
	// One account can not take all memory from the others, and all of it comes back.
	w = open(t, nil, 1<<20)
	greedy, other := w.Begin("greedy", terms, Info{}), w.Begin("other", terms, Info{})
	hold := make(chan struct{})
	asked := make(chan error)
	go func() {
		asked <- w.ask(t.Context(), func(context.Context) error { asked <- nil; <-hold; return nil }) // the owner is slow
	}()
	<-asked
	greedy.Write(0, make([]byte, 400<<10))
	other.Write(0, []byte("small"))
	other.Keep()
	greedy.Keep()
	close(hold)
	if err := <-asked; err != nil {
		t.Fatal(err)
	}
	if got, err := w.read(t, "other", other.ID(), 0); got != "small" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if len(w.ids(t, "greedy")) != 0 {
		t.Error("there was no memory for it, and it is kept")
	}
	if err := w.fresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held != 0 || len(w.shares) != 0 {
		t.Errorf("%d octets of memory are still taken, by %v", w.held, w.shares)
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	w := open(t, nil, 0)
	for range 3 {
		w.keep("a", "canary")
	}
	w.advance(23 * time.Hour)
	young := w.keep("a", "canary")
	if n, err := w.Sweep(t.Context()); n != 0 || err != nil || len(w.ids(t, "a")) != 4 {
		t.Errorf("%d went before their time: %v", n, err)
	}
	w.advance(time.Hour + time.Second)
	if got := w.ids(t, "a"); !slices.Equal(got, []string{young}) { // not swept yet, and not shown
		t.Errorf("%v", got)
	}
	if n, err := w.Sweep(t.Context()); n != 3 || err != nil {
		t.Errorf("%d went: %v", n, err)
	}
	if used, err := w.Used(t.Context(), "a"); used != 6+overhead || err != nil {
		t.Errorf("%d octets, %v", used, err)
	}
	w.advance(24 * time.Hour)
	if n, err := w.Sweep(t.Context()); n != 1 || err != nil || w.left(t) != 0 {
		t.Errorf("%d went, %d records left: %v", n, w.left(t), err)
	}
}

func TestShredded(t *testing.T) {
	t.Parallel()
	w := open(t, nil, 0)
	id := w.keep("a", "canary")
	w.keep("a", "canary")
	underWay := w.Begin("a", terms, Info{})
	underWay.Write(0, []byte("canary"))
	if err := w.fresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.vault.Shred(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	underWay.Keep()
	if got := w.ids(t, "a"); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if got, err := w.read(t, "a", id, 0); got != "" || !errors.Is(err, ErrNone) {
		t.Errorf("%q, %v", got, err)
	}
	if n, err := w.Remove(t.Context(), "a"); n != 2 || err != nil || w.left(t) != 0 {
		t.Errorf("%d removed, %d records left: %v", n, w.left(t), err)
	}
}

// What is changed in the store is not taken for a creation.
func TestDamaged(t *testing.T) {
	t.Parallel()
	w := open(t, nil, 0)
	id, other := w.keep("a", "one"), w.keep("a", "two")
	foreign := w.keep("b", "six")
	if err := w.fresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, _ := placeOf(id)
	at := digestOf("a").chunkKey(p, 0, 0)
	put := func(key, value []byte) {
		t.Helper()
		var b state.Batch
		b.Put(key, value)
		if err := w.store.Commit(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
	}
	for name, from := range map[string][2]string{"another creation": {"a", other}, "another account": {"b", foreign}} {
		q, _ := placeOf(from[1])
		value, err := w.store.Get(t.Context(), digestOf(from[0]).chunkKey(q, 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		put(at, value)
		if got, err := w.read(t, "a", id, 0); err == nil || got != "" {
			t.Errorf("%s: read %q", name, got)
		}
	}
	var b state.Batch
	b.Delete(at)
	if err := w.store.Commit(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if _, err := w.read(t, "a", id, 0); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	put(digestOf("a").key(infoPrefix, p[:]...), []byte("nonsense"))
	if _, err := w.Find(t.Context(), "a", id); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	// It does not stand in the way of those that are whole, nor of their removal.
	if got, err := w.read(t, "a", other, 0); got != "two" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if n, err := w.Remove(t.Context(), "a"); n != 2 || err != nil {
		t.Error(n, err)
	}
	w.advance(48 * time.Hour)
	if _, err := w.Sweep(t.Context()); err != nil || w.left(t) != 0 {
		t.Errorf("%d records left: %v", w.left(t), err)
	}
}

// faulty is a store that fails where it is told to; with a lie, it stores what it says it did not.
type faulty struct {
	state.Store
	fails, lies atomic.Bool
}

func (f *faulty) Commit(ctx context.Context, b *state.Batch) error {
	if !f.fails.Load() {
		return f.Store.Commit(ctx, b)
	}
	if f.lies.Load() {
		_ = f.Store.Commit(ctx, b)
	}
	return errors.New("disk is gone")
}

// A store that fails costs creations, never memory, and what accounts use stays what they have.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, lies := range []bool{false, true} {
		w := open(t, nil, 0)
		f := &faulty{Store: w.store}
		f.lies.Store(lies)
		_ = w.Close()
		w.store = f
		w = open(t, w, 0)
		for round := range 6 {
			f.fails.Store(round%2 == 1)
			w.keep("a", "canary small")
			large := w.Begin("a", terms, Info{})
			for range 5 {
				large.Write(0, bytes.Repeat([]byte("canary"), 100_000))
				_ = w.fresh(t.Context()) // what was handed over comes to the store
			}
			large.Keep()
			_ = w.fresh(t.Context())
		}
		f.fails.Store(false)
		want := int64(0)
		for info, err := range w.Export(t.Context(), "a") {
			if err != nil {
				t.Fatal(err)
			}
			want += info.Size() + overhead
			for part := range info.Parts {
				if got, err := w.read(t, "a", info.ID, part); int64(len(got)) != info.Parts[part] || err != nil {
					t.Errorf("%d octets instead of %d: %v", len(got), info.Parts[part], err)
				}
			}
		}
		if used, err := w.Used(t.Context(), "a"); used != want || want < 9_000_000 || err != nil {
			t.Errorf("%d octets are used, and there are %d: %v (lies: %t)", used, want, err, lies)
		}
		w.mu.Lock()
		if w.held != 0 {
			t.Errorf("%d octets of memory are still taken", w.held)
		}
		w.mu.Unlock()
		_ = w.Close()
		w = open(t, w, 0) // which removes what is left of lost ones
		if _, err := w.Remove(t.Context(), "a"); err != nil || w.left(t) != 0 {
			t.Errorf("%d records left: %v (lies: %t)", w.left(t), err, lies)
		}
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	w := open(t, nil, 0)
	d, begun := w.Begin("a", terms, Info{}), w.Begin("a", terms, Info{})
	d.Write(0, []byte("x"))
	begun.Write(0, make([]byte, 2*chunkSize))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	d.Keep()
	begun.Write(0, make([]byte, 2*chunkSize))
	begun.Keep()
	if _, err := w.List(t.Context(), "a", "", 1); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := w.Close(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if w.held != 0 {
		t.Errorf("%d octets of memory are still taken", w.held)
	}
	w = open(t, w, 0)
	if w.left(t) != 0 {
		t.Error("something is left of what was not kept")
	}
	for name, c := range map[string]Config{"no store": {Sealer: w.seal}, "no sealer": {Store: w.store}, "a negative limit": {Store: w.store, Sealer: w.seal, Memory: -1}} {
		if s, err := Open(t.Context(), c); err == nil {
			_ = s.Close()
			t.Errorf("%s: opened", name)
		}
	}
}

// client is a client that may go.
type client struct {
	bytes.Buffer
	header  exchange.Header
	gone    bool
	aborted bool
}

func (c *client) Interim(int, exchange.Header) error { return nil }
func (c *client) Head(_ int, h exchange.Header, _ int64) error {
	c.header = h
	return nil
}
func (c *client) Write(p []byte) (int, error) {
	if c.gone {
		return 0, exchange.ErrClientGone
	}
	return c.Buffer.Write(p)
}
func (c *client) Flush() error              { return nil }
func (c *client) End(exchange.Header) error { return nil }
func (c *client) Upgrade(exchange.Header) (io.ReadWriteCloser, error) {
	return nil, exchange.ErrNoUpgrade
}
func (c *client) Abort() { c.aborted = true }

// words is a format whose events are "data: CHOICE TEXT".
type words struct{}

func (words) Text(event []byte, add func(int, []byte)) {
	for line := range strings.Lines(string(event)) {
		var n int
		var text string
		if _, err := fmt.Sscanf(line, "data: %d %s", &n, &text); err == nil {
			add(n, []byte(text))
		}
	}
}

func asked(c *client) *exchange.Exchange {
	x := &exchange.Exchange{ID: "x1", Route: "chat", Reply: c}
	x.Identity.Account, x.Request.Method, x.Call.Model = "a", "POST", "small"
	return x
}

func TestRecorder(t *testing.T) {
	t.Parallel()
	stream := "data: 0 Hel\n\ndata: 1 Bon\n\n: comment\n\ndata: 0 lo\n\ndata: 1 jour\n\ndata: [DONE]\n\n"
	events := exchange.Header{{Name: "content-type", Value: "text/event-stream"}}
	image := exchange.Header{{Name: "content-type", Value: "image/png"}, {Name: "content-encoding", Value: "gzip"}}
	for name, test := range map[string]struct {
		status int
		header exchange.Header
		length int64
		body   string
		method string
		format Format
		change func(*client, *Recorder) // before the last octet
		want   []string                 // parts; nil: not kept
		typ    string
	}{
		"a stream":                {status: 200, header: events, length: -1, body: stream, format: words{}, want: []string{"Hello", "Bonjour"}, typ: "text/plain; charset=utf-8"},
		"a stream nobody reads":   {status: 200, header: events, length: -1, body: stream, want: []string{stream}, typ: "text/event-stream"},
		"a stream without end":    {status: 200, header: events, length: -1, body: "data: 0 Hello", format: words{}, want: []string{"Hello"}, typ: "text/plain; charset=utf-8"},
		"a stream without text":   {status: 200, header: events, length: -1, body: "data: [DONE]\n\n", format: words{}},
		"an event without end":    {status: 200, header: events, length: -1, body: "data: 0 " + strings.Repeat("x", 1<<20), format: words{}},
		"an image":                {status: 201, header: image, length: 3, body: "\x00\r\xff", format: words{}, want: []string{"\x00\r\xff"}, typ: "image/png"},
		"a refusal":               {status: 402, length: 4, body: "pay!"},
		"a redirect":              {status: 302, length: 4, body: "gone"},
		"a part":                  {status: 206, length: 4, body: "part"},
		"nothing":                 {status: 204, length: 0},
		"an empty body":           {status: 200, length: -1},
		"HEAD":                    {status: 200, length: 5, method: "HEAD"},
		"too long, and known":     {status: 200, length: terms.Item + 1, body: "x"},
		"the client goes":         {status: 200, length: -1, body: "xx", change: func(c *client, _ *Recorder) { c.gone = true }},
		"the upstream breaks off": {status: 200, length: -1, body: "xx", change: func(_ *client, r *Recorder) { r.Abort() }},
		"the gateway fails":       {status: 200, length: -1, body: "xx", change: func(_ *client, r *Recorder) { r.Close() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := open(t, nil, 0)
			c := &client{}
			x := asked(c)
			if test.method != "" {
				x.Request.Method = test.method
			}
			r := w.Record(x, terms, test.format)
			if err := x.Reply.Head(test.status, test.header, test.length); err != nil {
				t.Fatal(err)
			}
			for i := range len(test.body) {
				if test.change != nil && i == len(test.body)-1 {
					test.change(c, r)
				}
				if i > 1000 {
					_, _ = x.Reply.Write([]byte(test.body[i:]))
					break
				}
				_, _ = x.Reply.Write([]byte(test.body[i : i+1]))
			}
			_ = x.Reply.End(nil)
			r.Close()
			if !c.gone && c.String() != test.body {
				t.Errorf("the client got %.50q", c.String())
			}
			list, err := w.List(t.Context(), "a", "", 10)
			if err != nil {
				t.Fatal(err)
			}
			if test.want == nil {
				if len(list) > 0 || w.left(t) > 0 {
					t.Errorf("kept: %+v", list)
				}
				return
			}
			if len(list) != 1 || list[0].Type != test.typ || len(list[0].Parts) != len(test.want) || list[0].Route != "chat" || list[0].Exchange != "x1" || list[0].Encoding != test.header.Get("content-encoding") {
				t.Fatalf("%+v", list)
			}
			if id := c.header.Get("postern-creation"); id != list[0].ID || test.header.Get("postern-creation") != "" {
				t.Errorf("the client was told %q", id)
			}
			for i, want := range test.want {
				if got, err := w.read(t, "a", list[0].ID, i); got != want || err != nil {
					t.Errorf("part %d: %q, %v", i, got, err)
				}
			}
		})
	}
}

func TestAsked(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{"": true, "none": false, " None ": false, "all": true} {
		x := &exchange.Exchange{}
		if value != "" {
			x.Request.Header.Set("postern-keep", value)
		}
		if Asked(x) != want {
			t.Errorf("%q: %t", value, Asked(x))
		}
		x.Call.Private = true
		if Asked(x) {
			t.Error("a private call is kept")
		}
	}
}

// Many at once, with readers, deletions and sweeps between them: what is there is whole, and what is used is what is there.
func TestHammer(t *testing.T) {
	t.Parallel()
	w := open(t, nil, 0)
	var all sync.WaitGroup
	for c := range 8 {
		all.Go(func() {
			account := fmt.Sprint("acct_", c%3)
			for i := range 60 {
				d := w.Begin(account, terms, Info{})
				size := 1 + (i*7919)%(3*chunkSize/2)
				d.Write(0, bytes.Repeat([]byte{byte(i)}, size))
				switch i % 4 {
				case 0:
					d.Drop()
					continue
				case 1:
					d.Write(i%5, []byte("more"))
				}
				d.Keep()
				if i%3 == 0 {
					if got, err := w.read(t, account, d.ID(), 0); err != nil && !errors.Is(err, ErrNone) || err == nil && len(got) < size {
						t.Errorf("%d octets of %d: %v", len(got), size, err)
					}
				}
				switch i % 20 {
				case 5, 6:
					if err := w.Delete(t.Context(), account, d.ID()); err != nil && !errors.Is(err, ErrNone) {
						t.Error(err)
					}
				case 10:
					if _, err := w.Sweep(t.Context()); err != nil {
						t.Error(err)
					}
				case 15:
					if c == 0 {
						if _, err := w.Remove(t.Context(), account); err != nil {
							t.Error(err)
						}
					}
				}
			}
		})
	}
	all.Wait()
	for c := range 3 {
		account, want := fmt.Sprint("acct_", c), int64(0)
		for info, err := range w.Export(t.Context(), account) {
			if err != nil {
				t.Fatal(err)
			}
			want += info.Size() + overhead
		}
		if used, err := w.Used(t.Context(), account); used != want || want == 0 || err != nil {
			t.Errorf("%s uses %d octets and has %d: %v", account, used, want, err)
		}
	}
}

// FuzzRecorder: where a stream is cut makes no difference, and no id or record breaks what reads it.
func FuzzRecorder(f *testing.F) {
	f.Add([]byte("data: 0 Hel\n\ndata: 1 x\r\n\r\ndata: 0 lo\r\r"), uint8(3))
	f.Add([]byte("data: 200 x\n\n"), uint8(1))
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff"), uint8(9))
	w := open(f, nil, 0)
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		texts := func(step int) (list []string) {
			x := asked(&client{})
			r := w.Record(x, terms, words{})
			_ = x.Reply.Head(200, exchange.Header{{Name: "content-type", Value: "text/event-stream"}}, -1)
			for p := range slices.Chunk(stream, step) {
				_, _ = x.Reply.Write(p)
			}
			d := r.draft
			_ = x.Reply.End(nil)
			if d.info.Size() == 0 {
				return nil
			}
			for i := range d.info.Parts {
				text, err := w.read(t, "a", d.ID(), i)
				if err != nil && !errors.Is(err, ErrNone) {
					t.Fatal(err)
				}
				list = append(list, text)
			}
			_ = w.Delete(t.Context(), "a", d.ID())
			return list
		}
		if whole, cut := texts(len(stream)+1), texts(1+int(step)); !slices.Equal(whole, cut) {
			t.Errorf("%q, cut %q", whole, cut)
		}
		_, _ = decodeRow(stream)
		if p, ok := placeOf(string(stream)); ok && p.id() != string(stream) {
			t.Errorf("%q and %q name one place", stream, p.id())
		}
	})
}

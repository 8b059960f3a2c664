package rights

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/mail"
	"github.com/postern-gateway/postern/gateway/state/memory"
	"github.com/postern-gateway/postern/gateway/vault"
)

// world is a register over people and holders of the test's own.
type world struct {
	*Register
	t       *testing.T
	store   *memory.Store
	vault   *vault.Vault
	mail    *mail.Office
	people  *crowd
	hold    *shelf
	clock   *clock
	letters *tray
}

type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

type tray struct {
	mu   sync.Mutex
	sent []string
}

func (t *tray) Send(_ context.Context, l *mail.Letter) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent = append(t.sent, l.To)
	return nil
}

// crowd is people and their accounts.
type crowd struct {
	vault   *vault.Vault
	mail    *mail.Office
	emails  map[string]string
	owned   map[string][]string
	off     map[string]bool
	removed []string
	fail    error // of the next Remove
	half    error // of the next Remove, when the person is gone and their key is not
}

func (c *crowd) Contact(_ context.Context, id string) (Contact, error) {
	if c.emails[id] == "" {
		return Contact{}, ErrNobody
	}
	return Contact{Email: c.emails[id], Language: "en"}, nil
}
func (c *crowd) Owned(_ context.Context, id string) ([]string, error) { return c.owned[id], nil }
func (c *crowd) Remove(ctx context.Context, id string) error {
	if err := c.fail; err != nil {
		c.fail = nil
		return err
	}
	if slices.Contains(c.removed, id) {
		return ErrNobody
	}
	if err := c.mail.Remove(ctx, id, c.emails[id]); err != nil {
		return err
	}
	delete(c.emails, id)
	if err := c.half; err != nil {
		c.half = nil
		return err
	}
	c.removed = append(c.removed, id)
	return c.vault.Shred(ctx, id)
}
func (c *crowd) Disable(_ context.Context, a string) (bool, error) {
	was := c.off[a]
	c.off[a] = true
	return !was, nil
}
func (c *crowd) Enable(_ context.Context, a string) error { c.off[a] = false; return nil }

// shelf keeps pieces.
type shelf struct {
	big  int
	gone map[string]int
}

func (s *shelf) Classes() []string { return []string{"usage", "creation"} }
func (s *shelf) Pieces(_ context.Context, who Subject, class string) iter.Seq2[Piece, error] {
	return func(yield func(Piece, error) bool) {
		p := Piece{Kind: class, ID: "1", Data: map[string]string{"of": who.Person + " " + strings.Join(who.Accounts, ","), "canary": "canary-content"}}
		if class == "creation" {
			p.Files = []File{{Name: "creations/1-0", Open: func(context.Context) iter.Seq2[[]byte, error] {
				return func(yield func([]byte, error) bool) {
					state := sha256.Sum256([]byte("x"))
					for range s.big / len(state) { // what does not compress
						state = sha256.Sum256(state[:])
						if !yield(slices.Clone(state[:]), nil) {
							return
						}
					}
				}
			}}}
		}
		yield(p, nil)
	}
}
func (s *shelf) Sweep(context.Context) (map[string]int, error) { return s.gone, nil }

func start(t *testing.T) *world {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	w := &world{t: t, store: memory.Open(memory.Config{}), hold: &shelf{big: 700 << 10}, clock: &clock{at: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}, letters: &tray{}}
	var err error
	if w.vault, err = vault.Open(t.Context(), vault.Config{Log: quiet}); err != nil {
		t.Fatal(err)
	}
	w.people = &crowd{vault: w.vault, emails: map[string]string{"pers_a": "ann@example.org", "pers_b": "bob@example.org"}, owned: map[string][]string{"pers_a": {"acct_1", "acct_2"}}, off: map[string]bool{}}
	public, _ := url.Parse("https://edge.example.com/console")
	if w.mail, err = mail.Open(t.Context(), mail.Config{Store: w.store, Vault: w.vault.Drawer("mail"), Transport: w.letters, From: "Edge <no-reply@example.com>", Public: public, Log: quiet}); err != nil {
		t.Fatal(err)
	}
	w.people.mail = w.mail
	w.Register = w.open()
	return w
}

func (w *world) open() *Register {
	w.t.Helper()
	r, err := New(w.t.Context(), Config{Store: w.store, Vault: w.vault.Drawer("rights"), People: w.people, Mail: w.mail, Holders: []Holder{w.hold}, Service: "Edge",
		Policy: func() any { return map[string]string{"version": "7"} }, Wait: 14 * 24 * time.Hour, Log: slog.New(slog.DiscardHandler), Now: w.clock.now})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) ask(person string, kind Kind, text string) Request {
	w.t.Helper()
	q, err := w.Ask(w.t.Context(), person, kind, text, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return q
}

func (w *world) do() {
	w.t.Helper()
	if err := w.Work(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) is(id string, want State) Request {
	w.t.Helper()
	q, err := w.Find(w.t.Context(), id)
	if err != nil || q.State != want {
		w.t.Errorf("%+v, %v; want %s", q, err, want)
	}
	return q
}

// lies returns the keys of records that hold a text in the clear.
func (w *world) lies(text string) (found []string) {
	w.t.Helper()
	for e, err := range w.store.Scan(w.t.Context(), nil, nil) {
		if err != nil {
			w.t.Fatal(err)
		}
		if bytes.Contains(e.Key, []byte(text)) || bytes.Contains(e.Value, []byte(text)) {
			found = append(found, string(e.Key))
		}
	}
	return found
}

// TestExport: the archive holds every piece, each file is what the manifest says, reading can begin anywhere, nobody else has
// it, nothing of it lies open, and it ends.
func TestExport(t *testing.T) {
	t.Parallel()
	w, ctx := start(t), t.Context()
	q := w.ask("pers_a", Export, "")
	if again, err := w.Ask(ctx, "pers_a", Export, "", ""); !errors.Is(err, ErrOpen) || again.ID != q.ID {
		t.Errorf("asked twice: %+v, %v", again, err)
	}
	if _, err := w.Archive(ctx, "pers_a", q.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("before it is made: %v", err)
	}
	w.do()
	q = w.is(q.ID, Completed)
	if _, err := w.Archive(ctx, "pers_b", q.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("somebody else's: %v", err)
	}
	a, err := w.Archive(ctx, "pers_a", q.ID)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(a)
	if sum := sha256.Sum256(whole); err != nil || int64(len(whole)) != q.Size || hex.EncodeToString(sum[:]) != q.Digest {
		t.Fatalf("%d octets of %d: %v", len(whole), q.Size, err)
	}
	for _, at := range []int64{0, 1, chunk - 1, chunk, chunk + 1, q.Size - 1, q.Size} {
		if _, err := a.Seek(at, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(a); err != nil || !bytes.Equal(rest, whole[at:]) {
			t.Errorf("from %d: %d octets, %v", at, len(rest), err)
		}
	}
	z, err := zip.NewReader(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if files[f.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	var m Manifest
	if err := json.Unmarshal(files["manifest.json"], &m); err != nil || m.Request != q.ID || len(m.Files) != len(files)-1 {
		t.Errorf("%+v, %v", m, err)
	}
	for _, f := range m.Files {
		if sum := sha256.Sum256(files[f.Name]); hex.EncodeToString(sum[:]) != f.SHA256 || int64(len(files[f.Name])) != f.Size {
			t.Errorf("%s is not what the manifest says", f.Name)
		}
	}
	if got := string(files["usage.jsonl"]); !strings.Contains(got, `"of":"pers_a acct_1,acct_2"`) || strings.Count(got, "\n") != 1 {
		t.Errorf("usage.jsonl: %s", got)
	}
	if len(files["creations/1-0"]) != w.hold.big || !strings.Contains(string(files["policy.json"]), `"7"`) {
		t.Error("a creation's content or the policy is missing")
	}
	if found := w.lies("canary"); found != nil {
		t.Errorf("content lies open in %q", found)
	}
	w.clock.move(7 * 24 * time.Hour)
	if _, err := w.Archive(ctx, "pers_a", q.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("after its time: %v", err)
	}
}

// TestDeletion: it waits, can be cancelled meanwhile, is done once, after an error or a crash too, and leaves one request
// that does not say whose it was.
func TestDeletion(t *testing.T) {
	t.Parallel()
	w, ctx := start(t), t.Context()
	q := w.ask("pers_a", Deletion, "")
	w.clock.move(13 * 24 * time.Hour)
	w.do()
	w.is(q.ID, Pending)
	if _, err := w.Cancel(ctx, "pers_b", q.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("cancelled by another: %v", err)
	}
	if _, err := w.Cancel(ctx, "pers_a", q.ID); err != nil {
		t.Fatal(err)
	}
	w.clock.move(30 * 24 * time.Hour)
	w.do()
	w.is(q.ID, Cancelled)
	if len(w.people.removed) != 0 {
		t.Fatal("deleted although it was cancelled")
	}

	export := w.ask("pers_a", Export, "")
	w.do()
	fix := w.ask("pers_a", Correction, "canary-correction")
	q = w.ask("pers_a", Deletion, "")
	w.clock.move(14 * 24 * time.Hour)
	w.people.fail = errors.New("the disk is full")
	if err := w.Work(ctx); err == nil {
		t.Fatal("an error was not told")
	}
	w.is(q.ID, InProgress)
	if _, err := w.Cancel(ctx, "pers_a", q.ID); !errors.Is(err, ErrOver) {
		t.Errorf("cancelled when it had begun: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w.Register = w.open() // as after a crash
	w.do()
	if q = w.is(q.ID, Completed); q.Person != "" || !slices.Equal(w.people.removed, []string{"pers_a"}) {
		t.Errorf("%+v, removed %q", q, w.people.removed)
	}
	for _, id := range []string{export.ID, fix.ID} {
		if _, err := w.Find(ctx, id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s is still there: %v", id, err)
		}
	}
	for _, text := range []string{"pers_a", "canary", "ann@example.org", export.ID} {
		if found := w.lies(text); found != nil {
			t.Errorf("%s is still in %q", text, found)
		}
	}
	w.do()
	if len(w.people.removed) != 1 {
		t.Error("deleted twice")
	}
}

// TestOutside: a request that was passed on is found by what it is called there, is not made twice, and goes with the person.
func TestOutside(t *testing.T) {
	t.Parallel()
	w, ctx := start(t), t.Context()
	q, err := w.Ask(ctx, "pers_a", Export, "", "letter-7")
	if err != nil {
		t.Fatal(err)
	}
	for _, person := range []string{"pers_a", "pers_b"} {
		if again, err := w.Ask(ctx, person, Deletion, "", "letter-7"); !errors.Is(err, ErrOpen) || again.ID != q.ID {
			t.Errorf("%s: %+v, %v", person, again, err)
		}
	}
	if got, err := w.Outside(ctx, "letter-7"); err != nil || got.ID != q.ID || got.Outside != "letter-7" || w.lies("letter-7") != nil {
		t.Errorf("%+v, %v, or it lies open", got, err)
	}
	for _, name := range []string{"", "letter", "letter-77", strings.Repeat("x", 101)} {
		if _, err := w.Outside(ctx, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
	w.do()
	if got, err := w.Outside(ctx, "letter-7"); err != nil || got.State != Completed {
		t.Errorf("%+v, %v", got, err)
	}
	w.ask("pers_a", Deletion, "")
	w.clock.move(14 * 24 * time.Hour)
	w.do()
	if _, err := w.Outside(ctx, "letter-7"); !errors.Is(err, ErrNotFound) {
		t.Errorf("after the deletion: %v", err)
	}

	q, err = w.Ask(ctx, "pers_b", Deletion, "", "letter-8")
	if err != nil {
		t.Fatal(err)
	}
	w.clock.move(14 * 24 * time.Hour)
	w.do()
	if got, err := w.Outside(ctx, "letter-8"); err != nil || got.ID != q.ID || got.State != Completed || got.Person != "" {
		t.Errorf("a deletion that is completed: %+v, %v", got, err)
	}
}

// A person who was removed half-way, one who was removed before the crash that kept it from being noted, and one who may not go.
func TestDeletionEnds(t *testing.T) {
	t.Parallel()
	w, ctx := start(t), t.Context()
	fix := w.ask("pers_a", Correction, "canary")
	q := w.ask("pers_a", Deletion, "")
	w.clock.move(14 * 24 * time.Hour)
	w.people.half = errors.New("the disk is full")
	if err := w.Work(ctx); err == nil {
		t.Error("an error was not told")
	}
	w.is(q.ID, InProgress)
	w.do()
	if q = w.is(q.ID, Completed); q.Person != "" || !slices.Equal(w.people.removed, []string{"pers_a"}) {
		t.Errorf("%+v, removed %q", q, w.people.removed)
	}
	if _, err := w.Find(ctx, fix.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("the correction: %v", err)
	}

	w.people.emails["pers_c"] = "cem@example.org"
	fix, q = w.ask("pers_c", Correction, "canary"), w.ask("pers_c", Deletion, "")
	w.clock.move(14 * 24 * time.Hour)
	if err := w.people.Remove(ctx, "pers_c"); err != nil {
		t.Fatal(err)
	}
	if list, err := w.All(ctx, true, "", 10); err != nil || len(list) != 2 {
		t.Errorf("operators can not list: %+v, %v", list, err)
	}
	w.do()
	if q = w.is(q.ID, Completed); q.Person != "" {
		t.Errorf("%+v", q)
	}
	if _, err := w.Find(ctx, fix.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("the correction: %v", err)
	}
	q = w.ask("pers_b", Deletion, "")
	w.clock.move(14 * 24 * time.Hour)
	w.people.fail = ErrBlocked
	w.do()
	if q = w.is(q.ID, Refused); q.Reason != "last_owner" || q.Person != "pers_b" {
		t.Errorf("%+v", q)
	}
	if list, err := w.All(ctx, true, "", 10); err != nil || len(list) != 0 {
		t.Errorf("still open: %+v, %v", list, err)
	}
}

// TestRestriction: what it disabled, and nothing else, is enabled again.
func TestRestriction(t *testing.T) {
	t.Parallel()
	w, ctx := start(t), t.Context()
	w.people.off["acct_2"] = true // by an operator
	q := w.ask("pers_a", Restriction, "")
	w.do()
	w.is(q.ID, InProgress)
	if on, err := w.Restricted(ctx, "pers_a"); err != nil || !on || !w.people.off["acct_1"] {
		t.Errorf("not restricted: %v, %v", on, err)
	}
	w.do()
	if _, err := w.Cancel(ctx, "pers_a", q.ID); err != nil {
		t.Fatal(err)
	}
	w.is(q.ID, Completed)
	if on, err := w.Restricted(ctx, "pers_a"); err != nil || on || w.people.off["acct_1"] || !w.people.off["acct_2"] {
		t.Errorf("%v, %v, %v", on, err, w.people.off)
	}
}

// TestCorrection: an operator sees what is asked, and the person sees what became of it; nothing of the text stays.
func TestCorrection(t *testing.T) {
	t.Parallel()
	w, ctx := start(t), t.Context()
	for kind, text := range map[Kind]string{Correction: " ", Export: "text", "else": ""} {
		if _, err := w.Ask(ctx, "pers_a", kind, text, ""); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s %q: %v", kind, text, err)
		}
	}
	if _, err := w.Ask(ctx, "pers_c", Export, "", ""); !errors.Is(err, ErrNobody) {
		t.Errorf("nobody: %v", err)
	}
	q := w.ask("pers_a", Correction, "canary: the invoice's name")
	w.do()
	if got := w.is(q.ID, Pending); got.Text != "canary: the invoice's name" || w.lies("canary") != nil {
		t.Errorf("%+v", got)
	}
	for _, c := range []struct {
		to     State
		reason string
	}{{Refused, ""}, {Completed, "why"}, {Pending, ""}, {Cancelled, ""}, {Refused, strings.Repeat("x", MaxReason+1)}} {
		if _, err := w.Decide(ctx, q.ID, c.to, c.reason); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s %.10q: %v", c.to, c.reason, err)
		}
	}
	if got, err := w.Decide(ctx, q.ID, Refused, "the law says so"); err != nil || got.State != Refused || w.lies("the law") != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := w.Decide(ctx, q.ID, Completed, ""); !errors.Is(err, ErrOver) {
		t.Errorf("decided twice: %v", err)
	}
}

// TestReceipt: it says how the request stands, by a key that outlives restarts, and nothing else passes for one.
func TestReceipt(t *testing.T) {
	t.Parallel()
	w := start(t)
	q := w.ask("pers_a", Deletion, "")
	text, err := w.Receipt(q)
	if err != nil {
		t.Fatal(err)
	}
	key := w.open().Key()
	c, err := Verify(key, text)
	if err != nil || c.Issuer != "Edge" || c.Request != q.ID || c.Kind != Deletion || c.State != Pending || !c.Due.Equal(q.Due) {
		t.Errorf("%+v, %v", c, err)
	}
	other := start(t).Key()
	if _, err := Verify(other, text); !errors.Is(err, ErrReceipt) {
		t.Errorf("by another key: %v", err)
	}
	for i := range len(text) {
		forged := []byte(text)
		forged[i] ^= 1
		if _, err := Verify(key, string(forged)); !errors.Is(err, ErrReceipt) {
			t.Errorf("octet %d changed: %v", i, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	key := Key{X: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
	for _, seed := range []string{"", "a.b.c", "..", "eyJhbGciOiJFZERTQSJ9.e30.AAAA"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := Verify(key, text); err == nil {
			t.Errorf("%q passes", text)
		}
	})
}

// TestSweep: what every holder removed is reported, and can be asked for later.
func TestSweep(t *testing.T) {
	t.Parallel()
	w, ctx := start(t), t.Context()
	if s, err := w.Swept(ctx); err != nil || !s.Time.IsZero() {
		t.Errorf("before the first: %+v, %v", s, err)
	}
	w.hold.gone = map[string]int{"creations": 3, "usage.days": 0}
	if _, err := w.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if s, err := w.Swept(ctx); err != nil || !s.Time.Equal(w.clock.now()) || len(s.Removed) != 1 || s.Removed["creations"] != 3 {
		t.Errorf("%+v, %v", s, err)
	}
}

package person

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-gateway/postern/gateway/mail"
	"github.com/postern-gateway/postern/gateway/person/settings"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/memory"
)

// keys seals in memory, each owner under a key of its own, and counts.
type keys struct {
	mu    sync.Mutex
	live  map[string]cipher.AEAD
	gone  map[string]bool
	seals int
	stuck bool // nothing can be shredded
}

func (k *keys) of(owner string) (cipher.AEAD, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone[owner] {
		return nil, errors.New("shredded")
	}
	if k.live[owner] == nil {
		key := make([]byte, 32)
		rand.Read(key)
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		if k.live[owner], err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return nil, err
		}
	}
	return k.live[owner], nil
}

func (k *keys) Seal(_ context.Context, owner, name string, plain []byte) ([]byte, error) {
	aead, err := k.of(owner)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	k.seals++
	k.mu.Unlock()
	return aead.Seal(nil, nil, plain, []byte(owner+"\x00"+name)), nil
}

func (k *keys) Open(_ context.Context, owner, name string, sealed []byte) ([]byte, error) {
	aead, err := k.of(owner)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, nil, sealed, []byte(owner+"\x00"+name))
}

func (k *keys) Shred(_ context.Context, owner string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stuck {
		return errors.New("the disk is stuck")
	}
	delete(k.live, owner)
	k.gone[owner] = true
	return nil
}

// books are accounts by id.
type books struct {
	mu     sync.Mutex
	names  map[string]string
	closed []string
}

func (b *books) Create(_ context.Context, name string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := fmt.Sprintf("acct_%016d", len(b.names))
	b.names[id] = name
	return id, nil
}

func (b *books) Name(_ context.Context, id string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if name, ok := b.names[id]; ok {
		return name, nil
	}
	return "", errors.New("no such account")
}

func (b *books) Close(_ context.Context, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.closed, id) {
		b.closed = append(b.closed, id)
	}
	return nil
}

// counted counts what is written.
type counted struct {
	state.Store
	mu             sync.Mutex
	commits, write int
}

func (c *counted) Commit(ctx context.Context, b *state.Batch) error {
	c.mu.Lock()
	c.commits, c.write = c.commits+1, c.write+len(b.Writes)
	c.mu.Unlock()
	return c.Store.Commit(ctx, b)
}

// world is a directory with everything around it. Its time is the test's own: it belongs into a synctest bubble.
type world struct {
	*Directory
	t       *testing.T
	dir     string // of letters
	store   *counted
	keys    *keys
	books   *books
	policy  string
	taken   int         // letters that were looked at
	stuck   atomic.Bool // no letter leaves
	eventMu sync.Mutex
	events  []Event
}

const good, better = "correct horse battery", "another staple entirely"

var home = Client{Address: netip.MustParseAddr("192.0.2.7"), Agent: "Browser/1.0"}

// from is a client in another network for each n.
func from(n int) Client {
	return Client{Address: netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 1}), Agent: "Browser/1.0"}
}

func newWorld(t *testing.T, edit func(*settings.Settings)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), keys: &keys{live: map[string]cipher.AEAD{}, gone: map[string]bool{}}, books: &books{names: map[string]string{}}, policy: "2026-11"}
	store := memory.Open(memory.Config{})
	t.Cleanup(func() { _ = store.Close() })
	w.store = &counted{Store: store}
	w.open(edit)
	return w
}

// open opens the directory over what is in the store; once more after Close.
func (w *world) open(edit func(*settings.Settings)) {
	w.t.Helper()
	const day = 24 * time.Hour
	s := &settings.Settings{
		Public: &url.URL{Scheme: "https", Host: "edge.example.com", Path: "/console"}, Signup: settings.Open, Service: "Edge", Language: "en",
		Sessions:  settings.Sessions{Idle: 7 * day, Absolute: 30 * day, Recent: 15 * time.Minute, Most: 50},
		Passwords: settings.Passwords{Least: 10, Memory: 64, Passes: 1, Concurrent: 2},
		Throttle:  settings.Throttle{Person: 5, Network: 30, Wait: 15 * time.Minute},
		Tokens:    settings.Tokens{Confirm: day, Reset: time.Hour, Undo: 7 * day, Invitation: 7 * day},
	}
	if edit != nil {
		edit(s)
	}
	log := slog.New(slog.DiscardHandler)
	office, err := mail.Open(w.t.Context(), mail.Config{Store: w.store, Vault: w.keys, Transport: way{w}, From: "Edge <no-reply@example.com>", Public: s.Public, Service: s.Service, Log: log, PerRecipient: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	office.Start()
	w.Directory, err = Open(w.t.Context(), Config{
		Store: w.store, Vault: w.keys, Mail: office, Accounts: w.books, Settings: s, Log: log, Policy: func() string { return w.policy },
		Audit: func(_ context.Context, e Event) {
			w.eventMu.Lock()
			defer w.eventMu.Unlock()
			w.events = append(w.events, e)
		},
	})
	if err != nil {
		_ = office.Close()
		w.t.Fatal(err)
	}
	d := w.Directory
	w.t.Cleanup(func() { _ = d.Close(); _ = office.Close() })
}

// way is where letters go.
type way struct{ w *world }

func (y way) Send(ctx context.Context, l *mail.Letter) error {
	if y.w.stuck.Load() {
		return errors.New("no way out")
	}
	return mail.Outbox{Dir: y.w.dir}.Send(ctx, l)
}

// letter is a message that somebody got.
type letter struct{ to, subject, body, link, token string }

// letters are those that arrived since the last call.
func (w *world) letters() []letter {
	w.t.Helper()
	synctest.Wait()
	files, err := filepath.Glob(filepath.Join(w.dir, "*.eml"))
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(files)
	var list []letter
	for _, name := range files[w.taken:] {
		f, err := os.Open(name)
		if err != nil {
			w.t.Fatal(err)
		}
		defer f.Close()
		m, err := netmail.ReadMessage(f)
		if err != nil {
			w.t.Fatal(err)
		}
		_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
		if err != nil {
			w.t.Fatal(err)
		}
		p, err := multipart.NewReader(m.Body, params["boundary"]).NextRawPart()
		if err != nil {
			w.t.Fatal(err)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(p))
		if err != nil {
			w.t.Fatal(err)
		}
		l := letter{to: strings.Trim(m.Header.Get("To"), "<>"), body: string(body)}
		if l.subject, err = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil {
			w.t.Fatal(err)
		}
		for line := range strings.Lines(l.body) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "http") {
				l.link = line
				u, err := url.Parse(line)
				if err != nil || !strings.HasPrefix(line, "https://edge.example.com/console/") {
					w.t.Errorf("a link that is not the public URL's: %q", line)
				}
				l.token = u.Query().Get("token")
			}
		}
		list = append(list, l)
	}
	w.taken = len(files)
	time.Sleep(time.Millisecond) // files are named by their time: the next ones come after these
	return list
}

// one is the only letter that arrived, to an address, with a link to a page.
func (w *world) one(to, page string) letter {
	w.t.Helper()
	list := w.letters()
	if len(list) != 1 || list[0].to != to || !strings.HasPrefix(list[0].link, "https://edge.example.com/console"+page) {
		w.t.Fatalf("letters %+v, want one to %s with a link to %s", list, to, page)
	}
	return list[0]
}

// join makes a person, signed in.
func (w *world) join(email string) SignedIn {
	w.t.Helper()
	w.letters()
	if err := w.SignUp(w.t.Context(), from(1000+w.taken), email, "en"); err != nil {
		w.t.Fatal(err)
	}
	l := w.one(email, ConfirmPath+"?token=")
	in, err := w.Confirm(w.t.Context(), home, l.token, Registration{Name: "Ann", Password: good, Language: "en", Policy: w.policy})
	if err != nil {
		w.t.Fatal(err)
	}
	return in
}

// account is the only one that a person takes part in.
func (w *world) account(person string) string {
	w.t.Helper()
	list, err := w.Teams().Memberships(w.t.Context(), person)
	if err != nil || len(list) != 1 {
		w.t.Fatalf("memberships %+v, %v", list, err)
	}
	return list[0].Account
}

// is fails a test where an error is not the one that is wanted.
func (w *world) is(err, want error, what string) {
	w.t.Helper()
	if !errors.Is(err, want) {
		w.t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// must stops a test at an error.
func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// bubble runs a test in a time of its own.
func bubble(t *testing.T, edit func(*settings.Settings), test func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, edit)) })
}

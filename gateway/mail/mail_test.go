package mail

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/memory"
)

// box seals in memory, each owner under a key of its own.
type box struct {
	mu   sync.Mutex
	keys map[string]cipher.AEAD
	gone map[string]bool
}

func newBox() *box { return &box{keys: map[string]cipher.AEAD{}, gone: map[string]bool{}} }

func (b *box) key(owner string) (cipher.AEAD, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone[owner] {
		return nil, errors.New("shredded")
	}
	if b.keys[owner] == nil {
		key := make([]byte, 32)
		rand.Read(key)
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		if b.keys[owner], err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return nil, err
		}
	}
	return b.keys[owner], nil
}

func (b *box) Seal(_ context.Context, owner, name string, plain []byte) ([]byte, error) {
	k, err := b.key(owner)
	if err != nil {
		return nil, err
	}
	return k.Seal(nil, nil, plain, []byte(owner+"\x00"+name)), nil
}

func (b *box) Open(_ context.Context, owner, name string, sealed []byte) ([]byte, error) {
	k, err := b.key(owner)
	if err != nil {
		return nil, err
	}
	return k.Open(nil, nil, sealed, []byte(owner+"\x00"+name))
}

func (b *box) Shred(_ context.Context, owner string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.keys, owner)
	b.gone[owner] = true
	return nil
}

// live is how many owners have a key.
func (b *box) live() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.keys)
}

// tray takes letters, or fails as it is told.
type tray struct {
	mu      sync.Mutex
	letters []string
	ids     []string
	fail    func(n int) error // nil: never
	tries   int
}

func (t *tray) Send(_ context.Context, l *Letter) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tries++
	if t.fail != nil {
		if err := t.fail(t.tries); err != nil {
			return err
		}
	}
	var out bytes.Buffer
	if _, err := l.message.WriteTo(&out); err != nil {
		return err
	}
	t.letters, t.ids = append(t.letters, out.String()), append(t.ids, l.ID)
	return nil
}

func (t *tray) tried() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tries
}

func (t *tray) sent() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.letters)
}

func config(t *testing.T, transport Transport) Config {
	t.Helper()
	public, err := url.Parse("https://edge.example.com/console")
	if err != nil {
		t.Fatal(err)
	}
	store := memory.Open(memory.Config{})
	t.Cleanup(func() { _ = store.Close() })
	return Config{Store: store, Vault: newBox(), Transport: transport, From: "Edge <no-reply@example.com>", Public: public, Service: "Edge", Log: slog.New(slog.DiscardHandler)}
}

func open(t *testing.T, c Config) *Office {
	t.Helper()
	o, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

func reset(to string) Message {
	return Message{Kind: "reset", To: to, Language: "en", Path: "/reset", Token: "a+b/c=", Values: map[string]string{"Hours": "1"}}
}

// parts takes a message apart: its header and its bodies by type.
func parts(t *testing.T, text string) (netmail.Header, map[string]string) {
	t.Helper()
	m, err := netmail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		t.Fatalf("content type %q: %v", kind, err)
	}
	bodies := map[string]string{}
	r := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return m.Header, bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		kind, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(p))
		if err != nil {
			t.Fatal(err)
		}
		bodies[kind] = strings.ReplaceAll(string(body), "\r\n", "\n")
	}
}

// TestEveryKindInEveryLanguage: all texts are there, say what they must, and have no gap.
func TestEveryKindInEveryLanguage(t *testing.T) {
	t.Parallel()
	o := open(t, config(t, &tray{}))
	subjects := map[string]bool{}
	for _, language := range Languages() {
		for _, kind := range Kinds() {
			m := Message{Kind: kind, To: "ann@example.org", Language: language, Path: "/p", Token: "T", Values: map[string]string{"Hours": "24", "Team": "Lab", "By": "Bob", "Date": "2026-12-08"}}
			l, err := o.write(&m, "id", time.Unix(0, 0))
			if err != nil {
				t.Errorf("%s %s: %v", language, kind, err)
				continue
			}
			var out bytes.Buffer
			if _, err := l.message.WriteTo(&out); err != nil {
				t.Fatal(err)
			}
			h, bodies := parts(t, out.String())
			subject, err := new(mime.WordDecoder).DecodeHeader(h.Get("Subject"))
			if err != nil || !strings.Contains(subject, "Edge") || subjects[subject] {
				t.Errorf("%s %s: subject %q: %v", language, kind, subject, err)
			}
			subjects[subject] = true
			for kind, body := range bodies {
				if strings.Contains(body, "{{") || strings.Contains(body, "<no value>") || len(body) < 40 {
					t.Errorf("%s: %s", kind, body)
				}
			}
			if strings.Contains(bodies["text/html"], "src=") || strings.Contains(bodies["text/html"], "url(") {
				t.Errorf("the message fetches something: %s", bodies["text/html"])
			}
		}
	}
	if _, err := o.write(&Message{Kind: "reset", To: "a@b.c"}, "id", time.Time{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a text without its values: %v", err)
	}
	if _, err := o.write(&Message{Kind: "none", To: "a@b.c"}, "id", time.Time{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a kind there is not: %v", err)
	}
}

// TestNamesStayNames: what people call themselves can be no header field, no paragraph, no markup and no link.
func TestNamesStayNames(t *testing.T) {
	t.Parallel()
	o := open(t, config(t, &tray{}))
	for _, evil := range []string{
		"Bob\r\nBcc: victim@example.org", "Bob\n\nhttps://evil.example/pay now", "=?utf-8?q?=0d=0aBcc:_x@example.org?=",
		`<img src="https://evil.example/x.png">`, "www.evil.example", "evil.example/login", "a\u2028b\u202eevil", strings.Repeat("x.y ", 500), "\x00\x1b[31m",
		"{{.Link}}", "https:evil.example", "\u200bhttps\u200b://evil.example",
	} {
		m := Message{Kind: "invitation", To: "ann@example.org", Path: "/invitation", Token: "T", Values: map[string]string{"Hours": "24", "Team": evil, "By": evil}}
		l, err := o.write(&m, "id", time.Unix(0, 0))
		if err != nil {
			t.Fatalf("%q: %v", evil, err)
		}
		var out bytes.Buffer
		if _, err := l.message.WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		h, bodies := parts(t, out.String())
		if len(h["Bcc"]) > 0 || len(h["To"]) != 1 || !strings.Contains(h.Get("To"), "ann@example.org") || strings.Contains(h.Get("To"), "victim") {
			t.Errorf("%q: header %v", evil, h)
		}
		plain := bodies["text/plain"]
		for word := range strings.FieldsSeq(plain) {
			if (strings.Contains(word, "evil.e") || strings.Contains(word, "://")) && !strings.HasPrefix(word, "https://edge.example.com/console/invitation?token=T") {
				t.Errorf("%q: %q would become a link", evil, word)
			}
		}
		if strings.Contains(bodies["text/html"], "<img") || strings.Count(bodies["text/html"], "href=") != 1 {
			t.Errorf("%q: markup came through: %s", evil, bodies["text/html"])
		}
		if n := strings.Count(plain, "\n\n"); n != 3 {
			t.Errorf("%q: %d paragraphs more than the text has:\n%s", evil, n-3, plain)
		}
		if len(plain) > 1500 {
			t.Errorf("%q: a text of %d octets", evil, len(plain))
		}
	}
}

// TestAddresses: what mail can be sent to, in one form.
func TestAddresses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		" Ann.Miller@Example.COM ": "ann.miller@example.com", "a+tag@b.co": "a+tag@b.co", "ann@bücher.example": "ann@xn--bcher-kva.example",
		"": "", "ann": "", "ann@": "", "@b.co": "", "ann@localhost": "", "ann@127.0.0.1": "", "a b@c.de": "", "a@b@c.de": "", `"a b"@c.de`: "",
		"Ann <ann@example.com>": "", "ann@example.com\r\nBcc: x@y.z": "", "ann@example.com,bob@example.com": "", "ann@exa\x00mple.com": "", "ann@example.com.": "",
		".ann@example.com": "", "ann..b@example.com": "", "änn@example.com": "", strings.Repeat("a", 65) + "@b.co": "", "a@" + strings.Repeat("b.", 130) + "co": "",
		"a@-b.co": "", "ann@[::1]": "", "ann%0abcc@example.com\n": "ann%0abcc@example.com",
	} {
		got, err := Address(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
		if err != nil && text != "" && len(text) > 5 && strings.Contains(err.Error(), text) {
			t.Errorf("%q is repeated by %q", text, err)
		}
	}
}

func FuzzAddress(f *testing.F) {
	f.Add("ann@example.com")
	f.Add("a@b@c.de\r\nX: y")
	f.Add("ann@bücher.example")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := Address(text)
		if err != nil {
			return
		}
		if again, err := Address(a); err != nil || again != a {
			t.Fatalf("%q has the forms %q and %q: %v", text, a, again, err)
		}
		if strings.ContainsAny(a, "\r\n\x00 <>,;\"") || len(a) > 254 {
			t.Fatalf("%q became %q", text, a)
		}
	})
}

func FuzzHarmless(f *testing.F) {
	f.Add("https://evil.example/\r\nBcc: x")
	f.Add("Ann O'Neill Jr.")
	f.Fuzz(func(t *testing.T, text string) {
		got := Harmless(text)
		if strings.ContainsAny(got, "\r\n\x00\u2028") || strings.Contains(got, "://") || len([]rune(got)) > 80 {
			t.Fatalf("%q became %q", text, got)
		}
	})
}

func TestLinksBeginWithThePublicURL(t *testing.T) {
	t.Parallel()
	o := open(t, config(t, &tray{}))
	if got := o.link("/reset", "a+b/c=&x"); got != "https://edge.example.com/console/reset?token=a%2Bb%2Fc%3D%26x" {
		t.Error(got)
	}
	for _, path := range []string{"reset", "//evil.example?", "/a?b", "/a#b", `\\evil`} {
		m := reset("ann@example.org")
		m.Path = path
		if err := o.Post(t.Context(), nil, m); !errors.Is(err, ErrInvalid) {
			t.Errorf("path %q: %v", path, err)
		}
	}
	if got := o.link("//evil.example/x", ""); !strings.HasPrefix(got, "https://edge.example.com/") {
		t.Error(got)
	}
}

// TestSentOnce: a message is sent, and nothing of it stays: no record, and no key.
func TestSentOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := &tray{}
		c := config(t, tr)
		o := open(t, c)
		o.Start()
		other := new(state.Batch)
		other.Put([]byte("beside"), []byte("1"))
		if err := o.Post(t.Context(), other, reset("ann@example.org"), reset("bob@example.org")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(tr.sent()); n != 2 {
			t.Fatalf("%d messages were sent", n)
		}
		if _, err := c.Store.Get(t.Context(), []byte("beside")); err != nil {
			t.Errorf("what went with the messages: %v", err)
		}
		for e := range c.Store.Scan(t.Context(), []byte(prefix), nil) {
			t.Errorf("left in the store: %s", e.Key)
		}
		if c.Vault.(*box).live() != 0 || len(o.List()) != 0 {
			t.Errorf("%d keys and %d entries are left", c.Vault.(*box).live(), len(o.List()))
		}
		h, _ := parts(t, tr.sent()[0])
		for name, want := range map[string]string{"Auto-Submitted": "auto-generated", "Content-Language": "en"} {
			if h.Get(name) != want {
				t.Errorf("%s: %q", name, h.Get(name))
			}
		}
		if id := h.Get("Message-Id"); !strings.HasSuffix(id, "@example.com>") || len(id) < 20 {
			t.Errorf("Message-ID %q", id)
		}
		if _, err := h.Date(); err != nil {
			t.Error(err)
		}
	})
}

// TestNothingReadableWaits: neither address, link nor name stands in the store.
func TestNothingReadableWaits(t *testing.T) {
	t.Parallel()
	c := config(t, &tray{})
	o := open(t, c)
	m := Message{Kind: "invitation", To: "canary@example.org", Path: "/invitation", Token: "canarytoken", Values: map[string]string{"Hours": "1", "Team": "canaryteam", "By": "canaryby"}}
	if err := o.Post(t.Context(), nil, m); err != nil {
		t.Fatal(err)
	}
	for e := range c.Store.Scan(t.Context(), nil, nil) {
		if bytes.Contains(e.Key, []byte("canary")) || bytes.Contains(e.Value, []byte("canary")) {
			t.Errorf("%s = %s", e.Key, e.Value)
		}
	}
}

// TestTriedAgain: waits grow, a run in between loses nothing, each try is the same message, and in the end it is given up,
// until somebody asks for it again.
func TestTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("no route to ann@example.org")
		tr := &tray{fail: func(int) error { return down }}
		c := config(t, tr)
		var log bytes.Buffer
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		o := open(t, c)
		o.Start()
		if err := o.Post(t.Context(), nil, reset("ann@example.org")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if tr.tried() != 1 {
			t.Fatalf("%d tries at once", tr.tried())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if tr.tried() != 2 {
			t.Fatalf("%d tries after a minute", tr.tried())
		}
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		o = open(t, c) // a new run
		o.Start()
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		if tr.tried() != 2 {
			t.Fatalf("%d tries: the new run did not wait", tr.tried())
		}
		time.Sleep(72 * time.Hour)
		synctest.Wait()
		if want := len(waits) + 1; tr.tried() != want {
			t.Fatalf("%d tries, want %d", tr.tried(), want)
		}
		list := o.List()
		if len(list) != 1 || list[0].Lost == "" {
			t.Fatalf("not given up: %+v", list)
		}
		tr.mu.Lock()
		tr.fail = nil
		tr.mu.Unlock()
		if err := o.Retry(t.Context(), list[0].ID); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := tr.sent(); len(got) != 1 || !strings.Contains(got[0], list[0].ID+"@example.com") || len(o.List()) != 0 {
			t.Errorf("after another try: %d sent, %+v", len(got), o.List())
		}
		if err := o.Retry(t.Context(), list[0].ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("a message that was sent, again: %v", err)
		}
		if strings.Contains(log.String(), "ann@") {
			t.Errorf("the log names the receiver:\n%s", log.String())
		}
	})
}

// TestGivenUpIsForgotten after a week, with its key.
func TestGivenUpIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := &tray{fail: func(int) error { return Refusal{Code: 550} }}
		c := config(t, tr)
		o := open(t, c)
		o.Start()
		late := reset("bob@example.org")
		late.Expires = time.Now().Add(-time.Second)
		if err := o.Post(t.Context(), nil, reset("ann@example.org"), late); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if tr.tried() != 1 {
			t.Errorf("%d tries: a refusal is final, and what is over is not sent", tr.tried())
		}
		for _, e := range o.List() {
			if e.Lost == "" {
				t.Errorf("not given up: %+v", e)
			}
		}
		time.Sleep(keepLost)
		synctest.Wait()
		if len(o.List()) != 0 || c.Vault.(*box).live() != 0 {
			t.Errorf("%d entries and %d keys after a week", len(o.List()), c.Vault.(*box).live())
		}
	})
}

// TestCrashInBetween: a message whose sending was cut off is tried again later under the same id, not at once.
func TestCrashInBetween(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := &tray{}
		c := config(t, tr)
		o := open(t, c)
		if err := o.Post(t.Context(), nil, reset("ann@example.org")); err != nil {
			t.Fatal(err)
		}
		it, _ := o.next()
		text, err := c.Store.Get(t.Context(), []byte(prefix+it.id))
		if err != nil {
			t.Fatal(err)
		}
		stuck := make(chan struct{})
		tr.fail = func(int) error { <-stuck; return errors.New("cut off") }
		go o.handle(it)
		synctest.Wait() // the try is on disk, the server has the message, perhaps
		after, err := c.Store.Get(t.Context(), []byte(prefix+it.id))
		if err != nil || bytes.Equal(text, after) {
			t.Fatalf("the try is not on disk: %v", err)
		}
		tr2 := &tray{}
		c.Transport = tr2
		o2 := open(t, c)
		o2.Start()
		synctest.Wait()
		if len(tr2.sent()) != 0 {
			t.Error("sent once more at the start")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := tr2.ids; len(got) != 1 || got[0] != it.id {
			t.Errorf("sent as %v, was %s", got, it.id)
		}
		close(stuck)
		synctest.Wait()
	})
}

// TestBounds: one address gets some an hour of what strangers can ask for, the queue has an end, and an owner's messages can
// be taken out.
func TestBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := config(t, &tray{})
		c.PerRecipient, c.Queue = 2, 5
		o := open(t, c)
		asked, told := reset("ann@example.org"), reset("ann@example.org")
		asked.Asked, told.Owner = true, "pers_1"
		beside := new(state.Batch)
		beside.Put([]byte("beside"), []byte("1"))
		for i, want := range []error{nil, nil, ErrThrottled} {
			if err := o.Post(t.Context(), nil, asked); !errors.Is(err, want) {
				t.Fatalf("%d: %v", i, err)
			}
		}
		if err := o.Post(t.Context(), beside, asked); !errors.Is(err, ErrThrottled) {
			t.Fatal(err)
		}
		if _, err := c.Store.Get(t.Context(), []byte("beside")); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("what went with a message that was refused: %v", err)
		}
		if err := o.Post(t.Context(), nil, told, told, told); err != nil { // not asked for: always told
			t.Fatal(err)
		}
		if err := o.Post(t.Context(), beside, told); !errors.Is(err, ErrFull) {
			t.Fatalf("the sixth: %v", err)
		}
		keys := c.Vault.(*box).live()
		if err := o.Remove(t.Context(), "pers_1", ""); err != nil || len(o.List()) != 2 {
			t.Fatalf("%v, %d left", err, len(o.List()))
		}
		time.Sleep(time.Hour)
		if err := o.Post(t.Context(), nil, asked); err != nil {
			t.Errorf("an hour later: %v", err)
		}
		if c.Vault.(*box).live() != keys+1 {
			t.Errorf("%d keys, then %d", keys, c.Vault.(*box).live())
		}
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		if err := o.Post(t.Context(), nil, asked); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// TestRoomForNotices: a flood of what strangers ask for leaves room to tell people about their own accounts.
func TestRoomForNotices(t *testing.T) {
	t.Parallel()
	c := config(t, &tray{})
	c.Queue = 10
	o := open(t, c)
	for i := range 9 {
		m := reset(strconv.Itoa(i) + "@example.org")
		m.Asked = true
		if err := o.Post(t.Context(), nil, m); err != nil {
			t.Fatal(err)
		}
	}
	one := reset("z@example.org")
	one.Asked = true
	if err := o.Post(t.Context(), nil, one); !errors.Is(err, ErrFull) {
		t.Errorf("the tenth that was asked for: %v", err)
	}
	if err := o.Post(t.Context(), nil, reset("ann@example.org")); err != nil {
		t.Errorf("a notice: %v", err)
	}
}

// TestRemoveByAddress: what goes to somebody who is removed goes with them, whoever's it is, and its key too.
func TestRemoveByAddress(t *testing.T) {
	t.Parallel()
	c := config(t, &tray{})
	o := open(t, c)
	theirs, toThem, other := reset("new@example.org"), reset("ann@example.org"), reset("bob@example.org")
	theirs.Owner = "pers_1"
	if err := o.Post(t.Context(), nil, theirs, toThem, other); err != nil {
		t.Fatal(err)
	}
	if err := o.Remove(t.Context(), "pers_1", "ann@example.org"); err != nil {
		t.Fatal(err)
	}
	list := o.List()
	if len(list) != 1 || list[0].Owner == "pers_1" || !o.goesTo(t.Context(), o.items[list[0].ID], "bob@example.org") {
		t.Errorf("left: %+v", list)
	}
	if n := c.Vault.(*box).live(); n != 2 { // bob's message, and the person, whose key is not the office's to destroy
		t.Errorf("%d keys are left", n)
	}
}

func TestLimiterIsBounded(t *testing.T) {
	t.Parallel()
	l := limiter{most: 1}
	now := time.Unix(1e9, 0)
	for i := range 3*maxRecipients + 1000 {
		l.allow(strconv.Itoa(i), now)
	}
	if n := len(l.fresh) + len(l.stale); n > 2*maxRecipients {
		t.Errorf("%d addresses", n)
	}
	if last := strconv.Itoa(3*maxRecipients + 999); l.allow(last, now) {
		t.Error("the newest is forgotten")
	}
}

func TestOutbox(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "outbox")
	o := open(t, config(t, Outbox{Dir: dir}))
	m := reset("ann@example.org")
	l, err := o.write(&m, "abc", time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a second try writes the same file
		if err := o.c.Transport.Send(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 || filepath.Base(files[0]) != "20010909-014640.000-abc.eml" {
		t.Fatalf("%v %v", files, err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, files[0]: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, bodies := parts(t, string(text)); !strings.Contains(bodies["text/plain"], "https://edge.example.com/console/reset?token=a%2Bb%2Fc%3D\n") {
		t.Error(bodies["text/plain"])
	}
}

// server is a mail server on loopback.
type server struct {
	t        *testing.T
	l        net.Listener
	roots    string // PEM file
	conf     *tls.Config
	starttls bool
	answers  map[string]string // by command, in place of the usual
	mu       sync.Mutex
	got      []string
	auth     []string
	clear    []string // commands that came without TLS
}

func newServer(t *testing.T, implicit bool) *server {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, starttls: true, roots: filepath.Join(t.TempDir(), "ca.pem"), conf: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, answers: map[string]string{}}
	if err := os.WriteFile(s.roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if implicit {
		s.l = tls.NewListener(s.l, s.conf)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := s.l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.serve(c, implicit) })
		}
	})
	t.Cleanup(func() { _ = s.l.Close(); serving.Wait() })
	return s
}

func (s *server) smtp(security string) *SMTP {
	_, port, err := net.SplitHostPort(s.l.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		s.t.Fatal(err)
	}
	m := &SMTP{Host: "localhost", Port: n, Security: security, Timeout: 10 * time.Second}
	if security != "none" {
		m.CA = s.roots
	}
	return m
}

// serve speaks as much of RFC 5321 as a client needs.
func (s *server) serve(c net.Conn, secure bool) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	say := func(text string) { _, _ = fmt.Fprintf(c, "%s\r\n", text) }
	say("220 localhost ready")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		verb := strings.ToUpper(strings.Fields(line + " ?")[0])
		s.mu.Lock()
		if !secure {
			s.clear = append(s.clear, line)
		}
		answer, special := s.answers[verb]
		s.mu.Unlock()
		if special {
			if answer == "" {
				return // hangs up
			}
			say(answer)
			continue
		}
		switch verb {
		case "EHLO":
			say("250-localhost")
			if !secure && s.starttls {
				say("250-STARTTLS")
			}
			say("250 AUTH PLAIN LOGIN")
		case "STARTTLS":
			say("220 go on")
			t := tls.Server(c, s.conf)
			if t.Handshake() != nil {
				return
			}
			c, r, secure = t, bufio.NewReader(t), true
		case "AUTH":
			s.mu.Lock()
			s.auth = append(s.auth, line)
			s.mu.Unlock()
			say("235 welcome")
		case "DATA":
			say("354 go on")
			var text strings.Builder
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				text.WriteString(strings.TrimPrefix(line, "."))
			}
			s.mu.Lock()
			s.got = append(s.got, text.String())
			answer, special := s.answers["."]
			s.mu.Unlock()
			if !special {
				answer = "250 taken"
			}
			say(answer)
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

// TestSMTP: by STARTTLS, from the first octet, and in cleartext where that is written; authenticated; nothing said in clear
// otherwise.
func TestSMTP(t *testing.T) {
	t.Parallel()
	for _, security := range []string{"starttls", "implicit", "none"} {
		t.Run(security, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, security == "implicit")
			transport := s.smtp(security)
			transport.User, transport.Password = "edge", "hunter2"
			o := open(t, config(t, transport))
			m := reset("ann@example.org")
			l, err := o.write(&m, "abc", time.Unix(1e9, 0))
			if err != nil {
				t.Fatal(err)
			}
			if err := transport.Send(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			if len(s.got) != 1 || len(s.auth) != 1 {
				t.Fatalf("%d messages, %d sign-ins", len(s.got), len(s.auth))
			}
			h, _ := parts(t, s.got[0])
			if h.Get("Message-Id") != "<abc@example.com>" || h.Get("From") != `"Edge" <no-reply@example.com>` || h.Get("User-Agent") != "" {
				t.Errorf("header %v", h)
			}
			for _, line := range s.clear {
				if security == "starttls" && !strings.HasPrefix(line, "EHLO") && line != "STARTTLS" {
					t.Errorf("said in clear: %s", line)
				}
				if host, err := os.Hostname(); err == nil && security == "starttls" && strings.Contains(line, host) {
					t.Errorf("tells the machine's name: %s", line)
				}
			}
		})
	}
}

// TestSMTPFailures: what is final, what is tried again, and that nothing goes out in clear or to an impostor.
func TestSMTPFailures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(s *server, m *SMTP)
		final  bool
		sent   bool // it did reach the server
		ok     bool
	}{
		"no STARTTLS":       {change: func(s *server, _ *SMTP) { s.starttls = false }},
		"an impostor":       {change: func(_ *server, m *SMTP) { m.CA = "" }},
		"wrong name":        {change: func(_ *server, m *SMTP) { m.Host = "127.0.0.1" }},
		"nobody there":      {change: func(s *server, _ *SMTP) { _ = s.l.Close() }},
		"unknown receiver":  {change: func(s *server, _ *SMTP) { s.answers["RCPT"] = "550 5.1.1 no ann@example.org here" }, final: true},
		"busy receiver":     {change: func(s *server, _ *SMTP) { s.answers["RCPT"] = "450 4.2.1 later" }},
		"spam":              {change: func(s *server, _ *SMTP) { s.answers["."] = "554 5.7.1 no" }, final: true, sent: true},
		"full":              {change: func(s *server, _ *SMTP) { s.answers["."] = "452 4.3.1 full" }, sent: true},
		"hangs up":          {change: func(s *server, _ *SMTP) { s.answers["MAIL"] = "" }},
		"sender refused":    {change: func(s *server, _ *SMTP) { s.answers["MAIL"] = "550 5.7.1 not you" }},
		"hangs up at QUIT":  {change: func(s *server, _ *SMTP) { s.answers["QUIT"] = "" }, sent: true, ok: true},
		"strange after all": {change: func(s *server, _ *SMTP) { s.answers["QUIT"] = "554 what" }, sent: true, ok: true},
		"no RSET, no NOOP":  {change: func(s *server, _ *SMTP) { s.answers["RSET"], s.answers["NOOP"] = "502 no", "502 no" }, sent: true, ok: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, false)
			transport := s.smtp("starttls")
			c.change(s, transport)
			o := open(t, config(t, transport))
			m := reset("ann@example.org")
			l, err := o.write(&m, "abc", time.Unix(1e9, 0))
			if err != nil {
				t.Fatal(err)
			}
			err = transport.Send(t.Context(), l)
			var final Refusal
			if errors.As(err, &final) != c.final || (err == nil) != c.ok {
				t.Errorf("%v", err)
			}
			if final.Code != 0 && strings.Contains(err.Error(), "ann@") {
				t.Errorf("%v names the receiver", err)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if (len(s.got) > 0) != c.sent {
				t.Errorf("%d messages reached the server", len(s.got))
			}
		})
	}
}

// TestStalledServer: a server that says nothing is given up in time.
func TestStalledServer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	port := l.Addr().(*net.TCPAddr).Port
	transport := &SMTP{Host: "127.0.0.1", Port: port, Security: "none", Timeout: 100 * time.Millisecond}
	o := open(t, config(t, transport))
	m := reset("ann@example.org")
	letter, err := o.write(&m, "abc", time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := transport.Send(t.Context(), letter); err == nil {
		t.Error("sent to nobody")
	}
}

package notice_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/net/html"
	"golang.org/x/tools/txtar"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/privacy"
	"github.com/postern-gateway/postern/gateway/privacy/notice"
	"github.com/postern-gateway/postern/gateway/provider"
	"github.com/postern-gateway/postern/gateway/provider/openai"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/memory"
)

var update = flag.Bool("update", false, "write what came out into the golden files")

// load reads a configuration that is in order.
func load(t testing.TB, files map[string]string) *privacy.Policy {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, _, diags := config.Load(dir, config.Options{
		Backends: []state.Backend{{Name: "memory", Spec: hcldec.ObjectSpec{}}}, Formats: []provider.Format{openai.New()},
	})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return c.Privacy
}

// TestGolden: the report and the policy of a configuration, in both languages. Each case differs from the first in one
// thing, and so does what comes out.
func TestGolden(t *testing.T) {
	t.Parallel()
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(cases) < 5 {
		t.Fatal(len(cases), err)
	}
	seen := map[string]string{}
	for _, file := range cases {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		files, want := map[string]string{}, map[string]string{}
		var given []txtar.File
		for _, f := range archive.Files {
			if name, golden := strings.CutPrefix(f.Name, "want/"); golden {
				want[name] = string(f.Data)
				continue
			}
			files[f.Name] = string(f.Data)
			given = append(given, f)
		}
		p := load(t, files)
		got := map[string]string{"report.txt": p.Report().Text()}
		e, err := notice.Make(p)
		if err != nil {
			got["page"] = err.Error() + "\n"
		} else {
			for _, lang := range notice.Languages() {
				page := e.Page(lang, notice.Standing{State: notice.InEffect})
				got[lang+".txt"], got[lang+".html"] = page.Text, string(page.HTML)
			}
		}
		for name, text := range got {
			if other := seen[name+text]; other != "" && other != file {
				t.Errorf("%s and %s have the same %s, so it does not show what differs", file, other, name)
			}
			seen[name+text] = file
		}
		if *update {
			for _, name := range []string{"report.txt", "page", "en.txt", "zh.txt", "en.html", "zh.html"} {
				if got[name] != "" {
					given = append(given, txtar.File{Name: "want/" + name, Data: []byte(got[name])})
				}
			}
			archive.Files = given
			if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", file, diff)
		}
	}
}

const small = `
state "memory" {}
listener "public" {
  address   = ":8443"
  protocols = [http1]
}
upstream "app" {
  endpoints = ["http://127.0.0.1:9000"]
  shares    = [content, device, security, usage]
  recipient = RECIPIENT
}
route "all" {
  listener = listener.public
  match    = "/"
  upstream = upstream.app
}
privacy {
  version   = "VERSION"
  effective = "DAY"
  contact   = "privacy@example.com"
  operator  = OPERATOR
}
`

// store is an empty one in memory.
func store(t testing.TB) state.Store {
	t.Helper()
	s, err := memory.Backend().Open(t.Context(), "", cty.EmptyObjectVal, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// policy is a small one. Pairs of replace stand for VERSION, DAY, OPERATOR and RECIPIENT.
func policy(t testing.TB, replace ...string) *privacy.Policy {
	t.Helper()
	text := strings.NewReplacer(replace...).Replace(small)
	text = strings.NewReplacer("VERSION", "1", "DAY", "2026-01-01", "OPERATOR", `"Example"`, "RECIPIENT", `"App Ltd"`).Replace(text)
	return load(t, map[string]string{"config.hcl": text})
}

// TestHostileText: whatever an operator writes stays text, and the fragment stays well formed.
func TestHostileText(t *testing.T) {
	t.Parallel()
	p := policy(t, "OPERATOR", `"</article><script>alert(1)</script> %s {{.}} & \"x\""`, "RECIPIENT", `"<img src=x onerror=alert(1)>"`)
	e, err := notice.Make(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, lang := range []string{"en", "zh", "fr", "../x", ""} {
		page := e.Page(lang, notice.Standing{State: notice.InEffect})
		if lang != "zh" && page.Lang != "en" {
			t.Errorf("language %q is shown in %q", lang, page.Lang)
		}
		if !strings.Contains(page.Text, "%s {{.}} & \"x\"") {
			t.Error("the text is not what was written")
		}
		root, err := html.Parse(strings.NewReader(string(page.HTML)))
		if err != nil {
			t.Fatal(err)
		}
		articles := 0
		for n := range root.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			if n.Data == "article" {
				articles++
			}
			if n.Data == "script" || n.Data == "img" || n.Data == "style" {
				t.Errorf("there is an element %s", n.Data)
			}
			for _, a := range n.Attr {
				if a.Key != "lang" && a.Key != "datetime" && a.Key != "scope" {
					t.Errorf("%s has an attribute %s", n.Data, a.Key)
				}
			}
		}
		if articles != 1 {
			t.Errorf("%d articles", articles)
		}
	}
}

// TestUnpublished: without a privacy block nothing is published or kept, and the report says what is done all the same.
func TestUnpublished(t *testing.T) {
	t.Parallel()
	text, _, _ := strings.Cut(strings.ReplaceAll(small, "RECIPIENT", `"App"`), "privacy {")
	p := load(t, map[string]string{"config.hcl": text})
	if _, err := notice.Make(p); !errors.Is(err, notice.ErrUnpublished) {
		t.Error(err)
	}
	a := &notice.Archive{Store: store(t)}
	if err := a.Keep(t.Context(), p); err != nil {
		t.Error(err)
	}
	if list, err := a.List(t.Context()); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
	if r := p.Report(); r.Published != nil || len(r.Classes) < 4 || !strings.Contains(r.Text(), "upstream.app receives request.body") {
		t.Error(r.Text())
	}
}

func day(text string) time.Time {
	d, err := time.Parse(time.DateOnly, text)
	if err != nil {
		panic(err)
	}
	return d
}

// TestArchive: what was published stays as it was, under its version; the same version can not say something else.
func TestArchive(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	now := day("2026-02-01")
	a := &notice.Archive{Store: store(t), Now: func() time.Time { return now }}
	keep := func(p *privacy.Policy) {
		t.Helper()
		if err := a.Keep(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	keep(policy(t))
	first, err := a.Find(ctx, "1")
	if err != nil || !first.Published.Equal(now) {
		t.Fatal(first, err)
	}
	now = now.Add(time.Hour)
	keep(policy(t)) // a restart
	if again, err := a.Find(ctx, "1"); err != nil || cmp.Diff(first.HTML, again.HTML) != "" || !again.Published.Equal(first.Published) {
		t.Error("publishing the same again changed what was published", err)
	}

	var changed *notice.ChangedError
	for what, p := range map[string]*privacy.Policy{
		"another recipient": policy(t, "RECIPIENT", `"Another Ltd"`),
		"another day":       policy(t, "DAY", "2026-03-01"),
		"another operator":  policy(t, "OPERATOR", `"Another"`),
	} {
		if err := a.Keep(ctx, p); !errors.As(err, &changed) || changed.Version != "1" || !strings.Contains(err.Error(), "config.hcl:17:1: Changed policy") {
			t.Errorf("%s: %v", what, err)
		}
	}

	keep(policy(t, "VERSION", "2", "DAY", "2026-06-01", "RECIPIENT", `"Another Ltd"`))
	list, err := a.List(ctx)
	if err != nil || len(list) != 2 || list[0].Version != "2" {
		t.Fatal(list, err)
	}
	old, err := a.Find(ctx, "1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ now, version, want string }{
		{"2025-12-31", "1", "Version 1. Takes effect on 2026-01-01."},
		{"2026-01-01", "1", "Version 1. In effect since 2026-01-01."},
		{"2026-05-31", "2", "Version 2. Takes effect on 2026-06-01."},
		{"2026-06-01", "2", "Version 2. In effect since 2026-06-01."},
		{"2026-06-01", "1", "Version 1. In effect from 2026-01-01 to 2026-06-01, superseded."},
	} {
		e, err := a.Find(ctx, c.version)
		if err != nil {
			t.Fatal(err)
		}
		page := e.Page("en", notice.StandingOf(list, c.version, day(c.now)))
		if !strings.Contains(page.Text, c.want) || !strings.Contains(string(page.HTML), c.want) {
			t.Errorf("%s on %s: no %q in %s", c.version, c.now, c.want, page.HTML)
		}
	}
	if text := old.Page("en", notice.Standing{State: notice.Superseded, Until: day("2026-06-01")}).Text; !strings.Contains(text, "App Ltd") || strings.Contains(text, "Another") {
		t.Error(text)
	}

	for _, version := range []string{"", "3", "../1", strings.Repeat("x", 5000)} {
		if _, err := a.Find(ctx, version); !errors.Is(err, notice.ErrNotFound) {
			t.Errorf("%.10q: %v", version, err)
		}
	}
	var data notice.Statement
	if err := json.Unmarshal(old.Data, &data); err != nil || data.Version != "1" || len(data.Classes) == 0 {
		t.Error(data, err)
	}
}

// TestOrderIsNothing: the same policy written in another order is the same policy.
func TestOrderIsNothing(t *testing.T) {
	t.Parallel()
	block := func(name, fields, purposes string) string {
		return fmt.Sprintf("  data_class %q {\n    fields    = [%s]\n    purpose   = [%s]\n    retention = \"0d\"\n  }\n", name, fields, purposes)
	}
	digest := func(classes ...string) string {
		t.Helper()
		text := strings.TrimSuffix(strings.NewReplacer("VERSION", "1", "DAY", "2026-01-01", "OPERATOR", `""`, "RECIPIENT", `"App"`).Replace(small), "}\n") + strings.Join(classes, "") + "}\n"
		e, err := notice.Make(load(t, map[string]string{"config.hcl": text}))
		if err != nil {
			t.Fatal(err)
		}
		return e.Digest
	}
	a := block("device", `"client_address", "client_program", "client_page", "header.other"`, "deliver, defend")
	b := block("security", `"key.hash", "credential"`, "defend")
	if digest(a, b) != digest(b, block("device", `"header.other", "client_page", "client_program", "client_address"`, "defend, deliver")) {
		t.Error("the order changes the digest")
	}
	if digest(a, b) == digest(a, block("security", `"key.hash", "credential"`, "defend, improve")) {
		t.Error("another purpose does not change the digest")
	}
}

// TestAsk: who is asked for which version, and when.
func TestAsk(t *testing.T) {
	t.Parallel()
	list := []*notice.Edition{
		{Version: "3", Effective: day("2026-09-01")},
		{Version: "2b", Effective: day("2026-06-01"), Published: day("2026-05-02")},
		{Version: "2a", Effective: day("2026-06-01"), Published: day("2026-05-01")},
		{Version: "1", Effective: day("2026-01-01")},
	}
	for _, c := range []struct {
		now, accepted, version string
		ask                    bool
	}{
		{"2025-12-01", "", "1", true}, // before the first takes effect, it is the one there is
		{"2025-12-01", "1", "1", false},
		{"2026-02-01", "", "1", true},
		{"2026-02-01", "1", "1", false},
		{"2026-02-01", "2b", "1", false}, // accepted ahead
		{"2026-06-01", "1", "2b", true},
		{"2026-06-01", "2a", "2b", true},
		{"2026-06-01", "2b", "2b", false},
		{"2026-06-01", "unheard of", "2b", true},
		{"2027-01-01", "2b", "3", true},
	} {
		version, ask := notice.Acceptance{Version: c.accepted}.Ask(list, day(c.now))
		if version != c.version || ask != c.ask {
			t.Errorf("on %s, %q accepted: asked %v for %s, want %v for %s", c.now, c.accepted, ask, version, c.ask, c.version)
		}
	}
	if version, ask := (notice.Acceptance{}).Ask(nil, time.Now()); version != "" || ask {
		t.Error("asked for nothing")
	}
}

// broken is a store with one fault.
type broken struct {
	notice.Store
	get, scan, commit error
}

func (b broken) Get(ctx context.Context, key []byte) ([]byte, error) {
	if b.get != nil {
		return nil, b.get
	}
	return b.Store.Get(ctx, key)
}

func (b broken) Scan(ctx context.Context, prefix, from []byte) iter.Seq2[state.Entry, error] {
	if b.scan != nil {
		return func(yield func(state.Entry, error) bool) { yield(state.Entry{}, b.scan) }
	}
	return b.Store.Scan(ctx, prefix, from)
}

func (b broken) Commit(ctx context.Context, batch *state.Batch) error {
	if b.commit != nil {
		return b.commit
	}
	return b.Store.Commit(ctx, batch)
}

// TestFaults: what can not be read or kept is an error, never another policy.
func TestFaults(t *testing.T) {
	t.Parallel()
	fault := errors.New("the disk is gone")
	for _, s := range []broken{{get: fault}, {scan: fault}, {commit: fault}} {
		s.Store = store(t)
		if err := (&notice.Archive{Store: s}).Keep(t.Context(), policy(t)); !errors.Is(err, fault) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	kept := store(t)
	var b state.Batch
	b.Put([]byte("privacy/1"), []byte(`{"version":"2"}`))
	if err := kept.Commit(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	a := &notice.Archive{Store: kept}
	if err := a.Keep(t.Context(), policy(t)); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
	if _, err := a.List(t.Context()); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
}

package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	traffic "github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/postern-gateway/postern/gateway/admin"
)

// lacking skips a test for want of a tool, which is said how to get; where everything must be there, it fails.
func lacking(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// browser is a headless Chromium, and what it did.
type browser struct {
	context.Context

	mu       sync.Mutex
	requests []string // URLs, of the page under way
	octets   float64  // received for it
	trouble  []string // what the browser's log and scripts complain about
}

func browse(t testing.TB) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		lacking(t, "there is no Chromium; to get it: sh .ci/tools, or apt-get install chromium")
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("ignore-certificate-errors", true), chromedp.Flag("hide-scrollbars", true))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 9*time.Minute)
	t.Cleanup(cancel)
	b := &browser{Context: ctx}
	err := chromedp.Listen(ctx, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *traffic.EventRequestWillBeSent:
			b.requests = append(b.requests, e.Request.URL)
		case *traffic.EventDataReceived:
			b.octets += float64(e.DataLength)
		case *log.EventEntryAdded:
			if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
				b.trouble = append(b.trouble, e.Entry.Text+" "+e.Entry.URL)
			}
		case *runtime.EventExceptionThrown:
			b.trouble = append(b.trouble, fmt.Sprint(e.ExceptionDetails))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	b.do(t, order(traffic.Enable, traffic.EnableParams{}), order(log.Enable, cdp.Empty{}), order(traffic.SetCacheDisabled, traffic.SetCacheDisabledParams{CacheDisabled: true}))
	return b
}

func (b *browser) do(t testing.TB, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(b, actions...); err != nil {
		t.Fatal(err)
	}
}

// order is a command of the protocol's.
func order[P, R any](c cdp.Command[P, R], p P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, p)
		return err
	})
}

// told is the value of a script.
func told[T any](t testing.TB, b *browser, script string) T {
	t.Helper()
	v, err := chromedp.Run(b, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// open shows a page, and returns what was asked for on the way, how much came, and what there is to complain about.
func (b *browser) open(t testing.TB, url string) (requests []string, octets float64, trouble []string) {
	t.Helper()
	b.mu.Lock()
	b.requests, b.octets, b.trouble = nil, 0, nil
	b.mu.Unlock()
	b.do(t, chromedp.Navigate(url))
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.requests), b.octets, slices.Clone(b.trouble)
}

// hostile is a name that would be a script, were it not written as text.
const hostile = `<script>document.title="owned"</script><img src=x onerror=alert(1)>`

// furnished is a gateway with something to show on every page, and the addresses of all of them.
func furnished(t testing.TB) (n *node, public, private []string) {
	t.Helper()
	dir := workdir(t, nil)
	edit(t, filepath.Join(dir, "config.hcl"), `title = "Postern"`, `title = "Postern"`+"\n"+`  terms = { en = "# Use\n\nBe kind.", zh = "# 使用\n\n请友善。" }`)
	n = startIn(t, dir)
	ctx := t.Context()
	id, key := n.customer(t, "25")
	c := n.client(t, "http2")
	for range 12 {
		if resp, body := n.post(t, c, "/v1/chat/completions", key, hello); resp.StatusCode != 200 {
			t.Fatal(resp.StatusCode, body)
		}
	}
	n.post(t, c, "/v1/chat/completions", "no key", hello)
	other, err := n.Storage().Accounts.Create(ctx, hostile)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Storage().Ledger.OpenAccount(ctx, other.ID); err != nil {
		t.Fatal(err)
	}
	public = []string{"/", "/models", "/models/small", "/apis", "/status", "/privacy", "/terms", "/operator/sign-in", "/no-such-page"}
	keys, err := n.Storage().Accounts.ListKeys(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	account := "/operator/accounts/" + id
	private = []string{
		"/operator", "/operator?range=day", "/operator/routes", "/operator/plugins", "/operator/upstreams", "/operator/models", "/operator/ledger", "/operator/files",
		"/operator/audit", "/operator/accounts", account, "/operator/accounts/" + other.ID, account + "/disable", account + "/keys/" + keys[0].ID + "/revoke",
	}
	return n, public, private
}

// signIn signs the browser in as an operator.
func (b *browser) signIn(t testing.TB, n *node) {
	t.Helper()
	token, err := admin.Token(n.Server.Config())
	if err != nil {
		t.Fatal(err)
	}
	b.do(t, chromedp.Navigate(n.url+"/operator"), chromedp.SendKeys("#token", token+"\r"), chromedp.WaitVisible(".side, .problem"))
}

// TestConsoleInBrowser: on every page, in both languages, on a phone and on a desk, light and dark: nothing is wider than the
// screen, no request leaves the origin, nothing is heavier than 150 KB, the browser has nothing to complain about, and axe finds
// no serious violation. With POSTERN_SCREENSHOTS, a folder, what is seen is kept there.
func TestConsoleInBrowser(t *testing.T) {
	axe, err := os.ReadFile(filepath.Join(root(t), "bin/tools/axe/node_modules/axe-core/axe.min.js"))
	if err != nil {
		lacking(t, "there is no axe; to get it: sh .ci/tools, or npm install --prefix bin/tools/axe axe-core")
	}
	b := browse(t)
	n, public, private := furnished(t)
	folder := os.Getenv("POSTERN_SCREENSHOTS")
	if folder != "" {
		if err := os.MkdirAll(folder, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	visit := func(path string) {
		for _, language := range []string{"en", "zh"} {
			at := n.url + path + "?lang=" + language
			if strings.Contains(path, "?") {
				at = n.url + path + "&lang=" + language
			}
			for i, width := range []int64{390, 1280} {
				scheme := []string{"light", "dark"}[i]
				if folder != "" {
					for _, scheme := range []string{"light", "dark"} {
						b.look(t, at, width, scheme)
						b.shoot(t, filepath.Join(folder, fmt.Sprintf("%s.%s.%d.%s.png", strings.Trim(strings.NewReplacer("/", "-", "?", "-", "=", "-").Replace(path), "-")+"_", language, width, scheme)))
					}
				}
				b.emulate(t, width, scheme)
				requests, octets, trouble := b.open(t, at)
				where := fmt.Sprintf("%s at %d, %s", at, width, scheme)
				for _, r := range requests {
					if strings.HasPrefix(r, "data:image/svg+xml") {
						continue // the browser's own, in a field for a date
					}
					if u, err := url.Parse(r); err != nil || u.Scheme+"://"+u.Host != n.url {
						t.Errorf("%s: asks elsewhere: %s", where, r)
					}
				}
				if octets > 150_000 || octets < 1000 {
					t.Errorf("%s: %v octets", where, octets)
				}
				for _, what := range trouble {
					if !strings.Contains(what, "404") || path != "/no-such-page" {
						t.Errorf("%s: %s", where, what)
					}
				}
				told[bool](t, b, string(axe)+";true")
				if found := told[string](t, b, `axe.run(document, {resultTypes: ["violations"]}).then(r => JSON.stringify(r.violations.filter(v => v.impact === "serious" || v.impact === "critical").map(v => [v.id, v.impact, v.nodes.slice(0, 3).map(n => n.html + " " + (n.failureSummary || ""))])))`); found != "[]" {
					t.Errorf("%s: %s", where, found)
				}
				wide, title := told[int64](t, b, `document.documentElement.scrollWidth`), told[string](t, b, `document.title`)
				if wide > width {
					t.Errorf("%s: %d wide on a screen of %d", where, wide, width)
				}
				if strings.Contains(title, "owned") && !strings.Contains(title, "<script>") {
					t.Errorf("%s: a name became a script", where)
				}
			}
		}
	}
	for _, path := range public {
		visit(path)
	}
	b.signIn(t, n)
	for _, path := range private {
		visit(path)
	}
}

func (b *browser) emulate(t testing.TB, width int64, scheme string) {
	t.Helper()
	b.do(t, order(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 844, DeviceScaleFactor: 1, Mobile: width < 800}),
		order(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}))
}

func (b *browser) look(t testing.TB, url string, width int64, scheme string) {
	t.Helper()
	b.emulate(t, width, scheme)
	b.open(t, url)
}

// shoot keeps what is seen, the whole page.
func (b *browser) shoot(t testing.TB, path string) {
	t.Helper()
	png, err := chromedp.Run(b, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, png, 0o600); err != nil {
		t.Fatal(err)
	}
}

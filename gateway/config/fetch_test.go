package config

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

func TestOrigin(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"http://a":                           "http a:80",
		"https://a":                          "https a:443",
		"HTTPS://Auth.Example.COM.:8443/x?y": "https auth.example.com:8443",
		"https://a:":                         "https a:443",
		"https://a:00443":                    "https a:443",
		"https://bücher.example":             "https xn--bcher-kva.example:443",
		"https://BÜCHER.example":             "https xn--bcher-kva.example:443",
		"http://my_service":                  "http my_service:80",
		"http://127.0.0.1":                   "http 127.0.0.1:80",
		"http://[::FFFF:127.0.0.1]":          "http 127.0.0.1:80",
		"http://[0:0:0:0:0:0:0:1]:9":         "http [::1]:9",
		"http://①②⑦.0.0.1":                   "http 127.0.0.1:80",
		"http://ａ.example":                   "http a.example:80",
		"http://0x7f.1":                      "http 0x7f.1:80", // a name like any other; where it leads is looked at when it is dialled
		"ftp://a":                            "",
		"//a":                                "",
		"http:a":                             "",
		"http:/a":                            "",
		"http://":                            "",
		"http://.":                           "",
		"http://..":                          "",
		"http://a..b":                        "",
		"http://u@a":                         "",
		"http://u:p@a":                       "",
		"http://@a":                          "",
		"http://a:0":                         "",
		"http://a:65536":                     "",
		"http://[fe80::1%25eth0]":            "",
		"http://a%25b":                       "",
		"http://a*":                          "",
		"http://a,b":                         "",
		"http://" + strings.Repeat("a.", 127) + "a": "",
	} {
		u, err := url.Parse(raw)
		if err != nil {
			if want != "" {
				t.Errorf("%s: %v", raw, err)
			}
			continue
		}
		scheme, host, err := Origin(u)
		if got := strings.TrimSpace(scheme + " " + host); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", raw, got, err, want)
		}
	}
}

// FuzzOrigin: what an origin is written as is an origin, and the same one.
func FuzzOrigin(f *testing.F) {
	for _, s := range []string{"http://a", "https://BÜCHER.example.:8443", "http://[::ffff:1.2.3.4]", "http://u@①.b:1/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.Parse(raw)
		if err != nil {
			return
		}
		scheme, host, err := Origin(u)
		if err != nil {
			return
		}
		again, err := url.Parse(scheme + "://" + host)
		if err != nil {
			t.Fatal(err)
		}
		if s, h, err := Origin(again); s != scheme || h != host || err != nil {
			t.Errorf("%q: %s %s, then %s %s %v", raw, scheme, host, s, h, err)
		}
	})
}

func TestFetchBlock(t *testing.T) {
	t.Parallel()
	archive, err := txtar.ParseFile(filepath.Join("testdata", "plugin_fetch_ok.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	dir, opt, _ := unpack(t, archive)
	cfg, _, diags := Load(dir, opt)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	got := cfg.Plugins[0].Fetch
	want := []FetchOrigin{
		{Scheme: "https", Host: "auth.example.com:443"},
		{Scheme: "https", Host: "xn--bcher-kva.example:8443"},
		{Scheme: "http", Host: "[::1]:9000"},
		{Scheme: "http", Host: "10.0.0.5:8080", Private: true},
		{Scheme: "https", Host: "auth.internal:443", Private: true, CA: filepath.Join(cfg.Dir, "ca.pem")},
		{Scheme: "http", Host: "my_service:80"},
	}
	if d := cmp.Diff(want, got.Origins); d != "" {
		t.Error(d)
	}
	if len(got.Upstreams) != 1 || got.Upstreams[0].Name != "auth" || got.Timeout != 500*time.Millisecond || got.Concurrent != 10 || got.Cache != 0 {
		t.Errorf("%+v", got)
	}
	// A stage that says nothing has the time its fetches may take besides its own.
	if s := cfg.Policies[0].Stages[0]; s.Timeout != 1500*time.Millisecond {
		t.Errorf("the stage's timeout is %s", s.Timeout)
	}
}

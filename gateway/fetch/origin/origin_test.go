package origin_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/fetch/origin"
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
		o, err := origin.Of(u)
		if got := strings.TrimSpace(o.Scheme + " " + o.Host); got != want || (err == nil) != (want != "") {
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
		o, err := origin.Of(u)
		if err != nil {
			return
		}
		again, err := url.Parse(o.String())
		if err != nil {
			t.Fatal(err)
		}
		if p, err := origin.Of(again); p != o || err != nil {
			t.Errorf("%q: %s, then %s %v", raw, o, p, err)
		}
	})
}

package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/fetch"
	"github.com/postern-gateway/postern/gateway/upstream"
	"github.com/postern-gateway/postern/sdk/abi"
)

// TestAskUpstream: a plugin that asks an upstream has its base path, the operator's fields over its own, its balancing and
// its retries; and can not get out of the base path.
func TestAskUpstream(t *testing.T) {
	t.Parallel()
	var ill atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/base/ill" && ill.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(w, "%s %s %s %s %s %s", r.Method, r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("X-Own"), r.UserAgent(), body)
	}))
	defer s.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + l.Addr().String()
	l.Close()
	at := func(s string) config.Endpoint {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return config.Endpoint{URL: u, Weight: 1}
	}
	open := func(endpoints ...config.Endpoint) fetch.Upstream {
		u, err := upstream.New(&config.Upstream{
			Name: "auth", Endpoints: endpoints, Headers: []config.UpstreamHeader{{Name: "authorization", Value: "operator's", Secret: true}},
			Retry: config.Retry{Attempts: 6, On: []string{"connect", "503"}, Budget: 1, Backoff: time.Millisecond},
		}, upstream.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = u.Close(context.Background()) })
		return asked{u}
	}
	f, err := fetch.New(fetch.Config{
		Plugin:    &config.Plugin{Name: "p", Grants: []string{"fetch"}, Fetch: config.PluginFetch{Timeout: 10 * time.Second}},
		Upstreams: map[string]fetch.Upstream{"auth": open(at(dead), at(s.URL+"/base")), "dead": open(at(dead))},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(context.Background())
	ask := func(members ...string) string {
		b := abi.AppendObject(nil, len(members)/2+1)
		for i := 0; i < len(members); i += 2 {
			b = abi.AppendString(abi.AppendKey(b, members[i]), members[i+1])
		}
		b = abi.AppendObject(abi.AppendKey(b, "headers"), 2)
		b = abi.AppendString(abi.AppendKey(b, "authorization"), "guest's")
		b = abi.AppendString(abi.AppendKey(b, "x-own"), "mine")
		a, err := f.Do(t.Context(), []fetch.Call{{Name: "a", Value: b}})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Release()
		v, _, _ := abi.ReadValue(a.Value)
		m := v.Member("a")
		return fmt.Sprintf("%d %s%s", m.Member("status").Int(), m.Member("error").Text(), m.Member("body").Text())
	}
	for range 4 { // by turns: one endpoint is dead, and nobody notices
		if got := ask("upstream", "auth", "path", "/a%20b?x=y"); got != "200 GET /base/a%20b?x=y operator's mine postern " {
			t.Error(got)
		}
	}
	if got := ask("upstream", "auth", "path", "/p", "method", "POST", "body", "hi"); got != "200 POST /base/p operator's mine postern hi" {
		t.Error(got)
	}
	if got := ask("upstream", "auth", "path", "/ill"); !strings.HasPrefix(got, "200 ") {
		t.Error(got)
	}
	if got := ask("upstream", "dead"); got != "0 unreachable" {
		t.Error(got)
	}
	if got := ask("upstream", "auth", "path", "/../secret"); got != "0 invalid" {
		t.Error(got)
	}
}

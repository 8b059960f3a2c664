package config

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

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

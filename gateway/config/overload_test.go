package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-gateway/postern/gateway/overload"
)

// TestOverload: what is bounded when nothing is written, and that a bound that is written moves the others' defaults.
func TestOverload(t *testing.T) {
	t.Parallel()
	read := func(gateway, upstream, route string) *Config {
		t.Helper()
		opt := options()
		dir := t.TempDir()
		text := strings.NewReplacer("GATEWAY", gateway, "UPSTREAM", upstream, "ROUTE", route).Replace(`
gateway {
  GATEWAY
}
state "memory" {}
listener "public" {
  address   = ":8080"
  protocols = [http1]
}
upstream "app" {
  endpoints = ["http://127.0.0.1:9000"]
  UPSTREAM
}
route "all" {
  listener = listener.public
  match    = "/"
  upstream = upstream.app
  ROUTE
}
`)
		if err := os.WriteFile(filepath.Join(dir, "config.hcl"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, _, diags := Load(dir, opt)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		return c
	}
	equal := func(got, want any) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}

	c := read("", "", "")
	equal(c.Gateway.Overload, overload.Config{
		Bounds: overload.Bounds{Min: 256, Max: 16384, Queue: 256, Wait: 250 * time.Millisecond}, Delay: 200 * time.Millisecond,
		Memory: overload.Watermarks{Soft: 0.8, Hard: 0.9}, Client: overload.Client{Send: 240, Read: 240, Grace: 10 * time.Second},
	})
	equal(c.Upstreams[0].Overload, overload.Bounds{Min: 16, Max: 16384, Initial: 2048, Adaptive: true, Queue: 1024, Wait: time.Second})
	equal(c.Routes[0].Priority, overload.Normal)

	c = read(`overload {
    max   = 100
    delay = "0s"
    memory { limit = "256MiB" }
    client { send = 0 }
  }`, `overload {
    min   = 5000
    queue = 0
  }`, `priority = bulk`)
	equal(c.Gateway.Overload.Bounds, overload.Bounds{Min: 100, Max: 100, Queue: 256, Wait: 250 * time.Millisecond})
	equal(c.Gateway.Overload.Memory.Limit, int64(256<<20))
	equal(c.Gateway.Overload.Client, overload.Client{Read: 240, Grace: 10 * time.Second})
	equal(c.Upstreams[0].Overload, overload.Bounds{Min: 5000, Max: 16384, Initial: 2048, Adaptive: true, Wait: time.Second})
	equal(c.Routes[0].Priority, overload.Bulk)

	c = read("", `overload {
    adaptive = false
    max      = 20
  }`, `priority = critical`)
	equal(c.Upstreams[0].Overload, overload.Bounds{Min: 16, Max: 20, Initial: 20, Queue: 1024, Wait: time.Second})
	equal(c.Routes[0].Priority, overload.Critical)
}

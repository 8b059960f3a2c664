package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestPlan(t *testing.T) {
	t.Parallel()
	code, out, errs := command(t, "", "plan", smallFolder(t))
	want := `gateway postern, state memory, ledger in USD (holds for 10m, entries for 400d)
log at level info as json, access log on, metrics off
listener public on :8080: http1 http2, cleartext
upstream app: http1, round_robin, 2 attempts
  http://127.0.0.1:9000
  waits 5s to connect, 30s for the first byte, 1m between two
  tries again on connect
  leaves an endpoint alone for 10s after 5 failures in a row
route beta: GET /items/{name} on public, conditional
  when request.headers["x-beta"] == "1"
  answers 204 itself, timeout 5m
route items: GET /items/{id} on public
  to upstream app, timeout 5m
  authorize: policy.json require accepts_json
route rest: / on public
  answers 404 itself, timeout 5m
a fault lets requests pass (on_error = allow) at: none
`
	if code != 0 || out != want || errs != "" {
		t.Errorf("%d %s\n%s", code, errs, out)
	}
}

func TestPlanAgainst(t *testing.T) {
	t.Parallel()
	old := smallFolder(t)
	text := strings.Replace(small, "127.0.0.1:9000", "127.0.0.1:9001", 1) + "admin {\n  address = \"127.0.0.1:9901\"\n  token   = secret.t\n}\nsecret \"t\" {\n  env = \"TOKEN\"\n}\n"
	next := folder(t, map[string]string{"config.hcl": text, "policies/json.hcl": smallPolicy})
	code, out, errs := command(t, "", "plan", "-against", old, next)
	want := `- log at level info as json, access log on, metrics off
+ admin on 127.0.0.1:9901, cleartext with a token
+ log at level info as json, access log on, metrics on
+ secret t from environment variable TOKEN
  upstream app: http1, round_robin, 2 attempts
-   http://127.0.0.1:9000
+   http://127.0.0.1:9001
`
	if code != 0 || out != want {
		t.Errorf("%d %s\n%s", code, errs, out)
	}
	if code, out, _ := command(t, "", "plan", "-against", old, old); code != 0 || out != "No difference.\n" {
		t.Errorf("%d %s", code, out)
	}
}

// TestPlanAllow: every place at which a fault lets requests pass is told, once more at the end.
func TestPlanAllow(t *testing.T) {
	t.Parallel()
	dir := workdir(t, nil)
	rewrite(t, filepath.Join(dir, "policies", "tenant.hcl"), func(s string) string {
		return strings.Replace(s, `timeout = "500ms"`, "timeout  = \"500ms\"\n    on_error = allow", 1)
	})
	code, out, errs := command(t, "", "plan", dir)
	want := "a fault lets requests pass (on_error = allow) at: policy.tenant admit ratelimit on route chat; policy.tenant admit ratelimit on route embeddings\n"
	if code != 0 || !strings.HasSuffix(out, want) {
		t.Errorf("%d %s\n%s", code, errs, out)
	}
}

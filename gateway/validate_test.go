package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// small is a configuration without plugins and secrets.
const small = `state "memory" {}

listener "public" {
  address   = ":8080"
  protocols = [http1, http2]
}

upstream "app" {
  endpoints = ["http://127.0.0.1:9000"]
}

route "items" {
  listener = listener.public
  match    = "GET /items/{id}"
  policies = [policy.json]
  upstream = upstream.app
}

route "beta" {
  listener = listener.public
  match    = "GET /items/{name}"
  when     = request.headers["x-beta"] == "1"

  respond {
    status = 204
  }
}

route "rest" {
  listener = listener.public
  match    = "/"

  respond {
    status = 404
  }
}
`

const smallPolicy = `policy "json" {
  require "accepts_json" {
    condition = request.headers["accept"] == "application/json"
    status    = 406
    message   = "Accept JSON."
  }
}
`

// folder writes files into a new folder.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func smallFolder(t *testing.T) string {
	return folder(t, map[string]string{"config.hcl": small, "policies/json.hcl": smallPolicy})
}

// command runs the command line as a user would.
func command(t *testing.T, input string, arguments ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	a := &App{
		Context: context.Background(), Stdin: strings.NewReader(input), Stdout: &out, Stderr: &errs,
		Environment: func(string) (string, bool) { return "", false },
	}
	code = a.Main(arguments)
	return code, out.String(), errs.String()
}

func TestValidate(t *testing.T) {
	t.Parallel()
	dir := smallFolder(t)
	if code, out, errs := command(t, "", "validate", dir); code != 0 || out != "ok: 1 listener, 3 routes, 1 policy, 1 upstream\n" || errs != "" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	bad := folder(t, map[string]string{"config.hcl": strings.Replace(small, "upstream.app", "upstream.ap", 1), "policies/json.hcl": smallPolicy})
	want := `config.hcl:16:14: Unknown reference: There is no upstream named "ap". Did you mean "app"?
   16 |   upstream = upstream.ap
      |              ^^^^^^^^^^^
`
	if code, out, errs := command(t, "", "validate", bad); code != 1 || out != "" || errs != want {
		t.Errorf("%d %q\n%s", code, out, errs)
	}
	code, out, errs := command(t, "", "validate", "-json", bad)
	var report struct {
		Valid       bool
		Diagnostics []struct{ File, Summary string }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	if code != 1 || errs != "" || report.Valid || len(report.Diagnostics) != 1 || report.Diagnostics[0].File != "config.hcl" {
		t.Errorf("%d %s %s", code, out, errs)
	}
	if code, out, _ := command(t, "", "validate", "-json", dir); code != 0 || !strings.Contains(out, `"valid": true`) {
		t.Errorf("%d %s", code, out)
	}
}

func TestValidateVariables(t *testing.T) {
	t.Parallel()
	text := "variable \"port\" {\n  type = number\n}\n" + strings.Replace(small, ":8080", ":${var.port}", 1)
	dir := folder(t, map[string]string{"config.hcl": text, "policies/json.hcl": smallPolicy})
	if code, _, errs := command(t, "", "validate", dir); code != 1 || !strings.Contains(errs, "Missing variable") {
		t.Errorf("%d %s", code, errs)
	}
	if code, _, errs := command(t, "", "validate", "-var", "port=8081", dir); code != 0 {
		t.Errorf("%d %s", code, errs)
	}
}

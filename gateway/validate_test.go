package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin/wasmtest"
	"github.com/postern-gateway/postern/sdk/abi"
	"github.com/postern-gateway/postern/sdk/plugintest"
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
		Environment: func(string) (string, bool) { return "", false }, Child: plugintest.Compiler(t),
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

// TestValidateStranger: of a module that somebody else has built, with its manifest in it, validate says where it is wrong by file,
// line and column, without running it: arguments it does not have, grants it was not given, what it wants to see and can not, and a
// module that no gateway runs.
func TestValidateStranger(t *testing.T) {
	t.Parallel()
	const (
		head   = "abi     = 1\nversion = \"1.0.0\"\nsummary = \"A stranger's.\"\n\n"
		hook   = "hook \"request\" {\n  sees {\n    attributes = [\"model\"]\n  }\n\n  argument \"greeting\" {\n    type = string\n  }\n}\n"
		policy = "policy \"p\" {\n  request \"stranger\" {\n    config {\n      greeting = \"Hi\"\n    }\n  }\n}\n"
	)
	for _, c := range []struct {
		name, manifest, policy, grants, want string
		change                               func(m *wasmtest.Module)
	}{
		{name: "in order", manifest: head + hook, policy: policy},
		{name: "a misspelt argument", manifest: head + hook, policy: strings.Replace(policy, "greeting", "greting", 1),
			want: "policies/p.hcl:4:7: Unsupported argument: An argument named \"greting\" is not expected here. Did you mean \"greeting\"?\n    4 |       greting = \"Hi\"\n      |       ^^^^^^^\n"},
		{name: "an argument of another kind", manifest: head + hook, policy: strings.Replace(policy, "\"Hi\"", "[1]", 1),
			want: "policies/p.hcl:4:18: "},
		{name: "what was not granted", manifest: head + "grant \"ledger\" {\n  reason = \"takes your money\"\n}\n\n" + hook, policy: policy,
			want: "config.hcl:8:1: Missing grant: The plugin asks for ledger: it takes your money. If you consent, write grants = [ledger].\n"},
		{name: "a grant of its own invention", manifest: head + "grant \"everything\" {\n  reason = \"is curious\"\n}\n\n" + hook, policy: policy,
			want: "stranger.wasm/plugin.hcl:5:7: Unknown capability"},
		{name: "what there is not", manifest: head + strings.Replace(hook, "model", "secret.openai", 1), policy: policy,
			want: "stranger.wasm/plugin.hcl:7:19: Unknown attribute: There is no attribute \"secret.openai\"."},
		{name: "what is not known yet", manifest: head + strings.Replace(hook, "model", "response.status", 1), policy: policy,
			want: "stranger.wasm/plugin.hcl:7:19: Not known yet: response.status is known from phase response on, and this hook is at request.\n"},
		{name: "a phase it has no hook for", manifest: head + hook, policy: strings.Replace(policy, "request", "response", 1),
			want: "policies/p.hcl:2:3: Unsupported phase: The plugin \"stranger\" does nothing at phase response. There are: request.\n"},
		{name: "a world of its own", manifest: head + hook, policy: policy, change: func(m *wasmtest.Module) {
			m.Imports = append(m.Imports, wasmtest.Import{Module: "env", Name: "system", Type: m.Type(wasmtest.Sig())})
		},
			want: "config.hcl:9:12: "},
		{name: "another ABI", manifest: head + hook, policy: policy, change: func(m *wasmtest.Module) { m.Exported(abi.ExportOn).Export = "proxy_on_request" },
			want: "config.hcl:9:12: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := wasmtest.Policy(wasmtest.Answer(abi.ActionContinue, 0, 0))
			if c.change != nil {
				c.change(m)
			}
			wasm, err := manifest.Pack(m.Bytes(), []byte(c.manifest))
			if err != nil {
				t.Fatal(err)
			}
			dir := folder(t, map[string]string{"policies/p.hcl": c.policy, "stranger.wasm": string(wasm), "config.hcl": `state "memory" {}

listener "public" {
  address   = ":8080"
  protocols = [http1]
}

plugin "stranger" {
  source = "stranger.wasm"
}

route "all" {
  listener = listener.public
  match    = "/"
  policies = [policy.p]

  respond {
    status = 204
  }
}
`})
			if c.want == "" {
				ok(t, "validate", dir)
				return
			}
			if told := fails(t, 1, "validate", dir); !strings.HasPrefix(told, c.want) {
				t.Errorf("told\n%s\nwant\n%s", told, c.want)
			}
		})
	}
}

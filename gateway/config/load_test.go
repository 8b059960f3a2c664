package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/tools/txtar"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/provider"
	"github.com/postern-gateway/postern/gateway/schema"
	"github.com/postern-gateway/postern/gateway/state"
)

var update = flag.Bool("update", false, "write what came out into the golden files")

// format is a provider format that knows calls by method and the end of a path.
type format struct {
	provider.Format
	name  string
	calls map[string]string
}

func (f format) Name() string { return f.name }

func (f format) Operation(method, path string) (provider.Operation, bool) {
	for end, name := range f.calls {
		if m, p, _ := strings.Cut(end, " "); m == method && strings.HasSuffix(path, p) {
			return provider.Operation{Name: name, Billed: name != "models"}, true
		}
	}
	return provider.Operation{}, false
}

// options is what the golden cases are loaded with; each may say more in a file called options.
func options() Options {
	return Options{
		Backends: []state.Backend{
			{Name: "badger", Spec: hcldec.ObjectSpec{
				"dir":  &hcldec.AttrSpec{Name: "dir", Type: cty.String, Required: true},
				"sync": &hcldec.AttrSpec{Name: "sync", Type: cty.Bool},
			}},
			{Name: "memory", Spec: hcldec.ObjectSpec{}},
		},
		Formats: []provider.Format{
			format{name: "openai", calls: map[string]string{"POST /v1/chat/completions": "chat", "GET /v1/models": "models"}},
			format{name: "anthropic", calls: map[string]string{"POST /v1/messages": "messages"}},
		},
		Version: "0.3.1",
	}
}

// wasm is the smallest module, with a manifest if one is given.
func wasm(t testing.TB, text string) []byte {
	t.Helper()
	module := []byte("\x00asm\x01\x00\x00\x00")
	if text == "" {
		return module
	}
	module, err := manifest.Pack(module, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return module
}

// unpack writes a case's files into a new folder. A file whose name ends in .wasm holds the manifest to pack into a
// module. Lines of the file options are: var NAME=VALUE, env NAME=VALUE, version V, secrets, modules, folder NAME,
// large NAME (a file too large), exposed NAME (a secret all can read), many NAME (a folder of too many files).
func unpack(t testing.TB, archive *txtar.Archive) (dir string, opt Options, want []byte) {
	t.Helper()
	dir, opt = t.TempDir(), options()
	environment := map[string]string{}
	opt.Environment = func(name string) (string, bool) { v, ok := environment[name]; return v, ok }
	for _, f := range archive.Files {
		switch {
		case f.Name == "want":
			want = f.Data
			continue
		case f.Name == "options":
			for line := range strings.Lines(string(f.Data)) {
				word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
				name, value, _ := strings.Cut(rest, "=")
				switch word {
				case "var":
					if opt.Variables == nil {
						opt.Variables = map[string]string{}
					}
					opt.Variables[name] = value
				case "env":
					environment[name] = value
				case "version":
					opt.Version = rest
				case "secrets":
					opt.Secrets = true
				case "modules":
					opt.Modules = true
				case "folder":
					if err := os.MkdirAll(filepath.Join(dir, rest), 0o755); err != nil {
						t.Fatal(err)
					}
				case "large":
					if err := os.WriteFile(filepath.Join(dir, rest), bytes.Repeat([]byte("#\n"), 5<<20), 0o644); err != nil {
						t.Fatal(err)
					}
				case "exposed":
					if err := os.WriteFile(filepath.Join(dir, rest), []byte("0123456789abcdef\n"), 0o644); err != nil {
						t.Fatal(err)
					}
				case "many":
					for i := range 1001 {
						if err := os.WriteFile(filepath.Join(dir, rest, fmt.Sprintf("p%04d.hcl", i)), nil, 0o644); err != nil {
							t.Fatal(err)
						}
					}
				default:
					t.Fatalf("options: what is %q?", line)
				}
			}
			continue
		}
		path := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		data := f.Data
		if strings.HasSuffix(f.Name, ".wasm") && !bytes.HasPrefix(data, []byte("broken")) {
			data = wasm(t, string(data))
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, opt, want
}

func outcome(t testing.TB, dir string, opt Options) string {
	t.Helper()
	c, sources, diags := Load(dir, opt)
	if (c == nil) != diags.HasErrors() {
		t.Errorf("Config is %v, and errors: %v", c, diags.HasErrors())
	}
	var b strings.Builder
	if err := schema.WriteDiagnostics(&b, sources, diags, false); err != nil {
		t.Fatal(err)
	}
	if c != nil {
		fmt.Fprintf(&b, "ok\n")
	}
	return b.String()
}

func cases(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 120 {
		t.Fatalf("there are %d golden cases; at least 120", len(files))
	}
	return files
}

func TestGolden(t *testing.T) {
	for _, file := range cases(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir, opt, want := unpack(t, archive)
			got := strings.ReplaceAll(outcome(t, dir, opt), dir, "DIR")
			if *update {
				for i := range archive.Files {
					if archive.Files[i].Name == "want" {
						archive.Files = archive.Files[:i]
						break
					}
				}
				archive.Files = append(archive.Files, txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if len(want) == 0 {
				t.Error("no golden output")
			}
		})
	}
}

// TestEveryMessageHasACase reads the calls that make messages from the code and looks for each in the golden output.
func TestEveryMessageHasACase(t *testing.T) {
	var golden strings.Builder
	for _, file := range cases(t) {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			if f.Name == "want" {
				golden.Write(f.Data)
			}
		}
	}
	text := golden.String()
	set := token.NewFileSet()
	n := 0
	for _, dir := range []string{".", "../notation", "../person/settings", "../privacy", "../schema", "../variable", "../console/site"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(node ast.Node) bool {
				call, ok := node.(*ast.CallExpr)
				if !ok {
					return true
				}
				pattern := message(call)
				if pattern == "" {
					return true
				}
				n++
				if !regexp.MustCompile(pattern).MatchString(text) {
					t.Errorf("%s: no golden case shows this message: %s", set.Position(call.Pos()), pattern)
				}
				return true
			})
		}
	}
	if n < 100 {
		t.Errorf("found %d messages in the code: the search is broken", n)
	}
}

var verb = regexp.MustCompile(`%[a-z]`)

// message is a pattern for what a call reports, or "".
func message(call *ast.CallExpr) string {
	name := ""
	switch f := call.Fun.(type) {
	case *ast.SelectorExpr:
		name = f.Sel.Name
	case *ast.Ident:
		name = f.Name
	}
	literal := func(i int) string {
		if len(call.Args) <= i {
			return ""
		}
		e := call.Args[i]
		if b, ok := e.(*ast.BinaryExpr); ok {
			e = b.X
		}
		if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
			s, _ := strconv.Unquote(l.Value)
			return verb.ReplaceAllString(regexp.QuoteMeta(s), ".*")
		}
		return ""
	}
	switch name {
	case "Errorf", "Warnf", "errorf", "warnf":
		if s, d := literal(1), literal(2); d != "" {
			return s + ".*: " + d
		}
	case "wrong":
		if m := literal(2); m != "" {
			return "Invalid value: .* must be " + m
		}
	case "measure":
		if m := literal(3); m != "" {
			return "Invalid value: .* must be " + m
		}
	}
	return ""
}

// TestManyMistakes: one run reports every one of the mistakes, each with file, line and column.
func TestManyMistakes(t *testing.T) {
	t.Parallel()
	archive, err := txtar.ParseFile("testdata/many_mistakes.txtar")
	if err != nil {
		t.Fatal(err)
	}
	dir, opt, _ := unpack(t, archive)
	_, _, diags := Load(dir, opt)
	places, kinds := map[string]bool{}, map[string]bool{}
	for _, d := range diags {
		if d.Subject == nil || d.Subject.Filename == "" || d.Subject.Start.Line < 1 || d.Subject.Start.Column < 1 {
			t.Errorf("no place: %v", d)
			continue
		}
		places[fmt.Sprint(d.Subject.Filename, d.Subject.Start)] = true
		kinds[d.Detail] = true
	}
	if len(places) < 30 || len(kinds) < 30 {
		t.Errorf("%d places and %d different messages; at least 30", len(places), len(kinds))
	}
}

// example is the configuration that the language's design is explained with.
func example(t testing.TB) *Config {
	t.Helper()
	archive, err := txtar.ParseFile("testdata/valid_example.txtar")
	if err != nil {
		t.Fatal(err)
	}
	dir, opt, _ := unpack(t, archive)
	c, _, diags := Load(dir, opt)
	if c == nil {
		t.Fatal(diags)
	}
	return c
}

func TestExample(t *testing.T) {
	t.Parallel()
	c := example(t)
	r := c.Routes[0]
	if r.Format != "openai" || r.Operation != "chat" || r.Timeout != 2*time.Minute || r.Durability != "sync" || r.OnDisconnect != "bill_delivered" {
		t.Errorf("route: %+v", r)
	}
	if r.Listeners[0] != c.Listeners[0] || r.Policies[0] != c.Policies[0] || r.Models[0].Targets[0].Upstream != c.Upstreams[0] {
		t.Error("references do not lead to the blocks")
	}
	var got []string
	for _, stages := range r.Chain() {
		for _, s := range stages {
			got = append(got, fmt.Sprint(s.Phase, ": ", s))
		}
	}
	want := []string{
		"authenticate: policy.tenant authenticate apikey",
		"authorize: policy.tenant require chat_scope",
		"admit: policy.tenant admit ratelimit",
		"admit: policy.tenant admit meter",
		"account: policy.tenant account meter",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("chain, -want +got:\n%s", diff)
	}
	price := c.Models[0].Prices[0]
	if got := price.Of(exchange.Input, 0).String(); got != "0.00000015" {
		t.Errorf("an input token costs %s", got)
	}
	if got := price.Of(exchange.CachedInput, 0).String(); got != "0.000000075" {
		t.Errorf("a cached token costs %s", got)
	}
	l := c.Listeners[0]
	if l.Limits.Header != 32<<10 || l.Limits.Headers != 100 || l.Timeouts.Idle != 75*time.Second || l.Drain != 30*time.Second {
		t.Errorf("limits and defaults: %+v", l)
	}
	if !strings.HasSuffix(c.State.Dir, "/data") || !filepath.IsAbs(c.State.Dir) {
		t.Errorf("data directory %q", c.State.Dir)
	}
	if s := c.Policies[0].Stages[2]; !s.Allow || s.Timeout != 5*time.Millisecond || len(s.Arguments) != 1 || s.Arguments[0] == nil {
		t.Errorf("stage: %+v", s)
	}
	if h := c.Upstreams[0].Headers[0]; h.Name != "authorization" || h.Value != "" {
		t.Errorf("header: %+v", h)
	}
}

// TestSecretsStayOut: a secret reaches the field that needs it, and no message.
func TestSecretsStayOut(t *testing.T) {
	t.Parallel()
	const value = "s3cr3t-canary-value"
	for _, file := range cases(t) {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		dir, opt, _ := unpack(t, archive)
		opt.Secrets = true
		opt.Environment = func(name string) (string, bool) { return value, !strings.HasPrefix(name, "POSTERN_VAR_") }
		c, sources, diags := Load(dir, opt)
		for _, asJSON := range []bool{false, true} {
			var b strings.Builder
			if err := schema.WriteDiagnostics(&b, sources, diags, asJSON); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(b.String(), value) {
				t.Errorf("%s: a secret is printed: %s", file, b.String())
			}
		}
		if filepath.Base(file) == "secret_in_headers.txtar" {
			if h := c.Upstreams[0].Headers[0]; h.Value != "Bearer "+value || !h.Secret {
				t.Errorf("header: secret %v", h.Secret)
			}
		}
	}
}

func TestDiagnosticsAsJSON(t *testing.T) {
	t.Parallel()
	dir, opt := t.TempDir(), options()
	_, sources, diags := Load(dir, opt)
	var b bytes.Buffer
	if err := schema.WriteDiagnostics(&b, sources, diags, true); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Valid       bool
		Errors      int
		Diagnostics []struct {
			Severity, Summary, Detail, File string
			Start, End                      struct{ Line, Column, Byte int }
		}
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Valid || got.Errors != 1 || len(got.Diagnostics) != 1 || got.Diagnostics[0].File != "config.hcl" || got.Diagnostics[0].Start.Line != 1 || got.Diagnostics[0].Severity != "error" {
		t.Errorf("%s", b.String())
	}
}

// TestManyRoutes: loading stays about linear in the number of routes.
func TestManyRoutes(t *testing.T) {
	t.Parallel()
	f := &schema.Findings{Dir: t.TempDir(), Sources: schema.Sources{}, Used: map[string]bool{}}
	var b strings.Builder
	b.WriteString("state \"memory\" {}\nlistener \"l\" {\n  address = \":0\"\n  protocols = [http1]\n}\n")
	for i := range 5000 {
		fmt.Fprintf(&b, "route \"r%d\" {\n  listener = listener.l\n  match = \"/s%d/{id}\"\n  respond {}\n}\n", i, i)
	}
	f.Sources[schema.MainFile] = []byte(b.String())
	if c, _, diags := load(f, options()); c == nil || len(c.Routes) != 5000 {
		t.Fatal(diags)
	}
}

func FuzzLoad(f *testing.F) {
	for _, file := range cases(f) {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var main, policy []byte
		for _, a := range archive.Files {
			switch {
			case a.Name == "config.hcl":
				main = a.Data
			case strings.HasPrefix(a.Name, "policies/"):
				policy = a.Data
			}
		}
		f.Add(main, policy, policy)
	}
	dir := f.TempDir()
	for name, text := range map[string]string{"apikey": pluginText, "meter": pluginText} {
		if err := os.MkdirAll(filepath.Join(dir, "plugins", name), 0o755); err != nil {
			f.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "plugins", name, "plugin.hcl"), []byte(text), 0o644); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, main, policy, test []byte) {
		if len(main)+len(policy)+len(test) > 1<<16 {
			t.Skip()
		}
		found := &schema.Findings{Dir: dir, Used: map[string]bool{}, Sources: schema.Sources{
			schema.MainFile: main, "policies/p.hcl": policy, "policies/p_test.hcl": test,
		}}
		c, sources, diags := load(found, options())
		if (c == nil) != diags.HasErrors() {
			t.Error("a Config without errors, and none with them")
		}
		for _, d := range diags {
			if d.Subject == nil || d.Subject.Filename == "" || d.Subject.Start.Line < 1 || d.Subject.Start.Column < 1 || d.Summary == "" || d.Detail == "" {
				t.Errorf("a diagnostic without a place or text: %v", d)
			}
		}
		if err := schema.WriteDiagnostics(io.Discard, sources, diags, false); err != nil {
			t.Error(err)
		}
	})
}

const pluginText = `
abi     = 1
version = "0.1.0"
summary = "For fuzzing."

grant "accounts" {
  reason = "looks keys up"
}

hook "authenticate" {
  argument "header" {
    type    = string
    default = "authorization"
    summary = "Where the key is."
  }
}

hook "admit" {
  argument "key" {
    type        = string
    per_request = true
    default     = ""
    summary     = "Whose."
  }
}
`

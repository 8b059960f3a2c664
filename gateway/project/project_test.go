package project_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/plugin/abi1"
	"github.com/postern-gateway/postern/gateway/plugin/wasmtest"
	"github.com/postern-gateway/postern/gateway/project"
	"github.com/postern-gateway/postern/gateway/schema"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/memory"
	"github.com/postern-gateway/postern/sdk"
	"github.com/postern-gateway/postern/sdk/abi"
	"github.com/postern-gateway/postern/sdk/conformance"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

var update = flag.Bool("update", false, "write what the golden files should be")

// output is what a command writes, for reading while it runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// run is one command of postern plugin, as the program runs it.
func run(t testing.TB, s *project.Shell, arguments ...string) (out string, told string, err error) {
	t.Helper()
	var stdout, stderr output
	s.Stdout, s.Stderr = &stdout, &stderr
	if s.Context == nil {
		s.Context = t.Context()
	}
	s.ABIs = func() []plugin.ABI { return []plugin.ABI{abi1.New()} }
	s.Child = plugintest.Compiler(t)
	parser, err := kong.New(&project.Commands{}, kong.Bind(s), kong.Vars{"languages": ""}, kong.Exit(func(int) { t.Error("the parser wants to exit") }))
	if err != nil {
		t.Fatal(err)
	}
	command, err := parser.Parse(arguments)
	if err != nil {
		t.Fatal(err)
	}
	err = command.Run()
	return stdout.String(), stderr.String(), err
}

// greeting is a manifest of one hook.
const greeting = `abi     = 1
version = "0.1.0"
summary = "Greet the upstream."

grant "state" {
  reason = "counts greetings"
}

argument "tone" {
  type    = string
  summary = "How it is said."
}

hook "request" {
  sees {
    headers    = ["x-name"]
    attributes = ["route.name"]
  }

  argument "to" {
    type        = string
    per_request = true
    required    = true
  }
}
`

// module is a plugin that sets the header x-greeting to a text, with its postern_on preceded by something else.
func module(text string, before ...wasmtest.Code) *wasmtest.Module {
	op := wasmtest.Operation(abi.OpHeaderSet, "x-greeting", []byte(text))
	m := wasmtest.Policy(wasmtest.Join(before...) + wasmtest.Answer(abi.ActionContinue, wasmtest.Scratch, uint32(len(op))))
	m.Put(wasmtest.Scratch, op)
	return m
}

// leaves has a module import what no gateway gives it.
func leaves(m *wasmtest.Module) {
	m.Imports = append(m.Imports, wasmtest.Import{Module: "env", Name: "exit", Type: m.Type(wasmtest.Sig())})
}

// write puts files into a new folder called greet.
func write(t testing.TB, files map[string]string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "greet")
	for name, text := range files {
		put(t, filepath.Join(dir, name), text)
	}
	return dir
}

func put(t testing.TB, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	full := write(t, map[string]string{"mine": "untouched"})
	for _, c := range []struct {
		arguments []string
		want      string
	}{
		{[]string{"x", "--lang", "cobol"}, `there is no language "cobol"; there are: go, rust, assemblyscript, c, zig`},
		{[]string{"Greet", "--lang", "c"}, `"Greet" can not be a plugin's name`},
		{[]string{"../x", "--lang", "c"}, `"../x" can not be a plugin's name`},
		{[]string{"1x", "--lang", "c"}, "can not be a plugin's name"},
		{[]string{"x-", "--lang", "c"}, "can not be a plugin's name"},
		{[]string{strings.Repeat("x", 64), "--lang", "c"}, "can not be a plugin's name"},
		{[]string{"plugin", "--lang", "go"}, "a plugin in Go can not be called plugin"},
		{[]string{"core", "--lang", "rust"}, "a plugin in Rust can not be called core"},
		{[]string{"self", "--lang", "zig"}, "a plugin in Zig can not be called self"},
		{[]string{"postern", "--lang", "c"}, "a plugin in C can not be called postern"},
		{[]string{"x", "--lang", "c", "--dir", full}, "is not empty; nothing was changed"},
	} {
		dir := filepath.Join(t.TempDir(), "made")
		arguments := append([]string{"new"}, c.arguments...)
		if !strings.Contains(strings.Join(arguments, " "), "--dir") {
			arguments = append(arguments, "--dir", dir)
		}
		if _, _, err := run(t, &project.Shell{}, arguments...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.arguments, err, c.want)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: a folder was made", c.arguments)
		}
	}
	if entries, err := os.ReadDir(full); err != nil || len(entries) != 1 || read(t, filepath.Join(full, "mine")) != "untouched" {
		t.Errorf("the folder that was not empty has %v (%v)", entries, err)
	}
}

// TestNewHoldsItsOwnLanguage: what a new project is made of is in order by itself: manifest, policy and tests are taken, and its
// README names the files that there are.
func TestNewHoldsItsOwnLanguage(t *testing.T) {
	t.Parallel()
	for _, l := range sdk.Languages() {
		dir := filepath.Join(t.TempDir(), "another name") // the project has its own, wherever it lies
		if _, _, err := run(t, &project.Shell{}, "new", "hello", "--lang", l.Name, "--dir", dir); err != nil {
			t.Fatal(err)
		}
		readme := read(t, filepath.Join(dir, "README.md"))
		if strings.ContainsAny(readme, "{}") && regexp.MustCompile(`\{[A-Z]+\}`).MatchString(readme) {
			t.Errorf("%s: a name was not filled in:\n%s", l.Name, readme)
		}
		for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(readme, -1) {
			if _, err := os.Stat(filepath.Join(dir, m[1])); err != nil {
				t.Errorf("%s: the README tells of %s: %v", l.Name, m[1], err)
			}
		}
		// A module that does something else fails the tests, and they say what they miss.
		put(t, filepath.Join(dir, "hello.wasm"), string(module("Hi").Bytes()))
		if out, told, err := run(t, &project.Shell{}, "inspect", dir); err != nil || !strings.Contains(out, "hello.wasm: ") {
			t.Errorf("%s: %v\n%s%s", l.Name, err, out, told)
		}
		out, told, err := run(t, &project.Shell{}, "test", dir, "--module", filepath.Join(dir, "hello.wasm"))
		if !errors.Is(err, project.ErrTold) || told != "" || !strings.Contains(out, `header x-greeting of the request to the upstream is "Hi", expected "Good day, Ada"`) {
			t.Errorf("%s: %v\n%s%s", l.Name, err, out, told)
		}
	}
}

func TestPack(t *testing.T) {
	t.Parallel()
	bare, unknown := string(module("Hi").Bytes()), module("Hi")
	leaves(unknown)
	dir := write(t, map[string]string{"greet.wasm": bare, "plugin.hcl": greeting, "other.hcl": strings.Replace(greeting, "0.1.0", "2.0.0", 1),
		"wrong.hcl": strings.Replace(greeting, "route.name", "route.nam", 1), "text.wasm": "this is no module",
		"unknown.wasm": string(unknown.Bytes())})
	path := func(name string) string { return filepath.Join(dir, name) }
	if out, told, err := run(t, &project.Shell{}, "pack", path("greet.wasm"), "-o", path("packed.wasm")); err != nil || !strings.Contains(out, "packed.wasm: ") {
		t.Fatalf("%v\n%s%s", err, out, told)
	}
	if read(t, path("greet.wasm")) != bare {
		t.Error("the module that was read has changed")
	}
	text, ok, err := manifest.Section([]byte(read(t, path("packed.wasm"))))
	if err != nil || !ok || string(text) != greeting {
		t.Errorf("the section holds %q (%v)", text, err)
	}
	// Another manifest takes its place.
	if _, _, err := run(t, &project.Shell{}, "pack", path("packed.wasm"), "--manifest", path("other.hcl")); err != nil {
		t.Fatal(err)
	}
	if text, _, err := manifest.Section([]byte(read(t, path("packed.wasm")))); err != nil || !strings.Contains(string(text), "2.0.0") {
		t.Errorf("the section holds %q (%v)", text, err)
	}
	packed := read(t, path("packed.wasm"))
	for _, c := range []struct {
		arguments  []string
		want, told string
	}{
		{[]string{path("packed.wasm"), "--manifest", path("wrong.hcl")}, "told", "wrong.hcl:17:19: Unknown attribute: There is no attribute \"route.nam\". Did you mean \"route.name\"?"},
		{[]string{path("packed.wasm"), "--manifest", path("none.hcl")}, "no such file", ""},
		{[]string{path("packed.wasm"), "-o", path("packed.zip")}, "must end in .wasm", ""},
		{[]string{path("text.wasm")}, "not a WebAssembly module", ""},
		{[]string{path("unknown.wasm"), "-o", path("packed.wasm")}, "env", ""},
	} {
		_, told, err := run(t, &project.Shell{}, append([]string{"pack"}, c.arguments...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(told, c.told) {
			t.Errorf("%s: %v, told %q; want %q, %q", c.arguments[1:], err, told, c.want, c.told)
		}
	}
	if read(t, path("packed.wasm")) != packed {
		t.Error("what failed has changed the module")
	}
	if left, err := filepath.Glob(path("*.new")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q (%v)", left, err)
	}
}

// TestInspect: golden outputs, of modules that gateways take and do not take.
func TestInspect(t *testing.T) {
	t.Parallel()
	files := map[string]string{}
	pack := func(m *wasmtest.Module) string {
		packed, err := manifest.Pack(m.Bytes(), []byte(greeting))
		if err != nil {
			t.Fatal(err)
		}
		return string(packed)
	}
	imports, other := module("Hi"), module("Hi")
	leaves(imports)
	other.Exported(abi.ExportOn).Export = "postern_of"
	files["good.wasm"] = pack(module("Hi"))
	files["import.wasm"] = pack(imports)
	files["other.wasm"] = pack(other)
	files["truncated.wasm"] = files["good.wasm"][:100]
	files["bare.wasm"] = string(module("Hi").Bytes())
	dir := write(t, files)
	var got strings.Builder
	for _, name := range []string{"good", "import", "other", "truncated", "bare"} {
		out, told, err := run(t, &project.Shell{}, "inspect", filepath.Join(dir, name+".wasm"))
		got.WriteString("== " + name + "\n" + out + told)
		if (err != nil) != (name != "good") || err != nil && !errors.Is(err, project.ErrTold) {
			t.Errorf("%s: %v", name, err)
		}
	}
	text := strings.ReplaceAll(got.String(), dir+string(filepath.Separator), "")
	text = regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllString(text, "DIGEST")
	text = regexp.MustCompile(`[0-9.]+ ms, .* with metering`).ReplaceAllString(text, "TIME, SIZE with metering")
	archive := &txtar.Archive{Comment: []byte("What postern plugin inspect says of modules made by TestInspect.\n"), Files: []txtar.File{{Name: "want", Data: []byte(text)}}}
	if *update {
		if err := os.WriteFile("testdata/inspect.txtar", txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := txtar.ParseFile("testdata/inspect.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want.Files[0].Data), text); diff != "" {
		t.Error(diff)
	}
	// The same for programs.
	out, _, err := run(t, &project.Shell{}, "inspect", filepath.Join(dir, "good.wasm"), "--json")
	var report struct {
		Taken   bool
		Metered int
		Exports []struct{ Name, Kind, Type string }
		Memory  struct{ Initial int64 }
	}
	if err := errors.Join(err, json.Unmarshal([]byte(out), &report)); err != nil || !report.Taken || report.Metered == 0 || len(report.Exports) != 4 || report.Memory.Initial != 4<<16 {
		t.Errorf("%v\n%s", err, out)
	}
	// A folder without a module says what to do.
	if _, _, err := run(t, &project.Shell{}, "inspect", dir); err == nil || !strings.Contains(err.Error(), "build it first") {
		t.Error(err)
	}
}

// TestBuildFails: what is wrong is told, and a module that was there stays.
func TestBuildFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		files      map[string]string
		want, told string
	}{
		{"no manifest", map[string]string{"main.go": "package main"}, "has no plugin.hcl", ""},
		{"a wrong manifest", map[string]string{"plugin.hcl": strings.Replace(greeting, "hook", "hok", 1), "main.go": "package main"}, "told", "plugin.hcl:14:1: Unsupported block type"},
		{"no sources", map[string]string{"plugin.hcl": greeting}, "in none of the languages", ""},
		{"a mistake", map[string]string{"plugin.hcl": greeting, "go.mod": "module greet\n\ngo 1.24\n", "main.go": "package main\n\nfunc main() { x }\n"}, "the compiler failed", "main.go:3:15: undefined: x"},
		{"no plugin", map[string]string{"plugin.hcl": greeting, "go.mod": "module greet\n\ngo 1.24\n", "main.go": "package main\n\nfunc main() {}\n"}, "speaks no plugin ABI", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.files["greet.wasm"] = "the old one"
			dir := write(t, c.files)
			_, told, err := run(t, &project.Shell{}, "build", dir)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(told, c.told) {
				t.Errorf("%v, told %q", err, told)
			}
			if read(t, filepath.Join(dir, "greet.wasm")) != "the old one" {
				t.Error("the module was replaced")
			}
		})
	}
}

// TestMissingToolchain: the one line says how to get it. The program holds the build script, so the project needs none.
func TestMissingToolchain(t *testing.T) {
	dir := write(t, map[string]string{"plugin.hcl": greeting, "policy.zig": "", "postern/build": "#!/bin/sh\necho 'plugins in Zig need zig: get it there' >&2\nexit 69\n"})
	_, told, err := run(t, &project.Shell{}, "build", dir)
	if !errors.Is(err, project.ErrToolchain) || err.Error() != "missing toolchain: plugins in Zig need zig: get it there" || told != "" {
		t.Errorf("%v, told %q", err, told)
	}
	t.Setenv("PATH", t.TempDir())
	dir = write(t, map[string]string{"plugin.hcl": greeting, "main.go": "package main"})
	if _, _, err := run(t, &project.Shell{}, "build", dir); !errors.Is(err, project.ErrToolchain) || !strings.Contains(err.Error(), "https://go.dev/dl") {
		t.Error(err)
	}
	dir = write(t, map[string]string{"plugin.hcl": greeting, "policy.zig": ""})
	if _, _, err := run(t, &project.Shell{}, "build", dir); !errors.Is(err, project.ErrToolchain) || !strings.Contains(err.Error(), "a POSIX shell") {
		t.Error(err)
	}
}

const policy = `policy "greeting" {
  request "greet" {
    config {
      to = request.host
    }
  }
}
`

func TestTests(t *testing.T) {
	t.Parallel()
	one := "test \"greets\" {\n  expect {\n    upstream {\n      headers = { x-greeting = \"%\" }\n    }\n  }\n}\n"
	tests := strings.Replace(one, "%", "Hi", 1) + strings.Replace(strings.Replace(one, "%", "Hello", 1), "greets", "is polite", 1)
	dir := write(t, map[string]string{"plugin.hcl": greeting, "policy.hcl": policy, "greet.wasm": string(module("Hi").Bytes()), "greet_test.hcl": tests})
	wasm := filepath.Join(dir, "greet.wasm")
	for _, c := range []struct {
		arguments []string
		out, fail string
	}{
		{nil, "ok    greets\nFAIL  is polite\n      greet_test.hcl:11:17: header x-greeting of the request to the upstream is \"Hi\", expected \"Hello\"\n1 passed, 1 failed\n", "told"},
		{[]string{"--run", "^greets$"}, "ok    greets\n1 passed, 0 failed\n", ""},
		{[]string{"--run", "nothing"}, "0 passed, 0 failed\n", "no test's name matches"},
		{[]string{"--run", "("}, "", "--run: error parsing regexp"},
	} {
		out, told, err := run(t, &project.Shell{}, append([]string{"test", dir, "--module", wasm}, c.arguments...)...)
		if out != c.out || told != "" || (err == nil) != (c.fail == "") || err != nil && !strings.Contains(err.Error(), c.fail) {
			t.Errorf("%s: %v\n%s%s", c.arguments, err, out, told)
		}
	}
	out, _, err := run(t, &project.Shell{}, "test", dir, "--module", wasm, "--json", "--run", "polite")
	var result struct {
		Test, At string
		Passed   bool
		Failures []struct{ At, Text string }
	}
	if !errors.Is(err, project.ErrTold) || json.Unmarshal([]byte(out), &result) != nil || result.Passed || result.At != "greet_test.hcl:8:1" || len(result.Failures) != 1 || result.Failures[0].At != "greet_test.hcl:11:17" {
		t.Errorf("%v\n%s", err, out)
	}
	put(t, filepath.Join(dir, "greet_test.hcl"), "test \"greets\" {\n  expct {}\n}\n")
	if _, told, err := run(t, &project.Shell{}, "test", dir, "--module", wasm); !errors.Is(err, project.ErrTold) || !strings.HasPrefix(told, "greet_test.hcl:1:1: Missing block") || !strings.Contains(told, "greet_test.hcl:2:3: Unsupported block type") {
		t.Errorf("%v\n%s", err, told)
	}
	put(t, filepath.Join(dir, "greet_test.hcl"), "")
	if _, _, err := run(t, &project.Shell{}, "test", dir, "--module", wasm); err == nil || !strings.Contains(err.Error(), "write them in greet_test.hcl") {
		t.Error(err)
	}
}

func TestBench(t *testing.T) {
	t.Parallel()
	tests := "test \"one\" {\n  expect {\n    status = 200\n  }\n}\n\ntest \"two\" {\n  exchange {\n    expect {}\n  }\n\n  exchange {\n    expect {}\n  }\n}\n"
	counting := module("Hi", wasmtest.Loop(wasmtest.Void, // to 50 first
		wasmtest.LocalGet(wasmtest.Int), wasmtest.I32Const(1), wasmtest.I32Add, wasmtest.LocalTee(wasmtest.Int), wasmtest.I32Const(50), wasmtest.I32LtU, wasmtest.BrIf(0)))
	dir := write(t, map[string]string{"plugin.hcl": greeting, "policy.hcl": policy, "greet.wasm": string(counting.Bytes()), "greet_test.hcl": tests})
	wasm := filepath.Join(dir, "greet.wasm")
	type row struct {
		Test, Phase, Event string
		Calls              int
		NS                 float64
		Fuel               int64
		Allocs             float64 `json:"host_allocs"`
		Memory             int64   `json:"guest_octets"`
		Faults             int
	}
	rows := func(out string) (list []row) {
		d := json.NewDecoder(strings.NewReader(out))
		for d.More() {
			var r row
			if err := d.Decode(&r); err != nil {
				t.Fatal(err)
			}
			list = append(list, r)
		}
		return list
	}
	out, told, err := run(t, &project.Shell{}, "bench", dir, "--module", wasm, "--time", "1ms", "--json")
	if err != nil {
		t.Fatal(err, told)
	}
	list := rows(out)
	if len(list) != 3 || list[0].Test != "one" || list[2].Test != "two" {
		t.Fatalf("%+v", list)
	}
	for _, r := range list {
		if r.Event != "REQUEST" || r.Phase != "request" || r.Calls < 100 || r.NS <= 0 || r.Fuel < 50 || r.Fuel > 1000 || r.Memory != 4<<16 || r.Faults != 0 {
			t.Errorf("%+v", r)
		}
	}
	if out, _, err := run(t, &project.Shell{}, "bench", dir, "--module", wasm, "--time", "1ms", "--run", "one"); err != nil || strings.Count(out, "\n") != 2 || !strings.Contains(out, "REQUEST at request: one\n") {
		t.Errorf("%v\n%s", err, out)
	}
	// Without tests, a plain request.
	put(t, filepath.Join(dir, "greet_test.hcl"), "")
	if out, _, err := run(t, &project.Shell{}, "bench", dir, "--module", wasm, "--time", "1ms", "--json"); err != nil || len(rows(out)) != 1 {
		t.Errorf("%v\n%s", err, out)
	}
	// What does not pass is not measured.
	put(t, filepath.Join(dir, "greet_test.hcl"), "test \"one\" {\n  expect {\n    status = 404\n  }\n}\n")
	if _, told, err := run(t, &project.Shell{}, "bench", dir, "--module", wasm); !errors.Is(err, project.ErrTold) || !strings.Contains(told, "FAIL  one") {
		t.Errorf("%v\n%s", err, told)
	}
	for _, bad := range []string{"0s", "-1s", "2m"} {
		if _, _, err := run(t, &project.Shell{}, "bench", dir, "--module", wasm, "--time="+bad); err == nil || !strings.Contains(err.Error(), "between") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// loaded is what a gateway makes of a folder.
func loaded(t *testing.T, dir string) (*config.Config, error) {
	t.Helper()
	cfg, sources, diags := config.Load(dir, config.Options{Backends: []state.Backend{memory.Backend()}, Modules: true})
	if diags.HasErrors() {
		var b strings.Builder
		if err := schema.WriteDiagnostics(&b, sources, diags, false); err != nil {
			t.Error(err)
		}
		return nil, errors.New(b.String())
	}
	return cfg, nil
}

// TestRun: the configuration that run makes is one that a gateway takes, and follows the files.
func TestRun(t *testing.T) {
	t.Parallel()
	packed := func(text, manifestText string) string {
		b, err := manifest.Pack(module(text).Bytes(), []byte(manifestText))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	fetching := greeting + "\ngrant \"fetch\" {\n  reason = \"asks\"\n}\n"
	dir := write(t, map[string]string{"plugin.hcl": fetching, "policy.hcl": policy, "greet.wasm": packed("Hi", fetching)})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s := &project.Shell{Context: ctx}
	s.Serve = func(ctx context.Context, made string, changed <-chan struct{}) error {
		defer stop()
		cfg, err := loaded(t, made)
		if err != nil {
			return err
		}
		p, u := cfg.Plugins[0], cfg.Upstreams[0]
		if p.Name != "greet" || len(p.Grants) != 2 || len(p.Fetch.Origins) != 1 || !p.Fetch.Origins[0].Private || u.Endpoints[0].URL.String() != "http://127.0.0.1:9" || cfg.Listeners[0].Address != "127.0.0.1:18080" {
			t.Errorf("it serves %+v %+v %+v", p, u, cfg.Listeners[0])
		}
		if cfg.Routes[0].Policies[0].Name != "greeting" || cfg.Telemetry.LogLevel != "debug" {
			t.Errorf("it serves %+v", cfg.Routes[0])
		}
		// A wrong manifest in the module is told and changes nothing; the next module has another policy's name and no grant.
		put(t, filepath.Join(dir, "greet.wasm"), "no module")
		select {
		case <-changed:
		case <-time.After(time.Minute):
			t.Error("a changed module is not noticed")
		}
		put(t, filepath.Join(dir, "policy.hcl"), strings.Replace(policy, `"greeting"`, `"other"`, 1))
		put(t, filepath.Join(dir, "greet.wasm"), packed("Hello", greeting))
		for {
			select {
			case <-changed:
			case <-time.After(time.Minute):
				return errors.New("the changes are not noticed")
			}
			if cfg, err := loaded(t, made); err == nil && cfg.Routes[0].Policies[0].Name == "other" && len(cfg.Plugins[0].Grants) == 1 {
				return nil
			}
		}
	}
	if _, told, err := run(t, s, "run", dir, "--upstream", "http://127.0.0.1:9", "--listen", "127.0.0.1:18080", "--origin", "http://127.0.0.1:7", "--watch", "10ms"); err != nil || !strings.Contains(told, "greet serves at http://127.0.0.1:18080 in front of http://127.0.0.1:9.") {
		t.Errorf("%v\n%s", err, told)
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "postern-run-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range left {
		if b, err := os.ReadFile(filepath.Join(name, "config.hcl")); err == nil && strings.Contains(string(b), "127.0.0.1:18080") {
			t.Errorf("%s is left behind", name)
		}
	}
	bare := write(t, map[string]string{"plugin.hcl": greeting, "policy.hcl": policy})
	for _, c := range []struct{ dir, upstream, more, want string }{
		{bare, "http://127.0.0.1:9", "", "say --build"},
		{dir, "127.0.0.1:9", "", "is not a URL"},
		{dir, "ftp://127.0.0.1:9", "", "is not a URL"},
		{dir, "http://127.0.0.1:9/path", "", "is not a URL"},
		{dir, "http://u:p@127.0.0.1:9", "", "is not a URL"},
		{dir, "http://127.0.0.1:9", "--listen=8080", "--listen: "},
		{dir, "http://127.0.0.1:9", "--origin=there", "is not a URL"},
		{dir, "http://127.0.0.1:9", "--watch=1ms", "--watch: "},
	} {
		arguments := []string{"run", c.dir, "--upstream", c.upstream}
		if c.more != "" {
			arguments = append(arguments, c.more)
		}
		if _, _, err := run(t, &project.Shell{}, arguments...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", arguments[2:], err)
		}
	}
}

// TestSourceLines: a trap is told with the line of the source, in a language that has line tables.
func TestSourceLines(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "hello")
	s := &project.Shell{CacheDir: plugintest.CacheDir()}
	if _, _, err := run(t, s, "new", "hello", "--lang", "c", "--dir", dir); err != nil {
		t.Fatal(err)
	}
	const before = "	if (who.len == 0) {"
	source := read(t, filepath.Join(dir, "policy.c"))
	if !strings.Contains(source, before) {
		t.Fatal("the example has changed")
	}
	source = strings.Replace(source, before, "	if (who.len == 3) __builtin_trap();\n"+before, 1)
	put(t, filepath.Join(dir, "policy.c"), source)
	head, _, _ := strings.Cut(source, "__builtin_trap")
	out, _, err := run(t, s, "test", dir)
	if errors.Is(err, project.ErrToolchain) {
		conformance.Missing(t, err.Error())
	}
	if want := "policy.c:" + strconv.Itoa(strings.Count(head, "\n")+1); !errors.Is(err, project.ErrTold) || !strings.Contains(out, want) {
		t.Errorf("%v; the output does not name %s:\n%s", err, want, out)
	}
}

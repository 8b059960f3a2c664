package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/schema"
)

// block is a fenced block of a document.
type block struct {
	file string // from the repository's folder, with slashes
	line int    // of the opening fence
	kind string // what stands behind the opening fence
	text string
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.file, b.line) }

// blocksOf lists a document's fenced blocks.
func blocksOf(t testing.TB, file string) (list []block) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(t), filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	var open *block
	for i, line := range strings.SplitAfter(string(b), "\n") {
		kind, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && open == nil:
			open = &block{file: file, line: i + 1, kind: kind}
		case fence:
			list = append(list, *open)
			open = nil
		case open != nil:
			open.text += line
		}
	}
	if open != nil {
		t.Errorf("%s: the block is not closed", open)
	}
	return list
}

// blockWith is the text of the one block of a kind that contains a text.
func blockWith(t testing.TB, file, kind, text string) string {
	t.Helper()
	var found []string
	for _, b := range blocksOf(t, file) {
		if b.kind == kind && strings.Contains(b.text, text) {
			found = append(found, b.text)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s has %d %s blocks with %q, want one", file, len(found), kind, text)
	}
	return found[0]
}

// documents lists the repository's documents.
func documents(t testing.TB) (list []string) {
	t.Helper()
	top := root(t)
	err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains(notGo, d.Name()) {
			return filepath.SkipDir
		}
		if strings.HasSuffix(name, ".md") {
			rel, err := filepath.Rel(top, name)
			if err != nil {
				return err
			}
			list = append(list, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// exercised says of every command line in the documents' sh blocks which test runs it.
var exercised = map[string]string{
	"make run":         "TestDemo runs what it runs",
	"make test":        "runs this test",
	"make bench":       "TestShort of gateway/bench runs what it runs, in short",
	". data/demo.env":  "TestReadme",
	"make conformance": "runs the tests of gateway/conformance and TestH2spec in full, of which make test runs the short form",
	`curl --cacert "$POSTERN_CA" "$POSTERN_URL/openapi.json"`: "TestReadme",
	`curl --cacert "$POSTERN_CA" "$POSTERN_URL/v1/chat/completions" -H "Authorization: Bearer $POSTERN_KEY" -H 'Content-Type: application/json' -d '{"model":"small","messages":[{"role":"user","content":"Hello, I am jane@example.com"}]}'`: "TestReadme, TestDemo",
	`gtlsclient --no-quic-dump --exit-on-all-streams-close 127.0.0.1 8443 "$POSTERN_URL/" 2>&1 | grep '^http:'`:                                                                                                                               "TestDemo",
	"bin/postern account list":                                "TestReadme",
	`account=$(bin/postern account create "Acme Ltd")`:        "TestReadmeKeys",
	`bin/postern ledger credit "$account" 20 -key payment-17`: "TestReadmeKeys",
	`bin/postern account key create "$account" -name ci -model small -route chat -route models -network 10.0.0.0/8 -cap 5/day -rate 60/minute -expires 720h`: "TestReadmeKeys",
	`bin/postern account key list "$account"`:                                                              "TestReadmeKeys",
	`key=$(bin/postern account key list "$account" | awk '$2 == "ci" { print $1 }')`:                       "TestReadmeKeys",
	`bin/postern account key change "$account" "$key" -name "ci, east" -cap 50/month -clear networks,rate`: "TestReadmeKeys",
	`bin/postern account key rotate "$account" "$key" -overlap 24h`:                                        "TestReadmeKeys",
	`bin/postern account key revoke "$account" "$key"`:                                                     "TestReadmeKeys",
	"bin/postern ledger verify":                                                                            "TestReadme",
	"bin/postern usage sums -by model":                                                                     "TestReadme",
	"bin/postern usage verify":                                                                             "TestReadme",
	"bin/postern audit list -action account.create":                                                        "TestReadme",
	"bin/postern audit verify":                                                                             "TestReadme",
	"bin/postern validate":                                                                                 "TestReadme",
	"bin/postern explain POST /v1/chat/completions":                                                        "TestReadme",
	"bin/postern reload":                                                                                   "TestReadme",
	"bin/postern privacy report":                                                                           "TestReadme",
	"bin/postern privacy page --lang zh":                                                                   "TestReadme",

	`curl -sS "$POSTERN_ADMIN/ready"`: "TestOperate",
	`curl -sS -H "Authorization: Bearer $(cat data/admin.token)" "$POSTERN_ADMIN/v1/status"`: "TestOperate",
	`curl -sS -H "Authorization: Bearer $(cat data/admin.token)" "$POSTERN_ADMIN/metrics"`:   "TestOperate",

	"mkdir greet && cd greet": "TestOutside",
	"go mod init greet":       "TestOutside",
	"go mod edit -require github.com/postern-gateway/postern@v0.1.0 -replace github.com/postern-gateway/postern=../postern": "TestOutside",
	"GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o greet.wasm .":                                                  "TestOutside",
	"../postern/bin/postern validate": "TestOutside",
	"../postern/bin/postern run":      "TestOutside",

	"postern plugin new --lang rust hello":                        "TestPluginProjects",
	"postern plugin build":                                        "TestPluginProjects",
	"postern plugin test":                                         "TestPluginProjects",
	"postern plugin bench":                                        "TestPluginProjects",
	"postern plugin run --upstream http://127.0.0.1:9000 --build": "TestPluginProjects",
	"cd hello": "TestPluginProjects",
	"cd greet": "TestPluginProjects",
	"postern plugin new --lang assemblyscript greet":              "TestPluginProjects",
	"go test -run TestLanguages/assemblyscript ./sdk/conformance": "is itself a test",
	"postern plugin new --lang c greet":                           "TestPluginProjects",
	"go test -run TestLanguages/c ./sdk/conformance":              "is itself a test",
	"postern plugin new --lang rust greet":                        "TestPluginProjects",
	"go test -run TestLanguages/rust ./sdk/conformance":           "is itself a test",
	"postern plugin new --lang zig greet":                         "TestPluginProjects",
	"go test -run TestLanguages/zig ./sdk/conformance":            "is itself a test",
	"./build example greet.wasm":                                  "TestLanguages of sdk/conformance",

	"cd examples/openai-node && npm ci":                 "TestOpenAI",
	"set -a && . ../../data/demo.env && set +a":         "TestOpenAIDemo",
	`NODE_EXTRA_CA_CERTS="$POSTERN_CA" node client.mjs`: "TestOpenAIDemo",
	"go run ./examples/sandbox -pace 0 &":               "TestSandboxReadme",
	"cd examples/openai-node && POSTERN_URL=http://127.0.0.1:9902 POSTERN_MODEL=sandbox node client.mjs calls": "TestOpenAISandbox",

	`curl -sS http://127.0.0.1:8080/`:                                                                    "TestExampleReverseProxy",
	`curl -sS -o /dev/null -w '%{http_code}\n' -X POST http://127.0.0.1:8080/login`:                      "TestExampleRateLimit",
	`curl -sS -o /dev/null -w '%{http_code} %header{retry-after}\n' http://127.0.0.1:8080/reports/today`: "TestExampleOverload",
	`mkdir -p keys`: "TestExampleMutualTLS",
	`openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj "/CN=our CA" -keyout keys/ca.key -out keys/ca.pem`:                                                                                                  "TestExampleMutualTLS",
	`openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=robot" -keyout keys/robot.key -out keys/robot.csr`:                                                                                                             "TestExampleMutualTLS",
	`openssl x509 -req -days 30 -in keys/robot.csr -CA keys/ca.pem -CAkey keys/ca.key -CAcreateserial -out keys/robot.pem`:                                                                                                                         "TestExampleMutualTLS",
	`curl -sS --cacert data/tls/ca.pem --cert keys/robot.pem --key keys/robot.key -X PUT https://localhost:8443/thing`:                                                                                                                             "TestExampleMutualTLS",
	`curl -sS -i --cacert examples/fallback/data/tls/ca.pem https://localhost:8443/v1/chat/completions -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' -d '{"model":"small","messages":[{"role":"user","content":"Hello!"}]}'`: "TestExampleFallback",

	`curl -sS -i --cacert examples/creations/data/tls/ca.pem https://localhost:8443/v1/chat/completions -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' -d '{"model":"small","stream":true, "messages":[{"role":"user","content":"Hello!"}]}'`:            "TestExampleCreations",
	`curl -sS -i --cacert examples/creations/data/tls/ca.pem https://localhost:8443/v1/chat/completions -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' -H 'Postern-Keep: none' -d '{"model":"small","messages":[{"role":"user","content":"Goodbye!"}]}'`: "TestExampleCreations",
	"bin/postern usage sums -dir examples/creations -by model -csv": "TestExampleCreations",
	"bin/postern usage verify -dir examples/creations":              "TestExampleCreations",

	`GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o examples/authorization-service/authz/authz.wasm ./examples/authorization-service/authz`: "TestExampleAuthorizationService",
	`curl -sS -H 'authorization: Bearer good' http://127.0.0.1:8080/`:                                                                                "TestExampleAuthorizationService",
	`sh .ci/tools sdk`: "make test runs it",
	`go test -v -run 'TestLanguages/./^$' ./sdk/conformance`:                                                                          "is itself a test",
	`go test -run '^$' -bench Example ./sdk/conformance`:                                                                              "is itself a benchmark",
	`asc assembly/index.ts -O3 --debug --exportStart _initialize --stackSize 16384 --use abort=../assembly/abort/abort -o greet.wasm`: "sdk/assemblyscript/build, which TestLanguages runs",
	`POSTERN_CONFORMANCE=guest.wasm POSTERN_EXAMPLE=greet.wasm go test -run TestModule ./sdk/conformance`:                             "TestModule is itself a test",
	`postern plugin test --module conformance/conformance.wasm conformance`:                                                           "TestLanguages plays the same tests over the same host",
	`GOOS=wasip1 GOARCH=wasm go build -trimpath -buildmode=c-shared -o greet.wasm .`:                                                  "TestLanguages of sdk/conformance",
	`curl -sS -i --cacert examples/browser-chat/data/tls/ca.pem https://localhost:8443/v1/chat/completions -H "authorization: Bearer $KEY" -H 'origin: https://app.example.com' -d '{"model":"small","messages":[{"role":"user","content":"Hello!"}]}'`: "TestExampleBrowserChat",

	"go run ./examples/sandbox -address 127.0.0.1:9902 -pace 20ms":                                                            "TestSandboxReadme",
	`curl http://127.0.0.1:9902/v1/chat/completions -d '{"model":"sandbox","messages":[{"role":"user","content":"Hello!"}]}'`: "TestSandboxReadme",
	"curl http://127.0.0.1:9902/sandbox/stats":                                                                                "TestSandboxReadme",
}

// commandLines are a sh block's commands: continued lines joined, comments left out.
func commandLines(text string) (list []string) {
	text = regexp.MustCompile(`\\\n\s*`).ReplaceAllString(text, "")
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " # ")
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			list = append(list, line)
		}
	}
	return list
}

// TestReadmeCommands: no document tells a reader a command that no test runs.
func TestReadmeCommands(t *testing.T) {
	t.Parallel()
	told := map[string]bool{}
	for _, file := range documents(t) {
		for _, b := range blocksOf(t, file) {
			if b.kind != "sh" {
				continue
			}
			for _, line := range commandLines(b.text) {
				told[line] = true
				if exercised[line] == "" {
					t.Errorf("%s: say in the table exercised which test runs:\n%s", b, line)
				}
			}
		}
	}
	// make run is what TestDemo runs.
	if out := shellMust(t, root(t), append(os.Environ(), "MAKEFLAGS="), "make -s -n run"); !strings.HasSuffix(out, "exec bin/demo -postern bin/postern\n") {
		t.Errorf("make run does: %s", out)
	}
	for line, test := range exercised {
		if !told[line] {
			t.Errorf("no document has this any more, which %s runs:\n%s", test, line)
		}
	}
}

// TestReadmeExamples: every hcl block of the documents loads. A block says in a first comment which file it is, as in
// "# policies/a.hcl"; one block may hold several. The named files of a document are one configuration when there is a
// config.hcl with a listener among them. What is not named, or not whole, joins the running example: it takes the place of the
// blocks of the same kind and name there, and a policy stands on a route of its own. A block with an abi is a manifest.
func TestReadmeExamples(t *testing.T) {
	t.Parallel()
	plugins(t)
	for _, file := range documents(t) {
		if file == "sdk/TESTS.md" {
			continue // in the language of plugins' tests; gateway/project/trial runs what it shows
		}
		files := map[string]string{}
		for _, b := range blocksOf(t, file) {
			if b.kind != "hcl" {
				continue
			}
			name := ""
			var parts []string
			text := map[string]string{}
			for line := range strings.Lines(b.text) {
				if m := regexp.MustCompile(`^# ([a-z0-9_/.-]+\.hcl)$`).FindStringSubmatch(strings.TrimSpace(line)); m != nil {
					name = m[1]
				}
				if !slices.Contains(parts, name) {
					parts = append(parts, name)
				}
				text[name] += line
			}
			for _, part := range parts {
				is := regexp.MustCompile(`(?m)^(abi\s*=|policy ")`).FindString(text[part])
				name := part
				switch {
				case part != "":
				case strings.HasPrefix(is, "abi"):
					name = "plugin.hcl"
				case is != "":
					name = "policies/" + path.Base(path.Dir(file)) + ".hcl"
				default:
					name = "config.hcl"
				}
				if _, diags := manifest.Parse([]byte(text[part]), name); strings.HasPrefix(is, "abi") && diags.HasErrors() {
					t.Errorf("%s: %s", b, diags)
				}
				files[name] += text[part] + "\n"
			}
		}
		if len(files) == 0 {
			continue
		}
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			dir := framed(t, files)
			_, sources, diags := config.Load(dir, config.Options{Backends: backends(), Formats: formats(), Version: version()})
			if diags.HasErrors() {
				var b strings.Builder
				if err := schema.WriteDiagnostics(&b, sources, diags, false); err != nil {
					t.Fatal(err)
				}
				t.Error(b.String())
			}
		})
	}
}

// framed writes a document's files, inside the running example where they are no configuration of their own.
func framed(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	if strings.Contains(files["config.hcl"], `listener "`) {
		return folder(t, files)
	}
	frame := map[string]string{}
	top := root(t)
	for _, pattern := range []string{"config.hcl", "policies/*.hcl"} {
		paths, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			if strings.HasSuffix(p, "_test.hcl") {
				continue // they test the example's own policies
			}
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			rel, _ := filepath.Rel(top, p)
			frame[filepath.ToSlash(rel)] = string(b)
		}
	}
	routes := ""
	named := regexp.MustCompile(`(?ms)^([a-z]+) "([^"]+)" \{$.*?^\}\n`)
	for _, text := range files {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			same := regexp.MustCompile(`(?ms)^` + m[1] + ` "` + m[2] + `" \{$.*?^\}\n`)
			for in := range frame {
				frame[in] = same.ReplaceAllString(frame[in], "")
			}
			if m[1] == "policy" {
				routes += "\nroute \"documented_" + m[2] + "\" {\n  listener = listener.public\n  match = \"POST " + strings.ReplaceAll(m[2], "_", "-") + ".example/v1/chat/completions\"\n  policies = [policy.known, policy." + m[2] + "]\n  models = [model.small]\n}\n"
			}
		}
	}
	if source := regexp.MustCompile(`source = "(plugins/greet)"`).FindStringSubmatch(files["config.hcl"]); source != nil && files["plugin.hcl"] == "" {
		frame[source[1]+"/plugin.hcl"] = read(t, "sdk/conformance/example.hcl") // the policy that every SDK shows
	}
	for name, text := range files {
		if name == "plugin.hcl" { // beside the module that the document's configuration names
			if m := regexp.MustCompile(`source = "([^"]+)"`).FindStringSubmatch(files["config.hcl"]); m != nil {
				name = m[1] + "/plugin.hcl"
			}
		}
		frame[name] += "\n" + text
	}
	frame["config.hcl"] += routes
	dir = folder(t, frame)
	entries, err := os.ReadDir(filepath.Join(top, "plugins"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "plugins"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Symlink(filepath.Join(top, "plugins", e.Name()), filepath.Join(dir, "plugins", e.Name())); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
	return dir
}

// TestReadmeLinks: what documents refer to in the repository is there.
func TestReadmeLinks(t *testing.T) {
	t.Parallel()
	top := root(t)
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	inline := regexp.MustCompile("`[^`\n]*`")
	for _, file := range documents(t) {
		b, err := os.ReadFile(filepath.Join(top, filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		text := regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(string(b), "")
		for _, m := range link.FindAllStringSubmatch(inline.ReplaceAllString(text, "x"), -1) {
			to, anchor, _ := strings.Cut(m[1], "#")
			if strings.HasPrefix(to, "https://") || strings.HasPrefix(to, "http://") {
				continue
			}
			target := file
			if to != "" {
				target = path.Join(path.Dir(file), to)
			}
			if _, err := os.Stat(filepath.Join(top, filepath.FromSlash(target))); err != nil || strings.HasPrefix(target, "..") {
				t.Errorf("%s: there is no %s", file, m[1])
			} else if anchor != "" && !slices.Contains(anchors(t, target), anchor) {
				t.Errorf("%s: %s has no heading for #%s", file, target, anchor)
			}
		}
	}
}

// anchors are the names that a document's headings are linked by.
func anchors(t *testing.T, file string) (list []string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(t), filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(b), -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		list = append(list, strings.ReplaceAll(name, " ", "-"))
	}
	return list
}

// TestReadme follows the README from the first call to the changed rule, as it is written.
func TestReadme(t *testing.T) {
	t.Parallel()
	d := demonstrate(t)
	p, n := d.serve(t)
	key := d.key(t)

	t.Run("first call", func(t *testing.T) {
		needs(t, "curl", "install curl")
		if out := d.must(t, ". data/demo.env\n"+blockWith(t, "README.md", "sh", "/openapi.json")); !strings.Contains(out, `"openapi": "3.1.0"`) || !strings.Contains(out, `"/v1/chat/completions"`) {
			t.Errorf("the OpenAPI document: %s", out)
		}
		if out := d.must(t, blockWith(t, "README.md", "sh", "$POSTERN_URL/v1/chat/completions")); !strings.Contains(out, "You said: Hello, I am jane@example.com") {
			t.Error(out)
		}
	})
	if resp, body := n.post(t, n.client(t, "http2"), "/v1/chat/completions", key, hello); resp.StatusCode != 200 {
		t.Fatalf("%s %s", resp.Status, body)
	}
	books := d.must(t, blockWith(t, "README.md", "sh", "ledger verify"))
	if !strings.Contains(books, "demo") || !strings.Contains(books, "9.99") || strings.Count(books, "it adds up") != 2 {
		t.Error(books)
	}

	done := d.must(t, blockWith(t, "README.md", "sh", "audit verify"))
	if !regexp.MustCompile(`account\.create +acct_\w+ +done`).MatchString(done) || !strings.Contains(done, "the chain holds") {
		t.Error(done)
	}

	policy := d.must(t, blockWith(t, "README.md", "sh", "privacy report"))
	for _, want := range []string{"privacy policy version 1", "upstream.sandbox receives prompt", "隐私政策", "版本 1", "不会用于训练模型"} {
		if !strings.Contains(policy, want) {
			t.Errorf("no %q in:\n%s", want, policy)
		}
	}

	// The text that the README says to change, and what it says to write.
	rules := filepath.Join(d.dir, "policies", "tenant.hcl")
	old, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	lines := blockWith(t, "README.md", "text", "burst")
	if strings.Count(string(old), lines) != 1 {
		t.Fatalf("policies/tenant.hcl does not have:\n%s", lines)
	}
	told := regexp.MustCompile("to `rate = (\"[^`]+\")` and `burst = ([0-9]+)`")
	readme, err := os.ReadFile(filepath.Join(root(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := told.FindStringSubmatch(string(readme))
	if m == nil {
		t.Fatal("the README does not say what to change the rule to")
	}
	if err := os.WriteFile(rules, []byte(strings.Replace(string(old), lines, "      rate  = "+m[1]+"\n      burst = "+m[2]+"\n", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	said := d.must(t, blockWith(t, "README.md", "sh", "bin/postern reload"))
	for _, want := range []string{"ok: 1 listener", "route.chat", "policy.tenant", "ratelimit", "model small", "applied "} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in:\n%s", want, said)
		}
	}
	limited := func() bool {
		for range 20 { // the second call of one second; a slow machine may need some more
			resp, body := n.post(t, n.client(t, "http2"), "/v1/chat/completions", key, hello)
			if resp.StatusCode == http.StatusTooManyRequests {
				if after := resp.Header.Get("Retry-After"); after != "1" || !strings.Contains(body, "rate_limit_exceeded") {
					t.Errorf("retry-after %q: %s", after, body)
				}
				return true
			}
			if resp.StatusCode != 200 {
				t.Fatalf("%s %s", resp.Status, body)
			}
		}
		return false
	}
	if !limited() {
		t.Error("the rule is not applied")
	}

	// Mistakes are told, every one, and what was in force goes on.
	broken := strings.Replace(strings.Replace(string(old), "key   = identity.account", "key   = identity.acount", 1), "status    = 403", "status    = 4030", 1)
	if err := os.WriteFile(rules, []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"validate", "reload"} {
		code, out, errs := d.shell(t, "bin/postern "+c)
		if code != 1 || out != "" || !strings.Contains(errs, "policies/tenant.hcl:14:") || !strings.Contains(errs, "policies/tenant.hcl:22:") {
			t.Errorf("%s: %d %s\n%s", c, code, out, errs)
		}
	}
	if !limited() {
		t.Error("a refused change changed something")
	}
	p.stop(t, os.Interrupt)
	d.left(t)
}

// TestSandboxReadme runs the sandbox as its README and the client's start it, and asks it what they ask.
func TestSandboxReadme(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "install curl")
	program := filepath.Join(t.TempDir(), "sandbox")
	shellMust(t, root(t), os.Environ(), "go build -o "+program+" ./examples/sandbox")
	asked := commandLines(blockWith(t, "examples/sandbox/README.md", "sh", "curl"))
	for _, file := range []string{"examples/sandbox/README.md", "examples/openai-node/README.md"} {
		line := commandLines(blockWith(t, file, "sh", "go run"))[0]
		flags, ok := strings.CutPrefix(strings.TrimSuffix(line, " &"), "go run ./examples/sandbox ")
		if !ok {
			t.Fatalf("%s: %s", file, line)
		}
		address := freePort(t)
		if strings.Contains(flags, "-address") {
			flags = strings.Replace(flags, "127.0.0.1:9902", address, 1)
		} else {
			flags += " -address " + address
		}
		p := launch(t, root(t), os.Environ(), program, strings.Fields(flags)...)
		eventually(t, "http://"+address+"/")
		said := ""
		for _, ask := range asked {
			said += shellMust(t, root(t), append(os.Environ(), "no_proxy=*"), strings.Replace(ask, "127.0.0.1:9902", address, 1))
		}
		if !strings.Contains(said, "You said: Hello!") || !strings.Contains(said, `"served":1`) {
			t.Errorf("%s: %s", line, said)
		}
		p.stop(t, os.Interrupt)
	}
}

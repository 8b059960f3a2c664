package main

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

const module = "github.com/postern-gateway/postern"

// layers is the house from the roof down: a package may import packages of lower rows only, never of its own row. A
// row names folders; "x/*" stands for every folder directly below x.
var layers = [][]string{
	{"gateway", "gateway/bench", "gateway/conformance", "gateway/bench/plain", "sdk/conformance", "sdk/plugintest/compile", "sdk/go/example", "sdk/go/conformance", "examples/*", "examples/sandbox/*", "examples/authorization-service/*", "plugins/*"},
	{"gateway/console", "gateway/operator"},
	{"gateway/admin", "gateway/project", "sdk/plugintest", "plugins/redact/placeholder"},
	{"gateway/server", "gateway/fleet", "gateway/project/trial", "plugins/redact/detect"},
	{"gateway/policy", "gateway/holder", "gateway/opendsr", "gateway/explain", "gateway/project/world", "gateway/proxy", "gateway/plugin/abi1", "gateway/plugin/proxywasm"},
	{"gateway/reception"},
	{"gateway/upstream", "gateway/plugin", "gateway/fetch", "gateway/ledger", "gateway/replay", "gateway/usage", "gateway/creation", "gateway/account", "gateway/person", "gateway/rights", "gateway/listener", "gateway/console/openapi", "gateway/console/history"},
	{"gateway/plugin/code", "gateway/plugin/shared", "gateway/desync", "gateway/person/session", "gateway/person/team"},
	{"gateway/config", "gateway/ledger/record", "gateway/carrier", "gateway/provider/openai", "gateway/provider/providertest"},
	{"gateway/person/settings"},
	{"gateway/notation", "gateway/vault", "gateway/audit", "gateway/desync/origin", "gateway/privacy/notice", "gateway/console/site"},
	{"gateway/variable", "gateway/plugin/bundle", "gateway/privacy"},
	{"sdk/go", "gateway/plugin/admission", "gateway/plugin/wasmtest", "gateway/expr", "gateway/schema", "gateway/provider", "gateway/http1", "gateway/http2", "gateway/handler", "gateway/certificate", "gateway/pool", "gateway/overload", "gateway/mail", "gateway/person/password", "gateway/person/throttle", "gateway/person/token", "gateway/person/factor", "gateway/state/badger", "gateway/state/memory", "gateway/state/statetest"},
	{"gateway/route", "gateway/caller", "gateway/manifest", "gateway/plugin/body", "gateway/attribute", "gateway/fetch/origin", "gateway/http1/client"},
	{"sdk", "sdk/abi", "sdk/go/json", "sdk/go/field", "gateway/plugin/lines", "gateway/exchange", "gateway/eventstream", "gateway/deadline", "gateway/picture", "gateway/secret", "gateway/state", "gateway/telemetry", "gateway/privacy/field", "gateway/bench/wire", "gateway/bench/peer", "gateway/bench/record", "gateway/console/words", "gateway/console/chart"},
}

// reasons is every direct dependency with the one reason it is there.
var reasons = map[string]string{
	"github.com/agext/levenshtein":                                    "Did you mean: the edit distance HCL's own messages use",
	"github.com/alecthomas/kong":                                      "the command line as structs, one a subcommand",
	"github.com/c2sp/wycheproof":                                      "vectors of signatures and keys that a token plugin must refuse, for its tests",
	"github.com/chromedp/cdproto":                                     "the commands and events of a browser under test",
	"github.com/chromedp/chromedp":                                    "drives Chromium through the console, for the tests",
	"github.com/coder/websocket":                                      "a real WebSocket client and server for the tests",
	"github.com/dgraph-io/badger/v4":                                  "the embedded store",
	"github.com/go-webauthn/webauthn":                                 "passkeys: WebAuthn's ceremonies and formats",
	"github.com/google/go-cmp":                                        "readable differences in tests",
	"github.com/hashicorp/go-version":                                 "the gateway block's version constraint, as in Terraform",
	"github.com/hashicorp/hcl/v2":                                     "the language's syntax, positions and diagnostics",
	"github.com/pquerna/otp":                                          "codes of authenticator apps, and their QR codes",
	"github.com/prometheus/client_golang":                             "metrics in the format every operator scrapes",
	"github.com/quic-go/qpack":                                        "writes heads of HTTP/3 that no client would, to see them refused",
	"github.com/quic-go/quic-go":                                      "QUIC and HTTP/3",
	"github.com/tetratelabs/wazero":                                   "the WebAssembly runtime, without cgo",
	"github.com/tiktoken-go/tokenizer":                                "counts tokens where a provider reports none; vocabularies embedded",
	"github.com/wneessen/go-mail":                                     "messages by RFC 5322 and MIME, and SMTP with STARTTLS and authentication",
	"github.com/zclconf/go-cty":                                       "HCL's values",
	"go.opentelemetry.io/otel":                                        "trace context and spans",
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp": "sends spans where operators collect them",
	"go.opentelemetry.io/otel/sdk":                                    "samples and batches spans",
	"go.opentelemetry.io/otel/trace":                                  "the span interface",
	"golang.org/x/crypto":                                             "XChaCha20-Poly1305, which seals what is kept, and argon2id for people's passwords",
	"golang.org/x/mod":                                                "reads go.mod in the rules test",
	"golang.org/x/net":                                                "HPACK, and header rules; a second HTTP/2 client for tests",
	"golang.org/x/text":                                               "the one form of a password that keyboards write in several, and which language a reader asks for",
	"golang.org/x/tools":                                              "txtar golden files",
	"google.golang.org/protobuf":                                      "reads the messages of the RPC suite's programs",
	"google.golang.org/grpc":                                          "a real gRPC client and server for the tests",
}

// notGo are folders of the tree that hold no Go package of ours.
var notGo = []string{".git", "node_modules", "data", "bin", "testdata"}

type pkg struct {
	dir   string // relative to the root, with slashes
	files map[string]*ast.File
	lines int
}

func packages(t *testing.T) (root string, list []*pkg, set *token.FileSet) {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	set = token.NewFileSet()
	byDir := map[string]*pkg{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains(notGo, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(set, path, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(rel)
		p := byDir[dir]
		if p == nil {
			p = &pkg{dir: dir, files: map[string]*ast.File{}}
			byDir[dir] = p
			list = append(list, p)
		}
		p.files[path] = file
		p.lines += bytes.Count(src, []byte("\n"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 20 {
		t.Fatalf("found %d packages below %s: the walk is broken", len(list), root)
	}
	return root, list, set
}

func layerOf(dir string) (int, bool) {
	for i, row := range layers {
		for _, name := range row {
			if name == dir {
				return i, true
			}
			if parent, ok := strings.CutSuffix(name, "/*"); ok && filepath.ToSlash(filepath.Dir(dir)) == parent {
				return i, true
			}
		}
	}
	return 0, false
}

func TestImportsPointDown(t *testing.T) {
	_, list, set := packages(t)
	for _, p := range list {
		from, ok := layerOf(p.dir)
		if !ok {
			t.Errorf("%s is in no layer: add it to the table, at the height its imports allow", p.dir)
			continue
		}
		for _, f := range p.files {
			for _, imp := range f.Imports {
				path := strings.Trim(imp.Path.Value, `"`)
				dir, ours := strings.CutPrefix(path, module+"/")
				if !ours {
					continue
				}
				to, ok := layerOf(dir)
				below := ok && to > from
				// A scenario and a plugin may use their own parts.
				own := whole(dir) != "" && whole(dir) == whole(p.dir)
				if !below && !own {
					t.Errorf("%s: %s imports %s, which is not below it", set.Position(imp.Pos()), p.dir, dir)
				}
			}
		}
	}
}

// whole is the scenario or plugin that a folder is part of: "plugins/redact" for "plugins/redact/detect".
func whole(dir string) string {
	parts := strings.SplitN(dir, "/", 3)
	if len(parts) < 2 || parts[0] != "examples" && parts[0] != "plugins" {
		return ""
	}
	return parts[0] + "/" + parts[1]
}

// TestUnracedShareNothing: what the Makefile tests without the race detector has nothing to race: no goroutines, channels or locks.
func TestUnracedShareNothing(t *testing.T) {
	root, list, set := packages(t)
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^UNRACED := (.*)$`).FindSubmatch(text)
	if line == nil {
		t.Fatal("the Makefile has no UNRACED")
	}
	for _, dir := range strings.Fields(string(line[1])) {
		i := slices.IndexFunc(list, func(p *pkg) bool { return p.dir == dir })
		if i < 0 {
			t.Errorf("the Makefile names %s, which there is not", dir)
			continue
		}
		for _, f := range list[i].files {
			for _, imp := range f.Imports {
				if path := strings.Trim(imp.Path.Value, `"`); path == "sync" || path == "sync/atomic" {
					t.Errorf("%s: %s is tested without the race detector", set.Position(imp.Pos()), dir)
				}
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n.(type) {
				case *ast.GoStmt, *ast.ChanType, *ast.SelectStmt:
					t.Errorf("%s: %s is tested without the race detector", set.Position(n.Pos()), dir)
				}
				return true
			})
		}
	}
}

func TestPackages(t *testing.T) {
	_, list, _ := packages(t)
	banned := []string{"util", "utils", "common", "helper", "helpers", "misc", "types", "base", "core"}
	for _, p := range list {
		if p.lines > 2000 {
			t.Errorf("%s has %d lines; more than 2,000 are two packages", p.dir, p.lines)
		}
		if slices.Contains(banned, filepath.Base(p.dir)) {
			t.Errorf("%s says nothing about what is in it", p.dir)
		}
		var doc string
		for _, f := range p.files {
			if f.Doc != nil {
				doc += f.Doc.Text()
			}
		}
		if doc == "" {
			t.Errorf("%s has no package comment", p.dir)
			continue
		}
		main := regexp.MustCompile(`main type is ([A-Z]\w*)`).FindStringSubmatch(doc)
		isMain := false
		for _, f := range p.files {
			isMain = isMain || f.Name.Name == "main"
		}
		switch {
		case isMain:
		case main == nil:
			t.Errorf("%s: the package comment does not name its main type (\"main type is X\")", p.dir)
		case !declares(p, main[1]):
			t.Errorf("%s: the package comment names %s, which is not declared there", p.dir, main[1])
		}
	}
}

func declares(p *pkg, name string) bool {
	for _, f := range p.files {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if ts, ok := s.(*ast.TypeSpec); ok && ts.Name.Name == name {
						return true
					}
				}
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == name {
					return true
				}
			}
		}
	}
	return false
}

// TestNoHiddenState finds init functions, blank imports and package variables that code assigns to.
func TestNoHiddenState(t *testing.T) {
	_, list, set := packages(t)
	for _, p := range list {
		vars := map[string]token.Pos{}
		for _, f := range p.files {
			for _, imp := range f.Imports {
				path := strings.Trim(imp.Path.Value, `"`)
				if imp.Name != nil && imp.Name.Name == "_" && path != "embed" && path != "unsafe" {
					t.Errorf("%s: blank import of %s", set.Position(imp.Pos()), path)
				}
			}
			for _, d := range f.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Recv == nil && d.Name.Name == "init" {
						t.Errorf("%s: init function", set.Position(d.Pos()))
					}
				case *ast.GenDecl:
					if d.Tok != token.VAR {
						continue
					}
					for _, s := range d.Specs {
						for _, n := range s.(*ast.ValueSpec).Names {
							if n.Name != "_" {
								vars[n.Name] = n.Pos()
							}
						}
					}
				}
			}
		}
		for _, f := range p.files {
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || fn.Body == nil {
					continue
				}
				local := locals(fn)
				ast.Inspect(fn.Body, func(n ast.Node) bool {
					var targets []ast.Expr
					switch n := n.(type) {
					case *ast.AssignStmt:
						if n.Tok != token.DEFINE {
							targets = n.Lhs
						}
					case *ast.IncDecStmt:
						targets = []ast.Expr{n.X}
					}
					for _, e := range targets {
						name := leftmost(e)
						if pos, ok := vars[name]; ok && !local[name] {
							t.Errorf("%s: package variable %s is changed at %s", set.Position(pos), name, set.Position(n.Pos()))
						}
					}
					return true
				})
			}
		}
	}
}

// leftmost is the identifier at the left end of a selector or index chain.
func leftmost(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x.Name
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return ""
		}
	}
}

// locals are the names a function declares itself, which may shadow package variables.
func locals(fn *ast.FuncDecl) map[string]bool {
	names := map[string]bool{}
	add := func(list *ast.FieldList) {
		if list == nil {
			return
		}
		for _, f := range list.List {
			for _, n := range f.Names {
				names[n.Name] = true
			}
		}
	}
	add(fn.Recv)
	add(fn.Type.Params)
	add(fn.Type.Results)
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, e := range n.Lhs {
					names[leftmost(e)] = true
				}
			}
		case *ast.RangeStmt:
			if n.Tok == token.DEFINE {
				for _, e := range []ast.Expr{n.Key, n.Value} {
					if e != nil {
						names[leftmost(e)] = true
					}
				}
			}
		case *ast.ValueSpec:
			for _, id := range n.Names {
				names[id.Name] = true
			}
		case *ast.FuncLit:
			add(n.Type.Params)
			add(n.Type.Results)
		}
		return true
	})
	return names
}

func TestInterfacesAreSmall(t *testing.T) {
	_, list, set := packages(t)
	// What an implementation of these must do is one whole, proven by a conformance suite.
	whole := []string{"gateway/state.Store", "gateway/provider.Format", "gateway/exchange.Reply"}
	for _, p := range list {
		for _, f := range p.files {
			for _, d := range f.Decls {
				gen, ok := d.(*ast.GenDecl)
				if !ok {
					continue
				}
				for _, s := range gen.Specs {
					ts, ok := s.(*ast.TypeSpec)
					if !ok {
						continue
					}
					it, ok := ts.Type.(*ast.InterfaceType)
					if ok && len(it.Methods.List) > 6 && !slices.Contains(whole, p.dir+"."+ts.Name.Name) {
						t.Errorf("%s: interface %s has %d methods; at most 6", set.Position(ts.Pos()), ts.Name.Name, len(it.Methods.List))
					}
				}
			}
		}
	}
}

func TestExportedThingsAreDocumented(t *testing.T) {
	_, list, set := packages(t)
	for _, p := range list {
		for _, f := range p.files {
			for _, d := range f.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) {
						t.Errorf("%s: %s has no comment", set.Position(d.Pos()), d.Name.Name)
					}
				case *ast.GenDecl:
					for _, s := range d.Specs {
						if ts, ok := s.(*ast.TypeSpec); ok && ts.Name.IsExported() && d.Doc == nil && ts.Doc == nil && ts.Comment == nil {
							t.Errorf("%s: type %s has no comment", set.Position(ts.Pos()), ts.Name.Name)
						}
					}
				}
			}
		}
	}
}

func exportedReceiver(d *ast.FuncDecl) bool {
	return d.Recv == nil || len(d.Recv.List) == 1 && ast.IsExported(leftmost(d.Recv.List[0].Type))
}

func TestDirectDependenciesHaveReasons(t *testing.T) {
	src, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := modfile.Parse("go.mod", src, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(mod.Replace) > 0 {
		t.Error("go.mod has a replace directive")
	}
	seen := map[string]bool{}
	for _, r := range mod.Require {
		if r.Indirect {
			continue
		}
		seen[r.Mod.Path] = true
		if reasons[r.Mod.Path] == "" {
			t.Errorf("%s is required without a reason", r.Mod.Path)
		}
	}
	for path := range reasons {
		if !seen[path] {
			t.Errorf("%s has a reason and is not required", path)
		}
	}
}

// TestTree keeps the top level fixed and foreign things out of the tree.
func TestTree(t *testing.T) {
	out, err := exec.Command("git", "-C", "..", "ls-files", "-z").Output()
	if err != nil {
		t.Skip("not a git checkout: the tree's files can not be listed")
	}
	top := []string{"gateway", "plugins", "sdk", "policies", "examples", "config.hcl", "go.mod", "go.sum", "README.md", "Makefile", ".ci"}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		first, _, _ := strings.Cut(name, "/")
		if !slices.Contains(top, first) && (!strings.HasPrefix(first, ".") || first != name) {
			t.Errorf("%s: the top level is fixed", name)
		}
		if slices.Contains([]string{".wasm", ".exe", ".so", ".zip", ".gz"}, filepath.Ext(name)) {
			t.Errorf("%s: binaries are built, not committed", name)
		}
	}
}

// TestPluginFolders: every plugin has the same files, so that whoever knows one finds his way in all.
func TestPluginFolders(t *testing.T) {
	dirs, err := filepath.Glob("../plugins/*")
	if err != nil || len(dirs) == 0 {
		t.Fatal("no plugins found", err)
	}
	for _, dir := range dirs {
		for _, name := range []string{"main.go", "main_test.go", "plugin.hcl", "README.md", "testdata"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Errorf("%s has no %s", filepath.Base(dir), name)
			}
		}
	}
}

// TestSpeaksOfPosternAlone keeps machine paths and registry hosts out of what is published.
func TestSpeaksOfPosternAlone(t *testing.T) {
	out, err := exec.Command("git", "-C", "..", "ls-files", "-z").Output()
	if err != nil {
		t.Skip("not a git checkout: the tree's files can not be listed")
	}
	banned := regexp.MustCompile(`/work/(main|shared|\.)|/root/|proxy\.golang\.org|registry\.npmjs\.org|deb\.debian\.org|files\.pythonhosted\.org|static\.crates\.io`)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if name == "gateway/rules_test.go" {
			continue
		}
		f, err := os.Open(filepath.Join("..", name))
		if err != nil {
			continue // deleted in the work tree
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 8<<20)
		for n := 1; lines.Scan(); n++ {
			if m := banned.Find(lines.Bytes()); m != nil {
				t.Errorf("%s:%d: %s", name, n, m)
			}
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

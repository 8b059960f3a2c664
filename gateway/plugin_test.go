package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/sdk"
	"github.com/postern-gateway/postern/sdk/conformance"
)

// TestPluginProjects: for every language, a new project outside the repository builds, passes its test, is measured and is served,
// by the commands in its own README; and what is served follows its source.
func TestPluginProjects(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	programs(t, home)
	postern := filepath.Join(home, "bin", "postern")
	environment := append(os.Environ(), "GOWORK=off", "GOFLAGS=", "PATH="+filepath.Join(home, "bin")+":"+filepath.Join(root(t), "bin", "tools")+":"+os.Getenv("PATH"))
	for _, l := range sdk.Languages() {
		t.Run(l.Name, func(t *testing.T) {
			t.Parallel()
			dir, name := t.TempDir(), "my-"+l.Name
			warm := func(string) {}
			if l.Name == "rust" {
				dir, warm = rustFolder(t, name)
			}
			shellMust(t, dir, environment, postern+" plugin new --lang "+l.Name+" "+name)
			dir = filepath.Join(dir, name)
			warm(dir)
			readme := readText(t, filepath.Join(dir, "README.md"))
			told := 0
			for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(readme, -1) {
				for _, line := range commandLines(m[1]) {
					told++
					if strings.HasPrefix(line, "postern plugin run ") {
						servesProject(t, dir, environment, l, line)
						continue
					}
					code, out, said := shell(t, dir, environment, line)
					if code != 0 && strings.Contains(said, "missing toolchain") {
						conformance.Missing(t, strings.TrimSpace(said))
					}
					want := map[string]string{
						"postern plugin build": name + ".wasm: ", "postern plugin test": "4 passed, 0 failed", "postern plugin bench": "REQUEST at request",
					}[line]
					if code != 0 || want == "" || !strings.Contains(out, want) {
						t.Fatalf("%s: exit code %d\n%s%s", line, code, out, said)
					}
				}
			}
			if told != 4 {
				t.Errorf("the README has %d commands:\n%s", told, readme)
			}
			// The module holds its manifest, so it is all that a gateway needs, as the README says.
			if out := shellMust(t, dir, environment, "postern plugin inspect "+name+".wasm"); !strings.Contains(out, "a gateway takes it") || !strings.Contains(out, "packed into the module") {
				t.Error(out)
			}
			usedAsTold(t, dir, name, environment, readme)
		})
	}
}

// rustFolder is a folder that stays between runs, since in another one a new project has the standard library compiled anew, which
// takes a minute. Nothing of an earlier project is left in it but that, which warm gives to the new one.
func rustFolder(t *testing.T, name string) (dir string, warm func(project string)) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil || os.Getenv("CI") == "true" {
		return t.TempDir(), func(string) {}
	}
	dir = filepath.Join(cache, "postern", "projects")
	kept := filepath.Join(dir, "kept")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	move := func(from, to string) {
		if err := os.Rename(from, to); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
			t.Log(err)
		}
	}
	move(filepath.Join(dir, name, "postern", "target"), kept)
	if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	return dir, func(project string) { move(kept, filepath.Join(project, "postern", "target")) }
}

func readText(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// servesProject runs what the README says, calls it, changes the source, and waits until what is served has changed.
func servesProject(t *testing.T, dir string, environment []string, l sdk.Language, line string) {
	t.Helper()
	listen := freePort(t)
	const upstream = "http://127.0.0.1:9000"
	if !strings.Contains(line, upstream) {
		t.Fatalf("%s: the address has changed", line)
	}
	arguments := strings.Fields(strings.Replace(line, upstream, echo(t).URL, 1))
	p := launch(t, dir, environment, "sh", "-c", "exec "+strings.Join(arguments, " ")+" --watch 50ms --listen "+listen)
	served := func(want string) {
		t.Helper()
		deadline := time.Now().Add(2 * time.Minute)
		for {
			got, err := greeted("http://" + listen + "/")
			if err == nil && strings.Contains(got, want) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: got %q (%v), want %q; it wrote:\n%s", line, got, err, want, p.out.String())
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	served("x-greeting: Good day, Ada\n")
	source := filepath.Join(dir, filepath.FromSlash(l.Source))
	whole := readText(t, source)
	// A mistake is told, and what was served goes on.
	writeFile(t, source, "this is no "+l.Title+"\n"+whole)
	deadline := time.Now().Add(2 * time.Minute)
	for !strings.Contains(p.out.String(), "the compiler failed") {
		if time.Now().After(deadline) {
			t.Fatalf("a mistake in %s is not told:\n%s", l.Source, p.out.String())
		}
		time.Sleep(50 * time.Millisecond)
	}
	served("x-greeting: Good day, Ada\n")
	writeFile(t, source, strings.Replace(whole, `x-greeting`, `x-times`, 1))
	served("x-times: Good day, Ada\n")
	p.stop(t, os.Interrupt)
	writeFile(t, source, whole)
}

// greeted is what the server behind a project got, called by Ada.
func greeted(url string) (string, error) {
	r, err := http.NewRequest(http.MethodGet, url, nil) //nolint:noctx // the client has a timeout
	if err != nil {
		return "", err
	}
	r.Header.Set("X-Name", "Ada")
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(r)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(resp.Body)
	return string(b), errors.Join(err, resp.Body.Close())
}

// usedAsTold puts the module into a gateway's folder as the README's last lines say.
func usedAsTold(t *testing.T, dir, name string, environment []string, readme string) {
	t.Helper()
	gateway := t.TempDir()
	block := regexp.MustCompile("(?s)```hcl\n(.*?)```").FindStringSubmatch(readme)
	if block == nil {
		t.Fatal("the README does not say how the plugin is used")
	}
	writeFile(t, filepath.Join(gateway, "config.hcl"), fmt.Sprintf("state \"memory\" {}\n\n%s\nlistener \"public\" {\n  address = %q\n  protocols = [http1]\n}\n\n"+
		"route \"all\" {\n  listener = listener.public\n  match = \"/\"\n  policies = [policy.%s]\n\n  respond {\n    status = 204\n  }\n}\n", block[1], freePort(t), name))
	writeFile(t, filepath.Join(gateway, "policies", "policy.hcl"), readText(t, filepath.Join(dir, "policy.hcl")))
	writeFile(t, filepath.Join(gateway, "plugins", name+".wasm"), readText(t, filepath.Join(dir, name+".wasm")))
	if out := shellMust(t, gateway, environment, "postern validate"); out != "ok: 1 listener, 1 route, 1 policy, 1 plugin\n" {
		t.Error(out)
	}
}

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestDesignNamesEveryPackage: the table of packages in DESIGN.md is the tree.
func TestDesignNamesEveryPackage(t *testing.T) {
	t.Parallel()
	text := read(t, "gateway/DESIGN.md")
	var have []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9/]+)` \\| .+ \\|$").FindAllStringSubmatch(text, -1) {
		have = append(have, m[1])
	}
	_, list, _ := packages(t)
	for _, p := range list {
		top, _, _ := strings.Cut(p.dir, "/")
		if !slices.Contains([]string{"gateway", "sdk", "plugins"}, top) {
			continue
		}
		if !slices.Contains(have, p.dir) {
			t.Errorf("gateway/DESIGN.md does not say what is in %s", p.dir)
		}
		have = slices.DeleteFunc(have, func(name string) bool { return name == p.dir })
	}
	for _, name := range have {
		t.Errorf("gateway/DESIGN.md tells of %s, which is not there", name)
	}
}

// TestReadmeTables: the README has every metric, every call of the admin API and every field of the access log, and no others.
func TestReadmeTables(t *testing.T) {
	t.Parallel()
	readme := read(t, "README.md")
	for _, c := range []struct{ name, files, code, told string }{
		{"metric", "gateway/telemetry/metrics.go gateway/telemetry/plugins.go gateway/telemetry/overload.go", `"(postern_\w+)"`, "`(postern_\\w+)`"},
		{"call", "gateway/admin/admin.go", `"((?:GET|POST|DELETE) /v1[^"]*)":`, "`((?:GET|POST|DELETE) /v1[^`]*)`"},
	} {
		find := func(text, pattern string) (list []string) {
			for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
				list = append(list, m[1])
			}
			slices.Sort(list)
			return slices.Compact(list)
		}
		code := ""
		for _, file := range strings.Fields(c.files) {
			code += read(t, file)
		}
		has, told := find(code, c.code), find(readme, c.told)
		if len(has) == 0 {
			t.Fatalf("%s: found none", c.files)
		}
		for _, name := range has {
			if !slices.Contains(told, name) {
				t.Errorf("README.md does not tell of the %s %s", c.name, name)
			}
		}
		for _, name := range told {
			if !slices.Contains(has, name) {
				t.Errorf("README.md tells of the %s %s, which is not there", c.name, name)
			}
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(t), filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestOperate does what the README's section Operate says: the calls, the log's fields, the files, the backup.
func TestOperate(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "install curl")
	readme := read(t, "README.md")
	d := demonstrate(t)
	p, n := d.serve(t)
	if resp, body := n.post(t, n.client(t, "http2"), "/v1/chat/completions", d.key(t), hello); resp.StatusCode != 200 {
		t.Fatal(resp.Status, body)
	}
	commands := commandLines(blockWith(t, "README.md", "sh", "$POSTERN_ADMIN/ready"))
	ask := func(i int) string { return d.must(t, ". data/demo.env\n"+commands[i]) }
	if out := ask(0); !strings.Contains(out, `"ready"`) {
		t.Error(out)
	}
	var status struct{ Node, Config string }
	if err := json.Unmarshal([]byte(ask(1)), &status); err != nil || status.Node != "edge-1" || len(status.Config) != 64 {
		t.Errorf("%v %+v", err, status)
	}
	if out := ask(2); !strings.Contains(out, `postern_requests_total{listener="public",protocol="http2",route="chat",status="2xx"} 1`) {
		t.Error(out)
	}
	p.stop(t, syscall.SIGTERM)

	line := regexp.MustCompile(`msg=exchange (.*route=chat.*)`).FindStringSubmatch(p.out.String())
	if line == nil {
		t.Fatalf("no access log line in:\n%s", p.out.String())
	}
	for _, m := range regexp.MustCompile(`(\w+)=`).FindAllStringSubmatch(line[1], -1) {
		if !strings.Contains(readme, "`"+m[1]+"`") {
			t.Errorf("README.md does not tell of the log's field %s", m[1])
		}
	}
	for _, text := range []string{"msg=starting", "msg=serving", "msg=stopping", "msg=stopped"} {
		if !strings.Contains(p.out.String(), text) {
			t.Errorf("no %s in:\n%s", text, p.out.String())
		}
	}

	entries, err := os.ReadDir(filepath.Join(d.dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := strings.TrimSuffix(e.Name()+"/", "/"); name != "demo.env" && !strings.Contains(readme, "`"+name+"`") && !strings.Contains(readme, "`"+name+"/`") {
			t.Errorf("README.md does not tell what data/%s is", name)
		}
	}
	before := d.balance(t)
	d.must(t, "cp -a data backup && rm -rf data/store && cp -a backup/store data/store")
	if after := d.balance(t); after != before {
		t.Errorf("the balance was %s and is %s in the copy", before, after)
	}
	if out := d.must(t, "bin/postern ledger verify"); !strings.Contains(out, "it adds up") {
		t.Error(out)
	}
}

// TestReadmeKeys does what the README's section about keys says.
func TestReadmeKeys(t *testing.T) {
	t.Parallel()
	d := demonstrate(t)
	first, second := blockWith(t, "README.md", "sh", "account key create"), blockWith(t, "README.md", "sh", "account key rotate")
	out := strings.Split(strings.TrimSpace(d.must(t, first)), "\n")
	if len(out) != 4 || out[0] != "credited 20.00, balance 20.00" || !strings.HasPrefix(out[1], "pstn_") || !regexp.MustCompile(`ci .* small .* chat,models .* 10\.0\.0\.0/8 .* 5\.00/day .* 60/minute `).MatchString(out[3]) {
		t.Fatalf("%q", out)
	}
	account := `account=$(bin/postern account list -json | grep -B1 '"name": "Acme Ltd"' | grep -o 'acct_[a-z0-9]*')` + "\n"
	out = strings.Split(strings.TrimSpace(d.must(t, account+second)), "\n")
	if len(out) != 3 || !strings.HasPrefix(out[0], "changed key_") || !strings.HasPrefix(out[1], "pstn_") || out[2] != strings.Replace(out[0], "changed", "revoked", 1) {
		t.Fatalf("%q", out)
	}
	list := d.must(t, account+`bin/postern account key list "$account"`)
	if !regexp.MustCompile(`ci, east .* all .* 50\.00/month .* - `).MatchString(list) || strings.Contains(list, "pstn_") {
		t.Error(list)
	}
}

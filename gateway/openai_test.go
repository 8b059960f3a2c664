package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-gateway/postern/examples/sandbox/sandbox"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// openAI installs OpenAI's client once and returns the folder that has its node_modules. It is kept in bin/npm by the lock
// file's hash: only the first run loads anything.
var openAI = sync.OnceValues(func() (dir string, err error) {
	example, err := filepath.Abs(filepath.Join("..", "examples", "openai-node"))
	if err != nil {
		return "", err
	}
	lock, err := os.ReadFile(filepath.Join(example, "package-lock.json"))
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(lock)
	all := filepath.Join("..", "bin", "npm")
	if dir, err = filepath.Abs(filepath.Join(all, hex.EncodeToString(sum[:8]))); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(all, 0o750); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(all, "work-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	for _, name := range []string{"package.json", "package-lock.json"} {
		b, err := os.ReadFile(filepath.Join(example, name))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(work, name), b, 0o600); err != nil {
			return "", err
		}
	}
	cmd := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	if err := os.Rename(work, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // no other run was faster
			return "", err
		}
	}
	return dir, nil
})

// placeOpenAI copies examples/openai-node into dir, with OpenAI's client installed.
func placeOpenAI(t *testing.T, dir string) {
	t.Helper()
	const hint = "install Node.js 20 or later with npm, such as the packages nodejs and npm"
	needs(t, "node", hint)
	needs(t, "npm", hint)
	kept, err := openAI()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("OpenAI's client can not be installed: %v", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"package.json", "client.mjs"} {
		b, err := os.ReadFile(filepath.Join(root(t), "examples", "openai-node", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(kept, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
}

// clientReport is what client.mjs prints.
type clientReport struct {
	Calls []struct {
		Name     string
		Units    map[string]int64
		Inferred bool
	}
	Totals map[string]int64
	Errors map[string]struct {
		Class      string
		Status     int
		Code       string
		Param      *string
		Message    string
		RetryAfter *string `json:"retry_after"`
	}
	Failures []struct {
		Check string
		Got   json.RawMessage
	}
	Models  []string
	Receipt string `json:"receipt_header"`
}

// runOpenAI runs client.mjs, which has to be content with everything.
func runOpenAI(t *testing.T, dir string, environment []string, parts ...string) (report clientReport) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", append([]string{"client.mjs"}, parts...)...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = dir, &out, &errs, 10*time.Second
	cmd.Env = append(os.Environ(), environment...)
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatalf("%v in %q\n%s", err, out.String(), errs.String())
	}
	for _, f := range report.Failures {
		t.Errorf("%s: %s", f.Check, f.Got)
	}
	if err != nil {
		t.Errorf("client.mjs: %v\n%s", err, errs.String())
	}
	return report
}

// units names what was counted.
func units(u exchange.Usage) map[string]int64 {
	out := map[string]int64{}
	for unit, n := range u.Units {
		if n != 0 {
			out[exchange.Unit(unit).String()] = n
		}
	}
	return out
}

func withoutZeros(in map[string]int64) map[string]int64 {
	out := map[string]int64{}
	for unit, n := range in {
		if n != 0 {
			out[unit] = n
		}
	}
	return out
}

// charged lists what an account's charges counted, in order, and checks that nothing is held.
func (n *node) charged(t *testing.T, id string) (list []map[string]int64) {
	t.Helper()
	for e, err := range n.Storage().Ledger.Entries(t.Context(), id, 0, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Model == "" {
			continue
		}
		if e.Usage.Estimated || e.Amount.Sign() <= 0 {
			t.Errorf("entry %d: %s for %v, estimated %v", e.Seq, e.Amount, units(e.Usage), e.Usage.Estimated)
		}
		list = append(list, units(e.Usage))
	}
	b, err := n.Storage().Ledger.Balance(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if b.Held.Sign() != 0 {
		t.Errorf("%s of %s is still held", b.Held, id)
	}
	return list
}

// TestOpenAI: OpenAI's own client is content with every call and every refusal, and what it was told to have used is what
// the ledger charged, call by call.
func TestOpenAI(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	placeOpenAI(t, dir)
	config, err := os.ReadFile(filepath.Join(root(t), "config.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	work := workdir(t, map[string]string{
		// Callers with the scope slow have a small limit besides. It stands behind the hold: a refusal has to release it.
		"policies/slow.hcl": `policy "slow" {
  admit "ratelimit" {
    when = contains(identity.scopes, "slow")

    config {
      key   = identity.account
      rate  = "1/h"
      burst = 3
    }
  }
}
`,
	})
	with := strings.ReplaceAll(string(config), "policies = [policy.tenant, policy.no_pii]", "policies = [policy.tenant, policy.slow, policy.no_pii]")
	if with == string(config) {
		t.Fatal("config.hcl has changed")
	}
	if err := os.WriteFile(filepath.Join(work, "config.hcl"), []byte(with), 0o600); err != nil {
		t.Fatal(err)
	}
	n := startIn(t, work)
	rich, richKey := n.customer(t, "10")
	poor, poorKey := n.customer(t, "0")
	limited, limitedKey := n.customer(t, "10", "models:call", "slow")
	report := runOpenAI(t, dir, []string{
		"NODE_EXTRA_CA_CERTS=" + n.ca, "POSTERN_URL=" + n.url, "POSTERN_KEY=" + richKey, "POSTERN_POOR_KEY=" + poorKey,
		"POSTERN_LIMITED_KEY=" + limitedKey,
	})

	told := map[string][]map[string]int64{rich: nil, poor: nil, limited: nil}
	for _, c := range report.Calls {
		id := rich
		if c.Name == "chat below the limit" {
			id = limited
		}
		told[id] = append(told[id], withoutZeros(c.Units))
	}
	totals := map[string]int64{}
	for id, calls := range told {
		list := n.charged(t, id)
		if diff := cmp.Diff(calls, list); diff != "" {
			t.Errorf("told (-) and charged (+) to %s:\n%s", id, diff)
		}
		for _, units := range list {
			for unit, count := range units {
				totals[unit] += count
			}
		}
	}
	if diff := cmp.Diff(withoutZeros(report.Totals), totals); diff != "" {
		t.Errorf("told (-) and charged (+) in all:\n%s", diff)
	}
	if len(told[rich]) < 10 || len(told[limited]) != 3 {
		t.Errorf("%d and %d calls", len(told[rich]), len(told[limited]))
	}
	if !slices.Equal(report.Models, []string{"small", "large", "embedding"}) || report.Receipt == "" {
		t.Errorf("models %v, receipt %q", report.Models, report.Receipt)
	}
	for name, want := range map[string]struct {
		class  string
		status int
		code   string
	}{
		"bad key":               {"AuthenticationError", 401, "invalid_api_key"},
		"unknown model":         {"NotFoundError", 404, "model_not_found"},
		"unknown model by name": {"NotFoundError", 404, "model_not_found"},
		"bad parameter":         {"BadRequestError", 400, "invalid_request"},
		"no balance":            {"APIError", 402, "insufficient_quota"},
		"over the limit":        {"RateLimitError", 429, "rate_limit_exceeded"},
	} {
		got := report.Errors[name]
		if got.Class != want.class || got.Status != want.status || got.Code != want.code || got.Message == "" {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	if len(report.Errors) != 6 {
		t.Errorf("errors: %v", report.Errors)
	}
	if after := report.Errors["over the limit"].RetryAfter; after == nil || *after == "" {
		t.Error("429 without retry-after")
	}
	n.stop()
	code, out, errs := command(t, "", "ledger", "verify", "-dir", work)
	if code != 0 || !strings.Contains(out, "it adds up") {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

// TestOpenAIDemo follows the example's README against what `make run` runs, and runs the script in the README.
func TestOpenAIDemo(t *testing.T) {
	t.Parallel()
	d := demonstrate(t)
	placeOpenAI(t, filepath.Join(d.dir, "examples", "openai-node"))
	d.serve(t)
	script := blockWith(t, "examples/openai-node/README.md", "sh", "npm ci")
	running, rest, _ := strings.Cut(script, "\n")
	if !strings.HasPrefix(running, "make run") {
		t.Fatalf("the first line is %q", running)
	}
	rest = strings.Replace(rest, "npm ci", "true", 1)
	var report clientReport
	if out := d.must(t, rest); json.Unmarshal([]byte(out), &report) != nil || len(report.Calls) < 10 || len(report.Failures) > 0 || len(report.Errors) != 4 {
		t.Error(out)
	}
	js := blockWith(t, "README.md", "js", "openai")
	if err := os.WriteFile(filepath.Join(d.dir, "examples", "openai-node", "readme.mjs"), []byte(js), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := d.must(t, strings.Replace(rest, "client.mjs", "readme.mjs", 1)); out != "You said: Tell me about gateways." {
		t.Error(out)
	}
}

// TestOpenAISandbox: the client finds the same at the sandbox alone, without the gateway's doing.
func TestOpenAISandbox(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	placeOpenAI(t, dir)
	origin := httptest.NewServer(sandbox.Handler(sandbox.Config{}))
	defer origin.Close()
	if report := runOpenAI(t, dir, []string{"POSTERN_URL=" + origin.URL, "POSTERN_MODEL=sandbox"}, "calls"); len(report.Calls) < 10 {
		t.Errorf("%d calls", len(report.Calls))
	}
}

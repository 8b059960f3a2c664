package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/server"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/memory"
	"github.com/postern-gateway/postern/gateway/telemetry"
)

const (
	token  = "an-operators-token"
	secret = "sk-of-the-provider"
)

// store is a store in memory that can refuse every write.
type store struct {
	state.Store
	broken atomic.Bool
}

func (s *store) Commit(ctx context.Context, b *state.Batch) error {
	if s.broken.Load() {
		return errors.New("the disk does not answer")
	}
	return s.Store.Commit(ctx, b)
}

// operated is a running gateway with its API.
type operated struct {
	*API
	server *server.Server
	store  *store
	reload error // what a reload ends with
}

const files = `
state "memory" {}

secret "provider" {
  env = "PROVIDER_KEY"
}

admin {
  address = "127.0.0.1:0"
  token   = "an-operators-token"
}

listener "public" {
  address   = "127.0.0.1:0"
  protocols = [http1]
}

upstream "app" {
  endpoints = ["http://127.0.0.1:1"]
  headers   = { authorization = "Bearer ${secret.provider}" }
}

route "hello" {
  listener = listener.public
  match    = "GET /hello/{name}"

  respond {
    body = "Hello"
  }
}

route "app" {
  listener = listener.public
  match    = "/"
  upstream = upstream.app
}
`

func operate(t *testing.T) *operated {
	t.Helper()
	return operateOn(t, t.TempDir(), files)
}

// operateOn runs a gateway in dir on a configuration.
func operateOn(t *testing.T, dir, text string) *operated {
	t.Helper()
	o := &operated{store: &store{}}
	backend := memory.Backend()
	open := backend.Open
	backend.Open = func(ctx context.Context, dir string, arguments cty.Value, log *slog.Logger) (_ state.Store, err error) {
		o.store.Store, err = open(ctx, dir, arguments, log)
		return o.store, err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.hcl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	backends := []state.Backend{backend}
	cfg, _, diags := config.Load(dir, config.Options{
		Backends: backends, Version: "0.1.0", Secrets: true,
		Environment: func(name string) (string, bool) { return secret, name == "PROVIDER_KEY" },
	})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	tel, err := telemetry.New(t.Context(), telemetry.Config{Output: io.Discard, LogLevel: "error", LogFormat: "text"})
	if err != nil {
		t.Fatal(err)
	}
	if o.server, err = server.New(t.Context(), server.Config{Backends: backends, Telemetry: tel}, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		o.store.broken.Store(false)
		if err := o.server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	o.API, err = New(Config{
		Token: token, Storage: o.server.Storage(), Log: tel.Log, Server: o.server, Metrics: tel.Metrics,
		Reload: func(context.Context) error { return o.reload },
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// do makes one call, with the token unless header says otherwise.
func (o *operated) do(t *testing.T, method, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	o.ServeHTTP(w, r)
	return w
}

// expect makes a call that must end with status, and reads its answer.
func (o *operated) expect(t *testing.T, status int, method, path, body string, into any) {
	t.Helper()
	w := o.do(t, method, path, body)
	if w.Code != status {
		t.Fatalf("%s %s: %d, expected %d: %s", method, path, w.Code, status, w.Body)
	}
	if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%s %s: %v", method, path, w.Header())
	}
	if into == nil {
		return
	}
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Errorf("%s %s: %v", method, path, err)
	}
}

// problemIn checks that an answer is a problem of that code.
func problemIn(t *testing.T, w *httptest.ResponseRecorder, status int, code string) {
	t.Helper()
	var p Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != status || p.Status != status || p.Code != code || p.Detail == "" ||
		p.Title != http.StatusText(status) || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("%d %v, expected %d %s: %s", w.Code, err, status, code, w.Body)
	}
}

var calls = []string{
	"GET /v1/status", "GET /v1/config", "GET /v1/plugins", "GET /v1/upstreams", "GET /v1/overload", "POST /v1/reload", "GET /metrics",
	"GET /v1/accounts", "POST /v1/accounts", "GET /v1/accounts/a", "POST /v1/accounts/a/disable", "POST /v1/accounts/a/enable", "GET /v1/accounts/a/keys",
	"PATCH /v1/accounts/a/keys/k", "POST /v1/accounts/a/keys/k/rotate", "POST /v1/accounts/a/refunds",
	"POST /v1/accounts/a/keys", "DELETE /v1/accounts/a/keys/k", "GET /v1/accounts/a/balance", "POST /v1/accounts/a/credits",
	"GET /v1/accounts/a/entries", "GET /v1/ledger", "GET /v1/ledger/verify", "GET /v1/audit", "GET /v1/audit/verify", "POST /v1/vault/rotate",
	"GET /v1/rights", "GET /v1/rights/key", "GET /v1/rights/r", "POST /v1/rights", "POST /v1/rights/r/cancel", "POST /v1/rights/r/decide", "GET /v1/retention", "POST /v1/retention/sweep",
	"GET /v1/opendsr/discovery", "GET /v1/opendsr/requests/r", "POST /v1/opendsr/requests", "DELETE /v1/opendsr/requests/r",
}

// TestGuard: nothing but health is answered without the token, and nothing at all to a browser.
func TestGuard(t *testing.T) {
	t.Parallel()
	o := operate(t)
	o.reload = errors.New("reached")
	for _, call := range append(slices.Clone(calls), "GET /", "GET /v1/nothing", "PUT /v1/accounts", "POST /health") {
		method, path, _ := strings.Cut(call, " ")
		for _, given := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "bearer " + token, "Basic " + token, token, "Bearer " + token + " ", "Bearer " + token + "x", "Bearer " + token[1:]} {
			w := o.do(t, method, path, "{}", "Authorization", given)
			problemIn(t, w, 401, "unauthorized")
			if w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s: no challenge", call)
			}
		}
		problemIn(t, o.do(t, method, path, "{}", "Origin", "https://elsewhere.example"), 403, "browser")
		problemIn(t, o.do(t, method, path, "{}", "Origin", "null"), 403, "browser")
		for _, site := range []string{"cross-site", "same-site", "same-origin", "Cross-Site"} {
			problemIn(t, o.do(t, method, path, "{}", "Sec-Fetch-Site", site), 403, "browser")
		}
	}
	if list, err := o.server.Storage().Accounts.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("accounts were made: %v %v", list, err)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("an API without a token")
	}
}

// TestUnknown: paths that are none, and methods a path does not take.
func TestUnknown(t *testing.T) {
	t.Parallel()
	o := operate(t)
	for _, path := range []string{"/", "/v1", "/v1/accounts/a/keys/k/x", "/v2/status", "/debug/pprof/", "/v1/statuses"} {
		problemIn(t, o.do(t, "GET", path, ""), 404, "no_such_call")
		problemIn(t, o.do(t, "BREW", path, ""), 404, "no_such_call")
	}
	for call, allow := range map[string]string{
		"PUT /v1/accounts": "GET, POST", "DELETE /v1/ledger": "GET", "GET /v1/reload": "POST", "GET /v1/accounts/a/keys/k": "PATCH, DELETE", "GET /v1/accounts/a/refunds": "POST", "POST /metrics": "GET", "POST /health": "GET",
	} {
		method, path, _ := strings.Cut(call, " ")
		w := o.do(t, method, path, "")
		problemIn(t, w, 405, "method_not_allowed")
		if got := w.Header().Get("Allow"); got != allow {
			t.Errorf("%s: allow %q, expected %q", call, got, allow)
		}
	}
}

// TestBodies: what is sent is taken as it is meant or not at all.
func TestBodies(t *testing.T) {
	t.Parallel()
	o := operate(t)
	var a Account
	o.expect(t, 200, "POST", "/v1/accounts", `{"name":"Acme"}`, &a)
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"/v1/accounts", ``, 400},
		{"/v1/accounts", `null`, 400},
		{"/v1/accounts", `[]`, 400},
		{"/v1/accounts", `"Acme"`, 400},
		{"/v1/accounts", `{"name":"a"`, 400},
		{"/v1/accounts", `{"name":"a"}{}`, 400},
		{"/v1/accounts", `{"name":"a"} x`, 400},
		{"/v1/accounts", `{"name":"a","nmae":"b"}`, 400},
		{"/v1/accounts", `{"name":"a","name":"b"}`, 400},
		{"/v1/accounts", `{"name":"a","Name":"b"}`, 400},
		{"/v1/accounts", `{"name":7}`, 400},
		{"/v1/accounts", `{"name":""}`, 400},
		{"/v1/accounts", `{"name":"` + strings.Repeat("x", maxBody) + `"}`, 413},
		{"/v1/accounts/" + a.ID + "/credits", `{"amount":"1","amount":"100","key":"k"}`, 400},
		{"/v1/accounts/" + a.ID + "/credits", `{"amount":"1"}`, 400},
		{"/v1/accounts/" + a.ID + "/credits", `{"amount":"-1","key":"k"}`, 400},
		{"/v1/accounts/" + a.ID + "/credits", `{"amount":"0","key":"k"}`, 400},
		{"/v1/accounts/" + a.ID + "/credits", `{"amount":"","key":"k"}`, 400},
		{"/v1/accounts/" + a.ID + "/credits", `{"amount":"1e3","key":"k"}`, 400},
		{"/v1/accounts/" + a.ID + "/credits", `{"amount":"0.0000000000001","key":"k"}`, 400},
		{"/v1/accounts/" + a.ID + "/credits", `{"amount":"99999999999999999999999999","key":"k"}`, 400},
		{"/v1/accounts/" + a.ID + "/credits", `{"amount":"1","key":"a b"}`, 400},
		{"/v1/accounts/" + a.ID + "/keys", `{"name":"n","scopes":["a b"]}`, 400},
		{"/v1/accounts/" + a.ID + "/keys", `{"name":"n","expires":"2001-01-01T00:00:00Z"}`, 400},
		{"/v1/accounts/" + a.ID + "/keys", `{"name":"n","expires":"tomorrow"}`, 400},
		{"/v1/accounts/none/keys", `{"name":"n"}`, 404},
		{"/v1/accounts/none/credits", `{"amount":"1","key":"k"}`, 404},
	} {
		w := o.do(t, "POST", c.path, c.body)
		problemIn(t, w, c.status, map[int]string{400: "invalid", 404: "not_found", 413: "too_large"}[c.status])
		if strings.Contains(w.Body.String(), "/") && strings.Contains(w.Body.String(), ".go") {
			t.Errorf("%s", w.Body)
		}
	}
	for _, query := range []string{"?limit=0", "?limit=1001", "?limit=x", "?from=-1", "?from=x"} {
		problemIn(t, o.do(t, "GET", "/v1/accounts/"+a.ID+"/entries"+query, ""), 400, "invalid")
	}
	var all []Account
	if o.expect(t, 200, "GET", "/v1/accounts", "", &all); len(all) != 1 || all[0].Balance.Total.Sign() != 0 {
		t.Errorf("left behind: %+v", all)
	}
}

// TestMoney: an account's life by the API, and that nothing shows a key again.
func TestMoney(t *testing.T) {
	t.Parallel()
	o := operate(t)
	var a Account
	o.expect(t, 200, "POST", "/v1/accounts", `{"name":"Acme"}`, &a)
	base := "/v1/accounts/" + a.ID
	var k, revoked Key
	o.expect(t, 200, "POST", base+"/keys", `{"name":"laptop","scopes":["models:call"]}`, &k)
	if k.Secret == "" || k.Account != a.ID {
		t.Errorf("%+v", k)
	}
	var first, again Entry
	o.expect(t, 200, "POST", base+"/credits", `{"amount":"12.50","key":"evt_1","note":"card"}`, &first)
	o.expect(t, 200, "POST", base+"/credits", `{"amount":"12.50","key":"evt_1","note":"card"}`, &again)
	if first.Seq != again.Seq || first.Balance != again.Balance || first.Amount != again.Amount {
		t.Errorf("the same credit twice: %+v, %+v", first, again)
	}
	problemIn(t, o.do(t, "POST", base+"/credits", `{"amount":"13","key":"evt_1"}`), 409, "key_used")
	var b Balance
	if o.expect(t, 200, "GET", base+"/balance", "", &b); b.Available.String() != "12.5" && b.Available.String() != "12.50" {
		t.Errorf("%+v", b)
	}
	var entries []Entry
	if o.expect(t, 200, "GET", base+"/entries", "", &entries); len(entries) != 1 || entries[0].Kind != "credit" || entries[0].Ref != "evt_1" {
		t.Errorf("%+v", entries)
	}
	var balances []Balance
	if o.expect(t, 200, "GET", "/v1/ledger", "", &balances); len(balances) < 2 {
		t.Errorf("%+v", balances)
	}
	var v Verification
	if o.expect(t, 200, "GET", "/v1/ledger/verify", "", &v); !v.OK || v.Entries != 1 || v.Problems == nil {
		t.Errorf("%+v", v)
	}
	if o.expect(t, 200, "DELETE", base+"/keys/"+k.ID, "", &revoked); revoked.Revoked.IsZero() {
		t.Errorf("the answer does not tell that the key is revoked: %+v", revoked)
	}
	problemIn(t, o.do(t, "DELETE", base+"/keys/none", ""), 404, "not_found")
	var off Account
	if o.expect(t, 200, "POST", base+"/disable", "", &off); off.Status == a.Status {
		t.Errorf("%+v", off)
	}
	for _, path := range []string{base, base + "/keys", base + "/entries", "/v1/accounts", "/v1/ledger", "/v1/status", "/v1/config", "/metrics"} {
		if w := o.do(t, "GET", path, ""); w.Code != 200 || strings.Contains(w.Body.String(), k.Secret) {
			t.Errorf("%s: %d, key shown", path, w.Code)
		}
	}
}

// TestViews: what is configured is shown without secrets, and every view has its shape.
func TestViews(t *testing.T) {
	t.Parallel()
	o := operate(t)
	var c Configuration
	o.expect(t, 200, "GET", "/v1/config", "", &c)
	if len(c.Listeners) != 1 || len(c.Routes) != 2 || len(c.Upstreams) != 1 || c.Digest == "" || c.Routes[0].Place == "" {
		t.Errorf("%+v", c)
	}
	if w := o.do(t, "GET", "/v1/config", ""); strings.Contains(w.Body.String(), "null") {
		t.Errorf("what there is none of is not an empty list: %s", w.Body)
	}
	var s server.Status
	if o.expect(t, 200, "GET", "/v1/status", "", &s); s.Config != c.Digest || s.Listeners["public"] == "" || s.Loaded.IsZero() {
		t.Errorf("%+v", s)
	}
	o.expect(t, 200, "POST", "/v1/reload", "", &s)
	o.reload = errors.New("the files have errors")
	w := o.do(t, "POST", "/v1/reload", "")
	problemIn(t, w, 422, "refused")
	var upstreams map[string][]map[string]any
	if o.expect(t, 200, "GET", "/v1/upstreams", "", &upstreams); len(upstreams["app"]) != 1 {
		t.Errorf("%+v", upstreams)
	}
	var overload server.Overload
	if o.expect(t, 200, "GET", "/v1/overload", "", &overload); overload.Gateway.Limit == 0 || overload.Gateway.Shedding == "" || overload.Upstreams["app"].Limit == 0 {
		t.Errorf("%+v", overload)
	}
	var plugins []any
	if o.expect(t, 200, "GET", "/v1/plugins", "", &plugins); plugins == nil {
		t.Error("no plugins is not an empty list")
	}
	for _, call := range calls {
		if method, path, _ := strings.Cut(call, " "); method == "GET" {
			body := o.do(t, method, path, "").Body.String()
			if strings.Contains(body, secret) || strings.Contains(body, token) {
				t.Errorf("%s shows a secret", call)
			}
		}
	}
}

// TestMetrics: the scrape has the names that are promised, and nothing of who called what.
func TestMetrics(t *testing.T) {
	t.Parallel()
	o := operate(t)
	resp, err := http.Get("http://" + o.server.Addresses()["public"].String() + "/hello/jane@example.com?card=4111111111111111")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp, err = http.Get("http://" + o.server.Addresses()["public"].String() + "/private/jane"); err == nil {
		resp.Body.Close()
	}
	var text string
	for range 1000 { // an exchange is counted after its answer
		text = o.do(t, "GET", "/metrics", "").Body.String()
		if strings.Contains(text, `postern_requests_total{listener="public",protocol="http1",route="app",status="5xx"} 1`) {
			break
		}
	}
	for _, want := range []string{
		`postern_requests_total{listener="public",protocol="http1",route="hello",status="2xx"} 1`,
		`postern_requests_total{listener="public",protocol="http1",route="app",status="5xx"} 1`,
		`postern_request_duration_seconds_count{route="hello"} 1`, `postern_problems_total{code="upstream_unreachable",route="app"} 1`,
		`postern_upstream_attempts_total{upstream="app"}`, "postern_requests_in_flight 0", "postern_response_body_bytes_total",
		"postern_holds_settled_by_host_total 0", "postern_config_loaded_timestamp_seconds", "postern_build_info{", "go_goroutines", "process_",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in the scrape", want)
		}
	}
	for _, personal := range []string{"jane", "4111111111111111", "127.0.0.1", "private"} {
		if strings.Contains(text, personal) {
			t.Errorf("the scrape holds %q", personal)
		}
	}
	name := regexp.MustCompile(`^(postern|go|process|promhttp)_[a-z0-9_]+$`)
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 3 && words[1] == "HELP" && !name.MatchString(words[2]) {
			t.Errorf("a metric called %s", words[2])
		}
	}
}

// TestHealth: health is about the process, readiness about paid calls, and neither tells anything else.
func TestHealth(t *testing.T) {
	t.Parallel()
	o := operate(t)
	look := func(path string, status int, says string) {
		t.Helper()
		w := o.do(t, "GET", path, "", "Authorization", "")
		var got map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != status || len(got) != 1 || got["status"] != says {
			t.Errorf("%s: %d %s, expected %d %s", path, w.Code, w.Body, status, says)
		}
	}
	look("/health", 200, "ok")
	look("/ready", 200, "ready")
	var a Account
	o.expect(t, 200, "POST", "/v1/accounts", `{"name":"Acme"}`, &a)
	o.store.broken.Store(true)
	if _, err := o.server.Storage().Ledger.Credit(t.Context(), a.ID, exchange.Pico(1e12), "k", ""); err == nil {
		t.Error("credited without a disk")
	}
	w := o.do(t, "POST", "/v1/accounts/"+a.ID+"/credits", `{"amount":"1","key":"k"}`)
	problemIn(t, w, 503, "unavailable")
	if w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "disk") {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
	look("/health", 200, "ok")
	look("/ready", 503, "not ready")
	o.store.broken.Store(false)

	offline, err := New(Config{Token: token, Storage: o.server.Storage(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	o.API = offline
	look("/ready", 503, "not serving")
	for _, call := range []string{"GET /v1/status", "GET /v1/config", "GET /v1/plugins", "GET /v1/upstreams", "GET /v1/overload", "POST /v1/reload"} {
		method, path, _ := strings.Cut(call, " ")
		problemIn(t, o.do(t, method, path, ""), 503, "not_running")
	}
	problemIn(t, o.do(t, "GET", "/metrics", ""), 404, "no_such_call")
	o.expect(t, 200, "GET", "/v1/ledger/verify", "", nil)
}

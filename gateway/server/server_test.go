package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/provider"
	"github.com/postern-gateway/postern/gateway/provider/openai"
	"github.com/postern-gateway/postern/gateway/schema"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/badger"
	"github.com/postern-gateway/postern/gateway/state/memory"
	"github.com/postern-gateway/postern/gateway/telemetry"
)

const plain = `
gateway {
  name = "edge"
}

state "badger" {
  dir = "data"
}

admin {
  address = "127.0.0.1:0"
}

listener "public" {
  address   = "127.0.0.1:0"
  protocols = [http1]
}

route "tools" {
  listener = listener.public
  match    = "GET /tools/{name}"
  respond {
    body = "tools"
  }
}

route "inside" {
  listener = listener.public
  match    = "GET /tools/{name}"
  when     = request.headers["x-inside"] == "yes"
  respond {
    body = "inside"
  }
}

route "fault" {
  listener = listener.public
  match    = "GET /tools/fault"
  when     = 1 / length(request.query) > 0
  respond {
    body = "fault"
  }
}

route "post" {
  listener = listener.public
  match    = "POST /tools/{name}"
  respond {
    status  = 201
    headers = { x-made = "yes" }
  }
}
`

func backends() []state.Backend { return []state.Backend{badger.Backend(), memory.Backend()} }

func load(t *testing.T, dir, text string) *config.Config {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "config.hcl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, sources, diags := config.Load(dir, config.Options{Backends: backends(), Formats: []provider.Format{openai.New()}, Secrets: true, Modules: true})
	if diags.HasErrors() {
		var b bytes.Buffer
		_ = schema.WriteDiagnostics(&b, sources, diags, false)
		t.Fatal(b.String())
	}
	return cfg
}

func serve(t *testing.T, cfg *config.Config, log io.Writer) *Server {
	t.Helper()
	tel, err := telemetry.New(t.Context(), telemetry.Config{Output: log})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(t.Context(), Config{Backends: backends(), Formats: []provider.Format{openai.New()}, Telemetry: tel}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

// reply keeps what the client would get.
type reply struct {
	status int
	header exchange.Header
	body   bytes.Buffer
	ended  bool
}

func (*reply) Interim(int, exchange.Header) error { return nil }
func (r *reply) Head(status int, h exchange.Header, _ int64) error {
	r.status, r.header = status, h
	return nil
}
func (r *reply) Write(p []byte) (int, error) { return r.body.Write(p) }
func (*reply) Flush() error                  { return nil }
func (r *reply) End(exchange.Header) error   { r.ended = true; return nil }
func (*reply) Upgrade(exchange.Header) (io.ReadWriteCloser, error) {
	return nil, exchange.ErrNoUpgrade
}
func (*reply) Abort() {}

func ask(s *Server, method, path string, h exchange.Header) *reply {
	r := &reply{}
	x := &exchange.Exchange{ID: "id-1", Listener: "public", Reply: r}
	x.Request = exchange.Request{Protocol: exchange.HTTP1, Method: method, Scheme: "http", Authority: "localhost", Path: path, Header: h, Body: exchange.NoBody}
	s.Serve(context.Background(), x)
	return r
}

func TestRouting(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := serve(t, load(t, t.TempDir(), plain), &log)
	inside := exchange.Header{{Name: "x-inside", Value: "yes"}}
	for _, c := range []struct {
		method, path string
		header       exchange.Header
		status       int
		body, field  string
		value        string
	}{
		{method: "GET", path: "/tools/a", status: 200, body: "tools", field: "postern-exchange", value: "id-1"},
		{method: "GET", path: "/tools/a", header: inside, status: 200, body: "inside"},
		{method: "HEAD", path: "/tools/a", status: 200},
		{method: "POST", path: "/tools/a", status: 201, field: "x-made", value: "yes"},
		{method: "PUT", path: "/tools/a", status: 405, field: "allow", value: "GET, HEAD, POST"},
		{method: "GET", path: "/tools/fault", status: 500},
		{method: "GET", path: "/nowhere", status: 404, field: "content-type", value: "application/problem+json"},
	} {
		r := ask(s, c.method, c.path, c.header)
		if r.status != c.status || !r.ended || c.field != "" && r.header.Get(c.field) != c.value || c.status < 400 && r.body.String() != c.body {
			t.Errorf("%s %s: %d %v %q", c.method, c.path, r.status, r.header, r.body.String())
		}
		if c.status < 400 {
			continue
		}
		var p struct {
			Type, Title, Code, Instance string
			Status                      int
		}
		if err := json.Unmarshal(r.body.Bytes(), &p); err != nil || p.Status != c.status || p.Code == "" || p.Title == "" || !strings.HasSuffix(p.Type, p.Code) || !strings.Contains(p.Instance, "id-1") {
			t.Errorf("%s %s: %v %s", c.method, c.path, err, r.body.String())
		}
	}
	if text := log.String(); !strings.Contains(text, `"route":"inside"`) || strings.Contains(text, "/tools") || strings.Contains(text, "/nowhere") {
		t.Errorf("access log: %s", text)
	}
}

// TestFixed: what a running gateway can not change is refused with its place, and nothing has changed.
func TestFixed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := serve(t, load(t, dir, plain), io.Discard)
	digest := s.Status().Config
	for want, change := range map[string][2]string{
		"state block": {`dir = "data"`, `dir = "elsewhere"`},
		"name":        {`"edge"`, `"other"`},
		"admin":       {"127.0.0.1:0\"\n}\n\nlistener", "127.0.0.1:1\"\n}\n\nlistener"},
		"ledger":      {`state "badger"`, "ledger {\n  currency = \"EUR\"\n}\n\nstate \"badger\""},
	} {
		text := strings.Replace(plain, change[0], change[1], 1)
		if text == plain {
			t.Fatalf("%s: the change changes nothing", want)
		}
		err := s.Apply(t.Context(), load(t, dir, text))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "restart") {
			t.Errorf("%s: %v", want, err)
		}
		if st := s.Status(); st.Config != digest || st.Refused == nil {
			t.Errorf("%s: status %+v", want, st)
		}
	}
	if err := s.Apply(t.Context(), load(t, dir, strings.Replace(plain, "201", "202", 1))); err != nil {
		t.Fatal(err)
	}
	if st := s.Status(); st.Config == digest || st.Refused != nil {
		t.Errorf("status %+v", st)
	}
	if r := ask(s, "POST", "/tools/a", nil); r.status != 202 {
		t.Errorf("status %d after the change", r.status)
	}
}

// TestNewLeavesNothing: where a part can not be opened, what was opened before is closed, and a second try works.
func TestNewLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := load(t, dir, plain)
	taken := serve(t, load(t, t.TempDir(), plain), io.Discard)
	free := cfg.Listeners[0].Address
	cfg.Listeners[0].Address = taken.Addresses()["public"].String()
	tel, err := telemetry.New(t.Context(), telemetry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), Config{Backends: backends(), Telemetry: tel}, cfg); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Fatal(err)
	}
	cfg.Listeners[0].Address = free
	serve(t, cfg, io.Discard)
}

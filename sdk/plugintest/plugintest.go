// Package plugintest runs one table of cases against a policy plugin twice under go test: natively, where the debugger, the
// race detector and coverage work, and as the WebAssembly module the gateway will run. Its main type is Case.
//
//	func TestGreet(t *testing.T) {
//		plugintest.Run(t, plugintest.Config{
//			New:    func() postern.Plugin { return new(greet) },
//			Stages: []plugintest.Stage{{Phase: exchange.RequestPhase, Config: `greeting = "hello"`}},
//		}, []plugintest.Case{{
//			Name:   "adds the header",
//			Events: []plugintest.Event{{Want: plugintest.Want{Headers: exchange.Header{{Name: "x-greeting", Value: "hello"}}}}},
//		}})
//	}
package plugintest

import (
	"bytes"
	"cmp"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/expr"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/plugin/abi1"
	"github.com/postern-gateway/postern/gateway/project/world"
	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
)

// Config is what the cases of a table have in common.
type Config struct {
	// New makes the plugin for the native runs, as the module's Register does. nil: the table runs as a module only.
	New    func() postern.Plugin
	Dir    string              // the plugin's folder, with main.go and plugin.hcl; default "."
	Name   string              // what the operator calls the plugin; default the folder's name
	Grants []string            // default: all that plugin.hcl asks for
	Stages []Stage             // for cases that name none
	Wasm   string              // a module that has been built already; default: Dir is built
	Limits config.PluginLimits // what is 0: 64 MiB of memory, 50 ms of CPU an event, 2 instances, 10 s in the queue

	compiled *config.Plugin
	host     *plugin.Host
	worlds   *world.Stand
}

// Stage is one use of the plugin.
type Stage struct {
	Phase  exchange.Phase
	Config string // HCL: what stands in the config block
}

// Case is one exchange, or several after each other, in a world of its own: state, accounts and ledger begin anew.
type Case struct {
	Name     string
	Stages   []Stage            // default Config.Stages
	Exchange *exchange.Exchange // as the first event meets it; what is empty is filled in as a GET of "/"
	Accounts map[string]exchange.Identity
	Balances map[string]int64 // what accounts have; a hold and a charge cost one for each unit of usage
	// Fetches are the answers to fetches, by the fetch's name, its URL, or its upstream's name, a space and the path. What is
	// not there is unreachable. A plugin that awaits gets them at once, as part of the same event.
	Fetches map[string]Fetched
	Events  []Event
	Refused string // the configuration is refused with a text that holds this; then there are no events
}

// Event is one event and what must come of it.
type Event struct {
	Stage    int           // index into the stages
	Kind     abi.Event     // default by the stage's phase: request, response or account
	After    time.Duration // how far the clock goes on before it
	Exchange *exchange.Exchange
	// Exchange, when set, begins another exchange, with nothing carried. Before changes the exchange as the world would
	// have, before the event.
	Before    func(x *exchange.Exchange)
	Fetches   map[string]Fetched // from this event on, in the place of the case's of the same names
	Body      []byte             // nil: the event has no body
	End       bool               // Body is the end of the body
	Stream    bool               // Body is server-sent events
	Truncated bool
	Gone      bool
	Want      Want
}

// Want is what must come of an event. Zero values are not checked, but for Respond and Fault: an answer or a fault that is
// not named fails the case.
type Want struct {
	Respond    int               // the answer's status
	Code       string            // its code
	Detail     string            // text its detail holds
	Fault      plugin.Kind       // the event fails in this way
	Headers    exchange.Header   // fields of the message, or of the answer, after the event
	Without    []string          // names of fields that must be gone
	Attributes map[string]string // own attributes by "<plugin>.<name>"
	Identity   *exchange.Identity
	Body       string           // the body after the event
	Unchanged  bool             // the body is as it was
	Dropped    bool             // the body is empty after the event
	Targets    []string         // names of the targets' upstreams, in order
	Meters     map[string]int64 // counted in this event
	Fetches    []string         // made in this event, in order: each by its name, or as "name METHOD URL", "name METHOD upstream path"
	Done       bool
	Check      func(t *testing.T, o *Outcome)
}

// Outcome is what came of an event.
type Outcome struct {
	Exchange *exchange.Exchange // with everything applied
	Answer   *Answer            // nil: it goes on
	Body     []byte
	Changed  bool // the body was changed
	Carry    []byte
	Meters   map[string]int64
	Fetches  []Asked // what the plugin asked for before it came to this
	Done     bool
	Fault    plugin.Kind
	Detail   string // of the fault, for operators
	Log      string // what was logged
	World    *World `json:"-"`
}

// Answer is a reply of the plugin's own.
type Answer struct {
	Status      int
	Code        string
	Detail      string
	ContentType string
	Body        []byte
	Header      exchange.Header
}

// World is what a case's plugin meets behind the host operations.
type World = world.World

// Hold is what a plugin did with one hold.
type Hold = world.Hold

// caller runs events in one of the two ways.
type caller interface {
	Call(ctx context.Context, ev *plugin.Event, res *plugin.Result) error
	Close(ctx context.Context) error
}

// Run runs every case natively and as a module, and fails where the two differ.
func Run(t *testing.T, c Config, cases []Case) {
	t.Helper()
	c.load(t)
	c.start(t)
	outcomes := map[string][]*Outcome{}
	if c.New != nil {
		t.Run("native", func(t *testing.T) {
			for i := range cases {
				t.Run(cases[i].Name, func(t *testing.T) { outcomes[cases[i].Name] = c.run(t, &cases[i], native) })
			}
		})
	}
	t.Run("wasm", func(t *testing.T) {
		c.build(t)
		// The module stays compiled between the cases as long as a pool of it is open.
		if keep, err := c.host.Load(context.Background(), c.compiled, nil); err == nil {
			defer func() {
				if err := keep.Close(context.Background()); err != nil {
					t.Error(err)
				}
			}()
		}
		for i := range cases {
			t.Run(cases[i].Name, func(t *testing.T) {
				got := c.run(t, &cases[i], wasm)
				want, ok := outcomes[cases[i].Name]
				if !ok || t.Failed() || len(want) != len(got) {
					return
				}
				for n := range got {
					a, b := *want[n], *got[n]
					a.World, b.World, a.Detail, b.Detail = nil, nil, "", ""
					a.Exchange.Fuel, b.Exchange.Fuel = 0, 0 // only a module uses it up
					if !reflect.DeepEqual(a, b) {
						t.Errorf("event %d: native and wasm differ:\nnative %+v\nwasm   %+v", n, a, b)
					}
				}
			})
		}
	})
}

// load reads plugin.hcl.
func (c *Config) load(t testing.TB) {
	t.Helper()
	if c.Dir == "" {
		c.Dir = "."
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if c.Name == "" {
		c.Name = filepath.Base(dir)
	}
	file := filepath.Join(dir, "plugin.hcl")
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m, diags := manifest.Parse(src, "plugin.hcl")
	if diags.HasErrors() {
		t.Fatalf("plugin.hcl: %s", text(diags))
	}
	c.compiled = &config.Plugin{
		Name: c.Name, Source: dir, Manifest: m, Grants: c.Grants,
		Limits: c.Limits,
	}
	l := &c.compiled.Limits
	l.Memory, l.CPU = cmp.Or(l.Memory, 64<<20), cmp.Or(l.CPU, 50*time.Millisecond)
	l.Instances, l.Queue = cmp.Or(l.Instances, 2), cmp.Or(l.Queue, 10*time.Second)
	if c.Grants == nil {
		for _, g := range m.Grants {
			c.compiled.Grants = append(c.compiled.Grants, g.Capability)
		}
	}
}

// start makes the host that all cases run on, one after the other.
func (c *Config) start(t testing.TB) {
	t.Helper()
	c.worlds = new(world.Stand)
	c.worlds.Put(world.New(world.Config{}))
	host, err := plugin.NewHost(plugin.Config{
		Log:      slog.New(slog.NewTextHandler(c.worlds, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: noTime})),
		CacheDir: CacheDir(), Child: Compiler(t), ABIs: []plugin.ABI{abi1.New()}, Services: plugin.Services{Accounts: c.worlds, Ledger: c.worlds},
		Now: c.worlds.Now, Random: c.worlds,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.host = host
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := host.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}

// build compiles the module with the ordinary toolchain; its cache makes that quick from the second time on.
func (c *Config) build(t testing.TB) {
	t.Helper()
	c.compiled.Path = c.Wasm
	if c.Wasm == "" {
		c.compiled.Path = Build(t, c.Dir)
	}
}

// Build compiles the plugin in a folder to a module in a folder of the test's, and returns its path.
func Build(t testing.TB, dir string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "plugin.wasm")
	// The same source is the same module wherever it lies, so that its machine code is found again.
	cmd := goCommand(t.Context(), "build", "-trimpath", "-buildvcs=false", "-buildmode=c-shared", "-o", out, ".")
	cmd.Dir = dir
	cmd.Env = append(cmd.Env, "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", dir, err, b)
	}
	return out
}

func text(diags hcl.Diagnostics) string {
	var b strings.Builder
	for _, d := range diags {
		b.WriteString("\n\t" + d.Error())
	}
	return b.String()
}

// stages decodes the config blocks as the configuration loader does.
func (c *Config) stages(t testing.TB, list []Stage) []*config.Stage {
	t.Helper()
	var stages []*config.Stage
	for _, s := range list {
		m := c.compiled.Manifest
		hook := m.Hook(s.Phase)
		if hook == nil {
			t.Fatalf("plugin.hcl has no hook %q", s.Phase)
		}
		file, diags := hclsyntax.ParseConfig([]byte(s.Config), "config", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatalf("config: %s", text(diags))
		}
		value, perRequest, diags := m.Decode(hook, file.Body, &hcl.EvalContext{Functions: expr.Functions()})
		if diags.HasErrors() {
			t.Fatalf("config: %s", text(diags))
		}
		stage := &config.Stage{Phase: s.Phase, Policy: "test", Plugin: c.compiled, Hook: hook, Timeout: time.Second, Config: value, Range: file.Body.MissingItemRange()}
		for _, a := range m.PerRequest(hook) {
			var program *expr.Program
			if e := perRequest[a.Name]; e != nil {
				program, diags = expr.Compile(e, expr.Scope{Phase: s.Phase, Sources: map[string][]byte{"config": []byte(s.Config)}}, a.Type.Cty)
				if diags.HasErrors() {
					t.Fatalf("config: argument %s: %s", a.Name, text(diags))
				}
			}
			stage.Arguments = append(stage.Arguments, program)
		}
		stages = append(stages, stage)
	}
	return stages
}

// run plays one case.
func (c *Config) run(t *testing.T, k *Case, open func(*testing.T, *plugin.Host, *Config, []*config.Stage) (caller, error)) []*Outcome {
	t.Helper()
	world := world.New(world.Config{Accounts: k.Accounts, Balances: k.Balances, Fetches: k.Fetches})
	c.worlds.Put(world)
	defer c.host.Forget(c.Name)
	list := k.Stages
	if list == nil {
		list = c.Stages
	}
	stages := c.stages(t, list)
	call, err := open(t, c.host, c, stages)
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if call != nil {
			if err := call.Close(ctx); err != nil {
				t.Error(err)
			}
		}
	}()
	if err != nil || k.Refused != "" {
		if err == nil || k.Refused == "" || !strings.Contains(err.Error(), k.Refused) {
			t.Fatalf("configured with %v, want an error with %q", err, k.Refused)
		}
		return nil
	}
	world.Said() // what was logged while configuring: each instance says it once
	var outcomes []*Outcome
	x, carry := fill(k.Exchange), []byte(nil)
	for n := range k.Events {
		e := &k.Events[n]
		if e.Exchange != nil {
			x, carry = fill(e.Exchange), nil
		}
		world.Pass(e.After)
		world.Tell(e.Fetches)
		if e.Before != nil {
			e.Before(x)
		}
		ev := &plugin.Event{
			Kind: e.Kind, Stage: e.Stage, Exchange: x, HasBody: e.Body != nil, Body: bytes.Clone(e.Body), End: e.End, Stream: e.Stream,
			Truncated: e.Truncated, Gone: e.Gone, Carry: carry,
		}
		if e.Kind == abi.EventConfigure {
			ev.Kind = kind(stages[e.Stage].Phase)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		o := c.event(ctx, world, call, x, stages[e.Stage].Phase, ev)
		cancel()
		o.Log, o.World = world.Said(), world
		if o.Carry != nil {
			carry = o.Carry
		}
		o.Exchange = fill(x) // a copy: later events change x
		e.Want.check(t, n, o)
		outcomes = append(outcomes, o)
		if t.Failed() {
			t.Logf("event %d: log:\n%s", n, o.Log)
			return outcomes
		}
	}
	return outcomes
}

func noTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// kind is the event that stands for a phase.
func kind(p exchange.Phase) abi.Event {
	switch p {
	case exchange.ResponsePhase:
		return abi.EventResponse
	case exchange.AccountPhase:
		return abi.EventAccount
	}
	return abi.EventRequest
}

// fill copies an exchange so that cases share nothing, and makes it whole.
func fill(from *exchange.Exchange) *exchange.Exchange {
	x := new(exchange.Exchange)
	if from != nil {
		*x = *from
	}
	x.Request.Header, x.Response.Header = x.Request.Header.Clone(), x.Response.Header.Clone()
	x.Identity.Scopes = slices.Clone(x.Identity.Scopes)
	x.Call.Targets = slices.Clone(x.Call.Targets)
	x.Attributes = slices.Clone(x.Attributes)
	or := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	or(&x.ID, "test-1-1")
	or(&x.Listener, "test")
	or(&x.Route, "test")
	or(&x.Request.Method, "GET")
	or(&x.Request.Scheme, "https")
	or(&x.Request.Authority, "localhost")
	or(&x.Request.Path, "/")
	if x.Request.Protocol == 0 {
		x.Request.Protocol = exchange.HTTP1
	}
	if x.Request.Body == nil {
		x.Request.Body = exchange.NoBody
	}
	return x
}

package conformance

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/sdk/abi"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

// greet is how the example is used: with two greetings at the request phase, and once at the response phase.
func greet() []plugintest.Stage {
	return []plugintest.Stage{
		{Phase: exchange.RequestPhase, Config: "greeting = \"Welcome\"\nto = request.host"},
		{Phase: exchange.RequestPhase},
		{Phase: exchange.ResponsePhase},
	}
}

// example tests the policy that READMEs show.
func example(t *testing.T, wasm string) {
	asks := func(fields ...string) *exchange.Exchange {
		x := &exchange.Exchange{Request: exchange.Request{Header: exchange.Header{{Name: "accept", Value: "*/*"}}}}
		for _, v := range fields {
			x.Request.Header.Add("x-name", v)
		}
		return x
	}
	greets := func(text string) plugintest.Want {
		return plugintest.Want{Headers: exchange.Header{{Name: "x-greeting", Value: text}, {Name: "accept", Value: "*/*"}}}
	}
	refuses := plugintest.Want{Respond: 400, Code: "no_name", Detail: "Say who you are in the header x-name.", Without: []string{"x-greeting"}}
	long := strings.Repeat("n", 16000)
	answered := asks("Ada")
	answered.Response = exchange.Response{Status: 200, Header: exchange.Header{{Name: "server", Value: "a"}, {Name: "server", Value: "b"}, {Name: "etag", Value: "c"}}}
	plugintest.Run(t, plugintest.Config{Dir: folder(t, exampleManifest), Name: "greet", Wasm: wasm, Stages: greet()}, []plugintest.Case{
		{Name: "by the header", Exchange: asks("Ada"), Events: []plugintest.Event{{Want: greets("Welcome, Ada")}, {Stage: 1, Want: greets("Hello, Ada")}}},
		{Name: "by the first", Exchange: asks("Ada", "Bob"), Events: []plugintest.Event{{Want: greets("Welcome, Ada")}}},
		{Name: "by the argument", Exchange: asks(), Events: []plugintest.Event{{Want: greets("Welcome, localhost")}, {Stage: 1, Want: refuses}}},
		{Name: "an empty name", Exchange: asks(""), Events: []plugintest.Event{{Want: refuses}}},
		{Name: "a long name", Exchange: asks(long), Events: []plugintest.Event{{Want: greets("Welcome, " + long)}}},
		{Name: "octets", Exchange: asks("Zoë\xff"), Events: []plugintest.Event{{Want: greets("Welcome, Zoë\xff")}}},
		{Name: "an old greeting", Exchange: &exchange.Exchange{Request: exchange.Request{Header: exchange.Header{
			{Name: "x-greeting", Value: "forged"}, {Name: "x-name", Value: "Ada"}, {Name: "x-greeting", Value: "twice"},
		}}}, Events: []plugintest.Event{{Want: plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
			if h := o.Exchange.Request.Header; h.Count("x-greeting") != 1 || h.Get("x-greeting") != "Welcome, Ada" {
				t.Errorf("the fields are %v", h)
			}
		}}}}},
		{Name: "the response", Exchange: answered, Events: []plugintest.Event{{Stage: 2, Want: plugintest.Want{
			Headers: exchange.Header{{Name: "x-seen-by", Value: "greet"}, {Name: "etag", Value: "c"}}, Without: []string{"server"},
		}}}},
		{Name: "an unknown event", Exchange: asks("Ada"), Events: []plugintest.Event{{Kind: 99, Want: plugintest.Want{Without: []string{"x-greeting"}}}}},
	})
}

// greeter calls an example's module with a request that it greets.
type greeter struct {
	host *plugin.Host
	pool *plugin.Pool
}

func newGreeter(t testing.TB, wasm string) *greeter {
	host, pool := plugintest.Load(t, plugintest.Config{Dir: folder(t, exampleManifest), Name: "greet", Wasm: wasm, Stages: greet()})
	return &greeter{host: host, pool: pool}
}

// caller is what one goroutine calls with: it is used again for every event.
type caller struct {
	*greeter
	event  plugin.Event
	result plugin.Result
	right  func(*plugin.Result) bool // whether the result is the one that is wanted
}

func (g *greeter) caller() *caller {
	x := &exchange.Exchange{ID: "n-1-1", Request: exchange.Request{
		Method: "POST", Scheme: "https", Authority: "localhost", Path: "/v1/chat/completions",
		Header: exchange.Header{
			{Name: "accept", Value: "*/*"}, {Name: "authorization", Value: "Bearer abcdefghijklmnopqrstuvwxyz012345"},
			{Name: "content-type", Value: "application/json"}, {Name: "user-agent", Value: "client/1.0"}, {Name: "x-name", Value: "Ada Lovelace"},
		},
	}}
	return &caller{greeter: g, event: plugin.Event{Kind: abi.EventRequest, Exchange: x}, right: func(r *plugin.Result) bool {
		return len(r.Ops) == 1 && string(r.Ops[0].Value) == "Welcome, Ada Lovelace"
	}}
}

// run makes n calls.
func (c *caller) run(n int) error {
	for range n {
		if err := c.pool.Call(context.Background(), &c.event, &c.result); err != nil {
			return err
		}
		if !c.right(&c.result) {
			return fmt.Errorf("the result is %v", c.result.Ops)
		}
	}
	return nil
}

// memory is that of the module's instances, and how many there are.
func (g *greeter) memory() (octets int64, instances int) {
	for _, s := range g.host.Status() {
		octets, instances = octets+s.Memory, instances+s.Instances
	}
	return octets, instances
}

// heap is what the process holds after a collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// page is a page of a module's memory.
const page = 64 << 10

// flat gives the example a million events, from two goroutines, so that two instances work: their memory stays as it was after the
// first few, and so does the process's.
func flat(t *testing.T, c Config) {
	calls := c.Calls
	if calls == 0 {
		calls = 1_000_000
		if testing.Short() {
			calls = 50_000
		}
	}
	g := newGreeter(t, c.Example)
	both := func(n int) time.Duration {
		began := time.Now()
		var work sync.WaitGroup
		for range 2 {
			work.Go(func() {
				if err := g.caller().run(n / 2); err != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
		return time.Since(began)
	}
	// A collector of the guest's own reaches its resting size on the way.
	both(20_000)
	linear, instances := g.memory()
	process := heap()
	took := both(calls)
	after, left := g.memory()
	grown := heap() - process
	t.Logf("%d events in %s: %d KiB in %d instances before, %d KiB in %d after; the process's heap %+d KiB",
		calls, took.Round(time.Millisecond), linear>>10, instances, after>>10, left, grown>>10)
	// Two instances may come about in either half.
	if after/int64(left) > linear/int64(instances)+2*page {
		t.Errorf("an instance grew from %d to %d octets", linear/int64(instances), after/int64(left))
	}
	if grown > 8<<20 {
		t.Errorf("the process's heap grew by %d octets", grown)
	}
}

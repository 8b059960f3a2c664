package conformance

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/plugin/wasmtest"
	"github.com/postern-gateway/postern/sdk/abi"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

// Cost is what one event costs: the example's greeting, called through the gateway's pool as routes call it.
type Cost struct {
	Name   string
	Call   time.Duration // from the pool's call to its return
	Guest  time.Duration // of that, what a module that does nothing does not take: the guest's work and its SDK's, and the host's with the result
	Fuel   int64         // units of metering
	Allocs float64       // of the process, for each event
	Module int64         // octets of the .wasm file
	Memory int64         // octets of linear memory of one instance
}

// Cost measures an example. What it says of time is the least of several rounds: other work on the machine only adds.
func (c Config) Cost(t testing.TB, name string) Cost {
	t.Helper()
	info, err := os.Stat(c.Example)
	if err != nil {
		t.Fatal(err)
	}
	g := newGreeter(t, c.Example)
	greet := g.caller()
	idle := idle(t)
	cost := Cost{Name: name, Call: math.MaxInt64, Module: info.Size()}
	least := time.Duration(math.MaxInt64)
	const calls = 500 // a round is shorter than what the system lets one process have at a time
	round := func(c *caller) time.Duration {
		began := time.Now()
		if err := c.run(calls); err != nil {
			t.Fatal(err)
		}
		return time.Since(began) / calls
	}
	for range 100 {
		cost.Call, least = min(cost.Call, round(greet)), min(least, round(idle))
	}
	cost.Guest, cost.Fuel = cost.Call-least, greet.result.Fuel
	cost.Allocs = testing.AllocsPerRun(1000, func() {
		if err := greet.run(1); err != nil {
			t.Fatal(err)
		}
	})
	var instances int
	cost.Memory, instances = g.memory()
	cost.Memory /= int64(instances)
	return cost
}

// idle calls a module that answers CONTINUE and does nothing else, with the frames the example gets.
func idle(t testing.TB) *caller {
	t.Helper()
	file := filepath.Join(t.TempDir(), "idle.wasm")
	if err := os.WriteFile(file, wasmtest.Policy(wasmtest.Answer(abi.ActionContinue, 0, 0)).Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	host, pool := plugintest.Load(t, plugintest.Config{Dir: folder(t, exampleManifest), Name: "idle", Wasm: file, Stages: greet()})
	c := (&greeter{host: host, pool: pool}).caller()
	c.right = func(r *plugin.Result) bool { return len(r.Ops) == 0 }
	return c
}

// Table writes costs one a line, under a heading.
func Table(costs []Cost) string {
	var b strings.Builder
	b.WriteString("| example in | ns an event | of it in the guest | fuel | allocations | module, KiB | an instance, KiB |\n|---|---|---|---|---|---|---|\n")
	for _, c := range costs {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %.0f | %.1f | %d |\n",
			c.Name, c.Call.Nanoseconds(), c.Guest.Nanoseconds(), c.Fuel, c.Allocs, float64(c.Module)/1024, c.Memory>>10)
	}
	return b.String()
}

// BenchmarkEvent measures one event of an example; fuel and the module's memory are reported with it.
func (c Config) BenchmarkEvent(b *testing.B) {
	g := newGreeter(b, c.Example)
	call := g.caller()
	if err := call.run(1000); err != nil { // the first instance has grown to its size
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	if err := call.run(b.N); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	memory, instances := g.memory()
	b.ReportMetric(float64(call.result.Fuel), "fuel/op")
	b.ReportMetric(float64(memory/int64(instances)>>10), "KiB/instance")
}

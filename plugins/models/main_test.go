package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

func TestPlugin(t *testing.T) {
	x := func(targets ...exchange.Target) *exchange.Exchange {
		return &exchange.Exchange{Call: exchange.Call{Model: "small", Targets: targets}, Request: exchange.Request{Header: exchange.Header{{Name: "x-user", Value: "u1"}}}}
	}
	up := func(name string, weight int) exchange.Target {
		return exchange.Target{Upstream: name, Model: "m", Weight: weight, Healthy: true}
	}
	down := func(name string, weight int) exchange.Target {
		return exchange.Target{Upstream: name, Model: "m", Weight: weight}
	}
	stage := func(config string) []plugintest.Stage {
		return []plugintest.Stage{{Phase: exchange.Route, Config: config}}
	}
	one := func(name, config string, x *exchange.Exchange, want plugintest.Want) plugintest.Case {
		return plugintest.Case{Name: name, Stages: stage(config), Exchange: x, Events: []plugintest.Event{{Want: want}}}
	}
	order := func(names ...string) plugintest.Want { return plugintest.Want{Targets: names} }
	none := plugintest.Want{Respond: 503, Code: "no_target", Headers: exchange.Header{{Name: "retry-after", Value: "1"}}}
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }}, []plugintest.Case{
		one("written", `order = "written"`, x(up("a", 1), up("b", 100), up("c", 0)), order("a", "b", "c")),
		one("written, first is down", `order = "written"`, x(down("a", 1), up("b", 1), up("c", 0)), order("b", "c", "a")),
		one("one", "", x(up("a", 1)), order("a")),
		one("unhealthy last", "", x(down("a", 1000), up("b", 1)), order("b", "a")),
		one("weight 0 in reserve", "", x(up("a", 0), up("b", 1)), order("b", "a")),
		one("reserve before unhealthy", "", x(down("a", 1000), up("b", 0)), order("b", "a")),
		one("only weight 0", "", x(up("a", 0)), order("a")),
		one("sticky", "sticky = request.headers[\"x-user\"]", x(up("a", 1), up("b", 1), up("c", 1)), plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
			if len(o.Exchange.Call.Targets) != 3 {
				t.Errorf("targets %v", o.Exchange.Call.Targets)
			}
		}}),
		one("all are down", "", x(down("a", 1), down("b", 1)), none),
		one("no targets", "", x(), none),
	})
}

// fair answers Random with a sequence that is the same in every run.
type fair struct{ n uint64 }

func (*fair) Log(int, string) {}
func (f *fair) Op(_ abi.Code, _, out []byte) int64 {
	for i := range out {
		f.n = f.n*6364136223846793005 + 1442695040888963407
		out[i] = byte(f.n >> 56)
	}
	return int64(len(out))
}

func encode(names []string, weights []int64) postern.Value {
	b := abi.AppendList(nil, len(names))
	for i, name := range names {
		b = abi.AppendObject(b, 3)
		b = abi.AppendString(abi.AppendKey(b, "upstream"), name)
		b = abi.AppendInt(abi.AppendKey(b, "weight"), weights[i])
		b = abi.AppendBool(abi.AppendKey(b, "healthy"), true)
	}
	v, _, _ := abi.ReadValue(b)
	return v
}

// winner draws once.
func winner(seed uint64, targets postern.Value) int {
	p := new(plugin)
	for _, t := range targets.Each {
		p.list = append(p.list, target{score: score(seed, t, t.Member("weight").Int())})
	}
	return p.sorted()[0]
}

func TestShares(t *testing.T) {
	t.Parallel()
	names, weights := []string{"a", "b", "c", "d"}, []int64{1, 2, 3, 4}
	targets := encode(names, weights)
	const draws = 40000
	for _, sticky := range []bool{false, true} {
		var won [4]float64
		host := &fair{n: 1}
		for i := range draws {
			var seed [8]byte
			var n uint64
			if sticky {
				n = hash(14695981039346656037, fmt.Appendf(nil, "account-%d", i))
			} else {
				host.Op(0, nil, seed[:])
				for k, b := range seed {
					n |= uint64(b) << (8 * k)
				}
			}
			won[winner(n, targets)]++
		}
		for i, w := range weights {
			if share, want := won[i]/draws, float64(w)/10; math.Abs(share-want) > 0.015 {
				t.Errorf("sticky %t: %s has %.3f of the calls, its weight is %.1f", sticky, names[i], share, want)
			}
		}
	}
}

// TestSticky: when a target goes, only its own requests move.
func TestSticky(t *testing.T) {
	t.Parallel()
	before, after := encode([]string{"a", "b", "c"}, []int64{1, 1, 1}), encode([]string{"a", "c"}, []int64{1, 1})
	for i := range 2000 {
		seed := hash(14695981039346656037, fmt.Appendf(nil, "user-%d", i))
		was := [...]string{"a", "b", "c"}[winner(seed, before)]
		if is := [...]string{"a", "c"}[winner(seed, after)]; was != "b" && is != was {
			t.Fatalf("user-%d moved from %s to %s", i, was, is)
		}
	}
}

// frame writes an event with these slots, empty carry and body before them.
func frame(event abi.Event, phase postern.Phase, slots ...[]byte) []byte {
	b := make([]byte, abi.FrameHeader+abi.SlotSize*(abi.SlotFirst+len(slots)))
	b[4], b[6] = byte(event), byte(phase)
	binary.LittleEndian.PutUint32(b[12:], uint32(abi.SlotFirst+len(slots)))
	for i, s := range slots {
		if s == nil {
			continue
		}
		at := abi.FrameHeader + abi.SlotSize*(abi.SlotFirst+i)
		binary.LittleEndian.PutUint32(b[at:], uint32(len(b)))
		binary.LittleEndian.PutUint32(b[at+4:], uint32(len(s)))
		b = append(b, s...)
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

func TestNoAllocations(t *testing.T) {
	targets := encode([]string{"a", "b", "c"}, []int64{1, 2, 3})
	i, b := postern.NewInstance(&plugin{written: []bool{false}}, &fair{}), frame(abi.EventRequest, postern.Route, targets.Raw(), abi.AppendString(nil, ""))
	run := func() {
		if action, ops := i.On(copy(i.Frame(), b)); action != abi.ActionContinue || len(ops) == 0 {
			t.Fatalf("action %d, %q", action, ops)
		}
	}
	run()
	if n := testing.AllocsPerRun(100, run); n > 0 {
		t.Errorf("%v allocations for one event", n)
	}
}

package main

import (
	"encoding/binary"
	"github.com/postern-gateway/postern/sdk/abi"
	"reflect"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	gatewayplugin "github.com/postern-gateway/postern/gateway/plugin"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

func TestPlugin(t *testing.T) {
	call := func(account string) *exchange.Exchange {
		x := &exchange.Exchange{Identity: exchange.Identity{Account: account}, Call: exchange.Call{Model: "small"}}
		x.Call.Max.Units[exchange.Input], x.Call.Max.Units[exchange.Output] = 10, 90
		return x
	}
	served := func(estimated bool, units ...int64) func(x *exchange.Exchange) {
		return func(x *exchange.Exchange) {
			copy(x.Usage.Units[:], units)
			x.Usage.Estimated, x.Upstream, x.Response.Status = estimated, "openai", 200
		}
	}
	hold := plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
		if o.World.Balance("a") != 0 || string(o.Carry) != "hold-1" {
			t.Errorf("balance %d, carry %q", o.World.Balance("a"), o.Carry)
		}
	}}
	ended := func(balance int64, want plugintest.Hold) plugintest.Want {
		return plugintest.Want{Check: func(t *testing.T, o *plugintest.Outcome) {
			got := o.World.Holds()["hold-1"]
			got.Max, got.Account, got.Model, got.Amount, got.Used.Units = exchange.Usage{}, "", "", 0, [exchange.UnitCount]int64{}
			if len(got.Tags) == 0 {
				got.Tags = nil
			}
			if o.World.Balance("a") != balance || !reflect.DeepEqual(got, want) {
				t.Errorf("balance %d, want %d; hold %+v, want %+v", o.World.Balance("a"), balance, got, want)
			}
		}}
	}
	admit, tagged := plugintest.Stage{Phase: exchange.Admit}, plugintest.Stage{Phase: exchange.AccountPhase, Config: "tags = { model = response.usage.model, who = identity.account }"}
	plain := []plugintest.Stage{admit, {Phase: exchange.AccountPhase}}
	balances := map[string]int64{"a": 100, "poor": 99}
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }, Stages: plain}, []plugintest.Case{
		{Name: "settles", Exchange: call("a"), Balances: balances, Events: []plugintest.Event{
			{Want: hold}, {Stage: 1, Before: served(false, 5, 0, 0, 0, 0, 0, 20), Want: ended(75, plugintest.Hold{Settled: true, Charged: 25})},
		}},
		{Name: "once", Exchange: call("a"), Balances: balances, Events: []plugintest.Event{
			{Want: hold},
			{Stage: 1, Before: served(false, 5), Want: ended(95, plugintest.Hold{Settled: true, Charged: 5})},
			{Stage: 1, Want: ended(95, plugintest.Hold{Settled: true, Charged: 5})},
		}},
		{Name: "tags and estimates", Stages: []plugintest.Stage{admit, tagged}, Exchange: call("a"), Balances: balances, Events: []plugintest.Event{
			{Want: hold}, {Stage: 1, Before: served(true, 5), Want: ended(95, plugintest.Hold{Settled: true, Charged: 5, Used: exchange.Usage{Estimated: true}, Tags: map[string]string{"model": "small", "who": "a"}})},
		}},
		{Name: "more than held", Exchange: call("a"), Balances: balances, Events: []plugintest.Event{
			{Want: hold}, {Stage: 1, Before: served(false, 500), Want: ended(0, plugintest.Hold{Settled: true, Charged: 100})},
		}},
		{Name: "nothing served", Exchange: call("a"), Balances: balances, Events: []plugintest.Event{
			{Want: hold}, {Stage: 1, Want: ended(100, plugintest.Hold{Released: true})},
		}},
		{Name: "client has gone", Exchange: call("a"), Balances: balances, Events: []plugintest.Event{
			{Want: hold}, {Stage: 1, Gone: true, Before: served(true, 7), Want: ended(93, plugintest.Hold{Settled: true, Charged: 7, Used: exchange.Usage{Estimated: true}})},
		}},
		{Name: "by the attribute", Exchange: call("a"), Balances: balances, Events: []plugintest.Event{
			{Want: hold}, {Stage: 1, Exchange: func() *exchange.Exchange { x := call("a"); x.Hold = "hold-1"; served(false, 1)(x); return x }(), Want: ended(99, plugintest.Hold{Settled: true, Charged: 1})},
		}},
		{Name: "too little", Exchange: call("poor"), Balances: balances, Events: []plugintest.Event{
			{Want: plugintest.Want{Respond: 402, Code: "insufficient_balance"}}, {Stage: 1},
		}},
		{Name: "no balance at all", Exchange: call("nobody"), Events: []plugintest.Event{{Want: plugintest.Want{Respond: 402, Code: "insufficient_balance"}}}},
		{Name: "nobody", Exchange: call(""), Events: []plugintest.Event{{Want: plugintest.Want{Fault: gatewayplugin.Refused}}}},
		{Name: "nothing held", Exchange: call("a"), Balances: balances, Events: []plugintest.Event{{Stage: 1, Before: served(false, 5)}}},
	})
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

// host answers every operation with the same.
type host struct{ answer []byte }

func (host) Log(int, string)                      {}
func (h host) Op(_ abi.Code, _, out []byte) int64 { return int64(copy(out, h.answer)) }

func TestNoAllocations(t *testing.T) {
	answer := abi.AppendString(abi.AppendKey(abi.AppendObject(nil, 1), "hold"), "hold-1")
	text := abi.AppendString(nil, "a")
	i, b := postern.NewInstance(new(plugin), host{answer}), frame(abi.EventRequest, postern.Admit, text, text, abi.AppendInt(abi.AppendList(nil, 1), 5))
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

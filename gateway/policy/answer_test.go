package policy

import (
	"errors"
	"runtime"
	"slices"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/sdk/abi"
)

// The gateway's own answers are shown to the stages that asked for them, with what they carried, and nothing but the
// header can be changed.
func TestAnswer(t *testing.T) {
	t.Parallel()
	set := func(name, value string) guest {
		return func(ev *plugin.Event, res *plugin.Result) error {
			if ev.Kind == abi.EventResponse {
				if ev.Exchange.Response.Status != 429 || ev.Exchange.Response.Header.Get("x-first") != "1" {
					t.Errorf("%d %v is shown", ev.Exchange.Response.Status, ev.Exchange.Response.Header)
				}
				value += string(ev.Carry)
			}
			res.Ops = append(res.Ops, op(abi.OpHeaderSet, name, value))
			return nil
		}
	}
	carry := func(_ *plugin.Event, res *plugin.Result) error {
		res.Ops = append(res.Ops, op(abi.OpCarry, "", "+carried"))
		return nil
	}
	at := func(g guest, answers bool) use {
		return use{phase: exchange.ResponsePhase, run: g, answers: answers}
	}
	x := newExchange("")
	run := chainOf(t,
		use{phase: exchange.Admit, run: carry},
		at(set("x-a", "1"), true),
		at(set("x-b", "1"), false),
		at(func(_ *plugin.Event, res *plugin.Result) error {
			res.Ops = append(res.Ops, op(abi.OpHeaderSet, "x-c", "1"), op(abi.OpHeaderSet, "Bad Name", "1"))
			return nil
		}, true),
		at(func(_ *plugin.Event, res *plugin.Result) error {
			res.Action = abi.ActionRespond
			res.Ops = append(res.Ops, respond(500, "instead", ""), op(abi.OpHeaderSet, "x-d", "1"))
			return nil
		}, true),
		at(func(_ *plugin.Event, res *plugin.Result) error {
			res.Ops = append(res.Ops, op(abi.OpHeaderRemove, "x-first", ""), op(abi.OpHeaderAdd, "x-e", "1"))
			return nil
		}, true),
	).Start(x, 0)
	if p := run.Phase(t.Context(), exchange.Admit); p != nil {
		t.Fatal(p)
	}
	before := exchange.Header{{Name: "x-first", Value: "1"}}
	given := before
	run.Answer(t.Context(), 429, &given)
	want := exchange.Header{{Name: "x-a", Value: "1+carried"}, {Name: "x-e", Value: "1"}}
	if !slices.Equal(given, want) {
		t.Errorf("answered with %v, want %v", given, want)
	}
	if before.Get("x-first") != "1" || x.Response.Status != 0 || x.Response.Header != nil {
		t.Errorf("the problem's own header became %v, the response %d %v", before, x.Response.Status, x.Response.Header)
	}
}

// What a large result took is not kept for the exchange's life, whether it was applied or not.
func TestLargeResults(t *testing.T) {
	const size = 1 << 20
	var before, after runtime.MemStats
	for name, answer := range map[string]error{"applied": nil, "refused": errors.New("no")} {
		large := func(_ *plugin.Event, res *plugin.Result) error {
			res.Ops = append(res.Ops, plugin.Op{Code: abi.OpBodyReplace, Value: res.Copy(make([]byte, size))})
			if answer == nil {
				res.Ops = res.Ops[:0]
			}
			return answer
		}
		chain := chainOf(t, use{phase: exchange.RequestPhase, run: large, allow: true})
		runtime.GC()
		runtime.ReadMemStats(&before)
		runs := make([]*Run, 32)
		for i := range runs {
			runs[i] = chain.Start(newExchange(""), 0)
			if p := runs[i].Phase(t.Context(), exchange.RequestPhase); p != nil {
				t.Fatal(p)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > int64(len(runs))*size/4 {
			t.Errorf("%s: %d open exchanges hold %d octets", name, len(runs), grown)
		}
		runtime.KeepAlive(runs)
	}
}

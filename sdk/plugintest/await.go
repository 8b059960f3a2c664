package plugintest

import (
	"context"
	"slices"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/fetch"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/project/world"
	"github.com/postern-gateway/postern/sdk/abi"
)

// Fetched is an answer to a fetch: its status, or its error, one of abi.FetchDenied and its like.
type Fetched = fetch.Answer

// Asked is one fetch that a plugin made.
type Asked = world.Asked

// event gives an event to the plugin, and answers what it awaits as the World was told, until it awaits no more.
func (c *Config) event(ctx context.Context, w *World, call caller, x *exchange.Exchange, phase exchange.Phase, ev *plugin.Event) *Outcome {
	var res plugin.Result
	var asked []Asked
	meters, carry := map[string]int64{}, ev.Carry
	var carried []byte
	err := call.Call(ctx, ev, &res)
	for round := 1; err == nil && res.Action == abi.ActionAwait; round++ {
		o := apply(x, phase, ev, &res, nil)
		for name, n := range o.Meters {
			meters[name] += n
		}
		if o.Carry != nil {
			carry, carried = o.Carry, o.Carry
		}
		var calls []fetch.Call
		for _, op := range res.Ops {
			if op.Code == abi.OpFetch {
				calls = append(calls, fetch.Call{Name: string(op.Key), Value: slices.Clone(op.Value)})
			}
		}
		answers := c.answers(ctx, w, calls)
		asked = append(asked, w.Asked()...)
		err = call.Call(ctx, &plugin.Event{
			Kind: abi.EventFetched, Stage: ev.Stage, Exchange: x, Carry: carry, Gone: ev.Gone, HasBody: true, Body: answers, Awaited: round,
		}, &res)
	}
	o := apply(x, phase, ev, &res, err)
	for name, n := range meters {
		if o.Meters == nil {
			o.Meters = map[string]int64{}
		}
		o.Meters[name] += n
	}
	if o.Carry == nil {
		o.Carry = carried
	}
	o.Fetches = asked
	return o
}

// answers is the World's, or where the plugin was not granted to ask, what the gateway says then.
func (c *Config) answers(ctx context.Context, w *World, calls []fetch.Call) []byte {
	do := w.Do
	if !slices.Contains(c.compiled.Grants, "fetch") {
		do = (*fetch.Fetcher)(nil).Do
	}
	a, err := do(ctx, calls)
	if err != nil {
		return nil // neither has a way to fail
	}
	return a.Value
}

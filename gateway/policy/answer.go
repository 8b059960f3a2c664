package policy

import (
	"context"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/sdk/abi"
)

// Answer shows the head of an answer of the gateway's own, such as a problem, to the response stages whose hook says
// answers = true. They can change its header and nothing else; one that fails has changed nothing and the answer is given
// all the same, because it mostly is a refusal already. To be called once, after everything else in the Run.
func (r *Run) Answer(ctx context.Context, status int, header *exchange.Header) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.turn()
	defer t.over()
	for _, s := range r.chain.phases[exchange.ResponsePhase] {
		if s.Plugin == nil || !s.Hook.Answers || r.isDone(s) {
			continue
		}
		r.x.Response.Status, r.x.Response.Header = status, header.Clone()
		if s.When != nil {
			holds, err := s.When.Bool(r.x)
			if err != nil {
				_ = r.failed(ctx, s, "expression", err)
			}
			if !holds {
				continue
			}
		}
		t.pause()
		t.event = plugin.Event{Kind: abi.EventResponse, Stage: s.number, Exchange: r.x, Carry: r.carry(s), Gone: r.gone}
		if t.call(ctx, s) != nil {
			continue
		}
		if t.result.Action == abi.ActionRespond {
			_ = r.failed(ctx, s, string(plugin.Protocol), plugin.Broke("an answer in the place of the gateway's own"))
			continue
		}
		_, _ = t.apply(s, nil)
		*header = r.x.Response.Header
	}
	r.x.Response.Status, r.x.Response.Header = 0, nil
}

package server

import (
	"context"
	"errors"
	"slices"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/creation"
	"github.com/postern-gateway/postern/gateway/deadline"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/handler"
	"github.com/postern-gateway/postern/gateway/overload"
	"github.com/postern-gateway/postern/gateway/policy"
	"github.com/postern-gateway/postern/gateway/provider"
	"github.com/postern-gateway/postern/gateway/proxy"
	"github.com/postern-gateway/postern/gateway/replay"
	"github.com/postern-gateway/postern/gateway/route"
	"github.com/postern-gateway/postern/gateway/upstream"
)

// way is one exchange on its way through one route. It fills in what proxy asks of the chain and of the ledger.
type way struct {
	server    *Server
	snapshot  *snapshot
	route     *served
	run       *policy.Run
	x         *exchange.Exchange
	params    *route.Params
	model     *config.Model // the public model of a model call
	visit     overload.Visit
	deadline  deadline.Context
	accounted bool
	claim     *replay.Claim      // of the call's idempotency key; nil without one
	replayed  bool               // the call was answered by the reply to an earlier one
	recorder  *creation.Recorder // of a reply that is kept for its caller; nil without one
}

// readCall finds out what a model call asks for: which public model, what it can use at most, which targets can serve it.
func (w *way) readCall(ctx context.Context) *exchange.Problem {
	r, x := w.route, w.x
	if !r.operation.Billed {
		x.Call = exchange.Call{Format: r.format.Name(), Operation: r.operation.Name}
		return nil
	}
	body, problem := w.run.Whole(ctx)
	if problem != nil {
		return problem
	}
	call, problem := r.format.Read(r.operation, x.Request.Header, body, 0)
	if problem != nil {
		return problem
	}
	if w.model, problem = w.named(call.Model); problem != nil {
		return problem
	}
	if call, problem = r.format.Read(r.operation, x.Request.Header, body, w.model.MaxOutput); problem != nil {
		return problem
	}
	// It was read as JSON. Whoever reads it next, a stage that looks for personal data or the provider, must not be told
	// that it is something else: another reading is how a stage would be talked around.
	x.Request.Header.Set("content-type", "application/json")
	call.Price = w.model.PriceAt(x.Start)
	for _, t := range w.model.Targets {
		if t.When != nil {
			holds, err := t.When.Bool(x)
			if err != nil || !holds {
				continue
			}
		}
		call.Targets = append(call.Targets, exchange.Target{
			Upstream: t.Upstream.Name, Model: t.Model, Weight: t.Weight, Healthy: w.snapshot.upstreams[t.Upstream.Name].Usable(),
		})
	}
	if !slices.ContainsFunc(call.Targets, func(t exchange.Target) bool { return t.Healthy }) {
		// All are ejected for failed calls, or fail their checks: the first are tried rather than none.
		for i := range call.Targets {
			call.Targets[i].Healthy = w.snapshot.upstreams[call.Targets[i].Upstream].Reachable()
		}
	}
	x.Call = call
	if len(call.Targets) == 0 {
		return &exchange.Problem{Status: 503, Code: "no_target", Title: "Nothing serves this model for this request."}
	}
	return w.targetsHaveRoom()
}

// named finds a public model of the route by name. One that the caller's key does not allow is answered as one that there
// is not: whoever is given a key for some models is not told what others there are.
func (w *way) named(name string) (*config.Model, *exchange.Problem) {
	allows := w.x.Identity.Allows
	i := slices.IndexFunc(w.route.Models, func(m *config.Model) bool { return m.Name == name })
	if i >= 0 && allows.Model(name) {
		return w.route.Models[i], nil
	}
	p := &exchange.Problem{Status: 404, Code: "model_not_found", Title: "There is no such model.", Param: "model",
		Detail: "The model " + quote(name) + " does not exist or is not served here."}
	if allows != nil && len(allows.Models) > 0 {
		p.Detail = "The model " + quote(name) + " does not exist, or is none of those that this API key may be used for."
	}
	return nil, p
}

// quote shows what a caller sent back to it, bounded.
func quote(s string) string {
	if len(s) > 100 {
		s = s[:100] + "..."
	}
	return "\"" + s + "\""
}

// list answers what models there are, from the configuration.
func (w *way) list(ctx context.Context) *exchange.Problem {
	x := w.x
	name := ""
	if names := w.route.Pattern.Names(); len(names) > 0 {
		name = w.params.Get(names[len(names)-1])
	}
	infos := make([]provider.ModelInfo, 0, len(w.route.Models))
	for _, m := range w.route.Models {
		if !x.Identity.Allows.Model(m.Name) {
			continue
		}
		info := provider.ModelInfo{Name: m.Name, Summary: m.Summary}
		if p := m.PriceAt(x.Start); p != nil && !p.Effective.IsZero() {
			info.Created = p.Effective.Unix()
		}
		infos = append(infos, info)
	}
	contentType, body, found := w.route.format.Models(infos, name)
	if !found {
		_, problem := w.named(name)
		return problem
	}
	send(ctx, x, 200, exchange.Header{{Name: "content-type", Value: contentType}, {Name: "postern-exchange", Value: x.ID}}, body)
	return nil
}

// forward takes the exchange to where its route leads.
func (w *way) forward(ctx context.Context) *exchange.Problem {
	r, x := w.route, w.x
	hop := &proxy.Hop{Stages: w, Journal: w, Priority: r.Priority}
	if r.Creations != nil && x.Identity.Known() && creation.Asked(x) {
		w.recorder = w.server.storage.Creations.Record(x, creation.Terms(*r.Creations), r.format)
	}
	switch {
	case r.Respond != nil:
		return w.respond(ctx)
	case r.Console:
		return w.page(ctx)
	case r.format != nil && !r.operation.Billed:
		return w.list(ctx)
	case r.format != nil:
		body, problem := w.run.Whole(ctx) // as the request stages left it
		if problem != nil {
			return problem
		}
		hop.Model = &proxy.Model{
			Format: r.format, Operation: r.operation, Body: body, OnDisconnect: r.OnDisconnect,
			Resolve: func(name string) (*upstream.Upstream, bool) {
				u, ok := w.snapshot.upstreams[name]
				return u, ok
			},
		}
	default:
		hop.Upstream = w.snapshot.upstreams[r.Upstream.Name]
	}
	err := w.server.forwarder.Forward(ctx, x, hop)
	if err == nil {
		return nil
	}
	var problem *exchange.Problem
	if errors.As(err, &problem) {
		return problem
	}
	code := "reply_cut"
	switch {
	case errors.Is(err, overload.ErrSlowReader):
		code = "client_slow"
	case errors.Is(err, exchange.ErrClientGone):
		code = "client_gone"
	}
	x.Problem = &exchange.Problem{Status: x.Response.Status, Code: code, Title: "The reply was broken off."}
	x.Response.Started = true // broken off: there is nobody to answer, or nothing that would be believed
	return nil
}

// Response runs the response stages on the head.
func (w *way) Response(ctx context.Context, _ *exchange.Exchange) (proxy.Filter, error) {
	w.x.Response.Header.Set("postern-exchange", w.x.ID)
	filter, problem := w.run.Response(ctx)
	switch {
	case problem != nil:
		return nil, problem
	case filter != nil:
		return filter, nil
	}
	return nil, nil
}

// respond gives the route's fixed answer, by the response stages.
func (w *way) respond(ctx context.Context) *exchange.Problem {
	x, fixed := w.x, w.route.Respond
	x.Response = exchange.Response{Status: fixed.Status, Header: fixed.Headers.Clone(), Length: int64(len(fixed.Body))}
	x.Response.Header.Set("postern-exchange", x.ID)
	filter, problem := w.run.Response(ctx)
	if problem != nil {
		return problem
	}
	body := []byte(fixed.Body)
	if filter != nil {
		var err error
		if body, err = filter.Filter(ctx, nil, body, true); err != nil {
			return problemOf(err)
		}
	}
	send(ctx, x, x.Response.Status, x.Response.Header, body)
	return nil
}

// page has the console answer, by the response stages.
func (w *way) page(ctx context.Context) *exchange.Problem {
	body, problem := w.run.Whole(ctx)
	if problem != nil {
		return problem
	}
	hop := &handler.Hop{Handler: w.server.console, Body: body, Head: func(ctx context.Context) (handler.Filter, *exchange.Problem) {
		w.x.Response.Header.Set("postern-exchange", w.x.ID)
		filter, problem := w.run.Response(ctx)
		if problem != nil || filter == nil {
			return nil, problem
		}
		return filter.Filter, nil
	}}
	return hop.Serve(ctx, w.x)
}

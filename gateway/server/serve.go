package server

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/policy"
	"github.com/postern-gateway/postern/gateway/route"
	"github.com/postern-gateway/postern/gateway/telemetry"
)

// accountTime bounds settling after the exchange, when the client may have gone.
const accountTime = 30 * time.Second

// Serve is a request's whole way, top to bottom. It returns when the reply is complete or broken off and the call has been
// accounted for.
func (s *Server) Serve(ctx context.Context, x *exchange.Exchange) {
	snapshot := s.acquire()
	defer snapshot.release()
	x.Start = time.Now()
	s.telemetry.Metrics.Start()
	ctx, span := s.startSpan(ctx, x)

	var params route.Params
	r, problem := snapshot.match(x, &params)
	if problem != nil {
		answer(ctx, x, nil, problem)
		s.finish(ctx, span, snapshot.unmatched, x)
		return
	}
	x.Route = r.Name
	way := &way{server: s, snapshot: snapshot, route: r, x: x, params: &params}
	defer way.visit.Leave()
	if problem = way.admit(ctx); problem != nil {
		answer(ctx, x, r.format, problem)
		s.finish(ctx, span, r.metrics, x)
		return
	}
	if r.Timeout > 0 {
		ctx = way.deadline.Begin(ctx, r.Timeout)
		defer way.deadline.End()
	}
	way.run = r.chain.Start(x, r.bodyLimit(x.Listener))
	defer way.conclude(ctx)
	defer way.recovered(ctx, span)
	if problem = way.request(ctx); problem == nil && !way.replayed {
		problem = way.forward(ctx)
	}
	if problem != nil && !x.Response.Started {
		way.run.Answer(ctx, problem.Status, &problem.Header)
	}
	way.Account(ctx, x)
	if problem != nil && !x.Response.Started {
		answer(ctx, x, r.format, problem)
	} else if problem != nil {
		x.Problem = problem
	}
	s.finish(ctx, span, r.metrics, x)
}

// recovered accounts for an exchange whose handling panics, and lets the panic go on to the listener, which breaks the
// reply off: a fault of the gateway costs its exchange and never leaves money held.
func (w *way) recovered(ctx context.Context, span trace.Span) {
	v := recover()
	if v == nil {
		return
	}
	w.x.Problem = &exchange.Problem{Status: 500, Code: "internal_error", Title: "The gateway failed."}
	w.Account(ctx, w.x)
	w.server.finish(ctx, span, w.route.metrics, w.x)
	panic(v)
}

// match finds the route: the most specific pattern whose when holds.
func (s *snapshot) match(x *exchange.Exchange, params *route.Params) (*served, *exchange.Problem) {
	table := s.tables[x.Listener]
	if table == nil {
		return nil, notFound()
	}
	q := &x.Request
	var failure error
	accept := func(r *served) bool {
		if r.When == nil || failure != nil {
			return true
		}
		x.Route = r.Name
		var holds bool
		holds, failure = r.When.Bool(x)
		return holds || failure != nil // a condition that fails ends the search: what it guards may not fall to another route
	}
	r, ok := table.Match(q.Method, q.Authority, q.Path, params, accept)
	if ok && failure == nil {
		return r, nil
	}
	var allowed []string
	if failure == nil {
		allowed = table.Allowed(q.Authority, q.Path, accept)
	}
	x.Route = ""
	switch {
	case failure != nil:
		return nil, &exchange.Problem{Status: 500, Code: "route_condition_failed", Title: "It could not be decided where the request goes."}
	case len(allowed) > 0:
		return nil, &exchange.Problem{Status: 405, Code: "method_not_allowed", Title: "The method is not served at this address.",
			Header: exchange.Header{{Name: "allow", Value: strings.Join(allowed, ", ")}}}
	}
	return nil, notFound()
}

func notFound() *exchange.Problem {
	return &exchange.Problem{Status: 404, Code: "not_found", Title: "Nothing is served at this address."}
}

// request runs the phases before the request goes out. On model routes the body is read once it is clear who calls.
func (w *way) request(ctx context.Context) *exchange.Problem {
	for phase := exchange.Authenticate; phase <= exchange.RequestPhase; phase++ {
		if phase == exchange.Admit && w.route.format != nil {
			if p := w.recall(ctx); p != nil || w.replayed {
				return p
			}
			if p := w.readCall(ctx); p != nil {
				return p
			}
		}
		p := w.run.Phase(ctx, phase)
		if w.x.Denied != nil { // it says more than a stage can, and holds where a stage lets pass
			p = w.x.Denied
		}
		if p == nil && phase == exchange.Authenticate {
			p = w.server.storage.Accounts.Admit(w.x)
		}
		if p != nil {
			return p
		}
	}
	if w.route.chain.Filters() {
		// What stages are to read must not come compressed.
		w.x.Request.Header.Set("accept-encoding", "identity")
	}
	return nil
}

// finish writes what is kept of an exchange: metrics, the access log, the span. None of it is personal data.
func (s *Server) finish(ctx context.Context, span trace.Span, m *telemetry.Route, x *exchange.Exchange) {
	took := time.Since(x.Start)
	s.storage.Usage.Note(x, took)
	code := ""
	if x.Problem != nil {
		code = x.Problem.Code
	}
	metrics := s.telemetry.Metrics
	metrics.End(m, x.Listener, x.Request.Protocol.String(), x.Response.Status, code, x.Response.Sent, took)
	if x.Attempts > 0 {
		metrics.Attempts(x.Upstream, x.Attempts)
	}
	if x.Receipt != nil {
		for u, n := range x.Usage.Units {
			if n > 0 {
				metrics.Units(x.Receipt.Model, exchange.Unit(u).String(), n, x.Usage.Estimated)
			}
		}
	}
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("http.request.method", x.Request.Method),
			attribute.String("http.route", x.Route),
			attribute.Int("http.response.status_code", x.Response.Status),
			attribute.String("network.protocol.version", x.Request.Protocol.String()),
			attribute.String("postern.exchange", x.ID),
			attribute.String("postern.upstream", x.Upstream),
			attribute.Int("postern.attempts", x.Attempts),
		)
		if x.Response.Status >= 500 {
			span.SetStatus(codes.Error, code)
		}
	}
	span.End()
	if !s.accessLog.Load() {
		return
	}
	list := make([]slog.Attr, 0, 16)
	list = append(list,
		slog.String("exchange", x.ID),
		slog.String("listener", x.Listener),
		slog.String("route", x.Route),
		slog.String("protocol", x.Request.Protocol.String()),
		slog.String("method", method(x.Request.Method)),
		slog.Int("status", x.Response.Status),
		slog.Float64("took_ms", float64(took.Microseconds())/1000),
		slog.Int64("sent", x.Response.Sent),
	)
	if x.Attempts > 0 {
		list = append(list, slog.String("upstream", x.Upstream), slog.Int("attempts", x.Attempts))
	}
	if code != "" {
		list = append(list, slog.String("problem", code))
	}
	if x.Refused != "" {
		list = append(list, slog.String("refused", x.Refused))
	}
	if x.Answered != "" {
		list = append(list, slog.String("stage", x.Answered))
	}
	if x.Fuel > 0 {
		list = append(list, slog.Int64("fuel", x.Fuel))
	}
	if x.Receipt != nil {
		list = append(list, slog.String("model", x.Receipt.Model), slog.Int64("prompt", x.Usage.Prompt()),
			slog.Int64("completion", x.Usage.Completion()), slog.Bool("estimated", x.Usage.Estimated))
	}
	s.telemetry.Log.LogAttrs(ctx, slog.LevelInfo, "exchange", list...)
}

// method keeps words that a client made up out of the log.
func method(m string) string {
	if slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}, m) {
		return m
	}
	return "other"
}

func (s *Server) startSpan(ctx context.Context, x *exchange.Exchange) (context.Context, trace.Span) {
	if !s.telemetry.Traces() {
		return ctx, trace.SpanFromContext(ctx)
	}
	ctx = s.telemetry.Context.Extract(ctx, carrier{&x.Request.Header})
	ctx, span := s.telemetry.Tracer.Start(ctx, "exchange", trace.WithSpanKind(trace.SpanKindServer))
	s.telemetry.Context.Inject(ctx, carrier{&x.Request.Header})
	return ctx, span
}

// carrier lets trace context be read from and written to the request that goes on.
type carrier struct{ header *exchange.Header }

var _ propagation.TextMapCarrier = carrier{}

func (c carrier) Get(key string) string { return c.header.Get(strings.ToLower(key)) }
func (c carrier) Set(key, value string) { c.header.Set(strings.ToLower(key), value) }
func (c carrier) Keys() []string {
	keys := make([]string, 0, len(*c.header))
	for _, f := range *c.header {
		keys = append(keys, f.Name)
	}
	return keys
}

// problemOf is the problem an error carries, or a plain one that leaks nothing of it.
func problemOf(err error) *exchange.Problem {
	var p *exchange.Problem
	if errors.As(err, &p) {
		return p
	}
	if errors.Is(err, exchange.ErrClientBody) || errors.Is(err, exchange.ErrBodyTooLarge) || errors.Is(err, exchange.ErrBodyTimeout) {
		return policy.BodyProblem(err)
	}
	return &exchange.Problem{Status: 502, Code: "bad_gateway", Title: "The request could not be passed on."}
}

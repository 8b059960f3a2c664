package policy

import (
	"context"
	"errors"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/sdk/abi"
)

// chunkSize is how much of a streamed request body a stage gets at once.
const chunkSize = 32 << 10

// Whole reads the request body to its end and keeps it, so that it can be read again. The bytes must not be changed.
func (r *Run) Whole(ctx context.Context) ([]byte, *exchange.Problem) {
	if p := r.wholeBody(ctx); p != nil {
		return nil, p
	}
	return r.buffered, nil
}

func (r *Run) wholeBody(context.Context) *exchange.Problem {
	if r.whole {
		return nil
	}
	b, err := exchange.ReadBody(r.x.Request.Body, r.x.Request.Length, r.limit)
	if err != nil {
		return BodyProblem(err)
	}
	r.setBody(b)
	return nil
}

func (r *Run) setBody(b []byte) {
	r.buffered, r.whole = b, true
	r.x.Request.Body, r.x.Request.Length = exchange.NewBytes(b), int64(len(b))
}

// BodyProblem is the answer to a request whose body could not be read.
func BodyProblem(err error) *exchange.Problem {
	var p *exchange.Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, exchange.ErrBodyTooLarge):
		return &exchange.Problem{Status: 413, Code: "body_too_large", Title: "The request body is larger than is taken here."}
	case errors.Is(err, exchange.ErrBodyTimeout):
		return &exchange.Problem{Status: 408, Code: "body_timeout", Title: "The request body did not come in time."}
	}
	return &exchange.Problem{Status: 400, Code: "bad_body", Title: "The request body is broken."}
}

// wrapBody puts a stage between the request body and whoever reads it.
func (r *Run) wrapBody(ctx context.Context, s *stage) {
	r.x.Request.Body = &requestBody{ctx: ctx, run: r, stage: s, inner: r.x.Request.Body}
	r.x.Request.Length = -1
	r.whole, r.buffered = false, nil
}

// requestBody shows a streamed request body to a stage as it passes.
type requestBody struct {
	ctx   context.Context
	run   *Run
	stage *stage
	inner exchange.Body
	chunk []byte // what the stage let through and was not read yet
	in    [chunkSize]byte
	err   error
}

func (b *requestBody) Read(p []byte) (int, error) {
	for len(b.chunk) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		n, err := b.inner.Read(b.in[:])
		if err != nil && !exchange.AtEnd(err) {
			b.err = err
			return 0, err
		}
		if n == 0 && err == nil {
			continue
		}
		out, problem := b.run.pass(b.ctx, b.stage, abi.EventRequestBody, b.in[:n], exchange.AtEnd(err), false)
		if problem != nil {
			b.err = problem
			return 0, problem
		}
		b.chunk, b.err = out, err
	}
	n := copy(p, b.chunk)
	b.chunk = b.chunk[n:]
	return n, nil
}

func (b *requestBody) Close() error             { return b.inner.Close() }
func (b *requestBody) Trailer() exchange.Header { return b.inner.Trailer() }

// pass shows part of a body to a stage and returns what becomes of it.
func (r *Run) pass(ctx context.Context, s *stage, kind abi.Event, part []byte, end, stream bool) ([]byte, *exchange.Problem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isDone(s) {
		return part, nil
	}
	t := r.turn()
	defer t.over()
	t.event = plugin.Event{Kind: kind, Stage: s.number, Exchange: r.x, Carry: r.carry(s), HasBody: true, Body: part, End: end, Stream: stream}
	if p := t.call(ctx, s); p != nil {
		return nil, p
	}
	out, p := t.apply(s, part)
	if p != nil {
		return nil, p
	}
	return out.body, nil
}

// Filter takes a response body through the stages that look at it, in their order.
type Filter struct {
	run    *Run
	stages []filterStage
	stream bool
}

type filterStage struct {
	*stage
	skip bool
	held []byte // body mode buffer: what has come so far
}

func (r *Run) filter() *Filter {
	var f *Filter
	for _, s := range r.chain.phases[exchange.ResponsePhase] {
		if s.Plugin == nil || s.Hook.Sees.Body.Mode == manifest.BodyNone || r.isDone(s) {
			continue
		}
		if s.When != nil {
			if holds, err := s.When.Bool(r.x); err != nil || !holds {
				continue // a fault of when has been answered at the head already
			}
		}
		if f == nil {
			f = &Filter{run: r, stream: r.x.Response.Header.EventStream()}
		}
		f.stages = append(f.stages, filterStage{stage: s})
	}
	return f
}

// Events reports whether a stage wants whole server-sent events instead of arbitrary chunks.
func (f *Filter) Events() bool {
	if !f.stream {
		return false
	}
	for i := range f.stages {
		if f.stages[i].Hook.Sees.Body.Mode == manifest.BodyEvents {
			return true
		}
	}
	return false
}

// Filter appends to dst what becomes of part. end tells that nothing follows. An error means that the body can not go
// on: the reply has to be broken off.
func (f *Filter) Filter(ctx context.Context, dst, part []byte, end bool) ([]byte, error) {
	for i := range f.stages {
		s := &f.stages[i]
		if s.skip {
			continue
		}
		if s.Hook.Sees.Body.Mode == manifest.BodyBuffer {
			s.held = append(s.held, part...)
			if int64(len(s.held)) > s.Hook.Sees.Body.Max {
				err := &plugin.Fault{Plugin: s.Plugin.Name, Phase: s.Phase, Kind: plugin.Protocol, Detail: "the response body is longer than the plugin's manifest takes"}
				if p := f.run.failed(ctx, s.stage, string(err.Kind), err); p != nil {
					return dst, p
				}
				part, s.held, s.skip = s.held, nil, true
				continue
			}
			if !end {
				return dst, nil
			}
			part = s.held
		}
		if len(part) == 0 && !end {
			return dst, nil
		}
		out, problem := f.run.pass(ctx, s.stage, abi.EventResponseBody, part, end, f.stream)
		if problem != nil {
			return dst, problem
		}
		part = out
	}
	return append(dst, part...), nil
}

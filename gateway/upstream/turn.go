package upstream

import (
	"context"
	"errors"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/overload"
)

// Overload is the limiter of requests waiting for this upstream's answer; nil without one.
func (u *Upstream) Overload() *overload.Limiter { return u.limiter }

// Admit takes the turn of r's next attempt before RoundTrip would, for whoever has something to do in between that a refused
// request does not deserve. The error is an *Error of the kind Overloaded or Canceled. RoundTrip gives the turn back; so does
// Forgo, when there is no attempt after all.
func (u *Upstream) Admit(ctx context.Context, r *Request) error {
	if r.turn.Held() {
		return nil
	}
	switch reason := u.limiter.Enter(ctx, &r.turn, r.Priority, !r.Elsewhere); reason {
	case overload.Admitted:
	case overload.Gone:
		return &Error{Upstream: u.cfg.Name, Kind: Canceled, Err: context.Cause(ctx)}
	default:
		return &Error{Upstream: u.cfg.Name, Kind: Overloaded, Err: errors.New("too many requests wait for its answer: " + reason.String())}
	}
	if u.limiter != nil && r.Body != nil && r.Body != exchange.NoBody && r.arriving.Body == nil {
		if _, there := r.Body.(*exchange.Bytes); !there {
			r.arriving = arriving{Body: r.Body, turn: &r.turn}
			r.Body = &r.arriving
		}
	}
	return nil
}

// Forgo gives back what Admit took.
func (r *Request) Forgo() { r.turn.Leave(overload.NoAnswer) }

// RoundTrip makes one attempt: it waits for its turn, picks an endpoint, sends the request once and returns when the
// response's head is there. The body of the response must be closed; the request's body is not read any more once that was
// read to its end or closed. ctx ends the attempt at any time. Errors are *Error.
func (u *Upstream) RoundTrip(ctx context.Context, r *Request) (*Response, error) {
	if err := u.Admit(ctx, r); err != nil {
		return nil, err
	}
	resp, err := u.attempt(ctx, r)
	r.turn.Leave(answer(resp, err))
	return resp, err
}

// answer says what became of an attempt, for the limiter. A response that says that the upstream is ill tells nothing of its
// latency: failing is quick.
func answer(resp *Response, err error) overload.Answer {
	switch {
	case err != nil:
		if e := (*Error)(nil); errors.As(err, &e) && e.Kind == Timeout {
			return overload.Overloaded
		}
		return overload.NoAnswer
	case resp.Status == 429, resp.Status == 503, resp.Status == 504, resp.Status == 529:
		return overload.Overloaded
	case resp.Status >= 500:
		return overload.NoAnswer
	}
	return overload.Served
}

// arriving is a body that the client is still sending. While it is waited for, the upstream is not.
type arriving struct {
	exchange.Body
	turn *overload.Turn
}

func (a *arriving) Read(p []byte) (int, error) {
	a.turn.Pause()
	defer a.turn.Resume()
	return a.Body.Read(p)
}

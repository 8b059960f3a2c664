package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/overload"
	"github.com/postern-gateway/postern/gateway/upstream"
)

var errEventTooLarge = errors.New("server-sent event too large")

// gone says that the reply could not be written: the client has gone, or is too slow to be there.
func gone(err error) error {
	if errors.Is(err, exchange.ErrClientGone) {
		return err
	}
	return fmt.Errorf("%w: %w", exchange.ErrClientGone, err)
}

// left reports whether ctx ended because the client went, not because its time was over.
func left(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded)
}

// cut is the error for a response that broke off after it had begun.
func (f *Forwarder) cut(ctx context.Context, x *exchange.Exchange, err error) error {
	if left(ctx) {
		return gone(err)
	}
	f.log.Warn("response cut off", "exchange", x.ID, "route", x.Route, "upstream", x.Upstream, "error", err)
	return fmt.Errorf("response cut off: %w", err)
}

// failure is the error for an exchange that got no response: a problem, unless the client has gone. The problem says
// nothing of where the upstream is or how it failed in detail; the log does.
func (f *Forwarder) failure(ctx context.Context, x *exchange.Exchange, err error) error {
	var e *upstream.Error
	if !errors.As(err, &e) {
		return err
	}
	if left(ctx) || errors.Is(err, exchange.ErrClientGone) {
		return gone(err)
	}
	if e.Kind == upstream.Overloaded {
		x.Refused = "upstream"
		return problemOf(e) // the access log has it; under overload a second line of it each would be too much
	}
	f.log.Warn("upstream failed", "exchange", x.ID, "route", x.Route, "upstream", e.Upstream, "endpoint", e.Endpoint,
		"kind", string(e.Kind), "sent", e.Sent.String(), "error", e.Err)
	return problemOf(e)
}

// problemOf renders what became of an attempt for the caller.
func problemOf(e *upstream.Error) *exchange.Problem {
	switch e.Kind {
	case upstream.Client:
		switch {
		case errors.Is(e.Err, exchange.ErrBodyTooLarge):
			return &exchange.Problem{Status: 413, Code: "body_too_large", Title: "The request's body is larger than the limit"}
		case errors.Is(e.Err, exchange.ErrBodyTimeout):
			return &exchange.Problem{Status: 408, Code: "body_timeout", Title: "The request's body did not arrive in time"}
		}
		return &exchange.Problem{Status: 400, Code: "invalid_body", Title: "The request's body is broken"}
	case upstream.Connect:
		return &exchange.Problem{Status: 502, Code: "upstream_unreachable", Title: "The upstream can not be reached"}
	case upstream.Reset:
		return &exchange.Problem{Status: 502, Code: "upstream_reset", Title: "The upstream broke the connection off"}
	case upstream.Timeout, upstream.Canceled, upstream.Expired:
		return &exchange.Problem{Status: 504, Code: "upstream_timeout", Title: "The upstream did not answer in time"}
	case upstream.Busy:
		return &exchange.Problem{Status: 503, Code: "upstream_busy", Title: "Every connection to the upstream is in use", Retry: time.Second}
	case upstream.NoEndpoint, upstream.Closed:
		return &exchange.Problem{Status: 503, Code: "no_healthy_endpoint", Title: "The upstream is not available", Retry: 5 * time.Second}
	case upstream.Unsendable:
		return &exchange.Problem{Status: 502, Code: "request_unsendable", Title: "The request can not be sent to the upstream as it is"}
	case upstream.Overloaded:
		return Overloaded()
	case upstream.Upgrading:
		return &exchange.Problem{Status: 501, Code: "upgrade_not_possible", Title: "The upstream can not switch protocols"}
	}
	return &exchange.Problem{Status: 502, Code: "upstream_invalid", Title: "The upstream's answer can not be read"}
}

// Overloaded is the problem for a request that an upstream has no room for.
func Overloaded() *exchange.Problem {
	return overload.Full.Problem("upstream_overloaded", "Too much is asked of the upstream now")
}

// refused is the problem for an upstream that does not accept the gateway's own credentials, which is nothing a caller
// could mend.
func refused() *exchange.Problem {
	return &exchange.Problem{Status: 502, Code: "upstream_refused", Title: "The upstream refused the gateway"}
}

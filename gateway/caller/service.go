package caller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Service is who answers exchanges, whatever protocol they came by. It does not change once it is in use.
type Service struct {
	Log     *slog.Logger
	Handler func(ctx context.Context, x *exchange.Exchange)
	NewID   func() string                 // mints Exchange.ID
	Refused func(listener, reason string) // is told of requests that Handler is not shown
}

// Misuse of a reply, and of one that is over.
var (
	ErrOrder  = errors.New("reply: called out of order")
	ErrLength = errors.New("reply: body does not have the announced length")
	ErrOver   = errors.New("reply: broken off or over")
)

// Begin makes x an exchange of p's, as it is before anything of its request is known.
func (s *Service) Begin(x *exchange.Exchange, p *Peer, t *Terms, protocol exchange.Protocol, reply exchange.Reply) {
	x.ID, x.Start, x.Listener, x.Reply = s.NewID(), time.Now(), t.Listener, reply
	q := &x.Request
	q.Protocol, q.Scheme, q.Body, q.Remote, q.Local, q.TLS = protocol, "http", exchange.NoBody, p.Remote, p.Local, p.TLS
	if p.TLS != nil {
		q.Scheme = "https"
	}
}

// Invoke calls the handler. A panic costs its own exchange and nothing else. aborted says that the handler asked for the
// reply to be broken off by the panic that net/http has for it.
func (s *Service) Invoke(ctx context.Context, x *exchange.Exchange) (aborted bool) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if err, _ := v.(error); errors.Is(err, http.ErrAbortHandler) {
			aborted = true
			return
		}
		s.Log.Error("handler panicked", "exchange", x.ID, "listener", x.Listener,
			"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	}()
	s.Handler(ctx, x)
	return false
}

// Refuse answers what the handler is not shown.
func (s *Service) Refuse(x *exchange.Exchange, p *exchange.Problem) {
	s.Refused(x.Listener, p.Code)
	Answer(x, p)
}

// Failed is the answer in place of one that a handler owes.
func Failed() *exchange.Problem {
	return &exchange.Problem{Status: 500, Code: "internal_error", Title: "Internal error"}
}

// Answer replies with p as problem details. Errors are the client's loss.
func Answer(x *exchange.Exchange, p *exchange.Problem) {
	doc := p.JSON(x.ID)
	h := append(exchange.Header{
		{Name: "content-type", Value: exchange.ProblemType},
		{Name: "cache-control", Value: "no-store"},
		{Name: "postern-exchange", Value: x.ID},
	}, p.Header...)
	if x.Reply.Head(p.Status, h, int64(len(doc))) == nil {
		_, _ = x.Reply.Write(doc)
		_ = x.Reply.End(nil)
	}
}

// Gone makes what went wrong with a write the client's doing: there is nobody else at the other end.
func Gone(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", exchange.ErrClientGone, err)
}

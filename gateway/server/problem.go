package server

import (
	"context"
	"strconv"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/provider"
)

// answer sends what the gateway itself has to say: in the provider format's shape where the caller speaks one, else as
// problem details.
func answer(ctx context.Context, x *exchange.Exchange, format provider.Format, p *exchange.Problem) {
	x.Problem = p
	contentType, body := p.ContentType, p.Body
	switch {
	case contentType != "":
	case format != nil:
		contentType, body = format.Problem(p)
	default:
		contentType, body = exchange.ProblemType, p.JSON(x.ID)
	}
	h := make(exchange.Header, 0, len(p.Header)+4)
	h = append(h, p.Header...)
	h.Set("content-type", contentType)
	h.Set("cache-control", "no-store")
	h.Set("postern-exchange", x.ID)
	if p.Retry > 0 {
		h.Set("retry-after", strconv.FormatInt(int64((p.Retry+time.Second-1)/time.Second), 10))
	}
	send(ctx, x, p.Status, h, body)
}

// send gives the client a whole reply.
func send(_ context.Context, x *exchange.Exchange, status int, h exchange.Header, body []byte) {
	x.Response.Status, x.Response.Header = status, h
	x.Begin()
	if x.Reply.Head(status, h, int64(len(body))) != nil {
		x.Reply.Abort()
		return
	}
	if x.Request.Method != "HEAD" && len(body) > 0 {
		n, err := x.Reply.Write(body)
		x.Response.Sent += int64(n)
		if err != nil {
			x.Reply.Abort()
			return
		}
	}
	if x.Reply.End(nil) != nil {
		x.Reply.Abort()
	}
}

package server

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/provider"
)

// problemBase is where the problem types are explained; the code is the last part.
const problemBase = "https://postern.example/problems/"

// details is RFC 9457 problem details.
type details struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail,omitempty"`
	Code     string `json:"code"`
	Param    string `json:"param,omitempty"`
	Instance string `json:"instance"`
}

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
		contentType = "application/problem+json"
		body, _ = json.Marshal(details{ // of strings and a number: it can not fail
			Type: problemBase + p.Code, Title: p.Title, Status: p.Status, Detail: p.Detail, Code: p.Code, Param: p.Param,
			Instance: "urn:postern:exchange:" + x.ID,
		})
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
	x.Response.Status, x.Response.Header, x.Response.Started = status, h, true
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

package carrier

import (
	"context"

	"github.com/postern-gateway/postern/gateway/caller"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http2"
)

// HTTP2 answers a stream of HTTP/2.
func (e *Carrier) HTTP2(ctx context.Context, s *http2.Stream, p *caller.Peer) {
	c := new(streamCall)
	c.begin(e, p, exchange.HTTP2, s, s)
	s.ReadTimeout, s.WriteTimeout = c.terms.Body, c.terms.Write
	r := streamHead{
		method: s.Method, authority: s.Authority, target: s.Path, protocol: s.Protocol,
		header: s.Header, length: s.Length, large: s.Large,
	}
	problem := c.accept(&r)
	if c.x.Request.Upgrade != "" {
		s.ReadTimeout = 0 // whoever has the tunnel bounds its silence
	}
	if !c.run(ctx, p, problem) {
		s.Reset(http2.InternalError)
	}
}

// http2.Stream is both halves.
var (
	_ upload   = (*http2.Stream)(nil)
	_ download = (*http2.Stream)(nil)
)

package listener

import (
	"bytes"
	"context"
	"io"
	"net"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http2"
)

// readPreface reads until it is clear whether the connection begins with the preface. got is what was read.
func readPreface(r io.Reader) (got []byte, isPreface bool, err error) {
	buf := make([]byte, len(http2.Preface))
	n := 0
	for n < len(buf) {
		m, err := r.Read(buf[n:])
		n += m
		if !bytes.HasPrefix([]byte(http2.Preface), buf[:n]) {
			return buf[:n], false, nil
		}
		if err != nil && n < len(buf) {
			return buf[:n], false, err
		}
	}
	return buf, true, nil
}

// serveHTTP2 serves the connection, with the limits of the moment it was accepted at.
func (c *conn) serveHTTP2(rw net.Conn, l *config.Listener) {
	var h *http2.Conn
	h = http2.New(c.sock.ctx, rw, c.sock.door.set.pools, http2.Config{
		Handler: func(ctx context.Context, s *http2.Stream) {
			c.requests.Add(1)
			if c.Last() {
				h.Drain()
			}
			c.sock.door.set.carrier.HTTP2(ctx, s, &c.peer.Peer)
		},
		Flood: func() {
			set := c.sock.door.set
			set.cfg.Observer.Refused(l.Name, "flood")
			set.log.Warn("http2 flood", "listener", l.Name)
		},
		Limits: func() (int64, int) {
			t := c.Terms()
			return t.Head, t.Fields
		},
		Streams: uint32(l.Limits.Streams), Control: l.Limits.Control,
		Header: l.Timeouts.Header, Body: l.Timeouts.Body, Idle: l.Timeouts.Idle, Write: l.Timeouts.Write,
	})
	if !c.speak(exchange.HTTP2, h.Drain) {
		_ = rw.Close()
		return
	}
	h.Serve()
}

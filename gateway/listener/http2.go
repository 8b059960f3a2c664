package listener

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// preface begins every HTTP/2 connection (RFC 9113 section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// readPreface reads until it is clear whether the connection begins with the preface. got is what was read.
func readPreface(r io.Reader) (got []byte, isPreface bool, err error) {
	buf := make([]byte, len(preface))
	n := 0
	for n < len(buf) {
		m, err := r.Read(buf[n:])
		n += m
		if !bytes.HasPrefix([]byte(preface), buf[:n]) {
			return buf[:n], false, nil
		}
		if err != nil && n < len(buf) {
			return buf[:n], false, err
		}
	}
	return buf, true, nil
}

// serveHTTP2 gives the connection to a standard server of its own, so that it has the limits of the moment it was
// accepted at and can be told alone to go away.
func (c *conn) serveHTTP2(rw net.Conn, early []byte, l *config.Listener) {
	set := c.sock.door.set
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true) // TLS, if any, is already off
	server := &http.Server{
		Handler:                      http.HandlerFunc(c.serveStream),
		Protocols:                    protocols,
		DisableGeneralOptionsHandler: true,
		// The server counts 32 octets a field on top; the exact limit is kept by fields.
		MaxHeaderBytes: int(l.Limits.Header) + 32*l.Limits.Headers,
		IdleTimeout:    l.Timeouts.Idle,
		ErrorLog:       quiet(set.log),
		BaseContext:    func(net.Listener) context.Context { return c.sock.ctx },
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          l.Limits.Streams,
			MaxReadFrameSize:              16 << 10,
			MaxReceiveBufferPerStream:     256 << 10,
			MaxReceiveBufferPerConnection: 1 << 20,
			// A peer that vanished without a word is noticed, also while an answer is awaited.
			SendPingTimeout:  l.Timeouts.Idle,
			PingTimeout:      15 * time.Second,
			WriteByteTimeout: l.Timeouts.Write,
		},
	}
	goAway := func() {
		// Shutdown announces the end to the client at once and returns at once, because its context has ended; the
		// connection closes itself when its last stream has.
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = server.Shutdown(ended)
	}
	if !c.speak(exchange.HTTP2, goAway) {
		_ = rw.Close()
		return
	}
	serveOne(server, &oneConn{ctx: c.sock.ctx, conn: newFrames(c, rw, early)})
}

func (c *conn) serveStream(w http.ResponseWriter, r *http.Request) {
	c.requests.Add(1)
	c.sock.door.set.carrier.Stream(w, r, &c.peer.Peer)
}

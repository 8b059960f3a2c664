package proxy

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/upstream"
)

// halfIdle is how long the other side of a tunnel may be silent when one has ended.
const halfIdle = 10 * time.Second

// tunnel carries octets both ways after an upgrade. The end of one side is passed on, and what the other still sends then
// gets through, so that neither loses the last it was sent. It is over when both have ended, one breaks, nothing moves for
// the upstream's idle timeout, or ctx ends.
func (f *Forwarder) tunnel(ctx context.Context, x *exchange.Exchange, u *upstream.Upstream, resp *upstream.Response) error {
	defer func() { _ = resp.Upgrade.Close() }() // one close or another ends the tunnel; both sides see it as its end
	x.Response = exchange.Response{Status: resp.Status, Header: f.response(resp), Body: exchange.NoBody}
	if x.Request.Header.Get("sec-websocket-key") == "" {
		x.Response.Header.Del("sec-websocket-accept") // it answers the gateway's key
	}
	client, err := x.Reply.Upgrade(x.Response.Header)
	if errors.Is(err, exchange.ErrNoUpgrade) {
		return &exchange.Problem{Status: 501, Code: "upgrade_not_possible", Title: "This connection can not switch protocols"}
	}
	if err != nil {
		return gone(err)
	}
	x.Begin()

	var once sync.Once
	stop := func() {
		once.Do(func() {
			_ = resp.Upgrade.Close()
			_ = client.Close()
		})
	}
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	var patience atomic.Int64
	patience.Store(int64(u.Config().Timeouts.Idle))
	idle := time.AfterFunc(u.Config().Timeouts.Idle, stop)
	defer idle.Stop()
	var sent atomic.Int64
	carry := func(to io.Writer, from io.Reader, count *atomic.Int64) {
		w := f.window(-1)
		defer w.close()
		for {
			buffer := w.room()
			n, err := from.Read(buffer)
			w.took(n)
			idle.Reset(time.Duration(patience.Load()))
			if n > 0 {
				if _, err := to.Write(buffer[:n]); err != nil {
					stop()
					return
				}
				count.Add(int64(n))
			}
			if err == nil {
				continue
			}
			half, ok := to.(interface{ CloseWrite() error })
			if !exchange.AtEnd(err) || !ok || half.CloseWrite() != nil {
				stop()
				return
			}
			patience.Store(int64(min(halfIdle, u.Config().Timeouts.Idle)))
			idle.Reset(time.Duration(patience.Load()))
			return
		}
	}
	var up sync.WaitGroup
	up.Go(func() { carry(resp.Upgrade, client, new(atomic.Int64)) })
	carry(client, resp.Upgrade, &sent)
	up.Wait()
	x.Response.Sent = sent.Load()
	return nil
}

// websocketKey is a fresh Sec-WebSocket-Key (RFC 6455 section 4.1).
func websocketKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.StdEncoding.EncodeToString(b[:])
}

package listener

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/postern-gateway/postern/gateway/caller"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// wantBuffer is the size of a UDP socket's buffers below which packets are lost under load.
const wantBuffer = 7 << 20

// listenUDP binds address for HTTP/3. The socket goes to quic-go as it is: behind a wrapper it could neither batch nor
// segment.
func listenUDP(ctx context.Context, d *door, address string) (*socket, error) {
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(ctx, "udp", address)
	if err != nil {
		return nil, err
	}
	udp, ok := pc.(*net.UDPConn)
	if !ok {
		_ = pc.Close()
		return nil, fmt.Errorf("listen udp %s: not a UDP socket", address)
	}
	s := newSocket(d, addrPort(udp.LocalAddr()))
	advise(d.set.log, udp, s.addr.String())
	var reset quic.StatelessResetKey
	_, _ = rand.Read(reset[:]) // never fails
	transport := &quic.Transport{
		Conn:              udp,
		StatelessResetKey: &reset,
		// When many connections are open, a client proves that its address is its own before it costs anything.
		VerifySourceAddress: func(net.Addr) bool {
			lv := d.live.Load()
			return lv != nil && d.open.Load() > int64(lv.cfg.Limits.Connections)/2
		},
	}
	// Both come from the configuration of the moment.
	tlsConfig := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h3"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if lv := d.live.Load(); lv != nil && lv.tls != nil {
				return remembering(lv.tls.QUIC(), maxHeaderBytes(lv.cfg)), nil
			}
			return nil, errNotOpen
		},
	}
	quicConfig := &quic.Config{GetConfigForClient: func(*quic.ClientInfo) (*quic.Config, error) {
		lv := d.live.Load()
		if lv == nil {
			return nil, errNotOpen
		}
		l := lv.cfg
		if d.open.Load() >= int64(l.Limits.Connections) {
			d.set.cfg.Observer.Refused(l.Name, "connections")
			return nil, errors.New("too many connections")
		}
		return quicConfigOf(l), nil
	}}
	ln, err := transport.ListenEarly(tlsConfig, quicConfig)
	if err != nil {
		_ = udp.Close()
		return nil, err
	}
	s.accept = func() { s.acceptQUIC(ln) }
	s.stop = sync.OnceFunc(func() { _ = ln.Close() })
	s.release = sync.OnceFunc(func() {
		_ = transport.Close() // sends what closed connections still have to say
		_ = udp.Close()
	})
	return s, nil
}

// errNotOpen refuses connections between opening a socket and the success of all of Apply.
var errNotOpen = errors.New("not open yet")

// quicConfigOf bounds one connection.
func quicConfigOf(l *config.Listener) *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           l.Timeouts.Header / 2, // it may take twice that in all
		MaxIdleTimeout:                 l.Timeouts.Idle,
		KeepAlivePeriod:                l.Timeouts.Idle / 3, // while an answer takes long; http3 closes what is truly idle
		MaxIncomingStreams:             int64(l.Limits.Streams),
		MaxIncomingUniStreams:          16, // control, QPACK, and unknown ones to ignore
		InitialStreamReceiveWindow:     uint64(min(256<<10, l.QUIC.Window)),
		MaxStreamReceiveWindow:         uint64(l.QUIC.Window),
		InitialConnectionReceiveWindow: uint64(min(512<<10, l.QUIC.ConnectionWindow)),
		MaxConnectionReceiveWindow:     uint64(l.QUIC.ConnectionWindow),
		Allow0RTT:                      earlyData(l),
	}
}

// earlyData reports whether requests may come before the handshake is over. A client that has to show a certificate has not
// done so by then.
func earlyData(l *config.Listener) bool { return l.QUIC.EarlyData && l.TLS.ClientCA == "" }

// maxHeaderBytes is what the server is told of the limits of a head. It counts 32 octets a field on top; the exact limit is
// kept by fields.
func maxHeaderBytes(l *config.Listener) int { return int(l.Limits.Header) + 32*l.Limits.Headers + 256 }

// remembering returns a copy of t whose session tickets hold what the client was told of our settings. Where we grant less
// by now, a request that comes with such a ticket could be more than is granted: then it has to wait for the handshake (RFC
// 9114 section 7.2.4.2).
func remembering(t *tls.Config, granted int) *tls.Config {
	_, _ = t.DecryptTicket(nil, tls.ConnectionState{}) // makes t choose the keys that all its copies share
	t = t.Clone()
	const mark = "postern "
	t.WrapSession = func(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		session.Extra = append(session.Extra, append([]byte(mark), strconv.Itoa(granted)...))
		return t.EncryptTicket(state, session)
	}
	t.UnwrapSession = func(identity []byte, state tls.ConnectionState) (*tls.SessionState, error) {
		session, err := t.DecryptTicket(identity, state)
		if err != nil || session == nil {
			return session, err
		}
		for _, extra := range session.Extra {
			if text, ok := bytes.CutPrefix(extra, []byte(mark)); ok {
				n, err := strconv.Atoi(string(text))
				session.EarlyData = session.EarlyData && err == nil && n <= granted
			}
		}
		return session, nil
	}
	return t
}

// advise says how to give the socket the buffers it needs when the system does not let it.
func advise(log *slog.Logger, udp *net.UDPConn, address string) {
	_ = udp.SetReadBuffer(wantBuffer)
	_ = udp.SetWriteBuffer(wantBuffer)
	read, write, err := socketBuffers(udp)
	if err != nil {
		return // not known here
	}
	if read < wantBuffer || write < wantBuffer {
		log.Warn("UDP buffers are small: HTTP/3 loses packets under load",
			"address", address, "receive", read, "send", write, "want", wantBuffer,
			"fix", fmt.Sprintf("sysctl -w net.core.rmem_max=%d net.core.wmem_max=%d", wantBuffer, wantBuffer))
	}
}

// acceptQUIC runs until the listener is closed.
func (s *socket) acceptQUIC(ln *quic.EarlyListener) {
	for failures := 0; ; {
		qc, err := ln.Accept(context.Background())
		if errors.Is(err, quic.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.door.set.log.Warn("accept failed", "address", s.addr.String(), "error", err)
			time.Sleep(pause(failures))
			failures++
			continue
		}
		failures = 0
		if !s.door.admit() {
			_ = qc.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), "too many connections")
			continue
		}
		c := &quicConn{peer: peer{sock: s}, quic: qc, drained: make(chan struct{})}
		c.Peer = caller.Peer{Remote: addrPort(qc.RemoteAddr()), Local: s.addr, Connection: c}
		if !s.join(c) {
			s.door.open.Add(-1)
			_ = qc.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
			continue
		}
		go c.serve()
	}
}

// quicConn is an accepted QUIC connection.
type quicConn struct {
	peer
	quic     *quic.Conn
	active   atomic.Int64  // exchanges
	requests atomic.Int64  // exchanges that were begun
	drained  chan struct{} // closed when drain is called
	once     sync.Once
}

// serve runs until the connection is closed and its exchanges have returned.
func (c *quicConn) serve() {
	l := c.live().cfg
	observer := c.sock.door.set.cfg.Observer
	defer c.sock.leave(c)
	if !earlyData(l) {
		select {
		case <-c.quic.HandshakeComplete():
		case <-c.quic.Context().Done():
			observer.Refused(l.Name, "handshake")
			return
		}
	}
	state := c.quic.ConnectionState().TLS
	c.TLS = exchange.NewTLS(&state)
	observer.Opened(l.Name, exchange.HTTP3)
	defer func() { observer.Closed(l.Name, exchange.HTTP3) }()
	server := &http3.Server{
		Handler:        http.HandlerFunc(c.serveStream),
		MaxHeaderBytes: maxHeaderBytes(l),
		IdleTimeout:    l.Timeouts.Idle,
	}
	var end sync.WaitGroup
	gone := make(chan struct{})
	end.Go(func() { c.goAway(server, gone) })
	_ = server.ServeQUICConn(c.quic)
	close(gone)
	_ = c.quic.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	end.Wait()
}

// goAwayTime is how long a client that has been sent GOAWAY may still open streams it could not know to be late.
const goAwayTime = 500 * time.Millisecond

// goAway waits for drain; then it announces the end (RFC 9114 section 5.2) and closes the connection when its last
// exchange is over.
func (c *quicConn) goAway(server *http3.Server, gone <-chan struct{}) {
	select {
	case <-gone:
		return
	case <-c.drained:
	}
	ended, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wait sync.WaitGroup
	wait.Go(func() { _ = server.Shutdown(ended) })
	defer wait.Wait()
	tick := time.NewTicker(goAwayTime)
	defer tick.Stop()
	for {
		select {
		case <-gone:
			cancel()
			return
		case <-tick.C:
			if c.active.Load() == 0 {
				_ = c.quic.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
			}
			tick.Reset(goAwayTime / 10)
		}
	}
}

func (c *quicConn) drain() { c.once.Do(func() { close(c.drained) }) }

// Last is for protocols that say so with a reply.
func (c *quicConn) Last() bool { return false }

// Reset is for replies that the end of a connection delimits.
func (c *quicConn) Reset() {}

func (c *quicConn) kill() {
	_ = c.quic.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
}

func (c *quicConn) serveStream(w http.ResponseWriter, r *http.Request) {
	c.active.Add(1)
	defer c.active.Add(-1)
	l := c.live().cfg
	if c.requests.Add(1) >= int64(l.Limits.Requests) {
		c.drain()
	}
	select {
	case <-c.quic.HandshakeComplete():
	default:
		if !c.early(r, l.Timeouts.Header) {
			panic(http.ErrAbortHandler)
		}
	}
	p := c.Peer
	p.Remote = addrPort(c.quic.RemoteAddr()) // a client may move to another address
	c.sock.door.set.carrier.HTTP3(w, r, &p)
}

// early decides about a request that came before the handshake was over. Anybody could have recorded it and sent it again,
// so those of unsafe methods wait until the client has shown that it is there (RFC 8470 section 3); others are marked for
// the upstream (section 5.1). false: the client did not show.
func (c *quicConn) early(r *http.Request, wait time.Duration) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		r.Header["Early-Data"] = []string{"1"}
		return true
	}
	late := time.NewTimer(wait)
	defer late.Stop()
	select {
	case <-c.quic.HandshakeComplete():
		return true
	case <-r.Context().Done():
	case <-late.C:
	}
	return false
}

package pool

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Bounds of what one upstream connection may make the gateway hold.
const (
	maxResponseHead = 256 << 10 // octets of a response's head
	streamWindow    = 512 << 10 // octets an HTTP/2 stream may have waiting
	connWindow      = 4 << 20   // octets an HTTP/2 connection may have waiting
	maxStreams      = 100       // streams the gateway opens on one HTTP/3 connection
	pingAfter       = 30 * time.Second
	pingTimeout     = 15 * time.Second
	continueTimeout = time.Second // how long an upstream may take to say 100 (RFC 9110 section 10.1.1)
)

// Conn is one connection. It sends exactly what it is given, once: nothing below it repeats a request on another
// connection, which is why http.Transport's own pool is not used.
type Conn interface {
	RoundTrip(*http.Request) (*http.Response, error)
	Reserve() error // takes the right to one RoundTrip
	Available() int
	Err() error // not nil: the connection is of no use any more
	Close() error
}

// dialer opens connections to one endpoint.
type dialer struct {
	scheme   string
	address  string // host:port
	h3       bool
	require  string // the ALPN protocol https must negotiate; empty: any
	tls      *tls.Config
	dialFunc func(ctx context.Context, network, address string) (net.Conn, error)
	main     *http.Transport // the upstream's protocol
	upgrade  *http.Transport // HTTP/1.1 for requests that switch protocol; nil when the upstream speaks no HTTP/1.1
	quic     *http3.Transport
}

func newDialer(c Config) *dialer {
	d := &dialer{scheme: c.URL.Scheme, dialFunc: c.Dial}
	if d.dialFunc == nil {
		// The resolver is asked again for every connection; with maxAge in pool.go that is how a changed address is noticed.
		d.dialFunc = (&net.Dialer{KeepAlive: pingAfter}).DialContext
	}
	port := c.URL.Port()
	if port == "" {
		port = "80"
		if d.scheme == "https" {
			port = "443"
		}
	}
	d.address = net.JoinHostPort(c.URL.Hostname(), port)
	d.tls = c.TLS.config.Clone()
	if d.tls.ServerName == "" {
		d.tls.ServerName = c.URL.Hostname()
	}
	switch c.Protocol {
	case "http2":
		d.require = "h2"
		d.main = d.transport(false, true)
	case "http3":
		d.h3 = true
		d.quic = &http3.Transport{DisableCompression: true, MaxResponseHeaderBytes: maxResponseHead}
	case "auto":
		d.main = d.transport(true, d.scheme == "https")
		d.upgrade = d.transport(true, false)
	default:
		d.main = d.transport(true, false)
		d.upgrade = d.main
	}
	return d
}

func (d *dialer) transport(http1, http2 bool) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(http1)
	protocols.SetHTTP2(http2 && d.scheme == "https")
	protocols.SetUnencryptedHTTP2(http2 && d.scheme == "http")
	config := d.tls.Clone()
	if http2 {
		config.NextProtos = append(config.NextProtos, "h2")
	}
	if http1 {
		config.NextProtos = append(config.NextProtos, "http/1.1")
	}
	return &http.Transport{
		Protocols:              protocols,
		DisableCompression:     true, // bodies pass as they are
		MaxResponseHeaderBytes: maxResponseHead,
		ExpectContinueTimeout:  continueTimeout,
		ReadBufferSize:         16 << 10,
		WriteBufferSize:        8 << 10,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream:     streamWindow,
			MaxReceiveBufferPerConnection: connWindow,
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingTimeout,
		},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return d.tcp(ctx, network, address)
		},
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			raw, err := d.tcp(ctx, network, address)
			if err != nil {
				return nil, err
			}
			secured := tls.Client(raw, config)
			if err := secured.HandshakeContext(ctx); err != nil {
				_ = raw.Close()
				return nil, fmt.Errorf("handshake: %w", err)
			}
			if got := secured.ConnectionState().NegotiatedProtocol; d.require != "" && got != d.require {
				_ = raw.Close()
				return nil, fmt.Errorf("endpoint negotiated %q instead of %q", got, d.require)
			}
			if meter, ok := ctx.Value(meterKey{}).(*meter); ok {
				meter.alpn = secured.ConnectionState().NegotiatedProtocol
			}
			return secured, nil
		},
	}
}

// meterKey finds in a dial's context where to put what only the dialling sees.
type meterKey struct{}

// meter is what is known of a connection's octets.
type meter struct {
	wrote atomic.Int64 // octets written or about to be
	alone atomic.Bool  // HTTP/1.1: what is written belongs to one exchange
	// A read waits for octets: all that came before were taken. On HTTP/1.1 nothing may be left when a request is written,
	// or it would be taken for its answer.
	reads atomic.Bool
	alpn  string
}

func (d *dialer) tcp(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.dialFunc(ctx, network, address)
	if err != nil {
		return nil, err
	}
	m, ok := ctx.Value(meterKey{}).(*meter)
	if !ok {
		m = new(meter)
	}
	return &metered{Conn: c, meter: m}, nil
}

// metered counts what is written. On HTTP/1.1 a write that fails is not reported: an upstream that refuses a body early answers and
// closes, and the answer is to be read although the rest of the body can not be written. When there is none the read
// fails, and that ends the attempt.
type metered struct {
	net.Conn
	meter  *meter
	broken atomic.Bool
}

func (c *metered) Read(p []byte) (int, error) {
	c.meter.reads.Store(true)
	n, err := c.Conn.Read(p)
	c.meter.reads.Store(false)
	return n, err
}

func (c *metered) Write(p []byte) (int, error) {
	if c.broken.Load() {
		return len(p), nil
	}
	c.meter.wrote.Add(int64(len(p)))
	n, err := c.Conn.Write(p)
	if err != nil && c.meter.alone.Load() && !errors.Is(err, net.ErrClosed) {
		c.broken.Store(true)
		// The peer may be gone without a word; then no read would ever fail.
		_ = c.Conn.SetReadDeadline(time.Now().Add(brokenGrace))
		return len(p), nil
	}
	return n, err
}

// drainTime bounds drained; its reader is a goroutine that only has to be scheduled.
const drainTime = time.Millisecond

// drained waits until whoever reads an HTTP/1.1 connection has taken all that came and waits for more. An upstream that
// sent more than its answer is then found out before the next request is written. False when the connection has ended, or
// when it does not come to that soon.
func (l *Link) drained() bool {
	for end := time.Now().Add(drainTime); ; runtime.Gosched() {
		switch {
		case l.meter.reads.Load():
			return true
		case l.Conn.Err() != nil || time.Now().After(end):
			return false
		}
	}
}

// brokenGrace is how long an answer may take after the connection took no more of the request.
const brokenGrace = 2 * time.Second

// dial opens a connection, for an upgrade one that speaks HTTP/1.1.
func (d *dialer) dial(ctx context.Context, upgrade bool) (*Link, error) {
	if d.h3 {
		return d.dialQUIC(ctx)
	}
	transport := d.main
	if upgrade {
		transport = d.upgrade
	}
	m := new(meter)
	c, err := transport.NewClientConn(context.WithValue(ctx, meterKey{}, m), d.scheme, d.address)
	if err != nil {
		return nil, err
	}
	l := &Link{Conn: c, meter: m, Protocol: exchange.HTTP1, born: time.Now()}
	if m.alpn == "h2" || transport.Protocols.UnencryptedHTTP2() {
		l.Protocol = exchange.HTTP2
		l.hook = c.SetStateHook
	}
	m.alone.Store(l.Protocol == exchange.HTTP1)
	return l, nil
}

func (d *dialer) dialQUIC(ctx context.Context) (*Link, error) {
	config := d.tls.Clone()
	config.NextProtos = []string{http3.NextProtoH3}
	config.MinVersion = tls.VersionTLS13
	c, err := quic.DialAddr(ctx, d.address, config, &quic.Config{
		MaxIdleTimeout:             2 * pingAfter,
		KeepAlivePeriod:            pingAfter,
		MaxStreamReceiveWindow:     streamWindow,
		MaxConnectionReceiveWindow: connWindow,
		MaxIncomingStreams:         -1,
	})
	if err != nil {
		return nil, err
	}
	return &Link{Conn: &quicConn{ClientConn: d.quic.NewClientConn(c), quic: c}, meter: new(meter), Protocol: exchange.HTTP3, born: time.Now()}, nil
}

// quicConn makes an HTTP/3 connection a Conn.
type quicConn struct {
	*http3.ClientConn
	quic *quic.Conn
	busy atomic.Int32
}

func (c *quicConn) Reserve() error {
	if err := c.Err(); err != nil {
		return err
	}
	if c.busy.Add(1) > maxStreams {
		c.busy.Add(-1)
		return ErrBusy
	}
	return nil
}

// release gives back what Reserve took.
func (c *quicConn) release()       { c.busy.Add(-1) }
func (c *quicConn) Available() int { return maxStreams - int(c.busy.Load()) }
func (c *quicConn) Err() error     { return context.Cause(c.quic.Context()) }
func (c *quicConn) Close() error {
	return c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
}

// Files is what ReadTLS reads. Paths are of PEM files.
type Files struct {
	CA         string // the only roots trusted; empty: the system's
	Cert, Key  string // client certificate; empty: none
	ServerName string // name to verify instead of the endpoint's host
	MinVersion uint16 // default tls.VersionTLS12
}

// TLS is a TLS configuration and the files it was read from, so that a reload notices changed ones.
type TLS struct {
	config *tls.Config
	Digest string
}

// ReadTLS makes what is needed to connect to https endpoints. Certificates are always verified.
func ReadTLS(c Files) (*TLS, error) {
	t := &TLS{config: &tls.Config{
		ServerName:         c.ServerName,
		MinVersion:         max(c.MinVersion, tls.VersionTLS12),
		ClientSessionCache: tls.NewLRUClientSessionCache(32),
	}}
	read := func(path string) ([]byte, error) {
		b, err := os.ReadFile(path)
		t.Digest += fmt.Sprintf("%s %d %x\n", path, len(b), sha256.Sum256(b))
		return b, err
	}
	if c.CA != "" {
		pem, err := read(c.CA)
		if err != nil {
			return nil, fmt.Errorf("read the roots: %w", err)
		}
		t.config.RootCAs = x509.NewCertPool()
		if !t.config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the roots: %s holds no certificate", c.CA)
		}
	}
	if c.Cert != "" {
		cert, err := read(c.Cert)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate: %w", err)
		}
		key, err := read(c.Key)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate's key: %w", err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate %s: %w", c.Cert, err)
		}
		t.config.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

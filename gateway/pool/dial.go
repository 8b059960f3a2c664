package pool

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/http1/client"
)

// Bounds of what one connection that is shared may make the gateway hold. Those of HTTP/1.1 are in package client.
const (
	maxResponseHead = 256 << 10 // octets of a response's head
	streamWindow    = 512 << 10 // octets an HTTP/2 stream may have waiting
	connWindow      = 4 << 20   // octets an HTTP/2 connection may have waiting
	maxStreams      = 100       // streams the gateway opens on one HTTP/3 connection
	pingAfter       = 30 * time.Second
	pingTimeout     = 15 * time.Second
	continueTimeout = time.Second // how long an upstream may take to say 100 (RFC 9110 section 10.1.1)
)

// dialer opens connections to one endpoint.
type dialer struct {
	scheme   string
	address  string // host:port
	require  string // the ALPN protocol https must negotiate; empty: any
	dialFunc func(ctx context.Context, network, address string) (net.Conn, error)
	main     *tls.Config // offers the upstream's protocols
	upgrade  *tls.Config // offers HTTP/1.1, for requests that switch protocol; nil when the upstream does not speak it
	prior    bool        // HTTP/2 in cleartext, without asking
	http2    *http.Transport
	quic     *http3.Transport // nil: not HTTP/3
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
	offer := func(protocols ...string) *tls.Config {
		config := c.TLS.config.Clone()
		if config.ServerName == "" {
			config.ServerName = c.URL.Hostname()
		}
		config.NextProtos = protocols
		return config
	}
	const one, two = "http/1.1", "h2"
	switch c.Protocol {
	case "http2":
		d.require, d.prior = two, d.scheme == "http"
		d.main = offer(two)
	case "http3":
		d.main = offer(http3.NextProtoH3)
		d.main.MinVersion = tls.VersionTLS13
		d.quic = &http3.Transport{DisableCompression: true, MaxResponseHeaderBytes: maxResponseHead}
	case "auto":
		d.main, d.upgrade = offer(two, one), offer(one)
	default:
		d.main = offer(one)
		d.upgrade = d.main
	}
	d.http2 = d.transport()
	return d
}

// openedKey finds in the context of a transport's dial the connection that was opened for it.
type openedKey struct{}

// transport makes what speaks HTTP/2 on connections that are open already.
func (d *dialer) transport() *http.Transport {
	opened := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return ctx.Value(openedKey{}).(net.Conn), nil
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(d.scheme == "https")
	protocols.SetUnencryptedHTTP2(d.scheme == "http")
	return &http.Transport{
		Protocols:              protocols,
		DisableCompression:     true, // bodies pass as they are
		MaxResponseHeaderBytes: maxResponseHead,
		ExpectContinueTimeout:  continueTimeout,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream:     streamWindow,
			MaxReceiveBufferPerConnection: connWindow,
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingTimeout,
		},
		DialContext:    opened,
		DialTLSContext: opened,
	}
}

// dial opens a connection, for an upgrade one that speaks HTTP/1.1.
func (d *dialer) dial(ctx context.Context, upgrade bool) (*Link, error) {
	if d.quic != nil {
		return d.dialQUIC(ctx)
	}
	raw, err := d.dialFunc(ctx, "tcp", d.address)
	if err != nil {
		return nil, err
	}
	two := d.prior
	if d.scheme == "https" {
		config := d.main
		if upgrade {
			config = d.upgrade
		}
		secured := client.Secure(raw, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, fmt.Errorf("handshake: %w", err)
		}
		got := secured.ConnectionState().NegotiatedProtocol
		if d.require != "" && got != d.require {
			_ = raw.Close()
			return nil, fmt.Errorf("endpoint negotiated %q instead of %q", got, d.require)
		}
		raw, two = secured, got == "h2"
	}
	l := &Link{Protocol: exchange.HTTP1, born: time.Now()}
	if !two {
		l.one = client.New(raw)
		return l, nil
	}
	c, err := d.http2.NewClientConn(context.WithValue(ctx, openedKey{}, raw), d.scheme, d.address)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	l.many, l.scheme, l.hook, l.Protocol = c, d.scheme, c.SetStateHook, exchange.HTTP2
	return l, nil
}

func (d *dialer) dialQUIC(ctx context.Context) (*Link, error) {
	c, err := quic.DialAddr(ctx, d.address, d.main, &quic.Config{
		MaxIdleTimeout:             2 * pingAfter,
		KeepAlivePeriod:            pingAfter,
		MaxStreamReceiveWindow:     streamWindow,
		MaxConnectionReceiveWindow: connWindow,
		MaxIncomingStreams:         -1,
	})
	if err != nil {
		return nil, err
	}
	return &Link{many: &quicConn{ClientConn: d.quic.NewClientConn(c), quic: c}, scheme: d.scheme, Protocol: exchange.HTTP3, born: time.Now()}, nil
}

// quicConn counts the streams of an HTTP/3 connection.
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
func (c *quicConn) release()   { c.busy.Add(-1) }
func (c *quicConn) Err() error { return context.Cause(c.quic.Context()) }
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

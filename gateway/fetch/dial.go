package fetch

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
)

const (
	// maxResponseHead is what the transport reads of an answer's head before it gives up; what plugins are given is maxHead.
	maxResponseHead = 256 << 10
	// idleTimeout is how long a connection is kept that nothing uses, and so how long a changed address may go unnoticed.
	idleTimeout = 30 * time.Second
	// maxIdle is how many connections to an origin are kept that nothing uses.
	maxIdle = 32
)

// errAddress is what a name leads to that was not granted.
var errAddress = errors.New("the address is not public, and was not granted")

// service is an origin that the operator granted, with the connections to it.
type service struct {
	literal   netip.Addr // the origin's host, when it is an address
	private   bool
	transport *http.Transport
}

// newService makes an origin without connections. roots are the only ones trusted; nil: the system's.
func (f *Fetcher) newService(c *config.FetchOrigin, roots *x509.CertPool, resolver *net.Resolver) *service {
	o := &service{private: c.Private}
	host, _, _ := net.SplitHostPort(c.Host)
	if addr, err := netip.ParseAddr(host); err == nil {
		o.literal = addr.Unmap()
	}
	dialer := &net.Dialer{
		Timeout: f.config.Timeout, Resolver: resolver,
		// Control sees the address that is dialled, after the name was resolved: what it resolves to a moment later changes
		// nothing.
		Control: func(_, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil || !o.may(at.Addr()) {
				return errAddress
			}
			return nil
		},
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(c.Scheme == "https")
	o.transport = &http.Transport{
		// Proxy stays nil: the environment has no say in where requests go.
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return f.dial(ctx, dialer, network, address)
		},
		Protocols:              protocols,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    f.config.Timeout,
		DisableCompression:     true, // what the plugin gets is what came
		MaxResponseHeaderBytes: maxResponseHead,
		MaxConnsPerHost:        f.config.Concurrent, // dials too, which go on when their requests are given up
		MaxIdleConnsPerHost:    min(f.config.Concurrent, maxIdle),
		IdleConnTimeout:        idleTimeout,
		HTTP2:                  &http.HTTP2Config{MaxReceiveBufferPerStream: 256 << 10, MaxReceiveBufferPerConnection: 4 << 20},
	}
	return o
}

// dial opens a connection. The transport lets a dial go on when its request is given up; it ends with the Fetcher.
func (f *Fetcher) dial(ctx context.Context, d *net.Dialer, network, address string) (net.Conn, error) {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil, context.Canceled
	}
	f.work.Add(1)
	f.mu.Unlock()
	defer f.work.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(f.ctx, cancel)()
	return d.DialContext(ctx, network, address)
}

// may reports whether an address may be dialled for the origin: it is the one that the operator wrote, or a public one, or
// private ones were granted. Link-local addresses, where clouds keep their secrets, are never meant by that.
func (o *service) may(a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	if o.literal.IsValid() && a == o.literal {
		return true
	}
	switch class(a) {
	case public:
		return true
	case private:
		return o.private
	}
	return false
}

// classes of addresses.
const (
	never   = iota // no service is there, or none to be asked
	private        // loopback, private networks, carriers' shared space
	public
)

// class tells who can be behind an address. IPv6 addresses that stand for an IPv4 one are what that one is. The special ranges
// are those of the IANA registries (RFC 6890).
func class(a netip.Addr) int {
	a = a.Unmap()
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return never
	}
	if a.IsLoopback() || a.IsPrivate() {
		return private
	}
	if a.Is6() {
		b := a.As16()
		for _, t := range [...]struct {
			prefix string
			at     int // where the IPv4 address stands
		}{
			{"64:ff9b::/96", 12},    // NAT64, RFC 6052
			{"2002::/16", 2},        // 6to4, RFC 3056
			{"::/96", 12},           // IPv4-compatible, RFC 4291 section 2.5.5.1
			{"::ffff:0:0:0/96", 12}, // translated, RFC 2765
		} {
			if netip.MustParsePrefix(t.prefix).Contains(a) {
				return class(netip.AddrFrom4([4]byte(b[t.at : t.at+4])))
			}
		}
	}
	for _, r := range [...]struct {
		prefix string
		class  int
	}{
		{"100.64.0.0/10", private},  // shared by carriers, RFC 6598
		{"198.18.0.0/15", private},  // benchmarks, RFC 2544
		{"192.0.0.0/24", never},     // protocols, RFC 6890
		{"0.0.0.0/8", never},        // this network, RFC 1122
		{"192.0.2.0/24", never},     // documentation, RFC 5737
		{"198.51.100.0/24", never},  // documentation
		{"203.0.113.0/24", never},   // documentation
		{"192.88.99.0/24", never},   // 6to4 relays, RFC 7526
		{"240.0.0.0/4", never},      // reserved, RFC 1112, and broadcast
		{"64:ff9b:1::/48", private}, // local NAT64, RFC 8215
		{"fec0::/10", never},        // site-local, RFC 3879
		{"100::/64", never},         // discarded, RFC 6666
		{"2001::/23", never},        // protocols, and Teredo, RFC 4380
		{"2001:db8::/32", never},    // documentation, RFC 3849
		{"3fff::/20", never},        // documentation, RFC 9637
		{"5f00::/16", never},        // segment routing, RFC 9602
	} {
		if netip.MustParsePrefix(r.prefix).Contains(a) {
			return r.class
		}
	}
	return public
}

// roots reads a file of certificates; its digest tells whether it has changed. No file: the system's, which are nil here.
func roots(path string) (*x509.CertPool, string, error) {
	if path == "" {
		return nil, "", nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, "", fmt.Errorf("read the roots: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, "", fmt.Errorf("read the roots: %s holds no certificate", path)
	}
	return pool, fmt.Sprintf("%s %x\n", path, sha256.Sum256(pem)), nil
}

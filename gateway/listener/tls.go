package listener

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// certificates is the TLS side of one listener. Files are looked at again at a handshake, at most once a second; what
// can not be read then leaves the old in use.
type certificates struct {
	name      string
	spec      config.TLS
	protocols []exchange.Protocol
	dev       *developmentCA
	log       *slog.Logger

	mu      sync.Mutex
	checked time.Time
	pair    stamps // of Cert and Key
	ca      stamps // of ClientCA
	cert    *tls.Certificate
	pool    *x509.CertPool
	tcp     *tls.Config
	quic    *tls.Config
}

// checkEvery is how often files are looked at.
const checkEvery = time.Second

// loadCertificates reads everything once: what is wrong with it is an error of the configuration.
func loadCertificates(l *config.Listener, dev *developmentCA, log *slog.Logger) (*certificates, error) {
	c := &certificates{name: l.Name, spec: *l.TLS, protocols: slices.Clone(l.Protocols), dev: dev, log: log, checked: time.Now()}
	c.pair, c.ca = stamp(c.spec.Cert, c.spec.Key), stamp(c.spec.ClientCA)
	var err error
	if c.cert, err = c.readPair(); err != nil {
		return nil, err
	}
	if c.spec.ClientCA != "" {
		if c.pool, err = readPool(c.spec.ClientCA); err != nil {
			return nil, err
		}
	}
	c.build()
	return c, nil
}

// serves reports whether c is what l asks for, so that session tickets outlive a reload.
func (c *certificates) serves(l *config.Listener) bool {
	if c == nil {
		return false
	}
	a, b := c.spec, *l.TLS
	return c.name == l.Name && a.Cert == b.Cert && a.Key == b.Key && slices.Equal(a.SelfSigned, b.SelfSigned) &&
		a.ClientCA == b.ClientCA && a.MinVersion == b.MinVersion && slices.Equal(c.protocols, l.Protocols)
}

func (c *certificates) readPair() (*tls.Certificate, error) {
	if c.spec.Cert == "" {
		return c.dev.leaf(c.name, c.spec.SelfSigned)
	}
	pair, err := tls.LoadX509KeyPair(c.spec.Cert, c.spec.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", c.spec.Cert, err)
	}
	return &pair, nil
}

// readPool reads the only CAs whose client certificates are accepted. A file without any would accept nobody or, worse,
// be taken for no demand at all, so it is an error.
func readPool(path string) (*x509.CertPool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("client CA: %w", err)
	}
	pool := x509.NewCertPool()
	found := false
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("client CA %s: %w", path, err)
		}
		pool.AddCert(cert)
		found = true
	}
	if !found {
		return nil, fmt.Errorf("client CA %s: no certificate in it", path)
	}
	return pool, nil
}

// build makes new tls.Configs, with new keys for session tickets: a session that an old client CA let in must not be
// resumed under a new one.
func (c *certificates) build() {
	var tcp []string
	if slices.Contains(c.protocols, exchange.HTTP2) {
		tcp = append(tcp, "h2")
	}
	if slices.Contains(c.protocols, exchange.HTTP1) {
		tcp = append(tcp, "http/1.1")
	}
	c.tcp = c.config(tcp, max(c.spec.MinVersion, tls.VersionTLS12))
	c.quic = c.config([]string{"h3"}, tls.VersionTLS13)
}

func (c *certificates) config(protocols []string, minVersion uint16) *tls.Config {
	t := &tls.Config{
		NextProtos: protocols,
		MinVersion: minVersion,
		// For TLS 1.2 only what HTTP/2 allows too (RFC 9113 section 9.2.2): forward secret and authenticated.
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.cert, nil
		},
	}
	if c.pool != nil {
		t.ClientAuth, t.ClientCAs = tls.RequireAndVerifyClientCert, c.pool
	}
	return t
}

// forTCP returns what the next handshake on TCP uses.
func (c *certificates) forTCP() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refresh(time.Now())
	return c.tcp
}

// forQUIC returns what the next handshake on QUIC uses.
func (c *certificates) forQUIC() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refresh(time.Now())
	return c.quic
}

// refresh reads files that have changed.
func (c *certificates) refresh(now time.Time) {
	if now.Sub(c.checked) < checkEvery {
		return
	}
	c.checked = now
	if pair := stamp(c.spec.Cert, c.spec.Key); c.spec.Cert == "" || !pair.equal(c.pair) {
		cert, err := c.readPair()
		c.pair = pair
		if err != nil {
			c.log.Error("certificate not reloaded, the old one stays in use", "listener", c.name, "error", err)
		} else if c.spec.Cert != "" {
			c.log.Info("certificate reloaded", "listener", c.name, "file", c.spec.Cert)
		}
		if err == nil {
			c.cert = cert
		}
	}
	if c.spec.ClientCA == "" {
		return
	}
	if ca := stamp(c.spec.ClientCA); !ca.equal(c.ca) {
		c.ca = ca
		pool, err := readPool(c.spec.ClientCA)
		if err != nil {
			c.log.Error("client CA not reloaded, the old one stays in use", "listener", c.name, "error", err)
			return
		}
		c.pool = pool
		c.build()
		c.log.Info("client CA reloaded", "listener", c.name, "file", c.spec.ClientCA)
	}
}

// stamps tells whether files have changed since. A file that can not be looked at is nil.
type stamps []os.FileInfo

func stamp(paths ...string) stamps {
	s := make(stamps, len(paths))
	for i, p := range paths {
		if p != "" {
			s[i], _ = os.Stat(p)
		}
	}
	return s
}

func (s stamps) equal(t stamps) bool {
	return slices.EqualFunc(s, t, func(a, b os.FileInfo) bool {
		if a == nil || b == nil {
			return a == nil && b == nil
		}
		return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
	})
}

// errNoNames is given for a self-signed certificate without names.
var errNoNames = errors.New("self_signed needs at least one name")

// Package certificate keeps what TLS listeners show and ask for: files that are read again when they change, and a
// development CA for those that have none. Its main type is Store.
package certificate

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

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Config says what a listener shows and asks for.
type Config struct {
	Listener   string
	Protocols  []exchange.Protocol // offered by ALPN
	Cert, Key  string              // PEM files; empty: self-signed
	SelfSigned []string            // names and addresses
	ClientCA   string              // PEM file; a client certificate it signed is then required
	MinVersion uint16              // tls.VersionTLS12 (default) or tls.VersionTLS13; HTTP/3 has always 1.3
	Authority  *Authority          // signs what is self-signed
	Log        *slog.Logger        // required
}

// Store is the TLS side of one listener. Files are looked at again at a handshake, at most once a second; what
// can not be read then leaves the old in use.
type Store struct {
	cfg Config

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

// Load reads everything once: what is wrong with it is an error of the configuration.
func Load(cfg Config) (*Store, error) {
	c := &Store{cfg: cfg, checked: time.Now()}
	c.pair, c.ca = stamp(cfg.Cert, cfg.Key), stamp(cfg.ClientCA)
	var err error
	if c.cert, err = c.readPair(); err != nil {
		return nil, err
	}
	if cfg.ClientCA != "" {
		if c.pool, err = readPool(cfg.ClientCA); err != nil {
			return nil, err
		}
	}
	c.build()
	return c, nil
}

// Serves reports whether c is what cfg asks for, so that it can be kept and session tickets outlive a reload.
func (c *Store) Serves(cfg Config) bool {
	if c == nil {
		return false
	}
	a := &c.cfg
	return a.Listener == cfg.Listener && a.Cert == cfg.Cert && a.Key == cfg.Key && a.ClientCA == cfg.ClientCA &&
		a.MinVersion == cfg.MinVersion && a.Authority == cfg.Authority &&
		slices.Equal(a.SelfSigned, cfg.SelfSigned) && slices.Equal(a.Protocols, cfg.Protocols)
}

func (c *Store) readPair() (*tls.Certificate, error) {
	if c.cfg.Cert == "" {
		return c.cfg.Authority.leaf(c.cfg.Listener, c.cfg.SelfSigned)
	}
	pair, err := tls.LoadX509KeyPair(c.cfg.Cert, c.cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", c.cfg.Cert, err)
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
func (c *Store) build() {
	var tcp []string
	if slices.Contains(c.cfg.Protocols, exchange.HTTP2) {
		tcp = append(tcp, "h2")
	}
	if slices.Contains(c.cfg.Protocols, exchange.HTTP1) {
		tcp = append(tcp, "http/1.1")
	}
	c.tcp = c.config(tcp, max(c.cfg.MinVersion, tls.VersionTLS12))
	c.quic = c.config([]string{"h3"}, tls.VersionTLS13)
}

func (c *Store) config(protocols []string, minVersion uint16) *tls.Config {
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

// TCP returns what the next handshake on TCP uses.
func (c *Store) TCP() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refresh(time.Now())
	return c.tcp
}

// QUIC returns what the next handshake on QUIC uses.
func (c *Store) QUIC() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refresh(time.Now())
	return c.quic
}

// refresh reads files that have changed.
func (c *Store) refresh(now time.Time) {
	if now.Sub(c.checked) < checkEvery {
		return
	}
	c.checked = now
	if pair := stamp(c.cfg.Cert, c.cfg.Key); c.cfg.Cert == "" || !pair.equal(c.pair) {
		cert, err := c.readPair()
		c.pair = pair
		if err != nil {
			c.cfg.Log.Error("certificate not reloaded, the old one stays in use", "listener", c.cfg.Listener, "error", err)
		} else if c.cfg.Cert != "" {
			c.cfg.Log.Info("certificate reloaded", "listener", c.cfg.Listener, "file", c.cfg.Cert)
		}
		if err == nil {
			c.cert = cert
		}
	}
	if c.cfg.ClientCA == "" {
		return
	}
	if ca := stamp(c.cfg.ClientCA); !ca.equal(c.ca) {
		c.ca = ca
		pool, err := readPool(c.cfg.ClientCA)
		if err != nil {
			c.cfg.Log.Error("client CA not reloaded, the old one stays in use", "listener", c.cfg.Listener, "error", err)
			return
		}
		c.pool = pool
		c.build()
		c.cfg.Log.Info("client CA reloaded", "listener", c.cfg.Listener, "file", c.cfg.ClientCA)
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

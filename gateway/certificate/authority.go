package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// DevelopmentCA returns where the certificate of the development CA of a data directory is kept. Clients that are told
// to trust it accept every self-signed listener. The file is there after the first Apply with one.
func DevelopmentCA(dir string) string { return filepath.Join(dir, "tls", "ca.pem") }

// Authority signs certificates for listeners that have none of their own. With a directory it and they are kept
// there and survive restarts.
type Authority struct {
	dir string // empty: in memory

	mu     sync.Mutex
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	leaves map[string]*tls.Certificate // by listener
}

const (
	caLife     = 10 * 365 * 24 * time.Hour
	leafLife   = 90 * 24 * time.Hour
	renewCA    = 365 * 24 * time.Hour // before its end
	renewLeaf  = 30 * 24 * time.Hour
	clockSkew  = time.Hour
	folderMode = 0o755
	certMode   = 0o644
	keyMode    = 0o600
)

// NewAuthority returns the authority of a data directory; with an empty one it lives in memory.
func NewAuthority(dir string) *Authority {
	if dir != "" {
		dir = filepath.Join(dir, "tls")
	}
	return &Authority{dir: dir, leaves: make(map[string]*tls.Certificate)}
}

// leaf returns the certificate of a listener: the kept one, or a new one when there is none, it ends soon or its names
// are others.
func (d *Authority) leaf(listener string, names []string) (*tls.Certificate, error) {
	if len(names) == 0 {
		return nil, errNoNames
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.leaves[listener]; c != nil && fits(c.Leaf, names) {
		return c, nil
	}
	if err := d.load(); err != nil {
		return nil, fmt.Errorf("development CA: %w", err)
	}
	c, err := d.readLeaf(listener)
	if err != nil || !fits(c.Leaf, names) || c.Leaf.CheckSignatureFrom(d.cert) != nil {
		if c, err = d.sign(listener, names); err != nil {
			return nil, fmt.Errorf("development certificate: %w", err)
		}
	}
	d.leaves[listener] = c
	return c, nil
}

// fits reports whether a certificate is good for exactly these names and for a while.
func fits(c *x509.Certificate, names []string) bool {
	var has []string
	has = append(has, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		has = append(has, ip.String())
	}
	want := slices.Clone(names)
	for i, n := range want {
		if ip, err := netip.ParseAddr(n); err == nil {
			want[i] = ip.String()
		}
	}
	slices.Sort(has)
	slices.Sort(want)
	now := time.Now()
	return slices.Equal(has, want) && now.After(c.NotBefore) && now.Add(renewLeaf).Before(c.NotAfter)
}

// load reads the CA, or makes one when there is none or it ends soon. One that can not be read is an error: clients
// trust it, so it is not replaced behind their back.
func (d *Authority) load() error {
	if d.cert != nil && time.Now().Add(renewCA).Before(d.cert.NotAfter) {
		return nil
	}
	if d.dir != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(d.dir, "ca.pem"), filepath.Join(d.dir, "ca.key"))
		switch {
		case err == nil:
			key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
			if !ok || !pair.Leaf.IsCA {
				return fmt.Errorf("%s is not the certificate of a development CA", filepath.Join(d.dir, "ca.pem"))
			}
			if time.Now().Add(renewCA).Before(pair.Leaf.NotAfter) {
				d.cert, d.key = pair.Leaf, key
				return nil
			}
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Postern development CA"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	c, err := d.issue(template, template, key, key, caLife)
	if err != nil {
		return err
	}
	if err := d.keep("ca", c); err != nil {
		return err
	}
	d.cert, d.key = c.Leaf, key
	return nil
}

func (d *Authority) sign(listener string, names []string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: names[0]},
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	c, err := d.issue(template, d.cert, key, d.key, leafLife)
	if err != nil {
		return nil, err
	}
	return c, d.keep(leafFile(listener), c)
}

// issue signs template for key with the signer's key.
func (d *Authority) issue(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey, life time.Duration) (*tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-clockSkew)
	template.NotAfter = time.Now().Add(life)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// leafFile names the files of a listener's certificate, away from the CA's.
func leafFile(listener string) string {
	safe := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, listener)
	return "listener-" + safe
}

func (d *Authority) readLeaf(listener string) (*tls.Certificate, error) {
	if d.dir == "" {
		return nil, fs.ErrNotExist
	}
	base := filepath.Join(d.dir, leafFile(listener))
	pair, err := tls.LoadX509KeyPair(base+".pem", base+".key")
	if err != nil {
		return nil, err // made anew, whatever is wrong with it
	}
	return &pair, nil
}

// keep writes a certificate and its key, each whole or not at all. The key goes first: a certificate is never there
// without.
func (d *Authority) keep(name string, c *tls.Certificate) error {
	if d.dir == "" {
		return nil
	}
	if err := os.MkdirAll(d.dir, folderMode); err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(d.dir, name+".key"), "PRIVATE KEY", der, keyMode); err != nil {
		return err
	}
	return replace(filepath.Join(d.dir, name+".pem"), "CERTIFICATE", c.Certificate[0], certMode)
}

func replace(path, kind string, der []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	err = errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

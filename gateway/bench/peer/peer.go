//go:build linux

// Package peer knows the proxies that are measured: where they are found, how an operator who knows them would configure them
// for what is measured, and what they use while they run. Its main type is Peer.
package peer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Peer is one proxy in one configuration.
type Peer struct {
	Name string // "postern+4" is Postern with four policies
	Says string // what it does besides passing on; empty: nothing

	find    func(context.Context, Tools) (Tool, error)
	prepare func(context.Context, Site) (plan, error)
}

// Tools says where to look.
type Tools struct {
	Root string // the repository; bin/tools and bin/postern are below it
}

// Tool is a program that was found.
type Tool struct {
	Path    string
	Version string
}

// Site is what a proxy is to do.
type Site struct {
	Dir    string // for the proxy's files; it makes a folder of its own in it
	Root   string // the repository
	Origin string // host:port, HTTP/1.1 in clear
	TLS    bool   // HTTP/1.1 and HTTP/2 over TLS
	HTTP3  bool   // HTTP/3 besides
	Events bool   // streams of events are passed on
	Cert   string // PEM files
	Key    string

	Address string // set by Start
	tool    string
}

// plan is how a process is started and spoken to.
type plan struct {
	args   []string
	env    []string
	path   string
	header [][2]string
}

// Find looks for the peer's program.
func (p Peer) Find(ctx context.Context, t Tools) (Tool, error) {
	tool, err := p.find(ctx, t)
	if err != nil {
		return Tool{}, fmt.Errorf("%s: %w", p.Name, err)
	}
	return tool, nil
}

// ByName is the peer of a name.
func ByName(name string) (Peer, bool) {
	list := All()
	i := slices.IndexFunc(list, func(p Peer) bool { return p.Name == name })
	if i < 0 {
		return Peer{}, false
	}
	return list[i], true
}

// All lists the peers.
func All() []Peer {
	return []Peer{
		{Name: "postern", find: findPostern, prepare: preparePostern(0)},
		{Name: "postern+1", Says: "apikey", find: findPostern, prepare: preparePostern(1)},
		{Name: "postern+4", Says: "apikey, ratelimit, models, meter with a durable hold", find: findPostern, prepare: preparePostern(4)},
		{Name: "nginx", find: program("nginx", `nginx/(\S+)`, "-v"), prepare: prepareNginx},
		{Name: "haproxy", find: program("haproxy", `(?i)version (\S+)`, "-v"), prepare: prepareHAProxy},
		{Name: "caddy", find: findCaddy, prepare: prepareCaddy},
		{Name: "envoy", find: program("envoy", `/(\d+\.\d+\.\d+)/`, "--version"), prepare: prepareEnvoy(false)},
		{Name: "envoy+1", Says: "a key's SHA-256 looked up by a proxy-wasm filter in C", find: findEnvoyWasm, prepare: prepareEnvoy(true)},
		{Name: "fasthttp", Says: "a plain gateway: key, JSON decoded, usage added up in memory", find: findPlain, prepare: preparePlain},
		{Name: "litellm", Says: "its master key; no database", find: findLiteLLM, prepare: prepareLiteLLM},
		{Name: "portkey", Says: "passes the key on", find: findPortkey, prepare: preparePortkey},
	}
}

// lookup finds a program in bin/tools or the PATH.
func lookup(t Tools, name string) (string, error) {
	if own := filepath.Join(t.Root, "bin", "tools", name); executable(own) {
		return own, nil
	}
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
		if own := filepath.Join(dir, name); executable(own) {
			return own, nil
		}
	}
	return "", fmt.Errorf("%s is not installed; sh .ci/tools bench installs it where it can be had", name)
}

func executable(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// program finds a program that says its version.
func program(name, version string, args ...string) func(context.Context, Tools) (Tool, error) {
	return func(ctx context.Context, t Tools) (Tool, error) {
		path, err := lookup(t, name)
		if err != nil {
			return Tool{}, err
		}
		out, err := exec.CommandContext(ctx, path, args...).CombinedOutput() //nolint:gosec // a tool of the table
		if err != nil {
			return Tool{}, fmt.Errorf("ask for the version: %w: %s", err, out)
		}
		m := regexp.MustCompile(version).FindSubmatch(out)
		if m == nil {
			return Tool{}, fmt.Errorf("no version in %q", out)
		}
		return Tool{Path: path, Version: string(m[1])}, nil
	}
}

// built is the version of a Go program's main module.
func built(ctx context.Context, path, module string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "version", "-m", path).Output() //nolint:gosec // a tool of the table
	if err != nil {
		return "", fmt.Errorf("ask for the version: %w", err)
	}
	m := regexp.MustCompile(`\s` + regexp.QuoteMeta(module) + `\s+v?(\S+)`).FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("%s does not say its version", path)
	}
	compiler, _, _ := strings.Cut(string(out[strings.Index(string(out), ": ")+2:]), "\n")
	version := string(m[1])
	if commit := regexp.MustCompile(`vcs\.revision=([0-9a-f]{10})`).FindSubmatch(out); commit != nil && version == "(devel)" {
		version = string(commit[1])
	}
	return version + " (" + compiler + ")", nil
}

// freePort is a port of the loopback interface that nothing uses, over TCP and UDP.
func freePort(ctx context.Context) (int, error) {
	var config net.ListenConfig
	for range 20 {
		l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return 0, fmt.Errorf("find a port: %w", err)
		}
		address := l.Addr().String()
		u, err := config.ListenPacket(ctx, "udp", address)
		_ = l.Close() // only its number is wanted
		if err != nil {
			continue
		}
		_ = u.Close() // the same
		if tcp, ok := l.Addr().(*net.TCPAddr); ok {
			return tcp.Port, nil
		}
	}
	return 0, errors.New("find a port: none is free over TCP and UDP")
}

// Certificate writes a certificate for localhost and its key, and both in one file for those who want that.
func Certificate(dir string) (cert, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return "", "", fmt.Errorf("make a certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	hidden := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	return cert, key, errors.Join(os.WriteFile(cert, public, 0o600), os.WriteFile(key, hidden, 0o600), os.WriteFile(both(cert), append(public, hidden...), 0o600))
}

func both(cert string) string { return cert + ".both" }

// write writes a file of the site's own folder.
func (s Site) write(name, text string) error {
	path := filepath.Join(s.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // nginx's worker is another user
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644) //nolint:gosec // the same
}

package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
)

// TestDevelopmentCertificates are kept over restarts, with private keys, and made anew when the names change.
func TestDevelopmentCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := NewAuthority(dir).leaf("web", []string{"localhost", "127.0.0.1", "::1"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := NewAuthority(dir).leaf("web", []string{"::1", "localhost", "127.0.0.1"})
	if err != nil || !again.Leaf.Equal(first.Leaf) {
		t.Errorf("another certificate after a restart: %v", err)
	}
	other, err := NewAuthority(dir).leaf("web", []string{"localhost"})
	if err != nil || other.Leaf.Equal(first.Leaf) {
		t.Errorf("the same certificate for other names: %v", err)
	}
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(DevelopmentCA(dir))
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		t.Fatal(err)
	}
	for _, c := range []*tls.Certificate{first, other} {
		if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "localhost"}); err != nil {
			t.Error(err)
		}
	}
	for name, mode := range map[string]os.FileMode{"ca.pem": 0o644, "ca.key": 0o600, "listener-web.pem": 0o644, "listener-web.key": 0o600} {
		info, err := os.Stat(filepath.Join(dir, "tls", name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "tls", "ca.key"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewAuthority(dir).leaf("new", []string{"localhost"}); err == nil {
		t.Error("a broken CA was replaced behind the clients' back")
	}
	if _, err := NewAuthority("").leaf("web", nil); err == nil {
		t.Error("a certificate without names")
	}
	if fits(first.Leaf, []string{"localhost"}) {
		t.Error("fits fewer names")
	}
}

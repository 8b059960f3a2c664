package listener

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// TestReloadUnderLoad applies configurations while clients of all protocols ask without a pause: no request fails and
// no connection is opened anew.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	connections := map[string]bool{}
	r := start(t, secure(), func(_ context.Context, x *exchange.Exchange) {
		mu.Lock()
		connections[x.Request.Protocol.String()+x.Request.Remote.String()] = true
		mu.Unlock()
		_, _ = io.Copy(io.Discard, x.Request.Body)
		reply(x, 200, "fine")
	})
	var wg sync.WaitGroup
	var stop atomic.Bool
	var served atomic.Int64
	for _, p := range all {
		c := r.client(p)
		get(t, c, r.url("/")) // one connection first, or HTTP/2 and 3 would race to open several
		for range 2 {
			c := c
			if p == exchange.HTTP1 {
				c = r.client(p)
			}
			wg.Go(func() {
				for !stop.Load() {
					resp, err := c.Post(r.url("/"), "text/plain", strings.NewReader("hello"))
					if err != nil {
						t.Errorf("%v: %v", p, err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
					served.Add(1)
				}
			})
		}
	}
	for i := range 100 {
		l := secure()
		l.Limits.Headers = 50 + i
		list := []*config.Listener{l}
		if i%2 == 0 {
			other := cleartext()
			other.Name = "other"
			list = append(list, other)
		}
		if err := r.set.Apply(t.Context(), list); err != nil {
			t.Fatal(err)
		}
		broken := secure()
		broken.TLS = &config.TLS{Cert: "/does/not/exist", Key: "/neither"}
		if err := r.set.Apply(t.Context(), []*config.Listener{broken}); err == nil {
			t.Fatal("a broken configuration was applied")
		}
		time.Sleep(2 * time.Millisecond)
	}
	stop.Store(true)
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(connections) != 5 { // HTTP/1.1: one first, two in the load; of which the first client's is not reused
		t.Errorf("%d connections for %d requests: %v", len(connections), served.Load(), connections)
	}
}

// TestApplyIsAllOrNothing leaves everything as it was when one listener can not be opened.
func TestApplyIsAllOrNothing(t *testing.T) {
	t.Parallel()
	r := start(t, secure(), describe)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	free, bad := cleartext(), cleartext()
	free.Name = "free"
	bad.Name, bad.Address = "bad", taken.Addr().String()
	before := r.set.Addresses()
	changed := secure()
	changed.Limits.Headers = 1
	err = r.set.Apply(t.Context(), []*config.Listener{changed, free, bad})
	if err == nil || !strings.Contains(err.Error(), `listener "bad"`) {
		t.Fatalf("got %v", err)
	}
	if after := r.set.Addresses(); len(after) != 1 || after["web"] != before["web"] {
		t.Errorf("before %v, after %v", before, after)
	}
	r.each(t, func(t *testing.T, c *http.Client, _ exchange.Protocol) {
		if resp, _ := get(t, c, r.url("/")); resp.StatusCode != 200 {
			t.Errorf("got %d: new limits are in use", resp.StatusCode)
		}
	})
	same := secure()
	same.Name = "again"
	same.Address = before["web"].String()
	twice := *same
	if err := r.set.Apply(t.Context(), []*config.Listener{same, &twice}); err == nil {
		t.Error("one address twice was applied")
	}
	cleartextH3 := cleartext()
	cleartextH3.Protocols = all
	if err := r.set.Apply(t.Context(), []*config.Listener{cleartextH3}); err == nil {
		t.Error("http3 without tls was applied")
	}
}

// TestLimitsAreLive uses new limits on a connection that was open before.
func TestLimitsAreLive(t *testing.T) {
	t.Parallel()
	r := start(t, secure(), describe)
	r.each(t, func(t *testing.T, c *http.Client, _ exchange.Protocol) {
		for _, limit := range []int{100, 1, 100} {
			l := secure()
			l.Limits.Headers = limit
			if err := r.set.Apply(t.Context(), []*config.Listener{l}); err != nil {
				t.Fatal(err)
			}
			want := 200
			if limit == 1 {
				want = 431
			}
			req, _ := http.NewRequest("GET", r.url("/"), nil)
			req.Header = http.Header{"A": {"1"}, "B": {"2"}}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if text(t, resp); resp.StatusCode != want {
				t.Errorf("limit %d: %d", limit, resp.StatusCode)
			}
		}
	})
}

// TestProtocolsChange adds and removes a protocol of a listener that stays.
func TestProtocolsChange(t *testing.T) {
	t.Parallel()
	l := secure()
	l.Protocols = all[:2]
	r := start(t, l, describe)
	h1 := r.client(exchange.HTTP1)
	resp, _ := get(t, h1, r.url("/"))
	if resp.Header.Get("Alt-Svc") != "" {
		t.Error("HTTP/3 is advertised and not spoken")
	}
	if err := r.set.Apply(t.Context(), []*config.Listener{secure()}); err != nil {
		t.Fatal(err)
	}
	if resp, _ := get(t, h1, r.url("/")); resp.Header.Get("Alt-Svc") == "" {
		t.Error("HTTP/3 is not advertised")
	}
	get(t, r.client(exchange.HTTP3), r.url("/"))
	only1 := secure()
	only1.Protocols = all[:1]
	if err := r.set.Apply(t.Context(), []*config.Listener{only1}); err != nil {
		t.Fatal(err)
	}
	get(t, h1, r.url("/"))
	if resp, err := r.client(exchange.HTTP2).Get(r.url("/")); err == nil {
		_ = resp.Body.Close()
		t.Error("HTTP/2 is still spoken to new connections")
	}
	if c, err := tls.Dial("tcp", r.addr, func() *tls.Config { c := r.roots(); c.NextProtos = []string{"h3", "http/1.1"}; return c }()); err != nil || c.ConnectionState().NegotiatedProtocol != "http/1.1" {
		t.Errorf("ALPN: %v", err)
	} else {
		_ = c.Close()
	}
}

// TestDrain lets an open exchange end, announces the end, and refuses what comes later.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, p := range all {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			began, goOn := make(chan struct{}), make(chan struct{})
			r := start(t, secure(), func(_ context.Context, x *exchange.Exchange) {
				if x.Request.Path == "/slow" {
					close(began)
					<-goOn
				}
				reply(x, 200, "whole")
			})
			c := r.client(p)
			idle := r.client(p)
			get(t, idle, r.url("/"))
			got := make(chan string, 1)
			go func() {
				resp, err := c.Get(r.url("/slow"))
				if err != nil {
					got <- err.Error()
					return
				}
				b, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil {
					b = []byte(err.Error())
				}
				got <- string(b)
			}()
			<-began
			down := make(chan error, 1)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			go func() { down <- r.set.Shutdown(ctx) }()
			eventually(t, "no new connections", func() bool {
				conn, err := net.Dial("tcp", r.addr)
				if err == nil {
					_ = conn.Close()
				}
				return err != nil
			})
			eventually(t, "the idle connection is closed", func() bool { return r.seen.open.Load() == 1 })
			close(goOn)
			if g := <-got; g != "whole" {
				t.Errorf("got %q", g)
			}
			if err := <-down; err != nil {
				t.Errorf("shutdown: %v", err)
			}
			if err := r.set.Apply(t.Context(), nil); !errors.Is(err, ErrClosed) {
				t.Errorf("apply afterwards: %v", err)
			}
		})
	}
}

// TestRemovedListenerDrains does the same by Apply, while another listener goes on.
func TestRemovedListenerDrains(t *testing.T) {
	t.Parallel()
	began, goOn := make(chan struct{}), make(chan struct{})
	r := start(t, secure(), func(_ context.Context, x *exchange.Exchange) {
		close(began)
		<-goOn
		reply(x, 200, "whole")
	})
	c := r.client(exchange.HTTP1)
	got := make(chan *http.Response, 1)
	go func() {
		resp, err := c.Get(r.url("/"))
		if err != nil {
			t.Error(err)
		}
		got <- resp
	}()
	<-began
	other := cleartext()
	other.Name = "other"
	if err := r.set.Apply(t.Context(), []*config.Listener{other}); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", r.addr); err == nil {
		t.Error("the removed listener still accepts")
	}
	close(goOn)
	if resp := <-got; resp != nil {
		if body := text(t, resp); body != "whole" || !resp.Close {
			t.Errorf("got %q, close %v", body, resp.Close)
		}
	}
}

// TestHardStop cuts what does not end by the deadline or within the listener's drain, upgraded connections included, and ends
// handlers' contexts. Only the deadline is an error.
func TestHardStop(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		drain, within time.Duration
		want          error
	}{
		"deadline": {time.Minute, 100 * time.Millisecond, context.DeadlineExceeded},
		"drain":    {100 * time.Millisecond, time.Minute, nil},
		"no drain": {0, time.Minute, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hardStop(t, c.drain, c.within, c.want)
		})
	}
}

func hardStop(t *testing.T, drain, within time.Duration, want error) {
	began := make(chan struct{}, 4)
	var ended atomic.Int64
	l := secure()
	l.Drain = drain
	r := start(t, l, func(ctx context.Context, x *exchange.Exchange) {
		began <- struct{}{}
		if x.Request.Upgrade != "" {
			rw, _ := x.Reply.Upgrade(nil)
			_, _ = rw.Read(make([]byte, 1))
		} else {
			<-ctx.Done()
		}
		ended.Add(1)
	})
	for _, p := range all {
		c := r.client(p)
		go func() {
			if resp, err := c.Get(r.url("/")); err == nil {
				_ = resp.Body.Close()
				t.Errorf("%v: an answer came", p)
			}
		}()
		<-began
	}
	c := r.tlsDial("http/1.1")
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	<-began
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if err := r.set.Shutdown(ctx); !errors.Is(err, want) {
		t.Errorf("shutdown: %v", err)
	}
	if n := ended.Load(); n != 4 {
		t.Errorf("%d of 4 handlers ended", n)
	}
}

// TestNoGoroutineIsLeft looks for what Shutdown leaves behind. It does not run beside other tests.
func TestNoGoroutineIsLeft(t *testing.T) {
	// Not parallel: it counts the whole process's goroutines, before the parallel tests begin.
	before := runtime.NumGoroutine()
	r := start(t, secure(), describe)
	for _, p := range all {
		c := r.client(p)
		for range 3 {
			get(t, c, r.url("/"))
		}
		c.CloseIdleConnections()
		if closer, ok := c.Transport.(io.Closer); ok {
			_ = closer.Close()
		}
	}
	_ = r.send("GET / HTTP/1.1\r\n\r\n")
	r.raw() // never says a word
	if err := r.set.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "as many goroutines as before", func() bool { return runtime.NumGoroutine() <= before })
}

// authority is a CA of the tests' own.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return &authority{cert, key}
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// issue returns a certificate and its key in PEM.
func (a *authority) issue(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<60))
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, a.cert, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	kb, _ := x509.MarshalPKCS8PrivateKey(k)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kb})
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCertificateReload reads certificate files again when they change, and keeps the old when the new are broken.
func TestCertificateReload(t *testing.T) {
	t.Parallel()
	ca, dir := newAuthority(t), t.TempDir()
	certFile, keyFile := filepath.Join(dir, "c.pem"), filepath.Join(dir, "c.key")
	install := func(name string) {
		cert, key := ca.issue(t, name)
		write(t, certFile, cert)
		write(t, keyFile, key)
	}
	install("one.example")
	l := secure()
	l.TLS = &config.TLS{Cert: certFile, Key: keyFile}
	r := start(t, l, describe)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	served := func(name string, p exchange.Protocol) bool {
		c := r.clientWith(p, &tls.Config{RootCAs: pool, ServerName: name})
		resp, err := c.Get(r.url("/"))
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	}
	if !served("one.example", exchange.HTTP1) {
		t.Fatal("not served")
	}
	install("two.example")
	eventually(t, "the new certificate", func() bool { return served("two.example", exchange.HTTP2) })
	if !served("two.example", exchange.HTTP3) {
		t.Error("HTTP/3 has another certificate")
	}
	write(t, keyFile, []byte("nonsense"))
	eventually(t, "a word in the log", func() bool {
		return served("two.example", exchange.HTTP1) && strings.Contains(r.log.String(), "certificate not reloaded")
	})
	if !served("two.example", exchange.HTTP1) {
		t.Error("the old certificate is not in use")
	}
	install("three.example")
	eventually(t, "the mended certificate", func() bool { return served("three.example", exchange.HTTP1) })
}

// TestMutualTLS lets in who has a certificate of the CA, and nobody else, on every protocol.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	ca, stranger, dir := newAuthority(t), newAuthority(t), t.TempDir()
	caFile := filepath.Join(dir, "ca.pem")
	write(t, caFile, ca.pem())
	l := secure()
	l.TLS.ClientCA = caFile
	r := start(t, l, func(_ context.Context, x *exchange.Exchange) {
		name := "nobody"
		if x.Request.TLS != nil && x.Request.TLS.Peer != nil {
			name = x.Request.TLS.Peer.Subject.CommonName
		}
		reply(x, 200, name)
	})
	with := func(p exchange.Protocol, a *authority) (string, error) {
		tc := r.roots()
		if a != nil {
			pair, err := tls.X509KeyPair(a.issue(t, "alice"))
			if err != nil {
				t.Fatal(err)
			}
			tc.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		resp, err := r.clientWith(p, tc).Get(r.url("/"))
		if err != nil {
			return "", err
		}
		return text(t, resp), nil
	}
	for _, p := range all {
		if got, err := with(p, ca); err != nil || got != "alice" {
			t.Errorf("%v: %q %v", p, got, err)
		}
		if got, err := with(p, nil); err == nil {
			t.Errorf("%v: without certificate %q", p, got)
		}
		if got, err := with(p, stranger); err == nil {
			t.Errorf("%v: with another CA's %q", p, got)
		}
	}
	write(t, caFile, []byte("nonsense"))
	eventually(t, "a word in the log", func() bool {
		got, _ := with(exchange.HTTP1, ca)
		return got == "alice" && strings.Contains(r.log.String(), "client CA not reloaded")
	})
	if _, err := with(exchange.HTTP1, nil); err == nil {
		t.Error("a broken CA file lets everybody in")
	}
	write(t, caFile, stranger.pem())
	eventually(t, "the new CA", func() bool { got, err := with(exchange.HTTP1, stranger); return err == nil && got == "alice" })
	if _, err := with(exchange.HTTP2, ca); err == nil {
		t.Error("the old CA still lets in")
	}
	for name, content := range map[string]string{"missing": "", "empty": " ", "nonsense": "x", "a key": "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"} {
		l := secure()
		l.TLS.ClientCA = filepath.Join(dir, "bad-"+name)
		if content != "" {
			write(t, l.TLS.ClientCA, []byte(content))
		}
		if err := r.set.Apply(t.Context(), []*config.Listener{l}); err == nil || !strings.Contains(err.Error(), "client CA") {
			t.Errorf("CA file %s: %v", name, err)
		}
	}
}

// TestTLSVersions and the plain request on a TLS port.
func TestTLSVersions(t *testing.T) {
	t.Parallel()
	l := secure()
	l.TLS.MinVersion = tls.VersionTLS13
	r := start(t, l, describe)
	tc := r.roots()
	tc.MaxVersion = tls.VersionTLS12
	if resp, err := r.clientWith(exchange.HTTP1, tc).Get(r.url("/")); err == nil {
		_ = resp.Body.Close()
		t.Error("TLS 1.2 was accepted")
	}
	if got := r.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"); status(got, 0) != 400 || !strings.Contains(got, "https://") {
		t.Errorf("cleartext on a TLS port: %q", got)
	}
	old := r.roots()
	old.MaxVersion, old.MinVersion = tls.VersionTLS11, tls.VersionTLS10
	if c, err := tls.Dial("tcp", r.addr, old); err == nil {
		_ = c.Close()
		t.Error("TLS 1.1 was accepted")
	}
}

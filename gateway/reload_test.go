package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// TestReloadUnderLoad applies 200 configurations, every third of them broken, while clients call over every protocol: no request fails, no
// connection is dropped, and afterwards nothing is left over.
func TestReloadUnderLoad(t *testing.T) {
	dir := workdir(t, nil)
	// What is asked is that a reload loses nothing, not that this machine is quick beside all other tests.
	replaceIn(t, dir+"/policies/tenant.hcl", `timeout = "500ms"`, `timeout = "30s"`)
	rewrite(t, dir+"/config.hcl", func(text string) string {
		text = strings.Replace(text, "\n  limits {\n    cpu_per_kib = \"2ms\" # it looks through every octet of a prompt\n  }\n", "", 1)
		return regexp.MustCompile(`(?m)^plugin "\w+" \{$`).ReplaceAllString(text, "$0\n  limits {\n    queue = \"10s\"\n  }\n")
	})
	n := startIn(t, dir)
	_, key := n.customer(t, "1000")
	policyFile := filepath.Join(n.dir, "policies", "tenant.hcl")
	original, err := os.ReadFile(policyFile)
	if err != nil {
		t.Fatal(err)
	}
	configFile := filepath.Join(n.dir, "config.hcl")
	main, err := os.ReadFile(configFile)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls, failed, handshakes atomic.Int64
	var first atomic.Pointer[string]
	var load sync.WaitGroup
	const workers = 2
	for _, protocol := range []string{"http1", "http2", "http3"} {
		for range workers {
			c := n.client(t, protocol)
			count := func(tls.ConnectionState) error { handshakes.Add(1); return nil }
			switch tr := c.Transport.(type) {
			case *http.Transport:
				tr.TLSClientConfig.VerifyConnection = count
			case *http3.Transport:
				tr.TLSClientConfig.VerifyConnection = count
			}
			load.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					body := hello
					if i%2 == 1 {
						body = strings.Replace(hello, "{", `{"stream":true,`, 1)
					}
					if err := once(c, n.url, key, body); err != nil {
						failed.Add(1)
						text := fmt.Sprintf("%s call %d: %v", protocol, i, err)
						first.CompareAndSwap(nil, &text)
					}
					calls.Add(1)
				}
			})
		}
	}
	waitFor(t, "load", func() bool { return calls.Load() > 30 })
	goroutines := runtime.NumGoroutine()
	instances := n.instances()

	applied, refused := 0, 0
	const reloads = 200
	for i := range reloads {
		text := string(original)
		switch i % 3 {
		case 0: // another plugin configuration: new instances
			text = strings.Replace(text, `rate  = "100/s"`, fmt.Sprintf(`rate  = "%d/s"`, 100_000+i), 1)
			text = strings.Replace(text, "burst = 200", "burst = 100000", 1)
		case 1: // another upstream and route: new connections
			with := strings.Replace(string(main), `first_byte = "30s"`, fmt.Sprintf(`first_byte = "%ds"`, 31+i%60), 1)
			if err := os.WriteFile(configFile, []byte(with), 0o600); err != nil {
				t.Fatal(err)
			}
			text = strings.Replace(text, `rate  = "100/s"`, `rate  = "100000/s"`, 1)
			text = strings.Replace(text, "burst = 200", "burst = 100000", 1)
		case 2:
			text = strings.Replace(text, "burst = 200", "brust = 200", 1)
		}
		if err := os.WriteFile(policyFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		before := calls.Load()
		cfg, err := n.load()
		if err == nil {
			err = n.Apply(ctx, cfg)
		}
		switch {
		case i%3 == 2 && err == nil:
			t.Fatalf("reload %d: a broken file was applied", i)
		case i%3 != 2 && err != nil:
			t.Fatalf("reload %d: %v", i, err)
		case err != nil:
			refused++
		default:
			applied++
		}
		waitFor(t, "calls between reloads", func() bool { return calls.Load() > before || failed.Load() > 0 })
		if text := first.Load(); text != nil {
			t.Fatalf("reload %d: %s", i, *text)
		}
	}
	// What the load used is warm again: now only it may be there.
	waitFor(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines+10 })
	waitFor(t, "instances to close", func() bool { return n.instances() <= instances+2*runtime.GOMAXPROCS(0)*5 })
	cancel()
	load.Wait()
	t.Logf("%d calls, %d reloads applied, %d refused, %d handshakes, %d instances before and %d after", calls.Load(), applied, refused, handshakes.Load(), instances, n.instances())
	if refused != reloads/3 || applied != reloads-refused {
		t.Errorf("%d applied, %d refused", applied, refused)
	}
	if got := handshakes.Load(); got != 3*workers {
		t.Errorf("%d handshakes for %d clients: connections were dropped", got, 3*workers)
	}
	n.verify(t)
}

// instances is how many plugin instances there are.
func (n *node) instances() int {
	sum := 0
	for _, p := range n.Plugins() {
		sum += p.Instances
	}
	return sum
}

// once makes one call and checks that the whole answer came.
func once(c *http.Client, url, key, body string) error {
	// Not the load's context: a call under way when the load ends is finished.
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, b)
	}
	whole := strings.Contains(string(b), "jane@example.com") || strings.Contains(string(b), "[DONE]")
	if !whole {
		return errors.New("the answer is not whole: " + string(b))
	}
	return nil
}

// waitFor waits until something holds, for as long as a loaded machine may need.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

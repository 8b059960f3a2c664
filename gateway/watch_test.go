package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/plugin/wasmtest"
	"github.com/postern-gateway/postern/sdk/abi"
)

const watchedConfig = `
state "badger" {
  dir = "data"
}

listener "public" {
  address   = "127.0.0.1:0"
  protocols = [http1, http2, http3]
  tls {
    self_signed = ["127.0.0.1"]
  }
}

plugin "mark" {
  source = "mark"
  watch  = true
  limits {
    queue = "10s"
  }
}

route "all" {
  listener = listener.public
  match    = "/"
  policies = [policy.mark]
  respond {
    status = 200
    body   = "ok"
  }
}
`

const watchedPolicy = `
policy "mark" {
  response "mark" {
    timeout = "30s"
  }
}
`

// marking is a plugin that writes its version into the response.
func marking(version int) []byte {
	op := wasmtest.Operation(abi.OpHeaderSet, "x-version", fmt.Appendf(nil, "%d", version))
	m := wasmtest.Policy(wasmtest.Answer(abi.ActionContinue, wasmtest.Scratch, uint32(len(op))))
	m.Put(wasmtest.Scratch, op)
	return m.Bytes()
}

// broken are modules that must not take the place of one that works.
func broken(n int) []byte {
	m := wasmtest.Policy(wasmtest.Answer(abi.ActionContinue, 0, 0))
	switch n % 5 {
	case 0:
		return marking(1)[:100+n]
	case 1: // traps when it is configured
		m.Exported(abi.ExportConfigure).Code = wasmtest.Unreachable
	case 2:
		m.Exported(abi.ExportOn).Export = "postern_off"
	case 3: // asks for what there is not
		m = new(wasmtest.Module)
		m.Import("env", "abort", wasmtest.Sig())
	case 4: // never ends when it starts
		start := m.Func("", wasmtest.Sig(), wasmtest.Loop(wasmtest.Void, wasmtest.Br(0)))
		m.Start = &start
	}
	return m.Bytes()
}

// TestPluginFileSwappedUnderLoad writes a plugin's file 50 times while requests come by three protocols; every fifth time it is
// broken. Not one request may fail, each new version must come to serve, and nothing of the old ones may stay.
func TestPluginFileSwappedUnderLoad(t *testing.T) {
	t.Parallel()
	dir := workdir(t, map[string]string{"config.hcl": watchedConfig, "policies/mark.hcl": watchedPolicy, "mark/plugin.hcl": "abi = 1\nversion = \"0.1.0\"\nsummary = \"Marks.\"\nhook \"response\" {}\n"})
	file := filepath.Join(dir, "mark", "mark.wasm")
	put := func(wasm []byte) {
		t.Helper()
		if err := errors.Join(os.WriteFile(file+".new", wasm, 0o600), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	put(marking(0))
	n := startIn(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	var refused atomic.Int64
	work.Go(func() {
		watchFiles(ctx, n.Server, slog.New(slog.DiscardHandler), 5*time.Millisecond, func(ctx context.Context) error {
			cfg, err := n.load()
			if err != nil {
				n.Refused(ctx, err)
			} else {
				err = n.Apply(ctx, cfg)
			}
			if err != nil {
				refused.Add(1)
			}
			return err
		})
	})
	var calls, failed atomic.Int64
	var version, first atomic.Pointer[string]
	for _, protocol := range []string{"http1", "http2", "http3"} {
		for range 2 {
			c := n.client(t, protocol)
			work.Go(func() {
				for ctx.Err() == nil {
					v, err := mark(c, n.url)
					calls.Add(1)
					if err != nil {
						failed.Add(1)
						text := protocol + ": " + err.Error()
						first.CompareAndSwap(nil, &text)
					}
					version.Store(&v)
				}
			})
		}
	}
	serves := func(want int) func() bool {
		return func() bool { v := version.Load(); return failed.Load() > 0 || v != nil && *v == fmt.Sprint(want) }
	}
	waitFor(t, "the first version", serves(0))
	waitFor(t, "load", func() bool { return calls.Load() > 100 })
	goroutines := runtime.NumGoroutine()
	for i := 1; i <= 50; i++ {
		if i%5 == 0 {
			before := refused.Load()
			put(broken(i / 5))
			waitFor(t, "a refusal", func() bool { return refused.Load() > before })
			if status := n.Status(); status.Refused == nil {
				t.Errorf("swap %d: the status does not say that it was refused", i)
			}
		} else {
			put(marking(i))
			waitFor(t, fmt.Sprintf("version %d", i), serves(i))
		}
		if text := first.Load(); text != nil {
			t.Fatalf("swap %d: %s", i, *text)
		}
	}
	waitFor(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines+10 })
	waitFor(t, "old pools to close", func() bool { return len(n.Plugins()) == 1 })
	cancel()
	work.Wait()
	if failed.Load() > 0 || refused.Load() < 10 {
		t.Errorf("%d of %d calls failed, %d files refused", failed.Load(), calls.Load(), refused.Load())
	}
	if p := n.Plugins()[0]; p.Memory > int64(p.Limit)*512<<10 || p.Faults > 0 {
		t.Errorf("%+v", p)
	}
	t.Logf("%d calls, %d refused files", calls.Load(), refused.Load())
}

// mark makes one request and returns the version that answered.
func mark(c *http.Client, url string) (string, error) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url+"/", http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK || string(b) != "ok" {
		return "", fmt.Errorf("%s: %s", resp.Status, b)
	}
	return resp.Header.Get("X-Version"), nil
}

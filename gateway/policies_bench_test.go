package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/policy"
	"github.com/postern-gateway/postern/gateway/telemetry"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

// BenchmarkFivePolicies runs a request through a chain of five policies, the SDKs' examples, and through one of none: what five
// add is the difference. cpu-ns/op is the process's CPU time, which a loaded machine falsifies less than the clock.
func BenchmarkFivePolicies(b *testing.B) {
	for _, language := range []string{"none", "rust", "c", "go"} {
		for _, raw := range []bool{false, true} {
			if language == "none" && raw {
				continue
			}
			b.Run(language+map[bool]string{true: "/unmetered"}[raw], func(b *testing.B) {
				wasm := ""
				if language != "none" {
					wasm = exampleOf(b, language)
				}
				chain := chainOfFive(b, wasm, raw)
				x := &exchange.Exchange{ID: "edge-1-1", Request: exchange.Request{
					Method: "POST", Scheme: "https", Authority: "api.example.com", Path: "/v1/chat/completions",
					Header: exchange.Header{{Name: "accept", Value: "*/*"}, {Name: "x-name", Value: "Ada"}, {Name: "content-type", Value: "application/json"}},
				}}
				b.ReportAllocs()
				before := cpuTime(b)
				for b.Loop() {
					if p := chain.Start(x, 0).Phase(b.Context(), exchange.RequestPhase); p != nil {
						b.Fatal(p)
					}
				}
				b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
				if got := x.Request.Header.Get("x-greeting"); language != "none" && got != "Hello, Ada" {
					b.Errorf("x-greeting: %q", got)
				}
			})
		}
	}
}

// cpuTime is what the process has used of the processors.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// exampleOf builds the example of a language's SDK.
func exampleOf(b *testing.B, language string) string {
	b.Helper()
	out := filepath.Join(b.TempDir(), "greet.wasm")
	sdk := filepath.Join(root(b), "sdk", language)
	cmd := exec.CommandContext(b.Context(), filepath.Join(sdk, "build"), filepath.Join(sdk, "example"), out)
	if language == "go" {
		cmd = exec.CommandContext(b.Context(), "go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, "./example")
		cmd.Dir, cmd.Env = sdk, append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		b.Skipf("%s", text)
	}
	return out
}

// chainOfFive builds the chain of a route with five plugins that are the same module; none where wasm is empty.
func chainOfFive(b *testing.B, wasm string, raw bool) *policy.Chain {
	b.Helper()
	dir := b.TempDir()
	text := "state \"memory\" {}\nlistener \"public\" {\n  address = \"127.0.0.1:1\"\n  protocols = [http1]\n}\n"
	stages, policies := "", ""
	if wasm != "" {
		for n := range 5 {
			text += fmt.Sprintf("plugin \"greet%d\" {\n  source = %q\n}\n", n, wasm)
			stages += fmt.Sprintf("  request \"greet%d\" {}\n", n)
		}
		policies = "policies = [policy.greet]"
		source, err := os.ReadFile(filepath.Join(root(b), "sdk", "go", "example", "plugin.hcl"))
		if err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(wasm), "plugin.hcl"), source, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	text += "route \"all\" {\n  listener = listener.public\n  match = \"/\"\n  " + policies + "\n  respond {\n    status = 200\n  }\n}\n"
	if err := os.MkdirAll(filepath.Join(dir, "policies"), 0o700); err != nil {
		b.Fatal(err)
	}
	for name, content := range map[string]string{"config.hcl": text, "policies/greet.hcl": "policy \"greet\" {\n" + stages + "}\n"} {
		if name != "config.hcl" && wasm == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	cfg, _, diags := config.Load(dir, config.Options{Backends: backends(), Formats: formats(), Modules: true})
	if diags.HasErrors() {
		b.Fatal(diags)
	}
	host, err := plugin.NewHost(plugin.Config{ABIs: abis(), CacheDir: plugintest.CacheDir(), Raw: raw})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := host.Close(ctx); err != nil {
			b.Error(err)
		}
	})
	pools := map[*config.Stage]*plugin.Pool{}
	for _, list := range cfg.Routes[0].Chain() {
		for _, s := range list {
			if pools[s], err = host.Load(b.Context(), s.Plugin, []*config.Stage{s}); err != nil {
				b.Fatal(err)
			}
		}
	}
	tel, err := telemetry.New(b.Context(), telemetry.Config{})
	if err != nil {
		b.Fatal(err)
	}
	return policy.New(policy.Config{
		Route: cfg.Routes[0], Metrics: tel.Metrics, Log: slog.New(slog.DiscardHandler),
		Bind: func(s *config.Stage) (policy.Caller, int) { return pools[s], 0 },
	})
}

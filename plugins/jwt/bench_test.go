package main

import (
	"context"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	gatewayplugin "github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

// limits are what the largest curves need; README.md has the table.
var limits = config.PluginLimits{CPU: time.Second}

// BenchmarkVerify measures what a token costs that was not seen before, by algorithm, natively and as a module, and one that
// comes again. fuel/op is what limits.cpu is compared with.
func BenchmarkVerify(b *testing.B) {
	for i := range algorithms {
		name := algorithms[i].name
		// Its signature is another token's: all of the work is done, and nothing is remembered.
		good, other := sign(b, name, `{"alg":"`+name+`","kid":"k"}`, claimsText("")), sign(b, name, `{"alg":"`+name+`","kid":"k"}`, claimsText(`,"x":1`))
		cut := func(s string) int {
			for n := len(s) - 1; ; n-- {
				if s[n] == '.' {
					return n
				}
			}
		}
		wrong := good[:cut(good)] + other[cut(other):]
		k := configured(b, name)
		b.Run(name+"/native", func(b *testing.B) {
			var t token
			t.read([]byte(wrong))
			b.ReportAllocs()
			for b.Loop() {
				if k.verify(t.signed, t.signature) {
					b.Fatal("accepted")
				}
			}
		})
		b.Run(name+"/wasm", func(b *testing.B) { event(b, name, wrong, abi.ActionRespond) })
		if name == "RS256" {
			b.Run("again/wasm", func(b *testing.B) { event(b, name, good, abi.ActionContinue) })
		}
	}
}

// configured is the key of an algorithm that block writes.
func configured(tb testing.TB, name string) *key {
	tb.Helper()
	alg := algorithmOf(name)
	var k *key
	var err error
	if alg.kind == "oct" {
		k, err = newMAC(alg, []byte(secret))
	} else {
		k, err = fromPEM(alg, publicPEM(tb, name))
	}
	if err != nil {
		tb.Fatal(err)
	}
	warm(alg)
	return k
}

func event(b *testing.B, name, token string, want abi.Action) {
	_, pool := plugintest.Load(b, plugintest.Config{New: func() postern.Plugin { return new(plugin) }, Stages: stages(issuer + block(b, name)), Limits: limits})
	x := bearer(token)
	x.ID, x.Request.Method, x.Request.Path = "bench-1-1", "GET", "/"
	ev, res := &gatewayplugin.Event{Kind: abi.EventRequest, Exchange: x}, new(gatewayplugin.Result)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if err := pool.Call(context.Background(), ev, res); err != nil || res.Action != want {
			b.Fatal(err, res.Action)
		}
		n++
	}
	b.ReportMetric(float64(x.Fuel)/float64(n), "fuel/op")
}

package conformance

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/plugin/abi1"
	"github.com/postern-gateway/postern/gateway/project/trial"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

// route plays conformance_test.hcl: the guest at every phase of a route, as a gateway runs it.
func route(t *testing.T, guest string) {
	dir := folder(t, guestManifest)
	for name, text := range map[string][]byte{trial.PolicyFile: guestPolicy, "conformance_test.hcl": guestTests} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, diags := manifest.Parse(guestManifest, "plugin.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	p := &config.Plugin{Name: "conformance", Source: dir, Path: guest, Manifest: m, Limits: config.PluginLimits{
		Memory: 64 << 20, CPU: 50 * time.Millisecond, Instances: 2, Queue: 10 * time.Second,
	}}
	for _, g := range m.Grants {
		p.Grants = append(p.Grants, g.Capability)
	}
	trials, _, _, diags := trial.Load(dir, p)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	host, err := trial.NewHost(trial.Config{Plugin: p, ABIs: []plugin.ABI{abi1.New()}, CacheDir: plugintest.CacheDir(), Child: plugintest.Compiler(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := host.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	for _, played := range trials {
		t.Run(played.Name, func(t *testing.T) {
			wrong, err := host.Run(t.Context(), played, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range wrong {
				t.Errorf("%s: %s", w.At, w.Text)
			}
		})
	}
}

// Package conformance is the suite that every SDK is tested by. Its main type is Config: two modules, the conformance guest and the
// example, which README.md specifies. Run drives them through the gateway's own host and compares what they tell; it knows no
// language. Languages builds the modules of the five SDKs from source.
package conformance

import (
	_ "embed" // manifests and tests, for modules from outside the repository
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

//go:embed plugin.hcl
var guestManifest []byte

//go:embed policy.hcl
var guestPolicy []byte

//go:embed conformance_test.hcl
var guestTests []byte

//go:embed example.hcl
var exampleManifest []byte

// Config is what Run tests.
type Config struct {
	Guest   string // the conformance guest, a .wasm file
	Example string // the example, a .wasm file
	Calls   int    // events of the example in the test that its memory stays flat; default 1,000,000, with -short 50,000
}

// Run tests a guest and an example, each part in a test of its own.
func Run(t *testing.T, c Config) {
	t.Helper()
	dir := folder(t, guestManifest)
	run := func(name string, grants []string, limits config.PluginLimits, plays []play) {
		t.Run(name, func(t *testing.T) {
			var cases []plugintest.Case
			for _, p := range plays {
				cases = append(cases, p.compile())
			}
			plugintest.Run(t, plugintest.Config{
				Dir: dir, Name: "conformance", Wasm: c.Guest, Grants: grants, Stages: everywhere(""), Limits: limits,
			}, cases)
		})
	}
	usual := config.PluginLimits{CPU: 200 * time.Millisecond}
	run("events", nil, usual, events())
	run("values", nil, usual, values())
	run("results", nil, usual, results())
	run("operations", nil, usual, operations())
	run("fetches", nil, usual, fetches())
	run("faults", nil, usual, faults())
	run("configurations", nil, usual, configurations())
	run("no grants", []string{}, usual, denied())
	// 15 MiB are hashed octet by octet, and held three times: as the frame, as the result, and by collectors as garbage.
	run("large", nil, config.PluginLimits{Memory: 512 << 20, CPU: 4 * time.Second}, large())
	t.Run("route", func(t *testing.T) { route(t, c.Guest) })
	t.Run("example", func(t *testing.T) { example(t, c.Example) })
	t.Run("memory", func(t *testing.T) { flat(t, c) })
}

// folder is a plugin's folder with nothing but a manifest.
func folder(t testing.TB, manifest []byte) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "plugin.hcl"), manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

package conformance_test

import (
	"os"
	"testing"

	"github.com/postern-gateway/postern/sdk/conformance"
)

// calls of the example: a million, as the suite has it, and fewer where each takes twenty times as long.
func calls() int {
	if raceEnabled {
		return 50_000
	}
	return 0
}

// Each language's example and guest are built from source and pass the suite. What an event costs is printed.
func TestLanguages(t *testing.T) {
	var costs []conformance.Cost
	for _, l := range conformance.Languages(t) {
		t.Run(l.Name, func(t *testing.T) {
			c := conformance.Config{Guest: l.Build(t, "conformance"), Example: l.Build(t, "example"), Calls: calls()}
			conformance.Run(t, c)
			costs = append(costs, c.Cost(t, l.Name))
		})
	}
	t.Logf("what an event costs:\n%s", conformance.Table(costs))
}

func BenchmarkExample(b *testing.B) {
	for _, l := range conformance.Languages(b) {
		b.Run(l.Name, func(b *testing.B) { conformance.Config{Example: l.Build(b, "example")}.BenchmarkEvent(b) })
	}
}

// Modules from elsewhere pass the suite when they are named.
func TestModule(t *testing.T) {
	c := conformance.Config{Guest: os.Getenv("POSTERN_CONFORMANCE"), Example: os.Getenv("POSTERN_EXAMPLE"), Calls: calls()}
	if c.Guest == "" || c.Example == "" {
		t.Skip("POSTERN_CONFORMANCE and POSTERN_EXAMPLE name no modules to test")
	}
	conformance.Run(t, c)
}

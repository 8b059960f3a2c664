package exchange_test

import (
	"fmt"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// TestNames: what was kept is known, and nothing else ever is, however many names take each other's places.
func TestNames(t *testing.T) {
	var names exchange.Names
	for _, name := range []string{"", "a", "x-greeting"} {
		if got, ok := names.Known([]byte(name)); ok {
			t.Errorf("%q is known as %q before anything was kept", name, got)
		}
	}
	kept := []byte("x-greeting")
	names.Keep(kept)
	copy(kept, "y-greeting")
	if got, ok := names.Known([]byte("x-greeting")); !ok || got != "x-greeting" {
		t.Errorf("x-greeting: %q, %v", got, ok)
	}
	for _, other := range []string{"", "y-greeting", "x-greetin", "x-greeting2", "x-Greeting"} {
		if got, ok := names.Known([]byte(other)); ok {
			t.Errorf("%q is known as %q", other, got)
		}
	}
	for i := range 1000 {
		name := fmt.Appendf(nil, "x-%d", i)
		if got, ok := names.Known(name); ok {
			t.Fatalf("%s is known as %q before it was kept", name, got)
		}
		names.Keep(name)
		if got, ok := names.Known(name); !ok || got != string(name) {
			t.Fatalf("%s: %q, %v", name, got, ok)
		}
	}
	if n := testing.AllocsPerRun(100, func() { names.Known([]byte("x-999")) }); n != 0 {
		t.Errorf("%.0f allocations for a name that is known", n)
	}
}

package plugintest

import (
	"context"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/plugin"
)

// Load opens the pool that Run's cases call, with c.Stages configured, on a host of its own: for benchmarks, and for what is no
// table. Both are closed when the test ends.
func Load(t testing.TB, c Config) (*plugin.Host, *plugin.Pool) {
	t.Helper()
	c.load(t)
	c.start(t)
	c.build(t)
	pool, err := c.host.Load(t.Context(), c.compiled, c.stages(t, c.Stages))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := pool.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return c.host, pool
}

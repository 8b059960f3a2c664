package origin

import (
	"errors"
	"fmt"
	"testing"
)

// TestStartAndStop: what was started ends.
func TestStartAndStop(t *testing.T) {
	t.Parallel()
	o, err := Start(t.Context(), t.TempDir(), "no-such-program")
	var missing Missing
	if !errors.As(err, &missing) || fmt.Sprint(missing) != "not installed: [no-such-program]" {
		t.Fatal(err)
	}
	c, err := o.List[0].Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if err := o.Stop(); err != nil {
		t.Error(err)
	}
	if c, err := o.List[0].Dial(t.Context()); err == nil {
		_ = c.Close()
		t.Error("it still listens")
	}
}

package policy

import (
	"bufio"
	"fmt"
	"math"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/telemetry"
)

// TestLook: the time between two looks at the clock is the stages' that have run, by what they computed, and none of it is
// lost or counted twice.
func TestLook(t *testing.T) {
	t.Parallel()
	tel, err := telemetry.New(t.Context(), telemetry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	run := &turn{began: time.Now().Add(-10 * time.Second), spent: time.Second}
	run.ran = run.few[:0]
	for i, fuel := range []int64{99, 299, 0, 599} {
		run.ran = append(run.ran, ran{metrics: tel.Metrics.Stage(fmt.Sprintf("p%d", i), "request"), fuel: fuel})
	}
	run.look()
	took := run.spent - time.Second
	if took < 9*time.Second {
		t.Fatalf("the stages took %s, and 9 s have passed since the last look", took)
	}
	run.look() // nothing has run since
	if run.spent != took+time.Second {
		t.Error("a look with nothing to look at moved the clock")
	}
	answer := httptest.NewRecorder()
	tel.Metrics.Handler().ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	got := map[string]float64{}
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		var value float64
		for i := range 4 {
			for _, name := range []string{"calls", "seconds", "fuel"} {
				if n, _ := fmt.Sscanf(lines.Text(), fmt.Sprintf("postern_plugin_%s_total{phase=\"request\",plugin=\"p%d\"} %%g", name, i), &value); n == 1 {
					got[fmt.Sprint(name, i)] = value
				}
			}
		}
	}
	for i, fuel := range []float64{99, 299, 0, 599} {
		if got[fmt.Sprint("calls", i)] != 1 || got[fmt.Sprint("fuel", i)] != fuel {
			t.Errorf("stage %d: %v calls, %v fuel, not 1 and %v", i, got[fmt.Sprint("calls", i)], got[fmt.Sprint("fuel", i)], fuel)
		}
		want := took.Seconds() * (fuel + 1) / 1001 // 100 + 300 + 1 + 600
		if seconds := got[fmt.Sprint("seconds", i)]; math.Abs(seconds-want) > 1e-6 {
			t.Errorf("stage %d: %v s, not %v", i, seconds, want)
		}
	}
}

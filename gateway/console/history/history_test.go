package history

import (
	"math"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/telemetry"
)

func sample(at time.Time, ok, failed float64) Sample {
	s := Sample{Time: at, Buckets: make([]uint64, len(telemetry.Bounds()))}
	s.Classes[2], s.Classes[5] = ok, failed
	for i := range s.Buckets {
		s.Buckets[i] = uint64(ok + failed)
	}
	return s
}

// TestIntervals: each minute has what was counted in it, and what is kept has a bound however long it goes on.
func TestIntervals(t *testing.T) {
	t.Parallel()
	var h History
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const rounds = 3 * 24 * 60 * 4 // three days
	for i := range rounds {
		h.Add(sample(at.Add(time.Duration(i)*Every), float64(i), 0), map[string]State{"m": Good})
	}
	hour, day := h.Hour(), h.Day()
	if len(hour) != 60 || len(day) < 48 || len(day) > 49 {
		t.Fatalf("%d minutes, %d half hours", len(hour), len(day))
	}
	for _, i := range hour {
		if i.Length != time.Minute || i.Classes[2] != 4 {
			t.Errorf("%+v", i)
		}
	}
	if last := day[len(day)-1]; last.Length != SlotTime || last.Classes[2] != 120 {
		t.Errorf("%+v", last)
	}
	if slots, share, ok := h.Model("m"); !ok || share != 1 || len(slots) != Slots {
		t.Errorf("%d slots, %v, %v", len(slots), share, ok)
	}
	var short History
	short.Add(sample(at, 0, 0), nil)
	if short.Hour() != nil {
		t.Error("one sample is no interval")
	}
	short.Add(sample(at.Add(Every), 1, 0), nil)
	if got := short.Hour(); len(got) != 1 || got[0].Length != Every {
		t.Errorf("%+v", got)
	}
}

// TestModels: a state seen now and then does not colour half an hour, one that lasts does; a model that is gone is forgotten.
func TestModels(t *testing.T) {
	t.Parallel()
	var h History
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 40 {
		state := Good
		if i == 3 {
			state = Bad
		}
		h.Add(sample(at.Add(time.Duration(i)*Every), 0, 0), map[string]State{"once": state, "often": []State{Good, Bad, Partial, Partial}[i%4]})
	}
	for name, want := range map[string]State{"once": Good, "often": Bad} {
		slots, _, ok := h.Model(name)
		if worst, seen := slots[0].Worst(); !ok || !seen || worst != want {
			t.Errorf("%s: %v", name, worst)
		}
	}
	if _, share, _ := h.Model("often"); share != 0.75 {
		t.Error(share)
	}
	h.Add(sample(at.Add(time.Hour), 0, 0), map[string]State{"once": Good})
	if _, _, ok := h.Model("often"); ok {
		t.Error("a model that is gone is still known")
	}
	many := map[string]State{}
	for i := range maxModels + 100 {
		many[time.Duration(i).String()] = Good
	}
	h.Add(sample(at.Add(2*time.Hour), 0, 0), many)
	if len(h.models) > maxModels {
		t.Error(len(h.models))
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	bounds := telemetry.Bounds()
	buckets := make([]uint64, len(bounds))
	for i := range buckets {
		buckets[i] = 10
	}
	buckets[0] = 0 // all ten between the first bound and the second
	if got := Quantile(buckets, 10, 0.5); got <= bounds[0] || got >= bounds[1] {
		t.Error(got)
	}
	if got := Quantile(buckets, 0, 0.5); !math.IsNaN(got) {
		t.Error(got)
	}
	if got := Quantile(make([]uint64, len(bounds)), 3, 0.5); got != bounds[len(bounds)-1] {
		t.Error("all are beyond the last bound", got)
	}
}

// Package history remembers what was counted lately, for charts and for the status page: its main type is History. It keeps a
// fixed number of samples, so that it takes the same room however long the gateway runs and however much it does.
package history

import (
	"math"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/telemetry"
)

// How much is kept: an hour finely and a day coarsely, and how the models were over the day.
const (
	Every     = 15 * time.Second // between two samples
	fine      = 241
	coarse    = 145 // a sample each ten minutes
	each      = int(10 * time.Minute / Every)
	SlotTime  = 30 * time.Minute
	Slots     = 48
	maxModels = 500 // whose state is remembered
)

// Sample is what was counted since the start, at a moment.
type Sample struct {
	Time     time.Time
	Classes  [6]float64 // exchanges by class of status, as telemetry has them
	Buckets  []uint64   // by telemetry.Bounds, cumulative
	Sent     float64    // octets of bodies
	Input    float64    // tokens
	Output   float64
	InFlight float64 // at the moment
}

// Take makes a sample of what telemetry counted.
func Take(at time.Time, t *telemetry.Totals) Sample {
	s := Sample{Time: at, Buckets: make([]uint64, len(telemetry.Bounds())), Input: t.Input, Output: t.Output, InFlight: t.InFlight}
	for _, r := range t.Routes {
		for i, n := range r.Classes {
			s.Classes[i] += n
		}
		for i, n := range r.Buckets {
			s.Buckets[i] += n
		}
		s.Sent += r.Sent
	}
	return s
}

// State is how something was at a moment.
type State int

// The states, the worst last.
const (
	Good    State = iota
	Partial       // some of what serves it can not be used
	Bad           // nothing can
)

// Slot is how something was over a SlotTime.
type Slot struct {
	Start  time.Time
	Counts [3]int // samples by State
}

// Worst is the worst state that was seen in more than a sample out of twenty; ok is false when nothing was seen.
func (s *Slot) Worst() (worst State, ok bool) {
	seen := s.Counts[Good] + s.Counts[Partial] + s.Counts[Bad]
	switch {
	case s.Counts[Bad]*20 > seen:
		worst = Bad
	case (s.Counts[Partial]+s.Counts[Bad])*20 > seen:
		worst = Partial
	}
	return worst, seen > 0
}

// History is what was counted lately. It is safe for concurrent use; its zero value is empty and ready.
type History struct {
	mu     sync.Mutex
	taken  int
	fine   []Sample // ascending
	coarse []Sample
	models map[string]*model
}

type model struct {
	slots  []Slot // ascending, at most Slots
	counts [3]int // since the start
}

// Add takes a sample, and how the models are.
func (h *History) Add(s Sample, states map[string]State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fine = keep(h.fine, s, fine)
	if h.taken%each == 0 {
		h.coarse = keep(h.coarse, s, coarse)
	}
	h.taken++
	if h.models == nil {
		h.models = map[string]*model{}
	}
	for name := range h.models {
		if _, ok := states[name]; !ok {
			delete(h.models, name)
		}
	}
	start := s.Time.Truncate(SlotTime)
	for name, state := range states {
		m := h.models[name]
		if m == nil {
			if len(h.models) >= maxModels {
				continue
			}
			m = &model{}
			h.models[name] = m
		}
		if n := len(m.slots); n == 0 || m.slots[n-1].Start.Before(start) {
			m.slots = keep(m.slots, Slot{Start: start}, Slots)
		}
		m.slots[len(m.slots)-1].Counts[state]++
		m.counts[state]++
	}
}

// keep appends v, and drops the first where there are more than most.
func keep[T any](list []T, v T, most int) []T {
	if len(list) == most {
		list = append(list[:0], list[1:]...)
	}
	return append(list, v)
}

// Model is how a model was: the slots of the last day, the latest last, and the share of samples since the start at which it
// could be called. ok is false when nothing is known of it.
func (h *History) Model(name string) (slots []Slot, share float64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.models[name]
	if m == nil {
		return nil, 0, false
	}
	all := m.counts[Good] + m.counts[Partial] + m.counts[Bad]
	return append(slots, m.slots...), float64(m.counts[Good]+m.counts[Partial]) / float64(all), true
}

// Interval is what was counted in a stretch of time.
type Interval struct {
	Start    time.Time
	Length   time.Duration
	Classes  [6]float64
	Sent     float64
	Input    float64
	Output   float64
	InFlight float64 // at its end
	Median   float64 // seconds from head to end of half the exchanges; NaN when there were none
	Most     float64 // of 95 in a hundred
}

// Hour is the last hour, by minutes; it is shorter when the gateway runs since then. The latest comes last.
func (h *History) Hour() []Interval {
	h.mu.Lock()
	defer h.mu.Unlock()
	return intervals(h.fine, int(time.Minute/Every))
}

// Day is the last day, by half hours.
func (h *History) Day() []Interval {
	h.mu.Lock()
	defer h.mu.Unlock()
	return intervals(h.coarse, int(SlotTime/(10*time.Minute)))
}

// intervals are the differences between every n-th sample, counted from the latest.
func intervals(list []Sample, n int) (out []Interval) {
	if len(list) < 2 {
		return nil
	}
	for i := (len(list) - 1) % n; i+n < len(list); i += n {
		out = append(out, between(&list[i], &list[i+n]))
	}
	if first := (len(list) - 1) % n; first > 0 {
		out = append([]Interval{between(&list[0], &list[first])}, out...)
	}
	return out
}

func between(a, b *Sample) Interval {
	i := Interval{Start: a.Time, Length: b.Time.Sub(a.Time), Sent: b.Sent - a.Sent, Input: b.Input - a.Input, Output: b.Output - a.Output, InFlight: b.InFlight}
	count := 0.0
	for c := range i.Classes {
		i.Classes[c] = b.Classes[c] - a.Classes[c]
		count += i.Classes[c]
	}
	buckets := make([]uint64, len(b.Buckets))
	for j := range buckets {
		buckets[j] = b.Buckets[j]
		if j < len(a.Buckets) {
			buckets[j] -= a.Buckets[j]
		}
	}
	i.Median, i.Most = Quantile(buckets, count, 0.5), Quantile(buckets, count, 0.95)
	return i
}

// Quantile estimates the time below which a share of count exchanges were over, in seconds, from cumulative buckets. It is NaN
// without exchanges, and the highest bound where the bucket has none.
func Quantile(buckets []uint64, count, share float64) float64 {
	if count <= 0 {
		return math.NaN()
	}
	bounds := telemetry.Bounds()
	rank := share * count
	below, from := 0.0, 0.0
	for j, n := range buckets {
		if float64(n) >= rank {
			inside := float64(n) - below
			if inside <= 0 {
				return bounds[j]
			}
			return from + (bounds[j]-from)*(rank-below)/inside
		}
		below, from = float64(n), bounds[j]
	}
	return bounds[len(bounds)-1]
}

package telemetry

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// counters finds the series of a metric that every exchange counts in by their labels. The metric itself can too, but hashes every
// label under a lock for it; here it is asked once for each, and the few there are stand in a list.
type counters struct {
	adding sync.Mutex
	list   atomic.Pointer[[]labelled] // never changed: a longer one takes its place
}

type labelled struct {
	labels  [3]string
	counter prometheus.Counter
}

// of is the series with labels, of which the first n are the metric's.
func (c *counters) of(metric *prometheus.CounterVec, n int, labels [3]string) prometheus.Counter {
	if counter := c.find(labels); counter != nil {
		return counter
	}
	c.adding.Lock()
	defer c.adding.Unlock()
	if counter := c.find(labels); counter != nil {
		return counter
	}
	counter := metric.WithLabelValues(labels[:n]...)
	list := []labelled{{labels, counter}}
	if before := c.list.Load(); before != nil {
		list = append(list, *before...)
	}
	c.list.Store(&list)
	return counter
}

func (c *counters) find(labels [3]string) prometheus.Counter {
	list := c.list.Load()
	if list == nil {
		return nil
	}
	for i := range *list {
		if l := &(*list)[i]; l.labels == labels {
			return l.counter
		}
	}
	return nil
}

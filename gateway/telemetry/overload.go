package telemetry

import "github.com/prometheus/client_golang/prometheus"

// GateState is how the whole gateway stands at a moment.
type GateState struct {
	Delay    float64 // seconds for which goroutines were ready before they ran
	Memory   int64   // octets that can not be reclaimed
	Limit    int64   // octets of memory there are; 0: not known
	SlowSend uint64  // clients cut off because they sent too slowly
	SlowRead uint64  // clients cut off because they read too slowly
}

// LimiterState is how a limit of concurrency stands at a moment.
type LimiterState struct {
	Upstream string // empty: the whole gateway's
	Limit    int    // 0: none
	InFlight int
	Queued   int
	Refused  []RefusedState
}

// RefusedState is how many were refused since the start, for one reason.
type RefusedState struct {
	Priority, Reason string
	Count            uint64
}

// overload is read when metrics are scraped.
type overload struct {
	read                             func() (GateState, []LimiterState)
	delay, memory, room, slow        *prometheus.Desc
	limit, inFlight, queued, refused *prometheus.Desc
}

// Overload adds the metrics of overload control. read gives the state of the gateway, and of the limit of the whole gateway
// and of each upstream, each once. It is for start-up: a second time is a programming error and panics.
func (m *Metrics) Overload(read func() (GateState, []LimiterState)) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	m.registry.MustRegister(&overload{
		read:     read,
		delay:    desc("postern_overload_delay_seconds", "For how long goroutines were ready before they ran: the median of the last moment."),
		memory:   desc("postern_overload_memory_bytes", "Memory that can not be reclaimed."),
		room:     desc("postern_overload_memory_limit_bytes", "Memory there is, of which the watermarks are shares; 0 when it is not known."),
		slow:     desc("postern_overload_slow_clients_total", "Clients cut off because they sent or read too slowly.", "direction"),
		limit:    desc("postern_overload_limit", "Most exchanges that may wait for the head of their answer at once; 0 is no limit. Without an upstream: in the whole gateway.", "upstream"),
		inFlight: desc("postern_overload_in_flight", "Exchanges that wait for the head of their answer.", "upstream"),
		queued:   desc("postern_overload_queued", "Exchanges that wait for their turn.", "upstream"),
		refused:  desc("postern_overload_refused_total", "Exchanges refused because too much was asked.", "upstream", "priority", "reason"),
	})
}

// Describe lists the metrics.
func (o *overload) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{o.delay, o.memory, o.room, o.slow, o.limit, o.inFlight, o.queued, o.refused} {
		out <- d
	}
}

// Collect reads them.
func (o *overload) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	g, list := o.read()
	gauge(o.delay, g.Delay)
	gauge(o.memory, float64(g.Memory))
	gauge(o.room, float64(g.Limit))
	count(o.slow, g.SlowSend, "send")
	count(o.slow, g.SlowRead, "read")
	for _, l := range list {
		gauge(o.limit, float64(l.Limit), l.Upstream)
		gauge(o.inFlight, float64(l.InFlight), l.Upstream)
		gauge(o.queued, float64(l.Queued), l.Upstream)
		for _, r := range l.Refused {
			count(o.refused, r.Count, l.Upstream, r.Priority, r.Reason)
		}
	}
}

package telemetry

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics is every metric the gateway has. Labels come from the configuration (names of routes, upstreams, plugins,
// models) or from closed lists, never from requests, so that their number is bounded.
type Metrics struct {
	registry *prometheus.Registry
	sums     *prometheus.Registry // those of them that Totals reads

	requests     *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	inFlight     prometheus.Gauge
	sent         *prometheus.CounterVec
	problems     *prometheus.CounterVec
	attempts     *prometheus.CounterVec
	pluginFaults *prometheus.CounterVec
	pluginMeters *prometheus.CounterVec
	fetches      *prometheus.CounterVec
	fetchSeconds *prometheus.HistogramVec
	units        *prometheus.CounterVec
	unsettled    prometheus.Counter
	connections  *prometheus.GaugeVec
	refused      *prometheus.CounterVec
	reloads      *prometheus.CounterVec
	loaded       prometheus.Gauge

	stages sync.Map // plugin and phase: *tally; they outlive reloads, as series do
	words  sync.Map // kind and name: *words, for each plugin and each route
	tried  counters // attempts, by upstream
}

// maxWords is how many words of plugins' own making become labels, for each plugin and each route. The rest are counted as
// "other": every one is a time series for as long as the process lives, and a plugin could make them of what it sees.
const maxWords = 100

// words are the labels that one plugin or route has made so far.
type words struct {
	mu    sync.RWMutex
	known map[string]bool
}

// label is w, or "other" when there are too many.
func (l *words) label(w string) string {
	l.mu.RLock()
	known := l.known[w]
	l.mu.RUnlock()
	if known {
		return w
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.known[w] && len(l.known) >= maxWords {
		return "other"
	}
	l.known[w] = true
	return w
}

// wordsOf returns the labels of a plugin or a route. They outlive reloads, as the series do.
func (m *Metrics) wordsOf(kind, name string) *words {
	l, _ := m.words.LoadOrStore([2]string{kind, name}, &words{known: map[string]bool{}})
	return l.(*words)
}

func newMetrics(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		sums:     prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_requests_total",
			Help: "Exchanges completed."}, []string{"listener", "route", "protocol", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "postern_request_duration_seconds",
			Help:    "From the head of a request to the end of its reply.",
			Buckets: Bounds()}, []string{"route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "postern_requests_in_flight",
			Help: "Exchanges under way."}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_response_body_bytes_total",
			Help: "Octets of reply bodies handed to clients."}, []string{"route"}),
		problems: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_problems_total",
			Help: "Exchanges the gateway answered itself, by the problem's code."}, []string{"route", "code"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_upstream_attempts_total",
			Help: "Calls made to an upstream; more than its requests where some were made again."}, []string{"upstream"}),
		pluginFaults: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_plugin_faults_total",
			Help: "Events a plugin failed at, by kind."}, []string{"plugin", "phase", "kind"}),
		pluginMeters: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_plugin_meter_total",
			Help: "What plugins counted with the meter operation."}, []string{"plugin", "meter"}),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_plugin_fetches_total",
			Help: "Requests plugins asked for, by what came of them: the class of the status, cached, or why there was no answer."}, []string{"plugin", "outcome"}),
		fetchSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "postern_plugin_fetch_duration_seconds",
			Help:    "How long plugins waited for what they asked for.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}}, []string{"plugin"}),
		units: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_model_units_total",
			Help: "What model calls consumed, by unit; estimated tells counts made by the gateway from the provider's."}, []string{"model", "unit", "estimated"}),
		unsettled: prometheus.NewCounter(prometheus.CounterOpts{Name: "postern_holds_settled_by_host_total",
			Help: "Holds that a plugin left open at the end of an exchange and the gateway settled itself."}),
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "postern_connections",
			Help: "Open connections of clients."}, []string{"listener", "protocol"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_refused_total",
			Help: "Requests and connections refused before any route was looked for."}, []string{"listener", "reason"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_reloads_total",
			Help: "Configurations applied or refused."}, []string{"result"}),
		loaded: prometheus.NewGauge(prometheus.GaugeOpts{Name: "postern_config_loaded_timestamp_seconds",
			Help: "When the configuration in force was applied."}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "postern_build_info", Help: "Always 1."}, []string{"version"})
	build.WithLabelValues(version).Set(1)
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build,
		m.requests, m.duration, m.inFlight, m.sent, m.problems, m.attempts, newTallies(&m.stages), m.pluginFaults,
		m.pluginMeters, m.fetches, m.fetchSeconds, m.units, m.unsettled, m.connections, m.refused, m.reloads, m.loaded)
	m.sums.MustRegister(m.requests, m.duration, m.inFlight, m.sent, m.problems, m.units, m.connections, m.refused)
	return m
}

// Handler serves the metrics in the Prometheus text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// Gauge adds a gauge that is read when metrics are scraped. labels are names and values in turn. It is for start-up;
// the same name and labels twice is a programming error and panics.
func (m *Metrics) Gauge(name, help string, value func() float64, labels ...string) {
	fixed := prometheus.Labels{}
	for i := 0; i+1 < len(labels); i += 2 {
		fixed[labels[i]] = labels[i+1]
	}
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: fixed}, value))
}

// Route holds one route's metrics, looked up once when a configuration is built.
type Route struct {
	requests *prometheus.CounterVec
	duration prometheus.Observer
	sent     prometheus.Counter
	problems *prometheus.CounterVec
	codes    *words
	counted  counters // requests, by listener, protocol and class of status
}

// Route returns the metrics of a route; name is empty for requests that no route matched.
func (m *Metrics) Route(name string) *Route {
	return &Route{
		requests: m.requests.MustCurryWith(prometheus.Labels{"route": name}),
		duration: m.duration.WithLabelValues(name),
		sent:     m.sent.WithLabelValues(name),
		problems: m.problems.MustCurryWith(prometheus.Labels{"route": name}),
		codes:    m.wordsOf("route", name),
	}
}

var statusClasses = [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}

// Start counts an exchange as under way.
func (m *Metrics) Start() { m.inFlight.Inc() }

// End counts an exchange as over. code is the problem's, or empty.
func (m *Metrics) End(r *Route, listener, protocol string, status int, code string, sent int64, took time.Duration) {
	m.inFlight.Dec()
	class := statusClasses[0]
	if i := status / 100; i >= 1 && i < len(statusClasses) {
		class = statusClasses[i]
	}
	r.counted.of(r.requests, 3, [3]string{listener, protocol, class}).Inc()
	r.duration.Observe(took.Seconds())
	r.sent.Add(float64(sent))
	if code != "" {
		r.problems.WithLabelValues(r.codes.label(code)).Inc()
	}
}

// Attempts counts calls made to an upstream.
func (m *Metrics) Attempts(upstream string, n int) {
	m.tried.of(m.attempts, 1, [3]string{upstream}).Add(float64(n))
}

// Units counts what a model call consumed.
func (m *Metrics) Units(model, unit string, n int64, estimated bool) {
	word := "false"
	if estimated {
		word = "true"
	}
	m.units.WithLabelValues(model, unit, word).Add(float64(n))
}

// Unsettled counts a hold the gateway had to settle itself.
func (m *Metrics) Unsettled() { m.unsettled.Inc() }

// Connection counts a client's connection that was opened (1) or closed (-1).
func (m *Metrics) Connection(listener, protocol string, change float64) {
	m.connections.WithLabelValues(listener, protocol).Add(change)
}

// Refused counts a request or connection that a listener refused. reason is one of its few words.
func (m *Metrics) Refused(listener, reason string) { m.refused.WithLabelValues(listener, reason).Inc() }

// Reload counts a configuration that was applied or refused.
func (m *Metrics) Reload(ok bool) {
	if !ok {
		m.reloads.WithLabelValues("refused").Inc()
		return
	}
	m.reloads.WithLabelValues("applied").Inc()
	m.loaded.SetToCurrentTime()
}

// Stage holds the metrics of one plugin at one phase.
type Stage struct {
	*tally
	faults *prometheus.CounterVec
	meters *prometheus.CounterVec
	names  *words
}

// tally is what is counted with every event of a plugin at a phase. It is brought into the form of metrics when they are
// scraped: every event passes here, and most of them cost little themselves.
type tally struct {
	calls, nanoseconds, fuel atomic.Int64
}

// Stage returns the metrics of a plugin at a phase.
func (m *Metrics) Stage(plugin, phase string) *Stage {
	counted, _ := m.stages.LoadOrStore([2]string{plugin, phase}, new(tally))
	return &Stage{
		tally:  counted.(*tally),
		faults: m.pluginFaults.MustCurryWith(prometheus.Labels{"plugin": plugin, "phase": phase}),
		meters: m.pluginMeters.MustCurryWith(prometheus.Labels{"plugin": plugin}),
		names:  m.wordsOf("plugin", plugin),
	}
}

// Call counts one event, the time it took and the fuel it used.
func (s *Stage) Call(took time.Duration, fuel int64) {
	s.calls.Add(1)
	s.nanoseconds.Add(int64(took))
	s.fuel.Add(fuel)
}

// tallies collects what was counted in the stages of all plugins.
type tallies struct {
	stages               *sync.Map // plugin and phase: *tally
	calls, seconds, fuel *prometheus.Desc
}

func newTallies(stages *sync.Map) *tallies {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"plugin", "phase"}, nil)
	}
	return &tallies{
		stages:  stages,
		calls:   desc("postern_plugin_calls_total", "Events handed to a plugin."),
		seconds: desc("postern_plugin_seconds_total", "Time plugins took for their events, waiting for an instance included."),
		fuel:    desc("postern_plugin_fuel_total", "CPU plugins used for their events, in units of about one instruction."),
	}
}

// Describe implements prometheus.Collector.
func (t *tallies) Describe(to chan<- *prometheus.Desc) {
	to <- t.calls
	to <- t.seconds
	to <- t.fuel
}

// Collect implements prometheus.Collector.
func (t *tallies) Collect(to chan<- prometheus.Metric) {
	t.stages.Range(func(key, value any) bool {
		labels, counted := key.([2]string), value.(*tally)
		for _, c := range []struct {
			desc *prometheus.Desc
			n    float64
		}{
			{t.calls, float64(counted.calls.Load())},
			{t.seconds, time.Duration(counted.nanoseconds.Load()).Seconds()},
			{t.fuel, float64(counted.fuel.Load())},
		} {
			to <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, c.n, labels[0], labels[1])
		}
		return true
	})
}

// Fault counts an event the plugin failed at.
func (s *Stage) Fault(kind string) { s.faults.WithLabelValues(kind).Inc() }

// Meter adds to what the plugin counts under name; beyond maxWords names, under "other".
func (s *Stage) Meter(name string, n float64) {
	s.meters.WithLabelValues(s.names.label(name)).Add(n)
}

// Fetches holds the metrics of one plugin's fetches.
type Fetches struct {
	outcomes *prometheus.CounterVec
	seconds  prometheus.Observer
}

// Fetches returns the metrics of a plugin's fetches.
func (m *Metrics) Fetches(plugin string) *Fetches {
	return &Fetches{
		outcomes: m.fetches.MustCurryWith(prometheus.Labels{"plugin": plugin}),
		seconds:  m.fetchSeconds.WithLabelValues(plugin),
	}
}

// Done counts a fetch by its outcome, one of a few words, and the time the plugin waited for it.
func (f *Fetches) Done(outcome string, took time.Duration) {
	f.outcomes.WithLabelValues(outcome).Inc()
	f.seconds.Observe(took.Seconds())
}

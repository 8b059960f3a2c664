package telemetry

import "github.com/prometheus/client_golang/prometheus"

// PluginState is how a plugin stands at a moment, all its pools together.
type PluginState struct {
	Plugin    string
	Instances int     // that exist
	Busy      int     // of them
	Limit     int     // most instances at once
	Waiting   int     // events waiting for an instance
	Memory    int64   // octets of linear memory of all instances
	State     int64   // octets of shared state
	Compile   float64 // seconds that admission and compilation took
	Resting   bool    // it failed several times in a row and is left alone for a moment
}

// pluginGauge is one number of a PluginState as a metric.
type pluginGauge struct {
	desc  *prometheus.Desc
	value func(s *PluginState) float64
}

// plugins is read when metrics are scraped.
type plugins struct {
	read   func() []PluginState
	gauges []pluginGauge
}

// Plugins adds the gauges of plugins; read lists every plugin in use, each once. It is for start-up: a second time is a
// programming error and panics.
func (m *Metrics) Plugins(read func() []PluginState) {
	gauge := func(name, help string, value func(s *PluginState) float64) pluginGauge {
		return pluginGauge{prometheus.NewDesc(name, help, []string{"plugin"}, nil), value}
	}
	m.registry.MustRegister(&plugins{read: read, gauges: []pluginGauge{
		gauge("postern_plugin_instances", "Instances of a plugin.", func(s *PluginState) float64 { return float64(s.Instances) }),
		gauge("postern_plugin_instances_busy", "Instances with an event under way.", func(s *PluginState) float64 { return float64(s.Busy) }),
		gauge("postern_plugin_instances_limit", "Most instances at once.", func(s *PluginState) float64 { return float64(s.Limit) }),
		gauge("postern_plugin_waiting", "Events waiting for an instance.", func(s *PluginState) float64 { return float64(s.Waiting) }),
		gauge("postern_plugin_memory_bytes", "Linear memory of a plugin's instances, as of their last event.", func(s *PluginState) float64 { return float64(s.Memory) }),
		gauge("postern_plugin_state_bytes", "Shared state of a plugin.", func(s *PluginState) float64 { return float64(s.State) }),
		gauge("postern_plugin_compile_seconds", "What it took to check and compile the module in use.", func(s *PluginState) float64 { return s.Compile }),
		gauge("postern_plugin_resting", "1 while a plugin is left alone after failing several times in a row.", func(s *PluginState) float64 {
			if s.Resting {
				return 1
			}
			return 0
		}),
	}})
}

// Describe lists the gauges.
func (p *plugins) Describe(out chan<- *prometheus.Desc) {
	for _, g := range p.gauges {
		out <- g.desc
	}
}

// Collect reads them.
func (p *plugins) Collect(out chan<- prometheus.Metric) {
	for _, s := range p.read() {
		for _, g := range p.gauges {
			out <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.value(&s), s.Plugin)
		}
	}
}

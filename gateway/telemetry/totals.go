package telemetry

import "slices"

// Totals are sums since the start, for pages that show them: the same numbers as the metrics.
type Totals struct {
	Routes      map[string]*RouteTotals // "" is what no route matched
	Input       float64                 // tokens and other units that models read
	Output      float64                 // tokens that models wrote
	InFlight    float64                 // exchanges under way
	Connections float64                 // open connections of clients
	Refused     float64                 // requests and connections refused before any route was looked for
}

// RouteTotals are those of one route.
type RouteTotals struct {
	Classes  [6]float64         // exchanges by class of status: none, 1xx to 5xx
	Seconds  float64            // they took together
	Buckets  []uint64           // exchanges that took at most Bounds' seconds, cumulative
	Sent     float64            // octets of reply bodies
	Problems map[string]float64 // exchanges the gateway answered itself, by code
}

// Count is how many exchanges there were.
func (r *RouteTotals) Count() (n float64) {
	for _, c := range r.Classes {
		n += c
	}
	return n
}

// Bounds are the upper bounds of Buckets, in seconds, ascending; the last bucket, without a bound, is not among them.
func Bounds() []float64 {
	return []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}
}

// Totals reads the sums.
func (m *Metrics) Totals() (Totals, error) {
	families, err := m.sums.Gather()
	if err != nil {
		return Totals{}, err
	}
	t := Totals{Routes: map[string]*RouteTotals{}}
	route := func(name string) *RouteTotals {
		r := t.Routes[name]
		if r == nil {
			r = &RouteTotals{Problems: map[string]float64{}}
			t.Routes[name] = r
		}
		return r
	}
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			label := map[string]string{}
			for _, l := range metric.GetLabel() {
				label[l.GetName()] = l.GetValue()
			}
			n := metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
			switch f.GetName() {
			case "postern_requests_total":
				route(label["route"]).Classes[max(0, slices.Index(statusClasses[:], label["status"]))] += n
			case "postern_request_duration_seconds":
				h, r := metric.GetHistogram(), route(label["route"])
				r.Seconds = h.GetSampleSum()
				for _, b := range h.GetBucket() {
					r.Buckets = append(r.Buckets, b.GetCumulativeCount())
				}
			case "postern_response_body_bytes_total":
				route(label["route"]).Sent = n
			case "postern_problems_total":
				route(label["route"]).Problems[label["code"]] = n
			case "postern_requests_in_flight":
				t.InFlight = n
			case "postern_connections":
				t.Connections += n
			case "postern_refused_total":
				t.Refused += n
			case "postern_model_units_total":
				switch label["unit"] {
				case "output", "reasoning", "image_output", "audio_output":
					t.Output += n
				case "request", "second", "search":
				default:
					t.Input += n
				}
			}
		}
	}
	return t, nil
}

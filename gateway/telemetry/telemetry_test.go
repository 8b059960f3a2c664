package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
)

func TestLogs(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tel, err := New(t.Context(), Config{Output: &out, LogLevel: "warn"})
	if err != nil {
		t.Fatal(err)
	}
	tel.Log.Info("not said")
	if err := tel.SetLevel("info"); err != nil {
		t.Fatal(err)
	}
	tel.Log.Info("said", "n", 1)
	var line struct {
		Msg string
		N   int
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Msg != "said" || line.N != 1 {
		t.Errorf("%v: %s", err, out.String())
	}
	for _, bad := range []Config{{LogLevel: "loud"}, {LogFormat: "xml"}} {
		if _, err := New(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "there are") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := tel.SetLevel("loud"); err == nil {
		t.Error("a level that is none was taken")
	}
}

// TestMetrics holds the names that dashboards are written against.
func TestMetrics(t *testing.T) {
	t.Parallel()
	tel, err := New(t.Context(), Config{Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	m := tel.Metrics
	r, s := m.Route("chat"), m.Stage("meter", "admit")
	m.Start()
	m.Start()
	m.End(r, "public", "http2", 201, "", 10, time.Second)
	m.End(r, "public", "http2", 0, "client_gone", 0, time.Second)
	m.Attempts("sandbox", 2)
	m.Units("small", "input", 7, true)
	m.Unsettled()
	m.Connection("public", "http3", 1)
	m.Refused("public", "bad_request")
	m.Reload(true)
	m.Reload(false)
	s.Call(time.Millisecond, 1234)
	s.Fault("trap")
	s.Meter("found", 3)
	m.Plugins(func() []PluginState {
		return []PluginState{{Plugin: "meter", Instances: 3, Busy: 2, Limit: 4, Waiting: 1, Memory: 5, State: 6, Compile: 0.5, Resting: true}, {Plugin: "redact"}}
	})
	m.Gauge("postern_test", "A test's.", func() float64 { return 4 }, "kind", "x")
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	for _, want := range []string{
		`postern_build_info{version="1.2.3"} 1`,
		`postern_requests_total{listener="public",protocol="http2",route="chat",status="2xx"} 1`,
		`postern_requests_total{listener="public",protocol="http2",route="chat",status="none"} 1`,
		`postern_request_duration_seconds_count{route="chat"} 2`,
		`postern_requests_in_flight 0`,
		`postern_response_body_bytes_total{route="chat"} 10`,
		`postern_problems_total{code="client_gone",route="chat"} 1`,
		`postern_upstream_attempts_total{upstream="sandbox"} 2`,
		`postern_plugin_calls_total{phase="admit",plugin="meter"} 1`,
		`postern_plugin_seconds_total{phase="admit",plugin="meter"} 0.001`,
		`postern_plugin_fuel_total{phase="admit",plugin="meter"} 1234`,
		`postern_plugin_instances{plugin="meter"} 3`,
		`postern_plugin_instances_busy{plugin="meter"} 2`,
		`postern_plugin_instances_limit{plugin="meter"} 4`,
		`postern_plugin_waiting{plugin="meter"} 1`,
		`postern_plugin_memory_bytes{plugin="meter"} 5`,
		`postern_plugin_state_bytes{plugin="meter"} 6`,
		`postern_plugin_compile_seconds{plugin="meter"} 0.5`,
		`postern_plugin_resting{plugin="meter"} 1`,
		`postern_plugin_resting{plugin="redact"} 0`,
		`postern_plugin_faults_total{kind="trap",phase="admit",plugin="meter"} 1`,
		`postern_plugin_meter_total{meter="found",plugin="meter"} 3`,
		`postern_model_units_total{estimated="true",model="small",unit="input"} 7`,
		`postern_holds_settled_by_host_total 1`,
		`postern_connections{listener="public",protocol="http3"} 1`,
		`postern_refused_total{listener="public",reason="bad_request"} 1`,
		`postern_reloads_total{result="applied"} 1`,
		`postern_reloads_total{result="refused"} 1`,
		`postern_config_loaded_timestamp_seconds `,
		`postern_test{kind="x"} 4`,
		`go_goroutines `,
	} {
		if !strings.Contains(w.Body.String(), "\n"+want) {
			t.Errorf("the scrape lacks %s", want)
		}
	}
}

// TestTraces sends a span to a collector and continues a client's trace.
func TestTraces(t *testing.T) {
	t.Parallel()
	var spans atomic.Int64
	var path atomic.Value
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		path.Store(r.URL.Path)
		if bytes.Contains(b, []byte("exchange")) {
			spans.Add(1)
		}
		w.WriteHeader(http.StatusOK)
	}))
	defer collector.Close()
	tel, err := New(t.Context(), Config{Node: "edge-1", TraceEndpoint: collector.URL + "/v1/traces", TraceRatio: 1})
	if err != nil {
		t.Fatal(err)
	}
	if !tel.Traces() {
		t.Fatal("no traces")
	}
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	ctx := tel.Context.Extract(t.Context(), mapCarrier{"traceparent": "00-" + id + "-00f067aa0ba902b7-01"})
	ctx, span := tel.Tracer.Start(ctx, "exchange", trace.WithSpanKind(trace.SpanKindServer))
	if got := span.SpanContext().TraceID().String(); got != id {
		t.Errorf("trace %s, want the client's", got)
	}
	out := mapCarrier{}
	tel.Context.Inject(ctx, out)
	if !strings.Contains(out["traceparent"], id) {
		t.Errorf("the upstream is told %q", out["traceparent"])
	}
	span.End()
	closing, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := tel.Close(closing); err != nil {
		t.Fatal(err)
	}
	if spans.Load() != 1 || path.Load() != "/v1/traces" {
		t.Errorf("%d spans at %v", spans.Load(), path.Load())
	}
	none, err := New(t.Context(), Config{})
	if err != nil || none.Traces() || none.Close(t.Context()) != nil {
		t.Error("traces that nobody asked for")
	}
}

type mapCarrier map[string]string

func (m mapCarrier) Get(k string) string { return m[k] }
func (m mapCarrier) Set(k, v string)     { m[k] = v }
func (m mapCarrier) Keys() []string      { return nil }

// TestWordsOfPluginsAreBounded: a plugin that makes labels of what it sees costs no more than so many time series.
func TestWordsOfPluginsAreBounded(t *testing.T) {
	t.Parallel()
	tel, err := New(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	m := tel.Metrics
	var work sync.WaitGroup
	for worker := range 4 {
		stage, route := m.Stage("evil", "admit"), m.Route("all")
		work.Go(func() {
			for i := range 1000 {
				stage.Meter("m"+strconv.Itoa(worker*1000+i), 1)
				m.Start()
				m.End(route, "public", "http1", 403, "c"+strconv.Itoa(worker*1000+i), 0, 0)
			}
		})
	}
	work.Wait()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	text := w.Body.String()
	for _, name := range []string{"postern_plugin_meter_total{", "postern_problems_total{"} {
		if n := strings.Count(text, name); n != maxWords+1 {
			t.Errorf("%d series of %s", n, name)
		}
	}
	if want := `postern_plugin_meter_total{meter="other",plugin="evil"} ` + strconv.Itoa(4000-maxWords); !strings.Contains(text, want) {
		t.Errorf("no %s", want)
	}
}

// Package telemetry is what the gateway says about itself: logs, metrics and traces. Its main type is Telemetry. Every
// name that is emitted stands in this package, so that a dashboard can be written from reading it.
//
// No personal data: logs and metrics name routes, models and exchanges, never addresses, keys, paths or content. Whose a
// call was is found by its exchange id in the ledger, by those who may look there.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Config says where telemetry goes.
type Config struct {
	Node          string    // the gateway's name
	Version       string    // the binary's
	Output        io.Writer // where logs go; nil: nowhere
	LogLevel      string    // debug, info, warn or error; default info
	LogFormat     string    // json or text; default json
	TraceEndpoint string    // OTLP/HTTP URL; empty: no traces
	TraceRatio    float64   // share of exchanges traced when the client's trace context does not say, 0 to 1
}

// Telemetry is one node's logs, metrics and traces.
type Telemetry struct {
	Log     *slog.Logger
	Metrics *Metrics
	Tracer  trace.Tracer
	Context propagation.TextMapPropagator // W3C trace context

	level    *slog.LevelVar
	provider *sdktrace.TracerProvider // nil without traces
}

// New sets telemetry up. It connects to nothing: spans are sent in the background.
func New(ctx context.Context, c Config) (*Telemetry, error) {
	t := &Telemetry{
		Metrics: newMetrics(c.Version),
		Tracer:  noop.NewTracerProvider().Tracer(""),
		Context: propagation.TraceContext{},
		level:   new(slog.LevelVar),
	}
	if err := t.SetLevel(c.LogLevel); err != nil {
		return nil, err
	}
	output := c.Output
	if output == nil {
		output = io.Discard
	}
	options := &slog.HandlerOptions{Level: t.level}
	switch c.LogFormat {
	case "", "json":
		options.ReplaceAttr = readable
		t.Log = slog.New(slog.NewJSONHandler(output, options))
	case "text":
		t.Log = slog.New(slog.NewTextHandler(output, options))
	default:
		return nil, fmt.Errorf("log format %q: there are json and text", c.LogFormat)
	}
	if c.TraceEndpoint == "" {
		return t, nil
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(c.TraceEndpoint))
	if err != nil {
		return nil, fmt.Errorf("open traces to %s: %w", c.TraceEndpoint, err)
	}
	t.provider = sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.TraceRatio))),
		sdktrace.WithResource(resource.NewSchemaless(
			semconv.ServiceName("postern"),
			semconv.ServiceInstanceID(c.Node),
			semconv.ServiceVersion(c.Version),
		)),
	)
	t.Tracer = t.provider.Tracer("github.com/postern-gateway/postern")
	return t, nil
}

// readable writes durations into JSON as people write them, "10s": a bare number of nanoseconds has misled many.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// SetLevel changes the log level of everything that logs through t.
func (t *Telemetry) SetLevel(level string) error {
	if level == "" {
		level = "info"
	}
	if err := t.level.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("log level %q: there are debug, info, warn and error", level)
	}
	return nil
}

// Traces reports whether spans are recorded.
func (t *Telemetry) Traces() bool { return t.provider != nil }

// Close sends what spans are left, for as long as ctx allows.
func (t *Telemetry) Close(ctx context.Context) error {
	if t.provider == nil {
		return nil
	}
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last spans: %w", err)
	}
	return nil
}

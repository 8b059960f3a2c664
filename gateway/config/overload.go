package config

import (
	"github.com/postern-gateway/postern/gateway/overload"
	"github.com/postern-gateway/postern/gateway/schema"
)

// overload reads what the gateway takes on.
func (l *loader) overload(s *schema.Section) overload.Config {
	m, c := s.One("memory"), s.One("client")
	o := overload.Config{
		Bounds: l.bounds(s), Delay: s.Span("delay"),
		Memory: overload.Watermarks{Limit: m.Size("limit"), Soft: m.Ratio("soft"), Hard: m.Ratio("hard")},
		Client: overload.Client{Send: c.Size("send"), Read: c.Size("read"), Grace: c.Span("grace")},
	}
	if w := o.Memory; w.Soft > 0 && w.Hard > 0 && w.Soft >= w.Hard {
		l.Errorf(m.Where("soft"), "Watermarks crossed", "soft (%v) must be below hard (%v): bulk work is refused before all work is.", w.Soft, w.Hard)
	}
	return o
}

// upstreamOverload reads what one upstream is given to do.
func (l *loader) upstreamOverload(s *schema.Section) overload.Bounds {
	b := l.bounds(s)
	b.Initial, b.Adaptive, b.Tolerance = int(s.Count("initial")), s.Flag("adaptive"), s.Ratio("tolerance")
	switch fixed := !b.Adaptive; {
	case fixed && (s.Set("initial") || s.Set("tolerance") || s.Set("min")):
		l.Errorf(s.Where("adaptive"), "Useless bounds", "With adaptive = false the limit is always max: remove min, initial and tolerance.")
	case fixed:
		b.Initial, b.Tolerance = b.Max, 0
	case s.Set("initial") && (b.Initial < b.Min || b.Initial > b.Max):
		l.Errorf(s.Where("initial"), "Initial out of bounds", "initial must be from min (%d) to max (%d).", b.Min, b.Max)
	}
	return b
}

// bounds reads what both have. A bound that was written moves the other's default out of its way.
func (l *loader) bounds(s *schema.Section) overload.Bounds {
	b := overload.Bounds{Min: int(s.Count("min")), Max: int(s.Count("max")), Queue: int(s.Count("queue")), Wait: s.Span("wait")}
	switch {
	case b.Min <= b.Max:
	case s.Set("min") && s.Set("max"):
		l.Errorf(s.Where("min"), "Bounds crossed", "min (%d) must not be above max (%d).", b.Min, b.Max)
	case s.Set("min"):
		b.Max = b.Min
	default:
		b.Min = b.Max
	}
	return b
}

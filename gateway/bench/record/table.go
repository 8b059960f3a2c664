package record

import (
	"fmt"
	"slices"
	"strings"
)

// markdown is the report for people.
func (r *Report) markdown(order []string, targets []Target) string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "# Postern beside its peers\n\nWritten by `gateway/bench`; `make bench` measures anew. Latest run: %s, `%s`.\n\n", m.When.Format("2006-01-02 15:04 MST"), m.Command)
	fmt.Fprintf(&b, "%s, %d cores, Linux %s, %s. Load averages before: %s.\n", m.CPU, m.Cores, m.Kernel, m.Go, m.Load)
	if m.Pinned {
		b.WriteString("Each proxy had one core, load and origin another. ")
	} else {
		b.WriteString("Nothing was pinned: only ratios of CPU mean anything. ")
	}
	b.WriteString(`Proxies took turns in rounds; figures are medians over the rounds, with least and greatest behind the CPU.
CPU is the processor time of the proxy's processes, user and system, for each request at saturation. "core" is the share of its core that
the proxy used then, and that others used: where the first is below 90%, the proxy was not the limit and the requests a second say little. p50 and p99 are at a fixed rate, since each
request was due. Memory is resident (proportional share), two seconds after the first reply and at the end of a saturated window.

`)
	b.WriteString("![CPU for each request](chart.svg)\n\n## Targets\n\nRatios are medians of the rounds' own ratios.\n\n| cell | what | at most | measured | spread | |\n|---|---|---|---|---|---|\n")
	for _, t := range targets {
		ratio, spread, word := r.verdict(t)
		fmt.Fprintf(&b, "| %s | %s, %s to %s | %g | %s | %s | %s |\n", t.Cell, t.Metric, t.Peer, t.Against, t.AtMost, ratio, spread, word)
	}
	for _, name := range order {
		if c, ok := r.Cells[name]; ok {
			b.WriteString(c.markdown())
		}
	}
	return b.String()
}

func (c Cell) markdown() string {
	var b strings.Builder
	rounds := 0
	for _, list := range c.Rounds {
		rounds = max(rounds, len(list))
	}
	shape := fmt.Sprintf("%d connections", c.Conns)
	if c.Streams > 1 {
		shape += fmt.Sprintf(", %d streams on each", c.Streams)
	}
	fmt.Fprintf(&b, "\n## %s (`%s`)\n\n%s; %d rounds; %s; load averages before: %s.\n\n", c.Title, c.Name, shape, rounds, c.When.Format("2006-01-02 15:04 MST"), c.Load)
	fmt.Fprintf(&b, "| proxy | us CPU / %s | spread | to nginx | to Caddy | %ss/s | core, others | p50, p99 at %.0f/s, us | MiB at rest, loaded |\n|---|---|---|---|---|---|---|---|---|\n", c.Unit, c.Unit, c.Rate)
	for _, name := range c.Order {
		list := c.Rounds[name]
		cpu, ok := summarise(over(list, func(r Round) float64 { return r.CPU }))
		if !ok {
			continue
		}
		of := func(f func(Round) float64) float64 {
			s, _ := summarise(over(list, f))
			return s.median
		}
		to := func(other string) string {
			report := Report{Cells: map[string]Cell{c.Name: c}}
			median, _, _, ok := report.Ratio(Target{Cell: c.Name, Metric: CPU, Peer: name, Against: other})
			if !ok || cpu.median == 0 {
				return "–"
			}
			return fmt.Sprintf("%.2f", median)
		}
		label, processor, spread, core, memory := name, "–", "–", "–", "–"
		if v := c.Versions[name]; v != "" {
			label += " " + v
		}
		if says := c.Says[name]; says != "" {
			label += " (" + says + ")"
		}
		if cpu.median > 0 {
			processor, spread = fmt.Sprintf("%.1f", cpu.median), fmt.Sprintf("%.1f–%.1f", cpu.least, cpu.most)
			core = fmt.Sprintf("%.0f%%, %.0f%%", 100*of(func(r Round) float64 { return r.Busy }), 100*of(func(r Round) float64 { return r.Foreign }))
			memory = fmt.Sprintf("%.0f, %.0f", of(func(r Round) float64 { return float64(r.Rest) })/(1<<20), of(func(r Round) float64 { return float64(r.Loaded) })/(1<<20))
		}
		latency := "–"
		if p50 := of(func(r Round) float64 { return r.P50 }); p50 > 0 {
			latency = fmt.Sprintf("%.0f, %.0f", p50, of(func(r Round) float64 { return r.P99 }))
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %.0f | %s | %s | %s |\n", label, processor, spread, to("nginx"), to("caddy"),
			of(func(r Round) float64 { return r.PerSecond }), core, latency, memory)
	}
	var names []string
	for name := range c.LeftOut {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "\n%s is left out: %s.\n", name, strings.ReplaceAll(c.LeftOut[name], "|", "/"))
	}
	return b.String()
}

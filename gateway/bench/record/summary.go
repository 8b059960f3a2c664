package record

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// The marks between which a document holds the summary.
const (
	summaryBegin = "<!-- begin bench -->\n"
	summaryEnd   = "<!-- end bench -->\n"
)

// Summary is the report in a few lines: CPU for each request, and the targets. general are the columns of the
// table; a cell in which Postern was not measured without policies gets a line of its own below.
func (r *Report) Summary(order, general []string, targets []Target) string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "%s, %d cores, %s, load averages before the run %s. Microseconds of the proxy's processor time for each request or event, medians:\n\n", m.CPU, m.Cores, m.When.Format("2 January 2006"), m.Load)
	fmt.Fprintf(&b, "| | %s |\n|---%s|\n", strings.Join(general, " | "), strings.Repeat("|---", len(general)))
	var others []Cell
	for _, name := range order {
		c, ok := r.Cells[name]
		switch {
		case !ok:
		case slices.Contains(c.Order, "postern"):
			c.rows(&b, general)
		default:
			others = append(others, c)
		}
	}
	for _, c := range others {
		var parts []string
		for _, name := range c.Order {
			if cpu, ok := c.cpu(name); ok {
				parts = append(parts, name+" "+cpu)
			}
		}
		fmt.Fprintf(&b, "\n%s: %s.\n", c.Title, strings.Join(parts, ", "))
	}
	met, measured := 0, 0
	for _, t := range targets {
		switch _, _, word := r.verdict(t); word {
		case "met":
			met++
			measured++
		case "missed":
			measured++
		}
	}
	fmt.Fprintf(&b, "\nOf %d targets %d are met and %d missed; %d were not measured.\n", len(targets), met, measured-met, len(targets)-measured)
	return b.String()
}

// rows writes a row for what proxies do without policies, and one for each number of policies that any of them was measured with.
func (c Cell) rows(b *strings.Builder, general []string) {
	for _, policies := range []string{"", "+1", "+4"} {
		var figures []string
		some := false
		for _, name := range general {
			cpu, ok := c.cpu(name + policies)
			some = some || ok
			figures = append(figures, cpu)
		}
		title := c.Title
		if policies != "" {
			title += ": " + policies[1:]
		}
		if some {
			fmt.Fprintf(b, "| %s | %s |\n", title, strings.Join(figures, " | "))
		}
	}
}

// cpu is a proxy's median, as text.
func (c Cell) cpu(name string) (text string, ok bool) {
	s, ok := summarise(over(c.Rounds[name], func(r Round) float64 { return r.CPU }))
	if !ok || s.median == 0 {
		return "–", false
	}
	if s.median < 1000 {
		return fmt.Sprintf("%.1f", s.median), true
	}
	return fmt.Sprintf("%.0f", s.median), true
}

// Insert puts a summary between the marks of a document.
func Insert(file, summary string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("put the summary into a document: %w", err)
	}
	before, rest, ok := strings.Cut(string(text), summaryBegin)
	_, after, closed := strings.Cut(rest, summaryEnd)
	if !ok || !closed {
		return fmt.Errorf("put the summary into a document: %s lacks the marks %q and %q", file, summaryBegin, summaryEnd)
	}
	if err := os.WriteFile(file, []byte(before+summaryBegin+"\n"+summary+"\n"+summaryEnd+after), 0o644); err != nil { //nolint:gosec // for everyone
		return fmt.Errorf("put the summary into a document: %w", err)
	}
	return nil
}

package record

import (
	"fmt"
	"html"
	"strings"
)

// Measures of the chart, in its own units.
const (
	rowHeight   = 20
	panelHead   = 34
	labelWidth  = 110
	barWidth    = 460
	chartWidth  = 680
	panelBottom = 14
)

// chart draws a panel of bars for each cell: CPU for each request or event, the scale its own. It reads in light and dark.
func (r *Report) chart(order []string) string {
	var body strings.Builder
	y := 40
	for _, name := range order {
		c, ok := r.Cells[name]
		if !ok {
			continue
		}
		type bar struct {
			name   string
			median float64
			least  float64
			most   float64
		}
		var bars []bar
		top := 0.0
		for _, peer := range c.Order {
			s, ok := summarise(over(c.Rounds[peer], func(r Round) float64 { return r.CPU }))
			if ok && s.median > 0 {
				bars = append(bars, bar{peer, s.median, s.least, s.most})
				top = max(top, s.most)
			}
		}
		if len(bars) == 0 {
			continue
		}
		fmt.Fprintf(&body, "<text class=\"h\" x=\"10\" y=\"%d\">%s</text>\n", y+14, html.EscapeString(c.Title))
		y += panelHead - 10
		for _, b := range bars {
			x := func(v float64) float64 { return labelWidth + v/top*barWidth }
			class := "p"
			if strings.HasPrefix(b.name, "postern") {
				class = "o"
			}
			fmt.Fprintf(&body, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>", labelWidth-8, y+14, html.EscapeString(b.name))
			fmt.Fprintf(&body, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\"/>", class, labelWidth, y+3, max(1, x(b.median)-labelWidth), rowHeight-6)
			fmt.Fprintf(&body, "<path class=\"s\" d=\"M%.1f %dH%.1f\"/>", x(b.least), y+rowHeight/2, x(b.most))
			fmt.Fprintf(&body, "<text x=\"%.1f\" y=\"%d\">%.1f</text>\n", x(b.most)+6, y+14, b.median)
			y += rowHeight
		}
		y += panelBottom
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" role="img" aria-label="Processor time for each request, by proxy">
<style>
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.t { font-size: 14px; font-weight: 600 }
.h { font-weight: 600 }
.b { fill: #ffffff }
.o { fill: #0969da }
.p { fill: #afb8c1 }
.s { stroke: #1f2328; stroke-width: 1.5; opacity: .6 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.b { fill: #0d1117 }
.o { fill: #4493f8 }
.p { fill: #57606a }
.s { stroke: #e6edf3 }
}
</style>
<rect class="b" width="100%%" height="100%%"/>
<text class="t" x="10" y="24">Processor time of the proxy for each request or event, us: median, and least to greatest</text>
%[3]s</svg>
`, chartWidth, y+10, body.String())
}

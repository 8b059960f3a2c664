// Package record keeps what was measured, and writes it for people and for programs. Its main type is Report.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Report is all that was measured: one machine, and the latest run of each cell.
type Report struct {
	Machine Machine         `json:"machine"`
	Cells   map[string]Cell `json:"cells"`
}

// Machine is what was measured on, as of the latest run.
type Machine struct {
	CPU     string    `json:"cpu"`
	Cores   int       `json:"cores"`
	Kernel  string    `json:"kernel"`
	Go      string    `json:"go"`
	Load    string    `json:"load"`   // averages over 1, 5 and 15 minutes before the run
	Pinned  bool      `json:"pinned"` // the proxy had a processor, and load and origin another
	Command string    `json:"command"`
	When    time.Time `json:"when"`
}

// Cell is one load and what the proxies did with it.
type Cell struct {
	Name     string             `json:"name"`
	Title    string             `json:"title"`
	Unit     string             `json:"unit"` // what is counted: "request" or "event"
	Rate     float64            `json:"rate"` // of the latencies, a second
	Conns    int                `json:"connections"`
	Streams  int                `json:"streams"` // on each connection
	When     time.Time          `json:"when"`
	Load     string             `json:"load"` // as Machine's, of this cell's run
	Order    []string           `json:"order"`
	Versions map[string]string  `json:"versions"`
	Says     map[string]string  `json:"says"`     // what a proxy does besides passing on
	LeftOut  map[string]string  `json:"left_out"` // proxies without figures, and why
	Rounds   map[string][]Round `json:"rounds"`
}

// Round is one proxy's turn. Times are in microseconds, memory in octets, shares from 0 to 1.
type Round struct {
	CPU       float64 `json:"cpu_us"` // of the proxy, for each unit, at saturation
	PerSecond float64 `json:"per_second"`
	Busy      float64 `json:"busy"`      // the share of its processor that the proxy used
	Foreign   float64 `json:"foreign"`   // the share that others used
	LoadBusy  float64 `json:"load_busy"` // the share of theirs that load and origin used
	PacedCPU  float64 `json:"paced_cpu_us"`
	P50       float64 `json:"p50_us"` // at the fixed rate, since the request was due
	P99       float64 `json:"p99_us"`
	Rest      int64   `json:"rest"`
	Loaded    int64   `json:"loaded"`
}

// Metric is a figure that targets are about.
type Metric string

// The metrics.
const (
	CPU  Metric = "CPU"
	Rest Metric = "memory at rest"
)

func (m Metric) of(r Round) float64 {
	if m == Rest {
		return float64(r.Rest)
	}
	return r.CPU
}

// Target is a share of another's figure that a proxy is to stay below.
type Target struct {
	Cell    string
	Metric  Metric
	Peer    string
	Against string
	AtMost  float64
}

// String says the target in words.
func (t Target) String() string {
	return fmt.Sprintf("%s: %s of %s at most %g of %s's", t.Cell, t.Metric, t.Peer, t.AtMost, t.Against)
}

const raw = "results.json"

// Open reads the report of a folder; where there is none it is empty.
func Open(dir string) (*Report, error) {
	r := &Report{Cells: map[string]Cell{}}
	b, err := os.ReadFile(filepath.Join(dir, raw))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, nil
	case err != nil:
		return nil, fmt.Errorf("read the last results: %w", err)
	}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("read the last results: %w", err)
	}
	return r, nil
}

// Put takes a cell in the place of what was known of it.
func (r *Report) Put(c Cell) { r.Cells[c.Name] = c }

// Write writes results.json, results.md and chart.svg. order lists the names of cells; cells that are not in it are dropped.
func (r *Report) Write(dir string, order []string, targets []Target) error {
	for name := range r.Cells {
		if !slices.Contains(order, name) {
			delete(r.Cells, name)
		}
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	for name, text := range map[string]string{raw: string(b) + "\n", "results.md": r.markdown(order, targets), "chart.svg": r.chart(order)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil { //nolint:gosec // for everyone
			return fmt.Errorf("write the results: %w", err)
		}
	}
	return nil
}

// summary is the middle, the least and the greatest of a list.
type summary struct{ median, least, most float64 }

func summarise(list []float64) (summary, bool) {
	if len(list) == 0 {
		return summary{}, false
	}
	list = slices.Sorted(slices.Values(list))
	n := len(list)
	return summary{median: (list[(n-1)/2] + list[n/2]) / 2, least: list[0], most: list[n-1]}, true
}

func over(rounds []Round, of func(Round) float64) []float64 {
	var list []float64
	for _, r := range rounds {
		list = append(list, of(r))
	}
	return list
}

// Ratio is the median over the rounds of a peer's figure to another's, with the least and the greatest. ok is false where one of them
// has no figures.
func (r *Report) Ratio(t Target) (median, least, most float64, ok bool) {
	mine, theirs := r.Cells[t.Cell].Rounds[t.Peer], r.Cells[t.Cell].Rounds[t.Against]
	var list []float64
	for i := range min(len(mine), len(theirs)) {
		// Of the same round: what disturbs one disturbs the other.
		if other := t.Metric.of(theirs[i]); other > 0 {
			list = append(list, t.Metric.of(mine[i])/other)
		}
	}
	s, ok := summarise(list)
	return s.median, s.least, s.most, ok
}

// verdict is a target's row.
func (r *Report) verdict(t Target) (ratio, spread, word string) {
	median, least, most, ok := r.Ratio(t)
	if !ok {
		return "–", "–", "not measured"
	}
	word = "met"
	if median > t.AtMost {
		word = "missed"
	}
	return fmt.Sprintf("%.3f", median), fmt.Sprintf("%.3f–%.3f", least, most), word
}

// Verdicts says of each target whether it was met.
func (r *Report) Verdicts(targets []Target) string {
	var b strings.Builder
	for _, t := range targets {
		ratio, spread, word := r.verdict(t)
		fmt.Fprintf(&b, "%-12s %s: %s (%s)\n", word, t, ratio, spread)
	}
	return b.String()
}

package project

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/project/trial"
	"github.com/postern-gateway/postern/sdk/abi"
)

type benchCommand struct {
	Dir    string        `arg:"" optional:"" default:"." type:"existingdir" help:"The plugin's folder; by default the current one."`
	Match  string        `name:"run" help:"Measure only tests whose name matches this regular expression."`
	Time   time.Duration `default:"200ms" help:"How long each event is measured."`
	Module string        `type:"existingfile" placeholder:"FILE" help:"Measure this module. By default the sources are built, as for use."`
	JSON   bool          `name:"json" help:"Print one JSON object an event."`
}

// measurement is what one event of a test costs.
type measurement struct {
	Test        string  `json:"test"`
	Phase       string  `json:"phase"`
	Event       string  `json:"event"`
	Calls       int     `json:"calls"`
	Nanoseconds float64 `json:"ns"`           // a call
	Fuel        int64   `json:"fuel"`         // a call, in units of about one instruction; the most of all calls
	Allocations float64 `json:"host_allocs"`  // a call, of the host
	Memory      int64   `json:"guest_octets"` // linear memory of one instance, afterwards
	Faults      int     `json:"faults"`
}

// Run measures every event of every test. Events that change the plugin's state change it as often as they are measured.
func (c *benchCommand) Run(s *Shell) (err error) {
	pick, err := regexp.Compile(c.Match)
	if err != nil {
		return fmt.Errorf("--run: %w", err)
	}
	if c.Time <= 0 || c.Time > time.Minute {
		return errors.New("--time: between 1ns and 1m")
	}
	st, err := s.rehearse(c.Dir, c.Module, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	trials := st.trials
	if len(trials) == 0 {
		trials = []*trial.Trial{trial.Plain(st.plugin, st.policies)}
	}
	// One instance: its memory is what is told, and nothing is measured that waits for another.
	st.plugin.Limits.Instances = 1
	var table []measurement
	for _, t := range trials {
		if !pick.MatchString(t.Name) || t.Refused != "" {
			continue
		}
		wrong, err := st.host.Run(s.Context, t, func(pool *plugin.Pool, events []trial.Recorded) error {
			for i := range events {
				m, err := c.measure(s.Context, pool, &events[i])
				if err != nil {
					return err
				}
				m.Test, m.Memory = t.Name, st.host.Memory()
				table = append(table, *m)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: test %s: %w", place(t.Range), t.Name, err)
		}
		if len(wrong) > 0 {
			fmt.Fprintf(s.Stderr, "FAIL  %s  (%s): not measured; postern plugin test tells why\n", t.Name, place(t.Range))
			err = ErrTold
		}
		if err != nil {
			return err
		}
	}
	if len(table) == 0 {
		return errors.New("no event to measure: no test matches, or none reaches the plugin")
	}
	return c.write(s, table)
}

// measure calls the plugin with one event again and again.
func (c *benchCommand) measure(ctx context.Context, pool *plugin.Pool, r *trial.Recorded) (*measurement, error) {
	m := &measurement{Phase: r.Phase.String(), Event: eventNames[r.Event.Kind]}
	var res plugin.Result
	var ev plugin.Event
	hold := r.Event.Exchange.Hold
	call := func() {
		ev = r.Event
		ev.Exchange.Fuel, ev.Exchange.Hold = 0, hold // a hold that an event places is the exchange's, and the next one places another
		if pool.Call(ctx, &ev, &res) != nil {
			m.Faults++
		}
		m.Fuel = max(m.Fuel, ev.Exchange.Fuel)
	}
	for range 100 { // what is made at first and kept
		call()
	}
	m.Faults = 0
	var before, after runtime.MemStats
	for n := 100; ; n *= 4 {
		runtime.GC()
		runtime.ReadMemStats(&before)
		start := time.Now()
		for range n {
			call()
		}
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		m.Calls, m.Nanoseconds = n, float64(took.Nanoseconds())/float64(n)
		m.Allocations = float64(after.Mallocs-before.Mallocs) / float64(n)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if took >= c.Time || n >= 10_000_000 {
			break
		}
		m.Faults = 0
	}
	return m, nil
}

// eventNames are the names of sdk/ABI.md.
var eventNames = [abi.EventCount]string{
	"CONFIGURE", "REQUEST", "REQUEST_BODY", "RESPONSE", "RESPONSE_BODY", "FETCHED", "ACCOUNT", "TICK",
}

func (c *benchCommand) write(s *Shell, table []measurement) error {
	if c.JSON {
		for i := range table {
			if err := writeJSON(s.Stdout, &table[i]); err != nil {
				return err
			}
		}
		return nil
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "ns\tfuel\thost allocs\tguest memory\tfaults\t\n")
	for i := range table {
		m := &table[i]
		fmt.Fprintf(w, "%.0f\t%d\t%.1f\t%s\t%d\t\n", m.Nanoseconds, m.Fuel, m.Allocations, size(m.Memory), m.Faults)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	fmt.Fprintln(s.Stdout, lines[0]+"  event of a test, a call each")
	for i, line := range lines[1:] {
		m := &table[i]
		if _, err := fmt.Fprintf(s.Stdout, "%s  %s at %s: %s\n", line, m.Event, m.Phase, m.Test); err != nil {
			return err
		}
	}
	return nil
}

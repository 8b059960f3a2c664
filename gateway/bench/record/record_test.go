package record

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func rounds(cpu ...float64) (list []Round) {
	for _, c := range cpu {
		list = append(list, Round{CPU: c, PerSecond: 1000, Busy: 0.95, Foreign: 0.02, P50: 100, P99: 300, Rest: 10 << 20, Loaded: 20 << 20})
	}
	return list
}

func report() *Report {
	return &Report{Machine: Machine{CPU: "a processor", Cores: 2, When: time.Unix(0, 0).UTC()}, Cells: map[string]Cell{
		"one": {Name: "one", Title: "One & only <cell>", Unit: "request", Rate: 100, Conns: 64, Order: []string{"none", "caddy", "nginx", "postern"},
			Versions: map[string]string{"nginx": "1.2"}, Says: map[string]string{"none": "no proxy"}, LeftOut: map[string]string{"envoy": "it is | not there"},
			Rounds: map[string][]Round{"none": rounds(0, 0, 0), "caddy": rounds(100, 400, 100), "nginx": rounds(20, 80, 20), "postern": rounds(22, 88, 30)}},
		"gone": {Name: "gone"},
	}}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		target Target
		want   string
	}{
		// The second round was disturbed for all; its ratios are as good as the others'.
		{Target{"one", CPU, "postern", "nginx", 1.1}, "met          one: CPU of postern at most 1.1 of nginx's: 1.100 (1.100–1.500)\n"},
		{Target{"one", CPU, "postern", "caddy", 0.2}, "missed       one: CPU of postern at most 0.2 of caddy's: 0.220 (0.220–0.300)\n"},
		{Target{"one", Rest, "postern", "caddy", 0.6}, "missed       one: memory at rest of postern at most 0.6 of caddy's: 1.000 (1.000–1.000)\n"},
		{Target{"one", CPU, "postern", "envoy", 1}, "not measured one: CPU of postern at most 1 of envoy's: – (–)\n"},
		{Target{"one", CPU, "postern", "none", 1}, "not measured one: CPU of postern at most 1 of none's: – (–)\n"},
		{Target{"two", CPU, "postern", "nginx", 1}, "not measured two: CPU of postern at most 1 of nginx's: – (–)\n"},
	} {
		if got := report().Verdicts([]Target{c.target}); got != c.want {
			t.Errorf("%s want %s", got, c.want)
		}
	}
}

func TestSummarise(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		list []float64
		want summary
	}{{[]float64{3, 1, 2}, summary{2, 1, 3}}, {[]float64{4, 1, 2, 3}, summary{2.5, 1, 4}}, {[]float64{7}, summary{7, 7, 7}}} {
		if got, ok := summarise(c.list); !ok || got != c.want {
			t.Errorf("%v: %v", c.list, got)
		}
	}
	if _, ok := summarise(nil); ok {
		t.Error("nothing has a median")
	}
}

// TestWrite: what is written is read again, cells that nobody measures any more are dropped, and the table and the chart show the rest.
func TestWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := report().Write(dir, []string{"one"}, []Target{{"one", CPU, "postern", "nginx", 1.1}}); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir)
	if err != nil || len(again.Cells) != 1 || again.Cells["one"].Rounds["postern"][1].CPU != 88 {
		t.Errorf("%+v %v", again, err)
	}
	table, err := os.ReadFile(filepath.Join(dir, "results.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| one | CPU, postern to nginx | 1.1 | 1.100 | 1.100–1.500 | met |",
		"| none (no proxy) | – | – | – | – | 1000 | – | 100, 300 | – |",
		"| nginx 1.2 | 20.0 | 20.0–80.0 | 1.00 | 0.20 | 1000 | 95%, 2% | 100, 300 | 10, 20 |",
		"envoy is left out: it is / not there.",
	} {
		if !strings.Contains(string(table), want) {
			t.Errorf("the table lacks %s:\n%s", want, table)
		}
	}
	chart, err := os.Open(filepath.Join(dir, "chart.svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer chart.Close()
	bars := 0
	for d := xml.NewDecoder(chart); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 4 { // the ground, and three proxies
		t.Errorf("%d rectangles", bars)
	}
	if err := os.WriteFile(filepath.Join(dir, raw), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("broken results are taken")
	}
}

func TestSummary(t *testing.T) {
	t.Parallel()
	r := report()
	r.Cells["two"] = Cell{Name: "two", Title: "Two", Order: []string{"none", "litellm", "postern+4"}, Rounds: map[string][]Round{"none": rounds(0), "litellm": rounds(12345.6), "postern+4": rounds(50)}}
	c := r.Cells["one"]
	c.Rounds["postern+4"] = rounds(40, 42)
	text := r.Summary([]string{"one", "two", "three"}, []string{"postern", "nginx", "envoy"}, []Target{{"one", CPU, "postern", "nginx", 1.1}, {"one", CPU, "postern", "nginx", 1}, {"three", CPU, "postern", "nginx", 1}})
	for _, want := range []string{
		"| | postern | nginx | envoy |\n|---|---|---|---|\n| One & only <cell> | 30.0 | 20.0 | – |\n| One & only <cell>: 4 | 41.0 | – | – |\n",
		"\nTwo: litellm 12346, postern+4 50.0.\n",
		"Of 3 targets 1 are met and 1 missed; 1 were not measured.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the summary lacks %q:\n%s", want, text)
		}
	}
	file := filepath.Join(t.TempDir(), "README.md")
	if err := os.WriteFile(file, []byte("before\n"+summaryBegin+"old\n"+summaryEnd+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and again: it stays the same
		if err := Insert(file, "new\n"); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(file); string(got) != "before\n"+summaryBegin+"\nnew\n\n"+summaryEnd+"after\n" {
			t.Errorf("%s", got)
		}
	}
	if err := os.WriteFile(file, []byte("no marks"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Insert(file, "new\n"); err == nil {
		t.Error("a document without marks is changed")
	}
}

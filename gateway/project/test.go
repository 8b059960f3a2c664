package project

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/project/trial"
)

type testCommand struct {
	Dir    string `arg:"" optional:"" default:"." type:"existingdir" help:"The plugin's folder; by default the current one."`
	Match  string `name:"run" help:"Run only tests whose name matches this regular expression."`
	Module string `type:"existingfile" placeholder:"FILE" help:"Test this module. By default the sources are built, with line tables."`
	JSON   bool   `name:"json" help:"Print one JSON object a test."`
}

// closeTime bounds how long ending a plugin host may take.
const closeTime = 10 * time.Second

// stage is a plugin with its tests, ready to run.
type stage struct {
	plugin   *config.Plugin
	trials   []*trial.Trial
	policies []*config.Policy
	host     *trial.Host
	close    func() error
}

// rehearse reads a project's tests and loads its module: the one that is named, or one that is built of the sources.
func (s *Shell) rehearse(dir, module string, debug bool) (*stage, error) {
	p, err := s.Open(dir)
	if err != nil {
		return nil, err
	}
	st := &stage{plugin: p.alone(module)}
	trials, policies, sources, diags := trial.Load(p.Dir, st.plugin)
	if err := s.tell(sources, diags); err != nil {
		return nil, err
	}
	st.trials, st.policies = trials, policies
	scratch := ""
	if module == "" {
		wasm, err := s.build(p, debug)
		if err != nil {
			return nil, err
		}
		if scratch, err = os.MkdirTemp("", "postern-test-"); err != nil {
			return nil, err
		}
		st.plugin.Path = filepath.Join(scratch, p.Name+".wasm")
		if err := writeFile(st.plugin.Path, wasm); err != nil {
			return nil, errors.Join(err, os.RemoveAll(scratch))
		}
	}
	remove := func() error {
		if scratch == "" {
			return nil
		}
		return os.RemoveAll(scratch)
	}
	if st.host, err = trial.NewHost(trial.Config{Plugin: st.plugin, ABIs: s.ABIs(), CacheDir: s.cache(), Child: s.Child}); err != nil {
		return nil, errors.Join(err, remove())
	}
	st.close = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		return errors.Join(st.host.Close(ctx), remove())
	}
	return st, nil
}

// Run runs the tests.
func (c *testCommand) Run(s *Shell) (err error) {
	pick, err := regexp.Compile(c.Match)
	if err != nil {
		return fmt.Errorf("--run: %w", err)
	}
	st, err := s.rehearse(c.Dir, c.Module, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	if len(st.trials) == 0 {
		return fmt.Errorf("there are no tests: write them in %s_test.hcl", st.plugin.Name)
	}
	passed, failed := 0, 0
	for _, t := range st.trials {
		if !pick.MatchString(t.Name) {
			continue
		}
		start := time.Now()
		wrong, err := st.host.Run(s.Context, t, nil)
		if err != nil {
			return fmt.Errorf("%s: test %s: %w", place(t.Range), t.Name, err)
		}
		if err := c.tell(s, t, wrong, time.Since(start)); err != nil {
			return err
		}
		if len(wrong) == 0 {
			passed++
		} else {
			failed++
		}
	}
	if !c.JSON {
		fmt.Fprintf(s.Stdout, "%d passed, %d failed\n", passed, failed)
	}
	switch {
	case failed > 0:
		return ErrTold
	case passed == 0:
		return fmt.Errorf("no test's name matches %q", c.Match)
	}
	return nil
}

// tell says how a test went.
func (c *testCommand) tell(s *Shell, t *trial.Trial, wrong []trial.Failure, took time.Duration) error {
	if c.JSON {
		type failure struct {
			At   string `json:"at"`
			Text string `json:"text"`
		}
		list := []failure{}
		for _, w := range wrong {
			list = append(list, failure{place(w.At), w.Text})
		}
		return writeJSON(s.Stdout, struct {
			Test     string    `json:"test"`
			At       string    `json:"at"`
			Passed   bool      `json:"passed"`
			MS       float64   `json:"ms"`
			Failures []failure `json:"failures"`
		}{t.Name, place(t.Range), len(wrong) == 0, float64(took.Microseconds()) / 1000, list})
	}
	if len(wrong) == 0 {
		_, err := fmt.Fprintf(s.Stdout, "ok    %s\n", t.Name)
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "FAIL  %s\n", t.Name)
	for _, w := range wrong {
		fmt.Fprintf(&b, "      %s: %s\n", place(w.At), strings.ReplaceAll(w.Text, "\n", "\n        "))
	}
	_, err := s.Stdout.Write([]byte(b.String()))
	return err
}

// place is where something stands, as editors and terminals know it.
func place(r hcl.Range) string {
	return fmt.Sprintf("%s:%d:%d", r.Filename, r.Start.Line, r.Start.Column)
}

package trial

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/policy"
	"github.com/postern-gateway/postern/gateway/project/world"
	"github.com/postern-gateway/postern/gateway/telemetry"
	"github.com/postern-gateway/postern/sdk/abi"
)

// runTime bounds one exchange of a trial.
const runTime = 30 * time.Second

// maxBody is the longest body a trial's stages may make, in octets.
const maxBody = 64 << 20

// Config is what a Host needs.
type Config struct {
	Plugin   *config.Plugin // with the module's path
	ABIs     []plugin.ABI
	CacheDir string   // where compiled code is kept between runs, see plugin.Config
	Child    []string // the process that compiles, see plugin.Config; empty: this one
}

// Host runs the trials of one plugin, one after the other. It is not safe for concurrent use.
type Host struct {
	config  Config
	host    *plugin.Host
	stand   *world.Stand
	log     *slog.Logger
	metrics *telemetry.Metrics
	kept    *plugin.Pool // of no stage: the module stays compiled between trials
}

// NewHost starts a plugin host. Close ends it.
func NewHost(c Config) (*Host, error) {
	h := &Host{config: c, stand: new(world.Stand)}
	h.stand.Put(world.New(world.Config{}))
	h.log = slog.New(slog.NewTextHandler(h.stand, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: timeless}))
	t, err := telemetry.New(context.Background(), telemetry.Config{})
	if err != nil {
		return nil, err
	}
	h.metrics = t.Metrics
	h.host, err = plugin.NewHost(plugin.Config{
		Log: h.log, CacheDir: c.CacheDir, Child: c.Child, ABIs: c.ABIs, Services: plugin.Services{Accounts: h.stand, Ledger: h.stand},
		Now: h.stand.Now, Random: h.stand,
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// timeless leaves the time out of the log: the clock of a trial is its own.
func timeless(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// Close ends the plugin host.
func (h *Host) Close(ctx context.Context) error {
	var err error
	if h.kept != nil {
		err = h.kept.Close(ctx)
	}
	return errors.Join(err, h.host.Close(ctx))
}

// Memory is the linear memory of one instance of the plugin, in octets, as of its last event; 0 while there is none.
func (h *Host) Memory() int64 {
	for _, s := range h.host.Status() {
		if s.Instances > 0 {
			return s.Memory / int64(s.Instances)
		}
	}
	return 0
}

// Recorded is an event that a trial gave to the plugin. Events point at exchanges of their own.
type Recorded struct {
	Phase exchange.Phase
	Event plugin.Event
}

// Run plays a trial. An error means that it could not be played at all. After a trial that went as expected, use gets the
// events and the pool they were given to, if use is not nil.
func (h *Host) Run(ctx context.Context, t *Trial, use func(pool *plugin.Pool, events []Recorded) error) (wrong []Failure, err error) {
	w := world.New(t.World)
	h.stand.Put(w)
	p := *h.config.Plugin
	if h.kept == nil {
		if h.kept, err = h.host.Load(ctx, &p, nil); err != nil {
			h.kept = nil
			return nil, err
		}
	}
	p.Grants = t.Grants
	defer h.host.Forget(p.Name)
	bound := &binding{records: use != nil, numbers: map[*config.Stage]int{}}
	for _, pol := range t.Policies {
		for _, s := range pol.Stages {
			if s.Plugin != nil {
				bound.numbers[s] = len(bound.stages)
				bound.stages = append(bound.stages, s)
			}
		}
	}
	if bound.pool, err = h.host.Load(ctx, &p, bound.stages); err != nil {
		refusal := new(plugin.ConfigError)
		switch {
		case !errors.As(err, &refusal):
			return nil, err
		case t.Refused == "":
			return []Failure{{At: refusal.Range, Text: "the plugin refuses its configuration: " + refusal.Detail}}, nil
		case !strings.Contains(refusal.Detail, t.Refused):
			return []Failure{{At: t.Range, Text: fmt.Sprintf("the plugin refuses its configuration because %q, expected a reason that holds %q", refusal.Detail, t.Refused)}}, nil
		}
		return nil, nil
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), runTime)
		defer cancel()
		err = errors.Join(err, bound.pool.Close(ctx))
	}()
	if t.Refused != "" {
		return []Failure{{At: t.Range, Text: fmt.Sprintf("the plugin takes its configuration, expected that it refuses it with %q", t.Refused)}}, nil
	}
	fetcher := func(*config.Plugin) policy.Fetcher { return nil }
	if slices.Contains(t.Grants, "fetch") {
		fetcher = func(*config.Plugin) policy.Fetcher { return w }
	}
	chain := policy.New(policy.Config{Route: &config.Route{Name: "test", Policies: t.Policies}, Bind: bound.bind, Fetcher: fetcher, Metrics: h.metrics, Log: h.log})
	for n, s := range t.exchanges {
		w.Pass(s.after)
		w.Said() // what was logged while configuring, or before
		o := &outcome{x: s.begin(n, w.Now()), world: w, meters: map[string]int64{}}
		bound.outcome = o
		limited, cancel := context.WithTimeout(ctx, runTime)
		s.play(limited, chain, o)
		cancel()
		o.log, o.fetches = w.Said(), w.Asked()
		if wrong = s.judge(o); len(wrong) > 0 || ctx.Err() != nil {
			return wrong, ctx.Err()
		}
	}
	if use != nil {
		return nil, use(bound.pool, bound.recorded)
	}
	return nil, nil
}

// binding gives a chain the plugin's pool, and takes down what the plugin does.
type binding struct {
	pool    *plugin.Pool
	stages  []*config.Stage
	numbers map[*config.Stage]int
	outcome *outcome

	records  bool
	recorded []Recorded
}

func (b *binding) bind(s *config.Stage) (policy.Caller, int) { return b, b.numbers[s] }

// Call hands an event to the pool.
func (b *binding) Call(ctx context.Context, ev *plugin.Event, res *plugin.Result) error {
	if b.records {
		b.recorded = append(b.recorded, Recorded{Phase: b.stages[ev.Stage].Phase, Event: *keep(ev)})
	}
	err := b.pool.Call(ctx, ev, res)
	o := b.outcome
	if err != nil {
		fault := new(plugin.Fault)
		if !errors.As(err, &fault) {
			fault = &plugin.Fault{Kind: "error", Detail: err.Error()}
		}
		o.faults = append(o.faults, fault)
		return err
	}
	for i := range res.Ops {
		if op := &res.Ops[i]; op.Code == abi.OpMeter {
			o.meters[string(op.Key)] += int64(binary.LittleEndian.Uint64(op.Value))
		}
	}
	return nil
}

// keep copies an event and its exchange, which later stages change.
func keep(ev *plugin.Event) *plugin.Event {
	kept, x := *ev, *ev.Exchange
	x.Request.Header, x.Response.Header = x.Request.Header.Clone(), x.Response.Header.Clone()
	x.Identity.Scopes, x.Attributes = slices.Clone(x.Identity.Scopes), slices.Clone(x.Attributes)
	x.Call.Targets = slices.Clone(x.Call.Targets)
	kept.Exchange, kept.Body, kept.Carry = &x, bytes.Clone(ev.Body), bytes.Clone(ev.Carry)
	return &kept
}

// begin makes the exchange of a step.
func (s *step) begin(n int, now time.Time) *exchange.Exchange {
	x := new(exchange.Exchange)
	*x = s.request
	x.ID, x.Start, x.Listener, x.Route = "test-1-"+strconv.Itoa(n+1), now, "test", "test"
	q := &x.Request
	q.Header = q.Header.Clone()
	q.Body, q.Length = exchange.NewBytes([]byte(s.body)), int64(len(s.body))
	x.Call.Targets = slices.Clone(x.Call.Targets)
	return x
}

// play takes an exchange through the stages, as a gateway does.
func (s *step) play(ctx context.Context, chain *policy.Chain, o *outcome) {
	x := o.x
	run := chain.Start(x, maxBody)
	problem := s.forward(ctx, run, o)
	var header exchange.Header
	if problem != nil {
		x.Problem, header = problem, problem.Header.Clone()
		run.Answer(ctx, problem.Status, &header)
	}
	run.Account(context.WithoutCancel(ctx), s.gone)
	if problem == nil {
		return
	}
	contentType, body := problem.ContentType, problem.Body
	if contentType == "" {
		contentType, body = exchange.ProblemType, problem.JSON(x.ID)
	}
	header.Set("content-type", contentType)
	if problem.Retry > 0 {
		header.Set("retry-after", strconv.Itoa(int((problem.Retry+time.Second-1)/time.Second)))
	}
	o.status, o.header, o.body = problem.Status, header, string(body)
}

// forward runs the phases up to the response, with the upstream played.
func (s *step) forward(ctx context.Context, run *policy.Run, o *outcome) *exchange.Problem {
	x := o.x
	for phase := exchange.Authenticate; phase <= exchange.RequestPhase; phase++ {
		if p := run.Phase(ctx, phase); p != nil {
			return p
		}
	}
	body, err := exchange.ReadBody(x.Request.Body, x.Request.Length, maxBody)
	if err != nil {
		return policy.BodyProblem(err)
	}
	o.upstream = &received{header: x.Request.Header.Clone(), body: string(body)}
	x.Upstream, x.Attempts, x.Usage = "test", 1, s.reply.usage
	if t, ok := x.Call.Chosen(); ok {
		x.Upstream = t.Upstream
	}
	x.Response = exchange.Response{Status: s.reply.status, Header: s.reply.header.Clone(), Length: -1}
	filter, problem := run.Response(ctx)
	if problem != nil {
		return problem
	}
	x.Response.Started = true
	o.status, o.header = x.Response.Status, x.Response.Header.Clone()
	out := through(ctx, filter, s.parts(filter))
	o.body, x.Response.Sent = string(out), int64(len(out))
	return nil
}

// through is what the client gets of the parts. Where a stage fails the reply breaks off, and why is among the faults.
func through(ctx context.Context, filter *policy.Filter, parts []string) (out []byte) {
	for i, part := range parts {
		if filter == nil {
			out = append(out, part...)
			continue
		}
		var err error
		if out, err = filter.Filter(ctx, out, []byte(part), i == len(parts)-1); err != nil {
			return out
		}
	}
	return out
}

// parts is the reply's body as stages are to see it. Where one wants server-sent events they are whole, and the end comes by
// itself, as it mostly does.
func (s *step) parts(filter *policy.Filter) []string {
	parts := s.reply.parts
	if filter != nil && filter.Events() {
		parts = strings.SplitAfter(strings.Join(parts, ""), "\n\n")
	}
	if len(parts) == 0 {
		return []string{""}
	}
	return parts
}

// judge compares what came with what was expected.
func (s *step) judge(o *outcome) (wrong []Failure) {
	say := func(at check, format string, a ...any) {
		wrong = append(wrong, Failure{At: at.at, Text: fmt.Sprintf(format, a...)})
	}
	expected := false
	for _, f := range o.faults {
		if s.fault != "" && string(f.Kind) == s.fault {
			expected = true
			continue
		}
		say(check{at: s.at}, "a stage failed: %s: %s", f.Kind, f.Detail)
	}
	if s.fault != "" && !expected {
		say(check{at: s.at}, "no stage failed, expected %s", s.fault)
	}
	for _, c := range s.checks {
		if text := c.look(o); text != "" {
			say(c, "%s", text)
		}
	}
	if len(wrong) > 0 && o.x.Problem != nil && len(o.faults) == 0 {
		say(check{at: s.at}, "the answer was %s: %s %s", o.x.Problem.Code, o.x.Problem.Title, o.x.Problem.Detail)
	}
	var log []string
	for line := range strings.Lines(o.log) {
		if !strings.Contains(line, `msg="stage failed"`) { // that has been said
			log = append(log, strings.TrimSuffix(line, "\n"))
		}
	}
	if len(wrong) > 0 && len(log) > 0 {
		say(check{at: s.at}, "the log:\n%s", clip(strings.Join(log, "\n")))
	}
	return wrong
}

//go:build linux

// Command bench measures Postern beside other proxies, in one run on one machine: the proxy on one processor, the load and the
// origin on another, in rounds that take turns. `make bench` builds and installs what it needs and runs it.
//
// What counts is the processor time for each request, from the kernel's accounts: it holds on a machine that is not quite
// quiet, and it is what an operator pays for. Requests a second, latency at a fixed rate and memory stand beside it. A cell in which
// any reply was not what it should be has no figures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postern-gateway/postern/gateway/bench/peer"
	"github.com/postern-gateway/postern/gateway/bench/record"
	"github.com/postern-gateway/postern/gateway/bench/wire"
)

// options are one run's.
type options struct {
	root, out, work string
	only, peers     string
	rounds          int
	warm, window    time.Duration
	paced, settle   time.Duration
	list, profile   bool
	readme          string
	command         string
}

func main() {
	o := options{command: strings.Join(append([]string{"bench"}, os.Args[1:]...), " ")}
	flag.StringVar(&o.root, "root", ".", "the repository's `folder`")
	flag.StringVar(&o.out, "out", filepath.Join("bin", "bench", "results"), "the `folder` of the results; cells measured before stay there")
	flag.StringVar(&o.work, "work", filepath.Join("bin", "bench", "work"), "the `folder` for the proxies' files")
	flag.StringVar(&o.readme, "readme", "", "a `document` whose summary is written anew, between its marks")
	flag.StringVar(&o.only, "only", "", "measure only the cells whose names match this `expression`")
	flag.StringVar(&o.peers, "peers", "", "measure only the proxies whose names match this `expression`")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds in which the proxies take turns")
	flag.DurationVar(&o.warm, "warm", 300*time.Millisecond, "before a window")
	flag.DurationVar(&o.window, "window", 1500*time.Millisecond, "of each proxy in each round at saturation")
	flag.DurationVar(&o.paced, "paced", time.Second, "of each proxy in each round at the fixed rate; 0 leaves it out")
	flag.DurationVar(&o.settle, "settle", 2*time.Second, "before memory at rest is read")
	flag.BoolVar(&o.profile, "profile", false, "take a profile of each proxy with perf besides, and write it to profile-CELL-PROXY.txt in the folder of the results")
	flag.BoolVar(&o.list, "list", false, "list cells and targets, and measure nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// harness is a run under way.
type harness struct {
	options
	told     io.Writer
	loop     *wire.Loop
	proxyCPU int // -1: not pinned
	tools    peer.Tools
	report   *record.Report
	cert     string
	key      string
}

func run(ctx context.Context, o options, told io.Writer) (err error) {
	if o.list {
		return list(told)
	}
	for _, dir := range []*string{&o.root, &o.out, &o.work} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
		if err := os.MkdirAll(*dir, 0o755); err != nil { //nolint:gosec // nginx's worker is another user
			return err
		}
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	peers, err := regexp.Compile("^(" + o.peers + ")$")
	if err != nil {
		return fmt.Errorf("-peers: %w", err)
	}
	h := &harness{options: o, told: told, tools: peer.Tools{Root: o.root}}
	if h.report, err = record.Open(o.out); err != nil {
		return err
	}
	if h.cert, h.key, err = peer.Certificate(o.work); err != nil {
		return err
	}
	if h.loop, err = wire.New(); err != nil {
		return err
	}
	defer h.loop.Close()
	if err := h.pin(ctx); err != nil {
		return err
	}
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	now := machine(h.proxyCPU, o.command)
	for _, c := range cells() {
		if !only.MatchString(c.Name) {
			continue
		}
		h.report.Machine = now // where nothing is measured, it stays as it was
		if o.peers != "" {
			c.Peers = slices.DeleteFunc(c.Peers, func(name string) bool { return !peers.MatchString(name) })
		}
		measured, err := h.measure(ctx, c)
		if err != nil {
			return fmt.Errorf("cell %s: %w", c.Name, err)
		}
		h.report.Put(measured)
		// After each cell: an interrupted run keeps what it has.
		if err := h.report.Write(o.out, order(), targets()); err != nil {
			return err
		}
	}
	if err := h.report.Write(o.out, order(), targets()); err != nil { // once more where nothing was measured: the form may be new
		return err
	}
	fmt.Fprint(told, h.report.Verdicts(targets()))
	if o.readme == "" {
		return nil
	}
	return record.Insert(o.readme, h.report.Summary(order(), columns(), targets()))
}

func list(told io.Writer) error {
	for _, c := range cells() {
		if _, err := fmt.Fprintf(told, "%-10s %s: %s\n", c.Name, c.Title, strings.Join(c.Peers, ", ")); err != nil {
			return err
		}
	}
	for _, t := range targets() {
		if _, err := fmt.Fprintln(told, t); err != nil {
			return err
		}
	}
	return nil
}

// pin gives this process the last processor it may use, and keeps the first for the proxies.
func (h *harness) pin(ctx context.Context) error {
	h.proxyCPU = -1
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return fmt.Errorf("find processors: %w", err)
	}
	m := regexp.MustCompile(`(?m)^Cpus_allowed_list:\s*(\d+)\S*?(\d+)?$`).FindSubmatch(b)
	if m == nil || len(m[2]) == 0 || runtime.NumCPU() < 2 {
		fmt.Fprintln(h.told, "One processor: proxies share it with the load, and nothing but the ratios of processor time says anything.")
		return nil
	}
	if h.proxyCPU, err = strconv.Atoi(string(m[1])); err != nil {
		return fmt.Errorf("find processors: %w", err)
	}
	out, err := exec.CommandContext(ctx, "taskset", "-a", "-c", "-p", string(m[2]), strconv.Itoa(os.Getpid())).CombinedOutput() //nolint:gosec // numbers
	if err != nil {
		return fmt.Errorf("take one processor with taskset, of util-linux: %w: %s", err, out)
	}
	return nil
}

// first is what an expression's group finds first in a file of /proc.
func first(file, expression string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	m := regexp.MustCompile(expression).FindSubmatch(b)
	if m == nil {
		return "unknown"
	}
	return strings.TrimSpace(string(m[1]))
}

func loadAverages() string { return first("/proc/loadavg", `^(\S+ \S+ \S+)`) }

// machine says what is measured on.
func machine(cpu int, command string) record.Machine {
	return record.Machine{
		CPU: first("/proc/cpuinfo", `(?m)^model name\s*: (.*)$`), Cores: runtime.NumCPU(), Kernel: first("/proc/sys/kernel/osrelease", `(.*)`),
		Go: runtime.Version(), Load: loadAverages(), Pinned: cpu >= 0, Command: command, When: time.Now().UTC().Truncate(time.Second),
	}
}

// subject is a proxy that takes part in a cell.
type subject struct {
	name    string
	process *peer.Process // nil: none, the origin itself
	job     wire.Job
}

// measure measures one cell.
func (h *harness) measure(ctx context.Context, c cell) (record.Cell, error) {
	out := record.Cell{Name: c.Name, Title: c.Title, Unit: c.unit(), Rate: c.Rate, Conns: c.Job.Conns, Streams: c.Job.Streams, When: time.Now().UTC().Truncate(time.Second),
		Load: loadAverages(), Versions: map[string]string{}, Says: map[string]string{}, LeftOut: map[string]string{}, Rounds: map[string][]record.Round{}}
	var subjects []*subject
	defer func() {
		for _, s := range subjects {
			if s.process != nil {
				s.process.Stop()
			}
		}
	}()
	leave := func(name string, err error) {
		fmt.Fprintf(h.told, "%s: %s is left out: %s\n", c.Name, name, err)
		out.LeftOut[name] = brief(err)
	}
	for _, name := range c.Peers {
		s, version, says, err := h.begin(ctx, c, name)
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		if s != nil {
			subjects = append(subjects, s)
			out.Versions[name], out.Says[name], out.Order = version, says, append(out.Order, name)
		}
		if err != nil {
			leave(name, err)
		}
	}
	rest := map[string]int64{}
	if err := sleep(ctx, h.settle); err != nil {
		return out, err
	}
	for _, s := range subjects {
		if s.process == nil || out.LeftOut[s.name] != "" {
			continue
		}
		var err error
		if rest[s.name], err = s.process.Memory(); err != nil {
			leave(s.name, err)
		}
	}
	for _, s := range subjects {
		if out.LeftOut[s.name] == "" {
			if err := h.heat(s); err != nil {
				leave(s.name, err)
			}
		}
	}
	for n := range h.rounds {
		for i := range subjects {
			// Each round begins with another one, so that none always follows the same.
			s := subjects[(i+n)%len(subjects)]
			if out.LeftOut[s.name] != "" {
				continue
			}
			if ctx.Err() != nil {
				return out, ctx.Err()
			}
			round, err := h.round(s, c.Rate)
			if err != nil {
				leave(s.name, err)
				continue
			}
			round.Rest = rest[s.name]
			out.Rounds[s.name] = append(out.Rounds[s.name], round)
			fmt.Fprintf(h.told, "%-10s round %d  %-10s %7.1f us  %6.0f/s  core %3.0f%%  others %2.0f%%  p50 %6.0f us  p99 %6.0f us  %3.0f MiB\n",
				c.Name, n+1, s.name, round.CPU, round.PerSecond, 100*round.Busy, 100*round.Foreign, round.P50, round.P99, float64(round.Loaded)/(1<<20))
		}
	}
	for _, s := range subjects {
		if h.profile && s.process != nil && out.LeftOut[s.name] == "" {
			if err := h.perf(ctx, s, filepath.Join(h.out, "profile-"+c.Name+"-"+s.name+".txt")); err != nil {
				return out, err
			}
		}
	}
	for name := range out.LeftOut {
		delete(out.Rounds, name) // a proxy that failed once has no figures
	}
	out.Order = slices.DeleteFunc(out.Order, func(name string) bool { return len(out.Rounds[name]) == 0 })
	return out, nil
}

// brief is an error's first line, without the machine's paths.
func brief(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return regexp.MustCompile(`/\S*/`).ReplaceAllString(line, "")
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// begin starts a peer and waits until it answers.
func (h *harness) begin(ctx context.Context, c cell, name string) (s *subject, version, says string, err error) {
	job := c.Job
	if name == direct {
		job.Address = h.loop.Origin()
		return &subject{name: name, job: job}, "", "no proxy: what load and origin can do", nil
	}
	p, ok := peer.ByName(name)
	if !ok {
		return nil, "", "", errors.New("nobody knows it")
	}
	tool, err := p.Find(ctx, h.tools)
	if err != nil {
		return nil, "", "", err
	}
	process, err := peer.Start(ctx, p, tool, peer.Site{
		Dir: h.work, Root: h.root, Origin: h.loop.Origin(), TLS: job.Protocol != wire.HTTP1, HTTP3: job.Protocol == wire.HTTP3, Events: job.Events, Cert: h.cert, Key: h.key,
	}, h.proxyCPU)
	if err != nil {
		return nil, "", "", err
	}
	job.Address, job.Header = process.Address, append(slices.Clone(job.Header), process.Header...)
	s = &subject{name: name, process: process, job: job}
	probe := job
	probe.Conns, probe.Streams, probe.Limit, probe.Window, probe.Warm = 1, 1, 1, 10*time.Second, 0
	for late := time.Now().Add(ready); ; {
		result, err := h.loop.Run(probe)
		if err == nil && result.Done > 0 {
			return s, tool.Version, p.Says, process.Look()
		}
		if ended := process.Ended(); ended != nil {
			return s, "", "", ended
		}
		if time.Now().After(late) {
			return s, "", "", fmt.Errorf("it did not answer: %w\n%s", err, process.Log())
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return s, "", "", err
		}
	}
}

// ready bounds how long a proxy may take to answer first; LiteLLM loads for half a minute.
const ready = 3 * time.Minute

// round measures one proxy once.
func (h *harness) round(s *subject, rate float64) (record.Round, error) {
	var r record.Round
	job := s.job
	job.Warm, job.Window, job.Least = h.warm, h.window, 20
	full, err := h.use(s, job)
	if err != nil {
		return r, err
	}
	r.CPU, r.PerSecond, r.Busy, r.Foreign, r.LoadBusy, r.Loaded = full.perRequest(), full.perSecond(), full.share(full.proxy), full.share(max(0, full.core-full.proxy)), full.share(full.own), full.memory
	if h.paced == 0 {
		return r, nil
	}
	job.Window, job.Rate, job.Least = h.paced, rate, 10
	paced, err := h.use(s, job)
	if err != nil {
		return r, err
	}
	r.PacedCPU, r.P50, r.P99 = paced.perRequest(), float64(paced.P50)/1e3, float64(paced.P99)/1e3
	return r, nil
}

// heat runs a proxy until it has loaded and compiled what it puts off to the first requests.
func (h *harness) heat(s *subject) error {
	job := s.job
	job.Window, job.Least = 3*h.warm, 300 // for ten times that at most
	_, err := h.loop.Run(job)
	return err
}

// perf takes a profile of a proxy under load, by function.
func (h *harness) perf(ctx context.Context, s *subject, file string) error {
	data := filepath.Join(h.work, "perf.data")
	record := exec.CommandContext(ctx, "perf", "record", "-q", "-F", "999", "-g", "-o", data, "-p", s.process.Processes(), "sleep", "3") //nolint:gosec // numbers
	var told strings.Builder
	record.Stderr = &told
	if err := record.Start(); err != nil {
		return fmt.Errorf("profile with perf: %w", err)
	}
	job := s.job
	job.Window = 4 * time.Second
	_, err := h.loop.Run(job)
	if err = errors.Join(err, record.Wait()); err != nil {
		return fmt.Errorf("profile with perf: %w: %s", err, told.String())
	}
	text, err := exec.CommandContext(ctx, "perf", "report", "-i", data, "--stdio", "--children", "-g", "none", "--percent-limit", "0.4").Output()
	if err != nil {
		return fmt.Errorf("profile with perf: %w", err)
	}
	return os.WriteFile(file, text, 0o644) //nolint:gosec // for everyone
}

// used is a window with what was used in it.
type used struct {
	wire.Result
	proxy, core, own time.Duration
	memory           int64
}

func (u used) perRequest() float64              { return float64(u.proxy) / 1e3 / float64(u.Done) }
func (u used) perSecond() float64               { return float64(u.Done) / u.Elapsed.Seconds() }
func (u used) share(part time.Duration) float64 { return float64(part) / float64(u.Elapsed) }

// use plays a job and takes the accounts at the window's begin and end.
func (h *harness) use(s *subject, job wire.Job) (used, error) {
	if s.process != nil {
		if err := s.process.Look(); err != nil {
			return used{}, err
		}
	}
	var at []used
	var problem error
	job.Mark = func() {
		var u used
		var err error
		if s.process != nil {
			if u.proxy, err = s.process.Usage(); err == nil {
				u.memory, err = s.process.Memory()
			}
		}
		if err == nil {
			u.core, err = peer.Busy(h.proxyCPU)
		}
		var own syscall.Rusage
		err = errors.Join(err, syscall.Getrusage(syscall.RUSAGE_SELF, &own))
		u.own = time.Duration(own.Utime.Nano() + own.Stime.Nano())
		problem = errors.Join(problem, err)
		at = append(at, u)
	}
	result, err := h.loop.Run(job)
	if err != nil && s.process != nil {
		if ended := s.process.Ended(); ended != nil {
			err = errors.Join(err, ended)
		}
	}
	if err = errors.Join(err, problem); err != nil {
		return used{}, err
	}
	if result.Done == 0 || len(at) != 2 {
		return used{}, errors.New("nothing was answered in a window")
	}
	return used{Result: result, proxy: at[1].proxy - at[0].proxy, core: at[1].core - at[0].core, own: at[1].own - at[0].own, memory: at[1].memory}, nil
}

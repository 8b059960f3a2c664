// Package fetch makes the HTTP requests that plugins await: its main type is Fetcher, one for each plugin with the grant. A
// plugin reaches only what its operator named, at addresses that are looked at when they are dialled, within bounds on time,
// on what is under way at once and on what is held; answers can be kept and shared. sdk/ABI.md says what a plugin sees of it.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/fetch/origin"
	"github.com/postern-gateway/postern/gateway/telemetry"
	"github.com/postern-gateway/postern/sdk/abi"
)

const (
	// queuePerPlace is how many fetches may wait for each that may be under way.
	queuePerPlace = 4
	// maxHeld bounds the octets of requests and answers that one plugin's awaiting exchanges hold together; the answers
	// under way come on top, at most abi.MaxFetched each.
	maxHeld = 64 << 20
)

// Upstream is an upstream a plugin may ask. It makes one request, chooses an endpoint and tries again by its own rules. Errors wrap
// ErrBusy, or mean that there is no answer. The body has to be closed.
type Upstream interface {
	Fetch(ctx context.Context, r *Request) (*Response, error)
}

// Response is the head of an upstream's answer, and its body to be read.
type Response struct {
	Status int
	Header exchange.Header // without the fields of one connection
	Body   io.ReadCloser
	Length int64 // octets in Body, or -1 when it is not known beforehand
}

// ErrBusy is an Upstream's when all of its connections are in use.
var ErrBusy = errors.New("busy")

// Config is what a Fetcher needs.
type Config struct {
	Plugin    *config.Plugin
	Upstreams map[string]Upstream // by name; those that the plugin may ask
	Metrics   *telemetry.Fetches  // nil: nothing is counted
	Log       *slog.Logger        // nil: nothing is logged
	Resolver  *net.Resolver       // nil: the system's
}

// Fetcher makes one plugin's fetches. It is safe for concurrent use, outlives reloads that do not change it (see Serves) and
// owns its connections and what is under way until Close.
type Fetcher struct {
	config  config.PluginFetch
	plugin  string
	granted bool
	origins map[string]*service // by "scheme://host:port"
	ups     map[string]Upstream
	metrics *telemetry.Fetches
	log     *slog.Logger
	files   string // digest of the files with roots

	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	slots chan struct{} // a place for each fetch under way
	held  atomic.Int64
	work  sync.WaitGroup // flights and dials

	mu      sync.Mutex
	closed  bool
	pending int             // flights under way or waiting for a place
	waiting int             // those that have joined a flight and not left it
	flights map[key]*flight // those that others may join
	cache   cache
}

// New reads the files with roots; it connects to nothing. Values of the plugin's fetch block that are zero mean what
// config documents as their default, but for the cache.
func New(c Config) (*Fetcher, error) {
	f := &Fetcher{
		config: c.Plugin.Fetch, plugin: c.Plugin.Name, granted: slices.Contains(c.Plugin.Grants, "fetch"),
		origins: map[string]*service{}, ups: c.Upstreams, metrics: c.Metrics, log: c.Log, flights: map[key]*flight{},
	}
	if f.config.Timeout <= 0 {
		f.config.Timeout = 2 * time.Second
	}
	if f.config.Concurrent <= 0 {
		f.config.Concurrent = 64
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.cache.limit = f.config.Cache
	f.slots = make(chan struct{}, f.config.Concurrent)
	f.ctx, f.stop = context.WithCancel(context.Background())
	for i := range f.config.Origins {
		o := &f.config.Origins[i]
		pool, digest, err := roots(o.CA)
		if err != nil {
			return nil, fmt.Errorf("plugin %s: fetch: %w", f.plugin, err)
		}
		f.files += digest
		f.origins[origin.Origin{Scheme: o.Scheme, Host: o.Host}.String()] = f.newService(o, pool, c.Resolver)
	}
	return f, nil
}

// Serves reports whether the Fetcher is what New would make of p, files included, with the same upstreams: then a reload
// keeps it, with its connections and the answers it has.
func (f *Fetcher) Serves(p *config.Plugin, upstreams map[string]Upstream) bool {
	a, b := f.config, p.Fetch
	if b.Timeout <= 0 {
		b.Timeout = a.Timeout
	}
	if b.Concurrent <= 0 {
		b.Concurrent = a.Concurrent
	}
	same := f.plugin == p.Name && f.granted == slices.Contains(p.Grants, "fetch") && a.Timeout == b.Timeout &&
		a.Concurrent == b.Concurrent && a.Cache == b.Cache && slices.Equal(a.Origins, b.Origins) && len(f.ups) == len(upstreams)
	for name, u := range upstreams {
		same = same && f.ups[name] == u
	}
	if !same {
		return false
	}
	files := ""
	for _, o := range b.Origins {
		_, digest, err := roots(o.CA)
		if err != nil {
			return false
		}
		files += digest
	}
	return files == f.files
}

// Close gives up what is under way and closes every connection. It waits until ctx ends; then it returns ctx's error.
func (f *Fetcher) Close(ctx context.Context) error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.stop()
	done := make(chan struct{})
	go func() { f.work.Wait(); close(done) }()
	defer func() {
		for _, o := range f.origins {
			o.transport.CloseIdleConnections()
		}
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close the fetches of plugin %s: %w", f.plugin, context.Cause(ctx))
	}
}

// Waiting is how many fetches exchanges wait for now; of those that share one request, each counts.
func (f *Fetcher) Waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waiting
}

// Call is one fetch as a plugin asked for it: its name, and the request as a value.
type Call struct {
	Name  string
	Value []byte
}

// Answers are what came of the fetches of one result. Value is the body of the event that tells the plugin; it is valid until Release.
type Answers struct {
	Value []byte
	done  func()
}

// Release gives up what the answers hold. It must be called once.
func (a *Answers) Release() {
	if a.done != nil {
		a.done()
	}
}

// Do makes the fetches at the same time and returns when each is done, well or badly. ctx's deadline ends those that are still
// open, like their own timeout; when ctx ends in any other way there are no answers, and the error is its cause. A nil Fetcher
// denies everything.
func (f *Fetcher) Do(ctx context.Context, calls []Call) (*Answers, error) {
	names, answers := make([]string, len(calls)), make([]Answer, len(calls))
	for i := range calls {
		names[i] = calls[i].Name
		answers[i].Error = abi.FetchDenied
	}
	if f == nil || !f.granted {
		return &Answers{Value: Append(nil, names, answers)}, nil
	}
	return f.do(ctx, calls, names, answers)
}

func (f *Fetcher) do(ctx context.Context, calls []Call, names []string, answers []Answer) (*Answers, error) {
	start := time.Now()
	size := int64(0)
	for i := range calls {
		size += int64(len(calls[i].Value))
	}
	room := f.hold(size)
	take := func(a *Answer) {
		if n := a.size(); f.hold(n) {
			size += n
		} else {
			f.held.Add(-n)
			*a = Answer{Error: abi.FetchBusy}
		}
		if f.metrics != nil {
			f.metrics.Done(a.outcome(), time.Since(start))
		}
	}
	type place struct {
		*flight
		others bool // somebody else asked for it first
		limit  time.Time
	}
	places := make([]place, len(calls))
	for i := range calls {
		p, a := &places[i], &answers[i]
		r, err := Read(calls[i].Value)
		switch {
		case err != nil:
			a.Error = abi.FetchInvalid
			f.log.Debug("a plugin's fetch is malformed", "plugin", f.plugin, "fetch", names[i], "error", plain(err))
		case !f.allowed(r):
			f.log.Warn("a plugin asks for what was not granted", "plugin", f.plugin, "fetch", names[i], "to", r.where())
		case !room:
			a.Error = abi.FetchBusy
		default:
			if r.Timeout <= 0 || r.Timeout > f.config.Timeout {
				r.Timeout = f.config.Timeout
			}
			p.limit = start.Add(r.Timeout)
			p.flight, p.others, *a = f.join(r, start)
		}
		if p.flight == nil {
			take(a)
		}
	}
	var gone error
	for i := range places {
		p, a := &places[i], &answers[i]
		if p.flight == nil {
			continue
		}
		if gone == nil {
			*a, gone = p.wait(ctx, p.limit)
		}
		f.leave(p.flight)
		if gone == nil {
			a.Cached = p.others && a.Error == ""
			take(a)
		}
	}
	done := func() { f.held.Add(-size) }
	if gone != nil {
		done()
		return nil, gone
	}
	return &Answers{Value: Append(nil, names, answers), done: done}, nil
}

// hold takes n octets into account; false when that is more than there may be, and they have to be given back all the same.
func (f *Fetcher) hold(n int64) bool { return f.held.Add(n) <= maxHeld }

// allowed reports whether the operator named where r goes.
func (f *Fetcher) allowed(r *Request) bool {
	if r.URL == nil {
		return f.ups[r.Upstream] != nil
	}
	return f.origins[r.Origin] != nil
}

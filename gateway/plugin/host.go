package plugin

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/expr"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin/admission"
	"github.com/postern-gateway/postern/gateway/plugin/code"
	"github.com/postern-gateway/postern/gateway/plugin/shared"
	"github.com/postern-gateway/postern/sdk/abi"
)

// MaxModule is the largest module taken, in octets.
const MaxModule = code.MaxModule

// ABI is a front-end: how a kind of guest is spoken to. One serves every module of its kind and is safe for concurrent use.
type ABI interface {
	// Name is the word used in errors and by the admin API.
	Name() string
	// Speaks reports whether a module that exports these things is for this front-end. It need not be right in every
	// detail: Check finds what is wrong.
	Speaks(exports []admission.Export) bool
	// Check says why such a module can not be a plugin with that manifest, or nil. Nothing is run.
	Check(m *admission.Module, mf *manifest.Manifest) error
	// Install puts the host modules that guests import into the runtime, once.
	Install(ctx context.Context, r wazero.Runtime) error
	// Imports lists what Install puts there, for admission.
	Imports() []admission.Import
	// Open takes a module that Check let through into use and prepares what its stages get to see.
	Open(m wazero.CompiledModule, p *config.Plugin, stages []*config.Stage) (Module, error)
}

// Module is one compiled plugin under an ABI.
type Module interface {
	// Guest takes a new instance into use. Host functions that it calls find its Session by SessionOf.
	Guest(ctx context.Context, instance api.Module) (Guest, error)
}

// Guest is one instance. Calls never overlap. Errors are what the engine gives (a trap), what Broke made, or a *Fault.
type Guest interface {
	Configure(ctx context.Context, stage int) error
	// Call hands an event to the guest and puts what it decided, unchecked, into res.
	Call(ctx context.Context, ev *Event, res *Result) error
}

// Config is what a Host needs.
type Config struct {
	Log      *slog.Logger // default: none
	CacheDir string       // where compiled code is kept between runs, see code.Config.Dir
	Child    []string     // the process that compiles, see code.Config.Child; empty: this one
	ABIs     []ABI        // tried in this order
	Services Services
	State    int64            // octets of shared state a plugin, and as many of cached answers, default 64 MiB
	Now      func() time.Time // wall clock of guests and of their state, default time.Now
	Random   io.Reader        // what guests get by the operation random, safe for concurrent use, default crypto/rand
	Raw      bool             // modules are not metered: for measuring what that costs, and nothing else
}

// Host runs plugins: one engine, the code compiled for it, and the shared state of plugins. It is safe for concurrent use.
type Host struct {
	config   Config
	clock    bool // Config.Now was given: it is not the system's
	compiler *code.Compiler
	seed     []byte // keys fingerprints, which cover secrets

	mu     sync.Mutex
	closed bool
	pools  map[string]*pool // by fingerprint
	kept   map[string]*kept // by plugin
	work   sync.WaitGroup   // compilations and loads under way
}

// NewHost starts the engine.
func NewHost(c Config) (*Host, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.State == 0 {
		c.State = 64 << 20
	}
	clock := c.Now != nil
	if !clock {
		c.Now = time.Now
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	h := &Host{config: c, clock: clock, seed: make([]byte, 32), pools: map[string]*pool{}, kept: map[string]*kept{}}
	if _, err := rand.Read(h.seed); err != nil {
		return nil, err
	}
	var imports []admission.Import
	for _, a := range c.ABIs {
		imports = append(imports, a.Imports()...)
	}
	var err error
	h.compiler, err = code.New(code.Config{Log: c.Log, Dir: c.CacheDir, Child: c.Child, Imports: imports, Charge: func(ctx context.Context, n int64) { SessionOf(ctx).charge(n) }, Raw: c.Raw})
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	if err := installMeter(ctx, h.compiler.Runtime()); err != nil {
		return nil, errors.Join(fmt.Errorf("install metering: %w", err), h.compiler.Close(ctx))
	}
	for _, a := range c.ABIs {
		if err := a.Install(ctx, h.compiler.Runtime()); err != nil {
			return nil, errors.Join(fmt.Errorf("install plugin ABI %s: %w", a.Name(), err), h.compiler.Close(ctx))
		}
	}
	return h, nil
}

// Close ends every pool and the engine. It waits for events and compilations under way until ctx ends.
func (h *Host) Close(ctx context.Context) error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	var pools []*pool
	for _, p := range h.pools {
		pools = append(pools, p)
	}
	h.mu.Unlock()
	for _, p := range pools {
		if err := p.close(ctx); err != nil {
			return err // the engine can not be taken from under a running guest
		}
	}
	done := make(chan struct{})
	go func() { h.work.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return h.compiler.Close(ctx)
}

// Load makes the pool of a plugin for the stages that use it: the module is compiled (or taken from the cache), a first
// instance made, and every stage configured on it. A pool that is loaded already with the same module, grants, limits and
// configuration is shared and not made again, so a reload costs nothing for what did not change. Each Load needs its Close.
func (h *Host) Load(ctx context.Context, p *config.Plugin, stages []*config.Stage) (*Pool, error) {
	wasm, digest, err := code.Read(p.Path, p.SHA256)
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w", p.Name, err)
	}
	key, err := h.fingerprint(p, digest, stages)
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w", p.Name, err)
	}
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, ErrClosed
	}
	h.work.Add(1) // Close waits for instances that are being made
	defer h.work.Done()
	if old := h.pools[key]; old != nil {
		old.refs++
		h.mu.Unlock()
		return &Pool{pool: old, stages: stages}, nil
	}
	h.mu.Unlock()

	c, err := h.compiler.Load(ctx, wasm)
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %s: %w", p.Name, p.Path, err)
	}
	made, err := h.newPool(ctx, key, p, stages, c)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	old := h.pools[key]
	switch {
	case h.closed:
		h.mu.Unlock()
		return nil, errors.Join(ErrClosed, made.close(ctx))
	case old != nil: // somebody else was as fast
		old.refs++
		h.mu.Unlock()
		return &Pool{pool: old, stages: stages}, made.close(ctx)
	}
	h.pools[key] = made
	h.mu.Unlock()
	return &Pool{pool: made, stages: stages}, nil
}

// fingerprint is the same for what makes the same pool. It covers secrets in configurations, so it is keyed and stays
// inside the process. Per-request arguments are not part of it: each Pool brings its own.
func (h *Host) fingerprint(p *config.Plugin, digest string, stages []*config.Stage) (string, error) {
	mac := hmac.New(sha256.New, h.seed)
	grants := slices.Sorted(slices.Values(p.Grants))
	fmt.Fprintf(mac, "%q %s %q %d\n", p.Name, digest, grants, p.Limits)
	fmt.Fprintf(mac, "%d %s\n", len(p.Manifest.Source), p.Manifest.Source)
	var b []byte
	for _, s := range stages {
		var err error
		if b, err = expr.AppendValue(b[:0], s.Config); err != nil {
			return "", fmt.Errorf("%s: configuration: %w", s.Range, err)
		}
		fmt.Fprintf(mac, "%q %d %d %d ", s.Policy, s.Phase, len(s.Arguments), len(b))
		mac.Write(b)
	}
	return string(mac.Sum(nil)), nil
}

// Admit says why a module can not be a plugin here, or nil: imports that there are not, exports that are missing. imports
// are those of every front-end, and WASI's. Nothing of the module is run.
func Admit(abis []ABI, imports []admission.Import, m *admission.Module, mf *manifest.Manifest) error {
	if err := m.Allow(imports); err != nil {
		return err
	}
	_, err := frontEnd(abis, m, mf)
	return err
}

// Imports lists what plugins may import where these front-ends are.
func Imports(ctx context.Context, abis []ABI) ([]admission.Import, error) {
	list, err := code.WASI(ctx)
	for _, a := range abis {
		list = append(list, a.Imports()...)
	}
	return list, err
}

// frontEnd finds the front-end of a module and lets it check the module.
func frontEnd(abis []ABI, m *admission.Module, mf *manifest.Manifest) (ABI, error) {
	exports := m.Exports()
	if !slices.ContainsFunc(exports, func(e admission.Export) bool { return e.Name == abi.ExportMemory && e.Kind == "memory" }) {
		return nil, fmt.Errorf("the module does not export its memory as %q", abi.ExportMemory)
	}
	if slices.ContainsFunc(m.Imports(), func(i admission.Import) bool { return i.Kind == "memory" }) {
		return nil, errors.New("the module imports a memory")
	}
	names := make([]string, 0, len(abis))
	for _, a := range abis {
		if a.Speaks(exports) {
			return a, a.Check(m, mf)
		}
		names = append(names, a.Name())
	}
	return nil, fmt.Errorf("the module speaks no plugin ABI known here; there are: %s", strings.Join(names, ", "))
}

// open opens a module by its front-end.
func (h *Host) open(c *code.Code, p *config.Plugin, stages []*config.Stage) (Module, ABI, error) {
	if least, _ := c.Admitted.Memory(); least > p.Limits.Whole().Memory {
		return nil, nil, fmt.Errorf("the module needs %d octets of memory to begin with, and limits.memory is %d", least, p.Limits.Whole().Memory)
	}
	a, err := frontEnd(h.config.ABIs, c.Admitted, p.Manifest)
	if err != nil {
		return nil, nil, err
	}
	m, err := a.Open(c.Module, p, stages)
	return m, a, err
}

// kept is what one plugin's instances share.
type kept struct {
	state *shared.Store
	cache *shared.Cache
}

func (h *Host) keptOf(plugin string) *kept {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.kept[plugin]
	if k == nil {
		k = &kept{state: shared.New(h.config.State, h.config.Now), cache: shared.NewCache(h.config.State, h.config.Now)}
		h.kept[plugin] = k
	}
	return k
}

// Forget drops what a plugin kept, once the configuration does not name it any more. Instances that still run keep theirs
// to their end.
func (h *Host) Forget(plugin string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.kept, plugin)
}

// ForgetAccount drops what plugins cached for an account.
func (h *Host) ForgetAccount(account string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range h.kept {
		k.cache.Forget(account)
	}
}

// Status is what the admin API shows of a pool.
type Status struct {
	Plugin    string         `json:"plugin"`
	Digest    string         `json:"digest"` // SHA-256 of the module
	ABI       string         `json:"abi"`
	Version   string         `json:"version"` // of the manifest
	Stages    int            `json:"stages"`
	Instances int            `json:"instances"`
	Busy      int            `json:"busy"`
	Limit     int            `json:"limit"` // most instances at once
	Waiting   int            `json:"waiting"`
	Memory    int64          `json:"memory"`          // octets of linear memory of all instances, as of their last event
	Compile   float64        `json:"compile_seconds"` // what admission and compilation took
	Calls     int64          `json:"calls"`
	Fuel      int64          `json:"fuel"` // used by all events, in units of about one instruction
	Faults    int64          `json:"faults"`
	Kinds     map[Kind]int64 `json:"faults_by_kind"`
	Broken    bool           `json:"broken"` // failed several times in a row and rests
	State     int64          `json:"state"`  // octets of shared state
	Cache     int64          `json:"cache"`  // octets of cached answers
}

// Status lists the pools that are loaded, by plugin.
func (h *Host) Status() []Status {
	h.mu.Lock()
	pools := make([]*pool, 0, len(h.pools))
	for _, p := range h.pools {
		pools = append(pools, p)
	}
	kept := maps.Clone(h.kept)
	h.mu.Unlock()
	list := make([]Status, 0, len(pools))
	for _, p := range pools {
		s := p.status()
		if k := kept[s.Plugin]; k != nil {
			s.State, _ = k.state.Size()
			s.Cache = k.cache.Size()
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Status) int {
		if c := strings.Compare(a.Plugin, b.Plugin); c != 0 {
			return c
		}
		return strings.Compare(a.Digest, b.Digest)
	})
	return list
}

// ConfigError is a plugin's refusal of a stage's configuration.
type ConfigError struct {
	Plugin string
	Range  hcl.Range // the stage
	Detail string
}

// Error names the place and the plugin's reason.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("%s: plugin %s refuses its configuration: %s", e.Range, e.Plugin, e.Detail)
}

// Package server is the composition root: the one place that knows all below. Its main type is Server, which turns a
// configuration into a snapshot, swaps it in, and drains the one before. A newcomer reads serve.go first.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-gateway/postern/gateway/account"
	"github.com/postern-gateway/postern/gateway/audit"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/creation"
	"github.com/postern-gateway/postern/gateway/holder"
	"github.com/postern-gateway/postern/gateway/ledger"
	"github.com/postern-gateway/postern/gateway/ledger/record"
	"github.com/postern-gateway/postern/gateway/listener"
	"github.com/postern-gateway/postern/gateway/overload"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/privacy"
	"github.com/postern-gateway/postern/gateway/privacy/notice"
	"github.com/postern-gateway/postern/gateway/provider"
	"github.com/postern-gateway/postern/gateway/proxy"
	"github.com/postern-gateway/postern/gateway/reception"
	"github.com/postern-gateway/postern/gateway/replay"
	"github.com/postern-gateway/postern/gateway/rights"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/telemetry"
	"github.com/postern-gateway/postern/gateway/upstream"
	"github.com/postern-gateway/postern/gateway/usage"
	"github.com/postern-gateway/postern/gateway/vault"
)

// Config is what a Server is made of besides its configuration: what is compiled in, and where it speaks.
type Config struct {
	Backends  []state.Backend
	Formats   []provider.Format
	ABIs      []plugin.ABI
	Child     []string             // the process that compiles plugins, see plugin.Config.Child
	Telemetry *telemetry.Telemetry // closed by whoever made it

	// Console makes what answers routes to the console, once storage and configuration are there; nil: such routes are
	// refused. It is not called before New and not after.
	Console func(s *Server) (http.Handler, error)
}

// Server is a running gateway.
type Server struct {
	config    Config
	telemetry *telemetry.Telemetry
	storage   *Storage
	ledger    *ledger.Ledger
	host      *plugin.Host
	listeners *listener.Set
	forwarder *proxy.Forwarder
	gate      *overload.Gate
	console   http.Handler // nil without Config.Console
	accessLog atomic.Bool
	boot      string
	sequence  atomic.Uint64
	current   atomic.Pointer[snapshot]

	limiting sync.Mutex
	limiters map[string]*overload.Limiter // by upstream

	mu       sync.Mutex // one Apply or Shutdown at a time
	lastErr  atomic.Pointer[ReloadError]
	draining sync.WaitGroup // snapshots on their way out
	drained  chan struct{}  // closed when the last of them is closed; they go in the order in which they came
	stopped  bool
}

// ReloadError is why the last configuration offered was refused.
type ReloadError struct {
	Time  time.Time `json:"time"`
	Error string    `json:"error"`
}

// drainTime bounds how long a snapshot's exchanges may go on after its successor took over.
const drainTime = 10 * time.Minute

// New opens what cfg asks for and serves: the store, the ledger, the plugins, the upstreams, and last the sockets.
func New(ctx context.Context, c Config, cfg *config.Config) (_ *Server, err error) {
	s := &Server{config: c, telemetry: c.Telemetry, limiters: map[string]*overload.Limiter{}}
	var undo []func(context.Context) error
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				err = errors.Join(err, undo[i](context.WithoutCancel(ctx)))
			}
		}
	}()
	if s.storage, err = OpenStorage(ctx, c.Backends, cfg, c.Telemetry.Log); err != nil {
		return nil, err
	}
	undo = append(undo, func(context.Context) error { return s.storage.Close() })
	s.ledger = s.storage.Ledger
	cache := ""
	if cfg.State.Dir != "" {
		cache = filepath.Join(cfg.State.Dir, "cache")
	}
	s.host, err = plugin.NewHost(plugin.Config{
		Log: c.Telemetry.Log, CacheDir: cache, Child: c.Child, ABIs: c.ABIs,
		Services: plugin.Services{Accounts: accounts{s.storage.Accounts}, Ledger: money{s.ledger}},
	})
	if err != nil {
		return nil, err
	}
	undo = append(undo, s.host.Close)
	s.gate = overload.NewGate(cfg.Gateway.Overload, overload.Options{Log: c.Telemetry.Log})
	undo = append(undo, func(context.Context) error { s.gate.Close(); return nil })
	s.boot = cfg.Gateway.Name + "-" + strconv.FormatInt(time.Now().UnixMilli(), 36) + "-"
	s.forwarder = proxy.New(proxy.Config{Log: c.Telemetry.Log})
	first, err := s.build(ctx, cfg, nil)
	if err != nil {
		return nil, err
	}
	undo = append(undo, func(ctx context.Context) error { return first.close(ctx, nil) })
	if err := s.publish(ctx, cfg); err != nil {
		return nil, err
	}
	if s.storage.People != nil {
		if err := s.storage.People.Start(); err != nil {
			return nil, err
		}
		s.storage.Rights.Start()
	}
	s.accessLog.Store(cfg.Telemetry.AccessLog)
	s.current.Store(first)
	if c.Console != nil {
		if s.console, err = c.Console(s); err != nil {
			return nil, fmt.Errorf("open the console: %w", err)
		}
	}
	s.telemetry.Metrics.Plugins(s.pluginStates)
	s.telemetry.Metrics.Overload(s.overloadStates)
	s.listeners = listener.New(listener.Config{Log: c.Telemetry.Log, Handler: s.Serve, NewID: s.newID, Dir: cfg.State.Dir, Observer: observer{s.telemetry.Metrics}})
	if err := s.listeners.Apply(ctx, cfg.Listeners); err != nil {
		return nil, errors.Join(err, s.listeners.Shutdown(ctx))
	}
	s.telemetry.Metrics.Reload(true)
	if r := s.ledger.Recovered(); r.Intents > 0 {
		s.telemetry.Log.WarnContext(ctx, "calls under way when the last run ended were settled by their checkpoints", "calls", r.Intents, "amount", r.Amount.String())
	}
	s.telemetry.Log.InfoContext(ctx, "serving", "listeners", strings.Join(s.addresses(), " "))
	s.note(ctx, "gateway.start", audit.Done, "", cfg.Digest)
	return s, nil
}

// Policies are the versions of the privacy policy that were ever in a configuration it ran with.
func (s *Server) Policies() *notice.Archive { return &notice.Archive{Store: s.storage.Store} }

// publish keeps the version of the policy that a configuration has, and lets people be asked for what is in force.
func (s *Server) publish(ctx context.Context, cfg *config.Config) error {
	if err := s.Policies().Keep(ctx, cfg.Privacy); err != nil || s.storage.People == nil {
		return err
	}
	var list []*notice.Edition
	var err error
	if cfg.Privacy.Written {
		list, err = s.Policies().List(ctx)
	}
	s.storage.People.Publish(list)
	s.storage.policy.Store(cfg.Privacy.Report())
	return err
}

// newID mints an exchange's id: node, boot, sequence.
func (s *Server) newID() string {
	var digits [13]byte // of 64 bits
	return s.boot + string(strconv.AppendUint(digits[:0], s.sequence.Add(1), 36))
}

func (s *Server) addresses() []string {
	var list []string
	for name, a := range s.listeners.Addresses() {
		list = append(list, name+"="+a.String())
	}
	slices.Sort(list)
	return list
}

// Apply makes cfg the configuration in force: what is new is built beside what serves, the sockets are reconciled, then
// new exchanges go the new way and those under way finish theirs. On an error nothing has changed.
func (s *Server) Apply(ctx context.Context, cfg *config.Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.apply(ctx, cfg)
	s.telemetry.Metrics.Reload(err == nil)
	if err != nil {
		s.Refused(ctx, err)
		return err
	}
	s.lastErr.Store(nil)
	s.telemetry.Log.InfoContext(ctx, "configuration applied", "config", cfg.Digest[:12], "listeners", strings.Join(s.addresses(), " "))
	s.note(ctx, "config.apply", audit.Done, "", cfg.Digest)
	return nil
}

// note puts into the audit log what the gateway did itself, with the digest of the configuration.
func (s *Server) note(ctx context.Context, action string, outcome audit.Outcome, reason, digest string) {
	e := audit.Entry{Actor: "gateway", Action: action, Subject: "gateway", Outcome: outcome, Reason: reason}
	if digest != "" {
		e.Detail = map[string]string{"config": digest[:12]}
	}
	if _, err := s.storage.Audit.Append(ctx, e); err != nil {
		s.telemetry.Log.ErrorContext(ctx, "not in the audit log", "error", err)
	}
}

// Refused notes that a configuration was not applied; the one before goes on serving.
func (s *Server) Refused(ctx context.Context, err error) {
	s.lastErr.Store(&ReloadError{Time: time.Now(), Error: err.Error()})
	s.telemetry.Log.ErrorContext(ctx, "configuration refused, the one before goes on serving", "error", err)
	s.note(ctx, "config.apply", audit.Refused, "files", "")
}

func (s *Server) apply(ctx context.Context, cfg *config.Config) error {
	if s.stopped {
		return errors.New("the server is stopping")
	}
	old := s.current.Load()
	if err := fixed(old.config, cfg); err != nil {
		return err
	}
	next, err := s.build(ctx, cfg, old)
	if err != nil {
		return err
	}
	if err := s.publish(ctx, cfg); err != nil {
		return errors.Join(err, next.close(ctx, old))
	}
	// A listener that is new must find its routes, one that goes may not lose them: while the sockets are reconciled, both
	// are there.
	if err := s.listeners.Apply(ctx, cfg.Listeners); err != nil {
		return errors.Join(err, next.close(ctx, old))
	}
	if err := s.telemetry.SetLevel(cfg.Telemetry.LogLevel); err != nil {
		s.telemetry.Log.WarnContext(ctx, "log level not changed", "error", err)
	}
	if was, is := old.config.Telemetry, cfg.Telemetry; was.LogFormat != is.LogFormat || was.Metrics != is.Metrics || was.TraceEndpoint != is.TraceEndpoint || was.TraceRatio != is.TraceRatio {
		s.telemetry.Log.WarnContext(ctx, "the log's format, metrics and traces stay as they were until the next start")
	}
	s.accessLog.Store(cfg.Telemetry.AccessLog)
	s.limit(cfg)
	s.current.Store(next)
	old.retire()
	before, done := s.drained, make(chan struct{})
	s.drained = done
	s.draining.Go(func() {
		defer close(done)
		s.drain(old, next, before)
	})
	return nil
}

// fixed finds changes that a running gateway can not take.
func fixed(old, next *config.Config) error {
	switch {
	case old.State.Backend != next.State.Backend || !old.State.Arguments.RawEquals(next.State.Arguments):
		return fmt.Errorf("%s: the state block can not change while the gateway runs: restart it", next.State.Range)
	case !reflect.DeepEqual(old.Vault, next.Vault):
		return errors.New("the vault block can not change while the gateway runs: restart it")
	case old.Audit.Retain != next.Audit.Retain:
		return errors.New("the audit block can not change while the gateway runs: restart it")
	case old.Ledger.Currency != next.Ledger.Currency || old.Ledger.HoldTTL != next.Ledger.HoldTTL || old.Ledger.Retain != next.Ledger.Retain:
		return fmt.Errorf("%s: the ledger block can not change while the gateway runs: restart it", next.Ledger.Range)
	case old.Usage.Keep != next.Usage.Keep || old.Usage.Sums != next.Usage.Sums:
		return fmt.Errorf("%s: the usage block can not change while the gateway runs: restart it", next.Usage.Range)
	case !old.Accounts.Same(next.Accounts):
		return errors.New("the accounts block can not change while the gateway runs: restart it")
	case !reflect.DeepEqual(adminOf(old), adminOf(next)):
		return errors.New("the admin block can not change while the gateway runs: restart it")
	case old.Gateway.Name != next.Gateway.Name:
		return fmt.Errorf("%s: the gateway's name can not change while it runs: restart it", next.Gateway.Range)
	}
	return nil
}

func adminOf(c *config.Config) config.Admin {
	if c.Admin == nil {
		return config.Admin{}
	}
	return config.Admin{Address: c.Admin.Address, Token: c.Admin.Token, ClientCA: c.Admin.ClientCA}
}

// drain closes a snapshot when its last exchange is over and every snapshot before it is closed, whose exchanges may use
// upstreams that this one carried on. What next carries on stays open.
func (s *Server) drain(old, next *snapshot, before <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	select {
	case <-old.idle:
	case <-ctx.Done():
		s.telemetry.Log.Warn("exchanges of an earlier configuration go on beyond the time for draining", "config", old.config.Digest[:12])
		<-old.idle
	}
	if before != nil {
		<-before
	}
	ctx, cancel = context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := old.close(ctx, next); err != nil {
		s.telemetry.Log.Warn("close an earlier configuration", "error", err)
	}
	// What a plugin kept goes with the plugin.
	for _, p := range old.config.Plugins {
		if !slices.ContainsFunc(s.current.Load().config.Plugins, func(is *config.Plugin) bool { return is.Name == p.Name }) {
			s.host.Forget(p.Name)
		}
	}
}

func (s *Server) acquire() *snapshot {
	for {
		if snap := s.current.Load(); snap.use() {
			return snap
		}
	}
}

// Shutdown stops accepting, lets exchanges under way finish until ctx ends, then breaks them off, and closes everything.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	s.stopped = true
	s.telemetry.Log.InfoContext(ctx, "stopping")
	problems := s.listeners.Shutdown(ctx)
	// From here on no exchange runs; what follows is quick and gets its own time, or money could be left unsettled.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	last := s.current.Load()
	last.retire()
	<-last.idle
	s.draining.Wait()
	s.gate.Close()
	s.note(ctx, "gateway.stop", audit.Done, "", "")
	if err := errors.Join(problems, last.close(ctx, nil), s.host.Close(ctx), s.storage.Close()); err != nil {
		return err
	}
	s.telemetry.Log.InfoContext(ctx, "stopped")
	return nil
}

// Ready reports why paid calls can not be served now; nil when they can.
func (s *Server) Ready(ctx context.Context) error { return s.ledger.Ready(ctx) }

// Addresses are the bound addresses by listener name.
func (s *Server) Addresses() map[string]netip.AddrPort { return s.listeners.Addresses() }

// Storage is the state, ledger and accounts.
func (s *Server) Storage() *Storage { return s.storage }

// Status is what operators see of the configuration in force.
type Status struct {
	Node      string            `json:"node"`
	Config    string            `json:"config"` // digest
	Dir       string            `json:"dir"`
	Loaded    time.Time         `json:"loaded"`
	Listeners map[string]string `json:"listeners"` // bound addresses
	Refused   *ReloadError      `json:"refused,omitempty"`
}

// Status tells which configuration is in force.
func (s *Server) Status() Status {
	snap := s.current.Load()
	st := Status{Node: snap.config.Gateway.Name, Config: snap.config.Digest, Dir: snap.config.Dir, Loaded: snap.loaded, Listeners: map[string]string{}, Refused: s.lastErr.Load()}
	for name, a := range s.listeners.Addresses() {
		st.Listeners[name] = a.String()
	}
	return st
}

// Config is the configuration in force.
func (s *Server) Config() *config.Config { return s.current.Load().config }

// Plugins tells of every plugin in use.
func (s *Server) Plugins() []PluginStatus {
	pools := s.host.Status()
	list := make([]PluginStatus, len(pools))
	now := s.current.Load()
	for i, p := range pools {
		list[i].Status = p
		if f := now.fetchers[p.Plugin]; f != nil {
			list[i].Fetching = f.Waiting()
		}
	}
	return list
}

// PluginStatus is how a plugin stands.
type PluginStatus struct {
	plugin.Status
	Fetching int `json:"fetching"` // fetches that exchanges wait for, of the configuration in force; all pools of a plugin say the same
}

// Module is the digest of the module that a plugin has in the configuration in force; used is false where no stage uses it.
func (s *Server) Module(plugin string) (digest string, used bool) {
	for _, pool := range s.current.Load().pools {
		if name, digest := pool.Module(); name == plugin {
			return digest, true
		}
	}
	return "", false
}

// pluginStates adds up, for the metrics, what pools of one plugin have: for a moment after a reload there are two.
func (s *Server) pluginStates() []telemetry.PluginState {
	var list []telemetry.PluginState
	for _, p := range s.host.Status() { // in the order of names
		if n := len(list); n == 0 || list[n-1].Plugin != p.Plugin {
			list = append(list, telemetry.PluginState{Plugin: p.Plugin, State: p.State})
		}
		sum := &list[len(list)-1]
		sum.Instances, sum.Busy, sum.Limit, sum.Waiting = sum.Instances+p.Instances, sum.Busy+p.Busy, sum.Limit+p.Limit, sum.Waiting+p.Waiting
		sum.Memory, sum.Compile, sum.Resting = sum.Memory+p.Memory, max(sum.Compile, p.Compile), sum.Resting || p.Broken
	}
	return list
}

// Upstreams tells of every upstream's endpoints.
func (s *Server) Upstreams() map[string][]upstream.EndpointStatus {
	all := map[string][]upstream.EndpointStatus{}
	for name, u := range s.current.Load().upstreams {
		all[name] = u.Status()
	}
	return all
}

// Storage is what outlives a run: the store, the vault beside it, and the audit log, the ledger, the accounts, the replies, the usage and the creations in them.
type Storage struct {
	Store     state.Store
	Vault     *vault.Vault // keys of what is sealed for people and accounts
	Audit     *audit.Log
	Ledger    *ledger.Ledger
	Accounts  *account.Directory
	People    *reception.Desk // nil without an accounts block
	Replays   *replay.Store
	Usage     *usage.Book
	Creations *creation.Shelf
	Rights    *rights.Register               // nil without an accounts block
	policy    atomic.Pointer[privacy.Report] // of the configuration that is served
	opened    []io.Closer                    // of these, in the order in which they were opened
}

// OpenStorage opens the store that cfg names. It gives state.ErrLocked when a running gateway has it.
func OpenStorage(ctx context.Context, backends []state.Backend, cfg *config.Config, log *slog.Logger) (*Storage, error) {
	for _, b := range backends {
		if b.Name != cfg.State.Backend {
			continue
		}
		st := &Storage{}
		if err := st.open(ctx, b, cfg, log); err != nil {
			return nil, errors.Join(err, st.Close())
		}
		return st, nil
	}
	return nil, fmt.Errorf("%s: there is no state backend %q", cfg.State.Range, cfg.State.Backend)
}

// open opens one after the other, up to the first that can not be.
func (s *Storage) open(ctx context.Context, b state.Backend, cfg *config.Config, log *slog.Logger) (err error) {
	if s.Store, err = b.Open(ctx, cfg.Dir, cfg.State.Arguments, log); err != nil {
		return err // which says what it opened
	}
	s.opened = append(s.opened, s.Store)
	if s.Vault, err = openVault(ctx, cfg, log); err != nil {
		return err
	}
	s.opened = append(s.opened, s.Vault)
	if s.Audit, err = openAudit(ctx, cfg, s, log); err != nil {
		return err
	}
	s.opened = append(s.opened, s.Audit)
	s.Ledger, err = ledger.Open(ctx, ledger.Config{
		Store: s.Store, Log: log, Currency: cfg.Ledger.Currency, HoldTTL: cfg.Ledger.HoldTTL, Retain: cfg.Ledger.Retain, Node: cfg.Gateway.Name,
	})
	if err != nil {
		return err
	}
	s.opened = append(s.opened, s.Ledger)
	if s.Accounts, err = account.Open(ctx, account.Config{Store: s.Store, Vault: s.Vault.Drawer("account"), Log: log}); err != nil {
		return err
	}
	s.opened = append(s.opened, s.Accounts)
	if s.Replays, err = replay.Open(ctx, replay.Config{Store: s.Store, Vault: s.Vault, Prefix: "replay/", Log: log}); err != nil {
		return err
	}
	s.opened = append(s.opened, s.Replays)
	s.Usage, err = usage.Open(ctx, usage.Config{Store: s.Store, Ledger: record.Journal{Store: s.Store}, Log: log, Keep: cfg.Usage.Keep, Sums: cfg.Usage.Sums})
	if err != nil {
		return err
	}
	s.opened = append(s.opened, s.Usage)
	if s.Creations, err = creation.Open(ctx, creation.Config{Store: s.Store, Sealer: s.Vault.Drawer("creation"), Log: log}); err != nil {
		return err
	}
	s.opened = append(s.opened, s.Creations)
	// Last: it ends removals that a crash broke off, which reach into all of the above.
	if cfg.Accounts != nil {
		s.People, err = reception.Open(ctx, reception.Config{Store: s.Store, Vault: s.Vault, Audit: s.Audit, Accounts: s.Accounts, Ledger: s.Ledger, Leave: s.leave, Settings: cfg.Accounts, Log: log})
		if err != nil {
			return err
		}
		s.opened = append(s.opened, s.People)
		s.Rights, err = holder.Open(ctx, holder.Config{
			Store: s.Store, Vault: s.Vault.Drawer("rights"), Desk: s.People, Accounts: s.Accounts, Ledger: s.Ledger, Usage: s.Usage, Creations: s.Creations,
			Policy: func() any { return s.policy.Load() }, Audit: s.Audit, Settings: cfg.Accounts, Log: log,
		})
		if err != nil {
			return err
		}
		s.opened = append(s.opened, s.Rights)
	}
	return s.agree(ctx)
}

// leave removes what is kept for an account that nobody takes part in any more. The ledger keeps its entries under the
// account's id, which nothing leads to from then on.
func (s *Storage) leave(ctx context.Context, account string) error {
	if err := s.Accounts.Erase(ctx, account); err != nil { // first: its keys are refused from here on
		return err
	}
	if err := s.Replays.Remove(ctx, account); err != nil {
		return err
	}
	if _, err := s.Creations.Remove(ctx, account); err != nil {
		return err
	}
	if _, err := s.Usage.Remove(ctx, account); err != nil {
		return err
	}
	return s.Vault.Shred(ctx, account)
}

// openVault opens the vault in the state's folder, or in memory where the state is kept there.
func openVault(ctx context.Context, cfg *config.Config, log *slog.Logger) (*vault.Vault, error) {
	c := cfg.Vault
	c.Log = log
	if cfg.State.Dir != "" {
		c.Dir = filepath.Join(cfg.State.Dir, "vault")
	}
	return vault.Open(ctx, c)
}

// openAudit opens the audit log. The key of its head is the vault's: whoever can write to the store alone can not make one.
func openAudit(ctx context.Context, cfg *config.Config, s *Storage, log *slog.Logger) (*audit.Log, error) {
	key, err := s.Vault.Drawer("audit").MAC(ctx, "gateway", "head")
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	c := cfg.Audit
	c.Store, c.Key, c.Log = s.Store, key[:], log
	return audit.Open(ctx, c)
}

// agree gives every account its place in the ledger: a crash may have come between the two.
func (s *Storage) agree(ctx context.Context) error {
	list, err := s.Accounts.List(ctx)
	if err != nil {
		return err
	}
	for _, a := range list {
		if _, err := s.Ledger.Balance(ctx, a.ID); !errors.Is(err, ledger.ErrAccount) {
			continue
		}
		if err := s.Ledger.OpenAccount(ctx, a.ID); err != nil {
			return fmt.Errorf("open account %s in the ledger: %w", a.ID, err)
		}
	}
	return nil
}

// Close closes all of it, what was opened last first.
func (s *Storage) Close() (err error) {
	for _, c := range slices.Backward(s.opened) {
		err = errors.Join(err, c.Close())
	}
	return err
}

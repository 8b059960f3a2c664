// Package config is the language of config.hcl and policies/*.hcl: Load turns files into a Config, or into diagnostics
// that say where and what to write instead. Its main type is Config, pure data: loading opens no socket, no store and
// runs no plugin.
package config

import (
	"cmp"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/audit"
	"github.com/postern-gateway/postern/gateway/console/site"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/expr"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/notation"
	"github.com/postern-gateway/postern/gateway/overload"
	"github.com/postern-gateway/postern/gateway/person/settings"
	"github.com/postern-gateway/postern/gateway/privacy"
	"github.com/postern-gateway/postern/gateway/route"
	"github.com/postern-gateway/postern/gateway/secret"
	"github.com/postern-gateway/postern/gateway/vault"
	"github.com/postern-gateway/postern/sdk/abi"
)

// Config is one checked configuration. Every reference in it resolves; every expression compiled; it does not change.
type Config struct {
	Dir       string // the folder it was loaded from, absolute
	Digest    string // SHA-256 over the files' names and contents, hexadecimal
	Gateway   Gateway
	State     State
	Vault     vault.Config // what is not in the files is filled in by whoever opens it
	Audit     audit.Config // as well
	Ledger    Ledger
	Usage     Usage
	Accounts  *settings.Settings // nil: nobody signs in
	Privacy   *privacy.Policy    // never nil; checked against all that follows
	Admin     *Admin             // nil: no admin listener
	Telemetry Telemetry
	Console   *site.Config // never nil
	Listeners []*Listener  // in file order, like everything below
	Plugins   []*Plugin
	Upstreams []*Upstream
	Models    []*Model
	Policies  []*Policy
	Routes    []*Route
	Tests     []*Test // from policies/*_test.hcl
	Secrets   []*Secret
}

// Secret is where a secret is read from; never what it is.
type Secret struct {
	Name   string
	Source secret.Source
	Range  hcl.Range
}

// Gateway names the node.
type Gateway struct {
	Name     string // default "postern"
	Requires string // version constraint the binary satisfied; may be empty
	Overload overload.Config
	Range    hcl.Range
}

// State says where durable state lives.
type State struct {
	Backend   string    // a name from builtin.go
	Arguments cty.Value // the backend's own, decoded by its Spec
	Dir       string    // absolute data directory, from the backend's argument "dir"; empty when it has none
	Range     hcl.Range
}

// Ledger configures money.
type Ledger struct {
	Currency string        // ISO 4217, default "USD"
	HoldTTL  time.Duration // how long a hold may stay open, default 10m, 10s to 24h
	Retain   time.Duration // how long entries are kept, default 400d; 0 keeps all
	Range    hcl.Range
}

// Usage says how long it is kept who called what.
type Usage struct {
	Keep  time.Duration // records of calls and the sums of hours, default 90d, 1d to 3650d
	Sums  time.Duration // the sums of days, default 400d; at least Keep
	Range hcl.Range
}

// Admin configures the operators' listener.
type Admin struct {
	Address  string // host:port; loopback unless ClientCA is set
	Token    string // bearer token, at least 16 characters; empty: ClientCA stands in for it, or one is kept in State.Dir
	ClientCA string // path of a PEM file, absolute; then TLS with client certificates is required
	Withheld bool   // Token is a secret that was not read
	Range    hcl.Range
}

// Telemetry configures logs, metrics and traces.
type Telemetry struct {
	LogLevel      string  // debug, info (default), warn, error
	LogFormat     string  // json (default), text
	AccessLog     bool    // default true
	Metrics       bool    // default true: /metrics on the admin listener
	TraceEndpoint string  // OTLP/HTTP URL; empty: no traces
	TraceRatio    float64 // share of requests traced when the client asks for nothing, default 0.01
	Range         hcl.Range
}

// Listener is an address and what is spoken there.
type Listener struct {
	Name      string
	Address   string // host:port
	Protocols []exchange.Protocol
	Drain     time.Duration // how long open exchanges may go on after a stop or change, default 30s
	TLS       *TLS          // nil: cleartext, http1 and http2 with prior knowledge only
	Limits    Limits
	Timeouts  ListenerTimeouts
	QUIC      QUIC
	Range     hcl.Range
}

// QUIC is what a listener's HTTP/3 connections may use, besides Limits and Timeouts: streams, requests, header (which
// bounds the handshake) and idle hold for them too.
type QUIC struct {
	Window           int64 // octets of a stream that may wait, default 1MiB, 64KiB to 64MiB
	ConnectionWindow int64 // of all streams of a connection together, default 4MiB, 64KiB to 256MiB
	EarlyData        bool  // takes requests of safe methods that come before the handshake is over (0-RTT), default false
}

// Speaks reports whether the listener offers p.
func (l *Listener) Speaks(p exchange.Protocol) bool {
	for _, q := range l.Protocols {
		if q == p {
			return true
		}
	}
	return false
}

// TLS protects a listener: from files, or self-signed for development.
type TLS struct {
	Cert       string   // PEM file, absolute; read again when it changes
	Key        string   // PEM file, absolute
	SelfSigned []string // names and addresses; a development CA is made below State.Dir/tls
	ClientCA   string   // PEM file, absolute; a client certificate it signed is then required
	MinVersion uint16   // tls.VersionTLS12 (default) or tls.VersionTLS13
	Range      hcl.Range
}

// Limits bound what one client can make a listener hold.
type Limits struct {
	Header      int64 // octets of a request's head, default 32KiB, 1KiB to 1MiB
	Headers     int   // fields in a head, default 100, 1 to 1000
	Body        int64 // octets of a body, default 10MiB; 0 allows none
	Requests    int   // requests on one connection, default 10000; then it is closed kindly
	Connections int   // open connections of the listener, default 10000
	Streams     int   // concurrent streams of an HTTP/2 or 3 connection, default 100
	Control     int   // frames of an HTTP/2 connection that cost more than they carry: at once, and a tenth each second; default 2000, 100 to 1000000
}

// ListenerTimeouts bound how long one client can make a listener wait.
type ListenerTimeouts struct {
	Header time.Duration // from the first octet of a request to the end of its head, default 10s; also the TLS handshake
	Body   time.Duration // between two reads of a body, default 30s
	Idle   time.Duration // between requests of a connection, default 75s
	Write  time.Duration // for one write to make progress, default 30s
}

// Plugin is a WebAssembly module by name, with what the operator grants it.
type Plugin struct {
	Name     string
	Source   string             // as written
	Path     string             // the .wasm file to load, absolute
	SHA256   string             // lower-case hexadecimal the file must have; empty: any
	Manifest *manifest.Manifest // read from the module or the plugin.hcl beside it; never nil
	Grants   []string           // capabilities the operator consents to; every one is asked for by the manifest
	Watch    bool               // a running gateway loads its files again when the module or the manifest changes
	Limits   PluginLimits
	Fetch    PluginFetch
	Range    hcl.Range
}

// PluginLimits bound one plugin. CPU is counted in fuel, which admission makes a module use up as it runs: one unit for
// about one instruction, so that a nanosecond stands for one unit.
type PluginLimits struct {
	Memory     int64         // octets of linear memory of one instance, default 64MiB
	CPU        time.Duration // of one event, default 50ms
	CPUPerKiB  time.Duration // besides, for each begun KiB of the event's body, default 0
	Start      time.Duration // CPU of starting an instance and configuring all its stages, default 2s
	Depth      int           // calls within each other, default 4096; a large frame counts as several
	Instances  int           // at most that many at once; default 0: what Plugin.Instances says
	Queue      time.Duration // how long an event waits for an instance, default 1s
	Wait       time.Duration // wall time an event's host operations may take together, default 1s; the stage's timeout holds besides
	Operations int           // host operations of one event, default 1024
	Log        int64         // octets logged in one event, default 8KiB
}

// Instances is how many instances of the plugin there may be at once: limits.instances, or two for each CPU, or eight with the
// grant ledger. Operations of the ledger wait for the disk, and it writes together what waits together.
func (p *Plugin) Instances() int {
	switch {
	case p.Limits.Instances > 0:
		return p.Limits.Instances
	case slices.Contains(p.Grants, "ledger"):
		return 8 * runtime.GOMAXPROCS(0)
	}
	return 2 * runtime.GOMAXPROCS(0)
}

// Whole returns the limits with the defaults of those that are zero, for a Plugin that no configuration was read for.
func (l PluginLimits) Whole() PluginLimits {
	l.Memory, l.Depth = cmp.Or(l.Memory, 64<<20), cmp.Or(l.Depth, 4096)
	l.CPU, l.Start = cmp.Or(l.CPU, 50*time.Millisecond), cmp.Or(l.Start, 2*time.Second)
	l.Queue, l.Wait = cmp.Or(l.Queue, time.Second), cmp.Or(l.Wait, time.Second)
	l.Operations, l.Log = cmp.Or(l.Operations, abi.MaxOps), cmp.Or(l.Log, abi.MaxLog)
	return l
}

// PluginFetch says where a plugin with the grant fetch may send requests.
type PluginFetch struct {
	Origins    []FetchOrigin
	Upstreams  []*Upstream
	Timeout    time.Duration // the most one fetch may take, default 2s
	Concurrent int           // fetches under way at once, default 64
	Cache      int64         // octets of cached answers, default 8MiB
	Range      hcl.Range
}

// FetchOrigin is a scheme, host and port a plugin may send requests to, in the form of package origin. An address that is
// not public is dialled only when Host is that address itself, or, but for link-local ones, Private is set.
type FetchOrigin struct {
	Scheme  string // http or https
	Host    string // host:port, the port always there, lower case
	Private bool
	CA      string // PEM file with the only roots trusted, absolute; empty: the system's
}

// Upstream is where requests are forwarded.
type Upstream struct {
	Name      string
	Format    string // provider format, from builtin.go; empty: no model API
	Endpoints []Endpoint
	Protocol  string        // "http1" (default), "http2", "http3" or "auto" (ALPN; http1 in cleartext)
	Balance   string        // round_robin (default), least_request, weighted, consistent_hash
	HashOn    *expr.Program // string; what consistent_hash hashes; nil otherwise
	Headers   []UpstreamHeader
	TLS       UpstreamTLS
	Timeouts  UpstreamTimeouts
	Retry     Retry
	Health    Health
	Pool      UpstreamPool
	Overload  overload.Bounds  // of requests waiting for its answer; the zero value limits nothing
	Provider  privacy.Provider // whoever is behind it
	Range     hcl.Range
}

// Endpoint is one address of an upstream.
type Endpoint = notation.Endpoint

// UpstreamHeader is a header set on every request to an upstream, over whatever the client sent. Value may be secret
// and is never printed.
type UpstreamHeader struct {
	Name   string
	Value  string
	Secret bool
}

// UpstreamTLS protects connections to https endpoints. Certificates are always verified.
type UpstreamTLS struct {
	CA         string // PEM file with the only roots trusted, absolute; empty: the system's
	Cert, Key  string // client certificate, PEM files, absolute
	ServerName string // name to verify instead of the endpoint's host
	MinVersion uint16 // tls.VersionTLS12 (default) or tls.VersionTLS13
}

// UpstreamTimeouts bound waiting for an upstream.
type UpstreamTimeouts struct {
	Connect   time.Duration // dial and TLS handshake, default 5s
	FirstByte time.Duration // from the request sent to the response's head, default 30s
	Idle      time.Duration // between two reads or writes of a body, default 60s
	Total     time.Duration // the whole attempt, default 0: the route's timeout alone
}

// Retry says when a failed attempt is made again.
type Retry struct {
	Attempts int           // attempts in all, default 2, 1 to 10; 1 is no retry
	On       []string      // of connect (default), reset, timeout, 429, 502, 503, 504, 5xx
	Budget   float64       // retries for each request over ten seconds, default 0.2, 0 to 1
	Backoff  time.Duration // before the second attempt, doubled each time with jitter, default 25ms
}

// Health says which endpoints may be used.
type Health struct {
	Path      string        // active check: GET this path; empty: no active check
	Interval  time.Duration // between checks, default 10s
	Timeout   time.Duration // of one check, default 2s
	Healthy   int           // successes in a row to come back, default 2
	Unhealthy int           // failures in a row to go, default 3
	Failures  int           // passive check: failed exchanges in a row that eject an endpoint, default 5; 0: never
	Eject     time.Duration // how long, doubled each time to ten times that, default 10s
}

// UpstreamPool bounds connections to one endpoint.
type UpstreamPool struct {
	Connections int           // open at once, default 1024
	Idle        int           // kept idle, default 128
	IdleTimeout time.Duration // default 90s
}

// Model is a public name customers use.
type Model struct {
	Name      string
	Summary   string
	MaxOutput int64             // most output tokens a call may ask for, default 16384; told to the upstream when the client names none
	Prices    []*exchange.Price // ascending by Effective; empty: free
	Targets   []*Target         // at least one
	Range     hcl.Range
}

// Target is one upstream model that serves a public model.
type Target struct {
	Upstream *Upstream
	Model    string
	Weight   int           // default 1, 0 to 1000
	When     *expr.Program // bool; nil: always
	Range    hcl.Range
}

// Route picks policies and an upstream for a request. Exactly one of Upstream, Models, Console and Respond is set.
type Route struct {
	Name      string
	Listeners []*Listener
	Pattern   *route.Pattern
	Policies  []*Policy
	When      *expr.Program // bool; nil: always. Requests it refuses fall to the next less specific route
	Upstream  *Upstream
	Models    []*Model
	Format    string // with Models: the format the client speaks, known by the pattern's path
	Operation string // with Models: the format's operation, known by the pattern's path
	Console   bool   // the console answers
	Respond   *Respond
	Summary   string // what it is for; may be empty
	Priority  overload.Priority
	Timeout   time.Duration // the whole exchange, default 5m; 0 only for routes that upgrade
	// Durability of the intent behind a billed call: "sync" (default: on disk before the upstream is called) or "batch"
	// (within 50 ms; a power cut can lose that much).
	Durability string
	// OnDisconnect says what a client that leaves a stream pays: "bill_delivered" (default), "drain" (the upstream is
	// read to its end for exact usage) or "void".
	OnDisconnect string
	// Replay is how long the reply to a model call with an idempotency key is kept, default 24h; 0: such keys are ignored.
	Replay    time.Duration
	Creations *Creations // nil: replies are not kept for their callers
	Range     hcl.Range
}

// Creations says how replies are kept for their callers.
type Creations struct {
	Keep    time.Duration
	Item    int64 // octets of one, default 16 MiB
	Account int64 // octets of all of an account, default 1 GiB
}

// Respond is a fixed answer.
type Respond struct {
	Status  int
	Headers exchange.Header
	Body    string
}

// Policy is a named, ordered list of stages.
type Policy struct {
	Name    string
	Summary string
	Stages  []*Stage
	Range   hcl.Range
}

// Stage is one use of a plugin, or a require, at one phase.
type Stage struct {
	Phase   exchange.Phase
	Policy  string   // the policy's name
	Plugin  *Plugin  // nil: a require
	Require *Require // nil: a plugin stage
	Hook    *manifest.Hook
	When    *expr.Program // bool; nil: always
	Timeout time.Duration // wall time of the stage, default 1s; 0 with a require
	Allow   bool          // on_error = allow: a fault of the plugin lets the request pass. Otherwise it is denied
	// Config is what postern_configure receives: the config block's load-time arguments and defaults, an object.
	Config cty.Value
	// Arguments are the hook's per-request arguments in the manifest's order; a constant one is compiled too, and
	// one that is not set and has no default is nil.
	Arguments []*expr.Program
	Range     hcl.Range
}

// Require denies a request whose condition does not hold. It runs at the earliest phase at which every name its
// condition uses is known, and never before authorize.
type Require struct {
	Name      string
	Condition *expr.Program // bool
	Status    int           // default 403, 400 to 599
	Message   string        // shown to the caller
}

// Test is one case of `postern test`: a request, and what must come of it.
type Test struct {
	Name    string
	Route   *Route
	Request TestRequest
	Expect  TestExpect
	Range   hcl.Range
}

// TestRequest is the request a test sends, and the world it meets.
type TestRequest struct {
	Method  string // default: the method of the route's pattern, else GET
	Path    string // with query; default: the route's pattern, which must then have no wildcard
	Headers exchange.Header
	Body    string
	Remote  netip.Addr // default 127.0.0.1
	Account string     // authenticates as this account (authenticate stages are skipped); empty: they run
	Scopes  []string
	Balance exchange.Amount // what the account has, default 1000
	Reply   *Respond        // what the upstream answers, default 200 with an empty JSON object
}

// TestExpect is what must come of a test's request. Zero values are not checked.
type TestExpect struct {
	Status   int
	Stage    string          // "policy.name phase plugin" or "policy.name require name" that answered
	Headers  exchange.Header // fields of the reply
	Body     string          // text the reply's body holds
	Upstream *TestUpstream
}

// TestUpstream is what must have reached the upstream.
type TestUpstream struct {
	Called  bool // default true
	Name    string
	Headers exchange.Header
	Without []string // header names that must not have reached it
	Body    string   // text its request body holds
	Lacks   string   // text its request body must not hold
}

// RoutesOf returns the routes of a listener in the order in which a table takes them: of those that match the same
// requests, one with a condition stands before one without.
func (c *Config) RoutesOf(listener string) []*Route {
	var conditional, plain []*Route
	for _, r := range c.Routes {
		if !slices.ContainsFunc(r.Listeners, func(l *Listener) bool { return l.Name == listener }) {
			continue
		}
		if r.When != nil {
			conditional = append(conditional, r)
		} else {
			plain = append(plain, r)
		}
	}
	return append(conditional, plain...)
}

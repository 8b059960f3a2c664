package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/route"
	"github.com/postern-gateway/postern/gateway/server"
	"github.com/postern-gateway/postern/gateway/telemetry"
)

type testCommand struct {
	Dir   string            `arg:"" optional:"" default:"." help:"Folder with config.hcl; by default the current one." type:"existingdir"`
	Var   map[string]string `help:"Value of a variable block; repeatable. Otherwise it is read from POSTERN_VAR_NAME." placeholder:"NAME=VALUE"`
	Match string            `name:"run" help:"Run only tests whose name matches this regular expression."`
	Fuel  bool              `help:"Show the CPU that plugins used for each test, in units of about one instruction."`
}

// testTime bounds one test.
const testTime = 30 * time.Second

// Run sends every test's request through the real server, with the store in memory and every upstream played by a recorder
// on loopback, and compares what came of it. It opens none of the configuration's sockets and calls nobody.
func (c *testCommand) Run(a *App) (err error) {
	pick, err := regexp.Compile(c.Match)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	cfg, err := a.Load(c.Dir, config.Options{Variables: c.Var, Modules: true})
	if err != nil {
		return err
	}
	if len(cfg.Tests) == 0 {
		return errors.New("there are no tests: write them in policies/*_test.hcl")
	}
	up, err := newRecorder()
	if err != nil {
		return err
	}
	defer up.close()
	for _, u := range cfg.Upstreams {
		up.play(u)
	}
	cache := cfg.State.Dir
	cfg.State = config.State{Backend: "memory", Arguments: cty.EmptyObjectVal, Dir: cache, Range: cfg.State.Range}
	cfg.Listeners, cfg.Admin = nil, nil
	t, err := telemetry.New(a.Context, telemetry.Config{})
	if err != nil {
		return err
	}
	ops := new(operations)
	s, err := server.New(a.Context, server.Config{Backends: backends(), Formats: formats(), ABIs: abis(), Child: a.Child, Telemetry: t, Console: ops.open(cfg, t, nil, nil)}, cfg)
	if err != nil {
		ops.close()
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), testTime)
		defer cancel()
		err = errors.Join(err, s.Shutdown(ctx))
	}()
	defer ops.close()
	passed, failed := 0, 0
	for _, test := range cfg.Tests {
		if !pick.MatchString(test.Name) {
			continue
		}
		wrong, fuel, err := runTest(a.Context, s, up, test)
		if err != nil {
			return fmt.Errorf("%s: test %s: %w", test.Range, test.Name, err)
		}
		if len(wrong) == 0 {
			passed++
			fmt.Fprintf(a.Stdout, "ok    %s%s\n", test.Name, used(c.Fuel, fuel))
			continue
		}
		failed++
		fmt.Fprintf(a.Stdout, "FAIL  %s  (%s)\n", test.Name, test.Range)
		for _, w := range wrong {
			fmt.Fprintf(a.Stdout, "      %s\n", w)
		}
	}
	fmt.Fprintf(a.Stdout, "%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return errTold
	}
	return nil
}

// used shows fuel where it was asked for.
func used(asked bool, fuel int64) string {
	if !asked {
		return ""
	}
	return fmt.Sprintf("  (fuel %d)", fuel)
}

// runTest sends one request and says what is not as expected, and the fuel that plugins used.
func runTest(ctx context.Context, s *server.Server, up *recorder, test *config.Test) (wrong []string, fuel int64, err error) {
	q := &test.Request
	ctx, cancel := context.WithTimeout(ctx, testTime)
	defer cancel()
	pattern := test.Route.Pattern
	target, err := url.ParseRequestURI(cmp.Or(q.Path, pattern.Path()))
	if err != nil {
		return nil, 0, err
	}
	path, err := route.Canonical(target.EscapedPath())
	if err != nil {
		return nil, 0, err
	}
	reply := &heldReply{}
	remote := q.Remote
	if !remote.IsValid() {
		remote = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	x := &exchange.Exchange{ID: "test", Start: time.Now(), Listener: test.Route.Listeners[0].Name, Reply: reply}
	x.Request = exchange.Request{
		Protocol: exchange.HTTP2, Method: cmp.Or(q.Method, pattern.Method(), "GET"), Scheme: "https", Authority: cmp.Or(pattern.Host(), "localhost"),
		Path: path, Query: target.RawQuery, Header: q.Headers.Clone(), Body: exchange.NewBytes([]byte(q.Body)), Length: int64(len(q.Body)),
		Remote: netip.AddrPortFrom(remote, 1),
	}
	if q.Account != "" {
		x.Identity = exchange.Identity{Account: q.Account, Key: "test", Name: "test", Scopes: q.Scopes}
		if err := fund(ctx, s, q.Account, q.Balance); err != nil {
			return nil, 0, err
		}
	}
	up.reset(q.Reply)
	s.Serve(ctx, x)

	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	e := &test.Expect
	if e.Status != 0 && reply.status != e.Status {
		say("status is %d, expected %d", reply.status, e.Status)
	}
	if x.Route != test.Route.Name {
		say("the request went by route %q, not %q", x.Route, test.Route.Name)
	}
	if e.Stage != "" && x.Answered != e.Stage {
		say("answered by %q, expected %q", x.Answered, e.Stage)
	}
	compareHeaders(e.Headers, reply.header, "reply", say)
	if !strings.Contains(reply.body.String(), e.Body) {
		say("the reply's body does not hold %q:\n%s", e.Body, clip(reply.body.String()))
	}
	if u := e.Upstream; u != nil {
		compareUpstream(u, up.seen(), say)
	}
	if len(wrong) > 0 && x.Problem != nil {
		say("the gateway answered %s: %s %s", x.Problem.Code, x.Problem.Title, x.Problem.Detail)
	}
	return wrong, x.Fuel, nil
}

// fund gives a test's account what it is to have, whatever tests before it left.
func fund(ctx context.Context, s *server.Server, account string, want exchange.Amount) error {
	l := s.Storage().Ledger
	if err := l.OpenAccount(ctx, account); err != nil {
		return err
	}
	b, err := l.Balance(ctx, account)
	if err != nil {
		return err
	}
	if diff := want.Sub(b.Available); diff.Sign() != 0 {
		_, err = l.Adjust(ctx, account, diff, "test-"+fmt.Sprint(time.Now().UnixNano()), "what the test begins with")
	}
	return err
}

func compareHeaders(want, got exchange.Header, of string, say func(string, ...any)) {
	for _, f := range want {
		if v, ok := got.Lookup(f.Name); !ok {
			say("the %s has no header %s, expected %q", of, f.Name, f.Value)
		} else if v != f.Value {
			say("header %s of the %s is %q, expected %q", f.Name, of, v, f.Value)
		}
	}
}

func compareUpstream(want *config.TestUpstream, got *received, say func(string, ...any)) {
	if got == nil {
		if want.Called {
			say("no upstream was called")
		}
		return
	}
	if !want.Called {
		say("upstream %q was called, and was not to be", got.upstream)
		return
	}
	if want.Name != "" && got.upstream != want.Name {
		say("upstream %q was called, expected %q", got.upstream, want.Name)
	}
	compareHeaders(want.Headers, got.header, "request to the upstream", say)
	for _, name := range want.Without {
		if v, ok := got.header.Lookup(name); ok {
			say("header %s reached the upstream: %q", name, v)
		}
	}
	if !strings.Contains(got.body, want.Body) {
		say("the body that reached the upstream does not hold %q:\n%s", want.Body, clip(got.body))
	}
	if want.Lacks != "" && strings.Contains(got.body, want.Lacks) {
		say("%q reached the upstream:\n%s", want.Lacks, clip(got.body))
	}
}

func clip(s string) string {
	if len(s) > 2000 {
		return s[:2000] + "..."
	}
	return s
}

// recorder plays every upstream: it keeps the last request and answers what the test says.
type recorder struct {
	server *http.Server
	base   string
	done   chan struct{}

	mu    sync.Mutex
	reply *config.Respond
	last  *received
}

// received is a request that reached an upstream.
type received struct {
	upstream string
	header   exchange.Header
	body     string
}

func newRecorder() (*recorder, error) {
	var lc net.ListenConfig
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("play the upstreams: %w", err)
	}
	r := &recorder{base: "http://" + l.Addr().String() + "/", done: make(chan struct{})}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: testTime}
	go func() {
		defer close(r.done)
		_ = r.server.Serve(l) // ends with close
	}()
	return r, nil
}

func (r *recorder) close() {
	_ = r.server.Close() // nobody waits for its answers
	<-r.done
}

// play makes an upstream of the configuration point here.
func (r *recorder) play(u *config.Upstream) {
	at, err := url.Parse(r.base + url.PathEscape(u.Name))
	if err != nil {
		panic(err) // made of a host and an escaped name
	}
	u.Endpoints = []config.Endpoint{{URL: at, Weight: 1}}
	u.Protocol, u.TLS, u.Health.Path = "http1", config.UpstreamTLS{}, ""
}

func (r *recorder) reset(reply *config.Respond) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reply == nil {
		reply = &config.Respond{Status: http.StatusOK, Headers: exchange.Header{{Name: "content-type", Value: "application/json"}}, Body: "{}"}
	}
	r.reply, r.last = reply, nil
}

func (r *recorder) seen() *received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// ServeHTTP keeps the request and gives the test's reply.
func (r *recorder) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(io.LimitReader(q.Body, 64<<20))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(q.URL.Path, "/"), "/")
	got := &received{upstream: name, body: string(body)}
	for k, values := range q.Header {
		for _, v := range values {
			got.header.Add(strings.ToLower(k), v)
		}
	}
	r.mu.Lock()
	r.last = got
	reply := r.reply
	r.mu.Unlock()
	for _, f := range reply.Headers {
		w.Header().Add(f.Name, f.Value)
	}
	w.WriteHeader(reply.Status)
	_, _ = io.WriteString(w, reply.Body) // the gateway may have gone, which the test then sees
}

// heldReply keeps what the client would have got.
type heldReply struct {
	status  int
	header  exchange.Header
	body    bytes.Buffer
	aborted bool
}

func (*heldReply) Interim(int, exchange.Header) error { return nil }
func (r *heldReply) Head(status int, h exchange.Header, _ int64) error {
	r.status, r.header = status, h.Clone()
	return nil
}
func (r *heldReply) Write(p []byte) (int, error) { return r.body.Write(p) }
func (*heldReply) Flush() error                  { return nil }
func (*heldReply) End(exchange.Header) error     { return nil }
func (*heldReply) Upgrade(exchange.Header) (io.ReadWriteCloser, error) {
	return nil, exchange.ErrNoUpgrade
}
func (r *heldReply) Abort() { r.aborted = true }

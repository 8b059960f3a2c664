package policy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/telemetry"
	"github.com/postern-gateway/postern/sdk/abi"
)

// guest stands in for a plugin: a function of the event.
type guest func(ev *plugin.Event, res *plugin.Result) error

func (g guest) Call(_ context.Context, ev *plugin.Event, res *plugin.Result) error {
	if ev.Until().IsZero() {
		return errors.New("no deadline")
	}
	res.Reset()
	if err := g(ev, res); err != nil {
		return err
	}
	return res.Check(ev, exchange.Phase(ev.Stage), "guest")
}

func op(code abi.Op, key, value string) plugin.Op {
	return plugin.Op{Code: code, Key: []byte(key), Value: []byte(value)}
}

func respond(status uint16, code, detail string) plugin.Op {
	return plugin.Op{Code: abi.OpRespond, Key: []byte(code), Value: append(binary.LittleEndian.AppendUint16(nil, status), detail...)}
}

func text(s string) string { return string(abi.AppendString(nil, s)) }

// use is one stage of a test's chain.
type use struct {
	phase   exchange.Phase
	body    manifest.Body
	allow   bool
	answers bool
	run     guest
}

func chainOf(t *testing.T, uses ...use) *Chain {
	t.Helper()
	p := &config.Plugin{Name: "guest"}
	pol := &config.Policy{Name: "p"}
	guests := map[*config.Stage]guest{}
	for _, u := range uses {
		s := &config.Stage{Phase: u.phase, Policy: "p", Plugin: p, Timeout: time.Second, Allow: u.allow,
			Hook: &manifest.Hook{Phase: u.phase, Sees: manifest.Sees{Body: u.body}, Answers: u.answers}}
		guests[s] = u.run
		pol.Stages = append(pol.Stages, s)
	}
	tel, err := telemetry.New(t.Context(), telemetry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return New(Config{
		Route:   &config.Route{Name: "r", Policies: []*config.Policy{pol}},
		Bind:    func(s *config.Stage) (Caller, int) { return guests[s], int(s.Phase) },
		Metrics: tel.Metrics,
		Log:     slog.New(slog.DiscardHandler),
	})
}

func newExchange(body string) *exchange.Exchange {
	x := &exchange.Exchange{ID: "x"}
	x.Request = exchange.Request{Method: "POST", Path: "/", Body: exchange.NewBytes([]byte(body)), Length: int64(len(body))}
	return x
}

func known(account string) guest {
	return func(_ *plugin.Event, res *plugin.Result) error {
		res.Ops = append(res.Ops, op(abi.OpAttribute, "identity.account", text(account)))
		return nil
	}
}

func refuse(code string) guest {
	return func(_ *plugin.Event, res *plugin.Result) error {
		res.Action = abi.ActionRespond
		res.Ops = append(res.Ops, respond(401, code, ""))
		return nil
	}
}

func done(_ *plugin.Event, res *plugin.Result) error {
	res.Action = abi.ActionDone
	return nil
}

func preflight(_ *plugin.Event, res *plugin.Result) error {
	res.Action = abi.ActionRespond
	res.Ops = append(res.Ops, respond(204, "preflight", ""), op(abi.OpRespondBody, "text/plain", ""))
	return nil
}

func trap(*plugin.Event, *plugin.Result) error {
	return &plugin.Fault{Plugin: "guest", Kind: plugin.Trap, Detail: "unreachable"}
}

func nothing(*plugin.Event, *plugin.Result) error { return nil }

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	at := func(g guest, allow bool) use { return use{phase: exchange.Authenticate, run: g, allow: allow} }
	for _, c := range []struct {
		name    string
		uses    []use
		account string
		code    string
		status  int
	}{
		{name: "no stage lets anyone in"},
		{name: "first identity wins", uses: []use{at(known("a"), false), at(known("b"), false)}, account: "a"},
		{name: "alternatives", uses: []use{at(refuse("no_key"), false), at(known("b"), false)}, account: "b"},
		{name: "the first answer is given", uses: []use{at(refuse("no_key"), false), at(refuse("no_token"), false)}, code: "no_key", status: 401},
		{name: "silence is not an identity", uses: []use{at(nothing, false)}, code: "unauthenticated", status: 401},
		{name: "a fault denies", uses: []use{at(trap, false)}, code: "policy_failed", status: 500},
		{name: "a fault that is allowed is still no identity", uses: []use{at(trap, true)}, code: "unauthenticated", status: 401},
		{name: "whoever is done is no way in", uses: []use{at(done, false)}},
		{name: "and leaves the others theirs", uses: []use{at(done, false), at(refuse("no_key"), false)}, code: "no_key", status: 401},
		{name: "also those that are silent", uses: []use{at(done, false), at(nothing, false)}, code: "unauthenticated", status: 401},
		{name: "an answer that is no refusal is given at once", uses: []use{at(refuse("no_key"), false), at(preflight, false), at(known("a"), false)}, code: "preflight", status: 204},
		{name: "a fault leaves the alternatives", uses: []use{at(trap, false), at(known("b"), false)}, account: "b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newExchange("")
			p := chainOf(t, c.uses...).Start(x, 1<<20).Phase(t.Context(), exchange.Authenticate)
			if (p == nil) != (c.code == "") || p != nil && (p.Code != c.code || p.Status != c.status) {
				t.Fatalf("problem %+v, want %d %s", p, c.status, c.code)
			}
			if x.Identity.Account != c.account {
				t.Fatalf("account %q, want %q", x.Identity.Account, c.account)
			}
		})
	}
}

// TestFaultChangesNothing: what a stage said before its result turned out broken is not done either.
func TestFaultChangesNothing(t *testing.T) {
	t.Parallel()
	broken := func(_ *plugin.Event, res *plugin.Result) error {
		res.Ops = append(res.Ops, op(abi.OpHeaderSet, "x-a", "1"), op(abi.OpCarry, "", "memory"), op(abi.OpHeaderSet, "Bad Name", "1"))
		return nil
	}
	for _, allow := range []bool{false, true} {
		x := newExchange("body")
		run := chainOf(t, use{phase: exchange.RequestPhase, run: broken, allow: allow, body: manifest.Body{Mode: manifest.BodyBuffer, Max: 100}}).Start(x, 1<<20)
		p := run.Phase(t.Context(), exchange.RequestPhase)
		if (p == nil) != allow {
			t.Errorf("allow %v: %+v", allow, p)
		}
		if len(x.Request.Header) != 0 || run.carries != nil {
			t.Errorf("allow %v: a broken result left %v, %q", allow, x.Request.Header, run.carries)
		}
		if b, err := io.ReadAll(x.Request.Body); err != nil || string(b) != "body" {
			t.Errorf("allow %v: body %q, %v", allow, b, err)
		}
	}
}

func TestAnswerStopsThePhase(t *testing.T) {
	t.Parallel()
	ran := false
	x := newExchange("")
	run := chainOf(t,
		use{phase: exchange.Admit, run: func(_ *plugin.Event, res *plugin.Result) error {
			res.Action = abi.ActionRespond
			res.Ops = append(res.Ops, respond(429, "rate_limited", "slow down"), op(abi.OpHeaderSet, "retry-after", "7"), op(abi.OpHeaderSet, "x-left", "0"))
			return nil
		}},
		use{phase: exchange.Admit, run: func(*plugin.Event, *plugin.Result) error { ran = true; return nil }},
	).Start(x, 0)
	p := run.Phase(t.Context(), exchange.Admit)
	if p == nil || p.Status != 429 || p.Code != "rate_limited" || p.Detail != "slow down" || p.Retry != 7*time.Second || p.Header.Get("x-left") != "0" {
		t.Fatalf("%+v", p)
	}
	if ran || x.Answered != "policy.p admit guest" || len(x.Request.Header) != 0 {
		t.Fatalf("ran %v, answered %q, request %v", ran, x.Answered, x.Request.Header)
	}
}

func TestWholeBody(t *testing.T) {
	t.Parallel()
	shout := func(ev *plugin.Event, res *plugin.Result) error {
		if !ev.HasBody || !ev.End {
			return errors.New("no body")
		}
		res.Ops = append(res.Ops, plugin.Op{Code: abi.OpBodyReplace, Value: bytes.ToUpper(ev.Body)})
		return nil
	}
	cut := func(ev *plugin.Event, res *plugin.Result) error {
		v := binary.LittleEndian.AppendUint32(nil, 0)
		v = binary.LittleEndian.AppendUint32(v, 1)
		w := binary.LittleEndian.AppendUint32(nil, uint32(len(ev.Body)))
		w = binary.LittleEndian.AppendUint32(w, 0)
		res.Ops = append(res.Ops, plugin.Op{Code: abi.OpBodySplice, Value: append(v, "J"...)}, plugin.Op{Code: abi.OpBodySplice, Value: append(w, "!"...)})
		return nil
	}
	b := manifest.Body{Mode: manifest.BodyBuffer, Max: 10}
	x := newExchange("hello")
	run := chainOf(t, use{phase: exchange.RequestPhase, body: b, run: shout}, use{phase: exchange.RequestPhase, body: b, run: cut}).Start(x, 1<<20)
	if p := run.Phase(t.Context(), exchange.RequestPhase); p != nil {
		t.Fatal(p)
	}
	if got, _ := io.ReadAll(x.Request.Body); string(got) != "JELLO!" || x.Request.Length != 6 {
		t.Fatalf("%q, length %d", got, x.Request.Length)
	}

	t.Run("truncated", func(t *testing.T) {
		x := newExchange("hello, world")
		seen := ""
		run := chainOf(t, use{phase: exchange.RequestPhase, body: b, run: func(ev *plugin.Event, _ *plugin.Result) error {
			if !ev.Truncated || ev.End {
				return errors.New("not told")
			}
			seen = string(ev.Body)
			return nil
		}}).Start(x, 1<<20)
		if p := run.Phase(t.Context(), exchange.RequestPhase); p != nil || seen != "hello, wor" {
			t.Fatal(p, seen)
		}
		if got, _ := io.ReadAll(x.Request.Body); string(got) != "hello, world" {
			t.Fatalf("%q", got)
		}
	})
	t.Run("over the listener's limit", func(t *testing.T) {
		run := chainOf(t, use{phase: exchange.RequestPhase, body: b, run: shout}).Start(newExchange("hello"), 4)
		if p := run.Phase(t.Context(), exchange.RequestPhase); p == nil || p.Status != 413 {
			t.Fatal(p)
		}
	})
}

// TestStreams takes bodies through a stage chunk by chunk, both ways at once.
func TestStreams(t *testing.T) {
	t.Parallel()
	rot := func(ev *plugin.Event, res *plugin.Result) error {
		if ev.Kind != abi.EventRequestBody && ev.Kind != abi.EventResponseBody {
			return nil
		}
		out := bytes.Map(func(r rune) rune { return r + 1 }, ev.Body)
		if ev.End {
			out = append(out, '.')
		}
		res.Ops = append(res.Ops, plugin.Op{Code: abi.OpBodyReplace, Value: out}, op(abi.OpCarry, "", string(ev.Carry)+"c"))
		return nil
	}
	b := manifest.Body{Mode: manifest.BodyStream}
	chain := chainOf(t, use{phase: exchange.RequestPhase, body: b, run: rot}, use{phase: exchange.ResponsePhase, body: b, run: rot})
	big := strings.Repeat("HAL", 40_000)
	x := newExchange(big)
	run := chain.Start(x, 0) // streaming holds nothing
	if p := run.Phase(t.Context(), exchange.RequestPhase); p != nil {
		t.Fatal(p)
	}
	x.Response = exchange.Response{Status: 200}
	var wg sync.WaitGroup
	var up []byte
	wg.Go(func() { up, _ = io.ReadAll(x.Request.Body) })
	f, p := run.Response(t.Context())
	if p != nil || f == nil || f.Events() {
		t.Fatal(p, f)
	}
	var down []byte
	for i := range 10 {
		var err error
		if down, err = f.Filter(t.Context(), down, []byte("HAL"), i == 9); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if want := strings.Repeat("IBM", 40_000) + "."; string(up) != want {
		t.Errorf("uploaded %d octets, want %d", len(up), len(want))
	}
	if want := strings.Repeat("IBM", 10) + "."; string(down) != want {
		t.Errorf("%q", down)
	}
	if len(run.carries) != 1 || len(run.carries[0]) < 10 {
		t.Errorf("the two stages do not share what was carried: %q", run.carries)
	}
}

// TestEvents: a stage sees whole events of whatever the forwarder takes for an event stream, and nothing else in events.
func TestEvents(t *testing.T) {
	t.Parallel()
	chain := chainOf(t, use{phase: exchange.ResponsePhase, body: manifest.Body{Mode: manifest.BodyEvents}, run: nothing})
	for value, want := range map[string]bool{
		"text/event-stream": true, "text/event-stream; charset=utf-8": true, "Text/Event-Stream ;charset=utf-8": true,
		"application/json": false, "": false,
	} {
		x := newExchange("")
		x.Response = exchange.Response{Status: 200, Header: exchange.Header{{Name: "content-type", Value: value}}}
		f, p := chain.Start(x, 0).Response(t.Context())
		if p != nil || f == nil || f.Events() != want {
			t.Errorf("%q: %v, %v, want events %t", value, f, p, want)
		}
	}
}

func TestDoneIsNotCalledAgain(t *testing.T) {
	t.Parallel()
	calls := 0
	x := newExchange("")
	chain := chainOf(t, use{phase: exchange.ResponsePhase, body: manifest.Body{Mode: manifest.BodyStream}, run: func(_ *plugin.Event, res *plugin.Result) error {
		calls++
		res.Action = abi.ActionDone
		return nil
	}})
	f, p := chain.Start(x, 0).Response(t.Context())
	if p != nil || f != nil || calls != 1 {
		t.Fatalf("%v %v, %d calls", f, p, calls)
	}
}

// TestAccountRunsAll: one stage's failure does not keep the others from settling.
func TestAccountRunsAll(t *testing.T) {
	t.Parallel()
	var order []string
	note := func(name string, g guest) guest {
		return func(ev *plugin.Event, res *plugin.Result) error {
			if !ev.Gone {
				return errors.New("not told that the client has gone")
			}
			order = append(order, name)
			return g(ev, res)
		}
	}
	at := func(name string, g guest) use { return use{phase: exchange.AccountPhase, run: note(name, g)} }
	chainOf(t, at("a", trap), at("b", nothing), at("c", trap)).Start(newExchange(""), 0).Account(t.Context(), true)
	if !slices.Equal(order, []string{"a", "b", "c"}) {
		t.Fatal(order)
	}
}

func TestBusyIsToldApart(t *testing.T) {
	t.Parallel()
	busy := func(*plugin.Event, *plugin.Result) error { return &plugin.Fault{Kind: plugin.Busy} }
	p := chainOf(t, use{phase: exchange.Admit, run: busy}).Start(newExchange(""), 0).Phase(t.Context(), exchange.Admit)
	if p == nil || p.Status != 503 || p.Retry == 0 {
		t.Fatalf("%+v", p)
	}
}

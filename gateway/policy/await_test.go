package policy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/fetch"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/sdk/abi"
)

// service answers fetches in its place.
type service func(ctx context.Context, calls []fetch.Call) ([]fetch.Answer, error)

func (s service) Do(ctx context.Context, calls []fetch.Call) (*fetch.Answers, error) {
	list, err := s(ctx, calls)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(calls))
	for i := range calls {
		names[i] = calls[i].Name
	}
	return &fetch.Answers{Value: fetch.Append(nil, names, list)}, nil
}

// say answers every fetch with 200 and a text.
func say(text string) service {
	return func(_ context.Context, calls []fetch.Call) ([]fetch.Answer, error) {
		list := make([]fetch.Answer, len(calls))
		for i := range list {
			list[i] = fetch.Answer{Status: 200, Body: []byte(text)}
		}
		return list, nil
	}
}

// asking makes a chain whose stages ask f.
func asking(t *testing.T, f Fetcher, uses ...use) *Chain {
	t.Helper()
	c := chainOf(t, uses...)
	for _, list := range c.phases {
		for _, s := range list {
			s.fetcher = f
		}
	}
	return c
}

func ask(name string, members ...string) plugin.Op {
	b := abi.AppendObject(nil, len(members)/2)
	for i := 0; i < len(members); i += 2 {
		b = abi.AppendString(abi.AppendKey(b, members[i]), members[i+1])
	}
	return plugin.Op{Code: abi.OpFetch, Key: []byte(name), Value: b}
}

func await(res *plugin.Result, ops ...plugin.Op) error {
	res.Action = abi.ActionAwait
	res.Ops = append(res.Ops, ops...)
	return nil
}

// answer is the text, or the error, of a fetch.
func answer(ev *plugin.Event, name string) string {
	v, _, _ := abi.ReadValue(ev.Body)
	a := v.Member(name)
	return a.Member("error").Text() + a.Member("body").Text()
}

func TestAwait(t *testing.T) {
	t.Parallel()
	// Asks twice, one after the other, and says in a header what it got; what it carried comes back each time.
	twice := func(ev *plugin.Event, res *plugin.Result) error {
		switch {
		case ev.Kind != abi.EventFetched && ev.Awaited == 0:
			return await(res, ask("a", "url", "http://a"), ask("b", "url", "http://b"), op(abi.OpCarry, "", "1"))
		case ev.Awaited == 1 && string(ev.Carry) == "1" && ev.Kind == abi.EventFetched && ev.HasBody && !ev.End:
			return await(res, ask("c", "url", "http://c"), op(abi.OpCarry, "", "2"+answer(ev, "a")+answer(ev, "b")))
		}
		if ev.Kind == abi.EventAccount || ev.Stage == int(exchange.AccountPhase) {
			res.Ops = append(res.Ops, op(abi.OpAttribute, "self.got", text(string(ev.Carry)+answer(ev, "c"))))
			return nil
		}
		res.Ops = append(res.Ops, op(abi.OpHeaderSet, "x-got", string(ev.Carry)+answer(ev, "c")))
		return nil
	}
	var asked []string
	f := service(func(_ context.Context, calls []fetch.Call) ([]fetch.Answer, error) {
		var list []fetch.Answer
		for _, c := range calls {
			r, err := fetch.Read(c.Value)
			if err != nil {
				t.Error(err)
				return nil, err
			}
			asked = append(asked, r.Origin)
			list = append(list, fetch.Answer{Status: 200, Body: []byte(r.URL.Host)})
		}
		return list, nil
	})
	for _, phase := range []exchange.Phase{exchange.Authorize, exchange.Admit, exchange.Route, exchange.RequestPhase, exchange.ResponsePhase, exchange.AccountPhase} {
		asked = nil
		x := newExchange("hello")
		run := asking(t, f, use{phase: phase, run: twice}).Start(x, 0)
		header := &x.Request.Header
		switch phase {
		case exchange.ResponsePhase:
			x.Response.Status, header = 200, &x.Response.Header
			if _, p := run.Response(t.Context()); p != nil {
				t.Error(phase, p)
			}
		case exchange.AccountPhase:
			run.Account(t.Context(), true)
			got, _ := x.Attribute("guest.got")
			header = &exchange.Header{{Name: "x-got", Value: got}}
		default:
			if p := run.Phase(t.Context(), phase); p != nil {
				t.Error(phase, p)
			}
		}
		if got := header.Get("x-got"); got != "2abc" || strings.Join(asked, " ") != "http://a:80 http://b:80 http://c:80" {
			t.Errorf("%s: %q, asked %q", phase, got, asked)
		}
		if b, _ := io.ReadAll(x.Request.Body); string(b) != "hello" {
			t.Errorf("%s: body %q", phase, b)
		}
	}
}

// Each authenticate stage may ask whom it trusts; the first identity wins, and an answer after an await is one like any other.
func TestAwaitIdentity(t *testing.T) {
	t.Parallel()
	at := func(result func(got string, res *plugin.Result)) use {
		return use{phase: exchange.Authenticate, run: func(ev *plugin.Event, res *plugin.Result) error {
			if ev.Kind == abi.EventRequest {
				return await(res, ask("who", "url", "http://a"))
			}
			result(answer(ev, "who"), res)
			return nil
		}}
	}
	no := at(func(_ string, res *plugin.Result) {
		res.Action = abi.ActionRespond
		res.Ops = append(res.Ops, respond(401, "no_token", ""))
	})
	yes := at(func(got string, res *plugin.Result) {
		res.Ops = append(res.Ops, op(abi.OpAttribute, "identity.account", text(got)))
	})
	never := at(func(string, *plugin.Result) { t.Error("asked after an identity was found") })
	x := newExchange("")
	if p := asking(t, say("acme"), no, yes, never).Start(x, 0).Phase(t.Context(), exchange.Authenticate); p != nil || x.Identity.Account != "acme" {
		t.Errorf("%v, %q", p, x.Identity.Account)
	}
	x = newExchange("")
	if p := asking(t, say("acme"), no).Start(x, 0).Phase(t.Context(), exchange.Authenticate); p == nil || p.Code != "no_token" || x.Answered == "" {
		t.Errorf("%v", p)
	}
}

// A guest that only ever awaits is stopped, and nobody is let through for it.
func TestAwaitForEver(t *testing.T) {
	t.Parallel()
	rounds := 0
	run := asking(t, say(""), use{phase: exchange.Admit, run: func(_ *plugin.Event, res *plugin.Result) error {
		rounds++
		return await(res, ask("a", "url", "http://a"))
	}}).Start(newExchange(""), 0)
	if p := run.Phase(t.Context(), exchange.Admit); p == nil || p.Code != "policy_failed" || rounds != 1+abi.MaxAwaits {
		t.Errorf("%v after %d calls", p, rounds)
	}
}

// A fault after an await has changed nothing but what was carried and metered before.
func TestAwaitThenFault(t *testing.T) {
	t.Parallel()
	for _, allow := range []bool{false, true} {
		x := newExchange("body")
		run := asking(t, say(""), use{phase: exchange.Admit, allow: allow, run: func(ev *plugin.Event, res *plugin.Result) error {
			if ev.Kind == abi.EventRequest {
				return await(res, ask("a", "url", "http://a"), op(abi.OpCarry, "", "kept"))
			}
			res.Ops = append(res.Ops, op(abi.OpHeaderSet, "x-a", "b"), op(abi.OpBodyReplace, "", "no"))
			return nil
		}}).Start(x, 0)
		if p := run.Phase(t.Context(), exchange.Admit); (p == nil) != allow {
			t.Errorf("allow %v: %v", allow, p)
		}
		if b, _ := io.ReadAll(x.Request.Body); len(x.Request.Header) != 0 || string(run.carries[0]) != "kept" || string(b) != "body" {
			t.Errorf("allow %v: %v, %q, %q", allow, x.Request.Header, run.carries[0], b)
		}
	}
}

// Without anyone to make them, fetches are denied, and the plugin is told so.
func TestAwaitDenied(t *testing.T) {
	t.Parallel()
	got := ""
	run := chainOf(t, use{phase: exchange.Admit, run: func(ev *plugin.Event, res *plugin.Result) error {
		if ev.Kind == abi.EventRequest {
			return await(res, ask("a", "url", "http://a"))
		}
		got = answer(ev, "a")
		return nil
	}}).Start(newExchange(""), 0)
	if p := run.Phase(t.Context(), exchange.Admit); p != nil || got != abi.FetchDenied {
		t.Errorf("%v, %q", p, got)
	}
}

// When the client goes there is no more to do: no event follows, and on_error has no say.
func TestAwaitGone(t *testing.T) {
	t.Parallel()
	calls := 0
	ctx, cancel := context.WithCancel(t.Context())
	f := service(func(ctx context.Context, _ []fetch.Call) ([]fetch.Answer, error) {
		cancel()
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
	ran := false
	run := asking(t, f,
		use{phase: exchange.Admit, allow: true, run: func(_ *plugin.Event, res *plugin.Result) error {
			calls++
			return await(res, ask("a", "url", "http://a"))
		}},
		use{phase: exchange.Admit, run: func(*plugin.Event, *plugin.Result) error { ran = true; return nil }},
	).Start(newExchange(""), 0)
	if p := run.Phase(ctx, exchange.Admit); p == nil || p.Code != "client_gone" || calls != 1 || ran {
		t.Errorf("%v, %d calls, and the next stage ran: %v", p, calls, ran)
	}
}

// The stage's timeout is for all it awaits together: the fetch is told when it is over, the stage may say what becomes of
// that, and may not begin again.
func TestAwaitTimeout(t *testing.T) {
	t.Parallel()
	f := service(func(ctx context.Context, calls []fetch.Call) ([]fetch.Answer, error) {
		at, ok := ctx.Deadline()
		if left := time.Until(at); !ok || left > 50*time.Millisecond {
			return nil, errors.New("no deadline")
		}
		over, cancel := context.WithDeadline(ctx, at)
		defer cancel()
		<-over.Done()
		return []fetch.Answer{{Error: abi.FetchTimeout}}, nil
	})
	for _, again := range []bool{false, true} {
		calls := 0
		chain := asking(t, f, use{phase: exchange.Admit, run: func(ev *plugin.Event, res *plugin.Result) error {
			calls++
			if ev.Kind == abi.EventRequest || again {
				return await(res, ask("a", "url", "http://a"))
			}
			res.Action = abi.ActionRespond
			res.Ops = append(res.Ops, respond(503, "authorization_"+answer(ev, "a"), ""))
			return nil
		}})
		chain.phases[exchange.Admit][0].Timeout = 50 * time.Millisecond
		p := chain.Start(newExchange(""), 0).Phase(t.Context(), exchange.Admit)
		want := "authorization_timeout"
		if again {
			want = "policy_busy"
		}
		if p == nil || p.Code != want || p.Status != 503 || calls != 2 {
			t.Errorf("again %v: %v after %d calls", again, p, calls)
		}
	}
}

// While a response stage awaits, the upload goes on, through stages of its own; and the answer comes to the right stage.
func TestAwaitWhileUploading(t *testing.T) {
	t.Parallel()
	uploaded := make(chan struct{})
	f := service(func(ctx context.Context, calls []fetch.Call) ([]fetch.Answer, error) {
		select {
		case <-uploaded:
			return []fetch.Answer{{Status: 200, Body: []byte("late")}}, nil
		case <-time.After(20 * time.Second):
			return nil, errors.New("the upload waits for the answer")
		}
	})
	b := manifest.Body{Mode: manifest.BodyStream}
	chain := asking(t, f,
		use{phase: exchange.RequestPhase, body: b, run: func(ev *plugin.Event, res *plugin.Result) error {
			if ev.Kind == abi.EventRequestBody {
				res.Ops = append(res.Ops, op(abi.OpBodyReplace, "", strings.ToUpper(string(ev.Body))))
			}
			return nil
		}},
		use{phase: exchange.ResponsePhase, run: func(ev *plugin.Event, res *plugin.Result) error {
			if ev.Kind == abi.EventResponse {
				return await(res, ask("a", "url", "http://a"))
			}
			res.Ops = append(res.Ops, op(abi.OpHeaderSet, "x-got", answer(ev, "a")))
			return nil
		}})
	x := newExchange(strings.Repeat("hal", 40_000))
	run := chain.Start(x, 0)
	if p := run.Phase(t.Context(), exchange.RequestPhase); p != nil {
		t.Fatal(p)
	}
	x.Response = exchange.Response{Status: 200}
	var up []byte
	var work sync.WaitGroup
	work.Go(func() {
		up, _ = io.ReadAll(x.Request.Body)
		close(uploaded)
	})
	if _, p := run.Response(t.Context()); p != nil {
		t.Error(p)
	}
	work.Wait()
	if string(up) != strings.Repeat("HAL", 40_000) || x.Response.Header.Get("x-got") != "late" {
		t.Errorf("%d octets up, %v", len(up), x.Response.Header)
	}
}

// A stage that awaits at the head sees the body afterwards, or not when it is done.
func TestAwaitThenBody(t *testing.T) {
	t.Parallel()
	for _, done := range []bool{false, true} {
		x := newExchange("hello")
		run := asking(t, say(""), use{phase: exchange.RequestPhase, body: manifest.Body{Mode: manifest.BodyStream}, run: func(ev *plugin.Event, res *plugin.Result) error {
			switch {
			case ev.Kind == abi.EventRequest:
				return await(res, ask("a", "url", "http://a"))
			case ev.Kind == abi.EventRequestBody:
				res.Ops = append(res.Ops, op(abi.OpBodyReplace, "", strings.ToUpper(string(ev.Body))))
			case done:
				res.Action = abi.ActionDone
			}
			return nil
		}}).Start(x, 0)
		if p := run.Phase(t.Context(), exchange.RequestPhase); p != nil {
			t.Fatal(p)
		}
		want := "HELLO"
		if done {
			want = "hello"
		}
		if b, _ := io.ReadAll(x.Request.Body); string(b) != want {
			t.Errorf("done %v: %q", done, b)
		}
	}
}

// A stage that wants the whole body gets its own event, although an earlier stage watches that body pass.
func TestWholeBodyThroughAStream(t *testing.T) {
	t.Parallel()
	x := newExchange("hello")
	run := chainOf(t,
		use{phase: exchange.Authorize, body: manifest.Body{Mode: manifest.BodyStream}, run: func(ev *plugin.Event, res *plugin.Result) error {
			if ev.Kind == abi.EventRequestBody {
				res.Ops = append(res.Ops, op(abi.OpBodyReplace, "", strings.ToUpper(string(ev.Body))), op(abi.OpCarry, "", "seen"))
			}
			return nil
		}},
		use{phase: exchange.Admit, body: manifest.Body{Mode: manifest.BodyBuffer, Max: 100}, run: func(ev *plugin.Event, res *plugin.Result) error {
			if ev.Kind != abi.EventRequest || ev.Stage != int(exchange.Admit) || string(ev.Body) != "HELLO" || string(ev.Carry) != "seen" {
				t.Errorf("%d at %d with %q, carried %q", ev.Kind, ev.Stage, ev.Body, ev.Carry)
			}
			return nil
		}},
	).Start(x, 1<<10)
	for _, phase := range []exchange.Phase{exchange.Authorize, exchange.Admit} {
		if p := run.Phase(t.Context(), phase); p != nil {
			t.Fatal(phase, p)
		}
	}
}

// Ten thousand exchanges that await at the same time hold no instance: two are enough for all.
func TestManyAwait(t *testing.T) {
	t.Parallel()
	const exchanges = 10_000
	instances := make(chan struct{}, 2)
	var waiting atomic.Int32
	all := make(chan struct{})
	f := service(func(ctx context.Context, calls []fetch.Call) ([]fetch.Answer, error) {
		if waiting.Add(1) == exchanges {
			close(all)
		}
		<-all
		return []fetch.Answer{{Status: 200, Body: []byte("yes")}}, nil
	})
	chain := asking(t, f, use{phase: exchange.Admit, run: func(ev *plugin.Event, res *plugin.Result) error {
		instances <- struct{}{}
		defer func() { <-instances }()
		if ev.Kind == abi.EventRequest {
			return await(res, ask("a", "url", "http://a"))
		}
		res.Ops = append(res.Ops, op(abi.OpHeaderSet, "x-got", answer(ev, "a")))
		return nil
	}})
	chain.phases[exchange.Admit][0].Timeout = time.Minute
	var work sync.WaitGroup
	for range exchanges {
		work.Go(func() {
			x := newExchange("")
			if p := chain.Start(x, 0).Phase(t.Context(), exchange.Admit); p != nil || x.Request.Header.Get("x-got") != "yes" {
				t.Error(p, x.Request.Header)
			}
		})
	}
	work.Wait()
}

// The real thing: a service over HTTP, asked by a stage.
func TestAwaitOverHTTP(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("x-key")) }))
	defer s.Close()
	f, err := fetch.New(fetch.Config{Plugin: &config.Plugin{Name: "guest", Grants: []string{"fetch"}, Fetch: config.PluginFetch{
		Origins: []config.FetchOrigin{{Scheme: "http", Host: strings.TrimPrefix(s.URL, "http://")}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(context.Background())
	x := newExchange("")
	run := asking(t, f, use{phase: exchange.Admit, run: func(ev *plugin.Event, res *plugin.Result) error {
		if ev.Kind == abi.EventRequest {
			v := abi.AppendString(abi.AppendKey(abi.AppendObject(nil, 2), "url"), s.URL)
			v = abi.AppendObject(abi.AppendKey(v, "headers"), 1)
			return await(res, plugin.Op{Code: abi.OpFetch, Key: []byte("a"), Value: abi.AppendString(abi.AppendKey(v, "x-key"), "k1")})
		}
		res.Ops = append(res.Ops, op(abi.OpHeaderSet, "x-got", answer(ev, "a")))
		return nil
	}}).Start(x, 0)
	if p := run.Phase(t.Context(), exchange.Admit); p != nil || x.Request.Header.Get("x-got") != "k1" {
		t.Error(p, x.Request.Header)
	}
}

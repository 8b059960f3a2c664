package plugintest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/plugin/abi1"
	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
)

// wasm opens the module in the gateway's own host.
func wasm(t *testing.T, h *plugin.Host, c *Config, stages []*config.Stage) (caller, error) {
	t.Helper()
	p, err := h.Load(context.Background(), c.compiled, stages)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// natives runs the plugin's Go code in this process, over the same frames and the same decoder of results. Events take
// turns on two instances, as they may in the gateway: state that is kept in the Go value between events is found out.
type natives struct {
	config    *Config
	stages    []*config.Stage
	layouts   []*abi1.Layout
	instances []*postern.Instance
	session   *plugin.Session
	turn      int
}

func native(t *testing.T, h *plugin.Host, c *Config, stages []*config.Stage) (caller, error) {
	t.Helper()
	n := &natives{config: c, stages: stages, session: plugin.NewSession(h, c.compiled)}
	front := abi1.New()
	for i, s := range stages {
		l, err := front.NewLayout(s, i)
		if err != nil {
			return nil, err
		}
		n.layouts = append(n.layouts, l)
	}
	for range 2 {
		i := postern.NewInstance(c.New(), &backend{session: n.session})
		n.instances = append(n.instances, i)
		for s, l := range n.layouts {
			n.session.Begin(context.Background(), nil)
			frame := l.AppendConfigure(nil, n.session.Now(0))
			action, ops := i.Configure(copy(i.Grow(len(frame)), frame))
			n.session.End()
			var res plugin.Result
			err := abi1.Decode(&res, action, ops)
			if err == nil {
				err = abi1.Configured(&res)
			}
			if err != nil {
				return nil, &plugin.ConfigError{Plugin: c.Name, Range: stages[s].Range, Detail: err.Error()}
			}
		}
	}
	return n, nil
}

// Call does what a Pool does, without a module.
func (n *natives) Call(ctx context.Context, ev *plugin.Event, res *plugin.Result) error {
	s := n.stages[ev.Stage]
	fault := func(err error) error {
		res.Reset()
		f := new(plugin.Fault)
		if errors.As(err, &f) {
			return f
		}
		return &plugin.Fault{Plugin: n.config.Name, Phase: s.Phase, Kind: plugin.Protocol, Detail: err.Error(), Err: err}
	}
	ev.Arguments = s.Arguments
	frame, err := n.layouts[ev.Stage].AppendFrame(nil, ev, n.session.Now(0))
	if err != nil {
		return fault(err)
	}
	i := n.instances[n.turn%len(n.instances)]
	n.turn++
	n.session.Begin(ctx, ev.Exchange)
	defer n.session.End()
	action, ops := i.On(copy(i.Grow(len(frame)), frame))
	if err := abi1.Decode(res, action, ops); err != nil {
		return fault(err)
	}
	if err := res.Check(ev, s.Phase, n.config.Name); err != nil {
		return fault(err)
	}
	if res.Action == abi.ActionError {
		_, _, detail, _, _ := res.Respond()
		return fault(&plugin.Fault{Plugin: n.config.Name, Phase: s.Phase, Kind: plugin.Refused, Detail: detail})
	}
	return nil
}

// Close has nothing to close.
func (n *natives) Close(context.Context) error { return nil }

// backend gives native code the host operations of the gateway.
type backend struct{ session *plugin.Session }

func (b *backend) Log(level int, message string) { b.session.Log(int32(level), []byte(message)) }

func (b *backend) Op(code abi.Code, in, out []byte) int64 { return abi1.Op(b.session, code, in, out) }

// apply does to the exchange what the gateway does with a result.
func apply(x *exchange.Exchange, phase exchange.Phase, ev *plugin.Event, res *plugin.Result, err error) *Outcome {
	o := &Outcome{Body: ev.Body}
	if err != nil {
		o.Fault, o.Detail = plugin.Trap, err.Error()
		if f := new(plugin.Fault); errors.As(err, &f) {
			o.Fault, o.Detail = f.Kind, f.Detail
		}
		return o
	}
	header := &x.Request.Header
	if phase >= exchange.ResponsePhase {
		header = &x.Response.Header
	}
	if res.Action == abi.ActionRespond {
		status, code, detail, contentType, body := res.Respond()
		o.Answer = &Answer{Status: status, Code: code, Detail: detail, ContentType: contentType, Body: bytes.Clone(body)}
		header = &o.Answer.Header
	}
	o.Done = res.Action == abi.ActionDone
	o.Body, o.Changed = res.Apply(x, header, ev.Body)
	for i := range res.Ops {
		op := &res.Ops[i]
		switch op.Code {
		case abi.OpCarry:
			o.Carry = append([]byte{}, op.Value...)
		case abi.OpMeter:
			if o.Meters == nil {
				o.Meters = map[string]int64{}
			}
			o.Meters[string(op.Key)] += int64(binary.LittleEndian.Uint64(op.Value))
		}
	}
	return o
}

// check compares what came with what was wanted.
func (w *Want) check(t *testing.T, n int, o *Outcome) {
	t.Helper()
	x := o.Exchange
	if o.Fault != w.Fault {
		t.Errorf("event %d: fault %q (%s), want %q", n, o.Fault, o.Detail, w.Fault)
		return
	}
	header := x.Request.Header
	if x.Response.Status != 0 || x.Response.Header != nil {
		header = append(header.Clone(), x.Response.Header...)
	}
	switch {
	case o.Answer == nil && w.Respond != 0:
		t.Errorf("event %d: it goes on, want an answer with %d", n, w.Respond)
	case o.Answer != nil:
		header = o.Answer.Header
		if o.Answer.Status != w.Respond || w.Code != "" && o.Answer.Code != w.Code || !strings.Contains(o.Answer.Detail, w.Detail) {
			t.Errorf("event %d: answer %d %s %q, want %d %s %q", n, o.Answer.Status, o.Answer.Code, o.Answer.Detail, w.Respond, w.Code, w.Detail)
		}
	}
	for _, f := range w.Headers {
		if !slices.Contains(header, f) {
			t.Errorf("event %d: no field %s: %q among %q", n, f.Name, f.Value, header)
		}
	}
	for _, name := range w.Without {
		if header.Count(name) > 0 {
			t.Errorf("event %d: field %s is still there", n, name)
		}
	}
	for name, want := range w.Attributes {
		if got, ok := x.Attribute(name); !ok || got != want {
			t.Errorf("event %d: attribute %s is %q, want %q", n, name, got, want)
		}
	}
	if i := w.Identity; i != nil {
		if g := &x.Identity; g.Account != i.Account || g.Key != i.Key || g.Name != i.Name || !slices.Equal(g.Scopes, i.Scopes) {
			t.Errorf("event %d: identity %+v, want %+v", n, *g, *i)
		}
	}
	for i := range max(len(w.Fetches), len(o.Fetches)) {
		switch {
		case w.Fetches == nil:
		case i >= len(w.Fetches):
			t.Errorf("event %d: more fetches than %q: %s", n, w.Fetches, o.Fetches[i].String())
		case i >= len(o.Fetches):
			t.Errorf("event %d: no fetch %s", n, w.Fetches[i])
		case w.Fetches[i] != o.Fetches[i].Name && w.Fetches[i] != o.Fetches[i].String():
			t.Errorf("event %d: fetch %s, want %s", n, o.Fetches[i].String(), w.Fetches[i])
		}
	}
	if w.Body != "" && string(o.Body) != w.Body {
		t.Errorf("event %d: body\n%s\nwant\n%s", n, o.Body, w.Body)
	}
	if w.Unchanged && o.Changed {
		t.Errorf("event %d: the body was changed to\n%s", n, o.Body)
	}
	if w.Dropped && len(o.Body) > 0 {
		t.Errorf("event %d: the body is not empty:\n%s", n, o.Body)
	}
	if w.Targets != nil {
		var got []string
		for _, target := range x.Call.Targets {
			got = append(got, target.Upstream)
		}
		if !slices.Equal(got, w.Targets) {
			t.Errorf("event %d: targets %q, want %q", n, got, w.Targets)
		}
	}
	for name, want := range w.Meters {
		if o.Meters[name] != want {
			t.Errorf("event %d: meter %s counted %d, want %d", n, name, o.Meters[name], want)
		}
	}
	if w.Done && !o.Done {
		t.Errorf("event %d: the stage is not done", n)
	}
	if w.Check != nil {
		w.Check(t, o)
	}
}

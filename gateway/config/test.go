package config

import (
	"net/netip"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/schema"
)

func (l *loader) testBlocks() {
	kind := l.test.Find("test")
	for _, n := range l.tests.List {
		s := schema.Open(l, n.Block, kind)
		t := n.Value
		*t = Test{Name: n.Name, Range: s.At}
		if e := s.Expr("route"); e != nil {
			if r, ok := schema.Refer(l.Findings, &l.routes, e); ok {
				t.Route = r.Value
			}
		}
		t.Request = l.testRequest(t, s.One("request"))
		t.Expect = l.testExpect(t, s.One("expect"))
	}
}

func (l *loader) testRequest(t *Test, s *schema.Section) TestRequest {
	r := TestRequest{
		Method: s.Text("method"), Path: s.Text("path"), Headers: l.Header(s, "headers"), Body: s.Text("body"),
		Account: s.Text("account"), Scopes: s.Texts("scopes"), Balance: exchange.Pico(1e12), Reply: l.respond(s.One("reply")),
	}
	r.Balance, _ = r.Balance.Times(1000)
	if s.Set("balance") {
		if a, ok := l.Amount(s, "balance", 1); ok {
			r.Balance = a
		}
	}
	var err error
	if r.Remote, err = netip.ParseAddr(s.Text("remote")); err != nil {
		l.Errorf(s.Where("remote"), "Invalid address", "remote must be an IP address, such as \"192.0.2.1\".")
	}
	if r.Account == "" && (s.Set("scopes") || s.Set("balance")) {
		l.Errorf(s.At, "Missing account", "scopes and balance are those of an account: add account.")
	}
	if r.Path != "" && !strings.HasPrefix(r.Path, "/") {
		l.Errorf(s.Where("path"), "Invalid path", "The path of a request begins with a slash.")
	}
	if t.Route == nil || t.Route.Pattern == nil {
		return r
	}
	p := t.Route.Pattern
	if r.Method == "" {
		if r.Method = p.Method(); r.Method == "" {
			r.Method = "GET"
		}
	}
	if r.Path == "" {
		if r.Path = strings.TrimSuffix(p.Path(), "{$}"); len(p.Names()) > 0 {
			l.Errorf(s.At, "Missing path", "The pattern of route.%s has wildcards: say which path is requested.", t.Route.Name)
		}
	}
	return r
}

func (l *loader) testExpect(t *Test, s *schema.Section) TestExpect {
	e := TestExpect{Status: int(s.Count("status")), Stage: s.Text("stage"), Headers: l.Header(s, "headers"), Body: s.Text("body")}
	if e.Stage != "" && t.Route != nil {
		var names []string
		found := false
		for _, p := range t.Route.Policies {
			for _, stage := range p.Stages {
				names = append(names, stage.String())
				found = found || stage.String() == e.Stage
			}
		}
		if !found {
			l.Errorf(s.Where("stage"), "Unknown stage", "route.%s has no stage %q.%s", t.Route.Name, e.Stage, schema.Choices(e.Stage, names))
		}
	}
	u := s.One("upstream")
	if !u.Given {
		return e
	}
	e.Upstream = &TestUpstream{
		Called: u.Flag("called"), Name: u.Text("name"), Headers: l.Header(u, "headers"), Without: u.Texts("without"), Body: u.Text("body"), Lacks: u.Text("lacks"),
	}
	if name := e.Upstream.Name; name != "" && l.upstreams.ByName[name] == nil {
		l.Errorf(u.Where("name"), "Unknown reference", "There is no upstream named %q.%s", name, schema.Choices(name, l.upstreams.Names()))
	}
	for i, name := range e.Upstream.Without {
		e.Upstream.Without[i] = strings.ToLower(name)
	}
	return e
}

// String names the stage as tests, explain and logs do: "policy.name phase plugin" or "policy.name require name".
func (s *Stage) String() string {
	if s.Require != nil {
		return "policy." + s.Policy + " require " + s.Require.Name
	}
	name := ""
	if s.Plugin != nil {
		name = s.Plugin.Name
	}
	return "policy." + s.Policy + " " + s.Phase.String() + " " + name
}

// Package trial runs a plugin's own tests: *_test.hcl beside its plugin.hcl. Its main type is Trial, one test; Load reads them
// and a Host runs them through the real stages, on the real plugin host, with a world.World behind it and the upstream played.
package trial

import (
	"net/netip"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/project/world"
)

// Trial is one test of a plugin: exchanges, one after the other, in a world of its own.
type Trial struct {
	Name     string
	Range    hcl.Range
	Policies []*config.Policy
	Grants   []string
	Refused  string // the configuration is refused, for a reason that holds this; then there are no exchanges
	World    world.Config

	exchanges []*step
}

// step is one exchange of a trial and what must come of it.
type step struct {
	at      hcl.Range
	after   time.Duration
	request exchange.Exchange // to be copied
	body    string
	gone    bool
	reply   reply
	fault   string // the kind of fault that is expected; empty: none
	checks  []check
}

// reply is what the upstream answers.
type reply struct {
	status int
	header exchange.Header
	parts  []string
	usage  exchange.Usage
}

// check looks at one thing that came of an exchange; wrong is empty when it is as expected.
type check struct {
	at   hcl.Range
	look func(o *outcome) (wrong string)
}

// Failure is one thing that was not as a test expects.
type Failure struct {
	At   hcl.Range // what expected it
	Text string
}

// Plain is a trial of one request without anything in it, for a plugin that has no tests.
func Plain(p *config.Plugin, policies []*config.Policy) *Trial {
	plain := &step{reply: reply{status: 200}}
	plain.request.Request = exchange.Request{Protocol: exchange.HTTP1, Method: "GET", Scheme: "https", Authority: "localhost", Path: "/", Remote: netip.MustParseAddrPort("127.0.0.1:1")}
	return &Trial{Name: "a plain request", Policies: policies, Grants: p.Grants, exchanges: []*step{plain}}
}

// Exchanges is how many exchanges the trial has.
func (t *Trial) Exchanges() int { return len(t.exchanges) }

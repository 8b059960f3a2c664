package conformance

import (
	"fmt"
	"hash/fnv"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/sdk/abi"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

// script is the attribute that the argument do is bound to: the suite sets it before each step.
const script = "suite.do"

// everywhere uses the guest once at each phase, so that a stage's number is its phase's. more is added to every config block.
func everywhere(more string) []plugintest.Stage {
	var stages []plugintest.Stage
	for p := range exchange.PhaseCount {
		stages = append(stages, plugintest.Stage{Phase: p, Config: fmt.Sprintf("do = attribute[%q]\n%s", script, more)})
	}
	return stages
}

// play is one exchange of the conformance guest, event by event.
type play struct {
	name   string
	config string // of every stage, besides the script
	base   plugintest.Case
	steps  []step
}

// step is one event: the script that runs, and what has to come of it.
type step struct {
	plugintest.Event
	phase exchange.Phase // the zero is authenticate
	do    string
	saw   string      // what the guest tells; "*" is not compared
	fault plugin.Kind // the event fails
	says  string      // a text of the fault's detail
}

func (p *play) compile() plugintest.Case {
	c := p.base
	c.Name = p.name
	if p.config != "" {
		c.Stages = everywhere(p.config)
	}
	for _, s := range p.steps {
		c.Events = append(c.Events, s.compile())
	}
	return c
}

func (s step) compile() plugintest.Event {
	e := s.Event
	if e.Stage == 0 {
		e.Stage = int(s.phase)
	}
	before := e.Before
	e.Before = func(x *exchange.Exchange) {
		// Attributes outlive an event; what this one tells has to be its own.
		x.Attributes = nil
		x.SetAttribute(script, s.do)
		if before != nil {
			before(x)
		}
	}
	e.Want.Fault = s.fault
	check := e.Want.Check
	e.Want.Check = func(t *testing.T, o *plugintest.Outcome) {
		t.Helper()
		if got, _ := o.Exchange.Attribute("conformance.saw"); s.saw != "*" && got != s.saw {
			t.Errorf("%s\n told %s\n want %s", s.do, got, s.saw)
		}
		if !strings.Contains(o.Detail, s.says) {
			t.Errorf("%s\n failed with %q\n want %q in it", s.do, o.Detail, s.says)
		}
		if check != nil {
			check(t, o)
		}
	}
	return e
}

// at is the step of an ordinary event at a phase.
func at(phase exchange.Phase, do, saw string) step { return step{phase: phase, do: do, saw: saw} }

// asked is a step at phase request, where most things can be done.
func asked(do, saw string) step { return at(exchange.RequestPhase, do, saw) }

// fails is a step at phase request that is a fault.
func fails(kind plugin.Kind, do, says string) step {
	return step{phase: exchange.RequestPhase, do: do, fault: kind, says: says}
}

// with changes a step's event.
func (s step) with(change func(e *plugintest.Event)) step {
	change(&s.Event)
	return s
}

// want adds to what has to come of a step.
func (s step) want(w plugintest.Want) step {
	s.Want = w
	return s
}

// body gives the step's event a body.
func (s step) body(b string, end bool) step {
	s.Body, s.End = []byte(b), end
	return s
}

// kind makes the step another event than its phase's.
func (s step) kind(k abi.Event) step {
	s.Kind = k
	return s
}

// octets writes octets as the guest does.
func octets(s string) string {
	if len(s) > 256 {
		h := fnv.New32a()
		h.Write([]byte(s))
		return fmt.Sprintf("#%d:%08x", len(s), h.Sum32())
	}
	var b strings.Builder
	for _, c := range []byte(s) {
		if c > ' ' && c < 0x7f && c != '"' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return `"` + b.String() + `"`
}

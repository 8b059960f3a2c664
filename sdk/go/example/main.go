// Command example is a whole plugin: it greets the upstream in the caller's name. sdk/go/README.md explains it.
package main

import (
	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
)

// The slots of the hook request, in the order of plugin.hcl.
const (
	name  = iota // header x-name
	model        // attribute model
	to           // argument to
)

// greet keeps the greeting of each stage it is used at.
type greet struct{ greetings []string }

var _ = postern.Register(&greet{})

// Configure is called once for each stage, in the order of their numbers.
func (g *greet) Configure(s *postern.Stage) error {
	g.greetings = append(g.greetings, s.Config.Member("greeting").Text())
	return nil
}

// On is called for each event.
func (g *greet) On(e *postern.Event, r *postern.Result) error {
	switch e.Kind {
	case abi.EventRequest:
		who, ok := e.Header(name)
		if !ok {
			who = e.Value(to).Bytes()
		}
		if len(who) == 0 {
			r.Respond(400, "no_name", "Say who you are in the header x-name.")
			return nil
		}
		r.SetHeader("x-greeting", g.greetings[e.Stage], ", ", postern.String(who))
	case abi.EventResponse:
		r.SetHeader("x-seen-by", "greet")
		r.RemoveHeader("server")
	}
	return nil
}

func main() {}

// Package policy is a plugin that greets: its main type is Greet. It stands beside its module so that plugintest's own test can
// run it natively too.
package policy

import postern "github.com/postern-gateway/postern/sdk/go"

// The slots of the hook request, in the order of plugin.hcl.
const (
	name  = iota // header x-name
	model        // attribute model
	to           // argument to
)

// Greet writes a greeting.
type Greet struct{ greetings []string }

// Configure keeps a stage's greeting.
func (g *Greet) Configure(s *postern.Stage) error {
	g.greetings = append(g.greetings, s.Config.Member("greeting").Text())
	return nil
}

// On greets.
func (g *Greet) On(e *postern.Event, r *postern.Result) error {
	who, ok := e.Header(name)
	if !ok {
		who = e.Value(to).Bytes()
	}
	if len(who) == 0 {
		r.Respond(400, "no_name", "Say who you are in the header x-name.")
		return nil
	}
	r.SetHeader("x-greeting", g.greetings[e.Stage]+", "+postern.String(who))
	r.SetAttribute("self.greeted", postern.String(who))
	r.Meter("greetings", 1)
	return nil
}

package main

import postern "github.com/postern-gateway/postern/sdk/go"

type greet struct{ greetings []string }

var _ = postern.Register(&greet{})

func (g *greet) Configure(s *postern.Stage) error {
	g.greetings = append(g.greetings, s.Config.Member("greeting").Text())
	return nil
}

func (g *greet) On(e *postern.Event, r *postern.Result) error {
	r.SetHeader("x-greeting", g.greetings[e.Stage])
	return nil
}

func main() {}

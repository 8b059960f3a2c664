// Command policy is a well-behaved plugin for tests and benchmarks: its stages do what their mode says.
package main

import (
	"bytes"
	"errors"

	postern "github.com/postern-gateway/postern/sdk/go"
)

type policy struct{ modes []string }

var _ = postern.Register(&policy{})

func main() {}

func (p *policy) Configure(s *postern.Stage) error {
	p.modes = append(p.modes, s.Config.Member("mode").Text())
	return nil
}

var key = []byte("counter")

// Slots: headers authorization, x-*, host; then the arguments.
func (p *policy) On(e *postern.Event, r *postern.Result) error {
	switch p.modes[e.Stage] {
	case "check": // what a policy that checks a header does
		value, ok := e.Header(0)
		if !ok || !bytes.HasPrefix(value, []byte("Bearer ")) {
			r.Respond(401, "missing_key", "")
			return nil
		}
		var sum uint32
		for _, c := range value {
			sum = sum*31 + uint32(c)
		}
		r.SetHeader("x-checked", "yes")
		r.Meter("checked", int64(sum&1))
	case "key":
		value, _ := e.Header(0)
		id, err := e.Host.Key(value)
		if err != nil {
			return err
		}
		r.SetAttribute("identity.account", postern.String(id.Account))
	case "count":
		n, err := e.Host.Count(key, 1, 0)
		if err != nil {
			return err
		}
		r.Meter("n", n)
	case "echo": // body and carry
		body, ok := e.Body()
		if ok {
			r.ReplaceBody(append([]byte("<"), append(body, '>')...))
		}
		r.Carry(append(e.Carry(), '+'))
		for value := range e.Headers(0) {
			r.AddHeader("x-seen", postern.String(value))
		}
	case "fail":
		return errors.New("it can not")
	}
	return nil
}

// Command headers is a Postern plugin that sets, adds and removes header fields: its main type is plugin. Values are
// expressions of the configuration, so it needs to see nothing of a message; only its security preset looks at the fields it
// would set.
package main

import (
	"errors"

	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/go/field"
)

var _ = postern.Register(new(plugin))

func main() {}

// plugin is one instance.
type plugin struct{ stages []stage }

// stage is one use of the plugin.
type stage struct {
	remove   []string
	security []preset
	set, add int // slots of the per-request arguments
	scheme   int // slot of the attribute
}

// preset is a field that security sets.
type preset struct {
	name, value string
	slot        int
	secure      bool // for https alone
}

// presets are the fields of security, in the order of sees.headers.
func presets(kind string) []preset {
	// RFC 6797 section 6.1; two years are what the browsers' preload lists ask for.
	list := []preset{
		{slot: 0, name: "strict-transport-security", value: "max-age=63072000; includeSubDomains", secure: true},
		{slot: 1, name: "x-content-type-options", value: "nosniff"},
		{slot: 2, name: "x-frame-options", value: "DENY"},
	}
	switch kind {
	case "api":
		return append(list,
			preset{slot: 3, name: "referrer-policy", value: "no-referrer"},
			preset{slot: 4, name: "content-security-policy", value: "default-src 'none'; frame-ancestors 'none'"},
		)
	case "page":
		return append(list,
			preset{slot: 3, name: "referrer-policy", value: "strict-origin-when-cross-origin"},
			preset{slot: 5, name: "permissions-policy", value: "camera=(), geolocation=(), microphone=()"},
			preset{slot: 6, name: "cross-origin-resource-policy", value: "same-origin"},
		)
	}
	return nil
}

// Configure reads a stage's configuration.
func (p *plugin) Configure(s *postern.Stage) error {
	var st stage
	for _, v := range s.Config.Member("remove").Each {
		name := field.Lower([]byte(v.Text()))
		if reserved(name) {
			return errors.New("remove: " + string(name) + " is the gateway's own and can not be removed")
		}
		st.remove = append(st.remove, string(name))
	}
	if s.Phase == postern.Response {
		st.security = presets(s.Config.Member("security").Text())
		st.scheme = 7
		st.set, st.add = 8, 9
	} else {
		st.set, st.add = 0, 1
	}
	for len(p.stages) <= s.Number {
		p.stages = append(p.stages, stage{})
	}
	p.stages[s.Number] = st
	return nil
}

// On changes one head.
func (p *plugin) On(e *postern.Event, r *postern.Result) error {
	if e.Kind != abi.EventRequest && e.Kind != abi.EventResponse {
		return nil
	}
	st := &p.stages[e.Stage]
	for _, name := range st.remove {
		r.RemoveHeader(name)
	}
	for _, f := range st.security {
		if f.secure && string(e.Value(st.scheme).Bytes()) != "https" || e.Has(f.slot) {
			continue
		}
		r.SetHeader(f.name, f.value)
	}
	if err := change("set", e.Value(st.set), func(name, value string) { r.SetHeader(name, value) }); err != nil {
		return err
	}
	return change("add", e.Value(st.add), func(name, value string) { r.AddHeader(name, value) })
}

// change does to each field of a map what op does, and says of one that can not be sent why: the host would refuse all
// of the result without its name.
func change(argument string, fields postern.Value, op func(name, value string)) error {
	for name, value := range fields.Each {
		if len(value.Bytes()) == 0 { // null, or a field of the message that was not sent
			continue
		}
		field.Lower(name) // in the frame, which is this event's alone
		switch {
		case !field.Token(name) || len(name) > 256:
			return errors.New(argument + ": " + quoted(name) + " is no field name")
		case reserved(name):
			return errors.New(argument + ": " + string(name) + " is the gateway's own and can not be set")
		case !field.Value(value.Bytes()) || len(value.Bytes()) > abi.MaxHeader:
			return errors.New(argument + ": the value of " + string(name) + " has control characters, or is longer than 16 KiB")
		}
		op(postern.String(name), postern.String(field.Trim(value.Bytes())))
	}
	return nil
}

// reserved are the fields of framing and routing, which sdk/ABI.md keeps for the gateway.
func reserved(name []byte) bool {
	switch string(name) {
	case "connection", "content-length", "host", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade":
		return true
	}
	return len(name) >= 8 && string(name[:8]) == "postern-"
}

func quoted(b []byte) string {
	b = b[:min(len(b), 64)]
	out := make([]byte, 0, len(b)+2)
	out = append(out, '"')
	for _, c := range b {
		if c < ' ' || c >= 0x7f {
			c = '.'
		}
		out = append(out, c)
	}
	return string(append(out, '"'))
}

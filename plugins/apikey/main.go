// Command apikey is a Postern plugin that finds out who calls by an API key: its main type is plugin. A caller without a
// key, or with one that is not known, is answered 401 with a challenge (RFC 9110 section 11.6.1, RFC 6750 section 3).
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
	header    string
	slot      int // of header
	scheme    string
	challenge string // www-authenticate without a key
	refused   string // www-authenticate with a key that is not known
	missing   string // what the caller without a key reads
}

// slotKey is the argument key's, behind the headers.
const slotKey = 4

// maxKey is the most octets a key has; longer ones are not looked up.
const maxKey = 512

// Configure reads a stage's configuration.
func (p *plugin) Configure(s *postern.Stage) error {
	st := stage{header: s.Config.Member("header").Text(), scheme: s.Config.Member("scheme").Text(), slot: -1}
	for i, name := range [...]string{"authorization", "x-api-key", "x-goog-api-key", "api-key"} {
		if name == st.header {
			st.slot = i
		}
	}
	if st.slot < 0 {
		return errors.New(`header: "` + st.header + `" can not be looked at`)
	}
	if st.header != "authorization" {
		st.scheme = ""
	}
	if st.scheme != "" {
		st.challenge = st.scheme + ` realm="postern"`
		st.refused = st.challenge + `, error="invalid_token"`
		st.missing = "Send an API key: " + st.header + ": " + st.scheme + " <key>."
	} else {
		st.challenge = `ApiKey realm="postern", header="` + st.header + `"`
		st.refused = st.challenge
		st.missing = "Send an API key in the header " + st.header + "."
	}
	for len(p.stages) <= s.Number {
		p.stages = append(p.stages, stage{})
	}
	p.stages[s.Number] = st
	return nil
}

// On finds the key and asks whose it is. The key is never logged.
func (p *plugin) On(e *postern.Event, r *postern.Result) error {
	if e.Kind != abi.EventRequest {
		return nil
	}
	st := &p.stages[e.Stage]
	key, elsewhere := e.Value(slotKey).Bytes(), true
	if len(key) == 0 {
		elsewhere = false
		var n int
		for value := range e.Headers(st.slot) {
			key = value
			n++
		}
		if n > 1 { // which one the upstream or a proxy meant is anybody's guess
			st.refuse(r, "There is more than one API key in the request.")
			return nil
		}
		key = st.strip(key)
	}
	if len(key) == 0 {
		r.SetHeader("www-authenticate", st.challenge)
		r.Respond(401, "missing_api_key", st.missing)
		return nil
	}
	if len(key) > maxKey {
		st.refuse(r, "The API key is not valid.")
		return nil
	}
	id, err := e.Host.Key(key)
	switch {
	case errors.Is(err, postern.ErrNotFound), errors.Is(err, postern.ErrInvalid):
		st.refuse(r, "The API key is not valid.")
		return nil
	case errors.Is(err, postern.ErrExpired):
		st.refuse(r, "The API key is revoked or has expired.")
		return nil
	case err != nil:
		return err
	case len(id.Account) == 0:
		return errors.New("the host knows the key but not its account")
	}
	r.SetAttribute("identity.account", postern.String(id.Account))
	r.SetAttribute("identity.key", postern.String(id.Key))
	r.SetAttribute("identity.name", postern.String(id.Name))
	if id.Scopes.Kind() == abi.KindList {
		r.SetAttributeValue("identity.scopes", id.Scopes)
	}
	if !elsewhere {
		r.RemoveHeader(st.header)
	}
	return nil
}

func (st *stage) refuse(r *postern.Result, why string) {
	r.SetHeader("www-authenticate", st.refused)
	r.Respond(401, "invalid_api_key", why)
}

// strip takes the scheme off a header's value. A value with another scheme holds no key for this stage.
func (st *stage) strip(value []byte) []byte {
	value = field.Trim(value)
	if st.scheme == "" {
		return value
	}
	n := len(st.scheme)
	if len(value) <= n || value[n] != ' ' {
		return nil
	}
	for i := range n {
		if value[i]|0x20 != st.scheme[i]|0x20 { // the pattern allows letters, digits and hyphens
			return nil
		}
	}
	return field.Trim(value[n:])
}

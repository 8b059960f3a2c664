// Command scopes is a Postern plugin that lets a caller pass who has the scopes that a request needs: its main type is plugin.
// A caller who lacks one is answered 403 with a challenge that names what is needed (RFC 6750 section 3.1).
package main

import (
	"errors"

	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
)

var _ = postern.Register(new(plugin))

func main() {}

// plugin is one instance.
type plugin struct {
	stages          []stage
	detail, needed  []byte // of the answer under way
	missing, listed int    // scopes in detail and in needed
}

// stage is one use of the plugin.
type stage struct {
	challenge string // the beginning of www-authenticate; empty: there is none
	wildcards bool
}

// Slots, in the order of plugin.hcl.
const (
	slotScopes = iota
	slotAll
	slotAny
)

// maxText is the most octets of scopes that an answer names. It keeps the text within what the host takes.
const maxText = 700

// Configure reads a stage's configuration.
func (p *plugin) Configure(s *postern.Stage) error {
	st := stage{wildcards: s.Config.Member("wildcards").Bool()}
	if scheme := s.Config.Member("challenge").Text(); scheme != "" {
		st.challenge = scheme + ` realm="postern", error="insufficient_scope"`
	}
	for len(p.stages) <= s.Number {
		p.stages = append(p.stages, stage{})
	}
	p.stages[s.Number] = st
	return nil
}

// On compares what the caller has with what is needed.
func (p *plugin) On(e *postern.Event, r *postern.Result) error {
	if e.Kind != abi.EventRequest {
		return nil
	}
	all, some := e.Value(slotAll), e.Value(slotAny)
	if all.Kind() != abi.KindList && some.Kind() != abi.KindList {
		return errors.New("all and any say nothing: write at least one of them")
	}
	st, held := &p.stages[e.Stage], e.Value(slotScopes)
	p.detail, p.needed, p.missing, p.listed = append(p.detail[:0], "The caller lacks"...), p.needed[:0], 0, 0
	for _, need := range all.Each {
		p.needs(need.Bytes())
		if !st.has(held, need.Bytes()) {
			p.lacks(need.Bytes())
		}
	}
	if p.missing > 0 {
		p.refuse(st, r)
		return nil
	}
	for _, need := range some.Each {
		if st.has(held, need.Bytes()) {
			return nil
		}
	}
	if some.Len() == 0 {
		return nil
	}
	p.detail = append(p.detail, " one of"...)
	for _, need := range some.Each {
		p.needs(need.Bytes())
		p.lacks(need.Bytes())
	}
	p.refuse(st, r)
	return nil
}

// refuse answers with what was gathered.
func (p *plugin) refuse(st *stage, r *postern.Result) {
	if st.challenge != "" {
		n := len(p.detail)
		p.detail = append(p.detail, st.challenge...)
		if p.listed > 0 {
			p.detail = append(append(append(p.detail, `, scope="`...), p.needed...), '"')
		}
		r.SetHeader("www-authenticate", postern.String(p.detail[n:]))
		p.detail = p.detail[:n]
	}
	r.Respond(403, "missing_scope", postern.String(append(p.detail, '.')))
}

// lacks names a scope in the answer's text.
func (p *plugin) lacks(scope []byte) {
	if p.missing++; p.missing > 1 {
		p.detail = append(p.detail, ',')
	} else {
		p.detail = append(p.detail, " the scope"...)
	}
	switch {
	case !token(scope):
		p.detail = append(p.detail, " (malformed)"...)
	case len(p.detail)+len(scope) > maxText:
		p.detail = append(p.detail[:min(len(p.detail), maxText)], " ..."...)
	default:
		p.detail = append(append(p.detail, ' '), scope...)
	}
}

// needs names a scope in the challenge.
func (p *plugin) needs(scope []byte) {
	if !token(scope) || len(p.needed)+len(scope) > maxText {
		return
	}
	if p.listed++; p.listed > 1 {
		p.needed = append(p.needed, ' ')
	}
	p.needed = append(p.needed, scope...)
}

// has reports whether a scope is held. One that is malformed is held by nobody.
func (st *stage) has(held postern.Value, scope []byte) bool {
	if !token(scope) {
		return false
	}
	for _, h := range held.Each {
		have := h.Bytes()
		if string(have) == string(scope) || st.wildcards && covers(have, scope) {
			return true
		}
	}
	return false
}

// covers reports whether a scope that ends in * stands for another: "*" for all, "models:*" for what begins with "models:".
func covers(have, scope []byte) bool {
	n := len(have) - 1
	return n >= 0 && have[n] == '*' && (n == 0 || have[n-1] == ':') && len(scope) > n && string(scope[:n]) == string(have[:n])
}

// token reports whether s is a scope-token of RFC 6749 section 3.3: printable US-ASCII but space, quote and backslash.
func token(s []byte) bool {
	for _, c := range s {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return len(s) > 0
}

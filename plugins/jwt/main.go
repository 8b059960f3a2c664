// Command jwt is a Postern plugin that finds out who calls by a signed token: its main type is plugin. Tokens are JSON Web
// Tokens (RFC 7519) in compact serialization, signed (RFC 7515) with keys that stand in the configuration or in a key set the
// issuer publishes; each key is for one algorithm (RFC 8725).
package main

import (
	"crypto/sha256"
	"errors"

	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/go/field"
)

var _ = postern.Register(new(plugin))

func main() {}

// plugin is one instance.
type plugin struct {
	stages []stage
	token  token
	claims claims
	proven [512][sha256.Size]byte // tokens that were verified: which key, which token
	text   []byte
}

// stage is one use of the plugin.
type stage struct {
	scheme     string
	challenge  string // www-authenticate without a token
	missing    string // what the caller without a token reads
	keep       bool
	keys       []*key
	set        *keySet // nil: none
	issuer     string
	audience   []string
	types      []string
	required   []string
	leeway     float64 // seconds
	maxAge     float64
	account    string
	prefix     string
	name       string
	scopes     string
	attributes []attribute
}

// attribute is an attribute of the plugin's own that a claim becomes.
type attribute struct{ name, claim string }

// Slots, in the order of plugin.hcl.
const (
	slotAuthorization = iota
	slotToken
)

const (
	maxKeys   = 64 // in the configuration, and in a key set
	maxTries  = 4  // keys that are tried for a token that fits several
	challenge = ` realm="postern"`
)

// Configure reads a stage's configuration.
func (p *plugin) Configure(s *postern.Stage) error {
	c := s.Config
	st := stage{
		scheme: c.Member("scheme").Text(), keep: c.Member("keep").Bool(), issuer: c.Member("issuer").Text(),
		audience: texts(c.Member("audience")), required: texts(c.Member("required")), account: c.Member("account").Text(),
		prefix: c.Member("account_prefix").Text(), name: c.Member("name").Text(), scopes: c.Member("scopes").Text(),
		leeway: float64(c.Member("leeway").Int()) / 1e9, maxAge: float64(c.Member("max_age").Int()) / 1e9,
	}
	st.challenge = st.scheme + challenge
	st.missing = "Send a token: authorization: " + st.scheme + " <token>."
	if st.leeway < 0 || st.leeway > 600 {
		return errors.New("leeway: write a duration of at most 10m")
	}
	if st.maxAge < 0 {
		return errors.New("max_age: write a duration")
	}
	if st.account == "" {
		return errors.New("account: write the claim that names the account")
	}
	for _, t := range texts(c.Member("types")) {
		st.types = append(st.types, string(mediaType([]byte(t))))
	}
	for name, claim := range c.Member("attributes").Each {
		if !attributeName(name) {
			return errors.New(`attributes: "` + string(name) + `" is not 1 to 64 of a-z, 0-9, _ and .`)
		}
		st.attributes = append(st.attributes, attribute{"self." + string(name), claim.Text()})
	}
	for _, v := range c.Member("key").Each {
		k, err := fromConfig(v)
		if err != nil {
			return err
		}
		for _, other := range st.keys {
			if other.id == k.id && other.alg == k.alg {
				return errors.New(`key "` + k.id + `" is there twice`)
			}
		}
		st.keys = append(st.keys, k)
	}
	if set := c.Member("jwks"); set.Kind() == abi.KindObject {
		var err error
		if st.set, err = newKeySet(set); err != nil {
			return err
		}
	}
	if len(st.keys) > maxKeys || len(st.keys) == 0 && st.set == nil {
		return errors.New("write at least one key, of at most 64, or jwks: without one no token can be verified")
	}
	for _, k := range st.keys {
		warm(k.alg)
	}
	if st.set != nil {
		for _, a := range st.set.algorithms {
			warm(a)
		}
	}
	for len(p.stages) <= s.Number {
		p.stages = append(p.stages, stage{})
	}
	p.stages[s.Number] = st
	return nil
}

func texts(list postern.Value) (out []string) {
	for _, v := range list.Each {
		out = append(out, v.Text())
	}
	return out
}

func attributeName(b []byte) bool {
	for _, c := range b {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '.' {
			return false
		}
	}
	return len(b) > 0 && len(b) <= 64
}

// On verifies the token of a request, at once or when the issuer's keys have come.
func (p *plugin) On(e *postern.Event, r *postern.Result) error {
	if e.Kind != abi.EventRequest && e.Kind != abi.EventFetched {
		return nil
	}
	st := &p.stages[e.Stage]
	b, elsewhere := e.Value(slotToken).Bytes(), true
	if len(b) == 0 {
		elsewhere = false
		n := 0
		for v := range e.Headers(slotAuthorization) {
			b = v
			n++
		}
		if n > 1 { // which one the upstream or a proxy meant is anybody's guess
			p.refuse(st, r, "There is more than one field authorization in the request.")
			return nil
		}
		b = strip(st.scheme, b)
	}
	if len(b) == 0 {
		r.SetHeader("www-authenticate", st.challenge)
		r.Respond(401, "missing_token", st.missing)
		return nil
	}
	t := &p.token
	if why := t.read(b); why != "" {
		p.refuse(st, r, why)
		return nil
	}
	if !st.fits(t.typ) {
		p.refuse(st, r, "The token is of another type.")
		return nil
	}
	if st.set != nil && st.set.signs(t.algorithm) && !has(st.keys, t) {
		wait, err := st.set.ready(e, t)
		if err != nil {
			return err
		}
		if wait {
			st.set.ask(r)
			return nil
		}
	}
	k := p.prove(st)
	if k == nil {
		p.refuse(st, r, "The token is not signed by a key that is known here.")
		return nil
	}
	if why := p.claims.check(st, t.payload, e.Time()); why != "" {
		p.refuse(st, r, why)
		return nil
	}
	c := &p.claims
	r.SetAttribute("identity.account", postern.String(c.account))
	r.SetAttribute("identity.key", k.id)
	r.SetAttribute("identity.name", postern.String(c.name))
	r.SetAttributeStrings("identity.scopes", c.scopes...)
	for i, a := range st.attributes {
		r.SetAttribute(a.name, postern.String(c.values[i]))
	}
	if !st.keep && !elsewhere {
		r.RemoveHeader("authorization")
	}
	return nil
}

// refuse answers with a challenge that says why (RFC 6750 section 3).
func (p *plugin) refuse(st *stage, r *postern.Result, why string) {
	p.text = append(append(append(p.text[:0], st.challenge...), `, error="invalid_token", error_description="`...), why...)
	r.SetHeader("www-authenticate", postern.String(append(p.text, '"')))
	r.Respond(401, "invalid_token", why)
}

// fits reports whether a token's typ is one of those that a stage takes.
func (st *stage) fits(typ value) bool {
	if len(st.types) == 0 {
		return true
	}
	var room [64]byte
	have := mediaType(typ.text(room[:0]))
	for _, t := range st.types {
		if string(have) == t {
			return true
		}
	}
	return false
}

// mediaType brings a typ into one form: in lower case, without "application/", which may be left out (RFC 7515 section
// 4.1.9). It changes b.
func mediaType(b []byte) []byte {
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	const prefix = "application/"
	if len(b) > len(prefix) && string(b[:len(prefix)]) == prefix {
		return b[len(prefix):]
	}
	return b
}

// candidate reports whether a key may have signed a token: it is for the token's algorithm, and the one that the token
// names, if it names one.
func (t *token) candidate(k *key) bool {
	return string(t.algorithm) == k.alg.name && (!t.hasKid || string(t.kid) == k.id)
}

func has(keys []*key, t *token) bool {
	for _, k := range keys {
		if t.candidate(k) {
			return true
		}
	}
	return false
}

// prove finds the key that signed the token; nil: there is none.
func (p *plugin) prove(st *stage) *key {
	t, tries := &p.token, 0
	lists := [2][]*key{st.keys}
	if st.set != nil {
		lists[1] = st.set.keys
	}
	for _, keys := range lists {
		for _, k := range keys {
			if !t.candidate(k) {
				continue
			}
			if p.verify(k) {
				return k
			}
			if tries++; tries == maxTries {
				return nil
			}
		}
	}
	return nil
}

// verify verifies a token once: for those that come again it is enough to know that key and token are the same. What is
// remembered is a hash over both, so that a key that is gone proves nothing any more.
func (p *plugin) verify(k *key) bool {
	t := &p.token
	p.text = append(append(append(p.text[:0], k.print[:]...), t.signed...), t.signature...)
	mark := sha256.Sum256(p.text)
	known := &p.proven[int(mark[0])|int(mark[1])&1<<8]
	if *known == mark {
		return true
	}
	if !k.verify(t.signed, t.signature) {
		return false
	}
	*known = mark
	return true
}

// strip takes the scheme off a field's value, compared without case. A value with another scheme holds no token.
func strip(scheme string, b []byte) []byte {
	b = field.Trim(b)
	n := len(scheme)
	if len(b) <= n || b[n] != ' ' {
		return nil
	}
	for i := range n {
		if b[i]|0x20 != scheme[i]|0x20 { // the pattern allows letters, digits and hyphens
			return nil
		}
	}
	return field.Trim(b[n:])
}

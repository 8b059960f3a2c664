// Command hmac is a Postern plugin that finds out who calls by a signed request: its main type is plugin. Signatures are HTTP
// Message Signatures (RFC 9421) of the algorithm hmac-sha256; the body is signed through its digest (RFC 9530). A signature
// counts for a short while, and once.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"hash"
	"time"

	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/go/field"
)

var _ = postern.Register(new(plugin))

func main() {}

// plugin is one instance.
type plugin struct {
	stages []stage
	signed signature // the one that counts
	other  signature
	spare  []byte // of a component
	mac    [sha256.Size]byte
	sum    [sha512.Size]byte
	sent   [sha512.Size + 2]byte // what base64 of 88 octets may decode to
}

// stage is one use of the plugin.
type stage struct {
	keys         []key
	cover        []string
	tag          string
	window, skew int64 // nanoseconds
	nonce        bool  // is needed
	once         bool  // a signature counts once
	unchecked    bool  // whoever is behind compares the body with its digest
	keep         bool  // the signature goes on
	accept       string
}

// key is a secret somebody signs with.
type key struct {
	id, account, name string
	scopes            []string
	mac               hash.Hash
}

// Slots, in the order of plugin.hcl.
const (
	slotFields = iota
	slotMethod
	slotScheme
	slotHost
	slotPath
	slotQuery
)

const (
	challenge = `Signature realm="postern"`
	minSecret = 16  // octets
	maxNonce  = 256 // octets
)

// refusal is why a request is not taken for its sender's.
type refusal struct {
	status       int
	code, detail string
}

// Configure reads a stage's configuration.
func (p *plugin) Configure(s *postern.Stage) error {
	c := s.Config
	st := stage{
		tag: c.Member("tag").Text(), window: c.Member("window").Int(), skew: c.Member("skew").Int(), keep: c.Member("keep").Bool(),
		nonce: c.Member("replay").Text() == "nonce", once: c.Member("replay").Text() != "allow",
		unchecked: c.Member("body").Text() == "unchecked",
	}
	if st.window <= 0 || st.window > int64(24*time.Hour) {
		return errors.New("window: write a duration from 1ns to 24h")
	}
	if st.skew < 0 || st.skew > int64(time.Hour) {
		return errors.New("skew: write a duration of at most 1h")
	}
	for _, v := range c.Member("cover").Each {
		if !component(v.Bytes()) {
			return errors.New(`cover: "` + v.Text() + `" is neither a field's name in lower case nor one of @method, @authority, @scheme, @target-uri, @request-target, @path, @query`)
		}
		st.cover = append(st.cover, v.Text())
	}
	if len(st.cover) == 0 || len(st.cover) > maxComponents {
		return errors.New("cover: write 1 to 32 components; what is not signed anybody can change")
	}
	for _, v := range c.Member("key").Each {
		k, err := readKey(v)
		if err != nil {
			return err
		}
		if st.key([]byte(k.id)) != nil {
			return errors.New(`key "` + k.id + `" is there twice`)
		}
		st.keys = append(st.keys, k)
	}
	st.accept = "sig=("
	for i, name := range st.cover {
		if i > 0 {
			st.accept += " "
		}
		st.accept += `"` + name + `"`
	}
	st.accept += `);created;alg="hmac-sha256"`
	if st.tag != "" {
		st.accept += `;tag="` + st.tag + `"`
	}
	for len(p.stages) <= s.Number {
		p.stages = append(p.stages, stage{})
	}
	p.stages[s.Number] = st
	return nil
}

func readKey(v postern.Value) (k key, err error) {
	k = key{id: v.Member("id").Text(), account: v.Member("account").Text(), name: v.Member("name").Text()}
	secret := v.Member("secret").Bytes()
	if v.Member("encoding").Text() == "base64" {
		decoded, err := base64.StdEncoding.Strict().DecodeString(v.Member("secret").Text())
		if err != nil {
			return k, errors.New(`key "` + k.id + `": secret is not base64`) // the error would show a part of it
		}
		secret = decoded
	}
	switch {
	case len(secret) < minSecret:
		return k, errors.New(`key "` + k.id + `": a secret has at least 16 octets, better 32 random ones`)
	case k.account == "":
		return k, errors.New(`key "` + k.id + `": account is empty`)
	}
	for i := range k.id {
		if c := k.id[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return k, errors.New(`key "` + k.id + `": an id is printable US-ASCII without quotes and backslashes`)
		}
	}
	for _, s := range v.Member("scopes").Each {
		k.scopes = append(k.scopes, s.Text())
	}
	k.mac = hmac.New(sha256.New, secret)
	return k, nil
}

// component reports whether a message component can be checked here.
func component(name []byte) bool {
	switch string(name) {
	case "@method", "@authority", "@scheme", "@target-uri", "@request-target", "@path", "@query":
		return true
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return len(name) > 0
}

func (st *stage) key(id []byte) *key {
	for i := range st.keys {
		if st.keys[i].id == string(id) {
			return &st.keys[i]
		}
	}
	return nil
}

// On checks the signature of a request.
func (p *plugin) On(e *postern.Event, r *postern.Result) error {
	if e.Kind != abi.EventRequest {
		return nil
	}
	st := &p.stages[e.Stage]
	k, no, err := p.check(st, e)
	if err != nil {
		return err
	}
	if no.status != 0 {
		r.SetHeader("www-authenticate", challenge)
		r.SetHeader("accept-signature", st.accept)
		r.Respond(no.status, no.code, no.detail)
		return nil
	}
	r.SetAttribute("identity.account", k.account)
	r.SetAttribute("identity.key", k.id)
	r.SetAttribute("identity.name", k.name)
	r.SetAttributeStrings("identity.scopes", k.scopes...)
	if !st.keep {
		r.RemoveHeader("signature")
		r.RemoveHeader("signature-input")
	}
	return nil
}

func invalid(detail string) refusal { return refusal{401, "invalid_signature", detail} }

// check finds the signature that counts and proves it. The error is the host's; a refusal without a status means that all
// is well.
func (p *plugin) check(st *stage, e *postern.Event) (*key, refusal, error) {
	k, no := p.find(st, e)
	if no.status != 0 {
		return nil, no, nil
	}
	s := &p.signed
	sent, ok := member(e.Fields(slotFields), "signature", postern.String(s.label))
	if !ok || len(sent) != base64.StdEncoding.EncodedLen(sha256.Size) {
		return nil, invalid("The field signature is malformed, or has no signature of that label."), nil
	}
	until, no := st.inTime(s, e.Time())
	if no.status == 0 {
		no = p.complete(st, s, e)
	}
	if no.status != 0 {
		return nil, no, nil
	}
	k.mac.Reset()
	for _, name := range s.components[:s.count] {
		if !p.write(k.mac, e, name) {
			return nil, invalid("The signature covers something that the request does not have, or that can not be checked here."), nil
		}
	}
	p.spare = append(append(p.spare[:0], `"@signature-params": `...), s.params...)
	_, _ = k.mac.Write(p.spare)
	if !p.decodes(sent, k.mac.Sum(p.mac[:0])) {
		return nil, invalid("The signature is not valid."), nil
	}
	// From here on it is the holder of the key who asks.
	if no = p.digest(st, e); no.status != 0 || !st.once {
		return k, no, nil
	}
	err := p.remember(s, e.Host, time.Duration(until-e.Time()))
	if errors.Is(err, postern.ErrConflict) {
		return nil, refusal{401, "replayed_signature", "The signature was used before."}, nil
	}
	return k, refusal{}, err
}

// find picks the first signature by a key that is known here.
func (p *plugin) find(st *stage, e *postern.Event) (found *key, no refusal) {
	lines := 0
	for name, value := range e.Fields(slotFields) {
		if string(name) != "signature-input" {
			continue
		}
		lines++
		r := reader{b: value}
		for first := true; ; first = false {
			more, ok := r.next(first)
			if ok && !more {
				break
			}
			if !ok || !r.member(&p.other) || found != nil && string(p.other.label) == string(p.signed.label) {
				return nil, invalid("The field signature-input is malformed, or has something in it that can not be checked here.")
			}
			s := &p.other
			if found != nil || s.alg != nil && string(s.alg) != "hmac-sha256" || st.tag != "" && string(s.tag) != st.tag {
				continue
			}
			if found = st.key(s.key); found != nil {
				p.signed, p.other = p.other, p.signed
			}
		}
	}
	switch {
	case lines == 0:
		return nil, refusal{401, "missing_signature", "Sign the request (RFC 9421, hmac-sha256)."}
	case found == nil:
		return nil, invalid("There is no signature by a key that is known here.")
	}
	return found, refusal{}
}

// inTime says until when, in nanoseconds since 1970, the signature counts.
func (st *stage) inTime(s *signature, now int64) (until int64, no refusal) {
	const second = int64(time.Second)
	if s.created < 0 {
		return 0, invalid("The signature lacks the parameter created.")
	}
	if s.created > now/second+2*24*60*60 || s.created*second > now+st.skew {
		return 0, invalid("The signature is from the future: the clocks differ.")
	}
	until = s.created*second + st.window + st.skew
	if s.expires >= 0 && s.expires < until/second+1 {
		until = min(until, s.expires*second+st.skew)
	}
	if until <= now {
		return 0, invalid("The signature has expired.")
	}
	return until, refusal{}
}

// complete reports what the signature has to have and has not.
func (p *plugin) complete(st *stage, s *signature, e *postern.Event) refusal {
	for _, name := range st.cover {
		if !covered(s, name) {
			p.spare = append(append(append(p.spare[:0], "The signature has to cover "...), name...), '.')
			return invalid(postern.String(p.spare))
		}
	}
	body, _ := e.Body()
	if !st.unchecked && (len(body) > 0 || e.Truncated()) && !covered(s, "content-digest") {
		return invalid("The signature has to cover content-digest, since the request has a body.")
	}
	if st.nonce && len(s.nonce) == 0 || len(s.nonce) > maxNonce {
		return invalid("The signature has to have a nonce, of at most 256 octets.")
	}
	return refusal{}
}

// covered reports whether a component is signed, by itself or as part of another.
func covered(s *signature, name string) bool {
	for _, c := range s.components[:s.count] {
		if string(c) == name {
			return true
		}
		switch name {
		case "@path", "@query":
			if string(c) == "@request-target" || string(c) == "@target-uri" {
				return true
			}
		case "@authority", "@scheme":
			if string(c) == "@target-uri" {
				return true
			}
		}
	}
	return false
}

// write adds a component's line to the signature base (RFC 9421 section 2.5); false: the request does not have it.
func (p *plugin) write(w hash.Hash, e *postern.Event, name []byte) bool {
	if !component(name) {
		return false
	}
	b := append(append(append(p.spare[:0], '"'), name...), `": `...)
	if name[0] == '@' {
		b = derived(b, e, name)
	} else {
		n := 0
		for known, value := range e.Fields(slotFields) {
			if string(known) != string(name) {
				continue
			}
			if n++; n > 1 {
				b = append(b, ", "...)
			}
			b = append(b, field.Trim(value)...)
		}
		if n == 0 {
			return false
		}
	}
	b = append(b, '\n')
	p.spare = b
	_, _ = w.Write(p.spare)
	return true
}

// derived appends the value of a derived component (RFC 9421 section 2.2). The path is the one that the gateway routes by.
func derived(b []byte, e *postern.Event, name []byte) []byte {
	scheme, query := e.Value(slotScheme).Bytes(), e.Value(slotQuery).Bytes()
	switch string(name) {
	case "@method":
		return append(b, e.Value(slotMethod).Bytes()...)
	case "@scheme":
		return append(b, scheme...)
	case "@authority":
		return authority(b, scheme, e.Value(slotHost).Bytes())
	case "@query":
		return append(append(b, '?'), query...)
	case "@target-uri":
		b = append(append(b, scheme...), "://"...)
		b = authority(b, scheme, e.Value(slotHost).Bytes())
	}
	b = append(b, e.Value(slotPath).Bytes()...)
	if string(name) != "@path" && len(query) > 0 {
		b = append(append(b, '?'), query...)
	}
	return b
}

// authority appends a host in lower case, without the port that the scheme has anyway.
func authority(b, scheme, host []byte) []byte {
	port := ":443"
	if string(scheme) == "http" {
		port = ":80"
	}
	if n := len(host) - len(port); n > 0 && string(host[n:]) == port {
		host = host[:n]
	}
	for _, c := range host {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		b = append(b, c)
	}
	return b
}

// digest compares the body with its digest, where the signature covers that.
func (p *plugin) digest(st *stage, e *postern.Event) refusal {
	if st.unchecked || !covered(&p.signed, "content-digest") {
		return refusal{}
	}
	if e.Truncated() {
		return refusal{413, "body_too_large", "The body is too long for its digest to be checked: 1 MiB is the most."}
	}
	body, _ := e.Body()
	known := 0
	for _, name := range [...]string{"sha-256", "sha-512"} {
		sent, ok := member(e.Fields(slotFields), "content-digest", name)
		if !ok {
			return invalid("The field content-digest is malformed.")
		}
		if sent == nil {
			continue
		}
		known++
		var sum []byte
		if name == "sha-256" {
			s := sha256.Sum256(body)
			sum = append(p.sum[:0], s[:]...)
		} else {
			s := sha512.Sum512(body)
			sum = append(p.sum[:0], s[:]...)
		}
		if len(sent) != base64.StdEncoding.EncodedLen(len(sum)) {
			return invalid("The field content-digest is malformed.")
		}
		if !p.decodes(sent, sum) {
			return invalid("The body is not the one that was signed.")
		}
	}
	if known == 0 {
		return invalid("The field content-digest has neither sha-256 nor sha-512.")
	}
	return refusal{}
}

// decodes reports whether base64, of at most 88 octets, stands for what is wanted. It takes as long for what nearly does.
func (p *plugin) decodes(sent, want []byte) bool {
	n, err := base64.StdEncoding.Strict().Decode(p.sent[:], sent)
	return err == nil && hmac.Equal(p.sent[:n], want)
}

// remember notes that a signature was used, for as long as it counts: ErrConflict when it was used before.
func (p *plugin) remember(s *signature, host *postern.Host, left time.Duration) error {
	mark := s.nonce
	if len(mark) == 0 {
		mark = p.mac[:] // the signature itself
	}
	p.spare = append(append(append(p.spare[:0], s.key...), 0), mark...)
	sum := sha256.Sum256(p.spare)
	return host.CAS(sum[:], nil, []byte{1}, left+time.Second)
}

// Command cors is a Postern plugin for cross-origin resource sharing, as the Fetch standard has it: its main type is plugin.
// At authenticate, where a preflight arrives without credentials, it answers preflights; at response it adds the fields that
// let the page read the reply, the gateway's own answers included.
package main

import (
	"errors"
	"strconv"

	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/go/field"
)

var _ = postern.Register(new(plugin))

func main() {}

// plugin is one instance.
type plugin struct {
	stages []stage
	buffer []byte
}

// stage is one use of the plugin at authenticate; one at response has nothing of its own.
type stage struct {
	origins        []origin
	any            bool // every origin
	null           bool
	methods        []string
	headers        []string
	anyHeader      bool
	credentials    bool
	privateNetwork bool
	// What is sent, written once.
	methodList, exposeList, maxAge string
}

// Slots of the authenticate hook.
const (
	slotOrigin = iota
	slotMethod
	slotHeaders
	slotPrivateNetwork
	slotRequestMethod
)

const slotVary = 0 // of the response hook

// Bounds of what a browser may send.
const (
	maxOrigin  = 512
	maxHeaders = 4 << 10
)

const maxAge = 24 * 60 * 60 // seconds; what browsers take at most

// Configure reads a stage's configuration.
func (p *plugin) Configure(s *postern.Stage) error {
	for len(p.stages) <= s.Number {
		p.stages = append(p.stages, stage{})
	}
	if s.Phase != postern.Authenticate {
		return nil
	}
	st := stage{credentials: s.Config.Member("credentials").Bool(), privateNetwork: s.Config.Member("private_network").Bool()}
	for _, v := range s.Config.Member("origins").Each {
		switch text := v.Text(); text {
		case "*":
			st.any = true
		case "null":
			st.null = true
		default:
			o, err := parseOrigin(text)
			if err != nil {
				return errors.New("origins: " + strconv.Quote(text) + " " + err.Error())
			}
			st.origins = append(st.origins, o)
		}
	}
	switch {
	case !st.any && !st.null && len(st.origins) == 0:
		return errors.New("origins: name at least one")
	case st.any && st.credentials:
		return errors.New(`credentials: not with the origin "*", or every page on the web could act for whoever looks at it`)
	case st.any && (st.null || len(st.origins) > 0):
		return errors.New(`origins: "*" is every origin and stands alone`)
	}
	for _, v := range s.Config.Member("methods").Each {
		st.methods = append(st.methods, v.Text())
	}
	for _, v := range s.Config.Member("headers").Each {
		name := field.Lower([]byte(v.Text()))
		st.anyHeader = st.anyHeader || string(name) == "*"
		st.headers = append(st.headers, string(name))
	}
	var expose []string
	for _, v := range s.Config.Member("expose").Each {
		expose = append(expose, v.Text())
	}
	st.methodList, st.exposeList = join(st.methods), join(expose)
	seconds := s.Config.Member("max_age").Int() / 1e9
	if seconds < 0 || seconds > maxAge {
		return errors.New("max_age: from 0s to 24h")
	}
	st.maxAge = strconv.FormatInt(seconds, 10)
	p.stages[s.Number] = st
	return nil
}

// On handles one event.
func (p *plugin) On(e *postern.Event, r *postern.Result) error {
	switch {
	case e.Kind == abi.EventRequest && e.Phase == postern.Authenticate:
		p.request(e, r, &p.stages[e.Stage])
	case e.Kind == abi.EventResponse:
		return p.response(e, r)
	}
	return nil
}

// request answers a preflight, and carries to the response what it has to say to the page. It lets nobody in: Done tells
// the gateway that this is no way to authenticate.
func (p *plugin) request(e *postern.Event, r *postern.Result, st *stage) {
	origin, sent := e.Header(slotOrigin)
	allowed := sent && st.allows(origin)
	method, asks := e.Header(slotMethod)
	if sent && asks && string(e.Value(slotRequestMethod).Bytes()) == "OPTIONS" {
		p.preflight(e, r, st, origin, allowed, method)
		return
	}
	// Which stage, and the origin the reply is for; without one the reply still varies by it.
	p.buffer = append(p.buffer[:0], byte(e.Stage), byte(e.Stage>>8))
	if allowed {
		p.buffer = append(p.buffer, origin...)
	}
	r.Carry(p.buffer)
	r.Done()
}

func (p *plugin) preflight(e *postern.Event, r *postern.Result, st *stage, origin []byte, allowed bool, method []byte) {
	names, _ := e.Header(slotHeaders)
	refusal := ""
	switch {
	case !allowed:
		refusal = "Pages of this origin may not call."
	case !st.method(method):
		refusal = "Pages may not use this method."
	case !st.names(names):
		refusal = "Pages may not send one of these header fields."
	}
	// A cache between must not give one page's answer to another.
	r.SetHeader("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
	if refusal != "" {
		r.Respond(403, "cors_refused", refusal)
		return
	}
	st.allow(r, origin)
	r.SetHeader("access-control-allow-methods", st.methodList)
	if len(names) > 0 {
		r.SetHeader("access-control-allow-headers", postern.String(names))
	}
	r.SetHeader("access-control-max-age", st.maxAge)
	if wanted, ok := e.Header(slotPrivateNetwork); ok && st.privateNetwork && string(wanted) == "true" {
		r.SetHeader("access-control-allow-private-network", "true")
	}
	r.Respond(204, "preflight", "")
	r.RespondBody("text/plain", nil)
}

// allow names who may read.
func (st *stage) allow(r *postern.Result, origin []byte) {
	if st.any {
		r.SetHeader("access-control-allow-origin", "*")
	} else {
		r.SetHeader("access-control-allow-origin", postern.String(origin))
	}
	if st.credentials {
		r.SetHeader("access-control-allow-credentials", "true")
	}
}

// response says to the page what was decided when its request came. What the upstream says of it itself does not count.
func (p *plugin) response(e *postern.Event, r *postern.Result) error {
	r.Done()
	carry := e.Carry()
	if len(carry) == 0 {
		return nil // the answer to a preflight, complete already
	}
	number := int(carry[0])
	if len(carry) > 1 {
		number |= int(carry[1]) << 8
	}
	if len(carry) < 2 || number >= len(p.stages) {
		return errors.New("the carry can not be read")
	}
	st, origin := &p.stages[number], carry[2:]
	for _, name := range [...]string{"access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"} {
		r.RemoveHeader(name)
	}
	if !st.any && !varies(e) {
		r.AddHeader("vary", "Origin")
	}
	if len(origin) == 0 {
		return nil
	}
	st.allow(r, origin)
	if st.exposeList != "" {
		r.SetHeader("access-control-expose-headers", st.exposeList)
	}
	return nil
}

// varies reports whether the reply says already that it depends on the origin.
func varies(e *postern.Event) bool {
	for value := range e.Headers(slotVary) {
		for name := range field.List(value).Each {
			if string(name) == "*" || field.Is(name, "origin") {
				return true
			}
		}
	}
	return false
}

func (st *stage) method(name []byte) bool {
	for _, m := range st.methods {
		if m == string(name) { // methods are compared with case: Fetch, section 2.2.1
			return true
		}
	}
	return false
}

// names reports whether a page may send every field of a list.
func (st *stage) names(list []byte) bool {
	if len(list) > maxHeaders {
		return false
	}
	for name := range field.List(list).Each {
		known := st.anyHeader && field.Token(name)
		for _, h := range st.headers {
			known = known || field.Is(name, h)
		}
		if !known {
			return false
		}
	}
	return true
}

func join(list []string) string {
	var b []byte
	for i, s := range list {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, s...)
	}
	return string(b)
}

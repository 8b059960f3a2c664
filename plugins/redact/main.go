// Command redact is a Postern plugin that keeps personal data from upstreams: its main type is plugin. In the request
// phase it puts placeholders in the place of what it finds; in the response phase it puts the originals back.
package main

import (
	"errors"

	"github.com/postern-gateway/postern/plugins/redact/detect"
	"github.com/postern-gateway/postern/plugins/redact/placeholder"
	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/go/field"
)

var _ = postern.Register(newPlugin())

func main() {}

// plugin is one instance. Nothing of an exchange stays in it: what the reply needs travels as the exchange's carry.
type plugin struct {
	stages   []stage
	vault    placeholder.Vault
	redactor placeholder.Redactor
	restorer placeholder.Restorer
	carry    []byte
}

// stage is one use of the plugin.
type stage struct {
	detector detect.Detector
	deny     bool // action = "deny"
	restore  bool
	pass     bool // on_invalid = "pass"
}

func newPlugin() *plugin {
	p := new(plugin)
	p.redactor.Vault, p.restorer.Vault = &p.vault, &p.vault
	return p
}

// Slots, in the order of plugin.hcl.
const (
	slotContentType     = 0 // of the request hook
	slotRequestEncoding = 1
	slotContentEncoding = 0 // of the response hook
)

// The carried form is the Vault's, with these flags, then what the response needs between its pieces: the state of a
// Chunk, or of the events, or nothing yet.
const (
	flagJSONMode = 1 << iota // the reply's content is a JSON text
	flagChunk
	flagEvents
)

// Configure reads a stage's configuration.
func (p *plugin) Configure(s *postern.Stage) error {
	st := stage{
		deny:    string(s.Config.Member("action").Bytes()) == "deny",
		restore: s.Config.Member("restore").Bool(),
		pass:    string(s.Config.Member("on_invalid").Bytes()) == "pass",
	}
	for _, v := range s.Config.Member("kinds").Each {
		kind := detect.Kind(0)
		for k := detect.Email; k < detect.KindCount; k++ {
			if k.Name() == string(v.Bytes()) {
				kind = k
			}
		}
		if kind == 0 {
			return errors.New(`kinds: there is no kind "` + v.Text() + `"; there are: email, phone, card, iban, resident_id, secret`)
		}
		st.detector.Kinds[kind] = true
	}
	if s.Phase == postern.Request && st.detector.Kinds == [detect.KindCount]bool{} {
		return errors.New("kinds: name at least one")
	}
	for _, v := range s.Config.Member("allow").Each {
		value := []byte(v.Text())
		for i := range value {
			if value[i]-'A' < 26 {
				value[i] += 32
			}
		}
		if len(value) == 0 {
			return errors.New("allow: an empty value")
		}
		st.detector.Allow = append(st.detector.Allow, value)
	}
	for len(p.stages) <= s.Number {
		p.stages = append(p.stages, stage{})
	}
	p.stages[s.Number] = st
	return nil
}

// On handles one event.
func (p *plugin) On(e *postern.Event, r *postern.Result) error {
	switch e.Kind {
	case abi.EventRequest:
		return p.request(e, r, &p.stages[e.Stage])
	case abi.EventResponse:
		return p.response(e, r)
	case abi.EventResponseBody:
		return p.responseBody(e, r)
	}
	return nil
}

// maxSplices is how many placeholders are put in one by one; more are sent as a new body.
const maxSplices = 1000

// unreadable decides over a body that could not be looked through.
func unreadable(r *postern.Result, st *stage, err error) {
	switch {
	case !errors.Is(err, placeholder.ErrInvalid):
		r.Respond(413, "too_much_personal_data", "The request body holds more personal data than can be replaced in one request.")
	case st.pass:
		r.Meter("unreadable", 1)
	default:
		r.Respond(400, "unreadable_body", "The request body can not be looked through for personal data: it has to be JSON or text in UTF-8, and content-type has to say so.")
	}
}

func (p *plugin) request(e *postern.Event, r *postern.Result, st *stage) error {
	body, _ := e.Body()
	if len(body) == 0 {
		return nil
	}
	if e.Truncated() {
		r.Respond(413, "body_too_large", "The request body is larger than can be looked through for personal data.")
		return nil
	}
	var flags byte
	if carry := e.Carry(); len(carry) > 0 { // another stage of this plugin was here
		known, _, ok := p.vault.Load(carry)
		if !ok {
			return errors.New("the carry can not be read")
		}
		flags = known
	} else {
		p.vault.Reset()
	}
	p.redactor.Detector = &st.detector
	var err error
	contentType, _ := e.Header(slotContentType)
	kind := media(contentType)
	if encoding, ok := e.Header(slotRequestEncoding); ok && !field.Is(encoding, "identity") {
		kind = mediaOther // what is compressed can not be looked through, even if it happens to be text
	}
	switch kind {
	case mediaJSON:
		err = p.redactor.JSON(body)
	case mediaText:
		// Who reads it may take it for JSON all the same, with its escapes.
		if err = placeholder.ErrInvalid; body[0] <= ' ' || body[0] == '{' || body[0] == '[' || body[0] == '"' {
			err = p.redactor.JSON(body)
		}
		if errors.Is(err, placeholder.ErrInvalid) {
			err = p.redactor.Text(body)
		}
	default:
		err = placeholder.ErrInvalid
	}
	if err != nil {
		unreadable(r, st, err)
		return nil
	}
	for kind, n := range p.redactor.Found {
		if n > 0 {
			r.Meter(detect.Kind(kind).Name(), int64(n))
		}
	}
	if p.redactor.Len() == 0 {
		return nil
	}
	if st.deny {
		detail := p.carry[:0]
		detail = append(detail, "The request body holds personal data: "...)
		for kind, n := range p.redactor.Found {
			if n > 0 {
				detail = append(detail, detect.Kind(kind).Name()...)
				detail = append(detail, ", "...)
			}
		}
		p.carry = detail
		detail[len(detail)-2] = '.'
		r.Respond(400, "personal_data_found", postern.String(detail[:len(detail)-1]))
		return nil
	}
	if p.redactor.Len() > maxSplices {
		p.carry = p.redactor.Append(p.carry[:0], body)
		r.ReplaceBody(p.carry)
	} else {
		p.redactor.Edits(func(start, end int, put []byte) { r.Splice(start, end-start, put) })
	}
	if st.restore {
		if p.redactor.JSONMode {
			flags |= flagJSONMode
		}
		p.carry = p.vault.Append(p.carry[:0], flags)
		r.Carry(p.carry)
		r.RemoveHeader("accept-encoding") // the reply has to be readable
	}
	if cap(p.carry) > 1<<20 {
		p.carry = nil
	}
	return nil
}

// response looks at the reply's head.
func (p *plugin) response(e *postern.Event, r *postern.Result) error {
	if len(e.Carry()) == 0 {
		r.Done() // nothing was replaced
		return nil
	}
	if encoding, ok := e.Header(slotContentEncoding); ok && !field.Is(encoding, "identity") {
		e.Host.Warn("the reply is compressed: its placeholders stay")
		r.Done()
		return nil
	}
	for _, digest := range [...]string{"content-digest", "repr-digest", "digest", "content-md5"} { // of what is going to change
		r.RemoveHeader(digest)
	}
	return nil
}

func (p *plugin) responseBody(e *postern.Event, r *postern.Result) error {
	carry := e.Carry()
	body, _ := e.Body()
	if e.Stream() && len(carry) > 1 && carry[1]&flagEvents == 0 && !placeholder.Suspicious(body) {
		return nil // most events
	}
	flags, state, ok := p.vault.Load(carry)
	if !ok {
		return errors.New("the carry can not be read")
	}
	var restored []byte
	var changed bool
	first := flags&(flagChunk|flagEvents) == 0
	known := len(carry) - len(state)
	switch {
	case e.Stream():
		p.restorer.Load(state)
		before := p.restorer.Held()
		restored, changed = p.restorer.Events(body, e.End(), flags&flagJSONMode != 0)
		if before > 0 || p.restorer.Held() > 0 {
			p.carry = append(p.carry[:0], carry[:known]...)
			p.carry[1] &^= flagEvents
			if p.restorer.Held() > 0 {
				p.carry[1] |= flagEvents
				p.carry = p.restorer.Append(p.carry)
			}
			r.Carry(p.carry)
		}
	case first && e.End():
		restored, changed = p.restorer.Whole(body)
	default:
		var c placeholder.Chunk
		c.Load(state)
		restored, changed = c.Next(&p.restorer, body, e.End())
		p.carry = append(p.carry[:0], carry[:known]...)
		p.carry[1] |= flagChunk
		p.carry = c.Append(p.carry)
		r.Carry(p.carry)
	}
	if changed {
		r.ReplaceBody(restored)
	}
	return nil
}

type mediaType uint8

const (
	mediaOther mediaType = iota
	mediaJSON
	mediaText
)

// media tells how a body of that content type is read. Without a content type it has to be JSON.
func media(contentType []byte) mediaType {
	end := 0
	for end < len(contentType) && contentType[end] != ';' && contentType[end] != ' ' {
		end++
	}
	name, parameters := contentType[:end], contentType[end:]
	if at := indexFold(parameters, "charset="); at >= 0 {
		charset := parameters[at+len("charset="):]
		if len(charset) > 0 && charset[0] == '"' {
			charset = charset[1:]
		}
		stop := 0
		for stop < len(charset) && (isAlnum(charset[stop]) || charset[stop] == '-') {
			stop++
		}
		if c := charset[:stop]; !field.Is(c, "utf-8") && !field.Is(c, "us-ascii") {
			return mediaOther
		}
	}
	switch {
	case len(name) == 0, field.Is(name, "application/json"),
		len(name) > 5 && field.Is(name[len(name)-5:], "+json"):
		return mediaJSON
	case len(name) > 5 && field.Is(name[:5], "text/"):
		return mediaText
	}
	return mediaOther
}

func indexFold(b []byte, s string) int {
	for i := 0; i+len(s) <= len(b); i++ {
		if field.Is(b[i:i+len(s)], s) {
			return i
		}
	}
	return -1
}

func isAlnum(b byte) bool { return b-'0' < 10 || (b|0x20)-'a' < 26 }

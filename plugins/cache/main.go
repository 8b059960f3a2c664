// Command cache is a Postern plugin that answers a request from what the same account was answered before: its main type is
// plugin. The host keeps each account's replies in a namespace of its own; that two accounts never meet is not this code's
// doing and can not be its mistake.
package main

import (
	"errors"
	"strconv"
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
	buffer []byte
	body   []byte
	carry  []byte
	pieces keeper
}

// stage is one use of the plugin at request; one at response has nothing of its own.
type stage struct {
	ttl  time.Duration
	most int
}

// Slots of the request hook.
const (
	slotCacheControl = iota
	slotRange
	slotContentEncoding
	slotAccept
	slotRoute
	slotMethod
	slotHost
	slotPath
	slotQuery
	slotModel
	slotKey
)

// Slots of the response hook.
const (
	slotReplyType = iota
	slotReplyEncoding
	slotReplyControl
	slotSetCookie
	slotVary
	slotStatus
)

// maxReply bounds max_size: a hit is put together in the guest's memory.
const maxReply = 4 << 20

// Configure reads a stage's configuration.
func (p *plugin) Configure(s *postern.Stage) error {
	for len(p.stages) <= s.Number {
		p.stages = append(p.stages, stage{})
	}
	if s.Phase != postern.Request {
		return nil
	}
	st := stage{ttl: time.Duration(s.Config.Member("ttl").Int()), most: int(s.Config.Member("max_size").Int())}
	if st.ttl < time.Second || st.ttl > 30*24*time.Hour {
		return errors.New("ttl: from 1s to 30 days")
	}
	if st.most < 1 || st.most > maxReply {
		return errors.New("max_size: from 1B to 4MiB")
	}
	p.stages[s.Number] = st
	return nil
}

// On handles one event.
func (p *plugin) On(e *postern.Event, r *postern.Result) error {
	switch e.Kind {
	case abi.EventRequest:
		return p.request(e, r)
	case abi.EventResponse:
		return p.response(e, r)
	case abi.EventResponseBody:
		return p.responseBody(e, r)
	}
	return nil
}

// request looks for a reply.
func (p *plugin) request(e *postern.Event, r *postern.Result) error {
	body, _ := e.Body()
	if e.Truncated() || e.Has(slotRange) || e.Has(slotContentEncoding) || directive(e, slotCacheControl, "no-store") {
		r.Meter("passed", 1)
		return nil
	}
	key := p.key(e, body)
	if !directive(e, slotCacheControl, "no-cache") {
		hit, err := p.pieces.load(e.Host, &key, p.body[:0])
		switch {
		case err == nil:
			p.body = hit.body
			age := max(0, (e.Time()-hit.stored)/int64(time.Second))
			r.SetHeader("x-cache", "hit")
			r.SetHeader("age", strconv.FormatInt(age, 10))
			r.SetAttribute("self.status", "hit")
			r.Meter("hit", 1)
			r.Respond(200, "cached", "")
			r.RespondBody(hit.contentType, hit.body)
			p.trim()
			return nil
		case errors.Is(err, postern.ErrUnavailable):
			return errors.New("nobody was identified: the policy needs an authenticate stage before it caches")
		case !errors.Is(err, postern.ErrNotFound):
			return err
		}
	}
	r.Meter("miss", 1)
	r.SetAttribute("self.status", "miss")
	p.pieces.begin(&key, e.Stage)
	p.carry = p.pieces.append(p.carry[:0])
	r.Carry(p.carry)
	return nil
}

// trim lets go of what a large reply took.
func (p *plugin) trim() {
	if cap(p.body) > 256<<10 {
		p.body = nil
	}
}

// response decides from the head whether a reply may be kept.
func (p *plugin) response(e *postern.Event, r *postern.Result) error {
	if len(e.Carry()) == 0 {
		r.Done()
		return nil
	}
	r.SetHeader("x-cache", "miss")
	contentType, _ := e.Header(slotReplyType)
	if e.Value(slotStatus).Int() != 200 || e.Has(slotReplyEncoding) || e.Has(slotSetCookie) || varies(e) || directive(e, slotReplyControl, "no-store") || len(contentType) > maxType {
		r.Done()
		return nil
	}
	if !p.pieces.read(e.Carry()) || p.pieces.stage >= len(p.stages) {
		return errors.New("the carry can not be read")
	}
	if err := p.pieces.head(e.Host, contentType); err != nil {
		return err
	}
	p.carry = p.pieces.append(p.carry[:0])
	r.Carry(p.carry)
	return nil
}

// responseBody keeps a reply as it passes. What is kept of one that does not come to its end is never found, and goes
// when its time is over.
func (p *plugin) responseBody(e *postern.Event, r *postern.Result) error {
	if len(e.Carry()) == 0 {
		r.Done()
		return nil
	}
	if !p.pieces.read(e.Carry()) || p.pieces.stage >= len(p.stages) {
		return errors.New("the carry can not be read")
	}
	st, body := &p.stages[p.pieces.stage], part(e)
	if p.pieces.length+len(body) > st.most {
		r.Meter("too_large", 1)
		r.Done()
		return nil
	}
	whole := !e.Stream() || e.End() && ended(p.pieces.tail, body)
	if !p.keep(e, r, st, body, whole) || e.End() {
		r.Done()
		return nil
	}
	p.carry = p.pieces.append(p.carry[:0])
	r.Carry(p.carry)
	return nil
}

// keep writes a part of the reply, and the entry with the last part of a whole one. The reply is on its way: that it is
// not kept must not keep it from its reader.
func (p *plugin) keep(e *postern.Event, r *postern.Result, st *stage, body []byte, whole bool) bool {
	err := p.pieces.add(e.Host, body, st.ttl)
	if err == nil && e.End() && whole {
		if err = p.pieces.end(e.Host, e.Time(), st.ttl); err == nil {
			r.Meter("stored", 1)
		}
	}
	switch {
	case errors.Is(err, postern.ErrLimit): // larger than the host has room for
		r.Meter("too_large", 1)
	case err != nil:
		e.Host.Warn("a reply can not be kept: " + err.Error())
	}
	return err == nil
}

func part(e *postern.Event) []byte {
	b, _ := e.Body()
	return b
}

// varies reports whether the reply depends on fields of the request that the key does not hold.
func varies(e *postern.Event) bool {
	for value := range e.Headers(slotVary) {
		for name := range field.List(value).Each {
			if !field.Is(name, "origin") && !field.Is(name, "accept-encoding") && !field.Is(name, "accept") {
				return true
			}
		}
	}
	return false
}

// ended reports whether a stream came to the end that its model API gives it: one that was cut off cleanly did not.
func ended(tail, last []byte) bool {
	for _, mark := range [...]string{"data: [DONE]", "event: message_stop"} {
		if contains(last, mark) {
			return true
		}
		// The mark may have begun in the piece before.
		joined := append(append(make([]byte, 0, len(tail)+len(mark)), tail...), last[:min(len(last), len(mark))]...)
		if contains(joined, mark) {
			return true
		}
	}
	return false
}

func contains(b []byte, mark string) bool {
	for i := len(b) - len(mark); i >= 0; i-- {
		if string(b[i:i+len(mark)]) == mark {
			return true
		}
	}
	return false
}

// directive reports whether the cache-control fields of a slot have a directive (RFC 9111 section 5.2): several fields are
// one list.
func directive(e *postern.Event, slot int, name string) bool {
	for control := range e.Headers(slot) {
		for d := range field.List(control).Each {
			if field.Is(d, name) {
				return true
			}
		}
	}
	return false
}

package policy

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"strconv"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/sdk/abi"
)

// outcome is what a result did to the bytes in the body slot.
type outcome struct {
	body    []byte
	changed bool
}

// apply does what r.result says. The pool has checked all of it (plugin.Result.Check), so nothing here can fail halfway.
// body is what the stage was shown.
func (r *Run) apply(s *stage, body []byte) (outcome, *exchange.Problem) {
	var answer *exchange.Problem
	header := &r.x.Request.Header
	if s.Phase >= exchange.ResponsePhase {
		header = &r.x.Response.Header
	}
	if r.result.Action == abi.ActionRespond {
		answer = new(exchange.Problem)
		header = &answer.Header
	}
	out := outcome{body: body}
	cut := 0 // how much of body the splices so far have passed
	var spliced []byte
	for i := range r.result.Ops {
		op := &r.result.Ops[i]
		switch op.Code {
		case abi.OpHeaderSet:
			header.Set(string(op.Key), string(op.Value))
		case abi.OpHeaderAdd:
			header.Add(string(op.Key), string(op.Value))
		case abi.OpHeaderRemove:
			header.Del(string(op.Key))
		case abi.OpAttribute:
			value, _, _ := abi.ReadValue(op.Value)
			r.attribute(s, string(op.Key), value)
		case abi.OpBodyReplace:
			out = outcome{body: append([]byte(nil), op.Value...), changed: true}
		case abi.OpBodyDrop:
			out = outcome{changed: true}
		case abi.OpBodySplice:
			at, length := splice(op.Value)
			spliced = append(append(spliced, body[cut:at]...), op.Value[8:]...)
			cut = at + length
			out.changed = true
		case abi.OpCarry:
			r.carries[s.memory] = append([]byte(nil), op.Value...)
		case abi.OpMeter:
			s.metrics.Meter(string(op.Key), float64(int64(binary.LittleEndian.Uint64(op.Value))))
		}
	}
	if cut > 0 || spliced != nil {
		out.body = append(spliced, body[cut:]...)
	}
	if answer != nil {
		status, code, detail, contentType, own := r.result.Respond()
		answer.Status, answer.Code, answer.Detail, answer.Title = status, code, detail, http.StatusText(status)
		answer.ContentType, answer.Body = contentType, bytes.Clone(own)
		answer.Retry = retryAfter(&answer.Header)
		return outcome{}, answer
	}
	if r.result.Action == abi.ActionDone {
		if r.done == nil {
			n := 0
			for _, list := range r.chain.phases {
				n += len(list)
			}
			r.done = make([]bool, n)
		}
		r.done[s.id] = true
	}
	return out, nil
}

func splice(value []byte) (at, length int) {
	return int(binary.LittleEndian.Uint32(value)), int(binary.LittleEndian.Uint32(value[4:]))
}

func (r *Run) attribute(s *stage, name string, value abi.Value) {
	id := &r.x.Identity
	switch name {
	case "identity.account":
		id.Account = value.Text()
	case "identity.key":
		id.Key = value.Text()
	case "identity.name":
		id.Name = value.Text()
	case "identity.scopes":
		id.Scopes = make([]string, 0, value.Len())
		for _, m := range value.Each {
			id.Scopes = append(id.Scopes, m.Text())
		}
	case "targets":
		order := make([]exchange.Target, 0, value.Len())
		for _, m := range value.Each {
			order = append(order, r.x.Call.Targets[m.Int()])
		}
		r.x.Call.Targets = order
	default:
		r.x.SetAttribute(name, value.Text())
	}
}

// retryAfter takes a Retry-After in seconds out of an answer's header: it has one home, the problem's Retry.
func retryAfter(h *exchange.Header) time.Duration {
	seconds, err := strconv.ParseUint(h.Get("retry-after"), 10, 31)
	if err != nil {
		return 0
	}
	h.Del("retry-after")
	return time.Duration(seconds) * time.Second
}

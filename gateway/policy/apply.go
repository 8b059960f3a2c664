package policy

import (
	"bytes"
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

// apply does what t.result says. The pool has checked all of it (plugin.Result.Check), so nothing here can fail halfway.
// body is what the stage was shown.
func (t *turn) apply(s *stage, body []byte) (outcome, *exchange.Problem) {
	var answer *exchange.Problem
	header := &t.x.Request.Header
	if s.Phase >= exchange.ResponsePhase {
		header = &t.x.Response.Header
	}
	if t.result.Action == abi.ActionRespond {
		answer = new(exchange.Problem)
		header = &answer.Header
	}
	var out outcome
	out.body, out.changed = t.result.Apply(t.x, header, body)
	t.keep(s)
	if answer != nil {
		status, code, detail, contentType, own := t.result.Respond()
		answer.Status, answer.Code, answer.Detail, answer.Title = status, code, detail, http.StatusText(status)
		answer.ContentType, answer.Body = contentType, bytes.Clone(own)
		answer.Retry = retryAfter(&answer.Header)
		return outcome{}, answer
	}
	if t.result.Action == abi.ActionDone {
		if t.done == nil {
			t.done = make([]bool, t.chain.marks)
		}
		t.done[s.id] = true
	}
	return out, nil
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

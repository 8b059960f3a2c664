package creation

import (
	"io"
	"slices"
	"strings"

	"github.com/postern-gateway/postern/gateway/eventstream"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// Format tells what an event of a reply adds to the text of its choices. Without one, a stream of events is kept as it is.
type Format interface {
	Text(event []byte, add func(choice int, text []byte))
}

// Asked reports whether a client lets its reply be kept: it does not with the request field Postern-Keep: none, nor in the
// words that its format has for it.
func Asked(x *exchange.Exchange) bool {
	return !x.Call.Private && !strings.EqualFold(strings.TrimSpace(x.Request.Header.Get("postern-keep")), "none")
}

// Recorder keeps a reply as it passes to the client. A reply that tells of a failure, is empty, not whole or broken off is
// not kept. Of a stream of events that the format can read, the text of each choice is kept; of any other reply the octets
// that the client gets.
type Recorder struct {
	exchange.Reply
	shelf  *Shelf
	x      *exchange.Exchange
	terms  Terms
	format Format

	draft  *Draft
	events *eventstream.Splitter // nil: octets are kept as they are
}

// Record puts a Recorder between an exchange and its client, and before the exchange is over Close must be called.
// The caller must be known. format may be nil.
func (s *Shelf) Record(x *exchange.Exchange, terms Terms, format Format) *Recorder {
	r := &Recorder{Reply: x.Reply, shelf: s, x: x, terms: terms, format: format}
	x.Reply = r
	return r
}

// Head passes the head on, with the id of what is going to be kept.
func (r *Recorder) Head(status int, h exchange.Header, length int64) error {
	kept := status >= 200 && status < 300 && status != 204 && status != 205 && status != 206 && length != 0 && r.x.Request.Method != "HEAD"
	if kept && length <= r.terms.Item {
		info := Info{Route: r.x.Route, Model: r.x.Call.Model, Exchange: r.x.ID, Type: clip(h.Get("content-type")), Encoding: clip(h.Get("content-encoding"))}
		if r.format != nil && h.EventStream() && info.Encoding == "" {
			r.events = eventstream.New(eventstream.MaxEvent)
			info.Type = "text/plain; charset=utf-8"
		}
		r.draft = r.shelf.Begin(r.x.Identity.Account, r.terms, info)
		h = append(slices.Clip(h), exchange.Field{Name: "postern-creation", Value: r.draft.ID()})
	}
	return r.Reply.Head(status, h, length)
}

// Write passes octets on.
func (r *Recorder) Write(p []byte) (int, error) {
	n, err := r.Reply.Write(p)
	switch {
	case r.draft == nil || r.draft.over:
	case err != nil:
		r.draft.Drop()
	case r.events == nil:
		r.draft.Write(0, p)
	default:
		r.cut(p)
	}
	return n, err
}

// cut takes the text out of events.
func (r *Recorder) cut(p []byte) {
	for len(p) > 0 {
		n := copy(r.events.Room(), p)
		r.events.Advance(n)
		p = p[n:]
		for event, ok := r.events.Next(); ok; event, ok = r.events.Next() {
			r.format.Text(event, r.draft.Write)
		}
		if r.events.Full() {
			r.draft.giveUp("one of its events is too long")
			return
		}
	}
}

// End completes the reply. What was kept of it is a creation before the client can know that it has all.
func (r *Recorder) End(trailer exchange.Header) error {
	if r.draft != nil {
		if r.events != nil {
			r.format.Text(r.events.Rest(), r.draft.Write)
		}
		r.draft.Keep()
	}
	return r.Reply.End(trailer)
}

// Upgrade hands the stream over, of which nothing is kept.
func (r *Recorder) Upgrade(h exchange.Header) (io.ReadWriteCloser, error) {
	r.draft.Drop()
	return r.Reply.Upgrade(h)
}

// Abort breaks the reply off.
func (r *Recorder) Abort() {
	r.draft.Drop()
	r.Reply.Abort()
}

// Close ends what did not come to its end. It may be called on a nil Recorder.
func (r *Recorder) Close() {
	if r != nil {
		r.draft.Drop()
	}
}

// clip bounds what a client or an upstream wrote and is kept beside the content.
func clip(s string) string { return s[:min(len(s), 256)] }

package placeholder

import (
	"bytes"
	"unicode/utf8"

	"github.com/postern-gateway/postern/sdk/go/json"
)

// Bounds of what a stream may hold back: octets and channels. Together with the largest Vault it fits what an exchange
// may carry.
const (
	maxPending  = 14 << 10
	maxChannels = 64
)

// A stream of server-sent events says one text in many pieces, and several texts at once: two choices, a tool call
// beside the content. Each is a channel here. When a piece ends in what may be the beginning of a placeholder, that end
// is held back: it goes in front of the channel's next piece, or into an event of its own when there is none.

// pending is what is held back of one channel.
type pending struct {
	channel, group uint64
	tail           []byte // the beginning of a placeholder
	before, after  []byte // the event of its own is before, tail, after
	continued      bool
}

type span struct{ start, end int }

// node is a value of an event's JSON text.
type node struct {
	kind       byte // { [ " or l for a literal
	parent     int  // index, -1 for the text itself
	key        span // the inside of its name; empty in an array
	at         int  // place in its array
	start, end int
}

// Held is how many channels something is held back of.
func (r *Restorer) Held() int { return len(r.sent) }

// Events restores whole server-sent events and reports whether anything changed. end tells that nothing follows; then
// nothing is held back. jsonMode tells that the content of the reply is a JSON text.
func (r *Restorer) Events(body []byte, end, jsonMode bool) (restored []byte, changed bool) {
	if len(r.sent) == 0 && !Suspicious(body) {
		return body, false
	}
	r.out = r.out[:0]
	for at := 0; at < len(body); {
		size := eventLength(body[at:])
		if r.event(body[at:at+size], jsonMode) {
			changed = true
		}
		at += size
	}
	if end && len(r.sent) > 0 {
		r.flush(func(*pending) bool { return true })
		changed = true
	}
	if !changed {
		return body, false
	}
	return r.out, true
}

// eventLength is the length of the event at the beginning of b, its blank line included.
func eventLength(b []byte) int {
	for at := 0; at < len(b); {
		_, next := line(b, at)
		if next-at <= 2 && (b[at] == '\n' || b[at] == '\r') {
			return next
		}
		at = next
	}
	return len(b)
}

// line returns the end of the line that begins at at, and where the next one begins.
func line(b []byte, at int) (end, next int) {
	for end = at; end < len(b); end++ {
		switch b[end] {
		case '\n':
			return end, end + 1
		case '\r':
			if end+1 < len(b) && b[end+1] == '\n' {
				return end, end + 2
			}
			return end, end + 1
		}
	}
	return end, end
}

// event appends one event, restored.
func (r *Restorer) event(event []byte, jsonMode bool) (changed bool) {
	var first span // of the data's first line, without the field's name
	lines := 0
	r.data = r.data[:0]
	for at := 0; at < len(event); {
		end, next := line(event, at)
		if value := at + len("data:"); value <= end && string(event[at:value]) == "data:" {
			if value < end && event[value] == ' ' {
				value++
			}
			if lines > 0 {
				r.data = append(r.data, '\n')
			}
			r.data = append(r.data, event[value:end]...)
			if lines == 0 {
				first = span{value, end}
			}
			lines++
		}
		at = next
	}
	if lines == 0 { // a comment: nothing is said
		r.out = append(r.out, event...)
		return false
	}
	if !r.parse(r.data) {
		if len(r.sent) > 0 {
			r.flush(func(*pending) bool { return true })
			changed = true
		}
		r.edits = r.edits[:0]
		if r.walk(r.data, 0) != nil {
			r.edits = r.edits[:0]
			r.plain(r.data, 0)
		}
		if len(r.edits) == 0 {
			r.out = append(r.out, event...)
			return changed
		}
		r.work = r.apply(r.work[:0], r.data, 0, len(r.data))
		r.fields(event, first, r.work)
		return true
	}
	n := len(r.sent)
	r.overdue()
	changed = n != len(r.sent)
	start := len(r.out)
	restored, different := r.strings(event, jsonMode)
	if !different {
		r.out = append(r.out[:start], event...)
		return changed
	}
	r.fields(event, first, restored)
	return true
}

// fields appends event with other data.
func (r *Restorer) fields(event []byte, first span, data []byte) {
	done := false
	for at := 0; at < len(event); {
		end, next := line(event, at)
		switch {
		case end-at < len("data:") || string(event[at:at+len("data:")]) != "data:":
			r.out = append(r.out, event[at:next]...)
		case !done:
			done = true
			prefix := event[at:first.start]
			for from := 0; from <= len(data); {
				lineEnd, lineNext := line(data, from)
				r.out = append(append(append(r.out, prefix...), data[from:lineEnd]...), event[end:next]...)
				if end == next { // the stream was cut: there is no line end to repeat
					r.out = append(r.out, '\n')
				}
				if lineNext == lineEnd {
					break
				}
				from = lineNext
			}
		}
		at = next
	}
}

// maxNodes bounds the values of an event that are looked at one by one; a larger one is no piece of a text.
const maxNodes = 4096

// parse takes an event's JSON text apart; ok is false when it is none, or a large one.
func (r *Restorer) parse(data []byte) (ok bool) {
	r.nodes = r.nodes[:0]
	if !utf8.Valid(data) {
		return false
	}
	s := &r.levels[0].scanner
	s.Reset(data)
	open, key := -1, span{}
	var places [json.MaxDepth + 1]int
	for {
		t := s.Next()
		switch t.Kind {
		case json.Bad:
			return false
		case json.End:
			return true
		case json.Key:
			key = span{t.Start + 1, t.End - 1}
			continue
		case json.Close:
			r.nodes[open].end = t.End
			open = r.nodes[open].parent
			continue
		}
		if len(r.nodes) == maxNodes {
			return false
		}
		n := node{kind: 'l', parent: open, key: key, start: t.Start, end: t.End}
		key = span{}
		depth := s.Depth()
		if t.Kind == json.Open {
			depth--
		}
		n.at = places[depth]
		places[depth]++
		switch t.Kind {
		case json.String:
			n.kind = '"'
		case json.Open:
			n.kind = data[t.Start]
			open = len(r.nodes)
			places[s.Depth()] = 0
		}
		r.nodes = append(r.nodes, n)
	}
}

func (r *Restorer) key(i int) []byte { return r.data[r.nodes[i].key.start:r.nodes[i].key.end] }

// speaker returns the object whose piece of text the string i is, or -1 when it is no piece: what stands under "delta",
// or the "text" of a choice.
func (r *Restorer) speaker(i int) int {
	if p := r.nodes[i].parent; p >= 0 && string(r.key(i)) == "text" {
		if list := r.nodes[p].parent; list >= 0 && string(r.key(list)) == "choices" {
			return p
		}
	}
	for ; i >= 0; i = r.nodes[i].parent {
		if string(r.key(i)) == "delta" {
			return r.nodes[i].parent
		}
	}
	return -1
}

// member returns the member of the object i called key, or -1.
func (r *Restorer) member(object int, key string) int {
	for i := object + 1; i < len(r.nodes) && r.nodes[i].start < r.nodes[object].end; i++ {
		if r.nodes[i].parent == object && string(r.key(i)) == key {
			return i
		}
	}
	return -1
}

const (
	offset64 = 14695981039346656037
	prime64  = 1099511628211
)

func mix(h uint64, b []byte) uint64 {
	for _, c := range b {
		h = (h ^ uint64(c)) * prime64
	}
	return (h ^ 0xff) * prime64
}

// place hashes where the value i stands up to the value root: names, and for what stands in an array the index it
// states, or its place.
func (r *Restorer) place(h uint64, i, root int) uint64 {
	for ; i >= 0 && i != root; i = r.nodes[i].parent {
		n := r.nodes[i]
		if n.key.end > n.key.start {
			h = mix(h, r.key(i))
			continue
		}
		if n.kind == '{' {
			if m := r.member(i, "index"); m >= 0 {
				h = mix(h, r.data[r.nodes[m].start:r.nodes[m].end])
				continue
			}
		}
		h = mix(h, []byte{byte(n.at), byte(n.at >> 8)})
	}
	return h
}

// group names a speaker: where it stands, and the indexes it states.
func (r *Restorer) group(speaker int) uint64 {
	h := r.place(offset64, speaker, -1)
	for i := speaker + 1; i < len(r.nodes) && r.nodes[i].start < r.nodes[speaker].end; i++ {
		if r.nodes[i].parent != speaker || r.nodes[i].kind != 'l' {
			continue
		}
		if key := r.key(i); len(key) >= 5 && string(key[len(key)-5:]) == "index" {
			h = mix(mix(h, key), r.data[r.nodes[i].start:r.nodes[i].end])
		}
	}
	return h
}

// channel names the text that the string i of a speaker is a piece of.
func (r *Restorer) channel(i, speaker int, group uint64) uint64 {
	if t := r.member(speaker, "type"); t >= 0 {
		group = mix(group, r.data[r.nodes[t].start:r.nodes[t].end])
	}
	return r.place(group, i, speaker)
}

// finished reports whether a speaker says that this is all.
func (r *Restorer) finished(speaker int) bool {
	for _, key := range [...]string{"finish_reason", "stop_reason"} {
		if i := r.member(speaker, key); i >= 0 && r.data[r.nodes[i].start] != 'n' {
			return true
		}
	}
	return false
}

// overdue sends what is held back for speakers that this event shows to have ended, before the event.
func (r *Restorer) overdue() {
	if len(r.sent) == 0 {
		return
	}
	for i := range r.sent {
		r.sent[i].continued = false
	}
	ended := r.member(0, "error") >= 0 && r.data[r.nodes[r.member(0, "error")].start] != 'n'
	for i := range r.nodes {
		if r.nodes[i].kind != '"' {
			continue
		}
		if speaker := r.speaker(i); speaker >= 0 {
			channel := r.channel(i, speaker, r.group(speaker))
			for p := range r.sent {
				r.sent[p].continued = r.sent[p].continued || r.sent[p].channel == channel
			}
		}
	}
	r.flush(func(p *pending) bool {
		if p.continued {
			return false
		}
		if ended {
			return true
		}
		for i := range r.nodes {
			if r.nodes[i].kind == '{' && r.group(i) == p.group && (r.finished(i) || r.member(i, "delta") < 0 && r.member(i, "text") < 0) {
				return true
			}
		}
		return false
	})
}

// flush sends events of their own for what is held back and due.
func (r *Restorer) flush(due func(*pending) bool) {
	kept := r.sent[:0]
	for i := range r.sent {
		p := &r.sent[i]
		if due(p) {
			r.out = append(append(append(r.out, p.before...), p.tail...), p.after...)
			continue
		}
		kept = append(kept, *p)
	}
	r.sent = kept
}

// strings restores an event's strings. The result is in r.work.
func (r *Restorer) strings(event []byte, jsonMode bool) (restored []byte, changed bool) {
	out, at := r.work[:0], 0
	r.queue = r.queue[:0]
	for i := range r.nodes {
		n := r.nodes[i]
		if n.kind != '"' {
			continue
		}
		inside := r.data[n.start+1 : n.end-1]
		speaker := r.speaker(i)
		if speaker < 0 {
			r.edits = r.edits[:0]
			if r.value(inside, n.start+1, 0, holdsJSON(r.key(i))); len(r.edits) > 0 {
				out = r.apply(out, r.data, at, n.end-1)
				at, changed = n.end-1, true
			}
			continue
		}
		if len(r.sent) == 0 && !Suspicious(r.data[n.start+1:n.end]) {
			continue
		}
		group := r.group(speaker)
		channel := r.channel(i, speaker, group)
		var prefix []byte
		for p := range r.sent {
			if r.sent[p].channel == channel {
				prefix = r.sent[p].tail
				r.sent = append(r.sent[:p], r.sent[p+1:]...)
				break
			}
		}
		out = append(out, r.data[at:n.start+1]...)
		at = n.end - 1
		var held []byte
		var different bool
		out, held, different = r.piece(out, prefix, inside, r.pieceLevels(i, jsonMode), !r.finished(speaker))
		if len(held) > 0 && !r.hold(i, channel, group, held, event) {
			out = append(out, held...)
		}
		changed = changed || different
	}
	out = append(out, r.data[at:]...)
	r.work = out
	r.sent = append(r.sent, r.queue...)
	return r.work, changed
}

// pieceLevels is how many strings deep the text of the string i is.
func (r *Restorer) pieceLevels(i int, jsonMode bool) int {
	if holdsJSON(r.key(i)) || jsonMode && string(r.key(i)) == "content" {
		return 2
	}
	if t := r.member(0, "type"); t >= 0 && r.nodes[t].kind == '"' && bytes.Contains(r.data[r.nodes[t].start:r.nodes[t].end], []byte("arguments")) {
		return 2
	}
	return 1
}

// piece appends the inside of a string that is a piece of a text, behind what was held back before it. held is what has
// to wait for the next piece.
func (r *Restorer) piece(dst, prefix, inside []byte, levels int, mayHold bool) (out, held []byte, changed bool) {
	l := &r.levels[1] // level 0 holds the event
	l.decoded = append(l.decoded[:0], prefix...)
	text, escaped := json.Unescape(l.decoded, inside)
	if !escaped {
		text = append(text, inside...)
	}
	l.decoded = text
	c := cursor{inside: inside}
	at := 0
	// copyTo appends the text up to to, as it was written. A prefix has nothing to escape.
	copyTo := func(to int) {
		if at < len(prefix) {
			dst = append(dst, text[at:min(to, len(prefix))]...)
		}
		if to > len(prefix) {
			from := c.offset(max(at, len(prefix)) - len(prefix))
			dst = append(dst, inside[from:c.offset(to-len(prefix))]...)
		}
		at = to
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '[' {
			continue
		}
		if kind, number, n := readPlaceholder(text[i:]); n > 0 {
			if value := r.Vault.find(kind, number); value >= 0 {
				copyTo(i)
				dst = appendEscaped(dst, r.Vault.value(value), levels)
				at = i + n
				changed = true
			}
			i += n - 1
			continue
		}
		if mayHold && r.Vault.partial(text[i:]) {
			copyTo(i)
			return dst, text[i:], true
		}
	}
	copyTo(len(text))
	return dst, nil, changed || len(prefix) > 0
}

// hold keeps tail, the end of the string i, and how the event looks that says nothing else. It reports false when there
// is no room.
func (r *Restorer) hold(i int, channel, group uint64, tail, event []byte) bool {
	blob := r.blob
	start := len(blob)
	for at := 0; at < len(event); { // the fields beside the data
		end, next := line(event, at)
		if end > at && event[at] != ':' && (end-at < len("data:") || string(event[at:at+len("data:")]) != "data:") {
			blob = append(append(blob, event[at:end]...), '\n')
		}
		at = next
	}
	blob = append(blob, "data: "...)
	at, middle := 0, 0
	for k := range r.nodes {
		n := r.nodes[k]
		switch {
		case n.start < at: // inside what was left out
			continue
		case k == i:
			blob = appendLine(blob, r.data[at:n.start+1])
			middle = len(blob)
			at = n.end - 1
		case string(r.key(k)) == "logprobs":
			blob = append(appendLine(blob, r.data[at:n.start]), "null"...)
			at = n.end
		case n.kind == '"' && string(r.key(k)) != "type" && r.speaker(k) >= 0: // said already
			blob = appendLine(blob, r.data[at:n.start+1])
			at = n.end - 1
		}
	}
	blob = append(appendLine(blob, r.data[at:]), "\n\n"...)
	end := len(blob)
	blob = append(blob, tail...)
	r.blob = blob
	size, count := len(blob)-start, len(r.sent)+len(r.queue)
	for _, list := range [...][]pending{r.sent, r.queue} {
		for k := range list {
			size += len(list[k].before) + len(list[k].tail) + len(list[k].after)
		}
	}
	if size > maxPending || count >= maxChannels {
		r.blob = blob[:start]
		return false
	}
	r.queue = append(r.queue, pending{
		channel: channel, group: group, before: blob[start:middle:middle], after: blob[middle:end:end], tail: blob[end:len(blob):len(blob)],
	})
	return true
}

// appendLine appends a part of a JSON text without its line ends, which in JSON stand only between tokens.
func appendLine(dst, part []byte) []byte {
	for _, c := range part {
		if c != '\n' && c != '\r' {
			dst = append(dst, c)
		}
	}
	return dst
}

// The carried form of what is held back: number u8, then for each channel u64, group u64, lengths of tail u8, before u16
// and after u16, and these.

// Append appends the carried form of what is held back.
func (r *Restorer) Append(dst []byte) []byte {
	dst = append(dst, byte(len(r.sent)))
	for i := range r.sent {
		p := &r.sent[i]
		for _, v := range [...]uint64{p.channel, p.group} {
			for k := range 8 {
				dst = append(dst, byte(v>>(8*k)))
			}
		}
		dst = append(dst, byte(len(p.tail)), byte(len(p.before)), byte(len(p.before)>>8), byte(len(p.after)), byte(len(p.after)>>8))
		dst = append(append(append(dst, p.tail...), p.before...), p.after...)
	}
	return dst
}

// Load reads what Append wrote. What it gives points into b.
func (r *Restorer) Load(b []byte) {
	r.sent, r.blob = r.sent[:0], r.blob[:0]
	if len(b) == 0 {
		return
	}
	n := int(b[0])
	b = b[1:]
	for range n {
		if len(b) < 21 {
			return
		}
		var p pending
		for k := range 8 {
			p.channel |= uint64(b[k]) << (8 * k)
			p.group |= uint64(b[8+k]) << (8 * k)
		}
		tail, before, after := int(b[16]), int(b[17])|int(b[18])<<8, int(b[19])|int(b[20])<<8
		b = b[21:]
		if len(b) < tail+before+after {
			return
		}
		p.tail, p.before, p.after = b[:tail], b[tail:tail+before], b[tail+before:tail+before+after]
		r.sent = append(r.sent, p)
		b = b[tail+before+after:]
	}
}

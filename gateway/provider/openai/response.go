package openai

import (
	"bytes"
	"strconv"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/provider"
)

// Decode makes the decoder of one response.
func (f *Format) Decode(op provider.Operation, call *exchange.Call, request []byte) provider.Decoder {
	d := &decoder{operation: op.Name, call: call, request: request, vocabularies: f.vocabularies, name: mustJSON(call.Model)}
	if op.Name == chat && call.Stream {
		r, problem := readRequest(op.Name, request)
		d.hideUsage = problem == nil && !r.wantsUsage
	}
	return d
}

// decoder reads one response. It keeps at most pendingText octets of it, and the request.
type decoder struct {
	operation    string
	call         *exchange.Call
	request      []byte
	vocabularies *vocabularies
	name         []byte // the public model name as a JSON string
	hideUsage    bool   // the customer asked for a stream without usage

	began    bool // some of a reply came
	refused  bool // an error came in place of a reply: nothing is to be paid for
	failed   bool
	reported bool // the upstream said what was used
	usage    exchange.Usage
	prompt   int64 // estimates of what was asked, once guessed
	spoken   int64 // the same for audio
	guessed  bool
	written  written
	audio    int64 // octets of audio written, base64

	edits   []edit // scratch
	payload []byte // scratch
}

// Whole replaces the model's name. A status outside 2xx is a refusal and costs nothing, and so does an error object with
// status 200, which some upstreams send.
func (d *decoder) Whole(status int, body []byte) []byte {
	if status < 200 || status > 299 {
		d.refused = true
		refusal := decoder{call: d.call, name: d.name}
		refusal.scan(body)
		return splice(nil, body, refusal.edits)
	}
	m, ok := d.scan(body)
	d.began, d.refused, d.failed = !m.failed, m.failed, m.failed
	if !ok {
		// Whatever this is, the customer gets it and the upstream made it.
		d.written.beyond += int64(len(body))
		return body
	}
	if len(d.edits) == 0 {
		return body
	}
	return splice(make([]byte, 0, len(body)+len(d.name)), body, d.edits)
}

// Event replaces the model's name and, for a customer who did not ask for usage, takes out what only asking for it put
// in: the chunk with usage and no choices, and the member usage of the others. Whatever is no JSON object passes as it is.
func (d *decoder) Event(dst, event []byte) (out []byte, last bool) {
	e := readEvent(event, d.payload[:0])
	if e.lines > 1 {
		d.payload = e.data
	}
	switch data := bytes.TrimSpace(e.data); {
	case len(data) == 0:
		return append(dst, event...), false
	case string(data) == "[DONE]":
		return append(dst, event...), true
	}
	m, ok := d.scan(e.data)
	if e.failed || m.failed {
		d.failed = true
		d.refused = !d.began
	} else {
		d.began = true
	}
	if ok && d.hideUsage && m.usage && m.noChoices {
		return dst, false
	}
	if len(d.edits) == 0 {
		return append(dst, event...), false
	}
	if e.lines == 1 {
		dst = append(dst, event[:e.at.from]...)
		dst = splice(dst, e.data, d.edits)
		return append(dst, event[e.at.to:]...), false
	}
	return e.rewrite(dst, event, splice(nil, e.data, d.edits)), false
}

// Failed reports an error object in place of a chunk.
func (d *decoder) Failed() bool { return d.failed }

// Usage is what the last report said, or an estimate. Before anything came it is an estimate of the prompt.
func (d *decoder) Usage() exchange.Usage {
	if d.reported {
		return d.usage
	}
	if d.refused {
		return exchange.Usage{}
	}
	target, _ := d.call.Chosen()
	c := d.vocabularies.of(target.Model)
	if !d.guessed {
		d.guessed = true
		if r, problem := readRequest(d.operation, d.request); problem == nil {
			d.prompt, d.spoken = r.prompt(c, target.Model)
		}
	}
	u := exchange.Usage{Estimated: true}
	u.Units[exchange.Input] = d.prompt
	u.Units[exchange.AudioInput] = d.spoken
	if most := d.call.Max.Prompt(); most > 0 {
		u.Units[exchange.Input] = min(d.prompt, most)
		u.Units[exchange.AudioInput] = min(d.spoken, most-u.Units[exchange.Input])
	}
	if d.operation == chat {
		out, audio := d.written.count(c), d.audio*3/4/octetsPerSpokenToken
		if most := d.call.Max.Completion(); most > 0 {
			out = min(out, most)
			audio = min(audio, most-out)
		}
		u.Units[exchange.Output] = out
		u.Units[exchange.AudioOutput] = audio
	}
	d.once(&u)
	return u
}

// once counts what a call has only one of.
func (d *decoder) once(u *exchange.Usage) {
	u.Units[exchange.Requests] = 1
	u.Units[exchange.Searches] = d.call.Max.Units[exchange.Searches]
}

// message is what one scan of a chunk or a whole reply finds.
type message struct {
	usage     bool // a usage object
	noChoices bool // choices is an empty array
	failed    bool // an error object
}

// scan reads a reply or a chunk, leaves in d.edits what is to change in it, and takes in usage and text. ok is false when
// b is not one JSON object; then nothing is taken.
func (d *decoder) scan(b []byte) (m message, ok bool) {
	d.edits = d.edits[:0]
	s := &scanner{b: b}
	if s.peek() != '{' {
		return message{}, false
	}
	s.open('{')
	kept := s.i // end of the last member that stays
	var usage, choices, failed span
	removed := -1 // start of a member taken out, up to the next one
	for first := true; s.next(first, '}'); first = false {
		if removed >= 0 {
			d.edits = append(d.edits, edit{span: span{removed, s.i}})
			removed = -1
		}
		k := s.key()
		if s.err != nil {
			break
		}
		s.peek()
		v := s.skip()
		switch {
		case means(b, k, "model") && isString(b, v):
			if !bytes.Equal(v.of(b), d.name) {
				d.edits = append(d.edits, edit{v, d.name})
			}
		case means(b, k, "usage"):
			usage = v
			if d.hideUsage {
				removed = k.from
			}
		case means(b, k, "choices"):
			choices = v
		case means(b, k, "error"):
			failed = v
			d.discreet(b, v)
		}
		if removed < 0 {
			kept = s.i
		}
	}
	s.end()
	if s.err != nil {
		d.edits = d.edits[:0]
		return message{}, false
	}
	if removed >= 0 {
		// The last member goes with the comma before it, and with others before it that went.
		last := s.i - 1
		for b[last] != '}' {
			last--
		}
		for len(d.edits) > 0 && d.edits[len(d.edits)-1].from >= kept {
			d.edits = d.edits[:len(d.edits)-1]
		}
		d.edits = append(d.edits, edit{span: span{kept, end(b, last)}})
	}
	if failed.found() && !null(b, failed) && !choices.found() {
		m.failed = true
	}
	if usage.found() && b[usage.from] == '{' {
		m.usage = true
		d.report(b, usage)
	}
	if choices.found() && b[choices.from] == '[' {
		inside := &scanner{b: b[:choices.to], i: choices.from}
		inside.open('[')
		m.noChoices = inside.peek() == ']'
		if !d.reported {
			inside = &scanner{b: b[:choices.to], i: choices.from}
			d.deliver(inside)
		}
	}
	return m, true
}

// discreet changes an error's message, which is an object's member or the error itself, so that the customer reads the
// name of the model asked for and not whose account the gateway calls the upstream with.
func (d *decoder) discreet(b []byte, failed span) {
	message := span{}
	if isString(b, failed) {
		message = failed
	}
	if b[failed.from] == '{' {
		s := &scanner{b: b[:failed.to], i: failed.from}
		s.open('{')
		for first := true; s.next(first, '}'); first = false {
			k := s.key()
			s.peek()
			if v := s.skip(); means(b, k, "message") && isString(b, v) {
				message = v
			}
		}
	}
	if !message.found() {
		return
	}
	old := message.of(b)
	text := old
	if target, ok := d.call.Chosen(); ok && target.Model != "" {
		text = replaceWord(text, target.Model, string(d.name[1:len(d.name)-1]))
	}
	text = mask(mask(text, "org-"), "proj_")
	if !bytes.Equal(text, old) {
		d.edits = append(d.edits, edit{message, text})
	}
}

// replaceWord replaces word in text where it stands alone. A name with signs that text could escape is left there.
func replaceWord(text []byte, word, by string) []byte {
	for i := range len(word) {
		if !inName(word[i]) {
			return text
		}
	}
	var out []byte
	for {
		i := bytes.Index(text, []byte(word))
		if i < 0 {
			return append(out, text...)
		}
		after := text[i+len(word):]
		// A full stop may end the sentence as well as join a version number.
		alone := (i == 0 || !inName(text[i-1]) && text[i-1] != '\\') && (len(after) == 0 || !inName(after[0]) || after[0] == '.' && (len(after) == 1 || !inName(after[1])))
		out = append(out, text[:i]...)
		if alone {
			out = append(out, by...)
		} else {
			out = append(out, word...)
		}
		text = after
	}
}

// mask hides what follows prefix in the identifiers that begin with it.
func mask(text []byte, prefix string) []byte {
	var out []byte
	for {
		i := bytes.Index(text, []byte(prefix))
		if i < 0 {
			return append(out, text...)
		}
		end := i + len(prefix)
		n := end
		for n < len(text) && inName(text[n]) && text[n] != '.' {
			n++
		}
		out = append(out, text[:end]...)
		if n-end >= 8 && (i == 0 || !inName(text[i-1])) {
			out = append(out, "..."...)
			end = n
		}
		text = text[end:]
	}
}

// inName reports whether c can be part of a model's name or an identifier.
func inName(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '.' || c == ':' || c == '/'
}

// end returns the end of the value before b[i], without the white space between.
func end(b []byte, i int) int {
	for i > 0 && bytes.IndexByte([]byte(" \t\r\n"), b[i-1]) >= 0 {
		i--
	}
	return i
}

// deliver takes the text out of choices: of messages or of deltas.
func (d *decoder) deliver(s *scanner) {
	s.open('[')
	for first := true; s.next(first, ']'); first = false {
		if s.peek() != '{' {
			s.skip()
			continue
		}
		s.open('{')
		for first := true; s.next(first, '}'); first = false {
			k := s.key()
			if means(s.b, k, "delta") || means(s.b, k, "message") {
				d.text(s, false, false)
			} else {
				s.skip()
			}
		}
	}
}

// text takes in every string of a value that the model wrote.
func (d *decoder) text(s *scanner, wanted, audio bool) {
	switch s.peek() {
	case '"':
		if v := s.skip(); v.found() {
			switch {
			case audio:
				d.audio += int64(v.to - v.from - 2)
			case wanted && v.to-v.from > 2:
				d.written.add(v.of(s.b))
			}
		}
	case '[':
		s.open('[')
		for first := true; s.next(first, ']'); first = false {
			d.text(s, wanted, false)
		}
	case '{':
		s.open('{')
		for first := true; s.next(first, '}'); first = false {
			k := s.key()
			d.text(s, isText(s.b, k) && !means(s.b, k, "role"), means(s.b, k, "data"))
		}
	default:
		s.skip()
	}
}

// report takes in a usage object. The last one counts: some upstreams repeat it, growing, in every chunk. One that says
// nothing was used at all is a placeholder and not believed.
func (d *decoder) report(b []byte, v span) {
	var prompt, completion, total, cached, audioIn, imageIn, reasoning, audioOut int64
	s := &scanner{b: b[:v.to], i: v.from}
	details := func(read func(k span, n int64)) {
		if s.peek() != '{' {
			s.skip()
			return
		}
		s.open('{')
		for first := true; s.next(first, '}'); first = false {
			k := s.key()
			s.peek()
			read(k, whole(s.skip().of(b)))
		}
	}
	s.open('{')
	for first := true; s.next(first, '}'); first = false {
		k := s.key()
		switch {
		case means(b, k, "prompt_tokens_details"):
			details(func(k span, n int64) {
				switch {
				case means(b, k, "cached_tokens"):
					cached = n
				case means(b, k, "audio_tokens"):
					audioIn = n
				case means(b, k, "image_tokens"):
					imageIn = n
				}
			})
			continue
		case means(b, k, "completion_tokens_details"):
			details(func(k span, n int64) {
				switch {
				case means(b, k, "reasoning_tokens"):
					reasoning = n
				case means(b, k, "audio_tokens"):
					audioOut = n
				}
			})
			continue
		}
		s.peek()
		n := whole(s.skip().of(b))
		switch {
		case means(b, k, "prompt_tokens"):
			prompt = n
		case means(b, k, "completion_tokens"):
			completion = n
		case means(b, k, "total_tokens"):
			total = n
		}
	}
	if prompt == 0 && completion == 0 {
		if total == 0 {
			return
		}
		prompt = total
	}
	d.reported = true
	d.usage = exchange.Usage{}
	u := &d.usage.Units
	// The details are parts of the sums, and overlap at most by mistake: what is left of a sum is the plain kind.
	take := func(from *int64, n int64) int64 {
		n = min(n, *from)
		*from -= n
		return n
	}
	u[exchange.CachedInput] = take(&prompt, cached)
	u[exchange.AudioInput] = take(&prompt, audioIn)
	u[exchange.ImageInput] = take(&prompt, imageIn)
	u[exchange.Input] = prompt
	u[exchange.Reasoning] = take(&completion, reasoning)
	u[exchange.AudioOutput] = take(&completion, audioOut)
	u[exchange.Output] = completion
	d.once(&d.usage)
}

// whole reads a count; what is no count is 0. Some upstreams write 12.0.
func whole(text []byte) int64 {
	if n, ok := integer(text); ok {
		return n
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || f < 0 || f > 1<<53 {
		return 0
	}
	return int64(f)
}

package openai

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Bounds of what a request may ask.
const (
	maxFields    = 128  // members of the body's object
	maxFieldName = 256  // octets of their names as written: each is compared with all others
	maxChoices   = 128  // n
	maxModelName = 256  // octets
	maxInputs    = 2048 // texts of an embeddings request
)

// The most that content which is no text can cost in input tokens, over the models OpenAI lists. They are upper bounds for
// holds, not estimates.
const (
	// An image in high detail is scaled into 2048x768, which is 8 tiles; the dearest model counts 2,833 tokens for the
	// image and 5,667 for each tile.
	imageTokens    = 48_169
	lowImageTokens = 2_833
	// Audio is ten tokens a second, and no codec the API takes goes below a thousand octets a second.
	octetsPerAudioToken = 100
	// A reply in audio that a message refers to by its id, as long as the audio models write at most.
	audioReplyTokens = 16_384
	// A file's text may be compressed, so nothing but the largest context window bounds it, however many files there are.
	fileTokens = 1_050_000
)

// request is what one scan of a body finds.
type request struct {
	body  []byte
	open  int    // offset after the object's opening brace
	name  string // the model
	model span   // its value, with quotes

	stream        bool
	private       bool // store is false
	streamOptions span // its value
	includeUsage  span // its value
	wantsUsage    bool // include_usage is true

	maxTokens  int64 // max_tokens or max_completion_tokens, 0 when neither was given
	maxParam   string
	choices    int64 // n
	prediction int64 // octets of a predicted output; it is billed as output where it was wrong
	search     bool  // web_search_options

	media     int64 // octets of the body that are images, audio or files
	images    int64
	lowImages int64
	audio     int64 // octets of base64
	replies   int64 // earlier replies in audio, by reference
	files     int64
	fileData  int64 // octets of base64

	tokens   int64 // an embeddings request's tokens that came as numbers
	numbers  int64 // octets of these in the body
	messages span
	tools    span // the longest of tools, functions and response_format: text for the model
	schema   span
	input    span
}

// invalid makes the Problem for a body that can not be read.
func invalid(param, format string, args ...any) *exchange.Problem {
	return &exchange.Problem{
		Status: 400, Code: "invalid_request", Title: "Invalid request", Detail: fmt.Sprintf(format, args...), Param: param,
	}
}

// readRequest scans a body of operation op.
func readRequest(op string, body []byte) (*request, *exchange.Problem) {
	if !utf8.Valid(body) {
		return nil, invalid("", "The body is not valid UTF-8 at %s.", position(body, invalidUTF8(body)))
	}
	r := &request{body: body, choices: 1}
	s := &scanner{b: body}
	if s.peek() != '{' {
		return nil, invalid("", "The body must be a JSON object; it begins otherwise at %s.", position(body, s.i))
	}
	s.open('{')
	r.open = s.i
	var names [maxFields]span
	count := 0
	var problem *exchange.Problem
	for first := true; s.next(first, '}'); first = false {
		k := s.key()
		if s.err != nil {
			break
		}
		if k.to-k.from > maxFieldName {
			return nil, invalid("", "The field at %s has a name of more than %d octets.", position(body, k.from), maxFieldName)
		}
		if count == maxFields {
			return nil, invalid("", "The body has more than %d fields.", maxFields)
		}
		for _, other := range names[:count] {
			if same(body, k, other) {
				return nil, invalid(text(body, k), "The field %q is given twice, the second time at %s.", text(body, k), position(body, k.from))
			}
		}
		names[count] = k
		count++
		if p := r.member(s, op, k); p != nil && problem == nil {
			problem = p // a syntax error further on is told first: it may be the cause
		}
	}
	s.end()
	switch {
	case s.err != nil:
		return nil, invalid("", "The body is not valid JSON: %v.", s.err)
	case problem != nil:
		return nil, problem
	case !r.model.found():
		return nil, invalid("model", "The field \"model\" is missing.")
	case op == chat && !r.messages.found():
		return nil, invalid("messages", "The field \"messages\" is missing.")
	case op == embeddings && !r.input.found():
		return nil, invalid("input", "The field \"input\" is missing.")
	}
	return r, nil
}

// member reads the value of one top-level member.
func (r *request) member(s *scanner, op string, k span) *exchange.Problem {
	name := k.of(r.body)
	var room [32]byte
	if bytes.IndexByte(name, '\\') >= 0 {
		name = append(append(append(room[:0], '"'), unquote(nil, name)...), '"')
	}
	s.peek()
	at := s.i
	switch string(name[1 : len(name)-1]) {
	case "model":
		r.model = s.skip()
		if !isString(r.body, r.model) {
			return invalid("model", "The field \"model\" must be a string.")
		}
		if r.name = text(r.body, r.model); r.name == "" || len(r.name) > maxModelName {
			return invalid("model", "The field \"model\" must have 1 to %d octets.", maxModelName)
		}
		return nil
	case "input":
		r.input = s.skip()
		if op == embeddings {
			return r.inputs()
		}
		return nil
	}
	if op != chat {
		s.skip()
		return r.folded(k)
	}
	switch string(name[1 : len(name)-1]) {
	case "messages":
		if s.peek() != '[' {
			s.skip()
			return invalid("messages", "The field \"messages\" must be an array.")
		}
		r.readMessages(s)
		r.messages = span{at, s.i}
	case "stream":
		return r.boolean(s.skip(), "stream", &r.stream)
	case "store":
		v := s.skip() // of any other kind it is the upstream's to refuse
		r.private = string(v.of(r.body)) == "false"
	case "stream_options":
		return r.readStreamOptions(s)
	case "max_tokens", "max_completion_tokens":
		v := s.skip()
		if null(r.body, v) {
			return nil
		}
		param := string(name[1 : len(name)-1])
		if r.maxTokens > 0 {
			return invalid(param, "Only one of \"max_tokens\" and \"max_completion_tokens\" may be given.")
		}
		n, ok := integer(v.of(r.body))
		if !ok || n < 1 {
			return invalid(param, "The field %q must be a whole number of at least 1.", param)
		}
		r.maxTokens, r.maxParam = n, param
	case "n":
		v := s.skip()
		if null(r.body, v) {
			return nil
		}
		n, ok := integer(v.of(r.body))
		if !ok || n < 1 || n > maxChoices {
			return invalid("n", "The field \"n\" must be a whole number from 1 to %d.", maxChoices)
		}
		r.choices = n
	case "prediction":
		v := s.skip()
		if !null(r.body, v) {
			r.prediction = int64(v.to - v.from)
		}
	case "web_search_options":
		r.search = !null(r.body, s.skip())
	case "service_tier":
		// The other tiers cost more than the model's price says.
		switch v := s.skip(); string(v.of(r.body)) {
		case `"auto"`, `"default"`, `"flex"`, "null", "":
		default:
			return invalid("service_tier", "The field \"service_tier\" may be auto, default or flex here.")
		}
	case "models":
		// Some upstreams take another model from it than the one that was paid for.
		s.skip()
		return invalid("models", "The field \"models\" is not supported. Name one model in \"model\".")
	case "best_of":
		// Some upstreams write that many replies, report one and are paid for all.
		if v := s.skip(); !null(r.body, v) && string(v.of(r.body)) != "1" {
			return invalid("best_of", "The field \"best_of\" is not supported.")
		}
	case "tools":
		r.tools = s.skip()
	case "functions":
		if v := s.skip(); !r.tools.found() {
			r.tools = v
		}
	case "response_format":
		r.schema = s.skip()
	default:
		s.skip()
		return r.folded(k)
	}
	return nil
}

// folded refuses a name that is one Read bills or routes by, but for upper and lower case: an upstream that ignores case
// would read another value than the gateway.
func (r *request) folded(k span) *exchange.Problem {
	plain := true
	for _, c := range k.of(r.body) {
		plain = plain && c != '\\' && c < utf8.RuneSelf && (c < 'A' || c > 'Z')
	}
	if plain {
		return nil
	}
	name := text(r.body, k)
	for _, known := range [...]string{
		"model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "prediction",
		"web_search_options", "messages", "input", "service_tier", "models", "best_of",
	} {
		if name != known && strings.EqualFold(name, known) {
			return invalid(name, "The field %q is not known. Did you mean %q?", name, known)
		}
	}
	return nil
}

func (r *request) boolean(v span, param string, to *bool) *exchange.Problem {
	switch string(v.of(r.body)) {
	case "true":
		*to = true
	case "false", "null", "":
	default:
		return invalid(param, "The field %q must be true or false.", param)
	}
	return nil
}

func (r *request) readStreamOptions(s *scanner) *exchange.Problem {
	from := s.i
	if s.peek() != '{' {
		v := s.skip()
		if !null(r.body, v) {
			return invalid("stream_options", "The field \"stream_options\" must be an object.")
		}
		r.streamOptions = v
		return nil
	}
	var problem *exchange.Problem
	s.open('{')
	for first := true; s.next(first, '}'); first = false {
		k := s.key()
		v := s.skip()
		switch {
		case s.err != nil:
		case !means(r.body, k, "include_usage"):
			if strings.EqualFold(text(r.body, k), "include_usage") {
				problem = invalid("stream_options", "The field \"stream_options\" has an unknown member %q.", text(r.body, k))
			}
		case r.includeUsage.found():
			problem = invalid("stream_options.include_usage", "The field \"include_usage\" is given twice.")
		default:
			r.includeUsage = v
			if p := r.boolean(v, "stream_options.include_usage", &r.wantsUsage); p != nil {
				problem = p
			}
		}
	}
	r.streamOptions = span{from, s.i}
	return problem
}

// readMessages finds the content that is no text: messages[].content[].image_url.url, input_audio.data and file. Names are
// compared without case: an upstream that ignores case would see an image where the gateway held for a few octets.
func (r *request) readMessages(s *scanner) {
	s.open('[')
	for first := true; s.next(first, ']'); first = false {
		if s.peek() != '{' {
			s.skip()
			continue
		}
		s.open('{')
		for first := true; s.next(first, '}'); first = false {
			k := s.key()
			if reads(r.body, k, "audio") && s.peek() == '{' {
				r.replies++
			}
			if !reads(r.body, k, "content") || s.peek() != '[' {
				s.skip()
				continue
			}
			s.open('[')
			for first := true; s.next(first, ']'); first = false {
				r.readPart(s)
			}
		}
	}
}

// readPart reads one part of a message's content.
func (r *request) readPart(s *scanner) {
	if s.peek() != '{' {
		s.skip()
		return
	}
	s.open('{')
	for first := true; s.next(first, '}'); first = false {
		k := s.key()
		image, audio := reads(r.body, k, "image_url"), reads(r.body, k, "input_audio")
		file := reads(r.body, k, "file")
		if !image && !audio && !file || s.peek() != '{' {
			switch c := s.peek(); {
			case c == '"' && image:
				r.images++ // a plain URL, as some upstreams take it
			case (c == '"' || c == '{') && r.elsewhere(k):
				r.files++ // a video or the like, as some upstreams take it, of any length
			}
			s.skip()
			continue
		}
		low, details := false, 0
		s.open('{')
		for first := true; s.next(first, '}'); first = false {
			k := s.key()
			v := s.skip()
			if !isString(r.body, v) {
				continue
			}
			size := int64(v.to - v.from)
			switch {
			case image && reads(r.body, k, "url"):
				r.media += size
			case image && reads(r.body, k, "detail"):
				low = means(r.body, v, "low")
				details++
			case audio && reads(r.body, k, "data"):
				r.media += size
				r.audio += size
			case file && reads(r.body, k, "file_data"):
				r.media += size
				r.fileData += size
			}
		}
		switch {
		case file:
			r.files++
		case image && low && details == 1: // of two nobody knows which one counts
			r.lowImages++
		case image:
			r.images++
		}
	}
}

// elsewhere reports whether a member of a part points to content that lies elsewhere.
func (r *request) elsewhere(k span) bool {
	if !k.found() {
		return false
	}
	name := strings.ToLower(text(r.body, k))
	return strings.HasSuffix(name, "_url") || name == "video" || name == "input_video" || name == "input_file"
}

// inputs reads an embeddings request's input: a text, an array of texts, an array of tokens or an array of these.
func (r *request) inputs() *exchange.Problem {
	if isString(r.body, r.input) {
		return nil
	}
	wrong := invalid("input", "The field \"input\" must be a string, an array of strings, an array of tokens or an array of such arrays.")
	if r.body[r.input.from] != '[' {
		return wrong
	}
	s := &scanner{b: r.body[:r.input.to], i: r.input.from}
	token := func(v span) bool {
		if _, ok := integer(v.of(r.body)); !ok {
			return false
		}
		r.tokens++
		r.numbers += int64(v.to - v.from)
		return true
	}
	s.open('[')
	kind, count := byte(0), 0
	for first := true; s.next(first, ']'); first = false {
		c := s.peek()
		if c >= '0' && c <= '9' {
			c = '0'
		}
		if kind == 0 {
			kind = c
		}
		count++
		switch {
		case c != kind:
			return wrong
		case c == '"':
			s.skip()
		case c == '0':
			if !token(s.skip()) {
				return wrong
			}
		case c == '[':
			s.open('[')
			for first := true; s.next(first, ']'); first = false {
				s.peek()
				if !token(s.skip()) {
					return wrong
				}
			}
		default:
			return wrong
		}
	}
	if count == 0 || kind != '0' && count > maxInputs {
		return invalid("input", "The field \"input\" must have 1 to %d entries.", maxInputs)
	}
	return nil
}

// limits checks the request against the model's output limit, 0 for none known yet.
func (r *request) limits(maxOutput int64) *exchange.Problem {
	if maxOutput > 0 && r.maxTokens > maxOutput {
		return invalid(r.maxParam, "%s is too large: %d. This model writes at most %d tokens.", r.maxParam, r.maxTokens, maxOutput)
	}
	return nil
}

// most bounds what the call can use.
func (r *request) most(maxOutput int64) exchange.Usage {
	var u exchange.Usage
	u.Units[exchange.Requests] = 1
	// Each token that came as a number is one token, whatever its digits.
	u.Units[exchange.Input] = int64(len(r.body)) - r.media - r.numbers + r.tokens
	if r.files > 0 {
		u.Units[exchange.Input] += fileTokens
	}
	u.Units[exchange.ImageInput] = r.images*imageTokens + r.lowImages*lowImageTokens
	u.Units[exchange.AudioInput] = r.replies * audioReplyTokens
	if r.audio > 0 {
		u.Units[exchange.AudioInput] += r.audio/octetsPerAudioToken + 1
	}
	if r.input.found() && !r.messages.found() {
		return u // embeddings write nothing
	}
	if r.search {
		u.Units[exchange.Searches] = 1
	}
	output := r.maxTokens
	if output == 0 {
		output = maxOutput
	}
	if output > 0 {
		output += r.prediction
	}
	u.Units[exchange.Output] = output * r.choices // at most 2^53 * 2^7
	return u
}

// encode makes the upstream's body. output is the most the call may write, over all its choices.
func (r *request) encode(model string, output int64) ([]byte, error) {
	if model == "" {
		return nil, errors.New("the target has no model name")
	}
	if r.messages.found() && r.maxTokens*r.choices > output {
		// A stage has changed the body since the money was held.
		return nil, fmt.Errorf("the body asks for %d times %d output tokens, and %d are held for", r.choices, r.maxTokens, output)
	}
	var edits [3]edit
	list := edits[:0]
	var front []byte
	if r.messages.found() && r.maxTokens == 0 && output > 0 {
		// Each choice may write its share. What of a prediction is not used is paid for besides and not part of it. Some
		// upstreams refuse a limit beside a prediction; without one the call could cost more than is held for it.
		front = strconv.AppendInt(append(front, `"max_completion_tokens":`...), max(output/r.choices-r.prediction, 1), 10)
		front = append(front, ',')
	}
	if model != r.name {
		list = append(list, edit{r.model, mustJSON(model)})
	}
	if r.stream && !r.wantsUsage {
		const ask = `"include_usage":true`
		switch {
		case r.includeUsage.found(): // false or null
			list = append(list, edit{r.includeUsage, []byte("true")})
		case !r.streamOptions.found():
			front = append(front, `"stream_options":{`+ask+`},`...)
		case null(r.body, r.streamOptions):
			list = append(list, edit{r.streamOptions, []byte(`{` + ask + `}`)})
		default:
			at := bytes.IndexByte(r.body[r.streamOptions.from:], '{') + r.streamOptions.from + 1
			rest := scanner{b: r.body, i: at}
			add := ask + ","
			if rest.peek() == '}' {
				add = ask
			}
			list = append(list, edit{span{at, at}, []byte(add)})
		}
	}
	if len(list) == 2 && list[0].from > list[1].from {
		list[0], list[1] = list[1], list[0]
	}
	size := len(r.body) + len(front)
	for _, e := range list {
		size += len(e.text)
	}
	out := make([]byte, 0, size)
	out = append(out, r.body[:r.open]...)
	out = append(out, front...)
	for i := range list {
		list[i].from -= r.open
		list[i].to -= r.open
	}
	return splice(out, r.body[r.open:], list), nil
}

// text is what the JSON string at v means.
func text(b []byte, v span) string {
	quoted := v.of(b)
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	return string(unquote(nil, quoted))
}

// same reports whether two JSON strings mean the same.
func same(b []byte, k, l span) bool {
	x, y := k.of(b), l.of(b)
	if bytes.IndexByte(x, '\\') < 0 && bytes.IndexByte(y, '\\') < 0 {
		return bytes.Equal(x, y)
	}
	return bytes.Equal(unquote(nil, x), unquote(nil, y))
}

// invalidUTF8 returns the offset of the first octet that is not UTF-8.
func invalidUTF8(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(b)
}

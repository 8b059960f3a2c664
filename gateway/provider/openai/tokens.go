package openai

import (
	"bytes"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/tiktoken-go/tokenizer/codec"
)

const (
	// countedPrompt is how much of a prompt's text is counted exactly; of a longer one the rest is taken to have as many
	// tokens an octet. Counting goes at some 4 MB/s, and a customer can make it happen by leaving a stream early.
	countedPrompt = 256 << 10
	// pendingText is how much delivered text a decoder keeps until it is counted.
	pendingText = 16 << 10
	// octetsPerToken serves where nothing was counted to go by.
	octetsPerToken = 4
	// What the chat templates add to the text: for each message, and once to start the reply.
	messageTokens = 3
	replyTokens   = 3
	// Typical, not most: an image of 1024x1024 in high detail, and in low detail.
	typicalImageTokens    = 765
	typicalLowImageTokens = 85
	// The same for the models that count images dearer, at a lower price a token.
	dearImageTokens    = 25_501
	dearLowImageTokens = 2_833
	// A file of a few pages that is only named; base64 to a token of a file that is there.
	typicalFileTokens  = 2_000
	octetsPerFileToken = 8
	// PCM of 16 bits at 24 kHz, 20 tokens a second of speech written.
	octetsPerSpokenToken = 2400
)

// vocabularies are the token vocabularies, loaded when first needed: o200k_base takes 35 ms and 7 MiB, cl100k_base half
// of it. They can not change and are safe for concurrent use.
type vocabularies struct {
	o200kOnce, cl100kOnce sync.Once
	o200k, cl100k         *codec.Codec
}

// of picks the vocabulary of an upstream model; o200k_base unless the name is known to have the older one.
func (v *vocabularies) of(model string) *codec.Codec {
	for _, prefix := range []string{"gpt-4-", "gpt-3.5", "text-embedding-"} {
		if model == "gpt-4" || strings.HasPrefix(model, prefix) {
			v.cl100kOnce.Do(func() { v.cl100k = codec.NewCl100kBase() })
			return v.cl100k
		}
	}
	v.o200kOnce.Do(func() { v.o200k = codec.NewO200kBase() })
	return v.o200k
}

// count returns how many tokens text is. Should the tokenizer fail, it goes by octets.
func count(c *codec.Codec, text string) int64 {
	n, err := c.Count(text)
	if err != nil {
		return int64(len(text)+octetsPerToken-1) / octetsPerToken
	}
	return int64(n)
}

// prompt estimates the tokens of what was asked: the text of messages, tools and schema, and typical values for images
// and audio.
func (r *request) prompt(c *codec.Codec, model string) (text, audio int64) {
	var t collector
	if r.input.found() && !r.messages.found() {
		t.collect(&scanner{b: r.body[:r.input.to], i: r.input.from}, true)
		return r.tokens + t.count(c), 0
	}
	s := &scanner{b: r.body[:r.messages.to], i: r.messages.from}
	n := int64(replyTokens)
	s.open('[')
	for first := true; s.next(first, ']'); first = false {
		n += messageTokens
		t.collect(s, false)
	}
	if r.tools.found() {
		t.add(r.tools.of(r.body))
	}
	if r.schema.found() {
		t.add(r.schema.of(r.body))
	}
	image, low := int64(typicalImageTokens), int64(typicalLowImageTokens)
	if strings.HasPrefix(model, "gpt-4o-mini") {
		image, low = dearImageTokens, dearLowImageTokens
	}
	n += t.count(c) + r.images*image + r.lowImages*low
	n += max(r.files*typicalFileTokens, r.fileData/octetsPerFileToken)
	return n, r.audio / octetsPerAudioToken / 10 // compressed speech is about ten times the least a codec can
}

// collector gathers text to count.
type collector struct {
	text   []byte
	beyond int64 // octets not kept
}

func (t *collector) add(b []byte) {
	room := countedPrompt - len(t.text)
	if len(b) > room {
		t.beyond += int64(len(b) - room)
		b = b[:room]
	}
	t.text = append(t.text, b...)
}

// collect adds every string that a value holds as text for the model.
func (t *collector) collect(s *scanner, wanted bool) {
	switch s.peek() {
	case '"':
		v := s.skip()
		switch {
		case !wanted || !v.found():
		case len(t.text) >= countedPrompt:
			t.beyond += int64(v.to - v.from - 2)
		default:
			before := len(t.text)
			t.text = unquote(t.text, v.of(s.b))
			if over := len(t.text) - countedPrompt; over > 0 && before < countedPrompt {
				t.beyond += int64(over)
				t.text = t.text[:countedPrompt]
			}
			t.add([]byte(" ")) // two texts share no token
		}
	case '[':
		s.open('[')
		for first := true; s.next(first, ']'); first = false {
			t.collect(s, wanted)
		}
	case '{':
		s.open('{')
		for first := true; s.next(first, '}'); first = false {
			k := s.key()
			switch {
			case means(s.b, k, "image_url"), means(s.b, k, "input_audio"), means(s.b, k, "file"):
				s.skip()
			default:
				t.collect(s, isText(s.b, k))
			}
		}
	default:
		s.skip()
	}
}

func (t *collector) count(c *codec.Codec) int64 {
	n := count(c, string(bytes.TrimRight(t.text, " "))) // without the blank after the last text
	if t.beyond > 0 {
		n += scale(t.beyond, n, int64(len(t.text)))
	}
	return n
}

// scale returns how many tokens octets have when others of that number had tokens.
func scale(octets, tokens, others int64) int64 {
	if others == 0 {
		return (octets + octetsPerToken - 1) / octetsPerToken
	}
	return (octets*tokens + others - 1) / others
}

// isText reports whether a member of a message or delta holds text the model read or wrote.
func isText(b []byte, k span) bool {
	if !k.found() {
		return false
	}
	switch string(b[k.from+1 : k.to-1]) {
	case "role", "content", "text", "refusal", "reasoning_content", "reasoning", "thinking", "name", "arguments", "input",
		"transcript":
		return true
	}
	return false
}

// written counts delivered text as it comes, in bounded memory.
type written struct {
	text   []byte // not yet counted, at most pendingText
	tokens int64  // of the text counted before
	octets int64  // of the same
	beyond int64  // octets that found no room
	tail   int64  // tokens of text, when known is set
	known  bool
}

// add appends a JSON string, given with its quotes.
func (w *written) add(quoted []byte) {
	w.known = false
	if len(w.text)+len(quoted) > pendingText {
		w.beyond += int64(len(quoted) - 2)
		return
	}
	w.text = unquote(w.text, quoted)
}

// count returns the tokens of everything added. Text before the last blank between words is counted for good: the
// vocabularies never join what is before such a blank with what follows.
func (w *written) count(c *codec.Codec) int64 {
	if !w.known {
		if cut := lastBlank(w.text); cut > 0 {
			w.tokens += count(c, string(w.text[:cut]))
			w.octets += int64(cut)
			w.text = append(w.text[:0], w.text[cut:]...)
		}
		w.tail = count(c, string(w.text))
		w.known = true
	}
	n := w.tokens + w.tail
	if w.beyond > 0 {
		n += scale(w.beyond, n, w.octets+int64(len(w.text)))
	}
	return n
}

// lastBlank returns the offset of the last blank that follows something else than white space, or, in long text without
// one, of a character's start.
func lastBlank(text []byte) int {
	for i := len(text) - 1; i > 0; i-- {
		if text[i] == ' ' && !bytes.ContainsRune([]byte(" \t\r\n"), rune(text[i-1])) && text[i-1] < utf8.RuneSelf {
			return i
		}
	}
	if len(text) < pendingText/4 {
		return 0
	}
	i := len(text) - 1
	for i > 0 && !utf8.RuneStart(text[i]) {
		i--
	}
	return i
}

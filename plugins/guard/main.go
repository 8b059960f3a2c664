// Command guard is a Postern plugin with rules for prompts: its main type is plugin. It reads every text of a request, holds
// it against the operator's patterns, its bounds and a list of phrases that jailbreaks are made of, and refuses or flags it. It
// changes nothing and keeps nothing.
package main

import (
	"encoding/base64"
	"errors"
	"regexp"
	"strconv"
	"unicode/utf8"

	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/go/json"
)

var _ = postern.Register(newPlugin())

func main() {}

// plugin is one instance.
type plugin struct {
	stages  []stage
	request request
	folder  *folder
	markers *markers
	buffer  []byte
	decoded []byte
	hits    []bool // by rule: it has matched
}

func newPlugin() *plugin { return &plugin{folder: newFolder(), markers: newMarkers()} }

// stage is one use of the plugin.
type stage struct {
	maxCharacters int64
	maxMessages   int64
	roles         []string
	rules         []rule
	jailbreak     string
	suspects      [128]bool // by role, and noRole at the end: texts that a caller's user may have written
	pass          bool      // on_invalid = "pass"
}

// rule is one of the operator's.
type rule struct {
	name    string
	pattern *regexp.Regexp
	action  string
	roles   [128]bool // by role, and noRole at the end
	message string
}

// Slots, in the order of plugin.hcl.
const (
	slotContentType = iota
	slotContentEncoding
)

// place is the index of a role in a [128]bool.
func place(role int8) int {
	if role == noRole {
		return 126
	}
	return int(role)
}

// Configure reads a stage's configuration.
func (p *plugin) Configure(s *postern.Stage) error {
	st := stage{
		maxCharacters: s.Config.Member("max_characters").Int(), maxMessages: s.Config.Member("max_messages").Int(),
		jailbreak: s.Config.Member("jailbreak").Text(), pass: s.Config.Member("on_invalid").Text() == "pass",
	}
	if st.maxCharacters < 0 || st.maxMessages < 0 {
		return errors.New("max_characters and max_messages: not below 0")
	}
	for _, v := range s.Config.Member("roles").Each {
		st.roles = append(st.roles, v.Text())
	}
	if len(st.roles) == 0 || len(st.roles) > 100 {
		return errors.New("roles: name 1 to 100")
	}
	of := func(argument string, list postern.Value) (places [128]bool, err error) {
		for _, v := range list.Each {
			at := -1
			for i, r := range st.roles {
				if r == v.Text() {
					at = i
				}
			}
			switch {
			case v.Text() == "":
				places[place(noRole)] = true
			case at >= 0:
				places[at] = true
			default:
				return places, errors.New(argument + ": there is no role " + strconv.Quote(v.Text()) + " among roles")
			}
		}
		return places, nil
	}
	for i, r := range st.roles {
		st.suspects[i] = r == "user" || r == "tool" || r == "function"
	}
	st.suspects[place(noRole)] = true
	seen := map[string]bool{"jailbreak": true}
	for _, v := range s.Config.Member("rule").Each {
		r := rule{name: v.Member("name").Text(), action: v.Member("action").Text(), message: v.Member("message").Text()}
		if !word(r.name) || seen[r.name] {
			return errors.New("rule " + strconv.Quote(r.name) + ": a name is of a-z, 0-9 and _, is used once and is not jailbreak")
		}
		seen[r.name] = true
		var err error
		if r.pattern, err = regexp.Compile(v.Member("pattern").Text()); err != nil {
			return errors.New("rule " + r.name + ": " + err.Error())
		}
		if r.roles, err = of("rule "+r.name, v.Member("roles")); err != nil {
			return err
		}
		if len(r.message) > abi.MaxDetail {
			return errors.New("rule " + r.name + ": a message has at most 1024 octets")
		}
		st.rules = append(st.rules, r)
	}
	if len(st.rules) == 0 && st.maxCharacters == 0 && st.maxMessages == 0 && st.jailbreak == "off" {
		return errors.New("it guards nothing: write a rule, a bound or jailbreak")
	}
	for len(p.stages) <= s.Number {
		p.stages = append(p.stages, stage{})
	}
	p.stages[s.Number] = st
	return nil
}

// On looks through one request.
func (p *plugin) On(e *postern.Event, r *postern.Result) error {
	if e.Kind != abi.EventRequest {
		return nil
	}
	st := &p.stages[e.Stage]
	body, _ := e.Body()
	if len(body) == 0 {
		return nil
	}
	if e.Truncated() {
		r.Respond(413, "body_too_large", "The request body is larger than can be looked through.")
		return nil
	}
	err := errInvalid
	if encoding, ok := e.Header(slotContentEncoding); !ok || string(encoding) == "identity" {
		err = p.request.read(body, st.roles)
	}
	readable := err == nil
	switch {
	case errors.Is(err, errTooMany):
		r.Respond(413, "body_too_large", "The request body has more texts than can be looked through.")
		return nil
	case !readable && st.pass:
		r.Meter("unreadable", 1)
		return nil
	case !readable:
		r.Respond(400, "unreadable_body", "The request body can not be looked through: it has to be JSON in UTF-8, not compressed.")
		return nil
	}
	p.judge(body, r, st)
	return nil
}

// judge holds a request's texts against the stage's rules.
func (p *plugin) judge(body []byte, r *postern.Result, st *stage) {
	q := &p.request
	if q.stranger {
		r.Respond(400, "unknown_role", "A message has a role that there is not.")
		return
	}
	if st.maxMessages > 0 && int64(q.messages) > st.maxMessages {
		r.Respond(400, "too_many_messages", "The request has more messages than the "+strconv.FormatInt(st.maxMessages, 10)+" that are allowed.")
		return
	}
	p.hits = p.hits[:0]
	for range st.rules {
		p.hits = append(p.hits, false)
	}
	characters, jailbreak := int64(0), false
	for _, t := range q.texts {
		text, escaped := json.Unescape(p.buffer[:0], body[t.start:t.end])
		if escaped {
			p.buffer = text
		} else {
			text = body[t.start:t.end]
		}
		characters += int64(utf8.RuneCount(text))
		if st.maxCharacters > 0 && characters > st.maxCharacters {
			r.Respond(400, "prompt_too_long", "The request's texts have more than the "+strconv.FormatInt(st.maxCharacters, 10)+" characters that are allowed.")
			return
		}
		at, excused := place(t.role), false
		for i := range st.rules {
			k := &st.rules[i]
			if excused || !k.roles[at] || !k.pattern.Match(text) {
				continue
			}
			p.hits[i] = true
			switch k.action {
			case "deny":
				r.Meter("denied", 1)
				r.SetAttribute("self.rule", k.name)
				r.Respond(400, "prompt_refused", k.message)
				return
			case "allow":
				excused = true
			}
		}
		if st.jailbreak != "off" && !excused && !jailbreak && st.suspects[at] {
			jailbreak = p.suspicious(text)
		}
	}
	if jailbreak && st.jailbreak == "deny" {
		r.Meter("jailbreak", 1)
		r.SetAttribute("self.rule", "jailbreak")
		r.Respond(400, "prompt_refused", "The request reads as an attempt to set the model's instructions aside.")
		return
	}
	flags := p.decoded[:0]
	for i := range st.rules {
		switch k := &st.rules[i]; {
		case k.action == "require" && !p.hits[i]:
			r.Meter("denied", 1)
			r.SetAttribute("self.rule", k.name)
			r.Respond(400, "prompt_refused", k.message)
			return
		case k.action == "flag" && p.hits[i]:
			flags = append(append(flags, k.name...), ' ')
		}
	}
	if jailbreak {
		r.Meter("jailbreak", 1)
		flags = append(flags, "jailbreak "...)
	}
	if len(flags) > 0 {
		r.Meter("flagged", 1)
		r.SetAttribute("self.flags", postern.String(flags[:len(flags)-1]))
	}
	p.decoded = flags[:0]
	if cap(p.buffer) > 1<<20 {
		p.buffer = nil
	}
}

// suspicious reports whether a text holds a phrase of jailbreaks, as it is read or written in base64.
func (p *plugin) suspicious(text []byte) bool {
	if signed(text) || p.markers.found(p.folder.fold(text)) {
		return true
	}
	for start := 0; start < len(text); {
		end := start
		for end < len(text) && (text[end]|0x20-'a' < 26 || text[end]-'0' < 10 || text[end] == '+' || text[end] == '/') {
			end++
		}
		if end-start >= 24 { // shorter ones hold no phrase
			whole := (end - start) &^ 3
			decoded, err := base64.StdEncoding.AppendDecode(p.decoded[:0], text[start:start+whole])
			p.decoded = decoded
			if err == nil && printable(decoded) && p.markers.found(p.folder.fold(decoded)) {
				return true
			}
		}
		start = end + 1
	}
	return false
}

// printable tells text from what merely has base64's letters, such as a long word.
func printable(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\n' && c != '\t' && c != '\r' {
			return false
		}
	}
	return utf8.Valid(b)
}

// word: 1 to 64 of a-z, 0-9 and _, as the names of counters are.
func word(s string) bool {
	for i := range len(s) {
		if c := s[i]; c-'a' >= 26 && c-'0' >= 10 && c != '_' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 64
}

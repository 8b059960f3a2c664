package main

import "bytes"

// marker is a phrase that jailbreaks are made of: words in a row, each one of several, with up to some others between.
type marker struct {
	words [][]string
	gaps  []int // before words[i]: how many others may stand there
}

// phrases are written word by word: alternatives with |, and ~3 for up to three words of any kind. They are phrases that
// tell a model to set its instructions aside, to play somebody who has none, or to say what it was told; each is
// long enough that talking of such things mostly does not hit it.
const phrases = `
ignore|disregard|forget|bypass|override|neglect|discard ~4 previous|prior|earlier|above|preceding|foregoing|initial|original|existing ~3 instruction|instructions|prompt|prompts|rule|rules|directions|directives|guidelines|commands|programming|guardrails
ignore|disregard|forget|bypass|override|discard ~1 all|any|your|the|every ~3 instructions|rules|guidelines|programming|guardrails|restrictions|safeguards|directives ~6 you|given|told|following|now|instead
forget|disregard everything|all|anything ~3 told|said|instructed|taught|above|before|previously
do not|dont|stop follow|following|obey|obeying ~3 previous|prior|earlier|above|original|system ~2 instructions|prompt|rules|guidelines|message
new|updated instructions|rules|prompt ~3 override|overrides|replace|replaces|supersede|supersedes ~3 previous|prior|old|all|system|earlier
you are|re|will ~2 now|henceforth ~3 dan|jailbroken|unfiltered|uncensored|unrestricted|unchained|stan|dude
you are|re|will ~4 unfiltered|uncensored|unrestricted|jailbroken|unchained
do anything now
act|behave|respond|answer|roleplay|pretend ~5 unrestricted|uncensored|unfiltered|jailbroken|amoral ~3 ai|model|assistant|chatbot|version|mode|bot|persona|character
no|without|free|ignoring ~3 ethical|moral|content|safety|openai ~2 guidelines|restrictions|limits|filters|constraints|boundaries|policies|rules ~8 answer|respond|reply|do|say|generate|you|any
enable|enter|activate|enabled|switch ~3 developer|jailbreak|god|dan|sudo|debug mode
developer|jailbreak|god|dan mode enabled|activated|on|engaged
you have|are ~2 been|now ~1 freed|liberated|released ~3 from ~3 constraints|restrictions|rules|limits|confines
reveal|print|show|output|display|repeat|tell|give|leak|expose ~4 system|hidden|initial|secret|original|internal ~1 prompt|prompts|instruction|instructions|message|rules
repeat|print|output|echo ~3 words|text|everything|all|sentences|content ~1 above|before ~6 starting|verbatim|exactly|word|beginning|including|you
what|whats ~2 your system|initial|hidden|original prompt|instructions|message
from now on|forward ~3 you ~4 ignore|disregard|unrestricted|no|without|never ~4 rules|refuse|restrictions|limits|guidelines|filter|filters|policy|decline
never|not|cannot|cant say|refuse|decline|respond|reply|mention ~6 sorry|cannot|cant|unable|ai|policy|policies ~6 comply|obey|answer|must|always
stay|remain in character|dan ~8 no matter|always|never
hypothetical|fictional|simulated response|character|ai|world ~8 no|without|not ~3 rules|restrictions|limits|ethics|morals|filters|guidelines
`

// signs are octets that only somebody who wants to pass for the system writes: the marks between the turns of a chat as
// models are shown them.
var signs = [...]string{
	"<|im_start|>", "<|im_end|>", "<|system|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|begin_of_text|>",
	"[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<start_of_turn>", "<end_of_turn>",
}

// chinese are phrases of a script without blanks, in two parts: the second stands within a dozen characters of the first.
var chinese = [...][2]string{
	{"忽略", "指令"}, {"忽略", "提示词"}, {"忽略", "规则"}, {"无视", "指令"}, {"无视", "规则"}, {"忘记之前", "指令"}, {"忘掉", "指令"}, {"绕过", "限制"},
	{"输出", "系统提示"}, {"显示", "系统提示"}, {"重复", "系统提示"}, {"告诉我", "系统提示"}, {"进入", "开发者模式"}, {"开启", "开发者模式"}, {"不受", "任何限制"}, {"没有任何", "道德限制"}, {"越狱", "模式"},
}

// markers finds phrases in folded texts.
type markers struct {
	list  []marker
	first map[string][]int // markers by each of their first words
	spans [][2]int         // the words of the text at hand
}

func newMarkers() *markers {
	m := &markers{first: map[string][]int{}}
	for _, line := range bytes.Split([]byte(phrases), []byte("\n")) {
		var k marker
		gap := 0
		for _, field := range bytes.Fields(line) {
			if field[0] == '~' {
				gap = int(field[1] - '0')
				continue
			}
			var words []string
			for _, w := range bytes.Split(field, []byte("|")) {
				words = append(words, string(w))
			}
			k.words, k.gaps = append(k.words, words), append(k.gaps, gap)
			gap = 0
		}
		if len(k.words) == 0 {
			continue
		}
		for _, w := range k.words[0] {
			m.first[w] = append(m.first[w], len(m.list))
		}
		m.list = append(m.list, k)
	}
	return m
}

// found reports whether a folded text holds a phrase.
func (m *markers) found(folded []byte) bool {
	m.spans = m.spans[:0]
	start := 0
	for i := 0; i <= len(folded); i++ {
		if i == len(folded) || folded[i] == ' ' {
			if i > start {
				m.spans = append(m.spans, [2]int{start, i})
			}
			start = i + 1
		}
	}
	for i, s := range m.spans {
		for _, k := range m.first[string(folded[s[0]:s[1]])] {
			if m.rest(folded, &m.list[k], 1, i+1) {
				return true
			}
		}
	}
	for _, pair := range chinese {
		text := folded
		for {
			at := bytes.Index(text, []byte(pair[0]))
			if at < 0 {
				break
			}
			text = text[at+len(pair[0]):]
			if bytes.Contains(text[:min(len(text), 12*3+len(pair[1]))], []byte(pair[1])) {
				return true
			}
		}
	}
	return false
}

// rest reports whether the words from next on go on as the marker does from its step on. A marker has few steps and
// small gaps, so that trying all is quick.
func (m *markers) rest(folded []byte, k *marker, step, next int) bool {
	if step == len(k.words) {
		return true
	}
	for at := next; at <= next+k.gaps[step] && at < len(m.spans); at++ {
		word := folded[m.spans[at][0]:m.spans[at][1]]
		for _, w := range k.words[step] {
			if w == string(word) && m.rest(folded, k, step+1, at+1) {
				return true
			}
		}
	}
	return false
}

// signed reports whether a text holds one of the signs.
func signed(text []byte) bool {
	for _, s := range signs {
		if bytes.Contains(text, []byte(s)) {
			return true
		}
	}
	return false
}

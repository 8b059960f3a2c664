// Package desync shows whether all who read a message on its way read it alike: the client, Postern, and the origin behind
// it. Its main type is Case, one hostile or odd exchange of the corpus in testdata and what must come of it.
//
// The corpus is in txtar archives, one a family; each file in it is a case, made of lines:
//
//	# why the case is there
//	over http2 http3        the client's protocols; http1 when it is not said
//	> octets                what the client sends, a line each with CR LF, or without when it ends with "\"
//	>                       over HTTP/2 and 3 a field each, a line ">", and then the data, a frame each, as it stands
//	+ name: value           a field of the trailer section, over HTTP/2 and 3
//	then half-close         what the client does then: half-close, reset (it breaks off), or wait: it sends no canary before it has all its answers
//	ask HEAD                instead of ">": an ordinary request with this method, for cases about answers
//	< octets                what the upstream answers, in the same way as ">"
//	<< octets               what it sends when the client has its answer
//	upstream close          what it does then: close, or reset
//	once                    Postern does not use this connection of the upstream's again; nor does it after 502 and "cut"
//	= 200 POST /a 5         an answer of the origin, which saw this method, this target and so many octets of body
//	= 200 5                 an answer with so many octets of body; "cut" when it is not whole
//	= 400                   an answer of Postern's own; "close": the connection ends with it. "a | b": one of several
//	= reset                 the stream is reset; "closed": the connection is closed without an answer
//	~ nginx node: 405       origins that answer otherwise, by the beginnings of their names
//	? name: value           a field of the first request that reached the origin, or of the first answer that reached the client
//	?- name                 a field that must not be there
//	* name = octets         a variation of the case, with its octets in the place of "{*}"
//
// Backslashes begin escapes as in Go. {1} is the first request's marker, {2} the second's, {host} the listener's address,
// and {x*70} seventy times x.
package desync

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/tools/txtar"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Case is one exchange of the corpus. Octets have placeholders.
type Case struct {
	Name   string   // family/name or family/name/variation
	Note   string   // why it is there
	Over   []string // the client's protocols: http1, http2, http3
	Octets []byte   // HTTP/1.1: what the client sends
	Head   []exchange.Field
	Data   []string         // HTTP/2 and 3: frames
	Tail   []exchange.Field // HTTP/2 and 3: the trailer section
	Then   string           // "", half-close, reset or wait
	Ask    string           // the method of an ordinary request in place of all that

	Answer   []byte // what a hostile upstream answers
	Later    []byte // what it sends when the client has its answer
	Upstream string // "", close or reset
	Once     bool   // its connection is not used again

	Want    [][]Want // in order, each with its alternatives
	Except  map[string][]Want
	Present []exchange.Field // of the first request at the origin, or the first answer at the client
	Absent  []string
}

// Want is what must come of one request.
type Want struct {
	Status int    // of the answer; 0: none
	Method string // as the origin saw it; empty: it saw nothing of it, or nobody says
	Target string
	Length int  // octets of the request's body at the origin, or of the answer's at the client; -1: any
	Cut    bool // the answer is not whole, and the client can tell
	Reset  bool // the stream is reset
	Close  bool // the connection ends behind it
}

// Hostile reports whether the case is about an upstream's answers.
func (c *Case) Hostile() bool { return c.Answer != nil || c.Upstream != "" }

// Read reads every archive of the corpus.
func Read(dir fs.FS) ([]*Case, error) {
	names, err := fs.Glob(dir, "*.txtar")
	if err != nil {
		return nil, fmt.Errorf("read the corpus: %w", err)
	}
	var all []*Case
	var faults []error
	known := map[string]bool{}
	for _, name := range names {
		text, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, fmt.Errorf("read the corpus: %w", err)
		}
		family := strings.TrimSuffix(name, ".txtar")
		for _, f := range txtar.Parse(text).Files {
			cases, err := parseCase(family+"/"+f.Name, string(f.Data))
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: %s: %w", name, f.Name, err))
			}
			for _, c := range cases {
				if known[c.Name] {
					faults = append(faults, fmt.Errorf("%s: there are two cases called %s", name, c.Name))
				}
				known[c.Name] = true
			}
			all = append(all, cases...)
		}
	}
	return all, errors.Join(faults...)
}

// variation is one value of "{*}".
type variation struct{ name, octets string }

// parseCase reads one file of an archive and makes its variations.
func parseCase(name, text string) ([]*Case, error) {
	var lines []string
	var variations []variation
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if rest, ok := strings.CutPrefix(line, "* "); ok {
			what, octets, ok := strings.Cut(rest, " = ")
			if !ok {
				return nil, fmt.Errorf("no variation: %q", line)
			}
			variations = append(variations, variation{what, octets})
			continue
		}
		lines = append(lines, line)
	}
	if variations == nil {
		c := &Case{Name: name}
		return []*Case{c}, c.read(lines)
	}
	all := make([]*Case, 0, len(variations))
	for _, v := range variations {
		own := slices.Clone(lines)
		for i := range own {
			own[i] = strings.ReplaceAll(own[i], "{*}", v.octets)
		}
		c := &Case{Name: name + "/" + v.name}
		if err := c.read(own); err != nil {
			return nil, fmt.Errorf("%s: %w", v.name, err)
		}
		all = append(all, c)
	}
	return all, nil
}

// read reads a case's lines.
func (c *Case) read(lines []string) error {
	inData := false
	for _, line := range lines {
		word, rest, _ := strings.Cut(line, " ")
		var err error
		switch word {
		case "":
		case "#":
			c.Note = strings.TrimSpace(c.Note + " " + rest)
		case "over":
			c.Over = strings.Fields(rest)
		case ">":
			switch {
			case c.Over == nil || slices.Contains(c.Over, "http1"):
				c.Octets, err = appendLine(c.Octets, rest)
			case rest == "":
				inData = true
			case inData:
				var octets string
				octets, err = unescape(rest)
				c.Data = append(c.Data, octets)
			default:
				c.Head, err = appendField(c.Head, rest)
			}
		case "+":
			c.Tail, err = appendField(c.Tail, rest)
		case "then":
			c.Then = rest
		case "ask":
			c.Ask = rest
		case "<":
			c.Answer, err = appendLine(c.Answer, rest)
		case "<<":
			c.Later, err = appendLine(c.Later, rest)
		case "upstream":
			c.Upstream = rest
		case "once":
			c.Once = true
		case "=":
			var want []Want
			want, err = parseWants(rest)
			c.Want = append(c.Want, want)
		case "~":
			err = c.except(rest)
		case "?":
			c.Present, err = appendField(c.Present, rest)
		case "?-":
			c.Absent = append(c.Absent, rest)
		default:
			err = fmt.Errorf("no such line: %q", line)
		}
		if err != nil {
			return err
		}
	}
	return c.check()
}

// check finishes a case and looks for what its author forgot.
func (c *Case) check() error {
	if c.Hostile() && c.Ask == "" && c.Octets == nil && c.Head == nil {
		c.Ask = "GET"
	}
	switch {
	case c.Over == nil && c.Ask != "":
		c.Over = []string{"http1", "http2", "http3"}
	case c.Over == nil:
		c.Over = []string{"http1"}
	}
	switch {
	case c.Note == "":
		return errors.New("it does not say why it is there")
	case len(c.Want) == 0:
		return errors.New("nothing is expected of it")
	case c.Ask == "" && c.Octets == nil && c.Head == nil:
		return errors.New("the client sends nothing")
	case !slices.Contains([]string{"", "half-close", "reset", "wait"}, c.Then):
		return fmt.Errorf("then %q", c.Then)
	case !slices.Contains([]string{"", "close", "reset"}, c.Upstream):
		return fmt.Errorf("upstream %q", c.Upstream)
	}
	return nil
}

func (c *Case) except(rest string) error {
	names, want, ok := strings.Cut(rest, ": ")
	if !ok {
		return fmt.Errorf("no exception: %q", rest)
	}
	list, err := parseWants(want)
	if c.Except == nil {
		c.Except = map[string][]Want{}
	}
	for _, name := range strings.Fields(names) {
		c.Except[name] = list
	}
	return err
}

// wants are the alternatives for the i-th answer when an origin is asked.
func (c *Case) wants(origin string, i int) []Want {
	if i == 0 {
		for name, list := range c.Except {
			if strings.HasPrefix(origin, name) {
				return list
			}
		}
	}
	return c.Want[i]
}

func parseWants(text string) ([]Want, error) {
	var list []Want
	for part := range strings.SplitSeq(text, " | ") {
		w := Want{Length: -1}
		for i, word := range strings.Fields(part) {
			n, err := strconv.Atoi(word)
			switch {
			case word == "close":
				w.Close = true
			case word == "closed":
				w.Close = true
			case word == "reset":
				w.Reset = true
			case word == "cut":
				w.Cut = true
			case strings.HasPrefix(word, "/"):
				w.Target = word
			case i == 0 && err == nil:
				w.Status = n
			case err == nil:
				w.Length = n
			case isToken(word) && w.Method == "":
				w.Method = word
			default:
				return nil, fmt.Errorf("no expectation: %q", part)
			}
		}
		if w.Status == 0 && !w.Reset && !w.Close || (w.Method == "") != (w.Target == "") {
			return nil, fmt.Errorf("no expectation: %q", part)
		}
		list = append(list, w)
	}
	return list, nil
}

func appendField(list []exchange.Field, rest string) ([]exchange.Field, error) {
	// A pseudo-header's name begins with a colon.
	i := strings.Index(rest, ": ")
	name, value := strings.TrimSuffix(rest, ":"), ""
	if i >= 0 {
		name, value = rest[:i], rest[i+2:]
	}
	name, err := unescape(name)
	if err != nil {
		return nil, err
	}
	if value, err = unescape(value); err != nil {
		return nil, err
	}
	return append(list, exchange.Field{Name: name, Value: value}), nil
}

// appendLine appends a line and its end, unless it ends with a backslash.
func appendLine(b []byte, rest string) ([]byte, error) {
	end := "\r\n"
	if strings.HasSuffix(rest, `\`) && !strings.HasSuffix(rest, `\\`) {
		rest, end = strings.TrimSuffix(rest, `\`), ""
	}
	text, err := unescape(rest)
	if b == nil {
		b = []byte{} // no octets are octets too
	}
	return append(b, text+end...), err
}

func unescape(text string) (string, error) {
	s, err := strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`)
	if err != nil {
		return "", fmt.Errorf("octets %q: %w", text, err)
	}
	return s, nil
}

var (
	repeated = regexp.MustCompile(`\{([^{}]+)\*([0-9]+)\}`)
	marked   = regexp.MustCompile(`\{([0-9]+)\}`)
)

// expand puts in what placeholders stand for.
func expand(text, host, marker string) string {
	text = repeated.ReplaceAllStringFunc(text, func(s string) string {
		m := repeated.FindStringSubmatch(s)
		n, err := strconv.Atoi(m[2])
		if err != nil {
			return s
		}
		return strings.Repeat(m[1], n)
	})
	text = strings.ReplaceAll(text, "{host}", host)
	return marked.ReplaceAllString(text, marker+".${1}")
}

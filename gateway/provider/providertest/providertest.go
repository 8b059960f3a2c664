// Package providertest is the suite that every provider.Format passes. In place of a type it has a function, so
// its main type is Run, given the format and a folder of cases. A case is a file in txtar form:
//
//	-- case --      lines "key: value": method (default POST), path, public (the model name the customer must be read to
//	                have sent), target (the upstream's name), max-output, status (default 200), content ("whole", the
//	                default, or "stream")
//	-- request --   what the customer sends
//	-- max --       the most the call may use, one "unit count" a line
//	-- sent --      what Encode makes of it
//	-- response --  what the upstream answers
//	-- reply --     what the customer gets
//	-- usage --     what was used, one "unit count" a line, with "estimated" or "failed" on a line of its own
//
// A case of a request that is refused has only the sections case, request and problem, which is the Problem's status,
// code, param and detail on a line each. With UPDATE_GOLDEN=1 in the environment Run writes the sections sent, max,
// reply, usage and problem instead of comparing them.
package providertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/tools/txtar"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/provider"
)

// Run runs every case of dir (*.txtar) and, for each, what must hold of any format: Encode and Decode change nothing
// they were given, a request read again reads the same, a stream gives the same reply and usage however the network
// splits it, and the gateway's own answers are there in the format's shape.
func Run(t *testing.T, format provider.Format, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in %s: %v", dir, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			c := load(t, file)
			c.run(t, format)
			c.compare(t)
		})
	}
	t.Run("answers", func(t *testing.T) {
		t.Parallel()
		answers(t, format)
	})
}

// section is a part of a case that is compared, or written.
type section struct {
	name string
	text []byte
}

// scenario is one case.
type scenario struct {
	file    string
	archive *txtar.Archive
	keys    map[string]string
	got     []section
}

func load(t *testing.T, file string) *scenario {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c := &scenario{file: file, archive: archive, keys: map[string]string{
		"method": "POST", "max-output": "0", "status": "200", "content": "whole",
	}}
	head, ok := c.section("case")
	if !ok {
		t.Fatalf("%s has no section \"case\"", file)
	}
	for line := range strings.Lines(string(head)) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			t.Fatalf("%s: %q is not \"key: value\"", file, line)
		}
		c.keys[key] = strings.TrimSpace(value)
	}
	return c
}

func (c *scenario) section(name string) ([]byte, bool) {
	for _, f := range c.archive.Files {
		if f.Name == name {
			return f.Data, true
		}
	}
	return nil, false
}

func (c *scenario) number(t *testing.T, key string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(c.keys[key], 10, 64)
	if err != nil {
		t.Fatalf("%s: %s: %v", c.file, key, err)
	}
	return n
}

// compare holds what came out against the file, or writes it there.
func (c *scenario) compare(t *testing.T) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		for _, s := range c.got {
			at := -1
			for i := range c.archive.Files {
				if c.archive.Files[i].Name == s.name {
					at = i
				}
			}
			if at < 0 {
				c.archive.Files = append(c.archive.Files, txtar.File{Name: s.name})
				at = len(c.archive.Files) - 1
			}
			c.archive.Files[at].Data = s.text
		}
		if err := os.WriteFile(c.file, txtar.Format(c.archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, s := range c.got {
		want, _ := c.section(s.name)
		// An archive ends every section with a line feed.
		if !bytes.Equal(bytes.TrimSuffix(s.text, []byte("\n")), bytes.TrimSuffix(want, []byte("\n"))) {
			t.Errorf("%s\n got: %q\nwant: %q", s.name, s.text, want)
		}
	}
}

func (c *scenario) run(t *testing.T, format provider.Format) {
	t.Helper()
	op, ok := format.Operation(c.keys["method"], c.keys["path"])
	if !ok {
		t.Fatalf("Operation(%q, %q) is not known", c.keys["method"], c.keys["path"])
	}
	request, _ := c.section("request")
	before := bytes.Clone(request)
	maxOutput := c.number(t, "max-output")
	call, problem := format.Read(op, nil, request, maxOutput)
	if problem != nil {
		c.got = append(c.got, section{"problem", fmt.Appendf(nil, "%d\n%s\n%s\n%s\n", problem.Status, problem.Code, problem.Param, problem.Detail)})
		return
	}
	if _, refused := c.section("problem"); refused {
		t.Fatal("the request was read")
	}
	first, problem := format.Read(op, nil, request, 0)
	if problem != nil || first.Model != call.Model || first.Stream != call.Stream {
		t.Errorf("before a model is known it reads otherwise: %+v, %v", first, problem)
	}
	if call.Model != c.keys["public"] {
		t.Errorf("Read gives the model %q, want %q", call.Model, c.keys["public"])
	}
	if call.Format != format.Name() || call.Operation != op.Name {
		t.Errorf("Read gives format %q and operation %q", call.Format, call.Operation)
	}
	c.got = append(c.got, section{"max", units(call.Max)})

	call.Targets = []exchange.Target{{Upstream: "test", Model: c.keys["target"]}}
	call.Target = 0
	_, sent, err := format.Encode(op, &call, request)
	if err != nil {
		t.Fatal(err)
	}
	c.got = append(c.got, section{"sent", sent})
	again, problem := format.Read(op, nil, sent, maxOutput)
	if problem != nil || again.Model != c.keys["target"] || again.Stream != call.Stream {
		t.Errorf("what Encode made reads as %+v, %v", again, problem)
	}

	response, ok := c.section("response")
	if !ok {
		return
	}
	given := bytes.Clone(response)
	var reply []byte
	var d provider.Decoder
	if c.keys["content"] == "stream" {
		reply, d = Stream(format, op, &call, request, [][]byte{response})
		c.splits(t, format, op, &call, request, response, reply, d)
	} else {
		d = format.Decode(op, &call, request)
		reply = d.Whole(int(c.number(t, "status")), response)
	}
	usage := d.Usage()
	if twice := d.Usage(); twice != usage {
		t.Errorf("Usage gives %v and then %v", usage, twice)
	}
	if !bytes.Equal(request, before) || !bytes.Equal(response, given) {
		t.Error("what was given has been changed")
	}
	text := units(usage)
	if usage.Estimated {
		text = append(text, "estimated\n"...)
	}
	if d.Failed() {
		text = append(text, "failed\n"...)
	}
	c.got = append(c.got, section{"reply", reply}, section{"usage", text})
	within(t, &usage, &call.Max)
}

// splits feeds the stream in two parts, cut at every octet near a line's end and at every seventh elsewhere, and in single
// octets.
func (c *scenario) splits(t *testing.T, format provider.Format, op provider.Operation, call *exchange.Call, request, response, reply []byte, d provider.Decoder) {
	t.Helper()
	check := func(how string, parts [][]byte) {
		got, e := Stream(format, op, call, request, parts)
		if !bytes.Equal(got, reply) || e.Usage() != d.Usage() || e.Failed() != d.Failed() {
			t.Errorf("%s: %q with %v, but in one piece %q with %v", how, got, e.Usage(), reply, d.Usage())
		}
	}
	for i := 1; i < len(response); i++ {
		if i%7 != 0 && !bytes.ContainsAny(response[max(i-8, 0):min(i+8, len(response))], "\r\n") {
			continue
		}
		check(fmt.Sprintf("cut at octet %d", i), [][]byte{response[:i], response[i:]})
	}
	var single [][]byte
	for i := range response {
		single = append(single, response[i:i+1])
	}
	check("in single octets", single)
}

// within checks that a call used no more than it was held for.
func within(t *testing.T, used, most *exchange.Usage) {
	t.Helper()
	if used.Prompt() > most.Prompt() {
		t.Errorf("%d tokens went in, Max allows %d", used.Prompt(), most.Prompt())
	}
	if out := most.Completion(); out > 0 && used.Completion() > out {
		t.Errorf("%d tokens came out, Max allows %d", used.Completion(), out)
	}
	for _, u := range []exchange.Unit{exchange.Requests, exchange.Seconds, exchange.Searches} {
		if used.Units[u] > most.Units[u] {
			t.Errorf("%d of %s, Max allows %d", used.Units[u], u, most.Units[u])
		}
	}
}

// units writes a usage one unit a line.
func units(u exchange.Usage) []byte {
	var b []byte
	for i, n := range u.Units {
		if n != 0 {
			b = fmt.Appendf(b, "%s %d\n", exchange.Unit(i), n)
		}
	}
	return b
}

// Stream frames the parts of a stream into events as a proxy does and gives them to a new decoder. It returns what the
// customer gets, and the decoder.
func Stream(format provider.Format, op provider.Operation, call *exchange.Call, request []byte, parts [][]byte) ([]byte, provider.Decoder) {
	d := format.Decode(op, call, request)
	var out, pending []byte
	for i, part := range parts {
		pending = append(pending, part...)
		for {
			n := eventEnd(pending, i == len(parts)-1)
			if n == 0 {
				break
			}
			out, _ = d.Event(out, pending[:n])
			pending = pending[n:]
		}
	}
	if len(pending) > 0 {
		out, _ = d.Event(out, pending)
	}
	return out, d
}

// eventEnd returns the length of the first event of b with its blank line, or 0 when it is not complete. A carriage
// return at the very end may be half of a line's end, unless eof says nothing follows.
func eventEnd(b []byte, eof bool) int {
	empty := true // nothing on the present line yet
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '\r':
			if i+1 == len(b) && !eof {
				return 0
			}
			if i+1 < len(b) && b[i+1] == '\n' {
				i++
			}
		case '\n':
		default:
			empty = false
			continue
		}
		if empty {
			return i + 1
		}
		empty = true
	}
	return 0
}

// answers checks the gateway's own answers.
func answers(t *testing.T, format provider.Format) {
	t.Helper()
	for status := 400; status < 600; status++ {
		p := &exchange.Problem{Status: status, Code: "some_code", Title: "Some \"title\"", Param: "some\x00param"}
		if contentType, body := format.Problem(p); contentType == "" || !bytes.Contains(body, []byte(`Some \"title\"`)) {
			t.Errorf("status %d: the problem is rendered as %s %q", status, contentType, body)
		}
	}
	list := []provider.ModelInfo{{Name: "small", Summary: "Fast.", Created: 1}, {Name: "org/large"}}
	if contentType, body, ok := format.Models(list, ""); !ok || contentType == "" || !bytes.Contains(body, []byte("small")) || !bytes.Contains(body, []byte("org/large")) {
		t.Errorf("the list of models is %s %q, %v", contentType, body, ok)
	}
	if _, body, ok := format.Models(list, "org/large"); !ok || bytes.Contains(body, []byte("small")) {
		t.Errorf("one model is %q, %v", body, ok)
	}
	if _, _, ok := format.Models(list, "larg"); ok {
		t.Error("a model that is not there was found")
	}
	if _, _, ok := format.Models(nil, ""); !ok {
		t.Error("an empty list of models is not found")
	}
	receipt := &exchange.Receipt{ID: "r-1", Model: "small"}
	for _, body := range []string{"", "{", "null", "[]", "{}", "not json", `{"usage":null}`} {
		if got := format.Receipt([]byte(body), receipt); string(got) != body {
			t.Errorf("a receipt makes %q of %q", got, body)
		}
	}
}

// Fuzz feeds arbitrary bodies, streams and events to a format, starting from the cases of dir. Nothing panics; what is
// read can be encoded, what was encoded reads the same but for the model; a stream's split changes nothing; and nothing
// is used that Max does not allow where the usage is an estimate. What was valid JSON stays so.
func Fuzz(f *testing.F, format provider.Format, dir, path string) {
	f.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var request, response []byte
		for _, s := range archive.Files {
			switch s.Name {
			case "request":
				request = s.Data
			case "response":
				response = s.Data
			}
		}
		f.Add(request, response, 7)
	}
	op, ok := format.Operation("POST", path)
	if !ok {
		f.Fatalf("POST %s is not known", path)
	}
	f.Fuzz(func(t *testing.T, request, response []byte, cut int) {
		call, problem := format.Read(op, nil, request, 1000)
		if problem != nil {
			if problem.Status < 400 || problem.Status > 499 || problem.Detail == "" {
				t.Fatalf("problem %+v", problem)
			}
			call = exchange.Call{Format: format.Name(), Operation: op.Name, Model: "small", Stream: cut%2 == 0}
		}
		call.Targets, call.Target = []exchange.Target{{Upstream: "test", Model: "target"}}, 0
		if problem == nil {
			_, sent, err := format.Encode(op, &call, request)
			if err != nil {
				t.Fatalf("what was read can not be encoded: %v", err)
			}
			again, problem := format.Read(op, nil, sent, 1000)
			if problem != nil || again.Model != "target" || again.Stream != call.Stream ||
				again.Max.Units[exchange.Output] != call.Max.Units[exchange.Output] {
				t.Fatalf("%q was encoded as %q, which reads as %+v, %v", request, sent, again, problem)
			}
			_, twice, err := format.Encode(op, &call, sent)
			if err != nil || !bytes.Equal(sent, twice) {
				t.Fatalf("%q encoded again is %q, %v", sent, twice, err)
			}
		}
		for _, status := range []int{200, 429} {
			whole := format.Decode(op, &call, request).Whole(status, response)
			if json.Valid(response) && !json.Valid(whole) {
				t.Fatalf("%q with status %d becomes %q", response, status, whole)
			}
		}
		if receipt := format.Receipt(response, &exchange.Receipt{ID: "r"}); json.Valid(response) && !json.Valid(receipt) {
			t.Fatalf("%q with a receipt is %q", response, receipt)
		}
		if utf8.Valid(response) && json.Valid(response) && !bytes.ContainsAny(response, "\r\n") {
			event := append(append([]byte("data: "), response...), "\n\n"...)
			out, _ := format.Decode(op, &call, request).Event(nil, event)
			if data, ok := bytes.CutPrefix(out, []byte("data: ")); ok && !json.Valid(data) {
				t.Fatalf("%q becomes %q", event, out)
			}
		}
		reply, d := Stream(format, op, &call, request, [][]byte{response})
		usage := d.Usage()
		for u, n := range usage.Units {
			if n < 0 {
				t.Fatalf("%d of %s", n, exchange.Unit(u))
			}
		}
		if usage.Estimated && problem == nil {
			within(t, &usage, &call.Max)
		}
		if len(response) > 0 {
			cut = int(uint(cut) % uint(len(response)))
			split, e := Stream(format, op, &call, request, [][]byte{response[:cut], response[cut:]})
			if !bytes.Equal(split, reply) || e.Usage() != usage {
				t.Fatalf("cut at %d: %q, else %q", cut, split, reply)
			}
		}
	})
}

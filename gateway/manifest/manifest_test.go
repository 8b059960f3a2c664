package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/sdk/abi"
)

const full = `
abi     = 1
version = "0.1.0"
summary = "Does everything."

argument "name" {
  type     = string
  required = true
  pattern  = "[a-z]+"
  summary  = "A | b."
}
argument "mode" {
  type    = string
  one_of  = ["fast", "slow"]
  default = "fast"
}
argument "wait" {
  type    = duration
  default = "1h30m"
}
argument "size" {
  type    = bytes
  default = "64KiB"
}
argument "fee" { type = money }
argument "home" { type = url }
argument "from" { type = list(cidr) }
argument "skip" { type = regex }
argument "token" {
  type      = string
  sensitive = true
  pattern   = "[a-z-]{3,}"
}
argument "box" { type = object({ width = number, label = string }) }
argument "key" {
  type        = string
  per_request = true
  required    = true
}
block "rule" {
  labels = ["kind"]
  repeat = true
  argument "after" { type = duration }
  argument "weight" {
    type    = number
    default = 1
  }
}
block "only" {
  argument "x" {
    type     = bool
    required = true
  }
}
grant "ledger" { reason = "places holds" }
hook "admit" {
  sees {
    headers    = ["X-Tenant", "accept"]
    attributes = ["identity.account", "model"]
    body       = buffer("1MiB")
  }
}
hook "account" {
  needs = [admit]
  argument "tags" {
    type        = map(string)
    per_request = true
    default     = {}
  }
}
`

func mustParse(t testing.TB, text string) *Manifest {
	t.Helper()
	m, diags := Parse([]byte(text), "plugin.hcl")
	if diags.HasErrors() {
		t.Fatal(lines(diags))
	}
	return m
}

func lines(diags hcl.Diagnostics) string {
	var b strings.Builder
	for _, d := range diags {
		at := "-"
		if d.Subject != nil {
			at = fmt.Sprintf("%d:%d", d.Subject.Start.Line, d.Subject.Start.Column)
		}
		fmt.Fprintf(&b, "%s %s: %s\n", at, d.Summary, d.Detail)
	}
	return b.String()
}

func TestParse(t *testing.T) {
	t.Parallel()
	m := mustParse(t, full)
	if m.ABI != 1 || m.Version != "0.1.0" || m.Summary != "Does everything." || len(m.Arguments) != 11 || len(m.Blocks) != 2 || !m.Asks("ledger") || m.Asks("state") {
		t.Errorf("got %+v", m)
	}
	admit, account := m.Hook(exchange.Admit), m.Hook(exchange.AccountPhase)
	if admit == nil || account == nil || m.Hook(exchange.Route) != nil {
		t.Fatalf("hooks are %+v", m.Hooks)
	}
	if got := fmt.Sprint(admit.Sees.Headers, admit.Sees.Attributes, admit.Sees.Body, len(admit.Sees.AttributeRanges), account.Needs); got != `[x-tenant accept] [identity.account model] buffer("1MiB") 2 [admit]` {
		t.Errorf("got %s", got)
	}
	if got := m.PerRequest(account); len(got) != 2 || got[0].Name != "key" || got[1].Name != "tags" {
		t.Errorf("per-request arguments are %v", got)
	}
	if w := m.Arguments[2]; !w.Default.RawEquals(cty.NumberIntVal(int64(90 * time.Minute))) {
		t.Errorf("default of wait is %#v", w.Default)
	}
}

// TestParseErrors holds every message to its words and its place.
func TestParseErrors(t *testing.T) {
	t.Parallel()
	const head = "abi = 1\nversion = \"1.0.0\"\nsummary = \"x\"\n"
	const hook = "hook \"admit\" {}\n"
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", `1:1 Missing required argument: The argument "abi" is required, but no definition was found.
1:1 Missing required argument: The argument "version" is required, but no definition was found.
1:1 Missing required argument: The argument "summary" is required, but no definition was found.
1:1 Missing hook block: A plugin hooks at least one phase. There are: authenticate, authorize, admit, route, request, response, account.
`},
		{"syntax", "abi = ", "1:7 Missing expression: Expected the start of an expression, but found the end of the file.\n"},
		{"abi", "abi = 2\nversion = \"1.0\"\nsummary = \" \"\n" + hook, `1:7 Unknown ABI: This version of the gateway knows ABI 1: write abi = 1.
2:11 Invalid version: "1.0" is no semantic version: write one such as "1.2.3".
3:11 Invalid value: summary is text in quotes, and not empty.
`},
		{"unknown names", head + hook + "sumary = 1\nfunction {}\nhoook \"x\" {}\n", `5:1 Unsupported argument: An argument named "sumary" is not expected here. There are: abi, version, summary.
6:1 Unsupported block type: Blocks of type "function" are not expected here. There are: argument, block, grant, hook.
7:1 Unsupported block type: Blocks of type "hoook" are not expected here. Did you mean "hook"?
`},
		{"answers", head + "hook \"request\" {\n  answers = true\n}\nhook \"response\" {\n  answers = 3\n}\n", `5:3 Invalid answers: Only a hook at response can be shown the gateway's own answers.
8:13 Invalid value: answers is true or false.
`},
		{"phases", head + "hook \"admitt\" {}\nhook \"route\" { needs = [admit, route, \"x\", rute] }\nhook \"route\" {}\nhook \"request\" { needs = admit }\n", `4:6 Unknown phase: There is no phase "admitt". Did you mean "admit"?
6:6 Duplicate name: "route" is declared already.
5:25 Invalid needs: The manifest has no hook "admit" that could be needed.
5:32 Invalid needs: A hook does not need its own phase.
5:39 Invalid needs: needs lists phases without quotes. There are: authenticate, authorize, admit, route, request, response, account.
5:44 Invalid needs: needs lists phases without quotes. Did you mean "route"?
7:26 Invalid needs: needs is a list of phases, such as [admit].
`},
		{"grants", head + hook + "grant \"leger\" { reason = \"x\" }\ngrant \"state\" {}\ngrant \"state\" { reason = \"x\" }\ngrant \"fetch\" {\n  reason = \"x\"\n  optional = 1\n}\n", `5:7 Unknown capability: There is no capability "leger". Did you mean "ledger"?
6:15 Missing required argument: The argument "reason" is required, but no definition was found.
7:7 Duplicate name: "state" is declared already.
10:14 Invalid value: optional is true or false.
`},
		{"sees", head + "hook \"account\" {\n sees {\n  headers = [\"*\", \"a b\", \"X\", \"x\", 1]\n  attributes = [\"model\", \"model\"]\n  body = stream\n }\n sees {}\n}\n", `6:36 Invalid value: headers is a list of texts, such as ["a", "b"].
6:14 Invalid headers: "*" is every header and stands alone.
6:19 Invalid headers: "a b" is no header name.
6:31 Duplicate name: "x" is listed already.
7:26 Duplicate name: "model" is listed already.
8:10 Invalid body: At account the bodies are gone: only body = none is possible.
10:2 Duplicate sees block: A hook has one sees block.
`},
		{"bodies", head + "hook \"request\" {\n sees { body = buffers }\n}\nhook \"response\" {\n sees { body = buffer(\"1 MB\") }\n}\nhook \"admit\" {\n sees { body = buffer(\"1GiB\") }\n}\nhook \"route\" {\n sees { body = buffer(1024) }\n}\n", `5:16 Invalid body: There are: buffer("1MiB"), stream, events, none.
8:23 Invalid body: The size of buffer: "1 MB" is no size: write a whole number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB, such as "64KiB".
11:23 Invalid body: A buffer is 1B to 15MiB.
`},
		{"types", head + hook + `
argument "a" { type = "string" }
argument "b" { type = strin }
argument "c" { type = lists(string) }
argument "d" { type = list(string, string) }
argument "e" { type = object(string) }
argument "f" { type = object({ a = string, a = string }) }
argument "g" { type = object({ "a" = text }) }
argument "h" { type = object({}) }
argument "i" {}
argument "a b" { type = string }
argument "b" { type = string }
`, `6:23 Invalid type: A type is written without quotes. There are: string, number, bool, duration, bytes, money, url, cidr, regex, list(type), map(type), object({name = type}).
7:23 Invalid type: There is no type "strin". Did you mean "string"?
8:23 Invalid type: There is no type "lists(...)". Did you mean "list"?
9:23 Invalid type: list takes exactly one type, as in list(string), map(number) or object({ name = string }).
10:30 Invalid type: object takes names and types in braces, as in object({ name = string }).
11:44 Duplicate name: The object has a "a" already.
12:32 Invalid type: A name in object(...) is written without quotes.
13:23 Invalid type: An object has at least one name.
14:14 Missing required argument: The argument "type" is required, but no definition was found.
15:10 Invalid name: "a b" is no name: letters, digits, _ and -, not beginning with a digit.
16:10 Duplicate name: "b" is declared already.
`},
		{"arguments", head + hook + `
argument "a" {
  type     = string
  required = true
  default  = "x"
}
argument "b" {
  type    = number
  default = "many"
}
argument "c" {
  type    = duration
  pattern = "x"
}
argument "d" {
  type        = string
  pattern     = "("
  per_request = true
}
argument "e" {
  type        = list(url)
  per_request = true
}
argument "f" {
  type    = string
  one_of  = ["a", "b", "a"]
  default = "c"
}
argument "g" {
  type     = string
  required = "yes"
}
argument "h" {
  type    = cidr
  default = "10.1.0.0/8"
}
block "k" {
  labels = ["x", "x", "1"]
  repeat = 1
  argument "y" {
    type        = string
    per_request = true
  }
  argument "x" { type = string }
  argument "y" { type = string }
}
`, `9:3 Invalid argument: A required argument has no use for a default: remove one of the two.
13:13 Invalid default: The default of b must be of type number: a number is required.
17:3 Invalid argument: pattern is for string, list(string) and map(string): c is duration.
21:3 Invalid argument: pattern can not be checked for a per_request argument: the plugin must.
21:17 Invalid pattern: "(" is no RE2 pattern: error parsing regexp: missing closing ): ` + "`(`" + `.
25:17 Invalid argument: A per_request argument is made of string, number, bool, list, map and object: list(url) is read when the configuration loads.
30:24 Duplicate name: "a" is listed already.
31:13 Invalid default: The default of f can not be "c". There are: a, b.
35:14 Invalid value: required is true or false.
39:13 Invalid default: The default of h must not have bits beyond its length.
46:5 Invalid argument: An argument of a nested block can not be per_request: only those of the config block have a place in the frame.
49:12 Duplicate name: "y" is declared already.
42:13 Duplicate name: "x" is declared already.
42:18 Duplicate name: "x" is declared already.
42:23 Invalid name: "1" is no name: letters, digits, _ and -, not beginning with a digit.
43:12 Invalid value: repeat is true or false.
`},
		{"hook repeats", head + "argument \"a\" { type = string }\nblock \"b\" {}\nhook \"admit\" {\n argument \"a\" { type = string }\n block \"b\" {}\n}\n", `7:2 Duplicate name: "a" is declared for all hooks already.
8:2 Duplicate name: "b" is declared for all hooks already.
`},
		{"large", strings.Repeat("#", MaxSize+1), "1:1 Manifest too large: A manifest has at most 65536 octets, this one 65537.\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, diags := Parse([]byte(c.text), "plugin.hcl"); lines(diags) != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", lines(diags), c.want)
			}
		})
	}
}

func config(t testing.TB, text string) hcl.Body {
	t.Helper()
	f, diags := hclsyntax.ParseConfig([]byte(text), "config.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return f.Body
}

type hiddenMark struct{}

var loadTime = &hcl.EvalContext{Variables: map[string]cty.Value{"secret": cty.ObjectVal(map[string]cty.Value{
	"good":  cty.StringVal("hunter-two").Mark(hiddenMark{}),
	"bad":   cty.StringVal("HUNTER2").Mark(hiddenMark{}),
	"later": cty.UnknownVal(cty.String).Mark(hiddenMark{}),
})}}

func TestDecode(t *testing.T) {
	t.Parallel()
	m := mustParse(t, full)
	got, per, diags := m.Decode(m.Hook(exchange.AccountPhase), config(t, `
name  = "ada"
wait  = "2d"
fee   = 0.150
home  = "https://example.com/x"
from  = ["10.0.0.0/8", "192.0.2.1"]
skip  = "^/health"
token = secret.good
box   = { width = 2, label = "b" }
key   = request.path
rule "slow" { after = "5ms" }
rule "fast" { weight = 2 }
only { x = true }
`), loadTime)
	if diags.HasErrors() {
		t.Fatal(lines(diags))
	}
	want := map[string]cty.Value{
		"name": cty.StringVal("ada"), "mode": cty.StringVal("fast"), "wait": cty.NumberIntVal(int64(48 * time.Hour)), "size": cty.NumberIntVal(65536),
		"fee": cty.StringVal("0.15"), "home": cty.StringVal("https://example.com/x"), "skip": cty.StringVal("^/health"),
		"from":  cty.ListVal([]cty.Value{cty.StringVal("10.0.0.0/8"), cty.StringVal("192.0.2.1/32")}),
		"token": cty.StringVal("hunter-two").Mark(hiddenMark{}),
		"box":   cty.ObjectVal(map[string]cty.Value{"width": cty.NumberIntVal(2), "label": cty.StringVal("b")}),
		"only":  cty.ObjectVal(map[string]cty.Value{"x": cty.True}),
	}
	for name, v := range want {
		if !got.GetAttr(name).RawEquals(v) {
			t.Errorf("%s is %#v, want %#v", name, got.GetAttr(name), v)
		}
	}
	rules := got.GetAttr("rule").AsValueSlice()
	if len(rules) != 2 || !rules[0].GetAttr("kind").RawEquals(cty.StringVal("slow")) || !rules[0].GetAttr("after").RawEquals(cty.NumberIntVal(5e6)) ||
		!rules[1].GetAttr("after").IsNull() || !rules[1].GetAttr("weight").RawEquals(cty.NumberIntVal(2)) {
		t.Errorf("rules are %#v", rules)
	}
	if len(per) != 2 || per["key"].Variables()[0].RootName() != "request" {
		t.Errorf("per-request arguments are %v", per)
	}
	if v, _ := per["tags"].Value(nil); !v.RawEquals(cty.MapValEmpty(cty.String)) {
		t.Errorf("default of tags is %#v", v)
	}
}

func TestDecodeUnknownSecret(t *testing.T) {
	t.Parallel()
	m := mustParse(t, full)
	got, _, diags := m.Decode(m.Hook(exchange.Admit), config(t, "name = secret.later\nfee = secret.later\nhome = secret.later\nmode = secret.later\nfrom = [secret.later]\nkey = \"\"\n"), loadTime)
	if diags.HasErrors() {
		t.Fatal(lines(diags))
	}
	if v := got.GetAttr("fee"); v.IsKnown() || !v.Type().Equals(cty.String) || !v.IsMarked() {
		t.Errorf("fee is %#v", v)
	}
}

func TestDecodeErrors(t *testing.T) {
	t.Parallel()
	m := mustParse(t, full)
	for _, c := range []struct{ text, want string }{
		{"", "1:1 Missing required argument: The argument \"key\" is required, but no definition was found.\n1:1 Missing required argument: The argument \"name\" is required, but no definition was found.\n"},
		{"name = null\nkey = 1", "1:8 Missing required argument: The argument \"name\" is required, but no definition was found.\n"},
		{"siz = 1\nname = \"a\"\nkey = 1\nxyzzy = 1\nrules {}", `1:1 Unsupported argument: An argument named "siz" is not expected here. Did you mean "size"?
4:1 Unsupported argument: An argument named "xyzzy" is not expected here. There are: box, fee, from, home, key, mode, name, size, skip, token, wait.
5:1 Unsupported block type: Blocks of type "rules" are not expected here. Did you mean "rule"?
`},
		{"key = 1\nname = \"A\"\nmode = \"fats\"\nwait = 5\nsize = \"1 MB\"\nfee = \"1.2.3\"\nhome = \"x\"\nfrom = [\"10.0.0.1/8\"]\nskip = \"(\"\nbox = { width = true, label = \"\" }", `10:7 Invalid value: box must be of type object({ width = number, label = string }): attribute "width": number required, but have bool.
6:7 Invalid value: fee does not fit: "1.2.3" is no amount of money: write a decimal such as "0.15", with at most 12 digits after the point.
8:8 Invalid value: from does not fit: element 0: must not have bits beyond its length.
7:8 Invalid value: home does not fit: "x" is no absolute URL without user: write one such as "https://example.com/path".
3:8 Invalid value: mode can not be "fats". Did you mean "fast"?
2:8 Invalid value: name must match the pattern [a-z]+, which "A" does not.
5:8 Invalid value: size does not fit: "1 MB" is no size: write a whole number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB, such as "64KiB".
9:8 Invalid value: skip does not fit: "(" is no RE2 pattern: error parsing regexp: missing closing ): ` + "`(`" + `.
4:8 Invalid value: wait does not fit: "5" is no duration: write a number with ns, us, ms, s, m, h or d, such as "250ms" or "1h30m".
`},
		{"key = 1\nname = \"a\"\ntoken = \"NO\"\nmode = secret.bad\nwait = secret.bad\nbox = secret.bad\nonly {}\nonly { y = 1 }\nrule {}", ``},
	} {
		_, _, diags := m.Decode(m.Hook(exchange.Admit), config(t, c.text), loadTime)
		got := lines(sorted(diags))
		if strings.Contains(got, "HUNTER2") || strings.Contains(got, `"NO"`) {
			t.Errorf("a secret is shown:\n%s", got)
		}
		if want := lines2(c.want); c.want != "" && got != want {
			t.Errorf("%s\ngot:\n%s\nwant:\n%s", c.text, got, want)
		}
		if c.want == "" && len(diags) < 6 {
			t.Errorf("%s\ngot:\n%s", c.text, got)
		}
		for _, d := range diags {
			if d.EvalContext != nil || d.Subject == nil {
				t.Errorf("%s: context %v, place %v", d.Summary, d.EvalContext, d.Subject)
			}
		}
	}
	_, _, diags := m.Decode(m.Hook(exchange.Admit), nil, loadTime)
	if len(diags) != 2 || diags[0].Subject != nil {
		t.Errorf("without a config block: %s", lines(diags))
	}
}

// sorted and lines2 make the order of messages that come out of a map certain.
func sorted(diags hcl.Diagnostics) hcl.Diagnostics {
	out := append(hcl.Diagnostics(nil), diags...)
	for i := range out {
		for j := i; j > 0 && lines(out[j:j+1]) < lines(out[j-1:j]); j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}

func lines2(text string) string {
	list := strings.SplitAfter(text, "\n")
	for i := range list {
		for j := i; j > 0 && list[j] < list[j-1]; j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
	return strings.Join(list, "")
}

func TestDurationsAndSizes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"5ms": 5 * time.Millisecond, "1h30m": 90 * time.Minute, "400d": 9600 * time.Hour, "1d12h": 36 * time.Hour, "0": 0, "0s": 0, "1.5s": 1500 * time.Millisecond,
	} {
		if got, err := ParseDuration(text); got != want || err != nil {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		if again, err := ParseDuration(FormatDuration(int64(want))); again != want || err != nil {
			t.Errorf("%s written as %s reads %v", text, FormatDuration(int64(want)), again)
		}
	}
	for text, want := range map[string]int64{"32KiB": 32768, "10MB": 10000000, "512B": 512, "7": 7, "0": 0, "1TiB": 1 << 40, "1GB": 1e9, "2GiB": 2 << 30, "3KB": 3000, "4TB": 4e12} {
		if got, err := ParseBytes(text); got != want || err != nil {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		if again, err := ParseBytes(FormatBytes(want)); again != want || err != nil {
			t.Errorf("%s written as %s reads %v", text, FormatBytes(want), again)
		}
	}
	for _, text := range []string{"", "5", "-5s", "d", "1d-1h", "106752d", "106751d24h", "1d1d", "1.5d", "5 ms", "+5s", "1dd", "ms"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q reads as %v", text, got)
		}
	}
	for _, text := range []string{"", "KB", "-1", "1.5MB", "1 KB", "1kb", "9223372036854775808", "9223372036854775807KB", "1KiBB", "+1"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("%q reads as %v", text, got)
		}
	}
}

func TestDocs(t *testing.T) {
	t.Parallel()
	golden := filepath.Join("testdata", "docs.md")
	got := mustParse(t, full).Docs()
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(golden); err != nil || string(want) != got {
		t.Errorf("%v; got:\n%s", err, got)
	}
}

func TestHostileDepth(t *testing.T) {
	t.Parallel()
	for _, open := range []string{"(", "[", "{a=", "!", "-", "\"${", "a?a:", "list(", "<<A\n${", "%{if a}"} {
		n := (MaxSize - 100) / len(open)
		_, diags := Parse([]byte("abi = "+strings.Repeat(open, n)+"\n"), "x")
		if !diags.HasErrors() {
			t.Errorf("%q nested %d deep has no error", open, n)
		}
		for _, d := range diags {
			if d.Subject == nil {
				t.Errorf("%q: no place", open)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("hook \"admit\" { sees { body = buffer(\"1B\") } }"))
	f.Add([]byte("argument x { type = object({a=list(cidr)}) default = {a=[\"::/0\"]} }"))
	f.Fuzz(func(t *testing.T, src []byte) {
		m, diags := Parse(src, "plugin.hcl")
		for _, d := range diags {
			if d.Subject == nil || d.Subject.Filename != "plugin.hcl" {
				t.Fatalf("%s: no place", d.Error())
			}
		}
		if diags.HasErrors() {
			return
		}
		m.Docs()
		for _, h := range m.Hooks {
			m.Decode(h, hcl.EmptyBody(), nil)
		}
	})
}

func module(sections ...string) []byte {
	return []byte("\x00asm\x01\x00\x00\x00" + strings.Join(sections, ""))
}

func TestPack(t *testing.T) {
	t.Parallel()
	code, name := "\x01\x04\x01\x60\x00\x00", "\x00\x06\x04nameX"
	for _, wasm := range [][]byte{module(), module(code), module(name, code)} {
		packed, err := Pack(wasm, []byte("one"))
		if err != nil {
			t.Fatal(err)
		}
		packed, err = Pack(packed, []byte(full))
		if err != nil {
			t.Fatal(err)
		}
		got, ok, err := Section(packed)
		if string(got) != full || !ok || err != nil {
			t.Errorf("got %q, %v, %v", got, ok, err)
		}
		if strings.Count(string(packed), abi.ManifestSection) != 1 {
			t.Error("the old manifest is still there")
		}
	}
	if _, ok, err := Section(module(code)); ok || err != nil {
		t.Errorf("a module without manifest: %v, %v", ok, err)
	}
	one, _ := Pack(module(), []byte("x"))
	for what, wasm := range map[string][]byte{
		"nothing": nil, "text": []byte("hello, world"), "version 2": []byte("\x00asm\x02\x00\x00\x00"), "component": []byte("\x00asm\x0d\x00\x01\x00"),
		"cut size": module("\x01"), "long size": module("\x01\xff\xff\xff\xff\xff\x01"), "beyond": module("\x01\x05ab"), "cut name": module("\x00\x01\x05"),
		"two": append(one, one[8:]...), "huge": module("\x00\xff\xff\xff\xff\x0f"), "large manifest": packedRaw(MaxSize + 1),
	} {
		if got, ok, err := Section(wasm); err == nil || ok {
			t.Errorf("%s: got %d octets, %v", what, len(got), ok)
		}
	}
	if _, err := Pack(module(), make([]byte, MaxSize+1)); err == nil {
		t.Error("a manifest too large was packed")
	}
}

func packedRaw(n int) []byte {
	size := n + 17
	return append(module("\x00"+string([]byte{byte(size)&0x7f | 0x80, byte(size>>7)&0x7f | 0x80, byte(size >> 14)})+"\x10"+abi.ManifestSection), make([]byte, n)...)
}

func FuzzSection(f *testing.F) {
	one, _ := Pack(module("\x01\x04\x01\x60\x00\x00"), []byte("abi = 1"))
	f.Add(one, []byte("x"))
	f.Add(module("\x00\x06\x04nameX"), []byte(""))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, wasm, text []byte) {
		_, _, err := Section(wasm)
		packed, packErr := Pack(wasm, text)
		if packErr != nil {
			if err == nil && len(text) <= MaxSize {
				t.Fatalf("read but not packed: %v", packErr)
			}
			return
		}
		got, ok, err := Section(packed)
		if !ok || err != nil || string(got) != string(text) {
			t.Fatalf("packed %q, read %q, %v, %v", text, got, ok, err)
		}
	})
}

package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

// start is when the clock of plugintest begins.
const start = 1767323045

const secret = "0123456789abcdef0123456789abcdef"

// sign is the value a signer sends for a signature base.
func sign(secret, base string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(base))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// signed is a request: the lines of the signature base without the last, then the parameters.
func signed(x *exchange.Exchange, params string, lines ...string) *exchange.Exchange {
	base := strings.Join(append(lines, `"@signature-params": `+params), "\n")
	x.Request.Header.Add("signature-input", "sig="+params)
	x.Request.Header.Add("signature", "sig=:"+sign(secret, base)+":")
	return x
}

func get(path, query string, fields ...string) *exchange.Exchange {
	x := &exchange.Exchange{Request: exchange.Request{Method: "GET", Authority: "API.example.com:443", Path: path, Query: query}}
	for i := 0; i < len(fields); i += 2 {
		x.Request.Header.Add(fields[i], fields[i+1])
	}
	return x
}

// at is a signature's params over the default components.
func at(created int, more string) string {
	return `("@method" "@authority" "@path" "@query");created=` + strconv.Itoa(created) + `;keyid="k"` + more
}

var lines = []string{`"@method": GET`, `"@authority": api.example.com`, `"@path": /a`, `"@query": ?b=c`}

const block = `
key "k" {
  secret  = "` + secret + `"
  account = "acct_a"
  name    = "laptop"
  scopes  = ["a", "b"]
}
`

func TestPlugin(t *testing.T) {
	alice := &exchange.Identity{Account: "acct_a", Key: "k", Name: "laptop", Scopes: []string{"a", "b"}}
	known := plugintest.Want{Identity: alice, Without: []string{"signature", "signature-input"}}
	not := func(code, detail string) plugintest.Want {
		return plugintest.Want{Respond: 401, Code: code, Detail: detail, Headers: exchange.Header{{Name: "www-authenticate", Value: challenge}}, Check: func(t *testing.T, o *plugintest.Outcome) {
			if strings.Contains(o.Log+o.Answer.Detail, secret) {
				t.Error("the secret shows")
			}
		}}
	}
	bad := func(detail string) plugintest.Want { return not("invalid_signature", detail) }
	malformed := bad("signature-input is malformed")
	one := func(name, config string, x *exchange.Exchange, want plugintest.Want) plugintest.Case {
		return plugintest.Case{Name: name, Stages: []plugintest.Stage{{Phase: exchange.Authenticate, Config: config + block}}, Exchange: x, Events: []plugintest.Event{{Want: want}}}
	}
	plain := func(more string) *exchange.Exchange { return signed(get("/a", "b=c"), at(start, more), lines...) }
	allow := `replay = "allow"`
	raw := func(input, signature string) *exchange.Exchange {
		return get("/a", "b=c", "signature-input", input, "signature", signature)
	}
	good := "sig=:" + sign(secret, strings.Join(append(lines[:4:4], `"@signature-params": `+at(start, "")), "\n")) + ":"
	post := func(body, cover, digest string) *exchange.Exchange {
		x := get("/a", "b=c", "content-digest", digest)
		if cover == "" {
			return signed(x, at(start, ""), lines...)
		}
		return signed(x, strings.Replace(at(start, ""), ")", ` "content-digest")`, 1), append(lines[:4:4], `"content-digest": `+digest)...)
	}
	withBody := func(name, config, body string, x *exchange.Exchange, want plugintest.Want) plugintest.Case {
		c := one(name, config, x, want)
		c.Events[0].Body, c.Events[0].End = []byte(body), true
		return c
	}
	sum, long := sha256.Sum256([]byte("hello")), sha512.Sum512([]byte("hello"))
	short := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
	both := short + ", sha-512=:" + base64.StdEncoding.EncodeToString(long[:]) + ":"
	cases := []plugintest.Case{
		one("known", allow, plain(""), known),
		one("nonce", "", plain(`;nonce="n1"`), known),
		one("no nonce", "", plain(""), bad("nonce")),
		one("empty nonce", "", plain(`;nonce=""`), bad("nonce")),
		one("long nonce", "", plain(`;nonce="`+strings.Repeat("n", 257)+`"`), bad("nonce")),
		one("kept", allow+"\nkeep = true", plain(""), plugintest.Want{Identity: alice, Headers: exchange.Header{{Name: "signature", Value: good}}}),
		one("algorithm named", allow, plain(`;alg="hmac-sha256"`), known),
		one("another algorithm", allow, plain(`;alg="rsa-pss-sha512"`), bad("by a key that is known")),
		one("an unsigned request", "", get("/a", "b=c"), not("missing_signature", "RFC 9421")),
		one("asks for what it needs", `cover = ["@method", "date"]
tag = "orders"`, get("/", ""), plugintest.Want{Respond: 401, Headers: exchange.Header{{Name: "accept-signature", Value: `sig=("@method" "date");created;alg="hmac-sha256";tag="orders"`}}}),
		one("another key", allow, signed(get("/a", "b=c"), strings.Replace(at(start, ""), `"k"`, `"x"`, 1), lines...), bad("by a key that is known")),
		one("no key", allow, signed(get("/a", "b=c"), strings.Replace(at(start, ""), `;keyid="k"`, "", 1), lines...), bad("by a key that is known")),
		one("a path of another request", allow, signed(get("/x", "b=c"), at(start, ""), lines...), bad("not valid")),
		one("a query of another request", allow, signed(get("/a", "b=d"), at(start, ""), lines...), bad("not valid")),
		one("a query added", allow, signed(get("/a", "b=c&d"), at(start, ""), lines...), bad("not valid")),
		one("no query", allow, signed(get("/a", ""), at(start, ""), lines[0], lines[1], lines[2], `"@query": ?`), known),
		one("too little covered", allow, signed(get("/a", "b=c"), `("@method" "@path" "@query");created=1767323045;keyid="k"`, lines[0], lines[2], lines[3]), bad("cover @authority")),
		one("target-uri stands for its parts", allow, signed(get("/a", "b=c"), `("@method" "@target-uri");created=1767323045;keyid="k"`, lines[0], `"@target-uri": https://api.example.com/a?b=c`), known),
		one("request-target stands for its parts", allow, signed(get("/a", "b=c"), `("@method" "@request-target" "@authority" "@scheme");created=1767323045;keyid="k"`, lines[0], `"@request-target": /a?b=c`, lines[1], `"@scheme": https`), known),
		one("several fields of a name", allow+"\ncover = [\"x-a\"]", signed(get("/", "", "x-a", " one ", "x-b", "b", "x-a", "two"), `("x-a");created=1767323045;keyid="k"`, `"x-a": one, two`), known),
		one("a field that is not there", allow+"\ncover = [\"x-a\"]", signed(get("/", ""), `("x-a");created=1767323045;keyid="k"`, `"x-a": `), bad("does not have")),
		one("an empty field", allow+"\ncover = [\"x-a\"]", signed(get("/", "", "x-a", ""), `("x-a");created=1767323045;keyid="k"`, `"x-a": `), known),
		one("spaces where they may be", allow, raw(strings.NewReplacer("(", "(  ", `" "`, `"   "`, ")", " )", ";", "; ").Replace("sig="+at(start, "")), good), known),
		one("other signatures beside it", allow, raw(`a=();created=1, sig=`+at(start, "")+` , b=("@status");alg="ed25519";keyid="else"`, "a=:AAAA:, "+good), known),
		one("two lines of each", allow, get("/a", "b=c", "signature-input", "a=();created=1", "signature-input", "sig="+at(start, ""), "signature", "a=:AAAA:", "signature", good), known),
		one("tag", allow+"\ntag = \"orders\"", plain(`;tag="orders"`), known),
		one("another tag", allow+"\ntag = \"orders\"", plain(`;tag="other"`), bad("by a key that is known")),
		one("no tag", allow+"\ntag = \"orders\"", plain(""), bad("by a key that is known")),
		// The time.
		one("no time", allow, signed(get("/a", "b=c"), `("@method" "@authority" "@path" "@query");keyid="k"`, lines...), bad("lacks the parameter created")),
		one("just old enough", allow, signed(get("/a", "b=c"), at(start-329, ""), lines...), known),
		one("too old", allow, signed(get("/a", "b=c"), at(start-330, ""), lines...), bad("expired")),
		one("just early", allow, signed(get("/a", "b=c"), at(start+30, ""), lines...), known),
		one("too early", allow, signed(get("/a", "b=c"), at(start+31, ""), lines...), bad("future")),
		one("the end of time", allow, signed(get("/a", "b=c"), at(999999999999999, ""), lines...), bad("future")),
		one("expires", allow, plain(";expires="+strconv.Itoa(start-29)), known),
		one("expired", allow, plain(";expires="+strconv.Itoa(start-30)), bad("expired")),
		one("expires far away", allow, signed(get("/a", "b=c"), at(start-330, ";expires=999999999999999"), lines...), bad("expired")),
		// The body.
		withBody("body", allow, "hello", post("hello", "c", short), known),
		withBody("body with two digests", allow, "hello", post("hello", "c", both), known),
		withBody("body and an unknown digest beside", allow, "hello", post("hello", "c", "md5=:AAAA:, "+short), known),
		withBody("another body", allow, "hullo", post("hello", "c", short), bad("not the one that was signed")),
		withBody("body without a digest", allow, "hello", plain(""), bad("content-digest")),
		withBody("a digest that is not signed", allow, "hello", post("hello", "", short), bad("content-digest")),
		withBody("only an unknown digest", allow, "hello", post("hello", "c", "md5=:AAAA:"), bad("neither sha-256 nor sha-512")),
		withBody("the second digest is wrong", allow, "hello", post("hello", "c", strings.Replace(both, "sha-512=:", "sha-512=:AAAA", 1)), bad("malformed")),
		withBody("two of the same digest", allow, "hello", post("hello", "c", short+", "+short), bad("malformed")),
		withBody("no body, and a digest of one", allow, "", post("hello", "c", short), bad("not the one that was signed")),
		withBody("unchecked", allow+"\nbody = \"unchecked\"", "hullo", post("hello", "c", short), known),
		withBody("unchecked without a digest", allow+"\nbody = \"unchecked\"", "hullo", plain(""), known),
		// What is not exactly right.
		one("no signature of that label", allow, raw("sig="+at(start, ""), strings.Replace(good, "sig", "gis", 1)), bad("no signature of that label")),
		one("signature twice", allow, raw("sig="+at(start, ""), good+", "+good), bad("malformed")),
		one("signature cut", allow, raw("sig="+at(start, ""), good[:20]), bad("malformed")),
		one("signature with a parameter", allow, raw("sig="+at(start, ""), good+";a=1"), bad("malformed")),
		one("signature with stray bits", allow, raw("sig="+at(start, ""), good[:len(good)-3]+"B=:"), bad("not valid")),
		one("label twice", allow, raw("sig="+at(start, "")+", sig="+at(start, ""), good), malformed),
		one("no list", allow, raw("sig=1", good), malformed),
		one("a list that does not end", allow, raw(`sig=("@method"`, good), malformed),
		one("no space between components", allow, raw(strings.Replace("sig="+at(start, ""), `" "`, `""`, 1), good), malformed),
		one("a component twice", allow, raw(strings.Replace("sig="+at(start, ""), `"@path"`, `"@path" "@path"`, 1), good), malformed),
		one("a component with a parameter", allow, raw(strings.Replace("sig="+at(start, ""), `"@path"`, `"@path";req`, 1), good), malformed),
		one("a component not known", allow, signed(get("/a", "b=c"), strings.Replace(at(start, ""), ")", ` "@status")`, 1), append(lines[:4:4], `"@status": `)...), bad("can not be checked")),
		one("an upper case component", allow, signed(get("/a", "b=c", "x-a", "1"), strings.Replace(at(start, ""), ")", ` "X-A")`, 1), append(lines[:4:4], `"X-A": 1`)...), bad("can not be checked")),
		one("a parameter twice", allow, plain(`;created=1767323045`), malformed),
		one("a parameter not known", allow, plain(`;x=1`), malformed),
		one("a parameter without a value", allow, plain(`;nonce`), malformed),
		one("a number with zeros", allow, plain(`;expires=01767323045`), malformed),
		one("a negative number", allow, plain(`;expires=-1`), malformed),
		one("a decimal", allow, plain(`;expires=1767323045.5`), malformed),
		one("a long number", allow, plain(`;expires=1767323045000000`), malformed),
		one("a token for a string", allow, plain(`;nonce=abc`), malformed),
		one("an escape", allow, plain(`;nonce="a\"b"`), malformed),
		one("a comma at the end", allow, raw("sig="+at(start, "")+",", good), malformed),
		one("two commas", allow, raw("a=(),, sig="+at(start, ""), good), malformed),
		one("many components", allow, raw("sig=("+strings.Repeat(`"a" `, 40)+");keyid=\"k\"", good), malformed),
		{Name: "a secret twice", Stages: []plugintest.Stage{{Phase: exchange.Authenticate, Config: block + block}}, Refused: `there twice`},
	}
	for _, c := range []struct{ config, refused string }{
		{`key "k" {
  secret  = "short"
  account = "a"
}`, "at least 16 octets"},
		{`key "k" {
  secret   = "?not base64?!"
  encoding = "base64"
  account  = "a"
}`, "secret is not base64"},
		{`key "k" {
  secret  = "` + secret + `"
  account = ""
}`, "account is empty"},
		{`key "a\"b" {
  secret  = "` + secret + `"
  account = "a"
}`, "an id is printable"},
		{"cover = []" + block, "cover: write 1 to 32"},
		{"cover = [\"@status\"]" + block, `cover: "@status" is neither`},
		{"cover = [\"Date\"]" + block, `cover: "Date" is neither`},
		{"window = \"0s\"" + block, "window:"},
		{"window = \"25h\"" + block, "window:"},
		{"skew = \"2h\"" + block, "skew:"},
	} {
		cases = append(cases, plugintest.Case{Name: "refused: " + c.refused, Stages: []plugintest.Stage{{Phase: exchange.Authenticate, Config: c.config}}, Refused: c.refused})
	}
	tooLong := withBody("a long body", allow, "hello", post("hello", "c", short), plugintest.Want{Respond: 413, Code: "body_too_large"})
	tooLong.Events[0].Truncated, tooLong.Events[0].End = true, false
	cases = append(cases, tooLong)
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }}, cases)
}

// A signature counts once, for as long as it counts at all; then it has expired.
func TestReplay(t *testing.T) {
	alice := &exchange.Identity{Account: "acct_a", Key: "k", Name: "laptop", Scopes: []string{"a", "b"}}
	known, again := plugintest.Want{Identity: alice}, plugintest.Want{Respond: 401, Code: "replayed_signature"}
	request := func(created int, more string) *exchange.Exchange {
		return signed(get("/a", "b=c"), at(created, more), lines...)
	}
	event := func(after time.Duration, x *exchange.Exchange, want plugintest.Want) plugintest.Event {
		return plugintest.Event{After: after, Exchange: x, Want: want}
	}
	wrong := request(start, `;nonce="w"`)
	wrong.Request.Path = "/b"
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }}, []plugintest.Case{
		{Name: "nonce", Stages: []plugintest.Stage{{Phase: exchange.Authenticate, Config: block}}, Events: []plugintest.Event{
			event(0, request(start, `;nonce="1"`), known),
			event(0, request(start, `;nonce="1"`), again),
			event(time.Second, request(start+1, `;nonce="1"`), again), // another signature with the same nonce
			event(0, request(start+1, `;nonce="2"`), known),
			event(0, wrong, plugintest.Want{Respond: 401, Code: "invalid_signature"}), // uses no nonce up
			event(0, request(start, `;nonce="w"`), known),
			event(328*time.Second, request(start, `;nonce="1"`), again),
			event(time.Second, request(start, `;nonce="1"`), plugintest.Want{Respond: 401, Code: "invalid_signature", Detail: "expired"}),
			event(3*time.Second, request(start+330, `;nonce="1"`), known), // nobody has to remember it any longer
		}},
		{Name: "signature", Stages: []plugintest.Stage{{Phase: exchange.Authenticate, Config: `replay = "signature"` + block}}, Events: []plugintest.Event{
			event(0, request(start, ""), known),
			event(0, request(start, ""), again),
			event(time.Second, request(start+1, ""), known),
			event(0, request(start+1, `;nonce="1"`), known),
			event(0, request(start+2, `;nonce="1"`), again),
		}},
		{Name: "allow", Stages: []plugintest.Stage{{Phase: exchange.Authenticate, Config: `replay = "allow"` + block}}, Events: []plugintest.Event{
			event(0, request(start, `;nonce="1"`), known),
			event(0, request(start, `;nonce="1"`), known),
		}},
	})
}

// The example of RFC 9421, appendix B.2.5.
func TestRFC9421(t *testing.T) {
	x := &exchange.Exchange{Request: exchange.Request{Method: "POST", Authority: "example.com", Path: "/foo", Query: "param=Value&Pet=dog", Header: exchange.Header{
		{Name: "date", Value: "Tue, 20 Apr 2021 02:07:55 GMT"},
		{Name: "content-type", Value: "application/json"},
		{Name: "content-digest", Value: "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"},
		{Name: "signature-input", Value: `sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`},
		{Name: "signature", Value: "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:"},
	}}}
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }, Stages: []plugintest.Stage{{Phase: exchange.Authenticate, Config: `
cover  = ["date", "@authority", "content-type"]
replay = "signature"
body   = "unchecked"
key "test-shared-secret" {
  secret   = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
  encoding = "base64"
  account  = "acct_example"
}`}}}, []plugintest.Case{{Name: "B.2.5", Exchange: x, Events: []plugintest.Event{
		{After: time.Unix(1618884475, 0).Sub(time.Unix(start, 0)), Body: []byte(`{"hello": "world"}`), End: true, Want: plugintest.Want{Identity: &exchange.Identity{Account: "acct_example", Key: "test-shared-secret"}}},
		{Exchange: x, Body: []byte(`{"hello": "world"}`), End: true, Want: plugintest.Want{Respond: 401, Code: "replayed_signature"}},
	}}})
}

// frame writes an event of the authenticate phase with these slots.
func frame(slots ...[]byte) []byte {
	b := make([]byte, abi.FrameHeader+abi.SlotSize*(abi.SlotFirst+len(slots)))
	b[4] = byte(abi.EventRequest)
	binary.LittleEndian.PutUint32(b[12:], uint32(abi.SlotFirst+len(slots)))
	binary.LittleEndian.PutUint64(b[16:], start*1e9)
	for i, s := range slots {
		at := abi.FrameHeader + abi.SlotSize*(abi.SlotFirst+i)
		binary.LittleEndian.PutUint32(b[at:], uint32(len(b)))
		binary.LittleEndian.PutUint32(b[at+4:], uint32(len(s)))
		b = append(b, s...)
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

// request is the frame of a GET with these fields.
func request(fields ...string) []byte {
	var run []byte
	for _, f := range fields {
		run = append(binary.LittleEndian.AppendUint32(run, uint32(len(f))), f...)
	}
	text := func(s string) []byte { return abi.AppendString(nil, s) }
	return frame(run, text("GET"), text("https"), text("api.example.com"), text("/a"), text("b=c"))
}

type host struct{}

func (host) Log(int, string)                   {}
func (host) Op(abi.Code, []byte, []byte) int64 { return 0 }

// instance is a configured plugin.
func instance(t testing.TB) (*postern.Instance, *plugin) {
	t.Helper()
	mac := hmac.New(sha256.New, []byte(secret))
	p := &plugin{stages: []stage{{
		keys: []key{{id: "k", account: "acct_a", scopes: []string{"a"}, mac: mac}}, cover: []string{"@method", "@authority", "@path", "@query"},
		window: int64(5 * time.Minute), nonce: true, once: true,
	}}}
	return postern.NewInstance(p, host{}), p
}

func TestNoAllocations(t *testing.T) {
	i, _ := instance(t)
	params := at(start, `;nonce="n"`)
	b := request("accept", "*/*", "signature-input", "sig="+params, "signature", "sig=:"+sign(secret, strings.Join(append(lines[:4:4], `"@signature-params": `+params), "\n"))+":")
	run := func() {
		if action, ops := i.On(copy(i.Frame(), b)); action != abi.ActionContinue || len(ops) == 0 {
			t.Fatalf("action %d, %q", action, ops)
		}
	}
	run()
	if n := testing.AllocsPerRun(100, run); n > 0 {
		t.Errorf("%v allocations for one event", n)
	}
}

// Whatever is sent, nobody gets in without the secret, and what was covered is what was sent.
func FuzzSignature(f *testing.F) {
	f.Add("sig="+at(start, `;nonce="n"`), "sig=:"+strings.Repeat("A", 43)+"=:")
	f.Add(`a=();created=1 , b=("x" "y"  "z" ); keyid="k";tag="t";alg="hmac-sha256";expires=0`, "a=:AAAA:,b=::")
	f.Add(`sig=("@method";req)`, "sig=1")
	f.Add("*=()", "*")
	i, _ := instance(f)
	f.Fuzz(func(t *testing.T, input, signature string) {
		if len(input)+len(signature) > 32<<10 {
			return
		}
		action, _ := i.On(copy(i.Frame(), request("signature-input", input, "signature", signature)))
		if action != abi.ActionRespond {
			t.Fatalf("action %d for %q, %q", action, input, signature)
		}
		var s parsed
		r := reader{b: []byte(input)}
		if more, ok := r.next(true); more && ok && r.member(&s) {
			// What is signed reads as itself.
			again := reader{b: append([]byte("l="), s.params...)}
			var twin parsed
			if !again.member(&twin) || string(twin.params) != string(s.params) || again.i != len(again.b) || twin.count != s.count || twin.created != s.created {
				t.Fatalf("%q reads as %q", s.params, twin.params)
			}
		}
	})
}

type parsed = signature

// The request that README.md shows is signed as it says.
func TestReadmeExample(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange.Exchange{Request: exchange.Request{Method: "POST", Authority: "api.example.com", Path: "/v1/orders"}}
	for _, name := range []string{"content-digest", "signature-input", "signature"} {
		_, rest, ok := strings.Cut(string(text), "\n"+name+": ")
		if !ok {
			t.Fatal("README.md does not show", name)
		}
		value, _, _ := strings.Cut(rest, "\n")
		x.Request.Header.Add(name, value)
	}
	policy, err := os.ReadFile("testdata/policy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	_, config, _ := strings.Cut(strings.Replace(string(policy), `, "content-type"`, "", 1), "config {\n")
	config = config[:strings.LastIndex(config, "    }\n  }\n}")]
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }}, []plugintest.Case{{
		Name: "README.md", Exchange: x, Stages: []plugintest.Stage{{Phase: exchange.Authenticate, Config: config}},
		Events: []plugintest.Event{{Body: []byte(`{"item":7}`), End: true, Want: plugintest.Want{Identity: &exchange.Identity{Account: "acct_acme", Key: "acme-2026", Scopes: []string{"orders:write"}}}}},
	}})
}

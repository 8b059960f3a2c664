package plugintest_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/expr"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/plugin/abi1"
	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/plugintest"
	"github.com/postern-gateway/postern/sdk/plugintest/testdata/greet/policy"
)

// blocks returns the fenced blocks of sdk/ABI.md in a language.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile("../ABI.md")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, m := range regexp.MustCompile("(?s)\n```"+language+"\n(.*?)\n```\n").FindAllSubmatch(text, -1) {
		list = append(list, string(m[1]))
	}
	return list
}

// octets reads a commented hex dump: pairs of digits up to two spaces.
func octets(t *testing.T, dump string) []byte {
	t.Helper()
	var b []byte
	for line := range strings.Lines(dump) {
		digits := regexp.MustCompile(`^([0-9a-f]{2}( |$))+`).FindString(strings.TrimRight(line, "\n"))
		part, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(digits), " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, part...)
	}
	return b
}

// The frame and the result that sdk/ABI.md shows octet by octet are what the host writes and the SDK answers.
func TestDocumentedFrame(t *testing.T) {
	dumps := blocks(t, "hex")
	frame, result := octets(t, dumps[0]), octets(t, dumps[1])
	m, diags := manifest.Parse([]byte(blocks(t, "hcl")[0]), "plugin.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	hook := m.Hook(exchange.RequestPhase)
	e, diags := hclsyntax.ParseExpression([]byte("request.host"), "x", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	to, diags := expr.Compile(e, expr.Scope{Phase: exchange.RequestPhase}, cty.String)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	stage := &config.Stage{Phase: exchange.RequestPhase, Hook: hook, Arguments: []*expr.Program{to}, Config: cty.ObjectVal(map[string]cty.Value{"greeting": cty.StringVal("Welcome")})}
	layout, err := abi1.New().NewLayout(stage, 0)
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange.Exchange{ID: "edge-1-1", Request: exchange.Request{Authority: "edge", Header: exchange.Header{{Name: "accept", Value: "*/*"}, {Name: "x-name", Value: "Ada"}}}}
	now := int64(binary.LittleEndian.Uint64(frame[16:]))
	got, err := layout.AppendFrame(nil, &plugin.Event{Kind: abi.EventRequest, Exchange: x, Arguments: stage.Arguments}, now)
	if err != nil {
		t.Fatal(err)
	}
	copy(got[24:32], frame[24:32]) // the exchange number is another in each process
	if !bytes.Equal(got, frame) {
		t.Errorf("the host writes\n% x\nand the text shows\n% x", got, frame)
	}
	i := postern.NewInstance(new(policy.Greet), nil)
	if action, _ := i.Configure(copy(i.Frame(), layout.AppendConfigure(nil, now))); action != abi.ActionContinue {
		t.Fatal("refused")
	}
	action, ops := i.On(copy(i.Frame(), frame))
	if action != abi.ActionContinue || !bytes.HasPrefix(ops, result) {
		t.Errorf("the SDK answers\n% x\nand the text shows\n% x", ops, result)
	}
	if packed := abi.Result(action, 0x00012340, uint32(len(result))); packed != 0x00_00001e_00012340 {
		t.Errorf("the packed result is %#x", packed)
	}
}

// The Go plugin that sdk/ABI.md shows is built as it says, outside the repository, and does what it says.
func TestDocumentedPlugin(t *testing.T) {
	dir, repository := t.TempDir(), "../.."
	repository, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"main.go": blocks(t, "go")[0], "plugin.hcl": blocks(t, "hcl")[0],
		"go.mod":  "module example.com/greet\n\ngo 1.26.4\n",
		"go.work": "go 1.26.4\n\nuse (\n\t.\n\t" + repository + "\n)\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	plugintest.Run(t, plugintest.Config{Dir: dir, Name: "greet", Stages: []plugintest.Stage{{
		Phase: exchange.RequestPhase, Config: "greeting = \"Welcome\"\nto = request.host",
	}}}, []plugintest.Case{
		{Name: "greets", Events: []plugintest.Event{{Want: plugintest.Want{Headers: exchange.Header{{Name: "x-greeting", Value: "Welcome, localhost"}}}}}},
	})
}

// Every number that sdk/ABI.md names is the one the code uses.
func TestDocumentedNumbers(t *testing.T) {
	text, err := os.ReadFile("../ABI.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| 5 | FETCHED |", "| 12 | METER |", "| 9 | RESPOND_BODY |", "| 11 | RELEASE |", "| -10 | UNKNOWN |", "| 5 | ERROR |",
		"| 2 | AWAIT |", "| 11 | FETCH |", "| 13 | CACHE_PUT |", "at most 1,048,576 octets. A fifth AWAIT", "| fetches of a result / AWAITs in a row | 8 / 4 |",
		"| `" + abi.FetchDenied + "` |", "| `" + abi.FetchInvalid + "` |", "| `" + abi.FetchTimeout + "` |", "| `" + abi.FetchUnreachable + "` |",
		"| `" + abi.FetchTooLarge + "` |", "| `" + abi.FetchBusy + "` |",
	} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the text lacks %q", want)
		}
	}
	if abi.EventFetched != 5 || abi.OpMeter != 12 || abi.OpRespondBody != 9 || abi.CodeRelease != 11 || abi.ErrUnknown != -10 || abi.ActionError != 5 ||
		abi.ActionAwait != 2 || abi.OpFetch != 11 || abi.CodeCachePut != 13 || abi.MaxFetch != 1048576 || abi.MaxFetched != 1048576 || abi.MaxFetches != 8 || abi.MaxAwaits != 4 {
		t.Error("the code has other numbers than the text")
	}
	if abi.MaxResultOps != 4096 || abi.MaxOps != 1024 || abi.MaxCarry != 65536 || abi.MaxHeader != 16384 || abi.MaxFrame != 16777215 || plugin.MaxModule != 8388608 || manifest.MaxBuffer != 15<<20 {
		t.Error("the code has other limits than the text")
	}
}

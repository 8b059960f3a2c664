package openai

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/provider"
)

// told is what an event adds, as "0:text,1:text".
func told(event string) string {
	var list []string
	New().Text([]byte(event), func(choice int, text []byte) { list = append(list, fmt.Sprintf("%d:%s", choice, text)) })
	return strings.Join(list, ",")
}

func TestText(t *testing.T) {
	t.Parallel()
	for event, want := range map[string]string{
		`data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"}}]}`:                            "0:Hel",
		`data: {"choices":[{"index":1,"delta":{"content":"\u00e9\n\"x\""}},{"index":0,"delta":{"content":"b"}}]}`: "1:é\n\"x\",0:b",
		`data: {"choices":[{"delta":{"content":"no index"}}]}`:                                                    "0:no index",
		`data: {"choices":[{"index":0,"delta":{"refusal":"no"}}]}`:                                                "0:no",
		`data: {"choices":[{"index":0,"delta":{"content":""}}],"usage":null}`:                                     "",
		`data: {"choices":[{"index":0,"delta":{"content":null,"tool_calls":[{"function":{"name":"f"}}]}}]}`:       "",
		`data: {"choices":[{"index":128,"delta":{"content":"x"}}]}`:                                               "",
		`data: {"choices":[{"index":-1,"delta":{"content":"x"}}]}`:                                                "",
		`data: {"choices":[{"index":"0","delta":{"content":"x"}}]}`:                                               "",
		`data: {"choices":[{"index":0,"delta":["content"]},3,"x"]}`:                                               "",
		`data: {"choices":{"index":0,"delta":{"content":"x"}}}`:                                                   "",
		`data: {"error":{"message":"x"}}`:                                                                         "",
		"data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{\"content\":\"two lines\"}}]}":                       "0:two lines",
		"data: [DONE]": "",
		": comment":    "",
		"data:":        "",
		"":             "",
		"data: {":      "",
		`data: {"choices":[{"index":0,"delta":{"content":"x`: "",
	} {
		if got := told(event + "\n\n"); got != want {
			t.Errorf("%s adds %q, want %q", event, got, want)
		}
	}
}

// FuzzText: whatever an upstream sends, choices are in bounds.
func FuzzText(f *testing.F) {
	f.Add([]byte(`data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}` + "\n\n"))
	f.Add([]byte("data: {\"choices\":[{\"delta\":{\"content\":\"\\ud800\"}}]\n\n"))
	f.Fuzz(func(t *testing.T, event []byte) {
		New().Text(event, func(choice int, _ []byte) {
			if choice < 0 || choice >= maxChoices {
				t.Errorf("choice %d", choice)
			}
		})
	})
}

func TestPrivate(t *testing.T) {
	t.Parallel()
	for member, want := range map[string]bool{`"store":false`: true, `"st\u006fre":false`: true, `"store":true`: false, `"store":null`: false, `"n":1`: false} {
		call, p := New().Read(provider.Operation{Name: chat, Billed: true}, nil, []byte(`{"model":"m","messages":[],`+member+`}`), 10)
		if p != nil || call.Private != want {
			t.Errorf("%s: %t, %v", member, call.Private, p)
		}
	}
}

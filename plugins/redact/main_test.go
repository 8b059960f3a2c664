package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

func TestPlugin(t *testing.T) {
	with := func(contentType string) *exchange.Exchange {
		return &exchange.Exchange{Request: exchange.Request{Method: "POST", Header: exchange.Header{
			{Name: "content-type", Value: contentType}, {Name: "accept-encoding", Value: "gzip"},
		}}}
	}
	json := with("application/json")
	stages := func(config string) []plugintest.Stage {
		return []plugintest.Stage{{Phase: exchange.RequestPhase, Config: config}, {Phase: exchange.ResponsePhase}}
	}
	request := func(body string, want plugintest.Want) plugintest.Event {
		return plugintest.Event{Body: []byte(body), End: true, Want: want}
	}
	head := func(fields ...string) plugintest.Event {
		return plugintest.Event{Stage: 1, Before: func(x *exchange.Exchange) {
			x.Response.Status = 200
			for i := 0; i < len(fields); i += 2 {
				x.Response.Header.Add(fields[i], fields[i+1])
			}
		}}
	}
	piece := func(body, want string, end, stream bool) plugintest.Event {
		e := plugintest.Event{Stage: 1, Kind: abi.EventResponseBody, Body: []byte(body), End: end, Stream: stream, Want: plugintest.Want{Body: want, Unchanged: body == want}}
		e.Want.Dropped = want == ""
		return e
	}
	chunk := func(s string) string {
		return `data: {"choices":[{"index":0,"delta":{"content":"` + s + `"},"finish_reason":null}]}` + "\n\n"
	}
	const ask, sent = `{"model":"m","messages":[{"role":"user","content":"I am alice@example.com, card 4532 0151 1283 0366"}]}`,
		`{"model":"m","messages":[{"role":"user","content":"I am [EMAIL_1], card [CARD_1]"}]}`
	replaced := plugintest.Want{Body: sent, Without: []string{"accept-encoding"}, Meters: map[string]int64{"email": 1, "card": 1}}
	many := `["` + strings.Repeat("a@example.com ", maxSplices+1) + `"]`
	var distinct strings.Builder
	for i := range 1001 {
		fmt.Fprintf(&distinct, "u%d@example.com ", i)
	}
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return newPlugin() }, Stages: stages("")}, []plugintest.Case{
		{Name: "whole reply", Exchange: json, Events: []plugintest.Event{
			request(ask, replaced), head(), piece(`{"choices":[{"message":{"content":"Hello [EMAIL_1]!"}}]}`, `{"choices":[{"message":{"content":"Hello alice@example.com!"}}]}`, true, false),
		}},
		{Name: "reply in pieces", Exchange: json, Events: []plugintest.Event{
			request(ask, replaced), head(), piece(`{"a":"Hello [EM`, `{"a":"Hello `, false, false), piece(`AIL`, "", false, false), piece(`_1]!","b":"[`, `alice@example.com!","b":"`, false, false), piece(`x"}`, `[x"}`, true, false),
		}},
		{Name: "stream", Exchange: json, Events: []plugintest.Event{
			request(ask, replaced), head("content-type", "text/event-stream"),
			piece(chunk("Hello"), chunk("Hello"), false, true), piece(chunk(" [EMA"), chunk(" "), false, true), piece(": ping\n\n", ": ping\n\n", false, true),
			piece(chunk("IL_1"), chunk(""), false, true), piece(chunk("]!"), chunk("alice@example.com!"), false, true),
			piece(chunk("["), chunk(""), false, true), piece("data: [DONE]\n\n", chunk("[")+"data: [DONE]\n\n", false, true), piece("", "", true, true),
		}},
		{Name: "stream cut off", Exchange: json, Events: []plugintest.Event{
			request(ask, replaced), head("content-type", "text/event-stream"), piece(chunk("[CARD_"), chunk(""), false, true), piece("", chunk("[CARD_"), true, true),
		}},
		{Name: "nothing found", Exchange: json, Events: []plugintest.Event{
			request(`{"messages":[]}`, plugintest.Want{Unchanged: true, Headers: exchange.Header{{Name: "accept-encoding", Value: "gzip"}}}),
			{Stage: 1, Before: func(x *exchange.Exchange) { x.Response.Status = 200 }, Want: plugintest.Want{Done: true}},
		}},
		{Name: "no body", Events: []plugintest.Event{{End: true, Body: []byte{}, Want: plugintest.Want{Unchanged: true}}}},
		{Name: "compressed reply", Exchange: json, Events: []plugintest.Event{
			request(ask, replaced), {Stage: 1, Before: func(x *exchange.Exchange) {
				x.Response.Status = 200
				x.Response.Header.Add("content-encoding", "br")
			}, Want: plugintest.Want{Done: true}},
		}},
		{Name: "not restored", Exchange: json, Stages: stages("restore = false"), Events: []plugintest.Event{
			request(ask, plugintest.Want{Body: sent}), {Stage: 1, Before: func(x *exchange.Exchange) { x.Response.Status = 200 }, Want: plugintest.Want{Done: true}},
		}},
		{Name: "some kinds", Exchange: json, Stages: stages(`kinds = ["card"]`), Events: []plugintest.Event{request(`["a@example.com 4532015112830366"]`, plugintest.Want{Body: `["a@example.com [CARD_1]"]`})}},
		{Name: "allowed", Exchange: json, Stages: stages(`allow = ["Example.com"]`), Events: []plugintest.Event{request(`["a@example.com b@example.org"]`, plugintest.Want{Body: `["a@example.com [EMAIL_1]"]`})}},
		{Name: "denied", Exchange: json, Stages: stages(`action = "deny"`), Events: []plugintest.Event{request(ask, plugintest.Want{Respond: 400, Code: "personal_data_found", Detail: "personal data: email, card.", Check: func(t *testing.T, o *plugintest.Outcome) {
			if strings.Contains(o.Answer.Detail, "alice") {
				t.Error("the answer shows what was found")
			}
		}})}},
		{Name: "text", Exchange: with("text/plain; charset=UTF-8"), Events: []plugintest.Event{
			request("I am alice@example.com", plugintest.Want{Body: "I am [EMAIL_1]"}), head(), piece("Hi [EMAIL_1]", "Hi alice@example.com", true, false),
		}},
		{Name: "many", Exchange: json, Events: []plugintest.Event{request(many, plugintest.Want{Body: strings.ReplaceAll(many, "a@example.com", "[EMAIL_1]")})}},
		{Name: "too much", Exchange: json, Events: []plugintest.Event{request(`["`+distinct.String()+`"]`, plugintest.Want{Respond: 413, Code: "too_much_personal_data"})}},
		{Name: "too large", Exchange: json, Events: []plugintest.Event{{Body: []byte(`{`), Truncated: true, Want: plugintest.Want{Respond: 413, Code: "body_too_large"}}}},
		{Name: "broken JSON", Exchange: json, Events: []plugintest.Event{request(`{"a":"alice@example.com"`, plugintest.Want{Respond: 400, Code: "unreadable_body"})}},
		{Name: "not UTF-8", Exchange: json, Events: []plugintest.Event{request("\"\xff\"", plugintest.Want{Respond: 400, Code: "unreadable_body"})}},
		{Name: "another charset", Exchange: with(`text/plain; Charset="utf-16"`), Events: []plugintest.Event{request("x", plugintest.Want{Respond: 400, Code: "unreadable_body"})}},
		{Name: "a form", Exchange: with("application/x-www-form-urlencoded"), Events: []plugintest.Event{request("a=1", plugintest.Want{Respond: 400, Code: "unreadable_body"})}},
		{Name: "passed", Exchange: with("multipart/form-data"), Stages: stages(`on_invalid = "pass"`), Events: []plugintest.Event{request("x", plugintest.Want{Unchanged: true, Meters: map[string]int64{"unreadable": 1}})}},
		{Name: "two stages", Exchange: json, Stages: []plugintest.Stage{{Phase: exchange.RequestPhase}, {Phase: exchange.ResponsePhase}}, Events: []plugintest.Event{
			request(`["a@example.com"]`, plugintest.Want{Body: `["[EMAIL_1]"]`}), request(`["[EMAIL_1] b@example.com"]`, plugintest.Want{Body: `["[EMAIL_1] [EMAIL_2]"]`}),
			head(), piece(`["[EMAIL_2] [EMAIL_1]"]`, `["b@example.com a@example.com"]`, true, false),
		}},
		{Name: "unknown kind", Stages: stages(`kinds = ["e-mail"]`), Refused: `there is no kind "e-mail"`},
		{Name: "no kinds", Stages: stages(`kinds = []`), Refused: "name at least one"},
		{Name: "empty allowance", Stages: stages(`allow = [""]`), Refused: "an empty value"},
	})
}

package plugintest_test

import (
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/plugintest"
	"github.com/postern-gateway/postern/sdk/plugintest/testdata/greet/policy"
)

func TestGreet(t *testing.T) {
	plugintest.Run(t, plugintest.Config{
		New:    func() postern.Plugin { return new(policy.Greet) },
		Dir:    "testdata/greet",
		Stages: []plugintest.Stage{{Phase: exchange.RequestPhase, Config: `greeting = "Welcome"`}},
	}, []plugintest.Case{
		{
			Name:     "by the header",
			Exchange: &exchange.Exchange{Request: exchange.Request{Header: exchange.Header{{Name: "x-name", Value: "Ada"}}}},
			Events: []plugintest.Event{{Want: plugintest.Want{
				Headers:    exchange.Header{{Name: "x-greeting", Value: "Welcome, Ada"}},
				Attributes: map[string]string{"greet.greeted": "Ada"},
				Meters:     map[string]int64{"greetings": 1},
			}}},
		},
		{
			Name:   "by the argument",
			Stages: []plugintest.Stage{{Phase: exchange.RequestPhase, Config: "to = request.host"}},
			Events: []plugintest.Event{{Want: plugintest.Want{Headers: exchange.Header{{Name: "x-greeting", Value: "Hello, localhost"}}}}},
		},
		{
			Name:   "nobody",
			Events: []plugintest.Event{{Want: plugintest.Want{Respond: 400, Code: "no_name", Without: []string{"x-greeting"}}}},
		},
	})
}

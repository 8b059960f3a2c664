package trial

import (
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/schema"
)

// Language is what stands in a plugin's *_test.hcl files, besides the blocks of policy files.
func Language() *schema.Block {
	return &schema.Block{Name: "*_test.hcl", Blocks: append(schema.PolicyFile().Blocks, testBlock())}
}

func testBlock() schema.Block {
	exchange := []schema.Block{requestBlock(), expectBlock()}
	return schema.Block{Name: "test", Labels: []string{"name"}, Repeat: true,
		Summary: "What a plugin does with a request and its reply, for `postern plugin test`. State, accounts, clock and log begin anew in each test.",
		Arguments: []schema.Argument{
			{Name: "policies", Kind: schema.References, Summary: "Policies whose stages run, of this file, of `policy.hcl`, or of other test files. By default all of `policy.hcl`; without that file, every hook of the plugin once, without arguments."},
			{Name: "grants", Kind: schema.Words, Words: grants(), Summary: "What the plugin is granted; by default all it asks for."},
			{Name: "refused", Kind: schema.Text, Summary: "The plugin refuses its configuration, for a reason that holds this text. Nothing is sent then."},
		},
		Blocks: append(exchange,
			schema.Block{Name: "exchange", Repeat: true, Summary: "One of several requests, in place of `request` and `expect` in the test itself.",
				Arguments: []schema.Argument{
					{Name: "after", Kind: schema.Span, Preset: "0s", Max: "36500d", Summary: "How far the clock goes on before it. Otherwise the clock stands still; it begins at 2026-01-02T03:04:05Z."},
				},
				Blocks: exchange},
			accountBlock(), fetchBlock(),
		)}
}

// grants are the capabilities an operator can consent to.
func grants() []string {
	for _, a := range schema.Main().Find("plugin").Arguments {
		if a.Name == "grants" {
			return a.Words
		}
	}
	return nil
}

// faults are the ways in which a stage can fail.
func faults() []string {
	var list []string
	for _, k := range []plugin.Kind{plugin.Trap, plugin.Fuel, plugin.Memory, plugin.Protocol, plugin.Timeout, plugin.Refused, plugin.Expression, plugin.Busy, plugin.Broken} {
		list = append(list, string(k))
	}
	return list
}

func requestBlock() schema.Block {
	return schema.Block{Name: "request", Summary: "The request, and the reply that it meets.",
		Arguments: []schema.Argument{
			{Name: "method", Kind: schema.Text, Preset: "GET", Summary: "The method."},
			{Name: "host", Kind: schema.Text, Preset: "localhost", Summary: "The host that is asked for."},
			{Name: "path", Kind: schema.Text, Preset: "/", Summary: "Path with query."},
			{Name: "headers", Kind: schema.Table, Summary: "Header fields."},
			{Name: "body", Kind: schema.Text, Summary: "The body."},
			{Name: "remote", Kind: schema.Text, Preset: "127.0.0.1", Summary: "The client's IP address."},
			{Name: "account", Kind: schema.Text, Summary: "Calls as this account, and authenticate stages are skipped; without it they run."},
			{Name: "scopes", Kind: schema.Texts, Summary: "Scopes of the key of `account`."},
			{Name: "gone", Kind: schema.Flag, Preset: "false", Summary: "The client has left before the account stages run."},
		},
		Blocks: []schema.Block{
			{Name: "call", Summary: "The call of a model that it is; without it, the route has no models.", Arguments: []schema.Argument{
				{Name: "model", Kind: schema.Text, Required: true, Summary: "The model's public name."},
				{Name: "format", Kind: schema.Text, Preset: "openai", Summary: "The wire format."},
				{Name: "operation", Kind: schema.Text, Preset: "chat", Summary: "What is asked for, in the format's word."},
				{Name: "stream", Kind: schema.Flag, Preset: "false", Summary: "The client asks for server-sent events."},
				{Name: "max", Kind: schema.Constant, Summary: "The most it can use, by unit: `{ input = 10, output = 100 }`."},
			}, Blocks: []schema.Block{
				{Name: "target", Labels: []string{"upstream"}, Repeat: true, Summary: "An upstream model that can serve it.", Arguments: []schema.Argument{
					{Name: "model", Kind: schema.Text, Summary: "The upstream's name for the model; by default the public one."},
					{Name: "weight", Kind: schema.Count, Preset: "1", Min: "0", Max: "1000", Summary: "Its share of calls."},
					{Name: "healthy", Kind: schema.Flag, Preset: "true", Summary: "Whether it can be used."},
				}},
			}},
			{Name: "reply", Summary: "What the upstream answers.", Arguments: []schema.Argument{
				{Name: "status", Kind: schema.Count, Preset: "200", Min: "200", Max: "599", Summary: "HTTP status."},
				{Name: "headers", Kind: schema.Table, Summary: "Header fields."},
				{Name: "body", Kind: schema.Text, Summary: "The body."},
				{Name: "parts", Kind: schema.Texts, Summary: "The body in pieces, in place of `body`: each is shown to the plugin on its own."},
				{Name: "usage", Kind: schema.Constant, Summary: "What the call used, by unit: `{ input = 10, output = 5 }`."},
			}},
		}}
}

func expectBlock() schema.Block {
	return schema.Block{Name: "expect", Summary: "What must come of it. What is not written is not checked, except that a stage that fails fails the test.",
		Arguments: []schema.Argument{
			{Name: "status", Kind: schema.Count, Min: "100", Max: "599", Summary: "HTTP status of the reply."},
			{Name: "code", Kind: schema.Text, Summary: "The code of the plugin's answer."},
			{Name: "headers", Kind: schema.Table, Summary: "Fields of the reply."},
			{Name: "without", Kind: schema.Texts, Summary: "Header names that the reply must not have."},
			{Name: "body", Kind: schema.Text, Summary: "Text the reply's body holds."},
			{Name: "lacks", Kind: schema.Text, Summary: "Text the reply's body must not hold."},
			{Name: "attributes", Kind: schema.Table, Summary: "Attributes the plugin set, by the name behind its own: `{ greeted = \"Ada\" }`."},
			{Name: "targets", Kind: schema.Texts, Summary: "The upstreams of the call's targets, in order."},
			{Name: "meters", Kind: schema.Constant, Summary: "What the plugin counted for this exchange, by meter: `{ greetings = 1 }`."},
			{Name: "balances", Kind: schema.Constant, Summary: "What accounts have afterwards: `{ acme = 90 }`."},
			{Name: "fetches", Kind: schema.Texts, Summary: "The fetches made, in order: each by its name, or as `\"name GET https://auth.example.com/check\"`; to an upstream, `\"name GET upstream /path\"`."},
			{Name: "log", Kind: schema.Texts, Summary: "Texts the log of this exchange holds."},
			{Name: "fault", Kind: schema.Word, Words: faults(), Summary: "A stage fails, in this way."},
		},
		Blocks: []schema.Block{
			{Name: "identity", Summary: "Who the caller turned out to be.", Arguments: []schema.Argument{
				{Name: "account", Kind: schema.Text, Required: true, Summary: "The account."},
				{Name: "key", Kind: schema.Text, Summary: "The key's id."},
				{Name: "name", Kind: schema.Text, Summary: "The key's name."},
				{Name: "scopes", Kind: schema.Texts, Summary: "The key's scopes."},
			}},
			{Name: "upstream", Summary: "What must have reached the upstream.", Arguments: []schema.Argument{
				{Name: "called", Kind: schema.Flag, Preset: "true", Summary: "Whether it was called."},
				{Name: "headers", Kind: schema.Table, Summary: "Fields of its request."},
				{Name: "without", Kind: schema.Texts, Summary: "Header names that must not have reached it."},
				{Name: "body", Kind: schema.Text, Summary: "Text its request's body holds."},
				{Name: "lacks", Kind: schema.Text, Summary: "Text its request's body must not hold."},
			}},
		}}
}

func accountBlock() schema.Block {
	return schema.Block{Name: "account", Labels: []string{"name"}, Repeat: true, Summary: "An account the plugin can find.", Arguments: []schema.Argument{
		{Name: "key", Kind: schema.Text, Summary: "The API key that belongs to it. The keys `expired` and `unavailable` belong to nobody: looking them up gives these errors."},
		{Name: "scopes", Kind: schema.Texts, Summary: "The key's scopes."},
		{Name: "balance", Kind: schema.Count, Preset: "0", Min: "0", Max: "1000000000000", Summary: "What it has. A hold and a charge cost one for each unit of usage."},
	}}
}

func fetchBlock() schema.Block {
	return schema.Block{Name: "fetch", Labels: []string{"name"}, Repeat: true, Summary: "The answer to the plugin's fetches of that name, or of that URL. A fetch without an answer is unreachable.", Arguments: []schema.Argument{
		{Name: "status", Kind: schema.Count, Preset: "200", Min: "100", Max: "599", Summary: "HTTP status."},
		{Name: "headers", Kind: schema.Table, Summary: "Header fields."},
		{Name: "body", Kind: schema.Text, Summary: "The body."},
		{Name: "error", Kind: schema.Word, Words: []string{"denied", "invalid", "timeout", "unreachable", "too_large", "busy"}, Summary: "Why there is no answer."},
		{Name: "cached", Kind: schema.Flag, Preset: "false", Summary: "It was kept from an earlier one."},
	}}
}

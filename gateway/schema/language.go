package schema

import "github.com/postern-gateway/postern/gateway/exchange"

// MainFile is the file every configuration has.
const MainFile = "config.hcl"

// Main is what stands in config.hcl.
func Main() *Block {
	return &Block{Name: MainFile, Blocks: []Block{
		gatewayBlock(), variableBlock(), localsBlock(), secretBlock(), stateBlock(), vaultBlock(), auditBlock(), ledgerBlock(), usageBlock(), accountsBlock(), privacyBlock(), adminBlock(),
		telemetryBlock(), consoleBlock(), listenerBlock(), pluginBlock(), upstreamBlock(), modelBlock(), routeBlock(),
	}}
}

// PolicyFile is what stands in policies/*.hcl.
func PolicyFile() *Block {
	return &Block{Name: "policies/*.hcl", Blocks: []Block{policyBlock(), localsBlock()}}
}

// TestFile is what stands in policies/*_test.hcl.
func TestFile() *Block {
	return &Block{Name: "policies/*_test.hcl", Blocks: []Block{testBlock()}}
}

func gatewayBlock() Block {
	return Block{Name: "gateway", Summary: "Names the node.", Arguments: []Argument{
		{Name: "name", Kind: Text, Preset: "postern", Summary: "Name in logs, metrics and ids: a letter, then letters, digits, `_` or `-`."},
		{Name: "requires", Kind: Text, Summary: "Versions of Postern this configuration is for, such as `\">= 0.1, < 2.0\"`."},
	}, Blocks: []Block{overloadBlock()}}
}

func stateBlock() Block {
	return Block{Name: "state", Labels: []string{"backend"}, Required: true, Summary: "Where accounts, money and counters are kept. The arguments are the backend's own; `badger` takes `dir`."}
}

func ledgerBlock() Block {
	return Block{Name: "ledger", Summary: "Money.", Arguments: []Argument{
		{Name: "currency", Kind: Text, Preset: "USD", Summary: "ISO 4217 code of every amount and price."},
		{Name: "hold_ttl", Kind: Span, Preset: "10m", Min: "10s", Max: "24h", Summary: "How long money may stay held for one call."},
		{Name: "retain", Kind: Span, Preset: "400d", Min: "1d", Max: "36500d", Zero: true, Summary: "How long entries are kept; 0 keeps all."},
	}}
}

func adminBlock() Block {
	return Block{Name: "admin", Summary: "The operators' listener: health, metrics, the current configuration, reload. Without the block there is none. Callers need a token or, with `client_ca`, a certificate.", Arguments: []Argument{
		{Name: "address", Kind: Text, Required: true, Summary: "`host:port`. The host must be a loopback address unless `client_ca` is given."},
		{Name: "token", Kind: Text, Secret: true, Summary: "Bearer token callers must present, at least 16 characters. Without it and without `client_ca` a random one is made and kept in `admin.token` in the state's `dir`."},
		{Name: "client_ca", Kind: Path, Summary: "PEM file; TLS with a client certificate signed by it is then required."},
	}}
}

func telemetryBlock() Block {
	return Block{Name: "telemetry", Summary: "What the gateway tells of itself.",
		Arguments: []Argument{
			{Name: "metrics", Kind: Flag, Preset: "true", Summary: "Prometheus metrics at `/metrics` of the admin listener."},
		},
		Blocks: []Block{
			{Name: "log", Summary: "Logs, on standard error.", Arguments: []Argument{
				{Name: "level", Kind: Word, Preset: "info", Words: []string{"debug", "info", "warn", "error"}, Summary: "The least level written."},
				{Name: "format", Kind: Word, Preset: "json", Words: []string{"json", "text"}, Summary: "One JSON object a line, or `key=value` pairs."},
				{Name: "access", Kind: Flag, Preset: "true", Summary: "One line for each exchange, without personal data."},
			}},
			{Name: "traces", Summary: "OpenTelemetry traces.", Arguments: []Argument{
				{Name: "endpoint", Kind: Text, Required: true, Summary: "OTLP/HTTP URL spans are sent to."},
				{Name: "ratio", Kind: Ratio, Preset: "0.01", Min: "0", Max: "1", Summary: "Share of requests traced when the client asks for nothing."},
			}},
		}}
}

func listenerBlock() Block {
	return Block{Name: "listener", Labels: []string{"name"}, Repeat: true, Required: true,
		Summary: "An address and the protocols spoken there. Without `tls` it speaks cleartext: http1, and http2 by prior knowledge.",
		Arguments: []Argument{
			{Name: "address", Kind: Text, Required: true, Summary: "`host:port`; an IP address, `localhost`, or no host for all addresses."},
			{Name: "protocols", Kind: Words, Required: true, Words: []string{"http1", "http2", "http3"}, Summary: "What is spoken. http3 needs `tls`."},
			{Name: "drain", Kind: Span, Preset: "30s", Min: "1s", Max: "1h", Zero: true, Summary: "How long open exchanges may go on after a stop or a change; 0 ends them at once."},
		},
		Blocks: []Block{
			{Name: "tls", Summary: "Protects the listener: by `cert` and `key`, or by `self_signed`.", Arguments: []Argument{
				{Name: "cert", Kind: Path, Summary: "PEM file of the certificate and those above it; read again when it changes."},
				{Name: "key", Kind: Path, Summary: "PEM file of the certificate's key."},
				{Name: "self_signed", Kind: Texts, Summary: "Names and addresses for a certificate of a development CA, made below the state's `dir`."},
				{Name: "client_ca", Kind: Path, Summary: "PEM file; a client certificate signed by it is then required."},
				minVersion(),
			}},
			{Name: "limits", Summary: "What one client can make the listener hold.", Arguments: []Argument{
				{Name: "header", Kind: Size, Preset: "32KiB", Min: "1KiB", Max: "1MiB", Summary: "A request's head."},
				{Name: "headers", Kind: Count, Preset: "100", Min: "1", Max: "1000", Summary: "Fields of a head."},
				{Name: "body", Kind: Size, Preset: "10MiB", Min: "0", Max: "1TiB", Summary: "A request's body; 0 allows none."},
				{Name: "requests", Kind: Count, Preset: "10000", Min: "1", Max: "1000000000", Summary: "Requests on one connection; then it is closed kindly."},
				{Name: "connections", Kind: Count, Preset: "10000", Min: "1", Max: "1000000", Summary: "Open connections."},
				{Name: "streams", Kind: Count, Preset: "100", Min: "1", Max: "10000", Summary: "Concurrent streams of an HTTP/2 or 3 connection."},
				{Name: "control", Kind: Count, Preset: "2000", Min: "100", Max: "1000000", Summary: "Frames of an HTTP/2 connection that cost more than they carry (resets, pings, settings, window updates, empty ones): that many at once, a tenth of it each second. What acknowledges a reply is free. Above, the connection is closed."},
			}},
			{Name: "timeouts", Summary: "How long one client can make the listener wait.", Arguments: []Argument{
				{Name: "header", Kind: Span, Preset: "10s", Min: "100ms", Max: "5m", Summary: "From a request's first octet to the end of its head; also the TLS handshake."},
				{Name: "body", Kind: Span, Preset: "30s", Min: "100ms", Max: "1h", Summary: "Between two reads of a body."},
				{Name: "idle", Kind: Span, Preset: "75s", Min: "1s", Max: "1h", Summary: "Between two requests of a connection."},
				{Name: "write", Kind: Span, Preset: "30s", Min: "100ms", Max: "1h", Summary: "For one write to make progress."},
			}},
			{Name: "quic", Summary: "HTTP/3 connections. The limits `streams` and `requests` and the timeouts `header` (the handshake) and `idle` hold for them too.", Arguments: []Argument{
				{Name: "window", Kind: Size, Preset: "1MiB", Min: "64KiB", Max: "64MiB", Summary: "Octets of a stream that may wait to be read, at most."},
				{Name: "connection_window", Kind: Size, Preset: "4MiB", Min: "64KiB", Max: "256MiB", Summary: "The same for all streams of a connection together."},
				{Name: "early_data", Kind: Flag, Preset: "false", Summary: "Answers `GET`, `HEAD`, `OPTIONS` and `TRACE` that come with a resumed handshake (0-RTT, RFC 8470) before it is over. Others may send such a request once more: it is forwarded with `early-data: 1`, and an upstream can refuse it with 425. Other methods wait for the handshake."},
			}},
		}}
}

func minVersion() Argument {
	return Argument{Name: "min_version", Kind: Word, Preset: "1.2", Words: []string{"1.2", "1.3"}, Summary: "Least version of TLS, in quotes."}
}

func upstreamBlock() Block {
	return Block{Name: "upstream", Labels: []string{"name"}, Repeat: true, Summary: "Where requests are forwarded.",
		Arguments: append([]Argument{
			{Name: "endpoints", Kind: Endpoints, Required: true, Summary: "Addresses: URLs such as `\"https://api.openai.com\"`, or `{ url = \"...\", weight = 3 }` with a weight from 0 to 1000. A path in a URL goes before the request's."},
			{Name: "format", Kind: Word, Summary: "Provider format it speaks, such as `openai`. Models need it."},
			{Name: "protocol", Kind: Word, Preset: "http1", Words: []string{"http1", "http2", "http3", "auto"}, Summary: "What is spoken with it; `auto` negotiates by TLS. http3 needs https endpoints."},
			{Name: "balance", Kind: Word, Preset: "round_robin", Words: []string{"round_robin", "least_request", "weighted", "consistent_hash"}, Summary: "How an endpoint is chosen."},
			{Name: "hash_on", Kind: Expression, Summary: "With `consistent_hash`: the text that is hashed, such as `identity.account`."},
			{Name: "headers", Kind: Table, Secret: true, Summary: "Set on every request, over whatever the client sent."},
		}, providerArguments()...),
		Blocks: []Block{
			{Name: "tls", Summary: "Protects connections to https endpoints. Certificates are always verified.", Arguments: []Argument{
				{Name: "ca", Kind: Path, Summary: "PEM file of the only roots trusted; else the system's."},
				{Name: "cert", Kind: Path, Summary: "PEM file of a client certificate."},
				{Name: "key", Kind: Path, Summary: "PEM file of its key."},
				{Name: "server_name", Kind: Text, Summary: "Name to verify instead of the endpoint's host."},
				minVersion(),
			}},
			{Name: "timeouts", Summary: "Bounds on waiting.", Arguments: []Argument{
				{Name: "connect", Kind: Span, Preset: "5s", Min: "10ms", Max: "5m", Summary: "Connecting, with the TLS handshake."},
				{Name: "first_byte", Kind: Span, Preset: "30s", Min: "10ms", Max: "1h", Summary: "From the request sent to the response's head."},
				{Name: "idle", Kind: Span, Preset: "60s", Min: "10ms", Max: "1h", Summary: "Between two reads or writes of a body."},
				{Name: "total", Kind: Span, Preset: "0s", Min: "10ms", Max: "24h", Zero: true, Summary: "One attempt in all; 0 leaves it to the route's timeout."},
			}},
			{Name: "retry", Summary: "When a failed attempt is made again. What has been sent on is never repeated.", Arguments: []Argument{
				{Name: "attempts", Kind: Count, Preset: "2", Min: "1", Max: "10", Summary: "Attempts in all; 1 is no retry."},
				{Name: "on", Kind: Words, Preset: "[connect]", Words: []string{"connect", "reset", "timeout", "429", "502", "503", "504", "5xx"}, Summary: "Failures that are tried again; `\"5xx\"` is in quotes."},
				{Name: "budget", Kind: Ratio, Preset: "0.2", Min: "0", Max: "1", Summary: "Retries for each request, over ten seconds."},
				{Name: "backoff", Kind: Span, Preset: "25ms", Min: "1ms", Max: "10s", Zero: true, Summary: "Before the second attempt; doubled each time, with jitter. 0 is no wait."},
			}},
			{Name: "health", Summary: "Which endpoints may be used.", Arguments: []Argument{
				{Name: "path", Kind: Text, Summary: "Active check: GET this path. Without it there is no active check."},
				{Name: "interval", Kind: Span, Preset: "10s", Min: "100ms", Max: "1h", Summary: "Between two checks."},
				{Name: "timeout", Kind: Span, Preset: "2s", Min: "10ms", Max: "5m", Summary: "Of one check."},
				{Name: "healthy", Kind: Count, Preset: "2", Min: "1", Max: "100", Summary: "Successes in a row that bring an endpoint back."},
				{Name: "unhealthy", Kind: Count, Preset: "3", Min: "1", Max: "100", Summary: "Failures in a row that take it out."},
				{Name: "failures", Kind: Count, Preset: "5", Min: "1", Max: "1000", Zero: true, Summary: "Passive check: failed exchanges in a row that eject an endpoint; 0: never."},
				{Name: "eject", Kind: Span, Preset: "10s", Min: "100ms", Max: "1h", Summary: "How long at first; doubled each time, to ten times that."},
			}},
			{Name: "pool", Summary: "Connections to one endpoint.", Arguments: []Argument{
				{Name: "connections", Kind: Count, Preset: "1024", Min: "1", Max: "100000", Summary: "Open at once."},
				{Name: "idle", Kind: Count, Preset: "128", Min: "0", Max: "100000", Summary: "Kept idle."},
				{Name: "idle_timeout", Kind: Span, Preset: "90s", Min: "1s", Max: "1h", Summary: "How long they are kept."},
			}},
			upstreamOverloadBlock(),
		}}
}

func pluginBlock() Block {
	return Block{Name: "plugin", Labels: []string{"name"}, Repeat: true,
		Summary: "A WebAssembly module, what it is granted and how much it may use. What it asks for and how it is configured stands in its own `plugin.hcl`.",
		Arguments: []Argument{
			{Name: "source", Kind: Text, Required: true, Summary: "A folder `x/name` with `plugin.hcl` and `name.wasm`, or a `.wasm` file that holds its manifest or has `plugin.hcl` beside it."},
			{Name: "sha256", Kind: Text, Summary: "What the module's SHA-256 must be, in 64 hexadecimal digits."},
			{Name: "grants", Kind: Words, Words: []string{"accounts", "ledger", "state", "cache", "fetch"}, Summary: "Capabilities you consent to: those its manifest asks for; optional ones as you like."},
			{Name: "watch", Kind: Flag, Preset: "false", Summary: "Load the files again, as `postern reload` does, as soon as its module or `plugin.hcl` changes. What is broken is refused, and what serves goes on."},
		},
		Blocks: []Block{{Name: "limits", Summary: "What it may use.", Arguments: []Argument{
			{Name: "memory", Kind: Size, Preset: "64MiB", Min: "1MiB", Max: "1GiB", Summary: "Linear memory of one instance."},
			{Name: "cpu", Kind: Span, Preset: "50ms", Min: "100us", Max: "1m", Summary: "CPU time of one event, counted in instructions: a nanosecond stands for one."},
			{Name: "cpu_per_kib", Kind: Span, Preset: "0s", Min: "1us", Max: "100ms", Zero: true, Summary: "More of it for each begun KiB of the event's body: for plugins that look through long bodies."},
			{Name: "start", Kind: Span, Preset: "2s", Min: "1ms", Max: "10m", Summary: "CPU time of starting an instance and configuring it, counted in the same way."},
			{Name: "depth", Kind: Count, Preset: "4096", Min: "16", Max: "65536", Summary: "Calls within each other; a large frame counts as several."},
			{Name: "instances", Kind: Count, Preset: "0", Min: "1", Max: "10000", Zero: true, Summary: "Instances at once; 0 is two for each CPU, and eight with the grant ledger, whose operations wait for the disk."},
			{Name: "queue", Kind: Span, Preset: "1s", Min: "1ms", Max: "10s", Summary: "How long an event waits for an instance."},
			{Name: "wait", Kind: Span, Preset: "1s", Min: "1ms", Max: "1m", Summary: "Time that the host operations of one event may take together."},
			{Name: "operations", Kind: Count, Preset: "1024", Min: "1", Max: "1000000", Summary: "Host operations of one event."},
			{Name: "log", Kind: Size, Preset: "8KiB", Min: "0", Max: "1MiB", Summary: "What one event may write to the log; the rest is dropped."},
		}}, {Name: "fetch", Summary: "Where it may send requests, with the grant `fetch`.", Arguments: []Argument{
			{Name: "origins", Kind: Origins, Summary: "Scheme, host and port of services it may ask: URLs such as `\"https://auth.example.com\"`, or `{ url = \"http://10.0.0.5:8080\", private = true, ca = \"ca.pem\" }`. A name that leads to an address of a private network is refused without `private`; `ca` is a PEM file of the only roots trusted."},
			{Name: "upstreams", Kind: References, Summary: "Upstreams it may ask, with their balancing and health."},
			{Name: "timeout", Kind: Span, Preset: "2s", Min: "10ms", Max: "1m", Summary: "The most one request may take."},
			{Name: "concurrent", Kind: Count, Preset: "64", Min: "1", Max: "10000", Summary: "Requests under way at once; four times as many wait."},
			{Name: "cache", Kind: Size, Preset: "8MiB", Min: "0", Max: "1GiB", Summary: "Answers that are kept for as long as the plugin says; 0 keeps none."},
		}}},
	}
}

func modelBlock() Block {
	price := Block{Name: "price", Repeat: true, Summary: "A price row: what each unit costs in the ledger's currency. Without one the model is free. A unit without a price costs what its kind costs (`cached` as `input`, `reasoning` as `output`), or nothing.",
		Arguments: []Argument{
			{Name: "per", Kind: Count, Preset: "1", Min: "1", Max: "1000000000", Summary: "How many units the prices are for, such as 1000000."},
			{Name: "effective", Kind: Text, Summary: "Day (`\"2026-01-31\"`, from midnight UTC) or RFC 3339 time from which on the row applies; without it, always."},
		}}
	tier := Block{Name: "tier", Repeat: true, Summary: "Other prices for calls with a long prompt.", Arguments: []Argument{
		{Name: "above", Kind: Count, Required: true, Min: "1", Max: "1000000000", Summary: "Applies when the prompt has more tokens than this."},
	}}
	for u := range exchange.UnitCount {
		a := Argument{Name: u.String(), Kind: Money, Summary: unitSummaries[u]}
		price.Arguments, tier.Arguments = append(price.Arguments, a), append(tier.Arguments, a)
	}
	price.Blocks = []Block{tier}
	return Block{Name: "model", Labels: []string{"name"}, Repeat: true,
		Summary: "A public name customers use, mapped to upstream models with prices. A name that is no identifier is referred to as `model[\"gpt-4.1\"]`.",
		Arguments: []Argument{
			{Name: "summary", Kind: Text, Summary: "Shown in lists of models."},
			{Name: "max_output", Kind: Count, Preset: "16384", Min: "1", Max: "100000000", Summary: "Most output tokens a call may ask for; told to the upstream when the client names none. A hold is this large."},
		},
		Blocks: []Block{
			{Name: "target", Repeat: true, Required: true, Summary: "An upstream model that serves it.", Arguments: []Argument{
				{Name: "upstream", Kind: Reference, Required: true, Summary: "An upstream with a format."},
				{Name: "model", Kind: Text, Required: true, Summary: "The upstream's name for the model."},
				{Name: "weight", Kind: Count, Preset: "1", Min: "0", Max: "1000", Summary: "Share of calls; targets of weight 0 are tried only when others fail."},
				{Name: "when", Kind: Condition, Summary: "Condition; without it, always. Knows what is known at phase route."},
			}},
			price,
		}}
}

var unitSummaries = [exchange.UnitCount]string{
	"Input token.", "Input token read from the provider's cache.", "Input token written to the cache for 5 minutes.", "Input token written to the cache for 1 hour.",
	"Image token read.", "Audio token read.", "Output token.", "Output token generated and not shown.", "Image token generated.", "Audio token generated.",
	"Call.", "Second of media.", "Web or file search.",
}

func policyBlock() Block {
	b := Block{Name: "policy", Labels: []string{"name"}, Repeat: true,
		Summary: "A named, ordered list of stages: blocks named after a phase (`authenticate`, `authorize`, `admit`, `route`, `request`, `response`, `account`) with a plugin's name, and `require`. `authenticate` stages are alternatives, of which the first identity wins; all others must pass.",
		Arguments: []Argument{
			{Name: "summary", Kind: Text, Summary: "What it is for."},
		}}
	for p := range exchange.PhaseCount {
		b.Blocks = append(b.Blocks, stageBlock(p.String()))
	}
	b.Blocks = append(b.Blocks, Block{Name: "require", Labels: []string{"name"}, Repeat: true,
		Summary: "Refuses requests for which a condition does not hold. It runs at the first phase at which all it uses is known, authorize at the earliest.",
		Arguments: []Argument{
			{Name: "condition", Kind: Condition, Required: true, Summary: "What must hold."},
			{Name: "status", Kind: Count, Preset: "403", Min: "400", Max: "599", Summary: "HTTP status of the refusal."},
			{Name: "message", Kind: Text, Preset: "The request is not allowed.", Summary: "Shown to the caller."},
		}})
	return b
}

func stageBlock(phase string) Block {
	return Block{Name: phase, Labels: []string{"plugin"}, Repeat: true, Summary: "One use of a plugin at this phase.",
		Arguments: []Argument{
			{Name: "when", Kind: Condition, Summary: "Condition; without it, always."},
			{Name: "timeout", Kind: Span, Preset: "1s", Min: "1ms", Max: "1m", Summary: "Wall time the stage may take, with all it waits for. A plugin that is granted `fetch` has its `fetch` block's `timeout` more where nothing is written."},
			{Name: "on_error", Kind: Word, Preset: "deny", Words: []string{"deny", "allow"}, Summary: "What a fault of the plugin does to the request."},
		},
		Blocks: []Block{{Name: "config", Summary: "The plugin's own arguments, by its manifest."}},
	}
}

func routeBlock() Block {
	return Block{Name: "route", Labels: []string{"name"}, Repeat: true, Required: true,
		Summary: "Picks policies and an upstream for a request. Of the routes whose `match` fits, the most specific wins, whatever the order in the file. Exactly one of `upstream`, `models`, `console` and `respond` is given.",
		Arguments: []Argument{
			{Name: "listener", Kind: References, Required: true, Summary: "One listener or a list of them."},
			{Name: "match", Kind: Text, Required: true, Summary: "Pattern as of Go's ServeMux: `\"POST /v1/chat\"`, `\"api.example.com/files/{path...}\"`, `\"GET /items/{id}\"`, `\"/{$}\"`."},
			{Name: "policies", Kind: References, Summary: "Policies whose stages run, phase by phase, then in the order of this list, then of the file."},
			{Name: "when", Kind: Condition, Summary: "Condition on the request; one it refuses falls to the next less specific route. Knows `request`, `route` and `listener`."},
			{Name: "upstream", Kind: Reference, Summary: "Where requests are forwarded."},
			{Name: "models", Kind: References, Summary: "Models customers may name here. The pattern's method and path say which call of which provider format it is."},
			{Name: "console", Kind: Flag, Preset: "false", Summary: "Serves the console, whose pages are below `/`: the pattern is `\"/\"`, or a host and `/`."},
			{Name: "summary", Kind: Text, Summary: "What the route is for, in one line. The console's public catalogue shows routes with models, and of the others those that have a summary."},
			{Name: "timeout", Kind: Span, Preset: "5m", Min: "10ms", Max: "24h", Zero: true, Summary: "The whole exchange; 0 is no bound, for routes that upgrade."},
			{Name: "priority", Kind: Word, Preset: "normal", Words: []string{"critical", "normal", "bulk"}, Summary: "What is refused first when there is too much to do: `bulk`, and `critical` last."},
			{Name: "durability", Kind: Word, Preset: "sync", Words: []string{"sync", "batch"}, Summary: "`sync`: the intent of a billed call is on disk before the upstream is called. `batch`: within 50 ms; a power cut can lose that much."},
			{Name: "on_disconnect", Kind: Word, Preset: "bill_delivered", Words: []string{"bill_delivered", "drain", "void"}, Summary: "What a client that leaves a stream pays: what was delivered; the exact usage, for which the upstream is read to its end; nothing."},
			{Name: "replay", Kind: Span, Preset: "24h", Min: "1m", Max: "30d", Zero: true, Summary: "How long the reply to a model call with an `Idempotency-Key` is kept, so that the same call sent again gets it and is charged once; 0 ignores such keys."},
		},
		Blocks: []Block{
			{Name: "respond", Summary: "A fixed answer.", Arguments: respondArguments("200", "")},
			{Name: "creations", Summary: "Keeps what callers who are known are answered, for them alone and sealed under their account's key: a reply as it is, or the text of a stream. A call with `Postern-Keep: none`, or whose body says `\"store\": false`, is not kept.",
				Arguments: []Argument{
					{Name: "keep", Kind: Span, Required: true, Min: "1m", Max: "3650d", Summary: "How long."},
					{Name: "item", Kind: Size, Preset: "16MiB", Min: "1KiB", Max: "1GiB", Summary: "Octets of one creation; what is longer is not kept."},
					{Name: "account", Kind: Size, Preset: "1GiB", Min: "1KiB", Max: "1TiB", Summary: "Octets of all creations of an account; beyond it no more are kept."},
				}},
		},
	}
}

func respondArguments(status, body string) []Argument {
	return []Argument{
		{Name: "status", Kind: Count, Preset: status, Min: "200", Max: "599", Summary: "HTTP status."},
		{Name: "headers", Kind: Table, Summary: "Header fields."},
		{Name: "body", Kind: Text, Preset: body, Summary: "The body."},
	}
}

func testBlock() Block {
	return Block{Name: "test", Labels: []string{"name"}, Repeat: true,
		Summary: "A request and what must come of it, for `postern test`. It runs through the real stages; the upstream is played by `reply`.",
		Arguments: []Argument{
			{Name: "route", Kind: Reference, Required: true, Summary: "The route that is tested."},
		},
		Blocks: []Block{
			{Name: "request", Summary: "The request, and the world it meets.",
				Arguments: []Argument{
					{Name: "method", Kind: Text, Summary: "By default the pattern's method, or GET."},
					{Name: "path", Kind: Text, Summary: "Path with query; by default the pattern's path, which must then have no wildcard."},
					{Name: "headers", Kind: Table, Summary: "Header fields."},
					{Name: "body", Kind: Text, Summary: "The body."},
					{Name: "account", Kind: Text, Summary: "Calls as this account, and authenticate stages are skipped; without it they run."},
					{Name: "scopes", Kind: Texts, Summary: "Scopes of the key of `account`."},
					{Name: "balance", Kind: Money, Preset: "1000", Summary: "What the account has."},
					{Name: "remote", Kind: Text, Preset: "127.0.0.1", Summary: "The client's IP address."},
				},
				Blocks: []Block{{Name: "reply", Summary: "What the upstream answers.", Arguments: respondArguments("200", "{}")}}},
			{Name: "expect", Required: true, Summary: "What must come of it. What is not written is not checked.",
				Arguments: []Argument{
					{Name: "status", Kind: Count, Min: "100", Max: "599", Summary: "HTTP status of the reply."},
					{Name: "stage", Kind: Text, Summary: "The stage that answered: `\"policy.name phase plugin\"` or `\"policy.name require name\"`."},
					{Name: "headers", Kind: Table, Summary: "Fields of the reply."},
					{Name: "body", Kind: Text, Summary: "Text the reply's body holds."},
				},
				Blocks: []Block{{Name: "upstream", Summary: "What must have reached the upstream.", Arguments: []Argument{
					{Name: "called", Kind: Flag, Preset: "true", Summary: "Whether it was called."},
					{Name: "name", Kind: Text, Summary: "Its name."},
					{Name: "headers", Kind: Table, Summary: "Fields of its request."},
					{Name: "without", Kind: Texts, Summary: "Header names that must not have reached it."},
					{Name: "body", Kind: Text, Summary: "Text its request's body holds."},
					{Name: "lacks", Kind: Text, Summary: "Text its request's body must not hold."},
				}}}},
		}}
}

func variableBlock() Block {
	return Block{Name: "variable", Labels: []string{"name"}, Repeat: true,
		Summary: "A value given from outside: `-var name=value`, else the environment variable `POSTERN_VAR_name`, else the default. Used as `var.name`.",
		Arguments: []Argument{
			{Name: "type", Kind: Type, Preset: "string", Summary: "`string`, `number`, `bool`, `list(string)`, `map(string)` or any other HCL type. Values from outside that are not strings are written as in HCL."},
			{Name: "default", Kind: Constant, Summary: "Without a default a value must be given."},
			{Name: "summary", Kind: Text, Summary: "What it is for."},
		}}
}

func localsBlock() Block {
	return Block{Name: "locals", Repeat: true, Summary: "Names for values, used as `local.name`. Any argument may stand here; it may use `var` and other locals, in any order and file."}
}

func secretBlock() Block {
	return Block{Name: "secret", Labels: []string{"name"}, Repeat: true,
		Summary: "A value that is never printed, used as `secret.name` where the tables say so. It is read by `run` alone. Exactly one of `env` and `file` is given.",
		Arguments: []Argument{
			{Name: "env", Kind: Text, Summary: "Environment variable that holds it."},
			{Name: "file", Kind: Text, Summary: "File that holds it, relative to the folder. One newline at its end is dropped."},
		}}
}

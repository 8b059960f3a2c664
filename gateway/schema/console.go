package schema

// consoleBlock is the console's; what it means is in package console/site.
func consoleBlock() Block {
	return Block{Name: "console",
		Summary: "The pages that people and operators use, which a route with `console = true` serves. Without the block its defaults hold. The console answers to `localhost`, loopback addresses and the names given here; requests for other names are refused.",
		Arguments: []Argument{
			{Name: "title", Kind: Text, Preset: "Postern", Summary: "What the pages call the service, at most 60 characters."},
			{Name: "url", Kind: Text, Summary: "Where people reach it, such as `\"https://console.example.com\"`. Addresses shown, and links in mail, are made of it and never of a request. Without it they are made of the listener's own address."},
			{Name: "hosts", Kind: Texts, Summary: "Names it is reached by besides, without ports."},
			{Name: "operators", Kind: Texts, Summary: "Networks from which operators may sign in, with the admin API's token. By default only loopback addresses, `[\"127.0.0.0/8\", \"::1/128\"]`; `[]` is nobody."},
			{Name: "terms", Kind: Table, Summary: "The terms of use as plain text, in every language of the pages: `{ en = \"...\", zh = \"...\" }`. An empty line begins a paragraph, and `# ` a heading. Without it there is no such page."},
			{Name: "session", Kind: Span, Preset: "8h", Min: "5m", Max: "24h", Summary: "How long an operator stays signed in. After half an hour without a request, it is over sooner."},
		},
	}
}

package schema

// privacyBlock is the published privacy policy; what it says is checked in package privacy.
func privacyBlock() Block {
	return Block{Name: "privacy", Summary: "The privacy policy: a version people accept, and the data classes behind it. Everything personal that this configuration makes the program store, log, show to a plugin or share with an upstream must belong to a class and go only where `shares` allows, or the configuration does not load; `postern privacy report` shows it. Without the block the built-in classes are in force and no policy is published.",
		Arguments: []Argument{
			{Name: "version", Kind: Text, Required: true, Summary: "Names this version, such as `\"2\"` or `\"2026-12\"`: letters, digits and `._-`. What was published under a version can not change: write a new one."},
			{Name: "effective", Kind: Text, Required: true, Summary: "Day (`\"2026-12-01\"`, from midnight UTC) on which it takes effect."},
			{Name: "contact", Kind: Text, Required: true, Summary: "E-mail address or https URL for questions about it."},
			{Name: "operator", Kind: Text, Summary: "Who runs the service, as the policy names them."},
		},
		Blocks: []Block{{Name: "data_class", Labels: []string{"name"}, Repeat: true,
			Summary: "A class of personal data. The classes `account`, `security`, `device`, `usage`, `billing`, `content`, `creation` and `support` are there without being written; what is written of one of them stands in the place of what is built in. A class of another name needs all arguments but `recipients`.",
			Arguments: []Argument{
				{Name: "summary", Kind: Table, Summary: "What it is, for those it is about: `{ en = \"...\", zh = \"...\" }`."},
				{Name: "fields", Kind: Texts, Summary: "The fields it holds, by the names that `postern privacy fields` lists. `header.NAME` and `attribute.PLUGIN.NAME` are fields too; `header.*` and `attribute.*` are all of them that no class names."},
				{Name: "purpose", Kind: Words, Words: []string{"deliver", "authenticate", "bill", "defend", "improve", "communicate"}, Summary: "What it is used for; `communicate` needs `basis = consent`."},
				{Name: "retention", Kind: Span, Min: "1m", Max: "36500d", Zero: true, Summary: "How long it is kept at most; 0: for as long as the account exists. A feature that keeps a field of it longer is refused."},
				{Name: "recipients", Kind: References, Summary: "Upstreams, plugins that may fetch, and `mail`, the mail server, that may receive it; without it, all that `shares` allows."},
				{Name: "basis", Kind: Word, Words: []string{"contract", "consent", "legal_obligation", "legitimate_interest"}, Summary: "Why it may be used."},
			}}}}
}

// providerArguments are what an upstream's provider does with what it receives.
func providerArguments() []Argument {
	return []Argument{
		{Name: "recipient", Kind: Text, Summary: "Who receives what is sent there, as the privacy policy names them; by default the upstream's name."},
		{Name: "shares", Kind: Words, Summary: "Data classes it may receive, such as `[content, device]`. A route that would send it another is refused. Without it everything is allowed, unless there is a `privacy` block, which needs it to be said."},
		{Name: "retention", Kind: Span, Min: "1m", Max: "36500d", Zero: true, Summary: "How long the provider keeps what it receives, by its contract; 0: it keeps nothing. Not written: not known."},
		{Name: "training", Kind: Flag, Summary: "Whether the provider trains models on what it receives, by its contract; true needs `basis = consent` of every class it shares. Not written: not known."},
		{Name: "image_metadata", Kind: Word, Preset: "strip", Words: []string{"strip", "keep"}, Summary: "`strip` takes out of every image in a call of a model what is not the image (EXIF with place and time, XMP, IPTC, comments, small copies, whatever follows its end), and refuses images of kinds it does not know with 400; the colour profile and a JPEG's orientation stay. `keep` sends images as they come."},
	}
}

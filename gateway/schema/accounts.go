package schema

// accountsBlock is what people's sign-in is made of; package person/settings reads it.
func accountsBlock() Block {
	return Block{Name: "accounts",
		Summary: "People: who may sign up, how they sign in, and the mail they get. Without the block there are API keys and operators, and nobody signs in.",
		Arguments: []Argument{
			{Name: "public", Kind: Text, Required: true, Summary: "URL at which people reach the console, such as `\"https://edge.example.com/console\"`. Links in mails are built from it alone; passkeys belong to its host. `http` only for localhost."},
			{Name: "signup", Kind: Word, Preset: "invited", Words: []string{"open", "invited", "closed"}, Summary: "Who may become a person: anybody with an e-mail address; who was invited to an account; nobody new."},
			{Name: "service", Kind: Text, Summary: "What the service is called in mails, in authenticator apps and for passkeys; 1 to 60 characters. The gateway's name unless written."},
			{Name: "deletion", Kind: Span, Preset: "14d", Min: "1h", Max: "30d", Zero: true, Summary: "Between asking for the deletion of one's account and the deletion. It can be cancelled until then; 0: there is no time for that."},
			{Name: "language", Kind: Word, Preset: "en", Words: []string{"en", "zh"}, Summary: "Of people who chose none."},
		},
		Blocks: []Block{
			{Name: "mail", Required: true, Summary: "How mail leaves: by `smtp`, or into the folder `outbox`.",
				Arguments: []Argument{
					{Name: "from", Kind: Text, Required: true, Summary: "Sender, such as `\"Edge <no-reply@example.com>\"`."},
					{Name: "outbox", Kind: Text, Summary: "Folder for one `.eml` file a message: for development, since nobody is sent anything. It is made, for its user alone."},
					{Name: "queue", Kind: Count, Preset: "10000", Min: "10", Max: "1000000", Summary: "Messages that wait to be sent at most."},
					{Name: "per_recipient", Kind: Count, Preset: "6", Min: "1", Max: "1000", Summary: "Messages an hour to one address that anybody can ask for: confirmations, new passwords. Others are not limited."},
				},
				Blocks: []Block{{Name: "smtp", Summary: "A mail server.", Arguments: []Argument{
					{Name: "host", Kind: Text, Required: true, Summary: "Its name, which its certificate must have."},
					{Name: "recipient", Kind: Text, Summary: "Who runs it, as the privacy policy names them; its name unless written, and nobody where it is this machine."},
					{Name: "port", Kind: Count, Preset: "0", Min: "1", Max: "65535", Zero: true, Summary: "0: 587, or 465 with `tls = implicit`."},
					{Name: "tls", Kind: Word, Preset: "starttls", Words: []string{"starttls", "implicit", "none"}, Summary: "Whether the connection becomes TLS before anything is said, or begins with it. `none` is cleartext, for a server on this machine."},
					{Name: "user", Kind: Text, Summary: "Name to sign in with; without it nobody does."},
					{Name: "password", Kind: Text, Secret: true, Summary: "Its password."},
					{Name: "ca", Kind: Path, Summary: "PEM file with the only roots trusted; the system's otherwise."},
					{Name: "timeout", Kind: Span, Preset: "30s", Min: "1s", Max: "5m", Summary: "For one message, from connecting to its acceptance."},
				}}}},
			{Name: "sessions", Summary: "How long people stay signed in.", Arguments: []Argument{
				{Name: "idle", Kind: Span, Preset: "7d", Min: "5m", Max: "400d", Summary: "Without a request."},
				{Name: "absolute", Kind: Span, Preset: "30d", Min: "5m", Max: "400d", Summary: "In all."},
				{Name: "recent", Kind: Span, Preset: "15m", Min: "1m", Max: "24h", Summary: "How fresh a sign-in must be for what is dangerous: another password or address, second factors, deletion."},
				{Name: "most", Kind: Count, Preset: "50", Min: "1", Max: "1000", Summary: "Of one person; the oldest ends when there is one too many."},
			}},
			{Name: "passwords", Summary: "What passwords must be, and what one hash of them (argon2id) costs. A hash that cost something else is made anew when its person signs in.", Arguments: []Argument{
				{Name: "least", Kind: Count, Preset: "10", Min: "10", Max: "64", Summary: "Characters at least; at most there are 128. The commonest ones and one's own address are refused besides."},
				{Name: "memory", Kind: Size, Preset: "19MiB", Min: "8MiB", Max: "1GiB", Summary: "Memory of one hash."},
				{Name: "passes", Kind: Count, Preset: "2", Min: "1", Max: "16", Summary: "Passes over it."},
				{Name: "concurrent", Kind: Count, Preset: "0", Min: "1", Max: "256", Zero: true, Summary: "Hashes at once; 0: one for each processor. Others wait."},
			}},
			{Name: "throttle", Summary: "How guessing is slowed down. After its free tries a person on one network waits for a second, then twice as long each time. Guesses at one person from many networks make nobody wait for more than a minute, and not those who come with a device they signed in with before.", Arguments: []Argument{
				{Name: "person", Kind: Count, Preset: "5", Min: "1", Max: "100", Summary: "Free tries of one person from one network."},
				{Name: "network", Kind: Count, Preset: "30", Min: "1", Max: "10000", Summary: "Free tries of one network (/24, or /56 of IPv6), whoever they are for."},
				{Name: "wait", Kind: Span, Preset: "15m", Min: "1s", Max: "24h", Summary: "The longest wait."},
			}},
			{Name: "tokens", Summary: "How long links in mails hold. Each works once.", Arguments: []Argument{
				{Name: "confirm", Kind: Span, Preset: "24h", Min: "10m", Max: "7d", Summary: "To confirm an address."},
				{Name: "reset", Kind: Span, Preset: "1h", Min: "5m", Max: "24h", Summary: "To choose another password."},
				{Name: "undo", Kind: Span, Preset: "7d", Min: "1h", Max: "30d", Summary: "To undo a change of address."},
				{Name: "invitation", Kind: Span, Preset: "7d", Min: "1h", Max: "90d", Summary: "To take part in an account."},
			}},
		}}
}

package schema

// overloadBlock is the gateway's; what it bounds is in package overload.
func overloadBlock() Block {
	return Block{Name: "overload",
		Summary: "What the gateway takes on before it refuses: with 503 and `Retry-After`, before any policy runs, the least important routes first (`priority`). An exchange counts from its request's head to the head of its reply, but not while its client is waited for: long streams and slow clients take no room.",
		Arguments: []Argument{
			{Name: "min", Kind: Count, Preset: "256", Min: "1", Max: "1000000", Summary: "The least limit of exchanges at once."},
			{Name: "max", Kind: Count, Preset: "16384", Min: "1", Max: "1000000", Summary: "The greatest, which it begins with."},
			{Name: "delay", Kind: Span, Preset: "200ms", Min: "1ms", Max: "10s", Zero: true, Summary: "How long goroutines may be ready before they run. Where half of them wait longer, for half a second, the processors are overloaded and the limit falls, until they do not. 0: the limit stays."},
			{Name: "queue", Kind: Count, Preset: "256", Min: "0", Max: "100000", Summary: "Exchanges that wait for their turn; those who came last are served first once the oldest have waited for half of `wait`."},
			{Name: "wait", Kind: Span, Preset: "250ms", Min: "1ms", Max: "10s", Summary: "How long they wait at most."},
		},
		Blocks: []Block{
			{Name: "memory", Summary: "Refuses new work before the kernel ends the process. What counts is memory that can not be reclaimed: the pages of the store's files do not.", Arguments: []Argument{
				{Name: "limit", Kind: Size, Preset: "0", Min: "64MiB", Max: "16TiB", Zero: true, Summary: "What there is; 0 is the least of the control group's limit, GOMEMLIMIT and the machine's memory."},
				{Name: "soft", Kind: Ratio, Preset: "0.8", Min: "0", Max: "1", Summary: "Share of it above which new bulk work is refused and the collector is made to run; 0: never."},
				{Name: "hard", Kind: Ratio, Preset: "0.9", Min: "0", Max: "1", Summary: "Share of it above which all new work is refused; 0: never."},
			}},
			{Name: "client", Summary: "How slow a client may be, while the gateway waits for it. One that is slower is cut off: with 408 if nothing was replied yet.", Arguments: []Argument{
				{Name: "send", Kind: Size, Preset: "240", Min: "0", Max: "1GiB", Summary: "Octets a second it sends at least of a request's body; 0: any."},
				{Name: "read", Kind: Size, Preset: "240", Min: "0", Max: "1GiB", Summary: "Octets a second it reads at least of a reply; 0: any."},
				{Name: "grace", Kind: Span, Preset: "10s", Min: "1s", Max: "10m", Summary: "Of waiting, over which the rates are measured."},
			}},
		}}
}

// upstreamOverloadBlock is that of one upstream, all its endpoints together.
func upstreamOverloadBlock() Block {
	return Block{Name: "overload",
		Summary: "How many requests may wait for the upstream's answer at once, over all its endpoints. The limit falls while more than one answer in ten tells of overload (429, 503, 504, 529, or none in time), and grows again while somebody finds no room. With a `tolerance` it follows the time that answers take, too. What it does not take is refused with 503 and `Retry-After` before any policy runs, or goes to the model's next target. Retries take part in it; streams only until they begin.",
		Arguments: []Argument{
			{Name: "adaptive", Kind: Flag, Preset: "true", Summary: "Otherwise the limit is always `max`."},
			{Name: "min", Kind: Count, Preset: "16", Min: "1", Max: "1000000", Summary: "The least limit."},
			{Name: "max", Kind: Count, Preset: "16384", Min: "1", Max: "1000000", Summary: "The greatest."},
			{Name: "initial", Kind: Count, Preset: "2048", Min: "1", Max: "1000000", Summary: "The limit to begin with; where `min` or `max` leave no room for the default, it is the nearest they allow. Give an upstream that does few at a time less."},
			{Name: "tolerance", Kind: Ratio, Preset: "0", Min: "1.1", Max: "100", Zero: true, Summary: "How many times the time it takes undisturbed an answer may take before a lower limit is tried, which stays if it costs no throughput; 2 is a good value where all answers are about the same work. A model's are not: 0, their time says nothing."},
			{Name: "queue", Kind: Count, Preset: "1024", Min: "0", Max: "100000", Summary: "Requests that wait for their turn; those who came last are served first once the oldest have waited for half of `wait`."},
			{Name: "wait", Kind: Span, Preset: "1s", Min: "1ms", Max: "10s", Summary: "How long they wait at most; while a lower limit is tried, for up to two answers' time instead where that is more."},
		}}
}

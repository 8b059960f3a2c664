package exchange

import "math"

// Unit is a kind of thing a model call consumes and a price row prices.
type Unit uint8

// The units. Every one counts things that no other counts: Input excludes what was read from or written to a cache,
// and audio and image tokens; Output excludes reasoning, audio and image tokens. The sum of all input units is what
// providers report as prompt tokens.
const (
	Input          Unit = iota // tokens read from the prompt
	CachedInput                // tokens read from the provider's prompt cache
	CacheWrite                 // tokens written to the prompt cache for 5 minutes
	CacheWriteLong             // tokens written to the prompt cache for 1 hour
	ImageInput                 // image tokens read
	AudioInput                 // audio tokens read
	Output                     // tokens generated
	Reasoning                  // tokens generated and not shown
	ImageOutput                // image tokens generated
	AudioOutput                // audio tokens generated
	Requests                   // calls
	Seconds                    // seconds of media
	Searches                   // web or file searches
	UnitCount                  // how many there are
)

var unitNames = [UnitCount]string{
	"input", "cached", "cache_write", "cache_write_long", "image_input", "audio_input",
	"output", "reasoning", "image_output", "audio_output", "request", "second", "search",
}

// String returns the word used in HCL price rows, receipts and metrics.
func (u Unit) String() string {
	if u < UnitCount {
		return unitNames[u]
	}
	return "unknown"
}

// ParseUnit finds the unit called name.
func ParseUnit(name string) (Unit, bool) {
	for i, n := range unitNames {
		if n == name {
			return Unit(i), true
		}
	}
	return 0, false
}

// Usage counts what a call consumed, by unit. Counts are never negative.
type Usage struct {
	Units     [UnitCount]int64
	Estimated bool // counted by the gateway, not reported by the provider
}

// Prompt is the number of tokens that went in, of every kind; math.MaxInt64 when there are more.
func (u *Usage) Prompt() int64 {
	return u.sum(Input, CachedInput, CacheWrite, CacheWriteLong, ImageInput, AudioInput)
}

// Completion is the number of tokens that came out, of every kind; math.MaxInt64 when there are more.
func (u *Usage) Completion() int64 {
	return u.sum(Output, Reasoning, ImageOutput, AudioOutput)
}

// sum adds counts up. It stays at the highest number rather than go round to a negative one, which would be cheap.
func (u *Usage) sum(units ...Unit) (total int64) {
	for _, unit := range units {
		if n := u.Units[unit]; n > math.MaxInt64-total {
			return math.MaxInt64
		} else if n > 0 {
			total += n
		}
	}
	return total
}

// Package overload keeps the gateway and what is behind it working when more is asked of them than they can do. Its
// main type is Limiter: so many at once as the time to an answer allows, a short queue, and then a refusal, the least important
// work first. Gate is what stands before the whole gateway: a Limiter that follows the gateway's own delay, watermarks of
// memory, and the least rate at which clients may send and read.
package overload

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Priority says what is refused first. The zero value is Normal.
type Priority int8

// The priorities: Bulk gets three quarters of a limit and half of a queue, and nothing above the soft watermark of memory;
// Critical gets an eighth more than the limit and is the first of the queue.
const (
	Bulk     Priority = -1
	Normal   Priority = 0
	Critical Priority = 1
)

const priorities = 3

// Words are the priorities as they are written in a configuration, the most important first.
func Words() []string { return []string{Critical.String(), Normal.String(), Bulk.String()} }

// ParsePriority reads one of Words; anything else is Normal.
func ParsePriority(word string) Priority {
	for _, p := range [...]Priority{Bulk, Critical} {
		if p.String() == word {
			return p
		}
	}
	return Normal
}

// String returns the word used in HCL, logs and metrics.
func (p Priority) String() string {
	switch p {
	case Bulk:
		return "bulk"
	case Critical:
		return "critical"
	}
	return "normal"
}

// class is the priority's place in arrays, the most important last.
func (p Priority) class() int { return int(min(max(p, Bulk), Critical)) + 1 }

// Reason says why something was refused. The zero value is that it was not.
type Reason uint8

// The reasons.
const (
	Admitted Reason = iota
	Full            // the limit and the queue are used up
	Late            // no turn came within the queue's wait
	Memory          // memory is above a watermark
	Gone            // the caller's context ended while it waited
	reasons
)

// String returns the word used in logs and metrics.
func (r Reason) String() string {
	switch r {
	case Full:
		return "full"
	case Late:
		return "late"
	case Memory:
		return "memory"
	case Gone:
		return "gone"
	}
	return "admitted"
}

// Problem is what a caller is told who was refused for the reason: 503 with a Retry-After of a few seconds, not the same for
// all, so that those who were refused together do not come back together. code and title say what is overloaded.
func (r Reason) Problem(code, title string) *exchange.Problem {
	retry := time.Duration(1+rand.IntN(3)) * time.Second
	if r == Memory {
		retry += 4 * time.Second
	}
	return &exchange.Problem{Status: 503, Code: code, Title: title, Retry: retry}
}

// Bounds bound a Limiter. The zero value limits nothing.
type Bounds struct {
	Min       int           // least limit, at least 1
	Max       int           // greatest limit; 0: there is no limit
	Initial   int           // the limit to begin with; 0: Max
	Adaptive  bool          // the limit follows what answers tell; else it is Initial until Shift moves it
	Tolerance float64       // how many times its least an answer may take before a lower limit is tried; 0: its time says nothing
	Queue     int           // how many wait for a turn; 0: none
	Wait      time.Duration // how long one waits at most
}

// whole returns bounds that agree with each other.
func (b Bounds) whole() Bounds {
	b.Min = max(b.Min, 1)
	if b.Max > 0 {
		b.Max = max(b.Max, b.Min)
	}
	if b.Initial <= 0 {
		b.Initial = b.Max
	}
	b.Initial = min(max(b.Initial, b.Min), max(b.Max, b.Min))
	return b
}

// Client is the least rate at which clients send the bodies of requests and read replies. Only time counts that the gateway
// spends waiting for the client.
type Client struct {
	Send  int64         // octets a second of a body; 0: any
	Read  int64         // octets a second of a reply; 0: any
	Grace time.Duration // of waiting, after which the rate is looked at, each time anew
}

// Watermarks bound the memory that can not be reclaimed: anonymous memory, which the kernel can not drop as it can the pages
// of files, less what the runtime has free for use.
type Watermarks struct {
	Limit int64   // octets; 0: the least of the control group's limit, GOMEMLIMIT and the machine's memory
	Soft  float64 // share of Limit above which new bulk work is refused; 0: never
	Hard  float64 // share of Limit above which all new work is refused; 0: never
}

// Config configures a Gate. The zero value bounds nothing.
type Config struct {
	Bounds Bounds        // of exchanges that wait for the first octet of their answer; Adaptive is not used
	Delay  time.Duration // of goroutines ready to run: where it stands above, the limit falls; 0: the limit stays
	Memory Watermarks
	Client Client
}

// Status is how a Limiter stands at a moment.
type Status struct {
	Limit    int    `json:"limit"`     // 0: none
	InFlight int    `json:"in_flight"` // waiting for the first octet of an answer
	Queued   int    `json:"queued"`    // waiting for a turn
	Latency  string `json:"latency"`   // the least mean time to an answer that the limit is measured by; empty when it is not known
	Refused  uint64 `json:"refused"`   // since the start, for all reasons
	Counts   Counts `json:"-"`
}

// Counts is how many were refused since the start, by priority and reason.
type Counts [priorities][reasons]uint64

// Each calls f for every priority and reason of a refusal, in a fixed order.
func (c *Counts) Each(f func(p Priority, r Reason, n uint64)) {
	for p := Critical; p >= Bulk; p-- {
		for _, r := range [...]Reason{Full, Late, Memory} {
			f(p, r, c[p.class()][r])
		}
	}
}

// ErrSlowReader ends a reply that its client reads too slowly. It is exchange.ErrClientGone as well.
var ErrSlowReader = fmt.Errorf("%w: it reads too slowly", exchange.ErrClientGone)

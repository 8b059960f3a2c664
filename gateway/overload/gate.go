package overload

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

const (
	// tickTime is how often a Gate looks at memory and delay, and how finely it measures how long clients are waited for.
	tickTime = 100 * time.Millisecond
	// standingTicks is how many ticks in a row a delay is there before it is believed.
	standingTicks = 5
	// collectTime is how often the collector is made to run, at most, while memory is above the soft watermark.
	collectTime = 10 * time.Second
	// leaveShare is how far below a watermark memory has to be before new work is taken again.
	leaveShare = 0.95
)

// Options is what a Gate needs besides its configuration.
type Options struct {
	Log *slog.Logger // nil: nothing is logged
	// Used is how many octets of memory can not be reclaimed. Nil: the process's.
	Used func() int64
	// Limit is what memory there is, for Watermarks.Limit 0; 0: it is not known. Nil: the process's.
	Limit func() int64
	// Delay is for how long goroutines were ready to run since the last call, before they did: the median. Nil: the process's.
	Delay func() time.Duration
}

// Gate stands before everything: what it refuses has cost next to nothing. It is safe for concurrent use.
type Gate struct {
	limiter *Limiter
	options Options
	config  atomic.Pointer[Config]
	clock   atomic.Int64 // of the last tick, as time since epoch
	level   atomic.Int32 // watermarks that memory is above: 0, 1 or 2
	used    atomic.Int64
	limit   atomic.Int64 // octets of memory; 0: not known
	delay   atomic.Int64
	slow    [directions]atomic.Uint64

	epoch time.Time
	stop  chan struct{}
	done  sync.WaitGroup
}

// NewGate makes a Gate, which looks at memory and delay until Close.
func NewGate(c Config, o Options) *Gate {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	own := newProcess()
	if o.Used == nil {
		o.Used = own.used
	}
	if o.Limit == nil {
		o.Limit = memoryLimit
	}
	if o.Delay == nil {
		o.Delay = own.delay
	}
	g := &Gate{limiter: NewLimiter(c.Bounds), options: o, epoch: time.Now(), stop: make(chan struct{})}
	g.Configure(c)
	g.done.Go(func() {
		defer own.close()
		g.watch()
	})
	return g
}

// Configure gives the gate another configuration. What is under way counts on.
func (g *Gate) Configure(c Config) {
	limit := c.Memory.Limit
	if limit == 0 {
		limit = g.options.Limit()
	}
	g.limit.Store(limit)
	g.config.Store(&c)
	g.limiter.Configure(c.Bounds)
	g.weigh(&c)
}

// Close ends watching. Turns may still be taken and left.
func (g *Gate) Close() {
	close(g.stop)
	g.done.Wait()
}

// watch looks at memory and delay with every tick.
func (g *Gate) watch() {
	tick := time.NewTicker(tickTime)
	defer tick.Stop()
	late := 0
	var collected time.Time
	for {
		select {
		case <-g.stop:
			return
		case <-tick.C:
		}
		g.clock.Store(int64(time.Since(g.epoch)))
		c := g.config.Load()
		if g.weigh(c) > 0 && time.Since(collected) > collectTime {
			// What the collector has not looked at yet, and what it has not given back, looks like work and is none.
			collected = time.Now()
			debug.FreeOSMemory()
			g.weigh(c)
		}
		delay := g.options.Delay()
		g.delay.Store(int64(delay))
		late = g.follow(c, delay, late)
	}
}

// follow moves the limit with the gateway's own delay, which is there late ticks in a row already. What upstreams need is no
// measure of it: every one takes its own time.
func (g *Gate) follow(c *Config, delay time.Duration, late int) int {
	switch {
	case c.Delay <= 0 || delay < c.Delay/2:
		g.limiter.Shift(1.05)
		return 0
	case delay < c.Delay:
		return 0
	case late+1 < standingTicks:
		return late + 1
	}
	g.limiter.Shift(0.9)
	return late + 1
}

// weigh compares memory with the watermarks and returns the level.
func (g *Gate) weigh(c *Config) int32 {
	used, limit := g.options.Used(), float64(g.limit.Load())
	g.used.Store(used)
	was := g.level.Load()
	above := func(share float64, level int32) bool {
		if share <= 0 || limit <= 0 {
			return false
		}
		if was >= level {
			share *= leaveShare
		}
		return float64(used) > share*limit
	}
	level := int32(0)
	switch {
	case above(c.Memory.Hard, 2):
		level = 2
	case above(c.Memory.Soft, 1):
		level = 1
	}
	if level != was && g.level.CompareAndSwap(was, level) {
		words := [...]string{"all work is taken again", "new bulk work is refused", "all new work is refused"}
		severity := slog.LevelWarn
		if level == 0 {
			severity = slog.LevelInfo
		}
		g.options.Log.Log(context.Background(), severity, "memory: "+words[level], "used", used, "limit", int64(limit))
	}
	return level
}

// Visit is one exchange's part in a Gate. The zero value has none. It must not be copied, and not be used again.
type Visit struct {
	gate  *Gate
	turn  Turn
	body  sent
	reply read
}

// Enter lets an exchange in, if need be after it waited for its turn, or says why not. What it gets to read its body and to
// write its reply from then on sees to it that its client is not too slow, and ends its turn with the head of the reply.
// A nil Gate lets everything in.
func (g *Gate) Enter(ctx context.Context, v *Visit, x *exchange.Exchange, p Priority) Reason {
	if g == nil {
		return Admitted
	}
	if level := g.level.Load(); level == 2 || level == 1 && p == Bulk {
		g.limiter.Refused(p, Memory)
		return Memory
	}
	if r := g.limiter.Enter(ctx, &v.turn, p, true); r != Admitted {
		return r
	}
	v.gate = g
	if x.Request.Body != exchange.NoBody {
		v.body = sent{Body: x.Request.Body, visit: v}
		x.Request.Body = &v.body
	}
	v.reply = read{Reply: x.Reply, visit: v}
	x.Reply = &v.reply
	return Admitted
}

// Leave ends the visit. It may be called more than once.
func (v *Visit) Leave() { v.turn.Leave(NoAnswer) }

// GateStatus is how a Gate stands at a moment.
type GateStatus struct {
	Status
	Delay       string        `json:"delay"`        // for which goroutines were ready before they ran, lately
	Memory      int64         `json:"memory"`       // octets that can not be reclaimed
	MemoryLimit int64         `json:"memory_limit"` // octets there are; 0: not known
	Shedding    string        `json:"shedding"`     // none, bulk or all: new work that is refused for memory
	SlowSend    uint64        `json:"slow_send"`    // clients cut off because they sent too slowly, since the start
	SlowRead    uint64        `json:"slow_read"`    // and because they read too slowly
	DelayTime   time.Duration `json:"-"`
}

// Status describes the gate.
func (g *Gate) Status() GateStatus {
	delay := time.Duration(g.delay.Load())
	return GateStatus{
		Status: g.limiter.Status(), Delay: delay.Round(time.Microsecond).String(), DelayTime: delay,
		Memory: g.used.Load(), MemoryLimit: g.limit.Load(), Shedding: [...]string{"none", "bulk", "all"}[g.level.Load()],
		SlowSend: g.slow[sending].Load(), SlowRead: g.slow[reading].Load(),
	}
}

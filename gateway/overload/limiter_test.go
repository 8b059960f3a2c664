package overload

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// workers is an upstream that serves so many at once as it has tokens; the others wait, as in a server's own backlog.
type workers struct {
	tokens  chan struct{}
	service atomic.Int64 // nanoseconds
	jitter  float64      // of the service time, to both sides
}

func newWorkers(n int, service time.Duration) *workers {
	w := &workers{tokens: make(chan struct{}, n)}
	w.service.Store(int64(service))
	return w
}

func (w *workers) serve() {
	w.tokens <- struct{}{}
	defer func() { <-w.tokens }()
	d := float64(w.service.Load())
	time.Sleep(time.Duration(d * (1 + w.jitter*(2*rand.Float64()-1))))
}

// load is what came of requests that were offered.
type load struct {
	served, refused atomic.Int64
	mu              sync.Mutex
	took            time.Duration // together
	worst           time.Duration
	refusal         time.Duration // the longest that one waited for a refusal
}

// clients have so many clients ask again and again until ctx ends. Who is refused comes back after pause.
func (o *load) clients(ctx context.Context, done *sync.WaitGroup, l *Limiter, n int, p Priority, pause time.Duration, serve func()) {
	for range n {
		done.Go(func() {
			for ctx.Err() == nil {
				var turn Turn
				begun := time.Now()
				r := l.Enter(ctx, &turn, p, true)
				waited := time.Since(begun)
				if r != Admitted {
					if r != Gone {
						o.refused.Add(1)
						o.mu.Lock()
						o.refusal = max(o.refusal, waited)
						o.mu.Unlock()
					}
					time.Sleep(time.Duration(float64(pause) * (0.5 + rand.Float64())))
					continue
				}
				serve()
				turn.Leave(Served)
				took := time.Since(begun)
				o.served.Add(1)
				o.mu.Lock()
				o.took += took
				o.worst = max(o.worst, took)
				o.mu.Unlock()
			}
		})
	}
}

// during runs clients for a time, and returns what came of them.
func during(l *Limiter, n int, p Priority, d, pause time.Duration, serve func()) *load {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var o load
	var done sync.WaitGroup
	o.clients(ctx, &done, l, n, p, pause, serve)
	done.Wait()
	return &o
}

// timed are the bounds of an upstream that does few at a time, whose answers tell by their time how it stands. The others are the
// defaults.
func timed() Bounds {
	return Bounds{Min: 16, Max: 16384, Initial: 128, Adaptive: true, Tolerance: 2, Queue: 1024, Wait: time.Second}
}

// TestOfferedTenfold: an upstream that can do n at a time is asked for ten times as much. The limit finds what it can do
// whatever it began with; nothing is lost of its throughput, and who is let in does not wait long.
func TestOfferedTenfold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		n       int
		service time.Duration
		jitter  float64
	}{
		"few and quick":  {8, 5 * time.Millisecond, 0},
		"few":            {8, 50 * time.Millisecond, 0.5},
		"many":           {64, 20 * time.Millisecond, 0.5},
		"slow":           {30, 2 * time.Second, 0.5},
		"above initial":  {200, 100 * time.Millisecond, 0.3},
		"fewer than min": {2, 20 * time.Millisecond, 0.2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l, w := NewLimiter(timed()), newWorkers(c.n, c.service)
				w.jitter = c.jitter
				clients := max(10*c.n, 200)
				during(l, clients, Normal, 30*time.Second+50*c.service, 400*time.Millisecond, w.serve)
				d := 5*time.Second + 50*c.service
				o := during(l, clients, Normal, d, 400*time.Millisecond, w.serve)
				best := float64(c.n) * d.Seconds() / c.service.Seconds()
				if share := float64(o.served.Load()) / best; share < 0.85 {
					t.Errorf("served %.2f of what the upstream can do", share)
				}
				mean := o.took / time.Duration(o.served.Load())
				bounds := timed()
				most := 4*c.service + bounds.Wait/4
				if c.n < bounds.Min {
					most += 2 * c.service * time.Duration(bounds.Min/c.n) // the limit does not go below its minimum
				}
				if mean > most {
					t.Errorf("who was let in waited %s; an answer takes %s", mean, c.service)
				}
				// Whom a turn comes to in time is not refused, however many they are.
				inTime := time.Duration(clients/c.n)*c.service < bounds.Wait/2
				if refused := o.refused.Load() > 0; refused == inTime {
					t.Errorf("%d were refused", o.refused.Load())
				}
				// While a lower limit is tried, one waits for longer than otherwise: for two answers, and one may take three
				// times the service before the limit follows.
				if o.refusal > bounds.Wait+7*c.service {
					t.Errorf("a refusal took %s", o.refusal)
				}
				if s := l.Status(); s.Limit > max(10*c.n, 3*bounds.Min) || s.Limit < min(c.n, bounds.Min) {
					t.Errorf("limit %d for an upstream that can do %d", s.Limit, c.n)
				}
				if s := l.Status(); s.InFlight != 0 || s.Queued != 0 {
					t.Errorf("after all have left: %+v", s)
				}
			})
		})
	}
}

// TestNobodyRefusedBelowCapacity: where the upstream can do what is asked, the limit is in nobody's way, from the first
// request on, also when it must grow for that.
func TestNobodyRefusedBelowCapacity(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, w := NewLimiter(timed()), newWorkers(2000, 100*time.Millisecond)
		w.jitter = 0.9
		o := during(l, 120, Normal, 20*time.Second, time.Second, w.serve)
		if n := o.refused.Load(); n > 0 {
			t.Errorf("%d of 120 were refused", n)
		}
		// More than it begins with: it has to grow, and does so in seconds.
		during(l, 600, Normal, 5*time.Second, 100*time.Millisecond, w.serve)
		if o := during(l, 600, Normal, 20*time.Second, 100*time.Millisecond, w.serve); o.refused.Load() > o.served.Load()/100 {
			t.Errorf("%d refused and %d served, by an upstream with room for all", o.refused.Load(), o.served.Load())
		}
	})
}

// TestNobodyRefusedForATrial: answers that take very different times, as a model's do, look like overload now and then, and so
// does a moment in which nothing is answered. A lower limit is tried; whoever had found a turn before must find one still.
func TestNobodyRefusedForATrial(t *testing.T) {
	t.Parallel()
	untimed := timed()
	untimed.Tolerance = 0
	for name, c := range map[string]struct {
		bounds  Bounds
		service time.Duration
	}{"quick": {timed(), time.Millisecond}, "slow": {untimed, 3 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				service := c.service
				l, w := NewLimiter(c.bounds), newWorkers(2000, service)
				w.jitter = 0.9
				least := l.Status().Limit
				ctx, stop := context.WithCancel(t.Context())
				var done sync.WaitGroup
				var o load
				o.clients(ctx, &done, l, 100, Normal, time.Second, w.serve)
				for i := range 60 {
					w.service.Store(int64(service) * int64(1+3*(i%2))) // work changes
					for range 10 {
						time.Sleep(service)
						least = min(least, l.Status().Limit)
					}
					if i%10 == 5 { // and once in a while everything stands still
						for range cap(w.tokens) {
							w.tokens <- struct{}{}
						}
						time.Sleep(min(300*time.Millisecond, 10*service))
						for range cap(w.tokens) {
							<-w.tokens
						}
					}
				}
				stop()
				done.Wait()
				if n := o.refused.Load(); n > 0 {
					t.Errorf("%d were refused, %d served", n, o.served.Load())
				}
				if tried := least < 100; tried && c.bounds.Tolerance == 0 {
					t.Errorf("the time of answers lowered the limit to %d", least)
				}
			})
		})
	}
}

// TestLatencyRisesAndRecovers: the upstream loses three quarters of what it can do, and gets it back.
func TestLatencyRisesAndRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const service = 80 * time.Millisecond
		l, w := NewLimiter(timed()), newWorkers(64, service)
		w.jitter = 0.3
		ctx, stop := context.WithCancel(context.Background())
		var done sync.WaitGroup
		var o load
		o.clients(ctx, &done, l, 400, Normal, 50*time.Millisecond, w.serve)
		rate := func(d time.Duration) float64 {
			before := o.served.Load()
			time.Sleep(d)
			return float64(o.served.Load()-before) / d.Seconds()
		}
		time.Sleep(20 * time.Second)
		whole, limit := rate(10*time.Second), l.Status().Limit

		for range 48 { // most workers hang
			w.tokens <- struct{}{}
		}
		time.Sleep(20 * time.Second)
		if r := rate(10 * time.Second); r < whole/4*0.8 {
			t.Errorf("served %.0f/s with a quarter of the workers, %.0f/s with all", r, whole)
		}
		if fell := l.Status().Limit; fell > limit*6/10 {
			t.Errorf("the limit is %d with a quarter of the workers, %d with all", fell, limit)
		}
		for range 48 {
			<-w.tokens
		}
		time.Sleep(20 * time.Second)
		if r := rate(10 * time.Second); r < whole*0.85 {
			t.Errorf("served %.0f/s after the workers came back, %.0f/s before", r, whole)
		}
		stop()
		done.Wait()
	})
}

// TestMoreWorkIsNoOverload: requests become four times as much work, and the upstream can do as many at once as before. The
// limit may not take throughput from it for long.
func TestMoreWorkIsNoOverload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, w := NewLimiter(timed()), newWorkers(200, 50*time.Millisecond)
		w.jitter = 0.3
		during(l, 220, Normal, 30*time.Second, 20*time.Millisecond, w.serve)
		w.service.Store(int64(200 * time.Millisecond))
		during(l, 220, Normal, 20*time.Second, 20*time.Millisecond, w.serve)
		const d = 30 * time.Second
		o := during(l, 220, Normal, d, 20*time.Millisecond, w.serve)
		if share := float64(o.served.Load()) / (200 * d.Seconds() / 0.2); share < 0.85 {
			t.Errorf("served %.2f of what the upstream can do, limit %d", share, l.Status().Limit)
		}
	})
}

// TestStreams: what goes on after the first octet takes no part in the limit.
func TestStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(timed())
		var streams sync.WaitGroup
		for range 2000 {
			var turn Turn
			if r := l.Enter(t.Context(), &turn, Normal, true); r != Admitted {
				t.Fatalf("a stream was refused: %s, %+v", r, l.Status())
			}
			time.Sleep(10 * time.Millisecond)
			turn.Leave(Served)
			streams.Go(func() { time.Sleep(10 * time.Minute) })
		}
		if s := l.Status(); s.InFlight != 0 || s.Limit < 128 {
			t.Errorf("%+v", s)
		}
		streams.Wait()
	})
}

// TestSlowUploads: who waits for its client takes no turn from others, and gets its own back.
func TestSlowUploads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Bounds{Max: 4, Queue: 4, Wait: time.Second})
		slow := make([]Turn, 100)
		for i := range slow {
			if r := l.Enter(t.Context(), &slow[i], Normal, true); r != Admitted {
				t.Fatal(r)
			}
			slow[i].Pause()
		}
		var quick Turn
		if r := l.Enter(t.Context(), &quick, Normal, true); r != Admitted {
			t.Fatalf("slow clients took every turn: %s", r)
		}
		quick.Leave(Served)
		for i := range slow {
			slow[i].Resume()
		}
		if s := l.Status(); s.InFlight != 100 {
			t.Errorf("%d in flight", s.InFlight)
		}
		if !l.Full(Normal) && l.Enter(t.Context(), &quick, Normal, false) != Full {
			t.Error("over the limit somebody was let in")
		}
		for i := range slow {
			slow[i].Pause()
			slow[i].Leave(Served)
			slow[i].Leave(Served)
			slow[i].Resume()
		}
		if s := l.Status(); s.InFlight != 0 {
			t.Errorf("%d in flight after all have left", s.InFlight)
		}
	})
}

// TestQueue: so many wait, so long, and the most important gets the next turn.
func TestQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Bounds{Max: 1, Queue: 4, Wait: time.Second})
		var first Turn
		l.Enter(t.Context(), &first, Normal, true)
		var mu sync.Mutex
		var order []string
		var done sync.WaitGroup
		enter := func(name string, p Priority) {
			done.Go(func() {
				var turn Turn
				r := l.Enter(t.Context(), &turn, p, true)
				mu.Lock()
				defer mu.Unlock()
				if r != Admitted {
					name += " " + r.String()
				}
				order = append(order, name)
				if r == Admitted {
					done.Go(func() {
						time.Sleep(time.Millisecond)
						turn.Leave(Served)
					})
				}
			})
			synctest.Wait()
		}
		enter("bulk 1", Bulk)
		enter("bulk 2", Bulk)
		enter("bulk 3", Bulk) // bulk has half of the queue
		enter("normal 1", Normal)
		enter("normal 2", Normal)
		enter("normal 3", Normal) // in the place of bulk 2
		if r := l.Enter(t.Context(), new(Turn), Bulk, true); r != Full {
			t.Errorf("bulk found a place in a full queue: %s", r)
		}
		if l.Full(Normal) || !l.Full(Bulk) {
			t.Error("normal could still take the place of bulk 1, and bulk that of nobody")
		}
		first.Leave(Served)
		done.Wait()
		want := []string{"bulk 3 full", "bulk 2 full", "normal 1", "normal 2", "normal 3", "bulk 1"}
		if len(order) != len(want) {
			t.Fatalf("%q", order)
		}
		for i := range want {
			if order[i] != want[i] {
				t.Errorf("%q, want %q", order, want)
				break
			}
		}
		if s := l.Status(); s.Refused != 3 || s.Counts[Bulk.class()][Full] != 3 {
			t.Errorf("%+v", s)
		}
	})
}

// TestQueueWait: who gets no turn in time is told so then, and who leaves leaves no trace.
func TestQueueWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Bounds{Max: 1, Queue: 4, Wait: time.Second})
		var first Turn
		l.Enter(t.Context(), &first, Normal, true)
		begun := time.Now()
		if r := l.Enter(t.Context(), new(Turn), Normal, true); r != Late || time.Since(begun) != time.Second {
			t.Errorf("%s after %s", r, time.Since(begun))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if r := l.Enter(ctx, new(Turn), Normal, true); r != Gone {
			t.Errorf("a caller that left: %s", r)
		}
		if r := l.Enter(t.Context(), new(Turn), Normal, false); r != Full {
			t.Errorf("one that does not wait: %s", r)
		}
		if s := l.Status(); s.Queued != 0 || s.InFlight != 1 || s.Refused != 2 {
			t.Errorf("%+v", s)
		}
		// Once the oldest have waited for long, those are served first who came last.
		got := make(chan int, 3)
		turns := make([]Turn, 3)
		for i := range turns {
			go func() {
				if l.Enter(t.Context(), &turns[i], Normal, true) == Admitted {
					got <- i
				}
			}()
			time.Sleep(200 * time.Millisecond)
		}
		first.Leave(Served)
		if i := <-got; i != 2 {
			t.Errorf("the first had waited %s, and number %d was served first", 600*time.Millisecond, i)
		}
		turns[2].Leave(Served)
		turns[<-got].Leave(Served)
		turns[<-got].Leave(Served)
	})
}

// TestPriorities: under overload by everybody, the critical get what they ask for, and the bulk pays for it.
func TestPriorities(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, w := NewLimiter(timed()), newWorkers(20, 20*time.Millisecond)
		ctx, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		var done sync.WaitGroup
		var critical, normal, bulk load
		critical.clients(ctx, &done, l, 4, Critical, 20*time.Millisecond, w.serve)
		normal.clients(ctx, &done, l, 100, Normal, 20*time.Millisecond, w.serve)
		bulk.clients(ctx, &done, l, 100, Bulk, 20*time.Millisecond, w.serve)
		done.Wait()
		share := func(o *load) float64 {
			return float64(o.served.Load()) / float64(o.served.Load()+o.refused.Load())
		}
		if c := share(&critical); c < 0.99 {
			t.Errorf("%.2f of the critical was served", c)
		}
		if n, b := share(&normal), share(&bulk); n < 2*b {
			t.Errorf("%.2f of normal was served and %.2f of bulk", n, b)
		}
		bulk.took = 0
		if alone := during(l, 4, Bulk, time.Second, time.Millisecond, w.serve); alone.refused.Load() > 0 {
			t.Errorf("with nobody else there, %d of bulk were refused", alone.refused.Load())
		}
	})
}

// TestFailingIsNoCapacity: an upstream that fails at once looks quick, which must not make its answers look slow later; one
// that says it is overloaded is believed.
func TestFailingIsNoCapacity(t *testing.T) {
	t.Parallel()
	untimed := timed()
	untimed.Tolerance = 0
	for name, bounds := range map[string]Bounds{"timed": timed(), "untimed": untimed} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { failingIsNoCapacity(t, bounds) })
		})
	}
}

func failingIsNoCapacity(t *testing.T, b Bounds) {
	l := NewLimiter(b)
	for range 1000 {
		var turn Turn
		l.Enter(t.Context(), &turn, Normal, true)
		time.Sleep(time.Millisecond)
		turn.Leave(NoAnswer)
	}
	if s := l.Status(); s.Latency != "" {
		t.Errorf("failures have a latency: %+v", s)
	}
	// It serves 10 at a time, at one speed, and refuses the others.
	busy := make(chan struct{}, 10)
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	var done sync.WaitGroup
	for range 300 {
		done.Go(func() {
			for ctx.Err() == nil {
				var turn Turn
				if l.Enter(ctx, &turn, Normal, true) != Admitted {
					time.Sleep(20 * time.Millisecond)
					continue
				}
				select {
				case busy <- struct{}{}:
					time.Sleep(20 * time.Millisecond)
					<-busy
					turn.Leave(Served)
				default:
					time.Sleep(time.Millisecond)
					turn.Leave(Overloaded)
				}
			}
		})
	}
	done.Wait()
	if s := l.Status(); s.Limit > 64 || s.Limit < b.Min {
		t.Errorf("the limit is %d for an upstream that refuses what is above 10", s.Limit)
	}
}

// TestConfigure: a reload changes bounds and forgets nobody.
func TestConfigure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Bounds{Max: 2, Queue: 2, Wait: time.Minute})
		turns := make([]Turn, 4)
		for i := range 2 {
			l.Enter(t.Context(), &turns[i], Normal, true)
		}
		for i := range 2 {
			go l.Enter(t.Context(), &turns[2+i], Normal, true)
		}
		synctest.Wait()
		if s := l.Status(); s.InFlight != 2 || s.Queued != 2 {
			t.Fatalf("%+v", s)
		}
		l.Configure(Bounds{Max: 3, Queue: 2, Wait: time.Minute})
		synctest.Wait()
		if s := l.Status(); s.InFlight != 3 || s.Queued != 1 || s.Limit != 3 {
			t.Errorf("with more room: %+v", s)
		}
		l.Configure(Bounds{Max: 1, Wait: time.Minute})
		if s := l.Status(); s.InFlight != 3 || s.Limit != 1 {
			t.Errorf("with less room: %+v", s)
		}
		l.Configure(Bounds{})
		synctest.Wait()
		if s := l.Status(); s.InFlight != 4 || s.Queued != 0 || s.Limit != 0 {
			t.Errorf("without a limit: %+v", s)
		}
		for i := range turns {
			turns[i].Leave(Served)
		}
		if s := l.Status(); s.InFlight != 0 {
			t.Errorf("%+v", s)
		}
		l.Configure(timed())
		if s := l.Status(); s.Limit != 128 {
			t.Errorf("a limit that is new begins at %d", s.Limit)
		}
	})
}

// TestHammer: turns are neither lost nor doubled, whoever comes and goes.
func TestHammer(t *testing.T) {
	t.Parallel()
	l := NewLimiter(Bounds{Min: 1, Max: 8, Initial: 4, Adaptive: true, Tolerance: 2, Queue: 8, Wait: 2 * time.Millisecond})
	var done sync.WaitGroup
	for i := range 32 {
		done.Go(func() {
			p := Priority(i%3 - 1)
			for j := range 500 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(3))*time.Millisecond)
				var turn Turn
				if l.Enter(ctx, &turn, p, j%7 > 0) == Admitted {
					if j%3 == 0 {
						turn.Pause()
						turn.Resume()
					}
					if j%5 == 0 {
						time.Sleep(time.Microsecond)
					}
					turn.Leave(Answer(j % 3))
				} else if turn.Held() {
					t.Error("refused, and holds a turn")
				}
				cancel()
				if j%100 == 0 {
					l.Configure(Bounds{Min: 1, Max: 4 + i%8, Initial: 4, Adaptive: true, Tolerance: 2, Queue: 8, Wait: 2 * time.Millisecond})
				}
			}
		})
	}
	done.Wait()
	if s := l.Status(); s.InFlight != 0 || s.Queued != 0 {
		t.Errorf("after all have left: %+v", s)
	}
}

func TestNoLimiter(t *testing.T) {
	t.Parallel()
	var l *Limiter
	var turn Turn
	if l.Enter(t.Context(), &turn, Bulk, true) != Admitted || l.Full(Bulk) || turn.Held() || l.Status() != (Status{}) {
		t.Error("no limiter limits")
	}
	turn.Pause()
	turn.Resume()
	turn.Leave(Served)
	l.Refused(Bulk, Full)
}

// TestNoAllocation: who is let in costs nothing but time.
func TestNoAllocation(t *testing.T) {
	l := NewLimiter(timed())
	turn := new(Turn)
	if n := testing.AllocsPerRun(1000, func() {
		l.Enter(context.Background(), turn, Normal, true)
		turn.Leave(Served)
	}); n > 0 {
		t.Errorf("%v allocations for a turn", n)
	}
}

func BenchmarkTurn(b *testing.B) {
	l := NewLimiter(timed())
	turn := new(Turn)
	b.ReportAllocs()
	for b.Loop() {
		l.Enter(context.Background(), turn, Normal, true)
		turn.Leave(Served)
	}
}

// TestTurnOfTwo has a turn paused and resumed by one goroutine, as that of a body which is still being sent, while another ends
// it, as an answer that came early does.
func TestTurnOfTwo(t *testing.T) {
	t.Parallel()
	l := NewLimiter(Bounds{Min: 1, Max: 1, Initial: 1})
	for range 200 {
		var turn Turn
		if r := l.Enter(t.Context(), &turn, Normal, false); r != Admitted {
			t.Fatalf("the only one was refused: %v", r)
		}
		var sender sync.WaitGroup
		sender.Go(func() {
			turn.Pause()
			turn.Resume()
		})
		turn.Leave(Served)
		sender.Wait()
		if turn.Held() {
			t.Fatal("the turn was taken back after its end")
		}
	}
}

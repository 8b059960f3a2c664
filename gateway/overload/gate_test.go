package overload

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// outside is what a gate under test believes of its process.
type outside struct{ used, limit, delay atomic.Int64 }

func (o *outside) options() Options {
	return Options{Used: o.used.Load, Limit: o.limit.Load, Delay: func() time.Duration { return time.Duration(o.delay.Load()) }}
}

// slowly is a body whose client sends one octet in a while, and a reply whose client reads one octet in a while.
type slowly struct {
	exchange.Reply
	wait   time.Duration
	closed bool
}

func (s *slowly) Read(p []byte) (int, error) {
	time.Sleep(s.wait)
	p[0] = 'x'
	return 1, nil
}
func (s *slowly) Close() error             { s.closed = true; return nil }
func (s *slowly) Trailer() exchange.Header { return nil }
func (s *slowly) Write(p []byte) (int, error) {
	time.Sleep(s.wait * time.Duration(len(p)))
	return len(p), nil
}
func (s *slowly) Flush() error                           { return nil }
func (s *slowly) Head(int, exchange.Header, int64) error { return nil }
func (s *slowly) End(exchange.Header) error              { return nil }
func (s *slowly) exchange() *exchange.Exchange {
	return &exchange.Exchange{Request: exchange.Request{Body: s}, Reply: s}
}

func TestWatermarks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := new(outside)
		o.limit.Store(1000)
		g := NewGate(Config{Bounds: Bounds{Max: 10}, Memory: Watermarks{Soft: 0.8, Hard: 0.9}}, o.options())
		defer g.Close()
		for _, c := range []struct {
			used         int64
			bulk, normal Reason
			shedding     string
		}{
			{100, Admitted, Admitted, "none"},
			{800, Admitted, Admitted, "none"},
			{801, Memory, Admitted, "bulk"},
			{900, Memory, Admitted, "bulk"},
			{901, Memory, Memory, "all"},
			{880, Memory, Memory, "all"}, // not far enough below
			{850, Memory, Admitted, "bulk"},
			{770, Memory, Admitted, "bulk"},
			{750, Admitted, Admitted, "none"},
		} {
			o.used.Store(c.used)
			time.Sleep(2 * tickTime)
			for p, want := range map[Priority]Reason{Bulk: c.bulk, Normal: c.normal, Critical: c.normal} {
				var v Visit
				x := new(slowly).exchange()
				if r := g.Enter(t.Context(), &v, x, p); r != want {
					t.Errorf("%s with %d of 1000 used: %s, want %s", p, c.used, r, want)
				}
				v.Leave()
			}
			if s := g.Status(); s.Shedding != c.shedding || s.Memory != c.used || s.InFlight != 0 {
				t.Errorf("with %d used: %+v", c.used, s)
			}
		}
		// A reload that gives less to use counts at once.
		g.Configure(Config{Bounds: Bounds{Max: 10}, Memory: Watermarks{Limit: 500, Hard: 0.9}})
		if s := g.Status(); s.Shedding != "all" {
			t.Errorf("%+v", s)
		}
		if p := Memory.Problem("overloaded", "x"); p.Status != 503 || p.Retry < 5*time.Second {
			t.Errorf("%+v", p)
		}
	})
}

// TestDelay: a delay that stands lowers the limit; one that goes away lets it rise again.
func TestDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := new(outside)
		g := NewGate(Config{Bounds: Bounds{Min: 10, Max: 1000}, Delay: 100 * time.Millisecond}, o.options())
		defer g.Close()
		limit := func() int { return g.Status().Limit }
		o.delay.Store(int64(time.Second))
		time.Sleep(3 * tickTime)
		if limit() != 1000 {
			t.Errorf("a moment's delay made the limit %d", limit())
		}
		var visits [200]Visit
		for i := range visits {
			if r := g.Enter(t.Context(), &visits[i], new(slowly).exchange(), Normal); r != Admitted {
				t.Fatal(r)
			}
		}
		time.Sleep(3 * tickTime)
		if l := limit(); l >= 200 || l < 100 {
			t.Errorf("with 200 in flight the limit is %d", l)
		}
		if r := g.Enter(t.Context(), new(Visit), new(slowly).exchange(), Normal); r != Full {
			t.Errorf("one more: %s", r)
		}
		for i := range visits {
			visits[i].Leave()
		}
		time.Sleep(10 * time.Second)
		if limit() != 10 {
			t.Errorf("after ten seconds the limit is %d", limit())
		}
		o.delay.Store(0)
		time.Sleep(30 * time.Second)
		if limit() != 1000 {
			t.Errorf("half a minute after it went the limit is %d", limit())
		}
	})
}

// TestSlowClients: who is below the rate for the time of grace is cut off, and nobody else; time that is spent on others does
// not count.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	client := Client{Send: 100, Read: 100, Grace: 5 * time.Second}
	for name, c := range map[string]struct {
		wait time.Duration // of the client, for an octet
		cut  bool
	}{
		"slow":    {20 * time.Millisecond, true},
		"stalled": {3 * time.Second, true},
		"fine":    {8 * time.Millisecond, false},
		"quick":   {0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := NewGate(Config{Bounds: Bounds{Max: 10}, Client: client}, new(outside).options())
				defer g.Close()
				s := &slowly{wait: c.wait}
				x, v := s.exchange(), new(Visit)
				if r := g.Enter(t.Context(), v, x, Normal); r != Admitted {
					t.Fatal(r)
				}
				defer v.Leave()
				begun := time.Now()
				var err error
				buf := make([]byte, 1)
				for range 3000 {
					if _, err = x.Request.Body.Read(buf); err != nil {
						break
					}
					if c.wait == 0 {
						time.Sleep(20 * time.Millisecond) // the upstream's time, not the client's
					}
				}
				if (err != nil) != c.cut || c.cut && (!errors.Is(err, exchange.ErrBodyTimeout) || !s.closed) {
					t.Errorf("sending: %v", err)
				}
				if took := time.Since(begun); c.cut && (took < 5*time.Second || took > 10*time.Second) {
					t.Errorf("cut off after %s", took)
				}
				if c.cut {
					if _, err := x.Request.Body.Read(buf); !errors.Is(err, exchange.ErrBodyTimeout) {
						t.Errorf("read again: %v", err)
					}
				}

				if err := x.Reply.Head(200, nil, -1); err != nil {
					t.Fatal(err)
				}
				if in := g.Status().InFlight; in != 0 {
					t.Errorf("%d in flight after the head of the reply", in)
				}
				for range 3000 {
					if _, err = x.Reply.Write(buf); err == nil {
						err = x.Reply.Flush()
					}
					if err != nil {
						break
					}
					if c.wait == 0 {
						time.Sleep(20 * time.Millisecond)
					}
				}
				if (err != nil) != c.cut || c.cut && (!errors.Is(err, ErrSlowReader) || !errors.Is(err, exchange.ErrClientGone)) {
					t.Errorf("reading: %v", err)
				}
				if err := x.Reply.End(nil); (err != nil) != c.cut {
					t.Errorf("the end of the reply: %v", err)
				}
				want := uint64(0)
				if c.cut {
					want = 1
				}
				if st := g.Status(); st.SlowSend != want || st.SlowRead != want {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// TestSlowSendersTakeNoRoom: ten times the limit of clients that send nothing are no overload.
func TestSlowSendersTakeNoRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Config{Bounds: Bounds{Max: 10}}, new(outside).options())
		defer g.Close()
		for range 100 {
			v := new(Visit)
			x := (&slowly{wait: time.Minute}).exchange()
			if r := g.Enter(t.Context(), v, x, Normal); r != Admitted {
				t.Fatal(r)
			}
			go func() {
				defer v.Leave()
				_, _ = x.Request.Body.Read(make([]byte, 1))
			}()
			synctest.Wait()
		}
		if s := g.Status(); s.InFlight != 0 {
			t.Errorf("%d in flight, of clients that are waited for", s.InFlight)
		}
		time.Sleep(2 * time.Minute)
	})
}

// TestOwnProcess: what is read of the process itself is plausible, and memory that is set aside is seen.
func TestOwnProcess(t *testing.T) {
	p := newProcess()
	defer p.close()
	before := p.used()
	b := make([]byte, 64<<20)
	for i := range b {
		b[i] = byte(i)
	}
	if after := p.used(); before <= 0 || after-before < 48<<20 {
		t.Errorf("64 MiB more are seen as %d octets more than %d", after-before, before)
	}
	if b[1] != 1 {
		t.Error("unreachable, but for keeping b")
	}
	if d := p.delay(); d < 0 || d > time.Hour {
		t.Errorf("a delay of %s", d)
	}
	if limit := memoryLimit(); limit != 0 && limit < 16<<20 {
		t.Errorf("a limit of %d octets", limit)
	}
}

// TestGroupLimit: the least limit on the way up counts, of either version.
func TestGroupLimit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		membership string
		files      map[string]string
		want       int64
	}{
		"version 2":        {"0::/app/web\n", map[string]string{"app/web/memory.max": "300000000\n", "app/memory.max": "max\n"}, 300000000},
		"a parent's":       {"0::/app/web\n", map[string]string{"app/web/memory.max": "max\n", "app/memory.max": "200000000\n"}, 200000000},
		"the root's":       {"0::/\n", map[string]string{"memory.max": "100000000\n"}, 100000000},
		"version 1":        {"5:cpu,memory:/app\n4:pids:/app\n", map[string]string{"memory/app/memory.limit_in_bytes": "400000000\n", "memory/memory.limit_in_bytes": "9223372036854771712\n"}, 400000000},
		"none":             {"0::/app\n", map[string]string{"app/memory.max": "max\n"}, 0},
		"outside the root": {"0::/../../app\n", map[string]string{"memory.max": "100000000\n"}, 100000000},
		"broken":           {"\n0:\n::::\nnonsense", map[string]string{"memory.max": "-5\n"}, 0},
	} {
		dir := t.TempDir()
		for path, text := range c.files {
			path = filepath.Join(dir, path)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		membership := filepath.Join(dir, "cgroup")
		if err := os.WriteFile(membership, []byte(c.membership), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := groupLimit(membership, dir); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if got := machineMemory("MemFree: 1 kB\nMemTotal:        4096 kB\n"); got != 4<<20 {
		t.Errorf("the machine has %d", got)
	}
}

// TestVisitAllocatesNothing: what stands before every exchange costs no memory.
func TestVisitAllocatesNothing(t *testing.T) {
	g := NewGate(Config{Bounds: Bounds{Max: 10}, Client: Client{Send: 1, Read: 1, Grace: time.Second}}, new(outside).options())
	defer g.Close()
	visits := make([]Visit, 1100)
	s := new(slowly)
	x := s.exchange()
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		x.Request.Body, x.Reply = s, s
		g.Enter(context.Background(), &visits[i], x, Normal)
		_ = x.Reply.Head(200, nil, 0)
		_ = x.Reply.End(nil)
		visits[i].Leave()
		i++
	}); n > 0 {
		t.Errorf("%v allocations a visit", n)
	}
}

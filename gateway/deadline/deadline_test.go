package deadline

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

type key struct{}

// TestEnds: it ends as a context of the standard library does, whether somebody waits for it or only looks.
func TestEnds(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	for name, tt := range map[string]struct {
		end         func(c *Context, cancel context.CancelCauseFunc)
		err, reason error
	}{
		"goes on":   {end: func(*Context, context.CancelCauseFunc) {}},
		"time over": {end: func(*Context, context.CancelCauseFunc) { time.Sleep(time.Minute) }, err: context.DeadlineExceeded, reason: context.DeadlineExceeded},
		"parent":    {end: func(_ *Context, cancel context.CancelCauseFunc) { cancel(gone) }, err: context.Canceled, reason: gone},
		"over":      {end: func(c *Context, _ context.CancelCauseFunc) { c.End() }, err: context.Canceled, reason: context.Canceled},
		"over and time over": {end: func(c *Context, _ context.CancelCauseFunc) { c.End(); time.Sleep(time.Hour) },
			err: context.Canceled, reason: context.Canceled},
	} {
		for _, waits := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				parent, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
				defer cancel(nil)
				var c Context
				ctx := c.Begin(parent, time.Minute)
				defer c.End()
				if waits {
					_ = ctx.Done()
				}
				if err := ctx.Err(); err != nil {
					t.Fatalf("%s: %v at once", name, err)
				}
				if at, ok := ctx.Deadline(); !ok || !at.Equal(time.Now().Add(time.Minute)) {
					t.Errorf("%s: deadline %v", name, at)
				}
				tt.end(&c, cancel)
				synctest.Wait()
				if err := ctx.Err(); !errors.Is(err, tt.err) {
					t.Errorf("%s, waits %v: %v", name, waits, err)
				}
				if err := context.Cause(ctx); !errors.Is(err, tt.reason) {
					t.Errorf("%s, waits %v: cause %v", name, waits, err)
				}
				select {
				case <-ctx.Done():
					if tt.err == nil {
						t.Errorf("%s, waits %v: done", name, waits)
					}
				default:
					if tt.err != nil {
						t.Errorf("%s, waits %v: not done", name, waits)
					}
				}
				if ctx.Value(key{}) != "value" {
					t.Errorf("%s: the parent's value is gone", name)
				}
			})
		}
	}
}

// TestParentsDeadline: the parent's deadline counts when it is earlier.
func TestParentsDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var c Context
		ctx := c.Begin(parent, time.Minute)
		defer c.End()
		begun := time.Now()
		<-ctx.Done()
		if took := time.Since(begun); took != time.Second || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("%v after %v", ctx.Err(), took)
		}
	})
}

// TestChildren: a context that is derived of it ends with it, and needs no goroutine for that.
func TestChildren(t *testing.T) {
	parent, stop := context.WithCancel(t.Context())
	defer stop()
	before := runtime.NumGoroutine()
	var c Context
	ctx := c.Begin(parent, time.Hour)
	child, cancel := context.WithCancel(ctx)
	defer cancel()
	called := make(chan struct{})
	context.AfterFunc(ctx, func() { close(called) })
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
	c.End()
	<-called
	<-child.Done()
}

// TestFrugal: where nobody waits, it costs no allocation of its own.
func TestFrugal(t *testing.T) {
	var c Context
	if n := testing.AllocsPerRun(100, func() {
		ctx := c.Begin(context.Background(), time.Hour)
		_ = ctx.Err()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestHammer: everything at once.
func TestHammer(t *testing.T) {
	t.Parallel()
	for range 200 {
		parent, cancel := context.WithCancel(t.Context())
		var c Context
		ctx := c.Begin(parent, time.Millisecond)
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				switch i % 4 {
				case 0:
					<-ctx.Done()
				case 1:
					for ctx.Err() == nil {
						runtime.Gosched()
					}
				case 2:
					child, stop := context.WithTimeout(ctx, time.Second)
					<-child.Done()
					stop()
				case 3:
					c.End()
				}
			})
		}
		all.Wait()
		cancel()
	}
}

// TestAgain: one that nobody has waited for begins again, and ends then and not before; who has waited has it for ever.
func TestAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c Context
		c.Begin(t.Context(), time.Second)
		time.Sleep(time.Minute)
		if c.Err() == nil {
			t.Error("its time was over")
		}
		c = Context{}
		c.BeginUntil(t.Context(), time.Now().Add(time.Second))
		if !c.End() {
			t.Error("nobody has waited")
		}
		c.BeginUntil(t.Context(), time.Now().Add(time.Hour))
		if c.Err() != nil {
			t.Errorf("begun again: %v", c.Err())
		}
		<-c.Done()
		if c.End() {
			t.Error("somebody has waited")
		}
	})
}

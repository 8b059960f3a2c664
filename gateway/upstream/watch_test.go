package upstream

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// ended notes when and why a watch ended an attempt.
type ended struct {
	at    time.Time
	cause error
	times int
}

func (e *ended) abort(cause error) {
	e.at, e.cause = time.Now(), cause
	e.times++
}

// TestWatch: an attempt is ended for the right cause, exactly in time, once; and a watch forgets what it watched before.
func TestWatch(t *testing.T) {
	t.Parallel()
	const first, idle, total = 3 * time.Second, 2 * time.Second, 10 * time.Second
	for _, tt := range []struct {
		name  string
		do    func(w *watch)
		cause error
		after time.Duration
	}{
		{"no answer", func(w *watch) { w.uploading(false, true) }, errFirstByte, first},
		{"a body the upstream does not take", func(w *watch) { w.uploading(false, false) }, errIdle, idle},
		{"a body the client does not send", func(w *watch) { w.uploading(true, false) }, errTotal, total},
		{"the clock stands still while the client is waited for", func(w *watch) {
			w.uploading(false, false)
			time.Sleep(time.Second)
			w.uploading(true, false)
			time.Sleep(5 * time.Second)
			w.uploading(false, true)
		}, errFirstByte, 6*time.Second + first},
		{"a response that stalls", func(w *watch) {
			w.uploading(false, true)
			time.Sleep(time.Second)
			w.begun()
			w.Waiting(true)
		}, errIdle, time.Second + idle},
		{"a response that trickles", func(w *watch) {
			w.uploading(false, true)
			w.begun()
			for range 4 {
				w.Waiting(true)
				time.Sleep(time.Second)
				w.Waiting(false)
			}
			w.Waiting(true)
		}, errIdle, 4*time.Second + idle},
		{"a reader that is slow", func(w *watch) {
			w.uploading(false, true)
			w.begun()
			w.Waiting(true)
			w.Waiting(false)
		}, errTotal, total},
		{"an upload keeps a response that waits alive", func(w *watch) {
			w.uploading(true, false)
			w.begun()
			w.Waiting(true)
			time.Sleep(time.Second)
			w.uploading(true, false)
			w.uploading(false, false)
		}, errIdle, time.Second + idle},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := new(watch)
				// What it watched before has left its timer behind.
				w.start(context.Background(), time.Second, time.Second, 0, true, new(ended))
				w.uploading(false, true)
				w.stop()
				e := new(ended)
				began := time.Now()
				w.start(t.Context(), first, idle, total, true, e)
				tt.do(w)
				time.Sleep(time.Minute)
				synctest.Wait()
				if !errors.Is(e.cause, tt.cause) || e.at.Sub(began) != tt.after || e.times != 1 || !errors.Is(w.why(), tt.cause) {
					t.Errorf("ended %d times, after %v for %v; want after %v for %v", e.times, e.at.Sub(began), e.cause, tt.after, tt.cause)
				}
				w.stop()
			})
		})
	}
}

// TestWatchContext: a context that ends is noticed in time, whether it ends before it is looked at or after; one that ends
// after the attempt does nothing to the next.
func TestWatchContext(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	for _, after := range []time.Duration{0, time.Millisecond, patience, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			w, e := new(watch), new(ended)
			began := time.Now()
			w.start(ctx, time.Hour, time.Hour, 0, true, e)
			w.uploading(false, true)
			time.Sleep(after)
			cancel(gone)
			if why := w.why(); !errors.Is(why, gone) {
				t.Errorf("why: %v", why)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if !errors.Is(e.cause, gone) || e.times != 1 || e.at.Sub(began) != max(after, patience) {
				t.Errorf("canceled after %v: ended %d times after %v for %v", after, e.times, e.at.Sub(began), e.cause)
			}
			w.stop()
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		w, first, second := new(watch), new(ended), new(ended)
		w.start(ctx, time.Hour, time.Hour, 0, true, first)
		time.Sleep(time.Second)
		w.stop()
		w.start(t.Context(), time.Hour, time.Hour, 0, true, second)
		cancel(gone)
		time.Sleep(time.Second)
		synctest.Wait()
		if first.times+second.times != 0 || w.why() != nil {
			t.Errorf("ended %d and %d times", first.times, second.times)
		}
		w.stop()
	})
}

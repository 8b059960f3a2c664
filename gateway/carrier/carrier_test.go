package carrier

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-gateway/postern/gateway/caller"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// connection is one that is always there.
type connection struct{ terms caller.Terms }

func (c *connection) Terms() *caller.Terms { return &c.terms }
func (c *connection) Begin() bool          { return true }
func (c *connection) Done()                {}
func (c *connection) Last() bool           { return false }
func (c *connection) Reset()               {}

// TestStall fires when one wait takes too long, and never because of many short ones.
func TestStall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var fired atomic.Int64
		var s stall
		s.set(time.Second, func() { fired.Add(1) })
		for range 50 {
			s.begin()
			time.Sleep(900 * time.Millisecond)
			if s.end() {
				t.Fatal("fired during a short wait")
			}
			time.Sleep(3 * time.Second) // nothing waits
		}
		s.begin()
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		if fired.Load() != 0 {
			t.Fatal("fired too soon")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if fired.Load() != 1 || !s.end() {
			t.Fatal("did not fire")
		}
		s.stop()
		time.Sleep(time.Minute)
		if fired.Load() != 1 {
			t.Error("fired after its end")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var s stall
		s.set(time.Second, func() { t.Error("fired after stop") })
		s.begin()
		s.stop()
		time.Sleep(time.Minute)
	})
}

// TestOrder refuses calls out of order without harm.
func TestOrder(t *testing.T) {
	t.Parallel()
	var kept *exchange.Exchange
	e := &Carrier{Service: caller.Service{NewID: func() string { return "x" }, Refused: func(string, string) {}, Handler: func(_ context.Context, x *exchange.Exchange) {
		kept = x
		r := x.Reply
		_, writeErr := r.Write([]byte("x"))
		for name, err := range map[string]error{
			"flush": r.Flush(), "end": r.End(nil), "write": writeErr, "head 100": r.Head(100, nil, 0), "interim 101": r.Interim(101, nil), "interim 200": r.Interim(200, nil),
		} {
			if err == nil {
				t.Errorf("%s before the head", name)
			}
		}
		if err := r.Head(200, nil, 2); err != nil {
			t.Error(err)
		}
		if r.Head(200, nil, 2) == nil || r.Interim(103, nil) == nil {
			t.Error("a second head")
		}
		if _, err := r.Write([]byte("abc")); err == nil {
			t.Error("more than the length")
		}
		if _, err := r.Write([]byte("ab")); err != nil {
			t.Error(err)
		}
		if err := r.End(nil); err != nil {
			t.Error(err)
		}
		if _, err := r.Write([]byte("x")); err == nil {
			t.Error("after the end")
		}
		if _, err := r.Upgrade(nil); err == nil {
			t.Error("upgrade after the end")
		}
	}}}
	w := httptest.NewRecorder()
	req := httptest.NewRequest("POST", "/a", strings.NewReader("hello"))
	req.ProtoMajor = 3
	e.HTTP3(w, req, &caller.Peer{Connection: &connection{caller.Terms{MaxBody: 10, Limits: caller.Limits{Head: 1000, Fields: 10, Body: time.Minute, Write: time.Minute}}}})
	if w.Code != 200 || w.Body.String() != "ab" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	if kept.Reply.Flush() == nil {
		t.Error("flush after the handler")
	}
	if _, err := kept.Request.Body.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) && !exchange.AtEnd(err) {
		t.Errorf("read after the handler: %v", err)
	}
	_ = kept.Request.Body.Close()
	kept.Reply.Abort()
}

package main

import (
	"net/http"
	"sync"
)

// gate stands before the sandbox provider and can stop its answers at a named moment.
type gate struct {
	next http.Handler

	mu      sync.Mutex
	shut    chan struct{} // not nil: answers wait until it is closed
	after   int           // how many events, or parts of a body, pass first
	reached chan struct{}
}

// stop makes every answer wait after its first events parts; the provider has read the request then. Each one that has
// come there is told by reached. It goes on when open is called or its connection ends.
func (g *gate) stop(events int) (reached <-chan struct{}, open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	shut := make(chan struct{})
	g.shut, g.after, g.reached = shut, events, make(chan struct{}, 1000)
	return g.reached, sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.shut == shut { // and not shut again at another place
			g.shut = nil
		}
		close(shut)
	})
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.next.ServeHTTP(&gated{ResponseWriter: w, gate: g, request: r}, r)
}

// gated is an answer that passes the gate.
type gated struct {
	http.ResponseWriter
	gate    *gate
	request *http.Request
	parts   int
}

func (w *gated) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *gated) Write(p []byte) (int, error) {
	g := w.gate
	g.mu.Lock()
	shut, here, reached := g.shut, g.after == w.parts, g.reached
	g.mu.Unlock()
	if shut != nil && here {
		reached <- struct{}{}
		select {
		case <-shut:
		case <-w.request.Context().Done():
		}
	}
	w.parts++
	return w.ResponseWriter.Write(p)
}

package desync

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/desync/origin"
)

// Tap stands on the connections between Postern and an origin. It reads what Postern wrote by the strict reading of wire.go,
// and holds the origin's account of every request, which is in its answer, against it.
type Tap struct {
	listener net.Listener
	dial     func(ctx context.Context) (net.Conn, error)
	hostile  bool

	mu     sync.Mutex
	lines  []*line
	seen   map[string]*message // requests that were whole, by their marker
	wait   sync.WaitGroup
	totals Totals
}

// Totals is what went over a tap.
type Totals struct {
	Connections int
	Requests    int // whole ones
	Broken      int // that Postern began and broke off
	Refused     int // that the origin answered itself, with a status of its own
}

// line is one connection of Postern's.
type line struct {
	origin   net.Conn
	mu       sync.Mutex
	up, down []byte // not yet read
	passed   int64  // octets of the origin's that were written to Postern
	upEnd    bool   // Postern closed its side
	downEnd  bool   // the origin closed its
	asked    []*message
	tunnel   bool // an upgrade was agreed on: no more messages
	faulty   bool
}

// Listen makes a tap before an origin that dial reaches. The answers of a hostile one are not read: they prove nothing.
func Listen(ctx context.Context, dial func(ctx context.Context) (net.Conn, error), hostile bool) (*Tap, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open a tap: %w", err)
	}
	t := &Tap{listener: l, dial: dial, hostile: hostile, seen: map[string]*message{}}
	t.wait.Go(t.accept)
	return t, nil
}

// Address is where Postern finds the origin.
func (t *Tap) Address() string { return t.listener.Addr().String() }

func (t *Tap) accept() {
	for {
		c, err := t.listener.Accept()
		if err != nil {
			return
		}
		behind, err := t.dial(context.Background())
		if err != nil {
			_ = c.Close()
			continue
		}
		l := &line{origin: behind}
		t.mu.Lock()
		t.lines = append(t.lines, l)
		t.totals.Connections++
		t.mu.Unlock()
		t.wait.Go(func() { l.carry(c) })
	}
}

// carry passes octets on both ways, and keeps them before it does.
func (l *line) carry(c net.Conn) {
	defer func() { _ = c.Close() }()
	defer func() { _ = l.origin.Close() }()
	var both sync.WaitGroup
	both.Go(func() { l.pass(l.origin, c, &l.up, &l.upEnd) })
	both.Go(func() { l.pass(c, l.origin, &l.down, &l.downEnd) })
	both.Wait()
}

func (l *line) pass(to, from net.Conn, kept *[]byte, end *bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		l.mu.Lock()
		*kept = append(*kept, buf[:n]...)
		*end = err != nil
		l.mu.Unlock()
		if n > 0 {
			_, _ = to.Write(buf[:n]) // the other direction hears of it
			if from == l.origin {
				l.mu.Lock()
				l.passed += int64(n)
				l.mu.Unlock()
			}
		}
		if err == nil {
			continue
		}
		if w, ok := to.(interface{ CloseWrite() error }); ok && errors.Is(err, io.EOF) {
			_ = w.CloseWrite()
		}
		if !errors.Is(err, io.EOF) { // it was cut: so is the other side
			if w, ok := to.(*net.TCPConn); ok {
				_ = w.SetLinger(0)
			}
			_ = to.Close()
		}
		return
	}
}

// Check reads what has come since the last call and says what does not agree. last says that nothing is under way any
// more: whatever is not complete is then a fault too, unless Postern broke it off.
func (t *Tap) Check(last bool) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var faults []string
	kept := t.lines[:0]
	for _, l := range t.lines {
		fault, over := t.read(l, last)
		if fault != "" {
			faults = append(faults, fault)
		}
		if !over {
			kept = append(kept, l)
		}
	}
	t.lines = kept
	return faults
}

// read reads on in one connection. over says that nothing more can come of it.
func (t *Tap) read(l *line, last bool) (fault string, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.faulty {
		return "", true
	}
	fail := func(format string, args ...any) (string, bool) {
		l.faulty = true
		return fmt.Sprintf(format, args...), true
	}
	for len(l.up) > 0 && !l.tunnel {
		m, n, err := parseRequest(l.up)
		if errors.Is(err, errPartial) {
			break
		}
		if err != nil {
			return fail("Postern wrote what a strict reader refuses: %v in %q", err, l.up)
		}
		l.up = l.up[n:]
		l.asked = append(l.asked, m)
		t.totals.Requests++
		if strings.Contains(m.target, "evil") && fault == "" {
			fault = fmt.Sprintf("what is no request became one: %s %s", m.method, m.target)
		}
		if marker := m.header.Get("m"); marker != "" {
			t.seen[marker] = m
		}
	}
	for len(l.down) > 0 && !l.tunnel && !t.hostile {
		method := ""
		if len(l.asked) > 0 {
			method = l.asked[0].method
		}
		m, n, err := parseResponse(l.down, method, l.downEnd)
		if errors.Is(err, errPartial) {
			break
		}
		if err != nil {
			return fail("the origin's answer can not be read: %v in %q", err, l.down)
		}
		echoed := m.header.Get("echo")
		switch {
		case m.status == 101:
			l.tunnel = true
		case m.status < 200:
			l.down = l.down[n:]
			continue
		case len(l.asked) == 0 && len(l.up) == 0 && !l.upEnd:
			return fail("the origin answered what Postern did not ask: %q", l.down)
		case len(l.asked) == 0 && echoed != "":
			return fail("the origin took for a whole request what Postern did not complete: it answered %q to %q", l.down, l.up)
		case len(l.asked) == 0:
			l.down = l.down[n:] // it complains of a request that is not complete
			continue
		}
		if echoed != "" {
			if err := agree(l.asked[0], echoed, m.header.Get("origin-path")); err != nil {
				return fail("%v", err)
			}
		} else if m.status != 101 {
			t.totals.Refused++
		}
		l.down, l.asked = l.down[n:], l.asked[1:]
	}
	over = l.tunnel || l.upEnd && l.downEnd || last
	if !over || l.tunnel {
		return fault, over
	}
	switch {
	case len(l.up) > 0 && l.upEnd:
		t.totals.Broken++
	case len(l.up) > 0:
		return fail("Postern left a request unfinished and its connection open: %q", l.up)
	}
	if len(l.down) > 0 && !l.upEnd && !t.hostile {
		return fail("the origin left an answer unfinished: %q", l.down)
	}
	return fault, true
}

// passed waits until n octets of an origin's connection, known by its other end's address, have been written to Postern.
func (t *Tap) passed(remote net.Addr, n int64) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		t.mu.Lock()
		i := slices.IndexFunc(t.lines, func(l *line) bool { return l.origin.LocalAddr().String() == remote.String() })
		var got int64 = -1
		if i >= 0 {
			l := t.lines[i]
			l.mu.Lock()
			got = l.passed
			l.mu.Unlock()
		}
		t.mu.Unlock()
		if got < 0 || got >= n {
			return nil // or the connection is gone
		}
		select {
		case <-tick.C:
		case <-timer.C:
			return fmt.Errorf("%d of %d octets were passed on", got, n)
		}
	}
}

// Totals is what went over the tap so far.
func (t *Tap) Totals() Totals {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.totals
}

// take returns the whole request with a marker that Postern sent, and forgets it.
func (t *Tap) take(marker string) *message {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.seen[marker]
	delete(t.seen, marker)
	return m
}

// Close ends the tap and everything on it. Postern must have let go of its connections, or gets a while to do so.
func (t *Tap) Close() []string {
	_ = t.listener.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.wait.Wait()
	}()
	timer := time.NewTimer(10 * time.Second)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		return []string{"connections to the origin are still open 10 s after Postern has shut down"}
	}
	return t.Check(true)
}

// agree holds an origin's account against what Postern wrote. path is the one the origin made of the target.
func agree(asked *message, echoed, path string) error {
	if own := origin.Account(asked.header.Get("m"), asked.method, len(asked.body), origin.Digest(asked.body), asked.target); own != echoed {
		return fmt.Errorf("Postern sent %s, the origin got %s (marker, method, length, hash, target): %q", own, echoed, asked.target)
	}
	if path == "" {
		return nil
	}
	raw, _, _ := strings.Cut(asked.target, "?")
	meant, err := url.PathUnescape(raw)
	if err != nil {
		return fmt.Errorf("Postern sent the path %q: %w", raw, err)
	}
	got, err := hex.DecodeString(path)
	if err != nil || strings.TrimSpace(meant) != strings.TrimSpace(string(got)) {
		return fmt.Errorf("Postern meant the path %q, the origin made %q of it", meant, got)
	}
	return nil
}

package desync

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/desync/origin"
)

// Villain is an upstream that answers cases' requests with the cases' octets and every other request well. Its zero value
// is ready for use.
type Villain struct {
	mu     sync.Mutex
	tricks map[string]*trick   // by the marker of the run
	played map[net.Conn]*trick // by the connection it was played on
	wrote  map[net.Conn]int64  // octets
}

// trick is one run of a case.
type trick struct {
	c      *Case
	conn   net.Conn // on which it was played; nil: not yet
	reused bool     // there was a request on it afterwards
}

// Dial gives a connection to it.
func (v *Villain) Dial(ctx context.Context) (net.Conn, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("reach the villain: %w", err)
	}
	defer func() { _ = l.Close() }()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("reach the villain: %w", err)
	}
	own, err := l.Accept()
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("reach the villain: %w", err)
	}
	go v.serve(own)
	return c, nil
}

// play has it answer the request with this marker by the case.
func (v *Villain) play(c *Case, marker string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.tricks == nil {
		v.tricks, v.played = map[string]*trick{}, map[net.Conn]*trick{}
	}
	v.tricks[marker] = &trick{c: c}
}

// reused reports whether there was a request on the connection on which it answered the case's, and forgets the case.
func (v *Villain) reused(marker string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.tricks[marker]
	delete(v.tricks, marker)
	return t != nil && t.reused
}

// serve answers requests until the other side, which always is the tap, closes.
func (v *Villain) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	var buf []byte
	chunk := make([]byte, 16<<10)
	for {
		m, n, err := parseRequest(buf)
		switch {
		case err == nil:
			buf = buf[n:]
			if !v.answer(c, m) {
				return
			}
			continue
		case !errors.Is(err, errPartial):
			return // the tap reports it
		}
		if n, err = c.Read(chunk); err != nil {
			return
		}
		buf = append(buf, chunk[:n]...)
	}
}

// answer answers one request; false: the connection is to be closed.
func (v *Villain) answer(c net.Conn, m *message) bool {
	marker := m.header.Get("m")
	run, first := strings.CutSuffix(marker, ".1")
	v.mu.Lock()
	if v.wrote == nil {
		v.wrote = map[net.Conn]int64{}
	}
	if t := v.played[c]; t != nil {
		t.reused = true
	}
	t := v.tricks[run]
	if !first || t == nil {
		octets := fmt.Sprintf("HTTP/1.1 200 OK\r\nEcho: %s\r\nContent-Length: 2\r\n\r\n", origin.Account(marker, m.method, len(m.body), origin.Digest(m.body), m.target))
		if m.method != "HEAD" {
			octets += "ok"
		}
		v.wrote[c] += int64(len(octets))
		v.mu.Unlock()
		_, err := c.Write([]byte(octets))
		return err == nil
	}
	octets := expand(string(t.c.Answer), "", run)
	t.conn = c
	v.played[c] = t
	v.wrote[c] += int64(len(octets))
	v.mu.Unlock()
	_, _ = c.Write([]byte(octets)) // Postern need not take it
	if s, ok := c.(*net.TCPConn); ok && t.c.Upstream == "reset" {
		_ = s.SetLinger(0)
	}
	return t.c.Upstream == ""
}

// later sends what a case's upstream sends when the client has its answer, through the tap. It has arrived at Postern when
// it returns.
func (v *Villain) later(marker string, tap *Tap) error {
	v.mu.Lock()
	t := v.tricks[marker]
	if t == nil || t.conn == nil {
		v.mu.Unlock()
		return errors.New("it was not asked")
	}
	octets := []byte(expand(string(t.c.Later), "", marker))
	v.wrote[t.conn] += int64(len(octets))
	total := v.wrote[t.conn]
	v.mu.Unlock()
	_ = t.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := t.conn.Write(octets); err != nil {
		return fmt.Errorf("send what comes later: %w", err)
	}
	return tap.passed(t.conn.RemoteAddr(), total)
}

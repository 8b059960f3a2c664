package client

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

const fine = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"

// TestStale: a connection that ended or said something after its exchange is not asked over, whatever the request is, and nothing of
// the request's body is taken: it can be made on another.
func TestStale(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]func(c net.Conn){
		"closed":      func(c net.Conn) { _ = c.Close() },
		"half closed": func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite() },
		"more":        func(c net.Conn) { _, _ = io.WriteString(c, fine) },
	} {
		asked := make(chan string, 1)
		said, read := make(chan struct{}), make(chan struct{})
		c := peer(t, func(c net.Conn, r *bufio.Reader) {
			readHead(r)
			_, _ = io.WriteString(c, fine)
			<-read
			after(c)
			close(said)
			asked <- readHead(r)
		})
		if _, body, err := ask(c, get()); err != nil || body != "fine" || !c.End() {
			t.Fatalf("%s: %q, %v", name, body, err)
		}
		close(read)
		<-said
		for c.Fresh() { // until it has come over
			time.Sleep(time.Millisecond)
		}
		body := &text{Reader: strings.NewReader("hello"), there: 5}
		err := c.Do(&Request{Method: "POST", Path: "/", Host: "h", Body: body, Length: 5}, new(Response))
		var e *Error
		if !errors.As(err, &e) || e.Reason != Stale || !e.Unsent {
			t.Errorf("%s: %v", name, err)
		}
		if rest, _ := io.ReadAll(body.Reader); string(rest) != "hello" {
			t.Errorf("%s: of the body %q is left", name, rest)
		}
		if c.End() {
			t.Errorf("%s: it is used again", name)
		}
		_ = c.Close()
		if head := <-asked; head != "" {
			t.Errorf("%s: asked %q", name, head)
		}
	}
}

// TestAnswersInTheirTime: an answer is read to its end whenever its parts come, before the request was waited for or long after.
func TestAnswersInTheirTime(t *testing.T) {
	t.Parallel()
	const parts = 20
	c := peer(t, func(c net.Conn, r *bufio.Reader) {
		for i := range parts {
			readHead(r)
			for part := range strings.SplitSeq(fine, " ") {
				if part != "HTTP/1.1" {
					part = " " + part
				}
				_, _ = io.WriteString(c, part)
				time.Sleep(time.Duration(i) * 100 * time.Microsecond)
			}
		}
		readHead(r)
		_ = c.(*net.TCPConn).CloseWrite() // no answer: to wait on would be for ever
		_, _ = r.ReadByte()
	})
	for range parts {
		if _, body, err := ask(c, get()); err != nil || body != "fine" || !c.End() {
			t.Fatalf("%q, %v", body, err)
		}
	}
	var e *Error
	if _, _, err := ask(c, get()); !errors.As(err, &e) || e.Reason != Broken || e.Unsent || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v of an upstream that ends without an answer", err)
	}
}

// TestLargeHead: what a connection does not take at once is sent when it does.
func TestLargeHead(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 8<<20)
	c := peer(t, func(c net.Conn, r *bufio.Reader) {
		time.Sleep(10 * time.Millisecond) // it fills up
		if head := readHead(r); !strings.Contains(head, "\r\nX-Long: "+long+"\r\n") {
			return
		}
		_, _ = io.WriteString(c, fine)
	})
	r := get()
	r.Header = exchange.Header{{Name: "x-long", Value: long}}
	if _, body, err := ask(c, r); err != nil || body != "fine" || !c.End() {
		t.Errorf("%q, %v", body, err)
	}
}

// TestGivenUpWhileWaiting: who gives up does not wait for the answer.
func TestGivenUpWhileWaiting(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	c := peer(t, func(_ net.Conn, r *bufio.Reader) {
		readHead(r)
		close(asked)
		_, _ = r.ReadByte()
	})
	go func() {
		<-asked
		c.Abort()
	}()
	var e *Error
	if err := c.Do(get(), new(Response)); !errors.As(err, &e) || e.Unsent {
		t.Error(err)
	}
}

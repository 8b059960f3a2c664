//go:build linux

package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// client1 is a client's end of an HTTP/1.1 connection: one request at a time.
type client1 struct {
	l       *Loop
	s       *socket
	n       int // which of the job's connections
	request []byte
	plain   []byte // what TLS decrypts into
	due     int64
	asked   bool // a request is under way
	stream  bool // the stream of events is open

	// The reply that is being read.
	state state
	head  []byte
	left  int // of the body or the chunk
	got   int
	first []byte // the body's beginning, where a marker is looked for
	final bool   // the proxy closes after it
	lf    bool   // the last octet of the events was a line feed
}

// state is what is expected next.
type state int

const (
	inHead state = iota
	inBody
	inSize    // the line with a chunk's size
	inChunk   // a chunk's octets
	inEnd     // the line end behind them
	inTrailer // lines behind the last chunk
)

func newClient1(l *Loop, s *socket, n int) *client1 {
	job := l.run.Job
	path := job.Path
	if job.Events {
		path += strconv.Itoa(n)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\nAccept-Language: en\r\n", job.Method, path)
	for _, f := range job.Header {
		fmt.Fprintf(&b, "%s: %s\r\n", f[0], f[1])
	}
	if len(job.Body) > 0 {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(job.Body))
	}
	b.WriteString("\r\n")
	b.Write(job.Body)
	return &client1{l: l, s: s, n: n, request: b.Bytes(), plain: make([]byte, 16<<10)}
}

func (c *client1) close() { c.l.drop(c.s.fd) }

func (c *client1) start(due int64) error {
	c.due = due
	if c.asked = true; !c.stream {
		c.stream = c.l.run.Events
		return c.s.send(c.request)
	}
	if c.n >= len(c.l.streams) || c.l.streams[c.n] == nil {
		return errors.New("the proxy has left a stream of events")
	}
	return c.l.streams[c.n].write(c.l.replies.event)
}

func (c *client1) ready(uint32) error {
	if c.l.run == nil {
		return nil
	}
	err := c.s.each(c.consume, c.plain)
	var broken net.Error
	switch {
	case err == nil:
		return nil
	case c.asked || c.stream:
		return fmt.Errorf("the proxy closed a connection in use: %w", err)
	case errors.Is(err, io.EOF), errors.As(err, &broken):
		return c.again()
	}
	return err
}

// again replaces a connection that the proxy has closed between two requests.
func (c *client1) again() error {
	c.l.run.reconnects++
	c.l.drop(c.s.fd)
	_, slots, err := c.l.client(c.n)
	if err != nil {
		return err
	}
	// The old one stands in the list of idle slots, or is about to start: it goes on with the new one's socket.
	fresh := slots[0].(*client1) //nolint:errcheck // HTTP/1.1's
	c.s, c.state, c.head, c.final = fresh.s, inHead, c.head[:0], false
	c.l.handlers[c.s.fd] = c
	return nil
}

// consume reads replies, as strictly as it takes to be sure that they are whole.
func (c *client1) consume(p []byte) error {
	for len(p) > 0 {
		if !c.asked && !c.stream {
			return fmt.Errorf("the proxy said more than it was asked: %.60q", p)
		}
		var err error
		switch c.state {
		case inHead:
			p, err = c.readHead(p)
		case inBody, inChunk:
			n := min(len(p), c.left)
			err = c.body(p[:n])
			p, c.left = p[n:], c.left-n
			if err == nil && c.left == 0 {
				if c.state == inBody {
					err = c.done()
				} else {
					c.state = inEnd
				}
			}
		default:
			p, err = c.line(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *client1) readHead(p []byte) ([]byte, error) {
	whole := p
	if len(c.head) > 0 {
		c.head = append(c.head, p...)
		whole = c.head
	}
	i := bytes.Index(whole, []byte("\r\n\r\n"))
	if i < 0 {
		if len(c.head) == 0 {
			c.head = append(c.head, p...)
		}
		if len(c.head) > 64<<10 {
			return nil, errors.New("the proxy sends a head without end")
		}
		return nil, nil
	}
	rest := p[len(p)-(len(whole)-i-4):]
	head := whole[:i+2]
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
		return nil, fmt.Errorf("the proxy answers %.300q", whole)
	}
	c.got, c.first = 0, c.first[:0]
	if value, ok := fieldOf(head, "connection"); ok && strings.EqualFold(value, "close") {
		c.final = true
	}
	if value, ok := fieldOf(head, "content-length"); ok {
		n, err := strconv.Atoi(value)
		if err != nil || n <= 0 {
			return nil, fmt.Errorf("the proxy says content-length %q", value)
		}
		c.state, c.left = inBody, n
	} else if value, ok := fieldOf(head, "transfer-encoding"); ok && strings.EqualFold(value, "chunked") {
		c.state = inSize
	} else {
		return nil, fmt.Errorf("the proxy sends a body without length: %.200q", head)
	}
	c.head = c.head[:0]
	return rest, nil
}

// line reads the lines between chunks.
func (c *client1) line(p []byte) ([]byte, error) {
	i := bytes.IndexByte(p, '\n')
	if i < 0 {
		c.head = append(c.head, p...)
		if len(c.head) > 1<<10 {
			return nil, errors.New("the proxy sends a chunk's line without end")
		}
		return nil, nil
	}
	line := p[:i]
	if len(c.head) > 0 {
		c.head = append(c.head, line...)
		line = c.head
	}
	line = bytes.TrimSuffix(line, []byte("\r"))
	var err error
	switch c.state {
	case inSize:
		var size uint64
		if size, err = strconv.ParseUint(string(line), 16, 31); err != nil {
			return nil, fmt.Errorf("the proxy sends a chunk of size %q", line)
		}
		c.state, c.left = inChunk, int(size)
		if size == 0 {
			c.state = inTrailer
		}
	case inEnd:
		if len(line) > 0 {
			return nil, fmt.Errorf("the proxy sends %q behind a chunk", line)
		}
		c.state = inSize
	case inTrailer:
		if len(line) == 0 {
			err = c.done()
		}
	}
	c.head = c.head[:0]
	return p[i+1:], err
}

// body sees a part of the body.
func (c *client1) body(p []byte) error {
	c.got += len(p)
	run := c.l.run
	if run.Marker != "" && len(c.first) < 64<<10 {
		c.first = append(c.first, p...)
	}
	if !run.Events {
		return nil
	}
	for len(p) > 0 {
		if c.lf && p[0] == '\n' {
			if !c.asked {
				return errors.New("the proxy sends an event twice")
			}
			c.lf, c.asked, p = false, false, p[1:]
			if err := run.finished(c, c.due); err != nil {
				return err
			}
			continue
		}
		i := bytes.IndexByte(p, '\n')
		if c.lf = i >= 0; !c.lf {
			return nil
		}
		p = p[i+1:]
	}
	return nil
}

// done is called at a reply's end.
func (c *client1) done() error {
	run := c.l.run
	switch {
	case run.Events:
		return errors.New("the proxy ended a stream of events")
	case run.Length >= 0 && c.got != run.Length:
		return fmt.Errorf("the proxy sends %d octets instead of %d", c.got, run.Length)
	case run.Marker != "" && !bytes.Contains(c.first, []byte(run.Marker)):
		return fmt.Errorf("the proxy sends %.500q, which lacks %q", c.first, run.Marker)
	}
	c.state, c.asked = inHead, false
	if c.final {
		if err := c.again(); err != nil {
			return err
		}
	}
	return run.finished(c, c.due)
}

//go:build linux

package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// The paths that the origin knows. Whatever ends in PathChat is a chat completion; PathEvents is followed by a number of its own for
// each stream.
const (
	Path1K     = "/1k"
	Path64K    = "/64k"
	PathEvents = "/events/"
	PathChat   = "/chat/completions"
)

// MarkChat is in every chat completion, at its end.
const MarkChat = `"total_tokens":`

// replies are the origin's octets.
type replies struct{ small, large, chat, events, event []byte }

func newReplies() replies {
	head := "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Mon, 05 Jan 2026 12:00:00 GMT\r\nContent-Type: "
	whole := func(body string) []byte {
		return fmt.Appendf(nil, "%sapplication/json\r\nContent-Length: %d\r\nX-Request-Id: 5b1ff32c-6d5f-4a2b-9f0e-4cf2f3f6c1f7\r\n\r\n%s", head, len(body), body)
	}
	document := func(size int) string {
		const row = `{"id":1184,"name":"Ada Lovelace","tags":["a","b"],"active":true,"score":0.75},`
		s := "[" + strings.Repeat(row, size/len(row))
		return s[:len(s)-1] + strings.Repeat(" ", size-len(s)) + "]"
	}
	event := `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767614400,"model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":" gateway"},"finish_reason":null}]}` + "\n\n"
	return replies{
		small:  whole(document(1 << 10)),
		large:  whole(document(64 << 10)),
		chat:   whole(chat()),
		events: []byte(head + "text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"),
		event:  fmt.Appendf(nil, "%x\r\n%s\r\n", len(event), event),
	}
}

// chat is a completion of about 1 KiB.
func chat() string {
	text := strings.Repeat("A gateway stands between those who ask and those who answer. ", 10)
	return `{"id":"chatcmpl-AbCdEf0123456789","object":"chat.completion","created":1767614400,"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		text + `","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":42,"completion_tokens":120,` + MarkChat +
		`162,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}},"system_fingerprint":"fp_1"}`
}

// acceptor takes the origin's connections.
type acceptor struct{ l *Loop }

func (a acceptor) close() {}

func (a acceptor) ready(uint32) error {
	for {
		fd, _, err := syscall.Accept4(a.l.listener, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		if err != nil {
			if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EINTR) {
				return nil
			}
			return fmt.Errorf("accept at the origin: %w", err)
		}
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
			_ = syscall.Close(fd) // it has gone
			continue
		}
		if err := a.l.add(fd, &served{l: a.l, fd: fd, in: make([]byte, 0, 16<<10), stream: -1}); err != nil {
			return err
		}
	}
}

// served is the origin's end of a connection.
type served struct {
	l      *Loop
	fd     int
	in     []byte
	out    []byte // not yet written
	stream int    // the event stream's number; -1: none
}

func (c *served) close() {
	if c.stream >= 0 && c.stream < len(c.l.streams) && c.l.streams[c.stream] == c {
		c.l.streams[c.stream] = nil
	}
	c.l.drop(c.fd)
}

func (c *served) ready(events uint32) error {
	if events&syscall.EPOLLOUT != 0 {
		out := c.out
		c.out = nil
		if err := c.write(out); err != nil {
			return err
		}
		if len(c.out) == 0 {
			if err := c.l.writable(c.fd, false); err != nil {
				return err
			}
		}
	}
	if events&^uint32(syscall.EPOLLOUT) == 0 {
		return nil
	}
	if len(c.in) == cap(c.in) {
		c.in = append(c.in, 0)[:len(c.in)] // grows
	}
	n, err := syscall.Read(c.fd, c.in[len(c.in):cap(c.in)])
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return nil
	case err != nil, n == 0:
		c.close()
		return nil //nolint:nilerr // a proxy may end a connection as it likes
	}
	c.in = c.in[:len(c.in)+n]
	return c.answer()
}

// answer answers every request that is whole.
func (c *served) answer() error {
	p := c.in
	for len(p) > 0 {
		end, err := requestEnd(p)
		if err != nil {
			return fmt.Errorf("at the origin: %w", err)
		}
		if end < 0 {
			break
		}
		if err := c.reply(p); err != nil {
			return err
		}
		p = p[end:]
	}
	c.in = c.in[:copy(c.in, p)]
	return nil
}

// requestEnd is where the first request ends, -1 where it is not all there.
func requestEnd(p []byte) (int, error) {
	i := bytes.Index(p, []byte("\r\n\r\n"))
	if i < 0 {
		if len(p) > 64<<10 {
			return 0, errors.New("a head without end")
		}
		return -1, nil
	}
	head, end := p[:i+2], i+4
	if bytes.HasPrefix(p, []byte("GET ")) {
		return end, nil
	}
	if value, ok := fieldOf(head, "content-length"); ok {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("content-length %q", value)
		}
		end += n
	} else if _, ok := fieldOf(head, "transfer-encoding"); ok {
		n := bytes.Index(p[end-2:], []byte("\r\n0\r\n\r\n")) // JSON has no line breaks of this kind
		if n < 0 {
			return -1, nil
		}
		end += n + 5
	}
	if end > len(p) {
		return -1, nil
	}
	return end, nil
}

// fieldOf is the value of a head's field.
func fieldOf(head []byte, name string) (string, bool) {
	for {
		i := bytes.IndexByte(head, '\n')
		if i < 0 || i+1 >= len(head) {
			return "", false
		}
		head = head[i+1:]
		if len(head) > len(name) && head[len(name)] == ':' && strings.EqualFold(string(head[:len(name)]), name) {
			value := head[len(name)+1:]
			if end := bytes.IndexByte(value, '\r'); end >= 0 {
				value = value[:end]
			}
			return string(bytes.TrimSpace(value)), true
		}
	}
}

func (c *served) reply(request []byte) error {
	line := request[:bytes.IndexByte(request, '\r')]
	words := bytes.SplitN(line, []byte(" "), 3)
	if len(words) != 3 {
		return fmt.Errorf("at the origin: the request line is %q", line)
	}
	path := string(words[1])
	switch {
	case path == Path1K:
		return c.write(c.l.replies.small)
	case path == Path64K:
		return c.write(c.l.replies.large)
	case strings.HasSuffix(path, PathChat):
		return c.write(c.l.replies.chat)
	case strings.HasPrefix(path, PathEvents):
		n, err := strconv.Atoi(path[len(PathEvents):])
		if err != nil || n < 0 || n > 1<<20 {
			return fmt.Errorf("at the origin: the path is %q", path)
		}
		for n >= len(c.l.streams) {
			c.l.streams = append(c.l.streams, nil)
		}
		c.l.streams[n], c.stream = c, n
		if err := c.write(c.l.replies.events); err != nil {
			return err
		}
		return c.write(c.l.replies.event)
	}
	return c.write([]byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
}

// write writes what there is room for, and the rest when there is.
func (c *served) write(p []byte) error {
	if len(c.out) > 0 {
		c.out = append(c.out, p...)
		return nil
	}
	for len(p) > 0 {
		n, err := syscall.Write(c.fd, p)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			c.out = append([]byte(nil), p...)
			return c.l.writable(c.fd, true)
		case err != nil:
			c.close()
			return nil //nolint:nilerr // a proxy may end a connection as it likes; the client tells what came of it
		}
		p = p[n:]
	}
	return nil
}

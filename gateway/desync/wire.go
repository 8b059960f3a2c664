package desync

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// message is an HTTP/1.1 request or response as a reader without any leniency takes it: what Postern writes must pass,
// whatever it was given.
type message struct {
	method, target string // of a request
	status         int    // of a response
	header         exchange.Header
	trailer        exchange.Header
	body           []byte
	close          bool // the connection ends behind it
}

// errPartial says that the octets so far are the beginning of a message.
var errPartial = errors.New("not complete")

// parseRequest reads the request that b begins with and returns how many octets it has.
func parseRequest(b []byte) (*message, int, error) {
	m, n, err := parseHead(b)
	if err != nil {
		return nil, 0, err
	}
	line, _, _ := bytes.Cut(b, []byte("\r\n"))
	parts := strings.Split(string(line), " ")
	if len(parts) != 3 || parts[2] != "HTTP/1.1" || !isToken(parts[0]) || !strings.HasPrefix(parts[1], "/") {
		return nil, 0, fmt.Errorf("request line %q", line)
	}
	m.method, m.target = parts[0], parts[1]
	for _, c := range []byte(m.target) {
		if c <= ' ' || c >= 0x7f || c == '#' || c == '\\' {
			return nil, 0, fmt.Errorf("target %q", m.target)
		}
	}
	if m.header.Count("host") != 1 {
		return nil, 0, fmt.Errorf("%d host fields", m.header.Count("host"))
	}
	end, err := m.parseBody(b[n:], false)
	return m, n + end, err
}

// parseResponse reads the response that b begins with, the answer to a request with this method. eof says that nothing
// follows b: a body without a length is over.
func parseResponse(b []byte, method string, eof bool) (*message, int, error) {
	m, n, err := parseHead(b)
	if err != nil {
		return nil, 0, err
	}
	first, _, _ := bytes.Cut(b, []byte("\r\n"))
	line := string(first)
	if len(line) < len("HTTP/1.1 200") || !strings.HasPrefix(line, "HTTP/1.") || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return nil, 0, fmt.Errorf("status line %q", line)
	}
	if m.status, err = strconv.Atoi(line[9:12]); err != nil || m.status < 100 {
		return nil, 0, fmt.Errorf("status line %q", line)
	}
	m.close = m.close || line[7] == '0'
	if method == "HEAD" || m.status < 200 || m.status == 204 || m.status == 304 {
		return m, n, nil
	}
	if !m.header.Has("transfer-encoding", "chunked") && m.header.Count("content-length") == 0 {
		if !eof {
			return nil, 0, errPartial
		}
		m.body, m.close = b[n:], true
		return m, len(b), nil
	}
	end, err := m.parseBody(b[n:], true)
	return m, n + end, err
}

// parseHead reads the fields behind a start line, up to and with the empty line.
func parseHead(b []byte) (*message, int, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > 1<<20 {
			return nil, 0, errors.New("a head of more than 1 MiB")
		}
		return nil, 0, errPartial
	}
	m := &message{}
	for i, line := range bytes.Split(b[:end], []byte("\r\n")) {
		for _, c := range line {
			if c < ' ' && c != '\t' || c == 0x7f {
				return nil, 0, fmt.Errorf("a control character in %q", line)
			}
		}
		if i == 0 {
			continue
		}
		f, err := parseField(line)
		if err != nil {
			return nil, 0, err
		}
		m.header = append(m.header, f)
	}
	m.close = m.header.Has("connection", "close")
	return m, end + 4, nil
}

func parseField(line []byte) (exchange.Field, error) {
	name, value, ok := strings.Cut(string(line), ":")
	if !ok || !isToken(name) {
		return exchange.Field{}, fmt.Errorf("field %q", line)
	}
	return exchange.Field{Name: strings.ToLower(name), Value: strings.Trim(value, " \t")}, nil
}

// parseBody reads a body with one of the two framings, or none when it is a request's.
func (m *message) parseBody(b []byte, response bool) (int, error) {
	lengths, encodings := m.header.Count("content-length"), m.header.Count("transfer-encoding")
	switch {
	case lengths+encodings > 1:
		return 0, fmt.Errorf("%d lengths and %d transfer-encodings", lengths, encodings)
	case lengths+encodings == 0:
		return 0, nil
	case encodings == 1:
		if v := m.header.Get("transfer-encoding"); v != "chunked" && (!response || !strings.EqualFold(v, "chunked")) {
			return 0, fmt.Errorf("transfer-encoding %q", v)
		}
		return m.parseChunks(b)
	}
	v := m.header.Get("content-length")
	n, err := strconv.ParseUint(v, 10, 62)
	if err != nil || strconv.FormatUint(n, 10) != v {
		return 0, fmt.Errorf("content-length %q", v)
	}
	if uint64(len(b)) < n {
		return 0, errPartial
	}
	m.body = b[:n]
	return int(n), nil //nolint:gosec // at most len(b)
}

func (m *message) parseChunks(b []byte) (int, error) {
	at := 0
	line := func() ([]byte, error) {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return nil, errPartial
		}
		l := b[at : at+i]
		at += i + 1
		if !bytes.HasSuffix(l, []byte("\r")) || bytes.Count(l, []byte("\r")) > 1 {
			return nil, fmt.Errorf("line end after %q", l)
		}
		return l[:len(l)-1], nil
	}
	for {
		l, err := line()
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseUint(string(l), 16, 32)
		if err != nil {
			return 0, fmt.Errorf("chunk size %q", l)
		}
		if n == 0 {
			break
		}
		if uint64(len(b)-at) < n+2 {
			return 0, errPartial
		}
		m.body = append(m.body, b[at:at+int(n)]...) //nolint:gosec // at most len(b)
		at += int(n)                                //nolint:gosec // the same
		if string(b[at:at+2]) != "\r\n" {
			return 0, fmt.Errorf("%q after a chunk", b[at:at+2])
		}
		at += 2
	}
	for {
		l, err := line()
		if err != nil {
			return 0, err
		}
		if len(l) == 0 {
			return at, nil
		}
		f, err := parseField(l)
		if err != nil {
			return 0, err
		}
		m.trailer = append(m.trailer, f)
	}
}

func isToken(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

package desync

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// patience is how long a client waits for what must come at once. It is a bound on failure, nothing is waited out.
const patience = 20 * time.Second

// Answer is what a client got for one request.
type Answer struct {
	Status  int // of the final answer; 0: there was none
	Interim []int
	Header  exchange.Header
	Body    []byte
	Cut     bool // it is not whole
	Reset   bool // the stream was reset
	Closed  bool // the connection was closed
}

// String is for failures.
func (a *Answer) String() string {
	return fmt.Sprintf("%d %v %d octets, interim %v, cut %v, reset %v, closed %v: %.300q", a.Status, a.Header, len(a.Body), a.Interim, a.Cut, a.Reset, a.Closed, a.Body)
}

// request is one request over HTTP/2 or 3.
type request struct {
	head  []exchange.Field
	data  []string
	tail  []exchange.Field
	reset bool
}

// client is a connection to Postern that sends whatever it is given.
type client interface {
	// ask sends a request, and answer reads the next one's answer, in the order of asking. An error is about the
	// connection, and not what a gateway does to hostile clients.
	ask(r *request) error
	answer() (*Answer, error)
	close()
}

// plain is a client of HTTP/1.1.
type plain struct {
	conn    net.Conn
	buf     []byte
	over    bool     // nothing more comes
	clean   bool     // because the other side closed, and not because it cut the connection
	methods []string // of requests not yet answered
}

func dialPlain(ctx context.Context, address string) (*plain, error) {
	c, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &plain{conn: c}, c.SetDeadline(time.Now().Add(patience))
}

// send writes octets that hold these requests. What the gateway does not want it may not take.
func (c *plain) send(octets []byte, methods ...string) {
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	c.methods = append(c.methods, methods...)
	_, _ = c.conn.Write(octets)
}

// finish does what a case says the client does behind its octets.
func (c *plain) finish(then string) {
	t, ok := c.conn.(*net.TCPConn)
	switch {
	case !ok:
	case then == "half-close":
		_ = t.CloseWrite()
	case then == "reset":
		_ = t.SetLinger(0)
		_ = t.Close()
	}
}

func (c *plain) ask(r *request) error {
	c.send(raw(r), field(r.head, ":method"))
	return nil
}

// raw is an ordinary request over HTTP/1.1.
func raw(r *request) []byte {
	b := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nhost: %s\r\n", field(r.head, ":method"), field(r.head, ":path"), field(r.head, ":authority"))
	for _, f := range r.head {
		if f.Name[0] != ':' {
			b = fmt.Appendf(b, "%s: %s\r\n", f.Name, f.Value)
		}
	}
	return append(b, "\r\n"...)
}

func field(list []exchange.Field, name string) string { return exchange.Header(list).Get(name) }

func (c *plain) answer() (*Answer, error) {
	a := &Answer{}
	method := ""
	if len(c.methods) > 0 {
		method, c.methods = c.methods[0], c.methods[1:]
	}
	chunk := make([]byte, 16<<10)
	for {
		m, n, err := parseResponse(c.buf, method, c.clean)
		switch {
		case err == nil && m.status < 200 && m.status != 101:
			a.Interim = append(a.Interim, m.status)
			c.buf = c.buf[n:]
			continue
		case err == nil:
			a.Status, a.Header, a.Body = m.status, m.header, bytes.Clone(m.body)
			c.buf = c.buf[n:]
			return a, nil
		case !errors.Is(err, errPartial):
			return nil, fmt.Errorf("Postern wrote what a strict reader refuses: %w in %q", err, c.buf)
		case c.over && len(c.buf) == 0:
			a.Closed = true
			return a, nil
		case c.over:
			if m, _, err := parseHead(c.buf); err == nil {
				a.Header = m.header
				a.Status, _ = strconv.Atoi(string(c.buf[9:12]))
			}
			c.buf, a.Cut, a.Closed = nil, true, true
			return a, nil
		}
		n, err = c.conn.Read(chunk)
		c.buf = append(c.buf, chunk[:n]...)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return nil, fmt.Errorf("no answer within %v; so far %q", patience, c.buf)
		}
		c.over = c.over || err != nil
		c.clean = c.clean || errors.Is(err, io.EOF)
	}
}

// ended reads to the connection's end, before which nothing may come.
func (c *plain) ended() error {
	c.methods = nil
	a, err := c.answer()
	if err == nil && (!a.Closed || a.Cut) {
		err = fmt.Errorf("the connection was to be closed, and there came %v", a)
	}
	return err
}

func (c *plain) close() { _ = c.conn.Close() }

// framed is a client of HTTP/2 in cleartext.
type framed struct {
	conn    net.Conn
	framer  *http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
	decoder *hpack.Decoder
	next    uint32
	open    []uint32
	answers map[uint32]*Answer
	done    map[uint32]bool
	last    error
}

func dialFramed(ctx context.Context, address string) (*framed, error) {
	c, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	f := &framed{conn: c, framer: http2.NewFramer(c, c), next: 1, answers: map[uint32]*Answer{}, done: map[uint32]bool{}}
	f.framer.AllowIllegalWrites = true
	f.encoder = hpack.NewEncoder(&f.block)
	f.decoder = hpack.NewDecoder(4096, nil)
	if _, err = io.WriteString(c, http2.ClientPreface); err == nil {
		err = f.framer.WriteSettings()
	}
	return f, err
}

func (c *framed) headers(id uint32, list []exchange.Field, end bool) error {
	c.block.Reset()
	for _, f := range list {
		if err := c.encoder.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value}); err != nil {
			return err
		}
	}
	b := c.block.Bytes()
	first := b[:min(len(b), 16<<10)]
	b = b[len(first):]
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(b) == 0})
	for err == nil && len(b) > 0 {
		part := b[:min(len(b), 16<<10)]
		b = b[len(part):]
		err = c.framer.WriteContinuation(id, len(b) == 0, part)
	}
	return err
}

func (c *framed) ask(r *request) error {
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	id := c.next
	c.next += 2
	c.open = append(c.open, id)
	c.answers[id] = &Answer{}
	err := c.headers(id, r.head, len(r.data) == 0 && r.tail == nil && !r.reset)
	for i, d := range r.data {
		if err == nil {
			err = c.framer.WriteData(id, i == len(r.data)-1 && r.tail == nil && !r.reset, []byte(d))
		}
	}
	if err == nil && r.tail != nil {
		err = c.headers(id, r.tail, !r.reset)
	}
	if err == nil && r.reset {
		err = c.framer.WriteRSTStream(id, http2.ErrCodeCancel)
		c.answers[id].Reset, c.done[id] = true, true
	}
	if err != nil {
		c.last = err // the gateway may have closed already: reading shows why
	}
	return nil
}

func (c *framed) answer() (*Answer, error) {
	if len(c.open) == 0 {
		return nil, errors.New("nothing was asked")
	}
	id := c.open[0]
	c.open = c.open[1:]
	a := c.answers[id]
	for !c.done[id] {
		f, err := c.framer.ReadFrame()
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			return nil, fmt.Errorf("no answer within %v; so far %v", patience, a)
		case err != nil:
			a.Closed, a.Cut = true, a.Status != 0
			return a, nil //nolint:nilerr // that is what the client got
		}
		if err := c.take(f); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// take reads one frame.
func (c *framed) take(f http2.Frame) error {
	id := f.Header().StreamID
	a := c.answers[id]
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			c.last = c.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			c.last = c.framer.WritePing(true, f.Data)
		}
	case *http2.RSTStreamFrame:
		if a != nil && !c.done[id] {
			a.Reset, a.Cut, c.done[id] = true, a.Status != 0, true
		}
	case *http2.HeadersFrame:
		if a == nil || !f.HeadersEnded() {
			return fmt.Errorf("Postern wrote headers for stream %d in parts, or unasked", id)
		}
		list, err := c.decoder.DecodeFull(f.HeaderBlockFragment())
		if err != nil {
			return fmt.Errorf("Postern wrote headers that can not be decoded: %w", err)
		}
		fields := make([]exchange.Field, 0, len(list))
		for _, l := range list {
			fields = append(fields, exchange.Field{Name: l.Name, Value: l.Value})
		}
		a.fields(fields)
		c.done[id] = c.done[id] || f.StreamEnded()
	case *http2.DataFrame:
		if a == nil {
			return fmt.Errorf("Postern wrote data for stream %d, which was not asked for", id)
		}
		a.Body = append(a.Body, f.Data()...)
		c.done[id] = c.done[id] || f.StreamEnded()
	}
	return nil
}

func (c *framed) close() { _ = c.conn.Close() }

// fields takes a header section: interim, final or trailer.
func (a *Answer) fields(list []exchange.Field) {
	status, err := strconv.Atoi(field(list, ":status"))
	switch {
	case err != nil: // a trailer section
	case status < 200:
		a.Interim = append(a.Interim, status)
	default:
		a.Status, a.Header = status, list
	}
}

// datagrams is a client of HTTP/3.
type datagrams struct {
	conn   *quic.Conn
	open   []*quic.Stream
	resets map[*quic.Stream]bool
}

func dialDatagrams(ctx context.Context, address string, config *tls.Config) (*datagrams, error) {
	config = config.Clone()
	config.NextProtos = []string{"h3"}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, address, config, &quic.Config{MaxIdleTimeout: patience})
	if err != nil {
		return nil, err
	}
	control, err := conn.OpenUniStream()
	if err == nil {
		_, err = control.Write([]byte{0x00, 0x04, 0x00}) // a control stream with empty SETTINGS (RFC 9114 section 6.2.1)
	}
	return &datagrams{conn: conn, resets: map[*quic.Stream]bool{}}, err
}

// frame appends one frame (RFC 9114 section 7.1).
func frame(b []byte, kind uint64, payload []byte) []byte {
	return append(quicvarint.Append(quicvarint.Append(b, kind), uint64(len(payload))), payload...)
}

// The frames of a request.
const (
	dataFrame    = 0
	headersFrame = 1
)

func section(list []exchange.Field) ([]byte, error) {
	var b bytes.Buffer
	e := qpack.NewEncoder(&b)
	for _, f := range list {
		if err := e.WriteField(qpack.HeaderField{Name: f.Name, Value: f.Value}); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), e.Close()
}

func (c *datagrams) ask(r *request) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := c.conn.OpenStreamSync(ctx)
	if err != nil {
		c.open = append(c.open, nil) // the connection is gone: so is the answer
		return nil                   //nolint:nilerr // that is what the client got
	}
	_ = s.SetDeadline(time.Now().Add(patience))
	c.open = append(c.open, s)
	head, err := section(r.head)
	if err != nil {
		return err
	}
	b := frame(nil, headersFrame, head)
	for _, d := range r.data {
		b = frame(b, dataFrame, []byte(d))
	}
	if r.tail != nil {
		tail, err := section(r.tail)
		if err != nil {
			return err
		}
		b = frame(b, headersFrame, tail)
	}
	_, _ = s.Write(b) // a gateway that has seen enough stops reading
	if r.reset {
		c.resets[s] = true
		s.CancelWrite(0x10c) // H3_REQUEST_CANCELLED
		s.CancelRead(0x10c)
		return nil
	}
	_ = s.Close()
	return nil
}

func (c *datagrams) answer() (*Answer, error) {
	if len(c.open) == 0 {
		return nil, errors.New("nothing was asked")
	}
	s := c.open[0]
	c.open = c.open[1:]
	a := &Answer{}
	if s == nil {
		a.Closed = true
		return a, nil
	}
	if c.resets[s] {
		a.Reset = true
		return a, nil
	}
	b, err := io.ReadAll(s)
	var reset *quic.StreamError
	var timeout net.Error
	switch {
	case errors.As(err, &reset):
		a.Reset = true
	case errors.As(err, &timeout) && timeout.Timeout() && c.conn.Context().Err() == nil:
		return nil, fmt.Errorf("no answer within %v; so far %q", patience, b)
	case err != nil:
		a.Closed = true
	}
	for len(b) > 0 {
		kind, n, err := quicvarint.Parse(b)
		if err != nil {
			break
		}
		length, m, err := quicvarint.Parse(b[n:])
		if err != nil || uint64(len(b)-n-m) < length {
			break
		}
		payload := b[n+m:][:length]
		b = b[n+m:][length:]
		switch kind {
		case dataFrame:
			a.Body = append(a.Body, payload...)
		case headersFrame:
			list, err := unsection(payload)
			if err != nil {
				return nil, err
			}
			a.fields(list)
		}
	}
	a.Cut = a.Status != 0 && (a.Reset || a.Closed || len(b) > 0)
	return a, nil
}

func unsection(b []byte) ([]exchange.Field, error) {
	var list []exchange.Field
	next := qpack.NewDecoder().Decode(b)
	for {
		f, err := next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("Postern wrote headers that can not be decoded: %w", err)
		}
		list = append(list, exchange.Field{Name: f.Name, Value: f.Value})
	}
}

func (c *datagrams) close() { _ = c.conn.CloseWithError(0x100, "") } // H3_NO_ERROR

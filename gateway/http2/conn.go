// Package http2 is the server side of HTTP/2 (RFC 9113): strict, and with a budget for what costs it more than the
// client. Its main type is Conn.
//
// One goroutine reads a connection; each stream's handler runs in a goroutine of its own and writes by itself. What
// several have to say at the same time leaves in one write. Malformed frames and requests are errors of the connection
// or of the stream as the RFC says, and never reach a handler.
package http2

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"
)

// Preface is what a client sends first (RFC 9113 section 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Config is what a connection is to be like.
type Config struct {
	Handler func(ctx context.Context, s *Stream) // answers one stream; ctx ends when the client no longer waits. Required
	Flood   func()                               // is told when the client is cut off because its budget is spent; nil: nobody is

	// Limits says, for every head, how many octets and fields it may have. One that has more is passed on as Stream.Large.
	Limits  func() (octets int64, fields int)
	Streams uint32 // concurrent streams
	Control int    // the budget: frames that cost more than they carry, at once; a tenth of it each second

	Header time.Duration // for a frame other than DATA, or a whole head, once it has begun
	Body   time.Duration // for a read in the midst of DATA
	Idle   time.Duration // without any stream; with one, the client is asked whether it is still there
	Write  time.Duration // for a write to make progress
}

// Pools is the memory that connections share. Its zero value can not be used: see NewPools.
type Pools struct{ in, out sync.Pool }

// NewPools returns empty pools.
func NewPools() *Pools {
	p := new(Pools)
	p.in.New = func() any { b := make([]byte, large); return &b }
	p.out.New = func() any { b := make([]byte, 0, outSize); return &b }
	return p
}

const (
	streamWindow = 256 << 10 // octets of a stream's body that may wait for its handler
	connWindow   = 1 << 20   // of all streams together
	defaultSize  = 65535     // windows before anything was said (RFC 9113 section 6.9.2)
	tableSize    = 4096      // the compression's dynamic tables, both ways
	pingWait     = 15 * time.Second
	lingerTime   = time.Second // for the client to notice that the connection ends, or to take what ends it
)

// Conn is one connection. Serve runs it; Drain may be called at any time, and closing what it runs on ends it at once.
type Conn struct {
	cfg   Config
	pools *Pools
	rw    net.Conn
	ctx   context.Context // of every stream
	end   context.CancelFunc
	work  sync.WaitGroup // handlers, and what writes in their place

	// The reader's own.
	in         []byte
	got, taken int // in[taken:got] is what has not been looked at
	heard      bool
	asked      bool // a ping that nothing has come after
	block      block
	decoder    *hpack.Decoder
	calm       budget // guarded by mu: writers earn
	settled    bool   // the client's settings have come

	mu        sync.Mutex
	streams   map[uint32]*Stream // open ones
	seen      uint32             // highest id that the client has used
	last      uint32             // highest of them that is answered
	closed    [64]closedStream   // those that were closed last
	closedAt  int
	running   int       // handlers
	waiting   []*Stream // open, for a handler to end: their predecessors were reset and are not over
	idleSince time.Time
	unread    int // octets of bodies that wait for their handlers
	owed      int // octets that were read, and that the client has not been told of

	window  int64 // octets of bodies that the client takes
	initial int64 // the same, of a new stream
	frame   int   // octets of a frame that the client takes
	encoder *hpack.Encoder
	encoded blockWriter

	out       []byte // frames that have not been sent
	sent      uint64 // how many times out was taken to be sent
	flushing  bool
	blocked   int       // streams that wait to write
	soon      bool      // somebody is on the way to flush
	room      sync.Cond // out is short again, or all is over
	writeTime time.Duration
	err       error // why nothing can be sent any more
	date      string
	dated     int64

	drain  drain
	endBy  time.Time // when the client must have taken the step that drain waits for
	ending bool      // nothing new is begun, and nothing is answered: GOAWAY has been sent
}

// drain is how far a kind end has come.
type drain uint8

const (
	open     drain = iota
	asking         // GOAWAY without a last stream was sent, and a ping to know when it has arrived
	draining       // GOAWAY with the last stream was sent
)

type closedStream struct {
	id    uint32
	reset bool // by us: what the client sent before it knew is no fault
}

// blockWriter collects what the encoder writes.
type blockWriter struct{ b []byte }

func (w *blockWriter) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}

var drainPing = [8]byte{'d', 'r', 'a', 'i', 'n'}

// New returns a connection on rw, whose preface has been read. Streams end at the latest with ctx.
func New(ctx context.Context, rw net.Conn, pools *Pools, cfg Config) *Conn {
	c := &Conn{
		cfg: cfg, pools: pools, rw: rw, in: make([]byte, small), calm: newBudget(cfg.Control),
		streams: make(map[uint32]*Stream), idleSince: time.Now(),
		writeTime: cfg.Write, window: defaultSize, initial: defaultSize, frame: maxFrame,
	}
	c.ctx, c.end = context.WithCancel(ctx)
	c.block.by = time.Now().Add(cfg.Header) // the client's settings begin every connection
	c.room.L = &c.mu
	c.encoder = hpack.NewEncoder(&c.encoded)
	c.decoder = hpack.NewDecoder(tableSize, func(f hpack.HeaderField) {
		c.block.head.add(f.Name, f.Value)
		if c.block.head.large {
			c.decoder.SetEmitEnabled(false)
		}
	})
	return c
}

// Serve runs the connection until it is over and every handler has returned. It closes rw.
func (c *Conn) Serve() {
	c.mu.Lock()
	c.out = c.appendSettings(c.buffer())
	c.flushSoon()
	c.mu.Unlock()
	err := c.loop()
	c.close(err)
	c.end()
	c.work.Wait()
}

func (c *Conn) appendSettings(b []byte) []byte {
	const settings = 4
	b = appendFrame(b, settings*6, frameSettings, 0, 0)
	b = appendSetting(b, settingStreams, c.cfg.Streams)
	b = appendSetting(b, settingWindow, streamWindow)
	octets, fields := c.cfg.Limits()
	b = appendSetting(b, settingHeaderList, uint32(min(octets+32*int64(fields), maxID)))
	b = appendSetting(b, settingConnect, 1)
	return appendWindow(b, 0, connWindow-defaultSize)
}

// loop reads frames until the connection is over.
func (c *Conn) loop() error {
	for {
		f, err := c.read()
		if err != nil {
			return err
		}
		if err := c.handle(&f); err != nil {
			return err
		}
	}
}

// quiet sets until when the first octet of a frame is waited for. Whoever changes what it depends on sets another
// deadline while holding mu, and so either finds the reader waiting or is found here.
func (c *Conn) quiet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.rw.SetReadDeadline(c.patience())
}

func (c *Conn) patience() time.Time {
	switch {
	case c.err != nil:
		return time.Unix(1, 0)
	case c.ending:
		return c.endBy
	case c.drain == asking:
		return c.endBy
	case c.asked && !c.heard:
		return time.Now().Add(pingWait)
	case len(c.streams) > 0:
		return time.Now().Add(c.cfg.Idle)
	}
	return c.idleSince.Add(c.cfg.Idle)
}

// alive decides what follows when nothing came for as long as quiet said; false: the end.
func (c *Conn) alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil || c.ending || c.asked && !c.heard:
		return false
	case c.drain == asking:
		c.depart() // the ping's answer should have been here
	case len(c.streams) > 0:
		c.heard, c.asked = false, true
		c.out = append(appendFrame(c.buffer(), 8, framePing, 0, 0), "postern?"...)
		c.flushSoon()
	case time.Since(c.idleSince) >= c.cfg.Idle:
		c.depart()
	}
	return true
}

// Drain ends the connection kindly: streams that are open may end, and those the client begins before it can know.
func (c *Conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drain != open || c.ending {
		return
	}
	c.drain = asking
	c.endBy = time.Now().Add(lingerTime)
	c.out = append(appendFrame(c.goAway(maxID, NoError), 8, framePing, 0, 0), drainPing[:]...)
	c.flushSoon()
	_ = c.rw.SetReadDeadline(c.endBy) // the reader may be waiting for longer
}

// depart names the last stream that is answered.
func (c *Conn) depart() {
	if c.drain == draining {
		return
	}
	c.drain = draining
	c.out = c.goAway(c.last, NoError)
	c.flushSoon()
	c.leave()
}

// leave ends the connection once it drains and no stream is left.
func (c *Conn) leave() {
	if c.drain != draining || len(c.streams) > 0 || c.running > 0 || c.ending {
		return
	}
	c.ending = true
	c.endBy = time.Now().Add(lingerTime + c.writeTime)
	c.work.Go(func() {
		c.mu.Lock()
		c.settle()
		c.endBy = time.Now().Add(lingerTime)
		c.mu.Unlock()
		if w, ok := c.rw.(closeWriter); ok {
			_ = w.CloseWrite()
		}
		_ = c.rw.SetReadDeadline(time.Now().Add(lingerTime))
	})
}

func (c *Conn) goAway(last uint32, code Code) []byte {
	return appendGoAway(c.buffer(), last, code)
}

// settle waits until everything is sent, or can not be.
func (c *Conn) settle() {
	c.flush()
	for c.flushing && c.err == nil {
		c.room.Wait()
	}
}

// close says why the connection ends, if the client can be told, and ends every stream.
func (c *Conn) close(err error) {
	var ours *connError
	told := errors.As(err, &ours)
	c.mu.Lock()
	said := c.ending
	c.ending = true
	for _, s := range c.streams {
		s.abort(errGone)
	}
	clear(c.streams)
	c.waiting = nil
	if told && !said && c.err == nil {
		_ = c.rw.SetWriteDeadline(time.Now().Add(lingerTime)) // also for who is in the midst of sending
		c.out = c.goAway(c.last, ours.code)
		c.writeTime = lingerTime
	}
	c.settle()
	c.fail(errGone)
	c.mu.Unlock()
	c.end()
	if told {
		linger(c.rw)
	}
	_ = c.rw.Close()
}

// Refuse ends a connection on which no preface came (RFC 9113 section 3.4).
func Refuse(rw net.Conn) {
	_ = rw.SetWriteDeadline(time.Now().Add(lingerTime))
	_, _ = rw.Write(appendGoAway(nil, 0, ProtocolError))
	linger(rw)
	_ = rw.Close()
}

// linger ends the sending side and reads away what the client sends until it has taken the last frame, or for a while: a
// connection that is closed while something is unread is reset, and the client may lose what it was sent.
func linger(rw net.Conn) {
	w, ok := rw.(closeWriter)
	if !ok || w.CloseWrite() != nil {
		return
	}
	_ = rw.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, rw, 64<<10)
}

// cost takes n from the budget.
func (c *Conn) cost(n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.costLocked(n)
}

func (c *Conn) costLocked(n int) error {
	return c.within(c.calm.spend(n))
}

// within ends the connection where it is not within its budget.
func (c *Conn) within(ok bool) error {
	if ok {
		return nil
	}
	if c.cfg.Flood != nil {
		c.cfg.Flood()
	}
	return &connError{EnhanceYourCalm, "too many frames that carry nothing"}
}

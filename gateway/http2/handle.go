package http2

import (
	"encoding/binary"
	"slices"
	"time"
)

// handle acts on one frame. An error ends the connection.
func (c *Conn) handle(f *frame) error {
	switch {
	case c.block.open && (f.kind != frameContinuation || f.id != c.block.stream):
		return broken("a header block is interrupted")
	case !c.settled && (f.kind != frameSettings || f.has(flagAck)):
		return broken("the first frame is not SETTINGS")
	}
	switch f.kind {
	case frameData:
		return c.data(f)
	case frameHeaders:
		return c.headers(f)
	case framePriority:
		return c.priority(f)
	case frameReset:
		return c.reset(f)
	case frameSettings:
		return c.settings(f)
	case framePush:
		return broken("a client can not push")
	case framePing:
		return c.ping(f)
	case frameGoAway:
		switch {
		case f.id != 0:
			return broken("GOAWAY on a stream")
		case len(f.payload) < 8:
			return &connError{FrameSizeError, "GOAWAY is too short"}
		}
		return c.cost(1) // what is open is answered; the client closes the connection
	case frameWindow:
		return c.windowUpdate(f)
	case frameContinuation:
		return c.continuation(f)
	}
	return c.cost(1) // unknown, to be ignored (RFC 9113 section 5.5)
}

// state says what is known of a stream that is not open.
type state uint8

const (
	idle    state = iota
	gone          // closed, or passed over
	wasOurs       // reset by us: what the client sent before it knew is no fault
)

func (c *Conn) stateOf(id uint32) state {
	if id > c.seen || id%2 == 0 {
		return idle
	}
	for i := range c.closed {
		if c.closed[i].id == id && c.closed[i].reset {
			return wasOurs
		}
	}
	return gone
}

// known reports whether a stream was closed lately, and not merely passed over.
func (c *Conn) known(id uint32) bool {
	for i := range c.closed {
		if c.closed[i].id == id {
			return true
		}
	}
	return false
}

func (c *Conn) data(f *frame) error {
	if f.id == 0 {
		return broken("DATA without a stream")
	}
	octets := len(f.payload)
	if err := f.unpad(); err != nil {
		return err
	}
	end := f.has(flagEndStream)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(f.payload) == 0 && !end || octets > 2*len(f.payload)+64 {
		if err := c.costLocked(1); err != nil {
			return err
		}
	}
	s := c.streams[f.id]
	if c.unread += octets; c.unread+c.owed > connWindow {
		return &connError{FlowControlError, "more DATA than the connection's window"}
	}
	if s == nil {
		state := c.stateOf(f.id)
		c.giveBack(octets)
		switch {
		case state == idle:
			return broken("DATA on an idle stream")
		case state == gone:
			return c.refuse(f.id, StreamClosed)
		}
		return nil
	}
	if s.remoteEnded {
		c.giveBack(octets)
		return c.fault(s, StreamClosed)
	}
	if s.unread+s.owed+octets > streamWindow {
		c.giveBack(octets)
		return c.fault(s, FlowControlError)
	}
	s.received += int64(len(f.payload))
	if s.Length >= 0 && (s.received > s.Length || end && s.received < s.Length) {
		c.giveBack(octets)
		return c.fault(s, ProtocolError)
	}
	s.unread += octets
	kept := len(f.payload)
	if s.deaf {
		kept = 0
	}
	c.giveBack(octets - kept) // nobody will read it
	if !s.deaf {
		s.giveBack(octets - kept)
	} else {
		s.unread -= octets
	}
	if kept > 0 {
		s.buffer.Write(f.payload)
	}
	if end {
		s.endRemote()
	}
	s.wake.Broadcast()
	return nil
}

func (c *Conn) headers(f *frame) error {
	if f.id == 0 {
		return broken("HEADERS without a stream")
	}
	if err := f.unpad(); err != nil {
		return err
	}
	selfie := false
	if f.has(flagPriority) {
		if len(f.payload) < 5 {
			return &connError{FrameSizeError, "HEADERS is too short for its priority"}
		}
		selfie = binary.BigEndian.Uint32(f.payload)&maxID == f.id
		f.payload = f.payload[5:]
	}
	octets, fields := c.cfg.Limits()
	c.block.begin(f, selfie, time.Now().Add(c.cfg.Header), octets, fields)
	return c.fragment(f)
}

func (c *Conn) continuation(f *frame) error {
	if !c.block.open {
		return broken("CONTINUATION without HEADERS")
	}
	if c.block.pieces++; c.block.pieces > maxPieces {
		return c.cost(c.cfg.Control + 1)
	}
	if err := c.cost(1); err != nil {
		return err
	}
	return c.fragment(f)
}

// fragment decompresses a piece of a header block.
func (c *Conn) fragment(f *frame) error {
	b := &c.block
	// Compressed, a head is seldom larger than in full. What is, is decompressed no further than this.
	if b.size += len(f.payload); int64(b.size) > 2*b.head.maxSize+maxFrame {
		return c.cost(c.cfg.Control + 1)
	}
	if len(f.payload) == 0 && !f.has(flagEndHeaders) {
		if err := c.cost(1); err != nil {
			return err
		}
	}
	c.decoder.SetEmitEnabled(!b.head.large)
	if _, err := c.decoder.Write(f.payload); err != nil {
		return &connError{CompressionError, "a header block can not be decompressed"}
	}
	if !f.has(flagEndHeaders) {
		return nil
	}
	b.open = false
	if err := c.decoder.Close(); err != nil {
		return &connError{CompressionError, "a header block is not whole"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.headDone(b.stream, b.flags&flagEndStream != 0)
}

// headDone acts on a whole header block: a request, or a trailer section.
func (c *Conn) headDone(id uint32, end bool) error {
	h := &c.block.head
	if s := c.streams[id]; s != nil {
		return c.trailer(s, end)
	}
	switch {
	case id%2 == 0:
		return broken("a client's stream has an even number")
	case id <= c.seen:
		switch state := c.stateOf(id); {
		case state == wasOurs:
			return nil
		case c.known(id):
			return &connError{StreamClosed, "HEADERS on a closed stream"}
		}
		return broken("a stream's number is lower than one before")
	}
	c.seen = id
	if c.drain == draining || c.ending {
		c.remember(id, true)
		return nil // GOAWAY said that it would not be answered
	}
	c.last = id
	why := h.check()
	if h.large {
		why = h.fault
	}
	switch {
	case c.block.selfie || why != "", end && h.length > 0:
		return c.refuse(id, ProtocolError)
	case len(c.streams) >= int(c.cfg.Streams):
		return c.refuse(id, RefusedStream)
	}
	s := newStream(c, id, h)
	if end {
		s.Length = 0
		s.remoteEnded = true
	}
	c.streams[id] = s
	c.start(s)
	return nil
}

// start has a handler answer s, at once unless as many are running as there may be streams.
func (c *Conn) start(s *Stream) {
	if c.running < int(c.cfg.Streams) {
		c.running++
		c.work.Go(s.run)
		return
	}
	c.waiting = append(c.waiting, s)
}

// finished says that a handler is over.
func (c *Conn) finished() {
	c.running--
	if len(c.waiting) > 0 {
		s := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.start(s)
		return
	}
	c.leave()
}

func (c *Conn) trailer(s *Stream, end bool) error {
	h := &c.block.head
	switch {
	case s.remoteEnded:
		return c.fault(s, StreamClosed)
	case !end || c.block.selfie || h.checkTrailer() != "" || s.Length >= 0 && s.received != s.Length:
		return c.fault(s, ProtocolError)
	}
	s.trailer = h.fields
	s.endRemote()
	s.wake.Broadcast()
	return nil
}

func (c *Conn) priority(f *frame) error {
	switch {
	case f.id == 0:
		return broken("PRIORITY without a stream")
	case len(f.payload) != 5:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.streamFault(f.id, FrameSizeError)
	case binary.BigEndian.Uint32(f.payload)&maxID == f.id:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.streamFault(f.id, ProtocolError)
	}
	return c.cost(1)
}

func (c *Conn) reset(f *frame) error {
	switch {
	case f.id == 0:
		return broken("RST_STREAM without a stream")
	case len(f.payload) != 4:
		return &connError{FrameSizeError, "RST_STREAM is not four octets"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[f.id]
	if s == nil && c.stateOf(f.id) == idle {
		return broken("RST_STREAM on an idle stream")
	}
	if s != nil {
		c.remove(s, false)
		s.abort(errGone)
	}
	return c.costLocked(1)
}

func (c *Conn) settings(f *frame) error {
	switch {
	case f.id != 0:
		return broken("SETTINGS on a stream")
	case f.has(flagAck) && len(f.payload) > 0, len(f.payload)%6 != 0:
		return &connError{FrameSizeError, "SETTINGS has a wrong size"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.costLocked(1 + len(f.payload)/6/16); err != nil || f.has(flagAck) {
		return err
	}
	c.settled = true
	for p := f.payload; len(p) > 0; p = p[6:] {
		if err := c.setting(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	c.out = appendFrame(c.buffer(), 0, frameSettings, flagAck, 0)
	c.flushSoon()
	return nil
}

func (c *Conn) setting(id uint16, v uint32) error {
	switch id {
	case settingTable:
		c.encoder.SetMaxDynamicTableSizeLimit(min(v, tableSize))
		c.encoder.SetMaxDynamicTableSize(min(v, tableSize))
	case settingPush, settingConnect, settingNoPriorities:
		if v > 1 {
			return broken("a setting is neither 0 nor 1")
		}
	case settingWindow:
		if v > maxWindow {
			return &connError{FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE is too large"}
		}
		change := int64(v) - c.initial
		c.initial = int64(v)
		for _, s := range c.streams {
			if s.window += change; s.window > maxWindow {
				return &connError{FlowControlError, "SETTINGS makes a window too large"}
			}
			s.wake.Broadcast()
		}
	case settingFrame:
		if v < maxFrame || v > 1<<24-1 {
			return broken("SETTINGS_MAX_FRAME_SIZE is out of its range")
		}
	}
	return nil
}

func (c *Conn) ping(f *frame) error {
	switch {
	case f.id != 0:
		return broken("PING on a stream")
	case len(f.payload) != 8:
		return &connError{FrameSizeError, "PING is not eight octets"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.within(c.calm.acknowledged()); err != nil {
		return err
	}
	switch {
	case !f.has(flagAck):
		c.out = append(appendFrame(c.buffer(), 8, framePing, flagAck, 0), f.payload...)
		c.flushSoon()
	case c.drain == asking && [8]byte(f.payload) == drainPing:
		c.depart() // what the client sent before it knew has come
	}
	return nil
}

func (c *Conn) windowUpdate(f *frame) error {
	if len(f.payload) != 4 {
		return &connError{FrameSizeError, "WINDOW_UPDATE is not four octets"}
	}
	n := int64(binary.BigEndian.Uint32(f.payload) & maxID)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.within(c.calm.acknowledged()); err != nil {
		return err
	}
	if f.id == 0 {
		if n == 0 {
			return broken("WINDOW_UPDATE of 0")
		}
		if c.window += n; c.window > maxWindow {
			return &connError{FlowControlError, "WINDOW_UPDATE makes the window too large"}
		}
		for _, s := range c.streams {
			if s.blocked {
				s.wake.Broadcast()
			}
		}
		return nil
	}
	s := c.streams[f.id]
	switch {
	case s == nil && c.stateOf(f.id) == idle:
		return broken("WINDOW_UPDATE on an idle stream")
	case n == 0:
		return c.streamFault(f.id, ProtocolError)
	case s == nil:
		return nil
	}
	if s.window += n; s.window > maxWindow {
		return c.fault(s, FlowControlError)
	}
	s.wake.Broadcast()
	return nil
}

// fault ends a stream for something its client did.
func (c *Conn) fault(s *Stream, code Code) error {
	s.abort(errFault)
	c.remove(s, true)
	return c.refuse(s.id, code)
}

// streamFault is fault for a stream that may be closed or idle.
func (c *Conn) streamFault(id uint32, code Code) error {
	if s := c.streams[id]; s != nil {
		return c.fault(s, code)
	}
	if c.stateOf(id) == idle {
		return &connError{code, "a frame on an idle stream is malformed"}
	}
	return c.refuse(id, code)
}

// refuse resets a stream that is not open, or no more. Resets that a client provokes count as its own (CVE-2025-8671).
func (c *Conn) refuse(id uint32, code Code) error {
	c.remember(id, true)
	c.out = appendReset(c.buffer(), id, code)
	c.flushSoon()
	return c.costLocked(1)
}

// remove takes a stream out of the open ones.
func (c *Conn) remove(s *Stream, reset bool) {
	if c.streams[s.id] != s {
		return
	}
	delete(c.streams, s.id)
	c.remember(s.id, reset)
	if i := slices.Index(c.waiting, s); i >= 0 {
		c.waiting = slices.Delete(c.waiting, i, i+1)
		s.drop()
		s.cancel()
	}
	if len(c.streams) == 0 {
		c.idleSince = time.Now()
		c.leave()
	}
}

func (c *Conn) remember(id uint32, reset bool) {
	for i := range c.closed {
		if c.closed[i].id == id {
			c.closed[i].reset = reset
			return
		}
	}
	c.closed[c.closedAt%len(c.closed)] = closedStream{id, reset}
	c.closedAt++
}

// giveBack lets the client send n octets more of bodies. It says so when there is enough to say.
func (c *Conn) giveBack(n int) {
	c.unread -= n
	if c.owed += n; c.owed >= connWindow/4 {
		c.out = appendWindow(c.buffer(), 0, c.owed)
		c.owed = 0
		c.flushSoon()
	}
}

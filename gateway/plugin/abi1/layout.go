package abi1

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"

	"github.com/postern-gateway/postern/gateway/attribute"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/expr"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/sdk/abi"
)

// Layout is what one stage gets to see and in which slots: the projection its manifest's hook declares.
type Layout struct {
	stage      uint32
	phase      exchange.Phase
	seed       maphash.Seed
	headers    []string
	attributes []*attribute.Attribute
	arguments  int
	config     []byte // the stage's configuration, a Value
	empty      []byte // an event's header and slot table with nothing in it
}

// NewLayout lays out the frames of a stage; number is the one it is configured with.
func (a *ABI) NewLayout(s *config.Stage, number int) (*Layout, error) {
	l := &Layout{stage: uint32(number), phase: s.Phase, seed: a.seed, headers: s.Hook.Sees.Headers, arguments: len(s.Arguments)}
	for _, name := range s.Hook.Sees.Attributes {
		known, ok := attribute.Lookup(name)
		if !ok {
			return nil, fmt.Errorf("the manifest's hook %q sees an attribute %q, which there is not", s.Phase, name)
		}
		l.attributes = append(l.attributes, known)
	}
	var err error
	if l.config, err = expr.AppendValue(nil, s.Config); err != nil {
		return nil, fmt.Errorf("%s: configuration: %w", s.Range, err)
	}
	if len(l.config) > abi.MaxFrame-1024 {
		return nil, fmt.Errorf("%s: a configuration of %d octets does not fit a frame", s.Range, len(l.config))
	}
	l.empty = l.head(abi.SlotFirst + len(l.headers) + len(l.attributes) + l.arguments)
	return l, nil
}

// head is what is the same in the header of every frame of the stage with so many slots, and an empty slot table.
func (l *Layout) head(slots int) []byte {
	b := make([]byte, abi.FrameHeader+abi.SlotSize*slots)
	b[6] = byte(l.phase)
	binary.LittleEndian.PutUint32(b[8:], l.stage)
	binary.LittleEndian.PutUint32(b[12:], uint32(slots))
	return b
}

// finish fills in what of a frame's header is known last. now is in nanoseconds since 1970.
func finish(frame []byte, kind abi.Event, flags byte, now int64, number uint64) []byte {
	head := frame[:abi.FrameHeader]
	binary.LittleEndian.PutUint64(head, uint64(uint32(len(frame)))|uint64(uint16(kind))<<32|uint64(head[6])<<48|uint64(flags)<<56)
	binary.LittleEndian.PutUint64(head[16:], uint64(now))
	binary.LittleEndian.PutUint64(head[24:], number)
	return frame
}

// set writes the table's entry for what stands in frame from start on.
func set(frame []byte, slot, start int) {
	entry := frame[abi.FrameHeader+abi.SlotSize*slot:]
	binary.LittleEndian.PutUint64(entry, uint64(uint32(start))|uint64(len(frame)-start)<<32)
}

// AppendConfigure encodes the event that configures the stage. now is in nanoseconds since 1970.
func (l *Layout) AppendConfigure(b []byte, now int64) []byte {
	b = append(b, l.head(abi.SlotFirst)...)
	start := len(b)
	b = append(b, l.config...)
	set(b, abi.SlotBody, start)
	return finish(b, abi.EventConfigure, abi.FlagEnd, now, 0)
}

// AppendFrame encodes an event, beginning at the start of b, which is empty. The stage sees nothing but what its hook
// declares. An error is a *plugin.Fault: an argument's expression failed.
func (l *Layout) AppendFrame(b []byte, ev *plugin.Event, now int64) ([]byte, error) {
	x := ev.Exchange
	b = append(b, l.empty...)
	if ev.Carry != nil {
		start := len(b)
		b = append(b, ev.Carry...)
		set(b, abi.SlotCarry, start)
	}
	fields := x.Request.Header
	if l.phase >= exchange.ResponsePhase {
		fields = x.Response.Header
	}
	slot := abi.SlotFirst
	for _, name := range l.headers {
		start := len(b)
		if name == "*" {
			for i := range fields {
				b = appendRun(appendRun(b, fields[i].Name), fields[i].Value)
			}
		} else {
			for i := range fields {
				if f := &fields[i]; f.Name == name {
					b = appendRun(b, f.Value)
				}
			}
		}
		if len(b) > start {
			set(b, slot, start)
		}
		slot++
	}
	for _, a := range l.attributes {
		start := len(b)
		b = a.Append(b, x)
		b = value(b, slot, start)
		slot++
	}
	for i := range l.arguments {
		if i < len(ev.Arguments) && ev.Arguments[i] != nil {
			start := len(b)
			var err error
			if b, err = ev.Arguments[i].Append(b, x); err != nil {
				return nil, &plugin.Fault{Kind: plugin.Expression, Detail: err.Error(), Err: err}
			}
			b = value(b, slot, start)
		}
		slot++
	}
	// The body comes last: it is the longest, and what does not fit is then copied once.
	if ev.HasBody {
		start := len(b)
		b = append(b, ev.Body...)
		set(b, abi.SlotBody, start)
	}
	number := ev.Number
	if number == 0 {
		number = maphash.String(l.seed, x.ID)
	}
	return finish(b, ev.Kind, flags(ev), now, number), nil
}

// value enters one Value into the table, or takes it out again: null and absent are the same to a guest.
func value(b []byte, slot, start int) []byte {
	if len(b)-start <= 1 {
		return b[:start]
	}
	set(b, slot, start)
	return b
}

func appendRun(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}

func flags(ev *plugin.Event) byte {
	var f byte
	if ev.End {
		f |= abi.FlagEnd
	}
	if ev.Stream {
		f |= abi.FlagStream
	}
	if ev.Truncated {
		f |= abi.FlagTruncated
	}
	if ev.Gone {
		f |= abi.FlagGone
	}
	return f
}

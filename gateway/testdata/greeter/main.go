// Command greeter is a plugin written from sdk/ABI.md alone, without the SDK.
package main

import (
	"encoding/binary"
	"math"
	"strconv"
	"unsafe"
)

//go:wasmimport postern op
func op(code, in, inLength, out, outCapacity uint32) int64

//go:wasmimport postern log
func log(level, address, length uint32)

// Events, actions, operations and host operations, by their numbers in the text.
const (
	configure    = 0
	request      = 1
	response     = 3
	responseBody = 4

	continues = 0
	responds  = 1
	fails     = 5

	headerSet   = 1
	attribute   = 4
	bodyReplace = 5
	respond     = 8
	carry       = 10
	meter       = 12

	count = 7

	end = 1 // the flag
)

var (
	buffer    = make([]byte, 65_536) // the frame
	answer    []byte                 // the operations, which the host reads after a call
	greetings []string               // by stage
)

func address(b []byte) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

//go:wasmexport postern_abi_v1
func abi() uint64 { return uint64(address(buffer))<<32 | uint64(len(buffer)) }

//go:wasmexport postern_grow
func grow(capacity uint32) uint64 {
	buffer = make([]byte, capacity)
	return abi()
}

//go:wasmexport postern_configure
func configured(length uint32) uint64 {
	f := frame(buffer[:length])
	body, ok := f.slot(1)
	if !ok || f.event() != configure || int(f.stage()) != len(greetings) {
		return result(fails, operation(respond, "bad_frame", "\x00\x00This is no frame for stage "+strconv.Itoa(len(greetings))+"."))
	}
	v := value{body}
	greetings = append(greetings, v.member("greeting"))
	return result(continues)
}

//go:wasmexport postern_on
func on(event, length uint32) uint64 {
	f := frame(buffer[:length])
	if f.event() != event {
		return result(fails)
	}
	switch event {
	case request:
		return greet(f)
	case response:
		name, _ := f.slot(0)
		status, _ := f.slot(3)
		v := value{status}
		return result(continues, operation(headerSet, "x-greeted", string(name)), operation(headerSet, "x-status", strconv.FormatInt(v.int(), 10)))
	case responseBody:
		body, ok := f.slot(1)
		if !ok {
			return result(continues)
		}
		loud := make([]byte, 0, len(body)+1)
		for _, c := range body {
			if 'a' <= c && c <= 'z' {
				c -= 'a' - 'A'
			}
			loud = append(loud, c)
		}
		if f.flags()&end != 0 {
			loud = append(loud, '!')
		}
		return result(continues, operation(bodyReplace, "", string(loud)))
	default:
		return result(continues)
	}
}

func greet(f frame) uint64 {
	name := ""
	if run, ok := f.slot(2); ok { // the first value of x-name
		name = string(run[4 : 4+binary.LittleEndian.Uint32(run)])
	} else if to, ok := f.slot(4); ok {
		v := value{to}
		name = v.string()
	}
	if name == "" {
		return result(responds, operation(respond, "no_name", "\x90\x01Say who you are in the header x-name.")) // 400
	}
	line := []byte("greeting somebody")
	log(1, address(line), uint32(len(line)))

	// COUNT: delta, ttl, key.
	in := binary.LittleEndian.AppendUint64(nil, 1)
	in = binary.LittleEndian.AppendUint64(in, 0)
	in = append(in, name...)
	out := make([]byte, 8)
	if n := op(count, address(in), uint32(len(in)), address(out), uint32(len(out))); n != 8 {
		return result(fails, operation(respond, "no_count", "\x00\x00COUNT gave "+strconv.FormatInt(n, 10)+"."))
	}
	times := strconv.FormatUint(binary.LittleEndian.Uint64(out), 10)
	var method string
	if m, ok := f.slot(3); ok {
		v := value{m}
		method = v.string()
	}
	one := binary.LittleEndian.AppendUint64(nil, 1)
	text := binary.LittleEndian.AppendUint32([]byte{4}, uint32(len(name)))
	return result(continues,
		operation(headerSet, "x-greeting", greetings[f.stage()]+", "+name),
		operation(headerSet, "x-times", times+" "+method),
		operation(attribute, "self.name", string(text)+name),
		operation(carry, "", name),
		operation(meter, "greetings", string(one)))
}

// frame is what an event is: a header of 32 octets, the table of slots, and what they point at.
type frame []byte

func (f frame) event() uint32 { return uint32(binary.LittleEndian.Uint16(f[4:])) }
func (f frame) flags() byte   { return f[7] }
func (f frame) stage() uint32 { return binary.LittleEndian.Uint32(f[8:]) }

func (f frame) slot(i uint32) (octets []byte, ok bool) {
	if i >= binary.LittleEndian.Uint32(f[12:]) {
		return nil, false
	}
	offset, length := binary.LittleEndian.Uint32(f[32+8*i:]), binary.LittleEndian.Uint32(f[36+8*i:])
	return f[offset : offset+length], offset != 0
}

// value reads one encoded value, and moves on behind it.
type value struct{ rest []byte }

func (v *value) take(n uint32) []byte {
	b := v.rest[:n]
	v.rest = v.rest[n:]
	return b
}

func (v *value) length() uint32 { return binary.LittleEndian.Uint32(v.take(4)) }

func (v *value) string() string {
	if v.take(1)[0] != 4 {
		return ""
	}
	return string(v.take(v.length()))
}

func (v *value) int() int64 {
	if v.take(1)[0] != 2 {
		return math.MinInt64
	}
	return int64(binary.LittleEndian.Uint64(v.take(8)))
}

// member is a text of an object of texts.
func (v *value) member(name string) string {
	if v.take(1)[0] != 6 {
		return ""
	}
	for range v.length() {
		key := string(v.take(v.length()))
		if text := v.string(); key == name {
			return text
		}
	}
	return ""
}

func operation(code byte, key, value string) string {
	head := binary.LittleEndian.AppendUint16([]byte{code, 0}, uint16(len(key)))
	head = binary.LittleEndian.AppendUint32(head, uint32(len(value)))
	return string(head) + key + value
}

func result(action uint64, operations ...string) uint64 {
	answer = answer[:0]
	for _, o := range operations {
		answer = append(answer, o...)
	}
	at := uint64(0)
	if len(answer) > 0 {
		at = uint64(address(answer))
	}
	return action<<56 | uint64(len(answer))<<32 | at
}

func main() {}

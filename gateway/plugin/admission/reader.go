package admission

import (
	"fmt"
	"unicode/utf8"
)

// reader walks over wasm[at:end]. Its first error stays, and from then on it is at its end and reads zeros, so that callers
// need to look at err only before they act on what they read.
type reader struct {
	wasm    []byte
	at, end int
	section string
	err     *Refusal
}

func (r *reader) fail(at int, format string, args ...any) {
	if r.err == nil {
		r.err = &Refusal{Section: r.section, Offset: at, Reason: fmt.Sprintf(format, args...)}
	}
	r.at = r.end
}

func (r *reader) more() bool { return r.at < r.end }

func (r *reader) octet() byte {
	if r.at >= r.end {
		r.fail(r.at, "ends in the middle of a value")
		return 0
	}
	r.at++
	return r.wasm[r.at-1]
}

// take is the next n octets, a part of the module.
func (r *reader) take(n int) []byte {
	if n > r.end-r.at {
		r.fail(r.at, "%d octets do not fit into the %d that are left", n, r.end-r.at)
		return nil
	}
	r.at += n
	return r.wasm[r.at-n : r.at]
}

// u32 reads an unsigned LEB128 number: at most 5 octets, unused bits zero (core specification, section 5.2.2).
func (r *reader) u32() uint32 {
	// Nearly every number has one octet.
	if r.at < r.end && r.wasm[r.at] < 0x80 {
		r.at++
		return uint32(r.wasm[r.at-1])
	}
	start, v := r.at, uint32(0)
	for shift := 0; shift < 35; shift += 7 {
		b := r.octet()
		if shift == 28 && b > 0x0f {
			r.fail(start, "number is longer than 32 bits")
			return 0
		}
		v |= uint32(b&0x7f) << shift
		if b < 0x80 {
			break
		}
	}
	return v
}

// signed reads a signed LEB128 number of that many bits, in as few octets as they need at most, with unused bits equal to
// the sign (core specification, section 5.2.2).
func (r *reader) signed(bits int) int64 {
	start, v := r.at, int64(0)
	for shift := 0; ; shift += 7 {
		b := r.octet()
		if left := bits - shift; left < 7 {
			// The last octet there may be: all bits from the sign on are the same.
			if top := int8(b<<1) >> left; b >= 0x80 || top != 0 && top != -1 {
				r.fail(start, "number is longer than %d bits", bits)
				return 0
			}
		}
		v |= int64(b&0x7f) << shift
		if b < 0x80 {
			if shift+7 < 64 && b&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
}

// count reads how many items follow, each of at least size octets, and holds it to most.
func (r *reader) count(what string, size, most int) int {
	start := r.at
	n := int(r.u32())
	switch {
	case n > most:
		r.fail(start, "%d %s, more than %d", n, what, most)
	case n > (r.end-r.at)/size:
		r.fail(start, "%d %s do not fit into the %d octets that are left", n, what, r.end-r.at)
	default:
		return n
	}
	return 0
}

// index reads a number below n.
func (r *reader) index(what string, n int) uint32 {
	start := r.at
	v := r.u32()
	if int64(v) >= int64(n) && r.err == nil {
		r.fail(start, "%s %d of %d does not exist", what, v, n)
		return 0
	}
	return v
}

// name reads a text: UTF-8, as the specification wants it.
func (r *reader) name(most int) string {
	start := r.at
	n := int(r.u32())
	if n > most {
		r.fail(start, "name of %d octets, more than %d", n, most)
		return ""
	}
	text := r.take(n)
	if !utf8.Valid(text) {
		r.fail(start, "name is not UTF-8")
		return ""
	}
	return string(text)
}

// writer collects octets. A nil one takes nothing, so that the code which rewrites a section also only checks it.
type writer struct{ b []byte }

func (w *writer) octet(b ...byte) {
	if w != nil {
		w.b = append(w.b, b...)
	}
}

func (w *writer) u32(v uint32) { w.u64(uint64(v)) }

func (w *writer) u64(v uint64) {
	if w == nil {
		return
	}
	for ; v >= 0x80; v >>= 7 {
		w.b = append(w.b, byte(v)|0x80)
	}
	w.b = append(w.b, byte(v))
}

func (w *writer) signed(v int64) {
	if w == nil {
		return
	}
	for v < -0x40 || v >= 0x40 {
		w.b = append(w.b, byte(v)|0x80)
		v >>= 7
	}
	w.b = append(w.b, byte(v)&0x7f)
}

func (w *writer) name(s string) {
	w.u32(uint32(len(s)))
	w.octet([]byte(s)...)
}

// section appends a section with that content.
func (w *writer) section(id byte, content []byte) {
	w.octet(id)
	w.u32(uint32(len(content)))
	w.octet(content...)
}

// custom appends a custom section.
func (w *writer) custom(name string, content []byte) {
	var head writer
	head.name(name)
	w.octet(0)
	w.u32(uint32(len(head.b) + len(content)))
	w.octet(head.b...)
	w.octet(content...)
}

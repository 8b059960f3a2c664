package body

import (
	"fmt"
	"unicode/utf8"
)

// Refusal says why a module may not run.
type Refusal struct {
	Section string // the section it is about, "module" for the whole
	Offset  int    // in octets from the module's beginning
	Reason  string
}

// Error names section, offset and reason.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s at octet %d: %s", r.Section, r.Offset, r.Reason)
}

// Reader walks over Wasm[At:End]. Its first error stays, and from then on it is at its end and reads zeros, so that callers
// need to look at Err only before they act on what they read.
type Reader struct {
	Wasm    []byte
	At, End int
	Section string // for errors
	Err     *Refusal
}

// Fail ends the reading with an error about the octet at.
func (r *Reader) Fail(at int, format string, args ...any) {
	if r.Err == nil {
		r.Err = &Refusal{Section: r.Section, Offset: at, Reason: fmt.Sprintf(format, args...)}
	}
	r.At = r.End
}

// More tells whether there is something left.
func (r *Reader) More() bool { return r.At < r.End }

// Octet reads one.
func (r *Reader) Octet() byte {
	if r.At >= r.End {
		r.Fail(r.At, "ends in the middle of a value")
		return 0
	}
	r.At++
	return r.Wasm[r.At-1]
}

// Take is the next n octets, a part of the module.
func (r *Reader) Take(n int) []byte {
	if n > r.End-r.At {
		r.Fail(r.At, "%d octets do not fit into the %d that are left", n, r.End-r.At)
		return nil
	}
	r.At += n
	return r.Wasm[r.At-n : r.At]
}

// U32 reads an unsigned LEB128 number: at most 5 octets, unused bits zero (core specification, section 5.2.2).
func (r *Reader) U32() uint32 {
	// Nearly every number has one octet.
	if r.At < r.End && r.Wasm[r.At] < 0x80 {
		r.At++
		return uint32(r.Wasm[r.At-1])
	}
	start, v := r.At, uint32(0)
	for shift := 0; shift < 35; shift += 7 {
		b := r.Octet()
		if shift == 28 && b > 0x0f {
			r.Fail(start, "number is longer than 32 bits")
			return 0
		}
		v |= uint32(b&0x7f) << shift
		if b < 0x80 {
			break
		}
	}
	return v
}

// Signed reads a signed LEB128 number of that many bits, in as few octets as they need at most, with unused bits equal to
// the sign (core specification, section 5.2.2).
func (r *Reader) Signed(bits int) int64 {
	start, v := r.At, int64(0)
	for shift := 0; ; shift += 7 {
		b := r.Octet()
		if left := bits - shift; left < 7 {
			// The last octet there may be: all bits from the sign on are the same.
			if top := int8(b<<1) >> left; b >= 0x80 || top != 0 && top != -1 {
				r.Fail(start, "number is longer than %d bits", bits)
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

// Count reads how many items follow, each of at least size octets, and holds it to most.
func (r *Reader) Count(what string, size, most int) int {
	start := r.At
	n := int(r.U32())
	switch {
	case n > most:
		r.Fail(start, "%d %s, more than %d", n, what, most)
	case n > (r.End-r.At)/size:
		r.Fail(start, "%d %s do not fit into the %d octets that are left", n, what, r.End-r.At)
	default:
		return n
	}
	return 0
}

// Index reads a number below n.
func (r *Reader) Index(what string, n int) uint32 {
	start := r.At
	v := r.U32()
	if int64(v) >= int64(n) && r.Err == nil {
		r.Fail(start, "%s %d of %d does not exist", what, v, n)
		return 0
	}
	return v
}

// Name reads a text: UTF-8, as the specification wants it.
func (r *Reader) Name(most int) string {
	start := r.At
	n := int(r.U32())
	if n > most {
		r.Fail(start, "name of %d octets, more than %d", n, most)
		return ""
	}
	text := r.Take(n)
	if !utf8.Valid(text) {
		r.Fail(start, "name is not UTF-8")
		return ""
	}
	return string(text)
}

// Writer collects octets. A nil one takes nothing, so that the code which rewrites a section also only checks it.
type Writer struct{ B []byte }

// Octet appends octets.
func (w *Writer) Octet(b ...byte) {
	if w != nil {
		w.B = append(w.B, b...)
	}
}

// U32 appends a number in its shortest form.
func (w *Writer) U32(v uint32) { w.U64(uint64(v)) }

// U64 appends a number in its shortest form.
func (w *Writer) U64(v uint64) {
	if w == nil {
		return
	}
	for ; v >= 0x80; v >>= 7 {
		w.B = append(w.B, byte(v)|0x80)
	}
	w.B = append(w.B, byte(v))
}

// Signed appends a number with a sign in its shortest form.
func (w *Writer) Signed(v int64) {
	if w == nil {
		return
	}
	for v < -0x40 || v >= 0x40 {
		w.B = append(w.B, byte(v)|0x80)
		v >>= 7
	}
	w.B = append(w.B, byte(v)&0x7f)
}

// Name appends a text and its length.
func (w *Writer) Name(s string) {
	w.U32(uint32(len(s)))
	w.Octet([]byte(s)...)
}

// Section appends a section with that content.
func (w *Writer) Section(id byte, content []byte) {
	w.Octet(id)
	w.U32(uint32(len(content)))
	w.Octet(content...)
}

// Custom appends a custom section.
func (w *Writer) Custom(name string, content []byte) {
	var head Writer
	head.Name(name)
	w.Octet(0)
	w.U32(uint32(len(head.B) + len(content)))
	w.Octet(head.B...)
	w.Octet(content...)
}

// Zero appends the constant expression of what a number or vector begins as.
func (w *Writer) Zero(kind byte) {
	switch kind {
	case I32:
		w.I32(0)
		return
	case I64:
		w.Octet(opI64Const, 0)
	case typeF32:
		w.Octet(opF32Const, 0, 0, 0, 0)
	case typeF64:
		w.Octet(opF64Const, 0, 0, 0, 0, 0, 0, 0, 0)
	default:
		w.Octet(opVector, vectorConst)
		w.Octet(make([]byte, 16)...)
	}
	w.Octet(opEnd)
}

// I32 appends a constant expression.
func (w *Writer) I32(v int32) {
	w.Octet(opI32Const)
	w.Signed(int64(v))
	w.Octet(opEnd)
}

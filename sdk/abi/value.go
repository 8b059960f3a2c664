package abi

import (
	"encoding/binary"
	"math"
)

// Kind is the first octet of a Value.
type Kind uint8

// A Value is a kind, then: nothing (null), u8 (bool), i64 (int), f64 (float), u32 length and bytes (string),
// u32 count and values (list), u32 count and pairs of u32 length, key bytes, value (object).
const (
	KindNull Kind = iota
	KindBool
	KindInt
	KindFloat
	KindString
	KindList
	KindObject
)

// Types of the manifest map to kinds so: string, url, cidr, regex -> string; bool -> bool; number -> int when it is whole and
// fits, else float; duration -> int nanoseconds; bytes -> int octets; money -> string decimal; list -> list; map and object -> object.

// AppendNull, AppendBool and their like append one Value; list and object are followed by their members.
func AppendNull(b []byte) []byte { return append(b, byte(KindNull)) }

// AppendBool appends a bool.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, byte(KindBool), 1)
	}
	return append(b, byte(KindBool), 0)
}

// AppendInt appends an int.
func AppendInt(b []byte, v int64) []byte {
	return binary.LittleEndian.AppendUint64(append(b, byte(KindInt)), uint64(v))
}

// AppendFloat appends a float.
func AppendFloat(b []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(append(b, byte(KindFloat)), math.Float64bits(v))
}

// AppendString appends a string.
func AppendString(b []byte, v string) []byte {
	return append(binary.LittleEndian.AppendUint32(append(b, byte(KindString)), uint32(len(v))), v...)
}

// AppendList appends a list's head; count values follow.
func AppendList(b []byte, count int) []byte {
	return binary.LittleEndian.AppendUint32(append(b, byte(KindList)), uint32(count))
}

// AppendObject appends an object's head; count times AppendKey and a value follow.
func AppendObject(b []byte, count int) []byte {
	return binary.LittleEndian.AppendUint32(append(b, byte(KindObject)), uint32(count))
}

// AppendKey appends a member's key.
func AppendKey(b []byte, key string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(key))), key...)
}

// Value is a view of one encoded value. The zero Value, and whatever is malformed or missing, reads as null.
type Value struct{ raw []byte }

// maxDepth bounds nesting, so that hostile bytes can not exhaust the stack.
const maxDepth = 32

// ReadValue returns the value at the start of b and what follows it; ok is false when b is malformed.
func ReadValue(b []byte) (v Value, rest []byte, ok bool) {
	n, ok := size(b, 0)
	if !ok {
		return Value{}, nil, false
	}
	return Value{raw: b[:n:n]}, b[n:], true
}

func size(b []byte, depth int) (n int, ok bool) {
	if len(b) == 0 || depth > maxDepth {
		return 0, false
	}
	switch Kind(b[0]) {
	case KindNull:
		return 1, true
	case KindBool:
		return 2, len(b) >= 2
	case KindInt, KindFloat:
		return 9, len(b) >= 9
	}
	if len(b) < 5 {
		return 0, false
	}
	count := int64(binary.LittleEndian.Uint32(b[1:]))
	n = 5
	switch Kind(b[0]) {
	case KindString:
		return int(5 + count), int64(len(b)) >= 5+count
	case KindList, KindObject:
		for range count {
			if Kind(b[0]) == KindObject {
				if len(b)-n < 4 {
					return 0, false
				}
				k := int64(binary.LittleEndian.Uint32(b[n:]))
				if int64(len(b)-n-4) < k {
					return 0, false
				}
				n += 4 + int(k)
			}
			m, ok := size(b[n:], depth+1)
			if !ok {
				return 0, false
			}
			n += m
		}
		return n, true
	}
	return 0, false
}

// Raw is the encoded value in place; nil for the zero Value.
func (v Value) Raw() []byte { return v.raw }

// Kind tells what the value is.
func (v Value) Kind() Kind {
	if len(v.raw) == 0 {
		return KindNull
	}
	return Kind(v.raw[0])
}

// Bool is the value of a bool, else false.
func (v Value) Bool() bool { return v.Kind() == KindBool && v.raw[1] != 0 }

// Int is the value of an int, or of a float cut to one, else 0.
func (v Value) Int() int64 {
	switch v.Kind() {
	case KindInt:
		return int64(binary.LittleEndian.Uint64(v.raw[1:]))
	case KindFloat:
		return int64(v.Float())
	}
	return 0
}

// Float is the value of a float or an int, else 0.
func (v Value) Float() float64 {
	switch v.Kind() {
	case KindInt:
		return float64(v.Int())
	case KindFloat:
		return math.Float64frombits(binary.LittleEndian.Uint64(v.raw[1:]))
	}
	return 0
}

// Bytes are the bytes of a string, in place, else nil.
func (v Value) Bytes() []byte {
	if v.Kind() != KindString {
		return nil
	}
	return v.raw[5:]
}

// Text is a copy of a string's bytes; it allocates.
func (v Value) Text() string { return string(v.Bytes()) }

// Len is the number of members of a list or object, else 0.
func (v Value) Len() int {
	if k := v.Kind(); k != KindList && k != KindObject {
		return 0
	}
	return int(binary.LittleEndian.Uint32(v.raw[1:]))
}

// Each yields the members of a list (with a nil key) or an object, in place.
func (v Value) Each(yield func(key []byte, member Value) bool) {
	n := v.Len()
	if n == 0 {
		return
	}
	b, object := v.raw[5:], v.Kind() == KindObject
	for range n {
		var key []byte
		if object {
			k := binary.LittleEndian.Uint32(b)
			key, b = b[4:4+k], b[4+k:]
		}
		m, _ := size(b, 0)
		if !yield(key, Value{raw: b[:m:m]}) {
			return
		}
		b = b[m:]
	}
}

// Member returns an object's member called key, or null.
func (v Value) Member(key string) (member Value) {
	if v.Kind() != KindObject {
		return Value{}
	}
	for k, m := range v.Each {
		if string(k) == key {
			return m
		}
	}
	return Value{}
}

// At returns a list's member i, or null.
func (v Value) At(i int) (member Value) {
	if v.Kind() != KindList || i < 0 || i >= v.Len() {
		return Value{}
	}
	for _, m := range v.Each {
		if i == 0 {
			return m
		}
		i--
	}
	return Value{}
}

// Package placeholder puts placeholders in the place of personal data, and the data back in the place of the placeholders:
// its main type is Vault, which maps the one to the other. A Redactor works on what goes out, a Restorer on what comes back.
package placeholder

import "github.com/postern-gateway/postern/plugins/redact/detect"

// Bounds of a Vault. A request with more personal data than that is refused: the mapping travels with the exchange.
const (
	maxValues     = 1000
	maxValueBytes = 40 << 10
	maxNumber     = 9999 // of a placeholder
	maxLabel      = len("[RESIDENT_ID_9999]")
)

// Vault maps placeholders to the values they stand for, within one exchange. A placeholder looks like [EMAIL_1]: it
// has no character that JSON, Markdown, HTML or a programming language's strings would write differently, models copy
// it faithfully, and the word tells the model what was there.
type Vault struct {
	entries []entry
	values  []byte
	taken   [detect.KindCount][(maxNumber + 64) / 64]uint64 // numbers that texts hold already
	last    [detect.KindCount]int
	index   [2 * 1024]uint16 // hash table over entries: index+1; 0 is free. Twice as large as it can need
}

type entry struct {
	kind       detect.Kind
	number     uint16 // 0: not numbered yet
	start, end int    // of the value in values
}

// Reset forgets everything.
func (v *Vault) Reset() {
	v.entries, v.values = v.entries[:0], v.values[:0]
	v.taken = [detect.KindCount][(maxNumber + 64) / 64]uint64{}
	v.last = [detect.KindCount]int{}
	v.index = [len(v.index)]uint16{}
}

// add returns the index of a value, which is new or known; ok is false when there is no room for more.
func (v *Vault) add(kind detect.Kind, value []byte) (index int, ok bool) {
	slot := hash(uint32(kind), value) % uint32(len(v.index))
	for ; v.index[slot] != 0; slot = (slot + 1) % uint32(len(v.index)) {
		i := int(v.index[slot]) - 1
		if e := v.entries[i]; e.kind == kind && string(v.values[e.start:e.end]) == string(value) {
			return i, true
		}
	}
	if len(v.entries) == maxValues || len(v.values)+len(value) > maxValueBytes {
		return 0, false
	}
	start := len(v.values)
	v.values = append(v.values, value...)
	v.entries = append(v.entries, entry{kind: kind, start: start, end: len(v.values)})
	v.index[slot] = uint16(len(v.entries))
	return len(v.entries) - 1, true
}

// hash is FNV-1a over 32 bits.
func hash(seed uint32, b []byte) uint32 {
	h := 2166136261 ^ seed
	for _, c := range b {
		h = (h ^ uint32(c)) * 16777619
	}
	return h
}

// avoid notes every placeholder in text, so that none of them is given to a value: whoever wrote it meant it as it is.
func (v *Vault) avoid(text []byte) {
	for i := 0; i < len(text); i++ {
		if text[i] != '[' {
			continue
		}
		if kind, number, end := readPlaceholder(text[i:]); end > 0 {
			v.taken[kind][number/64] |= 1 << (number % 64)
			i += end - 1
		}
	}
}

// number gives every entry that has none a number, in order; ok is false when the text holds nearly all of them.
func (v *Vault) number() (ok bool) {
	for i := range v.entries {
		e := &v.entries[i]
		if e.number != 0 {
			v.last[e.kind] = max(v.last[e.kind], int(e.number))
			continue
		}
		n := v.last[e.kind] + 1
		for n <= maxNumber && v.taken[e.kind][n/64]&(1<<(n%64)) != 0 {
			n++
		}
		if n > maxNumber {
			return false
		}
		e.number = uint16(n)
		v.last[e.kind] = n
	}
	return true
}

// appendPlaceholder appends the placeholder of an entry.
func (v *Vault) appendPlaceholder(dst []byte, index int) []byte {
	e := v.entries[index]
	return appendPlaceholder(dst, e.kind, int(e.number))
}

func appendPlaceholder(dst []byte, kind detect.Kind, number int) []byte {
	dst = append(append(append(dst, '['), kind.Label()...), '_')
	for unit := 1000; unit > 0; unit /= 10 {
		if number >= unit {
			dst = append(dst, byte('0'+number/unit%10))
		}
	}
	return append(dst, ']')
}

// find returns the index of the entry a placeholder stands for, or -1.
func (v *Vault) find(kind detect.Kind, number int) int {
	for i, e := range v.entries {
		if e.kind == kind && int(e.number) == number {
			return i
		}
	}
	return -1
}

func (v *Vault) value(index int) []byte {
	e := v.entries[index]
	return v.values[e.start:e.end]
}

// partial reports whether tail, which begins with [, may become the placeholder of an entry when more text follows.
func (v *Vault) partial(tail []byte) bool {
	if len(tail) >= maxLabel {
		return false
	}
	var buffer [24]byte
	for i := range v.entries {
		p := v.appendPlaceholder(buffer[:0], i)
		if len(tail) < len(p) && string(p[:len(tail)]) == string(tail) {
			return true
		}
	}
	return false
}

// readPlaceholder reads a placeholder at the beginning of b; end is 0 when there is none.
func readPlaceholder(b []byte) (kind detect.Kind, number, end int) {
	if len(b) < 2 || b[0] != '[' {
		return 0, 0, 0
	}
	for kind = detect.Email; kind < detect.KindCount; kind++ {
		label := kind.Label()
		if label[0] != b[1] || len(b) < len(label)+4 || string(b[1:1+len(label)]) != label || b[1+len(label)] != '_' {
			continue
		}
		for i := len(label) + 2; i < len(b) && i <= len(label)+6; i++ {
			switch {
			case isDigit(b[i]) && number*10+int(b[i]-'0') > 0 && number <= maxNumber/10:
				number = number*10 + int(b[i]-'0')
			case b[i] == ']' && number > 0:
				return kind, number, i + 1
			default:
				return 0, 0, 0
			}
		}
	}
	return 0, 0, 0
}

// The carried form: version, flags, number of entries u16, and for each kind u8, number u16, length u16, value; then
// the state of the response's restoration (see restore.go).
const carryVersion = 1

// Append appends the mapping's carried form.
func (v *Vault) Append(dst []byte, flags byte) []byte {
	dst = append(dst, carryVersion, flags, byte(len(v.entries)), byte(len(v.entries)>>8))
	for i, e := range v.entries {
		value := v.value(i)
		dst = append(dst, byte(e.kind), byte(e.number), byte(e.number>>8), byte(len(value)), byte(len(value)>>8))
		dst = append(dst, value...)
	}
	return dst
}

// Load reads what Append wrote and returns what follows; ok is false when it is not that.
func (v *Vault) Load(b []byte) (flags byte, rest []byte, ok bool) {
	v.Reset()
	if len(b) < 4 || b[0] != carryVersion {
		return 0, nil, false
	}
	flags, n := b[1], int(b[2])|int(b[3])<<8
	b = b[4:]
	for range n {
		if len(b) < 5 {
			return 0, nil, false
		}
		length := int(b[3]) | int(b[4])<<8
		if len(b) < 5+length || b[0] == 0 || b[0] >= byte(detect.KindCount) {
			return 0, nil, false
		}
		i, added := v.add(detect.Kind(b[0]), b[5:5+length])
		if !added {
			return 0, nil, false
		}
		v.entries[i].number = uint16(b[1]) | uint16(b[2])<<8
		b = b[5+length:]
	}
	return flags, b, true
}

package detect

import (
	"cmp"
	"slices"
	"unicode/utf8"
)

// shift says that offsets from folded on belong to those from original on.
type shift struct {
	folded   uint32
	original uint32 // twice the offset, and 1 more behind a character that is shorter folded, not behind one that was left out
}

func (s shift) char() bool { return s.original&1 != 0 }

// fold writes text as plain ASCII where characters only look different: digits and letters of full width, as input
// methods make them, digits of other scripts, the hyphens and blanks that must not break, and nothing for characters that
// take no room, such as a soft hyphen or a zero-width space. ok is false when there is nothing to fold. Full stops,
// commas and brackets of full width stay: they end numbers, which ASCII ones between digits do not.
func (d *Detector) fold(text []byte) (folded []byte, ok bool) {
	i := 0
	for i < len(text) && (text[i] < utf8.RuneSelf || !folds(text[i:])) {
		i++
	}
	if i == len(text) {
		return nil, false
	}
	d.folded, d.shifts = append(d.folded[:0], text[:i]...), d.shifts[:0]
	for i < len(text) {
		if text[i] < utf8.RuneSelf || !folds(text[i:]) {
			d.folded = append(d.folded, text[i])
			i++
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		i += n
		c := plain(r)
		if c > 0 {
			d.folded = append(d.folded, byte(c))
		}
		s := shift{uint32(len(d.folded)), uint32(i) << 1}
		if c > 0 {
			s.original |= 1
		}
		d.shifts = append(d.shifts, s)
	}
	return d.folded, true
}

// folds reports whether a character that fold changes begins at b.
func folds(b []byte) bool {
	switch b[0] {
	case 0xc2, 0xcd, 0xd9, 0xdb, 0xe2, 0xe3, 0xef, 0xf0: // the first octets of all those in plain
		r, _ := utf8.DecodeRune(b)
		return plain(r) >= 0
	}
	return false
}

// plain is the ASCII character that r reads as, 0 when it reads as nothing, -1 when it is what it is.
func plain(r rune) rune {
	switch {
	case r >= 0xff10 && r <= 0xff19, r >= 0xff21 && r <= 0xff3a, r >= 0xff41 && r <= 0xff5a, // of full width
		r == '＠', r == '＋', r == '－', r == '．', r == '＿':
		return r - 0xfee0
	case r >= 0x660 && r <= 0x669: // Arabic
		return r - 0x660 + '0'
	case r >= 0x6f0 && r <= 0x6f9: // Persian
		return r - 0x6f0 + '0'
	case r >= 0x1d7ce && r <= 0x1d7ff: // of mathematics
		return (r-0x1d7ce)%10 + '0'
	case r >= 0x2010 && r <= 0x2013, r == 0x2212, r == 0xfe63:
		return '-'
	case r == 0xfe6b:
		return '@'
	case r == 0x2024, r == 0xfe52:
		return '.'
	case r == 0xa0, r >= 0x2000 && r <= 0x200a, r == 0x202f, r == 0x205f, r == 0x3000:
		return ' '
	case r == 0xad, r == 0x34f, r >= 0x200b && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2060 && r <= 0x206f,
		r >= 0xfe00 && r <= 0xfe0f, r == 0xfeff:
		return 0
	}
	return -1
}

// unfold gives finds in the folded text the offsets they have in the text itself. They are in order.
func (d *Detector) unfold(finds []Find) {
	at := shift{}
	next := 0
	original := func(offset int, end bool) int {
		for next < len(d.shifts) && int(d.shifts[next].folded) < offset {
			at = d.shifts[next]
			next++
		}
		// What a value begins behind is not part of it; nor is what takes no room behind its end.
		for k := next; k < len(d.shifts) && int(d.shifts[k].folded) == offset && (!end || d.shifts[k].char()); k++ {
			at, next = d.shifts[k], k+1
		}
		return int(at.original>>1) + offset - int(at.folded)
	}
	for i := range finds {
		finds[i].Start = original(finds[i].Start, false)
		finds[i].End = original(finds[i].End, true)
	}
}

// merge puts finds[known:] in order and adds base to their offsets; of those that overlap the longest stays.
func merge(finds []Find, known, base int) []Find {
	list := finds[known:]
	slices.SortFunc(list, func(a, b Find) int { return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(b.End, a.End)) })
	kept := list[:0]
	for _, f := range list {
		n := len(kept)
		switch {
		case n == 0 || f.Start >= kept[n-1].End:
			kept = append(kept, f)
		case f.End-f.Start > kept[n-1].End-kept[n-1].Start:
			kept[n-1] = f
		}
	}
	for i := range kept {
		kept[i].Start, kept[i].End = kept[i].Start+base, kept[i].End+base
	}
	return finds[:known+len(kept)]
}

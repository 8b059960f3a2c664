package lines

import (
	"encoding/binary"
	"slices"
)

// Section is a custom section to be written.
type Section struct {
	Name    string
	Content []byte
}

// Sections are the DWARF of the rows that At placed: one compilation unit of version 4 without anything but lines, with the
// ranges they cover. Without a row there are none.
func (t *Table) Sections() []Section {
	if t == nil || t.next == 0 {
		return nil
	}
	rows := t.rows[:t.next]
	// Of the rows at one address the last one counts, also when it begins what another ends.
	kept := rows[:0]
	for i, r := range rows {
		if i+1 < len(rows) && rows[i+1].is == r.is {
			continue
		}
		kept = append(kept, r)
	}
	var ranges []byte
	open := false
	for _, r := range kept {
		switch {
		case !r.end && !open:
			ranges = binary.LittleEndian.AppendUint32(ranges, r.is)
			open = true
		case r.end && open:
			ranges = binary.LittleEndian.AppendUint32(ranges, r.is)
			open = false
		}
	}
	if open {
		ranges = binary.LittleEndian.AppendUint32(ranges, kept[len(kept)-1].is+1)
	}
	if len(ranges) == 0 { // no line has code
		return nil
	}
	ranges = append(ranges, make([]byte, 8)...)
	return []Section{
		{".debug_abbrev", abbreviations()},
		{".debug_info", information()},
		{".debug_ranges", ranges},
		{".debug_line", t.line(kept)},
	}
}

// abbreviations declares the one entry there is: a compilation unit that has no children, by attribute and form (DWARF 4,
// section 7.5.3).
func abbreviations() []byte {
	return []byte{
		1, 0x11, 0, // entry 1: DW_TAG_compile_unit
		0x11, 0x01, // DW_AT_low_pc, DW_FORM_addr: what ranges are relative to
		0x55, 0x17, // DW_AT_ranges, DW_FORM_sec_offset
		0x10, 0x17, // DW_AT_stmt_list, DW_FORM_sec_offset
		0, 0,
		0,
	}
}

func information() []byte {
	unit := []byte{4, 0} // version
	unit = append(unit, 0, 0, 0, 0, 4)
	unit = append(unit, 1) // the entry, all of whose attributes are 0
	unit = append(unit, make([]byte, 12)...)
	return prefixed(unit)
}

// prefixed puts the length before b.
func prefixed(b []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func (t *Table) line(rows []row) []byte {
	head := []byte{1, 1, 1, 0, 1, 10} // instructions of 1 octet, statements, no special opcodes of use
	head = append(head, 0, 1, 1, 1, 1, 0, 0, 0, 1)
	head = append(head, 0) // no directories
	number := make([]uint32, len(t.files))
	count := uint32(0)
	for _, r := range rows {
		if number[r.file] == 0 {
			count++
			number[r.file] = count
			name := t.files[r.file]
			if name == "" {
				name = "unknown"
			}
			head = append(head, name...)
			head = append(head, 0, 0, 0, 0)
		}
	}
	head = append(head, 0)
	unit := []byte{4, 0}
	unit = append(unit, prefixed(head)...)
	fresh := row{line: 1, file: 1}
	now, begun := fresh, false
	for _, r := range rows {
		if !begun {
			if r.end {
				continue
			}
			unit = append(unit, 0, 5, 2) // set the address
			unit = binary.LittleEndian.AppendUint32(unit, r.is)
			now, begun = fresh, true
			now.is = r.is
		}
		if r.is != now.is {
			unit = binary.AppendUvarint(append(unit, 2), uint64(r.is-now.is))
		}
		if r.end {
			unit = append(unit, 0, 1, 1)
			begun = false
			continue
		}
		if file := number[r.file]; file != now.file {
			unit = binary.AppendUvarint(append(unit, 4), uint64(file))
			now.file = file
		}
		if r.column != now.column {
			unit = binary.AppendUvarint(append(unit, 5), uint64(r.column))
		}
		if r.line != now.line {
			unit = sleb(append(unit, 3), int64(r.line)-int64(now.line))
		}
		unit = append(unit, 1) // copy
		now.is, now.column, now.line = r.is, r.column, r.line
	}
	if begun {
		unit = append(unit, 2, 1, 0, 1, 1)
	}
	return prefixed(slices.Clip(unit))
}

func sleb(b []byte, v int64) []byte {
	for v < -0x40 || v >= 0x40 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}

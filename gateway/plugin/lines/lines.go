// Package lines keeps a module's line table right when its code moves. Its main type is Table: Read takes the line programs
// out of the DWARF a toolchain wrote, At says where code went, and Sections writes the table anew, as small as what the
// engine needs to name the line of a trap.
//
// The standard library's debug/dwarf is not asked: it allocates what the numbers in a table tell it to, which ends a process
// that reads a hostile one. Here everything is bounded by the size of the section and the constants below, and what is
// malformed is left away: line numbers are for people, nothing depends on them.
package lines

import (
	"bytes"
	"encoding/binary"
	"path"
	"slices"
)

const (
	maxRows  = 1 << 19
	maxFiles = 1 << 15
	maxPath  = 1 << 10
	maxText  = 4 << 20 // octets of all names, read as often as they are named
	maxForms = 16      // of what the table says about a file; known ones are 5
)

// Table is a line table whose addresses are offsets into the content of the code section. The nil Table has no lines.
type Table struct {
	files []string
	rows  []row
	next  int // the first row that At has not placed
}

// row says where a line begins, or with end where code that has lines ends.
type row struct {
	was, is            uint32
	file, line, column uint32
	end                bool
}

// Read reads the section .debug_line of versions 2 to 5; text and lineText are .debug_str and .debug_line_str. size is the
// size of the code section's content: what is beyond, or at 0 as linkers mark code they dropped, is left away. A table
// without lines is nil.
func Read(line, text, lineText []byte, size int) *Table {
	t := &Table{files: []string{""}} // the first for files that the table does not name
	known := map[string]uint32{"": 0}
	room := maxText
	for rest := line; len(rest) >= 4; {
		n := binary.LittleEndian.Uint32(rest)
		if n > uint32(len(rest)-4) { // also the marks of units of 64 bits, of which no toolchain makes modules
			break
		}
		u := unit{buffer: buffer{rest: rest[4 : 4+n], room: room}, text: text, lineText: lineText}
		rest = rest[4+n:]
		ok := u.header()
		if room = u.room; !ok {
			continue
		}
		index := make([]uint32, len(u.files))
		for i, name := range u.files {
			at, ok := known[name]
			if !ok {
				if len(t.files) == maxFiles {
					return t.sorted()
				}
				at = uint32(len(t.files))
				known[name] = at
				t.files = append(t.files, name)
			}
			index[i] = at
		}
		if !u.program(t, index, size) {
			break
		}
	}
	return t.sorted()
}

func (t *Table) sorted() *Table {
	if len(t.rows) == 0 {
		return nil
	}
	// Where one sequence ends another may begin: that one counts.
	slices.SortStableFunc(t.rows, func(a, b row) int {
		switch {
		case a.was != b.was:
			return int(int64(a.was) - int64(b.was))
		case a.end == b.end:
			return 0
		case a.end:
			return -1
		}
		return 1
	})
	return t
}

// At says that what stood at was stands at is now, to be called with both rising; code between two calls belongs to the
// first. It returns the number of rows placed before.
func (t *Table) At(was, is int) int {
	if t == nil {
		return 0
	}
	before := t.next
	for ; t.next < len(t.rows) && int64(t.rows[t.next].was) <= int64(was); t.next++ {
		t.rows[t.next].is = uint32(is)
	}
	return before
}

// Shift moves the rows placed since there were so many by a distance.
func (t *Table) Shift(since, by int) {
	if t == nil {
		return
	}
	for i := range t.rows[since:t.next] {
		t.rows[since+i].is += uint32(by)
	}
}

// buffer reads values; beyond its end it is broken and reads zeros.
type buffer struct {
	rest   []byte
	room   int // for texts, in octets
	broken bool
}

func (b *buffer) take(n uint64) []byte {
	if n > uint64(len(b.rest)) {
		b.rest, b.broken = nil, true
		return nil
	}
	part := b.rest[:n]
	b.rest = b.rest[n:]
	return part
}

// fixed reads a number of n octets.
func (b *buffer) fixed(n uint64) (v uint64) {
	for i, octet := range b.take(n) {
		v |= uint64(octet) << (8 * i)
	}
	return v
}

func (b *buffer) uleb() uint64 {
	v, n := binary.Uvarint(b.rest)
	if n <= 0 {
		b.take(uint64(len(b.rest)) + 1)
		return 0
	}
	b.rest = b.rest[n:]
	return v
}

func (b *buffer) sleb() int64 {
	v, shift := int64(0), 0
	for {
		octet := b.fixed(1)
		if shift < 64 {
			v |= int64(octet&0x7f) << shift
		}
		if shift += 7; octet < 0x80 {
			if octet&0x40 != 0 && shift < 64 {
				v |= -1 << shift
			}
			return v
		}
	}
}

// string reads up to a zero octet.
func (b *buffer) string() string {
	n := bytes.IndexByte(b.rest, 0)
	if n < 0 || n > min(maxPath, b.room) {
		b.rest, b.broken = nil, true
		return ""
	}
	b.room -= n
	s := string(b.rest[:n])
	b.rest = b.rest[n+1:]
	return s
}

// unit is the line program of one compilation unit and what its header says (DWARF 5, section 6.2).
type unit struct {
	buffer
	text, lineText []byte

	files      []string // by their number, which begins at 1 before version 5
	step       uint64   // octets of an instruction
	lineBase   int64
	lineRange  uint64
	opcodeBase uint64
	operands   []byte // of standard opcodes, from 1
}

func (u *unit) header() bool {
	version := u.fixed(2)
	if version < 2 || version > 5 {
		return false
	}
	if version == 5 && (u.fixed(1) != 4 || u.fixed(1) != 0) { // addresses of 4 octets, without segments
		return false
	}
	size := u.fixed(4)
	head := buffer{rest: u.take(size), room: u.room}
	program := u.buffer
	u.buffer = head
	u.step = u.fixed(1)
	if version >= 4 && u.fixed(1) != 1 { // operations of an instruction: more are for machines unlike this
		return false
	}
	u.take(1) // whether rows are of statements does not matter
	u.lineBase = int64(int8(u.fixed(1)))
	u.lineRange, u.opcodeBase = u.fixed(1), u.fixed(1)
	if u.broken || u.lineRange == 0 || u.opcodeBase < 10 {
		return false
	}
	u.operands = u.take(u.opcodeBase - 1)
	if version < 5 {
		u.tables()
	} else {
		directories := u.entries(nil)
		u.files = u.entries(directories)
	}
	ok := !u.broken && !program.broken
	program.room = u.room
	u.buffer = program
	return ok
}

// tables reads directories and files as versions up to 4 have them. Names in directory 0, where the compiler ran, stay as
// they are.
func (u *unit) tables() {
	directories := []string{""}
	for !u.broken && len(directories) < maxFiles {
		name := u.string()
		if name == "" {
			break
		}
		directories = append(directories, name)
	}
	u.files = []string{""}
	for !u.broken && len(u.files) < maxFiles {
		name := u.string()
		if name == "" {
			break
		}
		directory := u.uleb()
		u.uleb() // when it was changed
		u.uleb() // and its size
		u.files = append(u.files, join(directories, directory, name))
	}
}

func join(directories []string, i uint64, name string) string {
	if i == 0 || i >= uint64(len(directories)) || path.IsAbs(name) {
		return name
	}
	if joined := path.Join(directories[i], name); len(joined) <= maxPath {
		return joined
	}
	return name
}

// What version 5 says of a file, and in which form.
const (
	contentPath      = 1
	contentDirectory = 2

	formString   = 0x08
	formStrp     = 0x0e
	formUdata    = 0x0f
	formLineStrp = 0x1f
	formBlock    = 0x09
)

// entries reads directories, or files that stand in directories, as version 5 has them.
func (u *unit) entries(directories []string) []string {
	n := u.fixed(1)
	if n > maxForms {
		u.broken = true
		return nil
	}
	forms := make([][2]uint64, n)
	for i := range forms {
		forms[i] = [2]uint64{u.uleb(), u.uleb()}
	}
	// An entry takes at least an octet, so that the count is held to what is there.
	count := u.uleb()
	if count > uint64(len(u.rest)) || count > maxFiles || n == 0 && count > 0 {
		u.broken = true
		return nil
	}
	list := make([]string, 0, count)
	for range count {
		name, directory := "", uint64(0)
		for _, f := range forms {
			text, number := u.value(f[1])
			switch f[0] {
			case contentPath:
				name = text
			case contentDirectory:
				directory = number
			}
		}
		if u.broken {
			return nil
		}
		list = append(list, join(directories, directory, name))
	}
	return list
}

func (u *unit) value(form uint64) (text string, number uint64) {
	switch form {
	case formString:
		return u.string(), 0
	case formStrp:
		return u.at(u.text), 0
	case formLineStrp:
		return u.at(u.lineText), 0
	case formUdata:
		return "", u.uleb()
	case formBlock:
		u.take(u.uleb())
		return "", 0
	case 0x0b: // numbers of so many octets
		return "", u.fixed(1)
	case 0x05:
		return "", u.fixed(2)
	case 0x06:
		return "", u.fixed(4)
	case 0x07:
		return "", u.fixed(8)
	case 0x1e: // a digest
		u.take(16)
		return "", 0
	}
	u.broken = true
	return "", 0
}

// at reads the text at an offset of a section of texts.
func (u *unit) at(section []byte) string {
	offset := u.fixed(4)
	if offset >= uint64(len(section)) {
		u.broken = true
		return ""
	}
	b := buffer{rest: section[offset:], room: u.room}
	s := b.string()
	u.room, u.broken = b.room, u.broken || b.broken
	return s
}

// program runs the line program and appends its rows; it returns false when there is no room for more.
func (u *unit) program(t *Table, files []uint32, size int) bool {
	fresh := row{line: 1, file: 1}
	now, address, start := fresh, uint64(0), len(t.rows)
	emit := func() {
		r := now
		r.was = uint32(min(address, 1<<32-1))
		r.file = 0
		if now.file < uint32(len(files)) {
			r.file = files[now.file]
		}
		t.rows = append(t.rows, r)
	}
	for len(u.rest) > 0 && len(t.rows) < maxRows {
		switch op := u.fixed(1); {
		case op >= u.opcodeBase:
			op -= u.opcodeBase
			address += op / u.lineRange * u.step
			now.line = uint32(int64(now.line) + u.lineBase + int64(op%u.lineRange))
			emit()
		case op == 0: // extended
			b := buffer{rest: u.take(u.uleb())}
			switch b.fixed(1) {
			case 1: // end of the sequence
				now.end = true
				emit()
				if first := t.rows[start].was; first == 0 || address > uint64(size) {
					t.rows = t.rows[:start]
				}
				start, now, address = len(t.rows), fresh, 0
			case 2: // set the address
				address = b.fixed(4)
			}
		case op == 1: // copy
			emit()
		case op == 2: // advance the address
			address += u.uleb() * u.step
		case op == 3: // advance the line
			now.line = uint32(int64(now.line) + u.sleb())
		case op == 4: // set the file
			now.file = uint32(min(u.uleb(), maxFiles))
		case op == 5: // set the column
			now.column = uint32(min(u.uleb(), 1<<31))
		case op == 8: // advance the address as opcode 255 does
			address += (255 - u.opcodeBase) / u.lineRange * u.step
		case op == 9: // advance the address by a fixed number
			address += u.fixed(2)
		default: // nothing that matters here, or not known: its operands are skipped
			for range u.operands[op-1] {
				u.uleb()
			}
		}
	}
	// What has no end is not known to be code.
	t.rows = t.rows[:start]
	return len(t.rows) < maxRows
}

package lines_test

import (
	"bytes"
	"debug/dwarf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-gateway/postern/gateway/plugin/lines"
)

func sized(b ...byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// opcodes are a line base, a line range, the first special opcode and the operands of the standard ones.
func opcodes() []byte { return []byte{0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1} }

// version4 is a unit with directory "sub" and the files main.c and sub/other.c.
func version4(program ...byte) []byte {
	head := append([]byte{1, 1, 1}, opcodes()...)
	head = append(head, "sub\x00\x00main.c\x00\x00\x00\x00other.c\x00\x01\x00\x00\x00"...)
	return sized(slices.Concat([]byte{4, 0}, sized(head...), program)...)
}

// version5 is a unit with the files main.c and sub/other.c, whose names stand in lineText.
func version5(program ...byte) []byte {
	head := append([]byte{1, 1, 1}, opcodes()...)
	head = append(head, 1, 1, 0x08, 2)                 // directories: a path each, here
	head = append(head, "/where/it/ran\x00sub\x00"...) // 2
	head = append(head, 3, 1, 0x1f, 2, 0x0b, 5, 0x1e, 2)
	digest := make([]byte, 16)
	head = slices.Concat(head, []byte{0, 0, 0, 0, 0}, digest, []byte{7, 0, 0, 0, 1}, digest)
	return sized(slices.Concat([]byte{5, 0, 4, 0}, sized(head...), program)...)
}

const lineText = "main.c\x00other.c\x00"

func address(at byte) []byte { return []byte{0, 5, 2, at, 0, 0, 0} }

var program = slices.Concat(
	address(0x10), []byte{3, 9, 1}, // line 10 at 0x10
	[]byte{13 + 5 + 1 + 14*2},            // line 11 at 0x12, by a special opcode
	[]byte{4, 2, 5, 7, 3, 0x7b, 2, 4, 1}, // other.c line 6 column 7 at 0x16
	[]byte{2, 4, 0, 1, 1},                // ends at 0x1a
)

// found is what a debugger would find in the sections, by address.
func found(t *testing.T, sections []lines.Section) (list []string) {
	t.Helper()
	content := make(map[string][]byte)
	for _, s := range sections {
		content[s.Name] = s.Content
	}
	d, err := dwarf.New(content[".debug_abbrev"], nil, nil, content[".debug_info"], content[".debug_line"], nil, content[".debug_ranges"], nil)
	if err != nil {
		t.Fatal(err)
	}
	unit, err := d.Reader().Next()
	if err != nil {
		t.Fatal(err)
	}
	ranges, err := d.Ranges(unit)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range ranges {
		list = append(list, fmt.Sprintf("%#x-%#x", r[0], r[1]))
	}
	r, err := d.LineReader(unit)
	if err != nil {
		t.Fatal(err)
	}
	for {
		var e dwarf.LineEntry
		if err := r.Next(&e); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		if e.EndSequence {
			list = append(list, fmt.Sprintf("%#x end", e.Address))
		} else {
			list = append(list, fmt.Sprintf("%#x %s:%d:%d", e.Address, e.File.Name, e.Line, e.Column))
		}
	}
}

func TestLinesMove(t *testing.T) {
	t.Parallel()
	for name, section := range map[string][]byte{
		"version 4": version4(program...),
		"version 5": version5(slices.Concat([]byte{4, 0}, bytes.ReplaceAll(program, []byte{4, 2, 5, 7}, []byte{4, 1, 5, 7}))...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A second unit, of a function that the linker dropped, and one that is beyond the code.
			dropped := version4(slices.Concat(address(0), []byte{1, 2, 4, 0, 1, 1}, address(0xf0), []byte{1, 2, 20, 0, 1, 1})...)
			table := lines.Read(append(section, dropped...), nil, []byte(lineText), 0x100)
			table.At(0x10, 0)
			mark := table.At(0x12, 6)
			table.At(0x14, 20)
			table.At(0x16, 30)
			table.At(0x1a, 50)
			if mark != 1 {
				t.Fatalf("%d lines were placed before, want 1", mark)
			}
			table.Shift(0, 0x100)
			if section[4] == 5 {
				section = nil
			}
			want := []string{
				"0x100-0x132", "0x100 main.c:10:0", "0x106 main.c:11:0", "0x11e sub/other.c:6:7", "0x132 end",
			}
			if diff := cmp.Diff(want, found(t, table.Sections())); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

// TestGaps keeps what has no lines from being taken for what stands before it.
func TestGaps(t *testing.T) {
	t.Parallel()
	section := version4(slices.Concat(address(0x40), []byte{1, 2, 8, 0, 1, 1}, address(0x10), []byte{1, 2, 8, 0, 1, 1}, address(0x18), []byte{1, 2, 8, 0, 1, 1})...)
	table := lines.Read(section, nil, nil, 0x100)
	for at := range 0x100 {
		table.At(at, 2*at)
	}
	want := []string{
		"0x20-0x40", "0x80-0x90", "0x20 main.c:1:0", "0x30 main.c:1:0", "0x40 end", "0x80 main.c:1:0", "0x90 end",
	}
	if diff := cmp.Diff(want, found(t, table.Sections())); diff != "" {
		t.Fatal(diff)
	}
}

func TestNoLines(t *testing.T) {
	t.Parallel()
	good := version4(program...)
	version := func(v byte) []byte {
		b := bytes.Clone(good)
		b[4] = v
		return b
	}
	cases := map[string][]byte{
		"nothing":         nil,
		"cut off":         good[:len(good)-1],
		"of 64 bits":      append([]byte{0xff, 0xff, 0xff, 0xff}, good...),
		"version 1":       version(1),
		"version 6":       version(6),
		"without an end":  version4(address(0x10)...),
		"no line range":   bytes.Replace(good, []byte{0xfb, 14}, []byte{0xfb, 0}, 1),
		"only dropped":    version4(slices.Concat(address(0), []byte{1, 0, 1, 1})...),
		"text elsewhere":  version5(program...),
		"a hostile count": bytes.Replace(version5(program...), []byte{0x1e, 2}, []byte{0x1e, 0xff}, 1),
	}
	for name, section := range cases {
		text := lineText
		if name == "text elsewhere" {
			text = ""
		}
		if table := lines.Read(section, nil, []byte(text), 0x100); table != nil {
			t.Errorf("%s: found lines: %v", name, found(t, table.Sections()))
		}
	}
	var none *lines.Table
	none.Shift(none.At(1, 2), 3)
	if none.Sections() != nil {
		t.Error("no table has sections")
	}
}

// TestBounds reads tables that ask for more than they bring.
func TestBounds(t *testing.T) {
	many := version4(slices.Concat(address(0x10), bytes.Repeat([]byte{1}, 3<<20), []byte{0, 1, 1})...)
	head := append([]byte{1, 1, 1}, opcodes()...)
	head = append(head, 1, 1, 0x1f)
	head = append(binary.AppendUvarint(head, 30_000), make([]byte, 4*30_000)...)
	long := sized(slices.Concat([]byte{5, 0, 4, 0}, sized(append(head, 0, 0)...))...)
	for name, section := range map[string][]byte{"rows": many, "files": bytes.Repeat(long, 20)} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		lines.Read(section, nil, []byte(strings.Repeat("a", 1000)+"\x00"), 0x100)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 128<<20 {
			t.Errorf("%s: %d octets took %d", name, len(section), took)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(version4(program...), []byte(lineText), uint16(3))
	f.Add(version5(program...), []byte(lineText), uint16(1))
	f.Fuzz(func(t *testing.T, section, text []byte, step uint16) {
		table := lines.Read(section, text, text, 1<<20)
		for at := 0; at < 1<<16; at += 1 + int(step%100) {
			table.At(at, 3*at)
		}
		table.Shift(0, 5)
		sections := table.Sections()
		if sections == nil {
			return
		}
		// What was written is a table again.
		if len(found(t, sections)) < 2 {
			t.Fatalf("%d sections hold no lines", len(sections))
		}
	})
}

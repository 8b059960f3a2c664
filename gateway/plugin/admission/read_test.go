package admission_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-gateway/postern/gateway/plugin/admission"
	w "github.com/postern-gateway/postern/gateway/plugin/wasmtest"
)

// function is a module of one function () -> () with that code.
func function(code w.Code, locals ...w.Locals) []byte {
	m := &w.Module{Memories: []w.Limits{{Min: 1, Max: 1}}}
	m.Func("run", w.Sig(), code, locals...)
	return m.Bytes()
}

func section(id byte, content string) []byte {
	return w.Encode(w.Section{ID: id, Content: []byte(content)})
}

const (
	oneType = "\x01\x60\x00\x00"
	oneFunc = "\x01\x00"
)

func withBody(body string) []byte {
	return w.Encode(w.Section{ID: 1, Content: []byte(oneType)}, w.Section{ID: 3, Content: []byte(oneFunc)},
		w.Section{ID: 10, Content: []byte(w.Vector(w.U32(uint32(len(body))) + w.Code(body)))})
}

// TestRefusals holds the parser to its words: a plugin's author sees nothing else.
func TestRefusals(t *testing.T) {
	t.Parallel()
	void := w.Sig()
	whole := func(change func(m *w.Module)) []byte {
		m := &w.Module{Memories: []w.Limits{{Min: 1, Max: 1}}}
		change(m)
		return m.Bytes()
	}
	cases := []struct {
		name   string
		wasm   []byte
		limits admission.Limits
		want   string
	}{
		{name: "nothing", want: "module at octet 0: not a WebAssembly module"},
		{name: "text", wasm: []byte("(module)"), want: "module at octet 0: not a WebAssembly module"},
		{name: "a component", wasm: []byte("\x00asm\x0d\x00\x01\x00"), want: "module at octet 4: a component, of which plugins can not be made; a core module of version 1 is needed"},
		{name: "version", wasm: []byte("\x00asm\x02\x00\x00\x00"), want: "module at octet 4: not of version 1"},
		{name: "too large", wasm: make([]byte, 9), limits: admission.Limits{Module: 8}, want: "module at octet 0: 9 octets, more than 8"},
		{name: "truncated in a section", wasm: function("")[:20], want: "module at octet 18: section memory of 4 octets does not fit into the 0 that are left"},
		{name: "truncated in a header", wasm: append(w.Encode(), 1), want: "module at octet 9: ends in the middle of a value"},
		{name: "no such section", wasm: section(14, ""), want: "module at octet 8: section 14 does not exist"},
		{name: "tags", wasm: section(13, "\x00"), want: "module at octet 8: section 13 is of the proposal exception handling, which is not supported"},
		{name: "out of order", wasm: w.Encode(w.Section{ID: 3, Content: []byte("\x00")}, w.Section{ID: 1, Content: []byte("\x00")}), want: "type at octet 11: stands after the section function"},
		{name: "twice", wasm: w.Encode(w.Section{ID: 1, Content: []byte("\x00")}, w.Section{ID: 1, Content: []byte("\x00")}), want: "type at octet 11: stands after the section type"},
		{name: "something left", wasm: section(1, "\x00\x00"), want: "type at octet 11: 1 octets are left after its content"},
		{name: "a count too many", wasm: section(1, "\x02"+oneType[1:]), want: "type at octet 10: 2 types do not fit into the 3 octets that are left"},
		{name: "a huge count", wasm: section(3, "\xff\xff\xff\xff\x0f"), want: "function at octet 10: 4294967295 functions, more than 32768"},
		{name: "a number of 36 bits", wasm: section(3, "\xff\xff\xff\xff\x1f"), want: "function at octet 10: number is longer than 32 bits"},
		{name: "a number of 6 octets", wasm: section(3, "\x80\x80\x80\x80\x80\x00"), want: "function at octet 10: number is longer than 32 bits"},
		{name: "too many types", wasm: section(1, "\x02"+oneType[1:]+oneType[1:]), limits: admission.Limits{Types: 1}, want: "type at octet 10: 2 types, more than 1"},
		{name: "a recursive type", wasm: section(1, "\x01\x4e\x00\x00"), want: "type at octet 11: type of the form 0x4e is of the proposal garbage collection, which is not supported"},
		{name: "a type of references", wasm: section(1, "\x01\x60\x01\x64\x00"), want: "type at octet 13: type 0x64 is of the proposal typed function references, which is not supported"},
		{name: "no such type", wasm: section(1, "\x01\x60\x01\x11\x00"), want: "type at octet 13: type 0x11 does not exist"},
		{name: "a function of no type", wasm: section(3, "\x01\x00"), want: "function at octet 11: type 0 of 0 does not exist"},
		{name: "the meter's import", wasm: whole(func(m *w.Module) { m.Import("postern_meter", "yield", void) }), want: `import at octet 17: module "postern_meter" is the gateway's own`},
		{name: "the meter's export", wasm: whole(func(m *w.Module) { m.Func("postern_meter_fuel", void, "") }), want: `export at octet 27: the name "postern_meter_fuel" is the gateway's own`},
		{name: "two exports of a name", wasm: whole(func(m *w.Module) { m.Func("a", void, ""); m.Func("a", void, "") }), want: `export at octet 32: a second export of the name "a"`},
		{name: "a name that is not UTF-8", wasm: whole(func(m *w.Module) { m.Func("\xff", void, "") }), want: "export at octet 27: name is not UTF-8"},
		{name: "an export of nothing", wasm: whole(func(m *w.Module) { m.Exports = []w.Export{{Name: "f", Index: 3}} }), want: "export at octet 20: function 3 of 0 does not exist"},
		{name: "a memory too large", wasm: whole(func(m *w.Module) { m.Memories[0] = w.Limits{Min: 1025, Max: -1} }), want: "memory at octet 11: memory begins with 67174400 octets, more than 67108864"},
		{name: "two memories", wasm: whole(func(m *w.Module) { m.Memories = append(m.Memories, w.Limits{}) }), want: "memory at octet 10: 2 memories need the proposal multiple memories, which is not supported"},
		{name: "a shared memory", wasm: section(5, "\x01\x03\x01\x02"), want: "memory at octet 11: sharing is of the proposal threads, which is not supported"},
		{name: "a memory of 64 bits", wasm: section(5, "\x01\x04\x01"), want: "memory at octet 11: addresses of 64 bits are of the proposal memory64, which is not supported"},
		{name: "limits upside down", wasm: section(5, "\x01\x01\x02\x01"), want: "memory at octet 11: the most, 1, is below the least, 2"},
		{name: "a table bomb", wasm: section(4, "\x01\x70\x00\x80\x80\x80\x20"), want: "table at octet 11: table of 67108864 entries, more than 65536"},
		{name: "a table of numbers", wasm: section(4, "\x01\x7f\x00\x01"), want: "table at octet 11: table of the type 0x7f does not exist"},
		{name: "too many tables", wasm: section(4, "\x03\x70\x00\x01\x70\x00\x01\x70\x00\x01"), limits: admission.Limits{Tables: 2}, want: "table at octet 10: 3 tables, more than 2"},
		{name: "a global that computes", wasm: section(6, "\x01\x7f\x00\x41\x01\x41\x01\x6a\x0b"), want: "global at octet 13: constant expression of several instructions is of the proposal extended constant expressions, which is not supported"},
		{name: "a global that calls", wasm: section(6, "\x01\x7f\x00\x01\x0b"), want: "global at octet 13: opcode 0x01 is not constant"},
		{name: "a start that is not there", wasm: section(8, "\x00"), want: "start at octet 10: function 0 of 0 does not exist"},
		{name: "an element of nothing", wasm: whole(func(m *w.Module) {
			m.Tables = []w.Table{{Type: w.FuncRef, Limits: w.Limits{Min: 1, Max: 1}}}
			m.Elements = []w.Element{{Offset: w.I32Const(0), Funcs: []uint32{7}}}
		}), want: "element at octet 29: function 7 of 0 does not exist"},
		{name: "an element of no table", wasm: section(9, "\x01\x00\x41\x00\x0b\x00"), want: "element at octet 11: table 0 of 0 does not exist"},
		{name: "a segment of no form", wasm: section(9, "\x01\x08\x00\x00"), want: "element at octet 11: element segment of the form 8 does not exist"},
		{name: "data without memory", wasm: section(11, "\x01\x00\x41\x00\x0b\x00"), want: "data at octet 11: there is no memory for data"},
		{name: "data that is not there", wasm: section(11, "\x01\x01\x05ab"), want: "data at octet 13: 5 octets do not fit into the 2 that are left"},
		{name: "data counted wrongly", wasm: w.Encode(w.Section{ID: 12, Content: []byte("\x02")}, w.Section{ID: 11, Content: []byte("\x01\x01\x00")}), want: "data at octet 13: 2 segments are counted, 1 are there"},
		{name: "data counted only", wasm: section(12, "\x02"), want: "data at octet 11: 2 segments are counted, 0 are there"},
		{name: "a function without a body", wasm: w.Encode(w.Section{ID: 1, Content: []byte(oneType)}, w.Section{ID: 3, Content: []byte(oneFunc)}), want: "code at octet 18: 1 functions are declared, 0 have a body"},
		{name: "a body too large", wasm: function(w.Repeat(100, w.Nop)), limits: admission.Limits{Body: 100}, want: "code at octet 36: function 0 has 102 octets, more than 100"},
		{name: "too many locals", wasm: function("", w.Locals{Count: 5000, Type: w.I32}), want: "code at octet 37: function 0 has 5000 locals, more than 4096"},
		{name: "far too many locals", wasm: function("", w.Locals{Count: 1<<32 - 1, Type: w.I32}, w.Locals{Count: 1<<32 - 1, Type: w.I32}), want: "code at octet 37: function 0 has 8589934590 locals, more than 4096"},
		{name: "too many functions", wasm: whole(func(m *w.Module) { m.Func("", void, ""); m.Func("", void, "") }), limits: admission.Limits{Functions: 1}, want: "function at octet 16: 2 functions, more than 1"},
		{name: "too many imports", wasm: whole(func(m *w.Module) { m.Import("a", "b", void); m.Import("a", "c", void) }), limits: admission.Limits{Imports: 1}, want: "import at octet 16: 2 imports, more than 1"},
		{name: "blocks too deep", wasm: function(w.Block(w.Void, w.Block(w.Void))), limits: admission.Limits{Nesting: 1}, want: "code at octet 40: more than 1 blocks within each other"},
		{name: "an end too many", wasm: withBody("\x00\x0b\x0b"), want: "code at octet 24: function 0 goes on after its end"},
		{name: "an end too few", wasm: withBody("\x00\x02\x40\x0b"), want: "code at octet 26: function 0 ends within 1 blocks"},
		{name: "an else without an if", wasm: function(w.Else), want: "code at octet 38: else without an if"},
		{name: "two elses", wasm: function(w.I32Const(0) + w.If(w.Void, w.Else, w.Else)), want: "code at octet 43: else without an if"},
		{name: "a branch to nowhere", wasm: function(w.Br(1)), want: "code at octet 38: branch to block 1 of 1"},
		{name: "a local that is not there", wasm: function(w.LocalGet(1)+w.Drop, w.Locals{Count: 1, Type: w.I32}), want: "code at octet 41: local 1 of 1 does not exist"},
		{name: "a global that is not there", wasm: function(w.GlobalGet(0) + w.Drop), want: "code at octet 39: global 0 of 0 does not exist"},
		{name: "a function that is not there", wasm: function(w.Call(1)), want: "code at octet 39: function 1 of 1 does not exist"},
		{name: "a tail call", wasm: function(w.ReturnCall(0)), want: "code at octet 38: opcode 0x12 is of the proposal tail calls, which is not supported"},
		{name: "a throw", wasm: function("\x08\x00"), want: "code at octet 38: opcode 0x08 is of the proposal exception handling, which is not supported"},
		{name: "an atomic operation", wasm: function("\xfe\x03\x00"), want: "code at octet 38: opcode 0xfe is of the proposal threads, which is not supported"},
		{name: "an object", wasm: function("\xfb\x00\x00"), want: "code at octet 38: opcode 0xfb is of the proposal garbage collection, which is not supported"},
		{name: "a call of a reference", wasm: function("\x14\x00"), want: "code at octet 38: opcode 0x14 is of the proposal typed function references, which is not supported"},
		{name: "relaxed SIMD", wasm: function("\xfd\x80\x02"), want: "code at octet 38: opcode 0xfd 256 is of the proposal relaxed SIMD, which is not supported"},
		{name: "a vector opcode with room", wasm: function("\xfd\x8c\x00" + "0123456789abcdef" + w.Drop), want: "code at octet 38: opcode of a vector instruction is not in its shortest form"},
		{name: "no such vector opcode", wasm: function("\xfd\x9a\x01"), want: "code at octet 38: opcode 0xfd 154 does not exist"},
		{name: "no such opcode", wasm: function("\xff"), want: "code at octet 38: opcode 0xff does not exist"},
		{name: "another memory", wasm: function("\x3f\x01" + w.Drop), want: "code at octet 39: a memory other than the first is named, which needs multiple memories"},
		{name: "data that is not counted", wasm: function(w.DataDrop(0)), want: "code at octet 40: data segment 0 of 0 does not exist"},
		{name: "a truncated instruction", wasm: withBody("\x00\x41"), want: "code at octet 24: ends in the middle of a value"},
		{name: "a second section of names", wasm: w.Encode(w.Custom("name", nil), w.Custom("name", nil)), want: `custom at octet 15: a second section of the name "name"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, err := admission.Read(c.wasm, c.limits)
			var refusal *admission.Refusal
			if m != nil || !errors.As(err, &refusal) {
				t.Fatalf("accepted, or refused with %T: %v", err, err)
			}
			if err.Error() != c.want {
				t.Fatalf("refused with\n %s\nwant\n %s", err, c.want)
			}
		})
	}
}

// TestWhatAModuleIs reads everything there is to say about one.
func TestWhatAModuleIs(t *testing.T) {
	t.Parallel()
	wasm := &w.Module{
		Memories: []w.Limits{{Min: 2, Max: 100_000 / 2}},
		Tables:   []w.Table{{Type: w.FuncRef, Limits: w.Limits{Min: 3, Max: -1}}},
		Customs:  []w.Section{w.Custom("note", []byte("what is noted")), w.Custom(".debug_line", []byte("x"))},
	}
	wasm.Import("postern", "op", w.Sig(w.I32, w.I64).To(w.I64))
	wasm.Imports = append(wasm.Imports, w.Import{Module: "env", Name: "base", Kind: w.GlobalKind, Raw: "\x7f\x01"})
	wasm.Func("on", w.Sig(w.F32, w.F64).To(w.I32, w.V128), w.Unreachable)
	wasm.Exports = []w.Export{{Name: "memory", Kind: w.MemoryKind}, {Name: "table", Kind: w.TableKind}, {Name: "base", Kind: w.GlobalKind}}
	m, err := admission.Read(wasm.Bytes(), admission.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	type facts struct {
		Imports          []admission.Import
		Exports          []admission.Export
		Sections         []admission.Section
		Initial, Maximum int64
		Functions        int
		DWARF            bool
		Note             string
	}
	got := facts{Imports: m.Imports(), Exports: m.Exports(), Sections: m.Sections(), Functions: m.Functions(), DWARF: m.HasDWARF()}
	got.Initial, got.Maximum = m.Memory()
	note, _ := m.Custom("note")
	got.Note = string(note)
	want := facts{
		Imports: []admission.Import{
			{Module: "postern", Name: "op", Kind: "function", Type: "(i32, i64) -> i64"},
			{Module: "env", Name: "base", Kind: "global", Type: "mut i32"},
		},
		Exports: []admission.Export{
			{Name: "on", Kind: "function", Type: "(f32, f64) -> (i32, v128)"}, {Name: "memory", Kind: "memory"},
			{Name: "table", Kind: "table", Type: "funcref"}, {Name: "base", Kind: "global", Type: "mut i32"},
		},
		Sections: []admission.Section{
			{Name: "type", Size: 14}, {Name: "import", Size: 26}, {Name: "function", Size: 2}, {Name: "table", Size: 4},
			{Name: "memory", Size: 6}, {Name: "export", Size: 30}, {Name: "code", Size: 5}, {Name: "note", Size: 13}, {Name: ".debug_line", Size: 1},
		},
		Initial: 128 << 10, Maximum: 64 << 20, Functions: 1, DWARF: true, Note: "what is noted",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if _, ok := m.Custom("other"); ok {
		t.Fatal("found a section that is not there")
	}
}

func TestAllow(t *testing.T) {
	t.Parallel()
	host := []admission.Import{
		{Module: "postern", Name: "op", Kind: "function", Type: "(i32) -> i64"},
		{Module: "postern", Name: "log", Kind: "function", Type: "(i32) -> ()"},
		{Module: "clock", Name: "now", Kind: "function", Type: "() -> i64"},
	}
	cases := []struct {
		name, module, function string
		signature              w.Signature
		want                   string
	}{
		{"known", "postern", "op", w.Sig(w.I32).To(w.I64), ""},
		{"another type", "postern", "op", w.Sig(w.I32), `import at octet 21: function "op" of module "postern" is wanted as (i32) -> (); the host has the function (i32) -> i64`},
		{"another name", "postern", "opp", w.Sig(w.I32), `import at octet 21: the host's module "postern" has no function "opp"`},
		{"another module", "env", "abort", w.Sig(w.I32), `import at octet 21: the host has no module "env", of which function "abort" is wanted; it has: clock, postern`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wasm := new(w.Module)
			wasm.Import(c.module, c.function, c.signature)
			m, err := admission.Read(wasm.Bytes(), admission.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			text := ""
			if err := m.Allow(host); err != nil {
				text = err.Error()
			}
			if offset := strings.Index(text, "octet"); offset >= 0 && c.want != "" {
				_, got, _ := strings.Cut(text, ": ")
				_, want, _ := strings.Cut(c.want, ": ")
				if got != want {
					t.Fatalf("refused with %q, want %q", text, c.want)
				}
			} else if text != c.want {
				t.Fatalf("refused with %q, want %q", text, c.want)
			}
		})
	}
}

func TestPack(t *testing.T) {
	t.Parallel()
	wasm := w.Encode(w.Custom("note", []byte("old")), w.Section{ID: 1, Content: []byte(oneType)}, w.Custom("note", []byte("older")))
	packed, err := admission.Pack(wasm, "note", []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	if want := w.Encode(w.Section{ID: 1, Content: []byte(oneType)}, w.Custom("note", []byte("new"))); !bytes.Equal(packed, want) {
		t.Fatalf("packed %q, want %q", packed, want)
	}
	for _, name := range []string{"", "name", ".debug_line"} {
		if _, err := admission.Pack(wasm, name, nil); err == nil {
			t.Errorf("packed a section %q", name)
		}
	}
	if _, err := admission.Pack([]byte("no module"), "note", nil); err == nil {
		t.Error("packed what is no module")
	}
}

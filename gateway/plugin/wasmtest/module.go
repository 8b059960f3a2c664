// Package wasmtest assembles WebAssembly modules for tests: its main type is Module. What it writes is what it is told,
// valid or not: modules that no toolchain emits are what it is for. Policy is where a test of a plugin begins.
//
//	m := wasmtest.Policy(wasmtest.Loop(wasmtest.Void, wasmtest.Br(0)) + wasmtest.Unreachable)
//	os.WriteFile("endless.wasm", m.Bytes(), 0o600)
package wasmtest

import (
	"math"
	"slices"
)

// Type is the encoding of a value type.
type Type byte

// The value types.
const (
	I32       Type = 0x7f
	I64       Type = 0x7e
	F32       Type = 0x7d
	F64       Type = 0x7c
	V128      Type = 0x7b
	FuncRef   Type = 0x70
	ExternRef Type = 0x6f
)

// Signature is a function's type.
type Signature struct{ Params, Results []Type }

// Sig is a signature with these params and no result.
func Sig(params ...Type) Signature { return Signature{Params: params} }

// To adds results.
func (s Signature) To(results ...Type) Signature {
	s.Results = results
	return s
}

func (s Signature) equal(o Signature) bool {
	return slices.Equal(s.Params, o.Params) && slices.Equal(s.Results, o.Results)
}

// Module is a module to be. The zero value is the empty module. Its fields may be changed at any time before Bytes; what
// methods add has the index they return.
type Module struct {
	Types     []Signature
	Imports   []Import // of functions first: their indexes come before those of Functions
	Functions []Function
	Tables    []Table
	Memories  []Limits
	Globals   []Global
	Exports   []Export // after those that Functions name themselves
	Start     *uint32
	Elements  []Element
	DataCount bool // write the section that memory.init and data.drop need
	Data      []Data
	Customs   []Section // custom sections at the end; their ID is 0
}

// Import is what the module asks its host for.
type Import struct {
	Module, Name string
	Kind         Kind
	Type         uint32 // of a function: index into Types
	Raw          Code   // of another kind: its type, encoded (see Limits.Code)
}

// Kind says what an import or an export is.
type Kind byte

// The kinds.
const (
	Func Kind = iota
	TableKind
	MemoryKind
	GlobalKind
)

// Function is a function with a body.
type Function struct {
	Export string // empty: it is not exported
	Name   string // in the name section; empty: not there
	Type   uint32 // index into Types
	Locals []Locals
	Code   Code // without the end of the body
}

// Locals are some locals of one type.
type Locals struct {
	Count uint32
	Type  Type
}

// Limits are the size of a memory in pages of 64 KiB or of a table in entries. Max below 0: none is written.
type Limits struct {
	Min uint32
	Max int64
}

// Code encodes the limits.
func (l Limits) Code() Code {
	if l.Max < 0 {
		return "\x00" + U32(l.Min)
	}
	return "\x01" + U32(l.Min) + U32(uint32(l.Max))
}

// Table is a table of references.
type Table struct {
	Type Type
	Limits
}

// Global is a global and the expression, without its end, that it begins with.
type Global struct {
	Type    Type
	Mutable bool
	Init    Code
}

// Export makes something known by name.
type Export struct {
	Name  string
	Kind  Kind
	Index uint32
}

// Element is an element segment of one of the kinds 0 to 7 of the binary format: bit 0 says passive or declared, bit 1 that a
// table is named (or, with bit 0, declared), bit 2 that Items are expressions instead of functions.
type Element struct {
	Kind   byte
	Table  uint32
	Offset Code // without its end
	Type   Type // of kinds 5 to 7; of the others it is FuncRef
	Funcs  []uint32
	Items  []Code // kinds 4 to 7, each without its end
}

// Data is a data segment.
type Data struct {
	Passive bool
	Offset  Code // without its end
	Content []byte
}

// Section is an encoded section, or part of a module that only looks like one.
type Section struct {
	ID      byte
	Content []byte
}

// Custom is a custom section.
func Custom(name string, content []byte) Section {
	return Section{Content: append([]byte(Name(name)), content...)}
}

// Type returns the index of a signature and adds it where it is new.
func (m *Module) Type(s Signature) uint32 {
	for i := range m.Types {
		if m.Types[i].equal(s) {
			return uint32(i)
		}
	}
	m.Types = append(m.Types, s)
	return uint32(len(m.Types) - 1)
}

// Import adds a function the host is asked for. Imports come before functions.
func (m *Module) Import(module, name string, s Signature) uint32 {
	if len(m.Functions) > 0 {
		panic("wasmtest: an import behind a function would move it")
	}
	m.Imports = append(m.Imports, Import{Module: module, Name: name, Type: m.Type(s)})
	return uint32(len(m.Imports) - 1)
}

// Func adds a function and exports it where export is not empty.
func (m *Module) Func(export string, s Signature, code Code, locals ...Locals) uint32 {
	m.Functions = append(m.Functions, Function{Export: export, Type: m.Type(s), Code: code, Locals: locals})
	return m.Next() - 1
}

// Next is the index the next function will have: a function that calls itself needs it.
func (m *Module) Next() uint32 {
	n := len(m.Functions)
	for i := range m.Imports {
		if m.Imports[i].Kind == Func {
			n++
		}
	}
	return uint32(n)
}

// Exported returns the function that is exported by that name, to be changed.
func (m *Module) Exported(name string) *Function {
	for i := range m.Functions {
		if m.Functions[i].Export == name {
			return &m.Functions[i]
		}
	}
	panic("wasmtest: no function is exported as " + name)
}

// Global adds a mutable global that begins with a constant and returns its index, if no global is imported.
func (m *Module) Global(t Type, init Code) uint32 {
	m.Globals = append(m.Globals, Global{Type: t, Mutable: true, Init: init})
	return uint32(len(m.Globals) - 1)
}

// Put adds a data segment at an address of memory 0.
func (m *Module) Put(address int32, content []byte) {
	m.Data = append(m.Data, Data{Offset: I32Const(address), Content: content})
}

// Bytes encodes the module.
func (m *Module) Bytes() []byte { return Encode(m.Sections()...) }

// Encode writes the preamble and sections, in the order given.
func Encode(sections ...Section) []byte {
	b := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range sections {
		b = append(append(b, s.ID), U32(uint32(len(s.Content)))...)
		b = append(b, s.Content...)
	}
	return b
}

// Sections encodes the module's sections, those that are not empty, in their order. A test that wants a broken one changes
// it and calls Encode.
func (m *Module) Sections() []Section {
	var list []Section
	add := func(id byte, items []Code) {
		if len(items) > 0 {
			list = append(list, Section{ID: id, Content: []byte(Vector(items...))})
		}
	}
	add(1, each(m.Types, func(s Signature) Code { return "\x60" + types(s.Params) + types(s.Results) }))
	add(2, each(m.Imports, func(i Import) Code {
		what := i.Raw
		if i.Kind == Func {
			what = U32(i.Type)
		}
		return Name(i.Module) + Name(i.Name) + Code([]byte{byte(i.Kind)}) + what
	}))
	add(3, each(m.Functions, func(f Function) Code { return U32(f.Type) }))
	add(4, each(m.Tables, func(t Table) Code { return octet(t.Type) + t.Limits.Code() }))
	add(5, each(m.Memories, Limits.Code))
	add(6, each(m.Globals, func(g Global) Code {
		mutable := Code("\x00")
		if g.Mutable {
			mutable = "\x01"
		}
		return octet(g.Type) + mutable + g.Init + End
	}))
	add(7, m.exports())
	if m.Start != nil {
		list = append(list, Section{ID: 8, Content: []byte(U32(*m.Start))})
	}
	add(9, each(m.Elements, Element.code))
	if m.DataCount {
		list = append(list, Section{ID: 12, Content: []byte(U32(uint32(len(m.Data))))})
	}
	add(10, each(m.Functions, func(f Function) Code {
		locals := each(f.Locals, func(l Locals) Code { return U32(l.Count) + octet(l.Type) })
		return sized(Vector(locals...) + f.Code + End)
	}))
	add(11, each(m.Data, func(d Data) Code {
		if d.Passive {
			return "\x01" + Name(string(d.Content))
		}
		return "\x00" + d.Offset + End + Name(string(d.Content))
	}))
	list = append(list, m.Customs...)
	if names := m.names(); len(names) > 0 {
		list = append(list, Custom("name", []byte("\x01"+sized(Vector(names...)))))
	}
	return list
}

func (m *Module) exports() []Code {
	var list []Code
	export := func(e Export) {
		list = append(list, Name(e.Name)+Code([]byte{byte(e.Kind)})+U32(e.Index))
	}
	for i, f := range m.Functions {
		if f.Export != "" {
			export(Export{f.Export, Func, m.index(i)})
		}
	}
	for _, e := range m.Exports {
		export(e)
	}
	return list
}

// names are the entries of the name section's part about functions.
func (m *Module) names() []Code {
	var list []Code
	for i, f := range m.Functions {
		if f.Name != "" {
			list = append(list, U32(m.index(i))+Name(f.Name))
		}
	}
	return list
}

// index is the function index of a function of the module's own.
func (m *Module) index(i int) uint32 { return m.Next() - uint32(len(m.Functions)) + uint32(i) }

func (e Element) code() Code {
	c := Code([]byte{e.Kind})
	if e.Kind&1 == 0 {
		if e.Kind&2 != 0 {
			c += U32(e.Table)
		}
		c += e.Offset + End
	}
	expressions := e.Kind&4 != 0
	if e.Kind&3 != 0 {
		if expressions {
			c += octet(e.Type)
		} else {
			c += "\x00"
		}
	}
	if expressions {
		return c + Vector(each(e.Items, func(i Code) Code { return i + End })...)
	}
	return c + Vector(each(e.Funcs, U32)...)
}

func each[T any](list []T, encode func(T) Code) []Code {
	out := make([]Code, len(list))
	for i := range list {
		out[i] = encode(list[i])
	}
	return out
}

func types(list []Type) Code { return Vector(each(list, octet)...) }

func octet(t Type) Code { return Code([]byte{byte(t)}) }

func sized(c Code) Code { return U32(uint32(len(c))) + c }

// Vector is a count and the items.
func Vector(items ...Code) Code {
	b := []byte(U32(uint32(len(items))))
	for _, i := range items {
		b = append(b, i...)
	}
	return Code(b)
}

// Name is a length and the text.
func Name(s string) Code { return sized(Code(s)) }

// U32 is an unsigned LEB128.
func U32(n uint32) Code {
	var b []byte
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return Code(append(b, byte(n)))
}

// S64 is a signed LEB128.
func S64(n int64) Code {
	var b []byte
	for n < -64 || n > 63 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return Code(append(b, byte(n)&0x7f))
}

func float32Code(f float32) Code {
	n := math.Float32bits(f)
	return Code([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
}

func float64Code(f float64) Code {
	n := math.Float64bits(f)
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(n >> (8 * i))
	}
	return Code(b)
}

package admission

import (
	"fmt"
	"strings"
)

const (
	page        = 64 << 10
	maxPages    = 65536 // that 32 bits can address
	maxName     = 16 << 10
	maxParams   = 255   // of a function type, and as many results
	maxTargets  = 16384 // of a br_table
	maxCustom   = 1024  // sections
	nameSection = "name"
	// localsFactor times the locals one function may have is what all of them may.
	localsFactor = 256
)

// Sections by their number (core specification, section 5.5.2).
const (
	secCustom = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
)

func sectionName(id byte) string {
	return [...]string{"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data", "data count"}[id]
}

// order is the place of each section in a module, 0 for those that may stand anywhere: the count of data segments, which
// came late, stands before the code.
func order(id byte) int {
	return [...]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 10}[id]
}

// Module is a module that Read accepted. It keeps the bytes it was read from, which must not be changed.
type Module struct {
	wasm   []byte
	limits Limits

	sections []section
	types    []functionType
	imports  []Import
	importAt []int    // where each import stands
	calls    []uint32 // types of all functions, the imported ones first
	imported int      // functions among them
	tables   []table
	memories []memory
	globals  []global
	exports  []Export
	elements int // segments
	segments int // of data, as the data count section says
	counted  bool
	bodies   []body
	leaves   []uint8 // what each costs its callers, 0 when it is charged itself
	locals   int     // of all functions
}

// section is where a section's content stands.
type section struct {
	id         byte
	name       string
	start, end int
}

type functionType struct{ params, results []byte }

// String is "(i32, i32) -> i64", and "() -> ()" for nothing.
func (t functionType) String() string {
	results := typeList(t.results)
	if len(t.results) != 1 {
		results = "(" + results + ")"
	}
	return "(" + typeList(t.params) + ") -> " + results
}

func typeList(types []byte) string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = typeName(t)
	}
	return strings.Join(names, ", ")
}

// typeName is empty for what is no value type of the core specification 2.0.
func typeName(t byte) string {
	switch t {
	case typeI32:
		return "i32"
	case typeI64:
		return "i64"
	case typeF32:
		return "f32"
	case typeF64:
		return "f64"
	case 0x7b:
		return "v128"
	case typeFunc:
		return "funcref"
	case typeExtern:
		return "externref"
	}
	return ""
}

type table struct {
	kind     byte
	min, max uint32 // max is clamped
	imported bool
}

type memory struct {
	min, max uint32 // pages; max is clamped
	imported bool
}

type global struct {
	kind    byte
	mutable bool
}

func (g global) String() string {
	if g.mutable {
		return "mut " + typeName(g.kind)
	}
	return typeName(g.kind)
}

// body is where a function's locals begin, and where its code and it end.
type body struct{ start, code, end int }

func (m *Module) functions() int { return len(m.calls) }

// leaf is what a function costs its callers, 0 when it is charged itself.
func (m *Module) leaf(function uint32) int64 {
	if i := int(function) - m.imported; i >= 0 && i < len(m.leaves) {
		return int64(m.leaves[i])
	}
	return 0
}

// renumber is the index of a function when the imports of the meter stand after the module's own.
func (m *Module) renumber(function uint32) uint32 {
	if int(function) < m.imported {
		return function
	}
	return function + meterFunctions
}

// Read parses a module and holds it to l. The error is a *Refusal.
func Read(wasm []byte, l Limits) (*Module, error) {
	m := &Module{wasm: wasm, limits: l.withDefaults()}
	r := &reader{wasm: wasm, end: len(wasm), section: "module"}
	if int64(len(wasm)) > m.limits.Module {
		return nil, &Refusal{Section: "module", Reason: fmt.Sprintf("%d octets, more than %d", len(wasm), m.limits.Module)}
	}
	if len(wasm) < 8 || string(wasm[:4]) != "\x00asm" {
		return nil, &Refusal{Section: "module", Reason: "not a WebAssembly module"}
	}
	switch string(wasm[4:8]) {
	case "\x01\x00\x00\x00":
	case "\x0d\x00\x01\x00":
		return nil, &Refusal{Section: "module", Offset: 4, Reason: "a component, of which plugins can not be made; a core module of version 1 is needed"}
	default:
		return nil, &Refusal{Section: "module", Offset: 4, Reason: "not of version 1"}
	}
	r.at = 8
	var last section
	names, customs := 0, 0
	for r.more() && r.err == nil {
		at := r.at
		s := section{id: r.octet()}
		if s.id > secDataCount {
			switch s.id {
			case 13:
				r.fail(at, "section 13 is of the proposal exception handling, which is not supported")
			default:
				r.fail(at, "section %d does not exist", s.id)
			}
			break
		}
		s.name = sectionName(s.id)
		size := int(r.u32())
		if size > r.end-r.at {
			r.fail(at, "section %s of %d octets does not fit into the %d that are left", s.name, size, r.end-r.at)
			break
		}
		s.start, s.end = r.at, r.at+size
		in := &reader{wasm: wasm, at: s.start, end: s.end, section: s.name}
		if s.id == secCustom {
			s.name = in.name(maxName)
			s.start = in.at
			if s.name == nameSection {
				names++
			}
			if names > 1 {
				in.fail(at, "a second section of the name %q", nameSection)
			}
			customs++
			if customs > maxCustom {
				in.fail(at, "more than %d custom sections", maxCustom)
			}
		} else {
			if order(s.id) <= order(last.id) {
				in.fail(at, "stands after the section %s", last.name)
			}
			last = s
			m.parse(in, s.id)
			if in.err == nil && in.more() {
				in.fail(in.at, "%d octets are left after its content", in.end-in.at)
			}
		}
		if in.err != nil {
			return nil, in.err
		}
		m.sections = append(m.sections, s)
		r.at = s.end
	}
	if r.err != nil {
		return nil, r.err
	}
	if defined := len(m.calls) - m.imported; defined != len(m.bodies) {
		return nil, &Refusal{Section: "code", Offset: len(wasm), Reason: fmt.Sprintf("%d functions are declared, %d have a body", defined, len(m.bodies))}
	}
	if m.counted && m.segments > 0 && m.find(secData) == nil {
		return nil, &Refusal{Section: "data", Offset: len(wasm), Reason: fmt.Sprintf("%d segments are counted, 0 are there", m.segments)}
	}
	return m, nil
}

// find is the section of that number, nil when there is none.
func (m *Module) find(id byte) *section {
	for i := range m.sections {
		if m.sections[i].id == id {
			return &m.sections[i]
		}
	}
	return nil
}

func (m *Module) parse(r *reader, id byte) {
	switch id {
	case secType:
		m.typeSection(r)
	case secImport:
		m.importSection(r)
	case secFunction:
		m.functionSection(r)
	case secTable:
		m.tableSection(r)
	case secMemory:
		m.memorySection(r)
	case secGlobal:
		m.globalSection(r, nil, 0)
	case secExport:
		m.exportSection(r, nil)
	case secStart:
		m.startSection(r, nil)
	case secElement:
		m.elementSection(r, nil)
	case secDataCount:
		m.segments, m.counted = int(r.u32()), true
		if m.segments > m.limits.DataSegments {
			r.fail(r.at, "%d segments, more than %d", m.segments, m.limits.DataSegments)
		}
	case secCode:
		m.codeSection(r)
	case secData:
		m.dataSection(r)
	}
}

// valueType refuses what is no value type.
func (m *Module) valueType(r *reader, at int, t byte) {
	if typeName(t) != "" {
		return
	}
	switch t {
	case 0x63, 0x64:
		r.fail(at, "type 0x%02x is of the proposal typed function references, which is not supported", t)
	case 0x69, 0x74:
		r.fail(at, "type 0x%02x is of the proposal exception handling, which is not supported", t)
	case 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x71, 0x72, 0x73:
		r.fail(at, "type 0x%02x is of the proposal garbage collection, which is not supported", t)
	default:
		r.fail(at, "type 0x%02x does not exist", t)
	}
}

func (m *Module) valueTypes(r *reader) []byte {
	n := r.count("types", 1, maxParams)
	at := r.at
	list := r.take(n)
	for i, t := range list {
		m.valueType(r, at+i, t)
	}
	return list
}

func (m *Module) typeSection(r *reader) {
	n := r.count("types", 3, m.limits.Types)
	for range n {
		at := r.at
		switch form := r.octet(); form {
		case 0x60:
		case 0x4e, 0x4f, 0x50, 0x5e, 0x5f:
			r.fail(at, "type of the form 0x%02x is of the proposal garbage collection, which is not supported", form)
		default:
			r.fail(at, "type of the form 0x%02x does not exist", form)
		}
		t := functionType{params: m.valueTypes(r), results: m.valueTypes(r)}
		if r.err != nil {
			return
		}
		m.types = append(m.types, t)
	}
}

func (m *Module) importSection(r *reader) {
	n := r.count("imports", 4, m.limits.Imports)
	for range n {
		at := r.at
		i := Import{Module: r.name(maxName), Name: r.name(maxName)}
		switch kind := r.octet(); kind {
		case 0:
			i.Kind = "function"
			t := r.index("type", len(m.types))
			if r.err != nil {
				return
			}
			i.Type = m.types[t].String()
			m.calls = append(m.calls, t)
			m.imported++
		case 1:
			i.Kind = "table"
			t := m.table(r)
			i.Type, t.imported = typeName(t.kind), true
			m.tables = append(m.tables, t)
		case 2:
			i.Kind = "memory"
			t := m.memory(r)
			t.imported = true
			m.memories = append(m.memories, t)
		case 3:
			i.Kind = "global"
			g := m.global(r)
			i.Type = g.String()
			m.globals = append(m.globals, g)
		case 4:
			r.fail(at, "import of a tag is of the proposal exception handling, which is not supported")
		default:
			r.fail(at, "import of the kind %d does not exist", kind)
		}
		if i.Module == MeterModule {
			r.fail(at, "module %q is the gateway's own", MeterModule)
		}
		if r.err != nil {
			return
		}
		m.imports, m.importAt = append(m.imports, i), append(m.importAt, at)
	}
}

func (m *Module) functionSection(r *reader) {
	n := r.count("functions", 1, m.limits.Functions)
	for range n {
		m.calls = append(m.calls, r.index("type", len(m.types)))
	}
}

// bounds reads limits: a flag, the least and perhaps the most.
func (m *Module) bounds(r *reader) (low, high uint32, bounded bool) {
	at := r.at
	flag := r.octet()
	switch flag {
	case 0, 1:
	case 2, 3:
		r.fail(at, "sharing is of the proposal threads, which is not supported")
	case 4, 5, 6, 7:
		r.fail(at, "addresses of 64 bits are of the proposal memory64, which is not supported")
	default:
		r.fail(at, "limits of the form 0x%02x do not exist", flag)
	}
	low = r.u32()
	if flag == 1 {
		if high = r.u32(); high < low && r.err == nil {
			r.fail(at, "the most, %d, is below the least, %d", high, low)
		}
	}
	return low, high, flag == 1
}

// table reads a table's type. What has no maximum gets what it begins with, or a little room when that is nothing, for
// tables that grow are rare and each entry costs the host memory.
func (m *Module) table(r *reader) table {
	at := r.at
	t := table{kind: r.octet()}
	if t.kind == 0x40 {
		r.fail(at, "table with a first value is of the proposal typed function references, which is not supported")
	}
	if t.kind != typeFunc && t.kind != typeExtern {
		r.fail(at, "table of the type 0x%02x does not exist", t.kind)
	}
	low, high, bounded := m.bounds(r)
	most := uint32(m.limits.Elements)
	if low > most {
		r.fail(at, "table of %d entries, more than %d", low, most)
	}
	if !bounded {
		high = max(low, smallTable)
	}
	t.min, t.max = low, min(high, max(most, low))
	return t
}

// smallTable is the maximum of a table that states none and begins smaller.
const smallTable = 1024

func (m *Module) tableSection(r *reader) {
	n := r.count("tables", 3, m.limits.Tables)
	for range n {
		m.tables = append(m.tables, m.table(r))
	}
	if len(m.tables) > m.limits.Tables {
		r.fail(r.at, "%d tables with the imported ones, more than %d", len(m.tables), m.limits.Tables)
	}
}

func (m *Module) memory(r *reader) memory {
	at := r.at
	low, high, bounded := m.bounds(r)
	if low > maxPages || high > maxPages {
		r.fail(at, "memory of more than %d pages", maxPages)
	}
	most := uint32(min(m.limits.Memory/page, maxPages))
	if low > most {
		r.fail(at, "memory begins with %d octets, more than %d", int64(low)*page, m.limits.Memory)
	}
	if !bounded || high > most {
		high = most
	}
	return memory{min: low, max: high}
}

func (m *Module) memorySection(r *reader) {
	at := r.at
	n := r.count("memories", 2, maxPages)
	if n+len(m.memories) > 1 {
		r.fail(at, "%d memories need the proposal multiple memories, which is not supported", n+len(m.memories))
	}
	for range n {
		m.memories = append(m.memories, m.memory(r))
	}
}

func (m *Module) global(r *reader) global {
	at := r.at
	g := global{kind: r.octet()}
	m.valueType(r, at, g.kind)
	switch v := r.octet(); v {
	case 0:
	case 1:
		g.mutable = true
	default:
		r.fail(at, "global of the form 0x%02x does not exist", v)
	}
	return g
}

// globalSection writes that there are so many more.
func (m *Module) globalSection(r *reader, w *writer, more int) {
	n := r.count("globals", 4, m.limits.Globals)
	w.u32(uint32(n + more))
	known := len(m.globals)
	for range n {
		g := m.global(r)
		w.octet(g.kind, flag(g.mutable))
		m.constant(r, w, min(known, len(m.globals)))
		if r.err != nil {
			return
		}
		if w == nil {
			m.globals = append(m.globals, g)
		}
	}
	if len(m.globals) > m.limits.Globals {
		r.fail(r.at, "%d globals with the imported ones, more than %d", len(m.globals), m.limits.Globals)
	}
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// constant reads a constant expression: one instruction and an end, for more is of the proposal extended constant
// expressions. globals says how many globals it may name.
func (m *Module) constant(r *reader, w *writer, globals int) {
	at := r.at
	d := decoder{reader: *r, m: m}
	var in instruction
	d.next(&in)
	switch {
	case d.err != nil:
	case in.op == opGlobalGet && int(in.a) >= globals:
		d.fail(at, "global %d can not be named here", in.a)
	case in.op == opI32Const, in.op == opI64Const, in.op == opF32Const, in.op == opF64Const, in.op == opGlobalGet,
		in.op == opRefNull, in.op == opRefFunc, in.op == opVector && in.sub == vectorConst:
		d.put(w, &in)
	default:
		d.fail(at, "opcode 0x%02x is not constant", in.op)
	}
	if end := d.octet(); end != opEnd && d.err == nil {
		d.fail(at, "constant expression of several instructions is of the proposal extended constant expressions, which is not supported")
	}
	w.octet(opEnd)
	*r = d.reader
}

func (m *Module) exportSection(r *reader, w *writer) {
	n := r.count("exports", 3, m.limits.Exports)
	if w != nil {
		w.u32(uint32(n + meterGlobals))
	}
	seen := make(map[string]bool, n)
	for range n {
		at := r.at
		e := Export{Name: r.name(maxName)}
		kind := r.octet()
		w.name(e.Name)
		w.octet(kind)
		var index uint32
		switch kind {
		case 0:
			index = r.index("function", m.functions())
			if r.err != nil {
				return
			}
			e.Kind, e.Type = "function", m.types[m.calls[index]].String()
			index = m.renumber(index)
		case 1:
			index = r.index("table", len(m.tables))
			if r.err != nil {
				return
			}
			e.Kind, e.Type = "table", typeName(m.tables[index].kind)
		case 2:
			index = r.index("memory", len(m.memories))
			e.Kind = "memory"
		case 3:
			index = r.index("global", len(m.globals))
			if r.err != nil {
				return
			}
			e.Kind, e.Type = "global", m.globals[index].String()
		case 4:
			r.fail(at, "export of a tag is of the proposal exception handling, which is not supported")
		default:
			r.fail(at, "export of the kind %d does not exist", kind)
		}
		w.u32(index)
		if e.Name == FuelGlobal || e.Name == DepthGlobal {
			r.fail(at, "the name %q is the gateway's own", e.Name)
		}
		if seen[e.Name] {
			r.fail(at, "a second export of the name %q", e.Name)
		}
		seen[e.Name] = true
		if r.err != nil {
			return
		}
		if w == nil {
			m.exports = append(m.exports, e)
		}
	}
}

func (m *Module) startSection(r *reader, w *writer) {
	w.u32(m.renumber(r.index("function", m.functions())))
}

// elementSection reads the segments of functions and references for tables: 8 forms (core specification, section 5.5.12).
func (m *Module) elementSection(r *reader, w *writer) {
	n := r.count("element segments", 3, m.limits.Elements)
	w.u32(uint32(n))
	left := m.limits.Elements
	for range n {
		at := r.at
		form := r.u32()
		if form > 7 {
			r.fail(at, "element segment of the form %d does not exist", form)
		}
		w.u32(form)
		active, named, expressions := form&1 == 0, form&2 != 0, form&4 != 0
		if active {
			if named {
				w.u32(r.index("table", len(m.tables)))
			} else if len(m.tables) == 0 {
				r.fail(at, "table 0 of 0 does not exist")
			}
			m.constant(r, w, len(m.globals))
		}
		if !active || named { // what there is in it is said
			kind := r.octet()
			if want := byte(0); !expressions && kind != want || expressions && kind != typeFunc && kind != typeExtern {
				r.fail(at, "element segment of the kind 0x%02x does not exist", kind)
			}
			w.octet(kind)
		}
		count := r.count("elements", 1, left)
		left -= count
		w.u32(uint32(count))
		for range count {
			if expressions {
				m.constant(r, w, len(m.globals))
			} else {
				w.u32(m.renumber(r.index("function", m.functions())))
			}
			if r.err != nil {
				return
			}
		}
	}
	m.elements = n
}

func (m *Module) dataSection(r *reader) {
	at := r.at
	n := r.count("data segments", 2, m.limits.DataSegments)
	if m.counted && n != m.segments && r.err == nil {
		r.fail(at, "%d segments are counted, %d are there", m.segments, n)
	}
	for range n {
		at := r.at
		switch form := r.u32(); form {
		case 0, 2:
			if form == 2 && r.u32() != 0 {
				r.fail(at, "a memory other than the first is named, which needs multiple memories")
			}
			if len(m.memories) == 0 {
				r.fail(at, "there is no memory for data")
			}
			m.constant(r, nil, len(m.globals))
		case 1:
		default:
			r.fail(at, "data segment of the form %d does not exist", form)
		}
		r.take(int(r.u32()))
		if r.err != nil {
			return
		}
	}
}

func (m *Module) codeSection(r *reader) {
	at := r.at
	n := r.count("function bodies", 2, m.limits.Functions)
	if defined := len(m.calls) - m.imported; n != defined && r.err == nil {
		r.fail(at, "%d functions are declared, %d have a body", defined, n)
	}
	var p plan
	leaves := make([]uint8, 0, n)
	for i := range n {
		at := r.at
		size := int(r.u32())
		if size > m.limits.Body {
			r.fail(at, "function %d has %d octets, more than %d", m.imported+i, size, m.limits.Body)
		}
		b := body{start: r.at}
		r.take(size)
		if r.err != nil {
			return
		}
		b.end = r.at
		in := &reader{wasm: r.wasm, at: b.start, end: b.end, section: r.section}
		locals := m.localsOf(in, i)
		b.code = in.at
		if m.locals += locals; m.locals > m.limits.Locals*localsFactor {
			in.fail(at, "all functions together have more than %d locals", m.limits.Locals*localsFactor)
		}
		if in.err == nil {
			in.err = p.scan(m, i, b, locals)
		}
		if in.err != nil {
			r.err = in.err
			return
		}
		m.bodies = append(m.bodies, b)
		leaves = append(leaves, p.leafCost())
	}
	m.leaves = leaves
}

// localsOf reads how many locals function i has, its parameters included.
func (m *Module) localsOf(r *reader, i int) int {
	at := r.at
	sum := uint64(len(m.types[m.calls[m.imported+i]].params))
	for range r.count("groups of locals", 2, m.limits.Locals) {
		sum += uint64(r.u32())
		at := r.at
		m.valueType(r, at, r.octet())
		if r.err != nil {
			return 0
		}
	}
	if sum > uint64(m.limits.Locals) {
		r.fail(at, "function %d has %d locals, more than %d", m.imported+i, sum, m.limits.Locals)
		return 0
	}
	return int(sum)
}
